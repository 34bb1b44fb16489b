"""Models from specs: real `transformers` classes at any size, from scratch or from a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.errors import UserError
from memorization.specs import ModelSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def build(spec: ModelSpec, *, seed: int, embedding: "torch.Tensor | None" = None) -> "PreTrainedModel":
    """Return a freshly initialized causal language model.

    seed: of the initial weights (the global RNG of torch is set to it).
    embedding: (vocabulary, width), needed exactly when `spec.embedding == "frozen"`: copied into the input embedding,
    which is tied to the output head, and never trained (patterns, section 3.3).
    """
    import torch

    torch.manual_seed(seed)
    model: Any = {"gpt2": gpt2, "gpt_neox": gpt_neox}[spec.architecture](spec)
    if (spec.embedding == "frozen") != (embedding is not None):
        raise UserError("a frozen embedding needs a matrix, a trained one takes none: see `embedding` of the model")
    if embedding is not None:
        weight = model.get_input_embeddings().weight
        if tuple(embedding.shape) != tuple(weight.shape):
            raise UserError(
                f"the embedding matrix is {tuple(embedding.shape)}, the model needs {tuple(weight.shape)}: "
                "make it for this vocabulary and width"
            )
        with torch.no_grad():
            weight.copy_(embedding)
        weight.requires_grad_(False)
    return model


NO_SPECIAL_TOKENS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def gpt2(spec: ModelSpec) -> "PreTrainedModel":
    """GPT-2: learned positions, layer norm before each block."""
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel  # the package's lazy index costs 0.5 s more

    config = GPT2Config(
        vocab_size=spec.vocabulary,
        n_positions=spec.positions,
        n_embd=spec.width,
        n_layer=spec.layers,
        n_head=spec.heads,
        resid_pdrop=spec.dropout,
        embd_pdrop=spec.dropout,
        attn_pdrop=spec.dropout,
        initializer_range=spec.std,
        # the same function as GPT-2's "gelu_new", in one kernel instead of eight
        activation_function="gelu_pytorch_tanh",
        **NO_SPECIAL_TOKENS,
    )
    return GPT2LMHeadModel(config)


def gpt_neox(spec: ModelSpec) -> "PreTrainedModel":
    """GPT-NeoX, the class of Pythia: rotary positions, attention and feed-forward in parallel."""
    from transformers import GPTNeoXConfig
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=spec.vocabulary,
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.width,
        hidden_dropout=spec.dropout,
        attention_dropout=spec.dropout,
        initializer_range=spec.std,
        # Pythia has a separate head; at these sizes that would be most of the parameters
        tie_word_embeddings=True,
        **NO_SPECIAL_TOKENS,
    )
    return GPTNeoXForCausalLM(config)


def save(model: "PreTrainedModel", folder: Path) -> Path:
    """Save as `config.json` and `model.safetensors`, loadable by `from_pretrained`; returns the weights' path."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def load(folder: Path) -> "PreTrainedModel":
    """Load what `save` wrote (or any causal language model folder), weights from safetensors only."""
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise UserError(f"no model in {folder}: run the training job that makes it first")
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
