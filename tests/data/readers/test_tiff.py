"""TIFF files of every kind, lazily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_autosegnet.data.images import (
    ImageStack,
    open_image,
    open_labels,
)
from napari_autosegnet.errors import UserError

ALL = slice(None)


def whole(stack: ImageStack) -> np.ndarray:
    return stack.read(ALL, ALL, ALL)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 70, 90), dtype=np.uint8)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (32, 16)},
        {"compression": "zlib", "rowsperstrip": 7},
        {"tile": (16, 32)},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=lambda how: "-".join(how) or "plain",
)
def test_multi_page_tiff_is_a_stack(tmp_path: Path, volume: np.ndarray, how: dict[str, Any]) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", **how)
    stack = open_image(path)
    assert (stack.name, stack.path, stack.shape, stack.channels) == ("stack", path, (5, 70, 90), 1)
    assert not stack.is_2d
    assert stack.uniform and stack.pyramid_levels == 1
    assert stack.chunks == ((1, *how["tile"]) if "tile" in how else None)
    np.testing.assert_array_equal(whole(stack)[0], volume)
    np.testing.assert_array_equal(stack.section(3)[0], volume[3])


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, ImageStack]:
    array = np.random.default_rng(1).integers(0, 2**16, (4, 53, 75, 3), dtype=np.uint16)
    path = tmp_path_factory.mktemp("tiled") / "rgb.tif"
    tifffile.imwrite(path, array, photometric="rgb", tile=(16, 32), compression="zlib", predictor=True)
    return array, open_image(path)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.tuples(st.integers(0, size), st.integers(0, size)) for size in (4, 53, 75)]))
def test_any_region_of_a_tiled_rgb_tiff(
    tiled: tuple[np.ndarray, ImageStack], bounds: tuple[tuple[int, int], ...]
) -> None:
    array, stack = tiled
    cut = [slice(*sorted(bound)) for bound in bounds]
    found = stack.read(*cut)
    np.testing.assert_array_equal(found, np.moveaxis(array[tuple(cut)], -1, 0))
    assert found.dtype == np.uint16


def test_only_the_tiles_asked_for_are_decoded(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "tiled.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", tile=(16, 16), compression="zlib")
    stack = open_image(path)
    pages = stack.source.array  # type: ignore[attr-defined]
    stack.read(slice(2, 3), slice(0, 16), slice(16, 32))
    assert set(pages.segments) == {(2, 1)}


def test_planar_and_transparent_samples(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    planar = np.ascontiguousarray(np.moveaxis(rgba[..., :3], -1, 0))
    how: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "planar.tif", planar, metadata=None, **how)
    for name in ("rgba.tif", "planar.tif"):
        stack = open_image(tmp_path / name)
        assert (stack.channels, stack.is_2d, stack.sections) == (3, True, 1)
        np.testing.assert_array_equal(stack.section(0), planar)
        np.testing.assert_array_equal(stack.read(ALL, slice(5, 20), slice(7, 9))[:, 0], planar[:, 5:20, 7:9])


@pytest.mark.parametrize("kind", ["RGB", "gray", "several pages", "pages of two sizes"])
def test_strokes_that_were_erased_to_transparent_are_no_labels(kind: str, tmp_path: Path) -> None:
    """Drawing programs keep the color of what is erased, beneath the transparency."""
    pixels = np.zeros((16, 16, 2 if kind == "gray" else 4), np.uint8)
    pixels[:8, :, 0], pixels[:8, :, -1] = 200, 255
    pixels[8:12, :, 0], pixels[8:12, :, -1] = 90, 255

    def write(path: Path) -> Path:
        how: dict[str, Any] = {
            "photometric": "minisblack" if kind == "gray" else "rgb",
            "planarconfig": "contig",
            "extrasamples": ["unassalpha"],
            "metadata": None,
        }
        sections = {"several pages": [pixels, pixels], "pages of two sizes": [pixels[:, :8], pixels]}
        with tifffile.TiffWriter(path) as file:
            for section in sections.get(kind, [pixels]):
                file.write(np.ascontiguousarray(section), **how)
        return path

    drawn = open_labels(write(tmp_path / "drawn.tif"))
    last = drawn.sections - 1
    assert drawn.channels == pixels.shape[-1] - 1 and sorted(np.unique(drawn.section(last)[0])) == [0, 90, 200]
    pixels[4:6, :, -1] = 0
    erased = write(tmp_path / "erased.tif")
    color = "#c8" if kind == "gray" else "#c80000"
    with pytest.raises(UserError, match=rf"erased\.tif has transparent pixels of the color {color} that other pixels"):
        open_labels(erased).section(last)
    # Of an image the colors are what it is.
    assert (open_image(erased).section(last)[0, :8] == 200).all()


def test_a_time_series_without_sections_can_be_read_as_sections(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 2, 20, 30), dtype=np.uint8)
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(path, array, metadata={"axes": "TCYX"})
    with pytest.raises(UserError, match="--time .0 to 2., or take all of them as sections with --axes zcyx$"):
        open_image(path)
    assert np.array_equal(whole(open_image(path, axes="zcyx")), array.swapaxes(0, 1))


def test_ome_tiff_axes_scale_and_time(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 2**16, (2, 3, 4, 20, 30), dtype=np.uint16)
    path = tmp_path / "movie.ome.tif"
    metadata = {
        "axes": "TZCYX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 5.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 50.0,
        "PhysicalSizeZUnit": "nm",
    }
    tifffile.imwrite(path, array, metadata=metadata, compression="zlib")
    with pytest.raises(UserError, match=r"2 time points; choose one with --time \(0 to 1\)$"):
        open_image(path)
    with pytest.raises(UserError, match="0 to 1, not 2"):
        open_image(path, time=2)
    stack = open_image(path, time=1)
    assert (stack.name, stack.channels, stack.shape) == ("movie", 4, (3, 20, 30))
    assert (stack.scale, stack.unit) == ((50.0, 5.0, 4.0), "nanometer")
    np.testing.assert_array_equal(whole(stack), array[1].transpose(1, 0, 2, 3))


@pytest.mark.parametrize(
    ("sizes", "expected", "unit"),
    [
        ({"X": (4.0, "nm"), "Y": (4.0, "nm"), "Z": (0.05, "µm")}, (50.0, 4.0, 4.0), "nanometer"),
        ({"X": (0.4, None), "Y": (400.0, "nm"), "Z": (0.002, "mm")}, (2.0, 0.4, 0.4), "micrometer"),
        ({"X": (400.0, "nm"), "Y": (400.0, "nm")}, (400.0, 400.0, 400.0), "nanometer"),
        ({"X": (4.0, "nm"), "Z": (40.0, "nm")}, (40.0, 4.0, 4.0), "nanometer"),
        ({"Y": (5.0, "Å"), "Z": (2.0, "nm")}, (20.0, 5.0, 5.0), "angstrom"),
        ({"X": (2.0, "pixel"), "Y": (2.0, "pixel"), "Z": (0.05, "µm")}, (2.0, 2.0, 2.0), None),
        ({"Z": (50.0, "nm")}, (1.0, 1.0, 1.0), None),
        ({}, (1.0, 1.0, 1.0), None),
    ],
)
def test_sizes_of_an_ome_tiff_come_in_one_unit(
    tmp_path: Path,
    volume: np.ndarray,
    sizes: dict[str, tuple[float, str | None]],
    expected: tuple[float, float, float],
    unit: str | None,
) -> None:
    about = {f"PhysicalSize{axis}": size for axis, (size, _) in sizes.items()}
    units = {f"PhysicalSize{axis}Unit": name for axis, (_, name) in sizes.items() if name}
    tifffile.imwrite(tmp_path / "a.ome.tif", volume, metadata={"axes": "ZYX", **about, **units})
    stack = open_image(tmp_path / "a.ome.tif")
    assert (stack.scale, stack.unit) == (pytest.approx(expected, rel=1e-12), unit)


def test_an_ome_tiff_of_several_images_is_refused(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(volume, metadata={"axes": "ZYX", "Name": "before"})
        writer.write(volume[:, :50], metadata={"axes": "ZYX", "Name": "after"})
    with pytest.raises(UserError, match=r"holds 2 images \(before, after\); save the one that you want"):
        open_image(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("first", [True, False])
def test_pictures_that_a_slide_scanner_adds_are_no_second_image(
    tmp_path: Path, volume: np.ndarray, compression: Any, first: bool
) -> None:
    path = tmp_path / "slide.ome.tif"
    images = [("label image", volume[0, :20]), ("Slide 7", volume[1]), ("macro", volume[2]), ("Thumbnail", volume[3])]
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, array in images[first:]:
            about = {"axes": "YX", "Name": name, "PhysicalSizeX": 0.5 if name == "Slide 7" else 9.0}
            writer.write(array, metadata=about, compression=compression)
    stack = open_image(path)
    np.testing.assert_array_equal(stack.section(0)[0], volume[1])
    assert (stack.scale[2], stack.unit) == (0.5, "micrometer")


def test_imagej_scale(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(
        path, volume, imagej=True, resolution=(4.0, 2.0), metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    )
    stack = open_image(path)
    assert (stack.scale, stack.unit) == ((3.0, 0.5, 0.25), "micrometer")
    np.testing.assert_array_equal(whole(stack)[0], volume)
    tifffile.imwrite(path, volume, imagej=True, resolution=(4.0, 4.0), metadata={"axes": "ZYX", "unit": "um"})
    assert open_image(path).scale == (0.25, 0.25, 0.25)


def test_ome_tiff_pyramid_reads_level_0(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(array, subifds=1, tile=(32, 32), metadata={"axes": "YX"})
        writer.write(array[::2, ::2], subfiletype=1, tile=(32, 32))
    stack = open_image(path)
    assert (stack.pyramid_levels, stack.is_2d, stack.shape) == (2, True, (1, 64, 64))
    np.testing.assert_array_equal(stack.section(0)[0], array)


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tif"
    sections = [np.full((10 + i, 20 - i), i, np.uint8) for i in range(3)]
    with tifffile.TiffWriter(path) as writer:
        for section in sections:
            writer.write(section, photometric="minisblack")
    stack = open_image(path)
    assert not stack.uniform and stack.sections == 3 and not stack.is_2d
    assert stack.section_shape(2) == (12, 18)
    for index, section in enumerate(sections):
        np.testing.assert_array_equal(stack.section(index)[0], section)
    with pytest.raises(UserError, match="differ in size"):
        _ = stack.shape
    with pytest.raises(UserError, match="differ in size"):
        whole(stack)


def test_truncated_tiff_is_named(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", compression="zlib")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.tif ends early"):
        open_image(path)


def test_several_stacks_in_one_tiff_are_refused(tmp_path: Path, volume: np.ndarray) -> None:
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(volume, photometric="minisblack")
        writer.write(volume[:, :9], photometric="minisblack")
    with pytest.raises(UserError, match="save each in a file of its own"):
        open_image(path)


# ---------------------------------------------------------------- OME-TIFF of several files


def ome_xml(images: list[str], identity: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{identity}">{"".join(images)}</OME>'
    )


def ome_image(planes: np.ndarray, files: list[str], *, name: str = "image", axis: str = "Z", about: str = "") -> str:
    """An image of which each plane along an axis is the first page of a file."""
    places = "".join(
        f'<TiffData First{axis}="{number}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{file}">urn:uuid:{file}</UUID></TiffData>'
        for number, file in enumerate(files)
    )
    sizes = " ".join(f'Size{one}="{len(files) if one == axis else 1}"' for one in "ZCT")
    channels = "".join(f'<Channel ID="Channel:0:{i}"/>' for i in range(len(files) if axis == "C" else 1))
    return (
        f'<Image ID="Image:{name}" Name="{name}">'
        f'<Pixels ID="Pixels:{name}" DimensionOrder="XYZCT" Type="{planes.dtype}" '
        f'SizeX="{planes.shape[2]}" SizeY="{planes.shape[1]}" {sizes} {about}>{channels}{places}</Pixels></Image>'
    )


def write_set(folder: Path, planes: np.ndarray, axis: str = "Z", **how: Any) -> list[Path]:
    """A plane per file, each with the description of all."""
    files = [folder / f"plane{number}.ome.tif" for number in range(len(planes))]
    image = ome_image(planes, [file.name for file in files], axis=axis)
    for plane, file in zip(planes, files, strict=True):
        text = ome_xml([image], f"urn:uuid:{file.name}")
        tifffile.imwrite(file, plane, description=text, metadata=None, photometric="minisblack", **how)
    return files


KINDS_OF_FILE: list[dict[str, Any]] = [
    {},
    {"compression": "zlib", "predictor": True},
    {"compression": "zlib", "tile": (16, 32)},
    {"bigtiff": True, "byteorder": ">"},
]


@pytest.mark.parametrize("how", KINDS_OF_FILE, ids=lambda how: "-".join(how) or "plain")
@pytest.mark.parametrize("axis", ["Z", "C"])
def test_every_plane_of_a_set_comes_from_its_own_file(
    tmp_path: Path, volume: np.ndarray, how: dict[str, Any], axis: str
) -> None:
    files = write_set(tmp_path, volume, axis, **how)
    expected = volume[np.newaxis] if axis == "Z" else volume[:, np.newaxis]
    for file in (files[0], files[3]):
        stack = open_image(file)
        np.testing.assert_array_equal(whole(stack), expected)
        cut = slice(1, 4), slice(3, 40), slice(50, 61)
        np.testing.assert_array_equal(stack.read(*cut), expected[:, cut[0], cut[1], cut[2]])
        np.testing.assert_array_equal(stack.section(stack.sections - 1), expected[:, -1])


def test_the_files_of_a_set_may_be_compressed_in_ways_of_their_own(tmp_path: Path, volume: np.ndarray) -> None:
    files = write_set(tmp_path, volume)
    for number, how in enumerate(KINDS_OF_FILE):
        with tifffile.TiffFile(files[number]) as file:
            text = file.ome_metadata
        tifffile.imwrite(files[number], volume[number], description=text, metadata=None, **how)
    np.testing.assert_array_equal(whole(open_image(files[2]))[0], volume)


def test_a_missing_or_damaged_file_of_a_set_is_named(tmp_path: Path, volume: np.ndarray) -> None:
    files = write_set(tmp_path, volume, compression="zlib")
    content = files[2].read_bytes()
    files[2].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"plane2\.ome\.tif, which .*plane0\.ome\.tif needs, is cut off"):
        whole(open_image(files[0]))
    files[2].write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"plane2\.ome\.tif, which .*plane0\.ome\.tif needs"):
        open_image(files[0])
    files[2].unlink()
    files[3].unlink()
    with pytest.raises(UserError) as error:
        open_image(files[0])
    assert str(error.value) == (
        f"{files[0]} is one of 5 files of an image, of which plane2.ome.tif (and 1 more) is missing; "
        "put all of them into one folder"
    )


def test_a_renamed_copy_of_a_single_file_is_read(tmp_path: Path, volume: np.ndarray) -> None:
    """Its description still has the old name, or even another file's."""
    for identity in ("urn:uuid:old.ome.tif", "urn:uuid:other"):
        text = ome_xml([ome_image(volume[:1], ["old.ome.tif"])], identity)
        tifffile.imwrite(tmp_path / "new.ome.tif", volume[0], description=text, metadata=None)
        np.testing.assert_array_equal(whole(open_image(tmp_path / "new.ome.tif"))[0], volume[:1])


def test_a_set_is_no_folder_of_sections(tmp_path: Path, volume: np.ndarray) -> None:
    write_set(tmp_path, volume, "C")
    with pytest.raises(UserError, match="is one of 5 files of an OME-TIFF; give it, not its folder"):
        open_image(tmp_path)


def test_a_position_of_many_is_read_from_its_own_file(tmp_path: Path, volume: np.ndarray) -> None:
    """Each file describes all positions, and the others need not be there."""
    files = [f"position{number}.ome.tif" for number in range(3)]
    images = [ome_image(volume[:1], [file], name=file) for file in files]
    for number in (1, 2):
        text = ome_xml(images, f"urn:uuid:{files[number]}")
        tifffile.imwrite(tmp_path / files[number], volume[number], description=text, metadata=None)
    for number in (1, 2):
        np.testing.assert_array_equal(whole(open_image(tmp_path / files[number]))[0, 0], volume[number])


def test_a_companion_file_describes_the_planes(tmp_path: Path, volume: np.ndarray) -> None:
    files = [f"plane{number}.tif" for number in range(5)]
    companion = tmp_path / "image.companion.ome"
    companion.write_text(ome_xml([ome_image(volume, files)], "urn:uuid:companion"), encoding="utf-8")
    pointer = '<BinaryOnly MetadataFile="image.companion.ome" UUID="urn:uuid:companion"/>'
    for plane, file in zip(volume, files, strict=True):
        text = ome_xml([pointer], f"urn:uuid:{file}")
        tifffile.imwrite(tmp_path / file, plane, description=text, metadata=None, compression="zlib")
    np.testing.assert_array_equal(whole(open_image(tmp_path / files[1]))[0], volume)
    companion.unlink()
    with pytest.raises(UserError, match=r"image\.companion\.ome describes, which is missing"):
        open_image(tmp_path / files[1])


def test_a_file_of_planes_names_the_file_that_describes_it(tmp_path: Path, volume: np.ndarray) -> None:
    (first, *_) = write_set(tmp_path, volume)
    pointer = f'<BinaryOnly MetadataFile="{first.name}" UUID="urn:uuid:{first.name}"/>'
    text = ome_xml([pointer], "urn:uuid:plane1.ome.tif")
    tifffile.imwrite(tmp_path / "plane1.ome.tif", volume[1], description=text, metadata=None)
    with pytest.raises(UserError, match=r"of the image .*plane0\.ome\.tif; give that file instead"):
        open_image(tmp_path / "plane1.ome.tif")
    np.testing.assert_array_equal(whole(open_image(first))[0], volume)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)), tile=st.sampled_from([None, 16, 32]))
def test_tiff_round_trip(tmp_path: Path, shape: tuple[int, int, int], tile: int | None) -> None:
    array = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    path = tmp_path / "a.tif"
    how: dict[str, Any] = {"tile": (tile, tile)} if tile else {}
    tifffile.imwrite(path, array, photometric="minisblack", compression="zlib", **how)
    np.testing.assert_array_equal(whole(open_image(path)).reshape(shape), array)
