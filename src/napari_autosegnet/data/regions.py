"""Regions of labeled stacks: what a split gives to training and to validation."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.labeled_stacks import LabeledStack


@dataclass(frozen=True)
class Region:
    """A rectangle of one section: ``y`` and ``x`` are (start, stop) in pixels."""

    stack: int
    section: int
    y: tuple[int, int]
    x: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """Regions to train on and to validate on."""

    training: tuple[Region, ...]
    validation: tuple[Region, ...]


def region_pixels(stacks: Sequence[LabeledStack], regions: Sequence[Region]) -> npt.NDArray[np.int64]:
    """Annotated pixels per region and class, ``(regions, K)``."""
    classes = len(stacks[0].mapping.classes)
    pixels = np.zeros((len(regions), classes), np.int64)
    for index, region in enumerate(regions):
        stack = stacks[region.stack]
        if (region.y, region.x) == full_extent(stack, region.section):
            pixels[index] = stack.annotated_pixels[region.section]
        else:
            target = stack.target(region.section)[slice(*region.y), slice(*region.x)]
            pixels[index] = np.bincount(target.ravel(), minlength=classes + 1)[1:]
    return pixels


def full_extent(stack: LabeledStack, section: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """A whole section as (start, stop) in y and in x."""
    height, width = stack.image.section_shape(section)
    return (0, height), (0, width)


def whole_sections(stacks: Sequence[LabeledStack], places: Collection[tuple[int, int]]) -> tuple[Region, ...]:
    """Whole sections, each by the numbers of its stack and its own."""
    return tuple(Region(stack, section, *full_extent(stacks[stack], section)) for stack, section in sorted(places))


def equal_parts(begin: int, end: int, longest: int) -> list[slice]:
    """Parts of an axis that are as long as each other, to a pixel, and no longer than that; as few as there can be."""
    count = -(-(end - begin) // longest)
    edges = [begin + number * (end - begin) // count for number in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]
