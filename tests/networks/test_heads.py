"""The head of a network that works coarser than its image."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.heads import EnlargingHead
from napari_autosegnet.networks.segmentation import SegmentationNetwork


def coarse_network(stride: int) -> SegmentationNetwork:
    return SegmentationNetwork(
        SearchSpace(cells=1).plain,
        in_channels=1,
        classes=3,
        levels=1,
        base_width=8,
        max_width=8,
        stem_stride=stride,
    ).eval()


@pytest.mark.parametrize(("stride", "mode"), [(2, "nearest"), (4, "bilinear"), (8, "bilinear")])
def test_a_new_network_enlarges_its_logits(stride: int, mode: str) -> None:
    network = coarse_network(stride)
    assert isinstance(network.head, EnlargingHead)
    places: list[torch.Tensor] = []
    network.head.coarse.register_forward_hook(lambda module, given, result: places.append(result))
    logits = network(torch.randn(1, 1, 8 * stride, 8 * stride))
    enlarged = functional.interpolate(places[0], scale_factor=stride, mode=mode)
    torch.testing.assert_close(logits, enlarged)
    assert logits.std() > 0.01, "places differ, and so do classes"


def test_pixels_of_a_place_learn_to_differ_from_the_first_step_on() -> None:
    head = EnlargingHead(4, 2, 4)
    head.start()
    features = torch.randn(1, 4, 8, 8)
    wanted = torch.randn(1, 2, 32, 32)
    (head(features) - wanted).square().sum().backward()
    assert head.fine.weight.grad is not None
    per_pixel = head.fine.weight.grad.view(2, 16, 4)
    assert per_pixel.std(1).min() > 0.1


def test_a_head_computes_what_it_did_after_an_export() -> None:
    """Where an export came first, its tensors without numbers were remembered, and `export` ended in a traceback."""
    head = EnlargingHead(4, 2, 5)  # in a size that no other test has asked for
    features = torch.randn(1, 4, 8, 8)
    program = torch.export.export(head, (features,))
    torch.testing.assert_close(program.module()(features), head(features))
    assert np.isfinite(head(features).detach().numpy()).all()


def test_a_model_from_before_heads_had_two_parts_computes_the_same() -> None:
    network = coarse_network(4)
    assert isinstance(network.head, EnlargingHead)
    nn.init.normal_(network.head.fine.weight)
    images = torch.randn(2, 1, 32, 32)
    before = copy.deepcopy(network)
    assert isinstance(before.head, EnlargingHead)
    nn.init.zeros_(before.head.coarse.weight)
    nn.init.zeros_(before.head.coarse.bias)
    old = {
        name.replace("head.fine.", "head."): value
        for name, value in network.state_dict().items()
        if not name.startswith("head.coarse.")
    }
    with torch.device("meta"):
        built = coarse_network(4)
    built.load_state_dict({name: value.clone() for name, value in old.items()}, assign=True)
    assert "head.weight" in old, "what was given is not changed"
    torch.testing.assert_close(built.eval()(images), before(images), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        coarse_network(2).load_state_dict(old)
