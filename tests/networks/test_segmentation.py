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
    st.booleans(),
)
def test_any_architecture_gives_logits_of_the_images_size(
    seed: int, levels: int, channels: int, classes: int, stem: int, multiple: int, smooth: bool
) -> None:
    network = SegmentationNetwork(
        sample(seed),
        in_channels=channels,
        classes=classes,
        levels=levels,
        base_width=4,
        max_width=8,
        stem_stride=stem,
        smooth=smooth,
    )
    y, x = network.stride * multiple, network.stride * (multiple + 1)
    assert network.eval()(torch.randn(1, channels, y, x)).shape == (1, classes, y, x)


def test_logits_are_smoothed_in_evaluation_only_and_the_border_is_as_sure_as_the_inside() -> None:
    network = SegmentationNetwork(
        sample(), in_channels=1, classes=3, levels=1, base_width=4, max_width=8, stem_stride=4, smooth=True
    )
    image = torch.zeros(1, 1, 4 * network.stride, 4 * network.stride)
    with torch.no_grad():
        # Each sub-pixel has a logit of its own, wherever it is.
        network.head.weight.zero_()
        network.head.bias.normal_()
        rough, smooth = network.train()(image), network.eval()(image)
        torch.testing.assert_close(rough[..., 4:, 4:], rough[..., :-4, :-4])
        assert smooth[..., 4:-4, 4:-4].std() < 0.5 * rough.std()
        network.head.bias.fill_(1)
        torch.testing.assert_close(network(image), torch.ones_like(smooth))


def test_what_was_trained_without_smoothing_is_computed_without_it() -> None:
    settings = NetworkSettings(base_width=4, max_width=8, stem_stride=4)
    new = NetworkSpecification.for_patches(64, settings, in_channels=1, classes=2, architecture=sample())
    old = NetworkSpecification.model_validate(new.model_dump(exclude={"smooth"}))
    assert (new.smooth, old.smooth) == (True, False)
    networks = [each.build().eval() for each in (new, old)]
    networks[1].load_state_dict(networks[0].state_dict())
    image = torch.randn(1, 1, 64, 64)
    assert not torch.allclose(networks[0](image), networks[1](image))


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
