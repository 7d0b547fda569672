"""The networks that the paper compares with: U-Net and PSPNet, trained and applied like a found one.

Both take and give what `SegmentationNetwork` does: ``forward(x (n, c, h, w)) -> logits (n, K, h, w)``
with ``h`` and ``w`` multiples of ``stride``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Depth = Literal[14, 26, 50, 101]

#: Bottleneck blocks of the four stages; 50 and 101 are those of He et al. 2016, 14 and 26 are small ones for a CPU.
_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
_EXPANSION = 4


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with same-padding and batch norm.

    Two 3x3 convolutions with batch norm and ReLU per level, max pooling down, 2x2 transposed
    convolutions up, encoder features concatenated. With the default width and depth it has
    31.04 M parameters for 1 channel and 2 classes (the original, without batch norm: 31.03 M).

    Parameters
    ----------
    in_channels
        Channels of the input.
    classes
        Channels of the output.
    base_width
        Channels at full resolution; doubled at each of the ``levels`` poolings.
    levels
        Number of poolings.
    reading_stride
        2 reads the image at half its resolution and enlarges the logits.
    """

    def __init__(
        self, in_channels: int, classes: int, base_width: int = 64, levels: int = 4, reading_stride: int = 1
    ) -> None:
        super().__init__()
        self.reading_stride = reading_stride
        self.stride: int = reading_stride * 2**levels
        widths = [base_width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            _two_convolutions(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2) for width in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(_two_convolutions(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_width, classes, kernel_size=1)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes, h, w)`` of images ``(n, in_channels, h, w)``."""
        if self.reading_stride > 1:
            x = functional.avg_pool2d(x, self.reading_stride)
        features: list[Tensor] = []
        for index, convolutions in enumerate(self.down):
            x = convolutions(x if index == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        features.pop()
        for upsample, convolutions in zip(self.upsample, self.up, strict=True):
            x = convolutions(torch.cat([features.pop(), upsample(x)], dim=1))
        logits: Tensor = self.head(x)
        if self.reading_stride > 1:
            return functional.interpolate(logits, scale_factor=self.reading_stride, mode="bilinear")
        return logits


class PSPNet(nn.Module):
    """PSPNet (Zhao et al. 2017): dilated residual encoder and pyramid pooling.

    The encoder is the authors' variant of ResNet-50: a stem of three 3x3 convolutions, bottleneck
    blocks, and dilation 2 and 4 instead of stride in the last two stages, so that the features have
    1/8 of the input's size. They are pooled to 1, 2, 3 and 6 bins per side, concatenated, and the logits
    enlarged to the input's size. The auxiliary loss is left out, and so is
    dropout, whose random numbers a resumed training would not repeat.

    With the default width and depth it has 46.72 M parameters for 3 channels and 21 classes, the sum over the
    parts of this layout (the paper states no count). The pooling over the whole image means
    that tiles and whole sections cannot agree exactly.

    Parameters
    ----------
    in_channels
        Channels of the input.
    classes
        Channels of the output.
    base_width
        Width of the first stage's bottleneck (64 in the paper); everything else follows from it.
    depth
        Layers of the residual encoder: 50 or 101 as published, 14 or 26 for a CPU.

    Raises
    ------
    ValueError
        When there is no encoder of this depth.
    """

    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int, classes: int, base_width: int = 64, depth: Depth = 50) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"no encoder of depth {depth}; choose one of {', '.join(map(str, _BLOCKS))}")
        self.stride: int = 8
        self.stem = nn.Sequential(
            *_convolution(in_channels, base_width, 3, stride=2),
            *_convolution(base_width, base_width, 3),
            *_convolution(base_width, 2 * base_width, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        width = 2 * base_width
        stages = []
        for stage, blocks in enumerate(_BLOCKS[depth]):
            inner = base_width * 2**stage
            for block in range(blocks):
                stride = 2 if stage == 1 and block == 0 else 1
                stages.append(_Bottleneck(width, inner, stride, dilation=(1, 1, 2, 4)[stage]))
                width = inner * _EXPANSION
        self.encoder = nn.Sequential(*stages)
        reduced = width // len(self.bins)
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *_convolution(width, reduced, 1)) for bins in self.bins
        )
        self.head = nn.Sequential(
            *_convolution(width + reduced * len(self.bins), reduced, 3),
            nn.Conv2d(reduced, classes, kernel_size=1),
        )
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes, h, w)`` of images ``(n, in_channels, h, w)``."""
        features = self.encoder(self.stem(x))
        pooled = [_resize(branch(features), features) for branch in self.pyramid]
        return _resize(self.head(torch.cat([features, *pooled], dim=1)), x)


class _Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions (He et al. 2016)."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        self.branch = nn.Sequential(
            *_convolution(in_channels, width, 1),
            *_convolution(width, width, 3, stride=stride, dilation=dilation),
            *_convolution(width, out_channels, 1)[:-1],
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(*_convolution(in_channels, out_channels, 1, stride=stride)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a batch has a single value per channel.

    That is the case in the 1x1 bin of the pyramid with one patch per batch, which has no variance.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def _convolution(
    in_channels: int, out_channels: int, size: int, stride: int = 1, dilation: int = 1
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Same-padded convolution, batch norm, ReLU."""
    padding = dilation * (size // 2)
    return (
        nn.Conv2d(in_channels, out_channels, size, stride, padding, dilation, bias=False),
        _BatchNorm(out_channels),
        nn.ReLU(inplace=True),
    )


def _two_convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(in_channels, out_channels, 3), *_convolution(out_channels, out_channels, 3))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def _initialize(network: nn.Module) -> None:
    """He's initialization, as in ResNet and the U-Net paper (section 3); none for what is only counted."""
    for module in network.modules():
        # Drawing on the meta device imports torch's compiler, which takes seconds.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
