"""TokenSwap on next-token probabilities alone, as servers give them: text -> {token: log-probability}.

Servers often list only the k most probable tokens. Then a word of G that the main model does not list counts as
having no mass, a word that the auxiliary does not list gets no share, and what the main model does not list stays one
entry, REMAINDER, so that the probabilities still sum to 1. Full lists give exactly p_final (`tokenswap`, sec. 3).
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from memorization.errors import UserError
from memorization.methods.swap_set import SwapSet

REMAINDER = "<remainder>"  # key of all tokens that the main model does not list, together
NextToken = Callable[[str], Mapping[str, float]]
_LEAST = 1e-6  # a smaller remainder is rounding of a full list


def swap_next_token(
    main: NextToken, aux: NextToken, words: str | SwapSet | Iterable[str], context: str, *, space: str = " "
) -> dict[str, float]:
    """Return {token: log p_final} after `context`.

    main, aux: text -> {token string: log-probability}, all tokens or the most probable. words: as in `SwapSet`; the
    token of a word is `space` + word. Tokens of probability 0 are left out. Where the auxiliary lists no word of G, or
    the main model none, the main distribution stays.
    """
    members = {space + word for word in _swap_set(words)}
    from_main = _checked(main(context), "main")
    from_aux = _checked(aux(context), "auxiliary")
    if REMAINDER in from_main:
        raise UserError(
            f"the main model lists a token {REMAINDER!r}, the name of the rest: give its tokens another name"
        )
    final = {token: value for token, value in from_main.items() if token not in members}
    on_words = [value for token, value in from_main.items() if token in members]
    shares = {token: value for token, value in from_aux.items() if token in members}
    if on_words and shares:
        shift = _log_sum(on_words) - _log_sum(shares.values())
        final |= {token: value + shift for token, value in shares.items()}
    else:
        final = dict(from_main)
    rest = 1 - math.fsum(math.exp(value) for value in from_main.values())
    if rest > _LEAST:
        final[REMAINDER] = math.log(rest)
    return final


class TokenSwapServer:
    """TokenSwap over two functions text -> {token string: log-probability}; see `swap_next_token`."""

    def __init__(
        self, main: NextToken, aux: NextToken, words: str | SwapSet | Iterable[str] = "english-110", *, space: str = " "
    ) -> None:
        self.main, self.aux, self.space = main, aux, space
        self.words = _swap_set(words)

    def __call__(self, context: str) -> dict[str, float]:
        """Return {token: log p_final} after `context`."""
        return swap_next_token(self.main, self.aux, self.words, context, space=self.space)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int,
        *,
        stop: str | Sequence[str] = (),
        do_sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Return what is written after `prompt`: greedily, or sampled at `temperature`.

        stop: ends at the first of these strings in the written text, which is left out; also at a token that is one.
        The remainder is never chosen: its tokens are unknown. Sampling renormalizes what is listed.
        """
        stops = [stop] if isinstance(stop, str) else list(stop)
        if "" in stops:
            raise UserError("an empty stop string would end every text at once: leave it out")
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}: write a positive number, or do_sample=False for greedy")
        rng, written = random.Random(seed), ""
        for _ in range(max_new_tokens):
            listed = {token: value for token, value in self(prompt + written).items() if token != REMAINDER}
            if not listed:
                raise UserError("the main model lists no token: ask it for at least its most probable one")
            if do_sample:
                best = max(listed.values())
                weights = [math.exp((value - best) / temperature) for value in listed.values()]
                token = rng.choices(list(listed), weights)[0]
            else:
                token = max(listed, key=listed.__getitem__)
            written += token
            ends = [at for at in (written.find(each) for each in stops) if at >= 0]
            if ends:
                return written[: min(ends)]
        return written


def _swap_set(words: str | SwapSet | Iterable[str]) -> SwapSet:
    if isinstance(words, SwapSet):
        return words
    return SwapSet.named(words) if isinstance(words, str) else SwapSet.custom(words)


def _log_sum(values: Iterable[float]) -> float:
    values = list(values)
    best = max(values)
    return best + math.log(math.fsum(math.exp(value - best) for value in values))


def _checked(listed: Mapping[str, float], side: str) -> dict[str, float]:
    """The listed log-probabilities without those of zero."""
    values = {token: float(value) for token, value in listed.items() if value != -math.inf}
    total = math.fsum(math.exp(min(value, 50.0)) for value in values.values())
    if any(value > 1e-6 or value != value for value in values.values()) or total > 1.001:
        raise UserError(
            f"the {side} model's values are no log-probabilities (their exp sums to {total:.4g}): return natural "
            "logarithms of probabilities, not logits or probabilities"
        )
    return values
