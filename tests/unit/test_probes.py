"""Probes against brute force: decoding token by token, hand values, reference libraries."""

import numpy as np
import pytest
import torch

from memorization.models import build as models
from memorization.probes import overlap, scheduled
from memorization.probes.completion import exact_match, generate, teacher_forced
from memorization.training.items import pad
from tiny import tiny_run


@pytest.fixture(scope="module")
def trained():
    """A model that has memorized some of its items, and items with prompts of two lengths."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 10, rng.integers(12, 17)).tolist() for _ in range(24)]
    items = pad(sequences, [6, 8] * 12, ["a", "b"] * 12, "train")
    model = models.build(tiny_run().model.model_copy(update={"dropout": 0.0, "width": 32}), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(400):
        rows = torch.arange(24)[step % 3 :: 3]
        logits = model(items.input_ids[rows]).logits[:, :-1]
        labels = items.labels[rows][:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 and 0.3 < exact_match(model.eval(), items, 4).mean() < 0.9:
            break
        model.train()
    return model.eval(), items


def decode_by_hand(model, ids: list[int], n: int) -> list[int]:
    """Greedy decoding of one item, the whole context at every step."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(n):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-n:]


def test_one_teacher_forced_pass_equals_decoding_item_by_item(trained):
    model, items = trained
    by_hand = []
    for i in range(len(items)):
        prompt = items.input_ids[i, : items.prompt[i]].tolist()
        truth = items.input_ids[i, items.prompt[i] : items.prompt[i] + 4].tolist()
        by_hand.append(decode_by_hand(model, prompt, 4) == truth)
    assert 0 < sum(by_hand) < len(by_hand), "the test needs memorized and other items"
    assert exact_match(model, items, 4).tolist() == by_hand
    assert exact_match(model, items, 4, chunk=5).tolist() == by_hand


def test_generate_equals_decoding_by_hand(trained):
    model, items = trained
    written = generate(model, items, 4)
    for i in range(len(items)):
        assert written[i].tolist() == decode_by_hand(model, items.input_ids[i, : items.prompt[i]].tolist(), 4)


def test_loss_of_a_window_is_the_mean_over_its_tokens(trained):
    model, items = trained
    start, length = np.full(len(items), 5), 3
    _, loss = teacher_forced(model, items, [(items.prompt, 4), (start, length)])[1]
    log_p = model(items.input_ids).logits.log_softmax(-1)
    for i in range(len(items)):
        expected = -np.mean([log_p[i, t - 1, items.input_ids[i, t]].item() for t in (5, 6, 7)])
        assert loss[i] == pytest.approx(expected, rel=1e-5)


def test_samples_at_low_temperature_are_greedy_and_leave_the_rng_alone(trained):
    model, items = trained
    before = torch.get_rng_state()
    cold = generate(model, items, 4, samples=3, temperature=1e-4, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert cold.shape == (24, 3, 4) and (cold == generate(model, items, 4)[:, None]).all()
    warm = [generate(model, items, 4, samples=3, temperature=2.0, seed=s) for s in (1, 1, 2)]
    assert (warm[0] == warm[1]).all() and (warm[0] != warm[2]).any()


def context(model, items, **fields) -> scheduled.Context:
    spec = tiny_run(prompt_length=6, completion_length=4)
    return scheduled.Context(spec, model, items, pad([], [], [], "validation"), **fields)


def test_recency_counts_by_hand(trained):
    model, items = trained
    now = exact_match(model, items, 4)
    before = now.copy()
    new = np.flatnonzero(now)[:3]
    before[new] = False
    batch = np.array([new[0], new[2], np.flatnonzero(~now)[0]])
    rows, _ = scheduled.recency(context(model, items, before=before, batch=batch), {})
    counts = {row["metric"]: row["value"] for row in rows}
    assert counts == {"newly_memorized": 3, "newly_in_batch": 2, "batch_items": 3}


def test_completion_rows_are_means_of_the_item_rows(trained):
    model, items = trained
    made = context(model, items)
    rows, frames = scheduled.completion(made, {"lengths": [[6, 2]]})
    exact = exact_match(model, items, 4)
    found = {(r["subset"], r["prompt_length"], r["completion_length"]): r for r in rows if r["metric"] == "exact_match"}
    assert found["all", 6, 4]["value"] == exact.mean() and found["a", 6, 4]["value"] == exact[::2].mean()
    assert ("all", 6, 2) in found and found["b", 6, 4]["n"] == 12
    assert (frames[0]["value"].to_numpy() == exact).all()
    assert made.memory["now"] == exact.astype(int).tolist()


def test_sampling_rows_split_items_by_their_history(trained):
    model, items = trained
    now = exact_match(model, items, 4)
    made = context(model, items)
    forgotten = np.flatnonzero(~now)[:2]
    made.memory["ever"] = [int(i in forgotten or now[i]) for i in range(len(items))]
    rows, _ = scheduled.sampling(made, {"samples": 4, "temperature": 1e-4})
    by_status = {row["subset"]: row for row in rows}
    assert by_status["memorized"]["value"] == 1 and by_status["memorized"]["n"] == now.sum()
    assert by_status["forgotten"]["value"] == 0 and by_status["forgotten"]["n"] == 2
    assert by_status["never"]["n"] == (~now).sum() - 2


@pytest.mark.parametrize(
    ("written", "first", "expected"),
    [([1, 2, 3, 4], 0, 1.0), ([9, 0, 1, 5], 8, 0.75), ([3, 3, 3, 3], 3, 0.0), ([36, 2, 3, 11], 1, 0.25)],
)
def test_adherence_by_hand(written, first, expected):
    assert overlap.adherence(np.array([written]), np.array([first]))[0] == expected


def test_cumulative_bleu_equals_sacrebleu():
    """Reference: sacrebleu on the same completions, all of which share some 4-gram with the truth."""
    import sacrebleu

    rng = np.random.default_rng(1)
    truth = rng.integers(0, 10, (20, 12))
    written = truth.copy()
    written[np.arange(20), rng.integers(0, 12, 20)] = 11
    for t, w in zip(truth, written, strict=True):
        reference, hypothesis = (" ".join(overlap.words(x)) for x in (t, w))
        theirs = sacrebleu.sentence_bleu(
            hypothesis, [reference], smooth_method="none", tokenize="none", use_effective_order=False
        ).score
        assert 100 * overlap.bleu(t, w, 4, cumulative=True) == pytest.approx(theirs, rel=1e-6)


def test_overlaps_of_equal_and_of_disjoint_completions():
    truth = np.arange(10)[None]
    same = overlap.overlaps(truth, truth, 3)
    other = overlap.overlaps(truth, truth + 20, 3)
    assert all(value[0] == pytest.approx(1, abs=1e-3) for value in same.values())
    assert all(value[0] == pytest.approx(0, abs=1e-3) for value in other.values())


def test_jaccard_and_bleu1_by_hand():
    truth, written = np.array([1, 2, 3, 4]), np.array([1, 2, 3, 9])
    assert overlap.jaccard(truth, written, 2) == pytest.approx(2 / 4)  # {12, 23} of {12, 23, 34, 39}
    assert overlap.bleu(truth, written, 1) == pytest.approx(3 / 4)
    assert overlap.jaccard(truth, written, 5) == 0.0
