"""The split that nobody named: whole images, blocks of sections, or parts of the sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_autosegnet.data.boxes import Box
from napari_autosegnet.data.hold_out import hold_out
from napari_autosegnet.data.labeled_stacks import LabeledStack, annotated_places
from napari_autosegnet.data.planes import Plane
from napari_autosegnet.data.regions import Region, Split, whole_sections
from napari_autosegnet.data.section_cuts import cut_planes
from napari_autosegnet.data.split_classes import missing_classes
from napari_autosegnet.errors import UserError

#: Fewer separate images than this are each cut within, rather than held out whole.
_IMAGES_TO_HOLD_OUT = 4
#: Fraction of the annotated sections that must be left to train on, or the sections are cut instead.
_MIN_TRAINING_FRACTION = 0.5


def split_automatically(
    stacks: Sequence[LabeledStack], fraction: float, gap: int, generator: np.random.Generator
) -> Split:
    places = annotated_places(stacks)
    if not places:
        raise UserError("no section is annotated; annotate at least two classes")
    single = all(stack.image.sections == 1 for stack in stacks)
    if single and len(places) >= _IMAGES_TO_HOLD_OUT:
        training, validation = hold_out(stacks, [[place] for place in places], fraction, generator)
        split = Split(whole_sections(stacks, training), whole_sections(stacks, validation))
        if not missing_classes(stacks, split):
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
    return Split(whole_sections(stacks, training), whole_sections(stacks, validation))


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
