"""A folder of images, a file for each section."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from napari_autosegnet.data.array_stack import time_point
from napari_autosegnet.data.readers.formats import Format, ReadRequest, format_of, is_section
from napari_autosegnet.data.readers.section_files import SectionFiles, sections_at_once
from napari_autosegnet.data.stack import Array, ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.plain_text import counted, natural_key


def folder_files(path: Path) -> list[Path] | None:
    """The files of a folder of images, a section each, in natural order; None when the path is something else.

    Raises
    ------
    UserError
        When it is a folder without images.
    """
    if not path.is_dir() or format_of(path) is not FORMAT:
        return None
    files = [file for file in path.iterdir() if is_section(file)]
    if not files:
        inside = sorted((each.name for each in path.iterdir() if each.is_dir()), key=natural_key)
        such_as = f"; give one of the folders in it: {', '.join(inside[:6])}" if inside else ""
        raise UserError(f"the folder {path} holds no TIFF, PNG, JPEG or BMP image and is not a Zarr store{such_as}")
    return sorted(files, key=lambda file: natural_key(file.name))


def open_folder(request: ReadRequest) -> ImageStack:
    path = request.path
    time_point(None, request.time, path)
    files = list(request.files or folder_files(path) or ())

    def opened(file: Path) -> ImageStack:
        return format_of(file).open(ReadRequest(file, labels=request.labels, alone=True))

    def decode(file: Path) -> Array:
        return opened(file).section(0)

    shapes: list[tuple[int, int]] = []
    kinds: list[tuple[int, object]] = []
    told: dict[str, list[str]] = {}  # by what is left without the name of the file
    largest = 0
    for file in files:
        section = opened(file)
        if section.sections > 1:
            raise UserError(f"{file} has {section.sections} pages; a folder holds one section per file")
        height, width = section.section_shape(0)
        shapes.append((height, width))
        kinds.append((section.channels, section.dtype))
        for note in section.notes:
            told.setdefault(note.replace(str(file), ""), []).append(note)
        largest = max(largest, height * width * section.channels * section.dtype.itemsize)
        if kinds[-1] != kinds[0]:
            first, other = (f"{dtype} with {counted(channels, 'channel')}" for channels, dtype in (kinds[0], kinds[-1]))
            raise UserError(f"{file.name} is {other}, {files[0].name} is {first}; give images of one kind in {path}")
    notes: list[str] = []
    for alike in told.values():
        more = f"; the same holds for {counted(len(alike) - 1, 'other file')} of {path}" if len(alike) > 1 else ""
        notes.append(alike[0] + more)
    if not request.labels:
        notes.extend(f"{path}: {note}" for note in _left_out([file.stem for file in files]))
    return ImageStack(
        SectionFiles(files, decode),
        name=path.name,
        path=path,
        shapes=shapes,
        channels=section.channels,
        dtype=section.dtype,
        sections_at_once=sections_at_once(largest),
        section_names=tuple(file.stem for file in files),
        notes=notes,
    )


def _left_out(names: Sequence[str]) -> list[str]:
    """A line on sections that are missing in a series which else is numbered evenly; none for other names."""
    numbers = [[int(number) for number in re.findall(r"\d+", name)] for name in names]
    if len({re.sub(r"\d+", "#", name) for name in names}) > 1 or not numbers[0]:
        return []
    counting = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    if len(counting) != 1:
        return []
    steps = [after - before for before, after in itertools.pairwise(counting[0])]
    usual = min(steps)
    gaps = [(index, step // usual - 1) for index, step in enumerate(steps) if step > usual > 0]
    missing = sum(count for _, count in gaps)
    # A few files that were picked from many are numbered unevenly on purpose.
    even = usual > 0 and all(step % usual == 0 for step in steps)
    if not gaps or not even or 2 * steps.count(usual) < len(steps) or missing >= len(names):
        return []
    first = gaps[0][0]
    which = f"{missing} section{'s' if missing > 1 else ''} left out in the numbers of the files"
    return [f"{which}, first between {names[first]} and {names[first + 1]}; they are taken for neighbors"]


FORMAT = Format(
    "a folder of TIFF, PNG, JPEG or BMP images", open_folder, takes_folder=lambda path: True, takes_rest=True
)
