"""Whether an image is still the one that it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet.data import identity
from napari_autosegnet.data.identity import image_identity, same_identity
from napari_autosegnet.data.images import image_from_array, open_image

PIXELS = np.random.default_rng(0).integers(1, 255, (12, 300, 300), dtype=np.uint8)


def of(path: Path, **how: Any) -> dict[str, Any]:
    return image_identity(open_image(path, **how))


def test_an_input_is_known_by_its_content_and_its_file(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 100, 100), dtype=np.uint8)
    one = image_identity(image_from_array(array))
    assert one == image_identity(image_from_array(array.copy()))
    changed = array.copy()
    changed[2, 50, 50] += 1
    assert one != image_identity(image_from_array(changed))
    assert one != image_identity(image_from_array(array.astype(np.uint16)))
    by_channel = image_from_array(np.stack([array, array]), channel_axis=0)
    assert image_identity(by_channel.with_channels(["0"])) != image_identity(by_channel.with_channels(["1"]))
    assert image_identity(by_channel.with_channels(["0", "1"])) == image_identity(by_channel)
    file = tmp_path / "a.npy"
    np.save(file, array)
    before = of(file)
    assert before == of(file)
    os.utime(file, ns=(0, 0))
    assert before != of(file)


def write_zarr(folder: Path, **how: Any) -> Callable[[], None]:
    array = zarr.create_array(folder, data=PIXELS, **{"chunks": (1, 50, 50), **how})

    def change() -> None:
        array[7, 110:115, 60:65] = 9  # where no sample falls

    return change


def write_folder(folder: Path) -> Callable[[], None]:
    folder.mkdir()
    for number, section in enumerate(PIXELS):
        Image.fromarray(section).save(folder / f"{number}.png")

    def change() -> None:
        section = PIXELS[7].copy()
        section[110, 60] += 1
        Image.fromarray(section).save(folder / "7.png")

    return change


def write_set(folder: Path) -> Callable[[], None]:
    """An OME-TIFF of two files, opened by its first."""
    folder.mkdir()
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="300" SizeY="300" SizeZ="12" SizeC="1" SizeT="1">'
        + "".join(
            f'<TiffData FirstZ="{z}" IFD="{z % 6}" PlaneCount="1"><UUID FileName="{z // 6}.ome.tif">urn:uuid:{z // 6}'
            "</UUID></TiffData>"
            for z in range(12)
        )
        + "</Pixels></Image></OME>"
    )

    def write(number: int, pixels: np.ndarray) -> None:
        tifffile.imwrite(folder / f"{number}.ome.tif", pixels, photometric="minisblack", description=xml, metadata=None)

    for number in (0, 1):
        write(number, PIXELS[6 * number : 6 * number + 6])

    def change() -> None:
        later = PIXELS[6:].copy()
        later[1, 110, 60] += 1
        write(1, later)

    return change


@pytest.mark.parametrize(
    ("name", "write", "how"),
    [
        ("a.zarr", write_zarr, {}),
        ("a.zarr", write_zarr, {"zarr_format": 2}),
        ("a.zarr", write_zarr, {"shards": (2, 100, 100)}),
        ("sections", write_folder, {}),
        ("set", write_set, {}),
    ],
)
def test_a_change_in_place_is_seen_in_any_file(
    tmp_path: Path, name: str, write: Callable[..., Callable[[], None]], how: dict[str, Any]
) -> None:
    change = write(tmp_path / name, **how)
    path = tmp_path / name / ("0.ome.tif" if name == "set" else "")
    before = of(path)
    assert before == of(path)
    time.sleep(0.02)  # of a file system's clock
    change()
    after = of(path)
    assert not same_identity(before, after)
    assert before["samples"] == after["samples"] and before["files"] != after["files"]


def test_a_chunk_that_comes_or_goes_is_seen(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[7, 100:150, 50:100] = 0
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(1, 50, 50))
    before = of(tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr" / "c" / "7" / "2" / "1").exists()
    zarr.open_array(tmp_path / "a.zarr")[7, 110, 60] = 1
    assert before["samples"] == of(tmp_path / "a.zarr")["samples"]
    assert before != of(tmp_path / "a.zarr")


def test_time_points_that_are_not_read_do_not_matter(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", data=np.stack([PIXELS, PIXELS]), chunks=(1, 1, 100, 100))
    before = [of(tmp_path / "a.zarr", axes="tzyx", time=point) for point in (0, 1)]
    time.sleep(0.02)
    array[1, 7, 110, 60] += 1
    after = [of(tmp_path / "a.zarr", axes="tzyx", time=point) for point in (0, 1)]
    assert before[0] == after[0] and before[1] != after[1]


def test_a_moved_image_is_the_same(tmp_path: Path) -> None:
    write_zarr(tmp_path / "a.zarr")
    before = of(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    assert of(tmp_path / "b.zarr") == before


def test_images_of_mixed_sizes_are_known_by_their_files(tmp_path: Path) -> None:
    for number, size in enumerate([(20, 30), (25, 10)]):
        Image.fromarray(PIXELS[0][: size[0], : size[1]]).save(tmp_path / f"{number}.png")
    before = of(tmp_path)
    assert before["shape"] == [[20, 30], [25, 10]] and before == of(tmp_path)
    os.utime(tmp_path / "1.png", ns=(0, 0))
    assert before != of(tmp_path)


def test_of_millions_of_chunks_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that says it has ten millions; nobody lists or counts them."""
    zarr.create_array(tmp_path / "a.zarr", shape=(1000, 10000, 10000), chunks=(1, 100, 100), dtype=np.uint8)
    looks: list[Path] = []
    real = identity.line_of

    def look(file: Path) -> str:
        looks.append(file)
        return real(file)

    monkeypatch.setattr(identity, "MAX_FILES", 5000)
    monkeypatch.setattr(identity, "line_of", look)
    found = of(tmp_path / "a.zarr")
    assert found["files"][0] == 10**7 + 1 and len(looks) == 5000
    sections = {int(file.parts[-3]) for file in looks[1:]}
    assert len(sections) > 900
