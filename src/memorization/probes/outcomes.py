"""What a model says about mislabelled training items: the noisy label, the true one, or neither (`layernorm`, 3.2)."""

import numpy as np

from memorization.errors import UserError


def outcomes(predictions: np.ndarray, noisy_labels: np.ndarray, true_labels: np.ndarray) -> dict[str, float]:
    """Fractions of the noisy items, which sum to 1.

    memorization: the noisy label is predicted. recovery: the true one. random: another class.

    predictions, noisy_labels, true_labels: (N,) classes of the noisy items only. Raises UserError when there are none,
    or when an item is not noisy.
    """
    predicted, noisy, true = (np.asarray(values) for values in (predictions, noisy_labels, true_labels))
    if not predicted.shape == noisy.shape == true.shape:
        sizes = f"{predicted.shape}, {noisy.shape} and {true.shape}"
        raise UserError(
            f"predictions, noisy and true labels have shapes {sizes}: give one of each for every noisy item"
        )
    if not predicted.size:
        raise UserError("there are no noisy items: flip labels first, or raise the share of noise")
    if (noisy == true).any():
        raise UserError(f"item {int(np.argmax(noisy == true))} has its true label: give the mislabelled items only")
    memorized, recovered = predicted == noisy, predicted == true
    return {
        "memorization": float(memorized.mean()),
        "recovery": float(recovered.mean()),
        "random": float((~memorized & ~recovered).mean()),
    }
