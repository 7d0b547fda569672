"""Datasets of WEBKNOSSOS, as its library writes them: arrays (c, x, y, z) that begin at the dataset's origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

pytest.importorskip("tensorstore", reason="the extra remote is not installed")

from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 255, (1, 5, 40, 50), np.uint8)  # c, z, y, x
#: Where they lie in the dataset, x, y, z.
PLACE = [32, 0, 2]


def layer(root: Path, name: str, pixels: np.ndarray = PIXELS, kind: Any = "zarr3", **more: Any) -> dict[str, Any]:
    """Write a layer of two magnifications; returns what the dataset says of it."""
    turned = np.pad(pixels, ((0, 0), (2, 1), (0, 24), (32, 14))).transpose(0, 3, 2, 1)
    for folder, step in (("2-2-1", 2), ("1", 1)):
        about: Any = {"dimension_names": ["c", "x", "y", "z"]} if kind == "zarr3" else {}
        data = turned[:, ::step, ::step]
        zarr.create_array(
            root / name / folder, data=data, chunks=(len(data), 16, 16, 4), zarr_format=3 if about else 2, **about
        )
    depth, height, width = pixels.shape[1:]
    return {
        "name": name,
        "category": "color",
        "boundingBox": {"topLeft": PLACE, "width": width, "height": height, "depth": depth},
        "elementClass": "uint8",
        "dataFormat": kind,
        "mags": [{"mag": [2, 2, 1], "path": f"./{name}/2-2-1"}, {"mag": [1, 1, 1], "path": f"./{name}/1"}],
        **more,
    }


def write(root: Path, *layers: Any, scale: Any = None) -> Path:
    about = {"id": {"name": "a", "team": ""}, "version": 1, "scale": scale or {"factor": [4, 5, 40]}}
    (root / "datasource-properties.json").write_text(json.dumps({**about, "dataLayers": layers}))
    return root


def check(place: Path, pixels: np.ndarray = PIXELS, *, labels: bool = False) -> None:
    stack = open_labels(place) if labels else open_image(place)
    assert (stack.name, stack.shape, stack.channels) == ("dataset", pixels.shape[1:], len(pixels))
    assert (stack.scale, stack.translation, stack.unit) == ((40, 5, 4), (80, 0, 128), "nanometer")
    np.testing.assert_array_equal(stack.read(slice(1, 3), slice(5, 30), slice(20, 44)), pixels[:, 1:3, 5:30, 20:44])
    for index in range(stack.sections):
        np.testing.assert_array_equal(stack.section(index), pixels[:, index])


def test_layers_with_scale_and_place(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    color, labels = layer(root, "color"), layer(root, "segments", PIXELS // 3, "zarr", category="segmentation")
    write(root, color, labels)
    for place in (root, root / "color"):
        check(place)
    check(root, PIXELS // 3, labels=True)
    check(root / "segments", PIXELS // 3)
    for each in color["mags"]:
        del each["path"]  # as in older datasets
    write(root, color, scale=[4, 5, 40])
    check(root)
    colors = np.concatenate([PIXELS, 255 - PIXELS, PIXELS // 2])
    write(root, layer(root, "rgb", colors, elementClass="uint24", numChannels=3))
    check(root, colors)
    several = layer(root, "several", colors)
    for each in several["mags"]:
        each["channelIndex"] = 1
        each["axisOrder"] = {"c": 0, "x": 1, "y": 2, "z": 3}
    check(write(root, several), colors[1:2])
    write(root, {**color, "mags": color["mags"][:1]}, scale={"factor": [0.002, 0.0025, 0.04], "unit": "micrometer"})
    half = open_image(root)
    assert (half.shape, half.scale, half.unit) == ((5, 20, 25), (0.04, 0.005, 0.004), "micrometer")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    root.mkdir()
    color = layer(root, "color")
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
        write(root, *layers)
        with pytest.raises(UserError, match=said) as error:
            open_image(root)
        assert "\n" not in str(error.value)
    whole = write(root, color).joinpath("datasource-properties.json").read_text()
    for content in ("", whole[: len(whole) // 2], "[]", '{"dataLayers": 3}'):
        (root / "datasource-properties.json").write_text(content)
        with pytest.raises(UserError, match=r"datasource-properties\.json is incomplete or damaged") as error:
            open_image(root)
        assert "\n" not in str(error.value)
    write(root, color)
    (root / "color" / "1" / "c" / "0" / "2" / "0" / "0").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match="cannot read .*dataset") as error:
        open_image(root).read(*[slice(None)] * 3)
    assert "\n" not in str(error.value)
