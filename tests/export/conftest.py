"""One small model, exported once in each format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.model import Model
from small_models import small_model

_EXPORT = ("bioimageio.core", "onnx", "onnxruntime", "onnxscript")


@pytest.fixture(scope="session")
def model() -> Model:
    """A searched network that sees three sections."""
    for package in _EXPORT:
        pytest.importorskip(package, reason="the extra 'export' is not installed")
    return small_model(context=1)


@pytest.fixture(scope="session")
def package(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a bioimage.io package, with an image."""
    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.export.bioimageio_package import About, write_bioimageio

    pixels = np.random.default_rng(0).integers(0, 255, (3, 100, 150), dtype=np.uint8)
    image = image_from_array(pixels, scale=(50.0, 4.0, 4.0))
    image.unit = "nanometer"
    about = About(
        name="Nerve fibers: myelin/axon",
        description="A test.",
        authors=("A. Person (An Institute)", "B"),
        license="CC-BY-4.0",
    )
    path = tmp_path_factory.mktemp("packages") / "ein Modell ü.zip"
    assert write_bioimageio(model, path, about=about, image=image) < 1e-4
    return path
