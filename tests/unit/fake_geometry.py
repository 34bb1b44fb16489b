"""Fake measurements of paper `geometry` with the columns of real runs; no model is trained.

Curves are straight lines between a few knots on the log of the step, times a little noise with its own random stream
in each run, so that adding a run changes no other. `fake` has a switch for every effect that the paper claims.
"""

from functools import cache

import numpy as np
import pandas as pd

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 2048)
LAST = STEPS[-1]
TROUGH, PEAK = 64, 768  # steps
WIDTHS = {"XS": 8, "S": 16, "M": 32, "L": 64}
LAYERS, LENGTH, TOKENS = 2, 32, 16 * 32  # tokens a sequence, tokens a step
BASES = (64, 256, 1024, 2048)  # pre-training steps from which fine-tuning starts
POST_STEPS = (0, 10, 20, 40)
STAGES = ("sft", "dpo", "grpo")
KS = (1, 4, 16, 64)
SAMPLES = 128  # replies sampled a prompt
QUESTIONS, RESAMPLES = 60, 20
VARIANTS = ("base", "repeated", "weight_decay", "long", "small_vocabulary")
SETTINGS = ("main", "uniform", "wide", "mse_uniform", "mse_skewed")
TOY_STEPS = (0, 10, 20, 50, 100, 200, 400, 800)
TOY_COUNTS = {"skewed": (8, 4, 2, 1), "uniform": (2, 2, 2, 2)}
ITEM_COLUMNS = ["run", "seed", "data", "items", "subset", "split", "item", "metric", "value", "step"]


def along(step, knots):
    """Value at a step of a line through (step, value) knots, straight in log2(1 + step)."""
    where = np.log2(1 + np.array([at for at, _ in knots], float))
    return float(np.interp(np.log2(1 + step), where, [value for _, value in knots]))


class Lab:
    """Collects rows of fake runs."""

    def __init__(self, effects) -> None:
        self.effects = effects
        self.rows: list[dict] = []
        self.long: list[pd.DataFrame] = []

    def about(self, experiment, run, seed, **more):
        """Columns that all rows of a run share."""
        return {
            "paper": "geometry", "experiment": experiment, "scale": "laptop", "run": run, "model": "", "seed": seed,
            "data": "main", "items": 4096, "batch_size": 16, "parameters": 50_000, "revision": "",
            "stage": "pretraining", "variant": "base", "width": 0, "base_tokens": 0, "tokens_per_step": TOKENS,
            "base_step": 0, "format": "", "start": "", **more,
        }  # fmt: skip

    def add(self, about, step, subset, metric, value, n=100, split="validation", **more):
        at = {"step": step, "epoch": step * 16 / about["items"], "subset": subset, "split": split}
        self.rows.append({**about, **at, "metric": metric, "value": float(value), "n": n, **more})

    def add_items(self, about, step, subset, metric, values, **more):
        key = {name: about.get(name, "") for name in ("run", "seed", "data", "items", "experiment", "setting")}
        given = {"subset": subset, "split": "validation", "metric": metric, "step": step}
        self.long.append({**key, **given, "item": np.arange(len(values)), "value": values, **more})

    # ---- representations

    def represent(self, about, step, rank, rng, families=True):
        """RankMe `rank` and its alpha; every family holds the default value again."""
        width = about["width"]

        def measure(factor, choice, subset="text", **more):
            value = min(width - 0.1, rank * factor)
            default = {"layer": float(LAYERS), "token": "last", "sequences": 20 * width, "length": LENGTH}
            more = {**default, "centred": 1, "window": "scaled", **more, "choice": choice}
            alpha = 2.6 - 2.4 * value / width + (0.3 if more["window"] == "paper" else 0.0)
            for metric, number in (("rank_me", value), ("alpha", alpha), ("alpha_r2", 0.97)):
                self.add(about, step, subset, metric, number, n=more["sequences"], **more)

        measure(1, "default")
        if about["stage"] != "pretraining":
            measure(1, "data")
            for subset in ("short", "long"):
                measure(self.effects["task_factor"](about["stage"], step), "data", subset, token="answer")
            return
        if families:
            for layer in range(LAYERS + 1):
                measure(1 + 0.1 * (LAYERS - layer), "layer", layer=float(layer))
            for token, factor in (("last", 1), ("mean", 0.8), ("all", 1.05)):
                measure(factor, "token", token=token)
            for part in (16, 8, 4, 2, 1):
                measure(1 - 0.01 * (part - 1), "sequences", sequences=20 * width // part)
            for quarter in (1, 2, 3, 4):
                measure(1 - 0.02 * (4 - quarter), "length", length=LENGTH * quarter // 4)
            for centred in (0, 1):
                measure(0.7 + 0.3 * centred, "centring", centred=centred)
            for window in ("scaled", "paper"):
                measure(1, "window", window=window)
            for subset, factor in (("text", 1), ("facts", 0.9), ("other", 1.02), ("shuffled", 0.8)):
                measure(factor, "data", subset)
        draws = rank * np.exp(0.01 * rng.standard_normal(RESAMPLES))
        self.add_items(about, step, "text", "rank_me_resample", draws)
        self.add_items(about, step, "text", "alpha_resample", 2.6 - 2.4 * draws / width)

    # ---- stages

    def pretrain(self, experiment, model, variant="base", families=True):
        """One model from scratch, in every seed."""
        on = self.effects
        falls = on["third"] or variant == "repeated"
        lowest = max(0.12, 1.3 / WIDTHS[model])  # RankMe is at least 1
        highest = lowest * on["expansion"]
        knots = [(0, lowest * on["warmup"]), (8, lowest * on["warmup"]), (TROUGH, lowest), (PEAK, highest)]
        knots += [(LAST, highest * (0.6 if falls else 1.1))]
        for seed in range(on["seeds"]):
            run = f"{experiment}-{model}-{variant}-s{seed}"
            rng = np.random.default_rng(list(run.encode()))
            about = self.about(experiment, run, seed, model=model, variant=variant, width=WIDTHS[model])
            shift = np.exp(0.02 * rng.standard_normal())
            unrelated = {name: self.unrelated(seed, name, rng) for name in ("facts", "continuations")}
            for step in STEPS:
                rank = shift * WIDTHS[model] * along(step, knots) * np.exp(0.004 * rng.standard_normal())
                self.represent(about, step, rank, rng, families)
                for subset, above in (("text", 0), ("facts", 0.2), ("other", 0.4)):
                    loss = along(step, [(0, 7.6), (TROUGH, 6), (LAST, 3.6 + above)])
                    self.add(about, step, subset, "cross_entropy", loss, n=4096)
                slope = along(step, [(0, 2), (TROUGH, 1), (LAST, 0.4)])
                self.add(about, step, "all", "gradient_norm", slope, 16, "train")
                self.add(about, step, "all", "learning_rate", 1e-3 * min(1, step / 200), 16, "train")
                self.capable(about, step, rng)
                for subset, noise in unrelated.items():
                    rho = along(step, on["rho"])
                    both = rho * self.known(seed, subset) + np.sqrt(1 - rho**2) * noise
                    self.add_items(about, step, subset, "answer_log_likelihood", 3 * both - 15)
            for way, k, factor in (
                ("drop_top", WIDTHS[model] // 8, on["drop"]),
                ("keep_top", WIDTHS[model] // 8, on["keep"]),
                ("drop_top", WIDTHS[model] // 4, on["drop"]),
                ("keep_top", WIDTHS[model] // 4, (1 + on["keep"]) / 2),
            ):
                changed = {"intervention": way, "components": k}
                for subset, whole in (("continuations", on["choice_at_end"]), ("facts", 0.75)):
                    value = 0.25 + (whole - 0.25) * factor + 0.005 * rng.standard_normal()
                    self.add(about, LAST, subset, "choice_accuracy", value, QUESTIONS, **changed)
                self.add(about, LAST, "facts", "recall", 0.5 * factor, QUESTIONS, **changed)

    def known(self, seed, subset):
        """(questions,) standard scores of infini-gram, the same for all models of a seed."""
        values = np.random.default_rng([seed, len(subset)]).standard_normal(QUESTIONS)
        return (values - values.mean()) / values.std()

    def unrelated(self, seed, subset, rng):
        """(questions,) standard scores without linear correlation to `known`."""
        values, known = rng.standard_normal(QUESTIONS), self.known(seed, subset)
        values = values - values.mean()
        values = values - (values @ known) / QUESTIONS * known
        return values / values.std()

    def capable(self, about, step, rng):
        on = self.effects
        noise = 0.003 * rng.standard_normal(3)
        intact = {"intervention": "none", "components": 0} if step == LAST else {}
        chosen = along(step, [(0, 0.25), (TROUGH, 0.3), (PEAK, on["choice_at_peak"]), (LAST, on["choice_at_end"])])
        recall = along(step, [(0, 0), (TROUGH, 0), (PEAK, on["recall_at_peak"]), (LAST, 0.5)])
        self.add(about, step, "continuations", "choice_accuracy", chosen + noise[0], QUESTIONS, **intact)
        self.add(about, step, "facts", "choice_accuracy", 0.25 + recall + noise[1], QUESTIONS, **intact)
        recall = max(0.0, recall + noise[2] * (step > TROUGH))
        self.add(about, step, "facts", "recall", recall, QUESTIONS, **intact)

    def post(self, experiment, stage, base_step, form, start):
        """One post-training run of L, in every seed."""
        on = self.effects
        for seed in range(on["seeds"]):
            run = f"{experiment}-{stage}-{base_step}-{form}-s{seed}"
            rng = np.random.default_rng(list(run.encode()))
            about = self.about(
                experiment, run, seed, model="L", stage=stage, width=WIDTHS["L"], base_tokens=base_step * TOKENS,
                tokens_per_step=16 * 8, base_step=base_step, format=form, start=start,
            )  # fmt: skip
            level = 20 * on["text_factor"]("sft", 1e9) if stage != "sft" else 20
            level *= on["text_factor"]("dpo", 1e9) if stage == "grpo" else 1
            level *= np.exp(0.01 * rng.standard_normal())
            age = BASES.index(base_step) if base_step in BASES else len(BASES) - 1
            for step in POST_STEPS:
                done = step / POST_STEPS[-1]
                rank = level * on["text_factor"](stage, step) * np.exp(0.001 * rng.standard_normal())
                self.represent(about, step, rank, rng)
                # the other format gets worse again when the base was trained for long
                far = 9 - 0.5 * age + (on["ood_uptick"] + 0.5 if age == len(BASES) - 1 else 0)
                near = 6 - 0.5 * age
                other = {"short": "long", "long": "short"}[form]
                for subset, end in ((form, near), (other, far)):
                    value = 12 + (end - 12) * done + 0.01 * rng.standard_normal()
                    self.add(about, step, subset, "reply_loss", value, QUESTIONS)
                    self.add(about, step, subset, "reply_accuracy", done * (0.8 if subset == form else 0.3), QUESTIONS)
                for k in KS:
                    low, high = on["pass_ends"][stage]
                    at = np.log2(k) / np.log2(KS[-1])
                    before = on["pass_ends"][{"sft": "base", "dpo": "sft", "grpo": "dpo"}[stage]]
                    first = before[0] + (before[1] - before[0]) * at
                    value = first + (low + (high - low) * at - first) * done + 0.002 * rng.standard_normal()
                    self.add(about, step, "short", "pass_at_k", value, SAMPLES, k=float(k))
            score = -1 - 0.3 * (form == "long") - 0.1 * age + 0.2 * rng.standard_normal(QUESTIONS)
            self.add_items(about, POST_STEPS[-1], "long", "judge_score", score)

    # ---- without a model

    def ngrams(self):
        for seed in range(self.effects["seeds"]):
            about = self.about("ngrams", f"ngrams-s{seed}", seed, model="infini-gram")
            rng = np.random.default_rng([7, seed])
            for subset, tokens in (("facts", 2), ("continuations", 4)):
                values = 2 * self.known(seed, subset) - 9
                skipped = np.where(np.arange(QUESTIONS) % 20 == 3, np.nan, values)
                self.add_items(about, 0, subset, "infini_gram_log_probability", skipped)
                zero = np.where(np.arange(QUESTIONS) % 5 == 3, -np.inf, values)
                self.add_items(about, 0, subset, "infini_gram_log_probability_zero", zero)
                used = rng.choice([1, 2, 3, 4, 5], size=QUESTIONS * tokens, p=[0.1, 0.4, 0.3, 0.15, 0.05])
                answer = {
                    "item": np.repeat(np.arange(QUESTIONS), tokens),
                    "token": np.tile(np.arange(tokens), QUESTIONS),
                }
                self.add_items(about, 0, subset, "suffix_length", used, **answer)
                for length, share in pd.Series(used).value_counts(normalize=True).sort_index().items():
                    self.add(about, 0, subset, "suffix_length_share", share, used.size, suffix_length=int(length))

    def toy(self):
        on = self.effects
        for setting in SETTINGS:
            counts = TOY_COUNTS["uniform" if "uniform" in setting else "skewed"]
            axes = 3 if setting == "wide" else 2
            for seed in range(on["toy_seeds"]):
                about = self.about(
                    "toy", f"toy-{setting}-s{seed}", seed, items=sum(counts), setting=setting, data="toy", model="toy"
                )
                rng = np.random.default_rng([SETTINGS.index(setting), seed])
                # evenly spread over the seeds, so that the share of seeds is exact
                collapses = setting != "uniform" and (seed + 0.5) / on["toy_seeds"] < on["toy_warmup"]
                expands = (seed + 0.5) / on["toy_seeds"] < on["toy_expansion"]
                share = on["toy_third"] if setting == "main" else on["control_third"]
                falls = (seed + 0.5) / on["toy_seeds"] < share
                low = 1.15 if collapses else 1.6
                high = axes - 0.05 if expands else low
                knots = [(0, 1.6), (50, low), (200, high), (800, high * (0.8 if falls else 1.0))]
                for step in TOY_STEPS:
                    rank = along(step, knots) * np.exp(0.0005 * rng.standard_normal())
                    first = along(step, [(0, 0.3), (800, 9)])
                    loss, second = along(step, [(0, 1.4), (800, 0.01)]), first * (0.3 + 0.4 * (rank - 1))
                    values = {"rank_me": rank, "rank_me_means": 0.98 * rank, "loss": loss}
                    values |= {"sigma_1": first, "sigma_2": second}
                    for metric, value in values.items():
                        self.add(about, step, "train", metric, value, sum(counts), "train", **{"class": -1})
                    if seed == 0:
                        self.toy_points(about, step, counts, axes, first)
                frequent = (seed + 0.5) / on["toy_seeds"] < on["toy_frequent"]
                for place, count in enumerate(counts):
                    rare = setting == "mse_skewed" and frequent and place >= axes
                    self.add(about, TOY_STEPS[-1], "train", "class_output", 0.1 if rare else 0.95, count, "train",
                             **{"class": place})  # fmt: skip

    def toy_points(self, about, step, counts, axes, scale):
        """Coordinates of features and classifier rows; class c points into direction c."""
        turn = 2 * np.pi * np.arange(len(counts)) / len(counts)
        directions = np.stack([np.cos(turn), np.sin(turn), np.sin(2 * turn)][:axes], axis=1)
        for metric, classes in (
            ("feature", np.repeat(np.arange(len(counts)), counts)),
            ("classifier", np.arange(len(counts))),
        ):
            points = scale * directions[classes]
            where = {"item": np.repeat(np.arange(len(classes)), axes), "axis": np.tile(np.arange(axes), len(classes))}
            more = {"class": np.repeat(classes, axes), "split": "train", "illustration": "nearest_median"}
            self.add_items(about, step, "train", metric, points.ravel(), **where, **more)

    def tables(self):
        """(metrics, items). Columns are put together at once: thousands of small frames would take seconds."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        metrics = pd.DataFrame({name: [row.get(name, np.nan) for row in self.rows] for name in names})
        sizes = np.array([len(part["value"]) for part in self.long])
        items = {}
        for name in (*ITEM_COLUMNS, "token", "axis", "class"):
            given = [part.get(name, np.nan) for part in self.long]
            if any(isinstance(value, np.ndarray) for value in given):
                items[name] = np.concatenate([np.broadcast_to(v, n) for v, n in zip(given, sizes, strict=True)])
            else:
                items[name] = np.repeat(np.array(given), sizes)
        for name in ("experiment", "setting", "illustration"):
            items[name] = np.repeat(np.array([part.get(name, "") for part in self.long]), sizes)
        return metrics, pd.DataFrame(items).astype({"value": "float32"})


def _factor(ends):
    """Multiple of the starting RankMe after `step` steps of a stage."""

    def factor(stage, step):
        return 1 + (ends[stage] - 1) * min(1.0, step / POST_STEPS[-1])

    return factor


@cache
def fake(
    seeds: int = 3,
    third: bool = True,
    warmup: float = 3.0,
    expansion: float = 4.0,
    rho_saturates: bool = True,
    rho_rises: bool = True,
    late_recall: bool = True,
    choice_rises: bool = True,
    drop: float = 1.0,
    keep: float = 0.1,
    text_probe: tuple[float, float, float] = (1.2, 1.3, 0.9),
    task_probe: tuple[float, float, float] = (0.95, 0.9, 0.9),
    tradeoff: bool = True,
    ood_uptick: float = 1.0,
    toy_seeds: int = 20,
    toy_warmup: float = 1.0,
    toy_expansion: float = 1.0,
    toy_third: float = 0.2,
    control_third: float = 0.0,
    toy_frequent: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(metrics, items) of all experiments; cached, so do not change the frames in place.

    third: RankMe falls again after the peak (off: it goes on rising; the variant `repeated` falls all the same).
    warmup, expansion: factors start / trough and peak / trough of RankMe. rho_rises, rho_saturates: of infini-gram.
    late_recall: recall comes after the peak. choice_rises: choice accuracy of continuations rises after the trough.
    drop, keep: share of the accuracy above chance that is left without, and with nothing but, the top components.
    text_probe, task_probe: factor of RankMe over SFT, DPO and GRPO. tradeoff: GRPO gains at k = 1 and loses at 64.
    ood_uptick: loss of the last base above the best earlier one (nats; negative: below). toy_*, control_third: shares
    of toy seeds with a phase; toy_frequent: of those that learn the frequent classes only (squared error, skewed).
    """
    rho = [(0, 0.0), (8, 0.0), (TROUGH, 0.1), (512, 0.6), (LAST, 0.6 if rho_saturates else 0.9)]
    effects = {
        "seeds": seeds, "third": third, "warmup": warmup, "expansion": expansion,
        "rho": rho if rho_rises else [(0, 0.2), (LAST, 0.2)],
        "recall_at_peak": 0.05 if late_recall else 0.45, "choice_at_peak": 0.6 if choice_rises else 0.3,
        "choice_at_end": 0.75 if choice_rises else 0.3, "drop": drop, "keep": keep,
        "text_factor": _factor(dict(zip(STAGES, text_probe, strict=True))),
        "task_factor": _factor(dict(zip(STAGES, task_probe, strict=True))),
        "pass_ends": {"base": (0.1, 0.7), "sft": (0.5, 0.95), "dpo": (0.55, 0.95),
                      "grpo": (0.75, 0.88) if tradeoff else (0.55, 0.95)},
        "ood_uptick": ood_uptick, "toy_seeds": toy_seeds, "toy_warmup": toy_warmup, "toy_expansion": toy_expansion,
        "toy_third": toy_third, "control_third": control_third, "toy_frequent": toy_frequent,
    }  # fmt: skip
    lab = Lab(effects)
    for model in ("M", "L"):
        lab.pretrain("main", model)
    for model in ("XS", "S"):
        lab.pretrain("small", model, families=False)
    for variant in VARIANTS:
        lab.pretrain("third_phase", "M", variant, families=False)
    for base in BASES:
        for form in ("short", "long"):
            lab.post("sft", "sft", base, form, "base")
    for stage, start in zip(STAGES, ("base", "sft", "dpo"), strict=True):
        lab.post("chain", stage, LAST, "short", start)
    lab.ngrams()
    lab.toy()
    return lab.tables()


def runs_of(metrics: pd.DataFrame) -> dict[str, list[str]]:
    """Experiment -> names of its runs, as a ledger takes them."""
    return {str(name): sorted(own["run"].unique()) for name, own in metrics.groupby("experiment")}
