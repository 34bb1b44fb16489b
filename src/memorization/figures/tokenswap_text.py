"""Worked examples: passages typeset word by word, with what was copied and what was swapped marked."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from memorization.figures import style
from memorization.figures.tokenswap_arms import ORANGE
from memorization.tables.common import pick

Params = dict[str, Any]
SIZE, LINE, PARAGRAPH, PASSAGE, HEAD = 7.2, 0.135, 0.045, 0.02, 0.135  # points, inches
LEFT, RIGHT = 0.86, 0.05  # inches kept free left and right of the text
COPIED = "#DCE9F4"
NAMES = {"prose": "Prose", "math": "Mathematics"}
ROWS = (
    ("prefix", "", "Prefix"),
    ("suffix", "", "True suffix"),
    ("written", "standard", "Standard"),
    ("written", "tokenswap", "TokenSwap"),
)


@dataclass(frozen=True)
class Word:
    """A word, where it stands (inches from the text's left edge, line), what is marked."""

    text: str
    x: float
    line: int
    copied: float  # inches of it, from its left edge, that were copied
    swapped: bool
    gap: bool  # the space before it was copied too and stands on the same line


def typeset(pieces: list[tuple[str, bool]], copied: int, inches: float, size: float = SIZE) -> list[Word]:
    """Break pieces of (text, swapped) into words on lines of a width; the first `copied` characters are marked."""
    text = "".join(piece for piece, _ in pieces)
    marks = [swapped for piece, swapped in pieces for _ in piece]
    space = style.text_width("n n", size) - style.text_width("nn", size)
    words, x, line, at = [], 0.0, 0, 0
    for part in text.split():
        at = text.index(part, at)
        width = style.text_width(part, size)
        if x and x + width > inches:
            x, line = 0.0, line + 1
        inside = min(len(part), max(0, copied - at))
        same = style.text_width(part[:inside], size) if inside else 0.0
        words.append(Word(part, x, line, same, any(marks[at : at + len(part)]), x > 0 and inside > 0))
        x += width + space
        at += len(part)
    return words


def _write(ax: Axes, words: list[Word], left: float, top: float, color: str) -> int:
    """Draw words below `top`; returns how many lines they take."""
    space = style.text_width("n n", SIZE) - style.text_width("nn", SIZE)
    for word in words:
        x, y = left + word.x, top - (word.line + 1) * LINE + 0.035
        if word.copied:
            back = space if word.gap else 0.0
            box = Rectangle((x - back, y - 0.03), word.copied + back, LINE - 0.012, color=COPIED, lw=0, zorder=0)
            ax.add_patch(box)
        ink = ORANGE if word.swapped else color
        # passages are any text: a pair of dollars is no formula
        ax.text(x, y, word.text, fontsize=SIZE, color=ink, va="baseline", ha="left", parse_math=False)
        if word.swapped:
            end = x + style.text_width(word.text, SIZE) / 1.02
            ax.plot([x, end], [y - 0.02] * 2, color=ORANGE, lw=0.8, solid_capstyle="butt")
    return words[-1].line + 1 if words else 1


def fig4(table: pd.DataFrame, params: Params) -> Figure:
    """Four paragraphs a passage: prefix, true suffix, standard decoding, TokenSwap."""
    style.use_style()
    inches = style.WIDTHS[params.get("width", "page")]
    wide = inches - LEFT - RIGHT
    blocks = []
    for (domain, _), part in table.groupby(["subset", "item"], sort=False):
        paragraphs = []
        for metric, arm, label in ROWS:
            row = pick(part, metric=metric, arm=arm).iloc[0]
            written = metric == "written"
            pieces = json.loads(row["text"]) if written else [(row["text"], False)]
            paragraphs.append((label, typeset(pieces, int(row["value"]) if written else 0, wide)))
        blocks.append((str(domain), paragraphs))
    lines = sum(words[-1].line + 1 if words else 1 for _, block in blocks for _, words in block)
    several = len({domain for domain, _ in blocks}) > 1
    gaps = sum(len(block) * PARAGRAPH for _, block in blocks) + len(blocks) * (0.03 + PASSAGE + HEAD * several)
    height = 0.23 + lines * LINE + gaps + 0.13
    figure = Figure(figsize=(inches, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, inches), ylim=(0, height))
    ax.axis("off")
    y = _key(ax, inches, height - 0.05)
    for domain, block in blocks:
        ax.plot([RIGHT, inches - RIGHT], [y, y], color=style.FAINT, lw=0.6)
        y -= 0.03
        if several:
            ax.text(
                RIGHT, y - HEAD + 0.035, NAMES.get(domain, domain), fontsize=6.6, va="baseline", style="italic",
                color=style.MUTED,
            )  # fmt: skip
            y -= HEAD
        for label, words in block:
            quiet = label in ("Prefix", "True suffix")
            ax.text(
                RIGHT, y - LINE + 0.035, label, fontsize=SIZE, va="baseline",
                color=ORANGE if label == "TokenSwap" else style.INK, weight="normal" if quiet else "bold",
            )  # fmt: skip
            y -= LINE * _write(ax, words, LEFT, y, style.MUTED if label == "Prefix" else style.INK) + PARAGRAPH
        y -= PASSAGE
    return style.sign(figure, params)


def _key(ax: Axes, inches: float, top: float) -> float:
    """What the two marks mean, on one line; returns the height below it."""
    y = top - 0.1
    ax.add_patch(Rectangle((LEFT, y - 0.03), 0.22, LINE - 0.012, color=COPIED, lw=0))
    text = "copied up to the first deviation"
    ax.text(LEFT + 0.28, y, text, fontsize=6.8, color=style.MUTED, va="baseline")
    x = LEFT + 0.28 + style.text_width(text, 6.8) + 0.3
    ax.text(x, y, "word", fontsize=6.8, color=ORANGE, va="baseline")
    width = style.text_width("word", 6.8)
    ax.plot([x, x + width / 1.02], [y - 0.02] * 2, color=ORANGE, lw=0.8)
    ax.text(x + width + 0.06, y, "changed by the swap", fontsize=6.8, color=style.MUTED, va="baseline")
    return y - 0.08
