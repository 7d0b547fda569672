"""A model applied to some sections in memory: what the preview, the scores and the pictures need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.events import ProgressMade, Report, silent
from napari_autosegnet.inference.blocks import CUBE_SIDE, round_up, slices
from napari_autosegnet.inference.compute.faint import FaintRun, faint_sections
from napari_autosegnet.inference.compute.gray_check import check_gray_values
from napari_autosegnet.inference.compute.precision import Precision
from napari_autosegnet.inference.compute.predictor import USUAL_TILE, Predictor
from napari_autosegnet.inference.compute.reading import check_image, read_block
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model
from napari_autosegnet.settings import GrayValuesChoice, PredictSettings

if TYPE_CHECKING:
    import torch

#: Side (pixels) of the part of a section that is read at a time; larger where tiles are.
READ_AT_ONCE = 2048


def make_predictor(
    model: Model,
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
        precision=precision or ("float32" if settings.precision == "float32" else None),
        report=report,
    )
    if settings.tile == "auto":
        # At least half of a window's side is kept, however wide the halo; else the work grows without bound.
        predictor.tile = max(predictor.tile, 4 * predictor.halo)
        if settings.planes == "all":
            predictor.tile = max(predictor.tile, CUBE_SIDE + 2 * predictor.halo)
    return predictor


def checked_survey(
    model: Model,
    image: ImageStack,
    choice: GrayValuesChoice = "checked",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> ImageSurvey:
    """An image that a model can be applied to, and how its gray values are scaled; of no use once it was stopped.

    Raises
    ------
    UserError
        When the image does not fit the model, or its gray values are unlike all that the model has seen.
    """
    check_image(model, image)
    scale = check_gray_values(model.normalization, image, choice, report, should_stop)
    return ImageSurvey(image, model.normalization, scale)


class SectionTile(NamedTuple):
    """Rows and columns of a section, labels (y, x) of classes 1..K there, and probabilities (K, y, x)."""

    place: tuple[slice, slice]
    labels: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


def section_tiles(
    predictor: Predictor,
    image: ImageStack,
    section: int,
    *,
    survey: ImageSurvey | None = None,
    report: Report = silent,
) -> Iterator[SectionTile]:
    """One section tile by tile, so that memory is needed for no more than what the caller keeps.

    Where the image is NaN or infinite, and in a section of one gray value, the label is 0, and so are all
    probabilities; tiles of nothing else may be left out. A tile comes again where memory did not suffice. The
    sections of the stack may differ in size, unless the model reads neighboring sections.

    Parameters
    ----------
    predictor : Predictor
    image : ImageStack
    section : int
    survey : ImageSurvey, optional
        Of the image (`checked_survey`), kept for several sections.
    report : Report
        Told ``progress`` after every tile, and when the section is done.
    """
    check_image(predictor.model, image)
    survey = survey or checked_survey(predictor.model, image)
    height, width = image.section_shape(section)
    # Of a large section a part is read at a time. What differs in size from the others can only be read whole.
    side = round_up(max(READ_AT_ONCE, 2 * predictor.tile), predictor.stride) if image.uniform else max(height, width)
    plan = predictor.plan((image.sections, height, width), (1, min(side, height), min(side, width)))
    pixels = None if image.uniform else image.section(section)[:, np.newaxis]
    blocks = [plan[plan.index((section, y, x))] for y in range(plan.grid[1]) for x in range(plan.grid[2])]
    total = sum(len(plan.tiles(block)) for block in blocks)
    done = 0
    faint: list[tuple[range, Sequence[FaintRun]]] = []
    for block in blocks:
        data = read_block(image, plan, block, survey=survey, pixels=pixels)
        faint.append((range(*block.core[0]), data.faint))
        predictor.tell_missing(block, data)
        asked = data.asked(block.shape)
        for number, (_, tile, on_device, _) in enumerate(predictor.tiles(plan, block, data), start=1):
            place = slices(tile.core)
            probabilities = on_device.cpu().numpy()
            labels = (probabilities.argmax(0) + 1).astype(np.uint8)
            if asked is not None:
                here = asked[0][
                    tuple(
                        slice(part.start - start, part.stop - start)
                        for part, start in zip(place, block.origin[1:], strict=True)
                    )
                ]
                labels[~here] = 0
                probabilities = np.where(here, probabilities, 0)
            yield SectionTile((place[0], place[1]), labels, probabilities)
            report(ProgressMade(done=min(done + number, total), total=total))
        done += len(plan.tiles(block))
    survey.faint.update(faint_sections(faint, survey.faint_range))
    report(ProgressMade(done=total, total=total))


def predict_section(
    predictor: Predictor,
    image: ImageStack,
    section: int,
    *,
    survey: ImageSurvey | None = None,
    should_stop: ShouldStop = never_stop,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None:
    """Labels (y, x) and probabilities (K, y, x) of one section, as `section_tiles` gives them; None when stopped."""
    shape = image.section_shape(section)
    labels, probabilities = np.zeros(shape, np.uint8), np.zeros((predictor.classes, *shape), np.float32)
    for tile in section_tiles(predictor, image, section, survey=survey):
        if should_stop():
            return None
        labels[tile.place] = tile.labels
        probabilities[(slice(None), *tile.place)] = tile.probabilities
    return labels, probabilities


def predicted_sections(
    model: Model,
    image: ImageStack,
    settings: PredictSettings,
    *,
    sections: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    report: Report = silent,
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
    """Labels (y, x) and probabilities (K, y, x) of all sections, or of some, one after the other.

    For volumes that do not fit into memory there is `predict_volume`.

    Raises
    ------
    UserError
        When the image does not fit the model.
    """
    survey = checked_survey(model, image, settings.gray_values, report)
    predictor = make_predictor(model, device, settings, report)
    chosen = range(image.sections) if sections is None else sections
    for number, section in enumerate(chosen, start=1):
        predicted = predict_section(predictor, image, section, survey=survey)
        assert predicted is not None, "nobody asks it to stop"
        yield predicted
        report(ProgressMade(done=number, total=len(chosen)))
