"""What it takes to build a network again: kept in checkpoints and in the model folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.errors import UserError
from napari_autosegnet.networks.segmentation import SegmentationNetwork, number_of_levels
from napari_autosegnet.settings import NetworkSettings

#: Searched: all that an architecture describes, whoever wrote it.
NetworkKind = Literal["searched", "unet", "pspnet"]


class NetworkSpecification(BaseModel):
    """Kind, architecture and size of a network; `build` makes it with fresh weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: NetworkKind = "searched"
    architecture: Architecture | None = None
    in_channels: Annotated[int, Field(ge=1, le=4096)]
    classes: Annotated[int, Field(ge=2, le=1024)]
    levels: Annotated[int, Field(ge=1, le=10)]
    base_width: Annotated[int, Field(ge=1, le=4096)]
    max_width: Annotated[int, Field(ge=1, le=16384)]
    stem_stride: Literal[1, 2, 4, 8] = 1

    @model_validator(mode="after")
    def _architecture_where_needed(self) -> NetworkSpecification:
        if self.network != "searched" and self.architecture is not None:
            raise ValueError("only a searched network has an architecture")
        return self

    @classmethod
    def for_patches(
        cls,
        patch_size: int,
        settings: NetworkSettings,
        *,
        in_channels: int,
        classes: int,
        network: NetworkKind | Literal["unet-half"] = "searched",
        architecture: Architecture | None = None,
    ) -> NetworkSpecification:
        """Specification whose depth follows from the patch size (AutoSegNet, section IV.B).

        Raises
        ------
        UserError
            When no network of this depth takes patches of this size.
        """
        levels = number_of_levels(patch_size, min_size=settings.min_size, min_ratio=settings.min_ratio)
        stem_stride = {"searched": settings.stem_stride, "unet-half": 2}.get(network, 1)
        specification = cls(
            network="unet" if network == "unet-half" else network,
            architecture=architecture,
            in_channels=in_channels,
            classes=classes,
            levels=max(1, levels - stem_stride.bit_length() + 1),
            base_width=settings.base_width,
            max_width=settings.max_width,
            stem_stride=stem_stride,
        )
        specification.check_patches(patch_size)
        return specification

    def check_patches(self, patch_size: int) -> None:
        """Refuse patches that the network cannot take.

        Raises
        ------
        UserError
            With the nearest size that will do.
        """
        if patch_size % self.stride:
            fitting = max(1, round(patch_size / self.stride)) * self.stride
            raise UserError(
                f"patches of {patch_size} pixels do not suit this network, which halves them down to "
                f"1/{self.stride}; choose a multiple of {self.stride}, for example --patch-size {fitting}"
            )

    @property
    def stride(self) -> int:
        """The network takes patches whose side is a multiple of it."""
        # PSPNet enlarges its logits to whatever size its input had.
        return 1 if self.network == "pspnet" else self.stem_stride * 2**self.levels

    def build(self) -> nn.Module:
        """Network (n, in_channels, y, x) -> logits (n, classes, y, x), with a ``stride`` attribute."""
        if self.architecture is not None:
            return self.build_searched(self.architecture)
        from napari_autosegnet.networks.baselines import PSPNet, UNet

        if self.network == "searched":
            raise ValueError("a searched network needs an architecture")
        if self.network == "unet":
            return UNet(self.in_channels, self.classes, self.base_width, self.levels, self.stem_stride)
        return PSPNet(self.in_channels, self.classes, base_width=self.base_width)

    def build_searched(self, choices: Architecture | SearchSpace) -> SegmentationNetwork:
        """Network of this size for an architecture, or the supernet of a whole space."""
        return SegmentationNetwork(
            choices,
            in_channels=self.in_channels,
            classes=self.classes,
            levels=self.levels,
            base_width=self.base_width,
            max_width=self.max_width,
            stem_stride=self.stem_stride,
        )


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
