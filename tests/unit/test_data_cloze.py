"""Cloze questions on a made-up corpus; every promise is checked on the text itself."""

import random
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from memorization.data import cloze, text
from memorization.data.passages import prepare
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

GROUPS = {"nets": ["graphs", "trees"], "sums": ["arrays"]}
BOUNDS = (6, 20)


@cache
def rows():
    """Return 500 paragraphs of 3 packages; "arrays" has few, modals are rare."""
    draw = random.Random(0)
    syllables = ["gra", "no", "ed", "ma", "wei", "pa", "co", "nu"]
    words = [a + b for a in syllables for b in syllables]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    small = [word for word in FUNCTION_WORDS if word not in cloze.CLASSES["modals"]]
    made = []
    for number in range(500):
        parts = []
        for _ in range(draw.randint(8, 14)):
            parts += [draw.choice(small), draw.choices(words, weights)[0]]
        if draw.random() < 0.1:
            parts.insert(9, draw.choice(cloze.CLASSES["modals"]))
        made.append(
            {
                "text": " ".join(parts).capitalize() + ".",
                "package": draw.choices(("graphs", "trees", "arrays"), (0.5, 0.4, 0.1))[0],
                "module": f"m{number}",
                "split": draw.choices(("train", "validation", "held_out"), (0.4, 0.3, 0.3))[0],
            }
        )
    return made


@cache
def tokenizer():
    return text.train_tokenizer([row["text"] for row in rows()], 700)[0]


@cache
def corpus():
    return prepare(rows(), tokenizer())


@cache
def made(kind, questions=120, seed=0):
    groups = GROUPS if kind == "content" else None
    return cloze.draw_cloze(corpus(), seed=seed, kind=kind, questions=questions, context_tokens=BOUNDS, groups=groups)


def class_of(word):
    return next(name for name, words in cloze.CLASSES.items() if word in words)


def source(question):
    """Return the one paragraph of which the context is the beginning."""
    found = [row for row in rows() if row["text"].startswith(question.text[1:])]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("kind", cloze.KINDS)
def test_questions_have_their_form(kind):
    questions = made(kind)
    assert len(questions) == 120
    for question in questions:
        assert BOUNDS[0] <= len(question.context_ids) <= BOUNDS[1]
        assert tokenizer().decode(list(question.context_ids)) == question.text
        assert tuple(tokenizer().encode(question.text).ids) == question.context_ids
        assert [tokenizer().decode([token]) for token in question.option_ids] == [f" {w}" for w in question.words]
        assert len(set(question.option_ids)) == 4
        row = source(question)
        assert row["split"] in ("validation", "held_out")
        rest = row["text"][len(question.text) - 1 :]
        # the text goes on with the answer and a word boundary
        assert re.match(rf" {question.words[question.answer]}(?![\w'-])", rest)


@pytest.mark.parametrize("kind", cloze.KINDS)
def test_one_question_a_paragraph_and_shuffled_answers(kind):
    questions = made(kind)
    assert len({source(question)["module"] for question in questions}) == len(questions)
    places = Counter(question.answer for question in questions)
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 10


def test_content_options():
    train = Counter(word for row in rows() if row["split"] == "train" for word in re.findall(r"[a-z]+", row["text"]))
    for question in made("content"):
        assert source(question)["package"] in GROUPS[question.group]
        context = question.text.split()
        for word in question.words:
            assert word.isalpha() and word.islower() and len(word) >= 3
            assert word not in FUNCTION_WORDS
            assert word not in context  # no option can be copied
            assert train[word] >= 5


def test_content_distractors_are_of_similar_frequency():
    """They are among the 12 nearest words of a pool without the context; the words between are in the context."""
    words = cloze.find_words(corpus(), "content")
    frequency = dict(zip(words.words, words.log_counts, strict=True))
    for question in made("content"):
        answer = question.words[question.answer]
        context = set(question.text.split())
        gaps = sorted(abs(frequency[w] - frequency[answer]) for w in words.words if w != answer and w not in context)
        for word in question.words:
            assert word == answer or abs(frequency[word] - frequency[answer]) <= gaps[11]
    assert len(words.words) > 30


def test_function_options_are_of_one_class():
    for question in made("function"):
        assert question.group == class_of(question.words[question.answer])
        if question.group == "coordinators":  # three words are too few
            assert all(word in FUNCTION_WORDS for word in question.words)
        else:
            assert {class_of(word) for word in question.words} == {question.group}


def test_counts_of_whole_words():
    words = cloze.find_words(corpus(), "function")
    train = Counter(
        word for row in rows() if row["split"] == "train" for word in re.findall(r"(?<= )[a-z]+", row["text"])
    )
    assert {
        word: round(2.718281828459045**count - 1) for word, count in zip(words.words, words.log_counts, strict=True)
    } == {word: train[word] for word in words.words}
    assert len(words.words) == 108


def test_a_piece_of_a_longer_word_is_no_answer():
    odd = [{"text": "It is the node-by-node of thethe themselves.", "module": "a", "split": "train"}]
    words = cloze.find_words(prepare(odd, tokenizer()), "function")
    counts = {w: round(2.718281828459045**c - 1) for w, c in zip(words.words, words.log_counts, strict=True)}
    assert {word: count for word, count in counts.items() if count} == {"is": 1, "the": 1, "of": 1, "themselves": 1}


def test_groups_are_balanced_as_far_as_the_corpus_allows():
    counts = cloze.count_groups(made("content", 40))
    assert counts == {"nets": 20, "sums": 20}
    many = cloze.count_groups(made("content", 150))
    held_out = sum(row["package"] == "arrays" and row["split"] != "train" for row in rows())
    assert 20 < many["sums"] <= held_out
    assert many["nets"] == 150 - many["sums"]
    classes = cloze.count_groups(made("function"))
    assert set(classes) == {
        "determiners", "pronouns", "coordinators", "prepositions", "wh-words", "modals", "auxiliaries"
    }  # fmt: skip
    assert max(classes.values()) - min(classes.values()) <= 8
    packages = cloze.draw_cloze(corpus(), seed=0, kind="content", questions=30, context_tokens=BOUNDS)
    assert cloze.count_groups(packages) == {"arrays": 10, "graphs": 10, "trees": 10}


@pytest.mark.parametrize("kind", cloze.KINDS)
def test_a_seed_is_reproducible_and_seeds_differ(kind):
    groups = GROUPS if kind == "content" else None
    again = cloze.make_cloze(
        rows(), tokenizer(), seed=0, kind=kind, questions=120, context_tokens=BOUNDS, groups=groups
    )
    assert again == made(kind)
    assert len({q.text for q in again} & {q.text for q in made(kind, seed=1)}) < 90


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "contents"}, "did you mean 'content'"),
        ({"questions": 9999}, r"only \d+ questions, not 9999; write questions: \d+"),
        ({"groups": {"nets": ["graph"]}}, "did you mean 'graphs'"),
        ({"groups": {"a": ["graphs"], "b": ["graphs"]}}, "share 'graphs'"),
        ({"context_tokens": (9, 5)}, r"context_tokens 9-5"),
        ({"options": 1}, "options 1"),
        ({"options": 200}, "fewer options"),
    ],
)
def test_errors_say_what_to_write(change, message):
    settings = {"seed": 0, "kind": "content", "questions": 40, "context_tokens": BOUNDS, "groups": GROUPS, **change}
    with pytest.raises(UserError, match=message):
        cloze.draw_cloze(corpus(), **settings)


def test_the_number_that_the_error_names_works():
    settings = {"seed": 0, "kind": "function", "context_tokens": BOUNDS}
    with pytest.raises(UserError) as error:
        cloze.draw_cloze(corpus(), questions=9999, **settings)
    number = int(str(error.value).split("write questions: ")[1].split()[0])
    assert len(cloze.draw_cloze(corpus(), questions=number, **settings)) == number


def test_rare_groups_choose_first():
    rare, common = {0: [5], 1: [6]}, {0: [7], 1: [8], 2: [9], 3: [10]}
    chosen = cloze._balance({"common": common, "rare": rare}, 4, np.random.default_rng(0))
    assert sorted(chosen) == [("common", 2, 9), ("common", 3, 10), ("rare", 0, 5), ("rare", 1, 6)]
