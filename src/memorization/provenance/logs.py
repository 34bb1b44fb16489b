"""What a job says: on screen and in its log file, with every uncaught error in the log."""

import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from memorization.errors import UserError

logger = logging.getLogger(__name__)


class _Tee:
    """A text stream that also writes to the log file; all else (isatty, encoding, fileno) is the stream's."""

    def __init__(self, stream: Any, log: TextIO, echo: bool):
        self.stream, self.log, self.echo = stream, log, echo

    def write(self, text: str) -> int:
        if not self.log.closed:  # by a later logging_to; a library may have kept this stream
            self.log.write(text)
            if not self.echo:
                return len(text)
        return self.stream.write(text)

    def flush(self) -> None:
        if not self.log.closed:
            self.log.flush()
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def logging_to(log_path: str | Path | None, *, append: bool = False, echo: bool = False) -> None:
    """Send this process's output to a log file: logging, warnings, prints, tracebacks.

    Call it first thing in a script or command. The screen shows warnings and errors only, so that many jobs leave it
    readable; with `echo`, or with no file, it shows everything (log records on stderr). Of other packages only warnings
    are logged. After it, an uncaught `UserError`
    shows as one line "error: ..." (its traceback is only in the log), and any other error as a traceback in
    both. The exit code is 1 either way. A later call replaces an earlier one; with None there is no file.
    """
    for stream in ("stdout", "stderr"):
        current = getattr(sys, stream)
        if isinstance(current, _Tee):
            faulthandler.disable()  # it holds on to the descriptor of the file closed here
            current.log.close()
            setattr(sys, stream, current.stream)
    screen = sys.stderr
    log = None
    handlers: list[logging.Handler] = [logging.StreamHandler(screen)]
    if log_path is not None:
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        log = open(log_path, "a" if append else "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        if not echo:
            handlers[0].setLevel(logging.WARNING)
        handlers.append(logging.StreamHandler(log))
        sys.stdout, sys.stderr = _Tee(sys.stdout, log, echo), _Tee(sys.stderr, log, echo)
        faulthandler.enable(log)  # a crash in native code leaves its Python traceback there
    form = logging.Formatter("%(asctime)s  %(levelname)-7s  %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(form)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("memorization").setLevel(logging.INFO)
    logging.captureWarnings(True)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        short = f"error: {error}\n" if issubclass(kind, UserError) else text
        screen.write(short)
        screen.flush()
        if log is not None and not log.closed:
            log.write(text if short is text else text + short)
            log.flush()

    def report_in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit and args.exc_value is not None:
            report(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = report
    threading.excepthook = report_in_thread


class Progress:
    """Log how far a run is, at most every `every_seconds`; a shorter run gets only its closing line.

    >>> progress = Progress(spec.steps, first_step=resumed_step, name=spec.name)
    >>> progress(step, tokens=count, loss=loss)    # after each step; tokens since the last call
    >>> progress.close()
    """

    def __init__(
        self,
        total_steps: int,
        every_seconds: float = 10,
        *,
        first_step: int = 0,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.every, self.first, self.clock = total_steps, every_seconds, first_step, clock
        self.prefix = f"{name}  " if name else ""
        self.start = self.shown = clock()
        self.step, self.tokens = first_step, 0
        self.values: dict[str, Any] = {}

    def __call__(self, step: int, *, tokens: int = 0, **values: Any) -> None:
        """Note that `step` steps are done. A value may be a tensor: it is read only when a line is due."""
        self.step, self.values = step, values
        self.tokens += tokens
        now = self.clock()
        if now - self.shown >= self.every:
            self.shown = now
            left = (now - self.start) / max(step - self.first, 1) * (self.total - step)
            self._say(f"step {step}/{self.total}", now, f"{duration(left)} left")

    def close(self) -> None:
        """Say how long it took; a run may have stopped before its last step."""
        now = self.clock()
        self._say(f"done at step {self.step}/{self.total}", now, f"{duration(now - self.start)} in all")

    def _say(self, head: str, now: float, tail: str) -> None:
        parts = [head, *(f"{name} {float(value):.3g}" for name, value in self.values.items())]
        if self.tokens and now > self.start:
            parts.append(f"{quantity(self.tokens / (now - self.start))} tokens/s")
        logger.info("%s%s", self.prefix, "  ".join([*parts, tail]))


def duration(seconds: float) -> str:
    """Write seconds as "00:31" (minutes, seconds) or "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def quantity(number: float) -> str:
    """Write a number with about three digits: 999, "21.4k", "3.2M"."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{suffix}"
    return f"{number:.0f}"
