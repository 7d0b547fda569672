"""Weights to begin with, learned from public images, so that few strokes go further.

``benchmarks/pretrain.py`` makes them: a network learns several sets by turns, with a head of its own for each. The
heads are left out, as classes are a user's own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn

#: Learned anew for every set of classes.
HEAD = "head."


def start_from_public_images(network: nn.Module, name: str) -> bool:
    """Give a network the weights of what has its size; False, and nothing is changed, where there are none.

    The first convolution stays random where it reads other channels than one.

    Parameters
    ----------
    network : nn.Module
        With random weights.
    name : str
        Of its size, such as ``w24-s4-c3``.
    """
    own, learned = network.state_dict(), _learned(name)
    fitting = {key: value for key, value in learned.items() if key in own and own[key].shape == value.shape}
    missing = [key for key in own if key not in fitting and not key.startswith((HEAD, "stem.0."))]
    # A network of the same size for larger patches has more levels.
    if missing or not learned.keys() <= own.keys():
        return False
    network.load_state_dict({**own, **fitting})
    return True


@cache
def _learned(name: str) -> dict[str, Tensor]:
    """What a file holds, as single precision; it is kept at half."""
    file = files("napari_autosegnet.networks") / "pretrained_weights" / f"{name}.safetensors"
    if not file.is_file():
        return {}
    return {key: value.to(torch.float32) for key, value in load(file.read_bytes()).items()}
