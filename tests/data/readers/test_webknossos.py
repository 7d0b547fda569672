"""Datasets of WEBKNOSSOS, as its library writes them: arrays (c, x, y, z) that begin at the dataset's origin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorstore", reason="the extra remote is not installed")

from format_files import webknossos_layer, write_webknossos
from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (1, 5, 40, 50), np.uint8)  # c, z, y, x


def check(place: Path, pixels: np.ndarray = PIXELS, *, labels: bool = False) -> None:
    stack = open_labels(place) if labels else open_image(place)
    assert (stack.name, stack.shape, stack.channels) == ("dataset", pixels.shape[1:], len(pixels))
    assert (stack.scale, stack.translation, stack.unit) == ((40, 5, 4), (80, 0, 128), "nanometer")
    np.testing.assert_array_equal(stack.read(slice(1, 3), slice(5, 30), slice(20, 44)), pixels[:, 1:3, 5:30, 20:44])
    for index in range(stack.sections):
        np.testing.assert_array_equal(stack.section(index), pixels[:, index])


def test_layers_with_scale_and_place(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    color = webknossos_layer(root, "color", PIXELS)
    labels = webknossos_layer(root, "segments", PIXELS // 3, "zarr", category="segmentation")
    write_webknossos(root, color, labels)
    for place in (root, root / "color"):
        check(place)
    check(root, PIXELS // 3, labels=True)
    check(root / "segments", PIXELS // 3)
    for each in color["mags"]:
        del each["path"]  # as in older datasets
    write_webknossos(root, color, scale=[4, 5, 40])
    check(root)
    colors = np.concatenate([PIXELS, 255 - PIXELS, PIXELS // 2])
    write_webknossos(root, webknossos_layer(root, "rgb", colors, elementClass="uint24", numChannels=3))
    check(root, colors)
    several = webknossos_layer(root, "several", colors)
    for each in several["mags"]:
        each["channelIndex"] = 1
        each["axisOrder"] = {"c": 0, "x": 1, "y": 2, "z": 3}
    check(write_webknossos(root, several), colors[1:2])
    write_webknossos(
        root, {**color, "mags": color["mags"][:1]}, scale={"factor": [0.002, 0.0025, 0.04], "unit": "micrometer"}
    )
    half = open_image(root)
    assert (half.shape, half.scale, half.unit) == ((5, 20, 25), (0.04, 0.005, 0.004), "micrometer")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    root.mkdir()
    color = webknossos_layer(root, "color", PIXELS)
    for layers, said in (
        ((color, {**color, "name": "other"}), rf"with the layers color, other; give one, such as {root}/color"),
        (({**color, "category": "segmentation"},), "with the layers color; give one"),
        (({**color, "dataFormat": "wkw"},), r"stored as WKW, .* webknossos copy-dataset --data-format zarr3 OLD NEW"),
        (({**color, "dataFormat": "n5"},), "is stored as n5; give the folder or the address of the array itself"),
        (({**color, "mags": [{"mag": [1, 1, 1], "path": "./gone"}]},), "there is no zarr.json in .*gone"),
        (({**color, "additionalAxes": [{"name": "w", "index": 4}]},), "the layer color has the axes"),
        (({**color, "boundingBox": {}},), "datasource-properties.json is incomplete or damaged"),
        ((), "a WEBKNOSSOS dataset with the layers"),
    ):
        write_webknossos(root, *layers)
        with pytest.raises(UserError, match=said) as error:
            open_image(root)
        assert "\n" not in str(error.value)
    whole = write_webknossos(root, color).joinpath("datasource-properties.json").read_text()
    for content in ("", whole[: len(whole) // 2], "[]", '{"dataLayers": 3}'):
        (root / "datasource-properties.json").write_text(content)
        with pytest.raises(UserError, match=r"datasource-properties\.json is incomplete or damaged") as error:
            open_image(root)
        assert "\n" not in str(error.value)
    write_webknossos(root, color)
    (root / "color" / "1" / "c" / "0" / "2" / "0" / "0").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match="cannot read .*dataset") as error:
        open_image(root).read(*[slice(None)] * 3)
    assert "\n" not in str(error.value)
