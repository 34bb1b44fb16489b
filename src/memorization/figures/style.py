"""One look for every figure: widths, colors, labels, bands, tables, and files whose bytes depend on nothing
but the data.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

# Inches in a two-column page; fonts below are points at this size, so figures must not be scaled when
# included.
WIDTHS = {"column": 3.3, "page": 6.9}
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
FONT = "DejaVu Sans"  # ships with matplotlib: the same on every machine
RC: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "memorization",
}


@dataclass(frozen=True)
class Look:
    """How one data set (or model size) is named and drawn, everywhere."""

    label: str
    color: str
    marker: str = "o"
    dash: Any = "-"


DASHED, DOTTED, DASHDOT = (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2))
# From most to least pattern. Okabe-Ito colors; sets of one family share a color or a gray and differ in dash
# and marker.
LOOKS = {
    "mi": Look("MI", "#0072B2", "o"),
    "icm": Look("ICM", "#009E73", "s"),
    "mijl": Look("MIJL", "#56B4E9", "D"),
    "mij": Look("MIJ", "#E69F00", "^"),
    "dynamic_icm": Look("Dynamic ICM", "#009E73", "P", DASHED),
    "random_seed_lookup": Look("Random seed lookup", "#CC79A7", "v"),
    "text": Look("Text", "#D55E00", "h"),
    "text_sentences2": Look("Text, 2-sentence units shuffled", "#D55E00", "p", DASHED),
    "text_sentences": Look("Text, sentences shuffled", "#D55E00", "8", DASHDOT),
    "text_top3grams": Look("Text shuffled, top 3-grams kept", "#A65628", "<", "-"),
    "text_top2grams": Look("Text shuffled, top 2-grams kept", "#A65628", ">", DASHED),
    "text_words": Look("Word-shuffled text", "#A65628", "d", DOTTED),
    "every_nth": Look("Every 7th token same", "#8c8c8c", "*", DASHDOT),
    "repeat_back": Look("Repeat 5 tokens ago", "#8c8c8c", "H", DASHED),
    "random_digits": Look("Random digits", "#000000", "X", "-"),
}
SIZE_COLORS = ("#E69F00", "#0072B2")  # small, large


def look(name: str) -> Look:
    """Look of a data set; an unknown name is drawn in gray under its own name rather than dropped."""
    return LOOKS.get(name, Look(name.replace("_", " "), MUTED, "o", "-"))


def ordered(names: Iterable[str]) -> list[str]:
    """Names from most to least pattern, unknown ones last in alphabetical order."""
    rank = {name: i for i, name in enumerate(LOOKS)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def pairing(model: str, items: float) -> str:
    """How a pairing of data and model size is written: 64 items, model M."""
    return f"{int(items)} items, {model}"


def size_colors(n: int) -> list[str]:
    """Return n colors for model sizes from small to large."""
    return [SIZE_COLORS[0], SIZE_COLORS[1]] if n == 2 else shades("#E69F00", "#0B2545", n)


def shades(low: str, high: str, n: int) -> list[str]:
    """Return n colors from low to high, for an ordered condition."""
    ramp = matplotlib.colors.LinearSegmentedColormap.from_list("ramp", [low, high])
    return [matplotlib.colors.to_hex(ramp(i / max(1, n - 1))) for i in range(n)]


# ------------------------------------------------------------------------------------------------------------
# Frames of a figure


def use_style() -> None:
    """Set matplotlib's defaults; `new_figure` and `render_table` do it for you."""
    matplotlib.rcParams.update(RC)  # type: ignore[arg-type]


def new_figure(width: str = "column", height: float = 2.3) -> Figure:
    """Return an empty figure of a named width (see WIDTHS) and a height in inches, in our style."""
    use_style()
    strip = 0.13 / height  # below all panels, where `sign` writes the scale
    layout = ConstrainedLayoutEngine(rect=(0, strip, 1, 1 - strip), w_pad=0.03, h_pad=0.03)
    return Figure(figsize=(WIDTHS[width], height), layout=layout)


def sign(figure: Figure, params: dict[str, Any]) -> Figure:
    """Write the scale into the lower right corner, and across the page where `params["watermark"]` asks for
    it.
    """
    if params.get("scale"):
        text = f"scale: {params['scale']}"
        figure.text(0.995, 0.004, text, ha="right", va="bottom", fontsize=6, color=MUTED, in_layout=False)
    if params.get("watermark"):
        figure.text(
            0.5,
            0.5,
            f"scale: {params['scale']}",
            ha="center",
            va="center",
            rotation=20,
            fontsize=24,
            color="#b00020",
            alpha=0.22,
            zorder=100,
            in_layout=False,
            weight="bold",
        )
    return figure


def panel_letters(axes: Iterable[Axes]) -> None:
    """Bold a, b, c ... at the upper left of each panel."""
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        ax.set_title(letter, loc="left", weight="bold", fontsize=8.5)


def share_axis(ax: Axes, label: str = "Exact match") -> None:
    """y from 0 to 1 with room for the line width; few ticks."""
    ax.set_ylim(-0.03, 1.05)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    ax.set_ylabel(label)


def epoch_axis(ax: Axes, last: float, label: str = "Epoch") -> None:
    """x from 0 to the last epoch; whole numbers."""
    ax.set_xlim(0, max(last, 1e-9))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel(label)


# ------------------------------------------------------------------------------------------------------------
# Curves over seeds


def over_seeds(
    frame: pd.DataFrame, x: str, kind: str = "range", draws: int = 1000, confidence: float = 0.95
) -> pd.DataFrame:
    """Mean and band of `value` at every x: columns x, mean, low, high, seeds.

    kind "range" is smallest to largest seed; "bootstrap" the percentile interval of the mean over seeds drawn
    with replacement (fixed seed, whole curves). One seed has no band: low = high = mean.
    """
    wide = frame.pivot_table(index=x, columns="seed", values="value", aggfunc="mean").sort_index()
    values = wide.to_numpy()
    mean = np.nanmean(values, axis=1)
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    if kind == "bootstrap" and values.shape[1] > 1:
        picks = np.random.default_rng(0).integers(0, values.shape[1], (draws, values.shape[1]))
        means = np.nanmean(values[:, picks], axis=2)
        tail = 50 * (1 - confidence)
        low, high = np.nanpercentile(means, [tail, 100 - tail], axis=1)
    seeds = np.isfinite(values).sum(axis=1)
    return pd.DataFrame({x: wide.index.to_numpy(), "mean": mean, "low": low, "high": high, "seeds": seeds})


def draw_curve(
    ax: Axes, frame: pd.DataFrame, style: Look, x: str = "epoch", shade: bool = True, **band: Any
) -> pd.DataFrame:
    """Mean over seeds as a line, seeds as a band (none for a single seed). Returns what was drawn."""
    drawn = over_seeds(frame, x, **band)
    ax.plot(
        drawn[x],
        drawn["mean"],
        color=style.color,
        linestyle=style.dash,
        label=style.label,
        solid_capstyle="round",
    )
    if shade and (drawn["seeds"] > 1).any():
        ax.fill_between(drawn[x], drawn["low"], drawn["high"], color=style.color, alpha=0.15, linewidth=0)
    return drawn


def error_bars(
    ax: Axes, frame: pd.DataFrame, style: Look, x: str, dash: Any | None = None, **band: Any
) -> pd.DataFrame:
    """Mean over seeds as marks joined by a line, seeds as bars. Returns what was drawn."""
    drawn = over_seeds(frame, x, **band)
    bars = [drawn["mean"] - drawn["low"], drawn["high"] - drawn["mean"]] if (drawn["seeds"] > 1).any() else None
    ax.errorbar(
        drawn[x], drawn["mean"], yerr=bars, color=style.color, marker=style.marker, elinewidth=0.8,
        linestyle=style.dash if dash is None else dash,
    )  # fmt: skip
    return drawn


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions closest to the wanted ones that keep their order, at least `gap` apart within [low, high].

    If there is no room for all of them the gap shrinks.
    """
    n = len(wanted)
    if n == 0:
        return []
    gap = min(gap, (high - low) / max(1, n - 1))
    order = np.argsort(wanted, kind="stable")
    # with y_i = x_i + i * gap the constraint is "not decreasing": pool neighbors that break it and take their
    # mean
    blocks: list[list[float]] = []  # [mean, size]
    for i, k in enumerate(order):
        blocks.append([float(np.clip(wanted[k], low, high)) - i * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, size = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * size) / (blocks[-1][1] + size),
                blocks[-1][1] + size,
            ]
    flat = np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])
    flat = np.clip(flat, low, high - (n - 1) * gap) + gap * np.arange(n)
    placed = [0.0] * n
    for i, k in enumerate(order):
        placed[k] = float(flat[i])
    return placed


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = 7) -> None:
    """Write labels right of the panel at the height of the curves' ends, moved apart where they would
    overlap.

    ends: (x, y, text, color) in data coordinates. Call after the axis limits are set.
    """
    figure = ax.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    height = ax.get_window_extent().height / figure.dpi * 72  # points
    to_axes = ax.transData + ax.transAxes.inverted()
    points = [to_axes.transform((x, y)) for x, y, _, _ in ends]
    lines = [1 + text.count("\n") for _, _, text, _ in ends]
    places = spread([p[1] for p in points], 1.25 * size * max(lines, default=1) / height, 0.0, 1.0)
    for (x, y, text, color), (px, py), place in zip(ends, points, places, strict=True):
        ax.annotate(
            text, xy=(x, y), xycoords="data", xytext=(1.03, place), textcoords="axes fraction", color=color,
            fontsize=size, va="center", ha="left", annotation_clip=False,
            arrowprops=None if abs(place - py) < 0.02 and px > 0.98
            else {"arrowstyle": "-", "color": color, "lw": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def key_beside(figure: Figure, styles: Sequence[Look], title: str | None = None, markers: bool = False) -> None:
    """Key right of all panels, in the given order; for figures whose curves all end at the same place."""
    handles = [
        Line2D([], [], color=s.color, linestyle=s.dash, marker=s.marker if markers else "", label=s.label)
        for s in styles
    ]
    legend = figure.legend(handles=handles, loc="outside right center", title=title, title_fontsize=7, labelspacing=0.6)
    legend.get_title().set_color(MUTED)
    legend._legend_box.align = "left"  # type: ignore[attr-defined]


def key_above(figure: Figure, styles: Sequence[Look]) -> None:
    """Key in one row above all panels."""
    handles = [Line2D([], [], color=s.color, linestyle=s.dash, label=s.label) for s in styles]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def not_reached(ax: Axes, x: float, color: str, marker: str = "o", edge: str = "top") -> None:
    """Open mark at the edge of the panel: the level was never reached while we looked."""
    transform = ax.get_xaxis_transform() if edge == "top" else ax.get_yaxis_transform()
    at = (x, 1.0) if edge == "top" else (1.0, x)
    ax.plot(*at, marker=marker, mfc="white", mec=color, ls="", transform=transform, clip_on=False, zorder=5)


# ------------------------------------------------------------------------------------------------------------
# Tables as figures


def mean_and_range(values: pd.Series, digits: int = 2) -> str:
    """Mean over seeds, lowest and highest in brackets where they differ as printed; a dash for nothing."""
    values = values.dropna()
    if values.empty:
        return "–"
    mean, low, high = (f"{v:.{digits}f}" for v in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} [{low}, {high}]"


def render_table(
    rows: pd.DataFrame,
    params: dict[str, Any],
    muted: Sequence[bool] | None = None,
    rules: Sequence[int] = (),
    note: str = "",
    width: str = "column",
    groups: Sequence[tuple[str, int, int]] = (),
    sections: Mapping[int, str] | None = None,
    bold: Sequence[int] = (),
    note_share: float = 1.0,
) -> Figure:
    """Draw a frame of strings as a table with three rules: first column left, the others centered, bold head.

    muted: rows set in gray (the paper's own). rules: a thin rule above these rows. Column names may hold line
    breaks. What follows a tab in a cell is set small and gray right of it (an uncertainty), with the numbers
    before it flush right. groups: heads over several columns, (text, first, last). sections: a line of small
    gray text above a row. bold: rows set as heads. note_share: how much of the width the note may fill, below 1
    for a note of many small words, whose hinted text is wider than reckoned. A table that does not fit into a
    column is given the page.
    """
    use_style()
    size, small, line, head_line, note_line, margin, gap = 7.5, 6.0, 0.165, 0.135, 0.115, 0.06, 0.1
    heads = [str(column).split("\n") for column in rows.columns]
    sections = sections or {}
    columns, mains, tails = [], [], []
    for k, head in enumerate(heads):
        cells = [str(cell).split("\t") for cell in rows.iloc[:, k]]
        tails.append(max([text_width(cell[1], small) for cell in cells if len(cell) > 1], default=0.0))
        mains.append(max([text_width(cell[0], size, i in bold) for i, cell in enumerate(cells)], default=0.0))
        columns.append(max([text_width(part, size, bold=True) for part in head] + [mains[-1] + tails[-1]]))
    needed = sum(columns) + gap * (len(columns) - 1) + 2 * margin
    inches = WIDTHS["page"] if needed > WIDTHS[width] else WIDTHS[width]
    gap += min(0.35, max(0.0, inches - needed) / max(1, len(columns) - 1))
    total = sum(columns) + gap * (len(columns) - 1)
    left = (inches - total) / 2
    starts = left + np.concatenate([[0], np.cumsum(np.array(columns[:-1]) + gap)])
    head_lines = max(map(len, heads))
    notes = wrap(note, note_share * total, 6.3)
    height = 0.08 + 0.09 + head_lines * head_line + len(rows) * line + 0.06 + len(notes) * note_line + 0.17
    height += (head_line + 0.05) * bool(groups) + line * len(sections)

    figure = Figure(figsize=(inches, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, inches), ylim=(0, height))
    ax.axis("off")

    def rule(y: float, weight: float, color: str = INK) -> None:
        ax.plot([left, left + total], [y, y], color=color, lw=weight, solid_capstyle="butt")

    def write(k: int, y: float, text: str, **look: Any) -> None:
        x, ha = (starts[k], "left") if k == 0 else (starts[k] + columns[k] / 2, "center")
        if tails[k] and "weight" not in look and k:
            x, ha = starts[k] + (columns[k] + mains[k] - tails[k]) / 2, "right"
        number, _, tail = text.partition("\t")
        ax.text(x, y, number, ha=ha, va="baseline", fontsize=size, **look)
        if tail:
            ax.text(x, y, tail, ha="left", va="baseline", fontsize=small, color=MUTED)

    y = height - 0.08
    rule(y, 1.0)
    if groups:
        y -= head_line + 0.03
        for text, first, last in groups:
            ends = starts[first], starts[last] + columns[last]
            ax.text(sum(ends) / 2, y + 0.025, text, ha="center", va="baseline", fontsize=size, weight="bold")
            ax.plot(ends, [y - 0.015] * 2, color=MUTED, lw=0.5, solid_capstyle="butt")
        y -= 0.02
    y -= 0.045 + head_lines * head_line
    for k, head in enumerate(heads):
        for up, text in enumerate(reversed(head)):
            write(k, y + 0.03 + up * head_line, text, weight="bold")
    y -= 0.045
    rule(y, 0.6)
    for i, row in enumerate(rows.to_numpy()):
        if i in rules:
            rule(y, 0.4, MUTED)
        if i in sections:
            y -= line
            ax.text(left, y + 0.05, sections[i], va="baseline", fontsize=6.6, style="italic", color=MUTED)
        y -= line
        for k, cell in enumerate(row):
            color = MUTED if muted is not None and muted[i] else INK
            write(k, y + 0.05, str(cell), color=color, **({"weight": "bold"} if i in bold else {}))
    y -= 0.02
    rule(y, 1.0)
    for text in notes:
        y -= note_line
        ax.text(left, y, text, va="baseline", fontsize=6.3, color=MUTED)
    return sign(figure, params)


@cache  # tables and set text measure the same words again and again
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of one line of text in inches."""
    font = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.02 * width / 72  # 2 %: hinting of the PNG


def wrap(text: str, inches: float, size: float) -> list[str]:
    """Break a text into lines that fit into a width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= inches:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


# ------------------------------------------------------------------------------------------------------------
# Files

# No dates and no versions: the same table gives the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
}


def save(figure: Figure, table: pd.DataFrame, *, csv: str | Path, dpi: int = 300, **images: str | Path) -> None:
    """Write the figure to every path given as pdf=, png= or svg=, and the plotted numbers to csv=."""
    for path in map(Path, images.values()):
        figure.savefig(path, dpi=dpi, metadata=METADATA[path.suffix])
    write_csv(table, csv)


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write numbers with six significant digits and line feeds on every system."""
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
