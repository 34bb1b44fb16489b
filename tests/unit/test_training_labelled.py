"""Runs on labelled items: what is loaded, what is measured, what a run starts from, and the same bytes after a stop."""

import json
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from norm_models import randomize
from safetensors.torch import load_file

from memorization.errors import UserError
from memorization.models import build as models
from memorization.models.norms import find_norms, refreeze_norms, strip_norm_parameters
from memorization.provenance.record import RowLog
from memorization.specs import GroupSpec, Initial, ModelSpec, NoiseSpec, OptimizerSpec, VisionSpec
from memorization.training.__main__ import main
from memorization.training.items import load_items
from memorization.training.loop import Control, first_model, train
from tiny_labelled import (
    CLASSES,
    LONGEST,
    MASK,
    OTHER_PAD,
    TRAIN,
    VALIDATION,
    WORDS,
    gradients_probe,
    image_pretraining_run,
    image_run,
    label_of,
    labelled_data,
    labelled_run,
    make_labelled,
    pretraining_run,
    text_model,
    vision_model,
    word_run,
)

RIGHT = {"train": [label_of(k) for k in range(TRAIN)], "validation": [label_of(k) for k in range(VALIDATION)]}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """(results folder with labelled sets, what was stored)."""
    root = tmp_path_factory.mktemp("labelled") / "results"
    return root, make_labelled(root)


@pytest.fixture(scope="module")
def pretrained(stored):
    """The same folder with the first stages trained: text_pre, text_post and digits_pre."""
    root, _ = stored
    runs = [pretraining_run(), pretraining_run("text_post-pretrained-s0", "openai_gpt"), image_pretraining_run()]
    for run in runs:
        train(run, root, root / "work" / run.name, code="c")
        (root / "models").mkdir(exist_ok=True)
        (root / "work" / run.name / "model").rename(root / "models" / run.name)
    return root


def measured(work) -> pd.DataFrame:
    return RowLog(work / "rows").collect()


# ---- items


def test_only_training_labels_are_wrong_and_only_those_of_one_class(stored):
    train_items, validation = load_items(labelled_run(), stored[0])
    assert train_items.truth.tolist() == RIGHT["train"] and validation.truth.tolist() == RIGHT["validation"]
    assert validation.target.tolist() == RIGHT["validation"] and not len(validation.noisy())
    noisy = train_items.noisy()
    assert len(noisy) == 4 and set(train_items.truth[noisy]) == {2}
    wrong = np.flatnonzero(train_items.target.numpy() != np.array(RIGHT["train"]))
    assert wrong.tolist() == noisy.tolist() and set(train_items.target.numpy()[noisy]) <= {0, 1}
    clean, _ = load_items(labelled_run(data=labelled_data(noise=None)), stored[0])
    assert clean.target.tolist() == RIGHT["train"] and not len(clean.noisy())


def test_the_same_items_are_wrong_in_all_arms_and_forms_and_others_for_another_seed(stored):
    runs = [
        labelled_run(),
        labelled_run(strip="all", seed=5, steps=3),
        labelled_run(data=labelled_data("texts_padded")),
        labelled_run(data=labelled_data(form="masked_word")),
        word_run(),
        image_run(),  # labelled in the same order here
    ]
    targets = [load_items(run, stored[0])[0].target.tolist() for run in runs]
    assert all(one == targets[0] for one in targets)
    other, _ = load_items(labelled_run(data=labelled_data(seed=1)), stored[0])
    assert other.truth.tolist() == RIGHT["train"] and other.target.tolist() != targets[0]
    wording = NoiseSpec(share=0.5, source_class=2, wording="class")
    half, _ = load_items(labelled_run(data=labelled_data(noise=wording)), stored[0])
    assert len(half.noisy()) == 3  # of 6


def test_a_run_reads_the_first_items_of_its_seed(stored):
    root, made = stored
    for seed in (0, 1):
        run = labelled_run(data=labelled_data(seed=seed, items=13, validation=4, noise=None))
        loaded = load_items(run, root)
        for items, number in zip(loaded, (13, 4), strict=True):
            ids = [items.input_ids[k, : items.length[k]].tolist() for k in range(len(items))]
            assert ids == made["texts", seed, items.split][:number] and set(items.subset) == {"texts"}


@pytest.mark.parametrize("form", ["classifier", "masked_word", "causal_word"])
def test_what_stands_behind_a_text_and_what_is_its_label(stored, form):
    root, made = stored
    for items in load_items(labelled_run(data=labelled_data(form=form)), root):
        for k, ids in enumerate(made["texts", 0, items.split]):
            word = WORDS + int(items.target[k])  # of training items the noisy one
            wanted = {"classifier": ids, "masked_word": [*ids, MASK], "causal_word": [*ids, word]}[form]
            length = items.length[k]
            assert items.input_ids[k, :length].tolist() == wanted
            padding = [-100] * (items.labels.shape[1] - length)
            inside = ids if form == "classifier" else [*[-100] * len(ids), word]
            assert items.labels[k].tolist() == inside + padding
        assert items.words.tolist() == [WORDS, WORDS + 1, WORDS + 2]


def test_the_padding_is_that_of_the_card_and_models_are_told(stored, tmp_path):
    run = labelled_run(data=labelled_data("texts_padded"), steps=1, probes=[])
    for items in load_items(run, stored[0]):
        behind = torch.arange(items.input_ids.shape[1])[None] >= torch.from_numpy(items.length)[:, None]
        assert (items.input_ids[behind] == OTHER_PAD).all() and (items.input_ids[~behind] != OTHER_PAD).all()
        rows = np.array([int(items.length.argmin()), int(items.length.argmin())])
        batch = items.batch(rows)
        assert batch["attention_mask"].all() and batch["input_ids"].shape == (2, items.length.min())
        whole = items.batch(np.arange(len(items)))
        assert torch.equal(whole["attention_mask"] == 0, behind[:, : int(items.length.max())])
    train(run, stored[0], tmp_path, code="c")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["pad_token_id"] == OTHER_PAD


def test_images_are_the_stored_pixels_or_scaled_to_what_a_model_takes(stored):
    root, made = stored
    for items in load_items(image_run(), root):
        wanted = np.stack(made["images", 0, items.split])[:, None]
        assert items.pixels.dtype == torch.uint8 and np.array_equal(items.pixels.numpy(), wanted)
        assert set(items.batch(np.array([1, 0]))) == {"pixels", "target"}
        assert np.array_equal(items.batch(np.array([1, 0]))["pixels"].numpy(), wanted[[1, 0]])
    large, _ = load_items(image_run(data=labelled_data("images", label={"image": 16, "channels": 3})), root)
    assert large.pixels.shape == (TRAIN, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(large.pixels.float(), 2)[:, 0]
    assert np.corrcoef(small.flatten(), np.stack(made["images", 0, "train"]).ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (labelled_data(label={"classes": 4}), "has 3 classes, not 4: delete it"),
        (labelled_data(items=21), "tuned wants 21 train items of texts, .* holds 20: delete that folder"),
        (labelled_data(validation=10), "tuned wants 10 validation items of texts, .* holds 9: delete that folder"),
        (labelled_data(noise=NoiseSpec(share=0.5, source_class=2)), "class 2 has 6 items, too few to mislabel 10"),
        (labelled_data("images", items=99), "wants 99 train items of images, .* holds 20"),
    ],
)
def test_data_that_do_not_fit_are_refused(stored, data, message):
    with pytest.raises(UserError, match=message):
        load_items(labelled_run(data=data), stored[0])


def test_texts_longer_than_the_model_are_refused(stored):
    with pytest.raises(UserError, match=f"has {LONGEST + 1} tokens, the model {LONGEST} positions: raise positions"):
        load_items(word_run(model=text_model(head="language_model", positions=LONGEST)), stored[0])


# ---- what a run starts from


def tuned(name: str, base: str, **changes):
    """Fine-tuning from a first stage, `name` an arm."""
    make = {"text_pre": labelled_run, "text_post": labelled_run, "digits_pre": image_run}[base]
    model = {} if base != "text_post" else {"model": text_model("openai_gpt")}
    return make(name, model_name=base, initial=Initial(run=f"{base}-pretrained-s0"), strip=name, **{**model, **changes})


BASES = ["text_pre", "text_post", "digits_pre"]
LAYER_NORMS = {"all": {0, 1, 2, -1}, "early": {0}, "middle": {1}, "late": {2}, "none": set()}


def layer_of_norm(name: str) -> int:
    parts = [int(part) for part in name.split(".") if part.isdigit()]
    return parts[0] if parts else -1


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("arm", ["none", "all", "middle"])
def test_a_run_starts_with_the_body_of_the_first_stage_a_new_head_and_stripped_norms(pretrained, base, arm):
    run = tuned(arm, base)
    spec = run.model if base == "digits_pre" else text_model(run.model.architecture, "language_model")
    weights = models.load(pretrained / "models" / f"{base}-pretrained-s0", spec).state_dict()
    torch.manual_seed(77)  # what came before must not matter
    model = first_model(run, pretrained)
    head = {"digits_pre": {"classifier.weight", "classifier.bias"}}.get(base, {"score.weight"})
    state = model.state_dict()
    assert set(state) - set(weights) <= head and set(weights) - set(state) <= {"lm_head.weight"}
    for name, value in state.items():
        norm = ".ln_" in name or "layernorm" in name
        if name in head:
            continue
        if norm and layer_of_norm(name) in LAYER_NORMS[arm]:
            assert (value == float(name.endswith("weight"))).all() and not model.get_parameter(name).requires_grad
        else:
            assert torch.equal(value, weights[name]) and model.get_parameter(name).requires_grad
    assert any((weights[name] - 1).abs().max() > 0.05 for name in state if ".ln_" in name or "layernorm" in name)
    if base == "digits_pre":
        assert (state["classifier.weight"] != weights["classifier.weight"]).all() and not state["classifier.bias"].any()
        assert weights["classifier.bias"].any()
    first = state[min(head, key=len) if base != "digits_pre" else "classifier.weight"]
    assert float(first.std()) == pytest.approx(model.config.initializer_range, rel=0.4)
    again, other = first_model(run, pretrained), first_model(run.model_copy(update={"seed": 1}), pretrained)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    different = {name for name, value in state.items() if not torch.equal(value, other.state_dict()[name])}
    assert different == head - {"classifier.bias"}


def test_the_next_token_form_keeps_the_head_of_the_first_stage(pretrained):
    run = word_run(initial=Initial(run="text_pre-pretrained-s0"), strip="all")
    model = first_model(run, pretrained)
    weights = load_file(pretrained / "models" / "text_pre-pretrained-s0" / "model.safetensors")
    assert torch.equal(model.lm_head.weight, weights["transformer.wte.weight"])
    assert model.lm_head.weight is model.transformer.wte.weight and model.lm_head.weight.requires_grad


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("arm", ["all", "early", "late"])
def test_after_training_stripped_norms_are_1_and_0_and_all_else_has_moved(pretrained, tmp_path, base, arm):
    run = tuned(arm, base, steps=3)
    before = {name: value.clone() for name, value in first_model(run, pretrained).state_dict().items()}
    train(run, pretrained, tmp_path, code="c")
    after = models.load(tmp_path / "model", run.model).state_dict()
    assert set(after) == set(before)
    for name, value in after.items():
        norm = ".ln_" in name or "layernorm" in name
        if norm and layer_of_norm(name) in LAYER_NORMS[arm]:
            assert (value == float(name.endswith("weight"))).all(), name
        else:
            assert (value != before[name]).any(), name
    rows = measured(tmp_path)
    last = rows[(rows["step"] == 3) & rows["metric"].isin(["gain_moved", "bias_moved"])]
    assert (last.set_index("layer")["value"] == 0).groupby("layer").all().to_dict() == {
        layer: layer in LAYER_NORMS[arm] for layer in last["layer"].unique()
    }
    loaded = models.load(tmp_path / "model", run.model)
    report = refreeze_norms(loaded)
    frozen = {name for name, p in loaded.named_parameters() if not p.requires_grad}
    assert report.which == arm and len(frozen) == 2 * len(report.names)


def test_a_missing_first_stage_says_what_to_do(stored, tmp_path):
    with pytest.raises(UserError, match=r"no model in .*nowhere: run the training job that makes it first"):
        train(labelled_run(initial=Initial(run="nowhere")), stored[0], tmp_path, code="c")


# ---- a stop


class Killed(BaseException):
    """Stands for SIGKILL."""


def outcome(work):
    rows, items = RowLog(work / "rows").collect(), RowLog(work / "items").collect()
    return (work / "model" / "model.safetensors").read_bytes(), rows.to_csv(), items.to_csv()


MUON = OptimizerSpec(name="muon", learning_rate=0.01, weight_decay=0.01, norm_rate=3.0, schedule="cosine", warmup=2)


@pytest.mark.parametrize(
    "run",
    [
        tuned("early", "text_pre", optimizer=MUON, probes=[*labelled_run().probes, gradients_probe(6)]),
        tuned("all", "digits_pre", optimizer=MUON),
        tuned("all", "text_post", model=text_model("openai_gpt", dropout=0.2)),
        pretraining_run("pre", model=text_model("gpt2", "language_model", dropout=0.1)),
        pretraining_run("post", "openai_gpt"),
        word_run("word-all", initial=Initial(run="text_pre-pretrained-s0"), strip="all", optimizer=MUON),
    ],
    ids=lambda run: f"{run.name}-{run.model.architecture}",
)
def test_a_killed_run_ends_in_the_same_bytes(pretrained, tmp_path, run):
    """Stripped norms stay fixed, Muon's momenta come back, and the share of tokens is drawn as it would have been."""
    train(run, pretrained, tmp_path / "whole", code="c")
    for step in (4, 8):

        def after(now: int, step: int = step) -> None:
            if now == step:
                raise Killed

        with pytest.raises(Killed):
            control = Control(after_step=after, save_every_steps=3)
            train(run, pretrained, tmp_path / "killed", code="c", control=control)
        torch.manual_seed(step)
    train(run, pretrained, tmp_path / "killed", code="c")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_muon_and_adamw_train_other_models(pretrained, tmp_path):
    for name, optimizer in (("muon", MUON), ("adamw", MUON.model_copy(update={"name": "adamw"}))):
        train(tuned("none", "text_pre", optimizer=optimizer, steps=2), pretrained, tmp_path / name, code="c")
    assert outcome(tmp_path / "muon")[0] != outcome(tmp_path / "adamw")[0]


# ---- a job


@pytest.fixture
def signals():
    """`main` takes over the signals of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def job(root, folder, group: GroupSpec) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the training program on a group; returns its tables."""
    folder.mkdir()
    (folder / "spec.json").write_text(group.model_dump_json())
    places = {"--spec": "spec.json", "--work": "work", "--metrics": "metrics.parquet", "--items": "items.parquet"}
    places["--manifest"] = "manifest.json"
    main([*(part for key, name in places.items() for part in (key, str(folder / name))), "--root", str(root)])
    return pd.read_parquet(folder / "metrics.parquet"), pd.read_parquet(folder / "items.parquet")


def test_jobs_write_every_row_with_the_labels_of_its_run(stored, tmp_path, signals):
    """A job of the first stage, then one that goes on from its model."""
    root = tmp_path / "results"
    root.mkdir()
    (root / "data").symlink_to(stored[0] / "data")
    first = GroupSpec(group="first", paper="layernorm", scale="test", runs=[pretraining_run()], experiments=["one"])
    metrics, items = job(root, tmp_path / "first", first)
    assert (root / "models" / "text_pre-pretrained-s0" / "model.safetensors").is_file() and not len(items)
    assert set(metrics["stage"]) == {"pretraining"} and set(metrics["noise"]) == {0.0}
    assert metrics.groupby("metric")["step"].unique().map(list).to_dict() == {
        "bias_moved": [0, 5, 10], "cross_entropy": [0, 5, 10], "gain_moved": [0, 5, 10], "unigram_entropy": [0],
        "word_accuracy": [0, 5, 10],
    }  # fmt: skip

    labels = {"position": "pre", "noise": 0.2, "optimizer": "adamw", "form": "classifier", "start": "pretrained"}
    labels |= {"budget": 2, "stage": "fine_tuning"}
    runs = [
        tuned(arm, "text_pre", labels={**labels, "arm": arm}, probes=[*labelled_run().probes, *more])
        for arm, more in (("none", [gradients_probe(6)]), ("all", []))
    ]
    assert GroupSpec.model_validate_json(first.model_dump_json()) == first
    second = GroupSpec(group="second", paper="layernorm", scale="test", runs=runs, experiments=["main", "noise"])
    assert GroupSpec.model_validate_json(second.model_dump_json()) == second
    metrics, items = job(root, tmp_path / "second", second)
    for run, experiment in zip(runs, ("main", "noise"), strict=True):
        mine = metrics[metrics["run"] == run.name]
        wanted = {
            "paper": "layernorm", "experiment": experiment, "scale": "test", "model": "text_pre", "seed": 0,
            "data": "texts", "items": TRAIN, "batch_size": 8, "parameters": 12 * 3 * 16**2, **run.labels,
        }  # fmt: skip
        for column, value in wanted.items():
            assert mine[column].unique().tolist() == [value], column
        assert sorted(mine["step"].unique()) == [0, 6, 12] and (mine["epoch"] == mine["step"] / 3).all()
        assert (mine["revision"] == "step" + mine["step"].astype(str)).all()
        fate = mine[mine["subset"] == "noisy"].pivot_table(index="step", columns="metric", values="value")
        assert (fate[["memorization", "recovery", "random"]].sum(axis=1) == 1).all()
    gradients = metrics["metric"].str.startswith("gradient_")
    assert set(metrics[gradients]["run"]) == {"none"} and gradients.sum() == 3 * 24
    assert metrics[gradients][["layer", "role", "definition"]].notna().all(axis=None)
    assert metrics[~gradients]["definition"].isna().all()
    moved = metrics["metric"].str.endswith("_moved")
    assert (metrics["layer"].notna() == (gradients | moved)).all()
    assert metrics[moved & (metrics["run"] == "all")]["value"].eq(0).all()
    assert metrics[moved & (metrics["run"] == "none")]["value"].gt(0).all()
    assert set(items["metric"]) == {"prediction", "label", "true_label"} and set(items["split"]) == {"train"}
    wrong = items.groupby("run")["item"].unique().map(sorted)
    assert wrong["none"] == wrong["all"] and len(wrong["all"]) == 4
    assert items[items["metric"] == "prediction"].groupby(["run", "step"]).size().eq(4).all()
    entry = json.loads((tmp_path / "second" / "manifest.json").read_text())["runs"]
    assert {name: one["spec"]["strip"] for name, one in entry.items()} == {"none": "none", "all": "all"}


# ---- models


def test_classes_of_the_architectures():
    kinds = {
        "GPT2LMHeadModel": text_model("gpt2", "language_model"),
        "OpenAIGPTLMHeadModel": text_model("openai_gpt", "language_model"),
        "GPT2ForSequenceClassification": text_model("gpt2"),
        "OpenAIGPTForSequenceClassification": text_model("openai_gpt"),
        "ViTForImageClassification": vision_model(),
    }
    for name, spec in kinds.items():
        model = models.build(spec, seed=0)
        assert type(model).__name__ == name
        matrices = [p for one, p in model.named_parameters() if p.ndim == 2 and (".h." in one or ".layers." in one)]
        assert sum(p.numel() for p in matrices) == spec.parameters
        if spec.head == "classification":
            assert model.config.num_labels == CLASSES
        inside = [(norm.layer, norm.role) for norm in find_norms(model) if norm.layer is not None]
        assert inside == [(layer, role) for layer in range(3) for role in ("attention", "feed_forward")]
        outside = [norm.role for norm in find_norms(model) if norm.layer is None]
        assert outside == ([] if "OpenAI" in name else ["final"])


@pytest.mark.parametrize(("architecture", "normalized"), [("openai_gpt", True), ("gpt2", False)])
def test_only_blocks_of_the_post_ln_twin_end_in_a_norm(architecture, normalized):
    model = models.build(text_model(architecture, initializer_std=0.3), seed=0).eval()
    with torch.no_grad():
        hidden = model.transformer(torch.tensor([[1, 5, 9, 2]]), output_hidden_states=True).hidden_states[1]
    spread = hidden.std(-1, correction=0)
    assert bool(torch.allclose(spread, torch.ones_like(spread), atol=1e-3)) == normalized


@pytest.mark.parametrize("architecture", ["gpt2", "openai_gpt"])
def test_a_language_model_loads_as_a_classifier_and_back_as_itself(tmp_path, architecture):
    first = models.build(text_model(architecture, "language_model"), seed=0).eval()
    models.save(first, tmp_path)
    ids = torch.tensor([[1, 5, 9, 2]])
    again = models.load(tmp_path, text_model(architecture, "language_model")).eval()
    classifier = models.load(tmp_path, text_model(architecture)).eval()
    with torch.no_grad():
        assert torch.equal(first(ids).logits, again(ids).logits)
        assert torch.equal(first(ids).logits, models.load(tmp_path).eval()(ids).logits)
        bodies = [model.transformer(ids).last_hidden_state for model in (first, classifier)]
    assert torch.equal(*bodies) and classifier.score.weight.shape == (CLASSES, 16)


def test_an_image_classifier_loads_with_its_head_or_a_new_one(tmp_path):
    first = models.build(vision_model(), seed=0)
    with torch.no_grad():
        first.classifier.bias.fill_(2.0)
    models.save(first, tmp_path)
    same, new = models.load(tmp_path, vision_model()), models.load(tmp_path, vision_model(), new_head=True)
    assert torch.equal(same.classifier.weight, first.classifier.weight) and (same.classifier.bias == 2).all()
    assert (new.classifier.weight != first.classifier.weight).all() and not new.classifier.bias.any()
    body = {name for name in first.state_dict() if not name.startswith("classifier")}
    assert body and all(torch.equal(first.state_dict()[name], new.state_dict()[name]) for name in body)


def test_a_stripped_model_says_so_when_it_is_loaded_again(tmp_path):
    model = models.build(text_model(), seed=0)
    randomize(model)
    report = strip_norm_parameters(model, "late")
    models.save(model, tmp_path)
    loaded = models.load(tmp_path, text_model())
    assert loaded.config.stripped_norms["which"] == "late" and loaded.config.stripped_norms["names"] == report.names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            VisionSpec(**{**vision_model().model_dump(), "head": "language_model"}),
            "vit has no language_model head here: write one of gpt2, gpt_neox, openai_gpt as architecture",
        ),
        (
            ModelSpec(**{**text_model().model_dump(), "architecture": "gpt_neox"}),
            "gpt_neox has no classification head here: write one of gpt2, openai_gpt, vit as architecture",
        ),
    ],
)
def test_a_head_that_an_architecture_lacks_is_refused(spec, message):
    for call in (lambda: models.build(spec, seed=0), lambda: models.model_class(spec)):
        with pytest.raises(UserError, match=message):
            call()
