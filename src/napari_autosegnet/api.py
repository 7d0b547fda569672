"""From files to scores: `fit`, or `search` and `train`, then `predict` and `evaluate`; `segment` for arrays; `export`
for other programs; `export_objects` and `use_edits` for what was mended by hand.

The commands, the worker and scripts call these. Each takes paths, keeps all it knows in the run
folder, and tells its progress to a `Report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.jobs.arguments import (
    AnyPath,
    AnyPaths,
    Channels,
    as_path,
    as_paths,
    as_selection,
    model_folder,
    optional_path,
    plain_refusals,
)
from napari_autosegnet.presets import FitPreset, Preset
from napari_autosegnet.settings import (
    FitSettings,
    GrayValuesChoice,
    Network,
    PredictSettings,
    SearchSettings,
    SplitSettings,
    TrainSettings,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from napari_autosegnet.inference.output.progress import PredictionSummary
    from napari_autosegnet.jobs.training import OnEpoch
    from napari_autosegnet.model import Model
    from napari_autosegnet.training.metrics import Scores


def fit(
    run: AnyPath,
    images: AnyPaths = (),
    labels: AnyPaths = (),
    *,
    classes: str | None = None,
    time_point: int | None = None,
    channels: Channels | None = None,
    axes: str | None = None,
    preset: FitPreset = "standard",
    settings: FitSettings | None = None,
    split: SplitSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Model:
    """From labeled images to a model in one go: find the network that they need and train it.

    Networks of several sizes compete; the better ones continue from what they have learned, and the one that the
    settings' ``goal`` asks for is trained to the end. ``RUN/model`` is there from the first epochs on and gets better.

    Parameters
    ----------
    run : path
        Run folder, made if missing. With ``resume`` all else comes from it, but ``images`` and ``labels`` that were
        moved since can be given anew.
    images : path, or sequence of them
        To learn from; anything that `data.images.open_image` opens. Images in a folder, and those that patterns such as
        ``images/*.tif`` fit, are paired with labels by their names; see `data.pairs`.
    labels : path, or sequence of them
        As many as ``images``, in their order.
    classes : str, optional
        Which label value is which class: ``0:membrane,255:cell``.
    time_point : int, optional
        What is read of images and labels, as are ``channels`` and ``axes``; see `data.images.open_image`.
    channels : str or int, or sequence of them, optional
        Names or numbers.
    axes : str, optional
        Such as ``zyx``, for files that do not name their axes.
    preset : str
        ``fast`` for a laptop, ``standard`` for a GPU.
    settings : FitSettings, optional
        The preset's by default.
    split : SplitSettings, optional
        Which sections are trained on and validated with; chosen automatically by default.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    resume : bool
        Continue the fit that the run holds.

    Returns
    -------
    Model
        What is in ``RUN/model``; after a stop the best so far. Others to choose from are in `jobs.menu.read_menu`.

    Raises
    ------
    UserError
        When the data or the settings cannot be used, the run is in use, or it holds a model already, or when it was
        stopped before there was one.
    """
    from napari_autosegnet.jobs.fit import FitJob

    with plain_refusals():
        job = FitJob(
            images=as_paths(images, "images"),
            labels=as_paths(labels, "labels"),
            classes=classes,
            selection=as_selection(time_point, channels, axes),
            preset=preset,
            settings=settings,
            split=split,
            device=device,
            resume=resume,
        )
    return job.run(as_path(run, "run"), report=report, should_stop=should_stop)


def search(
    run: AnyPath,
    images: AnyPaths = (),
    labels: AnyPaths = (),
    *,
    classes: str | None = None,
    time_point: int | None = None,
    channels: Channels | None = None,
    axes: str | None = None,
    preset: Preset = "standard",
    settings: SearchSettings | None = None,
    split: SplitSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Architecture | None:
    """Find an architecture for labeled images; it is written to ``RUN/architecture.json``.

    Parameters
    ----------
    run : path
        Run folder, made if missing. With ``resume`` all else comes from it, as for `fit`.
    images : path, or sequence of them
        To learn from, as for `fit`.
    labels : path, or sequence of them
        As many as ``images``, in their order.
    classes : str, optional
        Which label value is which class: ``0:membrane,255:cell``.
    time_point : int, optional
        What is read of images and labels, as are ``channels`` and ``axes``; see `data.images.open_image`.
    channels : str or int, or sequence of them, optional
        Names or numbers.
    axes : str, optional
        Such as ``zyx``, for files that do not name their axes.
    preset : str
        The run keeps it: a training of what was found takes the same one by default.
    settings : SearchSettings, optional
        The preset's by default.
    split : SplitSettings, optional
        Which sections are trained on and validated with; chosen automatically by default.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    resume : bool
        Continue the search that the run holds.

    Returns
    -------
    Architecture or None
        The winner, or the best so far after a stop; None when nothing was rated before the stop.

    Raises
    ------
    UserError
        When the data or the settings cannot be used, the run is in use, or it holds a search already.
    """
    from napari_autosegnet.jobs.search import SearchJob

    with plain_refusals():
        job = SearchJob(
            images=as_paths(images, "images"),
            labels=as_paths(labels, "labels"),
            classes=classes,
            selection=as_selection(time_point, channels, axes),
            preset=preset,
            settings=settings,
            split=split,
            device=device,
            resume=resume,
        )
    return job.run(as_path(run, "run"), report=report, should_stop=should_stop)


def train(
    run: AnyPath,
    *,
    images: AnyPaths = (),
    labels: AnyPaths = (),
    classes: str | None = None,
    time_point: int | None = None,
    channels: Channels | None = None,
    axes: str | None = None,
    architecture: AnyPath | None = None,
    network: Network = "searched",
    settings: TrainSettings | None = None,
    split: SplitSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    continue_with: AnyPaths | None = None,
    on_epoch: OnEpoch | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Model:
    """Train a network from scratch; the latest epoch that is not surely worse than the best becomes ``RUN/model``.

    Parameters
    ----------
    run : path
        Run folder of a search, or a new one.
    images : path, or sequence of them
        To learn from, as for `fit`. Those of the run's search by default, read in the same way.
    labels : path, or sequence of them
        As many as ``images``, in their order.
    classes : str, optional
        Which label value is which class: ``0:membrane,255:cell``.
    time_point : int, optional
        What is read of images and labels, as are ``channels`` and ``axes``; see `data.images.open_image`.
    channels : str or int, or sequence of them, optional
        Names or numbers.
    axes : str, optional
        Such as ``zyx``, for files that do not name their axes.
    architecture : path, optional
        Architecture file; the run's own by default.
    network : str
        ``searched``, ``plain`` for a chain of the search's operations that needs no search, or ``unet``,
        ``unet-half`` (at half the resolution) or ``pspnet`` to compare with.
    settings : TrainSettings, optional
        By default those of the preset that the run was searched with, else of ``standard``.
    resume : bool
        Continue the training that the run holds; all else comes from it, as for `fit`.
    continue_with : path, or sequence of them, optional
        New labels of the run's images, or of ``images``; training starts from the run's model instead of
        from scratch.
    on_epoch : callable, optional
        Called at the end of every epoch with a function that gives the model as it is then.

    Raises
    ------
    UserError
        When the data or the settings cannot be used, the run is in use, or it holds a training already.
    """
    from napari_autosegnet.jobs.train import TrainJob

    with plain_refusals():
        job = TrainJob(
            images=as_paths(images, "images"),
            labels=as_paths(labels, "labels"),
            classes=classes,
            selection=as_selection(time_point, channels, axes),
            architecture=optional_path(architecture, "architecture"),
            network=network,
            settings=settings,
            split=split,
            device=device,
            resume=resume,
            continue_with=as_paths(continue_with, "continue_with"),
        )
    return job.run(as_path(run, "run"), on_epoch=on_epoch, report=report, should_stop=should_stop)


def predict(
    model: AnyPath,
    image: AnyPath,
    out: AnyPath | None = None,
    *,
    cubes: AnyPath | None = None,
    mask: AnyPath | None = None,
    time_point: int | None = None,
    channels: Channels | None = None,
    axes: str | None = None,
    settings: PredictSettings | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    slurm: AnyPath | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model folder to an image of any size.

    Parameters
    ----------
    model : path
        A run with a trained model, its ``RUN/model``, or a zip of one.
    image : path
        Anything that `data.images.open_image` opens.
    out : path, optional
        Zarr store (``.zarr``), TIFF or, for a 2D image, PNG. An unfinished result is continued. By default the
        result goes under ``labels/`` of the image, which must be OME-Zarr.
    cubes : path, optional
        New Zarr store: the image is written there as cubes first, and these are segmented; see `data.cubes`.
    mask : path, optional
        Only where it is not 0.
    time_point : int, optional
        Which one is read; see `data.images.open_image`.
    channels : str or int, or sequence of them, optional
        Names or numbers of those that are read.
    axes : str, optional
        Such as ``zyx``, for files that do not name their axes.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``; of the workers, if there are several.
    scheduler : str, optional
        Address of a dask scheduler, whose workers do the work; they see all paths under the same names.
    slurm : path, optional
        YAML file with the arguments of ``dask_jobqueue.SLURMCluster`` and the number of ``workers``.

    Returns
    -------
    PredictionSummary
        Blocks that could not be computed stand in ``failed``; the rest is finished.

    Raises
    ------
    UserError
        When something cannot be read, or ``out`` holds another result and ``settings.overwrite`` is off.
    StoppedError
        When it was stopped before the cubes were written, or before any worker came. It is a `UserError`, too.
    """
    from napari_autosegnet.jobs.predict import PredictJob

    with plain_refusals():
        job = PredictJob(
            model=model_folder(as_path(model, "model")),
            image=as_path(image, "image", instead="api.segment applies a model to an array"),
            out=optional_path(out, "out"),
            cubes=optional_path(cubes, "cubes"),
            mask=optional_path(mask, "mask"),
            selection=as_selection(time_point, channels, axes),
            settings=settings or PredictSettings(),
            device=device,
            scheduler=scheduler,
            slurm=optional_path(slurm, "slurm"),
        )
    return job.run(report=report, should_stop=should_stop)


def segment(
    model: AnyPath,
    image: ArrayLike,
    *,
    channel_axis: int | None = None,
    settings: PredictSettings | None = None,
    device: str = "auto",
    report: Report = silent,
) -> NDArray[np.uint8]:
    """Apply a model to an array in memory; `predict` does the same with files of any size.

    Parameters
    ----------
    model : path
        A run with a trained model, its ``RUN/model``, or a zip of one.
    image : array-like
        ``(y, x)`` or ``(z, y, x)``, and one more axis where ``channel_axis`` is given: numpy, zarr, or dask. It is read
        section by section.
    channel_axis : int, optional
        Axis of the channels; -1 for RGB.
    settings : PredictSettings, optional
        How a section is computed: halo, tile, precision, and gray values.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.

    Returns
    -------
    ndarray
        Labels of the image's shape without channels. 1 is the model's first class; 0 is where the image has no number,
        and a section of one gray value.

    Raises
    ------
    UserError
        When the image does not fit the model.
    """
    import numpy as np

    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.device import choose_device
    from napari_autosegnet.inference.compute.sections import predicted_sections
    from napari_autosegnet.model import Model

    stack = image_from_array(image if hasattr(image, "shape") else np.asarray(image), channel_axis=channel_axis)
    opened = Model.load(model_folder(as_path(model, "model")))
    predicted = predicted_sections(
        opened, stack, settings or PredictSettings(), device=choose_device(device), report=report
    )
    labels = np.stack([section for section, _ in predicted])
    return labels[0] if stack.is_2d else labels


def evaluate(
    *,
    labels: AnyPaths,
    images: AnyPaths = (),
    prediction: AnyPath | None = None,
    objects: AnyPath | None = None,
    model: AnyPath | None = None,
    classes: str | None = None,
    time_point: int | None = None,
    channels: Channels | None = None,
    axes: str | None = None,
    sections: str | None = None,
    overlays: AnyPath | None = None,
    gray_values: GrayValuesChoice = "checked",
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Score a prediction, or a model on labeled images; pixels that are not annotated count nowhere.

    Sections in which nothing is annotated are not even computed.

    Parameters
    ----------
    labels : path, or sequence of them
        The truth.
    images : path, or sequence of them
        With ``model``: the images, paired with the labels. With ``prediction``: optional, one, for overlays.
    prediction : path, optional
        What `predict` wrote, or a label image with class numbers 1..K.
    objects : path, optional
        With ``prediction``: true objects, each with a number of its own, 0 for none. The prediction's numbered objects
        are compared with them over the whole volume.
    model : path, optional
        A run with a trained model, its ``RUN/model``, or a zip of one.
    classes : str, optional
        How the values of ``labels`` are read; with a model that which it was trained with by default. A model
        and an OME-Zarr store know the names of their classes, so that the order does not matter; the class
        numbers of other predictions are in this order.
    time_point : int, optional
        With ``model``: which one is read; see `data.images.open_image`.
    channels : str or int, or sequence of them, optional
        Names or numbers of those that are read.
    axes : str, optional
        Such as ``zyx``, for files that do not name their axes.
    sections : str, optional
        Only these, for example ``24-29``.
    overlays : path, optional
        Folder for pictures of prediction and truth.
    gray_values : "checked" or "as-is"
        With ``model``: an image in another range than the model's is scaled where that can be told, else refused, or
        taken as it is.

    Raises
    ------
    UserError
        When files or shapes do not fit or nothing is annotated in the sections.
    StoppedError
        When a stop was asked for before all was scored: the score of some sections is not that of all. It is a
        `UserError`, too.
    """
    from napari_autosegnet.jobs.evaluate import EvaluateJob

    with plain_refusals():
        job = EvaluateJob(
            labels=as_paths(labels, "labels"),
            images=as_paths(images, "images"),
            prediction=optional_path(prediction, "prediction"),
            objects=optional_path(objects, "objects"),
            model=None if model is None else model_folder(as_path(model, "model")),
            classes=classes,
            selection=as_selection(time_point, channels, axes),
            sections=sections,
            overlays=optional_path(overlays, "overlays"),
            gray_values=gray_values,
            device=device,
        )
    return job.run(report=report, should_stop=should_stop)


def export(
    model: AnyPath,
    out: AnyPath,
    *,
    format: Literal["onnx", "bioimageio"] = "onnx",
    image: AnyPath | None = None,
    name: str = "",
    description: str = "",
    authors: str | Sequence[str] = (),
    license: str = "",
) -> float:
    """Write a model for other programs; needs the extra ``export``.

    Parameters
    ----------
    model : path
        A run with a trained model, its ``RUN/model``, or a zip of one.
    out : path
        ``NAME.onnx``, or ``NAME.zip`` for a package of the bioimage.io model zoo.
    format : str
        ``onnx`` or ``bioimageio``.
    image : path, optional
        For a package: an image that its test image and its cover are cut from.
    name : str
        For a package, as are all that follow: what the zoo wants to know.
    description : str
        One or two sentences.
    authors : str, or sequence of them
        Each is ``NAME`` or ``NAME (AFFILIATION)``.
    license : str
        An SPDX identifier, such as ``CC-BY-4.0``.

    Returns
    -------
    float
        Largest difference in probability between the file and the model.

    Raises
    ------
    UserError
        When the extra is not installed, something does not fit, or ``out`` cannot be written.
    """
    from napari_autosegnet.jobs.export import ExportJob

    with plain_refusals():
        job = ExportJob(
            model=model_folder(as_path(model, "model")),
            out=as_path(out, "out"),
            format=format,
            image=optional_path(image, "image"),
            name=name,
            description=description,
            authors=(authors,) if isinstance(authors, str) else tuple(authors),
            license=license,
        )
    return job.run()


def export_objects(
    result: AnyPath, out: AnyPath, *, report: Report = silent, should_stop: ShouldStop = never_stop
) -> Path:
    """Write the numbered objects of a result, with the edits made in napari, as a new store.

    The result stays as it is. The new store has the same levels and numbers; a table of its objects lies beside it.

    Parameters
    ----------
    result : path
        A store with numbered objects.
    out : path
        The new store, ``NAME.zarr``; it must not exist.

    Raises
    ------
    UserError
        When there are no objects, the edits are of others, or ``out`` cannot be written.
    StoppedError
        When a stop was asked for; then nothing is written.
    """
    from napari_autosegnet.inference.proofreading.export import export_edited
    from napari_autosegnet.inference.proofreading.proofreading import Proofreading

    objects = Proofreading(as_path(result, "result"), should_stop)
    for text in objects.log.notes:
        report(Note(text=text))
    return export_edited(objects, as_path(out, "out"), report, should_stop)


def use_edits(result: AnyPath, labels: NDArray[Any], *, should_stop: ShouldStop = never_stop) -> NDArray[Any]:
    """Paint what the edits of a result's objects say into an annotation, in place, where that is 0.

    The cut of a split becomes boundary, what lies between merged objects becomes theirs, and what was deleted becomes
    background, as far as the model has such classes.

    Parameters
    ----------
    result : path
        A store with numbered objects, as `predict` writes it, that were edited.
    labels : array
        The annotation (z, y, x) or (y, x), in the class numbers of the result (1 for the first class).

    Returns
    -------
    array
        The voxels (n, 3) that were painted: ``labels[tuple(voxels.T)] = 0`` takes them back.

    Raises
    ------
    UserError
        When there are no objects or classes, or the edits are of others, or the shapes differ.
    """
    from napari_autosegnet.inference.proofreading.annotation import annotation_of_edits
    from napari_autosegnet.inference.proofreading.proofreading import Proofreading

    objects = Proofreading(as_path(result, "result"), should_stop)
    shape = objects.levels[0].shape
    if labels.shape != shape:
        raise UserError(f"the annotation has the shape {labels.shape}, the objects {shape}; give one of the same image")
    return annotation_of_edits(objects, should_stop).paint(labels)
