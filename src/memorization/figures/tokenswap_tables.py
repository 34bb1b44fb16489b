"""Tables of paper `tokenswap`, drawn as figures. Our rows in black, those of the paper in gray beneath: other
models, other text.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from memorization.figures.common import NONE, cell
from memorization.figures.style import render_table
from memorization.figures.tokenswap_arms import (
    Column,
    arm_look,
    arms_in,
    batches,
    columns_of,
    digits_in,
    domains,
    lines,
    note,
    ours,
    seeds_of,
)
from memorization.tables.common import pick
from memorization.tables.tokenswap import EXTRACTION

Params = dict[str, Any]
FILLED = 0.94  # of the width, by lines of a note
ACROSS = ["matching_characters", "exact_match", "rouge_l", "levenshtein"]
NAMES = {"prose": "Prose", "math": "Mathematics", "all": "All passages"}


class Sheet:
    """Rows of cells under one set of columns, in sections."""

    def __init__(self, first: str, columns: Sequence[Column]) -> None:
        self.first, self.columns = first, list(columns)
        self.cells: list[list[str]] = []
        self.muted: list[bool] = []
        self.rules: list[int] = []
        self.sections: dict[int, str] = {}

    def add(self, rows: Sequence[tuple[str, pd.DataFrame]], title: str = "", muted: bool = False) -> None:
        """Append a section; rows without any number are left out."""
        start = len(self.cells)
        for label, part in rows:
            found = [cell(pick(part, **chosen), digits, factor) for _, chosen, digits, factor in self.columns]
            if any(text != NONE for text in found):
                self.cells.append([label, *found])
                self.muted.append(muted)
        if len(self.cells) > start:
            if title:
                self.sections[start] = title
            if start:
                self.rules.append(start)

    def draw(self, params: Params, note: str, groups: Sequence[tuple[str, int, int]] = ()) -> Figure:
        """Draw the sheet."""
        frame = pd.DataFrame(self.cells, columns=[self.first, *(column[0] for column in self.columns)])
        width = params.get("width", "page")
        return render_table(frame, params, self.muted, self.rules, note, width, groups, self.sections, (), FILLED)


def _paper(table: pd.DataFrame) -> pd.DataFrame:
    return pick(table, source="paper")


def _one_sheet(table: pd.DataFrame, params: Params, metrics: list[str], title: str, more: str = "") -> Figure:
    """One column a metric, ours above the paper's."""
    sheet = Sheet("Method", columns_of(metrics))
    sheet.add(lines(ours(table)))
    sheet.add(lines(_paper(table)), title, muted=True)
    return sheet.draw(params, note(metrics, seeds_of(table), more))


def _by_domain(table: pd.DataFrame, params: Params, metrics: list[str], title: str, more: str = "") -> Figure:
    """Columns of every metric for every domain side by side, ours above the paper's."""
    names = domains(table)
    columns = [column for name in names for column in columns_of(metrics, len(names) > 1, subset=name)]
    sheet = Sheet("Method", columns)
    sheet.add(lines(ours(table)))
    sheet.add(lines(_paper(table)), title, muted=True)
    number = len(metrics)
    groups = [(NAMES.get(name, name), 1 + number * k, number * (k + 1)) for k, name in enumerate(names)]
    return sheet.draw(params, note(metrics, seeds_of(table), more), groups if number > 1 else ())


def tab2(table: pd.DataFrame, params: Params) -> Figure:
    """Extraction after fine-tuning on the passages."""
    title = "Paper: Llama-3.2-3B fine-tuned on WritingPrompts (left) and MathAbstracts (right)"
    return _by_domain(table, params, ACROSS, title)


def tab6(table: pd.DataFrame, params: Params) -> Figure:
    """Held-out cross-entropy of the same arms: of all tokens, in G and outside; the paper's beside it."""
    heads = {"cross_entropy": "All\ntokens", "cross_entropy_words": "In G", "cross_entropy_others": "Not in G"}
    sheet = Sheet("Method", [(head, {"metric": name, "subset": "all"}, 2, 1.0) for name, head in heads.items()])
    sheet.add(lines(ours(table)))
    theirs = {name: "WritingPrompts" if name == "prose" else "MathAbstracts" for name in ("prose", "math")}
    found = {label: part for label, part in lines(_paper(table))}
    if found:
        sheet.columns += [(head, {}, 2, 1.0) for head in theirs.values()]
        for row in sheet.cells:
            part = found.get(row[0], _paper(table).iloc[:0])
            # behind a tab: set small and gray
            row += [f"\t{cell(pick(part, subset=name), 2, 1.0)}" for name in theirs]
    groups = [("Ours", 1, len(heads)), *([("Paper", 1 + len(heads), len(heads) + len(theirs))] if found else [])]
    return sheet.draw(params, note(["cross_entropy"], seeds_of(table)), groups)


def tab3(table: pd.DataFrame, params: Params) -> Figure:
    """One block a domain: extraction, cross-entropy and judged fluency of every method."""
    metrics = [
        "matching_characters", "exact_match", "rouge_above_0.8", "rouge_l", "levenshtein", "cross_entropy",
        "judge_loss",
    ]  # fmt: skip
    papers = {"prose": "Paper: LeetCode statements, Llama-3-8B", "math": "Paper: Pile, Pythia-6.9B"}
    sheet = Sheet("Method", columns_of(metrics))
    for name in domains(table):
        sheet.add(lines(pick(ours(table), subset=name)), f"{NAMES.get(name, name)}, ours")
        sheet.add(lines(pick(_paper(table), subset=name)), papers.get(name, "Paper"), muted=True)
    return sheet.draw(params, note(metrics, seeds_of(table), "In brackets: the auxiliary."))


def tab5(table: pd.DataFrame, params: Params) -> Figure:
    """Extraction with an auxiliary of another vocabulary."""
    everything = pick(table, subset="all")
    return _one_sheet(everything, params, EXTRACTION, "Paper: Wikipedia, OLMo-2-13B, auxiliary of another family")


def tab4(table: pd.DataFrame, params: Params) -> Figure:
    """Goldfish loss, TokenSwap, and both."""
    metrics = [*ACROSS, "cross_entropy"]
    return _one_sheet(pick(table, subset="all"), params, metrics, "Paper: Wikipedia in RedPajama, TinyLlama-1.1B")


def tab12(table: pd.DataFrame, params: Params) -> Figure:
    """One row a size, standard decoding left and TokenSwap right."""
    metrics = ["matching_characters", "exact_match", "rouge_l", "levenshtein", "cross_entropy"]
    table = pick(table, subset="all")
    columns = [c for arm in ("standard", "tokenswap") for c in columns_of(metrics, True, arm=arm)]
    sheet = Sheet("Size", columns)
    mine = ours(table).sort_values("parameters", kind="stable")
    for part, title, muted in ((mine, "", False), (_paper(table), "Paper: Pythia on the Pile", True)):
        rows = [(str(size), pick(part, detail=size)) for size in part["detail"].unique()]
        sheet.add(rows, title, muted)
    groups = [(arm_look(arm).label, 1 + 5 * k, 5 * (k + 1)) for k, arm in enumerate(("standard", "tokenswap"))]
    return sheet.draw(params, note(metrics, seeds_of(table)), groups)


def tab9(table: pd.DataFrame, params: Params) -> Figure:
    """One row a set of words, from none (standard decoding) to the largest."""
    metrics = [*ACROSS, "cross_entropy"]
    table = pick(table, subset="all")
    extra: list[Column] = [
        ("Words in\nmodel", {"metric": "words_usable"}, 0, 1.0),
        ("γ %", {"metric": "frequency"}, 1, 100.0),
        ("Mass %", {"metric": "mass"}, 1, 100.0),
    ]
    sheet = Sheet("|G|", [*extra, *columns_of(metrics)])
    for part, title, muted in ((ours(table), "", False), (_paper(table), "Paper: Pythia-6.9B on the Pile", True)):
        rows = [(digits_in(name), name) for name in part["detail"].unique()]
        sheet.add([(str(k or "none"), pick(part, detail=name)) for k, name in sorted(rows)], title, muted)
    more = "|G|: words on the list; γ: share of held-out tokens in G; mass: mean probability of G in the main model."
    return sheet.draw(params, note(metrics, seeds_of(table), more))


def _auxiliaries(table: pd.DataFrame, params: Params, metrics: list[str], title: str) -> Figure:
    ratings = pick(table, metric="mt_bench")
    said = ", ".join(f"{label} {part['value'].iloc[0]:.2f}" for label, part in lines(ratings))
    more = "In brackets: the auxiliary." + (f" The paper rates text by MT-Bench: {said}." if said else "")
    return _one_sheet(table, params, metrics, title, more)


def tab10(table: pd.DataFrame, params: Params) -> Figure:
    """Auxiliaries in one domain, scored by ROUGE-L above 0.8."""
    metrics = ["matching_characters", "rouge_above_0.8", "rouge_l", "levenshtein", "cross_entropy"]
    return _auxiliaries(table, params, metrics, "Paper: LeetCode statements, Llama-3-8B")


def tab11(table: pd.DataFrame, params: Params) -> Figure:
    """Auxiliaries in the other domain, scored by exact matches and by a judge."""
    metrics = [*ACROSS, "cross_entropy", "judge_loss"]
    return _auxiliaries(table, params, metrics, "Paper: Pile, Pythia-6.9B")


def tab8(table: pd.DataFrame, params: Params) -> Figure:
    """Fractional exact rate by domain and with another vocabulary."""
    heads = {"prose": "Prose", "math": "Mathematics", "other": "Other\nvocabulary"}
    found = [name for name in heads if (ours(table)["subset"] == name).any()]
    columns = [(heads[name], {"subset": name, "metric": "fractional_exact"}, 2, 1.0) for name in found]
    sheet = Sheet("Method", columns)
    sheet.add(lines(ours(table)))
    sheet.add(lines(_paper(table)), "Paper: LeetCode, Pile, Wikipedia", muted=True)
    more = "Share of positions with the true token. In brackets: the auxiliary."
    return sheet.draw({"width": "column", **params}, note([], seeds_of(table), more))


def tab13(table: pd.DataFrame, params: Params) -> Figure:
    """Speculative decoding beside sampling from the main model and TokenSwap."""
    title = "Paper: Pile, Pythia-6.9B, draft Pythia-70M"
    more = "Sampled: at temperature 1; else greedy."
    return _one_sheet(pick(table, subset="all"), params, ACROSS, title, more)


def tab7(table: pd.DataFrame, params: Params) -> Figure:
    """Accuracy by group of questions; the paper's tasks have heads of their own."""
    mine, theirs = ours(table), _paper(table)
    groups = sorted(set(mine["subset"]) - {"all"}) + ["all"] * bool((mine["subset"] == "all").any())
    heads = [name.replace("_", "\n", 1) for name in groups]
    sheet = Sheet("Method", [(h, {"subset": g}, 1, 100.0) for h, g in zip(heads, groups, strict=True)])
    sheet.add(lines(mine))
    cells, muted, sections, bold = sheet.cells, sheet.muted, {}, []
    if len(theirs):
        tasks = list(theirs["subset"].unique())
        heads += [""] * (len(tasks) - len(heads))
        for row in cells:
            row += [""] * (1 + len(heads) - len(row))
        sections[len(cells)] = "Paper: its six tasks, Llama-3-8B, 128 questions each"
        bold.append(len(cells))
        empty = [""] * (len(heads) - len(tasks))
        cells.append(["", *tasks, *empty])
        for label, part in lines(theirs):
            cells.append([label, *(cell(pick(part, subset=task), 1, 100.0) for task in tasks), *empty])
        muted += [True] * (len(cells) - len(muted))
    frame = pd.DataFrame(cells, columns=["Method", *heads])
    text = note([], seeds_of(table), "Accuracy in percent; answers are content words, chance is 25.")
    rules = [min(sections)] if sections else []
    width = params.get("width", "page")
    return render_table(frame, params, muted, rules, text, width, (), sections, bold, FILLED)


def tab1(table: pd.DataFrame, params: Params) -> Figure:
    """What each method needs, and the time it takes here."""
    facts, mine = _paper(table), ours(table)
    rows, sizes = [], batches(mine)
    for arm in [name for name in arms_in(facts) if name != "standard"]:
        part, timed = pick(facts, arm=arm), pick(mine, arm=arm)
        told = part.set_index("metric")["value"].to_dict()
        needs = ["✓" if told.get(f"needs_{name}") else NONE for name in ("weights", "corpus", "probabilities")]
        extra = told.get("extra_memory")
        second = "none" if extra is None else ("one, as large" if extra >= 1 else f"one, ≈ {100 * extra:.0f} %")
        here = [
            *([cell(pick(timed, metric="parameters_ratio"), 0, 100.0)] if sizes else []),
            *(cell(pick(timed, metric="seconds_ratio", subset=batch), 2, 1.0) for batch in sizes),
        ]
        rows.append([arm_look(arm).label, *needs, second, *(text.replace(NONE, "") for text in here)])
    heads = [
        "Method", "Weights or\ntraining", "Training\ntext", "Token prob-\nabilities", "Second\nmodel",
        *(["Its size\nhere (%)"] if sizes else []), *(f"Time here,\n{batch}" for batch in sizes),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=heads)
    text = "✓: needed, after the paper's Table 1, with its sizes of the second model relative to the main one. "
    if len(mine):
        text += "Here: seconds a token relative to standard decoding, empty where not timed. "
        text += note([], seeds_of(mine))
    return render_table(frame, params, None, (), text.strip(), params.get("width", "page"), note_share=FILLED)
