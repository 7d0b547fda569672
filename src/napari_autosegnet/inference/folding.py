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
from napari_autosegnet.networks.operations import HybridDilatedConvolution, SeparableConvolution


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy of a network in evaluation mode without the batch norms that can be folded.

    The result is the same function up to rounding; batch norms elsewhere stay as they are.
    """
    folded = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in list(folded.modules()):
            match module:
                case SeparableConvolution():
                    module.norm = _fold([module.pointwise], module.norm)
                case HybridDilatedConvolution():
                    module.norm = _fold_side_by_side(list(module.branches), module.norm)
                case InputFit():
                    # The convolution commutes with resizing, and a sum of convolutions shares one bias. A skip that
                    # was built is always added, so the bias may stand in the first one.
                    parts = [module.convolution, module.skip_convolution]
                    module.norm = _fold([part for part in parts if part is not None], module.norm)
                case SearchedLayer() if module.layer is not None:
                    module.norm = _fold([module.output], module.norm)
                case nn.Sequential():
                    for place, (first, second) in enumerate(zip(list(module), list(module)[1:], strict=False)):
                        module[place + 1] = _fold([first], second)
    return folded


def _can_fold(norm: nn.Module) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None


def _fold(convolutions: list[nn.Module], norm: nn.Module) -> nn.Module:
    """Fold ``norm`` into convolutions whose results are added; gives what stands in its place."""
    if not _can_fold(norm) or not all(type(convolution) is nn.Conv2d for convolution in convolutions):
        return norm
    assert isinstance(norm, nn.BatchNorm2d)
    for place, convolution in enumerate(convolutions):
        assert isinstance(convolution, nn.Conv2d)
        weight, bias = _folded(convolution, norm, slice(None))
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        if place == 0:
            convolution.bias = nn.Parameter(bias, requires_grad=False)
    return nn.Identity()


def _fold_side_by_side(convolutions: list[nn.Module], norm: nn.Module) -> nn.Module:
    """Fold ``norm`` into convolutions whose results are concatenated."""
    if not _can_fold(norm) or not all(type(convolution) is nn.Conv2d for convolution in convolutions):
        return norm
    assert isinstance(norm, nn.BatchNorm2d)
    start = 0
    for convolution in convolutions:
        assert isinstance(convolution, nn.Conv2d)
        stop = start + convolution.out_channels
        weight, bias = _folded(convolution, norm, slice(start, stop))
        convolution.weight = nn.Parameter(weight, requires_grad=False)
        convolution.bias = nn.Parameter(bias, requires_grad=False)
        start = stop
    return nn.Identity()


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
