"""The split into a training and a validation part, made before any augmentation and without leaks.

Neighbouring sections are near copies, so a stack is cut in contiguous blocks of sections with a gap
between them; a stack with few annotated sections is cut within the section instead, at the same place in all of
them. Images that belong together (one specimen, one surface under several exposures) are kept on one
side by a group column.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_autosegnet.config import SplitSettings
from napari_autosegnet.data.annotations import LabelledStack, annotated_pixels
from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.errors import UserError

#: Fewer separate images than this are each cut within, rather than held out whole.
_IMAGES_TO_HOLD_OUT = 4
#: Share of the annotated sections that must be left to train on, or the sections are cut instead.
_LEAST_TRAINING_SHARE = 0.5
#: Gap of a cut within sections, in pixels and as a share of the side.
_GAP_PIXELS, _GAP_SHARE = 8, 1 / 16
_LEAST_SIDE = 16


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


def split_stacks(stacks: Sequence[LabelledStack], settings: SplitSettings, *, context: int = 0) -> Split:
    """Divide the annotated sections of labelled stacks.

    Sections without annotation belong to neither part. In order of precedence: sections named in the
    settings; groups; whole images, when there are several single ones; contiguous blocks of sections;
    spatial blocks within the sections.

    Parameters
    ----------
    stacks : sequence of LabelledStack
    settings : SplitSettings
    context : int
        Neighbouring sections that a network sees; the gap between blocks of sections is at least this
        wide, so that no training patch shows a validation section.

    Raises
    ------
    UserError
        When named sections overlap, do not exist or hold no annotation, the group table does not fit,
        or a class has no pixel in one of the parts.
    """
    if not stacks:
        raise UserError("there is no labelled image to split; give at least one")
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
    _check_classes(stacks, split)
    return split


def parse_sections(text: str) -> list[int]:
    """Section numbers of ``0-15,18`` (first and last included), rising, each once.

    Raises
    ------
    UserError
        When the text cannot be read.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if match is None:
            raise UserError(f"'{part}' names no sections; write for example 0-15,18")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"the sections '{part}' run backwards; write {last}-{first}")
        if last >= 10**7:
            raise UserError(f"there is no section {last}; check the sections '{text}'")
        found.update(range(first, last + 1))
    if not found:
        raise UserError("no section is named; write for example 0-15,18")
    return sorted(found)


def region_pixels(stacks: Sequence[LabelledStack], regions: Sequence[Region]) -> npt.NDArray[np.int64]:
    """Annotated pixels per region and class, ``(regions, K)``."""
    classes = len(stacks[0].mapping.classes)
    found = np.zeros((len(regions), classes), np.int64)
    for index, region in enumerate(regions):
        stack = stacks[region.stack]
        if (region.y, region.x) == _full(stack, region.section):
            found[index] = annotated_pixels(stack)[region.section]
        else:
            target = stack.target(region.section)[slice(*region.y), slice(*region.x)]
            found[index] = np.bincount(target.ravel(), minlength=classes + 1)[1:]
    return found


def _full(stack: LabelledStack, section: int) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = stack.image.section_shape(section)
    return (0, height), (0, width)


def _whole(stacks: Sequence[LabelledStack], places: Sequence[tuple[int, int]]) -> tuple[Region, ...]:
    return tuple(Region(stack, section, *_full(stacks[stack], section)) for stack, section in sorted(places))


def _annotated(stack: LabelledStack) -> list[int]:
    return [int(section) for section in np.flatnonzero(annotated_pixels(stack).sum(1))]


def _out_of_sight(
    training: Sequence[tuple[int, int]], validation: Sequence[tuple[int, int]], context: int
) -> list[tuple[int, int]]:
    """The sections whose patches show, with ``context``, no section of validation."""
    seen = {(stack, section + offset) for stack, section in validation for offset in range(-context, context + 1)}
    return [place for place in training if place not in seen]


# ---------------------------------------------------------------- sections that the user names


def _split_as_named(stacks: Sequence[LabelledStack], settings: SplitSettings, gap: int, context: int) -> Split:
    named = {
        part: parse_sections(text)
        for part, text in (("training", settings.train_sections), ("validation", settings.validation_sections))
        if text is not None
    }
    both = set(named.get("training", ())) & set(named.get("validation", ()))
    if both:
        listed = ", ".join(map(str, sorted(both)[:8]))
        raise UserError(f"sections {listed} are named for training and for validation; name each for one")
    deepest = max(stack.image.sections for stack in stacks)
    for part, sections in named.items():
        if sections[-1] >= deepest:
            raise UserError(
                f"there is no section {sections[-1]} for {part}: the stacks have the sections 0 to {deepest - 1}"
            )
    parts: dict[str, list[tuple[int, int]]] = {"training": [], "validation": []}
    for index, stack in enumerate(stacks):
        annotated = _annotated(stack)
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
    stacks: Sequence[LabelledStack], group: str, fraction: float, context: int, generator: np.random.Generator
) -> Split:
    column, separator, path = group.partition("@")
    if not separator or not column or not path:
        raise UserError(f"the group '{group}' is not COLUMN@index.csv; write for example group@index.csv")
    groups = section_groups(stacks, Path(path), column)
    places = [(index, section) for index, stack in enumerate(stacks) for section in _annotated(stack)]
    if not places:
        raise UserError("no section is annotated; annotate at least two classes")
    members: dict[str, list[tuple[int, int]]] = {}
    for place in places:
        members.setdefault(groups[place[0]][place[1]], []).append(place)
    if len(members) < 2:
        raise UserError(f"all annotated sections have one value in the column '{column}'; a split needs two groups")
    units = list(members.values())
    training, validation = _hold_out(stacks, units, fraction, generator)
    return Split(_whole(stacks, _out_of_sight(training, validation, context)), _whole(stacks, validation))


def _hold_out(
    stacks: Sequence[LabelledStack],
    units: Sequence[Sequence[tuple[int, int]]],
    fraction: float,
    generator: np.random.Generator,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Choose whole units for validation, so that every class has about its ``fraction`` there."""
    pixels = np.array(
        [sum(annotated_pixels(stacks[stack])[section] for stack, section in unit) for unit in units], dtype=np.float64
    )
    sizes = np.array([len(unit) for unit in units])
    total = np.maximum(pixels.sum(0), 1)
    wanted = fraction * sizes.sum()
    best: tuple[float, frozenset[int]] | None = None
    for _ in range(200):
        order = generator.permutation(len(units))
        # As many units as come nearest to the wanted number of sections, one at least on each side.
        reached = np.cumsum(sizes[order])[:-1]
        chosen = order[: int(np.argmin(np.abs(reached - wanted))) + 1]
        share = pixels[chosen].sum(0) / total
        occurring = pixels.sum(0) > 0
        one_sided = int((((share == 0) | (share == 1)) & occurring).sum())
        score = one_sided + float(np.abs(share - fraction)[occurring].sum()) / (1 + len(total))
        if best is None or score < best[0] - 1e-12:
            best = (score, frozenset(chosen.tolist()))
    assert best is not None
    held = best[1]
    training = [place for index, unit in enumerate(units) if index not in held for place in unit]
    validation = [place for index, unit in enumerate(units) if index in held for place in unit]
    return training, validation


# ---------------------------------------------------------------- automatically


def _split_automatically(
    stacks: Sequence[LabelledStack], fraction: float, gap: int, generator: np.random.Generator
) -> Split:
    annotated = [_annotated(stack) for stack in stacks]
    if not any(annotated):
        raise UserError("no section is annotated; annotate at least two classes")
    units = [[(index, sections[0])] for index, sections in enumerate(annotated) if sections]
    single = all(stack.image.sections == 1 for stack in stacks)
    if single and len(units) >= _IMAGES_TO_HOLD_OUT:
        training, validation = _hold_out(stacks, units, fraction, generator)
        split = Split(_whole(stacks, training), _whole(stacks, validation))
        if not _missing(stacks, split):
            return split
    parts = []
    for index, (stack, sections) in enumerate(zip(stacks, annotated, strict=True)):
        if sections:
            blocks = _cut_between_sections(stack, index, sections, fraction, gap, generator)
            parts.append(blocks or _cut_within_sections(stack, index, sections, fraction, generator))
    return Split(
        tuple(region for part in parts for region in part.training),
        tuple(region for part in parts for region in part.validation),
    )


def _cut_between_sections(
    stack: LabelledStack, index: int, sections: list[int], fraction: float, gap: int, generator: np.random.Generator
) -> Split | None:
    """One block of sections for validation, ``gap`` sections from the rest; None when too few are left.

    Of the blocks that leave every class on both sides, one is taken that costs the fewest training
    sections; at random where several do.
    """
    size = max(1, round(fraction * len(sections)))
    pixels = annotated_pixels(stack)
    occurring = pixels.sum(0) > 0
    candidates: list[tuple[int, list[int], list[int]]] = []
    for start in range(len(sections) - size + 1):
        block = sections[start : start + size]
        rest = [section for section in sections if section < block[0] - gap or section > block[-1] + gap]
        if len(rest) < _LEAST_TRAINING_SHARE * len(sections):
            continue
        if all((pixels[side].sum(0) > 0)[occurring].all() for side in (rest, block)):
            candidates.append((len(rest), rest, block))
    if not candidates:
        return None
    most = max(count for count, _, _ in candidates)
    candidates = [candidate for candidate in candidates if candidate[0] == most]
    _, rest, block = candidates[int(generator.integers(len(candidates)))]
    return Split(_whole_sections(stack, index, rest), _whole_sections(stack, index, block))


def _whole_sections(stack: LabelledStack, index: int, sections: Sequence[int]) -> tuple[Region, ...]:
    return tuple(Region(index, section, *_full(stack, section)) for section in sections)


_BINS = 1024


def _cut_within_sections(
    stack: LabelledStack, index: int, sections: list[int], fraction: float, generator: np.random.Generator
) -> Split:
    """One side of the sections for validation, the same side in all, with a gap of pixels.

    The cut stands where the side holds its share of the annotated pixels, so scribbles in a corner are
    divided too. Cuts across the longer axis are preferred; what decides first is that every class is
    on both sides.
    """
    targets = {section: stack.target(section) for section in sections}
    classes = len(stack.mapping.classes)
    height, width = stack.image.section_shape(sections[0])
    longer = 0 if height > width else 1
    profiles = [np.zeros((classes, _BINS)) for _ in range(2)]
    for target in targets.values():
        for axis in range(2):
            bins = np.arange(target.shape[axis]) * _BINS // target.shape[axis]
            for number in range(classes):
                profiles[axis][number] += np.bincount(bins, (target == number + 1).sum(1 - axis), minlength=_BINS)
    occurring = profiles[0].sum(1) > 0
    ends = [bool(end) for end in generator.permutation(2)]
    shares = [fraction, *(share for share in (0.35, 0.5, 0.15) if share != fraction)]
    best: tuple[tuple[int, int], Split] | None = None
    for share, axis, high in itertools.product(shares, (longer, 1 - longer), ends):
        reached = np.cumsum(profiles[axis].sum(0) / max(profiles[axis].sum(), 1))
        position = (np.searchsorted(reached, 1 - share if high else share) + 1) / _BINS
        pieces = [_cut(index, section, target.shape, axis, position, high) for section, target in targets.items()]
        kept = [piece for piece in pieces if piece is not None]
        split = Split(
            tuple(training for training, _ in kept if targets[training.section][_inside(training)].any()),
            tuple(held for _, held in kept if targets[held.section][_inside(held)].any()),
        )
        covered = [_classes_in(side, targets, classes)[occurring].sum() for side in (split.training, split.validation)]
        score = (int(min(covered)), int(sum(covered)))
        if best is None or score > best[0]:
            best = (score, split)
        if min(covered) == occurring.sum():
            break
    assert best is not None
    return best[1]


def _cut(
    index: int, section: int, shape: tuple[int, ...], axis: int, position: float, high: bool
) -> tuple[Region, Region] | None:
    """Training and validation side of one section; None where it is too small to cut."""
    length = shape[axis]
    gap = max(_GAP_PIXELS, math.ceil(length * _GAP_SHARE))
    least = min(_LEAST_SIDE, (length - gap) // 2)
    if least < 1:
        return None
    if high:
        at = min(max(round(position * length), least + gap), length - least)
        training, held = (0, at - gap), (at, length)
    else:
        at = min(max(round(position * length), least), length - least - gap)
        training, held = (at + gap, length), (0, at)
    across = (0, shape[1 - axis])
    ours, theirs = ((side, across) if axis == 0 else (across, side) for side in (training, held))
    return Region(index, section, *ours), Region(index, section, *theirs)


def _inside(region: Region) -> tuple[slice, slice]:
    return slice(*region.y), slice(*region.x)


def _classes_in(
    regions: Sequence[Region], targets: dict[int, npt.NDArray[np.uint8]], classes: int
) -> npt.NDArray[np.bool_]:
    found = np.zeros(classes + 1, bool)
    for region in regions:
        found |= np.bincount(targets[region.section][_inside(region)].ravel(), minlength=classes + 1) > 0
    return found[1:]


# ---------------------------------------------------------------- what is missing


def _missing(stacks: Sequence[LabelledStack], split: Split) -> list[tuple[int, str]]:
    """Classes (by index) that have no pixel in a part, training first."""
    found = []
    for part, regions in (("training", split.training), ("validation", split.validation)):
        pixels = region_pixels(stacks, regions).sum(0)
        found += [(int(index), part) for index in np.flatnonzero(pixels == 0)]
    return found


def _check_classes(stacks: Sequence[LabelledStack], split: Split) -> None:
    missing = _missing(stacks, split)
    if missing:
        classes = stacks[0].mapping.classes
        told = " and ".join(
            f"class {index + 1} ({classes[index].name}) has no pixel in the {part} part" for index, part in missing[:3]
        )
        where = sum(int((annotated_pixels(stack)[:, missing[0][0]] > 0).sum()) for stack in stacks)
        raise UserError(f"{told}; annotate it in more places (it is now in {where} sections) or choose other sections")
