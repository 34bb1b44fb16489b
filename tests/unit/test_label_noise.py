"""Mislabelled items and what a model says about them."""

import numpy as np
import pytest
from scipy.stats import chisquare

from memorization.data.label_noise import flip_labels
from memorization.errors import UserError
from memorization.probes.outcomes import outcomes


def labels(*sizes: int, seed: int = 0) -> np.ndarray:
    """Shuffled labels with so many items of each class."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize(
    ("sizes", "share", "wording", "flipped"),
    [
        # sizes of the paper's sets: items, and items of the noisy class
        ((15_428, 572), 0.01, "train_set", 160),
        ((2_714, 144), 0.01, "train_set", 28),
        ((15_428, 572), 0.01, "class", 5),
        ((71, 29), 0.29, "train_set", 29),  # 0.29 * 100 is 28.999... in floating point; the whole class
        ((90, 10), 1.0, "class", 10),
    ],
)
def test_counts(sizes, share, wording, flipped):
    true = labels(*sizes)
    noisy = flip_labels(true, share=share, source_class=1, classes=4, seed=3, wording=wording)
    changed = noisy != true
    assert changed.sum() == flipped
    assert (true[changed] == 1).all()
    assert noisy.dtype == true.dtype and set(noisy[changed]) <= {0, 2, 3}


def test_the_choice_follows_the_seed_alone():
    true = labels(300, 60, 40)
    kept = true.copy()
    options = dict(share=0.05, source_class=2, classes=3)
    first = flip_labels(true, **options, seed=7)
    np.random.seed(0)
    assert np.array_equal(first, flip_labels(true.tolist(), **options, seed=7))
    assert not np.array_equal(first, flip_labels(true, **options, seed=8))
    assert np.array_equal(true, kept)


def test_items_and_new_labels_are_uniform():
    """Over 3,000 seeds: which of 20 items are flipped, and to which of 4 other classes."""
    true = labels(20, 20, 20, 20, 20)
    members = np.flatnonzero(true == 3)
    chosen, new = np.zeros(len(true)), np.zeros(5)
    for seed in range(3000):
        noisy = flip_labels(true, share=0.05, source_class=3, classes=5, seed=seed)
        changed = noisy != true
        chosen += changed
        new += np.bincount(noisy[changed], minlength=5)
    assert new[3] == 0 and new.sum() == 15_000
    assert chisquare(new[[0, 1, 2, 4]]).pvalue > 1e-3
    # 5 of 20 without replacement: counts vary 15/19 of what the multinomial's do, so the bound is on the safe side
    assert chisquare(chosen[members]).statistic < 36 and chosen.sum() == 15_000  # 0.99 quantile of 19 degrees


def test_a_smaller_share_is_part_of_a_larger_one():
    true = labels(200, 100, 100)
    small, large = (flip_labels(true, share=s, source_class=1, classes=3, seed=5) for s in (0.02, 0.1))
    changed = small != true
    assert changed.sum() == 8 and np.array_equal(small[changed], large[changed])


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((50,), dict(source_class=0, classes=1), "has one class"),
        ((50,), dict(source_class=0, classes=3), "has one class"),
        ((50, 50), dict(source_class=2), "no item has class 2"),
        ((95, 5), dict(source_class=1, share=0.1), "class 1 has 5 items, too few to mislabel 10.*at most 0.05"),
        ((50, 50), dict(share=0.001), "a share of 0.001 of 100 items is no item: write 0.01 or more"),
        ((50, 50), dict(share=0.01, wording="class"), "of 50 items is no item: write 0.02 or more"),
        ((50, 50), dict(share=2), "write a fraction above 0"),
        ((50, 50, 50), dict(classes=2), "number classes from 0 to 1"),
        ((50, 50), dict(wording="items"), "write 'train_set' or 'class'"),
    ],
)
def test_bad_noise_says_what_to_write(sizes, options, message):
    with pytest.raises(UserError, match=message):
        flip_labels(labels(*sizes), **(dict(share=0.1, source_class=1, classes=3, seed=0) | options))


def test_the_share_an_error_proposes_works():
    true = labels(934, 66)
    options = dict(source_class=1, classes=2, seed=0)
    assert (flip_labels(true, share=0.066, **options) != true).sum() == 66
    assert (flip_labels(true, share=0.001, **options) != true).sum() == 1


def test_outcomes_by_hand():
    """Five items: two memorized, one recovered, two neither."""
    found = outcomes(np.array([1, 2, 0, 3, 3]), np.array([1, 2, 1, 1, 2]), np.array([0, 0, 0, 0, 0]))
    assert found == {"memorization": 0.4, "recovery": 0.2, "random": 0.4}


def test_outcomes_sum_to_one():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 6, 37)
    noisy = (true + rng.integers(1, 6, 37)) % 6
    found = outcomes(rng.integers(0, 6, 37), noisy, true)
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([], [], []), "no noisy items"),
        (([1, 2], [1, 0], [0, 0]), "item 1 has its true label"),
        (([1], [1, 0], [0, 1]), "shapes"),
    ],
)
def test_outcomes_of_bad_items(values, message):
    with pytest.raises(UserError, match=message):
        outcomes(*map(np.array, values))
