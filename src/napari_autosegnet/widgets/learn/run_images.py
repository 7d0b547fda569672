"""A button at the top of the dock: the images that the run learned from, while they are not open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.files.readers import LayerData, add_layers
from napari_autosegnet.widgets.files.run_layers import (
    AnnotatedImage,
    annotated_images,
    annotated_layers,
    annotation_alone,
)
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence, tool_tip
from napari_autosegnet.widgets.session import Session


class RunImages(QWidget):
    """Offers the images and annotation of the session's run while none of them is open, as after napari was closed.

    Parameters
    ----------
    session : Session
    """

    #: The images of this run, and their annotation, were opened.
    loaded = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._images: list[AnnotatedImage] = []
        self._is_loading = False
        self.button = QPushButton("Load the run's images")
        self.button.clicked.connect(self.load)
        self.message = MessageLine()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.message)
        session.run_changed.connect(self._on_run)
        session.annotation.pairs_changed.connect(self._on_layers)
        self._on_run(session.run)

    def load(self) -> None:
        """Open the images in a thread, those that are still there."""
        run, wanted = self._session.run, self._images
        self._is_loading = True
        self._show()
        self.message.say("Loading the images ...")

        def show(loaded: tuple[list[LayerData], list[str]]) -> None:
            self._is_loading = False
            layers, problems = loaded
            self.message.say(" ".join(sentence(each) for each in problems), "error")
            if self._is_chosen(run):
                add_layers(self._session.viewer, layers)
                self.loaded.emit(run)
            self._show()

        self._session.background.call(lambda: _read(wanted), show, self._refuse)

    def _on_run(self, run: Run | None) -> None:
        self._images = []
        self.message.clear()
        self._look()

    def _on_layers(self) -> None:
        if self._session.layers.images():
            self._show()
        else:
            self._look()

    def _look(self) -> None:
        """Ask the run for its images."""
        run = self._session.run

        def take(images: list[AnnotatedImage]) -> None:
            if self._is_chosen(run):
                self._images = images
                self._show()

        self._show()
        if run is not None and not self._is_loading:
            self._session.background.call(lambda: annotated_images(run.path), take, self._refuse)

    def _is_chosen(self, run: Run | None) -> bool:
        chosen = self._session.run
        return run is not None and chosen is not None and run.path == chosen.path

    def _is_open(self, annotated: AnnotatedImage) -> bool:
        """Whether an image, or its annotation, is in the viewer under its name or from its file."""
        names = {annotated.name, f"{annotated.name} annotation", re.sub(r" time \d+$", "", annotated.name)}
        return any(
            layer.name in names or (layer.source.path and Path(layer.source.path) == annotated.image)
            for layer in self._session.viewer.layers
        )

    def _refuse(self, why: str) -> None:
        self._is_loading = False
        self.message.say(sentence(why), "error")
        self._show()

    def _show(self) -> None:
        offered = bool(self._images) and not any(map(self._is_open, self._images)) and not self._is_loading
        self.button.setVisible(offered)
        self.button.setToolTip(tool_tip("Opens " + ", ".join(f"'{each.name}'" for each in self._images)))
        self.setVisible(offered or bool(self.message.text()))


def _read(images: Sequence[AnnotatedImage]) -> tuple[list[LayerData], list[str]]:
    """Layers of the images that can be opened, annotation alone of the others, and a line on each of these."""
    layers: list[LayerData] = []
    problems: list[str] = []
    for each in images:
        try:
            layers += annotated_layers(each)
            continue
        except UserError as error:
            problem = f"'{each.name}' cannot be opened: {error}"
        if not each.image.exists():
            problem = f"'{each.name}' is gone from {each.image}; open it from where it is now"
        try:
            layers.append(annotation_alone(each))
            problems.append(f"{sentence(problem)} Its annotation is loaded.")
        except UserError:
            problems.append(problem)
    return layers, problems
