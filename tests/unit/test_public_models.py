"""Public checkpoints and texts end to end: tiny local ones of two classes and two tokenizers stand for downloaded ones.

Passages are made by the rule's own script, a checkpoint is tuned by the training loop, and arms are measured.
"""

import importlib.util
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from memorization.config import Config, layers
from memorization.data import store, text
from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError
from memorization.evaluate.arms import measure_all
from memorization.evaluate.bench import Bench, spread
from memorization.models import build
from memorization.plan import arm_group_spec, encoded, plan, readers
from memorization.specs import ModelSpec
from memorization.training.loop import train

REPOSITORY = Path(__file__).parents[2]
ROWS, KEPT = 128, 640  # rows of a padded embedding beyond the tokens; tokens

MODELS = {
    "neox": {"asset": "neox", "parameters": 4000, "learning_rate": 0.001},
    "small": {"asset": "small", "parameters": 1000},
    "gpt": {"asset": "gpt", "parameters": 2000},
}
EXPERIMENTS = {
    "wild": {
        "measure": ["passages", "held_out"],
        "domains": ["ids"],
        "arms": [
            {"model": "public-neox"},
            {"model": "public-neox", "method": "tokenswap", "aux": "public-gpt"},
            {"model": "public-neox", "method": "cp_fuse", "aux": "public-small"},
            {"model": "public-neox", "method": "memfree"},
            {"model": "public-neox", "method": "speculative", "aux": "public-small", "decoding": "sample"},
        ],
    },
    "extreme": {
        "measure": ["passages"],
        "domains": ["tales"],
        "arms": [{"model": "tuned-neox"}, {"model": "tuned-neox", "method": "tokenswap", "aux": "public-gpt"}],
    },
    "cloze": {"measure": ["cloze"], "arms": [{"model": "public-gpt"}]},
}


def tales(count: int, seed: int) -> list[str]:
    """Return made-up prose, every third word a function word."""
    draw = random.Random(seed)
    parts = ("ba", "ke", "lo", "mi", "tu", "ra", "den", "gol", "sim", "tar", "vel", "nor")
    words = [a + b for a in parts for b in parts]
    return [
        " ".join(draw.choice(FUNCTION_WORDS if i % 3 == 0 else words) for i in range(draw.randint(50, 70)))
        for _ in range(count)
    ]


def corpus() -> pd.DataFrame:
    """Return paragraphs of one package in three splits."""
    splits = ["train"] * 60 + ["validation"] * 20 + ["held_out"] * 20
    rows = zip(tales(100, 0), splits, strict=True)
    return pd.DataFrame(
        [
            {"text": one, "package": "book", "module": f"m{i // 5}", "split": split}
            for i, (one, split) in enumerate(rows)
        ]
    )


def configuration() -> Config:
    """Return the smoke scale with public models and texts only."""
    merged = layers(REPOSITORY / "config", "smoke")
    section = merged["tokenswap"]
    for name in ("half1", "half2", "mix1", "mix2", "tuned"):
        section["recipes"][name] |= {"start": "public", "domains": ["tales"], "background": None}
    section |= {
        "prefix": 6,
        "suffix": 8,
        "length": 48,
        "passages": 8,
        "measured": 6,
        "held_out": 5,
        "background": 20,
        "vocabulary": None,
        "other_vocabulary": None,
        "models": {**section["models"], **MODELS},
        "recipes": {**section["recipes"], "public": {"trained": False}},
        "domains": {
            "tales": {"asset": "stories", "files": "data/*.parquet", "columns": ["title", "story"]},
            "ids": {
                "asset": "mined", "files": "ids.pt", "tokenizer": "neox", "natural": True, "passages": 50,
                "fewer": True, "prefix": 4, "suffix": 10,
            },
            "book": ["book"],
        },
        "cloze": {"questions": 10, "options": 3, "context": [4, 20], "groups": [["book"]]},
        "experiments": EXPERIMENTS,
    }  # fmt: skip
    merged["compute"]["device"] = "cpu"
    return Config.model_validate({**merged, "scale": "tiny"})


def save_model(assets: Path, name: str, architecture: str, tokenizer, rows: int, width: int, seed: int) -> None:
    """Save a checkpoint as a download would lie there."""
    text.save_tokenizer(tokenizer, assets / name)
    spec = ModelSpec(architecture=architecture, layers=1, width=width, heads=1, positions=128, vocabulary=rows)
    build.save(build.build(spec, seed=seed), assets / name)


def make_passages(config: Config, root: Path) -> None:
    """Run the rule's script on what the rule would give it."""
    path = REPOSITORY / "workflow" / "scripts" / "make_passages.py"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("make_passages", path))
    spec.loader.exec_module(module)
    made, data = plan(config, "tokenswap"), root / "data" / "tokenswap"
    params = config.tokenswap.model_dump() | {
        "seeds": 1,
        "readers": readers(config, made),
        "encoded": encoded(made),
        "assets": str(root.parent / "assets"),
    }
    output = SimpleNamespace(tokenizer=str(data / "tokenizer"), questions=str(data / "cloze" / "questions.parquet"))
    given = SimpleNamespace(corpus=str(root / "corpus.parquet"), tokenizer=str(root / "text"))
    module.main(SimpleNamespace(params=SimpleNamespace(passages=params, folder=str(data)), input=given, output=output))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with assets, passages and a tuned model; and the configuration."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    assets, root, config = results / "assets", results / "tiny", configuration()
    one, other, texts = (text.train_tokenizer(tales(200, 1), size)[0] for size in (KEPT, 700, 660))
    save_model(assets, "neox", "gpt_neox", one, KEPT + ROWS, 24, 0)
    save_model(assets, "small", "gpt_neox", one, KEPT + 2 * ROWS, 16, 1)
    save_model(assets, "gpt", "gpt2", other, 700, 16, 2)
    (assets / "stories" / "data").mkdir(parents=True)
    frame = pd.DataFrame({"title": [f"Tale {i}" for i in range(30)], "story": tales(30, 2)})
    frame.to_parquet(assets / "stories" / "data" / "train-0.parquet")
    (assets / "mined").mkdir()
    ids = [one.encode(tale).ids[:14] for tale in tales(9, 3)]
    torch.save(torch.tensor(ids), assets / "mined" / "ids.pt")
    root.mkdir()
    corpus().to_parquet(root / "corpus.parquet")
    text.save_tokenizer(texts, root / "text")
    make_passages(config, root)
    for run in plan(config, "tokenswap").runs.values():
        if run.model_name == "tuned-neox":
            train(run, root, root / "work" / run.name, code="x")
            (root / "models").mkdir()
            (root / "work" / run.name / "model").rename(root / "models" / run.name)
    return config, root


@pytest.fixture(scope="module")
def measured(made):
    config, root = made
    planned = plan(config, "tokenswap")
    found = [
        measure_all(arm_group_spec(config, group), root, root / "decode" / group, "x") for group in planned.arm_groups
    ]
    metrics, items = (pd.concat(frames, ignore_index=True) for frames in zip(*found, strict=True))
    return planned, metrics, items


def stored(root: Path, folder: str) -> dict:
    return store.read_columns(root / "data" / "tokenswap" / folder / "dataset" / "0", "train", ["text", "input_ids"])


def test_passages_are_stored_as_text_with_the_tokens_of_each_model_that_trains_on_them(made):
    _, root = made
    plain, tuned = stored(root, "passages_tales"), stored(root, "passages_tales_neox")
    assert len(plain["text"]) == 8 and plain["text"] == tuned["text"]
    assert all(one.startswith("Tale ") and "\n" in one for one in plain["text"])
    neox = text.load_tokenizer(root.parent / "assets" / "neox")
    assert tuned["input_ids"] == [neox.encode(one).ids for one in tuned["text"]]
    assert plain["input_ids"] != tuned["input_ids"]
    # all 9 rows of the tensor, which are fewer than the 50 asked for
    assert sorted(stored(root, "passages_ids")["text"]) == sorted(
        neox.decode(neox.encode(tale).ids[:14]) for tale in tales(9, 3)
    )
    assert not (root / "data" / "tokenswap" / "tokenizer_other").exists()
    assert not (root / "data" / "tokenswap" / "background_other").exists()
    copied = text.load_tokenizer(root / "data" / "tokenswap" / "tokenizer")
    assert copied.to_str() == text.load_tokenizer(root / "text").to_str()


def test_every_arm_has_finite_numbers_of_its_own_domains_and_lengths(measured):
    planned, metrics, _ = measured
    assert set(metrics["run"]) == set(planned.arms) and len(planned.arms) == 8
    assert np.isfinite(metrics["value"]).all() and metrics["value"].notna().all()
    own = metrics[metrics["data"] == "passages"]
    for (recipe,), rows in own.groupby(["recipe"]):
        domain, lengths = ("ids", (4, 10)) if recipe == "public" else ("tales", (6, 8))
        assert set(rows["subset"]) == {"all", domain} and set(rows["n"]) == {6}
        assert set(zip(rows["prompt_length"], rows["completion_length"], strict=True)) == {lengths}
    assert {"exact_match", "rouge_l", "matching_characters", "levenshtein"} <= set(own["metric"])
    assert "judge_loss" not in set(metrics["metric"])
    columns = {"paper", "experiment", "scale", "run", "model", "recipe", "size", "parameters", "revision", "seed"}
    columns |= {"method", "aux", "aux_parameters", "words", "words_size", "decoding", "data", "subset", "split"}
    assert columns | {"prompt_length", "completion_length", "metric", "value", "n"} == set(metrics.columns)
    swap = metrics[(metrics["method"] == "tokenswap") & (metrics["recipe"] == "public")]
    assert set(swap["words_size"]) == {110} and {"frequency", "mass"} <= set(swap["metric"])
    assert set(metrics[metrics["data"] == "cloze_function"]["metric"]) == {"accuracy"}


def test_swapping_leaves_the_losses_of_other_words_alone_and_fusing_does_not(measured):
    """Off G the main model's probabilities stay, whatever the auxiliary's vocabulary."""
    _, metrics, _ = measured
    rows = metrics[(metrics["data"] == "held_out") & (metrics["recipe"] == "public")]
    table = rows.pivot_table(index="method", columns="metric", values="value")
    others, words = table["cross_entropy_others"], table["cross_entropy_words"]
    assert others["tokenswap"] == pytest.approx(others["standard"], abs=1e-4)
    assert words["tokenswap"] != pytest.approx(words["standard"], abs=1e-4)
    assert others["cp_fuse"] != pytest.approx(others["standard"], abs=1e-4)


def test_only_a_swap_marks_what_it_wrote(measured):
    planned, _, items = measured
    written = items[items["metric"] == "written"]
    marked = {
        run: any(swapped for one in rows["text"] for _, swapped in json.loads(one))
        for run, rows in written.groupby("run")
    }
    assert len(marked) == 7
    assert all(planned.arms[run].method == "tokenswap" for run, found in marked.items() if found) and any(
        marked.values()
    )


def test_rows_of_a_padded_embedding_are_cut_and_change_nothing_else(made):
    config, root = made
    spec = next(
        arm_group_spec(config, group)
        for group, names in plan(config, "tokenswap").arm_groups.items()
        if any("cp_fuse" in name for name in names)
    )
    bench, arm = Bench(spec, root), next(arm for arm in spec.arms if arm.method == "cp_fuse")
    ids = torch.arange(12)[None]
    for ref in (arm.model, arm.aux):
        whole = build.load(root.parent / "assets" / ref.asset).eval()
        with torch.no_grad():
            cut, kept = bench.model(ref)(ids).logits, whole(ids).logits
        assert cut.shape[-1] == KEPT < kept.shape[-1]
        assert torch.allclose(cut, kept[..., :KEPT], atol=1e-6)
    assert bench.same_tokens(arm.model, arm.aux)


def test_spread_takes_its_share_of_every_quarter():
    assert spread(list(range(8)), 4) == [0, 2, 4, 6] and spread([1, 2], 5) == [1, 2]
    for count in (3, 6, 7, 10):
        taken = spread(list(range(40)), count)
        assert len(set(taken)) == count
        assert all(abs(sum(q <= i < q + 10 for i in taken) - count / 4) < 1 for q in range(0, 40, 10))


def test_a_text_too_short_for_a_model_is_one_sentence(made):
    config, root = made
    group = next(iter(plan(config, "tokenswap").arm_groups))
    spec = arm_group_spec(config, group)
    arm = spec.arms[0].model_copy(update={"suffix": 11})
    with pytest.raises(UserError, match=r"passages_ids: 9 texts have fewer than 15 tokens of public-neox"):
        Bench(spec, root).passages(arm.model, arm=arm)
