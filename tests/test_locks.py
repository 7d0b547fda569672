"""Locks of the file system, and markers where it has none; with processes that end as they may."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from napari_autosegnet.errors import UserError
from napari_autosegnet.locks import InUseError, held, is_held
from napari_autosegnet.run import Run

fcntl = pytest.importorskip("fcntl", reason="the system's locks are others there")

ERRORS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]
#: A process on a file system without locks: says whether it has the lock, and keeps it until it is ended.
HOLDER = """
import errno, fcntl, os, sys, time
from pathlib import Path

def refuse(*arguments):
    raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))

if int(sys.argv[2]):
    fcntl.flock = refuse
from napari_autosegnet.locks import InUseError, held
try:
    with held(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
except InUseError as error:
    print(f"in use: {error}", flush=True)
"""


@pytest.fixture(params=ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file system whose locks answer with an error."""
    number: int = request.param

    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return number


def holder(file: Path, number: int, seconds: float = 60) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(file), str(number), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_one_process_holds_a_lock_until_it_is_gone_however_it_ends(tmp_path: Path, number: int) -> None:
    file = tmp_path / ".lock"
    with holder(file, number) as first:
        assert said(first) == "held"
        with holder(file, number, 0) as second:
            assert said(second).startswith("in use")
        first.send_signal(signal.SIGKILL)
    with holder(file, number, 0) as third:
        assert said(third) == "held"
    assert not is_held(file)


def test_who_asks_is_not_taken_for_a_holder(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with held(file):
        pass
    with open(file, "rb") as asked_by_another:
        fcntl.flock(asked_by_another, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the moment in which `is_held` asks
        assert not is_held(file)
    with held(file):
        assert is_held(file)
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: is_held(file), range(2000)))


def test_a_file_system_without_locks_has_markers(tmp_path: Path, no_locks: int) -> None:
    file = tmp_path / ".lock"
    assert not is_held(file)
    with held(file):
        assert is_held(file)
        with pytest.raises(InUseError, match=rf"process {os.getpid()} on .* delete .*\.lock\.holder"), held(file):
            pass
        with holder(file, no_locks, 0) as other:
            assert said(other).startswith(f"in use: process {os.getpid()} on ")
    assert not is_held(file) and not (tmp_path / ".lock.holder").exists()
    with held(file):
        pass


def test_a_marker_counts_for_machines_that_have_locks_there(tmp_path: Path) -> None:
    """Two machines may see one folder, one with locks and one without."""
    file = tmp_path / ".lock"
    with holder(file, errno.ENOLCK) as first:
        assert said(first) == "held"
        assert is_held(file)
        with pytest.raises(InUseError, match=f"process {first.pid} on "), held(file):
            pass
        first.kill()
    assert not is_held(file)
    with held(file):
        pass


def test_a_marker_of_another_machine_stays_until_somebody_deletes_it(tmp_path: Path, no_locks: int) -> None:
    (tmp_path / ".lock.holder").write_text("999999\nnode7\n")
    with (
        pytest.raises(InUseError, match=r"process 999999 on node7 .*delete .*\.lock\.holder"),
        held(tmp_path / ".lock"),
    ):
        pass
    assert is_held(tmp_path / ".lock")
    (tmp_path / ".lock.holder").unlink()
    with held(tmp_path / ".lock"):
        pass


def test_runs_work_on_a_file_system_without_locks(tmp_path: Path, no_locks: int) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        assert run.is_active
        with pytest.raises(UserError, match=rf"in use by another process \(process {os.getpid()} on "), run.locked():
            pass
    assert not run.is_active


def test_another_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    run = Run.create(tmp_path / "run")
    with pytest.raises(UserError, match="cannot write in the run folder .* Input/output error"), run.locked():
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders are closed in another way there")
def test_a_folder_that_may_only_be_read_is_not_taken_for_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "folder" / ".lock"
    file.parent.mkdir()
    with held(file):
        pass
    if os.geteuid() == 0:  # who may write everywhere

        def refuse(self: FileLock, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(file))

        monkeypatch.setattr("napari_autosegnet.locks.FileLock", type("_Refused", (FileLock,), {"acquire": refuse}))
    file.chmod(0o444)
    file.parent.chmod(0o555)
    try:
        assert not is_held(file)
        with holder(file, 0) as other:
            assert said(other) == "held"
            assert is_held(file)
            other.kill()
    finally:
        file.parent.chmod(0o755)
