"""The page of `geometry` and its columns: what they say is what is found, written and printed."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml
from test_docs import CATALOG, ROOT, documented, example

from memorization.config import load_config
from memorization.data import facts, store, text
from memorization.data.ngram_scores import score
from memorization.data.words import FUNCTION_WORDS
from memorization.plan import plan
from memorization.plan.geometry_data import facts_spec, geometry_sets
from memorization.specs import GroupSpec
from memorization.theory.geometry_toy import toy_rows
from memorization.training.__main__ import collect
from memorization.training.loop import train

PAGE = (ROOT / "docs/geometry.md").read_text()
CONFIG = yaml.safe_load((ROOT / "config/papers/geometry.yaml").read_text())
RUNS = ("geometry-L-s0", "geometry-judge-s0", "geometry-sft-short-b24-s0", "geometry-dpo-s0", "geometry-grpo-s0")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_column(part):
    cells = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|", part, re.M)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


# ---- the page


def test_sets_models_and_experiments_of_geometry_are_on_its_page():
    assert set(facts.FOLDERS) <= first_column(section("Data"))
    assert set(CONFIG["models"]) <= first_column(section("The runs"))
    assert set(CONFIG["toy"]["settings"]) <= first_column(section("The toy model"))
    variants = first_column(section("The third phase"))
    assert {"base", *CONFIG["third_phase"]["variants"]} <= variants
    runs = section("The runs")
    experiments = load_config(ROOT / "config", {}).geometry.experiments
    for name in experiments:
        row = next(line for line in runs.splitlines() if line.startswith(f"| `{name}` |"))
        asking = {f for f, e in CATALOG.items() if e["paper"] == "geometry" and name in e["experiments"]}
        assert set(re.findall(r"`(geometry_\w+)`", row)) == asking, name


def test_the_examples_of_geometry_are_right(capsys):
    """All of its page and of the README, on a small decoder; what is printed is what the pages say."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    small = GPTNeoXConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(small).eval()
    ids = torch.randint(0, 64, (96, 12))
    names = {
        "model": model,
        "batches": [(part, torch.full((len(part),), 12)) for part in ids.split(32)],
        "reference": model,
        "batch": {
            "input_ids": ids[:4],
            "labels": ids[:4],
            "prompt": torch.full((4,), 9),
            "rejected_ids": ids[4:8],
            "rejected_labels": ids[4:8],
        },
    }
    blocks = [*re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S), example("README.md", "rank_me")]
    for source in blocks:
        kept = [line for line in source.splitlines() if "from_pretrained" not in line and "transformers" not in line]
        exec("\n".join(kept), names)
    printed = capsys.readouterr().out
    promised = re.findall(r"^(?:.*print\(.*\))  # (.+)$", "\n".join(blocks), re.M)
    assert len(promised) >= 6
    for line in promised:
        assert line in printed, line
    assert 1 <= names["rank"] <= 16 and np.isfinite(names["exponent"].alpha)
    assert names["tail"].logits.shape == names["whole"].logits.shape


# ---- columns


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Rows of real runs of the smoke scale, one of each stage, and of what needs no model, each (metrics, items)."""
    root = tmp_path_factory.mktemp("results") / "test"
    nouns = "matrix graph array value node edge list number order index input class method axis label shape"
    words = [*nouns.split(), *FUNCTION_WORDS]
    rng, rows = np.random.default_rng(0), []
    for package in ("networkx", "seaborn"):
        for split, number in (("train", 90), ("validation", 40), ("held_out", 40)):
            for _ in range(number):
                rows.append({"text": " ".join(rng.choice(words, 40)), "package": package, "split": split})
    corpus = root / "corpus.parquet"
    corpus.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(corpus)
    tokenizer, _ = text.train_tokenizer([row["text"] for row in rows], 600)
    text.save_tokenizer(tokenizer, root / "tokenizer")
    small = {
        "corpora": {"facts": {"small_vocabulary": None}},
        "third_phase": {"model": None},
        "measuring": {"checkpoints": 3},
    }
    config = load_config(
        ROOT / "config", {"scale": "smoke", "text": {"vocabulary": tokenizer.get_vocab_size()}, "geometry": small}
    )
    planned = plan(config, "geometry")
    spec = {**facts_spec(config), "folders": geometry_sets(config, planned)["facts"]["folders"]}
    inputs = {"corpus": corpus, "tokenizer": root / "tokenizer"}
    for folder, (splits, about) in facts.make_sets(spec, 0, inputs).items():
        store.save(root / "data/geometry" / folder / "dataset/0", splits, about)
    runs = [planned.runs[name] for name in RUNS]
    work = root / "work"
    for run in runs:
        train(run, root, work / run.name, code="c")
    group = GroupSpec(
        group="g", paper="geometry", scale="smoke", runs=runs, experiments=[planned.owner[name] for name in RUNS]
    )
    sequences = rng.integers(0, 9, (20, 12)).tolist()
    questions = {"facts": [(row[:6], row[6:8]) for row in sequences]}
    found, per_item = score(sequences, questions)
    ngrams = pd.DataFrame(found), per_item
    settings = {"main": {"counts": [4, 2, 1], "steps": 50, "records": 5, "dimension": 3}}
    return {"runs": collect(group, work), "ngrams": ngrams, "toy": toy_rows(settings, range(8))}


def test_columns_and_metrics_of_geometry_are_documented(measured):
    metrics, items = measured["runs"]
    shared = set(documented("metrics")) - {"prompt_length", "completion_length"}
    assert set(metrics.columns) - shared == set(documented("representation metrics"))
    assert shared <= set(metrics.columns)
    assert sorted(items.columns) == sorted(documented("items"))
    assert {*metrics["metric"], *items["metric"]} == set(documented("representation values"))
    table = (ROOT / "docs/columns.md").read_text().split("<!-- representation values -->")[1].split("\n\n")[0]
    stages = items.merge(metrics[["run", "stage"]].drop_duplicates(), on="run")
    pre = {"metrics": metrics, "items": stages}
    for names, stage, where in re.findall(r"^\| (`.+?`) \| (\S+) \| (\w+) \|", table, re.M):
        for name in re.findall(r"`([\w.]+)`", names):
            for file, frame in pre.items():
                mine = frame[frame["metric"] == name]
                assert bool(len(mine)) == (where in (file, "both")), name
                if len(mine):
                    kinds = {"pre" if one == "pretraining" else "post" for one in mine["stage"]}
                    assert kinds == ({"pre", "post"} if stage == "both" else {stage}), name


@pytest.mark.parametrize("kind", ["ngrams", "toy"])
def test_columns_of_what_needs_no_model_are_documented(measured, kind):
    """Columns that the scripts add to every row are on the page too."""
    metrics, items = measured[kind]
    known = set(documented(kind))
    assert {*metrics.columns, *items.columns} <= known
    added = {"paper", "experiment", "scale", "run", "seed", "data", "model", "step"}
    assert known <= {*metrics.columns, *items.columns, *added}
    assert {*metrics["metric"], *items["metric"]} == set(documented(f"{kind} values"))
