"""Measure decoding arms: the same passages, held-out text and questions for all arms of a seed (tokenswap, section 4).

An arm that is done is kept in the work folder, so that a job that was stopped goes on with the next.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.evaluate import decoding
from memorization.evaluate.bench import Bench, Passages, pieces
from memorization.methods.swap_set import SwapSet
from memorization.probes.cloze import cloze_accuracy
from memorization.probes.extraction import extraction
from memorization.provenance.record import digest_of, read_table, write_json, write_table
from memorization.specs import ArmGroupSpec, ArmSpec

log = logging.getLogger(__name__)
Rows = list[dict[str, Any]]


class Recorder:
    """Collects the rows of one arm."""

    def __init__(self) -> None:
        self.metrics: Rows = []
        self.items: list[pd.DataFrame] = []

    def row(self, where: dict[str, Any], metric: str, value: float, n: int) -> None:
        """One measurement."""
        self.metrics.append({**where, "metric": metric, "value": float(value), "n": int(n)})

    def values(self, data: str, split: str, subset: np.ndarray, metric: str, values: np.ndarray) -> None:
        """Values of items: their means, over all and by subset, and the items themselves."""
        subsets = {"all": np.arange(len(values))}
        subsets |= {name: np.flatnonzero(subset == name) for name in dict.fromkeys(subset) if name != "all"}
        for name, index in subsets.items():
            self.row({"data": data, "subset": name, "split": split}, metric, values[index].mean(), len(index))
        self.keep(data, split, subset, metric, values=values)

    def keep(
        self,
        data: str,
        split: str,
        subset: np.ndarray,
        metric: str,
        *,
        values: np.ndarray | None = None,
        text: list[str] | None = None,
    ) -> None:
        """Item rows: numbers or texts."""
        n = len(subset)
        frame = {
            "data": data,
            "subset": subset,
            "split": split,
            "item": np.arange(n, dtype=np.int32),
            "metric": metric,
            "value": np.full(n, np.nan, np.float32) if values is None else values.astype(np.float32),
            "text": pd.Series(text if text is not None else [None] * n, dtype="str"),
        }
        self.items.append(pd.DataFrame(frame))


def measure_passages(bench: Bench, arm: ArmSpec, into: Recorder) -> None:
    """How much of the passages an arm reproduces, and how fluent what it writes is."""
    spec, tokenizer = bench.spec, bench.tokenizer(arm.model)
    # sampling is slow row by row, and its noise is averaged over passages: so the first ones of each domain do
    passages = bench.passages(arm.model, spec.sampled_passages if arm.decoding == "sample" else None, arm=arm)
    truth = [tokenizer.decode(row) for row in passages.suffixes.tolist()]
    samples = spec.samples if arm.decoding == "sample" else 1
    # a public model has a tokenizer of its own, in which the judge cannot read
    judged = spec.judge.tokenizer == arm.model.tokenizer and bool(spec.judge.tokenizer)
    totals: dict[str, np.ndarray] = {}
    for sample in range(samples):
        written, marks = decoding.write(bench, arm, passages.prompts, bench.lengths(arm)[1], sample=sample)
        texts = [tokenizer.decode(row) for row in written.tolist()]
        found = extraction(passages.suffixes, written, truth, texts)
        if judged:
            found["judge_loss"] = decoding.judge_losses(bench, passages.prompts, written)
        for metric, values in found.items():
            totals[metric] = totals.get(metric, 0.0) + values / samples
        if sample == 0:
            keep_examples(bench, arm, passages, truth, written, marks, into)
    for metric, values in totals.items():
        into.values("passages", "train", passages.domain, metric, values)


def keep_examples(
    bench: Bench,
    arm: ArmSpec,
    passages: Passages,
    truth: list[str],
    written: np.ndarray,
    marks: np.ndarray,
    into: Recorder,
) -> None:
    """Texts of the first passages of each domain, for figure 4."""
    tokenizer = bench.tokenizer(arm.model)
    first = [np.flatnonzero(passages.domain == name)[: bench.spec.examples] for name in dict.fromkeys(passages.domain)]
    chosen = np.concatenate(first)
    kept = {
        "prefix": [tokenizer.decode(passages.prompts[i].tolist()) for i in chosen],
        "suffix": [truth[i] for i in chosen],
        "written": [pieces(tokenizer, written[i], marks[i]) for i in chosen],
    }
    for metric, text in kept.items():
        into.keep("passages", "train", passages.domain[chosen], metric, text=text)
        into.items[-1]["item"] = chosen.astype(np.int32)


def measure_held_out(bench: Bench, arm: ArmSpec, into: Recorder) -> None:
    """Cross-entropy of held-out text under the final distribution; for a swap set, how often its words occur."""
    sequences = bench.stored_ids(arm.model, "background", "validation")[: bench.spec.held_out]
    size = decoding.rows_at_once(bench.model(arm.model), sequences)
    losses = decoding.token_losses(bench, decoding.log_probs_of(bench, arm), sequences, size)
    targets = np.concatenate([np.asarray(one[1:]) for one in sequences])
    pooled = np.concatenate(losses)
    tokenizer = bench.tokenizer(arm.model)
    functions = np.isin(targets, SwapSet.named("english-110").coverage(tokenizer).main_ids)
    where = {"data": "held_out", "subset": "all", "split": "validation"}
    into.row(where, "cross_entropy", pooled.mean(), len(pooled))
    into.row(where, "cross_entropy_words", pooled[functions].mean(), functions.sum())
    into.row(where, "cross_entropy_others", pooled[~functions].mean(), (~functions).sum())
    everything = np.array(["all"] * len(losses), dtype=object)
    each = np.array([one.mean() for one in losses])
    into.keep("held_out", "validation", everything, "cross_entropy", values=each)
    if arm.method == "tokenswap":
        members = list(bench.words(arm).coverage(tokenizer).main_ids)
        into.row(where, "frequency", np.isin(targets, members).mean(), len(targets))
        into.row(where, "mass", decoding.mass_on(bench, arm, members, sequences), len(targets))


def measure_cloze(bench: Bench, arm: ArmSpec, into: Recorder) -> None:
    """Accuracy on next-word questions, by kind and group (table 7, and ours where function words are the answer)."""
    asked = bench.questions(arm.model)
    for kind in dict.fromkeys(kind for kind, _ in asked):
        mine = [question for other, question in asked if other == kind]
        rows = decoding.next_log_probs(bench, arm, [list(question.context_ids) for question in mine])
        groups = np.array([question.group for question in mine], dtype=object)
        right = cloze_accuracy(rows, mine).astype(np.float64)
        into.values(f"cloze_{kind}", "validation", groups, "accuracy", right)


def measure_cost(bench: Bench, arm: ArmSpec, into: Recorder) -> None:
    """Seconds per token, alone and in a batch; for TokenSwap also of both its models by themselves: the limit."""
    spec, passages = bench.spec, bench.passages(arm.model, arm=arm)
    for label, rows in (("batch 1", 1), (f"batch {spec.cost_batch}", spec.cost_batch)):
        prompts = passages.prompts[np.arange(rows) % len(passages.ids)]
        where = {"data": "cost", "subset": label, "split": "train"}
        seconds = decoding.seconds_per_token(bench, arm, prompts, spec.cost_tokens)
        into.row(where, "seconds_per_token", seconds, spec.cost_repeats)
        if arm.method == "tokenswap" and arm.aux and bench.same_tokens(arm.model, arm.aux):
            alone = [
                decoding.seconds_per_token(bench, plain_arm(arm, ref), prompts, spec.cost_tokens)
                for ref in (arm.model, arm.aux)
            ]
            into.row({**where, "method": "limit"}, "seconds_per_token", sum(alone), spec.cost_repeats)


def plain_arm(arm: ArmSpec, ref: Any) -> ArmSpec:
    """The arm that decodes one of an arm's models by itself."""
    return arm.model_copy(update={"model": ref, "method": "standard", "aux": None, "words": ""})


MEASURES: dict[str, Callable[[Bench, ArmSpec, Recorder], None]] = {
    "passages": measure_passages,
    "held_out": measure_held_out,
    "cloze": measure_cloze,
    "cost": measure_cost,
}


def labels(spec: ArmGroupSpec, arm: ArmSpec, experiment: str, words_size: int) -> dict[str, Any]:
    """Columns that every row of an arm carries."""
    return {
        "paper": spec.paper,
        "experiment": experiment,
        "scale": spec.scale,
        "run": arm.name,
        "model": arm.model.name,
        "recipe": arm.model.recipe,
        "size": arm.model.size,
        "parameters": arm.model.parameters,
        "revision": arm.model.asset or "final",
        "seed": arm.seed,
        "method": arm.method,
        "aux": arm.aux.name if arm.aux else "",
        "aux_parameters": arm.aux.parameters if arm.aux else 0,
        "words": arm.words,
        "words_size": words_size,
        "decoding": arm.decoding,
        "prompt_length": arm.prefix or spec.prefix,
        "completion_length": arm.suffix or spec.suffix,
    }


def measure(bench: Bench, arm: ArmSpec, experiment: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure one arm; returns its measurement rows and its item rows."""
    into = Recorder()
    for name in arm.measure:
        MEASURES[name](bench, arm, into)
    size = 0
    if arm.method == "tokenswap":
        assert arm.aux
        size = len(bench.words(arm).coverage(bench.tokenizer(arm.model), bench.tokenizer(arm.aux)))
    shared = labels(bench.spec, arm, experiment, size)
    metrics = pd.DataFrame([{**shared, **row} for row in into.metrics])
    items = [frame.assign(run=arm.name, seed=arm.seed) for frame in into.items]
    return metrics, pd.concat(items, ignore_index=True) if items else pd.DataFrame()


def measure_all(spec: ArmGroupSpec, root: Path, work: Path, code: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every arm of a job, or read what an earlier, stopped attempt measured of it.

    root: `results/<scale>`. work: folder for the arms that are done. code: digest of the code that measures.
    """
    bench = Bench(spec, root)
    common = spec.model_dump(mode="json", exclude={"arms", "experiments", "group"})
    found = []
    for arm, experiment in zip(spec.arms, spec.experiments, strict=True):
        digest = digest_of({"arm": arm.model_dump(mode="json"), "spec": common, "code": code})
        folder = work / arm.name
        if done(folder, digest):
            log.info("%s: measured earlier, kept", arm.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            metrics, items = measure(bench, arm, experiment)
            write_table(metrics, folder / "metrics.parquet", {})
            write_table(items, folder / "items.parquet", {})
            write_json({"digest": digest}, folder / "done.json")
            log.info("%s: measured", arm.name)
        found.append((read_table(folder / "metrics.parquet"), read_table(folder / "items.parquet")))
    return pd.concat([metrics for metrics, _ in found], ignore_index=True), pd.concat(
        [items for _, items in found if len(items)], ignore_index=True
    )


def done(folder: Path, digest: str) -> bool:
    """Whether an arm was measured by this spec and code."""
    try:
        return json.loads((folder / "done.json").read_text())["digest"] == digest
    except (OSError, ValueError, KeyError):
        return False
