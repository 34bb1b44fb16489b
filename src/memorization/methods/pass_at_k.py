"""Is one of k tries right (pass@k), and which of two models' replies does a judge prefer (win rate)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memorization.errors import UserError

# (prompts, replies), both one sequence of token ids an item -> scores (items,), more is better
Judge = Callable[[Sequence[Any], Sequence[Any]], np.ndarray]


def pass_at_k(correct: Any, samples: int, k: int) -> np.ndarray:
    """Return (problems,) float64: chance that at least one of k of the `samples` drawn replies is right.

    correct: (problems,) how many of a problem's samples are right; 1 <= k <= samples. The estimate 1 - C(n - c, k) /
    C(n, k) is unbiased for 1 - (1 - p)^k (Chen et al. 2021, section 2.1; geometry, section 2.3). It is computed as
    1 - product over i = n - c + 1 ... n of (1 - k / i), which needs no large numbers; the mean over problems is pass@k.
    """
    correct = np.asarray(correct)
    if k < 1 or k > samples:
        raise UserError(
            f"pass@{k} cannot be estimated from {samples} samples: write k from 1 to {samples}, or draw more"
        )
    if correct.size and (correct.min() < 0 or correct.max() > samples):
        raise UserError(
            f"of {samples} samples between 0 and {samples} are right, not {correct.min()} or {correct.max()}"
        )
    # (samples + 1,) chance that all k are wrong if c are right; from i = k on a factor is 0, as it should be
    wrong = np.concatenate([[1.0], np.cumprod(1.0 - k / np.arange(samples, 0, -1.0))])
    return 1.0 - np.abs(wrong[correct.astype(int)])  # abs: no -0 from the factors behind the one that is 0


def win_rate(mine: Any, theirs: Any) -> float:
    """Share of items with the higher score; a tie counts one half. mine, theirs: (items,) scores of the same items."""
    mine, theirs = np.asarray(mine, dtype=float), np.asarray(theirs, dtype=float)
    if mine.shape != theirs.shape or not mine.size or np.isnan(mine).any() or np.isnan(theirs).any():
        raise UserError("a win rate compares two scores an item: give two equally long lists of numbers without NaN")
    return float(np.mean((mine > theirs) + 0.5 * (mine == theirs)))


@dataclass(frozen=True)
class LikelihoodJudge:
    """A `Judge` that prefers what a fixed language model finds likely.

    Its score of a reply is the mean log-likelihood of the reply's tokens, in nats, given the prompt: 0 is the best
    there is. Being a mean, it does not prefer short replies (the paper's judge is an LLM, with a control for length).
    model: a causal language model in evaluation mode; chunk: items a forward pass.
    """

    model: Any
    chunk: int = 256

    def __call__(self, prompts: Sequence[Any], replies: Sequence[Any]) -> np.ndarray:
        """Return (items,) float64 scores; prompts and replies may differ in length, none may be empty."""
        import torch

        from memorization.training.preferences import token_log_probabilities

        if len(prompts) != len(replies) or any(not len(part) for both in (prompts, replies) for part in both):
            raise UserError("a judge needs one prompt and one reply an item, each of at least one token")
        device = next(self.model.parameters()).device
        scores = np.zeros(len(prompts))
        for start in range(0, len(prompts), self.chunk):
            rows = slice(start, start + self.chunk)
            texts = [
                np.concatenate([np.asarray(p), np.asarray(r)])
                for p, r in zip(prompts[rows], replies[rows], strict=True)
            ]
            ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
            for row, text in zip(ids, texts, strict=True):
                row[: len(text)] = text
            lengths = [torch.tensor([len(one) for one in part[rows]], device=device) for part in (prompts, replies)]
            with torch.no_grad():
                values, there = token_log_probabilities(self.model, torch.from_numpy(ids).to(device), *lengths)
            scores[rows] = (values.double().sum(1) / there.sum(1)).cpu().numpy()
        return scores
