"""Objects of a result mended by hand: merged, split by two strokes, deleted; undone and redone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.metadata import OmeGroup
from napari_autosegnet.ome_zarr.paths import INSTANCES, LABELS
from napari_autosegnet.widgets.apply.edit_painting import paint_edits
from napari_autosegnet.widgets.files.object_features import ObjectFeatures
from napari_autosegnet.widgets.files.readers import stored_classes
from napari_autosegnet.widgets.forms.background import Background
from napari_autosegnet.widgets.forms.buttons import push_button
from napari_autosegnet.widgets.forms.message_line import sentence, wrapped_label
from napari_autosegnet.widgets.forms.window_keys import WindowKeys
from napari_autosegnet.widgets.layers.axes import full_resolution
from napari_autosegnet.widgets.layers.layer_files import folder_of
from napari_autosegnet.widgets.layers.notes import METADATA, role
from napari_autosegnet.widgets.layers.view import data_in_view
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels, Points

    from napari_autosegnet.inference.proofreading.annotation import EditAnnotation
    from napari_autosegnet.inference.proofreading.proofreading import Proofreading
    from napari_autosegnet.widgets.layers.class_colors import LabelClass

_STROKES = "split strokes"
#: Pixels on the screen that the mouse may move in a click.
_CLICK = 4


class ProofreadingPanel(QWidget):
    """Edits the objects of the active layer of objects, or of the topmost one; hidden where there is none.

    Parameters
    ----------
    session : Session
    parent : QWidget, optional

    Attributes
    ----------
    chosen : tuple of int
        Objects that were clicked at.
    """

    #: A line for the user, and its kind.
    said = Signal(str, str)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.viewer = session.viewer
        self._background = Background(self)
        self._export = Background(self)
        self._opened: WeakKeyDictionary[Labels, Proofreading] = WeakKeyDictionary()
        self._features: WeakKeyDictionary[Labels, ObjectFeatures] = WeakKeyDictionary()
        self.chosen: tuple[int, ...] = ()
        self._strokes: list[npt.NDArray[np.float64]] | None = None  # None while no object is split

        self.label = wrapped_label()
        self.begin_button = push_button("Mend objects", "Edits are kept beside the result", self.begin)
        self.merge_button = push_button("Merge", "Makes the chosen objects one (F6)", self.merge)
        self.split_button = push_button(
            "Split by two strokes", "Draw two strokes on an object; it is cut between them (F7)", self.draw_strokes
        )
        self.split_button.setCheckable(True)
        self.delete_button = push_button("Delete", "Makes the chosen objects background (F8)", self.delete)
        self.undo_button = push_button("Undo", "Undoes the last edit, also of an earlier day (F9)", self.undo)
        self.redo_button = push_button("Redo", "Does again what was undone (Shift+F9)", self.redo)
        self._keys = WindowKeys(
            self,
            {
                "F6": self.merge_button.click,
                "F7": self.split_button.click,
                "F8": self.delete_button.click,
                "F9": self.undo_button.click,
                "Shift+F9": self.redo_button.click,
            },
        )
        self.annotation_button = push_button(
            "Use edits as annotation",
            "Paints the cut of each split, the inside of each merge, and what was deleted into the annotation, "
            "to learn from; what is painted there stays",
            self.use_as_annotation,
        )
        self.export_button = push_button(
            "Write edited objects ...", "A new store with all edits; the result stays as it is", self._on_export
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("<b>Objects</b>"))
        layout.addWidget(self.begin_button)
        layout.addWidget(self.label)
        grid = QGridLayout()
        for place, button in enumerate((self.merge_button, self.delete_button, self.undo_button, self.redo_button)):
            grid.addWidget(button, *divmod(place, 2))
        layout.addWidget(self.split_button)
        layout.addLayout(grid)
        layout.addWidget(self.annotation_button)
        layout.addWidget(self.export_button)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self._on_layers)
        self.viewer.layers.selection.events.active.connect(self._on_layers)
        self.viewer.mouse_drag_callbacks.append(self._on_mouse)
        self._on_layers()

    def release(self) -> None:
        """Let go of the viewer and of the threads."""
        self._keys.release()
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.disconnect(self._on_layers)
        self.viewer.layers.selection.events.active.disconnect(self._on_layers)
        self.viewer.mouse_drag_callbacks.remove(self._on_mouse)
        self._end_strokes()
        self._background.close()
        self._export.close()

    # ------------------------------------------------------------ which objects

    @property
    def layer(self) -> Labels | None:
        """The layer of objects that is edited."""
        layers = [each for each in self.viewer.layers if role(each) == "objects" and _store(each) is not None]
        active = self.viewer.layers.selection.active
        return active if active in layers else layers[-1] if layers else None  # type: ignore[return-value]

    @property
    def objects(self) -> Proofreading | None:
        """The objects of the layer, once they are opened."""
        layer = self.layer
        return None if layer is None else self._opened.get(layer)

    def begin(self) -> None:
        """Open the objects of the layer, which then shows them as they are edited."""
        layer, store = self.layer, None if self.layer is None else _store(self.layer)
        if layer is None or store is None:
            return

        shown = layer.data if layer.multiscale else [layer.data]

        def open_objects() -> tuple[Proofreading, ObjectFeatures]:
            from napari_autosegnet.inference.proofreading.proofreading import Proofreading

            objects = Proofreading(store, self._background.closing.is_set)
            for level, before in zip(objects.levels, shown, strict=False):
                level.look_again(before)
            return objects, ObjectFeatures(objects)

        def show(opened: tuple[Proofreading, ObjectFeatures]) -> None:
            objects, self._features[layer] = opened
            self._opened[layer] = objects
            layer.data = objects.levels if layer.multiscale else objects.levels[0]
            layer.editable = False
            layer.features = self._features[layer].table
            for note in objects.log.notes:
                self._say(note, "error")
            self.choose(())

        self._call(open_objects, show)

    def _on_layers(self, _: object = None) -> None:
        self.setVisible(self.layer is not None)
        self.choose(())

    @property
    def is_busy(self) -> bool:
        """Whether an edit, or an export, is under way."""
        return self._background.is_busy or self._export.is_busy

    def choose(self, chosen: tuple[int, ...]) -> None:
        """Choose objects, as clicks at them do."""
        self.chosen = chosen
        self._show_state()

    def _show_state(self) -> None:
        objects, idle = self.objects, not self._background.is_busy
        self.begin_button.setVisible(objects is None)
        self.begin_button.setEnabled(idle)
        self.label.setVisible(objects is not None or not idle)
        if not idle:
            text = "At work ..."
        elif self._strokes is not None:
            text = f"Draw the {'second' if self._strokes else 'first'} stroke on the object, with the mouse."
        elif self.chosen:
            text = f"Chosen: {', '.join(map(str, self.chosen))}. Shift+click chooses more."
        else:
            text = "Click an object to choose it, Shift+click for more."
        self.label.setText(text)
        for button, possible in (
            (self.merge_button, len(self.chosen) > 1),
            (self.split_button, True),
            (self.delete_button, bool(self.chosen)),
            (self.undo_button, objects is not None and bool(objects.log.done)),
            (self.redo_button, objects is not None and bool(objects.log.undone)),
            (self.annotation_button, objects is not None and bool(objects.log.done)),
            (self.export_button, not self._export.is_busy),
        ):
            button.setVisible(objects is not None)
            button.setEnabled(idle and possible)
        self.split_button.setChecked(self._strokes is not None)

    # ------------------------------------------------------------ edits

    def merge(self) -> None:
        """Merge the chosen objects."""
        self._edit(lambda objects: objects.merge(self.chosen), "Merged into object {}.")

    def delete(self) -> None:
        """Delete the chosen objects."""
        self._edit(lambda objects: objects.delete(self.chosen), "Deleted.")

    def undo(self) -> None:
        """Undo the last edit."""
        self._edit(lambda objects: objects.undo(), "Undone.")

    def redo(self) -> None:
        """Do again what was undone."""
        self._edit(lambda objects: objects.redo(), "Done again.")

    def draw_strokes(self) -> None:
        """Begin to draw strokes, or give it up."""
        layer = self.layer
        if self._strokes is None and layer in self._opened:
            self.viewer.layers.selection.active = layer
            layer.mouse_pan = False  # type: ignore[union-attr]
            self._strokes = []
        else:
            self._end_strokes()
        self._show_state()

    def add_stroke(self, points: npt.NDArray[np.float64]) -> None:
        """Take a stroke, in voxels (n, 2 or 3) of the layer; the second one splits the object."""
        layer = self.layer
        if layer is None or self._strokes is None:
            return
        self._strokes.append(points)
        if len(self._strokes) < 2:
            self._show_strokes(layer)
            self._show_state()
            return
        # A 2D image has one section.
        one, other = (np.pad(each, ((0, 0), (3 - layer.ndim, 0))) for each in self._strokes)
        self._end_strokes()
        self._edit(lambda objects: objects.split(one.tolist(), other.tolist()), "The second part is object {}.")

    def _edit(self, edit: Callable[[Proofreading], object], words: str) -> None:
        layer, objects = self.layer, self.objects
        if layer is None or objects is None:
            return

        features, before = self._features[layer], list(objects.log.done)

        def work() -> object:
            try:
                return edit(objects)
            finally:
                after = objects.log.done  # also edits that were made elsewhere
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
                features.follow([*before[same:], *after[same:]])
                for level in objects.levels:
                    level.look_again()

        def show(result: object) -> None:
            layer.refresh(extent=False)
            layer.features = features.table
            self._say(words.format(result), "good")
            self.choose(())

        def refuse(text: str) -> None:
            layer.refresh(extent=False)  # of edits that were made elsewhere
            layer.features = features.table
            self._refuse(text)

        self._call(work, show, refuse)

    def _call(
        self, work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[str], None] | None = None
    ) -> None:
        self._background.call(work, then, failed or self._refuse)
        self._show_state()

    def _refuse(self, text: str) -> None:
        self._say(text, "error")
        self._show_state()

    def _say(self, text: str, kind: str) -> None:
        self.said.emit(text, kind)

    # ------------------------------------------------------------ annotation

    def use_as_annotation(self) -> None:
        """Paint what the edits say into the annotation of the image, where nothing is painted; one step to undo."""
        layer, objects = self.layer, self.objects
        if layer is None or objects is None:
            return

        def look() -> tuple[EditAnnotation, tuple[LabelClass, ...]]:
            from napari_autosegnet.inference.proofreading.annotation import annotation_of_edits

            found = annotation_of_edits(objects, self._background.closing.is_set)
            return found, stored_classes(OmeGroup.read(objects.store / LABELS))

        def paint(looked: tuple[EditAnnotation, tuple[LabelClass, ...]]) -> None:
            try:
                name, count = paint_edits(self.session, layer, *looked)
            except UserError as error:
                self._say(str(error), "error")
            else:
                said = " ".join(map(sentence, looked[0].notes))
                undo = f" Ctrl+Z on '{name}' takes them back." if count else ""
                self._say(f"{count:,} voxels of edits are annotation now.{undo} {said}".strip(), "good")
            self._show_state()

        self._call(look, paint)

    # ------------------------------------------------------------ the mouse

    def _on_mouse(self, _: Any, event: Any) -> Iterator[None]:
        """A click chooses an object, or a drag is a stroke."""
        layer = self.layer
        if layer is None or self.objects is None or not self.isVisible() or event.button != 1:
            return
        start, points = np.array(event.pos), [data_in_view(self.viewer, layer, event.position)]
        moved = 0.0
        yield
        while event.type == "mouse_move":
            points.append(data_in_view(self.viewer, layer, event.position))
            moved = max(moved, float(np.abs(np.array(event.pos) - start).max()))
            yield
        if self._strokes is not None:
            self.add_stroke(np.array(points))
        elif moved < _CLICK:
            value = layer.get_value(
                event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True
            )
            number = int((value[1] if isinstance(value, tuple) else value) or 0)
            kept = self.chosen if "Shift" in event.modifiers else ()
            self.choose(tuple(dict.fromkeys((*kept, number))) if number else kept)

    def _show_strokes(self, layer: Labels) -> None:
        """Show the first stroke, as points: a layer of shapes would take napari seconds."""
        points = np.concatenate(self._strokes or [np.zeros((0, layer.ndim))])
        strokes = self._stroke_layer
        if strokes is not None and strokes.ndim == layer.ndim:
            strokes.data = points
            return
        place = {name: getattr(layer, name) for name in ("scale", "translate", "rotate", "shear", "affine", "units")}
        about = {METADATA: {"role": "strokes"}}
        self.viewer.add_points(points, size=2, face_color="#f0e442", name=_STROKES, metadata=about, **place)
        self.viewer.layers.selection.active = layer

    @property
    def _stroke_layer(self) -> Points | None:
        return next((each for each in self.viewer.layers if role(each) == "strokes"), None)  # type: ignore[return-value]

    def _end_strokes(self) -> None:
        self._strokes = None
        if self.layer is not None:
            self.layer.mouse_pan = True
        if self._stroke_layer is not None:
            self._stroke_layer.data = np.zeros((0, self._stroke_layer.ndim))

    # ------------------------------------------------------------ a store of their own

    def _on_export(self) -> None:
        objects = self.objects
        if objects is None:
            return
        proposal = objects.store.with_name(f"{objects.store.name.removesuffix('.zarr')}-edited.zarr")
        out, _ = QFileDialog.getSaveFileName(self, "Write edited objects", str(proposal), "Zarr (*.zarr)")
        if out:
            self.export(Path(out))

    def export(self, out: Path) -> None:
        """Write the edited objects into a new store, in a thread; editing can go on, and counts for the next one."""
        objects = self.objects
        if objects is None:
            return

        def done(written: Path) -> None:
            self._say(f"The edited objects lie in {written}.", "good")
            self._show_state()

        self._export.call(partial(_export, objects.store, out, self._export.closing.is_set), done, self._refuse)
        self._say("The edited objects are being written ...", "info")
        self._show_state()


def _export(store: Path, out: Path, should_stop: Callable[[], bool]) -> Path:
    from napari_autosegnet.api import export_objects

    return export_objects(store, out, should_stop=should_stop)


def _store(layer: Any) -> Path | None:
    """The store that the objects of a layer lie in; None where they lie nowhere."""
    array = full_resolution(layer)
    folder = folder_of(getattr(array, "array", array))
    if folder is None or folder.parent.parts[-2:] != tuple(INSTANCES.split("/")):
        return None
    return folder.parents[2]
