"""Tiny random `transformers` models of many families, and batches for them."""

from collections.abc import Callable

import torch
import transformers as t

VOCABULARY, CLASSES, WIDTH = 40, 3, 16
TEXT = dict(vocab_size=VOCABULARY, num_labels=CLASSES, pad_token_id=0, bos_token_id=1, eos_token_id=2)
BASE = dict(hidden_size=WIDTH, num_attention_heads=2, intermediate_size=24)
DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BERT = {**TEXT, **BASE, **DROPOUT, "max_position_embeddings": 32}
LLAMA = {**TEXT, **BASE, "num_key_value_heads": 1, "head_dim": 8}
IMAGE = {**BASE, **DROPOUT, "num_labels": CLASSES, "image_size": 8, "patch_size": 4}


def deberta(layers: int) -> t.PreTrainedModel:
    config = t.DebertaConfig(**BERT, num_hidden_layers=layers, relative_attention=True, pos_att_type=["c2p", "p2c"])
    return t.DebertaForSequenceClassification(config)


def distilbert(layers: int) -> t.PreTrainedModel:
    size = dict(dim=WIDTH, n_heads=2, hidden_dim=24, n_layers=layers, max_position_embeddings=32)
    return t.DistilBertForSequenceClassification(t.DistilBertConfig(**TEXT, **size, dropout=0.0, attention_dropout=0.0))


def gpt_neo(layers: int) -> t.PreTrainedModel:
    size = dict(hidden_size=WIDTH, num_layers=layers, num_heads=2, intermediate_size=24, max_position_embeddings=32)
    kinds = [[["global", "local"], layers // 2]]
    return t.GPTNeoForSequenceClassification(t.GPTNeoConfig(**TEXT, **size, attention_types=kinds, window_size=4))


def gpt2(layers: int) -> t.PreTrainedModel:
    no_dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config = t.GPT2Config(**TEXT, **no_dropout, n_embd=WIDTH, n_layer=layers, n_head=2, n_positions=32)
    return t.GPT2ForSequenceClassification(config)


def t5(layers: int) -> t.PreTrainedModel:
    size = dict(d_model=WIDTH, num_layers=layers, num_decoder_layers=2, num_heads=2, d_ff=24, d_kv=8, dropout_rate=0.0)
    config = t.T5Config(vocab_size=VOCABULARY, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, **size)
    return t.T5ForConditionalGeneration(config)


def opt(layers: int) -> t.PreTrainedModel:
    size = dict(hidden_size=WIDTH, num_attention_heads=2, ffn_dim=24, max_position_embeddings=32, dropout=0.0)
    return t.OPTForSequenceClassification(t.OPTConfig(**TEXT, **size, num_hidden_layers=layers))


def made(model: type, config: type, **values: object) -> Callable[[int], t.PreTrainedModel]:
    return lambda layers: model(config(**values, num_hidden_layers=layers))


MODELS: dict[str, Callable[[int], t.PreTrainedModel]] = {
    "bert": made(t.BertForSequenceClassification, t.BertConfig, **BERT),
    "deberta": deberta,
    "distilbert": distilbert,
    "electra": made(t.ElectraForSequenceClassification, t.ElectraConfig, **BERT, embedding_size=8),
    "longformer": made(t.LongformerForSequenceClassification, t.LongformerConfig, **BERT, attention_window=4),
    "roberta": made(t.RobertaForSequenceClassification, t.RobertaConfig, **BERT),
    "gpt_neo": gpt_neo,
    "qwen2": made(t.Qwen2ForSequenceClassification, t.Qwen2Config, **LLAMA),
    "gpt2": gpt2,
    "roberta_prelayernorm": made(t.RobertaPreLayerNormForSequenceClassification, t.RobertaPreLayerNormConfig, **BERT),
    "vit": made(t.ViTForImageClassification, t.ViTConfig, **IMAGE),
    "deit": made(t.DeiTForImageClassification, t.DeiTConfig, **IMAGE),
    "vit_msn": made(t.ViTMSNForImageClassification, t.ViTMSNConfig, **IMAGE),
    "bert_mlm": made(t.BertForMaskedLM, t.BertConfig, **BERT),
    "llama": made(t.LlamaForSequenceClassification, t.LlamaConfig, **LLAMA),
    "gemma2": made(t.Gemma2ForSequenceClassification, t.Gemma2Config, **LLAMA),
    "gemma3": made(t.Gemma3ForCausalLM, t.Gemma3TextConfig, **LLAMA),
    "gpt_neox": made(t.GPTNeoXForSequenceClassification, t.GPTNeoXConfig, **TEXT, **BASE),
    "albert": made(t.AlbertForSequenceClassification, t.AlbertConfig, **BERT, embedding_size=8),
    "olmo2": made(t.Olmo2ForCausalLM, t.Olmo2Config, **LLAMA),
    "phi": made(t.PhiForCausalLM, t.PhiConfig, **TEXT, **BASE),
    "opt": opt,
    "t5": t5,
}
PAPERS = list(MODELS)[:13]  # the families of the paper


def tiny(name: str, layers: int = 6, seed: int = 0) -> t.PreTrainedModel:
    """A freshly initialised model in evaluation mode."""
    torch.manual_seed(seed)
    return MODELS[name](layers).eval()


def batch(model: t.PreTrainedModel, items: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs of a model: images, or token ids without padding."""
    generator = torch.Generator().manual_seed(seed)
    if hasattr(model.config, "patch_size"):
        return {"pixel_values": torch.randn(items, 3, 8, 8, generator=generator)}
    ids = torch.randint(3, VOCABULARY, (items, 8), generator=generator)
    extra = {"decoder_input_ids": ids[:, :5]} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **extra}


def randomize(model: t.PreTrainedModel, seed: int = 1) -> None:
    """Move every parameter of one dimension, so those of norms, away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator).to(parameter))
