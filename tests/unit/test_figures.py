"""Figures: each draws with several seeds, with one and with gaps; files depend on nothing but the numbers."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jinja2
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import yaml
from fake_runs import everything
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from memorization.errors import UserError
from memorization.figures import style
from memorization.provenance.record import write_table
from memorization.tables.common import figure_function, pick

ROOT = Path(__file__).parents[2]
CATALOG = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
PATTERNS = [name for name, entry in CATALOG.items() if entry["paper"] == "patterns"]
MODELS = {"S": {"layers": 2, "width": 48}, "M": {"layers": 2, "width": 64}, "L": {"layers": 3, "width": 112}}


@pytest.fixture(scope="module")
def tables():
    """All tables of fake runs with two seeds."""
    metrics, items = everything(seeds=2, every=100)
    published = pd.read_csv(ROOT / "config/published/patterns.csv")
    made = {}
    for figure in PATTERNS:
        entry = CATALOG[figure]
        frames = [pick(frame, experiment=entry["experiments"]) for frame in (metrics, items)]
        theirs = published[published["figure"] == figure]
        made[figure] = figure_function("tables", figure)(
            *frames, {**entry["params"], "models": MODELS, "published": theirs}
        )
    return made


def draw(figure, table, **params):
    entry = CATALOG[figure]
    return figure_function("figures", figure)(
        table, {**entry["params"], "width": entry["width"], "scale": "laptop", **params}
    )


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip() and t.get_visible()]


@pytest.mark.parametrize("figure", PATTERNS)
def test_every_figure_is_readable_and_nothing_is_cut_off(figure, tables):
    drawing = draw(figure, tables[figure])
    FigureCanvasAgg(drawing).draw()
    assert drawing.get_figwidth() in style.WIDTHS.values()
    assert min(t.get_fontsize() for t in texts(drawing)) >= 6
    width, height = drawing.get_size_inches()
    used = drawing.get_tightbbox()  # of everything that is drawn, in inches
    assert used.x0 >= -0.01 and used.x1 <= width + 0.01 and used.y0 >= -0.01 and used.y1 <= height + 0.01
    assert any(t.get_text() == "scale: laptop" for t in texts(drawing))


@pytest.mark.parametrize("figure", PATTERNS)
def test_every_figure_draws_a_single_seed_with_the_scale_across_it(figure, tables):
    table = tables[figure]
    one = table[table["seed"].isin([0, -1])] if "seed" in table else table
    drawing = draw(figure, one, scale="smoke", watermark=True)
    assert sum(t.get_text() == "scale: smoke" for t in texts(drawing)) == 2


@pytest.mark.parametrize("figure", ["patterns_fig2b", "patterns_figB2"])
def test_a_level_that_one_seed_never_reached_is_an_open_mark_and_no_mean(figure, tables):
    table = tables[figure].copy()
    missed = (table["level"] == table["level"].max()) & (table["seed"] == 0)
    table.loc[missed, ["value", "censored"]] = [np.nan, True]
    drawing = draw(figure, table)
    opened = [line for ax in drawing.axes for line in ax.lines if line.get_markerfacecolor() == "white"]
    conditions = ["subset"] if figure == "patterns_fig2b" else ["experiment", "option_value"]
    unreached = table[table["censored"]].drop_duplicates([*conditions, "level"])
    assert len(opened) == len(unreached) > 0


def test_missing_series_leave_the_others(tables):
    for figure, column, gone in (
        ("patterns_fig2a", "data", "mi"),
        ("patterns_fig4", "role", "large"),
        ("patterns_fig9", "metric", "meteor"),
        ("patterns_fig10", "metric", "fit_slope"),
        ("patterns_figB2", "experiment", "letters"),
        ("patterns_tab3", "data", "text_words"),
        ("patterns_tab2", "metric", "new_items"),
    ):
        table = tables[figure]
        assert (table[column] == gone).any()
        assert texts(draw(figure, table[table[column] != gone]))


def test_no_model_large_enough_is_drawn_without_a_fit(tables):
    table = tables["patterns_fig10"].copy()
    none = table["metric"] == "minimal_parameters"
    table.loc[none, ["value", "censored"]] = [np.nan, True]
    table.loc[table["metric"].str.startswith("fit_"), "value"] = np.nan
    drawing = draw("patterns_fig10", table)
    opened = [line for ax in drawing.axes for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert len(opened) == none.sum()


def test_the_same_table_gives_the_same_bytes(tables, tmp_path):
    for figure in ("patterns_fig2b",):
        for turn in ("a", "b"):
            folder = tmp_path / turn
            folder.mkdir(exist_ok=True)
            paths = {kind: folder / f"f.{kind}" for kind in ("pdf", "png", "svg", "csv")}
            style.save(draw(figure, tables[figure]), tables[figure], dpi=60, **paths)
        for kind in ("pdf", "png", "svg", "csv"):
            assert (tmp_path / "a" / f"f.{kind}").read_bytes() == (tmp_path / "b" / f"f.{kind}").read_bytes(), kind
        assert b"CreationDate" not in (tmp_path / "a" / "f.pdf").read_bytes()


def test_the_script_writes_all_three_files_and_the_csv_holds_the_plotted_numbers(tables, tmp_path):
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    import plot_figure

    table = tables["patterns_tab1"]
    write_table(table, tmp_path / "t.parquet")
    out = {kind: [str(tmp_path / f"f.{kind}")] for kind in ("pdf", "png", "csv")}
    spec = {"figure": "patterns_tab1", "title": "", "params": {"width": "column"}}
    plot_figure.main(
        SimpleNamespace(
            input=SimpleNamespace(table=[str(tmp_path / "t.parquet")]),
            output=SimpleNamespace(**out),
            params=SimpleNamespace(figures=[spec], style={"dpi": 60, "watermark": False}, scale="smoke"),
        )
    )
    assert (tmp_path / "f.pdf").stat().st_size and (tmp_path / "f.png").stat().st_size
    numbers = pd.read_csv(tmp_path / "f.csv")
    assert np.allclose(numbers["value"], table["value"], rtol=1e-5, equal_nan=True)


def test_mean_and_range_over_seeds_are_those_of_numpy():
    frame = pd.DataFrame({"epoch": [1, 1, 1, 2, 2, 2], "seed": [0, 1, 2] * 2, "value": [0.0, 0.5, 1.0, 1, 1, 0.4]})
    drawn = style.over_seeds(frame, "epoch")
    assert drawn["mean"].tolist() == pytest.approx([0.5, 0.8])
    assert drawn["low"].tolist() == [0.0, 0.4] and drawn["high"].tolist() == [1.0, 1.0]
    single = style.over_seeds(frame[frame["seed"] == 0], "epoch", "bootstrap")
    assert single["low"].tolist() == single["high"].tolist() == [0.0, 1.0]


def test_the_bootstrap_band_covers_the_exact_distribution_of_resampled_means():
    values = [0.0, 0.3, 1.0]
    frame = pd.DataFrame({"epoch": 1, "seed": [0, 1, 2], "value": values})
    drawn = style.over_seeds(frame, "epoch", "bootstrap", draws=20_000, confidence=0.8)
    means = [np.mean([a, b, c]) for a in values for b in values for c in values]  # all 27 resamples
    assert drawn["low"].item() == pytest.approx(np.quantile(means, 0.1, method="inverted_cdf"), abs=1e-9)
    assert drawn["high"].item() == pytest.approx(np.quantile(means, 0.9, method="inverted_cdf"), abs=1e-9)


@given(st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_labels_never_overlap_stay_inside_and_keep_their_order(wanted, gap):
    placed = style.spread(wanted, gap, 0.0, 1.0)
    fits = min(gap, 1 / max(1, len(wanted) - 1))
    inside = sorted(placed)
    assert all(b - a >= fits - 1e-9 for a, b in pairwise(inside))
    assert inside[0] >= -1e-9 and inside[-1] <= 1 + 1e-9
    order = np.argsort(wanted, kind="stable")
    assert list(np.argsort(placed, kind="stable")) == list(order)


def test_labels_with_enough_room_are_not_moved():
    assert style.spread([0.9, 0.1, 0.5], 0.1, 0, 1) == pytest.approx([0.9, 0.1, 0.5])


def test_every_data_set_looks_different_even_without_color():
    looks = list(style.LOOKS.values())
    assert len({(s.color, str(s.dash)) for s in looks}) == len(looks)
    assert len({(s.marker, str(s.dash)) for s in looks}) == len(looks)
    assert style.ordered(["random_digits", "unheard_of", "mi"]) == ["mi", "random_digits", "unheard_of"]


def test_text_widths_used_by_tables_are_never_smaller_than_drawn():
    style.use_style()
    figure = style.new_figure()
    canvas = FigureCanvasAgg(figure)
    figure.dpi = 300
    for text in ("Validation EM", "0.97 [0.92, 1.00]", "Mean forgettings", "–"):
        for bold in (False, True):
            artist = figure.text(0, 0, text, fontsize=7.5, weight="bold" if bold else "normal")
            drawn = artist.get_window_extent(canvas.get_renderer()).width / 300
            assert drawn - 0.01 <= style.text_width(text, 7.5, bold) <= 1.1 * drawn + 0.01


def test_ranges_are_printed_only_where_seeds_differ():
    assert style.mean_and_range(pd.Series([0.5, 1.0])) == "0.75 [0.50, 1.00]"
    assert style.mean_and_range(pd.Series([1.0, 1.0])) == "1.00"
    assert style.mean_and_range(pd.Series([np.nan])) == "–"


@pytest.mark.parametrize("figure", CATALOG)
def test_every_figure_has_a_caption_that_names_the_scale(figure):
    template = (ROOT / "workflow/report" / CATALOG[figure]["caption"]).read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown


def test_an_unknown_figure_says_how_to_name_one():
    with pytest.raises(UserError, match="patterns_fig99"):
        figure_function("figures", "patterns_fig99")


def test_figures_import_no_torch():
    program = (
        "import sys, memorization.figures.patterns; sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
