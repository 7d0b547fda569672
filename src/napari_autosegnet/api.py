"""The four steps from files to scores, `search`, `train`, `predict`, `evaluate`, and `export` for other programs.

The commands, the worker and scripts call these. Each takes paths, keeps all it knows in the run
folder, and tells its progress to a `Report`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_autosegnet.architecture import Architecture
from napari_autosegnet.config import (
    GreyValuesChoice,
    Network,
    PredictSettings,
    Preset,
    SearchSettings,
    SplitSettings,
    TrainSettings,
    search_settings,
    train_settings,
)
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.files import write_atomically
from napari_autosegnet.run import Report, Run, ShouldStop, never_stop, silent
from napari_autosegnet.steps import (
    describe_data,
    describe_learned_from,
    kept_data,
    kept_learned_from,
    kept_preset,
    kept_settings,
    open_stacks,
    prepare,
    refuse_other_data,
    training_data,
    working,
)

if TYPE_CHECKING:
    from napari_autosegnet.inference.volume import PredictionSummary
    from napari_autosegnet.model import Model
    from napari_autosegnet.training.metrics import Scores
    from napari_autosegnet.training_job import OnEpoch


def search(
    run: Path,
    images: Sequence[Path] = (),
    labels: Sequence[Path] = (),
    *,
    classes: str | None = None,
    time_point: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    preset: Preset = "standard",
    settings: SearchSettings | None = None,
    split: SplitSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Architecture | None:
    """Find an architecture for labelled images; it is written to ``RUN/architecture.json``.

    Parameters
    ----------
    run : Path
        Run folder, made if missing. With ``resume`` all else comes from it.
    images, labels : sequence of Path
        As many of one as of the other; anything that `data.images.open_image` opens. Files in two folders, and those
        that patterns such as ``images/*.tif`` fit, are paired by their names; see `data.pairs`.
    classes : str, optional
        ``0:membrane,255:cell``: which label value is which class.
    time_point, channels, axes : optional
        What of the images and labels is read; see `data.images.open_image`. The run keeps it.
    preset : str
        The run keeps it: a training of what was found takes the same one by default.
    settings, split : optional
        The preset's and an automatic split by default.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``.
    resume : bool
        Go on with the search that the run holds.

    Returns
    -------
    Architecture or None
        The winner, or the best so far after a stop; None when nothing was rated before the stop.

    Raises
    ------
    UserError
        When the data or the settings do not do, the run is in use, or it holds a search already.
    """
    from napari_autosegnet.data.pairs import given_pairs

    read = Selection(time_point=time_point, channels=channels, axes=axes)
    folder = Run.open(run) if resume else Run.create(run)
    with working(folder, "search", report, should_stop) as (tell, stop):
        if resume:
            refuse_other_data(images, labels, classes, read != ALL)
            settings = kept_settings(folder, "search", SearchSettings)
            learned_from = kept_learned_from(folder, "search")
            stacks, split = kept_data(folder)
        else:
            if folder.config_file.exists() and "search" in folder.read_config():
                raise UserError(f"{run} holds a search already; go on with --resume, or choose another --run")
            settings = settings or search_settings(preset)
            split = split or SplitSettings()
            images, labels = given_pairs(images, labels)
            stacks = open_stacks(images, labels, classes, read)
        device_used, parts, normalisation = prepare(
            stacks,
            split,
            settings.normalisation,
            context=settings.context,
            min_size=settings.network.min_size,
            device=device,
            report=tell,
        )
        if resume:
            learned_from.check_normalisation(normalisation)
            normalisation = learned_from.normalisation
        from napari_autosegnet.networks.specification import NetworkSpecification
        from napari_autosegnet.search.search import Search
        from napari_autosegnet.training.checkpoints import has_checkpoint

        size = partial(
            NetworkSpecification.for_patches,
            in_channels=normalisation.channels(settings.context),
            classes=len(stacks[0].mapping.classes),
        )
        specification = size(settings.patch_size, settings.network)
        data = training_data(
            stacks,
            parts,
            normalisation,
            patch_size=settings.patch_size,
            stride=specification.stride,
            context=settings.context,
            augmentation=settings.augmentation,
            limit=2 * settings.reward_patches,
            seed=settings.seed,
            device=device_used,
            report=tell,
        )
        training = train_settings(kept_preset(folder) if resume else preset)
        work = Search(
            data,
            settings,
            in_channels=specification.in_channels,
            checkpoint=folder.checkpoint_file("search"),
            final=size(training.patch_size, training.network),
        )
        if not resume:
            folder.update_config(
                preset=preset,
                data=describe_data(images, labels, stacks, split, read),
                search=settings.model_dump(mode="json"),
                **describe_learned_from("search", stacks, normalisation, context=settings.context),
            )
        # A run that was ended before its first epoch begins again.
        if resume and has_checkpoint(folder.checkpoint_file("search")):
            work.resume(tell)
        result = work.run(report=tell, should_stop=stop)
        if result is not None:
            write_atomically(folder.architecture_file, result.architecture.to_json())
    return None if result is None else result.architecture


def train(
    run: Path,
    *,
    images: Sequence[Path] = (),
    labels: Sequence[Path] = (),
    classes: str | None = None,
    time_point: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    architecture: Path | None = None,
    network: Network = "searched",
    settings: TrainSettings | None = None,
    split: SplitSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    continue_with: Path | Sequence[Path] | None = None,
    on_epoch: OnEpoch | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Model:
    """Train a network from scratch; the best epoch by validation mean IoU becomes ``RUN/model``.

    Parameters
    ----------
    run : Path
        Run folder of a search, or a new one.
    images, labels, classes, time_point, channels, axes, split
        As for `search`; those of the run's search by default.
    architecture : Path, optional
        Architecture file; the run's own by default.
    network : str
        ``searched``, ``plain`` for a chain of the search's operations that needs no search, or ``unet`` or
        ``pspnet`` to compare with.
    settings : TrainSettings, optional
        By default those of the preset that the run was searched with, else of ``standard``.
    resume : bool
        Go on with the training that the run holds.
    continue_with : Path or sequence of Path, optional
        New labels of the run's images, or of ``images``; training starts from the run's model instead of
        from scratch.
    on_epoch : callable, optional
        Called at the end of every epoch with a function that gives the model as it is then.

    Raises
    ------
    UserError
        When the data or the settings do not do, the run is in use, or it holds a training already.
    """
    from napari_autosegnet.training_job import Begun, Source, TrainingJob

    read = Selection(time_point=time_point, channels=channels, axes=axes)
    folder = Run.open(run) if resume or not images else Run.create(run)
    with working(folder, "train", report, should_stop) as (tell, stop):
        learned_from = None
        new_labels = [continue_with] if isinstance(continue_with, Path) else list(continue_with or ())
        if resume:
            refuse_other_data(images, labels, classes, new_labels, read != ALL)
            begun = Begun.kept(folder)
            learned_from = kept_learned_from(folder, "training")
        elif new_labels:
            begun = Begun.further(folder, settings)
        else:
            begun = Begun.new(folder, network, architecture, settings)
        if images:
            source = Source.given(images, labels or new_labels, classes, split, read)
        elif read != ALL:
            raise UserError("the run's own images are read as before; give --image to read others, or leave these out")
        else:
            source = Source.kept(folder, new_labels, split)
        job = TrainingJob(folder, begun, source, device=device, learned_from=learned_from, report=tell)
        return job.finish(stop, on_epoch)


def predict(
    model: Path,
    image: Path,
    out: Path | None = None,
    *,
    mask: Path | None = None,
    time_point: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    settings: PredictSettings | None = None,
    device: str = "auto",
    scheduler: str | None = None,
    slurm: Path | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model folder to an image of any size.

    Parameters
    ----------
    model : Path
        ``RUN/model``, or a zip of one.
    image : Path
        Anything that `data.images.open_image` opens.
    out : Path, optional
        Zarr store (``.zarr``), TIFF or, for a 2D image, PNG. An unfinished result is continued. By default the
        result goes under ``labels/`` of the image, which must be OME-Zarr.
    mask : Path, optional
        Only where it is not 0.
    time_point, channels, axes : optional
        What of the image is read; see `data.images.open_image`.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``mps``; of the workers, if there are several.
    scheduler : str, optional
        Address of a dask scheduler, whose workers do the work; they see all paths under the same names.
    slurm : Path, optional
        YAML file with the arguments of ``dask_jobqueue.SLURMCluster`` and the number of ``workers``.

    Returns
    -------
    PredictionSummary
        Blocks that could not be computed stand in ``failed``; the rest is finished.

    Raises
    ------
    UserError
        When something cannot be read, or ``out`` holds another result and ``settings.overwrite`` is off.
    """
    from napari_autosegnet.inference.distributed.workers import WorkerSource
    from napari_autosegnet.inference.job import VolumeRequest
    from napari_autosegnet.inference.volume import predict_volume

    started = time.monotonic()
    settings = settings or PredictSettings()
    if scheduler is not None and slurm is not None:
        raise UserError("the workers come from a scheduler or from SLURM; give one of --scheduler and --slurm")
    read = Selection(time_point=time_point, channels=channels, axes=axes)
    request = VolumeRequest(model, image, out, settings, mask=mask, read=read)
    source = WorkerSource(settings.workers, scheduler, slurm)
    if source.is_needed:
        from napari_autosegnet.inference.distributed.cluster import predict_on_workers

        summary = predict_on_workers(request, source, device=device, report=report, should_stop=should_stop)
    else:
        from napari_autosegnet.device import choose_device

        loaded, opened, opened_mask = request.opened()
        device_used = choose_device(device)
        report("device", name=str(device_used))
        summary = predict_volume(
            loaded,
            opened,
            out,
            settings,
            device=device_used,
            mask=opened_mask,
            report=report,
            should_stop=should_stop,
        )
    if summary.stopped:
        report("stopped", step="predict", reason="a stop was asked for; finished blocks are kept")
    else:
        report("finished", step="predict", seconds=time.monotonic() - started)
    return summary


def evaluate(
    *,
    labels: Sequence[Path],
    images: Sequence[Path] = (),
    prediction: Path | None = None,
    model: Path | None = None,
    classes: str | None = None,
    time_point: int | None = None,
    channels: Sequence[str] | None = None,
    axes: str | None = None,
    sections: str | None = None,
    overlays: Path | None = None,
    grey_values: GreyValuesChoice = "checked",
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> Scores:
    """Score a prediction, or a model on labelled images; pixels that are not annotated count nowhere.

    Sections in which nothing is annotated are not even computed.

    Parameters
    ----------
    labels : sequence of Path
        The truth.
    images : sequence of Path
        With ``model``: the images, paired with the labels. With ``prediction``: optional, one, for overlays.
    prediction : Path, optional
        What `predict` wrote, or a label image with class numbers 1..K.
    model : Path, optional
        ``RUN/model``, or a zip of one.
    classes : str, optional
        How the values of ``labels`` are read; with a model that which it was trained with by default. A model
        and an OME-Zarr store know the names of their classes, so that the order does not matter; the class
        numbers of other predictions are in this order.
    time_point, channels, axes : optional
        With ``model``: what of the images and labels is read; see `data.images.open_image`.
    sections : str, optional
        Only these, for example ``24-29``.
    overlays : Path, optional
        Folder for pictures of prediction and truth.
    grey_values : "checked" or "as-is"
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
    from napari_autosegnet.evaluation import evaluate_model, evaluate_prediction

    started = time.monotonic()
    if (model is None) == (prediction is None):
        raise UserError("give either a model or a prediction to evaluate")
    try:
        if model is not None:
            scores = evaluate_model(
                model,
                images,
                labels,
                classes=classes,
                read=Selection(time_point=time_point, channels=channels, axes=axes),
                sections=sections,
                overlays=overlays,
                grey_values=grey_values,
                device=device,
                report=report,
                should_stop=should_stop,
            )
        else:
            assert prediction is not None
            scores = evaluate_prediction(
                prediction,
                labels,
                images=images,
                classes=classes,
                sections=sections,
                overlays=overlays,
                report=report,
                should_stop=should_stop,
            )
    except StoppedError:
        report("stopped", step="evaluate", reason="a stop was asked for; there is no score")
        raise
    report("finished", step="evaluate", seconds=time.monotonic() - started)
    return scores


def export(
    model: Path,
    out: Path,
    *,
    format: Literal["onnx", "bioimageio"] = "onnx",
    image: Path | None = None,
    name: str = "",
    description: str = "",
    authors: Sequence[str] = (),
    licence: str = "",
) -> float:
    """Write a model for other programs; needs the extra ``export``.

    Parameters
    ----------
    model : Path
        ``RUN/model``, or a zip of one.
    out : Path
        ``NAME.onnx``, or ``NAME.zip`` for a package of the bioimage.io model zoo.
    format : str
        ``onnx`` or ``bioimageio``.
    image : Path, optional
        For a package: an image that its test image and its cover are cut from.
    name, description, authors, licence
        For a package: what the zoo wants to know; an author is ``NAME`` or ``NAME (AFFILIATION)``.

    Returns
    -------
    float
        Largest difference in probability between the file and the model.

    Raises
    ------
    UserError
        When the extra is not installed, something does not fit, or ``out`` cannot be written.
    """
    from napari_autosegnet.model import Model

    loaded = Model.load(model)
    if format == "onnx":
        from napari_autosegnet.export.onnx_file import write_onnx

        return write_onnx(loaded, out)
    from napari_autosegnet.data.images import open_image
    from napari_autosegnet.export.bioimageio_package import About, write_bioimageio

    about = About(name=name, description=description, authors=tuple(authors), licence=licence)
    return write_bioimageio(loaded, out, about=about, image=None if image is None else open_image(image))
