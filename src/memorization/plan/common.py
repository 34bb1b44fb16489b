"""What a plan is made of, for any paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from memorization.specs import ArmSpec, RunSpec


@dataclass(frozen=True)
class DataJob:
    """One data folder to be made: items of one set under one vocabulary, for every seed."""

    folder: str
    kind: str
    options: dict[str, Any]
    vocabulary: str  # "characters" or "text"
    seeds: int
    train: int


@dataclass
class Plan:
    """What one paper needs."""

    paper: str
    data: dict[str, DataJob] = field(default_factory=dict)
    runs: dict[str, RunSpec] = field(default_factory=dict)
    experiments: dict[str, list[str]] = field(default_factory=dict)  # experiment -> its runs
    groups: dict[str, list[str]] = field(default_factory=dict)  # job -> the runs it trains
    owner: dict[str, str] = field(default_factory=dict)  # run -> the experiment that asked for it first
    options: dict[str, tuple[str, float]] = field(default_factory=dict)  # set -> (varied option, value)
    arms: dict[str, ArmSpec] = field(default_factory=dict)  # what is measured after training
    arm_groups: dict[str, list[str]] = field(default_factory=dict)  # job -> the arms it decodes
    folders: dict[str, str] = field(default_factory=dict)  # what is measured without training -> folder of its tables

    def group_of(self) -> dict[str, str]:
        """Job of every run."""
        return {run: group for group, runs in self.groups.items() for run in runs}

    def groups_for(self, experiments: Sequence[str]) -> list[str]:
        """Training jobs that hold the runs of these experiments."""
        group = self.group_of()
        names = [name for experiment in experiments for name in self.experiments[experiment] if name in group]
        return list(dict.fromkeys(group[name] for name in names))

    def tables_for(self, experiments: Sequence[str]) -> list[str]:
        """Folders below `results/<scale>/` that hold the measurements of these experiments."""
        decoded = {arm: group for group, arms in self.arm_groups.items() for arm in arms}
        names = [name for experiment in experiments for name in self.experiments[experiment] if name in decoded]
        apart = [
            self.folders[name]
            for experiment in experiments
            for name in self.experiments[experiment]
            if name in self.folders
        ]
        return [
            *(f"train/{group}" for group in self.groups_for(experiments)),
            *(f"{self.paper}/decode/{group}" for group in dict.fromkeys(decoded[name] for name in names)),
            *dict.fromkeys(apart),
        ]

    def needed_first(self, group: str) -> list[str]:
        """Training jobs whose models a training job starts from."""
        owner = self.group_of()
        runs = [self.runs[name] for name in self.groups[group]]
        first = [name for run in runs for name in ([run.initial.run] if run.initial else []) + run.reads]
        return [other for other in dict.fromkeys(owner[name] for name in first) if other != group]


def pack(costs: dict[str, float], size: int) -> list[list[str]]:
    """Split pieces into the fewest jobs of at most `size` pieces; longest first, each to the job with least so far."""
    bins: list[list[str]] = [[] for _ in range(math.ceil(len(costs) / size))]
    for name in sorted(costs, key=lambda name: -costs[name]):
        room = [one for one in bins if len(one) < size]
        min(room, key=lambda one: sum(costs[other] for other in one)).append(name)
    return bins


def share(one: RunSpec, other: RunSpec) -> RunSpec | None:
    """One run that serves both, when they differ at most in what is measured; None when they differ in more."""
    if one.model_copy(update={"probes": []}) != other.model_copy(update={"probes": []}):
        return None
    merged = {probe.function: probe for probe in one.probes}
    for probe in other.probes:
        if probe.function not in merged:
            merged[probe.function] = probe
            continue
        mine = merged[probe.function]
        if mine.options and probe.options and mine.options != probe.options:
            return None
        if bool(mine.at) != bool(probe.at):
            return None
        when = {"every": math.gcd(mine.every, probe.every), "at": sorted({*mine.at, *probe.at})}
        merged[probe.function] = mine.model_copy(update={**when, "options": mine.options or probe.options})
    return one.model_copy(update={"probes": list(merged.values())})


def place(runs: dict[str, RunSpec], run: RunSpec, experiment: str) -> RunSpec:
    """Return the run to use for a cell: a planned one that can serve it too, or a new one with a name of its own."""
    variants = [other for name, other in runs.items() if name == run.name or name.startswith(f"{run.name}-")]
    for other in variants:
        merged = share(other, run.model_copy(update={"name": other.name}))
        if merged is not None:
            return merged
    return run.model_copy(update={"name": f"{run.name}-{experiment}"}) if variants else run
