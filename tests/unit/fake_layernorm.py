"""Fake measurements of paper `layernorm` with the columns of real runs; no model is trained.

Stripping slows learning and memorization down, most of all the early third. Every run has its own random stream, so
that adding one changes no other.
"""

from functools import cache

import numpy as np
import pandas as pd

POSITIONS = {
    "text_pre": "pre", "text_post": "post", "digits_pre": "pre", "minilm": "post",
    "gpt_neo": "pre", "qwen2": "pre", "gpt2_medium": "pre", "roberta_prelayernorm": "pre", "vit_b": "pre",
    "deit": "pre", "vit_s": "pre",
    "bert": "post", "deberta": "post", "distilbert": "post", "electra": "post", "longformer": "post",
    "roberta": "post",
}  # fmt: skip
OURS = ("text_pre", "text_post", "digits_pre")
PAPERS = tuple(name for name in POSITIONS if name not in (*OURS, "minilm"))
ARMS = ("none", "all", "early", "middle", "late")
LAYERS = 3
LAST = 28  # epochs of every run: the budget of Pre-LN models
BUDGET = {"pre": 28, "post": 16}
EVERY = 2
NOISY = 20
# How far an arm slows a run down, and how much of the final test accuracy it costs.
SLOWER = {"none": 1.0, "all": 0.5, "early": 0.6, "middle": 0.85, "late": 0.95}
COST = {"none": 0.0, "all": 0.06, "early": 0.04, "middle": 0.02, "late": 0.0}


class Lab:
    """Collects rows of fake runs."""

    def __init__(self, seeds: int = 3) -> None:
        self.seeds = seeds
        self.rows: list[dict] = []

    def run(self, experiment, model, arm, noise=0.02, optimizer="adamw", form="classifier", start="pretrained"):
        """Fine-tune one model in one arm, in every seed."""
        position = POSITIONS[model]
        for seed in range(self.seeds):
            name = f"{model}-{experiment}-{arm}-{noise:g}-s{seed}"
            rng = np.random.default_rng(list(name.encode()))
            about = {
                "paper": "layernorm", "experiment": experiment, "scale": "laptop", "run": name, "model": model,
                "seed": seed, "data": "digits" if model == "digits_pre" else "packages", "items": 400,
                "batch_size": 16, "parameters": 50_000, "revision": "", "position": position, "arm": arm,
                "noise": noise, "optimizer": optimizer, "form": form, "start": start,
                "budget": float(BUDGET[position]), "stage": "fine_tuning",
            }  # fmt: skip

            def add(step, split, subset, metric, value, n, about=about, **more):
                at = {"step": step, "epoch": float(step) / 25, "split": split, "subset": subset}
                self.rows.append({**about, **at, "metric": metric, "value": float(value), "n": n, **more})

            pace = SLOWER[arm] * (0.6 if start == "scratch" else 1.0)
            top = 0.88 - COST[arm] * (start != "scratch") - 0.1 * (start == "scratch") + rng.normal(0, 0.004)
            for epoch in range(0, LAST + 1, EVERY):
                step = 25 * epoch
                learned = 1 - np.exp(-pace * epoch / 3)
                memorized = round(NOISY / (1 + np.exp(-(pace * epoch - 7) / 2)))
                memorized = min(NOISY, max(0, memorized + int(rng.integers(-1, 2))))
                recovered = round((NOISY - memorized) * min(1.0, epoch / 10) * 0.7)
                train = 1 / 6 + (0.995 - 1 / 6) * learned - 0.02 * (1 - memorized / NOISY)
                add(step, "train", "all", "accuracy", train, 400)
                add(step, "validation", "all", "accuracy", 1 / 6 + (top - 1 / 6) * learned, 1000)
                add(step, "train", "all", "loss", 1.8 * np.exp(-pace * epoch / 4) + 0.01, 400)
                add(step, "validation", "all", "loss", 0.45 + 1.35 * np.exp(-pace * epoch / 3) + 0.01 * epoch, 1000)
                outcomes = {"memorization": memorized, "recovery": recovered}
                outcomes["random"] = NOISY - memorized - recovered
                for metric, count in outcomes.items():
                    add(step, "train", "noisy", metric, count / NOISY, NOISY)
                if experiment == "main" and arm == "none" and epoch % 4 == 0:
                    for layer in range(LAYERS):
                        for role in ("attention", "feed_forward"):
                            learn = 0.5 * np.exp(-1.1 * layer - 0.2 * (role == "feed_forward") + rng.normal(0, 0.1))
                            ratio = (30 if position == "pre" else 8) * np.exp((epoch - LAST) / 10)
                            for definition, scale in (("text", 1.0), ("code", 0.3)):
                                more = {"layer": float(layer), "role": role, "definition": definition}
                                add(step, "validation", "all", "gradient_learning", learn * scale, 200, **more)
                                below = learn * scale / ratio / np.exp(rng.normal(0, 0.1))
                                add(step, "train", "noisy", "gradient_memorization", below, NOISY, **more)
            for step in (0, 25 * LAST):
                self.norms(add, rng, step, "train", arm, start, head=False)

    def norms(self, add, rng, step, split, arm, start, head):
        """How far every norm is from gain 1 and bias 0."""
        places = [(-1, "embedding"), (-1, "final"), *([(-1, "head")] if head else [])]
        places += [(layer, role) for layer in range(LAYERS) for role in ("attention", "feed_forward")]
        for layer, role in places:
            far = 0.02 if start == "scratch" else 0.7 - 0.1 * layer
            stripped = arm == "all"
            for metric, size in (("gain_moved", far), ("bias_moved", 0.4 * far)):
                value = 0 if stripped else size * np.exp(rng.normal(0, 0.05))
                add(step, split, "all", metric, value, 32, layer=float(layer), role=role)

    def pretrain(self, model):
        """The first stage of one model, in every seed."""
        text = model.startswith("text")
        for seed in range(self.seeds):
            name = f"{model}-pretraining-s{seed}"
            rng = np.random.default_rng(list(name.encode()))
            about = {
                "paper": "layernorm", "experiment": "pretraining", "scale": "laptop", "run": name, "model": model,
                "seed": seed, "data": "paragraphs" if text else "other_digits", "items": 20_000, "batch_size": 64,
                "parameters": 50_000, "revision": "", "position": POSITIONS[model], "arm": "none", "noise": 0.0,
                "optimizer": "adamw", "form": "pretraining", "start": "scratch", "budget": 0.0,
                "stage": "pretraining",
            }  # fmt: skip

            def add(step, split, subset, metric, value, n, about=about, **more):
                at = {"step": step, "epoch": step / 300, "split": split, "subset": subset}
                self.rows.append({**about, **at, "metric": metric, "value": float(value), "n": n, **more})

            for step in (0, 300, 600):
                value = 4.9 + 1.2 * np.exp(-step / 150) if text else 0.97 - 0.87 * np.exp(-step / 150)
                metric = "cross_entropy" if text else "accuracy"
                add(step, "validation", "all", metric, value + rng.normal(0, 0.005), 500, stripped="none")
                self.norms(add, rng, step, "train", "none", "scratch" if step == 0 else "pretrained", head=text)
            harm = {"all": 0.5, "early": 0.1, "middle": 0.05, "late": 0.08, "attention": 0.15, "feed_forward": 0.2}
            for stripped, loss in harm.items():
                more = loss if text else -1.2 * loss
                add(600, "validation", "all", metric, value + more + rng.normal(0, 0.01), 500, stripped=stripped)
                if text:
                    add(600, "validation", "all", "word_accuracy", 0.6 - 0.6 * loss, 500, stripped=stripped)
            if text:
                add(0, "validation", "all", "unigram_entropy", 5.75, 500, stripped="none")
                for step in (0, 300, 600):
                    add(step, "validation", "all", "word_accuracy", 0.1 + step / 1200, 500, stripped="none")

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return (metrics, items); no table of this paper reads items."""
        columns = ["experiment", "run", "seed", "data", "subset", "split", "item", "metric", "value", "step"]
        return pd.DataFrame(self.rows), pd.DataFrame(columns=columns)


@cache
def everything(seeds=3, checkpoint=True, models=OURS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All experiments of the paper; models with the paper's names start from public checkpoints."""
    lab = Lab(seeds)
    own = [name for name in models if name in OURS]
    text = [name for name in models if name.startswith("text")] or [n for n in models if n in ("bert", "gpt_neo")]
    start = "pretrained" if own else "public"
    for model in own:
        lab.pretrain(model)
    for model in models:
        for arm in ARMS:
            lab.run("main", model, arm, start=start)
        for arm in ("none", "all"):
            lab.run("scratch", model, arm, start="scratch")
    for model in text:
        for arm in ("none", "all"):
            for noise in (0.01, 0.05):
                lab.run("noise", model, arm, noise, start=start)
            lab.run("muon", model, arm, optimizer="muon", start=start)
            lab.run("label_word", model, arm, form="label_word", start=start)
    if checkpoint:
        for arm in ("none", "all"):
            lab.run("checkpoint", "minilm", arm, start="public")
    return lab.tables()
