"""Statistics of `tokenswap` against hand values; every claim on fake runs of a world where it holds, and where not."""

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from memorization.claims import ledger
from memorization.claims import tokenswap as measure
from memorization.claims.statistics import MissingData
from memorization.errors import UserError

CLAIMS = Path(__file__).parents[2] / "config" / "claims" / "tokenswap.yaml"
CONFIG = CLAIMS.parents[1] / "papers" / "tokenswap.yaml"
SIZES = ("XS", "S", "M", "L")


def run_tables(name, values, metric, data="passages", seed=0, words_default="english-110"):
    """Metric and item rows of one arm: values by domain, or a list for one domain."""
    domains = values if isinstance(values, dict) else {"prose": values}
    arm = measure.Arm.parse(name)
    words = arm.words or (words_default if arm.method == "tokenswap" else "")
    run = f"{name.replace(' ', '_')}-s{seed}"
    fixed = {"run": run, "seed": seed, "data": data, "split": "train" if data == "passages" else "validation"}
    labels = {"model": arm.model, "method": arm.method, "aux": arm.aux or "", "words": words, "decoding": arm.decoding}
    every = np.concatenate([np.asarray(v, float) for v in domains.values()])
    subset = np.repeat(list(domains), [len(v) for v in domains.values()])
    columns = {"subset": subset, "item": np.arange(len(every)), "value": every.astype("float32")}
    long = pd.DataFrame({**columns, "metric": metric, "text": None, **fixed})
    means = {"all": every, **domains}
    rows = {"subset": list(means), "value": [np.mean(v) for v in means.values()], "n": [len(v) for v in means.values()]}
    return pd.DataFrame({**rows, "metric": metric, "experiment": "one", **fixed, **labels}), long


def tables(*arms):
    """(metrics, items) of several (name, values, metric[, data]) tuples."""
    made = [run_tables(*arm[:3], **(arm[3] if len(arm) > 3 else {})) for arm in arms]
    metrics, items = (pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True))
    return pd.concat([metrics, metrics.assign(experiment="two")]), items  # runs of two experiments come twice


# ---- names of arms


def test_arms_are_parsed():
    arm = measure.Arm.parse("wild-L tokenswap background-S english-110 sample")
    assert (arm.model, arm.method, arm.aux) == ("wild-L", "tokenswap", "background-S")
    assert (arm.words, arm.decoding) == ("english-110", "sample")
    short = measure.Arm.parse("half1-L cp_fuse half2-L")
    assert (short.aux, short.words, short.decoding) == ("half2-L", None, "greedy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wild-L tokenswop", "no method 'tokenswop'; write 'tokenswap'"),
        ("wild-L", "no method ''; write one of"),
        ("wilds-L standard", "unknown word 'wilds-L'; write 'wild'"),
        ("wild standard", "'wild' without a size; write 'wild-L'"),
        ("wild-L tokenswap backgrund-S", "unknown word 'backgrund-S'; write 'background'"),
        ("wild-L tokenswap englisch-9", "unknown word 'englisch-9'; write 'english'"),
        ("wild-L tokenswap wild-S wild-M", "names wild-S and wild-M"),
    ],
)
def test_wrong_names_say_what_to_write(name, message):
    with pytest.raises(UserError, match=message):
        measure.Arm.parse(name)


def test_an_open_name_must_mean_one_arm():
    metrics, items = tables(
        ("wild-L tokenswap background-S", [0.5], "rouge_l"),
        ("wild-L tokenswap background-M", [0.2], "rouge_l"),
    )
    with pytest.raises(UserError, match="names several arms"):
        measure.level(metrics, items, "wild-L tokenswap", "rouge_l")
    assert measure.level(metrics, items, "wild-L tokenswap background-M", "rouge_l").per_seed[0] == pytest.approx(0.2)


def test_missing_arms_and_seeds_are_sentences():
    metrics, items = tables(
        ("wild-L standard", [1, 0], "rouge_l", {"seed": 0}), ("wild-L memfree", [1, 0], "rouge_l", {"seed": 1})
    )
    for arms, message in (
        (("wild-L standard", "wild-L cp_fuse wild-M"), "No run of 'wild-L cp_fuse wild-M' measured rouge_l on pass"),
        (("wild-L standard", "wild-L memfree"), "No seed has rouge_l of all of 'wild-L standard', 'wild-L memfree'"),
    ):
        with pytest.raises(MissingData, match=message):
            measure.difference(metrics, items, *arms, "rouge_l")
    with pytest.raises(MissingData, match="measured rouge_l on held_out"):
        measure.level(metrics, items, "wild-L standard", "rouge_l", data="held_out")
    with pytest.raises(UserError, match="needs a place for S, M"):
        measure.range_over(metrics, items, "wild-L standard", ["S", "M"], "rouge_l")


# ---- statistics by hand


def test_difference_is_paired_over_all_domains():
    metrics, items = tables(
        ("wild-L tokenswap background-S", {"prose": [0.2, 0.4], "math": [0.6]}, "rouge_l"),
        ("wild-L memfree", {"prose": [0.5, 0.3], "math": [1.0]}, "rouge_l"),
    )
    items = items.sample(frac=1, random_state=0)  # the order of rows must not matter
    found = measure.difference(metrics, items, "wild-L tokenswap", "wild-L memfree", "rouge_l")
    assert found.per_seed == {0: pytest.approx(-0.2)} and found.n == 3
    assert sorted(found.items[0]) == pytest.approx([-0.4, -0.3, 0.1])
    assert "wild-L memfree 0.6" in found.note


def test_items_that_are_not_the_statistic_are_left_out():
    arms = (("wild-L standard", [2.0, 4.0], "cross_entropy", {"data": "held_out"}),)
    metrics, items = tables(*arms)
    assert measure.level(metrics, items, "wild-L standard", "cross_entropy").items[0].tolist() == [2.0, 4.0]
    by_token = metrics.assign(value=3.2)  # texts of unequal length: the mean over tokens is another number
    found = measure.level(by_token, items, "wild-L standard", "cross_entropy")
    assert found.per_seed == {0: pytest.approx(3.2)} and found.items is None
    total = items.assign(subset="all")
    both = measure.level(metrics, pd.concat([items, total]), "wild-L standard", "cross_entropy")
    assert both.items[0].tolist() == [2.0, 4.0]


def test_unpaired_items_are_left_out():
    metrics, items = tables(("wild-L standard", [1, 0, 1], "rouge_l"), ("wild-L memfree", [1, 0], "rouge_l"))
    found = measure.difference(metrics, items, "wild-L standard", "wild-L memfree", "rouge_l")
    assert found.per_seed == {0: pytest.approx(2 / 3 - 1 / 2)} and found.items is None


def test_difference_to_the_least_chooses_in_each_seed():
    def arms(seed, alone):
        values = ((("goldfish3-M tokenswap", [2, 4])), ("goldfish3-M standard", [6, 8]), ("wild-M tokenswap", alone))
        return [(name, value, "matching_characters", {"seed": seed}) for name, value in values]

    metrics, items = tables(*arms(0, [4, 6]), *arms(1, [20, 20]))
    others = ["goldfish3-M standard", "wild-M tokenswap"]
    found = measure.difference_to_least(metrics, items, "goldfish3-M tokenswap", others, "matching_characters")
    assert found.per_seed == {0: pytest.approx(-2), 1: pytest.approx(-4)}
    assert found.items[0].tolist() == [-2, -2] and found.items[1].tolist() == [-4, -4]


def test_exact_match_ratio():
    def ratio(own, other):
        arms = (("tuned-L tokenswap background-S", own, "exact_match"), ("tuned-L standard", other, "exact_match"))
        return measure.exact_match_ratio(*tables(*arms), "tuned-L tokenswap", "tuned-L standard")

    found = ratio([0, 1, 0, 0, 0], [1, 1, 1, 1, 0])
    assert found.per_seed == {0: pytest.approx(0.25)} and found.items[0].tolist() == [0, 1, 0, 0]
    new = ratio([0, 0, 0, 0, 1], [1, 1, 1, 1, 0])  # written out only by the arm: counted, but no share
    assert new.per_seed == {0: pytest.approx(0.25)} and new.items is None
    with pytest.raises(MissingData, match="an exact match of tuned-L standard"):
        ratio([0, 0], [0, 0])


def test_changed_share_sees_what_the_means_hide():
    metrics, items = tables(
        ("wild-L standard", [1, 0, 1, 0], "accuracy", {"data": "cloze_content"}),
        ("wild-L tokenswap background-S", [0, 1, 1, 0], "accuracy", {"data": "cloze_content"}),
    )
    arms = ("wild-L tokenswap", "wild-L standard", "accuracy", "cloze_content")
    assert measure.difference(metrics, items, *arms).per_seed == {0: pytest.approx(0)}
    found = measure.changed_share(metrics, items, *arms)
    assert found.per_seed == {0: 0.5} and found.items[0].tolist() == [1, 1, 0, 0] and found.n == 4
    with pytest.raises(MissingData, match="accuracy of each item"):
        measure.changed_share(metrics, items.iloc[:0], *arms)


def test_distribution_distance_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 0.1, 40).astype("float32"), rng.normal(0.35, 0.1, 40).astype("float32")
    metrics, items = tables(("wild-M tokenswap background-S", a, "rouge_l"), ("goldfish3-M standard", b, "rouge_l"))
    gaps = [abs((a <= x).mean() - (b <= x).mean()) for x in np.concatenate([a, b])]
    found = measure.distribution_distance(metrics, items, "wild-M tokenswap", "goldfish3-M standard", "rouge_l")
    assert found.per_seed == {0: pytest.approx(max(gaps))}


def test_ordering_and_range_by_hand():
    values = {"XS": 1.0, "S": 3.0, "M": 2.0, "L": 5.0}
    metrics, items = tables(*((f"wild-{size} standard", [v], "matching_characters") for size, v in values.items()))
    args = ("wild-{} standard", list(values), "matching_characters")
    found = measure.ordering_over(metrics, items, *args)
    assert found.orders == {0: [[1.0], [3.0], [2.0], [5.0]]} and found.per_seed == {0: pytest.approx(5 / 6)}
    assert "XS 1, S 3, M 2, L 5" in found.note
    assert measure.range_over(metrics, items, *args).per_seed == {0: pytest.approx(4.0)}


def frontier(costs, exact):
    names = ("wild-S standard", "wild-M standard", "wild-L standard", "wild-L tokenswap background-XS")
    held_out = [(name, [cost], "cross_entropy", {"data": "held_out"}) for name, cost in zip(names, costs, strict=True)]
    metrics, items = tables(*held_out, *((n, v, "exact_match") for n, v in zip(names, exact, strict=True)))
    return measure.frontier_gap(metrics, items, "wild-L tokenswap", "wild-{} standard", ["S", "M", "L"], "exact_match")


def test_frontier_gap_interpolates_between_sizes():
    exact = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]
    # cross-entropy 3.25 is a quarter of the way from L (3.0, 1.0) to M (4.0, 0.25): .8125, minus 0.25
    found = frontier([5.0, 4.0, 3.0, 3.25], exact)
    assert found.per_seed == {0: pytest.approx(0.5625)}
    assert found.items[0].tolist() == pytest.approx([1.0, -0.25, 0.75, 0.75])
    assert "whole frontier" not in found.note


def test_frontier_gap_takes_the_nearest_end():
    exact = [[0, 0], [1, 0], [1, 1], [0, 0]]
    below, above = frontier([5.0, 4.0, 3.0, 2.0], exact), frontier([5.0, 4.0, 3.0, 9.0], exact)
    assert below.per_seed == {0: pytest.approx(1.0)} and above.per_seed == {0: pytest.approx(0.0)}
    assert "1 of 1 seeds its cross-entropy lies below" in below.note and "lies above the whole" in above.note


def test_interpolation_is_that_of_numpy():
    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y, at = rng.normal(size=5), rng.normal(size=5), rng.normal(0, 1.5)
        order = np.argsort(x)
        assert measure._interpolation(x, at) @ y == pytest.approx(np.interp(at, x[order], y[order]))


# ---- all claims on fake runs

EXPERIMENTS = {
    "extreme": ["tuned-L standard", "tuned-L memfree", "tuned-L tokenswap background-S",
                "half1-L cp_fuse half2-L", "mix1-L cp_fuse mix2-L"],
    "wild": ["wild-L standard", "wild-L memfree", "wild-L tokenswap background-S", "wild-L tokenswap background-M",
             "wild-L cp_fuse wild-M", "wild-L cp_fuse background-XS"],
    "goldfish": ["wild-M standard", "wild-M tokenswap background-S", "goldfish3-M standard", "goldfish4-M standard",
                 "goldfish32-M standard", "goldfish3-M tokenswap background-S", "goldfish4-M tokenswap background-S"],
    "sizes": [f"wild-{s} {how}" for s in SIZES for how in ("standard", "tokenswap background-XS")],
    "words": ["wild-L standard", *(f"wild-L tokenswap background-S english-{n}" for n in (9, 43, 66, 110, 136))],
    "auxiliaries": ["wild-L standard", *(f"wild-L tokenswap background-{s}" for s in SIZES)],
    "speculative": ["wild-L standard sample", "wild-L speculative background-S sample",
                    "wild-L tokenswap background-S"],
    "controls": ["wild-L standard", "wild-L tokenswap background-S", "wild-L tokenswap wild-L",
                 "wild-L tokenswap wild-M", "wild-L tokenswap background-S content-matched",
                 "wild-L tokenswap background-S content-110"],
    "cloze": ["wild-L standard", "wild-L tokenswap background-S", "wild-L cp_fuse wild-M"],
}  # fmt: skip


def canonical(name):
    """The default word set is written out, so that one run has one name."""
    arm = measure.Arm.parse(name)
    return f"{name} english-110" if arm.method == "tokenswap" and arm.words is None else name


def truth(name):
    """(how much of the passages is left, 0 to 1; held-out cross-entropy) where the paper is right."""
    arm = measure.Arm.parse(name)
    recipe, size = arm.model.split("-")
    rank = SIZES.index(size)
    left = {"wild": (0.15, 0.35, 0.6, 0.9)[rank], "tuned": 0.97, "goldfish3": 0.09, "goldfish4": 0.1, "goldfish32": 0.4}
    memory = left.get(recipe, 0.0)
    cost = 5.0 - 0.5 * rank + (3.0 if recipe == "tuned" else 0.0)
    if arm.method == "memfree":
        memory = 0.2
    elif arm.method == "cp_fuse":
        memory = {"half1": 0.02, "mix1": 0.6}.get(recipe, 0.4)
        cost += 0.6 if arm.aux == "background-XS" else 0.05
    elif arm.method == "tokenswap":
        words = {"english-9": 0.3, "english-43": 0.2, "english-66": 0.15, "english-110": 0.1, "english-136": 0.05}
        ranks = {"XS": -0.06, "S": 0.0, "M": 0.06, "L": 0.12}
        kept = words.get(arm.words, 0.04) + ranks[(arm.aux or "background-S").split("-")[1]] * (recipe == "wild")
        shared = arm.aux in ("wild-M", "wild-L")
        memory = memory if shared else min(0.7 * memory, 0.07 + 0.4 * kept * memory / 0.9)
        memory = 0.03 if recipe == "goldfish3" else memory
        cost += -0.7 if recipe == "tuned" else 0.03 if arm.words.startswith("english") else 0.08
    elif arm.decoding == "sample" or arm.method == "speculative":
        memory = 0.5
    return memory, cost


def reverse(name):
    """Where it is wrong: arms that should be low are high, costs have the other sign."""
    memory, cost = truth(name)
    arm = measure.Arm.parse(name)
    size = SIZES.index(arm.model.split("-")[1])
    if arm.method == "standard" and arm.decoding == "greedy":
        memory = 0.5 - 0.1 * size if arm.model.startswith("wild") else 0.6
    elif arm.method == "tokenswap":
        numbers = {"9": 0.05, "43": 0.15, "66": 0.25, "110": 0.5, "136": 0.6, "matched": 0.7}
        aux_size = SIZES.index(arm.aux.split("-")[1])
        memory = numbers[arm.words.split("-")[1]] - 0.1 * aux_size
        memory = (
            0.0 if arm.aux == "wild-M" and arm.method == "tokenswap" else 0.8 if arm.model == "goldfish3-M" else memory
        )
        cost += {"tuned-L": 1.5}.get(arm.model, 0.5 + 0.001 * len(arm.words) - memory)
    elif arm.method == "cp_fuse":
        memory, cost = (0.5, 4.0) if "half" in name else (0.1, 3.0 if "XS" in name else 4.0)
    elif arm.method == "speculative":
        memory = 0.1
    return memory, cost


def world(law, seeds=4, n=100, exact=True):
    """(metrics, items, runs) in the row format of decoding runs; all arms of a seed share their passages."""
    names = sorted({canonical(name) for arms in EXPERIMENTS.values() for name in arms})
    made, runs = [], {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        hard, noise = rng.random(n), rng.standard_normal(n)
        for name in names:
            memory, cost = law(name)
            memory = float(np.clip(memory + 0.004 * rng.standard_normal(), 0, 1))
            arm = measure.Arm.parse(name)
            exact_share = 0.0 if memory < 0.25 and exact else memory
            rouge = np.clip(0.1 + 0.85 * memory + 0.05 * noise, 0, 1)
            split = {"prose": slice(0, n // 2), "math": slice(n // 2, n)}
            changed = 0.0 if law is truth else 0.3
            content = np.where(rng.random(n) < changed * (arm.method == "tokenswap"), hard < 0.5, hard >= 0.5)
            function = hard < (0.7 - 0.1 * (arm.method == "tokenswap") * (1 if law is truth else -1))
            values = [
                ("exact_match", "passages", hard < exact_share),
                ("rouge_l", "passages", rouge),
                ("matching_characters", "passages", 300 * memory * (0.5 + hard)),
                ("cross_entropy", "held_out", cost + 0.3 * noise + 0.005 * rng.standard_normal()),
            ]
            if name in map(canonical, EXPERIMENTS["cloze"]):
                values += [("accuracy", "cloze_content", content), ("accuracy", "cloze_function", function)]
            for metric, data, array in values:
                domains = {domain: np.asarray(array, float)[where] for domain, where in split.items()}
                made.append(run_tables(name, domains, metric, data=data, seed=seed))
    metrics, items = (pd.concat(frames, ignore_index=True) for frames in zip(*made, strict=True))
    for experiment, arms in EXPERIMENTS.items():
        wanted = [canonical(name).replace(" ", "_") for name in arms]
        runs[experiment] = [f"{name}-s{seed}" for name in wanted for seed in range(seeds)]
    return metrics.drop(columns="experiment"), items, runs


def verdicts(world_of):
    claims = ledger.validate_claims(CLAIMS).claims
    return ledger.evaluate("tokenswap", claims, *world_of, scale="laptop").set_index("claim")


@pytest.fixture(scope="module")
def holds():
    return verdicts(world(truth))


def test_every_claim_is_measured(holds):
    assert not (holds["verdict"] == "not tested").any(), holds["reason"].to_dict()
    assert (holds["seeds"] == 4).all() and (holds["n"] > 0).all()
    with_items = holds["direction"] != "ordering"
    bare = {"set_cost", "histograms"}  # a range and a distance are no means over items
    saturated = holds["item_ci_low"].isna() & with_items
    assert set(holds.index[saturated]) - bare <= {
        *("extreme_exact", "wild_exact", "memfree_exact", "content_cloze", "aux_memorized")
    }


def test_where_the_paper_is_right_its_claims_are_reproduced(holds):
    assert (holds["verdict"] == "reproduced").all(), holds.loc[holds["verdict"] != "reproduced", "reason"].to_dict()


def test_where_it_is_wrong_its_claims_are_contradicted():
    found = verdicts(world(reverse, exact=False))
    wrong = found["verdict"] != "contradicted"
    assert not wrong.any(), found.loc[wrong, ["measured", "reason"]].to_dict("index")


def test_complete_success_is_no_draw():
    """Standard 100 %, TokenSwap 0 % in each of three seeds: no spread over seeds, but the passages decide."""
    arms = [
        (name, [value] * 200, metric, {"seed": seed, "data": data})
        for seed in range(3)
        for name, exact, cost in (("wild-L standard", 1, 3.0), ("wild-M standard", 0, 3.5), ("wild-S standard", 0, 3.7),
                                  ("wild-XS standard", 0, 3.9), ("wild-L tokenswap background-S", 0, 2.9))
        for metric, value, data in (("exact_match", exact, "passages"), ("cross_entropy", cost, "held_out"),
                                    ("accuracy", exact, "cloze_content"))
        if not (metric == "accuracy" and "wild-L" not in name)
    ]  # fmt: skip
    metrics, items = tables(*arms)
    same = metrics["metric"].eq("accuracy"), items["metric"].eq("accuracy")
    metrics.loc[same[0], "value"], items.loc[same[1], "value"] = 1.0, 1.0
    claims = [
        c for c in ledger.validate_claims(CLAIMS).claims if c.claim in ("wild_exact", "trade_off", "content_cloze")
    ]
    runs = dict.fromkeys(("wild", "sizes", "cloze"), metrics["run"].unique().tolist())
    found = ledger.evaluate("tokenswap", claims, metrics, items, runs, scale="laptop")
    assert (found["basis"] == "exact binomial over items").all() and (found["verdict"] == "reproduced").all()


# ---- the file


def test_every_statistic_is_claimed():
    public = {
        name
        for name, f in inspect.getmembers(measure, inspect.isfunction)
        if f.__module__ == measure.__name__ and not name.startswith("_")
    }
    claims = ledger.validate_claims(CLAIMS).claims
    assert public == {claim.statistic.split(":")[1] for claim in claims}
    for claim in claims:
        assert set(claim.experiments) <= set(EXPERIMENTS), claim.claim
        assert all(table.startswith("tokenswap_") for table in claim.tables)
        assert len(claim.label()) < 160


def test_every_claimed_arm_is_planned():
    """Each arm of a claim is exactly one arm of the claim's experiments, as configured."""
    config = yaml.safe_load(CONFIG.read_text())
    for claim in ledger.validate_claims(CLAIMS).claims:
        args = claim.args
        lines = [args[key] for key in ("arm", "reference", "frontier") if key in args] + args.get("references", [])
        names = [name for line in lines for name in (measure._series(line, args["over"]) if "{}" in line else [line])]
        planned = [arm for name in claim.experiments for arm in config["experiments"][name]["arms"]]
        defaults = {"method": "standard", "aux": "", "decoding": "greedy"}
        planned = [{**defaults, **arm} for arm in planned]
        for arm in planned:
            arm.setdefault("words", config["words"] if arm["method"] == "tokenswap" else "")
        for arm in map(measure.Arm.parse, names):
            keys = [key for key in ("model", "method", "aux", "words", "decoding") if getattr(arm, key) is not None]
            same = [one for one in planned if all(one[key] == getattr(arm, key) for key in keys)]
            assert len({tuple(sorted(one.items())) for one in same}) == 1, f"{claim.claim}: {arm.name}"


def test_published_values_are_those_of_the_tables():
    published = {c["claim"]: c.get("published") for c in yaml.safe_load(CLAIMS.read_text())["claims"]}
    by_hand = {
        "extreme_exact": (0.1 + 1.8) / (83.4 + 93.6),
        "near_verbatim": (0.19 - 0.29 + 0.38 - 0.44) / 2,
        "cp_fuse_shared": (49.2 - 0.0 + 47.1 - 0.1) / 200,
        "overfitted_gain": (5.98 - 6.68 + 4.65 - 4.94) / 2,
        "wild_exact": 5.98 / 65.22,
        "wild_cost": 2.88 - 2.80,
        "tiny_partner": 3.41 - 2.81,
        "trade_off": np.interp(2.87, [2.85, 2.97], [0.4511, 0.3696]) - 0.087,
        "goldfish_par": 0.22 - 0.23,
        "goldfish_compose": 7.9 - 12.4,
        "set_cost": 2.87 - 2.86,
        "memfree_exact": 0.0,
    }
    assert {name: value for name, value in published.items() if value is not None} == {
        name: pytest.approx(value, abs=6e-4) for name, value in by_hand.items()
    }


def test_bound_of_the_histograms_is_half_a_standard_deviation():
    bound = {c.claim: c.threshold for c in ledger.validate_claims(CLAIMS).claims}["histograms"]
    assert 2 * stats.norm.cdf(0.25) - 1 == pytest.approx(bound, abs=0.005)
