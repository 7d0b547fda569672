"""A model applied to sections in memory, or to a volume of any size: read | compute | write.

While one block is computed, the next ones are read and the last ones written, each stage in a thread of its
own with a bounded number of blocks in between. Memory is set by the block size, not by the volume.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from napari_autosegnet.config import PredictSettings
from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import (
    Block,
    BlockPlan,
    Box,
    Shape,
    choose_block,
    choose_chunks,
    slices,
)
from napari_autosegnet.inference.ledger import (
    Ledger,
    Status,
    image_identity,
    ledger_path,
    locked,
    program_version,
)
from napari_autosegnet.inference.predictor import AppliedModel, BlockInput, BlockResult, Predictor, pad_after
from napari_autosegnet.inference.store import OmeVersion, Output, disk_error, open_output
from napari_autosegnet.run import Report, ShouldStop, never_stop, silent

if TYPE_CHECKING:
    import torch

#: Blocks that wait between two stages.
QUEUE = 2


class PredictionSummary(BaseModel):
    """What a prediction did; ``done`` and ``skipped`` count the blocks of this and of earlier runs."""

    model_config = ConfigDict(frozen=True)

    path: Path
    labels: Path
    blocks: int
    done: int
    skipped: int
    stopped: bool
    seconds: float
    voxels_per_second: float
    halo: int
    halo_agreement: float | None


def make_predictor(
    model: AppliedModel, device: torch.device | str, settings: PredictSettings, report: Report = silent
) -> Predictor:
    """Predictor with the settings' tiles and halo."""
    return Predictor(
        model,
        device,
        tile=settings.tile,
        halo=settings.halo,
        batch_size=settings.batch_size,
        flips=settings.flips,
        report=report,
    )


def predict_section(
    predictor: Predictor, image: ImageStack, section: int, *, should_stop: ShouldStop = never_stop
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None:
    """Labels (y, x) with classes 1..K, and probabilities (K, y, x), of one section; None when asked to stop.

    The sections of the stack may differ in size, unless the model reads neighbouring sections.
    """
    check_image(predictor.model, image)
    height, width = image.section_shape(section)
    shape = (image.sections, height, width)
    plan = predictor.plan(shape, (1, height, width))
    block = plan[section]
    pixels = None if image.uniform else image.section(section)[:, np.newaxis]
    data = read_block(image, plan, block, pixels=pixels)
    probabilities = np.zeros((predictor.classes, height, width), np.float32)
    for _, tile, found, _ in predictor.tiles(plan, block, data):
        if should_stop():
            return None
        probabilities[(slice(None), *slices(tile.core))] = found.cpu().numpy()
    labels = (probabilities.argmax(0) + 1).astype(np.uint8)
    return labels, probabilities


def predict_sections(
    model: AppliedModel,
    image: ImageStack,
    sections: Sequence[int] | None = None,
    settings: PredictSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Labels (n, y, x) and probabilities (K, n, y, x) of some sections of a uniform stack, in memory.

    For whole volumes there is `predict_volume`, for stacks of mixed sizes `predict_section`. When asked to
    stop, the sections finished so far are returned.

    Raises
    ------
    UserError
        When the image does not fit the model, or its sections differ in size.
    """
    predictor = make_predictor(model, device, settings or PredictSettings(), report)
    chosen = range(image.sections) if sections is None else sections
    _, height, width = image.shape
    labels: list[npt.NDArray[np.uint8]] = []
    probabilities: list[npt.NDArray[np.float32]] = []
    for number, section in enumerate(chosen, start=1):
        found = predict_section(predictor, image, section, should_stop=should_stop)
        if found is None:
            break
        labels.append(found[0])
        probabilities.append(found[1])
        report("progress", done=number, total=len(chosen))
    if not labels:
        return np.zeros((0, height, width), np.uint8), np.zeros((predictor.classes, 0, height, width), np.float32)
    return np.stack(labels), np.stack(probabilities, axis=1)


def check_image(model: AppliedModel, image: ImageStack) -> None:
    """Refuse an image that the model cannot read.

    Raises
    ------
    UserError
        When the number of channels is another, or context is needed and the sections differ in size.
    """
    if image.channels != model.image_channels:
        raise UserError(
            f"the model reads {model.image_channels} channels, {image.path or image.name} has {image.channels}; "
            "give an image like those it was trained on"
        )
    if model.context and not image.uniform:
        raise UserError(f"the model reads neighbouring sections, those of {image.path or image.name} differ in size")


def read_block(
    image: ImageStack,
    plan: BlockPlan,
    block: Block,
    mask: ImageStack | None = None,
    *,
    pixels: npt.NDArray[Any] | None = None,
) -> BlockInput:
    """Read a block with its surroundings; nothing but the mask is read where the mask is empty.

    ``pixels`` (c, z, y, x), if given, is the whole of what would be read.
    """
    z, y, x = plan.surroundings(block)
    origin = (z[0], y[0], x[0])
    wanted: npt.NDArray[np.bool_] | None = None
    if mask is not None:
        wanted = np.asarray(mask.read(*slices(block.core)).any(0))
        if not wanted.any():
            return BlockInput(np.zeros((image.channels, 0, 0, 0), image.dtype), origin, wanted)
    inside = (min(y[1], plan.shape[1]), min(x[1], plan.shape[2]))
    if pixels is None:
        pixels = image.read(slice(*z), slice(y[0], inside[0]), slice(x[0], inside[1]))
    return BlockInput(pad_after(pixels, (y[1] - inside[0], x[1] - inside[1])), origin, wanted)


@dataclass
class VolumeJob:
    """One volume and all that is decided before its first block: what every worker needs to know."""

    image: ImageStack
    mask: ImageStack | None
    predictor: Predictor
    plan: BlockPlan
    output: Output
    probabilities: bool

    def read(self, index: int) -> tuple[Block, BlockInput]:
        block = self.plan[index]
        return block, read_block(self.image, self.plan, block, self.mask)

    def compute(self, block: Block, data: BlockInput, should_stop: ShouldStop = never_stop) -> BlockResult | None:
        if data.wanted is not None and not data.wanted.any():
            scores = np.zeros((self.predictor.classes, *block.shape), np.uint8) if self.probabilities else None
            return BlockResult(np.zeros(block.shape, np.uint8), scores, 0)
        return self.predictor.block(self.plan, block, data, probabilities=self.probabilities, should_stop=should_stop)


def open_job(
    model: AppliedModel,
    image: ImageStack,
    out: Path | None,
    settings: PredictSettings,
    *,
    device: torch.device | str = "cpu",
    mask: ImageStack | None = None,
    region: Box | None = None,
    version: OmeVersion = "0.5",
    sharded: bool = False,
    report: Report = silent,
) -> VolumeJob:
    """Decide blocks, tiles and output of a prediction; nothing is written yet.

    Raises
    ------
    UserError
        When image, mask, model, block and output do not fit together.
    """
    check_image(model, image)
    shape = image.shape
    if mask is not None and mask.shape != shape:
        raise UserError(f"the mask has the shape {mask.shape}, the image {shape}; give a mask of the same shape")
    predictor = make_predictor(model, device, settings, report)
    chunks = choose_chunks(shape, settings.block, image.chunks)
    block = choose_block(shape, chunks, settings.block, whole_sections=predictor.whole_sections)
    if out is not None and out.suffix.lower() == ".png":
        block = shape
    output = open_output(
        out,
        image,
        model.classes,
        chunks=chunks,
        block=block,
        levels=settings.levels,
        probabilities=settings.probabilities,
        version=version,
        sharded=sharded,
    )
    plan = predictor.plan(shape, block, region=region)
    return VolumeJob(image, mask, predictor, plan, output, settings.probabilities)


def open_ledger(job: VolumeJob, settings: PredictSettings, model: AppliedModel) -> Ledger:
    """The job's ledger, after the output was made or found to be that of an unfinished run of the same job.

    Raises
    ------
    UserError
        When there is something else, or a result made otherwise, in the output's place.
    """
    output, plan = job.output, job.plan
    path = ledger_path(output.path)
    if settings.overwrite:
        if output.is_occupied() and not output.exists() and not path.exists():
            raise UserError(f"{output.path} exists and is no result of this program; give another --out")
        path.unlink(missing_ok=True)  # first: a ledger without a store is harmless, a store without one is not trusted
        output.remove()
    elif not path.exists() and output.is_occupied():
        raise UserError(f"{output.labels_path} exists already; give another --out, or start again with --overwrite")
    parts = {
        "model": model.fingerprint,
        "image": image_identity(job.image),
        "mask": None if job.mask is None else image_identity(job.mask),
        "settings": {
            "block": plan.block,
            "tile": settings.tile,
            "halo": job.predictor.halo,
            "flips": settings.flips,
            "probabilities": settings.probabilities,
            "levels": [level.shape for level in output.pyramid.levels],
            "region": plan.region,
            "precision": job.predictor.precision,
        },
        "version": program_version(),
    }
    ledger = Ledger.open(path, parts)
    if ledger.finished() and not output.exists():
        ledger.restart()  # the result was deleted, its ledger was not
    output.prepare()
    return ledger


def predict_volume(
    model: AppliedModel,
    image: ImageStack,
    out: Path | None,
    settings: PredictSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: ImageStack | None = None,
    region: Box | None = None,
    version: OmeVersion = "0.5",
    sharded: bool = False,
    report: Report = silent,
    should_stop: ShouldStop = never_stop,
) -> PredictionSummary:
    """Apply a model to a volume, block by block; goes on where an earlier run of the same job ended.

    Parameters
    ----------
    model : Model
        The model to apply.
    image : ImageStack
        The volume (z, y, x) or 2D image; only the blocks in work are in memory.
    out : Path or None
        ``.tif``, ``.png`` (2D) or an OME-Zarr store; None writes under the image's own ``labels/``.
    settings : PredictSettings, optional
        Block, tile, halo and so on.
    device : torch.device or str
        Where to compute.
    mask : ImageStack, optional
        Of the image's shape; where it is 0 the labels are 0, and blocks without any other voxel are skipped.
    region : ((z, z), (y, y), (x, x)), optional
        Compute these voxels only.
    version : "0.4" or "0.5"
        Of a new OME-Zarr store.
    sharded : bool
        One shard per block (0.5 only): few files on large volumes.
    report : Report
        Is told ``plan``, ``block``, ``progress`` and ``note``, always from this thread.
    should_stop : ShouldStop
        Asked after every tile; then the summary's ``stopped`` is true, and the same call goes on from there.

    Raises
    ------
    UserError
        When things do not fit together, the output belongs to something else, or the disk is full.
    """
    settings = settings or PredictSettings()
    started = time.monotonic()
    job = open_job(
        model,
        image,
        out,
        settings,
        device=device,
        mask=mask,
        region=region,
        version=version,
        sharded=sharded,
        report=report,
    )
    with locked(job.output.path):
        try:
            ledger = open_ledger(job, settings, model)
            progress = _Progress(job, ledger, report)
            stopped = not _run(job, ledger, progress, should_stop)
            if not stopped:
                _finish_pyramid(job, ledger)
        except OSError as error:
            raise disk_error(error, job.output.path) from error
    seconds = time.monotonic() - started
    return PredictionSummary(
        path=job.output.path,
        labels=job.output.labels_path,
        blocks=len(job.plan),
        done=progress.count("done"),
        skipped=progress.count("skipped"),
        stopped=stopped,
        seconds=seconds,
        voxels_per_second=progress.voxels / max(seconds, 1e-9),
        halo=job.predictor.halo,
        halo_agreement=job.predictor.agreement,
    )


class _Progress:
    """Counts finished blocks and tells about them."""

    def __init__(self, job: VolumeJob, ledger: Ledger, report: Report) -> None:
        self._report = report
        self._wanted = tuple(job.plan.indices())
        self._finished = {index: ledger.finished()[index] for index in self._wanted if index in ledger.finished()}
        self._total_voxels = sum(job.plan[index].voxels for index in self._wanted if index not in self._finished)
        self.voxels = 0
        self._began = time.monotonic()
        report(
            "plan",
            blocks=len(self._wanted),
            done=self.count("done"),
            skipped=self.count("skipped"),
            halo=job.predictor.halo,
            halo_agreement=job.predictor.agreement,
            tile=job.plan.window,
        )

    @property
    def pending(self) -> tuple[int, ...]:
        return tuple(index for index in self._wanted if index not in self._finished)

    def count(self, status: Status) -> int:
        return sum(one == status for one in self._finished.values())

    def finish(self, block: Block, status: Status, seconds: float) -> None:
        self._finished[block.index] = status
        self.voxels += block.voxels
        rate = self.voxels / max(time.monotonic() - self._began, 1e-9)
        self._report(
            "block", index=block.index, origin=block.origin, status=status, seconds=seconds, voxels=block.voxels
        )
        self._report(
            "progress",
            done=len(self._finished),
            total=len(self._wanted),
            voxels_per_second=rate,
            seconds_left=(self._total_voxels - self.voxels) / max(rate, 1e-9),
        )


def _run(job: VolumeJob, ledger: Ledger, progress: _Progress, should_stop: ShouldStop) -> bool:
    """Read, compute and write all pending blocks; False when asked to stop."""
    writes: deque[Future[tuple[Block, Status, float]]] = deque()

    def settle(most: int) -> None:
        while writes and (len(writes) > most or writes[0].done()):
            progress.finish(*writes.popleft().result())

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            for block, data in _ahead(reader, job.read, progress.pending):
                began = time.monotonic()
                result = job.compute(block, data, should_stop)
                if result is None or should_stop():
                    # What is computed is worth keeping; it takes no longer than writing it.
                    if result is not None:
                        writes.append(writer.submit(_write, job, ledger, block, result, began))
                    settle(0)
                    return not (set(progress.pending))
                writes.append(writer.submit(_write, job, ledger, block, result, began))
                settle(QUEUE)
            settle(0)
            return True
        finally:
            for waiting in writes:
                waiting.cancel()


def _ahead(
    reader: ThreadPoolExecutor, read: Callable[[int], tuple[Block, BlockInput]], indices: Sequence[int]
) -> Iterator[tuple[Block, BlockInput]]:
    """Results of ``read`` in order, with `QUEUE` of them under way."""
    waiting: deque[Future[tuple[Block, BlockInput]]] = deque()
    try:
        for index in indices:
            waiting.append(reader.submit(read, index))
            if len(waiting) > QUEUE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _write(
    job: VolumeJob, ledger: Ledger, block: Block, result: BlockResult, began: float
) -> tuple[Block, Status, float]:
    """Write a block, then say so in the ledger, then whatever of the pyramid it completes."""
    status: Status = "done" if result.computed else "skipped"
    job.output.write(block, result)
    ledger.record(block.index, status)
    _climb(job, ledger, 0, job.plan.position(block.index))
    return block, status, time.monotonic() - began


def _climb(job: VolumeJob, ledger: Ledger, level: int, position: Shape) -> None:
    """Subsample the blocks of lower levels whose parts are now all finished."""
    pyramid = job.output.pyramid
    while (parent := pyramid.parent(level, position)) is not None:
        finished = ledger.finished(level)
        if not all(_number(pyramid.grid(level), child) in finished for child in pyramid.children(level + 1, parent)):
            return
        level, position = level + 1, parent
        number = _number(pyramid.grid(level), position)
        if number not in ledger.finished(level):
            job.output.subsample(level, position)
            ledger.record(number, "done", level=level)


def _finish_pyramid(job: VolumeJob, ledger: Ledger) -> None:
    """Blocks of lower levels that a killed run did not come to, or that a region of interest leaves incomplete."""
    pyramid = job.output.pyramid
    for level in range(1, len(pyramid.levels)):
        grid = pyramid.grid(level)
        for number in range(math.prod(grid)):
            if number in ledger.finished(level):
                continue
            position = np.unravel_index(number, grid)
            place = (int(position[0]), int(position[1]), int(position[2]))
            above = ledger.finished(level - 1)
            if any(_number(pyramid.grid(level - 1), child) in above for child in pyramid.children(level, place)):
                job.output.subsample(level, place)
                ledger.record(number, "done", level=level)


def _number(grid: Shape, position: Shape) -> int:
    return (position[0] * grid[1] + position[1]) * grid[2] + position[2]
