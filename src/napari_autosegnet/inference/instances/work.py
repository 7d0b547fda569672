"""What one process can do for the objects of a job: one block of one stage at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_autosegnet.inference.blocks import BlockPlan, Box, length
from napari_autosegnet.inference.instances.merging import Contacts
from napari_autosegnet.inference.instances.objects import (
    FLOOD,
    Ids,
    boundary_probability,
    flood,
    grow_by_section,
    grown,
    label_seeds,
    merging_below,
    object_classes,
    sampling,
    seed_mask,
    tiles_of,
    within,
)
from napari_autosegnet.inference.output.arrays import BlockArray, as_bits
from napari_autosegnet.inference.output.ledger import scratch_path
from napari_autosegnet.inference.output.store import LabelPyramid, ProbabilityArray, ZarrOutput
from napari_autosegnet.interruption import ShouldStop

if TYPE_CHECKING:
    from napari_autosegnet.inference.job import VolumeJob

#: In this order; pyramid levels are the stage ``instances``, too.
Stage = Literal["seeds", "fragments", "contacts", "instances"]
STAGES: tuple[Stage, ...] = get_args(Stage)
#: Places of the stages among the levels of the ledger.
LEVELS: dict[Stage, int] = {"seeds": -1, "fragments": -2, "contacts": -3, "instances": 0}


class InstanceWork:
    """What one process can do for the objects of a job: one block of one stage at a time."""

    def __init__(self, job: VolumeJob) -> None:
        output = job.output
        assert isinstance(output, ZarrOutput) and output.instances is not None and output.probabilities is not None
        self._instances: LabelPyramid = output.instances
        self._scores: ProbabilityArray = output.probabilities
        self._plan: BlockPlan = job.plan
        self._distance = job.settings.instance_distance
        names = job.predictor.model.classes
        self._classes = object_classes(names, job.settings.instance_classes)
        self.merging = merging_below(names, self._classes, job.settings.instance_merge)
        self.by_section = grow_by_section(job.image, job.settings)
        self._sampling = sampling(job.image.scale, by_section=self.by_section)
        self.scratch = scratch_path(output.path)
        self.seeds, self.fragments = (
            BlockArray(
                self.scratch / name,
                job.plan.shape,
                output.instances.chunks,
                dtype=np.uint32,
                axes=("z", "y", "x"),
            )
            for name in ("seeds", "fragments")
        )
        self._numbers: Ids | None = None
        self._offsets: dict[int, int] = {}
        self._objects: Ids | None = None

    @classmethod
    def attached(cls, job: VolumeJob) -> InstanceWork:
        """Work in the scratch folder that the dispatching process made."""
        work = cls(job)
        work.seeds.open()
        work.fragments.open()
        return work

    def make(self) -> None:
        """Make the arrays in the scratch folder, where they are missing."""
        self.seeds.make()
        self.fragments.make()

    def do(self, stage: Stage, level: int, number: int, should_stop: ShouldStop) -> int | None:
        """Do one block of a stage; returns which files it left (see `written`), or None when it was to stop."""
        if level > 0:
            self._instances.subsample(level, self._instances.plan.position(level, number))
        elif not self._stages[stage](number, should_stop):
            return None
        return self.written(level or LEVELS[stage], number)

    @property
    def _stages(self) -> dict[Stage, Callable[[int, ShouldStop], bool]]:
        return {
            "seeds": self._find_seeds,
            "fragments": self._flood,
            "contacts": self._find_contacts,
            "instances": self._number,
        }

    def written(self, level: int, number: int) -> int:
        """Which of the files that a block may leave at a level of the ledger are on the disk, as bits."""
        if level < 0:
            core = self._plan[number].core
            if level == LEVELS["contacts"]:
                return as_bits([self._contacts_file(number).exists()])
            return as_bits((self.seeds if level == LEVELS["seeds"] else self.fragments).written(*core))
        plan = self._instances.plan
        return as_bits(self._instances.written(plan.core(level, plan.position(level, number)), level))

    def _find_seeds(self, number: int, should_stop: ShouldStop) -> bool:
        core = self._plan[number].core
        z, y, x = (math.floor(self._distance / step) + 1 for step in self._sampling)
        mask = np.zeros(self._plan[number].shape, bool)
        for tile in tiles_of(core):
            around = grown(tile, (z, y, x), self._plan.shape)
            seeds = seed_mask(self._boundary(around), self._distance, self._sampling, self.merging)
            mask[within(tile, core)] = seeds[within(tile, around)]
            if should_stop():
                return False
        self.seeds.write(label_seeds(mask, by_section=self.by_section), *core)
        return True

    def _flood(self, number: int, should_stop: ShouldStop) -> bool:
        core = self._plan[number].core
        z, y, x = (math.ceil(FLOOD / step) for step in self._sampling)
        # Surroundings larger than the block itself would cost more than they are worth.
        margin = (min(z, self._plan.block[0]), y, x)
        fragments = np.zeros(self._plan[number].shape, np.uint32)
        for tile in tiles_of(core):
            around = grown(tile, margin, self._plan.shape)
            seeds = self._numbered_seeds(around)
            if seeds.any():
                basins = flood(self._boundary(around), seeds, by_section=self.by_section)
                fragments[within(tile, core)] = basins[within(tile, around)]
            if should_stop():
                return False
        self.fragments.write(fragments, *core)
        return True

    def _find_contacts(self, number: int, should_stop: ShouldStop) -> bool:
        found = []
        for tile in tiles_of(self._plan[number].core):
            z, y, x = ((start, min(end + 1, size)) for (start, end), size in zip(tile, self._plan.shape, strict=True))
            fragments = self.fragments.read(z, y, x)
            if fragments.any():
                core = (length(tile[0]), length(tile[1]), length(tile[2]))
                found.append(Contacts.of(fragments, self._boundary((z, y, x)), core, by_section=self.by_section))
            if should_stop():
                return False
        Contacts.added(found).save(self._contacts_file(number))
        return True

    def contacts(self) -> Contacts:
        """Those of all blocks, once they are known. Memory: some bytes for every fragment."""
        return Contacts.added(Contacts.load(self._contacts_file(number)) for number in self._plan.indices())

    def _contacts_file(self, number: int) -> Path:
        return self.scratch / "contacts" / f"{number}.npz"

    def _number(self, number: int, should_stop: ShouldStop) -> bool:
        if self._objects is None:
            self._objects = np.load(self.objects_file)
        assert self._objects is not None
        core = self._plan[number].core
        self._instances.write(core, self._objects[self.fragments.read(*core)])
        return True

    def _boundary(self, box: Box) -> npt.NDArray[np.uint8]:
        return boundary_probability(self._scores.read(self._classes, box))

    def _numbered_seeds(self, box: Box) -> Ids:
        """Seeds of a box with the numbers of the fragments that grow from them, which its blocks do not know."""
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
        """The fragment of every seed, once that is known."""
        return self.scratch / "numbers.npz"

    @property
    def objects_file(self) -> Path:
        """The object of every fragment (0: none), once that is known."""
        return self.scratch / "objects.npy"
