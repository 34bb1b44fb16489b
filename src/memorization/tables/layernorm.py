"""The numbers behind each figure of paper `layernorm`: one function per figure, named as the figure without its prefix.

Every function takes `(metrics, items, params)` and returns a tidy table with one row per plotted mark and seed. Which
of our models stands in the panel of which model of the paper is in `params["shown"]`; at which epoch a run is read is
in `memorization.tables.readings`. Gradients and gains are in `memorization.tables.layernorm_norms`.
"""

from typing import Any

import pandas as pd

from memorization.tables.common import pick, reads, some
from memorization.tables.layernorm_norms import fig4, fig28_33, fig35, x_norms
from memorization.tables.layernorm_rows import (
    CONTRASTED,
    OUTCOMES,
    PAPER_BUDGET,
    changes,
    fine_tuning,
    in_panels,
    matched_epochs,
    of_experiments,
    on_clock,
    published,
    states,
    states_at,
    states_at_readings,
    with_paper,
)

__all__ = [
    "fig1",
    "fig2",
    "fig3",
    "fig4",
    "fig6_11",
    "fig12_16",
    "fig17_22",
    "fig23_27",
    "fig28_33",
    "fig34",
    "fig35",
    "tab1",
    "tab4",
    "tab5",
    "tab6",
    "x_budget",
    "x_norms",
    "x_readings",
    "x_scratch",
]
Params = dict[str, Any]
STATE = ("accuracy", "memorization", "recovery", "random")
PAIR = ["none", "all"]
THIRDS = ["none", "early", "middle", "late", "all"]
LEARNED = ["test_accuracy", *OUTCOMES]
SHOWN = ["test_accuracy", *OUTCOMES, "gap"]


# ------------------------------------------------------------------------------------------------------------
# Intact against removed


@reads(*STATE)
def fig1(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Test accuracy and outcomes of the noisy items, intact and removed, at the budget of the position (Fig. 1)."""
    rows = of_experiments(fine_tuning(metrics, "layernorm_fig1"), ["main", "checkpoint"])
    table = pick(states_at(rows, "budget", params), metric=LEARNED, arm=PAIR)
    return with_paper(table, pick(published(params), metric=LEARNED, arm=PAIR))


def _trajectories(metrics: pd.DataFrame, params: Params, figure: str) -> pd.DataFrame:
    """States over epochs of the two arms, a panel a model of the paper."""
    rows = of_experiments(pick(fine_tuning(metrics, figure), arm=PAIR), ["main", "checkpoint"])
    table = in_panels(states(rows), published(params), params, figure)
    return on_clock(pick(table, metric=SHOWN, arm=PAIR))


@reads(*STATE)
def fig2(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Trajectories of one Pre-LN and one Post-LN model (Fig. 2)."""
    return _trajectories(metrics, params, "layernorm_fig2")


@reads(*STATE)
def fig6_11(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Trajectories of the other Pre-LN models (Fig. 6-11)."""
    return _trajectories(metrics, params, "layernorm_fig6_11")


@reads(*STATE)
def fig12_16(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Trajectories of the other Post-LN models (Fig. 12-16)."""
    return _trajectories(metrics, params, "layernorm_fig12_16")


@reads("loss")
def fig34(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Train and test loss over epochs, intact and removed, nats (Fig. 34)."""
    rows = pick(fine_tuning(metrics, "layernorm_fig34"), arm=PAIR)
    return on_clock(in_panels(states(rows), published(params), params, "layernorm_fig34"))


# ------------------------------------------------------------------------------------------------------------
# Thirds


def _thirds(metrics: pd.DataFrame, params: Params, figure: str) -> pd.DataFrame:
    """States at the budget for the arms in which a third, all or none of the norms are stripped."""
    rows = of_experiments(fine_tuning(metrics, figure), ["main", "checkpoint"])
    theirs = published(params)
    if len(theirs):  # a figure of trajectories may share these rows
        theirs = theirs[theirs["epoch"] == theirs["budget"]]
    table = in_panels(states_at(rows, "budget", params), theirs, params, figure)
    return pick(table, metric=SHOWN, arm=THIRDS)


@reads(*STATE)
def fig3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Early, middle and late norms stripped, one Pre-LN and one Post-LN model (Fig. 3)."""
    return _thirds(metrics, params, "layernorm_fig3")


@reads(*STATE)
def fig17_22(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Early, middle and late norms stripped, the other Pre-LN models (Fig. 17-22)."""
    return _thirds(metrics, params, "layernorm_fig17_22")


@reads(*STATE)
def fig23_27(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Early, middle and late norms stripped, the other Post-LN models (Fig. 23-27)."""
    return _thirds(metrics, params, "layernorm_fig23_27")


# ------------------------------------------------------------------------------------------------------------
# Tables of the paper


@reads(*STATE)
def tab1(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Change from intact to removed at the three readings, paired by seed, beside the paper's sign (Table 1).

    Rows of the paper have model "pre" or "post" and the sign of the claimed change: 1, 0 (stays) or -1.
    """
    rows = of_experiments(pick(fine_tuning(metrics, "layernorm_tab1"), arm=PAIR), ["main", "checkpoint"])
    table = pick(states_at_readings(rows, params), metric=["test_accuracy", "memorization", "gap"])
    table = changes(table, ["model", "seed", "reading", "metric"])
    return with_paper(some(table, "layernorm_tab1", "pairs of intact and stripped runs"), published(params))


def _variants(metrics: pd.DataFrame, params: Params, figure: str, experiment: str) -> pd.DataFrame:
    """States at the budget of the models of an experiment, and of the same models in `main`, intact and removed."""
    rows = fine_tuning(metrics, figure)
    models = some(pick(rows, experiment=experiment), figure, f"runs of experiment {experiment}")["model"].unique()
    rows = of_experiments(pick(rows, arm=PAIR, model=list(models)), ["main", experiment])
    table = pick(states_at(rows, "budget", params), metric=LEARNED)
    return with_paper(table, pick(published(params), metric=LEARNED))


@reads(*STATE)
def tab4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Other shares of mislabelled items (Table 4)."""
    return _variants(metrics, params, "layernorm_tab4", "noise")


@reads(*STATE)
def tab5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Fine-tuning with Muon, and with AdamW beside it (Table 5)."""
    return _variants(metrics, params, "layernorm_tab5", "muon")


@reads(*STATE)
def tab6(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The class named by the next token, and by a classifier beside it (Table 6)."""
    return _variants(metrics, params, "layernorm_tab6", "label_word")


# ------------------------------------------------------------------------------------------------------------
# Beyond the paper


@reads(*STATE)
def x_budget(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Change from intact to removed against epochs, and at the three readings.

    `share` is the epoch in units of the longest training, which is the Pre-LN budget; rows of a reading have it in
    `reading`, those of a curve "". `matched` compares two runs at epochs of their own; its `share` is the mean of
    the two. Models of the paper are kept whose logs of both arms reach the budget of their position.
    """
    figure = "layernorm_x_budget"
    rows = of_experiments(pick(fine_tuning(metrics, figure), arm=PAIR), ["main", "checkpoint"])
    longest = rows.groupby("model")["epoch"].max()
    curve = changes(pick(states(rows), metric=CONTRASTED), ["model", "seed", "epoch", "metric"]).assign(reading="")
    marks = pick(states_at_readings(rows, params), metric=CONTRASTED, reading=["budget", "equal"])
    marks = changes(marks, ["model", "seed", "reading", "metric"])
    when = rows[["run", "model", "seed", "arm"]].drop_duplicates()
    when = when.assign(when=when["run"].map(matched_epochs(rows, params)))
    middle = when.groupby(["model", "seed"])["when"].mean().rename("epoch").reset_index()
    at_level = changes(
        pick(states_at(rows, "matched", params), metric=CONTRASTED), ["model", "seed", "reading", "metric"]
    )
    at_level = at_level.drop(columns="epoch").merge(middle, on=["model", "seed"])
    table = pd.concat([curve, marks, at_level], ignore_index=True)
    table = table.assign(share=table["epoch"] / table["model"].map(longest))
    theirs = pick(published(params), arm=PAIR)
    if len(theirs):
        theirs = changes(
            pick(theirs, metric=CONTRASTED).assign(experiment="paper"), ["model", "seed", "epoch", "metric"]
        )
        far = theirs.groupby("model")["epoch"].transform("max") >= theirs["budget"]
        theirs = theirs[far].assign(reading="", source="paper", share=theirs["epoch"] / max(PAPER_BUDGET.values()))
    return with_paper(table, theirs.drop(columns="experiment", errors="ignore"))


@reads(*STATE)
def x_readings(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """States of every model and arm at the three readings, with the epoch of each."""
    rows = of_experiments(fine_tuning(metrics, "layernorm_x_readings"), ["main", "checkpoint"])
    table = states_at_readings(rows, params)
    return with_paper(pick(table, metric=[*SHOWN, "train_accuracy", "epoch_reached"]), published(params))


@reads(*STATE)
def x_scratch(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Intact and removed with and without pre-training, at the budget; `start` tells the two apart."""
    figure = "layernorm_x_scratch"
    rows = fine_tuning(metrics, figure)
    models = some(pick(rows, experiment="scratch"), figure, "runs of experiment scratch")["model"].unique()
    rows = of_experiments(pick(rows, arm=PAIR, model=list(models)), ["main", "scratch"])
    return with_paper(pick(states_at(rows, "budget", params), metric=SHOWN), published(params))
