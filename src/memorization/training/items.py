"""The items of a run as padded tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memorization.data import store
from memorization.errors import UserError
from memorization.specs import RunSpec
from memorization.training.shares import proportional

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Items:
    """N items, right-padded to a common length T.

    input_ids: (N, T) int64, padding 0; labels: (N, T), -100 at padding; prompt: (N,) prompt lengths in tokens;
    subset: (N,) name of the set each item belongs to; length: (N,).
    """

    input_ids: "torch.Tensor"
    labels: "torch.Tensor"
    length: np.ndarray
    prompt: np.ndarray
    subset: np.ndarray
    split: str

    def __len__(self) -> int:
        return len(self.length)

    def to(self, device: "torch.device | str") -> "Items":
        """Same items with their tensors on `device`."""
        tensors = {"input_ids": self.input_ids.to(device), "labels": self.labels.to(device)}
        return Items(**{**self.__dict__, **tensors})


def pad(sequences: list[list[int]], prompt: list[int], subset: list[str], split: str) -> Items:
    """Return `Items` from token id lists of any lengths."""
    import torch

    length = np.array([len(s) for s in sequences], dtype=np.int64)
    width = int(length.max()) if len(length) else 0
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    labels = np.full_like(ids, -100)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = labels[row, : len(sequence)] = sequence
    return Items(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        length,
        np.array(prompt, dtype=np.int64),
        np.array(subset, dtype=object),
        split,
    )


def load_items(spec: RunSpec, root: Path) -> tuple[Items, Items]:
    """Return (train, validation) items of a run.

    root: `results/<scale>`. Train items of a part are the first `items` of its stored train split, so that larger runs
    contain the smaller ones.
    """
    wanted = {
        "train": [part.items for part in spec.data.parts],
        "validation": proportional(spec.data.validation, [part.items for part in spec.data.parts]),
    }
    loaded = []
    for split, counts in wanted.items():
        sequences, prompt, subset = [], [], []
        for part, count in zip(spec.data.parts, counts, strict=True):
            folder = root / "data" / spec.paper / part.folder / "dataset" / str(spec.data.seed)
            rows = store.read_columns(folder, split, ["input_ids", "prompt_length"])
            if count > len(rows["input_ids"]):
                held = len(rows["input_ids"])
                raise UserError(
                    f"{spec.name} wants {count} {split} items of {part.folder}, {folder} holds {held}: "
                    "delete that folder so that it is made again"
                )
            sequences += rows["input_ids"][:count]
            prompt += rows["prompt_length"][:count]
            subset += [part.set] * count
        loaded.append(pad(sequences, prompt, subset, split))
    check_lengths(spec, loaded[0])
    return loaded[0], loaded[1]


def check_lengths(spec: RunSpec, items: Items) -> None:
    """Refuse items that are shorter than prompt + completion, or longer than the model's positions."""
    shortest = int((items.length - items.prompt).min())
    if shortest < spec.completion_length:
        raise UserError(
            f"{spec.name}: the shortest item leaves {shortest} tokens after its prompt, "
            f"completion: {spec.completion_length} does not fit: write a smaller prompt or completion, or longer items"
        )
    if int(items.length.max()) > spec.model.positions:
        raise UserError(
            f"{spec.name}: the longest item has {int(items.length.max())} tokens, the model {spec.model.positions} "
            "positions: raise positions"
        )
