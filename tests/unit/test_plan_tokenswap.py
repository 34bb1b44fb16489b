"""The plan of `tokenswap`: every arm's models are trained first, jobs are of the asked size, names are unique."""

from collections import Counter
from pathlib import Path

import pytest

from memorization.config import load_config
from memorization.errors import UserError
from memorization.plan import (
    arm_group_spec,
    group_spec,
    models_of,
    passage_assets,
    passage_sets,
    plan,
    readers,
    training_roots,
)
from memorization.plan.common import pack
from memorization.provenance.source import definitions

FOLDER = Path(__file__).parents[2] / "config"
PUBLIC = {"asset": "stories", "files": "*.parquet", "columns": ["text"]}
PYTHIA = {"asset": "pythia_70m", "parameters": 1}
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
        assert {arm.model.name for arm in spec.arms} <= named
        read = any(arm.model.tokenizer and "passages" in arm.measure for arm in spec.arms)
        assert read == (config.tokenswap.judge in named)
    for group in made.groups:
        spec = group_spec(config, "tokenswap", group)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_arms_have_the_domains_and_lengths_of_the_experiments_that_ask_for_them(planned):
    """Worked out from the experiments; the job's own stand where an arm has none."""
    config, made = planned
    section = config.tokenswap
    for group in made.arm_groups:
        spec = arm_group_spec(config, group)
        for arm in spec.arms:
            asking = [section.experiments[name] for name, arms in made.experiments.items() if arm.name in arms]
            asking = [one for one in asking if {"passages", "cost"} & set(one.measure)]
            wanted = {name for one in asking for name in one.domains or section.domains}
            if not wanted:
                continue
            assert set(arm.domains or spec.domains) == wanted
            for name in wanted:
                source = section.domains[name]
                own = (None, None) if isinstance(source, list) else (source.prefix, source.suffix)
                assert (arm.prefix or spec.prefix) == (own[0] or section.prefix)
                assert (arm.suffix or spec.suffix) == (own[1] or section.suffix)


def test_public_models_are_tuned_on_passages_in_their_own_tokens():
    config = load_config(FOLDER, {"scale": "paper"})
    made = plan(config, "tokenswap")
    run = made.runs["mix2-llama_3_2_3b-s0"]
    assert [(part.folder, part.first, part.items, part.copies) for part in run.data.parts] == [
        ("passages_prose_llama_3_2_3b", 500, 1500, [50]),
        ("passages_math_llama_3_2_3b", 500, 1500, [50]),
    ]
    assert run.steps == 2 * 1500 * 50 and run.initial is None and run.model.asset == "llama_3_2_3b"
    assert run.optimizer.learning_rate == 5e-5 and run.precision == "bfloat16"
    folders = {part.folder for run in made.runs.values() for part in run.data.parts}
    assert folders <= set(passage_sets(config, made)) and "background_other" not in passage_sets(config, made)
    assert readers(config, made)["pile"] == sorted(
        f"pythia_{size}" for size in ("70m", "160m", "410m", "1b", "1_4b", "2_8b", "6_9b")
    )
    assert "wikitext" not in readers(config, made)


def test_arms_of_the_paper_scale_are_the_papers():
    """Sizes and auxiliaries of tables 3, 5, 9, 11, 12 and 13."""
    made = plan(load_config(FOLDER, {"scale": "paper"}), "tokenswap")

    def arms(experiment):
        return [made.arms[name] for name in made.experiments[experiment] if made.arms[name].seed == 0]

    assert [arm.aux.size for arm in arms("auxiliaries")[1:]] == [
        "distilgpt2", "smollm_135m", "smollm_360m", "smollm_1_7b"
    ]  # fmt: skip
    assert [arm.words for arm in arms("words")[1:]] == [f"english-{n}" for n in (9, 43, 66, 110, 136)]
    parameters = [arm.model.parameters for arm in arms("sizes")]
    assert len(parameters) == 14 and parameters[:7] == sorted(parameters[:7]) == parameters[7:]
    assert {arm.aux.size for arm in arms("sizes")[7:]} == {"pythia_70m"}
    assert {arm.model.size for arm in arms("vocabulary")} == {"olmo_2_13b"}
    assert not made.arms["public-pythia_6_9b-standard-s0"].model.run


def test_other_scales_read_nothing_public():
    for scale in set(SCALES) - {"paper"}:
        config = load_config(FOLDER, {"scale": scale})
        made = plan(config, "tokenswap")
        assert not readers(config, made) and not passage_assets(config, made)
        assert passage_sets(config, made) == ["passages_prose", "passages_math", "background", "background_other"]


def test_rounds_repeat_the_background_and_nothing_else():
    once, thrice = (
        plan(load_config(FOLDER, {"tokenswap": {"recipes": {"wild": {"rounds": rounds}}}}), "tokenswap")
        for rounds in (1, 3)
    )
    before, after = (made.runs["wild-M-s0"].data.parts for made in (once, thrice))
    assert after[0].exposures == 3 * before[0].exposures and after[1:] == before[1:]


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
        ({"experiments": {"wild": {"domains": ["mat"]}}}, "no domain named 'mat': did you mean 'math'"),
        ({"recipes": {"wild": {"domains": ["mat"]}}}, "no domain named 'mat': did you mean 'math'"),
        ({"domains": {"math": {**PUBLIC, "suffix": 9}}}, "prefix + suffix differ (prose 20 +"),
        ({"domains": {"math": {**PUBLIC, "suffix": 900}}}, "is below prefix + suffix of domain math"),
        ({"domains": {"math": {**PUBLIC, "fewer": True}}}, "nobody knows how many to train on"),
        ({"other_vocabulary": None}, "write a number as `other_vocabulary`"),
        ({"models": {"X": PYTHIA}, "judge": "background-X"}, "trains on background text"),
        ({"models": {"X": PYTHIA}, "judge": "other-X"}, "give 'other' no `tokenizer`"),
        ({"recipes": {"public": {"trained": False}}, "judge": "public-L"}, "'L' is trained from nothing"),
    ],
)
def test_a_wrong_key_is_one_sentence_that_says_what_to_write(change, message):
    with pytest.raises(UserError) as raised:
        load_config(FOLDER, {"tokenswap": change})
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": []}, "`columns` belongs to"),
        ({"tokenizer": "pythia_70m"}, "`tokenizer` belongs to a .pt file"),
        ({"files": "x.csv"}, "ends in none of"),
        ({"files": "x.pt"}, "`tokenizer` belongs to a .pt file"),
        ({"shortest": {"txt": 3}}, "no column named 'txt': did you mean 'text'"),
    ],
)
def test_a_wrong_public_domain_says_what_to_write(change, message):
    with pytest.raises(UserError) as raised:
        load_config(FOLDER, {"tokenswap": {"domains": {"math": {**PUBLIC, **change}}}})
    assert message in str(raised.value)
