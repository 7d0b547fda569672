"""A model applied to a whole layer or store by a worker, its result a layer that fills in as blocks finish."""

from __future__ import annotations

import time
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from superqt.utils import qthrottled

from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, BlockWritten, Event
from napari_autosegnet.inference.output.file_kinds import file_kind
from napari_autosegnet.jobs.job_file import read_job
from napari_autosegnet.jobs.predict import PredictJob
from napari_autosegnet.ome_zarr.paths import INSTANCES
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.annotation.annotation_export import file_name, write_image_layer
from napari_autosegnet.widgets.apply.corrections import can_be_corrected
from napari_autosegnet.widgets.apply.results import objects_layer_of, result_layer_of
from napari_autosegnet.widgets.files.readers import image_layer
from napari_autosegnet.widgets.jobs.run_client import RunClient
from napari_autosegnet.widgets.layers.axes import axes_of
from napari_autosegnet.widgets.layers.layer_arrays import place_on, spatial_shape, time_points
from napari_autosegnet.widgets.layers.layer_files import file_of
from napari_autosegnet.widgets.layers.notes import METADATA
from napari_autosegnet.widgets.layers.section_layers import kept_active, source_notes
from napari_autosegnet.widgets.layers.time_point import AtTimePoint
from napari_autosegnet.widgets.session import Session

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_autosegnet.widgets.apply.apply_dialog import Chosen

_REFRESH = 300  # milliseconds between two looks at the store
#: Drawing the layer anew takes at most this fraction of the time.
_SHARE = 0.1


class VolumeJob(QObject):
    """Starts a worker, follows it, and shows what it writes.

    Parameters
    ----------
    session : Session
    parent : QObject, optional

    Attributes
    ----------
    client : RunClient
        Of the worker.
    time_point : int
        Of the layer that is segmented.
    """

    #: Something went wrong: one line.
    failed = Signal(str)
    #: The result layer was added.
    shown = Signal(object)
    #: The whole result is there: its store.
    done = Signal(object)
    #: A worker is going to write into the result layer.
    written = Signal(object)
    #: Nobody else writes into the result layer any more.
    settled = Signal(object)

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.client = RunClient(step="predict", parent=self)
        self.client.reported.connect(self._take)
        self.client.state_changed.connect(self._on_state)
        #: What is segmented: a layer, or a file and what of it is read.
        self._image: Image | None = None
        self._file: tuple[Path, Selection] | None = None
        #: Store of the latest result.
        self.out: Path | None = None
        self._model = Path()
        self._layer: Labels | None = None
        self._opening = False
        self.time_point = 0
        self._started_here: Path | None = None
        self._refresh_soon = qthrottled(self._refresh, timeout=_REFRESH, leading=False)

    def release(self) -> None:
        """Stop following; the worker continues."""
        self._refresh_soon.cancel()
        self.client.close()

    @property
    def layer(self) -> Labels | None:
        """The result, while it is in the viewer."""
        if self._layer is not None and self._layer not in self._session.viewer.layers:
            self._layer = None
        return self._layer

    def start(self, model: Path, chosen: Chosen) -> None:
        """Apply a model to a layer or a file.

        Parameters
        ----------
        chosen : Chosen
            A layer that no file holds is written into the job's folder first. The result lies there, too, where no
            other store is given. Cubes lie beside the result.

        Raises
        ------
        UserError
            When a job is under way.
        """
        if self.client.active:
            raise UserError("a segmentation is under way; wait, or cancel it first")
        source = chosen.source
        name = source.stem if isinstance(source, Path) else source.name
        run = Run.create(self._session.new_run_folder(f"apply-{file_name(name)}"))
        target = chosen.out or run.path / "result.ome.zarr"
        cubes = _free(target.with_name(f"{file_name(name)}-cubes.zarr")) if chosen.cubes else None
        self._started_here = run.path
        device, read = self._session.device, chosen.read

        def job() -> PredictJob:
            image, time = _file(source, run, read.time_point)
            return PredictJob(
                model=model,
                image=image,
                out=target,
                cubes=cubes,
                selection=read.model_copy(update={"time_point": time}),
                settings=chosen.settings,
                device=device,
            )

        if cubes is not None:
            self._begin(None, (cubes, ALL), target, model)  # the result lies on them
        elif isinstance(source, Path):
            self._begin(None, (source, read), target, model)
        else:
            self._begin(source, None, target, model)
            self.time_point = read.time_point or 0
        self.client.attach(run)
        self.client.start(job)

    def writes_elsewhere(self) -> Path | None:
        """Store outside its folder that a job which was not started here would write to; None where there is none.

        Raises
        ------
        UserError
            When the job cannot be read.
        """
        run = self.client.run
        job = read_job(run)
        if run.path == self._started_here or not isinstance(job, PredictJob):
            return None
        stores = [job.store] if job.cubes is None else [job.store, job.cubes]
        return next((each for each in stores if not each.resolve().is_relative_to(run.path.resolve())), None)

    def attach(self, run: Run) -> None:
        """Follow a job that was started before; its result is shown on a fitting image layer."""
        job = read_job(run)
        if not isinstance(job, PredictJob):
            raise UserError(f"{run.path} holds no segmentation; choose another folder")
        self._begin(None, job.segmented, job.store, job.model)
        self.client.attach(run)

    def _begin(self, image: Image | None, file: tuple[Path, Selection] | None, out: Path, model: Path) -> None:
        self._image, self._file, self.out, self._model = image, file, out, model
        self._layer, self._opening = None, False
        self.time_point = 0 if file is None else file[1].time_point or 0

    # ------------------------------------------------------------ following

    def _take(self, event: Event) -> None:
        is_store = self.out is not None and file_kind(self.out) is None
        if is_store and isinstance(event, BlocksPlanned | BlockWritten):
            self._open()  # at a block only when the store could not be read before
        if isinstance(event, BlockWritten):
            self._refresh_soon()

    def _on_state(self, state: str) -> None:
        layer = self.layer
        if self.client.active:
            if state == "starting" and layer is not None:
                self.written.emit(layer)
            self._withhold(layer)
            return
        if state == "finished":
            if layer is None:
                self._open()
            else:
                self._settle(layer)
            self._open_objects()
            self.done.emit(self.out)
        elif layer is not None:
            self._settle(layer)

    def _withhold(self, layer: Labels | None) -> None:
        """The worker writes, so nobody may paint; napari allows it anew whenever 3D is left."""
        if layer is not None and layer.editable:
            layer.editable = False

    def _settle(self, layer: Labels) -> None:
        """Nobody else writes any more, so the layer may be painted on."""
        layer.editable = can_be_corrected(layer)
        layer.refresh(extent=False)
        self.settled.emit(layer)

    def _open(self) -> None:
        if self._opening or self.out is None:
            return
        self._opening = True
        out, model = self.out, self._model
        self._session.background.call(lambda: result_layer_of(out, model), self._show, self._look_again)

    def _look_again(self, text: str) -> None:
        """The store could not be read: the next block gives another chance."""
        self._opening = False
        if not self.client.active:
            self.failed.emit(text)

    def _show(self, opened: tuple[Any, dict[str, Any], str]) -> None:
        data, about, _ = opened
        data, image = self._lie_on_image(data, about, "segmentation")
        if image is None:
            self._add_source()
        layer = self._add(data, about)
        self._layer = layer
        if self.client.active:
            self._withhold(layer)
        else:
            self._settle(layer)
        self.shown.emit(layer)

    def _open_objects(self) -> None:
        """Show the single objects, if they were asked for; they are numbered last."""
        out = self.out
        if out is not None and (out / INSTANCES).is_dir():
            self._session.background.call(lambda: objects_layer_of(out), self._show_objects, self.failed.emit)

    def _show_objects(self, opened: tuple[Any, dict[str, Any], tuple[str, ...]]) -> None:
        data, about, notes = opened
        for note in notes:
            self.failed.emit(note)
        data, _ = self._lie_on_image(data, about, "objects")
        self._add(data, about).editable = False  # objects are numbers, not classes: nothing here is a correction

    def _lie_on_image(self, data: Any, about: dict[str, Any], what: str) -> tuple[Any, Image | None]:
        """Take place and name of the image that the result belongs to, if that is in the viewer, and its time axis."""
        viewer = self._session.viewer
        shape = tuple(_levels(data)[0].shape)
        image = self._image if self._image in viewer.layers else self._fitting(shape)
        if image is not None:
            about |= place_on(image)
            about["metadata"][METADATA] |= source_notes(image)
            about["name"] = f"{image.name} {what}"
            if "t" in axes_of(image):
                count = time_points(image)
                about["name"] += f" time {self.time_point}"
                levels = [AtTimePoint(level, self.time_point, count) for level in _levels(data)]
                data = levels if isinstance(data, list) else levels[0]
        return data, image

    def _add(self, data: Any, about: dict[str, Any]) -> Labels:
        with kept_active(self._session.viewer):
            layer = self._session.viewer.add_labels(data, **about)
        self._session.annotation.order.put(layer)
        return layer

    def _fitting(self, shape: tuple[int, ...]) -> Image | None:
        """An image layer that came from the file that is segmented."""
        source = None if self._file is None else self._file[0]
        for image in self._session.layers.images():
            path = getattr(image.source, "path", None)
            # Of a time series, one time point is segmented.
            own = spatial_shape(image)[1:] if axes_of(image).startswith("t") else spatial_shape(image)
            if source is not None and path and Path(path) == source and own == shape:
                return image
        return None

    def _add_source(self) -> None:
        """Show the image that was given as a file beneath its result."""
        if self._file is None:
            return
        path, read = self._file

        def add(opened: tuple[Any, dict[str, Any]]) -> None:
            data, about = opened
            layers = self._session.viewer.add_image(data, **about)
            for layer in layers if isinstance(layers, list) else [layers]:
                self._session.viewer.layers.move(self._session.viewer.layers.index(layer), 0)

        self._session.background.call(
            lambda: image_layer(path, read),
            add,
            self.failed.emit,
        )

    def _refresh(self) -> None:
        layer = self.layer
        if layer is None:
            return
        if self.client.active:
            self._withhold(layer)
        began = time.monotonic()
        layer.refresh(extent=False)
        spent = time.monotonic() - began
        # Of a large section a look takes long: then look less often.
        self._refresh_soon.setTimeout(max(_REFRESH, round(1000 * spent / _SHARE)))


def _levels(data: Any) -> list[Any]:
    return data if isinstance(data, list) else [data]


def _free(path: Path) -> Path:
    """A path that nothing is at: this one, or one with a number."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(each for each in chain([path], numbered) if not (each.exists() or each.is_symlink()))


def _file(source: Image | Path, run: Run, time: int | None) -> tuple[Path, int | None]:
    """File that holds a layer, or its time point, and the time point to read of it; a file is what it is."""
    if isinstance(source, Path):
        return source, time
    path = file_of(source, time or 0)
    if path is not None:
        return path, time
    path = (run.path / f"{file_name(source.name)}.ome.zarr").absolute()
    write_image_layer(source, path, time or 0)
    return path, None
