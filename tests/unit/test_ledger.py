"""Claims files are checked, statistics find a known truth in fake runs, verdicts follow from the numbers."""

import inspect
from pathlib import Path

import fake_claims
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from memorization.claims import curves, ledger, page
from memorization.claims import patterns as measure
from memorization.claims.statistics import MissingData, one_sided_p, seed_interval
from memorization.errors import UserError

CONFIG = Path(__file__).parents[2] / "config"
CLAIMS = CONFIG / "claims" / "patterns.yaml"


@pytest.fixture(scope="module")
def tables():
    return fake_claims.make(seeds=3)


@pytest.fixture(scope="module")
def rows(tables):
    claims = ledger.validate_claims(CLAIMS).claims
    return ledger.evaluate("patterns", claims, *tables, scale="laptop").set_index("claim")


# ---- claims file


def changed(tmp_path, edit):
    raw = yaml.safe_load(CLAIMS.read_text())
    edit(raw)
    path = tmp_path / "patterns.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def set_in(index, **values):
    return lambda raw: raw["claims"][index].update(values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_in(0, treshold=1), r"claim forgetting: unknown key 'treshold'; write 'threshold'"),
        (set_in(0, colour="red"), r"claim forgetting: unknown key 'colour'; write (one of|')"),
        (lambda raw: raw["claims"][0].pop("why"), r"claim forgetting: key 'why' is missing"),
        (lambda raw: raw.update(claim=[]), r"unknown key 'claim'; write 'claims'"),
        (set_in(0, margin=0.1), r"claim forgetting: `margin` belongs to `test: equivalent`"),
        (set_in(1, margin=None), r"claim recency_chance: `margin` belongs"),
        (set_in(1, margin=0.9), r"factor above 1"),
        (set_in(3, threshold=0.3), r"claim order_alone: `threshold` of an ordering"),
        (set_in(0, statistic="memorization.claims.patterns:forgetings"), "write 'forgettings_per_item'"),
        (set_in(0, statistic="memorization.claims.nothing:f"), "no module memorization.claims.nothing"),
        (set_in(0, args={"dat": "text"}), r"forgettings_per_item takes no 'dat'; write 'data'"),
        (set_in(0, args={}), r"claim forgetting: forgettings_per_item needs 'data'"),
        (set_in(1, claim="forgetting"), r"two claims are called forgetting"),
    ],
)
def test_a_wrong_claims_file_is_refused_with_what_to_write(tmp_path, edit, message):
    with pytest.raises(UserError, match=message):
        ledger.validate_claims(changed(tmp_path, edit))


def test_broken_yaml_is_a_sentence(tmp_path):
    path = tmp_path / "patterns.yaml"
    path.write_text("paper: patterns\nclaims: [")
    with pytest.raises(UserError, match="is no YAML"):
        ledger.validate_claims(path)


def test_our_claims_name_only_experiments_and_sets_that_the_config_has():
    config = yaml.safe_load((CONFIG / "papers" / "patterns.yaml").read_text())
    names = {*config["sets"], *config["mixtures"]}
    for claim in ledger.validate_claims(CLAIMS).claims:
        assert set(claim.experiments) <= set(config["experiments"]), claim.claim
        used = [claim.args.get(key, []) for key in ("data", "levels", "degrees", "gradual")]
        used += [claim.args.get(key) for key in ("original", "changed", "sudden", "patterned", "random")]
        flat = pd.Series(used).explode().explode().dropna()
        assert set(flat) <= names, claim.claim
        models = {claim.args[key] for key in ("model", "small", "large") if key in claim.args}
        assert models <= set(config["models"]), claim.claim


def test_every_statistic_is_claimed():
    public = {
        name
        for name, f in inspect.getmembers(measure, inspect.isfunction)
        if f.__module__ == measure.__name__ and not name.startswith("_")
    }
    claimed = {claim.statistic.split(":")[1] for claim in ledger.validate_claims(CLAIMS).claims}
    assert public == claimed


# ---- statistics


def curve(values, run="r", seed=0, data="text", model="M", subset=None, split="train", items=4, every=10, **more):
    """Metric rows of one run: `values` at steps 0, every, ...; 5 steps an epoch."""
    steps = np.arange(len(values)) * every
    columns = {
        "run": run,
        "seed": seed,
        "data": data,
        "model": model,
        "subset": subset or data,
        "split": split,
        "items": items,
        "parameters": 100,
        "metric": "exact_match",
        "prompt_length": 12,
        "completion_length": 8,
        "default_prompt_length": 12,
        "default_completion_length": 8,
        "n": items,
        "experiment": "e",
        **more,
    }
    return pd.DataFrame({"step": steps, "epoch": steps / 5, "value": values}).assign(**columns)


def statuses(matrix, run="r", seed=0, data="text", split="train", every=10):
    """Item rows of a (items, evaluations) 0/1 matrix."""
    matrix = np.asarray(matrix, "float32")
    item, at = np.indices(matrix.shape).reshape(2, -1)
    frame = pd.DataFrame({"item": item, "step": at * every, "value": matrix.reshape(-1)})
    return frame.assign(run=run, seed=seed, data=data, subset=data, split=split, metric="exact_match")


NO_ITEMS = statuses(np.zeros((1, 1))).iloc[:0]


def test_forgettings_by_hand():
    a = statuses([[0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])  # 2 + 0 + 1 losses
    b = statuses([[0, 1, 1, 1, 1]], run="q")  # another pairing of the same seed, starting low after a high end
    found = measure.forgettings_per_item(pd.DataFrame(), pd.concat([b, a]).sample(frac=1, random_state=0), data="text")
    assert found.per_seed == {0: 3 / 4} and sorted(found.items[0]) == [0, 0, 1, 2] and found.n == 4


def recency(new, both, batch=2, items=8, seed=0):
    parts = [
        curve(values, metric=metric, subset="all", items=items, seed=seed, run=f"r{seed}")
        for metric, values in (
            ("newly_memorized", new),
            ("newly_in_batch", both),
            ("batch_items", [batch] * len(new)),
        )
    ]
    return pd.concat(parts)


def test_recency_by_hand():
    metrics = recency([4, 0, 2], [3, 0, 0])  # chance 2/8: expected 6 * .25 = 1.5, seen 3
    assert measure.recency_ratio(metrics, NO_ITEMS, "text").per_seed[0] == pytest.approx(3.5 / 2.0)
    share = measure.recency_share(metrics, NO_ITEMS, "text")
    assert share.per_seed[0] == 0.5 and share.n == 6 and share.items[0].sum() == 3
    with pytest.raises(MissingData, match="memorized at an observed step"):
        measure.recency_share(recency([0, 0], [0, 0]), NO_ITEMS, "text")


def test_epochs_to_a_level():
    run = curve([0, 19 / 20, 0.2, 1.0])
    found = curves.epochs_to(pd.concat([run, curve([0, 0.1], run="slow")]), 0.95, ["run"]).set_index("run")
    assert found.loc["r", "reached"] == 2.0 and np.isinf(found.loc["slow", "reached"])
    assert curves.epochs_to(curve([1.0, 1.0]), 0.5, ["run"])["reached"].tolist() == [2.0]  # not 0


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        ((10, 50), (5, 50), 2.0),
        ((np.inf, 50), (25, 60), 2.0),  # at least 2
        ((20, 60), (np.inf, 40), 0.5),  # at most .5
        ((55, 60), (np.inf, 40), 1.0),  # the short run says nothing about epoch 55
        ((np.inf, 40), (55, 60), 1.0),
        ((np.inf, 40), (np.inf, 40), np.nan),
    ],
)
def test_censored_ratios_are_pulled_towards_1(above, below, expected):
    one, other = ({"reached": reached, "last": last} for reached, last in (above, below))
    assert curves.ratio(one, other) == pytest.approx(expected, nan_ok=True)


def test_a_run_asked_for_twice_counts_once():
    run = curve([0, 0.5])
    assert len(curves.curves(pd.concat([run, run.assign(experiment="other")]))) == 2


def test_variants_of_the_lengths_are_no_part_of_the_curve():
    both = pd.concat([curve([0, 0.5]), curve([1, 1], completion_length=3)])
    assert curves.curves(both)["value"].tolist() == [0, 0.5]


def test_order_needs_every_part_and_puts_never_last():
    sets = {"mi": [0, 1, 1], "mij": [0, 0, 1], "random_digits": [0, 0, 0]}
    metrics = pd.concat([curve(values, run=name, data=name) for name, values in sets.items()])
    found = measure.order_of(metrics, NO_ITEMS, levels=["mi", "mij", "random_digits"])
    assert found.per_seed == {0: 1.0} and found.orders[0] == [[2.0], [4.0], [np.inf]]
    with pytest.raises(MissingData, match="mijl"):
        measure.order_of(metrics, NO_ITEMS, levels=["mi", "mijl"])


def test_final_difference_at_the_end_and_at_first_memorization():
    metrics = pd.concat([curve([0, 0.5, 1]), curve([0, 0.25, 0.5, 1], run="w", data="text_words")])
    items = pd.concat(
        [
            statuses([[0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]]),
            statuses([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]], run="w", data="text_words"),
        ]
    )
    end = measure.final_difference(metrics, items, "text", "text_words")
    assert end.per_seed == {0: 0.0}  # the original stopped early and keeps its last value
    then = measure.final_difference(metrics, items, "text", "text_words", at="memorized")
    assert then.per_seed == {0: 0.5} and then.items[0].tolist() == [0, 0, 1, 1]


def test_shuffling_order_puts_the_most_shuffled_lowest():
    metrics = pd.concat([curve([0, v], run=d, data=d) for d, v in (("text", 1.0), ("half", 0.5), ("words", 0.25))])
    assert measure.shuffling_order(metrics, NO_ITEMS, ["text", "half", "words"]).per_seed == {0: 1.0}
    assert measure.shuffling_order(metrics, NO_ITEMS, ["words", "half", "text"]).per_seed == {0: 0.0}


def mixture(text, digits, n=(5, 5), **more):
    name = f"text{10 * n[0]}_digits{10 * n[1]}"
    run = {"data": name, "run": f"{name}-{more.get('seed', 0)}", **more}
    return pd.concat(
        [
            curve(text, subset="text", **run).assign(n=n[0]),
            curve(digits, subset="random_digits", **run).assign(n=n[1]),
        ]
    )


def test_phases_by_hand():
    metrics = mixture([0, 0.6, 0.8, 1, 1, 1], [0, 0, 0.2, 0.4, 0.6, 1])
    args = {"data": "text50_digits50", "patterned": "text", "random": "random_digits"}
    assert measure.patterned_when_random_starts(metrics, NO_ITEMS, **args).per_seed == {0: 0.8}
    assert measure.phase_ratio(metrics, NO_ITEMS, **args).per_seed == {0: pytest.approx(8 / 6)}


def test_slopes_by_hand():
    # text done at epoch 2 always; digits start at epochs 4, 8, 12 for shares .2, .5, .8: slope 8 / .6
    digits = {(8, 2): [0, 0, 1, 1, 1, 1, 1], (5, 5): [0, 0, 0, 0, 1, 1, 1], (2, 8): [0, 0, 0, 0, 0, 0, 1]}
    metrics = pd.concat([mixture([0, 1, 1, 1, 1, 1, 1], d, n=n) for n, d in digits.items()])
    args = {"patterned": "text", "random": "random_digits"}
    assert measure.onset_slope(metrics, NO_ITEMS, **args).per_seed[0] == pytest.approx(8 / 0.6)
    assert measure.plateau_slope(metrics, NO_ITEMS, **args).per_seed[0] == pytest.approx(8 / 0.6)
    with pytest.raises(MissingData, match="three or more"):
        measure.onset_slope(metrics[metrics["data"] != "text50_digits50"], NO_ITEMS, **args)


def test_rise_ratio_counts_at_least_one_interval():
    metrics = pd.concat(
        [
            curve([0, 0.2, 0.5, 0.9, 1], run="a", data="mij"),  # epochs 2 to 8
            curve([0, 0, 0, 1, 1], run="b", data="random_digits"),  # within one interval of 2 epochs
        ]
    )
    assert measure.rise_ratio(metrics, NO_ITEMS, ["mij"], "random_digits").per_seed[0] == pytest.approx(3.0)


def unseen(values, learned=1.0):
    frames = [curve([0, value], run=name, data=name, split="validation") for name, value in values.items()]
    return pd.concat(frames + [curve([0, learned], run=name, data=name) for name in values])


def test_unseen_exact_match_takes_the_extreme_set():
    metrics = unseen({"mi": 1.0, "icm": 0.7})
    least = measure.unseen_exact_match(metrics, NO_ITEMS, ["mi", "icm"], "least")
    most = measure.unseen_exact_match(metrics, NO_ITEMS, ["mi", "icm"], "most")
    assert (least.per_seed[0], most.per_seed[0]) == (0.7, 1.0)
    with pytest.raises(MissingData, match="training EM"):
        measure.unseen_exact_match(unseen({"mi": 0.0}, learned=0.9), NO_ITEMS, ["mi"], "most", learned=0.95)


def test_size_ratio_pairs_seeds_and_averages_sets_geometrically():
    metrics = pd.concat(
        [
            curve([0, 1, 1, 1, 1], run="a", data="mij", model="M"),
            curve([0, 0, 1, 1, 1], run="b", data="mij", model="L"),
            curve([0, 0, 0, 0, 1], run="c", data="icm", model="M"),
            curve([0, 1, 1, 1, 1], run="d", data="icm", model="L"),
            curve([0, 1], run="e", data="mij", model="M", seed=1),  # no partner
        ]
    )
    found = measure.size_ratio(metrics, NO_ITEMS, ["mij", "icm"], "M", "L")
    assert found.per_seed == {0: pytest.approx(np.sqrt(2 * 0.25))}


def grid(smallest):
    sizes = {"S": 100, "M": 200, "L": 400}
    return pd.concat(
        [
            curve(
                [0, float(p >= smallest[n])],
                run=f"{m}{n}",
                model=m,
                items=n,
                parameters=p,
                data="random_digits",
            )
            for m, p in sizes.items()
            for n in smallest
        ]
    )


def test_smallest_model_fit():
    assert measure.smallest_model_fit(grid({8: 100, 16: 200, 32: 400}), NO_ITEMS).per_seed[0] == pytest.approx(1.0)
    assert measure.smallest_model_fit(grid({8: 400, 16: 200, 32: 100}), NO_ITEMS).per_seed[0] < -0.7
    assert measure.smallest_model_fit(grid({8: 100, 16: 100, 32: 100}), NO_ITEMS).per_seed[0] == 0.0
    with pytest.raises(MissingData, match="three data sizes"):
        measure.smallest_model_fit(grid({8: 100, 16: 200, 32: 999}), NO_ITEMS)


def test_correlations_take_the_least():
    together, against = [0, 0.1, 0.5, 0.9], [0.9, 0.5, 0.1, 0.0]
    metrics = pd.concat([curve([0, 0.2, 0.6, 1.0]), curve(together, metric="meteor"), curve(against, metric="jaccard")])
    assert measure.comovement(metrics, NO_ITEMS, ["meteor"], "text").per_seed[0] == pytest.approx(1.0)
    assert measure.comovement(metrics, NO_ITEMS, ["meteor", "jaccard"], "text").per_seed[0] == pytest.approx(-1.0)
    lengths = pd.concat([curve([0, 0.2, 0.6, 1.0]), curve([0, 0.6, 0.2, 1.0], completion_length=3)])
    assert measure.length_correlation(lengths, NO_ITEMS, "text").per_seed[0] == pytest.approx(0.8)  # Spearman by hand


def test_sampling_gap_weighs_steps_by_items():
    parts = [
        curve([1.0, 0.5], metric="sampling_accuracy", subset="memorized").assign(n=[30, 10]),  # mean .875
        curve([0.0, 0.5], metric="sampling_accuracy", subset="forgotten").assign(n=[1, 3]),  # mean .375
    ]
    found = measure.sampling_gap(pd.concat(parts), NO_ITEMS, "text")
    assert found.per_seed == {0: pytest.approx(0.5)} and found.n == 4


# ---- verdicts


def row(**values):
    base = {
        "paper": "patterns",
        "claim": "c",
        "direction": "greater",
        "threshold": 1.0,
        "transform": "linear",
        "seeds": 3,
        "measured": 2.0,
        "ci_low": 1.5,
        "ci_high": 2.5,
        "p": 0.001,
        "p_opposite": 0.999,
        "basis": "t over seeds",
        "scale": "laptop",
        "reason": "",
    }
    return {**base, **values}


def judged(*rows, **more):
    return ledger.judge(pd.DataFrame(list(rows)).reindex(columns=ledger.COLUMNS), **more)


BELOW = {"measured": 0.5, "ci_low": 0.2, "ci_high": 0.8, "p": 0.999, "p_opposite": 0.001}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({}, "reproduced"),
        (BELOW, "contradicted"),
        ({"direction": "less", **BELOW, "p": 0.001, "p_opposite": 0.999}, "reproduced"),
        ({"direction": "less", "p": 0.999, "p_opposite": 0.001}, "contradicted"),
        ({"ci_low": 0.9}, "inconclusive"),
        ({"p": 0.06}, "inconclusive"),
        ({"direction": "equivalent", "margin": 1.0, "ci_low": 0.5, "ci_high": 1.9}, "reproduced"),
        (
            {"direction": "equivalent", "margin": 1.5, "transform": "log", "ci_low": 0.65, "ci_high": 1.2},
            "inconclusive",
        ),
        (
            {"direction": "equivalent", "margin": 1.5, "transform": "log", "ci_low": 0.67, "ci_high": 1.2},
            "reproduced",
        ),
        ({"direction": "equivalent", "margin": 0.1, "p": 1.0, "p_opposite": 0.001}, "contradicted"),
        ({"direction": "ordering", "worst_seed": 1.0}, "reproduced"),
        ({"direction": "ordering", "worst_seed": 0.9}, "inconclusive"),
        ({"direction": "ordering", "worst_seed": 0.1, "p": 0.99, "p_opposite": 0.001}, "contradicted"),
        ({"direction": "ordering", "worst_seed": 1.0, "p": 0.2}, "inconclusive"),
        ({"seeds": 2}, "not tested"),
        ({"measured": np.nan, "reason": "No run."}, "not tested"),
        ({"basis": "sign test over seeds", "ci_low": np.nan, "ci_high": np.nan}, "inconclusive"),
    ],
)
def test_verdict_follows_from_interval_and_p(values, verdict):
    found = judged(row(**values)).iloc[0]
    assert found["verdict"] == verdict
    assert found["reason"].endswith(".") and found["reason"][0].isupper()


def test_holm_can_undo_a_verdict_and_untested_claims_are_no_family():
    nineteen = [row(p=0.5, ci_low=0.5) for _ in range(19)]
    assert judged(row(p=0.01), *nineteen)["verdict"].iloc[0] == "inconclusive"
    untested = [row(p=np.nan, p_opposite=np.nan, measured=np.nan) for _ in range(19)]
    assert judged(row(p=0.01), *untested)["verdict"].iloc[0] == "reproduced"


def test_null_claims_are_rarely_given_a_verdict():
    """In a family of 20 true nulls (truth = threshold) a wrong verdict of either kind is rare."""
    families, wrong = np.random.default_rng(0).normal(1, 1, (120, 20, 4)), 0
    for values in families:
        low, high = seed_interval(values)
        p, p_opposite = (one_sided_p(values, 1.0, side) for side in ("greater", "less"))
        null = pd.DataFrame([row(measured=v) for v in values.mean(1)]).reindex(columns=ledger.COLUMNS)
        null = null.assign(ci_low=low, ci_high=high, p=p, p_opposite=p_opposite)
        wrong += ledger.judge(null)["verdict"].isin(["reproduced", "contradicted"]).any()
    assert wrong <= stats.binom.ppf(1 - 1e-4, 120, 0.10)  # 5 % for each side


# ---- all claims on fake runs


def test_known_truths_get_their_verdicts(rows):
    expected = {
        "order_alone": "reproduced",
        "order_mixed": "reproduced",
        "patterned_first": "reproduced",
        "static_generalizes": "reproduced",
        "dynamic_does_not": "reproduced",
        "rule_acquired": "reproduced",
        "lengths_agree": "reproduced",
        "forgotten_not_sampled": "reproduced",
        "recency_most": "reproduced",
        "more_jumps_later": "reproduced",
        "overthinking_lookup": "inconclusive",
    }
    assert rows.loc[list(expected), "verdict"].to_dict() == expected
    assert not (rows["verdict"] == "contradicted").any() and not (rows["verdict"] == "not tested").any()


def test_a_false_claim_is_contradicted():
    metrics, items, runs = fake_claims.make(seeds=5, larger_later=0.5, in_batch=0.9)
    claims = ledger.validate_claims(CLAIMS).claims
    wanted = [c for c in claims if c.claim in ("overthinking_random", "recency_chance", "recency_most")]
    found = ledger.evaluate("patterns", wanted, metrics, items, runs, scale="laptop").set_index("claim")
    assert (found["verdict"] == "contradicted").all(), found["reason"].tolist()


def test_an_untested_scale_shows_numbers_without_verdicts(tables):
    claims = ledger.validate_claims(CLAIMS).claims[:4]
    found = ledger.evaluate("patterns", claims, *tables, scale="smoke", tested=False)
    assert (found["verdict"] == "not tested").all() and found["measured"].notna().all()


def test_missing_runs_and_few_seeds_are_not_tested(tables):
    metrics, items, runs = tables
    claims = {c.claim: c for c in ledger.validate_claims(CLAIMS).claims}
    two = metrics["seed"] < 2
    some = [claims["forgetting"], claims["order_mixed"]]
    found = ledger.evaluate("p", some, metrics[two], items[items["seed"] < 2], {**runs, "mix4": []}, scale="laptop")
    assert (found["verdict"] == "not tested").all()
    assert "Only 2 seeds" in found["reason"][0] and "no runs of the experiment mix4" in found["reason"][1]


# ---- files


def test_ledger_files(rows, tmp_path):
    table = rows.reset_index()[ledger.COLUMNS]
    table.to_parquet(tmp_path / "claims.parquet")
    table = pd.read_parquet(tmp_path / "claims.parquet")
    table.loc[0, ["verdict", "statement"]] = ["contradicted", "A | pipe & <tag>"]
    ledger.write_ledger(table, tmp_path / "claims.csv", tmp_path / "claims.md", tmp_path / "claims.html")
    first = "paper claim statement source statistic published measured ci_low ci_high n seeds threshold direction"
    back = pd.read_csv(tmp_path / "claims.csv")
    assert list(back)[:16] == [*first.split(), "verdict", "reason", "scale"] and len(back) == len(table)
    text, html = ((tmp_path / name).read_text() for name in ("claims.md", "claims.html"))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(table) + 1 and "A \\| pipe" in text and "1 contradicted" in text
    assert "A | pipe &amp; &lt;tag&gt;" in html and html.count("<tr>") == len(table) + 1
    assert "<script" not in html and "http" not in html
    for claim in table["claim"]:
        assert claim in text and claim in html


def test_numbers_for_readers():
    assert [page.number(v) for v in (None, np.nan, 0.12345, 27.15, 98304, 0.00012)] == [
        "–",
        "–",
        "0.123",
        "27.1",
        "98,304",
        "0.00012",
    ]
