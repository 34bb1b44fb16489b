"""Figures of paper `layernorm` about the norms: gradients at their inputs, gains and biases.

Gradient norms span powers of ten, so their means over seeds are geometric and their intervals those of the mean
logarithm.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from memorization.figures import style
from memorization.figures.common import curve, hollow, key, letters, line_key, mark_key, mine, papers, summary
from memorization.figures.layernorm_looks import (
    ARMS,
    GRADIENTS,
    POSITIONS,
    RATIO,
    ROLES,
    clock_axis,
    even_labels,
    in_order,
    name_of,
    panels_of,
    point,
    title_of,
)
from memorization.figures.style import Look
from memorization.tables.common import pick

Params = dict[str, Any]


def _log_axis(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=5))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _whole_layers(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.margins(x=0.08)
    ax.set_xlabel("Layer")


def _norms(ax: Axes, rows: pd.DataFrame, filled: bool, layers: Any = "layer") -> None:
    """Learning and memorization norms by layer; lines for one role, dashes for the other."""
    for metric, look in GRADIENTS.items():
        for role, about in ROLES.items():
            part = pick(rows, metric=metric, role=role)
            if part.empty:
                continue
            drawn = summary(part, layers, log=True)
            face: dict[str, Any] = {} if filled else {"mfc": "white", "mew": 0.7, "lw": 0.5}
            ax.plot(
                drawn[layers], drawn["mean"], color=look.color, ls=about.dash, marker=about.marker, ms=3.4, zorder=3,
                **face,
            )  # fmt: skip
            ax.fill_between(drawn[layers], drawn["low"], drawn["high"], color=look.color, alpha=0.15, linewidth=0)
    _whole_layers(ax)
    _log_axis(ax)


def _ratio(ax: Axes, ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Ratio of the two norms by relative depth."""
    ax.axhline(1, color=style.MUTED, lw=0.6, zorder=1)
    for role, about in ROLES.items():
        part = pick(ours, metric="ratio", role=role)
        if len(part):
            drawn = summary(part, "depth", log=True)
            ax.plot(drawn["depth"], drawn["mean"], color=RATIO, ls=about.dash, marker=about.marker, ms=3.4, zorder=4)
            ax.fill_between(drawn["depth"], drawn["low"], drawn["high"], color=RATIO, alpha=0.15, linewidth=0)
        part = pick(theirs, metric="ratio", role=role).sort_values("depth")
        hollow(ax, part["depth"], part["value"], Look("", RATIO, about.marker), ms=3.4)
    attention = pick(theirs, metric="ratio", role="attention")["value"]
    if len(attention):
        ax.axhline(attention.median(), color=RATIO, lw=0.8, ls=style.DOTTED, zorder=2)
    ax.set_xlim(-0.06, 1.06)
    ax.set_xticks([0, 0.5, 1], ["first", "", "last"])
    ax.set_xlabel("Layer")
    _log_axis(ax)


def _gradient_handles(paper: bool) -> list[Any]:
    handles = [line_key(look) for look in GRADIENTS.values()]
    handles += [line_key(Look("ratio", RATIO))]
    gray = [Look(look.label, style.MUTED, look.marker, look.dash) for look in ROLES.values()]
    handles += [mark_key(look) for look in gray]
    return handles + ([mark_key(Look("paper (open)", style.MUTED, "o"), filled=False)] if paper else [])


def fig4(table: pd.DataFrame, params: Params) -> Figure:
    """Gradient norms by layer, ours and the paper's in panels of their own, and the ratio of both in one."""
    names = panels_of(table, params)
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.6 * len(names))
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        part = pick(table, panel=name)
        for ax, rows, filled in ((row[0], mine(part), True), (row[1], papers(part), False)):
            if len(rows):
                _norms(ax, rows, filled)
            else:
                ax.set_axis_off()
        _ratio(row[2], mine(part), papers(part))
        row[0].set_ylabel(title_of(table, name))
        if row[0].axison is False:
            row[1].set_ylabel(title_of(table, name))
    letters(axes.ravel(), ("Gradient norm, ours", "Gradient norm, paper", "Learning / memorization"))
    key(figure, _gradient_handles(len(papers(table)) > 0))
    return style.sign(figure, params)


def fig28_33(table: pd.DataFrame, params: Params) -> Figure:
    """A row a model of ours: norms by layer on the attention and the feed-forward side, and their ratio.

    Below, the median ratio over layers of every model, ours filled and the paper's open.
    """
    own = pick(mine(table), metric=[*GRADIENTS, "ratio"])
    names = in_order(own["model"])
    figure = style.new_figure(params.get("width", "page"), 2.2 + 1.35 * len(names))
    grid = figure.add_gridspec(len(names) + 1, 3, height_ratios=[1.35] * len(names) + [1.45])
    drawn = []
    for k, name in enumerate(names):
        part = pick(own, model=name)
        row = [figure.add_subplot(grid[k, j]) for j in range(3)]
        for ax, role in zip(row, ROLES, strict=False):
            _norms(ax, pick(part, role=role), True)
        _ratio(row[2], part, part.iloc[:0])
        row[0].set_ylabel(name_of(name))
        if k + 1 < len(names):
            for ax in row:
                ax.set_xlabel("")
        drawn += row
    ax = figure.add_subplot(grid[len(names), :])
    medians = pick(table, metric="median_ratio")
    places: list[tuple[str, bool]] = []
    for position in POSITIONS:
        for rows, is_own in ((mine(medians, position=position), True), (papers(medians, position=position), False)):
            places += [(name, is_own) for name in in_order(rows["model"])]
    for x, (name, is_own) in enumerate(places):
        rows = pick(medians, model=name, source="ours" if is_own else "paper")
        look = POSITIONS[rows["position"].iloc[0]]
        if is_own:
            one = summary(rows.assign(x=x), "x", log=True)
            ax.vlines(x, one["low"], one["high"], color=look.color, lw=0.9)
            ax.plot(x, one["mean"], marker=look.marker, color=look.color, ls="", ms=5, zorder=4)
        else:
            hollow(ax, [x], rows["value"], look, ms=4.6)
    ax.axhline(1, color=style.MUTED, lw=0.6, zorder=1)
    ax.set_xticks(range(len(places)), [name_of(name) for name, _ in places], rotation=35, ha="right")
    for label, (_, is_own) in zip(ax.get_xticklabels(), places, strict=True):
        label.set(rotation_mode="anchor", color=style.INK if is_own else style.MUTED, fontsize=6.5)
    ax.tick_params(axis="x", length=0, pad=1)
    ax.set_xlim(-0.6, len(places) - 0.4)
    ax.grid(False, axis="x")
    _log_axis(ax)
    ax.set_ylabel("Median ratio")
    letters([*drawn, ax], ("Attention side", "Feed-forward side", "Learning / memorization"))
    handles = _gradient_handles(False)
    handles += [mark_key(POSITIONS[name]) for name in POSITIONS if (medians["position"] == name).any()]
    if len(papers(medians)):
        handles += [mark_key(Look("paper (open)", style.MUTED, "o"), filled=False)]
    key(figure, handles, ncols=int(np.ceil(len(handles) / 2)))
    return style.sign(figure, params)


def fig35(table: pd.DataFrame, params: Params) -> Figure:
    """Gradient norms over epochs, a line a layer from light (first) to dark (last)."""
    names = panels_of(table, params)
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.5 * len(names))
    axes = figure.subplots(len(names), 2, squeeze=False, sharey="row")
    layers = sorted(table["layer"].unique())
    colors = dict(zip(layers, style.shades("#E69F00", "#0B2545", len(layers)), strict=True))
    for row, name in zip(axes, names, strict=True):
        for ax, metric in zip(row, GRADIENTS, strict=True):
            part = pick(table, panel=name, metric=metric)
            for layer in layers:
                for role, about in ROLES.items():
                    rows = pick(part, layer=layer, role=role)
                    if len(rows):
                        curve(ax, rows, Look("", colors[layer], "", about.dash), log=True)
            clock_axis(ax, pick(table, panel=name)["share"].max())
            _log_axis(ax)
        row[0].set_ylabel(title_of(table, name))
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    letters(axes.ravel(), [f"Gradient norm, {look.label}" for look in GRADIENTS.values()])
    few = layers if len(layers) <= 6 else [layers[0], layers[len(layers) // 2], layers[-1]]
    handles = [line_key(Look(f"layer {int(layer)}", colors[layer])) for layer in few]
    handles += [line_key(Look(look.label, style.MUTED, "", look.dash)) for look in ROLES.values()]
    key(figure, handles)
    return style.sign(figure, params)


# ------------------------------------------------------------------------------------------------------------
# Gains and biases

OUTSIDE = {"embedding": "emb.", "final": "final", "head": "head"}
STRIPPED = {
    "none": "none", "early": "early", "middle": "mid.", "late": "late", "attention": "attn.",
    "feed_forward": "ffn", "all": "all",
}  # fmt: skip


def _moved(ax: Axes, rows: pd.DataFrame) -> None:
    """Root mean square distance by layer; the norms outside the layers before and after them."""
    layers = sorted(rows.loc[rows["layer"] >= 0, "layer"].unique())
    outside = [role for role in OUTSIDE if ((rows["role"] == role) & (rows["layer"] < 0)).any()]
    places: dict[Any, int] = {}
    for place in [r for r in outside if r == "embedding"] + layers + [r for r in outside if r != "embedding"]:
        places[place] = len(places)
    for role, about in ROLES.items():
        part = pick(rows, role=role)
        part = part[part["layer"] >= 0].assign(x=lambda t: t["layer"].map(places))
        if len(part):
            drawn = summary(part, "x", low=0)
            ax.plot(drawn["x"], drawn["mean"], color=about.color, ls=about.dash, marker=about.marker, ms=3.6)
            ax.fill_between(drawn["x"], drawn["low"], drawn["high"], color=about.color, alpha=0.15, linewidth=0)
    for role in outside:
        point(ax, places[role], pick(rows, role=role), Look("", style.INK, "s"), low=0)
    every = max(1, len(layers) // 6)
    ticks = [(x, OUTSIDE.get(place, str(place))) for place, x in places.items()]
    ticks = [(x, text) for x, text in ticks if not text.isdigit() or int(text) % every == 0]
    ax.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
    ax.tick_params(axis="x", labelsize=6.5)
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _stripped(ax: Axes, rows: pd.DataFrame) -> None:
    """Loss or accuracy before and right after stripping a copy, with the entropy of the tokens as a line."""
    text = (rows["metric"] == "cross_entropy").any()
    factor = 1 if text else 100
    for k, stripped in enumerate(STRIPPED):
        part = pick(rows, metric="cross_entropy" if text else "accuracy", stripped=stripped)
        look = ARMS.get(stripped, Look("", style.MUTED, "D"))
        point(ax, k, part.assign(value=factor * part["value"]), look)
    if text:
        entropy = pick(rows, metric="unigram_entropy")["value"].mean()
        if np.isfinite(entropy):
            ax.axhline(entropy, color=style.MUTED, lw=0.8, ls=style.DASHED, zorder=1)
            ax.annotate(
                "unigram entropy", (0, entropy), xycoords=("axes fraction", "data"), xytext=(3, -2),
                textcoords="offset points", fontsize=6.2, color=style.MUTED, va="top",
            )  # fmt: skip
    ax.set_xticks(range(len(STRIPPED)), list(STRIPPED.values()))
    ax.tick_params(axis="x", labelsize=6.5)
    even_labels(ax)
    ax.set_xlim(-0.6, len(STRIPPED) - 0.4)
    ax.grid(False, axis="x")
    ax.margins(y=0.15)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_ylabel("Loss (nats)" if text else "Accuracy (%)")


def x_norms(table: pd.DataFrame, params: Params) -> Figure:
    """A row a model: how far gains moved, how far biases moved, and what stripping does before fine-tuning."""
    names = in_order(table["model"])
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.25 * len(names))
    axes = figure.subplots(len(names), 3, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        part = pick(table, model=name)
        for ax, metric in zip(row, ("gain_moved", "bias_moved"), strict=False):
            _moved(ax, pick(part, metric=metric))
        rows = part[part["metric"].isin(["cross_entropy", "accuracy", "unigram_entropy"])]
        if len(rows):
            _stripped(row[2], rows)
        else:
            row[2].set_axis_off()
            text = "public checkpoint:\nnot pre-trained here"
            row[2].text(0.5, 0.5, text, ha="center", va="center", color=style.MUTED, transform=row[2].transAxes)
        row[0].set_ylabel(name_of(name))
    for ax in axes[-1, :2]:
        ax.set_xlabel("Layer")
    letters(axes.ravel(), ("Gain: rms distance from 1", "Bias: rms", "Right after stripping"))
    handles = [mark_key(look) for look in (*ROLES.values(), Look("outside the layers", style.INK, "s"))]
    key(figure, handles)
    return style.sign(figure, params)
