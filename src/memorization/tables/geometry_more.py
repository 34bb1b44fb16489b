"""The numbers behind the robustness figures and the tables of paper `geometry`: layers, probes, data sets, spectra.

Each figure of a choice holds RankMe and alpha over pre-training for every value of that choice, among them the default
of the basic measurement. Rows have `tokens`, the training tokens that a model has seen.
"""

from typing import Any

import numpy as np
import pandas as pd

from memorization.tables.common import pick, reads, some
from memorization.tables.geometry_rows import curves

Params = dict[str, Any]
CHOICES = ["layer", "token", "sequences", "length", "centred", "window"]
MARK = ["choice", "model", "width", "seed", "step", "tokens", "subset", *CHOICES, "metric", "value"]
# Suffix lengths as the paper groups them, and its first group one by one. The last length of the paper's rows is 9.
SHORT, LONG = 3, 8
BINS = [*(str(n) for n in range(SHORT + 1)), f"<={SHORT}", *(str(n) for n in range(SHORT + 1, LONG + 1)), f">{LONG}"]
CHANGED = ["none", "drop_top", "keep_top"]


# ------------------------------------------------------------------------------------------------------------
# Choices of the probe


def family(metrics: pd.DataFrame, figure: str, choices: list[str]) -> pd.DataFrame:
    """RankMe and alpha over pre-training for every value of some choices, a row a model, seed, evaluation and value.

    Variants of the study of the third phase are left out.
    """
    rows = curves(metrics, ["rank_me", "alpha"], choice=choices, variant="base")
    return some(rows, figure, f"choice {' or '.join(choices)}").reindex(columns=MARK).assign(source="ours")


@reads("rank_me", "alpha")
def fig7(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe and alpha of every layer over pre-training; layer 0 is the embeddings (Fig. 7)."""
    return family(metrics, "geometry_fig7", ["layer"])


@reads("rank_me", "alpha")
def fig8(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe and alpha over pre-training by number of sequences of the probe, and by their length (Fig. 8)."""
    return family(metrics, "geometry_fig8", ["sequences", "length"])


@reads("rank_me", "alpha")
def fig9_10(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe and alpha over pre-training by data set of the probe (Fig. 9, 10)."""
    return family(metrics, "geometry_fig9_10", ["data"])


@reads("rank_me", "alpha")
def x_choices(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe and alpha over pre-training with and without centring, by token, and alpha by its window of ranks."""
    table = family(metrics, "geometry_x_choices", ["centring", "token", "window"])
    return table[~(table["choice"].eq("window") & table["metric"].eq("rank_me"))].reset_index(drop=True)


# ------------------------------------------------------------------------------------------------------------
# Tables


def binned(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of the answer tokens in the BINS of the suffix length, a row a subset, seed and bin; absent lengths are 0.

    `rows` has a row a subset, seed and length with the share in `value`. The bin "<=3" is the sum of 0 to 3.
    """
    lengths = rows["suffix_length"].astype(int).clip(upper=LONG + 1)
    names = lengths.astype(str).where(lengths <= LONG, f">{LONG}")
    short = rows[lengths <= SHORT].assign(bin=f"<={SHORT}")
    both = pd.concat([rows.assign(bin=names), short])
    shares = both.pivot_table(index=["subset", "seed"], columns="bin", values="value", aggfunc="sum")
    return shares.reindex(columns=BINS).fillna(0.0).melt(ignore_index=False, var_name="bin").reset_index()


@reads("suffix_length_share")
def tab7(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Share of answer tokens by the length of the suffix that the infini-gram model uses, beside the paper's (Table 7).

    The paper's first bin holds lengths of three or fewer, its last those above eight.
    """
    rows = pick(metrics, experiment="ngrams") if len(metrics) else metrics
    table = binned(some(rows, "geometry_tab7", "experiment ngrams")).assign(source="ours")
    theirs = params.get("published")
    if theirs is None or theirs.empty:
        return table
    names = {SHORT: f"<={SHORT}", LONG + 1: f">{LONG}"}
    lengths = theirs["suffix_length"].astype(int)
    paper = pd.DataFrame(
        {
            "subset": theirs["subset"], "seed": -1, "bin": lengths.map(names).fillna(lengths.astype(str)),
            "value": theirs["value"] / np.where(theirs["unit"].eq("percent"), 100, 1), "source": "paper",
        }
    )  # fmt: skip
    return pd.concat([table, paper], ignore_index=True)


@reads("choice_accuracy", "recall")
def tab8(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Accuracy at the end of pre-training without and with the top-k principal components (Table 8).

    `intervention` is "none", "drop_top" (removed) or "keep_top" (only these retained), `components` is k and `place`
    counts a model's k from small to large, from 1; it is 0 without intervention. `share` is k over the width.
    """
    figure = "geometry_tab8"
    rows = curves(metrics, ["choice_accuracy", "recall"], variant="base", intervention=CHANGED)
    last = some(rows, figure, "spectral interventions").groupby(["model", "seed"])["tokens"].transform("max")
    columns = ["model", "width", "seed", "subset", "metric", "intervention", "components", "value"]
    table = rows.loc[rows["tokens"].eq(last), columns].assign(source="ours")
    theirs = params.get("published")
    if theirs is not None and len(theirs):
        paper = theirs.reindex(columns=columns).assign(seed=-1, source="paper")
        paper["value"] = theirs["value"] / np.where(theirs["unit"].eq("percent"), 100, 1)
        table = pd.concat([table, paper], ignore_index=True)
    table["components"] = table["components"].fillna(0).astype(int)
    changed = table["intervention"] != "none"
    ranks = table[changed].groupby(["source", "model"])["components"].rank("dense")
    table["place"] = ranks.reindex(table.index).fillna(0).astype(int)
    return table.assign(share=table["components"] / table["width"])
