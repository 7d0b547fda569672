r"""Weights for networks to begin with, learned from several public sets at once.

A network of each size learns a batch of each set by turns, with a head of its own for each. The averaged weights
without the heads are kept at half precision. One thread, processor time. ::

    python benchmarks/pretrain.py --sets nuclei,medulla --data nuclei,medulla --seconds 10m \
        --sizes w24-s4-c3,w16-s2-c3 --out src/napari_autosegnet/networks/pretrained_weights
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import search
import sizes
from napari_autosegnet.cli.options import parse_duration
from napari_autosegnet.events import silent
from napari_autosegnet.jobs.fit import STRIDE
from napari_autosegnet.jobs.preparation import LabeledData, prepare, training_data
from napari_autosegnet.networks.pretrained import HEAD
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.search.candidates import Size
from napari_autosegnet.training.learner import Learner
from napari_autosegnet.training.losses import make_loss
from napari_autosegnet.training.patches_ahead import PatchesAhead
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.training_data import TrainingData

#: Fraction of the time at a steady rate; then it falls.
STEADY = 0.5
LOWEST_RATE = 0.02


class WithHeads(nn.Module):
    """One network with several heads."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = networks[0]
        self.heads = nn.ModuleList([network.head for network in networks])
        self.network.head = nn.Identity()

    def logits(self, head: int, images: Tensor) -> Tensor:
        self.network.head = self.heads[head]
        try:
            return self.network(images.contiguous(memory_format=torch.channels_last))
        finally:
            self.network.head = nn.Identity()


def training_part(task: search.Task) -> TrainingData:
    """What a set trains on."""
    settings = fit_settings("fast")
    data = LabeledData.given([task.problem.image], [task.problem.labels], task.problem.classes, split=task.split)
    prepared = prepare(data, settings, device="cpu", report=silent)
    return training_data(prepared, settings, stride=STRIDE, report=silent)


def pretrain(size: Size, sets: Sequence[TrainingData], seconds: float) -> dict[str, Tensor]:
    """Weights of a size without a head."""
    settings, threads = fit_settings("fast"), WorkerThreads(torch.device("cpu"))
    torch.manual_seed(0)
    build = partial(size.specification, settings.patch_size, settings.network, in_channels=1)
    network = WithHeads([build(classes=len(data.class_names)).build() for data in sets])
    learner = Learner(network, settings.optimization, threads)
    streams = [PatchesAhead(data.patches, settings.batch_size, seed, threads) for seed, data in enumerate(sets)]
    losses = [make_loss(settings.loss, data.patches.class_frequencies) for data in sets]
    network.train()
    began, step = time.process_time(), 0
    while (used := (time.process_time() - began) / seconds) < 1:
        turn = step % len(sets)
        images, targets = streams[turn].take()
        learner.set_gradients([lambda: losses[turn](network.logits(turn, images), targets)])  # noqa: B023
        learner.step(max(LOWEST_RATE, min(1.0, (1 - used) / (1 - STEADY))))
        step += 1
    weights = learner.current.network.state_dict()
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in weights.items()
        if not key.startswith(HEAD)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="nuclei,medulla")
    parser.add_argument("--data", required=True, help="folders with the sets' files, in the same order")
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--seconds", type=parse_duration, default=600.0, help="time of each network")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, folder in zip(given.sets.split(","), map(Path, given.data.split(",")), strict=True):
        problem = search.SETS[name](folder.absolute(), given.out / "data")
        parts.append(training_part(search.Task(problem, given.seconds, "fast", given.out, "cpu")))
    for size in map(sizes.parse_size, given.sizes.split(",")):
        file = given.out / f"{size.name}.safetensors"
        save_file(pretrain(size, parts, given.seconds), file)
        print(file, f"{file.stat().st_size / 1e6:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
