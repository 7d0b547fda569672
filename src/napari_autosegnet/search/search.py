"""The search for an architecture (AutoSegNet, section III; ENAS for the details it leaves open).

Three parts share the budget: a fair warm-up of the shared weights; epochs in which the weights
learn on proposed architectures and the strategy learns from their rewards; and the choice of the
winner by training the best rated few alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.config import SearchSettings, share_done
from napari_autosegnet.device import device_memory
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import (
    ArchitectureFound,
    CandidatesRated,
    Epoch,
    Event,
    Note,
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
from napari_autosegnet.search.selection import Finalist, Selection
from napari_autosegnet.search.strategies import FairSampler, make_strategy
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.training.checkpoints import copied, read_checkpoint, write_checkpoint
from napari_autosegnet.training.losses import make_loss
from napari_autosegnet.training.patches_ahead import PatchesAhead
from napari_autosegnet.training.schedules import cosine_rate, decayed_rate, warmup_rate
from napari_autosegnet.training.trainer import MAX_ROLLBACKS, TrainingData

#: A search counts as collapsed with less of the entropy, or more of the identities, that its strategy can have.
COLLAPSED_ENTROPY = 0.2
COLLAPSED_IDENTITY = 0.8
#: How many of the best rated architectures of the whole search compete with the last samples.
REMEMBERED = 16
#: With limits, so many architectures are drawn for each that is wanted before the search gives up.
MOST_DRAWS = 20


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
    """State of a search; `run` goes on from wherever it is.

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
        self.limits = Limits(
            final or self.specification,
            self.supernet.device,
            max_parameters=settings.max_parameters,
            max_latency=settings.max_latency,
        )
        self.strategy = make_strategy(self.space, settings)
        # Another stream than the strategy's own, or the warm-up would draw what the strategy draws.
        self.fair = FairSampler(self.space, np.random.default_rng([settings.seed, 1]))
        self.epoch = 0
        self.elapsed = 0.0
        self.best: dict[Architecture, float] = {}
        self.selection: Selection | None = None
        self._alarmed = False
        self.rate_factor = 1.0
        self._rollbacks = 0
        self._good: dict[str, Any] = {}

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> SearchResult | None:
        """Search until the epochs, the budget, or the loss or accuracy asked for are reached, or a stop.

        After a stop the best so far is returned without further training; None if nothing was rated yet.
        """
        stopped = False
        self._good = copied(self.supernet.state())
        while self.selection is None and not stopped and not self._search_is_over():
            stopped, reached = self._run_epoch(report, should_stop)
            if reached:
                report(Note(text=reached))
                break
        if self.selection is None and stopped and not self.best:
            return None
        if self.selection is None:
            self.selection = self._choose_finalists(report, rate_new=not stopped)
            if stopped and not self.selection.finalists:
                return None
        if not stopped:
            self._write_checkpoint()
            self._select(report, should_stop)
        winner = self.selection.winner
        score = winner.rating if winner.score is None else winner.score
        if score is None:
            return None
        found = winner.architecture.model_dump(mode="json")
        report(ArchitectureFound(architecture=found, score=score, final=True, remark=self.selection.remark))
        quality = None
        if winner.score is not None:
            quality = self.data.checked.with_scores(winner.score, winner.iou)
            report(QualityMeasured(step="search", **quality.model_dump(mode="json")))
        finalists = tuple(self.selection.finalists)
        return SearchResult(winner.architecture, score, finalists, self.epoch, self.elapsed, quality)

    def resume(self, report: Report = silent) -> None:
        """Go back to what the checkpoint holds."""
        if self.checkpoint is None:
            return
        state = read_checkpoint(self.checkpoint, self.supernet.device, report)
        try:
            self.supernet.load_state(state["supernet"])
            self.strategy.load_state(state["strategy"])
            self.fair.load_state(state["fair"])
            self.epoch, self.elapsed, self._alarmed = state["epoch"], state["elapsed"], state["alarmed"]
            self.rate_factor = state.get("rate_factor", 1.0)
            self.best = {self.space.decode(choices): rating for choices, rating in state["best"]}
            if state["selection"] is not None:
                self.selection = Selection(
                    [],
                    self.data,
                    self.specification,
                    self.settings,
                    seconds=state["selection_seconds"],
                    hand_down=self._hand_down,
                )
                self.selection.load_state(state["selection"])
            self.patches.state = state["patches"]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint {self.checkpoint} does not fit this search; "
                "resume with the run's own settings, or start a new run"
            ) from error

    @property
    def _share(self) -> float:
        """Share of the search proper (warm-up included, selection not) that is done."""
        shared_weights = 1 - self.settings.selection_share
        if not shared_weights:
            return 1.0
        return share_done(self.settings, self.epoch, self.elapsed, part=shared_weights)

    @property
    def _drawn_share(self) -> float:
        """Share of an architecture of the warm-up that is not the plain chain: rises to 1."""
        ramp = self.settings.warmup_ramp * self.settings.warmup_share
        return self._share / ramp if self._share < ramp else 1.0

    def _search_is_over(self) -> bool:
        return self._share >= 1

    def _run_epoch(self, report: Report, should_stop: ShouldStop) -> tuple[bool, str | None]:
        """One epoch; returns whether a stop was asked for, and which aim was reached, if any."""
        settings = self.settings
        before, started = self.elapsed, time.monotonic()
        warming_up = self._share < settings.warmup_share
        losses = torch.zeros((), device=self.supernet.device)
        steps, identity, proposed = 0, 0.0, 0

        def stop_asked() -> bool:
            nonlocal started
            paused_since = time.monotonic()
            answer = should_stop()
            started += time.monotonic() - paused_since
            self.elapsed = before + time.monotonic() - started
            return answer

        # Nothing is learned before the rewards, so the strategy may write all of them at once, which is far quicker.
        proposals = [] if warming_up else self.strategy.propose(settings.steps_per_epoch)
        for step in range(settings.steps_per_epoch):
            if stop_asked():
                return True, None
            if self._search_is_over():
                break
            architecture = self.fair.next(self._drawn_share) if warming_up else proposals[step]
            images, targets = self.patches.take()
            factor = self._rate_factor(self.epoch + step / settings.steps_per_epoch)
            losses += self.supernet.train_step(images, targets, architecture, factor)
            identity, proposed, steps = identity + architecture.identity_share, proposed + 1, steps + 1
        loss = float(losses) / max(steps, 1)
        if not (math.isfinite(loss) and self.supernet.is_finite()):
            self._roll_back(report)
            self.elapsed = before + time.monotonic() - started
            return False, None
        rewards: list[float] = []
        if not warming_up and self.strategy.learns:
            for _ in range(settings.controller_updates):
                if self._search_is_over():
                    break
                architectures = self.strategy.propose(settings.controller_samples)
                batch = []
                for architecture in architectures:
                    if stop_asked():
                        return True, None
                    batch.append(self._rate(architecture, self.supernet.reward_patches))
                self.strategy.learn(architectures, batch)
                rewards += batch
                identity += sum(a.identity_share for a in architectures)
                proposed += len(architectures)
        self.elapsed = before + time.monotonic() - started
        self.epoch += 1
        self._rollbacks, self._good = 0, copied(self.supernet.state())
        identity_share = identity / max(proposed, 1)
        self._report_epoch(report, loss, rewards, identity_share, warming_up)
        self._write_checkpoint()
        if settings.stop_loss is not None and steps and loss <= settings.stop_loss:
            return False, f"the loss {loss:.4f} reached {settings.stop_loss}"
        if settings.stop_accuracy is not None and rewards and np.mean(rewards) >= settings.stop_accuracy:
            return False, f"the mean reward {np.mean(rewards):.4f} reached {settings.stop_accuracy}"
        return False, None

    def _roll_back(self, report: Report) -> None:
        """Go back to the shared weights of the last good epoch, at half the learning rate."""
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS:
            raise UserError(
                "the loss of the search is not finite even at a low learning rate; "
                "check the image for extreme values, or lower --learning-rate"
            )
        self.supernet.load_state(copied(self._good))
        self.rate_factor *= 0.5
        report(Note(text="the loss was not finite: went back one epoch and halved the learning rate"))

    def _rate(self, architecture: Architecture, patches: int | None) -> float:
        if not self.limits.is_small_enough(architecture):
            return 0.0  # what the strategy learns from it
        rating = self.supernet.rate(architecture, patches=patches)
        self.best[architecture] = rating
        if len(self.best) > 4 * REMEMBERED:
            kept = sorted(self.best.items(), key=lambda item: item[1], reverse=True)[:REMEMBERED]
            self.best = dict(kept)
        return rating

    def _rate_factor(self, position: float) -> float:
        """What the learning rates are multiplied by."""
        settings = self.settings
        return (
            self.rate_factor
            * (cosine_rate(position, settings.restart_period, floor=0.01) if settings.restart_period else 1.0)
            * decayed_rate(self.epoch, decay=settings.learning_rate_decay, after=settings.decay_after)
            * warmup_rate(position, 1.0)
        )

    def _report_epoch(
        self, report: Report, loss: float, rewards: list[float], identity_share: float, warming_up: bool
    ) -> None:
        settings = self.settings
        statistics = self.strategy.statistics()
        share = self._share
        report(
            Epoch(
                step="search",
                phase="warm-up" if warming_up else "search",
                epoch=self.epoch,
                epochs=settings.epochs,
                loss=loss,
                reward=float(np.mean(rewards)) if rewards else None,
                best_reward=max(self.best.values(), default=None),
                identity_share=identity_share,
                entropy=statistics.get("entropy"),
                least_entropy=statistics.get("least_entropy"),
                largest_entropy=statistics.get("largest_entropy"),
                largest_identity_share=statistics.get("largest_identity_share"),
                baseline=statistics.get("baseline"),
                population_mean=statistics.get("population_mean"),
                seconds=self.elapsed,
                seconds_left=self._seconds_left(share),
                memory=device_memory(self.supernet.device),
            )
        )
        if self.best:
            best = max(self.best, key=self.best.__getitem__)
            report(ArchitectureFound(architecture=best.model_dump(mode="json"), score=self.best[best], final=False))
        if warming_up or self._alarmed:
            return
        # Both lie between even choices and the surest that the controller's bound allows.
        collapsed = "entropy" in statistics and (
            _way(statistics["entropy"], statistics["least_entropy"], statistics["largest_entropy"]) < COLLAPSED_ENTROPY
        )
        even = 1 / len(self.space.operations)
        identities = _way(identity_share, even, statistics.get("largest_identity_share", 1.0)) > COLLAPSED_IDENTITY
        if collapsed or identities:
            self._alarmed = True
            what = "almost always the same" if collapsed else "as many identities as it can"
            report(WarningRaised(text=f"the search proposes {what}: what it finds from here on is not worth more time"))

    def _seconds_left(self, share: float) -> float | None:
        if self.settings.budget is not None:
            return max(0.0, self.settings.budget - self.elapsed)
        return self.elapsed * (1 / share - 1) if share else None

    def _choose_finalists(self, report: Report, *, rate_new: bool) -> Selection:
        """The strategy's last word, rated on all validation patches beside the best so far."""
        settings = self.settings
        started = time.monotonic()
        seconds: float | None = None
        if settings.budget is not None:
            seconds = max(0.0, settings.budget - self.elapsed)
        finalists = self._rated_finalists(seconds, report, rate_new) if settings.selection_share < 1 else None
        if finalists is None:
            # No shared weights that could rate anything: whoever is proposed first competes.
            proposed = [a for a in self._propose(settings.finalists) if self.limits.is_fast_enough(a)]
            if not proposed:
                raise self.limits.refusal()
            finalists = [Finalist(architecture) for architecture in proposed]
        if rate_new:
            self._add_plain(finalists)
        spent = time.monotonic() - started
        self.elapsed += spent
        return Selection(
            finalists,
            self.data,
            self.specification,
            settings,
            seconds=None if seconds is None else max(1.0, seconds - spent),
            hand_down=self._hand_down,
        )

    @property
    def _hand_down(self) -> Callable[[SegmentationNetwork], None] | None:
        shared = self.settings.selection_share < 1 and self.settings.finalists_inherit
        return self.supernet.hand_down if shared else None

    def _rated_finalists(self, seconds: float | None, report: Report, rate_new: bool) -> list[Finalist]:
        started = time.monotonic()
        ranked = sorted(self.best, key=self.best.__getitem__, reverse=True)[:REMEMBERED]
        ratings = {a: self.best[a] for a in ranked}
        if rate_new:
            ratings = {}
            for architecture in dict.fromkeys(ranked + self._propose(self.settings.candidates)):
                # Rating the candidates may take a fifth of what is left, and then the rest is not rated.
                if ratings and seconds is not None and time.monotonic() - started > 0.2 * seconds:
                    break
                ratings[architecture] = self.supernet.rate(architecture)
        ranked = sorted(ratings, key=ratings.__getitem__, reverse=True)
        if ranked:
            report(CandidatesRated(count=len(ranked), best=ratings[ranked[0]], worst=ratings[ranked[-1]]))
        finalists: list[Finalist] = []
        for architecture in ranked:
            if len(finalists) < self.settings.finalists and self.limits.is_fast_enough(architecture):
                finalists.append(Finalist(architecture, ratings[architecture]))
        if not finalists and rate_new:
            raise self.limits.refusal()
        return finalists

    def _add_plain(self, finalists: list[Finalist]) -> None:
        """Let a plain chain compete in the last one's place: what is found should be better than no search.

        Short trainings prefer what learns fast, so it has to be better by a margin.
        """
        plain, settings = self.space.plain, self.settings
        if not settings.plain_finalist or len(finalists) < 2:
            return
        competitor = next((f for f in finalists if f.architecture == plain), None)
        if competitor is None and self.limits.is_small_enough(plain) and self.limits.is_fast_enough(plain):
            rating = self.supernet.rate(plain) if settings.selection_share < 1 else None
            competitor = finalists[-1] = Finalist(plain, rating)
        if competitor is not None:
            competitor.lead = settings.plain_margin

    def _propose(self, count: int) -> list[Architecture]:
        """Different architectures of the strategy that are small enough, ``count`` of them if it has so many."""
        found: dict[Architecture, None] = {}
        for _ in range(MOST_DRAWS):
            proposed = self.strategy.propose(count)
            found |= dict.fromkeys(a for a in proposed if self.limits.is_small_enough(a))
            # Without a limit the first draw is all there is: a collapsed controller has no others.
            if len(found) >= count or self.limits.max_parameters is None:
                break
        return list(found)[:count]

    def _select(self, report: Report, should_stop: ShouldStop) -> None:
        assert self.selection is not None
        started, before = time.monotonic(), self.elapsed

        def listen(event: Event) -> None:
            self.elapsed = before + time.monotonic() - started
            self._write_checkpoint()
            report(event)

        self.selection.run(report=listen, should_stop=should_stop)
        self.elapsed = before + time.monotonic() - started
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        write_checkpoint(
            self.checkpoint,
            {
                "epoch": self.epoch,
                "elapsed": self.elapsed,
                "alarmed": self._alarmed,
                "rate_factor": self.rate_factor,
                "supernet": self.supernet.state(),
                "strategy": self.strategy.state(),
                "fair": self.fair.state(),
                "patches": self.patches.state,
                "best": [(list(self.space.encode(a)), rating) for a, rating in self.best.items()],
                "selection": None if self.selection is None else self.selection.state(),
                "selection_seconds": None if self.selection is None else self.selection.seconds,
            },
        )


def _way(value: float, start: float, end: float) -> float:
    """How far along the way from one bound to the other a value is: 0 to 1."""
    return (value - start) / (end - start) if end > start else 0.0
