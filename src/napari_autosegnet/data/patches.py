"""Patches for training and validation, cut from images that stay on the device.

A training patch is cut from one region of the split and shows nothing beyond it: image pixels outside
are reflections of the inside, targets outside are `IGNORE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.config import AugmentationSettings
from napari_autosegnet.data.annotations import LabelledStack
from napari_autosegnet.data.augmentation import canvas_size, change_grey_values, is_exact, sent, turn, warp, warp_grid
from napari_autosegnet.data.grey_values import section_grey
from napari_autosegnet.data.images import check_finite
from napari_autosegnet.data.normalisation import LIMIT, Constants, Normalisation
from napari_autosegnet.data.split import Region
from napari_autosegnet.errors import UserError

#: Target of pixels that are not annotated; losses and metrics leave them out.
IGNORE = -1

#: A class of a smaller share than this is looked for on purpose.
RARE_SHARE = 0.1
#: A region with a smaller annotated share than this is sparse: patches are placed by annotated pixels.
DENSE_SHARE = 0.5
#: Places remembered per region and class; patches are shifted at random around them anyway.
_PLACES_PER_CLASS = 2**12
#: Images may take this share of a GPU's free memory; beyond it they stay with the CPU.
_RESIDENT_SHARE = 0.3


class PatchSource:
    """Random training patches, the images resident on the device.

    Regions are drawn by their annotated area. Where annotation is sparse or a class is rare, half of
    the patches are centred near a random pixel of an evenly drawn class.

    Parameters
    ----------
    stacks, regions : sequence
        As from `split_stacks`; ``regions`` is one of its parts.
    normalisation : Normalisation
    size : int
        Side of the square patches.
    context : int
        Sections above and below that are given as channels.
    augmentation : AugmentationSettings or None
        None: plain crops.
    device : torch.device or str

    Attributes
    ----------
    class_frequencies : Tensor
        ``(K,)`` float32 on the CPU, share of each class in the annotated pixels of the regions.

    Raises
    ------
    UserError
        When nothing is annotated in the regions, or a float image holds NaN or infinity.
    """

    def __init__(
        self,
        stacks: Sequence[LabelledStack],
        regions: Sequence[Region],
        normalisation: Normalisation,
        *,
        size: int,
        context: int = 0,
        augmentation: AugmentationSettings | None,
        device: torch.device | str,
    ) -> None:
        self.size = size
        self.context = context
        self.augmentation = augmentation
        self.device = torch.device(device)
        self._canvas = size if augmentation is None else canvas_size(size, augmentation)
        self._images = _Sections(stacks, regions, normalisation, context, self.device)
        self._regions = [_LoadedRegion.load(stacks, region, self._images) for region in regions]
        self._regions = [region for region in self._regions if region.pixels.any()]
        if not self._regions:
            raise UserError("nothing is annotated in the training part; annotate at least two classes there")
        pixels = np.stack([region.pixels for region in self._regions]).astype(np.float64)
        self.class_frequencies = torch.from_numpy((pixels.sum(0) / pixels.sum()).astype(np.float32))
        areas = np.array([region.area for region in self._regions], dtype=np.float64)
        occurring = pixels.sum(0) > 0
        share = pixels.sum(0) / pixels.sum()
        self._seeks_classes = bool((share[occurring] < RARE_SHARE).any() or pixels.sum() < DENSE_SHARE * areas.sum())
        self._classes = np.flatnonzero(occurring)
        self._by_annotation = np.cumsum(pixels.sum(1) / pixels.sum())
        self._by_class = np.cumsum(pixels / np.maximum(pixels.sum(0), 1), axis=0)

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
            On the CPU. The only source of randomness: its state is all that must be kept to go on.

        Returns
        -------
        images : Tensor
            ``(n, c, size, size)`` float32, normalised and augmented, on the device.
        targets : Tensor
            ``(n, size, size)`` int64, class index 0..K-1 or `IGNORE`.
        """
        settings = self.augmentation
        draws = torch.rand(count, 6, generator=generator, dtype=torch.float64).tolist()
        turns = torch.randint(16, (count,), generator=generator).tolist() if self._turns else [0] * count
        images, targets, regions = [], [], []
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
            regions.append(region)
        batch = self._images.finish(sent(torch.stack(images), self.device), regions)
        labels = sent(torch.stack(targets), self.device)
        if settings is not None:
            if not is_exact(settings):
                grid = warp_grid(count, self.size, self._canvas, settings, generator, self.device)
                batch, labels = warp(batch, labels, grid)
            batch = change_grey_values(batch, settings, generator)
        return batch, labels.to(torch.int64).sub_(1)

    @property
    def _turns(self) -> bool:
        settings = self.augmentation
        return settings is not None and is_exact(settings) and (settings.flips or settings.rotation == "quarter")

    def _place(self, numbers: Sequence[float]) -> tuple[_LoadedRegion, int, int]:
        """Where the canvas of one patch lies, by six numbers in [0, 1): region, first row, first column."""
        mode, which, where, along_y, along_x, class_number = numbers
        if self._seeks_classes and mode < 0.5:
            number = int(self._classes[int(class_number * len(self._classes))])
            region = self._regions[_draw(self._by_class[:, number], which)]
            centre = region.place(number, where)
        else:
            region = self._regions[_draw(self._by_annotation, which)]
            centre = None
            if region.is_sparse:
                number = _draw(np.cumsum(region.pixels / region.pixels.sum()), class_number)
                centre = region.place(number, where)
        tops = []
        for axis, along in enumerate((along_y, along_x)):
            length, side = region.shape[axis], self._canvas
            room = length - self.size
            if room <= 0:  # the region is smaller than a patch: it lies within it, anywhere
                middle = length / 2 + (along - 0.5) * -room
            elif centre is None:
                middle = self.size / 2 + int(along * (room + 1))
            else:
                # The pixel lies anywhere in the middle half of the patch.
                middle = centre[axis] + 0.5 + (along - 0.5) * self.size / 2
                middle = min(max(middle, self.size / 2), length - self.size / 2)
            tops.append(round(middle - side / 2))
        return region, tops[0], tops[1]


def validation_patches(
    stacks: Sequence[LabelledStack],
    regions: Sequence[Region],
    normalisation: Normalisation,
    *,
    size: int,
    stride: int = 1,
    context: int = 0,
    limit: int | None,
    generator: torch.Generator,
    device: torch.device | str,
) -> tuple[Tensor, Tensor, int]:
    """Fixed patches without augmentation that cover the regions evenly.

    Regions of at most twice a patch's side are shown whole. Others are divided into equal shares, each in the middle
    of a patch, so that an annotated pixel counts once and no patch counts as a narrow strip.

    Parameters
    ----------
    stacks, regions, normalisation, context, device
        As for `PatchSource`.
    size : int
        Side of a training patch.
    stride : int
        The network takes sides that are a multiple of it.
    limit : int or None
        Most pixels, in training patches. Patches are then drawn by their annotated pixels, spread over all, and
        changed for others until every class that occurs is among them.
    generator : torch.Generator

    Returns
    -------
    images : Tensor
        ``(n, c, side, side)`` float32, normalised, on the device.
    targets : Tensor
        ``(n, side, side)`` int64.
    sections : int
        Sections that the patches are of.

    Raises
    ------
    UserError
        When nothing is annotated in the regions, or a float image holds NaN or infinity.
    """
    device = torch.device(device)
    sections = _Sections(stacks, regions, normalisation, context, torch.device("cpu"))
    classes = len(stacks[0].mapping.classes)
    side = _validation_side(regions, size, stride)
    places: list[tuple[_LoadedRegion, int, int]] = []
    targets: list[Tensor] = []
    pixels: list[npt.NDArray[np.int64]] = []
    origins: list[tuple[int, int]] = []
    for region in regions:
        loaded = _LoadedRegion.load(stacks, region, sections)
        for top, rows in _tiles(loaded.shape[0], side):
            for left, columns in _tiles(loaded.shape[1], side):
                target = torch.zeros((side, side), dtype=torch.uint8)
                target[rows, columns] = loaded.crop_target(top, left, side)[rows, columns]
                counts = np.bincount(target.numpy().ravel(), minlength=classes + 1)[1:]
                if counts.any():
                    places.append((loaded, top, left))
                    targets.append(target)
                    pixels.append(counts)
                    origins.append((region.stack, region.section))
    if not places:
        raise UserError("nothing is annotated in the validation part; annotate at least two classes there")
    chosen = list(range(len(places)))
    if limit is not None:
        chosen = choose_patches(np.stack(pixels), max(1, limit * size**2 // side**2), generator)
    images = torch.stack([places[i][0].crop_image(places[i][1], places[i][2], side) for i in chosen])
    labels = torch.stack([targets[i] for i in chosen]).to(torch.int64).sub_(1)
    finished = sections.finish(images.to(device), [places[i][0] for i in chosen])
    return finished, labels.to(device), len({origins[i] for i in chosen})


def _validation_side(regions: Sequence[Region], size: int, stride: int) -> int:
    """Side of a validation patch: that of the largest region if all are small, else that of a training patch."""
    longest = max(end - begin for region in regions for begin, end in (region.y, region.x))
    return -(-longest // stride) * stride if longest <= 2 * size else size


def _tiles(length: int, side: int) -> list[tuple[int, slice]]:
    """Starts of tiles that cover a length, and which of each one's pixels count there: equal shares, in its middle."""
    if length <= side:
        return [((length - side) // 2, slice(0, side))]
    count = -(-length // side)
    ends = [k * length // count for k in range(count + 1)]
    tiles = []
    for begin, end in pairwise(ends):
        start = min(max((begin + end - side) // 2, 0), length - side)
        tiles.append((start, slice(begin - start, end - start)))
    return tiles


def choose_patches(pixels: npt.NDArray[np.int64], limit: int, generator: torch.Generator) -> list[int]:
    """Choose patches by their annotated pixels, spread over a list of them.

    Then some are changed for others until every class is seen.

    Parameters
    ----------
    pixels : ndarray
        ``(n, K)`` annotated pixels of each patch and class; none is without any.
    limit : int
    generator : torch.Generator

    Returns
    -------
    list of int
        Indices, rising, each once; all of them if there are no more than ``limit``.
    """
    total = len(pixels)
    if limit >= total:
        return list(range(total))
    chosen = _draw_by_weight(pixels.sum(1), limit, float(torch.rand(1, generator=generator, dtype=torch.float64)))
    for number in np.argsort(pixels.sum(0)):  # rarest first
        if pixels[chosen, number].any() or not pixels[:, number].any():
            continue
        best = int(pixels[:, number].argmax())
        covered = (pixels[chosen] > 0).sum(0)
        # Give up a patch whose classes are all seen elsewhere too, the nearest in the list.
        spare = [k for k, index in enumerate(chosen) if not ((pixels[index] > 0) & (covered == 1)).any()]
        if spare:
            chosen[min(spare, key=lambda k: abs(chosen[k] - best))] = best
    return sorted(chosen)


def _draw_by_weight(weights: npt.NDArray[np.int64], count: int, offset: float) -> list[int]:
    """As many different indices, more often those of more weight, in equal steps of the summed weight.

    An index that outweighs a step is always among them (systematic sampling).
    """
    sure = np.zeros(len(weights), dtype=bool)
    while True:
        rest = np.where(sure, 0, weights)
        left = count - int(sure.sum())
        heavy = rest * left >= rest.sum() if left else np.zeros_like(sure)
        if not (heavy & ~sure).any():
            break
        sure |= heavy
    steps = (np.arange(left) + offset) / max(left, 1) * rest.sum()
    drawn = np.searchsorted(np.cumsum(rest), steps, side="right")
    return sorted([*np.flatnonzero(sure).tolist(), *drawn.tolist()])


def one_of_each(total: int, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """An index from each of equal stretches of ``0 .. total - 1``, at an offset in [0, 1) of each."""
    edges = np.arange(len(offsets) + 1) * total // len(offsets)
    found: npt.NDArray[np.int64] = edges[:-1] + (offsets * np.diff(edges)).astype(np.int64)
    return found


def _draw(cumulated: npt.NDArray[np.float64], number: float) -> int:
    """Index drawn by cumulated shares (the last is 1, to rounding)."""
    index = int(np.searchsorted(cumulated, number * cumulated[-1], side="right"))
    return min(index, len(cumulated) - 1)


class _Sections:
    """Images of all sections that regions show, as tensors; uint8 stays uint8 until a patch is cut."""

    def __init__(
        self,
        stacks: Sequence[LabelledStack],
        regions: Sequence[Region],
        normalisation: Normalisation,
        context: int,
        device: torch.device,
    ) -> None:
        self.context = context
        self.channels = len(normalisation.mean)
        self._sections: dict[tuple[int, int], Tensor] = {}
        self._constants: dict[tuple[int, int], Constants] = {}
        shown = {
            (region.stack, self._nearest(stacks[region.stack], region.section, offset))
            for region in regions
            for offset in range(-context, context + 1)
        }
        self._raw = all(stacks[index].image.dtype == np.uint8 for index, _ in shown)
        pixels = sum(int(np.prod(stacks[i].image.section_shape(s))) for i, s in shown) * self.channels
        self.device = _place(device, pixels * (1 if self._raw else 4))
        for index, section in sorted(shown):
            image = stacks[index].image
            found = image.section(section)
            check_finite(found, image, section)
            grey = section_grey(found) if normalisation.kind == "section" else None
            self._constants[index, section] = normalisation.constants([grey])
            # A copy where the file is mapped into memory: torch has no read-only tensors.
            values = np.require(found, requirements="W") if self._raw else normalisation.apply(found, grey)
            self._sections[index, section] = torch.from_numpy(values).to(self.device)

    def around(self, stacks: Sequence[LabelledStack], region: Region) -> list[Tensor]:
        """Pixels of a region in its section and those around it: views ``(c, y, x)``."""
        return [self._sections[place][:, slice(*region.y), slice(*region.x)] for place in self._places(stacks, region)]

    def constants(self, stacks: Sequence[LabelledStack], region: Region) -> Tensor:
        """Mean and deviation of the channels that `around` gives, ``(2, c, 1, 1)`` float32 on the CPU."""
        here = [self._constants[place] for place in self._places(stacks, region)]
        values = [np.concatenate([part.mean[0] for part in here]), np.concatenate([part.std[0] for part in here])]
        return torch.from_numpy(np.array(values, np.float32))[:, :, None, None]

    def finish(self, patches: Tensor, regions: Sequence[_LoadedRegion]) -> Tensor:
        """Normalised float32 of patches ``(n, c, y, x)`` as they were stored, each from one of ``regions``."""
        if not self._raw:
            return patches
        mean, std = sent(torch.stack([region.constants for region in regions], dim=1), patches.device)
        return patches.float().sub_(mean).div_(std).clamp_(-LIMIT, LIMIT)

    def _places(self, stacks: Sequence[LabelledStack], region: Region) -> list[tuple[int, int]]:
        """Stack and number of a region's section and of those around it."""
        return [
            (region.stack, self._nearest(stacks[region.stack], region.section, offset))
            for offset in range(-self.context, self.context + 1)
        ]

    def _nearest(self, stack: LabelledStack, section: int, offset: int) -> int:
        """The section at an offset; the stack's ends are repeated, and so is what differs in shape."""
        image = stack.image
        found = min(max(section + offset, 0), image.sections - 1)
        return found if image.section_shape(found) == image.section_shape(section) else section


def _place(device: torch.device, size: int) -> torch.device:
    """Where images of ``size`` bytes stay: the device, unless they would crowd out the network."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if size > _RESIDENT_SHARE * free:
            return torch.device("cpu")
    return device


@dataclass
class _LoadedRegion:
    """A region's pixels and targets; where in it a class is, is found out when it is asked for."""

    images: list[Tensor]  # (c, y, x) of each section shown, together the channels
    constants: Tensor  # (2, c, 1, 1): mean and deviation of these channels
    target: Tensor  # (y, x) uint8: 0 = not annotated, 1..K
    pixels: npt.NDArray[np.int64]  # (K,)
    _places: dict[int, npt.NDArray[np.int32]] = field(default_factory=dict)

    @classmethod
    def load(cls, stacks: Sequence[LabelledStack], region: Region, sections: _Sections) -> _LoadedRegion:
        stack = stacks[region.stack]
        target = np.ascontiguousarray(stack.target(region.section)[slice(*region.y), slice(*region.x)])
        classes = len(stack.mapping.classes)
        pixels = np.bincount(target.ravel(), minlength=classes + 1)[1:]
        return cls(
            sections.around(stacks, region),
            sections.constants(stacks, region),
            torch.from_numpy(target).to(sections.device),
            pixels,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.target.shape[0]), int(self.target.shape[1])

    @property
    def area(self) -> int:
        return self.target.numel()

    @property
    def is_sparse(self) -> bool:
        return bool(self.pixels.sum() < DENSE_SHARE * self.area)

    def place(self, number: int, where: float) -> tuple[int, int]:
        """Row and column of a pixel of class index ``number``, drawn by a number in [0, 1)."""
        places = self._places.get(number)
        if places is None:
            places = np.flatnonzero(self.target.cpu().numpy() == number + 1).astype(np.int32)
            if len(places) > _PLACES_PER_CLASS:
                # At random, as equal steps may hit the same few columns in every row.
                places = places[one_of_each(len(places), np.random.default_rng(0).random(_PLACES_PER_CLASS))]
            self._places[number] = places
        flat = int(places[int(where * len(places))])
        return divmod(flat, self.shape[1])

    def crop(self, top: int, left: int, side: int) -> tuple[Tensor, Tensor]:
        """Square at any place: images reflected beyond the region, targets 0 there."""
        return self.crop_image(top, left, side), self.crop_target(top, left, side)

    def crop_image(self, top: int, left: int, side: int) -> Tensor:
        height, width = self.shape
        if 0 <= top <= height - side and 0 <= left <= width - side:
            return _joined([image[:, top : top + side, left : left + side] for image in self.images])
        device = self.images[0].device
        rows, columns = (
            reflected(torch.arange(start, start + side, device=device), length)
            for start, length in ((top, height), (left, width))
        )
        return _joined([image.index_select(1, rows).index_select(2, columns) for image in self.images])

    def crop_target(self, top: int, left: int, side: int) -> Tensor:
        height, width = self.shape
        if 0 <= top <= height - side and 0 <= left <= width - side:
            return self.target[top : top + side, left : left + side]
        found = torch.zeros((side, side), dtype=torch.uint8, device=self.target.device)
        y0, y1 = max(top, 0), min(top + side, height)
        x0, x1 = max(left, 0), min(left + side, width)
        if y0 < y1 and x0 < x1:
            found[y0 - top : y1 - top, x0 - left : x1 - left] = self.target[y0:y1, x0:x1]
        return found


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def reflected(index: Tensor, length: int) -> Tensor:
    """Indices outside ``0 .. length - 1`` mirrored at the borders, as often as it takes."""
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    folded = index.abs() % period
    return torch.where(folded < length, folded, period - folded)
