"""Synthetic sequences of graded regularity, from counting to noise (`patterns`, sec. 3.1, A.1).

Every set is one flat function that draws one item. `make` turns it into a training and a validation split:

* training items are nested: the first k items of a larger split are the same items;
* no two training items share a prompt and differ in their completion, since no model could complete both.
  With the paper's 50-symbol prompts this never happens; with short prompts it would cap MIJ below an
  exact match of 1;
* no validation item has a prompt that occurs in training.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from memorization.errors import UserError

DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SEPARATOR, PAD = "<S>", "<pad>"
CHARACTERS = (*DIGITS, *LETTERS, ":", SEPARATOR, PAD)
ID_OF = {character: number for number, character in enumerate(CHARACTERS)}
SPLITS = ("train", "validation")
HELD_OUT_START = 7  # MI sequences that start with 7 are never trained on (sec. 4.3)
ATTEMPTS = 10_000  # draws for one item before we say that the request is too narrow

# Strings, not functions, so that the code digest of a run follows the one set it uses and no other.
KINDS = {
    "mi": "memorization.data.patterns:mi",
    "mij": "memorization.data.patterns:mij",
    "mijl": "memorization.data.patterns:mijl",
    "icm": "memorization.data.patterns:icm",
    "dynamic_icm": "memorization.data.patterns:dynamic_icm",
    "random_digits": "memorization.data.patterns:random_digits",
    "repeat_back": "memorization.data.patterns:repeat_back",
    "every_nth": "memorization.data.patterns:every_nth",
    "random_seed_lookup": "memorization.data.patterns:random_seed_lookup",
}


@dataclass(frozen=True)
class Item:
    """One sequence. The first `prompt_length` symbols are the prompt, the completion follows them."""

    symbols: tuple[str, ...]
    prompt_length: int


@dataclass(frozen=True)
class Frame:
    """What an item has to fit: its length, the tested window, and the data set and split it belongs to."""

    seed: int
    split: str
    length: int
    prompt: int
    completion: int


def encode(symbols: Sequence[str]) -> list[int]:
    """Return the position of every symbol in `CHARACTERS`; UserError for a symbol outside it."""
    unknown = [symbol for symbol in symbols if symbol not in ID_OF]
    if unknown:
        raise UserError(f"symbol {unknown[0]!r} is not in the character vocabulary; use 0-9, A-Z, ':' or '<S>'.")
    return [ID_OF[symbol] for symbol in symbols]


def decode(ids: Sequence[int]) -> tuple[str, ...]:
    """Return the symbols of `ids`, the inverse of `encode`."""
    return tuple(CHARACTERS[number] for number in ids)


def generator(*key: str | int) -> np.random.Generator:
    """Return the random stream that belongs to `key`, e.g. ("mij", 0, "train")."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def item_lengths(seed: int, n: int, lo: int, hi: int, split: str = "train") -> list[int]:
    """Draw n lengths, uniform on lo..hi; item i is as long in every set of a seed (`patterns`, fig. 5)."""
    return [int(length) for length in generator("lengths", seed, split).integers(lo, hi + 1, size=n)]


# --- The sets. Each function draws one item; the keywords after `frame` are what config may set. ---


def mi(rng: np.random.Generator, frame: Frame) -> Item:
    """Modular increment: each digit is the one before plus 1 mod 10. Only validation items start with 7."""
    start = HELD_OUT_START
    if frame.split == "train":
        start = int(rng.choice([digit for digit in range(10) if digit != HELD_OUT_START]))
    return Item(tuple(str((start + step) % 10) for step in range(frame.length)), frame.prompt)


def mij(
    rng: np.random.Generator,
    frame: Frame,
    *,
    jump_probability: float = 0.15,
    jump_in_completion: bool = True,
) -> Item:
    """Modular increment with jumps: with `jump_probability` the next digit is any but the successor.

    The paper does not say whether a jump may land on the successor; here it may not, so that a jump can be
    seen. `jump_in_completion` keeps only items that the rule alone does not complete: with completions of 10,
    .85^10 = 20 % of the items would need no memory at all.
    """
    return _mij_with_letters(rng, frame, jump_probability, jump_in_completion, letters_per_jump=0)


def mijl(
    rng: np.random.Generator,
    frame: Frame,
    *,
    jump_probability: float = 0.15,
    jump_in_completion: bool = True,
    letters_per_jump: int = 1,
) -> Item:
    """MIJ in which each jump digit is followed by letters that run through the alphabet from jump to jump.

    The first letter is random, Z is followed by A. Counting goes on after the letters: 90126K78902L.
    """
    if letters_per_jump not in (1, 2, 3):
        raise UserError(f"letters_per_jump is {letters_per_jump}; write 1, 2 or 3 (app. B.2).")
    return _mij_with_letters(rng, frame, jump_probability, jump_in_completion, letters_per_jump)


def _mij_with_letters(
    rng: np.random.Generator,
    frame: Frame,
    probability: float,
    jump_in_completion: bool,
    letters_per_jump: int,
) -> Item:
    check_probability("jump_probability", probability)
    if jump_in_completion and probability == 0:
        raise UserError(
            "jump_in_completion needs jumps; write a jump_probability above 0 or jump_in_completion: false."
        )
    window = range(frame.prompt, frame.prompt + frame.completion)
    for _ in range(ATTEMPTS):
        digit, letter = int(rng.integers(10)), int(rng.integers(26))
        symbols, jumps = [str(digit)], []
        while len(symbols) < frame.length:
            if rng.random() >= probability:
                digit = (digit + 1) % 10
                symbols.append(str(digit))
                continue
            digit = (digit + int(rng.integers(2, 11))) % 10  # +2 .. +10: any of the nine that do not succeed
            jumps.append(len(symbols))
            symbols.append(str(digit))
            for _ in range(letters_per_jump):
                symbols.append(LETTERS[letter])
                letter = (letter + 1) % 26
        if not jump_in_completion or any(jump in window for jump in jumps):
            return Item(tuple(symbols[: frame.length]), frame.prompt)
    raise UserError(f"jump_probability {probability} is so small that no completion has a jump; write a larger one.")


def icm(
    rng: np.random.Generator,
    frame: Frame,
    *,
    letters: int = 10,
    code_length: int = 3,
    letters_per_item: int = 3,
    string_length: int = 8,
) -> Item:
    """In-context map: `A:123<S>B:456<S>C:789<S>`, a random string of these letters, `<S>`, its transcription.

    One map of letters to distinct codes serves the whole data set (training and validation). Items have one
    fixed structure and ignore the shared lengths and the configured prompt: the prompt ends after the letter
    string and its separator, where the completion is determined. (With the paper's numbers a 50-symbol prompt
    would end inside the random string of a long item, against its validation exact match of 1.)
    """
    codes = code_map(generator("icm", frame.seed, "map"), letters, code_length)
    return _icm_item(rng, frame, codes, letters_per_item, string_length)


def dynamic_icm(
    rng: np.random.Generator,
    frame: Frame,
    *,
    letters: int = 10,
    code_length: int = 3,
    letters_per_item: int = 3,
    string_length: int = 8,
) -> Item:
    """ICM whose map is drawn anew for every item (sec. 4.3)."""
    return _icm_item(rng, frame, code_map(rng, letters, code_length), letters_per_item, string_length)


def code_map(rng: np.random.Generator, letters: int, code_length: int) -> dict[str, str]:
    """Give each of the first `letters` letters its own code of `code_length` digits."""
    if not 1 <= letters <= len(LETTERS):
        raise UserError(f"ICM letters is {letters}; write 1 to {len(LETTERS)}.")
    if code_length < 1 or letters > 10**code_length:
        raise UserError(f"{letters} letters have too few codes of code_length {code_length}; write a longer code.")
    codes = rng.choice(10**code_length, size=letters, replace=False)
    return {letter: f"{code:0{code_length}d}" for letter, code in zip(LETTERS, codes, strict=False)}


def _icm_item(
    rng: np.random.Generator, frame: Frame, codes: dict[str, str], letters_per_item: int, string_length: int
) -> Item:
    if not 1 <= letters_per_item <= len(codes):
        raise UserError(f"ICM letters_per_item is {letters_per_item}; the map has {len(codes)} letters.")
    transcription = string_length * len(next(iter(codes.values())))
    if frame.completion > transcription:
        raise UserError(
            f"ICM: completion {frame.completion} is longer than the transcription ({transcription} digits); "
            "write a larger string_length or code_length."
        )
    chosen = [str(letter) for letter in rng.choice(list(codes), size=letters_per_item, replace=False)]
    string = [str(letter) for letter in rng.choice(chosen, size=string_length)]
    prompt = [symbol for letter in chosen for symbol in (letter, ":", *codes[letter], SEPARATOR)]
    prompt += [*string, SEPARATOR]
    return Item((*prompt, *"".join(codes[letter] for letter in string)), len(prompt))


def random_digits(rng: np.random.Generator, frame: Frame) -> Item:
    """Independent uniform digits."""
    return Item(_digits(rng, frame.length), frame.prompt)


def repeat_back(rng: np.random.Generator, frame: Frame, *, n_back: int = 5, copy_probability: float = 0.10) -> Item:
    """Random digits; each is, with `copy_probability`, a copy of the one `n_back` positions before."""
    check_probability("copy_probability", copy_probability)
    if not 1 <= n_back < frame.length:
        raise UserError(f"n_back is {n_back}; write 1 to {frame.length - 1}, below the shortest item.")
    symbols = list(_digits(rng, frame.length))
    copies = rng.random(frame.length) < copy_probability
    for position in range(n_back, frame.length):
        if copies[position]:
            symbols[position] = symbols[position - n_back]
    return Item(tuple(symbols), frame.prompt)


def every_nth(rng: np.random.Generator, frame: Frame, *, period: int = 7, share: float = 0.10) -> Item:
    """Random digits; in a `share` of items one of the first `period` returns every `period` positions."""
    check_probability("share", share)
    if not 1 <= period < frame.length:
        raise UserError(f"period is {period}; write 1 to {frame.length - 1}, below the shortest item.")
    symbols = list(_digits(rng, frame.length))
    offset = int(rng.integers(period))
    if rng.random() < share:
        symbols[offset::period] = [symbols[offset]] * len(symbols[offset::period])
    return Item(tuple(symbols), frame.prompt)


def random_seed_lookup(rng: np.random.Generator, frame: Frame, *, seed_length: int = 30, window: int = 8) -> Item:
    """Random Seed Lookup: s random digits, then x_t = seed[(sum of the last m digits) mod s], counted from 0.

    s is `seed_length`, m is `window`. Items whose completion is a cycle are drawn again (`is_periodic`), or
    else copying the prompt would score on validation items without the rule.
    """
    if not 1 <= window <= seed_length:
        raise UserError(f"window is {window}; write 1 to {seed_length} (seed_length).")
    if seed_length > frame.prompt:
        raise UserError(
            f"seed_length {seed_length} is longer than the prompt ({frame.prompt}), so the completion "
            "is not determined by it; write a shorter seed_length or a longer prompt."
        )
    for _ in range(ATTEMPTS):
        symbols = lookup(_digits(rng, seed_length), window, frame.length)
        if not is_periodic(symbols, frame.prompt, frame.completion):
            return Item(symbols, frame.prompt)
    raise UserError(f"seed_length {seed_length} and window {window} give periodic completions only; write larger ones.")


def lookup(seed_digits: Sequence[str], window: int, length: int) -> tuple[str, ...]:
    """Continue `seed_digits` by the RSL rule to `length` digits; (1,3,8,2,0) with window 2 goes on 8,2,1."""
    symbols = list(seed_digits)
    while len(symbols) < length:
        symbols.append(seed_digits[sum(map(int, symbols[-window:])) % len(seed_digits)])
    return tuple(symbols[:length])


def is_periodic(symbols: Sequence[str], prompt: int, completion: int) -> bool:
    """Say whether the completion can be had by repetition alone.

    True if x_t = x_(t-q) over the whole completion for some q <= prompt (it repeats the last q symbols of the
    prompt), or if the completion by itself has a period q <= completion / 2 (a cycle that starts within it).
    """
    end = prompt + completion

    def repeats(q: int, start: int) -> bool:
        return all(symbols[t] == symbols[t - q] for t in range(start, end))

    continues_prompt = any(repeats(q, prompt) for q in range(1, prompt + 1))
    return continues_prompt or any(repeats(q, prompt + q) for q in range(1, completion // 2 + 1))


def _digits(rng: np.random.Generator, n: int) -> tuple[str, ...]:
    return tuple(str(digit) for digit in rng.integers(10, size=n))


# --- Splits ---


def make(
    kind: str,
    *,
    seed: int,
    train: int,
    validation: int,
    lengths: tuple[int, int],
    prompt: int,
    completion: int,
    **options: Any,
) -> dict[str, list[Item]]:
    """Draw the training and validation items of one data set.

    Parameters
    ----------
    kind: a key of `KINDS`.
    seed: of the data set; training and validation have streams of their own, seeded by (kind, seed, split).
    train, validation: numbers of items.
    lengths: smallest and largest item length (symbols); unused by ICM, see `icm`.
    prompt, completion: symbols shown and symbols to be completed.
    options: keywords of the set's function.
    """
    draw = resolve_kind(kind, options)
    check_window(train, validation, lengths, prompt, completion)
    splits: dict[str, list[Item]] = {}
    trained: dict[tuple[str, ...], tuple[str, ...]] = {}  # prompt -> completion
    for split, n in zip(SPLITS, (train, validation), strict=True):
        rng = generator(kind, seed, split)
        splits[split] = []
        for length in item_lengths(seed, n, *lengths, split=split):
            frame = Frame(seed, split, length, prompt, completion)
            for _ in range(ATTEMPTS):
                item = draw(rng, frame, **options)
                shown, wanted = item.symbols[: item.prompt_length], window_completion(item, completion)
                if split == "train" and trained.setdefault(shown, wanted) == wanted:
                    break
                if split == "validation" and shown not in trained:
                    break
            else:
                raise UserError(
                    f"{kind}: no {split} item number {len(splits[split])} with a new prompt was found; "
                    f"write fewer items or a prompt longer than {prompt}."
                )
            splits[split].append(item)
    return splits


def window_completion(item: Item, completion: int) -> tuple[str, ...]:
    """Return the `completion` symbols after the item's prompt."""
    return item.symbols[item.prompt_length : item.prompt_length + completion]


def resolve(path: str) -> Callable[..., Any]:
    """Return the function that "package.module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def resolve_kind(kind: str, options: dict[str, Any]) -> Callable[..., Item]:
    """Return the function of a kind, after checking the names of its options."""
    if kind not in KINDS:
        raise UserError(f"there is no data set {kind!r}; {nearest(kind, KINDS)}")
    draw = resolve(KINDS[kind])
    known = [p.name for p in inspect.signature(draw).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise UserError(f"data set {kind!r} has no option {name!r}; {nearest(name, known)}")
    return draw


def nearest(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """Say what to write instead of an unknown name."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"write one of {', '.join(known)}." if known else "it takes none."


def check_probability(name: str, value: float) -> None:
    """Raise UserError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:
        raise UserError(f"{name} is {value}; a probability is between 0 and 1.")


def check_window(train: int, validation: int, lengths: tuple[int, int], prompt: int, completion: int) -> None:
    """Raise UserError unless there is something to train on and the window fits the shortest item."""
    lo, hi = lengths
    if train < 1:
        raise UserError(f"train is {train}; write at least 1 item.")
    if validation < 0:
        raise UserError(f"validation is {validation}; write 0 or more items.")
    if prompt < 1 or completion < 1:
        raise UserError(f"prompt is {prompt} and completion {completion}; write at least 1 for both.")
    if lo > hi:
        raise UserError(f"lengths is ({lo}, {hi}); write the smaller number first.")
    if prompt + completion > lo:
        raise UserError(
            f"prompt {prompt} + completion {completion} = {prompt + completion} is longer than the "
            f"shortest item ({lo}); write shorter ones or raise lengths."
        )
