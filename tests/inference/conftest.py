"""Small models with random weights, which is all that tiled inference needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.model import HaloFigure, Model
from napari_autosegnet.networks.specification import NetworkSpecification

MakeModel = Callable[..., Model]


def build_model(
    *,
    seed: int = 0,
    levels: int = 1,
    width: int = 4,
    classes: int = 2,
    image_channels: int = 1,
    context: int = 0,
    network: Any = "searched",
    architecture: Architecture | None = None,
    halo: HaloFigure | None = None,
    kind: Any = "global",
) -> Model:
    """Model of a random architecture, with batch norms that do something."""
    if network == "searched" and architecture is None:
        # Of one cell a layer: half the time, and half the receptive field.
        architecture = SearchSpace(cells=1).sample(np.random.default_rng(seed))
    specification = NetworkSpecification(
        network=network,
        architecture=architecture,
        in_channels=image_channels * (2 * context + 1),
        classes=classes,
        levels=levels,
        base_width=width,
        max_width=2 * width,
    )
    torch.manual_seed(seed)
    module = specification.build()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.3)
    return Model.create(
        module,
        specification,
        classes=default_classes([f"class {number}" for number in range(classes)]),
        normalization=Normalization(kind=kind, mean=(120.0,) * image_channels, std=(50.0,) * image_channels),
        image_channels=image_channels,
        context=context,
        patch_size=32,
        halo=halo,
    )


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    return build_model


@pytest.fixture
def model() -> Model:
    return build_model()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """Small networks gain nothing from more, and the last bits of a result may depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Structured uint8 noise of a shape: blobs and grain."""

    def make(*shape: int, seed: int = 0) -> np.ndarray:
        generator = np.random.default_rng(seed)
        coarse = generator.random((*shape[:-2], -(-shape[-2] // 8), -(-shape[-1] // 8)))
        blobs = coarse.repeat(8, -2).repeat(8, -1)[..., : shape[-2], : shape[-1]]
        return (180 * blobs + 70 * generator.random(shape)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """All files below a folder and their bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    return read


@pytest.fixture(scope="session")
def labels_agree() -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether labels (...) are the best class of probabilities (K, ...), but for ties within rounding."""

    def agree(labels: np.ndarray, probabilities: np.ndarray) -> bool:
        chosen = np.take_along_axis(probabilities, labels.astype(np.int64)[np.newaxis] - 1, 0)[0]
        return bool((probabilities.max(0) - chosen <= 1e-5).all())

    return agree
