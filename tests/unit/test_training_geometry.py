"""Runs of all stages of `geometry`: kept models, starts, sets and models that are only measured, the same bytes."""

import json
import shutil
import signal
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from memorization.data import store
from memorization.errors import UserError
from memorization.models import build as models
from memorization.probes.scheduled import model_folder
from memorization.provenance.record import RowLog, sha256_file
from memorization.specs import DataPart, DataSpec, Initial, OptimizerSpec, PretrainedSpec, ProbeSpec
from memorization.training import __main__ as program
from memorization.training import loop
from memorization.training.items import load_items
from memorization.training.loop import Control, first_model, train
from tiny_geometry import (
    BASE,
    CHOICES,
    JUDGE,
    SIZES,
    capability_probe,
    decoder,
    geometry_group,
    make_geometry,
    parts,
    pretraining_run,
    representation_probe,
    revision_run,
    save_asset,
    tuned_run,
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


def kill_at(step: int, every: int = 2) -> Control:
    """A control that saves every few steps and ends the run without warning after `step`."""

    def after(now: int) -> None:
        if now == step:
            raise Killed

    return Control(after_step=after, save_every_steps=every)


def outcome(work):
    """(weights by folder, rows, item rows) of a finished run."""
    weights = {str(one.relative_to(work)): one.read_bytes() for one in sorted(work.rglob("model/**/model.safetensors"))}
    return weights, RowLog(work / "rows").collect().to_csv(), RowLog(work / "items").collect().to_csv()


def weights_in(folder):
    """Tensors of a model's file, by their names in the model."""
    tensors = load_file(folder / "model.safetensors")
    return {name.replace("embed_out", "lm_head"): value for name, value in tensors.items()}


def rows_of(work) -> pd.DataFrame:
    return RowLog(work / "rows").collect()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """(results folder with all sets, what was stored)."""
    root = tmp_path_factory.mktemp("geometry") / "results" / "test"
    return root, make_geometry(root)


@pytest.fixture
def root(stored, tmp_path):
    """A results folder of a test's own with the same sets."""
    own = tmp_path / "results" / "test"
    own.mkdir(parents=True)
    (own / "data").symlink_to(stored[0] / "data")
    return own


@pytest.fixture(scope="module")
def based(stored):
    """A results folder in whose job `work` the base is trained, and moved nowhere yet."""
    root, _ = stored
    train(pretraining_run(), root, root / "work" / BASE, code="c")
    return root


# ---- when probes are called


def test_a_probe_with_steps_is_due_at_exactly_these_and_at_the_last():
    probe = ProbeSpec(function="a:b", at=[0, 1, 3], every=2)
    assert [step for step in range(9) if probe.due(step, 8)] == [0, 1, 3, 8]
    assert [step for step in range(2) if probe.due(step, 1)] == [0, 1]
    assert [step for step in range(8) if ProbeSpec(function="a:b", every=3).due(step, 7)] == [0, 3, 6, 7]


def test_a_run_has_rows_of_the_steps_of_each_probe_and_of_no_other(based):
    rows = rows_of(based / "work" / BASE)
    steps = rows.groupby("metric")["step"].agg(lambda found: sorted(set(found))).to_dict()
    spectra, able = [0, 1, 3, 8], [0, 2, 8]
    names = {name: able for name in ("cross_entropy", "gradient_norm", "learning_rate", "recall", "choice_accuracy")}
    assert steps == {"rank_me": spectra, "alpha": spectra, "alpha_r2": spectra, **names}
    # the families at their own steps, the basic measurement at every one
    assert sorted(set(rows[rows["choice"] == "default"]["step"])) == spectra
    assert sorted(set(rows[rows["choice"] == "layer"]["step"])) == [0, 8]
    assert sorted(set(rows[rows["intervention"] == "drop_top"]["step"])) == [8]
    assert rows["value"].notna().all()


# ---- kept models


def test_a_kept_model_has_the_bytes_of_a_run_that_ends_at_its_step(based, tmp_path):
    for step in (3, 6):
        short = pretraining_run("short", steps=step, keep=[], probes=[])
        train(short, based, tmp_path / str(step), code="c")
        kept = based / "work" / BASE / "model" / f"step{step}"
        assert (kept / "model.safetensors").read_bytes() == (tmp_path / f"{step}/model/model.safetensors").read_bytes()
        model = models.load(kept, decoder())
        weights = weights_in(kept)
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    folders = sorted(one.name for one in (based / "work" / BASE / "model").iterdir() if one.is_dir())
    assert folders == ["step3", "step6"]


def test_a_model_may_be_kept_at_the_last_step_too(root, tmp_path):
    train(pretraining_run(steps=2, keep=[2], probes=[]), root, tmp_path / "run", code="c")
    weights, _, _ = outcome(tmp_path / "run")
    assert weights["model/model.safetensors"] == weights["model/step2/model.safetensors"]


@pytest.mark.parametrize("kills", [[1, 3], [5, 7]])
def test_a_killed_base_keeps_the_same_models_and_rows(based, tmp_path, kills):
    for step in kills:
        with pytest.raises(Killed):
            train(pretraining_run(), based, tmp_path / "run", code="c", control=kill_at(step))
    train(pretraining_run(), based, tmp_path / "run", code="c")
    assert outcome(tmp_path / "run") == outcome(based / "work" / BASE)


# ---- starts


def test_a_run_starts_with_the_weights_of_the_step_it_names(based):
    model = based / "work" / BASE / "model"
    for step, folder in ((3, model / "step3"), (6, model / "step6"), (None, model)):
        run = tuned_run(initial=Initial(run=BASE, step=step))
        weights = weights_in(folder)
        found = first_model(run, based, based / "work" / run.name).state_dict()
        assert set(found) == set(weights) and all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_step_that_was_not_kept_is_named(based):
    run = tuned_run(initial=Initial(run=BASE, step=4))
    with pytest.raises(UserError, match=r"no model in .*step4"):
        first_model(run, based, based / "work" / run.name)


def test_runs_of_a_job_are_found_beside_it_and_below_models_when_it_has_ended(based, tmp_path):
    """Starts and judges alike; the same bytes from either place."""
    job = tmp_path / "job"
    shutil.copytree(based / "work" / BASE, job / BASE)
    judge = tuned_run(name=JUDGE, formats=("short", "long"))
    train(judge, based, job / JUDGE, code="c")
    assert not (based / "models").exists()
    assert model_folder(BASE, based, job / "other") == job / BASE / "model"
    run = tuned_run(judge=JUDGE)
    train(run, based, job / run.name, code="c")
    scores = RowLog(job / run.name / "items").collect()
    scores = scores[scores["metric"] == "judge_score"]
    assert len(scores) == SIZES["long"]["validation"] and set(scores["step"]) == {6} and (scores["value"] < 0).all()

    ended = tmp_path / "ended"
    (ended / "models").mkdir(parents=True)
    (ended / "data").symlink_to(based / "data")
    for name in (BASE, JUDGE):
        (job / name / "model").rename(ended / "models" / name)
    assert model_folder(BASE, ended, job / "other") == ended / "models" / BASE
    train(run, ended, tmp_path / "later" / run.name, code="c")
    assert outcome(tmp_path / "later" / run.name) == outcome(job / run.name)


# ---- items


def test_measured_sets_follow_in_order_with_their_questions(stored):
    root, made = stored
    names = ["facts", "text", "continuations"]
    sets = [DataPart(set=name, folder=name, items=4, first=k) for k, name in enumerate(names)]
    run = pretraining_run(data=DataSpec(parts=parts("text"), validation=3, measured=sets))
    items, validation = load_items(run, root)
    held_out = made["text", "validation"][:3]
    wanted = [*held_out, *(row for k, name in enumerate(names) for row in made[name, "validation"][k : k + 4])]
    assert validation.subset.tolist() == ["text"] * 3 + [name for name in names for _ in range(4)]
    assert validation.prompt.tolist() == [row["prompt_length"] for row in wanted]
    assert validation.answer_length().tolist() == [row["completion_length"] for row in wanted]
    assert validation.distractors == [row.get("distractors", []) for row in wanted]
    for k, row in enumerate(wanted):
        rest = validation.input_ids.shape[1] - row["length"]
        assert validation.input_ids[k].tolist() == row["input_ids"] + [0] * rest
        assert validation.labels[k].tolist() == row["input_ids"] + [-100] * rest
    some = validation.only(["continuations"])
    assert some.distractors == validation.distractors[-4:] and len(some.distractors[0]) == CHOICES - 1
    assert some.answer_length().tolist() == validation.answer_length()[-4:].tolist()
    assert len(items) == SIZES["text"]["train"] and set(items.subset) == {"text"} and items.distractors is None


def test_rejected_replies_are_padded_on_their_own(stored):
    root, made = stored
    items, validation = load_items(tuned_run("dpo"), root)
    rejected = [row["rejected_ids"] for row in made["preferences", "train"]]
    assert items.rejected_length.tolist() == [len(one) for one in rejected] and len(set(map(len, rejected))) == 2
    assert validation.rejected is None
    for rows in (np.array([0, 3]), np.array([2])):  # of two lengths, and a short one alone
        batch = items.batch(rows)
        width = max(len(rejected[k]) for k in rows)
        for row, k in enumerate(rows):
            rest = width - len(rejected[k])
            assert batch["rejected_ids"][row].tolist() == rejected[k] + [0] * rest
            assert batch["rejected_labels"][row].tolist() == rejected[k] + [-100] * rest
            assert batch["prompt"][row] == 3


# ---- models that are only measured


@pytest.mark.parametrize("half", [True, False])
def test_half_keeps_a_public_checkpoint_as_it_is_stored(root, half):
    saved = save_asset(root)
    model = first_model(revision_run(model=PretrainedSpec(asset="tiny_step5", parameters=1000, half=half)), root)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16 if half else torch.float32}
    for mine, theirs in zip(model.state_dict().values(), saved.state_dict().values(), strict=True):
        assert torch.equal(mine.float(), theirs.float())


def test_a_run_without_steps_measures_once_and_saves_nothing(root, tmp_path):
    save_asset(root)
    run = revision_run()
    entry = train(run, root, tmp_path / "run", code="c")
    rows, items = rows_of(tmp_path / "run"), RowLog(tmp_path / "run" / "items").collect()
    assert set(rows["step"]) == {0} == set(items["step"]) and np.isfinite(rows["value"]).all()
    assert not {"gradient_norm", "learning_rate"} & set(rows["metric"])
    assert {"drop_top", "keep_top", "none"} <= set(rows["intervention"].dropna())
    assert entry["steps"] == 0 and entry["sha256"] == ""
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert train(run, root, tmp_path / "run", code="c") == json.loads(json.dumps(entry)), "finished: it is kept"


def test_half_and_whole_measurements_agree(root, tmp_path):
    """The weights are the same numbers, so what is measured differs by the rounding of activations only."""
    save_asset(root)
    found = {}
    for half in (True, False):
        run = revision_run(model=PretrainedSpec(asset="tiny_step5", parameters=1000, half=half))
        train(run, root, tmp_path / str(half), code="c")
        rows = rows_of(tmp_path / str(half))
        found[half] = rows[rows["metric"].isin(["rank_me", "cross_entropy"])]["value"].to_numpy()
    np.testing.assert_allclose(found[True], found[False], rtol=0.02)
    assert (found[True] != found[False]).any()


# ---- post-training goes on to the same bytes


@pytest.fixture(scope="module")
def undisturbed(based, tmp_path_factory):
    """Outcome of each stage without a stop, by stage."""
    work = tmp_path_factory.mktemp("undisturbed")
    (work / BASE).symlink_to(based / "work" / BASE)
    for stage in ("sft", "dpo", "grpo"):
        train(tuned_run(stage), based, work / stage, code="c")
    return {stage: outcome(work / stage) for stage in ("sft", "dpo", "grpo")}


@pytest.mark.parametrize("kills", [[1, 3], [5]])
@pytest.mark.parametrize("stage", ["dpo", "grpo"])
def test_killed_post_training_goes_on_to_the_same_bytes(based, tmp_path, undisturbed, stage, kills):
    """What dpo and grpo compare with is the first model, whichever state they go on from."""
    (tmp_path / BASE).symlink_to(based / "work" / BASE)
    for step in kills:
        with pytest.raises(Killed):
            train(tuned_run(stage), based, tmp_path / "run", code="c", control=kill_at(step))
    train(tuned_run(stage), based, tmp_path / "run", code="c")
    assert outcome(tmp_path / "run") == undisturbed[stage]


def test_the_stages_train_different_models(undisturbed):
    assert len({one[0]["model/model.safetensors"] for one in undisturbed.values()}) == 3


def test_the_reference_stays_what_it_was_in_mixed_precision_too(based):
    run = tuned_run("dpo", precision="bfloat16")
    accelerator = loop.make_accelerator(run)
    model = accelerator.prepare(first_model(run, based, based / "work" / run.name))
    reference = loop.make_objective(run, accelerator.unwrap_model(model)).keywords["reference"]
    ids = torch.arange(8)[None]
    with torch.no_grad():
        before = reference(input_ids=ids).logits
        for weight in model.parameters():
            weight.add_(1.0)
        assert torch.equal(reference(input_ids=ids).logits, before)
        assert not torch.equal(model(input_ids=ids).logits, before)
    assert not reference.training and not any(p.requires_grad for p in reference.parameters())


# ---- the program


@pytest.fixture
def signals():
    """The program takes over two signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def job(root, folder, group):
    """Run the training program on a group; returns (metrics, items, manifest)."""
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(group.model_dump_json())
    places = {"--spec": "spec.json", "--work": "work", "--metrics": "metrics.parquet", "--items": "items.parquet"}
    places["--manifest"] = "manifest.json"
    program.main([*(part for key, name in places.items() for part in (key, str(folder / name))), "--root", str(root)])
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("metrics", "items")]
    return *tables, json.loads((folder / "manifest.json").read_text())


def chain():
    """Base, judge, and sft -> dpo -> grpo, each from the last model of the one before."""
    sft, dpo, grpo = (f"geometry-{stage}-s0" for stage in ("sft", "dpo", "grpo"))
    return geometry_group(
        pretraining_run(probes=[capability_probe([0]), representation_probe([0])]),
        tuned_run(name=JUDGE, formats=("short", "long")),
        tuned_run(judge=JUDGE),
        tuned_run("dpo", initial=Initial(run=sft), labels={**tuned_run("dpo").labels, "start": "sft"}),
        tuned_run("grpo", initial=Initial(run=dpo), labels={**tuned_run("grpo").labels, "start": "dpo"}),
    ), (BASE, JUDGE, sft, dpo, grpo)


def weights_below(root):
    return {str(one.relative_to(root)): sha256_file(one) for one in sorted(root.rglob("model.safetensors"))}


def test_one_job_trains_the_whole_chain_and_again_to_the_same_end(root, tmp_path, signals, monkeypatch):
    group, names = chain()
    metrics, items, manifest = job(root, tmp_path / "job", group)
    made = weights_below(root / "models")
    assert set(made) == {
        *(f"{name}/model.safetensors" for name in names),
        *(f"{BASE}/step{step}/model.safetensors" for step in (3, 6)),
    }
    assert {name: manifest["runs"][name]["sha256"] for name in names} == {
        name: made[f"{name}/model.safetensors"] for name in names
    }
    assert not (tmp_path / "job" / "work").exists()
    about = metrics.groupby("run")[["stage", "start", "experiment", "variant", "width"]].agg(set).to_dict("index")
    stages = dict(zip(names, ("pretraining", "sft", "sft", "dpo", "grpo"), strict=True))
    starts = dict(zip(names, ("", "base", "base", "sft", "dpo"), strict=True))
    for name in names:
        assert about[name] == {
            "stage": {stages[name]}, "start": {starts[name]}, "experiment": {"main"}, "variant": {"base"}, "width": {8}
        }  # fmt: skip
    assert (metrics["revision"] == "step" + metrics["step"].astype(str)).all()
    # a stage begins where the one before has ended: the same model, measured on the same sequences
    for before, after in pairwise(names[2:]):
        ends = []
        for name, step in ((before, 6), (after, 0)):
            mine = metrics[(metrics["run"] == name) & (metrics["step"] == step) & metrics["metric"].ne("pass_at_k")]
            ends.append(mine[["subset", "metric", "choice", "value"]].reset_index(drop=True))
        pd.testing.assert_frame_equal(*ends)
    judged = items[items["metric"] == "judge_score"]
    assert set(judged["run"]) == {"geometry-sft-s0"} and len(judged) == SIZES["long"]["validation"]
    resamples = items[items["metric"] == "rank_me_resample"]
    assert resamples.groupby("run").size().to_dict() == {BASE: 6} | {name: 9 for name in names[1:]}

    (tmp_path / "job" / "manifest.json").unlink()
    again = job(root, tmp_path / "job", group)
    pd.testing.assert_frame_equal(again[0], metrics)
    pd.testing.assert_frame_equal(again[1], items)
    assert weights_below(root / "models") == made
    assert {name: run["sha256"] for name, run in again[2]["runs"].items()} == {
        name: run["sha256"] for name, run in manifest["runs"].items()
    }


def test_a_job_killed_while_it_moves_its_models_only_has_to_write_its_tables(root, tmp_path, signals, monkeypatch):
    base = pretraining_run(steps=3, keep=[2], probes=[capability_probe([0])])
    group = geometry_group(base, tuned_run(initial=Initial(run=BASE, step=2), steps=2))

    def killed(*arguments: object) -> None:
        raise Killed

    monkeypatch.setattr(program, "write_table", killed)
    with pytest.raises(Killed):
        job(root, tmp_path / "job", group)
    made = weights_below(root / "models")
    assert len(made) == 3
    monkeypatch.undo()
    monkeypatch.setattr(loop, "take_step", None)  # would fail if it trained again
    metrics, _, manifest = job(root, tmp_path / "job", group)
    assert set(metrics["run"]) == set(manifest["runs"]) == {BASE, "geometry-sft-s0"}
    assert weights_below(root / "models") == made


def test_a_job_of_a_public_checkpoint_has_rows_and_a_manifest_but_no_model(root, tmp_path, signals):
    save_asset(root)
    run = revision_run()
    metrics, items, manifest = job(root, tmp_path / "job", geometry_group(run))
    assert set(metrics["step"]) == {0} and set(metrics["revision"]) == {"step0"} and set(metrics["items"]) == {0}
    assert set(metrics["base_tokens"]) == {700} and set(metrics["parameters"]) == {1000}
    scored = items[items["metric"] == "answer_log_likelihood"].groupby("subset").size().to_dict()
    assert scored == {name: SIZES[name]["validation"] for name in ("facts", "continuations")}
    entry = manifest["runs"][run.name]
    assert entry["steps"] == 0 and entry["sha256"] == "" and entry["spec"]["model"]["asset"] == "tiny_step5"
    assert not list((root / "models").rglob("*.safetensors"))


# ---- bad input


def test_damaged_public_weights_are_one_sentence(root, tmp_path):
    model = save_asset(root)
    with torch.no_grad():
        model.gpt_neox.layers[0].mlp.dense_4h_to_h.weight[0, 0] = float("nan")
    models.save(model, root.parent / "assets" / "tiny_step5")
    sentences = {
        "representations": "geometry-tiny_step5: representations are NaN or infinite at step 0, so the weights it",
        "capabilities": "geometry-tiny_step5: the loss of text is NaN or infinite at step 0, so the weights it starts",
    }
    for probe in revision_run().probes:
        with pytest.raises(UserError, match=sentences[probe.function.split(":")[1]]):
            train(revision_run(probes=[probe]), root, tmp_path / "run", code="c")


def test_training_that_diverges_is_one_sentence(root, tmp_path):
    run = pretraining_run(optimizer=OptimizerSpec(name="adamw", learning_rate=1e30), keep=[])
    with pytest.raises(UserError, match=r"NaN or infinite at step [12], so training has diverged: write a smaller"):
        train(run, root, tmp_path / "run", code="c")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_items_without_tokens_are_refused(tmp_path, split):
    """All of them, or one among others."""
    root = tmp_path / "results" / "test"
    whole = [store.row(k, "", [1, 2, 3], 0, 0) for k in range(4)]
    for folder, rows in (("empty", [store.row(k, "", [], 0, 0) for k in range(4)]), ("mixed", [*whole])):
        rows[2] = store.row(2, "", [], 0, 0)
        splits = {"train": whole, "validation": whole, split: rows}
        store.save(root / "data" / "geometry" / folder / "dataset" / "0", splits, {"name": folder})
        part = DataPart(set="text", folder=folder, items=4)
        with pytest.raises(UserError, match=f"the {split} items of text hold one without tokens: delete its folder"):
            load_items(pretraining_run(data=DataSpec(parts=[part], measured=[part])), root)


def test_measured_items_longer_than_the_model_are_refused(stored):
    root, _ = stored
    longest = max(len(row["input_ids"]) for row in stored[1]["continuations", "validation"])
    data = DataSpec(parts=parts("short"), measured=parts("continuations", split="validation"))
    load_items(pretraining_run(model=decoder(positions=longest), data=data), root)
    with pytest.raises(UserError, match=f"the longest item has {longest} tokens, the model {longest - 1} positions"):
        load_items(pretraining_run(model=decoder(positions=longest - 1), data=data), root)


def test_an_asset_without_safetensors_is_named(root, tmp_path):
    folder = root.parent / "assets" / "tiny_step5"
    save_asset(root)
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"^tiny_step5: .* lacks the safetensors weights model.safetensors: .*pickled"):
        train(revision_run(), root, tmp_path / "run", code="c")
    # in pieces, of which one is not there
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "pytorch_model.bin").rename(folder / names["a"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(UserError, match=r"lacks the safetensors weights model-00002-of-00002.safetensors: delete"):
        train(revision_run(), root, tmp_path / "run", code="c")


def test_weights_in_pieces_are_read(root, tmp_path):
    """What a large checkpoint looks like."""
    saved = save_asset(root)
    folder = root.parent / "assets" / "tiny_step5"
    shutil.rmtree(folder)
    saved.save_pretrained(folder, max_shard_size="2KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    found = first_model(revision_run(), root).state_dict()
    assert all(torch.equal(found[name], value) for name, value in saved.state_dict().items())
