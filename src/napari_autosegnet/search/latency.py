"""How long a network takes, measured before it is trained: it does not depend on the weights."""

from __future__ import annotations

import torch

from napari_autosegnet.inference.compute.engines import make_engine, seconds_taken, usual_engine
from napari_autosegnet.inference.compute.folding import fold_batch_norm
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.training.precision import inference_precision

#: Side in pixels of the square that the latency is measured on.
LATENCY_SIDE = 512
#: The fastest of so many passes counts: other programs only ever make one slower.
_PASSES = 3


def measured_latency(specification: NetworkSpecification, device: torch.device) -> float:
    """Milliseconds of a pass over 512 x 512 pixels as `predict` computes it: folded, in its memory layout."""
    # First weights are drawn, which must not change what a search draws.
    with torch.random.fork_rng(devices=[]):
        network = specification.build().eval()
    engine = make_engine(usual_engine(device), fold_batch_norm(network), device)
    side = -(-LATENCY_SIDE // specification.stride) * specification.stride
    image = torch.zeros(1, specification.in_channels, side, side, device=device)
    with torch.inference_mode(), inference_precision(device):
        return 1000 * min([seconds_taken(engine, image) for _ in range(1 + _PASSES)][1:])
