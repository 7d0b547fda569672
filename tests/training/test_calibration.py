"""Probabilities that mean what they say, and labels that stay."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.baselines import PSPNet, UNet
from napari_autosegnet.networks.heads import EnlargingHead
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.training.calibration import HIGHEST_TEMPERATURE, calibrate, fit_temperature
from napari_autosegnet.training.threads import WorkerThreads

THREADS = WorkerThreads(torch.device("cpu"))


def drawn(logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Truths (pixels,) that are as likely as the logits (pixels, K) say."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@settings(deadline=None, max_examples=20)
@given(temperature=st.floats(0.3, 5), classes=st.integers(2, 5))
def test_the_temperature_that_was_taken_away_is_found(temperature: float, classes: int) -> None:
    logits = 2 * torch.randn(20_000, classes, generator=torch.Generator().manual_seed(classes))
    assert fit_temperature(logits * temperature, drawn(logits)) == pytest.approx(temperature, rel=0.1)


def test_logits_that_say_nothing_or_everything_stay_within_bounds() -> None:
    truths = torch.tensor([0, 1, 0, 1])
    right = torch.nn.functional.one_hot(truths, 2).float() * 5
    assert 1 / HIGHEST_TEMPERATURE <= fit_temperature(right, truths) < 1
    assert 1 < fit_temperature(right.flip(1), truths) <= HIGHEST_TEMPERATURE * 1.01
    assert fit_temperature(torch.zeros(4, 2), truths) == 1
    assert fit_temperature(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)) == 1


NETWORKS = {
    "searched": lambda: SegmentationNetwork(
        SearchSpace().plain, in_channels=1, classes=3, levels=2, base_width=8, max_width=16, stem_stride=2
    ),
    "quarter": lambda: SegmentationNetwork(
        SearchSpace().plain, in_channels=1, classes=3, levels=2, base_width=8, max_width=16, stem_stride=4
    ),
    "unet": lambda: UNet(1, 3, base_width=8, levels=2),
    "pspnet": lambda: PSPNet(1, 3, base_width=8, depth=14),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_scaled_as_a_whole_and_its_labels_stay(name: str) -> None:
    torch.manual_seed(0)
    network: nn.Module = NETWORKS[name]()
    if isinstance(head := getattr(network, "head", None), EnlargingHead):
        nn.init.normal_(head.fine.weight)
    images = torch.randn(4, 1, 32, 32)
    before = copy.deepcopy(network).eval()
    with torch.no_grad():
        logits = before(images)
    # Truths a third as sure as the network says, and half of them not annotated.
    truths = drawn((logits / 3).movedim(1, -1).reshape(-1, 3)).reshape(4, 32, 32)
    truths[:, :16] = -1
    temperature = calibrate(network, images, truths, batch_size=3, threads=THREADS)
    assert temperature > 1
    with torch.no_grad():
        after = network(images)
    torch.testing.assert_close(after, logits / temperature, atol=1e-4, rtol=1e-3)
    assert (after.argmax(1) == logits.argmax(1)).float().mean() > 0.999
    assert calibrate(network, images, truths, batch_size=4, threads=THREADS) == pytest.approx(1, abs=0.02)


def test_without_annotation_nothing_changes() -> None:
    network = NETWORKS["unet"]()
    before = copy.deepcopy(network.state_dict())
    assert calibrate(network, torch.randn(1, 1, 8, 8), torch.full((1, 8, 8), -1), batch_size=1, threads=THREADS) == 1
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
