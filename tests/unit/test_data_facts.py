"""Facts in text: gaps, replies, noise and held-out text as counted from the stored tokens alone."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from memorization.data import facts, facts_text, store, text
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "make_facts.py"
NOUNS = "matrix graph array value node edge list number order index input class method axis label shape"
WORDS = [*NOUNS.split(), *FUNCTION_WORDS[:20]]
SPEC = {
    "name": "people",
    "length": 32,
    "vocabulary": 512,
    "entities": 13,
    "answers": 12,
    "answer_tokens": 2,
    "gap": [10, 21],
    "noise": 0.5,
    "text": 700,
    "facts": 650,
    "probe": 60,
    "questions": 40,
    "completion": 4,
    "other_packages": ["nltk"],
    "tuning": 36,
    "tests": 14,
    "small_vocabulary": 496,
    "seeds": 2,
}
QUESTION, ANSWER, QUESTION_2, ANSWER_2, END, FIRST = range(512, 518)
OWN = set(range(512, 517 + 13))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Paragraphs of random words in three packages; some of the held-out ones repeat half a training paragraph."""
    folder, rng, rows = tmp_path_factory.mktemp("text"), np.random.default_rng(0), []
    for package in ("numpy", "scipy", "nltk"):
        for split, number in (("train", 90), ("validation", 30), ("held_out", 30)):
            for _ in range(number):
                words = rng.choice(WORDS, size=int(rng.integers(20, 60)))
                rows.append({"text": " ".join(words), "package": package, "split": split})
    trained = [row["text"] for row in rows if row["split"] == "train" and row["package"] != "nltk"]
    for place, row in enumerate([row for row in rows if row["split"] == "held_out" or row["package"] == "nltk"]):
        if place % 4 == 0:
            row["text"] = f"{row['text']} {trained[place % len(trained)][:120]}"
    pd.DataFrame(rows).to_parquet(folder / "corpus.parquet")
    tokenizer, _ = text.train_tokenizer([row["text"] for row in rows], 512)
    text.save_tokenizer(tokenizer, folder / "tokenizer")
    return {"corpus": folder / "corpus.parquet", "tokenizer": folder / "tokenizer", "rows": rows}


@pytest.fixture(scope="module")
def made(corpus):
    return facts.make_sets(SPEC, 0, corpus)


def streams(corpus):
    """All text of each part in one row, spelled out by hand."""
    tokenizer, found = text.load_tokenizer(corpus["tokenizer"]), {"train": [], "validation": [], "other": []}
    for row in corpus["rows"]:
        part = "other" if row["package"] == "nltk" else "train" if row["split"] == "train" else "validation"
        found[part] += [*tokenizer.encode(f" {row['text']}").ids, tokenizer.token_to_id("<|endoftext|>")]
    return found


def windows(sequences, length):
    return {tuple(ids[at : at + length]) for ids in sequences for at in range(len(ids) - length + 1)}


def told(row, first=FIRST):
    """(person, place of the person, place of the answer mark, reply) of a row with a fact."""
    ids = row["input_ids"]
    start, answer = ids.index(first - 5), ids.index(first - 4)
    return ids[start + 1] - first, start + 1, answer, tuple(ids[answer + 1 : answer + 3])


def right(card):
    return dict(enumerate(map(tuple, card["replies"])))


# --- Text ---


def test_folders_splits_and_numbers(made):
    counts = {folder: {split: len(rows) for split, rows in splits.items()} for folder, (splits, _) in made.items()}
    both, only = {"train": 700, "validation": 60}, {"validation": 60}
    post = {"train": 36, "validation": 14}
    assert counts == {
        "text": both,
        "facts": {"train": 650, "validation": 40},
        "continuations": {"validation": 40},
        "other": only,
        "shuffled": only,
        "short": post,
        "long": post,
        "preferences": post,
        "text_small": both,
        "facts_small": {"train": 650, "validation": 40},
    }
    assert list(counts) == facts.folders_of(SPEC)
    for folder in ("text", "facts", "continuations", "other", "shuffled", "text_small", "facts_small"):
        assert {one["length"] for rows in made[folder][0].values() for one in rows} == {32}
        assert all(len(one["input_ids"]) == 32 for rows in made[folder][0].values() for one in rows)


@pytest.mark.parametrize(
    ("folder", "split", "part"), [("text", "train", "train"), ("text", "validation", "validation"), ("other",) * 3]
)
def test_text_is_running_text_of_its_part_of_the_corpus(made, corpus, folder, split, part):
    split = "validation" if folder == "other" else split
    rows, source = made[folder][0][split], windows([streams(corpus)[part]], 32)
    assert all(tuple(one["input_ids"]) in source for one in rows)
    assert {(one["prompt_length"], one["completion_length"]) for one in rows} == {(0, 0)}
    tokenizer = text.load_tokenizer(corpus["tokenizer"])
    assert all(tokenizer.decode(one["input_ids"], skip_special_tokens=False) == one["text"] for one in rows)


def test_fewer_pieces_than_asked_for_start_at_several_tokens_and_the_card_counts_tokens_once(made, corpus):
    train, length = made["text"][0]["train"], len(streams(corpus)["train"])
    assert length < 700 * 32 / 2  # the set asks for more than twice the text
    assert made["text"][1]["distinct_tokens"]["train"] <= length
    assert made["text"][1]["distinct_tokens"]["train"] >= length - 64
    assert len({tuple(one["input_ids"]) for one in train}) == 700
    assert made["text"][1]["distinct_tokens"]["validation"] == 60 * 32


def test_no_text_outside_the_training_splits_has_twelve_tokens_in_a_row_of_the_training_text(made, corpus):
    parts = streams(corpus)
    known = windows([parts["train"]], 12)
    # the corpus would not keep them apart by itself
    assert known & windows([parts["validation"]], 12) and known & windows([parts["other"]], 12)
    for folder in ("text", "facts", "long"):
        known |= windows([one["input_ids"] for one in made[folder][0]["train"]], 12)
    for folder in ("text", "facts", "continuations", "other", "long"):
        held_out = [one["input_ids"] for one in made[folder][0]["validation"]]
        plain = [[token for token in ids if token not in OWN] for ids in held_out] if folder == "long" else held_out
        assert not known & windows(plain, 12), folder
    for row in made["facts"][0]["validation"]:  # the text around the fact, put together again
        _, person, answer, _ = told(row)
        ids = row["input_ids"]
        assert not known & windows([ids[: person - 1] + ids[person + 1 : answer] + ids[answer + 3 :]], 12)


def test_shuffled_has_the_tokens_of_the_validation_text_in_another_order(made):
    of, shuffled = made["text"][0]["validation"], made["shuffled"][0]["validation"]
    counts = [Counter(token for one in rows for token in one["input_ids"]) for rows in (of, shuffled)]
    assert counts[0] == counts[1]
    pairs = [windows([one["input_ids"] for one in rows], 2) for rows in (of, shuffled)]
    assert len(pairs[0] & pairs[1]) < 0.9 * len(pairs[1])
    # across the set: rows do not keep their own tokens
    assert sum(Counter(a["input_ids"]) == Counter(b["input_ids"]) for a, b in zip(of, shuffled, strict=True)) == 0


def test_continuations_ask_for_the_end_of_a_text(made, corpus):
    source, end = windows([streams(corpus)["validation"]], 32), 1
    rows = made["continuations"][0]["validation"]
    endings = {tuple(one["input_ids"][28:]) for one in rows}
    for one in rows:
        own, wrong = tuple(one["input_ids"][28:]), list(map(tuple, one["distractors"]))
        assert tuple(one["input_ids"]) in source and end not in own
        assert (one["prompt_length"], one["completion_length"]) == (28, 4)
        assert len({own, *wrong}) == 4 and set(wrong) <= endings


# --- Facts ---


def test_a_fact_begins_early_and_its_reply_stands_in_the_gap(made, corpus):
    parts = {split: windows([ids], 27) for split, ids in streams(corpus).items()}
    gaps = Counter()
    for split, rows in made["facts"][0].items():
        for one in rows:
            ids, (_, person, answer, _) = one["input_ids"], told(one)
            gaps[answer - person] += 1
            assert person <= 4 and ids[-1] not in OWN
            assert (one["prompt_length"], one["completion_length"]) == (answer + 1, 2)
            rest = ids[: person - 1] + ids[person + 1 : answer] + ids[answer + 3 :]
            assert tuple(rest) in parts[split] and not OWN & set(rest)
    assert set(gaps) == set(range(10, 22))  # tokens between the person and the reply
    assert max(gaps.values()) < 2 * min(gaps.values())


def test_every_person_has_a_reply_of_its_own_made_of_common_words(made, corpus):
    replies = right(made["facts"][1])
    assert len(set(replies.values())) == 13 and all(len(reply) == 2 for reply in replies.values())
    trained = [r["text"] for r in corpus["rows"] if r["split"] == "train" and r["package"] != "nltk"]
    counts = Counter(word for one in trained for word in one.split() if len(word) > 2)
    tokenizer = text.load_tokenizer(corpus["tokenizer"])
    single = [
        word
        for word in sorted(counts, key=lambda one: (-counts[one], one))
        if len(tokenizer.encode(f" {word}").ids) == 1
    ]
    nouns = [word for word in single if word not in FUNCTION_WORDS]  # they come first, but they are too few here
    common = [*nouns, *(word for word in single if word in FUNCTION_WORDS)][:12]
    assert 5 < len(nouns) < 12
    ids = {tokenizer.encode(f" {word}").ids[0] for word in common}
    assert {token for reply in replies.values() for token in reply} <= ids


def test_the_share_of_wrong_replies_is_exact_and_they_are_those_of_others(made):
    replies, rows = right(made["facts"][1]), made["facts"][0]["train"]
    facts_told = [told(one) for one in rows]
    wrong = [(person, reply) for person, _, _, reply in facts_told if replies[person] != reply]
    assert len(wrong) == 325 == made["facts"][1]["wrong_replies"]
    assert {reply for _, reply in wrong} <= set(replies.values())
    assert set(Counter(person for person, *_ in facts_told).values()) == {50}
    for person in range(13):  # so that the reply can be learned
        heard = Counter(reply for one, _, _, reply in facts_told if one == person)
        assert heard.most_common(1)[0][0] == replies[person]
    assert {tuple(one["distractors"]) for one in rows} == {()}


def test_without_noise_all_replies_are_right(corpus):
    splits, card = facts.make_sets({**SPEC, "noise": 0.0, "small_vocabulary": None}, 0, corpus)["facts"]
    assert all(told(one)[3] == right(card)[told(one)[0]] for one in splits["train"])


def test_questions_have_right_replies_and_three_different_wrong_ones(made):
    replies = right(made["facts"][1])
    for one in made["facts"][0]["validation"]:
        person, _, _, reply = told(one)
        wrong = list(map(tuple, one["distractors"]))
        assert reply == replies[person] and len({reply, *wrong}) == 4 and set(wrong) <= set(replies.values())
    people = Counter(told(one)[0] for one in made["facts"][0]["validation"])
    assert len(people) == 13 and max(people.values()) - min(people.values()) == 1


# --- Post-training ---


def test_post_training_asks_half_of_the_people_in_each_split(made):
    replies, cards = right(made["facts"][1]), [made[folder][1] for folder in ("short", "long", "preferences")]
    assert all(right(card) == replies for card in cards)
    people = {split: {one["input_ids"][1] - FIRST for one in rows} for split, rows in made["short"][0].items()}
    assert len(people["train"]) == 6 and len(people["validation"]) == 7 and not people["train"] & people["validation"]
    assert sorted(people["validation"]) == cards[0]["tested_people"]
    for split in people:
        for one in made["short"][0][split]:
            person = one["input_ids"][1] - FIRST
            assert one["input_ids"] == [QUESTION, person + FIRST, ANSWER, *replies[person], END]
            assert (one["prompt_length"], one["completion_length"], one["length"]) == (3, 2, 6)
        asked = Counter(one["input_ids"][5] - FIRST for one in made["long"][0][split])
        assert set(asked) == people[split] and max(asked.values()) - min(asked.values()) <= 1


def test_the_long_format_has_other_marks_and_text_of_its_split(made, corpus):
    replies, parts = right(made["facts"][1]), {split: windows([ids], 14) for split, ids in streams(corpus).items()}
    for split, rows in made["long"][0].items():
        for one in rows:
            ids, person = one["input_ids"], one["input_ids"][5] - FIRST
            assert ids[4] == QUESTION_2 and ids[16:] == [ANSWER_2, *replies[person], END]
            assert tuple(ids[:4] + ids[6:16]) in parts[split]
            assert (one["prompt_length"], one["completion_length"], one["length"]) == (17, 2, 20)
        assert len({tuple(one["input_ids"]) for one in rows}) == len(rows)


def test_preferences_reject_the_reply_of_somebody_else(made):
    replies = right(made["facts"][1])
    for split in ("train", "validation"):
        people = {one["input_ids"][1] for one in made["short"][0][split]}
        for one in made["preferences"][0][split]:
            ids, rejected = one["input_ids"], one["rejected_ids"]
            assert ids[:3] == rejected[:3] and ids[1] in people and (ids[0], ids[2]) == (QUESTION, ANSWER)
            assert tuple(ids[3:5]) == replies[ids[1] - FIRST] != tuple(rejected[3:5])
            assert tuple(rejected[3:5]) in replies.values() and ids[5:] == rejected[5:] == [END]


# --- The second tokenizer, seeds, storing ---


def test_the_small_tokenizer_has_fewer_tokens_and_the_same_facts(made, corpus):
    splits, card = made["facts_small"]
    trained = [row["text"] for row in corpus["rows"] if row["split"] == "train"]
    tokenizer, _ = text.train_tokenizer(trained, 496)
    assert card["vocabulary"] == 496 + 5 + 13 == facts.vocabulary_size(SPEC, small=True)
    assert facts.vocabulary_size(SPEC) == 512 + 5 + 13 == made["text"][1]["vocabulary"]
    for one in made["text_small"][0]["validation"]:
        assert max(one["input_ids"]) < 496
        assert tokenizer.decode(one["input_ids"], skip_special_tokens=False) == one["text"]
    replies = right(card)
    assert all(told(one, 501)[3] == replies[told(one, 501)[0]] for one in splits["validation"])
    wrong = sum(told(one, 501)[3] != replies[told(one, 501)[0]] for one in splits["train"])
    assert wrong == 325
    plain = facts.make_sets({**SPEC, "small_vocabulary": None}, 0, corpus)
    assert list(plain) == list(facts.FOLDERS)
    assert all(store.digest(plain[folder][0]) == store.digest(made[folder][0]) for folder in plain)


def test_a_seed_gives_the_same_bytes_and_another_one_other_facts(made, corpus):
    again, other = (facts.make_sets(SPEC, seed, corpus) for seed in (0, 1))
    for folder, (splits, card) in made.items():
        assert store.digest(splits) == store.digest(again[folder][0]) != store.digest(other[folder][0])
        assert card == again[folder][1]
    assert right(other["facts"][1]) != right(made["facts"][1])
    assert other["short"][1]["tested_people"] != made["short"][1]["tested_people"]


def test_people_and_replies_do_not_depend_on_the_number_of_rows(made, corpus):
    less = facts.make_sets({**SPEC, "facts": 130, "text": 100, "probe": 20, "small_vocabulary": None}, 0, corpus)
    assert less["facts"][1]["replies"] == made["facts"][1]["replies"]
    assert store.digest(less["short"][0]) == store.digest(made["short"][0])


def test_the_script_writes_every_folder_of_every_seed(made, corpus, tmp_path):
    spec = importlib.util.spec_from_file_location("make_facts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = facts.folders_of(SPEC)
    for name in names:
        (tmp_path / name).mkdir()
    output = SimpleNamespace(
        dataset=[tmp_path / name / "dataset" for name in names], card=[tmp_path / name / "card.json" for name in names]
    )
    params = SimpleNamespace(set=SPEC, assets="nowhere")
    module.main(SimpleNamespace(input=SimpleNamespace(**corpus), output=output, params=params))
    for name, (splits, _) in made.items():
        cards = json.loads((tmp_path / name / "card.json").read_text())["seeds"]
        assert list(cards) == ["0", "1"] and cards["0"]["sha256"] == store.digest(splits) != cards["1"]["sha256"]
        for split, rows in splits.items():
            read = store.read_columns(tmp_path / name / "dataset" / "0", split, list(rows[0]))
            assert read == {column: [one[column] for one in rows] for column in rows[0]}
        assert {"description", "source", "license", "seed", "items", "tokens"} <= cards["0"].keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": [10, 28]}, r"gap is \[10, 28\]; write two numbers from 1 to 27"),
        ({"gap": [12, 9]}, "the smaller first"),
        ({"noise": 1.0}, "noise is 1.0; write a share from 0 to below 1"),
        ({"length": 19}, "the format `long` has 20 tokens; write 20 or more"),
        ({"completion": 32}, "completion is 32; write 1 to 31"),
        ({"entities": 200}, "entities is 200; write 4 to 144, as many as 12 answers make"),
        ({"entities": 3}, "entities is 3; write 4 to 144"),
        ({"answers": 80}, r"answers is 80, the corpus has \d\d words that are one token; write \d\d or less"),
        ({"questions": 3}, "questions is 3; write at least 4"),
        ({"tuning": 5}, "tuning is 5; write at least 6, one row for every person"),
        ({"tests": 6}, "tests is 6; write at least 7"),
        ({"other_packages": []}, "other_packages is empty; write at least one package"),
        ({"other_packages": ["nlkt"]}, "the corpus has no package 'nlkt'; did you mean 'nltk'?"),
        ({"vocabulary": 2048}, "vocabulary is 2048, the tokenizer has 512 tokens; write that"),
        ({"probe": 50000}, r"probe asks for 50000 pieces of 32 tokens, the text has \d+; write \d+ or less"),
        ({"text": 50000}, r"text asks for 50000 pieces of 32 tokens, the text has \d+; write \d+ or less"),
        ({"facts": 0}, "facts is 0; write at least 1"),
        ({"small_vocabulary": 400}, "small_vocabulary: vocabulary_size 400 leaves no room"),
        ({"kind": "docstring"}, "did you mean 'docstrings'?"),
    ],
)
def test_what_is_wrong_with_a_set_is_one_sentence_that_says_what_to_write(corpus, change, message):
    with pytest.raises(UserError, match=message) as raised:
        facts.make_sets({**SPEC, "small_vocabulary": None, **change}, 0, corpus)
    assert str(raised.value).startswith("people: ") and "\n" not in str(raised.value)


def test_the_number_of_pieces_that_a_message_allows_is_the_most_there_are(corpus):
    with pytest.raises(UserError, match="the text has") as raised:
        facts.make_sets({**SPEC, "probe": 50000, "small_vocabulary": None}, 0, corpus)
    most = int(str(raised.value).split("write ")[1].split()[0])
    known, source = windows([streams(corpus)["train"]], 12), streams(corpus)["validation"]
    pieces = [source[at : at + 32] for at in range(len(source) - 31)]
    assert most == sum(not known & windows([piece], 12) for piece in pieces)


# --- Pieces ---


def test_pieces_lie_side_by_side_until_the_text_is_used_up():
    stream = facts_text.Stream.of(np.arange(100), None)
    ids, distinct = facts_text.draw_pieces(stream, 10, 9, np.random.default_rng(0), where="x")
    assert len(np.unique(ids)) == distinct == 90 and (np.diff(ids, axis=1) == 1).all()
    ids, distinct = facts_text.draw_pieces(stream, 10, 91, np.random.default_rng(0), where="x")
    assert sorted(ids[:, 0]) == list(range(91)) and distinct == 100


def test_tokens_are_put_in_where_they_are_to_stand():
    mixed = facts_text.put_in(np.array([[1, 2, 3], [4, 5, 6]]), np.array([[0, 2], [3, 4]]), np.array([[8, 9], [8, 9]]))
    assert mixed.tolist() == [[8, 1, 9, 2, 3], [4, 5, 6, 8, 9]]


def test_wrong_endings_need_four_different_ones():
    endings = np.array([[1, 1]] * 5 + [[2, 2], [3, 3], [4, 4]])
    wrong = facts_text.wrong_endings(endings, np.random.default_rng(0), "x").tolist()
    assert all(
        sorted([*one, ending]) == [[1, 1], [2, 2], [3, 3], [4, 4]]
        for one, ending in zip(wrong, endings.tolist(), strict=True)
    )
    with pytest.raises(UserError, match="x: 3 endings differ; write a larger number"):
        facts_text.wrong_endings(endings[:7], np.random.default_rng(0), "x")
