"""Figures of paper `tokenswap`: they draw with several seeds, with one and with gaps, and show the numbers."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jinja2
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import yaml
from fake_tokenswap import everything
from scipy import stats

from memorization.figures import common, style, tokenswap, tokenswap_text
from memorization.figures import tokenswap_arms as arms
from memorization.tables.common import figure_function, pick

ROOT = Path(__file__).parents[2]
EVERY = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
CATALOG = {name: entry for name, entry in EVERY.items() if entry["paper"] == "tokenswap"}
PUBLISHED = pd.read_csv(ROOT / "config/published/tokenswap.csv")
FIGURES = [f"tokenswap_{name}" for name in tokenswap.__all__]


def tables_of(seeds, passages):
    metrics, items = everything(seeds=seeds, passages=passages)
    made = {}
    for figure, entry in CATALOG.items():
        frames = [pick(frame, experiment=list(entry["experiments"])) for frame in (metrics, items)]
        theirs = PUBLISHED[PUBLISHED["figure"] == figure]
        params = {**entry["params"], "published": theirs if len(theirs) else None}
        made[figure] = figure_function("tables", figure)(*frames, params)
    return made


@pytest.fixture(scope="module")
def tables():
    """All tables of fake arms with three seeds."""
    return tables_of(3, 24)


def draw(figure, table, **params):
    entry = CATALOG[figure]
    about = {**entry["params"], "width": entry["width"], "scale": "laptop", **params}
    return figure_function("figures", figure)(table, about)


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]


def said(drawing):
    return [t.get_text() for t in texts(drawing)]


def test_every_figure_is_in_the_catalog_and_the_other_way_round():
    assert set(CATALOG) == set(FIGURES)
    for figure, entry in CATALOG.items():
        make = figure_function("tables", figure)
        needs = [name for name, names in zip(("metrics", "items"), make.reads, strict=True) if names]
        assert entry["needs"] == needs, figure


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.filterwarnings("error")
def test_every_figure_is_readable_and_nothing_is_cut_off(figure, tables):
    drawing = draw(figure, tables[figure])
    assert drawing.get_figwidth() in style.WIDTHS.values()
    assert min(t.get_fontsize() for t in texts(drawing)) >= 6
    width, height = drawing.get_size_inches()
    drawing.draw_without_rendering()  # lays the panels out
    used = drawing.get_tightbbox()  # of everything that is drawn, in inches
    assert used.x0 >= -0.01 and used.x1 <= width + 0.01 and used.y0 >= -0.01 and used.y1 <= height + 0.01
    assert "scale: laptop" in said(drawing)


@pytest.fixture(scope="module")
def smoke_tables():
    """One seed, four passages."""
    return tables_of(1, 4)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.filterwarnings("error")
def test_every_figure_draws_a_single_seed_of_few_passages_without_intervals(figure, smoke_tables):
    drawing = draw(figure, smoke_tables[figure], scale="smoke", watermark=True)
    assert said(drawing).count("scale: smoke") == 2
    assert not any("±" in text and text != "±" for text in said(drawing))


@pytest.mark.parametrize("figure", ["tokenswap_fig3", "tokenswap_tab3", "tokenswap_tab7"])
def test_figures_draw_without_published_values(figure, tables):
    table = tables[figure]
    assert texts(draw(figure, table[table["source"] == "ours"]))


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_a_caption_that_names_the_scale(figure):
    template = (ROOT / "workflow/report" / CATALOG[figure]["caption"]).read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown


# ---- numbers


def test_a_cell_is_the_mean_and_half_the_t_interval():
    values = [0.2, 0.3, 0.7]
    rows = pd.DataFrame({"seed": [0, 1, 2], "value": values})
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert common.cell(rows, 1, 100.0) == f"{100 * np.mean(values):.1f}\t±{100 * half:.1f}"
    assert common.cell(rows.iloc[:2], 2, 1.0) == "0.25"
    assert common.cell(rows.assign(value=1.0), 2, 1.0) == "1.00"
    assert common.cell(rows.iloc[:0], 2, 1.0) == "–"


def test_intervals_stay_inside_what_is_possible():
    rows = pd.DataFrame({"seed": [0, 1, 2], "value": [0.0, 0.0, 0.3]})
    mean, low, high = common.over_seeds(rows, 0, 1)
    assert mean == pytest.approx(0.1) and low == 0.0 and 0.3 < high < 1
    assert np.allclose(common.bars(mean, low, high).ravel(), [mean, high - mean])
    assert common.bars(*common.over_seeds(rows.iloc[:2])) is None


def test_the_table_shows_our_numbers_and_the_published_ones(tables):
    table = tables["tokenswap_tab2"]
    shown = said(draw("tokenswap_tab2", table))
    ours = pick(table, source="ours", arm="cp_fuse_mix", subset="prose", metric="exact_match")["value"]
    assert f"{100 * ours.mean():.1f}" in shown
    assert {"464.0", "83.4", "0.98", "233.7", "53.0"} <= set(shown)
    assert shown.count("TokenSwap") == 2  # ours and the paper's


def test_sizes_and_auxiliaries_stand_from_small_to_large(tables):
    def order(figure, names):
        drawing = draw(figure, tables[figure].sample(frac=1, random_state=0))
        heights = {t.get_text(): t.get_position()[1] for t in texts(drawing) if t.get_text() in names}
        return sorted(heights, key=lambda name: -heights[name])

    assert order("tokenswap_tab12", {"S", "XS", "L", "M"}) == ["XS", "S", "M", "L"]
    names = [f"TokenSwap ({size})" for size in ("XS", "S", "M", "L")]
    assert order("tokenswap_tab10", set(names)) == names


def test_sets_of_words_stand_from_none_to_many(tables):
    drawing = draw("tokenswap_tab9", tables["tokenswap_tab9"].sample(frac=1, random_state=0))
    first = [t for t in texts(drawing) if t.get_text() in ("none", "9", "43", "66", "110", "136")]
    left = min(t.get_position()[0] for t in first)
    column = sorted((t for t in first if t.get_position()[0] == left), key=lambda t: -t.get_position()[1])
    assert [t.get_text() for t in column][:6] == ["none", "9", "43", "66", "110", "136"]


def test_points_of_the_trade_off_are_the_means(tables):
    table = tables["tokenswap_fig3"]
    drawing = draw("tokenswap_fig3", table)
    lines = [line.get_xydata() for line in drawing.axes[0].lines if len(line.get_xdata()) == 4]
    for arm in ("standard", "tokenswap"):
        mine = pick(table, source="ours", subset="all", arm=arm)
        wide = mine.pivot_table(index=["parameters", "detail"], columns="metric", values="value").sort_index()
        path = np.column_stack([wide["cross_entropy"], 100 * wide["exact_match"]])
        assert any(np.allclose(path, line) for line in lines)
    paper = [line.get_xydata() for line in drawing.axes[1].lines if len(line.get_xdata()) == 7]
    assert any(np.allclose(path[-1], [2.77, 65.22]) for path in paper)


def test_bars_of_the_histograms_are_mean_shares(tables):
    table = tables["tokenswap_fig5"]
    drawing = draw("tokenswap_fig5", table)
    for ax, arm in zip(drawing.axes, ("standard", "goldfish3", "tokenswap"), strict=True):
        heights = [bar.get_height() for bar in ax.patches]
        assert heights == pytest.approx(100 * pick(table, arm=arm).groupby("low")["value"].mean().to_numpy())
        assert sum(heights) == pytest.approx(100)


def test_time_is_drawn_relative_to_standard_and_said_relative_to_the_limit(tables):
    table = tables["tokenswap_x_cost"]
    drawing = draw("tokenswap_x_cost", table)
    mean = pick(table, metric="seconds_ratio", subset="batch 1").groupby("arm")["value"].mean()
    widths = sorted(bar.get_width() for bar in drawing.axes[0].patches)
    assert widths == pytest.approx(sorted(mean))
    wanted = f"{mean['tokenswap']:.2f} ({mean['tokenswap'] / mean['limit']:.2f} × both)"
    assert wanted in said(drawing)


def test_missing_arms_leave_the_others(tables):
    for figure, column, gone in (
        ("tokenswap_fig3", "arm", "tokenswap"),
        ("tokenswap_x_controls", "arm", "tokenswap_self"),
        ("tokenswap_x_cost", "arm", "limit"),
        ("tokenswap_x_hard", "subset", "modals"),
        ("tokenswap_tab7", "subset", "all"),
        ("tokenswap_tab6", "arm", "memfree"),
    ):
        table = tables[figure]
        assert (table[column] == gone).any()
        assert texts(draw(figure, table[table[column] != gone]))


def test_methods_have_a_color_and_no_two_arms_look_the_same():
    looks = [(look.color, look.marker) for name, look in arms.ARMS.items() if look.marker != "x"]
    assert len(set(looks)) == len(looks)
    colors = [arms.ARMS[name].color for name in ("standard", "memfree", "cp_fuse", "goldfish3", "tokenswap")]
    assert len(set(colors)) == 5


# ---- worked examples


def test_typesetting_keeps_every_word_and_fits_the_width():
    pieces = [
        (" the boats", False),
        (" that", True),
        (" came from a village, ev", False),
        ("ery", True),
        (" day.", False),
    ]
    words = tokenswap_text.typeset(pieces, len(" the boats"), 1.2)
    assert [word.text for word in words] == ["the", "boats", "that", "came", "from", "a", "village,", "every", "day."]
    assert [word.text for word in words if word.swapped] == ["that", "every"]
    assert [word.copied > 0 for word in words] == [True, True] + [False] * 7
    assert words[-1].line > 0 and [word.line for word in words] == sorted(word.line for word in words)
    size = tokenswap_text.SIZE
    assert all(word.x + style.text_width(word.text, size) <= 1.2 for word in words)


def test_a_word_copied_in_part_is_shaded_in_part():
    word = tokenswap_text.typeset([(" therefore", False)], len(" there"), 2.0)[0]
    size = tokenswap_text.SIZE
    assert word.copied == pytest.approx(style.text_width("there", size))
    assert word.copied < style.text_width(word.text, size)


def test_nothing_written_takes_a_line_and_no_words():
    assert tokenswap_text.typeset([("", False)], 0, 2.0) == []


def test_swapped_words_are_orange_and_the_others_are_not(tables):
    drawing = draw("tokenswap_fig4", tables["tokenswap_fig4"])
    colored = {t.get_text() for t in texts(drawing) if t.get_color() == arms.ORANGE}
    assert {"that", "before", "finite"} <= colored and not {"lighthouse", "boats"} & colored


# ---- tables with heads over several columns


def test_numbers_before_an_uncertainty_are_flush_right():
    frame = pd.DataFrame([["a", "7.5\t±0.1"], ["b", "100.0\t±12.5"], ["c", "0.0"]], columns=["x", "y"])
    drawing = style.render_table(frame, {})
    places = {t.get_text(): t for t in texts(drawing)}
    rights = {places[name].get_position()[0] for name in ("7.5", "100.0", "0.0")}
    assert len(rights) == 1 and all(places[name].get_ha() == "right" for name in ("7.5", "100.0", "0.0"))
    assert places["±0.1"].get_position()[0] == rights.pop() and places["±0.1"].get_fontsize() < 7


def test_heads_sections_and_bold_rows_make_room_for_themselves():
    frame = pd.DataFrame([["a", "1", "2"], ["", "p", "q"], ["b", "3", "4"]], columns=["x", "y", "z"])
    plain = style.render_table(frame, {})
    rich = style.render_table(frame, {}, groups=[("both", 1, 2)], sections={1: "theirs"}, bold=[1])
    assert rich.get_figheight() > plain.get_figheight()
    places = {t.get_text(): t for t in texts(rich)}
    assert places["a"].get_position()[1] > places["theirs"].get_position()[1] > places["p"].get_position()[1]
    assert places["both"].get_position()[1] > places["y"].get_position()[1]
    assert places["p"].get_weight() == "bold" and places["3"].get_weight() != "bold"


def test_figures_import_no_torch():
    program = (
        "import sys, memorization.figures.tokenswap; sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
