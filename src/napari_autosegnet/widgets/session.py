"""What the three steps share: the viewer and its annotation, the run, and the jobs that are under way."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotation import annotation_export
from napari_autosegnet.widgets.annotation.annotation import Annotation
from napari_autosegnet.widgets.annotation.labeled_images import LabeledImages
from napari_autosegnet.widgets.annotation.layer_pairs import LayerPairs
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.jobs.work_list import WorkList
from napari_autosegnet.widgets.preferences import Preferences, read_preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Session(QObject):
    """Shared state of the three steps of a dock.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Its layers are what is annotated and segmented. A proxy, which napari gives to plugins, will do, too.

    Attributes
    ----------
    viewer : ViewerModel
    preferences : Preferences
        Runs folder, device and number of workers, from napari's preferences.
    background : Background
        A thread for whatever reads files or many pixels.
    layers : LayerPairs
        Which layers there are, and which belong together.
    annotation : Annotation
        Of these layers.
    labeled_images : LabeledImages
        What of it is learned from, and what is missing.
    work : WorkList
        The jobs that are under way, whichever run is chosen.
    """

    #: Another run (or None) was chosen.
    run_changed = Signal(object)
    #: A step is done ("annotate", "learn", "apply"): the dock may offer the next one.
    step_finished = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        # A proxy makes a new object of a layer at every look, and here layers are known by their identity.
        viewer = inspect.unwrap(viewer)
        self.viewer = viewer
        self.background = Background(self)
        self.layers = LayerPairs(viewer)
        self._run: Run | None = None
        self.annotation = Annotation(self.layers, self.background, self)
        self.labeled_images = LabeledImages(self.annotation, self.background, self)
        self.work = WorkList(lambda: (self.runs_folder, self._run), self.background, self)

    def close(self) -> None:
        """Let go of the viewer; the session is of no use after this."""
        self.annotation.close()
        self.work.close()
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
