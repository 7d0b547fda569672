"""One prediction of a volume: all that is decided before its first block, in one process or in many."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.cubes import check_isotropic
from napari_autosegnet.data.gray_match import GrayScale
from napari_autosegnet.data.identity import image_identity, same_identity
from napari_autosegnet.data.images import ImageStack, open_image, open_selected, tell_notes
from napari_autosegnet.data.pairs import paired_files
from napari_autosegnet.data.same_place import check_same_place
from napari_autosegnet.data.selection import ALL, Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.blocks import (
    ALL_PLANES,
    XY,
    Block,
    BlockPlan,
    choose_block,
    choose_chunks,
    largest_cube,
    parse_region,
)
from napari_autosegnet.inference.compute.block_pixels import BlockInput, BlockResult
from napari_autosegnet.inference.compute.engines import usual_engine
from napari_autosegnet.inference.compute.fastest import (
    WORTH_MEASURING,
    fastest_engine,
    fastest_precision,
    fastest_tile,
)
from napari_autosegnet.inference.compute.gray_check import check_gray_values
from napari_autosegnet.inference.compute.precision import Precision
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.reading import check_image, read_block
from napari_autosegnet.inference.compute.sections import make_predictor
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.inference.instances.objects import describe_growth, object_classes
from napari_autosegnet.inference.output.file_kinds import loss
from napari_autosegnet.inference.output.ledger import (
    Ledger,
    instance_ledger_path,
    ledger_path,
    program_version,
    written_parts,
)
from napari_autosegnet.inference.output.output import Output, open_output
from napari_autosegnet.inference.output.picture_output import FileOutput
from napari_autosegnet.inference.output.store import ZarrOutput
from napari_autosegnet.inference.output.unfinished import unfinished
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import Model
from napari_autosegnet.ome_zarr.metadata import ome_version
from napari_autosegnet.ome_zarr.paths import is_node
from napari_autosegnet.settings import PredictSettings

if TYPE_CHECKING:
    import torch


#: About 1.6 * 10**14 voxels of whole blocks; the list of what is to be done stays below a gigabyte.
MAX_BLOCKS = 10**7


@dataclass
class VolumeJob:
    """A volume, a model, and where the result goes."""

    image: ImageStack
    mask: ImageStack | None
    survey: ImageSurvey
    predictor: Predictor
    plan: BlockPlan
    output: Output
    settings: PredictSettings

    @property
    def probabilities(self) -> bool:
        """Whether probabilities are written: objects are numbered from them."""
        return self.settings.probabilities or self.settings.instances

    def read(self, index: int) -> tuple[Block, BlockInput]:
        block = self.plan[index]
        return block, read_block(self.image, self.plan, block, self.mask, survey=self.survey)

    def compute(self, block: Block, data: BlockInput, should_stop: ShouldStop = never_stop) -> BlockResult | None:
        if data.wanted is not None and not data.wanted.any():
            scores = np.zeros((self.predictor.classes, *block.shape), np.uint8) if self.probabilities else None
            return BlockResult(np.zeros(block.shape, np.uint8), scores, 0)
        return self.predictor.block(self.plan, block, data, probabilities=self.probabilities, should_stop=should_stop)


@dataclass(frozen=True)
class VolumeRequest:
    """A prediction by paths: all that another process needs to open the same job.

    Attributes
    ----------
    model, image, mask, out : Path
        See `napari_autosegnet.api.predict`.
    read
        What of the image is read.
    precision : Precision, optional
        The same for all processes.
    scale : GrayScale, optional
        Of the image's gray values, once it is known.
    """

    model: Path
    image: Path
    out: Path | None
    settings: PredictSettings
    mask: Path | None = None
    read: Selection = ALL
    precision: Precision | None = None
    scale: GrayScale | None = None

    def opened(self) -> tuple[Model, ImageStack, ImageStack | None]:
        """Open model, image and mask.

        Raises
        ------
        UserError
            When one of them cannot be opened.
        """
        image = open_selected(self.image, self.read)
        mask = None if self.mask is None else open_image(self.mask, files=paired_files(self.image, self.mask)[1])
        return Model.load(self.model), image, mask

    def open(self, device: torch.device | str, report: Report = silent) -> tuple[Model, VolumeJob]:
        """Open everything, the output too; nothing is written."""
        model, image, mask = self.opened()
        job = open_job(
            model,
            image,
            self.out,
            self.settings,
            device=device,
            mask=mask,
            precision=self.precision,
            scale=self.scale,
            report=report,
        )
        return model, job


def open_job(
    model: Model,
    image: ImageStack,
    out: Path | None,
    settings: PredictSettings,
    *,
    device: torch.device | str = "cpu",
    mask: ImageStack | None = None,
    precision: Precision | None = None,
    scale: GrayScale | None = None,
    report: Report = silent,
) -> VolumeJob:
    """Decide blocks, tiles and output of a prediction; nothing is written yet.

    ``scale`` says how the image's gray values are scaled, where that was found out before.

    Raises
    ------
    UserError
        When image, mask, model, block and output do not fit together, or the image's gray values are unlike all that
        the model has seen.
    """
    check_image(model, image)
    shape = image.shape
    if mask is not None and mask.shape != shape:
        raise UserError(f"the mask has the shape {mask.shape}, the image {shape}; give a mask of the same shape")
    if mask is not None:
        check_same_place(image, mask, "the mask")
    if mask is not None and mask.path is not None and (missing := unfinished(mask.path)) is not None:
        raise UserError(f"{missing}; finish it before it serves as a mask")
    region = None if settings.region is None else parse_region(settings.region, shape)
    planes, largest = XY, None
    if settings.planes == "all":
        check_isotropic(image)
        planes, largest = ALL_PLANES, largest_cube(len(model.classes))
    predictor = make_predictor(model, device, settings, report, precision=precision)
    chunks = choose_chunks(shape, settings.block, image.chunks, image.sections_at_once, planes)
    block = choose_block(shape, chunks, settings.block, whole_sections=predictor.whole_sections, largest=largest)
    if out is not None and out.suffix.lower() == ".png":
        block = shape
    plan = predictor.plan(shape, block, region=region, planes=planes)
    if plan.count > MAX_BLOCKS:
        raise UserError(
            f"{image.path or image.name} of {' x '.join(map(str, shape))} voxels takes {plan.count} blocks, more than "
            f"the {MAX_BLOCKS} of one result; segment a part of it with --region"
        )
    output = open_output(out, image, model.classes, settings, chunks=chunks, block=block, mask=mask)
    if scale is None:
        scale = check_gray_values(model.normalization, image, settings.gray_values, report)
    survey = ImageSurvey(image, model.normalization, scale)
    return VolumeJob(image, mask, survey, predictor, plan, output, settings)


def open_ledger(job: VolumeJob, model: Model, report: Report = silent) -> Ledger:
    """The job's ledger, after the output was made or found to be that of an unfinished run of the same job.

    Raises
    ------
    UserError
        When there is something else, or a result made otherwise, in the output's place.
    """
    tell_notes([job.image, *([] if job.mask is None else [job.mask])], report)
    output, settings = job.output, job.settings
    if job.image.sections > 1:
        if job.image.voxels_are_unknown and settings.planes == "all":
            name = job.image.path or job.image.name
            report(Note(text=f"{name} says nothing of its voxels; they are taken for cubes"))
        if settings.instances:
            report(Note(text=f"{describe_growth(job.image, settings)} (--instance-growth)"))
    lost = loss(output.path)
    if lost is not None:
        report(Note(text=lost))
    path = ledger_path(output.path)
    ours = written_parts(path)
    foreign = output.foreign(ours)
    if foreign is not None:
        raise UserError(_no_result(foreign, job))
    strange = output.strange(ours) if settings.overwrite else None
    if strange is not None:
        what = "is a link" if strange.is_symlink() else "was not written by this program"
        raise UserError(f"{strange} {what} and would be lost with the result; move it away, or give another --out")
    if isinstance(output, ZarrOutput) and output.instances is not None:
        object_classes(model.classes, settings.instance_classes)  # known to be possible before the hours of computing
    _choose_what_is_fast(job, {} if settings.overwrite else Ledger.settings_of(path), report)
    plan = job.plan
    parts = {
        "model": model.fingerprint,
        "image": image_identity(job.image),
        "mask": None if job.mask is None else image_identity(job.mask),
        "settings": {
            "block": plan.block,
            "tile": job.predictor.tile,
            "halo": job.predictor.halo,
            "flips": settings.flips,
            "planes": settings.planes,
            "probabilities": job.probabilities,
            "instances": settings.instances,
            "format": settings.format,
            "sharded": settings.sharded,
            "levels": [level.shape for level in output.pyramid.levels],
            "region": plan.region,
            "gray_values": str(job.survey.scale),
            "precision": job.predictor.precision,
            "engine": job.predictor.engine,
        },
        "version": program_version(),
    }
    if settings.overwrite:
        output.remove(ours)
        ledger = Ledger.begin(path, parts)  # only now: until then the old one says whose the rest is
    else:
        ledger = Ledger.open(path, parts)
        output.remove_partials()
        ledger.forget_lost(output.written, report)
    if isinstance(output, ZarrOutput) and output.instances is not None and not output.instances.folder.exists():
        instance_ledger_path(output.path).unlink(missing_ok=True)
    if isinstance(output, FileOutput) and len(ledger.finished()) < len(plan):
        output.reopen()
    output.prepare()
    return ledger


def complete(job: VolumeJob, ledger: Ledger) -> None:
    """What is left to do when all blocks are written; refuses an image, or mask, that was written to meanwhile.

    Raises
    ------
    UserError
        Names what changed.
    """
    for part, stack in (("image", job.image), ("mask", job.mask)):
        if stack is not None and not same_identity(ledger.parts[part], image_identity(stack)):
            raise UserError(
                f"the {part} {stack.path or stack.name} changed while it was read, so the result is mixed; "
                "start again with --overwrite"
            )
    if isinstance(job.output, FileOutput):
        job.output.finish()


def _no_result(place: Path, job: VolumeJob) -> str:
    """The line for something else in the output's place."""
    if place != job.output.path or not is_node(place):
        return f"{place} exists and is not a result of this program; give another --out"
    image = job.image.path
    choices = (
        "give another --out" if image is None or ome_version(image) is None else "leave --out out, or give another"
    )
    return f"{place} is another store and no result of this program; {choices}"


def _choose_what_is_fast(job: VolumeJob, earlier: Mapping[str, Any], report: Report) -> None:
    """Engine, precision, tile: as in the run that is gone on with, since others have other bits; else the fastest."""
    predictor, settings = job.predictor, job.settings
    is_long = job.plan.computed >= WORTH_MEASURING
    available = predictor.engines
    if settings.engine == "auto":
        if earlier:
            engine = earlier.get("engine")
            predictor.use_engine(engine if engine in available else usual_engine(predictor.device))
        elif is_long and len(available) > 1:
            predictor.use_engine(fastest_engine(predictor, job.plan, report=report))
    if earlier.get("precision") in ("float32", *predictor.half_precisions):
        predictor.precision = earlier["precision"]
    elif predictor.half_precisions and predictor.device.type == "cpu" and settings.engine == "auto" and is_long:
        predictor.precision = fastest_precision(predictor, job.plan, report=report)
        if predictor.precision != "float32":
            predictor.use_engine(usual_engine(predictor.device))
    if settings.tile == "auto" and not predictor.whole_sections:
        if isinstance(earlier.get("tile"), int):
            predictor.tile = earlier["tile"]
        elif is_long and not earlier:
            predictor.tile = fastest_tile(predictor, job.plan, report=report)
        job.plan = dataclasses.replace(job.plan, tile=predictor.tile)
