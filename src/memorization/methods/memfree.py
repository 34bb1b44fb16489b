"""MemFree decoding: never write a token that would complete an n-gram of the training data.

Ippolito et al. 2022 ("Preventing verbatim memorization in language models gives a false sense of privacy"); a
baseline of `tokenswap` (section 4, table 2). The index here is exact, where the original uses a Bloom filter: nothing
is forbidden by mistake.

n: `tokenswap` gives none; 10 is the original's own choice, as far as we know, and the default here.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import UserError
from memorization.methods.context import attention_mask, continues

if TYPE_CHECKING:
    import torch

NEEDS = frozenset({"token probabilities", "training data"})

DEFAULT_N = 10

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: a power of two would forget early tokens
_ROWS = 1 << 18  # windows compared at once, to bound memory


class NGramFilter:
    """All n-grams of a corpus, looked up by their first n - 1 tokens.

    A sorted array of 64-bit hashes of the prefixes finds candidates, and each candidate is compared token by token
    with the corpus, so hash collisions cost time and never change an answer. Memory: 16 bytes a distinct n-gram and
    4 a token of the corpus; building needs about 32 bytes an n-gram.
    """

    def __init__(self, tokens: np.ndarray, starts: np.ndarray, n: int) -> None:
        """tokens: (total,) the sequences one after another; starts: where an n-gram begins. Use `from_sequences`."""
        self.n = n
        self.tokens = tokens
        self.largest = int(tokens.max())
        keys = self._hash_at(starts)
        order = np.lexsort((tokens[starts + n - 1], keys))
        starts, keys = starts[order], keys[order]
        fresh = np.ones(len(starts), bool)  # equal n-grams are neighbours now; keep the first of each run
        for at in range(1, len(starts), _ROWS):
            now = np.arange(at, min(at + _ROWS, len(starts)))
            maybe = now[keys[now] == keys[now - 1]]
            window = np.arange(n)
            same = tokens[starts[maybe][:, None] + window] == tokens[starts[maybe - 1][:, None] + window]
            fresh[maybe[same.all(1)]] = False
        self.starts, self.keys = starts[fresh], keys[fresh]

    @classmethod
    def from_sequences(cls, token_id_sequences: Iterable[Any], n: int = DEFAULT_N) -> "NGramFilter":
        """Index every n-gram of `token_id_sequences` (lists, arrays or tensors of ids); none crosses two sequences.

        Sequences shorter than n hold no n-gram and add nothing.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 2:
            raise UserError(f"n = {n!r}: an n-gram needs a whole number n of at least 2 tokens")
        sequences = []
        for sequence in token_id_sequences:
            ids = np.asarray(sequence)
            if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0)):
                raise UserError("the n-gram filter wants one list of token ids (whole numbers >= 0) a sequence")
            if len(ids) >= n:
                sequences.append(ids.astype(np.int32))
        if not sequences:
            raise UserError(f"no sequence has {n} tokens, so there is no {n}-gram: give longer text or a smaller n")
        ends = np.cumsum([len(ids) for ids in sequences])
        inside = np.ones(int(ends[-1]), bool)
        for end in ends:
            inside[end - n + 1 : end] = False  # a window that begins here would run into the next sequence
        return cls(np.concatenate(sequences), np.flatnonzero(inside), int(n))

    def __len__(self) -> int:
        """Number of distinct n-grams."""
        return len(self.starts)

    def _hash_at(self, starts: np.ndarray) -> np.ndarray:
        keys = np.zeros(len(starts), np.uint64)
        for offset in range(self.n - 1):
            keys = _mixed(keys, self.tokens[starts + offset])
        return keys

    def forbidden(self, prefixes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (row (K,), token id (K,)): what may not follow each row of `prefixes` (rows, n - 1).

        A row that begins no n-gram of the corpus does not occur among the answers.
        """
        prefixes = np.asarray(prefixes)
        if prefixes.ndim != 2 or prefixes.shape[1] != self.n - 1:
            raise UserError(f"a prefix of this filter has {self.n - 1} tokens: give an array (rows, {self.n - 1})")
        keys = np.zeros(len(prefixes), np.uint64)
        for column in prefixes.T:
            keys = _mixed(keys, column)
        first = np.searchsorted(self.keys, keys, side="left")
        counts = np.searchsorted(self.keys, keys, side="right") - first
        rows = np.repeat(np.arange(len(prefixes)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = self.starts[first[rows] + within]
        true = np.ones(len(rows), bool)
        for offset in range(self.n - 1):
            true &= self.tokens[starts + offset] == prefixes[rows, offset]
        return rows[true], self.tokens[starts[true] + self.n - 1].astype(np.int64)

    def blocked(self, input_ids: "torch.Tensor", *, pad_token_id: int | None = None, first: int = 0) -> "torch.Tensor":
        """Return (batch, time) bool: the tokens of a given text that complete an n-gram of the corpus.

        first: n-grams that begin before this column do not count (0: all count; the prompt's length: only n-grams
        wholly inside the completion do). Left padding never belongs to an n-gram.
        """
        import torch

        ids = input_ids.cpu().numpy()
        out = np.zeros(ids.shape, bool)
        if ids.shape[1] >= self.n:
            windows = np.lib.stride_tricks.sliding_window_view(ids, self.n, axis=1)
            real = attention_mask(input_ids, pad_token_id).cpu().numpy().astype(bool)[:, : windows.shape[1]].copy()
            real[:, :first] = False
            row, column = np.nonzero(real)
            at, following = self.forbidden(windows[row, column, :-1])
            hit = at[following == windows[row[at], column[at], -1]]
            out[row[hit], column[hit] + self.n - 1] = True
        return torch.from_numpy(out).to(input_ids.device)


def _mixed(keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """One more token in the hash: a polynomial modulo 2^64, with the high bits folded into the low ones."""
    keys = (keys ^ tokens.astype(np.uint64)) * _MULTIPLIER
    return keys ^ (keys >> np.uint64(32))


class MemFreeProcessor:
    """Logits processor for `generate(logits_processor=[...])`: scores of forbidden tokens become -inf.

    At each step the tokens that would complete a training n-gram, given the last n - 1 tokens, are forbidden. Where
    that leaves no token with a finite score, the row keeps its scores: some token must be written.

    prompt_counts: True: an n-gram may begin in the prompt. False: only n-grams wholly inside the written part count;
    the first call of a generation says how long the prompt is. A generation has begun whenever the text is not the
    last text plus one token (or after `reset`).
    pad_token_id: the id of left padding, which is part of no n-gram; needed if prompts of a batch differ in length.

    It needs no base class: `generate` takes anything that is called with (input_ids, scores).
    """

    def __init__(
        self, ngram_filter: NGramFilter, *, prompt_counts: bool = True, pad_token_id: int | None = None
    ) -> None:
        """ngram_filter: the n-grams to avoid, in the ids of this model's tokenizer."""
        self.filter = ngram_filter
        self.prompt_counts = prompt_counts
        self.pad_token_id = pad_token_id
        self.reset()

    def reset(self) -> None:
        """Forget the text so far: the next call begins a generation."""
        self.previous: torch.Tensor | None = None
        self.prompt_length = 0

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """input_ids: (batch, time), scores: (batch, vocabulary) of the next token; returns new scores."""
        import torch

        if self.filter.largest >= scores.shape[-1]:
            raise UserError(
                f"the n-gram filter has token id {self.filter.largest}, the model only {scores.shape[-1]} tokens: "
                "build the filter with this model's tokenizer"
            )
        if not continues(self.previous, input_ids):
            self.prompt_length = input_ids.shape[1]
        self.previous = input_ids.clone()
        begin = input_ids.shape[1] - (self.filter.n - 1)  # where the n-gram now being completed begins
        if begin < (0 if self.prompt_counts else self.prompt_length):
            return scores
        whole = attention_mask(input_ids, self.pad_token_id)[:, begin].bool().cpu().numpy()
        rows = np.flatnonzero(whole)
        at, tokens = self.filter.forbidden(input_ids[:, begin:].cpu().numpy()[rows])
        if not len(at):
            return scores
        out = scores.clone()
        device = scores.device
        out[torch.from_numpy(rows[at]).to(device), torch.from_numpy(tokens).to(device)] = -torch.inf
        nothing_left = torch.isneginf(out).all(-1, keepdim=True)
        return torch.where(nothing_left, scores, out)

    def blocked(self, input_ids: "torch.Tensor", prompt_length: int = 0) -> "torch.Tensor":
        """Return (batch, time) bool, as `NGramFilter.blocked`, by this processor's own rule on prompts."""
        first = 0 if self.prompt_counts else prompt_length
        return self.filter.blocked(input_ids, pad_token_id=self.pad_token_id, first=first)
