"""Small labelled sets and runs on them, like `tiny`: texts and images, real models of three layers, seconds.

make_labelled(root)            # writes texts, texts_padded, texts_pretraining, images and images_pretraining below root
train(labelled_run(), root, work, code="c")
"""

from pathlib import Path
from typing import Any

import numpy as np

from memorization.data import store
from memorization.data.digits import as_png
from memorization.specs import (
    DataPart,
    DataSpec,
    LabelSpec,
    ModelSpec,
    NoiseSpec,
    OptimizerSpec,
    ProbeSpec,
    RunSpec,
    VisionSpec,
)

CLASSES, TRAIN, VALIDATION, SEEDS = 3, 20, 9, (0, 1)
PAD, CLS, SEP, FIRST = 0, 1, 2, 3
WORDS, MASK = 21, 25  # ids of the words of 3 classes and of another source; a mask token
VOCABULARY = 26
OTHER_PAD = 24  # of the folder texts_padded
LONGEST = 8  # tokens of a text
IMAGE = 8
PROBES = "memorization.probes.labelled"
FIRST_PROBES = "memorization.probes.pretraining"
STRIPPED = ["all", "early", "middle", "late", "attention", "feed_forward"]
NOISE = NoiseSpec(share=0.2, source_class=2)  # 4 of the 20 training items, of the 6 of class 2


def label_of(item: int) -> int:
    """Right label of every item, the same in both splits and for all seeds."""
    return item % CLASSES


def text(rng: np.random.Generator, label: int) -> list[int]:
    """Ids between two special ones, mostly from the third of the vocabulary that belongs to a class."""
    length = int(rng.integers(3, LONGEST - 1))
    own = rng.integers(FIRST + 6 * label, FIRST + 6 * label + 6, size=length)
    other = rng.integers(FIRST, WORDS, size=length)
    return [CLS, *np.where(rng.random(length) < 0.7, own, other).tolist(), SEP]


def picture(rng: np.random.Generator, label: int) -> np.ndarray:
    """(8, 8) uint8, brighter in the rows of a class."""
    image = rng.integers(0, 120, size=(IMAGE, IMAGE))
    image[2 * label : 2 * label + 3] += 120
    return image.astype(np.uint8)


def make_labelled(root: Path) -> dict[tuple[str, int, str], list[Any]]:
    """Store all sets for seeds 0 and 1; returns {(folder, seed, split): ids or images}."""
    made: dict[tuple[str, int, str], list[Any]] = {}
    facts = {"classes": ["a", "b", "c"], "noisy_class": 2}
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 11])
        sizes = {"train": TRAIN, "validation": VALIDATION}
        texts = {split: [text(rng, label_of(k)) for k in range(n)] for split, n in sizes.items()}
        rows = {
            split: [store.text_row(k, "", ids, label_of(k)) for k, ids in enumerate(one)]
            for split, one in texts.items()
        }
        words = list(range(WORDS, WORDS + CLASSES))
        for folder, pad in (("texts", PAD), ("texts_padded", OTHER_PAD)):
            card = {**facts, "kind": "text", "pad": pad, "mask": MASK, "label_tokens": words}
            store.save(path(root, folder, seed), rows, card)
            made |= {(folder, seed, split): one for split, one in texts.items()}
        labels = {"train": rng.integers(0, 4, size=24).tolist(), "validation": [0, 1, 2, 3, 0, 1, 2]}
        first = {split: [[*text(rng, k % 3), WORDS + k] for k in one] for split, one in labels.items()}
        stored = {split: [store.row(k, "", ids, 0, 0) for k, ids in enumerate(one)] for split, one in first.items()}
        store.save(path(root, "texts_pretraining", seed), stored, {"kind": "text"})
        made |= {("texts_pretraining", seed, split): one for split, one in first.items()}
        for folder in ("images", "images_pretraining"):
            images = {split: [picture(rng, label_of(k)) for k in range(n)] for split, n in sizes.items()}
            pictures = {
                split: [store.image_row(k, as_png(image / 15), label_of(k)) for k, image in enumerate(one)]
                for split, one in images.items()
            }
            store.save(path(root, folder, seed), pictures, {**facts, "kind": "images"})
            made |= {(folder, seed, split): one for split, one in images.items()}
    return made


def path(root: Path, folder: str, seed: int) -> Path:
    """Where training looks for a stored set."""
    return root / "data" / "layernorm" / folder / "dataset" / str(seed)


def text_model(architecture: str = "gpt2", head: str = "classification", **changes: Any) -> ModelSpec:
    """A text model of three layers."""
    size = {"layers": 3, "width": 16, "heads": 2, "positions": LONGEST + 2, "vocabulary": VOCABULARY}
    classes = CLASSES if head == "classification" else 0
    return ModelSpec(**{**size, "architecture": architecture, "head": head, "classes": classes, **changes})


def vision_model(**changes: Any) -> VisionSpec:
    """An image classifier of three layers."""
    size = {"layers": 3, "width": 16, "heads": 2, "image": IMAGE, "patch": 4, "channels": 1, "classes": CLASSES}
    return VisionSpec(**{**size, "architecture": "vit", **changes})


def labelled_data(
    folder: str = "texts", form: str = "classifier", *, seed: int = 0, noise: NoiseSpec | None = NOISE, **changes: Any
) -> DataSpec:
    """Items of one labelled set."""
    images = folder.startswith("images")
    label = {"kind": "images" if images else "text", "classes": CLASSES, "form": form, "noise": noise}
    sides = {"image": IMAGE, "channels": 1} if images else {}
    part = DataPart(set=folder.split("_")[0], folder=folder, items=changes.pop("items", TRAIN))
    labelled = LabelSpec(**{**label, **sides, **changes.pop("label", {})})
    return DataSpec(**{"parts": [part], "validation": VALIDATION, "seed": seed, "labelled": labelled, **changes})


def labelled_run(name: str = "tuned", **changes: Any) -> RunSpec:
    """Fine-tuning for 12 steps, 4 epochs of 20 texts in batches of 8."""
    spec = RunSpec(
        name=name,
        paper="layernorm",
        model_name="text_pre",
        model=text_model(),
        data_name="texts",
        data=labelled_data(),
        objective="classification",
        optimizer=OptimizerSpec(name="adamw", learning_rate=0.01),
        steps=12,
        batch_size=8,
        seed=0,
        probes=[
            ProbeSpec(function=f"{PROBES}:accuracy", every=6),
            ProbeSpec(function=f"{PROBES}:movement", every=12),
        ],
        device="cpu",
        labels={"position": "pre", "arm": "none", "noise": 0.2, "optimizer": "adamw", "stage": "fine_tuning"},
    )
    return spec.model_copy(update=changes)


def word_run(name: str = "word", **changes: Any) -> RunSpec:
    """Fine-tuning of a decoder in the next-token form."""
    form = {"data": labelled_data(form="causal_word"), "model": text_model(head="language_model")}
    return labelled_run(name, **{**form, "objective": "label_word", "objective_options": {"masked": 0}, **changes})


def image_run(name: str = "image", **changes: Any) -> RunSpec:
    """Fine-tuning of an image classifier."""
    return labelled_run(
        name, **{"model": vision_model(), "data": labelled_data("images"), "data_name": "images", **changes}
    )


def gradients_probe(every: int = 12, items: int = 5) -> ProbeSpec:
    """Measure gradients at the norms."""
    return ProbeSpec(function=f"{PROBES}:gradients", every=every, options={"items": items})


def pretraining_run(name: str = "text_pre-pretrained-s0", architecture: str = "gpt2", **changes: Any) -> RunSpec:
    """The first stage of a text model: 10 steps, norms at 10 times the learning rate."""
    spec = labelled_run(
        name,
        model=text_model(architecture, "language_model"),
        data=DataSpec(parts=[DataPart(set="texts", folder="texts_pretraining", items=24)], validation=7),
        objective="text_and_word",
        objective_options={"share": 0.5, "weight": 3.0, "words": WORDS},
        optimizer=OptimizerSpec(name="adamw", learning_rate=0.01, norm_rate=10.0, clip_norm=1.0),
        steps=10,
        probes=[
            ProbeSpec(
                function="memorization.probes.pretraining:language_model", every=5, options={"stripped": STRIPPED}
            ),
            ProbeSpec(function=f"{PROBES}:movement", every=5),
        ],
        labels={"position": "pre", "arm": "none", "noise": 0.0, "optimizer": "adamw", "stage": "pretraining"},
    )
    return spec.model_copy(update=changes)


def image_pretraining_run(name: str = "digits_pre-pretrained-s0", **changes: Any) -> RunSpec:
    """The first stage of an image classifier, with clean labels."""
    return image_run(
        name,
        **{
            "data": labelled_data("images_pretraining", noise=None),
            "optimizer": OptimizerSpec(name="adamw", learning_rate=0.01, norm_rate=10.0),
            "probes": [ProbeSpec(function=f"{FIRST_PROBES}:supervised", every=6, options={"stripped": STRIPPED})],
            "labels": {"position": "pre", "arm": "none", "noise": 0.0, "optimizer": "adamw", "stage": "pretraining"},
            **changes,
        },
    )
