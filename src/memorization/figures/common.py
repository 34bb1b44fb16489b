"""What several papers' figures share: grids of panels, bars over buckets, means with intervals, cells of tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memorization.claims.statistics import seed_interval
from memorization.figures import style

NONE = "–"  # a cell without a value


def grid_of_panels(
    number: int, width: str, across: int, panel_height: float = 1.35, extra: float = 0.35
) -> tuple[Figure, list[Axes]]:
    """Return a figure and `number` panels in rows of at most `across`; unused places stay empty."""
    across = max(1, min(across, number))
    down = int(np.ceil(number / across))
    figure = style.new_figure(width, extra + panel_height * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax in axes[number:]:
        ax.set_axis_off()
    return figure, list(axes[:number])


def fewest_gaps(number: int, choices: Sequence[int] = (5, 4, 3)) -> int:
    """How many panels to put side by side so that the fewest places stay empty."""
    return number if number <= min(choices) else min(choices, key=lambda across: -number % across)


def outer_labels(axes: Sequence[Axes], across: int) -> None:
    """Keep axis labels only at the left column and at the lowest panel of each column."""
    for i, ax in enumerate(axes):
        if i % across:
            ax.set_ylabel("")
        if i + across < len(axes):
            ax.set_xlabel("")


def conditions(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Pairings (model, items) in a table, from little to much data and from small to large model."""
    columns = ["items", "parameters", "model"]
    rows = table[columns].drop_duplicates().sort_values(columns).to_dict("records")
    return [(str(row["model"]), int(row["items"])) for row in rows]


def bucket_bars(ax: Axes, part: pd.DataFrame, color: str, shift: float = 0.0, share: float = 0.84) -> pd.DataFrame:
    """Bars of the mean over seeds per epoch bucket, a hatched bar right of them for "never", whiskers over
    seeds.

    part: columns bucket (-1 = never), seed, value (percent). `share` is the width of the bar in units of a
    bucket and `shift` moves it, for bars side by side. Returns the bars: bucket, mean, low, high.
    """
    bars = style.over_seeds(part, "bucket")
    last = int(bars["bucket"].max()) + 1
    x = bars["bucket"].where(bars["bucket"] >= 0, last + 0.6) + 0.5 + shift
    never = bars["bucket"] < 0
    ax.bar(x[~never], bars["mean"][~never], share, color=color, linewidth=0)
    ax.bar(x[never], bars["mean"][never], share, color="white", edgecolor=color, hatch="/////", linewidth=0.7)
    if (bars["seeds"] > 1).any():
        ax.vlines(x, bars["low"], bars["high"], color=style.INK, lw=0.7)
    return bars.assign(x=x)


def bucket_axis(ax: Axes, part: pd.DataFrame) -> None:
    """Bucket edges in epochs on x, and a place for "never"."""
    edges = part.loc[part["bucket"] >= 0, ["bucket", "bucket_start", "bucket_end"]].drop_duplicates("bucket")
    edges = edges.sort_values("bucket")
    number = len(edges)
    step = max(1, int(np.ceil(number / 4)))
    at = [*range(0, number + 1, step)]
    epochs = [0.0, *edges["bucket_end"]]
    ax.set_xticks([*at, number + 1.1], [*(f"{epochs[k]:.0f}" for k in at), "never"])
    ax.set_xlim(-0.2, number + 1.8)
    ax.grid(False, axis="x")


def over_seeds(rows: pd.DataFrame, low: float = -np.inf, high: float = np.inf) -> tuple[float, float, float]:
    """Mean and 95 % t interval of the mean over seeds, cut to [low, high]; no interval below three seeds."""
    values, seeds = rows["value"].to_numpy(float), rows["seed"].to_numpy()
    known = np.isfinite(values)
    means = np.array([values[known & (seeds == seed)].mean() for seed in np.unique(seeds[known])])
    if not len(means):
        return np.nan, np.nan, np.nan
    ends = seed_interval(means)
    return float(means.mean()), float(np.clip(ends[0], low, high)), float(np.clip(ends[1], low, high))


def bars(mean: float, low: float, high: float) -> np.ndarray | None:
    """Lengths of an error bar below and above, as matplotlib wants them; None without an interval."""
    return None if np.isnan(low) else np.array([[max(0.0, mean - low)], [max(0.0, high - mean)]])


def cell(rows: pd.DataFrame, digits: int, factor: float) -> str:
    """Mean over seeds, and behind a tab half the interval unless it is unknown or rounds to nothing."""
    mean, low, high = over_seeds(rows)
    if np.isnan(mean):
        return NONE
    half = f"{factor * (high - low) / 2:.{digits}f}"
    return f"{factor * mean:.{digits}f}" + (f"\t±{half}" if np.isfinite(high - low) and float(half) > 0 else "")
