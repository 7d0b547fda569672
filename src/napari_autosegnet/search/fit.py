"""The network that data needs: candidates of several sizes are trained, the better ones longer, one to the end.

Successive halving (Jamieson and Talwalkar 2016) in which no training is thrown away but that of those who leave: all
learn at a steady rate with averaged weights, which are rated, so that a training can be compared, left or continued
at any time. In the last round the rate of the chosen one falls, and it learns from the validation part as well, which
has done its service. There is a usable model from the first epoch on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import CandidateBegun, CandidateRated, Epoch, Event, Note, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.networks.specification import parameter_count
from napari_autosegnet.search.candidates import Candidate, Limits, Size, choose, fitting_sizes, survivors
from napari_autosegnet.search.latency import LATENCY_SIDE, measured_latency
from napari_autosegnet.settings import FitSettings
from napari_autosegnet.training.budget import Budget
from napari_autosegnet.training.checkpoints import read_checkpoint, write_checkpoint
from napari_autosegnet.training.schedules import Falling, Steady
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.trainer import Trainer, TrainingData

#: Less than this is too short to compare networks: seconds that each trains in the first round.
MIN_SECONDS = 20.0
#: Less than this is too short for the last round.
MIN_LAST_SECONDS = 30.0
#: A network that has learned for fewer epochs says nothing of what it will be.
MIN_EPOCHS = 3
#: Training on a pixel takes about so many times as long as predicting it (two cores, four sizes: 4 to 9).
TRAINING_COST = 6.0
#: How many may compete, as time allows; halving makes the most of powers of two.
FIELDS = (8, 4, 2)


@dataclass(frozen=True)
class Round:
    """So many candidates train for this fraction of the whole budget each."""

    candidates: int
    fraction: float


def plan_rounds(candidates: int, choosing: float) -> list[Round]:
    """Rounds with half as many each time, which take equal time, then the last one's own."""
    counts = [candidates]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    rounds = [Round(count, choosing / len(counts) / count) for count in counts]
    return [*rounds, Round(1, 1 - choosing)]


def number_of_candidates(settings: FitSettings) -> int:
    """As many as there is time for, or as the settings say."""
    if settings.candidates is not None:
        # Each trains for an epoch at least.
        return min(settings.candidates, settings.epochs or settings.candidates)
    for count in FIELDS:
        rounds = plan_rounds(count, settings.choosing)
        first, last = rounds[0].fraction, rounds[-1].fraction
        enough_time = settings.budget is None or (
            first * settings.budget >= MIN_SECONDS and last * settings.budget >= MIN_LAST_SECONDS
        )
        enough_epochs = settings.epochs is None or first * settings.epochs >= 1
        if enough_time and enough_epochs:
            return count
    return 1


class Fit:
    """State of a search over sizes; `run` continues from wherever it is.

    Parameters
    ----------
    data : TrainingData
    settings : FitSettings
    in_channels : int
        Channels of the patches.
    checkpoint : Path, optional
        Written at the end of every epoch.
    """

    def __init__(
        self, data: TrainingData, settings: FitSettings, *, in_channels: int, checkpoint: Path | None = None
    ) -> None:
        self.data = data
        self.settings = settings
        self.in_channels = in_channels
        self.checkpoint = checkpoint
        self.device = data.validation_images.device
        self.threads = WorkerThreads(self.device)
        self.budget = Budget(settings.epochs, settings.budget)
        self.rounds: list[Round] = []
        self.round = 0
        #: All, those that left first; who competes stands last.
        self.candidates: list[Candidate] = []
        self.competing: list[Candidate] = []

    def run(
        self,
        *,
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
        on_epoch: Callable[[Candidate], None] | None = None,
    ) -> Candidate | None:
        """Train until the budget is used up or a stop is asked for; returns what the goal asks for.

        After a stop that is the best so far, None if there is nothing yet. ``on_epoch`` is called after every epoch
        with the candidate that would be returned then.
        """
        if not self.candidates:
            self._enter(report)
        while self.round < len(self.rounds):
            for candidate in list(self.competing):
                if candidate.rounds > self.round:
                    continue
                if not self._train(candidate, report, should_stop, on_epoch):
                    report(Stopped(step="fit", reason="a stop was asked for"))
                    return self.chosen
                candidate.rounds = self.round + 1
                self._report_candidate(candidate, report)
            self.round += 1
            if self.round < len(self.rounds):
                self.competing = survivors(
                    self.competing, self.rounds[self.round].candidates, self.settings.goal, self.settings.tolerance
                )
            self._write_checkpoint()
        return self.chosen

    @property
    def chosen(self) -> Candidate | None:
        """What the goal asks for among all that were trained; None before anything was."""
        return choose(self.trained, self.settings.goal, self.settings.tolerance) if self.trained else None

    @property
    def trained(self) -> list[Candidate]:
        """Those that have learned something."""
        return [each for each in self.candidates if each.trainer.budget.epoch]

    def resume(self, report: Report = silent) -> None:
        """Go back to what the checkpoint holds."""
        if self.checkpoint is None:
            return
        state = read_checkpoint(self.checkpoint, self.device, report)
        try:
            self.round = state["round"]
            for entry in state["candidates"]:
                candidate = self._make(Size.model_validate(entry["size"]), entry["latency"])
                candidate.rounds, candidate.limits = entry["rounds"], Limits(**entry["limits"])
                if candidate.limits.fall_from is not None:
                    self._let_learn_from_everything(candidate)
                candidate.trainer.load_state(entry["trainer"])
                self.candidates.append(candidate)
            self.competing = [self.candidates[index] for index in state["competing"]]
            self.rounds = plan_rounds(len(self.candidates), self.settings.choosing)
        except (UserError, KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this run; "
                "resume with the run's own settings, or start a new run"
            ) from error

    def _enter(self, report: Report) -> None:
        """Build the candidates and measure how fast they are.

        A size that would do less than `MIN_EPOCHS` in the first round does not compete. Where too few pixels are
        checked to compare networks, the usual size is alone.
        """
        settings, count = self.settings, number_of_candidates(self.settings)
        too_few_pixels = settings.candidates is None and bool(self.data.checked.scarce)
        if too_few_pixels:
            count = 1
        seconds_of_epoch = math.inf
        if settings.budget is not None and settings.candidates is None:
            seconds_of_epoch = plan_rounds(count, settings.choosing)[0].fraction * settings.budget / MIN_EPOCHS
        for size in fitting_sizes(settings.patch_size, settings.network):
            candidate = self._make(size)
            if not self.candidates or self._seconds_of_epoch(candidate) <= seconds_of_epoch:
                self.candidates.append(candidate)
            if len(self.candidates) == count:
                break
        self.competing = list(self.candidates)
        self.rounds = plan_rounds(len(self.candidates), settings.choosing)
        if len(self.candidates) == 1 and settings.candidates is None:
            little = "annotation" if too_few_pixels else "time"
            report(Note(text=f"there is too little {little} to compare networks; one of the usual size is trained"))

    def _seconds_of_epoch(self, candidate: Candidate) -> float:
        """What an epoch of a candidate will take, by its latency."""
        settings = self.settings
        pixels = settings.steps_per_epoch * settings.batch_size * settings.patch_size**2
        return TRAINING_COST * pixels / LATENCY_SIDE**2 * candidate.latency / 1000

    def _make(self, size: Size, latency: float | None = None) -> Candidate:
        settings = self.settings
        specification = size.specification(
            settings.patch_size, settings.network, in_channels=self.in_channels, classes=len(self.data.class_names)
        )
        if latency is None:
            latency = measured_latency(specification, self.device)
        torch.manual_seed(settings.seed)
        trainer = Trainer(specification.build(), self.data, settings, threads=self.threads, schedule=Steady())
        return Candidate(size, specification, latency, trainer)

    def _train(
        self,
        candidate: Candidate,
        report: Report,
        should_stop: ShouldStop,
        on_epoch: Callable[[Candidate], None] | None,
    ) -> bool:
        """Train a candidate for a round; False after a stop, and then it is as it was after its last epoch."""
        trainer, current = candidate.trainer, self.rounds[self.round]
        self._give_time(candidate, current)
        report(
            CandidateBegun(
                network=str(candidate.size),
                round=self.round + 1,
                rounds=len(self.rounds),
                candidates=current.candidates,
            )
        )
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = stopped or should_stop()
            return stopped

        def listen(event: Event) -> None:
            if isinstance(event, Epoch):
                self.budget.epoch = sum(each.trainer.budget.epoch for each in self.candidates)
                self.budget.elapsed = sum(each.trainer.budget.elapsed for each in self.candidates)
                event = event.model_copy(
                    update={
                        "step": "fit",
                        "network": str(candidate.size),
                        "epochs": self.settings.epochs,
                        "epoch": self.budget.epoch,
                        "seconds": self.budget.elapsed,
                        "seconds_left": self.budget.seconds_left,
                    }
                )
                self._write_checkpoint()
            elif isinstance(event, Stopped):
                return
            report(event)

        def after_epoch() -> None:
            if on_epoch is not None and (chosen := self.chosen) is not None:
                on_epoch(chosen)

        trainer.run(report=listen, should_stop=stop, on_epoch=after_epoch)
        return not stopped

    def _give_time(self, candidate: Candidate, current: Round) -> None:
        """Let the trainer end after this round's part; in the last one its rate falls, and it learns from all."""
        settings, budget = self.settings, candidate.trainer.budget
        if candidate.limits.round != self.round:
            is_last = self.round == len(self.rounds) - 1
            epochs = seconds = None
            if settings.epochs is not None:
                left = settings.epochs - sum(each.trainer.budget.epoch for each in self.candidates)
                own = max(1, math.floor(current.fraction * settings.epochs))
                epochs = budget.epoch + (left if is_last else min(own, left))
            if settings.budget is not None:
                time_left = settings.budget - sum(each.trainer.budget.elapsed for each in self.candidates)
                own_time = time_left if is_last else current.fraction * settings.budget
                seconds = budget.elapsed + max(0.0, own_time)
            budget.epochs, budget.seconds = epochs, seconds
            candidate.limits = Limits(self.round, epochs, seconds, budget.fraction_used() if is_last else None)
        limits = candidate.limits
        budget.epochs, budget.seconds = limits.epochs, limits.seconds
        if limits.fall_from is not None:
            candidate.trainer.schedule = Falling(limits.fall_from)
            self._let_learn_from_everything(candidate)

    def _let_learn_from_everything(self, candidate: Candidate) -> None:
        make = self.data.everything if self.settings.learn_from_everything else None
        if make is not None and candidate.trainer.checks:
            candidate.trainer.learn_from_everything(make())

    def _report_candidate(self, candidate: Candidate, report: Report) -> None:
        report(
            CandidateRated(
                network=str(candidate.size),
                round=self.round + 1,
                rounds=len(self.rounds),
                milliseconds=candidate.latency,
                parameters=parameter_count(candidate.trainer.learner.network),
                mean_iou=candidate.scores.mean_iou,
                seconds=candidate.trainer.budget.elapsed,
            )
        )

    def _write_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "round": self.round,
                "candidates": [
                    {
                        "size": each.size.model_dump(),
                        "latency": each.latency,
                        "rounds": each.rounds,
                        "limits": vars(each.limits),
                        "trainer": each.trainer.state(),
                    }
                    for each in self.candidates
                ],
                "competing": [self.candidates.index(each) for each in self.competing],
            },
        )
