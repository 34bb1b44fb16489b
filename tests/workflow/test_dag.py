"""Every scale and target plans; every configuration key matters, to its own paper only."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memorization.config import Config, layers, load_config, merge
from memorization.errors import UserError
from workspace import REPOSITORY

SCALES = sorted(path.stem for path in (REPOSITORY / "config" / "scales").glob("*.yaml"))
SCALE = "laptop"  # whose keys are flipped: its experiments use every set, model and recipe
# the same DAG with fewer and larger jobs, so that it is planned faster
COARSE = {
    "scale": SCALE,
    "seeds": 1,
    "compute": {"runs_per_job": 60, "pieces_per_job": 11},
    "tokenswap": {"runs_per_job": 20, "arms_per_job": 40},
    "layernorm": {"experiments": {"main": {"seeds": 1}, "pretraining": {"seeds": 1}}},
}
PAPERS = Config.model_fields["papers"].annotation.__args__[0].__args__
Jobs = dict[tuple[str, ...], str]


def plan(config: dict[str, Any], *targets: str) -> Jobs:
    """Build the DAG in this process: outputs (or rule) of each job -> what a dry run would compare, and resources."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        DeploymentSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
        StorageSettings,
    )

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=config),
            storage_settings=StorageSettings(),
            deployment_settings=DeploymentSettings(),
            snakefile=REPOSITORY / "Snakefile",
            workdir=REPOSITORY,
        )
        made.dag(dag_settings=DAGSettings(targets=set(targets), forceall=True, print_dag_as=None))
        workflow = made._workflow
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        return {key(job): describe(job) for job in workflow.dag.jobs}


def key(job: Any) -> tuple[str, ...]:
    """What names a job."""
    return tuple(map(str, job.output)) or (job.rule.name,)


def describe(job: Any) -> str:
    """Everything about a job that a configuration key may change."""
    resources = {k: v for k, v in job.resources.items() if k not in ("tmpdir", "_nodes")}
    params = sorted({repr(value) for value in job.params})  # a set, as Snakemake compares them
    return json.dumps([params, {k: str(v) for k, v in resources.items()}, sorted(map(str, job.input))])


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_plans(scale):
    jobs = plan({"scale": scale})
    runs = sum(1 for outputs in jobs if outputs[0].endswith("manifest.json") or "metrics.parquet" in outputs[0])
    assert len(jobs) > 10 and runs >= 1


TARGETS = [
    "patterns",
    "patterns_fig2a",
    "tokenswap",
    "tokenswap_fig3",
    "layernorm",
    "layernorm_fig3",
    "layernorm_fig13",
    "geometry",
    "geometry_fig5",
    "geometry_fig10",
    "claims",
    "assets",
    "freeze",
]


@pytest.mark.parametrize("target", TARGETS)
def test_every_kind_of_target_plans(target):
    assert plan({"scale": "smoke"}, target)


def test_paper_scale_downloads_its_assets_and_trains_one_run_a_job():
    jobs = plan({"scale": "paper"})
    assert ("results/assets/gpt2.json", "results/assets/gpt2") in jobs
    config = load_config(REPOSITORY / "config", {"scale": "paper"})
    assert config.compute.runs_per_job == 1 and config.text.source == "wikitext"


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all leaves of a nested mapping; lists are leaves."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


def get(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Value at a path."""
    for name in path:
        config = config[name]
    return config


# keys whose flip cannot be guessed from their type
FLIPS: dict[str, Any] = {
    "scale": None,  # another scale is another folder: every job changes; tested above
    "papers": ["patterns"],
    "results": "elsewhere",
    "compute.device": "cpu",
    "compute.precision": "bfloat16",
    "text.source": None,  # needs other keys with it: tested above
    "text.packages": ["networkx"],
    "patterns.optimizer.name": "adamw",
    "patterns.optimizer.clip_norm": 1.0,
    "patterns.optimizer.schedule": "cosine",
    "patterns.initializer_std": 0.05,
    "patterns.text_embedding": "trained",
    "patterns.lengths": [23, 32],
    "tokenswap.architecture": "gpt2",
    "tokenswap.words": "english-66",
    "tokenswap.judge": "background-M",
    "tokenswap.optimizer.name": "adam",
    "tokenswap.optimizer.schedule": "linear",
    "tokenswap.recipes.tuned.start": "other",
    "tokenswap.recipes.tuned.goldfish": 5,
    "tokenswap.recipes.wild.tokenizer": None,  # only where a recipe starts from nothing
    "layernorm.fine_tuning.digits.epochs.post": None,  # no image model is Post-LN
    "geometry.corpora.facts.entities": 40,
    "geometry.corpora.facts.gap": [5, 14],
    "geometry.corpora.facts.small_vocabulary": 600,
    "geometry.measuring.sequences": 900,
    "geometry.measuring.samples": 600,
    "geometry.sft.bases": [250, 700, 1400, 2000],
    "geometry.toy.settings.main.dimension": 1,
}
BY_NAME: dict[str, Any] = {
    "kind": None,
    "architecture": None,
    "seeds": 6,
    "batch_size": 7,
    "vary": None,
    "units": "sentences",
}


def flipped(path: tuple[str, ...], value: Any) -> Any:
    """Another valid value; None where the test has nothing to flip."""
    name = ".".join(path)
    if name in FLIPS:
        return FLIPS[name]
    if name.startswith("layernorm.experiments.checkpoint"):
        return None  # has no runs by default; config/minilm.yaml gives it some
    if name.startswith("geometry.toy.settings.") and "settings.main." not in name:
        return None  # the same keys as those of `main`, read by the same job
    if path[-1] in BY_NAME and not (path[-1] == "seeds" and len(path) == 1):
        return BY_NAME[path[-1]]
    if "mixtures" in path:
        return None  # shares must add up to 1: flipped together below
    if path[-1] == "shuffle":
        return "words" if value != "words" else "none"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 or 0.1
    if value is None:
        return 3
    if isinstance(value, list) and path[-1] == "lengths":
        return [*value, [9, 4]]
    if isinstance(value, list) and path[-1] == "betas":
        return [0.8, 0.99]
    if isinstance(value, list) and path[-1] == "models" and value:
        return ["XS"]
    if isinstance(value, list) and len(value) > 1:
        return value[:-1]
    if isinstance(value, list) and path[-1] == "items" and value:
        return [value[0] + 1]
    return None


def all_flips() -> list[tuple[tuple[str, ...], Any]]:
    """(path, other value) of every leaf of the configuration of `SCALE`."""
    config = Config.model_validate(layers(REPOSITORY / "config", SCALE)).model_dump(mode="json")
    flips = [(path, flipped(path, get(config, path))) for path in leaves(config)]
    return [(path, value) for path, value in flips if value is not None] + [
        (("patterns", "mixtures", "mix4"), {"mi": 0.35, "mij": 0.15})
    ]


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """{a: {b: value}} from (a, b)."""
    for name in reversed(path):
        value = {name: value}
    return value


@pytest.fixture(scope="module")
def unchanged() -> Jobs:
    return plan(copy.deepcopy(COARSE))


def changed_jobs(before: Jobs, after: Jobs) -> set[tuple[str, ...]]:
    """Jobs that are new, gone or different."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_most_leaves_are_flipped():
    """The exceptions are few, and named above."""
    config = Config.model_validate(layers(REPOSITORY / "config", SCALE)).model_dump(mode="json")
    everything = set(leaves(config))
    assert len(all_flips()) > 0.75 * len(everything)


@pytest.mark.parametrize("part", range(8))
def test_every_leaf_changes_some_job_and_none_of_another_paper(unchanged, part):
    dead, leaks = [], []
    for path, value in all_flips()[part::8]:
        overrides = merge(COARSE, copy.deepcopy(nested(path, value)))
        try:
            load_config(REPOSITORY / "config", overrides)
        except UserError:
            continue  # refused with a reason: not a dead knob
        changed = changed_jobs(unchanged, plan(overrides))
        if not changed:
            dead.append(f"{'.'.join(path)} = {value!r}")
        if path[0] in PAPERS:
            leaks += [
                (path, name) for name in changed if not any(path[0] in part for part in name) and not is_shared(name)
            ]
    assert not dead and not leaks


def is_shared(outputs: tuple[str, ...]) -> bool:
    """Jobs that gather all papers: the ledger and the targets."""
    return any(Path(name).name.startswith("claims.") for name in outputs) or outputs[0] in ("all", "claims")
