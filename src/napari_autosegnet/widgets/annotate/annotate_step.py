"""The first step: which layers are annotation, what the classes are called, and how much is painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qdebounced

from napari_autosegnet.data.annotations import MAX_UNNAMED_CLASSES
from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotate.class_table import ClassTable
from napari_autosegnet.widgets.annotate.live_labels import LiveLabels
from napari_autosegnet.widgets.annotate.mask_conversion import MaskConversion
from napari_autosegnet.widgets.forms.buttons import emphasized, push_button
from napari_autosegnet.widgets.forms.form_rows import named, tab_as_laid_out
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence, tool_tip, wrapped_label
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels


class AnnotateStep(QWidget):
    """Annotation layers, classes and what is still missing.

    Parameters
    ----------
    session : Session
        Shared with the other steps.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

        self.message = MessageLine()
        self.masks = MaskConversion(session, self)
        self.masks.said.connect(self.message.say)
        self.masks.busy_changed.connect(self._show_mask_button)
        intro = wrapped_label(
            "Paint a little of every class: some strokes on several sections are enough, where the image looks "
            "different. What is left unpainted is not used."
        )
        self.layer_rows = QGridLayout()
        self.layer_rows.setColumnStretch(0, 1)
        self.layer_rows.setHorizontalSpacing(8)
        self.new_button = push_button(
            "New annotation layer",
            "Add an empty Labels layer that fits the selected image, with the brush in hand",
            self._on_new,
        )

        self.mask_button = push_button(
            "Use as annotation",
            "Take the selected image layer, a mask that was dropped here, as annotation",
            lambda: self.masks.convert(session.viewer.layers.selection.active),
        )

        self.table = ClassTable(session)
        self.table.complained.connect(lambda text: self.message.say(text, "error"))
        self.add_button = push_button("Add class", "Add a class below the others and take its brush", self._on_add)
        self.remove_button = push_button(
            "Remove class", "What is painted in it stays in the layer, but is not used", self._on_remove
        )
        self.zero_box = QCheckBox("Unpainted pixels are a class, too")
        self.zero_box.setToolTip(
            "Tick this when every pixel is labeled and the value 0 means something, such as background or membrane"
        )
        self.zero_box.clicked.connect(
            lambda checked: self._tried(lambda: session.annotation.class_list.set_zero_is_class(checked))
        )

        self.live = LiveLabels(session)
        self.status = MessageLine()
        self.objects_button = push_button(
            "Objects: one class",
            "All objects become the class 'object', all around them the class 'background'",
            self._on_objects,
        )
        self.place_button = push_button(
            "Put it on the image", "The layer is shown where its pixels lie on the image", self._on_place
        )
        self.classes_button = push_button("", "Each value is a class of its own", self._on_classes)
        self.next_button = emphasized(
            push_button(
                "Next: learn from it",
                "Go to step 2; nothing starts yet",
                lambda: session.step_finished.emit("annotate"),
            )
        )
        self.save_button = push_button("Save ...", "Keep the annotation in a run folder", self._on_save)
        self.load_button = push_button("Load ...", "Open the images and annotation of a run folder", self._on_load)

        layout = QVBoxLayout(self)
        layout.addWidget(intro)
        layout.addWidget(_heading("Annotation layers"))
        layout.addLayout(self.layer_rows)
        layout.addLayout(_row(self.new_button, self.mask_button))
        layout.addWidget(_heading("Classes"))
        layout.addWidget(self.table)
        layout.addLayout(_row(self.add_button, self.remove_button))
        layout.addWidget(self.zero_box)
        layout.addWidget(self.live)
        layout.addWidget(self.message)
        layout.addWidget(self.status)
        layout.addLayout(_row(self.objects_button, self.classes_button, self.place_button))
        layout.addWidget(self.next_button)
        layout.addLayout(_row(self.save_button, self.load_button))
        layout.addStretch(1)

        session.annotation.pairs_changed.connect(self._show_layers)
        session.annotation.classes_changed.connect(self._show_state)
        session.annotation.counts_changed.connect(self._show_layer_counts)
        session.labeled_images.changed.connect(self._show_state)
        session.annotation.noticed.connect(self.message.say)
        # The counts of the section in view follow the slider, but not every tick of it.
        self._show_section_soon = qdebounced(self.table.show_counts, timeout=100)
        session.viewer.dims.events.point.connect(self._on_moved)
        session.viewer.layers.selection.events.active.connect(self._on_moved)
        session.viewer.layers.selection.events.active.connect(self._show_mask_button)
        self._count_labels: dict[int, QLabel] = {}
        self._show_layers()
        self._show_state()

    def release(self) -> None:
        """Let go of the viewer."""
        self.live.release()
        self.table.release()
        self._show_section_soon.cancel()
        self.session.viewer.dims.events.point.disconnect(self._on_moved)
        self.session.viewer.layers.selection.events.active.disconnect(self._on_moved)
        self.session.viewer.layers.selection.events.active.disconnect(self._show_mask_button)

    # ------------------------------------------------------------ what is shown

    def _show_layers(self) -> None:
        while (item := self.layer_rows.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        self._count_labels = {}
        session = self.session
        for row, labels in enumerate(reversed(session.layers.labels())):
            box = QCheckBox(_short(labels.name))
            box.setToolTip(tool_tip(f"Use '{labels.name}' as annotation"))
            box.setChecked(session.layers.is_used(labels))
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.toggled.connect(partial(session.annotation.use, labels))
            self.layer_rows.addWidget(box, 2 * row, 0)
            counted = QLabel()
            self._count_labels[id(labels)] = counted
            self.layer_rows.addWidget(counted, 2 * row, 1)
            choices = session.layers.image_choices(labels)
            if len(choices) > 1:
                self.layer_rows.addWidget(self._image_box(labels), 2 * row + 1, 0, 1, 2)
        first = 2 * len(session.layers.labels())
        for row, labels in enumerate(reversed(session.layers.strays()), start=first):
            for column, text in enumerate((_short(labels.name), "fits no image")):
                shown = QLabel(text)
                shown.setEnabled(False)
                shown.setToolTip(tool_tip(f"'{labels.name}' has the size of no image, so what is painted is not used"))
                self.layer_rows.addWidget(shown, row, column)
        if not session.layers.labels() and not session.layers.strays():
            none = QLabel("none yet")
            none.setEnabled(False)
            self.layer_rows.addWidget(none, 0, 0)
        tab_as_laid_out(self)
        image = session.layers.image_in_view()
        self.new_button.setEnabled(image is not None)
        self._show_mask_button()
        self._show_layer_counts()
        self._show_state()

    def _image_box(self, labels: Labels) -> QComboBox:
        box = QComboBox()
        named(box, f"Image of {labels.name}", "The image that this layer is painted on")
        box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        choices = self.session.layers.image_choices(labels)
        for image in choices:
            box.addItem(f"on {image.name}")
        chosen = self.session.layers.image_of(labels)
        box.setCurrentIndex(next((index for index, image in enumerate(choices) if image is chosen), 0))
        box.activated.connect(lambda index: self.session.annotation.choose_image(labels, choices[index]))
        return box

    def _show_layer_counts(self) -> None:
        session = self.session
        values = {each.value for each in session.annotation.label_classes}
        for labels in session.layers.labels():
            shown = self._count_labels.get(id(labels))
            if shown is None:
                continue
            if not session.layers.is_used(labels):
                shown.setText("not used")
                continue
            if session.annotation.matching.refusal(labels) is not None:
                shown.setText("other classes")
                continue
            counts = session.annotation.counts(labels)
            painted = sum((counts.of(value) for value in values), start=np.zeros(counts.sections, np.int64))
            annotated = int(np.count_nonzero(painted))
            shown.setText(f"{annotated} of {counts.sections} section{'' if counts.sections == 1 else 's'}")
        self.table.show_counts()

    def _on_moved(self, event: object = None) -> None:
        self._show_section_soon()

    def _show_mask_button(self, event: object = None) -> None:
        layer = self.session.viewer.layers.selection.active
        is_image = any(layer is image for image in self.session.layers.images())
        self.mask_button.setEnabled(is_image and not self.masks.is_busy)

    def _show_state(self) -> None:
        session = self.session
        self.zero_box.setChecked(session.annotation.class_list.zero_is_class)
        self.remove_button.setEnabled(len(session.annotation.label_classes) > 2)
        problem = session.labeled_images.problem
        if problem is None:
            scarcity = "" if session.labeled_images.checked is None else session.labeled_images.checked.scarcity()
            more = sentence(scarcity) or "More of it makes the result better."
            self.status.say(f"The annotation is enough to begin with. {more}", "info" if scarcity else "good")
        else:
            self.status.say(problem, "info")
        objects = session.labeled_images.numbered_objects()
        # Until it is answered what the values are, they are not shown as classes.
        for widget in (self.table, self.add_button, self.remove_button, self.zero_box):
            widget.setVisible(objects is None)
        self.objects_button.setVisible(objects is not None)
        self.objects_button.setEnabled(not self.masks.is_busy)
        self.classes_button.setVisible(objects is not None and objects[1] <= MAX_UNNAMED_CLASSES)
        if objects is not None:
            self.classes_button.setText(f"{objects[1]} classes")
        self.place_button.setVisible(objects is None and session.layers.displacement() is not None)
        self.next_button.setEnabled(problem is None)

    # ------------------------------------------------------------ what is pressed

    def _tried(self, action: Callable[[], object]) -> None:
        self.message.attempt(action)
        self._show_state()

    def _on_new(self) -> None:
        image = self.session.layers.image_in_view()
        if image is not None:
            self.session.annotation.new_labels(image)

    def _on_objects(self) -> None:
        objects = self.session.labeled_images.numbered_objects()
        if objects is not None:
            self.masks.use_as_one_class(objects[0])

    def _on_place(self) -> None:
        displaced = self.session.layers.displacement()
        if displaced is not None:
            self.session.annotation.put_on_image(displaced.pair)

    def _on_classes(self) -> None:
        objects = self.session.labeled_images.numbered_objects()
        if objects is not None:
            self.session.labeled_images.take_for_classes(objects[0])
        self._show_state()

    def _on_add(self) -> None:
        self._tried(self.session.annotation.class_list.add)
        self.table.choose_last()

    def _on_remove(self) -> None:
        value = self.table.chosen_value()
        if value is None:
            self.message.say("Choose the class to remove in the table first.", "error")
        else:
            self._tried(lambda: self.session.annotation.class_list.remove(value))

    def _on_save(self) -> None:
        start = self.session.run.path if self.session.run else self.session.runs_folder
        folder = QFileDialog.getExistingDirectory(self, "Save the annotation in this run folder", str(start))
        if folder:
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write the annotation into a run folder."""

        def write() -> None:
            with _one_line(f"the annotation cannot be saved in {folder}"):
                self.session.labeled_images.export(Run.create(folder))

        self.message.say("Saving the annotation ...")
        self.session.background.call(
            write,
            lambda _: self.message.say(f"Saved in {folder}.", "good"),
            lambda text: self.message.say(text, "error"),
        )

    def _on_load(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Load the annotation of this run folder", str(self.session.runs_folder)
        )
        if folder:
            self.load(Path(folder))

    def load(self, folder: Path) -> None:
        """Open the images and annotation of a run folder."""
        from napari_autosegnet.widgets.files.readers import add_layers
        from napari_autosegnet.widgets.files.run_layers import run_layers

        def read() -> list[tuple[Any, ...]]:
            with _one_line(f"the annotation in {folder} cannot be loaded"):
                return run_layers(folder)

        def show(layers: list[tuple[Any, ...]]) -> None:
            try:
                with _one_line(f"the annotation in {folder} cannot be shown"):
                    add_layers(self.session.viewer, layers)
            except UserError as error:
                self.message.say(str(error), "error")
                return
            text = "Loaded." if layers else f"{folder} holds no annotation; choose a run folder."
            self.message.say(text, "good" if layers else "error")

        self.message.say("Loading the annotation ...")
        self.session.background.call(read, show, lambda text: self.message.say(text, "error"))


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever goes wrong is told in a line; otherwise the step would seem to work on for ever."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{what} ({type(error).__name__}: {reason}); choose another folder") from error


def _heading(text: str) -> QLabel:
    return QLabel(f"<b>{text}</b>")


def _row(*widgets: QWidget) -> QHBoxLayout:
    layout = QHBoxLayout()
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:20]} ... {name[-9:]}"
