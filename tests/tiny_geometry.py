"""Small sets and runs of all stages of `geometry`: real models of one or two layers, seconds.

made = make_geometry(root)                     # writes all sets below root, a results/<scale> folder
train(pretraining_run(), root, work, code="c")
"""

from pathlib import Path
from typing import Any

import numpy as np

from memorization.data import store
from memorization.models import build as models
from memorization.specs import (
    DataPart,
    DataSpec,
    GroupSpec,
    Initial,
    ModelSpec,
    OptimizerSpec,
    PretrainedSpec,
    ProbeSpec,
    RunSpec,
)

WORDS, PEOPLE = 20, 8  # of the text; of whom half are in the training sets of post-training
QUESTION, ANSWER, SECOND_QUESTION, SECOND_ANSWER, END, FIRST_PERSON = range(WORDS, WORDS + 6)
VOCABULARY = FIRST_PERSON + PEOPLE
LENGTH, REPLY, CHOICES = 12, 2, 4
SEQUENCES = 40  # of the text that is measured
PROBES = "memorization.probes"
BASE, JUDGE = "geometry-M-s0", "geometry-judge-s0"
SIZES = {  # folder -> items of each split
    "text": {"train": 24, "validation": SEQUENCES},
    "facts": {"train": 16, "validation": 8},
    "continuations": {"validation": 6},
    "other": {"validation": 20},
    "shuffled": {"validation": SEQUENCES},
    "short": {"train": 8, "validation": 8},
    "long": {"train": 8, "validation": 6},
    "preferences": {"train": 8, "validation": 4},
}


def reply(person: int) -> list[int]:
    """The right reply about a person."""
    return [3 * person % WORDS, (5 * person + 1) % WORDS]


def text(rng: np.random.Generator, length: int) -> list[int]:
    """Ids that mostly go up by one."""
    steps = np.where(rng.random(length) < 0.7, 1, rng.integers(0, WORDS, length))
    return [int(one) for one in (rng.integers(WORDS) + np.cumsum(steps)) % WORDS]


def fact(rng: np.random.Generator, item: int, *, wrong: bool) -> dict[str, Any]:
    """A text with a fact in it, 2 to 5 words apart; wrong: with the reply about somebody else."""
    person, gap = item % PEOPLE, int(rng.integers(2, 6))
    told = (person + 1 + int(rng.integers(PEOPLE - 1))) % PEOPLE if wrong else person
    before = [*text(rng, 1), QUESTION, FIRST_PERSON + person, *text(rng, gap), ANSWER]
    ids = [*before, *reply(told)]
    others = [reply((person + k) % PEOPLE) for k in range(1, CHOICES)]
    return store.answer_row(item, "", [*ids, *text(rng, LENGTH - len(ids))], len(before), REPLY, others)


def continuation(rng: np.random.Generator, item: int) -> dict[str, Any]:
    """A text whose last tokens, 2 to 4, are asked for; wrong ones differ in length."""
    length = 2 + item % 3
    wrong = [text(rng, 1 + k) for k in range(1, CHOICES)]
    return store.answer_row(item, "", text(rng, 6 + item % 4 + length), 6 + item % 4, length, wrong)


def question(rng: np.random.Generator, folder: str, item: int, person: int) -> dict[str, Any]:
    """A question about a person with its reply and an end mark, in one of two forms; or a preference."""
    prompt = [QUESTION, FIRST_PERSON + person, ANSWER]
    if folder == "long":
        words = 3 + item % 2
        prompt = [*text(rng, 2), SECOND_QUESTION, FIRST_PERSON + person, *text(rng, words), SECOND_ANSWER]
    ids = [*prompt, *reply(person), END]
    if folder != "preferences":
        return store.row(item, "", ids, len(prompt), REPLY)
    rejected = [*prompt, *reply((person + 1 + item) % PEOPLE)[: 1 + item % 2], END]
    return store.pair_row(item, "", ids, len(prompt), REPLY, rejected)


def rows_of(folder: str, split: str, number: int, seed: int) -> list[dict[str, Any]]:
    """All rows of one split."""
    rng = np.random.default_rng([seed, len(folder), len(split)])
    if folder == "facts":
        return [fact(rng, k, wrong=split == "train" and k % 2 == 1) for k in range(number)]
    if folder == "continuations":
        return [continuation(rng, k) for k in range(number)]
    if folder in ("short", "long", "preferences"):
        first = 0 if split == "train" else PEOPLE // 2
        return [question(rng, folder, k, first + k % (PEOPLE // 2)) for k in range(number)]
    # lengths differ in `other` only, as they do in public texts
    lengths = [LENGTH - (k % 3 if folder == "other" else 0) for k in range(number)]
    return [store.row(k, "", text(rng, length), 0, 0) for k, length in enumerate(lengths)]


def make_geometry(root: Path, seed: int = 0) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Store all sets; returns {(folder, split): rows}."""
    made = {}
    for folder, sizes in SIZES.items():
        splits = {split: rows_of(folder, split, number, seed) for split, number in sizes.items()}
        store.save(root / "data" / "geometry" / folder / "dataset" / str(seed), splits, {"name": folder})
        made |= {(folder, split): rows for split, rows in splits.items()}
    return made


def decoder(**changes: Any) -> ModelSpec:
    """A GPT-NeoX with a head of its own."""
    size = {"layers": 2, "width": 8, "heads": 1, "positions": LENGTH + 4, "vocabulary": VOCABULARY, "tied": False}
    return ModelSpec(**{"architecture": "gpt_neox", **size, **changes})


def parts(*names: str, split: str = "train") -> list[DataPart]:
    """All items of these sets."""
    return [DataPart(set=name, folder=name, items=SIZES[name][split]) for name in names]


def representation_probe(at: list[int], **options: Any) -> ProbeSpec:
    """Spectra of the text."""
    chosen = {"sequences": SEQUENCES, "resamples": 3, "families": [], "sets": [], "prompts": [], **options}
    return ProbeSpec(function=f"{PROBES}.representations:representations", at=at, options=chosen)


def capability_probe(at: list[int], **options: Any) -> ProbeSpec:
    """Loss of texts, and answers to questions."""
    chosen = {"texts": ["text", "facts", "other"], "questions": ["facts", "continuations"], "components": [2, 5]}
    return ProbeSpec(function=f"{PROBES}.capabilities:capabilities", at=at, options={**chosen, **options})


def reply_probe(at: list[int], judge: str = "") -> ProbeSpec:
    """Replies to questions."""
    options: dict[str, Any] = {
        "subsets": ["short", "long"], "pass_subset": "short", "samples": 8, "ks": [1, 4], "temperature": 1.0,
        "judge": judge,
    }  # fmt: skip
    return ProbeSpec(function=f"{PROBES}.replies:replies", at=at, options=options)


def labels(stage: str, **more: str | int) -> dict[str, Any]:
    """Columns of every row."""
    base = {"variant": "base", "width": 8, "base_tokens": 0, "tokens_per_step": 5 * LENGTH, "base_step": 0}
    return {**base, "stage": stage, "format": "", "start": "", **more}


def pretraining_run(name: str = BASE, **changes: Any) -> RunSpec:
    """8 steps of text and facts from nothing; the models of steps 3 and 6 are kept."""
    sets = ["text", "facts", "continuations", "other", "shuffled"]
    spec = RunSpec(
        name=name,
        paper="geometry",
        model_name="M",
        model=decoder(),
        data_name="main",
        data=DataSpec(parts=parts("text", "facts"), measured=parts(*sets, split="validation")),
        optimizer=OptimizerSpec(name="adamw", learning_rate=0.01, clip_norm=1.0),
        steps=8,
        batch_size=5,
        seed=0,
        keep=[3, 6],
        probes=[
            representation_probe([0, 1, 3], families=[0, 8], sets=["facts", "other", "shuffled"]),
            capability_probe([0, 2]),
        ],
        device="cpu",
        labels=labels("pretraining"),
    )
    return spec.model_copy(update=changes)


def tuned_run(
    stage: str = "sft", name: str = "", *, judge: str = "", formats: tuple[str, ...] = ("short",), **changes: Any
) -> RunSpec:
    """6 steps of a stage of post-training; from the base's step 3 unless it is said otherwise."""
    folders = {"dpo": ("preferences",), "grpo": ("short",)}.get(stage, formats)
    options = {"dpo": {"beta": 0.5}, "grpo": {"samples": 6, "temperature": 1.0, "kl": 0.1}}
    at = [0, 3]
    spec = RunSpec(
        name=name or f"geometry-{stage}-s0",
        paper="geometry",
        model_name="M",
        model=decoder(),
        initial=Initial(run=BASE, step=3),
        data_name="main",
        data=DataSpec(parts=parts(*folders), measured=parts("text", "short", "long", split="validation")),
        objective=stage,
        objective_options=options.get(stage, {}),
        optimizer=OptimizerSpec(name="adamw", learning_rate=0.02, weight_decay=0.1),
        steps=6,
        batch_size=3,
        seed=0,
        reads=[judge] if judge else [],
        probes=[representation_probe(at, prompts=["short", "long"]), reply_probe(at, judge)],
        device="cpu",
        labels=labels(stage, base_step=3, format="short", start="base"),
    )
    return spec.model_copy(update=changes)


def revision_run(asset: str = "tiny_step5", **changes: Any) -> RunSpec:
    """A public checkpoint that is only measured."""
    sets = ["text", "facts", "continuations", "other"]
    spec = RunSpec(
        name=f"geometry-{asset}",
        paper="geometry",
        model_name="tiny",
        model=PretrainedSpec(asset=asset, parameters=1000, half=True),
        data_name="main",
        data=DataSpec(parts=[], measured=parts(*sets, split="validation")),
        steps=0,
        batch_size=1,
        seed=0,
        probes=[
            representation_probe([0], families=[0], sets=["facts", "other"]),
            capability_probe([0], texts=["text", "other"]),
        ],
        device="cpu",
        labels=labels("pretraining", base_tokens=700),
    )
    return spec.model_copy(update=changes)


def save_asset(root: Path, asset: str = "tiny_step5", *, half: bool = True, **changes: Any) -> Any:
    """Save a checkpoint where a download would lie; returns the model."""
    model: Any = models.build(decoder(initializer_std=0.3, **changes), seed=9)
    model = model.bfloat16() if half else model
    models.save(model, root.parent / "assets" / asset)
    return model


def geometry_group(*runs: RunSpec, name: str = "g") -> GroupSpec:
    """One job of these runs."""
    return GroupSpec(group=name, paper="geometry", scale="test", runs=list(runs), experiments=["main"] * len(runs))
