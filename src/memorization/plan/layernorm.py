"""From the configuration of `layernorm` to its data sets, runs and jobs."""

import math
from typing import Any, Literal

from memorization.config import Config
from memorization.config.layernorm import IMAGE, Arm, NormExperiment, OwnModel, PublicNormModel
from memorization.plan.common import Plan, pack, place
from memorization.specs import (
    DataPart,
    DataSpec,
    Initial,
    LabelSpec,
    ModelSpec,
    NoiseSpec,
    OptimizerSpec,
    PretrainedSpec,
    ProbeSpec,
    RunSpec,
    VisionSpec,
)

Form = Literal["classifier", "masked_word", "causal_word"]
PROBES = "memorization.probes.labelled"
STRIPPED = ["all", "early", "middle", "late", "attention", "feed_forward"]
SPECIALS = 3  # ids of padding, class and mask token come before those of the text


def is_text(config: Config, data: str) -> bool:
    """Whether a set holds texts."""
    return config.layernorm.sets[data].kind in ("docstrings", "public_text")


def folder_of(config: Config, model: OwnModel | PublicNormModel) -> str:
    """Folder of a model's data: texts of public models are stored in their own tokens."""
    if isinstance(model, PublicNormModel) and is_text(config, model.data):
        return f"{model.data}_{model.asset}"
    return model.data


def first_word(config: Config) -> int:
    """Ids from here on are words that stand for a package."""
    return SPECIALS + config.text.vocabulary


def model_spec(
    config: Config, model: OwnModel | PublicNormModel, *, classifier: bool
) -> ModelSpec | VisionSpec | PretrainedSpec:
    """What a run's model is."""
    section = config.layernorm
    classes = len(section.sets[model.data].classes)
    head: Literal["classification", "language_model"] = "classification" if classifier else "language_model"
    if isinstance(model, PublicNormModel):
        return PretrainedSpec(
            asset=model.asset,
            parameters=model.parameters,
            head=head,
            masked=model.masked,
            images=not is_text(config, model.data),
            classes=classes if classifier else 0,
        )
    size: dict[str, Any] = {
        "layers": model.layers,
        "width": model.width,
        "heads": model.heads,
        "dropout": section.dropout,
    }
    if model.architecture == "vit":
        assert model.patch  # the configuration is checked for it
        return VisionSpec(**size, architecture="vit", image=IMAGE, patch=model.patch, channels=1, classes=classes)
    return ModelSpec(
        **size,
        architecture=model.architecture,
        positions=section.sets[model.data].tokens + 2,  # type: ignore[union-attr]  # a separator and a word come behind
        vocabulary=first_word(config) + len(config.text.packages),
        head=head,
        classes=classes if classifier else 0,
    )


def label_spec(config: Config, model: OwnModel | PublicNormModel, form: str, noise: float | None) -> LabelSpec:
    """How a run sees the labels of its set."""
    section = config.layernorm
    one = section.sets[model.data]
    classes = list(one.classes)
    text = is_text(config, model.data)
    word: Form = "masked_word" if isinstance(model, PublicNormModel) and model.masked else "causal_word"
    return LabelSpec(
        kind="text" if text else "images",
        classes=len(classes),
        form=word if form == "label_word" else "classifier",
        noise=None
        if noise is None
        else NoiseSpec(share=noise, source_class=classes.index(one.noisy_class), wording=section.wording),
        image=0 if text else (IMAGE if isinstance(model, OwnModel) else model.image),
        channels=0 if text else (1 if isinstance(model, OwnModel) else 3),
    )


def common(config: Config, name: str, seed: int) -> dict[str, Any]:
    """Fields of every run of a model."""
    return {
        "paper": "layernorm",
        "model_name": name,
        "data_name": config.layernorm.models[name].data,
        "seed": seed,
        "precision": config.compute.precision,
        "device": config.compute.device,
        "threads": config.compute.threads,
    }


def pretraining_run(config: Config, name: str, seed: int) -> RunSpec:
    """The first stage of a model from nothing: next tokens of other texts, or the classes of other images."""
    section = config.layernorm
    model = section.models[name]
    assert isinstance(model, OwnModel)
    recipe, one = section.pretraining[model.data], section.sets[model.data]
    part = DataPart(set=model.data, folder=f"{model.data}_pretraining", items=one.pretraining)  # type: ignore[union-attr]
    text = is_text(config, model.data)
    options: dict[str, int | float | str] = {}
    if text:
        options = {"share": recipe.share or 1.0, "weight": recipe.word_weight or 1.0, "words": first_word(config)}
    return RunSpec(
        name=f"{name}-pretrained-s{seed}",
        **common(config, name, seed),
        model=model_spec(config, model, classifier=not text),
        data=DataSpec(
            parts=[part],
            validation=one.pretraining_validation,  # type: ignore[union-attr]
            seed=seed,
            labelled=None if text else label_spec(config, model, "classifier", None),
        ),
        objective="text_and_word" if text else "classification",
        objective_options=options,
        optimizer=recipe.optimizer,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        probes=[
            ProbeSpec(
                function=f"memorization.probes.pretraining:{'language_model' if text else 'supervised'}",
                every=recipe.evaluate_every,
                options={"stripped": STRIPPED},
            ),
            ProbeSpec(function=f"{PROBES}:movement", every=recipe.evaluate_every),
        ],
        labels={
            "position": model.position, "arm": "none", "noise": 0.0, "optimizer": recipe.optimizer.name,
            "form": "pretraining", "start": "scratch", "budget": 0, "stage": "pretraining",
        },
    )  # fmt: skip


def tuning_run(config: Config, experiment: NormExperiment, name: str, arm: Arm, noise: float, seed: int) -> RunSpec:
    """Fine-tuning of a model with some norms stripped, on labels some of which are wrong."""
    section = config.layernorm
    model = section.models[name]
    recipe, one = section.recipe(model), section.sets[model.data]
    per_epoch = math.ceil(one.train / recipe.batch_size)
    word = experiment.form == "label_word"
    labelled = label_spec(config, model, experiment.form, noise)
    own, scratch = isinstance(model, OwnModel), experiment.start == "scratch"
    spec = model_spec(config, model, classifier=not word)
    if scratch and isinstance(spec, PretrainedSpec):
        spec = spec.model_copy(update={"fresh": True})
    every = recipe.evaluate_every * per_epoch
    probes = [
        ProbeSpec(function=f"{PROBES}:accuracy", every=every),
        ProbeSpec(function=f"{PROBES}:movement", every=max(recipe.epochs.values()) * per_epoch),
    ]
    if experiment.gradients and arm == "none":
        options: dict[str, Any] = {"items": min(recipe.gradient_items, one.validation)}
        probe = ProbeSpec(function=f"{PROBES}:gradients", every=recipe.gradients_every * per_epoch, options=options)
        probes.append(probe)
    parts = [
        name,
        "scratch" if scratch else "",
        f"n{noise:g}".replace("0.", ""),
        "muon" if experiment.optimizer == "muon" else "",
        "word" if word else "",
        arm,
        f"s{seed}",
    ]
    optimizer: OptimizerSpec = recipe.optimizer
    if experiment.optimizer == "muon":
        optimizer = optimizer.model_copy(update={"name": "muon"})
    return RunSpec(
        name="-".join(filter(None, parts)),
        **common(config, name, seed),
        model=spec,
        initial=Initial(run=f"{name}-pretrained-s{seed}") if own and not scratch else None,
        strip=arm,
        data=DataSpec(
            parts=[DataPart(set=model.data, folder=folder_of(config, model), items=one.train)],
            validation=one.validation,
            seed=seed,
            labelled=labelled,
        ),
        objective="label_word" if word else "classification",
        objective_options={"masked": int(labelled.form == "masked_word")} if word else {},
        optimizer=optimizer,
        steps=max(recipe.epochs.values()) * per_epoch,
        batch_size=recipe.batch_size,
        probes=probes,
        labels={
            "position": model.position, "arm": arm, "noise": noise, "optimizer": optimizer.name,
            "form": experiment.form, "start": "scratch" if scratch else ("pretrained" if own else "public"),
            "budget": recipe.epochs[model.position], "stage": "fine_tuning",
        },
    )  # fmt: skip


def cells(config: Config, experiment: NormExperiment, seed: int) -> list[RunSpec]:
    """Runs of an experiment for one seed."""
    if experiment.stage == "pretraining":
        return [pretraining_run(config, name, seed) for name in experiment.models]
    return [
        tuning_run(config, experiment, name, arm, noise, seed)
        for name in experiment.models
        for noise in experiment.noise
        for arm in experiment.arms
    ]


def plan_layernorm(config: Config) -> Plan:
    """Every run of `layernorm`; runs that others start from are planned with them."""
    plan = Plan("layernorm")
    for name, experiment in config.layernorm.experiments.items():
        names = []
        for seed in range(experiment.seeds or config.seeds):
            for run in cells(config, experiment, seed):
                placed = place(plan.runs, run, name)
                plan.runs[placed.name] = placed
                plan.owner.setdefault(placed.name, name)
                names.append(placed.name)
        plan.experiments[name] = list(dict.fromkeys(names))
    for run in list(plan.runs.values()):
        if run.initial and run.initial.run not in plan.runs:
            first = pretraining_run(config, run.model_name, run.seed)
            plan.runs[first.name] = first
    group(config, plan)
    return plan


def group(config: Config, plan: Plan) -> None:
    """Jobs of a seed: its pre-training, then its fine-tuning, in jobs of `compute.runs_per_job`.

    Runs of public checkpoints are long and have a job each, so that another checkpoint leaves all else as it is.
    """
    for seed in sorted({run.seed for run in plan.runs.values()}):
        mine = {name: run for name, run in plan.runs.items() if run.seed == seed}
        stages = {
            "first": [name for name, run in mine.items() if run.labels["stage"] == "pretraining"],
            "tuned": [name for name, run in mine.items() if run.labels["stage"] != "pretraining" and not public(run)],
            "public": [name for name, run in mine.items() if public(run)],
        }
        for stage, names in stages.items():
            costs = {name: cost(mine[name]) for name in names}
            jobs = pack(costs, 1 if stage == "public" else config.compute.runs_per_job) if names else []
            for number, job in enumerate(jobs):
                plan.groups[f"layernorm-{stage}-s{seed}-{number}"] = job


def public(run: RunSpec) -> bool:
    """Whether a run is of a public checkpoint."""
    return isinstance(run.model, PretrainedSpec)


def cost(run: RunSpec) -> float:
    """Relative time of a run."""
    return float(run.steps * run.batch_size * run.model.parameters)


def labelled_sets(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """Labelled sets to be made: folder -> what its rule needs to know; `folders` are all that it makes."""
    section, jobs = config.layernorm, {}
    used = dict.fromkeys(run.model_name for run in plan.runs.values())
    last = max((run.seed for run in plan.runs.values()), default=0)
    for name in used:
        model = section.models[name]
        folder = folder_of(config, model)
        one = section.sets[model.data]
        staged = one.kind in ("docstrings", "digits")
        public = model.asset if isinstance(model, PublicNormModel) else None
        if public and folder in jobs:
            continue  # of images, which models from nothing take too: their job also makes the set to pre-train on
        jobs[folder] = {
            **one.model_dump(),
            **({"classes": dict(one.shares)} if one.kind == "docstrings" else {"classes": list(one.classes)}),
            "name": model.data,
            # in steps of five: a few more seeds need no new data, and so train nothing again
            "seeds": 5 * (last // 5 + 1),
            "tokenizer": public if is_text(config, model.data) else None,
            "folders": [folder, *([f"{folder}_pretraining"] if staged and not public else [])],
        }
    return jobs


def labelled_assets(config: Config, plan: Plan) -> list[str]:
    """Public checkpoints and sets that are read."""
    section = config.layernorm
    models = [section.models[name] for name in dict.fromkeys(run.model_name for run in plan.runs.values())]
    checkpoints = [model.asset for model in models if isinstance(model, PublicNormModel)]
    sets = [section.sets[model.data] for model in models]
    return list(dict.fromkeys([*checkpoints, *(one.asset for one in sets if hasattr(one, "asset"))]))
