"""Training of one network (AutoSegNet, section IV.B): the winner's, a baseline's, a finalist's.

A step does not wait for the device. Out of device memory it continues with parts of batches whose gradients are added
up, and batch norm and the Dice loss then see no more than a part; a loss that is not finite takes it back to the end
of the last good epoch at half the learning rate. Both are reported.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_autosegnet.device import device_memory, memory_holders
from napari_autosegnet.errors import UserError, is_out_of_memory
from napari_autosegnet.events import Epoch, Note, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.settings import TrainSettings
from napari_autosegnet.training.budget import Budget
from napari_autosegnet.training.checkpoints import read_checkpoint, write_checkpoint
from napari_autosegnet.training.learner import Learner
from napari_autosegnet.training.losses import Loss, make_loss, with_teacher
from napari_autosegnet.training.patches_ahead import PatchesAhead, PatchStream, TeachableStream
from napari_autosegnet.training.precision import training_precision
from napari_autosegnet.training.schedules import Cosine, Schedule
from napari_autosegnet.training.self_teaching import FOREST_EPOCHS, self_taught, teaches_itself
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.training_data import TrainingData, TrainingResult, Validation
from napari_autosegnet.training.validation import PatchScores, paired_interval, score_network

#: Epochs at the full rate on strokes that are too few to check anything.
SETTLES_AFTER = 15


class Trainer:
    """State of a training; `run` continues from wherever it is.

    Parameters
    ----------
    network : nn.Module
        Moved to the device of the validation patches; trained in place.
    data : TrainingData
    settings : TrainSettings
    checkpoint : Path, optional
        Written at the end of every epoch.
    threads : WorkerThreads, optional
        Of its own by default.
    schedule : Schedule, optional
        Of the learning rates; cosine cycles as the settings say by default.
    """

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        settings: TrainSettings,
        *,
        checkpoint: Path | None = None,
        threads: WorkerThreads | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.device = data.validation_images.device
        self.data = data
        self.settings = settings
        self.checkpoint = checkpoint
        self.loss = self._make_loss()
        self.threads = threads or WorkerThreads(self.device)
        self.learner = Learner(network, settings.optimization, self.threads)
        #: Patches as they were given, with what a forest teaches.
        self._given = data.patches
        self.patches = PatchesAhead(self._given, settings.batch_size, settings.seed, self.threads)
        self.budget = Budget(settings.epochs, settings.budget)
        self.schedule: Schedule = schedule or Cosine(settings.optimization.restart_period)
        #: Steps of all epochs that count.
        self.steps = 0
        self.patches_at_once = settings.batch_size
        #: Whether epochs are validated.
        self.checks = True
        #: Scores at the end of the last epoch, and what the best one reached.
        self.last: PatchScores | None = None
        self.best = Validation()
        #: The highest scores of any epoch.
        self.highest: PatchScores | None = None
        #: Mean IoU of each epoch that was validated and not cut short when the time was used up.
        self.curve: list[float] = []
        #: Scores of the last quarter of these epochs, two at least, on the validation part as it is now.
        self.recent: list[PatchScores] = []
        #: Loss on the validation part as it is now, after each epoch that was validated.
        self.losses: list[float] = []
        #: Epochs that had been trained when the network as it is began to learn, and when it was last given more data.
        self.began_at = self.settles_from = 0
        self._keep()

    def run(
        self,
        *,
        epochs: int | None = None,
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
        on_epoch: Callable[[], None] | None = None,
    ) -> TrainingResult:
        """Train until the budget is used up or a stop is asked for; the best epoch is kept (see `_is_to_be_kept`).

        No more than so many ``epochs`` at this call. ``on_epoch`` is called after each one; its time is not counted.

        Raises
        ------
        UserError
            When the loss is not finite again and again, or one patch does not fit in memory.
        """
        last = math.inf if epochs is None else self.budget.epoch + epochs
        while self.budget.left and self.budget.epoch < last:
            with self.budget.counting():
                epoch = self._train_epoch(report, should_stop)
                # The last step's gradient may break the weights without showing in the loss.
                is_good = math.isfinite(epoch.loss) and (not epoch.steps or self._check())
            if not is_good:
                self.learner.roll_back()
                report(Note(text="the loss was not finite: went back one epoch and halved the learning rate"))
                continue
            if epoch.stopped:
                # The epoch that was begun is not counted, so that a resumed run repeats it exactly.
                report(Stopped(step="train", reason="a stop was asked for"))
                break
            if not epoch.steps:
                break
            self.budget.epoch += 1
            self.steps += epoch.steps
            if self.checks and self.last is not None:
                self.losses.append(self.last.loss)
                if epoch.steps == self.settings.steps_per_epoch:
                    self.curve.append(self.last.mean_iou)
                    self.recent = [*self.recent, self.last][-max(2, len(self.curve) // 4) :]
            self._keep()
            self._write_checkpoint()
            report(self._progress(epoch.loss))
            if on_epoch is not None:
                on_epoch()
        if not self.best.weights:
            self._validate()
        return TrainingResult(self.best, self.budget.epoch, self.budget.elapsed)

    def learn_from_everything(self, patches: PatchStream) -> None:
        """From now on learn from these patches, some of which are of the validation part: no more epochs are rated."""
        self._given = patches
        self.patches = PatchesAhead(patches, self.settings.batch_size, self.settings.seed + 1, self.threads)
        self.checks = False

    @property
    def is_new(self) -> bool:
        """Whether the network began anew and knows less than the one before, whose weights are the best ones yet."""
        return self.began_at > 0 and self.budget.epoch < self.began_at + FOREST_EPOCHS

    def begin_anew(self, network: nn.Module, *, from_everything: bool) -> None:
        """From now on train other weights; what the ones before reached is kept, and they are the best so far.

        ``from_everything``: also from the validation part, and no more epochs are rated.
        """
        settings = self.settings
        self.learner = Learner(network, settings.optimization, self.threads)
        self.began_at = self.settles_from = self.budget.epoch
        if from_everything:
            assert self.data.everything is not None
            self.learn_from_everything(self.data.everything())
        else:
            self._given = self.data.patches
            self.patches = PatchesAhead(self._given, settings.batch_size, settings.seed, self.threads)
            self.checks, self.last, self.losses, self.recent = True, None, [], []
        self._keep()

    def learn_from(self, data: TrainingData) -> None:
        """From now on learn from data of the same classes of which more is annotated.

        Nothing in its validation part may have been learned from. What was reached is measured anew on it, so that
        it can be compared with what comes. To be called between epochs.
        """
        self.data = data
        self.settles_from = self.budget.epoch
        self.loss = self._make_loss()
        self._given = data.patches
        if not self.checks:
            assert data.everything is not None
            self._given = data.everything()
        self.patches.change(self._given)
        if self.checks and self.last is not None:
            self.last = self._scores(self.learner.current)
            # What was measured on other pixels is forgotten, how often it was measured is not.
            self.losses = [self.last.loss] * min(len(self.losses), FOREST_EPOCHS)
            self.recent = [self.last]
        if self.best.weights:
            network = copy.deepcopy(self.learner.network)
            network.load_state_dict(self.best.weights)
            scores = self._scores(network)
            self.best = replace(self._reached(scores), weights=self.best.weights, scores=scores)
            self.highest = scores
        self._keep()

    def _make_loss(self) -> Loss:
        data = self.data
        loss: Loss = make_loss(self.settings.loss, data.patches.class_frequencies.to(self.device))
        return with_teacher(loss, len(data.class_names), data.teacher_weight) if data.teacher_weight else loss

    def resume(self, report: Report = silent) -> None:
        """Go back to the end of the last epoch that the checkpoint holds."""
        if self.checkpoint is not None:
            self.load_state(read_checkpoint(self.checkpoint, self.device, report))

    def _train_epoch(self, report: Report, should_stop: ShouldStop) -> _EpochDone:
        self._choose_teacher()
        self.learner.network.train()
        losses = torch.zeros((), device=self.device)
        steps, stopped = 0, False
        for step in range(self.settings.steps_per_epoch):
            if self.budget.is_time_used:
                break
            if stopped := self.budget.without(should_stop):
                break
            losses += self.train_step(
                self._rate_factor(self.budget.epoch + step / self.settings.steps_per_epoch), report
            )
            steps += 1
        return _EpochDone(float(losses) / max(steps, 1), steps, stopped)

    def _choose_teacher(self) -> None:
        """Let the network's own labels take the place of the forest's, or the other way round.

        They are those of the weights that a checkpoint holds, so that a resumed training learns the same.
        """
        given = self._given
        if not self.data.teacher_weight or not isinstance(given, TeachableStream) or self.budget.is_time_used:
            return
        if self.budget.epoch - self.began_at >= FOREST_EPOCHS and teaches_itself(self.losses):
            seed = self.settings.seed + self.budget.epoch
            self.patches.change(self_taught(given, self.learner.current, seed=seed, threads=self.threads))
        elif self.patches.source is not given:
            self.patches.change(given)

    def _rate_factor(self, position: float) -> float:
        factor = self.schedule.factor(position, min(1.0, self.budget.fraction_used(position)))
        if self.checks or not self.data.checked.scarce:
            return factor
        # A few strokes are soon learned, and then mistakes are: the network settles, until there is more to learn from.
        return factor * min(1.0, SETTLES_AFTER / max(position - self.settles_from, 1)) ** 2

    @single_threaded()
    def train_step(self, rate_factor: float, report: Report) -> Tensor:
        images, targets = self.patches.take()
        while True:
            try:
                loss = self.learner.set_gradients(self._losses(images, targets))
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._use_less_memory(error, report)
        self.learner.step(rate_factor)
        return loss

    def _losses(self, images: Tensor, targets: Tensor) -> list[Callable[[], Tensor]]:
        """The loss of a batch, which is one part unless memory ran out."""
        annotated = (targets >= 0).sum().clamp_min(1)

        def loss(part: Tensor, target: Tensor) -> Tensor:
            with training_precision(self.device):
                logits = self.learner.network(part.contiguous(memory_format=torch.channels_last))
            # The mean over a part becomes a mean over the batch: weighted by how much of it is annotated.
            return self.loss(logits.float(), target) * (target >= 0).sum() / annotated

        parts = (torch.split(whole, self.patches_at_once) for whole in (images, targets))
        return [partial(loss, *part) for part in zip(*parts, strict=True)]

    def _use_less_memory(self, error: RuntimeError, report: Report) -> None:
        if self.patches_at_once == 1:
            raise UserError(
                f"one patch does not fit in the free memory of {self.device}{memory_holders(self.device)}; "
                "end other programs, or use a smaller --patch-size or --base-width"
            ) from error
        self.patches_at_once = (self.patches_at_once + 1) // 2
        self.learner.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        text = (
            f"too little memory is free on {self.device}{memory_holders(self.device)}: continuing with "
            f"{self.patches_at_once} patches at a time, gradients added up; "
            "batch norm sees fewer at once, so the result may be worse than with enough memory"
        )
        report(Note(text=text))

    def _check(self) -> bool:
        return self._validate() if self.checks else self.learner.is_finite()

    def _validate(self) -> bool:
        """Score the network and keep the best; False if its loss is not finite, and then nothing is kept."""
        network = self.learner.current
        scores = self._scores(network)
        if not math.isfinite(scores.loss):
            return False
        self.last = scores
        reached = self._reached(scores)
        if self._is_to_be_kept(reached, scores):
            weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
            self.best = replace(reached, weights=weights, scores=scores)
        if self.highest is None or scores.mean_iou > self.highest.mean_iou:
            self.highest = scores
        return True

    def _is_to_be_kept(self, reached: Validation, scores: PatchScores) -> bool:
        """Whether an epoch is the best so far.

        Averaged weights mostly get better, and the epoch that scores highest is partly the luckiest. So the latest is
        the best unless it is surely worse than that one (docs/benchmarks/few-strokes.md). Without an average each
        epoch is another network, and the highest score counts.
        """
        if self.data.checked.scarce or self.highest is None:
            return True
        if not self.settings.optimization.average_weights:
            return reached.is_better_than(self.best)
        return paired_interval(self.highest, scores)[0] <= 0

    def _scores(self, network: nn.Module) -> PatchScores:
        """Scores on the validation patches."""
        return score_network(
            network,
            self.data.validation_images,
            self.data.validation_targets,
            len(self.data.class_names),
            self.loss,
            batch_size=self.settings.batch_size,
            threads=self.threads,
        )

    def _reached(self, scores: PatchScores) -> Validation:
        """What these scores mean, without the weights."""
        iou = dict(zip(self.data.class_names, scores.iou, strict=True))
        return Validation(scores.mean_iou, scores.loss, iou)

    def _progress(self, loss: float) -> Epoch:
        # What was measured before the network learned from the validation part says nothing of it any more.
        scores = self.last if self.checks else None
        return Epoch(
            step="train",
            epoch=self.budget.epoch,
            epochs=self.settings.epochs,
            loss=loss,
            validation_loss=None if scores is None else scores.loss,
            mean_iou=None if scores is None else scores.mean_iou,
            iou={} if scores is None else dict(zip(self.data.class_names, scores.iou, strict=True)),
            best_mean_iou=self.best.mean_iou,
            learning_rate=self.learner.optimizer.rate,
            seconds=self.budget.elapsed,
            seconds_left=self.budget.seconds_left,
            memory=device_memory(self.device),
        )

    def _write_checkpoint(self) -> None:
        if self.checkpoint is not None:
            write_checkpoint(self.checkpoint, self.state())

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to continue exactly from the end of the last epoch."""
        return self._kept

    def _keep(self) -> None:
        """Remember all as it is."""
        self.learner.keep()
        self._kept: dict[str, Any] = {
            **self.learner.kept,
            "rate_factor": self.learner.rate_factor,
            "epoch": self.budget.epoch,
            "elapsed": self.budget.elapsed,
            "steps": self.steps,
            "patches_at_once": self.patches_at_once,
            "patches": self.patches.state,
            "last": _state(self.last),
            "highest": _state(self.highest),
            "curve": list(self.curve),
            "losses": list(self.losses),
            "recent": [scores.state() for scores in self.recent],
            "began_at": self.began_at,
            "settles_from": self.settles_from,
            "checks": self.checks,
            "best": vars(self.best) | {"scores": _state(self.best.scores)},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave; whether it learned from everything is the caller's to say."""
        try:
            self.learner.load_state(state)
            self.learner.rate_factor = state["rate_factor"]
            self.budget.epoch, self.budget.elapsed, self.steps = state["epoch"], state["elapsed"], state["steps"]
            self.patches_at_once, self.patches.state = state["patches_at_once"], state["patches"]
            self.last, self.highest = _of_state(state["last"]), _of_state(state["highest"])
            self.best = Validation(**state["best"] | {"scores": _of_state(state["best"]["scores"])})
            self.curve, self.losses = list(state["curve"]), list(state["losses"])
            self.recent = [PatchScores.from_state(each) for each in state["recent"]]
            self.began_at, self.settles_from = state["began_at"], state["settles_from"]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this network or these settings; "
                "resume with the run's own settings, or start a new run"
            ) from error
        self._keep()


def _state(scores: PatchScores | None) -> dict[str, Any] | None:
    return None if scores is None else scores.state()


def _of_state(state: dict[str, Any] | None) -> PatchScores | None:
    return None if state is None else PatchScores.from_state(state)


@dataclass(frozen=True)
class _EpochDone:
    """Mean loss of an epoch's steps, how many there were, and whether a stop was asked for in its course."""

    loss: float
    steps: int
    stopped: bool
