"""Spectra of features against SVD, scikit-learn and known values; representations and interventions by brute force."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as t
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from memorization.errors import UserError
from memorization.probes import spectrum as module
from memorization.probes.spectrum import (
    PowerLaw,
    Spectrum,
    alpha_req,
    fit_window,
    hidden_features,
    rank_me,
    spectral_intervention,
    spectrum,
)


def features(rows: int = 90, width: int = 12, seed: int = 0, offset: float = 3.0) -> np.ndarray:
    """Correlated rows with a mean away from 0."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)) @ rng.standard_normal((width, width)) + offset


def by_svd(rows: np.ndarray, centre: bool = True) -> np.ndarray:
    """(d,) eigenvalues of the covariance by the singular values of the features."""
    singular = np.linalg.svd(rows - rows.mean(0) * centre, compute_uv=False)
    return np.pad(singular**2 / len(rows), (0, rows.shape[1] - len(singular)))


def rotation(width: int, seed: int = 5) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


@pytest.fixture(params=["numpy", "device"])
def give(request, monkeypatch):
    """Both paths: arrays, and tensors as on a device that holds the sums (here the CPU acts as one)."""
    if request.param == "numpy":
        return np.asarray
    monkeypatch.setattr(module, "_on_accelerator", lambda features: isinstance(features, torch.Tensor))
    return torch.as_tensor


# spectra


@pytest.mark.parametrize("centre", [True, False])
def test_streaming_agrees_with_svd_of_all_rows(give, centre):
    rows = features()
    found = Spectrum(centre)
    for start, stop in ((0, 1), (1, 40), (40, 90)):
        found.update(give(rows[start:stop]))
    np.testing.assert_allclose(found.eigenvalues(), by_svd(rows, centre), rtol=1e-11)
    moment = np.cov(rows.T, bias=True) if centre else rows.T @ rows / 90
    np.testing.assert_allclose(found.covariance(), moment, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-13)
    assert (found.count, found.rows, found.width) == (90, 90, 12)
    assert found.eigenvalues().dtype == np.float64 and found.covariance().dtype == np.float64


def test_agrees_with_pca_of_scikit_learn():
    rows = features(60, 10)
    theirs = PCA(svd_solver="full").fit(rows)
    values = spectrum(rows)
    np.testing.assert_allclose(values / values.sum(), theirs.explained_variance_ratio_, rtol=1e-11)
    vectors = Spectrum().update(rows).eigenvectors()
    np.testing.assert_allclose(np.abs(np.sum(vectors * theirs.components_.T, 0)), 1, rtol=1e-11)


def test_eigenvectors_belong_to_their_eigenvalues(give):
    found = Spectrum().update(give(features()))
    vectors = found.eigenvectors()
    np.testing.assert_allclose(found.covariance() @ vectors, vectors * found.eigenvalues(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-12)


def test_more_rows_than_a_block_and_wider_than_a_block(monkeypatch):
    """Sums, and the mirroring of the triangle, go by blocks."""
    rows = features(50, 12)
    monkeypatch.setattr(module, "BLOCK", 5)
    found = Spectrum().update(rows)
    np.testing.assert_allclose(found.eigenvalues(), by_svd(rows), rtol=1e-11)
    np.testing.assert_allclose(found.covariance(), np.cov(rows.T, bias=True), rtol=1e-11)


def test_reading_out_leaves_the_sums_as_they_were(give):
    rows = features()
    found = Spectrum().update(give(rows[:50]))
    first = found.eigenvalues()
    found.covariance()
    found.eigenvectors()
    np.testing.assert_array_equal(found.eigenvalues(), first)
    np.testing.assert_allclose(found.update(give(rows[50:])).eigenvalues(), by_svd(rows), rtol=1e-11)


def test_order_of_the_batches_does_not_matter(give):
    parts = [features(20, seed=seed, offset=10 * seed) for seed in range(4)]
    there, back = (spectrum([give(part) for part in order]) for order in (parts, parts[::-1]))
    np.testing.assert_allclose(there, back, rtol=1e-12)
    np.testing.assert_allclose(there, by_svd(np.concatenate(parts)), rtol=1e-12)


@pytest.mark.parametrize("centre", [True, False])
def test_merging_is_seeing_all_rows(give, centre):
    rows = features()
    left, right = Spectrum(centre).update(give(rows[:30] + 7)), Spectrum(centre).update(give(rows[30:]))
    both = np.concatenate([rows[:30] + 7, rows[30:]])
    merged = left.merge(right)
    np.testing.assert_allclose(merged.eigenvalues(), by_svd(both, centre), rtol=1e-11)
    np.testing.assert_allclose(merged.mean, both.mean(0), rtol=1e-13)
    assert (merged.count, merged.rows) == (90, 90)
    np.testing.assert_allclose(right.eigenvalues(), by_svd(rows[30:], centre), rtol=1e-11)


def test_merging_with_an_empty_one():
    rows = features()
    full = Spectrum().update(rows)
    copied = Spectrum().merge(full)
    full.merge(Spectrum()).update(rows[:5] * 9)
    np.testing.assert_allclose(copied.eigenvalues(), by_svd(rows), rtol=1e-11)


@pytest.mark.parametrize("device_first", [True, False])
def test_sums_of_a_device_and_of_the_host_merge(monkeypatch, device_first):
    monkeypatch.setattr(module, "_on_accelerator", lambda features: isinstance(features, torch.Tensor))
    rows = features()
    device, host = Spectrum().update(torch.as_tensor(rows[:40])), Spectrum().update(rows[40:])
    host.eigenvalues()  # works in one triangle
    merged = device.merge(host) if device_first else host.merge(device)
    np.testing.assert_allclose(merged.eigenvalues(), by_svd(rows), rtol=1e-11)
    np.testing.assert_allclose(merged.covariance(), np.cov(rows.T, bias=True), rtol=1e-11)  # both triangles
    merged.update(rows[:7] if device_first else torch.as_tensor(rows[:7]))  # goes where the sums are
    np.testing.assert_allclose(merged.eigenvalues(), by_svd(np.concatenate([rows, rows[:7]])), rtol=1e-11)


def test_a_mean_far_from_zero_costs_no_digits(give):
    """The sum of squares would have no digit left for a variance of 1 beside an offset of 1e8."""
    rows = np.round(features(80, 6, offset=0.0) * 2**10) / 2**10  # exact beside 1e8
    far = give(rows + 1e8)
    np.testing.assert_allclose(spectrum([far[:10], far[10:50], far[50:]]), by_svd(rows), rtol=1e-11)
    merged = Spectrum().update(far[:30]).merge(Spectrum().update(far[30:]))
    np.testing.assert_allclose(merged.eigenvalues(), by_svd(rows), rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int16])
def test_any_dtype_gives_the_spectrum_of_the_rounded_values(give, dtype):
    rows = torch.as_tensor(features()).to(dtype)
    exact = by_svd(rows.double().numpy())
    np.testing.assert_allclose(spectrum(rows), exact, rtol=1e-10)
    if dtype != torch.bfloat16:
        np.testing.assert_allclose(spectrum(rows.numpy()), exact, rtol=1e-10)


def test_features_with_a_gradient_are_read():
    rows = torch.as_tensor(features()).requires_grad_()
    np.testing.assert_allclose(spectrum(rows * 2), 4 * by_svd(rows.detach().numpy()), rtol=1e-11)


@pytest.mark.parametrize("centre", [True, False])
def test_counts_of_a_resample_are_repeated_rows(give, centre):
    rows = features()
    drawn = np.random.default_rng(3).integers(90, size=90)
    counts = np.bincount(drawn, minlength=90)
    found = Spectrum(centre)
    for part in (slice(0, 17), slice(17, 90)):
        found.update(give(rows[part]), weights=give(counts[part]))
    np.testing.assert_allclose(found.eigenvalues(), by_svd(rows[drawn], centre), rtol=1e-11)
    np.testing.assert_allclose(found.mean, rows[drawn].mean(0), rtol=1e-12)
    assert found.count == 90 and found.rows == (counts > 0).sum()


def test_a_batch_of_weight_zero_changes_nothing(give):
    rows = features()
    found = Spectrum().update(give(rows), weights=np.ones(90)).update(give(rows * 100), weights=np.zeros(90))
    np.testing.assert_allclose(found.eigenvalues(), by_svd(rows), rtol=1e-11)


def test_eigenvalues_beyond_the_rank_are_zero(give):
    rows = features(8, 12)
    values = spectrum(give(rows))
    assert (values[:7] > 1e-3).all() and (values[7:] == 0).all()
    assert (spectrum(give(rows), centre=False)[8:] == 0).all()
    np.testing.assert_allclose(values[:7], by_svd(rows)[:7], rtol=1e-10)


def test_components_are_the_first_ones_that_the_released_code_keeps():
    rows = features(8, 12)
    assert len(spectrum(rows, components=2048)) == 8  # min(2048, M, d)
    assert len(spectrum(features(90, 12), components=2048)) == 12
    np.testing.assert_array_equal(spectrum(rows, components=3), spectrum(rows)[:3])


# RankMe


def released_rank_me(ratios: np.ndarray) -> float:
    """As the released code has it, written out."""
    total = 0.0
    for ratio in ratios:
        share = ratio / sum(abs(r) for r in ratios) + 1e-7
        total -= share * np.log(share)
    return np.exp(total)


def test_rank_me_of_known_spectra():
    assert rank_me(np.full(40, 0.3), epsilon=0) == pytest.approx(40)
    assert rank_me([1.0, 0.0, 0.0], epsilon=0) == 1
    assert rank_me(torch.tensor([2.0, 2.0, 0.0, 0.0]), epsilon=0) == pytest.approx(2)
    assert rank_me([3, 1], epsilon=0) == pytest.approx(4 / 3**0.75)


def test_rank_me_is_that_of_the_released_code():
    rows = features(300, 20)
    ratios = PCA(n_components=7, svd_solver="full").fit(rows).explained_variance_ratio_
    assert rank_me(spectrum(rows, components=7)) == pytest.approx(released_rank_me(ratios), rel=1e-12)
    values = np.array([5.0, 1.0, 0.0, 0.0])
    assert rank_me(values) == pytest.approx(released_rank_me(values), rel=1e-14)
    assert rank_me(values) > rank_me(values, epsilon=0)


def test_isotropic_features_fill_their_space():
    """Rows in orthogonal pairs: the covariance is a multiple of the identity."""
    corners = np.concatenate([np.eye(16), -np.eye(16)])
    assert rank_me(spectrum(corners), epsilon=0) == pytest.approx(16)
    assert rank_me(spectrum(np.random.default_rng(0).standard_normal((20000, 16)))) == pytest.approx(16, rel=0.01)


def test_rotation_scale_and_offset_change_neither_measure():
    rows = features(400, 20)
    turned = 0.037 * rows @ rotation(20) - 8
    one, other = spectrum(rows), spectrum(turned)
    assert rank_me(one) == pytest.approx(rank_me(other), rel=1e-10)
    fits = alpha_req(one, "scaled"), alpha_req(other, "scaled")
    assert fits[0].alpha == pytest.approx(fits[1].alpha, rel=1e-9) and fits[0].r2 == pytest.approx(fits[1].r2, rel=1e-9)


# alpha


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("window", ["paper", "scaled", (2, 60)])
def test_alpha_of_a_power_law_is_its_exponent(alpha, window):
    found = alpha_req(3.7 * np.arange(1, 151.0) ** -alpha, window)
    assert found.alpha == pytest.approx(alpha, abs=1e-10)
    assert found.r2 == pytest.approx(1) if alpha else np.isnan(found.r2)


def test_alpha_of_features_with_a_power_law():
    """Rows along orthonormal axes, scaled so that the covariance has the spectrum, then rotated."""
    width, alpha = 120, 1.3
    scale = np.arange(1, width + 1.0) ** (-alpha / 2)
    rows = np.concatenate([np.diag(scale), -np.diag(scale)]) @ rotation(width) + 5
    found = alpha_req(spectrum(rows))
    assert (found.first, found.last) == (12, 100)
    assert found.alpha == pytest.approx(alpha, rel=1e-9) and found.r2 == pytest.approx(1, abs=1e-12)


def test_alpha_is_that_of_a_weighted_regression():
    values = np.sort(np.random.default_rng(2).gamma(0.3, size=200))[::-1]
    ranks = np.arange(12, 101)[:, None]
    line = LinearRegression().fit(np.log(ranks), np.log(values[11:100]), sample_weight=1 / ranks[:, 0])
    found = alpha_req(values)
    assert found.alpha == pytest.approx(-line.coef_[0], rel=1e-10)
    assert found.r2 == pytest.approx(r2_score(np.log(values[11:100]), line.predict(np.log(ranks))), rel=1e-10)
    assert found.alpha != pytest.approx(-LinearRegression().fit(np.log(ranks), np.log(values[11:100])).coef_[0], 1e-3)


def test_windows():
    assert fit_window(4096) == (12, 100) and fit_window(64, "paper") == (12, 64)
    assert fit_window(64, "scaled") == (3, 32) and fit_window(4096, "scaled") == (205, 2048)
    assert fit_window(10, "scaled") == (1, 5) and fit_window(30, "scaled") == (2, 15)  # halves are rounded up
    assert fit_window(4, "scaled") == (1, 3)
    assert fit_window(64, (5, 9)) == (5, 9)


def test_a_power_law_cannot_be_changed():
    with pytest.raises(AttributeError):
        PowerLaw(1.0, 1.0, 1, 3).alpha = 2.0


# errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alpha_req(spectrum(features(60, 120))), "needs 100 eigenvalues above 0 and there are 59: give 101"),
        (lambda: alpha_req(spectrum(features(90, 12))), "ranks 12 to 12 of 12 eigenvalues: write scaled"),
        (lambda: alpha_req(np.ones(2), "scaled"), "three ranks"),
        (lambda: alpha_req(np.ones(9), (0, 5)), "three ranks"),
        (lambda: alpha_req(np.ones(9), (4, 5)), "three ranks"),
        (lambda: alpha_req(np.ones(9), (4, 10)), "three ranks"),
        (lambda: alpha_req(np.ones(9), "wide"), "paper, scaled"),
        (lambda: alpha_req(np.arange(1, 9.0), "scaled"), "falling"),
        (lambda: rank_me(np.zeros(4)), "do not vary"),
        (lambda: rank_me([1.0, -1.0]), "negative"),
        (lambda: rank_me([1.0, np.nan]), "not finite"),
        (lambda: rank_me(np.eye(3)), "shape"),
        (lambda: spectrum(np.ones((5, 3)) * 0.1), "do not vary"),
        (lambda: spectrum([np.ones((5, 3)) * 0.1, np.ones((2, 3)) * 0.1]), "do not vary"),
        (lambda: spectrum(np.zeros((5, 3)), centre=False), "all 0"),
        (lambda: spectrum(np.ones((1, 3))), "one row"),
        (lambda: spectrum(np.ones(5)), "one row a sequence"),
        (lambda: spectrum(np.ones((2, 3, 4))), "one row a sequence"),
        (lambda: spectrum(np.ones((0, 3))), "padding"),
        (lambda: spectrum(np.ones((3, 0))), "one row a sequence"),
        (lambda: spectrum(np.ones((3, 2)) * 1j), "real numbers"),
        (lambda: spectrum(np.array([["a"]])), "real numbers"),
        (lambda: spectrum([features(5, 3), features(5, 4)]), "4 features and those before 3"),
        (lambda: spectrum([]), "no rows"),
        (lambda: spectrum(features(), components=0), "components is 0"),
        (lambda: Spectrum().update(features(), weights=np.ones(3)), "one weight a row"),
        (lambda: Spectrum().update(features(), weights=-np.ones(90)), "negative"),
        (lambda: Spectrum().update(features(), weights=np.full(90, np.nan)), "negative or not finite"),
        (lambda: Spectrum().update(features(), weights=np.zeros(90)).covariance(), "no rows"),
        (lambda: Spectrum().mean, "no rows"),
        (lambda: Spectrum().merge(Spectrum(centre=False)), "centre"),
        (lambda: Spectrum().update(features(5, 3)).merge(Spectrum().update(features(5, 4))), "3 and 4 features"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 40])
@pytest.mark.parametrize("weighted", [True, False])
def test_values_that_are_not_finite_are_found(give, value, row, weighted):
    """Wherever they are, also where the weight is 0; the sums stay as they were."""
    rows = features()
    found = Spectrum().update(give(rows))
    broken = rows.copy()
    broken[row, 3] = value
    weights = (np.arange(90) != row).astype(float) if weighted else None
    for kept in (found, Spectrum()):
        with pytest.raises(UserError, match="NaN or infinite"):
            kept.update(give(broken), weights)
    with pytest.raises(UserError, match="NaN or infinite"):
        found.update(give(broken), np.zeros(90))
    np.testing.assert_allclose(found.eigenvalues(), by_svd(rows), rtol=1e-11)


# representations

SIZE = dict(vocab_size=40, bos_token_id=None, eos_token_id=None, pad_token_id=None)
WIDE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
MODELS = {
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=32)),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SIZE, **WIDE)),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZE, **WIDE)),
    "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**SIZE, **WIDE)),
}
LENGTHS = [5, 9, 1, 7]


def made(name: str = "gpt_neox") -> torch.nn.Module:
    """A random model with norms that are not the identity."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def padded(longest: int = 9) -> torch.Tensor:
    """Four sequences, padded on the right with a token that also occurs in them."""
    ids = torch.randint(0, 40, (4, longest), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(LENGTHS):
        ids[row, length:] = 0
    return ids


@torch.no_grad()
def one_by_one(model, ids) -> list[list[torch.Tensor]]:
    """[sequence][layer] (length, d) without any padding."""
    states = []
    for row, length in enumerate(LENGTHS):
        output = model(input_ids=ids[row : row + 1, :length], output_hidden_states=True)
        states.append([layer[0] for layer in output.hidden_states])
    return states


@pytest.mark.parametrize("name", MODELS)
def test_representations_are_those_of_each_sequence_alone(name):
    model, ids = made(name), padded()
    exact = one_by_one(model, ids)
    pick = {
        "last": lambda states: states[-1:],
        "mean": lambda states: states.mean(0, keepdim=True),
        "all": lambda states: states,
        1: lambda states: states[:1],
    }
    for token, of in pick.items():
        found = hidden_features(model, ids, LENGTHS, token=token)
        assert list(found) == [0, 1, 2]
        for layer, rows in found.items():
            assert rows.dtype == torch.float32 and not rows.requires_grad
            torch.testing.assert_close(rows, torch.cat([of(states[layer]) for states in exact]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_is_what_the_head_reads_and_layer_0_what_the_first_block_reads(name):
    model, ids = made(name), padded()
    found = hidden_features(model, ids, torch.full((4,), 9), token="all")
    with torch.no_grad():
        torch.testing.assert_close(
            model.get_output_embeddings()(found[2]), model(input_ids=ids).logits.flatten(0, 1), rtol=1e-4, atol=1e-4
        )
        embedded = model.get_input_embeddings()(ids)
        if name == "gpt2":  # positions are added before the first block
            embedded = embedded + model.transformer.wpe.weight[:9]
    torch.testing.assert_close(found[0], embedded.flatten(0, 1))
    torch.testing.assert_close(hidden_features(model.base_model, ids, [9] * 4, token="all")[2], found[2])


def test_the_answer_token_is_the_last_of_the_prompt():
    model, ids = made(), padded()
    prompts = np.array([4, 2, 1, 7])
    found = hidden_features(model, ids, np.array(LENGTHS), token="answer", prompt_lengths=prompts, layers=[-1, 1])
    assert list(found) == [-1, 1]
    for key, layer in ((-1, 2), (1, 1)):
        exact = [states[layer][prompt - 1] for states, prompt in zip(one_by_one(model, ids), prompts, strict=True)]
        torch.testing.assert_close(found[key], torch.stack(exact), rtol=1e-4, atol=1e-5)


def test_a_prefix_gives_what_the_cut_sequences_give():
    model, ids = made(), padded()[[0, 1, 3]]
    found = hidden_features(model, ids, [5, 9, 7], token=4)[2]
    torch.testing.assert_close(found, hidden_features(model, ids[:, :4], [4, 4, 4])[2], rtol=1e-4, atol=1e-5)


def test_padding_is_not_seen():
    model, ids = made(), padded()
    other = ids.clone()
    for row, length in enumerate(LENGTHS):
        other[row, length:] = 17
    for token in ("last", "mean", "all"):
        one, two = (hidden_features(model, given, LENGTHS, token=token)[2] for given in (ids, other))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_modes_are_left_and_dropout_is_off():
    torch.manual_seed(0)
    model = MODELS["gpt2"]().train()  # drops 10 %
    model.transformer.h[1].eval()
    ids = padded()
    one, two = (hidden_features(model, ids, LENGTHS)[2] for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert model.transformer.h[0].training and model.training and not model.transformer.h[1].training


def test_half_precision_gives_float32():
    model = made().bfloat16()
    found = hidden_features(model, padded(), LENGTHS, token="mean")[2]
    assert found.dtype == torch.float32 and bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [5, 9, 0, 7]}, "sequence 2 of the batch is all padding"),
        ({"lengths": [5, 9]}, "one each"),
        ({"lengths": [5, 10, 1, 7]}, "up to 10 and input_ids hold 9"),
        ({"token": 6}, "sequence 0 has 5 tokens and the representation of token 6"),
        ({"token": 0}, "token 0 is"),
        ({"token": "first"}, "write last, mean"),
        ({"token": "answer"}, "give `prompt_lengths`"),
        ({"token": "answer", "prompt_lengths": [6, 1, 1, 1]}, "sequence 0 has 5 tokens"),
        ({"token": "answer", "prompt_lengths": [0, 1, 1, 1]}, "prompt_lengths 0"),
        ({"layers": [3]}, "layer 3 does not exist: write 0 .embeddings. to 2"),
        ({"input_ids": torch.zeros(9, dtype=torch.long)}, "sequences, tokens"),
    ],
)
def test_bad_requests_are_named(options, message):
    with pytest.raises(UserError, match=message):
        hidden_features(made(), **{"input_ids": padded(), "lengths": LENGTHS, **options})


# interventions


@pytest.fixture(scope="module")
def measured():
    """(model, ids, its components, their mean): of all tokens of the batch."""
    model, ids = made(), padded(24)
    rows = hidden_features(model, ids, [24] * 4, layers=[2], token="all")[2]
    found = Spectrum().update(rows)
    return model, ids, found.eigenvectors(), found.mean


@torch.no_grad()
def logits(measured, k: int, which: str, **options: bool) -> torch.Tensor:
    model, ids, vectors, mean = measured
    with spectral_intervention(model, vectors, mean, k, which, **options):
        return model(input_ids=ids).logits


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)


def test_keeping_all_components_changes_nothing(measured):
    close(logits(measured, 16, "keep_top"), logits(measured, 0, "none"))
    close(logits(measured, 0, "drop_top"), logits(measured, 0, "none"))


def test_dropping_all_components_leaves_the_logits_of_the_mean(measured):
    model, _, _, mean = measured
    with torch.no_grad():
        of_mean = model.get_output_embeddings()(torch.as_tensor(mean).float())
    for changed in (logits(measured, 16, "drop_top"), logits(measured, 0, "keep_top")):
        close(changed, of_mean.expand_as(changed))
    zero = logits(measured, 16, "drop_top", keep_mean=False)
    close(zero, torch.zeros_like(zero))


@pytest.mark.parametrize("k", [1, 5])
def test_dropped_and_kept_add_up(measured, k):
    original, of_mean = logits(measured, 0, "none"), logits(measured, 16, "drop_top")
    close(logits(measured, k, "drop_top") + logits(measured, k, "keep_top") - of_mean, original)
    without = [logits(measured, k, which, keep_mean=False) for which in ("drop_top", "keep_top")]
    close(sum(without) + of_mean, original)


def test_the_head_reads_the_projection(measured):
    model, ids, vectors, mean = measured
    read = []
    handle = model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    dropped, kept = logits(measured, 3, "drop_top"), logits(measured, 3, "keep_top")
    handle.remove()
    states = hidden_features(model, ids, [24] * 4, layers=[2], token="all")[2].double().numpy() - mean
    top = sum(np.outer(states @ vectors[:, i], vectors[:, i]) for i in range(3))
    for found, exact in zip(read, (states - top, top), strict=True):
        np.testing.assert_allclose(found.flatten(0, 1).numpy(), exact + mean, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(dropped, kept)


def test_the_hook_goes_also_after_an_error(measured):
    model, ids, vectors, mean = measured
    original = logits(measured, 0, "none")
    with pytest.raises(RuntimeError), spectral_intervention(model, vectors, mean, 3, "drop_top"):
        raise RuntimeError
    torch.testing.assert_close(model(input_ids=ids).logits.detach(), original, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 17}, "give 0 to 16"),
        ({"k": -1}, "give 0 to 16"),
        ({"which": "top"}, "write drop_top"),
        ({"mean": np.zeros(3)}, "do not fit"),
        ({"eigenvectors": np.zeros(16)}, "do not fit"),
        ({"eigenvectors": np.eye(3), "mean": np.zeros(3)}, "the head reads 16 features, the eigenvectors have 3"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear has no output head"),
    ],
)
def test_bad_interventions_are_named(measured, change, message):
    model, ids, vectors, mean = measured
    given = {"model": model, "eigenvectors": vectors, "mean": mean, "k": 2, "which": "drop_top", **change}
    with pytest.raises(UserError, match=message), spectral_intervention(**given):
        model(input_ids=ids)


def test_measures_need_no_transformers():
    code = "import memorization.probes.spectrum, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
