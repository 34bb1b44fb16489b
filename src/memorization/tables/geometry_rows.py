"""What tables and claims of paper `geometry` share: tokens seen, curves over checkpoints, their phases.

A curve is what one model of one seed and one variant of its training (CURVE) shows over its checkpoints, in the order
of tokens seen. It is not the same as a run: every public checkpoint is a run of its own at paper size.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from memorization.errors import UserError
from memorization.probes.phases import PHASES, Phases, label_phases
from memorization.tables.common import pick

CURVE = ["model", "seed", "variant"]
# Columns that tell measurements of one checkpoint apart.
DETAILS = [
    "metric", "subset", "split", "stage", "format", "start", "base_step", "choice", "layer", "token", "sequences",
    "length", "centred", "window", "k", "intervention", "components",
]  # fmt: skip
MINIMUM, CONFIDENCE = 0.1, 0.95


class Curve(NamedTuple):
    """Whose curve it is."""

    model: str
    seed: int
    variant: str


class Resampled(NamedTuple):
    """A curve and its bootstrap: tokens (n,), curve (n,) of all probe sequences, draws (B, n), width of the model."""

    tokens: np.ndarray
    curve: np.ndarray
    draws: np.ndarray
    width: int


def tokens_of(metrics: pd.DataFrame) -> pd.Series:
    """Tokens seen at each row (float, same index): those of the initial weights and those of the training steps."""
    missing = [c for c in ("base_tokens", "step", "tokens_per_step") if c not in metrics]
    if missing:
        raise UserError(f"Rows without column {missing[0]!r} have no count of tokens: give measurements of `geometry`.")
    return metrics["base_tokens"].astype(float) + metrics["step"].astype(float) * metrics["tokens_per_step"].astype(
        float
    )


def curves(metrics: pd.DataFrame, metric: str | list[str], **choose: Any) -> pd.DataFrame:
    """Rows of a metric (or several) with a column `tokens`, sorted by CURVE, metric and tokens.

    choose: columns and the wanted value(s), as in `pick`; stage "pretraining" unless it is chosen. A measurement that
    several experiments or runs share (a base model) is there once. Nothing is averaged: choose so that one row a metric
    and checkpoint is left, for example choice="default" and subset="text". The index is new.
    """
    choose = {"stage": "pretraining", **choose}
    absent = [c for c, value in choose.items() if value is not None and c not in metrics]
    if absent and len(metrics):
        raise UserError(f"No column {absent[0]!r} to choose rows of {metric} by: write a column of the measurements.")
    if metrics.empty:
        return pd.DataFrame(columns=[*CURVE, "tokens", "metric", "value"])
    rows = pick(metrics, metric=metric, **choose)
    rows = rows.assign(tokens=tokens_of(rows))
    keys = [*CURVE, "tokens", *(c for c in DETAILS if c in rows)]
    rows = rows.drop_duplicates(keys)
    return rows.sort_values([*CURVE, "metric", "tokens"], kind="stable", ignore_index=True)


def default_rows(metrics: pd.DataFrame, metric: str | list[str] = "rank_me", **choose: Any) -> pd.DataFrame:
    """`curves` of RankMe or alpha in the basic measurement: validation text, last layer, last token, all sequences."""
    return curves(metrics, metric, **{"choice": "default", "subset": "text", **choose})


def resamples(items: pd.DataFrame, metrics: pd.DataFrame, metric: str = "rank_me") -> dict[Curve, Resampled]:
    """Bootstrap resamples of every pre-training curve of `metric` ("rank_me" or "alpha").

    items: rows of `<metric>_resample`, item = number of the resample; metrics: the basic measurements of the same runs.
    Rows of draws are resamples that some checkpoint has, NaN where a checkpoint lacks one. Checkpoints without any are
    left out, and so are curves.
    """
    rows = default_rows(metrics, metric)
    wanted = pick(items, metric=f"{metric}_resample", run=list(rows["run"].unique())) if len(items) else items
    if rows.empty or wanted.empty:
        return {}
    keys = ["run", "step"]
    drawn = wanted[[*keys, "item", "value"]].drop_duplicates([*keys, "item"])
    drawn = drawn.merge(rows[[*keys, *CURVE, "tokens"]], on=keys)
    found = {}
    for key, part in drawn.groupby(CURVE, sort=True):
        wide = part.pivot(index="item", columns="tokens", values="value").sort_index(axis=1)
        model, seed, variant = key
        own = pick(rows, model=model, seed=seed, variant=variant).set_index("tokens")
        tokens = wide.columns.to_numpy(float)
        curve = own.loc[tokens, "value"].to_numpy(float)
        one = Resampled(tokens, curve, wide.to_numpy(float), int(own["width"].iloc[0]))
        found[Curve(str(model), int(str(seed)), str(variant))] = one
    return found


def phases_of(
    metrics: pd.DataFrame, items: pd.DataFrame, minimum: float = MINIMUM, confidence: float = CONFIDENCE
) -> dict[Curve, Phases]:
    """Phases of every pre-training curve of RankMe that has resamples, by `label_phases`; steps are tokens seen."""
    return {
        key: label_phases(one.tokens, one.curve, one.draws, minimum=minimum, confidence=confidence)
        for key, one in resamples(items, metrics).items()
    }


def phase_rows(phases: dict[Curve, Phases]) -> pd.DataFrame:
    """One row a curve and phase, for tables.

    Columns CURVE, phase, value (change of log RankMe, cross-fitted), low, high (its interval), plain (between the
    extremes of the curve itself), state, and tokens and tokens_end, where the phase begins and ends (NaN for the first
    and the last checkpoint).
    """
    rows = []
    for key, found in phases.items():
        ends = {
            PHASES[0]: (np.nan, found.trough),
            PHASES[1]: (found.trough, found.peak),
            PHASES[2]: (found.peak, np.nan),
        }
        for name, one in found.changes.items():
            rows.append((*key, name, one.change, one.low, one.high, one.plain, one.state, *ends[name]))
    columns = [*CURVE, "phase", "value", "low", "high", "plain", "state", "tokens", "tokens_end"]
    return pd.DataFrame(rows, columns=columns)


def with_phase(
    rows: pd.DataFrame,
    metrics: pd.DataFrame,
    items: pd.DataFrame,
    minimum: float = MINIMUM,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Rows with `tokens` plus a column `phase`: that in which the curve of RankMe is at this checkpoint, "" for none.

    A checkpoint belongs to the phase of the stretch that ends at it (see `Phases.labels`). Any metric may be labelled;
    a checkpoint at which RankMe was not measured gets "".
    """
    known: dict[tuple[Any, ...], str] = {}
    for key, one in resamples(items, metrics).items():
        found = label_phases(one.tokens, one.curve, one.draws, minimum=minimum, confidence=confidence)
        known |= {(*key, at): str(label) for at, label in zip(one.tokens, found.labels, strict=True)}
    places = zip(*(rows[c] for c in [*CURVE, "tokens"]), strict=True)
    return rows.assign(phase=[known.get((str(m), int(s), str(v), float(t)), "") for m, s, v, t in places])
