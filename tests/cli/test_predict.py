"""The line that an interrupted prediction prints is one that goes on with it."""

from __future__ import annotations

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


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX here")
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
    ledger = tmp_path / "out.zarr.ledger.jsonl"
    deadline = time.monotonic() + 120
    while not (ledger.exists() and len(ledger.read_bytes().splitlines()) > 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    (line,) = [each for each in error.splitlines() if "go on with: " in each]
    program, *again = shlex.split(line.split("go on with: ")[1])
    assert program == "napari-autosegnet"
    assert again == ["predict", *(str(word) for word in words if word != "--overwrite")]

    done = subprocess.run(
        [sys.executable, "-m", "napari_autosegnet", *again], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert " done before" in done.stderr
    assert np.asarray(zarr.open_array(tmp_path / "out.zarr" / "probabilities" / "0")[...]).max() > 0
