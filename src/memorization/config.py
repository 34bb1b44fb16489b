"""The configuration: typed, validated before the DAG is built, the only source of numbers.

Layers, later ones win: `config/config.yaml`, `config/papers/<paper>.yaml`, `config/scales/<scale>.yaml`, then what the
user gives (`--configfile`, `--config`). `config/schema.json` is generated from these classes for editors:
`python -m memorization.config schema`.
"""

import difflib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from memorization.errors import UserError
from memorization.specs import Fraction, OptimizerSpec, Positive

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


COUNTING = ("mi", "mij", "mijl")  # kinds made of the increment rule


class Section(BaseModel):
    """Base of all sections: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Compute(Section):
    """Where and how training runs."""

    device: Literal["auto", "cpu", "cuda"] = Field(description="auto takes a GPU when there is one")
    precision: Literal["float32", "bfloat16"] = Field(description="bfloat16 is mixed precision: weights stay float32")
    gpus: Annotated[int, Field(ge=0)] = Field(description="GPUs one training job asks the scheduler for")
    threads: Positive = Field(
        description="CPU threads of one training job; results are bit-equal at equal threads only"
    )
    runs_per_job: Positive = Field(description="runs one training process takes in turn: start-up is paid once")
    pieces_per_job: Positive = Field(description="data sets, tables or figures that one small job makes")
    save_every_seconds: Positive = Field(description="time a kill may cost")


class Text(Section):
    """Real English and its tokenizer."""

    source: Literal["docstrings", "wikitext"] = Field(description="prose of installed packages, or WikiText-103")
    packages: Annotated[list[str], Field(min_length=1)] = Field(
        description="installed packages whose docstrings are read"
    )
    vocabulary: Annotated[int, Field(ge=600, le=65536)] = Field(description="size of the byte-level BPE vocabulary")

    @model_validator(mode="after")
    def vocabulary_of_gpt2(self) -> "Text":
        """WikiText comes with GPT-2's tokenizer."""
        if self.source == "wikitext" and self.vocabulary != 50257:
            raise ValueError("source: wikitext uses GPT-2's tokenizer: write `vocabulary: 50257`")
        return self


class Claims(Section):
    """How claims are tested."""

    tested: bool = Field(description="false: every claim is 'not tested' whatever was measured")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(description="level of the intervals")
    bootstrap: Annotated[int, Field(ge=10)] = Field(description="resamples of items")


class Figures(Section):
    """How figures look."""

    dpi: Annotated[int, Field(ge=50, le=600)] = Field(description="of the PNGs")
    watermark: bool = Field(description="print the scale across every figure")


class ModelSize(Section):
    """One model size."""

    layers: Positive
    width: Positive
    heads: Positive = 1


class DataSetConfig(Section):
    """One data set: a kind (see docs/patterns.md) and its own options."""

    kind: str
    options: dict[str, int | float | str | bool] = {}


class Experiment(Section):
    """Runs = data x models x items x seeds, or data x pairings x seeds."""

    data: Annotated[list[str], Field(min_length=1)] = Field(description="names of `sets` or `mixtures`")
    models: list[str] = Field(default=[], description="names of `models`")
    items: list[Positive] = Field(default=[], description="training items")
    pairings: list[tuple[str, Positive]] = Field(default=[], description="[model, items] pairs instead of the product")
    seeds: Positive | None = Field(default=None, description="overrides `seeds`")
    batch_size: Positive | None = Field(default=None, description="overrides `batch_size`")
    steps: Positive
    evaluate_every: Positive
    stop: Positive | None = Field(
        description="stop after this many evaluations in a row with exact match 1; null: never"
    )
    recency_every: Positive | None = Field(description="steps between recency measurements; null: none")
    overlap_every: Positive | None = Field(description="steps between BLEU/METEOR/Jaccard measurements; null: none")
    sampling_every: Positive | None = Field(description="steps between sampling measurements; null: none")
    adherence: bool = Field(default=False, description="measure the increment rule on unseen prompts")
    lengths: list[tuple[Positive, Positive]] = Field(
        default=[], description="more [prompt, completion] lengths to score"
    )
    vary: str | None = Field(default=None, description="option of the sets that this experiment varies")

    @model_validator(mode="after")
    def either(self) -> "Experiment":
        """Pairings or a product, not both."""
        if bool(self.pairings) == bool(self.models and self.items):
            raise ValueError("give either `pairings`, or both `models` and `items`")
        return self


class Sampling(Section):
    """Sampling accuracy (section D.2)."""

    samples: Positive
    temperature: Annotated[float, Field(gt=0)]


class Patterns(Section):
    """Transformers seek patterns for memorization."""

    lengths: tuple[Positive, Positive] = Field(description="shortest and longest item, in tokens")
    prompt: Positive = Field(description="prompt tokens")
    completion: Positive = Field(description="completion tokens that must be exact")
    validation: Positive = Field(description="validation items of each set")
    batch_size: Positive
    positions: Positive = Field(description="longest item a model can take")
    optimizer: OptimizerSpec
    dropout: Fraction
    initializer_std: Annotated[float, Field(gt=0)] | None
    text_embedding: Literal["trained", "frozen"] = Field(description="input embedding of runs on text")
    embedding_norm: Annotated[float, Field(gt=0)] = Field(description="length of the rows of a frozen embedding")
    jaccard_order: Positive = Field(description="n of the n-gram Jaccard similarity")
    sampling: Sampling
    models: dict[Name, ModelSize]
    sets: dict[Name, DataSetConfig]
    mixtures: dict[Name, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field(
        description="set -> share of the items"
    )
    experiments: dict[Name, Experiment]

    @model_validator(mode="after")
    def consistent(self) -> "Patterns":
        """Cross-references name things that exist; lengths fit."""
        low, high = self.lengths
        if low > high:
            raise ValueError(f"lengths: shortest {low} is longer than longest {high}: swap them")
        if self.prompt + self.completion > low:
            raise ValueError(
                f"prompt {self.prompt} + completion {self.completion} do not fit in the shortest item ({low} tokens): "
                "write a smaller prompt or completion, or longer lengths"
            )
        for name, shares in self.mixtures.items():
            for member in shares:
                known(member, self.sets, f"mixtures.{name}", "set")
            if abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(f"mixtures.{name}: shares add up to {sum(shares.values()):g}: make them add up to 1")
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            for data in experiment.data:
                known(data, {**self.sets, **self.mixtures}, where, "set or mixture")
            for model in [*experiment.models, *(pair[0] for pair in experiment.pairings)]:
                known(model, self.models, where, "model")
            counting = [data for data in experiment.data if data in self.sets and self.sets[data].kind in COUNTING]
            if experiment.adherence and not counting:
                raise ValueError(
                    f"{where}: adherence needs a set of kind {', '.join(COUNTING)}: write `adherence: false`"
                )
            for prompt, completion in experiment.lengths:
                if prompt + completion > low:
                    raise ValueError(
                        f"{where}.lengths: {prompt} + {completion} do not fit in the shortest item ({low})"
                    )
        return self


class Config(Section):
    """Everything."""

    scale: Name
    results: str = Field(description="folder for everything the workflow makes")
    papers: Annotated[list[Literal["patterns"]], Field(min_length=1)]
    seeds: Positive = Field(description="independent repetitions (data, initial weights and order all change)")
    compute: Compute
    text: Text
    claims: Claims
    figures: Figures
    patterns: Patterns


def known(name: str, names: Any, where: str, what: str) -> None:
    """Raise ValueError with the nearest right name when `name` is not in `names`."""
    if name not in names:
        raise ValueError(f"{where}: no {what} named {name!r}{nearest(name, names)}")


def nearest(name: str, names: Any) -> str:
    """'; did you mean X?' or the list of names."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": known are {', '.join(map(str, names))}"


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a syntax error becomes one sentence with its line."""
    try:
        loaded = yaml.safe_load(path.read_text()) or {}
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
    place = [str(part) for part in error["loc"]]
    where = ".".join(place) or "config"
    if error["type"] == "extra_forbidden":
        return f"config: unknown key `{where}`{nearest(place[-1], sorted(fields_at(place[:-1])))}"
    if error["type"] == "missing":
        return f"config: key `{where}` is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return f"config: {where}: {message}"
    return f"config: {where}: {message}, not {error['input']!r}"


def fields_at(place: list[str]) -> list[str]:
    """Keys allowed at a place of the configuration."""
    model: Any = Config
    for part in place:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        annotation = field.annotation if field else model
        model = model_inside(annotation)
        if model is None:
            return []
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def model_inside(annotation: Any) -> Any:
    """The model class inside an annotation such as dict[str, Model]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inside = model_inside(argument)
        if inside is not None:
            return inside
    return None


def schema() -> str:
    """JSON schema of the configuration, as text."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["schema"]:
        sys.exit("usage: python -m memorization.config schema > config/schema.json")
    print(schema(), end="")
