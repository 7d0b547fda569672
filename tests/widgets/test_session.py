from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from small_layers import gray


def test_new_run_folders_are_never_taken(make_session: Any, runs_folder: Path) -> None:
    session = make_session()
    first = session.new_run_folder("my image: 1")
    assert first.parent == runs_folder and ":" not in first.name
    first.mkdir(parents=True)
    assert session.new_run_folder("my image: 1") != first


def test_a_closed_session_lets_go_of_the_viewer(qapp: Any) -> None:
    from napari.components import ViewerModel

    from napari_autosegnet.widgets.session import Session

    viewer = ViewerModel()
    layer = viewer.add_image(gray(32, 32))

    def listeners() -> int:
        emitters = [viewer.layers.events.inserted, viewer.layers.events.removed, layer.events.name]
        return sum(len(emitter.callbacks) for emitter in emitters)

    before = listeners()
    session = Session(viewer)
    assert listeners() > before
    session.close()
    assert listeners() == before
