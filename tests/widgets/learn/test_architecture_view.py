"""The drawing of the best architecture so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pytestqt")
pytest.importorskip("qtpy")

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.events import ArchitectureFound
from napari_autosegnet.figures import operation_style
from napari_autosegnet.widgets.learn.architecture_view import ArchitectureDialog, ArchitectureView


def event(seed: int, **values: Any) -> ArchitectureFound:
    architecture = SearchSpace().sample(np.random.default_rng(seed))
    return ArchitectureFound(architecture=architecture.model_dump(mode="json"), **values)


def colors(view: ArchitectureView) -> set[str]:
    picture = view.grab().toImage()
    return {picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())}


def test_it_follows_the_search_and_shows_the_operations(qtbot: Any) -> None:
    view = ArchitectureView()
    qtbot.addWidget(view)
    assert view.isHidden() and view.text() == ""
    view.add(ArchitectureFound(architecture={"down": 3}))
    assert view.isHidden()
    view.add(event(0, score=0.25, final=False))
    view.resize(view.sizeHint())
    assert not view.isHidden() and view.score == 0.25 and not view.final
    assert "Best network so far, quality 0.250" in view.text()
    architecture = view.architecture
    assert architecture is not None
    used = {operation_style(node.operation).fill for node in architecture.nodes}
    assert used <= colors(view)
    first = view.grab().toImage()
    view.add(event(1, score=0.5))
    assert view.final and view.grab().toImage() != first
    assert "Network found" in view.text() and "quality" not in view.text()
    view.clear()
    assert view.isHidden() and view.architecture is None and view.text() == ""


def test_all_cells_of_a_larger_space_fit(qtbot: Any) -> None:
    view = ArchitectureView()
    qtbot.addWidget(view)
    view.show_architecture(SearchSpace(cells=5).sample(np.random.default_rng(0)))
    five = view.sizeHint().height()
    view.show_architecture(SearchSpace(cells=3).sample(np.random.default_rng(0)))
    assert five > view.sizeHint().height() > 150


def test_a_click_opens_the_full_drawing(qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    view = ArchitectureView()
    qtbot.addWidget(view)
    view.add(event(0))
    view.resize(view.sizeHint())
    qtbot.mouseClick(view, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(view, Qt.MouseButton.LeftButton)  # one is enough
    qtbot.waitUntil(lambda: bool(view.findChildren(ArchitectureDialog)), timeout=60_000)
    (dialog,) = view.findChildren(ArchitectureDialog)
    assert dialog.picture.width() > 600
    shown = dialog.grab().toImage()
    assert shown.width() == dialog.width() and not shown.allGray()
    with qtbot.waitSignal(dialog.destroyed):
        dialog.close()
    view.release()
