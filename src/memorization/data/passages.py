"""Passages to memorize, background and held-out text for `tokenswap`, cut from one corpus of running text.

A passage is a prefix and a suffix of fixed numbers of tokens. Candidates and filters follow the rules by which
memorized sequences are mined from a real training set (Chang et al.'s MemPi, which `tokenswap`, sec. 4.2 uses): enough
distinct tokens in the suffix, and no two passages that share many 5-grams. No background or held-out sequence shares a
long n-gram with a passage, so what a model knows of a passage it learned from the passage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data.patterns import generator, nearest
from memorization.data.text import TextItem
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAIN, HELD_OUT = ("train",), ("validation", "held_out")
SPACES = ("\u0120", "\u2581")  # how byte-level BPE and SentencePiece write the space that starts a word
UNIQUE_TOKENS = 16  # distinct tokens in a suffix, but no more than half of a short one
JACCARD, JACCARD_ORDER = 0.05, 5  # two passages share less than this of their 5-grams
OVERLAP = 12  # tokens in a row that no other sequence shares with a passage
SHORTEST = 4  # rests shorter than a 4th of a sequence are left out: they would be mostly padding


@dataclass(frozen=True)
class PassageItem(TextItem):
    """A text, its tokens, and where it is from. `prompt_length` is 0 but for passages."""

    package: str
    module: str


@dataclass(frozen=True)
class Corpus:
    """A corpus, encoded once. T tokens, P paragraphs, S streams; the paragraphs of a stream follow each other.

    A stream is the running text of one module within one split.
    """

    tokenizer: "Tokenizer"
    ids: np.ndarray  # (T,) int64
    word_starts: np.ndarray  # (T,) bool: the token begins with a space
    paragraphs: np.ndarray  # (P + 1,) offsets into ids
    streams: np.ndarray  # (P,) stream of a paragraph, rising
    packages: tuple[str, ...]  # (P,)
    modules: tuple[str, ...]  # (P,)
    splits: tuple[str, ...]  # (P,)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Return the offsets of the streams into ids, (S + 1,)."""
        first = np.flatnonzero(np.diff(self.streams, prepend=-1))
        return self.paragraphs[np.append(first, len(self.streams))]

    def origin(self, token: int) -> tuple[str, str]:
        """Return package and module of the paragraph that holds the token at this offset."""
        paragraph = int(np.searchsorted(self.paragraphs, token, side="right")) - 1
        return self.packages[paragraph], self.modules[paragraph]


class Drawn(dict[str, list[PassageItem]]):
    """The sets of one seed by name, and what `describe` reports besides."""

    candidates: dict[str, int]  # domain -> stretches that begin at a paragraph and end with a word
    dropped: dict[str, int]  # set -> sequences left out because they overlap a passage
    function_words: frozenset[int]  # ids


def prepare(rows: Sequence[Mapping[str, Any]], tokenizer: "Tokenizer") -> Corpus:
    """Encode a corpus.

    Parameters
    ----------
    rows: paragraphs with the columns text, module, split ("train", "validation" or "held_out") and, if the text
        is from several packages, package; those of one module one after the other.
    """
    if not rows:
        raise UserError("the corpus has no rows; make the text corpus first.")
    ordered: list[Mapping[str, Any]] = []
    streams: list[int] = []
    for split in (*TRAIN, *HELD_OUT):
        chosen = [row for row in rows if row["split"] == split]
        for _, paragraphs in groupby(chosen, key=lambda row: row["module"]):
            stream = list(paragraphs)
            streams += [streams[-1] + 1 if streams else 0] * len(stream)
            ordered += stream
    # the leading space makes the first word a token like all others
    encodings = tokenizer.encode_batch([f" {row['text']}" for row in ordered], add_special_tokens=False)
    pieces = [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]
    ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    begins = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    begins[[number for token, number in tokenizer.get_vocab().items() if token.startswith(SPACES)]] = True
    return Corpus(
        tokenizer=tokenizer,
        ids=ids,
        word_starts=begins[ids],
        paragraphs=np.cumsum([0, *map(len, pieces)]),
        streams=np.asarray(streams, dtype=np.int64),
        packages=tuple(str(row.get("package", "")) for row in ordered),
        modules=tuple(str(row["module"]) for row in ordered),
        splits=tuple(str(row["split"]) for row in ordered),
    )


def make(rows: Sequence[Mapping[str, Any]], tokenizer: "Tokenizer", **settings: Any) -> Drawn:
    """Encode a corpus and draw from it: `prepare`, then `draw` with these settings."""
    return draw(prepare(rows, tokenizer), **settings)


def draw(
    corpus: Corpus,
    *,
    seed: int,
    domains: Mapping[str, Sequence[str]],
    passages: int,
    prefix: int,
    suffix: int,
    length: int,
    background: int,
    held_out: int,
    overlap: int = OVERLAP,
    min_unique: int | None = None,
    others: Sequence[Sequence[int]] = (),
) -> Drawn:
    """Draw the sets "passages_<domain>", "background" and "held_out" of one seed.

    Passages begin with a paragraph of the train split, go on into the next paragraphs of the module if need be,
    and their prefix and suffix end with a whole word. They do not overlap, no two have the same prefix, and the
    5-gram Jaccard similarity of any two, also across domains, is below `JACCARD`. Background is the rest of the
    train split and held-out text the other splits, cut into whole words.

    Parameters
    ----------
    domains: domain -> its packages; all packages where the list is empty.
    passages: passages in each domain, exactly.
    prefix, suffix: tokens.
    length: most tokens of a background or held-out sequence. None is shorter than a fourth of it.
    background, held_out: most sequences; fewer if the corpus has no more.
    overlap: background and held-out sequences that share so many tokens in a row with a passage are left out.
    min_unique: fewest distinct tokens in a suffix; if None, 16 or half the suffix, whichever is smaller.
    others: token ids of passages from elsewhere, which background and held-out text may not overlap either.

    Raises
    ------
    UserError: a package that the corpus lacks or two domains share; too few passages; no other text left.
    """
    numbers = {"passages": passages, "prefix": prefix, "suffix": suffix, "length": length, "overlap": overlap}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name} is {value}; write at least 1.")
    if domains or not others:
        _check_domains(domains, corpus)
    least = min(UNIQUE_TOKENS, suffix // 2) if min_unique is None else min_unique
    total = prefix + suffix
    drawn = Drawn()
    drawn.candidates, drawn.dropped = {}, {}
    drawn.function_words = function_word_ids(corpus.tokenizer)
    chosen = Chosen(corpus, prefix, total, least)
    for domain, packages in domains.items():
        starts = candidates(corpus, packages, prefix, suffix)
        drawn.candidates[domain] = len(starts)
        taken = chosen.take(generator("passages", seed, domain).permutation(starts), passages)
        if len(taken) < passages:
            raise UserError(
                f"the corpus gives only {len(taken)} passages of {prefix} + {suffix} tokens for the domain {domain!r}, "
                f"not {passages}; write passages: {len(taken)}, a shorter suffix, or more packages for it."
            )
        drawn[f"passages_{domain}"] = _items(corpus, [(start, start + total) for start in taken], prefix)
    parts = [corpus.ids[start : start + total] for start in chosen.starts]
    parts += [np.asarray(ids, dtype=np.int64) for ids in others]
    shared = overlapping(corpus.ids, parts, overlap)
    for name, splits, most in (("background", TRAIN, background), ("held_out", HELD_OUT, held_out)):
        spans = list(sequences(corpus, splits, chosen.covered, length))
        # a window of `overlap` tokens lies within a span if it starts before the last overlap - 1 tokens
        kept = [span for span in spans if not shared[span[0] : max(span[0], span[1] - overlap + 1)].any()]
        drawn.dropped[name] = len(spans) - len(kept)
        if most and not kept:
            raise UserError(
                f"the corpus leaves no {name} sequence of {length} tokens; write a shorter length or fewer passages."
            )
        order = generator("passages", seed, name).permutation(len(kept))[:most]
        drawn[name] = _items(corpus, [kept[int(place)] for place in order], 0)
    return drawn


def candidates(corpus: Corpus, packages: Sequence[str], prefix: int, suffix: int) -> np.ndarray:
    """Return the token offsets at which a passage may begin, (n,) int64, in order of the text."""
    wanted = set(packages)
    usable = [
        split in TRAIN and (not wanted or package in wanted)
        for package, split in zip(corpus.packages, corpus.splits, strict=True)
    ]
    starts, ends = corpus.paragraphs[:-1], corpus.bounds[corpus.streams + 1]
    fits = np.asarray(usable, dtype=bool) & (starts + prefix + suffix <= ends)
    starts, ends = starts[fits], ends[fits]
    after = starts + prefix + suffix
    whole = np.append(corpus.word_starts, True)  # the place after the last token
    return starts[whole[starts + prefix] & ((after == ends) | whole[after])]


class Chosen:
    """The passages chosen so far, and what they rule out."""

    def __init__(self, corpus: Corpus, prefix: int, total: int, min_unique: int) -> None:
        self.ids, self.prefix, self.total, self.min_unique = corpus.ids, prefix, total, min_unique
        self.covered = np.zeros(len(corpus.ids), dtype=bool)  # (T,) tokens of passages
        self.starts: list[int] = []
        self._prefixes: set[tuple[int, ...]] = set()
        self._sizes: list[int] = []  # number of distinct 5-grams
        self._holders: dict[tuple[int, ...], list[int]] = {}  # 5-gram -> passages

    def take(self, order: np.ndarray, count: int) -> list[int]:
        """Take the first `count` offsets of `order` that pass all filters; fewer if there are no more."""
        taken: list[int] = []
        for start in map(int, order):
            if len(taken) == count:
                break
            if self._add(start):
                taken.append(start)
        self.starts += taken
        return taken

    def _add(self, start: int) -> bool:
        span = slice(start, start + self.total)
        ids = tuple(self.ids[span].tolist())
        head, tail = ids[: self.prefix], ids[self.prefix :]
        if self.covered[span].any() or head in self._prefixes or len(set(tail)) < self.min_unique:
            return False
        grams = {ids[i : i + JACCARD_ORDER] for i in range(len(ids) - JACCARD_ORDER + 1)}
        common: dict[int, int] = {}
        for gram in grams:
            for holder in self._holders.get(gram, ()):
                common[holder] = common.get(holder, 0) + 1
        if any(n >= JACCARD * (len(grams) + self._sizes[holder] - n) for holder, n in common.items()):
            return False
        for gram in grams:
            self._holders.setdefault(gram, []).append(len(self._sizes))
        self._sizes.append(len(grams))
        self._prefixes.add(head)
        self.covered[span] = True
        return True


def overlapping(ids: np.ndarray, parts: Sequence[np.ndarray], order: int) -> np.ndarray:
    """Say for each place whether the n-gram of `order` tokens that begins there occurs in one of the parts.

    (T,) int64 -> (T,) bool; False for the last order - 1 places. N-grams are compared by a 64-bit hash.
    """
    factors = generator("ngram", order).integers(1, 2**63, size=order, dtype=np.uint64)

    def hashes(stream: np.ndarray) -> np.ndarray:
        n = max(0, len(stream) - order + 1)
        found = np.zeros(n, dtype=np.uint64)
        for place, factor in enumerate(factors):  # wraps around
            found += (stream[place : place + n].astype(np.uint64) + np.uint64(1)) * factor
        return found

    known = np.concatenate([hashes(part) for part in parts]) if parts else np.zeros(0, dtype=np.uint64)
    found = np.isin(hashes(ids), known)
    return np.append(found, np.zeros(len(ids) - len(found), dtype=bool))


def sequences(corpus: Corpus, splits: Sequence[str], covered: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    """Cut the text of the splits, without the covered tokens, into spans (begin, end) of at most `length` tokens.

    A span lies within one module, begins with a word and ends with one (unless a single word is longer than
    `length`). Rests of less than a fourth of `length` are left out.
    """
    places = np.arange(len(corpus.ids))
    last_start = np.maximum.accumulate(np.where(corpus.word_starts, places, 0))
    first = np.flatnonzero(np.diff(corpus.streams, prepend=-1))
    for stream, paragraph in enumerate(first):
        if corpus.splits[paragraph] not in splits:
            continue
        begin, end = int(corpus.bounds[stream]), int(corpus.bounds[stream + 1])
        # places where covered text begins or ends
        edges = np.flatnonzero(np.diff(covered[begin:end].astype(np.int8), prepend=1, append=1)) + begin
        for piece, stop in edges.reshape(-1, 2).tolist():
            while piece < stop:
                cut = min(piece + length, stop)
                if cut < stop and last_start[cut] > piece:
                    cut = int(last_start[cut])
                if cut - piece >= length / SHORTEST:
                    yield piece, cut
                piece = cut


def reencode(items: Sequence[PassageItem], tokenizer: "Tokenizer", length: int) -> list[PassageItem]:
    """Encode the same texts with another tokenizer, for a model with another vocabulary.

    Item i of the result is item i of `items`, cut after the last whole word within `length` tokens; a `length` above
    that of the items keeps all text even where the other vocabulary is smaller. Only for items without a prompt.
    """
    if any(item.prompt_length for item in items):
        raise UserError("reencode takes background or held-out sequences; a prompt would get another length.")
    result = []
    for item, encoding in zip(
        items, tokenizer.encode_batch([item.text for item in items], add_special_tokens=False), strict=True
    ):
        ids, text = encoding.ids, item.text
        if len(ids) > length:
            cuts = [place for place in range(1, length + 1) if encoding.tokens[place].startswith(SPACES)]
            ids = ids[: cuts[-1] if cuts else length]
            text = tokenizer.decode(ids, skip_special_tokens=False)
        result.append(PassageItem(text, tuple(ids), 0, item.package, item.module))
    return result


def function_word_ids(tokenizer: "Tokenizer") -> frozenset[int]:
    """Return the ids of the 110 function words that are one token with a leading space (`tokenswap`, app. C.3)."""
    encodings = tokenizer.encode_batch([f" {word}" for word in FUNCTION_WORDS], add_special_tokens=False)
    return frozenset(encoding.ids[0] for encoding in encodings if len(encoding.ids) == 1)


def describe(drawn: Drawn) -> dict[str, Any]:
    """Return the facts of a data card: counts, tokens, modules and share of function words of every set."""
    sets = {}
    for name, items in drawn.items():
        tokens = [token for item in items for token in item.input_ids]
        share = sum(token in drawn.function_words for token in tokens) / max(len(tokens), 1)
        sets[name] = {
            "items": len(items),
            "tokens": len(tokens),
            "modules": len({item.module for item in items}),
            "function_word_share": round(share, 4),
        }
    return {
        "sets": sets,
        "candidates": dict(drawn.candidates),
        "dropped_for_overlap": dict(drawn.dropped),
        "function_words": len(drawn.function_words),
    }


def _items(corpus: Corpus, spans: Sequence[tuple[int, int]], prompt: int) -> list[PassageItem]:
    ids = [corpus.ids[begin:end].tolist() for begin, end in spans]
    texts = corpus.tokenizer.decode_batch(ids, skip_special_tokens=False)
    return [
        PassageItem(text, tuple(tokens), prompt, *corpus.origin(begin))
        for text, tokens, (begin, _) in zip(texts, ids, spans, strict=True)
    ]


def _check_domains(domains: Mapping[str, Sequence[str]], corpus: Corpus) -> None:
    known = sorted(set(corpus.packages))
    owner: dict[str, str] = {}
    if not domains:
        raise UserError("there is no domain; write at least one with its packages.")
    for domain, packages in domains.items():
        for package in packages:
            if package not in known:
                raise UserError(f"domain {domain!r}: the corpus has no package {package!r}; {nearest(package, known)}")
            if owner.setdefault(package, domain) != domain:
                raise UserError(
                    f"domains {owner[package]!r} and {domain!r} share {package!r}; write it in one of them."
                )
