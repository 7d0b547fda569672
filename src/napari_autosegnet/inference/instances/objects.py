"""Objects with numbers of their own, from class probabilities: seeds, their numbers, and what grows from them.

A seed is a connected part of what is at least some pixels away from every boundary. Whether a voxel belongs to one
depends on its neighborhood alone, so seeds are the same whatever the blocks, and parts of one that lie in several
blocks are joined over the blocks' faces. Then every block is flooded from the seeds in and around it (watershed of
the boundary probability); only there, and only where a flood comes from farther away than the surroundings that
are read, can the result depend on the blocks. At last, fragments with no boundary between them are merged (`merging`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from napari_autosegnet.data.annotations import BOUNDARY_WORDS, ClassInfo
from napari_autosegnet.data.stack import ImageStack
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.blocks import Box, Shape
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import unit_symbol

#: Words in the names of classes that hold no objects.
NO_OBJECTS = (*BOUNDARY_WORDS, "background", "outside")
#: A voxel whose boundary probability (of 255) is less belongs to an object.
INSIDE = 128
#: Objects are one where the mean boundary probability (of 1) between them is less (docs/how-to/volumes.md).
MERGED = 0.2
#: Sides (z, y, x) of what is flooded at once; they bound the memory.
TILE: Shape = (128, 256, 256)
#: Objects grow section by section where these are more pixels apart (docs/how-to/instances.md).
COARSE = 3.0
#: Pixels that nothing reaches over.
FAR = 1e6
#: Surroundings that a flood may come from, in pixels.
FLOOD = 48

Ids = npt.NDArray[np.uint32]


def object_classes(classes: Sequence[ClassInfo], wanted: Sequence[str] | None) -> tuple[int, ...]:
    """Indices of the classes whose objects are numbered: those named, or all but background and boundaries.

    Raises
    ------
    UserError
        When there is no such class, or nothing tells objects from their boundaries.
    """
    names = [info.name for info in classes]
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise UserError(f"the model has no class '{unknown[0]}'; --instance-classes takes some of {', '.join(names)}")
    if wanted:
        chosen = [names.index(name) for name in wanted]
    else:
        chosen = [n for n, name in enumerate(names) if not any(word in name.lower() for word in NO_OBJECTS)]
    if not 0 < len(chosen) < len(names):
        raise UserError(
            f"it is not clear which of the classes {', '.join(names)} are objects and which lie between them; "
            "name those with objects, for example --instance-classes cell"
        )
    return tuple(sorted(chosen))


def boundary_probability(scores: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What the object classes (c, z, y, x) leave of 255."""
    inside = scores.astype(np.uint16).sum(axis=0)
    boundary: npt.NDArray[np.uint8] = (255 - np.minimum(inside, 255)).astype(np.uint8)
    return boundary


def merging_below(classes: Sequence[ClassInfo], objects: Sequence[int], wanted: float | None) -> float:
    """Mean boundary probability (0 to 1) below which objects that meet are one; 0 if they stay apart.

    What is wanted or else, where a class is a boundary, `MERGED`. Without one, objects that touch have nothing between
    them, and only their shape tells them apart.
    """
    if wanted is not None:
        return wanted
    others = [info.name.lower() for index, info in enumerate(classes) if index not in objects]
    return MERGED if any(word in name for name in others for word in BOUNDARY_WORDS) else 0.0


def grow_by_section(image: ImageStack, settings: PredictSettings) -> bool:
    """Whether objects grow in each section alone and are linked then, rather than through the volume.

    As the settings say; else where sections are far apart (`COARSE`), or the image says nothing of its voxels.
    """
    if settings.instance_growth != "auto":
        return settings.instance_growth == "sections"
    if settings.planes == "all":
        return False
    return image.voxels_are_unknown or sampling(image.scale)[0] > COARSE


def describe_growth(image: ImageStack, settings: PredictSettings) -> str:
    """How the objects of a volume grow, and why.

    ``sections are 50 nm apart, pixels 4 nm: objects grow in each section and are linked``.
    """
    how = "in each section and are linked" if grow_by_section(image, settings) else "through the volume (3D)"
    chosen = settings.instance_growth != "auto"
    if image.voxels_are_unknown:
        known = f"{image.path or image.name} says nothing of its voxels"
        other = "" if chosen or settings.planes == "all" else "; if these are cubes, let them grow through the volume"
    else:
        unit = f" {unit_symbol(image.unit)}" if image.unit else ""
        z, _, x = (abs(side) for side in image.scale)
        known, other = f"sections are {z:.4g}{unit} apart, pixels {x:.4g}{unit}", ""
    if chosen:
        return f"{known}; as chosen, objects grow {how}"
    seen = ", and the network sees three planes" if settings.planes == "all" else ""
    return f"{known}{seen}: objects grow {how}{other}"


def describe_merging(classes: Sequence[ClassInfo], settings: PredictSettings) -> str:
    """Which of the fragments that grow become one object.

    Raises
    ------
    UserError
        As `object_classes`.
    """
    objects = object_classes(classes, settings.instance_classes)
    below = merging_below(classes, objects, settings.instance_merge)
    if below == 0:
        return "fragments that touch are not merged: only their shape tells them apart"
    names = [info.name for index, info in enumerate(classes) if index not in objects]
    return f"fragments merge where {' or '.join(names)} between them is less probable than {below:g}"


def seed_mask(
    boundary: npt.NDArray[np.uint8], distance: float, sampling: Sequence[float], sure: float = 0.0
) -> npt.NDArray[np.bool_]:
    """Voxels (z, y, x) at least ``distance`` pixels from every voxel that may be one of a boundary.

    Its probability (0 to 1) there is ``sure`` or more; half, if that is 0.
    """
    from scipy.ndimage import distance_transform_edt

    inside = boundary < (255 * sure or INSIDE)
    if inside.all():
        return inside  # no boundary in reach; scipy has no answer to that
    if not inside.any():
        return inside
    seeds: npt.NDArray[np.bool_] = distance_transform_edt(inside, sampling=sampling) >= distance
    return seeds


def neighbors(by_section: bool) -> npt.NDArray[np.bool_]:
    """Voxels (3, 3, 3) around one that touch it: over faces, of its own section alone with ``by_section``."""
    from scipy.ndimage import generate_binary_structure

    structure: npt.NDArray[np.bool_] = generate_binary_structure(3, 1)
    if by_section:
        structure[[0, 2]] = False
    return structure


def label_seeds(mask: npt.NDArray[np.bool_], *, by_section: bool = False) -> Ids:
    """Number the connected parts of a block's seeds from 1."""
    from scipy.ndimage import label

    numbered: Ids = label(mask, structure=neighbors(by_section))[0].astype(np.uint32)
    return numbered


def contacts(one: Ids, other: Ids) -> npt.NDArray[np.int64]:
    """Pairs (n, 2) of seeds that touch across a face, given the two planes of voxels beside it."""
    both = (one > 0) & (other > 0)
    pairs: npt.NDArray[np.int64] = np.unique(
        np.stack([one[both].astype(np.int64), other[both].astype(np.int64)], axis=1), axis=0
    )
    return pairs


def joined(count: int, pairs: npt.NDArray[np.int64]) -> Ids:
    """Number of the object of every part 0..count, where parts in contact are one; part 0 is no object."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count + 1, count + 1))
    # Numbered by their first part, so 0, which touches nothing, stays 0.
    component: Ids = connected_components(graph, directed=False)[1].astype(np.uint32)
    return component


def flood(boundary: npt.NDArray[np.uint8], seeds: Ids, *, by_section: bool = False) -> Ids:
    """Grow seeds (z, y, x) through all voxels inside, the most likely boundaries last."""
    from skimage.segmentation import watershed

    numbers, compact = np.unique(seeds, return_inverse=True)
    if numbers[0] != 0:
        numbers, compact = np.concatenate([[0], numbers]), compact + 1
    if len(numbers) == 1:
        return np.zeros(seeds.shape, np.uint32)
    markers = compact.reshape(seeds.shape).astype(np.int32)
    basins = watershed(  # type: ignore[no-untyped-call]
        boundary, markers, connectivity=neighbors(by_section), mask=boundary < INSIDE
    )
    result: Ids = numbers.astype(np.uint32)[basins]
    return result


def tiles_of(core: Box, sides: Shape = TILE) -> Iterator[Box]:
    """Parts of a block, no larger than ``sides``."""
    z, y, x = (
        [(start, min(start + side, span[1])) for start in range(*span, side)]
        for span, side in zip(core, sides, strict=True)
    )
    return product(z, y, x)


def grown(core: Box, margin: Shape, shape: Shape) -> Box:
    """A box with its surroundings, cut at the volume's borders."""
    z, y, x = (
        (max(0, span[0] - more), min(size, span[1] + more))
        for span, more, size in zip(core, margin, shape, strict=True)
    )
    return z, y, x


def within(core: Box, box: Box) -> tuple[slice, slice, slice]:
    """Where a box lies inside a larger one."""
    z, y, x = (slice(a[0] - b[0], a[1] - b[0]) for a, b in zip(core, box, strict=True))
    return z, y, x


def sampling(scale: Sequence[float], *, by_section: bool = False) -> tuple[float, float, float]:
    """Size of a voxel (z, y, x) in pixels of x; sections are out of each other's reach with ``by_section``."""
    z, y, x = (abs(side) for side in scale)
    if min(z, y, x) == 0:
        z, y, x = 1.0, 1.0, 1.0
    return FAR if by_section else z / x, y / x, 1.0
