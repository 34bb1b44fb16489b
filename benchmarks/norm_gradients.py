"""Gradients at the inputs of norms for all items by one backward a batch against one backward an item, in one run.

    python benchmarks/norm_gradients.py [--items 128] [--batch 32]

The peer is the loop that a backward hook invites: batch size 1, `retain_grad` on the input of every norm, one backward
an item (the released code of the paper also goes item by item). It computes gradients of all parameters on the way;
a second peer leaves those out. All must agree on every item and norm.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification
from transformers import RobertaPreLayerNormConfig as PreConfig
from transformers import RobertaPreLayerNormForSequenceClassification as PreModel

from memorization.models.norms import find_norms
from memorization.probes.norm_gradients import norm_input_gradients

TOKENS, VOCABULARY, CLASSES = 48, 400, 6
SIZE = dict(vocab_size=VOCABULARY, num_labels=CLASSES, hidden_size=64, intermediate_size=256, num_hidden_layers=6)
MODELS = {"Post-LN": (BertForSequenceClassification, BertConfig), "Pre-LN": (PreModel, PreConfig)}


def loss(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of each item."""
    return F.cross_entropy(model(input_ids=batch["input_ids"]).logits, batch["labels"], reduction="none")


def item_by_item(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], parameters: bool) -> np.ndarray:
    """(N, norms) by one backward an item; `parameters`: also compute, and drop, the gradients of the weights."""
    model.eval()
    inputs: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        args[0].retain_grad()
        inputs.append(args[0])

    hooks = [norm.module.register_forward_pre_hook(keep) for norm in find_norms(model) if norm.layer is not None]
    rows = []
    for row in range(len(batch["labels"])):
        inputs.clear()
        value = loss(model, {name: tensor[row : row + 1] for name, tensor in batch.items()})[0]
        if parameters:
            value.backward()
            gradients = [x.grad for x in inputs]
            model.zero_grad()
        else:
            gradients = list(torch.autograd.grad(value, inputs))
        rows.append([float(g.double().norm()) for g in gradients])
    for hook in hooks:
        hook.remove()
    return np.array(rows)


def best(run: Callable[[], np.ndarray], repeats: int = 3) -> tuple[float, np.ndarray]:
    """Best time and the answer."""
    seconds, answer = [], np.zeros(0)
    for _ in range(repeats):
        began = time.perf_counter()
        answer = run()
        seconds.append(time.perf_counter() - began)
    return min(seconds), answer


def compare(name: str, items: int, size: int) -> None:
    """Time one model."""
    model_class, config_class = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZE, num_attention_heads=4))
    ids = torch.randint(3, VOCABULARY, (items, TOKENS))
    batch = {"input_ids": ids, "labels": torch.randint(CLASSES, (items,))}
    batches = [{key: value[at : at + size] for key, value in batch.items()} for at in range(0, items, size)]
    ours, answer = best(lambda: norm_input_gradients(model, batches, loss).per_item)
    print(f"{name}: {items} items of {TOKENS} tokens, {answer.shape[1]} norms, batches of {size}")
    print(f"{'one backward a batch':<36} {1000 * ours:8.1f} ms")
    for peer, parameters in (("one backward an item", True), ("one an item, no weight gradients", False)):
        seconds, theirs = best(lambda parameters=parameters: item_by_item(model, batch, parameters))
        error = float(np.abs(theirs / answer - 1).max())
        ratio = seconds / ours
        print(f"{peer:<36} {1000 * seconds:8.1f} ms   {ratio:5.1f}x   largest relative difference {error:.0e}")


def main() -> None:
    """Print times, ratios and how well the answers agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in MODELS:
        compare(name, options.items, options.batch)


if __name__ == "__main__":
    main()
