"""Results as TIFF and PNG: our reader, tifffile and Pillow find the same values in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet.data.images import image_from_array, open_image, open_labels
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

Noise = Callable[..., np.ndarray]
ALL = slice(None)
SETTINGS = PredictSettings(halo=4, tile=64)


def pillow_pages(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        pages = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            assert picture.mode == "L"
            pages.append(np.asarray(picture))
    return np.stack(pages)


@pytest.mark.parametrize("shape", [(40, 48), (1, 40, 48), (3, 40, 48), (4, 40, 48), (7, 40, 48)], ids=str)
def test_everybody_reads_the_same_labels(tmp_path: Path, model: Model, noise: Noise, shape: tuple[int, ...]) -> None:
    image = image_from_array(noise(*shape))
    predict_volume(model, image, tmp_path / "out.zarr", SETTINGS)
    expected = open_labels(tmp_path / "out.zarr" / "labels" / "segmentation").read(ALL, ALL, ALL)[0]
    out = tmp_path / "out.tif"
    predict_volume(model, image, out, SETTINGS)
    found = open_labels(out)
    assert (found.dtype, found.channels, found.is_2d) == (np.uint8, 1, image.sections == 1)
    np.testing.assert_array_equal(found.read(ALL, ALL, ALL)[0], expected)
    np.testing.assert_array_equal(tifffile.imread(out).reshape(expected.shape), expected)
    np.testing.assert_array_equal(pillow_pages(out), expected)
    if image.sections == 1:
        predict_volume(model, image, tmp_path / "out.png", SETTINGS)
        np.testing.assert_array_equal(pillow_pages(tmp_path / "out.png"), expected)
        np.testing.assert_array_equal(open_labels(tmp_path / "out.png").section(0), expected)


@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48), (5, 40, 48)], ids=str)
def test_everybody_reads_the_same_probabilities(
    tmp_path: Path, model: Model, noise: Noise, shape: tuple[int, ...]
) -> None:
    image = image_from_array(noise(*shape))
    settings = SETTINGS.model_copy(update={"probabilities": True})
    predict_volume(model, image, tmp_path / "out.zarr", settings)
    expected = open_image(tmp_path / "out.zarr" / "probabilities").read(ALL, ALL, ALL)
    predict_volume(model, image, tmp_path / "out.tif", settings)
    scores = tmp_path / "out-probabilities.tif"
    found = open_image(scores)
    assert (found.channels, found.is_2d) == (len(model.classes), image.is_2d)
    np.testing.assert_array_equal(found.read(ALL, ALL, ALL), expected)
    np.testing.assert_array_equal(tifffile.imread(scores).reshape(expected.shape), expected)
    np.testing.assert_array_equal(pillow_pages(scores).reshape(expected.shape), expected)


@pytest.mark.parametrize("unit", ["nm", "µm", "mm", "Å"])
def test_the_size_of_a_voxel_comes_back(tmp_path: Path, model: Model, noise: Noise, unit: str) -> None:
    about = {"axes": "ZYX"}
    for axis, step in zip("ZYX", (40.0, 4.0, 5.0), strict=True):
        about |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit}  # type: ignore[dict-item]
    tifffile.imwrite(tmp_path / "in.ome.tif", noise(3, 40, 48), metadata=about)
    image = open_image(tmp_path / "in.ome.tif")
    predict_volume(model, image, tmp_path / "out.tif", SETTINGS)
    found = open_labels(tmp_path / "out.tif")
    assert (found.scale, found.unit) == (image.scale, image.unit)
    assert found.scale == (40.0, 4.0, 5.0)
