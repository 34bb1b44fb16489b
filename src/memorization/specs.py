"""Run specs: everything that decides the numbers of one training run, as plain typed data.

A spec is written to `results/<scale>/train/<group>/spec.json` before training starts; equal specs give equal
bytes (on CPU, at equal `threads`). Nothing about *where* files lie or *how often* state is saved belongs here.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Measure = Literal["passages", "held_out", "cloze", "cost"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Spec(BaseModel):
    """Base of all specs: unknown keys are refused and instances cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stack(Spec):
    """A stack of transformer layers built from nothing.

    `initializer_std: null` means GPT-2's 0.02 at width 768 carried to this width, 0.02 * sqrt(768 / width): a fixed
    0.02 leaves narrow models on a plateau for hundreds of steps before they learn anything.
    """

    layers: Positive
    width: Positive
    heads: Positive = 1
    dropout: Fraction = 0.0
    initializer_std: Annotated[float, Field(gt=0)] | None = None
    head: Literal["language_model", "classification"] = "language_model"
    classes: Annotated[int, Field(ge=0)] = 0

    @property
    def std(self) -> float:
        """Standard deviation of the initial weights."""
        return self.initializer_std or 0.02 * math.sqrt(768 / self.width)

    @property
    def parameters(self) -> int:
        """Non-embedding parameters by the paper's count, 12 * layers * width^2 (patterns, section 3.2)."""
        return 12 * self.layers * self.width**2


class ModelSpec(Stack):
    """A decoder. openai_gpt is the first GPT, Post-LN; the others are Pre-LN. tied: both embeddings are one matrix."""

    architecture: Literal["gpt2", "gpt_neox", "openai_gpt"] = "gpt2"
    positions: Positive
    vocabulary: Positive
    embedding: Literal["trained", "frozen"] = "trained"
    tied: bool = True


class VisionSpec(Stack):
    """An image classifier. image, patch: side in pixels."""

    architecture: Literal["vit"]
    image: Positive
    patch: Positive
    channels: Positive
    head: Literal["language_model", "classification"] = "classification"


class PretrainedSpec(Spec):
    """A public checkpoint as it is: a folder `results/assets/<asset>` that `snakemake assets` fetched.

    half: its weights stay in the precision they are stored in, which is for models that are only measured.
    """

    asset: str
    parameters: Positive
    head: Literal["language_model", "classification"] = "language_model"
    masked: bool = Field(default=False, description="its language-model head is a masked LM's")
    images: bool = False
    fresh: bool = Field(default=False, description="weights are drawn anew: only its configuration is used")
    half: bool = False
    classes: Annotated[int, Field(ge=0)] = 0


class Initial(Spec):
    """Where a run's first weights come from when not from its seed: another run, which is trained before.

    step: one of the steps that it keeps its model of; None: its last.
    """

    run: str
    step: Positive | None = None


class DataPart(Spec):
    """`items` training items of one set, stored under `results/<scale>/data/<paper>/<folder>/`.

    The rows about this part carry `set` as their subset; `folder` differs from it where the same set is stored under
    another vocabulary. Items are those from number `first` on. An epoch holds item i `copies[i % len(copies)]` times,
    which is how duplicates get into a corpus; an item is measured once whatever its copies. `held_out`: validation
    items are taken from this part.
    """

    set: str
    folder: str
    items: Positive
    first: Annotated[int, Field(ge=0)] = 0
    copies: Annotated[list[Positive], Field(min_length=1)] = [1]
    held_out: bool = True

    @property
    def exposures(self) -> int:
        """Training examples of one epoch: items times their copies."""
        rounds, rest = divmod(self.items, len(self.copies))
        return rounds * sum(self.copies) + sum(self.copies[:rest])


class NoiseSpec(Spec):
    """Wrong labels: `share` of the training set, all from one class, each to another class (layernorm, appendix F.1).

    wording: what the share is of, the train_set (what the paper's code does) or the class (what its appendix says).
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    source_class: Annotated[int, Field(ge=0)]
    wording: Literal["train_set", "class"] = "train_set"


class LabelSpec(Spec):
    """Items with a class each.

    form: a classifier's head, or the next-token form, in which the word of the class is predicted behind the text
    (layernorm, table 6): masked_word by a masked LM, causal_word by a decoder. image, channels: of images, in pixels.
    """

    kind: Literal["text", "images"]
    classes: Annotated[int, Field(ge=2)]
    form: Literal["classifier", "masked_word", "causal_word"] = "classifier"
    noise: NoiseSpec | None = None
    image: Annotated[int, Field(ge=0)] = 0
    channels: Annotated[int, Field(ge=0)] = 0


class DataSpec(Spec):
    """Training items of one or more sets, and `validation` items (over all parts, in the same proportions).

    measured: sets of which the first `items` validation items are measured too, whatever the run trains on. A model
    that is only measured trains on no parts.
    """

    parts: list[DataPart]
    validation: Annotated[int, Field(ge=0)] = 0
    measured: list[DataPart] = []
    seed: Annotated[int, Field(ge=0)] = 0
    labelled: LabelSpec | None = None

    @property
    def items(self) -> int:
        """Training items over all parts."""
        return sum(part.items for part in self.parts)

    @property
    def exposures(self) -> int:
        """Training examples of one epoch."""
        return sum(part.exposures for part in self.parts)


class OptimizerSpec(Spec):
    """Adam(W) with its usual constants; a schedule is a pure function of the step, so it needs no state.

    muon: Muon for matrices inside the layers, AdamW for all else; steps of a matrix are scaled to the size of AdamW's,
    so that one learning rate serves both. norm_rate: factor of the learning rate of gains and biases of norms.
    """

    name: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    norm_rate: Annotated[float, Field(gt=0)] = 1.0


class ProbeSpec(Spec):
    """A measuring function called at step 0, every `every` steps and at the last; or at the steps `at` and the last.

    Functions are named "package.module:name". `before` also looks at the model just before such a step.
    """

    function: str
    before: str | None = None
    every: Positive = 1
    at: list[Annotated[int, Field(ge=0)]] = []
    options: dict[str, int | float | str | list[str] | list[int] | list[list[int]]] = {}

    def due(self, step: int, last: int) -> bool:
        """Whether it is called at `step` of a run of `last` steps."""
        return step == last or (step in self.at if self.at else step % self.every == 0)


class StopSpec(Spec):
    """Stop when the pooled training exact match is at least `threshold` at `patience` evaluations in a row."""

    threshold: Fraction = 1.0
    patience: Positive = 3


class RunSpec(Spec):
    """One training run.

    strip: norms whose gains and biases are fixed at 1 and 0 before the first update
    (`memorization.models.norms.strip_norm_parameters`). labels: columns that every row of the run carries. steps: with
    none a model is only measured, as public checkpoints are. keep: steps whose model is kept beside the last, in a
    folder `step<number>`. reads: runs whose models the probes look at.
    """

    name: str
    paper: str
    model_name: str
    model: ModelSpec | VisionSpec | PretrainedSpec
    initial: Initial | None = None
    strip: Literal["none", "all", "early", "middle", "late", "attention", "feed_forward"] = "none"
    data_name: str
    data: DataSpec
    objective: Literal[
        "causal_lm", "goldfish", "text_and_word", "classification", "label_word", "sft", "dpo", "grpo"
    ] = "causal_lm"
    objective_options: dict[str, int | float | str] = {}
    optimizer: OptimizerSpec = OptimizerSpec()
    steps: Annotated[int, Field(ge=0)]
    batch_size: Positive
    seed: Annotated[int, Field(ge=0)]
    keep: list[Positive] = []
    reads: list[str] = []
    prompt_length: Annotated[int, Field(ge=0)] = 0
    completion_length: Annotated[int, Field(ge=0)] = 0
    probes: list[ProbeSpec]
    stop: StopSpec | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1
    labels: dict[str, str | int | float] = {}


class ModelRef(Spec):
    """A model to be measured: what a run made (`run`), or a public checkpoint (`asset`).

    name: recipe-size, such as wild-L. tokenizer: its folder in `results/<scale>/data/<paper>/`; "" for the asset's own.
    """

    name: str
    recipe: str
    size: str
    run: str = ""
    asset: str = ""
    tokenizer: str = ""
    parameters: Positive


class ArmSpec(Spec):
    """One way of decoding one model, and what is measured of it (tokenswap, sections 3 and 4).

    domains: passages of each; None: those of the job. prefix, suffix: of these passages; None: those of the job.
    """

    name: str
    seed: Annotated[int, Field(ge=0)]
    model: ModelRef
    method: Literal["standard", "tokenswap", "memfree", "cp_fuse", "speculative"]
    aux: ModelRef | None = None
    words: str = ""
    decoding: Literal["greedy", "sample"] = "greedy"
    measure: list[Measure]
    domains: dict[str, Positive] | None = None
    prefix: Positive | None = None
    suffix: Positive | None = None


class ArmGroupSpec(Spec):
    """The arms of one decoding job, and what they have in common."""

    group: str
    paper: str
    scale: str
    seed: Annotated[int, Field(ge=0)]
    arms: Annotated[list[ArmSpec], Field(min_length=1)]
    experiments: list[str]  # of each arm: the experiment that asked for it first
    domains: dict[str, Positive]  # passages of each
    prefix: Positive
    suffix: Positive
    held_out: Positive
    judge: ModelRef
    memfree_order: Positive
    memfree_prompt: bool
    draft_tokens: Positive
    samples: Positive
    sampled_passages: Positive
    examples: Positive
    cost_tokens: Positive
    cost_batch: Positive
    cost_repeats: Positive
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1


def objective_function(objective: str) -> str:
    """Dotted name of an objective."""
    module = "preferences" if objective in ("sft", "dpo", "grpo") else "objectives"
    return f"memorization.training.{module}:{objective}"


class GroupSpec(Spec):
    """The runs of one job, and what the rows they write are labelled with."""

    group: str
    paper: str
    scale: str
    runs: Annotated[list[RunSpec], Field(min_length=1)]
    experiments: list[str]  # of each run: the experiment that asked for it first
