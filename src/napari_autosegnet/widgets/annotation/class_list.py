"""The classes of a session: values, names and colors, given by the user or taken from what is painted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.data.annotations import (
    MAX_UNNAMED_CLASSES,
    ClassInfo,
    LabelMapping,
    class_color,
    default_classes,
    name_problem,
)
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.layers.class_colors import LabelClass


class ClassList(QObject):
    """Classes in order; class number 1 is the first one.

    As long as the user changed nothing they follow what is found: names that a layer brings with it, values that
    are painted. A class that was only found goes with its last pixel.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.label_classes = _default_classes()
        #: Nobody named them yet.
        self.are_defaults = True
        self._ignored: set[int] = set()
        #: Values of classes that nobody named: they are only painted.
        self._found: set[int] = set()

    @property
    def infos(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo(name=each.name, color=each.color) for each in self.label_classes)

    def unnamed(self, values: Iterable[int]) -> list[int]:
        """Those of the values above 0 that nobody made a class: they are only painted."""
        given = set() if self.are_defaults else {each.value for each in self.label_classes} - self._found
        return [value for value in values if value > 0 and value not in given]

    def mapping(self) -> LabelMapping:
        """How painted values are read as class numbers."""
        values = {each.value: number for number, each in enumerate(self.label_classes, start=1)}
        return LabelMapping(classes=self.infos, values=values)

    @property
    def zero_is_class(self) -> bool:
        """Whether pixels of value 0 are a class, and not unpainted."""
        return any(each.value == 0 for each in self.label_classes)

    def set_zero_is_class(self, is_class: bool) -> None:
        if is_class == self.zero_is_class:
            return
        others = tuple(each for each in self.label_classes if each.value != 0)
        if is_class:
            names = {each.name for each in others}
            name = next(name for name in ("background", "class 0", "unpainted") if name not in names)
            others = (LabelClass(0, name, self._free_color()), *others)
        self.put(others)

    def put(self, classes: Iterable[LabelClass]) -> None:
        """Replace the classes.

        Raises
        ------
        UserError
            When names are empty, come twice, or hold a comma or colon.
        """
        new = tuple(replace(each, name=each.name.strip()) for each in classes)
        check_names([each.name for each in new])
        self._ignored |= {each.value for each in self.label_classes} - {each.value for each in new}
        self._ignored -= {each.value for each in new}
        self._found &= {each.value for each in new if each in self.label_classes}
        self.are_defaults = False
        self._take(new)

    def add(self, name: str | None = None, color: str | None = None) -> LabelClass:
        """One more class, with the next free value and color."""
        value = 1 + max((each.value for each in self.label_classes if each.value < 255), default=0)
        added = LabelClass(value, name or self._free_name(value), color or self._free_color())
        self.put([*self.label_classes, added])
        return added

    def change(self, value: int, *, name: str | None = None, color: str | None = None) -> None:
        changes: dict[str, Any] = {key: new for key, new in (("name", name), ("color", color)) if new is not None}
        self.put([replace(each, **changes) if each.value == value else each for each in self.label_classes])

    def remove(self, value: int) -> None:
        """What is painted with the value counts as not annotated from now on."""
        self.put([each for each in self.label_classes if each.value != value])

    def reset(self) -> None:
        """Back to the defaults, as if nothing had been named or painted."""
        self.are_defaults = True
        self._ignored, self._found = set(), set()
        if self.label_classes != _default_classes():
            self._take(_default_classes())

    def adopt(self, classes: Sequence[LabelClass]) -> None:
        """Take over classes that a layer or a model brings with it, if nobody named any yet.

        To be called only while nothing is painted: what is painted keeps its meaning.
        """
        # A layer may just have been given the defaults, to be shown with.
        if self.are_defaults and classes and tuple(classes) != self.label_classes:
            self.are_defaults = False
            self._found = {each.value for each in classes if _is_unnamed(each) and each.value > 2}
            self._take(tuple(classes))

    def matched(self, classes: Sequence[LabelClass]) -> tuple[dict[int, int], tuple[LabelClass, ...]]:
        """Value here for every value of classes from elsewhere, and those classes that would have to be added.

        Classes of one name are one class. A new one keeps its value where that is free; 0 never is, as it would
        make a class of whatever is unpainted. What nobody named becomes a class once it is found painted.
        """
        by_name = {each.name: each.value for each in self.label_classes}
        colors = {each.color for each in self.label_classes}
        taken = {0, *self._ignored, *by_name.values()}
        values: dict[int, int] = {}
        missing: list[LabelClass] = []
        for each in classes:
            if each.name not in by_name:
                value = each.value
                keeps = value not in taken
                if not keeps:
                    value = next(free for free in range(1, len(taken) + 2) if free not in taken)
                taken.add(value)
                by_name[each.name] = value
                if not (keeps and _is_unnamed(each)):
                    color = each.color if each.color not in colors else self._free_color(colors)
                    colors.add(color)
                    missing.append(LabelClass(value, each.name, color))
            values[each.value] = by_name[each.name]
        return values, tuple(missing)

    def extend(self, classes: Sequence[LabelClass]) -> None:
        """Add the classes that `matched` found missing."""
        if classes:
            self.put([*self.label_classes, *classes])

    def take_values(self, values: set[int], *, complete: bool) -> None:
        """Make classes of values that are painted; ``complete`` says that these are all values that occur."""
        classes = self.label_classes
        gone = self._found - values - {0} if complete else set()
        if 255 in gone and 0 in self._found:
            gone.add(0)  # it was a class for the sake of 255 only
        if gone:
            classes = tuple(each for each in classes if each.value not in gone)
            if self.are_defaults and not {1, 2} & {each.value for each in classes}:
                classes = (*_default_classes(), *classes)
        if self.are_defaults and complete and values == {0, 255}:
            infos = default_classes(["class 0", "class 255"])
            classes = tuple(
                LabelClass(value, info.name, info.color) for value, info in zip((0, 255), infos, strict=True)
            )
            self._found = {0, 255}
        known = {each.value for each in classes} | self._ignored
        new = sorted(value for value in values - known if value > 0)
        if len(values) <= MAX_UNNAMED_CLASSES:
            for value in new:
                color = class_color(len(classes))
                classes = (*classes, LabelClass(value, self._free_name(value), color))
                self._found.add(value)
        self._found &= {each.value for each in classes}
        if classes != self.label_classes:
            self._take(classes)

    def _take(self, classes: tuple[LabelClass, ...]) -> None:
        self.label_classes = classes
        self.changed.emit()

    def _free_name(self, number: int) -> str:
        names = {each.name for each in self.label_classes}
        while f"class {number}" in names:
            number += 1
        return f"class {number}"

    def _free_color(self, used: set[str] | None = None) -> str:
        used = {each.color for each in self.label_classes} if used is None else used
        return next(color for color in map(class_color, count()) if color not in used)


def check_names(names: Sequence[str]) -> None:
    """Raise a `UserError` if these cannot be the names of classes."""
    for name in names:
        if (problem := name_problem(name)) is not None:
            raise UserError(problem)
        if "," in name or ":" in name:
            raise UserError(f"the class name '{name}' holds a comma or colon; leave these out")
        if names.count(name) > 1:
            raise UserError(f"two classes are called '{name}'; give each its own name")


def _is_unnamed(one: LabelClass) -> bool:
    return one.name == f"class {one.value}"


def _default_classes() -> tuple[LabelClass, ...]:
    infos = default_classes(["class 1", "class 2"])
    return tuple(LabelClass(value, info.name, info.color) for value, info in enumerate(infos, start=1))
