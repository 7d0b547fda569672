from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import Qt

from napari_autosegnet.inference.instances.measurements import Measurements
from napari_autosegnet.inference.output.ledger import edit_log_path
from napari_autosegnet.inference.proofreading.proofreading import Proofreading
from napari_autosegnet.units import Placement
from napari_autosegnet.widgets.apply.proofreading_panel import ProofreadingPanel
from napari_autosegnet.widgets.files import object_features
from napari_autosegnet.widgets.files.readers import labels_layer, notes_of
from napari_autosegnet.widgets.plugin_reader import read_store
from object_stores import write_classes, write_objects

PLACE = Placement((20.0, 4.0, 4.0), (100.0, 8.0, 8.0), "nanometer")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    z, y, x = np.indices((4, 24, 40))
    objects = np.zeros(z.shape, np.uint32)
    for center in (8, 18):
        objects[(y - 8) ** 2 + (x - center) ** 2 < 36] = 3
    objects[:, 17:23, 2:20] = 5
    return write_objects(tmp_path / "cells.zarr", objects, PLACE)


@pytest.fixture
def panel(make_session: Any, store: Path, qtbot: Any) -> Iterator[ProofreadingPanel]:
    session = make_session()
    panel = ProofreadingPanel(session)
    qtbot.addWidget(panel)
    assert panel.isHidden()
    data, about, _ = labels_layer(store / "labels" / "instances")
    session.viewer.add_labels(data, **about)
    panel.show()
    yield panel
    panel.release()


def settle(panel: ProofreadingPanel, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=20_000)


def drag(panel: ProofreadingPanel, *voxels: tuple[int, int, int], shift: bool = False) -> None:
    """Press the mouse at a voxel, move it over the others, and let go."""
    layer, viewer = panel.layer, panel.viewer
    assert layer is not None
    viewer.dims.set_point(0, float(layer.data_to_world(voxels[0])[0]))
    event = SimpleNamespace(
        button=1,
        modifiers=["Shift"] if shift else [],
        view_direction=None,
        dims_displayed=[1, 2],
        is_dragging=True,
    )

    def at(voxel: tuple[int, int, int], kind: str) -> None:
        event.position, event.pos, event.type = layer.data_to_world(voxel), (10 * voxel[1], 10 * voxel[2]), kind

    at(voxels[0], "mouse_press")
    mouse_press_callbacks(viewer, event)
    for voxel in voxels[1:]:
        at(voxel, "mouse_move")
        mouse_move_callbacks(viewer, event)
    at(voxels[-1], "mouse_release")
    mouse_release_callbacks(viewer, event)


def in_view(layer: Any) -> set[int]:
    """Objects of the section in view, as napari shows it."""
    return {layer.get_value((2, *pixel)) for pixel in np.ndindex(24, 40)}


def test_objects_are_merged_split_deleted_undone_and_written(
    panel: ProofreadingPanel, store: Path, qtbot: Any, tmp_path: Path
) -> None:
    said: list[str] = []
    panel.said.connect(lambda text, kind: said.append(f"{kind}: {text}"))
    layer = panel.layer
    assert layer is not None and panel.isVisible() and not panel.merge_button.isVisible()
    before = np.asarray(layer.data)
    qtbot.mouseClick(panel.begin_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    assert panel.merge_button.isVisible() and not panel.merge_button.isEnabled() and not panel.undo_button.isEnabled()
    # Two strokes split the touching balls.
    qtbot.mouseClick(panel.split_button, Qt.MouseButton.LeftButton)
    assert "first stroke" in panel.label.text() and not layer.mouse_pan
    drag(panel, (2, 6, 6), (2, 10, 7))
    assert "second stroke" in panel.label.text() and len(panel.viewer.layers["split strokes"].data) == 2
    assert panel.viewer.layers.selection.active is layer
    drag(panel, (2, 8, 18), (2, 9, 19))
    settle(panel, qtbot)
    assert said == ["good: The second part is object 6."] and layer.mouse_pan
    assert len(panel.viewer.layers["split strokes"].data) == 0
    split = np.asarray(layer.data)
    assert set(np.unique(split)) == {0, 3, 5, 6} and not panel.split_button.isChecked()
    assert in_view(layer) == {0, 3, 5, 6}
    # A click chooses, with Shift one more; a drag moves the view and chooses nothing.
    drag(panel, (1, 20, 10))
    assert panel.chosen == (5,) and not panel.merge_button.isEnabled()
    drag(panel, (1, 8, 18), (1, 20, 30))
    assert panel.chosen == (5,)
    drag(panel, (1, 8, 18), shift=True)
    assert panel.chosen == (5, 6)
    qtbot.mouseClick(panel.merge_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    np.testing.assert_array_equal(np.asarray(layer.data), np.where(split == 6, 5, split))
    drag(panel, (1, 8, 7))
    qtbot.mouseClick(panel.delete_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    assert set(np.unique(layer.data)) == {0, 5}
    panel.export(tmp_path / "mended.zarr")
    settle(panel, qtbot)
    assert said[-1] == f"good: The edited objects lie in {tmp_path / 'mended.zarr'}."
    np.testing.assert_array_equal(np.asarray(Proofreading(tmp_path / "mended.zarr").levels[0]), np.asarray(layer.data))
    for _ in range(3):
        qtbot.mouseClick(panel.undo_button, Qt.MouseButton.LeftButton)
        settle(panel, qtbot)
    np.testing.assert_array_equal(np.asarray(layer.data), before)
    assert not panel.undo_button.isEnabled()
    qtbot.mouseClick(panel.redo_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    np.testing.assert_array_equal(np.asarray(layer.data), split)
    # Strokes on different objects are refused, and those of another window shown.
    panel.draw_strokes()
    drag(panel, (1, 8, 8))
    drag(panel, (1, 20, 8))
    settle(panel, qtbot)
    assert said[-1].startswith("error: the strokes lie on different objects")
    Proofreading(store).delete([5])
    drag(panel, (1, 8, 8))
    panel.delete()
    settle(panel, qtbot)
    assert said[-1].startswith("error: these objects were edited elsewhere")
    assert in_view(layer) == {0, 3, 6}
    assert layer.features["index"].tolist() == [3, 6]
    panel.viewer.layers.remove(layer)
    assert not panel.isVisible()


def test_the_window_goes_on_while_an_object_is_split(
    panel: ProofreadingPanel, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.begin()
    settle(panel, qtbot)
    split = Proofreading.split
    monkeypatch.setattr(Proofreading, "split", lambda *given: (time.sleep(0.3), split(*given))[1])
    panel.draw_strokes()
    panel.add_stroke(np.array([(2, 8, 6)]))
    panel.add_stroke(np.array([(2, 8, 19)]))
    assert panel.is_busy and not panel.undo_button.isEnabled() and "At work" in panel.label.text()
    settle(panel, qtbot)
    assert panel.undo_button.isEnabled()


def test_edits_become_annotation_of_the_image(panel: ProofreadingPanel, store: Path, qtbot: Any) -> None:
    objects = np.asarray(panel.layer.data)  # type: ignore[union-attr]
    labels = np.where(objects > 0, 2, 1).astype(np.uint8)
    write_classes(store, labels, ["membrane", "cell", "background"], ["cell"])
    said: list[str] = []
    panel.said.connect(lambda text, kind: said.append(f"{kind}: {text}"))
    viewer, layer = panel.viewer, panel.layer
    assert layer is not None
    panel.begin()
    settle(panel, qtbot)
    assert panel.annotation_button.isVisible() and not panel.annotation_button.isEnabled()
    panel.draw_strokes()
    panel.add_stroke(np.array([(2, 8, 6)]))
    panel.add_stroke(np.array([(2, 8, 19)]))
    settle(panel, qtbot)
    drag(panel, (1, 20, 10))
    panel.delete()
    settle(panel, qtbot)
    qtbot.mouseClick(panel.annotation_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    assert said[-1] == "error: the image behind 'instances' is not open; open it and use the edits again"
    image = viewer.add_image(np.zeros(objects.shape, np.uint8), name="image", scale=PLACE.scale, translate=(100, 8, 8))
    viewer.layers.selection.active = layer
    qtbot.mouseClick(panel.annotation_button, Qt.MouseButton.LeftButton)
    settle(panel, qtbot)
    target = viewer.layers["image annotation"]
    assert viewer.layers.selection.active is layer and target.mode == "pan_zoom"
    names = {each.value: each.name for each in panel.session.annotation.label_classes}
    painted = np.array(target.data)
    assert {names[value] for value in np.unique(painted[painted > 0])} == {"membrane", "background"}
    np.testing.assert_array_equal(painted == next(v for v in names if names[v] == "background"), objects == 5)
    count = np.count_nonzero(painted)
    assert (
        said[-1] == f"good: {count:,} voxels of edits are annotation now. Ctrl+Z on 'image annotation' takes them back."
    )
    target.undo()
    assert not target.data.any()
    # What somebody painted stays, and takes no part in what is undone.
    target.data_setitem((np.array([1, 1]), np.array([20, 20]), np.array([10, 11])), 1)
    own = np.array(target.data)
    panel.use_as_annotation()
    settle(panel, qtbot)
    np.testing.assert_array_equal(target.data, np.where(own > 0, own, painted))
    target.undo()
    np.testing.assert_array_equal(target.data, own)
    panel.session.annotation.class_list.set_zero_is_class(True)
    panel.use_as_annotation()
    settle(panel, qtbot)
    assert said[-1].startswith("error: all of 'image annotation' is annotated")
    np.testing.assert_array_equal(target.data, own)
    assert panel.session.layers.image_in_view() is image


def test_edits_and_measurements_are_shown_before_and_after_objects_are_mended(
    panel: ProofreadingPanel, store: Path, qtbot: Any
) -> None:
    layer = panel.layer
    assert layer is not None and "index" not in layer.features, "there is no table yet"
    panel.begin()
    settle(panel, qtbot)
    names = ["index", "voxels", "volume (nm³)", "surface (nm²)", "z start (nm)", "y start (nm)"]
    assert list(layer.features)[:6] == names and layer.features["index"].tolist() == [3, 5]

    def row(number: int) -> list[float]:
        return layer.features[layer.features["index"] == number].iloc[0].tolist()  # type: ignore[no-any-return]

    def all_are_right() -> None:
        whole = np.asarray(layer.data)
        numbers = np.unique(whole[whole > 0]).tolist()
        assert sorted(layer.features["index"]) == numbers
        true = Measurements()
        true.add(whole, whole.shape, (0, 0, 0))
        for values in true.rows(PLACE):
            assert row(int(values[0])) == pytest.approx([float(each) for each in values[:-1]], rel=1e-4)

    before = row(3)
    for edit in ("split", "merge", "undo", "undo", "redo", "delete"):
        if edit == "split":
            panel.draw_strokes()
            panel.add_stroke(np.array([(2, 8, 6)]))
            panel.add_stroke(np.array([(2, 8, 19)]))
        elif edit == "merge":
            drag(panel, (1, 8, 7))
            drag(panel, (1, 20, 10), shift=True)
            panel.merge()
        elif edit == "delete":
            drag(panel, (1, 20, 10))
            panel.delete()
        else:
            getattr(panel, edit)()
        settle(panel, qtbot)
        all_are_right()
    assert row(3) != before
    status = layer.get_status(layer.data_to_world((1, 8, 7)), view_direction=None, dims_displayed=[1, 2], world=True)
    assert f"volume (nm³): {row(3)[2]:.3g}" in status["value"]
    # Another window shows all of it without a dock, but for the measurements of what was edited.
    ((data, about, _),) = read_store(store)
    np.testing.assert_array_equal(np.asarray(data), np.asarray(layer.data))
    assert "features" not in about
    layer = panel.viewer.add_labels(data, **about)
    panel.begin()
    settle(panel, qtbot)
    all_are_right()
    # Edits of other objects are not shown, and a warning says so.
    log = edit_log_path(store)
    log.write_text(re.sub('"(objects|table)":"[0-9a-f]+"', r'"\1":"others"', log.read_text()))
    ((data, _, _),) = read_store(store)
    assert ["of other objects" in note for note in notes_of(store)] == [True]
    assert set(np.unique(data)) == {0, 3, 5}


def test_a_long_table_keeps_the_largest_objects(panel: ProofreadingPanel, store: Path, monkeypatch: Any) -> None:
    Proofreading(store)  # writes the table
    monkeypatch.setattr(object_features, "MAX_ROWS", 1)
    assert labels_layer(store / "labels" / "instances")[1]["features"]["index"].tolist() == [3]
    monkeypatch.setattr(object_features, "MAX_TABLE_BYTES", 10)
    assert "features" not in labels_layer(store / "labels" / "instances")[1], "too much to be read by who opens a file"
