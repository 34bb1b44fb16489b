"""Phases of a curve: constructed curves whose trough, peak and changes are known, and noise in which there are none."""

import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest

from memorization.errors import UserError
from memorization.probes.phases import PHASES, label_phases

WARMUP, ENTROPY, COMPRESSION = PHASES
RESAMPLES = 50


def noisy(truth, spread, seed, shared=0.0, resamples=RESAMPLES):
    """A measured curve and its resamples: independent noise of the logarithm, and noise that all checkpoints share."""
    rng = np.random.default_rng(seed)
    n = len(truth)
    y = np.log(truth) + rng.normal(0, spread, n) + rng.normal(0, shared)
    draws = y + rng.normal(0, spread, (resamples, n)) + rng.normal(0, shared, (resamples, 1))
    return np.arange(n), np.exp(y), np.exp(draws)


def certain(curve, spread=0.005, seed=0):
    """Resamples that agree on the extremes of a curve."""
    rng = np.random.default_rng(seed)
    return np.array(curve) * np.exp(rng.normal(0, spread, (RESAMPLES, len(curve))))


def states(found):
    return {name: change.state for name, change in found.changes.items()}


# ---- curves with known answers


def test_three_phases_have_the_changes_between_their_extremes():
    steps, curve = [0, 1, 2, 4, 8, 16, 32, 64], [20, 20, 12, 5, 8, 25, 18, 10]
    found = label_phases(steps, curve, certain(curve))
    assert (found.trough, found.peak) == (4, 16)
    wanted = {WARMUP: np.log(5 / 20), ENTROPY: np.log(25 / 5), COMPRESSION: np.log(10 / 25)}
    for name, change in wanted.items():
        # all resamples agree on the extremes, and deviations from their mean cancel
        assert found.changes[name].change == pytest.approx(change)
        assert found.changes[name].plain == pytest.approx(change)
    assert found.observed == PHASES
    assert list(found.labels) == [WARMUP] * 4 + [ENTROPY] * 2 + [COMPRESSION] * 2


def test_the_interval_is_that_of_the_bootstrap_where_extremes_are_certain():
    curve = [20, 5, 25, 10]
    draws = certain(curve, spread=0.02)
    found = label_phases([0, 1, 2, 3], curve, draws, confidence=0.9)
    error = np.std(np.log(draws[:, 2] / draws[:, 1]), ddof=1)
    half = NormalDist().inv_cdf(0.95) * error
    change = found.changes[ENTROPY]
    assert (change.low, change.high) == pytest.approx((np.log(5) - half, np.log(5) + half))


@pytest.mark.parametrize(
    "curve, trough, peak, observed",
    [
        ([2, 3, 5, 8, 12], 0, 4, (ENTROPY,)),
        ([12, 8, 5, 3, 2], 4, 4, (WARMUP,)),
        ([10, 10, 10, 10, 10], None, None, ()),
        ([5, 10, 20, 12, 6], 0, 2, (ENTROPY, COMPRESSION)),
        ([20, 10, 5, 12, 24], 2, 4, (WARMUP, ENTROPY)),
        ([100, 10, 60, 30], 1, 2, PHASES),  # the start is higher than the later peak
        ([10, 5, 20, 19.6, 19.2], 1, 2, (WARMUP, ENTROPY)),  # the last fall is 4 %
        ([10, 9.7, 20, 20.2], 1, 3, (ENTROPY,)),  # the first fall is 3 %
        ([20, 5, 40, 10, 15], 1, 2, PHASES),  # a second, smaller rise
    ],
)
def test_phases_that_are_not_there_are_not_observed(curve, trough, peak, observed):
    found = label_phases(range(len(curve)), curve, certain(curve, 0.002))
    assert found.observed == observed
    if trough is not None:
        assert (found.trough, found.peak) == (trough, peak)
    assert set(states(found).values()) <= {"observed", "not observed"}


def test_checkpoints_of_phases_that_are_not_observed_have_no_label():
    found = label_phases(range(5), [10, 9.7, 20, 20.2, 20], certain([10, 9.7, 20, 20.2, 20], 0.002))
    assert list(found.labels) == ["", "", ENTROPY, ENTROPY, ""]
    assert list(label_phases(range(3), [3, 2, 1], certain([3, 2, 1])).labels) == [WARMUP] * 3
    assert list(label_phases(range(3), [4, 4, 4], certain([4, 4, 4])).labels) == [""] * 3


def test_a_compression_needs_an_expansion_before_it():
    curve = [30, 20, 10, 10.2, 5]  # falls all the way but for a wiggle
    found = label_phases(range(5), curve, certain(curve, 0.002))
    assert states(found) == {WARMUP: "observed", ENTROPY: "not observed", COMPRESSION: "not observed"}
    assert found.changes[WARMUP].change == pytest.approx(np.log(5 / 30))


def test_the_minimum_and_not_only_zero_must_be_excluded():
    curve = [10, 11.5, 11.5]
    draws = certain(curve, 0.002)
    assert label_phases(range(3), curve, draws, minimum=0.1).observed == (ENTROPY,)
    assert label_phases(range(3), curve, draws, minimum=0.2).observed == ()


def test_a_change_within_its_error_is_not_observed():
    curve = [10, 13, 10]
    assert label_phases(range(3), curve, certain(curve, 0.01)).observed == (ENTROPY, COMPRESSION)
    assert label_phases(range(3), curve, certain(curve, 0.15)).observed == ()


# ---- noise


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("minimum", [0.0, 0.1])
def test_flat_noise_shows_no_phases(spread, minimum):
    flat = np.full(22, 20.0)
    found = [label_phases(*noisy(flat, spread, seed), minimum=minimum) for seed in range(200)]
    assert sum(bool(one.observed) for one in found) <= 4  # 2 %
    # the difference of the extremes alone would have named a rise nearly always
    naive = sum(one.changes[ENTROPY].plain > np.log1p(minimum) for one in found)
    assert naive > 180 or (spread, minimum) == (0.02, 0.1)


def test_sizes_are_not_inflated_by_the_choice_of_extremes():
    flat = np.full(22, 20.0)
    found = [label_phases(*noisy(flat, 0.1, seed)).changes[ENTROPY] for seed in range(200)]
    assert np.mean([one.plain for one in found]) > 0.25
    assert abs(np.mean([one.change for one in found])) < 0.02
    # a plateau from which it falls by 15 %: the highest of five checkpoints is no better than the others
    truth = np.array([24, 12, 6, 12, 24, 30, 30, 30, 30, 30, 27, 25.5])
    found = [label_phases(*noisy(truth, 0.03, seed)).changes[COMPRESSION] for seed in range(200)]
    assert np.mean([one.plain for one in found]) < np.log(0.85) - 0.02
    assert np.mean([one.change for one in found]) == pytest.approx(np.log(0.85), abs=0.008)
    covered = np.mean([one.low < np.log(0.85) < one.high for one in found])
    assert 0.9 < covered <= 1


def test_real_phases_are_found_in_noise():
    truth = np.concatenate([np.geomspace(24, 7, 8), np.geomspace(8, 31, 10), np.geomspace(29, 20, 5)])
    found = [label_phases(*noisy(truth, 0.03, seed)) for seed in range(50)]
    assert np.mean([one.observed == PHASES for one in found]) > 0.95


def test_what_all_checkpoints_share_does_not_widen_the_intervals():
    truth = np.array([20, 10, 5, 12, 25, 26])
    _, curve, draws = noisy(truth, 0.01, 3)
    rng = np.random.default_rng(0)
    alone = label_phases(range(6), curve, draws).changes[ENTROPY]
    shared = label_phases(range(6), curve, draws * np.exp(rng.normal(0, 0.5, (RESAMPLES, 1)))).changes[ENTROPY]
    # not exactly: the extremes are looked for in shifted curves, whose shape is the same
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high))


def test_a_shift_of_all_resamples_is_no_change():
    curve = [20, 5, 25, 10]
    draws = certain(curve)
    plain, low = label_phases(range(4), curve, draws), label_phases(range(4), curve, draws * [0.9, 0.8, 0.9, 0.95])
    for name in PHASES:
        assert low.changes[name].change == pytest.approx(plain.changes[name].change)
        assert low.changes[name].low == pytest.approx(plain.changes[name].low)


# ---- gaps and bad input


def test_checkpoints_without_a_value_are_left_out_and_labelled_by_their_place():
    steps, curve = [0, 1, 2, 3, 4, 5, 6], [20, np.nan, 5, 0.0, 25, np.nan, 10]
    draws = certain(np.nan_to_num(curve, nan=1.0))
    whole = label_phases([0, 2, 4, 6], [20, 5, 25, 10], draws[:, ::2])
    found = label_phases(steps, curve, draws)
    assert (found.trough, found.peak, found.changes) == (2, 4, whole.changes)
    assert list(found.labels) == [WARMUP] * 3 + [ENTROPY] * 2 + [COMPRESSION] * 2


def test_gaps_in_resamples_cost_the_resample_or_the_checkpoint():
    curve = np.array([20.0, 5, 7, 25, 10])
    draws = certain(curve)
    draws[:3, 1] = np.nan
    draws[:40, 2] = np.nan
    found = label_phases(range(5), curve, draws)
    kept = label_phases([0, 1, 3, 4], curve[[0, 1, 3, 4]], draws[3:][:, [0, 1, 3, 4]])
    assert found.changes == kept.changes


def test_nothing_is_said_about_less_than_two_checkpoints():
    found = label_phases([0, 1, 2], [np.nan, 3, np.nan], np.ones((5, 3)))
    assert found.observed == () and np.isnan(found.trough) and np.isnan(found.changes[WARMUP].change)
    assert list(found.labels) == ["", "", ""]


@pytest.mark.parametrize(
    "steps, curve, draws, options, said",
    [
        ([0, 1], [1, 2, 3], np.ones((5, 3)), {}, r"\(B, n\)"),
        ([0, 1, 2], [1, 2, 3], np.ones(3), {}, r"\(B, n\)"),
        ([0, 2, 1], [1, 2, 3], np.ones((5, 3)), {}, "sort"),
        ([0, 1, 1], [1, 2, 3], np.ones((5, 3)), {}, "repeats"),
        ([0, 1, 2], [1, 2, 3], np.ones((1, 3)), {}, "two or more"),
        ([0, 1, 2], [1, 2, 3], np.ones((5, 3)), {"minimum": -0.1}, "0.1"),
        ([0, 1, 2], [1, 2, 3], np.ones((5, 3)), {"confidence": 95}, "0.95"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(steps, curve, draws, options, said):
    with pytest.raises(UserError, match=said):
        label_phases(steps, curve, draws, **options)


def test_it_needs_numpy_only():
    program = (
        "import sys, memorization.probes.phases; "
        "sys.exit(int(bool({'torch', 'scipy', 'pandas', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
