"""Text corpus, tokenizer, items, shuffles and embeddings, on small made-up texts and one real package."""

import random
from collections import Counter
from functools import cache

import numpy as np
import pytest

from memorization.data import prose, text
from memorization.data.words import FUNCTION_WORDS, FUNCTION_WORDS_BY_CLASS
from memorization.errors import UserError

SIZES = {"train": 24, "validation": 8, "lengths": (20, 30), "prompt": 10, "completion": 8}


@cache
def corpus():
    """Return 300 paragraphs of made-up sentences with numbers, commas and quotes, in modules of 10."""
    draw = random.Random(0)
    words = ["graph", "node", "edge", "matrix", "weight", "path", "color", "number", "function", "value"]
    small = FUNCTION_WORDS[::5]
    rows = []
    for number in range(300):
        sentences = []
        for _ in range(4):
            parts = [f"{draw.choice(small)} {draw.choice(words)}" for _ in range(draw.randint(1, 3))]
            parts.insert(1, f"{draw.choice(small)}, {draw.randint(0, 2030)}")
            sentences.append(" ".join(parts).capitalize() + draw.choice(".!?"))
        rows.append(
            {
                "text": " ".join(sentences),
                "module": f"m{number // 10:02d}",
                "split": "validation" if number // 10 % 5 == 0 else "train",
            }
        )
    return rows


@cache
def tokenizer():
    return text.train_tokenizer([row["text"] for row in corpus()], 1024)[0]


@cache
def items(shuffle="none", units="clauses", **changes):
    sizes = {**SIZES, **changes}
    pools = text.passages(corpus(), tokenizer(), minimum=sizes["lengths"][1])
    ngrams = text.count_ngrams(corpus(), shuffle)
    return text.text_items(pools, tokenizer(), seed=0, shuffle=shuffle, units=units, ngrams=ngrams, **sizes)


# --- Function words ---


def test_there_are_110_function_words():
    assert len(FUNCTION_WORDS) == len(set(FUNCTION_WORDS)) == 110
    assert [len(words) for words in FUNCTION_WORDS_BY_CLASS.values()] == [15, 19, 3, 40, 7, 8, 2, 16]


# --- Prose ---

DOCSTRING = """Compute the shortest path between two nodes of a weighted graph.

This paragraph has ``code``, a :class:`~a.b.Name`, *stress* and a
`link <https://x.org>`_ inside of it, and it is kept in one line.

Parameters
----------
first : int
    This describes the first parameter in a sentence, which is
    long enough to be kept.
    - A bullet that is dropped because it is a bullet, however long it may be made.

>>> print("A doctest is dropped, even if it is a whole long sentence of English words.")
And so is what it prints, even if it is a whole long sentence of English words.

For example::

    This block is literal, so it is dropped even if it is a whole long English sentence.

.. note::

    A note is prose and is kept, if it is long enough to be a paragraph of its own.

.. math::

    This is in a directive that holds no prose, so it is dropped however long it is.

======  ======
A table with a long row of words that is dropped since it has an underline there.
======  ======

References
----------
A reference to a book that is dropped since the section is called References, you see.
"""


def test_paragraphs_keep_prose_and_drop_everything_else(monkeypatch):
    monkeypatch.setattr(prose, "CHARACTERS_PER_PARAGRAPH", (60, 2000))
    assert list(prose.paragraphs(DOCSTRING)) == [
        "Compute the shortest path between two nodes of a weighted graph.",
        "This paragraph has code, a Name, stress and a link inside of it, and it is kept in one line.",
        "This describes the first parameter in a sentence, which is long enough to be kept.",
        "A note is prose and is kept, if it is long enough to be a paragraph of its own.",
    ]


GOOD = "This is a sentence about the order in which nodes are visited, which is rather long for one of its own."


@pytest.mark.parametrize(
    ("candidate", "kept"),
    [
        (GOOD, True),
        (GOOD[:40] + ".", False),
        (GOOD[:-1], False),
        (GOOD.replace("This", "this"), False),
        (GOOD.replace("nodes", "node_list"), False),
        (GOOD.replace("nodes", "nœuds"), False),
        (GOOD.replace("nodes", "f(x) = 2"), False),
        (GOOD.replace("is a sentence", "(is a sentence"), False),
        (
            "Alpha beta gamma, delta epsilon, zeta eta theta, iota kappa lambda, sigma tau chi, psi omega.",
            False,
        ),
    ],
)
def test_is_prose(candidate, kept):
    assert prose.is_prose(candidate) is kept


def test_near_repeats_are_found_and_other_texts_are_not():
    seen: set[int] = set()
    assert not prose.is_repeat(GOOD, seen)
    assert prose.is_repeat(GOOD, seen)
    assert prose.is_repeat(GOOD.replace("its own", "theirs"), seen)
    assert not prose.is_repeat("Some other words that come in quite another order and say something else.", seen)


def test_sentences_end_at_punctuation_before_a_capital():
    whole = 'It works, e.g. for trees. Does it? "Yes!" But by A. Turing (not others). End'
    assert prose.sentences(whole) == [
        "It works, e.g. for trees.",
        "Does it?",
        '"Yes!"',
        "But by A. Turing (not others).",
        "End",
    ]


@cache
def networkx():
    return prose.extract_prose(["networkx"])


def test_real_prose_of_one_package():
    rows = networkx()
    texts = [row["text"] for row in rows]
    assert len(texts) == len(set(texts)) > 500
    assert not any({"networkx", "nx"} & set(prose.words_of(one)) for one in texts)
    assert all(row["module"].split(".")[0] == "networkx" and "/" not in row["module"] for row in rows)
    assert prose.describe(rows, ["networkx"])["function_word_share"] == pytest.approx(0.43, abs=0.05)
    shares = Counter(row["split"] for row in rows)
    assert shares["train"] / len(rows) == pytest.approx(0.8, abs=0.06)


def test_the_corpus_does_not_depend_on_the_order_of_packages_or_of_the_file_system(monkeypatch):
    forward = prose.extract_prose(["seaborn", "accelerate"])
    listed = prose.Path.rglob
    monkeypatch.setattr(prose.Path, "rglob", lambda path, pattern: reversed(list(listed(path, pattern))))
    assert prose.extract_prose(["accelerate", "seaborn"]) == forward


def test_extraction_imports_nothing():
    import subprocess
    import sys

    code = "import sys; from memorization.data import prose; "
    code += "prose.extract_prose(['seaborn']); print('seaborn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(("package", "message"), [("no_such_package", "not installed"), ("os.path", "submodule")])
def test_packages_that_cannot_be_read_are_named(package, message):
    with pytest.raises(UserError, match=message):
        prose.extract_prose([package])


# --- Tokenizer ---


def test_function_words_and_digits_are_single_tokens():
    for word in FUNCTION_WORDS:
        assert len(tokenizer().encode(f" {word}").ids) == 1, word
    assert tokenizer().encode("2048").ids == [text.digits_in(tokenizer())[digit] for digit in "2048"]


def test_decoding_inverts_encoding():
    for row in [*corpus(), *networkx()[:200], {"text": " spaces  and\nlines, naïve — 12.5 % "}]:
        assert tokenizer().decode(tokenizer().encode(row["text"]).ids) == row["text"]


def test_saved_tokenizer_loads_in_both_libraries(tmp_path):
    from transformers import PreTrainedTokenizerFast

    text.save_tokenizer(tokenizer(), tmp_path)
    wanted = tokenizer().encode(GOOD).ids
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert text.load_tokenizer(tmp_path).encode(GOOD).ids == wanted == loaded.encode(GOOD)
    assert loaded.pad_token_id == tokenizer().token_to_id(text.PAD) == 0
    assert loaded.eos_token == text.END_OF_TEXT
    assert loaded.decode(wanted) == GOOD


@pytest.mark.parametrize("size", [300, 420])
def test_too_small_a_vocabulary_is_an_error(size):
    with pytest.raises(UserError, match="write a larger one"):
        text.train_tokenizer(["one two"], size)


# --- Items ---


def test_items_have_their_lengths_and_start_as_the_corpus_does():
    joined = {}
    for row in corpus():
        joined.setdefault(row["module"], []).append(row["text"])
    whole = [" " + " ".join(texts) for texts in joined.values()]
    for split, found in items().items():
        wanted = text.item_lengths(0, SIZES[split], 20, 30, split)
        assert [len(item.input_ids) for item in found] == wanted
        for item in found:
            assert tuple(tokenizer().encode(item.text).ids) == item.input_ids
            assert any(f"{item.text} " in module or module.endswith(item.text) for module in whole)


def test_items_are_nested_and_prompts_are_all_different():
    assert items(train=10)["train"] == items()["train"][:10]
    prompts = [item.input_ids[:10] for split in items().values() for item in split]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("units", text.UNITS)
@pytest.mark.parametrize("shuffle", text.SHUFFLES)
def test_a_shuffle_permutes_the_words_and_keeps_the_number_of_tokens(shuffle, units):
    changed = 0
    for split, originals in items().items():
        for original, shuffled in zip(originals, items(shuffle, units)[split], strict=True):
            assert sorted(shuffled.text.split()) == sorted(original.text.split())
            assert sorted(shuffled.input_ids) == sorted(original.input_ids)
            changed += shuffled != original
    assert (changed > 0) == (shuffle != "none")


def test_units_of_each_shuffle():
    one = " We go home. If it rains, we stay; the end. Or not!"
    units = {
        "sentences": ["We go home.", "If it rains, we stay; the end.", "Or not!"],
        "sentences2": ["We go home. If it rains, we stay; the end.", "Or not!"],
        "words": one.split(),
    }
    for shuffle, wanted in units.items():
        assert text.split_units(one, shuffle, "sentences") == wanted
    assert text.split_units(one, "sentences", "clauses") == [
        *("We go home.", "If it rains,", "we stay;", "the end.", "Or not!")
    ]
    counts = {("a", "b"): 5, ("b", "c"): 1, ("c", "a"): 1, ("b", "d"): 4}
    assert text.split_units("a b c a b d", "top2grams", ngrams=counts) == ["a b", "c", "a b", "d"]


def test_ngrams_are_counted_within_paragraphs():
    counts = text.count_ngrams([{"text": "a b a b"}, {"text": "b a"}], "top2grams")
    assert counts == {("a", "b"): 2, ("b", "a"): 2}


def test_a_shuffle_leaves_no_item_unchanged_that_can_change():
    rng = np.random.default_rng(0)
    assert all(text.permute(["a", "b"], rng) == ["b", "a"] for _ in range(20))
    assert text.permute(["a", "a"], rng) == ["a", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shuffle": "word"}, "did you mean 'words'"),
        ({"units": "clause"}, "did you mean 'clauses'"),
        ({"train": 10_000}, "gives only"),
        ({"prompt": 15}, "shortest item"),
    ],
)
def test_mistakes_are_explained(changes, message):
    with pytest.raises(UserError, match=message):
        items(**changes)


def test_unknown_text_set_is_named():
    with pytest.raises(UserError, match="did you mean 'text_words'"):
        text.shuffle_of("text_word")


# --- Embeddings ---


def dense_ppmi(streams, vocabulary, window):
    counts = np.zeros((vocabulary, vocabulary))
    for stream in streams:
        for i, a in enumerate(stream):
            for j, b in enumerate(stream):
                if 0 < abs(i - j) <= window:
                    counts[a, b] += 1
    totals = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(counts * totals.sum() / np.outer(totals, totals))
    return np.where(counts > 0, np.maximum(pmi, 0), 0)


def test_neighbor_vectors_are_the_truncated_svd_of_dense_ppmi():
    rng = np.random.default_rng(0)
    streams = [rng.zipf(1.6, size=30) % 19 for _ in range(40)]  # token 19 never occurs
    found = text.neighbor_vectors(streams, 20, 6, window=3)
    u, s, _ = np.linalg.svd(dense_ppmi(streams, 20, 3))
    # U S U^T is unique where single vectors have a free sign.
    np.testing.assert_allclose(found @ found.T, (u[:, :6] * s[:6]) @ u[:, :6].T, atol=1e-8)
    assert not found[19].any()


def test_embedding_rows_have_the_chosen_scale_and_are_distinct_and_repeatable():
    streams = text.encode_texts([row["text"] for row in corpus()], tokenizer())
    size = tokenizer().get_vocab_size()
    one, two = (text.embedding_matrix(streams, size, 16, std=0.05) for _ in range(2))
    assert one.dtype == np.float32 and one.shape == (size, 16)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(np.sqrt((one.astype(float) ** 2).mean(axis=1)), 0.05, rtol=1e-5)
    assert len(np.unique(one[: len({i for s in streams for i in s})], axis=0)) > 50


def test_pca_embedding_matches_the_svd_of_the_centered_matrix():
    matrix = np.random.default_rng(0).normal(size=(200, 12)) @ np.diag(np.arange(1, 13)) + 3
    found = text.pca_embedding(matrix, 5)
    u, s, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :5] * s[:5]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [0, 13])
def test_pca_width_is_checked(width):
    with pytest.raises(UserError, match="PCA width"):
        text.pca_embedding(np.ones((20, 12)), width)
