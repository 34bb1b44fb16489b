"""Killed training processes: real signals to real processes, and the same bytes as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memorization.provenance.record import read_table
from tiny import make_data, tiny_group, tiny_run

STEPS = 400


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored data and the spec of a job of two runs."""
    folder = tmp_path_factory.mktemp("results")
    make_data(folder)
    group = tiny_group(*(tiny_run(f"run{seed}", steps=STEPS, seed=seed) for seed in (0, 1)))
    (folder / "spec.json").write_text(group.model_dump_json())
    return folder


def command(root: Path, out: Path, *more: str) -> list[str]:
    """Training command line that writes everything below `out`."""
    (out / "data").exists() or (out.mkdir(exist_ok=True), (out / "data").symlink_to(root / "data"))
    files = {"metrics": "metrics.parquet", "items": "items.parquet", "manifest": "manifest.json", "work": "g.work"}
    options = [f"--{name}={out / file}" for name, file in files.items()]
    return [
        sys.executable,
        "-m",
        "memorization.training",
        f"--spec={root / 'spec.json'}",
        f"--root={out}",
        *options,
        *more,
    ]


def outcome(out: Path) -> list[object]:
    """Weights and tables of a finished job."""
    weights = [path.read_bytes() for path in sorted((out / "models").glob("*/model.safetensors"))]
    assert len(weights) == 2 and not (out / "g.work").exists() and not (out / "g.work.lease").exists()
    return [*weights, *(read_table(out / name).to_csv() for name in ("metrics.parquet", "items.parquet"))]


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(root, out), check=True, capture_output=True)
    return outcome(out)


def wait_for_state(out: Path, newer_than: float, process: subprocess.Popen) -> None:
    """Wait until the process has saved a state (or ended)."""
    while process.poll() is None:
        if any(path.stat().st_mtime > newer_than for path in out.glob("g.work/*/state-*")):
            return
        time.sleep(0.01)


def test_seven_kills_at_random_moments_change_no_byte(root, tmp_path, undisturbed):
    """SIGKILL leaves no time to clean up; each restart goes on from the last saved state."""
    chance, kills = random.Random(0), 0
    for _ in range(7):
        started = time.time()
        process = subprocess.Popen(command(root, tmp_path, "--save-every-steps=7"), stderr=subprocess.PIPE)
        wait_for_state(tmp_path, started, process)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    subprocess.run(command(root, tmp_path), check=True, capture_output=True)
    assert kills >= 5
    assert outcome(tmp_path) == undisturbed
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: run["steps"] for name, run in manifest["runs"].items()} == {"run0": STEPS, "run1": STEPS}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_says_so_and_exits(root, tmp_path, undisturbed, number):
    process = subprocess.Popen(command(root, tmp_path, "--save-every-steps=50"), stderr=subprocess.PIPE, text=True)
    wait_for_state(tmp_path, 0, process)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number
    assert "state saved: run again to go on" in said and "Traceback" not in said
    again = subprocess.run(command(root, tmp_path), check=True, capture_output=True, text=True)
    assert "resumed at step" in again.stderr
    assert outcome(tmp_path) == undisturbed


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(root, tmp_path):
    first = subprocess.Popen(command(root, tmp_path, "--save-every-steps=5"), stderr=subprocess.DEVNULL)
    wait_for_state(tmp_path, 0, first)
    os.kill(first.pid, signal.SIGSTOP)  # or it might finish before the second one has started
    second = subprocess.run(command(root, tmp_path), capture_output=True, text=True)
    os.kill(first.pid, signal.SIGCONT)
    first.kill()
    first.wait()
    assert second.returncode == 1
    assert f"error: process {first.pid} on " in second.stderr and "is training in" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_lease_of_a_dead_process_is_taken_over(root, tmp_path, undisturbed):
    (tmp_path / "g.work.lease").write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": time.time() - 3600}))
    subprocess.run(command(root, tmp_path), check=True, capture_output=True)
    assert outcome(tmp_path) == undisturbed


def test_a_lease_still_renewed_on_another_machine_is_respected(root, tmp_path):
    (tmp_path / "g.work.lease").write_text(json.dumps({"host": "elsewhere", "pid": 7, "beat": time.time()}))
    refused = subprocess.run(command(root, tmp_path), capture_output=True, text=True)
    assert refused.returncode == 1 and "process 7 on elsewhere is training" in refused.stderr


def test_two_processes_train_like_one(root, tmp_path):
    """`accelerate launch` on two CPU processes: the same curve within the rounding of another order of sums."""
    spec = tiny_run("run0", steps=60, model=tiny_run().model.model_copy(update={"dropout": 0.0}))
    tables = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        (out / "spec.json").write_text(tiny_group(spec).model_dump_json())
        line = command(root, out)
        line = [part.replace(str(root / "spec.json"), str(out / "spec.json")) for part in line]
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29581"]
        run = [sys.executable, *launch, *line[1:]] if processes > 1 else line
        done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-3000:]
        table = read_table(out / "metrics.parquet")
        tables.append(table[table["metric"] == "loss"]["value"].to_numpy())
    assert tables[0] == pytest.approx(tables[1], rel=1e-4)
