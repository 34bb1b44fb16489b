"""Make passages to memorize, background and held-out text, and next-word questions from the text corpus (`tokenswap`).

With its two tokenizers: a main one, and another for an auxiliary model with a vocabulary of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.data import cloze, passages, store, text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, read_table, write_json, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Rows = list[dict[str, Any]]


def tokenizers(rows: Rows, spec: dict[str, Any], out: Any) -> tuple[Any, Any]:
    """Train both tokenizers on the training split."""
    train = [str(row["text"]) for row in rows if row["split"] == "train"]
    made = []
    for size, folder in ((spec["vocabulary"], out.tokenizer), (spec["other_vocabulary"], out.tokenizer_other)):
        tokenizer, _ = text.train_tokenizer(train, size)
        text.save_tokenizer(tokenizer, folder)
        made.append(tokenizer)
    return made[0], made[1]


def stored(items: Any, completion: int) -> Rows:
    """Rows of a data set."""
    return [store.row(i, item.text, item.input_ids, item.prompt_length, completion) for i, item in enumerate(items)]


def sets_of(drawn: Any, other: Any, spec: dict[str, Any]) -> dict[str, dict[str, Rows]]:
    """Data folder -> split -> rows. Another vocabulary needs other numbers of tokens: no text is cut for it."""
    sets = {
        f"passages_{name}": {"train": stored(drawn[f"passages_{name}"], spec["suffix"])} for name in spec["domains"]
    }
    splits = {"train": "background", "validation": "held_out"}
    sets["background"] = {split: stored(drawn[name], 0) for split, name in splits.items()}
    sets["background_other"] = {
        split: stored(passages.reencode(drawn[name], other, 2 * spec["length"]), 0) for split, name in splits.items()
    }
    return sets


def questions(corpus: Any, spec: dict[str, Any], seed: int) -> Rows:
    """Next-word questions of both kinds."""
    asked = spec["cloze"]
    rows = []
    for kind in cloze.KINDS:
        made = cloze.draw_cloze(
            corpus,
            seed=seed,
            kind=kind,
            questions=asked["questions"],
            options=asked["options"],
            context_tokens=tuple(asked["context"]),
            groups={group[0]: group for group in asked["groups"]},
        )
        rows += [{"seed": seed, "kind": kind, "item": i, **vars(one)} for i, one in enumerate(made)]
    return rows


def main(smk: Any) -> None:
    """Write dataset/<seed>/ and a card for every set, both tokenizers, and the questions of all seeds."""
    spec, out = smk.params.passages, smk.output
    rows = read_table(smk.input.corpus).to_dict("records")
    main_tokenizer, other = tokenizers(rows, spec, out)
    corpus = passages.prepare(rows, main_tokenizer)
    cards: dict[str, dict[str, Any]] = {}
    asked: Rows = []
    names = ("domains", "passages", "prefix", "suffix", "length", "background", "held_out", "overlap")
    for seed in range(spec["seeds"]):
        drawn = passages.draw(corpus, seed=seed, **{name: spec[name] for name in names})
        for folder, splits in sets_of(drawn, other, spec).items():
            facts = {"name": folder, "source": "tokenswap, sec. 4.1 (there: public data sets)", "license": "other",
                     "language": "en", "seed": seed, **{name: spec[name] for name in names}}  # fmt: skip
            target = Path(smk.params.folder) / folder
            cards.setdefault(folder, {})[str(seed)] = store.save(target / "dataset" / str(seed), splits, facts)
        asked += questions(corpus, spec, seed)
        print(f"seed {seed}: {passages.describe(drawn)}")
    for folder, seeds in cards.items():
        write_json({"name": folder, "seeds": seeds}, Path(smk.params.folder) / folder / "card.json")
    write_table(pd.DataFrame(asked), out.questions, provenance(None, list(range(spec["seeds"]))))


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
