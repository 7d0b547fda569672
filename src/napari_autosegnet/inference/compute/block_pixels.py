"""Pixels of a block on their way to the device, and what comes back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.data.normalization import LIMIT, Constants, is_exact_in_float32, normalized
from napari_autosegnet.inference.blocks import Shape, round_up, turned
from napari_autosegnet.inference.compute.faint import FaintRun

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class BlockInput:
    """What was read for a block.

    Attributes
    ----------
    pixels : (c, z, y, x)
        The block's surroundings (`BlockPlan.surroundings`), as they are in the image, padded to the domain.
    origin : (z, y, x)
        Where ``pixels`` begin.
    wanted : (z, y, x) bool, optional
        Voxels of the block inside the mask; None: all.
    missing : (z, y, x) bool, optional
        Voxels of the block, inside the mask, for which the image has no number; None: no such voxel.
    blank : (z,) bool, optional
        Sections of the block that show nothing: the whole section has one gray value. None: no such section.
    constants : Constants, optional
        What the sections of ``pixels`` are normalized by; the model's own mean and deviation by default.
    faint : sequence of FaintRun
        Sections that show next to nothing here.
    """

    pixels: Array
    origin: tuple[int, int, int]
    wanted: npt.NDArray[np.bool_] | None = None
    missing: npt.NDArray[np.bool_] | None = None
    blank: npt.NDArray[np.bool_] | None = None
    constants: Constants | None = None
    faint: tuple[FaintRun, ...] = ()

    def asked(self, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_] | None:
        """Voxels of the block of a shape (z, y, x) that get a label; None: all."""
        asked: npt.NDArray[np.bool_] | None = self.wanted
        if self.missing is not None:
            asked = ~self.missing if asked is None else asked & ~self.missing
        if self.blank is not None:
            shown = np.broadcast_to(~self.blank[:, np.newaxis, np.newaxis], shape)
            asked = shown if asked is None else asked & shown
        return asked

    def turned(self, axes: Shape, asked: npt.NDArray[np.bool_] | None) -> BlockInput:
        """The same with its axes in another order; ``asked`` is what `asked` said."""
        return replace(
            self,
            pixels=self.pixels.transpose(0, *(1 + axis for axis in axes)),
            origin=turned(self.origin, axes),
            wanted=None if asked is None else asked.transpose(axes),
            missing=None,
            blank=None,
        )


class BlockPixels:
    """A block's pixels on the device, and how its sections are normalized."""

    def __init__(self, data: BlockInput, constants: Constants, device: torch.device) -> None:
        self._constants = constants
        self._is_float = data.pixels.dtype.kind == "f"
        columns = [values.T[:, :, np.newaxis, np.newaxis] for values in (constants.mean, constants.std)]
        # What 32 bits cannot hold is normalized before it is sent.
        self._is_done = not is_exact_in_float32(data.pixels.dtype)
        pixels = _transferable(normalized(data.pixels, *columns) if self._is_done else data.pixels)
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        self._pixels = pixels.to(device, non_blocking=True).transpose(0, 1)  # (z, c, y, x)
        self._mean, self._std = (
            torch.from_numpy(values.astype(np.float32))[:, :, None, None].to(device)
            for values in (constants.mean, constants.std)
        )
        self._across = True  # z is the axis across the sections, not their rows

    def turned(self, axes: Shape) -> BlockPixels:
        """The same pixels with their axes in another order; each keeps what its section in xy is normalized by."""
        place = (0, 2, 3)
        order = (place[axes[0]], 1, place[axes[1]], place[axes[2]])
        pixels = copy.copy(self)
        pixels._pixels, pixels._mean, pixels._std = (
            values.permute(order) for values in (self._pixels, self._mean, self._std)
        )
        pixels._across = axes[0] == 0
        return pixels

    def window(self, sections: Sequence[int], place: tuple[slice, ...]) -> Tensor:
        """Normalized pixels (c, y, x) of some sections, whose channels follow each other.

        Pixels that are NaN or infinite count as the mean, so that they say nothing about their surroundings.
        """
        chosen = list(sections)
        here = self._pixels[(slice(None), slice(None), *place)][chosen]
        if not self._is_done:
            mean, std = (
                values[chosen] if self._across else values[:, :, place[0]] for values in (self._mean, self._std)
            )
            values = here.to(torch.float32).sub(mean).div_(std).clamp_(-LIMIT, LIMIT)
            here = values.masked_fill_(~here.isfinite(), 0) if self._is_float else values
        return here.flatten(0, 1)

    def key(self, sections: Sequence[int], place: tuple[slice, ...]) -> bytes:
        """Equal where windows of some sections are normalized alike."""
        rows = range(place[0].start, place[0].stop)
        return self._constants.of(sections if self._across else rows).key


@dataclass(frozen=True)
class BlockResult:
    """Labels of a block, (z, y, x) uint8, and probabilities (K, z, y, x) uint8 if asked for.

    Both are 0 outside the mask, and where the image has no number.

    ``computed`` is the number of tiles that the network was run on; 0 means that the block was skipped. ``blank``
    are the sections that show nothing, by their number in the volume; ``faint`` show next to nothing here.
    """

    labels: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.uint8] | None
    computed: int
    blank: tuple[int, ...] = ()
    faint: tuple[FaintRun, ...] = ()


def pad_to_domain(array: Array, stride: int) -> Array:
    """Repeat the last row and column of (..., y, x) up to a multiple of ``stride``."""
    height, width = array.shape[-2:]
    missing = (round_up(height, stride) - height, round_up(width, stride) - width)
    return pad_after(array, missing)


def pad_after(array: Array, missing: Sequence[int]) -> Array:
    """Repeat the last row, column and so on of the last axes as often as ``missing`` says of each."""
    if not any(missing):
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - len(missing)) + [(0, more) for more in missing], mode="edge")


def _transferable(array: Array) -> Tensor:
    """Tensor of pixels in a type that the device can take; 8 and 16 bit integers travel as they are."""
    if array.dtype not in (np.uint8, np.int8, np.int16, np.float32, np.float16):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    # A copy where the file is mapped into memory: torch has no read-only tensors.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
