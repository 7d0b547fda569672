"""A split that grows: checked places stay checked, and nothing that was learned from is ever checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.data.annotations import LabelMapping, default_classes
from napari_autosegnet.data.array_stack import stack_of_array
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.regions import Region, Split, region_pixels
from napari_autosegnet.data.section_cuts import GAP_PIXELS
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.data.split_growth import grown_split
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings

MAPPING = LabelMapping(classes=default_classes(["a", "b"]), values={1: 1, 2: 2})
SIDE = 96


def labeled(*labels: npt.NDArray[np.uint8]) -> list[LabeledStack]:
    return [
        LabeledStack(
            stack_of_array(np.zeros_like(each), "zyx", name="image", time=None),
            stack_of_array(each.copy(), "zyx", name="labels", time=None),
            MAPPING,
        )
        for each in labels
    ]


def paint(labels: npt.NDArray[np.uint8], strokes: int, sections: Sequence[int], seed: int) -> npt.NDArray[np.uint8]:
    """The labels with strokes of both classes in these sections."""
    generator, painted = np.random.default_rng(seed), labels.copy()
    for section in sections:
        for number in range(strokes):
            y, x = generator.integers(0, SIDE - 12, 2)
            painted[section, y : y + 3, x : x + 12] = 1 + number % 2
    return painted


def mask(regions: Sequence[Region], sections: int, margin: int = 0) -> npt.NDArray[np.bool_]:
    covered = np.zeros((sections, SIDE, SIDE), bool)
    for region in regions:
        (y0, y1), (x0, x1) = region.y, region.x
        covered[region.section, max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    return covered


def check(before: Split, after: Split, sections: int, gap: int) -> None:
    learned, checked = mask(before.training, sections), mask(before.validation, sections)
    learns, checks = mask(after.training, sections), mask(after.validation, sections)
    for offset in range(-gap, gap + 1):
        moved = slice(max(0, offset), sections + min(0, offset)), slice(max(0, -offset), sections - max(0, offset))
        assert not (checks[moved[0]] & (learned | learns)[moved[1]]).any(), "checked near where it was learned from"
        assert not (learns[moved[0]] & (checked | checks)[moved[1]]).any()
    near = mask(after.validation, sections, margin=GAP_PIXELS - 1)
    assert not (near & learns).any(), "with a gap around what is checked"


@settings(max_examples=25, deadline=None)
@given(
    first=st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True),
    later=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True), min_size=1, max_size=3),
    seed=st.integers(0, 50),
)
def test_a_split_that_grows_leaks_nothing(first: list[int], later: list[list[int]], seed: int) -> None:
    rules = SplitSettings()
    painted = paint(np.zeros((12, SIDE, SIDE), np.uint8), 8, first, seed)
    try:
        split = split_stacks(labeled(painted), rules)
    except UserError:
        return  # too few in too little room
    for number, sections in enumerate(later):
        painted = paint(painted, 4, sections, seed + 1000 + number)
        stacks = labeled(painted)
        try:
            grown = grown_split(split, stacks, rules)
        except UserError:  # painted over
            return
        check(split, grown, 12, rules.gap)
        pixels = [region_pixels(stacks, part).sum() for part in (grown.training, grown.validation)]
        assert sum(pixels) <= (painted > 0).sum() and min(pixels) > 0
        split = grown


def test_strokes_go_where_they_are_painted() -> None:
    painted = paint(np.zeros((12, SIDE, SIDE), np.uint8), 20, [4], 1)
    split = split_stacks(labeled(painted), SplitSettings())
    more = painted.copy()
    more[4:6] = np.where(more[4:6] == 0, 1, more[4:6])  # all of that section and of the next one
    stacks = labeled(more)
    grown = grown_split(split, stacks, SplitSettings())
    checks, checked = mask(grown.validation, 12), mask(split.validation, 12)
    assert (checks[4] == checked[4]).all() and (checks[5] == checked[4]).all(), "neighbors show the same"
    learns, learned = mask(grown.training, 12), mask(split.training, 12)
    assert (learns[4] >= learned[4]).all() and learns[4].mean() > 0.5


def test_far_sections_are_divided_as_those_before() -> None:
    painted = paint(np.zeros((40, SIDE, SIDE), np.uint8), 20, [4], 1)
    cut = grown_split(
        split_stacks(labeled(painted), SplitSettings()), labeled(paint(painted, 20, [30], 2)), SplitSettings()
    )
    assert {region.section for region in cut.training} == {region.section for region in cut.validation} == {4, 30}
    many = paint(np.zeros((40, SIDE, SIDE), np.uint8), 20, range(20), 1)
    before = split_stacks(labeled(many), SplitSettings())
    after = grown_split(before, labeled(paint(many, 20, [30], 2)), SplitSettings())
    assert after.validation == before.validation
    assert {region.section for region in after.training} == {region.section for region in before.training} | {30}
    (first, *_, last) = sorted({region.section for region in before.validation})
    between = {first - 1, last + 1} & set(range(20))
    assert not between & {region.section for region in after.training}, "sections of the gap stay out"


def test_what_cannot_grow_is_refused() -> None:
    painted = paint(np.zeros((12, SIDE, SIDE), np.uint8), 20, [4], 1)
    split = split_stacks(labeled(painted), SplitSettings())
    with pytest.raises(UserError, match="names sections or groups"):
        grown_split(split, labeled(painted), SplitSettings(validation_sections="4"))
    with pytest.raises(UserError, match="no pixel in the"):
        grown_split(split, labeled(np.where(painted == 2, 0, painted)), SplitSettings())
