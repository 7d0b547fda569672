r"""What others make of the same data in the same time, on the same cores.

=============  =========================================================================================
peer           what it is
=============  =========================================================================================
autosegnet     ``napari-autosegnet fit --preset fast``
forest         ``napari-autosegnet train --network forest``: pixel features and a random forest, as in ilastik
monai_unet     MONAI's BasicUNet, trained by the loop of its tutorials
nnunet         nnU-Net v2, its 2D configuration as it plans it, stopped when the time is used
=============  =========================================================================================

Each has an environment of its own (``peers/NAME.txt`` says what is installed) and a script, ``peers/NAME.py``, with two
commands, ``train`` and ``predict``. All get the same sections to learn from and divide them as they see fit; others are
scored. The time is that of the whole training command, with all that it prepares. Example::

    python benchmarks/peers.py isbi --data isbi2012 --budget 4m --out peers-isbi --environments environments

Peers whose result lies in ``--out`` already are not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import tifffile
from rich.console import Console

from napari_autosegnet.cli.options import parse_duration
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.section_numbers import parse_sections
from napari_autosegnet.training.metrics import class_iou
from search import SETS

Array = npt.NDArray[Any]
PEERS = ("autosegnet", "forest", "monai_unet", "nnunet")
HERE = Path(__file__).parent


def exchange(name: str, data: Path, folder: Path) -> list[str]:
    """Write the sections that all learn from and those that are scored; returns the names of the classes.

    Labels are 0 where nothing was painted, and 1 to K.
    """
    problem = SETS[name](data, folder / "source")
    stacks = open_labeled([problem.image], [problem.labels], problem.classes)
    words = dict(zip(problem.split[::2], problem.split[1::2], strict=True))
    chosen = [words[key] for key in ("--train-sections", "--validation-sections") if key in words]
    learned = parse_sections(",".join(chosen)) if chosen else range(stacks[0].image.sections)
    tested = open_labeled([problem.test_image], [problem.test_labels], problem.classes)
    scored = parse_sections(problem.test_sections) if problem.test_sections else range(tested[0].image.sections)
    for part, (stack,), sections in (("train", stacks, learned), ("test", tested, scored)):
        images = np.stack([stack.image.section(section)[0] for section in sections])
        labels = np.stack([stack.target(section) for section in sections]).astype(np.uint8)
        tifffile.imwrite(folder / f"{part}-images.tif", images, compression="zlib")
        tifffile.imwrite(folder / f"{part}-labels.tif", labels, compression="zlib")
    names = [each.name for each in stacks[0].mapping.classes]
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    return names


def interpreter(peer: str, environments: Path) -> Path:
    """Python of a peer's environment, which is made at first."""
    folder = environments / peer
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        requirements = HERE / "peers" / f"{peer}.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True, cwd=HERE.parent)
    return python


def watched(command: list[str | Path]) -> dict[str, float]:
    """Run a command; seconds, and the most memory of it and its children in GB."""
    began, most = time.monotonic(), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            most = max(most, sum(each.memory_full_info().pss for each in family))
        except psutil.Error:  # one of them has just ended
            pass
        time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return {"seconds": time.monotonic() - began, "memory": most / 1e9}


def size_of(folder: Path) -> float:
    """GB on the disk."""
    return sum(each.lstat().st_blocks * 512 for each in folder.rglob("*") if not each.is_dir()) / 1e9


def measure(peer: str, folder: Path, seconds: float, environments: Path) -> dict[str, Any]:
    """Train and apply a peer; what it cost, and its confusion counts by section."""
    own = folder / peer
    result = own / "result.json"
    if not result.exists():
        own.mkdir(exist_ok=True)
        python, script = interpreter(peer, environments), HERE / "peers" / f"{peer}.py"
        training = watched([python, script, "train", folder, own, str(seconds)])
        applying = watched([python, script, "predict", folder, own, "0"])
        truth = tifffile.imread(folder / "test-labels.tif")
        predicted = tifffile.imread(own / "predicted.tif").reshape(truth.shape)
        classes = len(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
        versions = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
        figures = {
            "training": training,
            "applying": applying,
            "pixels": int(truth.size),
            "installed": size_of(environments / peer),
            "counts": [confusion(*pair, classes).tolist() for pair in zip(truth, predicted, strict=True)],
            "versions": versions.splitlines(),
        }
        result.write_text(json.dumps(figures), encoding="utf-8")
    figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return figures


def confusion(truth: Array, predicted: Array, classes: int) -> Array:
    """Annotated pixels (K, K) by true and predicted class."""
    known = truth > 0
    places = (truth[known].astype(int) - 1) * classes + predicted[known].astype(int) - 1
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def table(results: dict[str, dict[str, Any]], names: list[str]) -> str:
    lines = [
        f"| peer | mean IoU | {' | '.join(names)} | training | applying | memory | installed |",
        "|---" * (len(names) + 6) + "|",
    ]
    for peer, figures in results.items():
        iou = class_iou(np.sum(figures["counts"], axis=0))
        speed = figures["pixels"] / 1e6 / figures["applying"]["seconds"]
        cells = [
            peer,
            f"{np.nanmean(iou):.3f}",
            *(f"{value:.3f}" for value in iou),
            f"{figures['training']['seconds']:.0f} s",
            f"{speed:.2f} Mpx/s",
            f"{max(figures['training']['memory'], figures['applying']['memory']):.1f} GB",
            f"{figures['installed']:.1f} GB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the peers, print the table, keep all in ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", required=True, type=Path, help="folder with the set's files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--environments", required=True, type=Path, help="folder for the peers' environments")
    parser.add_argument("--budget", type=parse_duration, default=240.0, help="time of each training, such as 4m")
    parser.add_argument("--peers", default=",".join(PEERS))
    given = parser.parse_args(arguments)
    out, environments = given.out.absolute(), given.environments.absolute()
    out.mkdir(parents=True, exist_ok=True)
    names, results = exchange(given.set, given.data.absolute(), out), {}
    for peer in given.peers.split(","):
        results[peer] = measure(peer, out, given.budget, environments)
        print(table({peer: results[peer]}, names).splitlines()[-1], file=sys.stderr)
    cores = f"{psutil.cpu_count(logical=False)} cores, {platform.machine()}, Python {platform.python_version()}"
    text = f"{table(results, names)}\n\n{given.budget:.0f} s of training, {cores}\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    Console().print(text, soft_wrap=True)


if __name__ == "__main__":
    main()
