"""What has to be known of whole sections before any block of them is computed.

A section's own mean and deviation, for models that normalize by them, and whether it is constant: one gray value
throughout, as where a section is missing. Both depend on the image's pixels alone, so all blocks, tiles, processes and
later runs find the same. Little is read (see `napari_autosegnet.data.gray_values`), when the first block of a section
is read; only a section whose sample is constant is read whole.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.gray_match import AS_IS, GrayScale
from napari_autosegnet.data.gray_values import (
    MAX_PIXELS,
    OneValue,
    SectionGray,
    Window,
    gray_of_windows,
    has_one_value,
    sample_windows,
    section_gray,
)
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.normalization import Constants, Normalization
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.compute.faint import FAINT
from napari_autosegnet.inference.compute.patience import read_patiently

#: Bytes that are read at once, at most.
_BYTES = 2**27
#: Side of what is read at once where a section has to be read whole.
_SIDE = 1024
#: Sections of more pixels are read only where the files say that there is something.
_MANY_PIXELS = 2**30
#: Windows that are enough to see that a section is not constant: pixels in all, and side.
_GLANCE, _GLANCE_SIDE = 2**14, 32


class ImageSurvey:
    """Gray values of an image's sections, looked at once each.

    Parameters
    ----------
    image : ImageStack
    normalization : Normalization, optional
        Of the model that is applied; without one, there are only gray values.
    scale : GrayScale
        How the image's values follow from those that the model was trained on.
    known : mapping of int to SectionGray, optional
        Gray values of sections that need not be looked at, where the image is a part of larger ones.
    """

    def __init__(
        self,
        image: ImageStack,
        normalization: Normalization | None = None,
        scale: GrayScale = AS_IS,
        known: Mapping[int, SectionGray] | None = None,
    ) -> None:
        self.image = image
        self.normalization = normalization
        self.scale = scale
        self._known: dict[int, SectionGray] = dict(known or {})
        #: Sections that show next to nothing, among those that were segmented one by one.
        self.faint: set[int] = set()
        self._lock = threading.Lock()

    def constants(self, sections: Sequence[int]) -> Constants:
        """What some sections are normalized by."""
        assert self.normalization is not None, "a survey for gray values alone"
        grays: Sequence[SectionGray | None] = [None] * len(sections)
        if self.normalization.kind == "section":
            grays = self.look(sections)
        return self.normalization.constants(grays, self.scale)

    def constant(self, sections: Sequence[int], pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which of some sections are constant, given a part of each: pixels ``(c, n, y, x)``."""
        middle = pixels.shape[2] // 2
        maybe = [
            number
            for number, part in enumerate(np.moveaxis(pixels, 1, 0))
            # One row decides nearly always.
            if has_one_value([part[:, middle : middle + 1], part])
        ]
        is_constant = np.zeros(len(sections), bool)
        is_constant[maybe] = [gray.constant for gray in self.look([sections[number] for number in maybe])]
        return is_constant

    @property
    def faint_range(self) -> npt.NDArray[np.float64] | None:
        """Up to how much the values of a section that shows next to nothing differ, per channel; None: not known."""
        if self.normalization is None or self.normalization.seen is None:
            return None
        return FAINT * abs(self.scale.factor) * np.array(self.normalization.seen.lowest_std)

    def is_constant(self, section: int) -> bool:
        """Whether a section was found to be constant."""
        with self._lock:
            return section in self._known and self._known[section].constant

    def look(self, sections: Sequence[int]) -> list[SectionGray]:
        """Gray values of some sections; where the model needs none of them, only ``constant`` is to be relied on.

        Raises
        ------
        UserError
            When they cannot be read.
        """
        with self._lock:
            unknown = {*sections} - {*self._known}
            # Where whole sections are decoded, those of the latest read stay so: nothing else is asked for in between.
            wanted = unknown if self.image.chunks is not None or not unknown else {*sections}
            for run in _runs(sorted(wanted), self._at_once()):
                self._known.update(zip(run, self._look(run), strict=True))
            return [self._known[section] for section in sections]

    def _windows(self, height: int, width: int) -> list[Window]:
        if self.normalization is not None and self.normalization.kind == "global":
            return sample_windows(height, width, _GLANCE, _GLANCE_SIDE)
        return sample_windows(height, width)

    def _at_once(self) -> int:
        pixels = min(math.prod(self.image.section_shape(0)), MAX_PIXELS) * self.image.channels
        return max(1, _BYTES // (pixels * self.image.dtype.itemsize))

    def _look(self, run: range) -> list[SectionGray]:
        if not self.image.uniform:
            return [section_gray(self.image.section(section)) for section in run]
        z = slice(run.start, run.stop)
        parts = [part for y, x in self._windows(*self.image.shape[1:]) if (part := self._read(z, y, x)) is not None]
        if not parts:
            raise UserError(
                f"sections {run.start}-{run.stop - 1} of {self.image.path or self.image.name} cannot be read"
            )
        grays = [gray_of_windows([part[:, number] for part in parts]) for number in range(len(run))]
        really = self._constant_throughout([run[number] for number, gray in enumerate(grays) if gray.constant])
        return [
            gray if not gray.constant or section in really else replace(gray, constant=False)
            for section, gray in zip(run, grays, strict=True)
        ]

    def _read(self, z: slice, y: slice, x: slice) -> npt.NDArray[Any] | None:
        """Pixels (c, z, y, x); None where they are damaged, which is the same in every process."""
        try:
            return read_patiently(self.image, z, y, x)
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return None

    def _constant_throughout(self, sections: list[int]) -> set[int]:
        """Those of some sections that have one value, after all of their pixels were read."""
        height, width = self.image.shape[1:]
        if height * width <= _MANY_PIXELS:
            return self._constant_in(sections, [(slice(0, height), slice(0, width))])
        return set().union(*(self._constant_in([section], self._representative_parts(section)) for section in sections))

    def _representative_parts(self, section: int) -> Sequence[Window]:
        """Parts of a huge section that hold all of its values: most of it may never have been written."""
        height, width = self.image.shape[1:]
        parts = self.image.representative_parts(section)
        return [(slice(0, height), slice(0, width))] if parts is None else parts

    def _constant_in(self, sections: list[int], parts: Sequence[Window]) -> set[int]:
        left = {section: OneValue() for section in sections}
        for rows, columns in parts:
            for y, x in itertools.product(
                range(rows.start, rows.stop, _SIDE), range(columns.start, columns.stop, _SIDE)
            ):
                inside = slice(y, min(y + _SIDE, rows.stop)), slice(x, min(x + _SIDE, columns.stop))
                for run in _runs(sorted(left), self._at_once()):
                    part = self._read(slice(run.start, run.stop), *inside)
                    for number, section in enumerate(run):
                        # Of what is damaged nobody knows.
                        if part is None or not left[section].see(part[:, number]):
                            del left[section]
        return {section for section, seen in left.items() if seen.holds}


def _runs(sections: Iterable[int], longest: int) -> Iterator[range]:
    """Rising section numbers as unbroken runs of limited length."""
    run = range(0)
    for section in sections:
        if len(run) in (0, longest) or section != run.stop:
            if run:
                yield run
            run = range(section, section)
        run = range(run.start, section + 1)
    if run:
        yield run
