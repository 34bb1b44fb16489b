"""The folders of `memorization.data.facts` from downloaded sets, in the tokens of a public model (`geometry`, app. A).

The paper measures representations on FineWeb, WikiText and LAMBADA, asks questions of TriviaQA and SciQ, and fine-tunes
on Anthropic HH and AlpacaFarm. Keys of a `spec` beside those of every kind:

    assets        folder of all assets
    tokenizer     asset whose tokenizer encodes the texts
    length        most tokens of a sequence; longer texts are cut there, longer questions left out
    shortest      texts must have more tokens than that
    reply_length  most tokens of prompt and reply in short, long and preferences; `length` if not given
    sets          folder -> where it comes from: asset, files (patterns), validation_files (of the validation rows;
                  by default rows of `files` that are not trained on), columns (what a column is -> its name), number
                  (of texts, where the set has fewer than `probe`)

Columns, with the names they have by default; "" stands for a column that is not there:

    facts           question: question, answer: answer.value (`value` in the object `answer`)
    continuations   question: question, correct: correct_answer, distractor1 to distractor3, support: support (a text
                    before the question)
    short           chosen: chosen (a dialogue, whose last turn of the assistant is the reply)
    preferences     chosen: chosen, rejected: rejected
    long            instruction: instruction, input: input, output: output
    any other       text: text; a folder of texts to measure representations on, such as text and other

Texts of a folder `shuffled` are drawn as those of `text`, then all their tokens are shuffled across the set. facts,
continuations and texts have a validation split only. Files are .parquet, .jsonl, .json or .csv, or .jsonl.gz.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.data.facts import Made, Rows, name_of
from memorization.data.facts_text import CHOICES
from memorization.data.labelled_public import objects, rows_of
from memorization.data.patterns import SPLITS, generator, nearest
from memorization.data.public import DOWNLOAD, check_columns, tokenizer_of
from memorization.data.text import END_OF_TEXT
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Source = Mapping[str, Any]
Pair = tuple[str, str, str]  # prompt, reply, rejected reply ("" where there is none)
Encoded = tuple[str, list[int], list[int], list[int]]  # text, ids of the prompt, of the reply, of the rejected reply
COLUMNS: dict[str, dict[str, str]] = {
    "facts": {"question": "question", "answer": "answer.value"},
    "continuations": {
        "question": "question",
        "correct": "correct_answer",
        "distractor1": "distractor1",
        "distractor2": "distractor2",
        "distractor3": "distractor3",
        "support": "support",
    },
    "short": {"chosen": "chosen"},
    "preferences": {"chosen": "chosen", "rejected": "rejected"},
    "long": {"instruction": "instruction", "input": "input", "output": "output"},
}
TEXTS = {"text": "text"}
REPLIES = ("short", "long", "preferences")
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # the turns of a dialogue of Anthropic HH
POOL = 4  # sequences are drawn from the first usable ones of a set, this many times as many as are asked for
BATCH = 500  # rows looked at together


# --- Folders ---


def public_sets(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Return a folder for each of `sets`, see `memorization.data.facts.make_sets`."""
    if not spec.get("tokenizer"):
        raise UserError(f"{name_of(spec)}: public sets need a `tokenizer`; write the asset of the model.")
    tokenizer, end = reader_of(str(spec["assets"]), spec["tokenizer"])
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    made: Made = {}
    for folder, source in spec["sets"].items():
        make = {"facts": facts, "continuations": continuations}.get(folder, replies if folder in REPLIES else texts)
        splits = make(spec, folder, source, seed, tokenizer, end)
        about = {"asset": source["asset"], "tokenizer": spec["tokenizer"], "vocabulary": size, "end": end}
        made[folder] = (splits, {"description": described(folder), **about})
    return made


def described(folder: str) -> str:
    """Return what the card says of a folder."""
    public = {
        "facts": "Questions with an answer each; wrong answers are those of three other questions.",
        "continuations": "Questions with the right answer and three wrong ones.",
        "short": "Dialogues with the reply that people preferred.",
        "long": "Instructions and replies.",
        "preferences": "Dialogues with the reply that people preferred and the one they rejected.",
        "shuffled": "Beginnings of texts with all their tokens shuffled across the set.",
    }
    return public.get(folder, "Beginnings of texts.")


@lru_cache(maxsize=2)
def reader_of(assets: str, name: str) -> tuple["Tokenizer", int]:
    """Return the tokenizer of an asset and the id of its end of text."""
    tokenizer, path = tokenizer_of(assets, name), Path(assets) / name / "tokenizer_config.json"
    stated = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
    token = stated["content"] if isinstance(stated, dict) else stated or END_OF_TEXT
    end = tokenizer.token_to_id(token)
    if end is None:
        raise UserError(f"{path.parent}: the tokenizer has no token {token!r}; write its eos_token in {path.name}.")
    return tokenizer, end


# --- Reading ---


def read(spec: Mapping[str, Any], folder: str, source: Source, split: str = "train") -> Iterator[dict[str, Any]]:
    """Yield the rows of a set's files, what a column is -> its value; UserError for a missing file or column.

    split: "validation" reads `validation_files`.
    """
    columns, default = dict(source.get("columns") or {}), COLUMNS.get(folder, TEXTS)
    where = f"{name_of(spec)}: sets.{folder}"
    for key in columns:
        if key not in default:
            raise UserError(f"{where} has no column {key!r}; {nearest(key, default)}")
    wanted = {key: name for key, name in (default | columns).items() if name}
    for key in default:
        if key not in wanted and key not in ("support", "input"):
            raise UserError(f"{where}: the column of {key} is empty; write its name in the files.")
    roots = list(dict.fromkeys(name.split(".")[0] for name in wanted.values()))
    patterns = source["validation_files"] if split == "validation" else source["files"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    asset = Path(spec["assets"]) / source["asset"]
    paths = sorted({path for pattern in patterns for path in asset.glob(pattern) if path.is_file()})
    if not paths:
        raise UserError(f"{where}: {asset} holds no {', '.join(patterns)}: {DOWNLOAD}, or correct `files`")
    for path in paths:
        for row in unpacked(path, roots) if path.suffix == ".gz" else rows_of(path, roots):
            yield {key: value_of(row, name, path) for key, name in wanted.items()}


def unpacked(path: Path, columns: Sequence[str]) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of a packed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for row in objects(path, stream):
            check_columns(path, columns, row if isinstance(row, dict) else ())
            yield row


def value_of(row: Mapping[str, Any], name: str, path: Path) -> str:
    """Return the text of a column, or of a key in the object that a column holds (`answer.value`)."""
    value: Any = row
    for part in name.split("."):
        check_columns(path, (part,), value if isinstance(value, Mapping) else ())
        value = value[part]
    return "" if value is None else str(value)


def encode(tokenizer: "Tokenizer", texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts, without special tokens."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def drawn(pool: Sequence[Any], number: int, where: str, what: str, key: tuple[str | int, ...]) -> list[Any]:
    """Draw that many of a pool, in random order; UserError if there are fewer."""
    if len(pool) < number:
        raise UserError(
            f"{where} is {number}, there are {len(pool)} {what}; write {len(pool)} or less, or name more files."
        )
    return [pool[int(place)] for place in generator("facts", *key).permutation(len(pool))[:number]]


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of at most `BATCH` rows."""
    rows = iter(rows)
    while some := list(islice(rows, BATCH)):
        yield some


# --- Texts ---


def texts(
    spec: Mapping[str, Any], folder: str, source: Source, seed: int, tokenizer: "Tokenizer", end: int
) -> dict[str, Rows]:
    """Beginnings of texts, as the paper takes them: cut after `length` tokens, those of at most `shortest` left out."""
    length, shortest, number = spec["length"], spec["shortest"], source.get("number") or spec["probe"]
    if shortest >= length:
        raise UserError(f"{name_of(spec)}: shortest is {shortest}; write less than length, {length}.")
    pool: list[list[int]] = []
    for rows in batches(read(spec, folder, source)):
        # nobody writes words of 20 characters a token: the rest would be encoded for nothing
        ids = encode(tokenizer, [row["text"][: 20 * length] for row in rows])
        pool += [one[:length] for one in ids if len(one) > shortest]
        if len(pool) >= POOL * number:
            break
    where, what = f"{name_of(spec)}: probe", f"texts of {folder} with more than {shortest} tokens"
    chosen = drawn(pool[: POOL * number], number, where, what, (seed, "text"))
    if folder == "shuffled":
        tokens = generator("facts", seed, folder).permutation(np.concatenate(chosen))
        chosen = [part.tolist() for part in np.split(tokens, np.cumsum([len(one) for one in chosen])[:-1])]
    decoded = tokenizer.decode_batch(chosen, skip_special_tokens=False)
    return {"validation": [store.row(i, *one, 0, 0) for i, one in enumerate(zip(decoded, chosen, strict=True))]}


# --- Questions ---


def asked(question: str, support: str = "") -> str:
    """Return the prompt of a question, which ends in a question mark (the paper's released code)."""
    question = question.strip()
    question = question if question.endswith("?") else f"{question}?"
    before = f"{support.strip()}\n" if support.strip() else ""
    return f"{before}Question: {question} Answer:"


def question_rows(
    spec: Mapping[str, Any],
    folder: str,
    questions: Iterable[tuple[str, str, tuple[str, ...]]],
    seed: int,
    tokenizer: "Tokenizer",
    choose: Callable[[list[Any]], list[Any]] | None = None,
) -> dict[str, Rows]:
    """Rows of (prompt, answer, wrong answers) that fit into `length`. choose: adds the wrong answers to all of them."""
    where, number, pool = f"{name_of(spec)}: questions", spec["questions"], []
    for some in batches(questions):
        for one, ids, answer in zip(
            some,
            encode(tokenizer, [prompt for prompt, _, _ in some]),
            encode(tokenizer, [f" {answer}" for _, answer, _ in some]),
            strict=True,
        ):
            if len(ids) + len(answer) <= spec["length"]:
                pool.append((one, ids, answer))
        if len(pool) >= POOL * number:
            break
    what = f"questions of {folder} with at most {spec['length']} tokens"
    chosen = drawn(pool[: POOL * number], number, where, what, (seed, folder))
    wrong = choose([one for one, _, _ in chosen]) if choose else [one[2] for one, _, _ in chosen]
    rows = []
    for item, ((one, ids, answer), others) in enumerate(zip(chosen, wrong, strict=True)):
        choices = encode(tokenizer, [f" {other}" for other in others])
        rows.append(store.answer_row(item, f"{one[0]} {one[1]}", [*ids, *answer], len(ids), len(answer), choices))
    return {"validation": rows}


def facts(
    spec: Mapping[str, Any], folder: str, source: Source, seed: int, tokenizer: "Tokenizer", end: int
) -> dict[str, Rows]:
    """Questions with one answer (TriviaQA); the wrong ones are answers of three other questions of the set."""

    def choose(questions: list[Any]) -> list[list[str]]:
        rng, answers = generator("facts", seed, folder, "distractors"), [answer for _, answer, _ in questions]
        names = {answer.casefold(): answer for answer in answers}
        if len(names) < CHOICES:
            raise UserError(
                f"{name_of(spec)}: the questions of {folder} have {len(names)} different answers; write a larger "
                f"`questions`, so that there are {CHOICES}."
            )
        keys, found = list(names), []
        for answer in answers:
            # one of the first four places may be the answer itself
            places = [keys[int(place)] for place in rng.choice(len(keys), size=CHOICES, replace=False)]
            found.append([names[key] for key in places if key != answer.casefold()][: CHOICES - 1])
        return found

    rows = ((row["question"], row["answer"].strip()) for row in read(spec, folder, source))
    questions = ((asked(question), answer, ()) for question, answer in rows if question.strip() and answer)
    return question_rows(spec, folder, questions, seed, tokenizer, choose)


def continuations(
    spec: Mapping[str, Any], folder: str, source: Source, seed: int, tokenizer: "Tokenizer", end: int
) -> dict[str, Rows]:
    """Questions that bring their wrong answers (SciQ), in the place of what `continuations` are in our own sets."""
    names = [f"distractor{number}" for number in range(1, CHOICES)]

    def questions() -> Iterator[tuple[str, str, tuple[str, ...]]]:
        for row in read(spec, folder, source):
            right, wrong = row["correct"].strip(), tuple(row[name].strip() for name in names)
            if row["question"].strip() and right and all(wrong) and right not in wrong:
                yield asked(row["question"], row.get("support", "")), right, wrong

    return question_rows(spec, folder, questions(), seed, tokenizer)


# --- Replies ---


def dialogue(text: str) -> tuple[str, str]:
    """Cut a dialogue behind the last "Assistant:": (prompt, reply); ("", "") if nothing is replied."""
    before, turn, reply = text.rpartition(ASSISTANT)
    # a dialogue that ends in a human's turn has no reply to learn
    return (f"{before}{turn}", reply.strip()) if turn and reply.strip() and HUMAN not in reply else ("", "")


def pairs(folder: str, rows: Iterable[Mapping[str, str]], seen: set[str]) -> Iterator[Pair]:
    """Yield prompts and replies; rows without one, pairs whose prompts differ and prompts in `seen` are left out."""
    for row in rows:
        rejected = ""
        if folder == "long":
            parts = (row.get(key, "").strip() for key in ("instruction", "input"))
            instruction = "\n".join(part for part in parts if part)
            prompt, reply = f"{HUMAN} {instruction}{ASSISTANT}" if instruction else "", row["output"].strip()
        else:
            prompt, reply = dialogue(row["chosen"])
        if folder == "preferences":
            same, rejected = dialogue(row["rejected"])
            if same != prompt or rejected == reply:
                continue
        if prompt and reply and prompt not in seen:
            seen.add(prompt)
            yield prompt, reply, rejected


def replies(
    spec: Mapping[str, Any], folder: str, source: Source, seed: int, tokenizer: "Tokenizer", end: int
) -> dict[str, Rows]:
    """Prompts and replies, each reply with an end of text unless it is cut there; prompts that fill all are left out.

    No prompt occurs twice; without `validation_files` both splits are drawn from one pool.
    """
    keys = dict(zip(SPLITS, ("tuning", "tests"), strict=True))
    splits: dict[str, Rows] = {}
    seen: set[str] = set()
    for part in [SPLITS[:1], SPLITS[1:]] if source.get("validation_files") else [SPLITS]:
        number, pool = sum(spec[keys[split]] for split in part), []
        for some in batches(pairs(folder, read(spec, folder, source, part[0]), seen)):
            pool += fitting(spec, some, tokenizer, end)
            if len(pool) >= POOL * number:
                break
        where = f"{name_of(spec)}: {' + '.join(keys[split] for split in part)}"
        what = f"prompts of {folder} that leave room for a reply in {reply_length(spec)} tokens"
        chosen = drawn(pool[: POOL * number], number, where, what, (seed, folder, part[0]))
        for split in part:
            mine, chosen = chosen[: spec[keys[split]]], chosen[spec[keys[split]] :]
            splits[split] = [reply_row(item, folder, one, end) for item, one in enumerate(mine)]
    return splits


def reply_length(spec: Mapping[str, Any]) -> int:
    """Most tokens of prompt and reply."""
    return int(spec.get("reply_length") or spec["length"])


def fitting(spec: Mapping[str, Any], some: Sequence[Pair], tokenizer: "Tokenizer", end: int) -> list[Encoded]:
    """Encode the pairs whose prompts leave room for a reply."""
    length = reply_length(spec)
    prompts = encode(tokenizer, [prompt for prompt, _, _ in some])
    written = [encode(tokenizer, [f" {one[place]}" if one[place] else "" for one in some]) for place in (1, 2)]
    found = []
    for one, prompt, reply, rejected in zip(some, prompts, *written, strict=True):
        room = length - len(prompt)
        if room > 1:  # for a token and the end
            found.append((f"{one[0]} {one[1]}", prompt, [*reply, end][:room], [*rejected, end][:room]))
    return found


def reply_row(item: int, folder: str, one: Encoded, end: int) -> dict[str, Any]:
    """One row; completion_length leaves the end of text out."""
    text, prompt, reply, rejected = one
    shared = (item, text, [*prompt, *reply], len(prompt), len(reply) - (reply[-1] == end))
    return store.pair_row(*shared, [*prompt, *rejected]) if folder == "preferences" else store.row(*shared)
