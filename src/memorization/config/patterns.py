"""Section `patterns`: Transformers seek patterns for memorization."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from memorization.config.sections import ModelSize, Name, Section, known
from memorization.specs import Fraction, OptimizerSpec, Positive

COUNTING = ("mi", "mij", "mijl")  # kinds made of the increment rule


class DataSetConfig(Section):
    """One data set: a kind (see docs/patterns.md) and its own options."""

    kind: str
    options: dict[str, int | float | str | bool] = Field(default={})


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
