"""SGD or Muon: what is orthogonalised, and that the pace no longer follows the gradients."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.heads import EnlargingHead
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.settings import OptimizationSettings
from napari_autosegnet.training.optimizers import Adam, make_optimizer, orthogonalised


@given(
    count=st.integers(1, 3), rows=st.integers(1, 24), columns=st.integers(1, 24), seed=st.integers(0, 1000), tall=...
)
def test_orthogonalised_matrices_keep_their_singular_vectors(
    count: int, rows: int, columns: int, seed: int, tall: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    small = min(rows, columns)
    left = torch.linalg.qr(torch.randn(count, rows, small, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(count, columns, small, generator=generator)).Q
    values = 10 ** (-2 * torch.rand(count, small, generator=generator)) * (1000.0 if tall else 0.001)
    matrices = (left * values[:, None]) @ right.mT
    found = orthogonalised(matrices)
    inner = left.mT @ found @ right / max(1.0, rows / columns) ** 0.5
    off_diagonal = inner - torch.diag_embed(torch.diagonal(inner, dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-3
    spread = torch.diagonal(inner, dim1=1, dim2=2)
    assert spread.min() > 0.3
    assert spread.max() < 1.3


def test_equal_shapes_together_are_what_each_is_alone() -> None:
    matrices = torch.randn(5, 8, 40, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonalised(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices), alone)


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(2, 8, 12)), torch.zeros(2, 8, 12))


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.Conv2d(16, 8, 1, bias=False),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )


def test_only_hidden_convolutions_are_orthogonalised_and_nothing_is_left_out() -> None:
    network = small_network()
    optimizer = make_optimizer(network, OptimizationSettings())
    orthogonal = [p for group in optimizer.groups if group.orthogonal for p in group.weights]
    assert [tuple(p.shape) for p in orthogonal] == [(8, 16, 1, 1), (16, 8, 3, 3)]
    listed = [id(p) for group in optimizer.groups for p in group.weights]
    assert sorted(listed) == sorted(id(p) for p in network.parameters())
    assert [group.decay for group in optimizer.groups] == [1e-4, 0.0, 1e-4]


def test_muon_leaves_the_head_alone_whose_pixels_learn_from_less() -> None:
    chain = SearchSpace(cells=1, levels=1).plain
    network = SegmentationNetwork(chain, in_channels=1, classes=3, levels=1, base_width=8, max_width=8, stem_stride=4)
    settings = OptimizationSettings()
    optimizer = make_optimizer(network, settings)
    head = network.head
    assert isinstance(head, EnlargingHead)
    for part, rate in ((head.coarse, settings.learning_rate), (head.fine, 4 * settings.learning_rate)):
        (group,) = [group for group in optimizer.groups if any(p is part.weight for p in group.weights)]
        assert not group.orthogonal and group.first_rate == rate and group.decay == settings.weight_decay
    listed = [id(p) for group in optimizer.groups for p in group.weights]
    assert sorted(listed) == sorted(id(p) for p in network.parameters())


def test_sgd_is_torchs_sgd() -> None:
    network = small_network()
    reference = copy.deepcopy(network)
    settings = OptimizationSettings(optimizer="sgd", weight_decay=0.01)
    ours = make_optimizer(network, settings)
    decaying = [
        {"params": [p for p in reference.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in reference.parameters() if p.ndim <= 1]},
    ]
    theirs = torch.optim.SGD(decaying, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    images = torch.randn(2, 1, 8, 8)
    for _ in range(3):
        for each, optimizer in ((network, ours), (reference, theirs)):
            optimizer.zero_grad()
            each(images).square().mean().backward()
            optimizer.step()
    for mine, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_adam_is_torchs_adam_and_goes_on_from_its_state() -> None:
    network = nn.Linear(6, 4)
    reference = copy.deepcopy(network)
    ours, theirs = Adam(network.parameters(), 0.01), torch.optim.Adam(reference.parameters(), lr=0.01)
    for turn in range(6):
        images = torch.randn(5, 6)
        for each, optimizer in ((network, ours), (reference, theirs)):
            optimizer.zero_grad()
            each(images).square().sum().backward()
            optimizer.step()
        if turn == 2:
            state, ours = copy.deepcopy(ours.state_dict()), Adam(network.parameters(), 0.01)
            ours.load_state_dict(state)
    for mine, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_has_the_size_of_the_learning_rate_whatever_the_gradient(memory_format: torch.memory_format) -> None:
    network = nn.Conv2d(8, 8, 3, bias=False).to(memory_format=memory_format)  # type: ignore[call-overload]
    before = network.weight.detach().clone()
    optimizer = make_optimizer(network, OptimizationSettings(weight_decay=0.0, muon_learning_rate=0.02))
    optimizer.factor = 0.5
    network.weight.grad = 1e-6 * torch.randn(before.shape).contiguous(memory_format=memory_format)
    gradient = network.weight.grad.clone()
    optimizer.step()
    change = (network.weight.detach() - before).flatten(1)
    torch.testing.assert_close(change, -0.01 * orthogonalised(gradient.flatten(1)[None])[0], atol=1e-6, rtol=1e-3)
    largest = torch.linalg.svdvals(change)[0]
    assert 0.006 < largest < 0.013


def test_weights_without_a_gradient_stay_and_the_state_can_be_restored() -> None:
    """In a search each step uses one architecture; a resumed training continues with its momentum."""
    network = small_network()
    optimizer = make_optimizer(network, OptimizationSettings())
    images = torch.randn(2, 1, 8, 8)
    network(images).square().mean().backward()
    network[4].weight.grad = None
    kept = network[4].weight.detach().clone()
    optimizer.step()
    assert torch.equal(network[4].weight, kept)

    restored = copy.deepcopy(network)
    other = make_optimizer(restored, OptimizationSettings())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, stepped in ((network, optimizer), (restored, other)):
        stepped.zero_grad()
        each(images).square().mean().backward()
        stepped.step()
    for mine, theirs in zip(network.parameters(), restored.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_muon_learns_what_badly_scaled_inputs_hide_from_sgd() -> None:
    """One of the directions of the input is a hundred times smaller; the target depends on it alone."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.full((8, 1, 1), 1.0)
    scales[0] = 0.01
    images = torch.randn(64, 8, 1, 1, generator=generator) * scales
    wanted = images[:, :1] * 100 * torch.ones(1, 8, 1, 1)
    losses = {}
    for name in ("sgd", "muon"):
        torch.manual_seed(0)
        network = nn.Conv2d(8, 8, 1, bias=False)
        rate = {"learning_rate": 0.1, "muon_learning_rate": 5.0}
        optimizer = make_optimizer(network, OptimizationSettings(optimizer=name, weight_decay=0.0, **rate))
        for step in range(200):
            optimizer.factor = 1 - step / 200
            optimizer.zero_grad()
            loss = (network(images) - wanted).square().mean()
            loss.backward()
            optimizer.step()
        losses[name] = float(loss.detach())
    assert losses["sgd"] > 0.5
    assert losses["muon"] < 0.1


def test_the_papers_preset_trains_with_sgd() -> None:
    assert train_settings("paper").optimization.optimizer == search_settings("paper").optimization.optimizer == "sgd"
    assert train_settings("fast").optimization.optimizer == search_settings("fast").optimization.optimizer == "muon"


def test_search_and_training_start_without_torchs_compiler() -> None:
    """It takes more than two seconds to import, and nothing here is compiled."""
    code = (
        "import sys, torch; from torch import nn\n"
        "from napari_autosegnet.architecture import SearchSpace\n"
        "from napari_autosegnet.search.strategies import ReinforceStrategy\n"
        "from napari_autosegnet.settings import SearchSettings\n"
        "from napari_autosegnet.settings import OptimizationSettings\n"
        "from napari_autosegnet.training.optimizers import make_optimizer\n"
        "network = nn.Conv2d(8, 8, 3); optimizer = make_optimizer(network, OptimizationSettings())\n"
        "network(torch.randn(1, 8, 9, 9)).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "strategy = ReinforceStrategy(SearchSpace(cells=1), SearchSettings())\n"
        "strategy.learn(strategy.propose(2), [0.1, 0.2])\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
