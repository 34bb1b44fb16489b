"""The training loop: one for every run of every paper, on `accelerate`, over real `transformers` classes.

Step k is the model after k updates. Probes run at step 0, at their own interval and at the last step; state is saved
by the clock (and on SIGTERM or Ctrl-C), which changes no number.
"""

import copy
import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memorization.errors import UserError
from memorization.models import build as models
from memorization.probes.scheduled import Context, model_folder, resolve
from memorization.provenance.logs import Progress
from memorization.provenance.record import RowLog, digest_of, sha256_file, write_json
from memorization.specs import ModelSpec, PretrainedSpec, RunSpec, objective_function
from memorization.training import checkpoint
from memorization.training.items import Items, load_items
from memorization.training.optimizers import make_optimizer, set_learning_rate
from memorization.training.schedule import batch_at, learning_rate, steps_per_epoch

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training was asked to stop; its state is saved."""


@dataclass
class Control:
    """How a run is driven; nothing in here changes its numbers."""

    stop_requested: Callable[[], bool] = lambda: False
    save_every_seconds: float = 30.0
    save_every_steps: int | None = None
    after_step: Callable[[int], None] = lambda step: None


def run_digest(spec: RunSpec, code: str) -> str:
    """What a saved state must agree with: the spec and the code that uses it."""
    return digest_of({"spec": spec.model_dump(mode="json"), "code": code})


def first_model(spec: RunSpec, root: Path, work: Path | None = None) -> Any:
    """The model before its first update: from its seed, from another run, or a public checkpoint; then stripped.

    work: work folder of the run. Another run of the same job has one beside it, and its model there until the job ends.
    """
    import torch

    classifier = spec.model.head == "classification"
    if isinstance(spec.model, PretrainedSpec) or spec.initial:
        torch.manual_seed(spec.seed)  # as `build` does: nothing must depend on what ran before in this process
    if spec.initial:
        folder = model_folder(spec.initial.run, root, work)
        folder = folder / f"step{spec.initial.step}" if spec.initial.step else folder
        model: Any = models.load(folder, spec.model, new_head=classifier)
    elif isinstance(spec.model, PretrainedSpec):
        folder = root.parent / "assets" / spec.model.asset
        load = models.fresh if spec.model.fresh else partial(models.load, new_head=classifier)
        model = load(folder, spec.model)
        model = model if spec.model.half else model.float()
    else:
        model = models.build(spec.model, seed=spec.seed, embedding=frozen_embedding(spec, root))
    if spec.strip != "none":
        from memorization.models.norms import strip_norm_parameters

        report = strip_norm_parameters(model, spec.strip)
        log.info("%s: %d gains and biases of %d norms fixed", spec.name, report.parameters, len(report.names))
    return model


def make_objective(spec: RunSpec, model: Any) -> Any:
    """The objective with its options; one that compares with the model as it is now gets a frozen copy of it."""
    function = resolve(objective_function(spec.objective))
    options: dict[str, Any] = dict(spec.objective_options)
    if getattr(function, "needs_reference", False):
        options["reference"] = copy.deepcopy(model).eval().requires_grad_(False)
    return partial(function, **options)


def frozen_embedding(spec: RunSpec, root: Path) -> Any:
    """The embedding matrix of a run that does not train its own, or None."""
    if getattr(spec.model, "embedding", "trained") != "frozen":
        return None
    from safetensors.torch import load_file

    assert isinstance(spec.model, ModelSpec)
    return load_file(root / "data" / spec.paper / "embedding.safetensors")[f"E{spec.model.width}"]


def make_accelerator(spec: RunSpec) -> Any:
    """An `Accelerator` for the spec's device and precision. bfloat16 is mixed precision: weights stay float32."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # a run of another precision may have come before in this process
    torch.set_num_threads(spec.threads)
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "compute.device is cuda, but torch sees no GPU here: write `auto` or `cpu`, or install a CUDA torch"
        )
    on_cpu = spec.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if spec.precision == "bfloat16" else "no")


class Recorder:
    """Runs the probes that are due and keeps their rows; rows reach the disk no later than the state does."""

    def __init__(self, spec: RunSpec, context: Context, work: Path) -> None:
        self.spec, self.context = spec, context
        self.probes = [(resolve(p.function), p) for p in spec.probes]
        self.before = {p.before: resolve(p.before) for p in spec.probes if p.before}
        self.rows: list[dict[str, Any]] = []
        self.frames: list[pd.DataFrame] = []
        self.row_log, self.item_log = RowLog(work / "rows"), RowLog(work / "items")
        self.epoch_steps = max(1, steps_per_epoch(spec.data.exposures, spec.batch_size))

    def due(self, step: int) -> list[tuple[Any, Any]]:
        """Probes to call at `step`."""
        return [(function, p) for function, p in self.probes if p.due(step, self.spec.steps)]

    def look_before(self, step: int) -> None:
        """Let companions look at the model that `step` will change."""
        for _, probe in self.due(step):
            if probe.before:
                self.context.model.eval()
                self.before[probe.before](self.context)
                self.context.model.train()

    def measure(self, step: int, batch: np.ndarray | None) -> bool:
        """Call the probes due at `step`; returns whether any was."""
        due = self.due(step)
        if not due:
            return False
        self.context.step, self.context.batch = step, batch
        self.context.model.eval()
        for function, probe in due:
            rows, frames = function(self.context, probe.options)
            self.rows += [{"step": step, "epoch": step / self.epoch_steps, **row} for row in rows]
            self.frames += [frame.assign(step=step) for frame in frames]
        self.context.model.train()
        return True

    def flush(self, step: int) -> None:
        """Write the rows so far."""
        if self.rows:
            self.row_log.append(pd.DataFrame(self.rows), step)
        if self.frames:
            self.item_log.append(pd.concat(self.frames, ignore_index=True), step)
        self.rows, self.frames = [], []

    def truncate(self, step: int) -> None:
        """Forget rows after `step`: the resumed run will measure them again."""
        self.row_log.truncate(step)
        self.item_log.truncate(step)


def converged(spec: RunSpec, context: Context, step: int) -> bool:
    """Whether the stop rule holds after the evaluation at `step`; counts evaluations in a row in `context.memory`."""
    if spec.stop is None or context.memory.get("evaluated_at") != [step]:
        return False
    reached = float(np.mean(context.memory["now"])) >= spec.stop.threshold
    streak = context.memory.get("streak", [0])[0] + 1 if reached else 0
    context.memory["streak"] = [streak]
    return step > 0 and streak >= spec.stop.patience


def train(spec: RunSpec, root: Path, work: Path, *, code: str, control: Control | None = None) -> dict[str, Any]:
    """Train one run and measure it; returns its entry of the manifest.

    root: `results/<scale>`, where data sets lie. work: the run's own folder for states, rows and the final model; a run
    that was stopped at any point goes on from here, to the same bytes. code: digest of the code the run uses; a state
    made by other code or another spec is thrown away. Raises `Interrupted` when `control.stop_requested()`.
    """
    control = control or Control()
    digest = run_digest(spec, code)
    finished = work / "done.json"
    if finished.is_file() and json.loads(finished.read_text()).get("digest") == digest:
        log.info("%s: finished earlier, kept", spec.name)
        return json.loads(finished.read_text())

    accelerator = make_accelerator(spec)
    train_items, validation_items = (items.to(accelerator.device) for items in load_items(spec, root))
    stream = train_items.stream()
    model = first_model(spec, root, work)
    if train_items.pixels is None and train_items.target is not None and model.config.pad_token_id is None:
        model.config.pad_token_id = train_items.padding  # decoders need it to find an item's last token
    optimizer = make_optimizer(spec.optimizer, model)
    # only the model is wrapped: without fp16 scaling accelerate's optimizer and backward add nothing but a millisecond
    wrapped = accelerator.prepare(model)
    objective = make_objective(spec, accelerator.unwrap_model(wrapped))
    context = Context(spec, accelerator.unwrap_model(wrapped), train_items, validation_items, root=root, work=work)
    recorder = Recorder(spec, context, work)
    main = accelerator.is_main_process
    start, stopped, seconds_before = resume(spec, work, digest, context, recorder, optimizer, main=main)
    wrapped.train()

    log.info("%s: %d of %d steps to go", spec.name, spec.steps - start, spec.steps)
    progress = Progress(spec.steps, first_step=start)
    began = last_save = time.monotonic()
    tokens = 0

    def save(step: int) -> None:
        if not main:
            return
        recorder.flush(step)
        extra = {"digest": digest, "memory": context.memory, "seconds": seconds_before + time.monotonic() - began}
        checkpoint.save_state(work, step, context.model, optimizer, extra)

    step = start
    if start == 0 and main:
        recorder.measure(0, None)
    while step < spec.steps and not stopped:
        batch = stream[batch_at(step, len(stream), spec.batch_size, spec.seed)]
        set_learning_rate(optimizer, learning_rate(spec.optimizer, step, spec.steps))
        if main:
            recorder.look_before(step + 1)
        loss, count = take_step(accelerator, wrapped, optimizer, objective, train_items, batch, spec)
        tokens += count
        step += 1
        if main and recorder.measure(step, batch):
            stopped = converged(spec, context, step)
        if main and step in spec.keep:
            models.save(context.model, work / "model" / f"step{step}")
        stopped = agree(accelerator, stopped, spec, step)
        control.after_step(step)
        progress(step, tokens=count, loss=loss)
        if control.stop_requested():
            save(step)
            raise Interrupted(f"{spec.name}: stopped at step {step} of {spec.steps}, state saved: run again to go on")
        by_clock = time.monotonic() - last_save >= control.save_every_seconds
        if step < spec.steps and (by_clock or (control.save_every_steps and step % control.save_every_steps == 0)):
            save(step)
            last_save = time.monotonic()
    progress.close()
    if not main:
        return {}
    recorder.flush(step)
    seconds = seconds_before + time.monotonic() - began
    # a model that was only measured is not kept a second time
    weights = models.save(context.model, work / "model") if spec.steps else None
    entry = {
        "digest": digest,
        "steps": step,
        "stopped": "converged" if stopped else "steps",
        "sha256": sha256_file(weights) if weights else "",
        "device": str(accelerator.device),
        "seconds": seconds,
        "tokens_per_second": tokens / max(1e-9, time.monotonic() - began),
    }
    write_json(entry, finished)
    for state in checkpoint.states(work):
        shutil.rmtree(state)
    return entry


def resume(
    spec: RunSpec, work: Path, digest: str, context: Context, recorder: Recorder, optimizer: Any, *, main: bool
) -> tuple[int, bool, float]:
    """Go back to the newest whole state in `work`; returns (step, stop rule already met, seconds spent so far)."""
    work.mkdir(parents=True, exist_ok=True)
    found = checkpoint.load_newest(work)
    for message in found[2] if found else []:
        log.warning("%s: %s", spec.name, message)
    if found and found[1] and found[1]["digest"] == digest:
        folder, state, _ = found
        checkpoint.restore_state(folder, state, context.model, optimizer)
        context.memory = state["memory"]
        recorder.truncate(state["step"])
        log.info("%s: resumed at step %d of %d", spec.name, state["step"], spec.steps)
        streak = context.memory.get("streak", [0])[0]
        return state["step"], bool(spec.stop and streak >= spec.stop.patience), state["seconds"]
    if found and found[1]:
        log.warning("%s: its spec or code changed since the saved state: starting over", spec.name)
    if main:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    return 0, False, 0.0


def take_step(
    accelerator: Any, model: Any, optimizer: Any, objective: Any, items: Items, batch: np.ndarray, spec: RunSpec
) -> tuple[Any, int]:
    """One update on the items `batch`; returns (mean loss, target tokens). Each process takes its share."""
    import torch

    longest = int(items.length[batch].max(initial=0))  # no time is spent on columns that are padding in the whole batch
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    with accelerator.autocast() if accelerator.mixed_precision != "no" else nullcontext():
        summed, counted = objective(model, items.batch(mine, longest))
    total = int(counted if accelerator.num_processes == 1 else accelerator.reduce(counted))
    # processes average their gradients, so each scales its sum to be a share of the mean over the whole batch
    loss = summed * (accelerator.num_processes / max(1, total))
    loss.backward()
    if spec.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach(), total


def agree(accelerator: Any, stopped: bool, spec: RunSpec, step: int) -> bool:
    """Make every process stop at the same step: only the main one measures."""
    if accelerator.num_processes == 1 or spec.stop is None:
        return stopped
    if not any(probe.due(step, spec.steps) for probe in spec.probes):
        return stopped
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([stopped])[0])
