"""What the user painted on a model's result, to be taken over as annotation.

The rule: what is painted on a result stays. It lies on top of every later result of that section, can be undone, and
becomes annotation when it is taken over. Where its layer is closed, or a worker writes into it, it waits with the
image for the next result (`kept_corrections`).

Of every section a copy of what the model said is kept with the layer; what differs from it is a correction. So undo,
redo and painting twice need no book-keeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, Signal
from superqt.utils import qdebounced

from napari_autosegnet.errors import UserError
from napari_autosegnet.widgets.apply.kept_corrections import Patch, forget, keep, kept, kept_pixels, put_back
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.layers.axes import full_resolution
from napari_autosegnet.widgets.layers.class_colors import kept_classes
from napari_autosegnet.widgets.layers.layer_arrays import pixel_indices, read_section, sections
from napari_autosegnet.widgets.layers.notes import notes, role
from napari_autosegnet.widgets.layers.paint_history import before, write_section
from napari_autosegnet.widgets.layers.paint_watch import PaintWatch
from napari_autosegnet.widgets.layers.section_layers import image_behind, what_was_said
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer


class Corrections(QObject):
    """Follows the result layers of a session's viewer."""

    #: The number of corrected pixels changed.
    changed = Signal(int)

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._watch = PaintWatch(session.viewer, self)
        self._watch.painted.connect(self._remember)
        self._watch.changed.connect(self._mark)
        self._watch.replaced.connect(self._on_replaced)
        #: Layer, then section: corrected pixels, as counted last.
        self._counted: dict[int, dict[int, int]] = {}
        #: Layer, then sections that may have changed since.
        self._dirty: dict[int, set[int]] = {}
        self._background = Background(self)
        self._count_soon = qdebounced(self._count, timeout=200)
        session.annotation.pairs_changed.connect(self._follow)
        self._follow()

    def release(self) -> None:
        """Let go of the viewer; the layers keep what they need."""
        self._count_soon.cancel()
        self._watch.follow([])
        self._background.close()

    @property
    def pixels(self) -> int:
        """Corrected pixels, as they were counted last; `changed` follows what is painted."""
        return self.waiting_pixels + sum(number for counted in self._counted.values() for number in counted.values())

    @property
    def waiting_pixels(self) -> int:
        """Those whose result was closed, and that come back with the next one."""
        return sum(kept_pixels(image) for image in self._session.layers.images())

    def take_over(self) -> int:
        """Paint all corrections into the annotation of their images; the number of pixels is returned.

        Raises
        ------
        UserError
            When there are none, when some cannot be taken over, or the image of a result is gone.
        """
        pending = [
            *(
                (image, f"closed result of '{image.name}'", section, patch)
                for image in self._session.layers.images()
                for section, patches in kept(image).items()
                for patch in patches
            ),
            *(
                (image_behind(self._session.viewer, layer), f"'{layer.name}'", section, patch)
                for layer in self._watch.layers
                for section, patch in _patches(layer)
            ),
        ]
        if not pending:
            raise UserError("nothing was corrected yet; select a result layer and paint over its mistakes")
        # All or nothing: what cannot be taken over is not to be forgotten.
        for image, name, _, patch in pending:
            self._check(image, name, patch)
        for image, _, section, patch in pending:
            assert image is not None
            self._paint(image, section, patch)
        for image in self._session.layers.images():
            forget(image)
        for layer in self._watch.layers:
            self._settle(layer)
        self.changed.emit(0)
        return sum(len(patch.values) for *_, patch in pending)

    # ------------------------------------------------------------ results that come and go

    def put_aside(self, layer: Labels) -> None:
        """A worker is going to write into a layer: what is painted on it waits until it is done."""
        image = image_behind(self._session.viewer, layer)
        if image is None or not can_be_corrected(layer):
            return
        said = what_was_said(layer)
        for section, patch in list(_patches(layer)):
            keep(image, section, patch)
            write_section(layer, section, said[section])
        self._settle(layer)

    def put_back(self, layer: Labels, section: int | None = None) -> None:
        """Paint what waits on a new result, or on one section of it."""
        image = image_behind(self._session.viewer, layer)
        if image is not None and can_be_corrected(layer):
            self._follow()
            put_back(image, layer, None if section is None else {section})
            self._mark(layer, what_was_said(layer) if section is None else [section])

    def _settle(self, layer: Labels) -> None:
        """What the layer shows is no correction, and nothing of it can be undone."""
        said = what_was_said(layer)
        if said:
            shown = {section: np.array(read_section(layer, section)) for section in said}
            layer.data = layer.data  # napari forgets its history, and what was said is forgotten, too
            if role(layer) == "preview":
                said |= shown

    # ------------------------------------------------------------ following

    def _follow(self) -> None:
        new, left = self._watch.follow([layer for layer in self._session.viewer.layers if can_be_corrected(layer)])
        for layer in left:
            self._keep(layer)
            self._drop(layer)
        for layer in new:
            self._mark(layer, what_was_said(layer))  # painted while no dock was open

    def _keep(self, layer: Labels) -> None:
        """The layer was closed: what is painted on it waits with its image."""
        image = image_behind(self._session.viewer, layer)
        if image is not None:
            for section, patch in _patches(layer):
                keep(image, section, patch)

    def _remember(self, layer: Labels, painted: set[int], item: list[Any]) -> None:
        """Keep what the model said in sections that are painted for the first time."""
        said = what_was_said(layer)
        for section in painted:
            if section < sections(layer) and section not in said:
                said[section] = before(layer, section, item)

    def _on_replaced(self, layer: Labels) -> None:
        """Somebody gave the layer other pixels: nothing is known of them."""
        what_was_said(layer).clear()
        self._drop(layer)

    def _drop(self, layer: Labels) -> None:
        for known in (self._dirty, self._counted):
            known.pop(id(layer), None)
        self._count_soon()

    # ------------------------------------------------------------ counting

    def _mark(self, layer: Labels, changed: Iterable[int]) -> None:
        self._dirty.setdefault(id(layer), set()).update(changed)
        self._count_soon()

    def _count(self) -> None:
        """Count the sections that changed, in the thread."""
        wanted = [
            (layer, section, what_was_said(layer)[section])
            for layer in self._watch.layers
            for section in sorted(self._dirty.get(id(layer), set()) & what_was_said(layer).keys())
        ]
        self._dirty.clear()
        if not wanted:
            self.changed.emit(self.pixels)
            return

        def work() -> list[int]:
            counts = []
            for layer, section, said in wanted:
                if self._background.closing.is_set():
                    break
                counts.append(int(np.count_nonzero(_corrected(layer, section, said))))
            return counts

        def take(counts: list[int]) -> None:
            for (layer, section, said), number in zip(wanted, counts, strict=False):
                # Meanwhile the corrections may have been taken over, or another prediction came.
                if what_was_said(layer).get(section) is said:
                    self._counted.setdefault(id(layer), {})[section] = number
            self.changed.emit(self.pixels)

        self._background.call(work, take)

    # ------------------------------------------------------------ painting

    def _check(self, image: Image | None, name: str, patch: Patch) -> None:
        """Raise a `UserError` if a patch cannot be taken over."""
        if image is None:
            raise UserError(f"the image behind {name} is closed; open it again to take corrections over")
        painted, numbers = np.unique(patch.values, return_counts=True)
        of_class = np.isin(painted, [each.value for each in patch.classes])
        if not of_class.all():
            values = ", ".join(str(value) for value in painted[~of_class])
            names = ", ".join(f"{each.value} {each.name}" for each in patch.classes)
            number = int(numbers[~of_class].sum())
            raise UserError(
                f"{number} pixels of {name} are painted with {values}, which is not a class of the model; "
                f"paint one of its classes there ({names}), or undo them"
            )
        self._session.annotation.annotation_of(image)

    def _paint(self, image: Image, section: int, patch: Patch) -> None:
        target = self._session.annotation.annotation_of(image) or self._session.annotation.new_labels(image)
        painted = np.zeros(len(patch.values), np.int64)
        for number, value in self._session.annotation.values_of(patch.classes).items():
            painted[patch.values == number] = value
        target.visible = True  # napari keeps no slice of a hidden layer, and cannot change it then
        where = pixel_indices(target, section, patch.rows, patch.columns)
        target.data_setitem(where, painted.astype(full_resolution(target).dtype))
        target.refresh()


def can_be_corrected(layer: Layer) -> bool:
    """Whether what is painted on a layer is a correction: not on a file, nor on what passes with the next epoch."""
    from napari.layers import Labels

    if not isinstance(layer, Labels) or layer.multiscale:
        return False
    if role(layer) == "result":
        return not notes(layer).get("is_file")
    return role(layer) == "preview" and not notes(layer).get("passing")


def _corrected(layer: Labels, section: int, said: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    now = read_section(layer, section)
    return np.asarray((now != said) & (now != 0))


def _patches(layer: Labels) -> Iterator[tuple[int, Patch]]:
    """Section, and what is corrected there."""
    for section, said in what_was_said(layer).items():
        rows, columns = np.nonzero(_corrected(layer, section, said))
        if len(rows):
            yield section, Patch(rows, columns, read_section(layer, section)[rows, columns], kept_classes(layer))
