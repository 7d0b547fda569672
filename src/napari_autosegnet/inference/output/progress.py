"""Counting of finished and failed blocks, and what is told about them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, BlockWritten, ProgressMade, Report, WarningRaised
from napari_autosegnet.inference.blocks import Block, BlockPlan, Shape
from napari_autosegnet.inference.output.ledger import Status
from napari_autosegnet.plain_text import counted

if TYPE_CHECKING:
    from napari_autosegnet.inference.compute.predictor import Predictor

#: A run whose first blocks all fail has another reason than bad blocks. (One bad chunk can spoil a dozen.)
HOPELESS = 50


class FailedBlock(BaseModel):
    """A block that could not be computed: its place (z, y, x) in the volume, and why."""

    model_config = ConfigDict(frozen=True)

    index: int
    origin: Shape
    shape: Shape
    reason: str

    def __str__(self) -> str:
        spans = ",".join(f"{start}:{start + size}" for start, size in zip(self.origin, self.shape, strict=True))
        return f"block {self.index} at {spans}: {self.reason}"


class PredictionSummary(BaseModel):
    """What a prediction did; ``done`` and ``skipped`` count the blocks of this and of earlier runs.

    ``constant_sections`` have one gray value throughout, and the label 0; ``faint_sections`` show next to nothing.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    labels: Path
    instances: Path | None = None
    blocks: int
    done: int
    skipped: int
    constant_sections: tuple[int, ...] = ()
    faint_sections: tuple[int, ...] = ()
    failed: tuple[FailedBlock, ...] = ()
    stopped: bool
    seconds: float
    voxels_per_second: float
    halo: int
    halo_agreement: float | None
    precision: str
    precision_agreement: float | None

    @property
    def failure(self) -> str:
        """One line on the failed blocks, where there are any."""
        others = "" if len(self.failed) == self.blocks else ", the others are done"
        return (
            f"{len(self.failed)} of {counted(self.blocks, 'block')} failed{others}; start it again to try these again"
        )


class Progress:
    """Counts the blocks of one stage of a run.

    Parameters
    ----------
    plan : BlockPlan
        Of the volume.
    finished : Mapping[int, Status]
        Blocks of earlier runs, from the ledger.
    report : Report
        Is told ``block`` and ``progress`` for every block, and ``warning`` for those that failed.
    step : str
        What the blocks are counted for.
    """

    def __init__(
        self, plan: BlockPlan, finished: Mapping[int, Status], report: Report, *, step: str = "predict"
    ) -> None:
        self._plan = plan
        self._report = report
        self._step = step
        self._wanted = tuple(plan.indices())
        self._finished = {index: finished[index] for index in self._wanted if index in finished}
        self._left = sum(plan[index].voxels for index in self._wanted if index not in self._finished)
        self._failed: dict[int, FailedBlock] = {}
        self._new = 0
        self.voxels = 0
        self._began = time.monotonic()

    def tell_plan(self, predictor: Predictor) -> None:
        """Report ``plan``."""
        self._report(
            BlocksPlanned(
                blocks=len(self._wanted),
                done=self.count("done"),
                skipped=self.count("skipped"),
                tile=self._plan.window,
                halo=predictor.halo,
                halo_agreement=predictor.agreement,
                precision=predictor.precision,
                precision_agreement=predictor.precision_agreement,
            )
        )

    @property
    def pending(self) -> tuple[int, ...]:
        return tuple(index for index in self._wanted if index not in self._finished)

    @property
    def failed(self) -> tuple[FailedBlock, ...]:
        return tuple(self._failed[index] for index in sorted(self._failed))

    def count(self, status: Status) -> int:
        return sum(one == status for one in self._finished.values())

    def finish(self, block: Block, status: Status, seconds: float, **about: Any) -> None:
        """Count a block whose data and ledger entry are on the disk."""
        self._failed.pop(block.index, None)
        self._finished[block.index] = status
        self._new += 1
        self.voxels += block.voxels
        self._left -= block.voxels
        rate = self.voxels / max(time.monotonic() - self._began, 1e-9)
        self._report(
            BlockWritten(
                index=block.index,
                origin=block.origin,
                status=status,
                seconds=seconds,
                voxels=block.voxels,
                step=self._step,
                **about,
            )
        )
        self._report(
            ProgressMade(
                step=self._step,
                done=len(self._finished),
                total=len(self._wanted),
                voxels_per_second=rate,
                seconds_left=self._left / max(rate, 1e-9),
            )
        )

    def fail(self, block: Block, reason: str, *, last: bool) -> None:
        """Count a failed attempt at a block; ``last`` when there will be no other in this run.

        Raises
        ------
        UserError
            When nothing but failures was seen, and several of them; with the first block's reason.
        """
        failed = FailedBlock(index=block.index, origin=block.origin, shape=block.shape, reason=reason)
        self._failed[block.index] = failed
        then = "left out of this run" if last else "tried again at the end"
        self._report(WarningRaised(text=f"{failed}; {then}"))
        if not self._new and len(self._failed) >= HOPELESS:
            raise UserError(f"the first {len(self._failed)} blocks failed; the first is {self.failed[0]}")
