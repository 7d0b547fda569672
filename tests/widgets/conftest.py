"""Fixtures of the docks' tests; modules skip themselves where napari or pytest-qt is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go into the test's own folder, not into the home of whoever runs the tests."""
    session = pytest.importorskip("napari_autosegnet.widgets.session", reason="napari is not installed")
    from napari_autosegnet.widgets.preferences import Preferences

    folder = tmp_path / "runs"
    monkeypatch.setattr(session, "read_preferences", lambda: Preferences(runs_folder=folder, device="cpu"))
    return folder


@pytest.fixture
def make_session(qapp: Any) -> Iterator[Callable[..., Any]]:
    """Sessions on viewers of their own, without a window; closed in the end."""
    from napari.components import ViewerModel

    from napari_autosegnet.widgets.session import Session

    made: list[Session] = []

    def make(viewer: Any = None) -> Session:
        session = Session(ViewerModel() if viewer is None else viewer)
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


@pytest.fixture
def settled(qtbot: Any) -> Callable[[Any], None]:
    """Waits until a session has counted all pixels and checked them."""

    def wait(session: Any) -> None:
        qtbot.wait(10)
        qtbot.waitUntil(lambda: not session.annotation.is_counting and not session.background.is_busy, timeout=60_000)

    return wait
