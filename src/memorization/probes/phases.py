"""Phases of pre-training, read off a curve of RankMe over checkpoints by rule, with intervals.

`warmup`: RankMe falls from the start to a trough. `entropy-seeking`: it rises from the trough to a peak.
`compression-seeking`: it falls from the peak to the last checkpoint. Li et al. 2025 (section 3) draw the borders by
hand. Here trough and peak are the pair of checkpoints with the largest rise between them, and each phase counts as
observed only if the interval of its change excludes changes of less than a minimum.

The bias of extremes. Whoever picks the lowest and the highest of noisy values and takes their difference finds a rise
in a flat curve too. Bootstrap resamples do not cure this: they scatter around the same curve, so that its accidental
extremes are theirs as well. The sizes are therefore cross-fitted by splitting the noise: if z is the deviation of a
resample, and the noise of the curve y is normal with the same covariance, then y + z and y - z are independent, as if
they were measured on two halves of the probe sequences. Trough and peak are found in y + z and the change between
them is read in y - z, for every resample in turn (data fission: Rasines & Young 2023; Leiner et al. 2025). The mean of
these changes is free of the choice; where all resamples agree on the extremes it is the plain change, and its interval
that of the bootstrap.

Resamples of the probe sequences know of the noise of the probe only. What another training run would give is seen
over seeds, and the minimum keeps small wiggles of training from being called a phase.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from memorization.errors import UserError

State = Literal["observed", "not observed"]
PHASES = ("warmup", "entropy-seeking", "compression-seeking")
DIRECTIONS = {"warmup": -1, "entropy-seeking": 1, "compression-seeking": -1}


@dataclass(frozen=True)
class Change:
    """What happens to the logarithm of a curve in one phase.

    change    : cross-fitted change of the logarithm; exp(change) is the factor. NaN for too short a curve.
    low, high : ends of its interval.
    plain     : change between the checkpoints that the whole curve names, with the bias of its extremes.
    state     : "observed" if the interval lies wholly beyond the minimum in the direction of the phase.
    """

    change: float
    low: float
    high: float
    plain: float
    state: State


@dataclass(frozen=True)
class Phases:
    """Phases of one curve.

    trough, peak : steps (in the unit of `steps`) where the whole curve is lowest before and highest after its rise. A
                   curve without an observed rise has its lowest point as trough and the highest one from there on as
                   peak; both mean little where nothing is observed. NaN for fewer than two usable checkpoints.
    changes      : phase -> Change, for the three PHASES.
    labels       : (checkpoints,) name of the phase of the stretch that ENDS at each checkpoint (the first one has that
                   of the next), "" where its phase is not observed. Lines between checkpoints take the label of
                   their right end.
    """

    trough: float
    peak: float
    changes: dict[str, Change]
    labels: np.ndarray

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed phases, in order."""
        return tuple(name for name in PHASES if self.changes[name].state == "observed")


def label_phases(
    steps: Sequence[float] | np.ndarray,
    curve: Sequence[float] | np.ndarray,
    resamples: Any,
    *,
    minimum: float = 0.1,
    confidence: float = 0.95,
) -> Phases:
    """Find trough and peak of a positive curve, the sizes of its three phases, and which of them are observed.

    Parameters
    ----------
    steps
        (n,) position of every checkpoint, ascending: training steps or tokens.
    curve
        (n,) RankMe of all probe sequences. Checkpoints that are not finite and positive are left out.
    resamples
        (B, n) the same for bootstrap resamples of the probe sequences; row b is the same resample at every checkpoint,
        so that what the checkpoints share cancels. Some 50 are enough: only their spread is used.
    minimum
        Smallest relative change that counts: .1 asks for a factor beyond 1.1 (rise) or 1/1.1 (fall).
    confidence
        Of the two-sided intervals: cross-fitted change +- normal quantile * standard deviation over resamples.

    Returns
    -------
    Phases
        A compression needs an observed rise before it: a curve that only falls has a warmup and nothing else.

    Raises
    ------
    UserError
        If shapes do not fit, steps do not ascend, or fewer than two resamples are complete.
    """
    steps, curve, draws = np.asarray(steps, float), np.asarray(curve, float), np.asarray(resamples, float)
    _check(steps, curve, draws, minimum, confidence)
    known = np.isfinite(curve) & (curve > 0)
    with np.errstate(invalid="ignore"):
        sound = np.isfinite(draws) & (draws > 0)
    known &= sound.mean(axis=0) > 0.5  # a checkpoint at which most resamples fail is worth less than the resamples
    if known.sum() < 2:
        nothing = {name: Change(np.nan, np.nan, np.nan, np.nan, "not observed") for name in PHASES}
        return Phases(np.nan, np.nan, nothing, np.full(len(steps), "", dtype=object))
    complete = sound[:, known].all(axis=1)
    if complete.sum() < 2:
        raise UserError(
            f"label_phases needs two or more resamples without gaps and got {complete.sum()}: "
            "give it an array (resamples, checkpoints) of positive numbers."
        )
    y = np.log(curve[known])
    z = np.log(draws[np.ix_(complete, known)])
    z = z - z.mean(axis=0)  # resamples repeat sequences, which lowers their rank: a shift, not noise
    edge, width = np.log1p(minimum), NormalDist().inv_cdf(0.5 + confidence / 2)

    changes = _changes(y, z, edge, width, rising=True)
    rises = changes["entropy-seeking"].state == "observed"
    if not rises:
        changes = _changes(y, z, edge, width, rising=False)
        for name in PHASES[1:]:
            one = changes[name]
            changes[name] = Change(one.change, one.low, one.high, one.plain, "not observed")
    trough, peak = (int(place[0]) for place in _extremes(y[None], rises))
    at = steps[known]
    return Phases(float(at[trough]), float(at[peak]), changes, _labels(steps, at[trough], at[peak], changes))


def _check(steps: np.ndarray, curve: np.ndarray, draws: np.ndarray, minimum: float, confidence: float) -> None:
    """Raise a `UserError` for arguments that do not fit together."""
    if steps.ndim != 1 or steps.shape != curve.shape or draws.ndim != 2 or draws.shape[1] != len(steps):
        raise UserError(
            f"label_phases got steps {steps.shape}, curve {curve.shape} and resamples {draws.shape}: "
            "write (n,), (n,) and (B, n)."
        )
    if not (np.diff(steps) > 0).all():
        raise UserError("label_phases wants ascending steps without repeats: sort the checkpoints of one curve.")
    if not (minimum >= 0 and 0 < confidence < 1):
        raise UserError(
            f"label_phases got minimum {minimum} and confidence {confidence}: "
            "write a relative change such as 0.1 and a probability such as 0.95."
        )


def _extremes(values: np.ndarray, rising: bool) -> tuple[np.ndarray, np.ndarray]:
    """Trough and peak of each row of (rows, n).

    rising: the pair in this order with the largest rise. Not: the lowest value and the highest one from there on.
    """
    if rising:
        rise = values - np.minimum.accumulate(values, axis=1)  # above the lowest value so far
        peak = rise.argmax(axis=1)
        before = np.arange(values.shape[1]) <= peak[:, None]
        trough = np.where(before, values, np.inf).argmin(axis=1)
        return trough, peak
    trough = values.argmin(axis=1)
    after = np.arange(values.shape[1]) >= trough[:, None]
    peak = np.where(after, values, -np.inf).argmax(axis=1)
    return trough, peak


def _changes(y: np.ndarray, z: np.ndarray, edge: float, width: float, rising: bool) -> dict[str, Change]:
    """Cross-fitted changes of the three phases; y: (n,) logarithms, z: (B, n) deviations of resamples."""
    rows = np.arange(len(z))
    trough, peak = _extremes(y + z, rising)
    held = y - z
    fitted = {
        "warmup": held[rows, trough] - held[:, 0],
        "entropy-seeking": held[rows, peak] - held[rows, trough],
        "compression-seeking": held[:, -1] - held[rows, peak],
    }
    low_at, high_at = (int(place[0]) for place in _extremes(y[None], rising))
    plain = {
        "warmup": y[low_at] - y[0],
        "entropy-seeking": y[high_at] - y[low_at],
        "compression-seeking": y[-1] - y[high_at],
    }
    found = {}
    for name, values in fitted.items():
        mean, half = float(values.mean()), width * float(values.std(ddof=1))
        beyond = mean - half > edge if DIRECTIONS[name] > 0 else mean + half < -edge
        state: State = "observed" if beyond else "not observed"
        found[name] = Change(mean, mean - half, mean + half, float(plain[name]), state)
    return found


def _labels(steps: np.ndarray, trough: float, peak: float, changes: dict[str, Change]) -> np.ndarray:
    """Phase of the stretch that ends at each checkpoint."""
    names = np.select([steps <= trough, steps <= peak], PHASES[:2], PHASES[2]).astype(object)
    names[0] = names[min(1, len(names) - 1)]
    seen = [changes[name].state == "observed" for name in PHASES]
    return np.where(np.isin(names, [name for name, yes in zip(PHASES, seen, strict=True) if yes]), names, "")
