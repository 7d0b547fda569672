"""What inference needs of a model, be it loaded from a folder or still in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.model import HalfPrecision, HaloFigure


class AppliedModel(Protocol):
    """What inference needs of a `napari_autosegnet.model.Model`."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...
    @property
    def normalization(self) -> Normalization: ...
    @property
    def image_channels(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def halo(self) -> HaloFigure | None: ...
    @property
    def half_precision(self) -> Mapping[HalfPrecision, float]: ...
    @property
    def fingerprint(self) -> str: ...
    def network(self, device: torch.device | str = "cpu") -> nn.Module: ...
