"""Bad input: one clear sentence, a non-zero exit, nothing finished lost."""

import contextlib
import os
import signal
import time

import pytest

from workspace import MICRO

PLAN = ("-n", "patterns_fig2b")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scale": "labtop"}, "error: scale: no scale named 'labtop': did you mean 'laptop'?"),
        ({"sede": 5}, "error: config: unknown key `sede`: did you mean 'seeds'?"),
        (
            {"papers": ["patern"]},
            "error: config: papers.0: input should be 'patterns', 'tokenswap', 'layernorm' or 'geometry', not 'patern'",
        ),
        ({"seeds": 0}, "error: config: seeds: input should be greater than or equal to 1, not 0"),
        (
            {"patterns": {"optimizer": {"learning_rate": -0.1}}},
            "error: config: patterns.optimizer.learning_rate: input should be greater than 0, not -0.1",
        ),
        ({"patterns": {"prompt": 40}}, "prompt 40 + completion 8 do not fit in the shortest item (22 tokens)"),
        (
            {"patterns": {"experiments": {"alone": {"stepz": 1}}}},
            "`patterns.experiments.alone.stepz`: did you mean 'steps'?",
        ),
        (
            {"patterns": {"experiments": {"alone": {"data": ["mijj"]}}}},
            "no set or mixture named 'mijj': did you mean 'mij'?",
        ),
        (
            {"patterns": {"mixtures": {"mix4": {"mi": 0.5}}}},
            "mixtures.mix4: shares add up to 1.25: make them add up to 1",
        ),
        ({"results": "/dev/null/here"}, "results: /dev/null/here cannot be used, /dev/null is not a folder"),
        ({"text": {"source": "wikitext"}}, "write `vocabulary: 50257`"),
    ],
)
def test_wrong_configuration_is_one_sentence(workspace, keys, message):
    workspace.configure(**{**MICRO, **keys})
    output = workspace.snakemake(*PLAN, check=False)
    assert message in output and "exit code 1" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "patterns_fig22",
            "error: no paper, figure or other target named 'patterns_fig22': did you mean 'patterns_fig",
        ),
        ("paterns", "error: no paper, figure or other target named 'paterns': did you mean 'patterns'?"),
    ],
)
def test_an_unknown_target_names_the_nearest(workspace, target, message):
    output = workspace.snakemake("-n", target, check=False)
    assert message in output and "exit code 0" not in output and "Traceback" not in output


def test_broken_yaml_names_file_and_line(workspace):
    path = workspace.folder / "config" / "scales" / "smoke.yaml"
    path.write_text(path.read_text() + "\nseeds: [1\n")
    output = workspace.snakemake(*PLAN, check=False)
    assert "smoke.yaml, line" in output and "not valid YAML" in output and "Traceback" not in output


def test_a_failing_script_leaves_its_traceback_in_the_log_and_a_sentence_on_screen(workspace):
    workspace.configure(**MICRO, patterns={"sets": {"mij": {"options": {"jump_probability": 1.5}}}})
    output = workspace.snakemake("patterns_fig2b", check=False)
    assert "error: jump_probability is 1.5; a probability is between 0 and 1." in output and "exit code 1" in output
    logs = "".join(path.read_text() for path in workspace.path("logs", "make_pattern_data").glob("*.log"))
    assert "Traceback" in logs and "jump_probability is 1.5" in logs


LONG = {**MICRO, "patterns": {"experiments": {"mix4": {"steps": 2500, "stop": None, "evaluate_every": 500}}}}
RUN = "mix4-M-n12-s0"


def wait_for_state(workspace, process) -> None:
    """Wait until the training job of this process has saved a state."""
    started = time.time()

    def new(state) -> bool:
        with contextlib.suppress(FileNotFoundError):  # training deletes all but the newest two
            return state.stat().st_mtime > started
        return False

    while process.poll() is None and not any(map(new, workspace.path("train").glob("*/*/*/state-*"))):
        time.sleep(0.05)
    assert process.poll() is None, process.stdout.read()


def weights(workspace) -> bytes:
    """Final weights of the run."""
    return workspace.path("models", RUN, "model.safetensors").read_bytes()


def test_ctrl_c_and_kill_lose_nothing_and_end_in_the_same_bytes(workspace, tmp_path_factory):
    from workspace import make_workspace

    undisturbed = make_workspace(tmp_path_factory.mktemp("undisturbed"))
    for one in (workspace, undisturbed):
        one.configure(**LONG)
    undisturbed.snakemake("patterns_fig2b")

    process = workspace.start("patterns_fig2b")
    wait_for_state(workspace, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends on Ctrl-C
    process.communicate()
    assert process.returncode != 0
    cards = list(workspace.path("data", "patterns").glob("*/card.json"))
    assert len(cards) == 4, "finished jobs are kept"
    work = next(iter(workspace.path("train").glob(f"*{RUN}/work")))
    assert list(work.glob("*/state-*")), "the training job saved its state"

    process = workspace.start("patterns_fig2b")
    wait_for_state(workspace, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    locked = workspace.snakemake("patterns_fig2b", check=False)
    assert "--unlock" in locked and "exit code 1" in locked
    workspace.snakemake("--unlock")
    workspace.snakemake("patterns_fig2b")
    assert weights(workspace) == weights(undisturbed)
    log = next(iter(workspace.path("logs", "train").glob(f"*{RUN}.log"))).read_text()
    assert "resumed at step" in log
