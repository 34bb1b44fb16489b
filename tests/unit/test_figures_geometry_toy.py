"""Tables and figures of the toy model of `geometry`: shares and percentiles by hand, and drawings that can be read."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jinja2
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from memorization.errors import UserError
from memorization.figures import geometry_toy as figures
from memorization.figures import style
from memorization.tables import geometry_toy as tables
from memorization.tables.common import pick
from memorization.theory.geometry_toy import rank_me, toy_rows

ROOT = Path(__file__).parents[2]
NAMES = ("fig4", "fig12", "fig13")
SKEWED, EQUAL = [8, 4, 2, 1], [2, 2, 2, 2]
SETTINGS = {
    "main": {"counts": SKEWED},
    "uniform": {"counts": EQUAL},
    "wide": {"counts": SKEWED, "dimension": 3},
    "mse_uniform": {"counts": EQUAL, "loss": "mse"},
    "mse_skewed": {"counts": SKEWED, "loss": "mse"},
}


@cache
def rows(seeds):
    every = {name: {**options, "steps": 1500, "records": 15} for name, options in SETTINGS.items()}
    return toy_rows(every, range(seeds))


@cache
def table_of(name, seeds=12):
    return getattr(tables, name)(*rows(seeds), {"minimum": 0.02})


def draw(name, table, **params):
    drawing = getattr(figures, name)(table, {"width": "page", "scale": "laptop", **params})
    drawing.draw_without_rendering()
    return drawing


def curve_rows(curves, metric="rank_me"):
    """Long rows of curves (S, T)."""
    wide = pd.DataFrame(curves).rename_axis("seed").reset_index()
    return wide.melt("seed", var_name="step").assign(metric=metric)


# ---- tables


def test_shares_of_phases_and_their_intervals_by_hand():
    curves = [[2, 1, 1.5, 1.2], [2, 1, 1.5, 1.5], [1, 1.5, 1.5, 1.4], [2, 1.9, 1.8, 1.7]]
    found = tables.phase_rows(curve_rows(curves), 0.05).set_index(["part", "phase"])
    shares = found.loc["phase", "value"].to_dict()
    assert shares == {"warmup": 0.75, "entropy_seeking": 0.75, "compression_seeking": 0.5, "all": 0.25}
    assert found["seeds"].eq(4).all()
    # Wilson, three of four: center and half width with z = 1.96
    z = 1.959964
    center, half = (0.75 + z**2 / 8) / (1 + z**2 / 4), z * np.sqrt(0.75 * 0.25 / 4 + z**2 / 64) / (1 + z**2 / 4)
    assert found.loc[("phase", "warmup"), ["low", "high"]].tolist() == pytest.approx([center - half, center + half])
    falls = [0.5, 0.5, 0, 0.15]
    size = found.loc[("size", "warmup")]
    assert size["value"] == pytest.approx(0.325)
    assert [size["low"], size["high"]] == pytest.approx(np.quantile(falls, [0.1, 0.9]))


@pytest.mark.parametrize("name", NAMES)
def test_curves_are_medians_and_percentiles_over_seeds(name):
    table, (metrics, _) = table_of(name), rows(12)
    assert list(table.columns) == tables.COLUMNS and not table.drop(columns=["low", "high"]).isna().any().any()
    for (setting, metric), part in pick(table, part="curve").groupby(["setting", "metric"]):
        wide = pick(metrics, setting=setting, metric=metric).pivot(index="seed", columns="step", values="value")
        part = part.set_index("step")
        np.testing.assert_allclose(part["value"], wide.median().reindex(part.index))
        np.testing.assert_allclose(part["low"], wide.quantile(0.1).reindex(part.index))
        np.testing.assert_allclose(part["high"], wide.quantile(0.9).reindex(part.index))
        assert part["seeds"].eq(12).all()


def test_coordinates_and_curves_of_a_shown_seed_belong_together():
    table = table_of("fig4")
    for rule in ("nearest_median", "largest_compression"):
        mine = pick(table, illustration=rule)
        assert mine["seed"].nunique() == 1, rule
        points = pick(mine, part="path", metric="feature", step=1500)
        points = points.pivot(index="item", columns="axis", values="value").to_numpy()
        value = pick(mine, part="example", metric="rank_me", step=1500)["value"]
        assert value.tolist() == pytest.approx([rank_me(points)])
    assert pick(table_of("fig13"), illustration="largest_compression").empty


def test_output_for_the_own_class_goes_with_the_size_of_the_class():
    ends = pick(table_of("fig13"), part="class", setting="mse_skewed").sort_values("class")
    assert ends["n"].tolist() == SKEWED
    assert ends["value"].tolist() == pytest.approx([1, 1, 0, 0], abs=0.02)


def test_nothing_to_show_is_said():
    metrics, items = rows(12)
    with pytest.raises(UserError, match=r"geometry_fig12.*uniform, wide"):
        tables.fig12(pick(metrics, setting="main"), items, {})


# ---- figures


def texts(drawing):
    return [t for t in drawing.findobj(matplotlib.text.Text) if t.get_text().strip("\u200b ") and t.get_visible()]


def said(drawing):
    return [t.get_text() for t in texts(drawing)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seeds", [12, 1])
@pytest.mark.filterwarnings("error")
def test_figures_are_readable_and_nothing_is_cut_off_or_runs_into_the_next(name, seeds):
    drawing = draw(name, table_of(name, seeds))
    assert min(t.get_fontsize() for t in texts(drawing)) >= 6
    width, height = drawing.get_size_inches()
    assert width == style.WIDTHS["page"]
    used = drawing.get_tightbbox()
    assert used.x0 >= -0.01 and used.x1 <= width + 0.02 and used.y0 >= -0.01 and used.y1 <= height + 0.01
    for ax in drawing.axes:
        boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
        boxes = sorted((box for box in boxes if box.width), key=lambda box: box.x0)
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    titles = [ax.title for ax in drawing.axes] + [ax._left_title for ax in drawing.axes]
    boxes = [t.get_window_extent() for t in titles if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert "scale: laptop" in said(drawing)


def lines_of(ax, color):
    return [line.get_xydata() for line in ax.lines if to_hex(line.get_color()) == to_hex(color)]


def test_what_is_drawn_is_in_the_table():
    table = table_of("fig4")
    drawing = draw("fig4", table)
    axes = drawing.axes
    median = pick(table, part="curve", metric="rank_me").sort_values("step")
    (line,) = lines_of(axes[2], figures.RANKS["rank_me"].color)
    np.testing.assert_allclose(line, median[["step", "value"]])
    (dotted,) = lines_of(axes[2], style.INK)
    own = pick(table, part="example", illustration="nearest_median", metric="rank_me").sort_values("step")
    np.testing.assert_allclose(dotted[:, 1], own["value"])
    example = pick(table, part="example", illustration="largest_compression", metric="rank_me_means")
    (line,) = lines_of(axes[6], figures.RANKS["rank_me_means"].color)
    np.testing.assert_allclose(line[:, 1], example.sort_values("step")["value"])
    # bars: features, then class means, in the order of the phases
    widths = [bar.get_width() for bar in axes[7].patches]
    phases = pick(table, part="phase")
    wanted = [
        100 * pick(phases, metric=metric, phase=phase)["value"].item()
        for metric in figures.RANKS for phase in figures.PHASE_NAMES
    ]  # fmt: skip
    assert widths == pytest.approx(wanted)
    # eight features of the first class, each a way through all recorded steps
    ways = [line for line in lines_of(axes[1], figures.CLASS_COLORS[0]) if len(line) > 1]
    one = pick(table, part="path", illustration="nearest_median", metric="feature", item=0)
    wide = one.pivot(index="step", columns="axis", values="value")
    assert len(ways) == 8 and any(np.allclose(way, wide) for way in ways)
    assert f"Largest last fall of {12}" in " ".join(said(drawing))


def test_without_a_seed_with_a_last_fall_its_panels_say_so():
    metrics, items = rows(12)
    table = tables.fig4(metrics, pick(items, illustration="nearest_median"), {})
    assert said(draw("fig4", table)).count("no such seed") == 3


def test_scale_of_a_trial_is_written_across():
    assert said(draw("fig12", table_of("fig12"), scale="smoke", watermark=True)).count("scale: smoke") == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_caption_that_names_the_scale(name):
    template = (ROOT / f"workflow/report/geometry_{name}.rst").read_text()
    shown = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(
        snakemake=SimpleNamespace(config={"scale": "gpu"})
    )
    assert "scale gpu" in " ".join(shown.split()) and "{" not in shown
