"""TokenSwap over lists of token probabilities, as a server gives them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization.errors import UserError
from memorization.methods.swap_set import SwapSet
from memorization.methods.tokenswap import (
    REMAINDER,
    TokenSwapServer,
    swap_log_probs,
    swap_next_token,
)

# probabilities from a server

TOKENS = [" the", " of", " cat", " dog", " sat", ".", " and"]
TWO = SwapSet.custom(["the", "of", "and"])


def served(seed: int, top_k: int | None = None):
    """A function text -> log-probabilities that depends on the text."""

    def answer(context: str) -> dict[str, float]:
        rng = torch.Generator().manual_seed(seed * 1000 + len(context))
        values = (2 * torch.randn(len(TOKENS), generator=rng)).log_softmax(-1).tolist()
        best = sorted(zip(TOKENS, values, strict=True), key=lambda pair: -pair[1])[:top_k]
        return dict(best)

    return answer


@pytest.mark.parametrize("context", ["", "a", "a b c"])
def test_full_lists_give_the_rule_itself(context):
    main, aux = served(1), served(2)
    final = swap_next_token(main, aux, TWO, context)
    ids = torch.tensor([TOKENS.index(" " + word) for word in TWO])
    tensors = [torch.tensor([answer(context)[token] for token in TOKENS]) for answer in (main, aux)]
    expected = swap_log_probs(*tensors, ids)
    assert set(final) == set(TOKENS)
    torch.testing.assert_close(torch.tensor([final[token] for token in TOKENS]), expected, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 500), st.integers(1, 7), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_short_lists_keep_all_masses(seed, k_main, k_aux):
    main, aux = served(seed, k_main)(""), served(seed + 1, k_aux)("")
    final = swap_next_token(lambda _: main, lambda _: aux, TWO, "")
    members = {" " + word for word in TWO}
    assert sum(map(math.exp, final.values())) == pytest.approx(1, abs=1e-6)
    mass = sum(math.exp(v) for t, v in main.items() if t in members)
    assert sum(math.exp(v) for t, v in final.items() if t in members) == pytest.approx(mass)
    assert {t: v for t, v in final.items() if t not in members and t != REMAINDER} == {
        t: v for t, v in main.items() if t not in members
    }
    missing = 1 - sum(map(math.exp, main.values()))
    assert math.exp(final.get(REMAINDER, -math.inf)) == pytest.approx(missing, abs=1.1e-6)


def test_the_server_writes_greedily_by_sampling_and_until_a_stop():
    server = TokenSwapServer(served(1), served(2), TWO)
    context = ""
    for _ in range(6):
        final = server(context)
        context += max(final, key=final.__getitem__)
    assert server.generate("", 6) == context
    assert server.generate("", 6, do_sample=True, seed=3) == server.generate("", 6, do_sample=True, seed=3)
    drawn = {server.generate("", 6, do_sample=True, seed=seed) for seed in range(5)}
    assert len(drawn) > 1
    first = context.split()[1]
    assert server.generate("", 6, stop=first) == context[: context.index(first)]
    with pytest.raises(UserError, match="stop string"):
        server.generate("", 3, stop="")
    with pytest.raises(UserError, match="no log-probabilities"):
        swap_next_token(lambda _: {" the": 0.4, ".": 0.6}, served(2), TWO, "")
    assert TokenSwapServer(served(1), served(2)).words == SwapSet.named("english-110")
