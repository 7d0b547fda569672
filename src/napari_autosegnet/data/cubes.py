"""Volumes whose sections lie farther apart than pixels, written as cubes: sections between theirs are interpolated."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.identity import image_identity, same_identity
from napari_autosegnet.data.images import tell_notes
from napari_autosegnet.data.section_progress import SectionProgress
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.files import refuse_inside
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.ome_zarr.paths import zarrs_around
from napari_autosegnet.ome_zarr.write import own_attributes, write_image
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.data.stack import ImageStack

#: Longest side of a voxel over its shortest up to which the planes of a volume look alike: networks learn from patches
#: that are zoomed by 10 %.
ISOTROPIC = 1.25
#: Lengths that differ by less than this factor count as equal.
_EQUAL = 1.01
#: Sections farther apart, in pixels, show too little of what lies between them (docs/how-to/volumes.md).
FARTHEST = 4.0
#: Attribute in which a store says what its cubes were made of.
_MADE_OF = "cubes of"


def check_isotropic(image: ImageStack) -> None:
    """Refuse an image that does not look alike in all three planes.

    Raises
    ------
    UserError
        When it is one section, or the sides of its voxels differ by more than `ISOTROPIC`.
    """
    name = image.display_name
    if image.sections == 1:
        raise UserError(f"{name} is a single section, which has no other planes; leave out --planes all")
    if is_isotropic(image):
        return
    z, y, x = (abs(side) for side in image.scale)
    can_be = max(y, x) <= _EQUAL * min(y, x) and _EQUAL < z / x <= FARTHEST
    raise UserError(
        f"the voxels of {name} are {z:g} x {y:g} x {x:g}{f' {image.unit}' if image.unit else ''} (z, y, x), but three "
        f"planes need sides that differ by at most a factor of {ISOTROPIC:g}; "
        f"{'write cubes first (--cubes NAME.zarr), or ' if can_be else ''}leave out --planes all"
    )


def is_isotropic(image: ImageStack) -> bool:
    """Whether the voxels of a volume are cubes, or nearly so, or nothing is known of them."""
    sides = [abs(side) for side in image.scale]
    return min(sides) == 0 or max(sides) / min(sides) <= ISOTROPIC


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
    bytes : int
        Before they are compressed.
    placement : Placement
        Where the first section of both lies.

    Raises
    ------
    UserError
        When the image does not say how far its sections are apart, or they are as close as pixels already.
    """

    def __init__(self, image: ImageStack, factor: float | None = None) -> None:
        what = image.display_name
        z, y, x = (abs(side) for side in image.scale)
        if image.sections < 2:
            raise UserError(f"{what} is one section; cubes need a volume")
        if factor is None:
            if image.voxels_are_unknown:
                raise UserError(
                    f"{what} says nothing about the size of its voxels; give the distance between two sections in "
                    "pixels: resample --factor"
                )
            if min(z, y, x) <= 0 or max(x, y) > _EQUAL * min(x, y):
                raise UserError(
                    f"the pixels of {what} are not square ({y:g} x {x:g}), and only sections can be added; make them "
                    "square first"
                )
            factor = z / x
        if math.isnan(factor):
            raise UserError("the factor is not a number; give the distance between two sections in pixels")
        if factor < _EQUAL:
            raise UserError(f"the sections of {what} are already as close as its pixels; nothing needs to be added")
        if factor > FARTHEST:
            raise UserError(
                f"the sections of {what} are {factor:g} pixels apart, and at most {FARTHEST:g} can be bridged; segment "
                "it in one plane"
            )
        self._image = image
        self._step = 1 / factor
        sections = math.floor((image.sections - 1) * factor + 1e-6) + 1
        self.shape = (sections, *image.shape[1:])
        self.bytes = math.prod(self.shape) * image.channels * image.dtype.itemsize
        side = math.copysign(x, image.scale[0])
        self.placement = Placement((side, *image.scale[1:]), image.translation, image.unit)
        self._kept: dict[int, npt.NDArray[Any]] = {}

    def section(self, number: int) -> npt.NDArray[Any]:
        """A section (c, y, x); memory is needed for the two of the image beside it."""
        place = number * self._step
        below = min(math.floor(place + 1e-6), self._image.sections - 1)
        weight = max(0.0, place - below)
        section = self._read(below)
        if weight < 1e-6:
            return section
        between = (1 - weight) * section + weight * self._read(below + 1)
        dtype = self._image.dtype
        return np.rint(between).astype(dtype) if dtype.kind in "ui" else between.astype(dtype)

    def _read(self, number: int) -> npt.NDArray[Any]:
        if number not in self._kept:
            self._kept = {each: pixels for each, pixels in self._kept.items() if each >= number - 1}
            self._kept[number] = self._image.section(number)
        return self._kept[number]


def write_cubes(
    image: ImageStack,
    out: Path,
    factor: float | None = None,
    *,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Cubes:
    """Write a volume as OME-Zarr of cubic voxels; memory is set by a section.

    Parameters
    ----------
    report : Report
        Is told ``progress`` with the step ``cubes``.

    Raises
    ------
    UserError
        As `Cubes`; also when something is at ``out``, or it is not called ``.zarr``.
    StoppedError
        When a stop was asked for before all was written; nothing is left then.
    """
    if out.suffix != ".zarr":
        raise UserError(f"{out} must end in .zarr")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; choose another name")
    around = zarrs_around(out)
    if around:
        raise UserError(f"{out} lies in another Zarr, {around[0]}; choose another folder")
    refuse_inside(out, image.path)
    cubes = Cubes(image, factor)
    several = image.channels if image.channels > 1 else None
    progress = SectionProgress("cubes", cubes.shape[0], report)

    def section(number: int) -> npt.NDArray[Any]:
        if should_stop():
            raise StoppedError(f"stopped before {out} was written; nothing is left of it")
        progress.reach(number)
        pixels = cubes.section(number)
        return pixels if several else pixels[0]

    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        write_image(
            partial,
            cubes.shape,
            image.dtype,
            section,
            placement=cubes.placement,
            channels=several,
            own={_MADE_OF: image_identity(image)},
        )
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress.reach(cubes.shape[0])
    return cubes


def cubes_of(image: ImageStack, out: Path, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> Path:
    """Where the cubes of a volume lie: those that an earlier call wrote to ``out``, or new ones.

    Raises
    ------
    UserError, StoppedError
        As `write_cubes`; also when ``out`` is something else than the cubes of this volume.
    """
    tell_notes([image], report)
    if not out.exists():
        cubes = write_cubes(image, out, report=report, should_stop=should_stop)
        report(Note(text=f"{image.sections} sections became {cubes.shape[0]}: {out}"))
    elif not same_identity((own_attributes(out) or {}).get(_MADE_OF), image_identity(image)):
        raise UserError(
            f"{out} exists and does not hold the cubes of {image.display_name} as it is now; give another name"
        )
    return out
