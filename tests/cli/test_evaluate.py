"""Scoring that is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_autosegnet.cli.app import run
from napari_autosegnet.errors import StoppedError
from napari_autosegnet.jobs.evaluate import EvaluateJob

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")

#: The command, with files that are read slowly enough for a signal to come between.
PROGRAM = """
import sys, time
from napari_autosegnet.cli.app import run
from napari_autosegnet.data.stack import ImageStack

real = ImageStack.section

def slow(self, section):
    time.sleep(0.02)
    return real(self, section)

ImageStack.section = slow
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(("what", "status", "more"), [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--json"])])
def test_a_signal_leaves_no_score_of_some_sections(
    tmp_path: Path, what: signal.Signals, status: int, more: list[str]
) -> None:
    labels = np.random.default_rng(0).integers(1, 3, (60, 16, 16), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    words = ["evaluate", "--prediction", tmp_path / "labels.tif", "--labels", tmp_path / "labels.tif", *more]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("evaluate: 1 of 60"):
        assert line, "the command ended before it scored anything"
    process.send_signal(what)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ""
    assert "evaluate: stopped" in error and "finished" not in error and "Traceback" not in error
    assert "error" not in error and "continue with" not in error


def test_a_stop_that_no_signal_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(*job: object, **listeners: object) -> None:
        raise StoppedError("stopped after 1 of 2 sections")

    monkeypatch.setattr(EvaluateJob, "run", evaluate)
    assert run(["evaluate", "--prediction", "p", "--labels", "l"]) == 1
    assert capsys.readouterr().err == "error: stopped after 1 of 2 sections\n"
