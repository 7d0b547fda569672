"""The score of a model or of a prediction against labels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import Finished, Report, Stopped, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.job import JobModel
from napari_autosegnet.settings import GrayValuesChoice

if TYPE_CHECKING:
    from napari_autosegnet.training.metrics import Scores


class EvaluateJob(JobModel):
    """Score a prediction, or a model on labeled images."""

    labels: tuple[Path, ...] = Field(description="True labels, or a pattern in quotes; repeat for several")
    images: tuple[Path, ...] = Field(
        (),
        description="With --model: the image of each --labels; the files of two folders or patterns are paired by name",
    )
    prediction: Path | None = Field(None, description="Predicted labels, as predict writes them")
    objects: Path | None = Field(
        None,
        description="With --prediction: true objects, each with a number of its own (0: none), that its numbered "
        "objects are compared with over the whole volume",
    )
    model: Path | None = Field(None, description="Or a model (or run) folder, applied to the images")
    classes: str | None = Field(None, description="Label values and their classes, for example 0:membrane,255:cell")
    selection: Selection = Field(ALL, description="What of the images and labels is read")
    sections: str | None = Field(None, description="Score only these sections, for example 24-29")
    overlays: Path | None = Field(None, description="Folder for PNGs of prediction and truth over the image")
    gray_values: GrayValuesChoice = Field(
        "checked",
        description="With --model, an image in another range than the model's is scaled where that can be told, else "
        "refused (checked), or taken as it is (as-is)",
    )

    def run(self, *, report: Report = silent, should_stop: ShouldStop = never_stop) -> Scores:
        """Evaluate; see `api.evaluate`."""
        from napari_autosegnet.evaluation.model import evaluate_model
        from napari_autosegnet.evaluation.objects import evaluate_objects
        from napari_autosegnet.evaluation.prediction import evaluate_prediction

        if self.overlays is not None and self.overlays.exists() and not self.overlays.is_dir():
            raise UserError(f"{self.overlays} is not a folder; give --overlays a folder, or a new name")
        started = time.monotonic()
        try:
            if self.objects is not None and self.prediction is None:
                raise UserError("objects are those of a prediction; give --prediction with --objects")
            if self.model is not None and self.prediction is None:
                scores = evaluate_model(
                    self.model,
                    self.images,
                    self.labels,
                    classes=self.classes,
                    read=self.selection,
                    sections=self.sections,
                    overlays=self.overlays,
                    gray_values=self.gray_values,
                    device=self.device,
                    report=report,
                    should_stop=should_stop,
                )
            elif self.prediction is not None and self.model is None:
                scores = evaluate_prediction(
                    self.prediction,
                    self.labels,
                    images=self.images,
                    classes=self.classes,
                    sections=self.sections,
                    overlays=self.overlays,
                    report=report,
                    should_stop=should_stop,
                )
                if self.objects is not None:
                    compared = evaluate_objects(self.prediction, self.objects, self.sections, report, should_stop)
                    scores = scores.model_copy(update={"objects": compared})
            else:
                raise UserError("give either a model or a prediction to evaluate")
        except StoppedError:
            report(Stopped(step="evaluate", reason="a stop was asked for; there is no score"))
            raise
        report(Finished(step="evaluate", seconds=time.monotonic() - started))
        return scores
