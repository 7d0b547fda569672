"""Tiles to class probabilities on one device."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.device import memory_holders
from napari_autosegnet.errors import UserError, is_out_of_memory
from napari_autosegnet.events import Note, Report, silent
from napari_autosegnet.inference.blocks import Block, BlockPlan, Span, Tile, round_up
from napari_autosegnet.inference.compute.block_pixels import BlockInput, BlockPixels, BlockResult, pad_to_domain
from napari_autosegnet.inference.compute.engines import (
    EngineName,
    available_engines,
    make_engine,
    seconds_taken,
    usual_engine,
)
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.inference.compute.precision import Precision, arithmetic, fast_precisions, kept_precisions
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import HalfPrecision, Model
from napari_autosegnet.networks.receptive_field import receptive_field_radius
from napari_autosegnet.pixel_classifier.forest import PixelClassifier

Array = npt.NDArray[Any]
Halo = Literal["auto", "exact"] | int

#: Window side of a network that pools over the whole image: only the whole section gives its result.
WHOLE = 2**30
#: Largest side of a window, unless the halo is wide, the user says otherwise or another one is measured to be faster.
USUAL_TILE = 512
#: Results for windows of one value that are kept at least, and bytes that more may take: empty regions are mostly of
#: one or two values, which mean something else in each section that has constants of its own.
_CONSTANTS_KEPT, _CONSTANTS_BYTES = 4, 2**26


class Predictor:
    """A model on a device, ready to be applied.

    Batch norm is folded. GPUs compute in half precision where the model's labels bear it, except in exact mode.

    Parameters
    ----------
    model : Model
        The model to apply.
    device : torch.device or str
        Where.
    tile : int
        Largest side of a window in pixels, halo included.
    halo : "auto", "exact" or int
        Pixels of surroundings. ``auto`` takes the figure that was measured when the training ended, or
        ``exact`` where there is none; ``exact`` is the receptive field's radius.
    batch_size : int
        Windows per pass; always filled, so that every pass has the same shape.
    flips : bool
        Average over the four mirror images.
    engine : EngineName, optional
        What computes; `use_engine` changes it.
    precision : Precision, optional
        Other than this device's own choice: all processes of one run use the same.
    report : Report
        Is told ``note`` when less memory than planned can be used, and once when pixels are NaN or infinite.

    Attributes
    ----------
    halo : int
        In pixels, a multiple of ``stride``.
    agreement : float or None
        Share of pixels that agree with whole-section inference at this halo; 1 when it is exact, None if unknown.
    exact : bool
        Tiles equal the whole section up to rounding.
    whole_sections : bool
        The network pools over the whole image and exactness was asked for, so each section is one window.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        *,
        tile: int = USUAL_TILE,
        halo: Halo = "auto",
        batch_size: int = 1,
        flips: bool = False,
        engine: EngineName | None = None,
        precision: Precision | None = None,
        report: Report = silent,
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.tile = tile
        self.batch_size = batch_size
        self.flips = flips
        self.classes = len(model.classes)
        self._report = report
        network = model.network("cpu")
        self.stride = int(network.stride)  # type: ignore[arg-type]
        self._radius = receptive_field_radius(network)
        self.halo, self.agreement, self.exact = self._choose_halo(halo)
        self.whole_sections = self.exact and self._radius is None
        if self.whole_sections:
            self.tile = WHOLE
        self.precision: Precision = precision or "float32"
        self.half_precisions: tuple[HalfPrecision, ...] = ()
        if precision is None and not self.exact:
            self.may_use(fast_precisions(self.device), now=self.device.type != "cpu")
        self._network = fold_batch_norm(network).requires_grad_(False)
        if engine is not None and engine not in self.engines and isinstance(network, PixelClassifier):
            raise UserError(f"a forest is not computed by {engine}; leave --engine out")
        self._engine = make_engine(engine or usual_engine(self.device), self._network, self.device)
        self._constants: OrderedDict[tuple[bytes, tuple[int, ...]], Tensor] = OrderedDict()
        self._told_missing = False

    def _choose_halo(self, halo: Halo) -> tuple[int, float | None, bool]:
        exact = None if self._radius is None else round_up(self._radius, self.stride)
        if halo == "auto" and self.model.halo is not None:
            return round_up(self.model.halo.pixels, self.stride), self.model.halo.agreement, False
        if isinstance(halo, int):
            pixels = round_up(halo, self.stride)
            enough = exact is not None and pixels >= exact
            return pixels, 1.0 if enough else None, enough
        return exact or 0, 1.0, True

    @property
    def engine(self) -> EngineName:
        """What computes."""
        return self._engine.name

    @property
    def engines(self) -> list[EngineName]:
        """What can compute the model here."""
        is_forest = isinstance(self._network, PixelClassifier)
        return [usual_engine(self.device)] if is_forest else available_engines(self.device)

    def use_engine(self, name: EngineName) -> None:
        """Compute with something else from now on."""
        if name != self._engine.name:
            self._engine = make_engine(name, self._network, self.device)
            self._constants.clear()

    def may_use(self, offered: Iterable[HalfPrecision], *, now: bool) -> None:
        """Allow half precision where the model's labels bear it; a CPU's is measured first, see `fastest_precision`."""
        self.half_precisions = kept_precisions(self.model, offered)
        if now and self.half_precisions:
            self.precision = self.half_precisions[0]

    @property
    def precision_agreement(self) -> float | None:
        """Share of pixels whose labels agree with those of float32; None for float32."""
        return None if self.precision == "float32" else self.model.half_precision[self.precision]

    def measured(
        self, engine: EngineName | None, window: tuple[int, int], passes: int, precision: Precision | None = None
    ) -> float:
        """Seconds of the fastest of some passes over a window (y, x), after one that prepares.

        Parameters
        ----------
        engine, precision : optional
            Others than what computes here.

        Raises
        ------
        torch.OutOfMemoryError
            When the window does not fit.
        """
        channels = (2 * self.model.context + 1) * self.model.image_channels
        images = torch.zeros((self.batch_size, channels, *window), device=self.device)
        tried = self._engine if engine is None else make_engine(engine, self._network, self.device)
        try:
            with torch.inference_mode(), arithmetic(self.device, precision or self.precision):
                tried(images)
                return min(seconds_taken(tried, images) for _ in range(passes))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise torch.OutOfMemoryError(str(error)) from error

    @property
    def exact_halo(self) -> int | None:
        """The receptive field's radius, rounded up to the stride; None when it is the whole image."""
        return None if self._radius is None else round_up(self._radius, self.stride)

    def plan(self, shape: tuple[int, int, int], block: tuple[int, int, int], **more: Any) -> BlockPlan:
        """Block plan for a volume with this predictor's tiles and halo."""
        return BlockPlan(
            shape, block, stride=self.stride, halo=self.halo, tile=self.tile, context=self.model.context, **more
        )

    def whole_section(self, array: Array) -> npt.NDArray[np.float32]:
        """Probabilities (K, y, x) of one section (c, y, x) in one pass; ``c`` includes the context sections."""
        height, width = array.shape[1:]
        sections = array.reshape(-1, self.model.image_channels, height, width)
        normalization = self.model.normalization
        grays = [section_gray(section) if normalization.kind == "section" else None for section in sections]
        constants = normalization.constants(grays)
        data = BlockInput(pad_to_domain(sections.swapaxes(0, 1), self.stride), (0, 0, 0), constants=constants)
        pixels = BlockPixels(data, constants, self.device)
        window = pixels.window(range(len(sections)), (slice(None), slice(None)))
        return self.probabilities_of(window[None])[0, :, :height, :width].cpu().numpy()

    def block(
        self,
        plan: BlockPlan,
        block: Block,
        data: BlockInput,
        *,
        probabilities: bool = False,
        should_stop: ShouldStop = never_stop,
    ) -> BlockResult | None:
        """Labels and, if asked for, uint8 probabilities of a block; None when asked to stop."""
        self.tell_missing(block, data)
        # Gathered on the device and copied once: a copy per tile would make the device wait for the host.
        gathered = torch.zeros(block.shape, dtype=torch.uint8, device=self.device)
        fractions = None
        if probabilities:
            fractions = torch.zeros((self.classes, *block.shape), dtype=torch.uint8, device=self.device)
        computed = 0
        for place, predicted, fresh in self._parts(plan, block, data, should_stop):
            if predicted is None:
                return None
            computed += fresh
            gathered[place] = most_likely_class(predicted)
            if fractions is not None:
                fractions[(slice(None), *place)] = predicted.mul(255).round_()
        labels = _on_host(gathered)
        scores = None if fractions is None else _on_host(fractions)
        asked = data.asked(block.shape)
        if asked is not None:
            labels[~asked] = 0
            if scores is not None:
                scores[:, ~asked] = 0
        blank = () if data.blank is None else tuple(int(block.origin[0] + z) for z in np.flatnonzero(data.blank))
        return BlockResult(labels, scores, computed, blank, data.faint)

    def tiles(self, plan: BlockPlan, block: Block, data: BlockInput) -> Iterator[tuple[int, Tile, Tensor, int]]:
        """Probabilities tile by tile: section, tile, (K, y, x) of its kept part on the device, and whether computed.

        Tiles without a voxel that gets a label are left out. A window in which each channel of each section has one
        value gives the same result everywhere, so it is computed once per value. When memory does not suffice, the
        block starts again with smaller batches, then smaller windows: then tiles come twice.
        """
        yield from self._tiles_that_fit(plan, block, data, self._on_device(data))

    def _on_device(self, data: BlockInput) -> BlockPixels:
        constants = data.constants or self.model.normalization.constants([None] * data.pixels.shape[1])
        return BlockPixels(data, constants, self.device)

    def _parts(
        self, plan: BlockPlan, block: Block, data: BlockInput, should_stop: ShouldStop
    ) -> Iterator[tuple[tuple[int | slice, ...], Tensor | None, int]]:
        """Probabilities part by part: its place in the block, (K, y, x), and how many windows were computed.

        Instead of probabilities there is None once it was to stop.
        """
        if len(plan.planes) > 1:
            yield from self._averages(plan, block, data, should_stop)
            return
        for section, tile, predicted, fresh in self.tiles(plan, block, data):
            if should_stop():
                yield (), None, 0
                return
            yield _place(section, tile, block), predicted, fresh

    def _averages(
        self, plan: BlockPlan, block: Block, data: BlockInput, should_stop: ShouldStop
    ) -> Iterator[tuple[tuple[int | slice, ...], Tensor | None, int]]:
        """As `_parts`: means over the planes, section by section."""
        pixels, asked = self._on_device(data), data.asked(block.shape)
        total = torch.zeros((self.classes, *block.shape), device=self.device)
        memory = None
        while memory != (self.batch_size, self.tile):  # else tiles came twice, and are added up anew
            memory, computed = (self.batch_size, self.tile), 0
            total.zero_()
            for axes, view in plan.seen.items():
                seen = block.turned(axes)
                sums = total.permute(0, *(1 + axis for axis in axes))
                for section, tile, predicted, fresh in self._tiles_that_fit(
                    view, seen, data.turned(axes, asked), pixels.turned(axes)
                ):
                    if should_stop():
                        yield (), None, 0
                        return
                    sums[(slice(None), *_place(section, tile, seen))] += predicted
                    computed += fresh
        for section in range(block.shape[0]):
            yield (section,), total[:, section].div_(len(plan.planes)), computed if section == 0 else 0

    def _tiles_that_fit(
        self, plan: BlockPlan, block: Block, data: BlockInput, pixels: BlockPixels
    ) -> Iterator[tuple[int, Tile, Tensor, int]]:
        while True:
            plan = dataclasses.replace(plan, tile=min(plan.tile, self.tile))
            try:
                yield from self._tiles(plan, block, data, pixels)
                return
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._use_less_memory(plan)

    def _tiles(
        self, plan: BlockPlan, block: Block, data: BlockInput, pixels: BlockPixels
    ) -> Iterator[tuple[int, Tile, Tensor, int]]:
        waiting: list[tuple[int, Tile, Tensor]] = []
        asked = data.asked(block.shape)
        for section in range(*block.core[0]):
            sections = [read - data.origin[0] for read in plan.context_sections(section)]
            for tile in plan.tiles(block):
                if asked is not None and not asked[_place(section, tile, block)].any():
                    continue
                window = _within(tile.window, data.origin[1:])
                value = _only_value(data.pixels[(slice(None), slice(None), *window)][:, sections])
                here = pixels.window(sections, window)
                if value is not None:
                    probabilities, fresh = self._constant(value + pixels.key(sections, window), here)
                    yield section, tile, _kept(probabilities, tile), fresh
                    continue
                waiting.append((section, tile, here))
                if len(waiting) == self.batch_size:
                    yield from self._batch(waiting)
                    waiting.clear()
        if waiting:
            yield from self._batch(waiting)

    def tell_missing(self, block: Block, data: BlockInput) -> None:
        """Say once that the image has pixels that are no numbers."""
        if data.missing is None or self._told_missing:
            return
        self._told_missing = True
        counts = data.missing.sum((1, 2))
        first = int((counts > 0).argmax())
        where = ", ".join(
            f"{axis} {start} to {stop - 1}" for axis, (start, stop) in zip("yx", block.core[1:], strict=True)
        )
        text = (
            f"the image has pixels that are NaN or infinite, first in section {block.origin[0] + first} "
            f"({counts[first]} of them at {where}); such pixels get the label 0, and the network sees the mean there"
        )
        self._report(Note(text=text))

    def _batch(self, waiting: list[tuple[int, Tile, Tensor]]) -> Iterator[tuple[int, Tile, Tensor, int]]:
        windows = [window for _, _, window in waiting]
        windows += [windows[-1]] * (self.batch_size - len(windows))  # one fixed batch shape
        predicted = self.probabilities_of(torch.stack(windows))
        for (section, tile, _), one in zip(waiting, predicted, strict=False):
            yield section, tile, _kept(one, tile), 1

    def _constant(self, value: bytes, window: Tensor) -> tuple[Tensor, int]:
        key = (value, tuple(window.shape))
        fresh = key not in self._constants
        if fresh:
            probabilities = self.probabilities_of(torch.stack([window] * self.batch_size))[0].clone()
            self._constants[key] = probabilities
            kept = max(_CONSTANTS_KEPT, _CONSTANTS_BYTES // (probabilities.numel() * probabilities.element_size()))
            while len(self._constants) > kept:
                self._constants.popitem(last=False)
        self._constants.move_to_end(key)
        return self._constants[key], int(fresh)

    def probabilities_of(self, images: Tensor) -> Tensor:
        """Probabilities (n, K, y, x) fp32 of normalized images (n, c, y, x)."""
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            if not self.flips:
                return self._softmax(images)
            total = self._softmax(images)
            for axes in ((-1,), (-2,), (-2, -1)):
                total = total + self._softmax(images.flip(axes)).flip(axes)
            return total / 4

    def _softmax(self, images: Tensor) -> Tensor:
        return self._engine(images).to(torch.float32).softmax(1)

    def _use_less_memory(self, plan: BlockPlan) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._constants.clear()
        if self.batch_size > 1:
            self.batch_size = -(-self.batch_size // 2)
            self._tell(f"{self.batch_size} tiles per pass")
            return
        largest = max(plan.window)
        smaller = round_up(largest // 2, self.stride)
        if self.whole_sections or smaller >= largest or smaller < 2 * self.halo + self.stride:
            raise UserError(
                f"a tile of {plan.window[0]} x {plan.window[1]} pixels does not fit in the free memory of "
                f"{self.device}{memory_holders(self.device)}; "
                "end other programs, take a smaller --halo, or another --device"
            )
        self.tile = smaller
        self._tell(f"tiles of {smaller} pixels")

    def _tell(self, smaller: str) -> None:
        self._report(Note(text=f"too little memory is free on {self.device}: continuing with {smaller}"))


def most_likely_class(probabilities: Tensor) -> Tensor:
    """Number 1..K (y, x) of the most likely class of (K, y, x), the first of equals.

    PyTorch's argmax over a short axis takes 25 times as long on a CPU, a third of a small network's own time.
    """
    best = probabilities[0]
    numbers = torch.ones(best.shape, dtype=torch.uint8, device=best.device)
    for number, one in enumerate(probabilities[1:], start=2):
        numbers.masked_fill_(one > best, number)
        best = torch.maximum(best, one)
    return numbers


def _within(spans: tuple[Span, ...], origin: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(span[0] - start, span[1] - start) for span, start in zip(spans, origin, strict=True))


def _place(section: int, tile: Tile, block: Block) -> tuple[int, slice, slice]:
    """A tile's kept part within its block."""
    y, x = _within(tile.core, block.origin[1:])
    return section - block.origin[0], y, x


def _kept(probabilities: Tensor, tile: Tile) -> Tensor:
    """The kept part (K, y, x) of a window's result."""
    return probabilities[(slice(None), *_within(tile.core, (tile.window[0][0], tile.window[1][0])))]


def _only_value(window: Array) -> bytes | None:
    """The value per channel and section, when a window (c, sections, y, x) has no other."""
    corner = window[:, :, :1, :1]
    # The middle row decides nearly always; only then is the whole window looked at.
    if not (window[:, :, window.shape[2] // 2] == corner[:, :, 0]).all() or not (window == corner).all():
        return None
    return corner.tobytes()


def _on_host(values: Tensor) -> npt.NDArray[np.uint8]:
    """A result as an array; from CUDA through pinned memory, waited for once."""
    if values.device.type != "cuda":
        return values.cpu().numpy()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    pinned.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return pinned.numpy()
