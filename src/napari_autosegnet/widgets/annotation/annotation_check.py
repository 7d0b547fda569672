"""What is missing before a search can start, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_autosegnet.data.annotations import MAX_UNNAMED_CLASSES
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.numbered_objects import MAX_SEPARATE_CLASSES
from napari_autosegnet.quality import Checked
from napari_autosegnet.settings import SplitSettings
from napari_autosegnet.widgets.annotation import annotation_export
from napari_autosegnet.widgets.annotation.annotation_export import ImageAnnotation
from napari_autosegnet.widgets.annotation.class_list import ClassList
from napari_autosegnet.widgets.annotation.class_matching import ClassMatching
from napari_autosegnet.widgets.annotation.layer_pairs import LayerPair, LayerPairs, is_annotation
from napari_autosegnet.widgets.annotation.pixel_counter import PixelCounter
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.message_line import sentence
from napari_autosegnet.widgets.layers.axes import is_ambiguous
from napari_autosegnet.widgets.layers.layer_arrays import channel_count, depth, is_stack, spatial_shape, time_points
from napari_autosegnet.widgets.layers.notes import role

if TYPE_CHECKING:
    from napari.layers import Image, Labels


class AnnotationCheck(QObject):
    """Compares the annotation in use with what a search needs; what takes long is done in a thread.

    Parameters
    ----------
    layers : LayerPairs
    pairs : callable
        Gives those in use.
    classes : ClassList
    matching : ClassMatching
    counter : PixelCounter
        Counts the annotation in use.
    background : Background
    parent : QObject, optional

    Attributes
    ----------
    split : SplitSettings
        How the annotation is divided.
    checked : Checked or None
        What networks are going to be checked on; None while there is a problem.
    """

    #: `problem` has another answer.
    changed = Signal()

    def __init__(
        self,
        layers: LayerPairs,
        pairs: Callable[[], Sequence[LayerPair]],
        classes: ClassList,
        matching: ClassMatching,
        counter: PixelCounter,
        background: Background,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.split = SplitSettings()
        self._layers = layers
        self._pairs = pairs
        self._classes = classes
        self._matching = matching
        self._counter = counter
        self._background = background
        self._problem: str | None = None
        self.checked: Checked | None = None

    @property
    def problem(self) -> str | None:
        """What is missing, in words; None when nothing is."""
        return self._problem

    @property
    def is_counting(self) -> bool:
        """Whether pixels are counted, or values changed, whose number the answer depends on."""
        return not self._counter.is_complete or self._matching.is_busy

    def check(self) -> None:
        """Look for what is missing; `changed` tells when it is something else than before."""
        problem = self.simple_problem()
        if problem is None and not self.is_counting:
            empty = [f"'{each.name}'" for each in self._classes.label_classes if not self.pixels_of(each.value)]
            if empty:
                problem = f"Nothing is painted as {' or '.join(empty)} yet; paint some, or remove the class."
        if problem is not None:
            self._set_problem(problem)
        elif self.is_counting:
            self._set_problem("Counting the annotated pixels ...")
        else:
            stacks, split = [stack for _, stack in self.stacks()], self.split
            self._background.call(lambda: annotation_export.divide(stacks, split), self._on_divided, self._on_refused)

    def annotations(self) -> list[ImageAnnotation]:
        """The pairs in use, those of one image together, at every time point with annotation."""
        by_image: dict[int, list[LayerPair]] = {}
        for pair in self._pairs():
            by_image.setdefault(id(pair.image), []).append(pair)
        return [
            ImageAnnotation(pairs[0].image, tuple(pair.labels for pair in pairs), time)
            for pairs in by_image.values()
            for time in self._annotated_times(pairs)
        ]

    def stacks(self) -> list[tuple[ImageAnnotation, LabeledStack]]:
        """The annotation in use, with what was counted of it."""
        mapping, stacks = self._classes.mapping(), []
        for annotation in self.annotations():
            here = _sections_of(annotation.image, annotation.time)
            pixels = np.stack(
                [
                    sum(self._counter.counts(layer).of(each.value)[here] for layer in annotation.labels)
                    for each in self._classes.label_classes
                ],
                axis=1,
            )
            stacks.append((annotation, annotation_export.labeled_stack(annotation, mapping, pixels)))
        return stacks

    def _annotated_times(self, pairs: list[LayerPair]) -> list[int]:
        image = pairs[0].image
        if time_points(image) == 1:
            return [0]
        values = [each.value for each in self._classes.label_classes]
        counts = [self._counter.counts(pair.labels).of(value) for pair in pairs for value in values]
        painted = np.sum(counts, axis=0)
        return [time for time in range(time_points(image)) if np.any(painted[_sections_of(image, time)])]

    def pixels_of(self, value: int) -> int:
        """Pixels of a value in all pairs."""
        return sum(int(self._counter.counts(pair.labels).of(value).sum()) for pair in self._pairs())

    def sections_of(self, value: int) -> int:
        """Sections in which a value occurs."""
        return sum(int(np.count_nonzero(self._counter.counts(pair.labels).of(value))) for pair in self._pairs())

    def numbered_objects(self) -> tuple[Labels, int] | None:
        """The first layer whose values look like the numbers of objects, and how many; None when there is none.

        Those are more values than there can be classes, or more than a few that nobody named and that are apart or in
        one piece each, in every section. This is known once all is counted.
        """
        for labels in (pair.labels for pair in self._pairs()):
            counts = self._counter.counts(labels)
            values = [value for value in counts.values if value > 0]
            if len(counts.values) > MAX_UNNAMED_CLASSES:
                return labels, len(counts.values)
            if not counts.complete or counts.classlike or self._layers.holds_classes(labels):
                continue
            if len(self._classes.unnamed(values)) > MAX_SEPARATE_CLASSES:
                return labels, len(values)
        return None

    def simple_problem(self) -> str | None:
        """What is missing as far as one can tell without counting."""
        if not self._layers.images():
            nothing = "Open an image: drop a file on the window, or use File > Open Sample > AutoSegNet."
            return self._deep_image() or nothing
        for labels in self._layers.labels():
            refusal = self._matching.refusal(labels)
            if refusal is not None:
                return refusal
        if self._matching.is_busy:
            return "Matching the classes ..."
        pairs = self._pairs()
        if not pairs:
            nothing = "Make an annotation layer and paint some of every class in it." + self._mask_hint()
            return self._unlike_all_images() or nothing
        if len({channel_count(pair.image) for pair in pairs}) > 1:
            return "Some images are colored and some gray, or they differ in channels; use images of one kind."
        if self._classes.zero_is_class and len({id(pair.image) for pair in pairs}) < len(pairs):
            return "One image has several annotation layers, and unpainted counts as a class; use one layer per image."
        objects = self.numbered_objects()
        if objects is not None:
            labels, values = objects
            if values > MAX_UNNAMED_CLASSES:
                return f"'{labels.name}' has more than {MAX_UNNAMED_CLASSES} values: numbered objects, not classes."
            return (
                f"'{labels.name}' has {values} values, each in one piece or apart. "
                "Are they numbered objects, or classes?"
            )
        if len(self._classes.label_classes) < 2:
            return "Name at least two classes."
        return None

    def _mask_hint(self) -> str:
        """What to do with a mask that napari opened as an image, when one of the images may be one."""
        images = self._layers.images()
        shapes = [spatial_shape(image) for image in images]
        alike = [image for image, shape in zip(images, shapes, strict=True) if shapes.count(shape) > 1]
        return f" Is '{alike[-1].name}' a mask? Select it and press Use as annotation." if alike else ""

    def _unlike_all_images(self) -> str | None:
        """What to do with a Labels layer that lies on no image."""
        image = self._layers.images()[-1]
        for layer in reversed(self._layers.viewer.layers):
            if is_annotation(layer) and not self._layers.image_choices(layer):
                theirs, ours = (" x ".join(map(str, spatial_shape(each))) for each in (layer, image))
                return (
                    f"'{layer.name}' has {theirs} pixels and '{image.name}' {ours}, so it is not its annotation; "
                    "open the image that it belongs to, or make an annotation layer."
                )
        return None

    def _deep_image(self) -> str | None:
        """What to do with an image whose axes are not known, when there is no other."""
        from napari.layers import Image

        for layer in reversed(self._layers.viewer.layers):
            if type(layer) is not Image or role(layer):
                continue
            if is_ambiguous(layer):
                return f"Say at the top what the planes of '{layer.name}' are."
            if not is_stack(layer):
                return (
                    f"'{layer.name}' has {layer.ndim} axes, of which some are unknown; "
                    "right click it in the layer list, choose Split Stack, and use one part."
                )
        return None

    def _on_divided(self, checked: Checked) -> None:
        self._take(None, checked)

    def _on_refused(self, why: str) -> None:
        self._take(sentence(why), None)

    def _take(self, problem: str | None, checked: Checked | None) -> None:
        # Something may have changed since; then another check is under way.
        if self.simple_problem() is None and not self.is_counting:
            self._set_problem(problem, checked)

    def _set_problem(self, problem: str | None, checked: Checked | None = None) -> None:
        if (problem, checked) != (self._problem, self.checked):
            self._problem, self.checked = problem, checked
            self.changed.emit()


def _sections_of(image: Image, time: int) -> slice:
    """Numbers of the sections of a time point."""
    return slice(time * depth(image), (time + 1) * depth(image))
