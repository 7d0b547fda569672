from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit

from napari_autosegnet.errors import UserError
from napari_autosegnet.presets import FIT_PRESETS, PRESETS, fit_settings, search_settings, train_settings
from napari_autosegnet.settings import FitSettings, PredictSettings, SearchSettings, SplitSettings, TrainSettings
from napari_autosegnet.widgets.forms.settings_form import SettingsForm

MODELS: list[tuple[type[BaseModel], dict[str, BaseModel]]] = [
    (SearchSettings, {name: search_settings(name) for name in PRESETS}),
    (FitSettings, {name: fit_settings(name) for name in FIT_PRESETS}),
    (TrainSettings, {name: train_settings(name) for name in PRESETS}),
    (PredictSettings, {"": PredictSettings()}),
    (SplitSettings, {"": SplitSettings()}),
]


def make(qtbot: Any, model: type[BaseModel], presets: dict[str, BaseModel], **more: Any) -> SettingsForm:
    form = SettingsForm(model, presets, **more)
    qtbot.addWidget(form)
    return form


@pytest.mark.parametrize(("model", "presets"), MODELS)
def test_a_form_gives_back_what_it_shows(model: type[BaseModel], presets: dict[str, BaseModel], qtbot: Any) -> None:
    form = make(qtbot, model, presets)
    for name, settings in presets.items():
        form.preset.setCurrentText(name)
        assert form.value() == settings


def test_every_field_has_its_description_as_tool_tip(qtbot: Any) -> None:
    form = make(qtbot, TrainSettings, {"": train_settings()})
    for name, field in TrainSettings.model_fields.items():
        for kind in (QLineEdit, QComboBox, QCheckBox):
            editor = form.findChild(kind, name)
            if editor is not None:
                assert editor.toolTip() == field.description
    assert form.findChild(QLineEdit, "augmentation.elastic") is not None


def test_advanced_fields_are_folded_away(qtbot: Any) -> None:
    form = make(qtbot, SearchSettings, {"": search_settings()})
    form.show()
    budget, momentum = form.findChild(QLineEdit, "budget"), form.findChild(QLineEdit, "optimization.momentum")
    assert budget.height() > 10 and form.advanced.content.isHidden()
    assert form.advanced.isAncestorOf(momentum) and not form.advanced.isAncestorOf(budget)
    chosen = make(qtbot, PredictSettings, {"": PredictSettings()}, hidden=("overwrite",), shown=("block",))
    assert chosen.findChild(QCheckBox, "overwrite") is None
    assert chosen.advanced.isAncestorOf(chosen.findChild(QCheckBox, "probabilities"))
    assert not chosen.advanced.isAncestorOf(chosen.findChild(QLineEdit, "block"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("epochs", "many", "'Maximum epochs' must be a whole number, not many"),
        ("epochs", "0", "'Maximum epochs' must be at least 1, not 0"),
        ("seed", "", "'Seed' is empty"),
        ("budget", "", "it would never end; give a number of epochs or a time budget"),
        ("budget", "soon", "'Time': 'soon' is not a time"),
        ("optimization.momentum", "1.5", "'Momentum' must be at most 1, not 1.5"),
        ("optimization.momentum", "x", "'Momentum' must be a number, not x"),
        ("optimization.momentum", "nan", "'Momentum' must be a finite number, not nan"),
        ("network.base_width", "-3", "'Base width' must be at least 1, not -3"),
    ],
)
def test_errors_name_the_field(name: str, text: str, message: str, qtbot: Any) -> None:
    form = make(qtbot, SearchSettings, {"": search_settings()})
    form.findChild(QLineEdit, name).setText(text)
    with pytest.raises(UserError) as caught:
        form.value()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("budget", "1 h 30 min", 5400.0),
        ("epochs", "", None),
        ("epochs", "7", 7),
        ("stop_loss", "0.5", 0.5),
        ("context", "2", 2),
    ],
)
def test_values_are_read(name: str, text: str, value: Any, qtbot: Any) -> None:
    form = make(qtbot, SearchSettings, {"": search_settings()})
    with qtbot.waitSignal(form.changed):
        form.findChild(QLineEdit, name).clear()
        qtbot.keyClicks(form.findChild(QLineEdit, name), text or " ")
    assert getattr(form.value(), name) == value


def test_a_field_of_words_or_a_number(qtbot: Any) -> None:
    form = make(qtbot, PredictSettings, {"": PredictSettings()})
    halo, block = form.findChild(QComboBox, "halo"), form.findChild(QLineEdit, "block")
    for text, value in (("exact", "exact"), ("64", 64)):
        halo.setEditText(text)
        assert form.value().halo == value  # type: ignore[attr-defined]
    halo.setEditText("wide")
    with pytest.raises(UserError, match="'Surroundings' must be auto, exact or a whole number, not wide"):
        form.value()
    halo.setEditText("auto")
    block.setText("1, 512,512")
    assert form.value().block == (1, 512, 512)  # type: ignore[attr-defined]
    block.setText("512, 512")
    with pytest.raises(UserError, match="'Block'"):
        form.value()


class Other(BaseModel):
    kind: Literal["a", "b"] = "a"
    count: Annotated[int, Field(ge=0)] = 3
    on: bool = False
    words: tuple[str, ...] = ("x",)


def test_any_model_becomes_a_form(qtbot: Any) -> None:
    form = make(qtbot, Other, {"": Other()})
    form.findChild(QComboBox, "kind").setCurrentText("b")
    form.findChild(QCheckBox, "on").setChecked(True)
    form.findChild(QLineEdit, "words").setText("y; z")
    assert form.value() == Other(kind="b", on=True, words=("y", "z"))
    assert form.preset.isHidden()
    form.set_value(Other(count=7))
    assert form.value() == Other(count=7)
