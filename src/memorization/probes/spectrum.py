"""Covariance spectra of representations, their effective rank and power-law exponent (`geometry`, sec. 2.1).

F is the (M, d) matrix of the representations of M sequences, centred, and sigma_1 >= ... >= sigma_d are the eigenvalues
of F'F / M. RankMe is the exponential of the entropy of sigma / sum(sigma): the effective number of directions, from 1
to d. alpha (alpha-ReQ) is the exponent of sigma_i ~ i^-alpha: small for a flat spectrum.

`Spectrum` takes the features in batches of any size and keeps one (d, d) matrix in float64, whatever M.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memorization.errors import UserError
from memorization.probes.hidden_features import hidden_features, spectral_intervention

__all__ = [
    "PowerLaw",
    "Spectrum",
    "alpha_req",
    "fit_window",
    "hidden_features",
    "rank_me",
    "spectral_intervention",
    "spectrum",
]

# Rows that are converted to float64 at a time: a small share of the (d, d) matrix, and enough for a fast product.
BLOCK = 512
Window = Literal["paper", "scaled"] | tuple[int, int]


class Spectrum:
    """Covariance of rows that arrive in batches: one pass, O(d^2) memory, float64.

    centre: subtract the mean of all rows, as the paper does; False: second moments about 0.

    Batches are (n, d) numpy arrays or torch tensors of any real dtype. On a CUDA device the sums stay there; on the
    CPU, and on devices without float64, they are a numpy array. Means and scatter matrices of blocks are merged
    pairwise (Chan, Golub and LeVeque 1983) after the first row has been subtracted, so a mean far from 0 costs no
    digits. Everything that is returned is numpy. Order and size of the batches matter only in the last digits.
    """

    def __init__(self, centre: bool = True) -> None:
        self.centre = centre
        self.rows = 0  # with a weight above 0
        self._weight = 0.0
        self._shift: Any = None  # (d,) first row, or 0
        self._mean: Any = None  # (d,) of the shifted rows
        self._scatter: Any = None  # (d, d); of numpy's only the lower triangle is valid, and the order is Fortran's

    @property
    def count(self) -> float:
        """Sum of the weights: the number of rows where no weights were given."""
        return self._weight

    @property
    def width(self) -> int:
        """Number of features d."""
        self._known()
        return len(self._mean)

    @property
    def mean(self) -> np.ndarray:
        """(d,) weighted mean of the rows, whether or not it is subtracted."""
        self._known()
        return np.asarray(_host(self._shift + self._mean))

    def update(self, features: Any, weights: Any = None) -> "Spectrum":
        """Add the rows of a batch, and return self.

        features: (n, d), n >= 1. weights: (n,) not negative; a row with weight w counts as w equal rows, so the counts
        of a bootstrap resample are weights.
        Raises UserError for another shape, no rows, a value that is not finite, and weights that are negative. Up to
        BLOCK rows are added or none; of a larger batch, the blocks before the one at fault stay.
        """
        if not hasattr(features, "shape"):
            features = np.asarray(features)
        if len(features.shape) != 2 or features.shape[1] == 0:
            raise UserError(f"features have shape {tuple(features.shape)}: give (rows, features), one row a sequence")
        if features.shape[0] == 0:
            raise UserError("the batch has no rows (all padding?): leave it out")
        if self._mean is not None and features.shape[1] != len(self._mean):
            raise UserError(
                f"this batch has {features.shape[1]} features and those before {len(self._mean)}: give one layer of "
                "one model to a Spectrum"
            )
        scale = self._checked_weights(weights, features.shape[0])
        if self._mean is None:
            self._start(features)
        for start in range(0, features.shape[0], BLOCK):
            rows = features[start : start + BLOCK]
            given = None if scale is None else scale[start : start + BLOCK]
            self._add(rows, given)
        return self

    def merge(self, other: "Spectrum") -> "Spectrum":
        """Add the rows that another Spectrum has seen, and return self."""
        if self.centre != other.centre:
            raise UserError("one Spectrum is centred and the other is not: make both with the same `centre`")
        if other._mean is None:
            return self
        if self._mean is None:
            self.__dict__.update(copy.deepcopy(other.__dict__))
            return self
        if self.width != other.width:
            raise UserError(f"Spectra of {self.width} and {other.width} features cannot be merged: give the same layer")
        if isinstance(other._scatter, np.ndarray):
            _mirror(other._scatter)
        move = self._move()
        mean = move(other._mean) + (move(other._shift) - self._shift)
        apart = self._merge_mean(mean, other._weight)
        scatter = move(other._scatter)
        for start in range(0, self.width, BLOCK):  # by columns, so that no second (d, d) matrix is made
            columns = slice(start, start + BLOCK)
            self._scatter[:, columns] += scatter[:, columns]
            if self.centre:
                self._scatter[:, columns] += apart[:, None] * apart[None, columns]
        self.rows += other.rows
        return self

    def covariance(self) -> np.ndarray:
        """(d, d) float64, divided by `count` (not count - 1), as the paper writes it."""
        self._known()
        if isinstance(self._scatter, np.ndarray):
            _mirror(self._scatter)
        return np.array(_host(self._scatter)) / self._weight

    def eigenvalues(self, components: int | None = None) -> np.ndarray:
        """(d,) float64 eigenvalues of the covariance, falling, not negative.

        Beyond the rank that `rows` rows can have (one less if centred) they are exactly 0.
        components: keep the first min(components, rows, d) only; 2048 is what the released code keeps.
        Raises UserError without rows and for features that do not vary.
        """
        self._check_varies()
        if isinstance(self._scatter, np.ndarray):
            values = _eigenvalues_of_lower(self._scatter)
        else:
            import torch

            values = np.asarray(_host(torch.linalg.eigvalsh(self._scatter)))
        values = np.maximum(values[::-1] / self._weight, 0.0)
        values[max(self.rows - self.centre, 0) :] = 0.0
        if components is None:
            return values
        if components < 1:
            raise UserError(f"components is {components}: give 1 or more, or None for all")
        return values[: min(components, self.rows)]

    def eigenvectors(self) -> np.ndarray:
        """(d, d) float64: column i belongs to eigenvalue i. The sign of a column is arbitrary."""
        self._check_varies()
        if isinstance(self._scatter, np.ndarray):
            return np.linalg.eigh(self._scatter, UPLO="L")[1][:, ::-1].copy()
        import torch

        return np.asarray(_host(torch.linalg.eigh(self._scatter)[1].flip(1)))

    def _known(self) -> None:
        if self._mean is None or self._weight == 0:
            raise UserError("the Spectrum has seen no rows: call `update` first")

    def _check_varies(self) -> None:
        self._known()
        if not float(self._scatter.diagonal().sum()) > 0:
            what = "do not vary (one row, or all alike)" if self.centre else "are all 0"
            raise UserError(f"the features of {self.rows} rows {what}: give representations of different sequences")

    @staticmethod
    def _checked_weights(weights: Any, rows: int) -> np.ndarray | None:
        if weights is None:
            return None
        found = np.asarray(_host(weights), dtype=np.float64)
        if found.shape != (rows,):
            raise UserError(f"weights have shape {found.shape} for {rows} rows: give one weight a row")
        if not (np.isfinite(found).all() and (found >= 0).all()):
            raise UserError("weights are negative or not finite: give counts, 0 or more")
        return found

    def _start(self, features: Any) -> None:
        """Take the place of the sums, and the shift, from a first batch."""
        width = features.shape[1]
        if _on_accelerator(features):
            import torch

            first = features[0].detach().to(torch.float64)
            self._scatter = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        else:
            first = np.array(_rows(features[:1])[0], dtype=np.float64)
            self._scatter = np.zeros((width, width), order="F")
        _check_finite(first)
        self._shift = first if self.centre else first * 0
        self._mean = first * 0

    def _move(self) -> Callable[[Any], Any]:
        """Function that brings an array to where the sums are."""
        if isinstance(self._mean, np.ndarray):
            return lambda array: np.asarray(_host(array), dtype=np.float64)
        import torch

        place = self._mean.device
        return lambda array: torch.as_tensor(array).detach().to(device=place, dtype=torch.float64)

    def _add(self, features: Any, weights: np.ndarray | None) -> None:
        """Add a block of at most BLOCK rows; `weights` are on the host."""
        if weights is not None:
            if not weights.any():
                _check_finite(features if _on_accelerator(features) else _rows(features))
                return
            root = self._move()(np.sqrt(weights))
        total = float(features.shape[0] if weights is None else weights.sum())
        block = self._block(features)  # the last row is free
        rows = block[:-1]
        _check_finite(rows)
        mean = rows.mean(0) if weights is None else (root**2 / total) @ rows
        if self.centre:
            rows -= mean
        if weights is not None:
            rows *= root[:, None]
        apart = self._merge_mean(mean, total)
        block[-1] = apart if self.centre else 0.0  # the scatter between the means, in the same product
        if isinstance(self._scatter, np.ndarray):
            from scipy.linalg import blas

            self._scatter = blas.dsyrk(1.0, block.T, beta=1.0, c=self._scatter, overwrite_c=1, lower=1)
        else:
            self._scatter.addmm_(block.T, block)
        self.rows += int(features.shape[0] if weights is None else np.count_nonzero(weights))

    def _block(self, features: Any) -> Any:
        """(rows + 1, d) float64: the shifted rows, and one row that is free."""
        shape = (features.shape[0] + 1, features.shape[1])
        if isinstance(self._mean, np.ndarray):
            block = np.empty(shape)
            with np.errstate(invalid="ignore"):  # inf is reported by name
                np.subtract(_rows(features), self._shift, out=block[:-1])
            return block
        block = self._mean.new_empty(shape)
        block[:-1] = self._move()(features) - self._shift
        return block

    def _merge_mean(self, mean: Any, weight: float) -> Any:
        """Move the mean; return the vector whose outer product is the scatter between the two means."""
        together = self._weight + weight
        between = mean - self._mean
        share = weight / together if together else 0.0
        self._mean = self._mean + between * share
        factor = (self._weight * share) ** 0.5
        self._weight = together
        return between * factor


def spectrum(features: Any, centre: bool = True, components: int | None = None) -> np.ndarray:
    """Eigenvalues of the covariance of an (M, d) array or tensor, or of batches of them: see `Spectrum`."""
    found = Spectrum(centre)
    for batch in [features] if hasattr(features, "shape") else features:
        found.update(batch)
    return found.eigenvalues(components)


def rank_me(eigenvalues: Any, epsilon: float = 1e-7) -> float:
    """RankMe (`geometry`, sec. 2.1) of eigenvalues in any order and scale.

    epsilon: added to every share, after the shares were made to sum to 1, as the released code does. Eigenvalues of 0
    count with it, so `components` of `Spectrum.eigenvalues` changes the value by up to 1.6e-6 (1 + RankMe) each.
    """
    values = _checked_spectrum(eigenvalues)
    shares = values / values.sum() + epsilon
    shares = shares[shares > 0]  # only matters for epsilon 0
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(frozen=True)
class PowerLaw:
    """Power law fitted to eigenvalues of ranks first..last (the largest has rank 1).

    alpha: exponent. r2: 1 - (sum of squared residuals) / (sum of squares about the mean) of the log-eigenvalues of the
    same ranks, without weights; NaN if they do not vary. (The released code has it from one rank later on.)
    """

    alpha: float
    r2: float
    first: int
    last: int


def fit_window(width: int, window: Window = "paper") -> tuple[int, int]:
    """Return (first, last) rank of the fit of alpha for d = `width` eigenvalues.

    "paper": 12..100, cut to d. "scaled": 0.05 d .. 0.5 d, halves rounded up, at least ranks 1..3. (first, last): these.
    Raises UserError if fewer than three ranks are left.
    """
    if window == "paper":
        first, last = 12, min(100, width)
    elif window == "scaled":
        first = max(1, (width + 10) // 20)
        last = min(width, max(first + 2, (width + 1) // 2))
    elif isinstance(window, str) or len(window) != 2:
        raise UserError(f"window is {window!r}: write paper, scaled, or two ranks")
    else:
        first, last = int(window[0]), int(window[1])
    if first < 1 or last > width or last - first < 2:
        instead = "three ranks or more, from 1 to the number of eigenvalues" if window != "paper" else "scaled instead"
        raise UserError(f"alpha cannot be fitted to ranks {first} to {last} of {width} eigenvalues: write {instead}")
    return first, last


def alpha_req(eigenvalues: Any, window: Window = "paper") -> PowerLaw:
    """Exponent alpha of sigma_i ~ i^-alpha (`geometry`, sec. 2.1), by the routine of the released code.

    Straight line through log-eigenvalue against log-rank, by least squares with weight 1/rank.
    eigenvalues: falling. window: see `fit_window`.
    Raises UserError if eigenvalues in the window are 0, in float64 beside the largest: too few sequences.
    """
    values = _checked_spectrum(eigenvalues)
    if (np.diff(values) > 1e-12 * values.max()).any():
        raise UserError("the eigenvalues are not in falling order: sort them, largest first")
    first, last = fit_window(len(values), window)
    usable = int((values > 10 * np.finfo(np.float64).eps * values[0]).sum())
    if usable < last:
        raise UserError(
            f"alpha over ranks {first} to {last} needs {last} eigenvalues above 0 and there are {usable}: "
            f"give {last + 1} different sequences or more, or a smaller window"
        )
    ranks = np.arange(first, last + 1, dtype=np.float64)
    x, y = np.log(ranks), np.log(values[first - 1 : last])
    weights = (1 / ranks) / (1 / ranks).sum()
    dx, dy = x - weights @ x, y - weights @ y
    slope = float((weights * dx) @ dy / ((weights * dx) @ dx))
    residual, about = dy - slope * dx, y - y.mean()
    varies = float(about @ about)
    flat = len(y) * (4 * np.finfo(np.float64).eps * max(1.0, float(np.abs(y).max()))) ** 2
    r2 = 1 - float(residual @ residual) / varies if varies > flat else float("nan")
    return PowerLaw(alpha=-slope, r2=r2, first=first, last=last)


def _checked_spectrum(eigenvalues: Any) -> np.ndarray:
    values = np.asarray(_host(eigenvalues), dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise UserError(f"eigenvalues have shape {values.shape}: give the eigenvalues of one covariance, (d,)")
    if not np.isfinite(values).all() or (values < 0).any():
        raise UserError("eigenvalues are negative or not finite: give those of `Spectrum.eigenvalues`")
    if not values.any():
        raise UserError("all eigenvalues are 0, the features do not vary: give representations of different sequences")
    return values


def _on_accelerator(features: Any) -> bool:
    """Whether features are a torch tensor on a device that computes in float64."""
    return hasattr(features, "device") and getattr(features.device, "type", "cpu") not in ("cpu", "mps")


def _host(array: Any) -> Any:
    """A torch tensor as a numpy array, bfloat16 as float32; anything else as it is."""
    if not hasattr(array, "detach"):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() and array.element_size() < 4 else array).numpy()


def _rows(features: Any) -> np.ndarray:
    """Features as a numpy array of a real dtype."""
    rows = np.asarray(_host(features))
    if rows.dtype.kind not in "fiub":
        raise UserError(f"features have dtype {rows.dtype}: give real numbers")
    return rows


def _check_finite(rows: Any) -> None:
    finite = np.isfinite(rows) if isinstance(rows, np.ndarray) else rows.isfinite()
    if not bool(finite.all()):
        raise UserError("the features hold NaN or infinite values: load the model in float32 or bfloat16, or leave the "
                        "sequences out")  # fmt: skip


def _mirror(matrix: np.ndarray) -> None:
    """Copy the lower triangle to the upper one, in place."""
    width = len(matrix)
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        corner = np.tril(matrix[start:stop, start:stop], -1)
        middle = matrix.diagonal()[start:stop].copy()
        matrix[start:stop, start:stop] = corner + corner.T
        np.fill_diagonal(matrix[start:stop, start:stop], middle)
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T


def _eigenvalues_of_lower(matrix: np.ndarray) -> np.ndarray:
    """(d,) rising eigenvalues by LAPACK, which works in the upper triangle: no second (d, d) matrix is needed."""
    from scipy.linalg import eigh

    _mirror(matrix)
    diagonal = matrix.diagonal().copy()
    options: dict[str, Any] = dict(eigvals_only=True, overwrite_a=True, check_finite=False, driver="evr")
    values = eigh(matrix, lower=False, **options)
    np.fill_diagonal(matrix, diagonal)
    return np.asarray(values)
