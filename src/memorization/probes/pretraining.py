"""Probes of pre-training (`layernorm`): how good the model is, and what stripping its norms does at once."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from memorization.models.norms import strip_norm_parameters
from memorization.probes.completion import chunks
from memorization.probes.labelled import predict
from memorization.probes.scheduled import Context, Rows
from memorization.training.items import Items
from memorization.training.objectives import next_token_logits

CHUNK = 256


def next_tokens(model: Any, items: Items, words: int) -> tuple[float, float, int]:
    """Return (mean cross-entropy of text tokens in nats, accuracy of the word behind the text, number of text tokens).

    words: ids from here on are words that stand for the source of a text, one behind each.
    """
    import torch
    import torch.nn.functional as F

    total, number, right = 0.0, 0, 0
    with torch.no_grad():
        for rows in chunks(len(items), CHUNK):
            batch = items.batch(np.arange(len(items))[rows])
            targets = batch["labels"][:, 1:]
            there = targets != -100
            logits, wanted = next_token_logits(model, batch, there), targets[there]
            word = wanted >= words
            right += int((logits[word].argmax(-1) == wanted[word]).sum())
            total += float(F.cross_entropy(logits[~word].double(), wanted[~word], reduction="sum"))
            number += int((~word).sum())
    return total / max(1, number), right / max(1, len(items)), number


def unigram_entropy(items: Items, words: int) -> float:
    """Entropy in nats of the frequencies of next text tokens: what a model that ignores the context reaches at best."""
    labels = items.labels[:, 1:].cpu().numpy()
    _, counts = np.unique(labels[(labels >= 0) & (labels < words)], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def after_stripping(context: Context, options: dict[str, Any], value: Callable[[Any], Any]) -> dict[str, Any]:
    """`value(model)` of the model as it is ("none") and, at the last step, right after stripping a copy of it.

    options: stripped = [which, ...], arguments of `strip_norm_parameters`.
    """
    found = {"none": value(context.model)}
    if context.step == context.spec.steps:
        for which in options["stripped"]:
            model = copy.deepcopy(context.model)
            strip_norm_parameters(model, which)
            found[which] = value(model)
    return found


def language_model(context: Context, options: dict[str, Any]) -> Rows:
    """Cross-entropy of validation texts and accuracy of the word behind them, before and right after stripping.

    options: stripped; where the words begin comes from the options of the objective.
    """
    items, words = context.validation, int(context.spec.objective_options["words"])
    found = after_stripping(context, options, lambda model: next_tokens(model, items, words))
    row = {"subset": "all", "split": items.split}
    rows = []
    for which, (loss, right, number) in found.items():
        rows.append({**row, "metric": "cross_entropy", "value": loss, "n": number, "stripped": which})
        rows.append({**row, "metric": "word_accuracy", "value": right, "n": len(items), "stripped": which})
    if context.step == 0:
        entropy = unigram_entropy(items, words)
        rows.append({**row, "metric": "unigram_entropy", "value": entropy, "n": len(items), "stripped": "none"})
    return rows, []


def supervised(context: Context, options: dict[str, Any]) -> Rows:
    """Accuracy on validation items, before and right after stripping. options: stripped."""
    items = context.validation
    truth = np.asarray(items.truth)
    found = after_stripping(
        context, options, lambda model: float((predict(model, items, context.spec)[0] == truth).mean())
    )
    row = {"subset": "all", "split": items.split, "metric": "accuracy", "n": len(items)}
    return [{**row, "value": value, "stripped": which} for which, value in found.items()], []
