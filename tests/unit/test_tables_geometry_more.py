"""Tables of paper `geometry` on post-training, probes, suffixes and spectra against hand values and plain loops."""

import itertools
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_geometry import BASES, LAST, TOKENS, fake

from memorization.errors import UserError
from memorization.provenance.record import read_table, write_table
from memorization.tables import geometry_more, geometry_post
from memorization.tables.common import pick
from memorization.tables.geometry_post import CHAIN, shares_won

ROOT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(ROOT / "config/published/geometry.csv")
NONE = pd.DataFrame()
EXPERIMENTS = {
    "fig5": ["main", "sft", "chain"], "fig14": ["sft"], "fig7": ["main"], "fig8": ["main"], "fig9_10": ["main"],
    "x_choices": ["main"], "tab7": ["ngrams"], "tab8": ["main", "small"],
}  # fmt: skip


def function(name):
    """The table function of a figure."""
    return getattr(geometry_post if name in ("fig5", "fig14") else geometry_more, name)


def loaded(name, metrics, items):
    """Rows that the workflow gives to a figure."""
    make = function(name)
    metrics = pick(metrics, experiment=EXPERIMENTS[name], metric=make.reads[0]).reset_index(drop=True)
    own = pick(items, run=list(metrics["run"].unique()), metric=make.reads[1]) if make.reads[1] else NONE
    return metrics, own


def published(name):
    """The paper's rows of a figure, as the workflow gives them."""
    rows = PUBLISHED[[f"geometry_{name}" in names.split() for names in PUBLISHED["figure"]]]
    return {"published": rows if len(rows) else None}


@cache
def table_of(name, seeds=3):
    """Table of a figure from fake measurements."""
    return function(name)(*loaded(name, *fake(seeds=seeds)), published(name))


def ours(name, **chosen):
    """Our rows of a table."""
    return pick(table_of(name), source="ours", **chosen)


def same(left, right, columns):
    """Whether two tables hold the same values at the same places, in whatever order."""
    left, right = (frame.sort_values(columns)[[*columns, "value"]].to_numpy(float) for frame in (left, right))
    np.testing.assert_allclose(left, right, rtol=1e-6)


# ---- one stage after the other


def test_rank_me_along_the_chain_is_in_units_of_its_value_before_sft_of_the_same_seed():
    metrics, _ = fake()
    chain = pick(metrics, experiment="chain", metric="rank_me")
    for panel, chosen in (
        ("rank_me_text", {"choice": "default"}),
        ("rank_me_task", {"choice": "data", "subset": "short", "token": "answer"}),
    ):
        wanted = []
        for seed, (k, stage) in itertools.product(range(3), enumerate(CHAIN)):
            before = pick(chain, seed=seed, stage="sft", step=0, **chosen)["value"].item()
            for _, row in pick(chain, seed=seed, stage=stage, **chosen).iterrows():
                wanted.append((seed, 40 * k + row["step"], row["value"] / before))
        wanted = pd.DataFrame(wanted, columns=["seed", "at", "value"])
        found = ours("fig5", panel=panel)
        assert len(found) == 3 * 3 * 4
        same(found, wanted, ["seed", "at", "value"])
        assert (pick(found, stage="sft", step=0)["value"] == 1).all()


def test_runs_of_the_chain_that_start_elsewhere_are_left_out():
    metrics, items = fake()
    stray = pick(metrics, experiment="chain", stage="grpo").assign(start="base", run="stray", value=1e6)
    found = geometry_post.fig5(*loaded("fig5", pd.concat([metrics, stray], ignore_index=True), items), {})
    assert found["value"].max() < 1e5 and len(found) == len(pick(table_of("fig5"), source="ours"))


def test_pass_at_k_is_there_for_ends_of_stages_and_for_every_step_of_grpo():
    metrics, _ = fake()
    rows = pick(metrics, experiment="chain", metric="pass_at_k")
    found = ours("fig5", panel="pass")
    for stage, steps in (("sft", [40]), ("dpo", [40]), ("grpo", [0, 10, 20, 40])):
        assert sorted(pick(found, stage=stage)["step"].unique()) == steps
        same(pick(found, stage=stage), pick(rows, stage=stage, step=steps), ["seed", "step", "k"])
    most = ours("fig5", panel="pass_most")
    same(most, pick(rows, stage="grpo", k=64), ["seed", "step", "k"])
    same(ours("fig5", panel="rank_me_text_grpo"), pick(metrics, experiment="chain", stage="grpo", metric="rank_me",
                                                       choice="default"), ["seed", "step"])  # fmt: skip


# ---- from several checkpoints


def test_losses_are_those_of_the_last_step_and_of_the_format_that_was_tuned_on():
    metrics, _ = fake()
    rows = pick(metrics, experiment="sft", metric="reply_loss", step=40)
    for form, other in (("short", "long"), ("long", "short")):
        near = ours("fig14", panel="loss_in", format=form)
        far = ours("fig14", panel="loss_out", format=form)
        same(near, pick(rows, format=form, subset=form), ["seed", "base_tokens"])
        same(far, pick(rows, format=form, subset=other), ["seed", "base_tokens"])
    assert set(ours("fig5", panel=["loss_in", "loss_out"])["format"]) == {"short"}
    same(ours("fig5", panel="loss_out"), ours("fig14", panel="loss_out", format="short"), ["seed", "base_tokens"])


def test_win_rates_are_shares_of_the_items_of_the_same_seed_and_checkpoint():
    metrics, items = fake()
    runs = pick(metrics, experiment="sft").drop_duplicates("run").set_index("run")
    scores = pick(items, metric="judge_score", run=list(runs.index))
    by = {}
    for run, part in scores.groupby("run"):
        about = runs.loc[run]
        by[about["seed"], about["base_step"], about["format"]] = part.sort_values("item")["value"].to_numpy(float)

    def beats(mine, theirs):
        return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(mine, theirs, strict=True)) / len(mine)

    for seed, step in itertools.product(range(3), BASES):
        at = {"seed": seed, "base_tokens": step * TOKENS}
        mine = by[seed, step, "short"]
        won, over_last = (ours("fig14", panel=panel, **at)["value"].item() for panel in ("won", "won_last"))
        assert won == pytest.approx(beats(mine, by[seed, step, "long"]))
        assert over_last == pytest.approx(beats(mine, by[seed, LAST, "short"]))
        assert ours("fig5", panel="won", **at)["value"].item() == pytest.approx(won)
    assert (ours("fig14", panel="won_last", base_tokens=LAST * TOKENS)["value"] == 0.5).all()


def test_ties_count_one_half_and_items_of_only_one_model_do_not_count():
    about = {"model": "L", "seed": 0, "stage": "sft", "start": "base", "base_step": 4, "base_tokens": 8}
    mine = pd.DataFrame({**about, "format": "short", "item": [0, 1, 2, 3, 4], "value": [1.0, 2, 3, 4, 9]})
    theirs = pd.DataFrame({**about, "format": "long", "item": [3, 2, 1, 0, 7], "value": [5.0, 3, 1, 1, 0]})
    found = shares_won(mine, theirs, ["model", "seed", "base_step", "base_tokens"])
    assert found["value"].tolist() == [(0.5 + 1 + 0.5 + 0) / 4]  # items 0 tie, 1 won, 2 tie, 3 lost
    assert found["format"].tolist() == ["short"]
    assert shares_won(mine, theirs.assign(seed=1), ["model", "seed"]).empty


def test_rank_me_of_the_base_is_that_of_pre_training_at_the_checkpoints_that_were_tuned():
    metrics, _ = fake()
    found = ours("fig5", panel="rank_me_base")
    wanted = pick(metrics, experiment="main", model="L", metric="rank_me", choice="default", step=list(BASES))
    same(found, wanted.assign(base_tokens=wanted["step"] * TOKENS), ["seed", "base_tokens"])


def test_without_scores_of_a_judge_the_other_panels_are_there():
    metrics, _ = loaded("fig5", *fake())
    found = geometry_post.fig5(metrics, NONE, {})
    assert "won" not in set(found["panel"]) and {"loss_in", "pass", "rank_me_text"} <= set(found["panel"])


def test_values_of_the_paper_stand_in_the_panels_of_their_quantity():
    theirs = pick(table_of("fig5"), source="paper")
    assert theirs["panel"].notna().all() and (theirs["seed"] == -1).all()

    def of(**chosen):
        return pick(theirs, **chosen)["value"].tolist()

    assert of(panel="rank_me_text", point="end") == [930, 1190, 1100]
    assert of(panel="rank_me_text_grpo") == [1180, 1106]
    assert of(panel="rank_me_base") == [325, 460]
    assert (of(panel="loss_in"), of(panel="loss_out")) == ([286, 261], [137, 130.2, 131])
    assert of(panel="won", tag="P5") == [0.14, 0.09]
    assert of(panel="pass", stage="grpo", k=256) == [0.915, 0.887]
    assert of(panel="pass_most") == pytest.approx([0.927, 0.918, 0.915, 0.912, 0.887])


# ---- choices of the probe


@pytest.mark.parametrize(
    ("name", "choice", "column", "values"),
    [
        ("fig7", "layer", "layer", {0, 1, 2}),
        ("fig8", "sequences", "sequences", {80, 160, 320, 640, 1280}),
        ("fig8", "length", "length", {8, 16, 24, 32}),
        ("fig9_10", "data", "subset", {"text", "facts", "other", "shuffled"}),
        ("x_choices", "centring", "centred", {0, 1}),
        ("x_choices", "token", "token", {"last", "mean", "all"}),
        ("x_choices", "window", "window", {"scaled", "paper"}),
    ],
)
def test_families_hold_every_value_at_every_checkpoint(name, choice, column, values):
    metrics, _ = fake()
    found = ours(name, choice=choice, model="L", metric="alpha")
    assert set(found[column]) == values
    assert found.groupby([column, "seed"])["tokens"].nunique().eq(15).all() and len(found) == 15 * 3 * len(values)
    assert (found["tokens"] == found["step"] * TOKENS).all()
    wanted = pick(metrics, experiment="main", model="L", metric="alpha", choice=choice)
    for value in values:
        same(pick(found, **{column: value}), pick(wanted, **{column: value}), ["seed", "step"])


def test_rank_me_has_no_window_and_variants_of_the_third_phase_are_not_shown():
    table = table_of("x_choices")
    assert pick(table, choice="window", metric="rank_me").empty
    metrics, _ = fake()
    variant = pick(metrics, experiment="main").assign(variant="long", value=1e6)
    both = pd.concat([pick(metrics, experiment="main"), variant], ignore_index=True)
    assert geometry_more.fig7(both, NONE, {})["value"].max() < 1e5


def test_a_run_that_two_experiments_share_counts_once():
    metrics, _ = loaded("fig7", *fake())
    twice = pd.concat([metrics, metrics.assign(experiment="third_phase")], ignore_index=True)
    assert len(geometry_more.fig7(twice, NONE, {})) == len(table_of("fig7"))


def test_public_checkpoints_are_runs_of_their_own_and_lie_on_one_curve():
    metrics, _ = loaded("fig7", *fake(seeds=1))
    each = metrics.assign(
        run=metrics["run"] + "-" + metrics["step"].astype(str), base_tokens=metrics["step"] * TOKENS, step=0
    )
    keys = ["model", "tokens", "layer", "metric"]
    left, right = (f.sort_values(keys) for f in (geometry_more.fig7(each, NONE, {}), table_of("fig7", seeds=1)))
    assert left["tokens"].tolist() == right["tokens"].tolist() and left["value"].tolist() == right["value"].tolist()


# ---- tables


def test_suffix_lengths_are_binned_as_in_the_paper():
    shares = {0: 0.05, 2: 0.15, 3: 0.2, 4: 0.3, 8: 0.1, 9: 0.12, 14: 0.08}
    rows = [
        {"experiment": "ngrams", "subset": "facts", "seed": 1, "suffix_length": k, "value": v}
        for k, v in shares.items()
    ]
    found = geometry_more.tab7(pd.DataFrame(rows), NONE, {}).set_index("bin")["value"]
    wanted = {"0": 0.05, "1": 0, "2": 0.15, "3": 0.2, "<=3": 0.4, "4": 0.3, "5": 0, "6": 0, "7": 0, "8": 0.1, ">8": 0.2}
    assert found.to_dict() == pytest.approx(wanted)
    paper = pick(table_of("tab7"), source="paper").set_index("bin")["value"].to_dict()
    assert paper == pytest.approx(
        {"<=3": 0.2541, "4": 0.4661, "5": 0.1671, "6": 0.0608, "7": 0.024, "8": 0.0146, ">8": 0.0134}
    )


def test_bins_of_a_subset_and_seed_sum_to_one():
    rows = ours("tab7")
    sums = rows[rows["bin"] != "<=3"].groupby(["subset", "seed"])["value"].sum()
    assert len(sums) == 6 and sums.to_numpy() == pytest.approx(np.ones(6))


def test_interventions_are_read_at_the_end_with_their_k_in_order():
    metrics, _ = fake()
    found = ours("tab8", model="L")
    assert found.drop_duplicates(["place", "components"])[["place", "components", "share"]].sort_values(
        "place"
    ).to_numpy().tolist() == [[0, 0, 0], [1, 8, 0.125], [2, 16, 0.25]]
    for way, k in (("none", 0), ("drop_top", 16), ("keep_top", 8)):
        chosen = {"metric": "recall", "intervention": way, "components": k}
        wanted = pick(metrics, experiment="main", model="L", step=LAST, **chosen)
        same(pick(found, **chosen), wanted, ["seed"])
    assert set(ours("tab8")["model"]) == {"XS", "S", "M", "L"}
    paper = pick(table_of("tab8"), source="paper", model="olmo2_7b").sort_values(["place", "intervention"])
    assert paper["value"].tolist() == [0.970, 0.966, 0.155, 0.970, 0.308]
    assert paper["place"].tolist() == [0, 1, 1, 2, 2]


def test_only_the_last_public_checkpoint_counts():
    metrics, _ = loaded("tab8", *fake(seeds=1))
    rows = metrics[metrics["intervention"].notna()].assign(step=0)
    early = rows.assign(run="early", base_tokens=10.0, value=1e6)
    late = rows.assign(run="late", base_tokens=20.0)
    found = geometry_more.tab8(pd.concat([early, late], ignore_index=True), NONE, {})
    assert found["value"].max() <= 1 and len(found) == len(rows)


# ---- all


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tables_can_be_written_and_an_empty_set_of_runs_is_an_error_that_names_the_figure(name, tmp_path):
    table = table_of(name)
    write_table(table, tmp_path / "table.parquet")
    assert len(read_table(tmp_path / "table.parquet")) == len(table) and table["value"].notna().all()
    with pytest.raises(UserError, match=f"geometry_{name} "):
        function(name)(NONE, NONE, {})


def test_one_seed_without_published_values_gives_only_ours():
    for name in EXPERIMENTS:
        table = function(name)(*loaded(name, *fake(seeds=1)), {"published": None})
        assert set(table["source"]) == {"ours"} and set(table["seed"]) == {0}


def test_nothing_heavy_is_imported():
    code = (
        "import sys, memorization.tables.geometry_more, memorization.tables.geometry_post; "
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
