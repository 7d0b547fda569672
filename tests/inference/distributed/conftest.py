"""A prepared image, and predictions of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.model import Model
from volume_requests import SETTINGS, alone

Noise = Callable[..., np.ndarray]
MakeModel = Callable[..., Model]
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_model: MakeModel, noise: Noise) -> Path:
    """A model, a Zarr array of noise in chunks as large as the blocks, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("cluster")
    make_model().save(folder / "model")
    zarr.create_array(folder / "image.zarr", data=noise(4, 68, 100), chunks=(2, 32, 48))
    alone(VolumeRequest(folder / "model", folder / "image.zarr", folder / "one.zarr", SETTINGS))
    return folder


@pytest.fixture
def one(prepared: Path, tree: Tree) -> dict[str, bytes]:
    """The files that one process writes."""
    return tree(prepared / "one.zarr")


@pytest.fixture
def request_for(prepared: Path, tmp_path: Path) -> Callable[..., VolumeRequest]:
    """A prediction of the prepared image by paths; changes are to its settings."""

    def make(out: str, image: Path = prepared / "image.zarr", **changes: Any) -> VolumeRequest:
        return VolumeRequest(prepared / "model", image, tmp_path / out, SETTINGS.model_copy(update=changes))

    return make
