"""What each scale of a paper is, from config/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from memorization.config import Config, load_config
from memorization.config.tokenswap import PublicModel
from memorization.gallery.pages import table
from memorization.plan import plan

SCALES = ("smoke", "laptop", "gpu", "paper")

Row = tuple[str, Callable[[Config], object]]  # label, value


def scales_block(folder: Path, paper: str) -> str:
    """Table of a paper's sizes, a column a scale. folder: config/."""
    configs = {name: load_config(folder, {"scale": name}) for name in SCALES}
    rows = [[label, *map(value, configs.values())] for label, value in ROWS[paper]]
    return table(["", *(f"`{name}`" for name in configs)], rows)


def seeds(config: Config) -> object:
    """Repetitions where an experiment names none."""
    return config.seeds


def runs_of(paper: str) -> Callable[[Config], object]:
    """Row value: training runs of a paper."""
    return lambda config: len(plan(config, paper).runs)


# ---- patterns


def patterns_sizes(config: Config) -> str:
    """Models of `patterns`."""
    return ", ".join(f"{name} {size.layers}x{size.width}" for name, size in config.patterns.models.items())


def pairings(config: Config) -> str:
    """Models and items of the text pairings."""
    return ", ".join(f"{model} {items}" for model, items in config.patterns.experiments["pairs"].pairings)


def alone(config: Config, key: str) -> Any:
    """A key of the experiment of single sets."""
    return getattr(config.patterns.experiments["alone"], key)


# ---- tokenswap


def tokenswap_sizes(config: Config) -> str:
    """Models of `tokenswap`; public ones by the name of their asset."""

    def said(size: Any) -> str:
        return f"`{size.asset}`" if isinstance(size, PublicModel) else f"{size.layers}x{size.width}"

    return ", ".join(f"{name} {said(size)}" for name, size in config.tokenswap.models.items())


def passage_counts(config: Config) -> str:
    """Passages by domain."""
    section = config.tokenswap
    return ", ".join(f"{name} {section.size(name):,}" for name in section.domains)


def vocabularies(config: Config) -> str:
    """Tokens of the tokenizers; of public models there is none to make."""
    section = config.tokenswap
    sizes = [section.vocabulary or config.text.vocabulary, section.other_vocabulary]
    return " and ".join(f"{size:,}" for size in sizes if size)


def copies(config: Config) -> str:
    """Occurrences of a passage by recipe; recipes with equal ones stand together."""
    by_copies: dict[str, list[str]] = {}
    for name, recipe in config.tokenswap.recipes.items():
        if recipe.passages:
            by_copies.setdefault(", ".join(map(str, recipe.copies)), []).append(name)
    if len(by_copies) == 1:
        return f"{next(iter(by_copies))}, in every recipe"
    return "; ".join(f"{times} in {', '.join(names)}" for times, names in by_copies.items())


ROWS: dict[str, list[Row]] = {
    "patterns": [
        ("item length, tokens", lambda c: " to ".join(map(str, c.patterns.lengths))),
        ("prompt + completion", lambda c: f"{c.patterns.prompt} + {c.patterns.completion}"),
        ("models, layers x width", patterns_sizes),
        ("items of a set alone", lambda c: ", ".join(map(str, alone(c, "items")))),
        ("batch, alone", lambda c: alone(c, "batch_size") or c.patterns.batch_size),
        ("updates, alone (at most)", lambda c: f"{alone(c, 'steps'):,}"),
        ("model and items of text pairings", pairings),
        ("updates, text pairings", lambda c: f"{c.patterns.experiments['pairs'].steps:,}"),
        ("text", lambda c: f"{c.text.source}, {c.text.vocabulary:,} tokens"),
        ("seeds", seeds),
        ("training runs", runs_of("patterns")),
    ],
    "tokenswap": [
        ("prefix + suffix, tokens", lambda c: f"{c.tokenswap.prefix} + {c.tokenswap.suffix}"),
        ("passages of a domain", passage_counts),
        ("copies of a passage", copies),
        ("background sequences", lambda c: f"{c.tokenswap.background:,} of {c.tokenswap.length} tokens"),
        ("held-out sequences", lambda c: f"{c.tokenswap.held_out:,}"),
        ("text", lambda c: c.text.source),
        ("vocabularies", vocabularies),
        ("models, layers x width", tokenswap_sizes),
        ("questions of a kind", lambda c: c.tokenswap.cloze.questions),
        ("seeds", seeds),
        ("training runs", runs_of("tokenswap")),
        ("decoding arms", lambda c: len(plan(c, "tokenswap").arms)),
    ],
}
