"""The plan of `tokenswap`: every arm's models are trained first, jobs are of the asked size, names are unique."""

from collections import Counter
from pathlib import Path

import pytest

from memorization.config import load_config
from memorization.errors import UserError
from memorization.plan import arm_group_spec, group_spec, models_of, plan, training_roots
from memorization.plan.common import pack
from memorization.provenance.source import definitions

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))


@pytest.fixture(scope="module", params=SCALES)
def planned(request):
    config = load_config(FOLDER, {"scale": request.param})
    return config, plan(config, "tokenswap")


def test_every_arm_and_run_is_in_exactly_one_job(planned):
    config, made = planned
    arms = Counter(arm for names in made.arm_groups.values() for arm in names)
    runs = Counter(run for names in made.groups.values() for run in names)
    assert set(arms) == set(made.arms) and set(arms.values()) == {1}
    assert set(runs) == set(made.runs) and set(runs.values()) == {1}
    assert all(len(names) <= config.tokenswap.arms_per_job for names in made.arm_groups.values())
    assert all(len(names) <= config.tokenswap.runs_per_job for names in made.groups.values())


def test_every_arm_of_the_configuration_has_its_seeds(planned):
    config, made = planned
    for name, experiment in config.tokenswap.experiments.items():
        assert len(set(made.experiments[name])) == len(experiment.arms) * (experiment.seeds or config.seeds), name
        for arm in made.experiments[name]:
            assert set(experiment.measure) <= set(made.arms[arm].measure)


def test_models_are_trained_before_they_are_gone_on_from_or_decoded(planned):
    _, made = planned
    owner = made.group_of()
    for group, names in made.groups.items():
        starts = {owner[made.runs[name].initial.run] for name in names if made.runs[name].initial}
        assert starts == set(made.needed_first(group)) and group not in starts
        assert all(made.runs[name].seed == made.runs[made.runs[name].initial.run].seed for name in names if starts)
    for arm in made.arms.values():
        for ref in (arm.model, arm.aux):
            assert ref is None or ref.asset or ref.run in made.runs


def test_specs_of_jobs_survive_json_and_name_their_models(planned):
    config, made = planned
    for group in made.arm_groups:
        spec = arm_group_spec(config, group)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec
        named = {ref.name for ref in models_of(spec)}
        assert {arm.model.name for arm in spec.arms} | {config.tokenswap.judge} <= named
    for group in made.groups:
        spec = group_spec(config, "tokenswap", group)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_an_arm_of_several_experiments_is_measured_once_for_all():
    made = plan(load_config(FOLDER, {}), "tokenswap")
    arm = made.arms["wild-L-standard-s0"]
    asking = [name for name, arms in made.experiments.items() if arm.name in arms]
    assert len(asking) > 5 and arm.measure == ["cloze", "cost", "held_out", "passages"]


def test_more_seeds_change_no_job_that_was_there():
    few, more = (plan(load_config(FOLDER, {"seeds": seeds}), "tokenswap") for seeds in (3, 4))
    assert few.groups.items() <= more.groups.items() and few.arm_groups.items() <= more.arm_groups.items()


def test_halves_and_mixtures_share_what_they_should():
    made = plan(load_config(FOLDER, {}), "tokenswap")

    def passages(recipe):
        parts = made.runs[f"{recipe}-L-s0"].data.parts
        return {(part.set, i) for part in parts for i in range(part.first, part.first + part.items)}

    everything = passages("tuned")
    assert passages("half1") | passages("half2") == everything and not passages("half1") & passages("half2")
    assert passages("mix1") | passages("mix2") == everything
    assert len(passages("mix1") & passages("mix2")) == len(everything) / 2


def test_tables_come_from_the_jobs_that_decode():
    made = plan(load_config(FOLDER, {}), "tokenswap")
    assert all(folder.startswith("tokenswap/decode/") for folder in made.tables_for(["wild", "sizes"]))


def modules_behind(config, group, paper="tokenswap"):
    """Modules whose code a training job uses."""
    return {name.split(":")[0] for name in definitions(training_roots(group_spec(config, paper, group)))}


def test_a_job_uses_the_code_of_its_own_losses_and_no_decoding_code():
    """Else a change of a decoding method would train every model again."""
    config = load_config(FOLDER, {})
    made = plan(config, "tokenswap")
    for group, names in made.groups.items():
        modules = modules_behind(config, group)
        assert ("memorization.methods.goldfish" in modules) == any("goldfish" in name for name in names)
        assert not any(name.startswith(("memorization.evaluate", "memorization.methods.token")) for name in modules)
    for group in plan(config, "patterns").groups:
        assert not any("methods" in name for name in modules_behind(config, group, "patterns"))


def test_packing_by_hand():
    assert pack({"a": 5, "b": 4, "c": 3, "d": 3, "e": 1}, 3) == [["a", "d"], ["b", "c", "e"]]
    assert pack({"a": 9, "b": 1, "c": 1, "d": 1}, 3) == [["a"], ["b", "c", "d"]]
    assert pack({}, 3) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiments": {"wild": {"arms": [{"model": "wlid-L"}]}}}, "no recipe named 'wlid': did you mean 'wild'"),
        ({"experiments": {"wild": {"arms": [{"model": "wild-XXL"}]}}}, "no size named 'XXL'"),
        ({"experiments": {"wild": {"arms": [{"model": "wild-L", "method": "tokenswap"}]}}}, "`aux` belongs to"),
        ({"experiments": {"wild": {"arms": [{"model": "wild-L", "words": "english-9"}]}}}, "`words` belongs to"),
        ({"words": "english-100"}, "english-110 is the paper's"),
        ({"suffix": 60}, "is below prefix 20"),
        ({"recipes": {"half1": {"passages": [0.5, 0.5]}}}, "from < to"),
        ({"recipes": {"wild": {"trained": False}}}, "needs `background: [from, to]` or"),
        ({"recipes": {"tuned": {"start": "wlid"}}}, "no recipe named 'wlid'"),
        ({"recipes": {"tuned": {"start": "half1"}}}, "has a `start` itself"),
        ({"memfree_order": 1}, "greater than or equal to 2"),
    ],
)
def test_a_wrong_key_is_one_sentence_that_says_what_to_write(change, message):
    with pytest.raises(UserError) as raised:
        load_config(FOLDER, {"tokenswap": change})
    assert message in str(raised.value) and "\n" not in str(raised.value)
