"""Sections and regions as tensors, from which patches are cut; they stay on the device where there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.data.augmentation import to_device
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.data.images import check_finite
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.normalization import LIMIT, Constants, Normalization
from napari_autosegnet.data.regions import Region

#: A region with a smaller annotated fraction than this is sparse: patches are placed by annotated pixels.
DENSE_FRACTION = 0.5
#: Places remembered per region and class; patches are shifted at random around them anyway.
PLACES_PER_CLASS = 2**12
#: Images may take this fraction of a GPU's free memory; beyond it they stay with the CPU.
RESIDENT_FRACTION = 0.3


class LoadedSections:
    """Images of all sections that regions show, as tensors; uint8 stays uint8 until a patch is cut."""

    def __init__(
        self,
        stacks: Sequence[LabeledStack],
        regions: Sequence[Region],
        normalization: Normalization,
        context: int,
        device: torch.device,
    ) -> None:
        self.stacks = stacks
        self.context = context
        self.channels = len(normalization.mean)
        self._sections: dict[tuple[int, int], Tensor] = {}
        self._constants: dict[tuple[int, int], Constants] = {}
        shown = {place for region in regions for place in self._places(region)}
        self._raw = all(stacks[index].image.dtype == np.uint8 for index, _ in shown)
        pixels = sum(int(np.prod(stacks[i].image.section_shape(s))) for i, s in shown) * self.channels
        self.device = _device_for(pixels * (1 if self._raw else 4), device)
        for index, section in sorted(shown):
            image = stacks[index].image
            section_pixels = image.section(section)
            check_finite(section_pixels, image, section)
            gray = section_gray(section_pixels) if normalization.kind == "section" else None
            self._constants[index, section] = normalization.constants([gray])
            # A copy where the file is mapped into memory: torch has no read-only tensors.
            values = (
                np.require(section_pixels, requirements="W") if self._raw else normalization.apply(section_pixels, gray)
            )
            self._sections[index, section] = torch.from_numpy(values).to(self.device)

    def around(self, region: Region) -> list[Tensor]:
        """Pixels of a region in its section and those around it: views ``(c, y, x)``."""
        return [self._sections[place][:, slice(*region.y), slice(*region.x)] for place in self._places(region)]

    def constants(self, region: Region) -> Tensor:
        """Mean and deviation of the channels that `around` gives, ``(2, c, 1, 1)`` float32 on the CPU."""
        here = [self._constants[place] for place in self._places(region)]
        values = [np.concatenate([part.mean[0] for part in here]), np.concatenate([part.std[0] for part in here])]
        return torch.from_numpy(np.array(values, np.float32))[:, :, None, None]

    def finish(self, patches: Tensor, constants: Sequence[Tensor]) -> Tensor:
        """Normalized float32 of patches ``(n, c, y, x)`` as they were stored, by the `constants` of each."""
        if not self._raw:
            return patches
        mean, std = to_device(torch.stack(list(constants), dim=1), patches.device)
        return patches.float().sub_(mean).div_(std).clamp_(-LIMIT, LIMIT)

    def _places(self, region: Region) -> list[tuple[int, int]]:
        """Stack and number of a region's section and of those around it.

        Beyond the stack's ends the last section counts again, and in place of one of another shape the region's own.
        """
        image = self.stacks[region.stack].image
        around = range(region.section - self.context, region.section + self.context + 1)
        nearest = [min(max(section, 0), image.sections - 1) for section in around]
        shape = image.section_shape(region.section)
        return [
            (region.stack, section if image.section_shape(section) == shape else region.section) for section in nearest
        ]


def _device_for(size: int, device: torch.device) -> torch.device:
    """Where images of ``size`` bytes stay: on the device, unless they would crowd out the network."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if size > RESIDENT_FRACTION * free:
            return torch.device("cpu")
    return device


@dataclass
class LoadedRegion:
    """A region's pixels and targets; the places of a class in it are looked up when they are needed."""

    images: list[Tensor]  # (c, y, x) of each section shown, together the channels
    constants: Tensor  # (2, c, 1, 1): mean and deviation of these channels
    target: Tensor  # (y, x) uint8: 0 = not annotated, 1..K; K+1..2K: what a teacher says
    pixels: npt.NDArray[np.int64]  # (K,)
    taught: npt.NDArray[np.int64] | None = None  # (K,) pixels that nobody painted, of class index K + k
    _places: dict[int, npt.NDArray[np.int32]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, region: Region, sections: LoadedSections, taught: npt.NDArray[np.uint8] | None = None
    ) -> LoadedRegion:
        stack = sections.stacks[region.stack]
        target = np.ascontiguousarray(stack.target(region.section)[slice(*region.y), slice(*region.x)])
        pixels = np.bincount(target.ravel(), minlength=len(stack.mapping.classes) + 1)[1:]
        loaded = cls(
            sections.around(region), sections.constants(region), torch.from_numpy(target).to(sections.device), pixels
        )
        return loaded if taught is None else loaded.taught_by(torch.from_numpy(taught))

    def taught_by(self, labels: Tensor) -> LoadedRegion:
        """The same pixels, with what a teacher says ``(y, x)`` in place of what one said before: 0 or 1..K."""
        classes = len(self.pixels)
        painted = torch.where(self.target > classes, 0, self.target)
        labels = labels.to(painted)
        target = torch.where((painted == 0) & (labels > 0), labels + classes, painted)
        counts = torch.bincount(target.flatten().int(), minlength=2 * classes + 1)[classes + 1 :]
        known = {number: places for number, places in list(self._places.items()) if number < classes}
        return replace(self, target=target, taught=counts.cpu().numpy(), _places=known)

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.target.shape[0]), int(self.target.shape[1])

    @property
    def area(self) -> int:
        return self.target.numel()

    @property
    def is_sparse(self) -> bool:
        return bool(self.pixels.sum() < DENSE_FRACTION * self.area)

    def place(self, number: int, where: float) -> tuple[int, int]:
        """Row and column of a pixel of class index ``number``, drawn by a number in [0, 1)."""
        places = self._places.get(number)
        if places is None:
            places = np.flatnonzero(self.target.cpu().numpy() == number + 1).astype(np.int32)
            if len(places) > PLACES_PER_CLASS:
                # At random, as equal steps may hit the same few columns in every row.
                places = places[one_of_each(len(places), np.random.default_rng(0).random(PLACES_PER_CLASS))]
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
        crop = torch.zeros((side, side), dtype=torch.uint8, device=self.target.device)
        y0, y1 = max(top, 0), min(top + side, height)
        x0, x1 = max(left, 0), min(left + side, width)
        if y0 < y1 and x0 < x1:
            crop[y0 - top : y1 - top, x0 - left : x1 - left] = self.target[y0:y1, x0:x1]
        return crop


def section_reader(
    stacks: Sequence[LabeledStack], place: tuple[int, int], normalization: Normalization, context: int
) -> Callable[[slice, slice], npt.NDArray[np.float32]]:
    """A function that reads normalized rows and columns ``(c, y, x)`` of a section, those around it as channels.

    ``place`` holds the stack's and the section's number. What is asked for is cut at the section's borders.
    """
    stack, section = place

    def region(rows: slice, columns: slice) -> Region:
        return Region(stack, section, (rows.start, rows.stop), (columns.start, columns.stop))

    whole = region(*(slice(0, length) for length in stacks[stack].image.section_shape(section)))
    sections = LoadedSections(stacks, [whole], normalization, context, torch.device("cpu"))

    def read(rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        window = region(rows, columns)
        pixels = _joined(sections.around(window))[None]
        finished: npt.NDArray[np.float32] = sections.finish(pixels, [sections.constants(window)])[0].numpy()
        return finished

    return read


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def reflected(index: Tensor, length: int) -> Tensor:
    """Indices outside ``0 .. length - 1`` mirrored at the borders, as often as it takes."""
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    folded = index.abs() % period
    return torch.where(folded < length, folded, period - folded)


def one_of_each(total: int, offsets: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """An index from each of equal stretches of ``0 .. total - 1``, at an offset in [0, 1) of each."""
    edges = np.arange(len(offsets) + 1) * total // len(offsets)
    chosen: npt.NDArray[np.int64] = edges[:-1] + (offsets * np.diff(edges)).astype(np.int64)
    return chosen
