"""Probes as training calls them: `(context, options) -> (measurement rows, item rows)`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.probes import completion as measure
from memorization.probes import overlap as compare
from memorization.specs import RunSpec
from memorization.training.items import Items


@dataclass
class Context:
    """What a probe may look at. `memory` is saved with the run's state and survives a resume."""

    spec: RunSpec
    model: Any
    train: Items
    validation: Items
    step: int = 0
    batch: np.ndarray | None = None  # items of the step just taken
    before: np.ndarray | None = None  # their exact match just before that step
    memory: dict[str, list[Any]] = field(default_factory=dict)
    root: Path | None = None  # results/<scale>, where the models of other runs lie
    work: Path | None = None  # the run's own folder: other runs of its job have theirs beside it

    def model_folder(self, run: str) -> Path:
        """Folder of the last model of another run."""
        return model_folder(run, self.root or Path(), self.work)


def model_folder(run: str, root: Path, work: Path | None = None) -> Path:
    """Folder of a run's last model: below `root`, `results/<scale>`, or until its job ends beside `work` of another."""
    beside = work.parent / run if work else None
    if beside and (beside / "done.json").is_file() and (beside / "model").is_dir():
        return beside / "model"
    return root / "models" / run


Rows = tuple[list[dict[str, Any]], list[pd.DataFrame]]
Probe = Callable[[Context, dict[str, Any]], Rows]


def resolve(dotted: str) -> Any:
    """Import `package.module:name`."""
    module, name = dotted.split(":")
    return getattr(import_module(module), name)


def by_subset(items: Items) -> dict[str, np.ndarray]:
    """Index of every subset, and of "all" for a mixture."""
    subsets = {name: np.flatnonzero(items.subset == name) for name in dict.fromkeys(items.subset)}
    return {**subsets, "all": np.arange(len(items))} if len(subsets) > 1 else subsets


def summary(items: Items, lengths: tuple[int, int], metric: str, values: np.ndarray) -> list[dict[str, Any]]:
    """One measurement row a subset: the mean of per-item `values` (N,)."""
    return [
        {
            "subset": subset,
            "split": items.split,
            "prompt_length": lengths[0],
            "completion_length": lengths[1],
            "metric": metric,
            "value": float(values[index].mean()),
            "n": len(index),
        }
        for subset, index in by_subset(items).items()
        if len(index)
    ]


def per_item(items: Items, metric: str, values: np.ndarray) -> pd.DataFrame:
    """Item rows of one metric, in item order."""
    return pd.DataFrame(
        {
            "subset": items.subset,
            "split": items.split,
            "item": np.arange(len(items), dtype=np.int32),
            "metric": metric,
            "value": values.astype(np.float32),
        }
    )


def completion(context: Context, options: dict[str, Any]) -> Rows:
    """Exact match and completion loss of train and validation items, at the run's lengths and at `lengths` variants.

    options: lengths = [[prompt, completion], ...], further pairs in tokens (patterns, figure 8).
    """
    spec, rows, frames = context.spec, [], []
    pairs = [(spec.prompt_length, spec.completion_length), *map(tuple, options.get("lengths", []))]
    for items in (context.train, context.validation):
        if not len(items):
            continue
        windows = [(items.prompt, pairs[0][1])] + [(np.full(len(items), p), g) for p, g in pairs[1:]]
        for lengths, (exact, loss) in zip(pairs, measure.teacher_forced(context.model, items, windows), strict=True):
            rows += summary(items, lengths, "exact_match", exact) + summary(items, lengths, "loss", loss)
            if lengths is pairs[0]:
                frames.append(per_item(items, "exact_match", exact))
                if context.step == 0:
                    frames.append(per_item(items, "length", items.length))
                if items is context.train:
                    ever = np.array(context.memory.get("ever", np.zeros(len(items), bool)), dtype=bool)
                    context.memory["ever"] = (ever | exact).astype(int).tolist()
                    context.memory["now"] = exact.astype(int).tolist()
                    context.memory["evaluated_at"] = [context.step]
    return rows, frames


def passages(context: Context, options: dict[str, Any]) -> Rows:
    """Exact match and completion loss of the passages, and cross-entropy of held-out text (tokenswap, section 4.1).

    options: subsets = [name, ...], the training items that are passages.
    """
    rows, frames = [], []
    items = context.train.only(options["subsets"])
    if len(items):
        lengths = (context.spec.prompt_length, context.spec.completion_length)
        exact, loss = measure.teacher_forced(context.model, items, [(items.prompt, lengths[1])])[0]
        rows += summary(items, lengths, "exact_match", exact) + summary(items, lengths, "loss", loss)
        if context.step == context.spec.steps:
            frames.append(per_item(items, "exact_match", exact))
    if len(context.validation):
        values = measure.cross_entropy(context.model, context.validation)
        rows += summary(context.validation, (0, 0), "cross_entropy", values)
    return rows, frames


def recency_before(context: Context) -> None:
    """Exact match of the training items just before the step that `recency` will look at."""
    context.before = measure.exact_match(context.model, context.train, context.spec.completion_length)


def recency(context: Context, options: dict[str, Any]) -> Rows:
    """Count the items memorized in exactly this training step, and those of them in its batch (patterns, table 2)."""
    if context.before is None or context.batch is None:
        return [], []
    now = measure.exact_match(context.model, context.train, context.spec.completion_length)
    new = np.flatnonzero(now & ~context.before)
    counts = {
        "newly_memorized": len(new),
        "newly_in_batch": len(np.intersect1d(new, context.batch)),
        "batch_items": len(context.batch),
    }
    row = {
        "subset": "all",
        "split": "train",
        "prompt_length": context.spec.prompt_length,
        "completion_length": context.spec.completion_length,
        "n": len(context.train),
    }
    context.before = None
    return [{**row, "metric": metric, "value": float(value)} for metric, value in counts.items()], []


def overlap(context: Context, options: dict[str, Any]) -> Rows:
    """BLEU, METEOR and n-gram Jaccard of the greedy completions of the training items (patterns, figures 9 and 13).

    options: jaccard_order, n of the Jaccard similarity.
    """
    spec, items = context.spec, context.train
    written = measure.generate(context.model, items, spec.completion_length)
    truth = measure.true_completions(items, spec.completion_length)
    rows, frames = [], []
    for metric, values in compare.overlaps(truth, written, int(options["jaccard_order"])).items():
        rows += summary(items, (spec.prompt_length, spec.completion_length), metric, values)
        frames.append(per_item(items, metric, values))
    return rows, frames


def adherence(context: Context, options: dict[str, Any]) -> Rows:
    """Share of generated steps on unseen prompts that follow the increment rule (patterns, section 4.3)."""
    spec, items = context.spec, context.validation
    if not len(items):
        return [], []
    written = measure.generate(context.model, items, spec.completion_length)
    ids = items.input_ids.cpu().numpy()
    first = ids[np.arange(len(items)), items.prompt - 1]
    values = compare.adherence(written, first)
    lengths = (spec.prompt_length, spec.completion_length)
    return summary(items, lengths, "adherence", values), [per_item(items, "adherence", values)]


def sampling(context: Context, options: dict[str, Any]) -> Rows:
    """Share of samples equal to the completion, by the item's status (patterns, section D.2).

    options: samples, temperature. Status: memorized now; forgotten = memorized at an earlier evaluation only; never.
    """
    spec, items = context.spec, context.train
    drawn = measure.generate(
        context.model,
        items,
        spec.completion_length,
        samples=int(options["samples"]),
        temperature=float(options["temperature"]),
        seed=spec.seed * 1_000_003 + context.step,
    )
    values = (drawn == measure.true_completions(items, spec.completion_length)[:, None]).all(2).mean(1)
    now = measure.exact_match(context.model, items, spec.completion_length)
    ever = np.array(context.memory.get("ever", np.zeros(len(items))), dtype=bool) | now
    rows = []
    for status, member in {"memorized": now, "forgotten": ever & ~now, "never": ~ever}.items():
        if member.any():
            row = {
                "subset": status,
                "split": "train",
                "prompt_length": spec.prompt_length,
                "completion_length": spec.completion_length,
                "metric": "sampling_accuracy",
            }
            rows.append({**row, "value": float(values[member].mean()), "n": int(member.sum())})
    return rows, [per_item(items, "sampling_accuracy", values)]
