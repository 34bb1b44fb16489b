"""Label noise: some training items of one class get a label drawn from the other classes (`layernorm`, section F.1)."""

from typing import Literal, get_args

import numpy as np

from memorization.errors import UserError

Wording = Literal["train_set", "class"]


def flip_labels(
    labels: np.ndarray,
    *,
    share: float,
    source_class: int,
    classes: int,
    seed: int,
    wording: Wording = "train_set",
) -> np.ndarray:
    """Return labels of which some of one class are changed, each to a uniformly random different class.

    labels: (N,) classes 0 to `classes` - 1, unchanged. share: fraction in (0, 1] that is flipped,

    * of the whole train set (wording `train_set`): int(share * N) items, all of `source_class`. The released code and
      the counts in its logs do this; 1 % of the set can be a quarter of the class;
    * of the items of `source_class` (wording `class`): as the paper's appendix says.

    The choice depends on the arguments alone. Items of a smaller share are among those of a larger one, with the same
    new labels. Raises UserError for a share that gives no item or more than the class has, and for bad classes.
    """
    labels = np.asarray(labels)
    if wording not in get_args(Wording):
        raise UserError(f"no wording of the noise named {wording!r}: write 'train_set' or 'class'")
    if not 0 < share <= 1:
        raise UserError(f"share = {share!r} of mislabelled items: write a fraction above 0, at most 1, such as 0.02")
    if classes < 2 or len(np.unique(labels)) < 2:
        raise UserError("the data set has one class, so there is no other label to flip to: use two classes or more")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"labels run from {labels.min()} to {labels.max()}: number classes from 0 to {classes - 1}")
    members = np.flatnonzero(labels == source_class)
    if not len(members):
        raise UserError(f"no item has class {source_class}: choose the source class of the noise among those present")
    whole = len(labels) if wording == "train_set" else len(members)
    flipped = int(share * whole + 1e-9)  # 0.29 * 100 is 28.999...
    if flipped == 0:
        raise UserError(
            f"a share of {share:g} of {whole} items is no item: write {np.ceil(1e6 / whole) / 1e6:g} or more"
        )
    if flipped > len(members):
        most = np.floor(1e4 * len(members) / whole) / 1e4
        raise UserError(
            f"class {source_class} has {len(members)} items, too few to mislabel {flipped}: "
            f"write a share of at most {most:g}, or a larger class"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(members)[:flipped]
    steps = rng.integers(1, classes, size=len(members))[:flipped]  # drawn for all, so that shares are nested
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + steps) % classes
    return noisy
