"""Objectives of post-training: supervised fine-tuning on replies, DPO, and GRPO with a reward that can be checked.

`(model, batch, *, options) -> (summed loss, number of targets)`, as in `memorization.training.objectives`. A batch has
input_ids and labels (batch, time), items right-padded, labels -100 at padding only, and prompt (batch,): how many
tokens come before the reply, 1 or more. The reply is everything behind them, an end mark included.

Functions marked `needs_reference` are given `reference`, a frozen copy of the model before its first update. Models are
only ever called, so they may be wrapped.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from memorization.errors import UserError
from memorization.training.objectives import Batch, causal_lm

if TYPE_CHECKING:
    import torch

Function = TypeVar("Function", bound=Callable[..., Any])

EPSILON = 1e-4  # added to the standard deviation of a group's rewards


def needs_reference(function: Function) -> Function:
    """Mark an objective that takes the keyword `reference`, a frozen copy of the model before its first update."""
    vars(function)["needs_reference"] = True
    return function


def sft(model: Any, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
    """Next-token cross-entropy of the reply tokens; prompts are read but not learned (geometry, figure 5).

    The count is that of reply tokens. An item with prompt 0 is learned whole but for its first token.
    """
    import torch

    position = torch.arange(batch["labels"].shape[1], device=batch["labels"].device)
    before = position < batch["prompt"][:, None]
    return causal_lm(model, {**batch, "labels": batch["labels"].masked_fill(before, -100)})


def reply_lengths(labels: "torch.Tensor", prompt: "torch.Tensor") -> "torch.Tensor":
    """Return (batch,) number of tokens behind each prompt; labels: (batch, time), -100 at padding only."""
    lengths = (labels != -100).sum(1) - prompt
    if int(prompt.min()) < 1 or int(lengths.min()) < 1:
        raise UserError(
            "an item has no prompt or no reply: DPO, GRPO and measurements of replies need both; train with items that "
            "have a prompt length of at least 1 and tokens behind it"
        )
    return lengths


def reply_logits(
    model: Any, input_ids: "torch.Tensor", prompt: "torch.Tensor", lengths: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Return logits (batch, R, vocabulary) that predict the reply tokens, these tokens (batch, R), and which there are.

    input_ids: (batch, time), right-padded; prompt, lengths: (batch,), both at least 1. R is the longest reply; beyond
    the end of a shorter one the third result (batch, R) is False and the others mean nothing. The head is applied to no
    place before the shortest prompt's last token.
    """
    import torch

    offset = torch.arange(int(lengths.max()), device=input_ids.device)
    there = offset < lengths[:, None]
    position = (prompt[:, None] + offset).clamp(max=input_ids.shape[1] - 1)
    first = int(prompt.min()) - 1
    kept = torch.arange(first, int((prompt + lengths).max()) - 1, device=input_ids.device)
    logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=kept).logits
    at = (position - 1 - first).clamp(max=len(kept) - 1)
    row = torch.arange(len(at), device=at.device)[:, None]
    return logits[row, at].float(), input_ids.gather(1, position), there


def token_log_probabilities(
    model: Any,
    input_ids: "torch.Tensor",
    prompt: "torch.Tensor",
    lengths: "torch.Tensor",
    *,
    temperature: float = 1.0,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return (log-probability (batch, R) of every reply token in nats, whether it is there); 0 where it is not.

    Arguments as in `reply_logits`; temperature divides the logits.
    """
    import torch.nn.functional as F

    logits, tokens, there = reply_logits(model, input_ids, prompt, lengths)
    logits = logits if temperature == 1 else logits / temperature
    values = -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
    return values.masked_fill(~there, 0.0), there


def dpo_loss(
    chosen: "torch.Tensor",
    rejected: "torch.Tensor",
    reference_chosen: "torch.Tensor",
    reference_rejected: "torch.Tensor",
    beta: float = 0.1,
) -> "torch.Tensor":
    """Return (pairs,) loss of direct preference optimization (DPO), -log sigmoid(beta * margin).

    Rafailov et al. 2023, equation 7.
    All four (pairs,): summed log-probability in nats of the chosen and the rejected reply under the model and under the
    reference. The margin is how much more than the reference the model prefers the chosen reply. At model = reference
    the loss is ln 2 and its gradient -beta/2 * (gradient of chosen - gradient of rejected).
    """
    import torch.nn.functional as F

    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)


@needs_reference
def dpo(model: Any, batch: Batch, *, reference: Any, beta: float = 0.1) -> "tuple[torch.Tensor, torch.Tensor]":
    """Direct preference optimization, `dpo_loss` summed over the pairs of a batch; the count is that of pairs.

    batch: also rejected_ids and rejected_labels (batch, time of the rejected), with the same prompts. beta: strength of
    the pull to the reference, above 0 (geometry, figure 5, where the same loss is read as contrastive estimation with
    one negative).
    """
    import torch
    import torch.nn.functional as F

    if beta <= 0:
        raise UserError(f"beta of DPO is {beta}: write a number above 0, such as 0.1")
    pairs = len(batch["input_ids"])
    width = max(batch["input_ids"].shape[1], batch["rejected_ids"].shape[1])
    # one forward of both halves: wrappers of distributed training expect one a step
    both = {
        name: torch.cat([F.pad(batch[key], (0, width - batch[key].shape[1]), value=fill) for key in keys])
        for name, keys, fill in (
            ("ids", ("input_ids", "rejected_ids"), 0),
            ("labels", ("labels", "rejected_labels"), -100),
        )
    }
    prompt = batch["prompt"].repeat(2)
    lengths = reply_lengths(both["labels"], prompt)
    mine = token_log_probabilities(model, both["ids"], prompt, lengths)[0].sum(1)
    with torch.no_grad():
        theirs = token_log_probabilities(reference, both["ids"], prompt, lengths)[0].sum(1)
    loss = dpo_loss(mine[:pairs], mine[pairs:], theirs[:pairs], theirs[pairs:], beta)
    return loss.sum(), prompt.new_tensor(pairs)


def draw_tokens(logits: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """Return (rows,) tokens drawn from softmax(logits / temperature), the likeliest ones at temperature 0.

    Uniform numbers come from torch's RNG on the CPU, whose state is saved with a run, on every device.
    """
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    steps = (logits.float() / temperature).softmax(-1).double().cumsum(-1)
    height = torch.rand(len(logits), 1, dtype=torch.float64).to(logits.device) * steps[:, -1:]
    # the first step above the height: never a token of probability 0
    return torch.searchsorted(steps, height, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def draw_replies(
    model: Any,
    input_ids: "torch.Tensor",
    prompt: "torch.Tensor",
    lengths: "torch.Tensor",
    *,
    samples: int = 1,
    temperature: float = 1.0,
) -> "torch.Tensor":
    """Return (batch * samples, time): every item `samples` times in turn, its first `lengths` reply tokens drawn anew.

    Arguments as in `reply_logits`; tokens behind these are the item's own. temperature 0 writes the likeliest tokens.
    Right padding is never seen, so prompts may differ in length. The model is in evaluation mode meanwhile: what is
    sampled from is the policy without dropout.
    """
    import torch

    row = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(samples)
    written, starts, ends = input_ids[row].clone(), prompt[row], lengths[row]
    training = model.training
    model.eval()
    with torch.no_grad():
        for number in range(int(lengths.max())):
            # all samples of an item share the prompt, so the first token needs one row an item
            ids, begin = (input_ids, prompt) if number == 0 else (written, starts)
            at = (begin + number).clamp(max=ids.shape[1]) - 1
            first, last = int(at.min()), int(at.max())
            kept = torch.arange(first, last + 1, device=ids.device)
            logits = model(input_ids=ids[:, : last + 1], use_cache=False, logits_to_keep=kept).logits
            logits = logits[torch.arange(len(ids), device=ids.device), at - first]
            token = draw_tokens(logits[row] if number == 0 else logits, temperature)
            goes_on = (number < ends).nonzero()[:, 0]
            written[goes_on, starts[goes_on] + number] = token[goes_on]
    model.train(training)
    return written


def group_advantages(rewards: "torch.Tensor", *, scale_by_std: bool = True) -> "torch.Tensor":
    """Return (groups, samples): rewards less their group's mean, over its standard deviation (n - 1) + 1e-4.

    Shao et al. 2024 (DeepSeekMath), section 4.1.2. scale_by_std False leaves the division out, as in Dr. GRPO (Liu et
    al. 2025): then questions that are almost always or almost never answered get no extra weight. A group of equal
    rewards has advantages 0 either way.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + EPSILON) if scale_by_std else centred


def grpo_loss(
    log_p: "torch.Tensor",
    there: "torch.Tensor",
    advantages: "torch.Tensor",
    reference_log_p: "torch.Tensor | None" = None,
    kl: float = 0.0,
) -> "torch.Tensor":
    """Return (replies,) policy-gradient loss: minus advantage times the mean log-probability of the reply's tokens.

    log_p, there: (replies, R) as of `token_log_probabilities`; advantages: (replies,). Its gradient is that of GRPO's
    clipped ratio at the first update after sampling, where all ratios are 1 and nothing is clipped. The mean over the
    tokens of a reply is GRPO's; DAPO (Yu et al. 2025) divides by the tokens of the whole batch and Dr. GRPO by a
    constant: where all replies have one length the three differ by a factor only.

    kl: weight of the divergence KL(model || reference), estimated a token by exp(r) - r - 1 with r = log(reference /
    model) ("k3", Schulman 2020), which is 0, and has gradient 0, where both agree. As in DeepSeek-V3.2 (2025) it is
    multiplied by the ratio of the model to the one sampled from: that is 1, but without its gradient the loss would
    pull along KL(reference || model) instead.
    """
    loss = -advantages[:, None] * log_p
    if reference_log_p is not None and kl:
        r = reference_log_p - log_p
        loss = loss + kl * (log_p - log_p.detach()).exp() * (r.exp() - r - 1)
    return (loss * there).sum(1) / there.sum(1)


@needs_reference
def grpo(
    model: Any,
    batch: Batch,
    *,
    reference: Any,
    samples: int = 8,
    temperature: float = 1.0,
    kl: float = 0.0,
    scale_by_std: int = 1,
    ending: int = 1,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Group-relative policy optimization with a verifiable reward, one update a batch of samples (geometry, figure 5).

    Every prompt is answered `samples` times (at least 2) by the model as it is; the reward of an answer is 1 if all its
    tokens are those of the item, else 0; `group_advantages` and `grpo_loss` do the rest. The count is that of answers.

    ending: how many last tokens of a reply are end marks and no part of the answer. They are neither checked, as by a
    verifier that looks for the answer only, nor sampled: the reward does not depend on what is written behind the
    answer, so those tokens would add noise to the gradient and nothing else. temperature: of the policy that is sampled
    from and learned; the reference is taken at the same one. kl: see `grpo_loss`. scale_by_std: 0 or 1.
    """
    import torch

    if samples < 2:
        raise UserError(f"GRPO with samples: {samples} has nothing to compare a reply with: write 2 or more")
    if temperature <= 0:
        raise UserError(f"GRPO with temperature: {temperature} draws no replies: write a number above 0, such as 1.0")
    lengths = answer_lengths(batch["labels"], batch["prompt"], ending)
    written = draw_replies(
        model, batch["input_ids"], batch["prompt"], lengths, samples=samples, temperature=temperature
    )
    # outside the drawn places `written` is the item itself, so rows differ exactly where an answer is wrong
    right = (written.view(len(lengths), samples, -1) == batch["input_ids"][:, None]).all(2)
    advantages = group_advantages(right.float(), scale_by_std=bool(scale_by_std)).flatten()
    given = (written, batch["prompt"].repeat_interleave(samples), lengths.repeat_interleave(samples))
    log_p, there = token_log_probabilities(model, *given, temperature=temperature)
    reference_log_p = None
    if kl:
        with torch.no_grad():
            reference_log_p = token_log_probabilities(reference, *given, temperature=temperature)[0]
    loss = grpo_loss(log_p, there, advantages, reference_log_p, kl)
    return loss.sum(), lengths.new_tensor(len(written))


def answer_lengths(labels: "torch.Tensor", prompt: "torch.Tensor", ending: int) -> "torch.Tensor":
    """Return (batch,) `reply_lengths` less `ending` end marks."""
    lengths = reply_lengths(labels, prompt) - ending
    if ending < 0 or int(lengths.min()) < 1:
        raise UserError(
            f"ending: {ending} leaves no answer of a reply of {int(lengths.min()) + ending} tokens: "
            "write the number of end marks behind an answer, 0 or more"
        )
    return lengths
