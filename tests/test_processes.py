"""Which process a number means."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from napari_autosegnet.processes import identity


def test_a_process_is_told_from_others_and_from_those_that_are_gone() -> None:
    mine = identity(os.getpid())
    if mine is None:
        assert not Path("/proc").is_dir() and find_spec("psutil") is None
        pytest.skip("without /proc, only psutil tells when a process was started")
    assert mine == identity(os.getpid())
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(words) as child:
        theirs = identity(child.pid)
        child.kill()
    assert theirs is not None and theirs != mine
    assert identity(child.pid) is None


@pytest.mark.parametrize("number", [-1, 2**22 + 1, 2**40])
def test_a_number_of_no_process(number: int) -> None:
    assert identity(number) is None
