"""The last step: a model applied to the slice in view, to a layer or to a store, and its mistakes corrected."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut, QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_autosegnet.config import GreyValuesChoice
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.plain_text import escaped, printable
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.apply import uncertainty
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog
from napari_autosegnet.widgets.apply.corrections import Corrections
from napari_autosegnet.widgets.apply.section_model import ModelSummary, SectionModel, SectionResult, summarise
from napari_autosegnet.widgets.apply.slice_progress import SliceProgress
from napari_autosegnet.widgets.apply.volume_job import VolumeJob, has_probabilities, model_of, probabilities_of
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.message_line import MessageLine, emphasised, in_html
from napari_autosegnet.widgets.layers import section_layers
from napari_autosegnet.widgets.layers.layer_arrays import (
    depth,
    read_section,
    section_in_view,
    shows_sections,
    spatial_shape,
    stack_around,
)
from napari_autosegnet.widgets.session import Session
from napari_autosegnet.widgets.work.job_panel import JobPanel
from napari_autosegnet.widgets.work.running_work import ask_to_compete

if TYPE_CHECKING:
    from napari.layers import Image


class ApplyStep(QWidget):
    """Segments with the run's model, or with one that was chosen.

    Parameters
    ----------
    session : Session
        Shared with the other steps.
    parent : QWidget, optional
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._chosen: Path | None = None
        self.model: ModelSummary | None = None
        # Of its own: the session's may be counting pixels for a while, and a model of another run must not be used.
        self._reading = Background(self)
        self._is_reading = False
        self._section_model = SectionModel()
        self._shown: weakref.WeakKeyDictionary[Image, uncertainty.ShownPlaces] = weakref.WeakKeyDictionary()
        self.volume = VolumeJob(session, self)
        self.corrections = Corrections(session, self)

        self.model_label = QLabel()
        self.model_label.setWordWrap(True)
        self.choose_button = QPushButton("Choose another model ...")
        self.choose_button.setToolTip("A run folder or a model folder, also one that somebody gave you")
        self.choose_button.clicked.connect(self._on_choose)
        self.slice_button = emphasised(QPushButton("Segment the slice in view"))
        self.slice_button.clicked.connect(self.segment_slice)
        self.unsure_box = QCheckBox("Show where the model is unsure")
        self.unsure_box.setChecked(True)
        self.unsure_box.setToolTip("Adds a layer: the brighter a place, the less sure the model is")
        self.as_is_box = QCheckBox("Take its grey values as they are")
        self.as_is_box.setToolTip("Also where they are unlike those of the images that the model was trained on")
        self.as_is_box.setVisible(False)
        self.slice_progress = SliceProgress()
        self.slice_progress.cancelled.connect(self._on_cancelled)
        self.place_button = QPushButton("Go to the least certain place")
        self.place_button.setToolTip(
            "Painting the right classes there teaches the network most. Press again, or F3, for the next place"
        )
        self.place_button.clicked.connect(self.go_to_least_certain)
        self.back_button = QPushButton("Previous")
        self.back_button.setToolTip("Back to the place that was shown before (Shift+F3)")
        self.back_button.clicked.connect(self.go_back)
        places = QHBoxLayout()
        places.addWidget(self.place_button, 1)
        places.addWidget(self.back_button)
        # Keys that napari has no use for; they work wherever the focus is, while this step is in sight.
        self._shortcuts = [self._shortcut("F3", self.place_button), self._shortcut("Shift+F3", self.back_button)]
        self.stack_button = QPushButton("Segment a whole stack ...")
        self.stack_button.setToolTip("A layer, or a file of any size; napari can be used meanwhile")
        self.stack_button.clicked.connect(self._on_stack)
        self.panel = JobPanel(self.volume.client, keeps_best=False)
        self.continue_button = QPushButton("Go on with it")
        self.continue_button.setToolTip("Blocks that are finished are not computed again")
        self.continue_button.clicked.connect(self._ask_to_go_on)
        self.message = MessageLine()
        self.corrected_label = QLabel()
        self.corrected_label.setWordWrap(True)
        self.paint_button = QPushButton("Paint over its mistakes")
        self.paint_button.setToolTip(
            "Takes the brush for the annotation, which then lies on top of the result. What you paint counts at once"
        )
        self.paint_button.clicked.connect(self.paint)
        self.take_button = QPushButton("Take corrections over as annotation")
        self.take_button.setToolTip(
            "What you paint on a result itself stays on top of later results, also of a model that was trained on, "
            "until you undo it or take it over"
        )
        self.take_button.clicked.connect(self.take_over)
        self.next_button = QPushButton("Next: continue training")
        self.next_button.clicked.connect(lambda: session.step_finished.emit("apply"))

        layout = QVBoxLayout(self)
        for widget in (
            self.model_label,
            self.choose_button,
            QLabel("<b>One slice</b>"),
            self.slice_button,
            self.slice_progress,
            self.unsure_box,
            self.as_is_box,
            places,
            QLabel("<b>Everything</b>"),
            self.stack_button,
            self.panel,
            self.continue_button,
            self.message,
            QLabel("<b>Mistakes</b>"),
            self.paint_button,
            self.corrected_label,
            self.take_button,
            self.next_button,
        ):
            if isinstance(widget, QHBoxLayout):
                layout.addLayout(widget)
            else:
                layout.addWidget(widget)
        layout.addStretch(1)

        session.run_changed.connect(self._on_run)
        session.pairs_changed.connect(self._show_state)
        self.corrections.changed.connect(self._show_state)
        self.volume.failed.connect(lambda text: self._say(text, "error"))
        self.volume.written.connect(self.corrections.put_aside)
        self.volume.settled.connect(self.corrections.put_back)
        self.volume.done.connect(lambda out: self._say(f"The result lies in {out}.", "good"))
        self.panel.changed.connect(self._show_state)
        self.refresh()

    def _shortcut(self, keys: str, button: QPushButton) -> QShortcut:
        shortcut = QShortcut(QKeySequence(keys), self)
        shortcut.activated.connect(lambda: button.click() if self.isVisible() else None)
        return shortcut

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Let the keys be those of napari's window, which Qt asks also while the dock floats in one of its own."""
        super().showEvent(event)
        window = self.window()
        while window is not None and (frame := window.parentWidget()) is not None:
            window = frame.window()
        for shortcut in self._shortcuts:
            shortcut.setParent(window)

    def release(self) -> None:
        """Let go of the viewer and of threads; a worker goes on."""
        for shortcut in self._shortcuts:
            shortcut.setParent(self)
        self.corrections.release()
        self.volume.release()
        self.slice_progress.close_thread()
        self._reading.close()

    # ------------------------------------------------------------ the model

    def refresh(self) -> None:
        """Look again which model there is."""
        path = self._wanted_model()
        if self.model is not None and self.model.path != path:
            self.model = None
        if path is None or not path.exists():
            self._take_model(None)
            return

        def take(model: ModelSummary) -> None:
            if path == self._wanted_model():
                self._take_model(model)

        def refuse(text: str) -> None:
            if path == self._wanted_model():
                self._refuse_model(text)

        self._is_reading = True
        self._reading.call(lambda: summarise(path), take, refuse)
        self._show_state()

    def _wanted_model(self) -> Path | None:
        run = self._session.run
        return self._chosen or (None if run is None else run.model_folder)

    def set_model(self, path: Path) -> None:
        """Use the model of a run folder, or a model folder."""
        self._compare_grey_values_again()
        self._chosen = path / "model" if (path / "model" / "model.json").is_file() else path
        self.refresh()

    def _compare_grey_values_again(self) -> None:
        """What was insisted on for one model need not hold for another."""
        self.as_is_box.setChecked(False)
        self.as_is_box.setVisible(False)

    def _on_run(self, run: Run | None) -> None:
        self._chosen = None
        self._compare_grey_values_again()
        self.refresh()

    def _on_choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Run folder or model folder", str(self._session.runs_folder))
        if folder:
            self.set_model(Path(folder))

    def _take_model(self, model: ModelSummary | None) -> None:
        self.model, self._is_reading = model, False
        self._show_state()

    def _refuse_model(self, text: str) -> None:
        self._chosen = None
        self._say(text, "error")
        self._take_model(None)

    # ------------------------------------------------------------ what is shown

    def _say(self, text: str, kind: Any = "info") -> None:
        self.message.say(text[:1].upper() + text[1:], kind)

    def _show_state(self, _: object = None) -> None:
        model = self.model
        if model is None and self._is_reading:
            self.model_label.setText("Reading the model ...")
        elif model is None:
            self.model_label.setText("There is no trained network yet: train one in step 3, or choose a model.")
        else:
            name = model.path.parent.name if model.path.name == "model" else model.path.name
            names = ", ".join(each.name for each in model.classes)
            quality = "" if model.quality is None else in_html(model.quality)
            self.model_label.setText(f"Model of <b>{escaped(name)}</b>, for {escaped(names)}.<br>{quality}")
        self.choose_button.setText("Choose a model ..." if model is None else "Choose another model ...")
        ready = model is not None and not self.slice_progress.is_under_way
        image = self._session.layers.image_in_view()
        has_image = image is not None
        shown = None if image is None else self._shown.get(image)
        self.slice_button.setEnabled(ready and has_image)
        self.place_button.setEnabled(ready and has_image)
        self.place_button.setText("Next uncertain place" if shown else "Go to the least certain place")
        self.back_button.setEnabled(ready and shown is not None and shown.has_previous)
        self.paint_button.setEnabled(has_image)
        client = self.volume.client
        self.stack_button.setEnabled(model is not None and not client.active)
        self.continue_button.setVisible(client.can_resume)
        pixels, waiting = self.corrections.pixels, self.corrections.waiting_pixels
        words = f"{pixels:,} pixels are corrected on results." if pixels else ""
        if waiting:
            words += f" Of them {waiting:,} were on a result that is closed; they come back with the next one."
        self.corrected_label.setText(words)
        self.corrected_label.setVisible(bool(words))
        self.take_button.setEnabled(pixels > 0)
        run = self._session.run
        self.next_button.setEnabled(run is not None and model is not None and model.path == run.model_folder)

    # ------------------------------------------------------------ one slice

    def segment_slice(self) -> None:
        """Segment the slice in view, in a thread."""
        wanted = self._wanted_slice()
        if wanted is None:
            return
        image, section = wanted

        def show(found: SectionResult) -> None:
            uncertainty.stop_looking(self._session.viewer, image)
            self._show_slice(image, section, found)

        self._compute(image, section, show)

    def _wanted_slice(self) -> tuple[Image, int] | None:
        image = self._session.layers.image_in_view()
        section = None if image is None else section_in_view(self._session.viewer, image)
        if self.model is None or image is None:
            self._say("Open an image first.", "error")
            return None
        if not shows_sections(self._session.viewer):
            self._say("Turn the view so that y and x are shown, in 2D; sections are segmented as they lie.", "error")
            return None
        if section is None:
            self._say(f"The slider is outside of '{image.name}'; move it to a section of the image.", "error")
            return None
        return image, section

    def _compute(self, image: Image, section: int, then: Any) -> None:
        if self.model is None or self.slice_progress.is_under_way:
            return
        path, device = self.model.path, self._session.device
        grey_values: GreyValuesChoice = "as-is" if self.as_is_box.isChecked() else "checked"
        self._say("Segmenting the slice ...")

        def work(report: Report, should_stop: ShouldStop) -> SectionResult | UserError | None:
            from napari_autosegnet.inference.compute.grey_check import GreyValuesError

            try:
                stack, number = stack_around(image, section)
                return self._section_model.predict(path, stack, number, device, grey_values, report, should_stop)
            except GreyValuesError as error:
                return error

        def take(found: SectionResult | UserError | None) -> None:
            self.message.clear()
            if isinstance(found, UserError):
                self.as_is_box.setVisible(True)
                self._say(str(found), "error")
            elif found is not None and image in self._session.viewer.layers:
                if found.notes:
                    self._say("; ".join(found.notes))
                then(found)
            self._show_state()

        self.slice_progress.call(work, take, self._refuse)
        self._show_state()

    def _refuse(self, text: str) -> None:
        self._say(text, "error")
        self._show_state()

    def _on_cancelled(self) -> None:
        self._say("Cancelled; the layers are as they were.")
        self._show_state()

    def _show_slice(self, image: Image, section: int, found: SectionResult) -> None:
        viewer = self._session.viewer
        active = viewer.layers.selection.active
        shown: list[Any] = [section_layers.show_slice(viewer, image, section, found.labels, found.classes, found.model)]
        if self.unsure_box.isChecked():
            shown.append(section_layers.show_uncertainty(viewer, image, section, found.uncertainty))
        if active is not None:
            viewer.layers.selection.active = active
        self.corrections.put_back(shown[0], section)
        hiding = self._session.order.put(*shown)
        if hiding is not None:
            self._say(f"'{hiding.name}' covers the result, because you paint in it. Hide it to see what lies beneath.")

    # ------------------------------------------------------------ the least certain place

    def go_to_least_certain(self) -> None:
        """Move to where painting teaches most: in the stack if probabilities were written, else in the slice.

        After *Previous*, the places that were shown come first.
        """
        wanted = self._wanted_slice()
        if wanted is None:
            return
        image, section = wanted
        shown = self._shown.setdefault(image, uncertainty.ShownPlaces())
        known = shown.following()
        if known is not None:
            self._go(image, known)
            return
        annotated = _annotation_reader(self._session, image)

        def look(found: SectionResult) -> None:
            self._show_slice(image, section, found)
            self._session.background.call(
                lambda: uncertainty.least_certain(found.uncertainty, section, annotated(section), shown.visited),
                lambda place: self._go_to_new(image, place),
                self._refuse,
            )

        out = self._store_with_probabilities(image)
        if out is None or self.model is None:
            self._compute(image, section, look)
            return
        model = self.model.path

        def search(report: Report, should_stop: ShouldStop) -> tuple[bool, uncertainty.Place | None]:
            read = _uncertainty_of(out, model)
            if read is None:
                return False, None
            first, sections = self.volume.time_point * depth(image), depth(image)
            place = uncertainty.least_certain_of_volume(
                read,
                lambda section: annotated(first + section),
                sections,
                [(section - first, y, x) for section, y, x in shown.visited],
                report,
                should_stop,
            )
            return True, None if place is None else replace(place, section=first + place.section)

        def go(found: tuple[bool, uncertainty.Place | None]) -> None:
            if found[0]:
                self._go_to_new(image, found[1])
            else:  # the model was trained on since
                self._compute(image, section, look)

        self._say("Looking for the least certain place ...")
        self.slice_progress.call(search, go, self._refuse)
        self._show_state()

    def go_back(self) -> None:
        """Move to the place that was shown before."""
        image = self._session.layers.image_in_view()
        place = None if image is None or image not in self._shown else self._shown[image].previous()
        if image is not None and place is not None:
            self._go(image, place)

    def _store_with_probabilities(self, image: Image) -> Path | None:
        """Store of the latest result of an image, if its probabilities were written."""
        layer, out = self.volume.layer, self.volume.out
        if layer is None or out is None or section_layers.image_behind(self._session.viewer, layer) is not image:
            return None
        return out if has_probabilities(out) else None

    def _go_to_new(self, image: Image, place: uncertainty.Place | None) -> None:
        if place is None:
            self._say("Every uncertain place here is annotated or was shown; go to another section.", "info")
            self._show_state()
            return
        self._shown[image].add(place)
        self._go(image, place)

    def _go(self, image: Image, place: uncertainty.Place) -> None:
        uncertainty.go_to(self._session.viewer, image, place)
        if self._take_brush(image):
            name = self._session.viewer.layers.selection.active.name
            self._say(
                f"In the frame the model is least sure. Paint the right classes there, in '{name}': "
                "you have its brush. F3: next place, Shift+F3: the one before."
            )
        self._show_state()

    def _take_brush(self, image: Image) -> bool:
        try:
            self._session.take_brush(image)
        except UserError as error:
            self._say(str(error), "error")
            return False
        return True

    # ------------------------------------------------------------ everything

    def _on_stack(self) -> None:
        dialog = ApplyDialog(self._session, self)
        dialog.finished.connect(dialog.deleteLater)
        dialog.accepted.connect(lambda: self._start(dialog))
        dialog.open()

    def _start(self, dialog: ApplyDialog) -> None:
        model, chosen = self.model, dialog.chosen
        if model is None or chosen is None:
            return
        self.message.clear()
        self._unless_it_competes(None, lambda: self.volume.start(model.path, chosen))

    def _unless_it_competes(self, run: Run | None, begin: Callable[[], None]) -> None:
        """Start a job in a run, or a new one; asked first where others are under way."""

        def start() -> None:
            try:
                begin()
                self._session.work.follow_start(self.volume.client)
            except UserError as error:
                self._say(str(error), "error")
            self._show_state()

        others = self._session.work.others(run)
        if others:
            ask_to_compete(others, self, start)
        else:
            start()

    def _ask_to_go_on(self) -> None:
        """Go on with a job that broke off; asked first where its file says to write elsewhere."""
        try:
            elsewhere = self.volume.writes_elsewhere()
        except UserError as error:
            self._say(str(error), "error")
            return
        if elsewhere is None:
            self._go_on()
            return
        text = f"This segmentation was not started here. It goes on writing into {elsewhere}. Is that what you want?"
        buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.Cancel
        question = QMessageBox(QMessageBox.Icon.Question, "Go on?", printable(text), buttons, self)
        question.setTextFormat(Qt.TextFormat.PlainText)
        question.setDefaultButton(QMessageBox.StandardButton.Cancel)
        question.accepted.connect(self._go_on)
        question.finished.connect(question.deleteLater)
        question.open()

    def _go_on(self) -> None:
        client = self.volume.client
        self._unless_it_competes(client.run, lambda: client.go_on(self._session.device))

    # ------------------------------------------------------------ corrections

    def paint(self) -> None:
        """Take the brush for the annotation of the image in view."""
        image = self._session.layers.image_in_view()
        if image is not None and self._take_brush(image):
            self._say("Paint the right classes over mistakes, then train on with them: it is annotation.")

    def take_over(self) -> None:
        """Paint the corrections into the annotation."""
        try:
            taken = self.corrections.take_over()
        except UserError as error:
            self._say(str(error), "error")
        else:
            self._say(f"{taken:,} corrected pixels are annotation now. Continue the training with them.", "good")
        self._show_state()


def _uncertainty_of(out: Path, model: Path) -> Any:
    """Reads the uncertainty of a section of a result; None when another model made it. Call it in a thread."""
    from napari_autosegnet.figures import normalised_entropy
    from napari_autosegnet.model import Model

    probabilities = probabilities_of(out)
    if probabilities is None or model_of(out) != Model.load(model).fingerprint:
        return None
    return lambda section: normalised_entropy(probabilities(section))


def _annotation_reader(session: Session, image: Image) -> Any:
    """Reads which pixels of a section are annotated already."""
    layers = [pair.labels for pair in session.pairs() if pair.image is image]
    values = [each.value for each in session.label_classes]

    def read(section: int) -> Any:
        if not layers:
            return None
        found = np.zeros(spatial_shape(image)[-2:], bool)
        for layer in layers:
            found |= np.isin(read_section(layer, section), values)
        return found

    return read
