"""Passages from public files: each reader against the rows that were written, the filters by brute force."""

import json
import random
from functools import cache

import pandas as pd
import pytest
import torch

from memorization.config.tokenswap import PublicTexts
from memorization.data import public, text
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

ROWS = [
    {"prompt": "A short one", "story": "It was late and we were at the sea.", "score": 0.5},
    {"prompt": "A second, longer one", "story": "  Nobody knew why the boat had been left there. ", "score": 0.7},
    {"prompt": "", "story": "A story without a prompt.", "score": 0.9},
    {"prompt": "No story", "story": None, "score": 0.1},
]
TEXTS = [
    "> A short one | It was late and we were at the sea.",
    "> A second, longer one | Nobody knew why the boat had been left there.",
]


@cache
def stories(count=60):
    """Return texts of 3 to 90 words."""
    draw = random.Random(1)
    parts = ("ba", "ke", "lo", "mi", "tu", "ra", "den", "gol", "sim", "tar", "vel", "nor")
    words = [a + b for a in parts for b in parts]
    return [
        " ".join(draw.choice((draw.choice(FUNCTION_WORDS), draw.choice(words))) for _ in range(draw.randint(3, 90)))
        for _ in range(count)
    ]


@cache
def tokenizer(vocabulary=640):
    return text.train_tokenizer(list(stories()), vocabulary)[0]


def source(**keys):
    """Return a domain as the configuration gives it to the script."""
    return PublicTexts(**{"asset": "set", **keys}).model_dump()


def write(folder, suffix):
    """Write ROWS in two files of one format."""
    for number, rows in enumerate((ROWS[:1], ROWS[1:])):
        path = folder / "set" / "data" / f"train-{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)) + "\n\n")


TABLE = {"columns": ["prompt", "story"], "separator": " | ", "start": "> "}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_tables_become_texts(tmp_path, suffix):
    write(tmp_path, suffix)
    assert public.read_texts(tmp_path, source(files=f"data/train-*{suffix}", **TABLE)) == TEXTS
    assert public.read_texts(tmp_path, source(files=f"data/train-0{suffix}", **TABLE)) == TEXTS[:1]
    assert public.read_texts(tmp_path, source(files=f"*{suffix}", shortest={"prompt": 12}, **TABLE)) == TEXTS[1:]
    assert public.read_texts(tmp_path, source(files=f"*{suffix}", longest={"story": 40}, **TABLE)) == TEXTS[:1]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_a_missing_column_or_file_is_named(tmp_path, suffix):
    write(tmp_path, suffix)
    with pytest.raises(UserError, match="has no column 'storey'; did you mean 'story'"):
        public.read_texts(tmp_path, source(files=f"data/*{suffix}", columns=["storey"]))
    with pytest.raises(UserError, match="holds no data/test-"):
        public.read_texts(tmp_path, source(files=f"data/test-*{suffix}", columns=["story"]))


@pytest.mark.parametrize(("name", "content"), [("a.json", "{}"), ("a.json", "[1"), ("a.jsonl", '{"story": ')])
def test_broken_json_is_one_sentence(tmp_path, name, content):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text(content)
    with pytest.raises(UserError, match=r"a\.jsonl?(, line| is no list)"):
        public.read_texts(tmp_path, source(files=name, columns=["story"]))


def tensor_folder(tmp_path, value):
    """Write a value as set/ids.pt, with a tokenizer beside it."""
    (tmp_path / "set").mkdir()
    text.save_tokenizer(tokenizer(), tmp_path / "model")
    torch.save(value, tmp_path / "set" / "ids.pt")
    return public.read_texts(tmp_path, source(files="ids.pt", tokenizer="model"))


def test_token_ids_become_texts_that_are_encoded_to_the_same_ids(tmp_path):
    rows = [tokenizer().encode(one).ids[:20] for one in stories() if len(tokenizer().encode(one).ids) >= 20]
    apart = tokenizer().encode("a").ids + tokenizer().encode("n").ids  # "an" is another token
    odd = (apart * 20)[:20]
    assert tokenizer().encode(tokenizer().decode(odd)).ids != odd
    found = tensor_folder(tmp_path, torch.tensor([*rows[:5], odd, *rows[5:]]))
    assert found == [tokenizer().decode(row) for row in rows]


class Harm:
    """An object that would write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_tensor_file_runs_no_code(tmp_path):
    with pytest.raises(UserError, match="holds more than a tensor, or is damaged"):
        tensor_folder(tmp_path, Harm(tmp_path / "written"))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, dtype=torch.long), "is no tensor of token ids"),
        (torch.zeros(3, 4), "is no tensor of token ids"),
        ([[1, 2], [3, 4]], "is no tensor of token ids"),
        (torch.full((2, 3), 5000), "has ids from 5000 to 5000, the tokenizer has 640 tokens"),
    ],
)
def test_what_is_no_tensor_of_ids_is_refused(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        tensor_folder(tmp_path, value)


PROSE = (
    "In the end we were all of us on the boat, and it was she who had been right about the storm that came over "
    "the hills; nobody said so, but everybody thought of it when the wind rose again."
)


@pytest.mark.parametrize(
    ("given", "natural"),
    [
        (PROSE, True),
        (PROSE + " See www.example.org for more.", False),
        (PROSE + " Write to me@example for more.", False),
        ("for (int i = 0; i < n; ++i) { total += values[i]; } /* the sum of all of the values */", False),
        ("Kiribati Kosovo Kuwait Kyrgyzstan Laos Latvia Lebanon Lesotho Liberia Libya Lithuania Macao", False),
        ("1 of 2, 3 of 4, 5 of 6, 7 of 8, 9 of 10, 11 of 12, 13 of 14, 15 of 16, 17 of 18, 19 of 20", False),
        ('<string name="the">of the and for</string> <string name="and">in the of it</string>', False),
        ("", False),
    ],
)
def test_natural_language(given, natural):
    assert public.is_natural(given) == natural


DRAW = {"passages": 12, "fewer": False, "prefix": 5, "suffix": 9, "length": 40, "asset": "set"}


def draw(texts, seed=0, **changes):
    settings = {**DRAW, "readers": {"main": tokenizer(), "other": tokenizer(700)}, **changes}
    return public.draw_public(texts, "tales", seed=seed, main=tokenizer(), **settings)


def test_passages_are_long_enough_for_every_reader_and_begin_differently():
    twins = [*stories(), *(one + " again" for one in stories())]
    items = draw(twins)
    assert len(items) == 12 and len({item.input_ids[:5] for item in items}) == 12
    for item in items:
        assert item.prompt_length == 5 and twins[int(item.module)].startswith(item.text)
        assert 14 <= len(item.input_ids) <= 40 and tuple(tokenizer().encode(item.text).ids) == item.input_ids
        assert len(tokenizer(700).encode(item.text).ids) >= 14


def test_texts_are_cut_after_a_word():
    whole, cut = draw(stories(), length=1000), draw(stories(), length=20)
    assert [item.text for item in whole] == [stories()[int(item.module)] for item in whole]
    assert any(len(item.input_ids) > 20 for item in whole)
    for item in cut:
        full = stories()[int(item.module)]
        assert len(item.input_ids) <= 20 and (full == item.text or full.startswith(item.text + " "))


def test_all_texts_that_fit_are_found_if_fewer_are_allowed():
    fit = {
        number
        for number, one in enumerate(stories())
        if all(
            len(t.encode(public.shortened(tokenizer(), one, 40)[0]).ids) >= 14 for t in (tokenizer(), tokenizer(700))
        )
    }
    items = draw(stories(), passages=1000, fewer=True)
    assert {int(item.module) for item in items} == fit and 12 < len(fit) < len(stories())
    with pytest.raises(UserError, match=f"gives {len(fit)} passages of 5 \\+ 9 tokens, not 1000; write `passages: "):
        draw(stories(), passages=1000)
    with pytest.raises(UserError, match="gives 0 passages"):
        draw(stories(), suffix=500, fewer=True)


def test_a_seed_is_reproducible_seeds_differ_and_fewer_are_the_first():
    assert draw(stories()) == draw(stories()) != draw(stories(), seed=1)
    assert draw(stories(), passages=5) == draw(stories())[:5]


def test_other_tokens_keep_the_text():
    items = draw(stories())
    for before, after in zip(items, public.in_tokens_of(items, tokenizer(700)), strict=True):
        assert (after.text, after.prompt_length) == (before.text, before.prompt_length)
        assert tuple(tokenizer(700).encode(before.text).ids) == after.input_ids


def test_a_stored_tokenizer_neither_cuts_nor_pads(tmp_path):
    kept = tokenizer().from_str(tokenizer().to_str())
    kept.enable_truncation(3)
    kept.enable_padding()
    (tmp_path / "model").mkdir()
    kept.save(str(tmp_path / "model" / "tokenizer.json"))
    loaded = public.tokenizer_of(tmp_path, "model")
    assert [one.ids for one in loaded.encode_batch(list(stories()))] == [
        tokenizer().encode(one).ids for one in stories()
    ]
    with pytest.raises(UserError, match="snakemake assets --config scale=paper"):
        public.tokenizer_of(tmp_path, "models")
