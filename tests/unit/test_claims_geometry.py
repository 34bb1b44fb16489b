"""Statistics of `geometry` against hand values; every claim on fake runs of a world where it holds, and where not."""

import inspect
from pathlib import Path

import fake_geometry
import numpy as np
import pandas as pd
import pytest

from memorization.claims import geometry as measure
from memorization.claims import ledger
from memorization.claims.statistics import MissingData, assess_level
from memorization.errors import UserError

CLAIMS = Path(__file__).parents[2] / "config" / "claims" / "geometry.yaml"
EXPERIMENTS = {"main", "small", "third_phase", "sft", "chain", "ngrams", "toy"}
FIGURES = {
    *(f"fig{number}" for number in ("2", "3", "4", "5", "7", "8", "9_10", "11", "12", "13", "14")),
    *("tab7", "tab8", "tab9", "x_third_phase", "x_choices"),
}
TOKENS = (0, 100, 1000, 10_000)  # of the curves below


# ---- made-up runs


def rows(metric, values, subset="text", model="M", seed=0, n=10, steps=TOKENS, **more):
    """A row a step, one token a step; pre-training of the base unless it is said otherwise."""
    fixed = {"run": f"{model}-s{seed}", "stage": "pretraining", "variant": "base", "split": "validation", "width": 32}
    fixed |= {"base_tokens": 0, "tokens_per_step": 1, "base_step": 0, "format": "", "start": "", "experiment": "main"}
    fixed |= {"model": model, "seed": seed, "subset": subset, "metric": metric, "n": n, **more}
    return pd.DataFrame({"step": list(steps)[: len(values)], "value": np.array(values, float)}).assign(**fixed)


def shape(rank, model="M", seed=0, metric="rank_me", **more):
    return rows(metric, rank, model=model, seed=seed, choice="default", token="last", **more)


def resamples(rank, model="M", seed=0, noise=0.01, count=12, steps=TOKENS):
    """Bootstrap of a curve: half of the resamples lie above, half below it, at every checkpoint."""
    parts = []
    for draw in range(count):
        factor = np.exp(noise * (-1) ** (draw + np.arange(len(rank)) * (draw % 3)))
        parts.append(pd.DataFrame({"step": steps[: len(rank)], "value": np.array(rank) * factor, "item": draw}))
    fixed = {"run": f"{model}-s{seed}", "seed": seed, "subset": "text", "split": "validation"}
    return pd.concat(parts).assign(**fixed, metric="rank_me_resample")


def curve(rank, model="M", seed=0, **more):
    """[metrics], [items] of one curve of RankMe."""
    return [shape(rank, model, seed, **more)], [resamples(rank, model, seed)]


def tables(*parts):
    """(metrics, items); every row comes twice, as those of a run that serves two experiments, in any order."""
    both = [pd.concat([frame for part in parts for frame in part[side]] or [pd.DataFrame()]) for side in (0, 1)]
    return tuple(pd.concat([t, t]).sample(frac=1, random_state=0).reset_index(drop=True) for t in both)


FALL_RISE_FALL = (8.0, 2.0, 6.0, 3.0)


# ---- phases


@pytest.mark.parametrize(("phase", "factor"), [("warmup", 1 / 4), ("expansion", 3), ("compression", 1 / 2)])
def test_factors_of_the_phases(phase, factor):
    found = measure.phase_factor(*tables(curve(FALL_RISE_FALL)), phase)
    assert found.per_seed == {0: pytest.approx(factor, rel=1e-3)} and found.n == 10
    assert "warmup in 1, expansion in 1, compression in 1 of 1 training runs" in found.note


def test_models_are_averaged_in_each_seed_and_variants_left_out():
    other = curve((8.0, 4.0, 8.0, 8.0), model="L")
    variant = curve((9.0, 1.0, 9.0, 1.0), model="XL", variant="long")
    given = tables(curve(FALL_RISE_FALL), other, variant, curve(FALL_RISE_FALL, seed=1))
    found = measure.phase_factor(*given, "warmup")
    assert found.per_seed == {0: pytest.approx(np.sqrt(1 / 4 * 1 / 2), rel=1e-3), 1: pytest.approx(1 / 4, rel=1e-3)}
    assert found.n == 30 and "L 0.5, M 0.25" in found.note


def test_a_curve_that_still_rises_speaks_against_compression():
    found = measure.phase_factor(*tables(curve((8.0, 2.0, 6.0, 7.5))), "compression")
    assert found.per_seed == {0: pytest.approx(1.25)} and "compression in 0 of 1" in found.note


def test_phases_need_resamples():
    metrics, items = tables(curve(FALL_RISE_FALL))
    for other in (items.assign(metric="alpha_resample"), items.iloc[:0], pd.DataFrame()):
        with pytest.raises(MissingData, match="rank_me_resample"):
            measure.phase_factor(metrics, other, "warmup")
    with pytest.raises(UserError, match="no phase 'warm'; write 'warmup'"):
        measure.phase_factor(metrics, items, "warm")


# ---- abilities by phase


def able(values, metric="recall", subset="facts", **more):
    return [rows(metric, values, subset, **more)], []


@pytest.mark.parametrize(
    ("phase", "minus", "value"),
    [
        ("warmup", (), 0.1),
        ("expansion", (), 0.25),
        ("compression", (), 0.4),
        ("compression", ("expansion",), 0.4 - 0.25),
        ("expansion", ("warmup", "compression"), 0.25 - 0.1 - 0.4),
    ],
)
def test_rise_in_a_phase(phase, minus, value):
    given = tables(curve(FALL_RISE_FALL), able([0.0, 0.1, 0.35, 0.75], n=40), able([0.9] * 4, subset="continuations"))
    found = measure.rise(*given, "recall", "facts", phase, minus)
    assert found.per_seed == {0: pytest.approx(value)} and found.n == 40
    assert "warmup 0.1, expansion 0.25, compression 0.4" in found.note


def test_the_nearest_measurement_counts_and_interventions_do_not():
    """Trough at 100 tokens, peak at 1000: 200 and 900 are the nearest on a log scale."""
    steps = (0, 200, 900, 10_000)
    plain = rows("choice_accuracy", [0.2, 0.3, 0.6, 0.7], "continuations", steps=steps, intervention="none")
    changed = rows("choice_accuracy", [0.0], "continuations", steps=(10_000,), intervention="keep_top", components=2)
    given = tables(curve(FALL_RISE_FALL), ([plain, changed], []))
    found = measure.rise(*given, "choice_accuracy", "continuations", "compression", ["expansion"])
    assert found.per_seed == {0: pytest.approx(0.1 - 0.3)}


def test_without_a_third_phase_nothing_can_happen_in_it():
    rising = curve((8.0, 2.0, 6.0, 7.0), seed=1)
    recall = able([0.0, 0.0, 0.1, 0.5]), able([0.0, 0.0, 0.3, 0.4], seed=1)
    only = tables(rising, *recall)
    with pytest.raises(MissingData, match="No third phase: RankMe falls after its peak in none of the 1 training"):
        measure.rise(*only, "recall", "facts", "compression")
    assert measure.rise(*only, "recall", "facts", "expansion").per_seed == {1: pytest.approx(0.4)}
    both = tables(curve(FALL_RISE_FALL), rising, *recall)
    found = measure.rise(*both, "recall", "facts", "compression")
    assert found.per_seed == {0: pytest.approx(0.4)} and "compression in 1 of 2" in found.note


def test_a_flat_curve_has_no_trough_and_no_peak():
    given = tables(curve((5.0, 5.01, 4.99, 5.0)), able([0.0, 0.1, 0.2, 0.3]))
    with pytest.raises(MissingData, match="No expansion of RankMe was observed in any of 1"):
        measure.rise(*given, "recall", "facts", "expansion")


# ---- the correlation with infini-gram


def answers(values, seed=0, model="M", subset="facts"):
    """Likelihoods of each question at each of TOKENS."""
    frames = [
        pd.DataFrame({"step": step, "value": v, "item": np.arange(len(v))})
        for step, v in zip(TOKENS, values, strict=True)
    ]
    fixed = {"run": f"{model}-s{seed}", "seed": seed, "subset": subset, "metric": "answer_log_likelihood"}
    return [], [pd.concat(frames).assign(**fixed, split="validation")]


def counted(values, seed=0, subset="facts", metric="infini_gram_log_probability"):
    frame = pd.DataFrame({"item": np.arange(len(values)), "value": values, "step": 0})
    return [], [frame.assign(run=f"ngrams-s{seed}", seed=seed, subset=subset, split="validation", metric=metric)]


UP, DOWN, HALF = [-5.0, -4.0, -3.0, -9.0], [-3.0, -4.0, -5.0, -9.0], [-5.0, -3.0, -4.0, -9.0]  # rho 1, -1, 1/2
REFERENCE = counted([-7.0, -6.0, -2.0, np.nan])  # the last question is left out


def test_rise_of_the_correlation():
    zero = counted([-np.inf] * 4, metric="infini_gram_log_probability_zero")
    given = tables(curve(FALL_RISE_FALL), answers([DOWN, HALF, UP, UP]), REFERENCE, zero, counted([-1.0] * 4, seed=1))
    found = measure.rise(*given, "rho", "facts", "expansion", ["warmup", "compression"])
    assert found.per_seed == {0: pytest.approx(0.5 - 1.5 - 0.0)} and found.n == 3
    with pytest.raises(MissingData, match="likelihoods of answers to continuations"):
        measure.rise(*given, "rho", "continuations", "expansion")
    with pytest.raises(MissingData, match="No n-gram counts"):
        measure.rise(*tables(curve(FALL_RISE_FALL), answers([UP] * 4)), "rho", "facts", "expansion")


def test_rise_after_saturation():
    """rho is -1, .5, 1, 1: three quarters of its rise are done at 100 tokens, all of it at 1000."""
    given = tables(curve(FALL_RISE_FALL), answers([DOWN, HALF, UP, UP]), REFERENCE, able([0.0, 0.1, 0.3, 0.9], n=4))
    found = measure.rise_after_saturation(*given, "recall", "facts")
    assert found.per_seed == {0: pytest.approx(0.6 - 0.3)} and "after 10% of training" in found.note
    early = measure.rise_after_saturation(*given, "recall", "facts", share=0.75)
    assert early.per_seed == {0: pytest.approx(0.8 - 0.1)}
    never = tables(curve(FALL_RISE_FALL), answers([UP, HALF, DOWN, DOWN]), REFERENCE, able([0.0, 0.1, 0.3, 0.9]))
    with pytest.raises(MissingData, match="rises in no run"):
        measure.rise_after_saturation(*never, "recall", "facts")


def test_weaker_correlation_with_the_geometry():
    """From the trough on alpha goes with accuracy but for one pair (.8), and RankMe a little (.2)."""
    steps, rank = (0, 100, 1000, 2000, 5000), [8.0, 2.0, 6.0, 5.0, 4.0]
    accuracy = rows("choice_accuracy", [0.9, 0.2, 0.3, 0.4, 0.5], "continuations", steps=steps)
    alpha = shape([9, 1, 2, 4, 3], metric="alpha", steps=steps)
    given = tables(([shape(rank, steps=steps), alpha, accuracy], [resamples(rank, steps=steps)]))
    found = measure.least_correlation(*given, "continuations")
    assert found.per_seed == {0: pytest.approx(-0.2)} and "alpha 0.80, with RankMe 0.20" in found.note
    # RankMe against accuracy: without the first checkpoint only three are left
    early = tables(([shape(rank[:4]), alpha, accuracy], [resamples(rank[:4])]))
    with pytest.raises(MissingData, match="4 checkpoints from the trough on"):
        measure.least_correlation(*early, "continuations")


# ---- spectral interventions


def test_intervention_on_the_fewest_components():
    last = {"steps": (10_000,), "metric": "choice_accuracy", "subset": "continuations"}
    parts = []
    for model, intact in (("M", 0.8), ("L", 0.6)):
        for way, k, value in (("none", 0, intact), ("drop_top", 2, 0.7), ("drop_top", 8, 0.1), ("keep_top", 2, 0.3)):
            parts.append(rows(values=[value], model=model, intervention=way, components=k, **last))
        parts.append(rows(values=[0.1], model=model, **last))
    given = tables((parts, []))
    found = measure.intervention_change(*given, "drop_top", "continuations")
    assert found.per_seed == {0: pytest.approx((-0.1 + 0.1) / 2)} and "L 2, M 2" in found.note
    assert measure.intervention_change(*given, "keep_top", "continuations").per_seed == {0: pytest.approx(-0.4)}
    with pytest.raises(MissingData, match="No run measured choice_accuracy"):
        measure.intervention_change(*given, "drop_top", "facts")
    with pytest.raises(UserError, match="no intervention 'drop'; write 'drop_top'"):
        measure.intervention_change(*given, "drop", "continuations")


# ---- post-training


def stage(name, text, task=None, seed=0, **more):
    """RankMe over a stage of post-training; a text probe and one of the task."""
    more = {"model": "L", "seed": seed, "run": f"{name}-s{seed}", "stage": name, **more}
    task = task or text
    of_task = {"choice": "data", "token": "answer"}
    parts = [shape(text, **more), rows("rank_me", task, "short", **of_task, **more)]
    return [*parts, rows("rank_me", [1, 99], "long", **of_task, **more)], []


def test_factor_of_a_stage():
    given = tables(stage("sft", [10, 30, 20], [10, 8]), stage("dpo", [20, 10]), stage("sft", [10, 40], seed=1))
    assert measure.stage_factor(*given, "sft").per_seed == {0: pytest.approx(2), 1: pytest.approx(4)}
    assert measure.stage_factor(*given, "sft", "task").per_seed == {0: pytest.approx(0.8), 1: pytest.approx(4)}
    assert measure.stage_factor(*given, "dpo").per_seed == {0: pytest.approx(0.5)}
    with pytest.raises(MissingData, match="stage grpo"):
        measure.stage_factor(*given, "grpo")
    with pytest.raises(MissingData, match="only once during dpo"):
        measure.stage_factor(*tables(stage("dpo", [20])), "dpo")


def test_checkpoints_of_a_stage_may_be_runs_of_their_own():
    parts = [
        shape([value], model="L", run=f"dpo-{at}", stage="dpo", base_tokens=at, steps=(0,))
        for at, value in ((30, 16), (10, 10), (20, 99))
    ]
    assert measure.stage_factor(*tables((parts, [])), "dpo").per_seed == {0: pytest.approx(1.6)}


def test_all_three_signs_of_post_training():
    right = stage("sft", [1, 2], [1, 1.5]), stage("dpo", [1, 1.25]), stage("grpo", [1, 0.5])
    found = measure.least_stage_factor(*tables(*right))
    assert found.per_seed == {0: pytest.approx(1.25)} and "sft 1.5, dpo 1.25, grpo 0.5" in found.note
    assert measure.least_stage_factor(*tables(*right[:2], stage("grpo", [1, 2]))).per_seed == {0: pytest.approx(0.5)}
    assert measure.least_stage_factor(*tables(*right), probe="text").per_seed == {0: pytest.approx(1.25)}


def test_pass_at_the_smallest_and_the_largest_k():
    parts = []
    for name, table in (("dpo", {1: [0.9, 0.5], 16: [0.9, 0.95]}), ("grpo", {1: [0.5, 0.7], 16: [0.95, 0.85]})):
        for k, values in table.items():
            parts.append(rows("pass_at_k", values, "short", "L", run=f"{name}-s0", stage=name, k=float(k)))
    given = tables((parts, []))
    assert measure.pass_difference(*given, "smallest").per_seed == {0: pytest.approx(0.7 - 0.5)}
    largest = measure.pass_difference(*given, "largest")
    assert largest.per_seed == {0: pytest.approx(0.85 - 0.95)} and "pass@16: dpo 0.95, grpo 0.85" in largest.note
    with pytest.raises(MissingData, match="pass@k after both"):
        measure.pass_difference(*tables((parts[:2], [])), "smallest")


def tuned(losses, seed=0, subset="long", form="short"):
    """Final losses after fine-tuning from bases of 100, 200, ... steps."""
    parts = []
    for place, loss in enumerate(losses):
        base = 100 * (place + 1)
        about = {"stage": "sft", "format": form, "base_step": base, "base_tokens": 7 * base}
        name = f"{form}-{base}-s{seed}"
        parts.append(rows("reply_loss", [50.0, loss], subset, "L", seed, run=name, **about))
    return parts, []


def test_the_best_earlier_base_is_that_of_the_other_seeds():
    given = tables(
        tuned([5, 3, 4.5]), tuned([2, 4, 4.0], seed=1), tuned([3, 2.5, 2.0], seed=2), tuned([0, 9], form="long")
    )
    found = measure.last_base(*given, "short", "long")
    # best of the earlier two by the others' means: seeds 1, 2: 2.5 < 3.25; seeds 0, 2: 2.75 < 4; seeds 0, 1: equal
    assert found.per_seed == {0: pytest.approx(4.5 - 5), 1: pytest.approx(4.0 - 4), 2: pytest.approx(2.0 - 3)}
    assert "step 100 3.33, step 200 3.17, step 300 3.5" in found.note
    assert measure.last_base(*tables(tuned([5, 3, 4.5])), "short", "long").per_seed == {0: pytest.approx(1.5)}
    with pytest.raises(MissingData, match="two or more checkpoints of a base"):
        measure.last_base(*tables(tuned([5])), "short", "long")


def test_a_seed_without_all_bases_is_left_out():
    found = measure.last_base(*tables(tuned([5, 3, 4.5]), tuned([5, 3], seed=1)), "short", "long")
    assert found.per_seed == {0: pytest.approx(1.5)}


# ---- the toy model


def toy(curves, setting="main", metric="rank_me"):
    parts = [
        pd.DataFrame({"step": range(len(v)), "value": np.array(v, float), "seed": seed})
        for seed, v in enumerate(curves)
    ]
    return [pd.concat(parts).assign(setting=setting, metric=metric, run="toy", stage="", n=4)], []


def test_phases_of_the_toy_model():
    curves = [[1.5, 1.1, 1.9, 1.9], [1.5, 1.1, 1.9, 1.5], [1.1, 1.5, 1.9, 1.89], [1.5, 1.4, 1.2, 1.1]]
    given = tables(toy(curves), toy([[1.5, 1.1, 1.9, 1.0], *[[1.0, 1.1, 1.2, 1.3]] * 3], "wide"))
    for phase, seeds in (("warmup", [1, 1, 0, 1]), ("expansion", [1, 1, 1, 0]), ("compression", [0, 1, 0, 0])):
        found = measure.toy_phase(*given, phase, ["main"], minimum=0.02)
        assert list(found.per_seed.values()) == seeds and found.n == 4, phase
    either = measure.toy_phase(*given, "compression", ["main", "wide"], minimum=0.02)
    assert list(either.per_seed.values()) == [1, 1, 0, 0] and "main 0.25, wide 0.25" in either.note
    assert sum(measure.toy_phase(*given, "compression", ["main"], minimum=0.3).per_seed.values()) == 0
    with pytest.raises(MissingData, match="no rank_me of the setting uniform"):
        measure.toy_phase(*given, "warmup", ["uniform"], minimum=0.02)


def test_seeds_of_the_toy_model_that_all_agree_have_an_exact_interval():
    evidence = measure.toy_phase(*tables(toy([[1.5, 1.1, 1.9, 1.9]] * 100)), "warmup", ["main"], minimum=0.02)
    result = assess_level(evidence, "greater", 0.9)
    assert result.basis == "exact binomial over items" and result.ci_low == pytest.approx(0.025 ** (1 / 100))
    assert result.p == pytest.approx(0.9**100)


def test_only_the_frequent_classes_are_learned():
    parts = []
    for seed, outputs in enumerate(([0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.9, 0.9, 0.9, 0.0])):
        for place, count in enumerate((8, 4, 2, 1)):
            parts.append({"class": place, "n": count, "value": outputs[place], "seed": seed})
    last = pd.DataFrame(parts).assign(setting="mse_skewed", metric="class_output", step=800)
    given = tables(([last, last.assign(step=400, value=0.0)], []))
    assert measure.toy_frequent(*given, "mse_skewed", 2).per_seed == {0: 1.0, 1: 0.0, 2: 0.0}
    assert measure.toy_frequent(*given, "mse_skewed", 3).per_seed == {0: 0.0, 1: 0.0, 2: 1.0}


# ---- all claims on fake runs


def verdicts(names=None, **effects):
    metrics, items = fake_geometry.fake(**effects)
    claims = [claim for claim in ledger.validate_claims(CLAIMS).claims if names is None or claim.claim in names]
    runs = fake_geometry.runs_of(metrics)
    given = {"scale": "laptop", "bootstrap": 100}
    return ledger.evaluate("geometry", claims, metrics, items, runs, **given).set_index("claim")


@pytest.fixture(scope="module")
def holds():
    return verdicts(toy_seeds=100)


@pytest.fixture(scope="module")
def fails():
    return verdicts(
        third=False, warmup=1.0, expansion=1.5, rho_rises=False, late_recall=False, drop=0.5,
        keep=1.2, text_probe=(0.9, 0.9, 1.1), task_probe=(0.9, 0.9, 1.1), tradeoff=False, ood_uptick=-1.0,
        toy_seeds=100, toy_warmup=0.2, toy_expansion=0.2, toy_third=0.9, control_third=0.5, toy_frequent=0.2,
    )  # fmt: skip


def test_where_the_paper_is_right_its_claims_are_reproduced(holds):
    wrong = holds[holds["verdict"] != "reproduced"]
    # over log-spaced checkpoints accuracy goes up with RankMe, also in a world with three phases
    assert wrong.index.tolist() == ["choice_geometry"], wrong[["measured", "reason"]].to_dict("index")
    assert holds.loc["choice_geometry", "verdict"] == "contradicted"
    assert (holds["n"] > 0).all() and (holds["seeds"] == np.where(holds.index.str.startswith("toy"), 100, 3)).all()


def test_effects_of_the_fake_are_measured_as_made(holds):
    by_hand = {
        "phase_warmup": 1 / 3, "phase_expansion": 4, "phase_compression": 0.6, "choice_expansion": 0.3,
        "choice_compression": 0.15, "recall_compression": 0.4, "tail_dropped": 0, "tail_kept": -0.45, "sft_text": 1.2,
        "dpo_text": 1.3, "grpo_text": 0.9, "small_k": 0.2, "large_k": -0.07, "loss_in": -0.5, "loss_out": 1.0,
        "toy_warmup": 1, "toy_expansion": 1, "toy_compression": 0.2, "toy_controls": 0, "toy_frequent": 1,
    }  # fmt: skip
    assert holds["measured"].reindex(list(by_hand)).to_dict() == {
        name: pytest.approx(value, rel=0.02, abs=0.02) for name, value in by_hand.items()
    }


def test_where_it_is_wrong_they_are_not(fails):
    # the first two are left as they are, and without a rise there is no fall after it
    kept = ["choice_expansion", "loss_in", "toy_compression"]
    assert fails.index[fails["verdict"] == "reproduced"].tolist() == kept
    against = ["phase_warmup", "phase_expansion", "phase_compression", "tail_dropped", "tail_kept", "sft_text",
               "dpo_text", "grpo_text", "stages_task", "loss_out", "toy_warmup", "toy_frequent"]  # fmt: skip
    assert set(fails.loc[against, "verdict"]) == {"contradicted"}, fails.loc[against, "reason"].to_dict()
    third = fails.loc[["choice_compression", "recall_compression"]]
    assert (third["verdict"] == "not tested").all() and third["reason"].str.startswith("No ").all()


def test_a_toy_model_that_falls_again_in_most_seeds_contradicts():
    found = verdicts(["toy_compression", "toy_controls"], seeds=1, toy_seeds=40, toy_third=0.9, control_third=0.5)
    assert found["measured"].tolist() == [0.9, 0.5] and (found["verdict"] == "contradicted").all()


def test_the_third_phase_alone_decides_about_what_happens_in_it():
    found = verdicts(
        ["phase_compression", "choice_compression", "recall_compression", "recall_saturation"], third=False
    )
    assert found["verdict"].tolist() == ["contradicted", "not tested", "not tested", "reproduced"]
    assert found["reason"].str.startswith("No third phase").tolist() == [False, True, True, False]


def test_one_seed_is_shown_but_not_tested():
    found = verdicts(seeds=1, toy_seeds=2)
    assert (found["verdict"] == "not tested").all() and found["measured"].notna().all()


def test_nothing_measured_is_missing_data_for_every_claim():
    metrics, items = fake_geometry.fake(seeds=1, toy_seeds=2)
    for claim in ledger.validate_claims(CLAIMS).claims:
        for given in ((metrics.iloc[:0], items.iloc[:0]), (metrics[["run", "metric", "seed", "value"]].iloc[:0], items),
                      (metrics[metrics["metric"] == "learning_rate"], items)):  # fmt: skip
            with pytest.raises(MissingData):
                ledger.resolve(claim)(*given, **claim.args)


# ---- the file


def test_every_statistic_is_claimed_and_every_name_is_known():
    public = {
        name
        for name, f in inspect.getmembers(measure, inspect.isfunction)
        if f.__module__ == measure.__name__ and not name.startswith("_")
    }
    claims = ledger.validate_claims(CLAIMS).claims
    assert public == {claim.statistic.split(":")[1] for claim in claims}
    for claim in claims:
        assert set(claim.experiments) <= EXPERIMENTS, claim.claim
        assert {table.removeprefix("geometry_") for table in claim.tables} <= FIGURES, claim.claim
        assert all(table.startswith("geometry_") for table in claim.tables)
        assert len(claim.label()) < 170 and claim.statement.endswith((".", ")."))
    calls = [claim.label() for claim in claims]
    assert len(set(calls)) == len(calls) == 24


def test_claims_load_the_items_that_they_read():
    """On items of those metrics only, as the ledger's job loads them, the numbers are the same."""
    metrics, items = fake_geometry.fake(seeds=1, toy_seeds=2)
    for claim in ledger.validate_claims(CLAIMS).claims:
        if claim.experiments[0] == "main":
            some = items[items["metric"].isin(claim.args.get("reads", []))]
            assert ledger.resolve(claim)(metrics, some, **claim.args).n > 0


def test_published_values_are_those_of_the_paper():
    intact, without = (0.838, 0.866, 0.884, 0.896, 0.953, 0.970), (0.835, 0.859, 0.873, 0.906, 0.954, 0.970)
    dropped, top = np.subtract(without, intact), (0.318, 0.324, 0.317, 0.327, 0.326, 0.308)
    alpha, rank = (0.810, 0.668, 0.694, 0.837, 0.836, 0.540), (0.759, 0.713, 0.635, 0.885, 0.839, 0.616)
    by_hand = {
        "phase_warmup": 75 / 170, "phase_expansion": 1040 / 75, "phase_compression": 430 / 1040,
        "infini_gram": 0.335 - (0.245 + 0.25) / 2, "recall_compression": np.mean([0.06, 0.1, 0.1, 0.22, 0.27]),
        "choice_geometry": min(np.mean(alpha), np.mean(rank)), "tail_dropped": np.mean(dropped),
        "tail_kept": np.mean(np.subtract(top, intact)), "sft_text": 930 / 670, "dpo_text": 1190 / 930,
        "grpo_text": 1100 / 1190, "small_k": 0.69 - 0.66, "large_k": 0.887 - 0.928, "loss_out": 131 - 130.2,
    }  # fmt: skip
    claims = {claim.claim: claim for claim in ledger.validate_claims(CLAIMS).claims}
    assert {name: claim.published for name, claim in claims.items() if claim.published is not None} == {
        name: pytest.approx(value, rel=3e-3, abs=1e-5) for name, value in by_hand.items()
    }
    assert all(claim.published_note for claim in claims.values() if claim.published is not None)
    # the margin is what `why` says it is
    assert claims["tail_dropped"].margin > 2 * abs(dropped).max() and claims["phase_warmup"].threshold == pytest.approx(
        1 / 1.1, abs=1e-3
    )
