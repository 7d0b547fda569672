"""Annotations: what the values of a label image mean.

Classes are numbered 1..K; 0 is not annotated. How a file's values are read as classes is a
`LabelMapping`, which is shown to the user (product rule: the mapping is never silent).
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_autosegnet.data.label_values import nearest_color
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import printable

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
#: A class whose name contains one of these separates objects.
BOUNDARY_WORDS = ("boundary", "membrane", "border", "edge", "outline")
#: More values than this without names are taken for instances, not classes.
MAX_UNNAMED_CLASSES = 32
_MAX_CLASSES = 255
_COLORS_TO_NAME = 4
_MAX_RANGE = 2**16
_MAX_NAME_LENGTH = 100
#: Multiples of the golden ratio lie far apart on the circle of hues, however many there are.
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
            raise ValueError(f"'{color}' is not a color; write it as #rrggbb")
        return color.lower()


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a class, in words; None if nothing is."""
    if not name.strip():
        return "a class needs a name; type one"
    if printable(name) != name:
        return f"the class name '{printable(name)}' contains characters that cannot be shown; remove them"
    if len(name) > _MAX_NAME_LENGTH:
        return f"the class name '{name[:20]} ...' has more than {_MAX_NAME_LENGTH} characters; shorten it"
    return None


def name_from_file(name: str) -> str:
    """A class name from another program's file, without what is not allowed here; it may become empty."""
    return printable(name.strip())[:_MAX_NAME_LENGTH]


class LabelMapping(BaseModel):
    """How the values of label files are read as classes.

    ``values`` maps a value in the file to a class number 1..K (``classes[number - 1]``); every other
    value is not annotated. Several values may be read as one class. Of labels painted in colors, a
    value is a color, ``0xrrggbb``; one that differs from it by no more than ``near`` in each channel is read as
    the nearest, as along soft edges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2, max_length=_MAX_CLASSES)]
    values: dict[int, int]
    colors: bool = False
    near: int = 0

    @model_validator(mode="after")
    def _complete(self) -> LabelMapping:
        if set(self.values.values()) != set(range(1, len(self.classes) + 1)):
            raise ValueError("every class needs a value, and every value a class")
        return self

    def describe(self) -> str:
        """One line for the user: ``0 -> 1 membrane, 255 -> 2 cell, everything else not annotated``."""
        parts = [f"{values} -> {number} {self.classes[number - 1].name}" for values, number in self._ranges()]
        near = [f"other colors that differ by up to {self.near} as the nearest"] if self.near else []
        return ", ".join([*parts, *near, "everything else not annotated"])

    def _ranges(self) -> list[tuple[str, int]]:
        """Values in a row that are read as one class, as a range, with the class's number."""
        ranges: list[tuple[int, int, int]] = []
        for value, number in self.values.items():
            if ranges and ranges[-1][1:] == (value - 1, number):
                ranges[-1] = (ranges[-1][0], value, number)
            else:
                ranges.append((value, value, number))
        if self.colors:
            return [(value_text(value, colors=True), number) for value, number in self.values.items()]
        return [(f"{first}" if first == last else f"{first}-{last}", number) for first, last, number in ranges]

    def written(self) -> dict[str, int]:
        """Class numbers by value, as a model's file has them: ``{"0": 1, "255": 2}``, ``{"#ff0000": 1}``."""
        return {value_text(value, colors=self.colors): number for value, number in self.values.items()}

    @classmethod
    def from_written(cls, classes: Sequence[ClassInfo], written: Mapping[str, int]) -> LabelMapping:
        """The mapping of these classes that `written` was called on."""
        colors = any(text.startswith("#") for text in written)
        values = {int(text.removeprefix("#"), 16 if colors else 10): number for text, number in written.items()}
        return cls(classes=tuple(classes), values=values, colors=colors)

    def target(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Class numbers (0 = not annotated, 1..K) of an array of label values, in its shape."""
        if self.near:
            known = list(self.values)
            index, distance = nearest_color(labels, known)
            nearest = np.array([self.values[color] for color in known], np.uint8)[index]
            return np.where(distance <= self.near, nearest, np.uint8(0))
        if labels.dtype == np.uint8:
            table = np.zeros(256, np.uint8)
            for value, number in self.values.items():
                if 0 <= value < 256:
                    table[value] = number
            return np.asarray(table[labels])
        rising = np.array(sorted(self.values), np.int64)
        numbers = np.array([0, *(self.values[int(value)] for value in rising)], np.uint8)
        place = np.minimum(np.searchsorted(rising, labels), len(rising) - 1)
        target: npt.NDArray[np.uint8] = numbers[np.where(rising[place] == labels, place + 1, 0)]
        return target


def value_text(value: int, *, colors: bool) -> str:
    """How a value is written: ``255``, or as a color, ``#ff0000``."""
    return f"#{value:06x}" if colors else str(value)


def class_color(index: int) -> str:
    """Color (``#rrggbb``) of a class by its index: one of `PALETTE`, then hues a golden section apart."""
    if index < len(PALETTE):
        return PALETTE[index]
    # Where hues come near each other again, one is lighter than the other.
    further = index - len(PALETTE)
    rgb = colorsys.hls_to_rgb(further * _GOLDEN % 1, (0.75, 0.35, 0.6, 0.5)[further % 4], 0.7)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def default_classes(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """Classes with the default colors, in order."""
    return tuple(ClassInfo(name=name, color=class_color(index)) for index, name in enumerate(names))


def parse_classes(text: str) -> LabelMapping:
    """Mapping from ``value:name[:#rrggbb],...``, for example ``0:membrane,255:cell`` or ``0:background,1-12:object``.

    Of labels painted in colors, the value is a color: ``#ff0000:membrane,#0000ff:cell``. Classes are
    numbered in the order of the text. A name that appears twice joins the values in one class
    (``0:membrane,32:membrane,255:cell``).

    Raises
    ------
    UserError
        When a part cannot be read, a value appears twice, or there are fewer than two classes.
    """
    names: list[str] = []
    colors: dict[str, str] = {}
    values: dict[int, int] = {}
    are_colors: set[bool] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        fields = [piece.strip() for piece in part.split(":")]
        if len(fields) not in (2, 3) or not fields[1]:
            raise UserError(f"'{part}' in the classes is not value:name; write for example 0:membrane,255:cell")
        named, name = _parse_values(fields[0]), fields[1]
        are_colors.add(fields[0].startswith("#"))
        problem = name_problem(name)
        if problem is not None:
            raise UserError(problem)
        twice = next((value for value in named if value in values), None)
        if twice is not None:
            shown = value_text(twice, colors=True in are_colors)
            raise UserError(f"the value {shown} appears twice in the classes; name each value once")
        if name not in names:
            names.append(name)
        if len(fields) == 3:
            try:
                colors[name] = ClassInfo(name=name, color=f"#{fields[2].removeprefix('#')}").color
            except ValidationError as error:
                raise UserError(f"'{fields[2]}' in the classes is not a color; write it as #rrggbb") from error
        values.update(dict.fromkeys(named, names.index(name) + 1))
    if len(are_colors) == 2:
        raise UserError("the classes name colors and numbers; name only colors, or only numbers")
    if len(names) < 2:
        raise UserError("fewer than two classes are named; a segmentation needs two, for example 0:background,1:object")
    if len(names) > _MAX_CLASSES:
        raise UserError(f"{len(names)} classes are named; at most {_MAX_CLASSES} are possible")
    classes = tuple(
        ClassInfo(name=info.name, color=colors.get(info.name, info.color)) for info in default_classes(names)
    )
    return LabelMapping(classes=classes, values=values, colors=True in are_colors)


def _parse_values(text: str) -> range:
    """The values that one part of the classes names: ``255``, ``1-12``, or ``#ff0000``."""
    color = re.fullmatch("#([0-9a-fA-F]{6})", text)
    if color is not None:
        value = int(color[1], 16)
        return range(value, value + 1)
    if text.startswith("#"):
        raise UserError(f"'{text}' in the classes is not a color; write it as #rrggbb")
    span = re.fullmatch(r"(-?\d{1,18})(?:\s*-\s*(\d{1,18}))?", text)
    if span is None:
        raise UserError(f"'{text}' in the classes is not a whole number; write for example 0:membrane,255:cell")
    values = range(int(span[1]), int(span[2] or span[1]) + 1)
    if not 0 < len(values) <= _MAX_RANGE:
        raise UserError(f"'{text}' in the classes is not a range of values; write for example 1-12:object")
    return values


def infer_mapping(value_counts: Mapping[int, int], *, colors: bool = False) -> LabelMapping:
    """Mapping for label files whose values were not named.

    Exactly the values 0 and 255 are two classes. Otherwise 0 (and what is negative) is not annotated,
    and every other value is a class, in rising order.

    Parameters
    ----------
    value_counts : mapping of int to int
        Pixels per value.
    colors : bool
        The values are colors, ``0xrrggbb``; black is not annotated.

    Raises
    ------
    UserError
        When nothing is annotated, there is only one class, or the values look like instances.
    """
    values = sorted(value for value, count in value_counts.items() if count > 0)
    if values == [0, 255] and not colors:
        return LabelMapping(classes=default_classes(["class 0", "class 255"]), values={0: 1, 255: 2})
    texts = {value: value_text(value, colors=colors) for value in values if value > 0}
    if not texts:
        raise UserError("nothing is annotated (every label is 0); annotate at least two classes")
    if len(texts) == 1:
        (only,) = texts.values()
        if 0 in values:
            nothing = value_text(0, colors=colors)
            raise UserError(
                f"the labels have only one class (value {only}; {nothing} is not annotated); annotate a second one, or "
                f"if everything is annotated use --classes {_quoted(f'{nothing}:background,{only}:object')}"
            )
        raise UserError(f"the labels have only one class (value {only}); annotate a second one")
    if len(texts) > MAX_UNNAMED_CLASSES and colors:
        raise UserError(
            f"the labels are painted in {len(texts)} colors, probably mixtures at smooth edges; name the colors that "
            f"are classes, for example --classes {colors_to_name(value_counts)}"
        )
    if len(texts) > MAX_UNNAMED_CLASSES:
        raise UserError(
            f"the labels have {len(texts)} different values, as an image or numbered objects have; give class labels, "
            "or name the values that are classes with --classes"
        )
    if colors:
        classes = tuple(ClassInfo(name=text, color=text) for text in texts.values())
    else:
        classes = default_classes([f"class {text}" for text in texts.values()])
    numbers = {value: number for number, value in enumerate(texts, 1)}
    return LabelMapping(classes=classes, values=numbers, colors=colors)


def colors_to_name(color_counts: Mapping[int, int]) -> str:
    """What to write after ``--classes`` for the most frequent colors; names are to be filled in."""
    most = sorted(color_counts, key=lambda color: -color_counts[color])[:_COLORS_TO_NAME]
    return _quoted(",".join(f"{value_text(color, colors=True)}:NAME" for color in sorted(most)))


def _quoted(text: str) -> str:
    """In quotes if the shell needs them, where # begins a comment."""
    return f"'{text}'" if "#" in text else text
