"""At which epoch a fine-tuning run is read (`layernorm`).

The paper trains Post-LN models for 40 epochs and Pre-LN models for 70 (appendix F.3), and what removing LayerNorm
parameters does depends on the epoch. So every contrast here is read in three ways.
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from memorization.errors import UserError

Reading = Literal["budget", "equal", "matched"]
READINGS: tuple[Reading, ...] = get_args(Reading)
SLACK = 1e-9  # accuracies are k/N in float64, levels decimal literals


def reading_epochs(metrics: pd.DataFrame, reading: Reading, level: float = 0.95) -> pd.Series:
    """Epoch at which each run is read: a Series from `run` to epoch, NaN for a run that never gets there.

    metrics: rows of fine-tuning runs with columns run, epoch, budget, metric, split, value; `matched` needs their
    training accuracy. budget: the last evaluation within the run's own budget, the paper's unequal ones. equal: the
    last evaluation; all runs of a model are trained for the same epochs. matched: the first evaluation whose training
    accuracy is at least `level`, a fraction.
    """
    if reading not in READINGS:
        raise UserError(f"no reading named {reading!r}: write one of {', '.join(READINGS)}")
    runs = pd.Index(metrics["run"].unique(), name="run")
    rows = metrics
    if reading == "budget":
        rows = metrics[metrics["epoch"] <= metrics["budget"] + SLACK]
    if reading == "matched":
        there = metrics["metric"].eq("accuracy") & metrics["split"].eq("train") & metrics["value"].ge(level - SLACK)
        return metrics[there].groupby("run")["epoch"].min().reindex(runs, fill_value=np.nan)
    return rows.groupby("run")["epoch"].max().reindex(runs, fill_value=np.nan)


def at_reading(metrics: pd.DataFrame, reading: Reading, level: float = 0.95) -> pd.DataFrame:
    """Rows of every run at its epoch of a reading, with column `reading`; runs that never get there have none."""
    epochs = reading_epochs(metrics, reading, level)
    wanted = metrics["run"].map(epochs)
    return metrics[np.isclose(metrics["epoch"], wanted)].assign(reading=reading)
