"""Digits: no image in two parts, copies are what they are said to be, arrays are what the files hold."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from memorization.data import digits, store
from memorization.data.labelled import make_set
from memorization.errors import UserError

SPEC = {
    "name": "digits",
    "kind": "digits",
    "train": 100,
    "validation": 60,
    "variants": 2,
    "pretraining_validation": 50,
    "noisy_class": "9",
    "seeds": 2,
}


@pytest.fixture(scope="module")
def made():
    return make_set(SPEC, 0, {})


def pixels(rows):
    return digits.decode_images([one["image"] for one in rows])[:, 0]


def original(image):
    """Which of scikit-learn's images this is, found by comparing all pixels."""
    images = load_digits().images
    (found,) = np.flatnonzero((images * 15 == image).all(axis=(1, 2)))
    return int(found)


def test_images_and_labels_are_those_of_scikit_learn_and_no_image_is_in_two_splits(made):
    seen, labels = [], load_digits().target
    for folder, split in (("digits", "train"), ("digits", "validation"), ("digits_pretraining", "validation")):
        rows = made[folder][0][split]
        places = [original(image) for image in pixels(rows)]
        assert [one["label"] for one in rows] == labels[places].tolist()
        seen += places
    assert len(seen) == len(set(seen)) == 100 + 60 + 50


def test_the_copies_are_of_the_other_images_of_the_first_half(made):
    fine, pre = digits.parts(SPEC, 0, 1797)
    everything = np.concatenate([*fine.values(), *pre.values()])
    assert len(set(everything)) == len(everything) == 100 + 60 + 1797 // 2
    rows = made["digits_pretraining"][0]["train"]
    assert len(rows) == 2 * (1797 // 2 - 50)
    labels = load_digits().target
    assert [one["label"] for one in rows] == 2 * labels[pre["train"]].tolist()
    copies, images = pixels(rows).astype(float), load_digits().images * 15
    for copy, place in zip(copies[:40], pre["train"], strict=False):
        padded = np.pad(images[place], 1)
        moved = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
        nearest = min(np.sqrt(((copy - one) ** 2).mean()) for one in moved)
        assert 0 < nearest < 1.3 * 15  # the noise has a standard deviation of 15 of 240
    assert len({copy.tobytes() for copy in copies}) == len(copies)


def test_a_seed_decides(made):
    again, other = make_set(SPEC, 0, {}), make_set(SPEC, 1, {})
    for folder in made:
        assert store.digest(made[folder][0]) == store.digest(again[folder][0]) != store.digest(other[folder][0])


def test_the_card_says_what_is_there(made, tmp_path):
    splits, facts = made["digits"]
    card = store.save(tmp_path / "set", splits, facts)
    assert card["kind"] == "images" and card["classes"] == list("0123456789") and card["noisy_class"] == 9
    assert card["size"] == [8, 8] and card["channels"] == 1 and card["items"] == {"train": 100, "validation": 60}
    assert card["class_items"]["train"] == [sum(one["label"] == k for one in splits["train"]) for k in range(10)]
    read = store.read_columns(tmp_path / "set", "train", ["image", "label"])
    assert (digits.decode_images(read["image"])[:, 0] == pixels(splits["train"])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 860}, r"train 860 \+ validation 60 are more than the 899 images"),
        ({"pretraining_validation": 898}, "write 1 to 897 of the 898 images"),
        ({"pretraining": 1697}, "pretraining is 1697, there are 1696; write 1696 or less"),
        ({"variants": 0}, "variants is 0; write at least 1"),
        ({"noisy_class": "nine"}, "noisy_class is 'nine'; write one of 0, 1"),
    ],
)
def test_wrong_numbers_are_explained(change, message):
    with pytest.raises(UserError, match=message):
        make_set({**SPEC, **change}, 0, {})


def test_a_set_without_the_noisy_class_is_refused():
    labels, train = load_digits().target, 1
    spec = next(
        {**SPEC, "train": train, "noisy_class": str(digit)}
        for digit in range(10)
        if digit != labels[digits.parts({**SPEC, "train": train}, 0, 1797)[0]["train"][0]]
    )
    with pytest.raises(UserError, match="no training item is of the noisy class"):
        make_set(spec, 0, {})


# --- Decoding ---


def file_of(array, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=form)
    return {"bytes": stream.getvalue(), "path": None}


def test_png_comes_back_pixel_by_pixel_with_channels_first():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, size=(3, 5, 7, 3), dtype=np.uint8)
    grey = rng.integers(0, 256, size=(2, 6, 4), dtype=np.uint8)
    decoded = digits.decode_images([file_of(one) for one in colour])
    assert decoded.dtype == np.uint8 and (decoded == colour.transpose(0, 3, 1, 2)).all()
    assert (digits.decode_images([file_of(one) for one in grey]) == grey[:, None]).all()
    as_colour = digits.decode_images([file_of(one) for one in grey], channels=3)
    assert as_colour.shape == (2, 3, 6, 4) and (as_colour == grey[:, None]).all()


def test_images_of_any_size_are_scaled_bilinearly():
    ramp = np.repeat(np.arange(0, 200, 50, dtype=np.uint8)[None], 4, axis=0)  # columns of 0, 50, 100, 150
    large, small = np.full((9, 3, 3), 77, dtype=np.uint8), np.stack([ramp] * 3, axis=-1)
    out = digits.decode_images([file_of(small), file_of(large, "JPEG")], size=2)
    assert out.shape == (2, 3, 2, 2)
    # halving weighs the columns by a triangle two source pixels wide: (3, 3, 1) / 7 at the edge
    assert out[0, 0, 0].tolist() == [round((0 * 3 + 50 * 3 + 100) / 7), round((50 + 100 * 3 + 150 * 3) / 7)]
    assert (out[1] == 77).all()
    with pytest.raises(UserError, match="image 1 has 9 x 3 pixels, the first 4 x 4; give a `size`"):
        digits.decode_images([file_of(small), file_of(large)])


def test_no_images_and_wrong_channels():
    assert digits.decode_images([], size=4, channels=1).shape == (0, 1, 4, 4)
    with pytest.raises(UserError, match="channels is 2"):
        digits.decode_images([], channels=2)
