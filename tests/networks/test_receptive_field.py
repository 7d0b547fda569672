from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.baselines import PSPNet, UNet
from napari_autosegnet.networks.receptive_field import receptive_field_radius
from napari_autosegnet.networks.segmentation import SegmentationNetwork


def gradient_radius(network: nn.Module, guess: int) -> int:
    """Largest distance at which an input pixel has a gradient to an output pixel, over all alignments."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # All positive: nothing cancels, and no ReLU is shut.
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    network.eval().double()
    stride = int(network.stride)  # type: ignore[arg-type]
    half = ((guess + stride) // stride + 1) * stride
    radius = 0
    for phase in range(stride):
        image = torch.rand(1, 1, 2 * half + stride, 2 * half + stride, dtype=torch.double).requires_grad_()
        pixel = half + phase
        network(image)[0, 0, pixel, pixel].backward()
        assert image.grad is not None
        for axis in (0, 1):
            seen = image.grad[0, 0].abs().sum(axis).nonzero().flatten()
            radius = max(radius, pixel - int(seen.min()), int(seen.max()) - pixel)
    return radius


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 2), stem=st.sampled_from([1, 2, 4]))
def test_radius_is_that_of_the_gradient_at_the_worst_alignment(seed: int, levels: int, stem: int) -> None:
    architecture = SearchSpace().sample(np.random.default_rng(seed))
    network = SegmentationNetwork(
        architecture, in_channels=1, classes=2, levels=levels, base_width=3, max_width=4, stem_stride=stem
    )
    radius = receptive_field_radius(network)
    assert radius is not None
    # An enlarging head reads three places along each axis for a pixel, and the farthest has weight zero.
    assert radius - stem < gradient_radius(network, radius) <= radius


@pytest.mark.parametrize("levels", [1, 2])
def test_radius_of_the_u_net(levels: int) -> None:
    network = UNet(1, 2, base_width=2, levels=levels)
    radius = receptive_field_radius(network)
    assert radius is not None
    assert gradient_radius(network, radius) == radius


def test_pooling_over_the_whole_image_has_no_radius() -> None:
    assert receptive_field_radius(PSPNet(1, 2, base_width=4, depth=14)) is None


def test_an_unknown_operation_is_not_guessed() -> None:
    class Fourier(nn.Module):
        stride = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spectrum: torch.Tensor = torch.fft.fft2(x)
            return spectrum

    with pytest.raises(TypeError, match="reach of"):
        receptive_field_radius(Fourier())


def test_the_network_stays_in_its_mode() -> None:
    network = UNet(1, 2, base_width=2, levels=1).train()
    receptive_field_radius(network)
    assert network.training
