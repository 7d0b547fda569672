"""Step 2 of the dock: learn from the annotation, with one button; the paper's two steps are folded away."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtGui import QCloseEvent, QHideEvent, QShowEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_autosegnet.events import ArchitectureFound, Epoch, Event, QualityMeasured, Started
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.job_file import Step
from napari_autosegnet.plain_text import escaped
from napari_autosegnet.presets import FIT_PRESETS, FitPreset, fit_settings
from napari_autosegnet.quality import LEAST_PIXELS, Quality
from napari_autosegnet.run import Run
from napari_autosegnet.settings import FitSettings
from napari_autosegnet.widgets.annotate.class_brushes import ClassBrushes
from napari_autosegnet.widgets.apply.section_model import ModelSummary, summarize
from napari_autosegnet.widgets.forms.buttons import emphasized
from napari_autosegnet.widgets.forms.form_rows import FoldedSection
from napari_autosegnet.widgets.forms.message_line import MessageLine, in_html, sentence, wrapped_label
from napari_autosegnet.widgets.forms.settings_form import SettingsForm
from napari_autosegnet.widgets.jobs.job_panel import JobPanel
from napari_autosegnet.widgets.jobs.run_client import STEP_NAMES, RunClient
from napari_autosegnet.widgets.learn.advanced import AdvancedLearning, has_forest, likely_preset
from napari_autosegnet.widgets.learn.architecture_view import ArchitectureView
from napari_autosegnet.widgets.learn.live_preview import LivePreview
from napari_autosegnet.widgets.learn.more_strokes import MoreStrokes
from napari_autosegnet.widgets.learn.network_menu import NetworkMenu
from napari_autosegnet.widgets.learn.new_strokes import NewStrokes
from napari_autosegnet.widgets.learn.plots import PLOTS, LivePlots
from napari_autosegnet.widgets.learn.starting import LearningStart
from napari_autosegnet.widgets.session import Session

#: What the user is asked; all else is as the preset has it.
_ASKED = ("budget", "goal")


class LearnStep(QWidget):
    """A button, the time, and the goal; then progress, quality, and curves of whatever learns in the run.

    Parameters
    ----------
    session : Session
        State that the steps share.

    Attributes
    ----------
    client : RunClient
        Follows all jobs of the session's run.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.client = RunClient(parent=self)
        self.is_starting_anew = False
        self._is_open = True
        self._quality: Quality | None = None
        self._remark = ""
        self._actions: list[Callable[[], None] | None] = [None, None]
        self.panel = JobPanel(self.client)
        self.words = _rich_label()
        self.quality = _rich_label()
        self.preset: FitPreset = next(each for each in FIT_PRESETS if each == likely_preset())
        hidden = [name for name in FitSettings.model_fields if name not in _ASKED]
        self.form = SettingsForm(FitSettings, {"": fit_settings(self.preset)}, hidden)
        self.primary, self.secondary = emphasized(QPushButton()), QPushButton()
        self.primary.clicked.connect(lambda: self._press(0))
        self.secondary.clicked.connect(lambda: self._press(1))
        self.problem = MessageLine()
        self.preview_wanted = QCheckBox("Show its result on the slice in view")
        self.preview_wanted.setToolTip("As it learns, in a layer of its own; takes at most a fifth of the time")
        self.preview_wanted.setChecked(True)
        self.preview = LivePreview(session, self.client, self)
        self.preview_wanted.toggled.connect(self.preview.set_enabled)
        self.strokes_problem = MessageLine()
        self.strokes = NewStrokes(session, self.client, self)
        self.strokes.said.connect(lambda text: self.strokes_problem.say(text, "error"))
        self.more_strokes = MoreStrokes()
        self.more_strokes.asked.connect(lambda: self.preview.go_to_least_certain(self.strokes_problem.say))
        self.brushes = ClassBrushes(session, self)
        self.brushes.said.connect(lambda text: self.strokes_problem.say(text, "error"))
        self.architecture = ArchitectureView()
        self.plots = LivePlots(PLOTS)
        self.menu = NetworkMenu(session)
        self.menu.chosen.connect(self._on_chosen)
        self.starting = LearningStart(session, self.client, self)
        self.starting.begun.connect(self._on_begun)
        self.starting.refused.connect(lambda text: self.problem.say(text, "error"))
        self.advanced = AdvancedLearning(session, self.client, self.starting)
        self.advanced_section = FoldedSection("Advanced: search and retrain, as in the paper", self.advanced)
        layout = QVBoxLayout(self)
        for widget in (
            self.panel,
            self.words,
            self.form,
            self.primary,
            self.secondary,
            self.problem,
            self.quality,
            self.more_strokes,
            self.strokes_problem,
            self.preview_wanted,
            self.brushes,
            self.menu,
            self.plots,
            self.architecture,
            self.advanced_section,
        ):
            layout.addWidget(widget)
        layout.addStretch(1)
        self._refresh_later = qdebounced(self.refresh, timeout=0)
        session.run_changed.connect(self._on_run)
        session.labeled_images.changed.connect(self._refresh_soon)
        session.annotation.classes_changed.connect(self._on_classes)
        self.panel.changed.connect(self._refresh_soon)
        self.client.reported.connect(self._take)
        self.client.state_changed.connect(self._on_state)
        self.client.finished.connect(self._on_finished)
        self._on_classes()
        self._on_run(session.run)
        self.refresh()

    def release(self) -> None:
        """Let go of the run and the viewer; a worker continues by itself."""
        if self._is_open:
            self._is_open = False
            self._refresh_later.cancel()
            self.preview.close()
            self.strokes.close()
            self.brushes.release()
            self.menu.release()
            self.architecture.release()
            self.client.close()
            self.panel.release()

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802
        """Free what the step holds."""
        self.release()
        super().closeEvent(event)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Show what the network makes of the slice again."""
        super().showEvent(event)
        self.preview.come_back()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802
        """Leave the layers to the step that is shown instead."""
        super().hideEvent(event)
        if event is not None and not event.spontaneous():
            self.preview.step_aside()

    # -- what is there ---------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The session's run."""
        return self.session.run

    @property
    def has_model(self) -> bool:
        """Whether the run has a model already."""
        return self.run is not None and self.run.has_model

    def refresh(self) -> None:
        """Say what is needed or next, and offer it."""
        active, missing = self.client.active, self.session.labeled_images.problem
        has_architecture = self.run is not None and self.run.has_architecture
        anew = self.is_starting_anew or not (self.client.can_resume or self.has_model or has_architecture)
        self.form.setVisible(anew and not active)
        self.preview_wanted.setVisible(active)
        self.brushes.setVisible(active or not anew)
        self.more_strokes.show_state(active=active)
        again = ("Learn again ...", self.ask_anew) if missing is None else None
        if active:
            self._offer("", None)
        elif anew:
            words = f"<b>First:</b> {escaped(missing)}" if missing else _WHAT
            self._offer(words, ("Learn", self.learn), enabled=not missing)
        elif self.client.can_resume:
            name = STEP_NAMES.get(self.client.job_step or "", "learning")
            words = f"The {name} ended early; it can continue from its last finished epoch."
            if has_forest(self.run):
                words = "The training of the forest ended early; it can be done again, in seconds."
            elif self.has_model:
                words += " The best network so far was kept: it can be applied, too."
            self._offer(words, (f"Continue the {name}", self.starting.continue_run), again)
        elif self.has_model:
            name, then, button = self._next_training()
            words = f"<b>The {name} has learned.</b>"
            if missing is None:
                words += f" Correct or paint more, then {then}. Or apply it."
                self._offer(words, (button, self.advanced.continue_training), again)
            else:
                self._offer(f"{words} Apply it. To continue with more labels, first: {escaped(missing)}", None)
        else:
            remark = escaped(sentence(self._remark or "a network was found"))
            self._offer(f"{remark} It is still to be trained.", ("Train it", self.advanced.start_training), again)
        self.advanced.refresh()
        self._show_quality()

    def _next_training(self) -> tuple[str, str, str]:
        """What has learned in the run, what can be done with more labels, and the button for it."""
        if has_forest(self.run):  # which has no weights to continue from
            return "forest", "let it learn again from all of it, in seconds", "Learn from all labels"
        time = self.advanced.training_time
        return "network", f"let it continue{time and f' for up to {time}'}", "Add labels and continue"

    def _offer(
        self,
        words: str,
        primary: tuple[str, Callable[[], None]] | None,
        secondary: tuple[str, Callable[[], None]] | None = None,
        enabled: bool = True,
    ) -> None:
        self.words.setText(words)
        self.words.setVisible(bool(words))
        for index, (button, what) in enumerate(((self.primary, primary), (self.secondary, secondary))):
            button.setVisible(what is not None)
            self._actions[index] = None if what is None else what[1]
            if what is not None:
                button.setText(what[0])
                button.setToolTip(_TIPS.get(what[0], "Continues where it was"))
        self.primary.setEnabled(enabled)

    def _show_quality(self) -> None:
        quality = self._quality
        self.quality.setVisible(quality is not None)
        if quality is None:
            return
        lines = [in_html(quality) if not self.client.active else f"So far: {in_html(quality)}"]
        colors = {each.name: each.color for each in self.session.annotation.classes}
        for name, iou in quality.iou.items():
            pixels = quality.pixels.get(name, 0)
            value = "not known yet" if iou is None or pixels < LEAST_PIXELS else f"{iou:.2f}"
            mark = f'<span style="color:{colors[name]}">&#9632;</span>&nbsp;' if name in colors else ""
            lines.append(f"{mark}{escaped(name)}: {value}, checked on {pixels:,} pixels")
        self.quality.setText("<br>".join(lines))

    # -- jobs ------------------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Write the annotation into a run folder, and start a worker that finds and trains a network.

        Raises
        ------
        UserError
            When the time cannot be used.
        """
        settings = self.form.value()
        assert isinstance(settings, FitSettings)
        run, annotation = self.starting.new_run(), self.starting.annotation()
        job = {"preset": self.preset, "settings": settings, "device": self.session.device}
        self.starting.start(run, "fit", lambda: FitJob(**annotation(run), **job))

    def ask_anew(self) -> None:
        """Offer to learn from scratch beside what is there."""
        self.is_starting_anew = True
        self.refresh()

    def _press(self, index: int) -> None:
        action = self._actions[index]
        if action is not None:
            self.problem.attempt(action)
            self.refresh()

    # -- what happens ----------------------------------------------------------------------------------------------

    def _refresh_soon(self) -> None:
        if self._is_open:
            self._refresh_later()

    def _on_run(self, run: Run | None) -> None:
        if not self._is_open:
            return
        self.problem.clear()
        self.is_starting_anew = False
        self._clear()
        self.advanced.show_run(run)
        self.panel.forget()
        if run is None:
            self.client.detach()
        elif not self.client.attached_to(run):
            self.client.attach(run)
        self._refresh_soon()

    def _on_begun(self, run: Run, step: Step) -> None:
        self.is_starting_anew = False
        self._clear()
        if step == "fit":
            self.strokes.follow(run)

    def _clear(self) -> None:
        """Show nothing of an earlier job."""
        self._remark, self._quality = "", None
        self.strokes_problem.clear()
        self.plots.clear()
        self.architecture.clear()

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._quality = None
                if event.step != "train":  # else it may train what a search found
                    self._remark = ""
            case QualityMeasured():
                self._quality = event.quality
                self._show_quality()
            case ArchitectureFound():
                self._remark = event.remark or ""
                self.architecture.add(event)
        self.plots.add(event)
        self.more_strokes.add(event)
        if isinstance(event, Epoch):
            self.more_strokes.show_state(active=self.client.active)

    def _on_classes(self) -> None:
        self.plots.set_colors({each.name: each.color for each in self.session.annotation.classes})
        self._refresh_soon()

    def _on_state(self, state: str) -> None:
        """Offer the networks of a fit when it has ended, until something else learns in the run."""
        offers = not self.client.active and state != "idle" and self.client.job_step == "fit"
        self.menu.show_run(self.client.run if offers else None)

    def _on_chosen(self) -> None:
        """Another network is the run's model: its quality, and what it makes of the slice in view."""
        folder = self.client.run.model_folder

        def take(summary: ModelSummary) -> None:
            self._quality = summary.quality
            self._show_quality()

        def refuse(text: str) -> None:
            self.problem.say(sentence(text), "error")

        self.session.background.call(lambda: summarize(folder), take, refuse)
        self.preview.show_network(folder, refuse)
        self.session.step_finished.emit("learn")

    def _on_finished(self) -> None:
        self.advanced.show_run(self.run)
        self.session.step_finished.emit("learn")


_TIPS = {
    "Learn": "Starts in a program of its own: napari can be used meanwhile, or closed",
    "Learn again ...": "From scratch, in a new run; this one is kept",
    "Add labels and continue": "From the weights that the network has, with all that is painted now",
    "Learn from all labels": "Fits the forest again, to all that is painted now",
    "Train it": "Trains the network that was found, from scratch",
}
_WHAT = (
    "Finds the network that your annotation needs and trains it. Keep painting meanwhile: new strokes are learned "
    "from as you paint them. Or close napari: it runs in a program of its own."
)


def _rich_label() -> QLabel:
    label = wrapped_label()
    label.setTextFormat(Qt.TextFormat.RichText)
    return label
