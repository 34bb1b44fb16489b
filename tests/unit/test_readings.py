"""At which epoch a run is read: against plain loops and values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from memorization.errors import UserError
from memorization.tables.readings import READINGS, at_reading, reading_epochs


def run(name, budget, train, epochs=None, loss=None):
    """Rows of one run: training accuracy, test accuracy and one more metric at every evaluation."""
    rows = []
    for k, value in enumerate(train):
        epoch = float(epochs[k]) if epochs else float(2 * k)
        about = {"run": name, "budget": budget, "epoch": epoch}
        rows.append({**about, "metric": "accuracy", "split": "train", "value": value})
        rows.append({**about, "metric": "accuracy", "split": "validation", "value": 0.99})
        rows.append({**about, "metric": "loss", "split": "train", "value": 1.0})
    return rows


@pytest.fixture
def metrics():
    """Post-LN `a` and Pre-LN `b`, trained for the same epochs; `c` never learns."""
    return pd.DataFrame(
        run("a", 4, [0.2, 0.5, 0.9, 0.95, 0.97])
        + run("b", 8, [0.2, 0.96, 0.9, 0.97, 0.99])
        + run("c", 4, [0.1, 0.1, 0.2, 0.2, 0.3])
    )


def test_budget_is_the_last_evaluation_within_the_budget_and_equal_the_last_of_all(metrics):
    assert reading_epochs(metrics, "budget").to_dict() == {"a": 4, "b": 8, "c": 4}
    assert reading_epochs(metrics, "equal").to_dict() == {"a": 8, "b": 8, "c": 8}


def test_a_budget_between_two_evaluations_takes_the_earlier_and_rounding_does_not_lose_one():
    rows = pd.DataFrame(run("a", 5, [0.1] * 4, [0, 2, 4, 6]) + run("b", 3 * 0.1, [0.1] * 3, [0, 0.3, 0.6]))
    assert 3 * 0.1 != 0.3
    assert reading_epochs(rows, "budget").to_dict() == {"a": 4, "b": 0.3}


def test_matched_is_the_first_time_the_training_accuracy_is_there_even_if_it_falls_again(metrics):
    epochs = reading_epochs(metrics, "matched", 0.95)
    assert epochs["a"] == 6 and epochs["b"] == 2 and np.isnan(epochs["c"])
    assert reading_epochs(metrics, "matched", 0.9).to_dict() == pytest.approx(
        {"a": 4, "b": 2, "c": np.nan}, nan_ok=True
    )


def test_matched_looks_at_training_accuracy_only(metrics):
    # test accuracy and loss are above the level from the start
    assert reading_epochs(metrics, "matched", 0.95)["a"] > 0


def test_a_fraction_that_is_the_level_up_to_rounding_reaches_it():
    rows = pd.DataFrame(run("a", 4, [0.1, 0.95 - 1e-12, 1.0]))
    assert reading_epochs(rows, "matched", 0.95)["a"] == 2


@pytest.mark.parametrize("reading", READINGS)
def test_rows_at_a_reading_are_those_of_each_run_at_its_epoch(metrics, reading):
    shuffled = metrics.sample(frac=1, random_state=0)
    epochs = reading_epochs(shuffled, reading)
    rows = at_reading(shuffled, reading)
    wanted = [(row.run, row.epoch) for row in shuffled.itertuples() if row.epoch == epochs[row.run]]
    assert [*zip(rows["run"], rows["epoch"], strict=True)] == wanted
    assert set(rows["reading"]) == {reading}
    assert rows.groupby("run").size().eq(3).all()  # every metric of that evaluation
    assert set(rows["run"]) == ({"a", "b"} if reading == "matched" else {"a", "b", "c"})


def test_an_unknown_reading_is_answered_by_the_known_ones(metrics):
    with pytest.raises(UserError, match=r"'last': write one of budget, equal, matched"):
        reading_epochs(metrics, "last")
