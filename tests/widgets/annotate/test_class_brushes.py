"""The brushes of the classes, for steps without the table of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt

from napari_autosegnet.widgets.annotate.class_brushes import ClassBrushes


def test_a_brush_makes_the_annotation_that_is_missing(make_session: Callable[..., Any], qtbot: Any) -> None:
    session = make_session()
    for name in ("first", "second"):
        session.viewer.add_image(np.zeros((3, 32, 32), np.uint8), name=name)
    session.annotation.follow_layers()
    brushes, told = ClassBrushes(session), []
    qtbot.addWidget(brushes)
    brushes.said.connect(told.append)
    qtbot.mouseClick(brushes.buttons[1], Qt.MouseButton.LeftButton)
    labels = session.viewer.layers.selection.active
    assert labels.name == "second annotation" and labels.data.shape == (3, 32, 32)
    assert (labels.selected_label, labels.mode) == (2, "paint")
    labels.mode = "fill"
    brushes.take(0)
    assert session.viewer.layers.selection.active is labels
    assert (labels.selected_label, labels.mode) == (1, "fill"), "the tool in hand stays"
    brushes.take(7)  # a key without a class
    assert labels.selected_label == 1 and len(session.viewer.layers) == 3 and not any(told)
    # Unpainted is a class: its brush is the eraser, and a new layer would claim that all of its image is of it.
    session.annotation.class_list.set_zero_is_class(True)
    brushes.take(next(row for row, each in enumerate(session.annotation.label_classes) if each.value == 0))
    assert labels.mode == "erase"
    session.viewer.layers.selection.active = session.viewer.layers["first"]
    brushes.take(1)
    assert len(session.viewer.layers) == 3 and "unpainted pixels count as a class" in told[-1]


def test_many_classes_with_long_names_fit_a_narrow_dock(make_session: Callable[..., Any], qtbot: Any) -> None:
    session = make_session()
    session.viewer.add_labels(np.arange(1, 21, dtype=np.uint8).repeat(50).reshape(20, 50))
    session.viewer.add_image(np.zeros((20, 50), np.uint8))
    session.annotation.follow_layers()
    brushes = ClassBrushes(session)
    qtbot.addWidget(brushes)
    while len(session.annotation.label_classes) < 20:
        session.annotation.class_list.add()
    name = "endoplasmic reticulum & its contacts"
    session.annotation.class_list.change(session.annotation.label_classes[0].value, name=name)
    assert len(brushes.buttons) == 20
    assert brushes.buttons[0].text() == "1 endoplasmic ..." and brushes.buttons[9].text() == "class 10"
    assert name.replace("&", "&amp;") in brushes.buttons[0].toolTip()
    assert brushes.buttons[0].accessibleName() == f"Brush of {name}"
    assert brushes.minimumSizeHint().width() < 250
    brushes.resize(300, 400)
    brushes.show()
    qtbot.wait(20)
    assert all(each.geometry().right() <= 300 for each in brushes.buttons)
    assert len({each.y() for each in brushes.buttons}) > 3, "in rows"
