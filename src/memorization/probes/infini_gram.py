"""Infini-gram language model: n-grams of unbounded length over token ids, by a suffix array (Liu et al. 2024).

P(token | context) = count(suffix + token) / count(suffix); suffix is the longest suffix of the context that occurs in
the training sequences. It may be empty: then its count is that of all tokens. The end of a sequence counts as one more
token, so probabilities over the vocabulary and the end sum to 1, and a suffix that occurs only at the end of sequences
gives every token 0. No match reaches from one sequence into another. The package `infini_gram` counts in the same way;
`memorization.probes.infini_gram_engines` asks it over an index on disk or over the network, with the same methods.

Memory of `InfiniGram`, bytes a token: to build, about 14 with a vocabulary up to 65,535 (1e8 tokens: 1.4 GB), 20 with
a larger one; to keep, 6 and 8. From 2^31 bytes of text on (1.07e9 tokens of 2 bytes, 7.2e8 of 3), the library sorts
with 64-bit positions, and building takes 22 and 32. Above that scale use the package.
"""

import json
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memorization.errors import UserError
from memorization.probes.distributional import joint_log_probability

Ids = Sequence[int] | np.ndarray
Question = tuple[Ids, Ids]  # prompt, answer
LARGEST_VOCABULARY = 2**32 - 1  # one value more marks the end of a sequence
CHUNK = 1 << 22


class Probability(NamedTuple):
    """Answer to one query, and what it was computed from."""

    probability: float
    suffix_length: int  # tokens of the context that were used
    context_count: int  # of that suffix
    token_count: int  # of that suffix followed by the token


class Probabilities(NamedTuple):
    """Answers to many queries: arrays of shape (queries,)."""

    probability: np.ndarray
    suffix_length: np.ndarray
    context_count: np.ndarray
    token_count: np.ndarray


class AnswerTokens(NamedTuple):
    """Answers for every answer token of many questions: token `token` of question `question`, in this order."""

    question: np.ndarray
    token: np.ndarray
    found: Probabilities


class Engine(ABC):
    """What the three sources of infini-gram probabilities share; they differ in `probability`."""

    @abstractmethod
    def probability(self, context: Ids, token: int) -> Probability:
        """Probability of a token behind a context, which may be empty."""

    def probabilities(self, contexts: Sequence[Ids], tokens: Ids) -> Probabilities:
        """`probability` of every pair (contexts[i], tokens[i])."""
        return together([self.probability(context, int(token)) for context, token in pairs_of(contexts, tokens)])

    def answers(self, questions: Sequence[Question]) -> AnswerTokens:
        """Probability of every answer token of every question (prompt, answer), given all that stands before it."""
        question, token = _places(questions)
        whole = [join(prompt, answer) for prompt, answer in questions]
        begins = np.array([len(prompt) for prompt, _ in questions], dtype=np.int64)
        at = begins[question] + token
        contexts = [whole[q][:place] for q, place in zip(question.tolist(), at.tolist(), strict=True)]
        tokens = np.array([whole[q][place] for q, place in zip(question.tolist(), at.tolist(), strict=True)], dtype=int)
        return AnswerTokens(question, token, self.probabilities(contexts, tokens))

    def answer_probabilities(self, prompt: Ids, answer: Ids) -> Probabilities:
        """Probability of every token of one answer given the prompt and the answer so far, arrays (answer tokens,)."""
        return self.answers([(prompt, answer)]).found

    def joint(self, prompt: Ids, answer: Ids, zeros: str = "skip") -> float:
        """Joint log-probability (nats) of an answer; zeros: see `joint_log_probability`."""
        return joint_log_probability(self.answer_probabilities(prompt, answer).probability, zeros)


class InfiniGram(Engine):
    """Infini-gram language model over sequences in memory.

    The stream is stored backwards, so that a context is matched from its last token on: one pass over the suffix array
    finds the longest suffix. Every public query raises `UserError` for ids outside the vocabulary and for queries
    longer than all training sequences together.

    Parameters
    ----------
    sequences: token ids; a list of sequences, or an array (sequences, length). For a large corpus give arrays of a
        small integer type: they are held beside the index while it is built.
    vocabulary: ids are below it; without it, the highest id in `sequences` is the last one.

    Raises
    ------
    UserError: no token; an id that is negative or not below `vocabulary`.
    """

    def __init__(self, sequences: Iterable[Ids] | np.ndarray, *, vocabulary: int | None = None) -> None:
        self._stream, self.vocabulary, self.sequences = _backward_stream(sequences, vocabulary)
        self._rows = suffix_array(self._stream)
        self._starts = _starts(self._stream, self.vocabulary)

    @property
    def tokens(self) -> int:
        """Training tokens, without the ends of sequences."""
        return len(self._stream) - self.sequences

    @property
    def nbytes(self) -> int:
        """Memory of the index in bytes."""
        return int(self._stream.nbytes + self._rows.nbytes + self._starts.nbytes)

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder: three .npy files and index.json."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for name in ("stream", "rows", "starts"):
            np.save(path / f"{name}.npy", getattr(self, f"_{name}"))
        (path / "index.json").write_text(
            json.dumps({"vocabulary": self.vocabulary, "sequences": self.sequences}) + "\n"
        )

    @classmethod
    def load(cls, folder: str | Path) -> "InfiniGram":
        """Open an index that `save` wrote; its files are mapped into memory, not read."""
        path, index = Path(folder), cls.__new__(cls)
        try:
            about = json.loads((path / "index.json").read_text())
            for name in ("stream", "rows", "starts"):
                setattr(index, f"_{name}", np.load(path / f"{name}.npy", mmap_mode="r"))
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is missing; give a folder that InfiniGram.save wrote.") from None
        index.vocabulary, index.sequences = int(about["vocabulary"]), int(about["sequences"])
        return index

    def counts(self, queries: Sequence[Ids]) -> np.ndarray:
        """Occurrences of n-grams in the training sequences, (queries,); that of the empty one is tokens + sequences."""
        flat, starts, stops = self._flat(queries)
        steps = stops - starts
        matched, low, high = self._walk(flat, stops - 1, steps)
        return np.where(matched == steps, high - low, 0)

    def count(self, ids: Ids) -> int:
        """`counts` of one n-gram."""
        return int(self.counts([ids])[0])

    def probability(self, context: Ids, token: int) -> Probability:
        """Probability of a token behind a context, which may be empty."""
        found = self.probabilities([context], [token])
        return Probability(*(column[0].item() for column in found))

    def probabilities(self, contexts: Sequence[Ids], tokens: Ids) -> Probabilities:
        """`probability` of every pair (contexts[i], tokens[i]), all at once."""
        flat, starts, stops = self._flat([join(context, [token]) for context, token in pairs_of(contexts, tokens)])
        return self._back_off(flat, starts, stops - 1)

    def answers(self, questions: Sequence[Question]) -> AnswerTokens:
        """Probability of every answer token of every question (prompt, answer), given all that stands before it."""
        question, token = _places(questions)
        flat, starts, _ = self._flat([join(prompt, answer) for prompt, answer in questions])
        begins = np.array([len(prompt) for prompt, _ in questions], dtype=np.int64)
        found = self._back_off(flat, starts[question], starts[question] + begins[question] + token)
        return AnswerTokens(question, token, found)

    def _back_off(self, flat: np.ndarray, start: np.ndarray, place: np.ndarray) -> Probabilities:
        """P(flat[place] | flat[start:place]) for arrays of starts and places."""
        length, low, high = self._walk(flat, place - 1, place - start)
        context = high - low
        matched, low, high = self._walk(flat, place, length + 1)
        token = np.where(matched == length + 1, high - low, 0)
        return Probabilities(token / context, length, context, token)

    def _walk(self, flat: np.ndarray, last: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, ...]:
        """Match flat[last], flat[last - 1], ... for up to `steps` tokens and as long as that occurs.

        Returns how many tokens matched, and the range of rows of the suffix array that begin with them.
        """
        if len(last) == 1:
            return tuple(np.array([value]) for value in self._walk_one(flat, int(last[0]), int(steps[0])))
        matched = np.zeros(len(last), dtype=np.int64)
        low, high = np.zeros_like(matched), np.full_like(matched, len(self._stream))
        going = np.flatnonzero(steps > 0)
        depth = 0
        while len(going):
            token = flat[last[going] - depth]
            if depth:
                below, above = self._narrow(low[going], high[going], depth, token)
            else:
                below, above = self._starts[token], self._starts[token + 1]
            there = above > below
            going = going[there]
            low[going], high[going] = below[there], above[there]
            depth += 1
            matched[going] = depth
            going = going[steps[going] > depth]
        return matched, low, high

    def _walk_one(self, flat: np.ndarray, last: int, steps: int) -> tuple[int, int, int]:
        """`_walk` for one query, some 50 times as fast as the arrays of one element would be."""
        stream, rows, everything = self._stream, self._rows, range(len(self._stream))
        low, high = 0, len(stream)
        for depth in range(steps):
            token = int(flat[last - depth])
            if depth:

                def behind(row: int, depth: int = depth) -> int:
                    return stream[rows[row] + depth]

                below = bisect_left(everything, token, low, high, key=behind)
                above = bisect_right(everything, token, below, high, key=behind)
            else:
                below, above = int(self._starts[token]), int(self._starts[token + 1])
            if below == above:
                return depth, low, high
            low, high = below, above
        return steps, low, high

    def _narrow(self, low: np.ndarray, high: np.ndarray, depth: int, token: np.ndarray) -> tuple[np.ndarray, ...]:
        """The part of rows low..high, which agree in `depth` tokens, that goes on with `token`: binary search for
        the first row with it and the first behind it. No row is too short: an end of sequence follows every token.
        """
        left, right = np.tile(low, 2), np.tile(high, 2)
        wanted = np.concatenate([token, token + 1])
        searching = np.flatnonzero(left < right)
        while len(searching):
            middle = (left[searching] + right[searching]) // 2
            less = self._stream[self._rows[middle] + depth] < wanted[searching]
            left[searching[less]] = middle[less] + 1
            right[searching[~less]] = middle[~less]
            searching = searching[left[searching] < right[searching]]
        return left[: len(low)], left[len(low) :]

    def _flat(self, queries: Sequence[Ids]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries one behind the other, (tokens,), and where each begins and ends."""
        rows = [join(query) for query in queries]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        if len(rows) and lengths.max() > self.tokens:
            raise UserError(
                f"a query of {lengths.max()} tokens is longer than the whole corpus ({self.tokens} tokens); "
                "give the training sequences of the model."
            )
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
        check_range(flat, self.vocabulary)
        stops = np.cumsum(lengths)
        return flat, stops - lengths, stops


def suffix_array(stream: np.ndarray, *, force64: bool = False) -> np.ndarray:
    """Positions of the suffixes of a stream of unsigned integers, (n,), in lexicographic order.

    Each number is written as the same number of bytes, highest first, so bytes compare as the numbers do; of the
    sorted suffixes of these bytes those that begin with a number are kept. force64: sort with 64-bit positions, as is
    done from 2^31 bytes on.
    """
    from pydivsufsort import divsufsort

    n = len(stream)
    width = max(1, (int(stream.max()).bit_length() + 7) // 8)
    text = np.empty((n, width), dtype=np.uint8)
    for byte in range(width):
        text[:, byte] = (stream >> (8 * (width - 1 - byte))).astype(np.uint8)
    rows = divsufsort(text.ravel(), force64=force64)
    del text
    kept = 0
    for start in range(0, len(rows), CHUNK):  # moved to the front in place: there may be no room for a second copy
        piece = rows[start : start + CHUNK]
        piece = piece[piece % width == 0] // width
        rows[kept : kept + len(piece)] = piece
        kept += len(piece)
    return rows[:n].astype(np.int32 if n < 2**31 else np.int64)  # a copy: the rest is freed


def _backward_stream(sequences: Iterable[Ids] | np.ndarray, vocabulary: int | None) -> tuple[np.ndarray, int, int]:
    """All sequences backwards, the last first, an end behind each; the vocabulary, whose size is the end's value; and
    the number of sequences. Empty sequences are left out.
    """
    matrix = sequences if isinstance(sequences, np.ndarray) and sequences.ndim == 2 else None
    rows = [as_ids(row) for row in ([matrix.reshape(-1)] if matrix is not None else sequences)]
    rows = [row for row in rows if len(row)]
    if not rows:
        raise UserError("the corpus is empty; give training sequences with at least one token.")
    size = 1 + max(int(row.max()) for row in rows) if vocabulary is None else int(vocabulary)
    for row in rows:
        check_range(row, size)
    kind = np.min_scalar_type(size)
    if matrix is not None:
        block = np.full((len(matrix), matrix.shape[1] + 1), size, dtype=kind)
        block[:, :-1] = matrix[::-1, ::-1]
        return block.ravel(), size, len(matrix)
    stream = np.full(sum(map(len, rows)) + len(rows), size, dtype=kind)
    place = 0
    for row in reversed(rows):
        stream[place : place + len(row)] = row[::-1]
        place += len(row) + 1
    return stream, size, len(rows)


def _starts(stream: np.ndarray, vocabulary: int) -> np.ndarray:
    """The first row of the suffix array for every token, (vocabulary + 2,)."""
    counts = np.zeros(vocabulary + 1, dtype=np.int64)
    for start in range(0, len(stream), CHUNK):
        counts += np.bincount(stream[start : start + CHUNK], minlength=vocabulary + 1)
    return np.concatenate([[0], np.cumsum(counts)])


def as_ids(ids: Ids) -> np.ndarray:
    """Token ids as an integer array (tokens,)."""
    array = np.asarray(ids)
    if array.ndim == 1 and not array.size:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError("token ids must be a list of integers; give one list for each sequence or query.")
    return array


def join(*parts: Ids) -> np.ndarray:
    """Lists of token ids one behind the other, (tokens,) int64."""
    return np.concatenate([as_ids(part).astype(np.int64) for part in parts])


def check_range(ids: np.ndarray, vocabulary: int) -> None:
    """Raise `UserError` for an id that is negative or not below `vocabulary`."""
    if vocabulary > LARGEST_VOCABULARY:
        raise UserError(f"a vocabulary of {vocabulary} ids is too large; write at most {LARGEST_VOCABULARY}.")
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise UserError(
            f"token id {wrong} is not among 0-{vocabulary - 1}; encode with the tokenizer of the corpus, or "
            "write the size of its vocabulary."
        )


def pairs_of(contexts: Sequence[Ids], tokens: Ids) -> list[tuple[Ids, int]]:
    """Contexts with their tokens; `UserError` if there are not as many."""
    if len(contexts) != len(tokens):
        raise UserError(
            f"there are {len(contexts)} contexts and {len(tokens)} tokens; give one token for each context."
        )
    return list(zip(contexts, tokens, strict=True))


def _places(questions: Sequence[Question]) -> tuple[np.ndarray, np.ndarray]:
    """Question and place in its answer of every answer token."""
    lengths = np.array([len(answer) for _, answer in questions], dtype=np.int64)
    if (lengths == 0).any():
        raise UserError(f"question {int(np.argmin(lengths))} has an empty answer; leave it out.")
    question = np.repeat(np.arange(len(questions)), lengths)
    return question, np.arange(len(question)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def together(found: Sequence[Probability]) -> Probabilities:
    """Answers to single queries as arrays."""
    columns = zip(*found, strict=True) if found else ((), (), (), ())
    kinds = (np.float64, np.int64, np.int64, np.int64)
    return Probabilities(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))
