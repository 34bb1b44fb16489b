"""Figures of paper `tokenswap`: one function per figure, named as the figure without its prefix.

Every function takes the table of `memorization.tables.tokenswap` of the same name and the figure's
parameters, and returns a matplotlib Figure. Marks are means over seeds, bars 95 % t intervals of the mean
(none below three seeds) unless a caption says so.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memorization.figures import style
from memorization.figures.common import bars, over_seeds
from memorization.figures.tokenswap_arms import arm_look, arms_in, batches, ours
from memorization.figures.tokenswap_tables import (
    tab1,
    tab2,
    tab3,
    tab4,
    tab5,
    tab6,
    tab7,
    tab8,
    tab9,
    tab10,
    tab11,
    tab12,
    tab13,
)
from memorization.figures.tokenswap_text import fig4
from memorization.tables.common import pick

__all__ = [
    "fig3",
    "fig4",
    "fig5",
    "tab1",
    "tab2",
    "tab3",
    "tab4",
    "tab5",
    "tab6",
    "tab7",
    "tab8",
    "tab9",
    "tab10",
    "tab11",
    "tab12",
    "tab13",
    "x_controls",
    "x_cost",
    "x_hard",
]
Params = dict[str, Any]


def _mark(ax: Axes, arm: str, x: tuple[float, float, float], y: tuple[float, float, float], **more: Any) -> None:
    """One point of an arm with its intervals in both directions; x and y are (mean, low, high)."""
    look = arm_look(arm)
    ax.errorbar(
        x[0], y[0], xerr=bars(*x), yerr=bars(*y), marker=look.marker, color=look.color, elinewidth=0.8, ls="",
        **{"mec": "white", "mew": 0.5, "ms": 5.5, "zorder": 4, **more},
    )  # fmt: skip


def fig3(table: pd.DataFrame, params: Params) -> Figure:
    """EMR against held-out cross-entropy, a point a size; left ours, right the paper's."""
    panels = [(ours(table), "ours"), (pick(table, source="paper"), "paper: Pythia, Pile")]
    panels = [(part, title) for part, title in panels if len(part)]
    figure = style.new_figure(params.get("width", "page"), 2.5)
    axes = figure.subplots(1, len(panels), squeeze=False).ravel()
    for ax, (part, title) in zip(axes, panels, strict=True):
        part = pick(part, subset="all").sort_values("parameters", kind="stable")
        paths: dict[str, dict[str, tuple[float, float]]] = {}
        for arm in ("standard", "tokenswap"):
            path = paths.setdefault(arm, {})
            mine = pick(part, arm=arm)
            for size in mine["detail"].unique():
                one = pick(mine, detail=size)
                x = over_seeds(pick(one, metric="cross_entropy"))
                share = pick(one, metric="exact_match")
                y = over_seeds(share.assign(value=100 * share["value"]), 0, 100)
                if np.isnan(x[0] + y[0]):
                    continue
                _mark(ax, arm, x, y)
                path[size] = (x[0], y[0])
                if arm == "standard":
                    ax.annotate(size, path[size], xytext=(5, 4), textcoords="offset points", fontsize=6.5)
            ax.plot(*np.array([*path.values()]).reshape(-1, 2).T, color=arm_look(arm).color, lw=1.0, zorder=3)
        for size in paths["standard"].keys() & paths["tokenswap"].keys():  # the same model, decoded in both ways
            ends = np.array([paths["standard"][size], paths["tokenswap"][size]])
            ax.plot(*ends.T, color=style.MUTED, lw=0.6, ls=style.DOTTED, zorder=2)
        ax.set(xlabel="Held-out cross-entropy (nats a token)", ylabel="Exact match rate (%)")
        ax.set_title(title, color=style.MUTED)
        ax.margins(x=0.1)
        top = ax.get_ylim()[1]
        ax.set_ylim(-0.04 * top, 1.04 * top)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    style.panel_letters(axes)
    handles = [arm_look(arm) for arm in ("standard", "tokenswap")]
    style.key_beside(figure, handles, "decoding", markers=True)
    return style.sign(figure, params)


def fig5(table: pd.DataFrame, params: Params) -> Figure:
    """Histograms of ROUGE-L, a panel an arm; whiskers from the lowest to the highest seed."""
    names = arms_in(table)
    figure = style.new_figure(params.get("width", "page"), 1.9)
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True).ravel()
    for ax, name in zip(axes, names, strict=True):
        part = pick(table, arm=name).assign(value=lambda t: 100 * t["value"])
        width = float((part["high"] - part["low"]).iloc[0])
        drawn = style.over_seeds(part.assign(middle=(part["low"] + part["high"]) / 2), "middle")
        ax.bar(drawn["middle"], drawn["mean"], 0.92 * width, color=arm_look(name).color, linewidth=0)
        drawn = drawn[drawn["high"] > drawn["low"]]
        ax.vlines(drawn["middle"], drawn["low"], drawn["high"], color=style.MUTED, lw=0.8)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        ax.grid(False, axis="x")
        ax.set_xlabel("ROUGE-L")
        ax.set_title(arm_look(name).label)
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    axes[0].set_ylabel("% of passages")
    axes[0].set_ylim(bottom=0)
    style.panel_letters(axes)
    return style.sign(figure, params)


def x_hard(table: pd.DataFrame, params: Params) -> Figure:
    """Accuracy where the answer is a function word, a row a grammatical class."""
    names = arms_in(table)
    order = pick(table, arm=names[0]).groupby("subset")["value"].mean().drop("all", errors="ignore").sort_values()
    rows = [*order.index, *(["all"] if (table["subset"] == "all").any() else [])]
    place = {name: k + 0.35 * (name == "all") for k, name in enumerate(rows)}
    figure = style.new_figure(params.get("width", "column"), 0.75 + 0.26 * len(rows))
    ax = figure.subplots()
    chance = params.get("chance", 0.25)
    ax.axvline(chance, color=style.MUTED, lw=0.8, ls=style.DOTTED, zorder=1)
    for k, arm in enumerate(names):
        shift = 0.22 * ((len(names) - 1) / 2 - k)
        for name in rows:
            mean, low, high = over_seeds(pick(table, arm=arm, subset=name), 0, 1)
            _mark(ax, arm, (mean, low, high), (place[name] + shift, np.nan, np.nan))
    ax.set_yticks(list(place.values()), [name if name != "all" else "all classes" for name in place])
    ax.set_ylim(-0.6, max(place.values()) + 0.6)
    ax.grid(False, axis="y")
    left = min(chance - 0.06, table["value"].min() - 0.03)
    ax.set_xlim(max(-0.03, left), 1.03)
    ax.annotate(
        "chance", (chance, 1), xycoords=("data", "axes fraction"), xytext=(0, 1), textcoords="offset points",
        fontsize=6.5, color=style.MUTED, ha="center", va="bottom",
    )  # fmt: skip
    ax.set_xlabel("Accuracy")
    keys = [arm_look(name) for name in names]
    handles = [_handle(key.label, key.color, key.marker) for key in keys]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1, columnspacing=1.2)
    return style.sign(figure, params)


def _handle(label: str, color: str, marker: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, marker=marker, ls="", label=label)


def x_controls(table: pd.DataFrame, params: Params) -> Figure:
    """ROUGE-L and EMR against what decoding adds to held-out cross-entropy, a mark an arm."""
    figure = style.new_figure(params.get("width", "page"), 2.4)
    axes = figure.subplots(1, 2)
    names = [arm for arm in arms_in(table) if (pick(table, arm=arm)["metric"] == "cross_entropy_added").any()]
    for ax, metric, label in zip(axes, ("rouge_l", "exact_match"), ("ROUGE-L", "Exact match rate"), strict=True):
        ax.axvline(0, color=style.MUTED, lw=0.6, ls=style.DOTTED, zorder=1)
        for arm in names:
            part = pick(table, arm=arm)
            x = over_seeds(pick(part, metric="cross_entropy_added"))
            y = over_seeds(pick(part, metric=metric), 0, 1)
            # with the main model as its own auxiliary nothing changes: its mark lies on that of standard
            _mark(ax, arm, x, y, **({"ms": 8, "zorder": 3} if arm == "standard" else {}))
        style.share_axis(ax, label)
        ax.margins(x=0.1)
        ax.set_xlabel("Cross-entropy added (nats a token)")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    style.panel_letters(axes)
    keys = [style.Look(arm_look(arm).label, arm_look(arm).color, arm_look(arm).marker, "") for arm in names]
    style.key_beside(figure, keys, markers=True)
    return style.sign(figure, params)


def x_cost(table: pd.DataFrame, params: Params) -> Figure:
    """Seconds a token relative to standard decoding, a panel a batch size; the open bar is the limit."""
    ratios = pick(table, metric="seconds_ratio")
    sizes = batches(table)
    names = arms_in(ratios)[::-1]
    figure = style.new_figure(params.get("width", "page"), 0.75 + 0.24 * len(names))
    axes = figure.subplots(1, len(sizes), squeeze=False, sharey=True).ravel()
    end = ratios["value"].max() * 1.25
    for ax, batch in zip(axes, sizes, strict=True):
        part = pick(ratios, subset=batch)
        limit, _, _ = over_seeds(pick(part, arm="limit"))
        for k, arm in enumerate(names):
            mean, low, high = over_seeds(pick(part, arm=arm), 0)
            if np.isnan(mean):
                continue
            if arm == "limit":
                ax.barh(k, mean, 0.6, color="white", edgecolor=style.MUTED, hatch="/////", linewidth=0.7)
            else:
                ax.barh(k, mean, 0.62, color=arm_look(arm).color, linewidth=0)
            ax.errorbar(mean, k, xerr=bars(mean, low, high), color=style.INK, elinewidth=0.9, ls="")
            said = f"{mean:.2f}" + (f" ({mean / limit:.2f} × both)" if arm == "tokenswap" and limit > 0 else "")
            ax.annotate(
                said, (np.nanmax([mean, high]), k), xytext=(3, 0), textcoords="offset points", fontsize=6.8,
                va="center",
            )  # fmt: skip
        ax.set_xlim(0, end)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel("Seconds a token, standard = 1")
        ax.set_title(batch, loc="right", color=style.MUTED)
        ax.set_yticks(range(len(names)), [arm_look(arm).label for arm in names])
        ax.grid(False, axis="y")
    style.panel_letters(axes)
    return style.sign(figure, params)
