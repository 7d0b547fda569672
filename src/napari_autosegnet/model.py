"""The model folder: one network, or one forest of pixel features, with all that is needed to apply it.

::

    MODEL/model.json             network, classes, normalization, halo, how it was trained
          weights.safetensors    the weights, and a copy of model.json in its header

Both files are replaced one after the other, the weights first. When a crash comes between the two, the hash
of the weights in ``model.json`` does not fit, and the copy in the header is taken: so at any moment the
folder holds the old model or the new one. A hash of the description tells whether it was changed since;
names and colors of classes are left out of it and may be edited. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from napari_autosegnet.data.annotations import ClassInfo
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.errors import UserError, first_problem
from napari_autosegnet.files import write_atomically
from napari_autosegnet.json_files import parse_json
from napari_autosegnet.networks.specification import NetworkSpecification
from napari_autosegnet.pixel_classifier.forest import ForestSpecification, PixelClassifier

FORMAT = "napari-autosegnet/model"
SCHEMA_VERSION = 1
DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
#: A file beyond these sizes is not a model of this program (or a zip bomb) and is not read.
MAX_DESCRIPTION = 16 * 2**20
MAX_WEIGHTS = 4 * 2**30

#: What a model is made of, told apart by ``network``.
Specification = Annotated[NetworkSpecification | ForestSpecification, Field(discriminator="network")]

_PACKAGES = ("napari-autosegnet", "torch", "numpy", "safetensors")


#: What a network may be computed in instead of float32.
HalfPrecision = Literal["float16", "bfloat16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HaloFigure(_Frozen):
    """A halo and the fraction of pixels whose labels agree with whole-section inference at it."""

    pixels: Annotated[int, Field(ge=0)]
    agreement: Annotated[float, Field(ge=0, le=1)]


class ModelDescription(_Frozen):
    """What stands in ``model.json``."""

    format: Literal["napari-autosegnet/model"] = "napari-autosegnet/model"
    schema_version: Literal[1] = 1
    network: Specification
    classes: Annotated[tuple[ClassInfo, ...], Field(min_length=2)]
    normalization: Normalization
    image_channels: Annotated[int, Field(ge=1)]
    context: Annotated[int, Field(ge=0, le=8)] = 0
    patch_size: Annotated[int, Field(ge=1)]
    halo: HaloFigure | None = None
    #: Fraction of pixels whose labels agree with those of float32.
    half_precision: dict[HalfPrecision, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    weights_sha256: str = ""
    description_sha256: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over all but names and colors of the classes, which the owner may edit."""
        left_out = {"classes", "description_sha256"}
        if not self.half_precision:
            left_out.add("half_precision")  # as in models that were made before it was measured
        content = json.loads(self.model_dump_json(exclude=left_out))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelDescription:
        if len(self.classes) != self.network.classes:
            raise ValueError(f"{len(self.classes)} classes are named, the network has {self.network.classes}")
        channels = self.image_channels * (2 * self.context + 1)
        if channels != self.network.in_channels:
            raise ValueError(f"image and context have {channels} channels, the network {self.network.in_channels}")
        if self.network.network == "searched" and self.network.architecture is None:
            raise ValueError("a searched network needs its architecture")
        if len(self.normalization.mean) != self.image_channels:
            raise ValueError("normalization and image_channels differ")
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
        # Cloned: training may continue, and safetensors refuses tensors that share memory.
        self._weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
        description = description.model_copy(update={"weights_sha256": _digest(self._weights)})
        self.description = description.model_copy(update={"description_sha256": description.digest})

    @classmethod
    def create(
        cls,
        network: nn.Module | Mapping[str, Tensor],
        specification: NetworkSpecification | ForestSpecification,
        *,
        classes: tuple[ClassInfo, ...],
        normalization: Normalization,
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
            normalization=normalization,
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
    def normalization(self) -> Normalization:
        return self.description.normalization

    @property
    def specification(self) -> NetworkSpecification | ForestSpecification:
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
    def half_precision(self) -> dict[HalfPrecision, float]:
        return self.description.half_precision

    @property
    def metrics(self) -> dict[str, Any]:
        return self.description.metrics

    @property
    def weights(self) -> dict[str, Tensor]:
        """The ``state_dict``, on the CPU."""
        return dict(self._weights)

    def with_(
        self,
        *,
        halo: HaloFigure | None = None,
        half_precision: Mapping[HalfPrecision, float] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Model:
        """The same model with what was measured later."""
        changes: dict[str, Any] = {}
        if halo is not None:
            changes["halo"] = halo
        if half_precision is not None:
            changes["half_precision"] = dict(half_precision)
        if metrics is not None:
            changes["metrics"] = dict(metrics)
        return Model(self.description.model_copy(update=changes), self._weights)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides what the model predicts: network, weights, input, normalization."""
        decides = self.description.model_dump(
            mode="json", include={"network", "normalization", "image_channels", "context", "weights_sha256"}
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
            problem = _misfit(network, self._weights)
            raise UserError(
                f"the model's weights do not fit its network ({problem}); train or copy it again"
            ) from error
        if isinstance(network, PixelClassifier):
            try:
                network.check()
            except ValueError as error:
                raise UserError(f"the model's forest is damaged ({error}); train or copy it again") from error
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
        with _opened(place) as (text, handle, size):
            head = _read_head(handle, size, place)
            texts = [each for each in (text, _embedded_description(head, place)) if each is not None]
            if not texts:
                raise UserError(f"{place} is not a model (it has no {DESCRIPTION_FILE}); {_GIVE}")
            # After a crash between the two files the description is that of the older weights.
            descriptions = [_parse(each, place) for each in texts]
            content = head + _read_numbers(handle, size - len(head), descriptions, place)
        try:
            weights = load_tensors(content)
        except (SafetensorError, ValueError) as error:
            raise _damaged_weights(place) from error
        digest = _digest(weights)
        description = next((each for each in descriptions if each.weights_sha256 == digest), None)
        if description is None:
            raise UserError(f"{DESCRIPTION_FILE} and weights in {place} do not belong together; copy the model again")
        if description.description_sha256 != description.digest:
            raise UserError(
                f"{DESCRIPTION_FILE} of {place} was changed since it was written, in more than names and colors of "
                "classes; copy the model again"
            )
        return cls(description, weights)


_GIVE = "give a RUN/model folder or a zip of one"


def _damaged_weights(place: Path) -> UserError:
    return UserError(f"cannot read the model: the weights of {place} are damaged; copy it again")


def _parse(text: bytes, place: Path) -> ModelDescription:
    content = parse_json(text, f"{place}/{DESCRIPTION_FILE}", "copy the model again")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{place} is not a model of napari-autosegnet; {_GIVE}")
    schema = content.get("schema_version")
    if schema != SCHEMA_VERSION:
        newer = isinstance(schema, int) and schema > SCHEMA_VERSION
        advice = "update napari-autosegnet" if newer else "train it again, or use the version it was made with"
        raise UserError(f"{place} has model version {schema!r}, this program reads {SCHEMA_VERSION}; {advice}")
    damaged = f"{place}/{DESCRIPTION_FILE} is damaged"
    try:
        description = ModelDescription.model_validate(content)
        description.digest  # noqa: B018 - of text that no file can hold there is none
    except ValidationError as error:
        raise UserError(f"{damaged} {first_problem(error)}; copy the model again") from error
    except ValueError as error:
        raise UserError(f"{damaged} (it holds text that is none); copy the model again") from error
    return description


@contextmanager
def _opened(place: Path) -> Iterator[tuple[bytes | None, IO[bytes], int]]:
    """Description (None if there is none), weights to be read, and their size, of a folder or a zip.

    Nothing of a zip is unpacked to the disk, so no path in it can lead elsewhere.
    """
    try:
        if place.is_file():
            with zipfile.ZipFile(place) as archive:
                members = _members(archive, place)
                text = members.get(DESCRIPTION_FILE)
                weights = members[WEIGHTS_FILE]
                description = None if text is None else archive.read(text)
                with archive.open(weights) as handle:
                    yield description, handle, weights.file_size
        else:
            file, description_file = place / WEIGHTS_FILE, place / DESCRIPTION_FILE
            if not place.exists():
                raise UserError(f"there is no file or folder {place}; {_GIVE}")
            if not file.is_file():
                raise UserError(f"{place} is not a model (it has no {WEIGHTS_FILE}); {_GIVE}")
            description = None
            if description_file.exists():  # what is no file there cannot be read, and is told
                _check_size(description_file.stat().st_size, MAX_DESCRIPTION, description_file)
                description = description_file.read_bytes()
            with open(file, "rb") as handle:
                yield description, handle, file.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read the model {place}: {error.strerror or 'it is damaged'}; {_GIVE}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"cannot read the model {place}: it is not a zip, or is damaged; {_GIVE}") from error
    except RuntimeError as error:
        raise UserError(f"cannot read the model {place}: it is encrypted or packed in an odd way; {_GIVE}") from error


def _members(archive: zipfile.ZipFile, place: Path) -> dict[str, zipfile.ZipInfo]:
    limits = {DESCRIPTION_FILE: MAX_DESCRIPTION, WEIGHTS_FILE: MAX_WEIGHTS}
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = PurePosixPath(member.filename).name
        if name not in limits or member.is_dir():
            continue
        if name in members:
            raise UserError(f"{place} holds more than one {name}; give a zip of one model folder")
        _check_size(member.file_size, limits[name], place)
        members[name] = member
    if WEIGHTS_FILE not in members:
        raise UserError(f"{place} is not a model (it has no {WEIGHTS_FILE}); {_GIVE}")
    return members


def _check_size(size: int, largest: int, place: Path) -> None:
    if size > largest:
        raise UserError(f"{place} is larger than a model can be ({size} bytes); give a RUN/model folder or its zip")


def _read_head(handle: IO[bytes], size: int, place: Path) -> bytes:
    """The header of the weights, with the eight bytes before it that hold its length."""
    _check_size(size, MAX_WEIGHTS, place)
    start = handle.read(8)
    length = int.from_bytes(start, "little")
    # The copy of the description in it is quoted once more.
    if len(start) < 8 or length > min(size, 2 * MAX_DESCRIPTION):
        raise _damaged_weights(place)
    return start + handle.read(length)


def _embedded_description(head: bytes, place: Path) -> bytes | None:
    """The copy of ``model.json`` in the header of the weights."""
    try:
        text = json.loads(head[8:]).get("__metadata__", {}).get("description")
    except (ValueError, RecursionError, AttributeError) as error:
        raise _damaged_weights(place) from error
    return text.encode("utf-8", "replace") if isinstance(text, str) else None


def _read_numbers(handle: IO[bytes], size: int, descriptions: Sequence[ModelDescription], place: Path) -> bytes:
    """The numbers behind the header, if they are no more than a described network needs.

    A zip of some kilobytes may say that it holds gigabytes, and hold them.
    """
    needed = max(_bytes_needed(each.network) for each in descriptions)
    if size > needed:
        raise UserError(
            f"the weights of {place} take {size} bytes, and its network has room for {needed}; copy the model again"
        )
    # A zip may also be wrong about the size: never more than it says is read.
    content = handle.read(size + 1)
    if len(content) != size:
        raise _damaged_weights(place)
    return content


def _bytes_needed(network: NetworkSpecification | ForestSpecification) -> int:
    with torch.device("meta"):
        state = network.build().state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _misfit(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """How weights differ from those of a network, in numbers."""
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    both = wanted.keys() & weights.keys()
    counts = {
        "missing": len(wanted.keys() - both),
        "too many": len(weights.keys() - both),
        "of another size": sum(weights[name].shape != wanted[name] for name in both),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "of another type"


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
