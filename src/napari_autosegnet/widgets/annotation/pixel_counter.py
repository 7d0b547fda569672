"""Annotated pixels of Labels layers per section and value, counted in a thread of its own.

A layer is counted once as a whole; after that only the sections that were painted. What is known to be empty is
not counted at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal
from superqt.utils import qdebounced

from napari_autosegnet.data.numbered_objects import MAX_SEPARATE_CLASSES, are_single_pieces, values_touch
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.layers.layer_arrays import read_section, sections, spatial_shape
from napari_autosegnet.widgets.layers.paint_watch import PaintWatch

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

#: Beyond this many values a layer holds single objects, and is not counted on.
MAX_VALUES = 256
#: Pixels that are counted at once: numpy holds the interpreter for some milliseconds only.
_STRIP = 2**19
#: Milliseconds after the last stroke.
_DELAY = 200


@dataclass
class Counts:
    """Pixels by value: one number per section. ``complete`` once every section was counted."""

    sections: int
    by_value: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    complete: bool = False
    #: Sections whose values look like classes: they touch, and are few or in pieces. Once there is one, others are
    #: not looked at.
    classlike: set[int] = field(default_factory=set)

    @property
    def values(self) -> list[int]:
        """Values that occur, rising."""
        return sorted(value for value, pixels in self.by_value.items() if pixels.any())

    def of(self, value: int) -> npt.NDArray[np.int64]:
        counts = self.by_value.get(value)
        return np.zeros(self.sections, np.int64) if counts is None else counts

    def replace(self, section: int, pixels: dict[int, int], *, classlike: bool) -> None:
        self.classlike.discard(section)
        if classlike:
            self.classlike.add(section)
        for counted in self.by_value.values():
            counted[section] = 0
        for value, count in pixels.items():
            self.by_value.setdefault(value, np.zeros(self.sections, np.int64))[section] = count


class PixelCounter(QObject):
    """Counts the Labels layers that it is told to follow."""

    #: Some counts changed.
    counted = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # Of its own: a large layer takes minutes, and nothing else may wait for that.
        self._background = Background(self)
        self._watch = PaintWatch(viewer, self)
        self._watch.changed.connect(self._mark)
        self._watch.replaced.connect(self._count_all)
        self._empty: set[int] = set()
        self._counts: dict[int, Counts] = {}
        self._dirty: dict[int, set[int]] = {}
        self._waiting: set[int] = set()
        self._count_soon = qdebounced(self._count_dirty, timeout=_DELAY)

    def follow(self, layers: Sequence[Labels]) -> None:
        """Count these layers from now on, and no others."""
        new, left = self._watch.follow(layers)
        for layer in left:
            self._counts.pop(id(layer), None)
            self._dirty.pop(id(layer), None)
            self._waiting.discard(id(layer))
        for layer in new:
            if id(layer) in self._empty:
                self._counts[id(layer)] = _no_counts(layer)
            else:
                self._count_all(layer)
        self._empty.clear()

    def expect_empty(self, layer: Labels) -> None:
        """The layer that is followed next was just made, and holds nothing but 0."""
        self._empty.add(id(layer))

    def close(self) -> None:
        self._count_soon.cancel()
        self.follow([])
        self._background.close()

    def counts(self, layer: Labels) -> Counts:
        """What is known so far."""
        return self._counts.get(id(layer)) or Counts(sections(layer))

    @property
    def is_complete(self) -> bool:
        """Whether every layer was counted as it is now."""
        counted = all(self._counts[id(layer)].complete for layer in self._watch.layers)
        return counted and not self._dirty and not self._waiting

    # ------------------------------------------------------------ counting

    def _mark(self, layer: Labels, painted: Iterable[int]) -> None:
        self._dirty.setdefault(id(layer), set()).update(painted)
        self._count_soon()

    def _count_all(self, layer: Labels) -> None:
        self._counts[id(layer)] = Counts(sections(layer))
        self._dirty.pop(id(layer), None)
        self._start(layer, range(sections(layer)))

    def _count_dirty(self) -> None:
        for layer in self._watch.layers:
            if id(layer) in self._waiting:
                self._count_soon()
                continue
            dirty = self._dirty.pop(id(layer), None)
            if dirty:
                self._start(layer, sorted(section for section in dirty if section < sections(layer)))

    def _start(self, layer: Labels, wanted: Sequence[int]) -> None:
        counts = self._counts[id(layer)]
        self._waiting.add(id(layer))

        def work() -> None:
            known: set[int] = set()
            classlike = set(counts.classlike)
            for section in wanted:
                if self._background.closing.is_set() or self._counts.get(id(layer)) is not counts:
                    return
                pixels = count_section(layer, section)
                known.update(pixels)
                is_classlike = not classlike - {section} and _looks_like_classes(layer, section, pixels)
                if is_classlike:
                    classlike.add(section)
                self._background.tell(
                    lambda counted: self._take(layer, counts, *counted), (section, pixels, is_classlike)
                )
                if len(known) > MAX_VALUES:
                    return

        self._background.call(work, lambda _: self._finish(layer, counts))

    def _take(self, layer: Labels, counts: Counts, section: int, pixels: dict[int, int], classlike: bool) -> None:
        if self._counts.get(id(layer)) is counts:
            counts.replace(section, pixels, classlike=classlike)

    def _finish(self, layer: Labels, counts: Counts) -> None:
        if self._counts.get(id(layer)) is counts:
            self._waiting.discard(id(layer))
            counts.complete = True
            self.counted.emit()


def _no_counts(layer: Labels) -> Counts:
    pixels = int(np.prod(spatial_shape(layer)[-2:], dtype=np.int64))
    number = sections(layer)
    return Counts(number, {0: np.full(number, pixels, np.int64)}, complete=True)


def _looks_like_classes(layer: Labels, section: int, values: Iterable[int]) -> bool:
    """Whether values of a section that holds these lie side by side, and are few or in several pieces."""
    positive = sum(value > 0 for value in values)
    if positive < 2:
        return False
    pixels = read_section(layer, section)
    rows = max(2, _STRIP // max(1, pixels.shape[-1]))
    # Strips overlap by a row, or else nothing would touch across their edges.
    if not any(values_touch(np.asarray(pixels[at : at + rows])) for at in range(0, pixels.shape[0], rows - 1)):
        return False
    return positive <= MAX_SEPARATE_CLASSES or not are_single_pieces(pixels)


def count_section(layer: Labels, section: int) -> dict[int, int]:
    """Pixels per value of one section."""
    pixels = read_section(layer, section)
    counts: dict[int, int] = {}
    rows = max(1, _STRIP // max(1, pixels.shape[-1]))
    for start in range(0, pixels.shape[0], rows):
        strip = np.asarray(pixels[start : start + rows])
        if strip.dtype in (np.uint8, np.uint16):
            counted = np.bincount(strip.ravel())
            values, numbers = np.flatnonzero(counted), counted[counted > 0]
        else:
            values, numbers = np.unique(strip, return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(number)
    return counts
