"""A model applied to a volume of any size: read | compute | write.

While one block is computed, the next ones are read and the last ones written, each stage in a thread of its
own with a bounded number of blocks in between. Memory is set by the block size, not by the volume.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.blocks import Block
from napari_autosegnet.inference.compute.block_pixels import BlockInput, BlockResult
from napari_autosegnet.inference.compute.faint import faint_sections
from napari_autosegnet.inference.instances.run import number_objects
from napari_autosegnet.inference.job import VolumeJob, complete, open_job, open_ledger
from napari_autosegnet.inference.output.ledger import Ledger, Status, locked
from napari_autosegnet.inference.output.output import disk_error, outer_places
from napari_autosegnet.inference.output.progress import PredictionSummary, Progress
from napari_autosegnet.inference.output.pyramid import PyramidProgress
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings

if TYPE_CHECKING:
    import torch

#: Blocks that wait between two stages.
QUEUE = 2
#: Constant sections, or faint ones, that are named.
_SHOWN = 8


def predict_volume(
    model: Model,
    image: ImageStack,
    out: Path | None,
    settings: PredictSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: ImageStack | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model to a volume, block by block; continues where an earlier run of the same job ended.

    Parameters
    ----------
    model : Model
        The model to apply.
    image : ImageStack
        The volume (z, y, x) or 2D image; only the blocks in work are in memory.
    out : Path or None
        ``.tif``, ``.png`` (2D) or a Zarr store; None writes under the image's own ``labels/``.
    settings : PredictSettings, optional
        Block, tile, halo, region and so on. ``workers`` is for `napari_autosegnet.inference.distributed.cluster`.
    device : torch.device or str
        Where to compute.
    mask : ImageStack, optional
        Of the image's shape; where it is 0 the labels are 0, and blocks without any other voxel are skipped.
    report : Report
        Is told ``plan``, ``block``, ``progress``, ``warning`` and ``note``, always from this thread.
    should_stop : ShouldStop
        Asked after every tile; then the summary's ``stopped`` is true, and the same call continues from there.

    Raises
    ------
    UserError
        When things do not fit together, the output belongs to something else, or the disk is full. A block that
        cannot be read raises nothing: it stands in the summary's ``failed``.
    """
    started = time.monotonic()
    job = open_job(model, image, out, settings or PredictSettings(), device=device, mask=mask, report=report)
    instances = None
    with locked(*outer_places(job.output)):
        try:
            ledger = open_ledger(job, model, report)
            progress = Progress(job.plan, ledger.finished(), report)
            progress.tell_plan(job.predictor)
            stopped = not _run(job, ledger, progress, should_stop)
            if not stopped and not progress.failed:
                PyramidProgress(job.output.pyramid, ledger).finish(job.output.subsample)
                if job.settings.instances:
                    instances = number_objects(job, model, ledger, report, should_stop)
                    stopped = instances is None
                complete(job, ledger)
        except OSError as error:
            raise disk_error(error, job.output.path) from error
    return summarize(job, ledger, progress, started, stopped=stopped, instances=instances, report=report)


def summarize(
    job: VolumeJob,
    ledger: Ledger,
    progress: Progress,
    started: float,
    *,
    stopped: bool,
    instances: Path | None,
    report: Report,
) -> PredictionSummary:
    """What a run did; says which sections are constant, and which show next to nothing."""
    seconds = time.monotonic() - started
    constant = ledger.blank_sections
    if constant:
        report(Note(text=in_words(constant)))
    faint = () if stopped else _faint(job, ledger)
    if faint:
        report(Note(text=faint_in_words(faint)))
    return PredictionSummary(
        path=job.output.path,
        labels=job.output.labels_path,
        instances=instances,
        blocks=len(job.plan),
        done=progress.count("done"),
        skipped=progress.count("skipped"),
        constant_sections=tuple(constant),
        faint_sections=faint,
        failed=progress.failed,
        stopped=stopped,
        seconds=seconds,
        voxels_per_second=progress.voxels / max(seconds, 1e-9),
        halo=job.predictor.halo,
        halo_agreement=job.predictor.agreement,
        precision=job.predictor.precision,
        precision_agreement=job.predictor.precision_agreement,
    )


def in_words(constant: Sequence[int]) -> str:
    """One line on sections of one gray value."""
    count = "1 section is" if len(constant) == 1 else f"{len(constant)} sections are"
    return f"{count} constant (one gray value throughout) and left 0: {_listed(constant)}"


def faint_in_words(faint: Sequence[int]) -> str:
    """One line on sections that show next to nothing."""
    count = "1 section shows" if len(faint) == 1 else f"{len(faint)} sections show"
    return (
        f"{count} next to nothing (all gray values within half a deviation of the model's images), so the labels there "
        f"mean little: {_listed(faint)}"
    )


def _listed(sections: Sequence[int]) -> str:
    return ", ".join(map(str, sections[:_SHOWN])) + (", ..." if len(sections) > _SHOWN else "")


def _faint(job: VolumeJob, ledger: Ledger) -> tuple[int, ...]:
    found = ledger.faint_runs()
    if not any(found.values()):
        return ()
    finished = ledger.finished()
    blocks = [
        (range(*job.plan[number].core[0]), faint)
        for number, faint in found.items()
        # Nothing is read where a mask is empty.
        if job.mask is None or finished[number] != "skipped"
    ]
    constant = {*ledger.blank_sections}
    return tuple(section for section in faint_sections(blocks, job.survey.faint_range) if section not in constant)


def _run(job: VolumeJob, ledger: Ledger, progress: Progress, should_stop: ShouldStop) -> bool:
    """Read, compute and write all pending blocks; False when asked to stop."""
    indices: Sequence[int] = progress.pending
    for attempt in range(job.settings.retries + 1):
        last = attempt == job.settings.retries
        if not _run_blocks(job, ledger, progress, indices, should_stop, last=last):
            return False
        indices = [failed.index for failed in progress.failed]
        if not indices:
            break
    return True


def _run_blocks(
    job: VolumeJob,
    ledger: Ledger,
    progress: Progress,
    indices: Sequence[int],
    should_stop: ShouldStop,
    *,
    last: bool,
) -> bool:
    writes: deque[Future[tuple[Block, Status, float]]] = deque()

    def settle(most: int) -> None:
        while writes and (len(writes) > most or writes[0].done()):
            progress.finish(*writes.popleft().result())

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            for block, data in _ahead(reader, job, indices):
                if isinstance(data, UserError):
                    progress.fail(block, str(data), last=last)
                    if should_stop():
                        settle(0)
                        return False
                    continue
                began = time.monotonic()
                result = job.compute(block, data, should_stop)
                # What is computed is worth keeping; it takes no longer than writing it.
                if result is not None:
                    writes.append(writer.submit(_write, job, ledger, block, result, began))
                if result is None or should_stop():
                    settle(0)
                    return not progress.pending
                settle(QUEUE)
            settle(0)
            return True
        finally:
            for waiting in writes:
                waiting.cancel()


def _ahead(
    reader: ThreadPoolExecutor, job: VolumeJob, indices: Sequence[int]
) -> Iterator[tuple[Block, BlockInput | UserError]]:
    """What is read for blocks in order, with `QUEUE` of them under way."""
    waiting: deque[Future[tuple[Block, BlockInput | UserError]]] = deque()
    try:
        for index in indices:
            waiting.append(reader.submit(_read, job, index))
            if len(waiting) > QUEUE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(job: VolumeJob, index: int) -> tuple[Block, BlockInput | UserError]:
    """What is read for a block; one that cannot be read must not end the run."""
    try:
        return job.read(index)
    except UserError as error:
        return job.plan[index], error


def _write(
    job: VolumeJob, ledger: Ledger, block: Block, result: BlockResult, began: float
) -> tuple[Block, Status, float]:
    """Write a block, then say so in the ledger, then whatever of the pyramid it completes."""
    status: Status = "done" if result.computed else "skipped"
    files = job.output.write(block, result)
    ledger.record(block.index, status, files=files, blank=result.blank, faint=result.faint)
    PyramidProgress(job.output.pyramid, ledger).climb(block.index, job.output.subsample)
    return block, status, time.monotonic() - began
