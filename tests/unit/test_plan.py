"""The plan: every cell once, runs shared where they can be, jobs of the asked size."""

from collections import Counter
from pathlib import Path

import pytest

from memorization.config import load_config
from memorization.plan import group_spec, plan, share
from memorization.training.shares import proportional

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
def test_every_cell_of_every_experiment_has_a_run_in_exactly_one_job(scale):
    config = load_config(FOLDER, {"scale": scale})
    made = plan(config, "patterns")
    for name, experiment in config.patterns.experiments.items():
        cells = len(experiment.data) * (len(experiment.pairings) or len(experiment.models) * len(experiment.items))
        assert len(set(made.experiments[name])) == cells * (experiment.seeds or config.seeds), name
    trained = Counter(run for runs in made.groups.values() for run in runs)
    assert set(trained) == set(made.runs) and set(trained.values()) == {1}
    assert all(len(runs) <= config.compute.runs_per_job for runs in made.groups.values())


@pytest.mark.parametrize("scale", SCALES)
def test_data_jobs_are_as_large_as_their_largest_run(scale):
    made = plan(load_config(FOLDER, {"scale": scale}), "patterns")
    for folder, job in made.data.items():
        wanted = [
            (part.items, run.data.seed)
            for run in made.runs.values()
            for part in run.data.parts
            if part.folder == folder
        ]
        assert job.train == max(items for items, _ in wanted)
        assert job.seeds > max(seed for _, seed in wanted)


def test_more_seeds_change_no_job_that_was_there():
    """Only new jobs train; data is made for seeds in steps of five."""
    few, more = (plan(load_config(FOLDER, {"seeds": seeds}), "patterns") for seeds in (3, 5))
    assert {
        group: few.groups[group] for group in few.groups if group.split("-")[1] != "s3"
    }.items() <= more.groups.items()
    assert few.data == more.data


def test_an_experiment_that_asks_for_less_shares_the_run():
    made = plan(load_config(FOLDER, {}), "patterns")
    assert made.experiments["jumps"][3:6] == made.experiments["alone"][3:6], "MIJ with 15 % jumps is one run"
    assert set(made.experiments["shuffles"]) >= set(made.experiments["pairs"][4:7]), "text of the same pairing"


def test_a_shared_run_measures_what_both_ask_for():
    made = plan(load_config(FOLDER, {}), "patterns")
    run = made.runs[made.experiments["shuffles"][0]]
    assert {probe.function.split(":")[1] for probe in run.probes} == {"completion", "recency", "overlap", "sampling"}


def test_runs_that_differ_in_training_are_not_shared():
    made = plan(load_config(FOLDER, {}), "patterns")
    run = next(iter(made.runs.values()))
    assert share(run, run.model_copy(update={"steps": run.steps + 1})) is None
    assert share(run, run) == run


def test_names_are_unique_and_say_what_they_are():
    config = load_config(FOLDER, {})
    for run in plan(config, "patterns").runs.values():
        assert run.name.startswith(f"{run.data_name}-{run.model_name}-n{run.data.items}-s{run.seed}")


def test_mixtures_with_text_take_their_other_parts_as_text():
    made = plan(load_config(FOLDER, {}), "patterns")
    run = made.runs[made.experiments["mixtext"][0]]
    assert [(part.set, part.folder, part.items) for part in run.data.parts] == [
        ("text", "text", 24),
        ("random_digits", "random_digits_as_text", 8),
    ]
    assert made.data["random_digits_as_text"].vocabulary == "text"


def test_group_specs_survive_json():
    config = load_config(FOLDER, {"scale": "smoke"})
    made = plan(config, "patterns")
    for group in made.groups:
        spec = group_spec(config, "patterns", group)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(10, [1, 1, 1], [4, 3, 3]), (7, [0.5, 0.5], [4, 3]), (64, [0.75, 0.25], [48, 16]), (3, [1, 0], [3, 0])],
)
def test_proportional_by_hand(total, weights, expected):
    assert proportional(total, weights) == expected
