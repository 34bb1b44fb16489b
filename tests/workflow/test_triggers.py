"""What makes jobs run again: content, never time; exactly what uses a changed function; nothing in a fresh clone."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from workspace import MICRO, PARTS, REPOSITORY, Workspace, make_workspace

TARGETS = ("patterns_fig2b", "patterns_tab_adherence")  # a mixture of four sets; and MIJ at another size
NOTHING = "Nothing to be done"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which two small targets were made."""
    workspace = make_workspace(tmp_path_factory.mktemp("finished"))
    workspace.snakemake(*TARGETS)
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, times of files kept."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Workspace(tmp_path / "copy")


def planned(output: str) -> set[str]:
    """Messages of the jobs that a dry run lists."""
    return {line.split(": ", 1)[1] for line in output.splitlines() if re.match(r"Job \d+: ", line)}


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_second_run_has_nothing_to_do(finished):
    assert NOTHING in finished.snakemake("-n", *TARGETS)


def test_touching_reformatting_and_commenting_plan_nothing(copy):
    for path in [*copy.folder.rglob("*.py"), *copy.folder.rglob("*.smk"), *copy.folder.rglob("*.yaml")]:
        path.touch()
    edit(copy.folder / "src/memorization/training/loop.py", "def take_step(", "\n# a comment\ndef take_step(")
    edit(
        copy.folder / "src/memorization/data/patterns.py",
        '    """Independent uniform digits."""',
        '    """Other words."""',
    )
    edit(copy.folder / "workflow/scripts/plot_figure.py", "def main(", "\n\n\ndef main(")
    edit(copy.folder / "rules/train.smk", "rule train:\n", "# what trains\nrule train:\n")
    assert NOTHING in copy.snakemake("-n", *TARGETS)


def test_copied_results_with_new_times_plan_nothing(copy):
    """A restored backup may have lost all times: contents decide."""
    for path in sorted(copy.path().rglob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
        path.touch()  # the newest first: every input now looks newer than its output
    assert NOTHING in copy.snakemake("-n", *TARGETS)


def test_a_changed_generator_replans_what_uses_it_and_says_so(copy):
    edit(
        copy.folder / "src/memorization/data/patterns.py",
        "return Item(_digits(rng, frame.length), frame.prompt)",
        "return Item(_digits(rng, frame.length)[::-1], frame.prompt)",
    )
    output = copy.snakemake("-n", *TARGETS)
    jobs = planned(output)
    assert "data: random_digits" in jobs and "figures: patterns_fig2b" in jobs
    assert not any("data: mij" in job or "adherence" in job for job in jobs), jobs
    assert re.search(r"before: .*memorization\.data\.patterns:random_digits@\w{12}.* now: ", output)


def test_a_changed_plot_replans_its_figure_only(copy):
    edit(
        copy.folder / "src/memorization/figures/patterns.py",
        "def fig2b(table: pd.DataFrame, params: Params) -> Figure:",
        "def fig2b(table: pd.DataFrame, params: Params, unused: int = 1) -> Figure:",
    )
    assert planned(copy.snakemake("-n", *TARGETS)) == {"figures: patterns_fig2b", "patterns_fig2b"}


def test_a_changed_probe_replans_the_runs_that_use_it(copy):
    edit(copy.folder / "src/memorization/probes/overlap.py", "return follows.mean(1)", "return follows.sum(1)")
    jobs = planned(copy.snakemake("-n", *TARGETS))
    assert any("tab_adherence" in job for job in jobs)
    assert not any("fig2b" in job or job.startswith("data") for job in jobs), jobs


def test_a_changed_config_key_replans_what_it_touches(copy):
    copy.configure(**MICRO, patterns={"experiments": {"mix4": {"steps": 25}}})
    jobs = planned(copy.snakemake("-n", *TARGETS))
    assert any("fig2b" in job for job in jobs) and not any("adherence" in job for job in jobs), jobs


def test_a_fresh_clone_with_the_frozen_results_plans_nothing(finished, tmp_path):
    """`freeze` packs results and records; a clone elsewhere, all its files new, takes them over."""
    script = REPOSITORY / "workflow" / "scripts" / "freeze.py"
    run = (
        f"import sys, types; sys.path.insert(0, {str(script.parent)!r}); import freeze\n"
        "smk = types.SimpleNamespace(output=types.SimpleNamespace(archive='frozen.tar.gz'),"
        " params=types.SimpleNamespace(root='results/smoke'))\n"
        "freeze.main(smk)"
    )
    import sys

    subprocess.run([sys.executable, "-c", run], cwd=finished.folder, check=True, env=finished.environment())
    clone = make_workspace(tmp_path)
    for part in PARTS:
        for path in [tmp_path / part, *(tmp_path / part).rglob("*")]:
            path.touch()
    with tarfile.open(finished.folder / "frozen.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert NOTHING in clone.snakemake("-n", *TARGETS)
