"""Step 2 of the dock: search for an architecture."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget

from napari_autosegnet.events import ArchitectureFound, Event, QualityMeasured, Started
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.plain_text import escaped
from napari_autosegnet.presets import PRESETS, Preset, search_settings
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SearchSettings
from napari_autosegnet.widgets.forms.message_line import in_html, sentence
from napari_autosegnet.widgets.forms.settings_form import SettingsForm
from napari_autosegnet.widgets.learn.architecture_view import ArchitectureView
from napari_autosegnet.widgets.learn.job_step import PRESET_WORDS, JobStep, likely_preset
from napari_autosegnet.widgets.learn.plots import SEARCH_PLOTS, LivePlots
from napari_autosegnet.widgets.session import Session

_WHAT = (
    "The search tries many small networks on your annotation and keeps the design that fits it best. "
    "You can keep painting meanwhile, or close napari: the search runs in a program of its own."
)


class SearchStep(JobStep):
    """Settings, start, progress, curves and the best architecture so far.

    Parameters
    ----------
    session : Session
        State that the steps share.
    parent : QWidget, optional
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session, "search", parent)
        first = likely_preset()
        order = (first, *(preset for preset in PRESETS if preset != first))
        presets: dict[str, SearchSettings] = {PRESET_WORDS[preset]: search_settings(preset) for preset in order}
        self.form = SettingsForm(SearchSettings, presets)
        self.plots = LivePlots(SEARCH_PLOTS)
        self.architecture = ArchitectureView()
        self._remark = ""
        self._quality: Quality | None = None
        self.client.reported.connect(self._take)
        self.begin(self.panel, self.words, self.form, self.buttons, self.problem, self.architecture, self.plots)

    @property
    def preset(self) -> Preset:
        """The chosen preset."""
        chosen = self.form.preset.currentText()
        return next(preset for preset, words in PRESET_WORDS.items() if words == chosen)

    def show_run(self, run: Run | None) -> None:
        """Forget curves and architecture of another run."""
        self._remark, self._quality = "", None
        self.clear()

    def clear(self) -> None:
        """Show neither curves nor an architecture."""
        self.plots.clear()
        self.architecture.clear()

    def refresh(self) -> None:
        """Say what is needed or next, and offer it."""
        active, anew = self.client.active, self.is_starting_anew
        ended = self.client.state == "finished" or self.client.can_resume
        self.form.setVisible(not active and (anew or not ended))
        missing = self.session.problem()
        again = ("New search ...", self.ask_anew) if missing is None else None
        if active:
            self.words.setText("")
            self.offer(None)
        elif self.other_step is not None and self.client.can_resume and not anew:
            self.words.setText(self.other_step)
            self.offer(("Continue the search", self.go_on), again, enabled=False)
        elif missing is not None and not ended:
            self.words.setText(f"{_WHAT}<br><br><b>First:</b> {escaped(missing)}")
            self.offer(("Start the search", self.start_search), enabled=False)
        elif anew or not ended:
            self.words.setText(_WHAT)
            self.offer(("Start the search", self.start_search))
        elif self.client.can_resume:
            words = "This search stopped early; it can continue from its last finished epoch."
            if self.run is not None and self.run.architecture_file.exists():
                words += " The best network so far was kept: it can be trained in the step Retrain, too."
            self.words.setText(words)
            self.offer(("Continue the search", self.go_on), again)
        else:
            found = escaped(sentence(self._remark or "a network was found"))
            quality = "" if self._quality is None else f" After a short training: {in_html(self._quality)}"
            self.words.setText(f"{found}{quality} Next: train it from scratch in the step Retrain.")
            self.offer(None, again)
        self.words.setVisible(bool(self.words.text()))

    def start_search(self) -> None:
        """Write the annotation into a run folder and start a worker on it.

        Raises
        ------
        UserError
            When a setting does not do.
        """
        settings = self.form.value()
        assert isinstance(settings, SearchSettings)
        session, preset, split = self.session, self.preset, self.session.split
        run = self.new_run()

        def job() -> SearchJob:
            data = session.export_annotation(run)
            return SearchJob(
                images=tuple(data.images),
                labels=tuple(data.labels),
                classes=data.classes,
                preset=preset,
                settings=settings,
                split=split,
                device=session.device,
            )

        self.start(run, job)

    def on_finished(self) -> None:
        """Tell the dock."""
        self.session.step_finished.emit("search")

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._remark, self._quality = "", None
            case QualityMeasured():
                self._quality = event.quality
            case ArchitectureFound():
                self._remark = event.remark or ""
                self.architecture.add(event)
        self.plots.add(event)
