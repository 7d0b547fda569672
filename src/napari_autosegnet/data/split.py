"""The split into a training and a validation part, made before any augmentation and without leaks.

Neighboring sections are near copies, so a stack is cut in contiguous blocks of sections with a gap
between them; a stack with few annotated sections is cut within the sections instead, at the same place in all
neighbors (`section_cuts`), so that not sections but their strokes are divided. Images that belong together (one
specimen, one surface under several exposures) are kept on one side by a group column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.boxes import Box
from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.data.hold_out import hold_out
from napari_autosegnet.data.labeled_stacks import LabeledStack, annotated_places
from napari_autosegnet.data.planes import Plane
from napari_autosegnet.data.section_cuts import GAP_PIXELS, cut_planes
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings

#: Fewer separate images than this are each cut within, rather than held out whole.
_IMAGES_TO_HOLD_OUT = 4
#: Fraction of the annotated sections that must be left to train on, or the sections are cut instead.
_MIN_TRAINING_FRACTION = 0.5


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


def split_stacks(
    stacks: Sequence[LabeledStack], settings: SplitSettings, *, context: int = 0, every_class: bool = True
) -> Split:
    """Divide the annotated sections of labeled stacks.

    Sections without annotation belong to neither part. In order of precedence: sections named in the
    settings; groups; whole images, when there are several single ones; contiguous blocks of sections;
    spatial blocks within the sections.

    Parameters
    ----------
    stacks : sequence of LabeledStack
    settings : SplitSettings
    context : int
        Neighboring sections that a network sees; the gap between blocks of sections is at least this
        wide, so that no training patch shows a validation section.
    every_class : bool
        Refuse a split with a class that has no pixel in one of the parts.

    Raises
    ------
    UserError
        When named sections overlap, do not exist or hold no annotation, the group table does not fit,
        or a class has no pixel in one of the parts.
    """
    if not stacks:
        raise UserError("there is no labeled image to split; give at least one")
    gap = max(settings.gap, context)
    generator = np.random.default_rng(settings.seed)
    if settings.train_sections is not None or settings.validation_sections is not None:
        if settings.group is not None:
            raise UserError("sections and groups are both named for the split; choose one of them")
        split = _split_as_named(stacks, settings, gap, context)
    elif settings.group is not None:
        split = _split_by_group(stacks, settings.group, settings.validation_fraction, context, generator)
    else:
        split = _split_automatically(stacks, settings.validation_fraction, gap, generator)
    if every_class:
        check_classes(stacks, split, settings)
    return split


def parse_sections(text: str) -> list[int]:
    """Section numbers of ``0-15,18`` (first and last included), rising, each once.

    Raises
    ------
    UserError
        When the text cannot be read.
    """
    sections: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if match is None:
            raise UserError(f"'{part}' names no sections; write for example 0-15,18")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"the sections '{part}' run backwards; write {last}-{first}")
        if last >= 10**7:
            raise UserError(f"there is no section {last}; check the sections '{text}'")
        sections.update(range(first, last + 1))
    if not sections:
        raise UserError("no section is named; write for example 0-15,18")
    return sorted(sections)


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


def _whole(stacks: Sequence[LabeledStack], places: Sequence[tuple[int, int]]) -> tuple[Region, ...]:
    """Whole sections, each by the numbers of its stack and its own."""
    return tuple(Region(stack, section, *full_extent(stacks[stack], section)) for stack, section in sorted(places))


def _out_of_sight(
    training: Sequence[tuple[int, int]], validation: Sequence[tuple[int, int]], context: int
) -> list[tuple[int, int]]:
    """The sections whose patches show, with ``context``, no section of validation."""
    seen = {(stack, section + offset) for stack, section in validation for offset in range(-context, context + 1)}
    return [place for place in training if place not in seen]


# ---------------------------------------------------------------- sections that the user names


def _split_as_named(stacks: Sequence[LabeledStack], settings: SplitSettings, gap: int, context: int) -> Split:
    named = {
        part: parse_sections(text)
        for part, text in (("training", settings.train_sections), ("validation", settings.validation_sections))
        if text is not None
    }
    both = set(named.get("training", ())) & set(named.get("validation", ()))
    if both:
        listed = ", ".join(map(str, sorted(both)[:8]))
        raise UserError(f"sections {listed} are named for training and for validation; name each for only one of them")
    deepest = max(stack.image.sections for stack in stacks)
    for part, sections in named.items():
        if sections[-1] >= deepest:
            raise UserError(f"there is no section {sections[-1]} for {part}; choose from 0 to {deepest - 1}")
    parts: dict[str, list[tuple[int, int]]] = {"training": [], "validation": []}
    for index, stack in enumerate(stacks):
        annotated = stack.annotated_sections
        for part, other in (("training", "validation"), ("validation", "training")):
            if part in named:
                chosen = [section for section in annotated if section in set(named[part])]
            else:  # all others, as far from the named ones as the gap asks
                chosen = [s for s in annotated if all(abs(s - taken) > gap for taken in named[other])]
            parts[part] += [(index, section) for section in chosen]
    parts["training"] = _out_of_sight(parts["training"], parts["validation"], context)
    for part, places in parts.items():
        if not places:
            which = f"none of the sections named for {part} is" if part in named else f"no section left for {part} is"
            hidden = " and further from validation than --context reaches" if context and part == "training" else ""
            raise UserError(f"{which} annotated{hidden}; annotate one or name other sections")
    return Split(_whole(stacks, parts["training"]), _whole(stacks, parts["validation"]))


# ---------------------------------------------------------------- groups


def _split_by_group(
    stacks: Sequence[LabeledStack], group: str, fraction: float, context: int, generator: np.random.Generator
) -> Split:
    column, separator, path = group.partition("@")
    if not separator or not column or not path:
        raise UserError(f"the group '{group}' is not COLUMN@index.csv; write for example group@index.csv")
    groups = section_groups(stacks, Path(path), column)
    places = annotated_places(stacks)
    if not places:
        raise UserError("no section is annotated; annotate at least two classes")
    members: dict[str, list[tuple[int, int]]] = {}
    for place in places:
        members.setdefault(groups[place[0]][place[1]], []).append(place)
    if len(members) < 2:
        raise UserError(
            f"all annotated sections have the same value in the column '{column}'; choose a column with several values"
        )
    units = list(members.values())
    training, validation = hold_out(stacks, units, fraction, generator)
    return Split(_whole(stacks, _out_of_sight(training, validation, context)), _whole(stacks, validation))


# ---------------------------------------------------------------- automatically


def _split_automatically(
    stacks: Sequence[LabeledStack], fraction: float, gap: int, generator: np.random.Generator
) -> Split:
    places = annotated_places(stacks)
    if not places:
        raise UserError("no section is annotated; annotate at least two classes")
    single = all(stack.image.sections == 1 for stack in stacks)
    if single and len(places) >= _IMAGES_TO_HOLD_OUT:
        training, validation = hold_out(stacks, [[place] for place in places], fraction, generator)
        split = Split(_whole(stacks, training), _whole(stacks, validation))
        if not _missing(stacks, split):
            return split
    parts = []
    to_cut: dict[int, list[int]] = {}
    for index in range(len(stacks)):
        blocks = _cut_between_sections(stacks, index, fraction, gap, generator)
        if blocks is None:
            to_cut[index] = stacks[index].annotated_sections
        else:
            parts.append(blocks)
    parts += _cut_within_sections(stacks, to_cut, fraction, gap, generator)
    return Split(
        tuple(sorted((region for part in parts for region in part.training), key=_place)),
        tuple(sorted((region for part in parts for region in part.validation), key=_place)),
    )


def _place(region: Region) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    return region.stack, region.section, region.y, region.x


def _cut_between_sections(
    stacks: Sequence[LabeledStack], index: int, fraction: float, gap: int, generator: np.random.Generator
) -> Split | None:
    """One block of a stack's sections for validation, ``gap`` sections from the rest; None when there are too few.

    A whole section must not be more than the wanted fraction: of two with a few strokes each half would be lost.
    Of the blocks that leave every class on both sides, one is taken that costs the fewest training
    sections; at random where several do.
    """
    sections = stacks[index].annotated_sections
    if fraction * len(sections) < 1:
        return None
    size = round(fraction * len(sections))
    pixels = stacks[index].annotated_pixels
    occurring = pixels.sum(0) > 0
    candidates: list[tuple[int, list[int], list[int]]] = []
    for start in range(len(sections) - size + 1):
        block = sections[start : start + size]
        rest = [section for section in sections if section < block[0] - gap or section > block[-1] + gap]
        if len(rest) < _MIN_TRAINING_FRACTION * len(sections):
            continue
        if all((pixels[side].sum(0) > 0)[occurring].all() for side in (rest, block)):
            candidates.append((len(rest), rest, block))
    if not candidates:
        return None
    most = max(count for count, _, _ in candidates)
    candidates = [candidate for candidate in candidates if candidate[0] == most]
    _, rest, block = candidates[int(generator.integers(len(candidates)))]
    training, validation = ([(index, section) for section in part] for part in (rest, block))
    return Split(_whole(stacks, training), _whole(stacks, validation))


def _cut_within_sections(
    stacks: Sequence[LabeledStack],
    annotated: Mapping[int, Sequence[int]],
    fraction: float,
    gap: int,
    generator: np.random.Generator,
) -> list[Split]:
    """Parts of each section for either side; ``annotated`` are the sections of some stacks."""
    places: list[int] = []
    planes: list[Plane] = []
    for index, sections in annotated.items():
        for together in neighbors(stacks[index], sections, gap):
            targets = {section: stacks[index].target(section) for section in together}
            places.append(index)
            planes.append(Plane(targets, len(stacks[0].mapping.classes)))
    cuts = cut_planes(planes, fraction, generator) if planes else []
    return [
        Split(_regions(index, plane, cut.training), _regions(index, plane, cut.validation))
        for index, plane, cut in zip(places, planes, cuts, strict=True)
    ]


def neighbors(stack: LabeledStack, sections: Sequence[int], gap: int) -> list[list[int]]:
    """The sections in groups that are no more than ``gap`` apart; what differs in size shows something else."""
    groups: list[list[int]] = []
    for section in sorted(sections, key=lambda each: (stack.image.section_shape(each), each)):
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and section - last <= gap
            and stack.image.section_shape(last) == stack.image.section_shape(section)
        ):
            groups[-1].append(section)
        else:
            groups.append([section])
    return groups


def _regions(index: int, plane: Plane, boxes: Sequence[Box]) -> tuple[Region, ...]:
    """The boxes of all sections of a plane in which something is annotated there."""
    return tuple(
        Region(index, section, y, x)
        for section, target in plane.targets.items()
        for y, x in boxes
        if target[slice(*y), slice(*x)].any()
    )


# ---------------------------------------------------------------- what is missing


def _missing(stacks: Sequence[LabeledStack], split: Split) -> list[tuple[int, str]]:
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
    missing = _missing(stacks, split)
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
