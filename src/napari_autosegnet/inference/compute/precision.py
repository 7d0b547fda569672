"""Half precision: where a device is fast in it, and with models whose labels it leaves alone.

A float16 holds 11 binary digits, a bfloat16 8. What that does to a model's labels is measured when its training ends,
on any machine: in float32, with the result of every operation rounded. So the figure says what a GPU will do, too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_autosegnet.data.images import ImageStack
from napari_autosegnet.inference.compute.block_pixels import BlockInput, BlockPixels, pad_to_domain
from napari_autosegnet.inference.compute.check_crops import TARGET, check_crops
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.interruption import ShouldStop, never_stop
from napari_autosegnet.model import HalfPrecision, Model

Precision = Literal["float32"] | HalfPrecision

HALF: tuple[HalfPrecision, ...] = get_args(HalfPrecision)
#: What of a CPU multiplies fast in it, as torch names it.
_CPU_UNITS = {"float16": ("amx_fp16",), "bfloat16": ("amx_bf16", "avx512_bf16")}
#: Side of the crops that are looked at.
_SIDE = 512
#: Other images may reach so much higher values in the network than the images that are looked at.
_HEADROOM = 16


def fast_precisions(device: torch.device) -> tuple[HalfPrecision, ...]:
    """What a device multiplies faster than float32, the most exact first."""
    if device.type == "cuda":
        has = {
            "float16": torch.cuda.get_device_capability(device) >= (7, 0),
            "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
        }
        return tuple(name for name in HALF if has[name])
    if device.type == "cpu":
        # Older versions of torch do not tell.
        units: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return tuple(name for name in HALF if any(units.get(unit) for unit in _CPU_UNITS[name]))
    return ()


def kept_precisions(model: Model, offered: Iterable[HalfPrecision]) -> tuple[HalfPrecision, ...]:
    """Those in which enough of a model's labels are those of float32."""
    return tuple(name for name in offered if model.half_precision.get(name, 0) >= TARGET)


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Reproducible kernels in a precision."""
    half = precision != "float32"
    kernels: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=half)
    with kernels, torch.autocast(device.type, getattr(torch, precision)) if half else nullcontext():
        yield


def measure_half_precision(
    model: Model,
    images: Sequence[ImageStack],
    *,
    device: torch.device | str = "cpu",
    should_stop: ShouldStop = never_stop,
) -> dict[HalfPrecision, float]:
    """Fraction of the pixels of some images whose labels are those of float32, by precision.

    Nothing when there is nothing to look at, or when asked to stop: then ``auto`` means float32.
    """
    device = torch.device(device)
    network = fold_batch_norm(model.network("cpu")).requires_grad_(False).to(device)
    rounded = {name: copy.deepcopy(network).to(getattr(torch, name)).float() for name in HALF}
    pixels, equal = 0, dict.fromkeys(HALF, 0)
    for crop in check_crops(model, images, _SIDE):
        padded = pad_to_domain(crop.pixels, int(network.stride))  # type: ignore[arg-type]
        shown = BlockPixels(BlockInput(padded, (0, 0, 0)), crop.constants, device)
        window = shown.window(range(padded.shape[1]), (slice(None), slice(None)))[None]
        with torch.inference_mode(), arithmetic(device, "float32"):
            labels = network(window).argmax(1)
            pixels += labels.numel()
            for name in HALF:
                if should_stop():
                    return {}
                dtype = getattr(torch, name)
                with _RoundedTo(dtype):
                    logits = rounded[name](window.to(dtype).float())
                equal[name] += int((logits.argmax(1) == labels).sum())
    return {name: count / pixels for name, count in equal.items()} if pixels else {}


class _RoundedTo(TorchFunctionMode):
    """Rounds the result of every operation to a type, and what is too large for it to infinity."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._largest = torch.finfo(dtype).max / _HEADROOM

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or result.dtype != torch.float32:
            return result
        rounded = result.to(self._dtype).float()
        return rounded.masked_fill_(result.abs() > self._largest, torch.inf)
