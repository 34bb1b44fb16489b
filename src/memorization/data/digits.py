"""Handwritten digits that come with scikit-learn, as images to classify; and decoding of stored images to arrays.

1,797 images of 8 x 8 pixels with 17 grey levels (the test part of UCI's Optical Recognition of Handwritten Digits).
Half of them, with shifted and noisy copies, are for pre-training, the other half for fine-tuning: no image is in both.
Stands in for the image sets of `layernorm` (app. F.1) and the pre-training of its vision models.

Keys of a set of kind `digits` beside those of every kind: train, validation (items to fine-tune on and to test with),
variants (copies of each pre-training image), pretraining (number of copies; all if not given), pretraining_validation
(images held out of pre-training; 128 by default).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memorization.data import store
from memorization.data.labelled import Made, class_facts, enough, folders_of
from memorization.data.patterns import SPLITS, generator
from memorization.errors import UserError

CLASSES = tuple("0123456789")
LEVELS, SCALE = 16, 15  # grey levels 0-16 are stored as 0-240
SHIFT, NOISE = 1, 1.0  # copies: moved by at most one pixel either way, plus noise of this standard deviation in levels
HELD_OUT = 128


def digits(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Any]) -> Made:
    """Return the set to fine-tune on and the one to pre-train on, see `memorization.data.labelled.make_set`."""
    images, labels = load()
    fine, pre = parts(spec, seed, len(images))
    rng = generator("digits", spec["name"], seed, "variants")
    copies = [
        (vary(images[place], rng), labels[place]) for _ in range(spec["variants"]) for place in pre["train"].tolist()
    ]
    plain = {
        (name, split): [(images[place], labels[place]) for place in places]
        for name, part in (("fine", fine), ("pre", pre))
        for split, places in part.items()
    }
    plain["pre", "train"] = copies[: enough(spec, "pretraining", len(copies))]
    made: Made = {}
    for folder, name in zip(folders_of(spec), ("fine", "pre"), strict=True):
        splits = {
            split: [
                store.image_row(item, as_png(image), int(label))
                for item, (image, label) in enumerate(plain[name, split])
            ]
            for split in SPLITS
        }
        facts = class_facts(spec, CLASSES, splits)
        made[folder] = (splits, {"kind": "images", "license": "cc-by-4.0", **facts, "size": [8, 8], "channels": 1})
    return made


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return grey levels (1797, 8, 8) float64, 0-16, and digits (1797,) int."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def parts(spec: Mapping[str, Any], seed: int, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw which images fine-tuning and pre-training get: split -> numbers of images. None occurs twice."""
    held_out = spec.get("pretraining_validation") or HELD_OUT
    half = number // 2
    if not 0 < held_out < half:
        raise UserError(
            f"{spec['name']}: pretraining_validation is {held_out}; write 1 to {half - 1} of the {half} images."
        )
    for key in ("train", "validation", "variants"):
        if spec[key] < 1:
            raise UserError(f"{spec['name']}: {key} is {spec[key]}; write at least 1.")
    wanted, rest = spec["train"] + spec["validation"], number - half
    if wanted > rest:
        raise UserError(
            f"{spec['name']}: train {spec['train']} + validation {spec['validation']} are more than the {rest} images "
            "that are not for pre-training; write smaller numbers."
        )
    order = generator("digits", spec["name"], seed).permutation(number)
    pre, fine = order[:half], order[half:]
    return (
        {"train": fine[: spec["train"]], "validation": fine[spec["train"] : wanted]},
        {"train": pre[held_out:], "validation": pre[:held_out]},
    )


def vary(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move an image (H, W) by at most one pixel either way, add noise, and keep it within the grey levels."""
    height, width = image.shape
    down, right = (int(step) for step in rng.integers(0, 2 * SHIFT + 1, size=2))
    padded = np.pad(image, SHIFT)
    moved = padded[down : down + height, right : right + width]
    return np.clip(moved + NOISE * rng.standard_normal(image.shape), 0, LEVELS)


def as_png(image: np.ndarray) -> bytes:
    """Encode grey levels (H, W), 0-16, as a PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.rint(image * SCALE).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def decode_images(
    structs: Sequence[Mapping[str, Any]], size: int | None = None, channels: int | None = None
) -> np.ndarray:
    """Decode stored images, PNG or JPEG.

    Parameters
    ----------
    structs: what `memorization.data.store.read_columns` gives: {"bytes": file content, ...} each.
    size: height and width to scale to (bilinear); None keeps those of the images, which must then agree.
    channels: 1 (grey) or 3 (RGB); None takes grey if the first image is grey, else RGB.

    Returns
    -------
    (N, channels, height, width) uint8.
    """
    from PIL import Image

    if channels not in (None, 1, 3):
        raise UserError(f"channels is {channels}; write 1 (grey) or 3 (RGB).")
    if not structs:
        return np.zeros((0, channels or 3, size or 0, size or 0), dtype=np.uint8)
    mode, decoded = {1: "L", 3: "RGB"}.get(channels or 0), np.zeros((0, 0, 0, 0), dtype=np.uint8)
    for place, struct in enumerate(structs):
        with Image.open(io.BytesIO(struct["bytes"])) as opened:
            mode = mode or ("L" if opened.mode == "L" else "RGB")
            picture = opened.convert(mode)
        if size is not None and picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        array = np.asarray(picture)
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if not place:  # one array from the start: a list of large images would take the memory twice
            decoded = np.empty((len(structs), *array.shape), dtype=np.uint8)
        if array.shape != decoded.shape[1:]:
            raise UserError(
                f"image {place} has {array.shape[1]} x {array.shape[2]} pixels, the first {decoded.shape[2]} x "
                f"{decoded.shape[3]}; give a `size` to scale all of them to."
            )
        decoded[place] = array
    return decoded
