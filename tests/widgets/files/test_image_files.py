"""Image files that napari offers through the plugin, opened in a real viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
npe2 = pytest.importorskip("npe2")

from format_files import webknossos_layer, write_webknossos  # noqa: E402
from napari_autosegnet.data import array_stack  # noqa: E402
from napari_autosegnet.data.images import image_from_array, open_image  # noqa: E402
from napari_autosegnet.errors import UserError  # noqa: E402
from napari_autosegnet.widgets.files.image_files import image_file_layers, offered_endings  # noqa: E402
from napari_autosegnet.widgets.files.stack_array import StackArray  # noqa: E402
from napari_autosegnet.widgets.layers.axes import axes_of  # noqa: E402
from napari_autosegnet.widgets.layers.layer_files import file_of  # noqa: E402
from napari_autosegnet.widgets.preferences import PLUGIN  # noqa: E402
from tensor_files import write_n5, write_precomputed  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 255, (5, 40, 30), np.uint8)


def write_mrc(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    with mrcfile.new(path, pixels.astype(np.int16)) as file:
        file.voxel_size = (4.0, 4.0, 50.0)  # x, y, z
    return path


@pytest.fixture(scope="module")
def manifest() -> Any:
    return npe2.PluginManifest.from_distribution(PLUGIN)


def test_the_manifest_offers_every_ending(manifest: Any) -> None:
    (reader,) = manifest.contributions.readers
    assert set(reader.filename_patterns) == {"*.zarr", "model.json", *(f"*{ending}" for ending in offered_endings())}


def test_files_are_opened_in_a_viewer_with_scale_and_unit(
    make_napari_viewer: Any, npe2pm: Any, manifest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrc(tmp_path / "a.MRC")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=PIXELS, chunks=(2, 16, 16))
        raw.attrs["element_size_um"] = (0.05, 0.004, 0.004)
        file.create_dataset("volumes/labels", data=PIXELS.astype(np.uint64))
    (tmp_path / "bad.mrc").write_bytes((tmp_path / "a.MRC").read_bytes()[:2000])
    read: list[int] = []
    plain = array_stack.ArraySource.read

    def count(source: Any, z: slice, y: slice, x: slice) -> Any:
        read.append(z.stop - z.start)
        return plain(source, z, y, x)

    monkeypatch.setattr(array_stack.ArraySource, "read", count)
    with npe2pm.tmp_plugin(manifest=manifest):
        viewer = make_napari_viewer()
        (mrc,) = viewer.open(str(tmp_path / "a.MRC"), plugin=PLUGIN)
        assert set(read) == {1}, "more than a section was read at once"
        labels, h5 = viewer.open(str(tmp_path / "b.h5"), plugin=PLUGIN)
        with pytest.raises(UserError, match=r"bad\.mrc is shorter than its header says") as error:
            viewer.open(str(tmp_path / "bad.mrc"), plugin=PLUGIN)
    assert "\n" not in str(error.value) and len(viewer.layers) == 3
    assert (mrc.name, h5.name, labels.name) == ("a", "b volumes/raw", "b volumes/labels")
    assert tuple(mrc.scale) == (50, 4, 4) and {str(unit) for unit in mrc.units} == {"angstrom"}
    assert tuple(h5.scale) == (0.05, 0.004, 0.004) and {str(unit) for unit in h5.units} == {"micrometer"}
    for layer in (mrc, h5, labels):
        assert axes_of(layer) == "zyx"
        np.testing.assert_array_equal(np.asarray(layer.data), PIXELS)
    assert file_of(h5) == Path(f"{tmp_path}/b.h5:/volumes/raw"), "a model is applied to the file, not to a copy"
    assert file_of(mrc) == tmp_path / "a.MRC"


def test_folders_are_opened_by_what_they_hold(
    make_napari_viewer: Any, npe2pm: Any, manifest: Any, tmp_path: Path
) -> None:
    pytest.importorskip("tensorstore", reason="the extra remote is not installed")
    write_n5(tmp_path / "n5", PIXELS, resolution=[4, 5, 40], units=["nm"] * 3)
    write_precomputed(tmp_path / "precomputed", PIXELS[None])
    write_webknossos(tmp_path / "dataset", webknossos_layer(tmp_path / "dataset", "color", PIXELS[None]))
    with npe2pm.tmp_plugin(manifest=manifest):
        viewer = make_napari_viewer()
        for name in ("n5", "precomputed", "dataset"):
            (layer,) = viewer.open(str(tmp_path / name), plugin=PLUGIN)
            assert (layer.name, axes_of(layer), tuple(layer.scale)) == (name, "zyx", (40, 5, 4))
            assert file_of(layer) == tmp_path / name
            np.testing.assert_array_equal(np.asarray(layer.data), PIXELS)
        (tmp_path / "dataset" / "datasource-properties.json").write_text('{"dataLayers": [{"name": 3}]}')
        with pytest.raises(UserError, match="incomplete or damaged") as error:
            viewer.open(str(tmp_path / "dataset"), plugin=PLUGIN)
    assert "\n" not in str(error.value)


def test_series_channels_and_colors(tmp_path: Path) -> None:
    ((data, about, _),), _ = image_file_layers(write_mrc(tmp_path / "series.mrc", np.stack([PIXELS, PIXELS + 1])))
    assert about["axis_labels"] == ("time", "z", "y", "x") and about["scale"] == (1, 50, 4, 4)
    np.testing.assert_array_equal(data[1, 2], PIXELS[2] + 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("channels", data=PIXELS[:2]).attrs["axes"] = "cyx"
        file.create_dataset("colors", data=np.moveaxis(PIXELS[:3], 0, -1))
        file.create_dataset("unclear", data=np.zeros((2, 2, 5, 5, 5)))
    (*channels, colors), (note,) = image_file_layers(tmp_path / "a.h5")
    assert [about["name"] for _, about, _ in channels] == ["a channels 0", "a channels 1"]
    for number, (data, _, _) in enumerate(channels):
        np.testing.assert_array_equal(np.asarray(data), PIXELS[number])
    assert colors[1]["rgb"] and colors[0].shape == (40, 30, 3)
    np.testing.assert_array_equal(np.asarray(colors[0]), np.moveaxis(PIXELS[:3], 0, -1))
    assert "unclear has 5 axes without names" in note
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in range(9):
            file.create_dataset(str(number), data=PIXELS[0])
    with pytest.raises(UserError, match="holds 9 datasets; give one of"):
        image_file_layers(tmp_path / "many.h5")


def test_the_dock_asks_for_axes_without_names(
    make_napari_viewer: Any, npe2pm: Any, manifest: Any, tmp_path: Path, qtbot: Any
) -> None:
    from napari_autosegnet.widgets.dock import AutoSegNetDock

    pixels = np.stack([PIXELS, PIXELS + 1], axis=1)  # z, c, y, x
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=pixels).attrs["element_size_um"] = (0.05, 0.004, 0.008)
        file.create_dataset("last", data=np.moveaxis(pixels, 1, -1))
    with npe2pm.tmp_plugin(manifest=manifest):
        viewer = make_napari_viewer()
        layer, last = viewer.open(str(tmp_path / "a.h5"), plugin=PLUGIN)
    dock = AutoSegNetDock(viewer)
    qtbot.addWidget(dock)
    question = dock.axes_question
    for asked, axes, words in ((last, "zyxc", "channels last"), (layer, "zcyx", "5 sections x 2 channels")):
        qtbot.waitUntil(lambda asked=asked: f"'{asked.name}' has" in question.text.text(), timeout=5000)
        (button,) = (each for name, each in question.buttons.items() if name == axes)
        assert words in button.text()
        button.click()
        assert axes_of(asked) == "czyx"
        np.testing.assert_array_equal(np.asarray(asked.data), np.moveaxis(pixels, 1, 0))
    assert question.isHidden() and tuple(layer.scale) == (1, 0.05, 0.004, 0.008)
    assert [str(unit) for unit in layer.units] == ["pixel", *["micrometer"] * 3]


def test_a_stack_is_indexed_like_its_pixels_and_no_more_is_read(tmp_path: Path) -> None:
    series = np.stack([PIXELS, PIXELS[::-1]])[..., None] + np.arange(3, dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=series).attrs["axes"] = "tzyxc"
    lazy = StackArray(open_image(tmp_path / "a.h5", time=0), "tzyxc")
    assert (lazy.shape, lazy.ndim, lazy.size) == (series.shape, 5, series.size)
    for index in (
        np.s_[1, 2],
        np.s_[...],
        np.s_[-1, ::-2, 3:9:2, -1],
        np.s_[0, 1:1],
        np.s_[:0],
        np.s_[..., 5, ::3, 1],
        np.s_[0, [3, 0]],
        np.s_[np.array([1, 0]), np.array([2, 4]), 3],
        np.s_[1, PIXELS[:, 0, 0] > 100],
    ):
        np.testing.assert_array_equal(lazy[index], series[index])
    with pytest.raises(IndexError):
        lazy[0, 5]
    read: list[tuple[slice, ...]] = []
    stack = image_from_array(PIXELS)
    stack.read = lambda *box: read.append(box) or PIXELS[None][:, *box]  # type: ignore[method-assign, func-returns-value]
    np.testing.assert_array_equal(StackArray(stack, "zyx")[:, 7], PIXELS[:, 7])
    assert read == [(slice(0, 5), slice(7, 8), slice(0, 30))], "from the side only lines are needed"
