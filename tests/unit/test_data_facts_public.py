"""Public sets of facts: downloaded files become the sequences that the paper's code makes of them."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from memorization.data import facts, facts_public, store, text
from memorization.errors import UserError

SENTENCE = "who wrote the book about a river near old town where they made bread from stone and water"
WORDS = SENTENCE.split()
LAST = "\n\nHuman: they\n\nAssistant:"
END = 1  # <|endoftext|>


def words(rng, number):
    return " ".join(rng.choice(WORDS, size=number))


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Small files in the formats of the six public sets, and a tokenizer."""
    folder, rng = tmp_path_factory.mktemp("assets"), np.random.default_rng(0)
    tokenizer, _ = text.train_tokenizer([words(rng, 40) for _ in range(50)], 512)
    text.save_tokenizer(tokenizer, folder / "pythia")

    for name, number in (("fineweb", 90), ("wikitext", 40)):
        (folder / name).mkdir()
        lines = [words(rng, int(rng.integers(4, 90))) for _ in range(number)]
        pd.DataFrame({"text": [*lines, ""], "url": "x"}).to_parquet(folder / name / "0.parquet")

    (folder / "trivia" / "rc").mkdir(parents=True)
    questions = [f"{words(rng, 6)} {number}{'?' * (number % 2)}" for number in range(30)]
    answers = [{"value": f"Town {number % 12}", "aliases": ["x"]} for number in range(30)]
    table = pd.DataFrame({"question": questions, "answer": answers, "search_results": "long"})
    table.to_parquet(folder / "trivia" / "rc" / "validation-0.parquet")

    (folder / "sciq").mkdir()
    rows = [
        {
            "question": f"what is {number}",
            "correct_answer": f"stone {number}",
            **{f"distractor{k}": f"water {number + k}" for k in (1, 2, 3)},
            "support": words(rng, 8) if number % 2 else "",
        }
        for number in range(20)
    ]
    (folder / "sciq" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))

    (folder / "hh").mkdir()
    for split, first, number in (("train", 0, 30), ("test", 100, 12)):
        rows = []
        for k in range(first, first + number):
            prompt = f"\n\nHuman: {words(rng, 5)} {k}\n\nAssistant: who?\n\nHuman: they\n\nAssistant:"
            rows.append({"chosen": f"{prompt} bread {k}", "rejected": f"{prompt} stone {k}"})
        rows.append({"chosen": f"{prompt} again", "rejected": f"{prompt} stone"})  # the same prompt
        rows.append({"chosen": "\n\nHuman: who\n\nAssistant: ", "rejected": "\n\nHuman: who\n\nAssistant: a"})
        rows.append({"chosen": f"{LAST} b", "rejected": f"{LAST} c\n\nHuman: d"})
        with gzip.open(folder / "hh" / f"{split}.jsonl.gz", "wt") as stream:
            stream.write("\n".join(map(json.dumps, rows)))

    (folder / "alpaca").mkdir()
    rows = [
        {
            "instruction": f"{words(rng, 4)} {k}",
            "input": "a river" if k % 2 else "",
            "output": words(rng, 3 + 30 * (k == 7)),
        }
        for k in range(40)
    ]
    (folder / "alpaca" / "sft.json").write_text(json.dumps(rows))
    return folder


def spec_of(assets, **change):
    hh = {"asset": "hh", "files": ["train.jsonl.gz"], "validation_files": ["test.jsonl.gz"]}
    return {
        "name": "pythia",
        "kind": "public",
        "assets": str(assets),
        "tokenizer": "pythia",
        "length": 48,
        "reply_length": 64,
        "shortest": 16,
        "probe": 20,
        "questions": 12,
        "tuning": 24,
        "tests": 10,
        "seeds": 1,
        "sets": {
            "text": {"asset": "fineweb", "files": ["*.parquet"]},
            "other": {"asset": "wikitext", "files": ["*.parquet"]},
            "shuffled": {"asset": "fineweb", "files": ["*.parquet"]},
            "facts": {"asset": "trivia", "files": ["rc/validation-*.parquet"]},
            "continuations": {"asset": "sciq", "files": ["test.jsonl"]},
            "short": hh,
            "long": {"asset": "alpaca", "files": ["*.json"]},
            "preferences": hh,
        },
        **change,
    }


def with_set(assets, folder, **change):
    spec = spec_of(assets)
    return {**spec, "sets": {**spec["sets"], folder: {**spec["sets"][folder], **change}}}


@pytest.fixture(scope="module")
def made(assets):
    return facts.make_sets(spec_of(assets), 0, {})


@pytest.fixture(scope="module")
def tokenizer(assets):
    return text.load_tokenizer(assets / "pythia")


def encode(tokenizer, words):
    return tokenizer.encode(words, add_special_tokens=False).ids


def test_only_what_is_tuned_on_has_a_training_split(made, assets):
    counts = {folder: {split: len(rows) for split, rows in splits.items()} for folder, (splits, _) in made.items()}
    texts, asked, tuned = {"validation": 20}, {"validation": 12}, {"train": 24, "validation": 10}
    assert counts == {
        "text": texts,
        "other": texts,
        "shuffled": texts,
        "facts": asked,
        "continuations": asked,
        "short": tuned,
        "long": tuned,
        "preferences": tuned,
    }
    assert list(counts) == facts.folders_of(spec_of(assets))
    named = {**spec_of(assets), "folders": [f"{folder}_pythia" for folder in counts]}
    assert list(facts.make_sets(named, 0, {})) == named["folders"]
    assert {card["vocabulary"] for _, card in made.values()} == {512}
    with pytest.raises(UserError, match="read `vocabulary` of the card"):
        facts.vocabulary_size(spec_of(assets))


@pytest.mark.parametrize(("folder", "asset"), [("text", "fineweb"), ("other", "wikitext")])
def test_texts_are_cut_and_short_ones_left_out(made, assets, tokenizer, folder, asset):
    encoded = [encode(tokenizer, one) for one in pd.read_parquet(assets / asset / "0.parquet")["text"]]
    usable = {tuple(ids[:48]) for ids in encoded if len(ids) > 16}
    rows = made[folder][0]["validation"]
    found = {tuple(one["input_ids"]) for one in rows}
    assert found <= usable and len(found) == 20 and len(usable) < len(encoded)
    lengths = {one["length"] for one in rows}
    assert max(lengths) == 48 and min(lengths) < 48 and {one["prompt_length"] for one in rows} == {0}


def test_shuffled_keeps_all_tokens_and_every_length(made):
    of, shuffled = made["text"][0]["validation"], made["shuffled"][0]["validation"]
    counts = [Counter(token for one in rows for token in one["input_ids"]) for rows in (of, shuffled)]
    assert counts[0] == counts[1] and [one["length"] for one in of] == [one["length"] for one in shuffled]
    assert all(a["input_ids"] != b["input_ids"] for a, b in zip(of, shuffled, strict=True))


def test_questions_end_in_a_question_mark_and_wrong_answers_are_those_of_others(made, assets, tokenizer):
    raw = pd.read_parquet(assets / "trivia" / "rc" / "validation-0.parquet")
    answers = {q.rstrip("?"): a["value"] for q, a in zip(raw["question"], raw["answer"], strict=True)}
    values = set(answers.values())
    for one in made["facts"][0]["validation"]:
        prompt, answer = one["input_ids"][: one["prompt_length"]], one["input_ids"][one["prompt_length"] :]
        shown = tokenizer.decode(prompt)
        assert shown.startswith("Question: ") and shown.endswith("? Answer:") and "??" not in shown
        assert encode(tokenizer, shown) == prompt
        right = answers[shown.removeprefix("Question: ").removesuffix("? Answer:")]
        wrong = [tokenizer.decode(ids).strip() for ids in one["distractors"]]
        assert answer == encode(tokenizer, f" {right}") and one["completion_length"] == len(answer)
        assert len({right, *wrong}) == 4 and set(wrong) <= values
        assert all(ids == encode(tokenizer, f" {name}") for ids, name in zip(one["distractors"], wrong, strict=True))


@pytest.mark.parametrize("support", [True, False])
def test_questions_that_bring_wrong_answers_keep_them(assets, tokenizer, support):
    spec = with_set(assets, "continuations", columns={} if support else {"support": ""})
    raw = [json.loads(line) for line in (assets / "sciq" / "test.jsonl").read_text().splitlines()]
    by_question = {row["question"]: row for row in raw}
    before = 0
    for one in facts.make_sets(spec, 0, {})["continuations"][0]["validation"]:
        prompt, asked = one["input_ids"][: one["prompt_length"]], None
        given, _, asked = tokenizer.decode(prompt).partition("Question: ")
        row = by_question[asked.removesuffix("? Answer:")]
        assert given == (f"{row['support']}\n" if support and row["support"] else "")
        before += bool(given)
        assert one["input_ids"][one["prompt_length"] :] == encode(tokenizer, f" {row['correct_answer']}")
        assert one["distractors"] == [encode(tokenizer, f" {row[f'distractor{k}']}") for k in (1, 2, 3)]
    assert bool(before) == support


def test_the_last_turn_of_the_preferred_dialogue_is_the_reply(made, assets, tokenizer):
    for split, file in (("train", "train"), ("validation", "test")):
        with gzip.open(assets / "hh" / f"{file}.jsonl.gz", "rt") as stream:
            raw = {json.loads(line)["chosen"] for line in stream}
        rows = made["short"][0][split]
        for one in rows:
            ids, cut = one["input_ids"], one["prompt_length"]
            assert one["text"] in raw and one["text"] == tokenizer.decode(ids)
            assert tokenizer.decode(ids[:cut]).endswith("Human: they\n\nAssistant:")
            assert ids[cut:] == [*encode(tokenizer, one["text"].rpartition("Assistant:")[2]), END]
            assert one["completion_length"] == len(ids) - cut - 1
        prompts = [tuple(one["input_ids"][: one["prompt_length"]]) for one in rows]
        assert len(set(prompts)) == len(prompts)


def test_preferences_share_the_prompt(made, tokenizer):
    for rows in made["preferences"][0].values():
        for one in rows:
            cut, number = one["prompt_length"], one["text"].split()[-1]
            assert one["input_ids"][:cut] == one["rejected_ids"][:cut]
            assert one["input_ids"][cut:] == [*encode(tokenizer, f" bread {number}"), END]
            assert one["rejected_ids"][cut:] == [*encode(tokenizer, f" stone {number}"), END]


def test_instructions_are_put_as_a_dialogue_and_one_pool_gives_both_splits(made, assets, tokenizer):
    raw = json.loads((assets / "alpaca" / "sft.json").read_text())
    whole = {}
    for row in raw:
        lines = row["instruction"] + (f"\n{row['input']}" if row["input"] else "")
        whole[f"\n\nHuman: {lines}\n\nAssistant: {row['output']}"] = row
    texts = {split: {one["text"] for one in rows} for split, rows in made["long"][0].items()}
    assert texts["train"] | texts["validation"] <= set(whole) and not texts["train"] & texts["validation"]
    spec = {**spec_of(assets), "tuning": 30, "reply_length": 40}
    spec["sets"] = {"long": spec["sets"]["long"]}
    rows = [one for part in facts.make_sets(spec, 0, {})["long"][0].values() for one in part]
    assert {one["text"] for one in rows} == set(whole)
    cut = [one for one in rows if one["input_ids"][-1] != END]
    assert len(cut) == 1 and cut[0]["length"] == 40 == cut[0]["prompt_length"] + cut[0]["completion_length"]
    assert (
        cut[0]["input_ids"]
        == encode(tokenizer, cut[0]["text"].partition("Assistant:")[0] + "Assistant:")
        + encode(tokenizer, cut[0]["text"].partition("Assistant:")[2])[: cut[0]["completion_length"]]
    )


def test_a_seed_draws_the_same_rows_again_and_another_one_others(made, assets):
    again, other = (facts.make_sets(spec_of(assets), seed, {}) for seed in (0, 1))
    for folder, (splits, card) in made.items():
        assert store.digest(splits) == store.digest(again[folder][0]) != store.digest(other[folder][0])
        assert card == again[folder][1]


def test_other_column_names_and_formats_give_the_same_set(made, assets, tmp_path):
    raw = pd.read_parquet(assets / "trivia" / "rc" / "validation-0.parquet")
    renamed = pd.DataFrame({"q": raw["question"], "a": [one["value"] for one in raw["answer"]]})
    folder = assets / "renamed"
    folder.mkdir(exist_ok=True)
    renamed.to_csv(folder / "all.csv", index=False)
    spec = with_set(assets, "facts", asset="renamed", files=["*.csv"], columns={"question": "q", "answer": "a"})
    assert store.digest(facts.make_sets(spec, 0, {})["facts"][0]) == store.digest(made["facts"][0])


def test_rows_survive_storing(made, tmp_path):
    for folder, (splits, card) in made.items():
        store.save(tmp_path / folder, splits, card)
        for split, rows in splits.items():
            read = store.read_columns(tmp_path / folder, split, list(rows[0]))
            assert read == {column: [one[column] for one in rows] for column in rows[0]}


@pytest.mark.parametrize(
    ("text_of", "cut"),
    [
        ("\n\nHuman: a\n\nAssistant: b", ("\n\nHuman: a\n\nAssistant:", "b")),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", ("", "")),
        ("\n\nHuman: a", ("", "")),
        ("\n\nHuman: a\n\nAssistant:  ", ("", "")),
    ],
)
def test_dialogues_are_cut_behind_the_last_assistant(text_of, cut):
    assert facts_public.dialogue(text_of) == cut


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("text", {"files": ["*.arrow"]}, r"sets.text: .* holds no \*.arrow: download it"),
        ("text", {"columns": {"text": "tekst"}}, "has no column 'tekst'; did you mean 'text'?"),
        ("text", {"columns": {"txt": "text"}}, "sets.text has no column 'txt'; did you mean 'text'?"),
        ("facts", {"columns": {"answer": "answer.valu"}}, "has no column 'valu'; did you mean 'value'?"),
        ("facts", {"columns": {"answer": ""}}, "sets.facts: the column of answer is empty; write its name"),
        (
            "continuations",
            {"columns": {"correct": "correct"}},
            "has no column 'correct'; did you mean 'correct_answer'?",
        ),
        ("short", {"columns": {"chosen": "chose"}}, "has no column 'chose'; did you mean 'chosen'?"),
    ],
)
def test_wrong_files_and_columns_are_explained(assets, folder, change, message):
    with pytest.raises(UserError, match=message):
        facts.make_sets(with_set(assets, folder, **change), 0, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"probe": 200},
            r"pythia: probe is 200, there are \d+ texts of text with more than 16 tokens; write \d+ or less",
        ),
        (
            {"questions": 31},
            "questions is 31, there are 30 questions of facts with at most 48 tokens; write 30 or less",
        ),
        ({"questions": 1}, "have 1 different answers; write a larger `questions`"),
        ({"tuning": 32}, r"tuning is 32, there are 31 prompts of short"),
        ({"tests": 13}, r"tests is 13, there are 12 prompts of short"),
        ({"shortest": 48}, "shortest is 48; write less than length, 48"),
        ({"tokenizer": ""}, "need a `tokenizer`"),
        ({"tokenizer": "gpt"}, "tokenizer.json does not exist: download it"),
    ],
)
def test_too_few_rows_are_explained(assets, change, message):
    with pytest.raises(UserError, match=message) as raised:
        facts.make_sets(spec_of(assets, **change), 0, {})
    assert "\n" not in str(raised.value)


def test_a_tokenizer_without_an_end_of_text_is_named(assets, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        stored = (assets / "pythia" / name).read_text()
        (tmp_path / "gpt").mkdir(exist_ok=True)
        (tmp_path / "gpt" / name).write_text(stored.replace("<|endoftext|>", "<end>" if "config" in name else "<x>"))
    with pytest.raises(UserError, match="has no token '<end>'; write its eos_token in tokenizer_config"):
        facts_public.reader_of(str(tmp_path), "gpt")


def test_no_test_row_is_trained_on_where_files_are_one_pool(assets):
    spec = with_set(assets, "short", validation_files=[])
    splits = facts.make_sets({**spec, "tuning": 20, "tests": 10}, 0, {})["short"][0]
    texts = [{one["text"] for one in splits[split]} for split in ("train", "validation")]
    assert [len(one) for one in texts] == [20, 10] and not texts[0] & texts[1]
    assert Path(assets).is_dir()
