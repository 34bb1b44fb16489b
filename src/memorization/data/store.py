"""Data sets on disk: one Hugging Face `DatasetDict` folder with a data card beside the rows."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.errors import UserError
from memorization.provenance.record import write_json

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = {
    "item": "int32",
    "text": "string",
    "input_ids": "int32",
    "length": "int32",
    "prompt_length": "int32",
    "completion_length": "int32",
}
# The columns of sets for classification. `image` holds PNG or JPEG bytes as `datasets.Image` stores them.
LABELLED_TEXTS = {"item": "int32", "text": "string", "input_ids": "int32", "length": "int32", "label": "int32"}
LABELLED_IMAGES = {"item": "int32", "image": "image", "label": "int32"}
# Questions with wrong answers to choose from, and prompts with a reply that is preferred to another one.
ANSWERS = COLUMNS | {"distractors": "lists"}
PAIRS = COLUMNS | {"rejected_ids": "int32"}
LAYOUTS = (COLUMNS, LABELLED_TEXTS, LABELLED_IMAGES, ANSWERS, PAIRS)
SEQUENCES = ("input_ids", "rejected_ids")  # columns that hold a list of numbers in every row
LOSSLESS = b"\x89PNG"


def row(item: int, text: str, input_ids: Sequence[int], prompt: int, completion: int) -> dict[str, Any]:
    """Return one row of a data set. Prompt and completion are numbers of tokens."""
    return {
        "item": item,
        "text": text,
        "input_ids": list(input_ids),
        "length": len(input_ids),
        "prompt_length": prompt,
        "completion_length": completion,
    }


def text_row(item: int, text: str, input_ids: Sequence[int], label: int) -> dict[str, Any]:
    """Return one row of a set of texts that have a class each."""
    return {"item": item, "text": text, "input_ids": list(input_ids), "length": len(input_ids), "label": label}


def answer_row(
    item: int, text: str, input_ids: Sequence[int], prompt: int, completion: int, distractors: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Return one row of a set of questions. distractors: token ids of wrong completions; none if nobody chooses."""
    return row(item, text, input_ids, prompt, completion) | {"distractors": [list(one) for one in distractors]}


def pair_row(
    item: int, text: str, input_ids: Sequence[int], prompt: int, completion: int, rejected: Sequence[int]
) -> dict[str, Any]:
    """Return one row of a set of preferences. rejected: the prompt and the reply that `input_ids` is preferred to."""
    return row(item, text, input_ids, prompt, completion) | {"rejected_ids": list(rejected)}


def image_row(item: int, content: bytes, label: int) -> dict[str, Any]:
    """Return one row of a set of images that have a class each. content: a PNG or JPEG file."""
    return {"item": item, "image": {"bytes": content, "path": None}, "label": label}


def columns_of(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Return the columns, name -> type, that rows have; UserError if they fit none of `LAYOUTS`."""
    first = next((one for rows in splits.values() for one in rows), None)
    if first is None:
        return COLUMNS
    exact = [columns for columns in LAYOUTS if columns.keys() == first.keys()]
    # rows with columns beside those of a layout are stored without them
    fitting = exact or [columns for columns in LAYOUTS if columns.keys() <= first.keys()]
    if fitting:
        return fitting[0]
    raise UserError(
        f"rows with the columns {', '.join(first)} are no data set; make them with row, answer_row, pair_row, text_row "
        "or image_row."
    )


def digest(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the sha256 of the rows, which unlike that of the files is the same under every Arrow version.

    Of a PNG its pixels count, since compressed bytes differ between versions of zlib; any other image counts as it is.
    """
    content, columns = hashlib.sha256(), columns_of(splits)
    for split, rows in sorted(splits.items()):
        content.update(f"{split} {len(rows)}\n".encode())
        for one in rows:
            values = {name: fingerprint(one[name]) if kind == "image" else one[name] for name, kind in columns.items()}
            content.update(json.dumps(values).encode() + b"\n")
    return content.hexdigest()


def fingerprint(image: Mapping[str, Any]) -> str:
    """Return the sha256 of an image, the same for every compression of a PNG."""
    content = image["bytes"]
    if content.startswith(LOSSLESS):
        import io

        from PIL import Image

        with Image.open(io.BytesIO(content)) as picture:
            content = f"{picture.mode} {picture.size}\n".encode() + picture.tobytes()
    return hashlib.sha256(content).hexdigest()


def save(
    folder: str | Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], card: Mapping[str, Any]
) -> dict[str, Any]:
    """Write splits, card.json and README.md (the Hub's card); return the card, now with counts and digest.

    Rows are those of the functions above that make one, and all of one kind. A card that says how many `tokens` the
    longest item has keeps that number; others get the number of tokens of each split.
    """
    from datasets import Dataset, DatasetDict, Features, Image, Value, disable_progress_bars
    from datasets import Sequence as ListOf

    disable_progress_bars()  # they would fill the rule's log

    folder, columns = Path(folder), columns_of(splits)

    def feature(column: str, kind: str) -> Any:
        if kind == "image":
            return Image()
        if kind == "lists":
            return ListOf(ListOf(Value("int32")))
        return ListOf(Value(kind)) if column in SEQUENCES else Value(kind)

    features = Features({column: feature(column, kind) for column, kind in columns.items()})
    DatasetDict(
        {split: Dataset.from_list([dict(one) for one in rows], features=features) for split, rows in splits.items()}
    ).save_to_disk(str(folder))
    card = {**card, "sha256": digest(splits), "items": {split: len(rows) for split, rows in splits.items()}}
    if "length" in columns:
        card.setdefault("tokens", {split: sum(one["length"] for one in rows) for split, rows in splits.items()})
    write_json(card, folder / "card.json")
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    return card


def save_seeds(
    make: Callable[[Mapping[str, Any], int, Mapping[str, Any]], Mapping[str, Any]],
    spec: Mapping[str, Any],
    inputs: Mapping[str, Any],
    targets: Mapping[str, str | Path],
    cards: Sequence[str | Path],
) -> None:
    """Make the folders of a set for all its seeds and write <target>/<seed>/ of each, then a card each.

    make: (spec, seed, inputs) -> folder -> (splits, facts for the card). targets, cards: of the folders, in one order.
    """
    made: dict[str, dict[str, Any]] = {folder: {} for folder in targets}
    for seed in range(spec["seeds"]):
        for folder, (splits, facts) in make(spec, seed, inputs).items():
            made[folder][str(seed)] = save(Path(targets[folder]) / str(seed), splits, facts)
        print(f"seed {seed}: { {folder: card[str(seed)]['items'] for folder, card in made.items()} }")
    for (folder, seeds), path in zip(made.items(), cards, strict=True):
        write_json({"name": folder, "seeds": seeds}, Path(path))


def load(folder: str | Path, split: str) -> "Dataset":
    """Read one split; UserError if the folder or the split is not there."""
    from datasets import load_from_disk

    if not (Path(folder) / "dataset_dict.json").is_file():
        raise UserError(f"{folder} is no data set; make it with its rule (target data) first.")
    splits = load_from_disk(str(folder))
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(splits)}.")
    return splits[split]


def read_columns(folder: str | Path, split: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns of one split as lists, without `datasets`: training jobs save the second its import takes.

    An image comes as {"bytes": ..., "path": ...}; `memorization.data.digits:decode_images` makes an array of a list.
    """
    import pyarrow as pa

    state = Path(folder) / split / "state.json"
    if not state.is_file():
        raise UserError(f"{folder} has no split {split!r}: delete the folder so that it is made again")
    tables = []
    for entry in json.loads(state.read_text())["_data_files"]:
        with pa.memory_map(str(state.parent / entry["filename"])) as source:
            tables.append(pa.ipc.open_stream(source).read_all().select(list(columns)))
    return pa.concat_tables(tables).to_pydict()


def readme(card: Mapping[str, Any]) -> str:
    """Render a card as README.md: front matter that the Hub understands, then one table row per entry."""
    name = card.get("name", "data set")
    lines = ["---", f"pretty_name: {json.dumps(name)}", f"license: {card.get('license', 'mit')}"]
    lines += ["language: [en]"] if card.get("language") == "en" else []
    lines += [
        "---",
        "",
        f"# {name}",
        "",
        str(card.get("description", "")),
        "",
        "| entry | value |",
        "|---|---|",
    ]
    for key, value in card.items():
        if key not in ("name", "description"):
            shown = value if isinstance(value, str) else json.dumps(value)
            lines.append(f"| {key} | {shown} |")
    return "\n".join(lines) + "\n"


def columns_in(folder: str | Path, split: str) -> list[str]:
    """Names of the columns of one split, read without `datasets`."""
    info = Path(folder) / split / "dataset_info.json"
    if not info.is_file():
        raise UserError(f"{folder} has no split {split!r}: delete the folder so that it is made again")
    return list(json.loads(info.read_text())["features"])
