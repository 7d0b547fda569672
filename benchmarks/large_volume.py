"""A volume far larger than memory, from Zarr to Zarr, unattended: a tiny network on synthetic sections.

The volume is made block by block (structured noise that compresses like a micrograph), predicted, and checked: all
blocks are done, a second call computes nothing, and peak memory is far below the volume. Example::

    python benchmarks/large_volume.py --gigabytes 16 --folder DIR --workers 2 --json large.json
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from napari_autosegnet.events import BlocksPlanned, Event, Note, ProgressMade, WarningRaised
from untrained import untrained_model

CHUNKS = (16, 256, 256)
SECTION = 4096


def make_image(path: Path, gigabytes: float) -> tuple[int, int, int]:
    """Write the volume; sections of 4096 x 4096 (smaller for less than 256 MB), as many as it takes."""
    side = SECTION if gigabytes >= 0.25 else 1024
    depth = max(CHUNKS[0], round(gigabytes * 2**30 / side**2))
    array = zarr.create_array(path, shape=(depth, side, side), chunks=CHUNKS, dtype=np.uint8, overwrite=True)
    generator = np.random.default_rng(0)
    grain = generator.integers(0, 24, (CHUNKS[0], side, side), dtype=np.uint8)
    for z in range(0, depth, CHUNKS[0]):
        count = min(CHUNKS[0], depth - z)
        blobs = generator.integers(0, 220, (side // 32, side // 32), dtype=np.uint8)
        array[z : z + count] = blobs.repeat(32, 0).repeat(32, 1)[None] + grain[:count]
    return depth, side, side


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, predict and check the volume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, required=True, help="new folder with space for twice the volume")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the volume and the result there")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)

    from napari_autosegnet import api
    from napari_autosegnet.settings import PredictSettings

    given.folder.mkdir(parents=True)
    began = time.perf_counter()
    shape = make_image(given.folder / "image.zarr", given.gigabytes)
    made = time.perf_counter() - began
    size = {"levels": 1, "base_width": 2, "max_width": 2, "stem_stride": 4}
    untrained_model(0, 120.0, 60.0, patch_size=64, **size).save(given.folder / "model")
    settings = PredictSettings(halo=16, levels=4, sharded=True, workers=given.workers)
    last = 0.0

    def report(event: Event) -> None:
        nonlocal last
        if not isinstance(event, ProgressMade):
            if isinstance(event, BlocksPlanned | Note | WarningRaised):
                print(repr(event), file=sys.stderr, flush=True)
        elif time.perf_counter() - last > 30:
            last = time.perf_counter()
            pace = f"{event.voxels_per_second / 1e6:.1f} M voxels/s"
            print(f"{event.done} of {event.total} blocks, {pace}", file=sys.stderr, flush=True)

    names = [given.folder / name for name in ("model", "image.zarr", "out.zarr")]
    summary = api.predict(*names, settings=settings, report=report)
    if summary.failed or summary.done + summary.skipped != summary.blocks:
        raise SystemExit(f"not all blocks are done: {summary}")
    again = api.predict(*names, settings=settings)
    if again.voxels_per_second:
        raise SystemExit("a finished result was computed again")
    labels = zarr.open_group(given.folder / "out.zarr", mode="r")["labels/segmentation/0"]
    sample = np.asarray(labels[shape[0] // 2, ::64, ::64])  # type: ignore[index] # an array
    if not ((sample == 1) | (sample == 2)).all():
        raise SystemExit("there are voxels without a label")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    content = {
        "shape": shape,
        "gigabytes": float(np.prod(shape)) / 2**30,
        "blocks": summary.blocks,
        "workers": given.workers,
        "seconds_to_make": round(made, 1),
        "seconds": round(summary.seconds, 1),
        "voxels_per_second": summary.voxels_per_second,
        "peak_mb_of_one_process": peak // 1024,
        "files": sum(1 for file in (given.folder / "out.zarr").rglob("*") if file.is_file()),
    }
    print(json.dumps(content, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not given.keep:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
