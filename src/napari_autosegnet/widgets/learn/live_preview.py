"""What the network in training makes of the slice in view, and where it is unsure: layers that follow the epochs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from qtpy.QtCore import QObject
from superqt.utils import qdebounced

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, PreviewDrawn
from napari_autosegnet.jobs.preview import predicted_slice, preview_file, write_slice
from napari_autosegnet.widgets.apply.uncertainty import Place, ShownPlaces, annotation_reader, go_to, least_certain
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.layers import section_layers
from napari_autosegnet.widgets.layers.layer_arrays import stack_around
from napari_autosegnet.widgets.layers.view import Slice, shows_sections, slice_in_view
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_autosegnet.data.gray_values import SectionGray

#: Largest side in pixels: of larger slices the part around the middle of the view is taken.
MAX_SIDE = 1024
_NAME, _UNSURE_NAME = "training preview", "training uncertainty"
_WAIT = 400  # milliseconds after the view has come to rest
_MAX_GIVEN = 16


class LivePreview(QObject):
    """Gives the worker the slice in view, and shows what comes back.

    Parameters
    ----------
    session : Session
    client : RunClient
        Of the training.
    parent : QObject, optional
    """

    def __init__(self, session: Session, client: RunClient, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._client = client
        #: The slices that the worker was given, by when their file was written: an answer names that.
        self._given: dict[int, Slice] = {}
        #: Counts how often they were forgotten: one that is on the way to the worker then is of no use, either.
        self._times_forgotten = 0
        #: The least certain places that were shown.
        self._uncertain_places: weakref.WeakKeyDictionary[Image, ShownPlaces] = weakref.WeakKeyDictionary()
        self._layer: Labels | None = None
        self._unsure: Image | None = None
        #: The last result that was shown: where it lies, and its uncertainty.
        self._last_shown: tuple[Slice, npt.NDArray[np.float32]] | None = None
        self._enabled = True
        self._is_aside = False
        self._offer_soon = qdebounced(self._offer_slice, timeout=_WAIT)
        client.reported.connect(self._take)
        client.state_changed.connect(self._on_state)
        session.viewer.dims.events.current_step.connect(self._on_view)
        session.viewer.layers.selection.events.active.connect(self._on_view)
        session.viewer.scene.camera.events.center.connect(self._on_view)
        session.viewer.layers.events.removed.connect(self._on_removed)

    def close(self) -> None:
        """Let go of the viewer."""
        self._offer_soon.cancel()
        self._session.viewer.dims.events.current_step.disconnect(self._on_view)
        self._session.viewer.layers.selection.events.active.disconnect(self._on_view)
        self._session.viewer.scene.camera.events.center.disconnect(self._on_view)
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)

    @property
    def layer(self) -> Labels | None:
        """The layer that is shown; None when there is none, or the user removed it."""
        if self._layer is not None and self._layer not in self._session.viewer.layers:
            self._layer = None
        return self._layer

    @property
    def uncertainty(self) -> Image | None:
        """The layer of the uncertainty, hidden at first; None when there is none, or the user removed it."""
        if self._unsure is not None and self._unsure not in self._session.viewer.layers:
            self._unsure = None
        return self._unsure

    def set_enabled(self, enabled: bool) -> None:
        """Ask for previews, or leave the worker to its training."""
        self._enabled = enabled
        if not enabled:
            self._forget_given()
            self._remove_layers()
            if self._client.active:
                source = preview_file(self._client.run, "input")
                self._session.background.call(lambda: source.unlink(missing_ok=True), _nothing)
        else:
            self._on_view()

    def step_aside(self) -> None:
        """Hide what a network made that has learned; what one makes while it learns stays in view."""
        if self.layer is not None and self.layer.visible and not self._client.active:
            self.layer.visible, self._is_aside = False, True

    def come_back(self) -> None:
        """Show what has stepped aside."""
        if self.layer is not None and self._is_aside:
            self.layer.visible = True
        self._is_aside = False

    def _remove_layers(self) -> None:
        for layer in (self.layer, self.uncertainty):
            if layer is not None:
                self._session.viewer.layers.remove(layer)

    def _on_removed(self, event: Any) -> None:
        """Hide what lies on an image that was closed; napari may be about to close that, too, so it is not removed."""
        for layer in (self.layer, self.uncertainty):
            if layer is not None and section_layers.image_behind(self._session.viewer, layer) is None:
                layer.visible = self._is_aside = False

    def _on_state(self, state: str) -> None:
        if state == "starting":
            self._forget_given()
        if self._client.active:
            self._on_view()

    def _forget_given(self) -> None:
        """What was given to the worker is of no use any more, and what is on the way to it neither."""
        self._given.clear()
        self._times_forgotten += 1

    def _on_view(self, event: Any = None) -> None:
        if self._enabled and self._is_learning:
            self._offer_soon()

    @property
    def _is_learning(self) -> bool:
        """Whether somebody trains who has something to show; a search has not."""
        return self._client.active and self._client.job_step != "search"

    def show_network(self, folder: Path, refuse: Callable[[str], None]) -> None:
        """Show what the model in a folder makes of the slice in view; it is computed here, in a thread."""
        in_view = self._in_view()
        if in_view is None:
            return
        device, closing = self._session.device, self._session.background.closing

        def compute() -> tuple[Any, ...] | None:
            from napari_autosegnet.model import Model

            model = Model.load(folder)
            pixels, gray = _read_slice(in_view)
            predicted = predicted_slice(model, pixels, gray, device, closing.is_set)
            return None if predicted is None else (*predicted, in_view, model.classes)

        def show(computed: tuple[Any, ...] | None) -> None:
            if computed is not None:
                self._show(*computed)

        self._session.background.call(compute, show, refuse)

    def _in_view(self) -> Slice | None:
        """The part of the slice that is looked at; None where none is shown as it lies."""
        viewer = self._session.viewer
        return slice_in_view(viewer, self._session.layers.image_in_view(), MAX_SIDE) if shows_sections(viewer) else None

    def _offer_slice(self) -> None:
        where = self._in_view()
        if where is None or not self._is_learning or not self._enabled:
            return
        if next(reversed(self._given.values()), None) == where:
            return
        run, times_forgotten = self._client.run, self._times_forgotten

        def write() -> int:
            return write_slice(run, *_read_slice(where))

        def remember(modified: int) -> None:
            if times_forgotten == self._times_forgotten:
                self._given[modified] = where
                while len(self._given) > _MAX_GIVEN:
                    del self._given[next(iter(self._given))]

        self._session.background.call(write, remember, _nothing)

    def _take(self, event: Event) -> None:
        if not isinstance(event, PreviewDrawn) or not self._enabled:
            return
        where = self._given.get(event.input)
        if where is None:
            return
        run = self._client.run
        classes = _classes_of(event)

        def read() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return _read(preview_file(run, "labels")), _read(preview_file(run, "uncertainty"))

        self._session.background.call(read, lambda loaded: self._show(loaded[0], loaded[1], where, classes), _nothing)

    def _show(
        self,
        labels: npt.NDArray[np.uint8],
        uncertainty: npt.NDArray[np.float32],
        where: Slice,
        classes: tuple[ClassInfo, ...] = (),
    ) -> None:
        viewer, image = self._session.viewer, where.image
        if image not in viewer.layers or not self._enabled:
            return
        self._last_shown = where, uncertainty
        if self.layer is not None and section_layers.image_behind(viewer, self.layer) is not image:
            self._remove_layers()  # nobody updates what lies on an image that is no longer looked at
        with section_layers.kept_active(viewer):
            self._unsure = section_layers.show_uncertainty(
                viewer, image, where.section, uncertainty, _UNSURE_NAME, where.origin, visible=False
            )
            self._layer = section_layers.show_labels(
                viewer, image, where.section, labels, classes or self._session.annotation.classes, _NAME, where.origin
            )
        self._session.annotation.order.put(self._layer, self._unsure)

    def go_to_least_certain(self, refuse: Callable[[str], None]) -> None:
        """Move to the place of the slice that was shown last where painting teaches most, with the brush in hand."""
        if self._last_shown is None or self._last_shown[0].image not in self._session.viewer.layers:
            refuse("There is no result of the slice in view yet; it comes in a moment.")
            return
        (where, unsure), session, image = self._last_shown, self._session, self._last_shown[0].image
        shown = self._uncertain_places.setdefault(image, ShownPlaces())
        annotated = annotation_reader(session, image)

        def look() -> Place | None:
            return least_certain(unsure, where.section, annotated(where.section), shown.visited, where.origin)

        def go(found: Place | None) -> None:
            if found is None:
                refuse("Every uncertain place here is annotated or was shown; go to another section.")
                return
            shown.add(found)
            go_to(session.viewer, image, found)
            try:
                session.annotation.take_brush(image)
            except UserError as error:
                refuse(str(error))

        session.background.call(look, go, refuse)


def _classes_of(event: PreviewDrawn) -> tuple[ClassInfo, ...]:
    """Classes of the model in training, which the session need not know; empty where they are damaged."""
    try:
        return tuple(ClassInfo.model_validate(each) for each in event.classes)
    except ValidationError:
        return ()


def _read_slice(where: Slice) -> tuple[npt.NDArray[Any], SectionGray]:
    """Pixels (c, y, x) of a part of a slice, and the gray values of all of it."""
    from napari_autosegnet.inference.compute.survey import ImageSurvey

    stack, number = stack_around(where.image, where.section)
    (gray,) = ImageSurvey(stack).look([number])
    return stack.read(slice(number, number + 1), where.rows, where.columns)[:, 0], gray


def _read(source: Path) -> npt.NDArray[Any]:
    try:
        labels: npt.NDArray[Any] = np.load(source, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {source}: {error}") from error
    return labels


def _nothing(result: Any) -> None:
    """A preview that does not come is not worth a message."""
