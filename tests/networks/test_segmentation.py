"""The network that an architecture becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.architecture import Architecture, Cell, Layer, Node, SearchSpace
from napari_autosegnet.networks.segmentation import SegmentationNetwork, level_widths, number_of_levels
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.settings import NetworkSettings


def sample(seed: int = 0, **space: object) -> Architecture:
    return SearchSpace(**space).sample(np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("size", "ratio", "levels"),
    [(64, 32, 2), (512, 32, 5), (512, 16, 4), (1024, 32, 5), (128, 32, 3), (160, 32, 3), (32, 32, 1), (16, 32, 1)],
)
def test_depth_follows_from_the_size(size: int, ratio: int, levels: int) -> None:
    assert number_of_levels(size, min_ratio=ratio) == levels


def test_widths_double_up_to_the_largest() -> None:
    assert level_widths(4, 16, 64) == (16, 32, 64, 64, 64)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(2, 5),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 2),
)
def test_any_architecture_gives_logits_of_the_images_size(
    seed: int, levels: int, channels: int, classes: int, stem: int, multiple: int
) -> None:
    network = SegmentationNetwork(
        sample(seed),
        in_channels=channels,
        classes=classes,
        levels=levels,
        base_width=4,
        max_width=8,
        stem_stride=stem,
    )
    y, x = network.stride * multiple, network.stride * (multiple + 1)
    assert network.eval()(torch.randn(1, channels, y, x)).shape == (1, classes, y, x)


def test_transfer_from_64_to_512_restacks_the_same_layers() -> None:
    architecture = sample(3)
    small = NetworkSpecification.for_patches(
        64, NetworkSettings(base_width=8, max_width=32), in_channels=1, classes=2, architecture=architecture
    )
    large = NetworkSpecification.for_patches(
        512, NetworkSettings(base_width=8, max_width=32), in_channels=1, classes=2, architecture=architecture
    )
    built = [specification.build() for specification in (small, large)]
    assert [len(network.down) for network in built] == [2, 5]
    assert [len(network.up) for network in built] == [2, 5]
    for network in built:
        assert {layer.layer for layer in network.down} == {architecture.down}
        assert network.bridge.layer == architecture.bridge
        assert {layer.layer for layer in network.up} == {architecture.up}


@pytest.mark.parametrize("skip", [True, False])
def test_a_long_skip_carries_what_the_bottom_loses(skip: bool) -> None:
    """With h[t-2] never read, the finest detail reaches the output through the skip alone."""
    plain = Layer(cells=(Cell(nodes=(Node(operation="identity", input=1), Node(operation="sep_conv_3x3", input=1))),))
    network = SegmentationNetwork(
        Architecture(down=plain, bridge=plain, up=plain, skips=(skip,)),
        in_channels=1,
        classes=2,
        levels=1,
        base_width=4,
        max_width=8,
    )
    names = [name for name, _ in network.named_parameters() if "skip_convolution" in name]
    assert bool(names) == skip
    if skip:
        network(torch.randn(2, 1, 16, 16)).sum().backward()
        assert network.get_parameter(names[0]).grad.abs().sum() > 0


def test_the_paper_preset_has_the_papers_parameters() -> None:
    """41.93 million for 512 x 512 x 1 (AutoSegNet, section IV.C), for the median of random architectures."""
    preset = train_settings("paper")
    space = search_settings("paper").space.model_copy(update={"levels": 4})
    assert space.operations == ("sep_conv_3x3", "sep_conv_5x5", "hdc_3x3", "identity")
    counts = []
    with torch.device("meta"):
        for seed in range(25):
            specification = NetworkSpecification.for_patches(
                512, preset.network, in_channels=1, classes=2, architecture=space.sample(np.random.default_rng(seed))
            )
            counts.append(parameter_count(specification.build()))
    assert specification.levels == 4
    assert np.median(counts) == pytest.approx(41.93e6, rel=0.05)


def test_wrong_sizes_are_refused() -> None:
    network = SegmentationNetwork(sample(), in_channels=1, classes=2, levels=2, base_width=4, max_width=8)
    with pytest.raises(ValueError, match="multiples of 4"):
        network(torch.zeros(1, 1, 18, 16))
