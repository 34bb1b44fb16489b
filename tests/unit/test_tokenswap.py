"""TokenSwap's rule, its logits processor, and its form for servers of probabilities."""

import functools
import json
import math
import pydoc_data.topics as english

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from memorization.errors import UserError
from memorization.methods.auxiliary import Auxiliary, window_start
from memorization.methods.retokenize import RowText, Tokenizers
from memorization.methods.swap_set import SwapSet
from memorization.methods.tokenswap import (
    REMAINDER,
    TokenSwapProcessor,
    TokenSwapServer,
    swap_log_probs,
    swap_next_token,
    teacher_forced_log_probs,
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


# the rule


@st.composite
def distributions(draw):
    seed, scale = draw(st.integers(0, 2**31)), draw(st.sampled_from([0.1, 1.0, 10.0, 80.0]))
    size, size_aux = draw(st.integers(2, 30)), draw(st.integers(2, 30))
    k = draw(st.integers(1, min(size, size_aux)))
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randperm(size, generator=rng)[:k], torch.randperm(size_aux, generator=rng)[:k]
    return scale * torch.randn(size, generator=rng), scale * torch.randn(size_aux, generator=rng), *ids


@given(distributions())
@settings(max_examples=60, deadline=None)
def test_the_rule_is_the_papers_formula(case):
    main, aux, ids_main, ids_aux = case
    final = swap_log_probs(main, aux, ids_main, ids_aux)
    p, p_final = main.double().softmax(-1), final.double().exp()
    assert final.dtype == torch.float32
    # a log-probability near -200 is only known to 1e-5 in float32
    torch.testing.assert_close(p_final[ids_main].sum(), p[ids_main].sum(), atol=1e-6, rtol=1e-4)
    outside = torch.ones(len(main), dtype=torch.bool)
    outside[ids_main] = False
    assert torch.equal(final[outside], main.log_softmax(-1)[outside])
    torch.testing.assert_close(p_final.sum(), torch.tensor(1.0).double(), atol=1e-6, rtol=0)
    q = aux.double().softmax(-1)
    if q[ids_aux].sum() > 1e-300:
        torch.testing.assert_close(p_final, literal(main, aux, ids_main, ids_aux), atol=1e-6, rtol=5e-4)


def test_limits_of_the_rule():
    main, aux = torch.randn(3, 5, V), torch.randn(3, 5, V)
    none, all_of_it = torch.tensor([]), torch.arange(V)
    torch.testing.assert_close(swap_log_probs(main, aux, none), main.log_softmax(-1))
    torch.testing.assert_close(swap_log_probs(main, aux, all_of_it), aux.log_softmax(-1))
    torch.testing.assert_close(swap_log_probs(main, main + 3.0, WORDS), main.log_softmax(-1))
    assert swap_log_probs(main, aux, WORDS).shape == main.shape
    assert swap_log_probs(main.double(), aux, WORDS).dtype == torch.float64
    by_hand = swap_log_probs(
        torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.1, 0.6, 0.3]).log(), torch.tensor([0, 1])
    )
    torch.testing.assert_close(by_hand.exp(), torch.tensor([0.8 / 7, 0.8 * 6 / 7, 0.2]))


def test_an_auxiliary_without_mass_on_the_words_leaves_the_main_distribution():
    main, aux = torch.randn(2, V), torch.randn(2, V)
    aux[0, WORDS] = -torch.inf
    final = swap_log_probs(main, aux, WORDS)
    torch.testing.assert_close(final[0], main[0].log_softmax(-1))
    torch.testing.assert_close(final[1].exp(), literal(main[1], aux[1], WORDS, WORDS).float())


def test_a_mass_too_small_for_a_probability_still_orders_the_words():
    """exp(-200) is 0 in float32; the words' shares are not."""
    main, aux = torch.zeros(V), torch.zeros(V)
    aux[WORDS] = -200.0 - torch.arange(len(WORDS))
    final = swap_log_probs(main, aux, WORDS)
    expected = (-torch.arange(len(WORDS)).float()).log_softmax(-1) + math.log(len(WORDS) / V)
    torch.testing.assert_close(final[WORDS], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    main, aux = (8 * torch.randn(4, V)).to(dtype), (8 * torch.randn(4, V)).to(dtype)
    final = swap_log_probs(main, aux, WORDS)
    assert final.dtype == torch.float32
    torch.testing.assert_close(final.exp().sum(-1), torch.ones(4), atol=1e-6, rtol=0)
    for row in range(4):
        expected = literal(main[row].float(), aux[row].float(), WORDS, WORDS).float()
        torch.testing.assert_close(final[row].exp(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_auxiliary_is_named(bad):
    aux = torch.zeros(2, V)
    aux[1, WORDS[2]] = bad
    with pytest.raises(UserError, match="float32 or bfloat16"):
        swap_log_probs(torch.zeros(2, V), aux, WORDS)


# the processor


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_generate_writes_what_the_literal_rule_writes(kind):
    """Greedy, a batch, KV caches in both models, against full passes one row at a time."""
    main, aux, ids = cached_model("gpt2", 1), cached_model(kind, 2), prompts(3, 5)
    written = generate(main, ids, processor(aux))
    plain = generate(main, ids)
    assert not torch.equal(written, plain)
    for row, prompt in zip(written, ids, strict=True):
        assert row.tolist() == stepwise(main, aux, prompt, 12).tolist()


@pytest.mark.parametrize("kind", ARCHITECTURES + ["mistral"])
def test_left_padding_and_the_cache_change_nothing(kind):
    main, aux = cached_model("neox", 1), cached_model(kind, 2)
    alone = [prompts(1, n, seed=n) for n in (3, 8, 5)]
    padded = torch.cat([torch.cat([torch.full((1, 8 - p.shape[1]), PAD), p], 1) for p in alone])
    mask = (padded != PAD).long()
    expected = torch.stack([generate(main, p, processor(aux))[0, -12:] for p in alone])
    for options in ({"pad_token_id": PAD}, {"attention_mask": mask}, {"attention_mask": mask, "use_cache": False}):
        written = generate(main, padded, processor(aux, **options), mask=mask)
        assert torch.equal(written[:, -12:], expected)
    blank = torch.zeros(3, V)
    apart = torch.cat([processor(aux)(p, blank[:1]) for p in alone])
    torch.testing.assert_close(processor(aux, pad_token_id=PAD)(padded, blank), apart, atol=1e-4, rtol=1e-4)
    shown = processor(aux)(padded, blank)  # seen as tokens, the padding does count
    assert (shown - apart)[[0, 2]].abs().amax(1).min() > 1e-3


def test_padding_that_is_also_the_bos_token():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"), bos_token="a", eos_token="a", pad_token="a")
    pad = tokenizer.pad_token_id
    aux = cached_model("gpt2", 2, len(tokenizer))
    swap = TokenSwapProcessor(aux, tokenizer, words=["the", "of"])
    with_bos = torch.tensor([[pad, pad, pad, 5], [pad, 6, 7, 8]])
    assert swap._leading_padding(with_bos).tolist() == [2, 0]
    without = torch.tensor([[pad, pad, 9, 5], [9, 6, 7, 8]])
    assert swap._leading_padding(without).tolist() == [2, 0]
    assert swap._leading_padding(with_bos[:1]).tolist() == [0]


def test_one_processor_serves_several_generations():
    main, aux = cached_model("llama", 1), cached_model("gpt2", 2)
    one = processor(aux)
    for rows, time, seed in ((2, 5, 0), (2, 5, 1), (3, 4, 2), (2, 6, 0), (2, 5, 0)):
        ids = prompts(rows, time, seed)
        assert torch.equal(generate(main, ids, one), generate(main, ids, processor(aux)))
    longer = torch.cat([prompts(2, 5), prompts(2, 1, 9)], 1)  # the same shape as a next step, but other tokens
    assert torch.equal(generate(main, longer, one), generate(main, longer, processor(aux)))


def test_sampling_draws_from_the_final_distribution_and_repeats_by_seed():
    main, aux, ids = cached_model("gpt2", 1), cached_model("gpt2", 2), prompts(2, 5)

    def sample(**options):
        torch.manual_seed(0)
        return generate(main, ids, processor(aux), do_sample=True, **options)

    assert torch.equal(sample(top_k=0), sample(top_k=0))
    many = sample(top_k=0, num_return_sequences=2000, steps=1)[:, -1].reshape(2, -1)
    with torch.no_grad():
        expected = swap_log_probs(main(ids).logits[:, -1], aux(ids).logits[:, -1], WORDS).exp()
    for row in range(2):
        seen = torch.bincount(many[row], minlength=V) / 2000
        assert (seen - expected[row]).abs().max() < 4 * (0.25 / 2000) ** 0.5


def test_temperature_and_top_k_apply_to_the_swapped_distribution():
    main, aux, ids = cached_model("gpt2", 1), cached_model("gpt2", 2), prompts(2, 5)
    options = {"do_sample": True, "temperature": 0.5, "top_k": 4, "output_scores": True}
    out = generate(main, ids, processor(aux), steps=1, return_dict_in_generate=True, **options)
    with torch.no_grad():
        final = swap_log_probs(main(ids).logits[:, -1], aux(ids).logits[:, -1], WORDS)
    best = final.topk(4).indices
    expected = torch.full_like(final, -torch.inf).scatter(1, best, final.gather(1, best) / 0.5)
    torch.testing.assert_close(out.scores[0], expected, atol=1e-5, rtol=1e-5)


def test_a_list_of_processors_and_forbidden_tokens():
    main, aux, ids = cached_model("gpt2", 1), cached_model("gpt2", 2), prompts(2, 5)
    in_list = main.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([processor(aux)]),
    )
    assert torch.equal(in_list, generate(main, ids, processor(aux), steps=8))
    used = sorted(set(in_list[:, 5:].flatten().tolist()) & set(WORDS.tolist()))
    assert used
    barred = generate(main, ids, processor(aux), steps=8, bad_words_ids=[[i] for i in used])
    assert not set(barred[:, 5:].flatten().tolist()) & set(used)


def test_beam_search_matches_a_processor_without_state():
    main, aux, ids = cached_model("gpt2", 1), cached_model("gpt2", 2), prompts(2, 5)

    class Stateless(TokenSwapProcessor):
        def __call__(self, input_ids, scores):
            self.reset()
            return super().__call__(input_ids, scores)

    beams = {"num_beams": 3}
    expected = generate(main, ids, Stateless(aux, None, (WORDS, WORDS)), **beams)
    assert torch.equal(generate(main, ids, processor(aux), **beams), expected)


def test_the_record_says_what_was_swapped():
    main, aux, ids = cached_model("gpt2", 1), cached_model("gpt2", 2), prompts(2, 5)
    swap = processor(aux, record=True)
    written = generate(main, ids, swap)
    assert torch.equal(swap.final_choice, written[:, 5:])
    with torch.no_grad():
        logits = main(written).logits[:, 4:-1]
    assert torch.equal(swap.main_choice, logits.argmax(-1))
    torch.testing.assert_close(swap.mass, logits.softmax(-1)[..., WORDS].sum(-1))
    assert torch.equal(swap.swapped, swap.main_choice != written[:, 5:]) and swap.swapped.any()
    generate(main, ids[:1], swap, steps=3)
    assert swap.mass.shape == (1, 3)
    with pytest.raises(UserError, match="record=True"):
        _ = processor(aux).mass


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_steps_equal_the_teacher_forced_passes(kind):
    main, aux, ids = cached_model(kind, 1), cached_model("opt", 2), prompts(2, 5)
    written = generate(main, ids, processor(aux))
    forced = teacher_forced_log_probs(main, aux, written, ids=(WORDS, WORDS))
    assert forced.shape == (2, 17, V)
    assert torch.equal(forced[:, 4:-1].argmax(-1), written[:, 5:])
    left = torch.cat([torch.full((2, 3), PAD), written], 1)
    mask = (torch.arange(20) >= 3).long().expand(2, -1)
    padded = teacher_forced_log_probs(main, aux, left, mask, ids=(WORDS, WORDS))
    torch.testing.assert_close(padded[:, 3:], forced, atol=1e-4, rtol=1e-4)


def test_a_half_precision_auxiliary_runs():
    main, ids = cached_model("gpt2", 1), prompts(2, 5)
    swap = processor(model("gpt2", 2).to(torch.bfloat16))
    written = generate(main, ids, swap, output_scores=True, return_dict_in_generate=True)
    for scores in written.scores:
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2), atol=1e-5, rtol=0)


# longer contexts than the auxiliary knows


def test_a_context_too_long_is_an_error_or_a_window():
    main, aux, ids = cached_model("gpt2", 1), model("gpt2", 2, positions=16), prompts(2, 12)
    with pytest.raises(UserError, match=r"17 tokens.*max_position_embeddings is 16.*long_context"):
        generate(main, ids, processor(aux))
    with pytest.raises(UserError, match='"window"'):
        processor(aux, long_context="windows")
    written = generate(main, ids, processor(aux, long_context="window"), steps=30)
    for row in written:
        for t in range(12, 42):
            with torch.no_grad():
                seen = row[window_start(t, 16) : t]
                assert 12 < len(seen) <= 16 or t <= 16
                final = literal(main(row[None, :t]).logits[0, -1], aux(seen[None]).logits[0, -1], WORDS, WORDS)
            assert row[t] == final.argmax()
    no_limit = generate(main, ids, processor(cached_model("bloom", 2)), steps=50)
    assert no_limit.shape == (2, 62)


# different vocabularies


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


PAIRS = [
    ("bytes", "bytes2"),
    ("bytes2", "bytes"),
    ("bytes", "wordpiece"),
    ("bytes", "unigram"),
    ("bytes", "fallback"),
    ("wordpiece", "bytes"),
    ("unigram", "bytes"),
    ("fallback", "bytes2"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_incremental_text_equals_encoding_it_all_again(pair):
    """At every step: real text token by token, then tokens at random, many of which are no whole characters."""
    main, aux = (trained(kind) for kind in pair)
    streams = [main.encode(text()[-700:]).ids]
    rng = torch.Generator().manual_seed(0)
    streams.append(torch.randint(0, main.get_vocab_size(), (250,), generator=rng).tolist())
    both = Tokenizers(main, aux)
    both.fallback = both.fallback or [0]  # for the first tokens at random, which may be special
    for stream in streams:
        row = RowText(both)
        for t in range(1, len(stream) + 1):
            seen = row.update(stream[:t])
            whole = main.decode(stream[:t], skip_special_tokens=True)
            assert row.text == whole, t
            expected = both.front + aux.encode(whole, add_special_tokens=False).ids if whole else both.fallback
            if pair[1] == "wordpiece" and whole:  # with the front, without the [SEP] behind
                assert expected == aux.encode(whole).ids[:-1]
            assert seen == (expected if len(expected) > len(both.front) else both.fallback), t


@pytest.mark.parametrize("kind", ["bytes2", "wordpiece", "unigram"])
def test_incremental_work_does_not_grow_with_the_text(kind, monkeypatch):
    main, aux = trained("bytes"), trained(kind)
    both, longest = Tokenizers(main, aux), 0
    encode = both.encode

    def counted(piece: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(piece))
        return encode(piece)

    monkeypatch.setattr(both, "encode", counted)
    row, ids = RowText(both), main.encode(text()[:3000]).ids
    for t in range(1, len(ids) + 1):
        row.update(ids[:t])
    assert longest < 400


def full(both: Tokenizers, main_ids: list[int]) -> torch.Tensor:
    whole = both.main.decode(main_ids, skip_special_tokens=True)
    return torch.tensor([both.front + both.aux.encode(whole, add_special_tokens=False).ids])


@pytest.mark.parametrize("kind", ARCHITECTURES + ["mistral"])
def test_the_auxiliary_follows_contexts_that_lose_their_end(kind):
    """Rows of a batch grow, stay or fall back by different lengths; the cached logits are those of full passes."""
    aux, rng = Auxiliary(cached_model(kind, 2)), torch.Generator().manual_seed(0)
    rows = [torch.randint(1, V, (n,), generator=rng).tolist() for n in (9, 4, 12)]
    for step in range(30):
        logits = aux.advance(rows)
        with torch.no_grad():
            expected = torch.cat([aux.model(torch.tensor([row])).logits[:, -1] for row in rows])
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        for i, row in enumerate(rows):
            drop, add = ((3, 1), (0, 2), (1, 1), (0, 0), (2, 0), (0, 1))[(step * (i + 1) + i) % 6]
            rows[i] = row[: max(1, len(row) - drop)] + torch.randint(1, V, (add,), generator=rng).tolist()
        assert max(map(len, rows)) <= 64


@pytest.mark.parametrize("kind", ["bytes2", "wordpiece", "unigram"])
def test_two_vocabularies_equal_the_literal_decode_and_encode(kind):
    main_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"), bos_token="<s>", pad_token="<s>")
    aux_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained(kind))
    main = model("gpt2", 1, len(main_tokenizer), positions=128)
    aux = model("gpt2", 2, len(aux_tokenizer), positions=256)
    swap = TokenSwapProcessor(aux, main_tokenizer, "english-110", aux_tokenizer=aux_tokenizer)
    assert len(swap.coverage) >= 20
    both = Tokenizers(trained("bytes"), trained(kind))
    source = [main_tokenizer.encode(text()[i : i + 400]) for i in (0, 1000, 2000)]
    rows = torch.tensor([[0] * pad + row[: 90 - pad] for pad, row in zip((7, 0, 3), source, strict=True)])
    swap.attention_mask = (torch.arange(20) >= torch.tensor([7, 0, 3])[:, None]).long()
    for t in range(20, 90):
        with torch.no_grad():
            scores = main(rows[:, :t]).logits[:, -1]
            expected = torch.stack(
                [
                    literal(one, aux(full(both, row[pad:t].tolist())).logits[0, -1], swap.ids_main, swap.ids_aux)
                    for one, row, pad in zip(scores, rows, (7, 0, 3), strict=True)
                ]
            )
        torch.testing.assert_close(swap(rows[:, :t], scores).double().exp(), expected, atol=1e-5, rtol=1e-4)


def test_two_vocabularies_with_a_window():
    main, both = PreTrainedTokenizerFast(tokenizer_object=trained("bytes")), Tokenizers(*map(trained, PAIRS[0]))
    aux = model("gpt2", 2, trained("bytes2").get_vocab_size(), positions=32)
    swap = TokenSwapProcessor(aux, main, aux_tokenizer=both.aux, long_context="window")
    rows = torch.tensor([main.encode(text()[i : i + 400])[:60] for i in (0, 1000)])
    for t in range(10, 60):
        logits = swap.auxiliary_logits(rows[:, :t])
        for row, seen in zip(rows, logits, strict=True):
            whole = full(both, row[:t].tolist())
            with torch.no_grad():
                expected = aux(whole[:, window_start(whole.shape[1], 32) :]).logits[0, -1]
            torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)
    assert whole.shape[1] > 64
    with pytest.raises(UserError, match="max_position_embeddings is 32"):
        TokenSwapProcessor(aux, main, aux_tokenizer=both.aux).auxiliary_logits(rows)


def test_two_vocabularies_generate_and_teacher_force_the_same():
    main_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"), bos_token="<s>", pad_token="<s>")
    aux_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"))
    main = model("neox", 1, len(main_tokenizer), positions=128)
    aux = model("llama", 2, len(aux_tokenizer), positions=512)
    swap = TokenSwapProcessor(aux, main_tokenizer, aux_tokenizer=aux_tokenizer)
    ids = torch.tensor([main_tokenizer.encode(text()[i : i + 60])[:12] for i in (0, 500)])
    ids[1, :4] = 0
    mask = (torch.arange(12) >= torch.tensor([0, 4])[:, None]).long()
    written = main.generate(
        ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0, logits_processor=[swap]
    )
    mask = torch.cat([mask, torch.ones(2, 20, dtype=torch.long)], 1)
    forced = teacher_forced_log_probs(main, aux, written, mask, tokenizer=main_tokenizer, aux_tokenizer=aux_tokenizer)
    assert torch.equal(forced[:, 11:-1].argmax(-1), written[:, 12:])
    # the same vocabulary under another name is one vocabulary
    again = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"))
    small = model("gpt2", 2, len(main_tokenizer))
    assert TokenSwapProcessor(small, main_tokenizer, aux_tokenizer=again)._tokenizers is None


def test_what_stands_before_the_auxiliarys_text():
    main = trained("bytes")
    wordpiece = PreTrainedTokenizerFast(tokenizer_object=trained("wordpiece"), bos_token="[CLS]")
    cls = wordpiece.bos_token_id
    assert Tokenizers(main, wordpiece).front == [cls]
    assert Tokenizers(main, wordpiece, aux_bos=False).front == []
    assert Tokenizers(main, PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"))).front == []
    bos = PreTrainedTokenizerFast(tokenizer_object=trained("bytes2"), bos_token="<s>")
    assert Tokenizers(main, bos, aux_bos=True).front == [bos.bos_token_id]
    assert RowText(Tokenizers(main, bos)).update([0]) == [bos.bos_token_id]  # <s> alone is no text
    with pytest.raises(UserError, match="no bos token"):
        Tokenizers(main, trained("bytes2"), aux_bos=True)
    with pytest.raises(UserError, match="prompt with some text"):
        RowText(Tokenizers(main, trained("bytes2"))).update([0])


# input that cannot work


def test_bad_input_is_named():
    main_tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained("bytes"))
    aux, ids = cached_model("gpt2", 2), prompts(2, 5)
    cases = [
        (lambda: processor(aux)(ids, torch.zeros(3, V)), "2 contexts but 3 rows"),
        (lambda: processor(aux, (WORDS, WORDS + 40)), "auxiliary id 90, the auxiliary model only 60"),
        (lambda: processor(aux, (WORDS, WORDS[:3])), "same words in the same order"),
        (lambda: processor(aux, (WORDS[[0, 0]], WORDS[:2])), "not unique"),
        (lambda: processor(aux, (WORDS[:0], WORDS[:0])), "empty"),
        (lambda: processor(aux, "english-110"), "need the main model's tokenizer"),
        (lambda: processor(aux)(ids, torch.zeros(2, 30)), "main id 50, the scores only 30"),
        (lambda: TokenSwapProcessor(aux, main_tokenizer), "pass its own tokenizer as aux_tokenizer"),
        (lambda: TokenSwapProcessor(aux, main_tokenizer, words="english"), "did you mean"),
        (
            lambda: processor(aux, attention_mask=torch.ones(2, 9))(ids, torch.zeros(2, V)),
            r"attention_mask is \(2, 9\)",
        ),
        (lambda: swap_log_probs(torch.zeros(2, V), torch.zeros(3, V), WORDS), "must agree"),
        (lambda: teacher_forced_log_probs(aux, aux, ids), "give `ids`"),
    ]
    for run, said in cases:
        with pytest.raises(UserError, match=said):
            run()
    broken = model("gpt2", 2)
    broken.lm_head.weight.data[WORDS[0]] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        processor(broken)(ids, torch.zeros(2, V))


# probabilities from a server

TOKENS = [" the", " of", " cat", " dog", " sat", ".", " and"]
TWO = SwapSet.custom(["the", "of", "and"])


def served(seed: int, top_k: int | None = None):
    """A function text -> log-probabilities that depends on the text."""

    def answer(context: str) -> dict[str, float]:
        rng = torch.Generator().manual_seed(seed * 1000 + len(context))
        values = (2 * torch.randn(len(TOKENS), generator=rng)).log_softmax(-1).tolist()
        best = sorted(zip(TOKENS, values, strict=True), key=lambda pair: -pair[1])[:top_k]
        return dict(best)

    return answer


@pytest.mark.parametrize("context", ["", "a", "a b c"])
def test_full_lists_give_the_rule_itself(context):
    main, aux = served(1), served(2)
    final = swap_next_token(main, aux, TWO, context)
    ids = torch.tensor([TOKENS.index(" " + word) for word in TWO])
    tensors = [torch.tensor([answer(context)[token] for token in TOKENS]) for answer in (main, aux)]
    expected = swap_log_probs(*tensors, ids)
    assert set(final) == set(TOKENS)
    torch.testing.assert_close(torch.tensor([final[token] for token in TOKENS]), expected, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 500), st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_short_lists_keep_all_masses(seed, k_main, k_aux):
    main, aux = served(seed, k_main)(""), served(seed + 1, k_aux)("")
    final = swap_next_token(lambda _: main, lambda _: aux, TWO, "")
    members = {" " + word for word in TWO}
    assert sum(map(math.exp, final.values())) == pytest.approx(1, abs=1e-6)
    mass = sum(math.exp(v) for t, v in main.items() if t in members)
    assert sum(math.exp(v) for t, v in final.items() if t in members) == pytest.approx(mass)
    assert {t: v for t, v in final.items() if t not in members and t != REMAINDER} == {
        t: v for t, v in main.items() if t not in members
    }
    missing = 1 - sum(map(math.exp, main.values()))
    assert math.exp(final.get(REMAINDER, -math.inf)) == pytest.approx(missing, abs=1.1e-6)


def test_the_server_writes_greedily_by_sampling_and_until_a_stop():
    server = TokenSwapServer(served(1), served(2), TWO)
    context = ""
    for _ in range(6):
        final = server(context)
        context += max(final, key=final.__getitem__)
    assert server.generate("", 6) == context
    assert server.generate("", 6, do_sample=True, seed=3) == server.generate("", 6, do_sample=True, seed=3)
    drawn = {server.generate("", 6, do_sample=True, seed=seed) for seed in range(5)}
    assert len(drawn) > 1
    first = context.split()[1]
    assert server.generate("", 6, stop=first) == context[: context.index(first)]
    with pytest.raises(UserError, match="stop string"):
        server.generate("", 3, stop="")
    with pytest.raises(UserError, match="no log-probabilities"):
        swap_next_token(lambda _: {" the": 0.4, ".": 0.6}, served(2), TWO, "")
    assert TokenSwapServer(served(1), served(2)).words == SwapSet.named("english-110")
