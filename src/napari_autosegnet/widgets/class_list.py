"""The classes of a session: values, names and colours, given by the user or taken from what is painted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_autosegnet.data.annotations import MOST_UNNAMED_CLASSES, PALETTE, ClassInfo, LabelMapping, default_classes
from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.class_colors import LabelClass


class ClassList(QObject):
    """Classes in order; class number 1 is the first one.

    As long as the user changed nothing they follow what is found: names that a layer brings with it, values that
    are painted.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._classes = tuple(
            LabelClass(value, info.name, info.color)
            for value, info in enumerate(default_classes(["class 1", "class 2"]), start=1)
        )
        self._are_defaults = True
        self._ignored: set[int] = set()

    @property
    def label_classes(self) -> tuple[LabelClass, ...]:
        return self._classes

    @property
    def infos(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo(name=each.name, color=each.color) for each in self._classes)

    @property
    def are_defaults(self) -> bool:
        """Whether nobody named them yet."""
        return self._are_defaults

    def mapping(self) -> LabelMapping:
        """How painted values are read as class numbers."""
        values = {each.value: number for number, each in enumerate(self._classes, start=1)}
        return LabelMapping(classes=self.infos, values=values)

    @property
    def zero_is_class(self) -> bool:
        """Whether pixels of value 0 are a class, and not unpainted."""
        return any(each.value == 0 for each in self._classes)

    def set_zero_is_class(self, is_class: bool) -> None:
        if is_class == self.zero_is_class:
            return
        others = tuple(each for each in self._classes if each.value != 0)
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
        names = [each.name for each in new]
        for name in names:
            if not name:
                raise UserError("a class needs a name; type one")
            if "," in name or ":" in name:
                raise UserError(f"the class name '{name}' holds a comma or colon; leave these out")
            if names.count(name) > 1:
                raise UserError(f"two classes are called '{name}'; give each its own name")
        self._ignored |= {each.value for each in self._classes} - {each.value for each in new}
        self._ignored -= {each.value for each in new}
        self._are_defaults = False
        self._take(new)

    def add(self, name: str | None = None, color: str | None = None) -> LabelClass:
        """One more class, with the next free value and colour."""
        value = 1 + max((each.value for each in self._classes if each.value < 255), default=0)
        added = LabelClass(value, name or self._free_name(value), color or self._free_color())
        self.put([*self._classes, added])
        return added

    def change(self, value: int, *, name: str | None = None, color: str | None = None) -> None:
        changes: dict[str, Any] = {key: new for key, new in (("name", name), ("color", color)) if new is not None}
        self.put([replace(each, **changes) if each.value == value else each for each in self._classes])

    def remove(self, value: int) -> None:
        """What is painted with the value counts as not annotated from now on."""
        self.put([each for each in self._classes if each.value != value])

    def adopt(self, classes: Sequence[LabelClass]) -> None:
        """Take over classes that a layer or a model brings with it, if nobody named any yet."""
        # A layer may just have been given the defaults, to be shown with.
        if self._are_defaults and classes and tuple(classes) != self._classes:
            self._are_defaults = False
            self._take(tuple(classes))

    def take_values(self, found: set[int], *, complete: bool) -> None:
        """Make classes of values that are painted; ``complete`` says that these are all values that occur."""
        classes = self._classes
        if self._are_defaults and complete and found == {0, 255}:
            infos = default_classes(["class 0", "class 255"])
            classes = tuple(
                LabelClass(value, info.name, info.color) for value, info in zip((0, 255), infos, strict=True)
            )
        known = {each.value for each in classes} | self._ignored
        new = sorted(value for value in found - known if value > 0)
        if len(found) <= MOST_UNNAMED_CLASSES:
            for value in new:
                color = PALETTE[len(classes) % len(PALETTE)]
                classes = (*classes, LabelClass(value, self._free_name(value), color))
        if classes != self._classes:
            self._take(classes)

    def _take(self, classes: tuple[LabelClass, ...]) -> None:
        self._classes = classes
        self.changed.emit()

    def _free_name(self, number: int) -> str:
        names = {each.name for each in self._classes}
        while f"class {number}" in names:
            number += 1
        return f"class {number}"

    def _free_color(self) -> str:
        used = {each.color for each in self._classes}
        return next((color for color in PALETTE if color not in used), PALETTE[len(self._classes) % len(PALETTE)])
