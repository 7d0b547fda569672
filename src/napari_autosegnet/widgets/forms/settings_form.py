"""A form made from a settings model: descriptions as tool tips, advanced fields folded away."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from napari_autosegnet.duration import format_duration, parse_duration
from napari_autosegnet.errors import UserError, requirement
from napari_autosegnet.widgets.forms.form_rows import FoldedSection, add_row, form_layout

#: Words for fields whose name alone would not say it.
TITLES = {
    "budget": "Time",
    "epochs": "Most epochs",
    "strategy": "Search by",
    "validation_fraction": "Share to check with",
    "train_sections": "Sections to learn from",
    "validation_sections": "Sections to check with",
    "halo": "Surroundings",
    "workers": "Processes",
    "levels": "Resolution levels",
    "probabilities": "Keep probabilities",
    "instances": "Number single objects",
    "tile": "Tile size",
    "flips": "Mirrored copies",
    "context": "Neighbouring sections",
    "network": "Size of the network",
    "augmentation": "Random changes of patches",
    "space": "What may be chosen",
}
#: Fields that are folded away here, though the command line lists them among the first.
FOLDED = {"seed"}
#: What an empty field means.
EMPTY = {"budget": "no limit", "epochs": "no limit", "stop_loss": "not used", "stop_accuracy": "not used"}
#: Words for values.
CHOICES = {"reinforce": "learning (as in the paper)", "random": "chance", "evolution": "evolution"}


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
    parent : QWidget, optional

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
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
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
        for field in _fields(model):
            if field.path[0] in hidden:
                continue
            is_folded = field.is_advanced if shown is None else field.path[0] not in shown
            editor = _Editor(field, self)
            editor.edited.connect(self.changed)
            self._editors[field.path] = editor
            if is_folded and field.path[:-1] and field.path[0] != section:
                section = field.path[0]
                heading = QLabel(f"<b>{title(section)}</b>")
                folded.addRow(heading)
            add_row(folded if is_folded else form, editor.title, editor.widget, editor.tip)
        self.advanced = FoldedSection("Advanced", inner)
        outer.addWidget(self.advanced)
        self.advanced.setVisible(folded.rowCount() > 0)
        self.set_value(self._value)

    def set_value(self, value: BaseModel) -> None:
        """Show these settings."""
        self._value = value
        for path, editor in self._editors.items():
            editor.show_value(_at(value, path))

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


def title(name: str) -> str:
    """Words for a field's name."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


@dataclass(frozen=True)
class _Field:
    path: tuple[str, ...]
    info: FieldInfo
    kind: Any
    optional: bool

    @property
    def is_advanced(self) -> bool:
        extra = self.info.json_schema_extra
        return len(self.path) > 1 or self.path[0] in FOLDED or (isinstance(extra, dict) and bool(extra.get("advanced")))


def _fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[_Field]:
    nested = []
    for name, info in model.model_fields.items():
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("computed"):
            continue
        kind, optional = _plain(info.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            nested.append((name, kind))
        else:
            yield _Field((*path, name), info, kind, optional)
    for name, kind in nested:
        yield from _fields(kind, (*path, name))


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The annotation without ``None`` and pydantic's constraints, and whether None was in it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        optional = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return _plain(members[0])[0], optional
        return tuple(_plain(member)[0] for member in members), optional
    return annotation, False


def _at(value: BaseModel, path: tuple[str, ...]) -> Any:
    found: Any = value
    for part in path:
        found = getattr(found, part)
    return found


class _Editor(QObject):
    """The row of one field."""

    edited = Signal()

    def __init__(self, field: _Field, parent: QWidget) -> None:
        super().__init__(parent)
        self.field = field
        self.title = title(field.path[-1])
        self.tip = field.info.description or self.title
        self.widget: QWidget
        choices = _literals(field.kind)
        if field.kind is bool:
            self.widget = QCheckBox()
            self.widget.toggled.connect(self.edited)
        elif choices:
            box = QComboBox()
            for choice in choices:
                box.addItem(CHOICES.get(str(choice), str(choice)), choice)
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
            line.setPlaceholderText(self._placeholder())
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

    def _placeholder(self) -> str:
        return EMPTY.get(self.field.path[-1], "automatic") if self.field.optional else ""

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
        if self.field.path[-1] == "budget":
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
            return text if text in _literals(self.field.kind) else self._number(text, int)
        assert isinstance(self.widget, QLineEdit)
        text = self.widget.text().strip()
        if not text:
            if self.field.optional:
                return None
            raise UserError(f"'{self.title}' is empty; fill it in")
        if self.field.path[-1] == "budget":
            try:
                return parse_duration(text)
            except UserError as error:
                raise UserError(f"'{self.title}': {error}") from error
        if get_origin(self.field.kind) is tuple:
            parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
            member = _plain(get_args(self.field.kind)[0])[0]
            return tuple(self._number(part, int) for part in parts) if member is int else tuple(parts)
        if self.field.kind in (int, float):
            return self._number(text, self.field.kind)
        return text

    def _number(self, text: str, kind: type[int] | type[float]) -> float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            words = _literals(self.field.kind)
            either = f"{', '.join(map(str, words))} or " if words else ""
            raise UserError(f"'{self.title}' must be {either}{what}, not {text or 'nothing'}") from None


def _literals(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if isinstance(kind, tuple):
        return tuple(word for member in kind for word in _literals(member))
    return ()
