"""How good a segmentation is: IoU, Dice, accuracy, calibration, and the scores of the ISBI 2012 challenge.

Classes are indices 0..K-1 here, `IGNORE` (-1) is a pixel that is not annotated. `ConfusionMatrix`
and `Calibration` gather counts batch by batch on the device that the batch is on and come to the host
only when they are asked for a result. `boundary_scores` gives V_rand and V_info.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import ProgressMade, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.quality import Checked, Quality

IGNORE = -1
#: Cuts of the boundary probability among which the best is chosen.
#: The low ones matter: a network that is unsure of a faint membrane still gives it a few percent, and that closes it.
THRESHOLDS: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03, *(step / 20 for step in range(1, 20)))

Classes = Tensor | npt.NDArray[np.integer]


class ObjectScores(BaseModel):
    """How well numbered objects agree with true ones, over a whole volume; what is in no true object counts nowhere.

    Attributes
    ----------
    objects, found
        True objects, and found ones.
    v_rand, v_info
        As in `boundary_scores`, of the objects as they are; each voxel of no found object is one of its own.
    precision, recall
        Shares of the found objects, and of the true ones, that have a partner of an intersection over union above
        0.5 and above 0.75.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    objects: int
    found: int
    v_rand: float
    v_info: float
    precision: dict[str, float]
    recall: dict[str, float]


class Scores(BaseModel):
    """Scores of a segmentation; pixels that are not annotated are left out of all of them.

    A class that occurs neither in the truth nor in the prediction has no IoU and no Dice: they are
    ``None``, and ``mean_iou`` is the mean over the other classes. No value is ever NaN.

    Attributes
    ----------
    classes
        Names in the order of their numbers; the keys of ``iou`` and ``dice``.
    mean_iou
        Mean of the IoU of the classes that occur.
    iou, dice
        By class name: intersection / union, and 2 intersection / (truth + prediction).
    accuracy
        Share of annotated pixels that are right.
    confusion
        Pixels by true class (rows) and predicted class (columns).
    not_predicted
        Pixels of each true class to which the prediction gives no class; they count as missed.
    sections
        Sections that were scored, where that is known.
    v_rand, v_info
        Foreground-restricted Rand and information scores after border thinning, each at its best
        threshold (`boundary_scores`), where a class is a boundary.
    threshold
        Boundary probability at which ``v_rand`` is best.
    expected_calibration_error
        See `Calibration`; ``None`` where only labels were at hand.
    objects
        Of numbered objects, where true ones were given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...]
    mean_iou: float
    iou: dict[str, float | None]
    dice: dict[str, float | None]
    accuracy: float
    confusion: list[list[int]]
    not_predicted: list[int]
    sections: int | None = None
    v_rand: float | None = None
    v_info: float | None = None
    threshold: float | None = None
    expected_calibration_error: float | None = None
    objects: ObjectScores | None = None

    @property
    def quality(self) -> Quality:
        """The mean IoU, and on how much it was measured."""
        pixels = [sum(row) + missed for row, missed in zip(self.confusion, self.not_predicted, strict=True)]
        checked = Checked(pixels=dict(zip(self.classes, pixels, strict=True)), sections=self.sections or 0)
        return checked.with_scores(self.mean_iou, self.iou)


@dataclass(frozen=True)
class BoundaryScores:
    """V_rand and V_info, each at its own best threshold as in the challenge."""

    v_rand: float
    v_info: float
    #: Boundary probability at which ``v_rand`` is best.
    threshold: float


class ConfusionMatrix:
    """Counts of pixels by true and predicted class.

    Parameters
    ----------
    classes
        Number of classes K.
    device
        Where the counts live; the device of the batches, so that adding one waits for nothing.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        # One column more for "no class", and one slot at the end that takes the pixels to leave out.
        self._counts = torch.zeros(classes * (classes + 1) + 1, dtype=torch.int64, device=device)

    def add(self, prediction: Classes, truth: Classes) -> None:
        """Count a batch of class indices, both of one shape.

        Where ``truth`` is no class (`IGNORE`) the pixel is left out; where only ``prediction`` is
        none the pixel counts as missed.

        Raises
        ------
        ValueError
            When the shapes differ.
        """
        if tuple(prediction.shape) != tuple(truth.shape):
            raise ValueError(f"prediction has shape {tuple(prediction.shape)}, truth {tuple(truth.shape)}")
        row = _indices(truth, self._counts.device)
        column = _indices(prediction, self._counts.device)
        column = torch.where((column < 0) | (column >= self.classes), self.classes, column)
        slot = torch.where((row < 0) | (row >= self.classes), len(self._counts) - 1, row * (self.classes + 1) + column)
        # Not bincount: it waits for the device to learn the largest index.
        self._counts.scatter_add_(0, slot, torch.ones_like(slot))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pixels by true class (rows) and predicted class (columns), ``(K, K + 1)``; last column: no class."""
        counts: npt.NDArray[np.int64] = self._counts[:-1].reshape(self.classes, self.classes + 1).cpu().numpy()
        return counts

    @property
    def iou(self) -> list[float | None]:
        """IoU of each class, ``None`` for one that occurs neither in truth nor in prediction."""
        return [None if np.isnan(value) else float(value) for value in class_iou(self.counts)]

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur.

        Raises
        ------
        UserError
            When no annotated pixel was counted.
        """
        values = [value for value in self.iou if value is not None]
        if not self.counts.any():
            raise UserError("nothing to score: no pixel is annotated here; choose sections with labels")
        return float(np.mean(values))

    def scores(
        self,
        classes: Sequence[str],
        *,
        sections: int | None = None,
        boundary: BoundaryScores | None = None,
        expected_calibration_error: float | None = None,
    ) -> Scores:
        """All scores, with the classes' names.

        Raises
        ------
        UserError
            When no annotated pixel was counted.
        """
        if len(classes) != self.classes:
            raise ValueError(f"{len(classes)} names for {self.classes} classes")
        mean_iou = self.mean_iou
        counts = self.counts
        right, truth, prediction = self._sums()
        dice = [_ratio(2 * r, t + p) for r, t, p in zip(right, truth, prediction, strict=True)]
        return Scores(
            classes=tuple(classes),
            mean_iou=mean_iou,
            iou=dict(zip(classes, self.iou, strict=True)),
            dice=dict(zip(classes, dice, strict=True)),
            accuracy=sum(right) / int(counts.sum()),
            confusion=counts[:, :-1].tolist(),
            not_predicted=counts[:, -1].tolist(),
            sections=sections,
            v_rand=None if boundary is None else boundary.v_rand,
            v_info=None if boundary is None else boundary.v_info,
            threshold=None if boundary is None else boundary.threshold,
            expected_calibration_error=expected_calibration_error,
        )

    def _sums(self) -> tuple[list[int], list[int], list[int]]:
        """Of each class the pixels that are right, true and predicted."""
        counts = self.counts
        return counts.diagonal().tolist(), counts.sum(axis=1).tolist(), counts[:, :-1].sum(axis=0).tolist()


class Calibration:
    """Expected calibration error (Guo et al. 2017): does a probability of 0.8 hold in 80 % of the pixels?

    Pixels are put into equally wide bins by the probability of the predicted class; the error is the
    mean distance between a bin's mean probability and its accuracy, weighted by its pixels.

    Parameters
    ----------
    bins
        Number of bins (15 in the paper).
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        #: Rows: pixels, sum of probabilities, pixels that are right.
        self._sums = torch.zeros(3, bins, dtype=torch.float64)

    def add(self, probabilities: Tensor, truth: Tensor) -> None:
        """Count a batch: probabilities ``(n, K, ...)``, class indices ``(n, ...)`` with `IGNORE`."""
        confidence, prediction = probabilities.cpu().max(dim=1)
        truth = truth.cpu()
        counted = (truth >= 0).to(self._sums.dtype).flatten()
        confidence = confidence.to(self._sums.dtype).flatten()
        slot = (confidence * self.bins).long().clamp(0, self.bins - 1)
        right = (prediction == truth).to(self._sums.dtype).flatten()
        for row, values in zip(self._sums, (counted, counted * confidence, counted * right), strict=True):
            row.scatter_add_(0, slot, values)

    @property
    def error(self) -> float | None:
        """Expected calibration error, 0 to 1; ``None`` when no annotated pixel was counted."""
        pixels, confidence, right = self._sums
        total = float(pixels.sum())
        return float((confidence - right).abs().sum()) / total if total else None


def boundary_scores(
    probabilities: Iterable[npt.NDArray[np.floating]],
    truth: Iterable[npt.NDArray[np.integer]],
    boundary: int,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> BoundaryScores | None:
    """V_rand and V_info after border thinning, as in the ISBI 2012 challenge.

    Both compare two partitions of a section, S (the prediction) and T (the truth), through the joint
    distribution p[i, j] of the segments of a pixel; s and t are its marginals (Arganda-Carreras et al.
    2015, Frontiers in Neuroanatomy 9:142, Methods)::

        V_rand = sum p[i,j]^2 / (alpha sum s[i]^2 + (1 - alpha) sum t[j]^2)
        V_info = I(S; T)      / (alpha H(S)       + (1 - alpha) H(T))

    alpha = 0 and 1 are the scores for splits and for mergers (recall and precision of pairs); alpha =
    0.5, used here and by the challenge, is their F-score: the harmonic mean, so that neither
    joining all cells nor cutting them into pieces pays.

    Per section and threshold, as in the challenge's script:

    1. T is the 4-connected components of the annotated pixels outside the true boundary. Only these
       pixels are counted ("foreground-restricted").
    2. The prediction's boundary is where its probability is above the threshold; the 4-connected components
       of the rest grow into it, all at the same speed (a watershed of the flat binary map, which is how the
       script thins), until lines of one pixel remain between them. So how wide a boundary is
       drawn costs nothing, and whether it is closed costs much.
    3. Pixels on the remaining lines are segments of one pixel each.

    The scores of the sections are averaged for each threshold, and the best average of each score
    is returned. Sections whose truth has no foreground are left out.

    Parameters
    ----------
    probabilities
        Per section the probability of the boundary class ``(y, x)``; 0 and 1 where only labels are at hand.
    truth
        Per section the class indices ``(y, x)``, `IGNORE` where not annotated.
    boundary
        Class index of the boundary.
    thresholds
        Probabilities above which a pixel is boundary.

    Returns
    -------
    BoundaryScores or None
        ``None`` when no section has foreground, or when asked to stop: the score of some sections is not that of all.
    """
    sections: list[list[tuple[float, float]]] = []
    total = len(probabilities) if isinstance(probabilities, Sized) else None
    for index, (probability, target) in enumerate(zip(probabilities, truth, strict=True)):
        if should_stop():
            return None
        scores = _section_scores(np.asarray(probability), np.asarray(target), boundary, thresholds)
        if scores is not None:
            sections.append(scores)
        report(ProgressMade(step="V_rand", done=index + 1, total=total))
    if not sections:
        return None
    mean = np.mean(sections, axis=0)
    best_rand, best_info = mean.argmax(axis=0)
    return BoundaryScores(
        v_rand=float(mean[best_rand, 0]), v_info=float(mean[best_info, 1]), threshold=float(thresholds[best_rand])
    )


def thin_boundary(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Segments ``(y, x)`` that a boundary map separates, grown until lines of one pixel (0) remain between them."""
    from scipy.ndimage import label
    from skimage.segmentation import watershed

    components, _ = label(~boundary)
    segments: npt.NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]
        np.zeros(boundary.shape, dtype=np.uint8), components, connectivity=1, watershed_line=True
    )
    return segments


def compare_segments(
    segments: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], *, alpha: float = 0.5
) -> tuple[float, float]:
    """V_rand and V_info of segments against true segments, both ``(y, x)``; see `boundary_scores`.

    Truth 0 is left out; each pixel of segment 0 is a segment of its own. scikit-image's
    `adapted_rand_error` counts pairs of different pixels only and so has no value when all
    segments have one pixel; the formulas here are the paper's, which agree with it to 1 / pixels.
    """
    from skimage.metrics import contingency_table

    counted = truth > 0
    pixels = int(counted.sum())
    if not pixels:
        raise ValueError("the truth has no foreground")
    table = contingency_table(  # type: ignore[no-untyped-call]
        truth[counted], segments[counted], sparse_type="array"
    )
    joint = table.tocoo()
    return agreement(
        joint.data[joint.coords[1] > 0],
        np.asarray(joint.sum(axis=0)).ravel()[1:],
        np.asarray(joint.sum(axis=1)).ravel(),
        alpha=alpha,
    )


def agreement(
    joint: npt.NDArray[np.number],
    segments: npt.NDArray[np.number],
    truth: npt.NDArray[np.number],
    *,
    alpha: float = 0.5,
) -> tuple[float, float]:
    """V_rand and V_info of two partitions, by their pixels; see `boundary_scores`.

    Parameters
    ----------
    joint
        Pixels that each segment has in common with each true one, where there are any.
    segments, truth
        Pixels of each segment, and of each true one. True pixels of no segment are segments of one pixel.
    """
    pixels = int(truth.sum())
    single = pixels - int(segments.sum())
    p, s, t = (np.asarray(part, np.float64) / pixels for part in (joint, segments, truth))
    # Single pixels enter with 1 / pixels each, in the joint distribution as in the segments' own.
    squares, entropy = single / pixels**2, single / pixels * float(np.log(pixels))
    v_rand = (np.sum(p**2) + squares) / (alpha * (np.sum(s**2) + squares) + (1 - alpha) * np.sum(t**2))
    entropy_s, entropy_t = _entropy(s) + entropy, _entropy(t)
    entropies = alpha * entropy_s + (1 - alpha) * entropy_t
    # One segment in both: nothing to tell, and nothing wrong.
    v_info = (entropy_s + entropy_t - _entropy(p) - entropy) / entropies if entropies > 0 else 1.0
    return float(v_rand), float(min(max(v_info, 0.0), 1.0))


def _section_scores(
    probability: npt.NDArray[np.floating], target: npt.NDArray[np.integer], boundary: int, thresholds: Sequence[float]
) -> list[tuple[float, float]] | None:
    from scipy.ndimage import label

    truth, _ = label((target >= 0) & (target != boundary))
    if not truth.any():
        return None
    scores: list[tuple[float, float]] = []
    previous: npt.NDArray[np.bool_] | None = None
    for threshold in thresholds:
        cut = probability > threshold
        # A label map is the same at each threshold, and a sure network nearly so.
        if previous is not None and np.array_equal(cut, previous):
            scores.append(scores[-1])
        else:
            scores.append(compare_segments(thin_boundary(cut), truth))
        previous = cut
    return scores


def class_iou(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """IoU of each class (..., K), NaN for one that occurs neither in truth nor in prediction.

    ``counts`` (..., K, K or K + 1) are pixels by true and predicted class, the last column for no class.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + counts[..., : counts.shape[-2]].sum(axis=-2) - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def _indices(values: Classes, device: torch.device) -> Tensor:
    return torch.as_tensor(values).to(device, torch.int64, non_blocking=True).flatten()


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _entropy(fractions: npt.NDArray[np.floating]) -> float:
    positive = fractions[fractions > 0]
    return float(-np.sum(positive * np.log(positive)))
