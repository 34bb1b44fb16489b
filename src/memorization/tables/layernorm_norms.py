"""The numbers behind the figures of paper `layernorm` about the norms: gradients at their inputs, and how far gains
and biases moved.
"""

from typing import Any

import numpy as np
import pandas as pd

from memorization.tables.common import pick, reads, some
from memorization.tables.layernorm_rows import fine_tuning, in_panels, of_experiments, on_clock, published

Params = dict[str, Any]
GRADIENTS = ["gradient_learning", "gradient_memorization"]
MOVED = ["gain_moved", "bias_moved"]
PLACE = ["experiment", "run", "model", "position", "data", "seed", "epoch", "budget", "layer", "role"]


def _gradients(metrics: pd.DataFrame, params: Params, figure: str) -> pd.DataFrame:
    """Gradient norms of intact models by layer and role, one definition of the norm (`params["definition"]`)."""
    rows = pick(fine_tuning(metrics, figure), metric=GRADIENTS, arm="none")
    if len(rows):
        rows = pick(rows, definition=params.get("definition", "text"))
        rows = of_experiments(rows, ["main"])
    rows = some(rows, figure, "gradients at the inputs of norms")
    return rows.assign(layer=rows["layer"].astype(int))[[*PLACE, "metric", "value", "n"]]


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]


def with_ratio(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Append `ratio`, learning over memorization within `keys`; left out where the latter is zero."""
    rows = rows.reset_index(drop=True)
    learn, memorize = (pick(rows, metric=name) for name in GRADIENTS)
    both = learn.merge(memorize[[*keys, "value"]], on=keys, suffixes=("", "_below"))
    both = both[both["value_below"] > 0]
    ratio = both.assign(metric="ratio", value=both["value"] / both["value_below"]).drop(columns="value_below")
    return pd.concat([rows, ratio], ignore_index=True)


def _with_depth(table: pd.DataFrame) -> pd.DataFrame:
    """Add `depth`, the place of a layer between the first (0) and the last (1) of its model."""
    last = table.groupby(["model", "source"])["layer"].transform("max")
    return table.assign(depth=table["layer"] / last.where(last > 0, 1))


def _paper_gradients(params: Params) -> pd.DataFrame:
    theirs = pick(published(params), metric=GRADIENTS)
    if theirs.empty:
        return theirs
    return with_ratio(theirs.assign(layer=theirs["layer"].astype(int)), ["model", "layer", "role"])


@reads(*GRADIENTS)
def fig4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Gradient norms by layer at the last evaluation and their ratio, one Pre-LN and one Post-LN model (Fig. 4)."""
    rows = with_ratio(_last(_gradients(metrics, params, "layernorm_fig4")), ["run", "layer", "role"])
    return _with_depth(in_panels(rows, _paper_gradients(params), params, "layernorm_fig4"))


@reads(*GRADIENTS)
def fig28_33(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The same for every model of ours, with the median ratio of every model, ours and the paper's (Fig. 28-33).

    `median_ratio` is over the norms before or after attention (role "attention"), as in the paper's logs.
    """
    rows = with_ratio(_last(_gradients(metrics, params, "layernorm_fig28_33")), ["run", "layer", "role"])
    theirs = _paper_gradients(params)
    every = pd.concat([rows.assign(source="ours"), theirs], ignore_index=True) if len(theirs) else rows
    every = every.assign(source="ours") if "source" not in every else every
    ratios = pick(every, metric="ratio", role="attention")
    keys = ["model", "position", "data", "seed", "source"]
    medians = ratios.groupby(keys, sort=False)["value"].median().reset_index()
    medians = medians.assign(metric="median_ratio", role="attention")
    table = pd.concat([rows.assign(source="ours"), medians], ignore_index=True)
    return _with_depth(table)


@reads(*GRADIENTS)
def fig35(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Gradient norms by layer over epochs (Fig. 35)."""
    rows = _gradients(metrics, params, "layernorm_fig35")
    return on_clock(in_panels(rows, published(params).iloc[:0], params, "layernorm_fig35"))


@reads(*MOVED, "cross_entropy", "accuracy", "unigram_entropy")
def x_norms(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """How far gains and biases moved in pre-training, and what stripping them does before any fine-tuning.

    Of a model that we pre-train: its last evaluation there, with the loss (or accuracy) by `stripped`. Of a public
    checkpoint: its gains and biases before the first step of fine-tuning.
    """
    figure = "layernorm_x_norms"
    rows = some(metrics, figure, "gains and biases of norms")
    if "stripped" not in rows:
        rows = rows.assign(stripped=None)
    first = pick(rows, stage="pretraining")
    first = first[first["step"] == first.groupby("run")["step"].transform("max")]
    last = first[first["metric"].isin(MOVED) | first["split"].eq("validation")]
    last = last.assign(stripped=last["stripped"].where(last["stripped"].notna(), "none"))
    # the entropy of the tokens is measured once, at whichever step
    entropy = pick(rows, stage="pretraining", metric="unigram_entropy").drop_duplicates("run")
    last = last[~last["metric"].eq("unigram_entropy")]
    public = pick(rows, stage="fine_tuning", start="public", arm="none", step=0, metric=MOVED)
    public = public.assign(stripped="none").drop_duplicates(["model", "seed", "metric", "subset", "layer", "role"])
    frames = [frame for frame in (last, entropy.assign(stripped=""), public) if len(frame)]
    table = some(pd.concat(frames, ignore_index=True) if frames else rows.iloc[:0], figure, "gains and biases of norms")
    moved = table["metric"].isin(MOVED)
    layer = table["layer"].where(moved, -1).fillna(-1).astype(int)
    kept = ["experiment", "run", "model", "position", "data", "start", "seed", "step", "stage", "role", "stripped"]
    table = table.assign(layer=layer, role=table["role"].where(moved, ""))
    return table[[*kept, "layer", "metric", "value", "n"]].replace({"value": {np.inf: np.nan}}).assign(source="ours")
