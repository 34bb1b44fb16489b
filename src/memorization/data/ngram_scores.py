"""Infini-gram scores of questions against the training sequences: experiment `ngrams` of `geometry`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError
from memorization.probes.distributional import joint_by_answer
from memorization.probes.infini_gram import Engine, Ids, InfiniGram, Question

# metric -> what a token of probability 0 does to the answer
JOINT = {"infini_gram_log_probability": "skip", "infini_gram_log_probability_zero": "zero"}
LLAMA_2_END = 2  # end token of the tokenizer behind the public indexes that end in "_llama"


def score(
    train_sequences: Iterable[Ids] | np.ndarray,
    questions: Mapping[str, Sequence[Question]],
    *,
    engine: Engine | None = None,
    split: str = "validation",
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Score the answers of questions by the infini-gram language model of the training sequences.

    Parameters
    ----------
    train_sequences: token ids; a list of sequences or an array (sequences, length).
    questions: subset -> pairs (prompt, answer) of token ids. An id that is not in training has the count 0.
    engine: asked instead of an index of `train_sequences`, which may then be empty.
    split: written into every row.

    Returns
    -------
    rows: metric `suffix_length_share`: `value` is the share of the subset's answer tokens whose probability uses
        `suffix_length` tokens of context; n = answer tokens.
    items: columns metric, subset, split, item (number of the question in its subset), token, value. Joint
        log-probabilities (nats) `infini_gram_log_probability` (zero tokens skipped; NaN if all are zero) and
        `infini_gram_log_probability_zero` (-inf if one is zero), token NaN; and `suffix_length` for every answer token.

    Raises
    ------
    UserError: no subset, or one without questions; what `InfiniGram` raises.
    """
    if not questions or not all(map(len, questions.values())):
        raise UserError("there are no questions to score in a subset; give at least one (prompt, answer) for each.")
    index = _index(train_sequences, questions) if engine is None else engine
    rows: list[dict[str, Any]] = []
    items = []
    for subset, pairs in questions.items():
        question, token, found = index.answers(pairs)
        for metric, zeros in JOINT.items():
            value = joint_by_answer(found.probability, question, len(pairs), zeros)
            items.append(
                pd.DataFrame({"metric": metric, "item": np.arange(len(pairs)), "token": np.nan, "value": value})
            )
        values = found.suffix_length.astype(np.float64)
        items.append(
            pd.DataFrame({"metric": "suffix_length", "item": question, "token": token.astype(float), "value": values})
        )
        for frame in items[-3:]:
            frame.insert(1, "subset", subset)
            frame.insert(2, "split", split)
        lengths, counts = np.unique(found.suffix_length, return_counts=True)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
            row = {"metric": "suffix_length_share", "subset": subset, "split": split, "suffix_length": length}
            rows.append({**row, "value": count / len(token), "n": len(token)})
    return rows, pd.concat(items, ignore_index=True)


def make_engine(name: str, index: str, folder: Path) -> Engine | None:
    """Return the engine of an index made by others, or None for name "own": an index of the training sequences.

    name: "api" asks the public engine for `index` and keeps its answers in a file of `folder`; "local" opens the folder
    `index` with the package `infini_gram`.

    Raises
    ------
    UserError: another name; what the engine raises.
    """
    from memorization.probes.infini_gram_engines import InfiniGramAPI, LocalEngine

    if name == "own":
        return None
    if name == "api":
        return InfiniGramAPI(index, cache=folder / f"infini_gram-{index}.jsonl", workers=8)
    if name == "local":
        return LocalEngine(index, end_token=LLAMA_2_END)
    raise UserError(f"there is no infini-gram engine {name!r}; write engine: own, api or local.")


def _index(train_sequences: Iterable[Ids] | np.ndarray, questions: Mapping[str, Sequence[Question]]) -> InfiniGram:
    """An index whose vocabulary has the ids of the questions, too."""
    sequences = train_sequences if isinstance(train_sequences, np.ndarray) else list(train_sequences)
    everything = [part for pairs in questions.values() for pair in pairs for part in pair]
    everything += [sequences.ravel()] if isinstance(sequences, np.ndarray) else sequences
    return InfiniGram(sequences, vocabulary=1 + max(int(np.max(part, initial=0)) for part in everything))
