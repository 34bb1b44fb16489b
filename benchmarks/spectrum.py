"""Eigenvalues of a covariance in one streaming pass against scikit-learn's full PCA, in one run.

    python benchmarks/spectrum.py [--rows 15000] [--width 4096] [--threads 1]

15,000 sequences is what the paper of `geometry` measures, 4,096 the width of its 7B model. The features are float32, in
a file. Ours reads it in batches and sums in float64. The peer, PCA with svd_solver="full", which is what the released
code calls, gets the whole array: once in float32, in which it then computes, and once in float64, as exact as ours. The
third peer, svd_solver="covariance_eigh", is scikit-learn's own short cut. Each runs in a process of its own, one after
the other; reading the file and imports are not timed. Memory is the peak of the process above what it held with its
input loaded (the whole array; of ours nothing, so its batches count). Eigenvalues are compared with those of "full,
float64": the largest difference over the largest eigenvalue, and over the eigenvalue itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH = 500
EXACT = "PCA full, float64"
OURS = "Spectrum, streaming"


def write(path: Path, rows: int, width: int) -> None:
    """Store features with a spectrum of about 1/rank, mixed by a reflection, with a mean of 3."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    axis = rng.standard_normal(width, dtype=np.float32)
    axis /= np.linalg.norm(axis)
    with path.open("wb") as file:
        for start in range(0, rows, BATCH):
            batch = rng.standard_normal((min(BATCH, rows - start), width), dtype=np.float32) * scale
            (batch - 2 * np.outer(batch @ axis, axis) + 3).astype(np.float32).tofile(file)


def memory(name: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def start() -> tuple[float, float, float]:
    """Forget the peak so far; return (MB now, wall clock, CPU clock)."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS"), time.perf_counter(), time.process_time()


def ours(path: Path, rows: int, width: int) -> tuple[np.ndarray, float, float, float]:
    """(eigenvalues, MB, seconds, CPU seconds)."""
    import scipy.linalg  # noqa: F401  (imported on first use)

    from memorization.probes.spectrum import Spectrum

    before, _, _ = start()
    wall = cpu = 0.0
    found = Spectrum()
    for at in range(0, rows, BATCH):
        count = min(BATCH, rows - at)
        batch = np.fromfile(path, np.float32, count * width, offset=4 * at * width).reshape(count, width)
        began, used = time.perf_counter(), time.process_time()
        found.update(batch)
        wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
    began, used = time.perf_counter(), time.process_time()
    values = found.eigenvalues()
    wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - used
    return values, memory("VmHWM") - before, wall, cpu


def peer(solver: str, dtype: str) -> Callable[[Path, int, int], tuple[np.ndarray, float, float, float]]:
    """The same with PCA."""

    def run(path: Path, rows: int, width: int) -> tuple[np.ndarray, float, float, float]:
        from sklearn.decomposition import PCA

        features = np.fromfile(path, np.float32).reshape(rows, width).astype(dtype, copy=False)
        before, began, used = start()
        found = PCA(svd_solver=solver).fit(features)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        values = np.zeros(width)
        values[: len(found.explained_variance_)] = found.explained_variance_.astype(float) * (rows - 1) / rows
        return values, memory("VmHWM") - before, wall, cpu

    return run


VARIANTS = {
    OURS: ours,
    "PCA full, float32": peer("full", "float32"),
    EXACT: peer("full", "float64"),
    "PCA covariance_eigh, float32": peer("covariance_eigh", "float32"),
}


def main() -> None:
    """Print times, memory, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=15_000)
    parser.add_argument("--width", type=int, default=4_096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.rows, options.width
    if options.variant:
        values, megabytes, wall, cpu = VARIANTS[options.variant](options.folder / "features", *size)
        np.save(options.folder / "values.npy", values)
        print(json.dumps([megabytes, wall, cpu]))
        return
    environment = os.environ | {f"{name}_NUM_THREADS": str(options.threads) for name in ("OMP", "OPENBLAS", "MKL")}
    measured, values = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "features", *size)
        for name in VARIANTS:
            command = [sys.executable, __file__, "--variant", name, "--folder", folder]
            command += ["--rows", str(options.rows), "--width", str(options.width)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            measured[name] = json.loads(done.stdout)
            values[name] = np.load(Path(folder) / "values.npy")
    print(f"{options.rows} x {options.width} float32 features, {options.threads} thread(s); ratios are to {OURS}")
    head = "".join(f"{unit:>9}{'ratio':>7}" for unit in ("seconds", "CPU s", "MB"))
    print(f"{'':<30}{head}{'of largest':>12}{'of own':>9}")
    exact = values[EXACT]
    for name, (megabytes, wall, cpu) in measured.items():
        own = measured[OURS]
        error = np.abs(values[name] - exact)
        relative = float((error / np.maximum(exact, 1e-12 * exact[0])).max())
        print(
            f"{name:<30}{wall:9.2f}{wall / own[1]:7.2f}{cpu:9.2f}{cpu / own[2]:7.2f}"
            f"{megabytes:9.0f}{megabytes / own[0]:7.2f}{error.max() / exact[0]:12.0e}{relative:9.0e}"
        )


if __name__ == "__main__":
    main()
