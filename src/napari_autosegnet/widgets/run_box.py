"""The list of runs at the top of the dock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QSizePolicy

from napari_autosegnet.plain_text import printable
from napari_autosegnet.run import Run, is_run
from napari_autosegnet.widgets.forms.form_rows import named
from napari_autosegnet.widgets.forms.message_line import tool_tip
from napari_autosegnet.widgets.jobs.run_list import RunEntry, newest_runs
from napari_autosegnet.widgets.session import Session

_NO_RUN = "new run"
_OTHER = "open another folder ..."


class RunBox(QComboBox):
    """Shows the session's run, and the others of the runs folder to choose from.

    Parameters
    ----------
    session : Session
    """

    #: A folder was chosen.
    chosen = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._listed: list[RunEntry] = []
        named(self, "Run", "A run is a folder that keeps annotation, search, network and curves")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.activated.connect(self._on_activated)
        session.run_changed.connect(self._on_run_changed)
        session.work.changed.connect(self.look)
        self._show([])

    def look(self, then: Callable[[list[RunEntry]], None] | None = None) -> None:
        """Look for runs in the thread, and call ``then`` with them."""
        folder = self._session.runs_folder

        def take(entries: list[RunEntry]) -> None:
            self._show(entries)
            if then is not None:
                then(entries)

        self._session.background.call(lambda: newest_runs(folder), take)

    def _show(self, entries: list[RunEntry]) -> None:
        self._listed = [entry for entry in entries if entry.kind == "network"]
        run = self._session.run
        if run is not None and all(entry.path != run.path for entry in self._listed):
            self._listed.insert(0, RunEntry(run.path, "network", False, 0.0))
        self.clear()
        self.addItem(_NO_RUN)
        for entry in self._listed:
            name = printable(entry.path.name)
            self.addItem(f"{name} (working)" if entry.active else name)
            self.setItemData(self.count() - 1, tool_tip(entry.path), Qt.ItemDataRole.ToolTipRole)
        self.addItem(_OTHER)
        self._show_chosen()

    def _show_chosen(self) -> None:
        run = self._session.run
        index = next((at for at, entry in enumerate(self._listed, 1) if run and entry.path == run.path), 0)
        self.setCurrentIndex(index)

    def _on_run_changed(self) -> None:
        self._show(self._listed)
        self.look()

    def _on_activated(self, index: int) -> None:
        if index == self.count() - 1:
            folder = QFileDialog.getExistingDirectory(self, "Run folder", str(self._session.runs_folder))
            if folder:
                self.chosen.emit(Path(folder))
            self._show_chosen()
        elif index == 0:
            self._session.run = None
        else:
            self.chosen.emit(self._listed[index - 1].path)


def why_not_a_run(path: Path) -> str:
    """What speaks against working in a folder, such as files that are no run's; empty when nothing does."""
    refusal = Run(path).refusal
    if refusal is not None:
        return f"{refusal}."
    if not path.exists() or is_run(path):
        return ""
    if (path / "events.jsonl").is_file() or (path / "model" / "model.json").is_file():
        return ""  # a run of which little is left, or that ended before it began
    try:
        others = [each.name for each in path.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}."
    if not others:
        return ""
    return f"'{path.name}' is not a run folder; it holds '{min(others)}'. Choose a run folder or an empty one."
