"""Statistics behind the claims of `tokenswap` (TokenSwap: disrupting memorized sequences, NeurIPS 2025).

Every function takes the run tables of the claim's experiments, `metrics` and `items`, and gives one number a
seed as `Evidence`. An arm (one model decoded in one way) is named by a line such as
`tuned-L tokenswap background-S english-110`, see `Arm`. Fractions are 0 to 1, cross-entropy is in nats per
token. All arms of a seed see the same passages and held-out texts, so comparisons are paired by item.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from memorization.claims.curves import kept, parts
from memorization.claims.schema import nearest
from memorization.claims.statistics import Evidence, MissingData, concordance
from memorization.errors import UserError

RECIPES = ("background", "wild", "tuned", "half1", "half2", "mix1", "mix2", "goldfish3", "goldfish4", "goldfish32",
           "other", "public")  # fmt: skip
METHODS = ("standard", "tokenswap", "memfree", "cp_fuse", "speculative")
WORDS = re.compile(r"(english|content)-\w+")
HELD_OUT = ("cross_entropy", "cross_entropy_words", "cross_entropy_others")
ROUNDING = 1e-4  # per-item values are float32


@dataclass(frozen=True)
class Arm:
    """A model and how it is decoded; None leaves a column open."""

    name: str
    model: str
    method: str
    aux: str | None = None
    words: str | None = None
    decoding: str = "greedy"

    @classmethod
    def parse(cls, name: str) -> "Arm":
        """`<model> <method>[ <aux>][ <words>][ sample]`, e.g. `half1-L cp_fuse half2-L`.

        Models are `<recipe>-<size>`, word sets `english-110` or `content-matched`. Errors: UserError with the
        nearest known word.
        """
        model, _, rest = name.partition(" ")
        method, *more = rest.split() or [""]
        _check_model(model, name)
        if method not in METHODS:
            raise UserError(f"The arm '{name}' has no method '{method}'; {nearest(method, METHODS)}.")
        found: dict[str, str] = {}
        for word in more:
            key = "decoding" if word in ("greedy", "sample") else "words" if WORDS.fullmatch(word) else "aux"
            if key == "aux":
                _check_model(word, name)
            if key in found:
                raise UserError(f"The arm '{name}' names {found[key]} and {word}; leave one of them out.")
            found[key] = word
        return cls(name, model, method, **found)

    def of(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Its rows, each run's measurement once (a run of two experiments comes twice)."""
        rows = metrics
        for column in ("model", "method", "aux", "words", "decoding"):
            wanted = getattr(self, column)
            rows = rows if wanted is None else rows[rows[column] == wanted]
        rows = rows.drop_duplicates("run")
        if rows["seed"].duplicated().any():
            runs = ", ".join(sorted(rows["run"])[:4])
            raise UserError(f"'{self.name}' names several arms ({runs}); add the auxiliary or the word set.")
        return rows.set_index("seed")


def _check_model(word: str, name: str) -> None:
    recipe, dash, size = word.partition("-")
    if recipe not in RECIPES:
        known = [*RECIPES, "english", "content", "sample"]
        raise UserError(f"The arm '{name}' has an unknown word '{word}'; {nearest(recipe, known)}.")
    if not (dash and size):
        raise UserError(f"The arm '{name}' has a model '{word}' without a size; write '{word}-L', say.")


@dataclass(frozen=True)
class _Table:
    """Measurements of arms.

    values, runs: seed x arm, only seeds with every arm; items: (subset, item) x run; n: items of the first arm.
    """

    metric: str
    values: pd.DataFrame
    runs: pd.DataFrame
    items: pd.DataFrame
    n: int

    def note(self) -> str:
        return f"Mean {self.metric}: " + parts(self.values.mean().to_dict()) + "."

    def by_item(self, seed: Any) -> pd.DataFrame | None:
        """item x arm values of one seed; None unless every arm has the same items."""
        runs = self.runs.loc[seed]
        table = self.items.reindex(columns=runs.tolist()).dropna(how="all").set_axis(runs.index, axis=1)
        return None if table.empty or table.isna().any(axis=None) else table


def _quoted(arms: Sequence[str], between: str = ", ") -> str:
    return between.join(f"'{arm}'" for arm in arms)


def _table(metrics: pd.DataFrame, items: pd.DataFrame, arms: Sequence[str], metric: str, data: str = "") -> _Table:
    data = data or ("held_out" if metric in HELD_OUT else "passages")
    rows = metrics[(metrics["metric"] == metric) & (metrics["data"] == data) & (metrics["subset"] == "all")]
    found = {arm: Arm.parse(arm).of(rows) for arm in arms}
    absent = [arm for arm, own in found.items() if own.empty]
    if absent:
        raise MissingData(f"No run of {_quoted(absent, ' or ')} measured {metric} on {data}.")

    def wide(column: str) -> pd.DataFrame:
        return pd.concat([own[column] for own in found.values()], axis=1, keys=found.keys(), join="inner").sort_index()

    values = wide("value").dropna()
    if values.empty:
        raise MissingData(f"No seed has {metric} of all of {_quoted(arms)}.")
    counts = found[arms[0]]["n"].reindex(values.index)
    runs = wide("run").loc[values.index]
    own = items[(items["metric"] == metric) & (items["data"] == data)]
    own = own[own["run"].isin(runs.to_numpy().ravel())].drop_duplicates(["run", "subset", "item"])
    if own["subset"].nunique() > 1:  # a total beside the domains would count each item twice
        own = own[own["subset"] != "all"]
    by_run = own.set_index(["subset", "item", "run"])["value"].astype(float).unstack("run")
    return _Table(metric, values, runs, by_run, int(counts.sum()))


def _with_items(
    per_seed: Mapping[int, float], by_item: Mapping[int, np.ndarray | None]
) -> dict[int, np.ndarray] | None:
    """The items, if every seed has them and their mean is its value (not so where tokens are averaged)."""
    good = {}
    for seed, value in per_seed.items():
        array = by_item.get(seed)
        if array is None or not len(array) or abs(array.mean() - value) > ROUNDING * max(1.0, abs(value)):
            return None
        good[seed] = array
    return good


def _combined(table: _Table, weights: Mapping[int, np.ndarray], note: str = "") -> Evidence:
    """Sum over arms of weight x value, each seed with its own weights; the same for every item."""
    per_seed = {int(s): float(table.values.loc[s].to_numpy() @ w) for s, w in weights.items()}
    by_item: dict[int, np.ndarray | None] = {}
    for seed, weight in weights.items():
        values = table.by_item(seed)
        by_item[int(seed)] = None if values is None else values.to_numpy() @ weight
    text = f"{table.note()} {note}".strip()
    return Evidence(kept(per_seed, table.metric), table.n, _with_items(per_seed, by_item), note=text)


# ---- one arm, or one against others


def level(metrics: pd.DataFrame, items: pd.DataFrame, arm: str, metric: str, data: str = "") -> Evidence:
    """Mean of `metric` of one arm. data: by default held-out text for cross-entropy, else the passages."""
    table = _table(metrics, items, [arm], metric, data)
    return _combined(table, {seed: np.ones(1) for seed in table.values.index})


def difference(
    metrics: pd.DataFrame, items: pd.DataFrame, arm: str, reference: str, metric: str, data: str = ""
) -> Evidence:
    """`metric` of `arm` minus that of `reference`, the same items in both."""
    table = _table(metrics, items, [arm, reference], metric, data)
    return _combined(table, {seed: np.array([1.0, -1.0]) for seed in table.values.index})


def difference_to_least(
    metrics: pd.DataFrame, items: pd.DataFrame, arm: str, references: Sequence[str], metric: str
) -> Evidence:
    """`metric` of `arm` minus the least among `references`, which is chosen anew in each seed."""
    table = _table(metrics, items, [arm, *references], metric)
    weights = {}
    for seed, row in zip(table.values.index, table.values.to_numpy(), strict=True):
        weights[int(seed)] = np.zeros(len(row))
        weights[int(seed)][[0, 1 + int(np.argmin(row[1:]))]] = 1.0, -1.0
    return _combined(table, weights)


def exact_match_ratio(metrics: pd.DataFrame, items: pd.DataFrame, arm: str, reference: str) -> Evidence:
    """Exact match of `arm` over that of `reference` (0: nothing left, 1: no effect).

    Not on the log scale: a count of 0 has no logarithm, and with a constant added to it the ratio would
    measure the number of passages. If the arm writes out no passage that the reference does not, the ratio
    is a share of the reference's passages, and these are its items.
    """
    table = _table(metrics, items, [arm, reference], "exact_match")
    per_seed, by_item = {}, {}
    for seed, (own, other) in zip(table.values.index, table.values.to_numpy(), strict=True):
        per_seed[int(seed)] = own / other if other > 0 else np.nan
        values = table.by_item(seed)
        if values is not None and (values[arm] <= values[reference]).all():
            by_item[int(seed)] = values.loc[values[reference] > 0, arm].to_numpy()
    per_seed = kept(per_seed, f"an exact match of {reference}")
    return Evidence(per_seed, table.n, _with_items(per_seed, by_item), note=table.note())


def changed_share(
    metrics: pd.DataFrame, items: pd.DataFrame, arm: str, reference: str, metric: str, data: str = ""
) -> Evidence:
    """Share of items whose value differs between the arms, in either direction.

    It bounds the difference of the means from above.
    """
    table = _table(metrics, items, [arm, reference], metric, data)
    by_item: dict[int, np.ndarray | None] = {}
    for seed in table.values.index:
        values = table.by_item(seed)
        if values is not None:
            by_item[int(seed)] = (values[arm] != values[reference]).to_numpy(float)
    per_seed = {seed: float(array.mean()) for seed, array in by_item.items() if array is not None}
    per_seed = kept(per_seed, f"{metric} of each item for both arms")
    n = sum(len(array) for array in by_item.values() if array is not None)
    return Evidence(per_seed, n, _with_items(per_seed, by_item), note=table.note())


def distribution_distance(
    metrics: pd.DataFrame, items: pd.DataFrame, arm: str, reference: str, metric: str
) -> Evidence:
    """Two-sample Kolmogorov-Smirnov distance of the items' values: largest gap of the cumulative shares."""
    table = _table(metrics, items, [arm, reference], metric)
    per_seed = {}
    for seed in table.values.index:
        values = table.by_item(seed)
        if values is not None:
            per_seed[int(seed)] = float(stats.ks_2samp(values[arm], values[reference]).statistic)
    return Evidence(kept(per_seed, f"{metric} of each item for both arms"), table.n, note=table.note())


# ---- series of arms


def _series(arm: str, over: Sequence[Any]) -> list[str]:
    """The arms that `arm` stands for, its {} filled with each of `over`."""
    if "{}" not in arm:
        raise UserError(f"The arm '{arm}' needs a place for {', '.join(map(str, over))}; write {{}} there.")
    return [arm.format(value) for value in over]


def ordering_over(metrics: pd.DataFrame, items: pd.DataFrame, arm: str, over: Sequence[Any], metric: str) -> Evidence:
    """Whether `metric` rises along `over`, e.g. arm `wild-{} standard` over [XS, S, M, L]. Value: concordance."""
    table = _table(metrics, items, _series(arm, over), metric)
    rows = zip(table.values.index, table.values.to_numpy(), strict=True)
    orders = {int(seed): [[float(value)] for value in row] for seed, row in rows}
    per_seed = {seed: concordance(order) for seed, order in orders.items()}
    return Evidence(per_seed, table.n, orders=orders, note=_series_note(table, over))


def range_over(metrics: pd.DataFrame, items: pd.DataFrame, arm: str, over: Sequence[Any], metric: str) -> Evidence:
    """Largest minus smallest `metric` along `over`."""
    table = _table(metrics, items, _series(arm, over), metric)
    spread = table.values.max(axis=1) - table.values.min(axis=1)
    return Evidence(kept(spread.to_dict(), metric), table.n, note=_series_note(table, over))


def _series_note(table: _Table, over: Sequence[Any]) -> str:
    means = zip(map(str, over), table.values.mean(), strict=True)
    return f"Mean {table.metric}: " + parts(dict(means)) + "."


def frontier_gap(
    metrics: pd.DataFrame, items: pd.DataFrame, arm: str, frontier: str, over: Sequence[Any], metric: str
) -> Evidence:
    """`metric` of the frontier at the arm's held-out cross-entropy, minus the arm's (above 0: arm below it).

    The frontier joins the arms `frontier` over `over` by lines in (cross-entropy, metric); beyond its ends
    the nearest end is taken, and the note says in how many seeds.
    """
    arms = [arm, *_series(frontier, over)]
    table, cost = _table(metrics, items, arms, metric), _table(metrics, items, arms, "cross_entropy").values
    weights, outside = {}, []
    for seed in table.values.index.intersection(cost.index):
        own, *line = cost.loc[seed]
        weights[seed] = np.array([-1.0, *_interpolation(np.array(line), own)])
        outside += ["above" if own > max(line) else "below"] if not min(line) <= own <= max(line) else []
    if not weights:
        raise MissingData(f"No seed has both {metric} and cross_entropy of all of {_quoted(arms)}.")
    notes = [
        f"In {outside.count(side)} of {len(weights)} seeds its cross-entropy lies {side} the whole frontier, so that "
        f"the end of {end} cross-entropy was taken."
        for side, end in (("below", "least"), ("above", "largest"))
        if side in outside
    ]
    return _combined(table, weights, " ".join(notes))


def _interpolation(x: np.ndarray, at: float) -> np.ndarray:
    """(points,) weights that interpolate linearly between the points at x; outside them, the nearest end."""
    order, weights = np.argsort(x, kind="stable"), np.zeros(len(x))
    place = float(np.clip(at, x.min(), x.max()))
    right = int(np.searchsorted(x[order], place))  # x[right - 1] < place <= x[right]
    if right == 0:
        weights[order[0]] = 1.0
        return weights
    low, high = order[right - 1], order[right]
    weights[high] = (place - x[low]) / (x[high] - x[low])
    weights[low] = 1.0 - weights[high]
    return weights
