"""TokenSwap's rule, its logits processor, and its form for servers of probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from swap_models import (
    ARCHITECTURES,
    PAD,
    WORDS,
    V,
    cached_model,
    generate,
    literal,
    model,
    processor,
    prompts,
    stepwise,
    trained,
)
from transformers import (
    LogitsProcessorList,
    PreTrainedTokenizerFast,
)

from memorization.errors import UserError
from memorization.methods.auxiliary import window_start
from memorization.methods.tokenswap import (
    TokenSwapProcessor,
    swap_log_probs,
    teacher_forced_log_probs,
)

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
