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


def masked_lm(
    model: Any, batch: Batch, *, share: float = 0.15, mask: int, first: int, last: int
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cross-entropy of masked tokens (Devlin et al. 2019): of `share` of the text tokens 80 % become `mask`, 10 % a
    random text token, 10 % stay.

    batch: input_ids, attention_mask, both (batch, time). Text tokens are those from `first` to before `last`; others
    are never masked. Masks are drawn from torch's global RNG, whose state is saved with a run.
    """
    import torch
    import torch.nn.functional as F

    ids = batch["input_ids"]
    text = (ids >= first) & (ids < last) & batch["attention_mask"].bool()
    draw, kind = (torch.rand(ids.shape).to(ids.device) for _ in range(2))
    chosen = text & (draw < share)
    shown = torch.where(chosen & (kind < 0.8), mask, ids)
    other = torch.randint(first, last, ids.shape).to(ids.device)
    shown = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, shown)
    logits = masked_logits(model, shown, batch["attention_mask"], chosen)
    return F.cross_entropy(logits.float(), ids[chosen], reduction="sum"), chosen.sum()


def masked_logits(model: Any, ids: "torch.Tensor", attention: "torch.Tensor", chosen: "torch.Tensor") -> "torch.Tensor":
    """Logits (chosen positions, vocabulary) of a masked LM.

    The head is applied to the chosen positions only, which at small widths is most of the time saved; where that is not
    possible (a wrapped model, an unknown head) to all.
    """
    head = next((getattr(model, name) for name in ("cls", "lm_head") if hasattr(model, name)), None)
    if head is None or not hasattr(model, "base_model"):
        return model(input_ids=ids, attention_mask=attention).logits[chosen]
    return head(model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state[chosen])


def class_logits(model: Any, batch: Batch) -> "torch.Tensor":
    """Logits (batch, classes) of a classifier of texts (input_ids, attention_mask) or images (pixels, 0 to 255)."""
    if "pixels" in batch:
        return model(pixel_values=batch["pixels"].float() / 127.5 - 1).logits
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def classification(model: Any, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cross-entropy of the class `target` (batch,), as `class_logits` reads the batch."""
    import torch.nn.functional as F

    loss = F.cross_entropy(class_logits(model, batch).float(), batch["target"], reduction="sum")
    return loss, batch["target"].new_tensor(len(batch["target"]))


def word_logits(model: Any, batch: Batch, *, masked: bool) -> "tuple[torch.Tensor, torch.Tensor]":
    """Logits (batch, vocabulary) where the word of the class belongs, and that word (batch,): the only label of an item.

    masked: the place holds a mask token (masked LM); else the token before it predicts it (decoder).
    """
    labels = batch["labels"]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    if not masked:
        logits, labels = logits[:, :-1], labels[:, 1:]
    there = labels != -100
    return logits[there], labels[there]


def label_word(model: Any, batch: Batch, *, masked: int = 1) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cross-entropy of the word that stands for an item's class, over the whole vocabulary (layernorm, table 6)."""
    import torch.nn.functional as F

    logits, words = word_logits(model, batch, masked=bool(masked))
    return F.cross_entropy(logits.float(), words, reduction="sum"), words.new_tensor(len(words))
