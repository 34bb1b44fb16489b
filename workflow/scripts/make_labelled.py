"""Make one set for classification, and the set to pre-train on that belongs to it (`layernorm`)."""

from typing import TYPE_CHECKING, Any

from memorization.data import labelled, store
from memorization.provenance.logs import logging_to

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write dataset/<seed>/ and card.json of every folder."""
    spec = {**smk.params.set, "assets": smk.params.assets}
    inputs = {name: getattr(smk.input, name, "") for name in ("corpus", "tokenizer")}
    targets = dict(zip(labelled.folders_of(spec), smk.output.dataset, strict=True))
    store.save_seeds(labelled.make_set, spec, inputs, targets, smk.output.card)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
