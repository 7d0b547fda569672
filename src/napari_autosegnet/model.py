"""The model folder: one network with all that is needed to apply it.

::

    MODEL/model.json             network, classes, normalisation, halo, how it was trained
          weights.safetensors    the weights, and a copy of model.json in its header

Both files are replaced one after the other, the weights first. When a crash comes between the two, the hash
of the weights in ``model.json`` does not fit, and the copy in the header is taken: so at any moment the
folder holds the old model or the new one. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.normalisation import Normalisation
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.run import write_atomically

FORMAT = "napari-autosegnet/model"
SCHEMA_VERSION = 1
DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
#: A file beyond these sizes is no model of this program (or a zip bomb) and is not read.
LARGEST_DESCRIPTION = 16 * 2**20
LARGEST_WEIGHTS = 4 * 2**30

_PACKAGES = ("napari-autosegnet", "torch", "numpy", "safetensors")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HaloFigure(_Frozen):
    """A halo and the share of pixels whose labels agree with whole-section inference at it."""

    pixels: Annotated[int, Field(ge=0)]
    agreement: Annotated[float, Field(ge=0, le=1)]


class ModelDescription(_Frozen):
    """What stands in ``model.json``."""

    format: Literal["napari-autosegnet/model"] = "napari-autosegnet/model"
    schema_version: Literal[1] = 1
    network: NetworkSpecification
    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2)]
    normalisation: Normalisation
    image_channels: Annotated[int, Field(ge=1)]
    context: Annotated[int, Field(ge=0, le=8)] = 0
    patch_size: Annotated[int, Field(ge=1)]
    halo: HaloFigure | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    weights_sha256: str = ""

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelDescription:
        if len(self.classes) != self.network.classes:
            raise ValueError(f"{len(self.classes)} classes are named, the network has {self.network.classes}")
        channels = self.image_channels * (2 * self.context + 1)
        if channels != self.network.in_channels:
            raise ValueError(f"image and context have {channels} channels, the network {self.network.in_channels}")
        if self.network.network == "searched" and self.network.architecture is None:
            raise ValueError("a searched network needs its architecture")
        if len(self.normalisation.mean) != self.image_channels:
            raise ValueError("normalisation and image_channels differ")
        return self


class Model:
    """A trained network, its classes and how images have to be prepared for it.

    Parameters
    ----------
    description : ModelDescription
        What ``model.json`` says; `create` fills it in.
    weights : Mapping[str, Tensor]
        The network's ``state_dict``.
    """

    def __init__(self, description: ModelDescription, weights: Mapping[str, Tensor]) -> None:
        # Cloned: training may go on, and safetensors refuses tensors that share memory.
        self._weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
        digest = _digest(self._weights)
        self.description = description.model_copy(update={"weights_sha256": digest})

    @classmethod
    def create(
        cls,
        network: nn.Module | Mapping[str, Tensor],
        specification: NetworkSpecification,
        *,
        classes: tuple[ClassInfo, ...],
        normalisation: Normalisation,
        image_channels: int,
        patch_size: int,
        context: int = 0,
        halo: HaloFigure | None = None,
        training: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Model:
        """Model of a trained network (or of its ``state_dict``)."""
        description = ModelDescription(
            network=specification,
            classes=classes,
            normalisation=normalisation,
            image_channels=image_channels,
            context=context,
            patch_size=patch_size,
            halo=halo,
            training=dict(training or {}),
            metrics=dict(metrics or {}),
            packages=_package_versions(),
        )
        return cls(description, network.state_dict() if isinstance(network, nn.Module) else network)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self.description.classes

    @property
    def normalisation(self) -> Normalisation:
        return self.description.normalisation

    @property
    def specification(self) -> NetworkSpecification:
        return self.description.network

    @property
    def in_channels(self) -> int:
        """Channels of the network's input: image channels times (2 * context + 1)."""
        return self.description.network.in_channels

    @property
    def image_channels(self) -> int:
        return self.description.image_channels

    @property
    def context(self) -> int:
        return self.description.context

    @property
    def patch_size(self) -> int:
        return self.description.patch_size

    @property
    def halo(self) -> HaloFigure | None:
        return self.description.halo

    @property
    def metrics(self) -> dict[str, Any]:
        return self.description.metrics

    @property
    def weights(self) -> dict[str, Tensor]:
        """The ``state_dict``, on the CPU."""
        return dict(self._weights)

    def with_(self, *, halo: HaloFigure | None = None, metrics: Mapping[str, Any] | None = None) -> Model:
        """The same model with a halo or metrics measured later."""
        changes: dict[str, Any] = {}
        if halo is not None:
            changes["halo"] = halo
        if metrics is not None:
            changes["metrics"] = dict(metrics)
        return Model(self.description.model_copy(update=changes), self._weights)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides what the model predicts: network, weights, input, normalisation."""
        decides = self.description.model_dump(
            mode="json", include={"network", "normalisation", "image_channels", "context", "weights_sha256"}
        )
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises
        ------
        UserError
            When the weights do not fit the network that ``model.json`` describes.
        """
        # Without memory at first: a description that asks for a network far too big only does not fit its weights.
        with torch.device("meta"):
            network = self.description.network.build()
        try:
            network.load_state_dict({name: weight.clone() for name, weight in self._weights.items()}, assign=True)
        except RuntimeError as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(f"the model's weights do not fit its network ({line}); train or copy it again") from error
        return network.eval().to(device)

    def save(self, path: str | Path) -> None:
        """Write the model folder; an existing one is replaced without ever being missing.

        Raises
        ------
        UserError
            When the place cannot be written.
        """
        folder = Path(path)
        text = self.description.model_dump_json(indent=1) + "\n"
        write_atomically(folder / WEIGHTS_FILE, save_tensors(self._weights, metadata={"description": text}))
        write_atomically(folder / DESCRIPTION_FILE, text)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model folder, or a zip of one.

        Raises
        ------
        UserError
            When there is no model, it is damaged, or of a version that this program does not read.
        """
        place = Path(path)
        files = _read_zip(place) if place.is_file() else _read_folder(place)
        if WEIGHTS_FILE not in files:
            raise UserError(f"{place} is no model (it has no {WEIGHTS_FILE}); give a RUN/model folder or a zip of one")
        try:
            weights = load_tensors(files[WEIGHTS_FILE])
        except (SafetensorError, ValueError) as error:
            raise UserError(f"the weights of {place} are damaged ({error}); copy the model again") from error
        copy = _embedded_description(files[WEIGHTS_FILE])
        text = files.get(DESCRIPTION_FILE)
        digest = _digest(weights)
        candidates = [candidate for candidate in (text, copy) if candidate is not None]
        if not candidates:
            raise UserError(f"{place} is no model (it has no {DESCRIPTION_FILE}); give a RUN/model folder or its zip")
        description = _parse(candidates[0], place)
        if description.weights_sha256 != digest and copy is not None:
            description = _parse(copy, place)
        if description.weights_sha256 != digest:
            raise UserError(f"{DESCRIPTION_FILE} and weights in {place} do not belong together; copy the model again")
        return cls(description, weights)


def _parse(text: bytes, place: Path) -> ModelDescription:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}/{DESCRIPTION_FILE} is not JSON ({error}); copy the model again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{place} is no model of napari-autosegnet; give a RUN/model folder or a zip of one")
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        newer = isinstance(found, int) and found > SCHEMA_VERSION
        advice = "update napari-autosegnet" if newer else "train it again, or use the version it was made with"
        raise UserError(f"{place} has model version {found!r}, this program reads {SCHEMA_VERSION}; {advice}")
    try:
        return ModelDescription.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{place}/{DESCRIPTION_FILE} is damaged {first_problem(error)}") from error


def _read_folder(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, largest in ((DESCRIPTION_FILE, LARGEST_DESCRIPTION), (WEIGHTS_FILE, LARGEST_WEIGHTS)):
        file = folder / name
        try:
            if file.is_file():
                _check_size(file.stat().st_size, largest, file)
                files[name] = file.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    return files


def _read_zip(place: Path) -> dict[str, bytes]:
    """Read the two files from a zip into memory; nothing is unpacked, so no path can escape."""
    files: dict[str, bytes] = {}
    limits = {DESCRIPTION_FILE: LARGEST_DESCRIPTION, WEIGHTS_FILE: LARGEST_WEIGHTS}
    try:
        with zipfile.ZipFile(place) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if name not in limits or member.is_dir():
                    continue
                if name in files:
                    raise UserError(f"{place} holds more than one {name}; give a zip of one model folder")
                _check_size(member.file_size, limits[name], place)
                # The header may lie about the size: never read more than it says.
                with archive.open(member) as handle:
                    files[name] = handle.read(member.file_size + 1)
                _check_size(len(files[name]), member.file_size, place)
    # Damaged, or (RuntimeError) encrypted or compressed in a way that this Python does not know.
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError) as error:
        raise UserError(f"cannot read the model {place} ({error}); give a RUN/model folder or a zip of one") from error
    return files


def _check_size(size: int, largest: int, place: Path) -> None:
    if size > largest:
        raise UserError(f"{place} is larger than a model can be ({size} bytes); give a RUN/model folder or its zip")


def _embedded_description(weights: bytes) -> bytes | None:
    """The copy of ``model.json`` in the header of the weights."""
    length = int.from_bytes(weights[:8], "little")
    header = json.load(io.BytesIO(weights[8 : 8 + length]))
    text = header.get("__metadata__", {}).get("description")
    return text.encode() if isinstance(text, str) else None


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _package_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
