"""Toy model of paper `geometry` (section 3.3, appendix B): gradient descent on free features and a linear classifier.

The encoder is linear and its inputs are orthonormal, so that the feature row of every sample moves on its own. What
is left are features f (b x d) and a classifier W (d x V). With softmax p = softmax(f W) and one-hot targets Y:

    f <- f - rate (p - Y) W^T        W <- W - rate f^T (p - Y)

the full batch at once, both from the same old values. This is gradient descent on the SUM of the cross-entropies, as
the equations say; `reduction: mean` divides the rate by b. With `loss: mse`, p is f W itself and the loss is half the
squared distance to Y. The paper states neither class counts, rate, scale of the initial values nor number of steps, so
one run shows little: everything here is for many seeds at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError

PHASES = ("warmup", "entropy_seeking", "compression_seeking")
CHOICES = {
    "loss": ("cross_entropy", "mse"),
    "reduction": ("sum", "mean"),
    "init": ("random", "balanced"),
}


@dataclass(frozen=True)
class Toy:
    """One setting of the toy model.

    counts: samples of each class, so V = len(counts) and b = sum(counts). dimension: d. learning_rate: of one step.
    init_scale: standard deviation of the initial entries of f and, with init "random", of W. init "balanced": W with
    f^T f = W W^T, the premise of theorem 1. steps: updates. records: about how many steps are kept, log-spaced, with
    step 0 and the last always among them.
    """

    counts: Sequence[int]
    dimension: int = 2
    learning_rate: float = 0.01
    init_scale: float = 0.1
    init: str = "random"
    steps: int = 5000
    records: int = 60
    loss: str = "cross_entropy"
    reduction: str = "sum"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing, with what to write instead."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"toy: {name} is {getattr(self, name)!r}: write {' or '.join(allowed)}.")
        if len(self.counts) < 2 or min(self.counts) < 1:
            raise UserError(f"toy: counts is {list(self.counts)}: write at least two classes of one sample or more.")
        for name in ("dimension", "learning_rate", "init_scale", "steps", "records"):
            if not getattr(self, name) > 0:
                raise UserError(f"toy: {name} is {getattr(self, name)}: write a number above 0.")
        if self.init == "balanced" and self.dimension > min(len(self.counts), sum(self.counts)):
            raise UserError(
                f"toy: balanced values need a dimension of at most the number of classes, {len(self.counts)}: "
                "lower dimension or write init: random."
            )

    @property
    def labels(self) -> np.ndarray:
        """(b,) class of every sample."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def targets(self) -> np.ndarray:
        """(b, V) one-hot rows."""
        return np.eye(len(self.counts))[self.labels]

    def recorded(self) -> np.ndarray:
        """Steps that are kept: 0, then log-spaced from 1 to the last."""
        spaced = np.geomspace(1, self.steps, self.records).round().astype(int)
        return np.unique(np.concatenate([[0], spaced, [self.steps]]))


@dataclass(frozen=True)
class Run:
    """What S seeds did at T recorded steps.

    steps (T,); features (T, S, b, d); classifier (T, S, d, V); outputs (T, S, b, V), probabilities under cross-entropy;
    loss (T, S), mean over samples (nats a sample, or half squared distances).
    """

    steps: np.ndarray
    features: np.ndarray
    classifier: np.ndarray
    outputs: np.ndarray
    loss: np.ndarray


# ------------------------------------------------------------------------------------------------------------
# Dynamics


def initial(toy: Toy, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Initial (f, W) of one seed: (b, d) and (d, V). A seed gives the same values whichever others run beside it."""
    rng = np.random.default_rng(seed)
    b, d, classes = sum(toy.counts), toy.dimension, len(toy.counts)
    features = toy.init_scale * rng.standard_normal((b, d))
    if toy.init == "random":
        return features, toy.init_scale * rng.standard_normal((d, classes))
    # f = A D R^T and W = R D Q^T with any orthonormal Q: equal singular values, aligned singular vectors
    _, values, right = np.linalg.svd(features, full_matrices=False)
    q, _ = np.linalg.qr(rng.standard_normal((classes, d)))
    return features, (right.T * values) @ q.T


def outputs_of(scores: np.ndarray, loss: str = "cross_entropy", axis: int = -1) -> np.ndarray:
    """Softmax of scores f W over the classes along `axis`, or the scores themselves under `mse`."""
    if loss == "mse":
        return scores
    raised = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))


def losses(outputs: np.ndarray, targets: np.ndarray, loss: str = "cross_entropy") -> np.ndarray:
    """(...) mean over samples of the cross-entropy in nats, or of half the squared distance."""
    if loss == "mse":
        return 0.5 * ((outputs - targets) ** 2).sum(-1).mean(-1)
    own = np.take_along_axis(outputs, np.broadcast_to(targets.argmax(-1)[:, None], (*outputs.shape[:-1], 1)), -1)
    return -np.log(np.maximum(own[..., 0], np.finfo(float).tiny)).mean(-1)


def simulate(toy: Toy, seeds: Sequence[int]) -> Run:
    """Full-batch gradient descent for all seeds at once; raises UserError if a seed diverges."""
    started = [initial(toy, seed) for seed in seeds]
    # seeds last: sums over samples, classes and dimensions, all short, then run over long rows of memory
    f, w = (np.stack(values, axis=-1) for values in zip(*started, strict=True))
    targets, steps = toy.targets, toy.recorded()
    rate = toy.learning_rate / (len(targets) if toy.reduction == "mean" else 1)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        for step in range(toy.steps + 1):
            if step == steps[len(kept)]:
                kept.append((np.moveaxis(f, -1, 0).copy(), np.moveaxis(w, -1, 0).copy()))
                if step == toy.steps:
                    break
            residual = outputs_of(np.einsum("bds,dvs->bvs", f, w), toy.loss, axis=1)
            residual = rate * (residual - targets[..., None])
            change = np.einsum("bvs,dvs->bds", residual, w)
            w -= np.einsum("bds,bvs->dvs", f, residual)  # with the old f
            f -= change
    features, classifier = (np.stack(values) for values in zip(*kept, strict=True))
    if not (np.isfinite(features).all() and np.isfinite(classifier).all()):
        raise UserError(f"toy: the values diverge at a learning_rate of {toy.learning_rate}: write a smaller one.")
    outputs = outputs_of(features @ classifier, toy.loss)
    return Run(steps, features, classifier, outputs, losses(outputs, targets, toy.loss))


# ------------------------------------------------------------------------------------------------------------
# Geometry


def rank_me(points: np.ndarray, epsilon: float = 1e-7) -> np.ndarray:
    """RankMe (...) of points (..., n, d): exp of the entropy of the shares of the centred covariance's eigenvalues.

    As `memorization.probes.spectrum.rank_me`, for many sets of points at once; from 1 (a line) to d. epsilon is added
    to each share, as in the released code.
    """
    centred = points - points.mean(axis=-2, keepdims=True)
    values = np.linalg.eigvalsh(centred.swapaxes(-1, -2) @ centred).clip(0)
    shares = values / values.sum(axis=-1, keepdims=True) + epsilon
    return np.exp(-(shares * np.log(shares)).sum(axis=-1))


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean feature of every class: (..., b, d) -> (..., V, d)."""
    weights = np.eye(labels.max() + 1)[labels]
    return (weights / weights.sum(0)).T @ features


def growth_rates(features: np.ndarray, classifier: np.ndarray, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(..., d) relative growth (d sigma_i / dt) / sigma_i of the singular values of f, at rate 1 (theorem 2).

    With f = A D R^T the flow f' = (Y - p) W^T moves sigma_i by a_i^T (Y - p) W^T r_i. If W = R D Q^T is balanced, that
    is sigma_i a_i^T (Y - p) q_i: proportional to sigma_i, by at most the spectral norm of Y - p. Where predictions are
    still uniform, Y - p = Y (I - 1 1^T / V), whose norm is below the root of the largest class count (primacy bias).
    """
    left, values, right = np.linalg.svd(features, full_matrices=False)
    flow = (targets - outputs) @ classifier.swapaxes(-1, -2)
    return np.einsum("...bi,...bd,...id->...i", left, flow, right) / values


# ------------------------------------------------------------------------------------------------------------
# Phases


@dataclass(frozen=True)
class Phases:
    """Sizes of the three phases of RankMe curves, each (...), and where they meet.

    warmup: 1 - trough / start, below 0 if the trough lies above the start. entropy_seeking: peak / trough - 1.
    compression_seeking: 1 - end / peak. trough, peak: their positions in the curve.
    """

    warmup: np.ndarray
    entropy_seeking: np.ndarray
    compression_seeking: np.ndarray
    trough: np.ndarray = field(repr=False)
    peak: np.ndarray = field(repr=False)

    def size(self, phase: str) -> np.ndarray:
        """Relative change of one of PHASES."""
        return np.asarray(getattr(self, phase))

    def observed(self, phase: str, minimum: float) -> np.ndarray:
        """Whether a phase is at least `minimum` large; the last one only where the one before it was observed too."""
        large = self.size(phase) >= minimum
        return large & (self.entropy_seeking >= minimum) if phase == "compression_seeking" else large


def phase_changes(curves: np.ndarray) -> Phases:
    """Divide RankMe curves (..., T) into a fall from the start, a rise, and a fall to the end.

    Trough and peak are the pair, in this order in time, with the largest relative rise between them. Then no earlier
    point is below the trough and none after the trough above the peak. A curve that never rises has both at its end. A
    curve whose highest point comes before its deepest dip is read as rise and fall without a warmup.
    The simulation is exact, so that a change needs no interval, only a size below which it is not worth a name.
    """
    curves = np.asarray(curves, float)
    last = curves.shape[-1] - 1
    rises = curves / np.minimum.accumulate(curves, axis=-1)
    peak = np.where(rises.max(-1) > 1, rises.argmax(-1), last)
    before = np.where(np.arange(last + 1) <= peak[..., None], curves, np.inf)
    trough = np.where(rises.max(-1) > 1, before.argmin(-1), last)
    low, high = (np.take_along_axis(curves, at[..., None], -1)[..., 0] for at in (trough, peak))
    return Phases(1 - low / curves[..., 0], high / low - 1, 1 - curves[..., -1] / high, trough, peak)


# ------------------------------------------------------------------------------------------------------------
# Rows


def illustrations(ranks: np.ndarray, means: np.ndarray) -> dict[str, int]:
    """Which seeds to show: name of the rule -> position, from RankMe curves (S, T) of features and of class means.

    `nearest_median`: the features' curve with the smallest squared distance to their median curve, over recorded steps.
    `largest_compression`: of the class means' curves that fall, rise and fall, the one with the largest last fall. It
    is an extreme and no rule; left out if there is none.
    """
    distance = ((ranks - np.median(ranks, axis=0)) ** 2).sum(-1)
    found = {"nearest_median": int(distance.argmin())}
    phases = phase_changes(means)
    falls = np.where(phases.warmup > 0, phases.compression_seeking, 0)
    return {**found, "largest_compression": int(falls.argmax())} if falls.max() > 0 else found


def _long(values: np.ndarray, axes: Mapping[str, Sequence[Any]], **fixed: Any) -> pd.DataFrame:
    """One row an entry of an array, with the names along its axes as columns."""
    index = pd.MultiIndex.from_product([list(names) for names in axes.values()], names=list(axes))
    return index.to_frame(index=False).assign(**fixed, value=values.ravel())


def setting_rows(name: str, toy: Toy, seeds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measurement rows of all seeds of a setting, and coordinates of the seeds that are shown (`toy_rows`)."""
    run = simulate(toy, seeds)
    labels, classes = toy.labels, range(len(toy.counts))
    axes = {"step": run.steps.tolist(), "seed": list(seeds)}
    ranks, means = rank_me(run.features), rank_me(class_means(run.features, labels))
    sigma = np.linalg.svd(run.features, compute_uv=False)
    b = len(labels)
    frames = [
        _long(ranks, axes, metric="rank_me", n=b),
        _long(means, axes, metric="rank_me_means", n=len(toy.counts)),
        _long(run.loss, axes, metric="loss", n=b),
        *(_long(sigma[..., k], axes, metric=f"sigma_{k + 1}", n=b) for k in range(sigma.shape[-1])),
    ]
    own = (run.outputs[-1] * toy.targets).sum(-1)  # (S, b)
    learned = class_means(own[..., None], labels)[..., 0]
    ends = {"seed": list(seeds), "class": list(classes)}
    last = _long(learned, ends, metric="class_output", step=toy.steps)
    frames.append(last.assign(n=last["class"].map(dict(enumerate(toy.counts)))))

    shown = illustrations(ranks.T, means.T)
    coordinates = []
    for rule, at in shown.items() if name == "main" else [("nearest_median", shown["nearest_median"])]:
        fixed = {"seed": seeds[at], "illustration": rule}
        along = {"step": run.steps.tolist(), "item": range(b), "axis": range(toy.dimension)}
        points = _long(run.features[:, at], along, metric="feature", **fixed)
        coordinates.append(points.assign(**{"class": labels[points["item"]]}))
        along = {"step": run.steps.tolist(), "axis": range(toy.dimension), "class": classes}
        columns = _long(run.classifier[:, at], along, metric="classifier", **fixed)
        coordinates.append(columns.assign(item=columns["class"]))
    return pd.concat(frames, ignore_index=True), pd.concat(coordinates, ignore_index=True)


def toy_rows(settings: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run every setting (name -> fields of `Toy`) with every seed; returns measurement rows and item rows.

    Measurements, a row a setting, seed and recorded step: `rank_me` (centred features), `rank_me_means` (centred means
    of the classes, each counted once), `sigma_1` ... `sigma_d` (singular values of the features, not centred), `loss`;
    at the last step also `class_output` by `class`, the mean output for a sample's own class (a probability under
    cross-entropy). Items: coordinates `feature` (item = sample) and `classifier` (item = class) along `axis`, of the
    seed whose RankMe curve is nearest to the median curve, and in setting `main` also of a seed with a large last fall;
    column `illustration` says which (`illustrations`).
    """
    metrics: list[pd.DataFrame] = []
    items: list[pd.DataFrame] = []
    for name, options in settings.items():
        both = setting_rows(name, Toy(**options), list(seeds))
        for frame, frames in zip(both, (metrics, items), strict=True):
            run = f"toy-{name}-s" + frame["seed"].astype(str)
            about = {"paper": "geometry", "experiment": "toy", "model": "toy", "data": "toy", "setting": name}
            frames.append(frame.assign(run=run, subset="train", split="train", **about))
    place = ["paper", "experiment", "run", "model", "data", "setting", "seed", "step", "subset", "split"]
    measured = pd.concat(metrics, ignore_index=True)
    # whole numbers throughout: -1 where a row is about no class
    measured = measured.assign(**{"class": measured["class"].fillna(-1).astype(int)})
    shown = pd.concat(items, ignore_index=True)
    return (
        measured[[*place, "class", "metric", "value", "n"]],
        shown[[*place, "illustration", "item", "class", "axis", "metric", "value"]],
    )
