"""What tests do with the step Apply."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.inference.compute.sections import make_predictor, predict_section
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply.apply_step import ApplyStep
from small_models import small_model


def use_run(step: ApplyStep, run: Run, qtbot: Any) -> None:
    step.session.run = run
    qtbot.waitUntil(lambda: step.model is not None, timeout=10_000)


def idle(step: ApplyStep, qtbot: Any) -> None:
    session = step.session
    qtbot.waitUntil(lambda: not step.slices.progress.is_under_way and not session.background.is_busy, timeout=60_000)


def expected(stack: np.ndarray, section: int) -> np.ndarray:
    predictor = make_predictor(small_model(), "cpu", PredictSettings())
    found = predict_section(predictor, image_from_array(stack), section)
    assert found is not None
    return found[0]
