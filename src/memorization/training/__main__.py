"""Train the runs of one group: `python -m memorization.training --spec spec.json --root results/laptop ...`.

This is a process of its own, not a Snakemake script, so that SIGTERM and Ctrl-C reach it and it can save its state.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

PROCESS_START = time.process_time()

import pandas as pd  # noqa: E402

from memorization.errors import UserError  # noqa: E402
from memorization.plan import training_roots  # noqa: E402
from memorization.provenance.logs import logging_to  # noqa: E402
from memorization.provenance.record import digest_of, provenance, write_json, write_table  # noqa: E402
from memorization.provenance.source import definitions  # noqa: E402
from memorization.specs import GroupSpec, ModelSpec, RunSpec, VisionSpec  # noqa: E402


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="memorization.training", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="group spec, JSON")
    parser.add_argument("--root", type=Path, required=True, help="results/<scale>")
    parser.add_argument("--work", type=Path, required=True, help="work folder: states of unfinished runs")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--save-every-seconds", type=float, default=30.0)
    parser.add_argument("--save-every-steps", type=int, default=None, help="for tests")
    return parser.parse_args(arguments)


def labels(group: GroupSpec, run: RunSpec, experiment: str) -> dict[str, Any]:
    """Columns that every row of a run carries."""
    return {
        "paper": group.paper,
        "experiment": experiment,
        "scale": group.scale,
        "run": run.name,
        "model": run.model_name,
        "seed": run.seed,
        "data": run.data_name,
        "items": run.data.items,
        "batch_size": run.batch_size,
        "parameters": run.model.parameters,
        "default_prompt_length": run.prompt_length,
        "default_completion_length": run.completion_length,
        **run.labels,
    }


def collect(group: GroupSpec, work: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the rows of the finished runs into the group's two tables."""
    from memorization.provenance.record import RowLog

    metrics, items = [], []
    for run, experiment in zip(group.runs, group.experiments, strict=True):
        rows = RowLog(work / run.name / "rows").collect()
        rows.insert(0, "revision", "step" + rows["step"].astype(str))
        metrics.append(rows.assign(**labels(group, run, experiment)))
        per_item = RowLog(work / run.name / "items").collect()
        keep: dict[str, Any] = {"run": run.name, "seed": run.seed, "data": run.data_name, "items": run.data.items}
        items.append(per_item.assign(**keep))
    return pd.concat(metrics, ignore_index=True), pd.concat(items, ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    """Train, then write metrics, items, models and last the manifest."""
    options = parse(arguments)
    logging_to(None)
    from memorization.models.build import module_of
    from memorization.training.lease import lease
    from memorization.training.loop import Control, Interrupted, train

    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: stop.append(received))

    group = GroupSpec.model_validate_json(options.spec.read_text())
    for run in group.runs:  # counted as start-up, not as training
        if isinstance(run.model, ModelSpec | VisionSpec):
            import_module(module_of(run.model.architecture))

    startup = time.process_time()
    began = time.monotonic()
    code = digest_of(definitions(training_roots(group)))
    control = Control(lambda: bool(stop), options.save_every_seconds, options.save_every_steps)
    main_process = int(os.environ.get("RANK", "0")) == 0
    runs = {}
    try:
        with lease(options.work) if main_process else nullcontext():
            for run in group.runs:
                runs[run.name] = train(run, options.root, options.work / run.name, code=code, control=control)
            if main_process:
                finish(options, group, runs, code, startup, began)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(128 + stop[0])


def finish(
    options: argparse.Namespace,
    group: GroupSpec,
    runs: dict[str, dict[str, object]],
    code: str,
    startup: float,
    began: float,
) -> None:
    """Move everything out of the work folder, the manifest last: it exists only when all is there."""
    metrics, items = collect(group, options.work)
    record = provenance(digest_of(group.model_dump(mode="json")), [run.seed for run in group.runs], code)
    for run in group.runs:
        target = options.root / "models" / run.name
        source = options.work / run.name / "model"
        if source.exists():  # else a job that was killed right here has moved it already
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        kept = f"models/{run.name}" if run.steps else None  # one that was only measured has no model of its own
        runs[run.name] = {**runs[run.name], "model": kept, "spec": run.model_dump(mode="json")}
    write_table(metrics, options.metrics, record)
    write_table(items, options.items, record)
    timing = {
        "startup_cpu_seconds": startup,
        "cpu_seconds": time.process_time(),
        "seconds": time.monotonic() - began,
    }
    write_json({"group": group.group, "runs": runs, **timing, "provenance": record}, options.manifest)
    shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except json.JSONDecodeError as error:
        print(f"error: the run spec is not JSON ({error}): run the workflow again", file=sys.stderr)
        sys.exit(1)
