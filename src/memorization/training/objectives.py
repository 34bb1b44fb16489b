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


def text_and_word(
    model: Any, batch: Batch, *, share: float, weight: float, words: int
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Next-token cross-entropy of a text and the word behind it that says where the text is from.

    batch: as in `causal_lm`. words: ids from here on are such words; each counts `weight` times. Of the other tokens a
    random `share` is predicted, since the head over the vocabulary takes most of the time of a narrow model. They are
    drawn from torch's global RNG, whose state is saved with a run. The number of targets is the sum of the weights.
    """
    import torch
    import torch.nn.functional as F

    targets = batch["labels"][:, 1:]
    word = targets >= words
    drawn = torch.rand(targets.shape).to(targets.device) < share
    chosen = word | ((targets != -100) & drawn)
    logits = next_token_logits(model, batch, chosen)
    weights = torch.where(targets[chosen] >= words, weight, 1.0)
    return (F.cross_entropy(logits.float(), targets[chosen], reduction="none") * weights).sum(), weights.sum()


def next_token_logits(model: Any, batch: Batch, chosen: "torch.Tensor") -> "torch.Tensor":
    """Logits (chosen places, vocabulary) of a decoder for the tokens after the first; chosen: (batch, time - 1) bool.

    The head is applied to the chosen places only; to all of them where a model is wrapped or has another head.
    """
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if not (hasattr(model, "base_model") and hasattr(model, "lm_head")):
        return model(**given).logits[:, :-1][chosen]
    return model.lm_head(model.base_model(**given).last_hidden_state[:, :-1][chosen])


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
    """Logits (batch, vocabulary) where the word of the class belongs, and that word (batch,), an item's only label.

    masked: the place holds a mask token (masked LM); else the token before it predicts it (decoder).
    """
    labels = batch["labels"]
    if not masked:
        there = labels[:, 1:] != -100
        return next_token_logits(model, batch, there), labels[:, 1:][there]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[labels != -100], labels[labels != -100]


def label_word(model: Any, batch: Batch, *, masked: int = 1) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cross-entropy of the word that stands for an item's class, over the whole vocabulary (layernorm, table 6)."""
    import torch.nn.functional as F

    logits, words = word_logits(model, batch, masked=bool(masked))
    return F.cross_entropy(logits.float(), words, reduction="sum"), words.new_tensor(len(words))
