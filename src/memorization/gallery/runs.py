"""What a run left behind: verdicts, provenance, times."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memorization.config import Config
from memorization.errors import UserError
from memorization.figures.catalog import FigureEntry
from memorization.plan import arm_group_spec, models_of, plan
from memorization.provenance.record import read_provenance

Catalog = dict[str, FigureEntry]
NAMED = 3  # missing files that an error names
# folder of what is measured without training -> its rule, which its benchmark file is named by
APART = {"geometry/ngrams": "score_ngrams", "geometry/toy": "simulate_toy"}


def read_ledger(results: Path, papers: Sequence[str], scale: str) -> pd.DataFrame:
    """Read claims.csv with empty text as ""; UserError when there is none, or none of one of the papers."""
    path = results / "claims.csv"
    if not path.is_file():
        raise UserError(f"there are no results in {results} (no claims.csv): run `make figures SCALE={scale}` first")
    ledger = pd.read_csv(path)
    without = [paper for paper in papers if paper not in set(ledger["paper"])]
    if without:
        raise UserError(f"{path} has no claims of {', '.join(without)}: run `make figures SCALE={scale}` first")
    text = ["published_note", "reason", "tables", "note"]
    return ledger.assign(**{name: ledger[name].fillna("").astype(str) for name in text})


def rows_of(ledger: pd.DataFrame, paper: str) -> list[dict[str, Any]]:
    """Rows of a paper in the ledger, by column name."""
    rows = ledger[ledger["paper"] == paper].to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def results_record(results: Path, catalog: Catalog, scale: str) -> dict[str, Any]:
    """Where the numbers come from: commit, date and config digest of every table, versions of the newest.

    UserError when the table of a figure is not there.
    """
    paths = {name: results / entry.paper / "tables" / f"{name}.parquet" for name, entry in catalog.items()}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise UserError(
            f"{results} has no tables of {', '.join(missing[:NAMED])}{more}: run `make figures SCALE={scale}` first"
        )
    notes = {name: read_provenance(path) for name, path in paths.items()}
    newest = max(notes.values(), key=lambda note: note["date"])
    return {
        "scale": scale,
        "commit": newest["git"]["commit"],
        "dirty": newest["git"]["dirty"],
        "date": newest["date"],
        "versions": newest["versions"],
        "platform": newest["platform"],
        "tables": {
            name: {"commit": note["git"]["commit"], "date": note["date"], "config": note["config"]}
            for name, note in notes.items()
        },
    }


def benchmark(path: Path) -> float:
    """Wall seconds of the job that wrote a benchmark file; NaN when there is none."""
    if not path.is_file():
        return float("nan")
    return float(pd.read_csv(path, sep="\t")["s"].sum())


def jobs_behind(config: Config, paper: str, experiments: Sequence[str]) -> list[str]:
    """Training and decoding jobs that experiments need, as their benchmark files are named: "train/<group>",
    "decode_arms/<job>"; and what is measured without training, by rule.

    Training jobs are those whose rows are read, those whose models a decoding job loads, and those that these start
    from.
    """
    planned = plan(config, paper)
    owner = planned.group_of()
    training, decoding, apart = [], [], []
    for folder in planned.tables_for(experiments):
        kind, _, job = folder.rpartition("/")
        if kind == "train":
            training.append(job)
            continue
        if folder in APART:
            apart.append(APART[folder])
            continue
        decoding.append(f"decode_arms/{job}")
        training += [owner[ref.run] for ref in models_of(arm_group_spec(config, job)) if ref.run]
    for job in training:  # grows on the way
        training += [first for first in planned.needed_first(job) if first not in training]
    return [f"train/{job}" for job in dict.fromkeys(training)] + decoding + apart


def figure_seconds(results: Path, figure: str, catalog: Catalog, config: Config) -> float:
    """Wall seconds of one figure's jobs, added up: training, decoding, table, drawing. NaN if one is unknown."""
    entry = catalog[figure]
    names = [name for name, other in catalog.items() if other.paper == entry.paper]
    piece = f"{entry.paper}_{names.index(figure) // config.compute.pieces_per_job}"
    jobs = jobs_behind(config, entry.paper, entry.experiments) if entry.needs else []
    jobs += [f"make_tables/{piece}", f"plot/{piece}"]
    return sum((benchmark(results / "benchmarks" / f"{job}.tsv") for job in jobs), 0.0)


def total_seconds(results: Path) -> tuple[int, float]:
    """(jobs, their wall seconds added up) of everything a scale has run."""
    paths = sorted((results / "benchmarks").rglob("*.tsv"))
    return len(paths), sum(map(benchmark, paths), 0.0)
