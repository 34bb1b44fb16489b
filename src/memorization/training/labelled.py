"""Items that have a class each: texts or images, with label noise (`layernorm`)."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.data.digits import decode_images
from memorization.data.label_noise import flip_labels
from memorization.errors import UserError
from memorization.specs import LabelSpec, RunSpec
from memorization.training.items import Items, check_lengths, pad

if TYPE_CHECKING:
    pass


def load_labelled(spec: RunSpec, root: Path) -> tuple[Items, Items]:
    """Return (train, validation) items of a run on one labelled set; only training labels get noise.

    Which labels are wrong depends on the seed of the data alone, so it is the same in all arms of a seed.
    """
    assert spec.data.labelled
    wanted, part = spec.data.labelled, spec.data.parts[0]
    folder = root / "data" / spec.paper / part.folder / "dataset" / str(spec.data.seed)
    card = json.loads((folder / "card.json").read_text())
    if wanted.classes != len(card["classes"]):
        raise UserError(f"{spec.name}: {folder} has {len(card['classes'])} classes, not {wanted.classes}: delete it")
    loaded = []
    for split, count in (("train", part.items), ("validation", spec.data.validation)):
        columns = ["label", "image"] if wanted.kind == "images" else ["label", "input_ids"]
        rows = store.read_columns(folder, split, columns)
        held = len(rows["label"])
        if count > held:
            raise UserError(
                f"{spec.name} wants {count} {split} items of {part.folder}, {folder} holds {held}: "
                "delete that folder so that it is made again"
            )
        truth = np.array(rows["label"][:count], dtype=np.int64)
        target = truth
        if wanted.noise and split == "train":
            noise = wanted.noise
            target = flip_labels(
                truth,
                share=noise.share,
                source_class=noise.source_class,
                classes=wanted.classes,
                seed=spec.data.seed,
                wording=noise.wording,
            )
        loaded.append(make(wanted, rows, target, truth, card, (part.set, split)))
    if wanted.kind == "text":
        check_lengths(spec, loaded[0])
    return loaded[0], loaded[1]


def make(
    wanted: LabelSpec, rows: dict[str, Any], target: np.ndarray, truth: np.ndarray, card: Any, where: tuple[str, str]
) -> Items:
    """Items of one split, in the form asked for."""
    import torch

    (subset, split), number = where, len(target)
    classes: dict[str, Any] = {"target": torch.from_numpy(target), "truth": truth}
    if wanted.kind == "images":
        pixels = torch.from_numpy(decode_images(rows["image"][:number], size=wanted.image, channels=wanted.channels))
        return replace(pad([[]] * number, [0] * number, [subset] * number, split), pixels=pixels, **classes)
    sequences, words = rows["input_ids"][:number], np.array(card["label_tokens"], dtype=np.int64)
    if wanted.form != "classifier":
        # behind the text stands what is to be predicted: a mask, or for a decoder the word itself
        sequences = [
            [*ids, card["mask"] if wanted.form == "masked_word" else int(words[k])]
            for ids, k in zip(sequences, target, strict=True)
        ]
    items = pad(sequences, [0] * number, [subset] * number, split, padding=card["pad"])
    if wanted.form != "classifier":
        items.labels.fill_(-100)
        items.labels[torch.arange(number), torch.from_numpy(items.length - 1)] = torch.from_numpy(words[target])
    return replace(items, words=words, **classes)
