"""A lease on a work folder: two drivers never train in the same one.

On one machine the lock is the kernel's (`flock`), so it goes with its process, however that ends. Between machines a
shared disk may not pass locks on: there a heartbeat in the file counts, and one not renewed for two minutes is free.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memorization.errors import UserError

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 120.0


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold the lease of `folder` (made if need be); UserError naming the holder when it is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(folder.name + ".lease")
    handle = path.open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        raise taken(folder, handle.read()) from None
    handle.seek(0)
    held = handle.read()
    try:
        holder = json.loads(held) if held.strip() else None
    except ValueError:
        holder = None
    if holder and holder["host"] != socket.gethostname() and time.time() - holder["beat"] < STALE_SECONDS:
        handle.close()
        raise taken(folder, held)

    ended = threading.Event()

    def beat() -> None:
        while True:
            handle.seek(0)
            handle.truncate()
            handle.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}))
            handle.flush()
            if ended.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
        handle.close()


def taken(folder: Path, held: str) -> UserError:
    """The error for a folder in use."""
    try:
        holder = json.loads(held)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        who = "another process"
    return UserError(f"{who} is training in {folder}: wait for it, or end it and run again")
