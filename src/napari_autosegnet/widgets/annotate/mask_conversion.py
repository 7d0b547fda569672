"""Masks and numbered objects of other programs made annotation: read in a thread, and asked about where needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QComboBox, QDialog, QVBoxLayout, QWidget

from napari_autosegnet.data.numbered_objects import MAX_SEPARATE_CLASSES
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.annotate import mask_layer
from napari_autosegnet.widgets.annotate.mask_layer import MaskValues
from napari_autosegnet.widgets.forms.buttons import dialog_buttons
from napari_autosegnet.widgets.forms.form_rows import add_row, form_layout
from napari_autosegnet.widgets.forms.message_line import sentence, wrapped_label
from napari_autosegnet.widgets.layers.layer_arrays import spatial_shape
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image, Labels


NOT_ANNOTATED = "not annotated"


class MaskConversion(QObject):
    """Puts annotation in the place of a mask or of numbered objects, one at a time.

    Parameters
    ----------
    session : Session
    window : QWidget
        That a question belongs to.
    """

    #: A line for the user, and its kind.
    said = Signal(str, str)
    #: `is_busy` has another answer.
    busy_changed = Signal()

    def __init__(self, session: Session, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._window = window
        self.is_busy = False

    def convert(self, layer: Image) -> None:
        """Make annotation of a mask that napari opened as an image; asks which value is which class."""
        if not mask_layer.images_of_mask(self._session, layer):
            shape = " x ".join(map(str, spatial_shape(layer)))
            self.said.emit(f"No other image is {shape} as '{layer.name}' is. Open the image of this mask.", "error")
            return
        closing = self._session.background.closing
        self._read(layer, lambda: mask_layer.find_values(layer, closing), lambda values: self._take(layer, values))

    def use_mask(self, layer: Image, values: MaskValues, meaning: mask_layer.Meaning) -> None:
        """Put annotation in the place of a mask; ``meaning`` says which class each of its values is."""
        session = self._session
        try:
            painted = mask_layer.class_values(session, meaning)
        except UserError as error:
            self.said.emit(sentence(error), "error")
            return

        def show(pixels: Any) -> None:
            if pixels is not None and any(layer is each for each in session.viewer.layers):
                mask_layer.use_as_annotation(session, layer, meaning, pixels)
                classes = ", ".join(
                    f"{values.text(value)} is {name or 'not annotated'}" for value, name in meaning.items()
                )
                self.said.emit(f"'{layer.name}' is annotation now: {classes}.", "good")

        closing = session.background.closing
        read = partial(mask_layer.read_mask, layer, painted, closing, colors=values.are_colors, edges=values.edges)
        self._read(layer, read, show)

    def use_as_one_class(self, layer: Labels) -> None:
        """Make one class of all objects of a layer."""
        session = self._session
        values = mask_layer.object_values(session, layer)

        def show(pixels: Any) -> None:
            if pixels is not None and any(layer is each for each in session.viewer.layers):
                mask_layer.use_one_class(session, layer, pixels)
                self.said.emit(
                    f"The objects of '{layer.name}' are one class now, 'object'; around them is 'background'. "
                    "Sections without objects are not annotated.",
                    "good",
                )

        self._read(layer, partial(mask_layer.read_one_class, layer, values, session.background.closing), show)

    def _take(self, layer: Image, values: MaskValues) -> None:
        """Ask what the values of a mask are; what looks like numbered objects is asked about as a layer of such is."""
        if values.are_colors or sum(value > 0 for value in values.pixels) <= MAX_SEPARATE_CLASSES:
            self._ask(layer, values)
            return

        def take(objects: Any) -> None:
            if objects is None:
                self._ask(layer, values)
            else:
                mask_layer.use_as_objects(self._session, layer, objects)

        closing = self._session.background.closing
        self._read(layer, lambda: mask_layer.read_objects(layer, closing), take)

    def _ask(self, layer: Image, values: MaskValues) -> None:
        classes = self._session.annotation.class_list
        names = [] if classes.are_defaults else [each.name for each in classes.label_classes]
        meaning = mask_layer.suggested_meaning(values, classes)
        dialog = MaskDialog(layer.name, values, meaning, names, self._window)
        dialog.finished.connect(dialog.deleteLater)
        dialog.accepted.connect(lambda: self.use_mask(layer, values, dialog.meaning))
        dialog.open()

    def _read(self, layer: Image | Labels, read: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def take(result: Any) -> None:
            self._set_busy(False)
            self.said.emit("", "info")
            then(result)

        def refuse(text: str) -> None:
            self._set_busy(False)
            self.said.emit(sentence(text), "error")

        self._set_busy(True)
        self.said.emit(f"Reading '{layer.name}' ...", "info")
        self._session.background.call(read, take, refuse)

    def _set_busy(self, is_busy: bool) -> None:
        self.is_busy = is_busy
        self.busy_changed.emit()


class MaskDialog(QDialog):
    """A row for each value: a class that there is, the name of a new one, or not annotated.

    Parameters
    ----------
    name : str
        Of the mask.
    values : MaskValues
    suggested : Mapping[int, str | None]
        What is filled in at first; None: not annotated.
    classes : sequence of str
        Names of the classes that there are.
    parent : QWidget, optional
    """

    def __init__(
        self,
        name: str,
        values: MaskValues,
        suggested: Mapping[int, str | None],
        classes: Sequence[str],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Use as annotation")
        kind = "color" if values.are_colors else "value"
        question = f"Which class is each {kind} of '{name}'? Choose one, or type the name of a new one."
        if values.edges is not None:
            question += " Its edges are soft: the values in between count as the nearest of these."
        intro = wrapped_label(question)
        self.boxes: dict[int, QComboBox] = {}
        rows = form_layout()
        total = sum(values.pixels.values())
        for value, pixels in values.pixels.items():
            box = self.boxes[value] = QComboBox()
            box.setEditable(True)
            box.addItems(list(dict.fromkeys((NOT_ANNOTATED, *classes, *filter(None, suggested.values())))))
            box.setCurrentText(suggested[value] or NOT_ANNOTATED)
            text = f"{values.text(value)}  ({pixels / total:.1%} of the pixels)"
            label = add_row(rows, text, box, f"Class of the pixels with this {kind}")
            if values.are_colors:
                label.setText(f'<span style="color: {values.text(value)}">\N{BLACK SQUARE}</span> {text}')
        buttons, self.use_button = dialog_buttons(
            self, "Use as annotation", "Makes an annotation layer of it; the mask stays as it is", self.accept
        )
        layout = QVBoxLayout(self)
        layout.addWidget(intro)
        layout.addLayout(rows)
        layout.addWidget(buttons)
        self.setMinimumWidth(380)

    @property
    def meaning(self) -> dict[int, str | None]:
        """The class of each value, as filled in."""
        texts = {value: box.currentText().strip() for value, box in self.boxes.items()}
        return {value: None if text in ("", NOT_ANNOTATED) else text for value, text in texts.items()}
