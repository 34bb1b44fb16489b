"""Make one set of text items, shuffled or not, for every seed of an experiment (`patterns`, tab. 3, 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.data import store, text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    corpus: str | Path,
    tokenizer: str | Path,
    dataset: str | Path,
    card: str | Path,
    kind: str,
    units: str,
    seeds: Sequence[int],
    sizes: dict[str, Any],
) -> None:
    """Write dataset/<seed>/ for every seed, and one card with the digests of all."""
    rows = read_table(corpus).to_dict("records")
    loaded = text.load_tokenizer(tokenizer)
    shuffle = text.shuffle_of(kind)
    pools = text.passages(rows, loaded, minimum=sizes["lengths"][1])
    ngrams = text.count_ngrams(rows, shuffle)
    facts: dict[str, Any] = {
        "name": kind,
        "description": "Passages from the documentation of Python packages; the corpus card lists them.",
        "source": "patterns, sec. 3.1, tab. 3 and tab. 5 (there: WikiText-103)",
        "license": "other",
        "language": "en",
        "shuffle": shuffle,
        "units": units,
        **sizes,
    }
    cards = {}
    for seed in seeds:
        splits = text.text_items(
            pools, loaded, seed=seed, shuffle=shuffle, units=units, ngrams=ngrams, **sizes
        )
        saved = {
            split: [
                store.row(i, one.text, one.input_ids, one.prompt_length, sizes["completion"])
                for i, one in enumerate(items)
            ]
            for split, items in splits.items()
        }
        cards[str(seed)] = made = store.save(Path(dataset) / str(seed), saved, {**facts, "seed": seed})
        print(f"{kind} seed {seed}: {made['items']} items, sha256 {made['sha256'][:12]}")
    write_json({**facts, "seeds": cards}, card)


if "snakemake" in globals():
    logging_to(snakemake.log[0])
    main(
        snakemake.input.corpus,
        snakemake.input.tokenizer,
        snakemake.output.dataset,
        snakemake.output.card,
        kind=snakemake.params.kind,
        units=snakemake.params.units,
        seeds=snakemake.params.seeds,
        sizes={
            name: snakemake.params[name]
            for name in ("train", "validation", "lengths", "prompt", "completion")
        },
    )
