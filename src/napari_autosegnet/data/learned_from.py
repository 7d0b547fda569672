"""What a search or a training learns from. Its run keeps it, so that it can only be resumed on the same data.

Each of them keeps how its labels are read and divided, too: another job in the same run may read them in another way.

`identity` tells cheaply whether a file was touched, for images of any size. Here it is the pixels that count, as they
are read: a file that was copied, or written again with the same content, is the same, and in a large stack nothing is
read but what is annotated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_autosegnet.data.annotations import LabelMapping
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.labeled_stacks import LabeledStack
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.pairs import open_pair
from napari_autosegnet.data.readers.formats import is_there
from napari_autosegnet.data.regions import Region, Split, full_extent
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.settings import SplitSettings

#: How much a measured number may differ from what was measured before, on another computer for example.
_TOLERANCE = 1e-6


class RunData(BaseModel):
    """Images and labels of a run, and how they are read and divided.

    ``time_point``, ``channels`` and ``axes`` are those of the `Selection`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_point: int | None = None
    channels: tuple[str, ...] | None = None
    axes: str | None = None
    images: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    mapping: LabelMapping | None = None
    split: SplitSettings = SplitSettings()

    @property
    def selection(self) -> Selection:
        """What of the images and labels is read."""
        return Selection(time_point=self.time_point, channels=self.channels, axes=self.axes)

    def found_among(self, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
        """Where images and labels may lie that are gone: files that are called as they are, for a job that resumes.

        Whether they are the same, the job finds out. What is not found stays as it is.
        """
        kept = {"images": self.images, "labels": self.labels}
        found = {name: tuple(_found(path, files) for path in paths) for name, paths in kept.items()}
        return {name: paths for name, paths in found.items() if paths != kept[name]}

    def placed(self, place: Callable[[Path], Path]) -> RunData:
        """The same, with all paths as ``place`` gives them."""
        images, labels = (tuple(map(place, paths)) for paths in (self.images, self.labels))
        return self.model_copy(update={"images": images, "labels": labels})


def _found(path: Path, files: Sequence[Path]) -> Path:
    """Of files, the one whose path ends most like one that is gone; that itself where it is not, or none is like it."""
    names = path.parts[::-1]

    def alike(file: Path) -> int:
        return len(list(takewhile(lambda both: both[0] == both[1], zip(names, file.parts[::-1], strict=False))))

    best = max(files, key=alike, default=path)
    # Of an array in a Zarr, the name alone says nothing: it is 0.
    return path if is_there(path) or alike(best) < (1 if path.suffix else 2) else best


class PairDigests(BaseModel):
    """Checksums of the sections of an image that are annotated or near, by name or number from 0, and of its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sections: tuple[str, ...]
    image: str
    labels: str


class LearnedFrom(BaseModel):
    """Images and labels, checksums of their pixels, how they are divided, and how the images are normalized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: RunData
    split: Split
    pairs: tuple[PairDigests, ...]
    normalization: Normalization

    @classmethod
    def of(
        cls, data: RunData, stacks: Sequence[LabeledStack], split: Split, normalization: Normalization, *, context: int
    ) -> LearnedFrom:
        """What the stacks of ``data`` hold now; ``context`` sections around an annotated one are learned from, too."""
        pairs = tuple(_digests(stack, context) for stack in stacks)
        return cls(data=data, split=split, pairs=pairs, normalization=normalization)

    def divide(self, stacks: Sequence[LabeledStack]) -> Split:
        """The same split again, whatever became of the table of groups that it was made with.

        Raises
        ------
        UserError
            When it is not one of these stacks.
        """
        parts = (*self.split.training, *self.split.validation)
        if not (self.split.training and all(_is_within(part, stacks) for part in parts)):
            raise UserError("the split is not one of the run's images: its config.json was changed; start a new run")
        return self.split

    def check_data(self, data: RunData, *, advice: str) -> None:
        """Refuse files that are gone, or hold other pixels, in what is read of them, than they did.

        ``data`` says where they lie now: names and places do not count. ``advice`` says what to do about other pixels.

        Raises
        ------
        UserError
            When one is or does; it names the file.
        """
        images, labels = data.images, data.labels
        if not len(images) == len(labels) == len(self.pairs):
            raise UserError(f"the run does not name the images that it began with; {advice}")
        for what, option, paths in (("image", "--image", images), ("labels", "--labels", labels)):
            gone = next((path for path in paths if not is_there(path)), None)
            if gone is not None:
                raise UserError(
                    f"the {what} {gone} that the run began with {'is' if what == 'image' else 'are'} not there; if "
                    f"moved, give the new place with {option} beside --resume, or in napari open it from there, then "
                    "continue"
                )
        for image, marks, kept in zip(images, labels, self.pairs, strict=True):
            pixels, targets = open_pair(image, marks, data.selection)
            if pixel_digest(targets) != kept.labels:
                raise UserError(f"the labels {marks} are not those that the run began with; {advice}")
            if pixel_digest(pixels, kept.sections) != kept.image:
                raise UserError(f"the image {image} is not the one that the run began with; {advice}")

    def check_normalization(self, measured: Normalization) -> None:
        """Refuse a normalization under weights that were learned with another one.

        Raises
        ------
        UserError
            When they differ by more than rounding.
        """
        if not _is_close(self.normalization.model_dump(), measured.model_dump()):
            raise UserError(
                "the normalization is not the one that the run began with: its config.json was changed, or this is "
                "another version of the program; start a new run"
            )


def _is_within(region: Region, stacks: Sequence[LabeledStack]) -> bool:
    if not (0 <= region.stack < len(stacks) and 0 <= region.section < stacks[region.stack].image.sections):
        return False
    extent = full_extent(stacks[region.stack], region.section)
    return all(0 <= start < stop <= end for (start, stop), (_, end) in zip((region.y, region.x), extent, strict=True))


def pixel_digest(stack: ImageStack, sections: Iterable[str] | None = None) -> str:
    """SHA-256 over the pixels of sections (all by default), whatever file holds them, and in whatever order.

    Sections that the stack does not have count as empty.
    """
    numbers = {name: number for number, name in enumerate(_names(stack))}
    lines = []
    for name in numbers if sections is None else sections:
        digest = hashlib.sha256()
        if name in numbers:
            pixels = stack.section(numbers[name])
            pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
            digest.update(f"{pixels.dtype} {pixels.shape}\n".encode())
            digest.update(pixels.data)
        lines.append(f"{name} {digest.hexdigest()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def _digests(stack: LabeledStack, context: int) -> PairDigests:
    near = {
        section
        for each in stack.annotated_sections
        for section in range(max(0, each - context), min(stack.image.sections, each + context + 1))
    }
    names = _names(stack.image)
    sections = tuple(names[section] for section in sorted(near))
    return PairDigests(sections=sections, image=pixel_digest(stack.image, sections), labels=pixel_digest(stack.labels))


def _names(stack: ImageStack) -> Sequence[str]:
    names = stack.section_names or ()
    # A file of one section may be renamed; among several, the name says which one it is.
    return names if 1 < len(set(names)) == stack.sections else [str(number) for number in range(stack.sections)]


def _is_close(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal, but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(one == other)
