"""A model applied to some sections in memory: what the preview, the scores and the pictures need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_autosegnet.config import GreyValuesChoice, PredictSettings
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.inference.blocks import slices
from napari_autosegnet.inference.grey_check import check_grey_values
from napari_autosegnet.inference.predictor import USUAL_TILE, AppliedModel, Precision, Predictor
from napari_autosegnet.inference.reading import check_image, read_block
from napari_autosegnet.inference.survey import ImageSurvey
from napari_autosegnet.run import Report, ShouldStop, never_stop, silent

if TYPE_CHECKING:
    import torch


def make_predictor(
    model: AppliedModel,
    device: torch.device | str,
    settings: PredictSettings,
    report: Report = silent,
    *,
    precision: Precision | None = None,
) -> Predictor:
    """Predictor with the settings' tiles, halo and engine."""
    predictor = Predictor(
        model,
        device,
        tile=USUAL_TILE if settings.tile == "auto" else settings.tile,
        halo=settings.halo,
        batch_size=settings.batch_size,
        flips=settings.flips,
        engine=None if settings.engine == "auto" else settings.engine,
        precision=precision,
        report=report,
    )
    if settings.tile == "auto":
        # At least half of a window's side is kept, however wide the halo; else the work grows without bound.
        predictor.tile = max(predictor.tile, 4 * predictor.halo)
    return predictor


def checked_survey(
    model: AppliedModel, image: ImageStack, choice: GreyValuesChoice = "checked", report: Report = silent
) -> ImageSurvey:
    """An image that a model can be applied to, and how its grey values are scaled.

    Raises
    ------
    UserError
        When the image does not fit the model, or its grey values are unlike all that the model has seen.
    """
    check_image(model, image)
    scale = check_grey_values(model.normalisation, image, choice, report)
    return ImageSurvey(image, model.normalisation, scale)


def predict_section(
    predictor: Predictor,
    image: ImageStack,
    section: int,
    *,
    survey: ImageSurvey | None = None,
    should_stop: ShouldStop = never_stop,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None:
    """Labels (y, x) of classes 1..K, and probabilities (K, y, x), of one section; None when asked to stop.

    Where the image is NaN or infinite, and in a section of one grey value, the label is 0, and so are all
    probabilities. The sections of the stack may differ in size, unless the model reads neighbouring sections.

    Parameters
    ----------
    predictor : Predictor
    image : ImageStack
    section : int
    survey : ImageSurvey, optional
        Of the image (`checked_survey`), kept for several sections.
    should_stop : ShouldStop
        Asked after every tile.
    """
    check_image(predictor.model, image)
    height, width = image.section_shape(section)
    shape = (image.sections, height, width)
    plan = predictor.plan(shape, (1, height, width))
    block = plan[section]
    pixels = None if image.uniform else image.section(section)[:, np.newaxis]
    survey = survey or checked_survey(predictor.model, image)
    data = read_block(image, plan, block, survey=survey, pixels=pixels)
    predictor.tell_missing(block, data)
    probabilities = np.zeros((predictor.classes, height, width), np.float32)
    for _, tile, found, _ in predictor.tiles(plan, block, data):
        if should_stop():
            return None
        probabilities[(slice(None), *slices(tile.core))] = found.cpu().numpy()
    labels = (probabilities.argmax(0) + 1).astype(np.uint8)
    asked = data.asked(block.shape)
    if asked is not None:
        labels[~asked[0]] = 0
        probabilities[:, ~asked[0]] = 0
    return labels, probabilities


def predict_sections(
    model: AppliedModel,
    image: ImageStack,
    sections: Sequence[int] | None = None,
    settings: PredictSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Labels (n, y, x) and probabilities (K, n, y, x) of some sections of a uniform stack, in memory.

    For whole volumes there is `predict_volume`, for stacks of mixed sizes `predict_section`. When asked to
    stop, the sections finished so far are returned.

    Raises
    ------
    UserError
        When the image does not fit the model, or its sections differ in size.
    """
    settings = settings or PredictSettings()
    predictor = make_predictor(model, device, settings, report)
    survey = checked_survey(model, image, settings.grey_values, report)
    chosen = range(image.sections) if sections is None else sections
    _, height, width = image.shape
    labels: list[npt.NDArray[np.uint8]] = []
    probabilities: list[npt.NDArray[np.float32]] = []
    for number, section in enumerate(chosen, start=1):
        found = predict_section(predictor, image, section, survey=survey, should_stop=should_stop)
        if found is None:
            break
        labels.append(found[0])
        probabilities.append(found[1])
        report("progress", done=number, total=len(chosen))
    if not labels:
        return np.zeros((0, height, width), np.uint8), np.zeros((predictor.classes, 0, height, width), np.float32)
    return np.stack(labels), np.stack(probabilities, axis=1)
