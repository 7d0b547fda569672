"""What was painted on a Labels layer, read from napari's history of it, and another ground laid beneath the strokes.

A history item is a list of atoms, the value of a paint event: either a box, a mask in it (or None: all of it), the
values before and the value painted, or pixel indices with the values before and after.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.widgets.layers.axes import full_resolution
from napari_autosegnet.widgets.layers.layer_arrays import read_section, section_index

if TYPE_CHECKING:
    from napari.layers import Labels


def painted_sections(item: Iterable[Any], leading: tuple[int, ...]) -> Iterator[int]:
    """Sections that a history item touches; ``leading`` is the shape of the Labels layer without y and x."""
    for atom in item:
        if not leading:
            yield 0
        elif hasattr(atom, "slice_key"):
            for place in itertools.product(*(range(key.start, key.stop) for key in atom.slice_key[: len(leading)])):
                yield int(np.ravel_multi_index(place, leading))
        else:
            places = tuple(np.asarray(axis) for axis in atom[0][: len(leading)])
            yield from np.unique(np.ravel_multi_index(places, leading)).tolist()


def before(layer: Labels, section: int, item: list[Any]) -> npt.NDArray[Any]:
    """A section (y, x) as it was before the last history item was painted."""
    state = np.array(read_section(layer, section))
    _undo(state, _Part(layer, section), item)
    return state


def lay_beneath(layer: Labels, section: int, old: npt.NDArray[Any], new: npt.NDArray[Any]) -> None:
    """Put another ground (y, x) in the place of the one that strokes were painted on.

    The strokes of the section stay, and each can be undone: what is then seen is the new ground.
    """
    part = _Part(layer, section)
    # napari has no public way to its history; without one, strokes would bring back the old ground when undone.
    items: list[list[Any]] = list(getattr(layer, "_undo_history", ()))
    ground = np.array(read_section(layer, section))
    for item in reversed(items):
        _undo(ground, part, item)
    # What differs without a stroke was painted longer ago than the history reaches.
    state = np.where(ground != old, ground, new).astype(ground.dtype)
    for item in items:
        for index, atom in enumerate(item):
            item[index] = _rebased(state, part, atom)
    redone = getattr(layer, "_redo_history", None)
    if redone:
        redone.clear()
    write_section(layer, section, state)


def write_section(layer: Labels, section: int, pixels: npt.NDArray[Any]) -> None:
    """Give a section of a layer other pixels, of which the history knows nothing."""
    array = full_resolution(layer)
    array[section_index(layer, section) or ...] = pixels


class _Part:
    """One section of a layer, and where in it an atom of its history lies."""

    def __init__(self, layer: Labels, section: int) -> None:
        self.place = section_index(layer, section)

    def box(self, atom: Any) -> tuple[Any, Any, Any] | None:
        """Rows and columns of an atom of the first kind, its mask there, and which of its old values are meant."""
        key, mask = atom.slice_key, atom.mask
        leading, inner = key[: len(self.place)], key[len(self.place) :]
        if not all(span.start <= place < span.stop for span, place in zip(leading, self.place, strict=True)):
            return None
        inside = tuple(place - span.start for span, place in zip(leading, self.place, strict=True))
        if not inside:
            return key, mask, slice(None)
        if mask is None:
            return inner, None, inside
        number = int(np.ravel_multi_index(inside, mask.shape[: len(inside)]))
        flat = mask.reshape(-1, *mask.shape[len(inside) :])
        first = int(np.count_nonzero(flat[:number]))
        return inner, mask[inside], slice(first, first + int(np.count_nonzero(mask[inside])))

    def pixels(self, atom: Any) -> tuple[tuple[Any, ...], Any]:
        """Rows and columns of an atom of the second kind, and which of its pixels they are."""
        indices = [np.asarray(axis) for axis in atom[0]]
        here = np.ones(indices[-1].shape, bool)
        for axis, place in zip(indices, self.place, strict=False):
            here &= axis == place
        return (indices[-2][here], indices[-1][here]), here


def _undo(state: npt.NDArray[Any], part: _Part, item: list[Any]) -> None:
    for atom in reversed(item):
        if not hasattr(atom, "slice_key"):
            where, chosen = part.pixels(atom)
            state[where] = np.asarray(atom[1])[chosen]
        elif (box := part.box(atom)) is not None:
            key, mask, chosen = box
            region, old = state[key], atom.old_values[chosen]
            region[... if mask is None else mask] = old.reshape(region.shape) if mask is None else old


def _rebased(state: npt.NDArray[Any], part: _Part, atom: Any) -> Any:
    """The atom as it is when painted on the state, which has it then."""
    if not hasattr(atom, "slice_key"):
        where, chosen = part.pixels(atom)
        old = np.array(atom[1])
        old[chosen] = state[where]
        value = np.asarray(atom[2])
        state[where] = value[chosen] if value.ndim else value
        return (atom[0], old, atom[2])
    box = part.box(atom)
    if box is None:
        return atom
    key, mask, chosen = box
    region = state[key]
    old = np.array(atom.old_values)
    old[chosen] = (region if mask is None else region[mask]).reshape(old[chosen].shape)
    region[... if mask is None else mask] = atom.new_value
    return atom._replace(old_values=old)
