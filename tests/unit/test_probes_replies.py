"""The probe of replies against decoding, sampling and sums by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memorization.errors import UserError
from memorization.methods.pass_at_k import pass_at_k
from memorization.models import build as models
from memorization.probes.completion import generate
from memorization.probes.replies import count_right, judge_greedy, replies, score_replies
from memorization.probes.scheduled import Context
from memorization.specs import ModelSpec
from memorization.training.items import pad

SPEC = ModelSpec(architecture="gpt_neox", layers=1, width=16, heads=2, positions=24, vocabulary=8, initializer_std=0.5)
END = 7
OPTIONS = {
    "samples": 32,
    "ks": [1, 4, 32],
    "temperature": 1.0,
    "pass_subset": "short",
    "judge": "",
    "subsets": ["short", "long"],
}


@pytest.fixture(scope="module")
def model():
    return models.build(SPEC, seed=1).eval()


@pytest.fixture(scope="module")
def items(model):
    """Pieces of text without prompt, and questions of two formats: every third is answered as the model would."""
    rng = np.random.default_rng(0)
    sequences, prompt, subset = [], [], []
    for number in range(36):
        name = ("text", "short", "long")[number % 3]
        start = rng.integers(0, 7, {"text": 10, "short": 2, "long": 5 + number % 2}[name]).tolist()
        answer = rng.integers(0, 7, 2).tolist()
        if number % 4 == 0:
            for place in range(2):
                context = torch.tensor([start + answer[:place]])
                answer[place] = int(model(context).logits[0, -1].argmax())
        sequences.append(start if name == "text" else [*start, *answer, END])
        prompt.append(0 if name == "text" else len(start))
        subset.append(name)
    return pad(sequences, prompt, subset, "validation")


def context_of(model, items, step=0, steps=10, root=None, seed=5):
    return Context(SimpleNamespace(seed=seed, steps=steps), model, items, items, step=step, root=root)


def log_p(model, ids, begin, end, temperature=1.0):
    """Log-probability of the tokens ids[begin:end] of one text."""
    values = (model(torch.tensor([ids])).logits[0].double() / temperature).log_softmax(-1)
    return sum(float(values[i - 1, ids[i]]) for i in range(begin, end))


def test_losses_accuracy_and_chances_item_by_item(model, items):
    rows = np.flatnonzero(items.subset != "text")
    found = score_replies(model, items, rows, temperature=0.6)
    greedy = generate(model, items.only(["short", "long"]), 2)
    for place, row in enumerate(rows):
        ids, begin = items.input_ids[row, : items.length[row]].tolist(), items.prompt[row]
        assert found.loss[place] == pytest.approx(-log_p(model, ids, begin, len(ids)), rel=1e-5)
        assert found.log_chance[place] == pytest.approx(log_p(model, ids, begin, len(ids) - 1, 0.6), rel=1e-5)
        assert found.exact[place] == (greedy[place].tolist() == ids[begin:-1])
    assert 0 < found.exact.sum() < len(rows), "the test needs right and wrong answers"


def test_counts_have_the_law_of_written_samples(model, items):
    """Mean and variance over items and seeds of binomial counts, against replies written one by one."""
    short = items.only(["short"])
    drawn = generate(model, short, 2, samples=2000, seed=3)
    truth = np.stack([short.input_ids[i, short.prompt[i] : short.prompt[i] + 2].numpy() for i in range(len(short))])
    shares = (drawn == truth[:, None]).all(2).mean(1)
    found = score_replies(model, items, np.flatnonzero(items.subset == "short"))
    counted = count_right(found.log_chance, 2000, 0) / 2000
    p = np.exp(found.log_chance)
    for measured in (shares, counted):
        assert np.all(np.abs(measured - p) < 4 * np.sqrt(p * (1 - p) / 2000) + 1e-3)


def test_rows_of_the_probe(model, items):
    rows, frames = replies(context_of(model, items), OPTIONS)
    assert not frames
    assert {row["subset"] for row in rows} == {"short", "long"}
    table = {(row["metric"], row["subset"], row.get("k")): row for row in rows}
    assert len(table) == len(rows) == 2 + 2 + 3
    for subset in ("short", "long"):
        found = score_replies(model, items, np.flatnonzero(items.subset == subset))
        assert table["reply_loss", subset, None]["value"] == pytest.approx(found.loss.mean())
        assert table["reply_accuracy", subset, None]["value"] == pytest.approx(found.exact.mean())
        assert table["reply_loss", subset, None]["n"] == 12
    right = count_right(score_replies(model, items, np.flatnonzero(items.subset == "short")).log_chance, 32, [5, 0])
    for k in (1, 4, 32):
        row = table["pass_at_k", "short", k]
        assert row["value"] == pytest.approx(pass_at_k(right, 32, k).mean()) and row["n"] == 32
    assert table["pass_at_k", "short", 1]["value"] < table["pass_at_k", "short", 32]["value"]


def test_draws_depend_on_seed_and_step_only(model, items):
    def value(**changes):
        torch.rand(3)  # what else was drawn must not matter
        return [row["value"] for row in replies(context_of(model, items, **changes), OPTIONS)[0]]

    assert value() == value()
    assert value() != value(step=1) and value() != value(seed=6)


def test_the_judge_scores_greedy_replies_at_the_last_step(model, items, tmp_path):
    judge = models.build(SPEC, seed=2).eval()
    models.save(judge, tmp_path / "models" / "teacher")
    options = {**OPTIONS, "judge": "teacher"}
    assert not replies(context_of(model, items, step=9, root=tmp_path), options)[1]
    (frame,) = replies(context_of(model, items, step=10, root=tmp_path), options)[1]
    assert set(frame["subset"]) == {"long"} and set(frame["metric"]) == {"judge_score"}
    long = items.only(["long"])
    written = generate(model, long, 3)
    expected = []
    for row in range(len(long)):
        start = long.input_ids[row, : long.prompt[row]].tolist()
        expected.append(log_p(judge, [*start, *written[row].tolist()], len(start), len(start) + 3) / 3)
    assert frame["item"].tolist() == list(range(12))
    np.testing.assert_allclose(frame["value"], expected, rtol=1e-5)


def test_any_judge_can_be_plugged_in(model, items):
    rows = np.flatnonzero(items.subset == "long")
    seen = []

    def judge(prompts, written):
        seen.extend((len(p), len(w)) for p, w in zip(prompts, written, strict=True))
        return np.arange(len(prompts), dtype=float)

    assert judge_greedy(model, items, rows, judge).tolist() == list(range(12))
    assert seen == [(items.prompt[row], 3) for row in rows]


def test_without_end_marks_the_whole_reply_is_the_answer(model, items):
    rows = np.flatnonzero(items.subset == "short")
    whole = score_replies(model, items, rows, ending=0)
    np.testing.assert_allclose(whole.log_chance, -whole.loss, rtol=1e-6)


def test_sets_that_are_not_there_make_no_rows(model, items):
    assert replies(context_of(model, items.only(["text"])), OPTIONS) == ([], [])


def test_bad_options_are_refused(model, items):
    with pytest.raises(UserError, match="above 0"):
        replies(context_of(model, items), {**OPTIONS, "temperature": 0.0})
    with pytest.raises(UserError, match="from 1 to 32"):
        replies(context_of(model, items), {**OPTIONS, "ks": [64]})
    with pytest.raises(UserError, match="no prompt or no reply"):
        replies(context_of(model, items), {**OPTIONS, "subsets": ["text"]})
