from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from napari_autosegnet.data.images import ImageStack, image_from_array, open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten, Note
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections
from remembered_events import Events

Noise = Callable[..., np.ndarray]
SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True, levels=3)


@pytest.fixture
def image(noise: Noise) -> ImageStack:
    return image_from_array(noise(3, 70, 101), scale=(40.0, 4.0, 4.0), translation=(0.0, 8.0, 12.0))


@pytest.fixture
def ome_image(tmp_path: Path, noise: Noise) -> Callable[[str], Path]:
    """An OME-Zarr image of a version, with three levels of odd sizes and another label."""

    def make(version: str) -> Path:
        path = tmp_path / f"image-{version}.zarr"
        array = noise(5, 71, 101)
        datasets = [
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": [40.0, 4.0 * 2**level, 4.0 * 2**level]}],
            }
            for level in range(3)
        ]
        axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
        multiscales: list[Any] = [{"axes": axes, "datasets": datasets}]
        if version == "0.4":
            multiscales[0]["version"] = "0.4"
            group = zarr.open_group(path, mode="w", zarr_format=2, attributes={"multiscales": multiscales})
            labels = group.create_group("labels", attributes={"labels": ["nuclei"]})
        else:
            group = zarr.open_group(path, mode="w", attributes={"ome": {"version": "0.5", "multiscales": multiscales}})
            labels = group.create_group("labels", attributes={"ome": {"version": "0.5", "labels": ["nuclei"]}})
        labels.create_group("nuclei", attributes={"mine": True})
        for level in range(3):
            # This source drops the odd remainder, where ours would round up.
            smaller = array[:, : 71 // 2**level * 2**level : 2**level, : 101 // 2**level * 2**level : 2**level]
            encoding: Any = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
            about = {"shape": smaller.shape, "dtype": smaller.dtype, "chunks": (2, 32, 32)}
            group.create_array(str(level), **about, chunk_key_encoding=encoding)[:] = smaller
        return path

    return make


@pytest.mark.filterwarnings("ignore::yaozarrs._storage.StorageValidationWarning")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_store_of_its_own(tmp_path: Path, model: Model, image: ImageStack, version: Any, sharded: bool) -> None:
    out = tmp_path / "out.zarr"
    kind = "ome-zarr-0.4" if version == "0.4" else "ome-zarr"
    settings = SETTINGS.model_copy(update={"format": kind, "sharded": sharded})
    if sharded and version == "0.4":
        with pytest.raises(UserError, match="no shards"):
            predict_volume(model, image, out, settings)
        return
    summary = predict_volume(model, image, out, settings)
    assert summary.path == out and summary.labels == out / "labels" / "segmentation"
    # In 0.4 a labels group names no version, so there is nothing that yaozarrs could tell it by.
    for node in ("", "labels/segmentation", "probabilities", *(["labels"] if version == "0.5" else [])):
        yaozarrs.validate_zarr_store(str(out / node))
    group = zarr.open_group(out, mode="r")
    found = np.asarray(group["labels/segmentation/0"])
    labels, probabilities = predict_sections(model, image, None, PredictSettings(tile=64, halo=8))
    assert found.dtype == np.uint8 and found.shape == image.shape
    # Other tiles, hence other seams at this small halo.
    assert (found == labels).mean() > 0.99
    scores = np.asarray(group["probabilities/0"])
    assert scores.shape == (2, *image.shape) and scores.dtype == np.uint8
    assert np.abs(scores / 255 - probabilities).mean() < 0.01
    for level in (1, 2):
        step = 2**level
        np.testing.assert_array_equal(np.asarray(group[f"labels/segmentation/{level}"]), found[:, ::step, ::step])
    about: Any = dict(group["labels/segmentation"].attrs)
    about = about.get("ome", about)
    assert about["image-label"]["colors"][1]["label-value"] == 2
    assert about["image-label"]["properties"][0] == {"label-value": 1, "class": "class 0"}
    transformations = about["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert transformations[0]["scale"] == [40.0, 8.0, 8.0]
    assert transformations[1]["translation"] == [0.0, 8.0, 12.0]


def test_a_viewer_finds_scale_and_place(tmp_path: Path, model: Model, image: ImageStack) -> None:
    out = tmp_path / "out.zarr"
    predict_volume(model, image, out, SETTINGS)
    for place in (out, out / "labels" / "segmentation", out / "probabilities"):
        opened = open_image(place)
        assert opened.scale == image.scale and opened.translation == image.translation
        assert opened.shape == image.shape


@pytest.mark.filterwarnings("ignore::yaozarrs._storage.StorageValidationWarning")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_results_go_under_the_images_own_labels(model: Model, ome_image: Callable[[str], Path], version: str) -> None:
    path = ome_image(version)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.parent.name != "labels"}
    settings = PredictSettings(block=(2, 32, 32), tile=64, halo=8)
    summary = predict_volume(model, open_image(path), None, settings)
    assert summary.labels == path / "labels" / "segmentation"
    group = zarr.open_group(path, mode="r")
    about: Any = dict(group["labels"].attrs)
    assert about.get("ome", about)["labels"] == ["nuclei", "segmentation"]
    levels = [np.asarray(group[f"labels/segmentation/{level}"]) for level in range(3)]
    for level in range(3):
        assert levels[level].shape == group[str(level)].shape  # type: ignore[union-attr]
    np.testing.assert_array_equal(levels[1], levels[0][:, :70:2, :100:2])
    assert group["labels/segmentation/0"].metadata.zarr_format == (2 if version == "0.4" else 3)
    yaozarrs.validate_zarr_store(str(path / "labels" / "segmentation"))
    assert {file: file.read_bytes() for file in before} == before
    again = predict_volume(model, open_image(path), path, settings)
    assert again.done == summary.done
    with pytest.raises(UserError, match="made differently"):
        predict_volume(model, open_image(path), None, PredictSettings(block=(2, 32, 32), tile=64, halo=4))
    predict_volume(model, open_image(path), None, PredictSettings(block=(2, 32, 32), tile=64, halo=4, overwrite=True))
    assert {file: file.read_bytes() for file in before} == before


def test_tiff(tmp_path: Path, model: Model, image: ImageStack) -> None:
    out = tmp_path / "out.tif"
    predict_volume(model, image, out, SETTINGS)
    predict_volume(model, image, tmp_path / "out.zarr", SETTINGS)
    expected = np.asarray(zarr.open_group(tmp_path / "out.zarr")["labels/segmentation/0"])
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert open_image(out).scale == image.scale
    scores = np.asarray(zarr.open_group(tmp_path / "out.zarr")["probabilities/0"])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out-probabilities.tif"), scores)


def test_2d_results_have_no_z(tmp_path: Path, model: Model, noise: Noise) -> None:
    image = image_from_array(noise(70, 101))
    settings = PredictSettings(halo="exact", probabilities=True, levels=2)
    predict_volume(model, image, tmp_path / "out.zarr", settings)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    labels = np.asarray(group["labels/segmentation/0"])
    assert labels.shape == (70, 101)
    assert group["labels/segmentation/1"].shape == (35, 51)  # type: ignore[union-attr]
    assert group["probabilities/0"].shape == (2, 70, 101)  # type: ignore[union-attr]
    yaozarrs.validate_zarr_store(str(tmp_path / "out.zarr" / "labels" / "segmentation"))
    predict_volume(model, image, tmp_path / "out.tif", settings)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), labels)
    assert tifffile.imread(tmp_path / "out-probabilities.tif").shape == (2, 70, 101)
    predict_volume(model, image, tmp_path / "out.png", PredictSettings(halo="exact"))
    np.testing.assert_array_equal(open_image(tmp_path / "out.png").section(0)[0], labels)
    assert predict_volume(model, image, tmp_path / "out.png", PredictSettings(halo="exact")).done == 1


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, model: Model, image: ImageStack, noise: Noise) -> None:
    with pytest.raises(UserError, match="cannot hold 3 sections"):
        predict_volume(model, image, tmp_path / "out.png")
    with pytest.raises(UserError, match="probabilities cannot be written as PNG"):
        predict_volume(model, image_from_array(noise(9, 9)), tmp_path / "a.png", PredictSettings(probabilities=True))
    for name in ("out.jpg", "out.txt", "run.v2", "out.zarr.zip", "out.Données"):
        ending = Path(name).suffix
        with pytest.raises(UserError, match=rf"cannot be written as \{ending}; give --out with \.zarr, \.tif, .*png"):
            predict_volume(model, image, tmp_path / name)
        assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match="not an OME-Zarr store, which could hold"):
        predict_volume(model, image, None)


def test_a_name_without_an_ending_is_a_store(tmp_path: Path, model: Model, image: ImageStack) -> None:
    for name in ("cells", "cells 2.5", "2026.11.30", "v1.zarr", "CELLS.ZARR", "run.5 um"):
        predict_volume(model, image, tmp_path / name, PredictSettings(halo="exact"))
        assert open_image(tmp_path / name / "labels" / "segmentation").shape == image.shape


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, model: Model, image: ImageStack, overwrite: bool) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists"):
        predict_volume(model, image, out, SETTINGS.model_copy(update={"overwrite": overwrite}))
    assert [file.name for file in out.iterdir()] == ["thesis.txt"]


def test_a_result_without_its_ledger_is_not_gone_on_with(tmp_path: Path, model: Model, image: ImageStack) -> None:
    out = tmp_path / "out.zarr"
    predict_volume(model, image, out, SETTINGS)
    (tmp_path / "out.zarr.ledger.jsonl").unlink()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="no result of this program"):
            predict_volume(model, image, out, SETTINGS.model_copy(update={"overwrite": overwrite}))


def test_a_result_without_its_probabilities_is_made_again(tmp_path: Path, model: Model, image: ImageStack) -> None:
    scores = tmp_path / "out.zarr" / "probabilities"
    predict_volume(model, image, tmp_path / "out.zarr", SETTINGS)
    before = zarr.open_array(scores / "0", mode="r")[:]
    shutil.rmtree(scores)
    predict_volume(model, image, tmp_path / "out.zarr", SETTINGS)
    np.testing.assert_array_equal(zarr.open_array(scores / "0", mode="r")[:], before)


LOST = {
    "a chunk": ["labels/segmentation/0/c/1/1/1"],
    "a chunk of a lower level": ["labels/segmentation/1/c/0/0/0"],
    "a chunk of the probabilities": ["probabilities/0/c/1/0/1/1"],
    "chunks of several": ["labels/segmentation/0/c/0", "labels/segmentation/2/c/1/0/0", "probabilities/0/c/0/0"],
    "a level": ["labels/segmentation/1"],
    "the metadata of an array": ["labels/segmentation/0/zarr.json"],
    "the metadata of a group": ["labels/segmentation/zarr.json", "probabilities/zarr.json"],
    "the labels": ["labels"],
}


@pytest.mark.parametrize(("lost", "sharded"), [(LOST, False), ({"a level": LOST["a level"]}, True)])
def test_what_was_deleted_of_a_finished_result_is_computed_again(
    tmp_path: Path,
    model: Model,
    image: ImageStack,
    tree: Callable[[Path], dict[str, bytes]],
    lost: dict[str, list[str]],
    sharded: bool,
) -> None:
    settings = SETTINGS.model_copy(update={"sharded": sharded})
    predict_volume(model, image, tmp_path / "a.zarr", settings)
    before = tree(tmp_path / "a.zarr")
    for what, gone in lost.items():
        for name in gone:
            place = tmp_path / "a.zarr" / name
            assert place.exists()
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        events = Events()
        summary = predict_volume(model, image, tmp_path / "a.zarr", settings, report=events)
        assert summary.done == summary.blocks == 18
        assert tree(tmp_path / "a.zarr") == before, what
        if not any("json" in name for name in gone):
            assert any("no longer on the disk" in note.text for note in events.of(Note)), what
            assert len(events.of(BlockWritten)) < 18 or gone == ["labels"], what
        again = Events()
        predict_volume(model, image, tmp_path / "a.zarr", settings, report=again)
        assert not again.of(BlockWritten) and not again.of(Note), what


def test_an_empty_chunk_file_counts_as_gone(tmp_path: Path, model: Model, image: ImageStack) -> None:
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    chunk = tmp_path / "a.zarr" / "labels" / "segmentation" / "0" / "c" / "1" / "1" / "1"
    before = chunk.read_bytes()
    chunk.write_bytes(b"")
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    assert chunk.read_bytes() == before


def test_what_somebody_changed_in_a_finished_result_stays(tmp_path: Path, model: Model, image: ImageStack) -> None:
    """Corrections painted into the labels are no damage, whatever the size of their chunks."""
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    labels = zarr.open_array(tmp_path / "a.zarr" / "labels" / "segmentation" / "0")
    labels[0, 3:30, 5:40] = 2
    events = Events()
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS, report=events)
    assert not events.of(BlockWritten)
    assert (np.asarray(labels[0, 3:30, 5:40]) == 2).all()


def test_blocks_of_background_leave_nothing_and_are_believed(tmp_path: Path, model: Model, image: ImageStack) -> None:
    mask = np.zeros(image.shape, np.uint8)
    mask[0, :20, :20] = 1
    events = Events()
    for _ in range(2):
        predict_volume(model, image, tmp_path / "a.zarr", SETTINGS, mask=image_from_array(mask), report=events)
    assert len(events.of(BlockWritten)) == 18
    assert not (tmp_path / "a.zarr" / "labels" / "segmentation" / "0" / "c" / "2").exists()


@pytest.mark.parametrize("place", ["labels/segmentation/0", "labels/segmentation", "labels", ""])
def test_damaged_metadata_of_a_result_are_one_line_or_made_again(
    tmp_path: Path, model: Model, noise: Noise, tree: Callable[[Path], dict[str, bytes]], place: str
) -> None:
    image = image_from_array(noise(2, 30, 90))
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    before = tree(tmp_path / "a.zarr")
    for content in (b"", b'{"zarr_format": 3, "node', b"[]"):
        (tmp_path / "a.zarr" / place / "zarr.json").write_bytes(content)
        with suppress(UserError):
            predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
        predict_volume(model, image, tmp_path / "a.zarr", SETTINGS.model_copy(update={"overwrite": True}))
        assert tree(tmp_path / "a.zarr") == before


def test_overwriting_with_other_levels_leaves_a_valid_store(
    tmp_path: Path, model: Model, image: ImageStack, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    fewer = SETTINGS.model_copy(update={"levels": 2, "probabilities": False})
    predict_volume(model, image, tmp_path / "a.zarr", SETTINGS)
    predict_volume(model, image, tmp_path / "a.zarr", fewer.model_copy(update={"overwrite": True}))
    predict_volume(model, image, tmp_path / "b.zarr", fewer)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
