"""From the configuration of `geometry` to its data sets, runs and jobs."""

from typing import Any

import numpy as np

from memorization.config import Config
from memorization.config.geometry import FORMATS, OwnDecoder, OwnFacts, PublicDecoder, Training, Variant
from memorization.data.facts import vocabulary_size
from memorization.plan.common import Plan, pack, place
from memorization.plan.geometry_data import QUESTIONS, facts_spec, text_sets
from memorization.specs import DataPart, DataSpec, Initial, ModelSpec, PretrainedSpec, ProbeSpec, RunSpec

PROBES = "memorization.probes"
STAGES = ("sft", "dpo", "grpo")


def log_steps(last: int, number: int) -> list[int]:
    """Step 0 and log-spaced steps from 1 to `last`, `number` or a few more in all."""
    points = number - 1
    while True:
        steps: list[int] = np.unique([0, *np.geomspace(1, last, points).round()]).astype(int).tolist()
        if len(steps) >= min(number, last + 1):
            return steps
        points += 1


def even_steps(last: int, number: int) -> list[int]:
    """`number` evenly spaced steps from 0 to `last`."""
    steps: list[int] = np.unique(np.linspace(0, last, number).round()).astype(int).tolist()
    return steps


def suffix_of(config: Config, name: str) -> str:
    """What the folders of a model's sets end in: sets of public models are stored in their own tokens."""
    model = config.geometry.models.get(name)
    return f"_{model.tokenizer}" if isinstance(model, PublicDecoder) else ""


def common(config: Config, name: str, seed: int) -> dict[str, Any]:
    """Fields of every run."""
    return {
        "paper": "geometry",
        "model_name": name,
        "data_name": "main",
        "seed": seed,
        "precision": config.compute.precision,
        "device": config.compute.device,
        "threads": config.compute.threads,
    }


def model_spec(config: Config, name: str, *, few: bool = False) -> ModelSpec:
    """A decoder from nothing. few: over the small vocabulary."""
    model, data = config.geometry.models[name], config.geometry.data
    assert isinstance(model, OwnDecoder) and isinstance(data, OwnFacts)
    return ModelSpec(
        architecture=model.architecture,
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        positions=data.length + 8,  # no set has items longer than `length`; some room is left
        vocabulary=vocabulary_size(facts_spec(config), small=few),
        tied=False,
    )


def measured(config: Config, ending: str = "", *, questions: bool = True) -> list[DataPart]:
    """Sets that every pre-training run and public checkpoint is measured on."""
    data, sequences = config.geometry.data, config.geometry.measuring.sequences
    parts = [DataPart(set="text", folder=f"text{ending}", items=sequences)]
    if questions:
        parts += [DataPart(set=name, folder=f"{name}{ending}", items=data.questions) for name in QUESTIONS]
        others = min(sequences, config.geometry.measuring.other_sequences)
        parts += [DataPart(set=name, folder=f"{name}{ending}", items=others) for name in text_sets(config)]
    return parts


def representation_probe(
    config: Config, at: list[int], *, sets: list[str] | None = None, prompts: list[str] | None = None
) -> ProbeSpec:
    """Spectra of the text. sets: measured too, as are the families, at every few of the steps `at` and at the last."""
    measuring = config.geometry.measuring
    options: dict[str, Any] = {
        "sequences": measuring.sequences,
        "resamples": measuring.resamples,
        "families": [] if sets is None else sorted({*at[:: measuring.families_every], at[-1]}),
        "sets": sets or [],
        "prompts": prompts or [],
    }
    return ProbeSpec(function=f"{PROBES}.representations:representations", at=at, options=options)


def capability_probe(config: Config, at: list[int], texts: list[str], questions: list[str]) -> ProbeSpec:
    """Loss of texts, and answers to questions."""
    components = list(config.geometry.measuring.components)
    options: dict[str, Any] = {"texts": texts, "questions": questions, "components": components}
    return ProbeSpec(function=f"{PROBES}.capabilities:capabilities", at=at, options=options)


def labels(stage: str, width: int, tokens: int, **more: str | int) -> dict[str, str | int | float]:
    """Columns that every row of a run carries; tokens: of an update."""
    base: dict[str, Any] = {"variant": "base", "base_tokens": 0, "base_step": 0, "format": "", "start": ""}
    return {**base, "stage": stage, "width": width, "tokens_per_step": tokens, **more}


def pretraining_run(
    config: Config,
    name: str,
    seed: int,
    steps: int,
    variant: str = "base",
    change: Variant | None = None,
    *,
    whole: bool = False,
) -> RunSpec:
    """A decoder from nothing, measured at log-spaced steps. change: what differs from the base.

    whole: with everything that is measured of main runs; else only what shows the phases.
    """
    section, change = config.geometry, change or Variant()
    data, recipe = section.data, section.pretraining
    assert isinstance(data, OwnFacts)
    few = change.small_vocabulary
    ending = "_small" if few else ""
    # checkpoints that are tuned are measured too (figure 5)
    keep = [step for step in bases_of(config) if step < steps and name == section.sft.model and variant == "base"]
    at = sorted({*log_steps(steps, section.measuring.checkpoints), *keep})
    update = {key: getattr(change, key) for key in ("weight_decay", "schedule") if getattr(change, key) is not None}
    whole = whole and not few
    probes = [
        representation_probe(config, at, sets=["facts", *text_sets(config)] if whole else None),
        capability_probe(config, at, ["text", "facts"], list(QUESTIONS) if whole else ["facts"]),
    ]
    sets = [] if whole else [DataPart(set="facts", folder=f"facts{ending}", items=data.questions)]
    spec = model_spec(config, name, few=few)
    return RunSpec(
        name="-".join(filter(None, ["geometry", name, "" if variant == "base" else variant, f"s{seed}"])),
        **common(config, name, seed),
        model=spec,
        data=DataSpec(
            parts=[
                DataPart(set="text", folder=f"text{ending}", items=change.sequences or data.text),
                DataPart(set="facts", folder=f"facts{ending}", items=change.sequences or data.facts),
            ],
            measured=[*measured(config, ending, questions=whole), *sets],
            seed=seed,
        ),
        optimizer=recipe.optimizer.model_copy(update=update),
        steps=steps,
        batch_size=recipe.batch_size,
        keep=keep,
        probes=probes,
        labels=labels("pretraining", spec.width, recipe.batch_size * data.length, variant=variant),
    )


def base_steps(config: Config) -> int:
    """Updates of the main runs, from which post-training starts and variants differ."""
    return config.geometry.main.steps or config.geometry.pretraining.steps


def bases_of(config: Config) -> list[int]:
    """Pre-training steps of the checkpoints that are fine-tuned, in order."""
    return sorted(set(config.geometry.sft.bases))


def ending_of(config: Config) -> int:
    """End marks behind an answer that are no part of it: replies of downloaded sets count as they are."""
    return int(isinstance(config.geometry.data, OwnFacts))


def revision_run(config: Config, label: str, model: PublicDecoder, step: int, stage: str = "pretraining") -> RunSpec:
    """A public checkpoint, which is only measured: a run without updates.

    Those of post-training are one model, "chain", whose tokens are steps.
    """
    ending = f"_{model.tokenizer}"
    post = stage != "pretraining"
    sets = measured(config, ending, questions=not post)
    if post:
        sets += [DataPart(set=one, folder=f"{one}{ending}", items=config.geometry.data.tests) for one in FORMATS]
    probes = (
        [representation_probe(config, [0], prompts=list(FORMATS)), reply_probe(config, [0], "")]
        if post
        else [
            representation_probe(config, [0], sets=["facts", *text_sets(config)]),
            capability_probe(config, [0], ["text", *text_sets(config)], list(QUESTIONS)),
        ]
    )
    return RunSpec(
        name=f"geometry-{label}-step{step}",
        **common(config, "chain" if post else label, 0),
        model=PretrainedSpec(asset=f"{model.asset}_step{step}", parameters=model.parameters, half=True),
        data=DataSpec(parts=[], measured=sets, seed=0),
        steps=0,
        batch_size=1,
        probes=probes,
        labels=labels(
            stage,
            model.width,
            model.tokens_per_step,
            base_tokens=step * model.tokens_per_step,
            start={"sft": "base", "dpo": "sft", "grpo": "dpo"}.get(stage, ""),
        ),
    )


def reply_probe(config: Config, at: list[int], judge: str) -> ProbeSpec:
    """Replies to questions. judge: the run whose model scores them, "" for none."""
    measuring = config.geometry.measuring
    options: dict[str, Any] = {
        "subsets": list(FORMATS),
        "pass_subset": "short",
        "samples": measuring.samples,
        "ks": list(measuring.ks),
        "temperature": measuring.temperature,
        "ending": ending_of(config),
        "judge": judge,
    }
    return ProbeSpec(function=f"{PROBES}.replies:replies", at=at, options=options)


def tuning_run(
    config: Config, stage: str, name: str, seed: int, first: Initial | int, base: int, formats: list[str], start: str
) -> RunSpec:
    """A post-training run from another run, or from a public checkpoint at a step. formats: what it trains on."""
    section = config.geometry
    model = section.models[section.sft.model]
    recipe: Training = getattr(section.post_training, stage)
    ending = suffix_of(config, section.sft.model)
    judge = f"geometry-judge-s{seed}"
    number = section.measuring.tuning_checkpoints
    at = even_steps(recipe.steps, number if start != "base" or base == bases_of(config)[-1] else 2)
    folder = {"dpo": ["preferences"], "grpo": ["short"]}.get(stage, formats)
    options: dict[str, int | float | str] = {}
    if stage == "dpo":
        options = {"beta": section.post_training.beta}
    if stage == "grpo":
        options = {
            "samples": section.post_training.replies,
            "temperature": section.measuring.temperature,
            "kl": section.post_training.kl,
            "ending": ending_of(config),
        }
    spec: ModelSpec | PretrainedSpec
    if isinstance(model, PublicDecoder):
        spec = PretrainedSpec(asset=f"{model.asset}_step{base}", parameters=model.parameters)
    else:
        spec = model_spec(config, section.sft.model)
    return RunSpec(
        name=name,
        **common(config, section.sft.model, seed),
        model=spec,
        initial=first if isinstance(first, Initial) else None,
        data=DataSpec(
            parts=[DataPart(set=one, folder=f"{one}{ending}", items=section.data.tuning) for one in folder],
            measured=[
                *measured(config, ending, questions=False),
                *(DataPart(set=one, folder=f"{one}{ending}", items=section.data.tests) for one in FORMATS),
            ],
            seed=seed,
        ),
        objective=stage,  # type: ignore[arg-type]
        objective_options=options,
        optimizer=recipe.optimizer,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        reads=[judge] if start == "base" and name != judge else [],
        probes=[
            representation_probe(config, at, prompts=list(FORMATS)),
            reply_probe(config, at, judge if start == "base" and name != judge else ""),
        ],
        labels=labels(
            stage,
            model.width,
            recipe.batch_size * section.data.length,  # at most: only their order counts
            base_step=base,
            format="both" if len(formats) > 1 else formats[0],
            start=start,
            base_tokens=base * tokens_per_step(config),
        ),
    )


def tokens_per_step(config: Config) -> int:
    """Tokens of a pre-training update of the model that is tuned."""
    section = config.geometry
    model = section.models[section.sft.model]
    if isinstance(model, PublicDecoder):
        return model.tokens_per_step
    return section.pretraining.batch_size * section.data.length


def tuned_runs(config: Config, seed: int) -> dict[str, list[RunSpec]]:
    """The judge and the fine-tuned runs of a seed (`sft`), and the chain that goes on from one of them (`chain`)."""
    section = config.geometry
    name, bases = section.sft.model, bases_of(config)
    public = isinstance(section.models[name], PublicDecoder)

    def first(base: int) -> Initial | int:
        if public:
            return base
        return Initial(run=f"geometry-{name}-s{seed}", step=base if base < base_steps(config) else None)

    last = bases[-1]
    judge = tuning_run(config, "sft", f"geometry-judge-s{seed}", seed, first(last), last, list(FORMATS), "base")
    runs = [judge] + [
        tuning_run(config, "sft", f"geometry-sft-{one}-b{base}-s{seed}", seed, first(base), base, [one], "base")
        for base in bases
        for one in FORMATS
    ]
    chain = []
    if section.chain.model and not public:
        before = f"geometry-sft-short-b{last}-s{seed}"
        chain.append(next(run for run in runs if run.name == before))
        for stage, start in (("dpo", "sft"), ("grpo", "dpo")):
            run = tuning_run(
                config, stage, f"geometry-{stage}-s{seed}", seed, Initial(run=before), last, ["short"], start
            )
            chain.append(run)
            before = run.name
    return {"sft": runs, "chain": chain}


def add(plan: Plan, experiment: str, runs: list[RunSpec]) -> None:
    """Enter the runs of an experiment; one that two ask for is one run."""
    names = plan.experiments.setdefault(experiment, [])
    for run in runs:
        placed = place(plan.runs, run, experiment)
        plan.runs[placed.name] = placed
        plan.owner.setdefault(placed.name, experiment)
        names.append(placed.name)


def plan_geometry(config: Config) -> Plan:
    """Every run of `geometry`."""
    plan, section = Plan("geometry"), config.geometry
    for name, asked in (("main", section.main), ("small", section.small)):
        for model in asked.models:
            size = section.models[model]
            if isinstance(size, PublicDecoder):
                add(plan, name, [revision_run(config, model, size, step) for step in size.steps])
                continue
            seeds = range(asked.seeds or config.seeds)
            steps = asked.steps or section.pretraining.steps
            whole = name == "main"
            add(plan, name, [pretraining_run(config, model, seed, steps, whole=whole) for seed in seeds])
        plan.experiments.setdefault(name, [])
    plan.experiments["third_phase"] = []
    if section.third_phase.model:
        for seed in range(section.third_phase.seeds or config.seeds):
            add(plan, "third_phase", variant_runs(config, seed))
    asking = {"sft": section.sft.seeds or config.seeds, "chain": section.chain.seeds or config.seeds}
    for seed in range(max(asking.values())):
        tuned = tuned_runs(config, seed)
        for name, number in asking.items():
            add(plan, name, tuned[name] if seed < number else [])
    for stage, one in section.chain.stages.items():
        label = f"{stage}_{one.asset}"
        add(plan, "chain", [revision_run(config, label, one, step, stage) for step in one.steps])
    add_first(config, plan)
    group(config, plan)
    apart(config, plan)
    return plan


def add_first(config: Config, plan: Plan) -> None:
    """Enter the runs whose models others start from or read, where no experiment asks for them (it has fewer seeds)."""
    name = config.geometry.sft.model
    for run in list(plan.runs.values()):
        if run.labels["stage"] == "pretraining" or not run.steps:
            continue
        judge = tuned_runs(config, run.seed)["sft"][0]
        for needed in [*run.reads, *([run.initial.run] if run.initial else [])]:
            if needed not in plan.runs:
                base = pretraining_run(config, name, run.seed, base_steps(config), whole=True)
                plan.runs[needed] = judge if needed == judge.name else base


def variant_runs(config: Config, seed: int) -> list[RunSpec]:
    """Runs of the study of the third phase: the main run of its model, and the variants."""
    section = config.geometry
    study, steps = section.third_phase, base_steps(config)
    assert study.model
    main = study.model in section.main.models and seed < (section.main.seeds or config.seeds)
    runs = [pretraining_run(config, study.model, seed, steps, whole=main)]
    for name, change in study.variants.items():
        runs.append(pretraining_run(config, change.model or study.model, seed, change.steps or steps, name, change))
    return runs


def apart(config: Config, plan: Plan) -> None:
    """What is measured without training: n-grams of the data of each pre-training seed, and the toy model."""
    section = config.geometry
    seeds = sorted({run.seed for run in plan.runs.values() if run.labels["stage"] == "pretraining"}) or [0]
    plan.experiments["ngrams"] = [f"ngrams-s{seed}" for seed in seeds]
    plan.experiments["toy"] = [
        f"toy-{name}-s{seed}" for name in section.toy.settings for seed in range(section.toy.seeds)
    ]
    plan.folders = {name: f"geometry/{kind}" for kind in ("ngrams", "toy") for name in plan.experiments[kind]}


def group(config: Config, plan: Plan) -> None:
    """Jobs: pre-training over all seeds; then each seed's post-training, whose runs need each other, in turn.

    A seed's post-training is one job if `compute.runs_per_job` allows, else a job or more a stage. Public checkpoints
    have a job each, so that another revision leaves all else as it is.
    """
    runs, size = plan.runs, config.compute.runs_per_job
    own = [name for name, run in runs.items() if run.steps and run.labels["stage"] == "pretraining"]
    for number, job in enumerate(pack({name: cost(runs[name]) for name in own}, size) if own else []):
        plan.groups[f"geometry-first-{number}"] = job
    for name, run in runs.items():
        if not run.steps:
            plan.groups[f"{name}-only"] = [name]
    for seed in sorted({run.seed for run in runs.values()}):
        mine = [name for name, run in runs.items() if run.seed == seed and run.steps and name not in own]
        judge = [name for name in mine if name.startswith("geometry-judge")]
        stages = [judge, *([n for n in mine if runs[n].labels["stage"] == one and n not in judge] for one in STAGES)]
        if len(mine) <= size:
            stages = [[name for stage in stages for name in stage]]
        number = 0
        for stage in filter(None, stages):
            jobs = [stage] if len(stages) == 1 else pack({name: cost(runs[name]) for name in stage}, size)
            for job in jobs:
                plan.groups[f"geometry-tuned-s{seed}-{number}"] = job
                number += 1


def cost(run: RunSpec) -> float:
    """Relative time of a run: an update has a fixed part, and one that grows with the width."""
    width = int(run.labels["width"])
    return float(run.steps * run.batch_size * (30 + width))
