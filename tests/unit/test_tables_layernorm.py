"""Tables of paper `layernorm`: every number against a value worked out by hand or by a plain loop."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_layernorm import PAPERS, everything

from memorization.errors import UserError
from memorization.provenance.record import read_table, write_table
from memorization.tables import layernorm as tables
from memorization.tables import layernorm_rows
from memorization.tables.common import pick

ROOT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(ROOT / "config/published/layernorm.csv")
NONE = pd.DataFrame()
OUTCOMES = ["memorization", "recovery", "random"]


def published(name):
    """The paper's rows of a figure, as the workflow gives them."""
    rows = PUBLISHED[[f"layernorm_{name}" in names.split() for names in PUBLISHED["figure"]]]
    return {"published": rows if len(rows) else None}


def row(model="text_pre", arm="none", metric="accuracy", value=0.5, epoch=4.0, seed=0, split="validation", **about):
    """One measurement row of a fine-tuning run."""
    experiment, noise = about.get("experiment", "main"), about.get("noise", 0.02)
    post = model in ("text_post", "minilm", "bert")
    return {
        "experiment": "main", "run": f"{model}-{experiment}-{arm}-{noise}-s{seed}", "model": model,
        "position": "post" if post else "pre", "data": "packages", "arm": arm, "noise": noise, "optimizer": "adamw",
        "form": "classifier", "start": "pretrained", "seed": seed, "step": int(10 * epoch), "epoch": float(epoch),
        "budget": 4.0 if post else 8.0, "stage": "fine_tuning", "subset": "all", "split": split, "metric": metric,
        "value": float(value), "n": 100, **about,
    }  # fmt: skip


def state(model, arm, epoch, train, test, outcomes=(1.0, 0.0, 0.0), **about):
    """All rows of one evaluation."""
    rows = [
        row(model, arm, "accuracy", train, epoch, split="train", **about),
        row(model, arm, "accuracy", test, epoch, split="validation", **about),
    ]
    for metric, value in zip(OUTCOMES, outcomes, strict=True):
        rows.append(row(model, arm, metric, value, epoch, split="train", **{**about, "subset": "noisy", "n": 20}))
    return rows


def frame(*parts):
    return pd.DataFrame([one for part in parts for one in (part if isinstance(part, list) else [part])])


def value(table, **chosen):
    """The one value of a table under some conditions."""
    found = pick(table, **chosen)
    assert len(found) == 1, found
    return found["value"].iloc[0]


@pytest.fixture
def pair():
    """A Pre-LN and a Post-LN model, two arms, one seed, evaluated at epochs 2, 4, 6 and 8."""
    return frame(
        *(
            state("text_pre", "none", e, t, v, o)
            for e, t, v, o in (
                (2, 0.70, 0.60, (0.2, 0.5, 0.3)),
                (4, 0.96, 0.80, (0.6, 0.3, 0.1)),
                (6, 0.98, 0.82, (0.9, 0.1, 0.0)),
                (8, 1.00, 0.84, (1.0, 0.0, 0.0)),
            )
        ),
        *(
            state("text_pre", "all", e, t, v, o)
            for e, t, v, o in (
                (2, 0.50, 0.40, (0.1, 0.4, 0.5)),
                (4, 0.80, 0.66, (0.3, 0.5, 0.2)),
                (6, 0.95, 0.70, (0.5, 0.3, 0.2)),
                (8, 0.99, 0.71, (0.9, 0.1, 0.0)),
            )
        ),
        *(
            state("text_post", "none", e, t, v, o)
            for e, t, v, o in ((2, 0.9, 0.8, (0.5, 0.4, 0.1)), (4, 0.97, 0.85, (1, 0, 0)), (8, 1, 0.86, (1, 0, 0)))
        ),
        *(
            state("text_post", "all", e, t, v, o)
            for e, t, v, o in (
                (2, 0.6, 0.6, (0, 0.5, 0.5)),
                (4, 0.8, 0.78, (0.25, 0.6, 0.15)),
                (8, 0.9, 0.8, (0.75, 0.2, 0.05)),
            )
        ),
    )


# ---- states


def test_the_gap_is_train_minus_test_accuracy_of_the_same_evaluation(pair):
    table = layernorm_rows.states(pair)
    assert value(table, model="text_pre", arm="all", epoch=6, metric="gap") == pytest.approx(0.25)
    assert value(table, model="text_post", arm="none", epoch=2, metric="gap") == pytest.approx(0.1)
    assert (table["metric"] == "gap").sum() == 14


def test_accuracy_of_the_noisy_items_alone_is_not_training_accuracy(pair):
    more = row("text_pre", "none", "accuracy", 0.1, 4, split="train", subset="noisy")
    table = layernorm_rows.states(frame(pair.to_dict("records"), more))
    assert value(table, model="text_pre", arm="none", epoch=4, metric="train_accuracy") == 0.96


def test_a_run_that_two_experiments_share_is_counted_once(pair):
    twice = pd.concat([pair, pair.assign(experiment="checkpoint")])
    rows = layernorm_rows.of_experiments(twice, ["main", "checkpoint"])
    assert len(rows) == len(pair) and set(rows["experiment"]) == {"main"}


def test_changes_are_paired_by_seed_and_lone_arms_are_left_out():
    rows = frame(
        row(arm="none", value=0.9), row(arm="all", value=0.7), row(arm="none", value=0.5, seed=1),
        row(arm="all", value=0.6, seed=1), row(arm="all", value=0.1, seed=2),
    )  # fmt: skip
    table = layernorm_rows.changes(layernorm_rows.states(rows), ["model", "seed", "metric"])
    assert dict(zip(table["seed"], table["value"], strict=True)) == pytest.approx({0: -0.2, 1: 0.1})
    assert set(table["position"]) == {"pre"}


# ---- Figure 1 and trajectories


def test_bars_stand_at_the_budget_of_each_position(pair):
    table = tables.fig1(pair, NONE, published("fig1"))
    ours = pick(table, source="ours")
    assert value(ours, model="text_pre", arm="all", metric="test_accuracy") == 0.71
    assert value(ours, model="text_post", arm="all", metric="test_accuracy") == 0.78
    assert value(ours, model="text_post", arm="all", metric="memorization") == 0.25
    assert len(ours) == 2 * 2 * 4
    paper = pick(table, source="paper")
    assert value(paper, model="vit_b", arm="all", metric="test_accuracy") == pytest.approx(0.457)
    assert value(paper, model="bert", arm="all", metric="memorization") == pytest.approx(0.192)
    assert value(paper, model="gpt_neo", arm="none", metric="memorization") == 1.0
    assert set(paper["seed"]) == {-1} and paper["model"].nunique() == 13


def test_trajectories_count_epochs_in_budgets_and_name_both_models(pair):
    params = {"shown": {"qwen2": "text_pre", "electra": "text_post"}, **published("fig2")}
    table = tables.fig2(pair, NONE, params)
    ours = pick(table, source="ours", panel="electra", model="text_post", arm="all", metric="recovery")
    assert dict(zip(ours["share"], ours["value"], strict=True)) == {0.5: 0.5, 1.0: 0.6, 2.0: 0.2}
    paper = pick(table, source="paper", panel="qwen2", arm="all", metric="test_accuracy")
    assert paper.set_index("share")["value"][1.0] == pytest.approx(0.78)
    paper = pick(table, source="paper", panel="electra", arm="all", metric="gap").set_index("share")["value"]
    assert paper[1.0] == pytest.approx(0.935 - 0.864) and paper.index.max() == 70 / 40


def test_the_model_with_the_papers_name_is_preferred_and_one_without_any_is_shown_alone(pair):
    both = frame(pair.to_dict("records"), state("bert", "none", 4, 0.9, 0.77), state("bert", "all", 4, 0.9, 0.66))
    shown = {"bert": "text_post", "deberta": "text_post", "roberta": "elsewhere"}
    params = {"position": "post", "shown": shown, **published("fig12_16")}
    assert layernorm_rows.panels(both, params) == {"bert": "bert", "deberta": "text_post", "roberta": ""}
    table = tables.fig12_16(both, NONE, params)
    drawn = pick(table, source="ours").groupby("panel")["model"].unique().map(list).to_dict()
    assert drawn == {"bert": ["bert"], "deberta": ["text_post"]}
    assert set(pick(table, panel="roberta")["source"]) == {"paper"}


def test_checkpoints_of_the_position_get_panels_of_their_own(pair):
    more = state("minilm", "none", 4, 0.9, 0.7, experiment="checkpoint", start="public")
    more += state("text_pre", "early", 4, 0.9, 0.7, experiment="checkpoint")  # of the other position
    rows = frame(pair.to_dict("records"), more)
    table = tables.fig12_16(rows, NONE, {"position": "post", "shown": {"bert": "text_post"}})
    assert list(table["panel"].unique()) == ["bert", "minilm"]
    assert list(tables.fig2(rows, NONE, {"shown": {"electra": "text_post"}})["panel"].unique()) == ["electra"]


def test_losses_keep_their_split_and_their_unit():
    rows = frame(
        row("text_pre", "none", "loss", 0.3, 8, split="train"), row("text_pre", "none", "loss", 1.7, 8),
        row("text_pre", "none", "loss", 9.0, 8, split="train", subset="noisy"),
    )  # fmt: skip
    table = tables.fig34(rows, NONE, {"shown": {"gpt_neo": "text_pre", "bert": "text_post"}, **published("fig34")})
    assert value(table, source="ours", metric="train_loss") == 0.3
    assert value(table, source="ours", metric="test_loss") == 1.7
    paper = pick(table, panel="bert", arm="all", metric="test_loss").set_index("epoch")["value"]
    assert paper[40] == pytest.approx(0.3411)


# ---- thirds


def test_thirds_are_read_at_the_budget_and_leave_other_arms_out(pair):
    more = [one for arm, test in (("early", 0.5), ("late", 0.83), ("attention", 0.1))
            for epoch in (4, 6) for one in state("text_pre", arm, epoch, 0.9, test + (epoch == 6) * 0.01)]  # fmt: skip
    rows = frame(pair.to_dict("records"), more)
    table = tables.fig3(rows, NONE, {"shown": {"deit": "text_pre", "deberta": "text_post"}, **published("fig3")})
    ours = pick(table, source="ours", panel="deit")
    assert set(ours["arm"]) == {"none", "all", "early", "late"}
    assert value(ours, arm="early", metric="test_accuracy") == pytest.approx(0.51)  # last within the budget of 8
    assert value(ours, arm="early", metric="gap") == pytest.approx(0.39)
    paper = pick(table, source="paper", panel="deberta", arm="early")
    assert value(paper, metric="memorization") == pytest.approx(0.275)
    assert value(pick(table, source="paper", panel="deit"), arm="middle", metric="gap") == pytest.approx(0.196)


@pytest.mark.parametrize(
    ("name", "panel", "arm", "metric", "wanted"),
    [
        ("fig17_22", "vit_s", "early", "test_accuracy", 0.730),
        ("fig17_22", "qwen2", "none", "memorization", 0.833),
        ("fig23_27", "electra", "early", "recovery", 0.587),
        ("fig23_27", "distilbert", "all", "memorization", 0.975),
    ],
)
def test_other_thirds_have_the_papers_values_at_its_budgets(pair, name, panel, arm, metric, wanted):
    params = {"shown": {panel: "text_post"}, "position": "post", **published(name)}
    table = getattr(tables, name)(pair, NONE, params)
    assert value(table, source="paper", panel=panel, arm=arm, metric=metric) == pytest.approx(wanted)
    assert set(pick(table, source="ours")["model"]) == {"text_post"}


# ---- tables of the paper


def test_signs_stand_beside_changes_at_three_readings(pair):
    table = tables.tab1(pair, NONE, {"level": 0.95, **published("tab1")})
    ours = {(r.model, r.reading, r.metric): r.value for r in pick(table, source="ours").itertuples()}
    assert ours["text_pre", "budget", "test_accuracy"] == pytest.approx(0.71 - 0.84)
    assert ours["text_post", "budget", "memorization"] == pytest.approx(0.25 - 1)
    assert ours["text_post", "equal", "memorization"] == pytest.approx(0.75 - 1)
    assert ours["text_pre", "matched", "test_accuracy"] == pytest.approx(0.70 - 0.80)  # epochs 6 and 4
    assert ours["text_pre", "equal", "gap"] == pytest.approx((0.99 - 0.71) - (1 - 0.84))
    assert ("text_post", "matched", "gap") not in ours  # the stripped run never has 95 %
    signs = pick(table, source="paper").set_index(["position", "metric"])["value"].to_dict()
    assert signs == {
        ("pre", "test_accuracy"): -1, ("pre", "memorization"): 0, ("pre", "gap"): 1,
        ("post", "test_accuracy"): 0, ("post", "memorization"): -1, ("post", "gap"): -1,
    }  # fmt: skip


def test_shares_of_wrong_labels_stand_side_by_side_for_the_models_that_have_them(pair):
    more = state("text_post", "all", 4, 0.7, 0.6, (0.3, 0.3, 0.4), experiment="noise", noise=0.05)
    table = tables.tab4(frame(pair.to_dict("records"), more), NONE, published("tab4"))
    ours = pick(table, source="ours")
    assert set(ours["model"]) == {"text_post"} and set(ours["noise"]) == {0.02, 0.05}
    assert value(ours, noise=0.05, arm="all", metric="random") == 0.4
    assert value(ours, noise=0.02, arm="all", metric="memorization") == 0.25
    paper = pick(table, source="paper", model="bert")
    assert value(paper, noise=0.02, arm="all", metric="memorization") == pytest.approx(0.2062)
    assert value(paper, noise=0.05, arm="none", metric="test_accuracy") == pytest.approx(0.9035)
    assert value(paper, noise=0.01, arm="all", metric="recovery") == pytest.approx(0.725)


@pytest.mark.parametrize(
    ("name", "experiment", "column", "label", "wanted"),
    [("tab5", "muon", "optimizer", "muon", 0.3812), ("tab6", "label_word", "form", "label_word", 0.2938)],
)
def test_variants_stand_beside_the_runs_of_main(pair, name, experiment, column, label, wanted):
    more = state("text_pre", "all", 8, 0.7, 0.6, (0.2, 0.3, 0.5), experiment=experiment, **{column: label})
    table = getattr(tables, name)(frame(pair.to_dict("records"), more), NONE, published(name))
    ours = pick(table, source="ours", arm="all", metric="random")
    assert dict(zip(ours[column], ours["value"], strict=True)) == {pair[column].iloc[0]: 0.0, label: 0.5}
    assert value(table, source="paper", model="gpt_neo", arm="all", metric="random") == pytest.approx(wanted)


def test_a_variant_without_runs_says_where_to_look(pair):
    with pytest.raises(UserError, match=r"layernorm_tab5.*experiment muon.*config/figures.yaml"):
        tables.tab5(pair, NONE, published("tab5"))


# ---- beyond the paper


def test_the_contrast_against_epochs_and_its_three_readings(pair):
    table = tables.x_budget(pair, NONE, {"level": 0.95, **published("x_budget")})
    ours = pick(table, source="ours")
    curve = pick(ours, model="text_pre", metric="test_accuracy", reading="").set_index("share")["value"]
    assert curve.to_dict() == pytest.approx({0.25: -0.2, 0.5: -0.14, 0.75: -0.12, 1.0: -0.13})
    post = pick(ours, model="text_post", metric="memorization")
    marks = {r.reading: (r.share, r.value) for r in post.itertuples() if r.reading}
    assert marks == {"budget": (0.5, pytest.approx(-0.75)), "equal": (1.0, pytest.approx(-0.25))}
    matched = pick(ours, model="text_pre", metric="memorization", reading="matched")
    assert value(matched) == pytest.approx(0.5 - 0.6) and matched["share"].iloc[0] == 5 / 8  # epochs 6 and 4
    paper = pick(table, source="paper")
    # BERT at 40 of 70 epochs, from the logs; GPTNeo's intact log ends early, DeBERTa has none
    bert = pick(paper, model="bert", metric="test_accuracy", epoch=40)
    assert value(bert) == pytest.approx(0.914 - 0.92) and bert["share"].iloc[0] == pytest.approx(4 / 7)
    assert {"distilbert", "qwen2"} <= set(paper["model"]) and not {"gpt_neo", "deberta"} & set(paper["model"])


def test_readings_side_by_side_have_the_epoch_of_each(pair):
    table = tables.x_readings(pair, NONE, {"level": 0.95})
    epochs = pick(table, metric="epoch_reached").set_index(["model", "arm", "reading"])["value"].to_dict()
    assert epochs["text_post", "all", "budget"] == 4 and epochs["text_post", "all", "equal"] == 8
    assert epochs["text_pre", "none", "matched"] == 4 and epochs["text_pre", "all", "matched"] == 6
    assert ("text_post", "all", "matched") not in epochs
    assert value(table, model="text_pre", arm="all", reading="matched", metric="train_accuracy") == 0.95


def test_the_control_is_told_apart_by_its_start(pair):
    more = state("text_pre", "all", 8, 0.9, 0.5, experiment="scratch", start="scratch")
    more += [one for one in state("text_pre", "none", 8, 0.9, 0.52, experiment="scratch", start="scratch")]
    table = tables.x_scratch(frame(pair.to_dict("records"), more), NONE, {})
    assert set(table["model"]) == {"text_pre"}
    assert value(table, start="scratch", arm="all", metric="test_accuracy") == 0.5
    assert value(table, start="pretrained", arm="all", metric="test_accuracy") == 0.71


# ---- norms


def gradient(metric, value, layer, role="attention", epoch=8, definition="text", model="text_pre"):
    about = {"layer": float(layer), "role": role, "definition": definition}
    return row(model, "none", f"gradient_{metric}", value, epoch, **about)


@pytest.fixture
def gradients():
    """Three layers, two evaluations, two definitions."""
    rows = [gradient("learning", 4.0, k, epoch=4) for k in range(3)]
    for layer, learn, memorize in ((0, 8.0, 0.5), (1, 4.0, 1.0), (2, 1.0, 0.25)):
        rows += [gradient("learning", learn, layer), gradient("memorization", memorize, layer)]
        rows += [gradient("learning", 99.0, layer, definition="code")]
    rows += [gradient("learning", 3.0, 0, "feed_forward"), gradient("memorization", 0.0, 0, "feed_forward")]
    return frame(rows)


def test_gradients_are_those_of_the_last_evaluation_with_their_ratio(gradients):
    table = tables.fig4(gradients, NONE, {"shown": {"gpt_neo": "text_pre", "deberta": "x"}, **published("fig4")})
    ours = pick(table, source="ours", role="attention")
    assert pick(ours, metric="ratio").set_index("depth")["value"].to_dict() == {0: 16, 0.5: 4, 1: 4}
    assert pick(ours, metric="gradient_learning").set_index("layer")["value"].to_dict() == {0: 8, 1: 4, 2: 1}
    assert pick(table, source="ours", role="feed_forward", metric="ratio").empty  # divided by zero
    code = tables.fig4(gradients, NONE, {"shown": {"gpt_neo": "text_pre"}, "definition": "code"})
    assert set(code["value"]) == {99.0}
    paper = pick(table, source="paper", panel="gpt_neo", role="attention", metric="ratio").set_index("layer")["value"]
    assert len(paper) == 12 and paper.median() == pytest.approx(164, abs=0.5)


def test_median_ratios_of_all_models_stand_together(gradients):
    table = tables.fig28_33(gradients, NONE, published("fig28_33"))
    medians = pick(table, metric="median_ratio")
    assert value(medians, source="ours", model="text_pre") == 4.0
    paper = pick(medians, source="paper").set_index("model")["value"]
    wanted = {"bert": 50, "deberta": 20.5, "qwen2": 2209, "vit_b": 1.62e5, "roberta": 8.3}
    assert len(paper) == 13 and paper[list(wanted)].to_dict() == pytest.approx(wanted, rel=0.01)
    assert set(pick(table, source="paper")["metric"]) == {"median_ratio"}


def test_gradients_over_epochs_keep_every_evaluation(gradients):
    table = tables.fig35(gradients, NONE, {"shown": {"gpt_neo": "text_pre"}})
    learn = pick(table, metric="gradient_learning", layer=2, role="attention")
    assert dict(zip(learn["share"], learn["value"], strict=True)) == {0.5: 4.0, 1.0: 1.0}
    assert set(table["source"]) == {"ours"}


def test_norms_are_those_at_the_end_of_pretraining_and_of_checkpoints_before_the_first_step():
    first = {"experiment": "pretraining", "stage": "pretraining", "run": "p"}
    place = {"layer": 1.0, "role": "attention", "split": "train"}
    text = {**first, "stripped": "none"}
    rows = frame(
        row(metric="gain_moved", value=0.1, epoch=0, **{**first, **place}),
        row(metric="gain_moved", value=0.7, epoch=9, **{**first, **place}),
        row(metric="bias_moved", value=0.3, epoch=9, **{**first, **place, "layer": -1.0, "role": "final"}),
        row(metric="cross_entropy", value=6.0, epoch=0, **text),
        row(metric="cross_entropy", value=5.0, epoch=9, **text),
        row(metric="cross_entropy", value=5.4, epoch=9, **{**first, "stripped": "all"}),
        row(metric="unigram_entropy", value=5.7, epoch=0, **text),
        row("minilm", metric="gain_moved", value=0.5, epoch=0, start="public", experiment="checkpoint", **place),
        row("minilm", metric="gain_moved", value=0.6, epoch=8, start="public", experiment="checkpoint", **place),
        row("minilm", "all", metric="gain_moved", value=0.0, epoch=0, start="public", experiment="checkpoint", **place),
        row("text_post", metric="gain_moved", value=0.4, epoch=0, **place),
    )  # fmt: skip
    table = tables.x_norms(rows, NONE, {})
    assert value(table, model="text_pre", metric="gain_moved", layer=1, role="attention") == 0.7
    assert value(table, metric="bias_moved", layer=-1, role="final") == 0.3
    losses = pick(table, metric="cross_entropy").set_index("stripped")["value"].to_dict()
    assert losses == {"none": 5.0, "all": 5.4}
    assert value(table, metric="unigram_entropy") == 5.7
    assert value(table, model="minilm") == 0.5
    assert "text_post" not in set(table["model"])  # pre-trained here: its end of pre-training counts, not its start


# ---- the published numbers


def test_published_rows_are_complete_and_say_where_they_were_read():
    names = {f"layernorm_{name}" for name in tables.__all__}
    used = {name for names in PUBLISHED["figure"] for name in names.split()}
    assert (
        used < names
        and not PUBLISHED.duplicated(["figure", "model", "metric", "arm", "noise", "epoch", "layer", "role"]).any()
    )
    assert PUBLISHED[["value", "unit", "tag", "how_read", "position"]].notna().all().all()
    shares = PUBLISHED[PUBLISHED["unit"] == "percent"]
    assert shares["value"].between(0, 100).all()
    fate = shares[shares["metric"].isin(OUTCOMES)]
    total = fate.groupby(["figure", "model", "arm", "noise", "epoch"])["value"].agg(["sum", "size"])
    assert (total["size"] == 3).all() and total["sum"].between(99.6, 100.4).all()


# ---- all of them


@pytest.mark.parametrize(
    "made", [{"seeds": 1, "checkpoint": False}, {"seeds": 3}, {"seeds": 2, "models": PAPERS, "checkpoint": False}]
)
def test_tables_of_a_whole_paper_survive_parquet(made, tmp_path):
    metrics, items = everything(**made)
    paper = metrics.copy()
    assert len(tables.__all__) == 19
    for name in tables.__all__:
        make = getattr(tables, name)
        shown = {"gpt_neo": "text_pre", "vit_b": "digits_pre", "bert": "text_post", "roberta": "text_post"}
        wanted, none = make.reads
        assert none == []
        loaded = pick(metrics, metric=wanted).reset_index(drop=True)
        table = make(loaded, items, {"shown": shown, "position": "post", **published(name)})
        assert len(table) and {"metric", "value", "seed", "source", "model"} <= set(table.columns), name
        assert set(table.loc[table["source"] == "ours", "seed"]) <= set(range(made["seeds"]))
        assert np.isfinite(table["value"]).all(), name
        write_table(table, tmp_path / "t.parquet")
        assert len(read_table(tmp_path / "t.parquet")) == len(table)
    pd.testing.assert_frame_equal(metrics, paper)  # no table changes what it is given


@pytest.mark.parametrize("name", tables.__all__)
def test_a_figure_without_any_run_says_where_to_look(name):
    with pytest.raises(UserError, match=rf"layernorm_{name} has nothing to show.*config/figures.yaml"):
        getattr(tables, name)(frame(row()).iloc[:0], NONE, {"shown": {"bert": "text_post"}})


def test_tables_import_neither_torch_nor_matplotlib():
    program = (
        "import sys, memorization.tables.layernorm; "
        "sys.exit(','.join({'torch', 'transformers', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
