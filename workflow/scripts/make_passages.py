"""Make passages to memorize, background and held-out text, and next-word questions from the text corpus (`tokenswap`).

With its two tokenizers: a main one, and another for an auxiliary model with a vocabulary of its own. Passages of some
domains may come from public texts instead.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.data import passage_sets, passages, public, store
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, read_table, write_json, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Write dataset/<seed>/ and a card for every set, both tokenizers, and the questions of all seeds."""
    spec, out = smk.params.passages, smk.output
    rows = read_table(smk.input.corpus).to_dict("records")
    targets = (out.tokenizer, getattr(out, "tokenizer_other", ""))
    main_tokenizer, other = passage_sets.make_tokenizers(rows, spec, targets, getattr(smk.input, "tokenizer", ""))
    corpus = passages.prepare(rows, main_tokenizer)
    sources = {
        name: public.read_texts(spec["assets"], source)
        for name, source in spec["domains"].items()
        if isinstance(source, dict)
    }
    cards: dict[str, dict[str, Any]] = {}
    asked: list[dict[str, Any]] = []
    names = ("domains", "passages", "prefix", "suffix", "length", "background", "held_out", "overlap")
    for seed in range(spec["seeds"]):
        drawn = passage_sets.draw_all(corpus, sources, spec, seed)
        for folder, splits in passage_sets.sets_of(drawn, other, spec).items():
            facts = {"name": folder, "source": "tokenswap, sec. 4.1 (there: public data sets)", "license": "other",
                     "language": "en", "seed": seed, **{name: spec[name] for name in names}}  # fmt: skip
            target = Path(smk.params.folder) / folder
            cards.setdefault(folder, {})[str(seed)] = store.save(target / "dataset" / str(seed), splits, facts)
        asked += passage_sets.questions(corpus, spec, seed)
        print(f"seed {seed}: {passages.describe(drawn)}")
    for folder, seeds in cards.items():
        write_json({"name": folder, "seeds": seeds}, Path(smk.params.folder) / folder / "card.json")
    write_table(pd.DataFrame(asked), out.questions, provenance(None, list(range(spec["seeds"]))))


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
