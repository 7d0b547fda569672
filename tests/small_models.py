"""Models of random weights for tests that need one, not a good one."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.model import HaloFigure, Model
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.pixel_classifier.forest import PixelClassifier


@cache
def small_model(
    network: Any = "searched",
    *,
    context: int = 0,
    image_channels: int = 1,
    kind: Any = "global",
    stem_stride: Any = 1,
) -> Model:
    """Random weights, batch norms that do something, and probabilities that are neither 0 nor 1."""
    torch.manual_seed(0)
    specification = NetworkSpecification(
        network=network,
        architecture=SearchSpace(cells=1).sample(np.random.default_rng(1)) if network == "searched" else None,
        in_channels=image_channels * (2 * context + 1),
        classes=3,
        levels=1,
        base_width=4,
        max_width=8,
        stem_stride=stem_stride,
    )
    module = specification.build().train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # what one batch says is enough
    with torch.no_grad():
        module(torch.randn(4, specification.in_channels, 64, 64))
    return Model.create(
        module,
        specification,
        classes=default_classes(["Background", "2nd myelin", "2nd  myelin!"]),
        normalization=Normalization(kind=kind, mean=(120.0,) * image_channels, std=(50.0,) * image_channels),
        image_channels=image_channels,
        context=context,
        patch_size=32,
        halo=HaloFigure(pixels=22, agreement=0.9996),
        metrics={
            "validation": {"mean_iou": 0.81, "iou": {"Background": 0.9}, "pixels": {"Background": 1240}, "sections": 3}
        },
    )


@cache
def small_forest(*, context: int = 0, image_channels: int = 1, sigmas: tuple[float, ...] = (0.7, 2.0)) -> Model:
    """A forest of three classes that depend on all of its features."""
    generator = np.random.default_rng(0)
    channels = image_channels * (2 * context + 1)
    features = generator.normal(size=(300, 4 * len(sigmas) * channels)).astype(np.float32)
    targets = np.digitize(features.sum(1), np.quantile(features.sum(1), [0.3, 0.6]))
    forest = PixelClassifier.fit(features, targets, in_channels=channels, classes=3, sigmas=sigmas, trees=5, depth=6)
    return Model.create(
        forest,
        forest.specification,
        classes=default_classes(["background", "membrane", "cell"]),
        normalization=Normalization(mean=(120.0,) * image_channels, std=(50.0,) * image_channels),
        image_channels=image_channels,
        context=context,
        patch_size=32,
    )
