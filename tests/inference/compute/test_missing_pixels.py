"""Float images with NaN and infinity, as registration leaves them: no label there, and nothing spoilt around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.events import Event, Note
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.reading import missing_voxels
from napari_autosegnet.inference.compute.sections import predict_section
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

Noise = Callable[..., np.ndarray]
MakeModel = Callable[..., Model]
Tree = Callable[[Path], dict[str, bytes]]

#: Of the models' normalization.
MEAN = 120.0
SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo="exact", probabilities=True)


def notes_of(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, Note)]


def with_holes(array: np.ndarray, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """A float image (z, y, x) with a border and a patch that are no numbers, and where they are."""
    found = array.astype(dtype)
    found[1, 30:37, 40:52] = np.nan
    found[1, 50, 70] = np.inf
    found[2, :, -9:] = -np.inf
    return found, ~np.isfinite(found)


def written(store: Path) -> tuple[np.ndarray, np.ndarray]:
    group = zarr.open_group(store, mode="r")
    return np.asarray(group["labels/segmentation/0"]), np.asarray(group["probabilities/0"])


@pytest.mark.parametrize(("context", "dtype"), [(0, np.float16), (1, np.float32), (0, np.float64)])
def test_pixels_that_are_no_numbers_get_no_label_and_count_as_the_mean(
    tmp_path: Path, make_model: MakeModel, noise: Noise, context: int, dtype: Any
) -> None:
    model = make_model(context=context)
    holes, missing = with_holes(noise(3, 70, 101), dtype)
    told: list[Event] = []
    predict_volume(model, image_from_array(holes), tmp_path / "a", SETTINGS, report=told.append)
    filled = np.where(missing, MEAN, holes).astype(dtype)
    predict_volume(model, image_from_array(filled), tmp_path / "b", SETTINGS)
    (labels, shares), (expected, expected_shares) = written(tmp_path / "a"), written(tmp_path / "b")
    np.testing.assert_array_equal(labels, np.where(missing, 0, expected))
    np.testing.assert_array_equal(shares, np.where(missing, 0, expected_shares))
    (note,) = notes_of(told)
    assert "NaN or infinite, first in section 1 (16 of them at y 0 to 31, x 0 to 47)" in note and "\n" not in note


def test_labels_do_not_depend_on_the_blocks(tmp_path: Path, model: Model, noise: Noise) -> None:
    image = image_from_array(with_holes(noise(3, 70, 101))[0])
    for name, block in (("a", (1, 32, 32)), ("b", (3, 70, 101))):
        predict_volume(model, image, tmp_path / name, SETTINGS.model_copy(update={"block": block, "tile": 96}))
    (one, one_shares), (other, other_shares) = written(tmp_path / "a"), written(tmp_path / "b")
    np.testing.assert_array_equal(one == 0, other == 0)
    assert (one == other).mean() > 1 - 1e-4
    assert np.abs(one_shares.astype(int) - other_shares).max() <= 1
    labels, probabilities = predict_sections(model, image, None, PredictSettings(halo="exact"))
    np.testing.assert_array_equal(labels == 0, one == 0)
    assert (labels == one).mean() > 1 - 1e-4
    assert not probabilities[:, labels == 0].any() and np.allclose(probabilities[:, labels > 0].sum(0), 1, atol=1e-5)


def test_stopped_in_between_it_ends_with_the_same_bytes(tmp_path: Path, model: Model, noise: Noise, tree: Tree) -> None:
    image = image_from_array(with_holes(noise(3, 70, 101))[0])
    predict_volume(model, image, tmp_path / "whole", SETTINGS)
    stopped = True
    while stopped:
        left = iter(range(5))
        stopped = predict_volume(
            model, image, tmp_path / "parts", SETTINGS, should_stop=lambda left=left: next(left, None) is None
        ).stopped
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_blocks_without_a_number_are_skipped_and_told(tmp_path: Path, model: Model, noise: Noise) -> None:
    array = noise(2, 64, 96).astype(np.float32)
    array[:, :32] = np.nan
    told: list[Event] = []
    settings = SETTINGS.model_copy(update={"halo": 0})
    summary = predict_volume(model, image_from_array(array), tmp_path / "a", settings, report=told.append)
    assert (summary.done, summary.skipped) == (2, 2)
    np.testing.assert_array_equal(written(tmp_path / "a")[0] > 0, np.isfinite(array))
    assert len(notes_of(told)) == 1


def test_what_the_mask_leaves_out_needs_no_word(tmp_path: Path, model: Model, noise: Noise) -> None:
    holes, missing = with_holes(noise(3, 70, 101))
    told: list[Event] = []
    mask = image_from_array((~missing).astype(np.uint8))
    image = image_from_array(holes)
    predict_volume(model, image, tmp_path / "a", SETTINGS, mask=mask, report=told.append)
    predict_volume(model, image, tmp_path / "b", SETTINGS)
    np.testing.assert_array_equal(written(tmp_path / "a")[0], written(tmp_path / "b")[0])
    assert not notes_of(told)


def test_one_section_of_color_that_lacks_pixels(make_model: MakeModel, noise: Noise) -> None:
    told: list[Event] = []
    model = make_model(image_channels=3)
    predictor = Predictor(model, tile=64, halo=8, report=told.append)
    array = noise(3, 2, 60, 80).astype(np.float32)
    array[1, 1, 10:20, 30:40] = np.nan
    for section in (0, 1, 1):
        found = predict_section(predictor, image_from_array(array, channel_axis=0), section)
        assert found is not None
        labels, probabilities = found
        expected = np.zeros((60, 80), bool)
        expected[10:20, 30:40] = section == 1
        np.testing.assert_array_equal(labels == 0, expected)
        assert not probabilities[:, expected].any() and np.isfinite(probabilities).all()
    (note,) = notes_of(told)
    assert "first in section 1 (100 of them" in note


def test_images_of_whole_numbers_are_not_searched(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("searched for NaN")

    monkeypatch.setattr(torch.Tensor, "isfinite", never)
    monkeypatch.setattr(np, "isfinite", never)
    for dtype in (np.uint8, np.uint16, np.int32):
        assert missing_voxels(np.zeros((1, 2, 3, 4), dtype)) is None
    predict_volume(model, image_from_array(noise(2, 40, 60).astype(np.uint16)), tmp_path / "a", SETTINGS)


def test_numbers_too_large_for_the_network_are_missing() -> None:
    array = np.array([[1.0, 1e39, -1e39, 3e38]])
    found = missing_voxels(array)
    assert found is not None and found.tolist() == [False, True, True, False]
