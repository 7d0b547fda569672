"""Random patches for training, cut from images that stay on the device.

A training patch is cut from one region of the split and shows nothing beyond it: image pixels outside
are reflections of the inside, targets outside are `IGNORE`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.data.augmentation import (
    canvas_size,
    change_gray_values,
    is_exact,
    to_device,
    turn,
    warp,
    warp_grid,
)
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.loaded_regions import DENSE_FRACTION, LoadedRegion, LoadedSections
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Region, equal_parts
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import AugmentationSettings

#: Target of pixels that are not annotated; losses and metrics leave them out.
IGNORE = -1

#: A network labels windows of at most so many times a patch's side.
WINDOW = 4

#: A class of a smaller fraction than this is looked for on purpose.
RARE_FRACTION = 0.1

#: Makes class numbers (side, side) uint8, 0 where it is not sure, of windows (1, c, side, side) that it asks for.
Labeler = Callable[[Sequence[Callable[[], Tensor]]], Sequence[Tensor]]


class PatchSource:
    """Random training patches, the images resident on the device.

    Regions are drawn by their annotated area. Where annotation is sparse or a class is rare, half of
    the patches are centered near a random pixel of an evenly drawn class.

    Parameters
    ----------
    stacks, regions : sequence
        As from `split_stacks`; ``regions`` is one of its parts.
    normalization : Normalization
    size : int
        Side of the square patches.
    context : int
        Sections above and below that are given as channels.
    augmentation : AugmentationSettings or None
        None: plain crops.
    device : torch.device or str
    taught : sequence of ndarray, optional
        What a teacher says of each region, ``(y, x)``: 0 or a class number. Where nobody painted it becomes a target
        of K + the class index, and half of the patches are centered there.

    Attributes
    ----------
    class_frequencies : Tensor
        ``(K,)`` float32 on the CPU, fraction of each class in the annotated pixels of the regions.

    Raises
    ------
    UserError
        When nothing is annotated in the regions, or a float image holds NaN or infinity.
    """

    def __init__(
        self,
        stacks: Sequence[LabeledStack],
        regions: Sequence[Region],
        normalization: Normalization,
        *,
        size: int,
        context: int = 0,
        augmentation: AugmentationSettings | None,
        device: torch.device | str,
        taught: Sequence[npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        self.size = size
        self.context = context
        self.augmentation = augmentation
        self.device = torch.device(device)
        self._canvas = size if augmentation is None else canvas_size(size, augmentation)
        self._images = LoadedSections(stacks, regions, normalization, context, self.device)
        labels = [None] * len(regions) if taught is None else taught
        loaded = (LoadedRegion.load(region, self._images, own) for region, own in zip(regions, labels, strict=True))
        self.regions = [region for region in loaded if region.pixels.any()]
        if not self.regions:
            raise UserError("nothing is annotated in the training part; annotate at least two classes there")
        pixels = np.stack([region.pixels for region in self.regions]).astype(np.float64)
        frequencies = pixels.sum(0) / pixels.sum()
        self.class_frequencies = torch.from_numpy(frequencies.astype(np.float32))
        area = sum(region.area for region in self.regions)
        self._classes = np.flatnonzero(frequencies)
        is_sparse = pixels.sum() < DENSE_FRACTION * area
        self._seeks_classes = bool(is_sparse or (frequencies[self._classes] < RARE_FRACTION).any())
        self._by_annotation = np.cumsum(pixels.sum(1) / pixels.sum())
        self._by_class = np.cumsum(pixels / np.maximum(pixels.sum(0), 1), axis=0)
        self._by_taught = _cumulated_taught(self.regions)

    @property
    def channels(self) -> int:
        """Channels of a patch: those of the image times the sections shown."""
        return self._images.channels * (2 * self.context + 1)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw patches.

        Parameters
        ----------
        count : int
        generator : torch.Generator
            On the CPU. The only source of randomness: its state is all that must be kept to continue.

        Returns
        -------
        images : Tensor
            ``(n, c, size, size)`` float32, normalized and augmented, on the device.
        targets : Tensor
            ``(n, size, size)`` int64, class index 0..K-1, K..2K-1 where a teacher says so, or `IGNORE`.
        """
        settings = self.augmentation
        draws = torch.rand(count, 6, generator=generator, dtype=torch.float64).tolist()
        turns = torch.randint(16, (count,), generator=generator).tolist() if self._turns else [0] * count
        images, targets, constants = [], [], []
        for numbers, bits in zip(draws, turns, strict=True):
            region, top, left = self._place(numbers)
            image, target = region.crop(top, left, self._canvas)
            if bits:
                quarter = (bits & 3) if settings is not None and settings.rotation == "quarter" else 0
                flips = settings is not None and settings.flips
                image, target = (
                    turn(part, quarter, flips and bool(bits & 4), flips and bool(bits & 8)) for part in (image, target)
                )
            images.append(image)
            targets.append(target)
            constants.append(region.constants)
        batch = self._images.finish(to_device(torch.stack(images), self.device), constants)
        labels = to_device(torch.stack(targets), self.device)
        if settings is not None:
            if not is_exact(settings):
                grid = warp_grid(count, self.size, self._canvas, settings, generator, self.device)
                batch, labels = warp(batch, labels, grid)
            batch = change_gray_values(batch, settings, generator)
        return batch, labels.to(torch.int64).sub_(1)

    def taught_by(self, label: Labeler, *, most: int, seed: int) -> PatchSource:
        """The same images, with what a network says in place of what a teacher said before.

        Parameters
        ----------
        label : Labeler
        most : int
            Pixels that are labeled, about. Of more, tiles are drawn at random, and the others are not taught.
        seed : int
        """
        tiles = self._tiles(most, np.random.default_rng(seed))
        labels = label([partial(self._window, tile) for tile in tiles])
        taught = [torch.zeros_like(region.target) for region in self.regions]
        for tile, window in zip(tiles, labels, strict=True):
            taught[tile.region][tile.y, tile.x] = window[tile.inside]
        other = copy.copy(self)
        other.regions = [region.taught_by(own) for region, own in zip(self.regions, taught, strict=True)]
        other._by_taught = _cumulated_taught(other.regions)
        return other

    def _tiles(self, most: int, generator: np.random.Generator) -> list[_Tile]:
        """Parts of the regions that a network sees at once, in random order: all, or about so many pixels."""
        tiles = []
        for number, region in enumerate(self.regions):
            side = min(WINDOW, -(-max(region.shape) // self.size)) * self.size
            rows, columns = (_windows(length, side, self.size // 4) for length in region.shape)
            tiles += [_Tile(number, y, x, side, top, left) for (y, top), (x, left) in itertools.product(rows, columns)]
        chosen = []
        for index in generator.permutation(len(tiles)).tolist():
            if most <= 0:
                break
            chosen.append(tiles[index])
            most -= tiles[index].side ** 2
        return chosen

    def _window(self, tile: _Tile) -> Tensor:
        """Normalized pixels ``(1, c, y, x)`` of a tile and what lies around it."""
        region = self.regions[tile.region]
        window = to_device(region.crop_image(tile.top, tile.left, tile.side)[None], self.device)
        return self._images.finish(window, [region.constants])

    @property
    def _turns(self) -> bool:
        settings = self.augmentation
        return settings is not None and is_exact(settings) and (settings.flips or settings.rotation == "quarter")

    def _place(self, numbers: Sequence[float]) -> tuple[LoadedRegion, int, int]:
        """Where the canvas of one patch lies, by six numbers in [0, 1): region, first row, first column."""
        mode, which, where, along_y, along_x, class_number = numbers
        if self._seeks_classes and mode < 0.5:
            number = int(self._classes[int(class_number * len(self._classes))])
            region = self.regions[_draw(self._by_class[:, number], which)]
            center = region.place(number, where)
        elif self._by_taught[-1]:
            region = self.regions[_draw(self._by_taught, which)]
            assert region.taught is not None
            number = _draw(np.cumsum(region.taught), class_number)
            center = region.place(len(region.taught) + number, where)
        else:
            region = self.regions[_draw(self._by_annotation, which)]
            center = None
            if region.is_sparse:
                number = _draw(np.cumsum(region.pixels / region.pixels.sum()), class_number)
                center = region.place(number, where)
        tops = []
        for axis, along in enumerate((along_y, along_x)):
            length, side = region.shape[axis], self._canvas
            room = length - self.size
            if room <= 0:  # the region is smaller than a patch: it lies within it, anywhere
                middle = length / 2 + (along - 0.5) * -room
            elif center is None:
                middle = self.size / 2 + int(along * (room + 1))
            else:
                # The pixel lies anywhere in the middle half of the patch.
                middle = center[axis] + 0.5 + (along - 0.5) * self.size / 2
                middle = min(max(middle, self.size / 2), length - self.size / 2)
            tops.append(round(middle - side / 2))
        return region, tops[0], tops[1]


def _draw(cumulated: npt.NDArray[np.float64], number: float) -> int:
    """Index drawn by cumulated fractions (the last is 1, to rounding)."""
    index = int(np.searchsorted(cumulated, number * cumulated[-1], side="right"))
    return min(index, len(cumulated) - 1)


@dataclass(frozen=True)
class _Tile:
    """A part of a region, and the square window around it that a network sees; within the region, in pixels."""

    region: int
    y: slice
    x: slice
    side: int
    top: int
    left: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the tile lies in its window."""
        return (
            slice(self.y.start - self.top, self.y.stop - self.top),
            slice(self.x.start - self.left, self.x.stop - self.left),
        )


def _windows(length: int, side: int, margin: int) -> list[tuple[slice, int]]:
    """Equal parts of an axis, each with the start of a window that shows it with a margin where it is cut."""
    if length <= side:
        return [(slice(0, length), 0)]
    return [(part, part.start - margin) for part in equal_parts(0, length, side - 2 * margin)]


def _cumulated_taught(regions: Sequence[LoadedRegion]) -> npt.NDArray[np.float64]:
    """Pixels that a teacher labels, in each region and those before it."""
    return np.cumsum([0.0 if region.taught is None else float(region.taught.sum()) for region in regions])
