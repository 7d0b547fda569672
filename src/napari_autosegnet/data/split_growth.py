"""A split that grows while somebody paints: what is new goes to the part that its place belongs to.

A place that is checked stays checked, and one that was learned from is never checked: a network that has learned from
it would look better than it is. Where nothing is painted near, the rules of `split_stacks` hold.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from napari_autosegnet.data.automatic_split import neighbors
from napari_autosegnet.data.boxes import Box, widened, without_all
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.planes import Plane
from napari_autosegnet.data.regions import Region, Split, full_extent
from napari_autosegnet.data.section_cuts import GAP_PIXELS, cut_planes, gap_between
from napari_autosegnet.data.split_classes import check_classes
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings


def grown_split(split: Split, stacks: Sequence[LabeledStack], settings: SplitSettings, *, context: int = 0) -> Split:
    """Divide annotation that was added to stacks whose annotation was divided before.

    In sections that are near a divided one, what is checked there is checked here, and what lies beyond the gap around
    it is learned from; what can be neither is left out. Sections far from all others are cut if those before were
    cut, and learned from if those before were divided as a whole.

    Parameters
    ----------
    split : Split
        Of the annotation before; whatever was learned from or checked is in it.
    stacks : sequence of LabeledStack
        The same images, with the annotation as it is now.
    settings, context
        As they were for `split_stacks`.

    Raises
    ------
    UserError
        When the settings name sections or groups, or a class has no pixel left in one of the parts.
    """
    if settings.group is not None or settings.train_sections is not None or settings.validation_sections is not None:
        raise UserError("the split names sections or groups and does not grow; start a new run with the new annotation")
    gap = max(settings.gap, context)
    is_cut = any((each.y, each.x) != full_extent(stacks[each.stack], each.section) for each in split.validation)
    grown = [_Growth(stack, index, split, gap).run(settings, is_cut=is_cut) for index, stack in enumerate(stacks)]
    together = Split(
        tuple(region for part in grown for region in part.training),
        tuple(region for part in grown for region in part.validation),
    )
    check_classes(stacks, together, settings)
    return together


class _Growth:
    """Places of one stack that are learned from and checked, by section."""

    def __init__(self, stack: LabeledStack, index: int, split: Split, gap: int) -> None:
        self._stack, self._index, self._gap = stack, index, gap
        self._training, self._validation = _boxes(split.training, index), _boxes(split.validation, index)

    def run(self, settings: SplitSettings, *, is_cut: bool) -> Split:
        """The parts as they are now; ``is_cut``: sections are divided rather than learned from as a whole."""
        annotated = self._stack.annotated_sections
        near = [section for section in annotated if self._near(section)]
        far = [section for section in annotated if section not in set(near)]
        if is_cut:
            self._cut(far, settings)
        for section in far:
            if not self._training[section] and not self._validation[section]:
                self._training[section] = [full_extent(self._stack, section)]
        for section in near:
            self._divide_near(section)
        return Split(self._regions(annotated, self._training), self._regions(annotated, self._validation))

    def _near(self, section: int) -> list[int]:
        """Divided sections that show much the same, itself included."""
        image = self._stack.image
        return [
            other
            for other in range(max(0, section - self._gap), min(image.sections, section + self._gap + 1))
            if (other in self._training or other in self._validation)
            and image.section_shape(other) == image.section_shape(section)
        ]

    def _cut(self, sections: Sequence[int], settings: SplitSettings) -> None:
        classes = len(self._stack.mapping.classes)
        groups = neighbors(self._stack, sections, self._gap)
        planes = [Plane({each: self._stack.target(each) for each in group}, classes) for group in groups]
        cuts = cut_planes(planes, settings.validation_fraction, np.random.default_rng(settings.seed)) if planes else []
        for group, cut in zip(groups, cuts, strict=True):
            for section in group:
                self._training[section], self._validation[section] = list(cut.training), list(cut.validation)

    def _divide_near(self, section: int) -> None:
        around = self._near(section)
        whole = full_extent(self._stack, section)
        learned = [box for other in around for box in self._training[other]]
        checked = list(dict.fromkeys(box for other in around for box in self._validation[other]))
        gap = _gap_kept(self._stack.image.section_shape(section), learned, checked)
        new = [piece for box in checked for piece in without_all(box, [widened(each, gap) for each in learned])]
        own = self._validation[section]
        for box in new:
            own = [*own, *without_all(box, own)]
        self._validation[section] = own
        self._training[section] = without_all(whole, [widened(box, gap) for box in checked])

    def _regions(self, annotated: Iterable[int], boxes: dict[int, list[Box]]) -> tuple[Region, ...]:
        return tuple(
            Region(self._index, section, y, x)
            for section in annotated
            for y, x in boxes[section]
            if self._stack.target(section)[slice(*y), slice(*x)].any()
        )


def _boxes(regions: Iterable[Region], index: int) -> dict[int, list[Box]]:
    boxes: dict[int, list[Box]] = defaultdict(list)
    for region in regions:
        if region.stack == index:
            boxes[region.section].append((region.y, region.x))
    return boxes


def _gap_kept(shape: tuple[int, int], learned: Sequence[Box], checked: Sequence[Box]) -> tuple[int, int]:
    """The widest gap that is between the parts already."""
    for halvings in itertools.count():
        gap = gap_between(shape, halvings)
        if max(gap) == GAP_PIXELS or not any(
            _overlap(box, widened(other, gap)) for box in learned for other in checked
        ):
            return gap
    raise AssertionError("the gaps shrink to an end")


def _overlap(one: Box, other: Box) -> bool:
    return all(ours[0] < theirs[1] and theirs[0] < ours[1] for ours, theirs in zip(one, other, strict=True))
