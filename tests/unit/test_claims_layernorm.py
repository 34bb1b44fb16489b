"""Statistics of `layernorm` against hand values; every claim on fake runs of a world where it holds, and where not."""

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from memorization.claims import layernorm as measure
from memorization.claims import ledger
from memorization.claims.statistics import MissingData
from memorization.errors import UserError

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "config" / "claims" / "layernorm.yaml"
EPOCHS = (0, 8, 12, 16, 24, 28)
BUDGET = {"pre": 28, "post": 16}
FIGURES = {
    *(f"fig{name}" for name in ("1", "2", "3", "4", "6_11", "12_16", "17_22", "23_27", "28_33", "34", "35")),
    *("tab1", "tab4", "tab5", "tab6", "x_budget", "x_readings", "x_scratch", "x_norms"),
}


# ---- made-up runs


def run_rows(model, arm, seed, values, position="post", data="packages", grid=None, answers=None, experiment="main"):
    """Rows of one run: {"train": [...], "test": [...], "memorization": [...], ...}, a value an evaluation."""
    run = f"{model}-{experiment}-{arm}-s{seed}"
    grid = list(grid or EPOCHS)[: len(next(iter(values.values())))]
    fixed = {"run": run, "seed": seed, "model": model, "data": data, "position": position, "arm": arm}
    fixed |= {"budget": BUDGET[position], "stage": "fine_tuning", "experiment": experiment}
    where = {"train": ("accuracy", "train", "all", 600), "test": ("accuracy", "validation", "all", 500)}
    known = [where.get(name, (name, "train", "noisy", 12)) for name in values]
    rows = np.repeat(np.arange(len(known)), len(grid))
    columns = {
        name: np.array([row[k] for row in known])[rows] for k, name in enumerate(("metric", "split", "subset", "n"))
    }
    columns |= {"epoch": np.tile(grid, len(known)), "value": np.concatenate([np.asarray(v) for v in values.values()])}
    metrics = pd.DataFrame({**columns, "step": np.tile(grid, len(known)) * 19, **fixed})
    items = pd.DataFrame(columns=["run", "seed", "data", "subset", "split", "item", "metric", "step", "value"])
    if answers is not None:  # (noisy items, evaluations) "m", "r" or "x"
        code = {"m": 2.0, "r": 5.0, "x": 0.0}
        predicted = np.array([[code[a] for a in row] for row in answers]).T
        many, steps = len(answers), [0, 0, *(np.array(grid) * 19)]
        long = {
            "item": np.tile(np.arange(many) * 3, len(steps)),
            "step": np.repeat(steps, many),
            "metric": np.repeat(["label", "true_label", *["prediction"] * len(grid)], many),
            "value": np.concatenate([np.full(many, 2.0), np.full(many, 5.0), predicted.ravel()]),
        }
        key = {"run": run, "seed": seed, "data": data, "subset": "noisy", "split": "train"}
        items = pd.DataFrame({**long, **key})
    return metrics, items


def tables(*runs):
    """(metrics, items); every row comes twice, as those of a run that serves two experiments."""
    metrics, items = (pd.concat(frames, ignore_index=True) for frames in zip(*runs, strict=True))
    return tuple(pd.concat([t, t]).sample(frac=1, random_state=0) for t in (metrics, items))


def pair(seed=0, model="text_post", position="post", intact=None, removed=None, **more):
    none = intact or {"train": [0.2, 0.95, 0.97, 0.99], "test": [0.2, 0.8, 0.9, 0.9]}
    every = removed or {"train": [0.2, 0.5, 0.95, 0.98], "test": [0.2, 0.4, 0.7, 0.85]}
    more = {"grid": (0, 8, 16, 28), **more}
    return [
        run_rows(model, "none", seed, none, position, **more),
        run_rows(model, "all", seed, every, position, **more),
    ]


# ---- contrasts by hand


@pytest.mark.parametrize(
    ("reading", "metric", "value"),
    [
        ("budget", "test_accuracy", 0.7 - 0.9),  # epoch 16 of Post-LN
        ("equal", "test_accuracy", 0.85 - 0.9),  # epoch 28
        ("matched", "test_accuracy", 0.7 - 0.8),  # epochs 16 and 8
        ("equal", "train_accuracy", 0.98 - 0.99),
        ("equal", "gap", (0.98 - 0.85) - (0.99 - 0.9)),
        ("matched", "gap", (0.95 - 0.7) - (0.95 - 0.8)),
    ],
)
def test_the_contrast_depends_on_the_reading(reading, metric, value):
    found = measure.difference(*tables(*pair()), metric, "post", reading)
    assert found.per_seed == {0: pytest.approx(value)} and found.items is None
    assert found.n == (600 if metric == "train_accuracy" else 500) and "Post-LN (text_post)" in found.note
    assert ("read at epoch none 8, all 16" in found.note) == (reading == "matched")


def test_pre_is_trained_to_its_budget():
    both = [
        measure.difference(*tables(*pair(position="pre")), "gap", "pre", how).per_seed for how in ("budget", "equal")
    ]
    assert both[0] == both[1]


def test_level_of_the_matched_reading():
    found = measure.difference(*tables(*pair()), "test_accuracy", "post", "matched", level=0.98)
    assert found.per_seed == {0: pytest.approx(0.85 - 0.9)}
    with pytest.raises(
        MissingData, match="No seed of a Post-LN text model has gap of all of the arms none, all at a tr"
    ):
        measure.difference(*tables(*pair()), "gap", "post", "matched", level=0.985)


def test_seeds_that_never_get_there_are_left_out():
    slow = {"train": [0.2, 0.5, 0.7, 0.9], "test": [0.2, 0.4, 0.7, 0.85]}
    given = tables(*pair(0), *pair(1, removed=slow))
    found = measure.difference(*given, "test_accuracy", "post", "matched")
    assert list(found.per_seed) == [0] and "Left out, because an arm cannot be read: text_post in seed 1." in found.note
    assert list(measure.difference(*given, "test_accuracy", "post", "equal").per_seed) == [0, 1]


def test_reference_of_several_arms_is_their_mean():
    end = {"early": 0.5, "middle": 0.9, "late": 0.8}
    runs = [run_rows("text_post", arm, 0, {"memorization": [0.0, v]}, grid=(0, 16)) for arm, v in end.items()]
    found = measure.difference(*tables(*runs), "memorization", "post", "budget", "early", ["middle", "late"])
    assert found.per_seed == {0: pytest.approx(0.5 - 0.85)} and found.n == 12


def test_models_of_a_position_are_averaged():
    shifted = {"train": [0.2, 0.5, 0.95, 0.98], "test": [0.2, 0.4, 0.7, 0.65]}
    runs = [
        *pair(0, "bert", data="emotions"),
        *pair(0, "electra", data="news", removed=shifted),
        *pair(
            0, "vit", data="cifar10", removed={"train": [0.2], "test": [0.0]}, intact={"train": [0.2], "test": [1.0]}
        ),
        *pair(1, "bert", data="emotions"),  # no electra in this seed
    ]
    given = tables(*runs)
    args = ("test_accuracy", "post", "equal")
    found = measure.difference(*given, *args)
    assert found.per_seed == {0: pytest.approx((-0.05 - 0.25) / 2)} and "bert, electra" in found.note
    assert found.n == 1000 and "bert in seed 1" in found.note
    assert measure.difference(*given, *args, task="vision").per_seed == {0: pytest.approx(-1.0)}
    named = measure.difference(*given, *args, models=["bert", "deberta"])  # those that there are
    assert named.per_seed == {0: pytest.approx(-0.05), 1: pytest.approx(-0.05)}


def test_a_model_that_no_seed_can_read_does_not_cost_the_others():
    never = {"train": [0.2, 0.5, 0.7, 0.9], "test": [0.2, 0.4, 0.7, 0.85]}
    runs = [run for seed in range(2) for run in (*pair(seed), *pair(seed, "electra", data="news", removed=never))]
    found = measure.difference(*tables(*runs), "test_accuracy", "post", "matched")
    assert list(found.per_seed) == [0, 1] and found.per_seed[0] == pytest.approx(-0.1)
    assert "electra in seed 0, electra in seed 1" in found.note


def noisy(arm, answers, position="post", model="text_post", seed=0, **more):
    """A run whose noisy items answered so at each evaluation; its shares are those of the answers."""
    share = {name: [np.mean([row[j] == letter for row in answers]) for j in range(len(answers[0]))]
             for name, letter in (("memorization", "m"), ("recovery", "r"), ("random", "x"))}  # fmt: skip
    more = {"grid": (0, 28), "answers": answers, **more}
    return run_rows(model, arm, seed, {"train": [0.1] * len(answers[0]), **share}, position, **more)


def test_contrast_of_each_noisy_item():
    given = tables(noisy("none", ["xm", "xm", "rm", "xr"]), noisy("all", ["xr", "xm", "xx", "xr"]))
    for metric, by_item in (
        ("memorization", [-1, 0, -1, 0]),
        ("recovery", [1, 0, 0, 0]),
        ("random", [0, 0, 1, 0]),
    ):
        found = measure.difference(*given, metric, "post", "equal")
        assert found.items[0].tolist() == by_item and found.per_seed[0] == pytest.approx(np.mean(by_item))


def test_items_are_left_out_where_they_are_not_the_statistic():
    runs = noisy("none", ["xm", "xm"]), noisy("all", ["xr", "xm"])
    metrics, items = tables(*runs)
    args = ("memorization", "post", "equal")
    assert measure.difference(metrics, items, *args).items[0].tolist() == [-1, 0]
    one_less = items[~((items["item"] == 3) & (items["run"].str.contains("-all-")))]
    for other in (one_less, items.iloc[:0], pd.DataFrame(), items[items["metric"] != "label"]):
        found = measure.difference(metrics, other, *args)
        assert found.items is None and found.per_seed == {0: pytest.approx(-0.5)}
    moved = metrics.assign(value=metrics["value"].where(metrics["metric"] != "memorization", 0.25))
    assert measure.difference(moved, items, *args).items is None


def test_interaction_is_a_difference_of_differences():
    runs = [
        noisy("none", ["xm", "xm", "xm"]),
        noisy("all", ["xr", "xr", "xm"]),
        noisy("none", ["xm", "xm", "xm"], "pre", "text_pre"),
        noisy("all", ["xm", "xr", "xm"], "pre", "text_pre"),
    ]
    found = measure.interaction(*tables(*runs), "memorization", "post", "pre", "equal")
    assert found.per_seed == {0: pytest.approx(-2 / 3 + 1 / 3)}
    assert found.items[0].tolist() == [-1, 0, 0]  # the twins have the same noisy items
    assert "Post-LN (text_post): none 1, all 0.333; Pre-LN (text_pre): none 1, all 0.667" in found.note
    other = tables(*runs[:2], *(noisy(a, ["xm", "xr"], "pre", "gpt_neo", 0, data="emotions") for a in ("none", "all")))
    apart = measure.interaction(*other, "memorization", "post", "pre", "equal")
    assert apart.per_seed == {0: pytest.approx(-2 / 3)} and apart.items is None
    with pytest.raises(MissingData, match="No seed has memorization of both positions"):
        measure.interaction(*tables(*runs[:2], *(noisy(a, ["xm"], "pre", "text_pre", 1) for a in ("none", "all"))),
                            "memorization", "post", "pre", "equal")  # fmt: skip


def test_nothing_to_read_is_a_sentence():
    given = tables(*pair())
    with pytest.raises(MissingData, match="There are no runs of a Pre-LN text model"):
        measure.difference(*given, "gap", "pre", "equal")
    with pytest.raises(MissingData, match="no run of a Post-LN text model with the arm late or early"):
        measure.difference(*given, "gap", "post", "equal", "early", ["late", "none"])
    with pytest.raises(MissingData, match="has recovery of all of the arms none, all at the reading equal"):
        measure.difference(*given, "recovery", "post", "equal")
    for metrics in (given[0], given[0].iloc[:0], pd.DataFrame()):
        with pytest.raises(
            MissingData, match=r"no runs of minilm\. Get them with `snakemake --configfile config/minilm"
        ):
            measure.difference(metrics, given[1], "gap", "post", "equal", models=["minilm"])
    with pytest.raises(MissingData, match="measured gradients"):
        measure.least_gradient_ratio(*given, "post")


def test_wrong_words_say_what_to_write():
    given = tables(*pair())
    for args, more, message in (
        (("test_acuracy", "post", "equal"), {}, "no metric 'test_acuracy'; write 'test_accuracy'"),
        (("gap", "posts", "equal"), {}, "no position 'posts'; write 'post'"),
        (("gap", "post", "equals"), {}, "no reading 'equals'; write 'equal'"),
        (("gap", "post", "equal"), {"task": "texts"}, "no task 'texts'; write 'text'"),
    ):
        with pytest.raises(UserError, match=message):
            measure.difference(*given, *args, **more)
    with pytest.raises(UserError, match="no gradient 'gradient'"):
        measure.first_over_last(*given, "gradient", "post")
    metrics, items = given
    twice = pd.concat([metrics, metrics.assign(run=metrics["run"] + "-n5")])
    with pytest.raises(UserError, match="is not the only run of its seed, model and arm"):
        measure.difference(twice, items, "gap", "post", "equal")


# ---- gradients by hand


def gradient_rows(learn, memorize, position="post", model="text_post", seed=0, step=532, definition="text", **more):
    """Norms by (layer, role): lists of (attention, feed_forward) pairs, one a layer."""
    run = f"{model}-none-s{seed}"
    fixed = {"run": run, "seed": seed, "model": model, "position": position, "arm": "none", "stage": "fine_tuning"}
    rows = [
        {"metric": metric, "layer": layer, "role": role, "value": value, "n": n, "split": split, "subset": "all"}
        for metric, norms, n, split in (
            ("gradient_learning", learn, 256, "validation"), ("gradient_memorization", memorize, 12, "train"))
        for layer, norm in enumerate(norms)
        for role, value in zip(("attention", "feed_forward"), norm, strict=True)
    ]  # fmt: skip
    fixed |= {
        "step": step,
        "epoch": step / 19,
        "definition": definition,
        "data": "packages",
        "budget": BUDGET[position],
    }
    frame = pd.DataFrame(rows).assign(**{**fixed, **more})
    return pd.concat([frame, frame]), pd.DataFrame()


def gradient_tables(*frames):
    return pd.concat([frame for frame, _ in frames], ignore_index=True), pd.DataFrame()


LEARN, MEMORIZE = [(8.0, 6.0), (4.0, 3.0), (1.0, 0.5)], [(1.0, 1.0), (2.0, 1.0), (0.25, 0.25)]  # ratios 8 6 2 3 4 2


def test_gradients_of_the_last_evaluation():
    early = gradient_rows([(1.0, 1.0)] * 3, [(5.0, 5.0)] * 3, step=19)
    coded = gradient_rows([(1.0, 1.0)] * 3, [(4.0, 4.0)] * 3, definition="code")
    given = gradient_tables(early, gradient_rows(LEARN, MEMORIZE), coded)
    found = measure.least_gradient_ratio(*given, "post")
    assert found.per_seed == {0: pytest.approx(2.0)} and found.n == 12
    assert "100% of the norms" in found.note and "median ratio is 3.46" in found.note  # sqrt(3 * 4)
    assert measure.least_gradient_ratio(*given, "post", definition="code").per_seed == {0: pytest.approx(0.25)}


def test_the_least_ratio_is_that_of_all_models():
    other = gradient_rows([(1.0, 8.0)] * 3, [(2.0, 1.0)] * 3, model="digits", data="digits")
    given = gradient_tables(gradient_rows(LEARN, MEMORIZE), other)
    assert measure.least_gradient_ratio(*given, "post").per_seed == {0: pytest.approx(0.5)}
    assert measure.least_gradient_ratio(*given, "post", task="text").per_seed == {0: pytest.approx(2.0)}


def test_factor_between_positions_is_paired_by_seed():
    pre = [gradient_rows([(40.0, 30.0)] * 3, [(1.0, 1.0)] * 3, "pre", "text_pre", seed) for seed in (0, 1)]
    given = gradient_tables(*pre, gradient_rows(LEARN, MEMORIZE))  # seed 1 has no Post-LN
    found = measure.gradient_ratio_factor(*given, "pre", "post")
    expected = np.exp(np.median(np.log([40, 30] * 3)) - np.median(np.log([8, 6, 2, 3, 4, 2])))
    assert found.per_seed == {0: pytest.approx(expected)} and found.n == 36
    assert "Pre-LN 34.6, Post-LN 3.46" in found.note
    back = measure.gradient_ratio_factor(*given, "post", "pre")
    assert back.per_seed[0] == pytest.approx(1 / expected)


def test_first_layer_over_last():
    given = gradient_tables(gradient_rows(LEARN, MEMORIZE))
    found = measure.first_over_last(*given, "gradient_learning", "post")
    assert found.per_seed == {0: pytest.approx(np.sqrt(8 * 6) / np.sqrt(1 * 0.5))}
    assert "learning 9.8, memorization 4" in found.note
    other = measure.first_over_last(*given, "gradient_memorization", "post")
    assert other.per_seed == {0: pytest.approx(4.0)}


def test_vanished_gradients_give_no_number():
    gone = gradient_rows(LEARN, [(0.0, 0.0)] * 3, seed=1)
    found = measure.least_gradient_ratio(*gradient_tables(gradient_rows(LEARN, MEMORIZE), gone), "post")
    assert list(found.per_seed) == [0]
    with pytest.raises(MissingData, match="No seed gives a ratio of gradients"):
        measure.least_gradient_ratio(*gradient_tables(gone), "post")


# ---- all claims on fake runs

PLANNED = {
    "main": [
        (m, a) for m in ("text_pre", "text_post", "digits_pre") for a in ("none", "all", "early", "middle", "late")
    ],
    "scratch": [(m, a) for m in ("text_pre", "text_post") for a in ("none", "all")],
    "checkpoint": [("minilm", a) for a in ("none", "all")],
}


def truth(experiment, model, arm):
    """Where the claims hold: epoch of train accuracy .95, last train and test accuracy, (memorization, recovery) at the
    matched epoch, the Post-LN budget and the end."""
    same = {"reach": 8, "train": 0.99, "test": 0.9, "matched": (0.8, 0.1), "budget": (1.0, 0.0), "end": (1.0, 0.0)}
    if experiment == "scratch" or arm == "none":
        return same
    if experiment == "checkpoint":
        return {**same, "reach": 24, "budget": (0.3, 0.5), "matched": (0.8, 0.1), "end": (0.6, 0.3)}
    if model == "text_post":
        third = {"early": 0.3, "middle": 0.85, "late": 0.95}.get(arm, 0.2)
        own = {"matched": (0.2, 0.6), "budget": (third, 0.9 - third), "end": (0.4, 0.5)}
        return {**same, **own, "reach": 12, "train": 0.96}
    return {**same, "reach": 12, "test": {"early": 0.82, "middle": 0.89, "late": 0.88}.get(arm, 0.7)}


def reverse(experiment, model, arm):
    """Where they are wrong."""
    same = {"reach": 8, "train": 0.99, "test": 0.8, "matched": (0.4, 0.5), "budget": (0.4, 0.5), "end": (0.4, 0.5)}
    if arm == "none":
        return same
    more = {"matched": (0.9, 0.0), "budget": (0.9, 0.0), "end": (0.9, 0.0)}
    if experiment in ("scratch", "checkpoint"):
        return {**same, **more, "reach": 12, "test": 0.6}
    if model == "text_post":
        return {**same, **more, "test": 0.6, "budget": ({"early": 0.9, "all": 0.9}.get(arm, 0.3), 0.0)}
    test = {"early": 0.9, "middle": 0.8, "late": 0.8}.get(arm, 0.95)
    return {**same, "reach": 12, "test": test, "end": (0.05, 0.9)}


def fake_run(law, experiment, model, arm, seed, rng, n=24):
    own = law(experiment, model, arm)
    position = "pre" if model.endswith("_pre") else "post"
    at = {own["reach"]: own["matched"], 28: own["end"], **({16: own["budget"]} if position == "post" else {})}
    place = np.random.default_rng(seed).permutation(n)  # the same items are hard in all arms of a seed
    answers, train, test, shift = [], [], [], 0.004 * rng.standard_normal()
    for epoch in EPOCHS:
        memorized, recovered = at.get(epoch, (0.0, 0.0))
        jitter = 0 if memorized in (0.0, 1.0) else int(rng.integers(0, 2))
        edge = round(memorized * n) - jitter
        answers.append(np.where(place < edge, "m", np.where(place < edge + round(recovered * n), "r", "x")))
        train.append(own["train"] if epoch >= own["reach"] else 0.9 * epoch / own["reach"])
        test.append((own["test"] if epoch >= own["reach"] else 0.3) + shift + 0.002 * rng.standard_normal())
    answers = np.array(answers).T
    shares = {name: (answers == letter).mean(0)
              for name, letter in (("memorization", "m"), ("recovery", "r"), ("random", "x"))}  # fmt: skip
    data = "digits" if model == "digits_pre" else "packages"
    values = {"train": train, "test": test, **shares}
    metrics, items = run_rows(model, arm, seed, values, position, data, answers=answers, experiment=experiment)
    if experiment == "main" and arm == "none":
        strength = {"pre": 500.0, "post": 50.0}[position] * np.exp(0.1 * rng.standard_normal())
        fall, sign = np.exp(-1.5 * np.arange(3)), 1 if law is truth else -1
        strength = strength if law is truth else 1 / strength
        learn = (fall**sign)[:, None] * np.exp(0.05 * rng.standard_normal((3, 2)))
        rows, _ = gradient_rows(learn, learn / strength, position, model, seed, data=data)
        metrics = pd.concat([metrics, rows.assign(run=metrics["run"].iloc[0])], ignore_index=True)
    return metrics.drop(columns="experiment"), items


def world(law, seeds=5):
    """(metrics, items, runs) of all experiments that claims read."""
    rng, made, runs = np.random.default_rng(3), [], {}
    for experiment, cells in PLANNED.items():
        runs[experiment] = []
        for model, arm in cells:
            for seed in range(seeds):
                metrics, items = fake_run(law, experiment, model, arm, seed, rng)
                made.append((metrics, items))
                runs[experiment].append(metrics["run"].iloc[0])
    metrics, items = (pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True))
    return metrics, items, runs


def verdicts(given, names=None, **more):
    claims = [c for c in ledger.validate_claims(CLAIMS).claims if names is None or c.claim in names]
    return ledger.evaluate("layernorm", claims, *given, **{"scale": "laptop", "bootstrap": 200, **more}).set_index(
        "claim"
    )


@pytest.fixture(scope="module")
def true_world():
    return world(truth)


@pytest.fixture(scope="module")
def holds(true_world):
    return verdicts(true_world)


def test_every_claim_is_measured(holds):
    assert not (holds["verdict"] == "not tested").any(), holds["reason"].to_dict()
    assert (holds["seeds"] == 5).all() and (holds["n"] > 0).all()


def test_where_the_paper_is_right_its_claims_are_reproduced(holds):
    wrong = holds["verdict"] != "reproduced"
    assert not wrong.any(), holds.loc[wrong, ["measured", "reason"]].to_dict("index")


def test_where_all_seeds_agree_the_items_decide(holds):
    """Memorization of 1 in both arms of every seed: no spread over seeds, but 5 x 24 noisy items."""
    assert holds.loc["pre_memorization", "basis"] == holds.loc["scratch_post", "basis"] == "exact binomial over items"
    assert holds.loc["post_memorization_budget", "item_ci_high"] < 0  # paired by item


def test_where_it_is_wrong_its_claims_are_contradicted():
    found = verdicts(world(reverse))
    wrong = found["verdict"] != "contradicted"
    assert not wrong.any(), found.loc[wrong, ["measured", "reason"]].to_dict("index")


def test_nothing_is_tested_at_smoke_scale_or_without_seeds(true_world, holds):
    metrics, items, runs = true_world
    few = ("post_memorization_matched", "position_memorization", "gradients_pre", "gradient_ratio", "depth_post")
    smoke = verdicts(true_world, few, scale="smoke", tested=False)
    assert (smoke["verdict"] == "not tested").all() and smoke["reason"].str.contains("tests no claim").all()
    assert smoke["measured"].tolist() == holds.loc[list(few), "measured"].tolist()
    alone = verdicts((metrics[metrics["seed"] == 0], items[items["seed"] == 0], runs), few)
    assert (alone["verdict"] == "not tested").all() and alone["measured"].notna().all()


def test_the_checkpoint_is_no_member_of_the_family_by_default(true_world):
    metrics, items, runs = true_world
    claims = ledger.validate_claims(CLAIMS).claims
    optional = [c.claim for c in claims if c.experiments == ["checkpoint"]]
    assert optional == ["checkpoint_memorization", "checkpoint_accuracy", "checkpoint_slower"]
    found = verdicts((metrics, items, {**runs, "checkpoint": []}), optional)
    assert (found["verdict"] == "not tested").all() and found["reason"].str.contains("checkpoint").all()
    assert found["p_holm"].isna().all() and len(claims) - len(optional) == 26


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
        assert set(claim.experiments) <= set(PLANNED), claim.claim
        assert {table.removeprefix("layernorm_") for table in claim.tables} <= FIGURES, claim.claim
        assert all(table.startswith("layernorm_") for table in claim.tables)
        assert len(claim.label()) < 160
        noisy_items = claim.args.get("metric") in measure.OUTCOMES
        assert (claim.args.get("reads") == ["prediction", "label", "true_label"]) == noisy_items, claim.claim


def test_readings_that_are_the_same_epoch_are_claimed_once():
    """Pre-LN is trained to its own budget, so `budget` and `equal` would be one number twice in the family."""
    claims = ledger.validate_claims(CLAIMS).claims
    assert not [c.claim for c in claims if c.args["position"] == "pre" and c.args.get("reading") == "budget"]
    calls = [c.label() + str(c.experiments) for c in claims]
    assert len(set(calls)) == len(calls) and 20 <= len(calls) <= 30


def test_published_values_are_those_of_the_logs():
    def mean(*values):
        return np.mean(values) / 100

    def geometric(*values):
        return np.exp(np.mean(np.log(values)))

    by_hand = {
        "pre_accuracy": mean(86.2 - 91.0, 78.0 - 84.7, 73.1 - 82.7, 74.5 - 84.0),
        "pre_memorization": mean(73.8 - 100, 90.5 - 83.3, 47.6 - 100, 23.8 - 96.4),
        "pre_gap": mean(18.9 - 12.2, 8.2 - 17.1, 2.6 - 15.9),
        "pre_accuracy_matched": mean(72.9 - 86.8),
        "post_accuracy_budget": mean(91.4 - 92.0, 86.4 - 85.6),
        "post_accuracy_equal": mean(90.9 - 93.2, 85.8 - 86.4),
        "post_memorization_budget": mean(19.2 - 100, 29.4 - 85.7),
        "post_memorization_equal": mean(42.9 - 98.8, 53.2 - 88.1),
        "post_memorization_matched": mean(14.6 - 12.5, 53.2 - 45.2),
        "post_recovery_budget": mean(72.5, 57.1),
        "post_recovery_equal": mean(41.9, 24.6),
        "post_gap_budget": mean(5.5 - 7.6, 7.1 - 11.3),
        "post_gap_equal": mean(98.3 - 90.9 - (99.8 - 93.2), 95.4 - 85.8 - (96.8 - 86.4)),
        "position_memorization": mean(42.9 - 98.8 - (73.8 - 100), 53.2 - 88.1 - (90.5 - 83.3)),
        "pre_early": mean(
            *(e - (m + la) / 2 for e, m, la in ((88.4, 89.5, 91.1), (77.5, 84.1, 85.1), (74.1, 82.4, 82.7),
                                                (78.5, 85.6, 86.0)))),
        "post_early": mean(
            *(e - (m + la) / 2 for e, m, la in ((74.2, 99.6, 97.7), (27.5, 97.5, 99.6), (27.0, 62.7, 82.5),
                                                (56.3, 83.3, 84.1), (76.2, 97.6, 97.6)))),
        "vision_accuracy": mean(45.7 - 93.7, 69.3 - 82.2, 60.4 - 86.2),
        "vision_memorization": mean(94.6 - 100, 95.4 - 100, 88.5 - 89.4),
        "vision_gap": mean(51.3 - 6.3, 29.2 - 17.4, 38.6 - 12.5),
        "gradient_ratio": geometric(164, 2209, 246, 95) / geometric(50, 20, 88, 290, 467, 8),
        "depth_pre": geometric(1990, 1548, 1041, 2271, 61, 12, 7),
        "depth_post": geometric(45, 30, 50, 27, 62, 81),
    }  # fmt: skip
    claims = {c.claim: c for c in ledger.validate_claims(CLAIMS).claims}
    assert {name: c.published for name, c in claims.items() if c.published is not None} == {
        name: pytest.approx(value, abs=6e-4, rel=3e-3) for name, value in by_hand.items()
    }
    assert all(c.published_note for c in claims.values() if c.published is not None)
    # the margins are what `why` says they are
    assert 0.022 < claims["post_accuracy_budget"].margin < (91.0 - 86.2) / 100
    assert claims["pre_memorization"].margin < 0.563 / 5


def test_items_of_claims_are_loaded_by_metric_and_by_reads():
    import importlib.util

    spec = importlib.util.spec_from_file_location("step", ROOT / "workflow" / "scripts" / "test_claims.py")
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    given = [{"args": {}}, {"args": {"metric": "rouge_l"}}, {"args": {"reads": ["label", "prediction"]}}]
    assert step.item_metrics(given) == ["exact_match", "label", "prediction", "rouge_l"]
    assert step.item_metrics([{"args": {"data": "text"}}]) == ["exact_match"]
