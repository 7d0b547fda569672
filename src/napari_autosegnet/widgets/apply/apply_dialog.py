"""Dialog for a segmentation of a whole layer or of a file: what, where to, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qdebounced

from napari_autosegnet.addresses import absolute, address_of
from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.images import ImageStack, open_selected
from napari_autosegnet.data.readers.formats import parts_of
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.output.file_kinds import file_filters, file_kind, loss
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply.volume_advice import VolumeAdvice
from napari_autosegnet.widgets.forms.buttons import dialog_buttons, push_button
from napari_autosegnet.widgets.forms.form_rows import named
from napari_autosegnet.widgets.forms.message_line import MessageLine, capitalized, wrapped_label
from napari_autosegnet.widgets.forms.settings_form import SettingsForm
from napari_autosegnet.widgets.layers.layer_arrays import time_points
from napari_autosegnet.widgets.layers.layer_files import stack_with_placement
from napari_autosegnet.widgets.layers.view import time_in_view
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image

_FILE = "A file or folder ..."
#: Milliseconds after the last key until a file is looked at.
_PATIENCE = 300
#: Where napari could not follow, or what is of no use in a window.
_HIDDEN = ("format", "overwrite", "region", "sharded", "retries")


@dataclass(frozen=True)
class Chosen:
    """What is to be segmented: a layer or a file, and what of it; where to (None: a new store); and how.

    ``cubes`` are written first, and segmented.
    """

    source: Image | Path
    out: Path | None
    settings: PredictSettings
    read: Selection = ALL
    cubes: bool = False


class ApplyDialog(QDialog):
    """Asks what to segment.

    Parameters
    ----------
    session : Session
    classes : sequence of ClassInfo
        Of the model that is applied.
    parent : QWidget, optional
    """

    def __init__(self, session: Session, classes: Sequence[ClassInfo] = (), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Segment a whole stack")
        self._session = session
        self._images: list[Image] = session.layers.images()
        self.image_box = named(QComboBox(), "Image", "What is segmented: an open image, or a file of any size")
        self.image_box.addItems([image.name for image in self._images])
        self.image_box.addItem(_FILE)
        in_view = session.layers.image_in_view()
        self.image_box.setCurrentIndex(
            next((index for index, image in enumerate(self._images) if image is in_view), len(self._images))
        )
        self.image_box.currentTextChanged.connect(self._on_image)
        self._looks = _Looks()
        self._look_soon = qdebounced(self._look, timeout=_PATIENCE, parent=self)
        for gone in (self.finished, self.destroyed):
            gone.connect(self._looks.forget)
        self.file_line, file_row = _path_row(self._menu_of_sources())
        named(self.file_line, "File or folder", "Path or address of the image to segment")
        self.file_line.textChanged.connect(self._on_reading)
        self.reading = SettingsForm(Selection, {"": ALL})
        self.reading.changed.connect(self._on_reading)
        self._file_rows = (file_row, self.reading)
        out_button = named(
            push_button("...", "Choose where the result is written", self._choose_out), "Choose the result"
        )
        self.out_line, out_row = _path_row(out_button)
        self.out_line.setPlaceholderText("a new folder in the runs folder")
        named(
            self.out_line,
            "Result",
            "An OME-Zarr (.zarr), or a file for other programs (.mrc, .h5, .nii, .nii.gz, .tif)",
        )
        self.out_line.textChanged.connect(self._tell_loss)
        start = PredictSettings(workers=session.preferences.workers)
        self.form = SettingsForm(
            PredictSettings,
            {"": start},
            hidden=_HIDDEN,
            shown=("planes", "probabilities", "instances", "instance_growth", "instance_merge", "block", "workers"),
        )
        self.advice = VolumeAdvice(self.form, classes)
        self.message = MessageLine()
        self.time_label = wrapped_label()
        self.loss_label = wrapped_label()
        self.loss_label.hide()
        buttons, self.start_button = dialog_buttons(
            self, "Start", "In a program of its own: napari can be used meanwhile, or closed", self._on_start
        )
        rows = (("Image", self.image_box), *(("", row) for row in self._file_rows), ("Result", out_row))
        for place, (label, row) in enumerate(rows):
            self.form.rows.insertRow(place, label, row)
        layout = QVBoxLayout(self)
        layout.addWidget(self.form)
        layout.addWidget(self.time_label)
        layout.addWidget(self.loss_label)
        layout.addWidget(self.message)
        layout.addStretch(1)
        layout.addWidget(buttons)
        self.setMinimumWidth(420)
        self._on_image(self.image_box.currentText())
        self.chosen: Chosen | None = None

    def _menu_of_sources(self) -> QPushButton:
        button = named(QPushButton("..."), "Choose the file or folder", "Choose the image to segment")
        menu = QMenu(button)
        file_action = menu.addAction("File (TIFF, MRC, HDF5, NIfTI, DM4, PNG) ...")
        folder_action = menu.addAction("Folder (Zarr, OME-Zarr, images) ...")
        assert file_action is not None and folder_action is not None
        file_action.triggered.connect(self._choose_file)
        folder_action.triggered.connect(self._choose_folder)
        button.setMenu(menu)
        return button

    def _on_image(self, text: str) -> None:
        for row in self._file_rows:
            row.setVisible(text == _FILE)
        index = self.image_box.currentIndex()
        image = self._images[index] if index < len(self._images) else None
        time = None if image is None else time_in_view(self._session.viewer, image)
        self.time_label.setVisible(time is not None)
        if image is not None and time is not None:
            self.time_label.setText(
                f"Time point {time} (from 0) of {time_points(image)} is segmented, the one in view; "
                "move napari's time slider to choose another."
            )
        self._on_reading()

    @property
    def is_looking(self) -> bool:
        """Whether the voxels of the image are not known yet."""
        return self._looks.is_under_way

    def _on_reading(self) -> None:
        """Another image, or another part of it, is chosen: look at its voxels when it is clear which."""
        self._looks.begin()
        self.advice.take(None)
        self._look_soon()

    def _look(self) -> None:
        looks, number = self._looks, self._looks.number

        def take(image: ImageStack | None) -> None:
            if number == looks.number:
                looks.is_under_way = False
                self.advice.take(image)

        try:
            source, read = self._source()
        except UserError:
            take(None)  # said when it is started
            return
        if isinstance(source, Path) and address_of(source) is not None:
            take(None)  # a network may take long, and the worker says the same
            return
        self._session.background.call(partial(_opened, source, read), take, lambda _: take(None))

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Image to segment")
        if path:
            self.file_line.setText(path)

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Zarr or folder of images to segment")
        if path:
            self.file_line.setText(path)

    def _choose_out(self) -> None:
        endings = dict(file_filters())
        path, chosen = QFileDialog.getSaveFileName(
            self, "Result", str(self._session.runs_folder / "result"), ";;".join(endings)
        )
        if path:
            can_be = path.lower().endswith(".zarr") or file_kind(Path(path)) is not None
            self.out_line.setText(path if can_be else path + endings.get(chosen, ".zarr"))

    def _tell_loss(self, text: str) -> None:
        try:
            lost = loss(Path(text.strip()))
        except UserError:
            lost = None  # said when it is started
        self.loss_label.setVisible(lost is not None)
        self.loss_label.setText(f"{lost}. It is shown when it is finished and cannot be painted on." if lost else "")

    def _on_start(self) -> None:
        try:
            self.chosen = self.read()
        except UserError as error:
            self.message.say(capitalized(error), "error")
            return
        self.accept()

    def read(self) -> Chosen:
        """What was chosen.

        Raises
        ------
        UserError
            When something is missing or cannot be.
        """
        source, read = self._source()
        written = self.out_line.text().strip()
        out = Path(written).expanduser().absolute() if written else None
        if out is not None and out.suffix.lower() != ".zarr" and file_kind(out) is None:
            raise UserError(f"a result ends in .zarr, .mrc, .h5, .nii, .nii.gz or .tif, not '{out.name}'; change it")
        settings = self.form.value()
        assert isinstance(settings, PredictSettings)
        if settings.planes == "all" and self.is_looking:
            raise UserError("the size of the image's voxels is still being looked at; try again in a moment")
        cubes = self.advice.writes_cubes(settings)
        return Chosen(source, out, settings, read, cubes)

    def _source(self) -> tuple[Image | Path, Selection]:
        """The image, and what of it is read."""
        if self.image_box.currentIndex() < len(self._images):
            layer = self._images[self.image_box.currentIndex()]
            return layer, Selection(time_point=time_in_view(self._session.viewer, layer))
        text = self.file_line.text().strip()
        if not text:
            raise UserError("choose the file to segment")
        source = absolute(Path(text).expanduser())
        if address_of(source) is None and not parts_of(source)[0].exists():
            raise UserError(f"there is no file {source}; check the path")
        read = self.reading.value()
        assert isinstance(read, Selection)
        return source, read


class _Looks:
    """Looks at an image in a thread, of which the last one counts."""

    def __init__(self) -> None:
        self.number, self.is_under_way = 0, False

    def begin(self) -> None:
        self.number, self.is_under_way = self.number + 1, True

    def forget(self, _: object = None) -> None:
        """What comes now comes too late."""
        self.number += 1


def _opened(source: Image | Path, read: Selection) -> ImageStack:
    """The image as a job opens it; for a thread."""
    if isinstance(source, Path):
        return open_selected(source, read)
    return stack_with_placement(source, read.time_point or 0)


def _path_row(button: QPushButton) -> tuple[QLineEdit, QWidget]:
    line, row = QLineEdit(), QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(line, 1)
    layout.addWidget(button)
    return line, row
