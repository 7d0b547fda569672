"""The device that computes."""

from __future__ import annotations

import torch

from napari_autosegnet.errors import UserError, is_out_of_memory


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
        if is_out_of_memory(error):
            raise UserError(
                f"other programs hold all the memory of '{name}'; end them, or use another --device, such as cpu"
            ) from error
        raise UserError(f"there is no device '{name}' here; use --device auto, cpu, cuda or mps") from error
    return device


def memory_holders(device: torch.device) -> str:
    """Who holds the memory of a graphics card, to be said behind it; empty where only the system knows."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device)
    others = max(0, total - free - own)
    return f", of whose {total / 2**30:.1f} GB this program holds {own / 2**30:.1f} and others {others / 2**30:.1f}"


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
