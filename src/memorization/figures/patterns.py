"""Figures of paper `patterns`: one function per figure, named as the figure without its prefix.

Every function takes the table of `memorization.tables.patterns` of the same name and the figure's parameters,
and returns a matplotlib Figure. Lines are means over seeds; bands reach from the lowest to the highest seed
unless a caption says so.
"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memorization.figures import style
from memorization.figures.common import fewest_gaps, grid_of_panels, outer_labels
from memorization.figures.patterns_items import fig11, fig12, fig13
from memorization.figures.patterns_setup import fig5, fig6, fig8, fig9, fig10
from memorization.figures.patterns_tables import (
    tab1,
    tab2,
    tab3,
    tab5,
    tab_adherence,
    tab_generalization,
    tab_sampling,
)
from memorization.figures.style import Look, look, ordered
from memorization.tables.common import pick

__all__ = [
    "fig1",
    "fig2a",
    "fig2b",
    "fig3",
    "fig4",
    "fig5",
    "fig6",
    "fig8",
    "fig9",
    "fig10",
    "fig11",
    "fig12",
    "fig13",
    "figB2",
    "tab1",
    "tab2",
    "tab3",
    "tab5",
    "tab_adherence",
    "tab_generalization",
    "tab_sampling",
]
Params = dict[str, Any]


def _order_of_memorization(levels: pd.DataFrame) -> list[str]:
    """Data sets by mean epochs to the given level; those that never reach it come last, in pattern order."""
    time = levels.groupby("data")["value"].mean()
    names = ordered(levels["data"])
    return sorted(names, key=lambda name: time[name] if time[name] == time[name] else float("inf"))


def fig1(table: pd.DataFrame, params: Params) -> Figure:
    """EM and train loss of two model sizes; 95 % bootstrap bands over seeds, as in the paper."""
    figure = style.new_figure(params.get("width", "page"), 2.2)
    left, right = figure.subplots(1, 2)
    band = {
        "kind": "bootstrap",
        "draws": params.get("bootstrap", 1000),
        "confidence": params.get("confidence", 0.95),
    }
    models = table.sort_values("parameters")["model"].drop_duplicates().tolist()
    colors = dict(zip(models, style.size_colors(len(models)), strict=True))
    curves = table[table["metric"] != "epochs_to_level"]
    for ax, metric in ((left, "exact_match"), (right, "loss")):
        ends = []
        for model, color in colors.items():
            part = pick(curves, metric=metric, model=model)
            if part.empty:
                continue
            drawn = style.draw_curve(ax, part, Look(model, color), **band)
            ends.append((drawn["epoch"].iloc[-1], drawn["mean"].iloc[-1], f"model {model}", color))
        style.epoch_axis(ax, curves["epoch"].max())
        if metric == "exact_match":
            style.share_axis(ax)
        else:
            ax.set_ylim(bottom=0)
            ax.set_ylabel("Train loss")
        style.label_ends(ax, ends)
    for level in params.get("levels", [0.8, 1.0]):
        left.axhline(level, color=style.MUTED, lw=0.6, ls=style.DOTTED, zorder=1)
        for model, color in colors.items():
            when = pick(table, metric="epochs_to_level", model=model, level=level)["value"]
            if when.notna().all() and len(when):
                left.plot(when.mean(), level, "o", color=color, ms=3.5, mec="white", mew=0.5, zorder=4)
    style.panel_letters([left, right])
    return style.sign(figure, params)


def fig2a(table: pd.DataFrame, params: Params) -> Figure:
    """EM of every set alone; the key lists the sets in the order in which they reach EM 0.5."""
    figure = style.new_figure(params.get("width", "page"), 2.6)
    ax = figure.subplots()
    curves = table[table["metric"] == "exact_match"]
    for name in ordered(curves["data"]):
        part = pick(curves, data=name)
        drawn = style.draw_curve(ax, part, look(name))
        if drawn["epoch"].iloc[-1] < curves["epoch"].max():  # stopped: memorized before the slowest set was
            ax.plot(drawn["epoch"].iloc[-1], drawn["mean"].iloc[-1], "|", color=look(name).color, ms=7, zorder=4)
    style.epoch_axis(ax, curves["epoch"].max() * 1.01)
    style.share_axis(ax)
    ax.axhline(0.5, color=style.MUTED, lw=0.6, ls=style.DOTTED, zorder=1)
    names = _order_of_memorization(pick(table, metric="epochs_to_level", level=0.5))
    style.key_beside(figure, [look(name) for name in names], "in order of reaching 0.5")
    return style.sign(figure, params)


def fig2b(table: pd.DataFrame, params: Params) -> Figure:
    """Epochs to each EM level for the parts of the mixture; open marks: never reached."""
    figure = style.new_figure(params.get("width", "column"), 2.6)
    ax = figure.subplots()
    names = ordered(table["subset"])
    limit = table["last_epoch"].max()
    levels = sorted(table["level"].unique())
    ends = []
    for k, name in enumerate(names):
        part, style_ = pick(table, subset=name), look(name)
        # a level that any seed failed to reach has no mean
        reached = part.groupby("level")["value"].agg(lambda v: v.isna().sum() == 0)
        solid = part[part["level"].isin(reached[reached].index)]
        if not solid.empty:
            drawn = style.error_bars(ax, solid, style_, "level")
            ends.append((drawn["level"].iloc[-1], drawn["mean"].iloc[-1], style_.label, style_.color))
        else:
            ends.append((levels[0], limit, style_.label, style_.color))
        for level in reached[~reached].index:
            style.not_reached(ax, level + 0.012 * (k - (len(names) - 1) / 2), style_.color, style_.marker)
    ax.set_ylim(0, limit)
    ax.set_xlim(0, 1)
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.set_xlabel("Exact match reached")
    ax.set_ylabel("Epochs needed")
    style.label_ends(ax, ends)
    return style.sign(figure, params)


def fig3(table: pd.DataFrame, params: Params) -> Figure:
    """Left: the two parts of the most even mixture. Middle and right: EM and train loss of every mixture."""
    figure = style.new_figure(params.get("width", "page"), 2.2)
    left, middle, right = axes = figure.subplots(1, 3)
    share = table["digit_share"]
    even = table.loc[(share - params.get("digit_share", 0.5)).abs().idxmin(), "data"]
    last = table["epoch"].max()
    for name in ordered(pick(table, data=even)["subset"]):
        if name == "all":
            continue
        drawn = style.draw_curve(left, pick(table, data=even, subset=name, metric="exact_match"), look(name))
        # halfway up the curve, where the two are apart
        middle_row = drawn.iloc[(drawn["mean"] - 0.5).abs().argmin()]
        left.annotate(
            look(name).label.replace(" ", "\n"),
            (middle_row["epoch"], 0.5),
            xytext=(-4, 6),
            textcoords="offset points",
            ha="right",
            color=look(name).color,
            fontsize=7,
        )
    shares = sorted(share.unique())
    colors = dict(zip(shares, style.shades("#F0B27A", "#3B1F0B", len(shares)), strict=True))
    whole = table[table["subset"].isin(["all"])]
    for ax, metric in ((middle, "exact_match"), (right, "loss")):
        for digits, color in colors.items():
            part = pick(whole, digit_share=digits, metric=metric)
            if not part.empty:
                style.draw_curve(ax, part, Look(f"{100 * digits:.0f} %", color))
    for ax in axes:
        style.epoch_axis(ax, last)
    style.share_axis(left)
    left.set_title(f"{_percent(table, even)} digits", color=style.MUTED)
    style.share_axis(middle, "Exact match, all items")
    right.set_ylim(bottom=0)
    right.set_ylabel("Train loss, all items")
    style.key_beside(figure, [Look(f"{100 * d:.0f} %", c) for d, c in colors.items()], "random digits")
    style.panel_letters(axes)
    return style.sign(figure, params)


def _percent(table: pd.DataFrame, data: str) -> str:
    return f"{100 * table.loc[table['data'] == data, 'digit_share'].iloc[0]:.0f} %"


def fig4(table: pd.DataFrame, params: Params) -> Figure:
    """One panel per data set, small and large model."""
    curves = table[table["metric"] == "exact_match"]
    names = ordered(curves["data"])
    across = fewest_gaps(len(names))
    figure, axes = grid_of_panels(len(names), params.get("width", "page"), across, 1.2, 0.4)
    roles = [role for role in ("small", "large") if (curves["role"] == role).any()]
    colors = dict(zip(["small", "large"], style.size_colors(2), strict=True))
    for ax, name in zip(axes, names, strict=True):
        for role in roles:
            part = pick(curves, data=name, role=role)
            if not part.empty:
                style.draw_curve(ax, part, Look(role, colors[role], dash="-" if role == "small" else style.DASHED))
        ax.set_title(look(name).label)
        style.epoch_axis(ax, pick(curves, data=name)["epoch"].max())
        ax.xaxis.get_major_locator().set_params(nbins=3)  # type: ignore[call-arg]
        style.share_axis(ax)
    outer_labels(axes, across)
    sizes = curves.groupby("role")["model"].unique()
    keys = [
        Look(f"{role} ({', '.join(sizes[role])})", colors[role], dash="-" if role == "small" else style.DASHED)
        for role in roles
    ]
    style.key_above(figure, keys)
    return style.sign(figure, params)


B2_DASHES = [style.DASHED, "-"]  # lower level, higher level
B2_PANELS = {  # experiment: (data set, what is varied)
    "jumps": ("mij", "Jump probability"),
    "letters": ("mijl", "Letters per jump"),
    "backs": ("repeat_back", "Copied from n tokens ago"),
}


def figB2(table: pd.DataFrame, params: Params) -> Figure:
    """Epochs to two EM levels against the three knobs of pattern strength."""
    names = [name for name in B2_PANELS if (table["experiment"] == name).any()]
    figure = style.new_figure(params.get("width", "page"), 2.2)
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True).ravel()
    levels = sorted(table["level"].unique())
    limit = table["last_epoch"].max()
    for ax, name in zip(axes, names, strict=True):
        base = look(B2_PANELS[name][0])
        for level, dash in zip(levels, B2_DASHES, strict=False):
            part = pick(table, experiment=name, level=level)
            failed = part.groupby("option_value")["censored"].any()
            solid = part[part["option_value"].isin(failed[~failed].index)]
            if not solid.empty:
                style.error_bars(ax, solid, base, "option_value", dash)
            for value in failed[failed].index:
                style.not_reached(ax, value, base.color, base.marker)
        values = sorted(pick(table, experiment=name)["option_value"].unique())
        room = 0.14 * (max(values) - min(values) or 1)
        ax.set_xlim(min(values) - room, max(values) + room)
        shown = [values[0]]  # a label that would touch its left neighbor is left out
        shown += [v for i, v in enumerate(values[1:]) if v - values[i] > room or i % 2]
        ax.set_xticks(values, [f"{v:g}" if v in shown else "" for v in values])
        ax.set_xlabel(B2_PANELS[name][1])
        ax.set_title(base.label if name != "backs" else "Repeat n tokens ago")
    axes[0].set_ylim(0, limit)
    axes[0].set_ylabel("Epochs needed")
    keys = [Look(f"EM {level:g}", style.MUTED, dash=d) for level, d in zip(levels, B2_DASHES, strict=False)]
    style.key_beside(figure, keys, "to reach")
    style.panel_letters(axes)
    return style.sign(figure, params)
