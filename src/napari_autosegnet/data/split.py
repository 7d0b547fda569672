"""The split into a training and a validation part, made before any augmentation and without leaks.

Neighboring sections are near copies, so a stack is cut in contiguous blocks of sections with a gap
between them; a stack with few annotated sections is cut within the sections instead, at the same place in all
neighbors (`section_cuts`), so that not sections but their strokes are divided. Images that belong together (one
specimen, one surface under several exposures) are kept on one side by a group column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_autosegnet.data.automatic_split import split_automatically
from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.data.hold_out import hold_out
from napari_autosegnet.data.labeled_stacks import LabeledStack, annotated_places
from napari_autosegnet.data.regions import Split, whole_sections
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.data.split_classes import check_classes
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings


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
        split = split_as_named(stacks, settings, gap, context)
    elif settings.group is not None:
        split = split_by_group(stacks, settings.group, settings.validation_fraction, context, generator)
    else:
        split = split_automatically(stacks, settings.validation_fraction, gap, generator)
    if every_class:
        check_classes(stacks, split, settings)
    return split


def split_as_named(stacks: Sequence[LabeledStack], settings: SplitSettings, gap: int, context: int) -> Split:
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
    return Split(whole_sections(stacks, parts["training"]), whole_sections(stacks, parts["validation"]))


def split_by_group(
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
    return Split(
        whole_sections(stacks, _out_of_sight(training, validation, context)), whole_sections(stacks, validation)
    )


def _out_of_sight(
    training: Sequence[tuple[int, int]], validation: Sequence[tuple[int, int]], context: int
) -> list[tuple[int, int]]:
    """The sections whose patches show, with ``context``, no section of validation."""
    seen = {(stack, section + offset) for stack, section in validation for offset in range(-context, context + 1)}
    return [place for place in training if place not in seen]
