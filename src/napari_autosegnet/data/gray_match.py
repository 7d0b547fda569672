"""Whether an image has the gray values that a model was trained on, and how they are scaled where it has not.

Programs and microscopes write the same picture in many ranges: 8 bits as 16 (times 257 or 256), 12 bits as they are or
moved up to 16, floats from 0 to 1. Where mean and deviation say which of these it is, the values are adapted. Where
they are far from all that the model saw, somebody has to decide. An inverted image has much the same mean and
deviation, so it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, field_validator

from napari_autosegnet.data.gray_values import SectionGray, median_gray

#: Deviations outside the range of the training sections' means at which an image is of another kind.
FAR = 5.0
#: How many times stronger the contrast of such an image is.
STRONG = 5.0
#: Where the type of the values is another, too, they may also be too near each other: within this fraction of the
#: range that was seen. Of the same type such an image may just be nearly empty.
NARROW = 1 / 12
#: Deviations (of the means, plus the logarithm of contrasts) outside of what was seen that call for a note.
UNLIKE = 1.0
#: Difference in means (in deviations) plus difference in contrast (logarithm) up to which a scaling is believed,
#: and by how much it has to be better than none.
LIKE, CLEARLY = 1.5, 2.0

#: Fraction of the sections at either end that are left out.
_ODD = 0.05

Values = npt.NDArray[np.float64]


class GrayValues(BaseModel):
    """Gray values of the sections that a model was trained on.

    Attributes
    ----------
    dtype : str
        Type of the images.
    mean, std : tuple of float
        Mean of all sections, and deviation within them, per channel.
    lowest_mean, highest_mean, lowest_std, highest_std : tuple of float
        Of single sections but for the few oddest, per channel.
    low, high : tuple of float
        Nearly all values (99.8 % of those of each section) lie between, per channel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    lowest_mean: tuple[float, ...]
    highest_mean: tuple[float, ...]
    lowest_std: tuple[float, ...]
    highest_std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @field_validator("dtype")
    @classmethod
    def _is_of_numbers(cls, name: str) -> str:
        try:
            is_real = np.dtype(name).kind in "uif"
        except TypeError:
            is_real = False
        if not is_real:
            raise ValueError("must be a type of real numbers such as uint8")
        return name

    @classmethod
    def of(cls, sections: Sequence[SectionGray], dtype: npt.DTypeLike) -> GrayValues:
        """Of some sections, one at least."""
        means, stds, lows, highs = (
            np.array([getattr(section, part) for section in sections], np.float64)
            for part in ("mean", "std", "low", "high")
        )
        figures = {
            "mean": means.mean(0),
            "std": np.sqrt((stds**2).mean(0)),
            "lowest_mean": np.quantile(means, _ODD, axis=0),
            "highest_mean": np.quantile(means, 1 - _ODD, axis=0),
            "lowest_std": np.quantile(stds, _ODD, axis=0),
            "highest_std": np.quantile(stds, 1 - _ODD, axis=0),
            "low": lows.min(0),
            "high": highs.max(0),
        }
        return cls(dtype=np.dtype(dtype).name, **{name: tuple(values.tolist()) for name, values in figures.items()})

    def with_more(self, other: GrayValues) -> GrayValues:
        """These, and the range of others beside them."""
        wider: dict[str, Any] = {}
        for name, widest in (("lowest", min), ("highest", max)):
            for part in ("mean", "std"):
                field = f"{name}_{part}"
                wider[field] = tuple(map(widest, getattr(self, field), getattr(other, field)))
        wider |= {"low": tuple(map(min, self.low, other.low)), "high": tuple(map(max, self.high, other.high))}
        return self.model_copy(update=wider)


@dataclass(frozen=True)
class GrayScale:
    """How an image's values follow from those that a model expects: ``factor * value + offset``."""

    factor: float = 1.0
    offset: float = 0.0

    def __str__(self) -> str:
        parts = []
        if self.factor > 1:
            parts.append(f"times {self.factor:.12g}")
        elif self.factor < 1:
            parts.append(f"divided by {1 / self.factor:.12g}")
        if self.offset:
            parts.append(f"{'plus' if self.offset > 0 else 'less'} {abs(self.offset):.12g}")
        return ", ".join(parts) or "as they are"


AS_IS = GrayScale()


@dataclass(frozen=True)
class Mismatch:
    """Gray values that a model never saw, in words."""

    text: str


def match(
    seen: GrayValues, sections: Sequence[SectionGray], dtype: npt.DTypeLike, *, step: int = 1
) -> GrayScale | Mismatch:
    """How an image's gray values are scaled against those that a model saw.

    Parameters
    ----------
    seen : GrayValues
        What the model saw.
    sections : sequence of SectionGray
        Some sections of the image; constant ones say nothing. Medians over them are compared, so that some odd
        sections change nothing.
    dtype : dtype
        Of the image.
    step : int
        A number that all of the image's values are multiples of.
    """
    image = _usual(sections)
    if image is None:
        return AS_IS
    ours, theirs = np.dtype(seen.dtype), np.dtype(dtype)
    scale = _scale(seen, image, theirs, step)
    if scale is not None:
        return scale
    far = _outside(seen, image).max()
    strong = _ratio(image.std, seen.highest_std).max()
    extent = _ratio(np.subtract(image.high, image.low), np.subtract(seen.high, seen.low)).max()
    if far > FAR or strong > STRONG or (ours != theirs and 0 < extent < NARROW):
        return Mismatch(
            f"{theirs.name}, {_in_words(image.mean, image.std)}, but the model was trained on {ours.name}, "
            f"{_in_words(seen.mean, seen.std)}"
        )
    return AS_IS


def _scale(seen: GrayValues, image: SectionGray, dtype: np.dtype[Any], step: int) -> GrayScale | None:
    """A scaling that explains an image's gray values clearly better than leaving them; None if there is none."""
    plain = _difference(seen, image)
    stepped = GrayScale(float(step))
    # All values are multiples: that is more than a guess.
    is_usual = step == 257 or (step > 1 and step & (step - 1) == 0)
    if is_usual and _holds(seen, image, stepped) and plain - _difference(seen, image, stepped) > LIKE / 3:
        return stepped
    # Of those that explain it as well as others, the one that comes nearest to the middle, then the most usual one.
    tried = [
        (round(_difference(seen, image, each), 1), round(_difference(seen, image, each, from_middle=True), 1), each)
        for each in _scalings(np.dtype(seen.dtype), dtype)
        if _holds(seen, image, each)
    ]
    difference, _, scale = min(tried, key=lambda candidate: candidate[:2], default=(math.inf, 0.0, AS_IS))
    return scale if difference <= LIKE and plain - difference >= CLEARLY else None


def _holds(seen: GrayValues, image: SectionGray, scale: GrayScale) -> bool:
    """Whether the type of what was seen could hold an image's values as well, scaled back."""
    dtype = np.dtype(seen.dtype)
    if dtype.kind == "f":
        return True
    low, high = _full_range(dtype)
    extremes = (np.array([image.low, image.high]) - scale.offset) / scale.factor
    return bool(extremes.min() > low - 1 and extremes.max() < high + 1)


def unlike_in_words(seen: GrayValues, sections: Sequence[SectionGray]) -> str | None:
    """One line on gray values that are taken as they are but lie away from all that was seen; None if they do not."""
    image = _usual(sections)
    if image is None or (away := _difference(seen, image)) < UNLIKE:
        return None
    return (
        f"the gray values ({_in_words(image.mean, image.std)}) are {away:.1f} deviations from those that the model has "
        f"learned from ({_in_words(seen.mean, seen.std)}); if the labels are poor, train with some of these images"
    )


def scale_in_words(scale: GrayScale, seen: GrayValues, dtype: npt.DTypeLike) -> str:
    """One line for the user about values that are adapted."""
    return (
        f"the gray values ({np.dtype(dtype).name}) are those of the model's images ({seen.dtype}) {scale}; "
        "they are scaled back"
    )


def _scalings(ours: np.dtype[Any], theirs: np.dtype[Any]) -> Iterator[GrayScale]:
    """How an image of type ``theirs`` may hold the values of images of type ``ours``, the more usual ways first."""
    if ours.kind == theirs.kind == "f":
        for largest in (255.0, 65535.0):
            yield GrayScale(largest)
            yield GrayScale(1 / largest)
    if ours == theirs:
        return
    (low, high), (their_low, their_high) = _full_range(ours), _full_range(theirs)
    factor = (their_high - their_low) / (high - low)
    yield GrayScale(factor, their_low - factor * low)
    if "f" in (ours.kind, theirs.kind):
        # Floats may hold the whole numbers of another type.
        yield from (GrayScale(257.0), GrayScale(1 / 257))
    elif ours.kind == "u" and theirs.kind == "i":
        yield GrayScale(1.0, -(2.0 ** (8 * ours.itemsize - 1)))
    for power in range(-24, 25):
        if power:
            yield GrayScale(2.0**power)


def _full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0.0, 1.0
    about = np.iinfo(dtype)
    return float(about.min), float(about.max)


def _usual(sections: Sequence[SectionGray]) -> SectionGray | None:
    """Gray values in the middle of the sections' that show something; None where none does."""
    telling = [section for section in sections if not section.constant and any(section.std)]
    return median_gray(telling) if telling else None


def _outside(seen: GrayValues, image: SectionGray, scale: GrayScale = AS_IS) -> Values:
    """Deviations by which the means lie outside the range of what was seen, per channel."""
    mean = (np.array(image.mean) - scale.offset) / scale.factor
    return _ratio(np.maximum(np.array(seen.lowest_mean) - mean, mean - np.array(seen.highest_mean)).clip(0), seen.std)


def _difference(seen: GrayValues, image: SectionGray, scale: GrayScale = AS_IS, *, from_middle: bool = False) -> float:
    """How unlike means and contrasts are, for the channel where they are most so: 0 within the range of what was seen.

    ``from_middle`` measures from its middle instead.
    """
    std = np.array(image.std) / scale.factor
    if from_middle:
        mean = (np.array(image.mean) - scale.offset) / scale.factor
        means, contrasts = _ratio(np.abs(mean - np.array(seen.mean)), seen.std), np.abs(_log_ratio(std, seen.std))
    else:
        means = _outside(seen, image, scale)
        contrasts = np.maximum(_log_ratio(seen.lowest_std, std), _log_ratio(std, seen.highest_std)).clip(0)
    return float((means + contrasts).max())


def _ratio(one: npt.ArrayLike, other: npt.ArrayLike) -> Values:
    """One by the other, 0 where the other is 0: a channel that was constant in training says nothing."""
    upper, lower = np.asarray(one, np.float64), np.asarray(other, np.float64)
    quotient: Values = np.divide(upper, lower, out=np.zeros_like(upper), where=lower > 0)
    return quotient


def _log_ratio(one: npt.ArrayLike, other: npt.ArrayLike) -> Values:
    ratio = _ratio(one, other)
    logarithm: Values = np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)
    return logarithm


def _in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    def listed(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.4g}" for value in values)

    return f"mean {listed(mean)}, deviation {listed(std)}"
