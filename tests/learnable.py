"""A small problem that any network learns: is a pixel brighter than its surroundings?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_autosegnet.training.trainer import TrainingData


class Blobs:
    """Patches (n, 1, size, size) of smooth noise; class 1 where it is above zero."""

    def __init__(self, size: int = 32, seed: int = 0) -> None:
        self.size = size
        self.generator = torch.Generator().manual_seed(seed)
        self.class_frequencies = torch.tensor([0.5, 0.5])

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        coarse = torch.randn(count, 1, self.size // 4, self.size // 4, generator=self.generator)
        smooth = functional.interpolate(coarse, scale_factor=4, mode="bilinear")
        noise = 0.2 * torch.randn(smooth.shape, generator=self.generator)
        return smooth + noise, (smooth[:, 0] > 0).long()


def blobs(size: int = 32, seed: int = 0) -> TrainingData:
    images, targets = Blobs(size, 1000).sample(8)
    return TrainingData(Blobs(size, seed), images, targets, ("dark", "bright"))
