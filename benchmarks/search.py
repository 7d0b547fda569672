r"""Is the search worth its time? Arms with the same total time, scored on data that none of them has seen.

``search_arms.py`` says what each arm spends its time on.

Time is the processor time of this process with one thread (``--clock cpu``), so that other programs on
the machine change nothing, or the time on the wall (``--clock wall``, for a GPU). Example::

    python benchmarks/search.py sample --data sample --budget 5m --seeds 0,1,2 --out search-sample
    python benchmarks/search.py isbi --data isbi2012 --budget 10m --seeds 0 --rank 12 --out search-isbi

Arms whose result lies in ``--out`` already are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from rich.console import Console

import main_job
from napari_autosegnet import api
from napari_autosegnet.cli.options import parse_duration
from napari_autosegnet.events import Epoch, Event, FinalistTrained
from napari_autosegnet.model import Model
from napari_autosegnet.presets import fit_settings, search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.search import candidates
from napari_autosegnet.settings import SplitSettings
from search_arms import ABLATIONS, SUITE

Counts = npt.NDArray[np.int64]

#: Share of an arm's time that goes into the search, where it has one.
SEARCH_SHARE = 1 / 3
#: Resampled sets of sections for an interval.
BOOTSTRAP = 10_000


def sample(data: Path, out: Path) -> main_job.Problem:
    """Axon sample: image a to learn from, quarters of image b scored."""
    return main_job.Problem(
        data / "axon-sem-a.png",
        data / "axon-sem-a-labels.png",
        data / "axon-sem-b.png",
        data / "axon-sem-b-labels.png",
        "0:background,1:myelin,2:axon",
        [],
    )


def isbi_first(data: Path, out: Path) -> main_job.Problem:
    """ISBI 2012 the other way round: 14-29 for the weights, 8-11 for validation and reward, 0-5 scored."""
    split = ["--train-sections", "14-29", "--validation-sections", "8-11"]
    return replace(main_job.isbi(data, out), split=split, test_sections="0-5")


def isbi_middle(data: Path, out: Path) -> main_job.Problem:
    """ISBI 2012 from both ends: 0-6 and 23-29 for the weights, 8-9 and 20-21 for validation, 12-17 scored."""
    split = ["--train-sections", "0-6,23-29", "--validation-sections", "8-9,20-21"]
    return replace(main_job.isbi(data, out), split=split, test_sections="12-17")


SETS: dict[str, Callable[[Path, Path], main_job.Problem]] = {
    "sample": sample,
    "isbi-first": isbi_first,
    "isbi-middle": isbi_middle,
    **main_job.SETS,
}


@dataclass
class Task:
    """One set, one budget."""

    problem: main_job.Problem
    budget: float
    preset: Any
    out: Path
    device: str

    @property
    def split(self) -> SplitSettings:
        words = iter(self.problem.split)
        return SplitSettings(**{word.removeprefix("--").replace("-", "_"): next(words) for word in words})

    def train(self, name: str, seed: int) -> dict[str, Any]:
        """Run an arm; the confusion matrix of every scored section, and what it took."""
        arm = {**SUITE, **ABLATIONS}[name]
        run = self.out / f"{name}-{seed}"
        result = run / "result.json"
        if result.exists():
            content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return content
        problem, split = self.problem, self.split
        if arm.sections is not None:
            split = split.model_copy(update={"train_sections": arm.sections(problem)})
        pair: dict[str, Any] = {
            "images": [problem.image],
            "labels": [problem.labels],
            "classes": problem.classes,
            "split": split,
        }
        began = time.monotonic()
        architecture: Path | None = None
        if arm.fit is not None:
            settings = fit_settings(self.preset, budget=self.budget, seed=seed, **arm.fit)
            drawn_by = zlib.crc32(f"{problem.classes} {seed}".encode())
            with mock.patch.object(candidates, "SIZES", arm.sizes(drawn_by) if arm.sizes else candidates.SIZES):
                model = api.fit(run, **pair, preset=self.preset, settings=settings, device=self.device)
            return self._finished(name, seed, 0.0, began, model)
        if arm.search is not None:
            settings = search_settings(self.preset, budget=SEARCH_SHARE * self.budget, seed=seed, **arm.search)
            api.search(run, **pair, preset=self.preset, settings=settings, device=self.device)
            pair = {}
        elif arm.given is not None:
            architecture = run / "given.json"
            run.mkdir(parents=True, exist_ok=True)
            architecture.write_text(arm.given(seed).to_json(), encoding="utf-8")
        searched = time.monotonic() - began
        model = api.train(
            run,
            **pair,
            architecture=architecture,
            network=arm.network,
            settings=train_settings(self.preset, **{"budget": self.budget - searched, "seed": seed, **arm.train}),
            device=self.device,
        )
        return self._finished(name, seed, searched, began, model)

    def _finished(self, name: str, seed: int, searched: float, began: float, model: Model) -> dict[str, Any]:
        """Score an arm's model and keep the result."""
        total = time.monotonic() - began
        run = self.out / f"{name}-{seed}"
        events = [e for e in Run(run).events() if isinstance(e, Epoch) and e.step in ("train", "fit")]
        content = {
            "arm": name,
            "seed": seed,
            "search_seconds": searched,
            "seconds": total,
            "epochs": len(events),
            "parameters": main_job.parameters(run / "model"),
            "validation": model.metrics["validation"]["mean_iou"],
            **self.score(run / "model"),
        }
        (run / "result.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        return content

    def score(self, model: Path) -> dict[str, Any]:
        """What a model reaches on the scored sections, and how many megapixels it segments in a second.

        ``sections`` has the confusion matrix (truth, prediction) of each section; a single image counts as its four
        quarters. Sets with a membrane also have ``v_rand`` and ``v_info``.
        """
        from napari_autosegnet.data.labeled_stacks import open_labeled
        from napari_autosegnet.data.section_numbers import parse_sections
        from napari_autosegnet.device import choose_device
        from napari_autosegnet.inference.compute.sections import predicted_sections
        from napari_autosegnet.model import Model
        from napari_autosegnet.settings import PredictSettings
        from napari_autosegnet.training.metrics import boundary_scores

        (stack,) = open_labeled([self.problem.test_image], [self.problem.test_labels], self.problem.classes)
        chosen = parse_sections(self.problem.test_sections or f"0-{stack.image.sections - 1}")
        network = Model.load(model)
        began = time.monotonic()
        predicted = predicted_sections(
            network, stack.image, PredictSettings(), sections=chosen, device=choose_device(self.device)
        )
        labels, probabilities = zip(*predicted, strict=True)
        speed = sum(section.size for section in labels) / 1e6 / (time.monotonic() - began)
        classes = len(stack.mapping.classes)
        found: list[Counts] = []
        for place, section in enumerate(chosen):
            truth, labeled = stack.target(section), labels[place]
            height, width = truth.shape
            parts = [(slice(None), slice(None))]
            if len(chosen) == 1:
                halves_y = (slice(0, height // 2), slice(height // 2, height))
                halves_x = (slice(0, width // 2), slice(width // 2, width))
                parts = [(y, x) for y in halves_y for x in halves_x]
            for part in parts:
                t, p = truth[part].ravel().astype(int), labeled[part].ravel().astype(int)
                counted = t > 0
                pairs = (t[counted] - 1) * classes + p[counted] - 1
                found.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
        content = {"sections": [counts.tolist() for counts in found], "megapixels_per_second": speed}
        if self.problem.boundary is not None:
            index = [info.name for info in stack.mapping.classes].index(self.problem.boundary)
            # Target 0 is "not annotated".
            truth = [stack.target(section).astype(np.int64) - 1 for section in chosen]
            scores = boundary_scores(np.stack([each[index] for each in probabilities]), truth, index)
            if scores is not None:
                content |= {"v_rand": scores.v_rand, "v_info": scores.v_info}
        return content

    def rank(self, number: int, seed: int) -> dict[str, Any]:
        """Kendall's tau between ratings with shared weights and validation scores after training alone."""
        file = self.out / f"rank-{seed}.json"
        if file.exists():
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return content
        from scipy.stats import kendalltau

        # Half of the time goes into shared weights and their ratings of as many architectures drawn evenly, half
        # into the first round of the halving, in which all of them train equally long; then it is stopped.
        rounds = max(1, math.ceil(math.log2(number)))
        settings = search_settings(
            self.preset,
            budget=self.budget / 2 * (1 + rounds),
            seed=seed,
            strategy="random",
            warmup_fraction=1.0,
            selection={
                "fraction": rounds / (1 + rounds),
                "candidates": number,
                "finalists": number,
                "plain_chain": False,
                "inherit_weights": False,
            },
        )
        problem = self.problem
        run = self.out / f"rank-{seed}"
        ratings: dict[str, tuple[float, float]] = {}

        def listen(event: Event) -> None:
            if isinstance(event, FinalistTrained) and event.round == 1:
                ratings[str(event.index)] = (event.rating, event.score)

        api.search(
            run,
            [problem.image],
            [problem.labels],
            classes=problem.classes,
            preset=self.preset,
            settings=settings,
            split=self.split,
            device=self.device,
            report=listen,
            should_stop=lambda: len(ratings) >= number,
        )
        pairs = list(ratings.values())
        tau = kendalltau([rating for rating, _ in pairs], [score for _, score in pairs])
        content = {"seed": seed, "pairs": pairs, "tau": float(tau.statistic), "p": float(tau.pvalue)}
        file.write_text(json.dumps(content) + "\n", encoding="utf-8")
        return content


def iou(counts: Sequence[Counts] | Counts) -> npt.NDArray[np.float64]:
    """IoU per class of summed confusion matrices."""
    total = np.sum(np.asarray(counts), axis=0)
    right = np.diag(total)
    found: npt.NDArray[np.float64] = right / np.maximum(total.sum(0) + total.sum(1) - right, 1)
    return found


def paired_interval(ours: Sequence[Counts], theirs: Sequence[Counts]) -> tuple[float, float, float]:
    """Difference of the mean IoU and its 95 % interval over resampled sections (the same for both)."""
    generator = np.random.default_rng(0)
    a, b = np.asarray(ours), np.asarray(theirs)
    drawn = generator.integers(len(a), size=(BOOTSTRAP, len(a)))
    differences = [iou(a[rows]).mean() - iou(b[rows]).mean() for rows in drawn]
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(iou(a).mean() - iou(b).mean()), float(low), float(high)


def table(results: dict[str, list[dict[str, Any]]], names: Sequence[str], against: str) -> str:
    """Markdown: a row per arm, averaged over the seeds, and the difference to one of them."""
    head = ["arm", "seeds", "search s", "total s", "epochs", "parameters", "validation", *(f"IoU {n}" for n in names)]
    head += ["mean IoU", "lowest to highest seed", f"difference to {against} (95 % over sections)"]
    # Not every set has a membrane.
    boundary = [key for key in ("v_rand", "v_info") if all(key in run for runs in results.values() for run in runs)]
    head += [*(key.replace("v_", "V_") for key in boundary), "megapixels/s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, runs in results.items():
        scores = np.array([iou([np.array(s) for s in run["sections"]]) for run in runs])
        means = scores.mean(axis=1)
        cells = [arm, str(len(runs))]
        cells += [f"{np.mean([run[key] for run in runs]):.0f}" for key in ("search_seconds", "seconds", "epochs")]
        cells.append(f"{np.mean([run['parameters'] for run in runs]) / 1e6:.2f} M")
        cells.append(f"{np.mean([run['validation'] for run in runs]):.3f}")
        cells += [f"{value:.3f}" for value in scores.mean(axis=0)]
        cells += [f"{means.mean():.3f}", f"{means.min():.3f} to {means.max():.3f}"]
        if arm == against or against not in results:
            cells.append("-")
        else:
            ours = [np.array(s) for run in runs for s in run["sections"]]
            theirs = [np.array(s) for run in results[against] for s in run["sections"]]
            if len(ours) == len(theirs):
                difference, low, high = paired_interval(ours, theirs)
                cells.append(f"{difference:+.3f} ({low:+.3f} to {high:+.3f})")
            else:
                cells.append("other seeds")
        cells += [f"{np.mean([run[key] for run in runs]):.3f}" for key in boundary]
        cells.append(f"{np.mean([run['megapixels_per_second'] for run in runs]):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the arms, print the table, keep all in ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", required=True, type=Path, help="folder with the set's files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--budget", type=parse_duration, default=300.0, help="time of each arm, such as 5m")
    parser.add_argument("--arms", default=",".join(SUITE))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--preset", default="fast", choices=("fast", "standard", "paper"))
    parser.add_argument("--against", default="unet")
    parser.add_argument("--rank", type=int, default=0, help="also Kendall's tau over this many architectures")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    if given.clock == "cpu":
        import torch

        torch.set_num_threads(1)
        # The package's budgets look at this clock.
        time.monotonic = time.process_time
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    problem = SETS[given.set](given.data.absolute(), out / "data")
    task = Task(problem, given.budget, given.preset, out, given.device)
    results: dict[str, list[dict[str, Any]]] = {}
    # Seed by seed, so that a run that is cut short has whole comparisons.
    for seed in map(int, given.seeds.split(",")):
        for arm in given.arms.split(","):
            results.setdefault(arm, []).append(task.train(arm, seed))
            print(arm, seed, f"{iou([np.array(s) for s in results[arm][-1]['sections']]).mean():.4f}", file=sys.stderr)
    from napari_autosegnet.data.annotations import parse_classes

    names = [info.name for info in parse_classes(problem.classes).classes]
    lines = [*problem.notes, table(results, names, given.against), ""]
    if given.rank:
        ranked = task.rank(given.rank, int(given.seeds.split(",")[0]))
        lines.append(
            f"Kendall's tau between rating and score alone, {len(ranked['pairs'])} architectures: {ranked['tau']:.2f} "
            f"(p = {ranked['p']:.2f})"
        )
    threads = "1 thread, processor time" if given.clock == "cpu" else f"{os.cpu_count()} cores, wall time"
    lines.append(f"{given.budget:.0f} s per arm, {threads}, {platform.machine()}, Python {platform.python_version()}")
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console().print("\n".join(lines), soft_wrap=True)


if __name__ == "__main__":
    main()
