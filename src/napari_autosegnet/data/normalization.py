"""Gray values to zero mean and unit deviation, with constants that do not depend on the tile.

The constants are those of the training part (``global``), or each section's own (``section``), where sections differ
in exposure, or contrast drifts through a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_autosegnet.data.gray_match import AS_IS, GrayScale, GrayValues
from napari_autosegnet.data.gray_values import SectionGray, gray_of_windows
from napari_autosegnet.data.images import check_finite
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.regions import Region
from napari_autosegnet.errors import UserError

NormalizationKind = Literal["global", "section"]

#: Normalized values are cut at this. No pixel of the sets that this was tried on is beyond 28; a hot one is.
LIMIT = 50.0
#: How much the sections must differ (see `spread`) for each to be normalized by its own constants.
WIDE_SPREAD = 0.2
#: Sections between these quantiles tell how much they differ, and how much weaker than usual a contrast counts as.
_MIDDLE = (0.16, 0.84)
_SMALLEST = 1e-3
#: A section's contrast is raised as if it had at least this fraction of the weakest that was seen in training:
#: else the noise of an empty section would look like structure.
WEAKEST = 0.5


@dataclass(frozen=True)
class Constants:
    """Mean and deviation of each section and channel, ``(n, c)``, in gray values as they are in the image."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    def of(self, sections: Sequence[int]) -> Constants:
        """Those of some of the sections."""
        chosen = list(sections)
        return Constants(self.mean[chosen], self.std[chosen])

    @property
    def key(self) -> bytes:
        """Equal for equal constants."""
        return self.mean.tobytes() + self.std.tobytes()


class Normalization(BaseModel):
    """How images are normalized before a network sees them.

    Attributes
    ----------
    kind : "global" or "section"
        The training part's constants for all, or each section's own.
    mean, std : tuple of float
        Of the training part, per image channel.
    least_std : tuple of float, optional
        With ``section``: no section's deviation is taken to be less, per image channel.
    seen : GrayValues, optional
        What the training sections looked like, for comparison with an image that the model is applied to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: NormalizationKind = "global"
    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    least_std: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    seen: GrayValues | None = None

    @model_validator(mode="after")
    def _as_many(self) -> Normalization:
        per_channel: list[tuple[float, ...]] = [self.std]
        if self.least_std is not None:
            per_channel.append(self.least_std)
        if self.seen is not None:
            per_channel += [values for name, values in self.seen if name != "dtype"]
        if any(len(values) != len(self.mean) for values in per_channel):
            raise ValueError("as many deviations as means are needed, one for each channel")
        return self

    def channels(self, context: int) -> int:
        """What a network is given: the image's channels of a section and of ``context`` sections on either side."""
        return len(self.mean) * (2 * context + 1)

    def constants(self, sections: Sequence[SectionGray | None], scale: GrayScale = AS_IS) -> Constants:
        """Constants of some sections.

        Parameters
        ----------
        sections : sequence of SectionGray or None
            Their gray values; with ``global`` only their number counts.
        scale : GrayScale
            How the image's values follow from those of the training.
        """
        mean, std = scale.factor * np.array(self.mean) + scale.offset, scale.factor * np.array(self.std)
        if self.kind == "global":
            return Constants(np.tile(mean, (len(sections), 1)), np.tile(std, (len(sections), 1)))
        least = scale.factor * np.array(self.least_std or [0.0] * len(self.mean))
        own = [_own(section, least) for section in sections]
        return Constants(np.array([mean for mean, _ in own]), np.array([std for _, std in own]))

    def apply(self, array: npt.NDArray[Any], section: SectionGray | None = None) -> npt.NDArray[np.float32]:
        """Normalized copy of a section ``(c, ...)``, or of a part of it; ``c`` may be a multiple of the channels."""
        repeats, rest = divmod(array.shape[0], len(self.mean))
        if rest or not repeats:
            raise UserError(
                f"the image has {array.shape[0]} channels where {len(self.mean)} are expected; "
                "give an image like those the model was trained on"
            )
        constants = self.constants([section])
        shape = (-1,) + (1,) * (array.ndim - 1)
        return normalized(
            array,
            np.tile(constants.mean[0], repeats).reshape(shape),
            np.tile(constants.std[0], repeats).reshape(shape),
        )


def _own(
    section: SectionGray | None, least: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A section's mean and deviation; a channel of one value becomes zero."""
    if section is None:
        raise ValueError("this normalization needs the gray values of every section")
    mean, std = np.array(section.mean), np.maximum(np.array(section.std), least)
    return mean, np.where(_is_flat(mean, std), 1.0, std)


def _is_flat(mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Deviations that are nothing but rounding, 0 included."""
    flat: npt.NDArray[np.bool_] = std <= 1e-16 * np.abs(mean)
    return flat


def is_exact_in_float32(dtype: np.dtype[Any]) -> bool:
    """Whether every value of a type is a 32 bit float."""
    return dtype.itemsize < 4 or dtype == np.float32


def normalized(
    pixels: npt.NDArray[Any], mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Normalized copy of pixels, with constants that broadcast.

    What is no number counts as the mean. Large whole numbers lose nothing: the mean is taken away in 64 bits.
    """
    exact = np.float32 if is_exact_in_float32(pixels.dtype) else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        values: npt.NDArray[Any] = pixels.astype(exact)
        # Beyond what networks compute with is no number either.
        missing = None if pixels.dtype.kind != "f" else ~np.isfinite(pixels.astype(np.float32, copy=False))
        values -= mean.astype(exact)
        values /= std.astype(exact)
    if missing is not None:
        values[missing] = 0
    np.clip(values, -LIMIT, LIMIT, out=values)
    return values.astype(np.float32, copy=False)


def measure(
    stacks: Sequence[LabeledStack],
    regions: Sequence[Region],
    *,
    kind: NormalizationKind = "global",
    sections: Sequence[SectionGray] = (),
) -> Normalization:
    """Mean and standard deviation of the images in the regions, per channel; hot pixels and padding do not count.

    Parameters
    ----------
    stacks, regions : sequence
        As from `split_stacks`; ``regions`` is its training part.
    kind : "global" or "section"
        How images are normalized by what is measured.
    sections : sequence of SectionGray
        Gray values of the whole sections that the regions lie in: what the model will have seen.

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
        gray = gray_of_windows([pixels])
        here, spread = np.array(gray.mean), np.array(gray.std) ** 2
        # Chan et al. (1979): merge the moments of two parts.
        weight = gray.pixels / (count + gray.pixels)
        variance = variance * (1 - weight) + spread * weight + (here - mean) ** 2 * weight * (1 - weight)
        mean = mean + (here - mean) * weight
        count += gray.pixels
    std = np.sqrt(variance)
    constant = _is_flat(mean, std)
    if constant.all():
        raise UserError("the images of the training part are constant; check the images")
    # A constant channel beside others carries nothing: it becomes zero.
    std = np.where(constant, 1.0, std)
    seen = GrayValues.of(sections, stacks[regions[0].stack].image.dtype) if sections else None
    least = tuple(WEAKEST * lowest for lowest in seen.lowest_std) if seen is not None and kind == "section" else None
    return Normalization(kind=kind, mean=tuple(mean.tolist()), std=tuple(std.tolist()), least_std=least, seen=seen)


def spread(sections: Sequence[SectionGray]) -> float:
    """How much sections differ from each other: in their means, by the deviation within them, and in contrast.

    0 where all are alike; the larger of the channels'. Some odd sections change little.
    """
    means, stds = (np.array([getattr(section, part) for section in sections]) for part in ("mean", "std"))
    within = np.median(stds, axis=0)
    told = within > 0
    if not told.any():
        return 0.0
    contrast = np.log(np.maximum(stds[:, told] / within[told], _SMALLEST))
    return float(np.hypot(_half_width(means[:, told]) / within[told], _half_width(contrast)).max())


def _half_width(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard deviation of each column, if its middle is normal; whatever lies in its tails."""
    low, high = np.quantile(values, _MIDDLE, axis=0)
    half_width: npt.NDArray[np.float64] = (high - low) / 2
    return half_width
