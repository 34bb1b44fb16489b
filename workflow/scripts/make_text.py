"""Make the text corpus and its tokenizer.

From the documentation of installed packages, which stands in for WikiText-103 and GPT-2's tokenizer (`patterns`, sec.
3.1) where there is no network, or from the downloaded originals.
"""

import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.data import prose, text, wikitext
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, write_json, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def from_docstrings(out: Any, packages: list[str], vocabulary: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Extract prose and train a tokenizer on its training split; returns rows and facts for the card."""
    rows = prose.extract_prose(packages)
    facts = prose.describe(rows, packages)
    train = [str(row["text"]) for row in rows if row["split"] == "train"]
    tokenizer, topped_up = text.train_tokenizer(train, vocabulary)
    text.save_tokenizer(tokenizer, out.tokenizer)
    return rows, {**facts, "function_words_topped_up": topped_up}


def from_wikitext(out: Any, assets: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read WikiText-103 and take GPT-2's tokenizer."""
    wikitext.copy_tokenizer(assets.gpt2, out.tokenizer)
    return wikitext.read_paragraphs(assets.wikitext), {"name": "WikiText-103", "license": "CC BY-SA 3.0 and GFDL"}


def main(smk: Any) -> None:
    """Write the corpus (one row a paragraph), the tokenizer folder and the data card."""
    start, wanted = time.perf_counter(), smk.params.text
    if wanted["source"] == "wikitext":
        rows, facts = from_wikitext(smk.output, smk.input)
    else:
        rows, facts = from_docstrings(smk.output, wanted["packages"], wanted["vocabulary"])
    write_table(pd.DataFrame(rows), smk.output.corpus, provenance())
    loaded = text.load_tokenizer(smk.output.tokenizer)
    tokens = sum(map(len, text.encode_texts([str(row["text"]) for row in rows], loaded)))
    words = sum(len(str(row["text"]).split()) for row in rows)
    facts |= {"tokens": tokens, "tokens_per_word": round(tokens / words, 3), "vocabulary": loaded.get_vocab_size()}
    write_json(facts, smk.output.card)
    print(f"{len(rows)} paragraphs, {words} words, {tokens} tokens in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
