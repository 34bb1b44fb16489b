"""Labelled sets: exact numbers of every class, no paragraph twice, public files as the models read them."""

import importlib.util
import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from memorization.data import labelled, labelled_public, store, text
from memorization.data.labelled import folders_of, largest_remainder, make_set
from memorization.errors import UserError

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "make_labelled.py"
SENTENCE = "the matrix of a graph is not what we return here but an array with two axes and its label"
WORDS = SENTENCE.split()
SIZES = {"sympy": 60, "scipy": 50, "numpy": 30}
SPEC = {
    "name": "packages",
    "kind": "docstrings",
    "classes": {"sympy": 0.5, "scipy": 0.35, "numpy": 0.15},
    "tokens": 12,
    "train": 41,
    "validation": 20,
    "pretraining_validation": 30,
    "noisy_class": "numpy",
    "seeds": 2,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Paragraphs of random words in three packages, some of them too short or twice there, and their tokenizer."""
    folder, rng, rows = tmp_path_factory.mktemp("text"), np.random.default_rng(0), []

    def paragraph(words):
        return " ".join(rng.choice(WORDS, size=words))

    for package, number in SIZES.items():
        for split, share in (("train", 2), ("validation", 1), ("held_out", 1)):
            for _ in range(number * share):
                rows.append({"text": paragraph(int(rng.integers(18, 60))), "package": package, "split": split})
        rows += [{**rows[-1], "text": f"{rows[-1]['text']} and so on"}] * 3  # they begin alike
        rows += [{"text": "of a graph", "package": package, "split": "held_out"}] * 40
    pd.DataFrame(rows).to_parquet(folder / "corpus.parquet")
    tokenizer, _ = text.train_tokenizer([row["text"] for row in rows], 512)
    text.save_tokenizer(tokenizer, folder / "tokenizer")
    return {"corpus": folder / "corpus.parquet", "tokenizer": folder / "tokenizer", "rows": rows}


def own_ids(tokenizer, words):
    return [1, *(token + 3 for token in tokenizer.encode(f" {words}").ids)]


# --- Documentation ---


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [(10, [0.5, 0.5], [5, 5]), (10, [0.55, 0.45], [6, 4]), (7, [1, 1, 1], [3, 2, 2]), (600, [0.22, 0.78], [132, 468])],
)
def test_shares_become_whole_numbers_by_the_largest_remainder(total, shares, parts):
    assert largest_remainder(total, shares) == parts


def test_items_are_beginnings_of_paragraphs_of_their_package(corpus):
    splits, facts = make_set(SPEC, 0, corpus)["packages"]
    tokenizer = text.load_tokenizer(corpus["tokenizer"])
    beginnings = {
        ((*own_ids(tokenizer, row["text"])[:12], 2), row["package"])  # [SEP] behind the first 12
        for row in corpus["rows"]
        if row["split"] != "train"
    }
    items = [one for rows in splits.values() for one in rows]
    found = [(tuple(one["input_ids"]), facts["classes"][one["label"]]) for one in items]
    assert set(found) <= beginnings and len(set(ids for ids, _ in found)) == len(found) == 61
    assert all(10 <= one["length"] == len(one["input_ids"]) <= 13 for one in items)
    for one in items[:5]:
        assert tokenizer.decode([token - 3 for token in one["input_ids"][1:-1]]) == one["text"]


def test_every_class_has_its_exact_number_and_the_card_says_so(corpus):
    splits, facts = make_set(SPEC, 0, corpus)["packages"]
    counts = {split: Counter(one["label"] for one in rows) for split, rows in splits.items()}
    assert counts == {"train": {0: 21, 1: 14, 2: 6}, "validation": {0: 10, 1: 7, 2: 3}}
    assert facts["class_items"] == {"train": [21, 14, 6], "validation": [10, 7, 3]}
    size = text.load_tokenizer(corpus["tokenizer"]).get_vocab_size()
    assert facts["classes"] == ["sympy", "scipy", "numpy"] and facts["noisy_class"] == 2 and facts["kind"] == "text"
    assert (facts["pad"], facts["cls"], facts["sep"], facts["mask"]) == (0, 1, 2, None) and facts["tokens"] == 13
    packages = len({row["package"] for row in corpus["rows"]})
    assert facts["label_tokens"] == [size + 3, size + 4, size + 5] and facts["vocabulary"] == size + 3 + packages
    assert max(max(one["input_ids"]) for rows in splits.values() for one in rows) < size + 3


def test_classes_are_mixed_and_seeds_differ(corpus):
    first, again, other = (make_set(SPEC, seed, corpus)["packages"][0] for seed in (0, 0, 1))
    labels = [one["label"] for one in first["train"]]
    assert sum(a != b for a, b in pairwise(labels)) > 10
    assert store.digest(first) == store.digest(again) != store.digest(other)


def test_the_pretraining_text_is_the_whole_train_split_and_no_paragraph_is_in_both_of_its_splits(corpus):
    splits, facts = make_set(SPEC, 0, corpus)["packages_pretraining"]
    tokenizer = text.load_tokenizer(corpus["tokenizer"])
    owner, pieces = {}, []
    packages = ["sympy", "scipy", "numpy", *sorted({row["package"] for row in corpus["rows"]} - set(SPEC["classes"]))]
    word = {name: tokenizer.get_vocab_size() + 3 + number for number, name in enumerate(packages)}
    for number, row in enumerate(corpus["rows"]):
        ids = own_ids(tokenizer, row["text"])[1:] if row["split"] == "train" else []
        for start in range(0, len(ids), 11):
            piece = (*ids[start : start + 11], 2, word[row["package"]])  # [SEP] and the word of the package
            if len(piece) >= 8 + 2:
                pieces.append(piece)
                owner.setdefault(piece, set()).add(number)
    stored = {split: [tuple(one["input_ids"][1:]) for one in rows] for split, rows in splits.items()}
    assert len(splits["validation"]) == 30 and {one["input_ids"][0] for one in splits["train"]} == {1}
    everything = Counter(stored["train"]) + Counter(stored["validation"])
    missing = Counter(pieces) - everything
    assert not everything - Counter(pieces) and missing.total() < 6  # the rest of the paragraph at the border
    unique = [piece for piece, numbers in owner.items() if len(numbers) == 1]
    of = {split: {next(iter(owner[p])) for p in unique if p in set(stored[split])} for split in stored}
    assert len(of["validation"]) > 5 and not of["train"] & of["validation"]
    assert {"prompt_length": 0, "completion_length": 0}.items() <= splits["train"][0].items()
    fewer = make_set({**SPEC, "pretraining": 25}, 0, corpus)["packages_pretraining"][0]
    assert fewer["train"] == splits["train"][:25] and fewer["validation"] == splits["validation"]
    assert facts["vocabulary"] == make_set(SPEC, 0, corpus)["packages"][1]["vocabulary"] and "classes" not in facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train": 400},
            r"has \d+ paragraphs of 'sympy' .* 200 \+ 10 are asked for; lower `train`, `validation` or the share",
        ),
        ({"classes": {"sympy": 0.5, "numpy": 0.4}}, r"sum to 0.900; write shares of 1"),
        ({"classes": {"torch": 1.0}}, "the corpus has no package 'torch'; write one of numpy, scipy, sympy"),
        ({"noisy_class": "nump"}, "did you mean 'numpy'?"),
        ({"tokens": 8}, "tokens is 8; write at least 9"),
        ({"validation": 2}, "validation is 2; write at least 3"),
        ({"pretraining_validation": 5000}, "`pretraining_validation` from 1 to"),
        ({"pretraining": 5000}, r"pretraining is 5000, there are \d+; write \d+ or less"),
        ({"kind": "docstring"}, "did you mean 'docstrings'?"),
    ],
)
def test_what_is_wrong_with_a_set_is_one_sentence_that_says_what_to_write(corpus, change, message):
    with pytest.raises(UserError, match=message) as raised:
        make_set({**SPEC, **change}, 0, corpus)
    assert str(raised.value).startswith("packages: ") and "\n" not in str(raised.value)


# --- Public texts ---


def bert(folder: Path) -> None:
    """A tiny WordPiece tokenizer as BERT's repository holds it: no special token is named in its configuration."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "joy", "anger", "fear", *SIZES]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=99)  # some files store that
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))


def decoder(folder: Path) -> None:
    """A tiny GPT-2 tokenizer, with an end of text and nothing else."""
    tokenizer, _ = text.train_tokenizer(["joy anger fear joy anger fear"] * 400, 512)
    text.save_tokenizer(tokenizer, folder)
    stored = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(stored.replace("<pad>", "<other>"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A public set, 60 training and 20 test texts, in three formats, and two models."""
    assets, rng = tmp_path_factory.mktemp("assets"), np.random.default_rng(1)
    bert(assets / "bert")
    decoder(assets / "gpt")
    (assets / "emotion").mkdir()
    for split, number in (("train", 60), ("test", 20)):
        rows = pd.DataFrame(
            {
                "text": [" ".join(rng.choice(WORDS, size=int(rng.integers(3, 30)))) for _ in range(number)],
                "label": [0, 0, 0, 1, 2] * (number // 5),
                "other": "x",
            }
        )
        names = rows.assign(label=[("joy", "anger", "fear")[label] for label in rows["label"]])
        rows.to_parquet(assets / "emotion" / f"{split}-00000.parquet")
        names.to_csv(assets / "emotion" / f"{split}.csv", index=False)
        rows.to_json(assets / "emotion" / f"{split}.single.json", orient="records", lines=True)
        rows.to_json(assets / "emotion" / f"{split}.json", orient="records")
    return assets


def text_spec(assets, form="{}-*.parquet", **change):
    return {
        "name": "emotions",
        "kind": "public_text",
        "asset": "emotion",
        "assets": str(assets),
        "tokenizer": "bert",
        "text": "text",
        "label": "label",
        "files": {"train": form.format("train"), "validation": [form.format("test")]},
        "classes": ["joy", "anger", "fear"],
        "tokens": 10,
        "noisy_class": "fear",
        "seeds": 1,
        **change,
    }


def test_public_texts_are_encoded_as_transformers_does(public):
    from transformers import PreTrainedTokenizerFast

    ((folder, (splits, facts)),) = make_set(text_spec(public), 0, {}).items()
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(public / "bert" / "tokenizer.json"))
    raw = pd.read_parquet(public / "emotion" / "train-00000.parquet")
    labels = dict(zip(raw["text"], raw["label"], strict=True))
    assert folder == "emotions_bert" and sorted(one["text"] for one in splits["train"]) == sorted(raw["text"])
    for one in splits["train"]:
        assert one["input_ids"] == theirs(one["text"], truncation=True, max_length=10)["input_ids"]
        assert one["label"] == labels[one["text"]]
    assert len(splits["validation"]) == 20 and facts["tokens"] == 10
    assert (facts["pad"], facts["cls"], facts["mask"]) == (0, 2, 4) and facts["vocabulary"] == len(theirs)
    assert facts["label_tokens"] == theirs.convert_tokens_to_ids(["joy", "anger", "fear"])


def test_a_decoder_pads_with_its_end_of_text_and_has_the_same_items(public):
    made = make_set(text_spec(public, tokenizer="gpt"), 0, {})
    splits, facts = made["emotions_gpt"]
    tokenizer = text.load_tokenizer(public / "gpt")
    assert facts["pad"] == tokenizer.token_to_id("<|endoftext|>") and facts["cls"] is facts["mask"] is None
    assert facts["label_tokens"] == [tokenizer.encode(f" {name}").ids[0] for name in ("joy", "anger", "fear")]
    other = make_set(text_spec(public), 0, {})["emotions_bert"][0]
    assert [one["text"] for one in splits["train"]] == [one["text"] for one in other["train"]]


@pytest.mark.parametrize("files", ["{}.csv", "{}.single.json", "{}.json"])
def test_every_format_gives_the_same_set(public, files):
    made, wanted = (make_set(text_spec(public, form), 0, {})["emotions_bert"][0] for form in (files, "{}-*.parquet"))
    assert store.digest(made) == store.digest(wanted)


def test_shares_are_stratified_and_one_pool_is_cut_without_overlap(public):
    splits = make_set(text_spec(public, shares={"train": 0.9}), 0, {})["emotions_bert"][0]
    assert Counter(one["label"] for one in splits["train"]) == {0: 32, 1: 11, 2: 11}
    assert len(splits["validation"]) == 20
    spec = text_spec(public, shares={"train": 0.64, "validation": 0.2})
    splits = make_set({**spec, "files": "train-*.parquet"}, 0, {})["emotions_bert"][0]
    texts = [{one["text"] for one in splits[split]} for split in ("train", "validation")]
    assert [len(one) for one in texts] == [38, 12] and not texts[0] & texts[1]
    assert Counter(one["label"] for one in splits["validation"]) == {0: 7, 1: 2, 2: 3}
    assert store.digest(splits) != store.digest(
        make_set({**spec, "files": "train-*.parquet"}, 1, {})["emotions_bert"][0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"train": "*.parquet", "test": "*"}}, "files has train, test; write train and validation"),
        ({"files": {"train": "*.csv"}}, "write `train` and `validation`, or shares for both"),
        ({"files": "train.csv", "train": 40, "validation": 21}, r"40 \+ 21 items are asked for, there are 60"),
        ({"train": 61}, "61 items are asked for, there are 60"),
        ({"train": 60, "shares": {"train": 0.9}}, "train is 60, there are 54; write 54 or less"),
        ({"files": {"train": "*.arrow", "validation": "test.csv"}}, r"holds no \*.arrow: download it"),
        ({"text": "tekst"}, "has no column 'tekst'; did you mean 'text'?"),
        ({"classes": ["joy", "anger"], "noisy_class": "joy"}, "the label 2, `classes` has 2 names"),
        ({"tokenizer": None}, "needs a `tokenizer`"),
        ({"tokenizer": "emotion"}, "holds no tokenizer.json: download it"),
        ({"shares": {"train": 1.2}}, "numbers above 0 that sum to at most 1"),
        ({"classes": ["joy", "joy ride", "fear"]}, "'joy' and 'joy ride' begin with the same token"),
    ],
)
def test_wrong_public_sets_are_explained(public, change, message):
    with pytest.raises(UserError, match=message):
        make_set(text_spec(public, **change), 0, {})


def test_numbers_of_items_are_exact_and_stratified(public):
    splits = make_set(text_spec(public, train=50), 0, {})["emotions_bert"][0]
    assert Counter(one["label"] for one in splits["train"]) == {0: 30, 1: 10, 2: 10} and len(splits["validation"]) == 20
    pool = text_spec(public, files={"train": ["train-*.parquet"]}, train=39, validation=21)
    splits = make_set(pool, 0, {})["emotions_bert"][0]
    texts = [{one["text"] for one in splits[split]} for split in ("train", "validation")]
    assert [len(one) for one in texts] == [39, 21] and not texts[0] & texts[1]
    pairs = [make_set({**pool, "shares": form}, 0, {}) for form in ([0.65, 0.35], {"train": 0.65, "validation": 0.35})]
    assert all(store.digest(made["emotions_bert"][0]) == store.digest(splits) for made in pairs)


def test_a_label_that_is_no_class_is_named(public):
    spec = text_spec(public, "{}.csv", classes=["joy", "anger", "fears"], noisy_class="joy")
    with pytest.raises(UserError, match=r"has the label 'fear'; did you mean 'fears'\?"):
        make_set(spec, 0, {})


def test_documentation_in_the_tokens_of_a_public_model_has_the_same_paragraphs(corpus, public):
    spec = {**SPEC, "tokens": 30, "tokenizer": "bert", "assets": str(public)}
    ((folder, (splits, facts)),) = make_set(spec, 0, corpus).items()
    own = make_set({**SPEC, "tokens": 30}, 0, corpus)["packages"][0]
    assert folder == "packages_bert" == folders_of(spec)[0]
    for theirs, ours in zip(splits["train"], own["train"], strict=True):
        assert f" {theirs['text']}".startswith(ours["text"]) and theirs["label"] == ours["label"]
        assert theirs["input_ids"][0] == 2 and theirs["input_ids"][-1] == 3 and theirs["length"] <= 30
    assert facts["mask"] == 4 and facts["noisy_class"] == 2


def test_deberta_is_read_from_vocabulary_and_merges(tmp_path):
    from transformers import DebertaTokenizer

    tokenizer, _ = text.train_tokenizer([SENTENCE] * 20, 512)
    saved = json.loads(tokenizer.to_str())["model"]
    shift = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    vocabulary = shift | {token: number + 4 for token, number in saved["vocab"].items()}
    vocabulary["[MASK]"] = len(vocabulary)
    (tmp_path / "deberta").mkdir()
    (tmp_path / "deberta" / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) for pair in saved["merges"]]
    (tmp_path / "deberta" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    theirs = DebertaTokenizer(vocab=vocabulary, merges=[tuple(pair.split()) for pair in merges])
    reader = labelled_public.reader_of(tmp_path, "deberta")
    for words in (SENTENCE, "what we return", " two  axes!"):
        assert reader.tokenizer.encode(words).ids == theirs(words)["input_ids"]
    assert (reader.pad, reader.cls, reader.mask) == (0, 1, len(vocabulary) - 1)


# --- Public images ---


def picture(number: int, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((6, 4, 3), number, dtype=np.uint8)).save(stream, format=form)
    return stream.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The same pictures as the hub stores them and as files whose names say what they show."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    assets = tmp_path_factory.mktemp("images")
    features = Features({"img": Picture(), "label": ClassLabel(names=["cat", "dog"])})
    for split, number in (("train", 40), ("test", 10)):
        rows = [{"img": {"bytes": picture(k), "path": None}, "label": int(k % 4 == 0)} for k in range(number)]
        (assets / "cifar").mkdir(exist_ok=True)
        Dataset.from_list(rows, features=features).to_parquet(str(assets / "cifar" / f"{split}-0.parquet"))
    for k in range(20):
        path = assets / "faces" / ("cat", "dog")[k % 2] / f"{k}_{k % 2}_x.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k, "JPEG"))
    (assets / "faces" / "dog" / "without.jpg").write_bytes(picture(99, "JPEG"))
    return assets


IMAGES = {
    "name": "cifar10",
    "kind": "public_images",
    "asset": "cifar",
    "image": "img",
    "label": "label",
    "files": {"train": "train-*.parquet", "validation": "test-*.parquet"},
    "classes": ["cat", "dog"],
    "per_class": 10,
    "shares": {"train": 0.8},
    "noisy_class": "dog",
    "seeds": 1,
}


def test_public_images_are_stored_as_they_are_and_labels_go_with_them(images, tmp_path):
    splits, facts = make_set({**IMAGES, "assets": str(images)}, 0, {})["cifar10"]
    assert facts["class_items"] == {"train": [8, 8], "validation": [7, 3]}
    assert facts["size"] == [6, 4] and facts["channels"] == 3
    store.save(tmp_path / "set", splits, facts)
    read = store.read_columns(tmp_path / "set", "train", ["image", "label"])
    values = [Image.open(io.BytesIO(one["bytes"])).getpixel((0, 0))[0] for one in read["image"]]
    assert len(set(values)) == 16 and read["label"] == [int(value % 4 == 0) for value in values]
    assert {one["bytes"] for one in read["image"]} <= {picture(k) for k in range(40)}


@pytest.mark.parametrize("pattern", [r"\w+/\d+_(?P<label>[01])_", r"(?P<label>cat|dog)/\d"])
def test_files_that_are_images_have_their_class_in_their_path(images, pattern):
    one_pool = {"asset": "faces", "files": "*/*.jpg", "shares": {"train": 0.7, "validation": 0.3}, "per_class": None}
    spec = {**IMAGES, **one_pool, "assets": str(images), "label_pattern": pattern}
    splits, facts = make_set(spec, 0, {})["cifar10"]
    assert facts["class_items"] == {"train": [7, 7], "validation": [3, 3]}
    stored = {one["image"]["bytes"]: one["label"] for rows in splits.values() for one in rows}
    assert stored == {picture(k, "JPEG"): k % 2 for k in range(20)}


def test_wrong_image_sets_are_explained(images):
    with pytest.raises(UserError, match="'dog' has 10 items; write per_class: 10 or less"):
        make_set({**IMAGES, "assets": str(images), "per_class": 11}, 0, {})
    spec = {
        **IMAGES,
        "asset": "faces",
        "files": "*/*.jpg",
        "assets": str(images),
        "shares": {"train": 0.5, "validation": 0.5},
    }
    with pytest.raises(UserError, match=r"fits no file of .*, such as"):
        make_set({**spec, "label_pattern": "horse(?P<label>.)"}, 0, {})
    with pytest.raises(UserError, match=r"0_0_x\.jpg is no \.parquet"):
        make_set(spec, 0, {})


# --- The script ---


def test_the_script_writes_every_folder_of_a_set(corpus, tmp_path, capsys):
    loaded = importlib.util.spec_from_file_location("make_labelled", SCRIPT)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    inputs = SimpleNamespace(corpus=corpus["corpus"], tokenizer=corpus["tokenizer"])
    outputs = SimpleNamespace(
        card=[str(tmp_path / folder / "card.json") for folder in folders_of(SPEC)],
        dataset=[str(tmp_path / folder / "dataset") for folder in folders_of(SPEC)],
    )
    params = SimpleNamespace(set={**SPEC, "folders": folders_of(SPEC), "tokenizer": None}, assets="")
    module.main(SimpleNamespace(input=inputs, output=outputs, params=params))
    assert folders_of(SPEC) == ["packages", "packages_pretraining"]
    for folder in folders_of(SPEC):
        card = json.loads((tmp_path / folder / "card.json").read_text())
        assert card["name"] == folder and set(card["seeds"]) == {"0", "1"}
        for seed, entry in card["seeds"].items():
            stored = json.loads((tmp_path / folder / "dataset" / seed / "card.json").read_text())
            assert stored == entry and entry["seed"] == int(seed)
            assert entry["tokens"] == (13 if folder == "packages" else 14)  # [CLS], 11 tokens, [SEP], and a word
    columns = store.read_columns(tmp_path / "packages" / "dataset" / "1", "train", ["input_ids", "label", "length"])
    wanted = make_set(SPEC, 1, corpus)["packages"][0]["train"]
    assert columns["label"] == [one["label"] for one in wanted] and columns["length"][0] == len(columns["input_ids"][0])
    plain = store.read_columns(tmp_path / "packages_pretraining" / "dataset" / "0", "validation", ["prompt_length"])
    assert plain["prompt_length"] == [0] * 30
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["seed 0", "seed 1"]


def test_every_kind_has_its_function():
    from memorization.data.patterns import resolve

    assert all(callable(resolve(path)) for path in labelled.KINDS.values())
