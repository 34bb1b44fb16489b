"""Write the specs of one job's training runs, where people and the training process can read them."""

from typing import TYPE_CHECKING, Any

from memorization.provenance.logs import logging_to
from memorization.provenance.record import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write the spec as JSON."""
    write_json(smk.params.spec, smk.output.spec)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
