"""What decoding arms write, and how probable they make given text (tokenswap, section 4)."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from memorization.evaluate.bench import Bench
from memorization.methods import cp_fuse, tokenswap
from memorization.methods.memfree import MemFreeProcessor, NGramFilter
from memorization.methods.speculative import speculative_generate
from memorization.specs import ArmSpec

if TYPE_CHECKING:
    import torch

CHUNK = 64  # sequences of one forward pass
ELEMENTS = 1 << 29  # log-probabilities held at once: fewer sequences where the vocabulary is large
LogProbs = Callable[["torch.Tensor"], "torch.Tensor"]  # ids (B, T) -> (B, T, V)


def processors(bench: Bench, arm: ArmSpec) -> list[Any]:
    """The logits processors of an arm; none where decoding is the model's own."""
    if arm.method == "tokenswap":
        assert arm.aux
        main, other = bench.tokenizer(arm.model), bench.tokenizer(arm.aux)
        return [
            tokenswap.TokenSwapProcessor(
                bench.model(arm.aux),
                main,
                bench.words(arm),
                aux_tokenizer=None if other is main else other,
                record=True,
            )
        ]
    if arm.method == "cp_fuse":
        assert arm.aux
        return [cp_fuse.CPFuseProcessor(bench.model(arm.aux))]
    if arm.method == "memfree":
        passages = bench.passages(arm.model, arm=arm, everything=True)
        index = NGramFilter.from_sequences(passages.ids, bench.spec.memfree_order)
        return [MemFreeProcessor(index, prompt_counts=bench.spec.memfree_prompt)]
    return []


def write(
    bench: Bench,
    arm: ArmSpec,
    prompts: np.ndarray,
    tokens: int,
    *,
    sample: int = 0,
    changes: list[Any] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode `tokens` tokens after each prompt (N, p); returns ids and what TokenSwap changed, both (N, tokens).

    No token ends the text. sample: number of the sample, where the arm samples. changes: the arm's `processors`, where
    they exist already; they serve any number of calls.
    """
    import torch

    model = bench.model(arm.model)
    seed = [bench.spec.seed, sample]
    if arm.method == "speculative":
        assert arm.aux
        ids = torch.as_tensor(prompts, device=bench.device)
        state = int(np.random.SeedSequence(seed).generate_state(1)[0])
        written = speculative_generate(
            model,
            bench.model(arm.aux),
            ids,
            max_new_tokens=tokens,
            draft_tokens=bench.spec.draft_tokens,
            seed=state,
        )
        return written.cpu().numpy(), np.zeros(written.shape, bool)
    changes = processors(bench, arm) if changes is None else changes
    options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": 0}
    options |= {"do_sample": True, "top_k": 0, "top_p": 1.0} if arm.decoding == "sample" else {"do_sample": False}
    out, marks = [], []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        for start in range(0, len(prompts), CHUNK):
            ids = torch.as_tensor(prompts[start : start + CHUNK], device=bench.device)
            made = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), logits_processor=changes, **options
            )[:, ids.shape[1] :]
            out.append(made.cpu().numpy())
            swapped = np.zeros(made.shape, bool)
            if arm.method == "tokenswap":
                swapped = (changes[0].main_choice != made).cpu().numpy()
            marks.append(swapped)
    return np.concatenate(out), np.concatenate(marks)


def log_probs_of(bench: Bench, arm: ArmSpec) -> LogProbs:
    """Function that gives an arm's final log-probabilities under teacher forcing, (B, T, V).

    MemFree and speculative decoding have the main model's: the one only bars tokens, the other changes nothing.
    """
    import torch

    model = bench.model(arm.model)
    if arm.method == "tokenswap":
        assert arm.aux
        main, other = bench.tokenizer(arm.model), bench.tokenizer(arm.aux)
        aux, words = bench.model(arm.aux), bench.words(arm)
        return lambda ids: tokenswap.teacher_forced_log_probs(
            model, aux, ids, tokenizer=main, words=words, aux_tokenizer=None if other is main else other
        )
    if arm.method == "cp_fuse":
        assert arm.aux
        partner = bench.model(arm.aux)
        return lambda ids: cp_fuse.teacher_forced_log_probs(model, partner, ids)

    def plain(ids: "torch.Tensor") -> "torch.Tensor":
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)

    return plain


def batches(sequences: list[list[int]], size: int = CHUNK) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of similar length: numbers of the sequences, and their ids (B, T) with zeros on the right.

    A causal model never looks right, so that padding changes nothing before it.
    """
    order = np.argsort([len(one) for one in sequences], kind="stable")
    made = []
    for start in range(0, len(order), size):
        members = order[start : start + size]
        ids = np.zeros((len(members), len(sequences[members[-1]])), dtype=np.int64)
        for row, i in enumerate(members):
            ids[row, : len(sequences[i])] = sequences[i]
        made.append((members, ids))
    return made


def rows_at_once(model: Any, sequences: list[list[int]]) -> int:
    """How many sequences a forward pass takes when log-probabilities of all their tokens are wanted."""
    longest = max(map(len, sequences), default=1)
    return max(1, min(CHUNK, ELEMENTS // (longest * model.get_input_embeddings().weight.shape[0])))


def token_losses(bench: Bench, log_probs: LogProbs, sequences: list[list[int]], size: int = CHUNK) -> list[np.ndarray]:
    """Loss of every token but the first of each sequence, in nats; `size` sequences at once."""
    import torch

    losses: list[np.ndarray] = [np.zeros(0)] * len(sequences)
    for members, padded in batches(sequences, size):
        ids = torch.as_tensor(padded, device=bench.device)
        found = -log_probs(ids)[:, :-1].gather(2, ids[:, 1:, None])[..., 0].double().cpu().numpy()
        for i, row in zip(members, found, strict=True):
            losses[i] = row[: len(sequences[i]) - 1]
    return losses


def next_log_probs(bench: Bench, arm: ArmSpec, contexts: list[list[int]]) -> np.ndarray:
    """Log-probabilities (N, V) of the token that an arm would write first after each context.

    Contexts of one length at a time, so that nothing is padded and each is a new prompt for the arm's processors.
    """
    import torch

    model, changes = bench.model(arm.model), processors(bench, arm)
    rows: list[np.ndarray] = [np.zeros(0)] * len(contexts)
    for length in sorted({len(one) for one in contexts}):
        members = [i for i, one in enumerate(contexts) if len(one) == length]
        ids = torch.as_tensor([contexts[i] for i in members], device=bench.device)
        with torch.no_grad():
            scores = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        for change in changes:
            change.reset()
            scores = change(ids, scores)
        for i, row in zip(members, scores.log_softmax(-1).cpu().numpy(), strict=True):
            rows[i] = row
    return np.stack(rows)


def mass_on(bench: Bench, arm: ArmSpec, members: list[int], sequences: list[list[int]]) -> float:
    """Mean probability that the main model gives to tokens `members`, over all positions but the last."""
    import torch

    total, count = 0.0, 0
    index = torch.as_tensor(members, device=bench.device)
    for rows, padded in batches(sequences, rows_at_once(bench.model(arm.model), sequences)):
        ids = torch.as_tensor(padded, device=bench.device)
        with torch.no_grad():
            logits = bench.model(arm.model)(input_ids=ids, use_cache=False).logits.float()
        on_members = (logits.index_select(-1, index).logsumexp(-1) - logits.logsumexp(-1)).exp().double().cpu().numpy()
        for i, row in zip(rows, on_members, strict=True):
            total, count = total + float(row[: len(sequences[i]) - 1].sum()), count + len(sequences[i]) - 1
    return total / count


def judge_losses(bench: Bench, prompts: np.ndarray, written: np.ndarray) -> np.ndarray:
    """Mean loss (N,) of written ids under the judge, which never saw a passage; in nats a token."""
    import torch

    ids = torch.as_tensor(np.concatenate([prompts, written], axis=1), device=bench.device)
    found = []
    with torch.no_grad():
        for start in range(0, len(ids), CHUNK):
            batch = ids[start : start + CHUNK]
            logits = bench.model(bench.spec.judge)(input_ids=batch, use_cache=False).logits[:, :-1].float()
            loss = -logits.log_softmax(-1).gather(2, batch[:, 1:, None])[..., 0]
            found.append(loss[:, prompts.shape[1] - 1 :].double().mean(1).cpu().numpy())
    return np.concatenate(found)


def seconds_per_token(bench: Bench, arm: ArmSpec, prompts: np.ndarray, tokens: int) -> float:
    """Median wall-clock seconds a token of a row, over the job's repeats after one to warm up."""
    import torch

    taken, changes = [], processors(bench, arm)
    for _ in range(bench.spec.cost_repeats + 1):
        start = time.perf_counter()
        write(bench, arm, prompts, tokens, changes=changes)
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:])) / (tokens * len(prompts))
