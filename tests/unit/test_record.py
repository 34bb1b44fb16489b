"""Results are whole or absent, the same bytes for the same content, and say where they came from."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from memorization.errors import UserError
from memorization.provenance import record
from memorization.provenance.record import (
    RowLog,
    digest_of,
    git_state,
    provenance,
    read_provenance,
    read_table,
    replacing,
    sha256_file,
    write_json,
    write_table,
)

HAND_DIGEST = "8baa73198470"
TABLE = pd.DataFrame(
    {"run": ["a", "a", "b"], "step": [1, 2, 3], "value": [0.5, np.nan, 1.0], "ok": [True, False, True]}
)


@pytest.fixture(params=["fsync", "write"])
def full_disk(request, monkeypatch):
    """A disk without room: the kernel refuses the write, or only the fsync after it (delayed allocation)."""
    if request.param == "fsync":

        def fsync(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
    else:

        def open_full(path, *arguments, **options):
            open(path, "xb").close()
            return open("/dev/full", "wb", buffering=0)

        monkeypatch.setattr(record, "open", open_full, raising=False)


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_provenance_imports_nothing_heavy_and_is_plain_json():
    code = (
        "import json, sys; from memorization.provenance.record import provenance;"
        "print(json.dumps(provenance('abc', [0, 1], {'f': 'g'})));"
        "assert not {'torch', 'transformers', 'datasets', 'accelerate', 'snakemake'} & sys.modules.keys()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    note = json.loads(run.stdout)
    assert (note["config"], note["seeds"], note["code"]) == ("abc", [0, 1], {"f": "g"})
    assert note["versions"]["numpy"] == np.__version__ and note["versions"]["pandas"] == pd.__version__
    assert note["versions"]["torch"] and note["device"] == "cpu" and note["threads"] >= 1 and note["cpu"]
    assert note["date"].endswith("+00:00")


def test_git_state_follows_commits_and_edits(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )

    state = git_state.__wrapped__  # without the cache
    assert state(tmp_path) == {"commit": "unknown", "dirty": None}
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    (tmp_path / "untracked").write_text("1")
    commit = git("rev-parse", "HEAD").stdout.strip()
    assert state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert state(tmp_path) == {"commit": commit, "dirty": True}


def test_git_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state.__wrapped__(tmp_path) == {"commit": "unknown", "dirty": None}


def test_table_and_provenance_come_back(tmp_path):
    path = tmp_path / "deep" / "table.parquet"
    note = provenance(config_digest="abc", seeds=range(3))
    write_table(TABLE, path, note)
    pd.testing.assert_frame_equal(read_table(path), TABLE)
    assert read_provenance(path) == json.loads(json.dumps(note))
    assert files(tmp_path) == ["deep", "table.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(path), TABLE)  # others can read it too


def test_table_is_compressed_and_text_is_a_dictionary(tmp_path):
    write_table(TABLE, tmp_path / "t.parquet", {})
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["run"].has_dictionary_page and not columns["value"].has_dictionary_page


def test_same_content_gives_the_same_bytes(tmp_path):
    for name, note in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1}), ("c", {"x": 1, "y": 3})):
        write_table(TABLE.copy(), tmp_path / name, note)
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b") != sha256_file(tmp_path / "c")


def test_folder_names_do_not_become_columns(tmp_path):
    """pyarrow's own reader would add a column "seed" for a folder "seed=3"."""
    write_table(TABLE, tmp_path / "seed=3" / "t.parquet", {})
    assert list(read_table(tmp_path / "seed=3" / "t.parquet").columns) == list(TABLE.columns)


def test_no_rows_keep_their_columns(tmp_path):
    write_table(TABLE.iloc[:0], tmp_path / "t.parquet", {})
    assert list(read_table(tmp_path / "t.parquet").columns) == list(TABLE.columns)


def test_unreadable_files_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"there is no table .*none\.parquet"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"half\.parquet is not a readable Parquet file"):
        read_table(tmp_path / "half.parquet")
    TABLE.to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(UserError, match=r"foreign\.parquet has no provenance"):
        read_provenance(tmp_path / "foreign.parquet")


def test_json_takes_numpy_paths_and_sets(tmp_path):
    write_json({"b": np.float32(0.5), "a": {2, 1}, "c": tmp_path / "x", "d": np.arange(2)}, tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == {
        "b": 0.5,
        "a": [1, 2],
        "c": (tmp_path / "x").as_posix(),
        "d": [0, 1],
    }
    with pytest.raises(TypeError, match="object"):
        write_json({"a": object()}, tmp_path / "o.json")
    assert files(tmp_path) == ["o.json"]


def test_digest_is_sha256_of_canonical_json():
    """Hand value: `printf '{"a":1,"b":[1,2]}' | sha256sum`."""
    assert digest_of({"b": (1, 2), "a": 1}) == HAND_DIGEST
    assert digest_of({"a": 1, "b": [1, 2]}) == HAND_DIGEST
    assert digest_of({"a": 1, "b": [2, 1]}) != HAND_DIGEST
    assert digest_of(np.float64(0.1)) == digest_of(0.1)


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the test vector of FIPS 180
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent  # so that the rename stays within one disk
        raise RuntimeError
    assert path.read_text() == "old" and files(tmp_path) == ["a.txt"]


def test_readers_see_the_old_or_the_new_file_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("write", [lambda path: write_table(TABLE, path, {}), lambda path: write_json([1], path)])
def test_full_disk_is_a_user_error_and_leaves_no_half_file(tmp_path, full_disk, write):
    with pytest.raises(UserError, match=r"out of disk while writing .*new: free space or set `results:`"):
        write(tmp_path / "new")
    assert files(tmp_path) == []


def test_full_disk_keeps_finished_parts(tmp_path):
    log = RowLog(tmp_path / "rows")
    log.append([{"step": 1}], upto_step=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EDQUOT, "quota")))
        with pytest.raises(UserError, match="everything finished is kept"):
            log.append([{"step": 2}], upto_step=2)
    assert log.collect()["step"].tolist() == [1]
    assert files(log.folder) == ["part-000000001.parquet"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_unwritable_folder_is_a_user_error(tmp_path, monkeypatch, code):
    """The temporary file cannot be removed either, which must not hide the reason."""

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(UserError, match=r"new cannot be written .*: change its permissions"):
        write_json([1], tmp_path / "new")


def test_other_os_errors_stay_what_they_are(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error:
        write_json([1], tmp_path / "file" / "under.json")
    assert error.value.errno not in record.FULL


def rows(first, last):
    return [{"step": step, "metric": "loss", "value": 1 / step, "n": step} for step in range(first, last + 1)]


def test_rows_come_back_in_order_of_steps(tmp_path):
    log = RowLog(tmp_path / "rows")
    log.append(rows(10, 1000), upto_step=1000)  # as text, "1000" sorts before "9"
    log.append(rows(1, 9), upto_step=9)
    log.append([], upto_step=2000)
    pd.testing.assert_frame_equal(log.collect(), pd.DataFrame(rows(1, 1000)))
    assert [step for step, _ in log.parts()] == [9, 1000]


def test_killed_and_resumed_run_has_the_rows_of_one_never_interrupted(tmp_path):
    """A run saved at step 20 is killed at 30 with a part already written, a torn temporary file beside it."""
    log = RowLog(tmp_path / "rows")
    log.append(rows(1, 20), upto_step=20)
    log.append([{"step": 25, "metric": "lost", "value": 0.0, "n": 0}], upto_step=25)
    (log.folder / ".part-000000030.parquet.1234.tmp").write_bytes(b"torn")
    resumed = RowLog(tmp_path / "rows")
    resumed.truncate(20)
    resumed.append(rows(21, 40), upto_step=40)
    resumed.append(rows(21, 40), upto_step=40)  # the same step again replaces it
    pd.testing.assert_frame_equal(resumed.collect(), pd.DataFrame(rows(1, 40)))


def test_types_do_not_depend_on_where_parts_end(tmp_path):
    """A whole number, a missing column or only None in one part must not change the result."""
    data = [
        {"step": 1, "value": 1, "note": None},
        {"step": 2, "value": 0.5, "note": "x"},
        {"step": 3, "value": 2.0},
    ]
    collected = []
    for cuts in ([3], [1, 3], [2, 3], [1, 2, 3]):
        log = RowLog(tmp_path / str(cuts))
        for start, stop in zip([0, *cuts], cuts, strict=False):
            log.append(data[start:stop], upto_step=stop)
        collected.append(log.collect())
    for other in collected[1:]:
        pd.testing.assert_frame_equal(other, collected[0])
    assert collected[0]["value"].tolist() == [1.0, 0.5, 2.0]


def test_frames_keep_their_types(tmp_path):
    log = RowLog(tmp_path / "items")
    frame = pd.DataFrame({"item": [0, 1], "value": np.array([0.1, 0.2], dtype=np.float32)})
    log.append(frame, 1)
    log.append(frame.iloc[:0], 2)
    pd.testing.assert_frame_equal(log.collect(), frame)


def test_empty_log_is_an_empty_table(tmp_path):
    log = RowLog(tmp_path / "rows")
    log.truncate(0)
    assert log.collect().empty
