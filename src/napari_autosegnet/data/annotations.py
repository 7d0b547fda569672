"""Annotations: what the values of a label image mean, and whether they can be learned from.

Classes are numbered 1..K; 0 is not annotated. How a file's values are read as classes is a
`LabelMapping`, which is shown to the user (product rule: the mapping is never silent).
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.pairs import matched, open_pairs
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import counted, printable

#: Okabe and Ito (2008), without black, then Tol's "muted": told apart by color-blind eyes.
PALETTE: tuple[str, ...] = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#332288",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#88ccee",
)
#: A class whose name holds one of these separates objects.
BOUNDARY_WORDS = ("boundary", "membrane", "border", "edge", "outline")
#: More values than this without names are taken for instances, not classes.
MAX_UNNAMED_CLASSES = 32
#: More values than this are instances, too, where no two of them touch.
MAX_SEPARATE_CLASSES = 6
_MAX_CLASSES = 255
_MAX_RANGE = 2**16
_LONGEST_NAME = 100
#: Multiples of it lie far from each other on the circle of hues, however many there are.
_GOLDEN = 0.618034


class ClassInfo(BaseModel):
    """Name and color (``#rrggbb``) of a class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    color: str

    @field_validator("name")
    @classmethod
    def _can_be_shown(cls, name: str) -> str:
        problem = name_problem(name)
        if problem is not None:
            raise ValueError(problem)
        return name

    @field_validator("color")
    @classmethod
    def _is_color(cls, color: str) -> str:
        if not re.fullmatch("#[0-9a-fA-F]{6}", color):
            raise ValueError(f"'{color}' is no color; write it as #rrggbb")
        return color.lower()


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a class, in words; None when it will do."""
    if not name.strip():
        return "a class needs a name; type one"
    if printable(name) != name:
        return f"the class name '{printable(name)}' holds characters that cannot be shown; leave these out"
    if len(name) > _LONGEST_NAME:
        return f"the class name '{name[:20]} ...' has more than {_LONGEST_NAME} characters; shorten it"
    return None


def name_from_file(name: str) -> str:
    """The name of a class that another program gave, as it may be called here; empty where nothing is left of it."""
    return printable(name.strip())[:_LONGEST_NAME]


class LabelMapping(BaseModel):
    """How the values of label files are read as classes.

    ``values`` maps a value in the file to a class number 1..K (``classes[number - 1]``); every other
    value is not annotated. Several values may be read as one class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2, max_length=_MAX_CLASSES)]
    values: dict[int, int]

    @model_validator(mode="after")
    def _complete(self) -> LabelMapping:
        if set(self.values.values()) != set(range(1, len(self.classes) + 1)):
            raise ValueError("every class needs a value, and every value a class")
        return self

    def describe(self) -> str:
        """One line for the user: ``0 -> 1 membrane, 255 -> 2 cell, everything else not annotated``."""
        parts = [f"{values} -> {number} {self.classes[number - 1].name}" for values, number in self._ranges()]
        return ", ".join([*parts, "everything else not annotated"])

    def _ranges(self) -> list[tuple[str, int]]:
        """Values in a row that are read as one class, as a range, with the class's number."""
        ranges: list[tuple[int, int, int]] = []
        for value, number in self.values.items():
            if ranges and ranges[-1][1:] == (value - 1, number):
                ranges[-1] = (ranges[-1][0], value, number)
            else:
                ranges.append((value, value, number))
        return [(f"{first}" if first == last else f"{first}-{last}", number) for first, last, number in ranges]

    def target(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Class numbers (0 = not annotated, 1..K) of an array of label values, in its shape."""
        if labels.dtype == np.uint8:
            table = np.zeros(256, np.uint8)
            for value, number in self.values.items():
                if 0 <= value < 256:
                    table[value] = number
            return np.asarray(table[labels])
        known = np.array(sorted(self.values), np.int64)
        numbers = np.array([0, *(self.values[int(value)] for value in known)], np.uint8)
        place = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        target: npt.NDArray[np.uint8] = numbers[np.where(known[place] == labels, place + 1, 0)]
        return target


def class_color(place: int) -> str:
    """Color (``#rrggbb``) of the class at this place, from 0 on: of `PALETTE`, then hues a golden section apart."""
    if place < len(PALETTE):
        return PALETTE[place]
    # As they go round the circle, light and dark ones by turns.
    further = place - len(PALETTE)
    rgb = colorsys.hls_to_rgb(further * _GOLDEN % 1, (0.75, 0.35, 0.6, 0.5)[further % 4], 0.7)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def default_classes(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """Classes with the default colors, in order."""
    return tuple(ClassInfo(name=name, color=class_color(place)) for place, name in enumerate(names))


def parse_classes(text: str) -> LabelMapping:
    """Mapping from ``value:name[:#rrggbb],...``, for example ``0:membrane,255:cell`` or ``0:background,1-12:object``.

    Classes are numbered in the order of the text. A name that comes twice joins the values in one
    class (``0:membrane,32:membrane,255:cell``).

    Raises
    ------
    UserError
        When a part cannot be read, a value comes twice, or there are fewer than two classes.
    """
    names: list[str] = []
    colors: dict[str, str] = {}
    values: dict[int, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        fields = [piece.strip() for piece in part.split(":")]
        if len(fields) not in (2, 3) or not fields[1]:
            raise UserError(f"'{part}' in the classes is not value:name; write for example 0:membrane,255:cell")
        span = re.fullmatch(r"(-?\d{1,18})(?:\s*-\s*(\d{1,18}))?", fields[0])
        if span is None:
            raise UserError(f"'{fields[0]}' in the classes is no whole number; write for example 0:membrane,255:cell")
        numbers = range(int(span[1]), int(span[2] or span[1]) + 1)
        if not 0 < len(numbers) <= _MAX_RANGE:
            raise UserError(f"'{fields[0]}' in the classes is no range of values; write for example 1-12:object")
        name = fields[1]
        problem = name_problem(name)
        if problem is not None:
            raise UserError(problem)
        for value in numbers:
            if value in values:
                raise UserError(f"the value {value} comes twice in the classes; name each value once")
        if name not in names:
            names.append(name)
        if len(fields) == 3:
            try:
                colors[name] = ClassInfo(name=name, color=f"#{fields[2].removeprefix('#')}").color
            except ValidationError as error:
                raise UserError(f"'{fields[2]}' in the classes is no color; write it as #rrggbb") from error
        values.update(dict.fromkeys(numbers, names.index(name) + 1))
    if len(names) < 2:
        raise UserError("fewer than two classes are named; a segmentation needs two, for example 0:background,1:object")
    if len(names) > _MAX_CLASSES:
        raise UserError(f"{len(names)} classes are named; at most {_MAX_CLASSES} are possible")
    classes = tuple(
        ClassInfo(name=info.name, color=colors.get(info.name, info.color)) for info in default_classes(names)
    )
    return LabelMapping(classes=classes, values=values)


def infer_mapping(value_counts: Mapping[int, int]) -> LabelMapping:
    """Mapping for label files whose values nobody named.

    Exactly the values 0 and 255 are two classes. Otherwise 0 (and what is negative) is not annotated,
    and every other value is a class, in rising order.

    Parameters
    ----------
    value_counts : mapping of int to int
        Pixels per value.

    Raises
    ------
    UserError
        When nothing is annotated, there is only one class, or the values look like instances.
    """
    values = sorted(value for value, count in value_counts.items() if count > 0)
    if values == [0, 255]:
        return LabelMapping(classes=default_classes(["class 0", "class 255"]), values={0: 1, 255: 2})
    positive = [value for value in values if value > 0]
    if not positive:
        raise UserError("nothing is annotated (every label is 0); annotate at least two classes")
    if len(positive) == 1:
        only = positive[0]
        if 0 in values:
            raise UserError(
                f"the labels have only one class (value {only}; 0 is not annotated); annotate a second one, or if "
                f"everything is annotated use --classes 0:background,{only}:object"
            )
        raise UserError(f"the labels have only one class (value {only}); annotate a second one")
    if len(positive) > MAX_UNNAMED_CLASSES:
        raise UserError(
            f"the labels have {len(positive)} different values, which look like instances; give class labels, "
            "or name the values that are classes with --classes"
        )
    names = default_classes([f"class {value}" for value in positive])
    return LabelMapping(classes=names, values={value: number for number, value in enumerate(positive, 1)})


@dataclass
class LabeledStack:
    """An image, its labels and how their values are read."""

    image: ImageStack
    labels: ImageStack
    mapping: LabelMapping
    _pixels: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    _left_out: set[int] = field(default_factory=set, repr=False, compare=False)

    def target(self, section: int) -> npt.NDArray[np.uint8]:
        """Class numbers of a section ``(y, x)``: 0 = not annotated, 1..K."""
        if section in self._left_out:
            return np.zeros(self.labels.section_shape(section), np.uint8)
        return self.mapping.target(_label_values(self.labels, section))

    def leave_out(self, section: int) -> None:
        """Take a section for not annotated from now on."""
        self._left_out.add(section)
        if self._pixels is not None:
            self._pixels[section] = 0


def annotated_pixels(stack: LabeledStack) -> npt.NDArray[np.int64]:
    """Annotated pixels per section and class, ``(sections, K)``; read once, then remembered."""
    if stack._pixels is None:
        classes = len(stack.mapping.classes)
        stack._pixels = np.array(
            [
                np.bincount(stack.target(section).ravel(), minlength=classes + 1)[1:]
                for section in range(stack.labels.sections)
            ],
            dtype=np.int64,
        )
    return stack._pixels


def pair_stacks(
    images: Sequence[ImageStack], labels: Sequence[ImageStack], classes: str | LabelMapping | None
) -> list[LabeledStack]:
    """Pair opened images with their labels, in order, after every check of `open_labeled`."""
    if not images:
        raise UserError("no image is given; give at least one image with its labels")
    if len(images) != len(labels):
        given = f"{counted(len(images), 'image')} and {counted(len(labels), 'label file')}"
        raise UserError(f"{given} are given; they are paired in order, so give as many")
    for image, label in zip(images, labels, strict=True):
        _check_pair(image, label)
        if image.channels != images[0].channels:
            raise UserError(
                f"{_where(image)} has {counted(image.channels, 'channel')}, {_where(images[0])} has "
                f"{images[0].channels}; give images of one kind"
            )
    counts = [[_value_counts(label, section) for section in range(label.sections)] for label in labels]
    total: Counter[int] = Counter()
    for section in (section for stack in counts for section in stack):
        total.update(section)
    if classes is None:
        mapping = infer_mapping(total)
        _check_not_instances(labels, mapping)
    else:
        mapping = parse_classes(classes) if isinstance(classes, str) else classes
        _check_named(mapping, total)
    stacks = []
    for image, label, sections in zip(images, labels, counts, strict=True):
        pixels = np.zeros((label.sections, len(mapping.classes)), np.int64)
        for index, section in enumerate(sections):
            for value, count in section.items():
                if value in mapping.values:
                    pixels[index, mapping.values[value] - 1] += count
        stacks.append(LabeledStack(image, label, mapping, pixels))
    return stacks


def open_labeled(
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    classes: str | LabelMapping | None = None,
    read: Selection = ALL,
) -> list[LabeledStack]:
    """Open images and labels, paired as `pairs.open_pairs` says.

    Parameters
    ----------
    images, labels : sequence of path
        As many of one as of the other, or patterns; anything that `open_image` opens.
    classes : str or LabelMapping, optional
        ``0:membrane,255:cell``; without it the values are read as `infer_mapping` says.
    read : Selection, optional
        What of each image, and of its labels, is read.

    Raises
    ------
    UserError
        When a file is missing or unreadable, names, counts or shapes do not fit, labels are no whole numbers
        or have several channels, nothing or only one class is annotated, or ``classes`` names values
        that do not occur.
    """
    pairs = open_pairs([Path(path) for path in images], [Path(path) for path in labels], read)
    return pair_stacks([image for image, _ in pairs], [marks for _, marks in pairs], classes)


def _check_pair(image: ImageStack, labels: ImageStack) -> None:
    for one, other in ((image, labels), (labels, image)):
        if one.sections == 1 < one.channels == other.sections:
            raise UserError(
                f"{_where(one)} has {one.channels} channels and {_where(other)} as many sections; if these channels "
                "are sections, say --axes zyx"
            )
    if labels.dtype.kind not in "ui":
        raise UserError(f"the labels {_where(labels)} hold {labels.dtype} values; save them as whole numbers")
    if labels.channels not in (1, 3):
        raise UserError(f"the labels {_where(labels)} have {labels.channels} channels; save them with one")
    if image.sections != labels.sections:
        raise UserError(
            f"{_where(image)} has {counted(image.sections, 'section')} and its labels {_where(labels)} have "
            f"{labels.sections}; give labels for every section (0 = not annotated)"
        )
    for section in range(image.sections):
        if image.section_shape(section) != labels.section_shape(section):
            ours, theirs = ("x".join(map(str, stack.section_shape(section))) for stack in (image, labels))
            raise UserError(
                f"section {section} of {_where(image)} is {ours} pixels and of its labels {_where(labels)} {theirs}; "
                "give labels of the image's size"
            )
    if image.section_names and labels.section_names:
        order = matched(image.section_names, labels.section_names, where=(_where(image), _where(labels)))
        if order != list(range(image.sections)):
            raise UserError(
                f"{_where(image)} and {_where(labels)} name their sections in two orders; open them as a pair"
            )


def _check_not_instances(labels: Sequence[ImageStack], mapping: LabelMapping) -> None:
    """Refuse many values that are apart, or one piece each: objects with numbers, which would become classes."""
    if len(mapping.classes) <= MAX_SEPARATE_CLASSES:
        return
    sections = (_label_values(label, section) for label in labels for section in range(label.sections))
    if not all(are_objects(values) for values in sections):
        return
    first, last = min(mapping.values), max(mapping.values)
    raise UserError(
        f"the labels have {len(mapping.classes)} values, each in one piece or apart, which look like numbered objects; "
        f"if they are, use --classes 0:background,{first}-{last}:object, else name each class with --classes"
    )


def are_objects(values: npt.NDArray[Any]) -> bool:
    """Whether no two values lie side by side, or there are many and each is in one piece, as cells that touch are."""
    return not values_touch(values) or are_single_pieces(values)


def are_single_pieces(values: npt.NDArray[Any]) -> bool:
    """Whether there are more values than a few classes, and each lies in one piece."""
    from scipy import ndimage

    known = np.unique(values)
    known = known[known > 0]
    if len(known) <= MAX_SEPARATE_CLASSES:
        return False
    numbers = values if known[-1] < _MAX_RANGE else np.searchsorted(known, values, side="right")
    boxes = ndimage.find_objects(numbers)
    # Only the surroundings of each value are looked at, up to the first in pieces: quick for objects and for classes.
    corners = np.ones((3, 3), bool)
    return not any(
        box is not None and ndimage.label(numbers[box] == number, corners)[1] > 1 for number, box in enumerate(boxes, 1)
    )


def values_touch(values: npt.NDArray[Any]) -> bool:
    """Whether two different values other than 0 lie side by side."""
    return any(
        bool(((one != other) & (one > 0) & (other > 0)).any())
        for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]))
    )


def _check_named(mapping: LabelMapping, total: Mapping[int, int]) -> None:
    # Of a range some values may be missing.
    painted = {number for value, number in mapping.values.items() if total.get(value)}
    missing = [value for value, number in mapping.values.items() if number not in painted]
    if missing:
        occurring = sorted(value for value, count in total.items() if count)
        shown = ", ".join(map(str, occurring[:12])) + (", ..." if len(occurring) > 12 else "")
        names = ", ".join(f"{value} ({mapping.classes[mapping.values[value] - 1].name})" for value in missing)
        raise UserError(f"the classes name {names}, which no label has; the values that occur are {shown}")


def _label_values(labels: ImageStack, section: int) -> npt.NDArray[Any]:
    """Values ``(y, x)`` of a label section; a gray picture saved as RGB counts as gray."""
    pixels = labels.section(section)
    if pixels.shape[0] > 1 and not (pixels == pixels[:1]).all():
        raise UserError(f"the labels {_where(labels)} are a color picture; save class numbers as a gray image")
    first: npt.NDArray[Any] = pixels[0]
    if first.dtype != np.uint64:
        return first
    # As signed numbers, which NumPy compares with others exactly.
    if first.max() > np.iinfo(np.int64).max:
        raise UserError(f"the labels {_where(labels)} hold {first.max()}; number the classes from 1")
    return first.astype(np.int64)


def _value_counts(labels: ImageStack, section: int) -> dict[int, int]:
    values = _label_values(labels, section)
    if values.dtype in (np.uint8, np.uint16):
        counts = np.bincount(values.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values_present, numbers = np.unique(values, return_counts=True)
    return dict(zip(values_present.tolist(), numbers.tolist(), strict=True))


def _where(stack: ImageStack) -> str:
    return str(stack.path or stack.name)
