"""The step Apply over a small stack, with a run that holds a small model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_autosegnet.run import Run
from small_models import small_model


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 96, 96), np.uint8)


@pytest.fixture
def session(make_session: Any, stack: np.ndarray) -> Any:
    session = make_session()
    session.viewer.add_image(stack, name="stack", scale=(50, 4, 4), translate=(100, 8, 8))
    session.annotation.follow_layers()
    return session


@pytest.fixture
def run(runs_folder: Path) -> Run:
    run = Run.create(runs_folder / "first")
    small_model().save(run.model_folder)
    return run


@pytest.fixture
def step(session: Any, run: Run, qtbot: Any) -> Iterator[Any]:
    from napari_autosegnet.widgets.apply.apply_step import ApplyStep

    step = ApplyStep(session)
    qtbot.addWidget(step)
    step.show()
    yield step
    step.volume.client.cancel()
    step.release()
