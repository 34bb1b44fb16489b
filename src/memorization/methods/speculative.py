"""Speculative decoding: a small model drafts, the main model accepts or rejects; the text is the main model's own.

Leviathan et al. 2023 (algorithm 1); a baseline of `tokenswap` (table 13: five drafted tokens, temperature 1). It uses
the same two models as TokenSwap but keeps the main model's distribution exactly, so it does not mitigate memorization.
The work is done by the assisted generation of `transformers`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from memorization.errors import UserError

if TYPE_CHECKING:
    import torch

NEEDS = frozenset({"token probabilities", "small model"})


def speculative_generate(
    main: Any,
    draft: Any,
    input_ids: "torch.Tensor",
    attention_mask: "torch.Tensor | None" = None,
    *,
    max_new_tokens: int,
    draft_tokens: int = 5,
    temperature: float = 1.0,
    seed: int = 0,
) -> "torch.Tensor":
    """Sample exactly `max_new_tokens` tokens after each prompt; returns (batch, max_new_tokens) ids, no prompt.

    input_ids, attention_mask: (batch, time); what the mask leaves out (padding on either side) is removed first, as
    rows are decoded one by one: assisted generation takes no batches. No token ends the text. The random numbers of a
    row depend on `seed` and the row's number only; the global RNG of torch is left as it was.
    draft_tokens: tokens drafted each time, always this many (fewer only at the end of the text).

    The generation settings stored with the models (end of text, top-k, penalties, number of drafts, the confidence at
    which `transformers` stops a draft) would be filled in wherever a call leaves them out, in the draft's own
    generation too. Both models therefore get plain settings for the time of the call.
    """
    import numpy as np
    import torch
    from transformers import GenerationConfig

    sizes = main.config.get_text_config().vocab_size, draft.config.get_text_config().vocab_size
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the main model has {sizes[0]} tokens and the draft {sizes[1]}: take a draft with the same tokenizer"
        )
    if main.training or draft.training:
        raise UserError("a model is in training mode, where dropout is on: call `.eval()` on main and draft first")
    if max_new_tokens < 1 or draft_tokens < 1 or temperature <= 0:
        raise UserError("max_new_tokens and draft_tokens must be at least 1 and temperature above 0")
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=temperature,
        pad_token_id=0,  # never written: there is one row and no end of text
    )
    drafting = GenerationConfig(
        num_assistant_tokens=draft_tokens, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0
    )
    rows = []
    with torch.random.fork_rng(), torch.no_grad(), _settings(main, GenerationConfig()), _settings(draft, drafting):
        for number, (ids, real) in enumerate(zip(input_ids, mask.bool(), strict=True)):
            state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(state >> np.uint64(1)))
            prompt = ids[real][None]
            written = main.generate(
                prompt, attention_mask=torch.ones_like(prompt), generation_config=config, assistant_model=draft
            )
            rows.append(written[0, prompt.shape[1] :])
    return torch.stack(rows)


@contextmanager
def _settings(model: Any, config: Any) -> Iterator[None]:
    """Give a model these generation settings for a while."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before
