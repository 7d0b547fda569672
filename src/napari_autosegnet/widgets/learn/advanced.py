"""The paper's two steps, search and retraining, with all their settings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget

from napari_autosegnet.duration import format_duration
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.presets import PRESETS, Preset, search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import Network, SearchSettings, TrainSettings
from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.form_rows import add_row, form_layout
from napari_autosegnet.widgets.forms.message_line import MessageLine, wrapped_label
from napari_autosegnet.widgets.forms.settings_form import SettingsForm
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.learn.starting import LearningStart
from napari_autosegnet.widgets.session import Session

#: What the presets are for, in the order of the box.
PRESET_WORDS: dict[Preset, str] = {
    "fast": "fast (for a laptop)",
    "standard": "standard (for a graphics card)",
    "paper": "paper (large, needs hours on a graphics card)",
}
_NETWORKS: dict[Network, str] = {
    "searched": "the one that the search found",
    "plain": "plain chain, without a search",
    "unet": "U-Net, to compare with",
    "unet-half": "U-Net at half the resolution, to compare with",
    "pspnet": "PSPNet, to compare with",
    "forest": "forest on pixel features, fitted in seconds",
}


class AdvancedLearning(QWidget):
    """Settings and start of a search, and of a training from scratch.

    Parameters
    ----------
    session : Session
    client : RunClient
        Follows the session's run.
    starting : LearningStart
        Starts them.
    """

    def __init__(self, session: Session, client: RunClient, starting: LearningStart) -> None:
        super().__init__()
        self._session, self._client, self._starting = session, client, starting
        first = likely_preset()
        order = (first, *(preset for preset in PRESETS if preset != first))
        self.search_form = SettingsForm(SearchSettings, {PRESET_WORDS[each]: search_settings(each) for each in order})
        self.search_problem, self.train_problem = MessageLine(), MessageLine()
        self.search_button = push_button(
            "Start the search",
            "Finds an architecture for the annotation",
            lambda: self._attempt(self.start_search, self.search_problem),
        )
        self.network = QComboBox()
        for name, text in _NETWORKS.items():
            self.network.addItem(text, name)
        self.network.currentIndexChanged.connect(self.refresh)
        choice = form_layout()
        add_row(
            choice,
            "Network",
            self.network,
            "What is trained: what a search found, a plain chain of the same operations, a well known network, or the "
            "forest of the live labels",
        )
        self.train_form = SettingsForm(TrainSettings, {PRESET_WORDS[each]: train_settings(each) for each in PRESETS})
        self.train_words = wrapped_label()
        self.train_button = push_button(
            "Start the training",
            "Trains this network from scratch",
            lambda: self._attempt(self.start_training, self.train_problem),
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("<b>Search</b>"))
        for widget in (self.search_form, self.search_button, self.search_problem, QLabel("<b>Retrain</b>")):
            layout.addWidget(widget)
        layout.addLayout(choice)
        for widget in (self.train_form, self.train_words, self.train_button, self.train_problem):
            layout.addWidget(widget)

    @property
    def chosen_network(self) -> Network:
        """What is to be trained."""
        chosen: Network = self.network.currentData()
        return chosen

    @property
    def training_time(self) -> str:
        """How long a training takes at most; empty where only its epochs are limited, or nothing that can be read."""
        try:
            budget = self._train_settings().budget
        except UserError:
            return ""
        return "" if budget is None else format_duration(budget)

    def show_run(self, run: Run | None) -> None:
        """Take over the preset that a run was made with."""
        self.search_problem.clear()
        self.train_problem.clear()
        self.train_form.preset.setCurrentText(PRESET_WORDS[_preset_of(run)])

    def refresh(self) -> None:
        """Say what is missing, and offer what can be done."""
        run, missing = self._session.run, self._session.labeled_images.problem
        idle, searched = not self._client.active, self.chosen_network == "searched"
        self.search_button.setEnabled(idle and missing is None)
        words = ""
        if searched and (run is None or not run.has_architecture):
            words = "First search for an architecture, or choose the plain chain, which needs no search."
        elif missing is not None and (run is None or not _holds(run, "data")):
            words = missing
        # None of the settings of a training are a forest's.
        self.train_form.setVisible(self.chosen_network != "forest")
        self.train_words.setText(words)
        self.train_words.setVisible(bool(words))
        self.train_button.setEnabled(idle and not words)

    def start_search(self) -> None:
        """Write the annotation into a run folder and start a worker on it.

        Raises
        ------
        UserError
            When a setting cannot be used.
        """
        chosen = self.search_form.preset.currentText()
        job = {
            "preset": next(preset for preset, words in PRESET_WORDS.items() if words == chosen),
            "settings": self.search_form.value(),
            "device": self._session.device,
        }
        run, annotation = self._starting.new_run(), self._starting.annotation()
        self._starting.start(run, "search", lambda: SearchJob(**annotation(run), **job))

    def start_training(self) -> None:
        """Train from scratch: in the run of the search, or in a new one when that holds a model already.

        Raises
        ------
        UserError
            When a setting cannot be used, or there is nothing to train on.
        """
        session, network, run = self._session, self.chosen_network, self._session.run
        missing, annotation = session.labeled_images.problem, self._starting.annotation()
        job: dict[str, Any] = {"network": network, "settings": self._train_settings(), "device": session.device}
        if run is None or _holds(run, "training", "fit"):
            if network == "searched" and run is not None:
                job["architecture"] = run.architecture_file.absolute()
            if missing is not None:
                raise UserError(missing)
            run = self._starting.new_run()
        place = run
        self._starting.start(place, "train", lambda: TrainJob(**({} if missing else annotation(place)), **job))

    def continue_training(self) -> None:
        """Go on from the run's model with the annotation as it is now.

        Raises
        ------
        UserError
            When a setting cannot be used.
        """
        settings, run = self._train_settings(), self._client.run
        annotation, device = self._starting.annotation(), self._session.device

        def job() -> TrainJob:
            given = annotation(run)
            return TrainJob(**given, settings=settings, device=device, continue_with=given["labels"])

        self._starting.start(run, "train", job)

    def _attempt(self, action: Callable[[], None], line: MessageLine) -> None:
        line.attempt(action)
        self.refresh()

    def _train_settings(self) -> TrainSettings:
        settings = self.train_form.value()
        assert isinstance(settings, TrainSettings)
        return settings


def has_forest(run: Run | None) -> bool:
    """Whether what a run trains, or trained last, is a forest: it is always fitted anew."""
    return run is not None and _configuration(run).get("network") == "forest"


def _holds(run: Run, *parts: str) -> bool:
    """Whether a run's configuration has any of these parts."""
    return any(part in _configuration(run) for part in parts)


def _configuration(run: Run) -> dict[str, Any]:
    try:
        return run.read_config() if run.config_file.exists() else {}
    except UserError:
        return {}


def _preset_of(run: Run | None) -> Preset:
    """The preset that a run was made with, or what suits this computer."""
    if run is None:
        return likely_preset()
    from napari_autosegnet.jobs.configuration import RunConfiguration

    try:
        return RunConfiguration.load(run).preset if run.config_file.exists() else likely_preset()
    except UserError:
        return likely_preset()


def likely_preset() -> Preset:
    """The preset that this computer can be expected to manage."""
    has_card = shutil.which("nvidia-smi") is not None or sys.platform == "darwin"
    return "standard" if has_card else "fast"
