"""Overlap of a generated completion with the true one: BLEU, METEOR, n-gram Jaccard, rule adherence.

BLEU and METEOR are nltk's; token ids are compared as words.
"""

from typing import Any

import numpy as np


class NoSynonyms:
    """Stands where METEOR wants WordNet: token ids have no synonyms, so only exact matches count."""

    @staticmethod
    def synsets(word: str) -> list[Any]:
        """Return no synonym set for any word."""
        return []


class Identity:
    """Stands where METEOR wants a stemmer."""

    @staticmethod
    def stem(word: str) -> str:
        """Return the word itself."""
        return word


def words(tokens: np.ndarray) -> list[str]:
    """Token ids as words."""
    return [str(int(token)) for token in tokens]


def bleu(truth: np.ndarray, written: np.ndarray, order: int, *, cumulative: bool = False) -> float:
    """Sentence BLEU of one completion: of `order`-grams alone, or cumulative up to `order` with equal weights."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    weights = [1 / order] * order if cumulative else [0.0] * (order - 1) + [1.0]
    # without smoothing nltk warns and returns a tiny number instead of 0 when an order has no match; method1 is its
    # documented remedy: a count of 0 becomes epsilon
    smoothing = SmoothingFunction(epsilon=1e-9).method1
    return float(sentence_bleu([words(truth)], words(written), weights=weights, smoothing_function=smoothing))


def meteor(truth: np.ndarray, written: np.ndarray) -> float:
    """METEOR of one completion, exact-match stage only."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(words(truth), words(written), stemmer=Identity(), wordnet=NoSynonyms()))


def jaccard(truth: np.ndarray, written: np.ndarray, order: int) -> float:
    """Jaccard similarity of the two sets of `order`-grams; 0 where neither is long enough to hold one."""
    from nltk.util import ngrams

    a, b = set(ngrams(truth.tolist(), order)), set(ngrams(written.tolist(), order))
    return len(a & b) / len(a | b) if a | b else 0.0


def adherence(written: np.ndarray, first: np.ndarray, digits: int = 10) -> np.ndarray:
    """Share of steps that follow x_t = (x_{t-1} + 1) mod 10, per completion (patterns, section 4.3).

    written: (N, g) token ids, digits being 0-9; first: (N,) last prompt token. Steps from or to a token that is not
    a digit do not follow the rule. Chance is 1 / digits.
    """
    chain = np.concatenate([first[:, None], written], axis=1)
    before, after = chain[:, :-1], chain[:, 1:]
    follows = (before < digits) & (after < digits) & (after == (before + 1) % digits)
    return follows.mean(1)


def overlaps(truth: np.ndarray, written: np.ndarray, jaccard_order: int) -> dict[str, np.ndarray]:
    """Return every overlap metric of N completions, {metric: (N,)}. truth, written: (N, g)."""
    pairs = list(zip(truth, written, strict=True))
    values = {f"bleu{order}": np.array([bleu(t, w, order) for t, w in pairs]) for order in (1, 2, 3, 4)}
    values["bleu_cumulative"] = np.array([bleu(t, w, 4, cumulative=True) for t, w in pairs])
    values["meteor"] = np.array([meteor(t, w) for t, w in pairs])
    values["jaccard"] = np.array([jaccard(t, w, jaccard_order) for t, w in pairs])
    return values
