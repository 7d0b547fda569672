from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets import uncertainty
from napari_autosegnet.widgets.class_colors import LabelClass, annotation_layer, result_layer
from napari_autosegnet.widgets.corrections import Corrections
from napari_autosegnet.widgets.layer_arrays import METADATA
from napari_autosegnet.widgets.section_layers import image_behind, show_labels, show_uncertainty

INFOS = (ClassInfo(name="wall", color="#e69f00"), ClassInfo(name="cell", color="#56b4e9"))
CLASSES = tuple(LabelClass(number, info.name, info.color) for number, info in enumerate(INFOS, 1))


@pytest.fixture
def session(make_session: Any) -> Any:
    session = make_session()
    session.viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="stack", scale=(10, 2, 2), translate=(5, 6, 7))
    session._follow_layers()
    return session


@pytest.fixture(params=["numpy", "zarr"])
def result(request: Any, session: Any, tmp_path: Path) -> Any:
    import zarr

    data: Any = np.ones((4, 64, 64), np.uint8)
    if request.param == "zarr":
        data = zarr.create_array(tmp_path / "result", data=data, chunks=(1, 32, 32))
    layer = session.viewer.add_labels(data, **result_layer(CLASSES, name="result"))
    session._follow_layers()
    return layer


def test_what_differs_from_the_model_becomes_annotation(session: Any, result: Any, qtbot: Any) -> None:
    corrections = Corrections(session)
    assert corrections.pixels == 0
    result.brush_size = 8
    result.paint((2, 30, 30), 2)
    result.paint((2, 30, 34), 2)  # overlaps the first stroke
    wanted = np.asarray(result.data[2]) == 2
    qtbot.waitUntil(lambda: corrections.pixels == np.count_nonzero(wanted), timeout=5000)
    assert corrections.take_over() == np.count_nonzero(wanted)
    (pair,) = session.pairs()
    assert np.array_equal(np.asarray(pair.labels.data), np.where(np.arange(4)[:, None, None] == 2, 2 * wanted, 0))
    assert tuple(pair.labels.scale) == (10, 2, 2)
    assert [each.name for each in session.classes] == ["wall", "cell"]
    assert corrections.pixels == 0
    with pytest.raises(UserError, match="nothing was corrected"):
        corrections.take_over()
    corrections.release()


def test_undo_and_erasing_are_no_corrections(session: Any, result: Any, qtbot: Any) -> None:
    corrections = Corrections(session)
    session.viewer.dims.set_point(0, 25)
    result.brush_size = 8
    result.paint((1, 20, 20), 2)
    qtbot.waitUntil(lambda: corrections.pixels > 0, timeout=5000)
    result.undo()
    qtbot.waitUntil(lambda: corrections.pixels == 0, timeout=5000)
    result.redo()
    qtbot.waitUntil(lambda: corrections.pixels > 0, timeout=5000)
    result.paint((1, 20, 20), 1)  # back to what the model said
    qtbot.waitUntil(lambda: corrections.pixels == 0, timeout=5000)
    with qtbot.waitSignal(corrections.changed):
        result.paint((0, 40, 40), 0)
    assert corrections.pixels == 0
    corrections.release()


def test_corrections_are_not_counted_where_the_window_is_drawn(
    session: Any, result: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from napari_autosegnet.widgets import corrections as module

    threads: list[bool] = []
    corrected = module._corrected

    def look(*given: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return corrected(*given)

    monkeypatch.setattr(module, "_corrected", look)
    corrections = Corrections(session)
    for section in (0, 1):
        session.viewer.dims.set_point(0, section)
        with qtbot.waitSignal(corrections.changed):
            result.paint((section, 20, 20), 2)
        qtbot.wait(300)
    assert threads and not any(threads)
    threads.clear()
    for section in (2, 3, 0):
        session.viewer.dims.set_point(0, section)
        qtbot.wait(20)
    qtbot.wait(300)
    assert corrections.pixels > 0 and threads == []
    corrections.release()


def test_corrections_can_be_of_the_class_with_value_0(make_session: Any, settled: Any) -> None:
    session = make_session()
    image = session.viewer.add_image(np.zeros((64, 64), np.uint8), name="im")
    full = np.zeros((64, 64), np.uint8)
    full[:, ::2] = 255
    truth = session.viewer.add_labels(full, name="truth")
    session._follow_layers()
    settled(session)
    infos = (ClassInfo(name="class 0", color="#000001"), ClassInfo(name="class 255", color="#e69f00"))
    layer = show_labels(session.viewer, image, 0, np.full((64, 64), 2, np.uint8), infos)
    session._follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.arange(5), np.full(5, 10)), 1)
    assert corrections.take_over() == 5
    settled(session)
    assert truth.data[:6, 10].tolist() == [0, 0, 0, 0, 0, 255]
    assert [(each.value, each.name) for each in session.label_classes] == [(0, "class 0"), (255, "class 255")]
    assert session.problem() is None
    corrections.release()


def test_classes_that_are_painted_are_not_replaced(make_session: Any, settled: Any) -> None:
    session = make_session()
    image = session.viewer.add_image(np.zeros((64, 64), np.uint8), name="im")
    labels = session.viewer.add_labels(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 3 + 1)
    session._follow_layers()
    settled(session)
    layer = show_labels(session.viewer, image, 0, np.full((64, 64), 2, np.uint8), INFOS)
    session._follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.arange(5), np.full(5, 10)), 1)
    corrections.take_over()
    names = ["class 1", "class 2", "class 3", "wall", "cell"]
    assert [(each.value, each.name) for each in session.label_classes] == list(enumerate(names, 1))
    assert (labels.data[:5, 10] == 4).all()
    corrections.release()


def test_what_belongs_to_no_class_is_named_and_kept(session: Any, result: Any) -> None:
    corrections = Corrections(session)
    result.data_setitem((np.zeros(3, int), np.arange(3), np.arange(3)), np.array([2, 7, 7]))
    with pytest.raises(UserError, match=r"2 pixels of 'result' are painted with 7.*1 wall, 2 cell"):
        corrections.take_over()
    assert session.pairs() == []
    result.data_setitem((np.zeros(2, int), np.arange(1, 3), np.arange(1, 3)), 2)
    assert corrections.take_over() == 3
    corrections.release()


def test_a_part_of_a_section_is_corrected_at_its_place(session: Any) -> None:
    image = session.viewer.layers["stack"]
    layer = show_labels(session.viewer, image, 1, np.ones((20, 20), np.uint8), INFOS, "part", (30, 40))
    layer.metadata[METADATA]["origin"] = (30, 40)
    passing = show_labels(session.viewer, image, 1, np.ones((20, 20), np.uint8), INFOS, "training preview", (30, 40))
    passing.metadata[METADATA]["passing"] = True
    session._follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.zeros(1, int), np.array([2]), np.array([3])), 2)
    passing.data_setitem((np.zeros(1, int), np.array([5]), np.array([6])), 2)
    assert corrections.take_over() == 1
    assert np.argwhere(session.pairs()[0].labels.data).tolist() == [[1, 32, 43]]
    corrections.release()


def test_a_pyramid_cannot_take_corrections(session: Any, result: Any, settled: Any) -> None:
    levels = [np.ones((4, 64, 64), np.uint8), np.ones((4, 32, 32), np.uint8)]
    pyramid = session.viewer.add_labels(levels, multiscale=True, name="pyramid")
    session._follow_layers()
    settled(session)
    corrections = Corrections(session)
    result.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    with pytest.raises(UserError, match="'pyramid' is a pyramid"):
        corrections.take_over()
    session.use(pyramid, False)
    assert corrections.take_over() == 1
    corrections.release()


def test_corrections_make_no_layer_whose_unpainted_pixels_are_a_class(session: Any, result: Any) -> None:
    session.class_list.set_zero_is_class(True)
    corrections = Corrections(session)
    result.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    with pytest.raises(UserError, match="'stack' has no annotation yet"):
        corrections.take_over()
    corrections.release()


def test_classes_are_matched_by_name_and_other_annotation_stays(session: Any, result: Any) -> None:
    own = (LabelClass(3, "cell", "#010203"), LabelClass(9, "dirt", "#040506"))
    data = np.zeros((4, 64, 64), np.uint8)
    data[0] = 9
    labels = session.viewer.add_labels(data, **annotation_layer(own, name="mine", scale=(10, 2, 2)))
    labels.visible = False
    session._follow_layers()
    corrections = Corrections(session)
    result.brush_size = 4
    result.data_setitem((np.full(4, 3), np.arange(4), np.arange(4)), 2)
    corrections.take_over()
    assert labels.data[3, :4, :4].diagonal().tolist() == [3, 3, 3, 3]
    assert (labels.data[0] == 9).all() and np.count_nonzero(labels.data[3]) == 4
    assert [each.name for each in session.classes] == ["cell", "dirt", "wall"]
    labels.undo()
    assert not labels.data[3].any(), "taking over is one step that can be undone"
    corrections.release()


def test_corrections_of_one_slice_land_in_its_section(session: Any) -> None:
    image = session.viewer.layers["stack"]
    layer = show_labels(session.viewer, image, 2, np.ones((64, 64), np.uint8), INFOS)
    assert layer.data.shape == (1, 64, 64) and tuple(layer.translate) == (25, 6, 7)
    session._follow_layers()
    assert session.layers.image_in_view() is image and image_behind(session.viewer, layer) is image
    corrections = Corrections(session)
    layer.data_setitem((np.zeros(5, int), np.arange(5), np.full(5, 9)), 2)
    assert corrections.take_over() == 5
    assert np.argwhere(session.pairs()[0].labels.data).tolist() == [[2, y, 9] for y in range(5)]
    again = show_labels(session.viewer, image, 3, np.full((64, 64), 2, np.uint8), INFOS)
    assert again is layer and tuple(layer.translate) == (35, 6, 7) and corrections.pixels == 0
    corrections.release()


def test_the_image_of_a_correction_may_be_gone(session: Any) -> None:
    image = session.viewer.layers["stack"]
    layer = show_labels(session.viewer, image, 0, np.ones((64, 64), np.uint8), INFOS)
    session._follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    session.viewer.layers.remove(image)
    with pytest.raises(UserError, match="is closed"):
        corrections.take_over()
    corrections.release()


def test_uncertainty_lies_over_its_section(session: Any) -> None:
    image = session.viewer.layers["stack"]
    values = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    layer = show_uncertainty(session.viewer, image, 1, values)
    assert np.array_equal(layer.data[0], values) and tuple(layer.translate) == (15, 6, 7)
    assert tuple(layer.contrast_limits) == (0, 1)
    assert [found.name for found in session.layers.images()] == ["stack"]


def hot(*spots: tuple[int, int, float]) -> np.ndarray:
    field = np.zeros((200, 300), np.float32)
    for y, x, value in spots:
        field[y - 20 : y + 20, x - 20 : x + 20] = value
    return field


def test_the_least_certain_place_is_new_every_time() -> None:
    field = hot((60, 70, 0.9), (140, 200, 0.6))
    first = uncertainty.least_certain(field, 5)
    assert first is not None and first.section == 5
    assert abs(first.y - 60) <= 4 and abs(first.x - 70) <= 4
    second = uncertainty.least_certain(field, 5, visited=[(5, first.y, first.x), (4, 140, 200)])
    assert second is not None and abs(second.y - 140) <= 4 and abs(second.x - 200) <= 4
    annotated = field > 0
    assert uncertainty.least_certain(field, 5, annotated) is None


def test_single_pixels_are_no_place() -> None:
    field = hot((100, 100, 0.3))
    field[30, 250] = 1.0
    found = uncertainty.least_certain(field, 0)
    assert found is not None and abs(found.y - 100) <= 4


def test_the_least_certain_place_of_a_volume() -> None:
    fields = {0: hot((60, 70, 0.2)), 1: hot((60, 70, 0.8)), 2: hot((100, 100, 0.5))}
    found = uncertainty.least_certain_of_volume(fields.__getitem__, lambda _: None, 3)
    assert found is not None and found.section == 1
    found = uncertainty.least_certain_of_volume(fields.__getitem__, lambda section: fields[section] > 0.7, 3)
    assert found is not None and found.section == 2
    assert uncertainty.least_certain_of_volume(fields.__getitem__, lambda _: None, 3, should_stop=lambda: True) is None


def test_going_to_a_place_moves_slider_and_camera(session: Any) -> None:
    viewer, image = session.viewer, session.viewer.layers["stack"]
    for number in (2, 3):
        uncertainty.go_to(viewer, image, uncertainty.Place(number, 10, 50, 0.5))
    assert viewer.dims.point[0] == 35
    assert viewer.scene.camera.center[-2:] == (26.0, 107.0)
    frames = [layer for layer in viewer.layers if layer.name == uncertainty.MARKER]
    assert len(frames) == 1 and frames[0].data[0][:, 0].tolist() == [3, 3, 3, 3]
