"""Statistics behind the claims of `geometry` (Tracing the Representation Geometry of Language Models, NeurIPS 2025).

Every function takes the run tables of the claim's experiments, `metrics` and `items`, and gives one number a seed as
`Evidence`; where an experiment has several models (the two main sizes), it is their mean in each seed. RankMe is an
effective number of dimensions and is compared by factors; accuracies, recall, pass@k and correlations are compared by
differences; losses are nats.

Phases of pre-training come from `memorization.probes.phases`: trough and peak of RankMe by rule, sizes free of the
bias of picking extremes. A curve without an observed rise has neither trough nor peak worth the name, and one without
an observed fall after it has no third phase: where a claim is about such a phase, it is left out, and `note` says how
many were. If none is left, the claim is not tested (MissingData).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from memorization.claims.curves import groups, kept, parts
from memorization.claims.schema import nearest
from memorization.claims.statistics import Evidence, MissingData
from memorization.errors import UserError
from memorization.probes.distributional import distributional_memorization
from memorization.probes.phases import PHASES as NAMES
from memorization.tables import geometry_rows
from memorization.theory import geometry_toy

Phase = Literal["warmup", "expansion", "compression"]
# Here, in config/claims and in `note` phases have the names of what RankMe does in them.
PHASES = dict(zip(("warmup", "expansion", "compression"), NAMES, strict=True))
TOY = dict(zip(PHASES, geometry_toy.PHASES, strict=True))
CURVE = ["model", "seed"]
STAGES = ("sft", "dpo", "grpo")
FEWEST = 4  # checkpoints behind a correlation


def _check(word: str, known: Sequence[str], what: str) -> None:
    if word not in known:
        raise UserError(f"There is no {what} '{word}'; {nearest(word, list(known))}.")


def _by_seed(values: pd.Series, what: str) -> dict[int, float]:
    """Mean over models in each seed of a Series indexed by model and seed."""
    return kept(values.dropna().groupby(level="seed").mean().to_dict(), what)


def _models(values: pd.Series) -> str:
    """Mean over seeds of each model, in words."""
    return parts(values.dropna().groupby(level="model").mean().to_dict())


def _rows(metrics: pd.DataFrame, metric: str, **choose: Any) -> pd.DataFrame:
    """Rows of one metric with `tokens`; MissingData if no run measured it."""
    wanted = [column for column, value in choose.items() if value is not None and column not in metrics]
    rows = metrics.iloc[:0] if wanted else geometry_rows.curves(metrics, metric, **choose)
    if rows.empty:
        words = ", ".join(f"{column} {value}" for column, value in choose.items() if value is not None)
        raise MissingData(f"No run measured {metric} ({words}).")
    return rows.dropna(subset=["value"])


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without an intervention on the representation."""
    return rows[rows["intervention"].fillna("none").isin(["none", ""])] if "intervention" in rows else rows


def _wide(rows: pd.DataFrame) -> dict[tuple[str, int], pd.Series]:
    """(model, seed) -> values indexed by ascending tokens."""
    found = {}
    for (model, seed), own in groups(rows, CURVE):
        found[str(model), int(seed)] = own.groupby("tokens")["value"].mean().sort_index()
    return found


def _n(rows: pd.DataFrame) -> int:
    """Items behind the values, those of each model and seed once."""
    return int(rows.groupby(CURVE)["n"].max().sum())


# ---- phases of pre-training


def _phases(metrics: pd.DataFrame, items: pd.DataFrame) -> dict[tuple[str, int], Any]:
    """(model, seed) -> phases of the base runs."""
    there = {"run", "metric", "step", "item"} <= set(items) and "choice" in metrics
    found = geometry_rows.phases_of(metrics, items) if there else {}
    base = {(key.model, key.seed): one for key, one in found.items() if key.variant == "base"}
    if not base:
        raise MissingData("No pre-training run has RankMe of bootstrap resamples (`rank_me_resample`), so no phases.")
    return base


def _observed(phases: dict[tuple[str, int], Any], *wanted: str) -> dict[tuple[str, int], Any]:
    """Curves in which all wanted phases were observed; MissingData if there is none."""
    found = {key: one for key, one in phases.items() if all(one.changes[PHASES[w]].state == "observed" for w in wanted)}
    if not found and "compression" in wanted:
        raise MissingData(f"No third phase: RankMe falls after its peak in none of the {len(phases)} training runs.")
    if not found:
        raise MissingData(f"No {' and '.join(wanted)} of RankMe was observed in any of {len(phases)} training runs.")
    return found


def _seen(phases: dict[tuple[str, int], Any]) -> str:
    """How often each phase was observed, in words."""
    number = {word: sum(name in one.observed for one in phases.values()) for word, name in PHASES.items()}
    words = ", ".join(f"{name} in {count}" for name, count in number.items())
    return f"Observed: {words} of {len(phases)} training runs."


def phase_factor(metrics: pd.DataFrame, items: pd.DataFrame, phase: Phase, reads: Sequence[str] = ()) -> Evidence:
    """Factor by which RankMe changes in a phase (end over beginning), the geometric mean over models.

    Whether the phase was observed does not matter here. Where the last checkpoint is the highest after the trough,
    nothing can fall after it; the compression is then read between the last two checkpoints, so that a curve that still
    rises has a factor above 1. reads: metrics of the item table to load, [rank_me_resample].
    """
    _check(phase, list(PHASES), "phase")
    phases = _phases(metrics, items)
    rows = _rows(metrics, "rank_me", choice="default", subset="text", variant="base")
    logs = {}
    for key, curve in ((key, curve) for key, curve in _wide(rows).items() if key in phases):
        change = phases[key].changes[PHASES[phase]].change
        if phase == "compression" and phases[key].peak >= curve.index[-1] and len(curve) > 1:
            change = float(np.log(curve.iloc[-1] / curve.iloc[-2]))
        logs[key] = change
    values = pd.Series(logs).rename_axis(CURVE)
    per_seed = {seed: float(np.exp(value)) for seed, value in _by_seed(values, f"the {phase}").items()}
    note = f"By model: {_models(values.map(np.exp))}. {_seen(phases)}"
    return Evidence(per_seed, _n(rows), note=note)


def _rho(metrics: pd.DataFrame, items: pd.DataFrame, subset: str) -> pd.DataFrame:
    """Distributional memorization of the base runs: columns model, seed, tokens, value, n (questions)."""
    scores = items[items["subset"] == subset] if "subset" in items else items.iloc[:0]
    if scores.empty:
        raise MissingData(f"No run has likelihoods of answers to {subset}.")
    known = scores[scores["metric"] == "infini_gram_log_probability"].drop_duplicates(["seed", "item"])
    reference = known.set_index(["seed", "item"])["value"].rename("reference")
    if reference.empty:
        raise MissingData(f"No n-gram counts of the training data give likelihoods of answers to {subset}.")
    runs = _rows(metrics, "rank_me", choice="default", subset="text", variant="base")
    runs = runs[["run", "step", *CURVE, "tokens"]].drop_duplicates(["run", "step"])
    answers = scores[scores["metric"] == "answer_log_likelihood"].drop_duplicates(["run", "step", "item"])
    both = answers[["run", "step", "item", "value"]].merge(runs, on=["run", "step"])
    both = both.join(reference, on=["seed", "item"], how="inner")
    found = []
    for (model, seed, tokens), own in groups(both, [*CURVE, "tokens"]):
        result = distributional_memorization(own["reference"].to_numpy(), own["value"].to_numpy(), zeros="skip")
        found.append((model, seed, tokens, result.rho, result.n))
    return pd.DataFrame(found, columns=[*CURVE, "tokens", "value", "n"]).dropna(subset=["value"])


def _measured(metrics: pd.DataFrame, items: pd.DataFrame, metric: str, subset: str) -> pd.DataFrame:
    """Rows of `rho` or of a metric of the base runs on held-out items."""
    if metric == "rho":
        rows = _rho(metrics, items, subset)
    else:
        rows = _plain(_rows(metrics, metric, subset=subset, variant="base", split="validation"))
    if rows.empty:
        raise MissingData(f"No pre-training run measured {metric} on {subset}.")
    return rows


def _at(curve: pd.Series, tokens: float) -> float:
    """Value at the measurement nearest to a number of tokens, on a log scale."""
    where = np.log1p(curve.index.to_numpy(float))
    return float(curve.iloc[int(np.abs(where - np.log1p(tokens)).argmin())])


def rise(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    subset: str,
    phase: Phase,
    minus: Sequence[Phase] = (),
    reads: Sequence[str] = (),
) -> Evidence:
    """Rise of a quantity over a phase of RankMe, minus its rises over other phases.

    metric: rho (correlation with infini-gram), choice_accuracy or recall, on `subset` (facts or continuations). The
    borders are start, trough, peak and last checkpoint of RankMe of the same run; the measurement nearest to each
    counts. Runs in which `phase` was not observed are left out (the phases in `minus` need not be).
    """
    for name in (phase, *minus):
        _check(name, list(PHASES), "phase")
    phases = _phases(metrics, items)
    rows = _measured(metrics, items, metric, subset)
    values, each = {}, []
    usable = _observed(phases, *({"expansion", phase} - {"warmup"}))
    for key, curve in ((key, curve) for key, curve in _wide(rows).items() if key in usable):
        borders = [curve.index[0], usable[key].trough, usable[key].peak, curve.index[-1]]
        levels = [_at(curve, tokens) for tokens in borders]
        rises = dict(zip(PHASES, np.diff(levels), strict=True))
        values[key] = rises[phase] - sum(rises[name] for name in minus)
        each.append(rises)
    if not values:
        raise MissingData(f"No run with an observed {phase} measured {metric} on {subset}.")
    note = f"Mean rise by phase: {parts(pd.DataFrame(each).mean().to_dict())}. {_seen(phases)}"
    return Evidence(_by_seed(pd.Series(values).rename_axis(CURVE), metric), _n(rows), note=note)


def rise_after_saturation(
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    metric: str,
    subset: str,
    share: float = 0.9,
    reads: Sequence[str] = (),
) -> Evidence:
    """Rise of `metric` after the correlation with infini-gram has saturated, minus its rise until then.

    Saturated: the first checkpoint with `share` of the correlation's rise from its start to its maximum. A run in which
    that is the last checkpoint has no rise after it. Both are measured on `subset`.
    """
    correlations = _wide(_rho(metrics, items, subset))
    rows = _measured(metrics, items, metric, subset)
    values, when = {}, []
    for key, curve in _wide(rows).items():
        rho = correlations.get(key)
        if rho is None or len(rho) < 2 or not rho.max() > rho.iloc[0]:
            continue
        tokens = rho.index[int((rho >= rho.iloc[0] + share * (rho.max() - rho.iloc[0])).argmax())]
        middle = _at(curve, tokens)
        values[key] = (curve.iloc[-1] - middle) - (middle - curve.iloc[0])
        when.append(tokens / curve.index[-1])
    if not values:
        raise MissingData(f"The correlation with infini-gram on {subset} rises in no run.")
    note = f"Saturated after {np.mean(when):.0%} of training (mean over runs)."
    return Evidence(_by_seed(pd.Series(values).rename_axis(CURVE), metric), _n(rows), note=note)


def least_correlation(metrics: pd.DataFrame, items: pd.DataFrame, subset: str, reads: Sequence[str] = ()) -> Evidence:
    """The weaker of two Spearman correlations over checkpoints: choice accuracy with alpha, and with minus RankMe.

    Checkpoints from the trough of RankMe on; the mean over models is taken before the weaker one.
    """
    phases = _phases(metrics, items)
    rows = _measured(metrics, items, "choice_accuracy", subset)
    sides = {"alpha": 1.0, "rank_me": -1.0}
    shape = {name: _wide(_rows(metrics, name, choice="default", subset="text", variant="base")) for name in sides}
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in sides}
    for key, accuracy in _wide(rows).items():
        for name, sign in sides.items():
            if key not in phases or key not in shape[name]:
                continue
            both = pd.concat([accuracy, shape[name][key]], axis=1, join="inner")
            both = both[both.index >= phases[key].trough]
            if len(both) >= FEWEST:
                found[name][key] = sign * float(both.rank().corr().iloc[0, 1])
    if not found["alpha"] or not found["rank_me"]:
        raise MissingData(f"No run has {FEWEST} checkpoints from the trough on with choice accuracy on {subset}.")
    by_seed = pd.DataFrame(found).rename_axis(CURVE).dropna().groupby(level="seed").mean()
    means = by_seed.mean()
    note = f"Mean correlation with alpha {means['alpha']:.2f}, with RankMe {-means['rank_me']:.2f}."
    return Evidence(kept(by_seed.min(axis=1).to_dict(), "a correlation"), _n(rows), note=note)


def intervention_change(metrics: pd.DataFrame, items: pd.DataFrame, intervention: str, subset: str) -> Evidence:
    """Choice accuracy with the fewest top components dropped (drop_top) or kept (keep_top), minus without change.

    The last checkpoint; of the numbers of components that were tried, the smallest.
    """
    _check(intervention, ("drop_top", "keep_top"), "intervention")
    asked = {"subset": subset, "variant": "base", "split": "validation"}
    rows = _rows(metrics, "choice_accuracy", **asked, intervention=["none", intervention])
    rows = rows[rows["tokens"] == rows.groupby(CURVE)["tokens"].transform("max")]
    changed = rows[rows["intervention"] == intervention]
    changed = changed[changed["components"] == changed.groupby(CURVE)["components"].transform("min")]
    intact = rows[rows["intervention"] == "none"].groupby(CURVE)["value"].mean()
    differences = changed.groupby(CURVE)["value"].mean() - intact
    k = parts(changed.groupby("model")["components"].first().to_dict())
    note = f"Components: {k}. Accuracy without a change: {_models(intact)}."
    return Evidence(_by_seed(differences, f"accuracy under {intervention}"), _n(rows), note=note)


# ---- post-training


def _stage_logs(metrics: pd.DataFrame, stage: str, probe: str) -> tuple[pd.Series, pd.DataFrame]:
    """Change of log RankMe from the first to the last measurement of a stage, by model and seed; and the rows."""
    _check(stage, STAGES, "stage")
    _check(probe, ("text", "task"), "probe")
    how = {"choice": "default", "subset": "text"}
    if probe == "task":
        how = {"choice": "data", "subset": "short", "token": "answer"}
    rows = _rows(metrics, "rank_me", stage=stage, **how)
    logs = {key: np.log(curve.iloc[-1] / curve.iloc[0]) for key, curve in _wide(rows).items() if len(curve) > 1}
    if not logs:
        raise MissingData(f"RankMe was measured only once during {stage}.")
    return pd.Series(logs).rename_axis(CURVE), rows


def stage_factor(metrics: pd.DataFrame, items: pd.DataFrame, stage: str, probe: str = "text") -> Evidence:
    """Factor by which RankMe changes over a stage of post-training.

    probe: text (last token of held-out text, the paper's) or task (the last token of held-out prompts of the task,
    which predicts the reply).
    """
    logs, rows = _stage_logs(metrics, stage, probe)
    per_seed = {seed: float(np.exp(value)) for seed, value in _by_seed(logs, f"RankMe of {stage}").items()}
    curve = rows.groupby("tokens")["value"].mean()
    note = f"RankMe {curve.iloc[0]:.4g} before and {curve.iloc[-1]:.4g} after {stage}."
    return Evidence(per_seed, _n(rows), note=note)


def least_stage_factor(metrics: pd.DataFrame, items: pd.DataFrame, probe: str = "task") -> Evidence:
    """The least of three factors: rise of RankMe over SFT and over DPO, and fall over GRPO. Above 1: all three hold."""
    signs = {"sft": 1.0, "dpo": 1.0, "grpo": -1.0}
    logs, n = {}, 0
    for stage, sign in signs.items():
        changes, rows = _stage_logs(metrics, stage, probe)
        logs[stage], n = sign * changes, n + _n(rows)
    table = pd.DataFrame(logs).dropna().groupby(level="seed").mean()
    factors = {stage: float(np.exp(signs[stage] * table[stage].mean())) for stage in signs}
    per_seed = kept(np.exp(table.min(axis=1)).to_dict(), "RankMe of all three stages")
    return Evidence(per_seed, n, note=f"Factor by stage: {parts(factors)}.")


def pass_difference(metrics: pd.DataFrame, items: pd.DataFrame, k: Literal["smallest", "largest"]) -> Evidence:
    """pass@k at the end of GRPO minus that at the end of DPO, which GRPO starts from; the smallest or largest k."""
    _check(k, ("smallest", "largest"), "k")
    rows = _rows(metrics, "pass_at_k", stage=["dpo", "grpo"], subset="short")
    rows = rows[rows["k"] == (rows["k"].min() if k == "smallest" else rows["k"].max())]
    rows = rows[rows["tokens"] == rows.groupby(["run", *CURVE])["tokens"].transform("max")]
    ends = rows.groupby([*CURVE, "stage"])["value"].last().unstack("stage").reindex(columns=["dpo", "grpo"]).dropna()
    per_seed = _by_seed(ends["grpo"] - ends["dpo"], "pass@k after both DPO and GRPO")
    note = f"pass@{rows['k'].iloc[0]:g}: {parts(ends.mean().to_dict())}."
    return Evidence(per_seed, _n(rows), note=note)


def last_base(metrics: pd.DataFrame, items: pd.DataFrame, format: str, subset: str) -> Evidence:
    """Loss after SFT on `format` of the longest trained base, minus that of the best earlier base (nats a reply).

    The loss is that of held-out replies of `subset` at the last step. Which earlier base is the best one is asked of
    the OTHER seeds, because the least of several noisy values is too low; a single seed has to ask itself.
    """
    rows = _rows(metrics, "reply_loss", stage="sft", format=format, subset=subset, split="validation")
    rows = rows[rows["tokens"] == rows.groupby("run")["tokens"].transform("max")]
    table = rows.groupby(["seed", "base_tokens"])["value"].mean().unstack("base_tokens").dropna()
    if table.empty or table.shape[1] < 2:
        raise MissingData(f"Fine-tuning on {format} did not start from two or more checkpoints of a base in any seed.")
    earlier, last = table.iloc[:, :-1], table.iloc[:, -1]
    per_seed = {}
    for at, seed in enumerate(table.index):
        others = earlier.drop(index=seed) if len(table) > 1 else earlier
        best = int(others.mean().to_numpy().argmin())
        per_seed[seed] = float(last.iloc[at] - earlier.iloc[at, best])
    means = rows[rows["seed"].isin(table.index)].groupby("base_step")["value"].mean().add_prefix("step ").to_dict()
    return Evidence(kept(per_seed, "the loss of all bases"), _n(rows), note=f"Mean loss by base: {parts(means)}.")


# ---- the toy model


def _toy(metrics: pd.DataFrame, setting: str, metric: str) -> pd.DataFrame:
    rows = metrics.iloc[:0]
    if "setting" in metrics:
        rows = metrics[(metrics["setting"] == setting) & (metrics["metric"] == metric)]
    if rows.empty:
        raise MissingData(f"The toy model has no {metric} of the setting {setting}.")
    return rows.drop_duplicates(["seed", "step", *(["class"] if "class" in rows else [])])


def _shares(hits: dict[str, pd.Series]) -> Evidence:
    """1 for a seed in which any setting is a hit, else 0; with all seeds alike, the exact binomial interval decides."""
    any_hit = pd.DataFrame(hits).dropna().any(axis=1).astype(float)
    per_seed = kept(any_hit.to_dict(), "all settings of the toy model")
    note = f"Share of seeds by setting: {parts({name: own.mean() for name, own in hits.items()})}."
    return Evidence(per_seed, len(per_seed), {seed: np.array([value]) for seed, value in per_seed.items()}, note=note)


def toy_phase(
    metrics: pd.DataFrame, items: pd.DataFrame, phase: Phase, settings: Sequence[str], minimum: float
) -> Evidence:
    """Whether (1 or 0 in each seed) RankMe of the features has a phase in any of these settings of the toy model.

    minimum: least relative change of RankMe that counts. A fall counts as compression only after a rise.
    """
    _check(phase, list(TOY), "phase")
    hits = {}
    for setting in settings:
        table = _toy(metrics, setting, "rank_me").pivot(index="seed", columns="step", values="value").sort_index(axis=1)
        found = geometry_toy.phase_changes(table.to_numpy()).observed(TOY[phase], minimum)
        hits[setting] = pd.Series(found, index=table.index)
    return _shares(hits)


def toy_frequent(metrics: pd.DataFrame, items: pd.DataFrame, setting: str, learned: int) -> Evidence:
    """Whether (1 or 0 in each seed) exactly the `learned` most frequent classes of a toy setting are learned.

    Learned: a mean output of at least one half for the own class at the last step, where 1 is the target.
    """
    rows = _toy(metrics, setting, "class_output")
    rows = rows[rows["step"] == rows["step"].max()].sort_values(["seed", "n"], ascending=[True, False], kind="stable")
    place = rows.groupby("seed").cumcount()
    right = (rows["value"] >= 0.5) == (place < learned)
    return _shares({setting: right.groupby(rows["seed"]).all()})
