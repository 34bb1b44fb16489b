"""Simulate the toy model of `geometry` for every setting and seed (section 3.3, appendix B)."""

from typing import TYPE_CHECKING, Any

from memorization.provenance.logs import logging_to
from memorization.provenance.record import digest_of, provenance, write_table
from memorization.theory.geometry_toy import toy_rows

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write the measurement rows of all seeds, and the coordinates of the seeds that figures show."""
    settings, seeds = smk.params.toy["settings"], list(range(smk.params.toy["seeds"]))
    metrics, items = toy_rows(settings, seeds)
    record = provenance(digest_of(settings), seeds)
    write_table(metrics.assign(scale=smk.params.scale), smk.output.metrics, record)
    write_table(items.assign(scale=smk.params.scale), smk.output.per_item, record)
    print(f"{len(settings)} settings, {len(seeds)} seeds: {len(metrics)} measurements, {len(items)} coordinates")


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
