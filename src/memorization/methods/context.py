"""What a processor of next-token scores must know of the text so far: padding, whether it goes on, cached forwards.

`generate` calls a logits processor with the whole text at each step and never says that a new text has begun. So a
processor with a state compares the text with the one it saw last.
"""

from typing import TYPE_CHECKING, Any

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch


def continues(previous: "torch.Tensor | None", input_ids: "torch.Tensor") -> bool:
    """Whether `input_ids` (batch, time) is `previous` plus one column: the next step of the same generation.

    A new prompt that happens to be the last text seen plus one token looks the same; `reset` of the processor says so.
    """
    import torch

    if previous is None or previous.shape[0] != input_ids.shape[0] or previous.shape[1] + 1 != input_ids.shape[1]:
        return False
    return previous.device == input_ids.device and torch.equal(previous, input_ids[:, :-1])


def attention_mask(input_ids: "torch.Tensor", pad_token_id: int | None) -> "torch.Tensor":
    """Return (batch, time) int64: 0 on the left padding, 1 elsewhere.

    Only the run of `pad_token_id` at the start of a row is padding, so the id may also be a real token (often the end
    of text) elsewhere. None: nothing is padding.
    """
    import torch

    if pad_token_id is None:
        return torch.ones_like(input_ids)
    return ((input_ids != pad_token_id).cumsum(1) > 0).long()


def position_ids(mask: "torch.Tensor") -> "torch.Tensor":
    """Return (batch, time) positions that count real tokens only, as `generate` counts them."""
    return (mask.cumsum(1) - 1).clamp_min(0)


class CachedModel:
    """A second model that follows a generation: only the new token is fed to it, the rest is in its cache."""

    def __init__(self, model: Any, *, pad_token_id: int | None = None) -> None:
        """model: a causal language model in evaluation mode. pad_token_id: see `attention_mask`."""
        if model.training:
            raise UserError("the second model is in training mode, where dropout is on: call `.eval()` on it first")
        self.model = model
        self.pad_token_id = pad_token_id
        self.reset()

    def reset(self) -> None:
        """Forget the text so far."""
        self.previous: torch.Tensor | None = None
        self.cache: Any = None

    def next_logits(self, input_ids: "torch.Tensor") -> "tuple[torch.Tensor, bool]":
        """Return (logits of the next token (batch, vocabulary), whether the text went on from the last call)."""
        import torch

        goes_on = continues(self.previous, input_ids)
        mask = attention_mask(input_ids, self.pad_token_id)
        kept = slice(-1, None) if goes_on else slice(None)
        options: dict[str, Any] = {}
        if not bool(mask.all()):  # without padding every model knows mask and positions by itself
            options = {"attention_mask": mask, "position_ids": position_ids(mask)[:, kept]}
        with torch.no_grad():
            out = self.model(
                input_ids=input_ids[:, kept],
                past_key_values=self.cache if goes_on else None,
                use_cache=True,
                logits_to_keep=1,
                **options,
            )
        self.previous, self.cache = input_ids.clone(), out.past_key_values
        return out.logits[:, -1], goes_on
