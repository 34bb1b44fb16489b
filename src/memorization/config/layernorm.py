"""Section `layernorm`: Impact of LayerNorm on memorization."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from memorization.config.sections import ModelSize, Name, Section, known, nearest
from memorization.specs import Fraction, OptimizerSpec, Positive

Position = Literal["pre", "post"]
Arm = Literal["none", "all", "early", "middle", "late", "attention", "feed_forward"]
THIRDS = ("early", "middle", "late")
IMAGE = 8  # side of scikit-learn's digits, in pixels
Share = Annotated[float, Field(gt=0, lt=1)]


class DocstringSet(Section):
    """Which package a paragraph of documentation is from; paragraphs that name a package are not in the corpus."""

    kind: Literal["docstrings"]
    shares: list[tuple[str, Share]] = Field(description="[package, its share of the items]: the classes, in order")
    noisy_class: str = Field(description="class all wrong labels are taken from")
    tokens: Annotated[int, Field(ge=8)] = Field(description="longest item; paragraphs are cut there")
    train: Positive
    validation: Positive = Field(description="items of the test set")
    pretraining: Positive = Field(description="sequences of other paragraphs to pre-train on")
    pretraining_validation: Positive

    @property
    def classes(self) -> list[str]:
        """Packages."""
        return [package for package, _ in self.shares]

    @model_validator(mode="after")
    def consistent(self) -> "DocstringSet":
        """Shares add up and the noisy class is one of the classes."""
        enough_classes(self.classes, self.noisy_class)
        total = sum(share for _, share in self.shares)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares: they add up to {total:g}: make them add up to 1")
        return self


class DigitSet(Section):
    """Hand-written digits, 8 x 8 pixels, that ship with scikit-learn; half of them is for pre-training."""

    kind: Literal["digits"]
    noisy_class: str
    train: Positive
    validation: Positive = Field(description="images of the test set")
    variants: Positive = Field(description="shifted and noisy copies of each image that is pre-trained on")
    pretraining: Positive = Field(description="images to pre-train on, variants counted")
    pretraining_validation: Positive

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(10)]

    @model_validator(mode="after")
    def consistent(self) -> "DigitSet":
        """The noisy class is a digit."""
        enough_classes(self.classes, self.noisy_class)
        return self


class PublicSet(Section):
    """A downloaded set: texts or images with a class each."""

    kind: Literal["public_text", "public_images"]
    asset: Name
    files: dict[str, list[str]] = Field(default={}, description="split -> files; without a test split they are divided")
    text: str = Field(default="text", description="column of the text")
    image: str = Field(default="image", description="column of the image")
    label: str = Field(default="label", description="column of the class: its number, or its name")
    label_pattern: str = Field(default="", description="of image files: where in the path the class (`label`) is named")
    classes: list[str]
    noisy_class: str
    tokens: Positive = 512
    per_class: Positive | None = Field(default=None, description="training images of each class that are kept")
    shares: tuple[float, float] | None = Field(default=None, description="of train and test, where files hold no test")
    train: Positive = Field(description="training items")
    validation: Positive = Field(description="items of the test set")

    @model_validator(mode="after")
    def consistent(self) -> "PublicSet":
        """The noisy class is one of the classes."""
        enough_classes(self.classes, self.noisy_class)
        return self


def enough_classes(classes: list[str], noisy: str) -> None:
    """Two classes at least, and the noisy one among them."""
    if len(classes) < 2:
        raise ValueError("classes: label noise needs a class to flip to: write at least two")
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes: {max(classes, key=classes.count)!r} stands there twice: write each once")
    if noisy not in classes:
        raise ValueError(f"noisy_class: no class named {noisy!r}{nearest(noisy, classes)}")


class FineTuning(Section):
    """How models learn a labelled set (appendix F.3)."""

    epochs: dict[Position, Positive] = Field(description="budget of each position; all runs are trained to the longer")
    batch_size: Positive
    optimizer: OptimizerSpec
    evaluate_every: Positive = Field(description="epochs between evaluations")
    gradients_every: Positive = Field(description="epochs between measurements of gradients")
    gradient_items: Positive = Field(description="validation items whose gradients are measured")

    @model_validator(mode="after")
    def both(self) -> "FineTuning":
        """A budget for each position."""
        if set(self.epochs) != {"pre", "post"}:
            raise ValueError("epochs: write a budget for `pre` and one for `post`")
        return self


class Pretraining(Section):
    """The first stage of models from nothing, shared by all their runs of a seed."""

    steps: Positive
    batch_size: Positive
    optimizer: OptimizerSpec
    evaluate_every: Positive = Field(description="steps between evaluations")
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="of text: share of the tokens that an update predicts; null: all"
    )
    word_weight: Positive | None = Field(
        default=None, description="of text: tokens that the word of its package counts for; null: 1"
    )


class OwnModel(ModelSize):
    """A model built from nothing."""

    architecture: Literal["gpt2", "openai_gpt", "vit"]
    position: Position
    data: Name
    patch: Positive | None = Field(default=None, description="side of an image patch, in pixels")


class PublicNormModel(Section):
    """A public checkpoint."""

    asset: Name
    position: Position
    data: Name
    parameters: Positive
    masked: bool = Field(default=True, description="its next-token form is a masked LM's (else a decoder's)")
    image: Positive = Field(default=224, description="side of the images it takes, in pixels")
    layers: Positive
    fine_tuning: FineTuning | None = Field(default=None, description="overrides that of the set, as a whole")


def kind_of_model(model: Any) -> str:
    """Which of the two kinds a model is meant to be, so that an error is about that kind alone."""
    public = "asset" in model if isinstance(model, dict) else isinstance(model, PublicNormModel)
    return "public" if public else "own"


NormModel = Annotated[
    Annotated[OwnModel, Tag("own")] | Annotated[PublicNormModel, Tag("public")], Discriminator(kind_of_model)
]


class NormExperiment(Section):
    """Runs = models x arms x noise x seeds; or the pre-training of models."""

    stage: Literal["pretraining", "fine_tuning"] = "fine_tuning"
    models: list[str]
    arms: list[Arm] = Field(default=[], description="which norms lose their gains and biases")
    noise: list[Share] = Field(default=[], description="shares of wrong labels")
    optimizer: Literal["adamw", "muon"] = "adamw"
    form: Literal["classifier", "label_word"] = "classifier"
    start: Literal["pretrained", "scratch"] = "pretrained"
    gradients: bool = Field(default=False, description="measure gradients in runs with all norms intact")
    seeds: Positive | None = Field(default=None, description="overrides `seeds`")

    @model_validator(mode="after")
    def complete(self) -> "NormExperiment":
        """Fine-tuning needs arms and noise, which pre-training has none of."""
        if self.stage == "pretraining" and (self.arms or self.noise or self.gradients):
            raise ValueError("pre-training has no arms, no noise and no gradients: write only `models` and `seeds`")
        if self.stage == "fine_tuning" and not (self.arms and self.noise):
            raise ValueError("fine-tuning needs `arms` and `noise`: write at least one of each")
        return self


class LayerNorm(Section):
    """Impact of LayerNorm on memorization."""

    sets: dict[Name, Annotated[DocstringSet | DigitSet | PublicSet, Field(discriminator="kind")]]
    models: dict[Name, NormModel]
    wording: Literal["train_set", "class"] = Field(description="what the share of wrong labels is a share of")
    dropout: Fraction = Field(description="of models from nothing; public ones keep theirs")
    pretraining: dict[Name, Pretraining] = Field(description="by set")
    fine_tuning: dict[Name, FineTuning] = Field(description="by set")
    experiments: dict[Name, NormExperiment]

    def recipe(self, model: OwnModel | PublicNormModel) -> FineTuning:
        """How a model is fine-tuned."""
        own = model.fine_tuning if isinstance(model, PublicNormModel) else None
        return own or self.fine_tuning[model.data]

    @model_validator(mode="before")
    @classmethod
    def kinds_of_models(cls, values: Any) -> Any:
        """A model is of one of two kinds."""
        models = values.get("models") if isinstance(values, dict) else None
        for name, model in models.items() if isinstance(models, dict) else ():
            if isinstance(model, dict) and not {"asset", "architecture"} & set(model):
                raise ValueError(f"models.{name}: write `architecture` (from nothing) or `asset` (a public checkpoint)")
        return values

    @model_validator(mode="after")
    def consistent(self) -> "LayerNorm":
        """Cross-references name things that exist; thirds have layers."""
        for name, model in self.models.items():
            known(model.data, self.sets, f"models.{name}.data", "set")
            known(model.data, self.fine_tuning, f"models.{name}.data", "entry of fine_tuning")
            images = self.sets[model.data].kind in ("digits", "public_images")
            if isinstance(model, OwnModel):
                if self.sets[model.data].kind not in ("docstrings", "digits"):
                    raise ValueError(
                        f"models.{name}: {model.data} is a downloaded set, for public checkpoints: write `asset`, "
                        "or a set of docstrings or digits as data"
                    )
                if images != (model.architecture == "vit"):
                    need = "vit" if images else "gpt2 (Pre-LN) or openai_gpt (Post-LN)"
                    raise ValueError(f"models.{name}: {model.data} needs architecture {need}")
                if (model.position == "post") != (model.architecture == "openai_gpt"):
                    right = "post" if model.architecture == "openai_gpt" else "pre"
                    raise ValueError(
                        f"models.{name}: {model.architecture} has its norms {right}: write position: {right}"
                    )
                if images != (model.patch is not None):
                    how = "give the side of a `patch`" if images else "leave `patch` out"
                    raise ValueError(f"models.{name}: {model.data} holds {'images' if images else 'texts'}: {how}")
                if model.patch and IMAGE % model.patch:
                    raise ValueError(
                        f"models.{name}: patches of {model.patch} do not fill {IMAGE} pixels: write 1, 2 or 4"
                    )
                if model.width % model.heads:
                    raise ValueError(f"models.{name}: width {model.width} is no multiple of its {model.heads} heads")
        for name, first in self.pretraining.items():
            known(name, self.sets, "pretraining", "set")
            if self.sets[name].kind == "digits" and (first.share or first.word_weight):
                raise ValueError(f"pretraining.{name}: images have no words: leave `share` and `word_weight` out")
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            for model_name in experiment.models:
                known(model_name, self.models, where, "model")
                model = self.models[model_name]
                if set(THIRDS) & set(experiment.arms) and model.layers < len(THIRDS):
                    raise ValueError(
                        f"{where}: {model_name} has {model.layers} layers, too few for early, middle and late thirds: "
                        "write at least 3 layers, or arms none and all"
                    )
                from_nothing = isinstance(model, OwnModel)
                if from_nothing and (experiment.start == "pretrained" or experiment.stage == "pretraining"):
                    known(model.data, self.pretraining, f"models.{model_name}.data", "entry of pretraining")
                if experiment.stage == "pretraining" and not from_nothing:
                    raise ValueError(f"{where}: {model_name} is trained already: leave it out")
                if experiment.form == "label_word" and self.sets[model.data].kind in ("digits", "public_images"):
                    raise ValueError(f"{where}: images have no word to predict: write `form: classifier`")
        return self
