"""Figures of paper `geometry` about post-training: RankMe along its stages, losses and win rates, pass@k."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from memorization.figures import style
from memorization.figures.common import curve, hollow, key, line_key, mark_key, mine, papers, percent
from memorization.figures.geometry_more import token_axis
from memorization.figures.style import DASHED, DOTTED, Look
from memorization.tables.common import pick

Params = dict[str, Any]
STAGES = {
    "sft": Look("SFT", "#0072B2", "o"),
    "dpo": Look("DPO", "#E69F00", "s"),
    "grpo": Look("GRPO", "#D55E00", "^"),
}
FORMATS = {
    "short": Look("tuned on short", "#6A3D9A", "o"),
    "long": Look("tuned on long", "#009E73", "s", DASHED),
}
MIXED = Look("short over long", style.INK)
BASE = "Tokens of the base"
SMALL = 6.2  # points


def _widest(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the widest model in every panel, which the figure shows, and all of the paper's."""
    own = mine(table).sort_values(["width", "model"], kind="stable", na_position="first")
    shown = own.groupby("panel")["model"].last()
    return table[table["source"].eq("paper") | table["model"].eq(table["panel"].map(shown))]


def _head(ax: Axes, letter: str, title: str, said: str = "", lines: int = 1) -> None:
    """Letter and title of a panel, and below them in gray what the paper has."""
    pad = 3 + lines * 9
    ax.set_title(letter, loc="left", weight="bold", fontsize=8.5, pad=pad)
    ax.set_title(title, pad=pad)
    if said:
        ax.text(
            0.5, 1.02, f"paper: {said}", transform=ax.transAxes, ha="center", va="bottom", fontsize=SMALL,
            color=style.MUTED,
        )  # fmt: skip


def _ends(rows: pd.DataFrame, factor: float = 1.0, unit: str = "") -> str:
    """Start, minimum and end of a curve of the paper, from its text where that gives them; "" without values."""
    if rows.empty:
        return ""
    said = rows[~rows["tag"].eq("fig")]
    rows = said if {"start", "end"} <= set(said["point"]) else rows
    found = []
    for point in ("start", "minimum", "end"):
        for value, high in pick(rows, point=point)[["value", "value_high"]].head(1).to_numpy(float):
            text = f"{factor * value:.4g}"
            found.append(text if not high > value else f"{text}–{factor * high:.4g}")
    return " → ".join(found) + unit if len(found) > 1 else ""


def _empty(ax: Axes, rows: pd.DataFrame) -> bool:
    """Whether a panel has no rows of ours; then it says so."""
    if len(rows):
        return False
    ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color=style.MUTED, fontsize=7)
    ax.set_xticks([])
    ax.set_yticks([])
    return True


# ------------------------------------------------------------------------------------------------------------
# Fig. 5


def _along(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    """One stage after the other, thin lines between them, 1 = before SFT."""
    rows = mine(table, panel=panel)
    if _empty(ax, rows):
        return
    ax.axhline(1, color=style.MUTED, lw=0.6, zorder=1)
    for stage, look in STAGES.items():
        part = pick(rows, stage=stage)
        if part.empty:
            continue
        curve(ax, part, look, x="at")
        begin, end = part["at"].min(), part["at"].max()
        if begin > 0:
            ax.axvline(begin, color=style.MUTED, lw=0.7, ls=DOTTED, zorder=1)
        ax.text(
            (begin + end) / 2, 0.98, look.label, transform=ax.get_xaxis_transform(), ha="center", va="top",
            color=look.color, fontsize=7,
        )  # fmt: skip
    ax.margins(x=0.02, y=0.1)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.14 * (high - low))  # for the names
    ax.set_xlabel("Training steps, all stages")
    ax.set_ylabel("RankMe / base")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _multiples(theirs: pd.DataFrame) -> str:
    """RankMe of the paper at the ends of the stages in units of its value before SFT."""
    first = pick(theirs, panel="rank_me_text", stage="sft", point="start")["value"]
    found = []
    for stage, look in STAGES.items():
        last = pick(theirs, panel="rank_me_text", stage=stage, point="end")["value"]
        if len(first) and len(last):
            found.append(f"{look.label} {last.iloc[0] / first.iloc[0]:.2f}")
    return ", ".join(found)


def _over_base(
    ax: Axes, rows: pd.DataFrame, looks: dict[str, Look], label: str, by: str = "format", high: float = np.inf
) -> None:
    """Lines with marks over the tokens of the base, one a value of a column; bands end at 0 and `high`."""
    if _empty(ax, rows):
        return
    for name, look in looks.items():
        part = pick(rows, **{by: name})
        if part.empty:
            continue
        curve(ax, part, look, x="base_tokens", low=0, high=high)
        means = part.groupby("base_tokens")["value"].mean()
        ax.plot(means.index, means, color=look.color, marker=look.marker, ls="", ms=3.4, mec="white", mew=0.4, zorder=4)
    token_axis(ax, rows["base_tokens"], BASE)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.margins(y=0.1)
    ax.set_ylabel(label)


def _half_line(ax: Axes) -> None:
    """50 % of the comparisons, in view."""
    ax.axhline(50, color=style.MUTED, lw=0.7, ls=DOTTED, zorder=1)


def _passes(ax: Axes, table: pd.DataFrame) -> None:
    """pass@k of the ends of the stages, and thin lines within GRPO."""
    rows = percent(mine(table, panel="pass"))
    if _empty(ax, rows):
        return
    within = pick(rows, stage="grpo")
    steps = sorted(within["step"].unique())
    for step in steps[1:-1]:
        means = pick(within, step=step).groupby("k")["value"].mean()
        ax.plot(means.index, means, color=STAGES["grpo"].color, lw=0.7, alpha=0.6, zorder=2)
    for stage, look in STAGES.items():
        part = pick(rows, stage=stage)
        part = part[part["step"] == part["step"].max()]
        if len(part):
            curve(ax, part, look, x="k", low=0, high=100)
        theirs = percent(papers(table, panel="pass", stage=stage))
        theirs = theirs[theirs["step"] == theirs["step"].max()]
        hollow(ax, theirs["k"], theirs["value"], look)
    ax.set_xscale("log", base=2)
    shown = sorted(pd.concat([rows["k"], papers(table, panel="pass")["k"]]).dropna().unique())
    ticks = [k for k in (1, 4, 16, 64, 256, 1024) if shown[0] <= k <= shown[-1]]
    ax.set_xticks(ticks, [f"{k}" for k in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.set_xlabel("k")
    ax.set_ylabel("pass@k (%)")


def _during(ax: Axes, rows: pd.DataFrame, look: Look, label: str, high: float = np.inf) -> None:
    """A quantity over the steps of GRPO; step 0 is the end of DPO. Bands end at 0 and `high`."""
    if _empty(ax, rows):
        return
    curve(ax, rows, look, x="step", low=0, high=high)
    means = rows.groupby("step")["value"].mean()
    ax.plot(means.index, means, color=look.color, marker=look.marker, ls="", ms=3.4, mec="white", mew=0.4, zorder=4)
    ax.set_xlabel("GRPO step")
    ax.set_ylabel(label)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.margins(y=0.1)


def fig5(table: pd.DataFrame, params: Params) -> Figure:
    """RankMe along the stages, fine-tuning from several checkpoints, and pass@k: a row of three panels each."""
    table = _widest(table)
    theirs = papers(table)
    figure = style.new_figure(params.get("width", "page"), 6.0)
    axes = figure.subplots(3, 3)
    (text, task, base), (near, far, won), (passes, most, rank) = axes

    def of(panel: str) -> pd.DataFrame:
        return pick(theirs, panel=panel)

    _along(text, table, "rank_me_text")
    _head(text, "a", "RankMe of text", _multiples(theirs))
    _along(task, table, "rank_me_task")
    _head(task, "b", "RankMe at the reply")
    _over_base(
        base, mine(table, panel="rank_me_base").assign(line="base"), {"base": Look("", style.INK)}, "RankMe", "line"
    )
    _head(base, "c", "RankMe of the base", _ends(of("rank_me_base")))

    short = {"short": FORMATS["short"]}
    _over_base(near, mine(table, panel="loss_in"), short, "Nats a reply")
    _head(near, "d", "Loss in distribution", _ends(of("loss_in")))
    _over_base(far, mine(table, panel="loss_out"), short, "Nats a reply")
    _head(far, "e", "Loss out of distribution", _ends(of("loss_out")))
    _over_base(won, percent(mine(table, panel="won")), {"short": MIXED}, "Win rate (%)", high=100)
    _half_line(won)
    _head(won, "f", "Win rate, short over long", _ends(of("won"), 100, " %"))

    _passes(passes, table)
    _head(passes, "g", "pass@k by stage")
    highest = percent(mine(table, panel="pass_most"))
    k = int(highest["k"].max()) if len(highest) else 0
    _during(most, highest, STAGES["grpo"], f"pass@{k} (%)" if k else "", high=100)
    _head(most, "h", f"pass@{k} during GRPO" if k else "pass@k during GRPO", _first_last(of("pass_most"), 100, " %"))
    ours = mine(table, panel=["rank_me_text_grpo", "rank_me_task_grpo"])
    _ranks(rank, ours)
    _head(rank, "i", "RankMe during GRPO", _ends(of("rank_me_text_grpo")))
    handles = [line_key(look) for look in STAGES.values()]
    handles += [line_key(Look("within GRPO", STAGES["grpo"].color)), line_key(FORMATS["short"])]
    handles[3].set(linewidth=0.7, alpha=0.6)
    if len(of("pass")):
        handles.append(mark_key(Look("paper, k = 16, 256", style.MUTED, "o"), filled=False))
    key(figure, handles)
    return style.sign(figure, params)


def _ranks(ax: Axes, rows: pd.DataFrame) -> None:
    """RankMe of the two probes over GRPO, each in units of its value before GRPO."""
    looks = {
        "rank_me_text_grpo": Look("text", STAGES["grpo"].color, "^"),
        "rank_me_task_grpo": Look("at the reply", STAGES["grpo"].color, "v", DASHED),
    }
    if _empty(ax, rows):
        return
    begin = rows["step"].eq(rows["step"].min())
    first = rows[begin].groupby(["panel", "seed"])["value"].mean().rename("before").reset_index()
    rows = rows.merge(first, on=["panel", "seed"])
    rows = rows.assign(value=rows["value"] / rows["before"])
    ax.axhline(1, color=style.MUTED, lw=0.6, zorder=1)
    for panel, look in looks.items():
        part = pick(rows, panel=panel)
        if len(part):
            _during(ax, part, look, "RankMe / end of DPO")
    ax.legend(handles=[line_key(look) for look in looks.values()], loc="best", handlelength=1.8, labelspacing=0.3)


def _first_last(rows: pd.DataFrame, factor: float, unit: str) -> str:
    """First and last value of a curve of the paper over steps, with its k."""
    rows = rows.sort_values("step")
    if len(rows) < 2:
        return ""
    first, last = (f"{factor * rows['value'].iloc[at]:.1f}" for at in (0, -1))
    return f"{first} → {last}{unit}, k = {int(rows['k'].iloc[0])}"


# ------------------------------------------------------------------------------------------------------------
# Fig. 14


def fig14(table: pd.DataFrame, params: Params) -> Figure:
    """Losses of both formats in and out of distribution, and two win rates, over the tokens of the base."""
    table = _widest(table)
    figure = style.new_figure(params.get("width", "page"), 2.3)
    axes: Sequence[Axes] = figure.subplots(1, 4)
    near, far, won, last = axes
    _over_base(near, mine(table, panel="loss_in"), FORMATS, "Nats a reply")
    _over_base(far, mine(table, panel="loss_out"), FORMATS, "")
    _over_base(won, percent(mine(table, panel="won")), {"short": MIXED}, "Win rate (%)", high=100)
    _over_base(last, percent(mine(table, panel="won_last")), {"short": FORMATS["short"]}, "", high=100)
    for ax in (won, last):
        _half_line(ax)
    titles = (
        "Loss in\ndistribution",
        "Loss out of\ndistribution",
        "Short\nover long",
        "Short over short\nof the last base",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    style.panel_letters(axes)
    drawn = np.unique(mine(table, panel=["loss_in", "loss_out"])["format"])
    key(figure, [line_key(FORMATS[name]) for name in FORMATS if name in drawn])
    return style.sign(figure, params)
