"""Make frozen token embeddings of several widths (`patterns`, sec. 3.3).

GPT-2's reduced by PCA where it was downloaded; else from co-occurrences in the corpus.
"""

from typing import TYPE_CHECKING, Any

from safetensors.numpy import save_file

from memorization.data import text, wikitext
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table, replacing

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write one safetensors file with a matrix "E<width>" (vocabulary, width) for every width."""
    widths = smk.params.widths
    if smk.params.source == "wikitext":
        matrix = wikitext.read_embedding(smk.input.gpt2)
        matrices = {f"E{width}": text.pca_embedding(matrix, width) for width in widths}
    else:
        table, tokenizer = read_table(smk.input.corpus), text.load_tokenizer(smk.input.tokenizer)
        streams = text.encode_texts(table["text"][table["split"] == "train"], tokenizer)
        # one decomposition serves all widths: a narrower one is its first columns
        wide = text.neighbor_vectors(streams, tokenizer.get_vocab_size(), max(widths), window=4)
        # rows of length n have a root mean square of n / sqrt(width)
        matrices = {f"E{width}": text.rescale_rows(wide[:, :width], smk.params.norm / width**0.5) for width in widths}
    with replacing(smk.output.embedding) as unfinished:
        save_file(matrices, unfinished)
    print({name: matrix.shape for name, matrix in matrices.items()})


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
