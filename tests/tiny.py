"""Small runs for tests of training: real models, real data sets, seconds."""

from pathlib import Path

from memorization.data import patterns, store
from memorization.specs import DataPart, DataSpec, GroupSpec, ModelSpec, ProbeSpec, RunSpec

PROBES = "memorization.probes.scheduled"


def tiny_run(name: str = "tiny", **changes: object) -> RunSpec:
    """A run of 40 steps on 12 random-digit items."""
    spec = RunSpec(
        name=name,
        paper="patterns",
        model_name="tiny",
        model=ModelSpec(layers=1, width=16, positions=32, vocabulary=len(patterns.CHARACTERS), dropout=0.1),
        data_name="random_digits",
        data=DataSpec(parts=[DataPart(set="random_digits", folder="random_digits", items=12)], validation=4),
        steps=40,
        batch_size=5,
        seed=3,
        prompt_length=6,
        completion_length=3,
        probes=[
            ProbeSpec(function=f"{PROBES}:completion", every=8),
            ProbeSpec(function=f"{PROBES}:recency", before=f"{PROBES}:recency_before", every=4),
            ProbeSpec(function=f"{PROBES}:sampling", every=16, options={"samples": 2, "temperature": 0.5}),
        ],
        device="cpu",
    )
    return spec.model_copy(update=changes)


def tiny_group(*runs: RunSpec) -> GroupSpec:
    """One job of these runs."""
    return GroupSpec(group="g", paper="patterns", scale="test", runs=list(runs), experiments=["alone"] * len(runs))


def make_data(root: Path, kind: str = "random_digits", *, train: int = 12, validation: int = 4) -> None:
    """Store one set for seed 0."""
    made = patterns.make(kind, seed=0, train=train, validation=validation, lengths=(10, 16), prompt=6, completion=3)
    splits = {
        split: [
            {
                "item": number,
                "text": "".join(item.symbols),
                "input_ids": patterns.encode(item.symbols),
                "length": len(item.symbols),
                "prompt_length": item.prompt_length,
                "completion_length": 3,
            }
            for number, item in enumerate(items)
        ]
        for split, items in made.items()
    }
    store.save(root / "data" / "patterns" / kind / "dataset" / "0", splits, {"kind": kind})
