"""Pre-training tables of paper `geometry`: every number against a value worked out by hand, a plain loop or scipy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_geometry import LAST, PEAK, STEPS, TOKENS, TROUGH, fake
from scipy import stats

from memorization.errors import UserError
from memorization.probes.phases import PHASES, label_phases
from memorization.provenance.record import read_table, write_table
from memorization.tables import geometry_pretraining as tables
from memorization.tables import geometry_rows
from memorization.tables.common import pick
from memorization.tables.geometry_rows import CURVE, Curve

ROOT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(ROOT / "config/published/geometry.csv")
NONE = pd.DataFrame()
WARMUP, ENTROPY, COMPRESSION = PHASES
EXPERIMENTS = {
    "fig2": ["main"], "fig3": ["main", "ngrams"], "fig11": ["small"], "tab9": ["main"],
    "x_third_phase": ["third_phase"],
}  # fmt: skip


def published(name):
    """The paper's rows of a figure, as the workflow gives them."""
    rows = PUBLISHED[[f"geometry_{name}" in names.split() for names in PUBLISHED["figure"]]]
    return {"published": rows if len(rows) else None}


def loaded(name, **effects):
    """Measurements of the experiments of a table, as the workflow loads them."""
    metrics, items = fake(**effects)
    make = getattr(tables, name)
    metrics = pick(metrics, experiment=EXPERIMENTS[name])
    runs = metrics["run"].unique()
    return pick(metrics, metric=make.reads[0]), pick(items, metric=make.reads[1], run=list(runs))


def made(name, **effects):
    return getattr(tables, name)(*loaded(name, **effects), published(name))


def row(metric="rank_me", value=1.0, step=0, subset="text", **about):
    """One measurement of a pre-training run."""
    run = {"experiment": "main", "run": "M-s0", "model": "M", "seed": 0, "variant": "base", "width": 32, "n": 640}
    at = {"stage": "pretraining", "base_tokens": 0, "tokens_per_step": 100, "split": "validation", "choice": "default"}
    return {**run, **at, "metric": metric, "value": value, "step": step, "subset": subset, **about}


def item(metric, values, step=0, subset="text", run="M-s0", seed=0):
    where = {"run": run, "seed": seed, "step": step, "subset": subset, "split": "validation", "metric": metric}
    return [{**where, "item": k, "value": value} for k, value in enumerate(values)]


def frame(*parts):
    return pd.DataFrame([one for part in parts for one in (part if isinstance(part, list) else [part])])


# ---- tokens and curves


def test_tokens_are_those_of_the_initial_weights_and_of_the_steps():
    rows = frame(row(step=3), row(step=7, base_tokens=5000, tokens_per_step=16))
    assert geometry_rows.tokens_of(rows).tolist() == [300.0, 5112.0]
    with pytest.raises(UserError, match="tokens_per_step"):
        geometry_rows.tokens_of(rows.drop(columns="tokens_per_step"))


def test_a_curve_goes_over_the_runs_of_public_checkpoints_in_the_order_of_tokens():
    rows = frame(
        row(value=3, run="b", base_tokens=800), row(value=1, run="c", base_tokens=0),
        row(value=2, run="a", base_tokens=200), row(value=9, run="z", base_tokens=100, stage="sft"),
        row(value=9, run="d", base_tokens=100, choice="layer"), row(value=9, run="e", metric="alpha"),
    )  # fmt: skip
    found = geometry_rows.default_rows(rows)
    assert found["tokens"].tolist() == [0, 200, 800] and found["value"].tolist() == [1, 2, 3]
    assert list(found.index) == [0, 1, 2]
    assert geometry_rows.default_rows(rows, stage="sft")["run"].tolist() == ["z"]


def test_a_run_that_two_experiments_share_is_one_curve_and_members_of_a_family_stay_apart():
    rows = frame(*(row(step=step, value=step) for step in (0, 1)))
    family = frame(*(row(step=1, choice="layer", layer=layer, value=10 + layer) for layer in (0.0, 1.0)))
    twice = pd.concat([rows, rows.assign(experiment="third_phase"), rows.assign(run="again"), family])
    assert geometry_rows.default_rows(twice)["value"].tolist() == [0, 1]
    assert geometry_rows.curves(twice, "rank_me", choice="layer")["value"].tolist() == [10, 11]
    assert geometry_rows.curves(NONE, "rank_me", choice="layer").empty
    with pytest.raises(UserError, match="'probe'"):
        geometry_rows.curves(rows, "rank_me", probe=1)


def test_resamples_are_arrays_in_the_order_of_tokens_and_of_their_own_run():
    rows = frame(
        row(value=5, run="late", base_tokens=900), row(value=7, run="early"),
        row(value=6, run="middle", base_tokens=400), row(value=2, run="other", model="L", width=64),
    )  # fmt: skip
    items = frame(
        item("rank_me_resample", [51, 52, 53], run="late"), item("rank_me_resample", [71, 72, 73], run="early"),
        item("rank_me_resample", [21, 22], run="other"), item("alpha_resample", [9, 9, 9], run="early"),
    )  # fmt: skip
    found = geometry_rows.resamples(items, rows)
    assert list(found) == [Curve("L", 0, "base"), Curve("M", 0, "base")]
    one = found[Curve("M", 0, "base")]
    # the checkpoint without resamples is left out
    assert one.tokens.tolist() == [0, 900] and one.curve.tolist() == [7, 5] and one.width == 32
    assert one.draws.tolist() == [[71, 51], [72, 52], [73, 53]]
    assert geometry_rows.resamples(NONE, rows) == {} and geometry_rows.resamples(items, rows, "alpha") == {}


def test_phases_are_those_of_each_curve_by_its_own_resamples():
    metrics, items = loaded("x_third_phase", third=False)
    found = geometry_rows.phases_of(metrics, items)
    assert len(found) == 5 * 3
    key = Curve("M", 1, "repeated")
    one = geometry_rows.resamples(items, metrics)[key]
    by_hand = label_phases(one.tokens, one.curve, one.draws)
    assert found[key].changes == by_hand.changes and found[key].observed == PHASES
    assert found[key].trough == TROUGH * TOKENS and found[key].peak == PEAK * TOKENS
    assert found[Curve("M", 1, "base")].observed == (WARMUP, ENTROPY)
    assert geometry_rows.phases_of(metrics, items, minimum=10.0)[key].observed == ()


def test_phase_rows_say_where_a_phase_begins_and_ends():
    metrics, items = loaded("x_third_phase")
    rows = geometry_rows.phase_rows(geometry_rows.phases_of(metrics, items))
    part = pick(rows, seed=0, variant="base").set_index("phase")
    assert part.loc[ENTROPY, ["tokens", "tokens_end"]].tolist() == [TROUGH * TOKENS, PEAK * TOKENS]
    assert np.isnan(part.loc[WARMUP, "tokens"]) and part.loc[WARMUP, "tokens_end"] == TROUGH * TOKENS
    assert part.loc[COMPRESSION, "tokens"] == PEAK * TOKENS and np.isnan(part.loc[COMPRESSION, "tokens_end"])
    assert part.loc[ENTROPY, "value"] == pytest.approx(np.log(4), abs=0.05)
    assert (part["low"] < part["value"]).all() and (part["value"] < part["high"]).all()


# ---- Figures 2 and 11


@pytest.mark.parametrize("name, models", [("fig2", {"M", "L"}), ("fig11", {"XS", "S"})])
def test_rows_have_the_phase_of_their_checkpoint(name, models):
    table = made(name)
    ours = pick(table, source="ours")
    assert set(ours["model"]) == models and set(ours["variant"]) == {"base"}
    by_step = ours.groupby(ours["tokens"] / TOKENS)["phase"].agg(set)
    for step, found in by_step.items():
        assert found == {WARMUP if step <= TROUGH else ENTROPY if step <= PEAK else COMPRESSION}, step
    # one row a metric, model, seed and checkpoint
    keys = [*CURVE, "tokens", "metric"]
    assert not ours.duplicated(keys).any()
    wanted = {"rank_me", "alpha", "cross_entropy", "gradient_norm", "learning_rate"}
    assert set(ours["metric"]) == (wanted if name == "fig2" else {"rank_me", "alpha"})
    assert ours.groupby("metric").size().eq(2 * 3 * len(STEPS)).all()


def test_loss_is_that_of_the_text_and_geometry_that_of_the_basic_measurement():
    metrics, items = loaded("fig2")
    table = tables.fig2(metrics, items, {})
    for metric, chosen in (("cross_entropy", {"subset": "text"}), ("alpha", {"choice": "default", "subset": "text"})):
        rows = pick(metrics, metric=metric, model="L", seed=2, **chosen).sort_values("step")
        assert len(rows) == len(STEPS)
        part = pick(table, metric=metric, model="L", seed=2).sort_values("tokens")
        assert part["value"].tolist() == rows["value"].tolist()
    assert set(table["source"]) == {"ours"}


def test_without_resamples_no_checkpoint_has_a_phase():
    metrics, _ = loaded("fig11")
    assert set(tables.fig11(metrics, NONE, {})["phase"]) == {""}


def test_the_papers_read_offs_stand_beside_ours():
    table = pick(made("fig2"), source="paper")
    olmo = pick(table, model="olmo2_7b", metric="rank_me").set_index("point")
    assert olmo.loc["peak", ["value", "tokens", "tokens_high"]].tolist() == [1040, 5e10, 6e10]
    assert set(table["seed"]) == {-1} and set(table["phase"]) == {""}
    assert pick(table, metric="expansion")[["value", "value_high"]].to_numpy().tolist() == [[2, 3]]


# ---- Figure 3


def test_rho_is_the_spearman_correlation_over_the_questions_of_the_same_seed():
    metrics, items = loaded("fig3", seeds=2)
    table = pick(tables.distributional(metrics, items), model="M", seed=1, subset="facts", tokens=512 * TOKENS)
    run = pick(metrics, model="M", seed=1, metric="rank_me")["run"].iloc[0]
    mine = pick(items, metric="answer_log_likelihood", run=run, subset="facts", step=512).set_index("item")["value"]
    for zeros, metric in tables.ZEROS.items():
        known = pick(items, metric=metric, run="ngrams-s1", subset="facts").set_index("item")["value"]
        both = pd.DataFrame({"model": mine, "known": known}).dropna()
        one = pick(table, zeros=zeros).iloc[0]
        assert one["n"] == len(both) == (57 if zeros == "skip" else 60)
        assert one["value"] == pytest.approx(stats.spearmanr(both["model"], both["known"].rank()).statistic)
        five = [part for _, part in both.groupby(both.index % 5)]
        # in one part every reference is -inf under "zero": it has no correlation
        parts = [
            stats.spearmanr(one["model"], one["known"].rank()).statistic for one in five if one["known"].max() > -99
        ]
        assert len(parts) == (5 if zeros == "skip" else 4)
        error = np.std(parts, ddof=1) / np.sqrt(len(parts))
        assert (one["low"], one["high"]) == pytest.approx((one["value"] - error, one["value"] + error))


def test_a_seed_without_an_infini_gram_model_has_no_rho():
    metrics, items = loaded("fig3", seeds=2)
    alone = items[items["run"] != "ngrams-s0"]
    assert set(tables.distributional(metrics, alone)["seed"]) == {1}
    with pytest.raises(UserError, match="infini-gram"):
        tables.fig3(metrics, items[~items["run"].str.startswith("ngrams")], {})


def test_accuracies_are_those_of_whole_models():
    metrics, items = loaded("fig3", seeds=1)
    table = tables.fig3(metrics, items, published("fig3"))
    ours = pick(table, source="ours", metric=["choice_accuracy", "recall"])
    assert not ours.duplicated([*CURVE, "tokens", "metric", "subset"]).any()
    assert len(ours) == 2 * 3 * len(STEPS)
    last = pick(ours, tokens=LAST * TOKENS, metric="recall")["value"]
    assert last.between(0.47, 0.53).all()  # with the top components alone it is .05
    for zeros in tables.ZEROS:
        assert len(pick(table, source="ours", metric="rho", zeros=zeros)) == 2 * 2 * len(STEPS)
    assert set(pick(table, source="ours", metric="alpha")["zeros"]) == {""}
    paper = pick(table, source="paper", model="pythia_12b").set_index("metric")["value"]
    assert paper["recall"] == 0.27 and paper["rho"] == 0.32


def test_a_measurement_of_a_whole_model_counts_once_whatever_it_is_called():
    rows = frame(
        row("recall", 0.5, 3, "facts"), row("recall", 0.5, 3, "facts", intervention="none", components=0),
        row("recall", 0.1, 3, "facts", intervention="keep_top", components=4),
        row("recall", 0.4, 2, "facts", intervention="none", components=0),
    )  # fmt: skip
    assert geometry_rows.curves(tables.untouched(rows), "recall")["value"].tolist() == [0.4, 0.5]


# ---- Table 9


def test_correlations_over_checkpoints_agree_with_scipy_in_every_range():
    metrics, items = loaded("tab9")
    table = tables.tab9(metrics, items, {})
    chosen = pick(metrics, metric="choice_accuracy", subset="continuations", model="L", seed=1)
    chosen = chosen[~chosen["intervention"].isin(["drop_top", "keep_top"])]
    chosen = chosen.drop_duplicates("step").set_index("step")["value"]
    for metric in ("alpha", "rank_me"):
        geometry = pick(metrics, metric=metric, choice="default", model="L", seed=1).set_index("step")["value"]
        for name, first in (("all", 0), ("from_trough", TROUGH), ("from_peak", PEAK)):
            steps = [step for step in STEPS if step >= first]
            for kind, correlate in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
                wanted = correlate(geometry[steps], chosen[steps]).statistic
                one = pick(table, model="L", seed=1, metric=f"correlation_{metric}", range=name, type=kind)
                assert one["value"].tolist() == pytest.approx([wanted]) and one["n"].tolist() == [len(steps)]
    assert len(table) == 2 * 3 * 2 * 3 * 2


def test_a_peak_at_the_end_leaves_nothing_to_correlate_after_it():
    table = made("tab9", third=False, seeds=1)
    late = pick(table, source="ours", range="from_peak")
    assert late["value"].isna().all() and set(late["n"]) == {1}


def test_constant_sides_and_few_points_have_no_correlation():
    x = pd.Series([1.0, 2, 3, 5])
    assert tables.correlation(x, pd.Series([2.0, 4, 5, 9]), "spearman") == pytest.approx(1)
    assert tables.correlation(x, pd.Series([2.0, np.nan, 2, 1]), "pearson") == pytest.approx(
        np.corrcoef([1, 3, 5], [2, 2, 1])[0, 1]
    )
    assert np.isnan(tables.correlation(x, pd.Series([2.0, 2, 2, 2]), "pearson"))
    assert np.isnan(tables.correlation(x[:2], pd.Series([2.0, 3]), "spearman"))


def test_the_papers_correlations_name_no_kind_and_no_range():
    paper = pick(made("tab9", seeds=1), source="paper")
    assert set(paper["type"]) == {"not stated"} and set(paper["range"]) == {""}
    values = paper.set_index(["model", "metric"])["value"]
    assert values["pythia_6_9b", "correlation_rank_me"] == -0.885
    assert values["olmo2_1b", "correlation_alpha"] == 0.54


# ---- the third phase


def test_variants_are_contrasted_with_the_base_of_the_same_seed():
    table = made("x_third_phase", third=False)
    changes = pick(table, metric="change").set_index(["variant", "seed", "phase"])
    contrasts = pick(table, metric="contrast")
    assert set(contrasts["variant"]) == {"repeated", "weight_decay", "long", "small_vocabulary"}
    for one in contrasts.itertuples():
        here, base = (changes.loc[(name, one.seed, one.phase), "value"] for name in (one.variant, "base"))
        assert one.value == pytest.approx(here - base)
    assert changes.loc[("repeated", 0, COMPRESSION), "state"] == "observed"
    assert changes.loc[("weight_decay", 0, COMPRESSION), "state"] == "not observed"
    assert changes.loc[("repeated", 2, COMPRESSION), "value"] == pytest.approx(np.log(0.6), abs=0.03)
    curve = pick(table, metric="rank_me", variant="repeated", seed=0)
    assert len(curve) == len(STEPS) and curve["phase"].iloc[-1] == COMPRESSION
    assert set(table["width"]) == {32}


def test_a_variant_of_another_size_is_contrasted_all_the_same():
    metrics, items = loaded("x_third_phase", third=False)
    other = metrics.assign(model=metrics["model"].where(metrics["variant"] != "repeated", "XS"))
    found, before = (pick(tables.x_third_phase(m, items, {}), metric="contrast") for m in (other, metrics))
    keys = ["variant", "seed", "phase"]
    both = found.merge(before, on=keys)
    assert len(both) == len(before) and np.allclose(both["value_x"], both["value_y"])
    assert set(pick(found, variant="repeated")["model"]) == {"XS"}


# ---- every table


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tables_can_be_written_and_read(name, tmp_path):
    table = made(name, seeds=1)
    write_table(table, tmp_path / "table.parquet")
    again = read_table(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_figure_without_measurements_says_so(name):
    with pytest.raises(UserError, match=f"geometry_{name} has nothing to show"):
        getattr(tables, name)(NONE, NONE, published(name))


def test_tables_import_no_torch():
    program = (
        "import sys, memorization.tables.geometry_pretraining; "
        "sys.exit(int(bool({'torch', 'transformers', 'scipy.stats'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# ---- the published numbers


def test_published_rows_are_complete_and_say_where_they_were_read():
    needed = ["figure", "metric", "value", "unit", "tag", "how_read"]
    assert PUBLISHED[needed].notna().all().all()
    assert set(PUBLISHED["tag"]) == {"fig", "P5"}
    assert PUBLISHED.loc[PUBLISHED["tag"] == "fig", "how_read"].str.startswith("read off Fig. ").all()
    assert not PUBLISHED.loc[PUBLISHED["tag"] == "P5", "how_read"].str.contains("read off").any()
    assert set(PUBLISHED["figure"]) == {f"geometry_{name}" for name in ("fig2", "fig3", "fig5", "tab7", "tab8", "tab9")}
    assert not PUBLISHED.duplicated([c for c in PUBLISHED if c != "value"]).any()
    ranges = PUBLISHED.dropna(subset=["value_high"])
    assert (ranges["value"] < ranges["value_high"]).all()
    ranges = PUBLISHED.dropna(subset=["tokens_high", "tokens"])
    assert (ranges["tokens"] < ranges["tokens_high"]).all()


def test_published_shares_of_suffix_lengths_are_a_whole():
    rows = pick(PUBLISHED, metric="suffix_length_share")
    assert rows["suffix_length"].tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert rows["value"].sum() == pytest.approx(100, abs=0.05)


def test_published_tables_hold_every_model_and_condition():
    eight = pick(PUBLISHED, figure="geometry_tab8")
    counts = eight.groupby("model").apply(lambda t: sorted(zip(t["intervention"], t["components"], strict=True)))
    wanted = [("drop_top", 10), ("drop_top", 50), ("keep_top", 10), ("keep_top", 50), ("none", 0)]
    assert len(counts) == 6 and all(one == wanted for one in counts)
    nine = pick(PUBLISHED, figure="geometry_tab9", metric=["correlation_alpha", "correlation_rank_me"])
    assert nine["model"].nunique() == 6 and len(nine) == 12
    signs = nine.groupby("metric")["value"].agg(["min", "max"])
    assert signs.loc["correlation_alpha", "min"] > 0 > signs.loc["correlation_rank_me", "max"]
    # accuracies in the table and read off the curve agree
    ends = pick(PUBLISHED, figure="geometry_fig3", metric="choice_accuracy", point="end")
    whole = pick(eight, intervention="none", model=["pythia_1b", "pythia_1_4b", "pythia_2_8b", "pythia_6_9b"])
    assert whole["value"].between(ends["value"].iloc[0] - 0.03, ends["value_high"].iloc[0] + 0.03).all()
