"""Images to predict from, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from predicted_files import write_ome

Noise = Callable[..., np.ndarray]


@pytest.fixture
def picture(tmp_path: Path, noise: Noise) -> Path:
    """A 2D image in a folder of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(noise(40, 48)).save(folder / "picture.png")
    return folder / "picture.png"


@pytest.fixture
def store(tmp_path: Path, noise: Noise) -> Path:
    return write_ome(tmp_path / "image.zarr", noise(2, 40, 48))
