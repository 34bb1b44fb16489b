"""A small decoding job: real data sets, tokenizers, questions and (random) models, measured in seconds.

spec = tiny_arms(root)                      # writes data and models below root, a results/<scale> folder
metrics, items = measure_all(spec, root, work, code="c")
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.data import store, text
from memorization.models.build import build, save
from memorization.specs import ArmGroupSpec, ArmSpec, Measure, ModelRef, ModelSpec

PREFIX, SUFFIX, SEED = 8, 6, 0
DOMAINS = {"prose": 5, "math": 4}  # passages of each
SIZES = {"S": 8, "L": 16}  # width
MODELS = {  # model -> its tokenizer
    "wild-L": "tokenizer",
    "wild-S": "tokenizer",
    "background-S": "tokenizer",
    "background-L": "tokenizer",
    "other-S": "tokenizer_other",
}
EVERYTHING: list[Measure] = ["passages", "held_out", "cloze", "cost"]
QUESTIONS = {  # kind -> group -> options
    "content": {"garden": ("river", "table"), "letters": ("letter", "village")},
    "function": {"determiners": ("the", "every"), "pronouns": ("she", "they")},
}
WORDS = {
    "adjective": ["old", "small", "green", "quiet", "early", "heavy", "narrow", "famous", "broken", "gentle"],
    "noun": ["garden", "river", "table", "window", "letter", "teacher", "village", "engine", "bridge", "forest"],
    "verb": ["opened", "carried", "watched", "painted", "crossed", "followed", "measured", "repaired"],
    "determiner": ["the", "a", "every", "another", "this", "some"],
    "pronoun": ["she", "he", "they", "we", "it", "you"],
    "preposition": ["in", "on", "near", "before", "behind", "through", "with", "without"],
}
FORM = "determiner adjective noun verb determiner noun preposition determiner adjective noun and pronoun verb it ."


def sentences(count: int, seed: int = 0) -> list[str]:
    """Sentences of one form, at random."""
    rng = np.random.default_rng(seed)
    made = [" ".join(str(rng.choice(WORDS.get(kind, [kind]))) for kind in FORM.split()) for _ in range(count)]
    return [one.replace(" .", ".") for one in made]


def make_tokenizers(folder: Path) -> dict[str, Any]:
    """Train and save two tokenizers of different vocabularies; {folder name: tokenizer}."""
    made = {}
    for name, seed, size in (("tokenizer", 1, 700), ("tokenizer_other", 2, 640)):
        made[name], _ = text.train_tokenizer(sentences(300, seed), size)
        text.save_tokenizer(made[name], folder / name)
    return made


def make_sets(folder: Path, tokenizer: Any) -> None:
    """Store passages of each domain, background and held-out text."""

    def rows(texts: list[str], length: int | None, prompt: int, completion: int) -> list[dict[str, Any]]:
        cut = [tokenizer.encode(f" {one}").ids[:length] for one in texts]
        return [store.row(i, tokenizer.decode(ids), ids, prompt, completion) for i, ids in enumerate(cut)]

    for seed, (domain, count) in enumerate(DOMAINS.items()):
        splits = {"train": rows(sentences(count, 10 + seed), PREFIX + SUFFIX, PREFIX, SUFFIX)}
        store.save(folder / f"passages_{domain}" / "dataset" / str(SEED), splits, {"name": domain})
    splits = {"train": rows(sentences(30, 20), None, 0, 0), "validation": rows(sentences(6, 21), None, 0, 0)}
    store.save(folder / "background" / "dataset" / str(SEED), splits, {"name": "background"})


def make_questions(folder: Path, tokenizer: Any) -> None:
    """Write questions of both kinds, two of each group."""
    rows = []
    for kind, groups in QUESTIONS.items():
        for group, options in groups.items():
            for answer, context in enumerate(sentences(2, 30)):
                ids = tokenizer.encode(f" {context}").ids[:6]
                chosen = [tokenizer.encode(f" {word}").ids[0] for word in options]
                rows.append(
                    {
                        "seed": SEED, "kind": kind, "item": len(rows), "text": tokenizer.decode(ids),
                        "context_ids": ids, "option_ids": chosen, "words": list(options), "answer": answer,
                        "group": group,
                    }
                )  # fmt: skip
    (folder / "cloze").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "cloze" / "questions.parquet")


def refer(name: str) -> ModelRef:
    """Reference to one of `MODELS`."""
    recipe, size = name.split("-")
    parameters = 12 * SIZES[size] ** 2
    run = f"{name}-s{SEED}"
    return ModelRef(name=name, recipe=recipe, size=size, run=run, tokenizer=MODELS[name], parameters=parameters)


def make_models(folder: Path, tokenizers: dict[str, Any]) -> None:
    """Save a random model for each of `MODELS`."""
    for seed, (name, tokenizer) in enumerate(MODELS.items()):
        spec = ModelSpec(
            architecture="gpt_neox",
            layers=1,
            width=SIZES[refer(name).size],
            heads=2,
            positions=64,
            vocabulary=tokenizers[tokenizer].get_vocab_size(),
            initializer_std=0.3,
        )
        save(build(spec, seed=seed), folder / refer(name).run)


def arm(model: str, method: str = "standard", aux: str = "", words: str = "", decoding: str = "greedy") -> ArmSpec:
    """An arm of which everything is measured that can be."""
    parts = [model, method, aux, words, decoding if decoding != "greedy" else "", f"s{SEED}"]
    return ArmSpec(
        name="-".join(filter(None, parts)),
        seed=SEED,
        model=refer(model),
        method=method,
        aux=refer(aux) if aux else None,
        words=words,
        decoding=decoding,
        measure=EVERYTHING,
    )


def every_arm() -> list[ArmSpec]:
    """One arm of each method, and of each way of TokenSwap."""
    return [
        arm("wild-L"),
        arm("wild-L", decoding="sample"),
        arm("wild-L", "memfree"),
        arm("wild-L", "cp_fuse", "wild-S"),
        arm("wild-L", "speculative", "background-S", decoding="sample"),
        arm("wild-L", "tokenswap", "background-S", "english-110"),
        arm("wild-L", "tokenswap", "background-S", "content-matched"),
        arm("wild-L", "tokenswap", "other-S", "english-9"),
    ]


def tiny_arms(root: Path, arms: list[ArmSpec] | None = None, **changes: Any) -> ArmGroupSpec:
    """Make data and models below `root` (a results/<scale> folder) and return the spec of a job of `arms`."""
    data = root / "data" / "tokenswap"
    tokenizers = make_tokenizers(data)
    make_sets(data, tokenizers["tokenizer"])
    make_questions(data, tokenizers["tokenizer"])
    make_models(root / "models", tokenizers)
    chosen = arms or every_arm()
    spec = ArmGroupSpec(
        group="s0-0",
        paper="tokenswap",
        scale="test",
        seed=SEED,
        arms=chosen,
        experiments=["wild"] * len(chosen),
        domains=DOMAINS,
        prefix=PREFIX,
        suffix=SUFFIX,
        held_out=5,
        judge=refer("background-L"),
        memfree_order=4,
        memfree_prompt=False,
        draft_tokens=2,
        samples=2,
        sampled_passages=100,
        examples=2,
        cost_tokens=2,
        cost_batch=3,
        cost_repeats=1,
        device="cpu",
    )
    return spec.model_copy(update=changes)
