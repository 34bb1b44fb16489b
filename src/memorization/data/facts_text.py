"""Pieces of a stream of tokens: drawn without text of the training stream, with tokens put in, with wrong endings."""

from dataclasses import dataclass

import numpy as np

from memorization.errors import UserError

NGRAM = 12  # tokens in a row that held-out text must not share with the training text
CHOICES = 4  # of a question: the right answer and three wrong ones


def ngram_hashes(ids: np.ndarray) -> np.ndarray:
    """Hash every `NGRAM` tokens in a row of ids (N,): (N - NGRAM + 1,) uint64, equal where the tokens are equal."""
    if len(ids) < NGRAM:
        return np.zeros(0, dtype=np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, NGRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    tokens, total = ids.astype(np.uint64), np.zeros(len(ids) - NGRAM + 1, dtype=np.uint64)
    for place, factor in enumerate(factors):
        total += tokens[place : place + len(total)] * factor  # modulo 2^64
    return total


@dataclass(frozen=True)
class Stream:
    """Token ids (N,) in a row. known: (N,) bool, whether `NGRAM` tokens that begin there are training text."""

    ids: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, trained: np.ndarray | None) -> "Stream":
        """Make a stream. trained: hashes of what it must not share; None for the training stream itself."""
        known = np.zeros(len(ids), dtype=bool)
        if trained is not None:
            hashes = ngram_hashes(ids)
            known[: len(hashes)] = np.isin(hashes, trained)
        return cls(ids, known)

    def usable(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Say which pieces of this length hold no training text."""
        if length < NGRAM:
            return np.ones(len(starts), dtype=bool)
        before = np.concatenate([[0], np.cumsum(self.known)])
        return before[starts + length - NGRAM + 1] == before[starts]


def draw_pieces(
    stream: Stream,
    length: int,
    number: int,
    rng: np.random.Generator,
    *,
    where: str,
    ending: int = 0,
    avoid: int = -1,
) -> tuple[np.ndarray, int]:
    """Draw pieces (number, length) of a stream in random order, no two from the same start.

    Pieces lie side by side, from a random first token on. If these are too few, further ones do from another first
    token, and so on, so that all tokens are used about equally often. Pieces that hold training text are left out, and
    so are those that have the token `avoid` among their last `ending` ones.

    Returns
    -------
    The pieces, and the number of different tokens of the stream that they hold.

    Raises
    ------
    UserError: the stream has too few pieces at all its tokens. where: what the message begins with.
    """
    chosen: list[np.ndarray] = []
    found = 0
    for first in rng.permutation(length).tolist():
        starts = np.arange(first, len(stream.ids) - length + 1, length)
        starts = starts[stream.usable(starts, length)]
        if ending:
            ends = stream.ids[starts[:, None] + np.arange(length - ending, length)]
            starts = starts[(ends != avoid).all(1)]
        chosen.append(rng.permutation(starts)[: number - found])
        found += len(chosen[-1])
        if found == number:
            break
    else:
        raise UserError(
            f"{where} asks for {number} pieces of {length} tokens, the text has {found}; write {found} or less."
        )
    starts = rng.permutation(np.concatenate(chosen))
    places = starts[:, None] + np.arange(length)
    covered = np.zeros(len(stream.ids), dtype=bool)
    covered[places] = True
    return stream.ids[places], int(covered.sum())


def put_in(text: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Put tokens (n, k) into texts (n, m) so that they stand at places (n, k) of the result (n, m + k)."""
    number, width = len(text), text.shape[1] + places.shape[1]
    free = np.ones((number, width), dtype=bool)
    np.put_along_axis(free, places, False, axis=1)
    mixed = np.empty((number, width), dtype=np.int64)
    mixed[free] = text.ravel()  # row by row, and every row has the same number of free places
    np.put_along_axis(mixed, places, tokens, axis=1)
    return mixed


def wrong_endings(endings: np.ndarray, rng: np.random.Generator, where: str) -> np.ndarray:
    """Draw for every ending (n, k) three others, different from it and from each other: (n, 3, k)."""
    unique, which = np.unique(endings, axis=0, return_inverse=True)
    if len(unique) < CHOICES:
        raise UserError(f"{where}: {len(unique)} endings differ; write a larger number, so that there are {CHOICES}.")
    steps = np.stack([rng.choice(len(unique) - 1, size=CHOICES - 1, replace=False) + 1 for _ in endings])
    return unique[(which.reshape(-1, 1) + steps) % len(unique)]
