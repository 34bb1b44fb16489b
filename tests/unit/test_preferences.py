"""Objectives of post-training against sums written out item by item, enumeration, and TRL's trainers."""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memorization.errors import UserError
from memorization.models.build import build
from memorization.specs import ModelSpec
from memorization.training.items import pad
from memorization.training.preferences import (
    dpo,
    dpo_loss,
    draw_replies,
    group_advantages,
    grpo,
    grpo_loss,
    sft,
    token_log_probabilities,
)

VOCABULARY = 5
PROMPTS = [[1, 2], [3], [0, 4, 2, 1]]
CHOSEN = [[3, 4, 0], [2, 2, 0], [1, 0]]
REJECTED = [[1, 4, 0], [4, 3, 1, 0], [2, 0]]


def model_of(seed: int, dropout: float = 0.0, vocabulary: int = VOCABULARY):
    """A tiny model whose predictions differ from token to token."""
    spec = ModelSpec(
        architecture="gpt_neox", layers=1, width=16, heads=2, positions=16, vocabulary=vocabulary, dropout=dropout,
        initializer_std=0.5,
    )  # fmt: skip
    return build(spec, seed=seed).train()


def batch_of(prompts, replies, rejected=None):
    """A batch as training makes it."""
    items = pad(
        [p + r for p, r in zip(prompts, replies, strict=True)], [len(p) for p in prompts], ["a"] * len(prompts), "train"
    )
    batch = items.batch(np.arange(len(items)))
    batch["prompt"], batch["length"] = torch.tensor(items.prompt), torch.tensor(items.length)
    if rejected:
        other = batch_of(prompts, rejected)
        batch |= {"rejected_ids": other["input_ids"], "rejected_labels": other["labels"]}
    return batch


def by_hand(model, prompt, reply, temperature=1.0):
    """(len(reply),) log-probability of the tokens of one reply, alone and without padding."""
    logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(reply)[:, None])[:, 0]


def gradient(loss, model):
    """All gradients as one vector."""
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(model.parameters(), parts, strict=True)]
    )


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_sft_learns_reply_tokens_only():
    model = model_of(1)
    loss, count = sft(model, batch_of(PROMPTS, CHOSEN))
    expected = -sum(by_hand(model, p, r).sum() for p, r in zip(PROMPTS, CHOSEN, strict=True))
    close(loss, expected)
    assert int(count) == sum(map(len, CHOSEN))
    close(gradient(loss, model), gradient(expected, model), 1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_of_replies_behind_prompts_of_any_length(temperature):
    model, batch = model_of(1), batch_of(PROMPTS, CHOSEN)
    lengths = torch.tensor([len(reply) for reply in CHOSEN])
    values, there = token_log_probabilities(
        model, batch["input_ids"], batch["prompt"], lengths, temperature=temperature
    )
    assert there.sum(1).tolist() == lengths.tolist()
    for row, (prompt, reply) in enumerate(zip(PROMPTS, CHOSEN, strict=True)):
        close(values[row, : len(reply)], by_hand(model, prompt, reply, temperature))
        assert not values[row, len(reply) :].any()


def test_dpo_loss_by_hand():
    chosen, rejected, old_chosen, old_rejected = (torch.tensor([v]) for v in (-1.0, -3.0, -2.0, -2.5))
    # margin (-1 + 2) - (-3 + 2.5) = 1.5
    assert float(dpo_loss(chosen, rejected, old_chosen, old_rejected, 0.2)) == pytest.approx(math.log1p(math.exp(-0.3)))


def test_dpo_sums_over_pairs():
    model, reference = model_of(1), model_of(2).eval()
    loss, count = dpo(model, batch_of(PROMPTS, CHOSEN, REJECTED), reference=reference, beta=0.7)
    expected = 0.0
    for prompt, good, bad in zip(PROMPTS, CHOSEN, REJECTED, strict=True):
        log_ratio = [(by_hand(model, prompt, r) - by_hand(reference, prompt, r)).sum() for r in (good, bad)]
        expected = expected + torch.log1p(torch.exp(-0.7 * (log_ratio[0] - log_ratio[1])))
    close(loss, expected)
    assert int(count) == 3
    close(gradient(loss, model), gradient(expected, model), 1e-4)


def test_gradient_of_dpo_at_the_reference_is_half_beta_times_the_difference():
    model, reference = model_of(1), model_of(1).eval()
    loss, _ = dpo(model, batch_of(PROMPTS, CHOSEN, REJECTED), reference=reference, beta=0.3)
    assert loss.item() == pytest.approx(3 * math.log(2), rel=1e-5)
    difference = sum(
        by_hand(model, p, good).sum() - by_hand(model, p, bad).sum()
        for p, good, bad in zip(PROMPTS, CHOSEN, REJECTED, strict=True)
    )
    close(gradient(loss, model), -0.15 * gradient(difference, model), 1e-4)


def test_a_reference_gets_no_gradient():
    reference = model_of(2)
    for objective, options in ((dpo, {}), (grpo, {"kl": 0.1, "samples": 2})):
        loss, _ = objective(model_of(1), batch_of(PROMPTS, CHOSEN, REJECTED), reference=reference, **options)
        loss.backward()
    assert all(parameter.grad is None for parameter in reference.parameters())
    assert dpo.needs_reference and grpo.needs_reference and not hasattr(sft, "needs_reference")


def test_drawn_replies_follow_the_model_behind_prompts_of_any_length():
    """Frequencies of all pairs of tokens against their probabilities, at temperature 0.7."""
    model, samples = model_of(1), 6000
    batch, lengths = batch_of(PROMPTS, CHOSEN), torch.tensor([2, 2, 1])
    torch.manual_seed(0)
    written = draw_replies(model, batch["input_ids"], batch["prompt"], lengths, samples=samples, temperature=0.7)
    assert model.training
    for row, (prompt, reply) in enumerate(zip(PROMPTS, CHOSEN, strict=True)):
        drawn, length = written[row * samples : (row + 1) * samples], int(lengths[row])
        place = slice(len(prompt), len(prompt) + length)
        untouched = torch.ones(drawn.shape[1], dtype=torch.bool)
        untouched[place] = False
        assert (drawn[:, untouched] == batch["input_ids"][row, untouched]).all(), reply
        for answer in product(range(VOCABULARY), repeat=length):
            p = float(by_hand(model, prompt, list(answer), 0.7).sum().exp())
            share = float((drawn[:, place] == torch.tensor(answer)).all(1).double().mean())
            assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / samples) + 1e-4


def test_temperature_zero_writes_the_likeliest_tokens_and_ignores_dropout():
    model, batch = model_of(1, dropout=0.5), batch_of(PROMPTS, [[0, 0, 0]] * 3)
    written = draw_replies(model, batch["input_ids"], batch["prompt"], torch.tensor([3, 3, 3]), temperature=0.0)
    model.eval()
    for row, prompt in enumerate(PROMPTS):
        ids = list(prompt)
        for _ in range(3):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert written[row, : len(ids)].tolist() == ids


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    plain, scaled = group_advantages(rewards, scale_by_std=False), group_advantages(rewards)
    assert plain[0].tolist() == [0.75, -0.25, -0.25, -0.25]
    close(scaled[0], plain[0] / (0.5 + 1e-4))  # variance (0.75^2 + 3 * 0.25^2) / 3 = 0.25
    assert not plain[1:].any() and not scaled[1:].any()


class Bandit(torch.nn.Module):
    """A policy over single tokens that ignores what it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids, use_cache, logits_to_keep):
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), len(logits_to_keep), -1))


def bandit_batch(items: int, right: int):
    return batch_of([[0]] * items, [[right]] * items)


@pytest.mark.parametrize("scale_by_std", [0, 1])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_grpo_follows_its_expected_gradient_on_a_bandit(scale_by_std, temperature):
    """Expected gradient by enumerating all groups of three draws of four tokens, against the mean over 8000 groups."""
    logits, right, samples = [0.5, -0.3, 1.0, 0.0], 1, 3
    p = np.exp(np.array(logits) / temperature)
    p /= p.sum()
    expected, square = np.zeros(4), np.zeros(4)
    for draws in product(range(4), repeat=samples):
        rewards = np.array([float(token == right) for token in draws])
        advantages = rewards - rewards.mean()
        if scale_by_std:
            advantages /= rewards.std(ddof=1) + 1e-4
        # d log p(token) / d logits = (one-hot - p) / temperature
        one = -np.mean(
            [a * (np.eye(4)[token] - p) / temperature for a, token in zip(advantages, draws, strict=True)], axis=0
        )
        expected += np.prod(p[list(draws)]) * one
        square += np.prod(p[list(draws)]) * one**2
    groups = 8000
    model = Bandit(logits)
    torch.manual_seed(0)
    options = {"samples": samples, "temperature": temperature, "scale_by_std": scale_by_std, "ending": 0}
    loss, count = grpo(model, bandit_batch(groups, right), reference=model, **options)
    assert int(count) == groups * samples
    (loss / count).backward()
    error = np.sqrt((square - expected**2) / groups)
    assert np.abs(expected).max() > 20 * error.max(), "the gradient must stand out of its noise"
    assert np.all(np.abs(model.logits.grad.numpy() - expected) < 4 * error)


@pytest.mark.parametrize("right, chance", [(1, 1.0), (2, 0.0)])
def test_equal_rewards_give_no_gradient(right, chance):
    """Token 1 is drawn always, so all replies are right, or all are wrong."""
    model = Bandit([0.0, 60.0, 0.0])
    loss, _ = grpo(model, bandit_batch(5, right), reference=model, samples=4, ending=0)
    loss.backward()
    assert model.logits.grad.abs().max() == 0
    assert float(model.logits.softmax(0)[right]) == pytest.approx(chance, abs=1e-9)


def test_the_divergence_is_zero_at_the_reference_and_pulls_back_elsewhere():
    """Reward is out of reach (a token of probability 0), so only the divergence moves the model."""
    logits = [0.5, -0.3, 1.0, -1e4]
    same = Bandit(logits)
    loss, _ = grpo(same, bandit_batch(50, 3), reference=Bandit(logits), samples=4, ending=0, kl=1.0)
    loss.backward()
    assert float(loss) == 0 and same.logits.grad.abs().max() == 0
    old, groups = [0.0, 0.4, 0.2, -1e4], 4000
    model = Bandit(logits)
    torch.manual_seed(1)
    loss, count = grpo(model, bandit_batch(groups, 3), reference=Bandit(old), samples=2, ending=0, kl=0.5)
    p, q = (np.exp(v[:3]) / np.exp(v[:3]).sum() for v in (np.array(logits), np.array(old)))
    divergence = np.sum(p * np.log(p / q))
    assert (loss / count).item() == pytest.approx(0.5 * divergence, rel=0.05)
    (loss / count).backward()
    pull = 0.5 * p * (np.log(p / q) - divergence)  # gradient of 0.5 KL(p || q); that of KL(q || p) is p - q
    np.testing.assert_allclose(model.logits.grad[:3], pull, atol=0.06 * np.abs(pull).max())
    assert np.abs(0.5 * (p - q) - pull).max() > 0.3 * np.abs(pull).max(), "the test must tell the two apart"


def test_grpo_checks_the_answer_and_not_its_end_mark():
    """Of what was drawn, rewards, advantages and the gradient are done again by hand, reply by reply."""
    model, reference = model_of(1), model_of(2).eval()
    batch = batch_of(PROMPTS, CHOSEN)
    torch.manual_seed(3)
    loss, count = grpo(model, batch, reference=reference, samples=6, temperature=0.8, kl=0.3)
    torch.manual_seed(3)
    lengths = torch.tensor([len(reply) - 1 for reply in CHOSEN])
    written = draw_replies(model, batch["input_ids"], batch["prompt"], lengths, samples=6, temperature=0.8)
    expected, rewards = 0.0, []
    for row, (prompt, reply) in enumerate(zip(PROMPTS, CHOSEN, strict=True)):
        answers = [one[len(prompt) : len(prompt) + len(reply) - 1].tolist() for one in written[6 * row : 6 * row + 6]]
        reward = np.array([float(answer == reply[:-1]) for answer in answers])
        rewards.append(reward.mean())
        advantages = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-4)
        for answer, advantage in zip(answers, advantages, strict=True):
            mine, theirs = by_hand(model, prompt, answer, 0.8), by_hand(reference, prompt, answer, 0.8).detach()
            divergence = (mine - mine.detach()).exp() * ((theirs - mine).exp() - (theirs - mine) - 1)
            expected = expected + (-advantage * mine + 0.3 * divergence).mean()
    assert any(0 < reward < 1 for reward in rewards), "the test needs a group of unequal rewards"
    assert int(count) == 18
    close(loss, expected, 1e-4)
    close(gradient(loss, model), gradient(expected, model), 1e-4)


def test_grpo_raises_the_chance_of_the_right_answers():
    model, batch = model_of(1), batch_of(PROMPTS, CHOSEN)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def chance():
        rows = zip(PROMPTS, CHOSEN, strict=True)
        return float(sum(by_hand(model, prompt, reply[:-1]).sum().exp() for prompt, reply in rows)) / 3

    torch.manual_seed(0)
    before = chance()
    for _ in range(40):
        loss, count = grpo(model, batch, reference=model, samples=64)
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert before < 0.3 and chance() > 0.9


@pytest.mark.parametrize("objective", [dpo, grpo])
def test_wrapped_models_are_only_called(objective):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)

    batch, values = batch_of(PROMPTS, CHOSEN, REJECTED), []
    for model in (model_of(1), Wrapper(model_of(1))):
        torch.manual_seed(0)
        values.append(float(objective(model, batch, reference=model_of(2).eval())[0]))
    assert values[0] == values[1]


def test_bad_options_and_items_are_refused():
    model, batch = model_of(1), batch_of(PROMPTS, CHOSEN, REJECTED)
    for options, message in (
        ({"samples": 1}, "2 or more"),
        ({"temperature": 0.0}, "above 0"),
        ({"ending": 2}, "leaves no answer of a reply of 2 tokens"),
        ({"ending": -1}, "0 or more"),
    ):
        with pytest.raises(UserError, match=message):
            grpo(model, batch, reference=model, **options)
    with pytest.raises(UserError, match="above 0"):
        dpo(model, batch, reference=model, beta=0.0)
    with pytest.raises(UserError, match="no prompt or no reply"):
        dpo(model, batch | {"prompt": torch.tensor([0, 1, 4])}, reference=model)
    with pytest.raises(UserError, match="no prompt or no reply"):
        dpo(model, batch | {"prompt": torch.tensor([5, 1, 4])}, reference=model)


@pytest.fixture(scope="module")
def trl(tmp_path_factory):
    """TRL, a reference library, and what its trainers take; the words of its tokenizer are numbers."""
    trl = pytest.importorskip("trl")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options = {
        "output_dir": str(tmp_path_factory.mktemp("trl")), "max_steps": 1, "learning_rate": 1.0, "optim": "sgd",
        "lr_scheduler_type": "constant", "logging_steps": 1, "report_to": "none", "use_cpu": True, "max_grad_norm": 0.0,
        "save_strategy": "no", "activation_checkpointing": False, "bf16": False, "disable_tqdm": True,
    }  # fmt: skip
    # 0 ends a reply, as in the items above; 4 pads
    return trl, options, PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="4", eos_token="0")


def words(ids):
    return " ".join(map(str, ids))


def moved(before, after):
    """How far one step of gradient descent at rate 1 moved the weights: minus the gradient."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return torch.cat([(new - old).detach().flatten() for old, new in pairs])


def test_dpo_is_that_of_trl(trl):
    from datasets import Dataset

    library, options, tokenizer = trl
    texts = [
        {"prompt": words(p), "chosen": f" {words(good[:-1])}", "rejected": f" {words(bad[:-1])}"}
        for p, good, bad in zip(PROMPTS, CHOSEN, REJECTED, strict=True)
    ]  # it adds the end marks itself
    model, reference = model_of(1), model_of(2).eval()
    trainer = library.DPOTrainer(
        model=model_of(1), ref_model=model_of(2), train_dataset=Dataset.from_list(texts), processing_class=tokenizer,
        args=library.DPOConfig(**options, per_device_train_batch_size=3, beta=0.3),
    )  # fmt: skip
    trainer.train()
    loss, count = dpo(model, batch_of(PROMPTS, CHOSEN, REJECTED), reference=reference, beta=0.3)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(loss / count), rel=1e-5)
    close(moved(model, trainer.model), -gradient(loss / count, model), 1e-5)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_grpo_is_that_of_trl(trl, scale, tmp_path):
    """TRL samples; of its samples, some cut short by an end mark, advantages and gradient are worked out here."""
    from datasets import Dataset

    library, options, tokenizer = trl
    samples, seen = 4, {}

    def reward(prompts, completion_ids, **others):
        seen.update(prompts=prompts, replies=completion_ids)
        return [float(ids[0] % 2) for ids in completion_ids]

    old = model_of(2)
    old.save_pretrained(tmp_path)
    trained = model_of(1)
    trained.config._name_or_path = str(tmp_path)  # where it takes the reference from
    trainer = library.GRPOTrainer(
        model=trained, reward_funcs=reward, processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": words(prompt)} for prompt in PROMPTS]),
        args=library.GRPOConfig(
            **options, per_device_train_batch_size=3 * samples, num_generations=samples, max_completion_length=3,
            temperature=2.0, beta=0.2, loss_type="grpo", scale_rewards=scale, seed=1,
        ),
    )  # fmt: skip
    trainer.train()
    assert {len(ids) for ids in seen["replies"]} > {3}, "the test needs replies of several lengths"
    rewards = torch.tensor(reward(seen["prompts"], seen["replies"])).view(3, samples)
    assert rewards.std(1).count_nonzero() >= 2, "the test needs groups of unequal rewards"
    model = model_of(1)
    batch = batch_of([[int(word) for word in text.split()] for text in seen["prompts"]], seen["replies"])
    given = (batch["input_ids"], batch["prompt"], batch["length"] - batch["prompt"])
    log_p, there = token_log_probabilities(model, *given, temperature=2.0)
    reference_log_p = token_log_probabilities(old, *given, temperature=2.0)[0].detach()
    advantages = group_advantages(rewards, scale_by_std=scale == "group").flatten()
    loss = grpo_loss(log_p, there, advantages, reference_log_p, 0.2).mean()
    close(moved(model, trainer.model), -gradient(loss, model), 1e-5)
