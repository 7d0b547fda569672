r"""What a segmentation must beat: one class everywhere, and a blurred image cut at a gray value.

Sigma of the blur and gray value are chosen on the training sections alone (best mean IoU); the test
sections are scored once. For V_rand and V_info the blurred image counts as a boundary probability, so
that it gets the best of several cuts as a network does. Example::

    python benchmarks/baselines.py --image train-volume.tif --labels train-labels.tif \
        --classes 0:membrane,255:cell --boundary membrane \
        --train-sections 0-15 --test-sections 24-29 --json baselines.json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from napari_autosegnet.data.labeled_stacks import LabeledStack, open_labeled
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.errors import UserError
from napari_autosegnet.training.metrics import ConfusionMatrix, Scores, boundary_scores

SIGMAS = tuple(step / 4 for step in range(17))
GRAY_LEVELS = 256


class Threshold(NamedTuple):
    """A blurred threshold: pixels darker than ``gray`` are of class index ``dark``, the others of ``1 - dark``."""

    sigma: float
    gray: float
    dark: int
    mean_iou: float

    def predict(self, image: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Class indices of an image ``(y, x)``."""
        darker = gaussian_filter(image.astype(np.float32), self.sigma) < self.gray
        return np.where(darker, self.dark, 1 - self.dark)

    def probability(self, image: npt.NDArray[Any], index: int) -> npt.NDArray[np.floating]:
        """Blurred gray values as a probability of a class, one half at ``gray``, ``(y, x)``."""
        distance = self.gray - gaussian_filter(image.astype(np.float32), self.sigma)
        share: npt.NDArray[np.floating] = 0.5 + distance / (2 * np.abs(distance).max())
        return share if index == self.dark else 1 - share


def tune_threshold(images: Sequence[npt.NDArray[Any]], targets: Sequence[npt.NDArray[np.int64]]) -> Threshold:
    """The blurred threshold with the best mean IoU over two classes (indices 0 and 1, -1 left out)."""
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    grays = np.linspace(low, high, GRAY_LEVELS + 1)
    best = Threshold(0, 0, 0, -1)
    for sigma in SIGMAS:
        counts = np.zeros((2, GRAY_LEVELS), dtype=np.int64)
        for image, target in zip(images, targets, strict=True):
            blurred = gaussian_filter(image.astype(np.float32), sigma)
            for index in (0, 1):
                counts[index] += np.histogram(blurred[target == index], grays)[0]
        below = np.concatenate([np.zeros((2, 1), dtype=np.int64), counts.cumsum(axis=1)], axis=1)
        total = counts.sum(axis=1)
        for dark in (0, 1):
            light = 1 - dark
            iou_dark = below[dark] / np.maximum(total[dark] + below[light], 1)
            right_light = total[light] - below[light]
            iou_light = right_light / np.maximum(total[light] + total[dark] - below[dark], 1)
            mean = (iou_dark + iou_light) / 2
            place = int(mean.argmax())
            if mean[place] > best.mean_iou:
                best = Threshold(sigma, float(grays[place]), dark, float(mean[place]))
    return best


def score(
    predictions: Sequence[npt.NDArray[np.int64]],
    targets: Sequence[npt.NDArray[np.int64]],
    names: Sequence[str],
    boundary: int | None,
    probabilities: Sequence[npt.NDArray[np.floating]] | None = None,
) -> Scores:
    """Scores of class indices and, if there are any, boundary probabilities ``(y, x)`` per section."""
    confusion = ConfusionMatrix(len(names))
    for prediction, target in zip(predictions, targets, strict=True):
        confusion.add(prediction, target)
    scores = None
    if boundary is not None:
        if probabilities is None:
            probabilities = [(prediction == boundary).astype(np.float32) for prediction in predictions]
        scores = boundary_scores(probabilities, targets, boundary)
    return confusion.scores(names, boundary=scores)


def read(stack: LabeledStack, sections: str) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[np.int64]]]:
    """First channel and class indices of the named sections."""
    chosen = parse_sections(sections)
    if chosen[-1] >= stack.image.sections:
        raise UserError(f"there is no section {chosen[-1]}; {stack.image.name} has 0-{stack.image.sections - 1}")
    images = [stack.image.section(index)[0] for index in chosen]
    return images, [stack.target(index).astype(np.int64) - 1 for index in chosen]


def main(arguments: Sequence[str] | None = None) -> None:
    """Score the baselines, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--classes", help="for example 0:membrane,255:cell")
    parser.add_argument("--boundary", help="class that separates cells; adds V_rand and V_info")
    parser.add_argument("--train-sections", required=True, help="for example 0-15")
    parser.add_argument("--test-sections", required=True, help="for example 24-29")
    parser.add_argument("--json", type=Path, help="file to write")
    given = parser.parse_args(arguments)

    start = time.perf_counter()
    (stack,) = open_labeled([given.image], [given.labels], given.classes)
    names = [info.name for info in stack.mapping.classes]
    if given.boundary is not None and given.boundary not in names:
        raise UserError(f"there is no class '{given.boundary}'; --boundary takes one of {', '.join(names)}")
    boundary = None if given.boundary is None else names.index(given.boundary)
    images, targets = read(stack, given.test_sections)

    rows: dict[str, Scores] = {}
    for index, name in enumerate(names):
        rows[f"all {name}"] = score([np.full_like(target, index) for target in targets], targets, names, boundary)
    threshold = None
    if len(names) == 2:
        threshold = tune_threshold(*read(stack, given.train_sections))
        cut = [threshold.predict(image) for image in images]
        maps = None if boundary is None else [threshold.probability(image, boundary) for image in images]
        rows["blurred threshold"] = score(cut, targets, names, boundary, maps)
    seconds = time.perf_counter() - start

    table = Table(title=f"{stack.image.name}, sections {given.test_sections} ({stack.mapping.describe()})")
    for column in ("method", *(f"IoU {name}" for name in names), "mean IoU", "accuracy", "V_rand", "V_info"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, scores in rows.items():
        values = [*scores.iou.values(), scores.mean_iou, scores.accuracy, scores.v_rand, scores.v_info]
        table.add_row(method, *("-" if value is None else f"{value:.3f}" for value in values))
    console = Console()
    console.print(table)
    if threshold is None:
        console.print("The threshold is left out: it separates two classes only.")
    else:
        console.print(
            f"Threshold: sigma {threshold.sigma:g}, darker than {threshold.gray:.1f} is {names[threshold.dark]}; "
            f"mean IoU {threshold.mean_iou:.3f} on the training sections {given.train_sections}."
        )
    if given.json is not None:
        content = {
            "image": given.image.name,
            "classes": stack.mapping.describe(),
            "train_sections": given.train_sections,
            "test_sections": given.test_sections,
            "threshold": None if threshold is None else threshold._asdict(),
            "scores": {method: scores.model_dump(mode="json") for method, scores in rows.items()},
            "seconds": round(seconds, 2),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
