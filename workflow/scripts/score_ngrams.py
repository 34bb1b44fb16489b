"""Score the answers of questions by the infini-gram model of the training data (`geometry`, figure 3 and table 7)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.data import store
from memorization.data.ngram_scores import make_engine, score
from memorization.provenance.logs import logging_to
from memorization.provenance.record import digest_of, provenance, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write the measurement rows and the item rows of every seed."""
    spec, data = smk.params.ngrams, Path(smk.params.root) / "data" / "geometry"
    metrics, items = [], []
    for seed in spec["seeds"]:
        questions = {}
        for subset, folder in spec["questions"].items():
            rows = store.read_columns(
                data / folder / "dataset" / str(seed), "validation", ["input_ids", "prompt_length", "completion_length"]
            )
            ends = zip(*(values[: spec["number"]] for values in rows.values()), strict=True)
            questions[subset] = [(ids[:prompt], ids[prompt : prompt + answer]) for ids, prompt, answer in ends]
        trained = [
            ids
            for folder, number in spec["trained"].items()
            for ids in store.read_columns(data / folder / "dataset" / str(seed), "train", ["input_ids"])["input_ids"][
                :number
            ]
        ]
        engine = make_engine(spec["engine"], spec["index"], Path(smk.output.metrics).parent.parent)
        found, per_item = score(trained, questions, engine=engine)
        about = {"run": f"ngrams-s{seed}", "seed": seed, "data": "main"}
        about_all = {"paper": "geometry", "experiment": "ngrams", "scale": smk.params.scale, "model": "infini-gram"}
        metrics.append(pd.DataFrame(found).assign(**about, **about_all, step=0))
        items.append(per_item.assign(**about, step=0))
        print(f"seed {seed}: {len(trained)} sequences, {sum(map(len, questions.values()))} questions")
    record = provenance(digest_of(spec), list(spec["seeds"]))
    write_table(pd.concat(metrics, ignore_index=True), smk.output.metrics, record)
    write_table(pd.concat(items, ignore_index=True), smk.output.per_item, record)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
