"""Labels and masks of an image's shape that lie elsewhere, by what their metadata say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from napari_autosegnet.data.images import ImageStack, image_from_array
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.same_place import check_same_place
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.volume import predict_volume
from small_models import small_model

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 32, 48), dtype=np.uint8)
MARKS = (1 + (PIXELS > 120)).astype(np.uint8)


def write(
    group: zarr.Group, array: np.ndarray, scale: list[float], shift: list[float] | None, unit: str | None
) -> None:
    """One level of OME-Zarr 0.4 or 0.5."""
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "zyx"]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if shift is not None:
        steps.append({"type": "translation", "translation": shift})
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}], "version": "0.4"}
    about = {"multiscales": [image]}
    group.attrs.update(about if group.metadata.zarr_format == 2 else {"ome": {"version": "0.5", **about}})
    group.create_array("0", data=array)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("scale", "shift", "unit", "message"),
    [
        ([2.0, 0.5, 0.5], None, "micrometer", ""),
        ([2000.0, 500.0, 500.0], [0.0, 100.0, 0.0], "nanometer", ""),
        # The distance of sections is often lost; half a pixel is the corner of one instead of its middle.
        ([0.5, 0.5, 0.5], [0.0, 0.25, 0.25], "micrometer", ""),
        # What says nothing lies where the image does.
        ([1.0, 1.0, 1.0], None, None, ""),
        ([1.0, 1.0, 1.0], [0.0, 5.0, 10.0], "micrometer", ""),
        (
            [2.0, 0.5, 0.5],
            [0.0, 5.0, 10.0],
            "micrometer",
            r"labels .* are \+0, \+10, \+20 pixels \(z, y, x\) apart",
        ),
        ([2000.0, 500.0, 500.0], [-2000.0, 0.0, 0.0], "nanometer", r"are -1, \+0, \+0 pixels"),
        (
            [2.0, 0.25, 0.25],
            None,
            "micrometer",
            r"is 0\.5 x 0\.5 µm \(y x x\), of the labels .* 0\.25 x 0\.25 µm; give",
        ),
    ],
)
def test_labels_of_an_ome_zarr(
    zarr_format: Any, scale: list[float], shift: list[float] | None, unit: str | None, message: str, tmp_path: Path
) -> None:
    store = zarr.create_group(tmp_path / "s.zarr", zarr_format=zarr_format)
    write(store, PIXELS, [2.0, 0.5, 0.5], None, "micrometer")
    write(store.create_group("labels/cells"), MARKS, scale, shift, unit)
    for labels in ("labels/cells", "labels/cells/0"):
        if not message:
            (stack,) = open_labeled([tmp_path / "s.zarr"], [tmp_path / "s.zarr" / labels])
            assert (stack.target(1) == MARKS[1]).all()
            continue
        with pytest.raises(UserError, match=message) as raised:
            open_labeled([tmp_path / "s.zarr"], [tmp_path / "s.zarr" / labels])
        assert "\n" not in str(raised.value)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    """Fiji's mask of an OME-Zarr has its own words for the same place; a plain TIFF says nothing."""
    write(zarr.create_group(tmp_path / "s.zarr"), PIXELS, [2.0, 0.5, 0.5], [0.0, 7.0, 9.0], "micrometer")
    tifffile.imwrite(tmp_path / "plain.tif", MARKS, photometric="minisblack")
    fiji: dict[str, Any] = {"imagej": True, "metadata": {"spacing": 2.0, "unit": "micron", "axes": "ZYX"}}
    # It keeps the size of a pixel and loses the place.
    tifffile.imwrite(tmp_path / "same.tif", MARKS, resolution=(2.0, 2.0), **fiji)
    tifffile.imwrite(tmp_path / "half.tif", MARKS, resolution=(4.0, 4.0), **fiji)
    for labels in ("plain.tif", "same.tif"):
        assert open_labeled([tmp_path / "s.zarr"], [tmp_path / labels])[0].mapping.values == {1: 1, 2: 2}
    with pytest.raises(UserError, match=r"of the labels .*half\.tif 0\.25 x 0\.25 µm"):
        open_labeled([tmp_path / "s.zarr"], [tmp_path / "half.tif"])


def test_labels_of_a_program_that_knows_no_sizes(tmp_path: Path) -> None:
    """MRC has a size always: many programs write 1 angstrom."""
    for name, pixels, size in (("image", PIXELS, 8.0), ("labels", MARKS, 1.0), ("other", MARKS, 4.0)):
        with mrcfile.new(tmp_path / f"{name}.mrc") as file:
            file.set_data(pixels.astype(np.int16))
            file.voxel_size = size
    assert open_labeled([tmp_path / "image.mrc"], [tmp_path / "labels.mrc"])[0].mapping.values == {1: 1, 2: 2}
    with pytest.raises(UserError, match=r"is 8 x 8 Å \(y x x\), of the labels .*other\.mrc 4 x 4 Å"):
        open_labeled([tmp_path / "image.mrc"], [tmp_path / "other.mrc"])


def test_the_place_in_z_of_one_section_does_not_count() -> None:
    def section(z: float) -> ImageStack:
        return image_from_array(PIXELS[0], scale=(1.0, 0.5, 0.5), translation=(z, 3.0, 3.0))

    check_same_place(section(0.0), section(8.0), "the labels")


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    size, placed = (2, 64, 64), {"scale": (1.0, 0.5, 0.5)}
    image = image_from_array(np.zeros(size, np.uint8), **placed)
    mask = image_from_array(np.ones(size, np.uint8), name="tissue", translation=(0.0, 0.0, 16.0), **placed)
    with pytest.raises(UserError, match=r"the mask tissue are \+0, \+0, \+32 pixels"):
        predict_volume(small_model(), image, tmp_path / "out.zarr", mask=mask)
    assert not (tmp_path / "out.zarr").exists()
