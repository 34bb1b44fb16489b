"""Intervals cover, tests keep their error rate, corrections equal hand-computed and brute-force values."""

import itertools

import numpy as np
import pytest
from scipy import stats

from memorization.claims import statistics as st
from memorization.claims.statistics import Evidence


def within_binomial(hits: int, trials: int, share: float) -> bool:
    """Whether a simulated share agrees with its target, at one false alarm in 10,000."""
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], trials, share)
    return bool(low <= hits <= high)


def evidence(values, **more) -> Evidence:
    return Evidence(dict(enumerate(values)), n=len(values), **more)


# ---- seeds


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_seed_interval_covers_at_its_level(n, confidence):
    values = np.random.default_rng(n).normal(2.0, 3.0, (20_000, n))
    low, high = st.seed_interval(values, confidence)
    assert within_binomial(int(((low < 2) & (high > 2)).sum()), 20_000, confidence)


def test_seed_interval_by_hand():
    # mean 2, sd 1, t(.975, 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    assert st.seed_interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((-0.484138, 4.484138), abs=1e-6)


def test_two_seeds_have_no_interval_and_no_p():
    assert np.isnan(st.seed_interval(np.array([1.0, 2.0]))).all()
    assert np.isnan(st.one_sided_p(np.array([1.0, 2.0]), 0, "greater"))


@pytest.mark.parametrize("direction", ["greater", "less"])
def test_one_sided_test_keeps_its_error_rate(direction):
    values = np.random.default_rng(1).normal(0.7, 1.0, (20_000, 4))
    p = st.one_sided_p(values, 0.7, direction)
    for alpha in (0.01, 0.05, 0.5):
        assert within_binomial(int((p < alpha).sum()), 20_000, alpha)


def test_one_sided_p_agrees_with_scipy_and_directions_are_complements():
    values = np.array([0.2, 0.9, 0.4, 1.1])
    expected = stats.ttest_1samp(values, 0.5, alternative="greater").pvalue
    assert st.one_sided_p(values, 0.5, "greater") == pytest.approx(expected)
    assert st.one_sided_p(values, 0.5, "less") == pytest.approx(1 - expected)
    assert st.one_sided_p(values + 5, 0.5, "greater") < 0.01


def test_tost_by_hand():
    # mean .1, sd .1, n 4 -> standard error .05; t = .4/.05 = 8 and -.2/.05 = -4, 3 degrees of freedom
    values = 0.1 + 0.1 * np.sqrt(3 / 4) * np.array([1, -1, 1, -1])
    assert st.tost_p(values, -0.3, 0.3) == pytest.approx(stats.t.sf(4, 3))
    assert st.tost_p(values, -0.3, 0.3) == pytest.approx(0.0140042, abs=1e-6)
    assert st.outside_p(values, -0.3, 0.3) == 1.0


def test_tost_is_wrong_at_the_margin_no_more_often_than_alpha():
    values = np.random.default_rng(2).normal(0.5, 0.1, (20_000, 4))
    wrong = int((st.tost_p(values, -0.5, 0.5) < 0.05).sum())
    assert within_binomial(wrong, 20_000, 0.05)  # the other margin is so far away that the level is exact
    wide = np.random.default_rng(3).normal(0.5, 1.0, (20_000, 4))
    assert (st.tost_p(wide, -0.5, 0.5) < 0.05).mean() < 0.05  # conservative when noise fills the margins


def test_outside_p_keeps_its_error_rate_at_either_margin():
    for truth in (-0.5, 0.5):
        values = np.random.default_rng(4).normal(truth, 0.1, (20_000, 4))
        assert (st.outside_p(values, -0.5, 0.5) < 0.05).mean() < 0.05


def test_minimum_detectable_effect_has_its_power():
    effect = st.minimum_detectable_effect(sd=1.0, n=4)
    values = np.random.default_rng(5).normal(effect, 1.0, (20_000, 4))
    low, _ = st.seed_interval(values)
    assert within_binomial(int((low > 0).sum()), 20_000, 0.8)


# ---- items


def test_item_bootstrap_covers_the_mean_of_given_seeds():
    rng, covered, trials = np.random.default_rng(6), 0, 400
    shares = np.array([0.3, 0.5, 0.8])  # seeds differ: their spread must not enter
    for trial in range(trials):
        items = {s: (rng.random(60) < share).astype(float) for s, share in enumerate(shares)}
        low, high = st.item_bootstrap(items, 0.95, samples=300, seed=trial)
        covered += low <= shares.mean() <= high
    assert within_binomial(covered, trials, 0.95)


def test_item_bootstrap_weighs_seeds_equally_and_repeats_itself():
    items = {0: np.zeros(1000), 1: np.ones(10)}
    assert st.item_draws(items, 50).tolist() == [0.5] * 50
    mixed = {0: np.arange(10.0), 1: np.arange(7.0)}
    assert st.item_bootstrap(mixed, seed=3) == st.item_bootstrap(mixed, seed=3) != st.item_bootstrap(mixed, seed=4)


def test_binomial_by_hand():
    assert st.binomial_p(0, 10, 0.05, "less") == pytest.approx(0.95**10)
    assert st.binomial_p(10, 10, 0.5, "greater") == pytest.approx(0.5**10)
    assert st.binomial_p(0, 10, -0.1, "greater") == 0 == st.binomial_p(10, 10, 1.1, "less"), "no share lies beyond"
    assert st.binomial_p(0, 10, -0.1, "less") == 1 == st.binomial_p(10, 10, 1.1, "greater")
    low, high = st.binomial_interval(0, 10, 0.95)
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))


# ---- order


def brute_force(orders):
    """P value by listing the joint rearrangements of all seeds."""

    def score(order):
        return sum(
            1.0 if a < b else 0.5 if a == b else 0.0
            for i, group in enumerate(order) for later in order[i + 1:] for a in group for b in later
        )  # fmt: skip

    def arrangements(order):
        sizes = [len(group) for group in order]
        for values in itertools.permutations([v for group in order for v in group]):
            edges = np.cumsum([0, *sizes])
            yield [values[a:b] for a, b in itertools.pairwise(edges)]

    observed = sum(map(score, orders))
    joint = list(itertools.product(*(list(map(score, arrangements(order))) for order in orders)))
    return np.mean([sum(scores) >= observed - 1e-9 for scores in joint])


@pytest.mark.parametrize(
    "orders",
    [
        [[[1], [2, 3], [4]], [[1], [2, 3], [4]]],
        [[[1], [4, 3], [2]], [[1], [2, 2], [2]]],
        [[[3], [2], [1]], [[1], [2], [3]], [[1], [3], [2]]],
        [[[1], [np.inf], [np.inf]]],
    ],
)
def test_ordering_p_equals_brute_force(orders):
    assert st.ordering_p(orders) == pytest.approx(brute_force(orders))
    turned = [[group for group in reversed(order)] for order in orders]
    assert st.ordering_p(orders, reverse=True) == pytest.approx(brute_force(turned))


def test_ordering_p_of_perfect_order_by_hand():
    # a < {b, c} < d: 2 of 24 orders, in each of three seeds
    assert st.ordering_p([[[1], [3, 2], [9]]] * 3) == pytest.approx((2 / 24) ** 3)


def test_ordering_p_keeps_its_error_rate_under_random_order():
    rng = np.random.default_rng(7)
    p = np.array([st.ordering_p([[[v] for v in rng.permutation(3)] for _ in range(3)]) for _ in range(1500)])
    for alpha in (0.05, 0.2):
        assert (p <= alpha).sum() <= stats.binom.ppf(1 - 1e-4, 1500, alpha)


def test_concordance_counts_ties_half_and_ignores_pairs_within_a_level():
    assert st.concordance([[1], [3, 2], [9]]) == 1.0
    assert st.concordance([[1], [1]]) == 0.5
    assert st.concordance([[9], [3, 2], [1]]) == 0.0
    with pytest.raises(ValueError, match="two levels"):
        st.concordance([[1, 2]])


# ---- families


def holm_by_definition(p):
    """Smallest level at which step-down Holm rejects, searched on the only levels where that can change."""
    levels = sorted({min(1.0, value * k) for value in p for k in range(1, len(p) + 1)})

    def rejects(alpha, index):
        for k, j in enumerate(np.argsort(p, kind="stable")):
            if p[j] * (len(p) - k) > alpha:
                return False
            if j == index:
                return True
        raise AssertionError

    return [next((level for level in levels if rejects(level, i)), 1.0) for i in range(len(p))]


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1, then running maximum
    assert st.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_equals_its_definition():
    rng = np.random.default_rng(8)
    for _ in range(50):
        p = np.round(rng.random(6) ** 3, 3).tolist()
        assert st.holm(p) == pytest.approx(holm_by_definition(p))


def test_holm_leaves_out_what_was_not_tested():
    adjusted = st.holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and np.isnan(adjusted[1])


def test_holm_keeps_the_family_error_rate():
    values = np.random.default_rng(9).normal(0, 1, (2000, 20, 4))
    p = st.one_sided_p(values, 0, "greater")
    wrong = sum((st.holm(family) < 0.05).any() for family in p)
    assert wrong <= stats.binom.ppf(1 - 1e-4, 2000, 0.05)


# ---- one claim


def test_equal_seeds_with_binary_items_use_the_exact_binomial():
    items = {seed: np.zeros(48) for seed in range(3)}
    result = st.assess_level(evidence([0.0] * 3, items=items), "less", 0.05)
    assert result.basis == "exact binomial over items"
    assert result.p == pytest.approx(0.95**144)
    assert (result.ci_low, result.ci_high) == pytest.approx((0, 1 - 0.025 ** (1 / 144)))
    assert result.ci_high > 0 and np.isnan(result.item_ci_high)  # no interval of width 0


def test_equal_seeds_with_graded_items_use_the_item_bootstrap():
    items = {seed: np.array([0.2, 0.4, 0.6, 0.8]) for seed in range(3)}
    result = st.assess_level(evidence([0.5] * 3, items=items), "greater", 0.0, samples=99)
    assert result.basis == "item bootstrap" and result.p == pytest.approx(0.01) and result.ci_low > 0.2


def test_equal_seeds_without_items_use_the_sign_test_and_have_no_interval():
    result = st.assess_level(evidence([2.0] * 4), "greater", 1.0)
    assert result.basis == "sign test over seeds"
    assert (result.p, result.p_opposite) == (1 / 16, 1.0) and np.isnan(result.ci_low)


def test_items_that_all_agree_on_a_fraction_say_nothing():
    items = {seed: np.full(10, 0.5) for seed in range(3)}
    assert st.assess_level(evidence([0.5] * 3, items=items), "greater", 0.1).basis == "sign test over seeds"


def test_differing_seeds_use_t_even_if_items_exist():
    items = {seed: np.full(10, 0.1 * (seed + 1)) for seed in range(3)}
    result = st.assess_level(evidence([0.1, 0.2, 0.3], items=items), "greater", 0.0)
    assert result.basis == "t over seeds"
    assert result.p == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3], 0, alternative="greater").pvalue)


def test_ratios_are_tested_on_the_log_scale():
    ratios = [1.1, 1.3, 1.2, 1.4]
    result = st.assess_level(evidence(ratios), "greater", 1.0, log=True)
    assert result.measured == pytest.approx(stats.gmean(ratios))
    assert result.p == pytest.approx(stats.ttest_1samp(np.log(ratios), 0, alternative="greater").pvalue)
    inverse = st.assess_level(evidence([1 / r for r in ratios]), "less", 1.0, log=True)
    assert inverse.p == pytest.approx(result.p) and inverse.ci_low == pytest.approx(1 / result.ci_high)
    with pytest.raises(ValueError, match="positive"):
        st.assess_level(evidence([0.0, 1.0, 2.0]), "greater", 1.0, log=True)


def test_equivalence_of_ratios_by_factor():
    ratios = [0.98, 1.03, 1.01]
    result = st.assess_level(evidence(ratios), "equivalent", 1.0, margin=1.5, log=True)
    margin = np.log(1.5)
    assert result.p == pytest.approx(float(st.tost_p(np.log(ratios), -margin, margin)))
    assert result.p < 0.01 and result.p_opposite == 1.0
    far = st.assess_level(evidence([2.9, 3.1, 3.0]), "equivalent", 1.0, margin=1.5, log=True)
    assert far.p > 0.99 and far.p_opposite < 0.01


def test_order_interval_stays_between_0_and_1_and_needs_spread():
    same = evidence([1.0] * 3, orders={s: [[1], [2], [3]] for s in range(3)})
    result = st.assess_order(same, 0.95)
    assert result.p == pytest.approx(1 / 216) and result.worst_seed == 1.0 and np.isnan(result.ci_low)
    mixed = evidence([1, 1, 1 / 3], orders={0: [[1], [2], [3]], 1: [[1], [2], [3]], 2: [[2], [3], [1]]})
    result = st.assess_order(mixed, 0.95)
    assert 0 <= result.ci_low < result.measured < result.ci_high <= 1 and result.worst_seed == pytest.approx(1 / 3)
