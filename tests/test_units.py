"""Units of length, whatever a format calls them, and sizes in one of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_autosegnet.units import in_one_unit, unit_name, unit_symbol


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nm", "nanometer"),
        ("NM", "nanometer"),
        ("nanometre", "nanometer"),
        ("Nanometers", "nanometer"),
        ("um", "micrometer"),
        ("\u00b5m", "micrometer"),
        ("\u03bcm", "micrometer"),
        ("\\u00B5m", "micrometer"),
        ("micron", "micrometer"),
        ("Å", "angstrom"),
        ("\u212b", "angstrom"),
        ("Angstroms", "angstrom"),
        ("inch", "inch"),
        ("in", "inch"),
        ("mm", "millimeter"),
        ("Mm", "megameter"),
        ("m", "meter"),
        ("pixel", None),
        ("reference frame", None),
        ("", None),
        (None, None),
        ("banana", None),
        ("s", None),
    ],
)
def test_names_and_symbols(text: str | None, name: str | None) -> None:
    assert unit_name(text) == name
    if name is not None:
        assert unit_name(name) == unit_name(unit_symbol(name)) == name


def test_a_size_in_another_unit_is_converted() -> None:
    found = in_one_unit([0.05, 4.0, 4.0], ["micrometer", "nanometer", "nm"], [0.1, 8.0, 0.0])
    assert (found.scale, found.translation, found.unit, found.notes) == ((50, 4, 4), (100, 8, 0), "nanometer", ())
    assert in_one_unit([1.0, 1.0, 1.0], ["inch", "mm", "mm"]).scale == pytest.approx((25.4, 1, 1))


def test_a_position_that_is_no_number_is_told() -> None:
    found = in_one_unit((1, 1, 1), ("nm", "nm", "nm"), (0, math.nan, 5))
    assert found.translation == (0, 0, 5) and found.notes == ("the position in y is given as nan, which is taken as 0",)


def test_what_is_not_known_is_told() -> None:
    found = in_one_unit([2.0, 3.0, 4.0], ["banana", "nm", "nm"])
    assert (found.scale, found.unit) == ((4, 3, 4), "nanometer")
    assert found.notes == ("the unit 'banana' is not known and left out",)
    for size in (0.0, math.nan, math.inf):
        found = in_one_unit([size, 4.0, 4.0], ["nm"] * 3)
        assert found.scale == (4, 4, 4) and "in z is given as" in found.notes[0]
    found = in_one_unit([-50.0, 4.0, 4.0], ["nm"] * 3)
    assert found.scale == (-50, 4, 4) and "in z is negative (-50)" in found.notes[0]
    assert in_one_unit([5.0, None, None], ["nm"] * 3).scale == (1, 1, 1)
    found = in_one_unit([50.0, 4.0, 4.0], ["nm", "pixel", "pixel"])
    assert (found.scale, found.unit) == ((4, 4, 4), None)
    assert found.notes == (
        "the size of a voxel in z (50 nanometer) cannot be compared with that in x (without a unit) and is taken to be "
        "the same",
    )


_NAMES = st.sampled_from(["picometer", "angstrom", "nanometer", "micrometer", "millimeter", "meter", "inch", "foot"])


@given(size=st.floats(1e-3, 1e6), one=_NAMES, other=_NAMES)
def test_there_and_back(size: float, one: str, other: str) -> None:
    there = in_one_unit([size, 1.0, 1.0], [one, other, other]).scale[0]
    assert in_one_unit([there, 1.0, 1.0], [other, one, one]).scale[0] == pytest.approx(size, rel=1e-12)
