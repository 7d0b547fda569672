from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.data.readers import section_files, tiff_pages
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import BlockPlan, parse_region
from napari_autosegnet.inference.compute import patience
from napari_autosegnet.inference.compute.patience import read_patiently
from napari_autosegnet.inference.compute.reading import check_image, read_block
from napari_autosegnet.inference.job import open_job
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

Noise = Callable[..., np.ndarray]
ALL = slice(None)


class Away:
    """A store that fails some times before it answers."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left = error, times
        self.shape, self.dtype = (2, 8, 8), np.dtype(np.uint8)

    def __getitem__(self, place: Any) -> np.ndarray:
        if self.left:
            self.left -= 1
            raise self.error
        return np.ones(self.shape, np.uint8)[place]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", found.append)
    return found


def test_a_store_that_is_away_for_a_moment(waits: list[float]) -> None:
    stack = image_from_array(Away(OSError(errno.EIO, "Input/output error"), 2))
    assert read_patiently(stack, ALL, ALL, ALL).all()
    assert waits == list(patience.WAITS[:2]) and waits == sorted(waits)


def test_a_store_that_stays_away(waits: list[float]) -> None:
    stack = image_from_array(Away(ConnectionError("reset"), 100))
    with pytest.raises(UserError, match="cannot read"):
        read_patiently(stack, ALL, ALL, ALL)
    assert waits == list(patience.WAITS)


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no"), ValueError("damaged"), OSError("image file is truncated (8 bytes not processed)")],
)
def test_what_will_not_change_is_not_waited_for(waits: list[float], error: Exception) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_patiently(image_from_array(Away(error, 1)), ALL, ALL, ALL)
    assert waits == []


def test_what_is_nan_in_a_mask_is_outside(noise: Noise) -> None:
    mask = np.array([[[0.0, np.nan, 0.5, -1.0, np.inf, 1.0, np.nan, 0.0]]], np.float32).repeat(8, axis=1)
    plan = BlockPlan((1, 8, 8), (1, 8, 8), stride=4, halo=0, tile=8, context=0)
    image = image_from_array(noise(1, 8, 8))
    wanted = read_block(image, plan, plan[0], image_from_array(mask)).wanted
    assert wanted is not None
    assert wanted[0, 0].tolist() == [False, False, True, True, True, True, False, False]
    wanted = read_block(image, plan, plan[0], image_from_array(np.full_like(mask, np.nan))).wanted
    assert wanted is not None and not wanted.any()


def test_channels_and_times_by_name(tmp_path: Path, noise: Noise, make_model: Callable[..., Model]) -> None:
    array = noise(2, 3, 4, 40, 50)
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 5}]}]
    omero = {"channels": [{"label": name, "color": "FFFFFF"} for name in ("EM", "DAPI", "GFP")]}
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}], "omero": omero}}
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", attributes=attributes)
    group.create_array("0", shape=array.shape, dtype=array.dtype, chunks=(1, 1, 4, 32, 32))[:] = array
    stack = open_image(tmp_path / "image.zarr", time=1, channels=["GFP", "0"])
    assert stack.channel_names == ("GFP", "EM") and stack.channels == 2
    np.testing.assert_array_equal(stack.read(ALL, ALL, ALL), array[1, [2, 0]])
    with pytest.raises(UserError, match="no channel 'RFP'; choose among EM, DAPI, GFP or 0 to 2"):
        open_image(tmp_path / "image.zarr", time=1, channels=["RFP"])
    model = make_model()
    with pytest.raises(UserError, match="choose among its channels"):
        check_image(model, open_image(tmp_path / "image.zarr", time=1))
    check_image(model, open_image(tmp_path / "image.zarr", time=1, channels=["DAPI"]))


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_axes_of_a_plain_array_are_named(tmp_path: Path, noise: Noise, kind: str) -> None:
    array = noise(3, 4, 2, 20, 30)
    path = tmp_path / f"image.{kind}"
    if kind == "npy":
        np.save(path, array)
    else:
        zarr.create_array(path, data=array, chunks=(1, 2, 2, 10, 10))
    stack = open_image(path, time=2, axes="tzcyx")
    np.testing.assert_array_equal(stack.read(ALL, ALL, ALL), array[2].transpose(1, 0, 2, 3))
    assert open_image(path, time=2, axes="TZCYX").channels == 2
    assert stack.chunks == (None if kind == "npy" else (2, 10, 10))
    for wrong in ("tzcy", "tzzyx", "tzcyw"):
        with pytest.raises(UserError, match="name each once"):
            open_image(path, time=2, axes=wrong)


def test_a_region_is_ranges_of_the_image() -> None:
    assert parse_region("1:3, :,5:", (4, 10, 20)) == ((1, 3), (0, 10), (5, 20))
    assert parse_region("2:4,0:20", (1, 10, 20)) == ((0, 1), (2, 4), (0, 20))
    for wrong in ("0:5,:,:", "2:2,:,:", ":,:,30:40"):
        with pytest.raises(UserError, match="which is 0:4,0:10,0:20"):
            parse_region(wrong, (4, 10, 20))
    with pytest.raises(ValueError, match="must be ranges"):
        PredictSettings(region="everything")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_plain_array(tmp_path: Path, model: Model, noise: Noise, sharded: bool) -> None:
    image = image_from_array(noise(3, 70, 101))
    settings = PredictSettings(block=(2, 32, 48), halo="exact", probabilities=True, format="zarr", sharded=sharded)
    summary = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert summary.labels == tmp_path / "out.zarr"
    array = zarr.open_array(tmp_path / "out.zarr", mode="r")
    whole, _ = predict_sections(model, image, None, PredictSettings(halo="exact"))
    assert (np.asarray(array) == whole).mean() > 1 - 1e-4
    assert array.metadata.dimension_names == ("z", "y", "x")
    assert (array.shards is not None) == sharded
    assert zarr.open_array(tmp_path / "out-probabilities.zarr", mode="r").shape == (2, 3, 70, 101)
    assert predict_volume(model, image, tmp_path / "out.zarr", settings).done == summary.done
    with pytest.raises(UserError, match="made differently"):
        predict_volume(model, image, tmp_path / "out.zarr", settings.model_copy(update={"halo": 0}))


def decoded_while_blocks_are_read(
    folder: Path, image: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[Any], tuple[int, int, int]]:
    """How often each section (of files) or strip (of a TIFF) is decoded when all blocks are read, and the blocks."""
    counts: Counter[Any] = Counter()
    make, segment = section_files.SectionFiles.__init__, tiff_pages.TiffPages.segment_of

    def count_files(self: Any, paths: list[Path], decode: Callable[[Path], np.ndarray]) -> None:
        def counted(file: Path) -> np.ndarray:
            counts[paths.index(file)] += len(paths) > 1  # of the folder, not of the picture alone
            return decode(file)

        make(self, paths, counted)

    def count_strips(self: Any, handle: Any, number: int, strip: int) -> np.ndarray:
        counts[number, strip] += (number, strip) not in self.segments
        return segment(self, handle, number, strip)

    monkeypatch.setattr(section_files.SectionFiles, "__init__", count_files)
    monkeypatch.setattr(tiff_pages.TiffPages, "segment_of", count_strips)
    job = open_job(model, open_image(image), folder / "out.zarr", PredictSettings(halo=16))
    for index in job.plan.indices():
        job.read(index)
    return counts, job.plan.block


@pytest.mark.parametrize(
    ("kind", "context", "kept", "depth", "suffix"),
    [  # every pair of two of them
        ("global", 0, 2**30, 16, "png"),
        ("section", 1, 2**30, 16, "tif"),
        ("global", 1, 10 * 2**20, 2, "png"),
        ("section", 0, 10 * 2**20, 2, "tif"),
        ("section", 1, 10 * 2**20, 2, "png"),
        ("global", 0, 10 * 2**20, 2, "tif"),
    ],
)
def test_each_file_of_a_folder_is_decoded_once(
    tmp_path: Path,
    make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    context: int,
    kept: int,
    depth: int,
    suffix: str,
) -> None:
    (tmp_path / "image").mkdir()
    for number in range(18):
        section = np.tile(np.arange(2100).astype(np.uint8) + np.uint8(number), (1100, 1))
        file = tmp_path / "image" / f"{number}.{suffix}"
        Image.fromarray(section).save(file) if suffix == "png" else tifffile.imwrite(file, section, compression="zlib")
    monkeypatch.setattr(section_files, "KEPT_BYTES", kept)
    monkeypatch.setattr(tiff_pages, "SEGMENT_CACHE_BYTES", 0)
    counts, block = decoded_while_blocks_are_read(
        tmp_path, tmp_path / "image", make_model(context=context, kind=kind), monkeypatch
    )
    assert {key: count for key, count in counts.items() if isinstance(key, int)} == dict.fromkeys(range(18), 1)
    assert block[0] == depth and max(block) <= 1024


def test_decoded_sections_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        Image.fromarray(np.full((100, 100), number, np.uint8)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(section_files, "KEPT_BYTES", 35_000)
    stack = open_image(tmp_path)
    source: Any = stack.source
    for z in (slice(0, 9), slice(2, 8), slice(0, 9), slice(8, 9)):
        expected = np.arange(9, dtype=np.uint8)[z, np.newaxis, np.newaxis] + np.zeros((1, 50, 60), np.uint8)
        np.testing.assert_array_equal(stack.read(z, slice(10, 60), slice(40, None))[0], expected)
        assert sum(section.nbytes for section in source.kept.values()) <= 35_000
    assert set(source.kept) == {8}


def test_each_strip_of_a_compressed_tiff_is_decoded_once_for_blocks_side_by_side(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.tile(np.arange(3000).astype(np.uint8), (8, 1000, 1))
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib", rowsperstrip=100)
    monkeypatch.setattr(tiff_pages, "SEGMENT_CACHE_BYTES", 10 * 2**20)
    counts, block = decoded_while_blocks_are_read(tmp_path, tmp_path / "a.tif", model, monkeypatch)
    assert set(counts.values()) == {1} and len(counts) == 80
    assert block == (3, 1024, 1024)
