"""What the dialog for a whole stack says of three planes and of single objects, in view of the image's voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QLabel

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.cubes import Cubes, check_isotropic, is_isotropic
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.instances.objects import describe_growth, describe_merging
from napari_autosegnet.plain_text import printable
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import unit_symbol
from napari_autosegnet.widgets.forms.form_rows import named
from napari_autosegnet.widgets.forms.message_line import sentence, wrapped_label
from napari_autosegnet.widgets.forms.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

#: Rows that are of use only where objects are numbered.
_OF_OBJECTS = ("instance_growth", "instance_merge")


class VolumeAdvice:
    """Lines below *Planes* and *Number single objects* of a form, and the offer to write cubes first.

    Parameters
    ----------
    form : SettingsForm
        Of `PredictSettings`.
    classes : sequence of ClassInfo
        Of the model; none where it is not known.

    Attributes
    ----------
    planes_label, objects_label : QLabel
        Hidden where there is nothing to say.
    cubes_box : QCheckBox
        Whether cubes are written first; only seen where that is possible.
    """

    def __init__(self, form: SettingsForm, classes: Sequence[ClassInfo] = ()) -> None:
        self._form, self._classes = form, classes
        self._image: ImageStack | None = None
        self.planes_label, self.objects_label = wrapped_label(), wrapped_label()
        self.cubes_box = named(
            QCheckBox("Write cubes first and segment these"),
            "Write cubes first",
            "Sections between those of the stack are interpolated and written to a new store beside the result",
        )
        form.add_below("planes", self.cubes_box)
        form.add_below("planes", self.planes_label)
        form.add_below("instance_merge", self.objects_label)
        form.changed.connect(self.refresh)
        self.refresh()

    def take(self, image: ImageStack | None) -> None:
        """The image that is chosen; None where it is not known yet, or cannot be read."""
        self._image = image
        self.refresh()

    def writes_cubes(self, settings: PredictSettings) -> bool:
        """Whether cubes are to be written first.

        Raises
        ------
        UserError
            When three planes are asked for that the image does not have.
        """
        if settings.planes != "all" or self._image is None:
            return False  # whoever opens the image refuses it
        if not self.cubes_box.isHidden():
            if not self.cubes_box.isChecked():
                raise UserError(f"{self._voxels(self._image)}; tick 'Write cubes first', or choose the plane xy")
            return True
        if self._image.sections > 1 and not is_isotropic(self._image):
            Cubes(self._image)  # which says why they cannot be made
        check_isotropic(self._image)
        return False

    def refresh(self) -> None:
        """Say what the form means."""
        try:
            settings = self._form.value()
        except UserError:
            return  # said when it is started
        assert isinstance(settings, PredictSettings)
        for name in _OF_OBJECTS:
            self._form.show_field(name, settings.instances)
        self._show(self.objects_label, self._of_objects(settings) if settings.instances else "")
        text, can_be_cubes = self._of_planes(settings)
        self._show(self.planes_label, text)
        self.cubes_box.setVisible(can_be_cubes)

    @staticmethod
    def _show(label: QLabel, text: str) -> None:
        label.setText(printable(text))
        label.setVisible(bool(text))

    def _of_objects(self, settings: PredictSettings) -> str:
        lines = []
        if self._image is not None and self._image.sections > 1:
            lines.append(describe_growth(self._image, settings))
        if self._classes:
            try:
                lines.append(describe_merging(self._classes, settings))
            except UserError as error:
                lines.append(str(error))
        return " ".join(map(sentence, lines))

    def _of_planes(self, settings: PredictSettings) -> tuple[str, bool]:
        """What is said, and whether cubes can be written."""
        image = self._image
        if settings.planes != "all" or image is None:
            return "", False
        if image.sections == 1:
            return "One section has no other planes; choose xy.", False
        if image.voxels_are_unknown:
            return "The image says nothing of its voxels; they are taken for cubes.", False
        if is_isotropic(image):
            return "", False
        try:
            cubes = Cubes(image)
        except UserError as error:
            return sentence(error), False
        return (
            f"{sentence(self._voxels(image))} As cubes, the volume has {cubes.shape[0]} sections instead of "
            f"{image.sections}, {_size(cubes.bytes)} before they are compressed.",
            True,
        )

    @staticmethod
    def _voxels(image: ImageStack) -> str:
        z, y, x = (f"{abs(side):.4g}" for side in image.scale)
        return f"voxels are {z} x {y} x {x} {unit_symbol(image.unit)}, and three planes need cubes"


def _size(number: int) -> str:
    """Bytes for a person: ``1.2 GB``."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
