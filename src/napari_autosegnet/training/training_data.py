"""What a training is given, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from napari_autosegnet.quality import Checked
from napari_autosegnet.training.patches_ahead import PatchStream
from napari_autosegnet.training.validation import PatchScores


@dataclass(frozen=True)
class TrainingData:
    """Patches to train on, and fixed patches to validate on: (n, c, y, x) and (n, y, x).

    ``everything`` makes patches of all that is annotated, the validation part included.
    """

    patches: PatchStream
    validation_images: Tensor
    validation_targets: Tensor
    class_names: tuple[str, ...]
    #: Sections that the validation patches are of.
    validation_sections: int = 1
    everything: Callable[[], PatchStream] | None = None
    #: How much what a teacher says counts beside what was painted.
    teacher_weight: float = 0.0
    #: How many times labels that were painted meanwhile have been taken in.
    version: int = 0

    @cached_property
    def checked(self) -> Checked:
        """On how much a network is validated."""
        counts = torch.bincount(self.validation_targets.flatten() + 1, minlength=len(self.class_names) + 1)
        pixels = dict(zip(self.class_names, counts[1:].tolist(), strict=True))
        return Checked(pixels=pixels, sections=self.validation_sections)


@dataclass(frozen=True)
class Validation:
    """What a network reached on the validation patches.

    Attributes
    ----------
    mean_iou, loss : float
    iou : dict
        By class name; None for a class that neither occurs nor is predicted.
    weights : dict
        The network's, on the CPU, where it was the best so far.
    scores : PatchScores, optional
        All this by patch.
    """

    mean_iou: float = -1.0
    loss: float = math.inf
    iou: dict[str, float | None] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: PatchScores | None = None

    def is_better_than(self, other: Validation) -> bool:
        """While a rare class is not found at all the IoU does not change, but the loss does."""
        return (self.mean_iou, -self.loss) > (other.mean_iou, -other.loss)


@dataclass(frozen=True)
class TrainingResult:
    """What the epoch that is kept reached, and how long the training took.

    ``unchecked`` are weights that have learned on from there, from the validation part as well.
    """

    best: Validation
    epochs: int
    seconds: float
    unchecked: Mapping[str, Tensor] | None = None
