"""A network that teaches itself what nobody annotated.

A forest teaches it first, mistakes included. Before it has learned those by heart, labels of its own averaged weights
take their place, where they are sure (pseudo-labels, Lee 2013; a mean teacher, Tarvainen and Valpola 2017). As patches
are turned, warped, and changed in their gray values, it learns to see the same in all of them.

That can go wrong: what it takes for sure and is not, becomes surer. Then the loss on the strokes that are held out
rises, however few they are, and the forest comes back (docs/benchmarks/few-strokes.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from napari_autosegnet.training.patches_ahead import TeachableStream
from napari_autosegnet.training.precision import inference_precision
from napari_autosegnet.training.threads import WorkerThreads, single_threaded

#: Epochs after which a network knows enough to take over from the forest.
FOREST_EPOCHS = 3
#: A pixel is taught where the network's probability of its class is at least this.
SURE = 0.9
#: Pixels that are labeled anew for each epoch: a few percent of its time with patches of 128 x 128 pixels.
MAX_LABELED = 2**20
#: Its own labels are of no use when the loss on the validation part rises to so many times what it was before.
LOSS_MAY_RISE = 1.1
#: Epochs whose losses are averaged: of few strokes they go up and down.
_AVERAGED = 2


def teaches_itself(losses: Sequence[float]) -> bool:
    """Whether a network is to learn its own labels rather than the forest's.

    Parameters
    ----------
    losses : sequence of float
        On the validation part, after each epoch; a forest taught the network in the first `FOREST_EPOCHS`.
    """
    before, own = losses[:FOREST_EPOCHS], losses[FOREST_EPOCHS:]
    if len(before) < FOREST_EPOCHS:
        return False
    most = LOSS_MAY_RISE * sum(before[-_AVERAGED:]) / _AVERAGED
    # Once is enough: with the forest the loss may fall again.
    return all(sum(pair) / _AVERAGED <= most for pair in itertools.pairwise(own))


@single_threaded()
def self_taught(
    patches: TeachableStream, network: nn.Module, *, seed: int, threads: WorkerThreads, most: int = MAX_LABELED
) -> TeachableStream:
    """The same patches, with what a network says where nobody annotated. The same for any number of threads."""

    def labels(windows: Sequence[Callable[[], Tensor]]) -> Sequence[Tensor]:
        return threads.map(lambda window: _sure_labels(network, window()), windows)

    was_training = network.training
    network.eval()
    try:
        return patches.taught_by(labels, most=most, seed=seed)
    finally:
        network.train(was_training)


@torch.no_grad()
def _sure_labels(network: nn.Module, images: Tensor) -> Tensor:
    """Class numbers (y, x) of one image (1, c, y, x), 0 where the network is not sure."""
    with inference_precision(images.device):
        logits: Tensor = network(images.contiguous(memory_format=torch.channels_last))
    certainty, classes = logits[0].float().softmax(dim=0).max(dim=0)
    return torch.where(certainty >= SURE, classes + 1, 0).to(torch.uint8)
