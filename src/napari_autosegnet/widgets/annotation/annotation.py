"""The annotation in the viewer: layers and their pairs, classes, and counts.

The lists follow the viewer: layers that are added, removed, renamed or reordered. Pixels are counted in a
thread, and only those sections again that were painted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from superqt.utils import qdebounced

from napari_autosegnet.data.annotations import MAX_UNNAMED_CLASSES, ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotation.class_list import ClassList
from napari_autosegnet.widgets.annotation.class_matching import ClassMatching
from napari_autosegnet.widgets.annotation.layer_order import LayerOrder
from napari_autosegnet.widgets.annotation.layer_pairs import LayerPair, LayerPairs, is_annotation
from napari_autosegnet.widgets.annotation.pixel_counter import Counts, PixelCounter
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.layers.class_colors import LabelClass, prepare_colors, show_classes
from napari_autosegnet.widgets.layers.layer_arrays import empty_labels, place_on, spatial_shape
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.layers.section_layers import PLACE, follow_image, move_layer

if TYPE_CHECKING:
    from napari.layers import Image, Labels


class Annotation(QObject):
    """What is annotated in a viewer, and with which classes.

    Parameters
    ----------
    layers : LayerPairs
        Of the viewer.
    background : Background
        A thread for what takes long, but for the counting.
    parent : QObject, optional

    Attributes
    ----------
    class_list : ClassList
        The classes, to change them.
    layers : LayerPairs
        Which layers there are, and which belong together; `pairs` are those that are used.
    matching : ClassMatching
        Which layers can be read with these classes, and why others cannot.
    order : LayerOrder
        Which of them lies on which.
    """

    #: Names, colors or values of the classes changed.
    classes_changed = Signal()
    #: Which layers there are, what they are called or how they are paired changed.
    pairs_changed = Signal()
    #: New counts of annotated pixels.
    counts_changed = Signal()
    #: What was done without being asked for, in words.
    noticed = Signal(str)

    def __init__(self, layers: LayerPairs, background: Background, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = layers.viewer
        self.layers = layers
        self._background = background
        self.class_list = ClassList(self)
        self.class_list.changed.connect(self._on_classes)
        self.matching = ClassMatching(self.class_list, background, self)
        self.matching.changed.connect(self._on_layers)
        self.matching.noticed.connect(self.noticed)
        self._followed: list[Any] = []
        #: Whether labels of a type can be colored without a pause.
        self._colors_ready: dict[np.dtype[Any], bool] = {}
        self._pairs: list[LayerPair] = []
        self._counter = PixelCounter(self.viewer, self)
        self._counter.counted.connect(self._on_counted)
        self.order = LayerOrder(layers, self._counter, self)
        self._follow_soon = qdebounced(self.follow_layers, timeout=0)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.connect(self._on_layers)
        self.follow_layers()

    def close(self) -> None:
        """Let go of the viewer; nothing is followed after this."""
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.disconnect(self._on_layers)
        self._follow_each([])
        self._follow_soon.cancel()
        self.order.close()
        self._counter.close()

    # ------------------------------------------------------------ layers

    def choose_image(self, labels: Labels, image: Image) -> None:
        """Say which image a Labels layer belongs to."""
        self.layers.choose_image(labels, image)
        self.follow_layers()

    def use(self, labels: Labels, used: bool) -> None:
        """Count a Labels layer as annotation, or leave it out."""
        self.layers.use(labels, used)
        self.follow_layers()

    def pairs(self) -> list[LayerPair]:
        """Image and Labels layers that a search or a training would use."""
        return list(self._pairs)

    def new_labels(self, image: Image) -> Labels:
        """Add an empty Labels layer of the image's shape, at its place, with a brush in hand."""
        labels = self.viewer.add_labels(
            empty_labels(spatial_shape(image)),
            name=f"{image.name} annotation",
            opacity=0.6,
            **place_on(image),
        )
        self.layers.choose_image(labels, image)
        self._counter.expect_empty(labels)
        self.follow_layers()
        self.viewer.layers.selection.active = labels
        labels.selected_label = next((each.value for each in self.label_classes if each.value != 0), 1)
        labels.mode = "paint"
        return labels

    def annotation_of(self, image: Image) -> Labels | None:
        """The annotation layer of an image that strokes go into; None when there is none yet, and one can be made.

        Raises
        ------
        UserError
            When there can be none.
        """
        displaced = self.layers.displacement()
        if displaced is not None and displaced.pair.image is image:
            raise UserError(f"{displaced}; put it there in step 1, or untick it")
        labels = [pair.labels for pair in self._pairs if pair.image is image]
        if labels and all(each.multiscale for each in labels):
            raise UserError(
                f"'{labels[-1].name}' is a pyramid, which cannot be painted; "
                "untick it in step 1, and a new layer is made to paint in"
            )
        if not labels and self.class_list.zero_is_class:
            raise UserError(
                f"'{image.name}' has no annotation yet, and unpainted pixels count as a class, so a new layer would "
                "say that of all of it; open its full annotation, or untick 'Unpainted pixels are a class' in step 1"
            )
        return next((each for each in reversed(labels) if not each.multiscale), None)

    def take_brush(self, image: Image) -> Labels:
        """Select the annotation of an image, or a new layer, with the brush in hand.

        Raises
        ------
        UserError
            When there can be none.
        """
        labels = self.annotation_of(image)
        if labels is None:
            return self.new_labels(image)
        labels.visible = True
        self.viewer.layers.selection.active = labels
        labels.mode = "paint"
        return labels

    def nothing_is_painted(self) -> bool:
        """Whether no annotation in use holds a pixel of a class; not while it is counted."""
        alive = {id(layer) for layer in self.viewer.layers}
        counts = [self._counter.counts(pair.labels) for pair in self._pairs if id(pair.labels) in alive]
        values = [each.value for each in self.label_classes]
        return all(known.complete and not any(known.of(value).any() for value in values) for known in counts)

    def _on_layers(self, event: Any = None) -> None:
        self._follow_soon()

    def follow_layers(self) -> None:
        """Look again at the viewer's layers; this is done by itself soon after one comes, goes or is renamed."""
        alive = {id(layer) for layer in self.viewer.layers}
        before = [layer for layer in self._followed if is_annotation(layer) and not self.matching.refusal(layer)]
        if before and not any(id(layer) in alive for layer in before):
            self._pairs = []  # what is gone keeps its names
            self.class_list.reset()
        self._follow_each(list(self.viewer.layers))
        pairs = self.layers.follow()
        self.matching.follow([pair.labels for pair in pairs], is_painted=not self.nothing_is_painted())
        self._pairs = [pair for pair in pairs if self.matching.is_matched(pair.labels)]
        self._counter.follow([pair.labels for pair in self._pairs])
        self._take_values()
        self._show_classes()
        self.pairs_changed.emit()

    def _follow_each(self, layers: list[Any]) -> None:
        for layer in self._followed:
            layer.events.name.disconnect(self._on_layers)
            for attribute in PLACE:
                getattr(layer.events, attribute).disconnect(self._on_moved)
        self._followed = layers
        for layer in layers:
            layer.events.name.connect(self._on_layers)
            for attribute in PLACE:
                getattr(layer.events, attribute).connect(self._on_moved)

    def _on_moved(self, event: Any) -> None:
        if not role(event.source):
            follow_image(self.viewer, event.source)
            self._follow_soon()

    def put_on_image(self, pair: LayerPair) -> None:
        """Show a Labels layer where its pixels lie on the image."""
        move_layer(pair.labels, place_on(pair.image))
        self.follow_layers()

    # ------------------------------------------------------------ classes

    @property
    def label_classes(self) -> tuple[LabelClass, ...]:
        """Classes with the value that each is painted with."""
        return self.class_list.label_classes

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colors of the classes, in order: class number 1 first."""
        return self.class_list.infos

    def values_of(self, given: tuple[LabelClass, ...]) -> dict[int, int]:
        """Value in the annotation for every value of a result, whose classes are added where they are missing.

        Classes of one name are one class.
        """
        if self.nothing_is_painted():
            self.class_list.adopt(given)
        values, _ = self.class_list.matched(given)
        have = {each.name for each in self.class_list.label_classes}
        self.class_list.extend([replace(each, value=values[each.value]) for each in given if each.name not in have])
        return values

    def _on_classes(self) -> None:
        self._show_classes()
        self.classes_changed.emit()
        if self.matching.has_refused:
            self._on_layers()  # with other classes a layer may fit

    def _show_classes(self) -> None:
        for pair in self._pairs:
            if len(self._counter.counts(pair.labels).values) <= MAX_UNNAMED_CLASSES:
                dtype = np.dtype(pair.labels.dtype)
                if dtype not in self._colors_ready:
                    self._prepare_colors(dtype)
                elif self._colors_ready[dtype]:
                    show_classes(pair.labels, self.label_classes)

    def _prepare_colors(self, dtype: np.dtype[Any]) -> None:
        def ready(_: None) -> None:
            self._colors_ready[dtype] = True
            self._show_classes()

        self._colors_ready[dtype] = False
        self._background.call(lambda: prepare_colors(dtype), ready)

    def _take_values(self) -> None:
        values: set[int] = set()
        for pair in self._pairs:
            values.update(self._counter.counts(pair.labels).values)
        self.class_list.take_values(values, complete=not self.is_counting)

    def _on_counted(self) -> None:
        self._take_values()
        self.counts_changed.emit()

    # ------------------------------------------------------------ counts

    def counts(self, labels: Labels) -> Counts:
        """Pixels per value and section of a Labels layer that is in use."""
        return self._counter.counts(labels)

    @property
    def is_counting(self) -> bool:
        """Whether pixels are counted, or values changed, whose number is not known until then."""
        return not self._counter.is_complete or self.matching.is_busy

    def pixels_of(self, value: int) -> int:
        """Pixels of a value in all pairs."""
        return sum(int(self.counts(pair.labels).of(value).sum()) for pair in self._pairs)

    def sections_of(self, value: int) -> int:
        """Sections in which a value occurs."""
        return sum(int(np.count_nonzero(self.counts(pair.labels).of(value))) for pair in self._pairs)
