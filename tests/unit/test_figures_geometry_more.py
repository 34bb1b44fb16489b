"""Figures of paper `geometry` on post-training, probes, suffixes and spectra: readable, and what they draw is in their
tables.
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
from fake_geometry import fake
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from memorization.figures import geometry_more, geometry_post, style
from memorization.tables.common import pick

ROOT = Path(__file__).parents[2]
NAMES = ("fig5", "fig14", "fig7", "fig8", "fig9_10", "x_choices", "tab7", "tab8")
PUBLISHED = pd.read_csv(ROOT / "config/published/geometry.csv")


@cache
def table_of(name, seeds=3, paper=True):
    from memorization.tables import geometry_more, geometry_post

    make = getattr(geometry_post if name in ("fig5", "fig14") else geometry_more, name)
    metrics, items = fake(seeds=seeds)
    metrics = metrics[metrics["experiment"] != "third_phase"].reset_index(drop=True)
    theirs = PUBLISHED[[f"geometry_{name}" in names.split() for names in PUBLISHED["figure"]]]
    return make(metrics, items, {"published": theirs if len(theirs) and paper else None})


def draw(name, table, **params):
    make = getattr(geometry_post if name in ("fig5", "fig14") else geometry_more, name)
    width = "column" if name == "tab7" else "page"
    return make(table, {"width": width, "scale": "laptop", **params})


@cache
def drawn(name):
    """The figure of fake measurements, laid out once for all tests that only look at it."""
    drawing = draw(name, table_of(name))
    drawing.draw_without_rendering()
    return drawing


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip("\u200b ") and t.get_visible()]


def said(drawing):
    return [t.get_text().strip("\u200b") for t in texts(drawing)]


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
        titles = [t for t in (ax._left_title, ax.title) if t.get_text()]
        spans = [t.get_window_extent() for t in titles]
        assert len(spans) < 2 or spans[0].x1 <= spans[1].x0
    assert "scale: laptop" in said(drawing)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_every_figure_is_readable_and_nothing_is_cut_off(name):
    check(drawn(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_one_seed_draws_without_intervals_without_published_values_and_with_a_watermark(name):
    drawing = draw(name, table_of(name, 1, False), scale="smoke", watermark=True)
    assert said(drawing).count("scale: smoke") == 2
    assert not any("±" in text or text.startswith("paper") for text in said(drawing))


@pytest.mark.parametrize("name", NAMES)
def test_every_caption_names_the_scale(name):
    template = (ROOT / f"workflow/report/geometry_{name}.rst").read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown


def lines_of(ax, color):
    """Curves of one color, as arrays of points."""
    return [
        line.get_xydata() for line in ax.lines if to_hex(line.get_color()) == color.lower() and len(line.get_xdata())
    ]


def holds(ax, color, wanted):
    """Whether a curve of this color goes through exactly these means."""
    found = wanted.sort_index()
    points = np.column_stack([found.index.to_numpy(float), found.to_numpy(float)])
    return any(line.shape == points.shape and np.allclose(line, points) for line in lines_of(ax, color))


# ---- post-training


def test_stages_follow_one_another_between_thin_lines():
    rows = pick(table_of("fig5"), source="ours")
    for ax, panel in zip(drawn("fig5").axes[:2], ("rank_me_text", "rank_me_task"), strict=True):
        for stage, look in geometry_post.STAGES.items():
            means = pick(rows, panel=panel, stage=stage).groupby("at")["value"].mean()
            assert holds(ax, look.color, means)
        borders = [line.get_xdata()[0] for line in ax.lines if [*line.get_ydata()] == [0, 1]]
        assert borders == [40, 80]
        assert ax.get_xlim()[0] <= 0 and ax.get_xlim()[1] >= 120


def test_losses_win_rate_and_the_rank_of_the_base_are_drawn_over_its_tokens():
    rows = pick(table_of("fig5"), source="ours")
    axes = drawn("fig5").axes
    short = geometry_post.FORMATS["short"].color
    for ax, panel, color, factor in (
        (axes[2], "rank_me_base", style.INK, 1), (axes[3], "loss_in", short, 1), (axes[4], "loss_out", short, 1),
        (axes[5], "won", style.INK, 100),
    ):  # fmt: skip
        means = factor * pick(rows, panel=panel).groupby("base_tokens")["value"].mean()
        assert len(means) == 4 and holds(ax, color, means), panel
        assert ax.get_xscale() == "log"
    low, high = axes[5].get_ylim()
    assert low < 50 < high


def test_pass_at_k_is_drawn_over_k_and_over_steps():
    rows = pick(table_of("fig5"), source="ours")
    passes, most, rank = drawn("fig5").axes[6:]
    for stage, look in geometry_post.STAGES.items():
        part = pick(rows, panel="pass", stage=stage, step=40)
        assert holds(passes, look.color, 100 * part.groupby("k")["value"].mean())
    color = geometry_post.STAGES["grpo"].color
    for step in (10, 20):
        part = pick(rows, panel="pass", stage="grpo", step=step)
        assert holds(passes, color, 100 * part.groupby("k")["value"].mean())
    assert passes.get_xscale() == "log"
    assert holds(most, color, 100 * pick(rows, panel="pass_most").groupby("step")["value"].mean())
    part = pick(rows, panel="rank_me_task_grpo")
    first = part[part["step"] == 0].set_index("seed")["value"]
    part = part.assign(value=part["value"] / part["seed"].map(first))
    assert holds(rank, color, part.groupby("step")["value"].mean())


def test_the_paper_is_written_above_its_panel_with_the_text_before_read_offs():
    words = said(drawn("fig5"))
    assert {
        "paper: SFT 1.39, DPO 1.78, GRPO 1.64", "paper: 325 → 460–485", "paper: 286 → 261",
        "paper: 137 → 130.2 → 131", "paper: 14 → 9 %", "paper: 92.7 → 88.7 %, k = 256", "paper: 1180 → 1106",
    } <= set(words)  # fmt: skip
    open_marks = [
        line for line in drawn("fig5").axes[6].lines if to_hex(line.get_markerfacecolor()) == "#ffffff"
        and line.get_marker() not in ("", "None") and len(line.get_xdata())
    ]  # fmt: skip
    points = sorted(tuple(xy) for line in open_marks for xy in line.get_xydata())
    assert np.allclose(points, [(16, 66), (16, 69), (256, 88.7), (256, 92.8)])


@pytest.mark.filterwarnings("error")
def test_what_was_not_measured_is_said():
    table = table_of("fig5")
    drawing = draw("fig5", table[~table["panel"].isin(["won", "pass", "pass_most", "rank_me_task"])])
    assert said(drawing).count("not measured") == 4


def test_every_panel_shows_the_widest_model_that_it_has():
    table = table_of("fig5", 1, False)
    small = table[table["panel"] == "loss_in"].assign(model="M", width=32, value=-5.0)
    chain = table.assign(model=table["model"].mask(table["panel"] == "loss_out", "other"))
    drawing = draw("fig5", pd.concat([small, chain], ignore_index=True))
    lows = [min(line[:, 1].min() for line in lines_of(ax, geometry_post.FORMATS["short"].color)) for ax in
            drawing.axes[3:5]]  # fmt: skip
    assert lows[0] > 0 and lows[1] > 0


def test_both_formats_are_drawn_in_and_out_of_distribution():
    rows = pick(table_of("fig14"), source="ours")
    near, far, won, last = drawn("fig14").axes
    for form, look in geometry_post.FORMATS.items():
        for ax, panel in ((near, "loss_in"), (far, "loss_out")):
            assert holds(ax, look.color, pick(rows, panel=panel, format=form).groupby("base_tokens")["value"].mean())
    assert holds(won, style.INK, 100 * pick(rows, panel="won").groupby("base_tokens")["value"].mean())
    short = lines_of(last, geometry_post.FORMATS["short"].color)[0]
    assert short[-1, 1] == 50 and len(short) == 4


# ---- choices of the probe


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("fig7", [("layer", "rank_me"), ("layer", "alpha")]),
        ("fig8", [("sequences", "rank_me"), ("sequences", "alpha"), ("length", "rank_me"), ("length", "alpha")]),
        ("fig9_10", [("data", "rank_me"), ("data", "alpha")]),
        (
            "x_choices",
            [("centring", "rank_me"), ("token", "rank_me"), ("centring", "alpha"), ("token", "alpha"),
             ("window", "alpha")],
        ),
    ],
)  # fmt: skip
def test_a_row_of_panels_a_model_with_a_line_a_value(name, columns):
    table, axes = table_of(name), drawn(name).axes
    of = {"layer": "layer", "sequences": "sequences", "length": "length", "data": "subset", "centring": "centred",
          "token": "token", "window": "window"}  # fmt: skip
    models = [model for model in ("XS", "S", "M", "L") if (table["model"] == model).any()]
    assert len(axes) == len(models) * len(columns)
    for i, model in enumerate(models):
        assert axes[i * len(columns)].get_ylabel().startswith(f"{model}, width")
        for k, (choice, metric) in enumerate(columns):
            ax = axes[i * len(columns) + k]
            part = pick(table, model=model, choice=choice, metric=metric)
            drawn_lines = [line for line in ax.lines if len(line.get_xdata()) == part["tokens"].nunique()]
            assert len(drawn_lines) == part[of[choice]].nunique()
            for _, rows in part.groupby(of[choice]):
                means = rows.groupby("tokens")["value"].mean()
                assert any(np.allclose(line.get_ydata(), means) for line in drawn_lines)


def test_the_default_is_drawn_last_and_in_black():
    for ax in drawn("x_choices").axes:
        assert to_hex(ax.lines[-1].get_color()) == style.INK


def test_layers_of_models_of_different_depth_share_one_key():
    table = table_of("fig7", 1, False)
    more = [table]
    for layer in range(3, 9):
        more.append(pick(table, model="L", layer=2.0).assign(layer=float(layer)))
    words = said(draw("fig7", pd.concat(more, ignore_index=True)))
    assert {"embeddings", "between, darker with depth", "last layer"} <= set(words) and "layer 8 (last)" not in words
    assert {"embeddings", "1", "layer 2 (last)"} <= set(said(drawn("fig7")))


def test_shares_are_written_as_fractions_where_they_are():
    assert [geometry_more._share(x) for x in (1 / 16, 0.25, 0.75, 0.5, 0.01)] == ["1/16", "1/4", "3/4", "1/2", "1 %"]
    assert {"1/16", "1/8", "3/4", "sequences:", "length:"} <= set(said(drawn("fig8")))


def test_axis_of_tokens_has_a_place_for_none_and_few_labels():
    style.use_style()
    figure = Figure()
    with_zero, without, short = figure.subplots(1, 3)
    geometry_more.token_axis(with_zero, [0, 512, 1024, 2**20])
    geometry_more.token_axis(without, [1.7e7, 3e11])
    geometry_more.token_axis(short, [400, 800])
    labels = [[t.get_text() for t in ax.get_xticklabels()] for ax in (with_zero, without, short)]
    assert labels[0] == ["0", "$10^{3}$", "$10^{4}$", "$10^{5}$", "$10^{6}$"]
    assert labels[1] == ["$10^{8}$", "$10^{9}$", "$10^{10}$", "$10^{11}$"]
    assert len(labels[2]) == 3 and labels[2][0] == r"$4\!\times\!10^{2}$"
    assert with_zero.get_xlim()[0] == 0 and without.get_xscale() == "log"


# ---- tables


def test_suffix_lengths_stand_beside_the_papers():
    table, words = table_of("tab7"), said(drawn("tab7"))
    own = 100 * pick(table, source="ours", subset="facts", bin="<=3").groupby("seed")["value"].mean().mean()
    assert f"{own:.1f}" in words and {"25.4", "46.6", "16.7", "6.1", "2.4", "1.5", "1.3"} <= set(words)
    assert {"0", "1", "2", "3", "≤\u20093", "8", ">\u20098", "TriviaQA", "(paper)"} <= set(words)


def test_interventions_have_a_row_a_model_and_name_k():
    table, words = table_of("tab8"), said(drawn("tab8"))
    assert {"8, 16 of 64", "4, 8 of 32", "Smaller k", "Larger k", "OLMo-2-7B", "10, 50", "15.5", "97.0"} <= set(words)
    assert words.count("L") == 3 and words.count("Pythia-1B") == 1
    own = pick(table, source="ours", subset="continuations", model="M", intervention="keep_top", place=2)
    assert f"{100 * own['value'].mean():.1f}" in words
    note = " ".join(word for word in words if len(word) > 60)
    assert "k is 12.5 and 25 % of the width of ours; in the paper, 10 and 50 of 2,048 or more." in note


def test_nothing_heavy_is_imported():
    code = (
        "import sys, memorization.figures.geometry_more, memorization.figures.geometry_post; "
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
