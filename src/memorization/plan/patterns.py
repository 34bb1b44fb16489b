"""From the configuration of `patterns` to its data sets, runs and jobs."""

from typing import Any

from memorization.config import Config
from memorization.config.patterns import COUNTING, Experiment
from memorization.data.patterns import CHARACTERS
from memorization.plan.common import DataJob, Plan, place
from memorization.specs import DataPart, DataSpec, ModelSpec, ProbeSpec, RunSpec, StopSpec
from memorization.training.shares import proportional

PROBES = "memorization.probes.scheduled"


def probes(config: Config, experiment: Experiment, data: str) -> list[ProbeSpec]:
    """What is measured during a run."""
    patterns = config.patterns
    every = {
        "completion": experiment.evaluate_every,
        "recency": experiment.recency_every,
        "overlap": experiment.overlap_every,
        "sampling": experiment.sampling_every,
    }
    options: dict[str, dict[str, Any]] = {
        "completion": {"lengths": [list(pair) for pair in experiment.lengths]} if experiment.lengths else {},
        "overlap": {"jaccard_order": patterns.jaccard_order},
        "sampling": patterns.sampling.model_dump(),
    }
    wanted = [
        ProbeSpec(
            function=f"{PROBES}:{name}",
            before=f"{PROBES}:recency_before" if name == "recency" else None,
            every=steps,
            options=options.get(name, {}),
        )
        for name, steps in every.items()
        if steps
    ]
    if experiment.adherence and is_counting(config, data):
        wanted.append(ProbeSpec(function=f"{PROBES}:adherence", every=experiment.evaluate_every))
    return wanted


def is_counting(config: Config, data: str) -> bool:
    """Whether the increment rule is what a set is made of."""
    return data in config.patterns.sets and config.patterns.sets[data].kind in COUNTING


def parts(config: Config, data: str, items: int) -> tuple[list[DataPart], str]:
    """Parts of a set or mixture of `items` items, and its vocabulary."""
    patterns = config.patterns
    shares = patterns.mixtures.get(data, {data: 1.0})
    vocabulary = "text" if any(patterns.sets[name].kind == "text" for name in shares) else "characters"
    counts = proportional(items, list(shares.values()))
    made = []
    for (name, _), count in zip(shares.items(), counts, strict=True):
        as_text = vocabulary == "text" and patterns.sets[name].kind != "text"
        made.append(DataPart(set=name, folder=f"{name}_as_text" if as_text else name, items=count))
    return made, vocabulary


def make_run(config: Config, name: str, data: str, model: str, items: int, seed: int) -> RunSpec:
    """Spec of one cell of experiment `name`."""
    patterns, experiment = config.patterns, config.patterns.experiments[name]
    members, vocabulary = parts(config, data, items)
    size = patterns.models[model]
    on_text = vocabulary == "text"
    return RunSpec(
        name=f"{data}-{model}-n{items}-s{seed}",
        paper="patterns",
        model_name=model,
        model=ModelSpec(
            layers=size.layers,
            width=size.width,
            heads=size.heads,
            positions=patterns.positions,
            vocabulary=config.text.vocabulary if on_text else len(CHARACTERS),
            dropout=patterns.dropout,
            initializer_std=patterns.initializer_std,
            embedding=patterns.text_embedding if on_text else "trained",
        ),
        data_name=data,
        data=DataSpec(parts=members, validation=patterns.validation, seed=seed),
        optimizer=patterns.optimizer,
        steps=experiment.steps,
        batch_size=min(items, experiment.batch_size or patterns.batch_size),
        seed=seed,
        prompt_length=patterns.prompt,
        completion_length=patterns.completion,
        probes=probes(config, experiment, data),
        stop=StopSpec(patience=experiment.stop) if experiment.stop else None,
        precision=config.compute.precision,
        device=config.compute.device,
        threads=config.compute.threads,
    )


def cells(config: Config, experiment: Experiment) -> list[tuple[str, str, int, int]]:
    """(data, model, items, seed) of every run of an experiment, in a stable order."""
    sizes = experiment.pairings or [(model, items) for model in experiment.models for items in experiment.items]
    seeds = range(experiment.seeds or config.seeds)
    return [(data, model, items, seed) for data in experiment.data for model, items in sizes for seed in seeds]


def plan_patterns(config: Config) -> Plan:
    """Everything `patterns` needs."""
    patterns, plan = config.patterns, Plan("patterns")
    owner: dict[str, str] = {}
    for name, experiment in patterns.experiments.items():
        plan.experiments[name] = []
        for cell in cells(config, experiment):
            run = place(plan.runs, make_run(config, name, *cell), name)
            plan.runs[run.name] = run
            owner.setdefault(run.name, name)
            plan.experiments[name].append(run.name)
        if experiment.vary:
            for data in experiment.data:
                value = patterns.sets[data].options.get(experiment.vary)
                if value is not None:
                    plan.options[data] = (experiment.vary, float(value))
    # seed by seed, so that more seeds mean more jobs and the jobs there were stay what they are
    size = config.compute.runs_per_job
    for seed in sorted({run.seed for run in plan.runs.values()}):
        names = [name for name, run in plan.runs.items() if run.seed == seed]
        for start in range(0, len(names), size):
            chunk = names[start : start + size]
            plan.groups[f"patterns-s{seed}-{start // size}" if size > 1 else f"patterns-{chunk[0]}"] = chunk
    plan.owner = owner
    plan_data(config, plan)
    return plan


def plan_data(config: Config, plan: Plan) -> None:
    """Add the data jobs that the plan's runs need: every set as large as its largest run wants."""
    for run in plan.runs.values():
        for part in run.data.parts:
            vocabulary = parts(config, run.data_name, run.data.items)[1]
            chosen = config.patterns.sets[part.set]
            before = plan.data.get(part.folder)
            plan.data[part.folder] = DataJob(
                part.folder,
                chosen.kind,
                dict(chosen.options),
                vocabulary,
                # in steps of five: a few more seeds need no new data, and so train nothing again
                seeds=max(5 * (run.data.seed // 5 + 1), before.seeds if before else 0),
                train=max(part.items, before.train if before else 0),
            )
