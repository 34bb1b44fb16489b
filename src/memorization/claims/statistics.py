"""Tests, intervals and corrections behind a verdict. Pure numpy and scipy; knows nothing of papers or files.

Two sources of chance are kept apart: another seed (new data, new initialization) and other items under the
same seed. A claim is about what happens when the experiment is run again, so verdicts rest on the spread
over SEEDS (Student t); the bootstrap over ITEMS is reported beside it. Only where every seed gave exactly
the same value, so that the seed spread says nothing (a zero-width interval would feign certainty), do the
items decide; see `assess_level`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

MINIMUM_SEEDS = 3
MOST_ORDERED = 8  # 8! = 40,320 orders are enumerated in under a second
Tail = Callable[[float, str], float]  # (edge, "greater" or "less") -> P value


class MissingData(Exception):
    """The run tables lack what a statistic needs. The claim is then "not tested"; this is why."""


@dataclass(frozen=True)
class Evidence:
    """What a claim's statistic measured.

    per_seed : seed -> value of the statistic.
    n        : items (or events) behind it, over all seeds.
    items    : seed -> (items,) values whose mean is that seed's statistic, where such values exist.
    orders   : for ordering claims, seed -> values grouped by level in the CLAIMED ascending order.
    note     : a full sentence the reader of the verdict should know (parts, seeds left out, censoring).
    """

    per_seed: Mapping[int, float]
    n: int
    items: Mapping[int, np.ndarray] | None = None
    orders: Mapping[int, Sequence[Sequence[float]]] | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """One test. p speaks for the claim, p_opposite for its contrary; NaN where the data cannot say."""

    measured: float
    ci_low: float
    ci_high: float
    p: float
    p_opposite: float
    seeds: int
    basis: str
    item_ci_low: float = np.nan
    item_ci_high: float = np.nan
    minimum_detectable_effect: float = np.nan
    worst_seed: float = np.nan  # ordering only: the least concordant seed


# ---- seeds


def seed_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided Student t interval of the mean over seeds, the last axis of `values` (..., seeds).

    NaN below 3 seeds. The t quantile at 2 degrees of freedom is 4.3, so three seeds must agree closely.
    """
    values = np.asarray(values, float)
    n = values.shape[-1]
    if n < MINIMUM_SEEDS:
        nothing = np.full(values.shape[:-1], np.nan)
        return nothing, nothing
    mean = values.mean(-1)
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * values.std(-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def one_sided_p(values: np.ndarray, threshold: float, direction: str) -> np.ndarray:
    """P value of "mean > threshold" (direction "greater") or "<" ("less"), Student t over the last axis.

    NaN below 3 seeds, or where all seeds are equal and the t statistic means nothing.
    """
    values = np.asarray(values, float)
    n = values.shape[-1]
    if n < MINIMUM_SEEDS:
        return np.full(values.shape[:-1], np.nan)
    error = np.where(all_equal(values), np.nan, values.std(-1, ddof=1) / np.sqrt(n))
    t = (values.mean(-1) - threshold) / error
    return stats.t.sf(t if direction == "greater" else -t, n - 1)


def all_equal(values: np.ndarray) -> np.ndarray:
    """Whether the last axis holds one value, up to rounding in the last digits."""
    values = np.asarray(values, float)
    return np.ptp(values, axis=-1) <= 1e-12 * np.maximum(1.0, np.abs(values).max(-1))


def tost_p(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Equivalence: P value of "low < mean < high", two one-sided t tests (the larger of the two P values)."""
    return np.maximum(one_sided_p(values, low, "greater"), one_sided_p(values, high, "less"))


def outside_p(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Contrary of `tost_p`: P value of "mean < low or mean > high". Doubled: either side would do."""
    either = np.minimum(one_sided_p(values, low, "less"), one_sided_p(values, high, "greater"))
    return np.minimum(1.0, 2 * either)


def minimum_detectable_effect(sd: float, n: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """Distance of the true mean from the threshold that n seeds of spread `sd` would show with this power.

    Noncentral t; "show" means that the two-sided interval excludes the threshold. Holm's correction comes
    on top, so this is the most favorable case.
    """
    if n < MINIMUM_SEEDS or not sd > 0:
        return np.nan
    critical = stats.t.ppf(0.5 + confidence / 2, n - 1)

    def lack(effect: float) -> float:
        return stats.nct.sf(critical, n - 1, effect) - power

    return float(optimize.brentq(lack, 0.0, critical + 50.0) * sd / np.sqrt(n))


# ---- items


def item_draws(items: Mapping[int, np.ndarray], samples: int = 1000, seed: int = 0) -> np.ndarray:
    """(samples,) bootstrap means: items are redrawn WITHIN each seed, then the seeds' means are averaged."""
    rng = np.random.default_rng(seed)
    total = np.zeros(samples)
    for key in sorted(items):
        values = np.asarray(items[key], float)
        rows = max(1, 2_000_000 // len(values))  # keeps the index array below about 16 MB
        for start in range(0, samples, rows):
            stop = min(samples, start + rows)
            total[start:stop] += values[rng.integers(0, len(values), (stop - start, len(values)))].mean(1)
    return total / len(items)


def item_bootstrap(
    items: Mapping[int, np.ndarray], confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `item_draws`: what other items under the SAME seeds would have given."""
    low, high = np.quantile(item_draws(items, samples, seed), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def binomial_p(successes: int, trials: int, threshold: float, direction: str) -> float:
    """Exact binomial P value of "share > threshold" or "share < threshold"; beyond 0 and 1 the answer is certain."""
    if not 0 <= threshold <= 1:
        return 0.0 if (threshold < 0) == (direction == "greater") else 1.0
    return float(stats.binomtest(successes, trials, threshold, alternative=direction).pvalue)


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share."""
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


# ---- order


def _twice_concordant(values: Sequence[float], level: Sequence[int]) -> int:
    """2 for each between-level pair in the claimed order, 1 for a tie."""
    pairs = [(a, b) for a, b in itertools.combinations(range(len(values)), 2) if level[a] != level[b]]
    return sum(2 * (values[a] < values[b]) + (values[a] == values[b]) for a, b in pairs)


def concordance(order: Sequence[Sequence[float]]) -> float:
    """Share of pairs from different levels that stand in the claimed ascending order; ties count half.

    1: all in order (no ties); .5: chance; 0: exactly reversed. Pairs within a level carry no claim.
    """
    values, level, pairs = _flatten(order)
    return _twice_concordant(values, level) / (2 * pairs)


def ordering_p(orders: Sequence[Sequence[Sequence[float]]], reverse: bool = False) -> float:
    """Exact P value of the claimed order: how often seeds ordered at random are at least as concordant.

    orders: per seed, values grouped by level in the claimed order. Every rearrangement of each seed's values
    over the positions is enumerated; the seeds are convolved. If all seeds are perfectly ordered this is the
    chance that every seed gets the order by luck, e.g. (1! 2! 1! / 4!)^seeds for a < {b, c} < d.
    `reverse` gives the P value of the opposite order. Errors: ValueError above 8 values a seed.
    """
    distribution, observed = np.ones(1), 0
    for order in orders:
        values, level, pairs = _flatten(order)
        if len(values) > MOST_ORDERED:
            raise ValueError(f"an exact ordering test takes at most {MOST_ORDERED} values, not {len(values)}")
        score = _twice_concordant(values, level)
        counts = np.zeros(2 * pairs + 1)
        for permuted in itertools.permutations(values):
            counts[_twice_concordant(permuted, level)] += 1
        if reverse:
            score, counts = 2 * pairs - score, counts[::-1]
        distribution = np.convolve(distribution, counts / counts.sum())
        observed += score
    return float(min(1.0, distribution[observed:].sum()))


def _flatten(order: Sequence[Sequence[float]]) -> tuple[list[float], list[int], int]:
    values = [value for group in order for value in group]
    level = [index for index, group in enumerate(order) for _ in group]
    pairs = sum(a != b for a, b in itertools.combinations(level, 2))
    if pairs == 0:
        raise ValueError("an order needs at least two levels")
    return values, level, pairs


# ---- families


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted P values of one family. NaN entries are no members of it and stay NaN."""
    raw = np.asarray(p, float)
    adjusted = np.full(raw.shape, np.nan)
    members = np.flatnonzero(~np.isnan(raw))
    ranked = members[np.argsort(raw[members], kind="stable")]
    steps = raw[ranked] * np.arange(len(ranked), 0, -1)
    adjusted[ranked] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


# ---- one claim


def assess_order(evidence: Evidence, confidence: float) -> Result:
    """Ordering claim: mean concordance with its seed interval (kept in 0..1), exact P values."""
    if evidence.orders is None:
        raise ValueError("an ordering test needs Evidence.orders; let the statistic fill it")
    orders = [evidence.orders[seed] for seed in sorted(evidence.orders)]
    scores = np.array([concordance(order) for order in orders])
    few = len(scores) < MINIMUM_SEEDS
    low, high = (np.nan, np.nan) if few or all_equal(scores) else seed_interval(scores, confidence)
    return Result(
        measured=float(scores.mean()),
        ci_low=float(np.clip(low, 0, 1)),
        ci_high=float(np.clip(high, 0, 1)),
        p=np.nan if few else ordering_p(orders),
        p_opposite=np.nan if few else ordering_p(orders, reverse=True),
        seeds=len(scores),
        basis="exact permutation",
        worst_seed=float(scores.min()),
    )


def assess_level(
    evidence: Evidence,
    test: str,
    threshold: float,
    margin: float | None = None,
    log: bool = False,
    confidence: float = 0.95,
    samples: int = 1000,
) -> Result:
    """Greater, less or equivalent claim.

    log: the statistic is a ratio. It is tested as log(value) against log(threshold), the margin is a factor,
    and mean and interval are turned back (geometric mean); so is the minimum detectable effect.

    Where all seeds are exactly equal, in this order: 0/1 items -> exact binomial over the items of all seeds
    (with no spread between seeds pooling is the natural model; it overstates certainty if items repeat);
    other items that differ -> item bootstrap, P at least 1/(samples + 1); otherwise the sign test, P =
    1/2^seeds on the side where the seeds lie, and no interval, so that such a claim stays inconclusive.
    """
    seeds = sorted(evidence.per_seed)
    raw = np.array([evidence.per_seed[seed] for seed in seeds], float)
    if log and (raw <= 0).any():
        raise ValueError("a ratio tested on the log scale must be positive in every seed")
    values, center = (np.log(raw), float(np.log(threshold))) if log else (raw, threshold)
    half = np.nan if margin is None else (float(np.log(margin)) if log else margin)
    items = evidence.items if evidence.items and not log and set(evidence.items) == set(seeds) else None
    draws = item_draws(items, samples) if items else None

    low, high = (float(edge) for edge in seed_interval(values, confidence))
    basis = "t over seeds"

    def student(edge: float, direction: str) -> float:
        return float(one_sided_p(values, edge, direction))

    tail: Tail = student
    if len(values) >= MINIMUM_SEEDS and all_equal(values):
        low, high, basis, tail = _without_spread(values, items, draws, confidence)

    if test == "equivalent":  # the arithmetic of tost_p and outside_p, on whichever tail applies
        p = max(tail(center - half, "greater"), tail(center + half, "less"))
        opposite = min(1.0, 2 * min(tail(center - half, "less"), tail(center + half, "greater")))
    else:
        p = tail(center, test)
        opposite = tail(center, "less" if test == "greater" else "greater")
    # With power .9 on each side equivalence is shown with power .8 when the truth is exact equality.
    sd = float(values.std(ddof=1)) if len(values) > 1 and not all_equal(values) else np.nan
    effect = minimum_detectable_effect(sd, len(values), confidence, 0.9 if test == "equivalent" else 0.8)
    edges = [0.5 - confidence / 2, 0.5 + confidence / 2]
    # Items that do not differ have no bootstrap spread; [0, 0] would feign certainty.
    item_low, item_high = np.quantile(draws, edges) if draws is not None and np.ptp(draws) > 0 else [np.nan] * 2
    back = np.exp if log else float
    return Result(
        measured=float(back(values.mean())) if len(values) else np.nan,
        ci_low=float(back(low)),
        ci_high=float(back(high)),
        p=p,
        p_opposite=opposite,
        seeds=len(values),
        basis=basis,
        item_ci_low=float(item_low),
        item_ci_high=float(item_high),
        minimum_detectable_effect=float(back(effect)),
    )


def _without_spread(
    values: np.ndarray, items: Mapping[int, np.ndarray] | None, draws: np.ndarray | None, confidence: float
) -> tuple[float, float, str, Tail]:
    """Interval, basis and tail probability when every seed gave the same value; see `assess_level`."""
    pooled = np.concatenate([np.asarray(v, float) for v in items.values()]) if items else np.empty(0)
    if draws is not None and np.isin(pooled, (0.0, 1.0)).all():
        hits, trials = int(pooled.sum()), len(pooled)
        low, high = binomial_interval(hits, trials, confidence)
        return low, high, "exact binomial over items", lambda e, d: binomial_p(hits, trials, e, d)
    if draws is not None and np.ptp(pooled) > 0:

        def tail(edge: float, direction: str) -> float:
            wrong = (draws <= edge) if direction == "greater" else (draws >= edge)
            return float((wrong.sum() + 1) / (len(draws) + 1))

        low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
        return float(low), float(high), "item bootstrap", tail

    def sign(edge: float, direction: str) -> float:
        right = values[0] > edge if direction == "greater" else values[0] < edge
        return 0.5 ** len(values) if right else 1.0

    return np.nan, np.nan, "sign test over seeds", sign
