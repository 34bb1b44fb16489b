"""Figures of paper `patterns` about its set-up: lengths, model sizes, prompt lengths, metrics, capacity."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from memorization.figures import style
from memorization.figures.common import conditions, grid_of_panels, outer_labels
from memorization.figures.style import Look, look, ordered
from memorization.tables.common import pick

Params = dict[str, Any]


def fig5(table: pd.DataFrame, params: Params) -> Figure:
    """Histogram of item lengths; sets with the same lengths share one panel."""
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for name in ordered(table["data"]):
        part = pick(table, data=name).sort_values("length")
        kinds.setdefault((*part["length"], *part["value"]), []).append(name)
    figure, axes = grid_of_panels(len(kinds), params.get("width", "column"), 2, 1.5, 0.45)
    low, high = table["length"].min(), table["length"].max()
    edges = np.linspace(low - 0.5, high + 0.5, 1 + min(params.get("bins", 17), int(high - low) + 1)).tolist()
    for ax, names in zip(axes, kinds.values(), strict=True):
        part = pick(table, data=names[0])
        style_ = look(names[0]) if len(names) == 1 else Look("", style.MUTED)
        ax.hist(part["length"], edges, weights=part["value"], color=style_.color, edgecolor="white", linewidth=0.5)
        ax.set_title(look(names[0]).label if len(names) == 1 else f"{len(names)} data sets" if len(kinds) > 1 else "")
        ax.set_xlabel("Item length (tokens)")
        ax.set_ylabel("Training items")
        ax.grid(False, axis="x")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    outer_labels(axes, 2)
    return style.sign(figure, params)


def fig6(table: pd.DataFrame, params: Params) -> Figure:
    """Depth against width and lines of equal size; shaded where width / depth is that of the paper's rule."""
    figure = style.new_figure(params.get("width", "column"), 2.7)
    ax = figure.subplots()
    x_high, y_high = 1.25 * table["width"].max(), 1.35 * table["layers"].max()
    x_low, y_low = 0.7 * table["width"].min(), 0.7 * table["layers"].min()
    e = np.geomspace(x_low, x_high, 200)
    ax.set(xscale="log", yscale="log", xlim=(x_low, x_high), ylim=(y_low, y_high))
    ax.fill_between(e, e / 130, e / 100, color="#0072B2", alpha=0.12, lw=0)
    smallest, largest = table["parameters"].min(), table["parameters"].max()
    for size in (s * 10**k for k in range(4, 10) for s in (1, 3)):
        if smallest / 2 <= size <= largest * 2:
            ax.plot(e, size / (12 * e**2), color=style.FAINT, lw=0.8, zorder=1)
            at = np.sqrt(size / (12 * y_high * 0.93))
            if x_low * 1.05 < at < x_high * 0.9:
                text = f"{size / 1e6:g}M" if size >= 1e6 else f"{size / 1e3:g}k"
                ax.text(at, y_high * 0.93, text, color=style.MUTED, fontsize=6, ha="center", va="top", rotation=0)
    for source, fill in (("paper", "white"), ("ours", "#0072B2")):
        part = table[table["source"] == source]
        ax.plot(part["width"], part["layers"], "o", mfc=fill, mec="#0072B2", mew=0.9, ls="", zorder=4)
        for row in part.to_dict("records"):
            up = source == "ours"
            ax.annotate(
                row["model"],
                (row["width"], row["layers"]),
                xytext=(-4, 3) if up else (4, -3),
                textcoords="offset points",
                ha="right" if up else "left",
                va="bottom" if up else "top",
                fontsize=6.5,
            )
    ax.xaxis.set_major_locator(FixedLocator([16, 32, 64, 128, 256, 512, 1024, 2048]))
    ax.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 6, 8, 12, 24]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlabel("Width E")
    ax.set_ylabel("Layers L")
    ax.grid(False)
    handles = [
        Line2D([], [], marker="o", ls="", mfc=fill, mec="#0072B2", label=label)
        for fill, label in (("#0072B2", "this scale"), ("white", "paper"))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return style.sign(figure, params)


def fig8(table: pd.DataFrame, params: Params) -> Figure:
    """EM curves of every prompt-completion length, one panel per pairing; black is the run's own."""
    pairs = conditions(table)
    across = min(4, len(pairs))
    figure, axes = grid_of_panels(len(pairs), params.get("width", "page"), across, 1.8, 0.3)
    columns = ["completion_length", "prompt_length"]
    known = table[columns].drop_duplicates().sort_values(columns)
    lengths = [(int(prompt), int(completion)) for completion, prompt in known.to_numpy()]
    own = table.loc[table["default"], ["prompt_length", "completion_length"]].iloc[0]
    cycle = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00"]
    dashes = [style.DASHED, style.DASHDOT, style.DOTTED, "-"]
    looks: dict[tuple[int, ...], Look] = {}
    for k, pair in enumerate(lengths):
        plain = pair == tuple(own)
        label = f"{pair[0]} – {pair[1]}" + (" (used)" if plain else "")
        looks[pair] = Look(label, *(("#000000", "o", "-") if plain else (cycle[k % 6], "o", dashes[k % 4])))
    for ax, (model, items) in zip(axes, pairs, strict=True):
        part = pick(table, model=model, items=items)
        for (prompt, completion), style_ in looks.items():
            curve = pick(part, prompt_length=prompt, completion_length=completion)
            if not curve.empty:
                style.draw_curve(ax, curve, style_)
        style.epoch_axis(ax, part["epoch"].max())
        style.share_axis(ax)
        ax.set_title(style.pairing(model, items))
    outer_labels(axes, across)
    style.key_beside(figure, list(looks.values()), "prompt –\ncompletion\n(tokens)")
    return style.sign(figure, params)


SCORE_LOOKS = {
    "exact_match": Look("Exact match", "#000000"),
    "bleu1": Look("BLEU, 1-grams", "#56B4E9", dash=style.DOTTED),
    "bleu2": Look("BLEU, 2-grams", "#56B4E9", dash=style.DASHDOT),
    "bleu3": Look("BLEU, 3-grams", "#56B4E9", dash=style.DASHED),
    "bleu4": Look("BLEU, 4-grams", "#56B4E9"),
    "bleu_cumulative": Look("BLEU, cumulative", "#0072B2"),
    "meteor": Look("METEOR", "#009E73"),
    "jaccard": Look("n-gram Jaccard", "#CC79A7", dash=style.DASHED),
}
LOSS_LOOKS = {
    "train": Look("Train loss", "#D55E00"),
    "validation": Look("Validation loss", "#D55E00", dash=style.DASHED),
}


def fig9(table: pd.DataFrame, params: Params) -> Figure:
    """Scores above, losses below, one column per pairing (the smallest and the largest)."""
    pairs = conditions(table)
    pairs = [pairs[0], pairs[-1]] if len(pairs) > 2 else pairs
    figure, axes = grid_of_panels(2 * len(pairs), params.get("width", "page"), len(pairs), 1.5, 0.4)
    scores, losses = axes[: len(pairs)], axes[len(pairs) :]
    drawn: dict[str, Look] = {}
    for score, loss, (model, items) in zip(scores, losses, pairs, strict=True):
        part = pick(table, model=model, items=items)
        for metric, style_ in SCORE_LOOKS.items():
            curve = pick(part, metric=metric, split="train")
            if not curve.empty:
                style.draw_curve(score, curve, style_, shade=metric in ("exact_match", "bleu_cumulative"))
                drawn[metric] = style_
        for split, style_ in LOSS_LOOKS.items():
            curve = pick(part, metric="loss", split=split)
            if not curve.empty:
                style.draw_curve(loss, curve, style_)
                drawn[split] = style_
        style.share_axis(score, "Score (train)")
        loss.set_ylim(bottom=0)
        loss.set_ylabel("Loss")
        for ax in (score, loss):
            style.epoch_axis(ax, part["epoch"].max())
        score.set_title(style.pairing(model, items))
    outer_labels(axes, len(pairs))
    order = [*SCORE_LOOKS, *LOSS_LOOKS]
    style.key_beside(figure, [drawn[name] for name in order if name in drawn])
    return style.sign(figure, params)


def fig10(table: pd.DataFrame, params: Params) -> Figure:
    """Heat maps of best EM and final loss; the smallest model that memorizes N items, with a line fitted to
    it.
    """
    names = ordered(table["data"])
    figure = style.new_figure(params.get("width", "page"), 0.4 + 1.9 * len(names))
    axes = figure.subplots(len(names), 3, squeeze=False, width_ratios=[1, 1, 0.9])
    for row, name in zip(axes, names, strict=True):
        part = pick(table, data=name)
        for ax, metric, title, ramp in (
            (row[0], "max_exact_match", "Best exact match", "Blues"),
            (row[1], "final_loss", "Final train loss", "Oranges"),
        ):
            grid = pick(part, metric=metric).pivot_table(index="parameters", columns="items", values="value")
            models = pick(part, metric=metric).drop_duplicates("parameters").set_index("parameters")["model"]
            top = 1.0 if metric == "max_exact_match" else max(float(np.nanmax(grid.to_numpy())), 1e-9)
            ax.imshow(grid.to_numpy(), origin="lower", aspect="auto", cmap=ramp, vmin=0, vmax=top)
            for (i, j), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    color = "white" if value > 0.6 * top else style.INK
                    ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
            ax.set_xticks(range(grid.shape[1]), [f"{n:.0f}" for n in grid.columns])
            ax.set_yticks(range(grid.shape[0]), [f"{models[p]} ({_short(p)})" for p in grid.index])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.grid(False)
            ax.set_xlabel("Training items N")
            ax.set_title(title if len(names) == 1 else f"{title}: {look(name).label}")
        row[1].set_yticklabels([])
        row[0].set_ylabel("Model (parameters)")
        _minimal(row[2], part, params)
    style.panel_letters(axes.ravel())
    return style.sign(figure, params)


def _short(parameters: float) -> str:
    return f"{parameters / 1e6:.3g}M" if parameters >= 1e6 else f"{parameters / 1e3:.0f}k"


def _minimal(ax: Any, part: pd.DataFrame, params: Params) -> None:
    smallest = pick(part, metric="minimal_parameters")
    known = smallest[smallest["value"].notna()]
    unit = 1e6 if known["value"].max() >= 1e6 else 1e3
    seeds = {seed: k for k, seed in enumerate(sorted(smallest["seed"].unique()))}
    n_high = 1.1 * smallest["items"].max()
    nudge = 0.012 * n_high
    color = "#0072B2"
    ax.set_xlim(0, n_high)
    top = known["value"].max() / unit if len(known) else 1.0
    ax.set_ylim(0, 1.25 * top)
    for row in smallest.to_dict("records"):
        x = row["items"] + nudge * (seeds[row["seed"]] - (len(seeds) - 1) / 2)
        if row["censored"]:
            style.not_reached(ax, x, color)
        else:
            ax.plot(x, row["value"] / unit, "o", color=color, ms=3.5, alpha=0.7, mew=0)
    fit = part[part["metric"].isin(["fit_slope", "fit_intercept", "fit_r2"])].set_index("metric")["value"]
    if len(fit) == 3 and np.isfinite(fit["fit_slope"]):
        x = np.array([known["items"].min(), known["items"].max()])
        ax.plot(x, (fit["fit_intercept"] + fit["fit_slope"] * x) / unit, color=style.INK, lw=0.9, ls=style.DASHED)
        r2 = f"R² = {fit['fit_r2']:.2f}" if np.isfinite(fit["fit_r2"]) else "R² not defined"
        ax.text(0.04, 0.96, r2, transform=ax.transAxes, va="top", fontsize=7)
    ax.set_xlabel("Training items N")
    ax.set_ylabel("Smallest model " + ("(M parameters)" if unit == 1e6 else "(k parameters)"))
    ax.set_title(f"EM ≥ {params.get('level', 0.95):g}")
