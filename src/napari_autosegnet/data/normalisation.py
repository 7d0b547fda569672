"""Grey values to zero mean and unit deviation, with constants that do not depend on the tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_autosegnet.data.annotations import LabelledStack
from napari_autosegnet.data.images import check_finite
from napari_autosegnet.data.split import Region
from napari_autosegnet.errors import UserError


class Normalisation(BaseModel):
    """Mean and standard deviation per image channel, measured on the training part."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _as_many(self) -> Normalisation:
        if len(self.mean) != len(self.std):
            raise ValueError("as many standard deviations as means are needed")
        return self

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Normalised copy of ``(c, ...)``; ``c`` may be a multiple of the channels (context sections)."""
        repeats, rest = divmod(array.shape[0], len(self.mean))
        if rest or not repeats:
            raise UserError(
                f"the image has {array.shape[0]} channels where {len(self.mean)} are expected; "
                "give an image like those the model was trained on"
            )
        shape = (-1,) + (1,) * (array.ndim - 1)
        mean = np.tile(np.array(self.mean, np.float32), repeats).reshape(shape)
        std = np.tile(np.array(self.std, np.float32), repeats).reshape(shape)
        found: npt.NDArray[np.float32] = array.astype(np.float32)
        found -= mean
        found /= std
        return found


def measure(stacks: Sequence[LabelledStack], regions: Sequence[Region]) -> Normalisation:
    """Mean and standard deviation of the images in the regions, per channel.

    Raises
    ------
    UserError
        When a float image holds NaN or infinity, or every channel is constant.
    """
    count = 0
    mean = variance = np.zeros(stacks[regions[0].stack].image.channels)
    for region in regions:
        image = stacks[region.stack].image
        pixels = image.section(region.section)[:, slice(*region.y), slice(*region.x)]
        check_finite(pixels, image, region.section)
        values = pixels.reshape(pixels.shape[0], -1).astype(np.float64)
        here, spread = values.mean(1), values.var(1)
        # Chan et al. (1979): merge the moments of two parts.
        added = values.shape[1]
        share = added / (count + added)
        variance = variance * (1 - share) + spread * share + (here - mean) ** 2 * share * (1 - share)
        mean = mean + (here - mean) * share
        count += added
    std = np.sqrt(variance)
    constant = std <= 1e-7 * np.abs(mean)  # includes std 0; rounding leaves a little more
    if constant.all():
        raise UserError("the images of the training part are constant; check the images")
    # A constant channel beside others carries nothing: it becomes zero.
    std = np.where(constant, 1.0, std)
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
