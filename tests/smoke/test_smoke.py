"""The whole DAG at its smallest size, as `make smoke` runs it, in a copy of the repository."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from memorization.provenance.record import read_provenance, read_table
from workspace import REPOSITORY, Workspace, make_workspace

CATALOG = yaml.safe_load((REPOSITORY / "config" / "figures.yaml").read_text())


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The finished smoke run; its output is kept in `said`."""
    workspace = make_workspace(tmp_path_factory.mktemp("smoke"))
    done = subprocess.run(
        [sys.executable, "-m", "memorization.cli", "run", "--scale", "smoke"],
        cwd=workspace.folder,
        env=workspace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    workspace.said = done.stdout
    return workspace


@pytest.mark.parametrize("figure", list(CATALOG))
def test_every_figure_is_there_with_its_numbers(smoke, figure):
    import matplotlib.image

    paths = {kind: smoke.path("figures", f"{figure}.{kind}") for kind in ("pdf", "png", "csv")}
    assert all(path.stat().st_size > 0 for path in paths.values())
    assert matplotlib.image.imread(paths["png"]).std() > 0.01, "a blank picture"
    assert len(pd.read_csv(paths["csv"])) > 0
    table = smoke.path(CATALOG[figure]["paper"], "tables", f"{figure}.parquet")
    assert len(read_table(table)) > 0 and read_provenance(table)["versions"]["python"]


def test_every_run_is_measured_and_saved(smoke):
    manifests = [json.loads(path.read_text()) for path in smoke.path("train").glob("*/manifest.json")]
    runs = {name: run for manifest in manifests for name, run in manifest["runs"].items()}
    assert len(runs) > 25
    for name, run in runs.items():
        folder = smoke.path(run["model"])
        assert (folder / "model.safetensors").is_file() and (folder / "config.json").is_file(), name
        assert run["steps"] == run["spec"]["steps"] or run["stopped"] == "converged"
    assert not list(smoke.path("train").rglob("work*")), "work folders are removed"


def test_a_saved_model_loads_with_transformers_alone(smoke):
    from transformers import AutoModelForCausalLM

    folder = next(smoke.path("models").iterdir())
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0


def test_no_claim_is_tested_at_this_scale(smoke):
    claims = pd.read_csv(smoke.path("claims.csv"))
    papers = list(dict.fromkeys(entry["paper"] for entry in CATALOG.values()))
    files = [REPOSITORY / "config" / "claims" / f"{paper}.yaml" for paper in papers]
    wanted = [claim["claim"] for path in files for claim in yaml.safe_load(path.read_text())["claims"]]
    assert sorted(claims["claim"]) == sorted(wanted) and set(claims["paper"]) == set(papers)
    assert set(claims["verdict"]) == {"not tested"} and set(claims["scale"]) == {"smoke"}
    assert smoke.path("claims.html").stat().st_size > 1000 and "not tested" in smoke.path("claims.md").read_text()


def test_the_report_holds_claims_figures_and_captions(smoke):
    report = smoke.path("report.html").read_text()
    caption = "one curve per data set trained alone"
    wanted = ["figures/patterns_fig2a.png", "claims.html", "every claim with its verdict", caption]
    missing = [text for text in wanted if text not in report]  # a plain assert would print megabytes
    assert not missing


def test_every_job_has_a_log_and_a_benchmark(smoke):
    logs = {path.relative_to(smoke.path("logs")).with_suffix("") for path in smoke.path("logs").rglob("*.log")}
    times = {
        path.relative_to(smoke.path("benchmarks")).with_suffix("") for path in smoke.path("benchmarks").rglob("*.tsv")
    }
    assert times and logs == times


def test_no_log_has_a_traceback(smoke):
    for path in smoke.path("logs").rglob("*.log"):
        assert "Traceback" not in path.read_text(), path


def test_the_end_says_where_everything_is_and_what_starting_cost(smoke):
    for path in ("results/smoke/report.html", "results/smoke/figures", "results/smoke/claims.md"):
        assert path in smoke.said
    assert "importing torch and transformers took" in smoke.said


def test_data_sets_load_with_datasets_alone_and_have_cards(smoke):
    from datasets import load_from_disk

    for folder in smoke.path("data").glob("*/*"):
        if (folder / "dataset").is_dir():
            card = json.loads((folder / "card.json").read_text())
            for seed, facts in card["seeds"].items():
                splits = load_from_disk(str(folder / "dataset" / seed))
                assert {split: len(rows) for split, rows in splits.items()} == facts["items"]
    corpus = json.loads(smoke.path("data", "text", "card.json").read_text())
    assert {"sha256", "packages", "function_word_share"} <= set(corpus)


def test_a_second_run_has_nothing_to_do(smoke):
    smoke.configure(scale="smoke")
    assert "Nothing to be done" in smoke.snakemake("-n")


def test_results_are_below_the_results_folder_only(smoke):
    made = {path.name for path in Path(smoke.folder).iterdir()}
    assert made <= {"Snakefile", "rules", "workflow", "config", "src", "profiles", "results", "user.yaml", ".snakemake"}
