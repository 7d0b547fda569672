"""Names of files and folders that are no UTF-8, at every step."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from PIL import Image

from napari_autosegnet import api
from napari_autosegnet.cli.job import command_line
from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from small_jobs import SEARCH, TRAIN

#: "bär" as Windows and old Unix machines wrote it.
NAME = os.fsdecode(b"b\xe4r")
SETTINGS = PredictSettings(tile=64, halo=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of such a name with images, labels and an OME-Zarr of such names."""
    place = tmp_path_factory.mktemp("names") / os.fsdecode(b"daten-\xff")
    try:
        place.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no name that is not UTF-8")
    image = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
    labels = np.where(image > 127, 255, 0).astype(np.uint8)
    tifffile.imwrite(place / f"{NAME}.tif", image, photometric="minisblack")
    tifffile.imwrite(place / f"{NAME}-labels.tif", labels, photometric="minisblack")
    Image.fromarray(image[0]).save(place / f"{NAME}.png")
    (place / NAME).mkdir()
    for number, section in enumerate(image):
        Image.fromarray(section).save(place / NAME / f"{NAME}{number}.png")
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]
    about = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}}
    zarr.create_group(place / f"{NAME}.ome.zarr", zarr_format=3, attributes=about).create_array("0", data=image)
    return place


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    api.train(
        folder / f"run-{NAME}",
        images=[folder / f"{NAME}.tif"],
        labels=[folder / f"{NAME}-labels.tif"],
        network="plain",
        settings=TRAIN,
    )
    return folder / f"run-{NAME}"


def test_training_and_search(folder: Path, run: Path) -> None:
    config = Run(run).read_config()
    assert Path(config["data"]["images"][0]) == folder / f"{NAME}.tif"  # found again
    api.search(folder / f"search-{NAME}", [folder / f"{NAME}.tif"], [folder / f"{NAME}-labels.tif"], settings=SEARCH)
    assert (folder / f"search-{NAME}" / "architecture.json").is_file()
    further = [folder / f"{NAME}-labels.tif"]
    assert api.train(run, settings=TRAIN, continue_with=further) is not None


@pytest.mark.parametrize(
    ("source", "out"),
    [
        (f"{NAME}.tif", "tif"),
        (f"{NAME}.tif", "zarr"),
        (NAME, "tif"),
        (f"{NAME}.png", "png"),
        (f"{NAME}.ome.zarr", "zarr"),
        (f"{NAME}.ome.zarr", None),
    ],
)
def test_predictions(folder: Path, run: Path, source: str, out: str | None) -> None:
    place = None if out is None else folder / f"out-of-{source}.{out}"
    summary = api.predict(run / "model", folder / source, place, settings=SETTINGS)
    labels, image = open_labels(summary.labels), open_image(folder / source)
    assert labels.shape == image.shape and labels.section(0).any()
    if out == "zarr":
        assert place is not None
        yaozarrs.validate_zarr_store(str(place))
        content = json.loads((place / "zarr.json").read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # the name in it is text for every program
    # What is finished is known again.
    assert api.predict(run / "model", folder / source, place, settings=SETTINGS).path == summary.path


def test_scores(folder: Path, run: Path) -> None:
    images, labels = [folder / f"{NAME}.tif"], [folder / f"{NAME}-labels.tif"]
    scores = api.evaluate(model=run / "model", images=images, labels=labels, overlays=folder / f"overlays-{NAME}")
    assert scores.mean_iou >= 0
    assert len(list((folder / f"overlays-{NAME}").iterdir())) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_a_terminal_takes_what_is_printed(folder: Path, run: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    out = f"out-{NAME}-\N{MICRO SIGN}\N{GREEK SMALL LETTER BETA}.tif"
    commands: list[list[object]] = [
        ["predict", "--model", run, "--image", folder / f"{NAME}.tif", "--out", folder / out],
        ["predict", "--model", run, "--image", folder / f"{NAME}.png", "--out", folder / f"{NAME}-o.png", "--json"],
        ["show", run, "--out", folder / f"{NAME}.svg"],
        ["train", "--help"],
        ["runs", "list", folder],
        ["predict", "--model", run, "--image", folder / f"no-{NAME}.tif", "--out", folder / "x.tif"],
    ]
    for command in commands:
        words = [sys.executable, "-m", "napari_autosegnet", *map(str, command)]
        done = subprocess.run(words, capture_output=True, env=environment, timeout=300)
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.returncode == (1 if "x.tif" in str(command[-1]) else 0), done.stderr
        (done.stdout + done.stderr).decode(encoding)
        if "--json" in command:
            assert Path(json.loads(done.stdout)["out"]) == folder / f"{NAME}-o.png"


def test_a_command_line_to_copy_names_the_very_file(folder: Path) -> None:
    words = [folder / f"{NAME}.tif", "it's", "a\nb", "back\\slash\udcff", "plain"]
    line = command_line(*words)
    line.encode("ascii")
    assert line.split()[-1] == "plain"
    program = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {line.removeprefix('napari-autosegnet ')}"
    found = subprocess.run(["bash", "-c", shell], capture_output=True, check=True).stdout.split(b"\0")
    assert found == [os.fsencode(str(word)) for word in words]
