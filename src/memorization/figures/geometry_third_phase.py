"""Figure of paper `geometry` about what brings its third phase: the variants of pre-training beside the base."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memorization.figures import style
from memorization.figures.common import NONE, line_key, mine, over_seeds
from memorization.figures.geometry_more import token_axis
from memorization.figures.geometry_phases import log_axis, phase_keys, phase_line
from memorization.figures.style import Look
from memorization.probes.phases import PHASES
from memorization.tables.common import pick

Params = dict[str, Any]
RISES = {"warmup": "Warmup", "entropy-seeking": "Entropy", "compression-seeking": "Compression"}
VARIANT, BASE = "#0072B2", "#8c8c8c"


def _variants(table: pd.DataFrame) -> list[str]:
    """The base first, then the others as they come."""
    names = [str(name) for name in mine(table)["variant"].drop_duplicates()]
    return sorted(names, key=lambda name: (name != "base", names.index(name)))


def _title(curve: pd.DataFrame, name: str) -> str:
    """Name of a variant, with its width where that is not the base's."""
    width, base = (pick(curve, variant=one)["width"].max() for one in (name, "base"))
    return name.replace("_", " ") + (f", width {width:g}" if width != base and np.isfinite(base) else "")


def _forest(ax: Axes, rows: pd.DataFrame, names: list[str], minimum: float) -> None:
    """Changes of one phase: a mark a seed, filled if observed, with its interval; the share observed at the right."""
    low, high = -np.log1p(minimum), np.log1p(minimum)
    ax.axvspan(low, high, color="#efefef", lw=0, zorder=0)
    ax.axvline(0, color=style.MUTED, lw=0.6, zorder=1)
    for y, name in enumerate(names):
        part = pick(rows, variant=name).sort_values("seed")
        shifts = 0.18 * (np.arange(len(part)) - (len(part) - 1) / 2) if len(part) < 6 else np.zeros(len(part))
        color = BASE if name == "base" else VARIANT
        for shift, (_, one) in zip(shifts, part.iterrows(), strict=True):
            yes = one["state"] == "observed"
            ax.hlines(y + shift, one["low"], one["high"], color=color, lw=0.8, zorder=3)
            ax.plot(one["value"], y + shift, "o", ms=3.2, mfc=color if yes else "white", mec=color, mew=0.8, zorder=4)
        said = f"{int(part['state'].eq('observed').sum())}/{len(part)}" if len(part) else NONE
        ax.text(1.02, y, said, transform=ax.get_yaxis_transform(), va="center", fontsize=6.5, color=style.INK)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")


FACTORS = (
    (0.001, 0.01, 0.1, 1, 10, 100, 1000), (0.03, 0.1, 0.3, 1, 3, 10, 30), (0.1, 0.2, 0.5, 1, 2, 5, 10),
    (0.25, 0.5, 1, 2, 4), (0.5, 0.7, 1, 1.4, 2), (0.6, 0.8, 1, 1.2, 1.5), (0.8, 0.9, 1, 1.1, 1.2),
    (0.9, 0.95, 1, 1.05, 1.1),
)  # fmt: skip


def _factor_axis(ax: Axes, rows: pd.DataFrame, minimum: float) -> None:
    """Changes of a logarithm as factors."""
    ends = rows[["low", "high", "value"]].to_numpy(float)
    edge = 1.3 * np.log1p(minimum)
    low, high = np.nanmin([*ends.ravel(), -edge]), np.nanmax([*ends.ravel(), edge])
    pad = 0.08 * (high - low)
    low, high = low - pad, high + pad
    ax.set_xlim(low, high)
    shown = [np.log([f for f in factors if low <= np.log(f) <= high]) for factors in FACTORS]
    # the most that leave room for their numbers
    fitting = [t for t in shown if len(t) < 2 or np.diff(t).min() > 0.23 * (high - low)]
    ticks = max(fitting, key=len, default=np.zeros(1))
    ax.set_xticks(ticks, [f"×{np.exp(tick):.3g}" for tick in ticks])
    ax.set_xlabel("RankMe, factor")


def x_third_phase(table: pd.DataFrame, params: Params) -> Figure:
    """Above: RankMe of every variant beside the base. Below: sizes of the phases, and whether they were observed."""
    own = mine(table)
    names = _variants(table)
    others = [name for name in names if name != "base"] or names
    across = min(len(others), 4)
    down = int(np.ceil(len(others) / across))
    below = 0.55 + 0.26 * len(names)
    figure = style.new_figure(params.get("width", "page"), 0.55 + 1.35 * down + below)
    upper, lower = figure.subfigures(2, 1, height_ratios=[0.45 + 1.35 * down, below], squeeze=False).ravel()
    axes = upper.subplots(down, across, squeeze=False, sharey=True).ravel()
    curve = pick(own, metric="rank_me")
    for ax, name in zip(axes, others, strict=False):
        phase_line(ax, pick(curve, variant="base"), BASE, log=True)
        if name != "base":
            phase_line(ax, pick(curve, variant=name), VARIANT, log=True)
        log_axis(ax)
        token_axis(ax, curve["tokens"])
        ax.set_title(_title(curve, name))
    for ax in axes[len(others) :]:
        ax.set_axis_off()
    for i, ax in enumerate(axes[: len(others)]):
        ax.set_ylabel("RankMe" if i % across == 0 else "")
        if i + across < len(others):
            ax.set_xlabel("")
    keys = [line_key(Look("base", BASE)), line_key(Look("variant", VARIANT)), *phase_keys(pick(own, metric="rank_me"))]
    upper.legend(handles=keys, loc="outside upper center", ncols=len(keys), columnspacing=1.3, handlelength=1.8)

    minimum = params.get("minimum", 0.1)
    changes, contrasts = pick(own, metric="change"), pick(own, metric="contrast", phase=PHASES[2])
    forest = lower.subplots(1, 4, sharey=True)
    for ax, phase in zip(forest, PHASES, strict=False):
        rows = pick(changes, phase=phase)
        _forest(ax, rows, names, minimum)
        _factor_axis(ax, rows, minimum)
        ax.set_title(RISES[phase])
    forest[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    for ax in forest:
        ax.tick_params(axis="y", length=0)
    ax = forest[3]
    ax.axvline(0, color=style.MUTED, lw=0.6, zorder=1)
    for y, name in enumerate(names):
        part = pick(contrasts, variant=name)
        mean, low, high = over_seeds(part) if len(part) else (np.nan, np.nan, np.nan)
        if np.isfinite(mean):
            if np.isfinite(low):
                ax.hlines(y, low, high, color=VARIANT, lw=0.9, zorder=3)
            ax.plot(mean, y, "D", ms=3.6, color=VARIANT, mec="white", mew=0.4, zorder=4)
    spread = [over_seeds(pick(contrasts, variant=name)) for name in names if len(pick(contrasts, variant=name))]
    _factor_axis(ax, pd.DataFrame(spread or [(0.0, 0.0, 0.0)], columns=["value", "low", "high"]), minimum)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.set_title("Compression / base")
    style.panel_letters([*axes[: len(others)], *forest])
    return style.sign(figure, params)
