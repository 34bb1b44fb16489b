"""The plan of `layernorm`: the cells of the configuration, each once, behind the first stage of its model and seed."""

import itertools
import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from memorization.config import load_config
from memorization.plan import group_spec, labelled_assets, labelled_sets, plan, training_roots
from memorization.provenance.source import definitions
from memorization.specs import GroupSpec, ModelSpec, PretrainedSpec, VisionSpec

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))
RECIPE = {
    "epochs": {"pre": 9, "post": 5}, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 5e-5},
    "evaluate_every": 1, "gradients_every": 3, "gradient_items": 10_000,
}  # fmt: skip
MINILM = {"asset": "minilm", "position": "post", "data": "packages", "parameters": 10_646_784, "layers": 6}
WITH_MINILM = {
    "layernorm": {
        "models": {"minilm": {**MINILM, "fine_tuning": RECIPE}},
        "experiments": {"checkpoint": {"models": ["minilm"]}},
    }
}


def planned_with(overrides=None):
    config = load_config(FOLDER, overrides or {})
    return config, plan(config, "layernorm")


@pytest.fixture(scope="module", params=SCALES)
def planned(request):
    return planned_with({"scale": request.param})


@pytest.fixture(scope="module")
def laptop():
    return planned_with()


# ---- how many


def test_the_laptop_runs_are_the_cells_of_the_written_configuration(laptop):
    """Counted from the files alone: a cell is what tells two runs apart."""
    config, made = laptop
    house = yaml.safe_load((FOLDER / "config.yaml").read_text())
    section = yaml.safe_load((FOLDER / "papers" / "layernorm.yaml").read_text())
    tuned, first, of_experiment = set(), set(), {}
    for name, one in section["experiments"].items():
        seeds = range(one.get("seeds") or house["seeds"])
        if one.get("stage") == "pretraining":
            cells = set(itertools.product(one["models"], seeds))
            first |= cells
        else:
            same = (one.get("optimizer", "adamw"), one.get("form", "classifier"), one.get("start", "pretrained"))
            cells = {(*cell, *same) for cell in itertools.product(one["models"], one["arms"], one["noise"], seeds)}
            tuned |= cells
            first |= {(cell[0], cell[3]) for cell in cells if cell[-1] == "pretrained"}
        of_experiment[name] = len(cells)
    assert {name: len(runs) for name, runs in made.experiments.items()} == of_experiment
    assert len(made.runs) == len(tuned) + len(first) > 100
    found = {
        (
            run.model_name,
            run.strip,
            run.labels["noise"],
            run.seed,
            *(run.labels[k] for k in ("optimizer", "form", "start")),
        )
        for run in made.runs.values()
        if run.labels["stage"] == "fine_tuning"
    }
    assert found == tuned
    per_seed = Counter(cell[3] for cell in tuned), Counter(seed for _, seed in first)
    size = house["compute"]["runs_per_job"]
    jobs = sum(math.ceil(n / size) for counts in per_seed for n in counts.values())
    assert len(made.groups) == jobs
    assert config.layernorm.experiments["main"].seeds == section["experiments"]["main"].get("seeds")


def test_every_run_is_in_exactly_one_job_of_the_asked_size(planned):
    config, made = planned
    runs = Counter(run for names in made.groups.values() for run in names)
    assert set(runs) == set(made.runs) and set(runs.values()) == {1}
    assert all(0 < len(names) <= config.compute.runs_per_job for names in made.groups.values())
    for names in made.groups.values():
        assert len({made.runs[name].seed for name in names}) == 1, "more seeds leave the jobs of others alone"


def test_the_first_stage_of_a_model_and_seed_is_trained_once_and_before(planned):
    _, made = planned
    owner = made.group_of()
    for group, names in made.groups.items():
        starts = [made.runs[name].initial.run for name in names if made.runs[name].initial]
        assert set(made.needed_first(group)) == {owner[start] for start in starts} and group not in map(
            owner.get, starts
        )
        for name in names:
            run = made.runs[name]
            start = run.labels["start"]
            assert (run.initial is not None) == (start == "pretrained")
            if run.initial:
                first = made.runs[run.initial.run]
                assert (first.model_name, first.seed) == (run.model_name, run.seed)
                assert first.labels["stage"] == "pretraining" and first.strip == "none" and first.initial is None
                sizes = {
                    key: getattr(first.model, key) for key in ("architecture", "layers", "width", "heads", "dropout")
                }
                assert sizes == {key: getattr(run.model, key) for key in sizes}
            assert isinstance(run.model, PretrainedSpec) or start in ("pretrained", "scratch")
    first = [run for run in made.runs.values() if run.labels["stage"] == "pretraining"]
    assert len({(run.model_name, run.seed) for run in first}) == len(first)


def test_names_and_specs_are_unique_and_survive_json(planned):
    config, made = planned
    for group in made.groups:
        spec = group_spec(config, "layernorm", group)
        assert GroupSpec.model_validate_json(spec.model_dump_json()) == spec
        assert len({run.model_copy(update={"name": ""}).model_dump_json() for run in spec.runs}) == len(spec.runs)
    assert all(name == run.name for name, run in made.runs.items())


# ---- what a run is


def test_arms_of_a_seed_differ_in_their_norms_alone(planned):
    """Same data, same wrong labels, same order, same start: so that differences between arms are paired."""
    _, made = planned
    families = defaultdict(dict)
    for run in made.runs.values():
        if run.labels["stage"] == "fine_tuning":
            keys = ("noise", "optimizer", "form", "start")
            families[(run.model_name, run.seed, *(run.labels[key] for key in keys))][run.strip] = run
    assert families and all(len(arms) >= 2 for arms in families.values())
    for arms in families.values():
        plain = [
            run.model_copy(
                update={"name": "", "strip": "none", "labels": {**run.labels, "arm": ""}, "probes": run.probes[:2]}
            )
            for run in arms.values()
        ]
        assert all(one == plain[0] for one in plain)
        assert all(run.labels["arm"] == arm for arm, run in arms.items())


def test_items_are_the_same_in_all_forms_noises_and_optimizers(planned):
    _, made = planned
    parts = defaultdict(set)
    for run in made.runs.values():
        if run.labels["stage"] == "fine_tuning":
            assert run.data.seed == run.seed
            noise = run.data.labelled.noise
            assert noise.share == run.labels["noise"]
            part = run.data.parts[0].model_dump_json()
            parts[run.model_name, run.seed].add((part, run.data.validation, noise.source_class, noise.wording))
    assert all(len(one) == 1 for one in parts.values())


def test_the_wrong_labels_are_of_the_noisy_class(planned):
    config, made = planned
    for run in made.runs.values():
        one = config.layernorm.sets[run.data_name]
        if run.labels["stage"] == "pretraining":
            assert run.data.labelled is None or run.data.labelled.noise is None
            continue
        assert list(one.classes)[run.data.labelled.noise.source_class] == one.noisy_class
        assert run.data.labelled.classes == len(one.classes)
        assert run.model.classes == (len(one.classes) if run.labels["form"] == "classifier" else 0)


def test_all_runs_are_trained_to_the_longer_budget_and_carry_their_own(planned):
    config, made = planned
    for run in made.runs.values():
        if run.labels["stage"] == "pretraining":
            continue
        model = config.layernorm.models[run.model_name]
        recipe, train = config.layernorm.recipe(model), config.layernorm.sets[model.data].train
        batches = -(-train // recipe.batch_size)
        assert run.steps == max(recipe.epochs["pre"], recipe.epochs["post"]) * batches
        assert run.labels["budget"] == recipe.epochs[model.position] and run.labels["position"] == model.position
        assert run.batch_size == recipe.batch_size and run.optimizer.norm_rate == recipe.optimizer.norm_rate
        accuracy, movement, *rest = run.probes
        assert accuracy.every == recipe.evaluate_every * batches and movement.every == run.steps
        assert [probe.function.split(":")[1] for probe in rest] in ([], ["gradients"])
        asked = any(
            one.gradients and run.name in made.experiments[name] for name, one in config.layernorm.experiments.items()
        )
        assert bool(rest) == (asked and run.strip == "none")
        for probe in rest:
            items = min(recipe.gradient_items, config.layernorm.sets[model.data].validation)
            assert probe.every == recipe.gradients_every * batches and probe.options == {"items": items}


LABELS = {
    "position": {"pre", "post"},
    "arm": {"none", "all", "early", "middle", "late", "attention", "feed_forward"},
    "optimizer": {"adamw", "muon"},
    "form": {"classifier", "label_word", "pretraining"},
    "start": {"pretrained", "scratch", "public"},
    "stage": {"pretraining", "fine_tuning"},
}


def test_every_run_has_every_label(planned):
    _, made = planned
    for run in made.runs.values():
        assert set(run.labels) == {*LABELS, "noise", "budget"}
        assert all(run.labels[key] in known for key, known in LABELS.items())
        assert run.labels["optimizer"] == run.optimizer.name and run.labels["arm"] == run.strip
        assert run.paper == "layernorm"
        if not isinstance(run.model, PretrainedSpec):
            assert run.labels["position"] == ("post" if run.model.architecture == "openai_gpt" else "pre")


def test_forms_have_the_head_and_the_loss_that_belong_to_them(planned):
    _, made = planned
    for run in made.runs.values():
        form = run.labels["form"]
        if form == "classifier":
            assert run.objective == "classification" and run.model.head == "classification"
            assert run.data.labelled.form == "classifier"
        if form == "label_word":
            masked = isinstance(run.model, PretrainedSpec) and run.model.masked
            assert run.objective == "label_word" and run.model.head == "language_model"
            assert run.objective_options == {"masked": int(masked)}
            assert run.data.labelled.form == ("masked_word" if masked else "causal_word")


def test_the_first_stage_by_hand(laptop):
    config, made = laptop
    section, text, image = config.layernorm, made.runs["text_post-pretrained-s1"], made.runs["digits_pre-pretrained-s1"]
    one = section.sets["packages"]
    assert text.objective == "text_and_word" and text.model.head == "language_model" and text.data.labelled is None
    assert text.objective_options == {
        "share": section.pretraining["packages"].share,
        "weight": section.pretraining["packages"].word_weight,
        "words": 3 + config.text.vocabulary,
    }
    assert [(p.folder, p.items) for p in text.data.parts] == [("packages_pretraining", one.pretraining)]
    assert text.data.validation == one.pretraining_validation and text.data.seed == 1
    assert isinstance(text.model, ModelSpec) and text.model.architecture == "openai_gpt"
    # padding, class and separator ids, the corpus's own, and a word of every package; a separator and a word behind
    assert text.model.vocabulary == 3 + config.text.vocabulary + len(config.text.packages)
    assert text.model.positions == one.tokens + 2
    assert isinstance(image.model, VisionSpec) and image.objective == "classification"
    assert image.data.labelled.noise is None and image.data.labelled.classes == 10 and image.model.channels == 1
    for run, probe in ((text, "language_model"), (image, "supervised")):
        recipe = section.pretraining[run.data_name]
        assert [p.function.split(":")[1] for p in run.probes] == [probe, "movement"]
        assert {p.every for p in run.probes} == {recipe.evaluate_every} and run.steps == recipe.steps
        assert run.probes[0].options == {"stripped": ["all", "early", "middle", "late", "attention", "feed_forward"]}
        assert run.optimizer == recipe.optimizer and run.optimizer.norm_rate > 1
        assert run.labels["noise"] == 0.0 and run.labels["arm"] == "none"


def test_a_few_runs_by_hand(laptop):
    config, made = laptop
    noise = 0.02
    for name, wanted in {
        "text_pre-n02-none-s0": ("none", "adamw", "gpt2", "classification", "text_pre-pretrained-s0", "packages"),
        "text_post-n02-late-s2": (
            "late",
            "adamw",
            "openai_gpt",
            "classification",
            "text_post-pretrained-s2",
            "packages",
        ),
        "digits_pre-n02-all-s1": ("all", "adamw", "vit", "classification", "digits_pre-pretrained-s1", "digits"),
        "text_post-n02-muon-all-s0": (
            "all",
            "muon",
            "openai_gpt",
            "classification",
            "text_post-pretrained-s0",
            "packages",
        ),
        "text_pre-n02-word-all-s0": ("all", "adamw", "gpt2", "language_model", "text_pre-pretrained-s0", "packages"),
        "text_pre-scratch-n02-all-s0": ("all", "adamw", "gpt2", "classification", None, "packages"),
    }.items():
        run = made.runs[name]
        first = run.initial.run if run.initial else None
        found = (run.strip, run.optimizer.name, run.model.architecture, run.model.head, first, run.data.parts[0].folder)
        assert found == wanted, name
        assert run.data.labelled.noise.share == noise and made.owner[name] in config.layernorm.experiments


def test_more_seeds_change_no_job_that_was_there(laptop):
    _, few = laptop
    _, more = planned_with({"seeds": 4})
    assert few.runs.items() <= more.runs.items()
    grown = {name for name in few.groups if few.groups[name] != more.groups[name]}
    # experiments without seeds of their own come to the fourth seed; jobs of the seeds before stay as they are
    assert all("-s3-" in name for name in grown)


# ---- data


def test_labelled_sets_cover_what_the_runs_read(planned):
    config, made = planned
    jobs = labelled_sets(config, made)
    folders = [folder for job in jobs.values() for folder in job["folders"]]
    assert len(set(folders)) == len(folders)
    assert {part.folder for run in made.runs.values() for part in run.data.parts} <= set(folders)
    for folder, job in jobs.items():
        assert job["folders"][0] == folder and job["seeds"] > max(run.seed for run in made.runs.values())
        assert job["seeds"] % 5 == 0
    for run in made.runs.values():
        job = next(job for job in jobs.values() if run.data.parts[0].folder in job["folders"])
        first = run.labels["stage"] == "pretraining"
        assert run.data.parts[0].items <= job["pretraining" if first else "train"]
        assert run.data.validation <= job["pretraining_validation" if first else "validation"]
        assert list(job["classes"]) == list(config.layernorm.sets[run.data_name].classes)


def test_only_the_paper_scale_reads_public_checkpoints_and_sets():
    for scale in SCALES:
        config, made = planned_with({"scale": scale})
        public = {run.model.asset for run in made.runs.values() if isinstance(run.model, PretrainedSpec)}
        assert bool(public) == (scale == "paper") and public <= set(labelled_assets(config, made))
        assert bool(labelled_assets(config, made)) == (scale == "paper")


# ---- a checkpoint beside the models from nothing


def test_a_checkpoint_adds_runs_and_jobs_of_its_own(laptop):
    config, made = planned_with(WITH_MINILM)
    _, before = laptop
    mine = {name: run for name, run in made.runs.items() if run.model_name == "minilm"}
    assert before.runs == {name: run for name, run in made.runs.items() if name not in mine}
    assert before.groups.items() <= made.groups.items(), "what was trained stays"
    assert len(mine) == 2 * (config.layernorm.experiments["checkpoint"].seeds or config.seeds)
    assert {run.strip for run in mine.values()} == {"none", "all"}
    batches = math.ceil(config.layernorm.sets["packages"].train / 16)
    for run in mine.values():
        assert run.initial is None and run.labels["start"] == "public" and run.labels["position"] == "post"
        assert run.labels["budget"] == 5 and run.steps == 9 * batches and run.probes[0].every == batches
        assert run.optimizer.learning_rate == 5e-5 and run.batch_size == 16
        assert isinstance(run.model, PretrainedSpec)
        assert (run.model.asset, run.model.head, run.model.classes) == ("minilm", "classification", 6)
        assert not run.model.images and not run.model.fresh
        assert run.data.parts[0].folder == "packages_minilm" and run.data_name == "packages"
        twin = made.runs[f"text_post-n02-{run.strip}-s{run.seed}"]
        assert run.data.labelled == twin.data.labelled and run.data.parts[0].items == twin.data.parts[0].items
    groups = [made.groups[name] for name in made.groups if set(made.groups[name]) & set(mine)]
    assert all(not made.needed_first(name) for name in made.groups if set(made.groups[name]) & set(mine))
    assert {name for names in groups for name in names} == set(mine)
    jobs = labelled_sets(config, made)
    assert (
        jobs["packages_minilm"]["folders"] == ["packages_minilm"] and jobs["packages_minilm"]["tokenizer"] == "minilm"
    )
    assert jobs["packages"]["folders"] == ["packages", "packages_pretraining"] and jobs["packages"]["tokenizer"] is None
    assert jobs["packages_minilm"]["name"] == jobs["packages"]["name"] == "packages"
    assert labelled_assets(config, made) == ["minilm"]


def test_the_overlay_that_comes_with_the_repository_does_the_same():
    config, made = planned_with(yaml.safe_load((FOLDER / "minilm.yaml").read_text()))
    mine = [run for run in made.runs.values() if run.model_name == "minilm"]
    assert len(mine) == 2 * config.seeds and labelled_assets(config, made) == ["minilm"]


@pytest.mark.parametrize(("masked", "form"), [(True, "masked_word"), (False, "causal_word")])
def test_the_next_token_form_of_a_checkpoint_is_that_of_its_kind(masked, form):
    change = {
        "models": {"more": {**MINILM, "masked": masked}},
        "experiments": {"more": {"models": ["more"], "arms": ["none", "all"], "noise": [0.02], "form": "label_word"}},
    }
    _, made = planned_with({"layernorm": change})
    run = made.runs["more-n02-word-none-s0"]
    assert run.data.labelled.form == form and run.objective_options == {"masked": int(masked)}
    assert (run.model.head, run.model.masked, run.model.classes) == ("language_model", masked, 0)


def test_from_scratch_a_checkpoint_keeps_its_configuration_alone():
    change = {
        "models": {"more": MINILM},
        "experiments": {"more": {"models": ["more"], "arms": ["none"], "noise": [0.02], "start": "scratch"}},
    }
    _, made = planned_with({"layernorm": change})
    run = made.runs["more-scratch-n02-none-s0"]
    assert run.model.fresh and run.labels["start"] == "scratch" and run.initial is None


@pytest.mark.parametrize("order", [["digits_pre", "photo"], ["photo", "digits_pre"]])
def test_a_public_image_model_shares_the_set_and_leaves_the_first_stage_its_images(order):
    public = {"asset": "vit_base", "position": "pre", "data": "digits", "parameters": 9, "layers": 12}
    change = {
        "models": {"photo": public},
        "experiments": {
            "more": {"models": order, "arms": ["none"], "noise": [0.02]},
            **{name: {"models": []} for name in ("pretraining", "main", "scratch", "noise", "muon", "label_word")},
        },
    }
    config, made = planned_with({"layernorm": change})
    run = made.runs["photo-n02-none-s0"]
    assert (run.data.labelled.image, run.data.labelled.channels, run.model.images) == (224, 3, True)
    assert run.data.parts[0].folder == "digits"
    jobs = labelled_sets(config, made)
    assert list(jobs) == ["digits"] and jobs["digits"]["folders"] == ["digits", "digits_pretraining"]


# ---- code


def test_a_job_uses_the_code_of_its_own_stage(laptop):
    """A change of what is measured in the first stage trains no fine-tuned model again, and no other paper's."""
    config, made = laptop
    for group in list(made.groups)[:4]:
        modules = {name.split(":")[0] for name in definitions(training_roots(group_spec(config, "layernorm", group)))}
        first = made.runs[made.groups[group][0]].labels["stage"] == "pretraining"
        assert ("memorization.probes.pretraining" in modules) == first
        assert {
            "memorization.models.norms",
            "memorization.training.labelled",
            "memorization.data.label_noise",
        } <= modules
        assert "memorization.training.optimizers" in modules and "memorization.probes.labelled" in modules
        assert not any(name.startswith(("memorization.tables", "memorization.claims")) for name in modules)
