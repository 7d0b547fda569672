"""Who takes part in ``inference.py``: each reads the volume, applies the network, and writes labels.

- ``bare``: windows that lie in memory through the network, nothing else; efficiency is ours by the share of this that
  is possible with the halo.
- ``whole``: each section in one pass. The others' labels are compared with these.
- ``monai``: MONAI's ``sliding_window_inference`` (overlap 0.25, Gaussian weights), result in memory, and buffered.
- ``map_overlap``: ``dask.array.map_overlap`` with our halo, one thread of tasks.
- ``half_overlap``: tiles at half-tile steps with Gaussian weights, as nnU-Net does.
- ``ours``: one process, with the peers' engine and tile; with the halo that makes it equal to whole sections, whatever
  the data (``ours-exact``); and with the engine and tile that it finds to be fastest (``ours-auto``).
- ``workers``: one and two dask workers on this machine, a core each.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_autosegnet.events import Event

CONTENDERS = (
    "whole",
    "bare",
    "ours",
    "ours-exact",
    "ours-auto",
    "monai",
    "monai-buffered",
    "map_overlap",
    "half_overlap",
    "workers 1",
    "workers 2",
)
LABELS = "labels/segmentation/0"


Array = npt.NDArray[Any]
Network = Callable[[Any], Any]


class Setting:
    """What all contenders share: model, volume and sizes, from the benchmark's folder."""

    def __init__(self, folder: Path) -> None:
        from napari_autosegnet.inference.compute.engines import make_engine
        from napari_autosegnet.inference.compute.folding import fold_batch_norm
        from napari_autosegnet.inference.compute.predictor import Predictor
        from napari_autosegnet.model import Model

        about = json.loads((folder / "setting.json").read_text())
        self.folder = folder
        self.tile: int = about["tile"]
        self.halo: int = about["halo"]
        self.model = Model.load(folder / "model")
        self.image = folder / "image.zarr"
        self.out = folder / "out.zarr"
        self.predictor = Predictor(self.model, tile=self.tile, halo=self.halo, engine="channels_last")
        self.stride = self.predictor.stride
        self.classes = self.predictor.classes
        #: Logits of normalized images (n, c, y, x), as ours computes them.
        self.network: Network = make_engine(
            "channels_last", fold_batch_norm(self.model.network("cpu")).requires_grad_(False), self.predictor.device
        )

    def normalized(self, pixels: Array) -> Any:
        """Tensor (n, 1, y, x) of sections (n, y, x)."""
        import torch

        mean, std = self.model.normalization.mean[0], self.model.normalization.std[0]
        return (torch.from_numpy(np.ascontiguousarray(pixels)).float()[:, None] - mean) / std

    def read(self) -> Any:
        import zarr

        return zarr.open_array(self.image, mode="r")

    def write(self, labels: Any) -> None:
        import zarr

        array = self.read()
        group = zarr.create_group(self.out, overwrite=True)
        group.create_array(LABELS, data=labels, chunks=array.chunks)

    def settings(self, **more: Any) -> Any:
        from napari_autosegnet.settings import PredictSettings

        return PredictSettings(**{"tile": self.tile, "halo": self.halo, "levels": 1, "engine": "channels_last"} | more)


def whole(setting: Setting) -> None:
    array = setting.read()
    labels = [
        setting.predictor.whole_section(array[z][None]).argmax(0).astype(np.uint8) + 1 for z in range(array.shape[0])
    ]
    setting.write(np.stack(labels))


def bare(setting: Setting) -> None:
    """As many windows as ours takes, all in memory."""
    import torch

    window = torch.zeros(1, 1, *plan_of(setting).window)
    with torch.inference_mode():
        for _ in range(windows_of(setting)):
            setting.network(window).softmax(1)


def ours(setting: Setting, **more: Any) -> None:
    from napari_autosegnet.data.images import open_image
    from napari_autosegnet.inference.volume import predict_volume

    predict_volume(setting.model, open_image(setting.image), setting.out, setting.settings(**more), report=_tell)


def _tell(event: Event) -> None:
    from napari_autosegnet.events import Note

    if isinstance(event, Note):
        print(event.text, file=sys.stderr)


def with_workers(setting: Setting, count: int) -> float:
    """Seconds from the first block's start to the end; starting the workers is left out."""
    from napari_autosegnet.events import BlockWritten
    from napari_autosegnet.inference.distributed.cluster import predict_on_workers
    from napari_autosegnet.inference.distributed.workers import WorkerSource
    from napari_autosegnet.inference.job import VolumeRequest

    began = 0.0

    def report(event: Event) -> None:
        nonlocal began
        if isinstance(event, BlockWritten) and not began:
            began = time.perf_counter() - event.seconds

    # Blocks of whole chunks, small enough to share; a core for each worker.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    depth = setting.read().chunks[0]
    settings = setting.settings(block=(depth, 512, 512), workers=count)
    request = VolumeRequest(setting.folder / "model", setting.image, setting.out, settings)
    predict_on_workers(request, WorkerSource(count), device="cpu", report=report)
    return time.perf_counter() - began


def monai(setting: Setting, *, buffered: bool) -> None:
    import torch
    from monai.inferers import sliding_window_inference

    array = setting.read()
    more: dict[str, Any] = {"buffer_steps": 4, "buffer_dim": -1} if buffered else {}
    labels = []
    with torch.inference_mode():
        # A volume of sections is a batch of images to MONAI; buffered, one section after the other.
        parts = [array[z : z + 1] for z in range(array.shape[0])] if buffered else [array[:]]
        for part in parts:
            found = sliding_window_inference(
                setting.normalized(part), (setting.tile, setting.tile), 1, setting.network, 0.25, "gaussian", **more
            )
            labels.append(found.argmax(1).to(torch.uint8).numpy() + 1)
    setting.write(np.concatenate(labels))


def map_overlap(setting: Setting) -> None:
    import dask
    import dask.array
    import torch

    side = setting.tile - 2 * setting.halo
    array = dask.array.from_zarr(str(setting.image)).rechunk((1, side, side))

    def compute(block: Array) -> Array:
        height, width = block.shape[1:]
        padded = np.pad(block, ((0, 0), (0, -height % setting.stride), (0, -width % setting.stride)), mode="edge")
        with torch.inference_mode():
            found = setting.network(setting.normalized(padded)).argmax(1).to(torch.uint8).numpy() + 1
        return found[:, :height, :width]

    depth = (0, setting.halo, setting.halo)
    labels = array.map_overlap(compute, depth=depth, boundary="nearest", dtype=np.uint8, meta=np.zeros((0, 0, 0), "u1"))
    import zarr

    shape, chunks = setting.read().shape, setting.read().chunks
    target = zarr.create_group(setting.out, overwrite=True).create_array(
        LABELS, shape=shape, chunks=chunks, dtype=np.uint8
    )
    with dask.config.set(scheduler="threads", num_workers=1):
        dask.array.store(labels.rechunk(chunks), target, lock=False)


def half_overlap(setting: Setting) -> None:
    import torch
    from scipy.ndimage import gaussian_filter

    array = setting.read()
    tile = setting.tile
    impulse = np.zeros((tile, tile), np.float32)
    impulse[tile // 2, tile // 2] = 1
    weight = torch.from_numpy(np.maximum(gaussian_filter(impulse, tile / 8), 1e-8).astype(np.float32))
    labels = []
    with torch.inference_mode():
        for z in range(array.shape[0]):
            section = setting.normalized(array[z : z + 1])
            height, width = section.shape[2:]
            total = torch.zeros(setting.classes, height, width)
            for y in _starts(height, tile):
                for x in _starts(width, tile):
                    part = section[:, :, y : y + tile, x : x + tile]
                    place = (slice(None), slice(y, y + tile), slice(x, x + tile))
                    total[place] += setting.network(part)[0] * weight[: part.shape[2], : part.shape[3]]
            labels.append(total.argmax(0).to(torch.uint8).numpy() + 1)
    setting.write(np.stack(labels))


def _starts(size: int, tile: int) -> Iterator[int]:
    if size <= tile:
        yield 0
        return
    steps = int(np.ceil((size - tile) / (tile / 2))) + 1
    yield from (round(place) for place in np.linspace(0, size - tile, steps))


def plan_of(setting: Setting) -> Any:
    """Blocks and windows of ours."""
    from napari_autosegnet.inference.blocks import choose_block, choose_chunks

    array = setting.read()
    chunks = choose_chunks(array.shape, None, array.chunks)
    return setting.predictor.plan(array.shape, choose_block(array.shape, chunks, None))


def windows_of(setting: Setting) -> int:
    """How many windows ours takes."""
    plan = plan_of(setting)
    return sum(len(plan.tiles(block)) * block.shape[0] for block in plan)


def contend(name: str, folder: Path, threads: int) -> None:
    """Run one contender and print what it took as JSON."""
    import torch

    torch.set_num_threads(threads)
    setting = Setting(folder)
    _ = setting.normalized(np.zeros((1, 8, 8), np.uint8))
    kind, _, rest = name.partition(" ")
    runs: dict[str, Callable[[], float | None]] = {
        "whole": lambda: whole(setting),
        "bare": lambda: bare(setting),
        "ours": lambda: ours(setting),
        "ours-exact": lambda: ours(setting, halo="exact"),
        "ours-auto": lambda: ours(setting, engine="auto", tile="auto"),
        "monai": lambda: monai(setting, buffered=False),
        "monai-buffered": lambda: monai(setting, buffered=True),
        "map_overlap": lambda: map_overlap(setting),
        "half_overlap": lambda: half_overlap(setting),
        "workers": lambda: with_workers(setting, int(rest)),
    }
    # Loaded before the clock starts.
    libraries = {"monai": "monai.inferers", "map_overlap": "dask.array", "half_overlap": "scipy.ndimage"}
    for library in ("zarr", "napari_autosegnet.inference.volume", libraries.get(name.split("-")[0], "json")):
        importlib.import_module(library)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    own = runs[kind if kind == "workers" else name]()
    seconds = own or time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "workers":
        peak = max(peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    figures = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**figures, "peak_mb": peak / 1024, "before_mb": before / 1024}))
