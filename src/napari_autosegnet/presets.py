"""Presets: settings of a search and a training that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from napari_autosegnet.architecture import PAPER_OPERATIONS
from napari_autosegnet.settings import FitSettings, SearchSettings, TrainSettings, merged

Preset = Literal["fast", "standard", "paper"]
PRESETS: tuple[Preset, ...] = ("fast", "standard", "paper")
#: The paper has no fit.
FitPreset = Literal["fast", "standard"]
FIT_PRESETS: tuple[FitPreset, ...] = ("fast", "standard")

Changes = Mapping[str, Any]

_FAST_NETWORK = {"base_width": 16, "max_width": 64, "stem_stride": 2}
# Paper, Fig. 6: four down layers for 512 x 512. These widths give a median architecture 41 M parameters.
_PAPER_NETWORK = {"base_width": 64, "max_width": 960, "min_ratio": 16}

_SEARCH: dict[Preset, Changes] = {
    # A 2-core laptop: few, small steps; the paper's rate is too slow for so few controller updates.
    "fast": {
        "patch_size": 128,
        "batch_size": 4,
        "network": _FAST_NETWORK,
        "steps_per_epoch": 32,
        "updates_per_epoch": 4,
        "controller": {"learning_rate": 0.0035},
        "reward_patches": 16,
        "selection": {"candidates": 24, "finalists": 4, "steps": 60, "learning_rate": 0.5},
        "epochs": None,
        "budget": 600.0,
    },
    "standard": {"controller": {"learning_rate": 0.0035}, "epochs": None, "budget": 3600.0},
    "paper": {
        "loss": "cross_entropy",
        "optimization": {"optimizer": "sgd", "clip_norm": 0.5, "average_weights": 0.0, "restart_period": 10},
        "warmup_ramp": 0.0,
        "controller": {"baseline": "moving_average"},
        "selection": {"plain_chain": False},
        "space": {"operations": PAPER_OPERATIONS},
        "network": {**_PAPER_NETWORK, "max_width": 256},
    },
}
_TRAIN: dict[Preset, Changes] = {
    # Many small steps: on two cores that is worth more than a wider network or larger batches.
    "fast": {
        "patch_size": 128,
        "batch_size": 4,
        "network": _FAST_NETWORK,
        "epochs": None,
        "budget": 1200.0,
    },
    "standard": {"epochs": None, "budget": 3 * 3600.0, "network": {"base_width": 32, "max_width": 256}},
    "paper": {
        "teacher": "none",
        "patch_size": 512,
        "batch_size": 4,
        "loss": "cross_entropy",
        "optimization": {"optimizer": "sgd", "clip_norm": 0.5, "restart_period": 20},
        "network": _PAPER_NETWORK,
    },
}

_FIT: dict[FitPreset, Changes] = {
    "fast": {"patch_size": 128, "batch_size": 4, "budget": 1200.0},
    "standard": {"budget": 2 * 3600.0},
}


def fit_settings(preset: FitPreset = "standard", **changes: Any) -> FitSettings:
    """Settings of a preset with some of them changed; those of a group as a mapping: ``network={"min_size": 8}``."""
    return FitSettings.model_validate(merged(_FIT[preset], changes))


def search_settings(preset: Preset = "standard", **changes: Any) -> SearchSettings:
    """Settings of a preset with some of them changed; those of a group as a mapping: ``selection={"finalists": 2}``."""
    return SearchSettings.model_validate(merged(_SEARCH[preset], changes))


def train_settings(preset: Preset = "standard", **changes: Any) -> TrainSettings:
    """Settings of a preset with some of them changed; those of a group as a mapping: ``network={"base_width": 32}``."""
    return TrainSettings.model_validate(merged(_TRAIN[preset], changes))
