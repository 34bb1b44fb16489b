"""Tables of paper `patterns`: every number against a value worked out by hand or by a plain loop."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_runs import everything
from scipy import stats

from memorization.errors import UserError
from memorization.provenance.record import read_table, write_table
from memorization.tables import common
from memorization.tables import patterns as tables

ROOT = Path(__file__).parents[2]
ABOUT = {
    "experiment": "pairs", "data": "text", "model": "M", "items": 4, "batch_size": 2, "parameters": 100,
    "subset": "text", "split": "train", "prompt_length": 16, "completion_length": 10, "n": 4,
    "default_prompt_length": 16, "default_completion_length": 10, "metric": "exact_match",
}  # fmt: skip


def rows(values, every=10, run="r0", seed=0, **about):
    """Metrics rows of one curve, two steps an epoch (4 items, batch 2)."""
    steps = np.arange(1, len(values) + 1) * every
    return pd.DataFrame(
        {**ABOUT, "run": run, "seed": seed, "step": steps, "epoch": steps / 2, "value": values, **about}
    )


def item_rows(statuses, every=10, run="r0", seed=0, **about):
    """Item rows from a list of histories, one per item."""
    base = {"experiment": "pairs", "run": run, "seed": seed, "data": "text", "items": 4, "subset": "text",
            "split": "train", "metric": "exact_match"}  # fmt: skip
    return pd.DataFrame(
        [
            {**base, "item": i, "step": (t + 1) * every, "value": float(v), **about}
            for i, history in enumerate(statuses)
            for t, v in enumerate(history)
        ]
    )


def test_a_stopped_run_keeps_its_last_value_on_the_grid_of_the_longer_one():
    curves = pd.concat([rows([0.0, 0.5, 1.0]), rows([0.0, 0.2, 0.4, 0.6, 0.8], run="r1", seed=1)])
    full = common.carry_forward(curves, ["data", "model", "items"], ["run"])
    stopped = full[full["run"] == "r0"]
    assert stopped["step"].tolist() == [10, 20, 30, 40, 50]
    assert stopped["epoch"].tolist() == [5, 10, 15, 20, 25]
    assert stopped["value"].tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert stopped["carried"].tolist() == [False, False, False, True, True]
    assert not full.loc[full["run"] == "r1", "carried"].any()


def test_a_coarser_evaluation_grid_is_filled_with_the_last_value_seen_and_never_with_a_later_one():
    curves = pd.concat([rows([0.1, 0.2, 0.3, 0.4]), rows([0.5, 0.9], every=20, run="r1")])
    full = common.carry_forward(curves, ["data"], ["run"])
    coarse = full[full["run"] == "r1"]
    assert coarse["step"].tolist() == [20, 30, 40]  # nothing is known before its first evaluation
    assert coarse["value"].tolist() == [0.5, 0.5, 0.9]


def test_a_level_is_reached_at_the_first_evaluation_at_or_above_it():
    curve = rows([0.0, 19 / 20, 0.3, 1.0])
    assert common.epochs_to_level(curve, 0.95) == (20.0, 10.0, False)
    assert common.epochs_to_level(curve.iloc[::-1], 0.5) == (
        20.0,
        10.0,
        False,
    )  # order of rows does not matter
    assert common.epochs_to_level(curve, 1.0) == (40.0, 20.0, False)
    step, epoch, censored = common.epochs_to_level(rows([0.0, 0.4]), 0.5)
    assert np.isnan(step) and np.isnan(epoch) and censored


def test_times_to_levels_remember_how_long_was_looked():
    table = common.times_to_levels(rows([0.0, 0.6, 0.7]), [0.5, 0.9], ["run", "seed"])
    assert table["value"].tolist()[0] == 10.0 and np.isnan(table["value"].tolist()[1])
    assert table["censored"].tolist() == [False, True]
    assert table["last_epoch"].tolist() == [15.0, 15.0]


def test_forgettings_and_first_events_equal_a_plain_loop_over_histories():
    rng = np.random.default_rng(3)
    statuses = rng.random((12, 30)) < 0.4
    statuses[0] = False
    statuses[1, 0] = True  # memorized at its first evaluation
    items = item_rows(statuses.tolist())
    history = common.item_histories(items.sample(frac=1, random_state=1), rows(list(statuses.mean(0))))
    counts = common.forgettings(history).set_index("item")["value"]
    events = common.first_events(history).pivot(index="item", columns="metric", values="value")
    for i, status in enumerate(statuses):
        count, memorized, forgotten, before = 0, None, None, False
        for t, now in enumerate(status):
            epoch = (t + 1) * 10 / 2
            if now and not before and memorized is None:
                memorized = epoch
            if before and not now:
                count += 1
                forgotten = epoch if forgotten is None else forgotten
            before = now
        assert counts[i] == count
        for name, expected in (("first_memorized", memorized), ("first_forgotten", forgotten)):
            assert events.loc[i, name] == expected or (expected is None and np.isnan(events.loc[i, name]))
    table = tables.tab1(rows(list(statuses.mean(0))), items, {})
    assert table["value"].item() == pytest.approx(counts.mean()) and table["n"].item() == 12


def test_items_with_one_number_in_different_runs_are_different_items():
    items = pd.concat([item_rows([[1, 0, 1]]), item_rows([[0, 0, 1]], run="r1", seed=1)])
    metrics = pd.concat([rows([1.0, 0, 1]), rows([0, 0, 1.0], run="r1", seed=1)])
    assert tables.tab1(metrics, items, {}).set_index("seed")["value"].to_dict() == {0: 1.0, 1: 0.0}


def test_linear_fit_agrees_with_scipy_and_refuses_a_single_x():
    x, y = np.array([100, 200, 400, 800.0]), np.array([0.5, 0.9, 2.2, 3.9])
    slope, intercept, r2 = common.linear_fit(x, y)
    reference = stats.linregress(x, y)
    assert (slope, intercept) == pytest.approx((reference.slope, reference.intercept))
    assert r2 == pytest.approx(reference.rvalue**2)
    assert np.isnan(common.linear_fit(np.array([5.0, 5.0]), np.array([1.0, 2.0]))).all()


def test_the_minimal_model_is_the_smallest_that_reaches_the_level():
    best = pd.DataFrame(
        {
            "items": [16, 16, 16, 32, 32, 64],
            "parameters": [10, 20, 30, 10, 20, 30],
            "value": [0.5, 0.95, 1.0, 0.2, 0.96, 0.94],
        }
    )
    found = common.minimal_models(best, 0.95, ["items"]).set_index("items")
    assert found.loc[16, "value"] == 20 and found.loc[32, "value"] == 20
    assert np.isnan(found.loc[64, "value"]) and found.loc[64, "censored"]


def test_fig10_uses_the_best_exact_match_of_a_run_but_its_last_loss():
    runs = []
    for model, parameters, number, best in (
        ("S", 10, 16, 1.0),
        ("L", 40, 32, 1.0),
        ("S", 10, 32, 0.5),
        ("L", 40, 16, 1),
    ):
        about = {"model": model, "parameters": parameters, "items": number, "run": f"{model}{number}"}
        runs += [rows([0.0, best, 0.3], **about), rows([2.0, 0.1, 0.7], metric="loss", **about)]
    table = tables.fig10(pd.concat(runs), pd.DataFrame(), {})
    assert sorted(table.loc[table["metric"] == "max_exact_match", "value"]) == [0.5, 1, 1, 1]
    assert (table.loc[table["metric"] == "final_loss", "value"] == 0.7).all()
    smallest = table[table["metric"] == "minimal_parameters"].set_index("items")["value"]
    assert smallest.to_dict() == {16: 10, 32: 40}
    fit = table.set_index("metric")["value"]
    assert fit["fit_slope"] == pytest.approx(30 / 16) and fit["fit_intercept"] == pytest.approx(-20)


def test_recency_pools_steps_with_new_items_and_states_the_level_of_chance():
    new, both, batch = [0, 2, 1], [0, 1, 0], [2, 2, 2]
    metrics = pd.concat(
        rows(values, metric=name, subset="all")
        for name, values in (("newly_memorized", new), ("newly_in_batch", both), ("batch_items", batch))
    )
    value = tables.tab2(metrics, pd.DataFrame(), {}).set_index("metric")["value"]
    assert value["new_in_batch"] == pytest.approx(100 * 1 / 3)
    assert value["new_in_batch_by_chance"] == pytest.approx(100 * 2 / 4)  # batch / N
    assert value["batch_new"] == pytest.approx(100 * 1 / 4)  # two steps of two items; the step without news is left out
    assert value["batch_new_by_chance"] == pytest.approx(100 * (2 * 2 / 4 + 1 * 2 / 4) / 4)
    assert value["new_items"] == 3


def test_recency_at_chance_is_measured_as_chance():
    rng = np.random.default_rng(0)
    number, batch, steps = 40, 8, 4000
    new = rng.integers(0, 4, steps)
    both = rng.hypergeometric(batch, number - batch, new)
    metrics = pd.concat(
        rows(values, metric=name, subset="all", items=number)
        for name, values in (
            ("newly_memorized", new), ("newly_in_batch", both), ("batch_items", np.full(steps, batch)),
        )
    )  # fmt: skip
    value = tables.tab2(metrics, pd.DataFrame(), {}).set_index("metric")["value"]
    assert value["new_in_batch"] == pytest.approx(value["new_in_batch_by_chance"], rel=0.05)
    assert value["batch_new"] == pytest.approx(value["batch_new_by_chance"], rel=0.05)


def test_equal_time_is_when_the_text_run_of_the_same_seed_reaches_the_level():
    metrics = pd.concat(
        [
            rows([0.5, 0.95, 1.0]),
            rows([0.1, 0.6, 0.9], run="w0", data="text_words", subset="text_words"),
            rows([0.1, 0.2, 0.5], run="r1", seed=1),  # never reaches it: compared at its end
            rows([0.0, 0.3, 0.4], run="w1", seed=1, data="text_words", subset="text_words"),
        ]
    )
    table = tables.tab3(metrics, pd.DataFrame(), {}).set_index(["metric", "data", "seed"])["value"]
    at_equal_time = table["exact_match_at_equal_time"].to_dict()
    assert at_equal_time == {
        ("text", 0): 0.95, ("text_words", 0): 0.6, ("text", 1): 0.5, ("text_words", 1): 0.4,
    }  # fmt: skip
    assert table["exact_match_at_end"]["text_words", 0] == 0.9


def test_published_values_join_their_own_condition_and_are_appended_otherwise():
    table = pd.DataFrame({"model": ["1M", "M"], "items": [200, 48], "seed": [0, 0], "value": [5.0, 1.0]})
    published = pd.DataFrame({"model": ["1M", "2M"], "items": [200.0, 400.0], "value": [29.4, 20.5]})
    joined = common.with_published(table, published, ["model", "items"]).set_index("model")
    assert joined.loc["1M", "published"] == 29.4 and joined.loc["1M", "value"] == 5.0
    assert np.isnan(joined.loc["M", "published"])
    assert joined.loc["2M", "published"] == 20.5 and np.isnan(joined.loc["2M", "value"])
    assert common.with_published(table, None, ["model"])["published"].isna().all()


def test_whole_set_takes_the_pooled_row_of_a_mixture_and_the_only_row_of_a_single_set():
    mixture = [rows([v], run="mix", data="mix4", subset=s) for s, v in (("mi", 1.0), ("mij", 0.0), ("all", 0.5))]
    both = common.whole_set(pd.concat([*mixture, rows([0.7])]))
    assert both.set_index("run")["value"].to_dict() == {"mix": 0.5, "r0": 0.7}


def test_a_run_that_two_experiments_share_counts_once():
    twice = pd.concat([rows([1.0]), rows([1.0], experiment="alone")])
    assert len(common.each_run_once(twice)) == 1


def test_buckets_hold_every_item_once_and_cut_where_a_plain_loop_cuts():
    rng = np.random.default_rng(5)
    statuses = rng.random((40, 16)) < 0.15
    table = tables.fig11(rows(list(statuses.mean(0))), item_rows(statuses.tolist()), {"buckets": 4})
    assert table.groupby("metric")["value"].sum().tolist() == pytest.approx([100, 100])
    first = [next((t + 1 for t, now in enumerate(status) if now), None) for status in statuses]
    for bucket in range(4):  # 16 evaluations in 4 buckets: 1-4, 5-8, ...
        expected = sum(t is not None and 4 * bucket < t <= 4 * bucket + 4 for t in first)
        got = table[(table["metric"] == "first_memorized") & (table["bucket"] == bucket)]
        assert got["value"].item() == pytest.approx(100 * expected / 40)
    never = table[(table["metric"] == "first_memorized") & (table["bucket"] == -1)]["value"].item()
    assert never == pytest.approx(100 * first.count(None) / 40)


def test_boxes_describe_only_items_that_are_not_memorized_at_that_step():
    status = [[0, 1], [0, 0], [1, 0], [0, 0]]
    scores = [[0.1, 1.0], [0.2, 0.4], [1.0, 0.8], [0.6, 0.6]]
    items = pd.concat([item_rows(status), item_rows(scores, metric="bleu1")])
    table = tables.fig13(rows([0.25, 0.25]), items, {})
    value = table.set_index(["status", "step", "statistic"])["value"]
    assert value["not memorized", 10, "median"] == pytest.approx(np.median([0.1, 0.2, 0.6]))
    assert value["not memorized", 20, "q3"] == pytest.approx(np.quantile([0.4, 0.8, 0.6], 0.75))
    assert value["forgotten", 20, "median"] == pytest.approx(0.8)  # item 2, memorized at step 10
    assert ("forgotten", 10, "median") not in value.index


def test_sampling_accuracy_weighs_evaluations_by_their_items():
    about = {"metric": "sampling_accuracy", "subset": "forgotten"}
    metrics = pd.concat([rows([1.0], n=1, **about), rows([0.2], every=20, n=3, **about)])
    table = tables.tab_sampling(metrics, pd.DataFrame(), {})
    assert table["value"].item() == pytest.approx((1 * 1.0 + 3 * 0.2) / 4) and table["n"].item() == 4


def test_adherence_is_that_of_the_last_step():
    metrics = rows([0.1, 0.9, 0.8], metric="adherence", data="mij", subset="mij", split="validation")
    assert tables.tab_adherence(metrics, pd.DataFrame(), {})["value"].item() == 0.8


def test_the_share_of_digits_is_read_from_the_name_of_the_mixture():
    assert tables.digit_share("text75_digits25") == 0.25
    with pytest.raises(UserError, match="text<percent>_digits<percent>"):
        tables.digit_share("mix4")


def test_a_figure_without_any_run_says_where_to_look():
    empty = rows([1.0]).iloc[:0]
    with pytest.raises(UserError, match=r"patterns_fig2a.*config/figures.yaml"):
        tables.fig2a(empty, pd.DataFrame(), {})


def test_fig4_compares_only_sets_trained_at_two_sizes():
    metrics = pd.concat(
        [
            rows([0.5, 1.0]),
            rows([0.2, 1.0], run="large", model="L", parameters=400, experiment="large"),
            rows([1.0, 1.0], run="mi", data="mi", subset="mi"),
        ]
    )
    table = tables.fig4(metrics, pd.DataFrame(), {})
    assert set(table["data"]) == {"text"}
    assert table.groupby("role")["model"].unique().map(list).to_dict() == {"large": ["L"], "small": ["M"]}


def test_the_scripts_load_only_what_a_table_reads_and_list_shared_runs_twice(tmp_path):
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    import make_tables

    metrics = pd.concat([rows([0.0, 1.0]), rows([9.0, 9.0], metric="loss"), rows([0.5], run="other")])
    metrics = metrics.drop(columns="experiment")
    write_table(metrics, tmp_path / "metrics.parquet")
    paths = [str(tmp_path / "metrics.parquet")]
    found = make_tables.read_rows(paths, {"alone": ["r0"], "jumps": ["r0"]}, ["exact_match"])
    assert set(found["metric"]) == {"exact_match"} and set(found["run"]) == {"r0"}
    assert found.groupby("experiment").size().to_dict() == {"alone": 2, "jumps": 2}

    spec = {
        "figure": "patterns_figB2",
        "runs": {"jumps": ["r0"]},
        "options": {"text": ["jump", 0.2]},
        "params": {},
    }
    smk = SimpleNamespace(
        input=SimpleNamespace(metrics=paths, per_item=[], published=ROOT / "config/published/patterns.csv"),
        output=SimpleNamespace(table=[str(tmp_path / "table.parquet")]),
        params=SimpleNamespace(tables=[spec], scale="smoke"),
    )
    make_tables.main(smk)
    table = read_table(tmp_path / "table.parquet")
    assert set(table["option"]) == {"jump"} and set(table["option_value"]) == {0.2}
    assert table.set_index("level")["value"].to_dict() == {0.5: 10.0, 0.95: 10.0}


def test_tables_of_a_whole_paper_survive_parquet(tmp_path):
    metrics, items = everything(seeds=2, every=100)
    import yaml

    catalog = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
    published = pd.read_csv(ROOT / "config/published/patterns.csv")
    for figure, entry in catalog.items():
        if entry["paper"] != "patterns":
            continue
        make = common.figure_function("tables", figure)
        loaded = [
            common.pick(frame, experiment=entry["experiments"], metric=names)
            for frame, names in zip((metrics, items), make.reads, strict=True)
        ]
        theirs = published[published["figure"] == figure]
        params = {**entry["params"], "models": {"M": {"layers": 2, "width": 64}}, "published": theirs}
        table = make(*loaded, params)
        assert len(table) and {"metric", "value"} <= set(table.columns), figure
        write_table(table, tmp_path / "t.parquet")
        assert len(read_table(tmp_path / "t.parquet")) == len(table)


def test_published_numbers_say_where_they_were_read():
    published = pd.read_csv(ROOT / "config/published/patterns.csv")
    assert set(published["tag"]) <= {"P2-txt", "calc"} and published["how_read"].notna().all()
    assert not published.duplicated(["figure", "data", "model", "items", "subset", "metric"]).any()
    chance = published[published["metric"] == "new_in_batch_by_chance"]
    assert np.allclose(chance["value"], 100 * 64 / chance["items"]) and set(chance["tag"]) == {"calc"}
    table1 = published[published["figure"] == "patterns_tab1"].set_index("model")["value"].to_dict()
    assert table1 == {"1M": 29.4, "2M": 20.5, "4M": 19.3, "12M": 39.4}


def test_tables_import_neither_torch_nor_matplotlib():
    program = (
        "import sys, memorization.tables.patterns; "
        "sys.exit(','.join({'torch', 'transformers', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
