"""The network that data needs: candidates of several sizes are trained, the better ones longer, one to the end.

Successive halving (Jamieson and Talwalkar 2016) in which no training is thrown away but that of those who leave: all
learn at a steady rate with averaged weights, which are rated, so that a training can be compared, left or continued
at any time. On a CPU as many train side by side as there are threads, each by itself. In the last round the rate of the
chosen one falls, and it learns from the validation part as well, which has done its service. There is a usable model
from the first epoch on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import CandidateRated, Epoch, Event, Note, Report, RoundBegun, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.networks.pretrained import start_from_public_images
from napari_autosegnet.networks.specification import NetworkSpecification, parameter_count
from napari_autosegnet.search.candidates import Candidate, RoundLimits, Size, choose, fitting_sizes, survivors
from napari_autosegnet.search.latency import LATENCY_SIDE, measured_latencies
from napari_autosegnet.search.rounds import Round, number_of_candidates, plan_rounds
from napari_autosegnet.search.turns import take_turns
from napari_autosegnet.settings import FitSettings
from napari_autosegnet.training.budget import Budget
from napari_autosegnet.training.checkpoints import read_checkpoint, write_checkpoint
from napari_autosegnet.training.schedules import Falling, Steady
from napari_autosegnet.training.self_teaching import FOREST_EPOCHS
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData

#: A network that has learned for fewer epochs says nothing of what it will be.
MIN_EPOCHS = 3
#: Where too few pixels are checked, a network finds out in so many epochs, or such a fraction of the budget, whether it
#: may teach itself; then it begins anew.
TRIAL_EPOCHS, TRIAL_FRACTION = FOREST_EPOCHS + 5, 0.35
#: Training on a pixel takes about so many times as long as predicting it (two cores, four sizes: 4 to 9).
TRAINING_COST = 6.0


class MoreData(Protocol):
    """Annotation that somebody goes on with while networks learn."""

    @property
    def is_waiting(self) -> bool:
        """Whether there may be something new; asked often, by several threads."""
        ...

    def take(self, epoch: int) -> TrainingData | None:
        """Data with what is new, for all epochs after ``epoch``; None where it is of no use."""
        ...


class _NoMoreData:
    """Nobody does."""

    is_waiting = False

    def take(self, epoch: int) -> TrainingData | None:
        return None


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
        self.more_data: MoreData = _NoMoreData()
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
        more_data: MoreData | None = None,
    ) -> Candidate | None:
        """Train until the budget is used up or a stop is asked for; returns what the goal asks for.

        After a stop that is the best so far, None if there is nothing yet. ``on_epoch`` is called with
        that candidate after each of its epochs. ``more_data`` is asked between epochs.
        """
        self.more_data = more_data or self.more_data
        if not self.candidates:
            self._enter(report)
        with self.budget.counting():
            while self.round < len(self.rounds):
                if not self._train_round(report, should_stop, on_epoch):
                    report(Stopped(step="fit", reason="a stop was asked for"))
                    return self.chosen
                self._measure_again()
                for candidate in self.competing:
                    self._report_candidate(candidate, report)
                self.round += 1
                if self.round < len(self.rounds):
                    count, settings = self.rounds[self.round].candidates, self.settings
                    self.competing = survivors(self.competing, count, settings.goal, settings.tolerance)
                self.write_checkpoint()
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
            self.round, self.budget.elapsed = state["round"], state["elapsed"]
            for entry in state["candidates"]:
                candidate = self._make(Size.model_validate(entry["size"]), entry["latency"])
                candidate.limits = RoundLimits(**entry["limits"])
                self._keep_to_limits(candidate)
                if not entry["trainer"]["checks"]:
                    self._let_learn_from_everything(candidate)
                candidate.trainer.load_state(entry["trainer"])
                self.candidates.append(candidate)
            self.competing = [self.candidates[index] for index in state["competing"]]
            self.rounds = plan_rounds(len(self.candidates), self.settings.choosing)
            if state["data"] != self.data.version:  # ended before it was told how the new labels are scored
                self._learn_from(self.data)
        except (UserError, KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this run; "
                "resume with the run's own settings, or start a new run"
            ) from error

    def _enter(self, report: Report) -> None:
        """Build the candidates and measure how fast they are.

        A size that would do less than about `MIN_EPOCHS` in the first round does not compete. Where too few pixels are
        checked to compare networks, the usual size is alone.
        """
        settings = self.settings
        count = number_of_candidates(settings, self.threads.count, on_gpu=self.device.type != "cpu")
        too_few_pixels = settings.candidates is None and bool(self.data.checked.scarce)
        if too_few_pixels:
            count = 1
        side_by_side = min(self.threads.count, count)
        most_seconds = math.inf
        if settings.budget is not None and settings.candidates is None:
            first = plan_rounds(count, settings.choosing)[0].fraction
            # Rounded: whether a size competes must not depend on how busy the computer is for a second.
            most_seconds = first * settings.budget * side_by_side / (MIN_EPOCHS - 0.5)
        for size in fitting_sizes(settings.patch_size, settings.network, settings.goal):
            candidate = self._make(size)
            if not self.candidates or self._seconds_of_epoch(candidate, side_by_side) <= most_seconds:
                self.candidates.append(candidate)
            if len(self.candidates) == count:
                break
        self.competing = list(self.candidates)
        self.rounds = plan_rounds(len(self.candidates), settings.choosing)
        if len(self.candidates) == 1 and settings.candidates is None:
            little = "annotation" if too_few_pixels else "time"
            report(Note(text=f"there is too little {little} to compare networks; one of the usual size is trained"))

    def _seconds_of_epoch(self, candidate: Candidate, side_by_side: int) -> float:
        """What an epoch of a candidate takes while so many train at a time, by its latency."""
        settings, latency = self.settings, candidate.latency
        if side_by_side > 1:
            with single_threaded():
                [latency] = measured_latencies([candidate.specification], self.device)
        pixels = settings.steps_per_epoch * settings.batch_size * settings.patch_size**2
        return TRAINING_COST * pixels / LATENCY_SIDE**2 * latency / 1000

    def _measure_again(self) -> None:
        """Measure how fast all candidates are, those that left, too: the menu compares them."""
        latencies = measured_latencies([each.specification for each in self.candidates], self.device)
        for candidate, latency in zip(self.candidates, latencies, strict=True):
            # Whatever else the computer does makes a network slower, for seconds at a time, never faster.
            candidate.latency = min(candidate.latency, latency)

    def _make(self, size: Size, latency: float | None = None) -> Candidate:
        settings = self.settings
        specification = size.specification(
            settings.patch_size, settings.network, in_channels=self.in_channels, classes=len(self.data.class_names)
        )
        if latency is None:
            [latency] = measured_latencies([specification], self.device)
        network = self._new_network(size, specification, few_strokes=bool(self.data.checked.scarce))
        trainer = Trainer(network, self.data, settings, threads=self.threads, schedule=Steady())
        return Candidate(size, specification, latency, trainer)

    def _new_network(self, size: Size, specification: NetworkSpecification, *, few_strokes: bool) -> nn.Module:
        """A network of a size, with the weights that it begins with."""
        torch.manual_seed(self.settings.seed)
        network = specification.build()
        if self.settings.pretrained and few_strokes:
            start_from_public_images(network, size.name)
        return network

    def _train_round(
        self, report: Report, should_stop: ShouldStop, on_epoch: Callable[[Candidate], None] | None
    ) -> bool:
        """Train all who compete for a round; False after a stop."""
        self._give_time()
        names = tuple(str(each.size) for each in self.competing)
        report(RoundBegun(round=self.round + 1, rounds=len(self.rounds), networks=names))
        turns, side_by_side = _Turns(self, report, should_stop, on_epoch), self._side_by_side
        with self.threads.shared_by(side_by_side):
            while not turns.stopped and (left := [each for each in self.competing if each.trainer.budget.left]):
                self._look_for_more_data()
                self._end_trials()
                take_turns(
                    left,
                    turns.train,
                    had=lambda each: each.trainer.budget.fraction_used(),
                    side_by_side=side_by_side,
                )
        return not turns.stopped

    def _look_for_more_data(self) -> None:
        """Learn from what came meanwhile, while nobody trains: all that was reached is rated anew, on the same pixels.

        The time that this takes does not count.
        """
        if not self.more_data.is_waiting:
            return
        with self.budget.pausing():
            data = self.more_data.take(sum(each.trainer.budget.epoch for each in self.candidates))
            if data is not None:
                self.data = data
                self._learn_from(data)
                self.write_checkpoint()

    def _learn_from(self, data: TrainingData) -> None:
        """Learn from data of which more is annotated."""
        is_last_round = self.round >= len(self.rounds) - 1
        for candidate in self.candidates:
            if not candidate.trainer.checks and not is_last_round and not data.checked.scarce:
                # By now there is enough to check with, which these weights have learned from.
                self._begin_anew(candidate, from_everything=False)
            candidate.trainer.learn_from(data)

    def is_trial_over(self, candidate: Candidate) -> bool:
        """Whether a network is to begin anew and learn from all of the few strokes.

        Holding some of them out costs more than anything that they tell, which is little: whether a network may teach
        itself. So some epochs serve to find that out (docs/benchmarks/few-strokes.md).
        """
        trainer = candidate.trainer
        return (
            trainer.checks
            and self.settings.learn_from_everything
            and self.data.everything is not None
            and len(self.candidates) == 1
            and bool(self.data.checked.scarce)
            and (
                trainer.budget.epoch - trainer.began_at >= TRIAL_EPOCHS or self.budget.fraction_used() >= TRIAL_FRACTION
            )
        )

    def _end_trials(self) -> None:
        for candidate in self.competing:
            if self.is_trial_over(candidate):
                self._begin_anew(candidate, from_everything=True)

    def _begin_anew(self, candidate: Candidate, *, from_everything: bool) -> None:
        network = self._new_network(candidate.size, candidate.specification, few_strokes=True)
        candidate.trainer.begin_anew(network, from_everything=from_everything)

    @property
    def _side_by_side(self) -> int:
        """Candidates that train at a time."""
        return min(self.threads.count, len(self.competing))

    def _give_time(self) -> None:
        """Let all who compete train for this round's part; in the last one the rate falls, on all that there is."""
        settings, current = self.settings, self.rounds[self.round]
        is_last = self.round == len(self.rounds) - 1
        epochs_left = (settings.epochs or 0) - sum(each.trainer.budget.epoch for each in self.candidates)
        for candidate in self.competing:
            budget = candidate.trainer.budget
            if candidate.limits.round != self.round:
                epochs = seconds = None
                if settings.epochs is not None:
                    own = epochs_left if is_last else min(epochs_left, max(1, int(current.fraction * settings.epochs)))
                    epochs, epochs_left = budget.epoch + own, epochs_left - own
                if settings.budget is not None:
                    own_time = current.fraction * settings.budget * self._side_by_side
                    left = max(0.0, settings.budget - self.budget.elapsed)
                    seconds = budget.elapsed + (left if is_last else own_time)
                budget.epochs, budget.seconds = epochs, seconds
                candidate.limits = RoundLimits(self.round, epochs, seconds, budget.fraction_used() if is_last else None)
            self._keep_to_limits(candidate)

    def _keep_to_limits(self, candidate: Candidate) -> None:
        limits, trainer = candidate.limits, candidate.trainer
        trainer.budget.epochs, trainer.budget.seconds = limits.epochs, limits.seconds
        if limits.fall_from is not None:
            trainer.schedule = Falling(limits.fall_from)
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

    def write_checkpoint(self) -> None:
        """Write all as it was at the end of each candidate's last epoch."""
        if self.checkpoint is None:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "round": self.round,
                "elapsed": self.budget.elapsed,
                "data": self.data.version,
                "candidates": [
                    {
                        "size": each.size.model_dump(),
                        "latency": each.latency,
                        "limits": vars(each.limits),
                        "trainer": each.trainer.state(),
                    }
                    for each in self.candidates
                ],
                "competing": [self.candidates.index(each) for each in self.competing],
            },
        )


class _Turns:
    """Epochs of several candidates at a time: one reports at a time, and a pause or a stop is for all.

    Parameters
    ----------
    fit : Fit
    report, should_stop, on_epoch
        As of `Fit.run`.
    """

    def __init__(
        self, fit: Fit, report: Report, should_stop: ShouldStop, on_epoch: Callable[[Candidate], None] | None
    ) -> None:
        fit.budget.epoch = sum(each.trainer.budget.epoch for each in fit.candidates)
        self.stopped = False
        self._fit = fit
        self._report = report
        self._should_stop = should_stop
        self._on_epoch = on_epoch
        self._reporting = threading.Lock()
        self._asking = threading.Lock()

    def train(self, candidate: Candidate) -> bool:
        """Train for an epoch; whether there is another one to come in this round."""
        try:
            candidate.trainer.run(
                epochs=1,
                report=partial(self._listen, candidate),
                should_stop=self._stop,
                on_epoch=partial(self._after_epoch, candidate),
            )
        except BaseException:
            self.stopped = True
            raise
        if self._fit.is_trial_over(candidate):
            return False
        # Once there is more to learn from, everybody comes to the end of an epoch.
        return candidate.trainer.budget.left and not self.stopped and not self._fit.more_data.is_waiting

    def _stop(self) -> bool:
        with self._asking:
            self.stopped = self.stopped or self._fit.budget.without(self._should_stop)
            return self.stopped

    def _listen(self, candidate: Candidate, event: Event) -> None:
        if isinstance(event, Stopped):
            return
        with self._reporting:
            if isinstance(event, Epoch):
                with self._asking:  # who asks, may wait out a pause, which does not count
                    event = self._of_all(event, candidate)
                    self._fit.write_checkpoint()
            self._report(event)

    def _of_all(self, epoch: Epoch, candidate: Candidate) -> Epoch:
        """An epoch of one candidate as one of the whole fit."""
        budget = self._fit.budget
        # Not the sum of all: of two that end an epoch at the same moment, each is one more.
        budget.epoch += 1
        return epoch.model_copy(
            update={
                "step": "fit",
                "network": str(candidate.size),
                "epochs": self._fit.settings.epochs,
                "epoch": budget.epoch,
                "seconds": budget.elapsed,
                "seconds_left": budget.seconds_left,
            }
        )

    def _after_epoch(self, candidate: Candidate) -> None:
        # The weights of any other may be changing at this moment.
        if self._on_epoch is not None and self._fit.chosen is candidate:
            with self._reporting:
                self._on_epoch(candidate)
