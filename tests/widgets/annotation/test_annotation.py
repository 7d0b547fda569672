from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.errors import UserError
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer
from napari_autosegnet.widgets.layers.layer_arrays import stack_around
from napari_autosegnet.widgets.layers.layer_files import file_of
from napari_autosegnet.widgets.layers.view import section_in_view
from small_layers import gray, painted


@pytest.mark.parametrize("kind", ["2d", "3d", "multiscale", "rgb", "zarr"])
def test_new_labels_fit_every_kind_of_image(kind: str, make_session: Any, tmp_path: Path) -> None:
    import zarr

    session = make_session()
    viewer, place = session.viewer, {"scale": (50, 4, 4), "translate": (100, 8, 8)}
    flat = {"scale": (4, 4), "translate": (8, 8)}
    match kind:
        case "2d":
            image, shape = viewer.add_image(gray(48, 40), **flat), (48, 40)
        case "3d":
            image, shape = viewer.add_image(gray(3, 48, 40), **place), (3, 48, 40)
        case "multiscale":
            levels = [gray(3, 48, 40), gray(3, 24, 20)]
            image, shape = viewer.add_image(levels, multiscale=True, **place), (3, 48, 40)
        case "rgb":
            image, shape = viewer.add_image(gray(3, 48, 40, 3), rgb=True, **place), (3, 48, 40)
        case _:
            array = zarr.create_array(tmp_path / "image.zarr", data=gray(3, 48, 40))
            image, shape = viewer.add_image(array, **place), (3, 48, 40)
    labels = session.annotation.new_labels(image)
    assert labels.data.shape == shape
    assert tuple(labels.scale) == tuple(image.scale) and tuple(labels.translate) == tuple(image.translate)
    assert [(pair.image, pair.labels) for pair in session.annotation.pairs()] == [(image, labels)]
    assert viewer.layers.selection.active is labels and labels.mode == "paint"
    assert session.layers.image_in_view() is image
    stack, section = stack_around(image, section_in_view(viewer, image))
    assert stack.section(section).shape == ((3 if kind == "rgb" else 1), 48, 40)


def test_pixels_are_counted_per_class_and_section(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    session.viewer.add_image(gray(4, 32, 32))
    data = np.zeros((4, 32, 32), np.int64)
    data[1, :4] = 1
    data[3, :2] = 2
    data[3, 8:9, :5] = 1
    labels = session.viewer.add_labels(data)
    session.annotation.follow_layers()
    settled(session)
    assert session.annotation.counts(labels).of(1).tolist() == [0, 128, 0, 5]
    assert (session.annotation.pixels_of(2), session.annotation.sections_of(2)) == (64, 1)
    assert (session.annotation.pixels_of(1), session.annotation.sections_of(1)) == (133, 2)


def test_counts_follow_painting_undo_and_new_data(
    make_session: Any, settled: Callable[[Any], None], qtbot: Any, tmp_path: Path
) -> None:
    import zarr

    session = make_session()
    session.viewer.add_image(gray(3, 64, 64))
    stores = [np.zeros((3, 64, 64), np.uint8), zarr.create_array(tmp_path / "l", data=np.zeros((3, 64, 64), np.uint8))]
    for store in stores:
        labels = session.viewer.add_labels(store)
        session.annotation.follow_layers()
        settled(session)
        labels.brush_size = 6
        with qtbot.waitSignal(session.annotation.counts_changed):
            labels.paint((1, 32, 32), 2)
        settled(session)
        count = int(np.count_nonzero(np.asarray(labels.data[1]) == 2))
        assert count > 20 and session.annotation.counts(labels).of(2).tolist() == [0, count, 0]
        with qtbot.waitSignal(session.annotation.counts_changed):
            labels.undo()
        settled(session)
        assert session.annotation.counts(labels).of(2).tolist() == [0, 0, 0]
    labels.data = painted(3, 64, 64)
    settled(session)
    assert session.annotation.counts(labels).of(1).tolist() == [2048] * 3


def test_painting_a_new_value_makes_a_class(make_session: Any, settled: Callable[[Any], None], qtbot: Any) -> None:
    session = make_session()
    labels = session.annotation.new_labels(session.viewer.add_image(gray(64, 64)))
    settled(session)
    with qtbot.waitSignal(session.annotation.classes_changed):
        labels.paint((32, 32), 3)
    assert [each.name for each in session.annotation.classes] == ["class 1", "class 2", "class 3"]
    assert labels.colormap.map(3).tolist() == pytest.approx(labels.get_color(3).tolist())
    session.annotation.class_list.remove(3)
    labels.paint((10, 10), 3)
    qtbot.wait(300)
    assert len(session.annotation.classes) == 2, "a class that was removed came back"


def test_zero_and_255_are_two_classes(make_session: Any, settled: Callable[[Any], None], tmp_path: Path) -> None:
    session = make_session()
    session.viewer.add_image(gray(3, 48, 48))
    full = np.zeros((3, 48, 48), np.uint8)
    full[..., ::2] = 255
    session.viewer.add_labels(full)
    session.annotation.follow_layers()
    session.annotation.follow_layers()  # again before anything is counted, as when another layer comes
    settled(session)
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [
        (0, "class 0"),
        (255, "class 255"),
    ]
    assert session.annotation.class_list.zero_is_class and session.labeled_images.problem is None
    data = session.labeled_images.export(Run.create(tmp_path / "run"))
    (stack,) = open_labeled(data.images, data.labels, data.classes)
    assert np.array_equal(stack.target(1), np.where(full[1] == 255, 2, 1))


def test_classes_come_with_layers_and_names_are_checked(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    session.viewer.add_image(gray(32, 32))
    classes = (LabelClass(4, "membrane", "#112233"), LabelClass(7, "cell", "#445566"))
    session.viewer.add_labels(painted(32, 32) * 0 + 4, **annotation_layer(classes))
    session.annotation.follow_layers()
    assert session.annotation.label_classes == classes
    for name, word in (
        ("a,b", "comma"),
        ("a:b", "comma"),
        ("  ", "name"),
        ("cell", "two classes"),
        ("a\x1b[1m", "cannot be shown"),
    ):
        with pytest.raises(UserError, match=word):
            session.annotation.class_list.change(4, name=name)
    session.annotation.class_list.change(4, name="wall", color="#000000")
    assert session.annotation.classes[0].name == "wall" and session.annotation.classes[0].color == "#000000"


def test_several_images_and_several_layers_on_one_are_exported(
    make_session: Any, settled: Callable[[Any], None], tmp_path: Path
) -> None:
    session = make_session()
    viewer = session.viewer
    one = viewer.add_image(gray(2, 48, 48), name="one")
    two = viewer.add_image(gray(64, 64), name="two")
    below, above = painted(2, 48, 48), np.zeros((2, 48, 48), np.uint8)
    above[0, 10:20] = 3
    viewer.add_labels(below)
    viewer.add_labels(above)
    viewer.add_labels(painted(64, 64))
    session.annotation.follow_layers()
    settled(session)
    data = session.labeled_images.export(Run.create(tmp_path / "run"))
    assert len(data.images) == len(data.labels) == 2
    stacks = open_labeled(data.images, data.labels, data.classes)
    expected = below[0].copy()
    expected[10:20] = 3
    assert np.array_equal(stacks[0].target(0), expected)
    assert np.array_equal(stacks[0].image.section(1)[0], one.data[1])
    assert np.array_equal(stacks[1].image.section(0)[0], two.data)


def test_an_export_does_not_touch_the_one_before(
    make_session: Any, settled: Callable[[Any], None], tmp_path: Path
) -> None:
    session = make_session()
    session.viewer.add_image(gray(48, 48))
    labels = session.viewer.add_labels(painted(48, 48))
    session.annotation.follow_layers()
    settled(session)
    run = Run.create(tmp_path / "run")
    first = session.labeled_images.export(run)
    labels.data = 3 - painted(48, 48)
    settled(session)
    second = session.labeled_images.export(run)
    assert first.images == second.images and first.labels != second.labels
    for data, values in ((first, painted(48, 48)), (second, 3 - painted(48, 48))):
        assert np.array_equal(open_labeled(data.images, data.labels, data.classes)[0].target(0), values)


def test_a_file_is_used_as_it_is_only_when_it_holds_what_is_shown(make_session: Any, tmp_path: Path) -> None:
    import tifffile
    from napari.layers._source import layer_source

    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, gray(3, 40, 40), photometric="minisblack")
    viewer = make_session().viewer
    with layer_source(path=str(path)):
        layer, cut = viewer.add_image(gray(3, 40, 40)), viewer.add_image(gray(3, 40, 40)[:2])
    assert file_of(layer) == path and file_of(cut) is None
    layer.data = layer.data + 1
    assert file_of(layer) is None


def test_classes_that_were_only_found_go_with_their_values(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    viewer = session.viewer
    image = viewer.add_image(gray(64, 64))
    objects = viewer.add_labels(np.arange(64 * 64).reshape(64, 64) % 21, name="nuclei")
    session.annotation.follow_layers()
    settled(session)
    assert len(session.annotation.classes) == 20
    session.annotation.use(objects, False)
    labels = session.annotation.new_labels(image)
    labels.data = painted(64, 64)
    settled(session)
    assert [each.name for each in session.annotation.classes] == [
        "class 1",
        "class 2",
    ] and session.labeled_images.problem is None
    session.annotation.use(objects, True)
    settled(session)
    assert len(session.annotation.classes) == 20
    session.annotation.class_list.change(20, name="nucleus")
    viewer.layers.remove(objects)
    settled(session)
    assert [each.name for each in session.annotation.classes] == ["class 1", "class 2", "nucleus"]


def test_the_classes_0_and_255_go_with_their_layer(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    session.viewer.add_image(gray(48, 48))
    labels = session.viewer.add_labels((painted(48, 48) - 1) * 255)
    session.annotation.follow_layers()
    settled(session)
    assert [each.value for each in session.annotation.label_classes] == [0, 255]
    session.annotation.use(labels, False)
    settled(session)
    assert [each.value for each in session.annotation.label_classes] == [1, 2]
    session.annotation.use(labels, True)
    settled(session)
    assert [each.value for each in session.annotation.label_classes] == [0, 255]


def test_the_brush_of_a_new_layer_paints_a_class(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    session.viewer.add_image(gray(48, 48))
    session.viewer.add_labels((painted(48, 48) - 1) * 255)
    session.annotation.follow_layers()
    settled(session)
    labels = session.annotation.new_labels(session.viewer.add_image(gray(40, 40)))
    assert labels.selected_label == 255


def test_an_empty_layer_of_any_size_costs_neither_counting_nor_memory(make_session: Any, qtbot: Any) -> None:
    import dask.array

    session = make_session()
    image = session.viewer.add_image(dask.array.zeros((2000, 2000, 2000), np.uint8, chunks=(1, 2000, 2000)))
    labels = session.annotation.new_labels(image)
    assert not session.annotation.is_counting and labels.data.shape == (2000, 2000, 2000)
    assert not isinstance(labels.data, np.ndarray)
    assert session.annotation.counts(labels).of(0).tolist() == [4_000_000] * 2000
    session.viewer.dims.set_point(0, 7)
    labels.brush_size = 6
    with qtbot.waitSignal(session.annotation.counts_changed):
        labels.paint((7, 600, 600), 2)
    counts = session.annotation.counts(labels)
    assert counts.of(2)[7] == np.count_nonzero(labels.data[7]) > 20 and counts.of(2).sum() == counts.of(2)[7]


def test_counting_keeps_nothing_else_waiting(make_session: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from napari_autosegnet.widgets.annotation import pixel_counter

    session, may_end = make_session(), threading.Event()
    monkeypatch.setattr(pixel_counter, "count_section", lambda *_: may_end.wait(20) and {})
    session.viewer.add_image(gray(48, 48))
    session.viewer.add_labels(painted(48, 48))
    session.annotation.follow_layers()
    done: list[int] = []
    try:
        session.background.call(lambda: 1, done.append)
        qtbot.waitUntil(lambda: done == [1], timeout=5000)
        assert session.annotation.is_counting
    finally:
        may_end.set()


def test_another_section_in_view_is_no_reason_to_count(
    make_session: Any, settled: Callable[[Any], None], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_autosegnet.widgets.annotation import pixel_counter

    session = make_session()
    labels = session.annotation.new_labels(session.viewer.add_image(gray(4, 48, 48)))
    with qtbot.waitSignal(session.annotation.counts_changed):
        labels.paint((0, 20, 20), 1)
    session.viewer.dims.set_point(0, 1)
    qtbot.wait(400)
    settled(session)
    counted: list[int] = []
    whole = pixel_counter.count_section
    monkeypatch.setattr(pixel_counter, "count_section", lambda *given: counted.append(given[1]) or whole(*given))
    for section in (2, 3, 0):
        session.viewer.dims.set_point(0, section)
        qtbot.wait(20)
    qtbot.wait(400)
    assert counted == []
    labels.undo()
    qtbot.waitUntil(lambda: not session.annotation.counts(labels).of(1).any(), timeout=5000)


def test_an_export_keeps_the_image_of_the_one_before(
    make_session: Any, settled: Callable[[Any], None], tmp_path: Path
) -> None:
    from napari_autosegnet.data.images import open_image

    session, run, found = make_session(), Run.create(tmp_path / "run"), []
    for value in (10, 200):
        session.viewer.layers.clear()
        session.viewer.add_image(np.full((64, 64), value, np.uint8), name="Image")
        session.viewer.add_labels(painted(64, 64))
        session.annotation.follow_layers()
        settled(session)
        found.append(session.labeled_images.export(run).images[0])
    assert [open_image(path).section(0)[0].max() for path in found] == [10, 200]


def test_labels_lie_on_the_file_of_an_image_that_was_moved_in_the_viewer(
    make_session: Any, settled: Callable[[Any], None], tmp_path: Path
) -> None:
    """As people move one to see two side by side, or correct the size of its pixels."""
    from napari.layers._source import layer_source

    pixels, file = gray(40, 40), tmp_path / "placed.ome.tif"
    about = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(file, pixels, photometric="minisblack", metadata=about)
    session, run = make_session(), Run.create(tmp_path / "run")
    with layer_source(path=str(file)):
        image = session.viewer.add_image(pixels)
    where: dict[str, Any] = {"scale": (0.25, 0.25), "translate": (0, 90), "units": ("um", "um")}
    image.scale, image.translate, image.units = where.values()
    session.viewer.add_labels(painted(40, 40), **where)
    settled(session)
    data = session.labeled_images.export(run)
    assert data.images == [file]
    (stack,) = open_labeled(data.images, data.labels)
    assert stack.labels.scale[1:] == stack.image.scale[1:] == (0.5, 0.5) and not any(stack.labels.translation)


def test_an_image_series_is_written_once(make_session: Any, settled: Callable[[Any], None], tmp_path: Path) -> None:
    session, run = make_session(), Run.create(tmp_path / "run")
    image = session.viewer.add_image(gray(2, 3, 40, 40), name="series")
    labels = session.viewer.add_labels(np.stack([painted(3, 40, 40)] * 2), name="series annotation")
    settled(session)
    first, again = (session.labeled_images.export(run) for _ in range(2))
    assert len(first.images) == 2 and first.images == again.images and not set(first.labels) & set(again.labels)
    image.data = image.data.copy()
    settled(session)
    anew = session.labeled_images.export(run)
    assert not set(anew.images) & set(first.images) and all(path.exists() for path in (*first.images, *anew.images))
    image.scale = labels.scale = (1, 5, 2, 2)
    settled(session)
    assert not set(session.labeled_images.export(run).images) & set(anew.images)
