"""Figures of paper `geometry` about pre-training: phases, and capabilities beside them.

The style of a line says which phase RankMe is in; the paper's read-offs have panels of their own, because the models
differ in width and in tokens by powers of ten.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from memorization.figures import style
from memorization.figures.common import NONE, cell, line_key, mine, papers
from memorization.figures.geometry_more import name_of, token_axis
from memorization.figures.geometry_phases import (
    FAMILIES,
    by_width,
    family_of,
    hollow_key,
    log_axis,
    model_colors,
    model_lines,
    phase_keys,
    phase_line,
    read_off_axis,
    read_offs,
    say_missing,
)
from memorization.figures.geometry_third_phase import x_third_phase
from memorization.figures.style import DOTTED, Look
from memorization.tables.common import pick
from memorization.tables.geometry_pretraining import RANGES

__all__ = ["fig2", "fig3", "fig11", "tab9", "x_third_phase"]
Params = dict[str, Any]
RHO = {"facts": Look("facts: ρ", "#0072B2", "o"), "continuations": Look("continuations: ρ", "#009E73", "s")}
ABLE = {
    ("choice_accuracy", "continuations"): Look("continuations: choice", "#009E73", "s"),
    ("choice_accuracy", "facts"): Look("facts: choice", "#56B4E9", "^"),
    ("recall", "facts"): Look("facts: recall", "#0072B2", "o"),
}
ALPHA = Look("α (right axis)", "#E69F00", "D")
READ_OFF = "read off the figure"
SPECTRUM = {"rank_me": "RankMe", "alpha": "α"}


# ------------------------------------------------------------------------------------------------------------
# Phases


def _rate_title(rates: pd.Series) -> tuple[str, float]:
    """Title of the learning rate in a power of ten, and the factor to that unit."""
    largest = rates.max()
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    return (f"Learning rate ($10^{{{power}}}$)", 10.0**-power) if power else ("Learning rate", 1.0)


def fig2(table: pd.DataFrame, params: Params) -> Figure:
    """Above: loss, gradient norm, learning rate. Below: RankMe and alpha, ours and the paper's."""
    own, theirs = mine(table), papers(table)
    colors = model_colors(by_width(table))
    figure = style.new_figure(params.get("width", "page"), 3.5)
    axes = figure.subplots(2, 4)
    rate, unit = _rate_title(pick(own, metric="learning_rate")["value"])
    above = {"cross_entropy": "Loss (nats)", "gradient_norm": "Gradient norm", "learning_rate": rate}
    for ax, (metric, title) in zip(axes[0], above.items(), strict=False):
        rows = pick(own, metric=metric)
        ax.set_title(title)
        if rows["value"].notna().any():
            scale = unit if metric == "learning_rate" else 1.0
            model_lines(ax, rows.assign(value=rows["value"] * scale), colors)
            ax.yaxis.set_major_locator(MaxNLocator(4))
            token_axis(ax, own["tokens"])
            ax.set_xlabel("")
        else:
            say_missing(ax)
    _rank_and_alpha(axes[1, :2], own, colors)
    for ax, (metric, title) in zip(axes[1, :2], SPECTRUM.items(), strict=True):
        ax.set_title(title)
        beside = axes[1, 2 + list(SPECTRUM).index(metric)]
        part = pick(theirs, metric=metric)
        if part.empty:
            beside.set_axis_off()
            continue
        found = pd.concat([read_offs(beside, family_of(part, family), look) for family, look in FAMILIES.items()])
        if metric == "rank_me":
            log_axis(beside)
        else:
            beside.yaxis.set_major_locator(MaxNLocator(4))
            beside.margins(y=0.08)
        read_off_axis(beside, [*found["x_low"], *found["x_high"]])
        beside.set_title(f"{title}, paper")
    keys = [line_key(Look(name_of(model), color)) for model, color in colors.items()]
    keys += phase_keys(table)
    if theirs["metric"].isin(list(SPECTRUM)).any():
        keys += [
            hollow_key(Look(f"{look.label} (paper,\n{READ_OFF})", look.color, look.marker))
            for look in FAMILIES.values()
        ]
    axes[0, 3].set_axis_off()
    size = {"fontsize": 6, "labelspacing": 0.3} if len(keys) > 8 else {"labelspacing": 0.4}
    axes[0, 3].legend(handles=keys, loc="center left", bbox_to_anchor=(-0.12, 0.5), **size)
    style.panel_letters([*axes[0, :3], *(ax for ax in axes[1] if ax.axison)])
    return style.sign(figure, params)


def _rank_and_alpha(axes: Sequence[Axes], own: pd.DataFrame, colors: dict[str, str]) -> None:
    """RankMe on a logarithmic axis, as its phases are factors, and alpha on a linear one."""
    for ax, metric in zip(axes, SPECTRUM, strict=True):
        model_lines(ax, pick(own, metric=metric), colors, log=metric == "rank_me")
        if metric == "rank_me":
            log_axis(ax)
        else:
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.margins(y=0.08)
        token_axis(ax, own["tokens"])


def fig11(table: pd.DataFrame, params: Params) -> Figure:
    """RankMe and alpha of the small sizes."""
    own = mine(table)
    colors = model_colors(by_width(table))
    figure = style.new_figure(params.get("width", "page"), 2.1)
    axes = figure.subplots(1, 2)
    _rank_and_alpha(axes, own, colors)
    for ax, title in zip(axes, SPECTRUM.values(), strict=True):
        ax.set_ylabel(title)
    style.panel_letters(axes)
    keys = [line_key(Look(name_of(model), color)) for model, color in colors.items()] + phase_keys(table)
    figure.legend(handles=keys, loc="outside right center", labelspacing=0.6)
    return style.sign(figure, params)


# ------------------------------------------------------------------------------------------------------------
# Capabilities


def _rho(ax: Axes, rows: pd.DataFrame) -> None:
    """Correlation with infini-gram, mean over seeds; the band is a standard error over parts of the questions."""
    for subset, look in RHO.items():
        part = pick(rows, metric="rho", zeros="skip", subset=subset)
        if part["value"].notna().any():
            phase_line(ax, part, look.color, band=False)
            at = (
                part.assign(square=((part["high"] - part["low"]) / 2) ** 2)
                .groupby("tokens")[["value", "square"]]
                .mean()
            )
            error = np.sqrt(at["square"])
            ax.fill_between(
                at.index, at["value"] - error, at["value"] + error, color=look.color, alpha=0.15, linewidth=0, zorder=2
            )


def _beside(ax: Axes, rows: pd.DataFrame, limits: tuple[float, float], label: bool) -> None:
    """Alpha on an axis at the right, with numbers at the last model only."""
    other = ax.twinx()
    phase_line(other, pick(rows, metric="alpha"), ALPHA.color, band=False, lw=0.9)
    other.set_ylim(limits)
    other.yaxis.set_major_locator(MaxNLocator(4))
    other.grid(False)
    other.spines["right"].set_visible(True)
    other.spines["right"].set_color(ALPHA.color)
    other.tick_params(axis="y", colors=ALPHA.color, labelcolor=ALPHA.color, labelright=label)
    if label:
        other.set_ylabel("α", color=ALPHA.color, labelpad=1)


def _around(values: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis that panels share."""
    low, high = np.nanmin(values.to_numpy(float)), np.nanmax(values.to_numpy(float))
    pad = 0.06 * (high - low) + 1e-3
    return float(low - pad), float(high + pad)


def _places(number: int) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """A page with pairs of panels, one above the other, at most four across."""
    across = min(number, 4)
    blocks = int(np.ceil(number / across))
    figure = style.new_figure("page", 0.6 + 3.0 * blocks)
    axes = figure.subplots(2 * blocks, across, squeeze=False)
    pairs = [(axes[2 * block, k], axes[2 * block + 1, k]) for block in range(blocks) for k in range(across)]
    for pair in pairs[number:]:
        for ax in pair:
            ax.set_axis_off()
    return figure, pairs[:number]


def fig3(table: pd.DataFrame, params: Params) -> Figure:
    """A column a model, the paper's last: above rho and alpha, below accuracies."""
    own, theirs = mine(table), papers(table)
    models = by_width(table)
    figure, pairs = _places(len(models) + (len(theirs) > 0))
    shown = own[~own["zeros"].eq("zero")]
    limits = [
        _around(pick(shown, metric=metrics)[["value", *more]])
        for metrics, more in (("rho", ("low", "high")), ("alpha", ()), (["choice_accuracy", "recall"], ()))
    ]
    for k, (model, (upper, lower)) in enumerate(zip(models, pairs, strict=False)):
        part = pick(shown, model=model)
        _rho(upper, part)
        _beside(upper, part, limits[1], label=k + 1 == len(models) or k % 4 == 3)
        for (metric, subset), look in ABLE.items():
            phase_line(lower, pick(part, metric=metric, subset=subset), look.color, limits=(0, 1))
        lower.axhline(0.25, color=style.MUTED, lw=0.6, ls=DOTTED, zorder=1)
        wide = f", width {part['width'].iloc[0]:g}" if len(models) < 4 else ""
        upper.set_title(name_of(model) + wide)
        for ax, ends, label in ((upper, limits[0], "ρ with infini-gram"), (lower, limits[2], "Accuracy")):
            ax.set_ylim(ends)
            ax.yaxis.set_major_locator(MaxNLocator(5))
            token_axis(ax, own["tokens"])
            ax.tick_params(labelleft=k % 4 == 0)
            ax.set_ylabel(label if k % 4 == 0 else "")
        upper.set_xlabel("")
    if len(theirs):
        _papers_capabilities(*pairs[-1], theirs)
    style.panel_letters(ax for pair in zip(*pairs, strict=True) for ax in pair)
    keys = [line_key(look) for look in (*RHO.values(), ALPHA, *ABLE.values())] + phase_keys(shown)
    if len(theirs):
        keys += [hollow_key(Look("paper (open)", style.MUTED, "o"))]
    figure.legend(
        handles=keys, loc="outside upper center", ncols=int(np.ceil(len(keys) / 2)), columnspacing=1.2,
        handlelength=1.7,
    )  # fmt: skip
    return style.sign(figure, params)


def _papers_capabilities(upper: Axes, lower: Axes, theirs: pd.DataFrame) -> None:
    """What can be read off the paper's figure, over its five models together."""
    spots = [read_offs(upper, family_of(pick(theirs, metric="rho"), "pythia"), Look("", RHO["facts"].color, "o"))]
    for (metric, subset), look in ABLE.items():
        spots.append(read_offs(lower, family_of(pick(theirs, metric=metric, subset=subset), "pythia"), look))
    for ax in (upper, lower):
        read_off_axis(ax, pd.concat(spots)[["x_low", "x_high"]].to_numpy().ravel())
        ax.margins(y=0.1)
        ax.yaxis.set_major_locator(MaxNLocator(4))
    lower.axhline(0.25, color=style.MUTED, lw=0.6, ls=DOTTED, zorder=1)
    upper.set(title="paper, Pythia", xlabel="")
    upper.text(0.97, 0.04, READ_OFF, transform=upper.transAxes, fontsize=6, color=style.MUTED, ha="right")


RANGE_NAMES = {"all": "all", "from_trough": "from the trough", "from_peak": "from the peak"}


def tab9(table: pd.DataFrame, params: Params) -> Figure:
    """Correlations over checkpoints; ours above the paper's."""
    own, theirs = mine(table), papers(table)
    cells: list[list[str]] = []
    muted, rules = [], []
    for model in by_width(table):
        for k, name in enumerate(RANGES):
            part = pick(own, model=model, range=name)
            if k == 0 and cells:
                rules.append(len(cells))
            counts = part["n"].dropna()
            number = f"{counts.mean():.0f}" if len(counts) else NONE
            found = [
                cell(pick(part, metric=f"correlation_{metric}", type=kind), 2, 1.0)
                for metric in ("alpha", "rank_me")
                for kind in ("pearson", "spearman")
            ]
            found = [text.replace("-", "−") for text in found]
            cells.append([name_of(model) if k == 0 else "", RANGE_NAMES[name], number, *found[:2], "", *found[2:], ""])
            muted.append(False)
    rows = theirs[theirs["metric"].str.startswith("correlation")]
    sections = (
        {len(cells): "Paper; neither the kind of correlation nor the range of checkpoints is stated"}
        if len(rows)
        else {}
    )
    said_of = "Paper; neither the kind of correlation nor the range of checkpoints is stated"
    sections = {len(cells): said_of} if len(rows) else {}
    for model in rows["model"].drop_duplicates():
        values = [pick(rows, model=model, metric=f"correlation_{metric}")["value"] for metric in ("alpha", "rank_me")]
        said = [f"{one.iloc[0]:.2f}".replace("-", "−") if len(one) else NONE for one in values]
        cells.append([name_of(model), "", "", "", "", said[0], "", "", said[1]])
        muted.append(True)
    if len(rows):
        rules.append(len(cells) - rows["model"].nunique())
    heads = ["Model", "Checkpoints", "Number", *(["Pearson", "Spearman", "not\nstated"] * 2)]
    frame = pd.DataFrame(cells, columns=range(len(heads))).set_axis(heads, axis=1)
    seeds = own["seed"].nunique()
    sure = f"Mean over {seeds} seeds; ±: 95\u00a0% t interval." if seeds > 2 else f"Mean over {seeds} seed(s)."
    note = (
        "Correlation of the accuracy in choosing the right continuation with α and with RankMe, over the checkpoints "
        "of a model. Number: of checkpoints, mean over seeds; no value below three. Checkpoints are few and not "
        f"independent. {sure}"
    )
    groups = [("with α", 3, 5), ("with RankMe", 6, 8)]
    return style.render_table(
        frame, params, muted, rules, note, params.get("width", "page"), groups, sections, (), 0.94
    )
