"""A model kept in memory, applied to single sections for the slice in view. Imports torch when it is first used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.quality import Quality
from napari_autosegnet.settings import GrayValuesChoice, PredictSettings

if TYPE_CHECKING:
    from napari_autosegnet.data.images import ImageStack

#: Comparing engines first takes longer than one slice.
SECTION_SETTINGS = PredictSettings(engine="channels_last")


class SectionResult(NamedTuple):
    """Class numbers 1..K (y, x), uncertainty 0..1 (y, x), classes, fingerprint of the model, and what is to be said."""

    labels: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    classes: tuple[ClassInfo, ...]
    model: str
    notes: tuple[str, ...] = ()


class ModelSummary(NamedTuple):
    """What a person wants to know of a model."""

    path: Path
    classes: tuple[ClassInfo, ...]
    channels: int
    quality: Quality | None


class SectionModel:
    """Loads a model once and keeps it as long as its file stays the same."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._predictor: Any = None

    def predict(
        self,
        path: Path,
        image: ImageStack,
        section: int,
        device: str,
        gray_values: GrayValuesChoice = "checked",
        report: Report = silent,
        should_stop: ShouldStop = never_stop,
    ) -> SectionResult | None:
        """Labels and uncertainty of one section; None when stopped. ``report`` is told ``progress`` tile by tile.

        Raises
        ------
        UserError
            When the model cannot be read or does not fit the image, or the image's gray values are unlike all that
            it has seen and ``gray_values`` does not insist.
        """
        from napari_autosegnet.device import choose_device
        from napari_autosegnet.figures import normalized_entropy
        from napari_autosegnet.inference.compute.sections import checked_survey, make_predictor, section_tiles
        from napari_autosegnet.model import Model

        key = (path, _changed(path), device)
        if key != self._key:
            self._predictor = make_predictor(Model.load(path), choose_device(device), SECTION_SETTINGS)
            self._key = key
        notes: list[str] = []
        if should_stop():
            return None
        survey = checked_survey(self._predictor.model, image, gray_values, _collector(notes), should_stop)
        if should_stop():
            return None
        shape = image.section_shape(section)
        labels, uncertainty = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
        for tile in section_tiles(self._predictor, image, section, survey=survey, report=report):
            if should_stop():
                return None
            labels[tile.place] = tile.labels
            uncertainty[tile.place] = normalized_entropy(tile.probabilities)
        if survey.is_constant(section):
            notes.append("this section has one gray value throughout, so nothing is segmented")
        elif section in survey.faint:
            notes.append("this section shows next to nothing, so the labels mean little")
        model = self._predictor.model
        return SectionResult(labels, uncertainty, model.classes, model.fingerprint, tuple(notes))


def _collector(notes: list[str]) -> Report:
    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    return report


def summarize(path: Path) -> ModelSummary:
    """Classes and quality of a model, read without torch.

    Raises
    ------
    UserError
        When there is no model.
    """
    import json

    from pydantic import ValidationError

    try:
        content = json.loads((path / "model.json").read_text(encoding="utf-8"))
        classes = tuple(ClassInfo.model_validate(entry) for entry in content["classes"])
        quality = Quality.of(content.get("metrics", {}).get("validation"))
        return ModelSummary(path, classes, int(content["image_channels"]), quality)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} holds no model that can be read; choose a run with a trained network") from error


def _changed(path: Path) -> int:
    file = path / "model.json" if path.is_dir() else path
    return file.stat().st_mtime_ns if file.exists() else 0
