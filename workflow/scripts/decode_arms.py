"""Measure decoding arms of `tokenswap`: what each writes after the prefixes of passages, and what that costs.

Every arm that is done is kept in the work folder beside the outputs until all are, so that a job that was stopped goes
on where it was.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.provenance.logs import logging_to
from memorization.provenance.record import digest_of, provenance, write_table
from memorization.provenance.source import definitions
from memorization.specs import ArmGroupSpec

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write the measurement rows and the item rows of a job."""
    from memorization.evaluate.arms import measure_all

    spec = ArmGroupSpec.model_validate(smk.params.arms)
    code = digest_of(definitions(["memorization.evaluate.arms:measure_all"]))
    work = Path(smk.params.folder) / "work"
    metrics, items = measure_all(spec, Path(smk.params.root), work, code)
    record = provenance(digest_of(spec.model_dump(mode="json")), [spec.seed], code)
    write_table(metrics, smk.output.metrics, record)
    write_table(items, smk.output.per_item, record)
    shutil.rmtree(work)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
