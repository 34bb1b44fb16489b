"""Make the tables behind figures from the measurements of their runs.

The calculation of each table, and how it differs from the paper's, is in the function of the figure's name in
`memorization.tables.<paper>`.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.dataset

from memorization.provenance.logs import logging_to
from memorization.provenance.record import digest_of, provenance, write_table
from memorization.tables.common import figure_function

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def read_rows(paths: list[str], runs: dict[str, list[str]], metrics: list[str]) -> pd.DataFrame:
    """Rows of some metrics of the experiments' runs; a run that two experiments share appears under both."""
    if not paths or not metrics:
        return pd.DataFrame()
    field = pyarrow.dataset.field
    every_run = sorted({run for names in runs.values() for run in names})
    wanted = field("run").isin(every_run) & field("metric").isin(metrics)
    # one file at a time: their columns may differ
    frames = [pyarrow.dataset.dataset(path).to_table(filter=wanted).to_pandas() for path in paths]
    rows = pd.concat(frames, ignore_index=True)
    parts = [rows[rows["run"].isin(names)].assign(experiment=name) for name, names in runs.items()]
    return pd.concat(parts, ignore_index=True)


def main(smk: Any) -> None:
    """Write one table for every figure."""
    published = pd.read_csv(smk.input.published)
    for spec, path in zip(smk.params.tables, smk.output.table, strict=True):
        make = figure_function("tables", spec["figure"])
        metrics, items = (
            read_rows(list(paths), spec["runs"], names)
            for paths, names in zip((smk.input.metrics, smk.input.per_item), make.reads, strict=True)  # type: ignore[attr-defined]
        )
        if spec.get("options") and len(metrics):
            for k, column in enumerate(("option", "option_value")):
                known = {data: option[k] for data, option in spec["options"].items()}
                metrics[column] = metrics["data"].map(known)
        # a row may belong to several figures: their names, separated by spaces
        theirs = published[[spec["figure"] in names.split() for names in published["figure"]]]
        table = make(metrics, items, {**spec["params"], "published": theirs if len(theirs) else None})
        seeds = sorted(int(seed) for seed in set(table.get("seed", [])) if seed >= 0)
        write_table(table.assign(scale=smk.params.scale), path, provenance(digest_of(spec), seeds))


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
