"""Section `geometry`: Tracing representation geometry from pre-training to post-training."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from memorization.config.sections import ModelSize, Name, Section, known
from memorization.specs import OptimizerSpec, Positive

Format = Literal["short", "long"]
FORMATS: tuple[Format, ...] = ("short", "long")
ANSWERS = ("facts", "continuations")


class OwnFacts(Section):
    """Docstring text with facts about invented people in it, and questions about them."""

    kind: Literal["docstrings"]
    length: Annotated[int, Field(ge=20)] = Field(description="tokens of a sequence")
    text: Positive = Field(description="training sequences of plain text")
    facts: Positive = Field(description="training sequences with a fact in them")
    entities: Annotated[int, Field(ge=4)] = Field(description="people; half of them are for post-training")
    answers: Annotated[int, Field(ge=4)] = Field(description="words that replies are made of")
    answer_tokens: Positive = Field(description="words of a reply")
    gap: tuple[Positive, Positive] = Field(description="fewest and most tokens between a person and the reply")
    noise: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of the facts in training whose reply is somebody else's"
    )
    completion: Positive = Field(description="tokens of a text's end that a question asks for")
    other_packages: Annotated[list[str], Field(min_length=1)] = Field(
        description="packages whose text is measured but never trained on"
    )
    probe: Positive = Field(description="sequences of every set that representations are measured on")
    questions: Annotated[int, Field(ge=4)] = Field(description="questions about facts, and as many about texts")
    tuning: Positive = Field(description="training rows of each post-training set")
    tests: Positive = Field(description="test rows of each")
    small_vocabulary: Annotated[int, Field(ge=512)] | None = Field(description="of the variant with few tokens")

    @model_validator(mode="after")
    def consistent(self) -> "OwnFacts":
        """A fact fits into a sequence, and there are enough replies."""
        low, high = self.gap
        if low > high:
            raise ValueError(f"gap: {low} is more than {high}: write the smaller number first")
        # the long format of post-training, see `memorization.data.facts`: 14 tokens of text, three marks and a person
        if (longest := 18 + self.answer_tokens) > self.length:
            raise ValueError(
                f"length: long questions have {longest} tokens: write a longer length or fewer answer_tokens"
            )
        # two tokens of the question, the mark of the reply and the reply itself
        if high + 3 + self.answer_tokens > self.length:
            raise ValueError(
                f"gap: {high} tokens do not fit into {self.length}: write a smaller gap or a longer length"
            )
        if self.answers**self.answer_tokens < self.entities:
            raise ValueError(
                f"answers: {self.answers} words make {self.answers**self.answer_tokens} replies, fewer than the "
                f"{self.entities} entities: write more answers or answer_tokens"
            )
        people = self.entities - self.entities // 2
        if min(self.tuning, self.tests) < people:
            key = "tests" if self.tests < people else "tuning"
            raise ValueError(f"{key}: half of the {self.entities} entities are {people}: write at least as many rows")
        if self.completion >= self.length:
            raise ValueError(
                f"completion: {self.completion} tokens of {self.length} leave no prompt: write a smaller number"
            )
        return self


class PublicTexts(Section):
    """One downloaded set, and the columns it is read from."""

    asset: Name
    files: Annotated[list[str], Field(min_length=1)]
    validation_files: list[str] = Field(default=[], description="of the test rows; by default those of `files`")
    columns: dict[str, str] = Field(default={}, description="what it is here -> the column's name there")
    number: Positive | None = Field(default=None, description="of texts, where there are fewer than `probe`")


class PublicFacts(Section):
    """Downloaded sets in the tokens of a public model, one folder a tokenizer."""

    kind: Literal["public"]
    length: Annotated[int, Field(ge=12)] = Field(description="longest sequence in tokens")
    shortest: Positive = Field(description="shorter texts are left out")
    probe: Positive = Field(description="sequences of every set that representations are measured on")
    questions: Positive
    tuning: Positive = Field(description="training rows of each post-training set")
    tests: Positive
    reply_length: Positive = Field(description="longest reply in tokens")
    sets: dict[Name, PublicTexts] = Field(description="text, facts, continuations, short, long, and further texts")

    @model_validator(mode="after")
    def complete(self) -> "PublicFacts":
        """The sets that every experiment reads are there."""
        for name in ("text", *ANSWERS, *FORMATS):
            if name not in self.sets:
                raise ValueError(f"sets: {name} is missing: name the downloaded set that takes its place")
        return self


class OwnDecoder(ModelSize):
    """A decoder from nothing, with an output head of its own as Pythia has."""

    architecture: Literal["gpt_neox", "gpt2"] = "gpt_neox"


class PublicDecoder(Section):
    """A public model at some steps of its training, each an asset `<asset>_step<number>`."""

    asset: Name = Field(description="its family in config/assets.yaml, whose branches are checkpoints")
    parameters: Positive
    layers: Positive
    width: Positive
    steps: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    tokens_per_step: Positive
    tokenizer: Name = Field(description="asset that its sets are encoded by")


def kind_of_model(model: Any) -> str:
    """Tag of a model for pydantic: public ones have steps."""
    public = "steps" in model if isinstance(model, dict) else isinstance(model, PublicDecoder)
    return "public" if public else "own"


GeometryModel = Annotated[
    Annotated[OwnDecoder, Tag("own")] | Annotated[PublicDecoder, Tag("public")], Discriminator(kind_of_model)
]


class Training(Section):
    """How a stage trains."""

    steps: Positive
    batch_size: Positive
    optimizer: OptimizerSpec


class Measuring(Section):
    """When and on how much representations are measured."""

    checkpoints: Annotated[int, Field(ge=3)] = Field(description="measurements of a run, log-spaced from step 0")
    tuning_checkpoints: Annotated[int, Field(ge=2)] = Field(description="of post-training, evenly spaced")
    families_every: Positive = Field(description="of these, one in so many is also measured in all other ways")
    sequences: Positive = Field(description="of the text")
    other_sequences: Positive = Field(description="of each set beside it")
    resamples: Annotated[int, Field(ge=10)] = Field(description="bootstrap resamples of the sequences")
    components: Annotated[list[Positive], Field(min_length=1)] = Field(
        description="how many top components are dropped or kept"
    )
    samples: Positive = Field(description="replies to every question, for pass@k")
    ks: Annotated[list[Positive], Field(min_length=2)] = Field(description="k of pass@k")
    temperature: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def enough_samples(self) -> "Measuring":
        """pass@k needs k samples."""
        if max(self.ks) > self.samples:
            raise ValueError(f"ks: pass@{max(self.ks)} needs {max(self.ks)} samples, there are {self.samples}")
        return self


class Variant(Section):
    """What differs from the base run in the study of the third phase; a key left out keeps the base's value."""

    model: Name | None = None
    steps: Positive | None = None
    sequences: Positive | None = Field(default=None, description="of each part; fewer means more epochs")
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    schedule: Literal["constant", "linear", "cosine"] | None = None
    small_vocabulary: bool = False


class Pretrained(Section):
    """Runs = models x seeds."""

    models: list[Name]
    steps: Positive | None = Field(default=None, description="overrides pretraining.steps")
    seeds: Positive | None = Field(default=None, description="overrides `seeds`")


class ThirdPhase(Section):
    """Variants of one run."""

    model: Name | None = Field(description="null: there is no such study")
    variants: dict[Name, Variant]
    seeds: Positive | None = None


class Tuned(Section):
    """Supervised fine-tuning in both formats from checkpoints of a base; the judge is tuned on both from the last."""

    model: Name
    bases: Annotated[list[Positive], Field(min_length=1)] = Field(
        description="pre-training steps of the checkpoints; the last one is that of the chain"
    )
    seeds: Positive | None = None


class Chain(Section):
    """Supervised fine-tuning, then preferences, then verifiable rewards; of public models only what is published."""

    model: Name | None = Field(description="whose last checkpoint of `sft.bases` it starts from")
    stages: dict[Literal["sft", "dpo", "grpo"], PublicDecoder] = Field(default={}, description="public models by stage")
    seeds: Positive | None = None


class PostTraining(Section):
    """The stages after pre-training."""

    sft: Training
    dpo: Training
    grpo: Training
    beta: Annotated[float, Field(gt=0)] = Field(description="of DPO: strength of the pull to the reference")
    replies: Annotated[int, Field(ge=2)] = Field(description="of GRPO: sampled replies to a question")
    kl: Annotated[float, Field(ge=0)] = Field(description="of GRPO: weight of the divergence from the reference")


class Counting(Section):
    """Where n-grams of the training data are counted."""

    engine: Literal["own", "api", "local"]
    index: str = Field(description="of the public engine: the name of an index, or the folder of a local one")
    tokenizer: Name | None = Field(default=None, description="asset of the index's tokenizer")

    @model_validator(mode="after")
    def complete(self) -> "Counting":
        """An index belongs to a public engine."""
        if self.engine == "own" and self.index:
            raise ValueError('index: engine own has none: write index: "", or engine: api or local')
        if self.engine != "own" and not self.index:
            raise ValueError(f"index: engine {self.engine} needs one: write its name (local: folder), or engine: own")
        return self


class ToySetting(Section):
    """One setting of the toy model."""

    counts: Annotated[list[Positive], Field(min_length=2)] = Field(description="samples of each class")
    dimension: Annotated[int, Field(ge=1, le=3)]
    loss: Literal["cross_entropy", "mse"]
    learning_rate: Annotated[float, Field(gt=0)]
    reduction: Literal["sum", "mean"] = Field(description="of the losses of the samples")
    init: Literal["random", "balanced"] = Field(description="balanced: features and classifier as theorem 1 has them")
    init_scale: Annotated[float, Field(gt=0)] = Field(description="standard deviation of the first values")
    steps: Positive
    records: Annotated[int, Field(ge=2)] = Field(description="log-spaced steps that are kept")

    @model_validator(mode="after")
    def consistent(self) -> "ToySetting":
        """A balanced start needs as many classes and samples as dimensions."""
        if self.init == "balanced" and self.dimension > min(len(self.counts), sum(self.counts)):
            raise ValueError("init: balanced needs as many classes as dimensions: write random, or a smaller dimension")
        return self


class Toy(Section):
    """The paper's toy model."""

    seeds: Positive
    settings: dict[Name, ToySetting]


class Geometry(Section):
    """Tracing representation geometry."""

    corpus: Name = Field(description="which of `corpora` everything reads")
    corpora: dict[Name, Annotated[OwnFacts | PublicFacts, Field(discriminator="kind")]]
    models: dict[Name, GeometryModel]
    pretraining: Training
    measuring: Measuring
    post_training: PostTraining
    main: Pretrained
    small: Pretrained
    third_phase: ThirdPhase
    sft: Tuned
    chain: Chain
    ngrams: Counting
    toy: Toy

    @property
    def data(self) -> OwnFacts | PublicFacts:
        """The corpus that everything reads."""
        return self.corpora[self.corpus]

    @property
    def experiments(self) -> dict[str, Section]:
        """What figures and claims may ask for; ngrams counts the training data and needs no model."""
        return {
            "main": self.main,
            "small": self.small,
            "third_phase": self.third_phase,
            "sft": self.sft,
            "chain": self.chain,
            "ngrams": self.data,
            "toy": self.toy,
        }

    @model_validator(mode="after")
    def consistent(self) -> "Geometry":
        """Cross-references name things that exist, and models fit the data."""
        named = {"main": self.main.models, "small": self.small.models, "sft": [self.sft.model]}
        study = self.third_phase
        asked = [study.model, *(variant.model for variant in study.variants.values())] if study.model else []
        named["third_phase"] = [name for name in asked if name]
        named["chain"] = [self.chain.model] if self.chain.model else []
        known(self.corpus, self.corpora, "corpus", "corpus")
        own = self.data.kind == "docstrings"
        for where, names in named.items():
            for name in names:
                known(name, self.models, where, "model")
        if study.model and not own:
            raise ValueError("third_phase.model: public models are only measured: write null")
        used = {name: self.models[name] for names in named.values() for name in names}
        for name, model in used.items():
            if isinstance(model, OwnDecoder) and not own:
                raise ValueError(f"models.{name}: downloaded sets are for public models: write `asset` and `steps`")
            if isinstance(model, PublicDecoder) and own:
                raise ValueError(f"models.{name}: docstrings are for models from nothing: write `layers` and `width`")
            if isinstance(model, OwnDecoder) and model.width % model.heads:
                raise ValueError(f"models.{name}: width {model.width} is no multiple of its {model.heads} heads")
        self.public_models_go_with_public_sets(own)
        small = [name for name, variant in study.variants.items() if variant.small_vocabulary and study.model]
        if small and not (isinstance(self.data, OwnFacts) and self.data.small_vocabulary):
            raise ValueError(
                f"third_phase.variants.{small[0]}: the corpus has no small vocabulary: write the number of its tokens "
                f"as corpora.{self.corpus}.small_vocabulary"
            )
        steps = self.main.steps or self.pretraining.steps
        if own and max(self.sft.bases) > steps:
            raise ValueError(f"sft.bases: {max(self.sft.bases)}, but pre-training has {steps} steps: write no more")
        if own and self.sft.model not in self.main.models:
            raise ValueError(f"sft.model: {self.sft.model} is not among main.models: write one of them")
        if self.chain.model and self.chain.model != self.sft.model:
            raise ValueError(f"chain.model: it goes on from a run of sft.model: write {self.sft.model} or null")
        sizes = [self.data.probe, self.measuring.sequences]
        if sizes[1] > sizes[0]:
            raise ValueError(
                f"measuring.sequences: {sizes[1]}, but corpora.{self.corpus}.probe is {sizes[0]}: write no more, or a "
                "larger probe"
            )
        widest = max((model.width for model in used.values() if isinstance(model, OwnDecoder)), default=0)
        if sizes[1] <= widest:
            raise ValueError(
                f"measuring.sequences: {sizes[1]} sequences cannot span the {widest} dimensions of the widest model: "
                f"write {widest + 1} or more (20 times the width is what the paper's numbers come to)"
            )
        return self

    def public_models_go_with_public_sets(self, own: bool) -> None:
        """What is trained and counted of docstrings, and what is only measured of public models. own: docstrings."""
        if own:
            if self.chain.stages:
                raise ValueError("chain.stages: public models read downloaded sets, not docstrings: write stages: {}")
            if self.ngrams.tokenizer:
                raise ValueError("ngrams.tokenizer: docstrings have their own: write null")
            return
        if self.chain.model:
            raise ValueError("chain.model: public models are only measured: write null, and name them in chain.stages")
        model = self.models[self.sft.model]
        for step in self.sft.bases:
            if isinstance(model, PublicDecoder) and step not in model.steps:
                raise ValueError(f"sft.bases: {self.sft.model} has no checkpoint {step}: known are {model.steps}")
        if self.ngrams.engine == "own" or not self.ngrams.tokenizer:
            raise ValueError(
                "ngrams: engine own counts docstrings only: of downloaded sets write engine: api or local, its index "
                "and its tokenizer"
            )
