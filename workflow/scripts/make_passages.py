"""Make passages to memorize, background and held-out text, and next-word questions from the text corpus (`tokenswap`).

With its two tokenizers: a main one, and another for an auxiliary model with a vocabulary of its own. Passages of some
domains may come from public texts instead.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from memorization.data import cloze, passages, public, store, text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import provenance, read_table, write_json, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Rows = list[dict[str, Any]]
Sources = dict[str, list[str]]  # domain -> texts


def tokenizers(rows: Rows, spec: dict[str, Any], out: Any, given: Any) -> tuple[Any, Any]:
    """Train both tokenizers on the training split. Without a size the main one is that of the text, and there is no
    other.
    """
    train = [str(row["text"]) for row in rows if row["split"] == "train"]
    made: list[Any] = []
    for size, name in ((spec["vocabulary"], "tokenizer"), (spec["other_vocabulary"], "tokenizer_other")):
        if size:
            tokenizer, _ = text.train_tokenizer(train, size)
            text.save_tokenizer(tokenizer, getattr(out, name))
            made.append(tokenizer)
        elif name == "tokenizer":
            shutil.copytree(given.tokenizer, getattr(out, name), dirs_exist_ok=True)
            made.append(text.load_tokenizer(getattr(out, name)))
        else:
            made.append(None)
    return made[0], made[1]


def stored(items: Any, completion: int) -> Rows:
    """Rows of a data set."""
    return [store.row(i, item.text, item.input_ids, item.prompt_length, completion) for i, item in enumerate(items)]


def public_passages(sources: Sources, spec: dict[str, Any], main: Any, seed: int) -> dict[str, Any]:
    """Domain -> passages, of the domains that come from public texts. sources: domain -> its texts."""
    drawn = {}
    for name, texts in sources.items():
        source = spec["domains"][name]
        drawn[name] = public.draw_public(
            texts,
            name,
            seed=seed,
            passages=source["passages"] or spec["passages"],
            fewer=source["fewer"],
            prefix=source["prefix"] or spec["prefix"],
            suffix=source["suffix"] or spec["suffix"],
            length=spec["length"],
            main=main,
            readers={
                asset: main if asset == "main" else public.tokenizer_of(spec["assets"], asset)
                for asset in spec["readers"][name]
            },
            asset=source["asset"],
        )
    return drawn


def sets_of(drawn: Any, other: Any, spec: dict[str, Any]) -> dict[str, dict[str, Rows]]:
    """Data folder -> split -> rows. Another vocabulary needs other numbers of tokens: no text is cut for it."""
    lengths = {name: source["suffix"] for name, source in spec["domains"].items() if isinstance(source, dict)}
    sets = {
        f"passages_{name}": {"train": stored(drawn[f"passages_{name}"], lengths.get(name) or spec["suffix"])}
        for name in spec["domains"]
    }
    splits = {"train": "background", "validation": "held_out"}
    sets["background"] = {split: stored(drawn[name], 0) for split, name in splits.items()}
    if other is not None:
        sets["background_other"] = {
            split: stored(passages.reencode(drawn[name], other, 2 * spec["length"]), 0)
            for split, name in splits.items()
        }
    for folder, (name, asset) in spec.get("encoded", {}).items():
        tokenizer = public.tokenizer_of(spec["assets"], asset)
        items = public.in_tokens_of(drawn[f"passages_{name}"], tokenizer)
        sets[folder] = {"train": stored(items, lengths.get(name) or spec["suffix"])}
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


def draw_all(corpus: Any, sources: Sources, spec: dict[str, Any], seed: int) -> Any:
    """All sets of a seed; background and held-out text overlap no passage, wherever it is from."""
    names = ("passages", "prefix", "suffix", "length", "background", "held_out", "overlap")
    public_ones = public_passages(sources, spec, corpus.tokenizer, seed)
    drawn = passages.draw(
        corpus,
        seed=seed,
        domains={name: source for name, source in spec["domains"].items() if name not in sources},
        others=[item.input_ids for items in public_ones.values() for item in items],
        **{name: spec[name] for name in names},
    )
    for name, items in public_ones.items():
        drawn[f"passages_{name}"] = items
    return drawn


def main(smk: Any) -> None:
    """Write dataset/<seed>/ and a card for every set, both tokenizers, and the questions of all seeds."""
    spec, out = smk.params.passages, smk.output
    rows = read_table(smk.input.corpus).to_dict("records")
    main_tokenizer, other = tokenizers(rows, spec, out, smk.input)
    corpus = passages.prepare(rows, main_tokenizer)
    sources = {
        name: public.read_texts(spec["assets"], source)
        for name, source in spec["domains"].items()
        if isinstance(source, dict)
    }
    cards: dict[str, dict[str, Any]] = {}
    asked: Rows = []
    names = ("domains", "passages", "prefix", "suffix", "length", "background", "held_out", "overlap")
    for seed in range(spec["seeds"]):
        drawn = draw_all(corpus, sources, spec, seed)
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
