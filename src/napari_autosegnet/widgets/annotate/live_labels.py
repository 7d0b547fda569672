"""Labels of the slice in view while somebody paints, by a forest that is fitted anew after every stroke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt.utils import qdebounced

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.errors import UserError
from napari_autosegnet.processes import available_cores
from napari_autosegnet.widgets.forms.background import Background, in_words
from napari_autosegnet.widgets.forms.message_line import MessageLine, sentence
from napari_autosegnet.widgets.layers import section_layers
from napari_autosegnet.widgets.layers.axes import axes_of, full_resolution, is_rgb
from napari_autosegnet.widgets.layers.layer_arrays import channel_count, depth, spatial_shape, stack_around
from napari_autosegnet.widgets.layers.view import Slice, shows_sections, slice_in_view
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.layers import Image, Labels

    from napari_autosegnet.pixel_classifier.live import LabeledView, LiveClassifier, View

NAME = "Live labels"
#: Pixels (of all channels) up to which a slice is labeled as a whole; of larger ones a square around the middle.
MAX_PIXELS = 2**22
_OPACITY = 0.4
#: Milliseconds after the last of several changes.
_WAIT = 30


class LiveLabels(QWidget):
    """A box to switch them off, and a line on what is missing or went wrong.

    Labels are computed in a thread while this is in sight. Of several changes meanwhile only the last one counts.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    layer : Labels or None
        Shows them.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._background = Background(self)
        self._classifier: LiveClassifier | None = None
        self._known = self._what_is_known()
        #: What is shown, or under way.
        self._place: Slice | None = None
        #: Labels are computed.
        self.is_busy = False
        self._wanted_again = False
        #: Not by the user.
        self._is_hidden = False
        self.layer: Labels | None = None
        self.box = QCheckBox("Live labels")
        self.box.setChecked(True)
        self.box.setToolTip(
            "Once two classes have a stroke, the slice in view is labeled, and again after every stroke; "
            "a preview, which is not annotation and is not saved"
        )
        self.box.toggled.connect(self._on_toggled)
        self.line = MessageLine()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        layout.addWidget(self.line)

        self._ask_soon = qdebounced(self._ask, timeout=_WAIT)
        self._look_soon = qdebounced(self._look, timeout=_WAIT)
        session.annotation.counts_changed.connect(self._ask_soon)
        session.annotation.classes_changed.connect(self._ask_soon)
        session.annotation.pairs_changed.connect(self._on_pairs)
        viewer = session.viewer
        self._view_events = (
            viewer.dims.events.current_step,
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
            viewer.scene.camera.events.center,
            viewer.layers.selection.events.active,
        )
        for event in self._view_events:
            event.connect(self._on_view)
        viewer.layers.events.removed.connect(self._on_removed)

    def release(self) -> None:
        """Let go of the viewer and of the thread."""
        self._ask_soon.cancel()
        self._look_soon.cancel()
        for event in self._view_events:
            event.disconnect(self._on_view)
        self.session.viewer.layers.events.removed.disconnect(self._on_removed)
        self._background.close()
        self._remove_layer()

    # ------------------------------------------------------------ when

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """Begin, or continue."""
        super().showEvent(event)
        if self._classifier is None:
            # Importing scikit-learn takes longer than labeling: not only when the first stroke is there.
            self._background.call(_import, self._begin, self._refuse)
        self._ask_soon()

    def hideEvent(self, event: QHideEvent | None) -> None:  # noqa: N802
        """Leave the layers to the step that is shown instead."""
        super().hideEvent(event)
        if event is not None and not event.spontaneous():
            self._hide_layer()

    def _on_toggled(self, checked: bool) -> None:
        self.line.clear()
        if checked:
            self._ask_soon()
        else:
            self._remove_layer()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = None
            self.box.setChecked(False)

    def _on_pairs(self) -> None:
        # Also told when the layer of the labels is added.
        if self._what_is_known() != self._known:
            self._known = self._what_is_known()
            self._ask_soon()

    def _what_is_known(self) -> tuple[Any, ...]:
        return self.session.annotation.pairs(), self.session.layers.displacement()

    def _on_view(self, event: Any = None) -> None:
        self._look_soon()

    def _look(self) -> None:
        if self._place_in_view() != self._place:
            self._place = None  # ends what is under way
            self._ask()

    # ------------------------------------------------------------ what is asked for

    @property
    def _is_wanted(self) -> bool:
        return self.box.isChecked() and self.isVisible()

    def _begin(self, classifier: LiveClassifier) -> None:
        self._classifier = classifier
        self._ask_soon()

    def _ask(self) -> None:
        """Label the slice in view, now or as soon as what is under way is done."""
        if self.is_busy:
            self._wanted_again = True
            return
        if not self._is_wanted or self.session.annotation.is_counting:
            return  # asked again when that changes
        place = self._place = self._place_in_view()
        if place is None:
            self._hide_layer()  # the image was closed, or the slider is beyond it
            return
        missing = self._missing(place)
        if missing is not None:
            self._hide_layer()
            self.line.say(missing)
            return
        if self._classifier is None:
            return  # it is being loaded
        view, stacks = _view(place), self.session.labeled_images.stacks()
        annotated = [(_key(each.image, each.time), stack) for each, stack in stacks]
        classifier, classes = self._classifier, self.session.annotation.classes
        self.is_busy = True

        def work() -> LabeledView | None:
            try:
                return classifier.label(view, annotated, should_stop=lambda: self._place is not place)
            except UserError:
                raise
            except Exception as error:
                # They come back with the next stroke; whoever paints is not to be stopped by a window.
                raise UserError(in_words(error)) from error

        self._background.call(work, lambda labeled: self._take(labeled, place, classes), self._refuse)

    def _take(self, view: LabeledView | None, place: Slice, classes: tuple[ClassInfo, ...]) -> None:
        if self._place is place and view is not None and self._is_wanted:
            self._show(view, place, classes)
        self._finish(again=view is not None and not view.complete)

    def _refuse(self, text: str) -> None:
        self._hide_layer()
        self.line.say(sentence(f"no live labels: {text}"), "error")
        self._finish()

    def _finish(self, again: bool = False) -> None:
        self.is_busy = False
        if self._wanted_again or again:
            self._wanted_again = False
            self._ask()

    def _place_in_view(self) -> Slice | None:
        image = self.session.layers.image_in_view()
        if image is None:
            return None
        height, width = spatial_shape(image)[-2:]
        pixels = MAX_PIXELS // channel_count(image)
        side = max(height, width) if height * width <= pixels else int(pixels**0.5)
        # In steps, so that moving about does not begin anew with every pixel.
        return slice_in_view(self.session.viewer, image, side, max(1, side // 4))

    def _missing(self, place: Slice) -> str | None:
        """What has to be done before there can be labels; empty where the step asks for it already."""
        session = self.session
        if not session.annotation.pairs() or session.labeled_images.numbered_objects() is not None:
            return ""
        if session.layers.displacement() is not None:
            return ""
        if sum(session.annotation.pixels_of(each.value) > 0 for each in session.annotation.label_classes) < 2:
            return "Paint a stroke of two classes, and the slice in view is labeled."
        if not shows_sections(session.viewer):
            return "Live labels need a view of y and x, in 2D; turn it back to see them."
        if any(channel_count(pair.image) != channel_count(place.image) for pair in session.annotation.pairs()):
            return f"'{place.image.name}' has other channels than the annotated images; select one of those."
        return None

    # ------------------------------------------------------------ what is shown

    def _show(self, view: LabeledView, place: Slice, classes: tuple[ClassInfo, ...]) -> None:
        viewer = self.session.viewer
        if place.image not in viewer.layers:
            return
        if self.layer is not None and section_layers.image_behind(viewer, self.layer) is not place.image:
            self._remove_layer()
            self._place = place
        active = viewer.layers.selection.active
        layer = section_layers.show_labels(viewer, place.image, place.section, view.labels, classes, NAME, place.origin)
        if layer is not self.layer:
            self.layer = layer
            layer.opacity = _OPACITY
            # Strokes, and what a model made, lie above it.
            viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(place.image) + 1)
            viewer.layers.selection.active = active
        if self._is_hidden:
            layer.visible, self._is_hidden = True, False
        height, width = spatial_shape(place.image)[-2:]
        rows, columns = place.rows, place.columns
        self.line.say(
            ""
            if place.is_whole
            else f"The slice is large: labeled are rows {rows.start} to {rows.stop} of {height} and columns "
            f"{columns.start} to {columns.stop} of {width}, around the middle of the view, at full resolution."
        )

    def _hide_layer(self) -> None:
        """What napari takes long for is to add a layer, so it is kept where it may soon be of use again."""
        self._place = None
        if self.layer is not None and self.layer.visible:
            self.layer.visible, self._is_hidden = False, True

    def _remove_layer(self) -> None:
        layer, self.layer, self._place, self._is_hidden = self.layer, None, None, False
        if layer is not None and layer in self.session.viewer.layers:
            self.session.viewer.layers.remove(layer)


def _import() -> LiveClassifier:
    """Load everything that labeling takes."""
    from sklearn.ensemble import RandomForestClassifier

    from napari_autosegnet.pixel_classifier.live import LiveClassifier

    RandomForestClassifier(1).fit([[0.0], [1.0]], [0, 1])
    return LiveClassifier(available_cores())


def _view(place: Slice) -> View:
    from napari_autosegnet.pixel_classifier.live import View

    image, section = stack_around(place.image, place.section)
    key = _key(place.image, place.section // depth(place.image))
    y, x = ((span.start, span.stop) for span in (place.rows, place.columns))
    return View(key, image, section, y, x)


def _key(image: Image, time: int) -> Hashable:
    """Equal as long as the layer has these pixels; whoever keeps it holds the array."""
    return id(full_resolution(image)), axes_of(image), is_rgb(image), time
