"""Which process a number means (numbers are given to others later, and elsewhere), and how many cores it may use."""

from __future__ import annotations

import os
from pathlib import Path

#: Linux tells here what it knows of processes.
_PROC = Path("/proc")


def identity(pid: int) -> str | None:
    """When a process of this computer began, and since which start of the computer; None where nobody can tell.

    No other process has the same, whatever its number and wherever its run folder was copied to.
    """
    if _PROC.is_dir():
        try:
            boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
            # The name before may hold blanks and brackets.
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            return f"{boot} {int(fields[19])}"
        except (OSError, ValueError, IndexError):
            return None
    try:
        import psutil  # comes with napari
    except ImportError:
        return None
    try:
        return repr(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
