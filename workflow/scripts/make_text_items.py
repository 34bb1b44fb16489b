"""Make sets of text items, shuffled or not, for every seed (`patterns`, tables 3 and 5), and digits as text.

Digits as text are a synthetic set in the tokens of the text tokenizer, for mixtures of both.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization.data import patterns, store, text
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

SIZES = ("train", "validation", "lengths", "prompt", "completion")
Rows = dict[str, list[dict[str, Any]]]


def text_rows(spec: dict[str, Any], seed: int, corpus: dict[str, Any], tokenizer: Any) -> Rows:
    """Items of real text."""
    sizes, options = {name: spec[name] for name in SIZES}, spec["options"]
    shuffle = options.get("shuffle", "none")
    ngrams = corpus["ngrams"].setdefault(shuffle, text.count_ngrams(corpus["rows"], shuffle))
    made = text.text_items(corpus["pools"], tokenizer, seed=seed, ngrams=ngrams, **sizes, **options)
    return {
        split: [
            store.row(i, one.text, one.input_ids, one.prompt_length, spec["completion"]) for i, one in enumerate(items)
        ]
        for split, items in made.items()
    }


def synthetic_rows(spec: dict[str, Any], seed: int, tokenizer: Any) -> Rows:
    """Items of a synthetic set, a token a character."""
    ids = text.digits_in(tokenizer)
    made = patterns.make(spec["kind"], seed=seed, **{name: spec[name] for name in SIZES}, **spec["options"])
    return {
        split: [
            store.row(i, "".join(one.symbols), [ids[c] for c in one.symbols], one.prompt_length, spec["completion"])
            for i, one in enumerate(items)
        ]
        for split, items in made.items()
    }


def main(smk: Any) -> None:
    """Write dataset/<seed>/ for every set and seed, and a card a set with the digests of all its seeds."""
    tokenizer = text.load_tokenizer(smk.input.tokenizer)
    rows = read_table(smk.input.corpus).to_dict("records")
    longest = smk.params.data[0]["lengths"][1]
    corpus = {"rows": rows, "pools": text.passages(rows, tokenizer, minimum=longest), "ngrams": {}}
    for spec, dataset, card in zip(smk.params.data, smk.output.dataset, smk.output.card, strict=True):
        real = spec["kind"] == "text"
        facts = {
            "name": spec["folder"],
            "description": inspect.getdoc(text.text_items if real else patterns.resolve_kind(spec["kind"], {})),
            "source": "patterns, sec. 3.1, tables 3 and 5 (there: WikiText-103)",
            "license": "other" if real else "mit",
            **({"language": "en"} if real else {}),
            **spec,
        }
        cards = {}
        for seed in range(spec["seeds"]):
            made = text_rows(spec, seed, corpus, tokenizer) if real else synthetic_rows(spec, seed, tokenizer)
            cards[str(seed)] = saved = store.save(Path(dataset) / str(seed), made, {**facts, "seed": seed})
            print(f"{spec['folder']} seed {seed}: {saved['items']} items, sha256 {saved['sha256'][:12]}")
        write_json({**facts, "seeds": cards}, card)


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
