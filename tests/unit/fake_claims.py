"""Run tables as training writes them, with known truth: a run for each that a claim of `patterns` needs."""

import numpy as np
import pandas as pd

STEPS = np.arange(0, 601, 20)
N, BATCH, EPOCH = 48, 6, 8  # items, batch, steps an epoch
LEVELS = {  # step at which EM passes .5, and width of the rise in steps
    "mi": (40, 8), "mij": (200, 60), "mijl": (180, 60), "icm": (220, 30), "dynamic_icm": (300, 20),
    "random_seed_lookup": (320, 30), "every_nth": (390, 12), "repeat_back": (385, 12),
    "random_digits": (400, 12), "text": (260, 25), "text_sentences2": (280, 25),
    "text_sentences": (300, 25), "text_top3grams": (320, 25), "text_top2grams": (340, 25),
    "text_words": (360, 25), "mij_10": (160, 50), "mij_20": (240, 50), "mij_40": (320, 40),
    "mij_50": (360, 40), "mijl_2": (150, 50), "mijl_3": (120, 50),
}  # fmt: skip
UNSEEN = {"mi": 1.0, "icm": 0.95}
HARD = ("random_seed_lookup", "every_nth", "random_digits")
EXPERIMENTS = {  # experiment -> (data, model, items)
    "alone": [(d, "M", N) for d in ("mi", "mij", "mijl", "icm", "dynamic_icm", "text", *HARD)],
    "large": [(d, "L", N) for d in ("mij", "icm", "text", *HARD)],
    "generalize": [(d, "M", 128) for d in ("mi", "mij", "icm", "dynamic_icm", "random_seed_lookup")],
    "mix4": [("mix4", "M", 64)],
    "mixtext": [(f"text{100 - d}_digits{d}", "M", 64) for d in (25, 50, 75)],
    "pairs": [(d, m, n) for d in ("text", "text_words") for m, n in (("S", 32), ("M", N))],
    "shuffles": [(d, "M", N) for d in LEVELS if d.startswith("text")],
    "grid": [("random_digits", m, n) for m in ("XS", "S", "M", "L") for n in (16, 32, 64, 128)],
    "jumps": [(d, "M", N) for d in ("mij_10", "mij", "mij_20", "mij_40", "mij_50")],
    "letters": [(d, "M", N) for d in ("mijl", "mijl_2", "mijl_3")],
}  # fmt: skip
PARAMETERS = {"XS": 24_576, "S": 55_296, "M": 98_304, "L": 221_184}
CAPACITY = {"XS": 20, "S": 40, "M": 70, "L": 200}


def parts_of(data: str, n: int) -> dict[str, int]:
    """Items of each subset."""
    if data == "mix4":
        return dict.fromkeys(("mi", "mij", "mijl", "random_digits"), n // 4)
    if "_digits" in data and data.startswith("text"):
        digits = n * int(data.rsplit("digits", 1)[1]) // 100
        return {"text": n - digits, "random_digits": digits}
    return {data: n}


def make(seeds: int = 3, larger_later: float = 1.2, in_batch: float = BATCH / N, seed: int = 0):
    """(metrics, items, runs).

    larger_later: true ratio of epochs L over M on random digits; in_batch: probability that a newly memorized
    item of the 48-item runs was in the batch (scaled with 1/N elsewhere).
    """
    rng = np.random.default_rng(seed)
    rows, items, runs, done = [], [], {}, set()
    for experiment, cells in EXPERIMENTS.items():
        runs[experiment] = []
        for data, model, n in cells:
            for s in range(seeds):
                run = f"{data}-{model}-{n}-{s}"
                runs[experiment].append(run)
                if run not in done:
                    done.add(run)
                    one_run(rng, rows, items, run, data, model, n, s, larger_later, in_batch)
    metrics = pd.DataFrame(rows)
    fixed = {"paper": "patterns", "experiment": "", "scale": "test", "default_prompt_length": 12}
    return metrics.assign(**fixed, default_completion_length=8), pd.concat(items, ignore_index=True), runs


def one_run(rng, rows, items, run, data, model, n, s, larger_later, in_batch):
    base = {"run": run, "model": model, "seed": s, "data": data, "items": n, "batch_size": BATCH}
    base |= {"parameters": PARAMETERS[model], "prompt_length": 12, "completion_length": 8}
    sizes, status = parts_of(data, n), {}
    delay = 1 + 0.06 * rng.standard_normal()
    for subset, k in sizes.items():
        middle, width = LEVELS[subset]
        middle *= delay * (larger_later if model == "L" and subset == "random_digits" else 1)
        middle += 60 * (0.5 - sizes[subset] / n) if len(sizes) > 1 and subset == "random_digits" else 0
        when = middle + width * rng.logistic(size=k) / 2
        on = STEPS[None, :] >= when[:, None]
        if data == "random_digits" and n > CAPACITY[model]:
            on &= rng.random((k, 1)) < 0.5
        flips = on & (rng.random(on.shape) < 0.12) & (STEPS < 540)  # forgetting, none at the end
        status[subset] = on & ~flips if subset.startswith("text") and len(sizes) == 1 else on

    def add(step, subset, split, metric, value, count, **more):
        row = {"step": step, "epoch": step / EPOCH, "subset": subset, "split": split, "metric": metric}
        rows.append({**base, **row, "value": float(value), "n": count, **more})

    offset = 0
    for subset, on in status.items():
        k = len(on)
        for j, step in enumerate(STEPS):
            em = on[:, j].mean()
            add(step, subset, "train", "exact_match", em, k)
            if data in UNSEEN or data in ("dynamic_icm", "random_seed_lookup", "mij"):
                unseen = min(em, UNSEEN.get(data, 0.0))
                add(step, subset, "validation", "exact_match", round(unseen * N) / N, N)
            if data == "mij":
                add(step, subset, "validation", "adherence", 0.2 + 0.7 * em + 0.02 * rng.random(), N)
            if data == "text":
                for metric, lead in (("bleu_cumulative", 10), ("meteor", 20), ("jaccard", 5)):
                    if step % 60 == 0:
                        near = 1 / (1 + np.exp(-(step - LEVELS["text"][0] + lead) / 40))
                        add(step, subset, "train", metric, near + 0.001 * rng.random(), k)
                for prompt, completion in ((12, 3), (8, 14)):
                    add(step, subset, "train", "exact_match", min(1, em * 1.05), k,
                        prompt_length=prompt, completion_length=completion)  # fmt: skip
                if step in (360, 420):
                    add(step, "memorized", "train", "sampling_accuracy", 0.97, 40)
                    add(step, "forgotten", "train", "sampling_accuracy", 0.12 + 0.02 * rng.random(), 8)
        long = pd.DataFrame(on.T.reshape(-1).astype("float32"), columns=["value"])
        long["step"], long["item"] = np.repeat(STEPS, k), np.tile(np.arange(offset, offset + k), len(STEPS))
        keep = {"run": run, "seed": s, "data": data, "items": n, "subset": subset, "split": "train"}
        items.append(long.assign(**keep, metric="exact_match"))
        offset += k
        if data in UNSEEN or data in ("dynamic_icm", "random_seed_lookup"):
            unseen = round(min(on[:, -1].mean(), UNSEEN.get(data, 0.0)) * N)
            last = pd.DataFrame({"value": np.arange(N) < unseen, "item": np.arange(N)}).astype({"value": "float32"})
            items.append(last.assign(**{**keep, "split": "validation"}, metric="exact_match", step=STEPS[-1]))
    if data in ("text", "text_words"):
        for step in range(4, 600, 4):
            new = rng.poisson(1.5)
            both = rng.binomial(new, min(1.0, in_batch * N / n))
            counts = {"newly_memorized": new, "newly_in_batch": both, "batch_items": BATCH}
            for metric, value in counts.items():
                add(step, "all", "train", metric, value, n)
