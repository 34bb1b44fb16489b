"""The log holds all that a job said; the screen stays readable; progress speaks seldom."""

import logging
import subprocess
import sys

import pytest

from memorization.provenance.logs import Progress, duration, quantity


def run_script(tmp_path, body, log="job/log.txt", options=""):
    """Run lines after logging_to in a process of its own, as Snakemake runs a script."""
    script = tmp_path / "script.py"
    script.write_text(
        "import logging, sys, threading, warnings\n"
        "from memorization.errors import UserError\n"
        "from memorization.provenance.logs import logging_to\n"
        "logger = logging.getLogger('memorization.test')\n"
        f"logging_to({str(tmp_path / log) if log else None!r}{options})\n{body}\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    return run, (tmp_path / log).read_text() if log else ""


def test_the_log_has_everything_and_the_screen_only_warnings(tmp_path):
    body = "print('printed')\nlogger.info('logged')\nlogger.warning('warned')\nprint('aside', file=sys.stderr)"
    run, log = run_script(tmp_path, body)
    assert all(text in log for text in ("printed", "logged", "warned", "aside"))
    assert run.stdout == "" and "warned" in run.stderr and "logged" not in run.stderr


def test_only_warnings_of_other_packages_are_logged(tmp_path):
    body = "other = logging.getLogger('fontTools')\nother.info('chatter')\nother.warning('trouble')"
    _, log = run_script(tmp_path, body)
    assert "trouble" in log and "chatter" not in log


def test_with_echo_everything_is_in_the_log_and_on_screen(tmp_path):
    body = (
        "print('printed')\nlogger.info('logged')\nwarnings.warn('warned')\n"
        "print('whispered', file=sys.stderr)\nlogger.debug('hidden')"
    )
    run, log = run_script(tmp_path, body, options=", echo=True")
    assert run.returncode == 0
    assert run.stdout == "printed\n"
    for text in ("logged", "warned", "whispered"):
        assert run.stderr.count(text) >= 1 and text not in run.stdout
    for text in ("printed", "logged", "whispered"):
        assert log.count(text) == 1
    assert "warned" in log
    assert "hidden" not in log + run.stderr


def test_user_error_is_one_line_on_screen_with_traceback_in_the_log_only(tmp_path):
    run, log = run_script(tmp_path, "def deep():\n    raise UserError('no such key, write `steps`')\ndeep()")
    assert run.returncode == 1
    assert run.stderr == "error: no such key, write `steps`\n"
    assert "Traceback" in log and "in deep" in log
    assert log.endswith("error: no such key, write `steps`\n")


def test_user_error_without_a_log_file(tmp_path):
    run, _ = run_script(tmp_path, "raise UserError('wrong')", log=None)
    assert (run.returncode, run.stderr) == (1, "error: wrong\n")


def test_other_errors_show_their_traceback_in_both(tmp_path):
    run, log = run_script(tmp_path, "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('bad') from e")
    assert run.returncode == 1
    for text in (run.stderr, log):
        assert text.count("ValueError: bad") == 1
        assert "KeyError: 'a'" in text


def test_error_in_a_thread_reaches_the_log(tmp_path):
    body = "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\nprint('alive')"
    run, log = run_script(tmp_path, body)
    assert run.returncode == 0
    assert "ZeroDivisionError" in log and "ZeroDivisionError" in run.stderr and "alive" in log


def test_crash_in_native_code_leaves_a_traceback(tmp_path):
    run, log = run_script(tmp_path, "def crash():\n    import ctypes\n    ctypes.string_at(0)\ncrash()")
    assert run.returncode < 0
    assert "in crash" in log


def test_second_call_replaces_the_first(tmp_path):
    second = tmp_path / "second.txt"
    body = (
        f"kept = sys.stdout\nlogger.info('one')\nlogging_to({str(second)!r})\nlogger.info('two')\n"
        "print('three')\nprint('four', file=kept)"
    )
    run, first = run_script(tmp_path, body)
    second = second.read_text()
    assert run.returncode == 0 and "four" in run.stdout
    assert "one" in first and "two" not in first and "three" not in first
    assert "one" not in second and "two" in second and second.count("three") == 1


def test_append_keeps_what_an_earlier_attempt_said(tmp_path):
    body = f"logger.info('one')\nlogging_to({str(tmp_path / 'log.txt')!r}, append=True)\nlogger.info('two')"
    _, log = run_script(tmp_path, body, log="log.txt")
    assert "one" in log and "two" in log


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def lines_of(caplog, seconds_per_step, steps=1200, until=None, **options):
    clock = Clock()
    with caplog.at_level(logging.INFO):
        progress = Progress(steps, clock=clock, **options)
        for step in range(options.get("first_step", 0) + 1, (until or steps) + 1):
            clock.now += seconds_per_step
            progress(step, tokens=1000, loss=1.234)
        progress.close()
    return caplog.messages


def test_progress_speaks_every_ten_seconds(caplog):
    lines = lines_of(caplog, 0.046875)  # exact in binary; 1200 steps take 56.25 s
    assert lines[0] == "step 214/1200  loss 1.23  21.3k tokens/s  00:46 left"
    assert len(lines) == 5 + 1
    assert lines[-1] == "done at step 1200/1200  loss 1.23  21.3k tokens/s  00:56 in all"


@pytest.mark.parametrize("seconds_per_step", [0, 0.0078125])
def test_short_run_has_only_a_closing_line(caplog, seconds_per_step):
    assert len(lines_of(caplog, seconds_per_step)) == 1


def test_resumed_run_counts_its_own_steps_for_speed(caplog):
    """1 s a step from step 1000 of 1200: after 10 steps 190 s are left, whatever the earlier process did."""
    assert (
        lines_of(caplog, 1, first_step=1000, name="mij")[0]
        == "mij  step 1010/1200  loss 1.23  1.0k tokens/s  03:10 left"
    )


def test_run_that_stops_early_says_where(caplog):
    assert lines_of(caplog, 0.001, until=7)[-1].startswith("done at step 7/1200")


def test_values_are_read_only_when_shown(caplog):
    """Reading a loss off a GPU waits for it, so it must not happen at each step."""

    class Loss:
        read = 0

        def __float__(self):
            Loss.read += 1
            return 0.5

    clock = Clock()
    with caplog.at_level(logging.INFO):
        progress = Progress(100, clock=clock)
        for step in range(1, 101):
            clock.now += 1
            progress(step, loss=Loss())
    assert Loss.read == len(caplog.messages) == 10
    assert caplog.messages[0] == "step 10/100  loss 0.5  01:30 left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00"), (31.4, "00:31"), (59.6, "01:00"), (3723, "1:02:03"), (90000, "25:00:00")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(12, "12"), (999, "999"), (1000, "1.0k"), (21_400, "21.4k"), (3.2e6, "3.2M"), (1e9, "1.0G")],
)
def test_quantity(number, text):
    assert quantity(number) == text
