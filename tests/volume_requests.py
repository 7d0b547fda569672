"""Predictions of a prepared image, by paths."""

from __future__ import annotations

from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.inference.output.progress import PredictionSummary
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True, levels=2, engine="channels_last")
#: Of the prepared image.
BLOCKS = 18


def alone(request: VolumeRequest) -> PredictionSummary:
    """Predict in this process."""
    return predict_volume(Model.load(request.model), open_image(request.image), request.out, request.settings)
