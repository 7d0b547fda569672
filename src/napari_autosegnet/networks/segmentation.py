"""The network: an architecture stacked as deep as the image size asks (AutoSegNet, Fig. 1 and 6).

stem, searched down layers each followed by pooling, a hybrid dilated convolution at the smallest
size, the searched bridge, and as many searched up layers, each preceded by upsampling. Softmax is
left to the loss and to whoever wants probabilities.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.networks.heads import EnlargingHead
from napari_autosegnet.networks.layers import InputFit, SearchedLayer
from napari_autosegnet.networks.operations import HybridDilatedConvolution


def number_of_levels(size: int, *, min_size: int = 16, min_ratio: int = 32) -> int:
    """Number of down layers for square inputs of ``size`` pixels (AutoSegNet, section IV.B).

    The smallest feature map is max(min_size, size / min_ratio); a size that is no power of two times
    that rounds down. Never less than one.
    """
    smallest = max(min_size, size / min_ratio)
    return max(1, math.floor(math.log2(size / smallest) + 1e-9))


def level_widths(levels: int, base_width: int, max_width: int) -> tuple[int, ...]:
    """Channels at each level and at the bottom: doubled at each down layer, up to ``max_width``."""
    return tuple(min(base_width * 2**level, max_width) for level in range(levels + 1))


class SegmentationNetwork(nn.Module):
    """Network of an architecture, or the network that holds all architectures of a search space.

    Parameters
    ----------
    choices : Architecture | SearchSpace
        An architecture gives the derived network; a space gives the supernet's weights, with batch
        norm on batch statistics, and `forward` needs to be told the architecture.
    in_channels, classes : int
        Channels of the input and number of classes (>= 2).
    levels : int
        Searched down layers; see `number_of_levels`.
    base_width, max_width : int
        See `level_widths`.
    stem_stride : int
        1 computes at full resolution throughout, as the paper does. 2, 4 or 8 lets the stem reduce the
        image and an `EnlargingHead` enlarge the logits, at a quarter, a sixteenth and so on of the work;
        the levels it takes over are not searched.
    """

    def __init__(
        self,
        choices: Architecture | SearchSpace,
        *,
        in_channels: int,
        classes: int,
        levels: int,
        base_width: int,
        max_width: int,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        track = isinstance(choices, Architecture)
        self.architecture = choices if isinstance(choices, Architecture) else None
        self.levels = levels
        self.stem_stride = stem_stride
        self.stride = stem_stride * 2**levels
        widths = level_widths(levels, base_width, max_width)

        self.stem = nn.Sequential(
            # Symmetric about the pixels that it stands for: 3x3, or twice the stride.
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
            if stem_stride == 1
            else nn.Conv2d(
                in_channels, widths[0], 2 * stem_stride, stride=stem_stride, padding=stem_stride // 2, bias=False
            ),
            nn.BatchNorm2d(widths[0], track_running_stats=track),
            nn.ReLU(inplace=True),
        )

        def part(kind: str) -> object:
            return choices if isinstance(choices, SearchSpace) else getattr(choices, kind)

        def searched(kind: str, width: int, before: tuple[int, int], now: tuple[int, int], skip: int) -> SearchedLayer:
            return SearchedLayer(
                part(kind),  # type: ignore[arg-type]
                width,
                (before[0], now[0]),
                (before[1], now[1]),
                skip_width=skip,
                track_statistics=track,
            )

        # (width, powers of two by which it has to grow) of h[t-2] and h[t-1] before each layer.
        before, now = (widths[0], 0), (widths[0], 0)
        self.down = nn.ModuleList()
        for level in range(levels):
            self.down.append(searched("down", widths[level], before, now, 0))
            before, now = (now[0], now[1] - 1), (widths[level], 0)

        self.bottom_fit = InputFit(now[0], widths[-1], track_statistics=track)
        self.bottom = HybridDilatedConvolution(widths[-1], track_statistics=track)
        before, now = (now[0], 0), (widths[-1], 0)
        self.bridge = searched("bridge", widths[-1], before, now, 0)
        before, now = now, (widths[-1], 0)

        self.up = nn.ModuleList()
        for from_bridge in range(levels):
            level = levels - 1 - from_bridge
            before, now = (before[0], before[1] + 1), (now[0], now[1] + 1)
            joined = isinstance(choices, SearchSpace) and choices.long_skips
            if isinstance(choices, Architecture):
                joined = choices.skip_at(from_bridge)
            self.up.append(searched("up", widths[level], before, now, widths[level] if joined else 0))
            before, now = now, (widths[level], 0)
        self.head = (
            nn.Conv2d(widths[0], classes, 1) if stem_stride == 1 else EnlargingHead(widths[0], classes, stem_stride)
        )
        self.apply(_initialize)

    def forward(self, x: Tensor, architecture: Architecture | None = None) -> Tensor:
        """Logits (n, classes, y, x) of images (n, in_channels, y, x); y and x are multiples of ``stride``."""
        architecture = architecture or self.architecture
        if architecture is None:
            raise ValueError("a network of a search space needs to be told the architecture to compute")
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError(f"input of {tuple(x.shape[-2:])} pixels; both sides must be multiples of {self.stride}")
        before = now = self.stem(x)
        encoded: list[Tensor] = []
        for layer in self.down:
            out = layer(before, now, layer=architecture.down)
            encoded.append(out)
            before, now = now, functional.max_pool2d(out, 2)
        before, now = now, self.bottom(self.bottom_fit(now))
        before, now = now, self.bridge(before, now, layer=architecture.bridge)
        for from_bridge, layer in enumerate(self.up):
            skip = encoded[-1 - from_bridge] if architecture.skip_at(from_bridge) else None
            before, now = now, layer(before, now, skip=skip, layer=architecture.up)
        logits: Tensor = self.head(now)
        return logits


def _initialize(module: nn.Module) -> None:
    """He initialization for what ReLU follows; none for networks that are only counted."""
    # Drawing on the meta device imports torch's compiler, which takes seconds.
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, EnlargingHead):
        module.start()
