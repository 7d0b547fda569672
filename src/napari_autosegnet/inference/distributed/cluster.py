"""The blocks of a volume on many workers.

Each task is one block; the worker has opened model, image and store by their paths, and writes the block itself. The
ledger is written here, after a worker said that the block's data is on the disk. So this process may die at any time:
the next one continues from the ledger. What keeps failing is reported by its place, and the rest is finished.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_autosegnet.addresses import absolute
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import DeviceChosen, Report, silent
from napari_autosegnet.inference.compute.precision import HALF
from napari_autosegnet.inference.distributed.cluster_work import ClusterJob, Outcome, Task
from napari_autosegnet.inference.distributed.dispatcher import Dispatcher
from napari_autosegnet.inference.distributed.workers import WorkerSource, cores_per_worker, workers
from napari_autosegnet.inference.job import VolumeJob, VolumeRequest, complete, open_ledger
from napari_autosegnet.inference.output.ledger import Ledger, Status, locked
from napari_autosegnet.inference.output.output import disk_error, outer_places
from napari_autosegnet.inference.output.picture_output import PictureOutput
from napari_autosegnet.inference.output.progress import PredictionSummary, Progress
from napari_autosegnet.inference.output.pyramid import PyramidProgress
from napari_autosegnet.inference.volume import summarize
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model


def predict_on_workers(
    request: VolumeRequest,
    source: WorkerSource,
    *,
    device: str = "auto",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model to a volume on several workers; continues where an earlier run of the same job ended.

    Same events and same result as `napari_autosegnet.inference.volume.predict_volume`; ``block`` says which worker
    did it, too.

    Raises
    ------
    UserError
        When the extra ``cluster`` is missing, no worker can be had, things do not fit together, or the disk is
        full. Blocks that keep failing stand in the summary's ``failed``.
    StoppedError
        When asked to stop before there was a worker.
    """
    started = time.monotonic()
    request = _absolute(request)
    threads = cores_per_worker(source.workers) if source.is_local else None
    with workers(source, (request.out or request.image).parent) as cluster:
        dispatcher = Dispatcher(cluster, should_stop, report)
        if not dispatcher.wait_for_workers():
            raise StoppedError("stopped before any worker came")
        kinds = dispatcher.describe(device)
        report(DeviceChosen(name=", ".join(sorted({kind["device"] for kind in kinds}))))
        # Here the model only plans.
        model, job = request.open("cpu", report)
        if job.settings.precision == "auto" and not job.predictor.exact:
            offered = [name for name in HALF if all(name in kind["precisions"] for kind in kinds)]
            job.predictor.may_use(offered, now=all(kind["device"] != "cpu" for kind in kinds))
        if not source.is_local and isinstance(job.output, PictureOutput):
            raise UserError("several machines cannot write into one file; give --out with .zarr")
        if not (source.is_local and all(kind["device"] == "cpu" for kind in kinds)):
            # What is fastest here need not be there.
            job.settings = job.settings.model_copy(update={"engine": job.predictor.engine, "tile": job.predictor.tile})
        with locked(*outer_places(job.output)):
            try:
                with _torch_threads(threads):
                    ledger = open_ledger(job, model, report)  # measures what computes fastest, as the workers will
                fixed = job.settings.model_copy(update={"engine": job.predictor.engine, "tile": job.predictor.tile})
                about = ClusterJob(
                    uuid.uuid4().hex,
                    dataclasses.replace(
                        request, settings=fixed, precision=job.predictor.precision, scale=job.survey.scale
                    ),
                    device,
                    threads,
                    model.fingerprint,
                )
                run = _ClusterRun(about, job, ledger, dispatcher, report)
                stopped = not run.labels()
                instances = None
                if not stopped and not run.progress.failed:
                    if job.settings.instances:
                        instances = run.instances(model, should_stop)
                        stopped = instances is None
                    complete(job, ledger)
            except OSError as error:
                raise disk_error(error, job.output.path) from error
    return summarize(job, ledger, run.progress, started, stopped=stopped, instances=instances, report=report)


class _ClusterRun:
    """The stages of one job, one after the other."""

    def __init__(
        self, about: ClusterJob, job: VolumeJob, ledger: Ledger, dispatcher: Dispatcher, report: Report
    ) -> None:
        self._about = about
        self._job = job
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._report = report
        self.progress = Progress(job.plan, ledger.finished(), report)

    def labels(self) -> bool:
        """Compute all blocks and their pyramid; False when asked to stop."""
        job, ledger, progress = self._job, self._ledger, self.progress
        progress.tell_plan(job.predictor)
        pyramid = PyramidProgress(job.output.pyramid, ledger)

        def finish(outcome: Outcome) -> Iterable[Task]:
            task = outcome.task
            status: Status = "skipped" if outcome.status == "skipped" else "done"
            ledger.record(
                task.number, status, level=task.level, files=outcome.files, blank=outcome.blank, faint=outcome.faint
            )
            if not task.level:
                progress.finish(job.plan[task.number], status, outcome.seconds, worker=outcome.worker)
            ready = pyramid.ready(task.level, task.number)
            return [] if ready is None else [Task("labels", *ready)]

        def fail(task: Task, reason: str, last: bool) -> None:
            if task.level:
                _give_up(task, reason, last)
            else:
                progress.fail(job.plan[task.number], reason, last=last)

        tasks = [Task("labels", 0, index) for index in progress.pending]
        if not self._dispatcher.run(self._about, tasks, finish, fail, job.settings.retries):
            return False
        if progress.failed:
            return True  # lower levels would keep the holes
        for level in range(1, len(job.output.pyramid.levels)):
            rest = [Task("labels", level, number) for number in pyramid.missing(level)]
            if not self._dispatcher.run(self._about, rest, finish, fail, job.settings.retries):
                return False
        return True

    def instances(self, model: Model, should_stop: ShouldStop) -> Path | None:
        """Number the objects; None when asked to stop."""
        from napari_autosegnet.inference.instances.run import Done, InstanceRun
        from napari_autosegnet.inference.instances.work import Stage

        run = InstanceRun(self._job, model, self._ledger, self._report)

        def do(
            stage: Stage,
            level: int,
            numbers: Iterable[int],
            done: Done,
        ) -> bool:
            def finish(outcome: Outcome) -> Iterable[Task]:
                done(outcome.task.number, outcome.seconds, outcome.files)
                return []

            tasks = [Task(stage, level, number) for number in numbers]
            return self._dispatcher.run(self._about, tasks, finish, _give_up, self._job.settings.retries)

        return run.number(do, should_stop)


def _give_up(task: Task, reason: str, last: bool) -> None:
    """A failure that leaves nothing to continue with."""
    if last:
        raise UserError(f"block {task.number} of {task.stage}, level {task.level}, keeps failing: {reason}")


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """So many threads for a while; as they are with None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _absolute(request: VolumeRequest) -> VolumeRequest:
    """Paths as every worker can follow them."""
    return dataclasses.replace(
        request,
        model=request.model.absolute(),
        image=absolute(request.image),
        out=None if request.out is None else request.out.absolute(),
        mask=None if request.mask is None else absolute(request.mask),
    )
