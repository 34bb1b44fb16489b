"""pass@k, win rates and the judge against enumeration, hand values and sums item by item."""

from itertools import combinations

import numpy as np
import pytest
import torch

from memorization.errors import UserError
from memorization.methods.pass_at_k import LikelihoodJudge, pass_at_k, win_rate
from memorization.models.build import build
from memorization.specs import ModelSpec


def by_subsets(correct: int, samples: int, k: int) -> float:
    """Share of all sets of k samples that hold a right one; the first `correct` samples are the right ones."""
    sets = list(combinations(range(samples), k))
    return sum(min(chosen) < correct for chosen in sets) / len(sets)


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(samples):
    correct = np.arange(samples + 1)
    for k in range(1, samples + 1):
        expected = [by_subsets(c, samples, k) for c in correct]
        np.testing.assert_allclose(pass_at_k(correct, samples, k), expected, rtol=1e-12, atol=1e-15)


def test_pass_at_k_by_hand_and_with_many_samples():
    assert pass_at_k([3], 10, 1)[0] == pytest.approx(0.3)
    assert pass_at_k([3], 10, 2)[0] == pytest.approx(1 - (7 * 6) / (10 * 9))
    assert pass_at_k([0, 1, 512], 512, 256).tolist() == pytest.approx([0, 0.5, 1], abs=1e-12)
    values = pass_at_k(np.arange(513), 512, 256)
    assert np.all(np.diff(values) >= 0) and values.min() == 0 and values.max() == 1


def test_pass_at_k_is_unbiased():
    p, samples, k = 0.2, 6, 3
    chances = [np.prod([p if bit == "1" else 1 - p for bit in f"{draw:06b}"]) for draw in range(64)]
    counts = [f"{draw:06b}".count("1") for draw in range(64)]
    assert np.dot(chances, pass_at_k(counts, samples, k)) == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize("k", [0, 9])
def test_k_beyond_the_samples_is_refused(k):
    with pytest.raises(UserError, match="write k from 1 to 8"):
        pass_at_k([1], 8, k)


@pytest.mark.parametrize("correct", [[-1, 2], [2, 9]])
def test_impossible_counts_are_refused(correct):
    with pytest.raises(UserError, match="between 0 and 8"):
        pass_at_k(correct, 8, 2)


def test_win_rate_counts_a_tie_half():
    assert win_rate([1, 2, 3, 4], [0, 2, 5, 1]) == (1 + 0.5 + 0 + 1) / 4
    assert win_rate([0.0], [0.0]) == 0.5


@pytest.mark.parametrize("mine, theirs", [([], []), ([1.0], [1.0, 2.0]), ([float("nan")], [1.0])])
def test_scores_that_cannot_be_compared_are_refused(mine, theirs):
    with pytest.raises(UserError, match="equally long lists"):
        win_rate(mine, theirs)


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(
        architecture="gpt_neox", layers=1, width=16, heads=2, positions=16, vocabulary=12, initializer_std=0.5
    )
    return build(spec, seed=1).eval()


def test_the_judge_takes_the_mean_log_likelihood_of_the_reply(model):
    prompts, replies = [[1, 2], [3], [4, 5, 6], [1, 2]], [[7, 8], [9, 10, 11], [3], np.array([0, 8])]
    expected = []
    for prompt, reply in zip(prompts, replies, strict=True):
        text = torch.tensor([[*prompt, *reply]])
        log_p = model(text).logits[0].detach().log_softmax(-1)
        expected.append(np.mean([float(log_p[i - 1, text[0, i]]) for i in range(len(prompt), text.shape[1])]))
    np.testing.assert_allclose(LikelihoodJudge(model, chunk=3)(prompts, replies), expected, rtol=1e-5)


def test_a_judge_refuses_what_it_cannot_score(model):
    with pytest.raises(UserError, match="one prompt and one reply"):
        LikelihoodJudge(model)([[1]], [[]])
    with pytest.raises(UserError, match="one prompt and one reply"):
        LikelihoodJudge(model)([[1], [2]], [[1]])
