"""Tables of paper `patterns`, drawn as figures. Our rows in black, the paper's conditions, which differ in
size, in gray.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from memorization.figures.style import look, mean_and_range, ordered, render_table
from memorization.tables.common import pick

Params = dict[str, Any]
NONE = "–"
SPREAD = "Ours: mean over seeds [lowest, highest]."


def _number(value: float, digits: int) -> str:
    return NONE if not np.isfinite(value) else f"{value:.{digits}f}"


def _pairings(
    table: pd.DataFrame, columns: dict[str, tuple[dict[str, str], int]]
) -> tuple[pd.DataFrame, list[bool], int]:
    """One row per pairing: ours first, then the paper's; a column per (selection of rows, decimals).

    Returns the cells, which rows are the paper's, and where they start.
    """
    ours = table["value"].notna()
    cells, muted = [], []
    size = table["model"].map(table.groupby("model")["parameters"].max())
    for mine in (True, False):
        part = table[ours] if mine else table[~ours]
        part = part.assign(size=size).sort_values(["items", "size"])
        for (items, model), rows in part.groupby(["items", "model"], sort=False):
            row: dict[str, Any] = {"Items": f"{items:.0f}", "Model": model}
            for name, (chosen, digits) in columns.items():
                few = pick(rows, **chosen)
                paper = few["published"].dropna()
                if mine:
                    row[name] = mean_and_range(few["value"], digits)
                    if len(paper):
                        row[name] += f" (paper {paper.iloc[0]:.{digits}f})"
                else:
                    row[name] = _number(paper.iloc[0], digits) if len(paper) else NONE
            cells.append({"": "ours" if mine else "paper", **row})
            muted.append(not mine)
    frame = pd.DataFrame(cells)
    # the source is said once a block
    frame[""] = frame[""].where(frame[""] != frame[""].shift(), "")
    return frame, muted, muted.index(True) if True in muted else 0


def _render(frame: pd.DataFrame, muted: list[bool], start: int, params: Params, note: str) -> Figure:
    return render_table(frame, params, muted, [start] if start else [], note, params.get("width", "column"))


def tab1(table: pd.DataFrame, params: Params) -> Figure:
    """Forgettings per item."""
    frame, muted, start = _pairings(table, {"Forgettings\nper item": ({"metric": "forgettings_per_item"}, 2)})
    return _render(frame, muted, start, params, SPREAD)


def tab2(table: pd.DataFrame, params: Params) -> Figure:
    """Recency, in percent, beside the level expected by chance."""
    columns: dict[str, tuple[dict[str, str], int]] = {
        "% of new in\nlast batch": ({"metric": "new_in_batch"}, 1),
        "by\nchance": ({"metric": "new_in_batch_by_chance"}, 1),
        "% of last\nbatch new": ({"metric": "batch_new"}, 1),
        "by \nchance": ({"metric": "batch_new_by_chance"}, 1),
        "new items\nseen": ({"metric": "new_items"}, 0),
    }
    frame, muted, start = _pairings(table, columns)
    note = f"{SPREAD} Chance for the paper's rows is batch size / N, computed by us."
    return _render(frame, muted, start, params, note)


def tab3(table: pd.DataFrame, params: Params) -> Figure:
    """EM of text and word-shuffled text."""
    columns: dict[str, tuple[dict[str, str], int]] = {}
    for metric, when in (("exact_match_at_equal_time", "equal time"), ("exact_match_at_end", "at the end")):
        for data in ("text", "text_words"):
            columns[f"{'Text' if data == 'text' else 'Shuffled'}\n{when}"] = (
                {"metric": metric, "data": data},
                2,
            )
    frame, muted, start = _pairings(table, columns)
    level = params.get("level", 0.95)
    note = f"{SPREAD} Equal time: when the text run of the same seed first reaches {level:g}, or its end."
    return _render(frame, muted, start, params, note)


def tab5(table: pd.DataFrame, params: Params) -> Figure:
    """EM after equal time for every degree of shuffling; one column per pairing."""
    part = pick(table, metric="exact_match_at_equal_time")
    columns: dict[str, pd.DataFrame] = {}
    for mine in (True, False):
        some = part[part["value"].notna() == mine]
        for (items, model), rows in some.sort_values(["items", "model"]).groupby(["items", "model"], sort=False):
            columns[f"{'ours' if mine else 'paper'}\n{items:.0f}; {model}"] = rows
    cells = []
    for name in ordered(part["data"]):
        row = {"Training text": look(name).label}
        for title, rows in columns.items():
            few = pick(rows, data=name)
            theirs = few["published"].dropna()
            row[title] = mean_and_range(few["value"]) if title.startswith("ours") else NONE
            if len(theirs) and title.startswith("paper"):
                row[title] = f"{theirs.iloc[0]:.2f}"
        cells.append(row)
    level = params.get("level", 0.95)
    when = f"EM when the unshuffled run of the seed first has EM {level:g}, or its end."
    note = f"Columns: items; model. {SPREAD} {when}"
    return render_table(pd.DataFrame(cells), params, note=note, width=params.get("width", "page"))


def tab_generalization(table: pd.DataFrame, params: Params) -> Figure:
    """Train and validation EM of every set."""
    cells: list[dict[str, str]] = []
    rules = []
    pairs = [(items, name) for items in sorted(table["items"].unique()) for name in ordered(table["data"])]
    for items, name in pairs:
        rows = pick(table, data=name, items=items)
        if rows["value"].isna().all():  # the paper's own size, shown in the last column
            continue
        if cells and cells[-1]["Items"] != f"{items:.0f}":
            rules.append(len(cells))
        cell = {"Data set": look(name).label, "Items": f"{items:.0f}"}
        for metric, title in (
            ("train_end", "Train EM\nat the end"),
            ("validation_end", "Validation EM\nat the end"),
            ("validation_best", "Validation EM\nbest on the way"),
        ):
            cell[title] = mean_and_range(pick(rows, metric=metric)["value"])
        theirs = pick(table, data=name, metric="validation_end")["published"].dropna()
        cell["Validation EM\npaper"] = _number(theirs.iloc[0], 0) if len(theirs) else NONE
        cells.append(cell)
    note = f"{SPREAD} The paper's values are for 500 items."
    return render_table(pd.DataFrame(cells), params, None, rules, note, params.get("width", "page"))


def tab_adherence(table: pd.DataFrame, params: Params) -> Figure:
    """Bigrams that follow the rule on unseen prompts, in percent."""
    percent = table.assign(value=100 * table["value"], published=100 * table["published"])
    frame, muted, start = _pairings(percent, {"Bigrams that\nfollow the rule (%)": ({"metric": "adherence"}, 1)})
    chance = 100 * table["chance"].dropna().iloc[0]
    return _render(frame, muted, start, params, f"{SPREAD} Chance: {chance:.0f} %.")


def tab_sampling(table: pd.DataFrame, params: Params) -> Figure:
    """Sampling accuracy by status, in percent."""
    percent = table.assign(value=100 * table["value"], published=100 * table["published"])
    columns = {
        f"{status}\n(%)": ({"subset": status, "metric": "sampling_accuracy"}, 1)
        for status in ("memorized", "forgotten", "never")
    }
    frame, muted, start = _pairings(percent, columns)
    return _render(frame, muted, start, params, SPREAD)
