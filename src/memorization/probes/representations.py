"""Spectra of representations along training (`geometry`, figures 2, 5, 7 to 11).

Called by training as `(context, options) -> (measurement rows, item rows)`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from memorization.data.patterns import generator
from memorization.errors import UserError
from memorization.probes.completion import chunks
from memorization.probes.hidden_features import hidden_features
from memorization.probes.scheduled import Context, Rows
from memorization.probes.spectrum import Spectrum, alpha_req, fit_window, rank_me
from memorization.training.items import Items

if TYPE_CHECKING:
    import torch

CHUNK = 256
PARTS = (16, 8, 4, 2, 1)  # figure 8: one part in so many of the sequences
QUARTERS = (1, 2, 3, 4)  # and of their tokens
WINDOWS = ("scaled", "paper")


def check_finite(context: Context, values: Any, what: str) -> None:
    """UserError if an array or tensor measured at this step holds NaN or infinite values."""
    found = values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
    if np.isfinite(found).all():
        return
    cause = "training has diverged: write a smaller learning_rate, or a clip_norm"
    if context.step == 0:
        cause = "the weights it starts from are at fault: make or fetch them again, in bfloat16 or float32"
    raise UserError(f"{context.spec.name}: {what} NaN or infinite at step {context.step}, so {cause}")


def sizes(sequences: int, width: int) -> list[int]:
    """Numbers of sequences that representations are also measured on; a spectrum of d needs more than d rows."""
    return [sequences // part for part in PARTS if sequences // part > width or part == 1]


def states(model: Any, items: Items, rows: np.ndarray) -> "Iterator[tuple[list[torch.Tensor], np.ndarray]]":
    """Batches of (states (n, T, d) of every layer, from the embeddings to behind the final norm; lengths (n,))."""
    import torch

    base = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    with torch.no_grad():
        for part in chunks(len(rows), CHUNK):
            length = items.length[rows[part]]
            ids = items.input_ids[torch.as_tensor(rows[part], device=items.input_ids.device), : int(length.max())]
            output = base(input_ids=ids, use_cache=False, output_hidden_states=True)
            yield [*output.hidden_states[:-1], output.last_hidden_state], length


def spectrum_rows(values: np.ndarray, windows: tuple[str, ...] = WINDOWS[:1]) -> list[dict[str, Any]]:
    """Metric rows of eigenvalues (d,): RankMe, and alpha with its R^2 for each window that has ranks enough.

    A set of few different sequences (short questions) has fewer eigenvalues above 0 than the window has ranks.
    """
    above = int((values > 1e-12 * values[0]).sum())
    rows: list[dict[str, Any]] = [{"metric": "rank_me", "value": rank_me(values), "window": windows[0]}]
    for window in windows:
        ranks = fit_window(len(values), "scaled")
        if window == "paper":
            # narrow models have fewer than 100, and a final layer norm of gain 1 takes one more away
            ranks = 12, min(100, len(values) - 1)
            if ranks[1] - ranks[0] < 2:
                continue
        if above < ranks[1]:
            continue
        fit = alpha_req(values, ranks)
        rows += [{"metric": "alpha", "value": fit.alpha, "window": window}]
        rows += [{"metric": "alpha_r2", "value": fit.r2, "window": window}]
    return rows


def representations(context: Context, options: dict[str, Any]) -> Rows:
    """RankMe and alpha of the final representations of the text, the same for other choices, and a bootstrap.

    options: sequences, of the text (subset "text" of the validation items) that count; resamples, bootstrap resamples
    of them, the same at every step; families, steps at which the text is also measured by layer, token, number of
    sequences, length, centring and window of the fit, and the subsets `sets` at their last token; prompts, subsets that
    are measured at every step, at the last token of the prompt, which predicts the reply.

    Rows have the columns choice, layer, token, sequences, length, centred, window; choice "default" is the basic one.
    """
    import torch

    items, model, seed = context.validation, context.model, context.spec.seed
    families = context.step in options["families"]
    text = np.flatnonzero(items.subset == "text")[: int(options["sequences"])]
    empty = int((items.length[text] < 1).sum())
    if empty or not len(text):
        raise UserError(
            f"{context.spec.name}: representations are measured on the validation items of `text`, of which there are "
            f"{len(text)}, {empty} without tokens: add the set to `measured`, without them"
        )
    number, longest = len(text), int(items.length[text].max())
    last: list[list[torch.Tensor]] = []  # batch -> layer -> (n, d)
    by_length: dict[int, list[torch.Tensor]] = {}
    mean: list[torch.Tensor] = []
    every = Spectrum()
    for hidden, length in states(model, items, text):
        at = torch.as_tensor(length, device=hidden[0].device)
        row = torch.arange(len(length), device=at.device)
        last.append([layer[row, at - 1].float() for layer in hidden])
        check_finite(context, last[-1][-1], "representations are")
        if families:
            top = hidden[-1].float()
            real = torch.arange(top.shape[1], device=at.device) < at[:, None]
            mean.append(top.masked_fill(~real[..., None], 0.0).sum(1) / at[:, None])
            every.update(top[real])
            for quarter in QUARTERS[:-1]:
                tokens = max(1, longest * quarter // len(QUARTERS))
                by_length.setdefault(tokens, []).append(top[row, torch.clamp(at, max=tokens) - 1])
    layers = [torch.cat(parts) for parts in zip(*last, strict=True)]
    final, width = layers[-1], layers[-1].shape[1]
    basic = {
        "subset": "text", "split": items.split, "layer": len(layers) - 1, "token": "last", "sequences": number,
        "length": longest, "centred": 1, "n": number,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []

    def add(choice: str, spectrum: Spectrum, windows: tuple[str, ...] = WINDOWS[:1], **different: Any) -> None:
        rows.extend(
            {**basic, "choice": choice, **different, **row} for row in spectrum_rows(spectrum.eigenvalues(), windows)
        )

    whole = Spectrum().update(final)
    add("default", whole)
    if families:
        for layer, features in enumerate(layers):
            add("layer", Spectrum().update(features), layer=layer)
        add("token", whole)
        add("token", Spectrum().update(torch.cat(mean)), token="mean")
        add("token", every, token="all", n=int(every.count))
        for count in sizes(number, width):
            add("sequences", Spectrum().update(final[:count]), sequences=count, n=count)
        for tokens, parts in by_length.items():
            add("length", Spectrum().update(torch.cat(parts)), length=tokens)
        add("length", whole)
        add("centring", whole)
        add("centring", Spectrum(centre=False).update(final), centred=0)
        add("window", whole, WINDOWS)
    if families or options["prompts"]:
        add("data", whole)
    asked = [
        *((name, "last") for name in options["sets"] if families),
        *((name, "answer") for name in options["prompts"]),
    ]
    for name, token in asked:
        there = np.flatnonzero(items.subset == name)
        if len(there):
            about = {"subset": name, "token": token, "sequences": len(there), "n": len(there)}
            add("data", of_set(model, items, there, token), length=int(items.length[there].max()), **about)
    return rows, [resampled(final, int(options["resamples"]), seed, items.split)]


def of_set(model: Any, items: Items, rows: np.ndarray, token: str) -> Spectrum:
    """Spectrum of the final representations of some items at a token, as `hidden_features` names it."""
    import torch

    spectrum = Spectrum()
    for part in chunks(len(rows), CHUNK):
        these = rows[part]
        ids = items.input_ids[torch.as_tensor(these, device=items.input_ids.device), : int(items.length[these].max())]
        length, prompts = items.length[these], items.prompt[these]
        found = hidden_features(model, ids, length, layers=[-1], token=token, prompt_lengths=prompts)  # type: ignore[arg-type]
        spectrum.update(found[-1])
    return spectrum


def resampled(features: "torch.Tensor", resamples: int, seed: int, split: str) -> pd.DataFrame:
    """RankMe and alpha of bootstrap resamples of the rows (M, d), which depend on the seed and M only.

    alpha is NaN of a resample with too few different rows for it.
    """
    rng = generator("representations", "resamples", seed, len(features))
    counts = rng.multinomial(len(features), np.full(len(features), 1 / len(features)), size=resamples)
    found: dict[str, list[float]] = {"rank_me_resample": [], "alpha_resample": []}
    for weights in counts:
        values = Spectrum().update(features, weights).eigenvalues()
        one = {row["metric"]: row["value"] for row in spectrum_rows(values)}
        found["rank_me_resample"].append(one["rank_me"])
        found["alpha_resample"].append(one.get("alpha", float("nan")))
    number = np.arange(resamples, dtype=np.int32)
    frames = [
        pd.DataFrame({"subset": "text", "split": split, "item": number, "metric": metric, "value": values})
        for metric, values in found.items()
    ]
    return pd.concat(frames, ignore_index=True).astype({"value": np.float32})
