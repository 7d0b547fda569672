"""A small problem that any network learns: is a pixel brighter than its surroundings?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_autosegnet.training.training_data import TrainingData


class Blobs:
    """Patches (n, 1, size, size) of smooth noise; class 1 where it is above zero."""

    def __init__(self, size: int = 32) -> None:
        self.size = size
        self.class_frequencies = torch.tensor([0.5, 0.5])

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        coarse = torch.randn(count, 1, self.size // 4, self.size // 4, generator=generator)
        smooth = functional.interpolate(coarse, scale_factor=4, mode="bilinear")
        noise = 0.2 * torch.randn(smooth.shape, generator=generator)
        return smooth + noise, (smooth[:, 0] > 0).long()


def blobs(size: int = 32) -> TrainingData:
    images, targets = Blobs(size).sample(8, torch.Generator().manual_seed(1000))
    return TrainingData(Blobs(size), images, targets, ("dark", "bright"))
