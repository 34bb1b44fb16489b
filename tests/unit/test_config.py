"""Configuration: layers, errors that name the right key, a schema in step with the classes."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from memorization import config as module
from memorization.config import Config, layers, load_config, merge
from memorization.errors import UserError

FOLDER = Path(__file__).parents[2] / "config"
SCALES = sorted(path.stem for path in (FOLDER / "scales").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_valid_and_keeps_its_name(scale):
    assert load_config(FOLDER, {"scale": scale}).scale == scale


def test_later_layers_win_and_mappings_merge():
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert merge(base, {"a": {"y": 3}, "b": [9]}) == {"a": {"x": 1, "y": 3}, "b": [9]}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert load_config(FOLDER, {"scale": "smoke", "seeds": 7}).seeds == 7
    assert load_config(FOLDER, {"scale": "smoke"}).seeds == 1


@pytest.mark.parametrize("scale", SCALES)
def test_scales_hold_only_differences(scale):
    """A key that a scale repeats unchanged would silently stop following config.yaml."""
    defaults = merge(
        module.read_yaml(FOLDER / "config.yaml"),
        {path.stem: module.read_yaml(path) for path in (FOLDER / "papers").glob("*.yaml")},
    )

    def repeated(over, under, path=()):
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(under.get(key), dict):
                yield from repeated(value, under[key], (*path, key))
            elif key in under and under[key] == value:
                yield ".".join((*path, key))

    assert list(repeated(module.read_yaml(FOLDER / "scales" / f"{scale}.yaml"), defaults)) == []


def test_the_schema_is_in_step_with_the_classes():
    assert (FOLDER / "schema.json").read_text() == module.schema(), "run `make schema` and commit config/schema.json"


@pytest.mark.parametrize("scale", SCALES)
def test_the_schema_accepts_what_the_classes_accept(scale):
    merged = {**layers(FOLDER, scale), "scale": scale}
    jsonschema.validate(json.loads(json.dumps(merged)), json.loads((FOLDER / "schema.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**merged, "sede": 1}, json.loads((FOLDER / "schema.json").read_text()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"compute": {"thread": 2}}, "unknown key `compute.thread`: did you mean 'threads'?"),
        ({"patterns": {"models": {"M": {"depth": 2}}}}, "unknown key `patterns.models.M.depth`"),
        ({"patterns": {"sampling": {"sample": 2}}}, "`patterns.sampling.sample`: did you mean 'samples'?"),
        ({"patterns": {"lengths": [36, 24]}}, "shortest 36 is longer than longest 24: swap them"),
        ({"patterns": {"experiments": {"alone": {"models": ["XM"]}}}}, "no model named 'XM'"),
        ({"patterns": {"experiments": {"pairs": {"items": [4], "models": ["M"]}}}}, "give either `pairings`, or both"),
        (
            {"patterns": {"experiments": {"pairs": {"lengths": [[20, 9]]}}}},
            "20 + 9 do not fit in the shortest item (22)",
        ),
        ({"claims": {"confidence": 0.4}}, "claims.confidence: input should be greater than 0.5, not 0.4"),
    ],
)
def test_errors_say_what_to_write_instead(overrides, message):
    with pytest.raises(UserError) as caught:
        load_config(FOLDER, overrides)
    assert message in str(caught.value)


def test_several_mistakes_are_all_reported():
    with pytest.raises(UserError) as caught:
        load_config(FOLDER, {"seeds": 0, "papers": ["x"], "nonsense": 1})
    assert len(str(caught.value).splitlines()) == 3


def test_every_field_of_the_house_is_described():
    """Editors show these texts beside the keys."""
    for section in (module.Compute, module.Text, module.Claims, module.Figures):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_comments_explain_every_key_of_the_house():
    """config.yaml is the manual: each key stands below a comment."""
    lines = (FOLDER / "config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        is_leaf = ":" in line and not line.lstrip().startswith("#") and line.split(":", 1)[1].strip()
        if is_leaf:
            assert lines[number - 1].lstrip().startswith("#"), (
                f"config.yaml line {number + 1}: explain `{line.strip()}`"
            )


def test_the_file_order_of_merging_is_the_documented_one():
    house = yaml.safe_load((FOLDER / "config.yaml").read_text())
    assert house["scale"] == "laptop"
    papers = {path.stem for path in (FOLDER / "papers").glob("*.yaml")}
    assert set(house) | papers == set(Config.model_fields)
