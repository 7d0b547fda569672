"""The part of the last step that segments the slice in view, and goes to where the model is least sure."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Report
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.settings import GrayValuesChoice
from napari_autosegnet.widgets.apply import uncertainty
from napari_autosegnet.widgets.apply.corrections import Corrections
from napari_autosegnet.widgets.apply.results import has_probabilities, model_of, probabilities_of
from napari_autosegnet.widgets.apply.section_model import ModelSummary, SectionModel, SectionResult
from napari_autosegnet.widgets.apply.slice_progress import SliceProgress
from napari_autosegnet.widgets.apply.volume_job import VolumeJob
from napari_autosegnet.widgets.forms.buttons import emphasized, push_button
from napari_autosegnet.widgets.forms.window_keys import WindowKeys
from napari_autosegnet.widgets.layers import section_layers
from napari_autosegnet.widgets.layers.layer_arrays import depth, stack_around
from napari_autosegnet.widgets.layers.view import section_in_view, shows_sections
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image


class SlicePanel(QWidget):
    """Segments one slice in a thread, and shows the least certain places one after the other.

    Parameters
    ----------
    session : Session
    volume : VolumeJob
        Whose latest result may hold probabilities of a whole stack.
    corrections : Corrections
        What was painted on earlier results of the slice.

    Attributes
    ----------
    places : WeakKeyDictionary
        By image: the places that were shown.
    """

    #: A line for the user, and its kind.
    said = Signal(str, str)
    #: A slice is begun, done or cancelled.
    changed = Signal()

    def __init__(self, session: Session, volume: VolumeJob, corrections: Corrections) -> None:
        super().__init__()
        self._session = session
        self._volume = volume
        self._corrections = corrections
        self._model: ModelSummary | None = None
        self.section_model = SectionModel()
        self.places: weakref.WeakKeyDictionary[Image, uncertainty.ShownPlaces] = weakref.WeakKeyDictionary()

        self.slice_button = emphasized(
            push_button(
                "Segment the slice in view",
                "In a layer of its own, over the image that is selected, or the topmost one",
                self.segment,
            )
        )
        self.unsure_box = QCheckBox("Show where the model is unsure")
        self.unsure_box.setChecked(True)
        self.unsure_box.setToolTip("Adds a layer: the brighter a place, the less sure the model is")
        self.as_is_box = QCheckBox("Take its gray values as they are")
        self.as_is_box.setToolTip("Also where they are unlike those of the images that the model was trained on")
        self.as_is_box.setVisible(False)
        self.progress = SliceProgress()
        self.progress.cancelled.connect(self._on_cancelled)
        self.place_button = push_button(
            "Go to the least certain place",
            "Painting the right classes there teaches the network most. Press again, or F3, for the next place",
            self.go_to_least_certain,
        )
        self.back_button = push_button("Previous", "Back to the place that was shown before (Shift+F3)", self.go_back)
        places = QHBoxLayout()
        places.addWidget(self.place_button, 1)
        places.addWidget(self.back_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.slice_button, self.progress, self.unsure_box, self.as_is_box):
            layout.addWidget(widget)
        layout.addLayout(places)
        # Keys that napari has no use for.
        self._keys = WindowKeys(self, {"F3": self.place_button.click, "Shift+F3": self.back_button.click})

    def release(self) -> None:
        """Let go of napari's window and of the thread."""
        self._keys.release()
        self.progress.release()

    def show_state(self, model: ModelSummary | None) -> None:
        """Offer what can be done with a model and the image in view."""
        self._model = model
        image = self._session.layers.image_in_view()
        ready = model is not None and not self.progress.is_under_way and image is not None
        shown = None if image is None else self.places.get(image)
        self.slice_button.setEnabled(ready)
        self.place_button.setEnabled(ready)
        self.place_button.setText("Next uncertain place" if shown else "Go to the least certain place")
        self.back_button.setEnabled(ready and shown is not None and shown.has_previous)

    def compare_gray_values_again(self) -> None:
        """What was insisted on for one model need not hold for another."""
        self.as_is_box.setChecked(False)
        self.as_is_box.setVisible(False)

    def _say(self, text: str, kind: str = "info") -> None:
        self.said.emit(text, kind)

    # ------------------------------------------------------------ the slice

    def segment(self) -> None:
        """Segment the slice in view, in a thread."""
        wanted = self._wanted_slice()
        if wanted is None:
            return
        image, section = wanted

        def show(result: SectionResult) -> None:
            uncertainty.stop_looking(self._session.viewer, image)
            self._show_slice(image, section, result)

        self._compute(image, section, show)

    def _wanted_slice(self) -> tuple[Image, int] | None:
        image = self._session.layers.image_in_view()
        section = None if image is None else section_in_view(self._session.viewer, image)
        if self._model is None or image is None:
            self._say("Open an image first.", "error")
            return None
        if not shows_sections(self._session.viewer):
            self._say("Turn the view so that y and x are shown, in 2D; sections are segmented as they lie.", "error")
            return None
        if section is None:
            self._say(f"The slider is outside of '{image.name}'; move it to a section of the image.", "error")
            return None
        return image, section

    def _compute(self, image: Image, section: int, then: Any) -> None:
        if self._model is None or self.progress.is_under_way:
            return
        path, device = self._model.path, self._session.device
        gray_values: GrayValuesChoice = "as-is" if self.as_is_box.isChecked() else "checked"
        self._say("Segmenting the slice ...")

        def work(report: Report, should_stop: ShouldStop) -> SectionResult | UserError | None:
            from napari_autosegnet.inference.compute.gray_check import GrayValuesError

            try:
                stack, number = stack_around(image, section)
                return self.section_model.predict(path, stack, number, device, gray_values, report, should_stop)
            except GrayValuesError as error:
                return error

        def take(result: SectionResult | UserError | None) -> None:
            self._say("")
            if isinstance(result, UserError):
                self.as_is_box.setVisible(True)
                self._say(str(result), "error")
            elif result is not None and image in self._session.viewer.layers:
                if result.notes:
                    self._say("; ".join(result.notes))
                then(result)
            self.changed.emit()

        self.progress.call(work, take, self._refuse)
        self.changed.emit()

    def _refuse(self, text: str) -> None:
        self._say(text, "error")
        self.changed.emit()

    def _on_cancelled(self) -> None:
        self._say("Cancelled; the layers are as they were.")
        self.changed.emit()

    def _show_slice(self, image: Image, section: int, result: SectionResult) -> None:
        viewer = self._session.viewer
        with section_layers.kept_active(viewer):
            shown: list[Any] = [
                section_layers.show_slice(viewer, image, section, result.labels, result.classes, result.model)
            ]
            if self.unsure_box.isChecked():
                shown.append(section_layers.show_uncertainty(viewer, image, section, result.uncertainty))
        self._corrections.put_back(shown[0], section)
        hiding = self._session.annotation.order.put(*shown)
        if hiding is not None:
            self._say(f"'{hiding.name}' covers the result, because you paint in it. Hide it to see what lies beneath.")

    # ------------------------------------------------------------ the least certain place

    def go_to_least_certain(self) -> None:
        """Move to where painting teaches most: in the stack if probabilities were written, else in the slice.

        After *Previous*, the places that were shown come first.
        """
        wanted = self._wanted_slice()
        if wanted is None:
            return
        image, section = wanted
        shown = self.places.setdefault(image, uncertainty.ShownPlaces())
        known = shown.following()
        if known is not None:
            self._go(image, known)
            return
        out = self._store_with_probabilities(image)
        if out is None:
            self._look_in_slice(image, section)
        else:
            self._look_in_stack(image, section, out)

    def _look_in_slice(self, image: Image, section: int) -> None:
        """Segment a slice, and go to its least certain place."""
        annotated, shown = uncertainty.annotation_reader(self._session, image), self.places[image]

        def look(result: SectionResult) -> None:
            self._show_slice(image, section, result)
            self._session.background.call(
                lambda: uncertainty.least_certain(result.uncertainty, section, annotated(section), shown.visited),
                lambda place: self._go_to_new(image, place),
                self._refuse,
            )

        self._compute(image, section, look)

    def _look_in_stack(self, image: Image, section: int, out: Path) -> None:
        """Go to the least certain place of a result; of the slice where the model was trained on since."""
        assert self._model is not None
        annotated, shown, model = (
            uncertainty.annotation_reader(self._session, image),
            self.places[image],
            self._model.path,
        )
        first, sections = self._volume.time_point * depth(image), depth(image)

        def search(report: Report, should_stop: ShouldStop) -> tuple[bool, uncertainty.Place | None]:
            """Whether the result is the model's, and its place."""
            read = _uncertainty_of(out, model)
            if read is None:
                return False, None
            place = uncertainty.least_certain_of_volume(
                read,
                lambda section: annotated(first + section),
                sections,
                [(section - first, y, x) for section, y, x in shown.visited],
                report,
                should_stop,
            )
            return True, None if place is None else replace(place, section=first + place.section)

        def go(answer: tuple[bool, uncertainty.Place | None]) -> None:
            is_of_model, place = answer
            if is_of_model:
                self._go_to_new(image, place)
            else:
                self._look_in_slice(image, section)

        self._say("Looking for the least certain place ...")
        self.progress.call(search, go, self._refuse)
        self.changed.emit()

    def go_back(self) -> None:
        """Move to the place that was shown before."""
        image = self._session.layers.image_in_view()
        place = None if image is None or image not in self.places else self.places[image].previous()
        if image is not None and place is not None:
            self._go(image, place)

    def _store_with_probabilities(self, image: Image) -> Path | None:
        """Store of the latest result of an image, if its probabilities were written."""
        layer, out = self._volume.layer, self._volume.out
        if layer is None or out is None or section_layers.image_behind(self._session.viewer, layer) is not image:
            return None
        return out if has_probabilities(out) else None

    def _go_to_new(self, image: Image, place: uncertainty.Place | None) -> None:
        if place is None:
            self._say("Every uncertain place here is annotated or was shown; go to another section.", "info")
            self.changed.emit()
            return
        self.places[image].add(place)
        self._go(image, place)

    def _go(self, image: Image, place: uncertainty.Place) -> None:
        uncertainty.go_to(self._session.viewer, image, place)
        if self.take_brush(image):
            name = self._session.viewer.layers.selection.active.name
            self._say(
                f"In the frame the model is least sure. Paint the right classes there, in '{name}': "
                "you have its brush. F3: next place, Shift+F3: the one before."
            )
        self.changed.emit()

    def take_brush(self, image: Image) -> bool:
        """Take the brush for the annotation of an image; whether that can be done, or a line says why not."""
        try:
            self._session.annotation.take_brush(image)
        except UserError as error:
            self._say(str(error), "error")
            return False
        return True


def _uncertainty_of(out: Path, model: Path) -> Any:
    """Reads the uncertainty of a section of a result; None when another model made it. Call it in a thread."""
    from napari_autosegnet.figures import normalized_entropy
    from napari_autosegnet.model import Model

    probabilities = probabilities_of(out)
    if probabilities is None or model_of(out) != Model.load(model).fingerprint:
        return None
    return lambda section: normalized_entropy(probabilities(section))
