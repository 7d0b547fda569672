"""What a random forest on pixel features makes of a few strokes, and what it costs.

Strokes of about 20 x 3 pixels within one class are drawn, so many per class and section; everything that was
not painted is scored on other sections. Each row is the mean of three draws. ::

    python benchmarks/few_strokes.py --isbi isbi2012 --sample sample

``--compare`` also tries other scales, trees and features (scikit-image's), which is how the forest's settings were
chosen. Times are seconds of one processor core, so they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from skimage.feature import multiscale_basic_features

from napari_autosegnet.pixel_classifier.features import SIGMAS, pixel_features
from napari_autosegnet.pixel_classifier.forest import PixelClassifier
from napari_autosegnet.pixel_classifier.trees import DEPTH, TREES

Array = npt.NDArray[Any]
LENGTH, WIDTH, DRAWS = 20, 3, 3


@dataclass
class Problem:
    """Sections (y, x) to paint on and to score, each with its classes 0 to K - 1."""

    name: str
    painted: list[tuple[Array, Array]]
    scored: list[tuple[Array, Array]]
    strokes: tuple[int, ...]


@dataclass
class Setting:
    """Features and forest that are compared."""

    name: str
    features: Callable[[Array], Array]
    sigmas: tuple[float, ...] = SIGMAS
    forest: dict[str, Any] = field(default_factory=dict)


def isbi(folder: Path) -> Problem:
    """ISBI 2012: painted on sections 2 and 18, scored on 24 and 25."""
    images = tifffile.imread(folder / "train-volume.tif")
    labels = tifffile.imread(folder / "train-labels.tif") // 255
    return Problem(
        "ISBI", [(images[z], labels[z]) for z in (2, 18)], [(images[z], labels[z]) for z in (24, 25)], (5, 20)
    )


def sample(folder: Path) -> Problem:
    """The axon sample: painted on image a, scored on image b."""
    pairs = []
    for name in "ab":
        labels = np.asarray(Image.open(folder / f"axon-sem-{name}-labels.png"))
        pairs.append(
            (np.asarray(Image.open(folder / f"axon-sem-{name}.png")), np.unique(labels, return_inverse=True)[1])
        )
    return Problem("sample", pairs[:1], pairs[1:], (3, 10, 40))


def nerve_cord(folder: Path) -> Problem:
    """Fly nerve cord, three classes: painted on sections 2 and 8, scored on 17 and 19."""
    images = tifffile.imread(folder / "raw.tif")
    membrane = tifffile.imread(folder / "membranes.tif") > 0
    mitochondrion = tifffile.imread(folder / "mitochondria.tif") > 0
    labels = np.where(mitochondrion, 1, np.where(membrane, 0, 2))
    return Problem(
        "nerve cord", [(images[z], labels[z]) for z in (2, 8)], [(images[z], labels[z]) for z in (17, 19)], (5, 20)
    )


def nuclei(folder: Path) -> Problem:
    """Nuclei in fluorescence: painted on four images of the part to learn from, scored on pages 50 to 79."""
    images = tifffile.imread(folder / "images.tif")
    labels = tifffile.imread(folder / "masks.tif") // 255
    return Problem(
        "nuclei",
        [(images[z], labels[z]) for z in (0, 10, 20, 30)],
        [(images[z], labels[z]) for z in range(50, 80)],
        (3, 10),
    )


def medulla(folder: Path) -> Problem:
    """Fly medulla: painted on sections 10 and 100, scored on four from 170 on."""
    images = tifffile.imread(folder / "raw.tif")
    labels = tifffile.imread(folder / "membranes.tif") // 255
    scored = (180, 200, 220, 240)
    return Problem(
        "medulla", [(images[z], labels[z]) for z in (10, 100)], [(images[z], labels[z]) for z in scored], (5, 20)
    )


#: By the option that names the folder of its files.
PROBLEMS: dict[str, Callable[[Path], Problem]] = {
    "isbi": isbi,
    "sample": sample,
    "nerve-cord": nerve_cord,
    "nuclei": nuclei,
    "medulla": medulla,
}


def add_problems(parser: argparse.ArgumentParser) -> None:
    """Options for the folders of the data sets."""
    for name, load in PROBLEMS.items():
        summary = (load.__doc__ or "").splitlines()[0]
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=summary.replace("%", "%%"))


def chosen_problems(given: argparse.Namespace) -> list[Problem]:
    """Those whose folders were given."""
    folders = {name: getattr(given, name.replace("-", "_")) for name in PROBLEMS}
    return [PROBLEMS[name](folder) for name, folder in folders.items() if folder is not None]


def paint(classes: Array, strokes: int, generator: np.random.Generator) -> Array:
    """Strokes (y, x) of class numbers, -1 elsewhere: straight, in any direction, each within its class."""
    marks = np.full(classes.shape, -1)
    along = np.arange(LENGTH) - LENGTH / 2
    across = np.arange(WIDTH) - WIDTH // 2
    for number in np.unique(classes):
        places = np.argwhere(classes == number)
        painted = 0
        while painted < strokes:
            angle = generator.uniform(0, np.pi)
            line = places[generator.integers(len(places))] + along[:, None] * [np.sin(angle), np.cos(angle)]
            y, x = (np.rint(axis)[:, None] + across for axis in line.T)
            y, x = (np.broadcast_to(axis, (LENGTH, WIDTH, WIDTH)) for axis in (y[:, :, None], x[:, None, :]))
            y, x = y.astype(int).ravel(), x.astype(int).ravel()
            inside = (y >= 0) & (x >= 0) & (y < classes.shape[0]) & (x < classes.shape[1])
            y, x = y[inside], x[inside]
            # As a careful hand does: what lies in another class is left out.
            own = classes[y, x] == number
            if own.mean() > 0.5:
                marks[y[own], x[own]] = number
                painted += 1
    return marks


def mean_iou(predicted: list[Array], truth: list[Array]) -> float:
    found, true = np.concatenate([p.ravel() for p in predicted]), np.concatenate([t.ravel() for t in truth])
    return float(
        np.mean([((found == k) & (true == k)).sum() / ((found == k) | (true == k)).sum() for k in np.unique(true)])
    )


def measure(problem: Problem, setting: Setting, strokes: int, draws: Iterable[int] = range(DRAWS)) -> dict[str, float]:
    """Means over the draws: score, annotated share, seconds of a core to fit and to label a megapixel."""
    mean, std = (getattr(np.stack([image for image, _ in problem.painted]), part)() for part in ("mean", "std"))
    pixels = sum(image.size for image, _ in problem.scored)
    classes = int(max(labels.max() for _, labels in problem.painted)) + 1

    def of(image: Array) -> Array:
        return setting.features(((image - mean) / std).astype(np.float32)[None])

    features = [of(image) for image, _ in problem.painted]
    began = time.process_time()
    scored = [of(image) for image, _ in problem.scored]
    feature_seconds = (time.process_time() - began) / pixels * 2**20
    rows = []
    for draw in draws:
        generator = np.random.default_rng(draw)
        marks = [paint(labels, strokes, generator) for _, labels in problem.painted]
        learned = np.concatenate([each[:, mark >= 0].T for each, mark in zip(features, marks, strict=True)])
        targets = np.concatenate([mark[mark >= 0] for mark in marks])
        began = time.process_time()
        forest = PixelClassifier.fit(
            learned, targets, in_channels=1, classes=classes, sigmas=setting.sigmas, seed=draw, **setting.forest
        )
        fitted = time.process_time()
        predicted = [forest.probabilities(each).argmax(0) for each in scored]
        applied = time.process_time()
        rows.append(
            (
                mean_iou(predicted, [labels for _, labels in problem.scored]),
                len(targets) / sum(mark.size for mark in marks),
                fitted - began,
                feature_seconds,
                (applied - fitted) / pixels * 2**20,
            )
        )
    return dict(zip(("score", "painted", "fit", "features", "trees"), np.mean(rows, axis=0).tolist(), strict=True))


def settings(compare: bool) -> list[Setting]:
    ours = partial(pixel_features, sigmas=SIGMAS)
    usual = Setting(f"usual: {len(SIGMAS)} scales, {TREES} trees of depth {DEPTH}", ours)
    if not compare:
        return [usual]

    def other(name: str, sigmas: tuple[float, ...]) -> Setting:
        return Setting(name, partial(pixel_features, sigmas=sigmas), sigmas)

    def scikit_image(image: Array) -> Array:
        found = multiscale_basic_features(image[0], sigma_min=0.7, sigma_max=10)
        return np.ascontiguousarray(np.moveaxis(found, -1, 0))

    return [
        usual,
        Setting("scikit-image's features", scikit_image),
        other("3 scales, 0.7 to 4.1", (0.7, 1.7, 4.1)),
        other("4 scales, 0.7 to 10", (0.7, 1.7, 4.1, 10.0)),
        other("5 scales, 0.7 to 16", (0.7, 1.6, 3.5, 7.5, 16.0)),
        *(
            Setting(f"{trees} trees of depth {depth}", ours, forest={"trees": trees, "depth": depth})
            for trees, depth in ((10, 8), (15, 10), (20, 8), (30, 12), (100, 15))
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_problems(parser)
    parser.add_argument("--compare", action="store_true", help="try other settings, too")
    given = parser.parse_args()
    problems = chosen_problems(given)
    print("| set | strokes | annotated | setting | mean IoU | fit (s) | features (s/Mpx) | trees (s/Mpx) |")
    print("|---|---|---|---|---|---|---|---|")
    for problem in problems:
        for strokes in problem.strokes:
            for setting in settings(given.compare):
                row = measure(problem, setting, strokes)
                print(
                    f"| {problem.name} | {strokes} | {row['painted']:.2%} | {setting.name} | {row['score']:.3f} "
                    f"| {row['fit']:.2f} | {row['features']:.2f} | {row['trees']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
