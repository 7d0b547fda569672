"""What a dask worker does: it opens the job once, then reads, computes and writes block after block.

A worker sends back how a block went, never pixels. Its threads are in different stages (one reads, one computes,
one writes), so that the device does not wait. Nothing here imports dask but to ask which worker this is.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note
from napari_autosegnet.interruption import ShouldStop

if TYPE_CHECKING:
    import torch

    from napari_autosegnet.inference.compute.faint import FaintRun
    from napari_autosegnet.inference.instances.work import InstanceWork, Stage
    from napari_autosegnet.inference.job import VolumeJob, VolumeRequest


@dataclass(frozen=True)
class ClusterJob:
    """A job as it travels to the workers.

    Attributes
    ----------
    key : str
        Of this run.
    request : VolumeRequest
        Model, image, output and settings, by paths that every worker sees.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads : int or None
        For computing on a CPU; None: as many as dask gave the worker.
    fingerprint : str
        Of the model: a worker that finds another one at the path must not compute.
    """

    key: str
    request: VolumeRequest
    device: str
    threads: int | None
    fingerprint: str


@dataclass(frozen=True)
class Task:
    """One block of one stage, at a pyramid level; ``labels`` 0 computes, its lower levels are subsampled."""

    stage: Literal["labels"] | Stage
    level: int
    number: int


@dataclass(frozen=True)
class Outcome:
    """How a task went, on whom.

    ``refused`` is for what no other attempt mends (paths that the worker does not see, a full disk); ``files`` for the
    ledger.
    """

    task: Task
    status: Literal["done", "skipped", "stopped", "refused"]
    worker: str
    seconds: float = 0.0
    text: str = ""
    notes: tuple[str, ...] = ()
    files: int = 0
    blank: tuple[int, ...] = ()
    faint: tuple[FaintRun, ...] = ()


class _OpenJob:
    """A job in a worker's process."""

    def __init__(self, about: ClusterJob) -> None:
        import torch

        from napari_autosegnet.device import choose_device

        self.notes: list[str] = []
        _keep_freed_memory()
        name, threads = _this_worker()
        device = choose_device(about.device)
        if device.type == "cpu":
            torch.set_num_threads(about.threads or threads)
        self.device = own_device(device, name)
        model, self.job = about.request.open(self.device, self._report)
        if model.fingerprint != about.fingerprint:
            raise UserError(f"{about.request.model} is another model here than where the run was started")
        self.job.output.attach()
        self._instances: InstanceWork | None = None
        # Three stages, three threads of a worker.
        self.reading, self.computing = threading.Lock(), threading.Lock()

    def instances(self) -> InstanceWork:
        from napari_autosegnet.inference.instances.work import InstanceWork

        if self._instances is None:
            self._instances = InstanceWork.attached(self.job)
        return self._instances

    def _report(self, event: Event) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)

    def told(self) -> tuple[str, ...]:
        notes, self.notes = tuple(self.notes), []
        return notes


@dataclass
class _Process:
    """What this worker's process keeps: the job of the latest run, and what it is doing, by runs."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    key: str = ""
    job: _OpenJob | None = None
    stopped: set[str] = field(default_factory=set)
    begun: set[tuple[str, Task]] = field(default_factory=set)


_PROCESS = _Process()


def stop_here(key: str) -> tuple[Task, ...]:
    """Let this process end its work for a run within one tile; which tasks it has begun."""
    _PROCESS.stopped.add(key)
    return tuple(task for run, task in list(_PROCESS.begun) if run == key)


def describe_worker(device: str) -> dict[str, Any]:
    """What the dispatching process has to know before it decides the arithmetic."""
    from napari_autosegnet.device import choose_device
    from napari_autosegnet.inference.compute.precision import fast_precisions

    chosen = choose_device(device)
    return {"device": str(chosen), "precisions": fast_precisions(chosen)}


def work(about: ClusterJob, task: Task) -> Outcome:
    """Do one task; runs on a worker. Errors that are raised count as a failed attempt at this block."""
    _PROCESS.begun.add((about.key, task))
    try:
        return _work(about, task)
    finally:
        _PROCESS.begun.discard((about.key, task))


def _work(about: ClusterJob, task: Task) -> Outcome:
    from napari_autosegnet.inference.output.output import FATAL, disk_error

    name, _ = _this_worker()
    began = time.monotonic()
    if about.key in _PROCESS.stopped:
        return Outcome(task, "stopped", name)
    try:
        opened = _opened(about)
    except UserError as error:
        return Outcome(task, "refused", name, text=str(error))
    try:
        done = _do(opened, task, lambda: about.key in _PROCESS.stopped)
    except OSError as error:
        if error.errno in FATAL:
            return Outcome(task, "refused", name, text=str(disk_error(error, opened.job.output.path)))
        raise
    return Outcome(task, worker=name, seconds=time.monotonic() - began, notes=opened.told(), **done)


def _opened(about: ClusterJob) -> _OpenJob:
    with _PROCESS.lock:
        if _PROCESS.key != about.key or _PROCESS.job is None:
            _PROCESS.job = None  # the old one first: two models need not fit
            _PROCESS.job = _OpenJob(about)
            _PROCESS.key = about.key
        return _PROCESS.job


def _do(opened: _OpenJob, task: Task, should_stop: ShouldStop) -> dict[str, Any]:
    """Do a task; how it went, which files it left, and which of its sections show nothing, for its `Outcome`."""
    job: VolumeJob = opened.job
    if task.stage != "labels":
        with opened.computing:
            files = opened.instances().do(task.stage, task.level, task.number, should_stop)
        return {"status": "stopped"} if files is None else {"status": "done", "files": files}
    if task.level:
        files = job.output.subsample(task.level, job.output.pyramid.position(task.level, task.number))
        return {"status": "done", "files": files}
    with opened.reading:
        block, data = job.read(task.number)
    with opened.computing:
        result = job.compute(block, data, should_stop)
    if result is None:
        return {"status": "stopped"}
    files = job.output.write(block, result)
    status = "done" if result.computed else "skipped"
    return {"status": status, "files": files, "blank": result.blank, "faint": result.faint}


def _keep_freed_memory() -> None:
    """Let the C library keep memory that was freed, as it would of its own.

    dask starts its workers with ``MALLOC_TRIM_THRESHOLD_``, which also ends glibc's adapting of what it keeps. Then
    each tensor is made of fresh pages, and networks took twice as long on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold = -1, -3  # of glibc's malloc.h
    with suppress(OSError, AttributeError):  # other C libraries have no mallopt
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 2**25)  # the largest that glibc takes
        library.mallopt(trim_threshold, 2**26)


def _this_worker() -> tuple[str, int]:
    """Name and number of threads of the worker that runs this."""
    from distributed import get_worker

    worker = get_worker()
    return str(worker.name), int(worker.state.nthreads)


def own_device(device: torch.device, name: str) -> torch.device:
    """One of several GPUs, by the number that a worker's name ends with."""
    import torch

    number = re.search(r"(\d+)$", name)
    if str(device) != "cuda" or number is None:
        return device
    return torch.device("cuda", int(number.group()) % torch.cuda.device_count())
