"""Tiny models and literal rules for tests of TokenSwap."""

import functools
import json
import pydoc_data.topics as english

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from memorization.methods.tokenswap import (
    TokenSwapProcessor,
)

torch.set_num_threads(1)
V, PAD = 60, 0
WORDS = torch.tensor([3, 7, 11, 20, 21, 22, 23, 40, 41, 42, 43, 44, 45, 50])
NONE = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
ARCHITECTURES = ["gpt2", "neox", "llama", "opt", "bloom"]


def model(kind: str, seed: int, vocabulary: int = V, positions: int = 64):
    """A tiny model with initial weights large enough that its distributions differ from uniform."""
    size = {"vocab_size": vocabulary, **NONE, "initializer_range": 0.5}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **size}
    rotary = {**small, "intermediate_size": 32, "max_position_embeddings": positions}
    torch.manual_seed(seed)
    built = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=positions, **size)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**rotary)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**rotary)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**rotary, sliding_window=6, num_key_value_heads=2)),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                **{k: v for k, v in size.items() if k != "initializer_range"},
                init_std=0.5,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                ffn_dim=32,
                word_embed_proj_dim=16,
                max_position_embeddings=positions,
            )
        ),
        "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, **size)),
    }[kind]()
    return built.eval()


@functools.cache
def cached_model(kind: str, seed: int, vocabulary: int = V):
    return model(kind, seed, vocabulary)


def processor(aux, words=(WORDS, WORDS), **options) -> TokenSwapProcessor:
    return TokenSwapProcessor(aux, None, words, **options)


def literal(main, aux, ids_main, ids_aux):
    """The paper's formula in float64 probabilities, for one distribution, element by element."""
    p, q = main.double().softmax(-1), aux.double().softmax(-1)
    final = p.clone()
    mass, of_aux = sum(p[i] for i in ids_main), sum(q[i] for i in ids_aux)
    for i, j in zip(ids_main, ids_aux, strict=True):
        final[i] = mass / of_aux * q[j]
    return final


def generate(main, ids, *given, steps=12, mask=None, **options):
    mask = torch.ones_like(ids) if mask is None else mask
    return main.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=steps,
        pad_token_id=PAD,
        logits_processor=list(given),
        **({"do_sample": False} | options),
    )


def prompts(rows: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, V, (rows, time), generator=torch.Generator().manual_seed(seed))


def stepwise(main, aux, ids, steps, words=WORDS):
    """Greedy decoding of one row with the literal rule and full forward passes."""
    ids = ids[None]
    with torch.no_grad():
        for _ in range(steps):
            final = literal(main(input_ids=ids).logits[0, -1], aux(input_ids=ids).logits[0, -1], words, words)
            ids = torch.cat([ids, final.argmax()[None, None]], 1)
    return ids[0]


def text() -> str:
    """Real English with technical terms, and some text beyond ASCII."""
    parts = [" ".join(english.topics[name].split()) for name in ("for", "with", "exceptions", "naming")]
    return " ".join(parts) + " Où est-il allé ? naïve café — “quoted” … 東京 is large, 🙂 isn't it?"


@functools.cache
def trained(kind: str) -> Tokenizer:
    corpus = [s + "." for s in text().split(".")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind.startswith("bytes"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        size = 700 if kind == "bytes" else 450
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
        )
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        )
    else:  # as Llama 2: no pre-tokenizer, unknown characters as bytes
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = ["<unk>"]
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, show_progress=False, max_token_length=8, limit_alphabet=70,
            initial_alphabet=[],
        )  # fmt: skip
    tokenizer.train_from_iterator(corpus, trainer)
    if kind == "fallback":
        tokenizer.add_tokens([])
        state = json.loads(tokenizer.to_str())
        vocabulary = state["model"]["vocab"]
        for byte in range(256):
            vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
        tokenizer = Tokenizer.from_str(json.dumps(state))
    if kind == "wordpiece":
        ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer
