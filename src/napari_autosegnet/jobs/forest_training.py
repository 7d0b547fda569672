"""One training of a forest on pixel features, from labeled images to the model in ``RUN/model``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_autosegnet.data.labeled_stacks import annotated_places
from napari_autosegnet.data.learned_from import LearnedFrom
from napari_autosegnet.data.loaded_regions import section_reader
from napari_autosegnet.errors import StoppedError
from napari_autosegnet.events import ProgressMade, QualityMeasured, Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.jobs.preparation import LabeledData, PreparedData
from napari_autosegnet.jobs.training_start import TrainingStart
from napari_autosegnet.model import Model
from napari_autosegnet.pixel_classifier.drawn_pixels import MIN_PER_CLASS, drawn_by_class
from napari_autosegnet.pixel_classifier.features import features_at
from napari_autosegnet.pixel_classifier.forest import PixelClassifier
from napari_autosegnet.quality import Checked, Quality
from napari_autosegnet.run import Run
from napari_autosegnet.training.checkpoints import remove_checkpoint
from napari_autosegnet.training.metrics import ConfusionMatrix

#: Most annotated pixels that a forest is fitted on, and checked with: strokes are fewer, whole label images far more.
MAX_PIXELS, MAX_CHECKED = 30_000, 100_000
_TRAINING, _VALIDATION = 1, 2


@dataclass(frozen=True)
class AnnotatedPixels:
    """Features (n, f) of annotated pixels, and their classes (n,), 0 to K - 1."""

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[AnnotatedPixels]) -> AnnotatedPixels:
        """Those of several sections."""
        return cls(np.concatenate([each.features for each in parts]), np.concatenate([each.targets for each in parts]))

    def where(self, chosen: npt.NDArray[np.bool_]) -> AnnotatedPixels:
        """Some of them."""
        return AnnotatedPixels(self.features[chosen], self.targets[chosen])


def train_forest(
    run: Run,
    configuration: RunConfiguration,
    start: TrainingStart,
    data: LabeledData,
    *,
    learned_from: LearnedFrom | None,
    report: Report,
    should_stop: ShouldStop,
) -> Model:
    """Fit a forest on all that is annotated, and write ``RUN/model``; see `jobs.training.train_network`.

    How good it is, is measured on the validation part with a forest of the training part. Where the annotation is too
    little to be divided it is not known.
    """
    began = time.monotonic()
    settings = start.settings
    prepared = start.prepare(data, configuration, learned_from, device="cpu", report=report, every_class=False)
    if learned_from is None:
        remove_checkpoint(run.checkpoint_file("training"))
        start.save(run, configuration, data, prepared)
    generator = np.random.default_rng(settings.seed)
    fitted: list[AnnotatedPixels] = []
    in_training: list[npt.NDArray[np.bool_]] = []
    checked: list[AnnotatedPixels] = []
    places = annotated_places(prepared.stacks)
    for done, place in enumerate(places, start=1):
        if should_stop():
            raise StoppedError("the training was stopped before the forest was fitted, so there is no model")
        section = _SectionPixels(prepared, place, settings.context)
        most = max(MIN_PER_CLASS, MAX_PIXELS // (len(places) * len(prepared.classes)))
        chosen = drawn_by_class(section.target.ravel(), most)
        fitted.append(section.pixels(chosen))
        in_training.append(section.part.ravel()[chosen] == _TRAINING)
        held_out = section.drawn_for_validation(MAX_CHECKED // len(places), generator)
        if len(held_out):
            checked.append(section.pixels(held_out))
        report(ProgressMade(step="train", done=done, total=len(places)))
    everything = AnnotatedPixels.joined(fitted)

    def fit(pixels: AnnotatedPixels) -> PixelClassifier:
        return PixelClassifier.fit(
            pixels.features,
            pixels.targets,
            in_channels=prepared.normalization.channels(settings.context),
            classes=len(prepared.classes),
            seed=settings.seed,
            threads=torch.get_num_threads(),
        )

    training = everything.where(np.concatenate(in_training))
    quality = _quality(fit(training), checked, prepared.classes) if _divided(training, checked, prepared) else None
    quality = quality or Checked(pixels=dict.fromkeys(prepared.classes, 0), sections=0).with_scores(0.0, {})
    forest = fit(everything)
    first = prepared.stacks[0]
    model = Model.create(
        forest,
        forest.specification,
        classes=first.mapping.classes,
        normalization=prepared.normalization,
        image_channels=first.image.channels,
        patch_size=settings.patch_size,
        context=settings.context,
        training={
            "settings": settings.model_dump(mode="json"),
            "label_values": first.mapping.written(),
            "pixels": len(everything.targets),
            "seconds": time.monotonic() - began,
        },
        metrics={"validation": quality.model_dump(mode="json")},
    )
    model.save(run.model_folder)
    report(QualityMeasured(step="train", **model.metrics["validation"]))
    return model


class _SectionPixels:
    """The annotated pixels of a section.

    Attributes
    ----------
    target : (y, x)
        Class numbers, 0 where not annotated.
    part : (y, x)
        Of the split; 0 where a pixel belongs to neither.
    """

    def __init__(self, prepared: PreparedData, place: tuple[int, int], context: int) -> None:
        stack, section = place
        self._read = section_reader(prepared.stacks, place, prepared.normalization, context)
        self.target = prepared.stacks[stack].target(section)
        self.part = np.zeros(self.target.shape, np.uint8)
        for number, regions in ((_TRAINING, prepared.split.training), (_VALIDATION, prepared.split.validation)):
            for each in regions:
                if (each.stack, each.section) == place:
                    self.part[slice(*each.y), slice(*each.x)] = number

    def drawn_for_validation(self, limit: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Places of pixels in the validation part, of each class as many as there are."""
        places = np.flatnonzero((self.part == _VALIDATION) & (self.target > 0))
        return places if len(places) <= limit else np.sort(generator.choice(places, limit, replace=False))

    def pixels(self, places: npt.NDArray[np.int64]) -> AnnotatedPixels:
        """Features and classes of some pixels."""
        width, targets = self.target.shape[1], self.target.ravel()[places].astype(np.int64) - 1
        features = features_at(self._read, places, width, threads=torch.get_num_threads())
        return AnnotatedPixels(features, targets)


def _divided(training: AnnotatedPixels, checked: Sequence[AnnotatedPixels], prepared: PreparedData) -> bool:
    """Whether there is something to check with, and every class to fit on beside it."""
    return bool(checked) and len(np.unique(training.targets)) == len(prepared.classes)


def _quality(forest: PixelClassifier, checked: Sequence[AnnotatedPixels], classes: Sequence[str]) -> Quality:
    matrix = ConfusionMatrix(len(classes))
    for pixels in checked:
        predicted = forest.probabilities(pixels.features.T).argmax(0)
        matrix.add(torch.from_numpy(predicted), torch.from_numpy(pixels.targets))
    return matrix.scores(classes, sections=len(checked)).quality
