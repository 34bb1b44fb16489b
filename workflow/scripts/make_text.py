"""Make the text corpus and its tokenizer from the documentation of installed packages.

Stands in for WikiText-103 and the GPT-2 tokenizer of `patterns` (sec. 3.1) where there is no network.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from memorization.data import prose, text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, write_json, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(
    corpus: str | Path,
    tokenizer: str | Path,
    card: str | Path,
    *,
    packages: Sequence[str],
    vocabulary_size: int,
) -> None:
    """Write the corpus (one row per paragraph), the tokenizer folder and the data card."""
    start = time.perf_counter()
    rows = prose.extract_prose(packages)
    facts = prose.describe(rows, packages)
    extracted = time.perf_counter()
    trained, topped_up = text.train_tokenizer(
        [str(row["text"]) for row in rows if row["split"] == "train"], vocabulary_size
    )
    text.save_tokenizer(trained, tokenizer)
    write_table(pd.DataFrame(rows), corpus, provenance())
    tokens = sum(map(len, text.encode_texts([str(row["text"]) for row in rows], trained)))
    facts |= {
        "tokens": tokens,
        "tokens_per_word": round(tokens / sum(len(str(row["text"]).split()) for row in rows), 3),
        "vocabulary_size": trained.get_vocab_size(),
        "function_words_topped_up": topped_up,
        "seconds_extraction": round(extracted - start, 1),
        "seconds_tokenizer": round(time.perf_counter() - extracted, 1),
    }
    write_json(facts, card)
    print(
        {
            key: facts[key]
            for key in ("paragraphs", "words", "function_word_share", "tokens_per_word", "sha256")
        }
    )


if "snakemake" in globals():
    logging_to(snakemake.log[0])
    main(
        snakemake.output.corpus,
        snakemake.output.tokenizer,
        snakemake.output.card,
        packages=snakemake.params.packages,
        vocabulary_size=snakemake.params.vocabulary_size,
    )
