"""Dialog that asks which value of a mask is which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtWidgets import QComboBox, QDialog, QVBoxLayout, QWidget

from napari_autosegnet.widgets.annotate.mask_layer import MaskValues
from napari_autosegnet.widgets.forms.buttons import dialog_buttons
from napari_autosegnet.widgets.forms.form_rows import add_row, form_layout
from napari_autosegnet.widgets.forms.message_line import wrapped_label

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
