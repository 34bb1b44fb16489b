"""Representations of decoders of `transformers`, and interventions before the output head (`geometry`, tab. 8)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch

Token = Literal["last", "mean", "all", "answer"] | int


def hidden_features(
    model: "torch.nn.Module",
    input_ids: "torch.Tensor",
    lengths: Any,
    *,
    layers: Sequence[int] | None = None,
    token: Token = "last",
    prompt_lengths: Any = None,
) -> "dict[int, torch.Tensor]":
    """Return {layer: (n, d) float32} representations of one batch by a decoder of `transformers`.

    input_ids: (n, T) padded on the right, so a causal model needs no attention mask. lengths: (n,) tokens without
    padding. layers: 0 is what the first block reads (embeddings), L the output of the base model, so after the final
    norm: what the output head reads. -1 is L; keys are as given. Default: all, 0..L.
    token: "last" token that is not padding; "mean" of all of them; "all", one row each, sequence by sequence; "answer",
    the last one of the prompt of `prompt_lengths` (n,) tokens, which predicts the first one of the reply; or an int p,
    the p-th token, so the last one of a prefix of p tokens.
    The head is not computed and nothing is kept for gradients. Evaluation mode, and the mode is left as it was.
    Raises UserError for a sequence without tokens, or shorter than the position asked for.
    """
    import torch

    ids = input_ids
    if ids.ndim != 2:
        raise UserError(f"input_ids have shape {tuple(ids.shape)}: give (sequences, tokens)")
    tokens = _checked_lengths(lengths, ids, "lengths")
    if token == "answer":
        if prompt_lengths is None:
            raise UserError("the token `answer` is the last one of the prompt: give `prompt_lengths`")
        position = _checked_lengths(prompt_lengths, ids, "prompt_lengths")
    elif isinstance(token, int) and not isinstance(token, bool):
        position = torch.full_like(tokens, token)
    elif token in ("last", "mean", "all"):
        position = tokens
    else:
        raise UserError(f"token is {token!r}: write last, mean, all, answer, or the length of a prefix")
    bad = torch.nonzero((position < 1) | (position > tokens)).flatten().tolist()
    if bad:
        raise UserError(
            f"sequence {bad[0]} has {tokens[bad[0]]} tokens and the representation of token {position[bad[0]]} is "
            "asked for: leave out such sequences, or take an earlier token"
        )
    longest = int(position.max())  # later tokens cannot change earlier ones
    base: Any = model.get_decoder() if hasattr(model, "get_decoder") else getattr(model, "base_model", model)  # type: ignore[operator]
    modes = [(module, module.training) for module in base.modules()]
    try:
        base.eval()
        with torch.no_grad():
            output = base(input_ids=ids[:, :longest], use_cache=False, output_hidden_states=True)
    finally:
        for module, training in modes:
            module.training = training
    # the last entry is after the final norm in most families, `last_hidden_state` in all
    hidden = [*output.hidden_states[:-1], output.last_hidden_state]
    wanted = range(len(hidden)) if layers is None else layers
    missing = [layer for layer in wanted if not -len(hidden) <= layer < len(hidden)]
    if missing:
        raise UserError(f"layer {missing[0]} does not exist: write 0 (embeddings) to {len(hidden) - 1} (final norm)")
    return {layer: _select(hidden[layer], position.to(hidden[layer].device), token) for layer in wanted}


def _select(states: "torch.Tensor", position: "torch.Tensor", token: Token) -> "torch.Tensor":
    """Rows of states (n, T, d); position: (n,) number of the token, from 1, or of tokens."""
    import torch

    if token in ("mean", "all"):
        real = torch.arange(states.shape[1], device=states.device) < position[:, None]
        if token == "all":
            return states[real].float()
        return states.float().masked_fill(~real[..., None], 0.0).sum(1) / position[:, None]
    return states[torch.arange(len(states), device=states.device), position - 1].float()


def _checked_lengths(lengths: Any, ids: "torch.Tensor", name: str) -> "torch.Tensor":
    import torch

    found = torch.as_tensor(lengths, device=ids.device).long()
    if found.shape != (ids.shape[0],) or not len(found):
        raise UserError(f"{name} have shape {tuple(found.shape)} for {ids.shape[0]} sequences: give one each")
    if int(found.max()) > ids.shape[1]:
        raise UserError(f"{name} go up to {int(found.max())} and input_ids hold {ids.shape[1]} tokens: cut one of them")
    empty = torch.nonzero(found < 1).flatten().tolist()
    if empty:
        raise UserError(
            f"sequence {empty[0]} of the batch is all padding ({name} {int(found[empty[0]])}): leave it out"
        )
    return found


@contextmanager
def spectral_intervention(
    model: "torch.nn.Module",
    eigenvectors: Any,
    mean: Any,
    k: int,
    which: Literal["drop_top", "keep_top", "none"],
    *,
    keep_mean: bool = True,
) -> Iterator[None]:
    """Remove the top k principal components from what the output head reads, or keep only these (`geometry`, tab. 8).

    With V the first k columns of `eigenvectors` (d, >= k) and x the input of the head at every position, the head reads

        mean + (I - V V') (x - mean)    for "drop_top",      mean + V V' (x - mean)    for "keep_top",

    and x itself for "none". The paper does not say what becomes of the mean: keep_mean=False leaves out the leading
    `mean +`. eigenvectors and mean: of the final representations of the same model, from a centred `Spectrum`.
    Computed in float32 or better. The hook on the head is removed on leaving.
    Raises UserError for a model without an output head, shapes that do not fit, and a k outside 0..d.
    """
    import torch

    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    if head is None:
        raise UserError(f"{type(model).__name__} has no output head: give a causal language model")
    if which not in ("drop_top", "keep_top", "none"):
        raise UserError(f"which is {which!r}: write drop_top, keep_top or none")
    vectors, centre = torch.as_tensor(eigenvectors), torch.as_tensor(mean)
    if vectors.ndim != 2 or centre.shape != (vectors.shape[0],):
        raise UserError(
            f"eigenvectors {tuple(vectors.shape)} and mean {tuple(centre.shape)} do not fit: give (d, d) and (d,)"
        )
    if not 0 <= k <= vectors.shape[1]:
        raise UserError(f"k is {k} and there are {vectors.shape[1]} eigenvectors: give 0 to {vectors.shape[1]}")

    def project(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        if x.shape[-1] != len(centre):
            raise UserError(
                f"the head reads {x.shape[-1]} features, the eigenvectors have {len(centre)}: measure this model's"
            )
        dtype = torch.promote_types(x.dtype, torch.float32)
        top, middle, exact = vectors[:, :k].to(x.device, dtype), centre.to(x.device, dtype), x.to(dtype)
        part = (exact - middle) @ top @ top.T
        if which == "keep_top":
            changed = part + middle if keep_mean else part
        else:  # the mean cancels where it is kept
            changed = exact - part if keep_mean else exact - middle - part
        return (changed.to(x.dtype), *inputs[1:])

    handle = head.register_forward_pre_hook(project) if which != "none" else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
