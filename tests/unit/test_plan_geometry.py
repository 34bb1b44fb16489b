"""The plan of `geometry`: pre-training, post-training from its checkpoints, public checkpoints, and what they read."""

from collections import Counter
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from memorization.assets import load_assets
from memorization.config import load_config
from memorization.data import facts
from memorization.data.facts_text import Stream
from memorization.plan import geometry_assets, geometry_sets, group_spec, ngram_sets, plan, training_roots
from memorization.plan.geometry import even_steps, log_steps
from memorization.plan.geometry_data import facts_spec
from memorization.provenance.source import definitions
from memorization.specs import GroupSpec, Initial, ModelSpec, PretrainedSpec

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))
OWN = [scale for scale in SCALES if scale != "paper"]
# post-training of which everything is small, so that a test says by itself what it expects
CHECKPOINTS = {
    "pretraining": {"steps": 2000},
    "main": {"models": ["M", "L"], "steps": None, "seeds": None},
    "small": {"models": ["XS", "S"], "steps": 1200},
    "third_phase": {"model": "M", "seeds": 1},
    "sft": {"model": "L", "bases": [700, 2000], "seeds": None},
    "chain": {"model": "L", "seeds": None},
    "measuring": {"tuning_checkpoints": 5},
    "post_training": {"sft": {"steps": 120}, "dpo": {"steps": 60}, "grpo": {"steps": 80}},
}


def planned_with(overrides=None, **section):
    config = load_config(FOLDER, {**(overrides or {}), **({"geometry": section} if section else {})})
    return config, plan(config, "geometry")


@pytest.fixture(scope="module", params=SCALES)
def planned(request):
    return planned_with({"scale": request.param})


@pytest.fixture(scope="module")
def laptop():
    return planned_with({"seeds": 3}, **CHECKPOINTS)


@pytest.fixture(scope="module")
def paper():
    return planned_with({"scale": "paper"})


def post(run):
    return run.labels["stage"] != "pretraining"


def public(run):
    return isinstance(run.model, PretrainedSpec)


def places(run):
    """(set, folder, items) of what a run is trained and measured on."""
    return [[(part.set, part.folder, part.items) for part in parts] for parts in (run.data.parts, run.data.measured)]


def probe_of(run, name):
    found = [probe for probe in run.probes if probe.function.endswith(f":{name}")]
    assert len(found) == 1
    return found[0]


# ---- steps


@pytest.mark.parametrize(
    ("last", "number", "steps"),
    [
        (1000, 5, [0, 1, 10, 100, 1000]),
        (24, 7, [0, 1, 2, 4, 7, 13, 24]),  # 24 ** (1/5) = 1.888, its powers rounded
        (8, 6, [0, 1, 2, 3, 5, 8]),
        (4, 9, [0, 1, 2, 3, 4]),
        (1, 3, [0, 1]),
    ],
)
def test_log_steps_by_hand(last, number, steps):
    assert log_steps(last, number) == steps


@pytest.mark.parametrize(("last", "number"), [(2000, 22), (1200, 22), (20000, 40), (80000, 40), (60, 50)])
def test_log_steps_are_as_many_as_asked_and_evenly_spread_over_the_logarithm(last, number):
    steps = log_steps(last, number)
    assert number <= len(steps) <= number + 2 and steps == sorted(set(steps))
    assert (steps[0], steps[1], steps[-1]) == (0, 1, last)
    # no ratio is above that of ideal spacing but for the rounding of one
    ideal = last ** (1 / (number - 2))
    assert all(b <= a * ideal + 1 for a, b in pairwise(steps[1:]))


@pytest.mark.parametrize(
    ("last", "number", "steps"),
    [(120, 5, [0, 30, 60, 90, 120]), (4, 3, [0, 2, 4]), (6, 2, [0, 6]), (2, 5, [0, 1, 2]), (100, 4, [0, 33, 67, 100])],
)
def test_even_steps_by_hand(last, number, steps):
    assert even_steps(last, number) == steps


# ---- how many


NUMBERS = {
    # by seed: two models; the base and its four variants; the judge and two formats from every base
    "smoke": {"main": 2, "small": 2, "third_phase": 5, "sft": 1 + 2 * 2, "chain": 3, "ngrams": 1, "toy": 5 * 10},
    "laptop": {"main": 6, "small": 6, "third_phase": 5, "sft": 3 * (1 + 2 * 4), "chain": 9, "ngrams": 3, "toy": 500},
    "gpu": {"main": 6, "small": 6, "third_phase": 15, "sft": 3 * (1 + 2 * 4), "chain": 9, "ngrams": 3, "toy": 500},
    # five Pythias of 17 checkpoints, OLMo-2 of 10 and 6; three Pythias; five seeds; checkpoints of Tulu
    "paper": {"main": 101, "small": 51, "third_phase": 0, "sft": 45, "chain": 7, "ngrams": 1, "toy": 500},
}
SHARED = {"smoke": 1 + 1, "laptop": 1 + 3, "gpu": 3 + 3, "paper": 0}  # bases of the study, and first runs of chains


def test_every_scale_has_the_runs_of_its_written_configuration(planned):
    config, made = planned
    assert {name: len(runs) for name, runs in made.experiments.items()} == NUMBERS[config.scale]
    assert all(len(set(runs)) == len(runs) for runs in made.experiments.values())
    trained = [name for kind, names in made.experiments.items() if kind not in ("ngrams", "toy") for name in names]
    assert set(trained) == set(made.runs)
    assert len(made.runs) == len(trained) - SHARED[config.scale]
    assert set(made.folders) == {*made.experiments["ngrams"], *made.experiments["toy"]}
    assert set(made.tables_for(["ngrams", "toy"])) == {"geometry/ngrams", "geometry/toy"}
    assert set(made.owner) == set(made.runs)


def test_names_and_specs_are_unique_and_survive_json(planned):
    config, made = planned
    assert all(name == run.name and name.startswith("geometry-") for name, run in made.runs.items())
    for group in made.groups:
        spec = group_spec(config, "geometry", group)
        assert GroupSpec.model_validate_json(spec.model_dump_json()) == spec
    anonymous = {run.model_copy(update={"name": ""}).model_dump_json() for run in made.runs.values()}
    assert len(anonymous) == len(made.runs)


# ---- pre-training


def test_main_runs_by_hand(laptop):
    config, made = laptop
    data, measuring = config.geometry.data, config.geometry.measuring
    run = made.runs["geometry-L-s2"]
    assert isinstance(run.model, ModelSpec) and (run.model.architecture, run.model.tied) == ("gpt_neox", False)
    size = config.geometry.models["L"]
    assert (run.model.layers, run.model.width, run.model.heads) == (size.layers, size.width, size.heads)
    assert run.model.vocabulary == config.text.vocabulary + 5 + data.entities
    others = min(measuring.sequences, measuring.other_sequences)
    assert places(run) == [
        [("text", "text", data.text), ("facts", "facts", data.facts)],
        [
            ("text", "text", measuring.sequences),
            ("facts", "facts", data.questions),
            ("continuations", "continuations", data.questions),
            ("other", "other", others),
            ("shuffled", "shuffled", others),
        ],
    ]
    assert (run.data.seed, run.seed, run.initial, run.reads, run.objective) == (2, 2, None, [], "causal_lm")
    assert (run.steps, run.batch_size) == (2000, config.geometry.pretraining.batch_size)
    assert run.labels == {
        "stage": "pretraining", "variant": "base", "width": size.width, "tokens_per_step": run.batch_size * data.length,
        "base_tokens": 0, "base_step": 0, "format": "", "start": "",
    }  # fmt: skip
    spectra, able = probe_of(run, "representations"), probe_of(run, "capabilities")
    assert spectra.at == able.at == sorted({*log_steps(2000, measuring.checkpoints), *run.keep})
    families = spectra.options["families"]
    assert families == sorted({*spectra.at[:: measuring.families_every], 2000}) and set(families) < set(spectra.at)
    assert spectra.options["sets"] == ["facts", "other", "shuffled"] and spectra.options["prompts"] == []
    assert able.options["questions"] == ["facts", "continuations"] and set(able.options["texts"]) >= {"text", "facts"}
    assert made.experiments["main"] == [f"geometry-{model}-s{seed}" for model in "ML" for seed in range(3)]


def test_small_runs_show_the_phases_and_no_more(laptop):
    _, made = laptop
    for name in made.experiments["small"]:
        run = made.runs[name]
        assert run.steps == 1200 and run.keep == [] and run.model_name in ("XS", "S")
        assert probe_of(run, "representations").options["families"] == []
        assert [name for name, _, _ in places(run)[1]] == ["text", "facts"]
        assert probe_of(run, "capabilities").options["questions"] == ["facts"]


def test_only_what_post_training_starts_from_is_kept(planned):
    """The last checkpoint is the run's model itself, so that it is not kept twice."""
    config, made = planned
    section = config.geometry
    for run in made.runs.values():
        wanted = []
        if run.model_name == section.sft.model and run.labels["variant"] == "base" and not (post(run) or public(run)):
            wanted = [step for step in section.sft.bases if step < run.steps]
            assert len(wanted) == len(section.sft.bases) - (section.sft.bases[-1] == run.steps)
        assert run.keep == wanted
        kept = {other.initial.step for other in made.runs.values() if other.initial and other.initial.run == run.name}
        assert kept - {None} == set(wanted)


def test_the_third_phase_shares_its_base_run_and_changes_one_thing_in_each_variant(laptop):
    config, made = laptop
    base, *variants = (made.runs[name] for name in made.experiments["third_phase"])
    assert base.name == "geometry-M-s0" and base.name in made.experiments["main"]
    assert made.owner[base.name] == "main"
    assert [run.labels["variant"] for run in variants] == list(config.geometry.third_phase.variants)
    assert [run.name for run in variants] == [
        "geometry-M-repeated-s0", "geometry-M-weight_decay-s0", "geometry-XS-long-s0", "geometry-L-few_tokens-s0",
    ]  # fmt: skip
    asked = config.geometry.third_phase.variants
    repeated, decayed, long, few = variants

    def differences(run, other):
        """Fields in which two runs differ, beside their names and what is measured of them."""
        mine, theirs = (one.model_dump(exclude={"name", "probes", "labels", "keep"}) for one in (run, other))
        for one in (mine, theirs):
            one["data"].pop("measured")
        return {key for key in mine if mine[key] != theirs[key]}

    assert differences(repeated, base) == {"data"} and differences(decayed, base) == {"optimizer"}
    assert {part.items for part in repeated.data.parts} == {asked["repeated"].sequences}
    assert decayed.optimizer == base.optimizer.model_copy(update={"weight_decay": asked["weight_decay"].weight_decay})
    assert differences(long, base) == {"model_name", "model", "steps"} and long.steps == asked["long"].steps
    assert long.model == made.runs["geometry-XS-s0"].model
    big = made.runs["geometry-L-s0"]
    assert differences(few, big) == {"model", "data"}
    assert big.model.vocabulary - few.model.vocabulary == config.text.vocabulary - config.geometry.data.small_vocabulary
    assert {folder for part in places(few) for _, folder, _ in part} == {"text_small", "facts_small"}
    assert {name for part in places(few) for name, _, _ in part} == {"text", "facts"}
    assert long.labels["width"] == long.model.width and few.labels["width"] == few.model.width


def test_more_seeds_of_the_study_than_of_the_main_runs_are_bases_of_their_own():
    changed = {**CHECKPOINTS, "main": {"models": ["M", "L"], "seeds": 1}, "third_phase": {"model": "M", "seeds": 2}}
    _, made = planned_with({"seeds": 1}, **changed)
    assert made.experiments["third_phase"][0] in made.experiments["main"]
    own = made.runs["geometry-M-s1"]
    assert own.name in made.experiments["third_phase"] and own.name not in made.experiments["main"]
    assert probe_of(own, "representations").options["families"] == []


def test_main_runs_of_other_steps_are_what_variants_and_post_training_go_on_from():
    changed = {**CHECKPOINTS, "main": {"models": ["M", "L"], "steps": 900}, "sft": {"model": "L", "bases": [700, 900]}}
    _, made = planned_with({"seeds": 1}, **changed)
    assert made.experiments["third_phase"][0] == "geometry-M-s0" and made.runs["geometry-M-s0"].steps == 900
    assert made.runs["geometry-L-s0"].keep == [700]
    assert made.runs["geometry-judge-s0"].initial == Initial(run="geometry-L-s0")


# ---- post-training


def test_fine_tuning_starts_from_every_kept_step_in_both_formats(laptop):
    config, made = laptop
    data = config.geometry.data
    for seed in range(3):
        for base, step in ((700, 700), (2000, None)):
            for one in ("short", "long"):
                run = made.runs[f"geometry-sft-{one}-b{base}-s{seed}"]
                assert run.initial == Initial(run=f"geometry-L-s{seed}", step=step)
                assert places(run)[0] == [(one, one, data.tuning)] and run.objective == "sft"
                assert run.reads == [f"geometry-judge-s{seed}"]
                assert (run.labels["base_step"], run.labels["format"], run.labels["start"]) == (base, one, "base")
                # the whole way is looked at where the chain goes on from; else what comes in and what comes out
                steps = [0, 30, 60, 90, 120] if base == 2000 else [0, 120]
                assert probe_of(run, "representations").at == probe_of(run, "replies").at == steps
        judge = made.runs[f"geometry-judge-s{seed}"]
        assert judge.initial == Initial(run=f"geometry-L-s{seed}") and judge.reads == []
        assert places(judge)[0] == [("short", "short", data.tuning), ("long", "long", data.tuning)]
        assert judge.labels["format"] == "both" and probe_of(judge, "replies").options["judge"] == ""


def test_the_chain_goes_from_fine_tuning_to_preferences_to_rewards(laptop):
    config, made = laptop
    after = config.geometry.post_training
    for seed in range(3):
        tuned, preferred, rewarded = (made.runs[name] for name in made.experiments["chain"][3 * seed : 3 * seed + 3])
        assert tuned.name == f"geometry-sft-short-b2000-s{seed}" and tuned.name in made.experiments["sft"]
        assert preferred.initial == Initial(run=tuned.name) and rewarded.initial == Initial(run=preferred.name)
        assert [run.objective for run in (tuned, preferred, rewarded)] == ["sft", "dpo", "grpo"]
        assert [run.labels["start"] for run in (tuned, preferred, rewarded)] == ["base", "sft", "dpo"]
        assert [run.steps for run in (tuned, preferred, rewarded)] == [120, 60, 80]
        assert [run.data.parts[0].folder for run in (tuned, preferred, rewarded)] == ["short", "preferences", "short"]
        assert tuned.objective_options == {} and preferred.objective_options == {"beta": after.beta}
        assert rewarded.objective_options == {
            "samples": after.replies, "kl": after.kl, "temperature": config.geometry.measuring.temperature, "ending": 1,
        }  # fmt: skip
        assert probe_of(rewarded, "replies").at == [0, 20, 40, 60, 80]
        assert preferred.reads == rewarded.reads == []


def test_post_training_keeps_the_model_and_says_how_much_it_has_seen(planned):
    config, made = planned
    data, section = config.geometry.data, config.geometry
    for run in made.runs.values():
        if not post(run):
            continue
        replies, spectra = probe_of(run, "replies"), probe_of(run, "representations")
        assert replies.options["subsets"] == ["short", "long"] == spectra.options["prompts"]
        assert replies.options["judge"] == (run.reads[0] if run.reads else "")
        assert [(name, items) for name, _, items in places(run)[1]] == [
            ("text", section.measuring.sequences), ("short", data.tests), ("long", data.tests),
        ]  # fmt: skip
        if not run.steps:
            continue
        base = section.models[section.sft.model]
        step = base.tokens_per_step if public(run) else section.pretraining.batch_size * data.length
        assert run.labels["tokens_per_step"] == run.batch_size * data.length
        assert run.labels["base_tokens"] == run.labels["base_step"] * step
        if run.initial:
            first = made.runs[run.initial.run]
            assert (first.model, first.seed, first.model_name) == (run.model, run.seed, run.model_name)
            assert run.initial.step is None or run.initial.step in first.keep
            # a checkpoint before the last is what its label says
            if not post(first):
                assert run.labels["base_step"] == (run.initial.step or first.steps)


def test_replies_have_an_end_mark_in_own_sets_and_none_in_public_ones(planned):
    config, made = planned
    wanted = 0 if config.scale == "paper" else 1
    asked = [probe.options for run in made.runs.values() for probe in run.probes if "replies" in probe.function]
    asked += [run.objective_options for run in made.runs.values() if run.objective == "grpo"]
    assert len(asked) >= 8 and {options["ending"] for options in asked} == {wanted}


@pytest.mark.parametrize(("tuned", "chained"), [(3, 1), (1, 3), (2, 2)])
def test_what_others_start_from_or_read_is_trained_whoever_asks(tuned, chained):
    """Fewer main runs than fine-tuned ones, and fewer fine-tuned ones than chains."""
    changed = {**CHECKPOINTS, "sft": {"model": "L", "bases": [700, 2000], "seeds": tuned}}
    changed["chain"] = {"model": "L", "seeds": chained}
    _, made = planned_with({"seeds": 1}, **changed)
    assert len(made.experiments["sft"]) == 5 * tuned and len(made.experiments["chain"]) == 3 * chained
    for seed in range(max(tuned, chained)):
        assert made.runs[f"geometry-L-s{seed}"].keep == [700]
        assert f"geometry-judge-s{seed}" in made.runs
    check_order(made, 12)


# ---- jobs


def check_order(made, size):
    """Every run is in one job; jobs need each other without a circle; in a job what a run needs comes before it."""
    runs = Counter(name for names in made.groups.values() for name in names)
    assert set(runs) == set(made.runs) and set(runs.values()) == {1}
    assert all(0 < len(names) <= size for names in made.groups.values())
    order = list(TopologicalSorter({group: made.needed_first(group) for group in made.groups}).static_order())
    done: list[str] = []
    for group in order:
        for name in made.groups[group]:
            run = made.runs[name]
            needed = {*run.reads, *([run.initial.run] if run.initial else [])}
            assert needed <= set(done), f"{name} needs {needed - set(done)} before it in {group}"
            done.append(name)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 12, 100])
@pytest.mark.parametrize("scale", SCALES)
def test_jobs_come_in_an_order_in_which_everything_needed_is_there(scale, size):
    _, made = planned_with({"scale": scale, "compute": {"runs_per_job": size}})
    check_order(made, size)


def test_a_seeds_post_training_is_one_job_where_that_fits(laptop):
    _, made = laptop
    together = [names for group, names in made.groups.items() if "tuned" in group]
    assert len(together) == 3
    for seed, names in enumerate(together):
        assert {made.runs[name].seed for name in names} == {seed} and names[0] == f"geometry-judge-s{seed}"
        assert names[-2:] == [f"geometry-dpo-s{seed}", f"geometry-grpo-s{seed}"]


def test_public_checkpoints_have_a_job_each(paper):
    _, made = paper
    owner = made.group_of()
    still = [name for name, run in made.runs.items() if not run.steps]
    assert len(still) == 101 + 51 + 7
    assert all(made.groups[owner[name]] == [name] and not made.needed_first(owner[name]) for name in still)


# ---- public checkpoints


def test_public_checkpoints_are_measured_and_not_trained(paper):
    config, made = paper
    assets = load_assets(FOLDER / "assets.yaml")
    for run in made.runs.values():
        assert public(run) and run.model.asset in assets and assets[run.model.asset].kind == "model"
        assert run.model.half == (run.steps == 0) and run.initial is None
        if run.steps:
            continue
        assert run.data.parts == [] and run.seed == 0 and all(probe.at == [0] for probe in run.probes)
        stage = run.labels["stage"]
        model = config.geometry.models.get(run.model_name) or config.geometry.chain.stages[stage]
        step = int(run.name.rsplit("step", 1)[1])
        assert run.model.asset == f"{model.asset}_step{step}" and step in model.steps
        assert {part.folder for part in run.data.measured} == {
            f"{part.set}_{model.tokenizer}" for part in run.data.measured
        }
        assert (run.labels["width"], run.labels["tokens_per_step"]) == (model.width, model.tokens_per_step)
        assert run.labels["base_tokens"] == step * model.tokens_per_step and run.labels["base_step"] == 0
        names = {probe.function.split(":")[1] for probe in run.probes}
        assert names == {"representations", "replies" if post(run) else "capabilities"}
        if not post(run):
            assert probe_of(run, "representations").options["families"] == [0]
            assert probe_of(run, "representations").options["sets"] == ["facts", "other", "lambada"]


def test_tokens_of_public_checkpoints_by_hand(paper):
    _, made = paper
    tokens = {name: run.labels["base_tokens"] for name, run in made.runs.items()}
    assert tokens["geometry-pythia_12b-step143000"] == 143000 * 2097152  # 300 billion
    assert tokens["geometry-olmo2_7b-step928646"] == 928646 * 4194304  # 3.9 trillion
    assert tokens["geometry-pythia_70m-step0"] == 0
    assert tokens["geometry-sft-long-b1907359-s4"] == 1907359 * 2097152  # 4 trillion


def test_public_fine_tuning_starts_from_checkpoints_of_the_hub(paper):
    config, made = paper
    for seed in range(5):
        for base in config.geometry.sft.bases:
            for one in ("short", "long"):
                run = made.runs[f"geometry-sft-{one}-b{base}-s{seed}"]
                assert run.model.asset == f"olmo2_1b_along_step{base}" and not run.model.half
                assert run.data.parts[0].folder == f"{one}_olmo2_1b_along_step1907359"
                assert run.data.seed == seed and run.reads == [f"geometry-judge-s{seed}"]


def test_chains_of_public_models_are_what_is_published(paper):
    _, made = paper
    found = [
        (run.labels["stage"], run.labels["start"], run.labels["base_tokens"])
        for run in map(made.runs.get, made.experiments["chain"])
    ]
    assert found == [
        ("sft", "base", 14600), ("dpo", "sft", 2200), *(("grpo", "dpo", step) for step in (40, 600, 1200, 1800, 2400)),
    ]  # fmt: skip


# ---- data


def test_sets_hold_every_folder_and_every_row_that_is_read(planned):
    config, made = planned
    jobs, data = geometry_sets(config, made), config.geometry.data
    folders = [folder for job in jobs.values() for folder in job["folders"]]
    assert len(set(folders)) == len(folders)
    read = {part.folder for run in made.runs.values() for part in [*run.data.parts, *run.data.measured]}
    read |= set(ngram_sets(config)["folders"])
    assert read <= set(folders)
    for job in jobs.values():
        assert job["seeds"] % 5 == 0 and job["seeds"] > max(run.seed for run in made.runs.values())
        if job["kind"] == "docstrings":  # what the rule makes and what it is said to make
            assert facts.folders_of({**job, "folders": None}) == job["folders"]
    rows = {"text": data.probe, "facts": data.questions, "continuations": data.questions}
    rows |= dict.fromkeys(("short", "long"), data.tests)
    train = dict.fromkeys(("short", "long", "preferences"), data.tuning)
    if config.scale != "paper":
        train |= {"text": data.text, "facts": data.facts}
    for run in made.runs.values():
        assert all(items <= rows.get(name, data.probe) for name, _, items in places(run)[1])
        assert all(items <= train[name] for name, _, items in places(run)[0])


def test_one_job_makes_all_own_sets_and_one_a_tokenizer_the_public_ones(planned):
    config, made = planned
    jobs = geometry_sets(config, made)
    if config.scale == "paper":
        assert set(jobs) == {"pythia_70m", "olmo2_1b_along_step1907359", "tulu_dpo_step2200", "llama_2"}
        assert all(job["tokenizer"] == name for name, job in jobs.items())
    else:
        assert set(jobs) == {"facts"} and jobs["facts"]["vocabulary"] == config.text.vocabulary


def test_sets_of_the_few_tokens_are_made_only_if_there_are_few():
    section = {**CHECKPOINTS, "third_phase": {"model": None}, "corpora": {"facts": {"small_vocabulary": None}}}
    config, made = planned_with({"seeds": 1}, **section)
    folders = geometry_sets(config, made)["facts"]["folders"]
    assert made.experiments["third_phase"] == [] and not any(name.endswith("_small") for name in folders)


def test_n_grams_are_counted_in_what_every_run_is_trained_on(laptop, paper):
    config, made = laptop
    found = ngram_sets(config)
    for name in made.experiments["main"]:
        assert found["trained"] == {folder: items for _, folder, items in places(made.runs[name])[0]}
    assert found["questions"] == {"facts": "facts", "continuations": "continuations"}
    assert found["number"] == config.geometry.data.questions and found["engine"] == "own"
    assert made.experiments["ngrams"] == [f"ngrams-s{seed}" for seed in range(3)]
    found = ngram_sets(paper[0])
    assert found["trained"] == {} and found["questions"]["facts"] == "facts_llama_2" and found["index"]
    assert paper[1].experiments["ngrams"] == ["ngrams-s0"], "public checkpoints have one set of questions"


def test_assets_are_those_that_are_said_to_be_used_by_geometry(planned):
    config, made = planned
    needed = geometry_assets(config, made)
    assets = load_assets(FOLDER / "assets.yaml")
    used = {name for name, asset in assets.items() if "geometry" in asset.used_by}
    assert len(set(needed)) == len(needed)
    assert set(needed) == (used if config.scale == "paper" else set())
    assert {"pythia_70m", "wikitext", "llama_2"} <= used and set(assets["pythia_70m"].used_by) == {
        "tokenswap",
        "geometry",
    }


class Ids:
    """Stands for the tokenizer, which only spells rows out."""

    def decode_batch(self, lists, skip_special_tokens):
        return ["" for _ in lists]


@pytest.mark.parametrize("scale", OWN)
def test_models_have_positions_and_tokens_for_every_row_of_every_set(scale):
    """Few rows of each set are really made, of random text."""
    config, made = planned_with({"scale": scale})
    rows = {"text": 30, "facts": 2 * config.geometry.data.entities, "probe": 30, "questions": 30}
    spec = {**facts_spec(config), **rows}
    facts.check(spec)
    rng = np.random.default_rng(0)
    longest, highest = {}, {}
    for small in (None, spec["small_vocabulary"]):
        size = small or spec["vocabulary"]
        streams = {name: Stream.of(rng.integers(1, size, 40_000), None) for name in ("train", "validation", "other")}
        corpus = facts.Corpus(Ids(), streams, tuple(range(1, 1 + spec["answers"])), 0, facts.Marks(size))
        suffix = "_small" if small else ""
        maker = facts.Maker(spec, 0, corpus, suffix)
        for folder in ("text", "facts") if small else facts.FOLDERS:
            made_rows = [row for part in getattr(maker, folder)()[0].values() for row in part]
            answers = [
                [*row["input_ids"][: row["prompt_length"]], *wrong]
                for row in made_rows
                for wrong in row.get("distractors", [])
            ]
            sequences = [row[key] for row in made_rows for key in ("input_ids", "rejected_ids") if key in row] + answers
            longest[folder + suffix] = max(map(len, sequences))
            highest[folder + suffix] = max(map(max, sequences))
    assert longest["text"] == longest["facts"] == config.geometry.data.length
    assert set(longest) == set(geometry_sets(config, made)["facts"]["folders"])
    for run in made.runs.values():
        for part in [*run.data.parts, *run.data.measured]:
            assert longest[part.folder] <= run.model.positions and highest[part.folder] < run.model.vocabulary
        read = {part.folder for part in run.data.parts}
        if "facts" in read or "facts_small" in read:  # and no token is never met
            assert max(highest[folder] for folder in read) == run.model.vocabulary - 1


# ---- code


def test_jobs_use_the_code_of_their_stage(laptop):
    """A change of post-training trains no base again, and no job looks into tables or claims."""
    config, made = laptop
    for group in made.groups:
        modules = {name.split(":")[0] for name in definitions(training_roots(group_spec(config, "geometry", group)))}
        later = "tuned" in group
        assert ("memorization.training.preferences" in modules) == later
        assert ("memorization.probes.replies" in modules) == later
        assert ("memorization.probes.capabilities" in modules) == (not later)
        assert {"memorization.probes.representations", "memorization.probes.spectrum"} <= modules
        assert not any(name.startswith(("memorization.tables", "memorization.claims")) for name in modules)
