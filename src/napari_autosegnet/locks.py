"""One process at a time: the file system's own locks, and marker files where it has none.

A lock of the system ends with its process, whatever ends it. A marker is a file whose existence is the lock; it holds
the number and the machine of its process, so that one that was left behind on this machine is told from one that is
alive. Of another machine nobody can tell; there the file has to be deleted by hand.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

#: What file systems without locks answer: NFS without its lock daemon, Lustre without ``flock``, some FUSE and SMB.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
#: Seconds between two tries.
_POLL = 0.02


class InUseError(Exception):
    """Another process holds the lock; the text says which and what to do, as far as it is known, or is empty."""


@contextmanager
def held(file: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock for this process.

    Parameters
    ----------
    file : Path
        The lock file; its folder must exist.
    patience : float
        Seconds to wait for another process to be done.

    Raises
    ------
    InUseError
        When another process holds it.
    OSError
        When the file cannot be written.
    """
    lock = _acquire(file, patience)
    try:
        yield
    finally:
        lock.release()


def is_held(file: Path) -> bool:
    """Whether a process holds the lock now, also in a folder that may only be read, such as a colleague's.

    Several may ask at a time: on Windows alone one may take another one for a holder.
    """
    if _is_marked(file):
        return True
    if not file.exists():
        return False
    return _is_locked(file)


def _acquire(file: Path, patience: float) -> BaseFileLock:
    lock: BaseFileLock = _native(file)
    try:
        lock.acquire(timeout=patience, poll_interval=_POLL)
    except Timeout:
        raise InUseError from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = _marker(file)
        try:
            lock.acquire(timeout=patience, poll_interval=_POLL)
        except Timeout:
            raise InUseError(_holder(file)) from None
        return lock
    # Some machines may see the same folder without locks.
    if _is_marked(file):
        lock.release()
        raise InUseError(_holder(file))
    return lock


def _native(file: Path) -> BaseFileLock:
    # Its own way out would take the lock file itself for the marker, which an earlier try may have left empty.
    return FileLock(file, fallback_to_soft=False)


def _marker(file: Path) -> SoftFileLock:
    return SoftFileLock(_marker_file(file))


def _marker_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.holder")


def _is_marked(file: Path) -> bool:
    """Whether a marker of a process lies there that is not known to be dead; one of a dead process goes."""
    if not _marker_file(file).exists():
        return False
    try:
        with _marker(file).acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _holder(file: Path) -> str:
    """Who holds a marker, and how to get rid of it if that is over."""
    with suppress(OSError, ValueError):
        pid, host = _marker_file(file).read_text(encoding="utf-8")[:1000].splitlines()[:2]
        return f"process {int(pid)} on {host} holds it; if that one is gone, delete {_marker_file(file)}"
    return f"if no process works there, delete {_marker_file(file)}"


def _is_locked(file: Path) -> bool:
    """Whether a process holds the system's lock. A shared one is tried: others who ask are not in its way."""
    if sys.platform == "win32":
        try:
            with _native(file).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False
    import fcntl

    try:
        with open(file, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
