"""A file of another kind where a command wants an image, labels, a table, an architecture or a run: one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet.cli.app import run
from small_models import small_model

TRAIN = {"--image": "image.tif", "--labels": "labels.tif", "--classes": "0:a,255:b", "--run": "run"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, its labels, and all that people give in place of them."""
    folder = tmp_path_factory.mktemp("swapped")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    mask = np.where(pixels > 127, 255, 0).astype(np.uint8)
    tifffile.imwrite(folder / "image.tif", pixels)
    tifffile.imwrite(folder / "labels.tif", mask)
    tifffile.imwrite(folder / "jpeg.tif", mask, compression="jpeg")
    Image.fromarray(mask).save(folder / "labels.jpg")
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:2000])
    (folder / "text.png").write_text("no picture")
    (folder / "table.csv").write_bytes(b"\xff\xfea")
    np.save(folder / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    zarr.create_array(folder / "line.zarr", data=np.zeros(5))
    zarr.create_group(folder / "none.zarr", attributes={"ome": {"version": "0.5", "multiscales": []}})
    small_model().save(folder / "model")
    os.mkfifo(folder / "pipe.tif")
    return folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--image", "pipe.tif", "is not a file but a pipe or a device; save what comes through it as a file"),
        ("--architecture", "pipe.tif", "is not a file but a pipe or a device; give an architecture.json"),
        ("--group", "part@pipe.tif", "is not a file but a pipe or a device; give a CSV table"),
        ("--group", "part@table.csv", "is not a CSV table in UTF-8; save it as one"),
        ("--group", "part@absent.csv", "absent.csv: No such file or directory; check the path"),
        ("--channels", "", "has no channel ''; choose among 0 to 0"),
        ("--channels", "\u00b2", "choose among 0 to 0"),
        ("--labels", "labels.jpg", "are compressed with JPEG, which changes values"),
        ("--labels", "jpeg.tif", "are compressed with JPEG, which changes values"),
        ("--image", "cmyk.jpg", "are CMYK; save it as gray or RGB"),
        ("--image", "text.png", "text.png is not a PNG, JPEG or BMP, or is damaged; copy it again"),
        ("--image", "cut.png", "cut.png is not a PNG, JPEG or BMP, or is damaged; copy it again"),
        ("--image", "objects.npy", "holds no numbers, or is damaged"),
        ("--image", "line.zarr", "has 1 axes, and an image at least y and x"),
        ("--image", "none.zarr", "'multiscales' is not a list of images"),
        ("--run", "image.tif", "image.tif is not a folder, as a run has to be; choose another --run"),
        ("--run", "line.zarr", "line.zarr is a Zarr store and no place for a run; choose another --run"),
        ("--run", "model", "model is a model and no place for a run; choose another --run"),
    ],
)
def test_each_is_told_in_one_line(
    option: str,
    name: str,
    said: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    words = [word for each in (TRAIN | {option: name}).items() for word in each]
    network = [] if option == "--architecture" else ["--network", "plain"]
    assert run(["train", *words, "--preset", "fast", "--epochs", "1", *network]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and said in last


def test_pictures_need_a_folder(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    words = ["evaluate", "--prediction", "labels.tif", "--labels", "labels.tif", "--overlays", "image.tif"]
    assert run(words) == 1
    assert "error: image.tif is not a folder; give --overlays a folder" in capsys.readouterr().err
