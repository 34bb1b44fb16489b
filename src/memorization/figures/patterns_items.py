"""Figures of paper `patterns` that look at single items: when they are first memorized and forgotten, and how
softly.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from memorization.figures import style
from memorization.figures.common import bucket_axis, bucket_bars, conditions, grid_of_panels, outer_labels
from memorization.figures.style import look, ordered
from memorization.tables.common import pick

Params = dict[str, Any]
EVENTS = {"first_memorized": "First memorized", "first_forgotten": "First forgotten"}


def fig11(table: pd.DataFrame, params: Params) -> Figure:
    """One row per pairing; left when items are first memorized, right when first forgotten."""
    rows = _ends(conditions(table), params.get("pairings", 2))
    figure, axes = grid_of_panels(2 * len(rows), params.get("width", "page"), 2, 1.35, 0.3)
    colors = dict(zip(EVENTS, ("#0072B2", "#D55E00"), strict=True))
    for i, (model, items) in enumerate(rows):
        for j, event in enumerate(EVENTS):
            ax, part = axes[2 * i + j], pick(table, model=model, items=items, metric=event)
            bars = bucket_bars(ax, part, colors[event])
            for bar in bars.to_dict("records"):
                if bar["mean"] >= 0.5:
                    ax.annotate(
                        f"{bar['mean']:.0f}",
                        (bar["x"], bar["high"]),
                        xytext=(0, 1),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                        fontsize=6.5,
                    )
            bucket_axis(ax, part)
            ax.set_ylim(0, 1.15 * max(1.0, bars["high"].max()))
            ax.set_title(f"{EVENTS[event]}: {style.pairing(model, items)}")
            ax.set_xlabel("Epoch")
            ax.set_ylabel("% of items")
    outer_labels(axes, 2)
    for ax in axes[:-2]:
        ax.set_xlabel("")
    style.panel_letters(axes)
    return style.sign(figure, params)


def _ends(pairs: list[tuple[str, int]], number: int) -> list[tuple[str, int]]:
    """At most `number` pairings, from the smallest to the largest."""
    if len(pairs) <= number:
        return pairs
    return [pairs[round(i)] for i in np.linspace(0, len(pairs) - 1, number)]


def fig12(table: pd.DataFrame, params: Params) -> Figure:
    """One row per digit share, the two parts of the mixture side by side in every bucket."""
    shares = sorted(table["digit_share"].unique())
    figure, axes = grid_of_panels(2 * len(shares), params.get("width", "page"), 2, 1.15, 0.5)
    subsets = ordered(table["subset"])
    bar = 0.84 / len(subsets)
    for i, share in enumerate(shares):
        for j, event in enumerate(EVENTS):
            ax, part = axes[2 * i + j], pick(table, digit_share=share, metric=event)
            for k, subset in enumerate(subsets):
                shift = (k - (len(subsets) - 1) / 2) * bar
                bucket_bars(ax, pick(part, subset=subset), look(subset).color, shift, bar * 0.92)
            bucket_axis(ax, part)
            ax.set_ylim(0, 105)
            ax.set_title(f"{EVENTS[event]}, {100 * share:.0f} % digits")
            ax.set_xlabel("Epoch")
            ax.set_ylabel("% of items")
    outer_labels(axes, 2)
    style.panel_letters(axes)
    handles = [Patch(color=look(name).color, label=look(name).label) for name in subsets]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return style.sign(figure, params)


SCORES = {
    "bleu1": "BLEU, 1-grams",
    "bleu2": "BLEU, 2-grams",
    "bleu3": "BLEU, 3-grams",
    "bleu4": "BLEU, 4-grams",
    "bleu_cumulative": "BLEU, cumulative 1-4",
    "jaccard": "n-gram Jaccard",
}


def fig13(table: pd.DataFrame, params: Params) -> Figure:
    """Boxes of the scores of items not memorized at an epoch; diamonds are medians of those that had been
    memorized.
    """
    model, items = params.get("pairing") or _middle(conditions(table))
    table = pick(table, model=model, items=items)
    names = [name for name in SCORES if (table["metric"] == name).any()]
    across = 3
    figure, axes = grid_of_panels(len(names), params.get("width", "page"), across, 1.4, 0.4)
    epochs = sorted(table["epoch"].unique())
    width = 0.6 * min(np.diff(epochs), default=1.0)
    for ax, name in zip(axes, names, strict=True):
        part = pick(table, metric=name)
        wide = part.pivot_table(index=["status", "epoch", "n"], columns="statistic", values="value").reset_index()
        wide = wide[wide["n"] >= params.get("fewest_items", 5)]
        whole = pick(wide, status="not memorized")
        names_of = {"median": "med", "low": "whislo", "high": "whishi"}
        boxes: list[dict[str, Any]] = whole.rename(columns=names_of).to_dict("records")  # type: ignore[assignment]
        line = {"color": style.MUTED, "linewidth": 0.7}
        ax.bxp(
            boxes,
            positions=whole["epoch"].to_numpy(),
            widths=width,
            manage_ticks=False,
            patch_artist=True,
            showfliers=False,
            boxprops={"facecolor": "#cfe3f1", "edgecolor": "#0072B2", "linewidth": 0.7},
            medianprops={"color": "#0072B2", "linewidth": 1.4},
            whiskerprops=line,
            capprops=line,
        )
        forgotten = pick(wide, status="forgotten")
        ax.plot(
            forgotten["epoch"],
            forgotten["median"],
            ls="",
            marker="D",
            ms=3.2,
            color="#D55E00",
            mec="white",
            mew=0.4,
        )
        style.epoch_axis(ax, max(epochs) + width)
        ax.set_xlim(min(0, min(epochs) - width), max(epochs) + width)
        style.share_axis(ax, "Score")
        ax.set_title(SCORES[name])
    outer_labels(axes, across)
    style.panel_letters(axes)
    return style.sign(figure, params)


def _middle(pairs: list[tuple[str, int]]) -> tuple[str, int]:
    return pairs[len(pairs) // 2]
