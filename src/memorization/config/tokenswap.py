"""Section `tokenswap`: decoding that disrupts memorized sequences."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from memorization.config.sections import ModelSize, Name, Section, known
from memorization.specs import Fraction, Measure, OptimizerSpec, Positive

WORDS = re.compile(r"english-(9|43|66|110|136)|content-(matched|[1-9]\d*)")


class ScratchModel(ModelSize):
    """One model size trained from nothing, and its learning rate."""

    learning_rate: Annotated[float, Field(gt=0)]


class PublicModel(Section):
    """A public checkpoint of config/assets.yaml."""

    asset: str
    parameters: Positive = Field(description="non-embedding parameters, to order sizes by")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(default=None, description="where a recipe tunes it")


class Recipe(Section):
    """How a model is trained: on what, how often, and from where."""

    start: str | None = Field(default=None, description="recipe whose model of the same size is trained on")
    trained: bool = Field(default=True, description="false: a public checkpoint as it is")
    background: tuple[Fraction, Fraction] | None = Field(
        default=None, description="share of the background sequences that is trained on: from, to"
    )
    passages: tuple[Fraction, Fraction] | None = Field(
        default=None, description="share of each domain's passages that is trained on: from, to"
    )
    copies: Annotated[list[Positive], Field(min_length=1)] = Field(
        default=[1], description="occurrences of a passage; several values are taken in turn, passage by passage"
    )
    goldfish: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="k of the Goldfish loss, which leaves every k-th token out, chosen by a hash"
    )
    tokenizer: Literal["main", "other"] = Field(default="main", description="other: a vocabulary of its own")
    batch_size: Positive | None = Field(default=None, description="overrides `batch_size`")
    rate: Annotated[float, Field(gt=0)] = Field(default=1.0, description="factor on the size's learning rate")

    @model_validator(mode="after")
    def something(self) -> "Recipe":
        """A recipe trains on something or not at all."""
        if self.trained != bool(self.background or self.passages):
            raise ValueError("a recipe needs `background: [from, to]` or `passages: [from, to]`, or `trained: false`")
        for name in ("background", "passages"):
            share = getattr(self, name)
            if share and share[0] >= share[1]:
                raise ValueError(f"{name}: {list(share)} is empty: write from, to with from < to")
        if self.start and self.tokenizer == "other":
            raise ValueError("a recipe with a `start` has its tokenizer: leave `tokenizer` out")
        return self


class Arm(Section):
    """One way of decoding one model."""

    model: str = Field(description="recipe-size, such as wild-L")
    method: Literal["standard", "tokenswap", "memfree", "cp_fuse", "speculative"] = "standard"
    aux: str | None = Field(default=None, description="second model: auxiliary, CP-Fuse's partner, or draft")
    words: str | None = Field(default=None, description="swap set; default `words` with method tokenswap")
    decoding: Literal["greedy", "sample"] = "greedy"

    @model_validator(mode="after")
    def fits(self) -> "Arm":
        """Only methods with a second model have one; only TokenSwap has words."""
        if (self.aux is not None) != (self.method in ("tokenswap", "cp_fuse", "speculative")):
            raise ValueError("`aux` belongs to methods tokenswap, cp_fuse and speculative, which need one")
        if self.words is not None and self.method != "tokenswap":
            raise ValueError("`words` belongs to method tokenswap")
        if self.words is not None and not WORDS.fullmatch(self.words):
            raise ValueError(
                f"no swap set named {self.words!r}: write english-9, -43, -66, -110 or -136, content-matched, or "
                "content-<number of words>"
            )
        return self


class Decoding(Section):
    """One experiment: its arms and what is measured of each."""

    arms: Annotated[list[Arm], Field(min_length=1)]
    measure: Annotated[list[Measure], Field(min_length=1)]
    seeds: Positive | None = Field(default=None, description="overrides `seeds`")


class Cloze(Section):
    """Questions whose answer is the next word."""

    questions: Positive = Field(description="of each kind")
    options: Annotated[int, Field(ge=2)]
    context: tuple[Positive, Positive] = Field(description="shortest and longest context, in tokens")
    groups: Annotated[list[Annotated[list[str], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="groups of packages, named after their first, for table 7"
    )


class Cost(Section):
    """Timing."""

    tokens: Positive = Field(description="tokens written")
    batch: Positive = Field(description="passages of the larger batch")
    repeats: Positive = Field(description="the median counts")


class TokenSwap(Section):
    """TokenSwap: decoding that disrupts memorized sequences."""

    prefix: Positive = Field(description="prompt tokens of a passage")
    suffix: Positive = Field(description="tokens of a passage that may be reproduced")
    domains: dict[Name, Annotated[list[str], Field(min_length=1)]] = Field(
        description="domain -> packages whose docstrings its passages come from"
    )
    passages: Positive = Field(description="passages of each domain")
    background: Positive = Field(description="background sequences")
    length: Positive = Field(description="tokens of a background or held-out sequence")
    overlap: Positive = Field(description="tokens in a row shared with a passage that bar a sequence")
    held_out: Positive = Field(description="held-out sequences for the cross-entropy")
    vocabulary: Annotated[int, Field(ge=600, le=65536)] = Field(description="of the main tokenizer")
    other_vocabulary: Annotated[int, Field(ge=600, le=65536)] = Field(description="of recipe tokenizer `other`")
    architecture: Literal["gpt2", "gpt_neox"]
    optimizer: OptimizerSpec
    batch_size: Positive
    runs_per_job: Positive = Field(description="overrides compute.runs_per_job: these runs are longer")
    arms_per_job: Positive = Field(description="decoding arms that one process takes in turn")
    models: dict[Name, ScratchModel | PublicModel]
    recipes: dict[Name, Recipe]
    words: str = Field(description="the swap set where an arm names none")
    memfree_order: Annotated[int, Field(ge=2)] = Field(description="n of MemFree")
    memfree_prompt: bool = Field(description="n-grams that begin in the prompt count")
    draft_tokens: Positive = Field(description="tokens a draft proposes at a time")
    samples: Positive = Field(description="samples of each passage where decoding samples")
    sampled_passages: Positive = Field(description="passages of each domain that are measured where decoding samples")
    judge: str = Field(description="model whose loss on the written text stands for its fluency")
    examples: Positive = Field(description="passages whose texts are kept for figure 4")
    cloze: Cloze
    cost: Cost
    experiments: dict[Name, Decoding]

    @model_validator(mode="after")
    def consistent(self) -> "TokenSwap":
        """Cross-references name things that exist; lengths fit."""
        if self.length < self.prefix + self.suffix:
            raise ValueError(
                f"length {self.length} is below prefix {self.prefix} + suffix {self.suffix}: write a larger one"
            )
        if self.words and not WORDS.fullmatch(self.words):
            raise ValueError(f"words: no swap set named {self.words!r}: english-110 is the paper's")
        for name, recipe in self.recipes.items():
            if recipe.start:
                known(recipe.start, self.recipes, f"recipes.{name}", "recipe")
                if self.recipes[recipe.start].start:
                    raise ValueError(f"recipes.{name}: {recipe.start!r} has a `start` itself: one step only")
        self.check_model(self.judge, "judge")
        for name, experiment in self.experiments.items():
            for arm in experiment.arms:
                for model in (arm.model, arm.aux):
                    if model:
                        self.check_model(model, f"experiments.{name}")
        return self

    def check_model(self, model: str, where: str) -> None:
        """Raise ValueError unless `model` is recipe-size, both known."""
        recipe, _, size = model.partition("-")
        known(recipe, self.recipes, f"{where}, model {model!r}", "recipe")
        known(size, self.models, f"{where}, model {model!r}", "size")
        public = isinstance(self.models[size], PublicModel)
        if not self.recipes[recipe].trained and not public:
            raise ValueError(f"{where}: recipe {recipe!r} takes a public model, {size!r} is trained from nothing")
        if public and self.recipes[recipe].tokenizer == "other":
            raise ValueError(f"{where}: a public model has a tokenizer of its own: give {recipe!r} no `tokenizer`")
