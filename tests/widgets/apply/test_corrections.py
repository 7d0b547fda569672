from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.apply.corrections import Corrections
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer, result_layer
from napari_autosegnet.widgets.layers.section_layers import image_behind, show_labels, show_slice

INFOS = (ClassInfo(name="wall", color="#e69f00"), ClassInfo(name="cell", color="#56b4e9"))
CLASSES = tuple(LabelClass(number, info.name, info.color) for number, info in enumerate(INFOS, 1))
#: Where the stack lies, and annotation on it.
PLACE: dict[str, Any] = {"scale": (10, 2, 2), "translate": (5, 6, 7)}


@pytest.fixture
def session(make_session: Any) -> Any:
    session = make_session()
    session.viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="stack", **PLACE)
    session.annotation.follow_layers()
    return session


@pytest.fixture(params=["numpy", "zarr"])
def result(request: Any, session: Any, tmp_path: Path) -> Any:
    import zarr

    data: Any = np.ones((4, 64, 64), np.uint8)
    if request.param == "zarr":
        data = zarr.create_array(tmp_path / "result", data=data, chunks=(1, 32, 32))
    layer = session.viewer.add_labels(data, **result_layer(CLASSES, name="result"))
    session.annotation.follow_layers()
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
    (pair,) = session.annotation.pairs()
    assert np.array_equal(np.asarray(pair.labels.data), np.where(np.arange(4)[:, None, None] == 2, 2 * wanted, 0))
    assert tuple(pair.labels.scale) == (10, 2, 2)
    assert [each.name for each in session.annotation.classes] == ["wall", "cell"]
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

    from napari_autosegnet.widgets.apply import corrections as module

    threads: list[bool] = []
    read = module.read_section

    def look(*given: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return read(*given)

    monkeypatch.setattr(module, "read_section", look)
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
    session.annotation.follow_layers()
    settled(session)
    infos = (ClassInfo(name="class 0", color="#000001"), ClassInfo(name="class 255", color="#e69f00"))
    layer = show_slice(session.viewer, image, 0, np.full((64, 64), 2, np.uint8), infos)
    session.annotation.follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.arange(5), np.full(5, 10)), 1)
    assert corrections.take_over() == 5
    settled(session)
    assert truth.data[:6, 10].tolist() == [0, 0, 0, 0, 0, 255]
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [
        (0, "class 0"),
        (255, "class 255"),
    ]
    assert session.labeled_images.problem is None
    corrections.release()


def test_classes_that_are_painted_are_not_replaced(make_session: Any, settled: Any) -> None:
    session = make_session()
    image = session.viewer.add_image(np.zeros((64, 64), np.uint8), name="im")
    labels = session.viewer.add_labels(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 3 + 1)
    session.annotation.follow_layers()
    settled(session)
    layer = show_slice(session.viewer, image, 0, np.full((64, 64), 2, np.uint8), INFOS)
    session.annotation.follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.arange(5), np.full(5, 10)), 1)
    corrections.take_over()
    names = ["class 1", "class 2", "class 3", "wall", "cell"]
    assert [(each.value, each.name) for each in session.annotation.label_classes] == list(enumerate(names, 1))
    assert (labels.data[:5, 10] == 4).all()
    corrections.release()


def test_what_belongs_to_no_class_is_named_and_kept(session: Any, result: Any) -> None:
    corrections = Corrections(session)
    result.data_setitem((np.zeros(3, int), np.arange(3), np.arange(3)), np.array([2, 7, 7]))
    with pytest.raises(UserError, match=r"2 pixels of 'result' are painted with 7.*1 wall, 2 cell"):
        corrections.take_over()
    assert session.annotation.pairs() == []
    result.data_setitem((np.zeros(2, int), np.arange(1, 3), np.arange(1, 3)), 2)
    assert corrections.take_over() == 3
    corrections.release()


def test_what_passes_with_the_next_epoch_is_not_painted_on(session: Any) -> None:
    image = session.viewer.layers["stack"]
    passing = show_labels(session.viewer, image, 1, np.ones((20, 20), np.uint8), INFOS, "training preview", (30, 40))
    session.annotation.follow_layers()
    corrections = Corrections(session)
    passing.data_setitem((np.zeros(1, int), np.array([5]), np.array([6])), 2)  # only a program can
    assert not passing.editable
    with pytest.raises(UserError, match="nothing was corrected"):
        corrections.take_over()
    corrections.release()


def test_a_pyramid_cannot_take_corrections(session: Any, result: Any, settled: Any) -> None:
    levels = [np.ones((4, 64, 64), np.uint8), np.ones((4, 32, 32), np.uint8)]
    pyramid = session.viewer.add_labels(levels, multiscale=True, name="pyramid", **PLACE)
    session.annotation.follow_layers()
    settled(session)
    corrections = Corrections(session)
    result.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    with pytest.raises(UserError, match="'pyramid' is a pyramid"):
        corrections.take_over()
    session.annotation.use(pyramid, False)
    assert corrections.take_over() == 1
    corrections.release()


def test_corrections_make_no_layer_whose_unpainted_pixels_are_a_class(session: Any, result: Any) -> None:
    session.annotation.class_list.set_zero_is_class(True)
    corrections = Corrections(session)
    result.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    with pytest.raises(UserError, match="'stack' has no annotation yet"):
        corrections.take_over()
    corrections.release()


def test_classes_are_matched_by_name_and_other_annotation_stays(session: Any, result: Any) -> None:
    own = (LabelClass(3, "cell", "#010203"), LabelClass(9, "dirt", "#040506"))
    data = np.zeros((4, 64, 64), np.uint8)
    data[0] = 9
    labels = session.viewer.add_labels(data, **annotation_layer(own, name="mine", **PLACE))
    labels.visible = False
    session.annotation.follow_layers()
    corrections = Corrections(session)
    result.brush_size = 4
    result.data_setitem((np.full(4, 3), np.arange(4), np.arange(4)), 2)
    corrections.take_over()
    assert labels.data[3, :4, :4].diagonal().tolist() == [3, 3, 3, 3]
    assert (labels.data[0] == 9).all() and np.count_nonzero(labels.data[3]) == 4
    assert [each.name for each in session.annotation.classes] == ["cell", "dirt", "wall"]
    labels.undo()
    assert not labels.data[3].any(), "taking over is one step that can be undone"
    corrections.release()


def test_corrections_of_one_slice_land_in_its_section(session: Any) -> None:
    image = session.viewer.layers["stack"]
    layer = show_slice(session.viewer, image, 2, np.ones((64, 64), np.uint8), INFOS)
    assert layer.data.shape == (4, 64, 64) and tuple(layer.translate) == (5, 6, 7)
    session.annotation.follow_layers()
    assert session.layers.image_in_view() is image and image_behind(session.viewer, layer) is image
    corrections = Corrections(session)
    layer.data_setitem((np.full(5, 2), np.arange(5), np.full(5, 9)), 2)
    assert corrections.take_over() == 5
    assert np.argwhere(session.annotation.pairs()[0].labels.data).tolist() == [[2, y, 9] for y in range(5)]
    again = show_slice(session.viewer, image, 2, np.full((64, 64), 2, np.uint8), INFOS)
    assert again is layer and (layer.data[2] == 2).all() and corrections.pixels == 0, "it is annotation now"
    corrections.release()


def test_the_image_of_a_correction_may_be_gone(session: Any) -> None:
    image = session.viewer.layers["stack"]
    layer = show_slice(session.viewer, image, 0, np.ones((64, 64), np.uint8), INFOS)
    session.annotation.follow_layers()
    corrections = Corrections(session)
    layer.data_setitem((np.zeros(1, int), np.zeros(1, int), np.zeros(1, int)), 2)
    session.viewer.layers.remove(image)
    with pytest.raises(UserError, match="is closed"):
        corrections.take_over()
    corrections.release()


# ---------------------------------------------------------------- what is painted stays


def slice_of(session: Any, section: int, value: int, infos: Any = INFOS, model: object = "first") -> Any:
    """The layer of the slices after a model has said one value everywhere in a section."""
    image = session.viewer.layers["stack"]
    layer = show_slice(session.viewer, image, section, np.full((64, 64), value, np.uint8), infos, model)
    session.annotation.follow_layers()
    return layer


def paint(layer: Any, section: int, value: int, column: int = 9) -> None:
    layer.data_setitem((np.full(5, section), np.arange(5), np.full(5, column)), value)


def counted(corrections: Corrections, number: int, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: corrections.pixels == number, timeout=5000)


def test_strokes_stay_on_the_next_result_of_their_slice_and_can_be_undone(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2, column=9)
    paint(layer, 1, 2, column=20)
    layer.brush_size = 3
    paint(layer, 1, 0, column=30)  # erased
    for value in (1, 1):
        assert slice_of(session, 1, value) is layer
        assert (layer.data[1, :5, [9, 20]] == 2).all() and not layer.data[1, :5, 30].any()
        counted(corrections, 10, qtbot)
    slice_of(session, 1, 2)  # the model says so itself now
    counted(corrections, 0, qtbot)
    slice_of(session, 1, 1)
    assert (layer.data[1, :5, [9, 20]] == 2).all() and (layer.data[1] == 1).sum() == 64 * 64 - 15
    counted(corrections, 10, qtbot)
    paint(layer, 1, 2, column=40)
    slice_of(session, 1, 1)
    layer.undo()
    assert (layer.data[1, :5, 40] == 1).all()
    counted(corrections, 10, qtbot)
    corrections.release()


def test_an_undone_stroke_shows_the_newest_result(session: Any, qtbot: Any) -> None:
    infos = (*INFOS, ClassInfo(name="dirt", color="#009e73"))
    layer = slice_of(session, 1, 1, infos)
    corrections = Corrections(session)
    paint(layer, 1, 2, column=9)
    paint(layer, 1, 2, column=20)
    slice_of(session, 1, 3, infos)
    layer.undo()
    assert (layer.data[1, :5, 20] == 3).all() and (layer.data[1, :5, 9] == 2).all()
    counted(corrections, 5, qtbot)
    layer.redo()
    assert (layer.data[1, :5, 20] == 2).all()
    counted(corrections, 10, qtbot)
    layer.undo()
    layer.undo()
    assert (layer.data[1] == 3).all()
    counted(corrections, 0, qtbot)
    corrections.release()


def test_strokes_of_other_slices_stay_where_they_are(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2)
    assert slice_of(session, 3, 2) is layer
    assert (layer.data[1, :5, 9] == 2).all() and (layer.data[1, :, 10] == 1).all() and (layer.data[3] == 2).all()
    counted(corrections, 5, qtbot)
    layer.undo()
    assert (layer.data[1] == 1).all()
    counted(corrections, 0, qtbot)
    corrections.release()


def test_after_a_training_slices_show_the_new_model_or_only_what_is_painted(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 0, 1)
    slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2)
    assert slice_of(session, 3, 2, model="trained on") is layer
    assert not layer.data[0].any(), "what the model of before said is not shown as that of the new one"
    assert np.count_nonzero(layer.data[1]) == 5 and (layer.data[1, :5, 9] == 2).all()
    counted(corrections, 5, qtbot)
    slice_of(session, 1, 1, model="trained on")
    assert np.count_nonzero(layer.data[1] == 2) == 5 and np.count_nonzero(layer.data[1] == 1) == 64 * 64 - 5
    counted(corrections, 5, qtbot)
    assert corrections.take_over() == 5
    corrections.release()


def test_a_model_with_other_classes_has_a_layer_of_its_own(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2)
    more = slice_of(session, 1, 3, (*INFOS, ClassInfo(name="dirt", color="#009e73")), "more classes")
    assert more is layer, "every number means what it did"
    counted(corrections, 5, qtbot)
    others = (ClassInfo(name="cell", color="#56b4e9"), ClassInfo(name="wall", color="#e69f00"))
    second = slice_of(session, 1, 1, others, "exchanged")
    assert second is not layer and (second.data[1] == 1).all() and (layer.data[1, :5, 9] == 2).all()
    assert corrections.pixels == 5
    paint(second, 1, 2, column=20)
    counted(corrections, 10, qtbot)
    assert corrections.take_over() == 10
    values = {each.name: each.value for each in session.annotation.class_list.label_classes}
    annotated = session.annotation.pairs()[0].labels.data[1]
    assert (annotated[:5, 9] == values["cell"]).all() and (annotated[:5, 20] == values["wall"]).all()
    corrections.release()


def test_strokes_of_a_closed_layer_come_back_with_the_next_result(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2)
    paint(layer, 2, 1, column=20)
    session.viewer.layers.remove(layer)
    session.annotation.follow_layers()
    counted(corrections, 10, qtbot)
    assert corrections.waiting_pixels == 10
    again = slice_of(session, 1, 1)
    assert again is not layer and (again.data[1] == 1).all()
    corrections.put_back(again, 1)
    assert (again.data[1, :5, 9] == 2).all() and not again.data[2].any()
    counted(corrections, 10, qtbot)
    assert corrections.waiting_pixels == 5
    again.undo()
    assert (again.data[1] == 1).all()
    counted(corrections, 5, qtbot)
    again.redo()
    assert corrections.take_over() == 10 and corrections.waiting_pixels == 0 and corrections.pixels == 0
    annotated = session.annotation.pairs()[0].labels.data
    assert (annotated[1, :5, 9] == 2).all() and (annotated[2, :5, 20] == 1).all()
    assert np.count_nonzero(annotated) == 10
    corrections.release()


def test_strokes_of_classes_that_the_next_model_lacks_go_on_waiting(session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    corrections = Corrections(session)
    paint(layer, 1, 2, column=9)
    paint(layer, 1, 7, column=20)  # means nothing to any model
    session.viewer.layers.remove(layer)
    session.annotation.follow_layers()
    others = (ClassInfo(name="nucleus", color="#56b4e9"), ClassInfo(name="wall", color="#e69f00"))
    again = slice_of(session, 1, 1, others, "other")
    corrections.put_back(again, 1)
    assert (again.data[1] == 1).all() and corrections.waiting_pixels == 5
    assert corrections.take_over() == 5
    names = {each.value: each.name for each in session.annotation.class_list.label_classes}
    assert names[int(session.annotation.pairs()[0].labels.data[1, 0, 9])] == "cell"
    corrections.release()


def test_strokes_on_a_whole_result_wait_while_a_worker_writes_into_it(session: Any, result: Any, qtbot: Any) -> None:
    corrections = Corrections(session)
    result.brush_size = 4
    paint(result, 2, 2)
    counted(corrections, 5, qtbot)
    corrections.put_aside(result)
    assert (np.asarray(result.data) == 1).all(), "the worker finds what it wrote"
    counted(corrections, 5, qtbot)
    assert corrections.waiting_pixels == 5
    result.data[2, 40:] = 2  # the worker
    corrections.put_back(result)
    assert (np.asarray(result.data[2])[:5, 9] == 2).all()
    counted(corrections, 5, qtbot)
    assert corrections.waiting_pixels == 0
    result.undo()
    counted(corrections, 0, qtbot)
    result.redo()
    assert corrections.take_over() == 5
    corrections.release()


def test_a_whole_result_that_is_closed_keeps_its_strokes_for_the_annotation(session: Any, result: Any) -> None:
    corrections = Corrections(session)
    paint(result, 2, 2)
    session.viewer.layers.remove(result)
    session.annotation.follow_layers()
    assert corrections.take_over() == 5
    assert np.argwhere(session.annotation.pairs()[0].labels.data).tolist() == [[2, y, 9] for y in range(5)]
    corrections.release()


def test_a_dock_that_is_opened_again_knows_what_was_painted(session: Any, make_session: Any, qtbot: Any) -> None:
    layer = slice_of(session, 1, 1)
    first = Corrections(session)
    paint(layer, 1, 2)
    first.release()
    session.close()
    paint(layer, 1, 2, column=20)  # while there is no dock
    second = make_session(session.viewer)
    corrections = Corrections(second)
    counted(corrections, 10, qtbot)
    slice_of(second, 1, 2)
    slice_of(second, 1, 1)
    assert corrections.take_over() == 10
    corrections.release()


def test_a_slice_knows_its_image_when_that_was_closed_and_opened_again(session: Any, qtbot: Any) -> None:
    layer, image = slice_of(session, 1, 1), session.viewer.layers["stack"]
    corrections = Corrections(session)
    paint(layer, 1, 2)
    session.viewer.layers.remove(image)
    session.viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="other of that shape")
    with pytest.raises(UserError, match="closed"):
        corrections.take_over()
    session.viewer.add_image(np.zeros((4, 64, 64), np.uint8), name="stack")
    session.annotation.follow_layers()
    assert slice_of(session, 1, 1) is layer and (layer.data[1, :5, 9] == 2).all()
    assert corrections.take_over() == 5
    corrections.release()
