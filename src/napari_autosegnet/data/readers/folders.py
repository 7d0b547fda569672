"""A folder of images, a file for each section."""

from __future__ import annotations

from pathlib import Path

from napari_autosegnet.data.readers.formats import Format, ReadRequest, format_of, is_section
from napari_autosegnet.data.readers.section_files import SectionFiles, sections_at_once
from napari_autosegnet.data.stack import Array, ImageStack, natural_key, time_point
from napari_autosegnet.errors import UserError


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
    notes: list[str] = []
    largest = 0
    for file in files:
        section = opened(file)
        if section.sections > 1:
            raise UserError(f"{file} has {section.sections} pages; a folder holds one section per file")
        height, width = section.section_shape(0)
        shapes.append((height, width))
        kinds.append((section.channels, section.dtype))
        notes.extend(section.notes)
        largest = max(largest, height * width * section.channels * section.dtype.itemsize)
        if kinds[-1] != kinds[0]:
            first, other = (f"{dtype} with {channels} channels" for channels, dtype in (kinds[0], kinds[-1]))
            raise UserError(f"{file.name} is {other}, {files[0].name} is {first}; give images of one kind in {path}")
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


FORMAT = Format(
    "a folder of TIFF, PNG, JPEG or BMP images", open_folder, takes_folder=lambda path: True, takes_rest=True
)
