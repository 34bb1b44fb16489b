"""Rows and items of the experiment `ngrams` against counting by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from memorization.data.ngram_scores import make_engine, score
from memorization.errors import UserError
from memorization.probes.distributional import distributional_memorization
from memorization.probes.infini_gram import InfiniGram
from memorization.probes.infini_gram_engines import InfiniGramAPI

TRAIN = [[1, 2, 3, 1, 2, 4], [5, 1, 2, 3], [3, 3]]
QUESTIONS = {"facts": [([4, 1], [2, 3]), ([5, 1, 2], [4]), ([5], [1, 9])], "continuations": [([], [3])]}


def values(items, metric, subset):
    return items[(items.metric == metric) & (items.subset == subset)]


def test_items_by_hand():
    _, items = score(TRAIN, QUESTIONS)
    assert list(items.columns) == ["metric", "subset", "split", "item", "token", "value"]
    assert set(items.split) == {"validation"}
    skipped = values(items, "infini_gram_log_probability", "facts")
    assert skipped.item.tolist() == [0, 1, 2] and skipped.token.isna().all()
    assert skipped.value.tolist() == pytest.approx([math.log(2 / 3), math.nan, 0.0], nan_ok=True)
    zero = values(items, "infini_gram_log_probability_zero", "facts")
    assert zero.value.tolist() == pytest.approx([math.log(2 / 3), -math.inf, -math.inf])
    used = values(items, "suffix_length", "facts")  # "4 1" does not occur, so 2 is given "1" alone
    assert list(zip(used.item, used.token, used.value, strict=True)) == [
        (0, 0, 1),
        (0, 1, 2),
        (1, 0, 3),
        (2, 0, 1),
        (2, 1, 2),
    ]
    assert values(items, "infini_gram_log_probability", "continuations").value.tolist() == [
        pytest.approx(math.log(4 / 15))
    ]


def test_shares_of_suffix_lengths():
    rows, _ = score(TRAIN, QUESTIONS, split="test")
    assert [(row["subset"], row["suffix_length"], row["value"], row["n"]) for row in rows] == [
        ("facts", 1, 2 / 5, 5),
        ("facts", 2, 2 / 5, 5),
        ("facts", 3, 1 / 5, 5),
        ("continuations", 0, 1.0, 1),
    ]
    assert {(row["metric"], row["split"]) for row in rows} == {("suffix_length_share", "test")}


def test_many_questions_are_scored_as_one_by_one():
    rng = np.random.default_rng(0)
    train = rng.zipf(1.5, (300, 16)) % 40
    pairs = [(row[:10].tolist(), row[10:].tolist()) for row in rng.zipf(1.5, (80, 13)) % 40]
    rows, items = score(train, {"facts": pairs})
    index = InfiniGram(train, vocabulary=40)
    for metric, zeros in (("infini_gram_log_probability", "skip"), ("infini_gram_log_probability_zero", "zero")):
        expected = [index.joint(prompt, answer, zeros) for prompt, answer in pairs]
        found = values(items, metric, "facts").value.to_numpy()
        assert found.tolist() == pytest.approx(expected, nan_ok=True)
        assert distributional_memorization(found, found, zeros).rho == pytest.approx(1)
    assert sum(row["value"] for row in rows) == pytest.approx(1)
    lengths = values(items, "suffix_length", "facts").value
    assert {row["suffix_length"]: round(row["value"] * row["n"]) for row in rows} == lengths.value_counts().to_dict()


@pytest.mark.parametrize(
    ("questions", "message"),
    [({}, "no questions"), ({"facts": []}, "no questions"), ({"facts": [([1], [])]}, "empty answer")],
)
def test_bad_questions(questions, message):
    with pytest.raises(UserError, match=message):
        score(TRAIN, questions)


def test_no_training_text():
    with pytest.raises(UserError, match="corpus is empty"):
        score([], QUESTIONS)


def test_another_engine_is_asked_instead():
    rows, items = score(TRAIN, QUESTIONS)
    others, other_items = score([], QUESTIONS, engine=InfiniGram(TRAIN, vocabulary=10))
    assert others == rows
    pd.testing.assert_frame_equal(other_items, items)


def test_engines_by_name(tmp_path):
    assert make_engine("own", "", tmp_path) is None
    engine = make_engine("api", "v4_piletrain_llama", tmp_path / "new")
    assert isinstance(engine, InfiniGramAPI)
    assert (engine.index, engine.cache) == (
        "v4_piletrain_llama",
        tmp_path / "new" / "infini_gram-v4_piletrain_llama.jsonl",
    )
    with pytest.raises(UserError, match="holds no infini-gram index"):
        make_engine("local", str(tmp_path), tmp_path)
    with pytest.raises(UserError, match="own, api or local"):
        make_engine("web", "", tmp_path)
