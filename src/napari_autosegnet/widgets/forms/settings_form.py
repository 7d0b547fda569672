"""A form made from a settings model: descriptions as tool tips, advanced fields folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from qtpy.QtCore import QEvent, QObject, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from napari_autosegnet.duration import format_duration, parse_duration
from napari_autosegnet.errors import UserError, requirement
from napari_autosegnet.setting_fields import SettingField, setting_fields, title
from napari_autosegnet.widgets.forms.form_rows import FoldedSection, add_row, form_layout


class SettingsForm(QWidget):
    """Fields of a settings model to fill in.

    Parameters
    ----------
    model : type of BaseModel
        Its fields become rows; those of nested models too, under the name of the nested model.
    presets : Mapping[str, BaseModel]
        Values to start from by name; with more than one there is a box to choose from. The first one is shown.
    hidden : sequence of str
        Fields that keep the preset's value.
    shown : sequence of str, optional
        Fields that are not folded away; those that are not marked advanced by default.

    Attributes
    ----------
    rows : QFormLayout
        The rows that are not folded away, for whoever has more to ask.
    """

    #: The user changed something.
    changed = Signal()

    def __init__(
        self,
        model: type[BaseModel],
        presets: Mapping[str, BaseModel],
        hidden: Sequence[str] = (),
        shown: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._model = model
        self._presets = dict(presets)
        self._value: BaseModel = next(iter(self._presets.values()))
        self._editors: dict[tuple[str, ...], _Editor] = {}
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        form = self.rows = form_layout()
        outer.addLayout(form)
        self.preset = QComboBox()
        self.preset.addItems(list(self._presets))
        narrow(self.preset)
        self.preset.currentTextChanged.connect(self._on_preset)
        if len(self._presets) > 1:
            add_row(form, "Preset", self.preset, "Settings that fit together; any of them can be changed below")
        else:
            self.preset.setParent(self)
            self.preset.hide()
        inner = QWidget()
        folded = form_layout()
        inner.setLayout(folded)
        section = ""
        for field in setting_fields(model):
            if field.path[0] in hidden:
                continue
            # Models within the model are for the curious.
            is_folded = len(field.path) > 1 or field.is_advanced if shown is None else field.path[0] not in shown
            editor = _Editor(field, self)
            editor.edited.connect(self.changed)
            self._editors[field.path] = editor
            if is_folded and field.path[:-1] and field.path[0] != section:
                section = field.path[0]
                heading = QLabel(f"<b>{title(section, model.model_fields[section])}</b>")
                folded.addRow(heading)
            add_row(folded if is_folded else form, editor.title, editor.widget, editor.tip)
        self.advanced = FoldedSection("Advanced", inner)
        outer.addWidget(self.advanced)
        self.advanced.setVisible(folded.rowCount() > 0)
        self.set_value(self._value)

    def show_field(self, name: str, shown: bool) -> None:
        """Show or hide the row of a field that is not folded away."""
        self.rows.setRowVisible(self._editors[name,].widget, shown)

    def add_below(self, name: str, widget: QWidget) -> None:
        """Put something below the row of a field that is not folded away."""
        place = self.rows.getWidgetPosition(self._editors[name,].widget)[0]  # type: ignore[index]
        self.rows.insertRow(place + 1, widget)

    def set_value(self, value: BaseModel) -> None:
        """Show these settings."""
        self._value = value
        for editor in self._editors.values():
            editor.show_value(editor.field.value_in(value))

    def value(self) -> BaseModel:
        """The settings as filled in.

        Raises
        ------
        UserError
            Names the first field that cannot be read or is out of its range.
        """
        content = self._value.model_dump()
        for path, editor in self._editors.items():
            section = content
            for part in path[:-1]:
                section = section[part]
            section[path[-1]] = editor.read()
        try:
            return self._model.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = tuple(str(part) for part in first["loc"])
            message = requirement(first)
            if first["type"] == "missing":  # one of several numbers
                message = "has too few numbers"
            field = next((one for path, one in self._editors.items() if place[: len(path)] == path), None)
            if field is None:
                raise UserError(message) from error
            raise UserError(f"'{field.title}' {message}, not {field.text()}") from error

    def _on_preset(self, name: str) -> None:
        self.set_value(self._presets[name])
        self.changed.emit()


def narrow(box: QComboBox) -> None:
    """Let a box be narrower than its longest choice, so that it fits a dock."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)


class _Editor(QObject):
    """The row of one field."""

    edited = Signal()

    def __init__(self, field: SettingField, parent: QWidget) -> None:
        super().__init__(parent)
        self.field = field
        self.title = field.title
        self.tip = field.description
        self.widget: QWidget
        if field.kind is bool:
            self.widget = QCheckBox()
            self.widget.toggled.connect(self.edited)
        elif field.choices:
            box = QComboBox()
            for choice in field.choices:
                box.addItem(field.extra.get("words", {}).get(choice, str(choice)), choice)
            if isinstance(field.kind, tuple):  # ... or a number
                box.setEditable(True)
                box.editTextChanged.connect(self.edited)
            else:
                box.currentIndexChanged.connect(self.edited)
            box.installEventFilter(self)
            narrow(box)
            self.widget = box
        else:
            line = QLineEdit()
            line.textEdited.connect(self.edited)
            if field.is_optional:
                line.setPlaceholderText(str(field.extra.get("empty", "automatic")))
            self.widget = line
        self.widget.setObjectName(".".join(field.path))
        policy = self.widget.sizePolicy()
        policy.setHorizontalPolicy(QSizePolicy.Policy.Expanding)
        self.widget.setSizePolicy(policy)
        self.widget.setMinimumWidth(60)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Keep the wheel from changing a value while the dock is scrolled."""
        if (
            event is not None
            and event.type() == QEvent.Type.Wheel
            and isinstance(watched, QComboBox)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return super().eventFilter(watched, event)

    def text(self) -> str:
        if isinstance(self.widget, QComboBox):
            return self.widget.currentText()
        if isinstance(self.widget, QCheckBox):
            return "yes" if self.widget.isChecked() else "no"
        assert isinstance(self.widget, QLineEdit)
        return self.widget.text().strip() or "nothing"

    def show_value(self, value: Any) -> None:
        if isinstance(self.widget, QCheckBox):
            self.widget.setChecked(bool(value))
        elif isinstance(self.widget, QComboBox):
            index = self.widget.findData(value)
            if index >= 0:
                self.widget.setCurrentIndex(index)
            else:
                self.widget.setEditText(str(value))
        else:
            assert isinstance(self.widget, QLineEdit)
            self.widget.setText(self._written(value))

    def _written(self, value: Any) -> str:
        if value is None:
            return ""
        if self.field.name == "budget":
            return format_duration(value)
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def read(self) -> Any:
        """What is filled in, for pydantic to judge.

        Raises
        ------
        UserError
            When it cannot be read at all.
        """
        if isinstance(self.widget, QCheckBox):
            return self.widget.isChecked()
        if isinstance(self.widget, QComboBox):
            if not self.widget.isEditable():
                return self.widget.currentData()
            text = self.widget.currentText().strip()
            return text if text in self.field.choices else self._number(text, int)
        assert isinstance(self.widget, QLineEdit)
        text = self.widget.text().strip()
        if not text:
            if self.field.is_optional:
                return None
            raise UserError(f"'{self.title}' is empty; fill it in")
        if self.field.name == "budget":
            try:
                return parse_duration(text)
            except UserError as error:
                raise UserError(f"'{self.title}': {error}") from error
        if self.field.members:
            parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
            is_numbers = self.field.members[0] is int
            return tuple(self._number(part, int) for part in parts) if is_numbers else tuple(parts)
        if self.field.kind in (int, float):
            return self._number(text, self.field.kind)
        return text

    def _number(self, text: str, kind: type[int] | type[float]) -> float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            words = self.field.choices
            either = f"{', '.join(map(str, words))} or " if words else ""
            raise UserError(f"'{self.title}' must be {either}{what}, not {text or 'nothing'}") from None
