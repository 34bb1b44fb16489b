"""Section `layernorm`: every mistake is one sentence that says what to write."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from memorization.config import Config, load_config, schema
from memorization.errors import UserError

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))
RECIPE = {
    "epochs": {"pre": 4, "post": 2}, "batch_size": 8, "optimizer": {}, "evaluate_every": 1, "gradients_every": 2,
    "gradient_items": 4,
}  # fmt: skip
NEWS = {"kind": "public_text", "asset": "news", "classes": ["a", "b"], "noisy_class": "b", "train": 20, "validation": 5}
PHOTOS = {**NEWS, "kind": "public_images"}
BERT = {"asset": "bert", "position": "post", "data": "packages", "parameters": 10, "layers": 6}
GPT = {"architecture": "gpt2", "position": "pre", "data": "packages", "layers": 3, "width": 8, "heads": 2}
TEXTS = {
    "kind": "docstrings", "shares": [["numpy", 0.6], ["pandas", 0.4]], "noisy_class": "numpy", "tokens": 12,
    "train": 20, "validation": 5, "pretraining": 30, "pretraining_validation": 5,
}  # fmt: skip
RUNS = {"models": ["text_pre"], "arms": ["none"], "noise": [0.02]}


def texts(**changes):
    return {"sets": {"more": {**TEXTS, **changes}}}


def experiment(**changes):
    return {"experiments": {"more": {**RUNS, **changes}}}


MISTAKES = [
    # sets
    (texts(noisy_class="nunpy"), "noisy_class: no class named 'nunpy': did you mean 'numpy'?"),
    (texts(noisy_class="x"), "noisy_class: no class named 'x': known are numpy, pandas"),
    (texts(shares=[["numpy", 0.999]]), "classes: label noise needs a class to flip to: write at least two"),
    (texts(shares=[["numpy", 0.6], ["pandas", 0.3]]), "shares: they add up to 0.9: make them add up to 1"),
    (texts(shares=[["numpy", 0.3], ["pandas", 0.4], ["numpy", 0.3]]), "classes: 'numpy' stands there twice"),
    (texts(shares=[["numpy", 0.0], ["pandas", 0.4], ["scipy", 0.6]]), "input should be greater than 0, not 0.0"),
    (texts(tokens=7), "tokens: input should be greater than or equal to 8, not 7"),
    (texts(train=0), "train: input should be greater than or equal to 1, not 0"),
    (texts(trian=3), "trian`: did you mean 'train'?"),
    ({"sets": {"digits": {"noisy_class": "10"}}}, "noisy_class: no class named '10': did you mean '1'?"),
    ({"sets": {"news": {**NEWS, "classes": ["b"]}}}, "classes: label noise needs a class to flip to"),
    ({"sets": {"news": {**NEWS, "classes": ["a", "b", "b"]}}}, "classes: 'b' stands there twice: write each once"),
    ({"sets": {"news": {**NEWS, "noisy_class": "c"}}}, "noisy_class: no class named 'c': known are a, b"),
    ({"sets": {"more": {**TEXTS, "kind": "docstring"}}}, "input tag 'docstring' found using 'kind'"),
    # fine-tuning and pre-training
    (
        {"fine_tuning": {"more": {**RECIPE, "epochs": {"pre": 3}}}},
        "epochs: write a budget for `pre` and one for `post`",
    ),
    ({"fine_tuning": {"digits": {"epochs": {"mid": 3}}}}, "input should be 'pre' or 'post', not 'mid'"),
    ({"fine_tuning": {"digits": {"epochs": {"pre": 0}}}}, "input should be greater than or equal to 1, not 0"),
    ({"pretraining": {"packages": {"share": 0}}}, "pretraining.packages.share: input should be greater than 0, not 0"),
    ({"pretraining": {"packages": {"share": 1.1}}}, "share: input should be less than or equal to 1, not 1.1"),
    ({"pretraining": {"packages": {"word_weight": 0}}}, "word_weight: input should be greater than or equal to 1"),
    (
        {"pretraining": {"packages": {"optimizer": {"norm_rate": 0}}}},
        "norm_rate: input should be greater than 0, not 0",
    ),
    (
        {"fine_tuning": {"digits": {"optimizer": {"name": "lion"}}}},
        "input should be 'adam', 'adamw' or 'muon', not 'lion'",
    ),
    ({"pretraining": {"digits": {"share": 0.5}}}, "pretraining.digits: images have no words: leave `share` and"),
    ({"pretraining": {"digits": {"word_weight": 2}}}, "pretraining.digits: images have no words: leave `share` and"),
    (
        {"pretraining": {"digit": {"steps": 1, "batch_size": 1, "optimizer": {}, "evaluate_every": 1}}},
        "pretraining: no set named 'digit': did you mean 'digits'?",
    ),
    ({"dropout": 1.5}, "layernorm.dropout: input should be less than or equal to 1, not 1.5"),
    ({"wording": "set"}, "layernorm.wording: input should be 'train_set' or 'class', not 'set'"),
    # models
    ({"models": 3}, "layernorm.models: input should be a valid dictionary, not 3"),
    ({"models": {"more": 3}}, "models.more.own: input should be a valid dictionary"),
    (
        {"models": {"more": {"position": "pre"}}},
        "models.more: write `architecture` (from nothing) or `asset` (a public",
    ),
    ({"models": {"text_pre": {"layerz": 3}}}, "layerz`: did you mean 'layers'?"),
    ({"models": {"text_pre": {"position": "mid"}}}, "position: input should be 'pre' or 'post', not 'mid'"),
    ({"models": {"text_pre": {"architecture": "bert"}}}, "input should be 'gpt2', 'openai_gpt' or 'vit', not 'bert'"),
    (
        {"models": {"text_pre": {"data": "package"}}},
        "models.text_pre.data: no set named 'package': did you mean 'packages'?",
    ),
    (
        {**texts(), "models": {"text_pre": {"data": "more"}}},
        "models.text_pre.data: no entry of fine_tuning named 'more': known are packages, digits",
    ),
    (
        {**texts(), "models": {"text_pre": {"data": "more"}}, "fine_tuning": {"more": RECIPE}},
        "models.text_pre.data: no entry of pretraining named 'more': known are packages, digits",
    ),
    ({"models": {"text_pre": {"data": "digits"}}}, "models.text_pre: digits needs architecture vit"),
    (
        {"models": {"digits_pre": {"data": "packages"}}},
        "models.digits_pre: packages needs architecture gpt2 (Pre-LN) or openai_gpt (Post-LN)",
    ),
    ({"models": {"text_pre": {"position": "post"}}}, "models.text_pre: gpt2 has its norms pre: write position: pre"),
    (
        {"models": {"text_post": {"position": "pre"}}},
        "models.text_post: openai_gpt has its norms post: write position: post",
    ),
    ({"models": {"digits_pre": {"position": "post"}}}, "models.digits_pre: vit has its norms pre: write position: pre"),
    ({"models": {"text_pre": {"heads": 3}}}, "models.text_pre: width 32 is no multiple of its 3 heads"),
    ({"models": {"digits_pre": {"patch": None}}}, "models.digits_pre: digits holds images: give the side of a `patch`"),
    ({"models": {"text_pre": {"patch": 2}}}, "models.text_pre: packages holds texts: leave `patch` out"),
    ({"models": {"digits_pre": {"patch": 3}}}, "models.digits_pre: patches of 3 do not fill 8 pixels: write 1, 2 or 4"),
    (
        {"sets": {"news": NEWS}, "fine_tuning": {"news": RECIPE}, "models": {"more": {**GPT, "data": "news"}}},
        "models.more: news is a downloaded set, for public checkpoints: write `asset`, or a set of docstrings or",
    ),
    (
        {"models": {"more": {k: v for k, v in BERT.items() if k != "layers"}}},
        "key `layernorm.models.more.layers` is",
    ),
    ({"models": {"more": {**BERT, "width": 3}}}, "unknown key `layernorm.models.more.width`"),
    # experiments
    (experiment(models=["text_per"]), "experiments.more: no model named 'text_per': did you mean 'text_pre'?"),
    (experiment(models=["x"]), "experiments.more: no model named 'x': known are text_pre, text_post, digits_pre"),
    (experiment(arms=[]), "fine-tuning needs `arms` and `noise`: write at least one of each"),
    (experiment(noise=[]), "fine-tuning needs `arms` and `noise`: write at least one of each"),
    (experiment(stage="pretraining"), "pre-training has no arms, no noise and no gradients: write only `models` and"),
    (
        {"experiments": {"pretraining": {"gradients": True}}},
        "pre-training has no arms, no noise and no gradients: write only `models` and `seeds`",
    ),
    (experiment(noise=[2]), "input should be less than 1, not 2"),
    (
        experiment(arms=["al"]),
        "input should be 'none', 'all', 'early', 'middle', 'late', 'attention' or 'feed_forward'",
    ),
    (experiment(arm=["all"]), "unknown key `layernorm.experiments.more.arm`: did you mean 'arms'?"),
    (experiment(optimizer="sgd"), "input should be 'adamw' or 'muon', not 'sgd'"),
    (
        {"models": {"text_pre": {"layers": 2}}},
        "experiments.main: text_pre has 2 layers, too few for early, middle and late thirds: write at least 3 layers, "
        "or arms none and all",
    ),
    (
        {"models": {"more": {**BERT, "layers": 2}}, **experiment(models=["more"], arms=["none", "late"])},
        "experiments.more: more has 2 layers, too few for early, middle and late thirds",
    ),
    (
        {"models": {"more": BERT}, "experiments": {"more": {"stage": "pretraining", "models": ["more"]}}},
        "experiments.more: more is trained already: leave it out",
    ),
    (
        experiment(models=["text_pre", "digits_pre"], form="label_word"),
        "experiments.more: images have no word to predict: write `form: classifier`",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[re.sub(r"\W+", "-", m)[:60] for _, m in MISTAKES])
def test_a_mistake_is_one_sentence_that_says_what_to_write(change, message):
    with pytest.raises(UserError) as caught:
        load_config(FOLDER, {"layernorm": change})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("config: ")


RIGHT = [
    texts(),
    {**texts(), "models": {"more": {**GPT, "data": "more"}}, "fine_tuning": {"more": RECIPE}},
    {"models": {"more": {**BERT, "layers": 2}}, **experiment(models=["more"], arms=["none", "all", "attention"])},
    {"models": {"digits_pre": {"patch": 8}}},
    {
        "sets": {"photos": PHOTOS},
        "fine_tuning": {"photos": RECIPE},
        "models": {"more": {**BERT, "data": "photos"}},
        **experiment(models=["more"]),
    },
    # no thirds of two layers and no words of images: nothing is wrong with the model itself
    {"models": {"more": {**GPT, "layers": 2}}, **experiment(models=["more"], arms=["none", "all"], start="scratch")},
    {
        **texts(),
        "fine_tuning": {"more": RECIPE},
        "models": {"more": {**GPT, "data": "more"}},
        **experiment(models=["more"], start="scratch"),
    },
]


@pytest.mark.parametrize("change", RIGHT, ids=range(len(RIGHT)))
def test_what_is_right_is_accepted_by_the_classes_and_by_the_schema_that_editors_read(change):
    made = load_config(FOLDER, {"layernorm": change})
    jsonschema.validate(json.loads(made.model_dump_json(exclude_unset=True)), json.loads(schema()))
    assert Config.model_validate_json(made.model_dump_json()) == made


def test_both_kinds_of_models_survive_json():
    made = load_config(FOLDER, {"layernorm": {"models": {"more": {**BERT, "fine_tuning": RECIPE}}}})
    kinds = {name: type(model).__name__ for name, model in made.layernorm.models.items()}
    again = Config.model_validate_json(made.model_dump_json()).layernorm.models
    assert {name: type(model).__name__ for name, model in again.items()} == kinds
    assert kinds["text_pre"] == "OwnModel" and kinds["more"] == "PublicNormModel"


def test_a_checkpoints_own_recipe_replaces_that_of_its_set_as_a_whole():
    own = {**RECIPE, "batch_size": 3}
    section = load_config(
        FOLDER, {"layernorm": {"models": {"one": {**BERT, "fine_tuning": own}, "two": BERT}}}
    ).layernorm
    assert section.recipe(section.models["one"]).batch_size == 3
    assert section.recipe(section.models["one"]).optimizer.learning_rate == 1e-3  # the default, not that of packages
    assert section.recipe(section.models["two"]) == section.fine_tuning["packages"]
    assert section.recipe(section.models["text_pre"]) == section.fine_tuning["packages"]


def test_classes_are_in_the_order_in_which_they_are_written():
    written = yaml.safe_load((FOLDER / "papers" / "layernorm.yaml").read_text())
    section = load_config(FOLDER, {}).layernorm
    assert section.sets["packages"].classes == [name for name, _ in written["sets"]["packages"]["shares"]]
    assert section.sets["digits"].classes == list("0123456789")


@pytest.mark.parametrize("scale", SCALES)
def test_twins_differ_in_nothing_but_where_their_norms_are(scale):
    models = load_config(FOLDER, {"scale": scale}).layernorm.models
    pre, post = (models[name].model_dump() for name in ("text_pre", "text_post"))
    assert {key for key in pre if pre[key] != post[key]} == {"architecture", "position"}


@pytest.mark.parametrize("scale", SCALES)
def test_evaluations_fall_on_the_shorter_budget_and_on_the_last_epoch(scale):
    """Else the reading at the paper's budget would be that of another epoch, and gradients without accuracy."""
    section = load_config(FOLDER, {"scale": scale}).layernorm
    used = {name for one in section.experiments.values() for name in one.models}
    for name in used:
        recipe = section.recipe(section.models[name])
        assert all(epochs % recipe.evaluate_every == 0 for epochs in recipe.epochs.values()), name
        assert recipe.gradients_every % recipe.evaluate_every == 0, name


@pytest.mark.parametrize("scale", SCALES)
def test_the_wrong_labels_asked_for_fit_their_class(scale):
    """By the shares of the classes, where the configuration gives them."""
    section = load_config(FOLDER, {"scale": scale}).layernorm
    for name, one in section.experiments.items():
        for model in one.models:
            data = section.sets[section.models[model].data]
            if data.kind != "docstrings" or section.wording != "train_set":
                continue
            for noise in one.noise:
                assert 1 <= int(noise * data.train) <= dict(data.shares)[data.noisy_class] * data.train - 1, (
                    name,
                    model,
                )
