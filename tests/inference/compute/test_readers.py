"""Stores that were written here, seen through napari's own readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings


@pytest.fixture(params=["ome-zarr", "ome-zarr-0.4"])
def store(request: Any, tmp_path: Path, model: Model, noise: Callable[..., np.ndarray]) -> Path:
    image = image_from_array(noise(3, 60, 80), scale=(40.0, 4.0, 4.0), translation=(0.0, 8.0, 12.0))
    settings = PredictSettings(format=request.param, levels=2, halo=0, probabilities=True, block=(2, 32, 32))
    return predict_volume(model, image, tmp_path / "out.zarr", settings).path


def test_naparis_reader(store: Path) -> None:
    io = pytest.importorskip("napari_builtins.io")
    levels, shape = io.read_zarr_dataset(str(store / "labels" / "segmentation"))
    assert tuple(shape) == (3, 60, 80) and len(levels) == 2
    expected = np.asarray(zarr.open_array(store / "labels" / "segmentation" / "0", mode="r"))
    np.testing.assert_array_equal(np.asarray(levels[0]), expected)
    assert np.asarray(levels[1]).shape == (3, 30, 40)


def test_the_ome_zarr_plugin_shows_image_labels_and_colors(store: Path) -> None:
    plugin = pytest.importorskip("napari_ome_zarr")
    layers = plugin.napari_get_reader(str(store))(str(store))
    ((data, about, _),) = [layer for layer in layers if layer[2] == "labels"]
    assert np.asarray(data[0]).shape == (3, 60, 80) and len(data) == 2
    assert tuple(about["scale"]) == (40.0, 4.0, 4.0)
    assert any(layer[2] == "image" for layer in layers)
