"""Where networks learn in bfloat16: on devices that multiply matrices in it, which is faster there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch


def training_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA devices that have it and on CPUs with AMX, float32 elsewhere.

    CPUs without AMX have bfloat16 as well, or pretend to, but can be far slower in it.
    """
    if device.type == "cpu" and has_matrix_units():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return inference_precision(device)


def inference_precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA devices that have it; float32 on every CPU, where results are to be the same everywhere."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@cache
def has_matrix_units() -> bool:
    # Older versions of torch do not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))
