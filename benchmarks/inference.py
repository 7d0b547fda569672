r"""Tiled inference from Zarr to Zarr against what others do, on one machine, with one network.

Every contender reads the same volume from one Zarr array, applies the same network and writes labels to another, each
in a process of its own, one after the other. Times begin when model and libraries are loaded. The peers get
the network with its batch norms folded and in channels-last layout, too, so that what is compared is the tiling.

- ``bare``: windows that lie in memory through the network, nothing else; efficiency is ours by the share of this that
  is possible with the halo.
- ``whole``: each section in one pass. The others' labels are compared with these.
- ``monai``: MONAI's ``sliding_window_inference`` (overlap 0.25, Gaussian weights), result in memory, and buffered.
- ``map_overlap``: ``dask.array.map_overlap`` with our halo, one thread of tasks.
- ``half_overlap``: tiles at half-tile steps with Gaussian weights, as nnU-Net does.
- ``ours``: one process, with the peers' engine and tile; with the halo that makes it equal to whole sections, whatever
  the data (``ours-exact``); and with the engine and tile that it finds to be fastest (``ours-auto``).
- ``workers``: one and two dask workers on this machine, a core each.

Example::

    python benchmarks/inference.py --model RUN/model --image stack.tif --size 8,1024,1024 \
        --json inference.json --markdown docs/benchmarks/notes/inference.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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

    @property
    def network(self) -> Network:
        """Logits of normalized images (n, c, y, x)."""
        return self.predictor._engine

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

    window = torch.zeros(1, 1, *_plan(setting).window)
    with torch.inference_mode():
        for _ in range(_windows(setting)):
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


def _plan(setting: Setting) -> Any:
    from napari_autosegnet.inference.blocks import choose_block, choose_chunks

    array = setting.read()
    chunks = choose_chunks(array.shape, None, array.chunks)
    return setting.predictor.plan(array.shape, choose_block(array.shape, chunks, None))


def _windows(setting: Setting) -> int:
    plan = _plan(setting)
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


def make_volume(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write model, volume and setting that the contenders read."""
    import zarr

    from napari_autosegnet.data.images import image_from_array, open_image
    from napari_autosegnet.data.sample import sample_folder
    from napari_autosegnet.inference.compute.halo import measure_halo
    from napari_autosegnet.inference.compute.predictor import Predictor
    from napari_autosegnet.model import Model

    shape = tuple(int(part) for part in given.size.split(","))
    source = open_image(given.image or sample_folder() / "axon-sem-b.png")
    pixels = source.read(slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))[0]
    # Mirrored up to the size: no seam that a network would not see in a real section.
    volume = np.pad(
        pixels, [(0, size - have) for size, have in zip(shape, pixels.shape, strict=True)], mode="symmetric"
    )
    zarr.create_array(folder / "image.zarr", data=volume, chunks=(min(8, shape[0]), 256, 256))
    model = Model.load(given.model) if given.model else random_model(volume)
    model.save(folder / "model")
    if given.halo is not None:
        halo = given.halo
    elif model.halo is not None:
        halo = model.halo.pixels
    else:
        figure = measure_halo(model, [image_from_array(volume[:1])], side=512)
        halo = figure.pixels if figure is not None else 32
    predictor = Predictor(model, halo=halo)
    about = {"tile": given.tile, "halo": predictor.halo, "exact_halo": predictor.exact_halo}
    (folder / "setting.json").write_text(json.dumps(about))
    parameters = sum(p.numel() for p in model.network().parameters())
    setting = Setting(folder)
    plan = _plan(setting)
    useful = volume.size / (_windows(setting) * np.prod(plan.window))
    return {**about, "shape": shape, "parameters": parameters, "useful": float(useful), "window": plan.window}


def random_model(volume: Array) -> Any:
    """A searched network of random choices and weights: fast to have, as slow as a trained one."""
    import torch

    from napari_autosegnet.architecture import SearchSpace
    from napari_autosegnet.data.annotations import default_classes
    from napari_autosegnet.data.normalization import Normalization
    from napari_autosegnet.model import Model
    from napari_autosegnet.networks.specification import NetworkSpecification

    specification = NetworkSpecification(
        network="searched",
        architecture=SearchSpace().sample(np.random.default_rng(1)),
        in_channels=1,
        classes=2,
        levels=3,
        base_width=16,
        max_width=64,
        stem_stride=2,
    )
    torch.manual_seed(0)
    return Model.create(
        specification.build(),
        specification,
        classes=default_classes(["boundary", "cell"]),
        normalization=Normalization(mean=(float(volume.mean()),), std=(float(volume.std()) or 1.0,)),
        image_channels=1,
        patch_size=128,
    )


def run_all(folder: Path, threads: int, names: Sequence[str], voxels: int) -> dict[str, dict[str, float]]:
    """Figures by contender; all processes see the same machine, one after the other."""
    import zarr

    results: dict[str, dict[str, float]] = {}
    reference: Array | None = None
    for name in names:
        command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
        # Workers bring their own cores: one each, whatever the others have.
        command += ["--threads", str(1 if name.startswith("workers") else threads)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        figures["voxels_per_second"] = voxels / figures["seconds"]
        out = folder / "out.zarr"
        if name != "bare":
            labels = np.asarray(zarr.open_group(out, mode="r")[LABELS])
            if name == "whole":
                reference = labels
            elif reference is not None:
                figures["agreement"] = float((labels == reference).mean())
            _remove(folder)
        results[name] = figures
        print(f"{name}: {figures['seconds']:.1f} s {done.stderr.strip()}", file=sys.stderr, flush=True)
    return results


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder / "out.zarr")
    for file in folder.glob("*ledger.jsonl"):
        file.unlink()


def markdown(content: dict[str, Any]) -> str:
    """The table and what it means."""
    about, results = content["setting"], content["results"]
    bare_rate, ours_rate = results["bare"]["voxels_per_second"], results["ours"]["voxels_per_second"]
    # `bare` computes the windows of ours, so its rate counts useful voxels only.
    lines = [
        "# Tiled inference",
        "",
        f"Written by `benchmarks/inference.py` on {content['machine']}, {content['threads']} threads, fp32. Volume "
        f"{' x '.join(map(str, about['shape']))} from Zarr to Zarr; network with {about['parameters'] / 1e6:.2f} M "
        f"parameters, tiles of {about['tile']} pixels, halo {about['halo']} "
        f"(exact: {about['exact_halo'] or 'whole sections'}). {content['model']}.",
        "",
        "| | voxels per second | times ours | peak memory, MB | labels as whole sections |",
        "|---|---|---|---|---|",
    ]
    for name, figures in results.items():
        if name.startswith("workers"):
            continue
        agreement = f"{100 * figures['agreement']:.3f} %" if "agreement" in figures else "-"
        rate = figures["voxels_per_second"]
        lines.append(
            f"| {name} | {rate / 1e6:.3f} M | {rate / ours_rate:.2f} | {figures['peak_mb']:.0f} | {agreement} |"
        )
    lines += [
        "",
        f"- Efficiency: {ours_rate / bare_rate:.3f} of the bare network on windows that lie in memory, of whose pixels "
        f"{about['useful']:.3f} are kept.",
    ]
    if "workers 2" in results:
        one, two = (results[f"workers {count}"]["voxels_per_second"] for count in (1, 2))
        lines.append(
            f"- Two dask workers with a core each: {two / one:.2f} times one ({one / 1e6:.3f} M and {two / 1e6:.3f} M "
            "voxels per second, from the first block's start)."
        )
    lines += [
        "",
        "`ours` computes with PyTorch and tiles as the others do, `ours-exact` too, with a halo as wide as the network "
        "sees; `ours-auto` with the engine and the tile that it measured to be the fastest at its start. Peak memory "
        "includes Python, PyTorch and the libraries loaded.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all contenders, print a table and write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; a random network by default")
    parser.add_argument("--image", type=Path, help="one channel; the sample that is shipped by default")
    parser.add_argument("--size", default="8,1024,1024", help="z,y,x; the image is mirrored up to it")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--halo", type=int, help="pixels; the model's own by default")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", help="contenders, with commas between; 'whole' comes first in any case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the volume and results lie for the while")
    given = parser.parse_args(arguments)
    if given.contender is not None:
        contend(given.contender, given.folder, given.threads)
        return
    wanted = given.only.split(",") if given.only else CONTENDERS
    names = [name for name in CONTENDERS if name in wanted or name == "whole"]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        setting = make_volume(given, Path(place))
        results = run_all(Path(place), given.threads, names, int(np.prod(setting["shape"])))
    content = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "model": "A trained model" if given.model else "Random weights",
        "threads": given.threads,
        "setting": setting,
        "results": results,
        "seconds": round(time.perf_counter() - began, 1),
    }
    if given.json is not None:
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if {"bare", "ours"} <= results.keys():
        text = markdown(content)
        print(text)
        if given.markdown is not None:
            given.markdown.write_text(text, encoding="utf-8")
    else:
        print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
