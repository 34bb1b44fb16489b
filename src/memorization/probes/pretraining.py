"""Probes of pre-training (`layernorm`): how good the model is, and what stripping its norms does before any training."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from memorization.models.norms import strip_norm_parameters
from memorization.probes.completion import chunks
from memorization.probes.labelled import predict
from memorization.probes.scheduled import Context, Rows
from memorization.training.items import Items
from memorization.training.objectives import masked_logits

CHUNK = 256


def masked_cross_entropy(
    model: Any, items: Items, *, share: float, mask: int, first: int, last: int
) -> tuple[float, int]:
    """Return (mean cross-entropy in nats, number of targets) of masked tokens of `items`.

    `share` of the text tokens, those from `first` to before `last`, are replaced by `mask`; the same ones at every call,
    so that values of different models and steps compare. 0.0 and 0 where no token is masked.
    """
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    total, number = 0.0, 0
    with torch.no_grad():
        for rows in chunks(len(items), CHUNK):
            batch = items.batch(np.arange(len(items))[rows])
            ids, attention = batch["input_ids"], batch["attention_mask"]
            draw = torch.rand(ids.shape, generator=generator).to(ids.device)
            chosen = (ids >= first) & (ids < last) & attention.bool() & (draw < share)
            logits = masked_logits(model, torch.where(chosen, mask, ids), attention, chosen)
            total += float(F.cross_entropy(logits.double(), ids[chosen], reduction="sum"))
            number += int(chosen.sum())
    return total / max(1, number), number


def unigram_entropy(items: Items, *, first: int, last: int) -> float:
    """Entropy in nats of the distribution of text tokens: what a model that ignores the context reaches at best."""
    ids = items.input_ids.cpu().numpy()
    _, counts = np.unique(ids[(ids >= first) & (ids < last)], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def after_stripping(context: Context, options: dict[str, Any], value: Callable[[Any], float]) -> dict[str, float]:
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


def masked_lm(context: Context, options: dict[str, Any]) -> Rows:
    """Masked-LM loss of validation items, before and right after stripping.

    options: stripped; how tokens are masked comes from the options of the objective.
    """
    items, masks = context.validation, context.spec.objective_options
    given = {"share": float(masks["share"]), **{name: int(masks[name]) for name in ("mask", "first", "last")}}
    number = masked_cross_entropy(context.model, items, **given)[1]  # type: ignore[arg-type]
    found = after_stripping(
        context,
        options,
        lambda model: masked_cross_entropy(model, items, **given)[0],  # type: ignore[arg-type]
    )
    row = {"subset": "all", "split": items.split}
    rows = [{**row, "metric": "cross_entropy", "value": value, "n": number, "stripped": which}
            for which, value in found.items()]  # fmt: skip
    if context.step == 0:
        entropy = unigram_entropy(items, first=int(masks["first"]), last=int(masks["last"]))
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
