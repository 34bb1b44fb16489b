"""Objectives: small functions `(model, batch) -> (summed loss, number of targets)`.

A batch is a mapping of tensors whose first dimension is the item, see `memorization.training.items.Items.batch`. The
sum and the count are kept apart so that the mean over a batch is exact however it is split over processes.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Batch = Mapping[str, "torch.Tensor"]
Objective = Callable[[Any, Batch], "tuple[torch.Tensor, torch.Tensor]"]


def causal_lm(model: Any, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
    """Next-token cross-entropy.

    batch: input_ids, labels, both (batch, time), items right-padded; labels are -100 where there is nothing to predict.
    No attention mask is needed: causal attention never looks right, and padding has no labels.
    """
    import torch.nn.functional as F

    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss, (targets != -100).sum()


def goldfish(
    model: Any,
    batch: Batch,
    *,
    k: int = 4,
    strategy: str = "hash-table",
    window: int = 4,
    seed: int = 2971215073,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Next-token cross-entropy over the targets that the Goldfish loss keeps (Hans et al. 2024).

    Arguments as in `causal_lm` and `memorization.methods.goldfish.goldfish_mask`; the number of targets counts kept
    ones only. Labels of -100 are never targets.
    """
    from memorization.methods.goldfish import goldfish_mask

    kept = goldfish_mask(batch["input_ids"], k, strategy, window=window, seed=seed)
    return causal_lm(model, {**batch, "labels": batch["labels"].masked_fill(~kept, -100)})
