"""Figures of paper `geometry` about the choices of the probe, and its tables of suffix lengths and spectra."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from memorization.figures import style
from memorization.figures.common import NONE, cell, curve, line_key
from memorization.figures.style import DASHDOT, DASHED, DOTTED, Look, render_table
from memorization.tables.common import pick
from memorization.tables.geometry_more import BINS

Params = dict[str, Any]
Lines = list[tuple[dict[str, Any], Look]]  # (conditions of the rows, look)
MODEL_NAMES = {
    "pythia_14m": "Pythia-14M", "pythia_70m": "Pythia-70M", "pythia_160m": "Pythia-160M", "pythia_410m": "Pythia-410M",
    "pythia_1b": "Pythia-1B", "pythia_1_4b": "Pythia-1.4B", "pythia_2_8b": "Pythia-2.8B", "pythia_6_9b": "Pythia-6.9B",
    "pythia_12b": "Pythia-12B", "olmo2_1b": "OLMo-2-1B", "olmo2_7b": "OLMo-2-7B",
}  # fmt: skip
METRICS = {"rank_me": "RankMe", "alpha": "α (decay of the spectrum)"}
SETS = {
    "text": Look("text", style.INK, dash="-"),
    "facts": Look("facts", "#D55E00", dash=DASHED),
    "other": Look("other text", "#0072B2", dash=DASHDOT),
    "wikitext": Look("WikiText", "#0072B2", dash=DASHDOT),
    "lambada": Look("LAMBADA", "#009E73", dash=DASHED),
    "sciq": Look("SciQ", "#E69F00", dash=DASHED),
    "shuffled": Look("shuffled tokens", "#CC79A7", dash=DOTTED),
}
OTHERWISE: dict[str, Lines] = {  # what is not the default, by choice
    "centring": [({"centred": 0}, Look("not centred", "#D55E00", dash=DASHED))],
    "token": [
        ({"token": "mean"}, Look("mean over tokens", "#0072B2", dash=DASHDOT)),
        ({"token": "all"}, Look("all tokens", "#009E73", dash=DOTTED)),
    ],
    "window": [({"window": "paper"}, Look("ranks 12–100", "#CC79A7", dash=DASHED))],
}
DEFAULT: dict[str, dict[str, Any]] = {
    "centring": {"centred": 1},
    "token": {"token": "last"},
    "window": {"window": "scaled"},
}


# ------------------------------------------------------------------------------------------------------------
# Panels over training tokens


def token_axis(ax: Axes, tokens: Any, label: str = "Training tokens") -> None:
    """Logarithmic from the first tokens on, with a place for 0 left of them; at most five labels."""
    tokens = np.asarray(tokens, float)
    seen = tokens[np.isfinite(tokens) & (tokens > 0)]
    if not len(seen):
        return
    first, last = seen.min(), seen.max()
    ticks = [0.0] if (tokens == 0).any() else []
    ax.set_xscale("symlog", linthresh=first, linscale=0.6) if ticks else ax.set_xscale("log")
    decades = np.arange(np.ceil(np.log10(first)), np.floor(np.log10(last)) + 1)
    if len(decades) < 2:  # too short a range for powers of ten
        decades = np.log10(np.geomspace(first, last, 3))
    decades = decades[:: int(np.ceil(len(decades) / 4))]
    at = [*ticks, *(10**decade for decade in decades)]
    ax.set_xticks(at, ["0" if place == 0 else _power(place) for place in at])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    pad = (last / first) ** 0.03
    ax.set_xlim(0 if ticks else first / pad, last * pad)
    ax.set_xlabel(label)


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value) + 1e-9))
    digit = f"{value / 10**exponent:.1f}".removesuffix(".0")
    return f"$10^{{{exponent}}}$" if digit == "1" else rf"${digit}\!\times\!10^{{{exponent}}}$"


def name_of(model: str) -> str:
    """How a model is written."""
    return MODEL_NAMES.get(model, model.replace("_", " "))


def models_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Models from narrow to wide, each with what is written beside its row."""
    rows = table[["model", "width"]].drop_duplicates().sort_values(["width", "model"])
    return [(str(m), f"{name_of(str(m))}, width {w:g}") for m, w in rows.itertuples(index=False)]


def panels(
    table: pd.DataFrame, params: Params, columns: Sequence[tuple[str, str, str]], lines: dict[str, Any]
) -> tuple[Figure, np.ndarray]:
    """A row of panels a model; a column a (choice, metric, title), its lines from `lines[choice]` of the rows."""
    models = models_of(table)
    figure = style.new_figure(params.get("width", "page"), 0.75 + 1.4 * len(models))
    axes = figure.subplots(len(models), len(columns), squeeze=False, sharex="col")
    for i, (row, (model, name)) in enumerate(zip(axes, models, strict=True)):
        for k, (ax, (choice, metric, title)) in enumerate(zip(row, columns, strict=True)):
            part = pick(table, model=model, choice=choice, metric=metric)
            for chosen, look in reversed(lines[choice](pick(table, model=model, choice=choice))):
                curve(ax, pick(part, **chosen), look, x="tokens")
            token_axis(ax, table.loc[table["choice"] == choice, "tokens"])
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.margins(y=0.08)
            if i == 0:
                ax.set_title(title)
            if i < len(models) - 1:
                ax.set_xlabel("")
            if k == 0:
                ax.set_ylabel(name)
    if axes.size <= 26:
        style.panel_letters(axes.ravel())
    return figure, axes


def key_of(figure: Figure, looks: Sequence[Look], where: str = "upper center", title: str = "") -> None:
    """Key above the panels in one line, with its title left of it."""
    handles = [line_key(look) for look in looks]
    if title:
        handles = [line_key(Look(title, "none")), *handles]
    about: dict[str, Any] = {"columnspacing": 1.0, "handlelength": 1.7, "handletextpad": 0.4}
    figure.legend(handles=handles, loc=f"outside {where}", ncols=len(handles), **about)  # type: ignore[call-overload]


def _layers(rows: pd.DataFrame) -> Lines:
    layers = sorted(rows["layer"].unique())
    colors = style.shades("#E69F00", "#0B2545", len(layers))
    last = len(layers) - 1
    names = [{0: "embeddings", last: f"layer {layer:g} (last)"}.get(k, f"{layer:g}") for k, layer in enumerate(layers)]
    dashes = [DOTTED if k == 0 else "-" if k == last else DASHED for k in range(len(layers))]
    lines = [
        ({"layer": layer}, Look(name, color, dash=dash))
        for layer, name, color, dash in zip(layers, names, colors, dashes, strict=True)
    ]
    return lines[::-1]  # what comes first is drawn last


def fig7(table: pd.DataFrame, params: Params) -> Figure:
    """RankMe and alpha of every layer."""
    columns = [("layer", metric, name) for metric, name in METRICS.items()]
    figure, _ = panels(table, params, columns, {"layer": _layers})
    looks = [look for _, look in _layers(pick(table, model=table.sort_values("layer")["model"].iloc[-1]))][::-1]
    if table.groupby("model")["layer"].nunique().nunique() > 1 or len(looks) > 7:  # no number holds for all, or no room
        middle = looks[len(looks) // 2]
        looks = [looks[0], Look("between, darker with depth", middle.color, dash=middle.dash)]
        looks.append(Look("last layer", style.shades("#E69F00", "#0B2545", 2)[-1]))
    key_of(figure, looks)
    return style.sign(figure, params)


def _parts(column: str, low: str, high: str) -> Any:
    def lines(rows: pd.DataFrame) -> Lines:
        values = sorted(rows[column].unique())
        colors = style.shades(low, high, len(values))
        dashes = [DOTTED, DASHDOT, DASHED, (0, (7, 1.5)), "-"][-len(values) :]
        dashes = ["-"] * (len(values) - len(dashes)) + dashes
        names = ["all" if value == values[-1] else _share(value / values[-1]) for value in values]
        found = [
            ({column: value}, Look(name, color, dash=dash))
            for value, name, color, dash in zip(values, names, colors, dashes, strict=True)
        ]
        return found[::-1]

    return lines


def _share(share: float) -> str:
    """A fraction with a small denominator as such, others in percent."""
    for below in (2, 3, 4, 8, 16, 32):
        if abs(share * below - round(share * below)) < 0.02 * share * below:
            return f"{round(share * below)}/{below}"
    return f"{100 * share:.2g} %"


def fig8(table: pd.DataFrame, params: Params) -> Figure:
    """Number of sequences of the probe left, length of the sequences right."""
    lines = {
        "sequences": _parts("sequences", "#E69F00", "#0B2545"),
        "length": _parts("length", "#7FC8A9", "#00382B"),
    }
    columns = [(choice, metric, name) for choice in lines for metric, name in (("rank_me", "RankMe"), ("alpha", "α"))]
    # wide models need more sequences: only the parts that all models were measured on are compared
    share = table["sequences"] / table.groupby("model")["sequences"].transform("max")
    models = table.groupby([table["choice"], share.round(6)])["model"].transform("nunique")
    table = table[table["choice"].ne("sequences") | models.eq(table["model"].nunique())]
    figure, _ = panels(table, params, columns, lines)
    widest = table.sort_values("width")["model"].iloc[-1]
    for choice, where, title in (("sequences", "upper left", "sequences:"), ("length", "upper right", "length:")):
        rows = pick(table, model=widest, choice=choice)
        if len(rows):
            key_of(figure, [look for _, look in lines[choice](rows)][::-1], where, title)
    return style.sign(figure, params)


def _sets(rows: pd.DataFrame) -> Lines:
    rank = {name: k for k, name in enumerate(SETS)}
    names = sorted(rows["subset"].unique(), key=lambda name: (rank.get(name, len(rank)), name))
    return [({"subset": name}, SETS.get(name, Look(name.replace("_", " "), style.MUTED))) for name in names]


def fig9_10(table: pd.DataFrame, params: Params) -> Figure:
    """Data sets of the probe."""
    figure, _ = panels(table, params, [("data", m, name) for m, name in METRICS.items()], {"data": _sets})
    key_of(figure, [look for _, look in _sets(table)])
    return style.sign(figure, params)


def x_choices(table: pd.DataFrame, params: Params) -> Figure:
    """Centring, token and window: the default in black and what else may be chosen."""
    black = Look("default: centred, last token, ranks .05–.5 d", style.INK)

    def lines(choice: str) -> Any:
        return lambda rows: [(DEFAULT[choice], black), *OTHERWISE[choice]]

    columns = [
        ("centring", "rank_me", "RankMe:\ncentring"), ("token", "rank_me", "RankMe:\ntoken"),
        ("centring", "alpha", "α:\ncentring"), ("token", "alpha", "α:\ntoken"), ("window", "alpha", "α:\nwindow"),
    ]  # fmt: skip
    figure, _ = panels(table, params, columns, {choice: lines(choice) for choice in OTHERWISE})
    key_of(figure, [black, *(look for found in OTHERWISE.values() for _, look in found)])
    return style.sign(figure, params)


# ------------------------------------------------------------------------------------------------------------
# Tables


def _seeds(table: pd.DataFrame) -> str:
    seeds = pick(table, source="ours")["seed"].nunique()
    if seeds < 3:
        return {0: "", 1: "One seed.", 2: "Mean over 2 seeds; an interval needs three."}[seeds]
    return f"Mean over {seeds} seeds; ±: 95\u00a0% t interval, none where it rounds to zero."


def tab7(table: pd.DataFrame, params: Params) -> Figure:
    """Suffix lengths of infini-gram, ours and the paper's."""
    heads = {("ours", "facts"): "Facts\n(ours)", ("ours", "continuations"): "Continuations\n(ours)"}
    heads |= {("paper", "facts"): "TriviaQA\n(paper)"}
    heads = {of: head for of, head in heads.items() if len(pick(table, source=of[0], subset=of[1]))}
    cells, inner = [], []
    for name in BINS:
        shown = [cell(pick(table, source=source, subset=subset, bin=name), 1, 100.0) for source, subset in heads]
        cells.append([name.replace("<=", "≤\u2009").replace(">", ">\u2009"), *shown])
        inner.append(name in BINS[: BINS.index("<=3")])
    frame = pd.DataFrame(cells, columns=["Suffix\n(tokens)", *heads.values()])
    note = (
        "Percent of the answer tokens by the number of tokens before them that infini-gram uses: the longest suffix of "
        f"the context in the training data. Lengths 0 to 3 are parts of the row ≤ 3. {_seeds(table)}"
    )
    return render_table(
        frame, params, inner, [inner.index(False)], note, params.get("width", "column"), note_share=0.94
    )


def _numbers(part: pd.DataFrame) -> tuple[str, int | None]:
    """k of a model, and of what width."""
    ks = sorted(int(k) for k in part.loc[part["components"] > 0, "components"].unique())
    width = part["width"].dropna()
    return ", ".join(map(str, ks)) or NONE, int(width.iloc[0]) if len(width) else None


def tab8(table: pd.DataFrame, params: Params) -> Figure:
    """Spectral interventions: a row a model, original, without and with nothing but the top k."""
    places = sorted(int(place) for place in table["place"].unique() if place > 0)
    sections_of = [
        ("ours", "continuations", "choice_accuracy", "Continuations, one of four (chance 25 %)"),
        ("ours", "facts", "choice_accuracy", "Facts, one of four (chance 25 %)"),
        ("ours", "facts", "recall", "Facts, recalled by greedy decoding"),
        ("paper", "continuations", "choice_accuracy", "Paper: SciQ, one of four (chance 25 %)"),
    ]
    cells: list[list[str]] = []
    sections, rules, muted = {}, [], []
    for source, subset, metric, title in sections_of:
        rows = pick(table, source=source, subset=subset, metric=metric)
        if rows.empty:
            continue
        rules += [len(cells)] if cells else []
        sections[len(cells)] = title
        models = rows[["model", "width"]].drop_duplicates()
        if source == "ours":
            models = models.sort_values(["width", "model"])
        for model in models["model"]:
            part = pick(rows, model=model)
            ks, width = _numbers(part)
            about = ks if width is None else f"{ks} of {width}"
            shown = [cell(pick(part, intervention="none"), 1, 100.0)]
            for place in places:
                for way in ("drop_top", "keep_top"):
                    shown.append(cell(pick(part, intervention=way, place=place), 1, 100.0))
            cells.append([name_of(model), about, *shown])
            muted.append(source == "paper")
    names = ["Model", "k", "Original"]
    groups = []
    for place in places:
        blank = "\u200b" * place  # column names of a frame differ
        names += [f"removed{blank}", f"retained{blank}"]
        order = {1: "Smaller k", len(places): "Larger k"}.get(place, f"k number {place}")
        groups.append(("Top k" if len(places) == 1 else order, 1 + 2 * place, 2 + 2 * place))
    note = (
        "Percent, at the end of pre-training. Removed: hidden states without their top k principal components; "
        f"retained: nothing but these. {_shares(table)} {_seeds(table)}"
    )
    frame = pd.DataFrame(cells, columns=names)
    return render_table(
        frame, params, muted, rules, note.strip(), params.get("width", "page"), groups, sections, (), 0.94
    )


def _shares(table: pd.DataFrame) -> str:
    """Which share of the width k is."""
    ours = table[(table["source"] == "ours") & (table["components"] > 0)]
    shares = sorted({round(100 * float(share), 1) for share in ours["share"].dropna()})
    if not shares:
        return ""
    said = f"{shares[0]:g} to {shares[-1]:g}" if len(shares) > 4 else " and ".join(f"{share:g}" for share in shares)
    paper = " in the paper, 10 and 50 of 2,048 or more." if (table["source"] == "paper").any() else ""
    return f"k is {said}\u00a0% of the width of ours" + (f";{paper}" if paper else ".")
