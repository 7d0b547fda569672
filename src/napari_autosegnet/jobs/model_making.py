"""From trained weights to a model that can be applied: calibrated, scored, with a measured halo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from napari_autosegnet.events import Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.jobs.preparation import PreparedData
from napari_autosegnet.model import Model
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.settings import TrainSettings
from napari_autosegnet.training.calibration import calibrate, scale_logits
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.training_data import TrainingData, TrainingResult


@dataclass(frozen=True)
class ModelMaker:
    """Makes models of networks that were trained on the same data."""

    prepared: PreparedData
    data: TrainingData
    settings: TrainSettings

    def model(self, specification: NetworkSpecification, weights: Mapping[str, torch.Tensor], **more: Any) -> Model:
        """As it is, neither calibrated nor scored."""
        first = self.prepared.stacks[0]
        return Model.create(
            weights,
            specification,
            classes=first.mapping.classes,
            normalization=self.prepared.normalization,
            image_channels=first.image.channels,
            patch_size=self.settings.patch_size,
            context=self.settings.context,
            **more,
        )

    def finished(self, specification: NetworkSpecification, result: TrainingResult, threads: WorkerThreads) -> Model:
        """The best weights, with a temperature that calibrates them and their scores.

        Weights that have learned on from them without checks are taken instead, with the same temperature and scores:
        on the validation part, which they have learned from, they would look better than they are.
        """
        # Initial weights are drawn, which must not change what the training draws.
        with torch.random.fork_rng(devices=[]):
            network = specification.build()
        network.load_state_dict(result.best.weights)
        network.to(self.prepared.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Changes the last convolution, so the weights are those of the network from here on.
        temperature = calibrate(
            network,
            self.data.validation_images,
            self.data.validation_targets,
            batch_size=self.settings.batch_size,
            threads=threads,
        )
        if result.unchecked is not None:
            network.load_state_dict(result.unchecked)
            scale_logits(network, 1 / temperature)
        quality = self.data.checked.with_scores(result.best.mean_iou, result.best.iou)
        return self.model(
            specification,
            network.state_dict(),
            training={
                "settings": self.settings.model_dump(mode="json"),
                "temperature": temperature,
                "label_values": self.prepared.stacks[0].mapping.written(),
                "epochs": result.epochs,
                "learned_from_everything": result.unchecked is not None,
                "seconds": result.seconds,
            },
            metrics={"validation": quality.model_dump(mode="json")},
        )

    def with_figures(self, model: Model, report: Report, should_stop: ShouldStop) -> Model:
        """The model with the halo that ``auto`` will mean, and what half precision does to its labels.

        Both are measured on the images it was trained on.
        """
        from napari_autosegnet.inference.compute.halo import measure_halo
        from napari_autosegnet.inference.compute.precision import measure_half_precision

        trained_on = sorted({region.stack for region in self.prepared.split.training})
        stacks = [self.prepared.stacks[index] for index in trained_on]
        images = [stack.image for stack in stacks if stack.image.uniform]
        device = self.prepared.device
        halo = measure_halo(model, images, device=device, report=report, should_stop=should_stop)
        half = measure_half_precision(model, images, device=device, should_stop=should_stop)
        return model.with_(halo=halo, half_precision=half)
