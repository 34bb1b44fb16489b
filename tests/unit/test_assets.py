"""Assets: pins are commits, only safe files, scale `paper` alone needs any, and WikiText and GPT-2 read from a copy."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from memorization.assets import Asset, fetch, load_assets, unpinned
from memorization.config import load_config
from memorization.data import text, wikitext
from memorization.errors import UserError
from memorization.plan import assets_of, plan

CONFIG = Path(__file__).parents[2] / "config"
FILE = CONFIG / "assets.yaml"
SCALES = sorted(path.stem for path in (CONFIG / "scales").glob("*.yaml"))
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


def test_every_asset_is_pinned_by_commit_with_a_licence_or_says_that_it_is_not():
    assets = load_assets(FILE)
    assert {"gpt2", "wikitext"} <= set(assets) - set(unpinned(assets))
    assert all(asset.licence for asset in assets.values())
    assert all(len(asset.revision) == 40 for name, asset in assets.items() if name not in unpinned(assets))


@pytest.mark.parametrize("scale", SCALES)
def test_what_the_scales_read_is_what_the_assets_are_said_to_be_used_by(scale):
    """Assets of the text are not tokenswap's own: `text.source` decides about them."""
    config = load_config(CONFIG, {"scale": scale})
    needed = set(assets_of(config, plan(config, "tokenswap")))
    used = {name for name, asset in load_assets(FILE).items() if "tokenswap" in asset.used_by}
    assert (config.text.source == "wikitext") == (scale == "paper")
    assert needed == (used - {"gpt2", "wikitext"} if scale == "paper" else set())


def test_the_kind_of_every_asset_fits_its_use():
    config, assets = load_config(CONFIG, {"scale": "paper"}), load_assets(FILE)
    models = {name: assets[one.asset] for name, one in config.tokenswap.models.items() if hasattr(one, "asset")}
    sources = [one for one in config.tokenswap.domains.values() if not isinstance(one, list)]
    assert len(models) > 10 and {asset.kind for asset in models.values()} == {"model"}
    assert len(sources) == 4 and {assets[one.asset].kind for one in sources} == {"dataset"}
    for one in sources:  # what is read is downloaded
        assert one.files in assets[one.asset].files


def test_one_that_is_not_pinned_stops_with_a_sentence_that_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="small: no commit is written down yet: look up the newest commit") as raised:
        fetch(Asset(**{**GOOD, "revision": None, "verified": False}), tmp_path, "small")
    assert "as `revision` in config/assets.yaml" in str(raised.value) and "\n" not in str(raised.value)


class Answer:
    """What urlopen gives."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self):
        return b"ids"


RAW = {**GOOD, "kind": "dataset", "host": "github", "files": ["a/ids.pt"]}


def test_raw_files_come_from_the_commit_and_are_compared_with_their_digest(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: asked.append(url) or Answer())
    right = hashlib.sha256(b"ids").hexdigest()
    manifest = fetch(Asset(**RAW, sha256={"a/ids.pt": right}), tmp_path / "one")
    assert asked == [f"https://raw.githubusercontent.com/someone/model/{'a' * 40}/a/ids.pt"]
    assert manifest["files_fetched"] == {"a/ids.pt": {"bytes": 3, "sha256": right}}
    assert (tmp_path / "one" / "a" / "ids.pt").read_bytes() == b"ids"
    with pytest.raises(UserError, match=r"a/ids.pt: not the file that config/assets.yaml describes"):
        fetch(Asset(**RAW, sha256={"a/ids.pt": "0" * 64}), tmp_path / "two")
    with pytest.raises(UserError, match="no path inside a repository"):
        fetch(Asset(**{**RAW, "files": ["../ids.pt"]}), tmp_path / "three")
    assert not (tmp_path / "ids.pt").exists()


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def fail(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(UserError, match="someone/model at aaaaaaaaaaaa could not be downloaded: no route"):
        fetch(Asset(**RAW), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "a pin is a commit of 40 hex digits, not a branch"),
        ({"licens": "MIT"}, "did you mean 'licence'?"),
        ({"repo": "model"}, "repo"),
        ({"revision": None}, "verified means that the commit was looked up"),
        ({"host": "github", "files": ["a/*.json"]}, "write their full paths"),
    ],
)
def test_wrong_entries_are_explained(tmp_path, change, message):
    import yaml

    (tmp_path / "assets.yaml").write_text(yaml.safe_dump({"one": {**GOOD, **change}}))
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        load_assets(tmp_path / "assets.yaml")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "modeling_own.py"])
def test_pickles_and_code_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}: name only"):
        fetch(Asset(**{**GOOD, "files": [name]}), tmp_path)


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
