"""Assets: pins are commits, only safe files, and WikiText and GPT-2 read from a small local copy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from memorization.assets import Asset, load_assets
from memorization.data import text, wikitext
from memorization.errors import UserError

FILE = Path(__file__).parents[2] / "config" / "assets.yaml"
GOOD = {
    "kind": "model",
    "repo": "someone/model",
    "revision": "a" * 40,
    "files": ["config.json"],
    "licence": "MIT",
    "gated": False,
    "verified": True,
    "used_by": ["patterns"],
}


def test_every_asset_is_pinned_by_commit_with_a_licence():
    assets = load_assets(FILE)
    assert {"gpt2", "wikitext"} <= set(assets)
    assert all(len(asset.revision) == 40 and asset.licence for asset in assets.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "a pin is a commit of 40 hex digits, not a branch"),
        ({"licens": "MIT"}, "did you mean 'licence'?"),
        ({"repo": "model"}, "repo"),
    ],
)
def test_wrong_entries_are_explained(tmp_path, change, message):
    import yaml

    (tmp_path / "assets.yaml").write_text(yaml.safe_dump({"one": {**GOOD, **change}}))
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        load_assets(tmp_path / "assets.yaml")


def test_pickles_and_code_are_refused(tmp_path):
    from memorization.assets import fetch

    with pytest.raises(UserError, match=r"pytorch_model.bin: name only"):
        fetch(Asset(**{**GOOD, "files": ["pytorch_model.bin"]}), tmp_path)


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A tiny GPT-2 as the hub serves it: model.safetensors, config and a byte-level BPE tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = "the cat sat on the mat and the dog sat on it while the numbers 0 1 2 3 4 5 6 7 8 9 went by"
    tokenizer, _ = text.train_tokenizer([words] * 50, 600)
    folder = tmp_path / "gpt2"
    text.save_tokenizer(tokenizer, folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=600, n_embd=24, n_layer=1, n_head=1)).save_pretrained(folder)
    return folder


def test_the_embedding_is_a_pca_of_gpt2s(gpt2):
    matrix = wikitext.read_embedding(gpt2)
    assert matrix.shape == (600, 24)
    reduced = text.pca_embedding(matrix, 8)
    centered = matrix - matrix.mean(0)
    singular = np.linalg.svd(centered, compute_uv=False)
    assert np.linalg.norm(reduced, axis=0) == pytest.approx(singular[:8], rel=1e-4)


def test_wikitext_paragraphs_articles_and_splits(tmp_path):
    folder = tmp_path / "wikitext" / "wikitext-103-raw-v1"
    folder.mkdir(parents=True)
    lines = [
        "",
        " = Cats = \n",
        " Cats sit . \n",
        " = = Food = = \n",
        " They eat . \n",
        " = Dogs = \n",
        " Dogs run . \n",
    ]
    for split in ("train", "validation", "test"):
        pd.DataFrame({"text": lines}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    rows = wikitext.read_paragraphs(tmp_path / "wikitext")
    train = [row for row in rows if row["split"] == "train"]
    assert [row["text"] for row in train] == ["Cats sit .", "They eat .", "Dogs run ."]
    assert [row["module"] for row in train] == ["Cats", "Food", "Dogs"]
    assert {row["split"] for row in rows} == {"train", "validation", "held_out"}


def test_the_tokenizer_is_copied_and_its_absence_explained(gpt2, tmp_path):
    wikitext.copy_tokenizer(gpt2, tmp_path / "copy")
    ours, theirs = (text.load_tokenizer(folder) for folder in (tmp_path / "copy", gpt2))
    assert ours.encode(" the cat").ids == theirs.encode(" the cat").ids
    with pytest.raises(UserError, match="snakemake assets --config scale=paper"):
        wikitext.copy_tokenizer(tmp_path, tmp_path / "other")
