"""Section `tokenswap`: decoding that disrupts memorized sequences."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from memorization.config.sections import ModelSize, Name, Section, known
from memorization.specs import Fraction, Measure, OptimizerSpec, Positive

WORDS = re.compile(r"english-(9|43|66|110|136)|content-(matched|[1-9]\d*)")


class ScratchModel(ModelSize):
    """One model size trained from nothing, and its learning rate."""

    learning_rate: Annotated[float, Field(gt=0)] | None = Field(default=None, description="null: the optimizer's")


class PublicModel(Section):
    """A public checkpoint of config/assets.yaml."""

    asset: str
    parameters: Positive = Field(description="non-embedding parameters, to order sizes by")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(default=None, description="where a recipe tunes it")


class PublicTexts(Section):
    """Passages from files of an asset of kind `dataset`: the beginnings of its texts."""

    asset: str
    files: str = Field(description="glob below the asset's folder: .parquet, .jsonl, .json or .pt")
    columns: list[str] = Field(default=[], description="columns that make up a text, joined with `separator`")
    start: str = Field(default="", description="stands before the first column")
    separator: str = "\n"
    tokenizer: str | None = Field(
        default=None, description="of a .pt file, which holds token ids: the asset whose tokenizer decodes them"
    )
    natural: bool = Field(default=False, description="only natural language: our own filter, see data/public.py")
    shortest: dict[str, Positive] = Field(default={}, description="column -> fewest characters")
    longest: dict[str, Positive] = Field(default={}, description="column -> most characters")
    passages: Positive | None = Field(default=None, description="overrides `passages`")
    fewer: bool = Field(default=False, description="fewer texts than `passages` are no error: all are taken")
    prefix: Positive | None = Field(default=None, description="overrides `prefix`")
    suffix: Positive | None = Field(default=None, description="overrides `suffix`")

    @model_validator(mode="after")
    def readable(self) -> "PublicTexts":
        """Texts have columns, token ids a tokenizer."""
        if self.files.endswith(".pt") != (self.tokenizer is not None):
            raise ValueError("`tokenizer` belongs to a .pt file of token ids, which needs one")
        if self.files.endswith(".pt") == bool(self.columns):
            raise ValueError("`columns` belongs to .parquet, .jsonl and .json files, which need it")
        if not self.files.endswith((".parquet", ".jsonl", ".json", ".pt")):
            raise ValueError(f"files: {self.files!r} ends in none of .parquet, .jsonl, .json and .pt")
        for column in {*self.shortest, *self.longest}:
            known(column, self.columns, "shortest or longest", "column")
        return self


class Recipe(Section):
    """How a model is trained: on what, how often, and from where."""

    start: str | None = Field(default=None, description="recipe whose model of the same size is trained on")
    trained: bool = Field(default=True, description="false: a public checkpoint as it is")
    background: tuple[Fraction, Fraction] | None = Field(
        default=None, description="share of the background sequences that is trained on: from, to"
    )
    rounds: Positive = Field(default=1, description="times that the background is gone through")
    passages: tuple[Fraction, Fraction] | None = Field(
        default=None, description="share of each domain's passages that is trained on: from, to"
    )
    domains: list[str] | None = Field(default=None, description="domains whose passages; all if null")
    copies: Annotated[list[Positive], Field(min_length=1)] = Field(
        default=[1], description="occurrences of a passage; several values are taken in turn, passage by passage"
    )
    goldfish: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="k of the Goldfish loss, which leaves every k-th token out, chosen by a hash"
    )
    tokenizer: Literal["main", "other"] = Field(default="main", description="other: a vocabulary of its own")
    batch_size: Positive | None = Field(default=None, description="overrides `batch_size`")
    rate: Annotated[float, Field(gt=0)] = Field(default=1.0, description="factor on the size's learning rate")
    optimizer: OptimizerSpec | None = Field(default=None, description="overrides `optimizer`, as a whole")

    @model_validator(mode="after")
    def something(self) -> "Recipe":
        """A recipe trains on something or not at all."""
        if self.trained != bool(self.background or self.passages):
            raise ValueError("a recipe needs `background: [from, to]` or `passages: [from, to]`, or `trained: false`")
        for name in ("background", "passages"):
            share = getattr(self, name)
            if share and share[0] >= share[1]:
                raise ValueError(f"{name}: {list(share)} is empty: write from, to with from < to")
        if self.rounds > 1 and not self.background:
            raise ValueError("`rounds` are of the background, and there is none: leave it out, or write more `copies`")
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
    domains: list[str] | None = Field(default=None, description="domains whose passages are decoded; all if null")
    seeds: Positive | None = Field(default=None, description="overrides `seeds`")

    @property
    def decodes(self) -> bool:
        """Whether passages are looked at."""
        return bool({"passages", "cost"} & set(self.measure))


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
    domains: dict[Name, Annotated[list[str], Field(min_length=1)] | PublicTexts] = Field(
        description="domain -> packages of the text that its passages come from, or files of public texts"
    )
    passages: Positive = Field(description="passages of each domain")
    measured: Positive | None = Field(
        default=None, description="passages of each domain that are decoded, evenly spread; all if null"
    )
    background: Positive = Field(description="background sequences")
    length: Positive = Field(description="tokens of a background or held-out sequence")
    overlap: Positive = Field(description="tokens in a row shared with a passage that bar a sequence")
    held_out: Positive = Field(description="held-out sequences for the cross-entropy")
    vocabulary: Annotated[int, Field(ge=600, le=65536)] | None = Field(
        description="of the main tokenizer, trained on the text; null: the text's own tokenizer"
    )
    other_vocabulary: Annotated[int, Field(ge=600, le=65536)] | None = Field(
        description="of recipe tokenizer `other`; null: there is none"
    )
    architecture: Literal["gpt2", "gpt_neox"]
    optimizer: OptimizerSpec
    batch_size: Positive
    precision: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="overrides compute.precision, in training and decoding"
    )
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
        for name, source in self.domains.items():
            if isinstance(source, PublicTexts) and self.length < sum(self.lengths([name], name)):
                raise ValueError(f"length {self.length} is below prefix + suffix of domain {name}: write a larger one")
        for name, recipe in self.recipes.items():
            if recipe.start:
                known(recipe.start, self.recipes, f"recipes.{name}", "recipe")
                if self.recipes[recipe.start].start:
                    raise ValueError(f"recipes.{name}: {recipe.start!r} has a `start` itself: one step only")
            for domain in recipe.domains or []:
                known(domain, self.domains, f"recipes.{name}.domains", "domain")
        self.check_model(self.judge, "judge")
        self.check_experiments()
        return self

    def check_experiments(self) -> None:
        """Raise ValueError unless every arm has models, and passages of one length."""
        decoded: dict[tuple[str | None, ...], list[str]] = {}
        for name, experiment in self.experiments.items():
            for domain in experiment.domains or []:
                known(domain, self.domains, f"experiments.{name}.domains", "domain")
            for arm in experiment.arms:
                for model in (arm.model, arm.aux):
                    if model:
                        self.check_model(model, f"experiments.{name}")
                if experiment.decodes:
                    key = (arm.model, arm.method, arm.aux, arm.words, arm.decoding)
                    decoded[key] = [*decoded.get(key, []), *(experiment.domains or self.domains)]
                    self.lengths(decoded[key], f"experiments.{name}, model {arm.model!r}")

    def lengths(self, domains: Iterable[str], where: str) -> tuple[int, int]:
        """Prefix and suffix of some domains; ValueError where they differ."""
        found = {}
        for name in domains:
            source = self.domains[name]
            own = (source.prefix, source.suffix) if isinstance(source, PublicTexts) else (None, None)
            found[name] = (own[0] or self.prefix, own[1] or self.suffix)
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{name} {prefix} + {suffix}" for name, (prefix, suffix) in found.items())
            raise ValueError(
                f"{where}: prefix + suffix differ ({shown}): name the `domains` of the recipe or experiment"
            )
        return next(iter(found.values()), (self.prefix, self.suffix))

    def size(self, domain: str) -> int:
        """Passages of a domain."""
        source = self.domains[domain]
        return (source.passages if isinstance(source, PublicTexts) else None) or self.passages

    def check_model(self, model: str, where: str) -> None:
        """Raise ValueError unless `model` is recipe-size, both known, and can be made."""
        recipe_name, _, size_name = model.partition("-")
        known(recipe_name, self.recipes, f"{where}, model {model!r}", "recipe")
        known(size_name, self.models, f"{where}, model {model!r}", "size")
        recipe, public = self.recipes[recipe_name], isinstance(self.models[size_name], PublicModel)
        if not recipe.trained and not public:
            raise ValueError(
                f"{where}: recipe {recipe_name!r} takes a public model, {size_name!r} is trained from nothing"
            )
        if public and recipe.tokenizer == "other":
            raise ValueError(f"{where}: a public model has a tokenizer of its own: give {recipe_name!r} no `tokenizer`")
        if public and recipe.background:
            raise ValueError(
                f"{where}: {recipe_name!r} trains on background text, which is not there in the tokens of "
                f"{size_name!r}: give it `passages` only"
            )
        if recipe.start and not public and not self.recipes[recipe.start].trained:
            raise ValueError(
                f"{where}: {recipe_name!r} goes on from a public model, {size_name!r} is trained from nothing"
            )
        if recipe.tokenizer == "other" and self.other_vocabulary is None:
            raise ValueError(
                f"{where}: {recipe_name!r} needs the other tokenizer: write a number as `other_vocabulary`"
            )
        if recipe.passages:
            trained = recipe.domains or list(self.domains)
            self.lengths(trained, f"recipes.{recipe_name}")
            for name in trained:
                source = self.domains[name]
                if isinstance(source, PublicTexts) and source.fewer:
                    raise ValueError(
                        f"recipes.{recipe_name}: of {name}, `fewer: true`, nobody knows how many to train on"
                    )
