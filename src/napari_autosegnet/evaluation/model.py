"""The score of a model on labeled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from napari_autosegnet.data.annotations import LabelMapping
from napari_autosegnet.data.images import tell_notes
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.pairs import tell_pairs
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.device import choose_device
from napari_autosegnet.errors import UserError
from napari_autosegnet.evaluation.overlays import picture_names
from napari_autosegnet.evaluation.scoring import ScoredSection, class_order, describe_order, score, sections_to_score
from napari_autosegnet.events import DataRead, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model
from napari_autosegnet.settings import GrayValuesChoice, PredictSettings
from napari_autosegnet.training.metrics import Scores


def evaluate_model(
    model: Path,
    images: Sequence[Path],
    labels: Sequence[Path],
    *,
    classes: str | None = None,
    read: Selection = ALL,
    sections: str | None = None,
    overlays: Path | None = None,
    gray_values: GrayValuesChoice = "checked",
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Apply a model to labeled images and score it; see `api.evaluate`."""
    from napari_autosegnet.inference.compute.sections import checked_survey, make_predictor, predict_section

    loaded = Model.load(model)
    stacks = open_labeled(images, labels, _trained_mapping(loaded) if classes is None else classes, read)
    tell_pairs(stacks, report)
    tell_notes([each for stack in stacks for each in (stack.image, stack.labels)], report)
    order = class_order(stacks[0].mapping.classes, [c.name for c in loaded.classes])
    report(DataRead(text=describe_order(stacks[0].mapping, order), classes=tuple(c.name for c in loaded.classes)))
    chosen = sections_to_score(stacks, sections, report)
    predictor = make_predictor(loaded, choose_device(device), PredictSettings(), report)
    surveys = [checked_survey(loaded, stack.image, gray_values, report) for stack in stacks]
    names = picture_names([stack.image for stack in stacks])

    def scored() -> Iterator[ScoredSection | None]:
        for number, section in chosen:
            stack, survey = stacks[number], surveys[number]
            result = predict_section(predictor, stack.image, section, survey=survey, should_stop=should_stop)
            if result is None:
                return
            if survey.is_constant(section):
                yield None
                continue
            labels, probabilities = result
            yield ScoredSection(
                truth=order[stack.target(section)],
                prediction=labels.astype(np.int64) - 1,
                probabilities=probabilities,
                image=stack.image.section(section) if overlays else None,
                name=f"{names[number]}-{section:04d}",
            )

    return score(scored(), len(chosen), loaded.classes, overlays, report, should_stop)


def _trained_mapping(model: Model) -> LabelMapping:
    values = model.description.training.get("label_values")
    if not isinstance(values, dict):
        raise UserError("the model does not say how label values are read; give --classes")
    return LabelMapping.from_written(model.classes, values)
