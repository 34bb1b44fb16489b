"""What several papers' figures share: grids of panels, bars over buckets, means with intervals, cells of tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memorization.claims.statistics import seed_interval
from memorization.figures import style
from memorization.figures.style import Look
from memorization.tables.common import pick

NONE = "–"  # a cell without a value
HOLLOW: dict[str, Any] = {"mfc": "white", "mew": 0.8, "ls": "", "ms": 3.6}


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


def mine(table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Rows of ours."""
    return pick(table, source="ours", **chosen)


def papers(table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    """Rows of the paper."""
    return pick(table, source="paper", **chosen)


def percent(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows in percent."""
    return rows.assign(value=100 * rows["value"])


def summary(rows: pd.DataFrame, x: str, low: float = -np.inf, high: float = np.inf, log: bool = False) -> pd.DataFrame:
    """Mean over seeds and 95 % t interval at every x: columns x, mean, low, high; no interval below three seeds.

    log: geometric mean, and the interval of the mean logarithm.
    """
    if log:
        rows = rows[rows["value"] > 0].assign(value=lambda t: np.log(t["value"]))
    wide = rows.pivot_table(index=x, columns="seed", values="value", aggfunc="mean").sort_index()
    values = wide.to_numpy(float)
    mean, ends = np.nanmean(values, axis=1), np.full((2, len(values)), np.nan)
    for seeds in np.unique(
        np.isfinite(values).sum(axis=1)
    ):  # places that some seed lacks have an interval of the others
        here = np.isfinite(values).sum(axis=1) == seeds
        few = values[here]
        ends[:, here] = seed_interval(few[np.isfinite(few)].reshape(len(few), seeds))
    ends = ends.clip(low, high)
    found = np.exp([mean, *ends]) if log else np.array([mean, *ends])
    return pd.DataFrame({x: wide.index.to_numpy(), "mean": found[0], "low": found[1], "high": found[2]})


def curve(ax: Axes, rows: pd.DataFrame, look: Look, x: str = "share", **limits: Any) -> None:
    """Mean over seeds as a line, its interval as a band; nothing without rows."""
    if rows.empty:
        return
    drawn = summary(rows, x, **limits)
    ax.plot(drawn[x], drawn["mean"], color=look.color, linestyle=look.dash, solid_capstyle="round", zorder=3)
    ax.fill_between(drawn[x], drawn["low"], drawn["high"], color=look.color, alpha=0.15, linewidth=0, zorder=2)


def hollow(ax: Axes, x: Any, y: Any, look: Look, **more: Any) -> None:
    """Marks of the paper."""
    ax.plot(x, y, marker=look.marker, mec=look.color, zorder=5, **{**HOLLOW, **more})


def line_key(look: Look) -> Line2D:
    """Entry of a key: a solid line in the look's color."""
    return Line2D([], [], color=look.color, ls=look.dash, label=look.label)


def mark_key(look: Look, filled: bool = True, label: str | None = None) -> Line2D:
    """Entry of a key: a mark, filled for ours and open for the paper's."""
    about: dict[str, Any] = {"mec": "white", "mew": 0.4, "ms": 5} if filled else {"mfc": "white", "mew": 0.8, "ms": 4}
    if not filled:
        about["mec"] = look.color
    return Line2D([], [], color=look.color, marker=look.marker, ls="", label=label or look.label, **about)


def key(figure: Figure, handles: Sequence[Any], ncols: int | None = None) -> None:
    """Key above all panels."""
    figure.legend(
        handles=list(handles), loc="outside upper center", ncols=ncols or len(handles), columnspacing=1.3,
        handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip


def letters(axes: Iterable[Axes], titles: Sequence[str] = ()) -> None:
    """Panel letters, and titles right of them over the first panels; more panels than letters have none."""
    axes = list(axes)
    if len(axes) <= 26:
        style.panel_letters(axes)
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title, fontsize=7.5)
