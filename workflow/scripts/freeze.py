"""Pack the results of a scale, with Snakemake's records and the list of installed versions, into one archive."""

import importlib.metadata
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.provenance.logs import logging_to
from memorization.provenance.record import replacing

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

RECORDS = Path(".snakemake") / "metadata"  # without these a fresh clone could not tell what is up to date


def installed() -> str:
    """Installed packages, one `name==version` a line."""
    pairs = {(dist.metadata["Name"].lower(), dist.version) for dist in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(pairs))


def main(smk: Any) -> None:
    """Write the archive; times of files are kept, unfinished work is not."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "work" in Path(entry.name).parts or entry.name.endswith((".tmp", ".lease")) else entry

    with replacing(smk.output.archive) as unfinished, tarfile.open(unfinished, "w:gz", compresslevel=6) as archive:
        archive.add(smk.params.root, filter=kept)
        archive.add(RECORDS)
        versions = installed().encode()
        entry = tarfile.TarInfo(f"{smk.params.root}/environment.txt")
        entry.size = len(versions)
        archive.addfile(entry, io.BytesIO(versions))
    print(f"{Path(smk.output.archive).stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
