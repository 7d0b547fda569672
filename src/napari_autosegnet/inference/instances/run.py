"""`labels/instances` of a volume, block by block in bounded memory, stage by stage.

Seeds are found and joined over the blocks, fragments grow from them, contacts between fragments tell which of them
are one object, objects are written, then their smaller levels, then their measurements. What comes before the objects
is kept in a hidden folder beside the store until they are written; a ledger of its own says what is done, so that a run
that was ended continues.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_autosegnet.events import Note, Report
from napari_autosegnet.files import write_atomically
from napari_autosegnet.inference.blocks import BlockPlan
from napari_autosegnet.inference.instances.measurements import measured
from napari_autosegnet.inference.instances.merging import linked, merged
from napari_autosegnet.inference.instances.objects import contacts, joined, object_classes, tiles_of
from napari_autosegnet.inference.instances.work import LEVELS, STAGES, InstanceWork, Stage
from napari_autosegnet.inference.output.arrays import BlockArray
from napari_autosegnet.inference.output.ledger import Ledger, instance_ledger_path, object_table_path
from napari_autosegnet.inference.output.progress import Progress
from napari_autosegnet.inference.output.pyramid import PyramidProgress
from napari_autosegnet.inference.output.store import ZarrOutput, remove_folder
from napari_autosegnet.interruption import ShouldStop
from napari_autosegnet.units import Placement

if TYPE_CHECKING:
    from napari_autosegnet.inference.job import VolumeJob
    from napari_autosegnet.model import Model

#: Told of a block that is done: its number, the seconds it took and the files it left.
Done = Callable[[int, float, int], None]
#: Does blocks of a stage at a level and calls back for each; False when asked to stop.
Do = Callable[[Stage, int, Iterable[int], Done], bool]


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

    def __init__(self, job: VolumeJob, model: Model, ledger: Ledger, report: Report) -> None:
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
                "instance_growth": "sections" if self.work.by_section else "volume",
                "instance_merge": self.work.merging,
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
        table = object_table_path(self._job.output.path)
        if any(not self._ledger.is_finished(number) for number in self._job.plan.indices()):
            table.unlink(missing_ok=True)  # of objects that were lost
            if not self._do_stages(do):
                return None
        measurements = None
        if not table.exists():
            plan = self._job.plan
            tiles = (tile for block in plan for tile in tiles_of(block.core))
            measurements = measured(self._instances.read, tiles, plan.shape, should_stop)
            if measurements is None:
                return None
        pyramid = PyramidProgress(self._instances.plan, self._ledger)
        for level in range(1, len(self._instances.plan.levels)):

            def level_done(number: int, seconds: float, files: int, level: int = level) -> None:
                self._ledger.record(number, "done", level=level, files=files)

            if not do("instances", level, tuple(pyramid.missing(level)), level_done):
                return None
        if measurements is not None:
            image = self._job.image
            measurements.write(table, Placement(image.scale, image.translation, image.unit))
            self._report(Note(text=f"measurements of the objects: {table}"))
        remove_folder(self.work.scratch)
        return self._instances.folder

    def _do_stages(self, do: Do) -> bool:
        """Find seeds, flood from them, merge and write what came of it; False when asked to stop."""
        work = self.work
        arrays: dict[Stage, BlockArray] = {"seeds": work.seeds, "fragments": work.fragments}
        for stage, array in arrays.items():
            if not array.folder.exists():
                self._ledger.forget(LEVELS[stage])  # someone tidied up, or all objects were written once
        work.make()
        # What two stages tell together, of all blocks, is made anew after a block that was lost.
        decisions: dict[Stage, tuple[Path, Callable[[], None]]] = {
            "seeds": (work.numbers_file, self._join),
            "contacts": (work.objects_file, self._merge),
        }
        for stage in STAGES:
            file, decide = decisions.get(stage, (None, None))
            if not self._do_stage(stage, file, do):
                return False
            if file is not None and decide is not None and not file.exists():
                decide()
        return True

    def _do_stage(self, stage: Stage, outdated: Path | None, do: Do) -> bool:
        plan, ledger, level = self._job.plan, self._ledger, LEVELS[stage]
        progress = Progress(plan, ledger.finished(level), self._report, step=stage)
        if progress.pending and outdated is not None:
            outdated.unlink(missing_ok=True)

        def done(number: int, seconds: float, files: int) -> None:
            ledger.record(number, "done", level=level, files=files)
            progress.finish(plan[number], "done", seconds)

        return do(stage, 0, progress.pending, done)

    def _merge(self) -> None:
        """Give fragments the numbers of their objects, in the order of their first fragments."""
        contacts = self.work.contacts()
        count = int(contacts.fragments.max(initial=0))
        objects = merged(count, contacts, self.work.merging)
        if self.work.by_section:
            objects = linked(objects, contacts)
        voxels = np.zeros(int(objects.max()) + 1, np.int64)
        np.add.at(voxels, objects[contacts.fragments], contacts.voxels)
        small = voxels < self._job.settings.instance_min_size
        objects[small[objects]] = 0
        content = io.BytesIO()
        np.save(content, objects)
        write_atomically(self.work.objects_file, content.getvalue())
        self._report(Note(text=f"{np.count_nonzero(voxels[1:] * ~small[1:])} objects"))

    def _join(self) -> None:
        """Give the parts of seeds in all blocks the numbers of the fragments that will grow from them.

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
                if before is None or before not in offsets or (axis == 0 and self.work.by_section):
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


def number_objects(
    job: VolumeJob, model: Model, ledger: Ledger, report: Report, should_stop: ShouldStop
) -> Path | None:
    """Write the instances of a job in this process; None when asked to stop."""
    run = InstanceRun(job, model, ledger, report)

    def do(stage: Stage, level: int, numbers: Iterable[int], done: Done) -> bool:
        for number in numbers:
            began = time.monotonic()
            files = None if should_stop() else run.work.do(stage, level, number, should_stop)
            if files is None:
                return False
            done(number, time.monotonic() - began, files)
        return True

    return run.number(do, should_stop)


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
