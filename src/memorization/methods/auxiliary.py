"""The auxiliary model of a decoding method: next-token logits of growing, changing contexts with one KV cache.

The cache of a batch always holds, for every row, some padding on the left, the row's tokens without a gap, and nothing
that counts on the right. A row that loses its last tokens (another tokenization of the end of a text) drops them from
the cache; rows that then end at different places are shifted to end together again. So the model only ever sees an
ordinary left-padded batch, which every position scheme (learned, rotary, ALiBi) computes exactly.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch


def positions_of(mask: "torch.Tensor") -> "torch.Tensor":
    """Return (B, T) positions of a left-padded mask: 0 at the first real token of a row, and 0 on padding."""
    return (mask.cumsum(-1) - 1).clamp_(min=0)


def context_limit(model: Any) -> int | None:
    """Return how many tokens the model was made for, None if it does not say (ALiBi, recurrent)."""
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "max_position_embeddings", None)


def window_start(length: int, limit: int) -> int:
    """Return how many leading tokens a context of `length` loses under `long_context="window"`.

    None up to `limit`; beyond, whole strides of a quarter of the limit, so that the cache is refilled once per stride
    and the model always sees between 3/4 of its limit and all of it.
    """
    stride = max(1, limit // 4)
    return 0 if length <= limit else -(-(length - limit) // stride) * stride


class Auxiliary:
    """A causal language model of `transformers`, run on contexts that grow by a few tokens at a time.

    long_context: "error" or "window" for contexts longer than the model's `max_position_embeddings`.
    use_cache=False computes every context in full. The model is put in evaluation mode.
    """

    def __init__(self, model: Any, *, long_context: str = "error", use_cache: bool = True) -> None:
        if long_context not in ("error", "window"):
            raise UserError(f'long_context is {long_context!r}: write long_context="error" or long_context="window"')
        self.model = model.eval()
        self.limit = context_limit(model)
        self.long_context = long_context
        self.use_cache = use_cache
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_last = "logits_to_keep" in accepted
        self.clear()

    @property
    def device(self) -> "torch.device":
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def clear(self) -> None:
        """Forget all contexts."""
        self._cache: Any = None
        self._logits: torch.Tensor | None = None  # (B, V) after the last token of every row
        self._mask: torch.Tensor | None = None  # (B, T); None: no padding
        self._rows: list[list[int]] = []  # tokens in the cache, only while contexts come as lists
        self._padding: list[int] = []  # slots left of them
        self._width = 0  # slots of the cache
        self._length = 0  # slots of contexts that come as a tensor

    # contexts as a tensor that grows by one column

    def start(self, ids: "torch.Tensor", padding: "torch.Tensor") -> "torch.Tensor":
        """Return (B, V) logits after (B, T) left-padded contexts; padding: (B,) leading slots that do not count."""
        import torch

        self.clear()
        shortest = int(padding.min())
        ids, padding = ids[:, shortest:].to(self.device), padding.to(self.device) - shortest
        self._length = self._check(ids.shape[1])
        if bool((padding > 0).any()):
            slots = torch.arange(ids.shape[1], device=ids.device)
            self._mask = (slots >= padding[:, None]).long()
            ids = ids * self._mask  # the padding id may be outside this model's vocabulary
        self._ids = ids
        return self._forward(ids, self._mask, None if self._mask is None else positions_of(self._mask), last=True)[:, 0]

    def append(self, column: "torch.Tensor") -> "torch.Tensor":
        """Return (B, V) logits after one more token for every row, (B, 1)."""
        import torch

        self._length = self._check(self._length + 1)
        column = column.to(self.device)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(column)], dim=1)
        positions = None if self._mask is None else self._mask.sum(1, keepdim=True) - 1
        if self._cache is None:
            self._ids = torch.cat([self._ids, column], dim=1)
            positions = None if self._mask is None else positions_of(self._mask)
            return self._forward(self._ids, self._mask, positions, last=True)[:, 0]
        return self._forward(column, self._mask, positions)[:, -1]

    # contexts as lists that may lose their last tokens

    def advance(self, contexts: Sequence[list[int]]) -> "torch.Tensor":
        """Return (B, V) logits after each context; only tokens that follow what the cache holds are computed."""
        import torch

        contexts = [self._window(context) for context in contexts]
        kept = [_common(old, new) for old, new in zip(self._rows, contexts, strict=len(self._rows) == len(contexts))]
        if self._cache is None or len(self._rows) != len(contexts):
            return self._refill(contexts)
        same = [len(old) == n == len(new) for old, new, n in zip(self._rows, contexts, kept, strict=True)]
        if all(same):
            return self._logits  # type: ignore[return-value]
        # a row cut back to a part of what it was needs the logits of its last token again
        kept = [n if s or n < len(new) else n - 1 for s, n, new in zip(same, kept, contexts, strict=True)]
        counts = [len(new) - n for n, new in zip(kept, contexts, strict=True)]
        if 2 * max(counts) > max(map(len, contexts)) or not max(kept) or not self._align(kept):
            return self._refill(contexts)
        new = max(counts)
        chunk = torch.tensor(
            [row[n:] + [0] * (new - count) for row, n, count in zip(contexts, kept, counts, strict=True)]
        ).to(self.device)
        mask = positions = None
        if any(self._padding) or min(counts) < new:
            begin, stop = (torch.tensor(x)[:, None] for x in (self._padding, [self._width + c for c in counts]))
            slots = torch.arange(self._width + new)
            mask = ((slots >= begin) & (slots < stop)).long().to(self.device)
            last = torch.tensor([max(len(row) - 1, 0) for row in contexts])[:, None]
            positions = (torch.tensor(kept)[:, None] + torch.arange(new)).minimum(last).to(self.device)
        logits = self._forward(chunk, mask, positions)
        if min(counts) == new:
            self._logits = logits[:, -1]
        else:
            count = torch.tensor(counts, device=logits.device)
            last_logits = logits[torch.arange(len(counts), device=logits.device), (count - 1).clamp(min=0)]
            self._logits = torch.where((count > 0)[:, None], last_logits, self._logits)  # type: ignore[arg-type]
        self._rows, self._width = list(contexts), self._width + new
        return self._logits

    def _refill(self, contexts: Sequence[list[int]]) -> "torch.Tensor":
        """Compute all contexts in full, into a new cache."""
        import torch

        self.clear()
        width = max(map(len, contexts))
        self._padding = [width - len(row) for row in contexts]
        ids = torch.tensor([[0] * n + row for n, row in zip(self._padding, contexts, strict=True)]).to(self.device)
        mask = positions = None
        if any(self._padding):
            mask = (torch.arange(width) >= torch.tensor(self._padding)[:, None]).long().to(self.device)
            positions = positions_of(mask)
        self._logits = self._forward(ids, mask, positions, last=True)[:, 0]
        self._rows, self._width = list(contexts), width
        return self._logits

    def _align(self, kept: list[int]) -> bool:
        """Leave the first `kept` tokens of every row in the cache, all rows ending in its last slot.

        False if the cache cannot be edited (recurrent or sliding-window layers).
        """
        import torch

        dead = [self._width - padding - n for padding, n in zip(self._padding, kept, strict=True)]
        if not any(dead):
            return True
        layers = getattr(self._cache, "layers", None)
        if not layers or not all(_editable(layer) for layer in layers):
            return False
        if min(dead) == max(dead):
            self._width -= dead[0]
            for layer in layers:
                layer.keys, layer.values = layer.keys[..., : self._width, :], layer.values[..., : self._width, :]
            return True
        width = max(kept)
        padding = [width - n for n in kept]
        shift = torch.tensor([old - new for old, new in zip(self._padding, padding, strict=True)])[:, None]
        source = (torch.arange(width) + shift).clamp_(min=0)
        for layer in layers:
            index = source.to(layer.keys.device)[:, None, :, None]
            layer.keys = layer.keys.gather(2, index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3]))
            layer.values = layer.values.gather(2, index.expand(-1, layer.values.shape[1], -1, layer.values.shape[3]))
        self._padding, self._width = padding, width
        return True

    def _forward(
        self, ids: "torch.Tensor", mask: "torch.Tensor | None", positions: "torch.Tensor | None", *, last: bool = False
    ) -> "torch.Tensor":
        """Logits (B, new tokens, V), or (B, 1, V) of the last slot; the cache, if any, grows."""
        options: dict[str, Any] = {"use_cache": self.use_cache, "past_key_values": self._cache}
        if positions is not None and self._takes_positions:
            options["position_ids"] = positions
        if last and self._keeps_last:
            options["logits_to_keep"] = 1
        output = self.model(input_ids=ids, attention_mask=mask, **options)
        self._cache = getattr(output, "past_key_values", None) if self.use_cache else None
        return output.logits[:, -1:] if last else output.logits

    def _window(self, context: list[int]) -> list[int]:
        if self.limit is None or len(context) <= self.limit:
            return context
        if self.long_context == "error":
            self._check(len(context))
        return context[window_start(len(context), self.limit) :]

    def _check(self, length: int) -> int:
        if self.limit is not None and length > self.limit:
            raise UserError(
                f"the context has {length} tokens, the auxiliary model's max_position_embeddings is {self.limit}: "
                'shorten the prompt or max_new_tokens, or pass long_context="window" to show it the last tokens only'
            )
        return length


def _editable(layer: Any) -> bool:
    """Whether a cache layer holds (B, heads, slots, width) keys and values of all tokens."""
    croppable = getattr(layer, "is_croppable", False) and not getattr(layer, "is_sliding", False)
    return croppable and getattr(layer, "keys", None) is not None


def _common(old: list[int], new: list[int]) -> int:
    """Length of the common beginning."""
    if new[: len(old)] == old:
        return len(old)
    n = min(len(old), len(new))
    if old[:n] == new[:n]:
        return n
    return next(i for i in range(n) if old[i] != new[i])
