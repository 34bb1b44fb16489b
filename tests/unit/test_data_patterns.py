"""Every synthetic set against a brute-force reading of its rule; splits, lengths, determinism, errors."""

import itertools
from functools import cache
from math import sqrt

import pytest

from memorization.data import patterns
from memorization.data.patterns import CHARACTERS, DIGITS, KINDS, LETTERS, SEPARATOR, make
from memorization.data.store import digest, row
from memorization.errors import UserError

SIZES = {"train": 200, "validation": 50, "lengths": (28, 44), "prompt": 16, "completion": 10}
OPTIONS = {"random_seed_lookup": {"seed_length": 10, "window": 4}}
SEEDS = (0, 1, 2)


@cache
def made(kind, seed=0, **changes):
    return make(kind, seed=seed, **{**SIZES, **OPTIONS.get(kind, {}), **changes})


def all_items(kind, **changes):
    for seed in SEEDS:
        for items in made(kind, seed, **changes).values():
            yield from items


def assert_frequency(hits, trials, probability, sigmas=4.5):
    expected, deviation = trials * probability, sqrt(trials * probability * (1 - probability))
    assert abs(hits - expected) <= sigmas * deviation, (hits / trials, probability)


# --- Rules ---


def test_mi_counts_up_and_only_validation_starts_with_seven():
    splits = made("mi")
    for split, items in splits.items():
        for item in items:
            assert all((int(b) - int(a)) % 10 == 1 for a, b in zip(item.symbols, item.symbols[1:], strict=False))
            assert (item.symbols[0] == "7") == (split == "validation")
    assert {item.symbols[0] for item in splits["train"]} == set(DIGITS) - {"7"}


def test_mij_jumps_at_the_stated_rate_to_all_nine_other_digits():
    steps = [
        (int(b) - int(a)) % 10
        for item in all_items("mij", jump_in_completion=False, lengths=(80, 90), prompt=60)
        for a, b in zip(item.symbols, item.symbols[1:], strict=False)
    ]
    assert_frequency(sum(step != 1 for step in steps), len(steps), 0.15)
    jumps = [step for step in steps if step != 1]
    for step in (0, 2, 3, 4, 5, 6, 7, 8, 9):
        assert_frequency(jumps.count(step), len(jumps), 1 / 9)


@pytest.mark.parametrize("kind", ["mij", "mijl"])
def test_a_completion_has_a_jump_unless_switched_off(kind):
    def has_jump(item):
        digits = [(t, int(s)) for t, s in enumerate(item.symbols) if s in DIGITS]
        return any(16 <= t < 26 and (b - a) % 10 != 1 for (_, a), (t, b) in itertools.pairwise(digits))

    assert all(has_jump(item) for item in all_items(kind))
    assert not all(has_jump(item) for item in all_items(kind, jump_in_completion=False))


@pytest.mark.parametrize("letters", [1, 2, 3])
def test_mijl_puts_letters_after_jumps_only_and_in_alphabetical_order(letters):
    wrapped = False
    for item in all_items("mijl", letters_per_jump=letters):
        seen, position, last = [], 1, int(item.symbols[0])
        while position < len(item.symbols):
            digit = int(item.symbols[position])
            position += 1
            if digit != (last + 1) % 10:
                after = item.symbols[position : position + letters]
                assert len(after) == letters or position + letters > len(item.symbols)
                assert set(after) <= set(LETTERS)
                seen += after
                position += letters
            last = digit
        assert all(LETTERS[(LETTERS.index(a) + 1) % 26] == b for a, b in itertools.pairwise(seen))
        wrapped |= ("Z", "A") in itertools.pairwise(seen)
    assert wrapped


def parse_icm(item):
    """Read the map and the letters off the prompt alone and return (map, expected transcription)."""
    parts = "".join(s if s != SEPARATOR else " " for s in item.symbols[: item.prompt_length]).split()
    codes = dict(part.split(":") for part in parts[:-1])
    return codes, "".join(codes[letter] for letter in parts[-1])


@pytest.mark.parametrize("kind", ["icm", "dynamic_icm"])
@pytest.mark.parametrize("code_length", [2, 3])
def test_icm_completion_is_determined_by_the_prompt(kind, code_length):
    for seed in SEEDS:
        maps = []
        for items in made(kind, seed, code_length=code_length).values():
            for item in items:
                codes, transcription = parse_icm(item)
                assert "".join(item.symbols[item.prompt_length :]) == transcription
                assert len(transcription) == 8 * code_length
                assert len(codes) == len(set(codes.values())) == 3
                maps.append(codes)
        by_letter = {}
        for codes in maps:
            for letter, code in codes.items():
                by_letter.setdefault(letter, set()).add(code)
        assert set(by_letter) == set(LETTERS[:10])
        assert all((len(codes) == 1) == (kind == "icm") for codes in by_letter.values())


def test_icm_map_changes_with_the_seed():
    maps = [dict(pair for item in made("icm", seed)["train"] for pair in parse_icm(item)[0].items()) for seed in (0, 1)]
    assert maps[0] != maps[1]


def test_random_digits_are_uniform():
    digits = [symbol for item in all_items("random_digits") for symbol in item.symbols]
    for digit in DIGITS:
        assert_frequency(digits.count(digit), len(digits), 0.1)


@pytest.mark.parametrize("n_back", [4, 5, 6, 8])
def test_repeat_back_copies_at_the_stated_rate(n_back):
    def equal(distance):
        pairs = [
            a == b
            for item in all_items("repeat_back", n_back=n_back)
            for a, b in zip(item.symbols, item.symbols[distance:], strict=False)
        ]
        return sum(pairs), len(pairs)

    assert_frequency(*equal(n_back), 0.10 + 0.90 * 0.1)
    assert_frequency(*equal(n_back - 1), 0.1)


def test_every_seventh_is_constant_in_a_tenth_of_the_items():
    items = list(all_items("every_nth"))
    constant = sum(any(len(set(item.symbols[start::7])) == 1 for start in range(7)) for item in items)
    assert_frequency(constant, len(items), 0.10)  # by chance: 7 * 10^-3 at most, for items of 28


def test_lookup_reproduces_the_papers_example():
    assert "".join(patterns.lookup("13820", 2, 8)) == "13820821"


def test_random_seed_lookup_follows_its_rule():
    for item in all_items("random_seed_lookup"):
        digits = [int(symbol) for symbol in item.symbols]
        for t in range(10, len(digits)):
            assert digits[t] == digits[sum(digits[t - 4 : t]) % 10]


def test_random_seed_lookup_completions_cannot_be_had_by_repeating_the_prompt():
    for item in all_items("random_seed_lookup"):
        prompt, completion = item.symbols[:16], item.symbols[16:26]
        for q in range(1, 17):
            assert (prompt[-q:] * 10)[:10] != completion
        for q in range(1, 6):
            assert (completion[:q] * 10)[:10] != completion


@pytest.mark.parametrize(
    ("symbols", "periodic"),
    [
        ("0123451234512345", True),
        ("0123456767676767", True),
        ("0123459876543210", False),
        ("0123450000000000", True),
    ],
)
def test_is_periodic(symbols, periodic):
    assert patterns.is_periodic(symbols, prompt=6, completion=10) is periodic


# --- Splits ---


@pytest.mark.parametrize("kind", KINDS)
def test_training_items_are_nested_and_validation_is_new(kind):
    small, large = made(kind, train=40), made(kind, train=200)
    assert large["train"][:40] == small["train"]
    prompts = {item.symbols[: item.prompt_length] for item in large["train"]}
    assert not any(item.symbols[: item.prompt_length] in prompts for item in large["validation"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_prompt_has_two_completions(kind):
    completion_of = {}
    for item in made(kind, train=400)["train"]:
        prompt, completion = item.symbols[: item.prompt_length], patterns.window_completion(item, 10)
        assert completion_of.setdefault(prompt, completion) == completion


@pytest.mark.parametrize("split", ["train", "validation"])
def test_all_sets_of_a_seed_share_their_lengths(split):
    wanted = patterns.item_lengths(0, SIZES[split], 28, 44, split)
    assert min(wanted) == 28 and max(wanted) == 44
    for kind in KINDS:
        found = [len(item.symbols) for item in made(kind)[split]]
        assert found == (wanted if "icm" not in kind else [51] * len(wanted))


def test_items_are_the_same_on_every_machine():
    rows = [
        row(i, "".join(item.symbols), patterns.encode(item.symbols), item.prompt_length, 10)
        for kind in KINDS
        for i, item in enumerate(made(kind, train=8, validation=4)["train"])
    ]
    assert digest({"train": rows}) == "dd8b194f3b5bde963fdd17d133827ce22f1221514efe32acb8709bba7ee25f1c"


def test_seeds_and_sets_differ():
    assert made("random_digits", 0) != made("random_digits", 1)
    assert made("random_digits")["train"] != made("every_nth")["train"]


def test_vocabulary_is_small_and_encode_inverts_decode():
    assert len(set(CHARACTERS)) == len(CHARACTERS) < 50
    assert patterns.decode(patterns.encode(CHARACTERS)) == CHARACTERS
    for kind in KINDS:
        assert all(set(item.symbols) < set(CHARACTERS) - {patterns.PAD} for item in made(kind)["train"])


# --- Errors ---


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("mjl", {}, "did you mean 'mijl'"),
        ("mij", {"jump_probabilty": 0.2}, "did you mean 'jump_probability'"),
        ("mi", {"n_back": 5}, "it takes none"),
        ("mij", {"jump_probability": 1.5}, "between 0 and 1"),
        ("mij", {"jump_probability": 0}, "jump_in_completion"),
        ("repeat_back", {"copy_probability": -0.1}, "between 0 and 1"),
        ("every_nth", {"share": 2}, "between 0 and 1"),
        ("repeat_back", {"n_back": 44}, "n_back"),
        ("every_nth", {"period": 0}, "period"),
        ("mijl", {"letters_per_jump": 4}, "letters_per_jump"),
        ("icm", {"letters": 27}, "1 to 26"),
        ("icm", {"letters": 11, "code_length": 1}, "longer code"),
        ("icm", {"letters": 2}, "letters_per_item"),
        ("icm", {"string_length": 3}, "transcription"),
        ("random_seed_lookup", {"seed_length": 17}, "longer than the prompt"),
        ("random_seed_lookup", {"window": 11}, "window"),
        ("mi", {"train": 0}, "at least 1"),
        ("mi", {"validation": -1}, "0 or more"),
        ("mi", {"prompt": 20}, "shortest item"),
        ("mi", {"completion": 0}, "at least 1"),
        ("mi", {"lengths": (44, 28)}, "smaller number first"),
        ("random_digits", {"train": 20, "prompt": 1}, "new prompt"),
    ],
)
def test_mistakes_are_explained(kind, changes, message):
    with pytest.raises(UserError, match=message):
        made(kind, **changes)


def test_unknown_symbols_are_refused():
    with pytest.raises(UserError, match="'a'"):
        patterns.encode("a")
