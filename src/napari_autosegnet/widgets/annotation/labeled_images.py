"""What a search or a training learns from: the annotation in use, what is missing of it, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_autosegnet.data.annotations import MAX_UNNAMED_CLASSES
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.numbered_objects import MAX_SEPARATE_CLASSES
from napari_autosegnet.errors import UserError
from napari_autosegnet.quality import Checked
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings
from napari_autosegnet.widgets.annotation import annotation_export
from napari_autosegnet.widgets.annotation.annotation import Annotation
from napari_autosegnet.widgets.annotation.annotation_export import ExportedData, ImageAnnotation
from napari_autosegnet.widgets.annotation.layer_pairs import LayerPair
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.message_line import sentence
from napari_autosegnet.widgets.layers.axes import is_ambiguous
from napari_autosegnet.widgets.layers.layer_arrays import channel_count, depth, is_stack, spatial_shape, time_points
from napari_autosegnet.widgets.layers.notes import role

if TYPE_CHECKING:
    from napari.layers import Image, Labels


class LabeledImages(QObject):
    """Compares the annotation with what a search needs, and writes it; what takes long is done in a thread.

    Parameters
    ----------
    annotation : Annotation
    background : Background
    parent : QObject, optional

    Attributes
    ----------
    split : SplitSettings
        How the annotation is divided into a part to learn from and one to validate on.
    problem : str or None
        What is missing before a search can start, in words; None when nothing is.
    checked : Checked or None
        What networks are going to be checked on; None while there is a problem.
    """

    #: `problem` or `checked` changed.
    changed = Signal()

    def __init__(self, annotation: Annotation, background: Background, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.split = SplitSettings()
        self.problem: str | None = None
        self.checked: Checked | None = None
        self._annotation = annotation
        self._classes = annotation.class_list
        self._layers = annotation.layers
        self._background = background
        annotation.pairs_changed.connect(self.check)
        annotation.classes_changed.connect(self.check)
        annotation.counts_changed.connect(self.check)
        self.check()

    def check(self) -> None:
        """Look for what is missing; `changed` tells when it is something else than before."""
        problem = self._simple_problem()
        if problem is None and not self._annotation.is_counting:
            classes, pixels_of = self._classes.label_classes, self._annotation.pixels_of
            empty = [f"'{each.name}'" for each in classes if not pixels_of(each.value)]
            if empty:
                problem = f"Nothing is painted as {' or '.join(empty)} yet; paint some, or remove the class."
        if problem is not None:
            self._set_problem(problem)
        elif self._annotation.is_counting:
            self._set_problem("Counting the annotated pixels ...")
        else:
            stacks, split = [stack for _, stack in self.stacks()], self.split
            self._background.call(
                lambda: annotation_export.divide(stacks, split),
                lambda checked: self._take(None, checked),
                lambda why: self._take(sentence(why), None),
            )

    def _images(self) -> list[ImageAnnotation]:
        """The pairs in use, those of one image together, at every time point with annotation."""
        by_image: dict[int, list[LayerPair]] = {}
        for pair in self._annotation.pairs():
            by_image.setdefault(id(pair.image), []).append(pair)
        return [
            ImageAnnotation(pairs[0].image, tuple(pair.labels for pair in pairs), time)
            for pairs in by_image.values()
            for time in self._annotated_times(pairs)
        ]

    def stacks(self) -> list[tuple[ImageAnnotation, LabeledStack]]:
        """The annotation in use, per image and time point, as far as it was counted."""
        mapping, stacks = self._classes.mapping(), []
        for annotation in self._images():
            here = _sections_of(annotation.image, annotation.time)
            pixels = np.stack(
                [
                    sum(self._annotation.counts(layer).of(each.value)[here] for layer in annotation.labels)
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
        counts = [self._annotation.counts(pair.labels).of(value) for pair in pairs for value in values]
        painted = np.sum(counts, axis=0)
        return [time for time in range(time_points(image)) if np.any(painted[_sections_of(image, time)])]

    def numbered_objects(self) -> tuple[Labels, int] | None:
        """The first layer whose values look like the numbers of objects, and how many; None when there is none.

        Those are more values than there can be classes, or more than a few that nobody named and that are apart or in
        one piece each, in every section. This is known once all is counted.
        """
        for labels in (pair.labels for pair in self._annotation.pairs()):
            counts = self._annotation.counts(labels)
            values = [value for value in counts.values if value > 0]
            if len(counts.values) > MAX_UNNAMED_CLASSES:
                return labels, len(counts.values)
            if not counts.complete or counts.classlike or self._layers.holds_classes(labels):
                continue
            if len(self._classes.unnamed(values)) > MAX_SEPARATE_CLASSES:
                return labels, len(values)
        return None

    def take_for_classes(self, labels: Labels) -> None:
        """Say that the values of a layer are classes, and not the numbers of objects."""
        self._layers.take_for_classes(labels)
        self.check()

    def export(self, run: Run) -> ExportedData:
        """Write the annotation into ``RUN/annotation/``. Call it in a thread.

        Raises
        ------
        UserError
            When something is missing that is known without counting, or the folder cannot be written.
        """
        problem = self._simple_problem()
        if problem is not None:
            raise UserError(problem)
        return annotation_export.export_annotation(run, self._images(), self._classes.mapping())

    def _simple_problem(self) -> str | None:
        """What is missing as far as one can tell without counting."""
        if not self._layers.images():
            nothing = "Open an image: drop a file on the window, or use File > Open Sample > AutoSegNet."
            return self._deep_image() or nothing
        for labels in self._layers.labels():
            refusal = self._annotation.matching.refusal(labels)
            if refusal is not None:
                return refusal
        if self._annotation.matching.is_busy:
            return "Matching the classes ..."
        pairs = self._annotation.pairs()
        if not pairs:
            nothing = "Make an annotation layer and paint some of every class in it." + self._mask_hint()
            return self._unlike_all_images() or nothing
        displaced = self._layers.displacement()
        if displaced is not None:
            return f"{displaced}, so strokes land elsewhere than you see them. Put it there, or untick it."
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
        for layer in reversed(self._layers.strays()):
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

    def _take(self, problem: str | None, checked: Checked | None) -> None:
        # Something may have changed since; then another check is under way.
        if self._simple_problem() is None and not self._annotation.is_counting:
            self._set_problem(problem, checked)

    def _set_problem(self, problem: str | None, checked: Checked | None = None) -> None:
        if (problem, checked) != (self.problem, self.checked):
            self.problem, self.checked = problem, checked
            self.changed.emit()


def _sections_of(image: Image, time: int) -> slice:
    """Numbers of the sections of a time point."""
    return slice(time * depth(image), (time + 1) * depth(image))
