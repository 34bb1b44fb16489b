"""Objectives: small functions `(model, batch) -> (summed loss, number of targets)`.

The sum and the count are kept apart so that the mean over a batch is exact however it is split over processes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Objective = Callable[[Any, "torch.Tensor", "torch.Tensor"], "tuple[torch.Tensor, torch.Tensor]"]


def causal_lm(model: Any, input_ids: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Next-token cross-entropy.

    input_ids, labels: (batch, time), items right-padded; labels are -100 where there is nothing to predict. No
    attention mask is needed: causal attention never looks right, and padding has no labels.
    """
    import torch.nn.functional as F

    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss, (targets != -100).sum()


def goldfish(
    model: Any,
    input_ids: "torch.Tensor",
    labels: "torch.Tensor",
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

    kept = goldfish_mask(input_ids, k, strategy, window=window, seed=seed)
    return causal_lm(model, input_ids, labels.masked_fill(~kept, -100))
