from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotate.annotate_step import AnnotateStep
from napari_autosegnet.widgets.annotation.class_matching import renumbered
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer, kept_classes

MEMBRANE, CELL = LabelClass(1, "membrane", "#112233"), LabelClass(2, "cell", "#445566")


def stripes(*shape: int) -> np.ndarray:
    labels = np.ones(shape, np.uint8)
    labels[..., ::2] = 2
    return labels


@pytest.fixture
def saved(make_session: Any, settled: Callable[[Any], None], tmp_path: Path) -> Path:
    """A run folder with annotation: odd columns are membrane (1), even ones cell (2)."""
    session = make_session()
    session.viewer.add_image(np.zeros((64, 64), np.uint8), name="theirs")
    session.viewer.add_labels(stripes(64, 64), **annotation_layer((MEMBRANE, CELL), name="x"))
    session.annotation.follow_layers()
    settled(session)
    session.labeled_images.export(Run.create(tmp_path / "theirs"))
    return tmp_path / "theirs"


def own(session: Any, settled: Any, names: dict[int, str]) -> Any:
    """An image of 48 x 48 whose classes have names."""
    session.viewer.add_image(np.zeros((48, 48), np.uint8), name="own")
    labels = session.viewer.add_labels(stripes(48, 48), name="own drawn")
    session.annotation.follow_layers()
    settled(session)
    for value, name in names.items():
        session.annotation.class_list.change(value, name=name)
    settled(session)
    return labels


def layer_of(session: Any, name: str) -> Any:
    return session.viewer.layers[name]


def test_a_run_with_other_values_is_loaded_with_the_classes_here(
    make_napari_viewer: Any,
    make_session: Any,
    settled: Callable[[Any], None],
    qtbot: Any,
    saved: Path,
    tmp_path: Path,
) -> None:
    session = make_session(make_napari_viewer())
    step = AnnotateStep(session)
    qtbot.addWidget(step)
    own(session, settled, {1: "cell", 2: "membrane"})
    step.load(saved)
    qtbot.waitUntil(lambda: len(session.annotation.pairs()) == 2, timeout=10_000)
    settled(session)
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [(1, "cell"), (2, "membrane")]
    loaded = layer_of(session, "theirs annotation")
    assert np.array_equal(loaded.data, 3 - stripes(64, 64)) and loaded.editable
    assert kept_classes(loaded) == session.annotation.label_classes
    assert "'membrane' 1 -> 2" in step.message.text()
    assert session.labeled_images.problem is None
    data = session.labeled_images.export(Run.create(tmp_path / "both"))
    stacks = open_labeled(data.images, data.labels, data.classes)
    assert [info.name for info in stacks[1].mapping.classes] == ["cell", "membrane"]
    assert np.array_equal(stacks[1].target(0), 3 - stripes(64, 64))
    step.release()


def test_classes_that_are_new_are_added(make_session: Any, settled: Callable[[Any], None], saved: Path) -> None:
    from napari.layers import Layer

    from napari_autosegnet.widgets.files.run_layers import run_layers

    session = make_session()
    own(session, settled, {1: "axon", 2: "membrane"})
    for each in run_layers(saved):
        session.viewer.add_layer(Layer.create(*each))
    session.annotation.follow_layers()
    assert len(session.annotation.pairs()) == 1, "it is not used before its values are known"
    settled(session)
    assert [(each.value, each.name) for each in session.annotation.label_classes] == [
        (1, "axon"),
        (2, "membrane"),
        (3, "cell"),
    ]
    assert np.array_equal(layer_of(session, "theirs annotation").data, stripes(64, 64) + 1)


def test_after_the_last_annotation_nothing_is_kept(
    make_session: Any, settled: Callable[[Any], None], saved: Path
) -> None:
    from napari.layers import Layer

    from napari_autosegnet.widgets.files.run_layers import run_layers

    session = make_session()
    labels = own(session, settled, {1: "axon", 2: "myelin"})
    session.viewer.layers.clear()
    for each in run_layers(saved):
        session.viewer.add_layer(Layer.create(*each))
    session.annotation.follow_layers()
    settled(session)
    assert [each.name for each in session.annotation.classes] == ["membrane", "cell"]
    assert [each.name for each in kept_classes(labels)] == ["axon", "myelin"]
    assert np.array_equal(layer_of(session, "theirs annotation").data, stripes(64, 64))


def test_painted_classes_without_names_keep_their_meaning(make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    own(session, settled, {})
    session.viewer.add_image(np.zeros((40, 40), np.uint8))
    named = session.viewer.add_labels(stripes(40, 40), **annotation_layer((MEMBRANE, CELL), name="named"))
    session.annotation.follow_layers()
    settled(session)
    assert [each.name for each in session.annotation.classes] == ["class 1", "class 2", "membrane", "cell"]
    assert np.array_equal(named.data, stripes(40, 40) + 2)


def test_annotation_in_a_file_is_left_out_rather_than_changed(
    make_session: Any, settled: Callable[[Any], None], tmp_path: Path
) -> None:
    import zarr

    session = make_session()
    mine = own(session, settled, {1: "cell", 2: "membrane"})
    store = zarr.create_array(tmp_path / "labels", data=stripes(40, 40))
    session.viewer.add_image(np.zeros((40, 40), np.uint8))
    theirs = session.viewer.add_labels(store, **annotation_layer((MEMBRANE, CELL), name="theirs"))
    session.annotation.follow_layers()
    settled(session)
    assert [pair.labels for pair in session.annotation.pairs()] == [mine]
    assert (
        "'theirs' cannot be used" in session.labeled_images.problem
        and "value 1 is 'membrane'" in session.labeled_images.problem
    )
    assert kept_classes(theirs) == (MEMBRANE, CELL) and np.array_equal(store[:], stripes(40, 40))
    session.annotation.use(theirs, False)
    settled(session)
    assert session.labeled_images.problem is None
    session.annotation.use(theirs, True)
    session.viewer.layers.remove(mine)
    settled(session)
    assert [pair.labels for pair in session.annotation.pairs()] == [theirs]
    assert [each.name for each in session.annotation.classes] == ["membrane", "cell"]


@pytest.mark.parametrize("sparse", [False, True])
def test_unpainted_is_not_taken_for_a_class(sparse: bool, make_session: Any, settled: Callable[[Any], None]) -> None:
    session = make_session()
    session.viewer.add_image(np.zeros((48, 48), np.uint8))
    session.viewer.add_labels((stripes(48, 48) - 1) * 255)
    session.annotation.follow_layers()
    settled(session)
    session.annotation.class_list.change(0, name="membrane")
    session.annotation.class_list.change(255, name="cell")
    session.viewer.add_image(np.zeros((40, 40), np.uint8))
    data = stripes(40, 40)
    data[:20] = data[:20] * (not sparse)
    theirs = session.viewer.add_labels(data, **annotation_layer((MEMBRANE, CELL), name="theirs"))
    session.annotation.follow_layers()
    settled(session)
    if sparse:
        assert (
            "unpainted pixels would count as 'membrane'" in session.labeled_images.problem
            or "value" in session.labeled_images.problem
        )
        assert len(session.annotation.pairs()) == 1 and np.array_equal(theirs.data, data)
    else:
        assert session.labeled_images.problem is None and len(session.annotation.pairs()) == 2
        assert np.array_equal(theirs.data, (stripes(40, 40) - 1) * 255)


def test_values_that_mean_something_here_only_become_unannotated() -> None:
    labels = np.array([[0, 1, 2, 3, 9]], np.uint8)
    found = renumbered(labels, {1: 2, 2: 300}, {2, 3, 300}, zero_is_class=False)
    assert found is not None and found.tolist() == [[0, 2, 300, 0, 9]]
    assert renumbered(labels, {1: 2, 2: 1}, {0, 1, 2}, zero_is_class=True) is None
