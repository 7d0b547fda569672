"""TIFF: pages, tiles and strips are decoded when they are asked for."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.array_stack import ArraySource, stack_of_array, time_point
from napari_autosegnet.data.readers.formats import Format, ReadRequest, lossy_labels
from napari_autosegnet.data.readers.ome_tiff import OmeTiffImage, ome_tiff_image
from napari_autosegnet.data.readers.pixel_values import PixelValues, ValuesOf
from napari_autosegnet.data.readers.tiff_axes import tiff_axes
from napari_autosegnet.data.readers.tiff_log import tifffile_errors
from napari_autosegnet.data.readers.tiff_pages import (
    TIFF_SUFFIXES,
    TiffPages,
    file_of,
    prepare_decoders,
    segment_shape,
)
from napari_autosegnet.data.readers.tiff_placement import stated_placement
from napari_autosegnet.data.readers.tiff_planes import check_extents, check_planes
from napari_autosegnet.data.readers.tiff_values import JPEG, PLAIN_KINDS, pixel_values
from napari_autosegnet.data.stack import Array, ImageStack, PixelSource
from napari_autosegnet.errors import UserError, is_out_of_memory, one_line

if TYPE_CHECKING:
    import tifffile

#: How a description that is OME-XML begins.
_OME_XML = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(\w+:)?OME\b", re.DOTALL)
#: Number of the tag ImageDescription.
_DESCRIPTION = 270


def stated_axes(path: Path, shape: tuple[int, ...]) -> str | None:
    """Names of the axes (t, c, z, y, x) of a shape, where the file itself states all of them; colors are left out.

    Of a file that cannot be read, that holds something else, or whose pages could be anything, None.
    """
    import tifffile

    try:
        with tifffile_errors(), tifffile.TiffFile(path) as file:
            series = file.series[0]
            stated = [(axis, size) for axis, size in zip(series.axes, series.shape, strict=True) if axis != "S"]
    except Exception:  # reading the pixels will report it
        return None
    if len(stated) != len(shape):
        stated = [(axis, size) for axis, size in stated if size > 1 or axis in "YX"]
    axes = "".join(axis for axis, _ in stated).lower()
    known = len(set(axes)) == len(axes) and not set(axes) - set("tczyx") and axes.endswith("yx")
    return axes if known and tuple(size for _, size in stated) == shape else None


def open_tiff(request: ReadRequest) -> ImageStack:
    """Open a TIFF.

    Raises
    ------
    UserError
        When it is damaged, holds other planes than it describes, or what it holds cannot be told.
    """
    with tifffile_errors() as errors:
        try:
            stack = _open(request)
        except (UserError, OSError):
            raise
        except Exception as error:  # tifffile raises whatever it likes on damaged files
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"cannot open {request.path}: it is not a TIFF, or is damaged; copy the file again"
            ) from error
    if errors and not stack.notes:  # the notes explain what was understood
        stack.notes = (f"{request.path} may be damaged ({errors[0]}); compare it with what other programs show",)
    return stack


def _open(request: ReadRequest) -> ImageStack:
    import tifffile

    path = request.path
    with tifffile.TiffFile(path) as file:
        if _goes_in_circles(file):
            raise UserError(f"{path} is damaged, its pages point in a circle; copy the file again")
        text = _ome_xml(file)
        image = ome_tiff_image(path, text) if text else None
        if image is not None and image.files != (path,):
            if request.alone:
                raise UserError(f"{path} is one of {len(image.files)} files of an OME-TIFF; give it, not its folder")
            _check_files(image.files, path)
        if image is None or image.xml is None:
            return _stack_of_file(file, request, image)
    # Micro-Manager's own index would bring all positions back.
    with tifffile.TiffFile(path, omexml=image.xml, is_mmstack=False) as file:
        return _stack_of_file(file, request, image)


def _ome_xml(file: tifffile.TiffFile) -> str | None:
    """OME-XML of a file; also one that was cut off, which tifffile takes for any description."""
    if file.is_ome or not file.pages:
        return file.ome_metadata
    description = file.pages.first.description
    return description if _OME_XML.match(description) else None


def _check_files(files: Sequence[Path], path: Path) -> None:
    """Refuse a set with a damaged file, of which tifffile would make black planes."""
    import tifffile

    for other in files:
        if other == path or not other.is_file():
            continue
        try:
            with tifffile.TiffFile(other) as file:
                damaged = _goes_in_circles(file) or _is_cut_off(file)
        except OSError as error:
            raise UserError(f"cannot open {other}, which {path} needs: {one_line(error.strerror or error)}") from error
        except (tifffile.TiffFileError, ValueError, IndexError, struct.error) as error:
            raise UserError(
                f"{other}, which {path} needs, is not a TIFF, or is damaged; copy the file again"
            ) from error
        if damaged:
            raise UserError(f"{other}, which {path} needs, is damaged; copy the file again")


def _stack_of_file(file: tifffile.TiffFile, request: ReadRequest, image: OmeTiffImage | None) -> ImageStack:
    path = request.path
    if _is_cut_off(file):
        raise UserError(f"{path} ends early, pages are missing; copy the file again")
    try:
        series = file.series[0]
    except IndexError as error:
        raise UserError(f"{path} holds no image; check the file") from error
    except (KeyError, ValueError) as error:
        if image is None:
            raise
        raise UserError(
            f"the OME-XML in {path} is wrong or incomplete; save the image again, for example with Fiji"
        ) from error
    if series.kind in PLAIN_KINDS and (file.is_imagej or (image is not None and image.describes_planes)):
        whose = "ImageJ's description" if image is None else "the OME-XML"
        raise UserError(
            f"{whose} in {path} does not fit its pages: it was cut off, or changed by another program; "
            "copy it again, or save it again with the program that wrote it"
        )
    if len(file.series) > 1 and series.kind in (*PLAIN_KINDS, "shaped"):
        time_point(None, request.time, path)
        return _stack_of_pages(file, path, labels=request.labels)
    placement = stated_placement(file) if image is None else image.placement
    axes, alpha = tiff_axes(series, path, wanted=request.axes, labels=request.labels, alone=request.alone)
    sizes = dict(zip(axes, series.shape, strict=True))
    time = time_point(sizes.get("t"), request.time, path, axes)
    of_several = image is not None and image.xml is not None
    check_planes(file, series, path, axes=axes, time=time, of_several=of_several)
    values, notes = pixel_values(file, list(series), path)
    keyframe = series.keyframe
    if request.labels and keyframe.compression in JPEG:
        raise lossy_labels(path)
    about: dict[str, Any] = {
        "name": path.name,
        "path": path,
        "placement": placement,
        "pyramid_levels": len(series.levels),
        "level_shapes": _level_shapes(series.levels, axes),
        "notes": notes,
    }
    array = _array_of(series)
    chunks = None
    if keyframe.is_tiled:
        chunk = segment_shape(keyframe)
        chunks = [chunk[axis.upper()] if axis in "yx" else 1 for axis in axes if axis != "s"]
    elif isinstance(array, TiffPages):
        about["sections_at_once"] = array.sections_at_once(sizes.get("c", 1))
    if "s" in axes:
        array, axes = _merge_samples(array, axes)
    if values is not None:
        array = ValuesOf(array, values)
    stack = stack_of_array(array, axes, time=request.time, alpha=alpha, labels=request.labels, chunks=chunks, **about)
    if request.axes is not None:
        stack.selection["axes"] = request.axes
    return stack


def _array_of(series: tifffile.TiffPageSeries) -> Any:
    """A series' pixels, read where they are indexed."""
    keyframe = series.keyframe
    offset = None if series.is_multifile else series.dataoffset
    if offset is not None and keyframe.is_memmappable:
        dtype = np.dtype(series.dtype).newbyteorder(keyframe.parent.byteorder)
        return np.memmap(file_of(keyframe), dtype, "r", offset, tuple(series.shape))
    prepare_decoders(list(series))
    leading = series.shape[: len(series.shape) - len(keyframe.shape)]
    by_page = series.shape[len(leading) :] == keyframe.shape and math.prod(leading) == len(series)
    if by_page and keyframe.axes in ("YX", "YXS", "SYX"):
        return TiffPages(list(series), keyframe, tuple(series.shape), np.dtype(series.dtype))
    return series.asarray()  # pages of more than one plane: nothing to be had by laziness


def _level_shapes(levels: Sequence[tifffile.TiffPageSeries], axes: Sequence[str]) -> list[tuple[int, int, int]]:
    """Shapes (z, y, x) of a series' levels, as far as they have its axes."""
    shapes = []
    for level in levels:
        if len(level.shape) != len(axes):
            break
        sizes = dict(zip(axes, level.shape, strict=True))
        shapes.append((sizes.get("z", 1), sizes["y"], sizes["x"]))
    return shapes


def _merge_samples(array: Any, axes: list[str]) -> tuple[Array, list[str]]:
    """Channels of RGB samples each: one channel axis, read whole (rare)."""
    whole = np.asarray(array[(slice(None),) * len(axes)])
    whole = np.moveaxis(whole, (axes.index("c"), axes.index("s")), (0, 1))
    rest = [axis for axis in axes if axis not in "cs"]
    return whole.reshape(-1, *whole.shape[2:]), ["c", *rest]


def _stack_of_pages(file: tifffile.TiffFile, path: Path, *, labels: bool) -> ImageStack:
    """Pages of different sizes: one section each."""
    pages = [page for page in (frame.aspage() for frame in file.pages) if not page.is_reduced]
    kinds = {(page.axes, page.dtype, page.shape[2:]) for page in pages}
    stacked = any(series.kind == "shaped" and len(series.shape) > len(series.keyframe.shape) for series in file.series)
    if len(kinds) > 1 or not pages or pages[0].axes not in ("YX", "YXS") or stacked:
        raise UserError(f"{path} holds images of different kinds; save each in a file of its own")
    check_extents(pages, path)
    prepare_decoders(pages)
    values, notes = pixel_values(file, pages, path)
    samples = pages[0].shape[2] if pages[0].axes == "YXS" else 1
    alpha = samples in (2, 4) and bool(pages[0].extrasamples)
    axes = ["y", "x", "c"][: len(pages[0].axes)]
    erased = str(path) if alpha and labels else None
    sources = [ArraySource(_page_array(page, values), axes, 0, samples - alpha, erased) for page in pages]
    return ImageStack(
        _PagesSource(sources),
        name=path.name,
        path=path,
        shapes=[(page.shape[0], page.shape[1]) for page in pages],
        channels=samples - alpha,
        dtype=np.dtype(pages[0].dtype) if values is None else values.dtype,
        notes=notes,
    )


def _page_array(page: tifffile.TiffPage, values: PixelValues | None) -> Any:
    array = TiffPages([page], page.keyframe, tuple(page.shape), np.dtype(page.dtype))
    return array if values is None else ValuesOf(array, values)


@dataclass
class _PagesSource(PixelSource):
    """Sections with a source each."""

    sources: Sequence[PixelSource]

    def read(self, z: slice, y: slice, x: slice) -> Array:
        return np.concatenate([self.sources[i].read(slice(0, 1), y, x) for i in range(z.start, z.stop)], axis=1)

    def files(self) -> Sequence[Path]:
        return list(dict.fromkeys(file for source in self.sources for file in source.files()))


def _goes_in_circles(file: tifffile.TiffFile) -> bool:
    """Whether more pages are found than the file has room for; each would be opened, for hours, until memory ends.

    Counting comes first in any case: tifffile notices circles when it counts pages, not when it goes through them.
    """
    layout = file.tiff
    smallest = layout.tagnosize + layout.tagsize + layout.offsetsize
    return len(file.pages) * smallest > file.filehandle.size


def _is_cut_off(file: tifffile.TiffFile) -> bool:
    """Whether the file is incomplete: its last page points to another one, or its description lies beyond its end."""
    layout, last = file.tiff, len(file.pages) - 1
    handle = file.filehandle
    tags = _raw_tags(file, file.pages[last].offset)
    handle.seek(file.pages[last].offset + layout.tagnosize + tags.nbytes)
    following: tuple[int] = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    if following[0] != 0:
        return True
    numbers = _raw_tags(file, file.pages[0].offset)[:, :2].copy().view(np.dtype(np.uint16).newbyteorder(file.byteorder))
    # tifffile drops a tag whose value is not there.
    return _DESCRIPTION in numbers and _DESCRIPTION not in file.pages[0].aspage().tags


def _raw_tags(file: tifffile.TiffFile, page: int) -> npt.NDArray[np.uint8]:
    """The entries of a page's directory, ``(tags, bytes of an entry)``."""
    handle, layout = file.filehandle, file.tiff
    handle.seek(page)
    (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    return np.frombuffer(handle.read(count * layout.tagsize), np.uint8).reshape(count, layout.tagsize)


FORMAT = Format(
    "TIFF",
    open_tiff,
    suffixes=TIFF_SUFFIXES,
    magic=((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
    is_section=True,
)
