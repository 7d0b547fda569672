r"""How much of a search's and a training's time the network itself takes, and how a search compares with a naive loop.

Two questions, both answered on the built-in sample with settings of the ``fast`` preset:

* Which share of an epoch's wall time goes into forward and backward passes? The rest is cutting and augmenting patches,
  clipping, the optimizer, averaging of weights, checkpoints and, in a search, the controller.
* How many search epochs a minute, against a loop as it is often written: every operation of every node is computed
  and all but one multiplied by 0, a `DataLoader` with worker processes cuts and augments patches one by one with
  scipy, the cores share each operation, and the host waits for the loss of every step? Both draw from the same space.

::

    python benchmarks/speed.py --epochs 4 --json speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.events import silent
from napari_autosegnet.interruption import never_stop
from napari_autosegnet.jobs.preparation import LabeledData, prepare, training_data
from napari_autosegnet.networks.layers import SearchedLayer
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.search.search import Search
from napari_autosegnet.search.supernet import Supernet
from napari_autosegnet.settings import AugmentationSettings, SearchSettings
from napari_autosegnet.training.patches_ahead import PatchesAhead
from napari_autosegnet.training.threads import WorkerThreads
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.training_data import TrainingData

Array = npt.NDArray[Any]


class Stopwatch:
    """Wall time within calls of some functions; a call within another one counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_running = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._is_running:
                return function(*arguments, **named)
            self._is_running = True
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began
                self._is_running = False

        return timed


class NaivePatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Patches of one image, cut and augmented one by one: the same kinds of change as ours, with scipy."""

    def __init__(self, image: Array, target: Array, size: int, settings: AugmentationSettings, seed: int) -> None:
        self.image, self.target, self.size, self.settings, self.seed = image, target, size, settings, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        generator = np.random.default_rng([self.seed, 0 if worker is None else worker.id])
        while True:
            yield self._patch(generator)

    def _patch(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        settings, size = self.settings, self.size
        angle = generator.uniform(0, 2 * np.pi)
        zoom = 1 + generator.uniform(-settings.scale, settings.scale)
        center = [generator.uniform(0.75 * size, side - 0.75 * size) for side in self.image.shape]
        y, x = np.meshgrid(*[np.arange(size) - size / 2] * 2, indexing="ij")
        bend = [
            ndimage.zoom(generator.uniform(-settings.elastic, settings.elastic, (5, 5)), size / 5, order=3)[
                :size, :size
            ]
            for _ in range(2)
        ]
        rows = center[0] + zoom * (np.cos(angle) * y - np.sin(angle) * x) + bend[0]
        columns = center[1] + zoom * (np.sin(angle) * y + np.cos(angle) * x) + bend[1]
        image = ndimage.map_coordinates(self.image, [rows, columns], order=1, mode="mirror")
        target = ndimage.map_coordinates(self.target, [rows, columns], order=0, mode="mirror")
        image = image * (1 + generator.uniform(-settings.contrast, settings.contrast))
        image = image + generator.uniform(-settings.brightness, settings.brightness)
        image = ndimage.gaussian_filter(image, generator.uniform(0, settings.blur))
        image = image + generator.normal(0, settings.noise, image.shape)
        return torch.from_numpy(image[None].astype(np.float32)), torch.from_numpy(target.astype(np.int64) - 1)


class Loader:
    """A `DataLoader` as the stream of patches that a search asks for."""

    def __init__(self, patches: NaivePatches, batch_size: int, frequencies: Tensor, workers: int) -> None:
        self.class_frequencies = frequencies
        self._batches = iter(DataLoader(patches, batch_size=batch_size, num_workers=workers))

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, targets = next(self._batches)
        return images, targets


class EveryOperation(nn.Module):
    """All operations of a node, all but one times 0."""

    def __init__(self, operations: dict[str, nn.Module], chosen: str) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(operations)
        self.chosen = chosen

    def forward(self, x: Tensor) -> Tensor:
        parts = [operation(x) * float(name == self.chosen) for name, operation in self.operations.items()]
        return torch.stack(parts).sum(0)


def make_naive(search: Search, frequencies: Tensor, image: Array, target: Array, workers: int) -> None:
    """Turn a search into the loop that it is compared with."""
    settings = search.settings
    # An average would be a copy of its own, in which only the sampled operations are computed.
    search.supernet.learner.averaged = None
    for layer in search.supernet.learner.network.modules():
        if isinstance(layer, SearchedLayer):
            own: dict[str, nn.Module] = dict(layer.operations.items())
            for place in own:
                node = "_".join(place.split("_")[:2])
                name = place.removeprefix(f"{node}_")
                rivals = {key.removeprefix(f"{node}_"): own[key] for key in own if key.startswith(f"{node}_")}
                layer.operations[place] = EveryOperation(rivals, name)
    # All cores share each operation, and nothing is computed beside it.
    search.supernet.threads = WorkerThreads(torch.device("meta"))
    patches = NaivePatches(image, target, settings.patch_size, settings.augmentation, settings.seed)
    loader = Loader(patches, settings.batch_size, frequencies, workers)
    search.patches = PatchesAhead(loader, settings.batch_size, 0, search.supernet.threads)
    step = partial(Supernet.train_step.__wrapped__, search.supernet)  # type: ignore[attr-defined]

    def waiting(*arguments: Any) -> Tensor:
        loss = step(*arguments)
        loss.item()
        return loss

    search.supernet.train_step = waiting  # type: ignore[method-assign]
    rate = partial(Supernet.rate.__wrapped__, search.supernet)  # type: ignore[attr-defined]
    search.supernet.rate = rate  # type: ignore[method-assign]


def sample_data(settings: Any, limit: int) -> TrainingData:
    folder = sample_folder()
    image, labels = folder / "axon-sem-a.png", folder / "axon-sem-a-labels.png"
    data = prepare(LabeledData.given([image], [labels], SAMPLE_CLASSES), settings, device="cpu", report=silent)
    size = NetworkSpecification.for_patches(settings.patch_size, settings.network, in_channels=1, classes=3)
    return training_data(data, settings, stride=size.stride, validation_patches=limit, report=silent)


def search_epochs(settings: SearchSettings, folder: Path, *, naive: bool, workers: int = 2) -> dict[str, float]:
    """Epochs a minute of a search without its end, and the share of the network in its time."""
    data = sample_data(settings, 2 * settings.reward_patches)
    search = Search(data, settings, in_channels=1, checkpoint=folder / "checkpoint.pt")
    if naive:
        stacks = sample_folder()
        from PIL import Image

        pixels = np.asarray(Image.open(stacks / "axon-sem-a.png"), dtype=np.float32)
        values = np.asarray(Image.open(stacks / "axon-sem-a-labels.png"))
        target = np.searchsorted(np.unique(values), values) + 1
        make_naive(search, data.patches.class_frequencies, (pixels - pixels.mean()) / pixels.std(), target, workers)
    watch = Stopwatch()
    supernet = search.supernet
    supernet.learner.set_gradients = watch.around(supernet.learner.set_gradients)  # type: ignore[method-assign]
    supernet.threads.map = watch.around(supernet.threads.map)  # type: ignore[method-assign]
    search._run_epoch(never_stop)  # memory is allocated, workers have started
    watch.seconds = 0.0
    began = time.perf_counter()
    for search.budget.epoch in range(1, settings.epochs):
        search._run_epoch(never_stop)
    seconds = time.perf_counter() - began
    return {"epochs_per_minute": 60 * (settings.epochs - 1) / seconds, "network_share": watch.seconds / seconds}


def training_share(network: str, epochs: int, folder: Path) -> dict[str, float]:
    """Epochs a minute of a training, and the share of the network in its time."""
    from napari_autosegnet.architecture import SearchSpace

    settings = train_settings("fast", epochs=epochs + 1, budget=None)
    data = sample_data(settings, 64)
    specification = NetworkSpecification.for_patches(
        settings.patch_size,
        settings.network,
        in_channels=1,
        classes=3,
        network=network,  # type: ignore[arg-type]
    )
    if network == "searched":
        architecture = SearchSpace(levels=specification.levels).sample(np.random.default_rng(0))
        specification = specification.model_copy(update={"architecture": architecture})
    trainer = Trainer(specification.build(), data, settings, checkpoint=folder / "checkpoint.pt")
    watch = Stopwatch()
    trainer.learner.set_gradients = watch.around(trainer.learner.set_gradients)  # type: ignore[method-assign]
    trainer.threads.map = watch.around(trainer.threads.map)  # type: ignore[method-assign]
    began = 0.0

    def on_epoch() -> None:
        nonlocal began
        if trainer.budget.epoch == 1:
            began, watch.seconds = time.perf_counter(), 0.0

    trainer.run(on_epoch=on_epoch)
    seconds = time.perf_counter() - began
    return {"epochs_per_minute": 60 * epochs / seconds, "network_share": watch.seconds / seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--epochs", type=int, default=4, help="epochs of each measurement, after one that does not count"
    )
    parser.add_argument("--loader-workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    settings = search_settings("fast", epochs=given.epochs + 1, budget=None, warmup_fraction=0.0)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found["search"] = search_epochs(settings, folder, naive=False)
        found["search, naive"] = search_epochs(settings, folder, naive=True, workers=given.loader_workers)
        found["training, random architecture"] = training_share("searched", given.epochs, folder)
        found["training, U-Net"] = training_share("unet", given.epochs, folder)
    print("| what | epochs a minute | share of forward and backward passes |\n|---|---|---|")
    for name, row in found.items():
        print(f"| {name} | {row['epochs_per_minute']:.1f} | {row['network_share']:.3f} |")
    ratio = found["search"]["epochs_per_minute"] / found["search, naive"]["epochs_per_minute"]
    print(
        f"\nThe search is {ratio:.1f} times as fast as the naive loop ({os.cpu_count()} cores, {platform.machine()})."
    )
    if given.json is not None:
        given.json.write_text(json.dumps(found | {"ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
