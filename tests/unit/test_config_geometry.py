"""Section `geometry`: every mistake is one sentence that says what to write."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from memorization.config import Config, load_config, schema
from memorization.config.geometry import OwnFacts
from memorization.data.facts import check
from memorization.errors import UserError

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))
PYTHIA = {
    "asset": "pythia_70m_along", "parameters": 70, "layers": 6, "width": 512, "steps": [0, 8], "tokens_per_step": 9,
    "tokenizer": "pythia_70m",
}  # fmt: skip


NUMBERS = {
    "length": 32, "entities": 64, "answers": 32, "answer_tokens": 2, "gap": [10, 21], "completion": 4, "probe": 1024,
    "questions": 240, "tuning": 1024, "tests": 32,
}  # fmt: skip


def facts(**changes):
    return {"corpora": {"facts": {**NUMBERS, **changes}}}


def measuring(**changes):
    return {**facts(), "measuring": {"sequences": 1024, "samples": 512, **changes}}


def toy(**changes):
    return {"toy": {"settings": {"main": changes}}}


def variant(**changes):
    return {"third_phase": {"variants": {"more": changes}}}


def ngrams(**changes):
    return {"ngrams": changes}


MISTAKES = [
    # the corpus
    (facts(gap=[12, 10]), "gap: 12 is more than 10: write the smaller number first"),
    (facts(gap=[10, 28]), "gap: 28 tokens do not fit into 32: write a smaller gap or a longer length"),
    (facts(gap=[0, 10]), "gap.0: input should be greater than or equal to 1, not 0"),
    (facts(length=19), "length: input should be greater than or equal to 20, not 19"),
    (facts(length=20, gap=[2, 4], answer_tokens=3), "length: long questions have 21 tokens: write a longer length or"),
    (
        facts(answers=7),
        "answers: 7 words make 49 replies, fewer than the 64 entities: write more answers or answer_tokens",
    ),
    (facts(answer_tokens=1), "answers: 32 words make 32 replies, fewer than the 64 entities"),
    (facts(tests=31), "tests: half of the 64 entities are 32: write at least as many rows"),
    (facts(tuning=31), "tuning: half of the 64 entities are 32: write at least as many rows"),
    (facts(entities=65, tests=32), "tests: half of the 65 entities are 33: write at least as many rows"),
    (facts(completion=32), "completion: 32 tokens of 32 leave no prompt: write a smaller number"),
    (facts(noise=1), "noise: input should be less than 1, not 1"),
    (facts(small_vocabulary=300), "small_vocabulary: input should be greater than or equal to 512, not 300"),
    (facts(other_packages=[]), "other_packages: list should have at least 1 item"),
    (facts(lenght=20), "unknown key `geometry.corpora.facts.lenght`"),
    (facts(kind="docstring"), "input tag 'docstring' found using 'kind'"),
    ({"corpus": "fact"}, "geometry: corpus: no corpus named 'fact': did you mean 'facts'?"),
    ({"corpus": "x"}, "geometry: corpus: no corpus named 'x': known are facts"),
    # models
    ({"main": {"models": ["M", "LL"]}}, "main: no model named 'LL': did you mean 'L'?"),
    ({"main": {"models": ["M", "big"]}}, "main: no model named 'big': known are XS, S, M, L"),
    ({"small": {"models": ["XXS"]}}, "small: no model named 'XXS': did you mean 'XS'?"),
    ({"third_phase": {"model": "big"}}, "third_phase: no model named 'big': known are XS, S, M, L"),
    (variant(model="XXS"), "third_phase: no model named 'XXS': did you mean 'XS'?"),
    ({"sft": {"model": "big"}}, "sft: no model named 'big': known are XS, S, M, L"),
    ({"chain": {"model": "big"}}, "chain: no model named 'big': known are XS, S, M, L"),
    ({"models": {"M": {"heads": 3}}}, "models.M: width 32 is no multiple of its 3 heads"),
    ({"models": {"M": {"layerz": 3}}}, "unknown key `geometry.models.M.layerz`: did you mean 'layers'?"),
    ({"models": {"M": {"architecture": "vit"}}}, "architecture: input should be 'gpt_neox' or 'gpt2', not 'vit'"),
    ({"models": {"M": 3}}, "models.M.own: input should be a valid dictionary"),
    (
        {"models": {"more": PYTHIA}, "main": {"models": ["M", "L", "more"]}},
        "models.more: docstrings are for models from nothing: write `layers` and `width`",
    ),
    ({"models": {"more": {**PYTHIA, "steps": []}}}, "steps: list should have at least 1 item"),
    # experiments
    (
        {**facts(small_vocabulary=None)},
        "third_phase.variants.few_tokens: the corpus has no small vocabulary: write the number of its tokens as "
        "corpora.facts.small_vocabulary",
    ),
    (variant(weight_decy=2.0), "third_phase.variants.more.weight_decy`: did you mean 'weight_decay'?"),
    (
        {"pretraining": {"steps": 2000}, "sft": {"bases": [250, 2001]}},
        "sft.bases: 2001, but pre-training has 2000 steps: write no more",
    ),
    (
        {"main": {"steps": 1500}, "sft": {"bases": [250, 2000]}},
        "sft.bases: 2000, but pre-training has 1500 steps: write no more",
    ),
    ({"sft": {"bases": []}}, "sft.bases: list should have at least 1 item"),
    ({"sft": {"model": "S"}}, "sft.model: S is not among main.models: write one of them"),
    ({"chain": {"model": "M"}}, "chain.model: it goes on from a run of sft.model: write L or null"),
    (
        {"chain": {"stages": {"dpo": PYTHIA}}},
        "chain.stages: public models read downloaded sets, not docstrings: write stages: {}",
    ),
    ({"chain": {"stages": {"rl": PYTHIA}}}, "input should be 'sft', 'dpo' or 'grpo', not 'rl'"),
    ({"pretraining": {"optimizer": {"learning_rat": 1}}}, "learning_rat`: did you mean 'learning_rate'?"),
    ({"post_training": {"grpo": {"step": 3}}}, "post_training.grpo.step`: did you mean 'steps'?"),
    ({"post_training": {"replies": 1}}, "post_training.replies: input should be greater than or equal to 2, not 1"),
    ({"post_training": {"beta": 0}}, "post_training.beta: input should be greater than 0, not 0"),
    # measuring
    (
        measuring(sequences=1025),
        "measuring.sequences: 1025, but corpora.facts.probe is 1024: write no more, or a larger probe",
    ),
    (
        measuring(sequences=64),
        "measuring.sequences: 64 sequences cannot span the 64 dimensions of the widest model: write 65 or more",
    ),
    (measuring(ks=[1, 2, 1024]), "measuring: ks: pass@1024 needs 1024 samples, there are 512"),
    (measuring(ks=[1]), "ks: list should have at least 2 items"),
    (measuring(checkpoint=3), "measuring.checkpoint`: did you mean 'checkpoints'?"),
    (measuring(temperature=0), "temperature: input should be greater than 0, not 0"),
    # n-grams and the toy model
    (ngrams(engine="api"), "ngrams: index: engine api needs one: write its name (local: folder), or engine: own"),
    (ngrams(engine="local"), "ngrams: index: engine local needs one: write its name (local: folder)"),
    (ngrams(index="x"), 'ngrams: index: engine own has none: write index: "", or engine: api or local'),
    (ngrams(engine="apis"), "input should be 'own', 'api' or 'local', not 'apis'"),
    (ngrams(tokenizer="llama_2"), "ngrams.tokenizer: docstrings have their own: write null"),
    (
        toy(init="balanced", dimension=3, counts=[2, 2]),
        "toy.settings.main: init: balanced needs as many classes as dimensions: write random, or a smaller dimension",
    ),
    (toy(count=[2, 2]), "toy.settings.main.count`: did you mean 'counts'?"),
    (toy(counts=[2]), "counts: list should have at least 2 items"),
    (toy(dimension=4), "dimension: input should be less than or equal to 3, not 4"),
]


def names(mistakes):
    return [re.sub(r"\W+", "-", message)[:70] for _, message in mistakes]


def one_sentence(overrides, message):
    with pytest.raises(UserError) as caught:
        load_config(FOLDER, overrides)
    said = str(caught.value)
    assert message in said and "\n" not in said and said.startswith("config: ")


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=names(MISTAKES))
def test_a_mistake_is_one_sentence_that_says_what_to_write(change, message):
    one_sentence({"geometry": change}, message)


PUBLIC = [
    ({"main": {"models": ["M"]}}, "models.M: downloaded sets are for public models: write `asset` and `steps`"),
    ({"third_phase": {"model": "olmo2_1b"}}, "third_phase.model: public models are only measured: write null"),
    (
        {"chain": {"model": "olmo2_1b"}},
        "chain.model: public models are only measured: write null, and name them in chain.stages",
    ),
    ({"sft": {"bases": [100000, 7]}}, "sft.bases: olmo2_1b has no checkpoint 7: known are [0, 10000, 20000"),
    (ngrams(engine="own", index=""), "ngrams: engine own counts docstrings only: of downloaded sets write engine: api"),
    (ngrams(tokenizer=None), "of downloaded sets write engine: api or local, its index and its tokenizer"),
    (
        {"corpora": {"published": {"sets": {"texts": {"asset": "x", "file": ["a"], "files": ["b"]}}}}},
        "unknown key `geometry.corpora.published.sets.texts.file`: did you mean 'files'?",
    ),
    ({"models": {"olmo2_7b": {"step": 3}}}, "unknown key `geometry.models.olmo2_7b.step`: did you mean 'steps'?"),
    ({"corpus": "facts"}, "models.pythia_1b: docstrings are for models from nothing: write `layers` and `width`"),
    ({"measuring": {"sequences": 15001}}, "measuring.sequences: 15001, but corpora.published.probe is 15000"),
]


@pytest.mark.parametrize(("change", "message"), PUBLIC, ids=names(PUBLIC))
def test_so_is_a_mistake_about_public_models(change, message):
    one_sentence({"scale": "paper", "geometry": change}, message)


@pytest.mark.parametrize("missing", ["text", "facts", "continuations", "short", "long"])
def test_a_public_corpus_has_every_set_that_is_read(missing):
    kept = {"text", "facts", "continuations", "short", "long"} - {missing}
    small = {
        "kind": "public", "length": 20, "shortest": 3, "probe": 4, "questions": 4, "tuning": 4, "tests": 4,
        "reply_length": 9, "sets": {name: {"asset": "x", "files": ["y"]} for name in kept},
    }  # fmt: skip
    one_sentence(
        {"geometry": {"corpora": {"more": small}}},
        f"sets: {missing} is missing: name the downloaded set that takes its place",
    )


# ---- what is right

RIGHT = [
    facts(gap=[10, 27]),
    facts(gap=[27, 27], answers=8, tests=32, completion=31),
    measuring(sequences=65, ks=[1, 512]),
    {"third_phase": {"model": None}, **facts(small_vocabulary=None)},
    {"chain": {"model": None}, "sft": {"bases": [1]}},
    {"main": {"steps": 2500}, "sft": {"bases": [2500]}},
    {"models": {"more": PYTHIA}},
    {"models": {"wide": {"layers": 1, "width": 5000, "heads": 7}}},  # no experiment has it
    ngrams(engine="local", index="folder"),
    toy(init="balanced", dimension=2, counts=[1, 1]),
]


@pytest.mark.parametrize("change", RIGHT, ids=range(len(RIGHT)))
def test_what_is_right_is_accepted_by_the_classes_and_by_the_schema_that_editors_read(change):
    made = load_config(FOLDER, {"geometry": change})
    jsonschema.validate(json.loads(made.model_dump_json(exclude_unset=True)), json.loads(schema()))
    assert Config.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("scale", SCALES)
def test_both_kinds_of_models_and_of_corpora_survive_json(scale):
    made = load_config(FOLDER, {"scale": scale})
    again = Config.model_validate_json(made.model_dump_json()).geometry
    kinds = {name: type(model).__name__ for name, model in again.models.items()}
    assert {"OwnDecoder"} <= set(kinds.values()) <= {"OwnDecoder", "PublicDecoder"}
    assert again == made.geometry and ("PublicDecoder" in kinds.values()) == (scale == "paper")
    assert again.data.kind == ("public" if scale == "paper" else "docstrings")
    assert set(again.experiments) == {"main", "small", "third_phase", "sft", "chain", "ngrams", "toy"}


@pytest.mark.parametrize(
    "change",
    [
        *({"gap": [low, high], "length": length} for low, high, length in [(1, 27, 32), (1, 28, 32), (5, 4, 32)]),
        *({"length": 20 + more, "gap": [1, 2], "answer_tokens": 3} for more in (0, 1)),
        *({"answers": answers, "answer_tokens": 2} for answers in (7, 8)),
        *({"entities": 65, "tests": tests} for tests in (32, 33)),
        *({"entities": 65, "tuning": tuning} for tuning in (32, 33)),
        *({"completion": completion} for completion in (31, 32)),
    ],
    ids=str,
)
def test_what_the_configuration_accepts_makes_sets(change):
    """The rule's own check, which comes hours later on a cluster, finds nothing that was not found here."""
    given = {**load_config(FOLDER, {}).geometry.data.model_dump(), **NUMBERS, **change}
    try:
        accepted = OwnFacts.model_validate(given)
    except ValueError:
        return
    check({**accepted.model_dump(), "vocabulary": 600})


# ---- the scales


@pytest.mark.parametrize("scale", SCALES)
def test_a_spectrum_has_more_sequences_than_dimensions_with_room_for_the_resamples(scale):
    """A bootstrap resample holds 63% different sequences; these must span the widest model too."""
    section = load_config(FOLDER, {"scale": scale}).geometry
    used = [*section.main.models, *section.small.models, section.sft.model]
    widest = max(section.models[name].width for name in used)
    assert 0.63 * section.measuring.sequences > widest


@pytest.mark.parametrize("scale", SCALES)
def test_pass_at_k_has_the_papers_ks_or_fewer_and_warmup_ends_before_training(scale):
    section = load_config(FOLDER, {"scale": scale}).geometry
    assert section.measuring.ks == sorted(set(section.measuring.ks)) and section.measuring.ks[0] == 1
    if scale != "smoke":
        assert {16, 256} <= set(section.measuring.ks)
        for one in (section.pretraining, section.post_training.sft, section.post_training.dpo):
            assert one.optimizer.warmup < one.steps
    assert section.sft.bases == sorted(set(section.sft.bases)) and len(section.sft.bases) >= 2


def test_models_of_the_laptop_grow_in_width_alone():
    """So that sizes are compared, not shapes."""
    models = load_config(FOLDER, {}).geometry.models
    assert {(model.layers, model.architecture) for model in models.values()} == {(2, "gpt_neox")}
    widths = [model.width for model in models.values()]
    assert widths == sorted(widths) and all(model.width // model.heads >= 8 for model in models.values())
