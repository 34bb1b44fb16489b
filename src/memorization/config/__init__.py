"""The configuration: typed, validated before the DAG is built, the only source of numbers.

Layers, later ones win: `config/config.yaml`, `config/papers/<paper>.yaml`, `config/scales/<scale>.yaml`, then what the
user gives (`--configfile`, `--config`). `config/schema.json` is generated from these classes for editors:
`python -m memorization.config schema`.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError

from memorization.config.geometry import Geometry
from memorization.config.layernorm import LayerNorm
from memorization.config.patterns import Patterns
from memorization.config.sections import Claims, Compute, Figures, Name, Section, Text, known, nearest
from memorization.config.tokenswap import TokenSwap
from memorization.errors import UserError
from memorization.specs import Positive

__all__ = ["Config", "Section", "check_writable", "known", "layers", "load_config", "merge", "nearest", "read_yaml"]


class Config(Section):
    """Everything."""

    scale: Name
    results: str = Field(description="folder for everything the workflow makes")
    papers: Annotated[list[Literal["patterns", "tokenswap", "layernorm", "geometry"]], Field(min_length=1)]
    seeds: Positive = Field(description="independent repetitions (data, initial weights and order all change)")
    compute: Compute
    text: Text
    claims: Claims
    figures: Figures
    patterns: Patterns
    tokenswap: TokenSwap
    layernorm: LayerNorm
    geometry: Geometry


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


# the same safe loader, in C where PyYAML has it: every call of snakemake reads all of config/
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a syntax error becomes one sentence with its line."""
    try:
        loaded = yaml.load(path.read_text(), Loader=FAST_LOADER) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{place}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected `key: value` lines")
    return loaded


def layers(folder: Path, scale: str) -> dict[str, Any]:
    """Defaults, papers and scale merged."""
    scales = sorted(path.stem for path in (folder / "scales").glob("*.yaml"))
    if scale not in scales:
        raise UserError(f"scale: no scale named {scale!r}{nearest(scale, scales)}")
    merged = read_yaml(folder / "config.yaml")
    for path in sorted((folder / "papers").glob("*.yaml")):
        merged = merge(merged, {path.stem: read_yaml(path)})
    return merge(merged, read_yaml(folder / "scales" / f"{scale}.yaml"))


def load_config(folder: Path, overrides: dict[str, Any]) -> Config:
    """Return the validated configuration, or raise a UserError of one line a problem.

    folder: `config/`. overrides: what the user gave on the command line.
    """
    default_scale = read_yaml(folder / "config.yaml").get("scale", "laptop")
    scale = str(overrides.get("scale", default_scale))
    merged = merge(merge(layers(folder, scale), overrides), {"scale": scale})
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError("\n".join(problem(e, merged) for e in error.errors())) from None


def check_writable(folder: Path) -> None:
    """Raise UserError when `folder` does not exist and cannot be made, or exists and cannot be written."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        what = "is not a folder" if not existing.is_dir() else "may not be written"
        raise UserError(
            f"results: {folder} cannot be used, {existing} {what}: set `results:` to a folder you may write to"
        )


def problem(error: Any, merged: dict[str, Any]) -> str:
    """One sentence about one validation error."""
    place = keys_only([str(part) for part in error["loc"]], merged, missing=error["type"] == "missing")
    where = ".".join(place) or "config"
    if error["type"] == "extra_forbidden":
        return f"config: unknown key `{where}`{nearest(place[-1], sorted(set(fields_at(place[:-1])) - {place[-1]}))}"
    if error["type"] == "missing":
        return f"config: key `{where}` is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return f"config: {where}: {message}"
    return f"config: {where}: {message}, not {error['input']!r}"


def keys_only(place: list[str], merged: Any, *, missing: bool = False) -> list[str]:
    """A place without the parts that pydantic adds where a section is one of several kinds; they are no keys.

    missing: the last part is a key that is not there.
    """
    kept = []
    for number, part in enumerate(place):
        last = number == len(place) - 1
        if isinstance(merged, dict) and part not in merged and not (last and missing):
            continue
        kept.append(part)
        merged = merged.get(part) if isinstance(merged, dict) else None
    return kept


def fields_at(place: list[str]) -> list[str]:
    """Keys allowed at a place of the configuration; where a section is one of several kinds, those of all."""
    models: list[Any] = [Config]
    named = False  # whether the next part is the name of an entry, not a field
    for part in place:
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if named or not inner:
            named = False
            continue
        models = [found for annotation in inner for found in models_inside(annotation)]
        named = any(get_origin(annotation) is dict for annotation in inner)
    return [name for model in models for name in model.model_fields]


def models_inside(annotation: Any) -> list[Any]:
    """The model classes inside an annotation such as dict[str, Model] or Model | Other."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in models_inside(argument)]


def schema() -> str:
    """JSON schema of the configuration, as text."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
