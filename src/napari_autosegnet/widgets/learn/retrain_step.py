"""Step 3 of the dock: train the found architecture, and go on training with more labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QWidget

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, QualityMeasured
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.plain_text import escaped
from napari_autosegnet.presets import PRESETS, Preset, train_settings
from napari_autosegnet.quality import Quality
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, TrainSettings
from napari_autosegnet.widgets.forms.form_rows import add_row
from napari_autosegnet.widgets.forms.message_line import in_html
from napari_autosegnet.widgets.forms.settings_form import SettingsForm
from napari_autosegnet.widgets.learn.job_step import PRESET_WORDS, JobStep, likely_preset
from napari_autosegnet.widgets.learn.live_preview import LivePreview
from napari_autosegnet.widgets.learn.plots import TRAIN_PLOTS, LivePlots
from napari_autosegnet.widgets.session import Session

_NETWORKS: dict[Network, str] = {
    "searched": "the one that the search found",
    "plain": "plain chain, without a search",
    "unet": "U-Net, to compare with",
    "pspnet": "PSPNet, to compare with",
}


class RetrainStep(JobStep):
    """Settings, start, progress, curves, and a preview of the slice in view after each epoch.

    Parameters
    ----------
    session : Session
        State that the steps share.
    parent : QWidget, optional
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(session, "train", parent)
        self._quality: Quality | None = None
        self.network = QComboBox()
        for name, text in _NETWORKS.items():
            self.network.addItem(text, name)
        self.network.currentIndexChanged.connect(self.refresh)
        self._choice = QWidget()
        row = QFormLayout(self._choice)
        row.setContentsMargins(0, 0, 0, 0)
        add_row(
            row,
            "Network",
            self.network,
            "What is trained: the network of step 2, a plain chain of the same operations, or a well known one",
        )
        presets: dict[str, TrainSettings] = {PRESET_WORDS[preset]: train_settings(preset) for preset in PRESETS}
        self.form = SettingsForm(TrainSettings, presets)
        self.preview_wanted = QCheckBox("Show its result on the slice in view")
        self.preview_wanted.setToolTip("After each epoch, in a layer of its own; takes at most a fifth of the time")
        self.preview_wanted.setChecked(True)
        self.plots = LivePlots(TRAIN_PLOTS)
        self.preview = LivePreview(session, self.client, self)
        self.preview_wanted.toggled.connect(self.preview.set_enabled)
        self.client.reported.connect(self._take)
        session.classes_changed.connect(self._on_classes)
        session.step_finished.connect(self._on_step_finished)
        self._on_classes()
        self.begin(
            self.panel,
            self.words,
            self._choice,
            self.form,
            self.preview_wanted,
            self.buttons,
            self.problem,
            self.plots,
        )

    def shutdown(self) -> None:
        """Let go of the run and the viewer; a worker goes on by itself."""
        if self._is_open:
            self.preview.close()
        super().shutdown()

    def show_run(self, run: Run | None) -> None:
        """Forget the curves of another run, and take over the preset that this one was searched with."""
        self.clear()
        self._quality = None
        self._take_over_preset()

    def clear(self) -> None:
        """Show no curves."""
        self.plots.clear()

    def _take_over_preset(self) -> None:
        self.form.preset.setCurrentText(PRESET_WORDS[preset_of(self.run)])

    # -- what is there ---------------------------------------------------------------------------------------------

    @property
    def chosen_network(self) -> Network:
        """What is to be trained."""
        chosen: Network = self.network.currentData()
        return chosen

    @property
    def has_architecture(self) -> bool:
        """Whether a search left something to train."""
        return self.run is not None and self.run.architecture_file.is_file()

    @property
    def has_model(self) -> bool:
        """Whether a training left a model."""
        return self.run is not None and (self.run.model_folder / "model.json").is_file()

    def refresh(self) -> None:
        """Say what is needed or next, and offer it."""
        active = self.client.active
        missing = self.session.problem()
        searched = self.chosen_network == "searched"
        self._show_form()
        words, anew = "", ("Train from scratch ...", self.ask_anew)
        if active:
            self.offer(None)
        elif self.other_step is not None:
            words = self.other_step
            self.offer(("Start the training", self.start_training), enabled=False)
        elif self.client.can_resume and not self.is_starting_anew:
            words = "This training stopped early; it can continue from its last finished epoch."
            if self.has_model:
                words += " There is a model already: it can be applied in the step Apply, too."
            self.offer(("Continue the training", self.go_on), self._more_labels(missing))
        elif self.has_model and not self.is_starting_anew:
            words = self._result()
            if missing is None:
                words += " To make it better, correct or paint more, then continue from it. Or apply it: step Apply."
            else:
                words += f" Next: the step Apply. To continue with more labels, first: {escaped(missing)}"
            self.offer(self._more_labels(missing), anew if missing is None else None)
        elif searched and not self.has_architecture:
            words = (
                "<b>First:</b> search for an architecture in the step Search, or open a run that holds one. "
                "Or choose the plain chain, which needs no search."
            )
            self.offer(("Start the training", self.start_training), enabled=False)
        elif missing is not None and not self._run_has_data():
            words = f"<b>First:</b> {escaped(missing)}"
            self.offer(("Start the training", self.start_training), enabled=False)
        else:
            what = "the architecture that was found" if searched else "this network"
            source = "what is painted now" if missing is None else "the annotation that the run keeps"
            words = f"Trains {what} from scratch, in full detail, on {source}. The best epoch becomes the model."
            self.offer(("Start the training", self.start_training))
        self.words.setText(words)
        self.words.setVisible(bool(words))

    def _show_form(self) -> None:
        active, anew = self.client.active, self.is_starting_anew
        self.form.setVisible(not active and (anew or not self.client.can_resume))
        self._choice.setVisible(not active and (anew or not (self.has_model or self.client.can_resume)))

    def _more_labels(self, missing: str | None) -> tuple[str, Callable[[], None]] | None:
        if not self.has_model or missing is not None:
            return None
        return "Add labels and continue", self.continue_training

    def _result(self) -> str:
        quality = "" if self._quality is None else f" {in_html(self._quality)}"
        return f"<b>The model is trained.</b>{quality}"

    def _run_has_data(self) -> bool:
        try:
            return self.run is not None and "data" in self.run.read_config()
        except UserError:
            return False

    # -- jobs ------------------------------------------------------------------------------------------------------

    def start_training(self) -> None:
        """Train from scratch: in the run of the search, or in a new one when that holds a training already.

        Raises
        ------
        UserError
            When a setting does not do, or there is nothing to train on.
        """
        settings, session, network = self._settings(), self.session, self.chosen_network
        missing, split, run = session.problem(), session.split, self.run
        architecture = None
        if run is None or self._holds_training(run):
            if network == "searched" and run is not None:
                architecture = run.architecture_file.absolute()
            if missing is not None:
                raise UserError(missing)
            run = self.new_run()
        place = run

        def job() -> TrainJob:
            own: dict[str, Any] = {}
            if missing is None:
                data = session.export_annotation(place)
                own = {"images": data.images, "labels": data.labels, "classes": data.classes, "split": split}
            return TrainJob(network=network, architecture=architecture, settings=settings, device=session.device, **own)

        self.start(place, job)

    def continue_training(self) -> None:
        """Go on from the model with the annotation as it is now.

        Raises
        ------
        UserError
            When a setting does not do.
        """
        settings, session = self._settings(), self.session
        run = self.client.run

        def job() -> TrainJob:
            data = session.export_annotation(run)
            return TrainJob(
                images=tuple(data.images),
                labels=tuple(data.labels),
                classes=data.classes,
                split=session.split,
                settings=settings,
                device=session.device,
                continue_with=tuple(data.labels),
            )

        self.start(run, job)

    def _settings(self) -> TrainSettings:
        settings = self.form.value()
        assert isinstance(settings, TrainSettings)
        return settings

    @staticmethod
    def _holds_training(run: Run) -> bool:
        try:
            return run.config_file.exists() and "training" in run.read_config()
        except UserError:
            return False

    def on_finished(self) -> None:
        """Tell the dock."""
        self.session.step_finished.emit("retrain")

    def _on_step_finished(self, step: str) -> None:
        if step == "search":
            self._take_over_preset()
            self.refresh()

    def _take(self, event: Event) -> None:
        self.plots.add(event)
        if isinstance(event, QualityMeasured):
            self._quality = event.quality

    def _on_classes(self) -> None:
        self.plots.set_colors({each.name: each.color for each in self.session.classes})


def preset_of(run: Run | None) -> Preset:
    """The preset that a run was searched with, or what suits this computer."""
    if run is None:
        return likely_preset()
    from napari_autosegnet.jobs.configuration import RunConfiguration

    try:
        return RunConfiguration.load(run).preset if run.config_file.exists() else likely_preset()
    except UserError:
        return likely_preset()
