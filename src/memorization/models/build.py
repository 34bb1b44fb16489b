"""Models from specs: real `transformers` classes at any size, from scratch or from a folder."""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.errors import UserError
from memorization.specs import ModelSpec, PretrainedSpec, VisionSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.configuration_utils import PretrainedConfig

# real classes, by architecture and head; imported from their modules, since the package's lazy index costs 0.5 s more
CLASSES = {
    ("gpt2", "language_model"): "GPT2LMHeadModel",
    ("gpt_neox", "language_model"): "GPTNeoXForCausalLM",
    ("gpt2", "classification"): "GPT2ForSequenceClassification",
    ("openai_gpt", "language_model"): "OpenAIGPTLMHeadModel",
    ("openai_gpt", "classification"): "OpenAIGPTForSequenceClassification",
    ("vit", "classification"): "ViTForImageClassification",
}


def model_class(spec: ModelSpec | VisionSpec) -> Any:
    """The `transformers` class of a spec."""
    name = CLASSES.get((spec.architecture, spec.head))
    if name is None:
        able = ", ".join(sorted(architecture for architecture, head in CLASSES if head == spec.head))
        raise UserError(f"{spec.architecture} has no {spec.head} head here: write one of {able} as architecture")
    return getattr(import_module(module_of(spec.architecture)), name)


def module_of(architecture: str) -> str:
    """Module of `transformers` that holds an architecture."""
    folder = {"openai_gpt": "openai"}.get(architecture, architecture)
    return f"transformers.models.{folder}.modeling_{folder}"


def build(spec: ModelSpec | VisionSpec, *, seed: int, embedding: "torch.Tensor | None" = None) -> "PreTrainedModel":
    """Return a freshly initialized model.

    seed: of the initial weights (the global RNG of torch is set to it).
    embedding: (vocabulary, width), needed exactly when `spec.embedding == "frozen"`: copied into the input embedding,
    which is tied to the output head, and never trained (patterns, section 3.3).
    """
    import torch

    torch.manual_seed(seed)
    configs = {"gpt2": gpt2, "gpt_neox": gpt_neox, "openai_gpt": openai_gpt, "vit": vit}
    make: Any = configs[spec.architecture]
    model: Any = model_class(spec)(make(spec))
    if (getattr(spec, "embedding", "trained") == "frozen") != (embedding is not None):
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


def labels(spec: ModelSpec | VisionSpec | PretrainedSpec) -> dict[str, Any]:
    """The number of classes as configurations take it, if there is one."""
    return {"num_labels": spec.classes} if spec.classes else {}


def gpt_sizes(spec: ModelSpec) -> dict[str, Any]:
    """What the configurations of both GPTs take from a spec; they name it alike."""
    return {
        "vocab_size": spec.vocabulary,
        "n_positions": spec.positions,
        "n_embd": spec.width,
        "n_layer": spec.layers,
        "n_head": spec.heads,
        "resid_pdrop": spec.dropout,
        "embd_pdrop": spec.dropout,
        "attn_pdrop": spec.dropout,
        "initializer_range": spec.std,
        **labels(spec),
        **NO_SPECIAL_TOKENS,
    }


def gpt2(spec: ModelSpec) -> "PretrainedConfig":
    """GPT-2: learned positions, layer norm before each block."""
    from transformers import GPT2Config

    # the same function as GPT-2's "gelu_new", in one kernel instead of eight
    return GPT2Config(**gpt_sizes(spec), activation_function="gelu_pytorch_tanh")


def gpt_neox(spec: ModelSpec) -> "PretrainedConfig":
    """GPT-NeoX, the class of Pythia: rotary positions, attention and feed-forward in parallel."""
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=spec.vocabulary,
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.width,
        hidden_dropout=spec.dropout,
        attention_dropout=spec.dropout,
        initializer_range=spec.std,
        # Pythia has a separate head; at small sizes that is most of the parameters
        tie_word_embeddings=spec.tied,
        **NO_SPECIAL_TOKENS,
    )


def openai_gpt(spec: ModelSpec) -> "PretrainedConfig":
    """The first GPT, GPT-2's twin: the same layers with the norms behind each block, and none at the end."""
    from transformers import OpenAIGPTConfig

    return OpenAIGPTConfig(**gpt_sizes(spec))


def vit(spec: VisionSpec) -> "PretrainedConfig":
    """Vision transformer with the norms before each block."""
    from transformers import ViTConfig

    return ViTConfig(
        image_size=spec.image,
        patch_size=spec.patch,
        num_channels=spec.channels,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.width,
        hidden_dropout_prob=spec.dropout,
        attention_probs_dropout_prob=spec.dropout,
        initializer_range=spec.std,
        **labels(spec),
    )


def save(model: "PreTrainedModel", folder: Path) -> Path:
    """Save as `config.json` and `model.safetensors`, loadable by `from_pretrained`; returns the weights' path."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def load(
    folder: Path, spec: ModelSpec | VisionSpec | PretrainedSpec | None = None, *, new_head: bool = False
) -> "PreTrainedModel":
    """Load what `save` wrote (or any model folder), weights from safetensors only.

    spec: what to load it as; None is a causal language model. A head that the folder does not hold is drawn from
    torch's global RNG. new_head: so is a classifier's that it does hold.
    """
    from transformers.utils import logging

    if not (folder / "config.json").is_file():
        raise UserError(f"no model in {folder}: run the training job that makes it first")
    check_weights(folder)
    # it would tell of every weight of a head that is dropped or new, which is what was asked for
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = loader(spec).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **(labels(spec) if spec else {})
        )
    finally:
        logging.set_verbosity(level)
    if new_head:
        renew_head(model)
    return model


def check_weights(folder: Path) -> None:
    """UserError unless a model folder holds the safetensors weights that it should; pickled ones are never read."""
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    shards = not whole.is_file() and index.is_file()  # in this order, as transformers looks for them
    wanted = sorted(set(json.loads(index.read_text())["weight_map"].values())) if shards else [whole.name]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder.name}: {folder} lacks the safetensors weights {', '.join(missing)}: delete the folder so that it "
            "is made again; if it is an asset (config/assets.yaml), let `files` name them, and pin a revision that has "
            "them, since pickled weights (.bin) are never read"
        )


def fresh(folder: Path, spec: PretrainedSpec) -> "PreTrainedModel":
    """A model of a folder's configuration with weights from torch's global RNG."""
    from transformers import AutoConfig

    return loader(spec).from_config(AutoConfig.from_pretrained(folder, local_files_only=True, **labels(spec)))


def loader(spec: ModelSpec | VisionSpec | PretrainedSpec | None) -> Any:
    """Class with the `from_pretrained` that gives a spec's model."""
    if isinstance(spec, ModelSpec | VisionSpec):
        return model_class(spec)
    import transformers

    if spec is None or (spec.head == "language_model" and not spec.masked):
        return transformers.AutoModelForCausalLM
    if spec.head == "language_model":
        return transformers.AutoModelForMaskedLM
    return (
        transformers.AutoModelForImageClassification if spec.images else transformers.AutoModelForSequenceClassification
    )


def renew_head(model: Any) -> None:
    """Draw all linear layers outside the base model anew, normal with the model's initial std; biases 0."""
    import torch

    base = {id(module) for module in model.base_model.modules()}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and id(module) not in base:
            torch.nn.init.normal_(module.weight, std=model.config.initializer_range)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
