"""Statistics behind the claims of `layernorm` (Impact of Layer Norm on Memorization and Generalization, NeurIPS 2025).

Every function takes the run tables of the claim's experiments, `metrics` and `items`, and gives one number a
seed as `Evidence`. All arms of a seed (which norms lose their parameters before fine-tuning) have the same
training items, the same wrong labels and, per model, the same pre-trained weights, so contrasts are paired by
seed; where the answers to the noisy items were kept they are paired by item as well. Accuracies and shares are
fractions, gaps differences of fractions.

Which models count is said by `position` (pre or post) and `task` (text or vision), or by `models`, a list of
names of which those with runs are taken. A scale may have several (the paper has thirteen): their mean is taken
in each seed. A model counts if it can be read in all arms of the contrast in some seed; a seed counts if that
holds there for all of these.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from memorization.claims.curves import Names, groups, kept, listed, parts
from memorization.claims.schema import nearest
from memorization.claims.statistics import Evidence, MissingData
from memorization.errors import UserError
from memorization.tables.readings import READINGS, Reading, at_reading

POSITIONS = {"pre": "Pre-LN", "post": "Post-LN"}
TASKS = {
    "text": ("packages", "emotions", "news", "tweets"),
    "vision": ("digits", "cifar10", "utk_face", "nico"),
}
OUTCOMES = ("memorization", "recovery", "random")  # of the noisy training items
METRICS = ("test_accuracy", "train_accuracy", "gap", *OUTCOMES)
GRADIENTS = ("gradient_learning", "gradient_memorization")
HOW_TO_RUN = {"minilm": "snakemake --configfile config/minilm.yaml layernorm"}
ROUNDING = 1e-4  # values per item are float32
Weights = Mapping[str, Mapping[str, float]]  # position -> arm -> weight


# ---- which rows


def _check(word: str, known: Sequence[str], what: str) -> None:
    if word not in known:
        raise UserError(f"There is no {what} '{word}'; {nearest(word, list(known))}.")


def _named(position: str, task: str | None, models: Names | None) -> str:
    """The models in words."""
    return " or ".join(listed(models)) if models else f"a {POSITIONS[position]} {task + ' ' if task else ''}model"


def _of(metrics: pd.DataFrame, position: str, task: str | None, models: Names | None) -> pd.DataFrame:
    """Rows of the fine-tuning runs of these models."""
    _check(position, tuple(POSITIONS), "position")
    if task is not None:
        _check(task, tuple(TASKS), "task")
    if metrics.empty or "position" not in metrics:
        rows = metrics.iloc[:0]
    else:
        wanted = (metrics["position"] == position) & (metrics["stage"] == "fine_tuning")
        wanted &= metrics["data"].isin(TASKS[task]) if task and not models else True
        wanted &= metrics["model"].isin(listed(models)) if models else True
        rows = metrics[wanted]
    if rows.empty:
        hints = [f" Get them with `{HOW_TO_RUN[name]}`." for name in listed(models or []) if name in HOW_TO_RUN]
        raise MissingData(f"There are no runs of {_named(position, task, models)}." + "".join(hints))
    return rows


def _rows_of(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a run and step of one of METRICS: run, seed, model, data, arm, epoch, step, value, n.

    gap: accuracy on the training set (with its wrong labels) minus that on the test set, as in the paper's sec. 3.3.
    """
    key = ["run", "step"]
    if metric == "gap":
        test = _rows_of(rows, "test_accuracy")
        train = _rows_of(rows, "train_accuracy")[[*key, "value"]]
        both = test.merge(train, on=key, suffixes=("", "_train"))
        return both.assign(value=both["value_train"] - both["value"]).drop(columns="value_train")
    if metric in OUTCOMES:
        own = rows[(rows["metric"] == metric) & (rows["split"] == "train") & (rows["subset"] == "noisy")]
    else:
        split = "train" if metric == "train_accuracy" else "validation"
        own = rows[(rows["metric"] == "accuracy") & (rows["split"] == split) & (rows["subset"] != "noisy")]
    # a run that serves two experiments comes once for each
    return own[["run", "seed", "model", "data", "arm", "epoch", "step", "value", "n"]].drop_duplicates(key)


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the seeds that have every model of the table."""
    per_seed = table.groupby("seed")["model"].nunique()
    return table[table["seed"].map(per_seed) == table["model"].nunique()]


def _cells(
    metrics: pd.DataFrame,
    position: str,
    arms: Sequence[str],
    metric: str,
    reading: Reading,
    level: float,
    task: str | None,
    models: Names | None,
) -> pd.DataFrame:
    """One row a seed, model and arm, at the reading; see the head of this module for which seeds and models."""
    _check(metric, METRICS, "metric")
    _check(reading, READINGS, "reading")
    rows, who = _of(metrics, position, task, models), _named(position, task, models)
    absent = [arm for arm in arms if arm not in set(rows["arm"])]
    if absent:
        raise MissingData(f"There is no run of {who} with the arm {' or '.join(absent)}.")
    rows = rows[rows["arm"].isin(list(arms))]
    cells = _rows_of(at_reading(rows, reading, level), metric).dropna(subset=["value"])
    twice = cells[cells.duplicated(["seed", "model", "arm"])]
    if len(twice):
        raise UserError(
            f"{twice['run'].iloc[0]} is not the only run of its seed, model and arm; let the claim read one experiment."
        )
    by_pair = cells.groupby(["seed", "model"])["arm"].transform("nunique")
    cells = _complete(cells[by_pair == len(arms)])
    if cells.empty:
        where = f"at a training accuracy of {level:g}" if reading == "matched" else f"at the reading {reading}"
        raise MissingData(f"No seed of {who} has {metric} of all of the arms {', '.join(arms)} {where}.")
    return cells.assign(position=position, rank=cells["arm"].map(list(arms).index)).sort_values(
        ["rank", "seed", "model"]
    )


# ---- contrasts


def _note(cells: pd.DataFrame, metric: str, reading: str, left_out: Sequence[str]) -> str:
    """What the arms themselves measured, and at which epochs."""
    lines = []
    for position, own in cells.groupby("position", sort=False):
        by_arm = own.groupby("arm", sort=False)
        names = ", ".join(sorted(own["model"].unique()))
        at = "" if reading != "matched" else f", read at epoch {parts(by_arm['epoch'].mean().to_dict())}"
        lines.append(f"{POSITIONS[str(position)]} ({names}): {parts(by_arm['value'].mean().to_dict())}{at}")
    without = f" Left out, because an arm cannot be read: {', '.join(left_out)}." if left_out else ""
    return f"Mean {metric}, {'; '.join(lines)}.{without}"


def _contrast(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    weights: Weights,
    metric: str,
    reading: Reading,
    level: float,
    task: str | None,
    models: Names | None,
) -> Evidence:
    """Sum over positions and arms of weight x value, the mean over the models of each position."""
    found, known = [], set()
    for position, by_arm in weights.items():
        cells = _cells(metrics, position, list(by_arm), metric, reading, level, task, models)
        cells["weight"] = cells["arm"].map(dict(by_arm)).astype(float) / cells["model"].nunique()
        found.append(cells)
        own = _of(metrics, position, task, models)[["model", "seed"]].drop_duplicates()
        known |= set(own.itertuples(index=False, name=None))
    seeds = set.intersection(*(set(cells["seed"]) for cells in found))
    cells = pd.concat(found, ignore_index=True)
    cells = cells[cells["seed"].isin(seeds)]
    if cells.empty:
        raise MissingData(f"No seed has {metric} of both positions at the reading {reading}.")
    weighted = cells["value"] * cells["weight"]
    per_seed = kept(weighted.groupby(cells["seed"]).sum().to_dict(), metric)
    used = set(cells[["model", "seed"]].itertuples(index=False, name=None))
    left_out = [f"{model} in seed {seed}" for model, seed in sorted(known - used)]
    n = int(cells.loc[cells["rank"] == 0, "n"].sum())
    by_item = _by_item(items, cells, metric, per_seed) if metric in OUTCOMES else None
    return Evidence(per_seed, n, by_item, note=_note(cells, metric, reading, left_out))


def _hits(items: pd.DataFrame, cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """(noisy items, runs): 1 where the answer that a run of `cells` gave at its reading counts for `metric`, else 0."""
    own = items[items["run"].isin(cells["run"].tolist()) & (items["subset"] == "noisy")]
    now = (own["metric"] == "prediction") & (own["step"] == own["run"].map(cells.set_index("run")["step"]))
    own = own[now | own["metric"].isin(["label", "true_label"])]
    key = ["data", "item", "run", "metric"]
    wide = own.drop_duplicates(key).set_index(key)["value"].unstack("metric")
    wide = wide.reindex(columns=["prediction", "label", "true_label"]).dropna()
    wrong, right = wide["prediction"] == wide["label"], wide["prediction"] == wide["true_label"]
    return {"memorization": wrong, "recovery": right, "random": ~(wrong | right)}[metric].astype(float).unstack("run")


def _by_item(
    items: pd.DataFrame, cells: pd.DataFrame, metric: str, per_seed: Mapping[int, float]
) -> dict[int, np.ndarray] | None:
    """seed -> (items,) values of the contrast; None unless all runs of each seed have the same noisy items."""
    if not {"run", "subset", "metric", "step", "item", "data"} <= set(items):
        return None
    hits, found = _hits(items, cells, metric), {}
    for seed, own in groups(cells, "seed"):
        table = hits.reindex(columns=own["run"].tolist()).dropna(how="all")
        if table.empty or table.isna().any(axis=None):
            return None
        values = table.to_numpy() @ own["weight"].to_numpy()
        if abs(values.mean() - per_seed[int(seed)]) > ROUNDING:
            return None
        found[int(seed)] = values
    return found


def difference(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    position: str,
    reading: Reading,
    arm: str = "all",
    reference: Names = "none",
    task: str | None = "text",
    models: Names | None = None,
    level: float = 0.95,
    reads: Sequence[str] = (),
) -> Evidence:
    """`metric` of `arm` minus that of `reference` (the mean of several).

    metric: test_accuracy, train_accuracy, gap, memorization, recovery or random. level: training accuracy of the
    reading `matched`. reads: metrics of the item table to load, [prediction, label, true_label] for noisy items.
    Errors: MissingData without such runs, or where no seed gets to `level` in all arms.
    """
    others = listed(reference)
    weights = {position: {**{name: -1.0 / len(others) for name in others}, arm: 1.0}}
    return _contrast(metrics, items, weights, metric, reading, level, task, models)


def interaction(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    position: str,
    other: str,
    reading: Reading,
    arm: str = "all",
    reference: str = "none",
    task: str | None = "text",
    level: float = 0.95,
    reads: Sequence[str] = (),
) -> Evidence:
    """Change of `metric` from `reference` to `arm` at `position`, minus the same change at `other`."""
    weights = {position: {reference: -1.0, arm: 1.0}, other: {reference: 1.0, arm: -1.0}}
    return _contrast(metrics, items, weights, metric, reading, level, task, None)


# ---- gradients at the inputs of the norms


def _gradients(
    metrics: pd.DataFrame, position: str, definition: str, task: str | None, models: Names | None
) -> tuple[pd.DataFrame, int]:
    """Log norms at the last evaluation of the intact runs, and the noisy items behind them.

    The table has a row a seed, model, layer and role, and a column for each of GRADIENTS (-inf for a norm of 0).
    """
    rows = _of(metrics, position, task, models)
    who = _named(position, task, models)
    if "definition" not in rows:
        raise MissingData(f"No run of {who} measured gradients.")
    rows = rows[(rows["arm"] == "none") & rows["metric"].isin(GRADIENTS) & (rows["definition"] == definition)]
    rows = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    key = ["seed", "model", "layer", "role"]
    rows = rows.drop_duplicates(["run", "metric", "layer", "role"])
    table = rows.pivot(index=key, columns="metric", values="value").reindex(columns=list(GRADIENTS)).dropna()
    table = _complete(table.reset_index())
    if table.empty:
        raise MissingData(f"No intact run of {who} measured gradients (definition {definition}).")
    used = rows[rows["seed"].isin(table["seed"]) & (rows["metric"] == "gradient_memorization")]
    with np.errstate(divide="ignore"):
        table[list(GRADIENTS)] = np.log(table[list(GRADIENTS)].to_numpy(float))
    return table, int(used.groupby("run")["n"].max().sum())


def _ratios(table: pd.DataFrame) -> pd.Series:
    """Log of learning over memorization, indexed by seed, model, layer and role."""
    ratios = table["gradient_learning"] - table["gradient_memorization"]
    return ratios.set_axis(pd.MultiIndex.from_frame(table[["seed", "model", "layer", "role"]]))


def _factors(logs: pd.Series, what: str) -> dict[int, float]:
    """seed -> exp of its logarithm; seeds without a finite one are dropped."""
    return {seed: float(np.exp(value)) for seed, value in kept(logs.to_dict(), what).items()}


def least_gradient_ratio(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    position: str,
    task: str | None = None,
    models: Names | None = None,
    definition: str = "text",
) -> Evidence:
    """Least ratio of the learning to the memorization gradient over the norms of all layers (and models).

    Above 1: in every layer the gradient of unseen items is the larger one. definition: text (norm of each item,
    then the mean) or code (the released code's variant).
    """
    table, n = _gradients(metrics, position, definition, task, models)
    ratios = _ratios(table)
    least = ratios.groupby(level="seed").min()
    share = float((ratios >= 0).mean())
    note = f"{share:.0%} of the norms have a ratio of at least 1; the median ratio is {np.exp(ratios.median()):.3g}."
    return Evidence(_factors(least, "a ratio of gradients"), n, note=note)


def gradient_ratio_factor(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    position: str,
    other: str,
    task: str | None = "text",
    definition: str = "text",
) -> Evidence:
    """Ratio of gradients (learning over memorization, median over norms) at `position` over that at `other`."""
    medians, total = {}, 0
    for name in (position, other):
        table, n = _gradients(metrics, name, definition, task, None)
        by_model = _ratios(table).groupby(level=["seed", "model"]).median()
        medians[name], total = by_model.groupby(level="seed").mean(), total + n
    both = pd.DataFrame(medians).dropna()
    note = "Median ratio, mean over seeds: "
    note += parts({POSITIONS[name]: float(np.exp(both[name].mean())) for name in (position, other)}) + "."
    return Evidence(_factors(both[position] - both[other], "gradients of both positions"), total, note=note)


def first_over_last(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    position: str,
    task: str | None = None,
    models: Names | None = None,
    definition: str = "text",
) -> Evidence:
    """Gradient norm in the first layer over that in the last; geometric means over the norms of a layer, and models."""
    _check(metric, GRADIENTS, "gradient")
    table, n = _gradients(metrics, position, definition, task, models)
    by_layer = table.groupby(["seed", "model", "layer"])[list(GRADIENTS)].mean()
    ends = by_layer.groupby(level=["seed", "model"])
    falls = (ends.first() - ends.last()).groupby(level="seed").mean()
    means = {name.removeprefix("gradient_"): float(np.exp(falls[name].mean())) for name in GRADIENTS}
    note = f"First layer over last, mean over seeds: {parts(means)}."
    return Evidence(_factors(falls[metric], "gradients of the first and the last layer"), n, note=note)
