"""Stacks of two classes, for tests of patches."""

from __future__ import annotations

import numpy as np
import torch

from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, pair_stacks
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Region

#: Pixels stay what they are.
AS_IT_IS = Normalization(mean=(0.0,), std=(1.0,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stack_of(image: np.ndarray, labels: np.ndarray, channel_axis: int | None = None) -> LabeledStack:
    images = [image_from_array(image, channel_axis=channel_axis)]
    return pair_stacks(images, [image_from_array(labels)], parse_classes("1:a,2:b"))[0]


def two_classes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 3, shape, dtype=np.uint8)


def full(section: int, height: int, width: int) -> Region:
    return Region(0, section, (0, height), (0, width))
