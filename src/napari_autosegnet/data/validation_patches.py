"""Fixed patches that cover the validation part, and the choice of some of them by their annotated pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.loaded_regions import LoadedRegion, LoadedSections
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Region
from napari_autosegnet.errors import UserError


class _Patch(NamedTuple):
    """A square of a region that may be chosen."""

    region: LoadedRegion
    top: int
    left: int
    target: Tensor  # (side, side), 0 where another patch counts
    pixels: npt.NDArray[np.int64]  # (K,)
    section: tuple[int, int]  # numbers of stack and section


def validation_patches(
    stacks: Sequence[LabeledStack],
    regions: Sequence[Region],
    normalization: Normalization,
    *,
    size: int,
    stride: int = 1,
    context: int = 0,
    limit: int | None,
    generator: torch.Generator,
    device: torch.device | str,
) -> tuple[Tensor, Tensor, int]:
    """Fixed patches without augmentation that cover the regions evenly.

    Regions of at most twice a patch's side are shown whole. Others are divided into equal fractions, each in the middle
    of a patch, so that an annotated pixel counts once and no patch counts as a narrow strip.

    Parameters
    ----------
    stacks, regions, normalization, context, device
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
        ``(n, c, side, side)`` float32, normalized, on the device.
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
    sections = LoadedSections(stacks, regions, normalization, context, torch.device("cpu"))
    classes = len(stacks[0].mapping.classes)
    side = _validation_side(regions, size, stride)
    patches: list[_Patch] = []
    for region in regions:
        loaded = LoadedRegion.load(region, sections)
        for top, rows in _tiles(loaded.shape[0], side):
            for left, columns in _tiles(loaded.shape[1], side):
                target = torch.zeros((side, side), dtype=torch.uint8)
                target[rows, columns] = loaded.crop_target(top, left, side)[rows, columns]
                pixels = np.bincount(target.numpy().ravel(), minlength=classes + 1)[1:]
                if pixels.any():
                    patches.append(_Patch(loaded, top, left, target, pixels, (region.stack, region.section)))
    if not patches:
        raise UserError("nothing is annotated in the validation part; annotate at least two classes there")
    if limit is not None:
        count = max(1, limit * size**2 // side**2)
        patches = [patches[index] for index in choose_patches(np.stack([p.pixels for p in patches]), count, generator)]
    images = torch.stack([patch.region.crop_image(patch.top, patch.left, side) for patch in patches])
    targets = torch.stack([patch.target for patch in patches]).to(torch.int64).sub_(1)
    finished = sections.finish(images.to(device), [patch.region.constants for patch in patches])
    return finished, targets.to(device), len({patch.section for patch in patches})


def _validation_side(regions: Sequence[Region], size: int, stride: int) -> int:
    """Side of a validation patch: that of the largest region if all are small, else that of a training patch."""
    longest = max(end - begin for region in regions for begin, end in (region.y, region.x))
    return -(-longest // stride) * stride if longest <= 2 * size else size


def _tiles(length: int, side: int) -> list[tuple[int, slice]]:
    """Starts of tiles that cover a length, and which of each one's pixels count there: an equal part, in its middle."""
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
