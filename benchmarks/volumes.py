r"""One plane against three on an isotropic volume: membrane, objects in 3D, and processor time.

A plain network learns from z 0-119 of the medulla, its labels painted in xy only, once for each seed. It is applied to
the whole volume in xy, then in xy, xz, and yz; sections 170-249 are scored, in slabs. Example::

    python benchmarks/volumes.py --data medulla --out volumes

What lies in ``--out`` already is not computed again. ``table.md`` has the figures, ``summary.json`` all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

import main_job

WAYS = {"one plane": "xy", "three planes": "all"}
#: Scored all at once, and in slabs, whose differences say how far to trust the whole.
WHOLE, SLABS = "170-249", ("170-189", "190-209", "210-229", "230-249")
CLASSES = "0:cell,255:membrane"
#: Row of the table, and where `evaluate --json` has its figure.
FIGURES = {
    "IoU of the membrane": ("iou", "membrane"),
    "V_rand of the objects in 3D": ("objects", "v_rand"),
    "V_info": ("objects", "v_info"),
    "true objects found (IoU above 0.5)": ("objects", "recall", "0.5"),
    "found objects that are true": ("objects", "precision", "0.5"),
}

Scores = dict[str, Any]


def command(*words: object, log: Path) -> tuple[str, float]:
    """As of ``main_job``: a command's standard output, and the processor time (seconds) it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = main_job.command(*words, log=log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return output, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def learn(data: Path, seed: int, steps: int, out: Path) -> Path:
    """A run whose network learned from the first sections."""
    run = out / f"seed-{seed}"
    if not (run / "model" / "model.json").exists():
        command(
            *("train", "--run", run, "--image", data / "raw.tif", "--labels", data / "membranes.tif"),
            *("--classes", CLASSES, "--train-sections", "0-119", "--validation-sections", "130-159"),
            *("--network", "plain", "--preset", "fast", "--steps-per-epoch", 50, "--epochs", max(1, steps // 50)),
            *("--seed", seed, "--device", "cpu"),
            log=out / "log.txt",
        )
    return run


def apply_and_score(data: Path, run: Path, planes: str, out: Path) -> Scores:
    """What `evaluate` says of the whole and of the slabs, and what applying the network cost."""
    store = out / f"{run.name}-{planes}.zarr"
    result = store.with_suffix(".json")
    if not result.exists():
        log = out / "log.txt"
        _, seconds = command(
            *("predict", "--model", run, "--image", data / "raw.tif", "--out", store.with_name(f"alone-{store.name}")),
            *("--planes", planes, "--device", "cpu"),
            log=log,
        )
        command(
            *("predict", "--model", run, "--image", data / "raw.tif", "--out", store),
            *("--planes", planes, "--device", "cpu", "--instances"),
            log=log,
        )
        truth = ("--labels", data / "membranes.tif", "--classes", CLASSES, "--objects", data / "cells.tif")
        scores = {
            sections: json.loads(
                command("evaluate", "--prediction", store, *truth, "--sections", sections, "--json", log=log)[0]
            )
            for sections in (WHOLE, *SLABS)
        }
        result.write_text(json.dumps({"seconds": seconds, "scores": scores}, indent=1) + "\n", encoding="utf-8")
    content: Scores = json.loads(result.read_text(encoding="utf-8"))
    return content


def figure(scores: Scores, place: tuple[str, ...]) -> float:
    """One figure of what `evaluate --json` says."""
    value: Any = scores
    for name in place:
        value = value[name]
    return float(value)


def table(found: dict[str, list[Scores]]) -> str:
    """The figures as a Markdown table, seeds beside each other; the last column is the range over slabs and seeds."""
    one, three = found["one plane"], found["three planes"]
    lines = ["| | one plane | three planes | difference per slab |", "|---|---|---|---|"]
    for title, place in FIGURES.items():
        cells = [", ".join(f"{figure(each['scores'][WHOLE], place):.3f}" for each in way) for way in (one, three)]
        differences = [
            figure(many["scores"][slab], place) - figure(single["scores"][slab], place)
            for single, many in zip(one, three, strict=True)
            for slab in SLABS
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {min(differences):+.3f} to {max(differences):+.3f} |")
    seconds = [fmean(each["seconds"] for each in way) for way in (one, three)]
    lines.append(f"| processor time in s | {seconds[0]:.1f} | {seconds[1]:.1f} | {seconds[1] / seconds[0]:.2f} times |")
    counts = [", ".join(str(each["scores"][WHOLE]["objects"]["found"]) for each in way) for way in (one, three)]
    true = one[0]["scores"][WHOLE]["objects"]["objects"]
    lines.append(f"| objects found; {true} are true | {' | '.join(counts)} | |")
    return "\n".join(lines)


def main() -> None:
    """Learn, apply, score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with raw.tif, membranes.tif, and cells.tif")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=1500, help="steps of each training")
    parser.add_argument("--seeds", default="0,1")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    data, out = given.data.absolute(), given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Scores]] = {way: [] for way in WAYS}
    for seed in map(int, given.seeds.split(",")):
        run = learn(data, seed, given.steps, out)
        for way, planes in WAYS.items():
            found[way].append(apply_and_score(data, run, planes, out))
    text = table(found)
    summary = json.dumps({"steps": given.steps, "found": found}, indent=1)
    (out / "summary.json").write_text(f"{summary}\n", encoding="utf-8")
    (out / "table.md").write_text(f"{text}\n", encoding="utf-8")
    Console().print(text, soft_wrap=True)


if __name__ == "__main__":
    main()
