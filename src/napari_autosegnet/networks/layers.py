"""A layer of cells (AutoSegNet, section III.B and Fig. 2 to 4).

The same module serves the supernet, which holds every operation at every place, and a derived
network, which holds only those of one architecture; so a child of the supernet computes exactly
what the derived network with the same weights computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_autosegnet.architecture import LAYER_INPUTS, NODES_PER_CELL, Layer, SearchSpace
from napari_autosegnet.networks.operations import make_operation


class Resize(nn.Module):
    """Average pooling or bilinear upsampling by a power of two (`steps` > 0: larger)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        if self.steps < 0:
            return functional.avg_pool2d(x, 2**-self.steps)
        if self.steps > 0:
            return functional.interpolate(x, scale_factor=2**self.steps, mode="bilinear", align_corners=False)
        return x


class InputFit(nn.Module):
    """Brings h[t-2] or h[t-1], joined with a long skip, to the layer's size and width.

    Concatenation followed by a 1x1 convolution is computed as the sum of one 1x1 convolution per
    part, and a 1x1 convolution commutes with bilinear upsampling: so upsampled parts are convolved
    while they are small. Then batch norm and ReLU.

    Parameters
    ----------
    in_width, width : channels in and out
    steps : powers of two by which the input is to grow (negative: shrink)
    skip_width : channels of the long skip that may be joined, 0 for none
    """

    def __init__(
        self, in_width: int, width: int, *, steps: int = 0, skip_width: int = 0, track_statistics: bool = True
    ) -> None:
        super().__init__()
        self.resize = Resize(steps)
        self.convolution = nn.Conv2d(in_width, width, 1, bias=False)
        self.skip_convolution = nn.Conv2d(skip_width, width, 1, bias=False) if skip_width else None
        self.norm = nn.BatchNorm2d(width, track_running_stats=track_statistics)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        grows = self.resize.steps > 0
        fitted: Tensor = self.resize(self.convolution(x)) if grows else self.convolution(self.resize(x))
        if skip is not None:
            if self.skip_convolution is None:
                raise ValueError("this layer was built without a long skip")
            fitted = fitted + self.skip_convolution(skip)
        normed: Tensor = self.norm(fitted)
        return normed.relu_()


class SearchedLayer(nn.Module):
    """Three cells of two nodes each; cells that no other cell reads are concatenated.

    Parameters
    ----------
    choices : Layer | SearchSpace
        One layer, for a derived network, or all that a space allows, for the supernet.
    width : int
        Channels of every cell and of the output.
    in_widths : tuple[int, int]
        Channels of h[t-2] and h[t-1].
    steps : tuple[int, int]
        Powers of two by which each of these has to grow to the layer's size.
    skip_width : int
        Channels of the long skip joined to h[t-1], 0 for none.
    """

    def __init__(
        self,
        choices: Layer | SearchSpace,
        width: int,
        in_widths: tuple[int, int],
        steps: tuple[int, int],
        *,
        skip_width: int = 0,
        track_statistics: bool = True,
    ) -> None:
        super().__init__()
        self.layer = choices if isinstance(choices, Layer) else None
        self.width = width
        if isinstance(choices, Layer):
            read, cells, loose = choices.inputs_read, len(choices.cells), choices.loose_ends
        else:
            read, cells, loose = frozenset(range(LAYER_INPUTS)), choices.cells, tuple(range(choices.cells))
        self.fits = nn.ModuleDict(
            {
                str(index): InputFit(
                    in_widths[index],
                    width,
                    steps=steps[index],
                    skip_width=skip_width if index == 1 else 0,
                    track_statistics=track_statistics,
                )
                for index in sorted(read)
            }
        )
        self.operations = nn.ModuleDict()
        for cell in range(cells):
            for node in range(NODES_PER_CELL):
                names = (
                    (choices.cells[cell].nodes[node].operation,) if isinstance(choices, Layer) else choices.operations
                )
                for name in names:
                    self.operations[f"{cell}_{node}_{name}"] = make_operation(
                        name, width, track_statistics=track_statistics
                    )
        # One block of columns per cell that can be a loose end: concatenation, then a 1x1 convolution.
        self.loose = loose
        self.output = nn.Conv2d(width * len(loose), width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width, track_running_stats=track_statistics)

    def forward(
        self, before_previous: Tensor, previous: Tensor, skip: Tensor | None = None, layer: Layer | None = None
    ) -> Tensor:
        """Compute the layer; only the operations that it uses are run.

        Parameters
        ----------
        before_previous, previous : Tensor
            h[t-2] and h[t-1], (n, c, y, x); sizes and widths as declared.
        skip : Tensor, optional
            Long skip at the layer's size.
        layer : Layer, optional
            Which layer of the space to compute; needed in the supernet only.
        """
        layer = layer or self.layer
        if layer is None:
            raise ValueError("a supernet layer needs to be told which layer to compute")
        read = layer.inputs_read
        inputs: list[Tensor | None] = [None, None]
        if 0 in read:
            inputs[0] = self.fits["0"](before_previous)
        if 1 in read:
            inputs[1] = self.fits["1"](previous, skip)
        for index, cell in enumerate(layer.cells):
            parts: list[Tensor] = []
            for place, node in enumerate(cell.nodes):
                source = inputs[node.input]
                assert source is not None
                parts.append(self.operations[f"{index}_{place}_{node.operation}"](source))
            inputs.append(parts[0] + parts[1])
        ends = layer.loose_ends
        joined = torch.cat([end for i in ends if (end := inputs[LAYER_INPUTS + i]) is not None], dim=1)
        if ends == self.loose:
            output = self.output(joined)
        else:
            output = functional.conv2d(joined, self.columns(self.output.weight, ends))
        result: Tensor = self.norm(output).relu_()
        return result

    def columns(self, weight: Tensor, cells: Sequence[int]) -> Tensor:
        """Those columns of an output weight (o, i, 1, 1) that read some of the cells."""
        return torch.cat([weight[:, i * self.width : (i + 1) * self.width] for i in cells], dim=1)
