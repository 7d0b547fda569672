"""Training of one network (AutoSegNet, section IV.B): the winner's, a baseline's, a finalist's.

A step does not wait for the device. Out of device memory it goes on with parts of batches whose gradients are added
up, and batch norm and the Dice loss then see no more than a part; a loss that is not finite takes it back to the end
of the last good epoch at half the learning rate. Both are told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_autosegnet.config import TrainSettings, share_done
from napari_autosegnet.device import device_memory
from napari_autosegnet.errors import UserError, is_out_of_memory
from napari_autosegnet.events import Epoch, Note, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.quality import Checked
from napari_autosegnet.training.averaged_weights import AveragedWeights
from napari_autosegnet.training.checkpoints import copied, read_checkpoint, write_checkpoint
from napari_autosegnet.training.losses import Loss, make_loss
from napari_autosegnet.training.optimisers import make_optimiser
from napari_autosegnet.training.patches_ahead import PatchesAhead, PatchStream
from napari_autosegnet.training.precision import training_precision
from napari_autosegnet.training.schedules import cosine_rate, warmup_rate
from napari_autosegnet.training.threads import WorkerThreads, single_threaded
from napari_autosegnet.training.validation import score_network
from napari_autosegnet.training.weight_gradients import set_gradients

#: Share of the training in which the learning rate rises to its full height.
WARMUP_SHARE = 0.03
#: A loss that is not finite this many times in a row ends the training.
MAX_ROLLBACKS = 5


@dataclass(frozen=True)
class TrainingData:
    """Patches to train on, and fixed patches to validate on: (n, c, y, x) and (n, y, x)."""

    patches: PatchStream
    validation_images: Tensor
    validation_targets: Tensor
    class_names: tuple[str, ...]
    #: Sections that the validation patches are of.
    validation_sections: int = 1

    @cached_property
    def checked(self) -> Checked:
        """On how much a network is validated."""
        counts = torch.bincount(self.validation_targets.flatten() + 1, minlength=len(self.class_names) + 1)
        pixels = dict(zip(self.class_names, counts[1:].tolist(), strict=True))
        return Checked(pixels=pixels, sections=self.validation_sections)


@dataclass(frozen=True)
class TrainingResult:
    """Weights of the best epoch on the CPU, and what they reached on the validation patches."""

    weights: dict[str, Tensor]
    mean_iou: float
    #: On the validation patches.
    loss: float
    iou: dict[str, float | None]
    epochs: int
    seconds: float


class Trainer:
    """State of a training; `run` goes on from wherever it is.

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
    """

    def __init__(
        self,
        network: nn.Module,
        data: TrainingData,
        settings: TrainSettings,
        *,
        checkpoint: Path | None = None,
        threads: WorkerThreads | None = None,
    ) -> None:
        self.device = data.validation_images.device
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data = data
        self.settings = settings
        self.checkpoint = checkpoint
        self.loss: Loss = make_loss(settings.loss, data.patches.class_frequencies.to(self.device))
        self.optimiser = make_optimiser(self.network, settings)
        self._parameters = list(self.network.parameters())
        self.averaged = AveragedWeights(self.network, settings.average_weights) if settings.average_weights else None
        self.threads = threads or WorkerThreads(self.device)
        self.patches = PatchesAhead(data.patches, settings.batch_size, settings.seed, self.threads)
        self.epoch = 0
        #: Steps of all epochs that count.
        self.steps = 0
        self.elapsed = 0.0
        self.patches_at_once = settings.batch_size
        self.rate_factor = 1.0
        self.best_mean_iou = -1.0
        self.best_loss = math.inf
        self.best_iou: dict[str, float | None] = {}
        self.best_weights: dict[str, Tensor] = {}

    def run(
        self,
        *,
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
        on_epoch: Callable[[], None] | None = None,
    ) -> TrainingResult:
        """Train until the epochs or the budget are used up or a stop is asked for; the best epoch is kept.

        ``on_epoch`` is called after each epoch; its time is not counted.

        Raises
        ------
        UserError
            When the loss is not finite again and again, or one patch does not fit in memory.
        """
        settings = self.settings
        good = self.state()
        rollbacks = 0
        while share_done(settings, self.epoch, self.elapsed) < 1:
            started = time.monotonic()
            before = self.elapsed
            self.network.train()
            losses = torch.zeros((), device=self.device)
            steps, stopped = 0, False
            for step in range(settings.steps_per_epoch):
                self.elapsed = before + time.monotonic() - started
                if self._budget_used():
                    break
                paused_since = time.monotonic()
                if stopped := should_stop():
                    break
                started += time.monotonic() - paused_since
                self._set_rate(self.epoch + step / settings.steps_per_epoch)
                losses += self._step(report)
                steps += 1
            mean_loss = float(losses) / max(steps, 1)
            # The last step's gradient may break the weights without showing in the loss.
            if not (math.isfinite(mean_loss) and (not steps or self._validate())):
                rollbacks += 1
                if rollbacks > MAX_ROLLBACKS:
                    raise UserError(
                        "the training loss is not finite even at a low learning rate; "
                        "check the image for extreme values, or lower --learning-rate"
                    )
                self.elapsed = before + time.monotonic() - started
                self._go_back(good)
                report(Note(text="the loss was not finite: went back one epoch and halved the learning rate"))
                continue
            self.elapsed = before + time.monotonic() - started
            if stopped:
                # The epoch that was begun is not counted, so that a resumed run repeats it exactly.
                report(Stopped(step="train", reason="a stop was asked for"))
                break
            if not steps:
                break
            self.epoch, self.steps = self.epoch + 1, self.steps + steps
            report(self._epoch(mean_loss))
            rollbacks, good = 0, self.state()
            self._write_checkpoint(good)
            if on_epoch is not None:
                on_epoch()
        if not self.best_weights:
            self._validate()
        return TrainingResult(
            self.best_weights, self.best_mean_iou, self.best_loss, self.best_iou, self.epoch, self.elapsed
        )

    @property
    def current(self) -> nn.Module:
        """The network that is validated: that of the averaged weights, where there are any."""
        averaged = self.averaged
        return self.network if averaged is None or not averaged.steps else averaged.network

    def resume(self, report: Report = silent) -> None:
        """Go back to the end of the last epoch that the checkpoint holds."""
        if self.checkpoint is not None:
            self.load_state(read_checkpoint(self.checkpoint, self.device, report))

    def _go_back(self, good: dict[str, Any]) -> None:
        """Take back the epoch that was begun, at half the rate; with other patches, and its time is gone."""
        kept = self.elapsed, self.patches_at_once, 0.5 * self.rate_factor, self.patches.state
        self.load_state(copied(good))
        self.elapsed, self.patches_at_once, self.rate_factor, self.patches.state = kept

    def _budget_used(self) -> bool:
        return self.settings.budget is not None and self.elapsed >= self.settings.budget

    def _set_rate(self, position: float) -> None:
        settings = self.settings
        share = min(1.0, share_done(settings, position, self.elapsed))
        # Without restarts one cycle spans the whole training.
        at, period = (position, settings.restart_period) if settings.restart_period else (share, 1.0)
        self.optimiser.factor = cosine_rate(at, period) * warmup_rate(share, WARMUP_SHARE) * self.rate_factor

    @single_threaded()
    def _step(self, report: Report) -> Tensor:
        images, targets = self.patches.take()
        while True:
            try:
                total = self._set_gradients(images, targets)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.patches_at_once == 1:
                    raise UserError(
                        "one patch does not fit in the device's memory; use a smaller --patch-size or --base-width"
                    ) from error
                self.patches_at_once = (self.patches_at_once + 1) // 2
                self.optimiser.zero_grad()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                text = (
                    f"out of memory: going on with {self.patches_at_once} patches at a time, gradients added up; "
                    "batch norm sees fewer at once, so the result may be worse than with enough memory"
                )
                report(Note(text=text))
        nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update()
        return total

    def _set_gradients(self, images: Tensor, targets: Tensor) -> Tensor:
        """Set the gradients of a batch, which is one part unless memory ran out; returns its loss."""
        self.optimiser.zero_grad()
        annotated = (targets >= 0).sum().clamp_min(1)
        total = torch.zeros((), device=self.device)

        def loss(part: Tensor, target: Tensor) -> Tensor:
            with training_precision(self.device):
                logits = self.network(part.contiguous(memory_format=torch.channels_last))
            # The mean over a part becomes a mean over the batch: weighted by how much of it is annotated.
            return self.loss(logits.float(), target) * (target >= 0).sum() / annotated

        for part in zip(*(torch.split(whole, self.patches_at_once) for whole in (images, targets)), strict=True):
            total += set_gradients(partial(loss, *part), self.threads)
        return total

    @single_threaded()
    def _validate(self) -> bool:
        """Score the network and keep the best; False if its loss is not finite, and then nothing is kept."""
        candidate = self.current
        names = self.data.class_names
        matrix, loss = score_network(
            candidate,
            self.data.validation_images,
            self.data.validation_targets,
            len(names),
            self.loss,
            batch_size=self.settings.batch_size,
            threads=self.threads,
        )
        if not math.isfinite(float(loss)):
            return False
        self.last_iou = dict(zip(names, matrix.iou, strict=True))
        self.last_mean_iou, self.last_loss = matrix.mean_iou, float(loss)
        # While a rare class is not found at all the IoU does not change, but the loss does.
        if (self.last_mean_iou, -self.last_loss) > (self.best_mean_iou, -self.best_loss):
            self.best_mean_iou, self.best_iou, self.best_loss = self.last_mean_iou, self.last_iou, self.last_loss
            self.best_weights = {key: value.detach().cpu().clone() for key, value in candidate.state_dict().items()}
        return True

    def _epoch(self, loss: float) -> Epoch:
        settings = self.settings
        share = share_done(settings, self.epoch, self.elapsed)
        return Epoch(
            step="train",
            epoch=self.epoch,
            epochs=settings.epochs,
            loss=loss,
            validation_loss=self.last_loss,
            mean_iou=self.last_mean_iou,
            iou=self.last_iou,
            best_mean_iou=self.best_mean_iou,
            learning_rate=self.optimiser.rate,
            seconds=self.elapsed,
            seconds_left=self.elapsed * (1 / share - 1) if share else None,
            memory=device_memory(self.device),
        )

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "elapsed": self.elapsed,
            "patches_at_once": self.patches_at_once,
            "rate_factor": self.rate_factor,
            "network": copied(self.network.state_dict()),
            "averaged": None if self.averaged is None else self.averaged.state(),
            "optimiser": copied(self.optimiser.state_dict()),
            "patches": self.patches.state,
            "best": {
                "mean_iou": self.best_mean_iou,
                "loss": self.best_loss,
                "iou": self.best_iou,
                "weights": self.best_weights,
            },
        }

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            self.network.load_state_dict(state["network"])
            if self.averaged is not None:
                self.averaged.load_state(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.patches.state = state["patches"]
            self.epoch, self.elapsed = state["epoch"], state["elapsed"]
            self.steps = state.get("steps", self.epoch * self.settings.steps_per_epoch)
            self.patches_at_once, self.rate_factor = state["patches_at_once"], state["rate_factor"]
            best = state["best"]
            self.best_mean_iou, self.best_iou, self.best_weights = best["mean_iou"], best["iou"], best["weights"]
            self.best_loss = best["loss"]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this network or these settings; "
                "resume with the run's own settings, or start a new run"
            ) from error

    def _write_checkpoint(self, state: dict[str, Any]) -> None:
        if self.checkpoint is not None:
            write_checkpoint(self.checkpoint, state)
