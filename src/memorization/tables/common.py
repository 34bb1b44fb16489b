"""Bookkeeping that every table shares: which rows of a run count, on which grid of steps, and what happened
to each item.

Nothing here is a statistic: means, intervals and tests belong to the figure or to `memorization.claims`.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError

# One training run at one condition; `experiment` comes first because a run may serve several experiments.
RUN = ["experiment", "run", "data", "model", "items", "batch_size", "parameters", "seed"]
CONDITION = ["experiment", "data", "model", "items", "batch_size", "parameters"]
ITEM = ["run", "subset", "split", "item"]
# Exact match is k/N in float64, levels are decimal literals: 19/20 must count as having reached 0.95.
SLACK = 1e-9


# ------------------------------------------------------------------------------------------------------------
# Finding functions


def figure_function(package: str, figure: str) -> Callable[..., Any]:
    """Return the function behind a figure: ("tables", "patterns_fig2a") is
    memorization.tables.patterns.fig2a.
    """
    words = figure.split("_")
    for k in range(1, len(words)):
        paper, name = "_".join(words[:k]), "_".join(words[k:])
        if find_spec(f"memorization.{package}.{paper}"):
            function = getattr(import_module(f"memorization.{package}.{paper}"), name, None)
            if callable(function):
                return function
    raise UserError(
        f"config/figures.yaml names {figure}, but src/memorization/{package}/ has no function for it: "
        f"write <paper>_<function>, like patterns_fig2a for fig2a in {package}/patterns.py."
    )


def reads(*metrics: str, items: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say which metrics a table function needs, so that no others are loaded: `function.reads`."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.reads = (list(metrics), list(items))  # type: ignore[attr-defined]
        return function

    return mark


# ------------------------------------------------------------------------------------------------------------
# Choosing rows


def pick(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows whose columns equal the wanted value, or are among the wanted list; `None` means any."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in wanted.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple | set) else [value]
        keep &= frame[column].isin(list(values)).to_numpy()
    return frame[keep]


def some(frame: pd.DataFrame, figure: str, what: str) -> pd.DataFrame:
    """The frame itself; a `UserError` if it is empty, because an empty panel would look like a result."""
    if frame.empty:
        raise UserError(
            f"Figure {figure} has nothing to show: no rows of {what} among the runs it was given. "
            f"Check `experiments` of {figure} in config/figures.yaml and the probes of those runs."
        )
    return frame


def at_default_lengths(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows measured with the run's own prompt and completion length, not with a variant of it."""
    same = (metrics["prompt_length"] == metrics["default_prompt_length"]) & (
        metrics["completion_length"] == metrics["default_completion_length"]
    )
    return metrics[same]


def whole_set(metrics: pd.DataFrame) -> pd.DataFrame:
    """One value per evaluation: the pooled row (`all`) of a mixture, the only row of a single set."""
    pooled = metrics["subset"].eq("all")
    has_pooled = pooled.groupby([metrics["run"], metrics["split"], metrics["metric"]]).transform("any")
    return metrics[pooled | (~has_pooled & metrics["subset"].eq(metrics["data"]))]


def each_run_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep a run under the first experiment that asked for it, so that no run is counted twice."""
    owner = frame.groupby("run", sort=False)["experiment"].transform("first")
    return frame[frame["experiment"] == owner]


# ------------------------------------------------------------------------------------------------------------
# Curves


def carry_forward(curves: pd.DataFrame, group: Sequence[str], series: Sequence[str]) -> pd.DataFrame:
    """Put the series of each group on the union of their steps; a stopped run repeats its last value.

    Parameters
    ----------
    curves
        One row per evaluation with `step`, `epoch` and whatever is to be carried.
    group
        Columns within which series are averaged, so that they need one grid (not the seed).
    series
        Columns that tell the series of a group apart (the run).

    Returns
    -------
    pandas.DataFrame
        Same columns plus `carried`: True where the run had already stopped.
    """
    pieces = []
    for _, part in curves.groupby(list(group), sort=False, dropna=False):
        epochs = part.groupby("step")["epoch"].first()
        grid = epochs.index.to_numpy()
        for _, one in part.groupby(list(series), sort=False, dropna=False):
            one = one.drop_duplicates("step").sort_values("step")
            steps = one["step"].to_numpy()
            last_seen = np.searchsorted(steps, grid, side="right") - 1
            started = last_seen >= 0  # no value before the first evaluation
            full = one.iloc[last_seen[started]].copy()
            full["step"] = grid[started]
            full["epoch"] = epochs.to_numpy()[started]
            full["carried"] = grid[started] > steps[-1]
            pieces.append(full)
    if not pieces:
        return curves.assign(carried=pd.Series(dtype=bool))
    return pd.concat(pieces, ignore_index=True)


def epochs_to_level(curve: pd.DataFrame, level: float) -> tuple[float, float, bool]:
    """First (step, epoch) at which `value` reaches `level`, and whether it never did.

    A level never reached is censored, not missing: (NaN, NaN, True).
    """
    reached = curve[curve["value"] >= level - SLACK]
    if reached.empty:
        return np.nan, np.nan, True
    first = reached.sort_values("step").iloc[0]
    return float(first["step"]), float(first["epoch"]), False


def times_to_levels(curves: pd.DataFrame, levels: Iterable[float], series: Sequence[str]) -> pd.DataFrame:
    """Epochs to each level, one row per series and level.

    Returns columns `series`, `metric` ("epochs_to_level"), `level`, `step`, `value` (epochs, NaN when
    censored), `last_epoch` (how long we looked) and `censored`.
    """
    rows = []
    for key, curve in curves.groupby(list(series), sort=False, dropna=False):
        for level in levels:
            step, epoch, censored = epochs_to_level(curve, level)
            rows.append((*key, "epochs_to_level", level, step, epoch, curve["epoch"].max(), censored))
    columns = [*series, "metric", "level", "step", "value", "last_epoch", "censored"]
    return pd.DataFrame(rows, columns=columns)


def last_values(curves: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """The row of the last step of every series."""
    return curves.loc[curves.groupby(list(series), dropna=False)["step"].idxmax()]


# ------------------------------------------------------------------------------------------------------------
# Items


def item_histories(items: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Training items' 0/1 status at every evaluation, with the run's condition, its epoch and the change
    since the last one.

    `change` is +1 (memorized since the last evaluation), -1 (forgotten since) or 0; an item memorized at its
    first evaluation counts as +1.
    """
    runs = metrics[[*RUN, "step", "epoch"]]
    runs = runs[runs["step"] > 0].drop_duplicates(["experiment", "run"])
    runs = runs.assign(epochs_per_step=runs["epoch"] / runs["step"]).drop(columns=["step", "epoch"])
    history = pick(items, metric="exact_match", split="train")
    history = history[["experiment", *ITEM, "step", "value"]].merge(runs, on=["experiment", "run"])
    history["epoch"] = history["step"] * history["epochs_per_step"]
    history = history.sort_values(["experiment", *ITEM, "step"], ignore_index=True)
    status = history["value"].ge(0.5).astype(np.int64)
    before = status.groupby([history[c] for c in ["experiment", *ITEM]]).shift(fill_value=0)
    history["change"] = status - before
    return history.drop(columns="epochs_per_step")


def forgettings(history: pd.DataFrame) -> pd.DataFrame:
    """Number of 1 -> 0 transitions of every item: one row per item, count in `value`."""
    counted = history.assign(value=history["change"].eq(-1).astype(float))
    return counted.groupby([*RUN, "subset", "split", "item"], sort=False)["value"].sum().reset_index()


def first_events(history: pd.DataFrame) -> pd.DataFrame:
    """Epoch at which every item is first memorized and first forgotten: two rows per item, NaN in `value` for
    never.
    """
    keys = [*RUN, "subset", "split", "item"]
    everyone = history[keys].drop_duplicates()
    events = []
    for name, change in (("first_memorized", 1), ("first_forgotten", -1)):
        first = history[history["change"] == change].groupby(keys, sort=False)["epoch"].min().rename("value")
        events.append(everyone.merge(first.reset_index(), on=keys, how="left").assign(metric=name))
    return pd.concat(events, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------
# Sizes


def linear_fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least-squares (slope, intercept, R squared); NaN when fewer than two different x were seen."""
    if len(np.unique(x)) < 2:
        return np.nan, np.nan, np.nan
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.sum((y - slope * x - intercept) ** 2)
    spread = np.sum((y - np.mean(y)) ** 2)
    return float(slope), float(intercept), float(1 - residual / spread) if spread > 0 else np.nan


def minimal_models(best: pd.DataFrame, level: float, by: Sequence[str]) -> pd.DataFrame:
    """Parameters of the smallest model whose best exact match (`value`) reaches `level`, for every `by`
    group.

    Returns `by`, `value` (parameters, NaN when no model reached the level) and `censored`.
    """
    rows = []
    for key, part in best.groupby(list(by), sort=True):
        able = part.loc[part["value"] >= level - SLACK, "parameters"]
        rows.append((*key, float(able.min()) if len(able) else np.nan, able.empty))
    return pd.DataFrame(rows, columns=[*by, "value", "censored"])


# ------------------------------------------------------------------------------------------------------------
# Published values


def with_published(table: pd.DataFrame, published: pd.DataFrame | None, on: Sequence[str]) -> pd.DataFrame:
    """Add column `published`: the paper's number where a row has the paper's own condition (`on`).

    Published conditions that we did not run are appended with an empty `value`: they belong to another size,
    and the reader should see them beside ours rather than not at all.
    """
    if published is None or published.empty:
        return table.assign(published=np.nan)
    theirs = published[[*on, "value"]].rename(columns={"value": "published"})
    for column in on:  # a CSV column with gaps is read as float or object
        theirs[column] = theirs[column].astype(table[column].dtype)
    joined = table.merge(theirs, on=list(on), how="left")
    ours = pd.MultiIndex.from_frame(table[list(on)])
    rest = theirs[~pd.MultiIndex.from_frame(theirs[list(on)]).isin(ours)]
    if rest.empty:
        return joined
    return pd.concat([joined, rest.assign(seed=-1)], ignore_index=True)
