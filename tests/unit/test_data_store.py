"""Data-set folders keep rows, digests follow content only, scripts write what their rules declare."""

import hashlib
import importlib.util
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from memorization.data import patterns, store
from memorization.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
ROWS = {
    "train": [store.row(0, "12", [1, 2], 1, 1), store.row(1, "345", [3, 4, 5], 1, 2)],
    "validation": [store.row(0, "7", [7], 1, 0)],
}
SIZES = {"train": 12, "validation": 4, "lengths": (28, 44), "prompt": 16, "completion": 10}


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_survive_saving(tmp_path):
    store.save(tmp_path / "set", ROWS, {"name": "mi"})
    for split, rows in ROWS.items():
        loaded = store.load(tmp_path / "set", split)
        assert loaded.to_list() == rows
        assert loaded.features["input_ids"].feature.dtype == loaded.features["item"].dtype == "int32"


def test_columns_read_without_datasets_are_what_datasets_reads(tmp_path):
    store.save(tmp_path / "set", ROWS, {"name": "mi"})
    for split in ROWS:
        columns = store.read_columns(tmp_path / "set", split, ["input_ids", "prompt_length"])
        loaded = store.load(tmp_path / "set", split)
        assert columns == {name: list(loaded[name]) for name in ("input_ids", "prompt_length")}
    with pytest.raises(UserError, match="has no split 'test'"):
        store.read_columns(tmp_path / "set", "test", ["input_ids"])


def test_digest_changes_with_any_row_and_not_with_the_order_of_splits():
    changed = {**ROWS, "train": [{**ROWS["train"][0], "input_ids": [1, 3]}, ROWS["train"][1]]}
    moved = {"train": ROWS["train"] + ROWS["validation"], "validation": []}
    assert len({store.digest(ROWS), store.digest(changed), store.digest(moved)}) == 3
    assert store.digest(dict(reversed(ROWS.items()))) == store.digest(ROWS)


def test_the_digest_of_plain_rows_is_that_of_their_columns_as_json():
    """It is in the cards of all sets, so it must not move."""
    lines = [f"{split} {len(rows)}\n" + "".join(json.dumps(one) + "\n" for one in rows) for split, rows in ROWS.items()]
    assert store.digest(ROWS) == hashlib.sha256("".join(lines).encode()).hexdigest()


def picture(shade: int, **options) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5, 4), shade).save(stream, format="PNG", **options)
    return stream.getvalue()


IMAGES = {
    "train": [store.image_row(0, picture(10), 1), store.image_row(1, picture(20), 0)],
    "validation": [store.image_row(0, picture(30), 1)],
}
TEXTS = {split: [store.text_row(i, "a", [1, 2, i], i) for i in range(2)] for split in ("train", "validation")}


@pytest.mark.parametrize("rows", [IMAGES, TEXTS], ids=["images", "texts"])
def test_labelled_rows_survive_saving(tmp_path, rows):
    card = store.save(tmp_path / "set", rows, {"name": "set"})
    names = list(rows["train"][0])
    for split, wanted in rows.items():
        columns = store.read_columns(tmp_path / "set", split, names)
        assert columns == {name: [one[name] for one in wanted] for name in names}
        loaded = store.load(tmp_path / "set", split)
        assert loaded.column_names == names and loaded.features["label"].dtype == "int32"
    assert card["sha256"] == store.digest(rows) and ("tokens" in card) == (rows is TEXTS)
    changed = {**rows, "train": [{**rows["train"][0], "label": 7}, *rows["train"][1:]]}
    assert store.digest(changed) != store.digest(rows)


def test_the_hub_library_sees_pictures(tmp_path):
    store.save(tmp_path / "set", IMAGES, {"name": "set"})
    assert store.load(tmp_path / "set", "train")[1]["image"].getpixel((0, 0)) == 20


def test_the_digest_of_a_png_is_that_of_its_pixels():
    flat = {"train": [store.image_row(0, picture(10, compress_level=0), 1), *IMAGES["train"][1:]]}
    packed, other = {"train": IMAGES["train"]}, {"train": [store.image_row(0, picture(11), 1), *IMAGES["train"][1:]]}
    assert flat["train"][0]["image"] != packed["train"][0]["image"]
    assert store.digest(flat) == store.digest(packed) != store.digest(other)
    jpegs = [{"train": [store.image_row(0, content, 1)]} for content in (b"\xff\xd8one", b"\xff\xd8two")]
    assert store.digest(jpegs[0]) != store.digest(jpegs[1])


def test_a_card_keeps_its_own_number_of_tokens_and_unknown_rows_are_refused(tmp_path):
    assert store.save(tmp_path / "set", TEXTS, {"name": "set", "tokens": 3})["tokens"] == 3
    with pytest.raises(UserError, match="rows with the columns item, label are no data set"):
        store.save(tmp_path / "other", {"train": [{"item": 0, "label": 1}]}, {"name": "other"})


def test_card_has_counts_digest_and_front_matter(tmp_path):
    card = store.save(tmp_path, ROWS, {"name": "mi", "description": "Counts.", "license": "mit"})
    assert json.loads((tmp_path / "card.json").read_text()) == card
    assert card["items"] == {"train": 2, "validation": 1} and card["tokens"] == {"train": 5, "validation": 1}
    assert (tmp_path / "README.md").read_text().startswith('---\npretty_name: "mi"\nlicense: mit\n---\n')


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no data set"):
        store.load(tmp_path / "nothing", "train")
    store.save(tmp_path, ROWS, {"name": "mi"})
    with pytest.raises(UserError, match="train, validation"):
        store.load(tmp_path, "test")


def test_make_pattern_data_writes_one_folder_per_seed(tmp_path):
    script("make_pattern_data").main(
        tmp_path / "mij",
        tmp_path / "card.json",
        kind="mij",
        options={"jump_probability": 0.3},
        seeds=[0, 1],
        sizes=SIZES,
    )
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["seeds"]["0"]["sha256"] != card["seeds"]["1"]["sha256"]
    wanted = patterns.make("mij", seed=1, jump_probability=0.3, **SIZES)["validation"]
    loaded = store.load(tmp_path / "mij" / "1", "validation")
    assert [patterns.decode(ids) for ids in loaded["input_ids"]] == [item.symbols for item in wanted]


def smk(**parts):
    """What a script gets from Snakemake."""
    return SimpleNamespace(**{name: SimpleNamespace(**values) for name, values in parts.items()})


def test_text_scripts_run_one_after_the_other(tmp_path):
    """Corpus, tokenizer, items of real text, digits in its tokens, embeddings."""
    from safetensors.numpy import load_file

    made = {name: tmp_path / name for name in ("corpus", "tokenizer", "card")}
    wanted = {"source": "docstrings", "packages": ["accelerate", "seaborn"], "vocabulary": 1024}
    script("make_text").main(smk(input={}, output=made, params={"text": wanted}))
    facts = json.loads(made["card"].read_text())
    assert facts["packages"]["seaborn"]["license"] == "BSD License"
    assert str(tmp_path) not in made["card"].read_text()

    kinds = {"text_words": ("text", {"shuffle": "words", "units": "clauses"}), "digits": ("random_digits", {})}
    specs = [
        {"folder": name, "kind": kind, "options": options, "seeds": 1, **SIZES}
        for name, (kind, options) in kinds.items()
    ]
    out = {kind: [tmp_path / name / kind for name in kinds] for kind in ("dataset", "card")}
    for folder in kinds:
        (tmp_path / folder).mkdir()
    script("make_text_items").main(smk(input=made, output=out, params={"data": specs}))
    for folder in kinds:
        rows = store.load(tmp_path / folder / "dataset" / "0", "train")
        assert rows["prompt_length"][:] == [16] * 12 and max(map(max, rows["input_ids"])) < 1024
        assert json.loads((tmp_path / folder / "card").read_text())["seeds"]["0"]["items"]["train"] == 12

    params = {"source": "docstrings", "widths": [8, 24], "norm": 3.0}
    script("make_embedding").main(smk(input=made, output={"embedding": tmp_path / "e.safetensors"}, params=params))
    matrices = load_file(tmp_path / "e.safetensors")
    assert {name: matrix.shape for name, matrix in matrices.items()} == {"E8": (1024, 8), "E24": (1024, 24)}
    assert (matrices["E8"] ** 2).sum(1) ** 0.5 == pytest.approx(3.0, rel=1e-4)


ANSWERS = {
    "train": [store.answer_row(0, "a b", [1, 2], 1, 1, [])],
    "validation": [store.answer_row(i, "a b", [1, 2 + i], 1, 1, [[7], [8, 9], []]) for i in range(2)],
}
PAIRS = {split: [store.pair_row(i, "a b", [1, 2, i], 1, 1, [1, 3]) for i in range(2)] for split in ("train", "test")}


@pytest.mark.parametrize("rows", [ANSWERS, PAIRS], ids=["answers", "pairs"])
def test_answers_and_pairs_survive_saving(tmp_path, rows):
    card = store.save(tmp_path / "set", rows, {"name": "set"})
    names = list(rows["train"][0])
    for split, wanted in rows.items():
        assert store.read_columns(tmp_path / "set", split, names) == {n: [one[n] for one in wanted] for n in names}
        assert store.load(tmp_path / "set", split).to_list() == wanted
    assert card["sha256"] == store.digest(rows) and card["tokens"]["train"] == sum(o["length"] for o in rows["train"])
    last = names[-1]
    changed = {**rows, "train": [{**rows["train"][0], last: [[5]] if rows is ANSWERS else [5]}, *rows["train"][1:]]}
    assert store.digest(changed) != store.digest(rows)


def test_the_layout_is_the_one_with_exactly_the_columns():
    plain = {split: [{key: one[key] for key in store.COLUMNS} for one in rows] for split, rows in ANSWERS.items()}
    found = [store.columns_of(rows) for rows in (ROWS, TEXTS, IMAGES, ANSWERS, PAIRS, plain)]
    layouts = [store.COLUMNS, store.LABELLED_TEXTS, store.LABELLED_IMAGES, store.ANSWERS, store.PAIRS, store.COLUMNS]
    assert found == layouts
    more = {"train": [{**ROWS["train"][0], "note": 1}]}  # what is beside a layout is not stored
    assert store.columns_of(more) == store.COLUMNS and store.digest(more) == store.digest({"train": ROWS["train"][:1]})
    assert store.columns_of({"train": []}) == store.COLUMNS
