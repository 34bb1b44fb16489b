"""From the configuration to everything the DAG is made of: data sets, runs, jobs. No file is read or written here.

Every cell of every experiment is known before anything runs, so `snakemake -n` tells the truth.
"""

from functools import cache

from memorization.config import Config
from memorization.plan.common import DataJob, Plan, share
from memorization.plan.geometry import plan_geometry
from memorization.plan.geometry_data import geometry_assets, geometry_sets, ngram_sets
from memorization.plan.layernorm import labelled_assets, labelled_sets, plan_layernorm
from memorization.plan.patterns import plan_patterns
from memorization.plan.tokenswap import (
    assets_of,
    encoded,
    make_arm_group,
    models_of,
    passage_assets,
    passage_sets,
    plan_tokenswap,
    readers,
)
from memorization.specs import ArmGroupSpec, GroupSpec, objective_function

__all__ = [
    "PLANS",
    "DataJob",
    "Plan",
    "arm_group_spec",
    "assets_of",
    "encoded",
    "geometry_assets",
    "geometry_sets",
    "group_spec",
    "labelled_assets",
    "labelled_sets",
    "models_of",
    "ngram_sets",
    "passage_assets",
    "passage_sets",
    "plan",
    "readers",
    "share",
    "training_roots",
]

PLANS = {"patterns": plan_patterns, "tokenswap": plan_tokenswap, "layernorm": plan_layernorm, "geometry": plan_geometry}


@cache
def plan_cached(paper: str, config_json: str) -> Plan:
    """`plan` behind a cache: a DAG asks many times."""
    return PLANS[paper](Config.model_validate_json(config_json))


def plan(config: Config, paper: str) -> Plan:
    """Plan of one paper."""
    return plan_cached(paper, config.model_dump_json())


def group_spec(config: Config, paper: str, group: str) -> GroupSpec:
    """Spec of one training job."""
    planned = plan(config, paper)
    names = planned.groups[group]
    return GroupSpec(
        group=group,
        paper=paper,
        scale=config.scale,
        runs=[planned.runs[name] for name in names],
        experiments=[planned.owner.get(name, "training") for name in names],
    )


def arm_group_spec(config: Config, group: str) -> ArmGroupSpec:
    """Spec of one decoding job of `tokenswap`."""
    return make_arm_group(config, plan(config, "tokenswap"), group)


def training_roots(group: GroupSpec) -> list[str]:
    """Code that the runs of a group use, as roots for `provenance.source`: the loop, and what their specs name."""
    named = [name for run in group.runs for probe in run.probes for name in (probe.function, probe.before) if name]
    objectives = [objective_function(run.objective) for run in group.runs]
    return ["memorization.training.__main__:main", *dict.fromkeys(named + objectives)]
