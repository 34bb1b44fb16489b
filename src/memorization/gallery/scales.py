"""What each scale of a paper is, from config/."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from memorization.config import Config, load_config
from memorization.config.geometry import OwnDecoder, OwnFacts, PublicDecoder
from memorization.config.layernorm import DigitSet, DocstringSet, FineTuning, OwnModel, PublicNormModel
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


# ---- layernorm


def norm_models(config: Config) -> dict[str, OwnModel | PublicNormModel]:
    """Models of `layernorm` that are trained at this scale."""
    used = dict.fromkeys(run.model_name for run in plan(config, "layernorm").runs.values())
    return {name: config.layernorm.models[name] for name in used}


def norm_sizes(config: Config) -> str:
    """Those models by position; public ones by the name of their asset."""

    def said(name: str, model: OwnModel | PublicNormModel) -> str:
        return f"{name} {model.layers}x{model.width}" if isinstance(model, OwnModel) else f"`{model.asset}`"

    models = norm_models(config)
    by_position = {
        position: ", ".join(said(name, model) for name, model in models.items() if model.position == position)
        for position in ("pre", "post")
    }
    return "; ".join(f"{position}: {names}" for position, names in by_position.items() if names)


def norm_sets(config: Config) -> dict[str, Any]:
    """Labelled sets that those models learn."""
    names = dict.fromkeys(model.data for model in norm_models(config).values())
    return {name: config.layernorm.sets[name] for name in names}


def alike(values: Iterable[tuple[str, object]]) -> str:
    """One value if all names have the same, else each value with its names."""
    names: dict[str, list[str]] = {}
    for name, value in values:
        names.setdefault(f"{value:,}" if isinstance(value, int) else str(value), []).append(name)
    return next(iter(names)) if len(names) == 1 else ", ".join(f"{v} ({', '.join(n)})" for v, n in names.items())


def labelled_items(config: Config) -> str:
    """Training and test items of each set."""
    return ", ".join(f"{name} {one.train:,} + {one.validation:,}" for name, one in norm_sets(config).items())


def first_stage(config: Config, value: Callable[[str, Any], object]) -> str:
    """A number of the first stage of models from nothing, by set; public checkpoints have none."""
    sets = {name: one for name, one in norm_sets(config).items() if isinstance(one, DocstringSet | DigitSet)}
    used = {model.data for model in norm_models(config).values() if isinstance(model, OwnModel)}
    return alike((name, value(name, one)) for name, one in sets.items() if name in used) if used else "–"


def tuned(config: Config, value: Callable[[FineTuning], object]) -> str:
    """A number of the second stage, by model."""
    return alike((name, value(config.layernorm.recipe(model))) for name, model in norm_models(config).items())


def norm_seeds(config: Config) -> str:
    """Repetitions of the main experiment, and of the others where they differ."""
    main = config.layernorm.experiments["main"].seeds or config.seeds
    return str(main) if main == config.seeds else f"{main} in `main`, else {config.seeds}"


def wrong_labels(config: Config) -> str:
    """Shares of mislabelled items, those of table 4 apart."""
    experiments = config.layernorm.experiments
    main, others = ([f"{100 * share:g} %" for share in experiments[name].noise] for name in ("main", "noise"))
    return f"{', '.join(main)}; in table 4 also {', '.join(share for share in others if share not in main)}"


# ---- geometry


def decoders(config: Config) -> str:
    """Models of `geometry` that are trained or measured at this scale; public ones by the family of their asset."""
    section = config.geometry
    used = dict.fromkeys([*section.main.models, *section.small.models, section.sft.model])

    def said(name: str) -> str:
        model = section.models[name]
        return f"{name} {model.layers}x{model.width}" if isinstance(model, OwnDecoder) else f"`{model.asset}`"

    return ", ".join(map(said, used))


def own_facts(config: Config, value: Callable[[OwnFacts], object]) -> object:
    """A number of docstring text with facts in it; downloaded sets have none."""
    data = config.geometry.data
    return value(data) if isinstance(data, OwnFacts) else "–"


def decoder_training(config: Config) -> str:
    """Updates of pre-training and their batch; public checkpoints are only measured."""
    if not isinstance(config.geometry.data, OwnFacts):
        return "–"
    recipe = config.geometry.pretraining
    return f"{recipe.steps:,} of {recipe.batch_size}"


def checkpoints(config: Config) -> str:
    """Checkpoints of a run, or of every public model."""
    section = config.geometry
    public = [section.models[name] for name in [*section.main.models, *section.small.models]]
    counts = sorted({len(model.steps) for model in public if isinstance(model, PublicDecoder)})
    return (
        " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else str(section.measuring.checkpoints)
    )


def tuning(config: Config) -> str:
    """Updates of fine-tuning, preferences and verifiable rewards."""
    stages = config.geometry.post_training
    chain = config.geometry.chain.model
    return f"{stages.sft.steps}, {stages.dpo.steps}, {stages.grpo.steps}" if chain else f"{stages.sft.steps}, –, –"


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
    "layernorm": [
        ("models, layers x width", norm_sizes),
        ("first stage, items", lambda c: first_stage(c, lambda name, one: one.pretraining)),
        ("first stage, updates", lambda c: first_stage(c, lambda name, one: c.layernorm.pretraining[name].steps)),
        ("training + test items", labelled_items),
        ("wrong labels", wrong_labels),
        ("budget in epochs, pre and post", lambda c: tuned(c, lambda r: f"{r.epochs['pre']} and {r.epochs['post']}")),
        ("batch", lambda c: tuned(c, lambda r: r.batch_size)),
        ("seeds", norm_seeds),
        ("training runs", runs_of("layernorm")),
    ],
    "geometry": [
        ("models, layers x width", decoders),
        ("sequence, tokens", lambda c: c.geometry.data.length),
        ("training sequences, text + facts", lambda c: own_facts(c, lambda d: f"{d.text:,} + {d.facts:,}")),
        ("people", lambda c: own_facts(c, lambda d: d.entities)),
        ("pre-training, updates", decoder_training),
        ("checkpoints", checkpoints),
        ("sequences behind a spectrum", lambda c: f"{c.geometry.measuring.sequences:,}"),
        ("updates of SFT, DPO, GRPO", tuning),
        ("checkpoints that are tuned", lambda c: len(c.geometry.sft.bases)),
        ("seeds of the toy model", lambda c: c.geometry.toy.seeds),
        ("seeds", seeds),
        ("runs", runs_of("geometry")),
    ],
}
