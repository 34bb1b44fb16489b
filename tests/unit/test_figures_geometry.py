"""Pre-training figures of paper `geometry`: they draw with several seeds, with one and with gaps, and show the numbers
of their tables in the style of their phases.
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
from fake_geometry import LAST, PEAK, STEPS, TOKENS, TROUGH, fake
from matplotlib.colors import to_hex
from scipy import stats

from memorization.figures import geometry_phases as looks
from memorization.figures import geometry_pretraining as figures
from memorization.figures import geometry_third_phase, style
from memorization.probes.phases import PHASES
from memorization.tables import geometry_pretraining as tables
from memorization.tables.common import pick

ROOT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(ROOT / "config/published/geometry.csv")
EXPERIMENTS = {
    "fig2": ["main"], "fig3": ["main", "ngrams"], "fig11": ["small"], "tab9": ["main"],
    "x_third_phase": ["third_phase"],
}  # fmt: skip
FIGURES = list(EXPERIMENTS)
WARMUP, ENTROPY, COMPRESSION = PHASES
LARGE = ["pythia_1b", "pythia_1_4b", "pythia_2_8b", "pythia_6_9b", "pythia_12b", "olmo2_7b"]


@cache
def table_of(name, **effects):
    metrics, items = fake(**effects)
    make = getattr(tables, name)
    theirs = PUBLISHED[[f"geometry_{name}" in names.split() for names in PUBLISHED["figure"]]]
    rows = pick(metrics, experiment=EXPERIMENTS[name])
    items = pick(items, metric=make.reads[1], run=list(rows["run"].unique()))
    return make(pick(rows, metric=make.reads[0]), items, {"published": theirs if len(theirs) else None})


def draw(name, table, **params):
    return getattr(figures, name)(table, {"width": "page", "scale": "laptop", **params})


@cache
def drawn(name):
    """The figure of a whole table, laid out once for all tests that only look at it."""
    drawing = draw(name, table_of(name))
    drawing.draw_without_rendering()
    return drawing


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip("\u200b ") and t.get_visible()]


def said(drawing):
    return [t.get_text().strip("\u200b") for t in texts(drawing)]


def check(drawing, scale="laptop"):
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
        letter, title = ax._left_title, ax.title
        if letter.get_text() and title.get_text():
            assert letter.get_window_extent().x1 <= title.get_window_extent().x0 + 0.5
    assert f"scale: {scale}" in said(drawing)


# ---- every figure


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_every_figure_is_readable_and_nothing_is_cut_off(name):
    check(drawn(name))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_one_seed_draws_without_intervals_without_published_values_and_with_a_watermark(name):
    table = table_of(name, seeds=1, third=False)
    drawing = draw(name, table[table["source"] == "ours"], scale="smoke", watermark=True)
    assert said(drawing).count("scale: smoke") == 2
    assert not any("±" in text for text in said(drawing))


def as_public(name):
    """The table of six public models with one seed each."""
    table = table_of(name, seeds=1)
    ours = pick(table, source="ours", model="L")
    models = [ours.assign(model=model, width=2048 + 512 * k) for k, model in enumerate(LARGE)]
    parts = [one.assign(tokens=one["tokens"] * 2e5) if "tokens" in one else one for one in models]
    return pd.concat([*parts, pick(table, source="paper")], ignore_index=True)


@pytest.mark.parametrize("name", ["fig2", "fig3", "tab9"])
@pytest.mark.filterwarnings("error")
def test_figures_of_the_papers_own_models_are_readable(name):
    table = as_public(name)
    drawing = draw(name, table[~table["metric"].isin(["gradient_norm", "learning_rate"])], scale="paper")
    drawing.draw_without_rendering()
    check(drawing, "paper")
    assert {"Pythia-1.4B", "Pythia-12B", "OLMo-2-7B"} <= set(said(drawing))
    if name == "fig2":
        assert said(drawing).count("not measured") == 2


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption_that_names_the_scale(name):
    template = (ROOT / f"workflow/report/geometry_{name}.rst").read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown


# ---- lines in the style of a phase


def lines_of(ax, color):
    """Curves of one color without marks, in the order drawn."""
    return [
        line for line in ax.lines
        if to_hex(line.get_color()) == color.lower() and line.get_marker() in ("", "None") and len(line.get_xdata()) > 1
    ]  # fmt: skip


def joined(lines):
    """Points of stretches that follow one another, each once."""
    points = [line.get_xydata() for line in lines]
    assert all((a[-1] == b[0]).all() for a, b in pairwise(points))
    return np.concatenate([points[0], *(part[1:] for part in points[1:])])


def test_each_stretch_has_the_style_of_its_phase_and_the_values_of_the_table():
    table, drawing = table_of("fig2"), drawn("fig2")
    colors = looks.model_colors(["M", "L"])
    for ax, metric in ((drawing.axes[0], "cross_entropy"), (drawing.axes[4], "rank_me"), (drawing.axes[5], "alpha")):
        lines = lines_of(ax, colors["L"])
        assert [line.is_dashed() for line in lines] == [True, False, True]
        # phases change at the trough and at the peak
        assert [line.get_xdata()[-1] / TOKENS for line in lines] == [TROUGH, PEAK, LAST]
        part = pick(table, model="L", metric=metric)
        if metric == "rank_me":
            mean = np.exp(np.log(part["value"]).groupby(part["tokens"]).mean())
        else:
            mean = part.groupby("tokens")["value"].mean()
        assert joined(lines) == pytest.approx(np.column_stack([mean.index, mean]))
    dotted, dashed = (lines_of(drawing.axes[0], colors["L"])[k]._dash_pattern[1] for k in (0, 2))
    assert dotted[0] < dashed[0]


def test_a_stretch_without_a_phase_is_thin_and_in_the_key():
    table = table_of("fig11", third=False)
    table = table.assign(phase=table["phase"].where(table["tokens"] <= PEAK * TOKENS, ""))
    drawing = draw("fig11", table)
    lines = lines_of(drawing.axes[0], looks.model_colors(["XS", "S"])["S"])
    assert [line.get_linewidth() for line in lines][-1] == looks.THIN < lines[0].get_linewidth()
    assert "no phase observed" in said(drawing) and "no phase observed" not in said(drawn("fig11"))


def test_a_phase_is_that_of_most_seeds():
    assert looks.commonest(pd.Series([WARMUP, WARMUP, ENTROPY])) == WARMUP
    assert looks.commonest(pd.Series([WARMUP, ENTROPY])) == "" == looks.commonest(pd.Series([], dtype=object))
    assert looks.commonest(pd.Series(["", "", ENTROPY])) == ""


def test_bands_are_t_intervals_over_seeds():
    table = table_of("fig2")
    part = pick(table, model="M", metric="cross_entropy")
    step = part.assign(value=part["value"] + part["seed"] * 0.1)
    ax = draw("fig2", pd.concat([step, table.drop(part.index)])).axes[0]
    values = pick(step, tokens=LAST * TOKENS)["value"]
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    band = next(
        c for c in ax.collections if to_hex(c.get_facecolor()[0]) == looks.model_colors(["M", "L"])["M"].lower()
    )
    ends = band.get_paths()[0].vertices
    ends = ends[np.isclose(ends[:, 0], LAST * TOKENS), 1]
    assert [ends.min(), ends.max()] == pytest.approx([values.mean() - half, values.mean() + half])


def test_step_zero_has_a_place_at_the_left_edge():
    for ax in (drawn("fig2").axes[0], drawn("fig11").axes[0], drawn("fig3").axes[0]):
        labels = {t.get_text(): x for t, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
        assert labels["0"] == 0 and ax.get_xlim()[0] == 0
        ax.figure.draw_without_rendering()
        left = ax.transData.transform([(0, 1), (TOKENS, 1)])[:, 0]
        assert left[0] < left[1]
    assert STEPS[:2] == (0, 1)


# ---- the paper's values


def hollow_marks(ax):
    """Points of open marks by color."""
    lone = [
        line for line in ax.lines if line.get_linestyle() == "None" and to_hex(line.get_markerfacecolor()) == "#ffffff"
    ]
    return {to_hex(line.get_markeredgecolor()): line.get_xydata() for line in lone}


def test_read_offs_stand_in_panels_of_their_own_with_their_ranges():
    drawing = drawn("fig2")
    ax = drawing.axes[6]
    assert ax.get_title() == "RankMe, paper"
    olmo = hollow_marks(ax)[looks.FAMILIES["olmo2"].color.lower()]
    assert olmo[:, 1].tolist() == [170, 75, 150, 1040, 450, 330, 430]
    assert olmo[1:3, 0].tolist() == pytest.approx([6e8, 2.5e9]) and olmo[3, 0] == pytest.approx(np.sqrt(5e10 * 6e10))
    assert olmo[0, 0] < olmo[1, 0]  # read at no tokens in particular
    spans = [path.vertices for lines in ax.collections for path in lines.get_paths()]
    assert any(np.allclose(span, [[1.7e7, 380], [1.7e7, 720]]) for span in spans)
    assert any(np.allclose(sorted(span[:, 0]), [2e10, 6e10]) for span in spans)
    assert not hollow_marks(drawing.axes[4])


def test_models_read_at_the_same_tokens_are_one_span():
    theirs = pick(PUBLISHED, figure="geometry_fig2", metric="alpha")
    found = looks.spans(looks.family_of(theirs, "pythia")).set_index("point")
    assert found.loc["maximum"].tolist() == [3e8, 5e8, 1.55, 2.15]
    assert found.loc["end", ["y_low", "y_high"]].tolist() == [0.95, 0.95]


def test_what_is_read_at_no_tokens_is_left_out_unless_it_is_a_start():
    theirs = pick(table_of("fig2"), source="paper", model="olmo2_7b", metric="rank_me")
    lost = theirs.assign(tokens=theirs["tokens"].where(theirs["point"] != "trough"))
    assert len(theirs) == 7 and len(looks.spans(lost)) == 6
    assert set(looks.spans(lost)["point"]) == set(theirs["point"]) - {"trough"}


# ---- capabilities


def test_rho_skips_zeros_and_has_the_standard_error_over_questions_as_its_band():
    table, drawing = table_of("fig3"), drawn("fig3")
    ax = next(ax for ax in drawing.axes if ax.get_title().startswith("L, width 64"))
    part = pick(table, source="ours", model="L", metric="rho", subset="facts", zeros="skip")
    mean = part.groupby("tokens")["value"].mean()
    look = figures.RHO["facts"]
    assert joined(lines_of(ax, look.color)) == pytest.approx(np.column_stack([mean.index, mean]))
    one = pick(part, tokens=PEAK * TOKENS)
    error = np.sqrt((((one["high"] - one["low"]) / 2) ** 2).mean())
    band = next(c for c in ax.collections if to_hex(c.get_facecolor()[0]) == look.color.lower())
    ends = band.get_paths()[0].vertices
    ends = ends[np.isclose(ends[:, 0], PEAK * TOKENS), 1]
    assert [ends.min(), ends.max()] == pytest.approx([one["value"].mean() - error, one["value"].mean() + error])
    changed = table.assign(value=table["value"].where(table["zeros"] != "zero", 0.9))
    again = draw("fig3", changed).axes[0]
    assert joined(lines_of(again, look.color)) == pytest.approx(joined(lines_of(drawing.axes[0], look.color)))


def test_accuracies_stand_below_with_chance_and_the_papers_values_at_the_right():
    table, drawing = table_of("fig3"), drawn("fig3")
    lower = [ax for ax in drawing.axes if ax.get_ylabel() == "Accuracy"]
    assert len(lower) == 1
    look = figures.ABLE["recall", "facts"]
    part = pick(table, source="ours", model="M", metric="recall").groupby("tokens")["value"].mean()
    assert joined(lines_of(lower[0], look.color))[:, 1] == pytest.approx(part.to_numpy())
    assert any(np.allclose(line.get_ydata(), 0.25) for line in lower[0].lines)
    paper = next(ax for ax in drawing.axes if ax.get_title() == "paper, Pythia")
    assert hollow_marks(paper)[figures.RHO["facts"].color.lower()][:, 1].tolist() == [0.2475, 0.335, 0.32]


# ---- tables and the third phase


def test_correlations_are_means_over_seeds_and_the_papers_are_gray():
    table, drawing = table_of("tab9"), drawn("tab9")
    part = pick(table, source="ours", model="M", range="from_trough", type="spearman", metric="correlation_alpha")
    assert f"{part['value'].mean():.2f}".replace("-", "−") in said(drawing)
    gray = {t.get_text() for t in texts(drawing) if t.get_color() == style.MUTED}
    assert {"0.81", "−0.76", "0.54", "−0.62"} <= gray
    assert said(drawing).count("from the peak") == 2
    late = draw("tab9", table_of("tab9", seeds=1, third=False))
    assert "–" in said(late)


def test_marks_of_phases_are_filled_if_observed_and_counted():
    table = table_of("x_third_phase", third=False)
    drawing = draw("x_third_phase", table)
    forest = next(ax for ax in drawing.axes if ax.get_title() == "Compression")
    names = [t.get_text() for t in next(ax for ax in drawing.axes if ax.get_title() == "Warmup").get_yticklabels()]
    assert names[0] == "base" and set(names[1:]) == {"repeated", "weight decay", "long", "small vocabulary"}
    row = names.index("repeated")
    marks = [line for line in forest.lines if line.get_marker() == "o"]
    assert len(marks) == 5 * 3
    for line in marks:
        x, y = line.get_xydata()[0]
        filled = to_hex(line.get_markerfacecolor()) != "#ffffff"
        assert filled == (round(y) == row)
        if filled:
            assert x == pytest.approx(np.log(0.6), abs=0.03)
    counts = {round(t.get_position()[1]): t.get_text() for t in forest.texts}
    assert counts[row] == "3/3" and {counts[k] for k in range(5) if k != row} == {"0/3"}


def test_contrasts_are_means_of_the_compression_over_seeds():
    table = table_of("x_third_phase", third=False)
    ax = next(ax for ax in draw("x_third_phase", table).axes if ax.get_title() == "Compression / base")
    part = pick(table, metric="contrast", phase=COMPRESSION).groupby("variant")["value"].mean()
    found = sorted(line.get_xydata()[0, 0] for line in ax.lines if line.get_marker() == "D")
    assert found == pytest.approx(sorted(part))


def test_variants_are_drawn_over_the_base():
    drawing, table = drawn("x_third_phase"), table_of("x_third_phase")
    ax = next(ax for ax in drawing.axes if ax.get_title() == "weight decay")
    for name, color in (("base", geometry_third_phase.BASE), ("weight_decay", geometry_third_phase.VARIANT)):
        part = pick(table, metric="rank_me", variant=name)
        mean = np.exp(np.log(part["value"]).groupby(part["tokens"]).mean())
        assert joined(lines_of(ax, color)) == pytest.approx(np.column_stack([mean.index, mean]))


def test_a_variant_of_another_width_says_so():
    table = table_of("x_third_phase")
    wider = table.assign(width=table["width"].where(table["variant"] != "long", 64))
    titles = [ax.get_title() for ax in draw("x_third_phase", wider).axes]
    assert "long, width 64" in titles and "weight decay" in titles


def test_figures_import_no_torch():
    program = (
        "import sys, memorization.figures.geometry_pretraining; "
        "sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
