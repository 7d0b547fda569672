"""The supernet."""

from __future__ import annotations

import numpy as np
import torch

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.search.strategies import ReinforceStrategy
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.settings import NetworkSettings, SearchSettings
from napari_autosegnet.training.losses import cross_entropy

SETTINGS = SearchSettings(patch_size=32, batch_size=2, network=NetworkSettings(base_width=4, max_width=8))
SPACE = SearchSpace(levels=1)


def make(settings: SearchSettings = SETTINGS) -> Supernet:
    torch.manual_seed(0)
    specification = NetworkSpecification.for_patches(32, SETTINGS.network, in_channels=1, classes=2)
    images = torch.randn(4, 1, 32, 32)
    return Supernet(SPACE, specification, settings, images, (images[:, 0] > 0).long(), cross_entropy)


def test_a_child_computes_what_the_derived_network_computes() -> None:
    supernet = make()
    specification = NetworkSpecification.for_patches(32, SETTINGS.network, in_channels=1, classes=2)
    generator = np.random.default_rng(1)
    for _ in range(5):
        architecture = SPACE.sample(generator)
        derived = specification.build_searched(architecture)
        assert isinstance(derived, SegmentationNetwork)
        supernet.inherit_weights(derived)
        x = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(derived.train()(x), supernet.learner.network(x, architecture), rtol=1e-4, atol=1e-4)


def test_weights_are_shared_and_only_those_in_use_change() -> None:
    supernet = make()
    generator = np.random.default_rng(2)
    first = SPACE.sample(generator)
    before = {name: value.clone() for name, value in supernet.learner.network.named_parameters()}
    supernet.train_step(supernet.images[:2], supernet.targets[:2], first, 0.1)
    changed = {
        name for name, value in supernet.learner.network.named_parameters() if not torch.equal(value, before[name])
    }
    used = {
        f"{cell}_{place}_{node.operation}"
        for cell, each in enumerate(first.down.cells)
        for place, node in enumerate(each.nodes)
        if node.operation != "identity"
    }
    touched = {name.split(".")[3] for name in changed if name.startswith("down.0.operations")}
    assert touched == used
    # Another architecture with one of these operations at the same place sees the change.
    assert "stem.0.weight" in changed and "head.weight" in changed


def test_a_rating_does_not_depend_on_which_child_trained_last() -> None:
    """Batch norm keeps no statistics: training at rate 0 changes nothing that a rating could see."""
    supernet = make()
    generator = np.random.default_rng(3)
    rated, other = SPACE.sample(generator), SPACE.sample(generator)
    before = supernet.rate(rated)
    supernet.train_step(100 + 50 * torch.randn(2, 1, 32, 32), supernet.targets[:2], other, 0.0)
    assert supernet.rate(rated) == before
    assert not any("running" in name for name in supernet.learner.network.state_dict())


def test_the_shared_weights_are_untouched_while_the_controller_learns() -> None:
    supernet = make()
    strategy = ReinforceStrategy(SPACE, SETTINGS)
    before = {name: value.clone() for name, value in supernet.learner.network.state_dict().items()}
    architectures = strategy.propose(4)
    strategy.learn(architectures, [supernet.rate(a) for a in architectures])
    after = supernet.learner.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_averaged_weights_are_rated_and_handed_down() -> None:
    supernet = make()
    architecture = SPACE.sample(np.random.default_rng(4))
    start = supernet.learner.network.state_dict()["head.weight"].clone()
    for _ in range(3):
        supernet.train_step(supernet.images[:2], supernet.targets[:2], architecture, 0.1)
    assert supernet.learner.averaged is not None and supernet.learner.current is supernet.learner.averaged.network
    specification = NetworkSpecification.for_patches(32, SETTINGS.network, in_channels=1, classes=2)
    derived = specification.build_searched(architecture)
    supernet.inherit_weights(derived)
    latest, handed = supernet.learner.network.state_dict()["head.weight"], derived.state_dict()["head.weight"]
    assert torch.equal(handed, supernet.learner.averaged.network.state_dict()["head.weight"])
    assert not torch.equal(handed, latest) and not torch.equal(handed, start)
    # An average lies between what it is made of.
    assert (handed - start).norm() < (latest - start).norm()
    again = make()
    again.load_state(supernet.learner.state())
    assert again.rate(architecture) == supernet.rate(architecture)


def test_without_an_average_the_weights_themselves_are_rated() -> None:
    supernet = make(SETTINGS.changed(optimization={"average_weights": 0.0}))
    architecture = SPACE.sample(np.random.default_rng(4))
    supernet.train_step(supernet.images[:2], supernet.targets[:2], architecture, 0.1)
    assert supernet.learner.current is supernet.learner.network and supernet.learner.state()["averaged"] is None


def test_equal_architectures_are_rated_once() -> None:
    supernet = make()
    calls = 0
    network = supernet.learner.averaged.network if supernet.learner.averaged is not None else supernet.learner.network
    forward = network.forward

    def counting(*args: object) -> object:
        nonlocal calls
        calls += 1
        return forward(*args)

    network.forward = counting  # type: ignore[method-assign]
    architecture = SPACE.sample(np.random.default_rng(0))
    supernet.train_step(supernet.images[:2], supernet.targets[:2], architecture, 0.1)
    assert calls == 0
    assert supernet.rate(architecture) == supernet.rate(architecture)
    assert calls == 2  # four patches in batches of two, once
    supernet.train_step(supernet.images[:2], supernet.targets[:2], architecture, 0.1)
    supernet.rate(architecture)
    assert calls == 4  # other weights, another rating
