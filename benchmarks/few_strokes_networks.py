r"""What ``fit`` makes of a few strokes in a minute: not taught, taught by a forest, taught with learned weights.

Strokes, painted sections and scored ones are those of ``few_strokes.py``, whose forest is the first column. Time is
processor time of one thread, so that other programs change little. ::

    python benchmarks/few_strokes_networks.py --isbi isbi2012 --sample sample --seconds 60s --draws 0,1 --out strokes

Rows that lie in ``--out`` already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from few_strokes import Problem, add_problems, chosen_problems, mean_iou, measure, paint, settings
from napari_autosegnet import api
from napari_autosegnet.cli.options import parse_duration
from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.compute.sections import predicted_sections
from napari_autosegnet.presets import fit_settings
from napari_autosegnet.settings import PredictSettings

#: Settings of a fit beside those of the preset.
ARMS: dict[str, dict[str, Any]] = {
    "not taught": {"teacher": "none", "pretrained": False},
    "taught": {"pretrained": False},
    "learned weights": {},
}


def score_network(
    problem: Problem, strokes: int, draw: int, changes: dict[str, Any], seconds: float, out: Path
) -> float:
    """Mean IoU on the scored sections of what a fit on one draw of strokes gives."""
    generator = np.random.default_rng(draw)
    painted = [paint(labels, strokes, generator) + 1 for _, labels in problem.painted]
    out.mkdir(parents=True)
    images, labels, scored = (out / f"{name}.tif" for name in ("images", "strokes", "scored"))
    stacks = [image for image, _ in problem.painted], painted, [image for image, _ in problem.scored]
    for file, sections in zip((images, labels, scored), stacks, strict=True):
        tifffile.imwrite(file, np.stack(sections).astype(np.uint8), photometric="minisblack")
    model = api.fit(
        out / "run",
        [images],
        [labels],
        settings=fit_settings("fast", budget=seconds, seed=draw, **changes),
        device="cpu",
    )
    sections = range(len(problem.scored))
    predicted = predicted_sections(model, open_image(scored), PredictSettings(), sections=sections)
    # 1 is the first class: 0 says that a pixel has none.
    return mean_iou([labels.astype(int) - 1 for labels, _ in predicted], [truth for _, truth in problem.scored])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_problems(parser)
    parser.add_argument("--seconds", type=parse_duration, default=60.0, help="time of each fit, such as 60s")
    parser.add_argument("--draws", default="0,1")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"some of: {', '.join(ARMS)}")
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    # The package's budgets look at this clock.
    time.monotonic = time.process_time
    arms = [arm for arm in ARMS if arm in given.arms.split(",")]
    draws = [int(draw) for draw in given.draws.split(",")]
    print("| set, strokes | draw | forest | " + " | ".join(arms) + " |")
    print("|---" * (3 + len(arms)) + "|")
    for problem in chosen_problems(given):
        for strokes in problem.strokes:
            for draw in draws:
                file = given.out / f"{problem.name}-{strokes}-{draw}.json"
                row = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
                if "forest" not in row:
                    row["forest"] = measure(problem, settings(compare=False)[0], strokes, [draw])["score"]
                for arm in arms:
                    if arm not in row:
                        folder = given.out / f"{problem.name}-{strokes}-{draw}-{list(ARMS).index(arm)}"
                        row[arm] = score_network(problem, strokes, draw, ARMS[arm], given.seconds, folder)
                        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
                cells = " | ".join(f"{row[arm]:.3f}" for arm in arms)
                print(f"| {problem.name}, {strokes} | {draw} | {row['forest']:.3f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
