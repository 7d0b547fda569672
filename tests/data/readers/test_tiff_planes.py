"""TIFFs that hold other planes than they describe, or were cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_autosegnet import api
from napari_autosegnet.data.images import ImageStack, open_image, open_labels
from napari_autosegnet.errors import UserError
from small_models import small_model

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 48), dtype=np.uint8)


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
