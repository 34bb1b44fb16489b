"""Make synthetic data sets, for every seed of an experiment (`patterns`, sec. 3.1, A.1)."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.data import patterns, store
from memorization.provenance.logs import logging_to
from memorization.provenance.record import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    dataset: str | Path,
    card: str | Path,
    kind: str,
    options: dict[str, Any],
    seeds: Sequence[int],
    sizes: dict[str, Any],
) -> None:
    """Write dataset/<seed>/ for every seed, and one card with the digests of all."""
    facts: dict[str, Any] = {
        "name": kind,
        "description": inspect.getdoc(patterns.resolve_kind(kind, options)),
        "source": "patterns, sec. 3.1 and app. A.1",
        "license": "mit",
        "options": options,
        **sizes,
    }
    cards = {}
    for seed in seeds:
        splits = patterns.make(kind, seed=seed, **sizes, **options)
        rows = {
            split: [
                store.row(
                    i,
                    "".join(one.symbols),
                    patterns.encode(one.symbols),
                    one.prompt_length,
                    sizes["completion"],
                )
                for i, one in enumerate(items)
            ]
            for split, items in splits.items()
        }
        cards[str(seed)] = made = store.save(Path(dataset) / str(seed), rows, {**facts, "seed": seed})
        print(f"{kind} seed {seed}: {made['items']} items, sha256 {made['sha256'][:12]}")
    write_json({**facts, "seeds": cards}, card)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    for spec, dataset, card in zip(snakemake.params.data, snakemake.output.dataset, snakemake.output.card, strict=True):
        sizes = {name: spec[name] for name in ("train", "validation", "lengths", "prompt", "completion")}
        main(dataset, card, kind=spec["kind"], options=spec["options"], seeds=range(spec["seeds"]), sizes=sizes)
