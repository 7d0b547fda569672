"""Sizes of a voxel that come each with a unit of its own, in one unit."""

from __future__ import annotations

from collections.abc import Sequence

from napari_autosegnet.data.stack import Triple

#: Symbols and words for a unit: its name in OME-Zarr, and its length in picometres.
_UNITS = {
    "pm": ("picometer", 1.0),
    "å": ("angstrom", 1e2),
    "nm": ("nanometer", 1e3),
    "µm": ("micrometer", 1e6),
    "μm": ("micrometer", 1e6),
    "um": ("micrometer", 1e6),
    "\\u00b5m": ("micrometer", 1e6),
    "micron": ("micrometer", 1e6),
    "microns": ("micrometer", 1e6),
    "mm": ("millimeter", 1e9),
    "cm": ("centimeter", 1e10),
    "inch": ("inch", 2.54e10),
    "m": ("meter", 1e12),
}
#: The same by the names.
_LENGTHS = dict(_UNITS.values())


def voxel_size(sizes: Sequence[float | None], units: Sequence[str]) -> tuple[Triple, str | None]:
    """Size ``(z, y, x)`` in the unit of x, and that unit's name; (1, 1, 1) when x and y are unknown.

    A size that is missing, or whose unit says nothing of its length beside that of x ("pixel"), is taken to be
    that of x: a voxel that is too cubic misleads less than one that is flat by a factor of thousands.
    """
    names = [_UNITS.get(unit.lower(), (unit, 0.0))[0] for unit in units]
    known = next((axis for axis in (2, 1) if sizes[axis] is not None), None)
    if known is None:
        return (1.0, 1.0, 1.0), None
    unit = names[known]

    def converted(axis: int) -> float | None:
        size, length, wanted = sizes[axis], _LENGTHS.get(names[axis]), _LENGTHS.get(unit)
        if size is None or names[axis] == unit:
            return size
        return None if length is None or wanted is None else size * length / wanted

    usual = sizes[known] or 1.0
    z, y, x = (converted(axis) or usual for axis in range(3))
    return (z, y, x), unit
