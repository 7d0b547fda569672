"""How good a network is, and on how much of the annotation that was checked: the figures, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from napari_autosegnet.plain_text import counted

#: Pixels of a class from which on its IoU says something. Simulated strokes on one section of ISBI 2012: with 500
#: pixels of each class the mean IoU lies within 0.06 of that on very many strokes in half of the cases and within 0.17
#: in 95 %; with 100 pixels it is 0.10 and 0.31. Pixels of one stroke are much alike, so fewer say next to nothing.
LEAST_PIXELS = 500
#: Of more classes than these only the number is said, and the one that wants painting most.
MOST_NAMED = 4
#: A mean IoU that is less than this above what one gets without looking at the image is no better than that.
NEAR_CHANCE = 0.05


class Checked(BaseModel):
    """On how much a network is checked.

    Attributes
    ----------
    pixels
        Annotated pixels by class name.
    sections
        Sections on which they lie; those of several images are counted together.
    """

    model_config = ConfigDict(frozen=True)

    pixels: dict[str, int]
    sections: int = Field(ge=0)

    @property
    def scarce(self) -> dict[str, int]:
        """Pixels of the classes of which there are too few to say anything."""
        return {name: count for name, count in self.pixels.items() if count < LEAST_PIXELS}

    @property
    def chance(self) -> float:
        """Mean IoU that one gets without looking at the image: by saying the same everywhere, or at random.

        0 where there is nothing to tell apart, as only one class is there.
        """
        total = sum(self.pixels.values())
        fractions = [count / total for count in self.pixels.values() if count]
        if len(fractions) < 2:
            return 0.0
        # Of a class of fraction p, guessed in a fraction p of the pixels: p^2 right of p + p - p^2.
        return max(
            max(fractions) / len(fractions), sum(fraction / (2 - fraction) for fraction in fractions) / len(fractions)
        )

    def scarcity(self) -> str:
        """What that means, in words; empty when there is enough of all classes."""
        if not self.scarce:
            return ""
        there = f"{self.extent()} to check with: {self.too_little()}"
        return f"how good a network is will not be known, with {there}"

    def with_scores(self, mean_iou: float, iou: Mapping[str, float | None]) -> Quality:
        """What was reached on it."""
        return Quality(pixels=self.pixels, sections=self.sections, mean_iou=mean_iou, iou=dict(iou))

    def extent(self) -> str:
        """``1,240 pixels of 3 sections``."""
        total = sum(self.pixels.values())
        return f"{counted(total, 'pixel')} of {counted(self.sections, 'section')}"

    def too_little(self) -> str:
        """Of which classes there is too little, and what to do about it; empty when there is enough of all."""
        scarce = self.scarce
        if not scarce:
            return ""
        if len(scarce) <= MOST_NAMED:
            parts = [f"{count:,} of '{name}'" for name, count in scarce.items()]
            there = f"{listed(parts)}, where {LEAST_PIXELS:,} are needed"
        else:
            fewest = min(scarce, key=lambda name: scarce[name])
            there = f"fewer than {LEAST_PIXELS:,} of {len(scarce)} classes, fewest of '{fewest}' ({scarce[fewest]:,})"
        return f"{there}; paint more of {_it(len(scarce))}, in several places"


class Quality(Checked):
    """Scores on the checked part of the annotation.

    Attributes
    ----------
    mean_iou
        Mean over the classes that occur.
    iou
        By class name; None for a class that occurs neither in the annotation nor in the result.
    """

    mean_iou: float
    iou: dict[str, float | None]

    @classmethod
    def of(cls, content: object) -> Quality | None:
        """From the metrics of a model or an event; None when these do not say on how much was checked."""
        try:
            return cls.model_validate(content)
        except ValidationError:
            return None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def known(self) -> bool:
        """Whether it was checked on enough pixels of every class to rely on it."""
        return not self.scarce

    @property
    def missed(self) -> list[str]:
        """Classes of which nothing was found, though they are there."""
        return [name for name, iou in self.iou.items() if iou == 0 and self.pixels.get(name)]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def weakness(self) -> str | None:
        """What speaks against using it, in words; None when nothing does."""
        if self.missed:
            count = len(self.missed)
            names = f"{count} classes" if count > MOST_NAMED else listed([f"'{name}'" for name in self.missed])
            return f"it finds nothing of {names}; paint more of {_it(count)}, or let a network learn longer"
        if self.known and self.mean_iou < self.chance + NEAR_CHANCE:
            return (
                f"it is hardly better than guessing (mean IoU {self.mean_iou:.2f}, guessing gives {self.chance:.2f}); "
                "paint more, or let a network learn longer"
            )
        return None

    def describe(self) -> str:
        """``0.71, checked on 1,240 pixels of 3 sections``; ``not known yet: ...`` where that is too little."""
        where = self.extent()
        if self.known:
            return f"{self.mean_iou:.2f}, checked on {where}"
        return f"not known yet: checked on {where}: {self.too_little()}"

    def sentence(self) -> str:
        """The quality, and what speaks against using the model."""
        weakness = "" if self.weakness is None else f". Warning: {self.weakness}"
        return f"quality {self.describe()}{weakness}"


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def _it(count: int) -> str:
    return "it" if count == 1 else "them"
