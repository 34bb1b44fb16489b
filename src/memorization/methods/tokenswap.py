"""TokenSwap: function words from a small auxiliary model, all else from the main model (`tokenswap`, sec. 3, alg. 1).

With G the swap set and both models given the same text so far (swapped words included),

    p_final[v] = p_main[v]                                              for v outside G,
    p_final[v] = p_aux[v] * sum_G p_main / sum_G p_aux                  for v in G.

So the mass of G is the main model's, what is outside G is untouched, and p_final sums to 1 as it is. All in float32 log
space: no mass is lost to a small number, whatever precision the models run in. Where the auxiliary gives G no mass at
all, the main distribution stays.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from memorization.errors import UserError
from memorization.methods.auxiliary import Auxiliary, positions_of
from memorization.methods.context import continues
from memorization.methods.retokenize import RowText, Tokenizers
from memorization.methods.swap_server import REMAINDER, TokenSwapServer, swap_next_token
from memorization.methods.swap_set import Coverage, SwapSet

__all__ = [
    "REMAINDER",
    "TokenSwapProcessor",
    "TokenSwapServer",
    "swap_log_probs",
    "swap_next_token",
    "teacher_forced_log_probs",
]

Words = str | SwapSet | Sequence[str] | tuple[torch.Tensor, torch.Tensor]


def swap_log_probs(
    main: torch.Tensor, aux: torch.Tensor, ids_main: torch.Tensor, ids_aux: torch.Tensor | None = None
) -> torch.Tensor:
    """Return log p_final, (..., V_main) in float32 (float64 for float64 input).

    main: (..., V_main), aux: (..., V_aux): logits or log-probabilities; aux may be on another device.
    ids_main, ids_aux: (|G|,) the same words in both vocabularies, in the same order; one vocabulary needs only the
    first. No ids: the main distribution. Raises UserError if aux is NaN or +inf on G.
    """
    ids_main, ids_aux = _checked_ids(ids_main, ids_main if ids_aux is None else ids_aux)
    if main.shape[:-1] != aux.shape[:-1]:
        raise UserError(
            f"main is {tuple(main.shape)}, aux is {tuple(aux.shape)}: all but the last dimension must agree"
        )
    return _swap(main, aux.index_select(-1, ids_aux.to(aux.device)), ids_main.to(main.device))[0]


def _swap(main: torch.Tensor, shares: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log p_final, log-probabilities of the main model on G); shares: (..., |G|) auxiliary logits on G."""
    dtype = torch.promote_types(main.dtype, torch.float32)
    log_main = main.to(dtype).log_softmax(-1)
    if not len(ids):
        return log_main, log_main[..., :0]
    words = log_main.index_select(-1, ids)
    shares = shares.to(main.device, dtype)
    best = shares.amax(-1, keepdim=True)
    if not bool((best < torch.inf).all()):  # NaN compares false
        raise UserError(
            "the auxiliary model's output is NaN or infinite: load it in float32 or bfloat16, which do not overflow"
        )
    swapped = shares.log_softmax(-1) + words.logsumexp(-1, keepdim=True)
    return log_main.index_copy(-1, ids, torch.where(best > -torch.inf, swapped, words)), words


def _checked_ids(ids_main: Any, ids_aux: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids_main, ids_aux = (torch.as_tensor(ids, dtype=torch.long).flatten().cpu() for ids in (ids_main, ids_aux))
    if len(ids_main) != len(ids_aux):
        raise UserError(
            f"{len(ids_main)} main ids and {len(ids_aux)} auxiliary ids: give the same words in the same order"
        )
    for side, ids in (("main", ids_main), ("auxiliary", ids_aux)):
        if len(ids.unique()) != len(ids):
            raise UserError(f"the {side} ids of the swap set are not unique: give each token once")
    return ids_main, ids_aux


def _same_vocabulary(main: Any, aux: Any) -> bool:
    return aux is None or aux is main or main.get_vocab() == aux.get_vocab()


class TokenSwapProcessor(LogitsProcessor):
    """TokenSwap for `generate` of `transformers`.

        processor = TokenSwapProcessor(aux, tokenizer, words="english-110")
        model.generate(**inputs, logits_processor=[processor])

    aux: any causal language model of `transformers`, on any device, in float32 or bfloat16; it runs with a KV cache, on
    the new token only, and is put in evaluation mode.
    tokenizer: the main model's. aux_tokenizer: the auxiliary's, if it is another one. Of different vocabularies, the
    text so far is decoded (special tokens skipped, spaces as they are) and encoded for the auxiliary at every step, as
    if in full. An auxiliary with no token to see yet gets its bos (or eos) token.
    aux_bos: what stands before that text: None, the special tokens that the auxiliary tokenizer puts in front by
    default; True, its bos token; False, nothing. Of one vocabulary both models see the same ids, special or not.
    words: the name of a set (`SwapSet.named`), a SwapSet, a list of words, or two aligned tensors of token ids
    (main, auxiliary). Words that are not one token in both vocabularies are left out, see `coverage`; strict=True
    raises instead.
    attention_mask: (rows, time) of the prompts, if left padding cannot be told from `pad_token_id` (default: the
    tokenizer's). Only a run of that id at the start of a row is padding. If it is also the bos token, the row with
    the shortest run is taken to have no padding, so that real bos tokens stay; rows padded to a fixed length need the
    mask.
    long_context: contexts beyond the auxiliary's max_position_embeddings are an error, or with "window" lose their
    first tokens for it, in strides of a quarter of that length (`auxiliary.window_start`).
    record=True keeps `main_choice`, `final_choice`, `swapped` (rows, steps) and `mass` of the last generation.
    use_cache=False recomputes the auxiliary's whole context at every step.

    Returns log-probabilities in float32. Sampling: `generate` calls its temperature, top-k and top-p after all
    processors given to it, so they apply to the swapped distribution: first the swap, then temperature T, then top-k
    and top-p of the result. Its default is top_k=50; pass top_k=0 to sample from all of p_final. Options that run
    before (repetition_penalty, bad_words_ids, min_new_tokens, ...) change the main model's scores first; a token they
    forbid (score -inf) stays forbidden, in G too.

    The same object serves any number of `generate` calls, batches and `num_return_sequences`: a context that does not
    continue the last one starts anew. Beam search is right but slow: whenever beams change places the auxiliary starts
    anew, and then `record` covers only what came after.
    """

    def __init__(
        self,
        aux: Any,
        tokenizer: Any = None,
        words: Words = "english-110",
        *,
        aux_tokenizer: Any = None,
        attention_mask: torch.Tensor | None = None,
        pad_token_id: int | None = None,
        aux_bos: bool | None = None,
        long_context: str = "error",
        strict: bool = False,
        record: bool = False,
        use_cache: bool = True,
    ) -> None:
        self.aux = Auxiliary(aux, long_context=long_context, use_cache=use_cache)
        self.attention_mask, self.record = attention_mask, record
        self.coverage: Coverage | None = None
        self.ids_main, self.ids_aux = self._resolve(words, tokenizer, aux_tokenizer, strict)
        if int(self.ids_aux.max()) >= self.aux.vocabulary:
            raise UserError(
                f"the swap set has auxiliary id {int(self.ids_aux.max())}, the auxiliary model only "
                f"{self.aux.vocabulary} tokens: pass its own tokenizer as aux_tokenizer"
            )
        self._tokenizers: Tokenizers | None = None
        if not _same_vocabulary(tokenizer, aux_tokenizer):
            self._tokenizers = Tokenizers(tokenizer, aux_tokenizer, aux_bos=aux_bos)
        elif tokenizer is not None and max(tokenizer.get_vocab().values()) >= self.aux.vocabulary:
            raise UserError(
                f"the tokenizer has ids up to {max(tokenizer.get_vocab().values())}, the auxiliary model "
                f"{self.aux.vocabulary} tokens: pass its own tokenizer as aux_tokenizer"
            )
        self.pad_token_id = getattr(tokenizer, "pad_token_id", None) if pad_token_id is None else pad_token_id
        bos = getattr(tokenizer, "bos_token_id", None)
        self._pad_is_bos = bos is not None and bos == self.pad_token_id
        self._largest = int(self.ids_main.max())
        self._ids_main_here = self.ids_main  # on the device of the scores
        self._ids_aux_there = self.ids_aux  # on the device of the auxiliary
        self.reset()

    def _resolve(
        self, words: Words, tokenizer: Any, aux_tokenizer: Any, strict: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(words, (tuple, list)) and len(words) == 2 and all(isinstance(w, torch.Tensor) for w in words):
            ids = _checked_ids(*words)
            if not len(ids[0]):
                raise UserError("the swap set is empty: give at least one token id")
            if tokenizer is None and aux_tokenizer is not None:
                raise UserError("aux_tokenizer without the main tokenizer: pass `tokenizer` too, to decode with")
            return ids
        if tokenizer is None:
            raise UserError("words need the main model's tokenizer: pass it, or give two aligned tensors of token ids")
        swap_set = (
            words
            if isinstance(words, SwapSet)
            else SwapSet.named(words)
            if isinstance(words, str)
            else SwapSet.custom(words)  # type: ignore[arg-type]
        )
        self.coverage = swap_set.coverage(tokenizer, aux_tokenizer, strict=strict)
        return torch.tensor(self.coverage.main_ids), torch.tensor(self.coverage.aux_ids)

    def reset(self) -> None:
        """Forget the last context and record; happens by itself when a new context begins."""
        self._seen: torch.Tensor | None = None
        self._padding: torch.Tensor = torch.zeros(0, dtype=torch.long)
        self._texts: list[RowText] = []
        self._record: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.aux.clear()

    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return log p_final (rows, V_main) for contexts (rows, time) and the main model's scores (rows, V_main)."""
        if input_ids.shape[0] != scores.shape[0]:
            raise UserError(
                f"{input_ids.shape[0]} contexts but {scores.shape[0]} rows of scores: give one row of scores each"
            )
        if self._largest >= scores.shape[1]:
            raise UserError(
                f"the swap set has main id {self._largest}, the scores only {scores.shape[1]} tokens: pass the "
                "tokenizer of the model that generates"
            )
        if self._ids_main_here.device != scores.device:
            self._ids_main_here = self.ids_main.to(scores.device)
        ids = self._ids_main_here
        logits = self.auxiliary_logits(input_ids)
        if self._ids_aux_there.device != logits.device:
            self._ids_aux_there = self.ids_aux.to(logits.device)
        shares = logits.index_select(-1, self._ids_aux_there).to(scores.device, torch.float32)
        forbidden = scores.index_select(-1, ids) == -torch.inf
        final, on_words = _swap(scores, shares.masked_fill(forbidden, -torch.inf), ids)
        if self.record:
            self._record.append((scores.argmax(-1), final.argmax(-1), on_words.logsumexp(-1).exp()))
        return final

    def auxiliary_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the auxiliary's logits (rows, V_aux) after the contexts (rows, time)."""
        goes_on = continues(self._seen, input_ids)
        if not goes_on:
            self.reset()
            self._padding = self._leading_padding(input_ids)
            self._longest = input_ids.shape[1] - int(self._padding.min())
        else:
            self._longest += 1
        fits = self.aux.limit is None or self._longest <= self.aux.limit or self.aux.long_context == "error"
        if self._tokenizers is not None:
            logits = self.aux.advance(self._contexts(input_ids, goes_on))
        elif not fits:
            rows = zip(input_ids.tolist(), self._padding.tolist(), strict=True)
            logits = self.aux.advance([row[padding:] for row, padding in rows])
        elif goes_on:
            logits = self.aux.append(input_ids[:, -1:])
        else:
            logits = self.aux.start(input_ids, self._padding)
        self._seen = input_ids.clone()
        return logits

    def _contexts(self, input_ids: torch.Tensor, goes_on: bool) -> list[list[int]]:
        """What the auxiliary sees of each row, in its own vocabulary."""
        if goes_on:
            new = input_ids[:, -1].tolist()
            return [text.update([*text.main_ids, token]) for text, token in zip(self._texts, new, strict=True)]
        assert self._tokenizers is not None
        self._texts = [RowText(self._tokenizers) for _ in range(len(input_ids))]
        rows = zip(self._texts, input_ids.tolist(), self._padding.tolist(), strict=True)
        return [text.update(row[padding:]) for text, row, padding in rows]

    def _leading_padding(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(rows,) number of padding tokens at the start of each row."""
        rows, time = input_ids.shape
        if self.attention_mask is not None:
            mask = self.attention_mask.to(input_ids.device)
            if mask.dim() != 2 or rows % mask.shape[0] or mask.shape[1] > time:
                raise UserError(
                    f"attention_mask is {tuple(mask.shape)}, the contexts are {(rows, time)}: set "
                    "`processor.attention_mask` to the mask of these prompts, or to None"
                )
            return (mask.cumsum(1) == 0).sum(1).repeat_interleave(rows // mask.shape[0])
        if self.pad_token_id is None:
            return torch.zeros(rows, dtype=torch.long, device=input_ids.device)
        run = ((input_ids != self.pad_token_id).cumsum(1) == 0).sum(1)
        return run - run.min() if self._pad_is_bos else run.clamp(max=time - 1)

    def _recorded(self, which: int) -> torch.Tensor:
        if not self._record:
            raise UserError("nothing is recorded: pass record=True, then generate")
        return torch.stack([step[which] for step in self._record], dim=1)

    @property
    def main_choice(self) -> torch.Tensor:
        """(rows, steps) the main model's most probable token at each step."""
        return self._recorded(0)

    @property
    def final_choice(self) -> torch.Tensor:
        """(rows, steps) the most probable token after the swap; what greedy decoding wrote, until a row's end."""
        return self._recorded(1)

    @property
    def swapped(self) -> torch.Tensor:
        """(rows, steps) whether the swap changed the most probable token."""
        return self.main_choice != self.final_choice

    @property
    def mass(self) -> torch.Tensor:
        """(rows, steps) the main model's probability of G, 0-1."""
        return self._recorded(2)


@torch.no_grad()
def teacher_forced_log_probs(
    main: Any,
    aux: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    ids: tuple[torch.Tensor, torch.Tensor] | None = None,
    tokenizer: Any = None,
    words: Words = "english-110",
    aux_tokenizer: Any = None,
    aux_bos: bool | None = None,
) -> torch.Tensor:
    """Return log p_final (B, T, V_main) at every position; entry t is of the token that follows input_ids[:, t].

    input_ids, attention_mask: (B, T), padded on the left or right; without a mask all tokens are real. Entries at
    padding mean nothing. ids: (main, auxiliary) aligned token ids of the swap set; else they are those of `words`.
    One vocabulary takes two forward passes; two vocabularies T steps of the auxiliary.
    """
    if ids is None and tokenizer is None:
        raise UserError("give `ids`, two aligned tensors of token ids, or `tokenizer` and `words`")
    if _same_vocabulary(tokenizer, aux_tokenizer):
        if ids is None:
            processor = TokenSwapProcessor(aux, tokenizer, words, aux_tokenizer=aux_tokenizer)
            ids = processor.ids_main, processor.ids_aux
        aux_logits = _all_logits(aux, input_ids.to(aux.device), attention_mask)
        return swap_log_probs(_all_logits(main, input_ids, attention_mask), aux_logits, *ids)
    processor = TokenSwapProcessor(
        aux, tokenizer, words if ids is None else ids, aux_tokenizer=aux_tokenizer, aux_bos=aux_bos
    )
    processor.pad_token_id = None
    scores = _all_logits(main, input_ids, attention_mask)
    # rows are moved to start together: then no context is all padding, and what is on the right is never looked at
    slots = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    padding = torch.zeros_like(slots)
    if attention_mask is not None:
        padding = (attention_mask.to(slots.device).cumsum(1) == 0).sum(1, keepdim=True)
    begin = (slots + padding).clamp(max=slots.shape[1] - 1)
    contexts = input_ids.gather(1, begin)
    out = torch.empty_like(scores, dtype=torch.promote_types(scores.dtype, torch.float32))
    rows = torch.arange(len(begin), device=begin.device)
    for t in range(slots.shape[1]):
        out[:, t] = processor(contexts[:, : t + 1], scores[rows, begin[:, t]])
    return out[rows[:, None], (slots - padding).clamp(min=0)]


def _all_logits(model: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    runner = Auxiliary(model, use_cache=False, long_context="error")
    mask = None if mask is None else mask.to(ids.device)
    runner._check(ids.shape[1] if mask is None else int(mask.sum(1).max()))
    return runner._forward(ids, mask, None if mask is None else positions_of(mask))
