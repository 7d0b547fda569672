"""The size of a voxel, as a TIFF states it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_autosegnet.units import Placement, in_one_unit, positive, unit_name

if TYPE_CHECKING:
    import tifffile

_CENTIMETER = 3  # a unit of resolution


def stated_placement(file: tifffile.TiffFile) -> Placement:
    """Voxel size and unit as ImageJ, a Zeiss microscope (LSM) or a slide scanner states it; else (1, 1, 1).

    Plain resolution tags (dots per inch) are left aside: they are hardly ever the microscope's.
    """
    first = file.pages[0].aspage()
    sizes: list[float | None] = [None] * 3  # in micrometers
    if file.lsm_metadata is not None:
        sizes = [
            size and size * 1e6 for size in (positive(file.lsm_metadata.get(f"VoxelSize{axis}")) for axis in "ZYX")
        ]
    elif first.is_svs:
        sizes = [None, *[_aperio_pixel(first.description)] * 2]
    elif first.is_ndpi and int(first.resolutionunit) == _CENTIMETER:
        sizes = [None, *(positive(1e4 / each if each else None) for each in reversed(first.resolution))]
    else:
        return _imagej_placement(file)
    return in_one_unit(sizes, ["micrometer"] * 3)


def _aperio_pixel(description: str) -> float | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description)
    return None if found is None else positive(found[1])


def _imagej_placement(file: tifffile.TiffFile) -> Placement:
    about = file.imagej_metadata if file.is_imagej else None
    unit = str((about or {}).get("unit") or "pixel")
    if not about or unit_name(unit) is None:
        return in_one_unit([None] * 3, [unit] * 3)
    tags = file.pages[0].aspage().tags
    steps = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = tags[name].value if name in tags else (0, 1)
        steps.append(denominator / numerator if numerator and denominator else 1.0)
    spacing = about.get("spacing")
    depth = positive(abs(spacing) if isinstance(spacing, int | float) else None)
    units = [str(about.get(name) or unit) for name in ("zunit", "yunit")]
    return in_one_unit([depth, *steps], [*units, unit])
