"""Statistics behind the claims of `patterns` (Transformers Seek Patterns for Memorization, NeurIPS 2025).

Every function takes the run tables of the claim's experiments, `metrics` and `items`, and gives one number a
seed as `Evidence`. "Epochs to a level" is the epoch of the FIRST evaluation at which
exact match (EM) is at least that level; a run that never gets there is censored, see `curves.epochs_to`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from memorization.claims.curves import (
    SLACK,
    Names,
    curves,
    epochs_to,
    groups,
    item_values,
    kept,
    listed,
    own,
    parts,
    pick,
    ratio,
    total_items,
)
from memorization.claims.statistics import Evidence, MissingData, concordance

# ---- forgetting and recency (R1)


def forgettings_per_item(metrics: pd.DataFrame, items: pd.DataFrame, data: Names) -> Evidence:
    """Mean number of 1 -> 0 changes of an item's status on the evaluation grid; all pairings pooled."""
    rows = pick(items, metric="exact_match", split="train", data=data)
    key = ["seed", "run", "subset", "item"]
    rows = rows.drop_duplicates([*key, "step"]).sort_values([*key, "step"])
    lost = rows.groupby(key)["value"].diff() < 0  # NaN at an item's first evaluation: not lost
    counts = lost.groupby([rows[name] for name in key]).sum().rename("lost").reset_index()
    by_item = {int(seed): rows["lost"].to_numpy(float) for seed, rows in groups(counts, "seed")}
    per_seed = {seed: float(values.mean()) for seed, values in by_item.items()}
    return Evidence(per_seed, n=sum(map(len, by_item.values())), items=by_item)


def _recency(metrics: pd.DataFrame, data: Names) -> pd.DataFrame:
    """One row an observed training step: run, seed, new, both (new and in its batch), chance = batch/N."""
    names = {"newly_memorized": "new", "newly_in_batch": "both", "batch_items": "batch"}
    rows = pick(metrics, metric=list(names), split="train", data=data)
    rows = rows.drop_duplicates(["run", "step", "metric"])
    wide = rows.pivot(index=["run", "seed", "step", "items"], columns="metric", values="value").rename(columns=names)
    missing = [metric for metric, name in names.items() if name not in wide]
    if missing:
        raise MissingData(f"The run tables have no {' and no '.join(missing)}.")
    wide = wide.dropna().reset_index()
    return wide.assign(chance=wide["batch"] / wide["items"])


def recency_ratio(metrics: pd.DataFrame, items: pd.DataFrame, data: Names) -> Evidence:
    """Newly memorized items that were in the last batch, over the number expected by chance (1: no recency).

    Expected: sum over steps of new x batch/N. Both counts get +1/2: a seed without a hit needs a logarithm.
    """
    steps = _recency(metrics, data)
    per_seed, share = {}, {}
    for seed, rows in groups(steps[steps["new"] > 0], "seed"):
        expected = (rows["new"] * rows["chance"]).sum()
        per_seed[int(seed)] = (rows["both"].sum() + 0.5) / (expected + 0.5)
        share[int(seed)] = (rows["both"].sum() / rows["new"].sum(), expected / rows["new"].sum())
    per_seed = kept(per_seed, "an item that became memorized at an observed step")
    observed, chance = np.mean([share[seed] for seed in per_seed], axis=0)
    note = f"{observed:.1%} of the newly memorized items were in the last batch; chance is {chance:.1%}."
    return Evidence(per_seed, n=int(steps["new"].sum()), note=note)


def recency_share(metrics: pd.DataFrame, items: pd.DataFrame, data: Names) -> Evidence:
    """Share of newly memorized items that were in the last batch; each newly memorized item is an item."""
    steps = _recency(metrics, data)
    events = {}
    for seed, rows in groups(steps[steps["new"] > 0], "seed"):
        hits = int(rows["both"].sum())
        events[int(seed)] = np.repeat([1.0, 0.0], [hits, int(rows["new"].sum()) - hits])
    per_seed = kept({s: v.mean() for s, v in events.items()}, "an item that became memorized at an observed step")
    return Evidence(per_seed, n=sum(map(len, events.values())), items=events)


# ---- order and differentiation (R2)


def order_of(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    levels: Sequence[Names],
    level: float = 0.5,
    data: str | None = None,
    model: str | None = None,
) -> Evidence:
    """Epochs to EM `level`, grouped as claimed, earliest first.

    data None: `levels` name sets trained alone; otherwise subsets of the mixture `data`. Runs that never get
    there are infinitely late, so two such runs tie.
    """
    names = [name for group in levels for name in listed(group)]
    alone = data is None
    rows = own(metrics, names, model=model) if alone else curves(metrics, data=data, subset=names, model=model)
    reached = epochs_to(rows, level, ["seed", "subset", "run"])
    reached = reached.groupby(["seed", "subset"])["reached"].mean().unstack()
    return _ordered(reached, [listed(group) for group in levels], total_items(rows))


def _ordered(values: pd.DataFrame, levels: Sequence[Sequence[Any]], n: int) -> Evidence:
    """Evidence of an order. values: index seed, a column a name; seeds that lack one are left out."""
    names = [name for group in levels for name in group]
    missing = [str(name) for name in names if name not in values]
    if missing:
        raise MissingData(f"No run measured {' or '.join(missing)}.")
    complete = values[names].dropna()
    orders = {
        int(str(seed)): [[float(row[name]) for name in group] for group in levels]
        for seed, row in complete.to_dict("index").items()
    }
    per_seed = kept({seed: concordance(order) for seed, order in orders.items()}, "all parts of the order")
    strict = sum(value == 1.0 for value in per_seed.values())
    typical = parts({str(name): float(complete[name].median()) for name in names})
    note = f"The claimed order is complete in {strict} of {len(per_seed)} seeds; medians: {typical}."
    return Evidence(per_seed, n=n, orders=orders, note=note)


def shuffling_order(
    metrics: pd.DataFrame, items: pd.DataFrame, degrees: Sequence[str], at: str = "end", level: float = 0.95
) -> Evidence:
    """EM of ever more shuffled text at equal steps; claimed order: the more shuffled, the lower.

    degrees: sets from the original to fully shuffled. at, level: see `final_difference`. Pairings are
    averaged within a seed.
    """
    rows = own(metrics, list(degrees))
    values = []
    for (seed, _, _), pairing in groups(rows, ["seed", "model", "items"]):
        base = pairing[pairing["data"] == degrees[0]]
        if set(degrees) <= set(pairing["data"]):
            step = _comparison_step(base, pairing, at, level)
            values += [(seed, name, _value_at(pairing[pairing["data"] == name], step)) for name in degrees]
    if not values:
        raise MissingData("No seed has every degree of shuffling.")
    table = pd.DataFrame(values, columns=["seed", "data", "value"])
    table = table.pivot_table(index="seed", columns="data", values="value")
    return _ordered(table, [[name] for name in reversed(degrees)], total_items(rows))


def _comparison_step(base: pd.DataFrame, both: pd.DataFrame, at: str, level: float) -> int:
    """Step of a comparison: the "end", or "memorized", when the original first has EM `level`."""
    end = int(both["step"].max())
    reached = base.loc[base["value"] >= level - SLACK, "step"].min()
    return end if at == "end" or np.isnan(reached) else int(reached)


def _value_at(run: pd.DataFrame, step: int) -> float:
    """Value at the last evaluation not after `step`: a run that stopped early keeps its last value."""
    return float(run.loc[run["step"] <= step].sort_values("step")["value"].iloc[-1])


def final_difference(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    original: str,
    changed: str,
    at: str = "end",
    level: float = 0.95,
) -> Evidence:
    """EM of `original` minus EM of `changed` at the same step, each pairing (model, N) with itself.

    at "end": the last step of the longer run. at "memorized": the first evaluation where the original has EM
    `level` (the published table compares when the original is at about .96); the original is then at a first
    passage, which favors it by about the noise of one evaluation, so a threshold above 0 is in order.
    """
    rows = own(metrics, [original, changed])
    differences: dict[int, list[np.ndarray]] = {}
    means: dict[int, list[tuple[float, float]]] = {}
    for (seed, _, _), pairing in groups(rows, ["seed", "model", "items"]):
        if pairing["data"].nunique() < 2:
            continue
        step = _comparison_step(pairing[pairing["data"] == original], pairing, at, level)
        values, arrays = [], []
        for name in (original, changed):
            run = pairing[pairing["data"] == name]
            last = run.loc[run["step"] <= step].sort_values("step").iloc[-1]
            values.append(float(last["value"]))
            arrays.append(item_values(items, last["run"], int(last["step"]), name, "train"))
        means.setdefault(int(seed), []).append((values[0], values[1]))
        # Item i of the changed set is item i of the original with its words moved: a paired comparison.
        paired = len(arrays[0]) == len(arrays[1]) > 0
        differences.setdefault(int(seed), []).append(arrays[0] - arrays[1] if paired else np.empty(0))
    if not means:
        raise MissingData(f"No seed has both {original} and {changed} for one pairing of model and size.")
    per_seed = {seed: float(np.mean([a - b for a, b in pairs])) for seed, pairs in means.items()}
    a, b = np.mean([pair for pairs in means.values() for pair in pairs], axis=0)
    by_item = {seed: np.concatenate(arrays) for seed, arrays in differences.items()}
    n = sum(map(len, by_item.values())) or total_items(rows)
    complete = all(len(array) for arrays in differences.values() for array in arrays)
    return Evidence(per_seed, n, by_item if complete else None, note=f"EM {a:.3f} original, {b:.3f} changed.")


# ---- phases of mixtures (R2)


def patterned_when_random_starts(
    metrics: pd.DataFrame, items: pd.DataFrame, data: str, patterned: str, random: str, level: float = 0.1
) -> Evidence:
    """EM of the patterned part at the first evaluation at which the random part has EM `level`."""
    rows = curves(metrics, data=data, subset=[patterned, random])
    per_seed, by_item, n = {}, {}, 0
    for (seed, run), one in groups(rows, ["seed", "run"]):
        started = one.loc[(one["subset"] == random) & (one["value"] >= level - SLACK), "step"].min()
        if np.isnan(started):
            continue
        now = one[(one["subset"] == patterned) & (one["step"] == started)].iloc[0]
        per_seed[int(seed)] = float(now["value"])
        by_item[int(seed)] = item_values(items, run, int(started), patterned, "train")
        n += int(now["n"])
    per_seed = kept(per_seed, f"{random} at EM {level}")
    return Evidence(per_seed, n, by_item if all(map(len, by_item.values())) else None)


def phase_ratio(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    data: str,
    patterned: str,
    random: str,
    patterned_level: float = 0.95,
    random_level: float = 0.5,
) -> Evidence:
    """Epochs to `random_level` of the random part over epochs to `patterned_level` of the patterned one."""
    rows = curves(metrics, data=data, subset=[patterned, random])
    by = ["seed", "run", "subset"]
    late = epochs_to(pick(rows, subset=random), random_level, by)
    early = epochs_to(pick(rows, subset=patterned), patterned_level, by)
    per_seed: dict[int, float] = {}
    for row in early.merge(late, on=["seed", "run"], suffixes=("_early", "_late")).to_dict("records"):
        above = {"reached": row["reached_late"], "last": row["last_late"]}
        per_seed[row["seed"]] = ratio(above, {"reached": row["reached_early"], "last": row["last_early"]})
    return Evidence(kept(per_seed, "either level"), n=total_items(rows))


def _fractions(metrics: pd.DataFrame, patterned: str, random: str) -> pd.DataFrame:
    """One row a seed and mixture: share of random items, epochs of patterned .95 and random .1."""
    rows = curves(metrics, subset=[patterned, random])
    sizes = rows.groupby(["run", "subset"])["n"].max().unstack().reindex(columns=[patterned, random]).dropna()
    by = ["seed", "run", "subset"]
    early = epochs_to(pick(rows, subset=patterned), 0.95, by).set_index(["seed", "run"])["reached"]
    late = epochs_to(pick(rows, subset=random), 0.1, by).set_index(["seed", "run"])["reached"]
    table = pd.DataFrame({"early": early, "late": late}).reset_index()
    table = table[table["run"].isin(sizes.index)]
    table["share"] = table["run"].map(sizes[random] / sizes.sum(axis=1))
    return table[np.isfinite(table["early"]) & np.isfinite(table["late"])]


def _slopes(table: pd.DataFrame, column: str, n: int) -> Evidence:
    """Least-squares slope of `column` on the random share, for each seed with at least three shares."""
    per_seed = {
        seed: float(np.polyfit(rows["share"], rows[column], 1)[0])
        for seed, rows in groups(table, "seed")
        if rows["share"].nunique() >= 3
    }
    means = table.groupby(table["share"].round(3))[column].mean()
    note = "Mean epochs by random share: " + parts({f"{share:g}": mean for share, mean in means.items()}) + "."
    return Evidence(kept(per_seed, "both phases at three or more random shares"), n, note=note)


def plateau_slope(metrics: pd.DataFrame, items: pd.DataFrame, patterned: str, random: str) -> Evidence:
    """Slope, in epochs a unit of random share, of the plateau: epochs from patterned EM .95 to random EM .1.

    Between the two the overall EM stands at the patterned share. Overlapping phases have a plateau of 0.
    """
    table = _fractions(metrics, patterned, random)
    table = table.assign(plateau=(table["late"] - table["early"]).clip(lower=0))
    return _slopes(table, "plateau", len(table))


def onset_slope(metrics: pd.DataFrame, items: pd.DataFrame, patterned: str, random: str) -> Evidence:
    """Slope, in epochs a unit of random share, of the epoch at which the random part starts (EM .1)."""
    table = _fractions(metrics, patterned, random)
    return _slopes(table, "late", len(table))


def rise_ratio(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    gradual: Names,
    sudden: str,
    low: float = 0.1,
    high: float = 0.95,
) -> Evidence:
    """Epochs from EM `low` to EM `high` of the gradual sets (geometric mean) over those of the sudden set.

    A rise within one evaluation interval counts as one; an unfinished rise counts up to the last epoch.
    """
    names = listed(gradual)
    rows = own(metrics, [*names, sudden])
    by = ["seed", "subset", "run"]
    rise = epochs_to(rows, low, by).merge(epochs_to(rows, high, by), on=by, suffixes=("_low", "_high"))
    grid = rows.groupby("run")["epoch"].apply(lambda epochs: np.diff(np.unique(epochs)).min())
    ends = rise["reached_high"].where(np.isfinite(rise["reached_high"]), rise["last_high"])
    spans = (ends - rise["reached_low"]).clip(lower=rise["run"].map(grid))
    rise["value"] = spans.where(np.isfinite(rise["reached_low"]))
    table = rise.groupby(["seed", "subset"])["value"].mean().unstack().reindex(columns=[*names, sudden])
    logs = table.apply(np.log)
    ratios = (logs[names].mean(axis=1, skipna=False) - logs[sudden]).apply(np.exp)
    note = "Mean epochs of the rise: " + parts(table.mean().to_dict()) + "."
    return Evidence(kept(ratios.to_dict(), "all rises"), n=total_items(rows), note=note)


# ---- generalization (R3)


def unseen_exact_match(
    metrics: pd.DataFrame, items: pd.DataFrame, data: Names, extreme: str, learned: float | None = None
) -> Evidence:
    """Final EM on held-out items of the "least" or "most" generalizing set of `data`.

    Taking the extreme makes one test of "all sets are above (below)": if the least is above, all are.
    learned: count only seeds in which every set reached this EM on its training items.
    """
    names = listed(data)
    rows = own(metrics, names, split="validation")
    last = rows.groupby("run").tail(1)
    table = last.groupby(["seed", "data"])["value"].mean().unstack().reindex(columns=names).dropna()
    if learned is not None:
        best = own(metrics, names).groupby(["seed", "data", "run"])["value"].max()
        learned_all = best.groupby(level=["seed", "data"]).min().groupby(level="seed").min() >= learned - SLACK
        table = table[learned_all.reindex(table.index, fill_value=False)]
    choice = table.idxmin(axis=1) if extreme == "least" else table.idxmax(axis=1)
    per_seed = kept(
        {seed: table.at[seed, name] for seed, name in choice.items()},
        " and ".join(names) + ("" if learned is None else f" at a training EM of {learned}"),
    )
    by_item, n = {}, 0
    for seed in per_seed:
        runs = last[(last["seed"] == seed) & (last["data"] == choice[seed])]
        arrays = [
            item_values(items, row["run"], row["step"], row["data"], "validation") for row in runs.to_dict("records")
        ]
        by_item[seed] = np.concatenate(arrays)
        n += int(runs["n"].sum())
    note = "Mean by set: " + parts(table.mean().to_dict()) + "."
    return Evidence(per_seed, n, by_item if all(map(len, by_item.values())) else None, note=note)


def rule_adherence(metrics: pd.DataFrame, items: pd.DataFrame, data: str, model: str | None = None) -> Evidence:
    """Final share of generated bigrams on unseen prompts that follow the increment rule (chance .1)."""
    rows = pick(metrics, metric="adherence", split="validation", data=data, model=model)
    last = rows.drop_duplicates(["run", "step"]).sort_values(["run", "step"]).groupby("run").tail(1)
    per_seed = last.groupby("seed")["value"].mean().to_dict()
    return Evidence(kept(per_seed, "rule adherence"), n=int(last["n"].sum()))


# ---- model size (R4, appendix C)


def size_ratio(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    data: Names,
    small: str,
    large: str,
    level: float = 0.5,
) -> Evidence:
    """Epochs to EM `level`, large model over small one, same seed and data; geometric mean over sets."""
    names = listed(data)
    by = ["seed", "subset", "items", "model"]
    reached = epochs_to(own(metrics, names, model=[small, large]), level, by)
    ratios: dict[tuple[int, str], list[float]] = {}
    for (seed, name, _), pair in groups(reached, ["seed", "subset", "items"]):
        rows = {row["model"]: row for row in pair.to_dict("records")}
        if {small, large} <= set(rows):
            ratios.setdefault((int(seed), str(name)), []).append(ratio(rows[large], rows[small]))
    if not ratios:
        raise MissingData(f"No seed has both {small} and {large} on the same data.")
    table = pd.Series({key: float(np.mean(np.log(value))) for key, value in ratios.items()}).unstack()
    table = table.reindex(columns=names)
    per_seed = np.exp(table.mean(axis=1, skipna=False)).to_dict()
    censored = int(np.isinf(reached["reached"]).sum())
    note = "Ratio by set: " + parts(np.exp(table.mean()).to_dict()) + "."
    note += f" {censored} of {len(reached)} runs never got there and count with their last epoch." if censored else ""
    n = int(reached["items"].sum())
    return Evidence(kept(per_seed, f"a pair of runs of which one reaches EM {level} on every set"), n, note=note)


def smallest_model_fit(metrics: pd.DataFrame, items: pd.DataFrame, level: float = 0.95) -> Evidence:
    """R2 of the line "parameters of the smallest sufficient model against items", with its slope's sign.

    Sufficient: best training EM at least `level`. Sizes that no model of the grid memorizes are left out; a
    seed needs three sizes. If every size needs the same model there is no growth and the value is 0.
    """
    best = curves(metrics).groupby(["seed", "items", "parameters", "run"])["value"].max().reset_index()
    enough = best[best["value"] >= level - SLACK].groupby(["seed", "items"])["parameters"].min().reset_index()
    per_seed: dict[int, float] = {}
    for seed, rows in groups(enough, "seed"):
        if rows["items"].nunique() < 3:
            continue
        flat = rows["parameters"].nunique() == 1
        r = 0.0 if flat else stats.pearsonr(rows["items"], rows["parameters"])[0]
        per_seed[int(seed)] = float(np.sign(r) * r**2)
    note = "Smallest model by items: "
    note += parts({str(n): value for n, value in enough.groupby("items")["parameters"].mean().items()}) + " parameters."
    return Evidence(kept(per_seed, "three data sizes that some model memorizes"), n=len(enough), note=note)


# ---- robustness of exact match (appendices A.3, A.4, D.2)


def _least_correlation(wide: pd.DataFrame, first: Any, what: str) -> Evidence:
    """Spearman correlation over steps of `first` with each other column; the least, averaged over runs.

    wide: index (seed, run, step). A column that stands still while `first` moves counts as 0; a run in which
    `first` stands still says nothing.
    """
    found: dict[int, list[dict[str, float]]] = {}
    for (seed, _), run in groups(wide, ["seed", "run"]):
        run = run.dropna(axis=1, how="all").dropna()
        if len(run) < 3 or len(run.columns) < 2 or run[first].nunique() == 1:
            continue
        others = [name for name in run if name != first]
        values = {
            str(name): float(stats.spearmanr(run[first], run[name])[0]) if run[name].nunique() > 1 else 0.0
            for name in others
        }
        found.setdefault(int(seed), []).append(values)
    per_seed = {seed: float(np.mean([min(run.values()) for run in runs])) for seed, runs in found.items()}
    means = pd.DataFrame([run for runs in found.values() for run in runs]).mean().to_dict()
    note = "Mean correlation: " + parts({str(name): float(value) for name, value in means.items()}) + "."
    return Evidence(kept(per_seed, what), n=sum(map(len, found.values())), note=note)


def comovement(metrics: pd.DataFrame, items: pd.DataFrame, others: Sequence[str], data: Names) -> Evidence:
    """Correlation over steps of EM with each metric of `others`; n is the number of runs."""
    frames = [curves(metrics, name, data=data).assign(metric=name) for name in ("exact_match", *others)]
    rows = pd.concat(frames)
    rows = rows[rows["subset"] == rows["data"]]
    wide = rows.pivot(index=["seed", "run", "step"], columns="metric", values="value").dropna()
    return _least_correlation(wide, "exact_match", "three steps with all metrics")


def length_correlation(metrics: pd.DataFrame, items: pd.DataFrame, data: Names) -> Evidence:
    """Correlation over steps of EM at the default lengths with EM at each other (prompt, completion) pair."""
    rows = pick(metrics, metric="exact_match", split="train", data=data)
    rows = rows[rows["subset"] == rows["data"]]
    lengths = ["prompt_length", "completion_length"]
    default = (rows[lengths].to_numpy() == rows[[f"default_{name}" for name in lengths]].to_numpy()).all(axis=1)
    pairs = rows["prompt_length"].astype(str) + "-" + rows["completion_length"].astype(str)
    rows = rows.assign(pair=pairs.where(~default, "default")).drop_duplicates(["run", "step", "pair"])
    wide = rows.pivot(index=["seed", "run", "step"], columns="pair", values="value")
    return _least_correlation(wide, "default", "three steps at several lengths while exact match moves")


def sampling_gap(metrics: pd.DataFrame, items: pd.DataFrame, data: Names) -> Evidence:
    """Sampling accuracy of items memorized now minus that of forgotten ones, items of all steps pooled."""
    rows = pick(metrics, metric="sampling_accuracy", subset=["memorized", "forgotten"], data=data)
    rows = rows.drop_duplicates(["run", "step", "subset"]).assign(total=rows["value"] * rows["n"])
    sums = rows.groupby(["seed", "subset"])[["total", "n"]].sum()
    means = (sums["total"] / sums["n"]).unstack().reindex(columns=["memorized", "forgotten"])
    gap = (means["memorized"] - means["forgotten"]).to_dict()
    forgotten = int(rows.loc[rows["subset"] == "forgotten", "n"].sum())
    note = "Mean " + parts(means.mean().to_dict()) + f"; n counts the {forgotten} forgotten items."
    return Evidence(kept(gap, "a forgotten item to sample"), n=forgotten, note=note)
