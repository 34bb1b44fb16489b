"""What the tables of paper `layernorm` share: states of fine-tuning runs, models beside those of the paper, contrasts.

A state is what a run shows at one evaluation, one row a quantity. Fractions stay fractions; figures turn them into
percent. Rows of the paper have `source` "paper" and seed -1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from memorization.tables.common import pick, some
from memorization.tables.readings import READINGS, Reading, at_reading, reading_epochs

Params = dict[str, Any]
RUN = [
    "experiment", "run", "model", "position", "data", "arm", "noise", "optimizer", "form", "start", "seed", "epoch",
    "budget",
]  # fmt: skip
STATE = [*RUN, "metric", "value", "n"]
OUTCOMES = ["memorization", "recovery", "random"]
CONTRASTED = ["test_accuracy", *OUTCOMES, "gap"]
# Epochs after which the paper reads each position (appendix F.3); only the longer one is a round for both.
PAPER_BUDGET = {"post": 40, "pre": 70}
# The table of the paper has no runs: these columns are empty there.
NAMES = {
    ("accuracy", "validation"): "test_accuracy",
    ("accuracy", "train"): "train_accuracy",
    ("loss", "validation"): "test_loss",
    ("loss", "train"): "train_loss",
}


# ------------------------------------------------------------------------------------------------------------
# Our rows


def fine_tuning(metrics: pd.DataFrame, figure: str, what: str = "fine-tuning runs") -> pd.DataFrame:
    """Rows measured while models are fine-tuned; a `UserError` if there are none."""
    rows = pick(metrics, stage="fine_tuning") if len(metrics) else metrics
    return some(rows, figure, what)


def states(rows: pd.DataFrame) -> pd.DataFrame:
    """States of runs in the columns STATE: accuracies and losses by split, outcomes of the noisy items, and the gap.

    `gap` is accuracy on the (noisy) training items minus accuracy on the test items at the same evaluation.
    """
    pairs = list(zip(rows["metric"], rows["split"], strict=True))
    names = pd.Series([NAMES.get(pair, pair[0]) for pair in pairs], index=rows.index, dtype=object)
    whole = rows["metric"].isin(["accuracy", "loss"]) & ~rows["subset"].eq("noisy")
    rows = rows.assign(metric=names)[whole | rows["metric"].isin(OUTCOMES)][STATE]
    train, test = pick(rows, metric="train_accuracy"), pick(rows, metric="test_accuracy")
    both = train.merge(test[["experiment", "run", "epoch", "value"]], on=["experiment", "run", "epoch"])
    gap = both.assign(metric="gap", value=both["value_x"] - both["value_y"])[STATE]
    return pd.concat([rows, gap], ignore_index=True)


def states_at(rows: pd.DataFrame, reading: Reading, params: Params) -> pd.DataFrame:
    """States of every run at its epoch of a reading; `params["level"]` is the training accuracy of `matched`."""
    return states(at_reading(rows, reading, params.get("level", 0.95))).assign(reading=reading)


def states_at_readings(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """States at all three readings, with the epoch of each as metric `epoch_reached`."""
    found = []
    for reading in READINGS:
        table = states_at(rows, reading, params)
        once = table.drop_duplicates(["experiment", "run"])
        epochs = once.assign(metric="epoch_reached", value=once["epoch"].astype(float), n=1)
        found += [table, epochs]
    return pd.concat(found, ignore_index=True)


def on_clock(table: pd.DataFrame) -> pd.DataFrame:
    """Add `share`: the epoch in units of the budget of the model's position."""
    return table.assign(share=table["epoch"] / table["budget"])


def changes(table: pd.DataFrame, keys: Sequence[str], before: str = "none", after: str = "all") -> pd.DataFrame:
    """Value of arm `after` minus that of arm `before`, paired within `keys`; pairs of which one lacks are left out.

    `keys` must name the seed. Columns that the two arms share (position, data, budget) are kept.
    """
    kept = [c for c in table.columns if c not in {"arm", "run", "value", "n", "experiment", *keys}]
    left, right = pick(table, arm=before), pick(table, arm=after)
    both = right.merge(left[[*keys, "value"]], on=list(keys), suffixes=("", "_before"))
    both = both.assign(value=both["value"] - both["value_before"], arm=f"{before}->{after}")
    return both[[*keys, *kept, "experiment", "arm", "value", "n"]].drop_duplicates([*keys])


def of_experiments(rows: pd.DataFrame, first: Sequence[str]) -> pd.DataFrame:
    """Rows with a run shared by several experiments kept once, under the first of `first` that has it."""
    rank = {name: k for k, name in enumerate(first)}
    ordered = rows.assign(rank=rows["experiment"].map(rank).fillna(len(rank)))
    least = ordered.groupby("run")["rank"].transform("min")
    return ordered[ordered["rank"] == least].drop(columns="rank")


# ------------------------------------------------------------------------------------------------------------
# Beside the paper


def published(params: Params) -> pd.DataFrame:
    """The paper's rows of a figure in our units, empty where it has none; `model` is the paper's model."""
    theirs = params.get("published")
    columns = ["model", "position", "data", "arm", "noise", "epoch", "layer", "role", "metric", "value", "n"]
    if theirs is None or theirs.empty:
        return pd.DataFrame(columns=[*columns, "budget", "source", "seed"])
    rows = pd.DataFrame(
        {
            **{c: theirs[c] for c in ("model", "position", "data", "arm", "noise", "epoch", "layer", "role", "metric")},
            "value": theirs["value"] / np.where(theirs["unit"] == "percent", 100, 1),
            "n": theirs["seeds"],
        }
    )
    rows = rows.assign(budget=rows["position"].map(PAPER_BUDGET).astype(float), source="paper", seed=-1)
    train, test = pick(rows, metric="train_accuracy"), pick(rows, metric="test_accuracy")
    keys = ["model", "arm", "noise", "epoch"]
    both = train.merge(test[[*keys, "value"]], on=keys)
    gap = both.assign(metric="gap", value=both["value_x"] - both["value_y"]).drop(columns=["value_x", "value_y"])
    return pd.concat([rows, gap], ignore_index=True) if len(gap) else rows


def with_paper(table: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Append rows of the paper to ours (source "ours")."""
    table = table.assign(source="ours")
    return pd.concat([table, theirs], ignore_index=True) if len(theirs) else table


def panels(rows: pd.DataFrame, params: Params) -> dict[str, str]:
    """Which of our models is drawn in the panel of each model of the paper: the paper's name -> ours, "" for none.

    `params["shown"]` names them. A model of ours with the paper's own name is preferred. With `params["position"]`
    every further model of that position in experiment `checkpoint` has a panel of its own.
    """
    mine = set(rows["model"])
    found = {}
    for name, drawn in params["shown"].items():
        found[name] = name if name in mine else drawn if drawn in mine else ""
    if params.get("position"):
        more = pick(rows, experiment="checkpoint", position=params["position"])["model"]
        found |= {name: name for name in more.drop_duplicates() if name not in found}
    return found


def in_panels(table: pd.DataFrame, theirs: pd.DataFrame, params: Params, figure: str) -> pd.DataFrame:
    """Our rows of each panel followed by the paper's; `panel` is the paper's model, `model` the one that is drawn."""
    frames = []
    for name, drawn in panels(table, params).items():
        frames.append(pick(table, model=drawn).assign(panel=name, source="ours"))
        if len(theirs):
            frames.append(pick(theirs, model=name).assign(panel=name))
    frames = [frame for frame in frames if len(frame)]
    return some(pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(), figure, "models that it shows")


def matched_epochs(rows: pd.DataFrame, params: Params) -> pd.Series:
    """Epoch at which every run first has training accuracy `params["level"]`, NaN where never; by run."""
    return reading_epochs(rows, "matched", params.get("level", 0.95))
