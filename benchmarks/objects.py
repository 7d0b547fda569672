r"""Do objects of thick sections grow better through the volume, or section by section? Both, with a model's classes.

=========  ===========================================================================================
set        what is scored
=========  ===========================================================================================
isbi, vnc  objects of each section, against the connected parts of what is no membrane in the truth
medulla    objects in 3D against the true cells, of every n-th section (``--every``): sections of n x 10 nm
=========  ===========================================================================================

Example::

    napari-autosegnet fit --image train-volume.tif --labels train-labels.tif --classes 0:membrane,255:cell \
        --train-sections 0-15 --validation-sections 18-21 --preset fast --budget 4m --run isbi
    python benchmarks/objects.py isbi --data isbi2012 --model isbi --sections 24-29 --out objects-isbi

``--sections`` are those of the data; what lies between them and the model's training is the caller's business.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr
from rich.console import Console
from scipy.ndimage import label

import main_job
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.evaluation.objects import compare_objects

#: Nanometers of a section and of a pixel.
VOXELS = {"isbi": (50.0, 4.0), "vnc": (47.0, 4.6), "medulla": (10.0, 10.0)}
GROWTH = ("volume", "sections")

Stack = npt.NDArray[Any]


def read(name: str, data: Path, every: int) -> tuple[Stack, Stack]:
    """Image, and true objects; those of isbi and vnc are numbered in each section alone."""
    if name == "medulla":
        return tifffile.imread(data / "raw.tif")[::every], tifffile.imread(data / "cells.tif")[::every]
    if name == "isbi":
        image, inside = tifffile.imread(data / "train-volume.tif"), tifffile.imread(data / "train-labels.tif") > 0
    else:
        image, inside = tifffile.imread(data / "raw.tif"), tifffile.imread(data / "membranes.tif") == 0
    return image, np.stack([label(section)[0] for section in inside])


def apart(objects: Stack) -> Stack:
    """Objects with other numbers in each section; 0 stays."""
    offsets = np.arange(len(objects), dtype=np.int64)[:, None, None] << 32
    return np.where(objects > 0, objects + offsets, 0)


def main() -> None:
    """Predict twice, score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=VOXELS)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--sections", required=True, help="which are scored, such as 24-29")
    parser.add_argument("--every", type=int, default=1, help="medulla: only every n-th section is there")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    image, truth = read(given.set, given.data, given.every)
    thickness, pixel = VOXELS[given.set]
    about = {"spacing": thickness * given.every, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(out / "image.tif", image, imagej=True, resolution=(1 / pixel, 1 / pixel), metadata=about)
    scored = [section // given.every for section in parse_sections(given.sections) if section % given.every == 0]
    lines = ["| objects grow | found | V_rand | V_info | recall 0.5 | precision 0.5 |", "|---|---|---|---|---|---|"]
    for growth in GROWTH:
        store = out / f"{growth}.zarr"
        main_job.command(
            *("predict", "--model", given.model.absolute(), "--image", out / "image.tif", "--out", store),
            *("--instances", "--instance-growth", growth, "--device", "cpu"),
            log=out / "log.txt",
        )
        found: Stack = np.asarray(zarr.open_group(store, mode="r")["labels/instances/0"])[scored]
        true = truth[scored]
        if given.set != "medulla":
            found, true = apart(found), apart(true)
        counted = true > 0
        pairs, voxels = np.unique(np.stack([true[counted], found[counted]]), axis=1, return_counts=True)
        scores = compare_objects(np.column_stack([pairs.T.astype(np.int64), voxels]))
        cells = [scores.v_rand, scores.v_info, scores.recall["0.5"], scores.precision["0.5"]]
        lines.append(f"| {growth} | {scores.found} of {scores.objects} | {' | '.join(f'{n:.3f}' for n in cells)} |")
    text = "\n".join(lines)
    (out / "table.md").write_text(f"{text}\n", encoding="utf-8")
    Console().print(text, soft_wrap=True)


if __name__ == "__main__":
    main()
