"""Extraction metrics against rouge-score, plain dynamic programming and values by hand; cloze accuracy by hand."""

import random

import numpy as np
import pytest
from rouge_score import rouge_scorer

from memorization.data.cloze import Question
from memorization.errors import UserError
from memorization.probes import extraction as ex
from memorization.probes.cloze import cloze_accuracy

AWKWARD = [
    "",
    " ",
    "...!?",
    "İstanbul café naïve ﬁne straße",
    "The U.S.A.'s 3.14 e-mails, re-run: 2,000 times",
    "日本語 の テキスト",
    "a aa aaa running RUNNING runs ran generously",
    "tabs\tand\nnewlines\u00a0and\u2028separators",
    "flies dies mules denied agreed owned humbled sized meeting stating",
]


def texts(n=120, seed=0):
    """Pairs of random word strings that share words, and every pair of awkward texts."""
    draw = random.Random(seed)
    words = ["the", "Running", "runner", "matrices", "of", "a1b2", "x", "values,", "(value)", "ÉTÉ", "relational", "--"]

    def one():
        return " ".join(draw.choice(words) for _ in range(draw.randint(0, 14)))

    pairs = [(one(), one()) for _ in range(n)] + [(a, b) for a in AWKWARD for b in AWKWARD]
    return [a for a, _ in pairs], [b for _, b in pairs]


def longest_common_subsequence(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(row[j] + (x != y), row[j + 1] + 1, new[j] + 1))
        row = new
    return row[-1]


@pytest.mark.parametrize("stem", [True, False])
def test_rouge_l_is_that_of_rouge_score(stem):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stem)
    truth, written = texts()
    scores = [scorer.score(t, w)["rougeL"] for t, w in zip(truth, written, strict=True)]
    np.testing.assert_array_equal(ex.rouge_l(truth, written, stem), [score.fmeasure for score in scores])
    np.testing.assert_array_equal(ex.rouge_l_recall(truth, written, stem), [score.recall for score in scores])
    assert len({score.fmeasure for score in scores}) > 20


def test_rouge_l_against_dynamic_programming():
    truth, written = texts(60, seed=1)
    expected = []
    for t, w in zip(truth, written, strict=True):
        a, b = ex.rouge_words(t, stem=False), ex.rouge_words(w, stem=False)
        common = longest_common_subsequence(a, b)
        expected.append(2 * common / (len(a) + len(b)) if common else 0.0)
    np.testing.assert_allclose(ex.rouge_l(truth, written, stem=False), expected, atol=1e-12)


def test_rouge_by_hand():
    truth, written = ["the cat sat on the mat"], ["the cats on a mat"]
    # stemmed: the cat on mat, 4 of 6 and of 5
    assert ex.rouge_l(truth, written) == pytest.approx([2 * 4 / 11])
    assert ex.rouge_l_recall(truth, written) == pytest.approx([4 / 6])
    assert ex.rouge_l(truth, written, stem=False) == pytest.approx([2 * 3 / 11])


def test_levenshtein_against_dynamic_programming():
    draw = random.Random(2)
    alphabet = "abcé "
    truth = ["".join(draw.choice(alphabet) for _ in range(draw.randint(0, 12))) for _ in range(200)]
    written = ["".join(draw.choice(alphabet) for _ in range(draw.randint(0, 12))) for _ in range(200)]
    expected = [edit_distance(t, w) / max(len(t), len(w), 1) for t, w in zip(truth, written, strict=True)]
    found = ex.levenshtein(truth, written)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(found, ex.levenshtein(written, truth))
    assert ex.levenshtein(["kitten", "", "", "abc"], ["sitting", "", "ab", "abc"]) == pytest.approx([3 / 7, 0, 1, 0])


def test_matching_by_hand():
    truth = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [], [1, 2, 3]]
    written = [[1, 2, 3, 4], [1, 2, 9, 4], [9, 2, 3, 4], [1, 2, 3], [], []]
    assert ex.exact_match(truth, written).tolist() == [1, 0, 0, 0, 1, 0]
    assert ex.matching_tokens(truth, written).tolist() == [4, 2, 0, 2, 0, 0]
    assert ex.fractional_exact(truth, written) == pytest.approx([1, 0.75, 0.75, 2 / 3, 1, 0])
    found = ex.matching_characters([" the cat", " the cat", "x", "", "é1"], [" the cats", " the dog", "y", "z", "é2"])
    assert found.tolist() == [8, 5, 0, 0, 1]


def test_arrays_and_lists_agree():
    rng = np.random.default_rng(0)
    truth, written = rng.integers(0, 2, (40, 6)), rng.integers(0, 2, (40, 6))
    same = truth == written
    assert ex.exact_match(truth, written).tolist() == same.all(1).tolist()
    assert ex.fractional_exact(truth, written) == pytest.approx(same.mean(1))
    first = np.where(same.all(1), 6, (~same).argmax(1))
    for found in (ex.matching_tokens(truth, written), ex.matching_tokens(truth.tolist(), written.tolist())):
        assert found.tolist() == first.tolist()


def test_rouge_above_is_strict():
    assert ex.rouge_above(np.array([0.79, 0.8, 0.81])).tolist() == [0, 0, 1]
    assert ex.rouge_above(np.array([0.5]), 0.4).tolist() == [1]


def test_extraction_returns_all_metrics():
    ids, other = [[1, 2], [1, 2]], [[1, 2], [1, 3]]
    found = ex.extraction(ids, other, ["a cat", "a cat"], ["a cat", "a dog"])
    assert list(found) == [
        "exact_match",
        "matching_characters",
        "matching_tokens",
        "rouge_l",
        "rouge_l_recall",
        "levenshtein",
        "fractional_exact",
        "rouge_above_0.8",
    ]
    values = {name: value.tolist() for name, value in found.items()}
    assert values.pop("levenshtein") == pytest.approx([0, 0.6])
    assert values == {
        "exact_match": [1, 0],
        "matching_characters": [5, 2],
        "matching_tokens": [2, 1],
        "rouge_l": [1, 0.5],
        "rouge_l_recall": [1, 0.5],
        "fractional_exact": [1, 0.5],
        "rouge_above_0.8": [1, 0],
    }
    assert all(value.dtype == np.float64 and value.shape == (2,) for value in found.values())


def test_no_items():
    assert all(value.shape == (0,) for value in ex.extraction([], [], [], []).values())


def test_different_numbers_of_items_are_an_error():
    for metric in (ex.exact_match, ex.matching_tokens, ex.fractional_exact):
        with pytest.raises(UserError, match="2 true and 1 written"):
            metric([[1], [2]], [[1]])
    for metric in (ex.rouge_l, ex.rouge_l_recall, ex.levenshtein, ex.matching_characters):
        with pytest.raises(UserError, match="2 true and 1 written"):
            metric(["a", "b"], ["a"])
        with pytest.raises(UserError, match=r"\[text\]"):
            metric("one text", "one text")
    with pytest.raises(UserError, match="2 true and 1 written"):
        ex.extraction([[1], [2]], [[1], [2]], ["a"], ["a"])


def test_cloze_accuracy():
    questions = [Question("", (), (3, 1, 5), ("a", "b", "c"), answer, "g") for answer in (0, 1, 2, 0, 1)]
    log_probs = np.full((5, 6), -9.0)
    log_probs[0, [3, 0]] = -1, 0  # the best token overall is no option
    log_probs[1, 1] = -1
    log_probs[2, 3] = -1
    log_probs[3:, [1, 3]] = -1  # a tie goes to the first option, 3
    assert cloze_accuracy(log_probs, questions).tolist() == [True, True, False, True, False]
    assert cloze_accuracy(np.zeros((0, 6)), []).shape == (0,)
    with pytest.raises(UserError, match="4 rows for 5 questions"):
        cloze_accuracy(log_probs[:4], questions)
