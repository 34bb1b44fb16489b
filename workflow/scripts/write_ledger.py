"""Join the claims of all papers: claims.csv for programs, claims.md and claims.html for readers."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.claims.ledger import write_ledger
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Read the rows, write the three forms."""
    rows = pd.concat([read_table(path) for path in smk.input.claims], ignore_index=True)
    write_ledger(rows, smk.output.csv, smk.output.markdown, smk.output.html)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
