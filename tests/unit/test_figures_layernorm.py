"""Figures of paper `layernorm`: they draw at every scale, with several seeds, with one and with gaps, and show the
numbers of their tables.
"""

import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jinja2
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import yaml
from fake_layernorm import PAPERS, everything
from matplotlib.colors import to_hex
from scipy import stats

from memorization.figures import common, layernorm, style
from memorization.figures import layernorm_looks as looks
from memorization.figures.layernorm_tables import signed
from memorization.tables.common import figure_function, pick

ROOT = Path(__file__).parents[2]
EVERY = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
CATALOG = {name: entry for name, entry in EVERY.items() if entry["paper"] == "layernorm"}
PUBLISHED = pd.read_csv(ROOT / "config/published/layernorm.csv")
FIGURES = [f"layernorm_{name}" for name in layernorm.__all__]
# drawn row by row as fig2 and fig3 are
ALIKE = ("layernorm_fig6_11", "layernorm_fig12_16", "layernorm_fig17_22", "layernorm_fig23_27")
# what is measured at a laptop, in a first trial, and with the paper's own models
SCALES = {
    "laptop": {"seeds": 3},
    "trial": {"seeds": 1, "checkpoint": False},
    "paper": {"seeds": 2, "checkpoint": False, "models": PAPERS},
}


def theirs_of(figure):
    return PUBLISHED[[figure in names.split() for names in PUBLISHED["figure"]]]


@cache
def table_of(figure, scale):
    metrics, items = everything(**SCALES[scale])
    entry, make = CATALOG[figure], figure_function("tables", figure)
    loaded = pick(metrics, experiment=entry["experiments"], metric=make.reads[0]).reset_index(drop=True)
    theirs = theirs_of(figure)
    return make(loaded, items, {**entry["params"], "published": theirs if len(theirs) else None})


def draw(figure, table, **params):
    entry = CATALOG[figure]
    about = {**entry["params"], "width": entry["width"], "scale": "laptop", **params}
    return figure_function("figures", figure)(table, about)


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip("\u200b ") and t.get_visible()]


def said(drawing):
    return [t.get_text().strip("\u200b") for t in texts(drawing)]


def test_every_figure_is_in_the_catalog_and_the_other_way_round():
    assert set(CATALOG) == set(FIGURES)
    for figure, entry in CATALOG.items():
        make = figure_function("tables", figure)
        needs = [name for name, names in zip(("metrics", "items"), make.reads, strict=True) if names]
        assert entry["needs"] == needs, figure


def few(table):
    """At most two panels of a table: rows of one figure are drawn by the same code."""
    return table[table["panel"].isin(table["panel"].unique()[:2])] if "panel" in table else table


@cache
def drawn(figure, scale="laptop"):
    """The figure of a whole table, laid out once for all tests that only look at it."""
    table = table_of(figure, scale)
    drawing = draw(figure, few(table) if figure in ALIKE else table)
    drawing.draw_without_rendering()
    return drawing


def check(drawing):
    """Words are large enough, nothing is cut off, and no label of an axis runs into the next."""
    assert drawing.get_figwidth() in style.WIDTHS.values()
    assert min(t.get_fontsize() for t in texts(drawing)) >= 6
    width, height = drawing.get_size_inches()
    used = drawing.get_tightbbox()  # of everything that is drawn, in inches
    assert used.x0 >= -0.01 and used.x1 <= width + 0.02 and used.y0 >= -0.01 and used.y1 <= height + 0.01
    for ax in drawing.axes:
        boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text() and t.get_rotation() == 0]
        boxes = sorted((box for box in boxes if box.width), key=lambda box: box.x0)
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert "scale: laptop" in said(drawing)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.filterwarnings("error")
def test_every_figure_is_readable_and_nothing_is_cut_off(figure):
    check(drawn(figure))


@pytest.mark.parametrize("figure", ["fig1", "tab1", "x_budget"])
@pytest.mark.filterwarnings("error")
def test_figures_of_the_papers_own_models_are_readable(figure):
    check(drawn(f"layernorm_{figure}", "paper"))


@pytest.mark.parametrize("figure", [name for name in FIGURES if name not in ALIKE])
@pytest.mark.filterwarnings("error")
def test_one_seed_draws_without_intervals_without_published_values_and_with_a_watermark(figure):
    table = few(table_of(figure, "trial"))
    drawing = draw(figure, table[table["source"] == "ours"], scale="smoke", watermark=True)
    assert said(drawing).count("scale: smoke") == 2
    assert not any("±" in text for text in said(drawing))


@pytest.mark.parametrize("figure", ["fig1", "fig3", "fig12_16", "x_budget", "tab1"])
def test_figures_draw_with_published_values_of_some_models_only(figure):
    name = f"layernorm_{figure}"
    table = few(table_of(name, "laptop"))
    gone = ["electra", "gpt_neo", "vit_b", "bert", "deit", "post"]
    assert texts(draw(name, table[~((table["source"] == "paper") & table["model"].isin(gone))]))


@pytest.mark.parametrize("figure", ["fig1", "fig3", "fig4", "fig12_16"])
def test_models_that_we_have_nothing_for_are_shown_with_the_papers_values(figure):
    name = f"layernorm_{figure}"
    table = few(table_of(name, "laptop"))
    drawing = draw(name, table[~((table["source"] == "ours") & (table["position"] == "post"))])
    if figure != "fig1":
        assert any("(paper only)" in text for text in said(drawing))


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_a_caption_that_names_the_scale(figure):
    template = (ROOT / "workflow/report" / CATALOG[figure]["caption"]).read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown


# ---- marks


def lines_of(ax, color):
    """Curves of one color, as arrays of points."""
    return [
        line.get_xydata() for line in ax.lines if to_hex(line.get_color()) == color.lower() and len(line.get_xdata())
    ]


def marks_of(ax, color):
    """Points with an edge of one color and no line."""
    lone = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() not in ("", "None")]
    found = [line.get_xydata() for line in lone if to_hex(line.get_markeredgecolor()) == color.lower()]
    return np.concatenate(found) if found else np.empty((0, 2))


def test_a_place_that_a_seed_lacks_has_the_mean_and_interval_of_the_others():
    rows = pd.DataFrame(
        {"x": [0, 0, 0, 0, 1, 1, 1, 2], "seed": [0, 1, 2, 3, 0, 1, 3, 2], "value": [1, 2, 3, 4, 5, 7, 6, 9.0]}
    )
    placed = common.summary(rows, "x", high=8.5)
    half = stats.t.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert placed["mean"].tolist() == [2.5, 6, 9]
    assert placed.loc[1, ["low", "high"]].tolist() == pytest.approx([6 - half, min(8.5, 6 + half)])
    assert np.isnan(placed.loc[2, "low"]) and placed.loc[0, "low"] < 2.5


def test_intervals_are_t_intervals_over_seeds_from_three_seeds_on():
    values = [0.2, 0.3, 0.7]
    rows = pd.DataFrame({"x": 1.0, "seed": [0, 1, 2], "value": values})
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    drawn = common.summary(rows, "x").iloc[0]
    assert drawn.tolist() == pytest.approx([1, np.mean(values), np.mean(values) - half, np.mean(values) + half])
    assert common.summary(rows.iloc[:2], "x")[["low", "high"]].isna().all().all()
    logs = np.log(values)
    half = stats.t.ppf(0.975, 2) * np.std(logs, ddof=1) / np.sqrt(3)
    wanted = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    assert common.summary(rows, "x", log=True).iloc[0, 1:].tolist() == pytest.approx(wanted)


def test_bars_are_our_means_and_open_marks_the_papers_values():
    table = table_of("layernorm_fig1", "laptop")
    drawing = drawn("layernorm_fig1")
    accuracy, fate = drawing.axes[:2]
    ours = pick(table, source="ours", position="pre")
    for arm in ("none", "all"):
        mean = pick(ours, arm=arm, metric="test_accuracy").groupby("model")["value"].mean()
        color = looks.ARMS[arm].color
        heights = [bar.get_height() for bar in accuracy.patches if to_hex(bar.get_facecolor()) == color.lower()]
        assert heights == pytest.approx([100 * mean[name] for name in ("text_pre", "digits_pre")])
        paper = pick(table, source="paper", position="pre", arm=arm, metric="test_accuracy")["value"]
        assert sorted(marks_of(accuracy, color)[:, 1]) == pytest.approx(sorted(100 * paper))
    # outcomes are stacked to 100 %
    filled = {to_hex(bar.get_facecolor()): bar for bar in fate.patches}
    assert {look.color.lower() for look in looks.OUTCOMES.values()} <= {*filled, "#b0b0b0"}
    tops = pd.DataFrame([(round(b.get_x(), 6), b.get_y() + b.get_height()) for b in fate.patches], columns=["x", "top"])
    assert tops.groupby("x")["top"].max().between(99.6, 100.4).all()


def test_curves_are_our_means_over_epochs_and_the_papers_are_open_marks():
    table = table_of("layernorm_fig2", "laptop")
    drawing = drawn("layernorm_fig2")
    accuracy, fate, gap = drawing.axes[3:]  # Post-LN
    for ax, metric, arm, color in (
        (accuracy, "test_accuracy", "none", looks.ARMS["none"].color),
        (fate, "recovery", "all", looks.OUTCOMES["recovery"].color),
        (gap, "gap", "all", looks.ARMS["all"].color),
    ):
        part = pick(table, panel="electra", metric=metric, arm=arm)
        mean = 100 * pick(part, source="ours").groupby("share")["value"].mean()
        wanted = np.column_stack([mean.index, mean])
        assert any(line.shape == wanted.shape and np.allclose(line, wanted) for line in lines_of(ax, color))
        paper = pick(part, source="paper").sort_values("share")
        assert marks_of(ax, color) == pytest.approx(np.column_stack([paper["share"], 100 * paper["value"]]))
    budgets = [line.get_xdata()[0] for line in accuracy.lines if [*line.get_ydata()] == [0, 1]]
    assert budgets == [1.0] and accuracy.get_xlim()[1] > 1.75


def test_outcomes_after_removal_are_those_of_stripped_models():
    table = table_of("layernorm_fig2", "laptop")
    changed = table.assign(value=table["value"].where(table["arm"] != "none", 0.123))
    before, after = drawn("layernorm_fig2").axes[1], draw("layernorm_fig2", changed).axes[1]
    color = looks.OUTCOMES["memorization"].color
    assert np.allclose(lines_of(before, color)[0], lines_of(after, color)[0])


def test_rows_say_which_model_of_ours_stands_for_which_of_the_papers():
    table, own = (table_of("layernorm_fig12_16", scale) for scale in ("laptop", "paper"))
    names = looks.panels_of(table, CATALOG["layernorm_fig12_16"]["params"])
    assert names == ["bert", "deberta", "longformer", "roberta", "distilbert", "minilm"]
    assert [looks.title_of(table, name) for name in names[-2:]] == ["DistilBERT\n(ours: Text Post)", "MiniLM"]
    assert looks.title_of(own, "bert") == "BERT"
    assert "BERT\n(ours: Text Post)" in said(drawn("layernorm_fig12_16"))


def test_thirds_stand_in_order_with_the_papers_values_right_of_ours():
    table = table_of("layernorm_fig3", "laptop")
    drawing = drawn("layernorm_fig3")
    ax = drawing.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["intact", "early", "middle", "late", "all"]
    for k, arm in enumerate(("none", "early", "middle", "late", "all")):
        part = pick(table, panel="deit", metric="test_accuracy", arm=arm)
        ours, paper = (100 * pick(part, source=source)["value"].mean() for source in ("ours", "paper"))
        points = {(round(float(x), 2), round(float(y), 6)) for line in ax.lines for x, y in line.get_xydata()}
        assert {(round(k - 0.17, 2), round(ours, 6)), (round(k + 0.17, 2), round(paper, 6))} <= points


def test_gradients_are_geometric_means_and_the_papers_stand_apart():
    table = table_of("layernorm_fig4", "laptop")
    drawing = drawn("layernorm_fig4")
    ours, paper, ratio = drawing.axes[:3]
    part = pick(table, panel="gpt_neo", role="attention")
    learn = pick(part, source="ours", metric="gradient_learning")
    mean = np.exp(np.log(learn["value"]).groupby(learn["layer"]).mean())
    color = looks.GRADIENTS["gradient_learning"].color
    assert any(np.allclose(line, np.column_stack([mean.index, mean])) for line in lines_of(ours, color))
    values = pick(part, source="paper", metric="gradient_learning").sort_values("layer")["value"]
    assert any(len(line) == 12 and np.allclose(line[:, 1], values) for line in lines_of(paper, color))
    median = pick(part, source="paper", metric="ratio")["value"].median()
    levels = [line.get_ydata()[0] for line in ratio.lines if [*line.get_xdata()] == [0, 1]]
    assert any(np.isclose(level, median) for level in levels)


def test_the_three_readings_are_marked_on_the_contrast():
    table = table_of("layernorm_x_budget", "laptop")
    ax = drawn("layernorm_x_budget").axes[1]
    ours = pick(table, source="ours", model="text_post", metric="memorization")
    points = [tuple(xy) for line in ax.lines for xy in line.get_xydata()]
    for reading in ("budget", "equal", "matched"):
        part = pick(ours, reading=reading)
        wanted = (part["share"].mean(), 100 * part["value"].mean())
        assert any(np.allclose(point, wanted) for point in points), reading
    budgets = sorted(line.get_xdata()[0] for line in ax.lines if [*line.get_ydata()] == [0, 1])
    assert budgets == pytest.approx([16 / 28, 1.0])


def test_of_many_models_the_contrast_is_averaged_by_position():
    table = table_of("layernorm_x_budget", "paper")
    drawing = drawn("layernorm_x_budget", "paper")
    assert {"Pre-LN, 7 models", "Post-LN, 6 models"} <= set(said(drawing))
    last = pick(table, source="ours", position="post", metric="gap", reading="equal")["value"].mean()
    lines = lines_of(drawing.axes[3], looks.POSITIONS["post"].color)
    assert any(len(line) > 2 and np.isclose(line[-1, 1], 100 * last) for line in lines)


def test_stripping_stands_beside_the_entropy_of_the_tokens():
    table = table_of("layernorm_x_norms", "laptop")
    drawing = drawn("layernorm_x_norms")
    loss = next(ax for ax in drawing.axes if ax.get_ylabel() == "Loss (nats)")
    assert next(t.get_text() for t in loss.get_xticklabels()) == "none"
    points = [tuple(xy) for line in loss.lines for xy in line.get_xydata()]
    stripped = pick(table, model="text_pre", metric="cross_entropy", stripped="all")["value"].mean()
    assert any(np.allclose(point, (6, stripped)) for point in points)
    assert any([*line.get_ydata()] == [5.75, 5.75] for line in loss.lines)
    assert "public checkpoint:\nnot pre-trained here" in said(drawing)


# ---- tables


def test_changes_have_a_sign_and_half_the_interval():
    rows = pd.DataFrame({"seed": [0, 1, 2], "value": [0.10, 0.12, 0.14]})
    half = 100 * stats.t.ppf(0.975, 2) * np.std(rows["value"], ddof=1) / np.sqrt(3)
    assert signed(rows) == f"+12.0\t±{half:.1f}"
    assert signed(rows.assign(value=-0.12)) == "-12.0" and signed(rows.assign(value=0.0)) == "0.0"
    assert signed(rows.iloc[:0]) == "–"


def test_the_summary_shows_the_papers_signs_and_our_changes():
    table = table_of("layernorm_tab1", "laptop")
    shown = said(drawn("layernorm_tab1"))
    assert (shown.count("falls"), shown.count("stays"), shown.count("rises")) == (2 + 4, 2 + 2, 2)
    part = pick(table, source="ours", model="text_post", metric="memorization", reading="budget")["value"]
    assert f"−{abs(100 * part.mean()):.1f}" in shown


def test_tables_show_the_papers_numbers_in_gray():
    for figure, wanted in (("tab4", {"66.9", "76.2", "27.0", "19.2"}), ("tab5", {"38.1", "62.5"}), ("tab6", {"60.6"})):
        name = f"layernorm_{figure}"
        drawing = drawn(name)
        gray = {t.get_text() for t in texts(drawing) if t.get_color() == style.MUTED}
        assert wanted <= gray, figure


def test_readings_side_by_side_are_means_and_a_dash_where_no_run_gets_there():
    table = table_of("layernorm_x_readings", "laptop")
    never = (table["reading"] == "matched") & (table["arm"] == "all") & (table["model"] == "text_post")
    shown = said(draw("layernorm_x_readings", table[~never]))
    assert shown.count("–") == 5
    part = pick(table, model="text_post", arm="early", reading="budget").groupby("metric")["value"].mean()
    assert "/".join(f"{100 * part[name]:.0f}" for name in ("memorization", "recovery", "random")) in shown
    assert f"{100 * part['test_accuracy']:.1f}" in shown


# ---- looks


def test_arms_outcomes_and_positions_are_told_apart_by_color_and_marker():
    for group in (looks.ARMS, looks.OUTCOMES, looks.POSITIONS):
        assert len({look.color for look in group.values()}) == len(group)
        assert len({look.marker for look in group.values()}) == len(group)
    assert {"bert", *PAPERS} <= set(looks.MODELS)


def test_figures_import_no_torch():
    program = (
        "import sys, memorization.figures.layernorm; sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
