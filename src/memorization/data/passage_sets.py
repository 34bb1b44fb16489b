"""The sets of `tokenswap` as they are stored: passages, background, held-out text, questions, and two tokenizers.

Passages of some domains may come from public texts. `spec` is what `passages_params` of the workflow gives: the keys of
the section `tokenswap` that decide data.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memorization.data import cloze, passages, public, store, text

Rows = list[dict[str, Any]]
Sources = dict[str, list[str]]  # domain -> texts


def make_tokenizers(
    rows: Rows, spec: Mapping[str, Any], targets: tuple[str, str], given: str | Path
) -> tuple[Any, Any]:
    """Train both tokenizers on the training split and save them in two folders.

    Without a size the main one is the one in the folder `given`, and there is no other.
    """
    train = [str(row["text"]) for row in rows if row["split"] == "train"]
    made: list[Any] = []
    for size, target in zip((spec["vocabulary"], spec["other_vocabulary"]), targets, strict=True):
        if size:
            tokenizer, _ = text.train_tokenizer(train, size)
            text.save_tokenizer(tokenizer, target)
            made.append(tokenizer)
        elif not made:
            shutil.copytree(given, target, dirs_exist_ok=True)
            made.append(text.load_tokenizer(target))
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
