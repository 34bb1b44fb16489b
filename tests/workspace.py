"""A copy of the workflow in a folder of its own, and snakemake in it as a user runs it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
PARTS = ("Snakefile", "rules", "workflow", "config", "src", "profiles")

# one run a job, one seed, tiny: what a test waits for is the start of processes
MICRO = {"scale": "smoke", "compute": {"runs_per_job": 1, "pieces_per_job": 1, "save_every_seconds": 1}}


@dataclass
class Workspace:
    """A copy of the workflow that a test may change."""

    folder: Path
    said: str = ""

    def environment(self) -> dict[str, str]:
        """The test's own copy of the library goes first."""
        return {**os.environ, "PYTHONPATH": str(self.folder / "src"), "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}

    def configure(self, **keys: object) -> None:
        """Write the user's configuration file."""
        (self.folder / "user.yaml").write_text(yaml.safe_dump(keys))

    def command(self, *arguments: str) -> list[str]:
        """A snakemake command line."""
        return [sys.executable, "-m", "snakemake", *arguments, "--configfile", "user.yaml"]

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start snakemake in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Run snakemake to its end; returns everything it printed."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=600)
        if check and process.returncode:
            raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{printed[-4000:]}")
        return printed + ("" if check else f"\nexit code {process.returncode}")

    def path(self, *parts: str) -> Path:
        """A path below results/smoke."""
        return self.folder.joinpath("results", "smoke", *parts)


def make_workspace(folder: Path) -> Workspace:
    """Copy what git would track of the workflow."""
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / part)
    workspace = Workspace(folder)
    workspace.configure(**MICRO)
    return workspace
