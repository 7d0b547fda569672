"""What a TIFF says of its pixels, and what it does where that is wrong, changes values, or can be read in two ways."""

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
from small_models import small_model

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


# ---------------------------------------------------------------- calibration


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


# ---------------------------------------------------------------- min-is-white


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


# ---------------------------------------------------------------- described and present planes


def described(path: Path, planes: np.ndarray, description: str, **how: Any) -> Path:
    """A file of these planes whose first page says something else."""
    tifffile.imwrite(path, planes, description=description, metadata=None, photometric="minisblack", **how)
    return path


def ome_of(planes: np.ndarray, folder: Path) -> str:
    tifffile.imwrite(folder / "whole.ome.tif", planes, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(folder / "whole.ome.tif") as file:
        assert file.ome_metadata is not None
        return file.ome_metadata


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("planes", [10, 4])
@pytest.mark.parametrize("also_in_the_data", [False, True])
def test_ome_xml_that_names_other_planes_than_there_are(
    tmp_path: Path, volume: np.ndarray, compression: Any, planes: int, also_in_the_data: bool
) -> None:
    text = ome_of(volume[:6], tmp_path).replace('SizeZ="6"', f'SizeZ="{planes}"')
    if also_in_the_data:
        text = text.replace('PlaneCount="6"', f'PlaneCount="{planes}"')
    path = described(tmp_path / "a.ome.tif", volume[:6], text, compression=compression)
    for opened in (open_image, open_labels):
        with pytest.raises(UserError) as error:
            opened(path)
        said = str(error.value)
        if planes == 10:
            assert said.startswith(f"{path} describes 10 planes, of which 4 are not in it (counted from 0: 6, 7, 8, 9)")
        else:
            assert said.startswith(f"{path} describes 4 planes and holds 6")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "description",
    [
        "ImageJ=1.54f\nimages=10\nslices=10\n",
        "ImageJ=1.54f\nimages=10\n",
        "ImageJ=1.54f\nimages=4\nslices=4\n",
        "ImageJ=1.54f\nimages=4\n",
        "ImageJ=1.54f\nimages=6\nslices=3\n",
        '{"shape": [10, 32, 48]}',
        '{"shape": [10, 32, 48], "axes": "ZYX"}',
        '{"shape": [6, 64, 96]}',
    ],
)
def test_descriptions_of_other_planes_than_there_are(
    tmp_path: Path, volume: np.ndarray, compression: Any, description: str
) -> None:
    path = described(tmp_path / "a.tif", volume[:6], description, compression=compression)
    with pytest.raises(UserError, match=r"a\.tif (describes .* and holds 6|does not fit its pages).*; copy it again"):
        open_image(path)


def test_planes_behind_those_that_tifffile_describes_are_read_and_told(tmp_path: Path, volume: np.ndarray) -> None:
    path = described(tmp_path / "a.tif", volume[:6], '{"shape": [4, 32, 48]}', compression="zlib")
    stack = open_image(path)
    np.testing.assert_array_equal(whole(stack)[0], volume[:6])
    assert "holds other planes than its writer describes" in stack.notes[0]


def test_an_incomplete_time_series_is_read_as_far_as_it_goes(tmp_path: Path, volume: np.ndarray) -> None:
    series = volume[:8].reshape(2, 4, 32, 48)
    tifffile.imwrite(tmp_path / "whole.ome.tif", series, metadata={"axes": "TZYX"})
    with tifffile.TiffFile(tmp_path / "whole.ome.tif") as file:
        text = file.ome_metadata
    assert text is not None
    path = described(tmp_path / "a.ome.tif", volume[:6], text, compression="zlib")
    np.testing.assert_array_equal(whole(open_image(path, time=0))[0], series[0])
    with pytest.raises(UserError, match=r"describes 4 planes, of which 2 are not in it \(counted from 0: 6, 7\)"):
        open_image(path, time=1)


def test_a_page_without_pixels_is_missing(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume[:3], compression="zlib", photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[1].aspage()
        page.tags["StripByteCounts"].overwrite(0)
    with pytest.raises(UserError, match=r"describes 3 planes, of which 1 are not in it \(counted from 0: 1\)"):
        open_image(path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    "how",
    [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"imagej": True}, {"bigtiff": True}, {"ome": True}],
    ids=str,
)
def test_a_file_that_was_cut_off_is_refused_at_once(
    tmp_path: Path, volume: np.ndarray, share: float, how: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    for planes in (volume, volume[0]):
        tifffile.imwrite(path, planes, **({"photometric": "minisblack"} | how))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match=r"a\.tif.*; copy (it|the file) again"):
            open_image(path)


def test_stacks_that_imagej_writes_behind_one_page(tmp_path: Path, volume: np.ndarray) -> None:
    """As Fiji does beyond 4 GiB: a single page, and the planes one after the other."""
    path = described(tmp_path / "a.tif", volume[0], "ImageJ=1.54f\nimages=10\nslices=10\n", byteorder=">")
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].dataoffsets[0] + volume[0].nbytes == path.stat().st_size
    with open(path, "ab") as handle:
        handle.write(volume[1:].tobytes())
    np.testing.assert_array_equal(whole(open_image(path))[0], volume)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="does not fit its pages"):
        open_image(path)


def test_ill_formed_and_incomplete_ome_xml(tmp_path: Path, volume: np.ndarray) -> None:
    text = ome_of(volume, tmp_path)
    for wrong, words in (
        (text.replace("<Pixels", "<Pixe&s"), "the OME-XML in .* is ill-formed"),
        (text[: len(text) // 2], "the OME-XML in .* is ill-formed"),
        (text.replace("DimensionOrder", "DimensionXrder"), "the OME-XML in .* is wrong or incomplete"),
        (text.replace('SizeX="48"', 'SizeX="many"'), "the OME-XML in .* is wrong or incomplete"),
        (text.replace('SizeX="48"', 'SizeX="96"'), "the OME-XML in .* does not fit its pages"),
    ):
        path = described(tmp_path / "a.ome.tif", volume, wrong)
        with pytest.raises(UserError, match=words):
            open_image(path)


def test_no_black_section_gets_a_class(tmp_path: Path, volume: np.ndarray) -> None:
    """From end to end: a prediction on a file with missing planes ends in a line, and writes nothing."""
    text = ome_of(volume[:6], tmp_path).replace('SizeZ="6"', 'SizeZ="10"')
    path = described(tmp_path / "a.ome.tif", volume[:6], text)
    small_model().save(tmp_path / "model")
    with pytest.raises(UserError, match="4 are not in it"):
        api.predict(tmp_path / "model", path, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


# ---------------------------------------------------------------- sections or colors


@pytest.mark.parametrize("count", [3, 4])
def test_planes_that_may_be_sections_or_colors_are_asked_for(tmp_path: Path, volume: np.ndarray, count: int) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(DeprecationWarning, match="stored as RGB"):
        tifffile.imwrite(path, volume[:count])
    with pytest.raises(UserError, match="may be sections or colors.*--axes zyx for sections or --axes cyx for colors"):
        open_image(path)
    sections = open_image(path, axes="zyx")
    assert (sections.sections, sections.channels) == (count, 1)
    np.testing.assert_array_equal(whole(sections)[0], volume[:count])
    colors = open_image(path, axes="cyx")
    assert (colors.sections, colors.channels, colors.is_2d) == (1, 3, True)
    np.testing.assert_array_equal(colors.section(0), volume[:3])
    # Class numbers have no colors, and a file of a folder is one section.
    np.testing.assert_array_equal(whole(open_labels(path))[0], volume[:count])
    assert open_image(tmp_path).channels == 3


def test_what_says_its_axes_is_not_asked(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(DeprecationWarning):
        tifffile.imwrite(path, volume[:4], metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(whole(open_image(path))[0], volume[:4])
    with pytest.warns(DeprecationWarning):
        tifffile.imwrite(path, volume[:3], metadata={"axes": "CYX"})
    assert open_image(path).channels == 3
    tifffile.imwrite(path, volume[:3], photometric="rgb", planarconfig="separate", metadata=None)
    assert open_image(path).channels == 3
    tifffile.imwrite(path, np.moveaxis(volume[:3], 0, -1))
    np.testing.assert_array_equal(open_image(path).section(0), volume[:3])


def test_axes_that_are_given_win_over_those_of_the_file(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume, imagej=True)  # tifffile calls the first axis of an ImageJ file channels
    assert open_image(path).channels == 10
    stack = open_image(path, axes="ZYX")
    assert stack.selection == {"axes": "zyx"}
    np.testing.assert_array_equal(whole(stack)[0], volume)
    np.testing.assert_array_equal(whole(open_labels(path, axes="zyx"))[0], volume)
    for wrong in ("zy", "zzyx", "zxq", "tzyx"):
        with pytest.raises(UserError, match=r"a\.tif has 3 axes \(10 x 32 x 48\), not '"):
            open_image(path, axes=wrong)
    tifffile.imwrite(path, volume.reshape(2, 5, 32, 48), photometric="minisblack")
    with pytest.raises(UserError, match="has the axes QQYX.*--axes tczyx"):
        open_image(path)
    np.testing.assert_array_equal(whole(open_image(path, axes="czyx")), volume.reshape(2, 5, 32, 48))
    np.testing.assert_array_equal(whole(open_image(path, axes="tzyx", time=1))[0], volume[5:])


# ---------------------------------------------------------------- what is told


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
