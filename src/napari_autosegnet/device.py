"""The device that computes."""

from __future__ import annotations

import torch

from napari_autosegnet.errors import UserError


def choose_device(name: str) -> torch.device:
    """The named device, or for ``auto`` the best there is: CUDA, MPS, CPU.

    Raises
    ------
    UserError
        When the device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    # No such name, or no kernels for it (RuntimeError); not compiled in (AssertionError).
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device '{name}' here; use --device auto, cpu, cuda or mps") from error
    return device


def device_memory(device: torch.device) -> int:
    """Peak bytes in use: on the device, or by this process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows has no such module
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
