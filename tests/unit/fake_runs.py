"""Fake metrics and items tables with the columns of real runs, for tests of tables and figures; no model is
trained.

Every item has a time at which it is memorized, drawn around a time that depends on the data set and the
model, and is forgotten now and then for one evaluation. Curves, levels and counts follow from those
histories.
"""

from functools import cache

import numpy as np
import pandas as pd

PARAMETERS = {"S": 55296, "M": 98304, "L": 451584}
# (step of median memorization, spread of items) of model M
PACE = {
    "mi": (10, 5),
    "icm": (230, 60),
    "mijl": (620, 190),
    "mij": (540, 220),
    "dynamic_icm": (600, 90),
    "random_seed_lookup": (690, 120),
    "text": (480, 110),
    "text_sentences2": (520, 110),
    "text_sentences": (540, 110),
    "text_top3grams": (640, 130),
    "text_top2grams": (700, 130),
    "text_words": (780, 120),
    "every_nth": (930, 50),
    "repeat_back": (960, 40),
    "random_digits": (1000, 45),
}
ALONE = [
    "mi",
    "mij",
    "mijl",
    "icm",
    "dynamic_icm",
    "random_digits",
    "repeat_back",
    "every_nth",
    "random_seed_lookup",
    "text",
]
SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "bleu_cumulative", "meteor", "jaccard")


class Lab:
    """Collects the rows of fake runs."""

    def __init__(self, seeds: int = 3, every: int = 25, steps: int = 1300, items: int = 48) -> None:
        self.seeds, self.every, self.steps, self.items = seeds, every, steps, items
        self.metrics: list[pd.DataFrame] = []
        self.item_rows: list[pd.DataFrame] = []

    def run(
        self, experiment, data, subsets, model="M", items=None, seed=0, stop=True, shift=1.0, scores=False,
        lengths=(), keep_items=True, **extra,
    ):  # fmt: skip
        """One run; `subsets` maps each subset to its share of the items."""
        number = items or self.items
        batch = max(4, number // 8)
        rng = np.random.default_rng([seed, sum(map(ord, experiment + data + model)), number])
        steps = np.arange(self.every, self.steps + 1, self.every)
        size = {"S": 1.15, "M": 1.0, "L": 0.85}[model]
        names, when = [], []
        for subset, share in subsets.items():
            middle, spread = PACE[subset]
            if subset in ("random_digits", "every_nth", "repeat_back"):
                slow = {"S": 0.95, "M": 1.0, "L": 1.12}[model]
            else:
                slow = size
            n = max(1, round(number * share))
            names += [subset] * n
            when.append(rng.normal(middle * slow * shift * rng.normal(1, 0.04), spread * slow, n))
        subset, time = np.array(names), np.concatenate(when)
        status = steps[:, None] >= time
        status &= ~((rng.random(status.shape) < 0.06) & (steps[:, None] < time + 400))
        if data.startswith("mij"):  # partly random: some items are never memorized
            status[:, rng.random(len(time)) < 0.06] = False
        exact = status.mean(1)
        if stop and (exact == 1).any():
            steps, status = steps[: np.argmax(exact == 1) + 3], status[: np.argmax(exact == 1) + 3]
        soft = 1 / (1 + np.exp(-(steps[:, None] - time + 120) / 90))
        run = f"{data}-{model}-{number}-{seed}" + "".join(f"-{v}" for v in extra.values())
        about = {
            "paper": "patterns",
            "experiment": experiment,
            "scale": "laptop",
            "run": run,
            "model": model,
            "seed": seed,
            "data": data,
            "items": number,
            "batch_size": batch,
            "parameters": PARAMETERS[model],
            "default_prompt_length": 16,
            "default_completion_length": 10,
            **extra,
        }
        per_epoch = int(np.ceil(number / batch))
        groups = {name: np.flatnonzero(subset == name) for name in subsets}
        if len(groups) > 1:
            groups["all"] = np.arange(len(subset))

        parts: list[tuple] = []

        def add(metric, values, part, split="train", n=None, prompt=16, completion=10, at=None):
            at = steps if at is None else at
            n = len(groups.get(part, subset)) if n is None else n
            parts.append((np.asarray(at), np.asarray(values, float), part, split, n, prompt, completion, metric))

        for part, index in groups.items():
            add("exact_match", status[:, index].mean(1), part)
            add("loss", 2.3 * (1 - soft[:, index].mean(1)) + 0.02, part)
            general = {"mi": 1.0, "icm": 0.9, "mij": 0.12, "mijl": 0.05}.get(part, 0.0)
            add("exact_match", general * status[:, index].mean(1), part, "validation")
            add("loss", 2.3 + 0.4 * soft[:, index].mean(1), part, "validation")
            for prompt, completion in lengths:
                add(
                    "exact_match",
                    status[:, index].mean(1) ** (completion / 10),
                    part,
                    "train",
                    None,
                    prompt,
                    completion,
                )
        fresh = np.diff(status.astype(int), axis=0, prepend=0) == 1
        new = np.minimum(fresh.sum(1), 3)
        for metric, values in (
            ("newly_memorized", new),
            ("newly_in_batch", rng.binomial(new, 0.25)),
            ("batch_items", new * 0 + batch),
        ):
            add(metric, values, "all")
        if data.startswith("mij"):
            add("adherence", 0.1 + 0.82 * soft.mean(1), data, "validation")
        few = slice(3, None, max(1, len(steps) // 8))
        ids = np.arange(len(subset), dtype=np.int32)
        frames = [("exact_match", steps, status.astype(np.float32))] if keep_items else []
        if scores:
            for k, metric in enumerate(SCORES):
                values = np.clip(soft[few] ** (1 + k / 3) + rng.normal(0, 0.08, soft[few].shape), 0, 1)
                values = np.where(status[few], 1.0, values)
                frames.append((metric, steps[few], values))
                add(metric, values.mean(1), data, at=steps[few])
            ever = np.maximum.accumulate(status, axis=0)
            groups_of = {"memorized": status, "forgotten": ever & ~status, "never": ~ever}
            for name, chance in {"memorized": 0.98, "forgotten": 0.2, "never": 0.005}.items():
                for i in range(*few.indices(len(steps))):
                    n = int(groups_of[name][i].sum())
                    if n:
                        hits = rng.binomial(5 * n, chance) / (5 * n)
                        add("sampling_accuracy", [hits], name, n=n, at=steps[i : i + 1])
        if experiment == "alone":
            lengths_of = np.random.default_rng(7).integers(28, 45, len(subset))
            frames.append(("length", steps[:1], lengths_of[None]))
        size_of = [len(part[0]) for part in parts]
        at = np.concatenate([part[0] for part in parts])
        columns = {"step": at, "epoch": at / per_epoch, "value": np.concatenate([part[1] for part in parts])}
        names = ("subset", "split", "n", "prompt_length", "completion_length", "metric")
        for k, name in enumerate(names, start=2):
            columns[name] = np.repeat([part[k] for part in parts], size_of)
        self.metrics.append(pd.DataFrame({**about, **columns}))
        for metric, at, values in frames:
            self.item_rows.append(
                pd.DataFrame(
                    {
                        "experiment": experiment,
                        "run": run,
                        "seed": seed,
                        "step": np.repeat(at, len(ids)),
                        "data": data,
                        "items": number,
                        "subset": np.tile(subset, len(at)),
                        "split": "train",
                        "item": np.tile(ids, len(at)),
                        "metric": metric,
                        "value": values.ravel().astype(np.float32),
                    }
                )
            )

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return (metrics, items)."""
        return pd.concat(self.metrics, ignore_index=True), pd.concat(self.item_rows, ignore_index=True)


@cache
def everything(**size) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All experiments of the paper."""
    lab = Lab(**size)
    for seed in range(lab.seeds):
        for data in ALONE:
            lab.run("alone", data, {data: 1}, seed=seed)
            lab.run("large", data, {data: 1}, "L", seed=seed, keep_items=False)
        for data in ("mi", "mij", "icm", "dynamic_icm", "random_seed_lookup"):
            lab.run("generalize", data, {data: 1}, items=96, seed=seed, keep_items=False)
        four = ("mi", "mij", "mijl", "random_digits")
        lab.run("mix4", "mix4", dict.fromkeys(four, 0.25), seed=seed, keep_items=False)
        for digits in (25, 50, 75):
            parts = {"text": 1 - digits / 100, "random_digits": digits / 100}
            lab.run("mixtext", f"text{100 - digits}_digits{digits}", parts, seed=seed, shift=1 + digits / 500)
        for model, number in (("S", 32), ("M", 32), ("M", 48), ("L", 64)):
            for data in ("text", "text_words"):
                more = [(8, 10), (16, 5), (10, 16)] if data == "text" else []
                lab.run(
                    "pairs", data, {data: 1}, model, number, seed, False, scores=data == "text", lengths=more,
                )  # fmt: skip
        for model, number in (("S", 32), ("M", 48)):
            for data in PACE:
                if data.startswith("text"):
                    lab.run("shuffles", data, {data: 1}, model, number, seed, keep_items=False)
        for model, reach in (("S", 40), ("M", 80), ("L", 10_000)):
            for number in (16, 32, 64, 128):
                shift = 0.7 if number <= reach else 1.6
                lab.run(
                    "grid",
                    "random_digits",
                    {"random_digits": 1},
                    model,
                    number,
                    seed,
                    False,
                    shift,
                    keep_items=False,
                )
        for experiment, data, option, values, pace in (
            ("jumps", "mij", "jump", (0.1, 0.15, 0.2, 0.4, 0.5), 1.2),
            ("letters", "mijl", "letters", (1, 2, 3), -0.08),
            ("backs", "repeat_back", "back", (4, 5, 6, 8), 0.01),
        ):
            for value in values:
                lab.run(
                    experiment, data, {data: 1}, seed=seed, shift=0.8 + pace * value, keep_items=False,
                    option=option, option_value=float(value),
                )  # fmt: skip
    return lab.tables()
