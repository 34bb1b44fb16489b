"""Tables of paper `layernorm`, drawn as figures: our rows in black, the paper's in gray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from memorization.figures.common import NONE, cell, mine, papers
from memorization.figures.layernorm_looks import POSITIONS, in_order, name_of
from memorization.figures.style import render_table
from memorization.tables.common import pick
from memorization.tables.readings import READINGS

Params = dict[str, Any]
FILLED = 0.94  # of the width, by lines of a note
SIGNS = {-1: "falls", 0: "stays", 1: "rises"}
QUANTITIES = {"test_accuracy": "test accuracy", "memorization": "memorization", "gap": "train − test gap"}
HEADS = {"budget": "At its\nbudget", "equal": "At equal\nepochs", "matched": "At equal\naccuracy"}
OUTCOMES = ("memorization", "recovery", "random")
FORMS = {"classifier": "classifier", "label_word": "next token"}
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}


def sure(table: pd.DataFrame) -> str:
    """How many seeds there are, and what the intervals are."""
    ours = mine(table)
    seeds = int(ours["seed"].nunique())
    by_experiment = ours.groupby("experiment")["seed"].nunique()
    fewest = int(by_experiment.min()) if len(by_experiment) else seeds
    if seeds == 0:
        return ""
    if seeds == 1:
        return "One seed."
    if seeds == 2:
        return "Mean over 2 seeds; an interval needs three."
    number = f"{fewest} to {seeds}" if 2 < fewest < seeds else str(seeds)
    return f"Mean over {number} seeds; ±: 95\u00a0% t interval, none where it rounds to zero."


def signed(rows: pd.DataFrame, digits: int = 1) -> str:
    """Mean with its sign in points, and half the interval."""
    text = cell(rows, digits, 100.0)
    return text if text == NONE or text.startswith(("-", "0.0")) else f"+{text}"


def tab1(table: pd.DataFrame, params: Params) -> Figure:
    """Change from intact to removed, three readings beside the paper's claim."""
    cells: list[list[str]] = []
    sections, rules = {}, []
    for position, look in POSITIONS.items():
        part = mine(table, position=position)
        start = len(cells)
        for model in in_order(part["model"]):
            for k, (metric, label) in enumerate(QUANTITIES.items()):
                claim = papers(table, position=position, metric=metric)["value"]
                said = SIGNS[int(claim.iloc[0])] if len(claim) else NONE
                found = [signed(pick(part, model=model, metric=metric, reading=name)) for name in READINGS]
                cells.append([name_of(model) if k == 0 else "", label, said, *(t.replace("-", "−") for t in found)])
        if len(cells) > start:
            sections[start] = look.label
            rules += [start] if start else []
    frame = pd.DataFrame(cells, columns=["Model", "Quantity", "Paper", *(HEADS[name] for name in READINGS)])
    level = 100 * params.get("level", 0.95)
    note = (
        "Removed minus intact in percentage points, paired by seed. At its budget: the epochs after which the paper "
        "reads Post-LN (40) and Pre-LN models (70), rescaled to ours; equal epochs: the last; equal train accuracy: "
        f"each run where it first has {level:g}\u00a0% of the training labels right. {sure(table)}"
    )
    groups = [("Ours", 3, 5)]
    return render_table(frame, params, None, rules, note, params.get("width", "page"), groups, sections, (), FILLED)


def _before_after(part: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    return [
        cell(pick(part, metric=metric, arm=arm), 1, 100.0) for metric in metrics for arm in ("none", "all")
    ]  # fmt: skip


def _variants(table: pd.DataFrame, params: Params, column: str, names: dict[Any, str], note: str) -> Figure:
    """One row a model and variant, each quantity before and after removal; ours above the paper's."""
    metrics = ["test_accuracy", *OUTCOMES]
    cells: list[list[str]] = []
    muted, rules, sections = [], [], {}
    for rows, title, gray in ((mine(table), "", False), (papers(table), "Paper: Emotions", True)):
        start = len(cells)
        for model in in_order(rows["model"]):
            part = pick(rows, model=model)
            for k, value in enumerate(sorted(part[column].unique(), key=lambda v: (list(names).index(v), v))):
                found = _before_after(pick(part, **{column: value}), metrics)
                cells.append([name_of(model) if k == 0 else "", names[value], *found])
                muted.append(gray)
        if len(cells) > start and gray:
            sections[start] = title
            rules += [start] if start else []
    heads = ["Model", ""] + ["intact", "removed"] * len(metrics)
    heads = [head + "\u200b" * k for k, head in enumerate(heads)]  # column names of a frame differ
    frame = pd.DataFrame(cells, columns=heads)
    titles = ("Test accuracy", "Memorization", "Recovery", "Random")
    groups = [(title, 2 + 2 * k, 3 + 2 * k) for k, title in enumerate(titles)]
    note = f"Percent, at the budget of the position. {note} {sure(table)}".strip()
    return render_table(frame, params, muted, rules, note, params.get("width", "page"), groups, sections, (), FILLED)


def tab4(table: pd.DataFrame, params: Params) -> Figure:
    """Shares of mislabelled training items."""
    shares = sorted(table["noise"].dropna().unique())
    names = {share: f"{100 * share:g} %" for share in shares}
    note = "Second column: share of training items with a wrong label."
    return _variants(table, params, "noise", names, note)


def tab5(table: pd.DataFrame, params: Params) -> Figure:
    """AdamW and Muon."""
    table = table.assign(optimizer=table["optimizer"].where(table["source"] == "ours", "muon"))
    return _variants(table, params, "optimizer", OPTIMIZERS, "Muon: for matrices; AdamW for all other weights.")


def tab6(table: pd.DataFrame, params: Params) -> Figure:
    """Classifier and next token."""
    table = table.assign(form=table["form"].where(table["source"] == "ours", "label_word"))
    note = "Next token: the class is a word that the model predicts; classifier: a linear head."
    return _variants(table, params, "form", FORMS, note)


ARMS = {"none": "none", "all": "all", "early": "early", "middle": "middle", "late": "late"}


def x_readings(table: pd.DataFrame, params: Params) -> Figure:
    """A row a model and arm, the three readings side by side."""
    own = mine(table)
    cells: list[list[str]] = []
    sections, rules = {}, []
    for model in in_order(own["model"]):
        part = pick(own, model=model)
        if cells:
            rules.append(len(cells))
        sections[len(cells)] = f"{name_of(model)}, {POSITIONS[part['position'].iloc[0]].label}"
        arms = [arm for arm in ARMS if (part["arm"] == arm).any()]
        for arm in arms + sorted(set(part["arm"]) - set(arms)):
            row = [arm.replace("_", " ")]
            for reading in READINGS:
                row += _state(pick(part, arm=arm, reading=reading))
            cells.append(row)
    heads = ["Ep.", "Train", "Test", "Gap", "M/R/r"]
    names = ["Arm"] + [head + "\u200b" * k for k in range(3) for head in heads]
    frame = pd.DataFrame(cells, columns=names)
    titles = {"budget": "At its budget", "equal": "At equal epochs", "matched": "At equal train accuracy"}
    groups = [(titles[name], 1 + 5 * k, 5 + 5 * k) for k, name in enumerate(READINGS)]
    level = 100 * params.get("level", 0.95)
    note = (
        "Arm: which norms are stripped. Ep.: epoch of the reading. Train, test: accuracy in percent; gap: train − test "
        "in points. M/R/r: memorized, recovered and random predictions of the noisy items in percent. Equal train "
        f"accuracy: the first evaluation with at least {level:g}\u00a0%, – where no run gets there. {sure_plain(table)}"
    )
    return render_table(frame, params, None, rules, note, params.get("width", "page"), groups, sections, (), FILLED)


def sure_plain(table: pd.DataFrame) -> str:
    """How many seeds the means without an interval are over."""
    seeds = int(mine(table)["seed"].nunique())
    return "One seed." if seeds == 1 else f"Means over those of {seeds} seeds that get there."


def _state(rows: pd.DataFrame) -> list[str]:
    """Cells of one arm at one reading."""
    mean = rows.groupby("metric")["value"].mean()

    def number(name: str, digits: int, factor: float = 100.0) -> str:
        value = mean.get(name, np.nan)
        return NONE if np.isnan(value) else f"{factor * value:.{digits}f}".replace("-", "−")

    shares = [number(name, 0) for name in OUTCOMES]
    found = [number("epoch_reached", 0, 1.0), *(number(name, 1) for name in ("train_accuracy", "test_accuracy", "gap"))]
    return [*found, NONE if NONE in shares else "/".join(shares)]
