"""The items of a run as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.data import store
from memorization.errors import UserError
from memorization.specs import DataPart, ModelSpec, RunSpec
from memorization.training.shares import proportional

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Items:
    """N items, right-padded to a common length T.

    input_ids: (N, T) int64, padding 0; labels: (N, T), -100 at padding; prompt: (N,) prompt lengths in tokens;
    subset: (N,) name of the set each item belongs to; length, copies: (N,), copies being how often an epoch holds it.
    Of labelled items also target, truth: (N,) class to learn (with label noise) and true class; words: (classes,) token
    of each class in the next-token form; pixels: (N, channels, height, width) uint8; padding: id of the padding token.
    Of preference pairs also rejected: (N, T2) the prompt and the rejected reply, and rejected_length: (N,). Of
    questions with choices also distractors: of each item a list of wrong answers as token ids (empty where none are).
    completion: (N,) tokens of the stored completion behind the prompt, where a set has some.
    """

    input_ids: "torch.Tensor"
    labels: "torch.Tensor"
    length: np.ndarray
    prompt: np.ndarray
    subset: np.ndarray
    split: str
    copies: np.ndarray
    target: "torch.Tensor | None" = None
    truth: np.ndarray | None = None
    pixels: "torch.Tensor | None" = None
    words: np.ndarray | None = None
    padding: int = 0
    rejected: "torch.Tensor | None" = None
    rejected_length: np.ndarray | None = None
    distractors: list[list[list[int]]] | None = None
    completion: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.length)

    def answer_length(self) -> np.ndarray:
        """(N,) tokens of each answer: what is stored as its completion, or all behind the prompt."""
        return self.length - self.prompt if self.completion is None else self.completion

    def stream(self) -> np.ndarray:
        """Item of every training example of one epoch, before shuffling."""
        return np.repeat(np.arange(len(self)), self.copies)

    def only(self, subsets: Sequence[str]) -> "Items":
        """The items of some subsets, in order."""
        return self.at(np.flatnonzero(np.isin(self.subset, list(subsets))))

    def at(self, keep: np.ndarray) -> "Items":
        """The items at some places."""
        import torch

        rows = torch.as_tensor(keep, device=self.input_ids.device)
        arrays = {name: getattr(self, name)[keep] for name in ("length", "prompt", "subset", "copies")}
        wrong = None if self.distractors is None else [self.distractors[row] for row in keep]
        answers = None if self.completion is None else self.completion[keep]
        more: dict[str, Any] = {"split": self.split, "distractors": wrong, "completion": answers}
        return Items(self.input_ids[rows], self.labels[rows], **arrays, **more)

    def batch(self, rows: np.ndarray, longest: int | None = None) -> "dict[str, torch.Tensor]":
        """Tensors of some items as objectives take them, cut to `longest` tokens (default: of these items)."""
        import torch

        index = torch.as_tensor(rows, device=self.input_ids.device)
        if self.pixels is not None and self.target is not None:
            return {"pixels": self.pixels[index], "target": self.target[index]}
        longest = longest or int(self.length[rows].max())
        length = torch.as_tensor(self.length[rows], device=index.device)
        batch = {
            "input_ids": self.input_ids[index, :longest],
            "labels": self.labels[index, :longest],
            "attention_mask": (torch.arange(longest, device=index.device) < length[:, None]).long(),
            "length": length,
            "prompt": torch.as_tensor(self.prompt[rows], device=index.device),
        }
        if self.rejected is not None and self.rejected_length is not None:
            there = torch.as_tensor(self.rejected_length[rows], device=index.device)
            rejected = self.rejected[index, : int(there.max())]
            padding = torch.arange(rejected.shape[1], device=index.device) >= there[:, None]
            batch |= {"rejected_ids": rejected, "rejected_labels": rejected.masked_fill(padding, -100)}
        return batch if self.target is None else {**batch, "target": self.target[index]}

    def noisy(self) -> np.ndarray:
        """Numbers of the items whose label is wrong."""
        if self.target is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.target.cpu().numpy() != self.truth)

    def to(self, device: "torch.device | str") -> "Items":
        """Same items with their tensors on `device`."""
        names = ("input_ids", "labels", "target", "pixels", "rejected")
        tensors = {name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None}
        return Items(**{**self.__dict__, **tensors})


def pad(
    sequences: list[list[int]],
    prompt: list[int],
    subset: list[str],
    split: str,
    copies: list[int] | None = None,
    padding: int = 0,
) -> Items:
    """Return `Items` from token id lists of any lengths."""
    import torch

    length = np.array([len(s) for s in sequences], dtype=np.int64)
    width = int(length.max()) if len(length) else 0
    ids = np.full((len(sequences), width), padding, dtype=np.int64)
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
        np.array(copies or [1] * len(sequences), dtype=np.int64),
        padding=padding,
    )


def load_items(spec: RunSpec, root: Path) -> tuple[Items, Items]:
    """Return (train, validation) items of a run.

    root: `results/<scale>`. Train items of a part are `items` of its stored train split from `first` on, so that larger
    runs contain the smaller ones. Validation items are shared out over the parts that hold some, by their items;
    those of sets that are only measured follow.
    """
    if spec.data.labelled:
        from memorization.training.labelled import load_labelled

        return load_labelled(spec, root)
    weights = [float(part.items * part.held_out) for part in spec.data.parts]
    held_out = proportional(spec.data.validation, weights) if spec.data.validation else [0] * len(weights)
    wanted = {
        "train": [(part, part.first, part.items) for part in spec.data.parts],
        "validation": [
            *((part, 0, count) for part, count in zip(spec.data.parts, held_out, strict=True)),
            *((part, part.first, part.items) for part in spec.data.measured),
        ],
    }
    train, validation = (read_items(spec, root, split, parts) for split, parts in wanted.items())
    check_completions(spec, train)
    for items in (train, validation):
        check_lengths(spec, items)
    return train, validation


def read_items(spec: RunSpec, root: Path, split: str, parts: list[tuple[DataPart, int, int]]) -> Items:
    """Items of one split. parts: (part, first item, number of items)."""
    names = ("input_ids", "prompt_length", "completion_length", "distractors", "rejected_ids")
    found: dict[str, list[Any]] = {name: [] for name in names}
    subset, copies = [], []
    for part, first, count in parts:
        if not count:
            continue
        folder = root / "data" / spec.paper / part.folder / "dataset" / str(spec.data.seed)
        there = store.columns_in(folder, split)
        rows = store.read_columns(folder, split, [name for name in names if name in there])
        held = len(rows["input_ids"])
        if first + count > held:
            raise UserError(
                f"{spec.name} wants {first + count} {split} items of {part.folder}, {folder} holds {held}: "
                "delete that folder so that it is made again"
            )
        for name in names:
            found[name] += rows[name][first : first + count] if name in rows else [[]] * count
        subset += [part.set] * count
        copies += [part.copies[i % len(part.copies)] for i in range(count)]
    items = pad(found["input_ids"], found["prompt_length"], subset, split, copies)
    if any(found["rejected_ids"]):
        other = pad(found["rejected_ids"], found["prompt_length"], subset, split, copies)
        items = replace(items, rejected=other.input_ids, rejected_length=other.length)
    items = replace(items, completion=np.array(found["completion_length"], dtype=np.int64))
    return replace(items, distractors=found["distractors"]) if any(found["distractors"]) else items


def check_completions(spec: RunSpec, items: Items) -> None:
    """Refuse items that are shorter than prompt + completion."""
    measured = items.prompt > 0  # background text has no prompt: nothing of it is completed
    shortest = int((items.length - items.prompt)[measured].min(initial=spec.completion_length))
    if shortest < spec.completion_length:
        raise UserError(
            f"{spec.name}: the shortest item leaves {shortest} tokens after its prompt, "
            f"completion: {spec.completion_length} does not fit: write a smaller prompt or completion, or longer items"
        )


def check_lengths(spec: RunSpec, items: Items) -> None:
    """Refuse items without tokens, and those longer than the model's positions."""
    for subset in dict.fromkeys(items.subset[items.length < 1]):
        raise UserError(
            f"{spec.name}: the {items.split} items of {subset} hold one without tokens: delete its folder below data/ "
            "so that it is made again, or leave out empty texts of your own"
        )
    if isinstance(spec.model, ModelSpec) and int(items.length.max(initial=0)) > spec.model.positions:
        raise UserError(
            f"{spec.name}: the longest item has {int(items.length.max())} tokens, the model {spec.model.positions} "
            "positions: raise positions"
        )
