"""Figures of paper `layernorm` that the paper does not have: removal against the epoch budget, and without
pre-training.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memorization.figures import style
from memorization.figures.common import (
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
from memorization.figures.layernorm_looks import ARMS, DASHES, POSITIONS, budget_line, in_order, name_of
from memorization.figures.style import Look
from memorization.tables.common import pick

Params = dict[str, Any]
PAIR = ("none", "all")
READING_MARKS = {"budget": ("at the budget", "o"), "equal": ("at equal epochs", "s"), "matched": ("matched", "D")}
MOST_LINES = 4  # of more models the mean of each position is drawn


def _averaged(own: pd.DataFrame) -> pd.DataFrame:
    """Mean over the models of each position, seed by seed; curves are interpolated to one grid of epochs first."""
    grid, frames = np.linspace(0, 1, 36), []
    for which, part in pick(own, reading="").groupby(["position", "metric", "seed", "model"]):
        part = part.sort_values("share")
        values = np.interp(grid, part["share"], part["value"])
        about = dict(zip(("position", "metric", "seed"), which, strict=False))
        frames.append(pd.DataFrame({**about, "reading": "", "share": grid, "value": values}))
    marks = own[own["reading"] != ""]
    at = marks.groupby(["position", "reading"])["share"].transform("mean")
    every = pd.concat([*frames, marks.assign(share=at)], ignore_index=True)
    keys = ["position", "reading", "metric", "seed", "share"]
    return every.groupby(keys)["value"].mean().reset_index().assign(model=lambda t: t["position"])


def _budget_lines(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Look]]:
    """Our rows, and the look of each of their lines; of many models the mean of each position."""
    own = mine(table)
    if own["model"].nunique() > MOST_LINES:
        counts = own.groupby("position")["model"].nunique()
        looks = {
            name: Look(f"{look.label}, {counts[name]} models", look.color, look.marker)
            for name, look in POSITIONS.items()
            if name in counts
        }
        return _averaged(own), looks
    looks = {}
    for position, about in POSITIONS.items():
        for k, model in enumerate(in_order(pick(own, position=position)["model"])):
            name = name_of(model)
            label = name if name.lower().endswith(position) else f"{name} ({about.label})"
            looks[model] = Look(label, about.color, about.marker, DASHES[k])
    return own, looks


def x_budget(table: pd.DataFrame, params: Params) -> Figure:
    """Change from intact to removed against epochs: a panel a quantity, a line a model."""
    metrics = {
        "test_accuracy": "Test accuracy", "memorization": "Memorization", "recovery": "Recovery",
        "gap": "Train − test gap",
    }  # fmt: skip
    figure = style.new_figure(params.get("width", "page"), 4.1)
    axes = figure.subplots(2, 2).ravel()
    positions = [name for name in POSITIONS if (table["position"] == name).any()]
    own, looks = _budget_lines(table)
    for ax, (metric, title) in zip(axes, metrics.items(), strict=True):
        ax.axhline(0, color=style.MUTED, lw=0.6, zorder=1)
        rows = percent(pick(own, metric=metric))
        for model, look in looks.items():
            curve(ax, pick(rows, model=model, reading=""), look)
            for reading, (_, marker) in READING_MARKS.items():
                part = pick(rows, model=model, reading=reading)
                if len(part):
                    ax.plot(
                        part["share"].mean(), part["value"].mean(), marker=marker, color=look.color, mec=style.INK,
                        mew=0.6, ls="", ms=4.8, zorder=6,
                    )  # fmt: skip
        for position in positions:
            theirs = percent(papers(table, position=position, metric=metric)).groupby("share")["value"].mean()
            hollow(ax, theirs.index, theirs.to_numpy(), Look("", POSITIONS[position].color, "X"), ms=5)
        ax.set_xlim(0, 1.04)
        budgets = pick(own, reading="budget").groupby("position")["share"].first()
        for at in budgets if len(budgets) else (4 / 7, 1.0):
            budget_line(ax, float(at))
        ax.set_title(title)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    for ax in axes[2:]:
        ax.set_xlabel("Epochs / longest training")
    for ax in axes[::2]:
        ax.set_ylabel("Removed − intact (points)")
    style.panel_letters(axes)
    handles = [line_key(look) for look in looks.values()]
    handles += [mark_key(Look(label, style.MUTED, marker)) for label, marker in READING_MARKS.values()]
    handles += [
        mark_key(Look(f"paper, {POSITIONS[p].label}", POSITIONS[p].color, "X"), filled=False)
        for p in positions
        if len(papers(table, position=p))
    ]
    key(figure, handles, ncols=int(np.ceil(len(handles) / 2)))
    return style.sign(figure, params)


def x_scratch(table: pd.DataFrame, params: Params) -> Figure:
    """Intact and removed with and without pre-training, a group a model."""
    names = in_order(table["model"])
    few = len(names) <= 5
    figure = style.new_figure(params.get("width", "page"), 2.5 if few else 5.2)
    axes = figure.subplots(1, 3) if few else figure.subplots(3, 1)
    titles = {"test_accuracy": "Test accuracy (%)", "memorization": "Memorization (%)", "gap": "Train − test (points)"}
    starts = ["first", "scratch"]
    rows = percent(table.assign(begun=np.where(table["start"] == "scratch", "scratch", "first")))
    for ax, metric in zip(axes, titles, strict=True):
        for k, name in enumerate(names):
            for start, shift in zip(starts, (-0.22, 0.22), strict=True):
                ends = []
                for arm, nudge in zip(PAIR, (-0.06, 0.06), strict=True):
                    part = pick(rows, metric=metric, model=name, begun=start, arm=arm)
                    look = ARMS[arm]
                    mean, low, high = over_seeds(part, *((-100, 100) if metric == "gap" else (0, 100)))
                    at = k + shift + nudge
                    if np.isnan(mean):
                        continue
                    ends.append((at, mean))
                    if not np.isnan(low):
                        ax.vlines(at, low, high, color=look.color, lw=0.9, zorder=3)
                    open_mark = {"mfc": "white", "mec": look.color, "mew": 0.9} if start == "scratch" else {}
                    ax.plot(at, mean, marker=look.marker, color=look.color, ls="", ms=4.6, zorder=4, **open_mark)
                if len(ends) == 2:
                    ax.plot(*np.array(ends).T, color=style.FAINT, lw=1.2, zorder=2)
        ax.set_xticks(range(len(names)), [name_of(name).replace(" ", "\n") for name in names])
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.tick_params(axis="x", length=0, labelsize=7 if few else 6)
        ax.grid(False, axis="x")
        ax.margins(y=0.1)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    letters(axes, list(titles.values()))
    handles = [mark_key(ARMS[arm]) for arm in PAIR]
    handles += [mark_key(Look("pre-trained", style.MUTED, "o"))]
    handles += [mark_key(Look("from scratch (open)", style.MUTED, "o"), filled=False)]
    key(figure, handles)
    return style.sign(figure, params)
