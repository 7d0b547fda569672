"""Labels of one section while somebody paints: what was computed is kept, and only what is new is computed.

Nothing here imports torch: the first labels are not to wait for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.gray_values import gray_of_windows, sample_windows
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.normalization import normalized
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.pixel_classifier.drawn_pixels import MIN_PER_CLASS, Places, drawn_by_class
from napari_autosegnet.pixel_classifier.features import PER_SCALE, SIGMAS, Features, features_at, pixel_features, reach
from napari_autosegnet.pixel_classifier.trees import fit_trees, probabilities

#: Most annotated pixels that a forest is fitted on; with more the fit alone takes a second.
MAX_PIXELS = 8_000
#: Features of whole sections that are kept, in bytes; those of the section in view always are.
_KEPT = 600 * 2**20


@dataclass(frozen=True)
class View:
    """The part of a section that somebody looks at.

    Attributes
    ----------
    key
        Says which image it is; equal as long as its pixels are the same.
    image : ImageStack
    section : int
    y, x : tuple of int
        First row or column, and the one after the last.
    """

    key: Hashable
    image: ImageStack
    section: int
    y: tuple[int, int]
    x: tuple[int, int]


@dataclass(frozen=True)
class LabeledView:
    """What a forest says of a view.

    Attributes
    ----------
    labels : (y, x)
        Class numbers, 1 to K.
    complete : bool
        Whether all strokes counted; else those of other sections have to be waited for: ask again.
    """

    labels: npt.NDArray[np.uint8]
    complete: bool


class LiveClassifier:
    """Labels views by a forest that is fitted on all strokes, again and again.

    Kept are the features of the sections that were looked at last, and those of the annotated pixels of all others.

    Parameters
    ----------
    threads : int
        The result is the same for any number.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._images: dict[Hashable, ImageStack] = {}
        self._constants: dict[Hashable, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
        self._views: OrderedDict[tuple[Any, ...], Features] = OrderedDict()
        self._pixels: dict[tuple[Hashable, int], tuple[Places, npt.NDArray[np.float32]]] = {}

    def label(
        self,
        view: View,
        annotated: Sequence[tuple[Hashable, LabeledStack]],
        seconds: float = 1.0,
        should_stop: ShouldStop = never_stop,
    ) -> LabeledView | None:
        """Labels of a view from all that is annotated; None when stopped, or fewer than two classes are.

        Parameters
        ----------
        annotated : sequence of (key, stack)
            With keys as for `View`; all images have as many channels.
        seconds : float
            After this time no further sections are looked at than the one in view.
        """
        self._follow({view.key: view.image, **{key: stack.image for key, stack in annotated}})
        features = self._features(view)
        if should_stop():
            return None
        learned, targets, complete = self._strokes(view, annotated, time.monotonic() + seconds, should_stop)
        if len(np.unique(targets)) < 2 or should_stop():
            return None
        forest = fit_trees(learned, targets, threads=self._threads)
        if should_stop():
            return None
        likely = probabilities(forest, features, threads=self._threads).argmax(0)
        return LabeledView(forest.classes_.astype(np.uint8)[likely], complete)

    # ------------------------------------------------------------ what is kept

    def _follow(self, images: dict[Hashable, ImageStack]) -> None:
        """Forget what belongs to other images. Those that are kept are held, so no other object takes their key."""
        self._images = images
        for kept in (self._views, self._pixels):
            for key in [key for key in kept if key[0] not in images]:
                del kept[key]
        self._constants = {key: constants for key, constants in self._constants.items() if key in images}

    def _read(self, key: Hashable, section: int, y: slice, x: slice) -> npt.NDArray[np.float32]:
        """Part of a section (c, y, x), every one of an image normalized alike: by the first that was looked at."""
        image, z = self._images[key], slice(section, section + 1)
        if key not in self._constants:
            gray = gray_of_windows(
                [image.read(z, *window)[:, 0] for window in sample_windows(*image.section_shape(section))]
            )
            mean, std = (np.array(each)[:, None, None] for each in (gray.mean, gray.std))
            self._constants[key] = mean, np.where(std > 0, std, 1.0)
        return normalized(image.read(z, y, x)[:, 0], *self._constants[key])

    def _features(self, view: View) -> Features:
        """Features (f, y, x) of a view, as they are within the whole section."""
        place = (view.key, view.section, view.y, view.x)
        if place not in self._views:
            margin = reach()
            (top, bottom), (left, right) = view.y, view.x
            above, before = min(top, margin), min(left, margin)
            pixels = self._read(
                view.key, view.section, slice(top - above, bottom + margin), slice(left - before, right + margin)
            )
            features = pixel_features(pixels, threads=self._threads)
            self._views[place] = features[:, above : above + bottom - top, before : before + right - left]
            while len(self._views) > 1 and sum(each.nbytes for each in self._views.values()) > _KEPT:
                self._views.popitem(last=False)
        self._views.move_to_end(place)
        return self._views[place]

    # ------------------------------------------------------------ strokes

    def _strokes(
        self,
        view: View,
        annotated: Sequence[tuple[Hashable, LabeledStack]],
        until: float,
        should_stop: ShouldStop,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], bool]:
        """Features (n, f) and class numbers (n,) of the annotated pixels; whether they are all."""
        sections = [(key, stack, section) for key, stack in annotated for section in stack.annotated_sections]
        # The one in view first: its features are there.
        sections.sort(key=lambda place: (place[0], place[2]) != (view.key, view.section))
        parts, targets, complete = [], [], True
        classes: set[int] = set()
        for key, stack, section in sections:
            if should_stop():
                break
            target = stack.target(section)
            most = max(MIN_PER_CLASS, MAX_PIXELS // (len(sections) * len(stack.mapping.classes)))
            places = drawn_by_class(target.ravel(), most)
            if len(classes) > 1 and time.monotonic() > until:
                known = np.isin(places, self._pixels.get((key, section), (places[:0],))[0])
                complete = complete and bool(known.all())
                places = places[known]
            if len(places):
                parts.append(self._features_of(view, key, section, places, target.shape[1]))
                classes_drawn = target.ravel()[places].astype(np.int64)
                classes.update(np.unique(classes_drawn).tolist())
                targets.append(classes_drawn)
        if not parts:
            return np.empty((0, 1), np.float32), np.empty(0, np.int64), complete
        return np.concatenate(parts), np.concatenate(targets), complete

    def _features_of(
        self, view: View, key: Hashable, section: int, places: Places, width: int
    ) -> npt.NDArray[np.float32]:
        """Features (n, f) of single pixels of a section, by their rising numbers in it; only new ones are computed."""
        channels = self._images[key].channels
        features = np.empty((len(places), channels * PER_SCALE * len(SIGMAS)), np.float32)
        before, kept = self._pixels.get((key, section), (places[:0], features[:0]))
        known = np.isin(places, before)
        features[known] = kept[np.searchsorted(before, places[known])]
        missing = np.flatnonzero(~known)
        if (key, section) == (view.key, view.section):
            y, x = np.divmod(places[missing], width)
            inside = (y >= view.y[0]) & (y < view.y[1]) & (x >= view.x[0]) & (x < view.x[1])
            here = missing[inside]
            features[here] = self._features(view)[:, y[inside] - view.y[0], x[inside] - view.x[0]].T
            missing = missing[~inside]
        if len(missing):
            features[missing] = features_at(
                lambda rows, columns: self._read(key, section, rows, columns),
                places[missing],
                width,
                threads=self._threads,
            )
        self._pixels[key, section] = places, features
        return features
