r"""Which size of network does a data set need? Learning curves of chains of several sizes.

Each learns as the networks of a round of ``fit`` do: at a steady rate, its averaged weights validated at the end
of every epoch. At some times they are also scored on sections that have no part in anything. One thread, processor
time, so that other programs on the machine change little. Example::

    python benchmarks/sizes.py isbi --data isbi2012 --seconds 150 --sizes w24-s4,w32-s4,w16-s2 --out sizes-isbi

With a number of epochs (``w24-s4@22``) a size learns for these instead, so that it does not matter how busy the machine
is; columns are then fractions of the epochs.

Sizes whose curve lies in ``--out`` already are not trained again. ``table.md`` has a row for each.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import search
from napari_autosegnet.cli.options import parse_duration
from napari_autosegnet.events import silent
from napari_autosegnet.jobs.fit import STRIDE
from napari_autosegnet.jobs.model_making import ModelMaker
from napari_autosegnet.jobs.preparation import LabeledData, prepare, training_data
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.search.candidates import SIZES, Size
from napari_autosegnet.search.latency import measured_latencies
from napari_autosegnet.training.schedules import Steady
from napari_autosegnet.training.trainer import Trainer
from napari_autosegnet.training.validation import PatchScores, paired_interval

#: Fractions of the time at which a network is scored.
SCORED_AT = (1 / 4, 1 / 2, 3 / 4, 1)
USUAL = "w24-s4"


def parse_size(text: str) -> Size:
    """``w32-s4`` or ``w32-s4-c2``: channels, stem stride, cells."""
    match = re.fullmatch(r"w(\d+)-s(\d+)(?:-c(\d+))?", text)
    if match is None:
        raise SystemExit(f"'{text}' is no size; give channels and stride, such as {SIZES[0].name}")
    width, stride, cells = match.groups(default="3")
    return Size(base_width=int(width), stem_stride=int(stride), cells=int(cells))


def learn(task: search.Task, size: Size, epochs: int | None, seed: int) -> dict[str, Any]:
    """The curve of a size: counts of the validation patches by epoch, counts of the scored sections now and then."""
    import torch

    problem, settings = task.problem, fit_settings(task.preset, seed=seed)
    data = LabeledData.given([problem.image], [problem.labels], problem.classes, split=task.split)
    prepared = prepare(data, settings, device=task.device, report=silent)
    patches = training_data(prepared, settings, stride=STRIDE, report=silent)
    specification = size.specification(
        settings.patch_size,
        settings.network,
        in_channels=prepared.normalization.channels(settings.context),
        classes=len(patches.class_names),
    )
    [latency] = measured_latencies([specification], prepared.device)
    torch.manual_seed(seed)
    trainer = Trainer(specification.build(), patches, settings, schedule=Steady())
    trainer.budget.epochs, trainer.budget.seconds = epochs, None if epochs else task.budget
    maker = ModelMaker(prepared, patches, settings)
    curve: list[dict[str, Any]] = []
    scored: list[dict[str, Any]] = []
    due = list(SCORED_AT)

    def keep() -> None:
        assert trainer.last is not None
        used = trainer.budget.fraction_used()
        curve.append({"seconds": trainer.budget.elapsed, "counts": trainer.last.counts.tolist()})
        if due and used >= due[0]:
            due[:] = [each for each in due if each > used]
            folder = task.out / "model"
            maker.model(specification, trainer.learner.current.state_dict()).save(folder)
            scored.append({"used": used, "counts": task.score(folder)["sections"]})

    trainer.run(on_epoch=keep)
    return {"size": size.name, "seed": seed, "latency": latency, "curve": curve, "scored": scored}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row per size and seed."""
    head = ["network", "seed", "ms for 512 x 512", "epochs", *(f"scored after {used:.0%}" for used in SCORED_AT)]
    head += ["best validation", f"against {USUAL} (90 % of draws of patches)"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    usual = {each["seed"]: best(each) for each in results if each["size"].startswith(USUAL)}
    for each in results:
        cells = [each["size"], str(each["seed"]), f"{each['latency']:.0f}", str(len(each["curve"]))]
        for used in SCORED_AT:
            entry = next(entry for entry in each["scored"] if entry["used"] >= used)
            cells.append(f"{search.iou(np.array(entry['counts'])).mean():.3f}")
        cells.append(f"{best(each).mean_iou:.3f}")
        reference = usual.get(each["seed"])
        if reference is None or each["size"].startswith(USUAL):
            cells.append("-")
        else:
            low, high = paired_interval(best(each), reference)
            cells.append(f"{best(each).mean_iou - reference.mean_iou:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best(result: dict[str, Any]) -> PatchScores:
    """The scores of its best epoch."""
    epochs = [PatchScores(np.array(epoch["counts"]), 0.0) for epoch in result["curve"]]
    return max(epochs, key=lambda scores: scores.mean_iou)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=search.SETS)
    parser.add_argument("--data", required=True, type=Path, help="folder with the set's files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seconds", type=parse_duration, default=150.0, help="time of each network, such as 150s")
    parser.add_argument("--sizes", default="w24-s4,w32-s4,w16-s4,w16-s2")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--preset", default="fast", choices=("fast", "standard"))
    given = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    # The package's budgets look at this clock.
    time.monotonic = time.process_time
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    problem = search.SETS[given.set](given.data.absolute(), out / "data")
    task = search.Task(problem, given.seconds, given.preset, out, "cpu")
    results = []
    for seed in map(int, given.seeds.split(",")):
        for text in given.sizes.split(","):
            name, _, epochs = text.partition("@")
            size = parse_size(name)
            file = out / f"{size.name}-{seed}.json"
            if not file.exists():
                curve = learn(task, size, int(epochs) if epochs else None, seed)
                file.write_text(json.dumps(curve) + "\n", encoding="utf-8")
            results.append(json.loads(file.read_text(encoding="utf-8")))
            print(size.name, seed, f"{best(results[-1]).mean_iou:.4f}", file=sys.stderr)
    rows = table(results)
    (out / "table.md").write_text(rows + "\n", encoding="utf-8")
    Console().print(rows, soft_wrap=True)


if __name__ == "__main__":
    main()
