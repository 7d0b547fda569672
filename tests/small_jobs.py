"""Jobs on a crop of the sample, small enough for a process to begin and end within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.settings import (
    AugmentationSettings,
    FitSettings,
    NetworkSettings,
    SearchSettings,
    SelectionSettings,
    TrainSettings,
)

NETWORK = NetworkSettings(base_width=4, max_width=8, stem_stride=2)
AUGMENTATION = AugmentationSettings(rotation="none", elastic=0, blur=0)
SEARCH = SearchSettings(
    epochs=2,
    patch_size=32,
    batch_size=2,
    steps_per_epoch=2,
    warmup_fraction=0.5,
    updates_per_epoch=1,
    samples_per_update=2,
    reward_patches=2,
    space=SearchSpace(cells=1),
    selection=SelectionSettings(candidates=2, finalists=2, steps=1),
    network=NETWORK,
    augmentation=AUGMENTATION,
)
TRAIN = TrainSettings(
    epochs=2, steps_per_epoch=2, batch_size=2, patch_size=32, network=NETWORK, augmentation=AUGMENTATION
)
FIT = FitSettings(
    epochs=5, budget=None, candidates=2, steps_per_epoch=2, batch_size=2, patch_size=32, augmentation=AUGMENTATION
)
ENDLESS = 10**6


def write_data(folder: Path) -> dict[str, Any]:
    """Write an image and its labels; returns what a job needs to know of them."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = {"images": "axon-sem-a.png", "labels": "axon-sem-a-labels.png"}
    found: dict[str, Any] = {}
    for kind, name in paths.items():
        with Image.open(sample_folder() / name) as picture:
            picture.crop((0, 0, 256, 256)).save(folder / name)
        found[kind] = (folder / name,)
    return found | {"classes": SAMPLE_CLASSES}


def search_job(folder: Path, **changes: Any) -> SearchJob:
    return SearchJob(**write_data(folder), device="cpu", settings=SEARCH.changed(**changes))


def train_job(**changes: Any) -> TrainJob:
    return TrainJob(device="cpu", settings=TRAIN.changed(**changes))


def architecture_file(folder: Path) -> Path:
    """An architecture to train without a search."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "architecture.json"
    path.write_text(SearchSpace(cells=1).sample(np.random.default_rng(0)).to_json())
    return path
