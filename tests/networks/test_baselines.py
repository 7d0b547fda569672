"""The baselines have the published layout and size, and learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_autosegnet.networks.baselines import PSPNet, UNet
from napari_autosegnet.networks.receptive_field import receptive_field_radius
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.presets import train_settings


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_unet_has_the_published_size() -> None:
    with torch.device("meta"):
        network = UNet(1, 2)
    # 31,030,658 is the original layout with biases; batch norm has one parameter more per channel of the 3x3
    # convolutions than a bias.
    channels = 2 * (64 + 128 + 256 + 512 + 1024) + 2 * (512 + 256 + 128 + 64)
    assert parameters(network) == 31_030_658 + channels == 31_036_546
    assert network.stride == 16


def test_pspnet_has_the_size_of_its_published_layout() -> None:
    with torch.device("meta"):
        network = PSPNet(3, 21)
    residual = 23_508_032  # ResNet-50 without its classifier
    deep_stem = 103_296 + 20_480  # three 3x3 convolutions to 128 channels for one 7x7 to 64
    pyramid = 4 * (2048 * 512 + 2 * 512)
    head = 4096 * 512 * 9 + 2 * 512 + 512 * 21 + 21
    assert parameters(network) == residual + deep_stem + pyramid + head == 46_716_373
    assert network.stride == 8


@pytest.mark.parametrize(("levels", "reading_stride"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_unet_gives_logits_of_the_input_size(levels: int, reading_stride: int) -> None:
    network = UNet(3, 4, base_width=4, levels=levels, reading_stride=reading_stride)
    assert network.stride == reading_stride * 2**levels
    assert network(torch.zeros(2, 3, 16, 24)).shape == (2, 4, 16, 24)


@pytest.mark.parametrize("depth", [14, 26])
def test_pspnet_gives_logits_of_the_input_size(depth: int) -> None:
    network = PSPNet(2, 3, base_width=4, depth=depth)  # type: ignore[arg-type]
    assert network(torch.zeros(2, 2, 40, 64)).shape == (2, 3, 40, 64)


def test_pspnet_features_have_an_eighth_of_the_input_size() -> None:
    network = PSPNet(1, 2, base_width=4, depth=14)
    assert network.encoder(network.stem(torch.zeros(1, 1, 64, 96))).shape == (1, 128, 8, 12)


def test_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="no encoder of depth 34"):
        PSPNet(1, 2, depth=34)  # type: ignore[arg-type]


def test_unet_sees_as_far_as_its_layout_says_and_pspnet_the_whole_image() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 1, 128, 128, requires_grad=True)
    UNet(1, 2, base_width=4, levels=2).eval()(x + torch.randn(1, 1, 128, 128))[0, :, 64, 64].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert seen.min() > 0 and seen.max() < 127

    x = torch.zeros(1, 1, 128, 128, requires_grad=True)
    PSPNet(1, 2, base_width=4, depth=14).eval()(x + torch.randn(1, 1, 128, 128))[0, :, 64, 64].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, 0, 0] != 0).any() and (x.grad[0, 0, 127] != 0).any()


def test_unet_at_half_the_resolution_is_as_deep_as_at_the_whole() -> None:
    settings = train_settings("fast").network
    whole, half = (
        NetworkSpecification.for_patches(128, settings, in_channels=1, classes=2, network=kind)
        for kind in ("unet", "unet-half")
    )
    assert whole.stride == half.stride and half.stem_stride == 2 and half.network == "unet"
    network = half.build()
    reach = receptive_field_radius(network)
    assert reach is not None
    x = torch.zeros(1, 1, 256, 256, requires_grad=True)
    network.eval()(x + torch.randn(1, 1, 256, 256))[0, :, 128, 128].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert 128 - reach <= seen.min() < 90 and 165 < seen.max() <= 128 + reach


SMALL = {
    "unet": lambda: UNet(1, 2, base_width=4, levels=2),
    "unet-half": lambda: UNet(1, 2, base_width=4, levels=2, reading_stride=2),
    "pspnet": lambda: PSPNet(1, 2, base_width=4, depth=14),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_one_learns_on_the_cpu(kind: str) -> None:
    torch.manual_seed(0)
    network = SMALL[kind]()
    image = torch.randn(4, 1, 32, 32)
    target = torch.zeros(4, 32, 32, dtype=torch.int64)
    target[:, 8:24, 8:24] = 1
    image += 3 * target[:, None]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(image), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_pspnet_trains_with_one_patch_per_batch() -> None:
    network = PSPNet(1, 2, base_width=4, depth=14).train()
    network(torch.randn(1, 1, 32, 32)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
