"""What the OME-XML of a TIFF says: which image it is, in which files its planes lie, how large a voxel is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from napari_autosegnet.data.readers.tiff_pages import TIFF_SUFFIXES
from napari_autosegnet.errors import UserError, one_line
from napari_autosegnet.plain_text import listed
from napari_autosegnet.units import Placement, in_one_unit, positive

#: Names of the pictures that slide scanners put beside the image.
_ASSOCIATED = re.compile(r"\b(label|macro|thumbnail|overview|barcode)\b", re.IGNORECASE)


@dataclass(frozen=True)
class OmeTiffImage:
    """The image that an OME-TIFF stands for.

    Attributes
    ----------
    files : tuple of Path
        Where its planes lie.
    placement : Placement
        Size of a voxel and its unit.
    xml : str or None
        Its description alone, where the file's own describes more, or is elsewhere.
    describes_planes : bool
        It says which page is which plane, and of files that are there.
    """

    files: tuple[Path, ...]
    placement: Placement
    xml: str | None
    describes_planes: bool


def ome_tiff_image(path: Path, text: str) -> OmeTiffImage:
    """The one image of an OME-TIFF with the OME-XML ``text``.

    Of several it is the only one with planes in this very file: microscopes write a file for each position, and
    describe all of them in each. Label, macro and thumbnail of a slide do not count.

    Raises
    ------
    UserError
        When the description is damaged, there are several images, or files of it are missing.
    """
    root = _parsed(text, path)
    identity = root.get("UUID")
    pointer = next(_children(root, "BinaryOnly"), None)
    if pointer is not None:
        root = _description_elsewhere(path, pointer)
    described = list(_children(root, "Image"))
    with_planes = [image for image in described if any(True for _ in _planes(image))]
    image = _choose(with_planes or described, path, identity)
    if image is None:
        return OmeTiffImage((path,), Placement(), None, describes_planes=False)
    files = _files(image, path, identity)
    missing = [file.name for file in files if not file.is_file()]
    # Where none is there, the description is a copy of another file's and says nothing of this one.
    if missing and len(missing) < len(files):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{path} is one of {len(files)} files of an image, of which {missing[0]}{more} is missing; "
            "put all of them into one folder"
        )
    for other in described:
        if other is not image:
            root.remove(other)
    changed = pointer is not None or len(described) > 1
    xml = ElementTree.tostring(root, encoding="unicode") if changed else None
    return OmeTiffImage(files, _placement(image), xml, describes_planes=bool(with_planes) and len(missing) < len(files))


def _parsed(content: str | bytes, path: Path) -> Element:
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(
            f"the OME-XML in {path} is ill-formed ({one_line(error)}); save the image again, for example with Fiji"
        ) from error


def _description_elsewhere(path: Path, pointer: Element) -> Element:
    """OME-XML of a file that holds nothing but planes."""
    name = pointer.get("MetadataFile") or ""
    file = path.parent / name
    if not name or not file.is_file():
        raise UserError(
            f"{path} holds planes of an image that {name or 'another file'} describes, which is missing; "
            "put it into the same folder"
        )
    if file.suffix.lower() in TIFF_SUFFIXES:
        raise UserError(f"{path} holds planes of the image {file}; give that file instead")
    return _parsed(file.read_bytes(), file)


def _choose(images: Sequence[Element], path: Path, identity: str | None) -> Element | None:
    real = [image for image in images if not _ASSOCIATED.search(image.get("Name", ""))] or list(images)
    if len(real) > 1:
        here = [image for image in real if path in _files(image, path, identity)]
        if len(here) != 1:
            names = [image.get("Name") or str(number) for number, image in enumerate(real)]
            raise UserError(
                f"{path} holds {len(real)} images ({listed(names, 8)}); save the one that you want in a file of its own"
            )
        real = here
    return real[0] if real else None


def _files(image: Element, path: Path, identity: str | None) -> tuple[Path, ...]:
    """Files with planes of an image, in the order of the planes; ``path`` has the UUID ``identity``."""
    files: dict[Path, None] = {}
    for planes in _planes(image):
        named = next(_children(planes, "UUID"), None)
        name = path.name if named is None or named.text == identity else named.get("FileName", "")
        files[path if name.lower() == path.name.lower() else path.parent / name] = None
    return tuple(files) or (path,)


def _placement(image: Element) -> Placement:
    pixels = next(_children(image, "Pixels"), None)
    about = {} if pixels is None else pixels.attrib
    sizes = [positive(about.get(f"PhysicalSize{axis}")) for axis in "ZYX"]
    return in_one_unit(sizes, [about.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"])


def _planes(image: Element) -> Iterator[Element]:
    for pixels in _children(image, "Pixels"):
        yield from _children(pixels, "TiffData")


def _children(element: Element, name: str) -> Iterator[Element]:
    """Children by name, whatever the version of the schema."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)
