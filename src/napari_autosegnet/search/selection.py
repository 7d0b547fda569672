"""Choice of the winner: the best rated few are trained alone, and the worse half leaves after each round.

They start with the shared weights, so that what a short training shows is what they can do, not how fast they begin.

Ratings with shared weights order architectures only roughly, so they decide who may compete and no
more (successive halving, Jamieson and Talwalkar 2016). With a time budget every finalist of a round trains
equally long, so a slow architecture has to be worth its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.config import SearchSettings, TrainSettings
from napari_autosegnet.events import FinalistTrained, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.training.checkpoints import copied
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.trainer import Trainer, TrainingData

#: Batches that a finalist's batch norm statistics are first measured on.
STATISTICS_BATCHES = 8


@dataclass
class Finalist:
    """An architecture, its rating with shared weights (if any), and what it reached alone (None: not trained yet).

    ``score`` is the validation mean IoU; between equal scores, as long as a rare class is not found, ``loss`` decides.
    ``lead`` is by how much the others have to be better than this one to be ahead of it; it was trained alone for
    ``steps`` steps, after which it had the ``iou`` of each class.
    """

    architecture: Architecture
    rating: float | None = None
    score: float | None = None
    loss: float = math.inf
    rounds: int = 0
    parameters: int = 0
    lead: float = 0.0
    steps: int = 0
    iou: dict[str, float | None] = field(default_factory=dict)

    @property
    def misses(self) -> bool:
        """Whether it finds nothing of some class."""
        return any(value == 0 for value in self.iou.values())


class Selection:
    """Successive halving over finalists, best rated first.

    Parameters
    ----------
    finalists : sequence of Finalist
    data : TrainingData
    specification : NetworkSpecification
        Size of the networks.
    settings : SearchSettings
    seconds : float, optional
        Time for all rounds together; without it a round has ``finalist_steps`` steps, doubled each round.
    hand_down : callable, optional
        Gives a network the weights that it starts with; by default it starts from scratch.
    """

    def __init__(
        self,
        finalists: Sequence[Finalist],
        data: TrainingData,
        specification: NetworkSpecification,
        settings: SearchSettings,
        *,
        seconds: float | None,
        hand_down: Callable[[SegmentationNetwork], None] | None = None,
    ) -> None:
        self.finalists = list(finalists)
        self.data = data
        self.specification = specification
        self.settings = settings
        self.seconds = seconds
        self.hand_down = hand_down
        self.round = 0
        self._threads = WorkerThreads(data.validation_images.device)
        self._trainers: dict[Architecture, Trainer] = {}

    @property
    def rounds(self) -> int:
        return max(1, math.ceil(math.log2(max(len(self.finalists), 2))))

    @property
    def competing(self) -> list[Finalist]:
        """Who trains in the current round: half as many each time, the best of the rounds before.

        Whoever has a lead stays to the end: the others are measured against it, and that takes the longest round.
        """
        count = max(1, math.ceil(len(self.finalists) / 2**self.round))
        ranked = sorted(self.finalists, key=_order, reverse=True)
        leading = [finalist for finalist in ranked if finalist.lead]
        others = [finalist for finalist in ranked if not finalist.lead]
        kept = leading + others[: max(0, count - len(leading))]
        return sorted(kept, key=_order, reverse=True)

    @property
    def winner(self) -> Finalist:
        """The best, but whoever leads stays ahead of those that were trained too shortly to say anything."""
        return self._leader if self.is_too_short or self.misses_a_class else self._best

    @property
    def is_too_short(self) -> bool:
        """Whether the best is not taken, as it was trained for too few steps to be preferred to the plain chain."""
        best, leader = self._best, self._leader
        return best is not leader and leader.lead > 0 and 0 < best.steps < self.settings.plain_steps

    @property
    def misses_a_class(self) -> bool:
        """Whether the best is not taken, as it says that some class is nowhere; for a rare one that has a high IoU."""
        return self._best is not self._leader and self._leader.lead > 0 and self._best.misses

    @property
    def remark(self) -> str | None:
        """Why the plain chain is taken, in words; None where it is not, or has not competed to the end."""
        leader = self._leader
        if self.is_too_short:
            return (
                "the finalists were trained too shortly to prefer one of them to the plain chain of operations, "
                f"which is taken ({self.settings.plain_steps} steps are needed); a longer search may find more"
            )
        if self.misses_a_class:
            return (
                "the best of the finalists finds nothing of some class yet, so the plain chain of operations is taken; "
                "a longer search may find more"
            )
        scores = [each.score for each in self.finalists if each is not leader and each.score is not None]
        over = self.round == self.rounds and leader.lead > 0 and leader.score is not None
        if not over or not scores or self.winner is not leader:
            return None
        return (
            f"no other network was better by {leader.lead:g} than the plain chain of operations, which is taken: "
            f"mean IoU {leader.score:.3f} after short trainings, best of the others {max(scores):.3f}"
        )

    @property
    def _best(self) -> Finalist:
        return max(self.finalists, key=_order)

    @property
    def _leader(self) -> Finalist:
        return max(self.finalists, key=lambda finalist: finalist.lead)

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> Finalist:
        """Train until one is left or a stop is asked for; returns the best so far."""
        while self.round < self.rounds:
            competing = self.competing
            for index, finalist in enumerate(competing):
                if finalist.rounds > self.round:
                    continue
                if should_stop():
                    return self.winner
                if not self._train(finalist, len(competing), should_stop):
                    return self.winner
                report(
                    FinalistTrained(
                        round=self.round + 1,
                        rounds=self.rounds,
                        index=index + 1,
                        count=len(competing),
                        rating=finalist.rating,
                        score=finalist.score,
                        parameters=finalist.parameters,
                        iou=finalist.iou,
                        **self.data.checked.model_dump(mode="json"),
                    )
                )
            self.round += 1
        return self.winner

    def _train(self, finalist: Finalist, competitors: int, should_stop: ShouldStop) -> bool:
        """Train a finalist for a round; after a stop it is as it was before, and False is returned."""
        trainer = self._trainers.get(finalist.architecture) or self._make_trainer(finalist, begins=True)
        if self.seconds is None:
            settings = trainer.settings.model_copy(update={"epochs": 2 ** (self.round + 1) - 1})
        else:
            share = self.seconds / self.rounds / competitors
            settings = trainer.settings.model_copy(update={"budget": trainer.elapsed + share})
        trainer.settings = settings
        before, stopped = trainer.state(), False

        def stop() -> bool:
            nonlocal stopped
            stopped = stopped or should_stop()
            return stopped

        result = trainer.run(should_stop=stop)
        if stopped:
            trainer.load_state(copied(before))
            return False
        finalist.score, finalist.loss, finalist.rounds = result.mean_iou, result.loss, self.round + 1
        finalist.steps = trainer.steps
        finalist.iou = result.iou
        return True

    def _make_trainer(self, finalist: Finalist, *, begins: bool) -> Trainer:
        settings = self.settings
        torch.manual_seed(settings.seed)
        network = self.specification.build_searched(finalist.architecture)
        finalist.parameters = parameter_count(network)
        if self.hand_down is not None:
            self.hand_down(network)
            if begins:
                self._measure_batch_norm(network)
        training = TrainSettings(
            epochs=10**6,
            steps_per_epoch=settings.finalist_steps,
            batch_size=settings.batch_size,
            loss=settings.loss,
            optimiser=settings.optimiser,
            learning_rate=settings.finalist_learning_rate,
            muon_learning_rate=settings.muon_learning_rate,
            # One cosine cycle, which ends with each round: the next one goes on with its own, longer one.
            restart_period=0,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            average_weights=0.98,
            seed=settings.seed,
        )
        trainer = Trainer(network, self.data, training, threads=self._threads)
        self._trainers[finalist.architecture] = trainer
        return trainer

    @single_threaded()
    def _measure_batch_norm(self, network: nn.Module) -> None:
        """Statistics that fit the handed down weights; a short training alone does not get there."""
        device = self.data.validation_images.device
        generator = torch.Generator().manual_seed(self.settings.seed)
        size = self.settings.batch_size
        batches = [self.data.patches.sample(size, generator)[0] for _ in range(STATISTICS_BATCHES)]
        update_bn(batches, network.to(device), device)

    def state(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "finalists": [
                {
                    "architecture": f.architecture.to_json(),
                    "rating": f.rating,
                    "score": f.score,
                    "loss": f.loss,
                    "rounds": f.rounds,
                    "parameters": f.parameters,
                    "lead": f.lead,
                    "steps": f.steps,
                    "iou": f.iou,
                    "trainer": None if f.architecture not in self._trainers else self._trainers[f.architecture].state(),
                }
                for f in self.finalists
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.round = state["round"]
        self.finalists = []
        for entry in state["finalists"]:
            finalist = Finalist(
                Architecture.from_json(entry["architecture"]),
                entry["rating"],
                entry["score"],
                entry["loss"],
                entry["rounds"],
                entry["parameters"],
                entry.get("lead", 0.0),
                entry.get("steps", 0),
                entry["iou"],
            )
            self.finalists.append(finalist)
            if entry["trainer"] is not None:
                self._make_trainer(finalist, begins=False).load_state(entry["trainer"])


def _order(finalist: Finalist) -> tuple[int, float, float]:
    """Who survived longer is ahead; then the score alone, or before that the rating."""
    known = finalist.rating if finalist.score is None else finalist.score
    return finalist.rounds, -1.0 if known is None else known + finalist.lead, -finalist.loss
