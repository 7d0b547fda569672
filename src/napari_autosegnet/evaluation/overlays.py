"""Pictures of what was scored."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.images import ImageStack


def draw_overlay(
    image: npt.NDArray[Any],
    prediction: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    classes: Sequence[ClassInfo],
    file: Path,
) -> None:
    """Draw class indices ``(y, x)`` of prediction and truth over an image ``(c, y, x)``."""
    from napari_autosegnet.figures import overlay

    file.parent.mkdir(parents=True, exist_ok=True)
    labels, true = ((numbers + 1).astype(np.uint8) for numbers in (prediction, truth))
    overlay(image.mean(axis=0), labels, classes, file, truth=true)


def picture_names(images: Sequence[ImageStack]) -> list[str]:
    """A name for the pictures of each image: its own; with its folder's, and a number, where several are alike."""
    names = [image.name for image in images]
    counts = _counts(names)
    for index, image in enumerate(images):
        folder = image.path.absolute().parent.name if image.path is not None else ""
        if counts[image.name.lower()] > 1 and folder:
            names[index] = f"{folder}-{image.name}"
    counts, taken = _counts(names), set[str]()
    for index, name in enumerate(names):
        numbered = (f"{name}-{number}" for number in itertools.count(1))
        tried = numbered if counts[name.lower()] > 1 else itertools.chain([name], numbered)
        names[index] = next(each for each in tried if each.lower() not in taken)
        taken.add(names[index].lower())
    return names


def _counts(names: Sequence[str]) -> Counter[str]:
    # Not all file systems tell A from a.
    return Counter(name.lower() for name in names)
