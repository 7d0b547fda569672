"""How long a network takes, measured before it is trained: it does not depend on the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from napari_autosegnet.inference.compute.engines import Engine, make_engine, seconds_taken, usual_engine
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.training.precision import inference_precision

#: Side in pixels of the square that the latency is measured on.
LATENCY_SIDE = 512
#: The fastest of so many passes counts: other programs only ever make one slower.
_PASSES = 5


def measured_latencies(specifications: Sequence[NetworkSpecification], device: torch.device) -> list[float]:
    """Milliseconds of a pass of each over 512 x 512 pixels as `predict` computes it: folded, in its memory layout.

    They take turns, so that a slow second of a busy computer makes all of them slower and not one.
    """
    passes = [_pass(specification, device) for specification in specifications]
    with torch.inference_mode(), inference_precision(device):
        seconds = [[seconds_taken(engine, image) for engine, image in passes] for _ in range(1 + _PASSES)]
    return [1000 * min(each) for each in zip(*seconds[1:], strict=True)]


def _pass(specification: NetworkSpecification, device: torch.device) -> tuple[Engine, torch.Tensor]:
    # First weights are drawn, which must not change what a search draws.
    with torch.random.fork_rng(devices=[]):
        network = specification.build().eval()
    engine = make_engine(usual_engine(device), fold_batch_norm(network), device)
    side = -(-LATENCY_SIDE // specification.stride) * specification.stride
    return engine, torch.zeros(1, specification.in_channels, side, side, device=device)
