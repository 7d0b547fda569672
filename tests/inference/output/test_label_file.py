"""Labels of any format, written as one file for other programs."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile

from napari_autosegnet.cli import app
from napari_autosegnet.data.images import open_labels
from napari_autosegnet.inference.output import label_file
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement

PIXELS = np.random.default_rng(0).integers(0, 100, (5, 20, 30), dtype=np.uint32)


def write(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    placement = Placement((40.0, 4.0, 4.0), (80.0, 0.0, 4.0), "nanometer")
    write_image(path, pixels.shape, pixels.dtype, pixels.__getitem__, placement=placement)
    return path


@pytest.mark.parametrize("highest", [100, 200, 40_000, 2**20])
def test_objects_and_classes_are_written_for_others(
    tmp_path: Path, highest: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(label_file, "SLAB_BYTES", 2 * 20 * 30 * 4)
    pixels = PIXELS.copy()
    pixels[4, 19, 29] = highest
    source = write(tmp_path / "in.ome.zarr", pixels)
    types = {100: ("i1", "u1"), 200: ("i2", "u1"), 40_000: ("u2", "u2"), 2**20: ("", "u4")}
    mode, dtype = types[highest]
    endings = ["mrc", "h5", "tif"]
    if highest == 100 and find_spec("nibabel") is not None:
        endings += ["nii", "nii.gz"]
    for ending in endings:
        out = tmp_path / f"out.{ending}"
        status = app.run(["convert", "--labels", str(source), "--out", str(out)])
        said = capsys.readouterr()
        if ending == "mrc" and not mode:
            assert status == 1 and "goes up to 1048576, MRC to 65535; give --out with .h5" in said.err
            assert sorted(tmp_path.iterdir()) == [source]
            continue
        assert status == 0 and said.out == f"labels  {out}\n", said.err
        found = open_labels(out)
        assert found.dtype == (mode if ending == "mrc" else dtype)
        np.testing.assert_array_equal(found.read(*[slice(None)] * 3)[0], pixels)
        scale = {"mrc": (400, 40, 40), "nii": (0.04, 0.004, 0.004)}.get(ending.removesuffix(".gz"), (40, 4, 4))
        assert found.scale == scale
        before = out.read_bytes()
        assert app.run(["convert", "--labels", str(source), "--out", str(out)]) == 1
        assert f"error: {out} exists; choose another name\n" in capsys.readouterr().err
        assert out.read_bytes() == before
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["labels"], pixels)
        assert file["labels"].attrs["offset"].tolist() == [80, 0, 4]
        np.testing.assert_allclose(file["labels"].attrs["element_size_um"], (0.04, 0.004, 0.004))
    if mode:
        with mrcfile.open(tmp_path / "out.mrc") as file:
            np.testing.assert_array_equal(file.data, pixels)
            assert file.header.origin.tolist() == (40, 0, 800)


def test_what_is_no_labels_or_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pixels in (("fractions", PIXELS.astype(np.float32)), ("negative", PIXELS.astype(np.int32) - 1)):
        np.save(tmp_path / f"{name}.npy", pixels)
    for name, out, said in (
        ("fractions", "out.mrc", "holds 1 x float32 per pixel, no labels"),
        ("negative", "out.h5", "holds -1; labels are 0 or more"),
        ("negative", "negative.npy/out.tif", "out.tif: Not a directory; free some space or choose another folder"),
        ("negative", "out.gz", "labels are converted to .tif, .mrc, .h5, .nii or .nii.gz, not to .gz"),
    ):
        assert app.run(["convert", "--labels", str(tmp_path / f"{name}.npy"), "--out", str(tmp_path / out)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not (tmp_path / out).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a limit for the size of files is POSIX")
@pytest.mark.parametrize("limit", [0, 1000, 4000])
def test_hdf5_that_the_disk_does_not_take_is_one_line(
    limit: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 tells it in words of its own, and as a RuntimeError where it is met late."""
    import resource

    # Python would cut short what it compiles of modules that are imported now, for all programs after this one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    np.save(tmp_path / "labels.npy", PIXELS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status = app.run(["convert", "--labels", str(tmp_path / "labels.npy"), "--out", str(tmp_path / "out.h5")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = capsys.readouterr().err.splitlines()[-1]
    assert status == 1 and last.startswith(f"error: cannot write {tmp_path / 'out.h5'}: File too large; ")
    assert [file.name for file in tmp_path.iterdir()] == ["labels.npy"]


def test_what_changes_values_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.eye(8, dtype=np.uint8) * 255
    tifffile.imwrite(tmp_path / "mask.tif", 255 - mask, photometric="miniswhite")
    assert app.run(["convert", "--labels", str(tmp_path / "mask.tif"), "--out", str(tmp_path / "mask.h5")]) == 0
    told = capsys.readouterr().err
    assert told.startswith("note: ") and "mask.tif is min-is-white" in told and told.count("note: ") == 1
    np.testing.assert_array_equal(open_labels(tmp_path / "mask.h5").section(0)[0], mask)
