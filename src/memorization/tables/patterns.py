"""The numbers behind each figure of paper `patterns`: one function per figure, named as the figure without
its prefix.

Every function takes `(metrics, items, params)`, the concatenated run tables of the figure's experiments and
the figure's parameters, and returns a tidy table with one row per plotted mark and seed. `seed` is -1 on rows
that belong to no single seed (pooled fits, the paper's own values).
"""

import re
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError
from memorization.tables.common import (
    CONDITION,
    ITEM,
    RUN,
    at_default_lengths,
    carry_forward,
    each_run_once,
    first_events,
    forgettings,
    item_histories,
    last_values,
    linear_fit,
    minimal_models,
    pick,
    reads,
    some,
    times_to_levels,
    whole_set,
    with_published,
)

Params = dict[str, Any]
SERIES = [*RUN, "subset", "split", "metric"]
KEPT = [*SERIES, "step", "epoch", "value", "n", "carried"]
SCORES = ["exact_match", "bleu1", "bleu2", "bleu3", "bleu4", "bleu_cumulative", "meteor", "jaccard"]
OVERLAPS = ["bleu1", "bleu2", "bleu3", "bleu4", "bleu_cumulative", "jaccard"]
RECENCY = ["newly_memorized", "newly_in_batch", "batch_items"]


def _curves(metrics: pd.DataFrame, pooled: bool = True, extra: tuple[str, ...] = ()) -> pd.DataFrame:
    """Curves on one grid of steps a condition; `pooled`: one a run, else one a part of the mixture."""
    rows = at_default_lengths(metrics)
    rows = whole_set(rows) if pooled else rows[rows["subset"] != "all"]
    group = [*CONDITION, "subset", "split", "metric", *extra]
    return carry_forward(rows, group, ["run"])[[*KEPT, *extra]]


def _stack(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables under each other; a flag that one of them lacks is False there."""
    table = pd.concat(tables, ignore_index=True)
    flags = [flag for flag in ("carried", "censored") if flag in table]
    return table.assign(**{flag: table[flag].eq(True) for flag in flags})


def _per_run(rows: pd.DataFrame, metric: str, values: pd.Series, n: pd.Series | int) -> pd.DataFrame:
    return rows[RUN].assign(metric=metric, value=values.to_numpy(), n=n)


def digit_share(data: str) -> float:
    """Share of random digits in a text/digits mixture, read from its name: text75_digits25 -> 0.25."""
    found = re.fullmatch(r"text(\d+)_digits(\d+)", data)
    if not found:
        raise UserError(
            f"Mixture {data!r} does not say its shares: name it text<percent>_digits<percent>, like text75_digits25."
        )
    text, digits = map(int, found.groups())
    return digits / (text + digits)


# ------------------------------------------------------------------------------------------------------------
# R1: not accumulation, not recency


@reads("exact_match", "loss")
def fig1(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM and train loss against epochs for the smallest and largest model that saw the same number of items
    (Fig. 1).

    Also holds the epochs to EM 0.8 and 1 (`metric` "epochs_to_level"), which the paper's headline compares.
    """
    rows = pick(each_run_once(metrics), data=params.get("data", "text"), split="train")
    rows = some(rows, "patterns_fig1", "text runs")
    sizes = rows.groupby("items")["model"].nunique()
    number = params.get("items") or sizes[sizes == sizes.max()].index.max()
    rows = some(rows[rows["items"] == number], "patterns_fig1", f"text runs with {number} items")
    rows = rows[rows["parameters"].isin([rows["parameters"].min(), rows["parameters"].max()])]
    curves = _curves(rows)
    levels = params.get("levels", [0.8, 1.0])
    return _stack(curves, times_to_levels(pick(curves, metric="exact_match"), levels, SERIES[:-1]))


@reads("exact_match", items=("exact_match",))
def tab1(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Mean number of times an item is forgotten, per pairing of data and model size (Table 1)."""
    history = some(item_histories(items, metrics), "patterns_tab1", "item exact match")
    counts = forgettings(pick(history, data=params.get("data", "text")))
    counts = some(counts, "patterns_tab1", "item exact match of text runs")
    table = counts.groupby(RUN, sort=False)["value"].agg(value="mean", n="size").reset_index()
    table["metric"] = "forgettings_per_item"
    return with_published(table, params.get("published"), ["data", "model", "items", "metric"])


@reads(*RECENCY)
def tab2(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Overlap of newly memorized items and the last batch, with the level expected by chance (Table 2).

    Pooled over the steps at which something was newly memorized. If membership of the batch did not matter, a
    share |B|/N of the new items would be in it, and a share |New|/N of the batch would be new.
    """
    rows = pick(metrics, data=params.get("data", "text"), metric=RECENCY)
    rows = some(rows, "patterns_tab2", "newly memorized counts")
    wide = rows.pivot_table(index=[*RUN, "step"], columns="metric", values="value").reset_index()
    wide = wide[wide["newly_memorized"] > 0]
    wide["both_by_chance"] = wide["newly_memorized"] * wide["batch_items"] / wide["items"]
    sums = wide.groupby(RUN, sort=False)[[*RECENCY, "both_by_chance"]].sum().reset_index()
    events = sums["newly_memorized"].astype(int)
    table = pd.concat(
        [
            _per_run(sums, f"{name}{chance}", 100 * sums[both] / sums[whole], events)
            for name, whole in (("new_in_batch", "newly_memorized"), ("batch_new", "batch_items"))
            for chance, both in (("", "newly_in_batch"), ("_by_chance", "both_by_chance"))
        ]
        + [_per_run(sums, "new_items", sums["newly_memorized"], events)],
        ignore_index=True,
    )
    return with_published(table, params.get("published"), ["data", "model", "items", "metric"])


# ------------------------------------------------------------------------------------------------------------
# R2: every data set has its own curve


def _at_equal_time(curves: pd.DataFrame, reference: str, level: float) -> pd.DataFrame:
    """EM of every run when the reference set of the same model, N and seed reaches `level`, and at the end.

    If the reference never gets there, its last step is used. Without a reference run only the end is known.
    """
    rows = []
    for _, part in curves.groupby(["model", "items", "seed"], sort=False):
        base = part[part["data"] == reference]
        reached = base.loc[base["value"] >= level - 1e-9, "step"]
        time = reached.min() if len(reached) else base["step"].max()
        for _, curve in part.groupby("run", sort=False):
            end = curve.loc[[curve["step"].idxmax()]]
            rows.append(end.assign(metric="exact_match_at_end"))
            if not base.empty:
                then = curve[curve["step"] <= time]
                rows.append(curve.loc[[then["step"].idxmax()]].assign(metric="exact_match_at_equal_time"))
    return pd.concat(rows, ignore_index=True)[[*RUN, "metric", "step", "epoch", "value", "n"]]


def _shuffle_table(metrics: pd.DataFrame, params: Params, figure: str, sets: list[str] | None) -> pd.DataFrame:
    rows = some(pick(metrics, data=sets, metric="exact_match", split="train"), figure, "exact match")
    reference, level = params.get("reference", "text"), params.get("level", 0.95)
    table = _at_equal_time(_curves(rows), reference, level)
    return with_published(table, params.get("published"), ["data", "model", "items", "metric"])


@reads("exact_match")
def tab3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM of text and of its word-shuffled twin after equal training time, per pairing (Table 3)."""
    return _shuffle_table(metrics, params, "patterns_tab3", ["text", "text_words"])


@reads("exact_match")
def tab5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM after equal training time for every degree of shuffling (Table 5)."""
    return _shuffle_table(metrics, params, "patterns_tab5", None)


@reads("exact_match")
def fig2a(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM against epochs, one curve a data set trained alone (Fig. 2a), and epochs to a few EM levels."""
    rows = some(pick(metrics, metric="exact_match", split="train"), "patterns_fig2a", "exact match")
    curves = _curves(rows)
    return _stack(curves, times_to_levels(curves, params.get("levels", [0.1, 0.5, 0.95]), SERIES[:-1]))


@reads("exact_match")
def fig2b(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Epochs at which each part of the four-set mixture reaches several EM levels (Fig. 2b)."""
    rows = some(pick(metrics, metric="exact_match", split="train"), "patterns_fig2b", "exact match")
    levels = params.get("levels", [0.1, 0.25, 0.5, 0.75, 0.95])
    return times_to_levels(_curves(rows, pooled=False), levels, SERIES[:-1])


@reads("exact_match", "loss")
def fig3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM of the parts of the text/digits mixtures, and EM and train loss of the whole, per digit share (Fig.
    3).
    """
    rows = some(pick(metrics, metric=["exact_match", "loss"], split="train"), "patterns_fig3", "exact match")
    parts = pick(_curves(rows, pooled=False), metric="exact_match")
    table = pd.concat([parts, _curves(rows)], ignore_index=True)
    table = table.drop_duplicates(["experiment", "run", "subset", "metric", "step"])
    return table.assign(digit_share=table["data"].map(digit_share))


@reads("exact_match")
def figB2(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Epochs to two EM levels against jump probability, letters a jump and look-back distance (App. B.2)."""
    rows = some(pick(metrics, metric="exact_match", split="train"), "patterns_figB2", "exact match")
    extra = ("option", "option_value")
    curves = _curves(rows, extra=extra)
    return times_to_levels(curves, params.get("levels", [0.5, 0.95]), [*SERIES[:-1], *extra])


# ------------------------------------------------------------------------------------------------------------
# R3: generalization


@reads("exact_match")
def tab_generalization(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Train and validation EM at the end of the run, and the best validation EM on the way (Sec. 4.3)."""
    rows = some(pick(metrics, metric="exact_match"), "patterns_tab_generalization", "exact match")
    curves = _curves(each_run_once(rows))
    end = last_values(curves, SERIES)
    end = end.assign(metric=end["split"].map({"train": "train_end", "validation": "validation_end"}))
    validation = pick(curves, split="validation")
    best = validation.loc[validation.groupby(SERIES)["value"].idxmax()].assign(metric="validation_best")
    table = pd.concat([end, best], ignore_index=True).drop(columns="carried")
    return with_published(table, params.get("published"), ["data", "model", "items", "metric"])


@reads("adherence")
def tab_adherence(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Share of bigrams that follow the increment rule in completions of unseen MIJ prompts (Sec. 4.3); chance
    0.1.
    """
    rows = pick(metrics, metric="adherence", data=params.get("data", "mij"))
    rows = some(each_run_once(rows), "patterns_tab_adherence", "adherence of MIJ runs")
    table = last_values(whole_set(rows), ["run"])[[*RUN, "metric", "step", "epoch", "value", "n"]]
    table = table.assign(chance=params.get("chance", 0.1))
    return with_published(table, params.get("published"), ["data", "model", "items", "metric"])


# ------------------------------------------------------------------------------------------------------------
# R4: overthinking


@reads("exact_match")
def fig4(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM against epochs for the smallest and the largest model of every data set (Fig. 4), and epochs to a
    few levels.
    """
    rows = some(pick(metrics, metric="exact_match", split="train"), "patterns_fig4", "exact match")
    rows = each_run_once(rows)
    shared = rows.groupby("data")["parameters"].transform("nunique") > 1
    rows = some(rows[shared], "patterns_fig4", "exact match of one data set at two model sizes")
    by_data = rows.groupby("data")["parameters"]
    smallest, largest = by_data.transform("min"), by_data.transform("max")
    rows = rows[(rows["parameters"] == smallest) | (rows["parameters"] == largest)]
    curves = _curves(rows)
    table = _stack(curves, times_to_levels(curves, params.get("levels", [0.5, 0.95]), SERIES[:-1]))
    size = table.groupby("data")["parameters"].transform("min")
    return table.assign(role=np.where(table["parameters"] == size, "small", "large"))


# ------------------------------------------------------------------------------------------------------------
# Set-up and robustness


@reads(items=("length",))
def fig5(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """How many training items have which length (Fig. 5); the lengths of one run per data set."""
    rows = some(pick(items, metric="length", split="train"), "patterns_fig5", "item lengths")
    one = rows.groupby("data")["run"].transform("first")
    counts = rows[rows["run"] == one].groupby(["data", "value"])["item"].count().reset_index()
    return counts.rename(columns={"value": "length", "item": "value"}).assign(metric="items", seed=-1)


@reads()
def fig6(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Depth, width and non-embedding parameters of our models (`params["models"]`: name -> layers, width) and
    the paper's (Fig. 6).
    """
    ours = [{**size, "model": model, "source": "ours"} for model, size in (params.get("models") or {}).items()]
    table = pd.DataFrame(ours, columns=["model", "layers", "width", "source"])
    theirs = params.get("published")
    if theirs is not None and len(theirs):
        wide = theirs.pivot(index="model", columns="metric", values="value").reset_index()
        table = pd.concat([table, wide[["model", "layers", "width"]].assign(source="paper")])
    table = some(table, "patterns_fig6", "models").astype({"layers": int, "width": int})
    parameters = 12 * table["layers"] * table["width"] ** 2
    return table.assign(parameters=parameters, metric="non_embedding_parameters", value=parameters.astype(float))


@reads("exact_match")
def fig8(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """EM against epochs for every pair of prompt and completion length (Fig. 7 and 8)."""
    rows = pick(metrics, data=params.get("data", "text"), metric="exact_match", split="train")
    rows = whole_set(some(rows, "patterns_fig8", "exact match"))
    lengths = ["prompt_length", "completion_length"]
    table = carry_forward(rows, [*CONDITION, *lengths], ["run"])
    default = table["prompt_length"].eq(table["default_prompt_length"])
    default &= table["completion_length"].eq(table["default_completion_length"])
    return table[[*KEPT, *lengths]].assign(default=default)


@reads(*SCORES, "loss")
def fig9(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Every metric against epochs (Fig. 9): scores of the completion, loss on train and validation items."""
    rows = pick(metrics, data=params.get("data", "text"), metric=[*SCORES, "loss"])
    return _curves(some(rows, "patterns_fig9", "scores and losses"))


@reads("exact_match", "loss")
def fig10(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Best EM and final train loss over model size and data size, and the smallest model that memorizes N
    items (Fig. 10).

    Rows of `metric` max_exact_match, final_loss, minimal_parameters (per seed) and fit_slope, fit_intercept,
    fit_r2 (over all seeds, `n` points: with two different N a line fits perfectly and R squared means
    nothing).
    """
    rows = pick(metrics, metric=["exact_match", "loss"], split="train")
    curves = _curves(some(rows, "patterns_fig10", "exact match and loss"))
    exact = pick(curves, metric="exact_match")
    best = exact.loc[exact.groupby("run")["value"].idxmax()].assign(metric="max_exact_match")
    loss = last_values(pick(curves, metric="loss"), ["run"]).assign(metric="final_loss")
    smallest = minimal_models(best, params.get("level", 0.95), ["data", "items", "seed"])
    smallest = smallest.assign(metric="minimal_parameters", parameters=smallest["value"])
    fits = []
    for data, part in smallest.groupby("data"):
        known = part[~part["censored"]]
        fit = linear_fit(known["items"].to_numpy(float), known["value"].to_numpy(float))
        names = ["fit_slope", "fit_intercept", "fit_r2"]
        points = known["items"].nunique()
        fits.append(pd.DataFrame({"data": data, "seed": -1, "metric": names, "value": fit, "n": points}))
    return _stack(best, loss, smallest, *fits).drop(columns="carried")


def _event_histogram(history: pd.DataFrame, buckets: int, extra: list[str]) -> pd.DataFrame:
    """Percent of a run's items (of each subset) whose first event falls into each of equally wide epoch
    buckets.
    """
    events = first_events(history)
    by_condition = history.groupby(CONDITION)["epoch"].max().rename("last").reset_index()
    events = events.merge(by_condition, on=CONDITION)
    width = events["last"] / buckets
    # Buckets are (a, b]; an event at epoch 0 belongs to the first.
    index = np.ceil(events["value"] / width - 1e-9).clip(lower=1) - 1
    events["bucket"] = index.fillna(-1).astype(int)  # -1: never
    keys = [*RUN, *extra, "metric"]
    total = events.groupby(keys).size().rename("n")
    counts = events.groupby([*keys, "bucket"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=range(-1, buckets), fill_value=0)
    counts = counts.melt(var_name="bucket", value_name="count", ignore_index=False).reset_index()
    table = counts.merge(total.reset_index(), on=keys).merge(by_condition, on=CONDITION)
    width = table["last"] / buckets
    never = table["bucket"] < 0
    table["bucket_start"] = (table["bucket"] * width).mask(never)
    table["bucket_end"] = ((table["bucket"] + 1) * width).mask(never)
    return table.assign(value=100 * table["count"] / table["n"]).drop(columns=["count", "last"])


@reads("exact_match", items=("exact_match",))
def fig11(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Percent of items first memorized and first forgotten in buckets of epochs, per pairing (Fig. 11)."""
    history = pick(item_histories(items, metrics), data=params.get("data", "text"))
    history = some(history, "patterns_fig11", "item exact match of text runs")
    return _event_histogram(history, params.get("buckets", 8), [])


@reads("exact_match", items=("exact_match",))
def fig12(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The same histograms for the two parts of the text/digits mixtures, per digit share (Fig. 12)."""
    history = some(item_histories(items, metrics), "patterns_fig12", "item exact match")
    table = _event_histogram(history, params.get("buckets", 8), ["subset"])
    return table.assign(digit_share=table["data"].map(digit_share))


@reads("exact_match", items=("exact_match", *OVERLAPS))
def fig13(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Five-number summaries of BLEU and Jaccard of the items not memorized at an evaluation (Fig. 13).

    Items of all seeds of a pairing are pooled. `status` is "not memorized" (all with EM 0 at that step) or
    "forgotten" (those of them that had been memorized before); `statistic` one of low, q1, median, q3, high,
    where low and high are the 5th and 95th percentile.
    """
    history = pick(item_histories(items, metrics), data=params.get("data", "text"))
    history["ever"] = history.groupby(["experiment", *ITEM])["value"].cummax()
    history = history[history["value"] < 0.5]
    rows = pick(items, metric=OVERLAPS, split="train")[["experiment", *ITEM, "step", "metric", "value"]]
    rows = rows.merge(history.drop(columns=["value", "change"]), on=["experiment", *ITEM, "step"])
    rows = some(rows, "patterns_fig13", "BLEU or Jaccard of items that are not memorized")
    groups = [rows.assign(status="not memorized"), rows[rows["ever"] > 0.5].assign(status="forgotten")]
    keys = [*CONDITION, "metric", "status", "step", "epoch"]
    scored = pd.concat(groups).groupby(keys)["value"]
    shares = {"low": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 0.95}
    summary = pd.DataFrame({name: scored.quantile(q) for name, q in shares.items()})
    table = summary.reset_index().melt(id_vars=keys, var_name="statistic", value_name="value")
    return table.merge(scored.size().rename("n").reset_index(), on=keys).assign(seed=-1)


@reads("sampling_accuracy")
def tab_sampling(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Share of samples equal to the completion for memorized, forgotten and never memorized items (App. D.2).

    Pooled over the evaluations at which it was measured, every item counting once per evaluation.
    """
    rows = pick(metrics, metric="sampling_accuracy", subset=["memorized", "forgotten", "never"])
    rows = rows[(rows["n"] > 0) & rows["value"].notna()]
    rows = some(pick(rows, data=params.get("data", "text")), "patterns_tab_sampling", "sampling accuracy")
    keys = [*RUN, "subset", "metric"]
    sums = rows.assign(hits=rows["value"] * rows["n"]).groupby(keys, sort=False)[["hits", "n"]].sum().reset_index()
    table = sums.assign(value=sums["hits"] / sums["n"]).drop(columns="hits")
    return with_published(table, params.get("published"), ["data", "model", "items", "subset", "metric"])
