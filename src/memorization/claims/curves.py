"""Reading run tables for claims: rows, curves and epochs to a level."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from memorization.claims.statistics import MissingData

Names = str | Sequence[str]
SLACK = 1e-9  # EM is k/N in float64 and levels are decimals: 19/20 must count as .95


def groups(frame: pd.DataFrame, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Groups in the order of their key."""
    yield from frame.groupby(by, sort=True, observed=True)


def pick(frame: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """Rows that meet every condition: a value, a list of values, or None for any.

    MissingData names the first condition that no row meets.
    """
    for column, wanted in conditions.items():
        if wanted is None:
            continue
        if column not in frame:
            raise MissingData(f"The run tables have no column {column}.")
        allowed = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
        kept = frame[frame[column].isin(allowed)]
        if kept.empty:
            raise MissingData(f"No run measured {column} = {' or '.join(map(str, allowed))}.")
        frame = kept
    return frame


def curves(metrics: pd.DataFrame, metric: str = "exact_match", split: str = "train", **where: Any) -> pd.DataFrame:
    """Rows of one metric at the runs' default lengths, in step order, each measurement once."""
    rows = pick(metrics, metric=metric, split=split, **where)
    for name in ("prompt_length", "completion_length"):
        if f"default_{name}" in rows:
            rows = rows[rows[name] == rows[f"default_{name}"]]
    # A run that serves two experiments comes once for each.
    if rows.empty:
        raise MissingData(f"No run measured {metric} at its default lengths.")
    return rows.drop_duplicates(["run", "step", "subset"]).sort_values(["run", "subset", "step"])


def own(metrics: pd.DataFrame, data: Names, **where: Any) -> pd.DataFrame:
    """EM curves of single sets (their only subset has the set's name)."""
    rows = curves(metrics, data=data, **where)
    return rows[rows["subset"] == rows["data"]]


def epochs_to(rows: pd.DataFrame, level: float, by: list[str]) -> pd.DataFrame:
    """Epochs to EM `level` for each group of `by`: columns by, reached (inf if never), last (its last epoch).

    A run that is at the level at step 0 is given its first later evaluation, so that ratios stay finite.
    """
    records = []
    for key, run in groups(rows, by):
        first = run.loc[run["value"] >= level - SLACK, "epoch"].min()
        least = run.loc[run["epoch"] > 0, "epoch"].min()
        reached = np.inf if np.isnan(first) else max(first, least)
        records.append((*key, reached, run["epoch"].max()))
    return pd.DataFrame(records, columns=[*by, "reached", "last"])


def ratio(above: Mapping[Any, Any], below: Mapping[Any, Any]) -> float:
    """Ratio of two epochs to a level (rows of `epochs_to`).

    A censored run counts with its last epoch, and the other run with no more than that: censoring can only
    pull the ratio towards 1. Two censored runs give NaN.
    """
    top, bottom = float(above["reached"]), float(below["reached"])
    if np.isinf(top) and np.isinf(bottom):
        return np.nan
    if np.isinf(top):
        return float(above["last"]) / min(bottom, float(above["last"]))
    if np.isinf(bottom):
        return min(top, float(below["last"])) / float(below["last"])
    return top / bottom


def kept(per_seed: Mapping[Any, Any], what: str) -> dict[int, float]:
    """Drop seeds without a number; MissingData if none is left."""
    finite = {int(seed): float(value) for seed, value in per_seed.items() if np.isfinite(value)}
    if not finite:
        raise MissingData(f"No seed gives {what}.")
    return finite


def listed(names: Names) -> list[str]:
    """One name or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def parts(values: Mapping[Any, Any]) -> str:
    """`{"a": 1.0, "b": 24576.0}` as "a 1, b 24,576"."""
    texts = {name: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for name, value in values.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def item_values(items: pd.DataFrame, run: str, step: int, subset: str, split: str) -> np.ndarray:
    """(items,) EM of one run at one step, in item order; empty if not kept."""
    rows = items[(items["run"] == run) & (items["step"] == step) & (items["metric"] == "exact_match")]
    rows = rows[(rows["subset"] == subset) & (rows["split"] == split)].drop_duplicates("item")
    return rows.sort_values("item")["value"].to_numpy(float)


def total_items(rows: pd.DataFrame) -> int:
    """Items behind the curves, each run's and subset's once."""
    return int(rows.groupby(["run", "subset"])["n"].max().sum())
