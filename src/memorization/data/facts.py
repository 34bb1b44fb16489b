"""Text with facts about invented people in it, questions about them, and post-training sets (`geometry`).

Stands in for the public sets of the paper (FineWeb, TriviaQA, SciQ, Anthropic HH, AlpacaFarm; sec. 3 and app. A) where
there is no network: documentation text, in which people are told of. One set is one `spec`, the `smk.params.set` of the
script make_facts. Keys of every kind:

    name, kind    of the set; a key of `KINDS`, "docstrings" if not given
    seeds         number of seeds (read by the script)
    folders       names of the stored folders, in the order of `folders_of`; by default what that says
    probe         validation sequences of every folder of text
    questions     validation rows of `facts` and of `continuations`
    tuning, tests training and validation rows of `short`, `long` and `preferences`

and of kind `docstrings`:

    vocabulary        tokens of the text's tokenizer; tokens of our own follow, see `Marks`
    length            tokens of a sequence, T
    text, facts       training sequences of both folders
    entities          people; half of them are trained in post-training, the others are its test
    answers           number of words that replies are made of
    answer_tokens     tokens of a reply
    gap               [fewest, most] tokens between a person and the reply
    noise             share of the training facts whose reply is another person's
    completion        tokens at the end of a text that `continuations` asks for
    other_packages    packages of the corpus that nothing is trained on
    small_vocabulary  tokens of a second tokenizer for `text_small` and `facts_small`; neither is made without it

The kind `public` lists its own in `memorization.data.facts_public`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.data.facts_text import CHOICES, Stream, draw_pieces, ngram_hashes, put_in, wrong_endings
from memorization.data.patterns import generator, nearest, resolve
from memorization.data.public import check_columns
from memorization.data.text import END_OF_TEXT, encode_texts, load_tokenizer, train_tokenizer
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Rows = list[dict[str, Any]]
Made = dict[str, tuple[dict[str, Rows], dict[str, Any]]]  # folder -> (split -> rows, facts for the card)

KINDS = {
    "docstrings": "memorization.data.facts:own_sets",
    "public": "memorization.data.facts_public:public_sets",
}
FOLDERS = ("text", "facts", "continuations", "other", "shuffled", "short", "long", "preferences")
SMALL = ("text_small", "facts_small")
MARKS = ("<question>", "<answer>", "<question 2>", "<answer 2>", "<end>")
STARTS = 4  # a fact's question begins at one of the first four tokens
BEFORE, BETWEEN = 4, 10  # tokens of text in the second format: before the question, and between it and the answer
DESCRIPTIONS = {
    "text": "Running text.",
    "facts": "Running text with the question about a person near its beginning and the reply some tokens later.",
    "continuations": "Held-out text whose last tokens are to be told from the last tokens of three others.",
    "other": "Running text of packages that nothing is trained on.",
    "shuffled": "The validation sequences of `text` with all their tokens shuffled across the set.",
    "short": "A question about a person, and the reply.",
    "long": "A question about a person inside a text, in other marks than those of `facts`, and the reply.",
    "preferences": "A question about a person, the right reply, and another person's, which is rejected.",
}


# --- All kinds ---


def make_sets(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Make all folders of one set for one seed.

    Parameters
    ----------
    spec: see the top of this module.
    inputs: paths: `corpus` (parquet of the rule make_text) and `tokenizer` (its folder), for kind `docstrings`.

    Returns
    -------
    For every folder of `folders_of` the rows of its splits, "train" and "validation" or only the latter, and facts for
    the card. Columns are those of `store.ANSWERS` in facts and continuations, of `store.PAIRS` in preferences, and of
    `store.COLUMNS` elsewhere. The reply is what follows the prompt, completion_length its tokens without the end mark.
    """
    made = resolve(KINDS[kind_of(spec)])(spec, seed, inputs)
    common = {"seed": seed, "source": "geometry, sec. 3 and app. A", "license": "other", "language": "en"}
    return {
        name: (splits, {"name": name, **common, **facts})
        for name, (splits, facts) in zip(folders_of(spec), made.values(), strict=True)
    }


def kind_of(spec: Mapping[str, Any]) -> str:
    """Return the kind of a set; UserError if there is none such."""
    kind = spec.get("kind", "docstrings")
    if kind not in KINDS:
        raise UserError(f"{name_of(spec)}: there is no kind {kind!r} of facts; {nearest(kind, KINDS)}")
    return str(kind)


def name_of(spec: Mapping[str, Any]) -> str:
    """Return what messages call a set."""
    return str(spec.get("name") or "facts")


def folders_of(spec: Mapping[str, Any]) -> list[str]:
    """Return the folders that `make_sets` makes, in its order."""
    if spec.get("folders"):
        return list(spec["folders"])
    if kind_of(spec) == "public":
        return list(spec["sets"])
    return [*FOLDERS, *(SMALL if spec.get("small_vocabulary") else ())]


def vocabulary_size(spec: Mapping[str, Any], small: bool = False) -> int:
    """Return the number of ids of kind `docstrings`: tokens of the text, `MARKS` and people; small: of `SMALL`."""
    if kind_of(spec) != "docstrings":
        raise UserError(f"{name_of(spec)}: a public model brings its vocabulary; read `vocabulary` of the card.")
    return int(spec["small_vocabulary"] if small else spec["vocabulary"]) + len(MARKS) + int(spec["entities"])


# --- The corpus ---


@dataclass(frozen=True)
class Marks:
    """Ids of our own, behind the `size` tokens of the text: five marks, then one token a person."""

    size: int

    @property
    def question(self) -> int:
        """Begins a question about a person (first format)."""
        return self.size

    @property
    def answer(self) -> int:
        """Stands before the reply (first format)."""
        return self.size + 1

    @property
    def second_question(self) -> int:
        """Begins a question about a person (second format)."""
        return self.size + 2

    @property
    def second_answer(self) -> int:
        """Stands before the reply (second format)."""
        return self.size + 3

    @property
    def end(self) -> int:
        """Ends a reply in post-training."""
        return self.size + 4

    def people(self, entities: np.ndarray) -> np.ndarray:
        """Return the ids of people, numbered from 0."""
        return self.size + len(MARKS) + entities


@dataclass(frozen=True)
class Corpus:
    """The streams of text of three splits and what is said about them.

    tokenizer: that of the text; its decoder also knows our own tokens. words: ids of common words, the commonest first.
    end: id of the token between two paragraphs.
    """

    tokenizer: "Tokenizer"
    streams: Mapping[str, Stream]
    words: tuple[int, ...]
    end: int
    marks: Marks


@lru_cache(maxsize=2)
def read_corpus(path: str, folder: str, others: tuple[str, ...], entities: int, small: int | None, name: str) -> Corpus:
    """Read and encode the corpus, once for all seeds. small: size of a tokenizer trained on it, None: the given one.

    `train` is the corpus's split train, `validation` both of its other splits, `other` all of the packages `others`,
    of which neither of the first two has anything. Paragraphs stand in the corpus's order, each with an end of text.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_columns(Path(path), ("text", "package", "split"), file.schema_arrow.names)
        rows = file.read(columns=["text", "package", "split"]).to_pylist()
    known = sorted({row["package"] for row in rows})
    for package in others:
        if package not in known:
            raise UserError(f"{name}: the corpus has no package {package!r}; {nearest(package, known)}")
    if small is None:
        tokenizer = load_tokenizer(folder)
    else:
        try:
            tokenizer = train_tokenizer([row["text"] for row in rows if row["split"] == "train"], small)[0]
        except UserError as error:
            raise UserError(f"{name}: small_vocabulary: {error}") from error
    size, end = tokenizer.get_vocab_size(), tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise UserError(f"{name}: the text's tokenizer has no token {END_OF_TEXT!r}; make the text corpus again.")
    ids: dict[str, list[int]] = {"train": [], "validation": [], "other": []}
    for row, tokens in zip(rows, encode_texts([row["text"] for row in rows], tokenizer), strict=True):
        split = "other" if row["package"] in others else "train" if row["split"] == "train" else "validation"
        ids[split] += [*tokens, end]
    trained = np.unique(ngram_hashes(np.array(ids["train"], dtype=np.int64)))
    streams = {
        split: Stream.of(np.array(tokens, dtype=np.int64), None if split == "train" else trained)
        for split, tokens in ids.items()
    }
    texts = [row["text"] for row in rows if row["split"] == "train" and row["package"] not in others]
    words = common_words(texts, tokenizer)
    tokenizer.add_tokens([*MARKS, *(f"<person {number}>" for number in range(entities))])  # for decoding
    return Corpus(tokenizer, streams, words, end, Marks(size))


def common_words(texts: Sequence[str], tokenizer: "Tokenizer") -> tuple[int, ...]:
    """Return ids of words that are one token, the commonest first; function words only behind all others.

    Replies of function words would be likely after any text, and the answer's own words would say little.
    """
    counts = Counter(word for text in texts for word in text.split() if len(word) > 2 and word.isalpha())
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if word.islower()]
    words.sort(key=lambda word: word in FUNCTION_WORDS)
    encodings = tokenizer.encode_batch([f" {word}" for word in words])
    return tuple(encoding.ids[0] for encoding in encodings if len(encoding.ids) == 1)


# --- The sets of kind docstrings ---


def own_sets(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Return the folders of kind `docstrings` in the order of `folders_of`.

    No sequence outside the training splits has `facts_text.NGRAM` tokens of text in a row that the training text has.
    """
    check(spec)
    made: Made = {}
    for small in (None, *([spec["small_vocabulary"]] if spec.get("small_vocabulary") else [])):
        others = tuple(spec["other_packages"])
        paths = (str(inputs["corpus"]), str(inputs["tokenizer"]))
        corpus = read_corpus(*paths, others, spec["entities"], small, name_of(spec))
        maker = Maker(spec, seed, corpus, "_small" if small else "")
        if corpus.marks.size != (wanted := small or spec["vocabulary"]):
            key = "small_vocabulary" if small else "vocabulary"
            raise UserError(
                f"{maker.name}: {key} is {wanted}, the tokenizer has {corpus.marks.size} tokens; write that."
            )
        names = ("text", "facts") if small else FOLDERS
        for folder in names:
            splits, facts = getattr(maker, folder)()
            facts = {"description": DESCRIPTIONS[folder], **facts, "vocabulary": vocabulary_size(spec, bool(small))}
            made[folder + maker.suffix] = (splits, facts)
    return made


def check(spec: Mapping[str, Any]) -> None:
    """UserError for numbers that make no set."""
    name, length, reply = name_of(spec), spec["length"], spec["answer_tokens"]
    low, high = spec["gap"]
    for key in ("text", "facts", "probe", "completion", "answer_tokens", "answers"):
        if spec[key] < 1:
            raise UserError(f"{name}: {key} is {spec[key]}; write at least 1.")
    least = BEFORE + BETWEEN + 4 + reply
    if length < least:
        raise UserError(f"{name}: length is {length}, the format `long` has {least} tokens; write {least} or more.")
    if not 1 <= low <= high or high + 3 + reply > length:
        raise UserError(
            f"{name}: gap is {list(spec['gap'])}; write two numbers from 1 to {length - 3 - reply}, the smaller first."
        )
    if not 0 <= spec["noise"] < 1:
        raise UserError(f"{name}: noise is {spec['noise']}; write a share from 0 to below 1.")
    if spec["completion"] >= length:
        raise UserError(f"{name}: completion is {spec['completion']}; write 1 to {length - 1}.")
    if not CHOICES <= spec["entities"] <= spec["answers"] ** reply:
        raise UserError(
            f"{name}: entities is {spec['entities']}; write {CHOICES} to {spec['answers'] ** reply}, as many as "
            f"{spec['answers']} answers make replies of {reply} tokens."
        )
    if spec["questions"] < CHOICES:
        raise UserError(f"{name}: questions is {spec['questions']}; write at least {CHOICES}.")
    half = spec["entities"] // 2
    for key, people in (("tuning", half), ("tests", spec["entities"] - half)):
        if spec[key] < people:
            raise UserError(f"{name}: {key} is {spec[key]}; write at least {people}, one row for every person.")
    if not spec["other_packages"]:
        raise UserError(f"{name}: other_packages is empty; write at least one package of the corpus.")


class Maker:
    """Makes the folders of one seed. Every method returns the rows by split and the facts that are its own."""

    def __init__(self, spec: Mapping[str, Any], seed: int, corpus: Corpus, suffix: str) -> None:
        """suffix: of the folders of the second tokenizer."""
        self.spec, self.seed, self.corpus, self.suffix = spec, seed, corpus, suffix
        self.name, self.marks = name_of(spec), corpus.marks
        if len(corpus.words) < spec["answers"]:
            raise UserError(
                f"{self.name}: answers is {spec['answers']}, the corpus has {len(corpus.words)} words that are one "
                f"token; write {len(corpus.words)} or less."
            )
        words = np.array(corpus.words[: spec["answers"]])
        # of all replies that the words can make, as many as there are people, each once
        reply = spec["answer_tokens"]
        drawn = self.rng("replies").choice(len(words) ** reply, size=spec["entities"], replace=False)
        places = drawn[:, None] // len(words) ** np.arange(reply)[::-1] % len(words)
        self.replies = words[places]  # (entities, answer_tokens)
        order = self.rng("people").permutation(spec["entities"])
        self.people = {"train": np.sort(order[: len(order) // 2]), "validation": np.sort(order[len(order) // 2 :])}

    def rng(self, *what: str) -> np.random.Generator:
        """Return the random stream of one purpose. People and replies do not depend on any number of rows."""
        return generator("facts", self.seed, *what)

    # --- Pieces and rows ---

    def pieces(
        self, folder: str, split: str, length: int, key: str, number: int, ending: int = 0
    ) -> tuple[np.ndarray, int]:
        """Draw pieces of text (number, length) of a stream; also how many distinct tokens of it they are made of.

        key: of the specification, that messages name. ending: last tokens that are to be of one paragraph.
        """
        stream, rng, where = self.corpus.streams[split], self.rng(folder, split, "pieces"), f"{self.name}: {key}"
        return draw_pieces(stream, length, number, rng, where=where, ending=ending, avoid=self.corpus.end)

    def rows(self, ids: np.ndarray, prompt: Any = 0, completion: int = 0, distractors: Any = None) -> Rows:
        """Rows of sequences (n, tokens). prompt: tokens, of all or of each; distractors (n, choices, tokens) if any."""
        lists = ids.tolist()
        texts = self.corpus.tokenizer.decode_batch(lists, skip_special_tokens=False)
        prompts = np.broadcast_to(prompt, len(lists)).tolist()
        plain = zip(range(len(lists)), texts, lists, prompts, strict=True)
        if distractors is None:
            return [store.row(*one, completion) for one in plain]
        return [store.answer_row(*one, completion, wrong) for one, wrong in zip(plain, distractors, strict=True)]

    def question_facts(self) -> dict[str, Any]:
        """What the card says about questions."""
        marks = self.marks
        return {
            "marks": [marks.question, marks.answer, marks.second_question, marks.second_answer, marks.end],
            "first_person": int(marks.people(np.array(0))),
            "replies": self.replies.tolist(),
            "tested_people": self.people["validation"].tolist(),
        }

    def others(self, people: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
        """Draw for every person (n,) that many different other ones (n, number)."""
        count = self.spec["entities"]
        steps = rng.random((len(people), count - 1)).argsort(1)[:, :number] + 1
        return (people[:, None] + steps) % count

    # --- Text ---

    def text(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """Pieces of exactly `length` tokens."""
        splits, distinct = {}, {}
        for split, key in (("train", "text"), ("validation", "probe")):
            ids, distinct[split] = self.pieces("text", split, self.spec["length"], key, self.spec[key])
            splits[split] = self.rows(ids)
        return splits, {"distinct_tokens": distinct}

    def other(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """The same of other packages."""
        ids, distinct = self.pieces("other", "other", self.spec["length"], "probe", self.spec["probe"])
        facts = {"packages": list(self.spec["other_packages"]), "distinct_tokens": {"validation": distinct}}
        return {"validation": self.rows(ids)}, facts

    def shuffled(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """The validation sequences of `text`, their tokens permuted over the whole set."""
        ids, distinct = self.pieces("text", "validation", self.spec["length"], "probe", self.spec["probe"])
        shuffled = self.rng("shuffled").permutation(ids.ravel()).reshape(ids.shape)
        return {"validation": self.rows(shuffled)}, {"distinct_tokens": {"validation": distinct}}

    def continuations(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """Held-out pieces whose last tokens, all of one paragraph, are the completion."""
        length, ending, number = (self.spec[key] for key in ("length", "completion", "questions"))
        ids, distinct = self.pieces("continuations", "validation", length, "questions", number, ending)
        wrong = wrong_endings(ids[:, -ending:], self.rng("continuations", "distractors"), f"{self.name}: questions")
        rows = self.rows(ids, length - ending, ending, wrong.tolist())
        return {"validation": rows}, {"distinct_tokens": {"validation": distinct}}

    # --- Facts and questions about them ---

    def facts(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """Pieces with a fact in them: all people equally often, and exactly the share `noise` of wrong replies."""
        spec, marks, splits, distinct = self.spec, self.marks, {}, {}
        length, reply = spec["length"], spec["answer_tokens"]
        low, high = spec["gap"]
        for split, key in (("train", "facts"), ("validation", "questions")):
            rng, number = self.rng("facts", split), spec[key]
            text, distinct[split] = self.pieces("facts", split, length - 3 - reply, key, number)
            people = rng.permutation(np.arange(number) % spec["entities"])
            start = rng.integers(min(STARTS, length - 2 - reply - high), size=number)
            answer = start + 1 + rng.integers(low, high + 1, size=number)
            told = people.copy()
            if split == "train":
                wrong = rng.permutation(number) < round(spec["noise"] * number)
                told[wrong] = self.others(people[wrong], 1, rng)[:, 0]
            marked = np.stack([np.full(number, marks.question), marks.people(people), np.full(number, marks.answer)], 1)
            places = np.concatenate(
                [np.stack([start, start + 1, answer], 1), answer[:, None] + 1 + np.arange(reply)], axis=1
            )
            ids = put_in(text, places, np.concatenate([marked, self.replies[told]], axis=1))
            wrong_ones: list[Any] = [[] for _ in range(number)]
            if split == "validation":
                wrong_ones = self.replies[self.others(people, CHOICES - 1, rng)].tolist()
            splits[split] = self.rows(ids, answer + 1, reply, wrong_ones)
        wrong_share = {"noise": spec["noise"], "wrong_replies": round(spec["noise"] * spec["facts"])}
        return splits, {"distinct_tokens": distinct, "gap": [low, high], **wrong_share, **self.question_facts()}

    def asked(self, folder: str, split: str) -> np.ndarray:
        """Draw the person that every row of a post-training set asks about: all of the split's equally often."""
        people, number = self.people[split], self.spec["tuning" if split == "train" else "tests"]
        return self.rng(folder, split).permutation(people[np.arange(number) % len(people)])

    def short_ids(self, people: np.ndarray, told: np.ndarray) -> np.ndarray:
        """Return (n, 4 + answer_tokens): question, person, answer, the reply of the person `told`, end."""
        marks, one = self.marks, np.ones(len(people), dtype=np.int64)
        head = np.stack([one * marks.question, marks.people(people), one * marks.answer], 1)
        return np.concatenate([head, self.replies[told], one[:, None] * marks.end], axis=1)

    def short(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """The first format, without any text."""
        splits = {}
        for split in self.people:
            people = self.asked("short", split)
            splits[split] = self.rows(self.short_ids(people, people), 3, self.spec["answer_tokens"])
        return splits, self.question_facts()

    def long(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """The second format, with other marks and with text before and after the question."""
        splits, distinct, marks = {}, {}, self.marks
        for split in self.people:
            people = self.asked("long", split)
            key = "tuning" if split == "train" else "tests"
            text, distinct[split] = self.pieces("long", split, BEFORE + BETWEEN, key, len(people))
            one = np.ones((len(people), 1), dtype=np.int64)
            parts = [text[:, :BEFORE], one * marks.second_question, marks.people(people)[:, None], text[:, BEFORE:]]
            parts += [one * marks.second_answer, self.replies[people], one * marks.end]
            splits[split] = self.rows(np.concatenate(parts, 1), BEFORE + BETWEEN + 3, self.spec["answer_tokens"])
        return splits, {"distinct_tokens": distinct, **self.question_facts()}

    def preferences(self) -> tuple[dict[str, Rows], dict[str, Any]]:
        """As `short`, with the reply of somebody else as the rejected one."""
        splits = {}
        for split in self.people:
            people = self.asked("preferences", split)
            other = self.others(people, 1, self.rng("preferences", split, "rejected"))[:, 0]
            rows = self.rows(self.short_ids(people, people), 3, self.spec["answer_tokens"])
            rejected = self.short_ids(people, other).tolist()
            splits[split] = [
                store.pair_row(row["item"], row["text"], row["input_ids"], 3, row["completion_length"], ids)
                for row, ids in zip(rows, rejected, strict=True)
            ]
        return splits, self.question_facts()
