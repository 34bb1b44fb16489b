"""From the configuration of `tokenswap` to its models, decoding arms and jobs."""

import math

from memorization.config import Config
from memorization.config.tokenswap import Arm, Decoding, PublicModel, PublicTexts, Recipe
from memorization.plan.common import Plan, pack
from memorization.specs import (
    ArmGroupSpec,
    ArmSpec,
    DataPart,
    DataSpec,
    Initial,
    Measure,
    ModelRef,
    ModelSpec,
    PretrainedSpec,
    ProbeSpec,
    RunSpec,
)

PASSAGES = "memorization.probes.scheduled:passages"
EVALUATIONS = 4  # of the passages while a model trains: enough to see that it learned them, cheap enough not to matter


def tokenizer_of(recipe: Recipe) -> str:
    """Data folder of the tokenizer that models of a recipe use."""
    return "tokenizer" if recipe.tokenizer == "main" else "tokenizer_other"


def vocabulary_of(config: Config, recipe: Recipe) -> int:
    """Tokens of the tokenizer that models of a recipe use."""
    section = config.tokenswap
    if recipe.tokenizer == "main":
        return section.vocabulary or config.text.vocabulary
    assert section.other_vocabulary  # the configuration is checked for it
    return section.other_vocabulary


def passage_parts(config: Config, recipe: Recipe, asset: str = "") -> list[DataPart]:
    """The passages a recipe trains on, a part a domain; of a public model in the tokens of its `asset`."""
    if recipe.passages is None:
        return []
    parts = []
    for domain in recipe.domains or config.tokenswap.domains:
        first, last = (round(share * config.tokenswap.size(domain)) for share in recipe.passages)
        if last > first:
            part = DataPart(
                set=domain,
                folder=f"passages_{domain}_{asset}" if asset else f"passages_{domain}",
                items=last - first,
                first=first,
                copies=recipe.copies,
                held_out=False,
            )
            parts.append(part)
    return parts


def make_run(config: Config, name: str, seed: int) -> RunSpec:
    """Spec of the training of model `name`, recipe-size."""
    section = config.tokenswap
    recipe_name, _, size_name = name.partition("-")
    recipe, size = section.recipes[recipe_name], section.models[size_name]
    asset = size.asset if isinstance(size, PublicModel) else ""
    parts, domains = passage_parts(config, recipe, asset), list(recipe.domains or section.domains)
    prefix, suffix = section.lengths(domains, name) if recipe.passages else (section.prefix, section.suffix)
    optimizer = recipe.optimizer or section.optimizer
    if recipe.background:
        folder = "background" if recipe.tokenizer == "main" else "background_other"
        first, last = (round(share * section.background) for share in recipe.background)
        background = DataPart(set="background", folder=folder, items=last - first, first=first, copies=[recipe.rounds])
        parts = [background, *parts]
    exposures = sum(part.exposures for part in parts)
    batch_size = min(recipe.batch_size or section.batch_size, exposures)
    steps = math.ceil(exposures / batch_size)
    rate = (size.learning_rate or optimizer.learning_rate) * recipe.rate
    model = (
        PretrainedSpec(asset=size.asset, parameters=size.parameters)
        if isinstance(size, PublicModel)
        else ModelSpec(
            architecture=section.architecture,
            layers=size.layers,
            width=size.width,
            heads=size.heads,
            positions=2 * section.length,  # one text may be longer in another vocabulary
            vocabulary=vocabulary_of(config, recipe),
        )
    )
    return RunSpec(
        name=f"{name}-s{seed}",
        paper="tokenswap",
        model_name=name,
        model=model,
        initial=start_of(config, recipe, size_name, seed),
        data_name=recipe_name,
        data=DataSpec(parts=parts, validation=section.held_out if recipe.background else 0, seed=seed),
        objective="goldfish" if recipe.goldfish else "causal_lm",
        objective_options={"k": recipe.goldfish} if recipe.goldfish else {},
        optimizer=optimizer.model_copy(update={"learning_rate": rate}),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        prompt_length=prefix,
        completion_length=suffix,
        probes=[ProbeSpec(function=PASSAGES, every=math.ceil(steps / EVALUATIONS), options={"subsets": domains})],
        precision=section.precision or config.compute.precision,
        device=config.compute.device,
        threads=config.compute.threads,
    )


def start_of(config: Config, recipe: Recipe, size: str, seed: int) -> Initial | None:
    """The run whose model a recipe goes on from, if any."""
    if not recipe.start or not config.tokenswap.recipes[recipe.start].trained:
        return None
    return Initial(run=f"{recipe.start}-{size}-s{seed}")


def reference(config: Config, name: str, seed: int) -> ModelRef:
    """Where model `name` is."""
    section = config.tokenswap
    recipe_name, _, size_name = name.partition("-")
    recipe, size = section.recipes[recipe_name], section.models[size_name]
    run = f"{name}-s{seed}" if recipe.trained else ""
    if isinstance(size, PublicModel):
        return ModelRef(
            name=name, recipe=recipe_name, size=size_name, run=run, asset=size.asset, parameters=size.parameters
        )
    return ModelRef(
        name=name,
        recipe=recipe_name,
        size=size_name,
        run=run,
        tokenizer=tokenizer_of(recipe),
        parameters=12 * size.layers * size.width**2,
    )


def measured(config: Config, domain: str) -> int:
    """Passages of a domain that are decoded."""
    size = config.tokenswap.size(domain)
    return min(size, config.tokenswap.measured or size)


def domains_of(config: Config, experiment: Decoding) -> list[str]:
    """Domains whose passages an experiment decodes."""
    return list(experiment.domains or config.tokenswap.domains) if experiment.decodes else []


def with_domains(config: Config, arm: ArmSpec, domains: set[str]) -> ArmSpec:
    """The arm, decoding the passages of these domains; what holds for the whole job is left out."""
    section = config.tokenswap
    chosen = [name for name in section.domains if name in domains]
    prefix, suffix = section.lengths(chosen, arm.name)
    update = {
        "domains": {name: measured(config, name) for name in chosen}
        if 0 < len(chosen) < len(section.domains)
        else None,
        "prefix": prefix if prefix != section.prefix else None,
        "suffix": suffix if suffix != section.suffix else None,
    }
    return arm.model_copy(update=update)


def make_arm(config: Config, arm: Arm, measure: list[Measure], seed: int) -> ArmSpec:
    """Spec of one arm, without its domains."""
    words = (arm.words or config.tokenswap.words) if arm.method == "tokenswap" else ""
    parts = [arm.model, arm.method, arm.aux, words, arm.decoding if arm.decoding != "greedy" else ""]
    return ArmSpec(
        name="-".join([part for part in parts if part] + [f"s{seed}"]),
        seed=seed,
        model=reference(config, arm.model, seed),
        method=arm.method,
        aux=reference(config, arm.aux, seed) if arm.aux else None,
        words=words,
        decoding=arm.decoding,
        measure=sorted(measure),
    )


def plan_tokenswap(config: Config) -> Plan:
    """Everything `tokenswap` needs."""
    section, plan = config.tokenswap, Plan("tokenswap")
    domains: dict[str, set[str]] = {}
    for name, experiment in section.experiments.items():
        plan.experiments[name] = []
        for seed in range(experiment.seeds or config.seeds):
            for entry in experiment.arms:
                arm = make_arm(config, entry, list(experiment.measure), seed)
                before = plan.arms.get(arm.name)
                measure = sorted({*arm.measure, *(before.measure if before else [])})
                domains.setdefault(arm.name, set()).update(domains_of(config, experiment))
                plan.arms[arm.name] = arm.model_copy(update={"measure": measure})
                plan.owner.setdefault(arm.name, name)
                plan.experiments[name].append(arm.name)
    plan.arms = {name: with_domains(config, arm, domains[name]) for name, arm in plan.arms.items()}
    for seed in sorted({arm.seed for arm in plan.arms.values()}):
        plan_training(config, plan, seed)
        # in the order of the configuration, so that arms of one model stay together
        names = [name for name, arm in plan.arms.items() if arm.seed == seed]
        size = section.arms_per_job
        for start in range(0, len(names), size):
            plan.arm_groups[f"s{seed}-{start // size}"] = names[start : start + size]
    return plan


def plan_training(config: Config, plan: Plan, seed: int) -> None:
    """Add the runs that the arms of a seed need, and their jobs: first models from nothing, then those that go on."""
    section = config.tokenswap
    refs = [ref for arm in plan.arms.values() if arm.seed == seed for ref in (arm.model, arm.aux) if ref and ref.run]
    names = dict.fromkeys(ref.name for ref in [*refs, reference(config, section.judge, seed)] if ref.run)
    runs = {name: make_run(config, name, seed) for name in names}
    starts = {run.initial.run for run in runs.values() if run.initial} - {run.name for run in runs.values()}
    for start in sorted(starts):
        name = start.removesuffix(f"-s{seed}")
        runs[name] = make_run(config, name, seed)
    for stage in (0, 1):
        chosen = {run.name: run for run in runs.values() if bool(run.initial) == bool(stage)}
        plan.runs |= chosen
        for number, group in enumerate(pack({name: cost(run) for name, run in chosen.items()}, section.runs_per_job)):
            plan.groups[f"tokenswap-s{seed}-{'ab'[stage]}{number}"] = group


def cost(run: RunSpec) -> float:
    """Arithmetic of a run, up to a factor: weights that every training token passes."""
    weights = run.model.parameters
    if isinstance(run.model, ModelSpec):
        weights += run.model.vocabulary * run.model.width
    return float(weights * run.data.exposures)


def make_arm_group(config: Config, plan: Plan, group: str) -> ArmGroupSpec:
    """Spec of one decoding job."""
    section = config.tokenswap
    arms = [plan.arms[name] for name in plan.arm_groups[group]]
    return ArmGroupSpec(
        group=group,
        paper="tokenswap",
        scale=config.scale,
        seed=arms[0].seed,
        arms=arms,
        experiments=[plan.owner[arm.name] for arm in arms],
        domains={name: measured(config, name) for name in section.domains},
        prefix=section.prefix,
        suffix=section.suffix,
        held_out=section.held_out,
        judge=reference(config, section.judge, arms[0].seed),
        memfree_order=section.memfree_order,
        memfree_prompt=section.memfree_prompt,
        draft_tokens=section.draft_tokens,
        samples=section.samples,
        sampled_passages=section.sampled_passages,
        examples=section.examples,
        cost_tokens=section.cost.tokens,
        cost_batch=section.cost.batch,
        cost_repeats=section.cost.repeats,
        precision=section.precision or config.compute.precision,
        device=config.compute.device,
        threads=config.compute.threads,
    )


def models_of(spec: ArmGroupSpec) -> list[ModelRef]:
    """Every model a decoding job loads. The judge reads only what models with its own tokenizer wrote."""
    refs = [ref for arm in spec.arms for ref in (arm.model, arm.aux) if ref]
    if any(arm.model.tokenizer == spec.judge.tokenizer and "passages" in arm.measure for arm in spec.arms):
        refs.append(spec.judge)
    return list({ref.name: ref for ref in refs}.values())


def readers(config: Config, plan: Plan) -> dict[str, list[str]]:
    """Assets in whose tokens the passages of a domain must be long enough: of public models that read them.

    `main` stands for the tokenizer of models that are trained from nothing. Only domains of public texts are there: the
    others are cut to their length in tokens.
    """
    section = config.tokenswap
    found: dict[str, set[str]] = {
        name: set() for name, source in section.domains.items() if isinstance(source, PublicTexts)
    }
    for arm in plan.arms.values():
        if {"passages", "cost"} & set(arm.measure):
            for name in arm.domains or section.domains:
                if name in found:
                    found[name].add(arm.model.asset or "main")
    for run in plan.runs.values():
        for part in run.data.parts:
            if part.set in found:
                found[part.set].add(run.model.asset if isinstance(run.model, PretrainedSpec) else "main")
    return {name: sorted(names) for name, names in found.items()}


def encoded(plan: Plan) -> dict[str, list[str]]:
    """Folder -> [domain, asset] of the passages that public models train on, in their own tokens."""
    return {
        part.folder: [part.set, run.model.asset]
        for run in plan.runs.values()
        if isinstance(run.model, PretrainedSpec)
        for part in run.data.parts
    }


def passage_sets(config: Config, plan: Plan) -> list[str]:
    """Data folders of `tokenswap`."""
    section = config.tokenswap
    other = ["background_other"] if section.other_vocabulary else []
    return [*(f"passages_{name}" for name in section.domains), "background", *other, *encoded(plan)]


def passage_assets(config: Config, plan: Plan) -> list[str]:
    """Assets that passages are made from: their texts, and the tokenizers that read them."""
    sources = [source for source in config.tokenswap.domains.values() if isinstance(source, PublicTexts)]
    names = [name for source in sources for name in (source.asset, source.tokenizer) if name]
    read = [name for assets in readers(config, plan).values() for name in assets if name != "main"]
    return list(dict.fromkeys([*names, *read, *(asset for _, asset in encoded(plan).values())]))


def assets_of(config: Config, plan: Plan) -> list[str]:
    """All assets that `tokenswap` reads."""
    refs = [ref.asset for arm in plan.arms.values() for ref in (arm.model, arm.aux) if ref]
    return list(dict.fromkeys([*passage_assets(config, plan), *(name for name in refs if name)]))
