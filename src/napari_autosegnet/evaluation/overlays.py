"""Pictures of what was scored."""

from __future__ import annotations

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
    overlay(
        image.mean(axis=0),
        (prediction + 1).astype(np.uint8),
        classes,
        file,
        truth=(truth + 1).astype(np.uint8),
    )


def picture_names(images: Sequence[ImageStack]) -> list[str]:
    """A name for the pictures of each image: its own; with its folder's, and a number, where several are alike."""
    names = [image.name for image in images]

    def alike() -> set[str]:
        # Not all file systems tell A from a.
        counts = Counter(name.lower() for name in names)
        return {name for name, count in counts.items() if count > 1}

    twice = alike()
    for index, image in enumerate(images):
        folder = image.path.absolute().parent.name if image.path is not None else ""
        if names[index].lower() in twice and folder:
            names[index] = f"{folder}-{names[index]}"
    taken: set[str] = set()
    twice = alike()
    for index, name in enumerate(names):
        number = 1
        while names[index].lower() in taken or (number == 1 and name.lower() in twice):
            names[index] = f"{name}-{number}"
            number += 1
        taken.add(names[index].lower())
    return names
