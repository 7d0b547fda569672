r"""Tiled inference from Zarr to Zarr against what others do, on one machine, with one network.

Every contender reads the same volume from one Zarr array, applies the same network and writes labels to another, each
in a process of its own, one after the other. Times begin when model and libraries are loaded. The peers get
the network with its batch norms folded and in channels-last layout, too, so that what is compared is the tiling.

The contenders are in ``inference_contenders.py``.

Example::

    python benchmarks/inference.py --model RUN/model --image stack.tif --size 8,1024,1024 \
        --json inference.json --markdown docs/benchmarks/notes/inference.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_contenders import CONTENDERS, LABELS, Setting, contend, plan_of, windows_of
from untrained import untrained_model


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
    if given.model:
        model = Model.load(given.model)
    else:
        size = {"levels": 3, "base_width": 16, "max_width": 64, "stem_stride": 2}
        model = untrained_model(1, float(volume.mean()), float(volume.std()) or 1.0, patch_size=128, **size)
    model.save(folder / "model")
    if given.halo is not None:
        halo = given.halo
    elif model.halo is not None:
        halo = model.halo.pixels
    else:
        figure = measure_halo(model, [image_from_array(volume[:1])])
        halo = figure.pixels if figure is not None else 32
    predictor = Predictor(model, halo=halo)
    about = {"tile": given.tile, "halo": predictor.halo, "exact_halo": predictor.exact_halo}
    (folder / "setting.json").write_text(json.dumps(about))
    parameters = sum(p.numel() for p in model.network().parameters())
    setting = Setting(folder)
    plan = plan_of(setting)
    useful = volume.size / (windows_of(setting) * np.prod(plan.window))
    return {**about, "shape": shape, "parameters": parameters, "useful": float(useful), "window": plan.window}


def run_all(folder: Path, threads: int, names: Sequence[str], voxels: int) -> dict[str, dict[str, float]]:
    """Figures by contender; all processes see the same machine, one after the other."""
    import zarr

    results: dict[str, dict[str, float]] = {}
    reference: npt.NDArray[Any] | None = None
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
