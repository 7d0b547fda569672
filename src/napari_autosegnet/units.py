"""Units of length, whatever a format calls them, and the size and place of a voxel in one of them.

Everything here bears the names of OME-Zarr ("nanometer"); OME-TIFF has symbols, ImageJ what somebody typed.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Triple = tuple[float, float, float]

#: Length in meters and symbol in OME-XML, by name.
_UNITS: dict[str, tuple[float, str]] = {
    "yoctometer": (1e-24, "ym"),
    "zeptometer": (1e-21, "zm"),
    "attometer": (1e-18, "am"),
    "femtometer": (1e-15, "fm"),
    "picometer": (1e-12, "pm"),
    "angstrom": (1e-10, "Å"),
    "nanometer": (1e-9, "nm"),
    "micrometer": (1e-6, "µm"),
    "millimeter": (1e-3, "mm"),
    "centimeter": (1e-2, "cm"),
    "inch": (2.54e-2, "in"),
    "decimeter": (1e-1, "dm"),
    "foot": (0.3048, "ft"),
    "yard": (0.9144, "yd"),
    "meter": (1.0, "m"),
    "hectometer": (1e2, "hm"),
    "kilometer": (1e3, "km"),
    "mile": (1609.344, "mi"),
    "megameter": (1e6, "Mm"),
    "gigameter": (1e9, "Gm"),
    "terameter": (1e12, "Tm"),
    "petameter": (1e15, "Pm"),
    "parsec": (3.0856775814913673e16, "pc"),
    "exameter": (1e18, "Em"),
    "zettameter": (1e21, "Zm"),
    "yottameter": (1e24, "Ym"),
}
_WORDS = {
    "um": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "ångström": "angstrom",
    "a": "angstrom",
    "inches": "inch",
    '"': "inch",
    "feet": "foot",
}
#: Of units that say nothing of a length.
_NO_LENGTHS = frozenset({"", "pixel", "pixels", "px", "voxel", "voxels", "reference frame", "unit", "none", "null"})


@dataclass(frozen=True)
class Placement:
    """Where the voxels of an image lie: size of one and middle of the first, ``(z, y, x)``, in `unit`.

    Attributes
    ----------
    unit : str or None
        As in OME-Zarr; None where nothing is known.
    notes : tuple of str
        What could not be taken as it was said; each fits behind the name of the file.
    """

    scale: Triple = (1.0, 1.0, 1.0)
    translation: Triple = (0.0, 0.0, 0.0)
    unit: str | None = None
    notes: tuple[str, ...] = ()


def unit_name(text: object) -> str | None:
    """Name of a unit of length in OME-Zarr; None for what is none, such as "pixel", or not known."""
    plain = unicodedata.normalize("NFKC", str(text or "")).strip()
    for known, (_, symbol) in _UNITS.items():
        if plain == unicodedata.normalize("NFKC", symbol):
            return known
    word = plain.casefold().replace("metre", "meter").replace("µ", "μ")
    if word in _UNITS:
        return word
    if word.removesuffix("s") in _UNITS:
        return word.removesuffix("s")
    return _WORDS.get(word) or _BY_FOLDED_SYMBOL.get(word)


def unit_symbol(unit: str | None) -> str:
    """Symbol in OME-XML and in messages; "pixel" where the unit is not known."""
    return _UNITS[unit][1] if unit in _UNITS else "pixel"


def triple(values: Sequence[float] | None, missing: float) -> Triple:
    """Numbers per axis as ``(z, y, x)``; what is not said is ``missing``."""
    known = [float(value) for value in values or ()][-3:]
    filled = [missing] * (3 - len(known)) + known
    return filled[0], filled[1], filled[2]


def positive(value: Any) -> float | None:
    """A size as a number; None for what is no size."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def in_one_unit(
    sizes: Sequence[float | None], units: Sequence[object], origin: Sequence[float] = (0.0, 0.0, 0.0)
) -> Placement:
    """Sizes and places that come each with a unit of its own, ``(z, y, x)``, in the unit of x.

    (1, 1, 1) where x and y are unknown. A size that is missing, 0 or no number, or whose unit says nothing of its
    length beside that of x ("pixel"), is taken to be that of x: a voxel that is too cubic misleads less than one that
    is flat by a factor of thousands.
    """
    notes: list[str] = []
    for axis, size in zip("zyx", sizes, strict=True):
        if size is not None and (size == 0 or not math.isfinite(size)):
            notes.append(f"the size of a voxel in {axis} is given as {size:g}, which is taken as not known")
        elif size is not None and size < 0:
            notes.append(f"the size of a voxel in {axis} is negative ({size:g}): programs differ in how they show that")
    notes += [
        f"the position in {axis} is given as {place:g}, which is taken as 0"
        for axis, place in zip("zyx", origin, strict=True)
        if not math.isfinite(place)
    ]
    known = [size if size is not None and size != 0 and math.isfinite(size) else None for size in sizes]
    names = [unit_name(unit) for unit in units]
    strange = {
        str(u) for u, n in zip(units, names, strict=True) if n is None and str(u or "").lower() not in _NO_LENGTHS
    }
    notes += [f"the unit '{unit}' is not known and left out" for unit in sorted(strange)]
    leading = next((axis for axis in (2, 1) if known[axis] is not None), None)
    if leading is None:
        return Placement(notes=tuple(notes))
    unit = names[leading]
    factors = [length_factor(name, unit) for name in names]
    usual = abs(known[leading] or 1.0)
    notes += [
        f"the size of a voxel in {axis} ({size:g} {name or 'without a unit'}) cannot be compared with that in "
        f"{'zyx'[leading]} ({unit or 'without a unit'}) and is taken to be the same"
        for axis, size, name, factor in zip("zyx", known, names, factors, strict=True)
        if size is not None and factor is None and not strange
    ]
    z, y, x = (
        usual if size is None or factor is None else size * factor for size, factor in zip(known, factors, strict=True)
    )
    places = [
        place * factor if factor is not None and math.isfinite(place) else 0.0
        for place, factor in zip(origin, factors, strict=True)
    ]
    return Placement((z, y, x), (places[0], places[1], places[2]), unit, tuple(notes))


def length_factor(unit: str | None, wanted: str | None) -> float | None:
    """What turns lengths in a unit into another one; None where one of them is not known."""
    if unit == wanted:
        return 1.0
    if unit is None or wanted is None:
        return None
    # Powers of ten are exact as such, not as quotients of small numbers.
    factor = _UNITS[unit][0] / _UNITS[wanted][0]
    power = round(math.log10(factor))
    return 10.0**power if math.isclose(factor, 10.0**power, rel_tol=1e-9) else factor


#: Symbols in another case, where that is not ambiguous: "NM", but not "MM".
_BY_FOLDED_SYMBOL = {
    symbol.casefold().replace("µ", "μ"): name
    for name, (_, symbol) in _UNITS.items()
    if sum(symbol.casefold() == other.casefold() for _, other in _UNITS.values()) == 1
}
