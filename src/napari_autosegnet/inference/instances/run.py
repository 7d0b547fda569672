"""`labels/instances` of a volume, block by block in bounded memory: seeds, joining, flooding, levels, measurements.

Seeds are kept in a hidden folder beside the store until the objects are written; a ledger of its own says what is
done, so that a run that was ended continues.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_autosegnet.events import Note, Report
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import BlockPlan, Box
from napari_autosegnet.inference.instances.measurements import Measurements, measured
from napari_autosegnet.inference.instances.objects import (
    FLOOD,
    Ids,
    boundary_probability,
    contacts,
    flood,
    grown,
    joined,
    label_seeds,
    object_classes,
    seed_mask,
    tiles_of,
    within,
)
from napari_autosegnet.inference.output.arrays import BlockArray, as_bits
from napari_autosegnet.inference.output.ledger import Ledger, instance_ledger_path, object_table_path, scratch_path
from napari_autosegnet.inference.output.progress import Progress
from napari_autosegnet.inference.output.pyramid import PyramidProgress
from napari_autosegnet.inference.output.store import LabelPyramid, ProbabilityArray, ZarrOutput, remove_folder
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.inference.compute.applied_model import AppliedModel
    from napari_autosegnet.inference.job import VolumeJob

#: The seeds' place among the levels of the ledger.
SEEDS = -1

#: Told of a block that is done: its number, the seconds it took and the files it left.
Done = Callable[[int, float, int], None]
#: Does blocks of a stage at a level and calls back for each; False when asked to stop.
Do = Callable[[Literal["seeds", "instances"], int, Iterable[int], Done], bool]


class InstanceWork:
    """What one process can do for the objects of a job: one block of one stage at a time."""

    def __init__(self, job: VolumeJob) -> None:
        output = job.output
        assert isinstance(output, ZarrOutput) and output.instances is not None and output.probabilities is not None
        self._instances: LabelPyramid = output.instances
        self._scores: ProbabilityArray = output.probabilities
        self._plan: BlockPlan = job.plan
        self._distance = job.settings.instance_distance
        self._classes = object_classes(job.predictor.model.classes, job.settings.instance_classes)
        self._sampling = sampling(job.image.scale)
        self.scratch = scratch_path(output.path)
        self.seeds = BlockArray(
            self.scratch / "seeds",
            job.plan.shape,
            output.instances.chunks,
            dtype=np.uint32,
            axes=("z", "y", "x"),
        )
        self._numbers: Ids | None = None
        self._offsets: dict[int, int] = {}

    @classmethod
    def attached(cls, job: VolumeJob) -> InstanceWork:
        """Work on seeds that the dispatching process made room for."""
        work = cls(job)
        work.seeds.open()
        return work

    def do(self, stage: Literal["seeds", "instances"], level: int, number: int, should_stop: ShouldStop) -> int | None:
        """Do one block of a stage; returns which files it left (see `written`), or None when it was to stop."""
        if stage == "seeds":
            finished = self._find_seeds(number, should_stop)
        elif level:
            self._instances.subsample(level, self._instances.plan.position(level, number))
            finished = True
        else:
            finished = self._flood(number, should_stop)
        return self.written(SEEDS if stage == "seeds" else level, number) if finished else None

    def written(self, level: int, number: int) -> int:
        """Which of the files that a block of seeds (`SEEDS`) or of objects may leave are on the disk, as bits."""
        if level == SEEDS:
            return as_bits(self.seeds.written(*self._plan[number].core))
        plan = self._instances.plan
        return as_bits(self._instances.written(plan.core(level, plan.position(level, number)), level))

    def _find_seeds(self, number: int, should_stop: ShouldStop) -> bool:
        core = self._plan[number].core
        z, y, x = (math.floor(self._distance / step) + 1 for step in self._sampling)
        mask = np.zeros(self._plan[number].shape, bool)
        for tile in tiles_of(core):
            around = grown(tile, (z, y, x), self._plan.shape)
            seeds = seed_mask(self._boundary(around), self._distance, self._sampling)
            mask[within(tile, core)] = seeds[within(tile, around)]
            if should_stop():
                return False
        self.seeds.write(label_seeds(mask), *core)
        return True

    def _flood(self, number: int, should_stop: ShouldStop) -> bool:
        core = self._plan[number].core
        z, y, x = (math.ceil(FLOOD / step) for step in self._sampling)
        # Surroundings larger than the block itself would cost more than they are worth.
        margin = (min(z, self._plan.block[0]), y, x)
        instances = np.zeros(self._plan[number].shape, np.uint32)
        for tile in tiles_of(core):
            around = grown(tile, margin, self._plan.shape)
            seeds = self._numbered_seeds(around)
            if seeds.any():
                instances[within(tile, core)] = flood(self._boundary(around), seeds)[within(tile, around)]
            if should_stop():
                return False
        self._instances.write(core, instances)
        return True

    def _boundary(self, box: Box) -> npt.NDArray[np.uint8]:
        return boundary_probability(self._scores.read(self._classes, box))

    def _numbered_seeds(self, box: Box) -> Ids:
        """Seeds of a box with the numbers of their objects, which its blocks do not know."""
        if self._numbers is None:
            with np.load(self.numbers_file) as content:
                self._numbers = content["numbers"]
                self._offsets = dict(zip(content["blocks"].tolist(), content["offsets"].tolist(), strict=True))
        assert self._numbers is not None
        result = self.seeds.read(*box).astype(np.uint32)
        ranges = [range(span[0] // step, -(-span[1] // step)) for span, step in zip(box, self._plan.block, strict=True)]
        for place in np.ndindex(*(len(r) for r in ranges)):
            z, y, x = (r[i] for r, i in zip(ranges, place, strict=True))
            number = self._plan.index((z, y, x))
            if number not in self._offsets:
                continue  # outside the region of interest: no seeds
            core = self._plan[number].core
            part = tuple(slice(max(a[0], b[0]) - b[0], min(a[1], b[1]) - b[0]) for a, b in zip(core, box, strict=True))
            local = result[part]
            local[local > 0] += np.uint32(self._offsets[number])
            result[part] = self._numbers[local]
        return result

    @property
    def numbers_file(self) -> Path:
        """The object of every seed, once that is known."""
        return self.scratch / "numbers.npz"


class InstanceRun:
    """All stages of one job, done by whoever `number` is told.

    Parameters
    ----------
    job : VolumeJob
        Its labels and probabilities are complete.
    model : Model
        For the ledger.
    ledger : Ledger
        Of the labels.
    report : Report
        Is told ``block`` and ``progress`` with the step ``instances``.
    """

    def __init__(self, job: VolumeJob, model: AppliedModel, ledger: Ledger, report: Report) -> None:
        self.work = InstanceWork(job)
        self._job = job
        self._report = report
        assert isinstance(job.output, ZarrOutput) and job.output.instances is not None
        self._instances = job.output.instances
        parts = {
            "labels": ledger.fingerprint,
            "model": model.fingerprint,
            "settings": {
                "instance_distance": job.settings.instance_distance,
                "instance_min_size": job.settings.instance_min_size,
                "instance_classes": object_classes(model.classes, job.settings.instance_classes),
            },
        }
        path = instance_ledger_path(job.output.path)
        if not path.exists():
            remove_folder(self.work.scratch)  # of a run that is forgotten
        self._ledger = Ledger.open(path, parts)
        self._ledger.forget_lost(self.work.written, report)

    def number(self, do: Do, should_stop: ShouldStop) -> Path | None:
        """Number all objects and measure them; None when asked to stop."""
        plan, ledger = self._job.plan, self._ledger
        flooded = Progress(plan, ledger.finished(), self._report, step="instances")
        table = object_table_path(self._job.output.path)
        if flooded.pending:
            table.unlink(missing_ok=True)  # of objects that were lost
            if not self.work.seeds.folder.exists():
                ledger.forget(SEEDS)  # someone tidied up, or all objects were written once
            self.work.seeds.make()
            seeded = Progress(plan, ledger.finished(SEEDS), self._report, step="seeds")
            if seeded.pending:
                self.work.numbers_file.unlink(missing_ok=True)  # of other seeds

            def seeds_done(number: int, seconds: float, files: int) -> None:
                ledger.record(number, "done", level=SEEDS, files=files)
                seeded.finish(plan[number], "done", seconds)

            if not do("seeds", 0, seeded.pending, seeds_done):
                return None
            if not self.work.numbers_file.exists():
                self._join()

            def flood_done(number: int, seconds: float, files: int) -> None:
                ledger.record(number, "done", files=files)
                flooded.finish(plan[number], "done", seconds)

            if not do("instances", 0, flooded.pending, flood_done):
                return None
        measurements = None
        if not table.exists():
            measurements = self._measure_and_clear(should_stop)
            if measurements is None:
                return None
        pyramid = PyramidProgress(self._instances.plan, ledger)
        for level in range(1, len(self._instances.plan.levels)):

            def level_done(number: int, seconds: float, files: int, level: int = level) -> None:
                ledger.record(number, "done", level=level, files=files)

            if not do("instances", level, tuple(pyramid.missing(level)), level_done):
                return None
        if measurements is not None:
            image = self._job.image
            measurements.write(table, Placement(image.scale, image.translation, image.unit))
            self._report(Note(text=f"measurements of the objects: {table}"))
        remove_folder(self.work.scratch)
        return self._instances.folder

    def _measure_and_clear(self, should_stop: ShouldStop) -> Measurements | None:
        """Measure the objects, and remove those that are too small; None when asked to stop.

        Done again after a crash, it removes the rest of them.
        """
        plan = self._job.plan
        tiles = (tile for block in plan for tile in tiles_of(block.core))
        measurements = measured(self._instances.read, tiles, plan.shape, should_stop)
        if measurements is None:
            return None
        small = measurements.forget_below(self._job.settings.instance_min_size)
        for block in plan if len(small) else ():
            if should_stop():
                return None
            objects = self._instances.read(block.core)
            where = np.isin(objects, small)
            if where.any():
                objects[where] = 0
                self._instances.write(block.core, objects)
                self._ledger.record(block.index, "done", files=self.work.written(0, block.index))
        return measurements

    def _join(self) -> None:
        """Give the parts of seeds in all blocks the numbers of their objects.

        Memory: some bytes for every seed, and one block.
        """
        plan, seeds = self._job.plan, self.work.seeds
        offsets: dict[int, int] = {}
        total = 0
        pairs: list[npt.NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        for number in plan.indices():
            core = plan[number].core
            block = seeds.read(*core)
            offsets[number] = total
            for axis, before in enumerate(_blocks_before(plan, number)):
                if before is None or before not in offsets:
                    continue
                face = list(plan[before].core)
                face[axis] = (face[axis][1] - 1, face[axis][1])
                plane = seeds.read(*face)
                touching = contacts(plane, np.take(block, [0], axis=axis))
                pairs.append(touching + np.array([offsets[before], total]))
            total += int(block.max(initial=0))
        numbers = joined(total, np.concatenate(pairs))
        content = io.BytesIO()
        np.savez(
            content,
            numbers=numbers,
            blocks=np.array(list(offsets), np.int64),
            offsets=np.array(list(offsets.values()), np.int64),
        )
        write_atomically(self.work.numbers_file, content.getvalue())
        self._report(Note(text=f"{int(numbers.max(initial=0))} objects"))


def number_objects(
    job: VolumeJob, model: AppliedModel, ledger: Ledger, report: Report, should_stop: ShouldStop
) -> Path | None:
    """Write the instances of a job in this process; None when asked to stop."""
    run = InstanceRun(job, model, ledger, report)

    def do(stage: Literal["seeds", "instances"], level: int, numbers: Iterable[int], done: Done) -> bool:
        for number in numbers:
            began = time.monotonic()
            files = None if should_stop() else run.work.do(stage, level, number, should_stop)
            if files is None:
                return False
            done(number, time.monotonic() - began, files)
        return True

    return run.number(do, should_stop)


def sampling(scale: Sequence[float]) -> tuple[float, float, float]:
    """Size of a voxel (z, y, x) in pixels of x."""
    z, y, x = scale
    if min(z, y, x) <= 0:
        return 1.0, 1.0, 1.0
    return z / x, y / x, 1.0


def _blocks_before(plan: BlockPlan, number: int) -> list[int | None]:
    """The neighbors of a block that come before it along z, y and x."""
    place = plan.position(number)
    before: list[int | None] = []
    for axis in range(3):
        if place[axis] == 0:
            before.append(None)
            continue
        z, y, x = (at - (each == axis) for each, at in enumerate(place))
        before.append(plan.index((z, y, x)))
    return before
