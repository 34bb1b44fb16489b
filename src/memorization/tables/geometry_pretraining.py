"""The numbers behind the pre-training figures of paper `geometry`: phases, capabilities beside them, and what brings
the third phase.

Rows of ours have `source` "ours" and the phase that their curve of RankMe is in. Rows of the paper have `source`
"paper", seed -1 and the columns of config/published/geometry.csv: `value_high` and `tokens_high` are the other ends
where the paper gives a range.
"""

from typing import Any

import numpy as np
import pandas as pd

from memorization.probes.distributional import distributional_memorization
from memorization.tables.common import pick, reads, some
from memorization.tables.geometry_rows import (
    CONFIDENCE,
    CURVE,
    MINIMUM,
    Curve,
    curves,
    default_rows,
    phase_rows,
    phases_of,
    with_phase,
)

Params = dict[str, Any]
PARTS = 5  # disjoint parts of the questions, for the standard error of a correlation
# Convention for answer tokens that the training data do not have -> metric of the infini-gram model made by it.
ZEROS = {"skip": "infini_gram_log_probability", "zero": "infini_gram_log_probability_zero"}
MARK = [*CURVE, "width", "tokens", "subset", "metric", "value", "n", "phase"]
THEIRS = ["model", "data", "subset", "metric", "value", "value_high", "tokens", "tokens_high", "point", "type", "tag"]
RANGES = ("all", "from_trough", "from_peak")
TYPES = ("pearson", "spearman")
RESAMPLES = ("rank_me_resample",)


# ------------------------------------------------------------------------------------------------------------
# Shared


def published(params: Params) -> pd.DataFrame:
    """The paper's rows of a figure, shares instead of percent; empty where it has none."""
    theirs = params.get("published")
    if theirs is None or theirs.empty:
        return pd.DataFrame(columns=[*THEIRS, "source", "seed"])
    value = theirs["value"] / np.where(theirs["unit"] == "percent", 100, 1)
    return theirs[THEIRS].assign(value=value, source="paper", seed=-1)


def with_paper(table: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Append rows of the paper to ours; words that one side lacks are ""."""
    table = table.assign(source="ours")
    both = pd.concat([table, theirs], ignore_index=True) if len(theirs) else table.reset_index(drop=True)
    words = [c for c in both if both[c].dtype == object or pd.api.types.is_string_dtype(both[c])]
    return both.assign(**{str(c): both[c].fillna("") for c in words})


def limits(params: Params) -> dict[str, float]:
    """`minimum` and `confidence` of `label_phases`, as `params` may set them."""
    return {"minimum": params.get("minimum", MINIMUM), "confidence": params.get("confidence", CONFIDENCE)}


def untouched(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows measured without an intervention on the spectrum, all with intervention "none" and no components."""
    if "intervention" not in metrics:
        return metrics
    rows = metrics[metrics["intervention"].isna() | metrics["intervention"].isin(["", "none"])]
    return rows.assign(intervention="none", components=0)


def _labelled(parts: list[pd.DataFrame], metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Rows with `tokens` in one frame, with their phases and the columns of a table."""
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    extra = [c for c in ("low", "high", "zeros") if c in rows]
    return with_phase(rows, metrics, items, **limits(params))[[*MARK, *extra]]


def _geometry(metrics: pd.DataFrame, figure: str, **choose: Any) -> pd.DataFrame:
    """RankMe and alpha of the basic measurement; a `UserError` if there is none."""
    rows = default_rows(metrics, ["rank_me", "alpha"], **{"variant": "base", **choose})
    return some(rows, figure, "probe representations in pre-training")


# ------------------------------------------------------------------------------------------------------------
# Phases (Fig. 2, 11)


@reads("rank_me", "alpha", "cross_entropy", "gradient_norm", "learning_rate", items=RESAMPLES)
def fig2(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Loss, gradient norm, learning rate, RankMe and alpha against tokens seen (Fig. 2)."""
    rows = _geometry(metrics, "geometry_fig2")
    loss = curves(metrics, "cross_entropy", variant="base", subset="text", split="validation")
    training = curves(metrics, ["gradient_norm", "learning_rate"], variant="base")
    table = _labelled([rows, loss, training], metrics, items, params)
    return with_paper(table, published(params))


@reads("rank_me", "alpha", items=RESAMPLES)
def fig11(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe and alpha of the small sizes against tokens seen (Fig. 11)."""
    table = _labelled([_geometry(metrics, "geometry_fig11")], metrics, items, params)
    return with_paper(table, published(params))


# ------------------------------------------------------------------------------------------------------------
# Capabilities (Fig. 3, Table 9)


def distributional(metrics: pd.DataFrame, items: pd.DataFrame, parts: int = PARTS) -> pd.DataFrame:
    """Spearman correlation between infini-gram's and the models' log-likelihoods of answers, a row a checkpoint.

    Questions are joined by seed, subset and item. Columns CURVE, width, tokens, subset, metric ("rho"), zeros ("skip"
    or "zero", what becomes of tokens that the training data do not have), value, low and high (value -+ one standard
    error over `parts` disjoint parts of the questions: item modulo parts), n (questions). Checkpoints are those at
    which RankMe was measured. Empty without likelihoods on both sides.
    """
    places = default_rows(metrics, variant="base")[["run", "step", *CURVE, "width", "tokens"]]
    if items.empty:
        return pd.DataFrame()
    answers = pick(items, metric="answer_log_likelihood", split="validation")
    # a resumed or shared run may be read twice
    answers = answers[["run", "step", "subset", "item", "value"]].drop_duplicates(["run", "step", "subset", "item"])
    answers = answers.merge(places, on=["run", "step"])
    key, rows = ["seed", "subset", "item"], []
    for zeros, metric in ZEROS.items():
        known = pick(items, metric=metric)[[*key, "value"]].drop_duplicates(key)
        both = answers.merge(known.rename(columns={"value": "reference"}), on=key)
        for about, part in both.groupby([*CURVE, "width", "tokens", "subset"], sort=True):
            reference, model = part["reference"].to_numpy(float), part["value"].to_numpy(float)
            whole = distributional_memorization(reference, model, zeros)
            mine = [part["item"].to_numpy() % parts == k for k in range(parts)]
            pieces = [distributional_memorization(reference[own], model[own], zeros).rho for own in mine]
            there = np.array([rho for rho in pieces if np.isfinite(rho)])
            error = there.std(ddof=1) / np.sqrt(len(there)) if len(there) > 1 else np.nan
            rows.append((*about, "rho", zeros, whole.rho, whole.rho - error, whole.rho + error, whole.n))
    columns = [*CURVE, "width", "tokens", "subset", "metric", "zeros", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


@reads(
    "rank_me", "alpha", "choice_accuracy", "recall", items=(*RESAMPLES, "answer_log_likelihood", *ZEROS.values())
)  # fmt: skip
def fig3(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Distributional memorization beside alpha, and accuracy on continuations and facts, against tokens (Fig. 3).

    Rows of rho have `zeros`; the others have "" there. `low` and `high` are rho -+ a standard error over questions.
    """
    figure = "geometry_fig3"
    alpha = pick(_geometry(metrics, figure), metric="alpha")
    rho = some(
        distributional(metrics, items), figure, "answers' likelihoods with an infini-gram model of the same seed"
    )
    able = curves(untouched(metrics), ["choice_accuracy", "recall"], variant="base", split="validation")
    able = some(able, figure, "probe capabilities")
    return with_paper(_labelled([alpha, rho, able], metrics, items, params), published(params))


def correlation(x: pd.Series, y: pd.Series, kind: str) -> float:
    """Pearson or Spearman correlation; NaN for fewer than three pairs or a constant side."""
    there = x.notna() & y.notna()
    x, y = x[there], y[there]
    if kind == "spearman":
        x, y = x.rank(), y.rank()
    if len(x) < 3 or x.nunique() < 2 or y.nunique() < 2:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


@reads("rank_me", "alpha", "choice_accuracy", items=RESAMPLES)
def tab9(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Correlation over checkpoints of choice accuracy on continuations with alpha and with RankMe (Table 9).

    A row a model, seed, `range` (RANGES: all checkpoints, from the trough of RankMe on, from its peak on), `type`
    (TYPES) and metric ("correlation_alpha", "correlation_rank_me"); n counts checkpoints and value is NaN below three.
    The paper states neither range nor type: its rows have range "" and type "not stated".
    """
    figure = "geometry_tab9"
    chosen = curves(untouched(metrics), "choice_accuracy", variant="base", subset="continuations", split="validation")
    some(chosen, figure, "choice_accuracy on continuations")
    both = _geometry(metrics, figure).merge(
        chosen[[*CURVE, "tokens", "value"]], on=[*CURVE, "tokens"], suffixes=("", "_chosen")
    )
    found = phases_of(metrics, items, **limits(params))
    places = {key: {"all": -np.inf, "from_trough": one.trough, "from_peak": one.peak} for key, one in found.items()}
    rows = []
    for key, part in both.groupby([*CURVE, "width", "metric"], sort=True):
        model, seed, variant, width, metric = key
        starts = places.get(Curve(str(model), int(str(seed)), str(variant)), {"all": -np.inf})
        for name in RANGES:
            # no phases, no trough: nothing is later than NaN
            some_of = part[part["tokens"] >= starts.get(name, np.nan)]
            for kind in TYPES:
                value = correlation(some_of["value"], some_of["value_chosen"], kind)
                about = (model, seed, variant, width)
                rows.append((*about, f"correlation_{metric}", "continuations", name, kind, value, len(some_of)))
    columns = [*CURVE, "width", "metric", "subset", "range", "type", "value", "n"]
    return with_paper(pd.DataFrame(rows, columns=columns), published(params))


# ------------------------------------------------------------------------------------------------------------
# Beyond the paper


@reads("rank_me", items=RESAMPLES)
def x_third_phase(metrics: pd.DataFrame, items: pd.DataFrame, params: Params) -> pd.DataFrame:
    """RankMe of the variants of pre-training, the size of each phase, and the difference from the base.

    Metrics: "rank_me" (a row a checkpoint), "change" (a row a phase: cross-fitted change of log RankMe, low and high
    its interval, state "observed" or not), "contrast" (that change minus that of the base of the same seed). `phase` is
    the phase of a checkpoint or of a change.
    """
    figure = "geometry_x_third_phase"
    own = pick(metrics, experiment="third_phase") if len(metrics) else metrics
    own = some(own, figure, "experiment third_phase")
    curve = some(default_rows(own), figure, "probe representations in experiment third_phase")
    curve = with_phase(curve, own, items, **limits(params))[[*MARK]]
    changes = phase_rows(phases_of(own, items, **limits(params)))
    changes = changes.rename(columns={"tokens_end": "tokens_high"}).assign(metric="change", subset="text")
    # a variant may be of another size than the base
    base = pick(changes, variant="base").groupby(["seed", "phase"])["value"].mean().rename("base").reset_index()
    contrast = changes[changes["variant"] != "base"].merge(base, on=["seed", "phase"])
    contrast = contrast.assign(value=contrast["value"] - contrast["base"], metric="contrast", state="")
    contrast = contrast.assign(low=np.nan, high=np.nan, plain=np.nan).drop(columns="base")
    widths = curve.drop_duplicates(CURVE)[[*CURVE, "width"]]
    more = [part.merge(widths, on=CURVE) for part in (changes, contrast) if len(part)]
    return with_paper(pd.concat([curve, *more], ignore_index=True), published(params))
