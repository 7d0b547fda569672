"""Draw the pictures of the guides: `napari-autosegnet search` and `train`, then `python docs/pictures.py RUN`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.figures import draw_architecture, draw_curves
from napari_autosegnet.run import Run

IMAGES = Path(__file__).parent / "images"


def main(folder: Path) -> None:
    """Draw the architecture that a run found, one drawn at random, and the run's curves."""
    run = Run.open(folder)
    draw_architecture(Architecture.load(run.architecture_file), IMAGES / "search-architecture.svg")
    drawn = SearchSpace(levels=3).sample(np.random.default_rng(2020))
    draw_architecture(drawn, IMAGES / "random-architecture.svg")
    draw_curves(run.events(), IMAGES / "search-curves.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
