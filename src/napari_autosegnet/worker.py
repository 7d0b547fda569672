"""One job in a process of its own: ``python -m napari_autosegnet.worker RUN`` does what ``RUN/job.json`` says.

::

    RUN/job.json            step and arguments: a `Job`
        worker.json         who works, or worked last, on it: a `WorkerInfo`
        logs/worker.log     what the process printed, when a dock started it
        preview/            input.npz, the slice that somebody looks at, and what the network makes of it

The process shares nothing with whoever started it but the folder, and outlives it. SIGTERM asks for an
orderly end, as a stop request does; a cancel request ends it without a new result.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import io
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zipfile import BadZipFile

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from napari_autosegnet.config import Network, PredictSettings, Preset, SearchSettings, SplitSettings, TrainSettings
from napari_autosegnet.errors import UserError, first_problem, is_out_of_memory
from napari_autosegnet.files import write_atomically
from napari_autosegnet.json_files import read_json
from napari_autosegnet.processes import identity
from napari_autosegnet.run import Run, ShouldStop

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_autosegnet.data.grey_values import SectionGrey
    from napari_autosegnet.model import Model

Step = Literal["search", "train", "predict"]

#: Exit status of a job that ended with an error that was told.
FAILED = 2
#: Of ten parts of a busy processor, programs in front of the screen get nine.
_NICE = 10
#: Pixels of surroundings of a preview's tiles, and the largest share of the training's time that previews take.
PREVIEW_HALO = 32
PREVIEW_SHARE = 0.2


class _Job(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"


class SearchJob(_Job):
    """Arguments of `api.search`."""

    step: Literal["search"] = "search"
    images: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    classes: str | None = None
    preset: Preset = "standard"
    settings: SearchSettings | None = None
    split: SplitSettings | None = None
    resume: bool = False


class TrainJob(_Job):
    """Arguments of `api.train`."""

    step: Literal["train"] = "train"
    images: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    classes: str | None = None
    architecture: Path | None = None
    network: Network = "searched"
    settings: TrainSettings | None = None
    split: SplitSettings | None = None
    resume: bool = False
    continue_with: tuple[Path, ...] = ()


class PredictJob(_Job):
    """Arguments of `api.predict`; an unfinished result is continued."""

    step: Literal["predict"] = "predict"
    model: Path
    image: Path
    out: Path
    mask: Path | None = None
    time_point: int | None = None
    channels: tuple[str, ...] | None = None
    axes: str | None = None
    settings: PredictSettings | None = None


Job = Annotated[SearchJob | TrainJob | PredictJob, Field(discriminator="step")]
_JOB: TypeAdapter[Job] = TypeAdapter(Job)


class WorkerInfo(BaseModel):
    """Which process works, or worked last, on a run.

    ``identity`` tells it from others of the same number (see `napari_autosegnet.processes.identity`). The folder may
    come from anybody, so nothing is done to the process before that was compared.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    pid: int = Field(gt=1, lt=2**31)  # 1 is the system, 0 and below mean groups of processes
    identity: str | None
    started: float
    step: Step
    host: str


class Cancelled(BaseException):
    """Ends a job at once, without a new result; no handler of errors takes it for one."""


def job_file(run: Run) -> Path:
    return run.file("job.json")


def info_file(run: Run) -> Path:
    return run.file("worker.json")


def log_file(run: Run) -> Path:
    return run.file("logs", "worker.log")


def preview_file(run: Run, name: Literal["input", "labels", "uncertainty"]) -> Path:
    return run.file("preview", f"{name}.npz" if name == "input" else f"{name}.npy")


def write_slice(run: Run, pixels: npt.NDArray[Any], grey: SectionGrey) -> int:
    """Give a run's training something to look at: a section, or a part of one.

    Parameters
    ----------
    run : Run
    pixels : (c, y, x)
        As they are in the image.
    grey : SectionGrey
        Grey values of the whole section.

    Returns
    -------
    int
        When it was written, in nanoseconds: the ``input`` of the event that tells of the result.
    """
    import numpy as np

    content = io.BytesIO()
    about = np.array(json.dumps(dataclasses.asdict(grey)))
    np.savez(content, pixels=np.ascontiguousarray(pixels), grey=about)
    file = preview_file(run, "input")
    write_atomically(file, content.getvalue())
    return file.stat().st_mtime_ns


def _read_slice(run: Run) -> tuple[npt.NDArray[Any], SectionGrey]:
    import numpy as np

    from napari_autosegnet.data.grey_values import SectionGrey

    with np.load(preview_file(run, "input"), allow_pickle=False) as content:
        grey = TypeAdapter(SectionGrey).validate_json(str(content["grey"]))
        return content["pixels"], grey


def write_job(run: Run, job: Job) -> None:
    write_atomically(job_file(run), job.model_dump_json(indent=1) + "\n")


def read_job(run: Run) -> Job:
    """The job that stands in the run folder.

    Raises
    ------
    UserError
        When there is none or it is damaged, or it asks for a result to be replaced: the folder may be somebody else's,
        and the result mine.
    """
    content = read_json(job_file(run), "start the step again")
    try:
        job: Job = _JOB.validate_python(content)
    except ValidationError as error:
        raise UserError(f"{job_file(run)} is damaged {first_problem(error)}; start the step again") from error
    if isinstance(job, PredictJob) and job.settings is not None and job.settings.overwrite:
        raise UserError(f"{job_file(run)} asks to replace {job.out}, which no file may; start the segmentation again")
    return job


def write_info(run: Run, pid: int, step: Step) -> None:
    """Write down who works on the run, which has to be held."""
    info = WorkerInfo(pid=pid, identity=identity(pid), started=time.time(), step=step, host=socket.gethostname())
    write_atomically(info_file(run), info.model_dump_json())


def read_info(run: Run) -> WorkerInfo | None:
    """Who works or worked last on the run; None when nobody did or the file is damaged."""
    with suppress(OSError, ValidationError, UserError):
        return WorkerInfo.model_validate_json(info_file(run).read_bytes())
    return None


def carry_out(run: Run, job: Job, should_stop: ShouldStop) -> None:
    """Do the job; what it tells stands in the run's events.

    Raises
    ------
    UserError
        As the step's function in `api`.
    """
    from napari_autosegnet import api

    arguments: dict[str, Any] = {name: getattr(job, name) for name in type(job).model_fields if name != "step"}
    match job.step:
        case "search":
            api.search(run.path, **arguments, should_stop=should_stop)
        case "train":
            preview = Preview(run, job.device, should_stop)
            api.train(run.path, **arguments, on_epoch=preview, should_stop=should_stop)
        case "predict":
            # `api.predict` knows no run folder; this one is there for the job alone.
            with run.locked():
                run.withdraw()
                run.report("started", step="predict")
                api.predict(**arguments, report=run.report, should_stop=should_stop)


class Preview:
    """What the network makes of the slice that somebody looks at, at the end of an epoch.

    Parameters
    ----------
    run : Run
        Holds the slice and gets the result; see `preview_file`.
    device : str
        That of the training.
    should_stop : ShouldStop
        Ends a preview in its middle.
    """

    def __init__(self, run: Run, device: str, should_stop: ShouldStop, clock: Callable[[], float] = time.monotonic):
        self.run = run
        self.device = device
        self.should_stop = should_stop
        self._clock = clock
        self._spent = 0.0
        self._began = clock()
        self._last_problem = ""

    def __call__(self, current: Callable[[], Model]) -> None:
        """Take the current model, if there is a slice and previews have not taken too much time already."""
        started = self._clock()
        if self._spent > PREVIEW_SHARE * (started - self._began) or not preview_file(self.run, "input").is_file():
            return
        try:
            self._draw(current())
        except (UserError, RuntimeError, ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            # A training is worth more than its preview: told once, and gone on with.
            problem = str(error).partition("\n")[0]
            if problem != self._last_problem:
                self.run.report("note", text=f"no preview: {problem}")
            self._last_problem = problem
        self._spent += self._clock() - started

    def _draw(self, model: Model) -> None:
        import numpy as np

        from napari_autosegnet.figures import normalised_entropy

        source = preview_file(self.run, "input")
        modified = source.stat().st_mtime_ns
        pixels, grey = _read_slice(self.run)
        if pixels.ndim != 3 or len(pixels) != model.image_channels:
            raise UserError(f"the slice is {pixels.shape}, the network takes {model.image_channels} channels")
        probabilities = _probabilities(model, pixels, grey, self.device, self.should_stop)
        if probabilities is None:
            return
        labels = (probabilities.argmax(axis=0) + 1).astype(np.uint8)
        labels[~probabilities.any(axis=0)] = 0
        _save_array(preview_file(self.run, "labels"), labels)
        _save_array(preview_file(self.run, "uncertainty"), normalised_entropy(probabilities).astype(np.float32))
        classes = [each.model_dump(mode="json") for each in model.classes]
        self.run.report("preview", shape=list(labels.shape), input=modified, classes=classes)


def _probabilities(
    model: Model, pixels: npt.NDArray[Any], grey: SectionGrey, device: str, should_stop: ShouldStop
) -> npt.NDArray[np.float32] | None:
    """Class probabilities (K, y, x) of a slice (c, y, x), which stands for its neighbours too; None when stopped.

    They are all 0 where the slice is NaN or infinite, and where the whole section is constant.
    """
    import numpy as np
    import torch

    from napari_autosegnet.device import choose_device
    from napari_autosegnet.inference.blocks import BlockPlan
    from napari_autosegnet.inference.compute.grey_check import scale_of
    from napari_autosegnet.inference.compute.predictor import BlockInput, Predictor, pad_to_domain
    from napari_autosegnet.inference.compute.reading import missing_voxels

    # Building a network draws its first weights, which must not change what the training draws.
    with torch.random.fork_rng(devices=[]):
        predictor = Predictor(model, choose_device(device), halo=PREVIEW_HALO)
    sections = 2 * model.context + 1
    height, width = pixels.shape[1:]
    plan = BlockPlan(
        (sections, height, width),
        (1, height, width),
        stride=predictor.stride,
        halo=predictor.halo,
        tile=predictor.tile,
        context=model.context,
    )
    around = np.repeat(pixels[:, np.newaxis], sections, axis=1)
    scale = scale_of(model.normalisation, [grey], pixels.dtype, "the slice")
    constants = model.normalisation.constants([grey] * sections, scale)
    data = BlockInput(pad_to_domain(around, predictor.stride), (0, 0, 0), constants=constants)
    found = np.zeros((len(model.classes), height, width), np.float32)
    if grey.constant:
        return found
    for _, tile, part, _ in predictor.tiles(plan, plan[model.context], data):
        if should_stop():
            return None
        (top, bottom), (left, right) = tile.core
        found[:, top:bottom, left:right] = part.cpu().numpy()
    missing = missing_voxels(pixels)
    if missing is not None:
        found[:, missing] = 0
    return found


def _save_array(path: Path, array: npt.NDArray[Any]) -> None:
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomically(path, content.getvalue())


def main(arguments: Sequence[str]) -> int:
    """Do the job of a run folder; the exit status is 0 after an orderly end and `FAILED` after an error."""
    if len(arguments) != 1:
        print("usage: python -m napari_autosegnet.worker RUN", file=sys.stderr)
        return FAILED
    run = Run(Path(arguments[0]).absolute())
    _stay_out_of_the_way()
    faulthandler.enable()
    from napari_autosegnet.cli.interruption import orderly_end

    with orderly_end() as interruption:

        def should_stop() -> bool:
            asked = run.should_stop(interruption)
            # A prediction keeps its finished blocks either way, and has threads of its own to end.
            if run.requested("cancel") and job.step != "predict":
                raise Cancelled
            return asked

        told_before = len(run.events())
        try:
            # Of a run that another process works on, nothing is overwritten.
            with run.locked():
                job = read_job(run)
                write_info(run, os.getpid(), job.step)
            carry_out(run, job, should_stop)
        except Cancelled:
            run.report("stopped", step=job.step, reason="cancelled")
            return 0
        except UserError as error:
            return _fail(run, str(error), told_before)
        except Exception as error:
            traceback.print_exc()
            return _fail(run, _in_words(error), told_before)
    return 0


def _stay_out_of_the_way() -> None:
    """Leave the processor to whoever works in front of the screen; before torch is imported."""
    # Threads that spin while they wait hold up every other program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores > 4:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores - 1))
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICE)
        # Linux shares the processor out among sessions first, and the worker has one of its own, where its
        # nice value counts against nobody else.
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICE))


def _fail(run: Run, text: str, told_before: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    told = any(event["event"] == "failed" for event in run.events()[told_before:])
    # What another process is doing here is not to be taken for failed.
    if not told and not run.is_active:
        with suppress(UserError):
            run.report("failed", text=text)
    return FAILED


def _in_words(error: Exception) -> str:
    """One line on an error that is not the user's."""
    line = str(error).partition("\n")[0]
    kind = type(error).__name__
    if is_out_of_memory(error):
        return (
            "the memory of the computer or its graphics card did not suffice; "
            "close other programs, or set a smaller patch size"
        )
    return f"an unexpected error, {kind}: {line}; the log has the details"


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All that is to be kept is on disk; taking torch down in order can take seconds more.
    os._exit(status)
