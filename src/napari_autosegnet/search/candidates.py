"""Networks that compete: of which size each is, how fast, and what it has reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.settings import Goal, NetworkSettings
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingResult
from napari_autosegnet.training.validation import PatchScores, paired_interval, pooled

#: A network is faster than another one if it takes less than this fraction of its time.
CLEARLY_FASTER = 0.85
GOALS: tuple[Goal, ...] = get_args(Goal)
#: Last epochs of a candidate that are compared with those of another one.
_EPOCHS_COMPARED = 2
#: With goal ``fast``, so much worse may a network be than the best.
NEARLY_AS_GOOD = 0.02


class Size(BaseModel):
    """Size of a chain of operations: how fine it works, how wide it is, and how deep.

    Attributes
    ----------
    stem_stride : int
        The network works at this fraction of the image's resolution.
    base_width : int
        Channels there.
    cells : int
        Cells per layer.
    """

    model_config = ConfigDict(frozen=True)

    stem_stride: int
    base_width: int
    cells: int = 3

    def specification(
        self, patch_size: int, settings: NetworkSettings, *, in_channels: int, classes: int
    ) -> NetworkSpecification:
        """A network of this size: the plain chain of operations."""
        own = {"stem_stride": self.stem_stride, "base_width": self.base_width, "max_width": 4 * self.base_width}
        specification = NetworkSpecification.for_patches(
            patch_size, settings.changed(**own), in_channels=in_channels, classes=classes
        )
        chain = SearchSpace(cells=self.cells, levels=specification.levels).plain
        return specification.model_copy(update={"architecture": chain})

    @property
    def cost(self) -> float:
        """About proportional to the multiplications for a pixel of the image."""
        return self.cells * (self.base_width / self.stem_stride) ** 2

    @property
    def name(self) -> str:
        """Short, for a folder."""
        return f"w{self.base_width}-s{self.stem_stride}-c{self.cells}"

    def __str__(self) -> str:
        resolution = "full resolution" if self.stem_stride == 1 else f"1/{self.stem_stride} of the resolution"
        return f"{self.base_width} channels at {resolution}, {self.cells} {'cell' if self.cells == 1 else 'cells'}"


#: In the order in which they are tried: the first is the usual one, then a finer, a faster, and a wider one, then what
#: only some data need (docs/benchmarks/sizes.md). Thirds of 24 and 48 channels, as hybrid dilated convolutions have
#: them, fill the vectors of a processor.
SIZES: tuple[Size, ...] = (
    Size(stem_stride=4, base_width=24),
    Size(stem_stride=2, base_width=16),
    Size(stem_stride=4, base_width=16),
    Size(stem_stride=4, base_width=32),
    Size(stem_stride=2, base_width=24),
    Size(stem_stride=8, base_width=48),
    Size(stem_stride=4, base_width=24, cells=2),
    Size(stem_stride=4, base_width=48),
)


def fitting_sizes(patch_size: int, settings: NetworkSettings, goal: Goal) -> list[Size]:
    """Those of `SIZES` that take patches of this size; for goal ``fast``, those cheaper than the usual one first.

    Raises
    ------
    UserError
        When none does; it names a size that will do.
    """
    usual, fitting, problem = SIZES[0], [], None
    # The order is kept otherwise, and the usual size stays the first.
    by_goal = sorted(SIZES, key=lambda size: size.cost >= usual.cost and size != usual) if goal == "fast" else SIZES
    for size in by_goal:
        try:
            size.specification(patch_size, settings, in_channels=1, classes=2)
        except UserError as error:
            problem = problem or error
        else:
            fitting.append(size)
    if problem is not None and not fitting:
        raise problem
    return fitting


@dataclass(frozen=True)
class RoundLimits:
    """How far a candidate trains in a round, and from which fraction of that on its rate falls."""

    round: int = -1
    epochs: int | None = None
    seconds: float | None = None
    fall_from: float | None = None


@dataclass(eq=False)
class Candidate:
    """A network that competes.

    Attributes
    ----------
    size : Size
    specification : NetworkSpecification
    latency : float
        Milliseconds for 512 x 512 pixels on the device that it is trained on.
    trainer : Trainer
    """

    size: Size
    specification: NetworkSpecification
    latency: float
    trainer: Trainer
    limits: RoundLimits = RoundLimits()

    @property
    def scores(self) -> PatchScores:
        """Those of its last epochs together: one alone is partly luck, and the kept one may have been kept by luck."""
        if self.trainer.recent:
            return pooled(self.trainer.recent)
        assert self.trainer.best.scores is not None
        return self.trainer.best.scores

    @property
    def result(self) -> TrainingResult:
        """What its training has given so far."""
        trainer = self.trainer
        unchecked = None if trainer.checks or trainer.is_new else trainer.learner.current.state_dict()
        return TrainingResult(trainer.best, trainer.budget.epoch, trainer.budget.elapsed, unchecked)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Those to look at now."""
        trainer = self.trainer
        return trainer.best.weights if trainer.is_new else trainer.learner.current.state_dict()

    def is_surely_better_than(self, other: Candidate) -> bool:
        return paired_interval(self.scores, other.scores)[0] > 0

    def is_faster_than(self, other: Candidate) -> bool:
        return self.latency < CLEARLY_FASTER * other.latency

    def lead_by_epoch(self, other: Candidate) -> float:
        """By how much its last epochs were better than the same epochs of one that has come further in the same time.

        0 against one that has not come further. A large network learns more from an epoch, which takes longer; what it
        will be at the end shows in that before it shows in its score.
        """
        epochs = len(self.trainer.curve)
        return _recent(self, epochs) - _recent(other, epochs) if 0 < epochs < len(other.trainer.curve) else 0.0

    def leads(self, other: Candidate, margin: float) -> bool:
        """Whether it is better by more than a margin, now as well as epoch by epoch."""
        if self.lead_by_epoch(other) <= margin:
            return False
        return _recent(self, len(self.trainer.curve)) - _recent(other, len(other.trainer.curve)) > margin


def _recent(candidate: Candidate, epochs: int) -> float:
    """Mean IoU after so many epochs, averaged over the last two of them: one alone is partly luck."""
    return float(np.mean(candidate.trainer.curve[max(0, epochs - _EPOCHS_COMPARED) : epochs]))


def survivors(candidates: Sequence[Candidate], count: int, goal: Goal, tolerance: float) -> list[Candidate]:
    """The ``count`` candidates to continue with: the one that `choose` takes, the usual size, then the best.

    Whoever is worse than another one and not clearly faster is left out before, unless it leads epoch by epoch. The
    usual size leaves only to whoever is surely better.
    """
    chosen = choose(candidates, goal, tolerance)
    usual = _usual(candidates)
    if usual is not None and chosen.is_surely_better_than(usual):
        usual = None
    front = list(candidates) if goal == "accurate" else pareto_front(candidates)

    def lead(each: Candidate) -> float:
        ahead = 0.0 if goal == "fast" else each.lead_by_epoch(chosen)
        return ahead if ahead > tolerance else 0.0

    ranked = sorted(
        candidates,
        key=lambda each: (each is not chosen, each is not usual, -lead(each), each not in front, -each.scores.mean_iou),
    )
    return ranked[:count]


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best candidate, and each that is clearly faster than all that are better than it; fastest first."""
    front: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (-each.scores.mean_iou, each.latency)):
        if not front or each.is_faster_than(front[0]):
            front.insert(0, each)
    return front


def choose(candidates: Sequence[Candidate], goal: Goal, tolerance: float) -> Candidate:
    """The candidate that a goal asks for.

    ``accurate`` is the best. ``balanced`` is the usual size, or the best if that is surely better or leads it by more
    than the tolerance (`Candidate.leads`); a faster one replaces it that surely loses no more than the tolerance.
    ``fast`` is the fastest that is within `NEARLY_AS_GOOD`.

    A few validation patches hardly tell networks apart, and the best of several is partly the luckiest. So the usual
    size, which is right for most data, is left on evidence only (docs/benchmarks/sizes.md).
    """
    best = max(candidates, key=lambda each: each.scores.mean_iou)
    if goal == "accurate":
        return best
    usual = _usual(candidates)
    reference = best
    if usual is not None and not (best.is_surely_better_than(usual) or best.leads(usual, tolerance)):
        reference = usual

    def is_good(each: Candidate) -> bool:
        if goal == "fast":
            return each.scores.mean_iou >= reference.scores.mean_iou - max(NEARLY_AS_GOOD, tolerance)
        return paired_interval(each.scores, reference.scores)[0] >= -tolerance

    faster = [each for each in candidates if each.is_faster_than(reference) and is_good(each)]
    return min(faster, key=lambda each: each.latency, default=reference)


def _usual(candidates: Sequence[Candidate]) -> Candidate | None:
    """The usual size, as long as it competes: once it has left, others have learned for longer."""
    current = max((each.limits.round for each in candidates), default=-1)
    return next((each for each in candidates if each.size == SIZES[0] and each.limits.round == current), None)
