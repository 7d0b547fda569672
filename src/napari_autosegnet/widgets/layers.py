"""What the four steps share: layers and their pairs, classes, the run, and what is missing before a search.

The lists follow the viewer: layers that are added, removed, renamed or reordered. Pixels are counted in a
thread, and only those sections again that were painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal

from napari_autosegnet.config import SplitSettings
from napari_autosegnet.data.annotations import MOST_UNNAMED_CLASSES, ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets import annotation_export
from napari_autosegnet.widgets.annotation_export import ExportedData, ImageAnnotation
from napari_autosegnet.widgets.background import Background
from napari_autosegnet.widgets.class_colors import LabelClass, prepare_colors, show_classes
from napari_autosegnet.widgets.class_list import ClassList
from napari_autosegnet.widgets.class_matching import ClassMatching
from napari_autosegnet.widgets.layer_arrays import (
    full_resolution,
    is_rgb,
    is_stack,
    place_on,
    read_section,
    role,
    section_in_view,
    sections,
    spatial_shape,
)
from napari_autosegnet.widgets.pixel_counter import Counts, PixelCounter, empty_labels
from napari_autosegnet.widgets.preferences import Preferences, read_preferences
from napari_autosegnet.widgets.section_layers import image_behind

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
    class_list : ClassList
        The classes, to change them.
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
    #: What was done without being asked for, in words.
    noticed = Signal(str)
    #: A step is done ("annotate", "search", "retrain", "apply"): the dock may offer the next one.
    step_finished = Signal(str)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.background = Background(self)
        self.split = SplitSettings()
        self._run: Run | None = None
        self.class_list = ClassList(self)
        self.class_list.changed.connect(self._on_classes)
        self._matching = ClassMatching(self.class_list, self.background, self)
        self._matching.changed.connect(self._on_layers)
        self._matching.noticed.connect(self.noticed)
        self._unused: set[int] = set()
        self._chosen_image: dict[int, Image] = {}
        self._named: list[Any] = []
        #: Whether labels of a type can be coloured without a pause.
        self._colors_ready: dict[np.dtype[Any], bool] = {}
        self._pairs: list[LayerPair] = []
        self._files: dict[int, tuple[Any, Path]] = {}
        self._problem: str | None = None
        self._counter = PixelCounter(viewer, self)
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
    def preferences(self) -> Preferences:
        """As they are now: the user may change them while the dock is open."""
        return read_preferences()

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
        """Image that a Labels layer belongs to: as chosen or known from before, or the nearest below it."""
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
            empty_labels(spatial_shape(image)),
            name=f"{image.name} annotation",
            opacity=0.6,
            **place_on(image),
        )
        self._chosen_image[id(labels)] = image
        self._counter.expect_empty(labels)
        self._follow_layers()
        self.viewer.layers.selection.active = labels
        labels.selected_label = next((each.value for each in self.label_classes if each.value != 0), 1)
        labels.mode = "paint"
        return labels

    def image_in_view(self) -> Image | None:
        """The image that "the slice in view" means: the selected one, or that under the selected Labels layer."""
        from napari.layers import Labels

        images = self.image_layers()
        active = self.viewer.layers.selection.active
        if any(active is image for image in images):
            return active
        image = None
        if active is not None and role(active):
            image = image_behind(self.viewer, active)
        elif isinstance(active, Labels):
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

    def nothing_is_painted(self) -> bool:
        """Whether no annotation in use holds a pixel of a class; not while it is counted."""
        alive = {id(layer) for layer in self.viewer.layers}
        counts = [self._counter.counts(pair.labels) for pair in self._pairs if id(pair.labels) in alive]
        values = [each.value for each in self.label_classes]
        return all(known.complete and not any(known.of(value).any() for value in values) for known in counts)

    def _on_layers(self, event: Any = None) -> None:
        self._later.start(0)

    def _follow_layers(self) -> None:
        alive = {id(layer) for layer in self.viewer.layers}
        self._unused &= alive
        before = [layer for layer in self._named if self._is_annotation(layer) and not self._matching.refusal(layer)]
        if before and not any(id(layer) in alive for layer in before):
            self._pairs = []  # what is gone keeps its names
            self.class_list.reset()
        self._chosen_image = {
            key: image for key, image in self._chosen_image.items() if key in alive and id(image) in alive
        }
        self._files = {key: file for key, file in self._files.items() if key in alive}
        for layer in self._named:
            layer.events.name.disconnect(self._on_layers)
        self._named = list(self.viewer.layers)
        for layer in self._named:
            layer.events.name.connect(self._on_layers)
        found = []
        for labels in self.labels_layers():
            image = self.image_of(labels)
            if image is not None:
                # The order of the layers may change: what belongs together does not.
                self._chosen_image.setdefault(id(labels), image)
                if self.is_used(labels):
                    found.append(LayerPair(image, labels))
        self._matching.follow([pair.labels for pair in found], is_painted=not self.nothing_is_painted())
        self._pairs = [pair for pair in found if self._matching.is_matched(pair.labels)]
        self._counter.follow([pair.labels for pair in self._pairs])
        self._take_values()
        self._show_classes()
        self.pairs_changed.emit()
        self._check()

    def refusal(self, labels: Labels) -> str | None:
        """Why a Labels layer is left out although it is ticked."""
        return self._matching.refusal(labels)

    @staticmethod
    def _is_annotation(layer: Any) -> bool:
        from napari.layers import Labels

        return isinstance(layer, Labels) and not role(layer)

    # ------------------------------------------------------------ classes

    @property
    def label_classes(self) -> tuple[LabelClass, ...]:
        """Classes with the value that each is painted with."""
        return self.class_list.label_classes

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours of the classes, in order: class number 1 first."""
        return self.class_list.infos

    def _on_classes(self) -> None:
        self._show_classes()
        self.classes_changed.emit()
        self._check()
        if self._matching.has_refused:
            self._on_layers()  # with other classes a layer may fit

    def _show_classes(self) -> None:
        for pair in self._pairs:
            if len(self._counter.counts(pair.labels).values) <= MOST_UNNAMED_CLASSES:
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
        self.background.call(lambda: prepare_colors(dtype), ready)

    def _take_values(self) -> None:
        found: set[int] = set()
        for pair in self._pairs:
            found.update(self._counter.counts(pair.labels).values)
        self.class_list.take_values(found, complete=not self.is_counting)

    def _on_counted(self) -> None:
        self._take_values()
        self.counts_changed.emit()
        self._check()

    # ------------------------------------------------------------ counts and problem

    def counts(self, labels: Labels) -> Counts:
        """Pixels per value and section of a Labels layer that is in use."""
        return self._counter.counts(labels)

    @property
    def is_counting(self) -> bool:
        return not self._counter.is_complete or self._matching.is_busy

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

    def _simple_problem(self) -> str | None:
        if not self.image_layers():
            nothing = "Open an image: drop a file on the window, or use File > Open Sample > AutoSegNet."
            return self._deep_image() or nothing
        for labels in self.labels_layers():
            refusal = self.refusal(labels)
            if refusal is not None:
                return refusal
        if self._matching.is_busy:
            return "Matching the classes ..."
        if not self._pairs:
            return "Make an annotation layer and paint some of every class in it."
        # Of colours only red, green and blue are used.
        images = [pair.image for pair in self._pairs]
        channels = {min(3, full_resolution(image).shape[-1]) if is_rgb(image) else 1 for image in images}
        if len(channels) > 1:
            return "Some images are coloured and some grey; use images of one kind together."
        if self.class_list.zero_is_class and len(self._annotations()) < len(self._pairs):
            return "One image has several annotation layers, and unpainted counts as a class; use one layer per image."
        for pair in self._pairs:
            if len(self.counts(pair.labels).values) > MOST_UNNAMED_CLASSES:
                return (
                    f"'{pair.labels.name}' has very many values, which look like single objects; "
                    "use a layer with one value per class."
                )
        if len(self.label_classes) < 2:
            return "Name at least two classes."
        return None

    def _deep_image(self) -> str | None:
        """What to do with an image that has too many axes, when there is no other."""
        from napari.layers import Image

        for layer in reversed(self.viewer.layers):
            if type(layer) is Image and not role(layer) and len(spatial_shape(layer)) > 3:
                axes = len(spatial_shape(layer))
                return (
                    f"'{layer.name}' has {axes} axes where 2 or 3 are needed; "
                    "right click it in the layer list, choose Split Stack, and use one part."
                )
        return None

    def _check(self) -> None:
        problem = self._simple_problem()
        if problem is None and not self.is_counting:
            empty = [f"'{each.name}'" for each in self.label_classes if not self.pixels_of(each.value)]
            if empty:
                problem = f"Nothing is painted as {' or '.join(empty)} yet; paint some, or remove the class."
        if problem is not None:
            self._set_problem(problem)
        elif self.is_counting:
            self._set_problem("Counting the annotated pixels ...")
        else:
            mapping, split, stacks = self.class_list.mapping(), self.split, []
            for annotation in self._annotations():
                pixels = np.stack(
                    [
                        sum(self.counts(layer).of(each.value) for layer in annotation.labels)
                        for each in self.label_classes
                    ],
                    axis=1,
                )
                stacks.append(annotation_export.labelled_stack(annotation, mapping, pixels))
            self.background.call(lambda: annotation_export.find_problem(stacks, split), self._on_checked)

    def _on_checked(self, found: str | None) -> None:
        # Something may have changed since; then another check is under way.
        if self._simple_problem() is None and not self.is_counting:
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
        return annotation_export.export_annotation(run, self._annotations(), self.class_list.mapping(), self._files)
