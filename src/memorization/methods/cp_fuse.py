"""CP-Fuse decoding: two models trained on separate data, fused so that neither's text is followed too closely.

Abad et al., "Copyright-protected language generation via adaptive model fusion"; a baseline of `tokenswap` (section
4). The rule and the grid are those of the released code of CP-Fuse.

Write l_i[v] for the log-probability of token v under model i in the present context and s_i for the log-probability
that model i gave to the tokens written so far (s_i = 0 at first; the prompt does not count). For weights (b1, b2) the
fused distribution is

    log p[v] = b1 l_1[v] + b2 l_2[v] - log Z(b1, b2)

and at each step the weights are those of a grid that minimize

    max_i ( KL(p || p_i) - s_i )  =  max_i ( -E_p[l_i] - s_i ) + E_p[log p].

The model that found the text so far less likely (small s_i) has the larger term, so p moves towards it: a text that
one model knows by heart and the other does not cannot go on being written. The weight (0, 0), the uniform
distribution, is on the grid.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.errors import UserError
from memorization.methods.context import CachedModel, position_ids

if TYPE_CHECKING:
    import torch

NEEDS = frozenset({"token probabilities", "training data", "second model of the same size"})

# Weights tried on each axis: nine steps of 2/9 from 0, then the whole numbers from 2 to 10.
GRID: tuple[float, ...] = (*np.linspace(0, 2, 10)[:-1].tolist(), *np.linspace(2, 10, 9).tolist())
FLOOR = -100.0  # nats; smaller log-probabilities (-inf too) count as this, so that weight x log-probability is finite
TIE = 1e-9  # nats; weights whose objective is this close to the least are tied, and the first of the grid is taken

_UNDERFLOW = 1e-280  # below this a sum of products has lost digits
_ELEMENTS = 1 << 18  # float64 numbers held at once in one factor: more do not fit the cache


def cp_fuse_weights(
    log_p1: "torch.Tensor",
    log_p2: "torch.Tensor",
    path1: "torch.Tensor",
    path2: "torch.Tensor",
    grid: "tuple[float, ...]" = GRID,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the weights (b1 (rows,), b2 (rows,)) of the grid with the least objective, float64.

    log_p1, log_p2: (rows, vocabulary) normalized log-probabilities, nats; path1, path2: (rows,) log-probability of the
    text written so far, nats. grid: the values tried for either weight.

    One matrix product serves the whole grid: Z, Z E_p[l_1] and Z E_p[l_2] are sums over the vocabulary of products of
    a factor that depends on b1 and one that depends on b2. (100 rows of 1,438 tokens took 0.14 s of one CPU thread a
    step, against 0.87 s for the sums written out.) Where such a sum underflows it is written out in logs.
    """
    import torch

    check_same_vocabulary(log_p1.shape[-1], log_p2.shape[-1])
    weights = torch.tensor(grid, dtype=torch.float64, device=log_p1.device)
    size = max(1, _ELEMENTS // (2 * len(grid) * log_p1.shape[-1]))
    best = [
        _objective(l1, l2, s1, s2, weights).flatten(1)
        for l1, l2, s1, s2 in zip(
            _floored(log_p1).split(size),
            _floored(log_p2).split(size),
            path1.double().split(size),
            path2.double().split(size),
            strict=True,
        )
    ]
    objective = torch.cat(best)
    tied = objective <= objective.min(1, keepdim=True).values + TIE
    chosen = tied.int().argmax(1)  # the first of the tied, so that rounding does not choose
    return weights[chosen // len(grid)], weights[chosen % len(grid)]


def fuse(log_p1: "torch.Tensor", log_p2: "torch.Tensor", b1: "torch.Tensor", b2: "torch.Tensor") -> "torch.Tensor":
    """Return b1 log p1 + b2 log p2, normalized: (rows, vocabulary), float64 nats. b1, b2: (rows,)."""
    return (b1[:, None] * _floored(log_p1) + b2[:, None] * _floored(log_p2)).log_softmax(-1)


def check_same_vocabulary(first: int, second: int) -> None:
    """Raise unless both models have the same number of tokens."""
    if first != second:
        raise UserError(
            f"CP-Fuse multiplies probabilities token by token, but the models have {first} and {second} tokens: "
            "take two models with the same tokenizer"
        )


def _floored(log_p: "torch.Tensor") -> "torch.Tensor":
    return log_p.double().clamp_min(FLOOR)


def _objective(
    l1: "torch.Tensor", l2: "torch.Tensor", s1: "torch.Tensor", s2: "torch.Tensor", weights: "torch.Tensor"
) -> "torch.Tensor":
    """Return the objective at each pair of weights, (rows, b1, b2). All float64, log-probabilities finite."""
    import torch

    top1, top2 = l1.max(-1).values[:, None, None], l2.max(-1).values[:, None, None]
    factor1 = (weights[:, None] * (l1[:, None] - top1)).exp()  # (rows, n, vocabulary)
    factor2 = (weights[:, None] * (l2[:, None] - top2)).exp()
    z = factor1 @ factor2.transpose(1, 2)
    mean1 = (factor1 * l1[:, None]) @ factor2.transpose(1, 2) / z
    mean2 = factor1 @ (factor2 * l2[:, None]).transpose(1, 2) / z
    log_z = z.log() + weights[:, None] * top1 + weights * top2
    lost = z < _UNDERFLOW
    if bool(lost.any()):  # both models are sure, of different tokens, and the weights are large
        for at in lost.nonzero().split(max(1, _ELEMENTS // l1.shape[-1])):
            row, i, j = at.unbind(1)
            log_q = weights[i, None] * l1[row] + weights[j, None] * l2[row]
            normalizer = log_q.logsumexp(-1)
            q = (log_q - normalizer[:, None]).exp()
            mean1[row, i, j], mean2[row, i, j] = (q * l1[row]).sum(-1), (q * l2[row]).sum(-1)
            log_z[row, i, j] = normalizer
    negative_entropy = weights[:, None] * mean1 + weights * mean2 - log_z
    return torch.maximum(-mean1 - s1[:, None, None], -mean2 - s2[:, None, None]) + negative_entropy


class CPFuseProcessor:
    """Logits processor for `main.generate(logits_processor=[...])`: scores become fused log-probabilities.

    The partner follows the generation with its own cache. The log-probabilities of the written tokens accumulate from
    the first call of a generation on; a generation has begun whenever the text is not the last text plus one token (or
    after `reset`), so beam search, which reorders texts, is not supported. A token that is -inf in `scores` stays -inf.
    After a call, `weights` is (b1, b2) and `paths` is (s1, s2), each (batch,).

    It needs no base class: `generate` takes anything that is called with (input_ids, scores).
    """

    def __init__(self, partner: Any, *, pad_token_id: int | None = None, grid: "tuple[float, ...]" = GRID) -> None:
        """partner: model 2, in evaluation mode. pad_token_id: of left padding, if prompts differ in length."""
        self.partner = CachedModel(partner, pad_token_id=pad_token_id)
        self.grid = grid
        self.reset()

    def reset(self) -> None:
        """Forget the text so far: the next call begins a generation."""
        self.partner.reset()
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.paths: tuple[torch.Tensor, torch.Tensor] | None = None
        self.weights: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """input_ids: (batch, time), scores: (batch, vocabulary) of the next token; returns new scores."""
        import torch

        logits, goes_on = self.partner.next_logits(input_ids)
        check_same_vocabulary(scores.shape[-1], logits.shape[-1])
        log_p = (
            _floored(scores.double().log_softmax(-1)),
            _floored(logits.to(scores.device).double().log_softmax(-1)),
        )
        if goes_on and self.last is not None and self.paths is not None:
            written = input_ids[:, -1:].to(scores.device)
            s1, s2 = (path + last.gather(1, written)[:, 0] for path, last in zip(self.paths, self.last, strict=True))
        else:
            s1 = s2 = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
        self.paths, self.last = (s1, s2), log_p
        self.weights = cp_fuse_weights(*log_p, s1, s2, self.grid)
        fused = fuse(*log_p, *self.weights)
        return fused.masked_fill(torch.isneginf(scores), -torch.inf).to(scores.dtype)


def teacher_forced_log_probs(
    main: Any,
    partner: Any,
    input_ids: "torch.Tensor",
    *,
    prompt_length: "int | torch.Tensor" = 0,
    attention_mask: "torch.Tensor | None" = None,
    grid: "tuple[float, ...]" = GRID,
    chunk: int = 16,
) -> "torch.Tensor":
    """Return (batch, time, vocabulary) float32 fused log-probabilities; those at position t are of the token at t + 1.

    What `CPFuseProcessor` would give if the tokens of `input_ids` (batch, time) were the ones written after the first
    `prompt_length` columns (a number, or (batch,)): their log-probabilities accumulate, those of the prompt do not.
    The first token of a text has no prediction and never counts. Positions inside the prompt get s_i = 0.
    attention_mask: (batch, time), needed for left padding only. chunk: texts at once.
    """
    import torch

    log_probs = []
    options: dict[str, Any] = {}
    starts = torch.as_tensor(prompt_length, device=input_ids.device).expand(len(input_ids))
    for at in torch.arange(len(input_ids), device=input_ids.device).split(chunk):
        ids = input_ids[at]
        counts = torch.arange(ids.shape[1], device=ids.device) >= starts[at, None]
        if attention_mask is not None:
            mask = attention_mask[at]
            options = {"attention_mask": mask, "position_ids": position_ids(mask)}
            counts &= mask.bool() & (mask.cumsum(1) > 1)
        with torch.no_grad():
            both = [
                _floored(model(input_ids=ids, use_cache=False, **options).logits.double().log_softmax(-1))
                for model in (main, partner)
            ]
        check_same_vocabulary(both[0].shape[-1], both[1].shape[-1])
        paths = []
        for log_p in both:
            path = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
            of_token = log_p[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
            path[:, 1:] = (of_token * counts[:, 1:]).cumsum(1)
            paths.append(path.flatten())
        l1, l2 = (log_p.flatten(0, 1) for log_p in both)
        b1, b2 = cp_fuse_weights(l1, l2, paths[0], paths[1], grid)
        log_probs.append(fuse(l1, l2, b1, b2).float().view(both[0].shape))
    return torch.cat(log_probs)
