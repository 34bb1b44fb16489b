"""Figures of paper `layernorm`: one function per figure, named as the figure without its prefix.

Every function takes the table of `memorization.tables.layernorm` of the same name and the figure's parameters, and
returns a matplotlib Figure. Lines and filled marks are means over our seeds, bands and bars 95 % t intervals of the
mean (none below three seeds); open marks are the paper's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memorization.figures import style
from memorization.figures.common import (
    bars,
    curve,
    hollow,
    key,
    letters,
    line_key,
    mark_key,
    mine,
    over_seeds,
    papers,
    percent,
)
from memorization.figures.layernorm_beyond import x_budget, x_scratch
from memorization.figures.layernorm_looks import (
    ARMS,
    OUTCOMES,
    POSITIONS,
    clock_axis,
    even_labels,
    in_order,
    name_of,
    outcomes,
    panels_of,
    patch_key,
    percent_axis,
    point,
    stack,
    title_of,
)
from memorization.figures.layernorm_norms import fig4, fig28_33, fig35, x_norms
from memorization.figures.layernorm_tables import tab1, tab4, tab5, tab6, x_readings
from memorization.figures.style import Look
from memorization.tables.common import pick

__all__ = [
    "fig1",
    "fig2",
    "fig3",
    "fig4",
    "fig6_11",
    "fig12_16",
    "fig17_22",
    "fig23_27",
    "fig28_33",
    "fig34",
    "fig35",
    "tab1",
    "tab4",
    "tab5",
    "tab6",
    "x_budget",
    "x_norms",
    "x_readings",
    "x_scratch",
]
Params = dict[str, Any]
PAIR = ("none", "all")
THIRDS = ("none", "early", "middle", "late", "all")
OURS = Look("ours", style.MUTED)
PAPER = Look("paper", style.MUTED, "o")


# ------------------------------------------------------------------------------------------------------------
# Figure 1


def _places(table: pd.DataFrame) -> tuple[list[tuple[str, bool, float]], float]:
    """Where models stand on x, as (model, ours, x), and the line between ours and the paper's."""
    own = [(name, True, float(k)) for k, name in enumerate(in_order(mine(table)["model"]))]
    gap = len(own) + 0.3 * bool(own)
    theirs = [(name, False, gap + k) for k, name in enumerate(in_order(papers(table)["model"]))]
    return own + theirs, gap - 0.65


def _model_axis(ax: Axes, table: pd.DataFrame) -> list[tuple[str, bool, float]]:
    places, between = _places(table)
    ax.set_xticks([x for _, _, x in places], [name_of(name) for name, _, _ in places], rotation=40, ha="right")
    ax.tick_params(axis="x", length=0, pad=1, labelsize=6.5)
    for label, (_, own, _) in zip(ax.get_xticklabels(), places, strict=True):
        label.set(rotation_mode="anchor", color=style.INK if own else style.MUTED)
    ax.set_xlim(-0.6, places[-1][2] + 0.6)
    ax.grid(False, axis="x")
    if any(own for _, own, _ in places) and not all(own for _, own, _ in places):
        ax.axvline(between, color=style.MUTED, lw=0.6)
    return places


def _accuracy_bars(ax: Axes, table: pd.DataFrame) -> None:
    """Test accuracy of intact and stripped models; bars ours, open marks the paper's."""
    rows = percent(pick(table, metric="test_accuracy"))
    for name, own, x in _model_axis(ax, table):
        for arm, shift in zip(PAIR, (-0.2, 0.2), strict=True):
            part = pick(rows, model=name, arm=arm, source="ours" if own else "paper")
            look = ARMS[arm]
            if part.empty:
                continue
            if own:
                mean, low, high = over_seeds(part, 0, 100)
                ax.bar(x + shift, mean, 0.36, color=look.color, linewidth=0, zorder=2)
                if not np.isnan(low):
                    ax.errorbar(x + shift, mean, bars(mean, low, high), color=style.INK, elinewidth=0.8, zorder=3)
            else:
                hollow(ax, [x + 0.6 * shift], part["value"], look, ms=4.6)
        pair = [pick(rows, model=name, arm=arm, source="paper")["value"].mean() for arm in PAIR]
        if not own and np.isfinite(pair).all():
            ax.plot([x - 0.12, x + 0.12], pair, color=style.FAINT, lw=1.2, zorder=2)
    percent_axis(ax)
    ax.set_ylabel("Test accuracy (%)")


def _outcome_bars(ax: Axes, table: pd.DataFrame) -> None:
    """Outcomes of the noisy items, left intact and right stripped."""
    rows = pick(table, metric=list(OUTCOMES))
    for name, own, x in _model_axis(ax, table):
        for arm, shift in zip(PAIR, (-0.2, 0.2), strict=True):
            part = pick(rows, model=name, arm=arm, source="ours" if own else "paper")
            stack(ax, x + shift, outcomes(part), 0.34, own)
    percent_axis(ax)
    ax.set_ylabel("Noisy items (%)")


def fig1(table: pd.DataFrame, params: Params) -> Figure:
    """Test accuracy left and outcomes of the noisy items right; Pre-LN above, Post-LN below."""
    positions = [name for name in POSITIONS if (table["position"] == name).any()]
    figure = style.new_figure(params.get("width", "page"), 0.45 + 1.95 * len(positions))
    axes = figure.subplots(len(positions), 2, squeeze=False)
    for row, position in zip(axes, positions, strict=True):
        part = pick(table, position=position)
        _accuracy_bars(row[0], part)
        _outcome_bars(row[1], part)
    letters(axes.ravel())
    for row, position in zip(axes, positions, strict=True):
        row[0].set_title(POSITIONS[position].label)
        row[1].set_title(f"{POSITIONS[position].label}: left intact, right removed")
    handles: list[Any] = [patch_key(ARMS[arm]) for arm in PAIR] + [patch_key(look) for look in OUTCOMES.values()]
    if len(papers(table)):
        handles += [mark_key(Look("paper (open, gray names)", style.MUTED, "o"), filled=False)]
    key(figure, handles)
    return style.sign(figure, params)


# ------------------------------------------------------------------------------------------------------------
# Trajectories


def _trajectory_row(row: Sequence[Axes], table: pd.DataFrame) -> None:
    """Test accuracy, outcomes after removal, and gap of one panel over epochs."""
    for ax, metric in ((row[0], "test_accuracy"), (row[2], "gap")):
        for arm in PAIR:
            part = percent(pick(table, metric=metric, arm=arm))
            curve(ax, mine(part), ARMS[arm])
            theirs = papers(part).sort_values("share")
            hollow(ax, theirs["share"], theirs["value"], ARMS[arm])
    for metric, look in OUTCOMES.items():
        part = percent(pick(table, metric=metric, arm="all"))
        curve(row[1], mine(part), look, low=0, high=100)
        theirs = papers(part).sort_values("share")
        hollow(row[1], theirs["share"], theirs["value"], look)
    for ax in row:
        clock_axis(ax, table["share"].max())
    for ax in row[:2]:
        percent_axis(ax)
    row[2].yaxis.set_major_locator(MaxNLocator(4))


def _trajectories(table: pd.DataFrame, params: Params) -> Figure:
    names = panels_of(table, params)
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.15 * len(names))
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        _trajectory_row(row, pick(table, panel=name))
        row[0].set_ylabel(title_of(table, name))
    for row in axes[:-1]:
        for ax in row:
            ax.set_xlabel("")
    letters(axes.ravel(), ("Test accuracy (%)", "Noisy items after removal (%)", "Train − test (points)"))
    arms = [line_key(ARMS[arm]) for arm in PAIR]
    handles = [*arms, *(line_key(look) for look in OUTCOMES.values())]
    key(figure, [*handles, mark_key(Look("paper", style.MUTED, "o"), filled=False)])
    return style.sign(figure, params)


def fig2(table: pd.DataFrame, params: Params) -> Figure:
    """Trajectories, Pre-LN above and Post-LN below."""
    return _trajectories(table, params)


def fig6_11(table: pd.DataFrame, params: Params) -> Figure:
    """Trajectories, a row a Pre-LN model."""
    return _trajectories(table, params)


def fig12_16(table: pd.DataFrame, params: Params) -> Figure:
    """Trajectories, a row a Post-LN model."""
    return _trajectories(table, params)


def fig34(table: pd.DataFrame, params: Params) -> Figure:
    """Train loss (logarithmic axis) and test loss over epochs, a row a model."""
    names = panels_of(table, params)
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.5 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, metric in zip(row, ("train_loss", "test_loss"), strict=True):
            for arm in PAIR:
                part = pick(table, panel=name, metric=metric, arm=arm)
                curve(ax, mine(part), ARMS[arm], log=metric == "train_loss")
                theirs = papers(part).sort_values("share")
                hollow(ax, theirs["share"], theirs["value"], ARMS[arm])
            clock_axis(ax, pick(table, panel=name)["share"].max())
        row[0].set_yscale("log")
        row[1].set_ylim(bottom=0)
        row[0].set_ylabel(title_of(table, name))
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    letters(axes.ravel(), ("Train loss (nats)", "Test loss (nats)"))
    handles = [line_key(ARMS[arm]) for arm in PAIR]
    key(figure, [*handles, mark_key(Look("paper", style.MUTED, "o"), filled=False)])
    return style.sign(figure, params)


# ------------------------------------------------------------------------------------------------------------
# Thirds


def _thirds_row(row: Sequence[Axes], table: pd.DataFrame) -> None:
    """Test accuracy, outcomes and gap of one panel for every arm; ours left and filled, the paper's right and open."""
    both = len(mine(table)) and len(papers(table))
    left, right = (-0.17, 0.17) if both else (0.0, 0.0)
    for k, arm in enumerate(THIRDS):
        for ax, metric in ((row[0], "test_accuracy"), (row[2], "gap")):
            part = percent(pick(table, metric=metric, arm=arm))
            point(ax, k + left, mine(part), ARMS[arm])
            hollow(ax, np.full(len(papers(part)), k + right), papers(part)["value"], ARMS[arm], ms=4.4)
        part = pick(table, metric=list(OUTCOMES), arm=arm)
        for rows, shift, own in ((mine(part), left, True), (papers(part), right, False)):
            stack(row[1], k + shift, outcomes(rows), 0.3 if both else 0.5, own)
    for ax in row:
        ax.set_xticks(range(len(THIRDS)), [ARMS[arm].label if arm != "all" else "all" for arm in THIRDS])
        ax.set_xlim(-0.6, len(THIRDS) - 0.4)
        ax.grid(False, axis="x")
        even_labels(ax)
    percent_axis(row[1])
    for ax in (row[0], row[2]):
        ax.margins(y=0.12)
        ax.yaxis.set_major_locator(MaxNLocator(4))


def _thirds(table: pd.DataFrame, params: Params) -> Figure:
    names = panels_of(table, params)
    figure = style.new_figure(params.get("width", "page"), 0.7 + 1.15 * len(names))
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        _thirds_row(row, pick(table, panel=name))
        row[0].set_ylabel(title_of(table, name))
    letters(axes.ravel(), ("Test accuracy (%)", "Noisy items (%)", "Train − test (points)"))
    handles: list[Any] = [*(patch_key(look) for look in OUTCOMES.values())]
    handles += [mark_key(Look("ours (left)", style.MUTED, "o"))]
    handles += [mark_key(Look("paper (right)", style.MUTED, "o"), filled=False)]
    key(figure, handles)
    return style.sign(figure, params)


def fig3(table: pd.DataFrame, params: Params) -> Figure:
    """Thirds, one Pre-LN and one Post-LN model."""
    return _thirds(table, params)


def fig17_22(table: pd.DataFrame, params: Params) -> Figure:
    """Thirds, a row a Pre-LN model."""
    return _thirds(table, params)


def fig23_27(table: pd.DataFrame, params: Params) -> Figure:
    """Thirds, a row a Post-LN model."""
    return _thirds(table, params)
