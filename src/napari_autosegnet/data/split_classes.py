"""Every class on both sides of a split, or a line that says where to paint it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.regions import Split, region_pixels
from napari_autosegnet.data.section_cuts import GAP_PIXELS
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings


def missing_classes(stacks: Sequence[LabeledStack], split: Split) -> list[tuple[int, str]]:
    """Classes (by index) that have no pixel in a part, training first."""
    missing = []
    for part, regions in (("training", split.training), ("validation", split.validation)):
        pixels = region_pixels(stacks, regions).sum(0)
        missing += [(int(index), part) for index in np.flatnonzero(pixels == 0)]
    return missing


def check_classes(stacks: Sequence[LabeledStack], split: Split, settings: SplitSettings) -> None:
    """Refuse a split with a class that has no pixel in one of the parts.

    Raises
    ------
    UserError
        When there is one; it says where to paint it.
    """
    missing = missing_classes(stacks, split)
    if not missing:
        return
    pixels = np.sum([stack.annotated_pixels.sum(0) for stack in stacks], axis=0)
    # The one that is painted least is most likely the one that there was no room for.
    number, part = min(missing, key=lambda each: pixels[each[0]])
    name = f"class {number + 1} ({stacks[0].mapping.classes[number].name})"
    if settings.train_sections is not None or settings.validation_sections is not None:
        advice = "paint it in one of the sections named for it, or name other sections"
    elif settings.group is not None:
        advice = f"paint it in images of another value of '{settings.group.partition('@')[0]}' too"
    else:
        advice = (
            f"{_extent(stacks, number)}; paint it in a second place, in another section or {2 * GAP_PIXELS} pixels away"
        )
    raise UserError(f"{name} has no pixel in the {part} part; {advice}")


def _extent(stacks: Sequence[LabeledStack], number: int) -> str:
    """Where a class is painted, in words."""
    places = [
        (index, int(section))
        for index, stack in enumerate(stacks)
        for section in np.flatnonzero(stack.annotated_pixels[:, number])
    ]
    painted = {index for index, _ in places}
    if len(painted) != 1:
        return "it lies too close to other classes to be divided"
    stack = stacks[painted.pop()]
    first, last = places[0][1], places[-1][1]
    pixels = [np.nonzero(stack.target(section) == number + 1) for _, section in places]
    if not any(len(rows) for rows, _ in pixels):  # erased since it was counted
        return "it was erased meanwhile"
    height, width = (int(np.ptp(np.concatenate(axis))) + 1 for axis in zip(*pixels, strict=True))
    which = f"section {first}" if first == last else f"sections {first} to {last}"
    return f"all of it lies within {height} x {width} pixels of {which} of {stack.image.display_name}"
