"""What post-training does to replies (`geometry`, figures 5 and 14): their loss, accuracy, pass@k, and a judge's score.

Called by training as `(context, options) -> (measurement rows, item rows)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError
from memorization.methods.pass_at_k import Judge, LikelihoodJudge, pass_at_k
from memorization.models import build as models
from memorization.probes.completion import chunks
from memorization.probes.scheduled import Context, Rows
from memorization.training.items import Items
from memorization.training.preferences import answer_lengths, draw_replies, reply_lengths, reply_logits

CHUNK = 256


@dataclass(frozen=True)
class ReplyScores:
    """Of N items: loss (N,) summed over the tokens of the right reply, nats; exact (N,) bool, whether greedy decoding
    writes the right answer; log_chance (N,) log-probability that one sample is the right answer."""

    loss: np.ndarray
    exact: np.ndarray
    log_chance: np.ndarray


def tensors(items: Items, rows: np.ndarray) -> Any:
    """Return (ids, prompt, labels) of some items."""
    import torch

    index = torch.as_tensor(rows, device=items.input_ids.device)
    longest = int(items.length[rows].max())
    prompt = torch.as_tensor(items.prompt[rows], device=index.device)
    return items.input_ids[index, :longest], prompt, items.labels[index, :longest]


def score_replies(
    model: Any, items: Items, rows: np.ndarray, *, temperature: float = 1.0, ending: int = 1
) -> ReplyScores:
    """Score the right replies of the items `rows`, from one forward pass each.

    The reply is what stands behind the prompt, the answer the reply without its last `ending` tokens (end marks, which
    count in the loss only); prompts and replies may differ in length. temperature: of `log_chance`.
    """
    import torch

    loss, exact, chance = [], [], []
    with torch.no_grad():
        for part in chunks(len(rows), CHUNK):
            ids, prompt, labels = tensors(items, rows[part])
            answers = answer_lengths(labels, prompt, ending)
            logits, tokens, there = reply_logits(model, ids, prompt, reply_lengths(labels, prompt))
            inside = torch.arange(there.shape[1], device=there.device) < answers[:, None]
            log_p, tempered = (
                scaled.gather(2, tokens[..., None])[..., 0] - scaled.logsumexp(-1)
                for scaled in (logits.double(), logits.double() / temperature)
            )
            loss.append(-(log_p * there).sum(1))
            exact.append(((logits.argmax(-1) == tokens) | ~inside).all(1))
            chance.append((tempered * inside).sum(1))
    return ReplyScores(*(torch.cat(values).cpu().numpy() for values in (loss, exact, chance)))


def count_right(log_chance: np.ndarray, samples: int, seed: Any) -> np.ndarray:
    """Return (N,) how many of `samples` replies to each prompt are right.

    A sample is right with probability exp(log_chance), independently of the others, so their number is binomial: it is
    drawn as such, which has the law of writing all the replies and comparing them, at the price of one forward pass.
    """
    return np.random.default_rng(seed).binomial(samples, np.exp(np.minimum(log_chance, 0.0)))


def judge_greedy(model: Any, items: Items, rows: np.ndarray, judge: Judge) -> np.ndarray:
    """Return (len(rows),) scores of the model's greedy replies, as long as the right ones and with their end marks."""
    scores = []
    for part in chunks(len(rows), CHUNK):
        ids, prompt, labels = tensors(items, rows[part])
        written = draw_replies(model, ids, prompt, reply_lengths(labels, prompt), temperature=0.0).cpu().numpy()
        spans = list(zip(written, items.prompt[rows[part]], items.length[rows[part]], strict=True))
        scores.append(judge([row[:begin] for row, begin, _ in spans], [row[begin:end] for row, begin, end in spans]))
    return np.concatenate(scores)


def replies(context: Context, options: dict[str, Any]) -> Rows:
    """Loss of the right replies to validation prompts, greedy accuracy, pass@k, and at the last step a judge's score.

    options: subsets = [name, ...], the validation items that are looked at; pass_subset, the one that pass@k is taken
    of, from `samples` replies at `temperature`, for every k in ks; ending, end marks behind an answer that count in the
    loss and for the judge only (1); judge, name of the run whose final model scores the greedy replies to judge_subset
    ("long"), "" for none.

    Metrics: reply_loss (nats an item, summed over its reply), reply_accuracy, pass_at_k (column k; n = samples);
    items judge_score (mean log-likelihood a token, nats; item counts within its subset).
    """
    items = context.validation
    samples, temperature, ending = int(options["samples"]), float(options["temperature"]), int(options.get("ending", 1))
    if temperature <= 0:
        raise UserError(f"temperature: {temperature} of the replies that are drawn is not above 0: write 1.0, say")
    judged = options.get("judge_subset", "long") if options.get("judge") else ""
    measured: list[dict[str, Any]] = []
    frames = []
    for subset in options["subsets"]:
        rows = np.flatnonzero(items.subset == subset)
        if not len(rows):
            continue
        found = score_replies(context.model, items, rows, temperature=temperature, ending=ending)
        row = {"subset": subset, "split": items.split, "n": len(rows)}
        measured.append({**row, "metric": "reply_loss", "value": float(found.loss.mean())})
        measured.append({**row, "metric": "reply_accuracy", "value": float(found.exact.mean())})
        if subset == options["pass_subset"]:
            right = count_right(found.log_chance, samples, [context.spec.seed, context.step])
            for k in options["ks"]:
                value = float(pass_at_k(right, samples, int(k)).mean())
                measured.append({**row, "metric": "pass_at_k", "k": int(k), "value": value, "n": samples})
        if subset == judged and context.step == context.spec.steps:
            frames.append(judge_rows(context, options["judge"], subset, rows))
    return measured, frames


def judge_rows(context: Context, name: str, subset: str, rows: np.ndarray) -> pd.DataFrame:
    """Item rows of the score that the final model of the run `name` gives to the greedy replies to the items `rows`."""
    model: Any = models.load(context.model_folder(name))
    judge = LikelihoodJudge(model.to(context.validation.input_ids.device).eval(), CHUNK)
    return pd.DataFrame(
        {
            "subset": subset,
            "split": context.validation.split,
            "item": np.arange(len(rows), dtype=np.int32),
            "metric": "judge_score",
            "value": judge_greedy(context.model, context.validation, rows, judge).astype(np.float32),
        }
    )
