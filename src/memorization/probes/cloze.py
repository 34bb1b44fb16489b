"""Multiple-choice accuracy from next-token log-probabilities (`tokenswap`, tab. 7). Works on arrays, without torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from memorization.errors import UserError

if TYPE_CHECKING:
    from memorization.data.cloze import Question


def cloze_accuracy(log_probs: np.ndarray, questions: Sequence["Question"]) -> np.ndarray:
    """Say for each question whether the answer has the highest log-probability of its options.

    Parameters
    ----------
    log_probs: (N, V) log-probabilities (or logits: only their order within a row counts) of the token after the
        context of each question. Of equal options the first is chosen.

    Returns
    -------
    (N,) bool.
    """
    if len(log_probs) != len(questions):
        raise UserError(f"there are {len(log_probs)} rows for {len(questions)} questions; give one row for each.")
    if not questions:
        return np.zeros(0, dtype=bool)
    options = np.array([question.option_ids for question in questions])  # (N, options)
    answers = np.array([question.answer for question in questions])
    return np.take_along_axis(np.asarray(log_probs), options, axis=1).argmax(axis=1) == answers
