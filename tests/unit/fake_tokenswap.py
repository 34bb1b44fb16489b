"""Fake metrics and items tables of paper `tokenswap` with the columns of real runs; no model is asked.

What is extracted falls with the words swapped and grows with the main model, roughly as in a small trial.
Every arm has its own random stream, so that adding one changes no other.
"""

import json
from functools import cache

import numpy as np
import pandas as pd

PARAMETERS = {"XS": 24_576, "S": 98_304, "M": 393_216, "L": 1_179_648}
DOMAINS = ("prose", "math")
GROUPS = ("matplotlib", "networkx", "nltk", "pandas", "scipy", "sympy")
CLASSES = {
    "determiners": 0.55, "pronouns": 0.62, "coordinators": 0.7, "prepositions": 0.58, "wh-words": 0.5,
    "modals": 0.48, "auxiliaries": 0.66,
}  # fmt: skip
LENGTH = 48  # completion tokens, of 4.6 characters
TEXTS = {
    "prose": [
        (
            "The old keeper of the lighthouse walked down to the harbor every morning because",
            " the boats from the north came in with the tide. He counted them twice, wrote the number in a book"
            " that had belonged to his father and then waited for the fog to lift over the bay.",
            [" the boats", (" that"), " came from a village in the north were never late. He counted", (" all"),
             " of them and put his book away", (" before"), " the bells of the church began."],
        ),
        (
            "When the orchestra had finished, nobody in the hall moved, and the conductor",
            " turned around with a smile that she had practiced for years. She bowed to the left, to the right and"
            " to the boy in the last row who had not stopped clapping.",
            [" turned around", (" and"), " looked for her daughter", (" in"), " the third row, where an empty chair"
             " held a red coat. She bowed", (" as"), " if nothing had happened."],
        ),
    ],
    "math": [
        (
            "We show that every compact surface of negative curvature admits a metric for which",
            " the length spectrum is simple. The proof uses a perturbation of the metric near a closed geodesic and"
            " a bound on the number of intersections that was known only for the torus.",
            [" the length", (" of"), " a closed geodesic is bounded by its genus. The proof uses", (" an"),
             " argument of Gauss", (" and"), " a perturbation of the curvature."],
        ),
        (
            "Let G be a finite group that acts on a tree without inversions. We prove that",
            " the quotient is a graph of groups whose fundamental group has a free subgroup of finite index, and we"
            " give an algorithm that finds it in polynomial time.",
            [" the quotient is a", (" finite"), " graph, and that its fundamental group is free", (" if"),
             " G acts freely. We also describe", (" some"), " examples."],
        ),
    ],
}  # fmt: skip


class Lab:
    """Collects rows of fake arms."""

    def __init__(self, seeds: int = 3, passages: int = 40) -> None:
        self.seeds, self.passages = seeds, passages
        self.metrics: list[dict] = []
        self.items: list[pd.DataFrame] = []

    def arm(
        self, experiment, model, method, aux="", words="", copied=1.0, loss=3.0, decoding="greedy", texts=False,
        keep_items=False,
    ):  # fmt: skip
        """One arm in every seed; `copied` is the mean share of a passage written before the first deviation."""
        recipe, size = model.rsplit("-", 1)
        for seed in range(self.seeds):
            name = "-".join(filter(None, (model, method, aux, words, decoding if decoding != "greedy" else "")))
            rng = np.random.default_rng([seed, *name.encode()])
            about = {
                "paper": "tokenswap", "experiment": experiment, "scale": "laptop", "run": f"{name}-s{seed}",
                "model": model, "recipe": recipe, "size": size, "parameters": PARAMETERS[size], "revision": "main",
                "seed": seed, "method": method, "aux": aux,
                "aux_parameters": PARAMETERS[aux.rsplit("-", 1)[1]] if aux else 0, "words": words,
                "words_size": int(0.8 * int(words.rsplit("-", 1)[1])) if words[-1:].isdigit() else 60 * bool(words),
                "decoding": decoding,
            }  # fmt: skip

            def add(data, subset, metric, value, n, about=about):
                train = data == "passages"
                more = {"data": data, "subset": subset, "split": "train" if train else "validation"}
                lengths = {"prompt_length": 20, "completion_length": LENGTH}
                self.metrics.append({**about, **more, **lengths, "metric": metric, "value": float(value), "n": n})

            subset = np.repeat(DOMAINS, self.passages // 2)
            level = np.where(subset == "math", min(1.0, copied * 1.08), copied)
            share = rng.beta(0.3 + 6 * level**2, 0.02 + 6 * (1 - level), len(subset))
            share[rng.random(len(subset)) < level**4] = 1.0
            tokens = np.floor(LENGTH * share)
            rouge = np.clip(0.15 + 0.85 * share + rng.normal(0, 0.05, len(share)) * (share < 1), 0, 1)
            scores = {
                "exact_match": tokens == LENGTH,
                "matching_tokens": tokens,
                "matching_characters": np.round(4.6 * tokens),
                "rouge_l": rouge,
                "rouge_l_recall": rouge,
                "levenshtein": 0.78 * (1 - share),
                "fractional_exact": 0.05 + 0.95 * share,
                "rouge_above_0.8": rouge > 0.8,
                "judge_loss": rng.normal(3.4, 0.1, len(share)),
            }
            held_out = rng.normal(loss + 0.02 * seed, 0.01)
            for part in ("all", *DOMAINS):
                inside = np.ones(len(subset), bool) if part == "all" else subset == part
                for metric, values in scores.items():
                    add("passages", part, metric, np.mean(values[inside]), int(inside.sum()))
            for metric, more in (("cross_entropy", 0), ("cross_entropy_words", -1), ("cross_entropy_others", 0.4)):
                add("held_out", "all", metric, held_out + more, 60)
            if words:
                size_of_g = int(words.rsplit("-", 1)[1]) if words[-1:].isdigit() else 110
                add("held_out", "all", "mass", 0.25 * size_of_g / (20 + size_of_g) + rng.normal(0, 0.002), 60)
                add("held_out", "all", "frequency", 0.25 * size_of_g / (20 + size_of_g), 60)
            if experiment == "cloze":
                for group in ("all", *GROUPS):
                    add("cloze_content", group, "accuracy", rng.binomial(60, 0.7) / 60, 60)
                for group, accuracy in (("all", 0.58), *CLASSES.items()):
                    chance = accuracy - (0.06 if method == "tokenswap" else 0)
                    add("cloze_function", group, "accuracy", rng.binomial(80, chance) / 80, 80)
            base = {"run": about["run"], "seed": seed, "data": "passages", "subset": subset, "split": "train"}
            base["item"] = np.arange(len(subset), dtype=np.int32)
            if keep_items:
                for metric in ("rouge_l", "exact_match"):
                    values = np.asarray(scores[metric], np.float32)
                    frame = pd.DataFrame({**base, "experiment": experiment, "metric": metric, "value": values})
                    self.items.append(frame.assign(text=None))
            if texts:
                self.texts(about, method)

    def texts(self, about, method):
        """Rows of the stored texts; standard decoding repeats the true suffix."""
        rows = []
        for domain, passages in TEXTS.items():
            for k, (prefix, suffix, pieces) in enumerate(passages):
                swapped = [[p, p.strip() in SWAPPED] for p in pieces]
                written = swapped if method == "tokenswap" else [[suffix, False]]
                item = k + (self.passages // 2) * (domain == "math")
                for metric, text in (("prefix", prefix), ("suffix", suffix), ("written", json.dumps(written))):
                    rows.append(
                        {
                            "experiment": about["experiment"], "run": about["run"], "seed": about["seed"],
                            "data": "passages", "subset": domain, "split": "train", "item": item,
                            "metric": metric, "value": np.nan, "text": text,
                        }
                    )  # fmt: skip
        self.items.append(pd.DataFrame(rows))

    def cost(self, model, method, aux, relative):
        """Seconds a token at two batch sizes."""
        recipe, size = model.rsplit("-", 1)
        arm = f"{model}-{method.replace('limit', 'tokenswap')}"  # measured with the arm of TokenSwap
        for seed in range(self.seeds):
            rng = np.random.default_rng([seed, *f"cost{method}{aux}".encode()])
            for subset, seconds, factor in (("batch 1", 2e-3, relative), ("batch 32", 1e-4, 1 + (relative - 1) * 0.6)):
                value = seconds * factor * rng.normal(1, 0.02)
                self.metrics.append(
                    {
                        "paper": "tokenswap", "experiment": "cost", "scale": "laptop",
                        "run": f"{arm}-cost-s{seed}", "model": model, "recipe": recipe, "size": size,
                        "parameters": PARAMETERS[size], "revision": "main", "seed": seed, "method": method, "aux": aux,
                        "aux_parameters": PARAMETERS[aux.rsplit("-", 1)[1]] if aux else 0, "words": "",
                        "words_size": 0, "decoding": "greedy", "data": "cost", "subset": subset,
                        "split": "train", "prompt_length": 20, "completion_length": LENGTH,
                        "metric": "seconds_per_token", "value": value, "n": 5,
                    }
                )  # fmt: skip

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return (metrics, items)."""
        return pd.DataFrame(self.metrics), pd.concat(self.items, ignore_index=True)


SWAPPED = {"that", "all", "before", "and", "in", "as", "of", "an", "finite", "if", "some"}
DEFAULT = "english-110"


@cache
def everything(**size) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All experiments of the paper."""
    lab = Lab(**size)
    swap = {"method": "tokenswap", "words": DEFAULT}

    lab.arm("extreme", "tuned-L", "standard", copied=0.99, loss=6.4, texts=True)
    lab.arm("extreme", "tuned-L", "memfree", copied=0.18, loss=6.4)
    lab.arm("extreme", "half1-L", "cp_fuse", "half2-L", copied=0.06, loss=7.0)
    lab.arm("extreme", "mix1-L", "cp_fuse", "mix2-L", copied=0.55, loss=6.9)
    lab.arm("extreme", "tuned-L", aux="background-S", copied=0.1, loss=5.8, texts=True, **swap)

    for experiment in ("wild", "words", "auxiliaries", "controls", "cloze"):
        more = {"texts": True} if experiment == "wild" else {}
        lab.arm(experiment, "wild-L", "standard", copied=0.93, loss=3.0, **more)
    lab.arm("wild", "wild-L", "memfree", copied=0.2, loss=3.0)
    lab.arm("wild", "wild-L", aux="background-S", copied=0.12, loss=3.04, texts=True, **swap)
    lab.arm("wild", "wild-L", aux="background-M", copied=0.15, loss=3.02, texts=True, **swap)
    lab.arm("wild", "wild-L", "cp_fuse", "wild-M", copied=0.6, loss=3.05)
    lab.arm("wild", "wild-L", "cp_fuse", "background-XS", copied=0.3, loss=3.6)

    lab.arm("vocabulary", "wild-L", "standard", copied=0.93, loss=3.0)
    lab.arm("vocabulary", "wild-L", aux="other-S", copied=0.1, loss=3.06, **swap)
    lab.arm("vocabulary", "wild-L", "cp_fuse", "wild-M", copied=0.6, loss=3.05)

    lab.arm("goldfish", "wild-M", "standard", copied=0.85, loss=3.2, keep_items=True)
    lab.arm("goldfish", "wild-M", aux="background-S", copied=0.11, loss=3.24, keep_items=True, **swap)
    for k, copied in ((3, 0.08), (4, 0.12), (32, 0.6)):
        lab.arm("goldfish", f"goldfish{k}-M", "standard", copied=copied, loss=3.25, keep_items=True)
        if k < 32:
            lab.arm("goldfish", f"goldfish{k}-M", aux="background-S", copied=copied / 2, loss=3.3, **swap)

    for size_of, copied, loss in (("XS", 0.25, 3.9), ("S", 0.55, 3.5), ("M", 0.82, 3.2), ("L", 0.93, 3.0)):
        lab.arm("sizes", f"wild-{size_of}", "standard", copied=copied, loss=loss)
        lab.arm("sizes", f"wild-{size_of}", aux="background-XS", copied=0.15 * copied, loss=loss + 0.1, **swap)

    for number, copied in ((9, 0.6), (43, 0.25), (66, 0.18), (110, 0.12), (136, 0.11)):
        words = f"english-{number}"
        lab.arm("words", "wild-L", "tokenswap", "background-S", words, copied=copied, loss=3.04)
    for size_of, copied in (("XS", 0.1), ("S", 0.12), ("M", 0.15), ("L", 0.2)):
        lab.arm("auxiliaries", "wild-L", aux=f"background-{size_of}", copied=copied, loss=3.12 - copied / 2, **swap)

    lab.arm("speculative", "wild-L", "standard", copied=0.8, decoding="sample")
    lab.arm("speculative", "wild-L", aux="background-S", copied=0.15, decoding="sample", **swap)
    lab.arm("speculative", "wild-L", "speculative", "background-S", copied=0.8, decoding="sample")
    for experiment in ("speculative", "controls", "cloze"):
        lab.arm(experiment, "wild-L", aux="background-S", copied=0.12, loss=3.04, **swap)
    lab.arm("cloze", "wild-L", "cp_fuse", "wild-M", copied=0.6, loss=3.05)

    lab.arm("controls", "wild-L", aux="wild-L", copied=0.93, loss=3.0, **swap)
    lab.arm("controls", "wild-L", aux="wild-M", copied=0.9, loss=3.3, **swap)
    for words, copied, loss in (("content-matched", 0.08, 3.08), ("content-110", 0.4, 3.03)):
        lab.arm("controls", "wild-L", "tokenswap", "background-S", words, copied=copied, loss=loss)

    costs = (("standard", "", 1), ("tokenswap", "background-S", 1.5), ("limit", "background-S", 1.45))
    for method, aux, relative in (*costs, ("memfree", "", 1.1), ("cp_fuse", "wild-M", 3.4)):
        lab.cost("wild-L", method, aux, relative)
    return lab.tables()
