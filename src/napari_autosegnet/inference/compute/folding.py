"""Batch norm folded into the convolutions before it: the same function in fewer passes over memory.

The modules of this package are folded by kind, because batch norm follows several convolutions at once in
some of them (branches side by side, or a long skip added before the norm).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from napari_autosegnet.networks.layers import InputFit, SearchedLayer
from napari_autosegnet.networks.operations import Convolution, HybridDilatedConvolution, SeparableConvolution


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy of a network in evaluation mode without the batch norms that can be folded.

    The result is the same function up to rounding; batch norms elsewhere stay as they are.
    """
    folded = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in list(folded.modules()):
            match module:
                case Convolution():
                    _fold(module, [module.convolution])
                case SeparableConvolution():
                    _fold(module, [module.pointwise])
                case HybridDilatedConvolution():
                    _fold(module, list(module.branches), side_by_side=True)
                case InputFit():
                    # The convolution commutes with resizing, and a sum of convolutions fractions one bias. A skip that
                    # was built is always added, so the bias may stand in the first one.
                    parts = [module.convolution, module.skip_convolution]
                    _fold(module, [part for part in parts if part is not None])
                case SearchedLayer() if module.layer is not None:
                    _fold(module, [module.output])
                case nn.Sequential():
                    for place in range(1, len(module)):
                        _fold(module, [module[place - 1]], str(place))
    return folded


def _fold(parent: nn.Module, convolutions: list[nn.Module], name: str = "norm", *, side_by_side: bool = False) -> None:
    """Fold a batch norm of ``parent`` into convolutions whose results are added, or concatenated, before it."""
    norm = parent.get_submodule(name)
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return
    if not all(type(convolution) is nn.Conv2d for convolution in convolutions):
        return
    start = 0
    for place, convolution in enumerate(convolutions):
        assert isinstance(convolution, nn.Conv2d)
        channels = slice(start, start + convolution.out_channels) if side_by_side else slice(None)
        weight, bias = _folded(convolution, norm, channels)
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        if side_by_side or place == 0:
            convolution.bias = nn.Parameter(bias, requires_grad=False)
        start = channels.stop or 0
    setattr(parent, name, nn.Identity())


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d, channels: slice) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean[channels],
        norm.running_var[channels],
        norm.eps,
        None if norm.weight is None else norm.weight[channels],
        None if norm.bias is None else norm.bias[channels],
    )
    return weight.detach(), bias.detach()
