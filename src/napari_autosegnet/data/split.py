"""The split into a training and a validation part, made before any augmentation and without leaks.

Neighboring sections are near copies, so a stack is cut in contiguous blocks of sections with a gap
between them; a stack with few annotated sections is cut within the sections instead, at the same place in all
neighbors (`section_cuts`), so that not sections but their strokes are divided. Images that belong together (one
specimen, one surface under several exposures) are kept on one side by a group column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_autosegnet.data.automatic_split import split_automatically
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.named_split import split_as_named, split_by_group
from napari_autosegnet.data.regions import Split
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
