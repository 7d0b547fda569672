"""Strategies on rewards that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_autosegnet.architecture import LAYER_KINDS, OPERATIONS, Architecture, SearchSpace
from napari_autosegnet.search.strategies import (
    EvolutionStrategy,
    FairSampler,
    RandomStrategy,
    ReinforceStrategy,
    make_strategy,
)
from napari_autosegnet.settings import ControllerSettings, SearchSettings

TOY = SearchSpace(operations=("sep_conv_3x3", "hdc_3x3", "identity"), cells=2, levels=1)


def share_of_hdc(architecture: Architecture) -> float:
    operations = [node.operation for node in architecture.nodes]
    return operations.count("hdc_3x3") / len(operations)


def test_a_reinforce_step_makes_a_rewarded_architecture_likelier() -> None:
    strategy = ReinforceStrategy(
        TOY, SearchSettings(controller=ControllerSettings(learning_rate=0.01, entropy_weight=0))
    )
    strategy.baseline = 0.5
    good = TOY.sample(np.random.default_rng(0))
    choices = torch.tensor([TOY.encode(good)])

    def log_probability() -> float:
        with torch.no_grad():
            return float(strategy.controller.evaluate(choices).log_probabilities.sum())

    start = log_probability()
    strategy.learn([good], [1.0])
    raised = log_probability()
    assert raised > start
    strategy.learn([good], [0.0])
    strategy.learn([good], [0.0])
    strategy.learn([good], [0.0])
    assert log_probability() < raised


@pytest.mark.parametrize(("baseline", "moves"), [("others", False), ("moving_average", True)])
def test_rewards_that_all_rise_teach_nothing(baseline: str, moves: bool) -> None:
    settings = SearchSettings().changed(controller={"baseline": baseline, "learning_rate": 0.01, "entropy_weight": 0})
    strategy = ReinforceStrategy(TOY, settings)
    before = [parameter.clone() for parameter in strategy.controller.parameters()]
    for reward in (0.1, 0.2, 0.3):
        strategy.learn(strategy.propose(4), [reward] * 4)
    after = list(strategy.controller.parameters())
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(after, before, strict=True))
    assert (moved > 1e-3) == moves


def test_the_controllers_gradient_is_clipped() -> None:
    strategy = ReinforceStrategy(TOY, SearchSettings())
    strategy.baseline = 0.0
    architectures = strategy.propose(4)
    strategy.learn(architectures, [1e6, -1e6, 1e6, 1e6])
    norm = torch.cat([p.grad.flatten() for p in strategy.controller.parameters() if p.grad is not None]).norm()
    assert float(norm) <= 5.0 + 1e-3


def rewarded_architectures(
    strategy: ReinforceStrategy | RandomStrategy | EvolutionStrategy, updates: int
) -> list[float]:
    """Rewards of what the strategy proposes in its last update."""
    for _ in range(updates):
        architectures = strategy.propose(10)
        rewards = [share_of_hdc(a) for a in architectures]
        strategy.learn(architectures, rewards)
    return [share_of_hdc(a) for a in strategy.propose(50)]


@pytest.mark.slow
def test_in_a_toy_space_learning_beats_random() -> None:
    settings = SearchSettings(controller=ControllerSettings(learning_rate=0.01))
    reinforce = np.mean(rewarded_architectures(ReinforceStrategy(TOY, settings), 150))
    evolution = np.mean(rewarded_architectures(EvolutionStrategy(TOY, settings), 30))
    random = np.mean(rewarded_architectures(RandomStrategy(TOY, settings), 150))
    assert random == pytest.approx(1 / 3, abs=0.06)
    # The bound on operation logits leaves the controller at most 0.57 of each operation.
    assert reinforce > random + 0.1
    assert evolution > random + 0.2


def samples_until_found(name: str, seed: int, most: int = 3000) -> int:
    """Rated architectures until the best of a small space (a known one) was proposed."""
    space = SearchSpace(operations=("sep_conv_3x3", "hdc_3x3"), cells=1, levels=2)
    best = space.decode([1, 1] * 6 + [1, 1])
    settings = SearchSettings().changed(strategy=name, seed=seed, controller={"learning_rate": 0.02})
    strategy = make_strategy(space, settings)
    target = np.array(space.encode(best))
    for rated in range(0, most, 10):
        architectures = strategy.propose(10)
        if best in architectures:
            return rated + 1 + architectures.index(best)
        strategy.learn(architectures, [float((np.array(space.encode(a)) == target).mean()) for a in architectures])
    return most


def test_reinforce_finds_the_known_best_and_random_needs_longer() -> None:
    reinforce = [samples_until_found("reinforce", seed) for seed in range(3)]
    assert max(reinforce) < 3000
    # No further than decides it.
    longer = int(1.5 * np.median(reinforce)) + 1
    random = [samples_until_found("random", seed, longer) for seed in range(3)]
    assert np.median(random) >= longer


@pytest.mark.parametrize("name", ["reinforce", "random", "evolution"])
def test_state_goes_on_with_the_same_proposals(name: str) -> None:
    settings = SearchSettings(strategy=name, seed=4)
    strategy = make_strategy(TOY, settings)
    for _ in range(3):
        architectures = strategy.propose(30)
        strategy.learn(architectures, [share_of_hdc(a) for a in architectures])
    other = make_strategy(TOY, SearchSettings(strategy=name, seed=99))
    other.load_state(strategy.state())
    for _ in range(2):
        expected = strategy.propose(5)
        assert other.propose(5) == expected
        for each in (strategy, other):
            each.learn(expected, [share_of_hdc(a) for a in expected])


def test_the_warm_up_passes_from_the_plain_chain_to_even_draws() -> None:
    space = SearchSpace(levels=2)

    def cells_of_the_chain(share: float) -> float:
        sampler = FairSampler(space, np.random.default_rng(0))
        found = [sampler.next(share) for _ in range(60)]
        assert all(space.allows(a) and space.decode(space.encode(a)) == a for a in found)
        kept = [
            mine == theirs
            for a in found
            for kind in LAYER_KINDS
            for mine, theirs in zip(a.layer(kind).cells, space.plain.layer(kind).cells, strict=True)
        ]
        return float(np.mean(kept))

    assert cells_of_the_chain(0) == 1
    assert cells_of_the_chain(0.5) == pytest.approx(0.5, abs=0.07)
    assert cells_of_the_chain(1) < 0.03


def test_the_warm_up_is_fair() -> None:
    space = SearchSpace()
    sampler = FairSampler(space, np.random.default_rng(0))
    counts = np.zeros((len(LAYER_KINDS) * 6, len(OPERATIONS)), int)
    for _ in range(len(OPERATIONS) * 10):
        architecture = sampler.next()
        assert space.allows(architecture)
        for place, node in enumerate(architecture.nodes):
            counts[place, OPERATIONS.index(node.operation)] += 1
    assert (counts == 10).all()


def test_the_baseline_is_shown_where_it_counts() -> None:
    for baseline, shown in (("others", False), ("moving_average", True)):
        strategy = ReinforceStrategy(TOY, SearchSettings(controller=ControllerSettings(baseline=baseline)))  # type: ignore[arg-type]
        strategy.learn(strategy.propose(2), [0.1, 0.2])
        assert ("baseline" in strategy.statistics()) == shown
