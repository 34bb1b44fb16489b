"""The toy model of `geometry`: steps by hand and by torch, the theorems in the limit of small steps, phases by hand."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from memorization.errors import UserError
from memorization.probes import spectrum
from memorization.provenance.record import read_provenance, read_table
from memorization.theory import geometry_toy as theory
from memorization.theory.geometry_toy import Toy, phase_changes, simulate, toy_rows

ROOT = Path(__file__).parents[2]
SKEWED = (8, 4, 2, 1)


def toy(**options):
    return Toy(**{"counts": SKEWED, "steps": 300, "records": 20, **options})


# ---- dynamics


def test_one_step_worked_out_by_hand(monkeypatch):
    # one sample of each of two classes, one dimension: scores f W = (1, -1) and (-1, 1) x .5
    start = (np.array([[1.0], [-1.0]]), np.array([[0.5, -0.5]]))
    monkeypatch.setattr(theory, "initial", lambda toy, seed: start)
    run = simulate(toy(counts=(1, 1), dimension=1, learning_rate=0.1, steps=1), [0])
    right = np.e**0.5 / (np.e**0.5 + np.e**-0.5)
    miss = 1 - right
    # p - Y = [[-miss, miss], [miss, -miss]]; the rows of W^T are .5 and -.5
    assert run.steps.tolist() == [0, 1]
    assert run.features[1, 0].ravel() == pytest.approx([1 + 0.1 * miss, -1 - 0.1 * miss])
    assert run.classifier[1, 0].ravel() == pytest.approx([0.5 + 0.2 * miss, -0.5 - 0.2 * miss])
    assert run.loss[0, 0] == pytest.approx(-np.log(right))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_steps_are_those_of_torchs_gradient_descent(loss, reduction):
    torch.set_num_threads(1)
    setting = toy(loss=loss, reduction=reduction, learning_rate=0.02, steps=40, dimension=3)
    run = simulate(setting, [5, 7])
    for at, seed in enumerate((5, 7)):
        f, w = (torch.tensor(values, requires_grad=True) for values in theory.initial(setting, seed))
        optimizer = torch.optim.SGD([f, w], lr=0.02)
        labels, targets = torch.tensor(setting.labels), torch.tensor(setting.targets)
        for _ in range(40):
            optimizer.zero_grad()
            if loss == "mse":
                total = 0.5 * ((f @ w - targets) ** 2).sum() / (15 if reduction == "mean" else 1)
            else:
                total = torch.nn.functional.cross_entropy(f @ w, labels, reduction=reduction)
            total.backward()
            optimizer.step()
        np.testing.assert_allclose(run.features[-1, at], f.detach().numpy(), rtol=1e-10)
        np.testing.assert_allclose(run.classifier[-1, at], w.detach().numpy(), rtol=1e-10)
        mean = 0.5 * ((f @ w - targets) ** 2).sum() / 15
        mean = torch.nn.functional.cross_entropy(f @ w, labels) if loss == "cross_entropy" else mean
        assert run.loss[-1, at] == pytest.approx(mean.item())


def test_a_seed_does_the_same_whichever_others_run_beside_it():
    alone, beside = simulate(toy(), [3]), simulate(toy(), [0, 3])
    np.testing.assert_allclose(alone.features[:, 0], beside.features[:, 1], rtol=1e-12)
    assert not np.allclose(beside.features[:, 0], beside.features[:, 1])


def test_recorded_steps_are_log_spaced_with_both_ends():
    assert toy(steps=1000, records=4).recorded().tolist() == [0, 1, 10, 100, 1000]
    assert toy(steps=3, records=60).recorded().tolist() == [0, 1, 2, 3]


def test_squared_error_ends_at_the_two_most_frequent_classes():
    # The best two dimensions for Y keep its two largest singular values, roots of the counts 8 and 4; small initial
    # values end balanced, so that the features have the roots of those, and RankMe follows from the counts alone.
    run = simulate(toy(loss="mse", steps=6000, init_scale=0.01), range(5))
    own = (run.outputs[-1] * toy().targets).sum(-1)
    np.testing.assert_allclose(own[:, :12], 1, atol=1e-4)
    np.testing.assert_allclose(own[:, 12:], 0, atol=1e-4)
    sigma = np.linalg.svd(run.features[-1], compute_uv=False)
    np.testing.assert_allclose(sigma, np.broadcast_to([8**0.25, 4**0.25], sigma.shape), rtol=1e-3)
    ideal = np.zeros((15, 2))
    ideal[:8, 0], ideal[8:12, 1] = 8**-0.25, 4**-0.25
    np.testing.assert_allclose(theory.rank_me(run.features[-1]), spectrum_rank_me(ideal), rtol=1e-3)
    assert run.loss[-1] == pytest.approx(0.5 * 3 / 15, abs=1e-4)  # three samples are not learned


# ---- geometry


def spectrum_rank_me(points):
    centred = points - points.mean(0)
    return spectrum.rank_me(np.linalg.eigvalsh(centred.T @ centred / len(points)))


def test_rank_me_agrees_with_the_probe_and_with_values_by_hand():
    points = np.random.default_rng(0).standard_normal((3, 2, 9, 4)) * [5, 1, 0.1, 0]
    ours = theory.rank_me(points)
    wanted = [[spectrum_rank_me(one) for one in some] for some in points]
    np.testing.assert_allclose(ours, wanted, rtol=1e-9)
    cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1.0]])
    assert theory.rank_me(cross + 7) == pytest.approx(2, abs=1e-5)  # the offset is taken off
    assert theory.rank_me(cross * [1, 0]) == pytest.approx(1, abs=1e-5)
    # shares .8 and .2
    assert theory.rank_me(cross * [2, 1]) == pytest.approx(np.exp(-0.8 * np.log(0.8) - 0.2 * np.log(0.2)), abs=1e-5)


def test_class_means_by_hand():
    features = np.array([[[1.0, 2], [3, 4], [10, 20]]])
    assert theory.class_means(features, np.array([0, 0, 1])).tolist() == [[[2, 3], [10, 20]]]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_balanced_values_stay_balanced_as_the_rate_goes_to_zero(loss):
    """Theorem 1: equal singular values, and the right vectors of f are the left ones of W."""

    def unbalance(rate):
        run = simulate(toy(init="balanced", loss=loss, learning_rate=rate, steps=round(3 / rate)), range(3))
        f, w = run.features, run.classifier
        gap = f.swapaxes(-1, -2) @ f - w @ w.swapaxes(-1, -2)
        assert np.abs(gap[0]).max() < 1e-12  # at the start
        return run, np.linalg.norm(gap[-1], axis=(-1, -2)) / np.linalg.norm(f[-1], axis=(-1, -2)) ** 2

    run, fine = unbalance(0.001)
    _, coarse = unbalance(0.002)
    assert fine.max() < 3e-3
    np.testing.assert_allclose(coarse / fine, 2, rtol=0.1)  # what remains is the size of the step
    sigma = np.linalg.svd(run.features, compute_uv=False)
    np.testing.assert_allclose(sigma, np.linalg.svd(run.classifier, compute_uv=False)[..., :2], rtol=0.02)
    right = np.linalg.svd(run.features, full_matrices=False)[2]
    left = np.linalg.svd(run.classifier, full_matrices=False)[0]
    aligned = np.abs(np.einsum("tsid,tsdi->tsi", right, left))
    assert aligned.min() > 0.99
    assert sigma[-1, :, 0].min() > 3 * sigma[0].max()  # and it was a long way


def test_values_that_start_unbalanced_are_not_aligned():
    run = simulate(toy(init="random"), range(5))
    right = np.linalg.svd(run.features[0], full_matrices=False)[2]
    left = np.linalg.svd(run.classifier[0], full_matrices=False)[0]
    assert np.abs(np.einsum("sid,sdi->si", right, left)).min() < 0.9


def test_growth_of_singular_values_is_proportional_to_them():
    """Theorem 2: by finite differences, and from the vectors of W; bounded by the residual and by the largest class."""
    setting = toy(init="balanced", init_scale=0.5)
    f, w = (np.stack(v) for v in zip(*(theory.initial(setting, seed) for seed in range(6)), strict=True))
    outputs = theory.outputs_of(f @ w)
    residual = setting.targets - outputs
    rates = theory.growth_rates(f, w, outputs, setting.targets)
    h = 1e-6
    sigma = np.linalg.svd(f, compute_uv=False)
    moved = np.linalg.svd(f + h * residual @ w.swapaxes(-1, -2), compute_uv=False)
    np.testing.assert_allclose((moved - sigma) / h / sigma, rates, rtol=1e-3, atol=1e-4)
    left = np.linalg.svd(f, full_matrices=False)[0]
    # q_i from W = R D Q^T with the signs of f's vectors
    q = np.einsum("sid,sdv->siv", np.linalg.svd(f, full_matrices=False)[2], w) / sigma[..., None]
    np.testing.assert_allclose(rates, np.einsum("sbi,sbv,siv->si", left, residual, q), rtol=1e-8)
    assert (np.abs(rates) <= np.linalg.norm(residual, ord=2, axis=(-1, -2))[:, None] + 1e-9).all()
    # the same directions a thousand times smaller grow at the same relative rate while predictions are uniform
    small = [theory.growth_rates(s * f, s * w, theory.outputs_of(s * s * f @ w), setting.targets) for s in (1e-3, 1e-6)]
    np.testing.assert_allclose(small[0], small[1], rtol=1e-4)
    uniform = setting.targets - 1 / 4
    assert np.linalg.norm(uniform, ord=2) <= np.sqrt(8)
    assert (np.abs(small[1]) <= np.linalg.norm(uniform, ord=2)).all()


# ---- phases


@pytest.mark.parametrize(
    ("curve", "sizes", "places"),
    [
        ([2, 1, 1.5, 1.2], (0.5, 0.5, 0.2), (1, 2)),  # all three
        ([2, 1.6, 1, 2], (0.5, 1.0, 0), (2, 3)),  # no last fall
        ([1, 1.5, 2], (0, 1.0, 0), (0, 2)),  # only a rise
        ([2, 1.5, 1], (0.5, 0, 0), (2, 2)),  # only a fall
        ([1, 1.1, 0.8, 2, 1.5], (0.2, 1.5, 0.25), (2, 3)),  # a first bump, lower than the rise
        ([2, 2, 2], (0, 0, 0), (2, 2)),
    ],
)
def test_sizes_of_phases_by_hand(curve, sizes, places):
    found = phase_changes(np.array([curve, np.array(curve) * 3]))
    for phase, size in zip(theory.PHASES, sizes, strict=True):
        assert found.size(phase) == pytest.approx([size, size]), phase
    assert (found.trough.tolist(), found.peak.tolist()) == ([places[0]] * 2, [places[1]] * 2)


def test_trough_and_peak_are_the_largest_rise_of_all_pairs():
    curves = np.random.default_rng(1).uniform(1, 2, (40, 12))
    found = phase_changes(curves)
    for curve, rise in zip(curves, found.entropy_seeking, strict=True):
        every = [curve[j] / curve[i] - 1 for i in range(12) for j in range(i, 12)]
        assert rise == pytest.approx(max(every))


def test_a_phase_is_observed_from_the_minimum_on_and_the_last_only_after_a_rise():
    found = phase_changes(np.array([[2, 1, 1.5, 1.2], [2, 1.5, 1.501, 1.2]]))
    assert found.observed("warmup", 0.25).tolist() == [True, True]
    assert found.observed("entropy_seeking", 0.25).tolist() == [True, False]
    assert found.observed("compression_seeking", 0.02).tolist() == [True, False]
    assert found.observed("compression_seeking", 0.21).tolist() == [False, False]


def test_shown_seeds_are_the_nearest_to_the_median_and_the_largest_last_fall():
    ranks = np.array([[2, 1, 2, 2], [2, 1.2, 2, 1.9], [2, 1.5, 2, 2]])
    means = np.array([[2, 1, 2, 1.9], [2, 1.2, 2, 1.5], [1, 1.5, 2, 1]])  # the last one has no warmup
    assert theory.illustrations(ranks, means) == {"nearest_median": 1, "largest_compression": 1}
    assert theory.illustrations(ranks, means[[0, 2, 2]]) == {"nearest_median": 1, "largest_compression": 0}
    assert theory.illustrations(ranks, np.array([[2, 1, 2, 2]] * 3)) == {"nearest_median": 1}


# ---- rows


def test_rows_say_what_the_simulation_did():
    settings = {
        "main": {"counts": SKEWED, "steps": 400, "records": 8},
        "wide": {"counts": [1, 2], "dimension": 3, "steps": 3},
    }
    metrics, items = toy_rows(settings, [4, 6])
    run = simulate(Toy(**settings["main"]), [4, 6])
    main = metrics[(metrics["setting"] == "main") & (metrics["seed"] == 6)]
    assert main["run"].unique().tolist() == ["toy-main-s6"]
    means = theory.rank_me(theory.class_means(run.features, toy().labels))
    sigma = np.linalg.svd(run.features, compute_uv=False)
    wanted = {"rank_me": theory.rank_me(run.features), "rank_me_means": means, "loss": run.loss}
    for metric, values in (wanted | {"sigma_1": sigma[..., 0], "sigma_2": sigma[..., 1]}).items():
        rows = main[main["metric"] == metric].sort_values("step")
        assert rows["step"].tolist() == run.steps.tolist(), metric
        np.testing.assert_allclose(rows["value"], values[:, 1])
        assert set(rows["n"]) == ({4} if metric == "rank_me_means" else {15})
    learned = main[main["metric"] == "class_output"].sort_values("class")
    assert learned["step"].tolist() == [400] * 4 and learned["n"].tolist() == list(SKEWED)
    assert learned["value"].iloc[0] == pytest.approx(run.outputs[-1, 1, :8, 0].mean())
    assert set(metrics.loc[metrics["setting"] == "wide", "metric"]) >= {"sigma_3"}
    assert not metrics.isna().any().any() and not items.isna().any().any()

    shown = items[(items["setting"] == "main") & (items["illustration"] == "nearest_median")]
    at = [4, 6].index(shown["seed"].iloc[0])
    last = shown[shown["step"] == 400]
    one = last[(last["metric"] == "feature") & (last["item"] == 9)].sort_values("axis")
    np.testing.assert_allclose(one["value"], run.features[-1, at, 9])
    assert set(one["class"]) == {1}
    one = last[(last["metric"] == "classifier") & (last["item"] == 3)].sort_values("axis")
    np.testing.assert_allclose(one["value"], run.classifier[-1, at, :, 3])
    assert set(one["class"]) == {3}
    assert set(items.loc[items["setting"] == "wide", "illustration"]) == {"nearest_median"}


def test_the_script_writes_both_tables(tmp_path):
    main = runpy.run_path(str(ROOT / "workflow/scripts/simulate_toy.py"))["main"]
    output = SimpleNamespace(metrics=str(tmp_path / "m.parquet"), per_item=str(tmp_path / "i.parquet"))
    settings = {"main": {"counts": [2, 1], "steps": 5, "records": 3}}
    params = SimpleNamespace(toy={"settings": settings, "seeds": 3}, scale="smoke")
    main(SimpleNamespace(params=params, output=output))
    metrics = read_table(output.metrics)
    assert set(metrics["scale"]) == {"smoke"} and set(metrics["seed"]) == {0, 1, 2}
    assert read_provenance(output.per_item)["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "cross_entropy or mse"),
        ({"reduction": "none"}, "sum or mean"),
        ({"init": 0.3}, "random or balanced"),
        ({"counts": [4]}, "at least two classes"),
        ({"counts": [4, 0]}, "at least two classes"),
        ({"steps": 0}, "above 0"),
        ({"init": "balanced", "dimension": 5}, "number of classes, 4"),
    ],
)
def test_bad_options_are_refused_with_what_to_write_instead(options, message):
    with pytest.raises(UserError, match=message):
        toy(**options)


def test_a_rate_that_diverges_is_named():
    with pytest.raises(UserError, match="learning_rate of 9"):
        simulate(toy(learning_rate=9.0, loss="mse"), [0])
