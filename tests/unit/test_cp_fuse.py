"""CP-Fuse: the weights of a literal search, and a generation that agrees with teacher forcing."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from memorization.errors import UserError
from memorization.methods.cp_fuse import (
    FLOOR,
    GRID,
    CPFuseProcessor,
    cp_fuse_weights,
    fuse,
    teacher_forced_log_probs,
)


def model(seed: int, *, vocabulary: int = 11, layers: int = 1, std: float = 0.6) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    size = {"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": 48, "initializer_range": std}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **size, **ends)).eval()


def search(l1: list[float], l2: list[float], s1: float, s2: float) -> tuple[tuple[float, float], list[float]]:
    """The definition, in plain numbers: the first weights with the least objective, to 1e-9, and log p under them."""
    tried = []
    for b1, b2 in itertools.product(GRID, GRID):
        log_q = [b1 * x + b2 * y for x, y in zip(l1, l2, strict=True)]
        top = max(log_q)
        log_z = top + math.log(sum(math.exp(x - top) for x in log_q))
        log_p = [x - log_z for x in log_q]
        p = [math.exp(x) for x in log_p]
        losses = [-sum(a * b for a, b in zip(p, own, strict=True)) - path for own, path in ((l1, s1), (l2, s2))]
        objective = max(losses) + sum(a * b for a, b in zip(p, log_p, strict=True))
        tried.append((objective, (b1, b2), log_p))
    least = min(objective for objective, _, _ in tried)
    return next((weights, log_p) for objective, weights, log_p in tried if objective <= least + 1e-9)


def test_the_grid_is_the_released_one():
    assert len(GRID) == 18
    assert GRID[:3] == pytest.approx((0, 2 / 9, 4 / 9))
    assert GRID[8:] == pytest.approx((16 / 9, 2, 3, 4, 5, 6, 7, 8, 9, 10))


@pytest.mark.parametrize(("sharpness", "path"), [(0.3, 0.03), (3.0, 2.0), (40.0, 20.0)])
def test_weights_and_distribution_are_those_of_a_literal_search(sharpness, path):
    """At sharpness 40 the sums over the vocabulary underflow for large weights."""
    random = np.random.default_rng(int(10 * sharpness))
    l1, l2 = torch.from_numpy(sharpness * random.normal(size=(2, 25, 7))).log_softmax(-1).clamp_min(FLOOR)
    s1, s2 = torch.from_numpy(-random.exponential(path, size=(2, 25)))
    b1, b2 = cp_fuse_weights(l1, l2, s1, s2)
    fused = fuse(l1, l2, b1, b2)
    seen = set()
    for row in range(25):
        weights, log_p = search(l1[row].tolist(), l2[row].tolist(), float(s1[row]), float(s2[row]))
        assert (float(b1[row]), float(b2[row])) == weights
        assert fused[row].tolist() == pytest.approx(log_p, abs=1e-9)
        seen.add(weights)
    assert len(seen) > 5


def test_sure_models_that_disagree_do_not_underflow():
    """Each model is all but certain of its own token: with weights (10, 10) every product is below e^-900."""
    l1 = torch.tensor([[0.0, -95.0, -90.0]], dtype=torch.float64)
    l2 = torch.tensor([[-95.0, 0.0, -90.0]], dtype=torch.float64)
    for s1, s2 in [(0.0, 0.0), (-30.0, 0.0), (0.0, -250.0)]:
        b1, b2 = cp_fuse_weights(l1, l2, torch.tensor([s1]), torch.tensor([s2]), (10.0,))
        assert (float(b1), float(b2)) == (10, 10)
        weights, log_p = search(l1[0].tolist(), l2[0].tolist(), s1, s2)
        b1, b2 = cp_fuse_weights(l1, l2, torch.tensor([s1]), torch.tensor([s2]))
        assert (float(b1), float(b2)) == weights
        assert fuse(l1, l2, b1, b2)[0].tolist() == pytest.approx(log_p, abs=1e-9)


def test_the_fused_text_moves_to_the_model_that_found_it_unlikely():
    """p_1 wants token 0, p_2 token 1. Where the text is so far model 1's own (s_2 low), model 2 is listened to."""
    l1 = torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64).log()
    l2 = torch.tensor([[0.05, 0.9, 0.05]], dtype=torch.float64).log()
    zero, low = torch.zeros(1), torch.tensor([-20.0])
    assert fuse(l1, l2, *cp_fuse_weights(l1, l2, zero, low)).argmax() == 1
    assert fuse(l1, l2, *cp_fuse_weights(l1, l2, low, zero)).argmax() == 0


def test_minus_infinity_counts_as_the_floor():
    l1 = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    l2 = torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64).log()
    b1, b2 = cp_fuse_weights(l1, l2, torch.zeros(1), torch.zeros(1))
    floored = [row.clamp_min(FLOOR)[0].tolist() for row in (l1, l2)]
    weights, log_p = search(*floored, 0.0, 0.0)
    assert (float(b1), float(b2)) == weights
    assert fuse(l1, l2, b1, b2)[0].tolist() == pytest.approx(log_p, abs=1e-9)
    assert log_p[0] > -1e-3


def test_identical_models_write_what_the_model_writes_alone():
    one = model(0)
    prompts = torch.randint(11, (8, 5), generator=torch.Generator().manual_seed(1))
    options = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    processor = CPFuseProcessor(model(0))
    fused = one.generate(prompts, logits_processor=[processor], **options)
    assert torch.equal(fused, one.generate(prompts, **options))
    assert processor.weights is not None and (processor.weights[0] + processor.weights[1] > 0).all()


def test_generation_agrees_with_teacher_forcing_and_uses_the_paths():
    main, partner = model(0), model(1, layers=2)
    prompts = torch.randint(11, (6, 5), generator=torch.Generator().manual_seed(2))
    options = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": 15, "do_sample": False, "pad_token_id": 0}
    processor = CPFuseProcessor(partner)
    written = main.generate(prompts, logits_processor=[processor], **options)
    again = main.generate(prompts, logits_processor=[processor], **options)  # the state begins anew by itself
    assert torch.equal(written, again)
    log_probs = teacher_forced_log_probs(main, partner, written, prompt_length=5, chunk=4)
    assert torch.equal(log_probs[:, 4:-1].argmax(-1), written[:, 5:])
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(6, 20))
    with torch.no_grad():  # paths by hand, of both models
        for path, which in zip(processor.paths, (main, partner), strict=True):
            own = which(written).logits.double().log_softmax(-1)[:, :-1].gather(2, written[:, 1:, None])[..., 0]
            torch.testing.assert_close(path, own[:, 4:-1].sum(1), atol=1e-4, rtol=0)
    no_paths = teacher_forced_log_probs(main, partner, written, prompt_length=20)  # all prompt: nothing accumulates
    assert torch.equal(no_paths[:, 4], log_probs[:, 4])
    assert (no_paths[:, 5:] - log_probs[:, 5:]).abs().max() > 0.1
    lengths = torch.tensor([5, 5, 5, 20, 20, 20])
    mixed = teacher_forced_log_probs(main, partner, written, prompt_length=lengths)
    torch.testing.assert_close(mixed[:3], log_probs[:3])
    torch.testing.assert_close(mixed[3:], no_paths[3:])


def test_left_padding_changes_nothing():
    main, partner = model(3), model(4)
    short = torch.randint(1, 11, (2, 4), generator=torch.Generator().manual_seed(5))
    long = torch.randint(1, 11, (2, 7), generator=torch.Generator().manual_seed(6))
    padded = torch.cat([torch.cat([torch.zeros(2, 3, dtype=torch.long), short], 1), long])
    mask = (padded != 0).long()
    mask[2:] = 1
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    together = main.generate(
        padded, attention_mask=mask, logits_processor=[CPFuseProcessor(partner, pad_token_id=0)], **options
    )
    for rows, prompt in ((slice(0, 2), short), (slice(2, 4), long)):
        alone = main.generate(
            prompt, attention_mask=torch.ones_like(prompt), logits_processor=[CPFuseProcessor(partner)], **options
        )
        assert torch.equal(together[rows, 7:], alone[:, prompt.shape[1] :])
    mask = torch.cat([mask, torch.ones(4, 10, dtype=torch.long)], 1)
    for start in (7, 0):
        scored = teacher_forced_log_probs(main, partner, together, prompt_length=start, attention_mask=mask)
        alone = teacher_forced_log_probs(main, partner, together[:2, 3:], prompt_length=max(0, start - 3))
        torch.testing.assert_close(scored[:2, 3:], alone, atol=1e-5, rtol=0)


def test_a_forbidden_token_stays_forbidden():
    scores = torch.zeros(1, 11)
    scores[0, 3] = -torch.inf
    out = CPFuseProcessor(model(0))(torch.tensor([[1, 2]]), scores)
    assert torch.isneginf(out)[0].nonzero().flatten().tolist() == [3]


def test_bad_input_is_refused():
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(UserError, match="same tokenizer"):
        CPFuseProcessor(model(0, vocabulary=12))(ids, torch.zeros(1, 11))
    with pytest.raises(UserError, match="same tokenizer"):
        teacher_forced_log_probs(model(0), model(0, vocabulary=12), ids)
    with pytest.raises(UserError, match="eval"):
        CPFuseProcessor(model(0).train())
