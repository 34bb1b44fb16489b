"""Tokens a second of our training loop against Hugging Face `Trainer` and a bare hand-written loop, in one run.

    python benchmarks/training.py [--steps 60] [--widths 64 128 256]

Same model, same batches, one thread. The peers: `Trainer` (AdamW, no logging, no saving) and ten lines of torch with
the same fused optimizer as ours. Each is timed several times in turn, interleaved, and the best time counts, so that
another process on the machine disturbs all alike. With --bf16 also our loop in mixed precision against Trainer's
float32 default, and the loss it ends with.
"""

import argparse
import os
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import Trainer, TrainingArguments

from memorization.models.build import build
from memorization.specs import DataPart, DataSpec, ModelSpec, RunSpec
from memorization.training.items import Items, pad
from memorization.training.loop import take_step
from memorization.training.objectives import causal_lm
from memorization.training.schedule import batch_at, learning_rate

BATCH, LENGTH, VOCABULARY, ITEMS = 16, 64, 512, 256


def make_spec(width: int, steps: int) -> RunSpec:
    """A run of the given width, 2 layers."""
    return RunSpec(
        name="bench",
        paper="patterns",
        model_name="bench",
        model=ModelSpec(layers=2, width=width, positions=LENGTH, vocabulary=VOCABULARY),
        data_name="random",
        data=DataSpec(parts=[DataPart(set="random", folder="random", items=ITEMS)]),
        steps=steps,
        batch_size=BATCH,
        seed=0,
        prompt_length=1,
        completion_length=1,
        probes=[],
    )


def ours(spec: RunSpec, items: Items, precision: str = "no") -> tuple[float, float]:
    """Seconds and last loss of the loop body of `memorization.training.loop.train`."""
    AcceleratorState._reset_state()  # one process, two precisions
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    model = build(spec.model, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    model = accelerator.prepare(model)
    model.train()
    began = time.perf_counter()
    for step in range(spec.steps):
        batch = batch_at(step, len(items), spec.batch_size, spec.seed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec.optimizer, step, spec.steps)
        loss, _ = take_step(accelerator, model, optimizer, causal_lm, items, batch, spec)
    return time.perf_counter() - began, float(loss)


def bare(spec: RunSpec, items: Items) -> tuple[float, float]:
    """Seconds and last loss of the shortest loop one would write by hand."""
    model = build(spec.model, seed=0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    began = time.perf_counter()
    for step in range(spec.steps):
        index = torch.as_tensor(batch_at(step, len(items), spec.batch_size, spec.seed))
        ids = items.input_ids[index]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began, float(loss.detach())


class Rows(torch.utils.data.Dataset):
    """Items as Trainer wants them."""

    def __init__(self, items: Items) -> None:
        self.ids = items.input_ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def trainer(spec: RunSpec, items: Items) -> tuple[float, float]:
    """Seconds of Hugging Face's Trainer, float32, without its start-up."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            max_steps=spec.steps,
            per_device_train_batch_size=spec.batch_size,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=0.0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        made = Trainer(model=build(spec.model, seed=0), args=arguments, train_dataset=Rows(items))
        result = made.train()
    return result.metrics["train_runtime"], result.training_loss


def main() -> None:
    """Print a line a width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="also bfloat16: very slow on CPUs without its instructions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = torch.randint(0, VOCABULARY, (ITEMS, LENGTH)).tolist()
    items = pad(rows, [1] * ITEMS, ["random"] * ITEMS, "train")
    print(f"torch {torch.__version__}, 1 thread, batch {BATCH} x {LENGTH} tokens, 2 layers, best of {options.repeats}")
    print("width  ours tok/s   /bare  /Trainer  loss: bare, ours (with --bf16: bf16/Trainer, its loss)")
    for width in options.widths:
        spec = make_spec(width, options.steps)
        contestants = {
            "bare": lambda spec=spec: bare(spec, items),
            "ours": lambda spec=spec: ours(spec, items),
            "trainer": lambda spec=spec: trainer(spec, items),
        }
        if options.bf16:
            contestants["bf16"] = lambda spec=spec: ours(spec, items, "bf16")
        best = {name: min(run() for _ in range(1)) for name, run in contestants.items()}  # also warms up
        for _ in range(options.repeats):
            for name, run in contestants.items():
                best[name] = min(best[name], run())
        tokens = options.steps * BATCH * LENGTH
        seconds = {name: value[0] for name, value in best.items()}
        line = (
            f"{width:>5}  {tokens / seconds['ours']:>10.0f}  {seconds['bare'] / seconds['ours']:>6.2f}  "
            f"{seconds['trainer'] / seconds['ours']:>8.2f}  {best['bare'][1]:.4f}  {best['ours'][1]:.4f}"
        )
        if options.bf16:
            line += f"  {seconds['trainer'] / seconds['bf16']:.2f}  {best['bf16'][1]:.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
