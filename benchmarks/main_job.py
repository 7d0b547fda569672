r"""The main job on a labeled set, through the commands: search, train, score, beside U-Net, PSPNet and simple rules.

Each set is prepared from the files that its own README describes; test sections (or groups) are set aside
before anything is learned. What is done is what a user would type, one command after the other, and the
table says how long each network was trained. Example::

    python benchmarks/main_job.py isbi --data isbi2012 --search 15m --train 30m --out isbi
    python benchmarks/main_job.py industrial --data industrial --search 4m --train 8m --out industrial
    python benchmarks/main_job.py vnc --data vnc --search 4m --train 8m --networks searched,unet --out vnc

Steps whose result lies in ``--out`` already are not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from rich.console import Console

Array = npt.NDArray[Any]

#: Share of the industrial set's groups that is only scored.
TEST_SHARE = 0.25


@dataclass
class Problem:
    """What the commands are given."""

    image: Path
    labels: Path
    test_image: Path
    test_labels: Path
    classes: str
    #: Options that divide training and validation.
    split: list[str]
    #: Sections that are scored; all of the test image when None.
    test_sections: str | None = None
    #: Sections that simple rules are tuned on; all of the training image when None.
    rule_sections: str | None = None
    boundary: str | None = None
    notes: list[str] = field(default_factory=list)


def isbi(data: Path, out: Path) -> Problem:
    """ISBI 2012: sections 0-15 for the weights, 18-21 for validation and reward, 24-29 scored."""
    image, labels = data / "train-volume.tif", data / "train-labels.tif"
    return Problem(
        image,
        labels,
        image,
        labels,
        "0:membrane,255:cell",
        ["--train-sections", "0-15", "--validation-sections", "18-21"],
        test_sections="24-29",
        rule_sections="0-15",
        boundary="membrane",
    )


def industrial(data: Path, out: Path) -> Problem:
    """Surface defects: crops of a quarter of the groups are scored, the others learned from."""
    images, masks = tifffile.imread(data / "crops-images.tif"), tifffile.imread(data / "crops-masks.tif")
    with (data / "index.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["crop_index"]]
    groups = sorted({row["group"] for row in rows}, key=int)
    order = np.random.default_rng(0).permutation(len(groups))
    held_out = {groups[index] for index in order[: round(TEST_SHARE * len(groups))]}
    counts = {"train": 0, "test": 0}
    for row in rows:
        part = "test" if row["group"] in held_out else "train"
        page = int(row["crop_index"])
        counts[part] += 1
        for kind, stack in (("images", images), ("masks", masks)):
            folder = out / part / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(stack[page]).save(folder / f"{row['file']}.png")
    return Problem(
        out / "train" / "images",
        out / "train" / "masks",
        out / "test" / "images",
        out / "test" / "masks",
        "0:sound,255:defect",
        ["--group", f"group@{data / 'index.csv'}"],
        notes=[
            f"{counts['train']} crops of {len(groups) - len(held_out)} groups to learn from, "
            f"{counts['test']} crops of {len(held_out)} groups scored."
        ],
    )


def vnc(data: Path, out: Path) -> Problem:
    """Fly nerve cord: three classes from strokes on 5 % of the pixels of sections 0-9 and 12-13; 16-19 scored."""
    membrane = tifffile.imread(data / "membranes.tif") > 0
    mitochondrion = tifffile.imread(data / "mitochondria.tif") > 0
    classes = np.where(mitochondrion, 2, np.where(membrane, 1, 3)).astype(np.uint8)
    generator = np.random.default_rng(0)
    scribbles = np.zeros_like(classes)
    for section in (*range(10), 12, 13):
        scribbles[section] = scribble(classes[section], 0.05, generator)
    out.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(out / "scribbles.tif", scribbles, compression="zlib")
    tifffile.imwrite(out / "classes.tif", classes, compression="zlib")
    share = float((scribbles[:10] > 0).mean())
    return Problem(
        data / "raw.tif",
        out / "scribbles.tif",
        data / "raw.tif",
        out / "classes.tif",
        "1:membrane,2:mitochondrion,3:rest",
        ["--train-sections", "0-9", "--validation-sections", "12-13"],
        test_sections="16-19",
        boundary="membrane",
        notes=[f"Strokes cover {share:.1%} of the pixels of sections 0-9."],
    )


def scribble(classes: Array, share: float, generator: np.random.Generator) -> Array:
    """Strokes as a person paints them, until they cover a share of the section.

    A stroke is a curve of about 60 pixels and 5 pixels wide that begins at a pixel drawn evenly from the
    section; it stays within the class on which it began.

    Parameters
    ----------
    classes : array
        True class numbers 1..K, ``(y, x)``.
    share : float
        Share of the pixels to be covered.
    generator : numpy.random.Generator
        Draws beginnings and directions.

    Returns
    -------
    array
        Class numbers where a stroke lies, else 0, ``(y, x)``.
    """
    height, width = classes.shape
    drawn = np.zeros_like(classes)
    while np.count_nonzero(drawn) < share * drawn.size:
        y, x = generator.uniform(0, height), generator.uniform(0, width)
        number = classes[int(y), int(x)]
        direction = generator.uniform(0, 2 * math.pi)
        for _ in range(60):
            top, left = max(int(y) - 2, 0), max(int(x) - 2, 0)
            place = (slice(top, int(y) + 3), slice(left, int(x) + 3))
            drawn[place] = np.where(classes[place] == number, number, drawn[place])
            direction += generator.normal(0, 0.2)
            y, x = y + math.sin(direction), x + math.cos(direction)
            if not (0 <= y < height and 0 <= x < width):
                break
    return drawn


def nuclei(data: Path, out: Path) -> Problem:
    """Nuclei in fluorescence: pages 0-37 for the weights, 38-49 for validation, 50-79 scored; no neighbors."""
    image, labels = data / "images.tif", data / "masks.tif"
    split = ["--train-sections", "0-37", "--validation-sections", "38-49", "--gap", "0"]
    return Problem(image, labels, image, labels, "0:background,255:nucleus", split, test_sections="50-79")


def medulla(data: Path, out: Path) -> Problem:
    """Membranes of the fly medulla, section by section: 0-119 for the weights, 130-159 validation, 170-249 scored."""
    image, labels = data / "raw.tif", data / "membranes.tif"
    split = ["--train-sections", "0-119", "--validation-sections", "130-159"]
    return Problem(
        image, labels, image, labels, "0:cell,255:membrane", split, test_sections="170-249", boundary="membrane"
    )


SETS = {"isbi": isbi, "industrial": industrial, "vnc": vnc, "nuclei": nuclei, "medulla": medulla}


def command(*words: object, log: Path) -> str:
    """Run a command of the program; its standard output."""
    line = [str(word) for word in words]
    environment = {**os.environ, "NO_COLOR": "1"}
    with log.open("a", encoding="utf-8") as handle:
        handle.write(f"+ napari-autosegnet {' '.join(line)}\n")
        handle.flush()
        done = subprocess.run(
            [sys.executable, "-m", "napari_autosegnet", *line],
            stdout=subprocess.PIPE,
            stderr=handle,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode != 0:
        sys.exit(f"napari-autosegnet {' '.join(line)} failed with status {done.returncode}; see {log}")
    return done.stdout


def learn(problem: Problem, network: str, given: argparse.Namespace) -> dict[str, Any]:
    """Search (if it is a searched network), train and score one network; what `evaluate --json` says, and times."""
    result = given.out / f"{network}.json"
    if result.exists():
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return content
    run, log = given.out / network, given.out / f"{network}.log"
    data = ["--image", problem.image, "--labels", problem.labels, "--classes", problem.classes, *problem.split]
    seconds: dict[str, float] = {}
    if network == "searched" and not (run / "architecture.json").exists():
        began = time.monotonic()
        own = ["--preset", given.preset, "--budget", given.search]
        command("search", *data, "--run", run, *own, log=log)
        seconds["search"] = time.monotonic() - began
    elif network == "searched":
        seconds["search"] = max(e["seconds"] for e in events(run, "search") if e["event"] == "finished")
    before = 0.0
    config = run / "config.json"
    began = time.monotonic()
    if config.exists() and "training" in json.loads(config.read_text(encoding="utf-8")):
        before = max((e["seconds"] for e in events(run, "train") if e["event"] == "epoch"), default=0.0)
        command("train", "--run", run, "--resume", log=log)
    else:
        source = [] if network == "searched" else [*data, "--network", network]
        own = ["--preset", given.preset, "--budget", given.train]
        command("train", *source, "--run", run, *own, log=log)
    seconds["train"] = before + time.monotonic() - began
    scores = json.loads(
        command(
            *("evaluate", "--model", run, "--image", problem.test_image, "--labels", problem.test_labels),
            *("--classes", problem.classes, "--json", "--overlays", given.out / f"{network}-overlays"),
            *([] if problem.test_sections is None else ["--sections", problem.test_sections]),
            log=log,
        )
    )
    epochs = [event for event in events(run, "train") if event["event"] == "epoch"]
    content = {"scores": scores, "seconds": seconds, "epochs": len(epochs), "parameters": parameters(run / "model")}
    result.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content


def events(run: Path, step: str) -> list[dict[str, Any]]:
    """What a run told of a step."""
    found = map(json.loads, (run / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event for event in found if event.get("step") == step]


def parameters(model: Path) -> int:
    """Number of weights of a trained model."""
    from napari_autosegnet.model import Model

    return sum(weight.numel() for weight in Model.load(model).network().parameters())


def simple_rules(problem: Problem) -> dict[str, dict[str, Any]]:
    """One class everywhere and, with two classes, a blurred threshold tuned on the training part."""
    import baselines
    from napari_autosegnet.data.labeled_stacks import open_labeled

    (learned,) = open_labeled([problem.image], [problem.labels], problem.classes)
    (tested,) = open_labeled([problem.test_image], [problem.test_labels], problem.classes)
    names = [info.name for info in tested.mapping.classes]
    boundary = None if problem.boundary is None else names.index(problem.boundary)
    images, targets = baselines.read(tested, problem.test_sections or f"0-{tested.image.sections - 1}")
    rows = {
        f"all {name}": baselines.score([np.full_like(target, index) for target in targets], targets, names, boundary)
        for index, name in enumerate(names)
    }
    if len(names) == 2:
        threshold = baselines.tune_threshold(
            *baselines.read(learned, problem.rule_sections or f"0-{learned.image.sections - 1}")
        )
        rows["blurred threshold"] = baselines.score(
            [threshold.predict(image) for image in images],
            targets,
            names,
            boundary,
            None if boundary is None else [threshold.probability(image, boundary) for image in images],
        )
    return {method: scores.model_dump(mode="json") for method, scores in rows.items()}


def table(rules: dict[str, dict[str, Any]], networks: dict[str, dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    names = list(next(iter([*networks.values()]))["scores"]["iou"])
    head = ["method", "search s", "train s", "parameters", *(f"IoU {name}" for name in names), "mean IoU"]
    head += ["accuracy", "V_rand", "V_info", "calibration error"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows = [(name, each["scores"], each["seconds"], each["parameters"]) for name, each in networks.items()]
    rows += [(name, scores, {}, None) for name, scores in rules.items()]
    for method, scores, seconds, count in rows:
        cells = [method, *(f"{seconds[step]:.0f}" if step in seconds else "-" for step in ("search", "train"))]
        cells.append("-" if count is None else f"{count / 1e6:.2f} M")
        values = [scores["iou"][name] for name in names]
        values += [scores.get(key) for key in ("mean_iou", "accuracy", "v_rand", "v_info")]
        values.append(scores.get("expected_calibration_error"))
        cells += ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the job and print the table; all is kept in ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", required=True, type=Path, help="folder with the set's files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--search", default="15m", help="time of the search")
    parser.add_argument("--train", default="30m", help="time of each training")
    parser.add_argument("--networks", default="searched,unet,pspnet")
    parser.add_argument("--preset", default="fast")
    given = parser.parse_args(arguments)
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    problem = SETS[given.set](given.data.absolute(), given.out / "data")
    networks = {network: learn(problem, network, given) for network in given.networks.split(",")}
    rules = simple_rules(problem)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = table(rules, networks)
    machine = f"{platform.machine()}, {cores} core(s), Python {platform.python_version()}"
    content = {"set": given.set, "machine": machine, "networks": networks, "rules": rules}
    (given.out / "summary.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (given.out / "table.md").write_text("\n".join([*problem.notes, text, "", machine]) + "\n", encoding="utf-8")
    Console().print("\n".join([*problem.notes, text, machine]), soft_wrap=True)


if __name__ == "__main__":
    main()
