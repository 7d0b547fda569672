"""Settings of a search, a training and an inference.

One pydantic model each: the docks make their forms from it, the commands their options, and a run
folder keeps it as ``config.json``. Field descriptions are the help texts. Fields marked
``advanced`` are folded away in the dock and listed apart in ``--help``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from napari_autosegnet.architecture import SearchSpace

Network = Literal["searched", "plain", "unet", "unet-half", "pspnet", "forest"]
LossName = Literal["cross_entropy", "weighted", "dice"]
NormalizationChoice = Literal["auto", "global", "section"]
GrayValuesChoice = Literal["checked", "as-is"]
OptimizerName = Literal["muon", "sgd"]
Goal = Literal["accurate", "balanced", "fast"]
Teacher = Literal["forest", "none"]


def _field(default: Any, description: str, *, title: str | None = None, **extra: Any) -> Any:
    """A field for options and forms; see `setting_fields.SettingField` for what may stand beside it."""
    return Field(default, description=description, title=title, json_schema_extra=extra)


#: A field that is folded away in the dock and listed apart in ``--help``.
_advanced = partial(_field, advanced=True)

#: Whole numbers that every library takes; nobody means more.
MAX_NUMBER = 10**9
Positive = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
NotNegative = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
PatchSize = Annotated[int, Field(ge=16, le=2**14)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Frozen, strict about unknown names, validated defaults included."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def changed(self, **changes: Any) -> Self:
        """These settings with some of them changed; those of a group as a mapping: ``network={"base_width": 32}``."""
        return type(self).model_validate(merged(self.model_dump(), changes))


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, with those of ``changes`` instead where it has any."""
    result = dict(values)
    for name, value in changes.items():
        before = result.get(name)
        result[name] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return result


class SplitSettings(Settings):
    """How labeled sections are divided into a training and a validation part.

    The split comes before any augmentation, in contiguous blocks of sections with a gap, so that
    near copies of a validation section are never trained on.
    """

    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = _field(
        0.25, "Share of the labeled data kept for validation", title="Fraction to check with"
    )
    gap: NotNegative = _advanced(2, "Sections left out between the training and the validation block")
    train_sections: str | None = _field(
        None,
        "Sections to train on, for example 0-15 or 0-7,12 (first and last included)",
        title="Sections to learn from",
    )
    validation_sections: str | None = _field(
        None, "Sections to validate on, for example 18-21", title="Sections to check with"
    )
    group: str | None = _field(
        None, "COLUMN@index.csv: images with the same value in that column stay on one side of the split"
    )
    seed: Seed = _advanced(0, "Seed of the split")


class AugmentationSettings(Settings):
    """Random changes of training patches; all are done on the training device, batch-wise."""

    flips: bool = _advanced(True, "Mirror left-right and up-down")
    rotation: Literal["none", "quarter", "any"] = _advanced("any", "Rotate by quarter turns or by any angle")
    scale: Annotated[float, Field(ge=0, lt=1)] = _advanced(0.1, "Zoom by up to this fraction in or out")
    elastic: Annotated[float, Field(ge=0)] = _advanced(2.0, "Largest elastic displacement in pixels")
    contrast: Annotated[float, Field(ge=0, lt=1)] = _advanced(0.15, "Scale gray values by up to this fraction")
    brightness: Annotated[float, Field(ge=0)] = _advanced(
        0.15, "Shift gray values by up to this many standard deviations"
    )
    noise: Annotated[float, Field(ge=0)] = _advanced(
        0.05, "Standard deviation of added noise, in standard deviations of the image"
    )
    blur: Annotated[float, Field(ge=0)] = _advanced(0.5, "Largest sigma of a Gaussian blur in pixels")


class NetworkSettings(Settings):
    """Size of the networks; the number of levels is computed from the patch size, never asked."""

    base_width: Annotated[int, Field(ge=1, le=4096)] = _advanced(24, "Channels at full resolution")
    max_width: Annotated[int, Field(ge=1, le=16384)] = _advanced(192, "Maximum number of channels at any level")
    stem_stride: Literal[1, 2, 4, 8] = _advanced(
        1, "Reduction by the first convolution; 2 computes 4 times faster (paper: 1)"
    )
    min_size: Positive = _advanced(16, "Feature maps are not pooled below this size (paper: 16)")
    min_ratio: Positive = _advanced(32, "Feature maps are not pooled below the patch size divided by this (paper: 32)")


class OptimizationSettings(Settings):
    """How gradients change the weights of a network."""

    optimizer: OptimizerName = _advanced(
        "muon", "sgd (paper), or muon: the same with orthogonalized steps for the convolutions, which then learn faster"
    )
    learning_rate: Rate = _advanced(0.1, "Learning rate at the start of each cycle")
    muon_learning_rate: Rate = _advanced(0.1, "Learning rate of the convolutions with muon")
    restart_period: NotNegative = _advanced(
        0, "Epochs of the first cosine cycle, doubled at each restart; 0: one cycle over the budget"
    )
    momentum: Fraction = _advanced(0.9, "Momentum of the optimizer")
    weight_decay: Annotated[float, Field(ge=0)] = _advanced(1e-4, "Weight decay")
    clip_norm: Rate = _advanced(5.0, "Largest gradient norm (paper: 0.5)")
    average_weights: Annotated[float, Field(ge=0, lt=1)] = _advanced(
        0.99, "Decay of the moving average of the weights that is kept; 0: none"
    )


class SharedWeightsSettings(OptimizationSettings):
    """How gradients change the weights that all architectures of a search share."""

    learning_rate: Rate = _advanced(0.5, "Learning rate of the shared weights (paper: 0.5)")
    muon_learning_rate: Rate = _advanced(0.06, "Learning rate of the convolutions with muon, finalists included")
    learning_rate_decay: Rate = _advanced(0.98, "Factor per epoch after decay_after (paper: 0.98)")
    decay_after: Positive = _advanced(50, "Epoch after which the rate decays (paper: 50)")
    restart_period: NotNegative = _advanced(
        0, "Epochs of the rate's first cosine cycle, doubled by each restart; 0: the rate stays (paper: 10)"
    )
    average_weights: Annotated[float, Field(ge=0, lt=1)] = _advanced(
        0.98, "Decay of the moving average of the shared weights that is rated; 0: none (paper)"
    )


class ControllerSettings(Settings):
    """The controller that strategy ``reinforce`` teaches (paper, section III; bounds and entropy from ENAS)."""

    learning_rate: Rate = _advanced(0.0005, "Adam's rate (paper: 0.0005)")
    hidden: Positive = _advanced(64, "Units of each LSTM layer")
    tanh_bound: Rate = _advanced(1.10, "Bound of the logits (ENAS)")
    operation_temperature: Rate = _advanced(2.5, "Operation logits are divided by this once more (ENAS)")
    entropy_weight: Annotated[float, Field(ge=0)] = _advanced(1e-4, "Weight of the entropy bonus (ENAS)")
    baseline: Literal["others", "moving_average"] = _advanced(
        "others", "What a reward is compared with: the mean of the update's others, or of all before (ENAS)"
    )
    baseline_decay: Fraction = _advanced(0.99, "Decay of the moving-average baseline (ENAS)")


class SelectionSettings(Settings):
    """Choice of the winner: the best rated few are trained alone, by successive halving."""

    fraction: Fraction = _advanced(
        0.3,
        "Fraction of the budget kept for choosing the winner by training the best few alone; "
        "1: no shared weights at all, the finalists are those that the strategy proposes first",
    )
    candidates: Positive = _advanced(64, "Architectures sampled and rated when the search ends")
    finalists: Positive = _advanced(8, "Best of these that are trained alone")
    steps: Positive = _advanced(200, "Steps that each finalist trains in the first round; each halving doubles it")
    learning_rate: Rate = _advanced(0.1, "Learning rate of the finalists")
    inherit_weights: bool = _advanced(True, "Finalists start with the shared weights")
    plain_chain: bool = _advanced(True, "A plain chain of the same operations competes among the finalists")
    plain_margin: Fraction = _advanced(
        0.01, "By how much mean IoU a found architecture has to be better than the plain chain to be preferred"
    )
    plain_steps: NotNegative = _advanced(
        300, "Steps that a found architecture has to train alone to be preferred to the plain chain"
    )


class _LearningSettings(Settings):
    """What a search and a training have in common."""

    epochs: Positive | None = _field(None, "Maximum number of epochs", title="Maximum epochs", empty="no limit")
    budget: Annotated[float, Field(gt=0)] | None = _field(None, "Maximum time", title="Time", empty="no limit")
    loss: LossName = _advanced(
        "dice", "cross_entropy (paper), weighted by inverse class frequency, or dice: cross-entropy + Dice"
    )
    network: NetworkSettings = Field(
        default_factory=NetworkSettings, title="Size of the network", description="Size of the network"
    )
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, title="Random changes of patches", description="Augmentation"
    )
    normalization: NormalizationChoice = _advanced(
        "auto",
        "Gray values by mean and deviation of the training part (global), or of each section (section) "
        "where sections differ in exposure or contrast drifts; auto decides by how much they differ",
    )
    context: Annotated[int, Field(ge=0, le=8)] = _advanced(
        0, "Sections above and below that are given as channels (2.5D)", title="Neighboring sections"
    )
    seed: Seed = _advanced(0, "Seed of everything random")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.epochs is None and self.budget is None:
            raise ValueError("it would never end; give a number of epochs or a time budget")
        return self


class SearchSettings(_LearningSettings):
    """How an architecture is searched (AutoSegNet, section III and IV.B; ENAS for what it leaves open)."""

    strategy: Literal["reinforce", "random", "evolution"] = _field(
        "reinforce",
        "How candidates are chosen",
        title="Search by",
        words={"reinforce": "learning (as in the paper)", "random": "chance"},
    )
    epochs: Positive | None = _field(
        200, "Maximum number of epochs (paper: 200)", title="Maximum epochs", empty="no limit"
    )
    budget: Annotated[float, Field(gt=0)] | None = _field(
        None, "Maximum time of the whole search", title="Time", empty="no limit"
    )
    stop_loss: Annotated[float, Field(gt=0)] | None = _advanced(
        None, "End when the training loss of the shared weights is this low", empty="not used"
    )
    stop_accuracy: Fraction | None = _advanced(
        None, "End when the mean reward (mean IoU) is this high", empty="not used"
    )
    patch_size: PatchSize = _field(64, "Side of the square search patches in pixels")
    batch_size: BatchSize = _advanced(16, "Patches per step")
    steps_per_epoch: Positive = _advanced(64, "Steps of the shared weights per epoch")
    warmup_fraction: Fraction = _advanced(
        0.4, "Fraction of the budget in which only the shared weights learn, whatever the strategy"
    )
    warmup_ramp: Fraction = _advanced(
        0.6,
        "Fraction of the warm-up in which architectures pass from the plain chain to even draws; "
        "0: even draws from the start",
    )
    updates_per_epoch: Positive = _advanced(30, "Updates of the strategy per epoch, by rewards")
    samples_per_update: Positive = _advanced(10, "Architectures per update")
    reward_patches: Positive = _advanced(
        64, "Pixels of the validation part that a reward is measured on, in training patches"
    )
    max_parameters: Positive | None = _advanced(
        None, "Maximum number of weights of the network that is trained in the end"
    )
    max_latency: Rate | None = _advanced(
        None, "Maximum number of milliseconds that this network may take for 512 x 512 pixels on the search's device"
    )
    optimization: SharedWeightsSettings = Field(
        default_factory=SharedWeightsSettings, description="Learning of the shared weights"
    )
    controller: ControllerSettings = Field(default_factory=ControllerSettings, description="The controller")
    selection: SelectionSettings = Field(
        default_factory=SelectionSettings, title="Choice of the winner", description="Choice of the winner"
    )
    space: SearchSpace = Field(default_factory=SearchSpace, title="What may be chosen", description="The search space")


class TrainSettings(_LearningSettings):
    """How the found architecture is trained from scratch (AutoSegNet, section IV)."""

    epochs: Positive | None = _field(
        300, "Maximum number of epochs (paper: 300)", title="Maximum epochs", empty="no limit"
    )
    budget: Annotated[float, Field(gt=0)] | None = _field(
        None, "Maximum time of the training", title="Time", empty="no limit"
    )
    patch_size: PatchSize = _field(256, "Side of the square training patches in pixels")
    batch_size: BatchSize = _advanced(8, "Patches per step")
    steps_per_epoch: Positive = _advanced(50, "Steps per epoch")
    teacher: Teacher = _advanced(
        "forest",
        "What a network learns from besides few strokes: labels of a random forest, where it is sure of them "
        "(forest), or nothing (none)",
    )
    optimization: OptimizationSettings = Field(default_factory=OptimizationSettings, description="Learning")


class FitSettings(TrainSettings):
    """How the network that data needs is found and trained in one go: how fine, how wide, how deep.

    The networks that compete have sizes of their own; ``network`` says how they are pooled, and no more.
    """

    epochs: Positive | None = _field(
        None, "Maximum number of epochs of all networks together", title="Maximum epochs", empty="no limit"
    )
    budget: Annotated[float, Field(gt=0)] | None = _field(
        1200.0, "Maximum time of all together", title="Time", empty="no limit"
    )
    goal: Goal = _field(
        "balanced",
        "accurate: the best network; balanced: the fastest that is as good; fast: the fastest that is nearly as good",
        words={
            "accurate": "accurate: the best network",
            "balanced": "balanced: the fastest that is as good",
            "fast": "fast: the fastest that is nearly as good",
        },
    )
    candidates: Positive | None = _advanced(None, "Networks that compete; by default as many as there is time for")
    choosing: Annotated[float, Field(ge=0, lt=1)] = _advanced(
        0.6, "Fraction of the budget in which networks compete; in the rest the chosen one is trained to the end"
    )
    pretrained: bool = _advanced(
        True,
        "Where little is annotated, begin with weights learned from public images",
        title="Begin with learned weights",
    )
    learn_from_everything: bool = _advanced(
        True, "Learn from the validation part as well, once it has served to choose", title="Learn from everything"
    )
    tolerance: Fraction = _advanced(0.005, "A faster network is taken if it surely loses no more mean IoU than this")


class PredictSettings(Settings):
    """How a model is applied."""

    block: tuple[Positive, Positive, Positive] | None = _field(
        None, "Block of voxels z,y,x computed and written at once; a multiple of the output's chunks"
    )
    tile: Literal["auto"] | Annotated[int, Field(ge=32)] = _advanced(
        "auto",
        "Largest side of the tiles on the device, halo included; auto measures at the start of long runs",
        title="Tile size",
    )
    planes: Literal["xy", "all"] = _field(
        "xy",
        "Planes that the network sees: xy, or all three of a volume with cubic voxels, their probabilities averaged "
        "(takes 3 times as long)",
        title="Planes",
        words={"xy": "xy", "all": "xy, xz and yz"},
    )
    batch_size: BatchSize = _advanced(1, "Tiles per pass")
    halo: Literal["auto", "exact"] | NotNegative = _field(
        "auto",
        "Pixels of real surroundings per tile: auto (measured), exact (from the network) or a number",
        title="Surroundings",
    )
    gray_values: GrayValuesChoice = _advanced(
        "checked",
        "An image in another range than the model's is scaled where that can be told, else refused "
        "(checked), or taken as it is (as-is)",
    )
    probabilities: bool = _field(False, "Also write class probabilities (uint8)", title="Keep probabilities")
    flips: bool = _advanced(False, "Average over mirrored copies (4 times slower)", title="Mirrored copies")
    instances: bool = _field(
        False,
        "Also give every object a number of its own: labels/instances (writes probabilities, too)",
        title="Number single objects",
    )
    instance_classes: tuple[str, ...] | None = _advanced(
        None, "Classes whose objects are numbered; all but background and boundary by default"
    )
    instance_growth: Literal["auto", "volume", "sections"] = _advanced(
        "auto",
        "volume: objects grow through the volume; sections: they grow in each section, and those that overlap well are "
        "one; auto: sections, if these are more than three pixels apart or the voxels are unknown",
        title="Objects grow",
        words={
            "auto": "as the voxels suggest",
            "volume": "through the volume (3D)",
            "sections": "in each section, then linked",
        },
    )
    instance_distance: Annotated[float, Field(gt=0, le=64)] = _advanced(
        4.0, "Objects grow from places that are at least this many pixels from a boundary"
    )
    instance_merge: Annotated[float, Field(ge=0, le=0.5)] | None = _advanced(
        None,
        "Objects that meet are one where a boundary between them is less probable than this, and grow from places "
        "where it is; 0.2 by default where a class is a boundary, else 0 (never)",
        title="Merge below",
    )
    instance_min_size: Positive = _advanced(1, "Objects of fewer voxels are left out")
    region: str | None = _field(
        None, "Only these voxels, z0:z1,y0:y1,x0:x1 with the ends left out, for example :,0:512,256:768"
    )
    format: Literal["ome-zarr", "ome-zarr-0.4", "zarr"] = _field(
        "ome-zarr", "Kind of a new store: OME-Zarr 0.5, OME-Zarr 0.4, or one plain Zarr array"
    )
    sharded: bool = _field(False, "One file per block instead of one per chunk (not for OME-Zarr 0.4)")
    workers: Positive = _field(1, "Processes that share the blocks", title="Processes")
    retries: NotNegative = _advanced(2, "How often a block that failed is tried again")
    engine: Literal["auto", "channels_last", "contiguous", "onnxruntime"] = _advanced(
        "auto", "What computes: PyTorch in one of two memory layouts, or ONNX Runtime; auto measures at the start"
    )
    precision: Literal["auto", "float32"] = _advanced(
        "auto",
        "auto: half precision, if the device is fast in it and 99.95 % of the labels stay the same",
    )
    levels: Positive | None = _advanced(
        None, "Pyramid levels; as many as the source by default", title="Resolution levels"
    )
    overwrite: bool = _field(False, "Start again over an existing result")

    @field_validator("region")
    @classmethod
    def _region_is_ranges(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d*:\d*(,\d*:\d*){1,2}", value.replace(" ", "")):
            raise ValueError("must be ranges of z, y and x such as 0:16,0:512,256:768 (of y and x for one section)")
        return value
