"""Labels that follow the strokes: what is shown on which images, when it is not, and that nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtCore import Qt

from napari_autosegnet.widgets.annotate import live_labels
from napari_autosegnet.widgets.annotate.live_labels import LiveLabels
from napari_autosegnet.widgets.dock import AutoSegNetDock
from napari_autosegnet.widgets.layers.notes import role
from windows import activate

HEIGHT, WIDTH = 48, 80
#: Class numbers: the left half is smooth, the right half rough.
TRUTH = np.repeat([1, 2], WIDTH // 2)


def textures(*leading: int) -> np.ndarray:
    """Every second section is mirrored."""
    noise = np.random.default_rng(0).normal(size=(*leading, HEIGHT, WIDTH))
    image = (128 + np.where(TRUTH == 1, 2, 30) * noise).clip(0, 255).astype(np.uint8)
    if leading:
        image[1::2] = image[1::2, ..., ::-1]
    return image


def stroke(labels: Any, value: int, *leading: int) -> None:
    """A short one in the half of its class."""
    labels.brush_size = 4
    for x in range(6, 34, 2):
        labels.paint((*leading, HEIGHT // 2, x + (value - 1) * WIDTH // 2), value)


def is_shown(live: LiveLabels) -> bool:
    """Whether there are labels, and none to come."""
    return live.layer is not None and live.layer.visible and not live.is_busy


def agreement(layer: Any, mirrored: bool = False) -> float:
    """Share of the pixels that have the right class, but for those where the halves meet."""
    right = layer.data == (TRUTH[::-1] if mirrored else TRUTH)[: layer.data.shape[-1]]
    return float(np.delete(right, np.s_[WIDTH // 2 - 8 : WIDTH // 2 + 8], axis=-1).mean())


@pytest.fixture
def make_live(make_session: Callable[..., Any], qtbot: Any) -> Iterator[Callable[..., LiveLabels]]:
    """The box alone, in sight, beside a viewer without a window."""
    made: list[LiveLabels] = []

    def make() -> LiveLabels:
        live = LiveLabels(make_session())
        qtbot.addWidget(live)
        live.show()
        made.append(live)
        return live

    yield make
    for live in made:
        live.release()


def test_labels_follow_strokes_and_slider_until_they_are_not_wanted(
    make_napari_viewer: Callable[..., Any], qtbot: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(textures(3), scale=(2, 0.5, 0.5), translate=(5, 1, 2))
    dock = AutoSegNetDock(viewer)
    frame = viewer.window.add_dock_widget(dock, name="AutoSegNet")
    live, session = dock.annotate_step.live, dock.session
    viewer.dims.set_current_step(0, 0)
    painted = session.annotation.new_labels(image)

    def wait_for(section: int) -> Any:
        qtbot.waitUntil(lambda: is_shown(live), timeout=30_000)
        place = image.world_to_data(live.layer.data_to_world((0, 0, 0)))
        np.testing.assert_allclose(place, (section, 0, 0), atol=1e-9)
        return live.layer

    stroke(painted, 1, 0)
    qtbot.waitUntil(lambda: "two classes" in live.line.text(), timeout=30_000)
    assert live.layer is None
    stroke(painted, 2, 0)
    layer = wait_for(0)
    assert agreement(layer) > 0.9 and set(np.unique(layer.data)) == {1, 2}
    assert [each.name for each in viewer.layers] == [image.name, "Live labels", painted.name]
    assert viewer.layers.selection.active is painted and painted.mode == "paint" and not layer.editable
    assert role(layer) == "preview" and [pair.labels for pair in session.annotation.pairs()] == [painted]
    assert session.layers.labels() == [painted] and session.annotation.pixels_of(1) == np.count_nonzero(
        painted.data == 1
    )
    assert layer.colormap.color_dict[2].tolist() == painted.colormap.color_dict[2].tolist()

    viewer.dims.set_current_step(0, 1)
    qtbot.waitUntil(lambda: agreement(live.layer, mirrored=True) > 0.9, timeout=30_000)
    wait_for(1)
    painted.translate = image.translate + np.array([0, 2, 0])  # strokes would land elsewhere than they are seen
    qtbot.waitUntil(lambda: not live.layer.visible, timeout=30_000)
    button = dock.annotate_step.place_button
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert painted.translate.tolist() == image.translate.tolist() and button.isHidden()
    wait_for(1)
    image.translate = painted.translate = (5, 2, 4)
    wait_for(1)
    painted.data = np.zeros_like(painted.data)  # replaced by nothing
    qtbot.waitUntil(lambda: not live.layer.visible, timeout=30_000)
    stroke(painted, 1, 0)
    stroke(painted, 2, 0)
    wait_for(1)

    live.box.click()
    assert live.layer is None and len(viewer.layers) == 2
    stroke(painted, 2, 2)
    qtbot.wait(400)
    assert len(viewer.layers) == 2 and not live.line.text()
    live.box.click()
    viewer.layers.remove(wait_for(1))
    assert not live.box.isChecked(), "who removes the layer does not want it"
    live.box.click()
    layer = wait_for(1)
    canvas = viewer.window._qt_viewer.canvas.native
    activate(canvas.window(), qtbot)
    for key, value in ((Qt.Key.Key_1, 1), (Qt.Key.Key_2, 2), (Qt.Key.Key_9, 2)):
        qtbot.keyClick(canvas, key)
        assert painted.selected_label == value and painted.mode == "paint", "the brush of a class"
    dock.show_step("learn")
    assert not layer.visible
    qtbot.keyClick(canvas, Qt.Key.Key_1)
    assert painted.mode == "erase", "napari's own key again"
    dock.show_step("apply")
    qtbot.keyClick(canvas, Qt.Key.Key_2)
    assert painted.selected_label == 2 and painted.mode == "paint", "the brush of a class, where mistakes are corrected"
    qtbot.mouseClick(dock.apply_step.brushes.buttons[0], Qt.MouseButton.LeftButton)
    assert painted.selected_label == 1
    dock.show_step("annotate")
    wait_for(1)
    viewer.window.remove_dock_widget(frame)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    assert not [each for each in threading.enumerate() if each.name.startswith("napari-autosegnet")]


KINDS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "plain": (textures(), {}),
    "time series": (textures(2, 2), {"axis_labels": ("t", "z", "y", "x")}),
    "colors": (np.stack([textures()] * 3, axis=-1), {"rgb": True}),
    "channels": (np.stack([textures(2)] * 2), {"axis_labels": ("c", "z", "y", "x")}),
    "floats, not all of them numbers": (np.where(textures() > 200, np.nan, textures() / 255.0), {}),
    "turned": (textures(2), {"rotate": (0, 0, 90), "scale": (3, 1, 1)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_all_kinds_are_labeled(kind: str, make_live: Callable[..., LiveLabels], qtbot: Any) -> None:
    live, (pixels, about) = make_live(), KINDS[kind]
    image = live.session.viewer.add_image(pixels, **about)
    live.session.annotation.follow_layers()
    live.session.viewer.dims.set_point(range(live.session.viewer.dims.ndim), image.data_to_world([0] * image.ndim))
    painted = live.session.annotation.new_labels(image)
    for value in (1, 2):
        stroke(painted, value, *(0 for _ in range(painted.ndim - 2)))
    qtbot.waitUntil(lambda: live.layer is not None or live.line.kind == "error", timeout=30_000)
    assert not live.line.text() and agreement(live.layer) > 0.9, live.line.text()


def test_of_large_pyramids_the_part_in_view_is_labeled(
    make_live: Callable[..., LiveLabels], qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_labels, "MAX_PIXELS", 40 * 40)
    live = make_live()
    viewer = live.session.viewer
    image = viewer.add_image([textures(), textures()[::2, ::2]], multiscale=True)
    live.session.annotation.follow_layers()
    painted = live.session.annotation.new_labels(image)
    viewer.scene.camera.center = (0, 0, 0)
    stroke(painted, 1)
    stroke(painted, 2)
    qtbot.waitUntil(lambda: live.layer is not None, timeout=30_000)
    assert live.layer.data.shape == (40, 40) and (live.layer.data[:, :32] == 1).mean() > 0.9
    assert "rows 0 to 40 of 48 and columns 0 to 40 of 80" in live.line.text()
    viewer.scene.camera.center = (0, HEIGHT, WIDTH)
    qtbot.waitUntil(lambda: (live.layer.data[:, 8:] == 2).mean() > 0.9, timeout=30_000)
    assert live.layer.data_to_world((0, 0)) == (8, 40)


def test_strokes_of_several_images_count_and_what_does_not_fit_is_said(
    make_live: Callable[..., LiveLabels], qtbot: Any
) -> None:
    live = make_live()
    session, viewer = live.session, live.session.viewer
    first, second = viewer.add_image(textures(2)), viewer.add_image(textures(2)[:, :-2])
    session.annotation.follow_layers()
    stroke(session.annotation.new_labels(first), 1, 0)
    others = session.annotation.new_labels(second)
    stroke(others, 2, 0)
    # It lies above both images, and the one under the selected annotation is looked at.
    for image in (second, first):
        viewer.layers.selection.active = image
        viewer.dims.set_current_step(0, 0)

        def is_labeled(image: Any = image) -> bool:
            return is_shown(live) and live.layer.data.shape[1:] == image.data.shape[1:]

        qtbot.waitUntil(is_labeled, timeout=30_000)
        assert agreement(live.layer) > 0.9 and [role(layer) for layer in viewer.layers].count("preview") == 1
    viewer.dims.order = (1, 0, 2)
    qtbot.waitUntil(lambda: "view of y and x" in live.line.text(), timeout=30_000)
    assert not live.layer.visible
    viewer.dims.order = (0, 1, 2)
    qtbot.waitUntil(lambda: is_shown(live), timeout=30_000)
    colors = viewer.add_image(np.zeros((20, 30, 3), np.uint8), rgb=True)
    viewer.layers.selection.active = colors
    qtbot.waitUntil(lambda: "other channels" in live.line.text(), timeout=30_000)
    viewer.layers.remove(colors)
    viewer.layers.selection.active = first
    qtbot.waitUntil(lambda: is_shown(live), timeout=30_000)
    viewer.layers.remove(first)
    viewer.layers.remove(others)
    qtbot.waitUntil(lambda: not live.layer.visible, timeout=30_000)


class Unreadable:
    """An array whose file is damaged from the second read on."""

    shape, dtype, ndim = (HEIGHT, WIDTH), np.dtype(np.uint8), 2
    error: Exception | None = None

    def __getitem__(self, key: Any) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return textures()[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return textures()


def test_whatever_goes_wrong_is_one_line(make_live: Callable[..., LiveLabels], qtbot: Any) -> None:
    live, array = make_live(), Unreadable()
    image = live.session.viewer.add_image(array, multiscale=False)
    live.session.annotation.follow_layers()
    painted = live.session.annotation.new_labels(image)
    array.error = OSError("input/output error\nsecond line")
    stroke(painted, 1)
    stroke(painted, 2)
    qtbot.waitUntil(lambda: live.line.kind == "error", timeout=30_000)
    assert "input/output error" in live.line.text() and "\n" not in live.line.text()
    array.error = None
    painted.paint((0, 0), 1)
    qtbot.waitUntil(lambda: live.layer is not None and not live.line.text(), timeout=30_000)


def test_labels_of_an_image_that_is_closed_are_out_of_sight(make_live: Callable[..., LiveLabels], qtbot: Any) -> None:
    live = make_live()
    viewer = live.session.viewer
    image = viewer.add_image(textures())
    painted = live.session.annotation.new_labels(image)
    stroke(painted, 1)
    stroke(painted, 2)
    qtbot.waitUntil(lambda: is_shown(live), timeout=60_000)
    layer = live.layer
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: not layer.visible, timeout=30_000)
    viewer.add_image(textures())
    viewer.layers.move(len(viewer.layers) - 1, 0)
    qtbot.waitUntil(lambda: is_shown(live), timeout=60_000)
    assert live.layer is not layer and layer not in viewer.layers
