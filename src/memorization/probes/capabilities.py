"""What a language model can do along its pre-training (`geometry`, figures 2 and 3, table 8): loss, choices, recall.

Called by training as `(context, options) -> (measurement rows, item rows)`.
"""

from functools import partial
from typing import Any

import numpy as np

from memorization.errors import UserError
from memorization.probes.completion import chunks, cross_entropy
from memorization.probes.hidden_features import hidden_features, spectral_intervention
from memorization.probes.representations import check_finite
from memorization.probes.scheduled import Context, Rows, per_item, resolve
from memorization.probes.spectrum import Spectrum
from memorization.specs import objective_function
from memorization.training.items import Items
from memorization.training.schedule import learning_rate

CHUNK = 128
TEXTS = 128  # sequences of each set whose loss is taken
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


def answers(model: Any, items: Items) -> Answers:
    """Score the answers of N questions.

    An answer is what stands behind an item's prompt, up to its end or its completion; `items.distractors` holds wrong
    ones. Returns (log-likelihood (N,) of the right answer, summed over its tokens, in nats; exact (N,), whether greedy
    decoding writes it; right (N,), whether it is likelier than every wrong one, NaN where there is none).
    """
    sequences, owner, starts = [], [], []
    ids = items.input_ids.cpu().numpy()
    ends = items.prompt + items.answer_length()
    bad = np.flatnonzero((items.prompt < 1) | (ends <= items.prompt) | (ends > items.length))
    if len(bad):
        raise UserError(
            f"item {bad[0]} of {items.subset[bad[0]]} has no prompt or no answer: name only sets of questions in "
            "`questions`, stored with both"
        )
    for item, wrong in enumerate(items.distractors or []):
        if not all(map(len, wrong)):
            raise UserError(
                f"item {item} of {items.subset[item]} has a wrong answer without tokens: leave it out of the set"
            )
    for item in range(len(items)):
        prompt = ids[item, : items.prompt[item]].tolist()
        true = ids[item, items.prompt[item] : ends[item]].tolist()
        for answer in [true, *(items.distractors[item] if items.distractors else [])]:
            sequences.append((prompt + list(answer), len(answer)))
            owner.append(item)
            starts.append(len(prompt))
    scores, greedy = sequence_scores(model, sequences, np.array(starts), items.input_ids.device)
    owner_of = np.array(owner)
    first = np.flatnonzero(np.diff(owner_of, prepend=-1))
    right = np.full(len(items), np.nan)
    for item, begin, end in zip(range(len(items)), first, [*first[1:], len(owner_of)], strict=True):
        if end - begin > 1:
            right[item] = float(scores[begin] > scores[begin + 1 : end].max())
    return scores[first], greedy[first], right


def sequence_scores(
    model: Any, sequences: list[tuple[list[int], int]], starts: np.ndarray, device: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Of each (ids, answer length): log-likelihood of the tokens from `starts` on, whether all are the likeliest."""
    import torch

    order = np.argsort([len(ids) for ids, _ in sequences], kind="stable")  # little padding
    scores, greedy = np.zeros(len(sequences)), np.zeros(len(sequences), bool)
    with torch.no_grad():
        for part in chunks(len(order), CHUNK):
            chosen = order[part]
            width = max(len(sequences[i][0]) for i in chosen)
            batch = np.zeros((len(chosen), width), dtype=np.int64)
            asked = np.zeros((len(chosen), width), dtype=bool)
            for row, i in enumerate(chosen):
                batch[row, : len(sequences[i][0])] = sequences[i][0]
                asked[row, starts[i] : starts[i] + sequences[i][1]] = True
            ids, there = torch.as_tensor(batch, device=device), torch.as_tensor(asked[:, 1:], device=device)
            first = int(starts[chosen].min())
            kept = torch.arange(first - 1, width - 1, device=device)
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[there[:, first - 1 :]].float()
            wanted = ids[:, 1:][there]
            log_p = (logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1)).double()
            owner = torch.nonzero(there)[:, 0]
            missed = (logits.argmax(-1) != wanted).float()
            total = torch.zeros(len(chosen), dtype=torch.float64, device=device).index_add_(0, owner, log_p)
            wrong = torch.zeros(len(chosen), device=device).index_add_(0, owner, missed)
            scores[chosen], greedy[chosen] = total.cpu().numpy(), (wrong == 0).cpu().numpy()
    return scores, greedy


def gradient_norm(context: Context) -> float:
    """L2 norm of the gradient of the mean loss of the batch just taken; at step 0 of the first items."""
    import torch

    spec, model = context.spec, context.model
    batch = np.arange(min(spec.batch_size, len(context.train))) if context.batch is None else context.batch
    objective = partial(resolve(objective_function(spec.objective)), **spec.objective_options)
    with torch.enable_grad():
        summed, count = objective(model, context.train.batch(batch))
        weights = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(summed / count, weights)
    return float(torch.stack([g.double().pow(2).sum() for g in found]).sum().sqrt())


def capabilities(context: Context, options: dict[str, Any]) -> Rows:
    """Cross-entropy of texts, answers to questions, gradient norm; at the last step also under spectral interventions.

    options: texts, subsets of the validation items whose loss is taken (nats a token); questions, those that are
    answered: recall is the share that greedy decoding answers exactly, choice_accuracy the share whose right answer is
    the likeliest of its choices; components, how many top components are dropped or alone kept.
    """
    items, spec, model = context.validation, context.spec, context.model
    rows: list[dict[str, Any]] = []
    frames = []
    for name in options["texts"]:
        some = items.at(np.flatnonzero(items.subset == name)[:TEXTS])
        if len(some):
            losses = cross_entropy(model, some)
            check_finite(context, losses, f"the loss of {name} is")
            about = {"subset": name, "split": items.split, "n": len(some)}
            rows.append({**about, "metric": "cross_entropy", "value": float(losses.mean())})
    if spec.steps:
        about = {"subset": "all", "split": "train", "n": spec.batch_size}
        rows.append({**about, "metric": "gradient_norm", "value": gradient_norm(context)})
        rate = learning_rate(spec.optimizer, max(0, context.step - 1), spec.steps)
        rows.append({**about, "metric": "learning_rate", "value": rate})
    asked = {name: items.only([name]) for name in options["questions"]}
    asked = {name: some for name, some in asked.items() if len(some)}
    for name, some in asked.items():
        found = answers(model, some)
        check_finite(context, found[0], f"the log-likelihood of the answers to {name} is")
        rows += accuracies(name, some, found, "none", 0)
        frames.append(per_item(some, "answer_log_likelihood", found[0]))
    if context.step == spec.steps and asked:
        rows += interventions(model, items, asked, list(options["components"]))
    return rows, frames


def accuracies(name: str, items: Items, found: Answers, intervention: str, components: int) -> list[dict[str, Any]]:
    """Rows of recall and choice accuracy."""
    row = {
        "subset": name, "split": items.split, "n": len(items), "intervention": intervention, "components": components,
    }  # fmt: skip
    rows = [{**row, "metric": "recall", "value": float(found[1].mean())}]
    if np.isfinite(found[2]).all():
        rows.append({**row, "metric": "choice_accuracy", "value": float(found[2].mean())})
    return rows


def interventions(model: Any, items: Items, asked: dict[str, Items], components: list[int]) -> list[dict[str, Any]]:
    """Accuracies with the top principal components of the text's representations dropped, or only these kept."""
    spectrum = Spectrum()
    text = items.only(["text"])
    for part in chunks(len(text), CHUNK):
        length = text.length[part]
        found = hidden_features(model, text.input_ids[part, : int(length.max())], length, layers=[-1])
        spectrum.update(found[-1])
    vectors, mean = spectrum.eigenvectors(), spectrum.mean
    rows = []
    for k in components:
        for which in ("drop_top", "keep_top"):
            with spectral_intervention(model, vectors, mean, min(k, len(mean)), which):
                for name, some in asked.items():
                    rows += accuracies(name, some, answers(model, some), which, k)
    return rows
