"""The block plan: which voxels are computed together, from which tiles, and what is read for them.

Pure arithmetic; the same plan serves one process and many. All coordinates are ``(z, y, x)`` in voxels of the
full resolution. A section's *domain* is its shape rounded up to the network's stride; pixels beyond the
section repeat its last row and column. Whole-section inference does the same, so with a halo that covers the
receptive field the tiles give what the whole section gives:

- every tile is one fixed window, its origin a multiple of the stride, inside the domain;
- its kept part is at least ``halo`` away from those window edges that are no edges of the domain.

A volume may be seen in three planes. Then a block has tiles in each: those of the same volume with its axes in
another order (`BlockPlan.seen`), which are sections of that plane.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from napari_autosegnet.errors import UserError

Span = tuple[int, int]
Box = tuple[Span, Span, Span]
Shape = tuple[int, int, int]
T = TypeVar("T")

#: For each plane the axes of the volume: the one across its sections, their rows and their columns.
XY: tuple[Shape, ...] = ((0, 1, 2),)
ALL_PLANES: tuple[Shape, ...] = (*XY, (1, 0, 2), (2, 0, 1))
#: Chunks of a new result: small enough to show one section quickly, large enough to keep files few.
DEFAULT_CHUNKS: Shape = (16, 256, 256)
#: Blocks are no larger than this unless the user says so; it bounds the memory.
MAX_SIDE = 1024
#: Chunks and the largest side of blocks that are seen in three planes. With the usual halos such blocks keep as large a
#: part of what is computed as those of one plane do.
CUBE_CHUNKS: Shape = (32, 128, 128)
CUBE_SIDE = 384


def round_up(value: int, step: int) -> int:
    """Smallest multiple of ``step`` that is not less than ``value``."""
    return -(-value // step) * step


def length(span: Span) -> int:
    return span[1] - span[0]


def slices(box: tuple[Span, ...]) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in box)


def turned(values: tuple[T, T, T], axes: Shape) -> tuple[T, T, T]:
    """What is said of z, y and x in another order of the axes."""
    return values[axes[0]], values[axes[1]], values[axes[2]]


def turned_back(values: tuple[T, T, T], axes: Shape) -> tuple[T, T, T]:
    """What was `turned`, as it was."""
    return values[axes.index(0)], values[axes.index(1)], values[axes.index(2)]


@dataclass(frozen=True)
class Tile:
    """One window ``(y, x)`` of the domain, and the part of the section that it decides."""

    window: tuple[Span, Span]
    core: tuple[Span, Span]


@dataclass(frozen=True)
class Block:
    """Voxels that are computed and written together."""

    index: int
    core: Box

    @property
    def origin(self) -> Shape:
        return self.core[0][0], self.core[1][0], self.core[2][0]

    @property
    def shape(self) -> Shape:
        return length(self.core[0]), length(self.core[1]), length(self.core[2])

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    def turned(self, axes: Shape) -> Block:
        """The same block of a volume with its axes in another order; it keeps its number."""
        return Block(self.index, turned(self.core, axes))


@dataclass(frozen=True)
class BlockPlan:
    """Blocks of a volume and the tiles of each.

    Parameters
    ----------
    shape : (z, y, x)
        The volume.
    block : (z, y, x)
        Size of the blocks; those at the end are cut. A multiple of the output's chunks.
    stride : int
        The network's stride.
    halo : int
        Pixels between a tile's kept part and a window edge inside the domain; a multiple of ``stride``.
    tile : int
        Largest side of a window. A block that is a whole section, and fits, is one window without any halo. Where two
        halos would leave nothing of it, the window is made larger.
    context : int
        Sections that the network reads above and below.
    region : ((z, z), (y, y), (x, x)), optional
        Only these voxels are computed; blocks keep their numbers.
    planes : tuple of (int, int, int)
        The planes that the network sees, `XY` or `ALL_PLANES`. Windows and tiles are those of xy; the other planes
        have those of the plans in `seen`.
    """

    shape: Shape
    block: Shape
    stride: int
    halo: int
    tile: int
    context: int = 0
    region: Box | None = None
    planes: tuple[Shape, ...] = XY

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.block) < 1 or self.stride < 1:
            raise ValueError("shape, block and stride are positive")
        if self.halo < 0 or self.halo % self.stride:
            raise ValueError(f"a halo of {self.halo} is not a multiple of the stride {self.stride}")
        for span, size in zip(self.region or (), self.shape, strict=False):
            if not 0 <= span[0] < span[1] <= size:
                raise UserError(f"the region {self.region} does not lie inside the volume {self.shape}; choose another")

    @cached_property
    def seen(self) -> dict[Shape, BlockPlan]:
        """For each plane the plan of the volume with its axes in that order, in xy: they are kept, as windows are."""
        if self.planes == XY:
            return {XY[0]: self}
        return {
            axes: replace(
                self,
                shape=turned(self.shape, axes),
                block=turned(self.block, axes),
                region=None if self.region is None else turned(self.region, axes),
                planes=XY,
            )
            for axes in self.planes
        }

    @property
    def domain(self) -> tuple[int, int]:
        """A section's ``(y, x)``, rounded up to the stride."""
        return round_up(self.shape[1], self.stride), round_up(self.shape[2], self.stride)

    @property
    def grid(self) -> Shape:
        """Number of blocks along each axis."""
        z, y, x = (-(-size // step) for size, step in zip(self.shape, self.block, strict=True))
        return z, y, x

    @cached_property
    def window(self) -> tuple[int, int]:
        """Window ``(y, x)`` of every tile: of those that ``tile`` allows, the one that computes the fewest pixels."""
        y, x = (
            _window_side(size, block, domain, self.halo, self.stride, self.tile)
            for size, block, domain in zip(self.shape[1:], self.block[1:], self.domain, strict=True)
        )
        return y, x

    @cached_property
    def windows(self) -> int:
        """Number of windows of all blocks together, in xy."""
        limits = self.region or tuple((0, size) for size in self.shape)
        rows, columns = (
            sum(
                len(_cover((max(start, low), min(start + step, high)), domain, window, self.halo, self.stride))
                for start in range(low // step * step, high, step)
            )
            for (low, high), step, domain, window in zip(
                limits[1:], self.block[1:], self.domain, self.window, strict=True
            )
        )
        return length(limits[0]) * rows * columns

    @cached_property
    def computed(self) -> int:
        """Pixels of all windows together, of all planes: at least the voxels of the volume in each."""
        return sum(plan.windows * math.prod(plan.window) for plan in self.seen.values())

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Block]:
        return (self[index] for index in self.indices())

    def indices(self) -> Iterator[int]:
        """Numbers of the blocks, in the order in which they are computed."""
        if self.region is None:
            yield from range(math.prod(self.grid))
            return
        for position in itertools.product(*self._places(self.region)):
            yield self.index(position)

    @property
    def count(self) -> int:
        """How many blocks are computed; other than ``len``, it has no limit."""
        return math.prod(self.grid) if self.region is None else math.prod(map(len, self._places(self.region)))

    def _places(self, region: Box) -> tuple[range, range, range]:
        """Which places of the grid a region touches, along each axis."""
        z, y, x = (range(start // step, -(-end // step)) for (start, end), step in zip(region, self.block, strict=True))
        return z, y, x

    def index(self, position: Shape) -> int:
        """Number of the block at a place of the grid."""
        return (position[0] * self.grid[1] + position[1]) * self.grid[2] + position[2]

    def position(self, index: int) -> Shape:
        """Place of a block in the grid."""
        rest, x = divmod(index, self.grid[2])
        z, y = divmod(rest, self.grid[1])
        return z, y, x

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < math.prod(self.grid):
            raise IndexError(index)
        limits = self.region or tuple((0, size) for size in self.shape)
        z, y, x = (
            (max(place * step, limit[0]), min((place + 1) * step, limit[1]))
            for place, step, limit in zip(self.position(index), self.block, limits, strict=True)
        )
        return Block(index, (z, y, x))

    def tiles(self, block: Block) -> tuple[Tile, ...]:
        """Tiles whose kept parts together are the block's ``(y, x)``, the same for each of its sections."""
        rows, columns = (
            _cover(core, domain, window, self.halo, self.stride)
            for core, domain, window in zip(block.core[1:], self.domain, self.window, strict=True)
        )
        return tuple(Tile((row[0], column[0]), (row[1], column[1])) for row in rows for column in columns)

    def surroundings(self, block: Block) -> Box:
        """What is read for a block: its windows, in the domain, and its sections with their context, of all planes."""
        boxes = [turned_back(plan._read(block.turned(axes)), axes) for axes, plan in self.seen.items()]
        z, y, x = (
            (min(span[0] for span in spans), max(span[1] for span in spans)) for spans in zip(*boxes, strict=True)
        )
        return z, y, x

    def _read(self, block: Block) -> Box:
        """What is read for a block's sections in one plane."""
        tiles = self.tiles(block)
        z = (max(0, block.core[0][0] - self.context), min(self.shape[0], block.core[0][1] + self.context))
        y, x = (
            (min(tile.window[axis][0] for tile in tiles), max(tile.window[axis][1] for tile in tiles))
            for axis in (0, 1)
        )
        return z, y, x

    def context_sections(self, section: int) -> tuple[int, ...]:
        """Sections that are stacked as channels for one; the ends of the volume repeat."""
        last = self.shape[0] - 1
        return tuple(min(max(section + offset, 0), last) for offset in range(-self.context, self.context + 1))


def _window_side(size: int, block: int, domain: int, halo: int, stride: int, tile: int) -> int:
    if domain <= tile and block >= size:
        return domain
    # Blocks that do not start at a multiple of the stride lose up to one stride to alignment.
    smallest = 2 * halo + stride + (stride if block % stride else 0)
    largest = max(min(tile // stride * stride, domain), smallest)
    if smallest >= domain:
        return domain
    blocks = -(-size // block)
    # The first and the last block have an edge of the domain, where no halo is; all between are alike.
    weights = {0: 1, blocks // 2: max(1, blocks - 2), blocks - 1: 1}

    def computed(window: int) -> int:
        return window * sum(
            weight * len(_cover((place * block, min(size, (place + 1) * block)), domain, window, halo, stride))
            for place, weight in weights.items()
        )

    return min(range(largest, smallest - 1, -stride), key=computed)  # of equals the largest


def _cover(core: Span, domain: int, window: int, halo: int, stride: int) -> list[tuple[Span, Span]]:
    """Windows along one axis and their kept parts, which divide ``core``."""
    spans: list[tuple[Span, Span]] = []
    # No window reaches farther than the core needs: so less is read, and a smaller window reads no more.
    last = max(0, min(round_up(core[1] + halo, stride), domain) - window)
    position = core[0]
    while position < core[1]:
        origin = max(0, min((position - halo) // stride * stride, last))
        end = origin + window
        stop = core[1] if end == domain else min(core[1], end - halo)
        spans.append(((origin, end), (position, stop)))
        position = stop
    return spans


def parse_region(text: str, shape: Shape) -> Box:
    """Region ``z0:z1,y0:y1,x0:x1`` of a volume; an end that is left out is the volume's, z may be left out.

    Raises
    ------
    UserError
        When it does not lie inside the volume.
    """
    parts = text.replace(" ", "").split(",")
    parts = [":"] * (3 - len(parts)) + parts
    spans = []
    for part, size in zip(parts, shape, strict=True):
        start, end = part.split(":")
        spans.append((int(start or 0), int(end or size)))
    if not all(0 <= start < end <= size for (start, end), size in zip(spans, shape, strict=True)):
        whole = ",".join(f"0:{size}" for size in shape)
        raise UserError(f"the region {text} does not lie inside the image, which is {whole}; choose another --region")
    return spans[0], spans[1], spans[2]


@dataclass(frozen=True)
class Level:
    """One pyramid level: its shape and the factor ``(z, y, x)`` from the level above."""

    shape: Shape
    factor: Shape


@dataclass(frozen=True)
class PyramidPlan:
    """Blocks of the lower levels: each is subsampled from finished blocks of the level above.

    All levels have blocks of the same size, so one block is one or several whole chunks at each level.
    """

    levels: tuple[Level, ...]
    block: Shape

    def grid(self, level: int) -> Shape:
        z, y, x = (-(-size // step) for size, step in zip(self.levels[level].shape, self.block, strict=True))
        return z, y, x

    def number(self, level: int, position: Shape) -> int:
        """Number of the block at a place of a level's grid; at level 0 that of the block plan."""
        grid = self.grid(level)
        return (position[0] * grid[1] + position[1]) * grid[2] + position[2]

    def position(self, level: int, number: int) -> Shape:
        """Place of a block in its level's grid."""
        grid = self.grid(level)
        rest, x = divmod(number, grid[2])
        z, y = divmod(rest, grid[1])
        return z, y, x

    def core(self, level: int, position: Shape) -> Box:
        """Voxels of a block, at its own level."""
        z, y, x = (
            (place * step, min((place + 1) * step, size))
            for place, step, size in zip(position, self.block, self.levels[level].shape, strict=True)
        )
        return z, y, x

    def parent(self, level: int, position: Shape) -> Shape | None:
        """The block of the next level that is made from this one, if there is one."""
        if level + 1 >= len(self.levels):
            return None
        factor, grid = self.levels[level + 1].factor, self.grid(level + 1)
        z, y, x = (place // step for place, step in zip(position, factor, strict=True))
        # The last block of a level may consist of a remainder that the next level leaves out.
        return (z, y, x) if z < grid[0] and y < grid[1] and x < grid[2] else None

    def children(self, level: int, position: Shape) -> Iterator[Shape]:
        """The blocks of the level above that this one is made from."""
        factor, grid = self.levels[level].factor, self.grid(level - 1)
        ranges = [
            range(place * step, min((place + 1) * step, count))
            for place, step, count in zip(position, factor, grid, strict=True)
        ]
        return ((z, y, x) for z in ranges[0] for y in ranges[1] for x in ranges[2])


def pyramid_levels(shape: Shape, count: int) -> tuple[Level, ...]:
    """Levels that halve y and x each time; every level has at least one voxel."""
    levels = [Level(shape, (1, 1, 1))]
    while len(levels) < count:
        z, y, x = levels[-1].shape
        levels.append(Level((z, -(-y // 2), -(-x // 2)), (1, 2, 2)))
    return tuple(levels)


def choose_chunks(
    shape: Shape,
    block: Shape | None,
    source: Shape | None,
    sections_at_once: int | None = None,
    planes: tuple[Shape, ...] = XY,
) -> Shape:
    """Chunks of a new result, of which the wished block is a multiple.

    ``source`` are the chunks of the image. Unless a block is wished, no more than ``sections_at_once`` sections are
    in one: deeper blocks would have every section decoded again for each block beside another.

    Raises
    ------
    UserError
        When the block is larger than the chunks and no multiple of them.
    """
    wished = list(DEFAULT_CHUNKS if planes == XY else CUBE_CHUNKS)
    if source is not None and 8 <= source[0] <= 64:
        wished[0] = source[0]
    if block is None and planes == XY and sections_at_once is not None and sections_at_once < wished[0]:
        # The thinner, the wider: as many files as otherwise.
        wider = max(1, math.isqrt(DEFAULT_CHUNKS[0] // sections_at_once))
        wished = [sections_at_once, wider * wished[1], wider * wished[2]]
    wished = [min(chunk, size) for chunk, size in zip(wished, shape, strict=True)]
    for axis, size in enumerate(block or ()):
        if size <= wished[axis]:
            wished[axis] = size
        elif size % wished[axis] and size < shape[axis]:
            raise UserError(
                f"a block of {size} along {'zyx'[axis]} is not a multiple of the output's chunks of {wished[axis]}; "
                f"take {round_up(size, wished[axis])}, or {wished[axis]} or less"
            )
    return wished[0], wished[1], wished[2]


def choose_block(
    shape: Shape, chunks: Shape, block: Shape | None, *, whole_sections: bool = False, largest: Shape | None = None
) -> Shape:
    """Block for a volume: as wished, or as large as bounded memory allows, in whole chunks.

    ``whole_sections`` is for networks whose result needs the whole section at once. ``largest`` is the largest block
    of several planes (`largest_cube`); in one plane it is one layer of chunks.
    """
    if block is not None:
        wished = block
    else:
        sides = largest or (chunks[0], MAX_SIDE, MAX_SIDE)
        z, y, x = (-(-size // -(-size // side)) for size, side in zip(shape, sides, strict=True))  # equal parts
        wished = (z if largest else chunks[0], y, x)
    if whole_sections:
        wished = (shape[0] if largest else wished[0], shape[1], shape[2])
    z, y, x = (round_up(min(size, limit), chunk) for size, limit, chunk in zip(wished, shape, chunks, strict=True))
    return z, y, x


def largest_cube(classes: int) -> Shape:
    """Largest block of three planes: its sums of probabilities, a float for each class, take no more than half a GB."""
    return (
        max(CUBE_CHUNKS[1], 2 * CUBE_SIDE // max(classes, 2) // CUBE_CHUNKS[0] * CUBE_CHUNKS[0]),
        CUBE_SIDE,
        CUBE_SIDE,
    )
