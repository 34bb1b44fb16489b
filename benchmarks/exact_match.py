"""Exact match of all items by one teacher-forced pass against `transformers`' generate, in one run.

    python benchmarks/exact_match.py [--items 256]

The model memorizes half of the items first, so that both answers occur; the two methods must agree on every item.
`generate` is timed on the whole batch with its KV cache (its fastest use here) and, as a naive evaluation would use it,
item by item.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from memorization.models.build import build
from memorization.probes.completion import exact_match, generate, true_completions
from memorization.specs import ModelSpec
from memorization.training.items import Items, pad

PROMPT, COMPLETION, LENGTH = 50, 30, 80


def best(run: Callable[[], np.ndarray], repeats: int = 3) -> tuple[float, np.ndarray]:
    """Best time and the answer."""
    seconds, answer = [], np.zeros(0)
    for _ in range(repeats):
        began = time.perf_counter()
        answer = run()
        seconds.append(time.perf_counter() - began)
    return min(seconds), answer


def train(model: torch.nn.Module, items: Items) -> None:
    """Fit half of the items until their exact match is 1."""
    half = torch.arange(len(items) // 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    while True:
        for rows in half[torch.randperm(len(half))].split(16):
            ids = items.input_ids[rows]
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
        if exact_match(model, items, COMPLETION)[: len(half)].all():
            return


def main() -> None:
    """Print times, ratios and whether the answers agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = torch.randint(0, 10, (options.items, LENGTH)).tolist()
    items = pad(rows, [PROMPT] * options.items, ["digits"] * options.items, "train")
    model = build(ModelSpec(layers=2, width=64, positions=LENGTH, vocabulary=40), seed=0)
    train(model, items)
    model.eval()

    def by_generate(chunk: int) -> np.ndarray:
        written = generate(model, items, COMPLETION, chunk=chunk)
        return (written == true_completions(items, COMPLETION)).all(1)

    ours, answer = best(lambda: exact_match(model, items, COMPLETION))
    print(f"{options.items} items, prompt {PROMPT}, completion {COMPLETION}: {answer.sum()} memorized")
    print(f"one teacher-forced pass    {1000 * ours:8.1f} ms")
    for name, chunk, repeats in (("generate, one batch", options.items, 3), ("generate, item by item", 1, 1)):
        seconds, theirs = best(lambda chunk=chunk: by_generate(chunk), repeats)
        agree = "identical answers" if (theirs == answer).all() else f"{(theirs != answer).sum()} answers DIFFER"
        print(f"{name:<25}  {1000 * seconds:8.1f} ms   {seconds / ours:6.1f}x   {agree}")


if __name__ == "__main__":
    main()
