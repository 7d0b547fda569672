"""Volumes whose sections lie farther apart than pixels, written as cubes: sections between theirs are interpolated."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.data.stack import ImageStack

#: Sides of pixels, and sections and pixels, that differ by less than this factor need no other sections.
_ALIKE = 1.01
#: Sections farther apart, in pixels, show too little of what lies between them (docs/how-to/volumes.md).
FARTHEST = 4.0


class Cubes:
    """Sections of a volume with cubic voxels, read from one whose sections lie farther apart.

    Parameters
    ----------
    image : ImageStack
        Two sections at least.
    factor : float, optional
        Pixels between two sections; by default, what the image says of its voxels.

    Attributes
    ----------
    shape : (z, y, x)
    placement : Placement
        Where the first section of both lies.

    Raises
    ------
    UserError
        When the image does not say how far its sections are apart, or they are as close as pixels already.
    """

    def __init__(self, image: ImageStack, factor: float | None = None) -> None:
        what = image.path or image.name
        z, y, x = (abs(side) for side in image.scale)
        if image.sections < 2:
            raise UserError(f"{what} is one section; cubes need a volume")
        if factor is None:
            if image.voxels_are_unknown:
                raise UserError(f"{what} says nothing of its voxels; give --factor, the pixels between two sections")
            if min(z, y, x) <= 0 or max(x, y) > _ALIKE * min(x, y):
                raise UserError(f"the pixels of {what} are no squares ({y:g} x {x:g}); only sections are added")
            factor = z / x
        if math.isnan(factor):
            raise UserError("the factor is no number; give the pixels between two sections")
        if factor < _ALIKE:
            raise UserError(f"the sections of {what} are as close as its pixels already; nothing is to be added")
        if factor > FARTHEST:
            raise UserError(
                f"the sections of {what} are {factor:g} pixels apart, and at most {FARTHEST:g} are bridged; segment it "
                "in one plane"
            )
        self._image = image
        self._step = 1 / factor
        sections = math.floor((image.sections - 1) * factor + 1e-6) + 1
        self.shape = (sections, *image.shape[1:])
        side = math.copysign(x, image.scale[0])
        self.placement = Placement((side, *image.scale[1:]), image.translation, image.unit)
        self._kept: dict[int, npt.NDArray[Any]] = {}

    def section(self, number: int) -> npt.NDArray[Any]:
        """A section (c, y, x); memory is needed for the two of the image beside it."""
        place = number * self._step
        below = min(math.floor(place + 1e-6), self._image.sections - 1)
        share = max(0.0, place - below)
        one = self._read(below)
        if share < 1e-6:
            return one
        between = (1 - share) * one + share * self._read(below + 1)
        dtype = self._image.dtype
        return np.rint(between).astype(dtype) if dtype.kind in "ui" else between.astype(dtype)

    def _read(self, number: int) -> npt.NDArray[Any]:
        if number not in self._kept:
            self._kept = {each: pixels for each, pixels in self._kept.items() if each >= number - 1}
            self._kept[number] = self._image.section(number)
        return self._kept[number]


def write_cubes(image: ImageStack, out: Path, factor: float | None = None) -> Cubes:
    """Write a volume as OME-Zarr of cubic voxels; memory is set by a section.

    Raises
    ------
    UserError
        As `Cubes`; also when something is at ``out``, or it is not called ``.zarr``.
    """
    if out.suffix != ".zarr":
        raise UserError(f"{out} must end in .zarr")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; choose another name")
    cubes = Cubes(image, factor)
    several = image.channels if image.channels > 1 else None
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        write_image(
            partial,
            cubes.shape,
            image.dtype,
            cubes.section if several else lambda number: cubes.section(number)[0],
            placement=cubes.placement,
            channels=several,
        )
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return cubes
