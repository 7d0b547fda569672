"""The formats that can be read: every module beside this one that has a `FORMAT`.

A new format is one new module. Its library is imported inside the function that opens a file, pixels are read where an
`ImageStack` is asked for them, and scale and unit travel with it.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from napari_autosegnet.addresses import address_of, on_disk
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import refuse_pipe
from napari_autosegnet.ome_zarr.paths import is_elsewhere, zip_around
from napari_autosegnet.plain_text import printable

#: So many bytes of a file without a known ending are looked at.
_HEAD = 512


@dataclass(frozen=True)
class ReadRequest:
    """What of a file or folder is wanted.

    Attributes
    ----------
    path : Path
        The file or folder itself.
    time : int or None
        The time point, where there are several.
    axes : str or None
        What the user says that its axes are.
    labels : bool
        It holds class numbers, which have no colors.
    alone : bool
        It is a section of a folder: a file that holds but a part of an image is refused.
    files : sequence of Path or None
        Of a folder only these, in this order.
    within : str or None
        Name of the image, in a file that holds several.
    """

    path: Path
    time: int | None = None
    axes: str | None = None
    labels: bool = False
    alone: bool = False
    files: Sequence[Path] | None = None
    within: str | None = None


@dataclass(frozen=True)
class Format:
    """A kind of file or folder that can be read.

    Attributes
    ----------
    name : str
        As the user knows it.
    open : callable
        Opens what is asked for; reads no pixels.
    suffixes : tuple of str
        Endings of its files or folders, in small letters.
    magic : tuple of (int, bytes)
        Places at the beginning of a file, and what stands at one of them whatever the file is called.
    takes_folder : callable or None
        For formats of folders: whether a folder has it.
    takes_rest : bool
        It takes every folder that no other format does.
    is_section : bool
        A file may be a section of a folder.
    images_in : callable or None
        The images in a file, where it may hold several: ``file:/name`` means one of them.
    module, extra : str or None
        The library that reads it, where that is an extra of this package, and the extra's name.
    """

    name: str
    open: Callable[[ReadRequest], ImageStack]
    suffixes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()
    takes_folder: Callable[[Path], bool] | None = None
    takes_rest: bool = False
    is_section: bool = False
    images_in: Callable[[Path], list[Path]] | None = None
    module: str | None = None
    extra: str | None = None


@cache
def formats() -> tuple[Format, ...]:
    """All formats, those of files before those of folders."""
    modules = [
        import_module(f"{__package__}.{each.name}")
        for each in pkgutil.iter_modules(import_module(__package__).__path__)
    ]
    known: list[Format] = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return tuple(sorted(known, key=lambda each: (each.takes_folder is not None, each.takes_rest, each.name.lower())))


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; of what lies at an address nobody knows before it is opened."""
    file, _ = parts_of(on_disk(path))
    return is_elsewhere(file) or file.exists()


def open_path(request: ReadRequest) -> ImageStack:
    """Open a file or folder of any format; ``file.h5:/name`` is one image of a file.

    Raises
    ------
    UserError
        When there is none, or it cannot be read.
    """
    file, within = parts_of(on_disk(request.path))
    if not is_there(file):
        raise UserError(f"there is no file or folder {file}; check the path")
    refuse_pipe(file, "save what comes through it as a file")
    kind = format_of(file)
    if kind.module is not None and find_spec(kind.module) is None:
        raise UserError(
            f"{file} is {kind.name}, which needs {kind.module}; pip install 'napari-autosegnet[{kind.extra}]'"
        )
    stack = kind.open(replace(request, path=file, within=within))
    # Of an image in a store that holds one, the reader says where it lies; a dataset in a file is called as the file.
    place = stack.path if stack.path is not None and stack.path.exists() else file
    stack.name = without_ending(printable((place if is_elsewhere(place) else place.resolve()).name))
    return stack


def format_of(path: Path) -> Format:
    """The format of a file or folder, by its ending and else by its first bytes.

    Raises
    ------
    UserError
        When it is of none.
    """
    address = address_of(path)
    if address is not None:
        said = re.match("n5|precomputed", address)
        return next(each for each in formats() if f".{said[0] if said else 'zarr'}" in each.suffixes)
    path = zip_around(path) or path
    if path.is_dir():
        return next(each for each in formats() if each.takes_folder is not None and each.takes_folder(path))
    of_files = [each for each in formats() if each.takes_folder is None]
    kind = next((each for each in of_files if path.name.lower().endswith(each.suffixes)), None)
    if kind is None and path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD)
        kind = next((each for each in of_files if _begins_like(head, each)), None)
    if kind is None:
        names = ", ".join(each.name for each in formats())
        raise UserError(f"{path} is not in a format that can be read; give one of {names}")
    return kind


def lossy_labels(path: Path) -> UserError:
    """The error for labels that are compressed with JPEG, whose values changed beside the borders."""
    return UserError(
        f"the labels {path} are compressed with JPEG, which changes values; "
        "save them as PNG or TIFF with the program that made them, or threshold them first"
    )


def images_in(path: Path) -> list[Path]:
    """What `open_path` opens of a file: itself, or each of the images that it holds.

    Raises
    ------
    UserError
        When it is of no known format, or cannot be read.
    """
    kind = format_of(path)
    return [path] if kind.images_in is None else kind.images_in(path)


def is_section(path: Path) -> bool:
    """Whether the name of a file is that of a section in a folder."""
    suffix = path.suffix.lower()
    return not path.name.startswith(".") and any(each.is_section and suffix in each.suffixes for each in formats())


def without_ending(name: str) -> str:
    """A file's name without what says its kind, such as ``.ome.tif``."""
    return _ending().sub("", name) or name


@cache
def _ending() -> re.Pattern[str]:
    suffixes = "|".join(re.escape(suffix) for each in formats() for suffix in each.suffixes)
    return re.compile(rf"(\.ome)?({suffixes})$", re.IGNORECASE)


def _begins_like(head: bytes, kind: Format) -> bool:
    return any(head[place : place + len(mark)] == mark for place, mark in kind.magic)


def parts_of(path: Path) -> tuple[Path, str | None]:
    """The file that a path leads to, and the name of an image in it where it has one: ``file.h5:/name``."""
    suffixes = "|".join(re.escape(suffix) for each in formats() if each.images_in for suffix in each.suffixes)
    inner = re.fullmatch(rf"(.*(?:{suffixes})):/*(.*)", path.as_posix(), re.IGNORECASE)
    return (path, None) if inner is None or path.exists() else (Path(inner[1]), inner[2])
