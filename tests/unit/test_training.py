"""Training: the same bytes however often it is interrupted, and measurements that mean what they say."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from memorization.errors import UserError
from memorization.models import build as models
from memorization.provenance.record import RowLog
from memorization.specs import OptimizerSpec, RunSpec, StopSpec
from memorization.training import checkpoint
from memorization.training.items import load_items
from memorization.training.loop import Control, Interrupted, take_step, train
from memorization.training.schedule import batch_at, learning_rate
from tiny import tiny_run


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


def outcome(work: Path) -> tuple[bytes, str, str]:
    """Weights and rows of a finished run, for comparison."""
    rows, items = RowLog(work / "rows").collect(), RowLog(work / "items").collect()
    return (work / "model" / "model.safetensors").read_bytes(), rows.to_csv(), items.to_csv()


def kill_at(step: int, **options: object) -> Control:
    """A control that ends the run without warning after `step`."""

    def after(now: int) -> None:
        if now == step:
            raise Killed

    return Control(after_step=after, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str, str]:
    work = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_run(), data_root, work, code="c")
    return outcome(work)


def test_two_runs_of_one_spec_give_the_same_bytes(data_root, tmp_path, undisturbed):
    train(tiny_run(), data_root, tmp_path / "run", code="c")
    assert outcome(tmp_path / "run") == undisturbed


def test_another_seed_gives_other_weights(data_root, tmp_path, undisturbed):
    train(tiny_run(seed=4), data_root, tmp_path / "run", code="c")
    assert outcome(tmp_path / "run")[0] != undisturbed[0]


@pytest.mark.parametrize("kills", [[1], [7], [39], [5, 6, 11, 12, 13, 30, 38]])
def test_a_killed_run_resumes_to_the_same_bytes(data_root, tmp_path, undisturbed, kills):
    for step in kills:
        with pytest.raises(Killed):
            train(tiny_run(), data_root, tmp_path / "run", code="c", control=kill_at(step, save_every_steps=3))
    train(tiny_run(), data_root, tmp_path / "run", code="c")
    assert outcome(tmp_path / "run") == undisturbed


def test_saving_by_the_clock_changes_nothing(data_root, tmp_path, undisturbed):
    train(tiny_run(), data_root, tmp_path / "run", code="c", control=Control(save_every_seconds=0))
    assert outcome(tmp_path / "run") == undisturbed


def test_a_stop_request_saves_and_says_how_to_go_on(data_root, tmp_path, undisturbed, caplog):
    asked = iter([False] * 9 + [True])
    with pytest.raises(Interrupted, match="stopped at step 10 of 40, state saved"):
        train(tiny_run(), data_root, tmp_path / "run", code="c", control=Control(stop_requested=lambda: next(asked)))
    with caplog.at_level("INFO"):
        train(tiny_run(), data_root, tmp_path / "run", code="c")
    assert "resumed at step 10 of 40" in caplog.text
    assert outcome(tmp_path / "run") == undisturbed


def test_a_truncated_newest_state_falls_back_to_the_one_before(data_root, tmp_path, undisturbed, caplog):
    work = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny_run(), data_root, work, code="c", control=kill_at(20, save_every_steps=6))
    assert [path.name for path in checkpoint.states(work)] == ["state-00000012", "state-00000018"]
    weights = work / "state-00000018" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    train(tiny_run(), data_root, work, code="c")
    assert "state-00000018 is damaged (model.safetensors): falling back" in caplog.text
    assert outcome(work) == undisturbed


def test_with_every_state_damaged_a_run_starts_over(data_root, tmp_path, undisturbed, caplog):
    work = tmp_path / "run"
    with pytest.raises(Killed):
        train(tiny_run(), data_root, work, code="c", control=kill_at(20, save_every_steps=6))
    for state in checkpoint.states(work):
        (state / "state.json").write_text("{")
    train(tiny_run(), data_root, work, code="c")
    assert caplog.text.count("falling back") == 2
    assert outcome(work) == undisturbed


@pytest.mark.parametrize("change", [{"spec": {"batch_size": 6}}, {"code": "other"}])
def test_a_changed_spec_or_code_starts_over(data_root, tmp_path, caplog, change):
    with pytest.raises(Killed):
        train(tiny_run(), data_root, tmp_path / "run", code="c", control=kill_at(20, save_every_steps=6))
    spec, code = tiny_run(**change.get("spec", {})), change.get("code", "c")
    train(spec, data_root, tmp_path / "run", code=code)
    assert "its spec or code changed since the saved state: starting over" in caplog.text
    train(spec, data_root, tmp_path / "fresh", code=code)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "fresh")


def test_a_full_disk_while_saving_is_one_sentence_and_costs_nothing(data_root, tmp_path, undisturbed, monkeypatch):
    work, real = tmp_path / "run", os.fsync
    saves = []

    def full(descriptor: int) -> None:
        saves.append(descriptor)
        if len(saves) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out of disk while writing .*free space or set `results:`"):
        train(tiny_run(), data_root, work, code="c", control=Control(save_every_steps=3))
    monkeypatch.setattr(os, "fsync", real)
    assert checkpoint.states(work), "a state saved before the disk filled is kept"
    train(tiny_run(), data_root, work, code="c")
    assert outcome(work) == undisturbed


def test_a_finished_run_is_kept(data_root, tmp_path, monkeypatch):
    first = train(tiny_run(), data_root, tmp_path / "run", code="c")
    monkeypatch.setattr("memorization.training.loop.take_step", None)  # would fail if it trained again
    assert train(tiny_run(), data_root, tmp_path / "run", code="c") == json.loads(json.dumps(first))


def test_stop_ends_a_run_after_enough_evaluations_in_a_row(data_root, tmp_path):
    spec = tiny_run(steps=4000, stop=StopSpec(patience=3), model=tiny_run().model.model_copy(update={"dropout": 0.0}))
    entry = train(spec, data_root, tmp_path / "run", code="c")
    rows = RowLog(tmp_path / "run" / "rows").collect()
    curve = rows[(rows.metric == "exact_match") & (rows.split == "train")].set_index("step")["value"]
    assert entry["stopped"] == "converged" and entry["steps"] < 4000
    assert list(curve.tail(3)) == [1, 1, 1] and curve.iloc[-4] < 1


def test_one_step_follows_the_gradient_of_the_mean_token_loss(data_root):
    """Oracle: the update written out with torch alone, over the padded batch."""
    from accelerate import Accelerator

    spec = tiny_run(model=tiny_run().model.model_copy(update={"dropout": 0.0}))
    items, _ = load_items(spec, data_root)
    batch = batch_at(0, len(items), spec.batch_size, spec.seed)
    ours, theirs = (models.build(spec.model, seed=1).train() for _ in range(2))
    optimizer = torch.optim.SGD(ours.parameters(), lr=1.0)  # Adam's first step is the sign of the gradient only
    loss, tokens = take_step(Accelerator(cpu=True), ours, optimizer, objective(spec), items, batch, spec)

    reference = torch.optim.SGD(theirs.parameters(), lr=1.0)
    total, count = 0, 0
    for i in batch:
        n = items.length[i]
        log_p = theirs(items.input_ids[i : i + 1, :n]).logits[0, :-1].log_softmax(-1)
        total = total - log_p[torch.arange(n - 1), items.input_ids[i, 1:n]].sum()
        count += n - 1
    (total / count).backward()
    reference.step()
    assert tokens == count
    torch.testing.assert_close(loss, (total / count).detach())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def objective(spec: RunSpec):
    from memorization.probes.scheduled import resolve
    from memorization.specs import objective_function

    return resolve(objective_function(spec.objective))


def test_every_epoch_sees_each_item_once_in_a_new_order():
    epochs = [np.concatenate([batch_at(e * 3 + b, 12, 5, seed=7) for b in range(3)]) for e in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [0.5, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.5]), ("cosine", [0.5, 1, 1, 0.5])]
)
def test_learning_rates_by_hand(schedule, expected):
    spec = OptimizerSpec(learning_rate=1.0, schedule=schedule, warmup=2)
    assert [learning_rate(spec, step, 12) for step in (0, 1, 2, 7)] == pytest.approx(expected)


def test_the_default_initial_weights_are_gpt2s_carried_to_the_width():
    model = models.build(tiny_run().model.model_copy(update={"width": 192, "layers": 2}), seed=0)
    assert model.transformer.h[0].attn.c_attn.weight.std().item() == pytest.approx(0.04, rel=0.02)


def test_a_frozen_embedding_never_changes(data_root, tmp_path):
    from safetensors.torch import save_file

    matrix = torch.randn(39, 16)
    root = tmp_path / "results"
    (root / "data").mkdir(parents=True)
    (root / "data" / "patterns").symlink_to(data_root / "data" / "patterns")
    save_file({"E16": matrix}, data_root / "data" / "patterns" / "embedding.safetensors")
    spec = tiny_run(model=tiny_run().model.model_copy(update={"embedding": "frozen"}))
    train(spec, root, tmp_path / "run", code="c")
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert torch.equal(weights["transformer.wte.weight"], matrix)
    assert models.load(tmp_path / "run" / "model").lm_head.weight.equal(matrix)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completion_length": 9}, "the shortest item leaves 5 tokens after its prompt, completion: 9 does not fit"),
        ({"model": tiny_run().model.model_copy(update={"positions": 8})}, "raise positions"),
        ({"data": tiny_run().data.model_copy(update={"validation": 99})}, "wants 99 validation items"),
    ],
)
def test_specs_that_do_not_fit_their_data_are_refused(data_root, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(tiny_run(**changes), data_root, tmp_path / "run", code="c")
