"""Corrections whose result was closed or is written anew: they wait with their image for the next result of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.widgets.layers.class_colors import LabelClass, kept_classes
from napari_autosegnet.widgets.layers.layer_arrays import pixel_indices, spatial_shape
from napari_autosegnet.widgets.layers.notes import note, notes

if TYPE_CHECKING:
    from napari.layers import Image, Labels

_KEY = "corrections"


@dataclass(frozen=True, eq=False)
class Patch:
    """Painted pixels of one section: rows, columns and values, one each; and what the values mean."""

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    values: npt.NDArray[Any]
    classes: tuple[LabelClass, ...]

    def of_classes(self, names: set[str]) -> tuple[Patch, Patch]:
        """The pixels of the classes of these names, and the others."""
        wanted = np.isin(self.values, [each.value for each in self.classes if each.name in names])
        return self._part(wanted), self._part(~wanted)

    def with_values_of(self, classes: tuple[LabelClass, ...]) -> npt.NDArray[np.int64]:
        """Values that the pixels have where the classes of these names are numbered otherwise; all must be there."""
        there = {each.name: each.value for each in classes}
        values = np.zeros(len(self.values), np.int64)
        for each in self.classes:
            if each.name in there:
                values[self.values == each.value] = there[each.name]
        return values

    def _part(self, chosen: npt.NDArray[np.bool_]) -> Patch:
        return Patch(self.rows[chosen], self.columns[chosen], self.values[chosen], self.classes)


def kept(image: Image) -> dict[int, list[Patch]]:
    """Patches by section, the older first; they lie in the layer, and last as long as it does."""
    patches: dict[int, list[Patch]] = notes(image).get(_KEY, {})
    return patches


def keep(image: Image, section: int, patch: Patch) -> None:
    """Keep what of a patch has a class until a result takes it."""
    fitting, _ = patch.of_classes({each.name for each in patch.classes})
    if not len(fitting.values):
        return
    if _KEY not in notes(image):
        note(image, **{_KEY: {}})
    kept(image).setdefault(section, []).append(fitting)


def forget(image: Image) -> None:
    """Forget all patches of an image."""
    kept(image).clear()


def kept_pixels(image: Image) -> int:
    """Pixels that are kept, each counted once."""
    width = spatial_shape(image)[-1]
    return sum(
        len(np.unique(np.concatenate([patch.rows * width + patch.columns for patch in patches])))
        for patches in kept(image).values()
    )


def put_back(image: Image, layer: Labels, sections: set[int] | None = None) -> None:
    """Paint what is kept on a result of the image, where it has the classes; one step to undo for each patch.

    ``sections`` names those that the result was made of just now; all by default.
    """
    classes = kept_classes(layer)
    names = {each.name for each in classes}
    waiting = kept(image)
    for section in sorted(waiting.keys() if sections is None else waiting.keys() & sections):
        remaining = []
        for patch in waiting.pop(section):
            fitting, other = patch.of_classes(names)
            if len(fitting.values):
                where = pixel_indices(layer, section, fitting.rows, fitting.columns)
                layer.data_setitem(where, fitting.with_values_of(classes).astype(layer.data.dtype))
            if len(other.values):
                remaining.append(other)
        if remaining:
            waiting[section] = remaining
