"""Probes of runs on labelled items (`layernorm`): accuracy, what became of wrong labels, gradients at the norms.

Called by training as `(context, options) -> (measurement rows, item rows)`.
"""

from typing import Any

import numpy as np
import pandas as pd

from memorization.models.norms import norm_movement
from memorization.probes.completion import chunks
from memorization.probes.norm_gradients import norm_input_gradients
from memorization.probes.outcomes import outcomes
from memorization.probes.scheduled import Context, Rows
from memorization.specs import RunSpec
from memorization.training.items import Items
from memorization.training.objectives import class_logits, word_logits

CHUNK = 256


def per_item_loss(model: Any, batch: Any, spec: RunSpec) -> tuple[Any, Any]:
    """Return (cross-entropy (batch,), predicted class or word (batch,)) of labelled items."""
    import torch.nn.functional as F

    if spec.objective == "label_word":
        logits, targets = word_logits(model, batch, masked=bool(spec.objective_options.get("masked", 1)))
    else:
        logits, targets = class_logits(model, batch), batch["target"]
    return F.cross_entropy(logits.float(), targets, reduction="none"), logits.argmax(-1)


def predict(model: Any, items: Items, spec: RunSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return (predicted class (N,), -1 for a word that is no class's; cross-entropy (N,) in nats) of labelled items."""
    import torch

    predicted, losses = [], []
    with torch.no_grad():
        for rows in chunks(len(items), CHUNK):
            loss, best = per_item_loss(model, items.batch(np.arange(len(items))[rows]), spec)
            predicted.append(best.cpu().numpy())
            losses.append(loss.double().cpu().numpy())
    classes = np.concatenate(predicted)
    if spec.objective == "label_word" and items.words is not None:
        number = {int(word): k for k, word in enumerate(items.words)}
        classes = np.array([number.get(int(word), -1) for word in classes])
    return classes, np.concatenate(losses)


def accuracy(context: Context, options: dict[str, Any]) -> Rows:
    """Accuracy and loss on training items (with their noisy labels) and on validation items, and the noisy items' fate.

    Memorization, recovery and random prediction are shares of the noisy items (layernorm, section 3.2).
    """
    rows, frames = [], []
    for items in (context.train, context.validation):
        if not len(items) or items.target is None:
            continue
        classes, loss = predict(context.model, items, context.spec)
        right = classes == items.target.cpu().numpy()
        row = {"subset": "all", "split": items.split, "n": len(items)}
        rows += [{**row, "metric": "accuracy", "value": float(right.mean())},
                 {**row, "metric": "loss", "value": float(loss.mean())}]  # fmt: skip
        noisy = items.noisy()
        if items is context.train and len(noisy):
            labels = {"label": items.target.cpu().numpy()[noisy], "true_label": np.asarray(items.truth)[noisy]}
            fate = outcomes(classes[noisy], labels["label"], labels["true_label"])
            row = {**row, "subset": "noisy", "n": len(noisy)}
            rows += [{**row, "metric": metric, "value": value} for metric, value in fate.items()]
            wanted = {"prediction": classes[noisy], **(labels if context.step == 0 else {})}
            frames += [item_rows(noisy, metric, values) for metric, values in wanted.items()]
    return rows, frames


def item_rows(numbers: np.ndarray, metric: str, values: np.ndarray) -> pd.DataFrame:
    """Item rows of noisy training items."""
    return pd.DataFrame(
        {
            "subset": "noisy",
            "split": "train",
            "item": numbers.astype(np.int32),
            "metric": metric,
            "value": values.astype(np.float32),
        }
    )


def gradients(context: Context, options: dict[str, Any]) -> Rows:
    """Norms of the loss gradient at the input of every norm of the layers (layernorm, section 3.3).

    Learning: over validation items; memorization: over noisy training items with their noisy label. options: items, how
    many validation items. Two definitions: text (norm of each item's gradient, then the mean) and code.
    """
    spec, rows = context.spec, []
    validation = np.arange(min(len(context.validation), int(options["items"])))
    for metric, items, numbers in (
        ("gradient_learning", context.validation, validation),
        ("gradient_memorization", context.train, context.train.noisy()),
    ):
        if not len(numbers):
            continue
        found = norm_input_gradients(
            context.model,
            [items.batch(numbers[part]) for part in chunks(len(numbers), CHUNK)],
            lambda model, batch: per_item_loss(model, batch, spec)[0],
        )
        for definition, values in (("text", found.per_item.mean(0)), ("code", found.code)):
            rows += [
                {"subset": "all" if items is context.validation else "noisy", "split": items.split,
                 "n": len(numbers), "metric": metric, "value": float(value), "layer": layer, "role": role,
                 "definition": definition}
                for value, layer, role in zip(values, found.layers, found.roles, strict=True)
            ]  # fmt: skip
    return rows, []


def movement(context: Context, options: dict[str, Any]) -> Rows:
    """How far gains are from 1 and biases from 0, root mean square, a row a norm."""
    rows = []
    for norm in norm_movement(context.model):
        row = {"subset": norm["norm"], "split": "train", "n": 1, "layer": norm["layer"], "role": norm["role"]}
        rows += [{**row, "metric": metric, "value": norm[metric]}
                 for metric in ("gain_moved", "bias_moved") if not np.isnan(norm[metric])]  # fmt: skip
    return rows, []
