"""The operations of the search space: the four of AutoSegNet, section I, and the plain convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_autosegnet.architecture import Operation

HDC_RATES = (1, 2, 3)


class SeparableConvolution(nn.Module):
    """Depthwise convolution, then a 1x1 convolution, batch norm and ReLU: (n, width, y, x) in and out."""

    def __init__(self, width: int, kernel_size: int, *, track_statistics: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width, track_running_stats=track_statistics)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.pointwise(self._each_channel(x)))
        return normed.relu_()

    def _each_channel(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            # There are no matrices to multiply, and CPUs take several times longer in bfloat16.
            with torch.autocast("cpu", enabled=False):
                alone: Tensor = self.depthwise(x.float())
        else:
            alone = self.depthwise(x)
        return alone


class Convolution(nn.Module):
    """Convolution, batch norm and ReLU: (n, width, y, x) in and out."""

    def __init__(self, width: int, kernel_size: int, *, track_statistics: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(width, track_running_stats=track_statistics)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.convolution(x))
        return normed.relu_()


class HybridDilatedConvolution(nn.Module):
    """3x3 convolutions of rates 1, 2 and 3 side by side on the same input, then batch norm and ReLU.

    Each rate writes a third of the channels and the three are concatenated, so it costs as much as
    one dense 3x3 convolution and sees 7x7 pixels without holes (Wang et al. 2018).
    """

    def __init__(self, width: int, *, track_statistics: bool = True) -> None:
        super().__init__()
        rates = HDC_RATES[: max(1, min(width, len(HDC_RATES)))]
        widths = [width // len(rates) + (index < width % len(rates)) for index in range(len(rates))]
        self.branches = nn.ModuleList(
            nn.Conv2d(width, own_width, 3, padding=rate, dilation=rate, bias=False)
            for rate, own_width in zip(rates, widths, strict=True)
        )
        self.norm = nn.BatchNorm2d(width, track_running_stats=track_statistics)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(torch.cat([branch(x) for branch in self.branches], dim=1))
        return normed.relu_()


def make_operation(operation: Operation, width: int, *, track_statistics: bool = True) -> nn.Module:
    """Module of an operation on ``width`` channels.

    ``track_statistics=False`` makes batch norm use the batch's own statistics always, as the
    supernet needs.
    """
    match operation:
        case "sep_conv_3x3":
            return SeparableConvolution(width, 3, track_statistics=track_statistics)
        case "sep_conv_5x5":
            return SeparableConvolution(width, 5, track_statistics=track_statistics)
        case "hdc_3x3":
            return HybridDilatedConvolution(width, track_statistics=track_statistics)
        case "conv_3x3":
            return Convolution(width, 3, track_statistics=track_statistics)
        case "identity":
            return nn.Identity()
