"""Sections cut into two parts: apart by the gap, every class in both, as large as that allows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import line

from napari_autosegnet.data.boxes import Box
from napari_autosegnet.data.planes import Cut, Plane
from napari_autosegnet.data.section_cuts import GAP_PIXELS, cut_planes

Ends = tuple[tuple[int, int], tuple[int, int]]


def painted(shape: tuple[int, int], strokes: list[tuple[int, Ends]]) -> np.ndarray:
    """Strokes of 3 pixels' width on an empty section; a later one covers the others."""
    target = np.zeros(shape, np.uint8)
    for number, (start, end) in strokes:
        rows, columns = line(*start, *end)
        for y, x in itertools.product((-1, 0, 1), repeat=2):
            target[np.clip(rows + y, 0, shape[0] - 1), np.clip(columns + x, 0, shape[1] - 1)] = number
    return target


def plane_of(*targets: np.ndarray, classes: int = 2) -> Plane:
    return Plane(dict(enumerate(targets)), classes)


def counts(plane: Plane, boxes: tuple[Box, ...]) -> list[int]:
    found = np.zeros(plane.classes, np.int64)
    for target in plane.targets.values():
        for y, x in boxes:
            found += np.bincount(target[slice(*y), slice(*x)].ravel(), minlength=plane.classes + 1)[1:]
    return found.tolist()


def distance(one: Box, other: Box) -> int:
    return max(max(b[0] - a[1], a[0] - b[1]) for a, b in zip(one, other, strict=True))


def assert_apart(cut: Cut, gap: int = GAP_PIXELS) -> None:
    for one, other in itertools.product(cut.training, cut.validation):
        assert distance(one, other) >= gap, (one, other)
    for side in (cut.training, cut.validation):
        for one, other in itertools.combinations(side, 2):
            assert distance(one, other) >= 0, (one, other)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


#: What lies in the middle of a section of 2048 x 2048 pixels: no side holds a quarter of it alone.
MIDDLE = {
    "beside each other": [(1, ((1000, 1000), (1000, 1060))), (2, ((1030, 1000), (1030, 1060)))],
    "at right angles": [(1, ((1000, 1000), (1000, 1060))), (2, ((980, 1090), (1040, 1090)))],
    "crossing": [(1, ((1000, 1000), (1000, 1060))), (2, ((970, 1030), (1030, 1030)))],
    "short": [(1, ((1000, 1000), (1000, 1020))), (2, ((1000, 1040), (1010, 1040)))],
    "diagonal": [(1, ((1000, 1000), (1040, 1040))), (2, ((1040, 1000), (1000, 1040)))],
}


@pytest.mark.parametrize("strokes", MIDDLE.values(), ids=MIDDLE.keys())
@pytest.mark.parametrize("seed", range(2))
def test_two_strokes_in_the_middle_are_divided(strokes: list[tuple[int, Ends]], seed: int) -> None:
    plane = plane_of(painted((2048, 2048), strokes))
    (cut,) = cut_planes([plane], 0.25, seeded(seed))
    assert_apart(cut)
    assert min(*counts(plane, cut.training), *counts(plane, cut.validation)) > 0
    assert cut_planes([plane], 0.25, seeded(seed)) == [cut]
    # A network sees more than the strokes themselves.
    assert max((y[1] - y[0]) * (x[1] - x[0]) for y, x in cut.training) > 500 * 500
    assert max((y[1] - y[0]) * (x[1] - x[0]) for y, x in cut.validation) > 500 * 500


def test_no_side_can_be_cut_off_alone() -> None:
    """Each of four strokes bars the way to another one."""
    strokes = [
        (1, ((20, 0), (100, 0))),
        (2, ((0, 20), (0, 80))),
        (3, ((10, 120), (90, 120))),
        (4, ((120, 30), (120, 100))),
    ]
    plane = plane_of(painted((300, 300), strokes), classes=4)
    (cut,) = cut_planes([plane], 0.25, seeded())
    assert_apart(cut)
    assert min(*counts(plane, cut.training), *counts(plane, cut.validation)) > 0


def test_whole_strokes_are_divided_where_there_are_several() -> None:
    """Two dots of each class, too small to be cut themselves, on no line that divides both."""
    target = np.zeros((200, 200), np.uint8)
    for number, y, x in ((1, 20, 20), (1, 20, 180), (2, 100, 100), (2, 180, 100)):
        target[y : y + 5, x : x + 5] = number
    plane = plane_of(target)
    (cut,) = cut_planes([plane], 0.25, seeded())
    assert_apart(cut)
    assert counts(plane, cut.training) == counts(plane, cut.validation) == [25, 25]


def test_the_gap_is_kept_where_there_is_room() -> None:
    far = [(number, ((1000, x), (1040, x))) for number, x in ((1, 300), (2, 340), (1, 1700), (2, 1740))]
    (cut,) = cut_planes([plane_of(painted((2048, 2048), far))], 0.25, seeded())
    assert_apart(cut, 128)
    near = [(number, ((1000, x), (1040, x))) for number, x in ((1, 900), (2, 940), (1, 1000), (2, 1040))]
    (cut,) = cut_planes([plane_of(painted((2048, 2048), near))], 0.25, seeded())
    assert_apart(cut, 16)


def test_planes_help_each_other() -> None:
    """A dot of a class in each of two planes: one is learned from, the other checks."""
    targets = [np.zeros((100, 100), np.uint8) for _ in range(2)]
    for target in targets:
        target[50:55, 50:55] = 1
    targets[0] |= painted((100, 100), [(2, ((10, 10), (10, 80)))])
    planes = [plane_of(target) for target in targets]
    cuts = cut_planes(planes, 0.25, seeded())
    for side in ("training", "validation"):
        found = np.sum([counts(plane, getattr(cut, side)) for plane, cut in zip(planes, cuts, strict=True)], axis=0)
        assert (found > 0).all()
    for cut in cuts:
        assert_apart(cut)


def test_neighboring_sections_are_cut_alike() -> None:
    strokes = MIDDLE["at right angles"]
    plane = plane_of(painted((2048, 2048), strokes[:1]), painted((2048, 2048), strokes[1:]))
    (cut,) = cut_planes([plane], 0.25, seeded())
    assert_apart(cut)
    assert min(*counts(plane, cut.training), *counts(plane, cut.validation)) > 0


def test_a_rare_class_among_dense_ones() -> None:
    target = seeded().integers(1, 3, (400, 400), dtype=np.uint8)
    target[190:200, 180:220] = 3
    plane = plane_of(target, classes=3)
    (cut,) = cut_planes([plane], 0.25, seeded())
    assert_apart(cut)
    assert min(*counts(plane, cut.training), *counts(plane, cut.validation)) > 0
    assert sum(counts(plane, cut.training)) > 0.4 * target.size
    assert sum(counts(plane, cut.validation)) > 0.1 * target.size


@settings(max_examples=30, deadline=None)
@given(
    cells=st.lists(st.integers(0, 24), min_size=2, max_size=9, unique=True),
    numbers=st.lists(st.integers(0, 2), min_size=9, max_size=9),
    slopes=st.lists(st.sampled_from([(0, 24), (24, 0), (24, 24), (12, 24)]), min_size=9, max_size=9),
    side=st.sampled_from([260, 1000]),
    seed=st.integers(0, 99),
)
def test_strokes_of_every_class_on_both_sides(
    cells: list[int], numbers: list[int], slopes: list[tuple[int, int]], side: int, seed: int
) -> None:
    """Strokes of 24 pixels, each in a cell of a grid, whatever their classes and directions."""
    classes = sorted(set(numbers[: len(cells)]))
    strokes: list[tuple[int, Ends]] = []
    for cell, number, (rise, run) in zip(cells, numbers, slopes, strict=False):
        y, x = 8 + 48 * (cell // 5), 8 + 48 * (cell % 5)
        strokes.append((classes.index(number) + 1, ((y, x), (y + rise, x + run))))
    plane = plane_of(painted((side, side), strokes), classes=len(classes))
    (cut,) = cut_planes([plane], 0.25, seeded(seed))
    assert_apart(cut)
    assert min(*counts(plane, cut.training), *counts(plane, cut.validation)) > 0
    assert cut_planes([plane], 0.25, seeded(seed)) == [cut]
