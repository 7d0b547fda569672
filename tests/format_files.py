"""Images in every format that is read, as other programs and their libraries write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import tifffile
import zarr

import digital_micrograph_files
import tensor_files

#: Where they lie in the dataset, x, y, z.
_PLACE = [32, 0, 2]


def webknossos_layer(root: Path, name: str, pixels: np.ndarray, kind: Any = "zarr3", **more: Any) -> dict[str, Any]:
    """A layer of pixels (c, z, y, x) in two magnifications; returns what its dataset says of it."""
    turned = np.pad(pixels, ((0, 0), (2, 1), (0, 24), (32, 14))).transpose(0, 3, 2, 1)
    for folder, step in (("2-2-1", 2), ("1", 1)):
        about: Any = {"dimension_names": ["c", "x", "y", "z"]} if kind == "zarr3" else {}
        data = turned[:, ::step, ::step]
        zarr.create_array(
            root / name / folder, data=data, chunks=(len(data), 16, 16, 4), zarr_format=3 if about else 2, **about
        )
    depth, height, width = pixels.shape[1:]
    return {
        "name": name,
        "category": "color",
        "boundingBox": {"topLeft": _PLACE, "width": width, "height": height, "depth": depth},
        "elementClass": str(pixels.dtype),
        "dataFormat": kind,
        "mags": [{"mag": [2, 2, 1], "path": f"./{name}/2-2-1"}, {"mag": [1, 1, 1], "path": f"./{name}/1"}],
        **more,
    }


def write_webknossos(root: Path, *layers: Any, scale: Any = None) -> Path:
    about = {"id": {"name": "a", "team": ""}, "version": 1, "scale": scale or {"factor": [4, 5, 40]}}
    (root / "datasource-properties.json").write_text(json.dumps({**about, "dataLayers": layers}))
    return root


def write_lsm(path: Path, pixels: np.ndarray, steps: Sequence[float] = (4e-8, 5e-9, 4e-9)) -> None:
    """Sections (z, y, x) or (z, c, y, x) as Zeiss writes them: after each a thumbnail, sizes in a tag of its own."""
    fields = [(name or f"reserved{place}", kind) for place, (name, kind) in enumerate(tifffile.TIFF.CZ_LSMINFO)]
    about: Any = np.zeros(1, np.dtype(fields).newbyteorder("<"))
    about["MagicNumber"], about["StructureSize"] = 0x00400494C, about.nbytes
    for axis, size, step in zip("ZYX", (len(pixels), *pixels.shape[-2:]), steps, strict=True):
        about[f"Dimension{axis}"], about[f"VoxelSize{axis}"] = size, step  # in meters
    about["DimensionChannels"] = 1 if pixels.ndim == 3 else pixels.shape[1]
    about["DimensionTime"] = 1
    tag = (34412, 1, about.nbytes, about.tobytes(), True)
    planar: Any = {} if pixels.ndim == 3 else {"planarconfig": "separate"}
    with tifffile.TiffWriter(path) as file:
        for number, section in enumerate(pixels):
            tags = [tag] if number == 0 else []
            file.write(section, metadata=None, photometric="minisblack", extratags=tags, **planar)
            file.write(np.zeros((16, 16, 3), np.uint8), metadata=None, photometric="rgb", subfiletype=1)


def written_by_others(folder: Path, pixels: np.ndarray) -> Iterator[Path]:
    """Files with the same signed bytes, 4 Å each way."""
    with mrcfile.new(folder / "image.mrc", pixels) as file:
        file.voxel_size = 4.0
    yield folder / "image.mrc"
    with h5py.File(folder / "image.h5", "w") as file:
        dataset = file.create_dataset("volumes/raw", data=pixels, chunks=(2, 32, 32), compression="gzip")
        dataset.attrs.update({"resolution": (4.0, 4.0, 4.0), "units": "angstrom"})
        file["volumes/other"] = pixels
    yield folder / "image.h5:/volumes/raw"
    about = {"axes": "ZYX", **{f"PhysicalSize{axis}": 4.0 for axis in "XYZ"}}
    about |= {f"PhysicalSize{axis}Unit": "Å" for axis in "XYZ"}
    packed: Any = {"photometric": "minisblack", "compression": "zlib", "metadata": about}
    tifffile.imwrite(folder / "image.ome.tif", pixels, **packed)
    yield folder / "image.ome.tif"
    tifffile.imwrite(folder / "image.ome.btf", pixels, bigtiff=True, **packed)
    yield folder / "image.ome.btf"
    write_lsm(folder / "image.lsm", pixels, (4e-10, 4e-10, 4e-10))
    yield folder / "image.lsm"
    np.save(folder / "image.npy", pixels)
    yield folder / "image.npy"
    shutil.make_archive(str(folder / "image"), "zip", folder / "image.ome.zarr")
    yield (folder / "image.zip").rename(folder / "image.ome.zarr.zip")
    if find_spec("ncempy") is not None:
        kind, encoded = digital_micrograph_files.KINDS["i1"]
        content = digital_micrograph_files.image(pixels, 4, kind, encoded, 4.0, "Å")
        yield digital_micrograph_files.write(folder / "image.dm4", 4, content)
    if find_spec("nibabel") is not None:
        import nibabel

        nifti = nibabel.Nifti1Image(pixels.T, np.diag([0.0004, 0.0004, 0.0004, 1]))
        nifti.header.set_xyzt_units("micron")
        for ending in ("nii", "nii.gz"):
            nibabel.save(nifti, folder / f"image.{ending}")
            yield folder / f"image.{ending}"
    if find_spec("tensorstore") is not None:
        nanometers = {"resolution": [0.4] * 3}
        yield tensor_files.write_n5(folder / "image.n5", pixels, **nanometers, units=["nm"] * 3)
        yield tensor_files.write_precomputed(folder / "image.precomputed", pixels[None], **nanometers)
        root = folder / "image-webknossos"
        yield write_webknossos(root, webknossos_layer(root, "color", pixels[None]), scale=[0.4] * 3)
