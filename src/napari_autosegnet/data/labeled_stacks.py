"""Images with their labels: opened in pairs, checked, and read as classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import (
    LabelMapping,
    colors_to_name,
    infer_mapping,
    parse_classes,
    value_text,
)
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.data.label_values import LabelValues, gray_color, label_values
from napari_autosegnet.data.name_matching import matched
from napari_autosegnet.data.numbered_objects import MAX_SEPARATE_CLASSES, are_objects
from napari_autosegnet.data.pairs import given_pairs, open_pair
from napari_autosegnet.data.same_place import check_same_place
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.data.soft_edges import MIN_VALUES, SoftColors, soft_colors, soft_edges
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import counted, listed


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
        return self.mapping.target(_values_as_named(self.labels, section, self.mapping))

    @property
    def annotated_pixels(self) -> npt.NDArray[np.int64]:
        """Annotated pixels per section and class, ``(sections, K)``; read once, then remembered."""
        if self._pixels is None:
            classes = len(self.mapping.classes)
            targets = (self.target(section) for section in range(self.labels.sections))
            counts = [np.bincount(target.ravel(), minlength=classes + 1)[1:] for target in targets]
            self._pixels = np.array(counts, dtype=np.int64)
        return self._pixels

    @property
    def annotated_sections(self) -> list[int]:
        """Sections in which something is annotated, rising."""
        sections: list[int] = np.flatnonzero(self.annotated_pixels.any(axis=1)).tolist()
        return sections

    def leave_out(self, section: int) -> None:
        """Treat a section as not annotated from now on."""
        self._left_out.add(section)
        if self._pixels is not None:
            self._pixels[section] = 0


def annotated_places(stacks: Sequence[LabeledStack]) -> list[tuple[int, int]]:
    """Stack and section, by their numbers, of all sections in which something is annotated, rising."""
    return [(index, section) for index, stack in enumerate(stacks) for section in stack.annotated_sections]


def pair_stacks(
    images: Sequence[ImageStack], labels: Sequence[ImageStack], classes: str | LabelMapping | None
) -> list[LabeledStack]:
    """Pair opened images with their labels, in order, after every check of `open_labeled`."""
    if not images:
        raise UserError("no image is given; give at least one image with its labels")
    if len(images) != len(labels):
        given = f"{counted(len(images), 'image')} and {counted(len(labels), 'label file')}"
        raise UserError(f"{given} are given; they are paired in order, so give one label file for each image")
    for image, label in zip(images, labels, strict=True):
        _check_pair(image, label)
        if image.channels != images[0].channels:
            raise UserError(
                f"{image.display_name} has {counted(image.channels, 'channel')}, {images[0].display_name} has "
                f"{images[0].channels}; give images of one kind"
            )
    mapping = None if classes is None else parse_classes(classes) if isinstance(classes, str) else classes
    counts, colors = _value_counts(labels, named_colors=mapping is not None and mapping.colors)
    total: Counter[int] = Counter()
    for section in (section for stack in counts for section in stack):
        total.update(section)
    if mapping is None:
        _check_hard_edges(labels, total, colors=colors)
        mapping = infer_mapping(total, colors=colors)
        _check_not_instances(labels, mapping)
    else:
        if colors and not mapping.colors:
            raise UserError(
                f"the labels {labels[0].display_name} are a color picture; name its colors, for example --classes "
                f"{colors_to_name(total)}"
            )
        mapping = _with_soft_edges(labels, mapping, total)
        _check_named(mapping, total)
    stacks = []
    for image, label, sections in zip(images, labels, counts, strict=True):
        pixels = np.zeros((label.sections, len(mapping.classes)), np.int64)
        for index, section in enumerate(sections):
            numbers = mapping.target(np.array(list(section), np.int64))
            pixels[index] = np.bincount(numbers, list(section.values()), minlength=len(mapping.classes) + 1)[1:]
        stacks.append(LabeledStack(image, label, mapping, pixels))
    return stacks


def open_labeled(
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    classes: str | LabelMapping | None = None,
    read: Selection = ALL,
) -> list[LabeledStack]:
    """Open images and labels, paired as `pairs.given_pairs` and `pairs.open_pair` say.

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
        When a file is missing or unreadable, names, counts or shapes do not fit, labels are neither whole numbers
        nor colors, nothing or only one class is annotated, or ``classes`` names values
        that do not occur.
    """
    given = zip(*given_pairs([Path(path) for path in images], [Path(path) for path in labels]), strict=True)
    pairs = [open_pair(image, marks, read) for image, marks in given]
    return pair_stacks([image for image, _ in pairs], [marks for _, marks in pairs], classes)


def _check_pair(image: ImageStack, labels: ImageStack) -> None:
    for one, other in ((image, labels), (labels, image)):
        if one.sections == 1 < one.channels == other.sections:
            raise UserError(
                f"{one.display_name} has {one.channels} channels and {other.display_name} as many sections; "
                "if these channels are sections, use --axes zyx"
            )
    if labels.channels not in (1, 3):
        raise UserError(f"the labels {labels.display_name} have {labels.channels} channels; save them with one")
    if image.sections != labels.sections:
        raise UserError(
            f"{image.display_name} has {counted(image.sections, 'section')} and its labels {labels.display_name} have "
            f"{labels.sections}; give labels for every section (0 = not annotated)"
        )
    for section in range(image.sections):
        if image.section_shape(section) != labels.section_shape(section):
            ours, theirs = ("x".join(map(str, stack.section_shape(section))) for stack in (image, labels))
            raise UserError(
                f"section {section} of {image.display_name} is {ours} pixels and of its labels "
                f"{labels.display_name} {theirs}; give labels of the image's size"
            )
    check_same_place(image, labels, "the labels")
    if image.section_names and labels.section_names:
        order = matched(image.section_names, labels.section_names, where=(image.display_name, labels.display_name))
        if order != list(range(image.sections)):
            raise UserError(
                f"{image.display_name} and {labels.display_name} list their sections in different orders; "
                "open them as a pair"
            )


def _check_hard_edges(labels: Sequence[ImageStack], total: Mapping[int, int], *, colors: bool) -> None:
    """Refuse a mask with soft edges, whose mixed values would become classes."""
    if len(total) < MIN_VALUES:
        return
    edges = _soft_colors(labels) if colors else soft_edges(each.values for each in _all_values(labels))
    if edges is not None:
        raise UserError(edges.describe())


def _with_soft_edges(labels: Sequence[ImageStack], mapping: LabelMapping, total: Mapping[int, int]) -> LabelMapping:
    """A mapping of colors that reads those near them, too, where the edges are soft."""
    if not mapping.colors or mapping.near or total.keys() <= mapping.values.keys() or len(total) < MIN_VALUES:
        return mapping
    edges = _soft_colors(labels)
    return mapping if edges is None else mapping.model_copy(update={"near": edges.near})


def _soft_colors(labels: Sequence[ImageStack]) -> SoftColors | None:
    return soft_colors(each.as_colors() for each in _all_values(labels))


def _all_values(labels: Sequence[ImageStack]) -> Iterator[LabelValues]:
    return (_values(label, section) for label in labels for section in range(label.sections))


def _check_not_instances(labels: Sequence[ImageStack], mapping: LabelMapping) -> None:
    """Refuse many values that are apart, or one piece each: objects with numbers, which would become classes."""
    if len(mapping.classes) <= MAX_SEPARATE_CLASSES or mapping.colors:
        return
    if not all(are_objects(each.values) for each in _all_values(labels)):
        return
    first, last = min(mapping.values), max(mapping.values)
    raise UserError(
        f"the labels have {len(mapping.classes)} values, each in one piece or apart, which look like numbered objects; "
        f"if they are, use --classes 0:background,{first}-{last}:object, else name each class with --classes"
    )


def _check_named(mapping: LabelMapping, total: Mapping[int, int]) -> None:
    # Of a range some values may be missing.
    painted = set(mapping.target(np.array([value for value, count in total.items() if count], np.int64)).tolist())
    missing = [value for value, number in mapping.values.items() if number not in painted]
    if missing:
        occurring = sorted(value for value, count in total.items() if count)
        shown = listed([value_text(value, colors=mapping.colors) for value in occurring], 12)
        names = ", ".join(
            f"{value_text(value, colors=mapping.colors)} ({mapping.classes[mapping.values[value] - 1].name})"
            for value in missing
        )
        raise UserError(f"the classes name {names}, which no label has; the values that occur are {shown}")


def _values(labels: ImageStack, section: int) -> LabelValues:
    return label_values(labels.section(section), f"the labels {labels.display_name}")


def _values_as_named(labels: ImageStack, section: int, mapping: LabelMapping) -> npt.NDArray[Any]:
    """Values ``(y, x)`` of a section, as colors where the mapping names colors."""
    read = _values(labels, section)
    return read.as_colors() if mapping.colors else read.values


def _value_counts(labels: Sequence[ImageStack], *, named_colors: bool) -> tuple[list[list[dict[int, int]]], bool]:
    """Pixels of each value, by file and section, and whether values are colors: when one section of one file is."""
    counts: list[list[tuple[dict[int, int], bool]]] = []
    for label in labels:
        read = (_values(label, section) for section in range(label.sections))
        counts.append([(values.counts(), values.are_colors) for values in read])
    colors = named_colors or any(are_colors for file in counts for _, are_colors in file)

    def as_named(values: dict[int, int], are_colors: bool) -> dict[int, int]:
        if are_colors or not colors:
            return values
        return {gray_color(value): count for value, count in values.items()}

    return [[as_named(*section) for section in file] for file in counts], colors
