"""Public sets for classification, read from a downloaded asset (`layernorm`, app. F.1).

Keys of a `spec` beside those of every kind (see `memorization.data.labelled`). Of both kinds here:

    asset       folder of the set under `assets`
    files       {train: pattern or list, validation: pattern or list}, or one pattern or list (or one entry of it)
                if all items are one pool. What the paper calls its test set is `validation`
    label       column of the label: a class name, or the number of a class
    classes     class names; the order numbers the classes
    train, validation   numbers of items, drawn by seed and stratified by class; all there are if not given
    shares      {train: 0.9, validation: 1} or [0.9, 1]: part of the rows to draw, in place of these numbers, which
                then are the least that there must be. Of one pool shares or numbers are needed, and no row is in both
    per_class   training rows drawn of each class before the shares are taken, all if not given

Of kind `public_text`: text (column), tokens (most tokens of an item), tokenizer (asset, needed). Files are .parquet,
.csv, .jsonl or .json (a list, or an object a line). Items are cut to `tokens` and have the special tokens that the
tokenizer puts around a text; padding is up to the loader.

Of kind `public_images`: image (column of {"bytes": ...} in .parquet files); or `label_pattern` in place of `image` and
`label` where the files are the images, .jpg, .jpeg or .png: a regular expression with the group `label`, matched from
the start of a path inside the asset. Images that it does not match are left out.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.data.labelled import Made, Rows, class_facts, enough, folders_of, largest_remainder, longest
from memorization.data.patterns import SPLITS, generator, nearest
from memorization.data.public import DOWNLOAD, check_columns
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Item = tuple[Any, int]  # (text or image file, class)
PICTURES = (".jpg", ".jpeg", ".png")
# What tokenizers that do not name their special tokens call them. Decoders have no padding: their end of text serves.
SPECIAL = {
    "pad": ("[PAD]", "<pad>", "<|endoftext|>"),
    "cls": ("[CLS]", "<s>"),
    "mask": ("[MASK]", "<mask>"),
}


# --- The two kinds ---


def public_text(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Return a public text set, see `memorization.data.labelled.make_set`."""
    if not spec.get("tokenizer"):
        raise UserError(f"{spec['name']}: a public text set needs a `tokenizer`; write the asset of the model.")
    reader = reader_of(spec["assets"], spec["tokenizer"])
    drawn = draw(spec, seed, (spec["text"], spec["label"]))
    splits = {split: encoded(reader, items, spec["tokens"]) for split, items in drawn.items()}
    facts = class_facts(spec, spec["classes"], splits) | reader.facts(spec["classes"])
    return {folders_of(spec)[0]: (splits, {"kind": "text", "language": "en", **facts, "tokens": longest(splits)})}


def public_images(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Return a public set of images, as they were published: files are stored byte by byte."""
    columns = ("", "") if spec.get("label_pattern") else (spec["image"], spec["label"])
    splits = {
        split: [store.image_row(item, content, label) for item, (content, label) in enumerate(items)]
        for split, items in draw(spec, seed, columns).items()
    }
    shapes = {shape_of(one["image"]["bytes"]) for rows in splits.values() for one in rows}
    sizes = {size for size, _ in shapes}
    facts = {
        "kind": "images",
        **class_facts(spec, spec["classes"], splits),
        "size": list(sizes.pop()) if len(sizes) == 1 else None,
        "channels": max(channels for _, channels in shapes),
    }
    return {folders_of(spec)[0]: (splits, facts)}


def shape_of(content: bytes) -> tuple[tuple[int, int], int]:
    """Return ((height, width), channels) of an image file; only its head is read."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
        return (height, width), 1 if opened.mode == "L" else 3


# --- Reading and drawing ---


def draw(spec: Mapping[str, Any], seed: int, columns: tuple[str, str]) -> dict[str, list[Item]]:
    """Draw the items of both splits. columns: of content and label, empty if the files are images."""
    files, name, classes = spec["files"], spec["name"], tuple(spec["classes"])
    given = spec.get("shares") or {}
    shares = dict(given if isinstance(given, Mapping) else zip(SPLITS, given, strict=True))
    counts = {split: int(spec[split]) for split in SPLITS if spec.get(split)}

    def items_of(patterns: str | Sequence[str], part: str) -> list[Item]:
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        folder = str(Path(spec["assets"]) / spec["asset"])
        items = read_items(name, folder, patterns, *columns, classes, spec.get("label_pattern") or "")
        items = [items[int(place)] for place in generator("labelled", name, seed, part).permutation(len(items))]
        return items if part == "validation" else some_of_each(items, spec.get("per_class"), name, classes)

    if isinstance(files, Mapping) and len(files) > 1:
        if set(files) != set(SPLITS):
            raise UserError(f"{name}: files has {', '.join(files)}; write {' and '.join(SPLITS)}.")
        drawn = {}
        for split in SPLITS:
            items = items_of(files[split], split)
            share = None if split in counts and split not in shares else [shares.get(split, 1.0)]
            drawn[split] = taken(items, sizes(len(items), share, [counts.get(split, 0)], name))[0]
    else:
        if set(shares) != set(SPLITS) and set(counts) != set(SPLITS):
            raise UserError(f"{name}: all items are in one pool; write `train` and `validation`, or shares for both.")
        items = items_of(next(iter(files.values())) if isinstance(files, Mapping) else files, "pool")
        both = [shares[split] for split in SPLITS] if shares else None
        parts = taken(items, sizes(len(items), both, [counts.get(split, 0) for split in SPLITS], name))
        drawn = dict(zip(SPLITS, parts, strict=True))
    for split, items in drawn.items():
        enough(spec, split, len(items))
    return drawn


def sizes(there: int, shares: Sequence[float] | None, counts: Sequence[int], name: str) -> list[int]:
    """Return how many of the items that are there each part gets: shares of them, or else these numbers."""
    if shares is None:
        if sum(counts) > there:
            asked = " + ".join(map(str, counts))
            raise UserError(f"{name}: {asked} items are asked for, there are {there}; write smaller numbers.")
        return list(counts)
    if min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise UserError(f"{name}: shares are {list(shares)}; write numbers above 0 that sum to at most 1.")
    return largest_remainder(there, [*shares, max(0.0, 1 - sum(shares))])[:-1]


@lru_cache(maxsize=4)
def read_items(
    name: str, folder: str, patterns: tuple[str, ...], content: str, label: str, classes: tuple[str, ...], regex: str
) -> list[Item]:
    """Read (content, class) of all files that match, in the order of their names; once for all seeds."""
    paths = sorted({path for pattern in patterns for path in Path(folder).glob(pattern) if path.is_file()})
    if not paths:
        raise UserError(f"{name}: {folder} holds no {', '.join(patterns)}: {DOWNLOAD}, or correct `files`")
    items: list[Item] = []
    if regex:
        for path in paths:
            inside = path.relative_to(folder).as_posix()
            found = re.match(regex, inside)
            if path.suffix.lower() not in PICTURES:
                raise UserError(f"{name}: {inside} is no image; name only {', '.join(PICTURES)} files.")
            if found:
                items.append((path.read_bytes(), class_of(found["label"], classes, name, inside)))
        if not items:
            raise UserError(f"{name}: label_pattern {regex!r} fits no file of {folder}, such as {inside}.")
        return items
    for path in paths:
        for row in rows_of(path, (content, label)):
            value = row[content]["bytes"] if isinstance(row[content], dict) else row[content]
            if value:  # a text that is empty says nothing
                items.append((value, class_of(row[label], classes, name, path.name)))
    return items


def class_of(value: Any, classes: Sequence[str], name: str, where: str) -> int:
    """Return the number of a class, from its name or its number."""
    text = str(value)
    if text in classes:
        return classes.index(text)
    if text.isdecimal():
        if int(text) < len(classes):
            return int(text)
        raise UserError(
            f"{name}: {where} has the label {text}, `classes` has {len(classes)} names; add what is missing."
        )
    raise UserError(f"{name}: {where} has the label {text!r}; {nearest(text, list(classes))}")


def rows_of(path: Path, columns: Sequence[str]) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of a table with these columns; UserError if one is missing or the file is of another format."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            check_columns(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(columns=list(columns)):
                yield from batch.to_pylist()
        return
    if path.suffix not in (".csv", ".json", ".jsonl"):
        raise UserError(f"{path} is no .parquet, .csv, .json or .jsonl file; correct `files`.")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream) if path.suffix == ".csv" else objects(path, stream):
            check_columns(path, columns, row if isinstance(row, dict) else ())
            yield row


def objects(path: Path, stream: Any) -> Iterable[Any]:
    """Yield the objects of a JSON list, or of JSON lines whatever the file is called."""
    try:
        start = stream.read(1)
        stream.seek(0)
        if start == "[":
            yield from json.load(stream)
        else:
            yield from (json.loads(line) for line in stream if line.strip())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error.msg}): {DOWNLOAD}") from error


def some_of_each(pool: list[Item], count: int | None, name: str, classes: Sequence[str]) -> list[Item]:
    """Keep the first `count` items of each class; UserError if a class has fewer."""
    if count is None:
        return pool
    kept, held = [], [0] * len(classes)
    for item in pool:
        if held[item[1]] < count:
            held[item[1]] += 1
            kept.append(item)
    if min(held) < count:
        least = int(np.argmin(held))
        raise UserError(f"{name}: {classes[least]!r} has {held[least]} items; write per_class: {held[least]} or less.")
    return kept


def taken(pool: Sequence[Item], parts: Sequence[int], /) -> list[list[Item]]:
    """Deal a shuffled pool out into parts of these sizes, each with all classes in proportion; the rest is not used."""
    members: dict[int, list[int]] = {label: [] for label in sorted({label for _, label in pool})}
    for place, (_, label) in enumerate(pool):
        members[label].append(place)
    dealt = []
    for size in parts:
        held = sum(map(len, members.values()))
        counts = largest_remainder(size, [len(places) / held for places in members.values()]) if size else []
        chosen: list[int] = []
        for places, count in zip(members.values(), counts, strict=False):
            chosen += places[:count]
            del places[:count]
        dealt.append([pool[place] for place in sorted(chosen)])
    return dealt


# --- Tokenizers of public models ---


@dataclass(frozen=True)
class Reader:
    """A public model's tokenizer, and the ids of its special tokens (None: it has no such token)."""

    tokenizer: "Tokenizer"
    pad: int
    cls: int | None
    mask: int | None

    def facts(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what the card says. The word of a class is the first token of its name after a space."""
        words = [self.tokenizer.encode(f" {name}", add_special_tokens=False).ids[0] for name in classes]
        twice = [name for name, word in zip(classes, words, strict=True) if words.count(word) > 1]
        if twice:
            raise UserError(f"classes {' and '.join(map(repr, twice))} begin with the same token; write other names.")
        size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        return {"pad": self.pad, "cls": self.cls, "mask": self.mask, "label_tokens": words, "vocabulary": size}


def encoded(reader: Reader, items: Sequence[Item], tokens: int) -> Rows:
    """Encode (text, class) with the special tokens of the model, at most `tokens` with them."""
    reader.tokenizer.enable_truncation(max_length=tokens)
    encodings = reader.tokenizer.encode_batch([text for text, _ in items])
    return [
        store.text_row(place, text, encoding.ids, label)
        for place, ((text, label), encoding) in enumerate(zip(items, encodings, strict=True))
    ]


@lru_cache(maxsize=1)
def reader_of(assets: str | Path, name: str) -> Reader:
    """Read the tokenizer of a model's asset, from tokenizer.json or, if it has none, vocab.json and merges.txt."""
    from tokenizers import Tokenizer

    folder = Path(assets) / name
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = byte_level(folder)
    else:
        raise UserError(f"{folder} holds no tokenizer.json: {DOWNLOAD}")
    special = special_tokens(folder, tokenizer)
    if special["pad"] is None:
        raise UserError(f"{folder}: the tokenizer has no token to pad with; write pad_token in tokenizer_config.json.")
    return Reader(tokenizer, special["pad"], special["cls"], special["mask"])


def byte_level(folder: Path) -> "Tokenizer":
    """Byte-level BPE from its two files, with [CLS] and [SEP] around a text if it has them (DeBERTa)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    known = [token for names in SPECIAL.values() for token in names] + ["[SEP]", "</s>"]
    vocabulary = tokenizer.get_vocab()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in known if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        pair = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    return tokenizer


def special_tokens(folder: Path, tokenizer: "Tokenizer") -> dict[str, int | None]:
    """Return the ids of `SPECIAL`: as the model's files name them, else by the usual names."""
    named: dict[str, Any] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            named |= {key: value for key, value in json.loads((folder / file).read_text()).items() if value}
    found: dict[str, int | None] = {}
    for role, usual in SPECIAL.items():
        token = named.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        ids = [tokenizer.token_to_id(one) for one in ([token] if token else usual)]
        found[role] = next((number for number in ids if number is not None), None)
    if found["pad"] is None and isinstance(named.get("eos_token"), str):
        found["pad"] = tokenizer.token_to_id(named["eos_token"])
    return found
