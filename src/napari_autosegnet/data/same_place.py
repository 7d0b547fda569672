"""Whether two stacks of one shape show the same place, by what their metadata say."""

from __future__ import annotations

from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.units import length_factor, unit_symbol

#: How much sizes of a pixel may differ that two programs wrote.
_SIZE_TOLERANCE = 0.01
#: In pixels. Programs differ by half of one: its middle, or its corner.
MAX_SHIFT = 0.75


def check_same_place(image: ImageStack, other: ImageStack, what: str) -> None:
    """Refuse a stack of the image's shape that lies elsewhere or has pixels of another size, such as a shifted crop.

    What programs write when they do not know counts as not said: pixels of size 1 and, in the other stack, a place
    of 0. The distance of sections does not count either: many programs lose it.

    Parameters
    ----------
    what : str
        What the other one is, as in "its labels".

    Raises
    ------
    UserError
        When both say where they lie, and it is not the same place.
    """
    factor = length_factor(other.unit, image.unit)
    if factor is None or any(stack.scale[1:] == (1.0, 1.0) for stack in (image, other)):
        return
    sizes = [(abs(one), abs(two) * factor) for one, two in zip(image.scale[1:], other.scale[1:], strict=True)]
    if any(abs(one - two) > _SIZE_TOLERANCE * one for one, two in sizes):
        ours, theirs = (" x ".join(f"{size:g}" for size in side) for side in zip(*sizes, strict=True))
        unit = unit_symbol(image.unit) if image.unit else "units"
        raise UserError(
            f"a pixel of {image.display_name} is {ours} {unit} (y x x), "
            f"of {what} {other.display_name} {theirs} {unit}; "
            "give both at one resolution, or correct the scale that is wrong"
        )
    if other.translation == (0.0, 0.0, 0.0):
        return
    shift = [
        (place * factor - origin) / step
        for place, origin, step in zip(other.translation, image.translation, image.scale, strict=True)
    ]
    if max(map(abs, shift[image.is_2d or other.is_2d :])) > MAX_SHIFT:
        shown = ", ".join(f"{pixels:+.4g}" for pixels in shift)
        raise UserError(
            f"by their metadata {image.display_name} and {what} {other.display_name} are {shown} pixels (z, y, x) "
            "apart; give both of one place, or correct the translation that is wrong"
        )
