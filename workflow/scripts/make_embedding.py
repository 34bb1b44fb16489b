"""Make frozen token embeddings of several widths (`patterns`, sec. 3.2; there: GPT-2's, reduced by PCA)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.numpy import save_file

from memorization.data import text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table, replacing

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    corpus: str | Path,
    tokenizer: str | Path,
    embedding: str | Path,
    *,
    widths: Sequence[int],
    window: int = 4,
    std: float = 0.02,
) -> None:
    """Write one safetensors file with a matrix "E<width>" (vocabulary, width) for every width."""
    table = read_table(corpus)
    loaded = text.load_tokenizer(tokenizer)
    streams = text.encode_texts(table["text"][table["split"] == "train"], loaded)
    # One decomposition serves all widths: a narrower one is its first columns.
    wide = text.neighbor_vectors(streams, loaded.get_vocab_size(), max(widths), window=window)
    matrices = {f"E{width}": text.rescale_rows(wide[:, :width], std) for width in sorted(set(widths))}
    with replacing(embedding) as unfinished:
        save_file(matrices, unfinished)
    print({name: matrix.shape for name, matrix in matrices.items()})


if "snakemake" in globals():
    logging_to(snakemake.log[0])
    main(
        snakemake.input.corpus,
        snakemake.input.tokenizer,
        snakemake.output.embedding,
        widths=snakemake.params.widths,
        window=snakemake.params.get("window", 4),
        std=snakemake.params.get("std", 0.02),
    )
