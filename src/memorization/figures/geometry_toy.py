"""Figures of the toy model of paper `geometry`: paths in the plane, RankMe and singular values, shares of seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from memorization.figures import style
from memorization.figures.style import Look
from memorization.tables.common import pick

Params = dict[str, Any]
CLASS_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6b6b6b", "#000000")
RANKS = {
    "rank_me": Look("RankMe, features", "#6A3D9A", "o"),
    "rank_me_means": Look("RankMe, class means", "#D55E00", "s", style.DASHED),
}
SIGMAS = {
    "sigma_1": Look("σ$_1$", "#0B2545", "o"),
    "sigma_2": Look("σ$_2$", "#3A7CA5", "o", style.DASHED),
    "sigma_3": Look("σ$_3$", "#81C3D7", "o", style.DOTTED),
}
PHASE_NAMES = {
    "warmup": "falls first\n(warmup)", "entropy_seeking": "rises\n(entropy)",
    "compression_seeking": "falls last\n(compression)", "all": "all three",
}  # fmt: skip
SETTING_NAMES = {
    "main": "Skewed classes", "uniform": "Equal classes", "wide": "Skewed classes, d = 3",
    "mse_uniform": "MSE, equal classes", "mse_skewed": "MSE, skewed classes",
}  # fmt: skip
THIS_SEED = Look("seed of a and b", style.INK, "o", style.DOTTED)


# ------------------------------------------------------------------------------------------------------------
# Panels


def step_axis(ax: Axes, last: int) -> None:
    """Log-spaced steps from 1 on, and step 0 at their left."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    ax.set_xlim(0, last)
    powers = 10 ** np.arange(0, np.log10(max(last, 10)) + 1e-9, 2 if last > 1000 else 1)
    ax.set_xticks([0, *powers], ["0", "1", *(f"$10^{{{round(np.log10(at))}}}$" for at in powers[1:])])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Step")


def _curves(ax: Axes, rows: pd.DataFrame, looks: dict[str, Look], label: str) -> None:
    """Medians over seeds with their percentiles, a curve a metric; a single seed has no band."""
    for metric, look in looks.items():
        part = pick(rows, metric=metric).sort_values("step")
        if part.empty:
            continue
        ax.plot(part["step"], part["value"], color=look.color, ls=look.dash, label=look.label, zorder=3)
        if (part["seeds"] > 1).any():
            ax.fill_between(part["step"], part["low"], part["high"], color=look.color, alpha=0.15, lw=0, zorder=2)
    step_axis(ax, int(rows["step"].max()))
    ax.set_ylabel(label)


def rank_axis(ax: Axes, dimension: int) -> None:
    """RankMe from 1 to the dimension."""
    ax.set_ylim(0.97, dimension + 0.03)
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _paths(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Way of every feature or classifier column in the plane, from an open mark to a filled one, colored by class."""
    thin = metric == "feature"
    for _, one in pick(rows, metric=metric).groupby("item"):
        wide = one.pivot(index="step", columns="axis", values="value").sort_index()
        color = CLASS_COLORS[int(one["class"].iloc[0]) % len(CLASS_COLORS)]
        ax.plot(wide[0], wide[1], color=color, lw=0.7 if thin else 1.2, alpha=0.8 if thin else 1, zorder=3)
        ax.plot(*wide.iloc[0], "o", ms=2, mfc="white", mec=color, mew=0.5, zorder=4)
        ax.plot(*wide.iloc[-1], "o", ms=3 if thin else 4, color=color, mec="white", mew=0.4, zorder=5)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.12)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_xlabel("Dimension 1")
    ax.set_ylabel("Dimension 2", labelpad=1)


def _shares(ax: Axes, rows: pd.DataFrame) -> None:
    """Share of seeds that show a phase, with intervals, of features and of class means."""
    phases = list(PHASE_NAMES)
    for shift, (metric, look) in zip((-0.17, 0.17), RANKS.items(), strict=True):
        part = pick(rows, metric=metric).set_index("phase").reindex(phases)
        at = np.arange(len(phases)) + shift
        ax.barh(at, 100 * part["value"], 0.32, color=look.color, alpha=0.75, lw=0, zorder=2)
        ax.hlines(at, 100 * part["low"], 100 * part["high"], color=style.INK, lw=0.8, zorder=3)
    ax.set_yticks(range(len(phases)), [PHASE_NAMES[phase] for phase in phases], fontsize=6.5)
    ax.set_ylim(len(phases) - 0.5, -0.5)
    ax.set_xlim(0, 103)
    ax.set_xticks([0, 50, 100])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.set_xlabel("Seeds (%)")


def _classes(ax: Axes, rows: pd.DataFrame) -> None:
    """Output for a sample's own class at the end, from the largest class to the smallest."""
    rows = rows.sort_values("class")
    at = np.arange(len(rows))
    colors = [CLASS_COLORS[int(c) % len(CLASS_COLORS)] for c in rows["class"]]
    ax.bar(at, rows["value"], 0.62, color=colors, lw=0, zorder=2)
    ax.vlines(at, rows["low"], rows["high"], color=style.INK, lw=0.8, zorder=3)
    ax.set_xticks(at, [str(n) for n in rows["n"]])
    ax.tick_params(axis="x", length=0)
    ax.grid(False, axis="x")
    ax.set_ylim(0, max(1.0, float(rows["high"].max())) * 1.04)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlabel("Samples of the class")
    ax.set_ylabel("Output for own class")


# ------------------------------------------------------------------------------------------------------------
# Figures


def _dimension(curves: pd.DataFrame) -> int:
    """Dimension of the features: how many singular values they have."""
    return int(curves.loc[curves["metric"].isin(list(SIGMAS)), "metric"].nunique())


def _titled(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    """Bold letter and title, both flush left."""
    for letter, ax, title in zip("abcdefghijkl", axes, titles, strict=False):
        ax.set_title(rf"$\mathbf{{{letter}}}$  {title}", loc="left", fontsize=7.5)


def _legend(figure: Figure, looks: Sequence[Look], classes: pd.DataFrame | None = None) -> None:
    """Key below all panels: a row of lines, and with `classes` a row with the color of each."""
    lines = [Line2D([], [], color=one.color, ls=one.dash, label=one.label) for one in looks]
    dots = []
    if classes is not None:
        for number, n in classes.sort_values("class")[["class", "n"]].itertuples(index=False):
            color, label = CLASS_COLORS[int(number) % len(CLASS_COLORS)], f"class of {n} sample{'s' * (n > 1)}"
            dots.append(Line2D([], [], color=color, marker="o", ls="", label=label))
    across = max(len(lines), len(dots))
    if dots:  # keys are filled by column
        rows = [row + [Line2D([], [], ls="", label="")] * (across - len(row)) for row in (lines, dots)]
        lines = [handle for pair in zip(*rows, strict=True) for handle in pair]
    figure.legend(handles=lines, loc="outside lower center", ncols=across, columnspacing=1.4)


def fig4(table: pd.DataFrame, params: Params) -> Figure:
    """Paths of a seed near the median and of one with a large last fall; RankMe, singular values, shares of seeds."""
    curves, phases = pick(table, part="curve"), pick(table, part="phase")
    seeds, dimension = int(curves["seeds"].max()), _dimension(curves)
    figure = style.new_figure(params.get("width", "page"), 4.0)
    axes = figure.subplots(2, 4).ravel()
    titles = [""] * 8
    for row, rule in enumerate(("nearest_median", "largest_compression")):
        mine = pick(table, illustration=rule)
        first, second, third = axes[4 * row : 4 * row + 3]
        if mine.empty:
            for ax in (first, second, third) if row else (first, second):
                ax.set_axis_off()
                ax.text(0.5, 0.5, "no such seed", transform=ax.transAxes, ha="center", color=style.MUTED)
        else:
            paths, seed = pick(mine, part="path"), int(mine["seed"].iloc[0])
            _paths(first, paths, "classifier")
            _paths(second, paths, "feature")
            titles[4 * row : 4 * row + 2] = [f"Classifier, seed {seed}", f"Features, seed {seed}"]
        example = pick(mine, part="example")
        if row == 0:
            _curves(third, pick(curves, metric=list(RANKS)), RANKS, "RankMe")
            own = pick(example, metric="rank_me").sort_values("step")
            third.plot(own["step"], own["value"], color=THIS_SEED.color, ls=THIS_SEED.dash, lw=1, zorder=4)
            titles[2] = f"{seeds} seeds"
        elif len(example):
            _curves(third, pick(example, metric=list(RANKS)), RANKS, "RankMe")
            titles[6] = f"Largest last fall of {seeds}"  # an extreme: not to be taken for the rule
        rank_axis(third, dimension)
    _curves(axes[3], pick(curves, metric=list(SIGMAS)), SIGMAS, "Singular value")
    titles[3] = f"{seeds} seeds"
    _shares(axes[7], phases)
    titles[7] = f"Phases of {seeds} seeds"
    _titled(axes, titles)
    looks = [*RANKS.values(), THIS_SEED]
    looks += [look for name, look in SIGMAS.items() if (curves["metric"] == name).any()]
    _legend(figure, looks, pick(table, part="class"))
    return style.sign(figure, params)


def _controls(table: pd.DataFrame, params: Params) -> Figure:
    """A row a setting: RankMe, singular values, output for the own class, shares of seeds."""
    settings = [name for name in SETTING_NAMES if (table["setting"] == name).any()]
    figure = style.new_figure(params.get("width", "page"), 0.45 + 1.7 * len(settings))
    axes = figure.subplots(len(settings), 4, squeeze=False)
    titles = []
    for row, setting in zip(axes, settings, strict=True):
        mine = pick(table, setting=setting)
        curves = pick(mine, part="curve")
        _curves(row[0], pick(curves, metric=list(RANKS)), RANKS, "RankMe")
        rank_axis(row[0], _dimension(curves))
        _curves(row[1], pick(curves, metric=list(SIGMAS)), SIGMAS, "Singular value")
        _classes(row[2], pick(mine, part="class"))
        _shares(row[3], pick(mine, part="phase"))
        titles += [SETTING_NAMES[setting], "", "", f"Phases of {int(curves['seeds'].max())} seeds"]
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    _titled(list(axes.ravel()), titles)
    found = set(table["metric"])
    _legend(figure, [*RANKS.values(), *(look for name, look in SIGMAS.items() if name in found)])
    return style.sign(figure, params)


def fig12(table: pd.DataFrame, params: Params) -> Figure:
    """Controls: equal classes, and a third dimension."""
    return _controls(table, params)


def fig13(table: pd.DataFrame, params: Params) -> Figure:
    """Squared error, equal and skewed classes."""
    return _controls(table, params)
