"""Parts of the training images on which a model's labels are compared: tiled with whole, half precision with full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.normalization import Constants
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.model import Model

#: Share of pixels whose labels must be the same.
TARGET = 0.9995
#: Sections that are looked at.
SECTIONS = 4


@dataclass(frozen=True)
class Crop:
    """The center of a section and of those around it, (c, 2 * context + 1, y, x), and what they are normalized by."""

    pixels: npt.NDArray[Any]
    constants: Constants

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape


def check_crops(model: Model, images: Sequence[ImageStack], side: int) -> Iterator[Crop]:
    """Centers, of a side at most, of some sections spread evenly over all images."""
    context = model.context
    surveys = [ImageSurvey(image, model.normalization) for image in images]
    places = [(survey, section) for survey in surveys for section in range(survey.image.sections)]
    chosen = sorted({round(place) for place in np.linspace(0, len(places) - 1, min(SECTIONS, len(places)))})
    for survey, section in (places[index] for index in chosen):
        image = survey.image
        height, width = image.section_shape(section)
        y, x = (slice((size - min(size, side)) // 2, (size + min(size, side)) // 2) for size in (height, width))
        if not image.uniform:
            yield Crop(image.section(section)[:, np.newaxis, y, x], survey.constants([section]))
            continue
        around = [min(max(section + step, 0), image.sections - 1) for step in range(-context, context + 1)]
        pixels = np.concatenate([image.read(slice(one, one + 1), y, x) for one in around], axis=1)
        yield Crop(pixels, survey.constants(around))
