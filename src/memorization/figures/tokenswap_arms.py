"""What the figures of paper `tokenswap` share: one color and one name for every arm, cells."""

import re
from typing import Any

import pandas as pd

from memorization.figures.style import DASHDOT, DASHED, DOTTED, INK, MUTED, Look
from memorization.tables.common import pick

Params = dict[str, Any]
ORANGE, GREEN, BLUE, SKY, PINK, YELLOW = "#D55E00", "#009E73", "#0072B2", "#56B4E9", "#CC79A7", "#E69F00"
# In the order of rows and keys. A family of arms has one color; its members differ in dash and marker.
ARMS = {
    "standard": Look("Standard", INK, "o"),
    "standard_sampled": Look("Standard, sampled", INK, "h", DASHED),
    "speculative": Look("Speculative, sampled", PINK, "P"),
    "deduplication": Look("Deduplication", MUTED, "x"),
    "goldfish": Look("Goldfish", BLUE, "d"),
    "goldfish3": Look("Goldfish, k = 3", BLUE, "^"),
    "goldfish4": Look("Goldfish, k = 4", BLUE, "<", DASHED),
    "goldfish32": Look("Goldfish, k = 32", BLUE, ">", DOTTED),
    "balanced_subnet": Look("Balanced Subnet", MUTED, "x"),
    "obliviate": Look("Obliviate", MUTED, "x"),
    "memfree": Look("MemFree", SKY, "v"),
    "cp_fuse": Look("CP-Fuse", GREEN, "s"),
    "cp_fuse_mix": Look("CP-Fuse-mix", GREEN, "p", DASHED),
    "cp_fuse_half": Look("CP-Fuse-half", GREEN, "H", DOTTED),
    "cp_fuse_tiny": Look("CP-Fuse, tiny partner", GREEN, "8", DASHDOT),
    "tokenswap": Look("TokenSwap", ORANGE, "D"),
    "tokenswap_sampled": Look("TokenSwap, sampled", ORANGE, "h", DASHDOT),
    "tokenswap_goldfish3": Look("TokenSwap + Goldfish, k = 3", ORANGE, "^", DASHED),
    "tokenswap_goldfish4": Look("TokenSwap + Goldfish, k = 4", ORANGE, "<", DOTTED),
    "tokenswap_self": Look("Auxiliary is the main model", YELLOW, "X"),
    "tokenswap_seen": Look("Auxiliary saw the passages", YELLOW, "P"),
    "tokenswap_content_matched": Look("Content words of equal mass", PINK, "s"),
    "tokenswap_content_110": Look("110 random content words", PINK, "v"),
    "limit": Look("Both models alone", MUTED, "|"),
}
# Column of a table: head, rows to select, decimals, factor
Column = tuple[str, dict[str, str], int, float]
COLUMNS: dict[str, tuple[str, int, float]] = {
    "matching_characters": ("ML\u00a0↓", 1, 1),
    "exact_match": ("EMR\u00a0%\u00a0↓", 1, 100),
    "rouge_above_0.8": ("R>0.8\u00a0%\u00a0↓", 1, 100),
    "rouge_l": ("ROUGE-L\u00a0↓", 2, 1),
    "levenshtein": ("Lev\u00a0↑", 2, 1),
    "cross_entropy": ("CE\u00a0↓", 2, 1),
    "judge_loss": ("Judge\u00a0↓", 2, 1),
}
MEANING = {
    "matching_characters": "ML: characters written before the first deviation.",
    "exact_match": "EMR: passages reproduced exactly.",
    "rouge_above_0.8": "R>0.8: passages with ROUGE-L above 0.8.",
    "rouge_l": "ROUGE-L (R-L): F-measure, stemmed.",
    "levenshtein": "Lev: edit distance in characters, normalized.",
    "cross_entropy": "CE: held-out cross-entropy, nats a token.",
    "judge_loss": "Judge: loss of the written text under a model that never saw the passages, nats a token.",
}


def arm_look(name: str) -> Look:
    """Look of an arm; an unknown one is gray under its own name."""
    return ARMS.get(name, Look(name.replace("_", " "), MUTED))


def arms_in(table: pd.DataFrame) -> list[str]:
    """Arms of a table in their order."""
    rank = {name: i for i, name in enumerate(ARMS)}
    return sorted(table["arm"].unique(), key=lambda name: (rank.get(name, len(rank)), name))


def domains(table: pd.DataFrame) -> list[str]:
    """Domains of our rows, prose first; only "all" where nothing was measured by domain."""
    names = set(pick(table, source="ours")["subset"]) - {"all"}
    return sorted(names, key=lambda name: (name != "prose", name)) or ["all"]


def ours(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that we measured."""
    return pick(table, source="ours")


def batches(table: pd.DataFrame) -> list[str]:
    """Batch sizes that were timed, small to large: "batch 1", "batch 32"."""
    return sorted(pick(table, metric="seconds_ratio")["subset"].unique(), key=digits_in)


def seeds_of(table: pd.DataFrame) -> int:
    """How many seeds we have."""
    return int(ours(table)["seed"].nunique())


# ------------------------------------------------------------------------------------------------------------
# Cells


def columns_of(metrics: list[str], short: bool = False, **chosen: str) -> list[Column]:
    """Columns of a table for the named metrics; `short` heads where they stand twice side by side."""
    found = []
    for metric in metrics:
        head, digits, factor = COLUMNS[metric]
        head = head.replace("ROUGE-L", "R-L") if short else head
        found.append((head, {"metric": metric, **chosen}, digits, factor))
    return found


def lines(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One line for every arm and detail of a table: its label and its rows, small models first."""
    found = []
    for arm in arms_in(table):
        part = pick(table, arm=arm)
        size = part.groupby("detail", sort=False)[["parameters", "aux_parameters"]].max()
        details = size.sort_values(["aux_parameters", "parameters"], kind="stable").index.tolist()
        for detail in details:
            label = arm_look(arm).label + (f" ({detail})" if detail else "")
            found.append((label, pick(part, detail=detail)))
    return found


def digits_in(name: str) -> int:
    """Number in the name of a set of words, 0 without one: english-110 -> 110."""
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 0


def note(metrics: list[str], seeds: int, more: str = "") -> str:
    """What the columns mean and how sure they are."""
    sure = f"±: 95 % t interval of the mean over {seeds} seeds; none where it rounds to zero." if seeds > 2 else ""
    one = "One seed." if seeds == 1 else f"Mean over {seeds} seeds; an interval needs three."
    return " ".join([*(MEANING[m] for m in metrics), sure or one, more]).strip()
