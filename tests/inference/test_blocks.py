from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import (
    ALL_PLANES,
    CUBE_SIDE,
    XY,
    BlockPlan,
    PyramidPlan,
    choose_block,
    choose_chunks,
    largest_cube,
    pyramid_levels,
    round_up,
    slices,
    turned,
    turned_back,
)


@st.composite
def plans(draw: st.DrawFn, planes: tuple[tuple[int, int, int], ...] = XY) -> BlockPlan:
    stride = draw(st.sampled_from([1, 2, 4, 8, 16]))
    deepest = 4 if planes == XY else 60
    shape = draw(st.tuples(st.integers(1, deepest), st.integers(1, 90), st.integers(1, 90)))
    region = None
    if draw(st.booleans()):
        spans = []
        for size in shape:
            start = draw(st.integers(0, size - 1))
            spans.append((start, draw(st.integers(start + 1, size))))
        region = (spans[0], spans[1], spans[2])
    return BlockPlan(
        shape=shape,
        block=draw(st.tuples(st.integers(1, deepest), st.integers(1, 64), st.integers(1, 64))),
        stride=stride,
        halo=stride * draw(st.integers(0, 4)),
        tile=draw(st.integers(1, 96)),
        context=draw(st.integers(0, 2)),
        region=region,
        planes=planes,
    )


@settings(max_examples=150, deadline=None)
@given(plan=plans())
def test_kept_parts_divide_the_volume_and_keep_their_distance(plan: BlockPlan) -> None:
    counted = np.zeros(plan.shape, int)
    for block in plan:
        assert len(block.shape) == 3 and block.voxels > 0
        z, y, x = plan.surroundings(block)
        for tile in plan.tiles(block):
            for window, core, domain, side, read in zip(
                tile.window, tile.core, plan.domain, plan.window, (y, x), strict=True
            ):
                assert window[1] - window[0] == side
                assert window[0] % plan.stride == 0 and side % plan.stride == 0
                assert window[0] >= 0 and window[1] <= domain
                assert window[0] == 0 or core[0] - window[0] >= plan.halo
                assert window[1] == domain or window[1] - core[1] >= plan.halo
                assert read[0] <= window[0] and window[1] <= read[1]
            counted[slice(*block.core[0]), slice(*tile.core[0]), slice(*tile.core[1])] += 1
        assert z[0] == max(0, block.core[0][0] - plan.context)
        assert z[1] == min(plan.shape[0], block.core[0][1] + plan.context)
    expected = np.zeros(plan.shape, int)
    expected[slices(plan.region) if plan.region else ...] = 1
    np.testing.assert_array_equal(counted, expected)


@settings(max_examples=60, deadline=None)
@given(plan=plans(ALL_PLANES))
def test_in_three_planes_each_voxel_is_kept_once_in_each_and_all_windows_are_read(plan: BlockPlan) -> None:
    assert [*plan.seen] == [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
    assert plan.computed == sum(view.computed for view in plan.seen.values())
    kept = dict.fromkeys(plan.seen, 0)
    for block in plan:
        read = plan.surroundings(block)
        for axes, view in plan.seen.items():
            seen = block.turned(axes)
            assert turned_back(seen.core, axes) == block.core
            here = turned(read, axes)
            assert here[0][0] <= max(0, seen.core[0][0] - plan.context)
            assert here[0][1] >= min(view.shape[0], seen.core[0][1] + plan.context)
            for tile in view.tiles(seen):
                kept[axes] += seen.shape[0] * (tile.core[0][1] - tile.core[0][0]) * (tile.core[1][1] - tile.core[1][0])
                for window, core, domain, have in zip(tile.window, tile.core, view.domain, here[1:], strict=True):
                    assert window[0] == 0 or core[0] - window[0] >= plan.halo
                    assert window[1] == domain or window[1] - core[1] >= plan.halo
                    assert have[0] <= window[0] and window[1] <= have[1]
    assert set(kept.values()) == {sum(block.voxels for block in plan)}


@pytest.mark.parametrize(("halo", "classes"), [(16, 2), (32, 2), (64, 2), (96, 2), (32, 4)])
def test_three_planes_compute_no_more_than_three_times_and_a_bit(halo: int, classes: int) -> None:
    shape, stride = (3072, 3072, 3072), 16
    cube = choose_block(shape, choose_chunks(shape, None, None, None, ALL_PLANES), None, largest=largest_cube(classes))
    one = BlockPlan(shape, choose_block(shape, choose_chunks(shape, None, None), None), stride, halo, 512)
    three = BlockPlan(shape, cube, stride, halo, max(512, CUBE_SIDE + 2 * halo), planes=ALL_PLANES)
    assert three.computed <= 3.2 * one.computed


@settings(max_examples=100, deadline=None)
@given(plan=plans(), tile=st.integers(1, 96))
def test_smaller_tiles_need_no_more_than_was_read(plan: BlockPlan, tile: int) -> None:
    smaller = BlockPlan(plan.shape, plan.block, plan.stride, plan.halo, min(tile, plan.tile), plan.context, plan.region)
    for block in plan:
        for read, needed in zip(plan.surroundings(block), smaller.surroundings(block), strict=True):
            assert read[0] <= needed[0] and needed[1] <= read[1]


def test_a_domain_that_fits_is_one_window() -> None:
    plan = BlockPlan((1, 500, 510), (1, 500, 510), stride=16, halo=64, tile=512)
    (tile,) = plan.tiles(plan[0])
    assert tile.window == ((0, 512), (0, 512)) and tile.core == ((0, 500), (0, 510))


def test_windows_are_no_larger_than_the_block_needs() -> None:
    # A core of 512 needs two windows of at most 512 with a halo of 64: 256 + 2 * 64 each.
    plan = BlockPlan((1, 4096, 4096), (1, 512, 512), stride=16, halo=64, tile=512)
    assert plan.window == (384, 384)
    assert all(len(plan.tiles(block)) == 4 for block in plan)


def test_windows_at_the_edges_of_the_domain_need_no_halo_there() -> None:
    # Three windows along 1024: 3 w less four halos.
    plan = BlockPlan((1, 1024, 1024), (1, 1024, 1024), stride=8, halo=40, tile=512)
    assert plan.window == (400, 400) and plan.windows == 9
    larger = BlockPlan((1, 1024, 1024), (1, 1024, 1024), stride=8, halo=40, tile=768)
    assert larger.window == (552, 552) and larger.windows == 4


@settings(max_examples=100, deadline=None)
@given(plan=plans())
def test_windows_are_counted_without_being_made(plan: BlockPlan) -> None:
    assert plan.windows == sum(len(plan.tiles(block)) * block.shape[0] for block in plan)


def test_context_repeats_the_ends() -> None:
    plan = BlockPlan((3, 8, 8), (1, 8, 8), stride=1, halo=0, tile=8, context=2)
    assert plan.context_sections(0) == (0, 0, 0, 1, 2)
    assert plan.context_sections(2) == (0, 1, 2, 2, 2)


def test_a_region_outside_is_refused() -> None:
    with pytest.raises(UserError, match="region"):
        BlockPlan((3, 8, 8), (1, 8, 8), stride=1, halo=0, tile=8, region=((0, 4), (0, 8), (0, 8)))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 3000)),
    source=st.none() | st.tuples(st.integers(1, 128), st.integers(1, 512), st.integers(1, 512)),
    whole=st.booleans(),
    at_once=st.none() | st.integers(1, 20),
)
def test_blocks_are_whole_chunks_and_bounded(
    shape: tuple[int, int, int], source: tuple[int, int, int] | None, whole: bool, at_once: int | None
) -> None:
    chunks = choose_chunks(shape, None, source, at_once)
    assert at_once is None or chunks[0] <= at_once
    block = choose_block(shape, chunks, None, whole_sections=whole)
    for size, chunk, step in zip(shape, chunks, block, strict=True):
        assert 1 <= chunk <= size and step % chunk == 0
    if whole:
        assert block[1] >= shape[1] and block[2] >= shape[2]
    else:
        assert max(block[1:]) <= round_up(1024, 256)


def test_a_wished_block_sets_the_chunks_or_is_a_multiple() -> None:
    shape = (100, 2000, 2000)
    assert choose_chunks(shape, (4, 100, 512), None) == (4, 100, 256)
    assert choose_block(shape, (4, 100, 256), (4, 100, 512)) == (4, 100, 512)
    with pytest.raises(UserError, match="not a multiple of the output's chunks of 256; take 512"):
        choose_chunks(shape, (16, 300, 512), None)


def test_thin_chunks_are_wide_and_a_wished_block_counts_more() -> None:
    shape = (100, 9000, 9000)
    assert [choose_chunks(shape, None, None, count) for count in (100, 16, 8, 4, 1)] == [
        (16, 256, 256),
        (16, 256, 256),
        (8, 256, 256),
        (4, 512, 512),
        (1, 1024, 1024),
    ]
    assert choose_block(shape, (1, 1024, 1024), None) == (1, 1024, 1024)
    assert choose_chunks(shape, (32, 512, 512), None, 1) == (16, 256, 256)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 70)),
    block=st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(1, 16)),
    count=st.integers(1, 4),
)
def test_pyramid_parents_and_children_fit(shape: tuple[int, int, int], block: tuple[int, int, int], count: int) -> None:
    plan = PyramidPlan(pyramid_levels(shape, count), block)
    assert len(plan.levels) == count
    for level in range(1, count):
        seen = []
        for position in np.ndindex(*plan.grid(level)):
            place = (position[0], position[1], position[2])
            for child in plan.children(level, place):
                assert plan.parent(level - 1, child) == place
                seen.append(child)
        assert sorted(seen) == sorted(tuple(place) for place in np.ndindex(*plan.grid(level - 1)))
