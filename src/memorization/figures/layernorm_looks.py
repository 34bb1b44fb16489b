"""What the figures of paper `layernorm` share: names, colors, curves with intervals, marks of the paper."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from memorization.figures import style
from memorization.figures.common import over_seeds
from memorization.figures.style import DASHDOT, DASHED, DOTTED, Look
from memorization.tables.common import pick

Params = dict[str, Any]
MODELS = {
    "text_pre": "Text Pre", "digits_pre": "Digits Pre", "text_post": "Text Post", "minilm": "MiniLM",
    "gpt_neo": "GPTNeo", "qwen2": "Qwen2", "gpt2_medium": "GPT2-M", "roberta_prelayernorm": "RoBERTa-Pre",
    "vit_b": "ViT-B", "deit": "DeiT", "vit_s": "ViT-S",
    "bert": "BERT", "deberta": "DeBERTa", "electra": "ELECTRA", "longformer": "Longformer", "roberta": "RoBERTa",
    "distilbert": "DistilBERT",
}  # fmt: skip
POSITIONS = {"pre": Look("Pre-LN", "#E69F00", "o"), "post": Look("Post-LN", "#0072B2", "s")}
ARMS = {
    "none": Look("intact", "#0072B2", "o"),
    "early": Look("early", "#CC79A7", "^"),
    "middle": Look("middle", "#8c8c8c", "D"),
    "late": Look("late", "#222222", "v"),
    "all": Look("removed", "#D55E00", "s"),
}
OUTCOMES = {
    "memorization": Look("memorization", "#6A3D9A", "o"),
    "recovery": Look("recovery", "#009E73", "s"),
    "random": Look("random", "#B0B0B0", "D"),
}
GRADIENTS = {
    "gradient_learning": Look("learning (test items)", style.INK, "o"),
    "gradient_memorization": Look("memorization (noisy items)", OUTCOMES["memorization"].color, "s"),
}
RATIO = "#C2185B"
ROLES = {
    "attention": Look("attention side", style.INK, "o", "-"),
    "feed_forward": Look("feed-forward side", style.INK, "^", DASHED),
}
DASHES = ("-", DASHED, DOTTED, DASHDOT)


def name_of(model: str) -> str:
    """How a model is written."""
    return MODELS.get(model, model.replace("_", " "))


def in_order(models: Iterable[str]) -> list[str]:
    """Models in the order of MODELS, Pre-LN first, unknown ones last."""
    rank = {name: k for k, name in enumerate(MODELS)}
    return sorted(set(models), key=lambda name: (rank.get(name, len(rank)), name))


def panels_of(table: pd.DataFrame, params: Params) -> list[str]:
    """Panels of a table in the order of `params["shown"]`, further ones after them."""
    found = list(table["panel"].drop_duplicates())
    first = [name for name in params.get("shown", {}) if name in found]
    return first + in_order(name for name in found if name not in first)


def title_of(table: pd.DataFrame, panel: str) -> str:
    """The paper's model of a panel, and below it which of ours is drawn with it."""
    drawn = pick(table, panel=panel, source="ours")["model"].unique()
    if not len(drawn):
        return f"{name_of(panel)}\n(paper only)"
    if drawn[0] == panel or table["source"].eq("ours").all():
        return name_of(str(drawn[0]))
    return f"{name_of(panel)}\n(ours: {name_of(str(drawn[0]))})"


# ------------------------------------------------------------------------------------------------------------
# Marks and curves


def point(ax: Axes, x: float, rows: pd.DataFrame, look: Look, **limits: Any) -> None:
    """Filled mark at the mean over seeds with its interval; nothing without rows."""
    mean, low, high = over_seeds(rows, **limits)
    if np.isnan(mean):
        return
    if not np.isnan(low):
        ax.vlines(x, low, high, color=look.color, lw=0.9, zorder=3)
    ax.plot([x], [mean], marker=look.marker, color=look.color, ls="", ms=4.6, mec="white", mew=0.4, zorder=4)


def stack(ax: Axes, x: float, shares: Mapping[str, float], width: float, filled: bool = True) -> None:
    """Outcomes of the noisy items on top of one another, in percent; open bars for the paper."""
    bottom = 0.0
    for name, look in OUTCOMES.items():
        height = shares.get(name, np.nan)
        if not np.isfinite(height):
            continue
        if filled:
            ax.bar(x, height, width, bottom, color=look.color, linewidth=0, zorder=3)
        elif height > 0:
            pad = 0.02 * width  # so that neighboring edges stay apart
            ax.bar(
                x, height, width - 2 * pad, bottom, facecolor="white", edgecolor=look.color, linewidth=0.9,
                hatch={"random": "....", "recovery": "////"}.get(name, ""), zorder=3,
            )  # fmt: skip
        bottom += height


def outcomes(rows: pd.DataFrame) -> dict[str, float]:
    """Mean share of every outcome in percent."""
    return {str(name): 100 * float(mean) for name, mean in rows.groupby("metric")["value"].mean().items()}


def budget_line(ax: Axes, at: float = 1.0) -> None:
    """Thin line at the budget of the position."""
    ax.axvline(at, color=style.MUTED, lw=0.7, ls=DOTTED, zorder=1)


def clock_axis(ax: Axes, last: float) -> None:
    """Epochs in units of the budget, which a thin line marks."""
    ax.set_xlim(0, max(1.0, last) * 1.03)
    ax.set_xticks([0, 0.5, 1] + ([1.5] if last >= 1.5 else []))
    budget_line(ax)
    ax.set_xlabel("Epochs / budget")


def even_labels(ax: Axes) -> None:
    """Labels of categories on one baseline, without ticks."""
    ax.tick_params(axis="x", length=0, pad=8)
    for label in ax.get_xticklabels():
        label.set_verticalalignment("baseline")


def percent_axis(ax: Axes) -> None:
    """From 0 to 100 with room for marks."""
    ax.set_ylim(-4, 104)
    ax.set_yticks([0, 25, 50, 75, 100], ["0", "", "50", "", "100"])


# ------------------------------------------------------------------------------------------------------------
# Keys


def patch_key(look: Look) -> Patch:
    """Entry of a key: a filled patch."""
    return Patch(facecolor=look.color, linewidth=0, label=look.label)


PAPER_MARK = Look("paper (open)", style.MUTED, "o")
OURS_LINE = Look("ours (line, filled)", style.MUTED)
