"""What the four steps share: layers and their pairs, classes, the run, and what is missing before a search.

The lists follow the viewer: layers that are added, removed, renamed or reordered. Pixels are counted in a
thread, and only those sections again that were painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.config import SplitSettings
from napari_autosegnet.data.annotations import MOST_UNNAMED_CLASSES, ClassInfo, LabelMapping, default_classes
from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets import annotation_export
from napari_autosegnet.widgets.annotation_export import ExportedData, ImageAnnotation
from napari_autosegnet.widgets.background import Background
from napari_autosegnet.widgets.class_colors import LabelClass, kept_classes, show_classes
from napari_autosegnet.widgets.layer_arrays import (
    is_rgb,
    is_stack,
    read_section,
    role,
    section_in_view,
    sections,
    spatial_shape,
)
from napari_autosegnet.widgets.pixel_counter import Counts, PixelCounter
from napari_autosegnet.widgets.preferences import Preferences, read_preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

__all__ = ["ExportedData", "LabelClass", "LayerPair", "Session"]


@dataclass(frozen=True, eq=False)
class LayerPair:
    """An image layer and a Labels layer of its shape, in which classes are painted."""

    image: Image
    labels: Labels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerPair) and self.image is other.image and self.labels is other.labels

    def __hash__(self) -> int:
        return hash((id(self.image), id(self.labels)))

    @property
    def name(self) -> str:
        return f"{self.image.name} / {self.labels.name}"

    @property
    def sections(self) -> int:
        return sections(self.image)


class Session(QObject):
    """Shared state of the four steps of a dock.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Its layers are what is annotated and segmented.
    parent : QObject, optional

    Attributes
    ----------
    viewer : ViewerModel
    preferences : Preferences
        Runs folder, device and number of workers, from napari's preferences.
    background : Background
        A thread for whatever reads files or many pixels.
    split : SplitSettings
        How `problem` divides the annotation.
    """

    #: Another run (or None) was chosen.
    run_changed = Signal(object)
    #: Names, colours or values of the classes changed.
    classes_changed = Signal()
    #: Which layers there are, what they are called or how they are paired changed.
    pairs_changed = Signal()
    #: New counts of annotated pixels.
    counts_changed = Signal()
    #: `problem` has another answer.
    problem_changed = Signal()
    #: A step is done ("annotate", "search", "retrain", "apply"): the dock may offer the next one.
    step_finished = Signal(str)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.preferences: Preferences = read_preferences()
        self.background = Background(self)
        self.split = SplitSettings()
        self._run: Run | None = None
        self._classes = tuple(
            LabelClass(value, info.name, info.color)
            for value, info in enumerate(default_classes(["class 1", "class 2"]), start=1)
        )
        self._classes_are_defaults = True
        self._ignored: set[int] = set()
        self._unused: set[int] = set()
        self._chosen_image: dict[int, Image] = {}
        self._named: list[Any] = []
        self._pairs: list[LayerPair] = []
        self._files: dict[int, tuple[Any, Path]] = {}
        self._problem: str | None = None
        self._counter = PixelCounter(self.background, self)
        self._counter.counted.connect(self._on_counted)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._follow_layers)
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.connect(self._on_layers)
        self._follow_layers()

    def close(self) -> None:
        """Let go of the viewer; the session is of no use after this."""
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            emitter.disconnect(self._on_layers)
        for layer in self._named:
            layer.events.name.disconnect(self._on_layers)
        self._named = []
        self._later.stop()
        self._counter.close()
        self.background.close()

    # ------------------------------------------------------------ settings and run

    @property
    def runs_folder(self) -> Path:
        return self.preferences.runs_folder

    @property
    def device(self) -> str:
        """``auto``, ``cpu``, ``cuda``, ``mps``."""
        return self.preferences.device

    @property
    def run(self) -> Run | None:
        """The run that the steps work in."""
        return self._run

    @run.setter
    def run(self, run: Run | None) -> None:
        old = None if self._run is None else self._run.path
        new = None if run is None else run.path
        self._run = run
        if old != new:
            self.run_changed.emit(run)

    def new_run_folder(self, name: str = "run") -> Path:
        """A path under the runs folder that is not taken; the folder is not made."""
        from datetime import datetime

        stem = f"{datetime.now():%Y-%m-%d}-{annotation_export.file_name(name)}"
        number = 1
        while (path := self.runs_folder / f"{stem}-{number}").exists():
            number += 1
        return path

    # ------------------------------------------------------------ layers

    def image_layers(self) -> list[Image]:
        """The user's 2D and 3D image layers, from the bottom to the top."""
        from napari.layers import Image

        return [layer for layer in self.viewer.layers if type(layer) is Image and not role(layer) and is_stack(layer)]

    def labels_layers(self) -> list[Labels]:
        """The user's Labels layers that lie on an image, used or not, from the bottom to the top."""
        from napari.layers import Labels

        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not role(layer) and self.image_choices(layer)
        ]

    def image_choices(self, labels: Labels) -> list[Image]:
        """Image layers of the same shape as a Labels layer."""
        shape = spatial_shape(labels)
        return [image for image in self.image_layers() if spatial_shape(image) == shape]

    def image_of(self, labels: Labels) -> Image | None:
        """Image that a Labels layer belongs to: as chosen, or the nearest below it of the same shape."""
        choices = self.image_choices(labels)
        chosen = self._chosen_image.get(id(labels))
        if any(chosen is image for image in choices):
            return chosen
        order = {id(layer): place for place, layer in enumerate(self.viewer.layers)}
        place = order[id(labels)]
        below = [image for image in choices if order[id(image)] < place]
        return below[-1] if below else choices[0] if choices else None

    def choose_image(self, labels: Labels, image: Image) -> None:
        self._chosen_image[id(labels)] = image
        self._follow_layers()

    def is_used(self, labels: Labels) -> bool:
        return id(labels) not in self._unused

    def use(self, labels: Labels, used: bool) -> None:
        """Count a Labels layer as annotation, or leave it out."""
        if used:
            self._unused.discard(id(labels))
        else:
            self._unused.add(id(labels))
        self._follow_layers()

    def pairs(self) -> list[LayerPair]:
        """Image and Labels layers that a search or a training would use."""
        return list(self._pairs)

    def new_labels(self, image: Image) -> Labels:
        """Add an empty Labels layer of the image's shape, at its place, with a brush in hand."""
        labels = self.viewer.add_labels(
            np.zeros(spatial_shape(image), np.uint8),
            name=f"{image.name} annotation",
            scale=image.scale,
            translate=image.translate,
            opacity=0.6,
        )
        self._chosen_image[id(labels)] = image
        self._follow_layers()
        self.viewer.layers.selection.active = labels
        if self._classes:
            labels.selected_label = self._classes[0].value
        labels.mode = "paint"
        return labels

    def image_in_view(self) -> Image | None:
        """The image that "the slice in view" means: the selected one, or that under the selected Labels layer."""
        from napari.layers import Labels

        images = self.image_layers()
        active = self.viewer.layers.selection.active
        if any(active is image for image in images):
            return active
        if isinstance(active, Labels):
            image = self.image_of(active)
            if image is not None:
                return image
        visible = [image for image in images if image.visible]
        return (visible or images or [None])[-1]

    def slice_in_view(self) -> npt.NDArray[Any] | None:
        """Grey values (c, y, x) of the section in view; None without an image. May read a file: call it in a thread."""
        image = self.image_in_view()
        section = None if image is None else section_in_view(self.viewer, image)
        if image is None or section is None:
            return None
        pixels = read_section(image, section)
        return np.moveaxis(pixels[..., :3], -1, 0) if is_rgb(image) else pixels[np.newaxis]

    def _on_layers(self, event: Any = None) -> None:
        self._later.start(0)

    def _follow_layers(self) -> None:
        alive = {id(layer) for layer in self.viewer.layers}
        self._unused &= alive
        self._chosen_image = {key: image for key, image in self._chosen_image.items() if key in alive}
        self._files = {key: file for key, file in self._files.items() if key in alive}
        for layer in self._named:
            layer.events.name.disconnect(self._on_layers)
        self._named = list(self.viewer.layers)
        for layer in self._named:
            layer.events.name.connect(self._on_layers)
        self._pairs = [
            LayerPair(image, labels)
            for labels in self.labels_layers()
            if self.is_used(labels) and (image := self.image_of(labels)) is not None
        ]
        self._adopt_classes()
        self._counter.follow([pair.labels for pair in self._pairs])
        self._show_classes()
        self.pairs_changed.emit()
        self._check()

    # ------------------------------------------------------------ classes

    @property
    def label_classes(self) -> tuple[LabelClass, ...]:
        """Classes with the value that each is painted with."""
        return self._classes

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours of the classes, in order: class number 1 first."""
        return tuple(ClassInfo(name=each.name, color=each.color) for each in self._classes)

    @property
    def zero_is_class(self) -> bool:
        """Whether pixels of value 0 are a class, and not unpainted."""
        return any(each.value == 0 for each in self._classes)

    @zero_is_class.setter
    def zero_is_class(self, is_class: bool) -> None:
        if is_class == self.zero_is_class:
            return
        others = tuple(each for each in self._classes if each.value != 0)
        if is_class:
            used = {each.color for each in others}
            color = next((info.color for info in default_classes(["0"] * 16) if info.color not in used), "#999999")
            others = (LabelClass(0, "background", color), *others)
        self.set_classes(others)

    def set_classes(self, classes: Sequence[LabelClass]) -> None:
        """Replace the classes.

        Raises
        ------
        UserError
            When names are empty, come twice, or hold a comma or colon.
        """
        names = [each.name for each in classes]
        for name in names:
            if not name.strip():
                raise UserError("a class has no name; give it one")
            if "," in name or ":" in name:
                raise UserError(f"the class name '{name}' holds a comma or colon; leave these out")
            if names.count(name) > 1:
                raise UserError(f"two classes are called '{name}'; give each its own name")
        self._ignored |= {each.value for each in self._classes} - {each.value for each in classes}
        self._ignored -= {each.value for each in classes}
        self._classes = tuple(classes)
        self._classes_are_defaults = False
        self._show_classes()
        self.classes_changed.emit()
        self._check()

    def add_class(self) -> LabelClass:
        """One more class, with the next free value and colour."""
        value = 1 + max((each.value for each in self._classes), default=0)
        names = {each.name for each in self._classes}
        number = value
        while f"class {number}" in names:
            number += 1
        added = LabelClass(value, f"class {number}", self._free_color())
        self.set_classes([*self._classes, added])
        return added

    def change_class(self, value: int, *, name: str | None = None, color: str | None = None) -> None:
        changes: dict[str, Any] = {key: new for key, new in (("name", name), ("color", color)) if new is not None}
        self.set_classes([replace(each, **changes) if each.value == value else each for each in self._classes])

    def remove_class(self, value: int) -> None:
        """What is painted with the value counts as not annotated from now on."""
        self.set_classes([each for each in self._classes if each.value != value])

    def _free_color(self) -> str:
        used = {each.color for each in self._classes}
        palette = [info.color for info in default_classes(["class"] * 16)]
        return next((color for color in palette if color not in used), palette[len(self._classes) % len(palette)])

    def _adopt_classes(self) -> None:
        """Take over names and colours that a layer brings with it, as long as the user gave none."""
        if not self._classes_are_defaults:
            return
        for pair in self._pairs:
            found = kept_classes(pair.labels)
            if found:
                self._classes = found
                self._classes_are_defaults = False
                self.classes_changed.emit()
                return

    def _show_classes(self) -> None:
        for pair in self._pairs:
            if len(self._counter.counts(pair.labels).values) <= MOST_UNNAMED_CLASSES:
                show_classes(pair.labels, self._classes)

    def _on_counted(self) -> None:
        found: set[int] = set()
        for pair in self._pairs:
            found.update(self._counter.counts(pair.labels).values)
        if self._classes_are_defaults and found == {0, 255} and self._counter.is_complete:
            names = default_classes(["class 0", "class 255"])
            self._classes = tuple(
                LabelClass(value, info.name, info.color) for value, info in zip((0, 255), names, strict=True)
            )
            self._after_new_values()
        known = {each.value for each in self._classes} | self._ignored | {0}
        new = sorted(value for value in found - known if value > 0)
        if new and len(found) <= MOST_UNNAMED_CLASSES:
            for value in new:
                self._classes = (*self._classes, LabelClass(value, f"class {value}", self._free_color()))
            self._after_new_values()
        self.counts_changed.emit()
        self._check()

    def _after_new_values(self) -> None:
        self._show_classes()
        self.classes_changed.emit()

    # ------------------------------------------------------------ counts and problem

    def counts(self, labels: Labels) -> Counts:
        """Pixels per value and section of a Labels layer that is in use."""
        return self._counter.counts(labels)

    @property
    def is_counting(self) -> bool:
        return not self._counter.is_complete

    def pixels_of(self, value: int) -> int:
        """Pixels of a value in all pairs."""
        return sum(int(self.counts(pair.labels).of(value).sum()) for pair in self._pairs)

    def sections_of(self, value: int) -> int:
        """Sections in which a value occurs."""
        return sum(int(np.count_nonzero(self.counts(pair.labels).of(value))) for pair in self._pairs)

    def problem(self) -> str | None:
        """What is missing before a search can start, in words; None when nothing is."""
        return self._problem

    def _annotations(self) -> list[ImageAnnotation]:
        by_image: dict[int, list[LayerPair]] = {}
        for pair in self._pairs:
            by_image.setdefault(id(pair.image), []).append(pair)
        return [ImageAnnotation(pairs[0].image, tuple(pair.labels for pair in pairs)) for pairs in by_image.values()]

    def _mapping(self) -> LabelMapping:
        return LabelMapping(
            classes=self.classes, values={each.value: number for number, each in enumerate(self._classes, start=1)}
        )

    def _simple_problem(self) -> str | None:
        if not self.image_layers():
            return "Open an image: drop a file on the window, or use File > Open Sample > AutoSegNet."
        if not self._pairs:
            return "Make an annotation layer and paint some of every class in it."
        channels = {layer.data.shape[-1] if is_rgb(layer) else 1 for layer in (pair.image for pair in self._pairs)}
        if len(channels) > 1:
            return "Some images are coloured and some grey; use images of one kind together."
        if self.zero_is_class and len(self._annotations()) < len(self._pairs):
            return "One image has several annotation layers, and unpainted counts as a class; use one layer per image."
        for pair in self._pairs:
            if len(self.counts(pair.labels).values) > MOST_UNNAMED_CLASSES:
                return (
                    f"'{pair.labels.name}' has very many values, which look like single objects; "
                    "use a layer with one value per class."
                )
        if len(self._classes) < 2:
            return "Name at least two classes."
        return None

    def _check(self) -> None:
        problem = self._simple_problem()
        if problem is None and self._counter.is_complete:
            empty = [f"'{each.name}'" for each in self._classes if not self.pixels_of(each.value)]
            if empty:
                problem = f"Nothing is painted as {' or '.join(empty)} yet; paint some, or remove the class."
        if problem is not None:
            self._set_problem(problem)
        elif not self._counter.is_complete:
            self._set_problem("Counting the annotated pixels ...")
        else:
            mapping, split, stacks = self._mapping(), self.split, []
            for annotation in self._annotations():
                pixels = np.stack(
                    [sum(self.counts(layer).of(each.value) for layer in annotation.labels) for each in self._classes],
                    axis=1,
                )
                stacks.append(annotation_export.labelled_stack(annotation, mapping, pixels))
            self.background.call(lambda: annotation_export.find_problem(stacks, split), self._on_checked)

    def _on_checked(self, found: str | None) -> None:
        # Something may have changed since; then another check is under way.
        if self._simple_problem() is None and self._counter.is_complete:
            self._set_problem(None if found is None else found[:1].upper() + found[1:] + ".")

    def _set_problem(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self.problem_changed.emit()

    # ------------------------------------------------------------ export

    def export_annotation(self, run: Run) -> ExportedData:
        """Write the annotation into ``RUN/annotation/``. Call it in a thread.

        Raises
        ------
        UserError
            When `problem` says that something is missing, or the folder cannot be written.
        """
        problem = self._simple_problem()
        if problem is not None:
            raise UserError(problem)
        return annotation_export.export_annotation(run, self._annotations(), self._mapping(), self._files)
