"""Which process a number means."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from napari_autosegnet.processes import identity


def test_a_process_is_told_from_others_and_from_those_that_are_gone() -> None:
    mine = identity(os.getpid())
    if mine is None:
        pytest.skip("this system does not tell when a process was started")
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
