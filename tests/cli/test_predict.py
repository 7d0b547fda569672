"""The line that an interrupted prediction prints is one that continues with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from small_models import small_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")


def wait_for_blocks(process: subprocess.Popen[str], ledger: Path, count: int) -> None:
    """Wait until a prediction has finished some blocks."""
    deadline = time.monotonic() + 180
    # Its first line says what the prediction is of.
    while not (ledger.exists() and len(ledger.read_bytes().splitlines()) > count):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_the_printed_line_goes_on_with_the_same_settings(tmp_path: Path) -> None:
    small_model().save(tmp_path / "a model")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 128, 128), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", np.ones_like(pixels), photometric="minisblack")
    # None of this is in the result's own files; a run with other settings would be refused.
    words = ["--model", tmp_path / "a model", "--image", tmp_path / "image.tif", "--out", tmp_path / "out.zarr"]
    words += ["--mask", tmp_path / "mask.tif", "--probabilities", "--overwrite", "--block", "1,32,32", "--halo", "8"]
    words += ["--channels", "0", "--device", "cpu", "--json"]
    command = [sys.executable, "-m", "napari_autosegnet", "predict", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_blocks(process, tmp_path / "out.zarr.ledger.jsonl", 1)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    (line,) = [each for each in error.splitlines() if "continue with: " in each]
    program, *again = shlex.split(line.split("continue with: ")[1])
    assert program == "napari-autosegnet"
    assert again == ["predict", *(str(word) for word in words if word != "--overwrite")]

    done = subprocess.run(
        [sys.executable, "-m", "napari_autosegnet", *again], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert " done before" in done.stderr
    assert np.asarray(zarr.open_array(tmp_path / "out.zarr" / "probabilities" / "0")[...]).max() > 0


#: As users write scripts: without ``if __name__ == "__main__":``.
SCRIPT = """
import sys
from napari_autosegnet.cli.app import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("what", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_whole_group_ends_soon_and_quietly(tmp_path: Path, what: signal.Signals, status: int) -> None:
    """A terminal sends Ctrl-C to the workers, too, and some schedulers do so with SIGTERM; one worker is stopped."""
    pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")
    small_model().save(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 256, 256), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="minisblack")
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["--model", tmp_path / "model", "--image", tmp_path / "image.tif", "--out", tmp_path / "out.zarr"]
    words += ["--workers", "2", "--block", "1,32,32", "--halo", "8", "--engine", "channels_last", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", "predict", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_blocks(process, tmp_path / "out.zarr.ledger.jsonl", 3)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        workers[0].suspend()
        os.killpg(process.pid, what)
        began = time.monotonic()
        out, error = process.communicate(timeout=60)
        seconds = time.monotonic() - began
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in error and "Process" not in error
    assert "continue with: napari-autosegnet predict" in error
    assert seconds < 15
