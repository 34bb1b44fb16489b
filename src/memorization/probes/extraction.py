"""Extraction metrics: how much of the true suffix a model wrote after its prefix (`tokenswap`, sec. 4.1, app. D).

Every function takes N pairs, the true continuations first, and returns (N,) float64, one value per pair. An item is
a sequence of token ids (a row of an (N, g) array, or a list of any length) or a text. Texts are compared as the caller
decoded them: case, spaces and special tokens are not touched, except where ROUGE-L splits them into words. Empty
items are allowed and documented per function. UserError where there are not as many written items as true ones.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein, Prefix

from memorization.errors import UserError

Ids = np.ndarray | Sequence[Sequence[int]]
WORD = re.compile(r"[a-z0-9]+")
STEM_LONGER_THAN = 3  # characters; ROUGE leaves shorter words as they are
VERBATIM_ROUGE = 0.8  # above it the paper counts a text as memorized near-verbatim (`tokenswap`, tab. 3)


def exact_match(truth_ids: Ids, written_ids: Ids) -> np.ndarray:
    """1 where exactly the true tokens were written, else 0; 1 for two empty sequences.

    The share of ones is the exact match rate. This is the definition of the main text and the released code, not
    that of app. D.1 (`tokenswap`).
    """
    return np.array([float(len(t) == len(w) == _agree(t, w).sum()) for t, w in _pairs(truth_ids, written_ids)])


def matching_tokens(truth_ids: Ids, written_ids: Ids) -> np.ndarray:
    """Count the tokens before the first deviation, 0 to the length of the shorter sequence."""
    return np.array([float(_agree(t, w).cumprod().sum()) for t, w in _pairs(truth_ids, written_ids)])


def fractional_exact(truth_ids: Ids, written_ids: Ids) -> np.ndarray:
    """Share of positions with the identical token, over the longer length; 1 for two empty sequences."""
    pairs = _pairs(truth_ids, written_ids)
    return np.array([_agree(t, w).sum() / max(len(t), len(w)) if len(t) + len(w) else 1.0 for t, w in pairs])


def matching_characters(truth_texts: Sequence[str], written_texts: Sequence[str]) -> np.ndarray:
    """Count the characters before the first deviation, at most all of the true text."""
    return np.array([float(Prefix.similarity(t, w)) for t, w in _pairs(truth_texts, written_texts)])


def levenshtein(truth_texts: Sequence[str], written_texts: Sequence[str]) -> np.ndarray:
    """Character edit distance over the longer length, 0 (identical) to 1; 0 for two empty texts.

    Insertions, deletions and substitutions cost 1 each.
    """
    return np.array([Levenshtein.normalized_distance(t, w) for t, w in _pairs(truth_texts, written_texts)])


def rouge_l(truth_texts: Sequence[str], written_texts: Sequence[str], stem: bool = True) -> np.ndarray:
    """F-measure of the longest common subsequence of words, 0 to 1; 0 where a text has no word.

    Equal to `rougeL` of the package rouge-score (with `use_stemmer` if `stem`), which the released code of
    `tokenswap` uses: words are runs of [a-z0-9] of the lower-cased text, words longer than 3 are Porter-stemmed.
    """
    values = []
    for common, reference, written in _common_words(truth_texts, written_texts, stem):
        precision, recall = (common / written, common / reference) if common else (0.0, 0.0)
        values.append(2 * precision * recall / (precision + recall) if common else 0.0)
    return np.array(values)


def rouge_l_recall(truth_texts: Sequence[str], written_texts: Sequence[str], stem: bool = True) -> np.ndarray:
    """Longest common subsequence of words over the words of the true text (the formula of `tokenswap`, app. D).

    0 where the true text has no word.
    """
    common = _common_words(truth_texts, written_texts, stem)
    return np.array([shared / reference if reference else 0.0 for shared, reference, _ in common])


def rouge_above(values: np.ndarray, threshold: float = VERBATIM_ROUGE) -> np.ndarray:
    """1 where a ROUGE-L value is strictly above the threshold, else 0. (N,) -> (N,)."""
    return (np.asarray(values) > threshold).astype(np.float64)


def extraction(
    truth_ids: Ids, written_ids: Ids, truth_texts: Sequence[str], written_texts: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return every extraction metric of N written suffixes, {metric: (N,) float64}.

    Ids and texts are two views of the same N items; UserError if their numbers differ.
    """
    _pairs(truth_ids, truth_texts)
    rouge = rouge_l(truth_texts, written_texts)
    return {
        "exact_match": exact_match(truth_ids, written_ids),
        "matching_characters": matching_characters(truth_texts, written_texts),
        "matching_tokens": matching_tokens(truth_ids, written_ids),
        "rouge_l": rouge,
        "rouge_l_recall": rouge_l_recall(truth_texts, written_texts),
        "levenshtein": levenshtein(truth_texts, written_texts),
        "fractional_exact": fractional_exact(truth_ids, written_ids),
        f"rouge_above_{VERBATIM_ROUGE}": rouge_above(rouge),
    }


def rouge_words(text: str, stem: bool = True) -> list[str]:
    """Split a text into the words that ROUGE compares."""
    words = WORD.findall(text.lower())
    return [_stem(word) if len(word) > STEM_LONGER_THAN else word for word in words] if stem else words


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@cache
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


def _common_words(truth_texts: Sequence[str], written_texts: Sequence[str], stem: bool) -> list[tuple[int, int, int]]:
    """Return for each pair the longest common subsequence and both lengths, in words."""
    found = []
    for truth, written in _pairs(truth_texts, written_texts):
        # numbers instead of words: rapidfuzz compares hashes, and those of strings could collide
        number: dict[str, int] = {}
        a, b = ([number.setdefault(word, len(number)) for word in rouge_words(text, stem)] for text in (truth, written))
        found.append((LCSseq.similarity(a, b), len(a), len(b)))
    return found


def _agree(truth: Sequence[int] | np.ndarray, written: Sequence[int] | np.ndarray) -> np.ndarray:
    """Compare the positions that both sequences have. (min(g, h),) bool."""
    shared = min(len(truth), len(written))
    return np.asarray(truth[:shared]) == np.asarray(written[:shared])


def _pairs(truth: Any, written: Any) -> list[tuple[Any, Any]]:
    if isinstance(truth, str) or isinstance(written, str):
        raise UserError("extraction metrics compare lists of texts; write [text] for a single one.")
    if len(truth) != len(written):
        raise UserError(f"there are {len(truth)} true and {len(written)} written items; give one for each.")
    return list(zip(truth, written, strict=True))
