"""Tables of the toy model of paper `geometry`: how many seeds show which phase, and what a few of them look like.

A table has several parts, named in column `part`:
    curve     by setting, metric and step: median over seeds (value), 10th and 90th percentile (low, high)
    example   RankMe and singular values of a seed that is shown, by step
    path      coordinates of features and classifier columns of a seed that is shown, by step, item and axis
    phase     share of seeds that show a phase, of the RankMe of features and of class means, 95 % Wilson interval
    size      median relative change of a phase with percentiles
    class     output for a sample's own class at the last step, by class, median with percentiles
Summaries have seed -1; `seeds` is how many are behind them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from memorization.tables.common import pick, reads, some
from memorization.theory.geometry_toy import PHASES, phase_changes

Params = dict[str, Any]
RANKS = ("rank_me", "rank_me_means")
SIGMAS = ("sigma_1", "sigma_2", "sigma_3")
BAND = (0.1, 0.9)  # percentiles over seeds, as shares
COLUMNS = [
    "part", "setting", "metric", "phase", "illustration", "seed", "step", "item", "class", "axis", "value", "low",
    "high", "seeds", "n",
]  # fmt: skip
EMPTY = {"phase": "", "illustration": "", "seed": -1, "step": -1, "item": -1, "class": -1, "axis": -1, "n": 1}


def _percentiles(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Median and percentiles over seeds, with the number of seeds, for every group."""
    groups = rows.groupby(list(by), sort=False)
    values = groups["value"]
    found = {"value": values.median(), "low": values.quantile(BAND[0]), "high": values.quantile(BAND[1])}
    return pd.DataFrame({**found, "seeds": groups["seed"].nunique(), "n": groups["n"].first()}).reset_index()


def phase_rows(curves: pd.DataFrame, minimum: float) -> pd.DataFrame:
    """Parts `phase` and `size` of the RankMe curves of one setting and metric.

    A phase is observed where RankMe changes by at least `minimum`, relatively. Phase `all` is all three in one seed.
    """
    wide = curves.pivot(index="seed", columns="step", values="value").sort_index(axis=1)
    phases = phase_changes(wide.to_numpy())
    seen = {phase: phases.observed(phase, minimum) for phase in PHASES}
    seen["all"] = np.logical_and.reduce(list(seen.values()))
    rows = []
    for phase, which in seen.items():
        number, seeds = int(which.sum()), len(which)
        interval = stats.binomtest(number, seeds).proportion_ci(method="wilson")
        rows.append(("phase", phase, number / seeds, interval.low, interval.high, seeds))
    for phase in PHASES:
        sizes = phases.size(phase)
        rows.append(("size", phase, np.median(sizes), *np.quantile(sizes, BAND), len(sizes)))
    return pd.DataFrame(rows, columns=["part", "phase", "value", "low", "high", "seeds"])


def _toy(
    metrics: pd.DataFrame, items: pd.DataFrame, params: Params, figure: str, settings: Sequence[str]
) -> pd.DataFrame:
    """All parts for some settings."""
    rows = pick(some(metrics, figure, "toy runs"), setting=list(settings))
    rows = some(rows, figure, f"toy runs of the settings {', '.join(settings)}")
    curves = pick(rows, metric=["loss", *RANKS, *SIGMAS])
    ends = pick(rows, metric="class_output")
    frames = [
        _percentiles(curves, ["setting", "metric", "step"]).assign(part="curve"),
        _percentiles(ends, ["setting", "metric", "class"]).assign(part="class"),
    ]
    for (setting, metric), part in pick(curves, metric=list(RANKS)).groupby(["setting", "metric"], sort=False):
        about = {"setting": str(setting), "metric": str(metric)}
        frames.append(phase_rows(part, params.get("minimum", 0.02)).assign(**about))
    shown = pick(items, setting=list(settings)) if len(items) else items
    if len(shown):
        frames.append(shown.assign(part="path"))
        seeds = shown[["setting", "seed", "illustration"]].drop_duplicates()
        examples = pick(curves, metric=[*RANKS, *SIGMAS])[["setting", "seed", "step", "metric", "value", "n"]]
        frames.append(examples.merge(seeds, on=["setting", "seed"]).assign(part="example"))
    table = pd.concat(frames, ignore_index=True).fillna(EMPTY).reindex(columns=COLUMNS)
    table["seeds"] = table["seeds"].fillna(1)
    whole = ["seed", "step", "item", "class", "axis", "seeds", "n"]
    return table.astype(dict.fromkeys(whole, int))


@reads("loss", "class_output", *RANKS, *SIGMAS, items=("feature", "classifier"))
def fig4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Skewed classes and fewer dimensions than classes, cross-entropy (Fig. 4)."""
    return _toy(metrics, items, params, "geometry_fig4", ["main"])


@reads("loss", "class_output", *RANKS, *SIGMAS, items=("feature", "classifier"))
def fig12(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Controls: classes of equal size, and a third dimension (Fig. 12)."""
    return _toy(metrics, items, params, "geometry_fig12", ["uniform", "wide"])


@reads("loss", "class_output", *RANKS, *SIGMAS, items=("feature", "classifier"))
def fig13(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Squared error in place of cross-entropy, for equal and for skewed classes (Fig. 13)."""
    return _toy(metrics, items, params, "geometry_fig13", ["mse_uniform", "mse_skewed"])
