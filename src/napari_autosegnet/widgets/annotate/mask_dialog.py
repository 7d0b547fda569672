"""Dialog that asks which value of a mask is which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_autosegnet.widgets.annotate.mask_layer import MaskValues
from napari_autosegnet.widgets.forms.form_rows import add_row, form_layout

NOT_ANNOTATED = "not annotated"


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
        intro = QLabel(f"Which class is each value of '{name}'? Choose one, or type the name of a new one.")
        intro.setWordWrap(True)
        self.boxes: dict[int, QComboBox] = {}
        rows = form_layout()
        total = sum(values.pixels.values())
        for value, pixels in values.pixels.items():
            box = self.boxes[value] = QComboBox()
            box.setEditable(True)
            box.addItems(list(dict.fromkeys((NOT_ANNOTATED, *classes, *filter(None, suggested.values())))))
            box.setCurrentText(suggested[value] or NOT_ANNOTATED)
            text = f"{values.text(value)}  ({pixels / total:.1%} of the pixels)"
            label = add_row(rows, text, box, "Class of the pixels with this value")
            if values.are_colors:
                label.setText(f'<span style="color: {values.text(value)}">\N{BLACK SQUARE}</span> {text}')
        buttons = QDialogButtonBox()
        cancel = buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        if cancel is not None:
            cancel.setToolTip("Nothing is done")
        self.use_button = QPushButton("Use as annotation")
        self.use_button.setToolTip("Makes an annotation layer of it; the mask stays as it is")
        self.use_button.setDefault(True)
        buttons.addButton(self.use_button, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
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
