"""The swap set G of TokenSwap: words that take the auxiliary model's probabilities (`tokenswap`, sec. 3, app. C.2-C.3).

A word is usable where a tokenizer writes it, with a leading space, as one token: " the". Between two vocabularies
words are matched one to one by their spelling, so the vocabularies themselves need no alignment.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from memorization.data.words import FUNCTION_WORDS, FUNCTION_WORDS_BY_CLASS
from memorization.errors import UserError

CLASSES = ("determiners", "pronouns", "coordinators", "prepositions", "wh-words", "modals", "auxiliaries")
OTHER = "other"  # the class of a word that is in none of our lists

# The paper gives the sizes of its smaller sets (9, 43, 66) but not their words. This order, from common to rare in
# general English, is ours; the named sets are its beginnings.
_ORDER = """
    the of and to a in that it is
    was for you he on with as they be we at this have are but from his by had she or an what can who their if all
    would her will do has my
    were when him been out your me about which like them some into could how than our did its because these where any
    those us over why should after through before being between does while may another around must both though during
    every without each off until used need whether since against might am within across among under along doing
    although himself themselves behind outside either having
    """
FREQUENCY_ORDER: tuple[str, ...] = tuple(_ORDER.split())
# The set of 136 is not published either: 26 further function words of our choice.
_FURTHER = {
    "determiners": "neither",
    "pronouns": "itself herself myself yourself ourselves",
    "coordinators": "nor",
    "prepositions": "toward above upon despite beyond throughout near inside below except unless per onto via",
    "wh-words": "whose whom whatever whenever",
    "modals": "shall",
}
FURTHER_WORDS: tuple[str, ...] = tuple(word for words in _FURTHER.values() for word in words.split())
NAMED_SIZES = (9, 43, 66, 110, 136)
_RENAMED = {"wh_words": "wh-words", "semi_modals": "modals"}

CLASS_OF: Mapping[str, str] = MappingProxyType(
    {word: _RENAMED.get(name, name) for name, words in FUNCTION_WORDS_BY_CLASS.items() for word in words}
    | {word: name for name, words in _FURTHER.items() for word in words.split()}
)


@dataclass(frozen=True)
class Coverage:
    """Which words of a swap set two tokenizers both write as one token.

    words: usable in both, in the set's order; main_ids, aux_ids: their token ids, aligned with `words`.
    in_main, in_aux: words that are one token in each tokenizer. missing: word -> why it is not used.
    """

    words: tuple[str, ...]
    main_ids: tuple[int, ...]
    aux_ids: tuple[int, ...]
    in_main: tuple[str, ...]
    in_aux: tuple[str, ...]
    missing: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.words)

    def __str__(self) -> str:
        lines = [f"{len(self.words)} of {len(self.words) + len(self.missing)} words are one token in both tokenizers"]
        return "\n".join(lines + [f"  {word}: {why}" for word, why in self.missing.items()])


@dataclass(frozen=True)
class SwapSet:
    """A set of words to swap; `classes` maps each word to its grammatical class (`CLASSES`, or "other").

    Raises UserError for an empty set and for words given twice.
    """

    name: str
    words: tuple[str, ...]
    classes: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.words:
            raise UserError(f"the swap set {self.name!r} is empty: give at least one word, such as 'the'")
        for word in self.words:
            if not isinstance(word, str) or not word or word != word.strip():
                raise UserError(f"the swap set {self.name!r} holds {word!r}: give words without spaces around them")
        twice = [word for word, count in Counter(self.words).items() if count > 1]
        if twice:
            raise UserError(f"the swap set {self.name!r} gives {', '.join(twice)} twice: give each word once")
        classes = {word: self.classes.get(word) or CLASS_OF.get(word, OTHER) for word in self.words}
        object.__setattr__(self, "words", tuple(self.words))
        object.__setattr__(self, "classes", MappingProxyType(classes))

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.classes

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "words": self.words, "classes": dict(self.classes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, MappingProxyType(value) if name == "classes" else value)

    @classmethod
    def named(cls, name: str) -> "SwapSet":
        """Return "english-110", the paper's set, or one of the nested "english-9", "-43", "-66", "-136".

        The words of the 110 are the paper's (app. C.3); those of the other sizes are not published, and are ours.
        """
        names = {f"english-{size}": size for size in NAMED_SIZES}
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0) or ["english-110"]
            raise UserError(
                f"no swap set is called {name!r}; did you mean {near[0]!r}? There are {', '.join(names)}; "
                "for words of your own write SwapSet.custom(words)"
            )
        size = names[name]
        if size == len(FUNCTION_WORDS):
            return cls(name, FUNCTION_WORDS)
        return cls(name, (FREQUENCY_ORDER + FURTHER_WORDS)[:size])

    @classmethod
    def custom(cls, words: Iterable[str], name: str = "custom") -> "SwapSet":
        """Return a set of any words, without their leading spaces."""
        if isinstance(words, str):
            raise UserError(f"a swap set takes a list of words, not the one string {words!r}: write ['the', 'of']")
        return cls(name, tuple(words))

    @classmethod
    def most_frequent(
        cls, k: int, counts: Mapping[str, int], *, among: "SwapSet | None" = None, name: str | None = None
    ) -> "SwapSet":
        """Return the `k` words with the largest counts, ties in alphabetical order.

        counts: word -> occurrences in a text. among: only words of this set.
        """
        known = sorted((word for word in counts if among is None or word in among), key=lambda w: (-counts[w], w))
        if not 0 < k <= len(known):
            raise UserError(f"the {k} most frequent of {len(known)} counted words: choose k from 1 to {len(known)}")
        return cls(name or f"most-frequent-{k}", tuple(known[:k]))

    @classmethod
    def union(cls, *sets: "SwapSet", name: str | None = None) -> "SwapSet":
        """Return all words of several sets; they must not overlap."""
        counts = Counter(word for each in sets for word in each.words)
        twice = [word for word, count in counts.items() if count > 1]
        if twice:
            raise UserError(f"the swap sets share {', '.join(twice)}: leave these words out of all sets but one")
        classes = {word: kind for each in sets for word, kind in each.classes.items()}
        return cls(name or "+".join(each.name for each in sets), tuple(counts), classes)

    def coverage(self, main_tokenizer: Any, aux_tokenizer: Any = None, *, strict: bool = False) -> Coverage:
        """Return which words both tokenizers write as one token after a space, and their ids in both.

        Tokenizers of `transformers` or of `tokenizers`; without `aux_tokenizer` both models share the main one.
        Words of several tokens, or unknown to a tokenizer, are left out and reported in `missing`;
        strict=True raises a UserError that names them. No usable word at all, or two words with one id, is an error.
        """
        pieces = {"main": {word: word_pieces(main_tokenizer, word) for word in self.words}}
        pieces["auxiliary"] = pieces["main"]
        if aux_tokenizer is not None and aux_tokenizer is not main_tokenizer:
            pieces["auxiliary"] = {word: word_pieces(aux_tokenizer, word) for word in self.words}
        single = {side: [word for word, ids in of.items() if len(ids) == 1] for side, of in pieces.items()}
        tokenizers = {"main": main_tokenizer, "auxiliary": aux_tokenizer or main_tokenizer}
        missing = {}
        for word in self.words:
            why = [
                _describe(tokenizers[side], of[word], side)
                for side, of in pieces.items()
                if len(of[word]) != 1 and not (side == "auxiliary" and of is pieces["main"])
            ]
            if why:
                missing[word] = "; ".join(why)
        words = tuple(word for word in self.words if word not in missing)
        if missing and strict:
            named = "; ".join(f"{word!r} {why}" for word, why in missing.items())
            raise UserError(f"not one token each: {named}. Leave these words out, or pass strict=False to drop them")
        if not words:
            raise UserError(
                f"no word of {self.name!r} is one token in both tokenizers ({next(iter(missing.items()))}, ...): "
                "give words that both vocabularies hold with a leading space"
            )
        ids = {side: tuple(of[word][0] for word in words) for side, of in pieces.items()}
        for side, values in ids.items():
            same = [word for word, i in zip(words, values, strict=True) if values.count(i) > 1]
            if same:
                raise UserError(f"the {side} tokenizer writes {', '.join(same)} as the same token: keep one of them")
        return Coverage(
            words, ids["main"], ids["auxiliary"], tuple(single["main"]), tuple(single["auxiliary"]), missing
        )

    def frequency(self, texts: Sequence[str], tokenizer: Any) -> float:
        """Return gamma: the share of the texts' tokens that are members of G, 0-1 (`tokenswap`, app. C.2)."""
        if isinstance(texts, str):
            texts = [texts]
        members = set(self.coverage(tokenizer).main_ids)
        counts = Counter(token for text in texts for token in encode(tokenizer, text))
        total = sum(counts.values())
        if not total:
            raise UserError("the texts hold no token: give at least one text that is not empty")
        return sum(counts[token] for token in members) / total


def encode(tokenizer: Any, text: str) -> list[int]:
    """Return token ids of `text` without special tokens, from a `transformers` or a `tokenizers` tokenizer."""
    encoded = tokenizer.encode(text, add_special_tokens=False)
    return list(getattr(encoded, "ids", encoded))


def word_pieces(tokenizer: Any, word: str) -> list[int]:
    """Return the token ids of `word` after a space; an unknown word gives none.

    A tokenizer that puts a space of its own before every text doubles the given one: there, what the word adds to a
    one-letter text is taken instead.
    """
    ids = encode(tokenizer, f" {word}")
    if len(ids) != 1:
        alone, after = encode(tokenizer, "x"), encode(tokenizer, f"x {word}")
        if after[: len(alone)] == alone and len(after) == len(alone) + 1:
            ids = after[-1:]
    return [] if _unknown(tokenizer) & set(ids) else ids


def _unknown(tokenizer: Any) -> set[int]:
    """Ids that stand for unknown words: the tokenizer's, and its model's, which may be set without the other."""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    model = getattr(fast, "model", None)
    ids = {getattr(tokenizer, "unk_token_id", None), getattr(model, "unk_id", None)}
    if (token := getattr(model, "unk_token", None)) is not None:
        ids.add(fast.token_to_id(token))
    return {i for i in ids if i is not None}


def _describe(tokenizer: Any, ids: list[int], side: str) -> str:
    if not ids:
        return f"is unknown to the {side} tokenizer"
    to_token = getattr(tokenizer, "convert_ids_to_tokens", None) or tokenizer.id_to_token
    pieces = " ".join(str(to_token(i)) for i in ids)
    return f"is {len(ids)} tokens in the {side} tokenizer ({pieces})"
