"""Goldfish loss: which tokens are dropped, and that the loss is the mean over the others."""

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from memorization.errors import UserError
from memorization.methods.goldfish import STRATEGIES, TABLE_SEED, TABLE_SIZE, goldfish_mask
from memorization.training.objectives import causal_lm, goldfish

HASHES = ["hash-table", "hash-avalanche"]


def tokens(*shape: int, high: int = 5000, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, high, shape, generator=torch.Generator().manual_seed(seed))


def splitmix(x: int) -> int:
    """One step of SplitMix64 in whole numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize("high", [50, 5000, 10**6 + 10, 2**40])
@pytest.mark.parametrize("strategy", HASHES)
def test_hash_strategies_agree_with_a_loop_over_whole_numbers(strategy, high):
    """Ids up to 2^40: their products need 160 bits."""
    ids = tokens(4, 30, high=high)
    table = torch.rand(TABLE_SIZE, generator=torch.Generator().manual_seed(TABLE_SEED))
    for k in (2, 3):
        expected = torch.ones(4, 30, dtype=torch.bool)
        for row in range(4):
            for at in range(3, 30):
                window = ids[row, at - 3 : at + 1].tolist()
                if strategy == "hash-table":
                    product = window[0] * window[1] * window[2] * window[3]
                    uniform = float(table[product % TABLE_SIZE])
                else:
                    state = TABLE_SEED
                    for token in window:
                        state = splitmix(state ^ token)
                    uniform = state / 2**64
                expected[row, at] = uniform >= 1 / k
        assert torch.equal(goldfish_mask(ids, k, strategy), expected)
        assert not expected.all()


def test_the_reference_mix_is_splitmix64():
    """First outputs of the generator at seed 0, as published with it."""
    assert [splitmix(0), splitmix(0x9E3779B97F4A7C15)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@pytest.mark.parametrize("k", [3, 4, 32])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_token_in_k_is_dropped(strategy, k):
    mask = goldfish_mask(tokens(50, 2000), k, strategy, generator=torch.Generator().manual_seed(1))
    assert float((~mask).float().mean()) == pytest.approx(1 / k, rel=0.05)


@pytest.mark.parametrize("strategy", HASHES)
def test_a_window_has_one_decision_wherever_it_stands(strategy):
    passage = tokens(1, 40)
    kept = goldfish_mask(passage, 3, strategy)[0]
    before = tokens(6, 13, seed=7)
    inside = goldfish_mask(torch.cat([before, passage.expand(6, -1)], 1), 3, strategy)[:, 13:]
    assert torch.equal(inside[:, 3:], kept[3:].expand(6, -1))  # the first three have windows that reach out
    assert kept[:3].all() and not kept.all()
    assert not goldfish_mask(tokens(40, 4), 3, strategy)[:, :3].logical_not().any()
    assert goldfish_mask(passage[:, :3], 3, strategy).all()


def test_static_drops_every_kth_token():
    assert goldfish_mask(tokens(2, 7), 3, "static").int().tolist() == [[1, 1, 0, 1, 1, 0, 1]] * 2


def test_random_follows_its_generator():
    ids = tokens(3, 200)
    first, again = (goldfish_mask(ids, 4, "random", generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = goldfish_mask(ids, 4, "random", generator=torch.Generator().manual_seed(6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_order_and_the_id_zero():
    """What the docstring warns of: the released hash is a product."""
    ids, turned = torch.tensor([[5, 17, 301, 44]] * 2), torch.tensor([[17, 5, 44, 301]] * 2)
    with_zero = torch.cat([tokens(200, 3), torch.zeros(200, 1, dtype=torch.long)], 1)
    for k in range(2, 40):
        assert torch.equal(goldfish_mask(ids, k), goldfish_mask(turned, k))
        assert len(goldfish_mask(with_zero, k)[:, 3].unique()) == 1
    assert len(goldfish_mask(with_zero, 3, "hash-avalanche")[:, 3].unique()) == 2
    seeds = [goldfish_mask(tokens(20, 30), 3, strategy, seed=seed) for strategy in HASHES for seed in (1, 2)]
    assert not torch.equal(seeds[0], seeds[1]) and not torch.equal(seeds[2], seeds[3])


@pytest.mark.parametrize("strategy", ["hash-table", "hash-avalanche", "static"])
def test_the_loss_is_the_mean_over_kept_targets(strategy):
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32, **ends)).eval()
    ids = tokens(4, 20, high=60)
    labels = ids.clone()
    labels[:, :5] = -100
    labels[3, 12:] = -100
    captured = []
    model.lm_head.register_forward_hook(lambda _, __, out: (out.retain_grad(), captured.append(out))[1])
    summed, count = goldfish(model, {"input_ids": ids, "labels": labels}, k=3, strategy=strategy)
    kept = goldfish_mask(ids, 3, strategy)
    log_p = captured[-1].log_softmax(-1)
    terms = [
        -log_p[row, at - 1, ids[row, at]]
        for row in range(4)
        for at in range(1, 20)
        if kept[row, at] and labels[row, at] != -100
    ]
    assert int(count) == len(terms) < int(causal_lm(model, {"input_ids": ids, "labels": labels})[1])
    assert float(summed.detach() / count) == pytest.approx(float(torch.stack(terms).detach().mean()), rel=1e-5)
    captured[0].grad = None
    summed.backward()
    gradient = captured[0].grad[:, :-1].abs().sum(-1)
    target = (kept & (labels != -100))[:, 1:]
    assert (gradient[~target] == 0).all() and (gradient[target] > 0).all()


def test_plain_loss_is_the_limit_of_large_k():
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32, **ends)).eval()
    ids = tokens(2, 20, high=60)
    summed, count = goldfish(model, {"input_ids": ids, "labels": ids}, k=21, strategy="static")
    logits = model(ids).logits[:, :-1]
    assert int(count) == 38
    assert float(summed.detach()) == pytest.approx(
        float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").detach())
    )


def test_bad_input_is_refused():
    for k in (1, 0, 2.5, True):
        with pytest.raises(UserError, match="k >= 2"):
            goldfish_mask(tokens(1, 5), k)
    with pytest.raises(UserError, match="hash-table"):
        goldfish_mask(tokens(1, 5), 3, "hash_table")
    with pytest.raises(UserError, match="at least 1"):
        goldfish_mask(tokens(1, 5), 3, window=0)
