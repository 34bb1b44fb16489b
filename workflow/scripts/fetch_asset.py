"""Download one pinned asset and write its manifest. Needs a network; everything after it does not."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "0"  # the one rule that may look for a network

from memorization.assets import Asset, fetch
from memorization.provenance.logs import logging_to
from memorization.provenance.record import write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Fetch, hash, write the manifest last."""
    folder = Path(smk.output.folder)
    manifest = fetch(Asset.model_validate(smk.params.asset), folder, folder.name)
    write_json(manifest, smk.output.manifest)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
