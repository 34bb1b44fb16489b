"""Tables of paper `tokenswap`: every number against a value worked out by hand or by a plain loop."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_tokenswap import everything

from memorization.errors import UserError
from memorization.provenance.record import read_table, write_table
from memorization.tables import common
from memorization.tables import tokenswap as tables

ROOT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(ROOT / "config/published/tokenswap.csv")
FIGURES = sorted(PUBLISHED["figure"].unique())
NONE = pd.DataFrame()


def row(model="wild-L", method="standard", aux="", words="", metric="exact_match", value=0.5, seed=0, **about):
    """One measurement row of an arm."""
    sizes = {"XS": 1, "S": 10, "M": 100, "L": 1000}
    recipe, size = model.rsplit("-", 1)
    return {
        "experiment": "wild", "run": f"{model}-{method}-{aux}-{words}-s{seed}", "model": model, "recipe": recipe,
        "size": size, "parameters": sizes[size], "seed": seed, "method": method, "aux": aux,
        "aux_parameters": sizes[aux.rsplit("-", 1)[1]] if aux else 0, "words": words, "words_size": 90,
        "decoding": "greedy", "data": "passages", "subset": "all", "split": "train", "metric": metric,
        "value": value, "n": 4, **about,
    }  # fmt: skip


def rows(*some):
    return pd.DataFrame(list(some))


def published(figure):
    return {"published": PUBLISHED[PUBLISHED["figure"] == figure]}


# ---- arms


def test_every_arm_of_the_plan_has_its_name():
    swap = {"method": "tokenswap", "words": "english-110"}
    wanted = {
        "standard": row(),
        "standard_sampled": row(decoding="sample"),
        "goldfish32": row("goldfish32-M"),
        "memfree": row(method="memfree"),
        "speculative": row(method="speculative", aux="background-S", decoding="sample"),
        "limit": row(method="limit", aux="background-S"),
        "cp_fuse": row(method="cp_fuse", aux="wild-M"),
        "cp_fuse_tiny": row(method="cp_fuse", aux="background-XS"),
        "cp_fuse_half": row("half1-L", "cp_fuse", "half2-L", experiment="extreme"),
        "cp_fuse_mix": row("mix1-L", "cp_fuse", "mix2-L", experiment="extreme"),
        "tokenswap": row(aux="background-S", **swap),
        "tokenswap_sampled": row(aux="background-S", decoding="sample", **swap),
        "tokenswap_goldfish3": row("goldfish3-M", aux="background-S", **swap),
        "tokenswap_self": row(aux="wild-L", **swap),
        "tokenswap_seen": row(aux="wild-M", **swap),
        "tokenswap_content_matched": row(method="tokenswap", aux="background-S", words="content-matched"),
        "tokenswap_content_110": row(method="tokenswap", aux="background-S", words="content-110"),
    }
    named = tables.name_arms(rows(*wanted.values()))
    assert named["arm"].tolist() == list(wanted)
    # another vocabulary is no other method
    assert tables.name_arms(rows(row(aux="other-S", **swap)))["arm"].tolist() == ["tokenswap"]


def test_a_single_partner_of_cp_fuse_is_never_the_tiny_one():
    named = tables.name_arms(rows(row(method="cp_fuse", aux="background-XS"), row(method="cp_fuse", aux="wild-M",
                                                                                  experiment="cloze")))  # fmt: skip
    assert named["arm"].tolist() == ["cp_fuse", "cp_fuse"]


# ---- published values


def test_published_percent_become_shares_and_stand_in_rows_of_their_own():
    table = tables.tab2(rows(row(value=0.25), row(metric="rouge_l", value=0.5)), NONE, published("tokenswap_tab2"))
    mine = table[table["source"] == "ours"]
    assert mine["value"].tolist() == [0.25, 0.5]
    paper = table[table["source"] == "paper"].set_index(["arm", "subset", "metric"])["value"]
    assert len(paper) == 40 and (table.loc[table["source"] == "paper", "seed"] == -1).all()
    assert paper["standard", "prose", "exact_match"] == pytest.approx(0.834)
    assert paper["cp_fuse_mix", "math", "matching_characters"] == 233.7
    assert paper["tokenswap", "math", "levenshtein"] == 0.60


def test_the_detail_of_a_published_arm_is_read_from_its_model():
    table = tables.tab3(rows(row()), NONE, published("tokenswap_tab3"))
    paper = table[table["source"] == "paper"].set_index(["arm", "detail", "subset", "metric"])["value"].sort_index()
    assert paper["tokenswap", "SmolLM-135M", "prose", "rouge_above_0.8"] == pytest.approx(0.0192)
    assert paper["cp_fuse_tiny", "", "math", "cross_entropy"] == 3.41


def test_published_numbers_say_where_they_were_read():
    assert list(PUBLISHED) == list(pd.read_csv(ROOT / "config/published/patterns.csv"))
    assert set(PUBLISHED["tag"]) == {"P3-txt"} and PUBLISHED["how_read"].notna().all()
    keys = ["figure", "data", "model", "items", "subset", "metric"]
    assert not PUBLISHED.duplicated(keys).any()
    percent = PUBLISHED["metric"].isin(["exact_match", "rouge_above_0.8", "accuracy", "commonsense"])
    assert (PUBLISHED.loc[percent, "unit"] == "percent").all()
    assert (PUBLISHED["unit"] == "percent").sum() == percent.sum()


def test_published_exact_matches_on_the_pile_are_multiples_of_one_passage_in_184():
    chosen = PUBLISHED["data"].eq("Pile-memorized") & PUBLISHED["metric"].eq("exact_match")
    hits = PUBLISHED.loc[chosen, "value"] / 100 * 184
    # the row of Table 11 for SmolLM-135M and its like are rounded to two decimals: 0.005 % of 184 passages
    assert len(hits) > 20 and np.allclose(hits, hits.round(), atol=0.011)


def test_the_mean_of_the_published_tasks_is_the_published_mean():
    tasks = PUBLISHED[PUBLISHED["figure"] == "tokenswap_tab7"].groupby("model")["value"].mean()
    whole = PUBLISHED[PUBLISHED["metric"] == "commonsense"].set_index("model")["value"]
    assert tasks["standard"] == pytest.approx(whole["standard"], abs=0.005)
    assert tasks["cp_fuse"] == pytest.approx(whole["cp_fuse"], abs=0.005)


# ---- tables


@pytest.mark.parametrize(
    ("figure", "metrics"),
    [
        ("tab2", tables.EXTRACTION),
        ("tab4", [*tables.EXTRACTION, "cross_entropy"]),
        ("tab6", ["cross_entropy", "cross_entropy_words", "cross_entropy_others"]),
        ("tab13", tables.EXTRACTION),
    ],
)
def test_plain_tables_hold_each_run_and_metric_once_and_nothing_else(figure, metrics):
    every = [row(metric=m, value=k / 10, seed=s) for k, m in enumerate([*metrics, "mass"]) for s in (0, 1)]
    table = getattr(tables, figure)(rows(*every), NONE, {})
    assert sorted(zip(table["metric"], table["seed"], table["value"], strict=True)) == sorted(
        (m, s, k / 10) for k, m in enumerate(metrics) for s in (0, 1)
    )


def test_auxiliaries_are_told_apart_by_size_and_only_one_domain_is_kept():
    swap = {"method": "tokenswap", "words": "english-110", "subset": "prose"}
    some = rows(
        row(subset="prose"),
        row(aux="background-S", value=0.1, **swap),
        row(aux="background-M", value=0.2, **swap),
        row(aux="background-M", value=0.9, **{**swap, "subset": "math"}),
    )
    table = tables.tab10(some, NONE, {"domain": "prose"})
    assert dict(zip(table["detail"], table["value"], strict=True)) == {"": 0.5, "S": 0.1, "M": 0.2}
    # held-out text has no domains
    some = rows(row(subset="prose"), row(value=0.8), row(metric="cross_entropy", data="held_out", value=3.0))
    table = tables.tab10(some, NONE, {"domain": "prose"})
    assert dict(zip(table["metric"], table["value"], strict=True)) == {"exact_match": 0.5, "cross_entropy": 3.0}
    assert set(table["subset"]) == {"prose"}
    # without domains the whole set is shown
    assert len(tables.tab10(rows(row(value=0.3)), NONE, {"domain": "prose"})) == 1


def test_cross_entropy_of_the_whole_stands_beside_both_domains():
    loss = {"metric": "cross_entropy", "data": "held_out"}
    table = tables.tab3(rows(row(subset="prose"), row(subset="math", value=0.7), row(value=3.0, **loss)), NONE, {})
    got = table.set_index(["subset", "metric"])["value"].to_dict()
    assert got == {("prose", "exact_match"): 0.5, ("math", "exact_match"): 0.7, ("prose", "cross_entropy"): 3.0,
                   ("math", "cross_entropy"): 3.0}  # fmt: skip


def test_sizes_are_the_detail_of_their_table_and_figure():
    some = rows(row("wild-S"), row("wild-L", metric="cross_entropy"))
    for make in (tables.tab12, tables.fig3):
        table = make(some, NONE, {})
        assert table["detail"].tolist() == ["S", "L"] and table["parameters"].tolist() == [10, 1000]


def test_usable_words_are_counted_once_a_run():
    about = {"method": "tokenswap", "aux": "background-S", "words": "english-43", "words_size": 37}
    table = tables.tab9(rows(row(metric="frequency", value=0.2, **about), row(**about)), NONE, {})
    usable = table[table["metric"] == "words_usable"]
    assert usable["value"].tolist() == [37.0] and usable["detail"].tolist() == ["english-43"]


def test_fractional_exact_rate_takes_domains_from_one_experiment_and_the_whole_from_the_other():
    fer = {"metric": "fractional_exact"}
    some = rows(
        row(subset="all", value=0.1, **fer),
        row(subset="math", value=0.2, **fer),
        row(subset="all", value=0.3, experiment="vocabulary", **fer),
        row(subset="math", value=0.4, experiment="vocabulary", **fer),
    )
    table = tables.tab8(some, NONE, {})
    assert dict(zip(table["subset"], table["value"], strict=True)) == {"math": 0.2, "other": 0.3}


def test_questions_with_content_and_with_function_words_are_kept_apart():
    some = rows(
        row(metric="accuracy", data="cloze_content", subset="music", value=0.7),
        row(metric="accuracy", data="cloze_function", subset="modals", value=0.4),
    )
    assert tables.tab7(some, NONE, {})["value"].tolist() == [0.7]
    assert tables.x_hard(some, NONE, {})["value"].tolist() == [0.4]


def test_costs_are_relative_to_standard_decoding_of_the_same_seed_and_batch():
    cost = {"metric": "seconds_per_token", "data": "cost"}
    swap = {"method": "tokenswap", "aux": "background-S", **cost}
    some = rows(
        row(subset="batch 1", value=2.0, **cost),
        row(subset="batch 32", value=0.5, **cost),
        row(subset="batch 1", value=4.0, seed=1, **cost),
        row(subset="batch 1", value=3.0, **swap),
        row(subset="batch 32", value=0.6, **swap),
        row(subset="batch 1", value=5.0, seed=1, **swap),
    )
    table = tables.x_cost(some, NONE, {})
    ratios = table[(table["metric"] == "seconds_ratio") & (table["arm"] == "tokenswap")]
    got = ratios.set_index(["seed", "subset"])["value"].to_dict()
    assert got == pytest.approx({(0, "batch 1"): 1.5, (0, "batch 32"): 1.2, (1, "batch 1"): 1.25})
    assert (table["metric"] == "seconds_per_token").sum() == 6

    first = tables.tab1(some, NONE, published("tokenswap_tab1"))
    share = first[first["metric"] == "parameters_ratio"]
    assert share["value"].tolist() == [0.01, 0.01] and share["seed"].tolist() == [0, 1]
    needs = first[first["metric"].str.startswith("needs_")].groupby("arm")["value"].sum()
    assert needs["tokenswap"] == 1 and (needs.drop("tokenswap") == 2).all() and len(needs) == 7


def test_the_table_of_needs_is_made_without_any_time():
    table = tables.tab1(NONE, NONE, published("tokenswap_tab1"))
    assert set(table["source"]) == {"paper"} and len(table) == 23
    with pytest.raises(UserError, match="tokenswap_tab1"):
        tables.tab1(NONE, NONE, {})


def test_controls_are_charged_the_difference_to_standard_decoding_of_their_seed():
    loss = {"metric": "cross_entropy", "data": "held_out"}
    aux = {"method": "tokenswap", "words": "english-110", "aux": "wild-L"}
    some = rows(
        row(value=3.0, **loss),
        row(value=4.0, seed=1, **loss),
        row(value=3.5, **aux, **loss),
        row(value=4.25, seed=1, **aux, **loss),
        row(value=9.0, subset="math", **loss),
    )
    table = tables.x_controls(some, NONE, {})
    added = table[table["metric"] == "cross_entropy_added"].set_index(["arm", "seed"])["value"].to_dict()
    assert added == {("standard", 0): 0, ("standard", 1): 0, ("tokenswap_self", 0): 0.5, ("tokenswap_self", 1): 0.25}
    assert set(table["subset"]) == {"all"}


# ---- items


def items_of(run, values, **about):
    base = {"experiment": "goldfish", "run": run, "seed": 0, "data": "passages", "subset": "prose", "split": "train"}
    return pd.DataFrame(
        [{**base, "item": i, "metric": "rouge_l", "value": np.float32(v), "text": None, **about} for i, v in
         enumerate(values)]
    )  # fmt: skip


def test_histograms_count_every_passage_once_and_close_the_last_bin():
    values = [0.0, 0.3, 0.3, 0.6, 0.99, 1.0, 1.0, 0.1]
    arm = row(metric="rouge_l", experiment="goldfish")
    table = tables.fig5(rows(arm), items_of(arm["run"], values), {"bins": 10})
    expected = [0.0] * 10
    for value in values:
        expected[min(9, int(value * 10 + 1e-9))] += 1 / len(values)
    assert table["value"].tolist() == pytest.approx(expected) and (table["n"] == 8).all()
    assert table["low"].tolist() == pytest.approx(np.arange(10) / 10) and table["value"].sum() == pytest.approx(1)


def test_histograms_are_made_of_three_arms_and_of_training_passages_only():
    arms = [row(metric="rouge_l", experiment="goldfish"), row("goldfish3-M", metric="rouge_l", experiment="goldfish"),
            row("goldfish4-M", metric="rouge_l", experiment="goldfish")]  # fmt: skip
    items = pd.concat([items_of(arm["run"], [0.5]) for arm in arms])
    items = pd.concat([items, items_of(arms[0]["run"], [0.9], split="validation")])
    table = tables.fig5(rows(*arms), items, {"bins": 2})
    assert sorted(set(table["arm"])) == ["goldfish3", "standard"]
    assert table.groupby("arm")["value"].sum().tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match="tokenswap_fig5"):
        tables.fig5(rows(*arms), items.iloc[:0], {})


@pytest.mark.parametrize(
    ("written", "suffix", "same"),
    [("abcd", "abXd", 2), ("ab", "abc", 2), ("abc", "ab", 2), ("x", "y", 0), ("", "a", 0)],
)
def test_copied_characters_end_at_the_first_deviation(written, suffix, same):
    assert tables.copied(written, suffix) == same


def test_worked_examples_are_the_first_passages_of_the_domains_in_turn():
    swap = {"method": "tokenswap", "words": "english-110"}
    runs = [row(), row(seed=1), row(aux="background-S", **swap), row(aux="background-M", **swap)]
    about = {"experiment": "wild", "data": "passages", "split": "train", "value": np.nan}
    items = []
    for arm in runs:
        for subset, item in (("math", 7), ("math", 9), ("prose", 3), ("prose", 1)):
            piece = " one" if arm["method"] == "standard" else f" two {arm['aux']}"
            texts = {"prefix": f"{subset} {item}", "suffix": " one three", "written": json.dumps([[piece, False]])}
            items += [
                {
                    **about,
                    "run": arm["run"],
                    "seed": arm["seed"],
                    "subset": subset,
                    "item": item,
                    "metric": m,
                    "text": t,
                }
                for m, t in texts.items()
            ]
    table = tables.fig4(rows(*runs), pd.DataFrame(items), {"passages": 3})
    first = table[table["metric"] == "prefix"]
    assert first["text"].tolist() == ["prose 1", "math 7", "prose 3"]
    assert table["seed"].unique().tolist() == [0] and len(table) == 12
    written = table[table["metric"] == "written"].groupby("arm")
    assert written["value"].first().to_dict() == {"standard": 4, "tokenswap": 1}
    # of two auxiliaries the smaller
    assert "background-S" in written.get_group("tokenswap")["text"].iloc[0]


def test_without_stored_texts_one_sentence_says_where_to_look():
    items = items_of(row()["run"], [0.5], experiment="wild")
    with pytest.raises(UserError, match=r"tokenswap_fig4.*config/figures.yaml"):
        tables.fig4(rows(row()), items, {})


# ---- all of them


@pytest.mark.parametrize("seeds", [1, 3])
def test_tables_of_a_whole_paper_survive_parquet(seeds, tmp_path):
    metrics, items = everything(seeds=seeds, passages=8)
    names = [name for name in dir(tables) if hasattr(getattr(tables, name), "reads")]
    assert len(names) == 19
    for name in names:
        make = getattr(tables, name)
        loaded = [common.pick(frame, metric=list(n)) for frame, n in zip((metrics, items), make.reads, strict=True)]
        table = make(*loaded, {"domain": "math", **published(f"tokenswap_{name}")})
        assert len(table) and {"metric", "value", "seed", "source"} <= set(table.columns), name
        assert set(table.loc[table["source"] == "ours", "seed"]) <= set(range(seeds))
        write_table(table, tmp_path / "t.parquet")
        assert len(read_table(tmp_path / "t.parquet")) == len(table)


def test_a_figure_without_any_run_says_where_to_look():
    with pytest.raises(UserError, match=r"tokenswap_tab2.*config/figures.yaml"):
        tables.tab2(rows(row()).iloc[:0], NONE, {})


def test_tables_import_neither_torch_nor_matplotlib():
    program = (
        "import sys, memorization.tables.tokenswap; "
        "sys.exit(','.join({'torch', 'transformers', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
