"""Settings of a search, a training and an inference, and their presets.

One pydantic model each: the docks make their forms from it, the commands their options, and a run
folder keeps it as ``config.json``. Field descriptions are the help texts. Fields marked
``advanced`` are folded away in the dock and listed apart in ``--help``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_autosegnet.architecture import PAPER_OPERATIONS, SearchSpace

Preset = Literal["fast", "standard", "paper"]
Network = Literal["searched", "plain", "unet", "pspnet"]
LossName = Literal["cross_entropy", "weighted", "dice"]
NormalisationChoice = Literal["auto", "global", "section"]
GreyValuesChoice = Literal["checked", "as-is"]
OptimiserName = Literal["muon", "sgd"]
PRESETS: tuple[Preset, ...] = ("fast", "standard", "paper")

_ADVANCED: dict[str, Any] = {"advanced": True}
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Frozen, strict about unknown names, validated defaults included."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class SplitSettings(Settings):
    """How labelled sections are divided into a training and a validation part.

    The split comes before any augmentation, in contiguous blocks of sections with a gap, so that
    near copies of a validation section are never trained on.
    """

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25, description="Share of the labelled data kept for validation"
    )
    gap: Annotated[int, Field(ge=0)] = Field(
        2, description="Sections left out between the training and the validation block", json_schema_extra=_ADVANCED
    )
    train_sections: str | None = Field(
        None, description="Sections to train on, for example 0-15 or 0-7,12 (first and last included)"
    )
    validation_sections: str | None = Field(None, description="Sections to validate on, for example 18-21")
    group: str | None = Field(
        None,
        description="COLUMN@index.csv: images with the same value in that column stay on one side of the split",
    )
    seed: int = Field(0, description="Seed of the split", json_schema_extra=_ADVANCED)


class AugmentationSettings(Settings):
    """Random changes of training patches; all are done on the training device, batch-wise."""

    flips: bool = Field(True, description="Mirror left-right and up-down", json_schema_extra=_ADVANCED)
    rotation: Literal["none", "quarter", "any"] = Field(
        "any", description="Rotate by quarter turns or by any angle", json_schema_extra=_ADVANCED
    )
    scale: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Zoom by up to this share in or out", json_schema_extra=_ADVANCED
    )
    elastic: Annotated[float, Field(ge=0)] = Field(
        2.0, description="Largest elastic displacement in pixels", json_schema_extra=_ADVANCED
    )
    contrast: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.15, description="Scale grey values by up to this share", json_schema_extra=_ADVANCED
    )
    brightness: Annotated[float, Field(ge=0)] = Field(
        0.15, description="Shift grey values by up to this many standard deviations", json_schema_extra=_ADVANCED
    )
    noise: Annotated[float, Field(ge=0)] = Field(
        0.05,
        description="Standard deviation of added noise, in standard deviations of the image",
        json_schema_extra=_ADVANCED,
    )
    blur: Annotated[float, Field(ge=0)] = Field(
        0.5, description="Largest sigma of a Gaussian blur in pixels", json_schema_extra=_ADVANCED
    )


class NetworkSettings(Settings):
    """Size of the networks; the number of levels is computed from the patch size, never asked."""

    base_width: Positive = Field(24, description="Channels at full resolution", json_schema_extra=_ADVANCED)
    max_width: Positive = Field(192, description="Most channels at any level", json_schema_extra=_ADVANCED)
    stem_stride: Literal[1, 2, 4] = Field(
        1,
        description="Reduction by the first convolution; 2 computes 4 times faster (paper: 1)",
        json_schema_extra=_ADVANCED,
    )
    min_size: Positive = Field(
        16, description="Feature maps are not pooled below this size (paper: 16)", json_schema_extra=_ADVANCED
    )
    min_ratio: Positive = Field(
        32,
        description="Feature maps are not pooled below the patch size divided by this (paper: 32)",
        json_schema_extra=_ADVANCED,
    )


_LOSS: Any = Field(
    "dice",
    description="cross_entropy (paper), weighted by inverse class frequency, or dice: cross-entropy + Dice",
    json_schema_extra=_ADVANCED,
)

_NORMALISATION: Any = Field(
    "auto",
    description="Grey values by mean and deviation of the training part (global), or of each section (section) where "
    "sections differ in exposure or contrast drifts; auto decides by how much they differ",
    json_schema_extra=_ADVANCED,
)

_OPTIMISER: Any = Field(
    "muon",
    description="sgd (paper), or muon: the same with orthogonalised steps for the convolutions, which learn faster so",
    json_schema_extra=_ADVANCED,
)


class SearchSettings(Settings):
    """How an architecture is searched (AutoSegNet, section III and IV.B; ENAS for what it leaves open)."""

    strategy: Literal["reinforce", "random", "evolution"] = Field("reinforce", description="How candidates are chosen")
    epochs: Positive | None = Field(200, description="Most search epochs (paper: 200)")
    budget: Annotated[float, Field(gt=0)] | None = Field(None, description="Most seconds for the whole search")
    stop_loss: Annotated[float, Field(gt=0)] | None = Field(
        None, description="End when the training loss of the shared weights is this low", json_schema_extra=_ADVANCED
    )
    stop_accuracy: Share | None = Field(
        None, description="End when the mean reward (mean IoU) is this high", json_schema_extra=_ADVANCED
    )
    patch_size: Annotated[int, Field(ge=16)] = Field(64, description="Side of the square search patches in pixels")
    batch_size: Positive = Field(16, description="Patches per step", json_schema_extra=_ADVANCED)
    steps_per_epoch: Positive = Field(
        64, description="Steps of the shared weights per epoch", json_schema_extra=_ADVANCED
    )
    warmup_share: Share = Field(
        0.4,
        description="Share of the budget in which only the shared weights learn, whatever the strategy",
        json_schema_extra=_ADVANCED,
    )
    warmup_ramp: Share = Field(
        0.6,
        description="Share of the warm-up in which architectures pass from the plain chain to even draws; "
        "0: even draws from the start",
        json_schema_extra=_ADVANCED,
    )
    selection_share: Share = Field(
        0.3,
        description="Share of the budget kept for choosing the winner by training the best few alone; "
        "1: no shared weights at all, the finalists are whom the strategy proposes first",
        json_schema_extra=_ADVANCED,
    )
    loss: LossName = _LOSS
    optimiser: OptimiserName = _OPTIMISER
    learning_rate: Rate = Field(
        0.5, description="Learning rate of the shared weights (paper: 0.5)", json_schema_extra=_ADVANCED
    )
    muon_learning_rate: Rate = Field(
        0.06, description="Learning rate of the convolutions with muon, finalists included", json_schema_extra=_ADVANCED
    )
    learning_rate_decay: Rate = Field(
        0.98, description="Factor per epoch after decay_after (paper: 0.98)", json_schema_extra=_ADVANCED
    )
    decay_after: Positive = Field(
        50, description="Epoch after which the rate decays (paper: 50)", json_schema_extra=_ADVANCED
    )
    restart_period: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Epochs of the rate's first cosine cycle, doubled by each restart; 0: the rate stays (paper: 10)",
        json_schema_extra=_ADVANCED,
    )
    momentum: Share = Field(0.9, description="Momentum", json_schema_extra=_ADVANCED)
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="Weight decay", json_schema_extra=_ADVANCED)
    clip_norm: Rate = Field(5.0, description="Largest gradient norm (paper: 0.5)", json_schema_extra=_ADVANCED)
    average_weights: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.98,
        description="Decay of the moving average of the shared weights that is rated; 0: none (paper)",
        json_schema_extra=_ADVANCED,
    )
    controller_learning_rate: Rate = Field(
        0.0005, description="Adam's rate for the controller (paper: 0.0005)", json_schema_extra=_ADVANCED
    )
    controller_hidden: Positive = Field(64, description="Units of each LSTM layer", json_schema_extra=_ADVANCED)
    controller_updates: Positive = Field(30, description="Controller updates per epoch", json_schema_extra=_ADVANCED)
    controller_samples: Positive = Field(10, description="Architectures per update", json_schema_extra=_ADVANCED)
    tanh_bound: Rate = Field(1.10, description="Bound of the logits (ENAS)", json_schema_extra=_ADVANCED)
    operation_temper: Rate = Field(
        2.5, description="Operation logits are divided by this once more (ENAS)", json_schema_extra=_ADVANCED
    )
    entropy_weight: Annotated[float, Field(ge=0)] = Field(
        1e-4, description="Weight of the entropy bonus (ENAS)", json_schema_extra=_ADVANCED
    )
    baseline: Literal["others", "moving_average"] = Field(
        "others",
        description="What a reward is compared with: the mean of the update's others, or of all before (ENAS)",
        json_schema_extra=_ADVANCED,
    )
    baseline_decay: Share = Field(
        0.99, description="Decay of the moving-average baseline (ENAS)", json_schema_extra=_ADVANCED
    )
    reward_patches: Positive = Field(
        64,
        description="Pixels of the validation part that a reward is measured on, in training patches",
        json_schema_extra=_ADVANCED,
    )
    candidates: Positive = Field(
        64, description="Architectures sampled and rated when the search ends", json_schema_extra=_ADVANCED
    )
    finalists: Positive = Field(8, description="Best of these that are trained alone", json_schema_extra=_ADVANCED)
    finalist_steps: Positive = Field(
        200,
        description="Steps that each finalist trains in the first round; halving doubles it",
        json_schema_extra=_ADVANCED,
    )
    finalist_learning_rate: Rate = Field(0.1, description="Learning rate of the finalists", json_schema_extra=_ADVANCED)
    finalists_inherit: bool = Field(
        True, description="Finalists start with the shared weights", json_schema_extra=_ADVANCED
    )
    plain_finalist: bool = Field(
        True,
        description="A plain chain of the same operations competes among the finalists",
        json_schema_extra=_ADVANCED,
    )
    plain_margin: Share = Field(
        0.01,
        description="By how much mean IoU a found architecture has to be better than the plain chain to be preferred",
        json_schema_extra=_ADVANCED,
    )
    plain_steps: Annotated[int, Field(ge=0)] = Field(
        300,
        description="Steps that a found architecture has to train alone to be preferred to the plain chain",
        json_schema_extra=_ADVANCED,
    )
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Size of the shared network")
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings, description="Augmentation")
    normalisation: NormalisationChoice = _NORMALISATION
    context: Annotated[int, Field(ge=0, le=8)] = Field(
        0, description="Sections above and below that are given as channels (2.5D)", json_schema_extra=_ADVANCED
    )
    max_parameters: Positive | None = Field(
        None, description="Most weights of the network that is trained in the end", json_schema_extra=_ADVANCED
    )
    max_latency: Rate | None = Field(
        None,
        description="Most milliseconds that this network may take for 512 x 512 pixels on the search's device",
        json_schema_extra=_ADVANCED,
    )
    space: SearchSpace = Field(default_factory=SearchSpace, description="The search space")
    seed: int = Field(0, description="Seed of everything random")

    @model_validator(mode="after")
    def _ends(self) -> SearchSettings:
        _check_end(self.epochs, self.budget)
        return self


class TrainSettings(Settings):
    """How the found architecture is trained from scratch (AutoSegNet, section IV)."""

    epochs: Positive | None = Field(300, description="Most epochs (paper: 300)")
    budget: Annotated[float, Field(gt=0)] | None = Field(None, description="Most seconds for the training")
    patch_size: Annotated[int, Field(ge=16)] = Field(256, description="Side of the square training patches in pixels")
    batch_size: Positive = Field(8, description="Patches per step", json_schema_extra=_ADVANCED)
    steps_per_epoch: Positive = Field(50, description="Steps per epoch", json_schema_extra=_ADVANCED)
    optimiser: OptimiserName = _OPTIMISER
    learning_rate: Rate = Field(
        0.1, description="Learning rate at the start of each cycle", json_schema_extra=_ADVANCED
    )
    muon_learning_rate: Rate = Field(
        0.1, description="Learning rate of the convolutions with muon", json_schema_extra=_ADVANCED
    )
    restart_period: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Epochs of the first cosine cycle, doubled at each restart; 0: one cycle over the budget",
        json_schema_extra=_ADVANCED,
    )
    momentum: Share = Field(0.9, description="Momentum", json_schema_extra=_ADVANCED)
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="Weight decay", json_schema_extra=_ADVANCED)
    clip_norm: Rate = Field(5.0, description="Largest gradient norm", json_schema_extra=_ADVANCED)
    loss: LossName = _LOSS
    average_weights: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99,
        description="Decay of the moving average of the weights that is kept; 0: none",
        json_schema_extra=_ADVANCED,
    )
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Size of the network")
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings, description="Augmentation")
    normalisation: NormalisationChoice = _NORMALISATION
    context: Annotated[int, Field(ge=0, le=8)] = Field(
        0, description="Sections above and below that are given as channels (2.5D)", json_schema_extra=_ADVANCED
    )
    seed: int = Field(0, description="Seed of everything random")

    @model_validator(mode="after")
    def _ends(self) -> TrainSettings:
        _check_end(self.epochs, self.budget)
        return self


def _check_end(epochs: int | None, budget: float | None) -> None:
    if epochs is None and budget is None:
        raise ValueError("it would never end; give a number of epochs or a time budget")


def share_done(settings: SearchSettings | TrainSettings, epochs: float, seconds: float, *, part: float = 1.0) -> float:
    """How much of its epochs, or of ``part`` of its budget, is used up, whichever is more; 1 is all."""
    shares = [0.0]
    if settings.epochs is not None:
        shares.append(epochs / settings.epochs)
    if settings.budget is not None:
        shares.append(seconds / (settings.budget * part))
    return max(shares)


class PredictSettings(Settings):
    """How a model is applied."""

    block: tuple[Positive, Positive, Positive] | None = Field(
        None, description="Block of voxels z,y,x computed and written at once; a multiple of the output's chunks"
    )
    tile: Literal["auto"] | Annotated[int, Field(ge=32)] = Field(
        "auto",
        description="Largest side of the tiles on the device, halo included; auto measures at the start of long runs",
        json_schema_extra=_ADVANCED,
    )
    batch_size: Positive = Field(1, description="Tiles per pass", json_schema_extra=_ADVANCED)
    halo: Literal["auto", "exact"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="Pixels of real surroundings per tile: auto (measured), exact (from the network) or a number",
    )
    grey_values: GreyValuesChoice = Field(
        "checked",
        description="An image in another range than the model's is scaled where that can be told, else refused "
        "(checked), or taken as it is (as-is)",
        json_schema_extra=_ADVANCED,
    )
    probabilities: bool = Field(False, description="Also write class probabilities (uint8)")
    flips: bool = Field(False, description="Average over mirrored copies (4 times slower)", json_schema_extra=_ADVANCED)
    instances: bool = Field(
        False, description="Also give every object a number of its own: labels/instances (writes probabilities, too)"
    )
    instance_classes: tuple[str, ...] | None = Field(
        None,
        description="Classes whose objects are numbered; all but background and boundary by default",
        json_schema_extra=_ADVANCED,
    )
    instance_distance: Annotated[float, Field(gt=0, le=64)] = Field(
        4.0,
        description="Objects grow from places that are at least this many pixels from a boundary",
        json_schema_extra=_ADVANCED,
    )
    region: str | None = Field(
        None, description="Only these voxels, z0:z1,y0:y1,x0:x1 with the ends left out, for example :,0:512,256:768"
    )
    format: Literal["ome-zarr", "ome-zarr-0.4", "zarr"] = Field(
        "ome-zarr", description="Kind of a new store: OME-Zarr 0.5, OME-Zarr 0.4, or one plain Zarr array"
    )
    sharded: bool = Field(False, description="One file per block instead of one per chunk (not for OME-Zarr 0.4)")
    workers: Positive = Field(1, description="Processes that share the blocks")
    retries: Annotated[int, Field(ge=0)] = Field(
        2, description="Times that a block which failed is tried again", json_schema_extra=_ADVANCED
    )
    engine: Literal["auto", "channels_last", "contiguous", "onnxruntime"] = Field(
        "auto",
        description="What computes: PyTorch in one of two memory layouts, or ONNX Runtime; auto measures at the start",
        json_schema_extra=_ADVANCED,
    )
    levels: Positive | None = Field(
        None, description="Pyramid levels; as many as the source by default", json_schema_extra=_ADVANCED
    )
    overwrite: bool = Field(False, description="Start again over an existing result")

    @field_validator("region")
    @classmethod
    def _region_is_ranges(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d*:\d*(,\d*:\d*){1,2}", value.replace(" ", "")):
            raise ValueError("must be ranges of z, y and x such as 0:16,0:512,256:768 (of y and x for one section)")
        return value


def search_settings(preset: Preset = "standard", **changes: Any) -> SearchSettings:
    """Settings of a preset with some of them changed."""
    return SearchSettings(**{**_SEARCH_PRESETS[preset], **changes})


def train_settings(preset: Preset = "standard", **changes: Any) -> TrainSettings:
    """Settings of a preset with some of them changed."""
    return TrainSettings(**{**_TRAIN_PRESETS[preset], **changes})


# Paper, Fig. 6: four down layers for 512 x 512. These widths give a median architecture 41 M parameters.
_PAPER_NETWORK = {"base_width": 64, "max_width": 960, "min_ratio": 16}
_FAST_NETWORK = {"base_width": 16, "max_width": 64, "stem_stride": 2}

_SEARCH_PRESETS: dict[Preset, dict[str, Any]] = {
    # A 2-core laptop: few, small steps; the paper's rate is too slow for so few controller updates.
    "fast": {
        "patch_size": 128,
        "batch_size": 4,
        "network": _FAST_NETWORK,
        "steps_per_epoch": 32,
        "controller_updates": 4,
        "controller_learning_rate": 0.0035,
        "reward_patches": 16,
        "candidates": 24,
        "finalists": 4,
        "finalist_steps": 60,
        "finalist_learning_rate": 0.5,
        "epochs": None,
        "budget": 600.0,
    },
    "standard": {"controller_learning_rate": 0.0035, "epochs": None, "budget": 3600.0},
    "paper": {
        "restart_period": 10,
        "loss": "cross_entropy",
        "optimiser": "sgd",
        "clip_norm": 0.5,
        "average_weights": 0.0,
        "warmup_ramp": 0.0,
        "baseline": "moving_average",
        "plain_finalist": False,
        "space": {"operations": PAPER_OPERATIONS},
        "network": {**_PAPER_NETWORK, "max_width": 256},
    },
}
_TRAIN_PRESETS: dict[Preset, dict[str, Any]] = {
    # Many small steps: on two cores that is worth more than a wider network or larger batches.
    "fast": {
        "patch_size": 128,
        "batch_size": 4,
        "learning_rate": 0.5,
        "network": _FAST_NETWORK,
        "epochs": None,
        "budget": 1200.0,
    },
    "standard": {"epochs": None, "budget": 3 * 3600.0, "network": {"base_width": 32, "max_width": 256}},
    "paper": {
        "patch_size": 512,
        "batch_size": 4,
        "restart_period": 20,
        "loss": "cross_entropy",
        "optimiser": "sgd",
        "clip_norm": 0.5,
        "network": _PAPER_NETWORK,
    },
}
