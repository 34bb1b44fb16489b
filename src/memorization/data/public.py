"""Passages from public data sets: files of a downloaded asset, read as texts, and texts drawn by seed (`tokenswap`).

Section 4 of the paper fine-tunes on WritingPrompts and AutoMathText and decodes prefixes of the Pile that Chang et al.
(MemPi) found memorized by Pythia. The first two are tables with columns; the last is a tensor of token ids.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.data.passages import PassageItem
from memorization.data.patterns import generator, nearest
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

URL = re.compile(r"https?:|www\.|\w\.(com|org|net)\b|\S@\S")
CODE = frozenset("{}<>\\|=_`#[]~^$;")
WORDS = frozenset(FUNCTION_WORDS)
LETTERS, FUNCTION_SHARE, CODE_SHARE = 0.75, 0.15, 0.01
BATCH = 1000  # texts looked at together
DOWNLOAD = "download it with `snakemake assets --config scale=paper`"


# --- Reading ---


def read_texts(assets: str | Path, source: Mapping[str, Any]) -> list[str]:
    """Return the texts of a public domain, in the order of its files.

    Parameters
    ----------
    assets: folder of all assets.
    source: a domain of the configuration, see `memorization.config.tokenswap:PublicTexts`.

    Texts whose columns are empty, shorter than `shortest` or longer than `longest` (characters) are left out, and so is
    what is no natural language, if `natural`. Of stored token ids only rows are kept that are encoded to the same ids
    again, since models read a passage from its text.
    """
    folder = Path(assets) / source["asset"]
    paths = sorted(folder.rglob(source["files"]) if "/" not in source["files"] else folder.glob(source["files"]))
    if not paths:
        raise UserError(f"{folder} holds no {source['files']}: {DOWNLOAD}, or correct `files` of the domain")
    texts: list[str] = []
    for path in paths:
        if path.suffix == ".pt":
            texts += decoded(path, tokenizer_of(assets, source["tokenizer"]))
        else:
            texts += joined(rows_of(path, source["columns"]), source)
    return [text for text in texts if is_natural(text)] if source.get("natural") else texts


def rows_of(path: Path, columns: Sequence[str]) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of a .parquet, .jsonl or .json file (a list of objects); UserError for a missing column."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            check_columns(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(columns=list(columns)):
                yield from batch.to_pylist()
        return
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                rows = (json.loads(line) for line in lines if line.strip())
                yield from checked(path, rows, columns)
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(rows, list):
                raise UserError(f"{path} is no list of objects: name a file that is, or .jsonl with an object a line")
            yield from checked(path, rows, columns)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}): {DOWNLOAD}") from error


def checked(path: Path, rows: Iterable[Any], columns: Sequence[str]) -> Iterable[Mapping[str, Any]]:
    """The same rows, after a look at the columns of each."""
    for row in rows:
        check_columns(path, columns, row if isinstance(row, dict) else ())
        yield row


def check_columns(path: Path, columns: Sequence[str], there: Iterable[str]) -> None:
    """UserError unless all columns are there."""
    known = list(there)
    for column in columns:
        if column not in known:
            raise UserError(f"{path} has no column {column!r}; {nearest(column, known)}")


def joined(rows: Iterable[Mapping[str, Any]], source: Mapping[str, Any]) -> list[str]:
    """Texts of rows: columns without the space around them, joined; rows of the wrong length are left out."""
    least, most = source.get("shortest", {}), source.get("longest", {})
    texts = []
    for row in rows:
        parts = {column: str(row[column] or "").strip() for column in source["columns"]}
        if all(least.get(column, 1) <= len(part) <= most.get(column, len(part)) for column, part in parts.items()):
            texts.append(source.get("start", "") + source.get("separator", "\n").join(parts.values()))
    return texts


def decoded(path: Path, tokenizer: "Tokenizer") -> list[str]:
    """Texts of a tensor of token ids (N, tokens), int; rows that another encoding would give other ids are left out."""
    import torch

    # a .pt file is a pickle, and a pickle may run code when it is read; with weights_only=True torch builds tensors and
    # plain containers only and refuses everything else
    try:
        ids = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch names no class for what it refuses
        raise UserError(
            f"{path} is not read: it holds more than a tensor, or is damaged ({type(error).__name__})"
        ) from error
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point():
        raise UserError(f"{path} is no tensor of token ids (texts, tokens): name a file that is one")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.get_vocab_size():
        raise UserError(
            f"{path} has ids from {int(ids.min())} to {int(ids.max())}, the tokenizer has {tokenizer.get_vocab_size()} "
            "tokens: name the right `tokenizer`"
        )
    rows = ids.tolist()
    texts = tokenizer.decode_batch(rows, skip_special_tokens=False)
    again = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [text for text, row, encoding in zip(texts, rows, again, strict=True) if encoding.ids == row]


def is_natural(text: str) -> bool:
    """Whether a text looks like English prose.

    `tokenswap`, sec. 4.2 keeps natural language only and does not say how, so this rule is ours: no address of the
    web, letters and spaces make up 3/4 of the characters, signs of code at most 1 %, and 15 % of the words are among
    the 110 function words (in running English about every fourth is).
    """
    words = re.findall(r"[a-z']+", text.lower())
    if not words or URL.search(text):
        return False
    letters = sum(character.isalpha() or character.isspace() for character in text)
    code = sum(character in CODE for character in text)
    functions = sum(word in WORDS for word in words)
    return (
        letters >= LETTERS * len(text) and code <= CODE_SHARE * len(text) and functions >= FUNCTION_SHARE * len(words)
    )


def tokenizer_of(assets: str | Path, name: str) -> "Tokenizer":
    """The tokenizer of an asset, without truncation or padding that may be stored with it."""
    from tokenizers import Tokenizer

    path = Path(assets) / name / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist: {DOWNLOAD}")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# --- Drawing ---


def draw_public(
    texts: Sequence[str],
    domain: str,
    *,
    seed: int,
    passages: int,
    fewer: bool,
    prefix: int,
    suffix: int,
    length: int,
    main: "Tokenizer",
    readers: Mapping[str, "Tokenizer"],
    asset: str = "",
) -> list[PassageItem]:
    """Draw the passages of a domain for one seed: whole texts, cut after at most `length` tokens of `main`.

    Every passage has at least prefix + suffix tokens of every tokenizer of `readers`, and no two begin with the same
    `prefix` tokens of `main`. `input_ids` are those of `main`.

    Raises
    ------
    UserError: too few such texts, unless `fewer`; none at all in any case.
    """
    order = generator("public", seed, domain).permutation(len(texts))
    chosen: list[PassageItem] = []
    seen: set[tuple[int, ...]] = set()
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH].tolist()
        cut = [shortened(main, texts[number], length) for number in numbers]
        enough = [True] * len(cut)
        for tokenizer in readers.values():
            encodings = tokenizer.encode_batch([text for text, _ in cut], add_special_tokens=False)
            enough = [
                fits and len(encoding.ids) >= prefix + suffix for fits, encoding in zip(enough, encodings, strict=True)
            ]
        for number, (text, ids), fits in zip(numbers, cut, enough, strict=True):
            if fits and ids[:prefix] not in seen and len(chosen) < passages:
                seen.add(ids[:prefix])
                chosen.append(PassageItem(text, ids, prefix, asset, str(number)))
        if len(chosen) == passages:
            return chosen
    if not chosen or not fewer:
        raise UserError(
            f"domain {domain!r}: {asset} gives {len(chosen)} passages of {prefix} + {suffix} tokens, not {passages}; "
            f"write `passages: {max(1, len(chosen))}` in the domain, a shorter suffix, or `fewer: true`."
        )
    return chosen


def shortened(tokenizer: "Tokenizer", text: str, length: int) -> tuple[str, tuple[int, ...]]:
    """The text up to the last space within its first `length` tokens, and its ids."""
    text = text[: 20 * length]  # nobody writes words of 20 characters a token: the rest would be encoded for nothing
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) > length:
        text = text[: encoding.offsets[length - 1][1]]
        text = text[: text.rindex(" ")] if " " in text.strip() else text
        encoding = tokenizer.encode(text, add_special_tokens=False)
    return text, tuple(encoding.ids)


def in_tokens_of(items: Sequence[PassageItem], tokenizer: "Tokenizer") -> list[PassageItem]:
    """The same passages with the ids of another tokenizer, for a public model that trains on them."""
    encodings = tokenizer.encode_batch([item.text for item in items], add_special_tokens=False)
    return [
        PassageItem(item.text, tuple(encoding.ids), item.prompt_length, item.package, item.module)
        for item, encoding in zip(items, encodings, strict=True)
    ]
