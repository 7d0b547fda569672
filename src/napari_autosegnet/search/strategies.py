"""Strategies: who proposes architectures, and what it learns from their rewards.

All have one interface and are charged for the same things (training of the shared weights, rating,
training alone), so they can be compared at equal cost.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from napari_autosegnet.architecture import LAYER_KINDS, NODES_PER_CELL, Architecture, Layer, SearchSpace
from napari_autosegnet.search.controller import Controller
from napari_autosegnet.settings import SearchSettings
from napari_autosegnet.training.optimizers import Adam
from napari_autosegnet.training.threads import single_threaded

T = TypeVar("T")

#: Largest gradient norm of the controller (ENAS micro search).
CONTROLLER_CLIP = 5.0


class Strategy(Protocol):
    """Proposes architectures and learns from rewards; its state fits in a checkpoint."""

    #: Whether rewards change what is proposed; if not, none need be measured during the search.
    learns: bool

    def propose(self, count: int) -> list[Architecture]: ...

    def learn(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None: ...

    def statistics(self) -> dict[str, float]:
        """What a curve of the search should show, such as the entropy."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class ReinforceStrategy:
    """The paper's: the controller, taught by REINFORCE.

    Rewards rise with the shared weights, behind which a moving average lags: then everything looks good. So a reward
    is compared with the others of its update, unless there is but one (leave-one-out, Kool et al. 2019).
    """

    learns = True

    def __init__(self, space: SearchSpace, settings: SearchSettings) -> None:
        self.space = space
        self.settings = settings.controller
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.controller = Controller(
            space,
            hidden=settings.controller.hidden,
            tanh_bound=settings.controller.tanh_bound,
            operation_temperature=settings.controller.operation_temperature,
            generator=self.generator,
        )
        self.optimizer = Adam(self.controller.parameters(), settings.controller.learning_rate)
        self.baseline: float | None = None
        self.entropy = self.largest_entropy

    @property
    def largest_entropy(self) -> float:
        """Entropy of even choices, in nats: the bound of what `statistics` tells."""
        return sum(math.log(decision.choices) for decision in self.space.decisions)

    @single_threaded()
    def propose(self, count: int) -> list[Architecture]:
        with torch.no_grad():
            return self.controller.sample(count, self.generator).architectures(self.space)

    @single_threaded()
    def learn(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None:
        """One REINFORCE step on a batch of rated architectures."""
        settings = self.settings
        # In double precision, or what is left of equal rewards is not far below the epsilon of Adam.
        reward = torch.tensor(list(rewards), dtype=torch.float64)
        mean = float(reward.mean())
        if self.baseline is None:
            self.baseline = mean
        sample = self.controller.evaluate(torch.tensor([self.space.encode(a) for a in architectures]))
        if settings.baseline == "others" and len(reward) > 1:
            advantage = reward - (reward.sum() - reward) / (len(reward) - 1)
        else:
            advantage = reward - self.baseline
        entropy = sample.entropies.sum(dim=1).mean()
        loss = -(sample.log_probabilities.sum(dim=1) * advantage.float()).mean() - settings.entropy_weight * entropy
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.controller.parameters(), CONTROLLER_CLIP)
        self.optimizer.step()
        self.baseline = settings.baseline_decay * self.baseline + (1 - settings.baseline_decay) * mean
        self.entropy = float(entropy.detach())

    def statistics(self) -> dict[str, float]:
        statistics = {
            "entropy": self.entropy,
            "least_entropy": self.controller.least_entropy,
            "largest_entropy": self.largest_entropy,
            "largest_identity_fraction": self.controller.largest_identity_fraction,
        }
        if self.settings.baseline == "moving_average" and self.baseline is not None:
            statistics["baseline"] = self.baseline
        return statistics

    def state(self) -> dict[str, Any]:
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "baseline": self.baseline,
            "entropy": self.entropy,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.baseline, self.entropy = state["baseline"], state["entropy"]


class RandomStrategy:
    """Even draws from the space: what any other strategy has to beat at equal cost (Li and Talwalkar 2019)."""

    learns = False

    def __init__(self, space: SearchSpace, settings: SearchSettings) -> None:
        self.space = space
        self.generator = np.random.default_rng(settings.seed)

    def propose(self, count: int) -> list[Architecture]:
        return [self.space.sample(self.generator) for _ in range(count)]

    def learn(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None:
        """Nothing is learned."""

    def statistics(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"generator": generator_state(self.generator)}

    def load_state(self, state: dict[str, Any]) -> None:
        restore_generator(self.generator, state["generator"])


class EvolutionStrategy:
    """Regularized evolution on rewards of the shared weights (Real et al. 2019).

    The oldest dies, the best of a random few has a child with one decision changed.
    """

    learns = True
    population_size = 50
    tournament_size = 10

    def __init__(self, space: SearchSpace, settings: SearchSettings) -> None:
        self.space = space
        self.generator = np.random.default_rng(settings.seed)
        self.population: deque[tuple[Architecture, float]] = deque(maxlen=self.population_size)

    def propose(self, count: int) -> list[Architecture]:
        return [self._child() for _ in range(count)]

    def _child(self) -> Architecture:
        if len(self.population) < self.population_size:
            return self.space.sample(self.generator)
        rivals = self.generator.choice(len(self.population), self.tournament_size, replace=False)
        parent = max((self.population[int(i)] for i in rivals), key=lambda member: member[1])[0]
        return self.space.mutate(parent, self.generator)

    def learn(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None:
        self.population.extend(zip(architectures, rewards, strict=True))

    def statistics(self) -> dict[str, float]:
        return {"population_mean": float(np.mean([r for _, r in self.population]))} if self.population else {}

    def state(self) -> dict[str, Any]:
        return {
            "generator": generator_state(self.generator),
            "population": [(list(self.space.encode(a)), reward) for a, reward in self.population],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        restore_generator(self.generator, state["generator"])
        members = [(self.space.decode(choices), reward) for choices, reward in state["population"]]
        self.population = deque(members, maxlen=self.population_size)


def make_strategy(space: SearchSpace, settings: SearchSettings) -> Strategy:
    """Strategy that the settings name."""
    match settings.strategy:
        case "reinforce":
            return ReinforceStrategy(space, settings)
        case "random":
            return RandomStrategy(space, settings)
        case "evolution":
            return EvolutionStrategy(space, settings)


class FairSampler:
    """Random architectures for the warm-up of the shared weights.

    In every block of as many architectures as there are operations, each operation stands exactly
    once at each place, so all get equally many updates (FairNAS, Chu et al. 2021). Inputs and skips are
    drawn evenly. The first ones may be mixed with the plain chain: weights that are all untrained, and others in each
    step, learn nothing from each other for a long time (docs/benchmarks/notes/search-earlier.md).
    """

    def __init__(self, space: SearchSpace, generator: np.random.Generator) -> None:
        self.space = space
        self.generator = generator
        self.waiting: list[Architecture] = []

    def next(self, fraction: float = 1.0) -> Architecture:
        """The next one; only this ``fraction`` of its cells and skips is drawn, the others are the plain chain's."""
        if not self.waiting:
            self.waiting = self._block()
        drawn = self.waiting.pop()
        return drawn if fraction >= 1 else self._mixed(drawn, fraction)

    def _mixed(self, drawn: Architecture, fraction: float) -> Architecture:
        plain = self.space.plain

        def pick(ours: Iterable[T], theirs: Iterable[T]) -> tuple[T, ...]:
            pairs = zip(ours, theirs, strict=True)
            return tuple(mine if self.generator.random() < fraction else other for mine, other in pairs)

        while True:
            layers = {kind: Layer(cells=pick(drawn.layer(kind).cells, plain.layer(kind).cells)) for kind in LAYER_KINDS}
            mixed = Architecture(**layers, skips=pick(drawn.skips, plain.skips))
            if self.space.allows(mixed):
                return mixed

    def _block(self) -> list[Architecture]:
        size = len(self.space.operations)
        places = len(LAYER_KINDS) * self.space.cells * NODES_PER_CELL
        decisions = self.space.decisions
        while True:
            orders = np.stack([self.generator.permutation(size) for _ in range(places)])
            block = []
            for member in range(size):
                operations = iter(orders[:, member])
                choices = [
                    int(next(operations)) if d.kind == "operation" else int(self.generator.integers(d.choices))
                    for d in decisions
                ]
                block.append(self.space.decode(choices))
            if all(self.space.allows(architecture) for architecture in block):
                return block

    def state(self) -> dict[str, Any]:
        return {
            "generator": generator_state(self.generator),
            "waiting": [list(self.space.encode(a)) for a in self.waiting],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        restore_generator(self.generator, state["generator"])
        self.waiting = [self.space.decode(choices) for choices in state["waiting"]]


def generator_state(generator: np.random.Generator) -> str:
    """State of a generator as text, which any checkpoint format keeps."""
    return json.dumps(generator.bit_generator.state)


def restore_generator(generator: np.random.Generator, state: str) -> None:
    """Go on from where `generator_state` was taken."""
    generator.bit_generator.state = json.loads(state)
