"""What the numbers in a TIFF stand for, and what is told of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet import api
from napari_autosegnet.data.images import ImageStack, open_image, open_labels
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note
from napari_autosegnet.settings import NetworkSettings, PredictSettings, TrainSettings

ALL = slice(None)
#: What Fiji writes of a signed 16-bit image, which it stores as unsigned numbers.
SIGNED = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 48), dtype=np.uint8)


def as_stored(signed: np.ndarray) -> np.ndarray:
    return (signed.astype(np.int32) + 32768).astype(np.uint16)


@pytest.mark.parametrize("opened", [open_image, open_labels])
def test_signed_numbers_of_fiji_are_read_as_fiji_tells_them(tmp_path: Path, opened: Any) -> None:
    signed = np.arange(-60, 60, dtype=np.int16).reshape(2, 6, 10)
    tifffile.imwrite(tmp_path / "a.tif", as_stored(signed), imagej=True, metadata={"axes": "ZYX", **SIGNED})
    stack = opened(tmp_path / "a.tif")
    assert stack.dtype == np.int16
    np.testing.assert_array_equal(whole(stack)[0], signed)
    np.testing.assert_array_equal(stack.section(1)[0, 2:4], signed[1, 2:4])
    assert len(stack.notes) == 1 and "calibration" in stack.notes[0]


def test_signed_numbers_that_are_stored_as_such_are_not_calibrated_twice(tmp_path: Path) -> None:
    signed = np.arange(-60, 60, dtype=np.int16).reshape(2, 6, 10)
    tifffile.imwrite(tmp_path / "a.tif", signed, imagej=True, metadata={"axes": "ZYX", **SIGNED})
    stack = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(whole(stack)[0], signed)
    assert stack.notes == ()


@pytest.mark.parametrize(
    ("dtype", "calibration", "expected"),
    [
        (np.uint8, {"cf": 0, "c0": 255.0, "c1": -1.0}, lambda x: (255 - x).astype(np.uint8)),
        (np.uint8, {"cf": 0, "c0": 0.5, "c1": 0.25}, lambda x: (0.5 + 0.25 * x).astype(np.float32)),
        (np.uint16, {"cf": 1, "c0": 1.0, "c1": 2.0, "c2": 3.0}, lambda x: (1 + 2 * x + 3 * x * x).astype(np.float64)),
        (np.uint8, {"cf": 0, "c0": -10.0, "c1": 1.0, "zeroclip": True}, lambda x: np.maximum(x - 10, 0)),
        (np.uint16, {"cf": 20, "c0": 5.0, "c1": 1.0}, lambda x: x),
        (np.uint16, {"cf": 0, "c0": 0.0, "c1": 1.0}, lambda x: x),
        (np.float32, {"cf": 0, "c0": 5.0, "c1": 1.0}, lambda x: x),  # ImageJ calibrates 8 and 16 bits
    ],
    ids=["inverse", "optical density", "parabola", "clipped", "none", "identity", "32 bits"],
)
def test_calibration_functions(tmp_path: Path, dtype: Any, calibration: dict[str, Any], expected: Any) -> None:
    stored = np.random.default_rng(0).integers(0, 200, (2, 9, 10)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "ZYX", "vunit": "OD", **calibration})
    wanted = expected(stored.astype(np.float32 if dtype == np.float32 else np.int64))
    np.testing.assert_array_equal(whole(open_image(tmp_path / "a.tif"))[0], wanted)


def test_calibrated_numbers_stay_whole_where_they_are(tmp_path: Path) -> None:
    stored = np.zeros((2, 9, 10), np.uint8)
    for coefficients, kind in (((-5.0, 1.0), np.int16), ((0.0, 2.0), np.uint16), ((0.0, 0.5), np.float32)):
        about = {"axes": "ZYX", "cf": 0, "vunit": "x", "c0": coefficients[0], "c1": coefficients[1]}
        tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata=about)
        assert open_image(tmp_path / "a.tif").dtype == kind


def test_a_calibration_that_is_no_polynomial_is_refused(tmp_path: Path) -> None:
    about = {"axes": "ZYX", "cf": 7, "c0": 1.0, "c1": 2.0, "c2": 3.0, "c3": 4.0, "vunit": "OD"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 9, 10), np.uint16), imagej=True, metadata=about)
    with pytest.raises(UserError, match=r"a\.tif is calibrated by ImageJ's function Rodbard, which is not applied"):
        open_image(tmp_path / "a.tif")
    for coefficients in ("c0=-1,5\nc1=1\n", "c0=nan\nc1=1\n", "c0=1\nc1=x\n"):
        text = f"ImageJ=1.54f\ncf=0\n{coefficients}"
        tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 10), np.uint16), description=text, metadata=None)
        with pytest.raises(UserError, match=r"the calibration in .*b\.tif is damaged; save it again with ImageJ"):
            open_image(tmp_path / "b.tif")


@pytest.mark.parametrize("compression", [None, "group3", "group4", "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_a_min_is_white_mask_is_that_of_a_png(tmp_path: Path, compression: str | None) -> None:
    mask = np.random.default_rng(0).random((40, 50)) > 0.5
    Image.fromarray(mask).save(tmp_path / "w.tif", compression=compression, tiffinfo={262: 0})
    Image.fromarray(mask).save(tmp_path / "w.png")
    for opened in (open_image, open_labels):
        found, png = opened(tmp_path / "w.tif"), opened(tmp_path / "w.png")
        assert found.dtype == png.dtype
        np.testing.assert_array_equal(found.section(0), png.section(0))
        assert "min-is-white" in found.notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib", "tile": (16, 32)}, {"byteorder": ">"}], ids=str)
def test_min_is_white_images_are_inverted(tmp_path: Path, dtype: Any, how: dict[str, Any]) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (3, 40, 50), dtype=dtype, endpoint=True)
    white = (limits.max + limits.min - pixels.astype(np.int64)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", white, photometric="miniswhite", **how)
    stack = open_image(tmp_path / "a.tif")
    assert stack.dtype == dtype
    np.testing.assert_array_equal(whole(stack)[0], pixels)
    np.testing.assert_array_equal(stack.read(slice(1, 2), slice(3, 9), slice(5, 6))[0], pixels[1:2, 3:9, 5:6])
    if dtype == np.uint8:
        with Image.open(tmp_path / "a.tif") as picture:
            np.testing.assert_array_equal(stack.section(0)[0], np.asarray(picture))


def test_pages_of_many_sizes_are_inverted_too(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for side in (20, 30):
            writer.write(np.full((side, side), side, np.uint8), photometric="miniswhite")
    stack = open_image(tmp_path / "a.tif")
    assert [int(stack.section(index).max()) for index in range(2)] == [235, 225]


def test_imagej_tells_its_numbers_whatever_its_lookup_table_shows(tmp_path: Path, volume: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, photometric="miniswhite", metadata={"axes": "ZYX"})
    stack = open_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(whole(stack)[0], volume)
    assert "inverting lookup table" in stack.notes[0]


def test_a_photometric_tag_that_is_missing_inverts_nothing(tmp_path: Path, volume: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume[0], photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    place = content.index(struct.pack("<HHI", 262, 3, 1))
    content[place : place + 2] = struct.pack("<H", 263)  # the tag Threshholding, which means nothing here
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").section(0)[0], volume[0])


@pytest.mark.parametrize("kind", ["separated", "cielab", "logluv"])
def test_colors_that_are_no_rgb_are_refused(tmp_path: Path, kind: Any) -> None:
    samples = 4 if kind == "separated" else 3
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30, samples), np.uint8), photometric=kind)
    with pytest.raises(UserError, match=r"the colors of .*a\.tif are .*; save it as gray or RGB"):
        open_image(tmp_path / "a.tif")


def test_an_orientation_is_told(tmp_path: Path, volume: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", volume[0], extratags=[(274, 3, 1, 4, True)])
    stack = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(stack.section(0)[0], volume[0])
    assert "orientation tag (4)" in stack.notes[0]


def test_what_changes_values_is_told_by_every_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 48, 48), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", 255 - pixels, photometric="miniswhite")
    marks = np.where(pixels > 127, 255, 0).astype(np.int16)
    tifffile.imwrite(tmp_path / "labels.tif", as_stored(marks), imagej=True, metadata={"axes": "ZYX", **SIGNED})
    told: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Note):
            told.append(event.text)

    settings = TrainSettings(
        epochs=1, steps_per_epoch=1, batch_size=2, patch_size=32, network=NetworkSettings(base_width=4, max_width=8)
    )
    image, labels = tmp_path / "image.tif", tmp_path / "labels.tif"
    run = tmp_path / "run"
    api.train(
        run,
        images=[image],
        labels=[labels],
        classes="0:dark,255:bright",
        network="plain",
        settings=settings,
        report=report,
    )
    assert [line for line in told if "min-is-white" in line and "image.tif" in line]
    assert [line for line in told if "calibration" in line and "labels.tif" in line]
    told.clear()
    api.predict(run / "model", image, tmp_path / "out.tif", settings=PredictSettings(tile=32), report=report)
    assert len([line for line in told if "min-is-white" in line]) == 1
    told.clear()
    api.evaluate(model=run / "model", images=[image], labels=[labels], classes="0:dark,255:bright", report=report)
    assert len([line for line in told if "calibration" in line]) == 1
