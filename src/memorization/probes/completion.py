"""Verbatim completion of training items: exact match, loss, and what greedy or sampled decoding writes instead.

An item is a prompt p followed by a completion x; it is (discoverably) memorized iff greedy decoding from p writes
exactly x (patterns, section 2).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.training.items import Items

if TYPE_CHECKING:
    pass

Window = tuple[np.ndarray, int]  # (start of the completion of each item (N,), completion length)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(n)."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def teacher_forced(
    model: Any, items: Items, windows: list[Window], *, chunk: int = 256
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (exact match (N,) bool, mean completion loss (N,) float64) of every window, from one forward pass.

    Greedy decoding writes x iff the teacher-forced argmax equals x at every completion position (barring exact ties),
    because each greedy step then sees the same context. So no generation loop is needed for exact match.
    """
    import torch

    if not len(items):
        return [(np.zeros(0, bool), np.zeros(0)) for _ in windows]
    first = min(int(start.min()) for start, _ in windows)
    last = max(int(start.max()) + length for start, length in windows)
    device = items.input_ids.device
    kept = torch.arange(first - 1, last - 1, device=device)
    results: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in windows]
    with torch.no_grad():
        for rows in chunks(len(items), chunk):
            ids = items.input_ids[rows, :last]
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits.float()
            best, normalizer = logits.argmax(-1), logits.logsumexp(-1)
            for (start, length), result in zip(windows, results, strict=True):
                position = torch.as_tensor(start[rows], device=device)[:, None] + torch.arange(length, device=device)
                target = ids.gather(1, position)
                at = position - first  # logits at first - 1 + k predict the token at first + k
                exact = (best.gather(1, at) == target).all(1)
                row = torch.arange(len(target), device=device)[:, None]
                loss = normalizer.gather(1, at) - logits[row, at, target]
                result.append((exact, loss.mean(1)))
    return [
        (
            torch.cat([exact for exact, _ in result]).cpu().numpy(),
            torch.cat([loss for _, loss in result]).double().cpu().numpy(),
        )
        for result in results
    ]


def cross_entropy(model: Any, items: Items, *, chunk: int = 64) -> np.ndarray:
    """Return (N,) float64: mean loss of each item's tokens but the first, in nats."""
    import torch
    import torch.nn.functional as F

    losses = []
    with torch.no_grad():
        for rows in chunks(len(items), chunk):
            logits = model(input_ids=items.input_ids[rows], use_cache=False).logits[:, :-1].float()
            targets = items.labels[rows, 1:]
            loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none").double()
            losses.append(loss.sum(1) / (targets != -100).sum(1))
    return torch.cat(losses).cpu().numpy()


def exact_match(model: Any, items: Items, completion: int, *, chunk: int = 256) -> np.ndarray:
    """Return (N,) bool: whether greedy decoding from each item's own prompt writes its next `completion` tokens."""
    return teacher_forced(model, items, [(items.prompt, completion)], chunk=chunk)[0][0]


def true_completions(items: Items, completion: int) -> np.ndarray:
    """Return (N, completion) token ids that follow each prompt."""
    position = items.prompt[:, None] + np.arange(completion)
    return np.take_along_axis(items.input_ids.cpu().numpy(), position, axis=1)


def generate(
    model: Any,
    items: Items,
    completion: int,
    *,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    chunk: int = 256,
) -> np.ndarray:
    """Return what the model writes after each prompt, through `transformers`' own `generate`.

    samples = 0: greedy, (N, completion). samples = k: k draws at `temperature`, (N, k, completion); the global RNG of
    torch is left as it was.
    """
    import torch

    out = np.zeros((len(items), max(samples, 1), completion), dtype=np.int64)
    options: dict[str, Any] = {"max_new_tokens": completion, "min_new_tokens": completion, "pad_token_id": 0}
    if samples:
        options |= {"do_sample": True, "temperature": temperature, "top_k": 0, "num_return_sequences": samples}
    else:
        options |= {"do_sample": False}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for prompt in np.unique(items.prompt):  # equal prompt lengths need no padding
            members = np.flatnonzero(items.prompt == prompt)
            for rows in chunks(len(members), chunk):
                ids = items.input_ids[torch.as_tensor(members[rows]), :prompt]
                mask = torch.ones_like(ids)
                written = model.generate(input_ids=ids, attention_mask=mask, **options)[:, prompt:]
                out[members[rows]] = written.reshape(len(ids), -1, completion).cpu().numpy()
    return out if samples else out[:, 0]
