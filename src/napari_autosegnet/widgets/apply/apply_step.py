"""The last step: a model applied to the slice in view, to a layer or to a store, and its mistakes corrected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import escaped, printable
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotate.class_brushes import ClassBrushes
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog
from napari_autosegnet.widgets.apply.corrections import Corrections
from napari_autosegnet.widgets.apply.proofreading_panel import ProofreadingPanel
from napari_autosegnet.widgets.apply.section_model import ModelSummary, summarize
from napari_autosegnet.widgets.apply.slice_panel import SlicePanel
from napari_autosegnet.widgets.apply.volume_job import VolumeJob
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.message_line import MessageLine, capitalized, in_html, wrapped_label
from napari_autosegnet.widgets.jobs.job_panel import JobPanel
from napari_autosegnet.widgets.jobs.running_work import unless_it_competes
from napari_autosegnet.widgets.session import Session


class ApplyStep(QWidget):
    """Segments with the run's model, or with one that was chosen.

    Parameters
    ----------
    session : Session
        Shared with the other steps.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._chosen: Path | None = None
        self.model: ModelSummary | None = None
        # Of its own: the session's may be counting pixels for a while, and a model of another run must not be used.
        self._reading = Background(self)
        self._is_reading = False
        self.volume = VolumeJob(session, self)
        self.corrections = Corrections(session, self)

        self.model_label = wrapped_label()
        self.choose_button = push_button(
            "Choose another model ...",
            "A run folder or a model folder, also one that somebody gave you",
            self._on_choose,
        )
        self.slices = SlicePanel(session, self.volume, self.corrections)
        self.slices.said.connect(self._say)
        self.slices.changed.connect(self._show_state)
        self.stack_button = push_button(
            "Segment a whole stack ...", "A layer, or a file of any size; napari can be used meanwhile", self._on_stack
        )
        self.panel = JobPanel(self.volume.client, keeps_best=False)
        self.continue_button = push_button(
            "Continue this segmentation", "Blocks that are finished are not computed again", self._ask_to_continue
        )
        self.message = MessageLine()
        self.proofreading = ProofreadingPanel(session, self)
        self.proofreading.said.connect(self._say)
        self.corrected_label = wrapped_label()
        paint_label = wrapped_label("Paint the right classes over them: it is annotation and counts at once.")
        self.brushes = ClassBrushes(session, self)
        self.brushes.said.connect(lambda text: self._say(text, "error"))
        self.take_button = push_button(
            "Take corrections over as annotation",
            "What you paint on a result itself stays on top of later results, also when the model has learned more, "
            "until you undo it or take it over",
            self.take_over,
        )
        self.next_button = push_button(
            "Next: learn from the corrections",
            "Go to step 2; nothing starts yet",
            lambda: session.step_finished.emit("apply"),
        )

        layout = QVBoxLayout(self)
        for widget in (
            self.model_label,
            self.choose_button,
            QLabel("<b>One slice</b>"),
            self.slices,
            QLabel("<b>Everything</b>"),
            self.stack_button,
            self.panel,
            self.continue_button,
            self.message,
            self.proofreading,
            QLabel("<b>Mistakes</b>"),
            paint_label,
            self.brushes,
            self.corrected_label,
            self.take_button,
            self.next_button,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)

        session.run_changed.connect(self._on_run)
        session.annotation.pairs_changed.connect(self._show_state)
        self.corrections.changed.connect(self._show_state)
        self.volume.failed.connect(lambda text: self._say(text, "error"))
        self.volume.written.connect(self.corrections.put_aside)
        self.volume.settled.connect(self.corrections.put_back)
        self.volume.done.connect(lambda out: self._say(f"The result lies in {out}.", "good"))
        self.panel.changed.connect(self._show_state)
        self.refresh()

    def release(self) -> None:
        """Let go of the viewer and of threads; a worker continues."""
        self.corrections.release()
        self.volume.release()
        self.slices.release()
        self.brushes.release()
        self.proofreading.release()
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
                self._chosen = None
                self._say(text, "error")
                self._take_model(None)

        self._is_reading = True
        self._reading.call(lambda: summarize(path), take, refuse)
        self._show_state()

    def _wanted_model(self) -> Path | None:
        run = self.session.run
        return self._chosen or (None if run is None else run.model_folder)

    def set_model(self, path: Path) -> None:
        """Use the model of a run folder, or a model folder."""
        self.slices.compare_gray_values_again()
        self._chosen = path / "model" if (path / "model" / "model.json").is_file() else path
        self.refresh()

    def _on_run(self, run: Run | None) -> None:
        self._chosen = None
        self.slices.compare_gray_values_again()
        self.refresh()

    def _on_choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Run folder or model folder", str(self.session.runs_folder))
        if folder:
            self.set_model(Path(folder))

    def _take_model(self, model: ModelSummary | None) -> None:
        self.model, self._is_reading = model, False
        self._show_state()

    # ------------------------------------------------------------ what is shown

    def _say(self, text: str, kind: Any = "info") -> None:
        self.message.say(capitalized(text), kind)

    def _show_state(self, _: object = None) -> None:
        model = self.model
        if model is None and self._is_reading:
            self.model_label.setText("Reading the model ...")
        elif model is None:
            self.model_label.setText("There is no model yet: learn one in step 2, or choose one.")
        else:
            name = model.path.parent.name if model.path.name == "model" else model.path.name
            names = ", ".join(each.name for each in model.classes)
            quality = "" if model.quality is None else in_html(model.quality)
            self.model_label.setText(f"Model of <b>{escaped(name)}</b>, for {escaped(names)}.<br>{quality}")
        self.choose_button.setText("Choose a model ..." if model is None else "Choose another model ...")
        self.slices.show_state(model)
        self.brushes.setEnabled(self.session.layers.image_in_view() is not None)
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
        run = self.session.run
        self.next_button.setEnabled(run is not None and model is not None and model.path == run.model_folder)

    # ------------------------------------------------------------ everything

    def _on_stack(self) -> None:
        dialog = ApplyDialog(self.session, () if self.model is None else self.model.classes, self)
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
                self.session.work.follow_start(self.volume.client)
            except UserError as error:
                self._say(str(error), "error")
            self._show_state()

        unless_it_competes(self.session.work, run, self, start)

    def _ask_to_continue(self) -> None:
        """Go on with a job that broke off; asked first where its file says to write elsewhere."""
        try:
            elsewhere = self.volume.writes_elsewhere()
        except UserError as error:
            self._say(str(error), "error")
            return
        if elsewhere is None:
            self._continue()
            return
        text = f"This segmentation was not started here. If you continue it, it writes into {elsewhere}. Continue?"
        buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.Cancel
        question = QMessageBox(QMessageBox.Icon.Question, "Continue?", printable(text), buttons, self)
        question.setTextFormat(Qt.TextFormat.PlainText)
        question.setDefaultButton(QMessageBox.StandardButton.Cancel)
        question.accepted.connect(self._continue)
        question.finished.connect(question.deleteLater)
        question.open()

    def _continue(self) -> None:
        client = self.volume.client
        self._unless_it_competes(client.run, lambda: client.continue_run(self.session.device))

    # ------------------------------------------------------------ corrections

    def take_over(self) -> None:
        """Paint the corrections into the annotation."""
        try:
            taken = self.corrections.take_over()
        except UserError as error:
            self._say(str(error), "error")
        else:
            self._say(f"{taken:,} corrected pixels are annotation now. Press 'Next', and learn from them.", "good")
        self._show_state()
