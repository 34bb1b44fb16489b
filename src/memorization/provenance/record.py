"""Results on disk: every file appears whole or not at all, and says where it came from."""

import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from memorization.errors import UserError

KEY = b"memorization"  # of the provenance in a Parquet file's schema metadata
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "pandas", "pyarrow", "snakemake")
FULL = (errno.ENOSPC, errno.EDQUOT)


# --- where a result comes from ----------------------------------------------------------------------------


def provenance(
    config_digest: str | None = None,
    seeds: Sequence[int] | None = None,
    code: Mapping[str, str] | str | None = None,
) -> dict[str, Any]:
    """Describe the code, configuration and machine behind a result, without importing any heavy package.

    `config_digest` is the digest of the resolved configuration, `code` the result of `source.definitions`
    or its digest.
    The device is the GPU if torch is loaded in this process and sees one, else "cpu".
    """
    return {
        "git": git_state(),
        "config": config_digest,
        "code": dict(code) if isinstance(code, Mapping) else code,
        "seeds": list(seeds) if seeds is not None else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "device": _device(),
        "threads": _threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def git_state(folder: Path = Path(__file__).parent) -> dict[str, Any]:
    """{"commit": sha or "unknown", "dirty": whether tracked files differ from it, None if unknown}."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit or "unknown", "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _device() -> str:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"


def _threads() -> int:
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdecimal() else usable


# --- digests ----------------------------------------------------------------------------------------------


def digest_of(obj: Any) -> str:
    """12 hex digits of the SHA-256 of canonical JSON: equal for equal content, whatever the order of keys."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sha256_file(path: str | Path) -> str:
    """The 64 hex digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """What JSON lacks: numpy values, paths, sets, dataclasses, pydantic models."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot write {type(value).__name__} {value!r} as JSON: turn it into numbers and strings first")


# --- files ------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is fsynced and becomes `path`, else removed.

    Raises UserError when the disk (or the quota) is full or may not be written; a file of that name from
    before stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # or the new name may be lost in a power cut
    finally:
        with suppress(OSError):  # usually it is gone; on a read-only disk this fails like the write before it
            temporary.unlink()


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn a full disk (or quota), or a folder that may not be written, into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"out of disk while writing {path}: free space or set `results:` to another disk; "
                "everything finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                f"{path} cannot be written ({error.strerror}): change its permissions or set `results:` to "
                "another folder"
            ) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: str | Path, content: bytes | memoryview) -> None:
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(content)


def write_json(obj: Any, path: str | Path) -> None:
    """Write indented JSON, keys in the order given."""
    _write(path, (json.dumps(obj, indent=2, default=_plain, ensure_ascii=False) + "\n").encode())


def write_table(df: pd.DataFrame, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet with its provenance; the same table and provenance give the same bytes."""
    table = pa.Table.from_pandas(df, preserve_index=False)
    note = json.dumps(provenance, sort_keys=True, default=_plain).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: note})
    strings = [field.name for field in table.schema if _is_text(field.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=strings)
    _write(path, memoryview(sink.getvalue()))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read one table as it was written."""
    return _open(path).read().to_pandas()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """The provenance of a table; raises UserError if the file has none."""
    note = (_open(path).schema_arrow.metadata or {}).get(KEY)
    if note is None:
        raise UserError(f"{path} has no provenance: it was not written by this workflow; delete it and run again")
    return json.loads(note)


def _open(path: str | Path) -> pq.ParquetFile:
    # Not pq.read_table, which turns a folder named "seed=3" into a column.
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"there is no table {path}: run the rule that makes it") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a readable Parquet file ({error}): delete it and run again") from error


class RowLog:
    """Rows collected over a run that may be killed: one Parquet part per `append`, each written whole.

    >>> log = RowLog(work / "metrics")
    >>> log.truncate(resumed_step)             # forget what a killed run measured after its last save
    >>> log.append(rows, upto_step=step)       # rows: a DataFrame or list of dicts
    >>> metrics = log.collect()                # all rows, in order of steps
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def append(self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame, upto_step: int) -> None:
        """Keep rows measured up to a step; a part of the same step is replaced, no rows write no part."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        if len(frame):
            write_table(frame, self.folder / f"part-{upto_step:09d}.parquet")

    def truncate(self, step: int) -> None:
        """Drop the parts after a step."""
        for part_step, part in self.parts():
            if part_step > step:
                part.unlink()

    def parts(self) -> list[tuple[int, Path]]:
        """(step, path) of the parts in order of steps."""
        return sorted((int(path.stem.removeprefix("part-")), path) for path in self.folder.glob("part-*.parquet"))

    def collect(self) -> pd.DataFrame:
        """All rows; the types do not depend on where one part ends and the next begins."""
        tables = [pq.ParquetFile(path).read().replace_schema_metadata(None) for _, path in self.parts()]
        return pa.concat_tables(tables, promote_options="permissive").to_pandas() if tables else pd.DataFrame()
