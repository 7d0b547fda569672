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
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.events import FinalistTrained, ProgressMade, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.settings import OptimizationSettings, SearchSettings, TrainSettings
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData

#: Batches that a finalist's batch norm statistics are first measured on.
STATISTICS_BATCHES = 8


@dataclass
class Finalist:
    """An architecture, its rating with shared weights (if any), and what it reached alone (None: not trained yet).

    ``score`` is the validation mean IoU; between equal scores, as long as a rare class is not found, ``loss`` decides.
    ``margin`` is by how much the others have to be better than this one to be ahead of it; it was trained alone for
    ``steps`` steps, after which it had the ``iou`` of each class.
    """

    architecture: Architecture
    rating: float | None = None
    score: float | None = None
    loss: float = math.inf
    rounds: int = 0
    parameters: int = 0
    margin: float = 0.0
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
    inherit_weights : callable, optional
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
        inherit_weights: Callable[[SegmentationNetwork], None] | None = None,
    ) -> None:
        self.finalists = list(finalists)
        self.data = data
        self.specification = specification
        self.settings = settings
        self.seconds = seconds
        self.inherit_weights = inherit_weights
        self.round = 0
        self._threads = WorkerThreads(data.validation_images.device)
        self.trainers: dict[Architecture, Trainer] = {}

    @property
    def rounds(self) -> int:
        return max(1, math.ceil(math.log2(max(len(self.finalists), 2))))

    @property
    def competing(self) -> list[Finalist]:
        """Who trains in the current round: half as many each time, the best of the rounds before.

        Whoever has a margin stays to the end: the others are measured against it, and that takes the longest round.
        """
        count = max(1, math.ceil(len(self.finalists) / 2**self.round))
        ranked = sorted(self.finalists, key=_order, reverse=True)
        favored = [finalist for finalist in ranked if finalist.margin]
        others = [finalist for finalist in ranked if not finalist.margin]
        kept = favored + others[: max(0, count - len(favored))]
        return sorted(kept, key=_order, reverse=True)

    @property
    def winner(self) -> Finalist:
        """The best, but the plain chain stays ahead of those that were trained too shortly to say anything."""
        return self._favored if self.is_too_short or self.misses_a_class else self._best

    @property
    def is_too_short(self) -> bool:
        """Whether the best is not taken, as it was trained for too few steps to be preferred to the plain chain."""
        best, favored = self._best, self._favored
        return best is not favored and favored.margin > 0 and 0 < best.steps < self.settings.selection.plain_steps

    @property
    def misses_a_class(self) -> bool:
        """Whether the best is not taken, as it says that some class is nowhere; for a rare one that has a high IoU."""
        return self._best is not self._favored and self._favored.margin > 0 and self._best.misses

    @property
    def remark(self) -> str | None:
        """Why the plain chain is taken, in words; None where it is not, or has not competed to the end."""
        favored = self._favored
        needed = self.settings.selection.plain_steps
        if self.is_too_short:
            return (
                "the finalists were trained too shortly to prefer one of them to the plain chain of operations, "
                f"which is taken ({needed} steps are needed); a longer search may find more"
            )
        if self.misses_a_class:
            return (
                "the best of the finalists finds nothing of some class yet, so the plain chain of operations is taken; "
                "a longer search may find more"
            )
        scores = [each.score for each in self.finalists if each is not favored and each.score is not None]
        over = self.round == self.rounds and favored.margin > 0 and favored.score is not None
        if not over or not scores or self.winner is not favored:
            return None
        return (
            f"no other network was better by {favored.margin:g} than the plain chain of operations, which is taken: "
            f"mean IoU {favored.score:.3f} after short trainings, best of the others {max(scores):.3f}"
        )

    @property
    def _best(self) -> Finalist:
        return max(self.finalists, key=_order)

    @property
    def _favored(self) -> Finalist:
        return max(self.finalists, key=lambda finalist: finalist.margin)

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> Finalist:
        """Train until one is left or a stop is asked for; returns the best so far."""
        while self.round < self.rounds:
            competing = self.competing
            for index, finalist in enumerate(competing):
                if finalist.rounds > self.round:
                    continue
                if should_stop():
                    return self.winner
                if not self._train(finalist, len(competing), report, should_stop):
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

    def _report_progress(self, report: Report) -> None:
        """A single training may take minutes."""
        rounds = [max(1, math.ceil(len(self.finalists) / 2**round)) for round in range(self.rounds)]
        done = sum(finalist.rounds for finalist in self.finalists)
        report(ProgressMade(step="finalists trained", done=done, total=sum(rounds)))

    def _train(self, finalist: Finalist, competitors: int, report: Report, should_stop: ShouldStop) -> bool:
        """Train a finalist for a round; after a stop it is as it was before, and False is returned."""
        trainer = self.trainers.get(finalist.architecture) or self.make_trainer(finalist, begins=True)
        if self.seconds is None:
            trainer.budget.epochs = 2 ** (self.round + 1) - 1
        else:
            trainer.budget.seconds = trainer.budget.elapsed + self.seconds / self.rounds / competitors
        before, stopped = trainer.state(), False

        def stop() -> bool:
            nonlocal stopped
            stopped = stopped or should_stop()
            return stopped

        self._report_progress(report)
        result = trainer.run(should_stop=stop, on_epoch=partial(self._report_progress, report))
        if stopped:
            trainer.load_state(before)
            return False
        finalist.score, finalist.loss, finalist.iou = result.best.mean_iou, result.best.loss, result.best.iou
        finalist.rounds, finalist.steps = self.round + 1, trainer.steps
        return True

    def make_trainer(self, finalist: Finalist, *, begins: bool) -> Trainer:
        settings = self.settings
        torch.manual_seed(settings.seed)
        network = self.specification.build_searched(finalist.architecture)
        finalist.parameters = parameter_count(network)
        if self.inherit_weights is not None:
            self.inherit_weights(network)
            if begins:
                self._measure_batch_norm(network)
        shared = settings.optimization.model_dump(include=set(OptimizationSettings.model_fields))
        own = {
            "learning_rate": settings.selection.learning_rate,
            # One cosine cycle, which ends with each round: the next one continues with its own, longer one.
            "restart_period": 0,
            "average_weights": 0.98,
        }
        training = TrainSettings(
            epochs=10**6,
            steps_per_epoch=settings.selection.steps,
            batch_size=settings.batch_size,
            loss=settings.loss,
            optimization=OptimizationSettings.model_validate(shared | own),
            seed=settings.seed,
        )
        trainer = Trainer(network, self.data, training, threads=self._threads)
        self.trainers[finalist.architecture] = trainer
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
                    **vars(finalist),
                    "architecture": finalist.architecture.to_json(),
                    "trainer": trainer.state() if (trainer := self.trainers.get(finalist.architecture)) else None,
                }
                for finalist in self.finalists
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.round = state["round"]
        self.finalists = []
        for entry in state["finalists"]:
            trainer, architecture = entry["trainer"], Architecture.from_json(entry["architecture"])
            values = {name: value for name, value in entry.items() if name not in ("trainer", "architecture")}
            finalist = Finalist(architecture, **values)
            self.finalists.append(finalist)
            if trainer is not None:
                self.make_trainer(finalist, begins=False).load_state(trainer)


def _order(finalist: Finalist) -> tuple[int, float, float]:
    """Who survived longer is ahead; then the score alone, or before that the rating."""
    known = finalist.rating if finalist.score is None else finalist.score
    return finalist.rounds, -1.0 if known is None else known + finalist.margin, -finalist.loss
