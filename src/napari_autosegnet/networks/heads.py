"""The last layer of a network that works coarser than its image."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

#: From this stride on, places are enlarged bilinearly: blocks of 2 x 2 pixels are not seen, and borders stay sharper.
_SMOOTH_FROM = 4


@cache
def _bilinear_kernel(stride: int) -> NDArray[np.float32]:
    """Weights (s * s, 1, 3, 3) of a place and its neighbors in each pixel of the place.

    Not a tensor: the first to ask could be an export, whose tensors hold no numbers.
    """
    # Where the centers of the pixels are, in places.
    offset = (np.arange(stride) + 0.5) / stride - 0.5
    distance = np.abs(np.arange(-1, 2) - offset[:, None])
    weights = np.maximum(1 - distance, 0).astype(np.float32)
    kernel: NDArray[np.float32] = np.einsum("ay,bx->abyx", weights, weights).reshape(stride**2, 1, 3, 3)
    return kernel


class EnlargingHead(nn.Module):
    """Logits of s x s pixels for each place of a feature map.

    What all pixels of a place have in common (``coarse``) is enlarged, bilinearly where a place has 4 x 4 pixels or
    more, and what they differ by (``fine``) is added, by sub-pixel convolution (Shi et al. 2016). The latter begins at
    zero: so what a network has learned in its first seconds gives smooth borders, not blocks, and labels do not change
    from pixel to pixel where it is in doubt (docs/benchmarks/sizes.md).

    Parameters
    ----------
    width : int
        Channels of the feature map.
    classes : int
    stride : int
        s.
    """

    def __init__(self, width: int, classes: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.coarse = nn.Conv2d(width, classes, 1)
        self.fine = nn.Conv2d(width, classes * stride**2, 1)

    def start(self) -> None:
        """Let all pixels of a place begin alike."""
        nn.init.zeros_(self.fine.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, classes, s * y, s * x) of features (n, width, y, x)."""
        coarse, fine = self.coarse(features), self.fine(features)
        if self.stride < _SMOOTH_FROM:
            repeated = functional.interpolate(coarse, scale_factor=self.stride, mode="nearest")
            return repeated + functional.pixel_shuffle(fine, self.stride)
        classes = coarse.shape[1]
        # As `functional.interpolate`, but pixel by pixel of a place, so that both parts are laid out at once.
        kernel = self.coarse.weight.new_tensor(_bilinear_kernel(self.stride)).repeat(classes, 1, 1, 1)
        enlarged = functional.conv2d(functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), kernel, groups=classes)
        return functional.pixel_shuffle(enlarged + fine, self.stride)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Older models have no coarse part, and the fine one's weights under the head's own name.
        for name in ("weight", "bias"):
            if prefix + name in state_dict:
                state_dict[f"{prefix}fine.{name}"] = state_dict.pop(prefix + name)
                state_dict[f"{prefix}coarse.{name}"] = torch.zeros(getattr(self.coarse, name).shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
