"""Data sets and downloads of `geometry`: what its rules are told to make and to fetch."""

from typing import Any

from memorization.config import Config
from memorization.config.geometry import FORMATS, OwnFacts, PublicDecoder, PublicFacts
from memorization.plan.common import Plan
from memorization.specs import PretrainedSpec

QUESTIONS = ("facts", "continuations")


def facts_spec(config: Config) -> dict[str, Any]:
    """What the data module needs to know of docstring sets."""
    section = config.geometry.data
    assert isinstance(section, OwnFacts)
    return {**section.model_dump(), "vocabulary": config.text.vocabulary}


def text_sets(config: Config) -> list[str]:
    """Sets of which only representations and loss are measured, beside the training text."""
    section = config.geometry.data
    if isinstance(section, OwnFacts):
        return ["other", "shuffled"]
    return [name for name in section.sets if name not in ("text", *QUESTIONS, *FORMATS, "preferences")]


def geometry_sets(config: Config, plan: Plan) -> dict[str, dict[str, Any]]:
    """Data to be made, by job: what its rule needs to know; `folders` are all that it makes."""
    section = config.geometry
    seeds = {"seeds": 5 * (max((run.seed for run in plan.runs.values()), default=0) // 5 + 1)}
    if isinstance(section.data, OwnFacts):
        folders = ["text", "facts", "continuations", "other", "shuffled", "short", "long", "preferences"]
        small = ["text_small", "facts_small"] if section.data.small_vocabulary else []
        return {"facts": {**facts_spec(config), **seeds, "folders": folders + small}}
    assert isinstance(section.data, PublicFacts)
    return {
        name: {
            **section.data.model_dump(),
            **seeds,
            **{"tokenizer": name, "folders": [f"{one}_{name}" for one in section.data.sets]},
        }
        for name in dict.fromkeys(tokenizers(config))
    }


def ngram_sets(config: Config) -> dict[str, Any]:
    """Sets whose n-grams are counted, and questions about them: folders, and of each how many rows are read.

    Of a corpus that a public engine has indexed only the questions are read.
    """
    data, counting = config.geometry.data, config.geometry.ngrams
    ending = f"_{counting.tokenizer}" if counting.tokenizer else ""
    trained = {"text": data.text, "facts": data.facts} if isinstance(data, OwnFacts) else {}
    questions = {name: f"{name}{ending}" for name in QUESTIONS}
    return {
        "engine": counting.engine,
        "index": counting.index,
        "trained": trained,
        "questions": questions,
        "number": data.questions,
        "folders": list(dict.fromkeys([*trained, *questions.values()])),
    }


def tokenizers(config: Config) -> list[str]:
    """Assets by whose tokenizers the sets of public models are encoded."""
    section = config.geometry
    names = [*section.main.models, *section.small.models, section.sft.model]
    models = [section.models[name] for name in names] + list(section.chain.stages.values())
    own = [section.ngrams.tokenizer] if section.ngrams.tokenizer else []
    return [model.tokenizer for model in models if isinstance(model, PublicDecoder)] + own


def geometry_assets(config: Config, plan: Plan) -> list[str]:
    """Public checkpoints, tokenizers and sets that are read."""
    data = config.geometry.data
    checkpoints = [run.model.asset for run in plan.runs.values() if isinstance(run.model, PretrainedSpec)]
    sets = [one.asset for one in data.sets.values()] if isinstance(data, PublicFacts) else []
    return list(dict.fromkeys([*checkpoints, *tokenizers(config), *sets]))
