"""The search for an architecture (AutoSegNet, section III; ENAS for the details it leaves open).

Three parts share the budget: a fair warm-up of the shared weights; epochs in which the weights
learn on proposed architectures and the strategy learns from their rewards; and the choice of the
winner by training the best rated few alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.device import device_memory
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import (
    ArchitectureFound,
    Epoch,
    Event,
    FinalistTrained,
    Note,
    ProgressMade,
    QualityMeasured,
    Report,
    WarningRaised,
    silent,
)
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.networks.segmentation import SegmentationNetwork
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.quality import Quality
from napari_autosegnet.search.limits import Limits
from napari_autosegnet.search.nominations import Nominations
from napari_autosegnet.search.selection import Finalist, Selection
from napari_autosegnet.search.strategies import FairSampler, make_strategy
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.settings import SearchSettings
from napari_autosegnet.training.budget import Budget
from napari_autosegnet.training.checkpoints import read_checkpoint, write_checkpoint
from napari_autosegnet.training.losses import make_loss
from napari_autosegnet.training.patches_ahead import PatchesAhead
from napari_autosegnet.training.schedules import cosine_rate, decayed_rate, warmup_rate
from napari_autosegnet.training.training_data import TrainingData

#: A search counts as collapsed with less of the entropy, or more of the identities, that its strategy can have.
COLLAPSED_ENTROPY = 0.2
COLLAPSED_IDENTITY = 0.8


@dataclass(frozen=True)
class SearchResult:
    """The winner, and all that was trained alone."""

    architecture: Architecture
    score: float
    finalists: tuple[Finalist, ...]
    epochs: int
    seconds: float
    #: What the winner reached alone in a short training; None when it was only rated.
    quality: Quality | None = None


class Search:
    """State of a search; `run` continues from wherever it is.

    Parameters
    ----------
    data : TrainingData
        Patches of the search's patch size. The validation patches are what rewards are measured on;
        no test data comes near this.
    settings : SearchSettings
    in_channels : int
        Channels of the patches.
    checkpoint : Path, optional
        Written at the end of every epoch and after every finalist.
    final : NetworkSpecification, optional
        Size of the network that is trained in the end, to which the limits of the settings apply; by default that of
        the search.
    """

    def __init__(
        self,
        data: TrainingData,
        settings: SearchSettings,
        *,
        in_channels: int,
        checkpoint: Path | None = None,
        final: NetworkSpecification | None = None,
    ) -> None:
        self.data = data
        self.settings = settings
        self.checkpoint = checkpoint
        self.specification = NetworkSpecification.for_patches(
            settings.patch_size, settings.network, in_channels=in_channels, classes=len(data.class_names)
        )
        self.space = settings.space.model_copy(update={"levels": self.specification.levels})
        torch.manual_seed(settings.seed)
        self.supernet = Supernet(
            self.space,
            self.specification,
            settings,
            data.validation_images,
            data.validation_targets,
            make_loss(settings.loss, data.patches.class_frequencies.to(data.validation_images.device)),
        )
        self.patches = PatchesAhead(data.patches, settings.batch_size, settings.seed, self.supernet.threads)
        limits = Limits(
            final or self.specification,
            self.supernet.device,
            max_parameters=settings.max_parameters,
            max_latency=settings.max_latency,
        )
        self.strategy = make_strategy(self.space, settings)
        self.nominations = Nominations(self.space, settings, self.supernet, self.strategy, limits)
        # Another stream than the strategy's own, or the warm-up would draw what the strategy draws.
        self.fair = FairSampler(self.space, np.random.default_rng([settings.seed, 1]))
        shared = 1 - settings.selection.fraction
        #: What is left for the shared weights; the selection spends the rest.
        self.budget = Budget(settings.epochs, None if settings.budget is None else shared * settings.budget)
        self.selection: Selection | None = None
        self._warned = False

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> SearchResult | None:
        """Search until the epochs, the budget, or the loss or accuracy asked for are reached, or a stop.

        After a stop the best so far is returned without further training; None if nothing was rated yet.
        """
        stopped = False
        self.supernet.learner.keep()
        while self.selection is None and not stopped and self._is_learning_left:
            with self.budget.counting():
                epoch = self._run_epoch(lambda: self.budget.without(should_stop))
            stopped = epoch.stopped
            if stopped:
                break
            if not epoch.is_finite:
                self.supernet.roll_back()
                report(Note(text="the loss was not finite: went back one epoch and halved the learning rate"))
                continue
            self.budget.epoch += 1
            self.supernet.learner.keep()
            self._report_epoch(report, epoch)
            self._write_checkpoint()
            if reached := self._aim_reached(epoch):
                report(Note(text=reached))
                break
        if self.selection is None:
            if stopped and not self.nominations.best:
                return None
            with self.budget.counting():
                self.selection = self._choose_finalists(report, rate_new=not stopped)
            if stopped and not self.selection.finalists:
                return None
        if not stopped:
            self._write_checkpoint()
            with self.budget.counting():
                self._select(report, lambda: self.budget.without(should_stop))
            self._write_checkpoint()
        return self._result(report)

    def _result(self, report: Report) -> SearchResult | None:
        assert self.selection is not None
        winner = self.selection.winner
        score = winner.rating if winner.score is None else winner.score
        if score is None:
            return None
        content = winner.architecture.model_dump(mode="json")
        report(ArchitectureFound(architecture=content, score=score, final=True, remark=self.selection.remark))
        quality = None
        if winner.score is not None:
            quality = self.data.checked.with_scores(winner.score, winner.iou)
            report(QualityMeasured(step="search", **quality.model_dump(mode="json")))
        finalists = tuple(self.selection.finalists)
        return SearchResult(winner.architecture, score, finalists, self.budget.epoch, self.budget.elapsed, quality)

    def resume(self, report: Report = silent) -> None:
        """Go back to what the checkpoint holds."""
        if self.checkpoint is None:
            return
        state = read_checkpoint(self.checkpoint, self.supernet.device, report)
        try:
            self.supernet.load_state(state["supernet"])
            self.strategy.load_state(state["strategy"])
            self.fair.load_state(state["fair"])
            self.budget.epoch, self.budget.elapsed, self._warned = state["epoch"], state["elapsed"], state["warned"]
            self.supernet.learner.rate_factor = state["rate_factor"]
            self.nominations.best = {self.space.decode(choices): rating for choices, rating in state["best"]}
            if state["selection"] is not None:
                self.selection = Selection(
                    [],
                    self.data,
                    self.specification,
                    self.settings,
                    seconds=state["selection_seconds"],
                    inherit_weights=self._inherit_weights,
                )
                self.selection.load_state(state["selection"])
            self.patches.state = state["patches"]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this search; "
                "resume with the run's own settings, or start a new run"
            ) from error

    @property
    def _is_learning_left(self) -> bool:
        return self.nominations.shares_weights and self.budget.left

    @property
    def _drawn_fraction(self) -> float:
        """Fraction of an architecture of the warm-up that is not the plain chain: rises to 1."""
        ramp = self.settings.warmup_ramp * self.settings.warmup_fraction
        done = self.budget.fraction_used()
        return done / ramp if done < ramp else 1.0

    def _run_epoch(self, should_stop: ShouldStop) -> _EpochDone:
        """One epoch: the shared weights learn, then the strategy does, unless the warm-up lasts."""
        settings = self.settings
        epoch = _EpochDone(warming_up=self.budget.fraction_used() < settings.warmup_fraction)
        losses = torch.zeros((), device=self.supernet.device)
        # Nothing is learned before the rewards, so the strategy may write all of them at once, which is far quicker.
        proposals = [] if epoch.warming_up else self.strategy.propose(settings.steps_per_epoch)
        for step in range(settings.steps_per_epoch):
            if should_stop():
                epoch.stopped = True
                return epoch
            if not self.budget.left:
                break
            architecture = self.fair.next(self._drawn_fraction) if epoch.warming_up else proposals[step]
            images, targets = self.patches.take()
            factor = self._rate_factor(self.budget.epoch + step / settings.steps_per_epoch)
            losses += self.supernet.train_step(images, targets, architecture, factor)
            epoch.architectures.append(architecture)
            epoch.steps += 1
        epoch.loss = float(losses) / max(epoch.steps, 1)
        epoch.is_finite = math.isfinite(epoch.loss) and self.supernet.learner.is_finite()
        if epoch.is_finite and not epoch.warming_up and self.strategy.learns:
            self._teach_strategy(epoch, should_stop)
        return epoch

    def _teach_strategy(self, epoch: _EpochDone, should_stop: ShouldStop) -> None:
        for _ in range(self.settings.updates_per_epoch):
            if not self.budget.left:
                return
            architectures = self.strategy.propose(self.settings.samples_per_update)
            rewards = []
            for architecture in architectures:
                if should_stop():
                    epoch.stopped = True
                    return
                rewards.append(self.nominations.rate(architecture, self.supernet.reward_patches))
            self.strategy.learn(architectures, rewards)
            epoch.rewards += rewards
            epoch.architectures += architectures

    def _aim_reached(self, epoch: _EpochDone) -> str | None:
        """Which of the values at which the search may end was reached, if any."""
        stop_loss, stop_accuracy = self.settings.stop_loss, self.settings.stop_accuracy
        if stop_loss is not None and epoch.steps and epoch.loss <= stop_loss:
            return f"the loss {epoch.loss:.4f} reached {stop_loss}"
        if stop_accuracy is not None and epoch.reward is not None and epoch.reward >= stop_accuracy:
            return f"the mean reward {epoch.reward:.4f} reached {stop_accuracy}"
        return None

    def _rate_factor(self, position: float) -> float:
        """What the learning rates are multiplied by."""
        optimization = self.settings.optimization
        return (
            (cosine_rate(position, optimization.restart_period, floor=0.01) if optimization.restart_period else 1.0)
            * decayed_rate(self.budget.epoch, decay=optimization.learning_rate_decay, after=optimization.decay_after)
            * warmup_rate(position, 1.0)
        )

    def _report_epoch(self, report: Report, epoch: _EpochDone) -> None:
        statistics, ratings = self.strategy.statistics(), self.nominations.best
        report(
            Epoch(
                step="search",
                phase="warm-up" if epoch.warming_up else "search",
                epoch=self.budget.epoch,
                epochs=self.settings.epochs,
                loss=epoch.loss,
                reward=epoch.reward,
                best_reward=max(ratings.values(), default=None),
                identity_fraction=epoch.identity_fraction,
                entropy=statistics.get("entropy"),
                least_entropy=statistics.get("least_entropy"),
                largest_entropy=statistics.get("largest_entropy"),
                largest_identity_fraction=statistics.get("largest_identity_fraction"),
                baseline=statistics.get("baseline"),
                population_mean=statistics.get("population_mean"),
                seconds=self.budget.elapsed,
                seconds_left=self._seconds_left,
                memory=device_memory(self.supernet.device),
            )
        )
        if ratings:
            best = max(ratings, key=ratings.__getitem__)
            report(ArchitectureFound(architecture=best.model_dump(mode="json"), score=ratings[best], final=False))
        if epoch.warming_up or self._warned:
            return
        # Both lie between even choices and the surest that the controller's bound allows.
        collapsed = "entropy" in statistics and (
            _way(statistics["entropy"], statistics["least_entropy"], statistics["largest_entropy"]) < COLLAPSED_ENTROPY
        )
        even = 1 / len(self.space.operations)
        identities = (
            _way(epoch.identity_fraction, even, statistics.get("largest_identity_fraction", 1.0)) > COLLAPSED_IDENTITY
        )
        if collapsed or identities:
            self._warned = True
            what = "almost always the same" if collapsed else "as many identities as it can"
            report(WarningRaised(text=f"the search proposes {what}: what it finds from here on is not worth more time"))

    @property
    def _seconds_left(self) -> float | None:
        """Of the whole search where it has a time budget, else of its epochs."""
        if self.settings.budget is not None:
            return max(0.0, self.settings.budget - self.budget.elapsed)
        return self.budget.seconds_left

    def _choose_finalists(self, report: Report, *, rate_new: bool) -> Selection:
        settings = self.settings
        # Rating the candidates may take a fifth of what is left, and then the rest is not rated.
        time_left = None if settings.budget is None else self._seconds_left
        end = math.inf if time_left is None else self.budget.elapsed + 0.2 * time_left
        return Selection(
            self.nominations.finalists(self._with_time(report), lambda: self.budget.elapsed <= end, rate_new=rate_new),
            self.data,
            self.specification,
            settings,
            seconds=None if settings.budget is None else max(1.0, settings.budget - self.budget.elapsed),
            inherit_weights=self._inherit_weights,
        )

    @property
    def _inherit_weights(self) -> Callable[[SegmentationNetwork], None] | None:
        return (
            self.supernet.inherit_weights
            if self.nominations.shares_weights and self.settings.selection.inherit_weights
            else None
        )

    def _with_time(self, report: Report) -> Report:
        """Adds to what is told of progress how much of the time budget is left, where there is one."""

        def listen(event: Event) -> None:
            if isinstance(event, ProgressMade) and self.settings.budget is not None:
                event = event.model_copy(update={"seconds_left": self._seconds_left})
            report(event)

        return listen

    def _select(self, report: Report, should_stop: ShouldStop) -> None:
        assert self.selection is not None

        def listen(event: Event) -> None:
            if isinstance(event, FinalistTrained):
                self._write_checkpoint()
            report(event)

        self.selection.run(report=self._with_time(listen), should_stop=should_stop)

    def _write_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "epoch": self.budget.epoch,
                "elapsed": self.budget.elapsed,
                "warned": self._warned,
                "rate_factor": self.supernet.learner.rate_factor,
                "supernet": self.supernet.learner.state(),
                "strategy": self.strategy.state(),
                "fair": self.fair.state(),
                "patches": self.patches.state,
                "best": [(list(self.space.encode(a)), rating) for a, rating in self.nominations.best.items()],
                "selection": None if self.selection is None else self.selection.state(),
                "selection_seconds": None if self.selection is None else self.selection.seconds,
            },
        )


@dataclass
class _EpochDone:
    """What happened in an epoch."""

    warming_up: bool
    loss: float = 0.0
    steps: int = 0
    #: Architectures that were trained or rated.
    architectures: list[Architecture] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    is_finite: bool = True
    #: A stop was asked for in its course; then it does not count.
    stopped: bool = False

    @property
    def reward(self) -> float | None:
        return float(np.mean(self.rewards)) if self.rewards else None

    @property
    def identity_fraction(self) -> float:
        return sum(each.identity_fraction for each in self.architectures) / max(len(self.architectures), 1)


def _way(value: float, start: float, end: float) -> float:
    """How far along the way from one bound to the other a value is: 0 to 1."""
    return (value - start) / (end - start) if end > start else 0.0
