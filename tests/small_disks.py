"""File systems that fill up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A new file system of a size such as ``600k`` in a new folder; skips where tests may not have one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs Linux and root")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        yield
    finally:
        # Workers may still hold a file for a moment.
        subprocess.run(["umount", "--lazy", folder], check=True)


def resize(folder: Path, size: str) -> None:
    """Make a mounted file system larger or smaller."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
