"""Passages, background and held-out text on a made-up corpus; every promise is checked by brute force."""

import random
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest

from memorization.data import passages as data
from memorization.data import text
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

PREFIX, SUFFIX, LENGTH, OVERLAP = 8, 12, 24, 6
SETTINGS = {
    "seed": 0,
    "domains": {"nets": ["graphs", "trees"], "sums": ["arrays"]},
    "passages": 15,
    "prefix": PREFIX,
    "suffix": SUFFIX,
    "length": LENGTH,
    "background": 10_000,
    "held_out": 10_000,
    "overlap": OVERLAP,
}


@cache
def rows():
    """Return 480 paragraphs in 40 modules of 3 packages. Every ninth sentence is one of two, so n-grams recur."""
    draw = random.Random(0)
    syllables = ["gra", "no", "ed", "ma", "wei", "pa", "co", "nu", "fun", "va", "tri", "lo", "ker", "bas"]
    words = [a + b for a in syllables for b in syllables]
    small = FUNCTION_WORDS[::3]
    stock = [
        "The value of the node is the sum of all its edges and loops.",
        "See the notes of the graph for 2024 of it.",
    ]
    made = []
    for number in range(480):
        sentences = []
        for _ in range(draw.randint(1, 4)):
            parts = [f"{draw.choice(small)} {draw.choice(words)}" for _ in range(draw.randint(2, 5))]
            parts.insert(1, f"{draw.choice(words)}-{draw.choice(words)}, {draw.randint(0, 2030)}")
            sentences.append(draw.choice(stock) if draw.random() < 1 / 9 else " ".join(parts).capitalize() + ".")
        made.append(
            {
                "text": " ".join(sentences),
                "package": ("graphs", "trees", "arrays")[number // 12 % 3],
                "module": f"m{number // 12:02d}",
                "split": draw.choices(("train", "validation", "held_out"), (0.7, 0.15, 0.15))[0],
            }
        )
    return made


@cache
def tokenizer(vocabulary=700):
    return text.train_tokenizer([row["text"] for row in rows()], vocabulary)[0]


@cache
def corpus():
    return data.prepare(rows(), tokenizer())


@cache
def drawn(seed=0):
    return data.draw(corpus(), **{**SETTINGS, "seed": seed})


def all_passages(sets):
    return [item for name, items in sets.items() if name.startswith("passages_") for item in items]


def grams(item, order):
    ids = item.input_ids
    return {ids[i : i + order] for i in range(len(ids) - order + 1)}


def running_text(splits):
    """Return module and split -> the module's paragraphs of the split, joined."""
    joined = {}
    for row in rows():
        if row["split"] in splits:
            joined.setdefault((row["module"], row["split"]), []).append(row["text"])
    return {key: " " + " ".join(parts) for key, parts in joined.items()}


def whole_words_of(item, splits):
    """Say whether the text is a run of whole words of its module's running text in one of the splits."""
    words = item.text.split(" ")[1:]
    for (module, _), source in running_text(splits).items():
        have = source.split(" ")[1:]
        if module == item.module and any(
            have[i : i + len(words)] == words for i in range(len(have) - len(words) + 1) if have[i] == words[0]
        ):
            return True
    return False


def test_passages_have_their_form():
    sets = drawn()
    first_words = {row["module"]: set() for row in rows()}
    for row in rows():
        first_words[row["module"]].add(row["text"][:12])
    for domain, packages in SETTINGS["domains"].items():
        items = sets[f"passages_{domain}"]
        assert len(items) == SETTINGS["passages"]
        assert {item.package for item in items} == set(packages)
        for item in items:
            assert len(item.input_ids) == PREFIX + SUFFIX
            assert item.prompt_length == PREFIX
            assert item.text[1:13] in first_words[item.module]  # begins with a paragraph
            assert whole_words_of(item, ("train",))
            halves = [tokenizer().decode(list(part)) for part in (item.input_ids[:PREFIX], item.input_ids[PREFIX:])]
            assert all(half.startswith(" ") for half in halves)
            assert "".join(halves) == item.text


def test_passages_obey_the_filters():
    items = all_passages(drawn())
    assert len({item.input_ids[:PREFIX] for item in items}) == len(items) == 30
    assert all(len(set(item.input_ids[PREFIX:])) >= min(16, SUFFIX // 2) for item in items)
    for one, other in combinations(items, 2):
        a, b = grams(one, 5), grams(other, 5)
        assert len(a & b) / len(a | b) < 0.05


def test_the_filters_reject_something():
    packages = ["graphs", "trees", "arrays"]
    starts = data.candidates(corpus(), packages, PREFIX, SUFFIX)
    apart = starts[np.append(True, np.diff(starts) >= PREFIX + SUFFIX)]
    chosen = data.Chosen(corpus(), PREFIX, PREFIX + SUFFIX, 6)
    assert 0 < len(chosen.take(apart, 10**6)) < len(apart)  # repeated sentences
    strict = data.Chosen(corpus(), PREFIX, PREFIX + SUFFIX, SUFFIX)
    assert 0 < len(strict.take(apart, 10**6)) < len(chosen.starts)  # repeated tokens
    repeated = data.Chosen(corpus(), PREFIX, PREFIX + SUFFIX, 6)
    assert repeated.take(np.repeat(apart[:1], 3), 3) == [int(apart[0])]


def test_other_sequences_share_no_long_ngram_with_a_passage():
    sets = drawn()
    known = set().union(*(grams(item, OVERLAP) for item in all_passages(sets)))
    for name in ("background", "held_out"):
        assert sets[name]
        assert sets.dropped[name] > 0
        assert not any(grams(item, OVERLAP) & known for item in sets[name])


def test_dropped_sequences_are_those_that_overlap():
    """With a longer n-gram than any sequence none is dropped, and the difference is what overlaps by brute force."""
    sets, lax = drawn(), data.draw(corpus(), **{**SETTINGS, "overlap": LENGTH + 1})
    assert lax.dropped == {"background": 0, "held_out": 0}
    assert all_passages(lax) == all_passages(sets)
    known = set().union(*(grams(item, OVERLAP) for item in all_passages(sets)))
    for name in ("background", "held_out"):
        clean = [item for item in lax[name] if not grams(item, OVERLAP) & known]
        assert sorted(map(repr, clean)) == sorted(map(repr, sets[name]))
        assert len(lax[name]) - len(clean) == sets.dropped[name]


def test_overlapping_by_brute_force():
    rng = np.random.default_rng(0)
    ids, part = rng.integers(0, 4, 300), rng.integers(0, 4, 60)
    known = {tuple(part[i : i + 3]) for i in range(58)}
    expected = [tuple(ids[i : i + 3]) in known for i in range(298)] + [False, False]
    assert data.overlapping(ids, [part[:2], part], 3).tolist() == expected
    assert 0 < sum(expected) < 298
    assert not data.overlapping(ids, [], 3).any()
    assert data.overlapping(ids[:2], [part], 3).tolist() == [False, False]


def test_background_and_held_out_have_their_form():
    sets = drawn()
    for name, splits in (("background", ("train",)), ("held_out", ("validation", "held_out"))):
        for item in sets[name]:
            assert LENGTH / 4 <= len(item.input_ids) <= LENGTH
            assert item.prompt_length == 0
            assert item.text.startswith(" ")
            assert tuple(tokenizer().encode(item.text).ids) == item.input_ids
        assert all(whole_words_of(item, splits) for item in sets[name][:60])


def test_background_is_the_rest_of_the_train_split():
    """Passages and background spans do not overlap and leave only short rests."""
    encoded, passages = corpus(), drawn()
    chosen = data.Chosen(encoded, PREFIX, PREFIX + SUFFIX, 6)
    for domain, packages in SETTINGS["domains"].items():
        order = data.generator("passages", 0, domain).permutation(data.candidates(encoded, packages, PREFIX, SUFFIX))
        starts = chosen.take(order, SETTINGS["passages"])
        assert [tuple(encoded.ids[s : s + PREFIX + SUFFIX]) for s in starts] == [
            item.input_ids for item in passages[f"passages_{domain}"]
        ]
    spans = list(data.sequences(encoded, ("train",), chosen.covered, LENGTH))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    used = chosen.covered.copy()
    for begin, end in spans:
        assert not used[begin:end].any()
        used[begin:end] = True
    train = np.repeat([split == "train" for split in encoded.splits], np.diff(encoded.paragraphs))
    assert not used[~train].any()
    rests = np.flatnonzero(np.diff(np.append(np.append(False, train & ~used), False).astype(int))).reshape(-1, 2)
    assert len(rests)
    assert all(
        end - begin < LENGTH / 4 for begin, end in rests if not (set(encoded.bounds) & set(range(begin + 1, end)))
    )


def test_sequences_stay_within_a_module_when_a_word_is_longer_than_a_sequence():
    odd = [
        {"text": "A" + "xq" * 40 + " end of it.", "module": "a", "split": "train"},
        {"text": "To be.", "module": "b", "split": "train"},
    ]
    encoded = data.prepare(odd, tokenizer())
    none = np.zeros(len(encoded.ids), dtype=bool)
    spans = list(data.sequences(encoded, ("train",), none, 4))
    assert spans[0] == (0, 4)
    assert next(end for _, end in spans if end >= encoded.bounds[1]) == encoded.bounds[1]
    assert sum(end - begin for begin, end in spans) == len(encoded.ids)
    assert encoded.origin(int(encoded.bounds[1])) == ("", "b")


def test_a_seed_is_reproducible_and_seeds_differ():
    assert data.make(rows(), tokenizer(), **SETTINGS) == drawn()
    assert drawn(1) != drawn()
    both = [{item.input_ids for item in all_passages(drawn(seed))} for seed in (0, 1)]
    assert len(both[0] & both[1]) < 0.7 * len(both[0])
    fewer = data.draw(corpus(), **{**SETTINGS, "background": 20, "held_out": 5})
    assert fewer["background"] == drawn()["background"][:20]
    assert fewer["held_out"] == drawn()["held_out"][:5]


def test_reencode_keeps_texts():
    items = drawn()["background"]
    other = text.train_tokenizer([row["text"] for row in rows()], 560)[0]
    whole = data.reencode(items, other, 10 * LENGTH)
    assert [item.text for item in whole] == [item.text for item in items]
    assert all(tuple(other.encode(item.text).ids) == item.input_ids for item in whole)
    assert sum(len(item.input_ids) for item in whole) > sum(len(item.input_ids) for item in items)
    cut = data.reencode(items, other, 10)
    for before, after in zip(items, cut, strict=True):
        assert len(after.input_ids) <= 10
        assert before.text == after.text or before.text.startswith(after.text + " ")
        assert (after.package, after.module) == (before.package, before.module)
    assert any(item.text != before.text for item, before in zip(cut, items, strict=True))
    with pytest.raises(UserError, match="prompt"):
        data.reencode(drawn()["passages_sums"], other, 10)


def test_describe_counts():
    facts = data.describe(drawn())
    assert facts["dropped_for_overlap"] == drawn().dropped
    assert facts["function_words"] == 110
    assert facts["candidates"]["sums"] == len(data.candidates(corpus(), ["arrays"], PREFIX, SUFFIX))
    for name, items in drawn().items():
        words = {f" {word}" for word in FUNCTION_WORDS}
        tokens = [tokenizer().decode([token]) for item in items for token in item.input_ids]
        assert facts["sets"][name] == {
            "items": len(items),
            "tokens": len(tokens),
            "modules": len({item.module for item in items}),
            "function_word_share": round(sum(token in words for token in tokens) / len(tokens), 4),
        }
    assert 0.1 < facts["sets"]["background"]["function_word_share"] < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passages": 1000}, r"only \d+ passages of 8 \+ 12 tokens for the domain 'nets', not 1000; write passages: "),
        ({"domains": {"nets": ["graph"]}}, "did you mean 'graphs'"),
        ({"domains": {"a": ["graphs"], "b": ["graphs"]}}, "share 'graphs'"),
        ({"domains": {}}, "at least one"),
        ({"prefix": 0}, "prefix is 0"),
        ({"overlap": 1}, "leaves no background sequence"),
    ],
)
def test_errors_say_what_to_write(change, message):
    with pytest.raises(UserError, match=message):
        data.draw(corpus(), **{**SETTINGS, **change})


def test_the_number_that_the_error_names_works():
    with pytest.raises(UserError) as error:
        data.draw(corpus(), **{**SETTINGS, "domains": {"all": []}, "passages": 1000})
    number = int(str(error.value).split("write passages: ")[1].split(",")[0])
    settings = {**SETTINGS, "domains": {"all": []}, "passages": number, "background": 0, "held_out": 0}
    assert len(data.draw(corpus(), **settings)["passages_all"]) == number


def test_an_empty_corpus_is_an_error():
    with pytest.raises(UserError, match="no rows"):
        data.prepare([], tokenizer())


def function_words(*places):
    """Return a text of function words, each one token, by number."""
    return " ".join(FUNCTION_WORDS[place] for place in places)


def test_a_sequence_that_only_begins_or_ends_like_a_passage_is_dropped():
    passage, other = list(range(20)), list(range(30, 50))
    held_out = [other[:9] + passage[-6:], passage[:6] + other[:9], other[:9] + passage[-5:], passage[:5] + other[:9]]
    made = [
        {"text": function_words(*places), "module": module, "package": module, "split": split}
        for module, split, places in (
            ("passage", "train", passage),
            ("background", "train", other),
            *((str(number), "validation", places) for number, places in enumerate(held_out)),
        )
    ]
    sets = data.make(made, tokenizer(), **{**SETTINGS, "domains": {"one": ["passage"]}, "passages": 1})
    assert {item.module for item in sets["held_out"]} == {"2", "3"}
    assert sets.dropped == {"background": 0, "held_out": 2}


def test_passages_neither_overlap_nor_share_a_prefix():
    text_of_it = function_words(*range(30), 0, 1, *range(40, 58))
    encoded = data.prepare([{"text": text_of_it, "module": "m", "split": "train"}], tokenizer())
    assert len(encoded.ids) == 50
    chosen = data.Chosen(encoded, 2, 10, 4)
    # 9 begins within the first, 30 has the prefix of the first
    assert chosen.take(np.array([0, 9, 30, 10, 31]), 5) == [0, 10, 31]


def test_passages_from_elsewhere_bar_what_overlaps_them():
    """A tenth of the background, given as passages from elsewhere, is gone with all that shares an n-gram."""
    before = drawn()
    others = [item.input_ids for item in before["background"][::10]]
    after = data.draw(corpus(), **SETTINGS, others=others)
    known = set().union(*({ids[i : i + OVERLAP] for i in range(len(ids) - OVERLAP + 1)} for ids in others))
    for name in ("background", "held_out"):
        kept = [item for item in before[name] if not grams(item, OVERLAP) & known]
        assert sorted(map(repr, after[name])) == sorted(map(repr, kept))
    assert len(after["background"]) <= len(before["background"]) - len(others)
    assert all_passages(after) == all_passages(before)
    only = data.draw(corpus(), **{**SETTINGS, "domains": {}}, others=others)
    assert not all_passages(only) and only["background"]
