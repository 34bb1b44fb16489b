"""Distributional memorization: do a model and the n-gram statistics of its training data agree on which answers are
likely? (Wang et al. 2025; `geometry`, section 2.2)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memorization.errors import UserError

ZEROS = ("skip", "zero")


@dataclass(frozen=True)
class Memorization:
    """Spearman correlation over questions, and how many questions it rests on."""

    rho: float  # NaN with fewer than 2 questions, or where one side is the same for all of them
    n: int
    left_out: int  # questions without a value on one of the sides


def check_zeros(zeros: str) -> None:
    """Raise `UserError` for a convention that does not exist."""
    if zeros not in ZEROS:
        raise UserError(f"there is no convention {zeros!r} for tokens of probability 0; write zeros: skip or zero.")


def joint_log_probability(probabilities: Sequence[float] | np.ndarray, zeros: str = "skip") -> float:
    """Log-probability (nats) of an answer from the probabilities of its tokens, shape (tokens,).

    zeros: "skip": tokens of probability 0 count as 1, as in the released code of `geometry`; an answer with no other
    tokens gives NaN. "zero": one of them makes the answer impossible, -inf.

    Raises
    ------
    UserError: no token; a value that is no probability; unknown convention.
    """
    check_zeros(zeros)
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise UserError("an answer without tokens has no probability; leave the question out.")
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError("a probability is below 0, above 1 or NaN; give one number from 0 to 1 per answer token.")
    return float(joint_by_answer(values, np.zeros(len(values), dtype=np.int64), 1, zeros)[0])


def joint_by_answer(probabilities: np.ndarray, answer: np.ndarray, answers: int, zeros: str) -> np.ndarray:
    """`joint_log_probability` of many answers at once, (answers,): token i belongs to answer answer[i]."""
    check_zeros(zeros)
    seen = probabilities > 0
    logs = np.log(np.where(seen, probabilities, 1.0))
    joint = np.bincount(answer, weights=logs, minlength=answers)
    seen_tokens = np.bincount(answer, weights=seen, minlength=answers)
    if zeros == "skip":
        joint[seen_tokens == 0] = np.nan
    else:
        joint[seen_tokens < np.bincount(answer, minlength=answers)] = -np.inf
    return joint


def distributional_memorization(
    reference: Sequence[float] | np.ndarray, model: Sequence[float] | np.ndarray, zeros: str = "skip"
) -> Memorization:
    """Spearman correlation of two joint log-likelihoods over questions, both of shape (questions,), in nats.

    A question with NaN on either side is left out. -inf is the lowest rank, and all -inf of one side are tied there.

    Parameters
    ----------
    reference: of the infini-gram language model, see `memorization.probes.infini_gram`.
    model: of the language model.
    zeros: the convention that `reference` was made by. Under "skip" it cannot hold -inf, and under "zero" a NaN is a
        question that was not asked at all.

    Raises
    ------
    UserError: lengths differ; +inf; -inf in a reference said to be made by "skip"; unknown convention.
    """
    check_zeros(zeros)
    sides = [np.asarray(side, dtype=np.float64).ravel() for side in (reference, model)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{len(sides[0])} questions have a reference and {len(sides[1])} a model likelihood; give both alike."
        )
    pair = np.array(sides)
    if np.isposinf(pair).any():
        raise UserError("a log-likelihood is +inf; give log-probabilities, which are at most 0.")
    if zeros == "skip" and np.isneginf(pair[0]).any():
        raise UserError("the reference holds -inf, so zero tokens were not skipped in it; write zeros: zero.")
    there = ~np.isnan(pair).any(0)
    pair = pair[:, there]
    n, left_out = int(there.sum()), int((~there).sum())
    if n < 2 or (pair == pair[:, :1]).all(1).any():
        return Memorization(float("nan"), n, left_out)
    from scipy.stats import rankdata, spearmanr

    # ranks first: they are finite, and the ranks of ranks are the same
    return Memorization(float(spearmanr(*rankdata(pair, axis=1)).statistic), n, left_out)
