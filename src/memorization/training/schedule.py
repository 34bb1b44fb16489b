"""Learning-rate schedules and data order as pure functions of the step: nothing to save, nothing to restore."""

import math
from functools import lru_cache

import numpy as np

from memorization.specs import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Learning rate of update `step` (0-based) of `steps`."""
    if step < spec.warmup:
        return spec.learning_rate * (step + 1) / spec.warmup
    if spec.schedule == "constant":
        return spec.learning_rate
    progress = (step - spec.warmup) / max(1, steps - spec.warmup)
    if spec.schedule == "linear":
        return spec.learning_rate * (1 - progress)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def steps_per_epoch(items: int, batch_size: int) -> int:
    """Batches of one epoch; the last may be smaller."""
    return math.ceil(items / batch_size)


def batch_at(step: int, items: int, batch_size: int, seed: int) -> np.ndarray:
    """Items of update `step` (0-based): every epoch is a fresh permutation that depends on the seed and epoch only."""
    epoch, position = divmod(step, steps_per_epoch(items, batch_size))
    order = epoch_order(items, seed, epoch)
    return order[position * batch_size : (position + 1) * batch_size]


@lru_cache(maxsize=2)
def epoch_order(items: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(items) for one epoch."""
    return np.random.default_rng([seed, epoch, 0x0DA7A]).permutation(items)
