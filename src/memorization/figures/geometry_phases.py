"""What the pre-training figures of paper `geometry` share: lines whose style is the phase, logarithmic axes with plain
numbers, and what was read off the paper's figures.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from memorization.figures import style
from memorization.figures.common import line_key, mine, summary
from memorization.figures.geometry_more import token_axis
from memorization.figures.style import DOTTED, Look
from memorization.probes.phases import PHASES
from memorization.tables.common import pick

PHASE_LOOKS = {
    "warmup": Look("warmup", style.MUTED, dash=DOTTED),
    "entropy-seeking": Look("entropy-seeking", style.MUTED, dash="-"),
    "compression-seeking": Look("compression-seeking", style.MUTED, dash=(0, (2.4, 1.2))),
    "": Look("no phase observed", style.MUTED, dash="-"),
}
THIN = 0.55  # width of a line without a phase
FAMILIES = {"olmo2": Look("OLMo-2-7B", "#6A3D9A", "o"), "pythia": Look("Pythia 1B to 12B", "#D55E00", "s")}


def by_width(table: pd.DataFrame) -> list[str]:
    """Models of ours from narrow to wide."""
    rows = mine(table)[["model", "width"]].drop_duplicates("model").sort_values(["width", "model"], kind="stable")
    return [str(model) for model in rows["model"]]


def commonest(labels: pd.Series) -> str:
    """The phase that more than half of the seeds are in, "" for none."""
    counts = labels.value_counts()
    return str(counts.index[0]) if len(counts) and 2 * counts.iloc[0] > len(labels) else ""


def phase_line(
    ax: Axes,
    rows: pd.DataFrame,
    color: str,
    log: bool = False,
    band: bool = True,
    limits: tuple[float, float] = (-np.inf, np.inf),
    **more: Any,
) -> None:
    """Mean over seeds against tokens, each stretch in the style of its phase, and the 95 % t interval as a band.

    A stretch has the phase of its right end, in which most seeds are. log: geometric means. limits: the band is
    cut there. Nothing without rows.
    """
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return
    drawn = summary(rows, "tokens", *limits, log=log)
    labels = rows.groupby("tokens")["phase"].agg(commonest).reindex(drawn["tokens"]).to_numpy()
    x, y = drawn["tokens"].to_numpy(), drawn["mean"].to_numpy()
    start = 0
    for end in range(1, len(x)):
        if end + 1 == len(x) or labels[end + 1] != labels[end]:
            label = str(labels[end])
            width = {"lw": THIN} if not label else {}
            about = {"color": color, "ls": PHASE_LOOKS[label].dash, "solid_capstyle": "round", "zorder": 3}
            ax.plot(x[start : end + 1], y[start : end + 1], **{**about, **width, **more})
            start = end
    if len(x) == 1:
        ax.plot(x, y, "o", color=color, ms=2.5)
    if band:
        ax.fill_between(x, drawn["low"], drawn["high"], color=color, alpha=0.15, linewidth=0, zorder=2)


def log_axis(ax: Axes) -> None:
    """Logarithmic y with few plain numbers, three or more where there is room."""
    ax.set_yscale("log")
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        tuple(np.arange(1, 10, 0.5)),
        tuple(np.arange(1, 10, 0.1)),
    ):
        ticks = np.sort(np.outer(10.0**decades, digits).ravel())
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: int(np.ceil(len(ticks) / 6))] if len(ticks) else np.array([low, high])
    ax.set_yticks(ticks, [f"{tick:.4g}" for tick in ticks])
    ax.yaxis.set_minor_locator(NullLocator())


def spans(theirs: pd.DataFrame) -> pd.DataFrame:
    """Read-offs as spans: columns x_low, x_high, y_low, y_high, point; several models at the same tokens are one span.

    What is read at no tokens in particular is put left of everything else if it is a start, and left out otherwise.
    """
    at, end = theirs["tokens"], theirs["tokens_high"]
    edge = np.nanmin([*at, *end, np.inf]) / 6
    at = at.where(at.notna() | ~theirs["point"].eq("start"), edge)
    value, high = theirs["value"], theirs["value_high"]
    found = pd.DataFrame(
        {
            "x_low": at, "x_high": end.fillna(at).where(at.notna()), "y_low": value, "y_high": high.fillna(value),
            "point": theirs["point"],
        }
    ).dropna(subset=["x_low"])  # fmt: skip
    keys = ["x_low", "x_high", "point"]
    return (
        found.groupby(keys, sort=True, dropna=False).agg(y_low=("y_low", "min"), y_high=("y_high", "max")).reset_index()
    )


def read_offs(ax: Axes, theirs: pd.DataFrame, look: Look) -> pd.DataFrame:
    """Hollow marks in the middle of every span, its extent as thin lines, joined in the order of tokens."""
    found = spans(theirs)
    if found.empty:
        return found
    x = np.sqrt(found["x_low"] * found["x_high"])
    y = (found["y_low"] + found["y_high"]) / 2
    ax.plot(x, y, color=look.color, lw=0.6, alpha=0.45, zorder=2)
    ax.hlines(y, found["x_low"], found["x_high"], color=look.color, lw=0.9, zorder=3)
    ax.vlines(x, found["y_low"], found["y_high"], color=look.color, lw=0.9, zorder=3)
    ax.plot(x, y, marker=look.marker, mfc="white", mec=look.color, mew=0.8, ms=3.4, ls="", zorder=5)
    return found


def read_off_axis(ax: Axes, tokens: Any) -> None:
    """Tokens of the paper's models, with a place for what was read at the start of a curve."""
    ax.set_xscale("log")
    token_axis(ax, tokens)
    ax.set_facecolor("#fafafa")


def family_of(theirs: pd.DataFrame, family: str) -> pd.DataFrame:
    """Read-offs of the models of one of FAMILIES."""
    return theirs[theirs["model"].str.startswith(family)]


def say_missing(ax: Axes, said: str = "not measured") -> None:
    """An empty panel that says so."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.text(0.5, 0.5, said, transform=ax.transAxes, ha="center", va="center", color=style.MUTED, fontsize=7)


def phase_keys(table: pd.DataFrame) -> list[Line2D]:
    """Keys of the phases; that of no phase only where it is drawn."""
    own = mine(table)
    shown = [*PHASES, *([""] if own.loc[own["tokens"].notna(), "phase"].eq("").any() else [])]
    keys = [line_key(PHASE_LOOKS[name]) for name in shown]
    if "" in shown:
        keys[-1].set_linewidth(THIN)
    return keys


def hollow_key(look: Look) -> Line2D:
    """Entry of a key: a hollow mark of the paper on its line."""
    return Line2D([], [], color=look.color, marker=look.marker, mfc="white", mew=0.8, ms=4, lw=0.6, label=look.label)


def model_lines(ax: Axes, rows: pd.DataFrame, colors: dict[str, str], log: bool = False, **more: Any) -> None:
    """`phase_line` of every model in its color."""
    for model, color in colors.items():
        phase_line(ax, pick(rows, model=model), color, log, **more)


def model_colors(models: list[str]) -> dict[str, str]:
    """A color a model, from narrow to wide."""
    return dict(zip(models, style.size_colors(len(models)) if len(models) > 1 else ["#0072B2"], strict=True))
