"""HDF5: one dataset of a file, of which chunks are read where a read falls on them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_autosegnet.data.array_stack import stack_of_file
from napari_autosegnet.data.readers.formats import Format, ReadRequest
from napari_autosegnet.data.readers.pixel_values import not_applied
from napari_autosegnet.data.stack import Array, ImageStack
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.plain_text import listed, natural_key
from napari_autosegnet.units import Placement, in_one_unit

if TYPE_CHECKING:
    import h5py

#: Decompressed chunks that HDF5 keeps: as many as several sections touch, or each would be decoded for each section.
_CHUNK_CACHE_BYTES = 128 * 2**20
_MAX_SHOWN = 8


@dataclass(frozen=True)
class _Pixels:
    """A dataset, read where it is indexed, that knows its file."""

    dataset: Any
    files: Sequence[Path]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.dataset.dtype
        return dtype

    def __getitem__(self, index: Any) -> Array:
        return np.asarray(self.dataset[index])


def open_hdf5(request: ReadRequest) -> ImageStack:
    if find_spec("hdf5plugin") is not None:
        import_module("hdf5plugin")  # more compression filters
    path = request.path
    with _in_one_line(path):
        file = _open(path)
        dataset = _dataset(file, path, request.within)
        _check_filters(dataset, path)
        placement, axes = _placement(dataset), _axes(dataset)
        notes = [*not_applied(dataset.attrs), *_never_written(dataset)]
    place = Path(f"{path}:{dataset.name}")
    return stack_of_file(
        _Pixels(dataset, [path, *_other_files(dataset, path)]),
        place,
        time=request.time,
        wanted=request.axes,
        stated=axes,
        placement=placement,
        chunks=dataset.chunks,
        notes=[f"{place}: {note}" for note in notes],
    )


def images_in_hdf5(path: Path) -> list[Path]:
    """The datasets in a file that may be images; the file itself where there is none or one."""
    with _in_one_line(path), _open(path) as file:
        names = _image_names(file)
    return [Path(f"{path}:/{name}") for name in names] if len(names) > 1 else [path]


def _open(path: Path) -> h5py.File:
    import h5py

    return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # HDF5 has errors of many kinds
        raise UserError(
            f"{path} is not an HDF5 file, or is damaged ({one_line(error)}); copy the file again"
        ) from error


def _image_names(group: h5py.Group) -> list[str]:
    """Names of the datasets in a group that may be images."""
    import h5py

    names: list[str] = []

    def collect(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "buif" and len(node.shape or ()) >= 2:
            names.append(name)

    group.visititems(collect)
    return sorted(names, key=natural_key)


def _dataset(file: h5py.File, path: Path, within: str | None) -> h5py.Dataset:
    """The dataset that is meant: the one named, or the only one."""
    import h5py

    if within:
        node = file.get(within)
        if isinstance(node, h5py.Dataset):
            return node
        file = node if isinstance(node, h5py.Group) else file
    names = _image_names(file)
    prefix = "" if file.name == "/" else file.name
    such_as = listed([f"{path}:{prefix}/{name}" for name in names], _MAX_SHOWN)
    if within and not isinstance(node, h5py.Group):
        raise UserError(f"{path} has no dataset {within}; give one of {such_as}")
    if not names:
        raise UserError(f"{path} holds no images; give a file with a dataset of two or more axes")
    if len(names) > 1:
        raise UserError(f"{path} holds {len(names)} datasets; give one of {such_as}")
    only: h5py.Dataset = file[names[0]]
    return only


def _check_filters(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a compression that is not installed, before it fails at the first pixel."""
    import h5py

    settings = dataset.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            known = name.decode(errors="replace").split(";")[0].strip() or f"filter {code}"
            raise UserError(
                f"{path}:{dataset.name} is compressed with {known}, which is not installed; "
                "pip install 'napari-autosegnet[formats]', or write it again with gzip"
            )


def _other_files(dataset: h5py.Dataset, path: Path) -> list[Path]:
    """Files besides its own that the pixels lie in; where one is missing, HDF5 would show zeros."""
    names = [each.file_name for each in dataset.virtual_sources()] if dataset.is_virtual else []
    names += [name for name, *_ in dataset.external or ()]
    files = [path.parent / name for name in dict.fromkeys(names) if name != "."]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UserError(f"{path}:{dataset.name} has pixels in {missing}, which is missing; put the files side by side")
    return files


def _never_written(dataset: h5py.Dataset) -> list[str]:
    """A line on chunks that HDF5 would make up, as where a recording was ended early; none where all are there."""
    if dataset.chunks is None:
        return []
    chunks = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    missing = chunks - int(dataset.id.get_num_chunks())
    return [f"{missing} of {chunks} chunks were never written and are read as {dataset.fillvalue}"] if missing else []


def _axes(dataset: h5py.Dataset) -> str | None:
    """Names of the axes, where each is named: by ilastik and vigra, by labels of the dimensions, or as ``axes``."""
    named: list[Any] = [dimension.label for dimension in dataset.dims]
    tags = _text(dataset.attrs.get("axistags"))
    if tags:
        content = json.loads(tags)
        named = [axis.get("key", "") for axis in content["axes"]]
    elif "axes" in dataset.attrs:
        given = dataset.attrs["axes"]
        named = list(_text(given) or np.atleast_1d(given))
    short = {"time": "t", "channel": "c", "channels": "c", "depth": "z"}
    axes = [short.get(_text(name).lower(), _text(name).lower()) for name in named]
    fits = len(axes) == len(set(axes)) == len(dataset.shape) and {"y", "x"} <= set(axes) <= set("tczyx")
    return "".join(axes) if fits else None


def _placement(dataset: h5py.Dataset) -> Placement:
    """Size and place of a voxel, (z, y, x): as CREMI (`resolution`, with a unit) or Fiji (`element_size_um`) say."""
    attributes = dataset.attrs
    sizes, micrometers = _numbers(attributes.get("resolution")), _numbers(attributes.get("element_size_um"))
    given = attributes.get("units", attributes.get("unit"))
    if micrometers and (not sizes or given is None):
        return in_one_unit(micrometers, ["micrometer"] * 3)
    if not sizes:
        return Placement()
    units = [_text(unit) for unit in np.atleast_1d(given)][-3:] if given is not None else [""]
    offset = [value or 0.0 for value in _numbers(attributes.get("offset")) or [0.0] * 3]
    return in_one_unit(sizes, [units[0]] * (3 - len(units)) + units, offset)


def _numbers(value: Any) -> list[float | None]:
    """Numbers (z, y, x) of an attribute, None for a z that is not there; empty where they are no such numbers."""
    numbers = np.atleast_1d(value) if value is not None else np.zeros(0)
    if numbers.dtype.kind not in "iuf" or numbers.shape not in ((2,), (3,)):
        return []
    return [None] * (3 - len(numbers)) + [float(number) for number in numbers]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value) if isinstance(value, str) else ""


FORMAT = Format(
    "HDF5",
    open_hdf5,
    suffixes=(".h5", ".hdf5"),
    magic=((0, b"\x89HDF\r\n\x1a\n"),),
    images_in=images_in_hdf5,
)
