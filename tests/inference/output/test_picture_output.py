"""Results as TIFF, MRC, HDF5, NIfTI and PNG: our reader and other libraries find the same values in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet.data.images import image_from_array, open_image, open_labels
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from remembered_events import Events

Noise = Callable[..., np.ndarray]
ALL = slice(None)
SETTINGS = PredictSettings(halo=4, tile=64)


def pillow_pages(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        pages = []
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            assert picture.mode == "L"
            pages.append(np.asarray(picture))
    return np.stack(pages)


@pytest.mark.parametrize("shape", [(40, 48), (1, 40, 48), (3, 40, 48), (4, 40, 48), (7, 40, 48)], ids=str)
def test_everybody_reads_the_same_labels(tmp_path: Path, model: Model, noise: Noise, shape: tuple[int, ...]) -> None:
    image = image_from_array(noise(*shape))
    predict_volume(model, image, tmp_path / "out.zarr", SETTINGS)
    expected = open_labels(tmp_path / "out.zarr" / "labels" / "segmentation").read(ALL, ALL, ALL)[0]
    out = tmp_path / "out.tif"
    predict_volume(model, image, out, SETTINGS)
    found = open_labels(out)
    assert (found.dtype, found.channels, found.is_2d) == (np.uint8, 1, image.sections == 1)
    np.testing.assert_array_equal(found.read(ALL, ALL, ALL)[0], expected)
    np.testing.assert_array_equal(tifffile.imread(out).reshape(expected.shape), expected)
    np.testing.assert_array_equal(pillow_pages(out), expected)
    if image.sections == 1:
        predict_volume(model, image, tmp_path / "out.png", SETTINGS)
        np.testing.assert_array_equal(pillow_pages(tmp_path / "out.png"), expected)
        np.testing.assert_array_equal(open_labels(tmp_path / "out.png").section(0), expected)


@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48), (5, 40, 48)], ids=str)
def test_everybody_reads_the_same_probabilities(
    tmp_path: Path, model: Model, noise: Noise, shape: tuple[int, ...]
) -> None:
    image = image_from_array(noise(*shape))
    settings = SETTINGS.model_copy(update={"probabilities": True})
    predict_volume(model, image, tmp_path / "out.zarr", settings)
    expected = open_image(tmp_path / "out.zarr" / "probabilities").read(ALL, ALL, ALL)
    predict_volume(model, image, tmp_path / "out.tif", settings)
    scores = tmp_path / "out-probabilities.tif"
    found = open_image(scores)
    assert (found.channels, found.is_2d) == (len(model.classes), image.is_2d)
    np.testing.assert_array_equal(found.read(ALL, ALL, ALL), expected)
    np.testing.assert_array_equal(tifffile.imread(scores).reshape(expected.shape), expected)
    np.testing.assert_array_equal(pillow_pages(scores).reshape(expected.shape), expected)


@pytest.mark.parametrize(
    ("ending", "unit"), [("tif", "nm"), ("tif", "Å"), ("mrc", "nm"), ("h5", "nm"), ("h5", "µm"), ("nii", "µm")]
)
def test_the_size_of_a_voxel_comes_back(tmp_path: Path, model: Model, noise: Noise, ending: str, unit: str) -> None:
    if ending == "nii":
        pytest.importorskip("nibabel", reason="the extra formats is not installed")
    about = {"axes": "ZYX"}
    for axis, step in zip("ZYX", (40.0, 4.0, 5.0), strict=True):
        about |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": unit}  # type: ignore[dict-item]
    tifffile.imwrite(tmp_path / "in.ome.tif", noise(3, 40, 48), metadata=about)
    image = open_image(tmp_path / "in.ome.tif")
    predict_volume(model, image, tmp_path / f"out.{ending}", SETTINGS)
    found = open_labels(tmp_path / f"out.{ending}")
    assert (found.scale, found.unit) == (((400, 40, 50), "angstrom") if ending == "mrc" else (image.scale, image.unit))


def by_another_library(path: Path) -> np.ndarray:
    """Pixels ([c,] [z,] y, x)."""
    if path.suffix == ".mrc":
        with mrcfile.open(path) as file:
            assert mrcfile.validate(path) and file.header.label[0] == b"napari-autosegnet"
            return np.array(file.data)
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            (dataset,) = file.values()
            assert dataset.name == ("/probabilities" if "prob" in path.name else "/labels")
            return np.array(dataset)
    nibabel = pytest.importorskip("nibabel", reason="the extra formats is not installed")
    image = nibabel.load(path)
    assert image.header["intent_code"] == (0 if "prob" in path.name else 1002)
    return np.squeeze(np.asarray(image.dataobj).T)


@pytest.mark.parametrize(
    ("ending", "shape"), [(ending, (3, 40, 48)) for ending in ("mrc", "h5", "nii", "nii.gz")] + [("h5", (40, 48))]
)
def test_a_stopped_result_in_a_file_goes_on_and_other_libraries_read_it(
    tmp_path: Path, model: Model, noise: Noise, ending: str, shape: tuple[int, ...]
) -> None:
    if "nii" in ending:
        pytest.importorskip("nibabel", reason="the extra formats is not installed")
    image, out = image_from_array(noise(*shape)), tmp_path / f"out.{ending}"
    asked = {"block": (2, 16, 16), "probabilities": ending != "mrc"}
    settings = SETTINGS.model_copy(update=asked)
    predict_volume(model, image, tmp_path / "out.zarr", settings)
    events = Events()
    stop = partial(lambda events: len(events.of(BlockWritten)) > 3, events)
    assert predict_volume(model, image, out, settings, report=events, should_stop=stop).stopped
    predict_volume(model, image, out, settings, report=events)
    assert len(events.of(BlockWritten)) == len({block.index for block in events.of(BlockWritten)})
    if ending == "nii.gz":  # compressed when all of it is there, and the same again when a part was lost
        whole = out.read_bytes()
        assert whole[:2] == b"\x1f\x8b"
        lines = Path(f"{out}.ledger.jsonl").read_text().splitlines(keepends=True)
        Path(f"{out}.ledger.jsonl").write_text("".join(lines[:-2]))
        assert predict_volume(model, image, out, settings).done and out.read_bytes() == whole
    found = open_labels(out)
    assert (found.channels, found.is_2d) == (1, image.is_2d)
    expected = open_labels(tmp_path / "out.zarr").read(ALL, ALL, ALL)[0]
    np.testing.assert_array_equal(found.read(ALL, ALL, ALL)[0], expected)
    np.testing.assert_array_equal(by_another_library(out), np.squeeze(expected))
    del found
    if ending != "mrc":
        scores = tmp_path / f"out-probabilities.{ending}"
        expected = open_image(tmp_path / "out.zarr" / "probabilities").read(ALL, ALL, ALL)
        np.testing.assert_array_equal(open_image(scores, time=0).read(ALL, ALL, ALL), expected)
        np.testing.assert_array_equal(by_another_library(scores), np.squeeze(expected))
    # Somebody else's file is never overwritten, nor is a damaged one gone on with.
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not an unfinished result .*start again with --overwrite") as error:
        predict_volume(model, image, out, settings)
    assert "\n" not in str(error.value)
    (tmp_path / f"other.{ending}").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists and is not a result of this program"):
        predict_volume(model, image, tmp_path / f"other.{ending}", settings.model_copy(update={"overwrite": True}))
    assert (tmp_path / f"other.{ending}").read_bytes() == b"mine"


def test_labels_lie_where_their_image_does(tmp_path: Path, model: Model, noise: Noise) -> None:
    with mrcfile.new(tmp_path / "in.mrc", noise(3, 40, 48).astype(np.int16)) as file:
        file.voxel_size = 4.0
        file.header.origin, file.header.nxstart = (-8.0, 4.0, 400.0), 7
    predict_volume(model, open_image(tmp_path / "in.mrc"), tmp_path / "out.mrc", SETTINGS)
    with mrcfile.open(tmp_path / "out.mrc") as file:
        assert file.header.origin.tolist() == (-8, 4, 400) and file.header.nxstart == 7
    with pytest.raises(UserError, match="MRC cannot hold probabilities; give --out with .zarr"):
        predict_volume(
            model,
            open_image(tmp_path / "in.mrc"),
            tmp_path / "scores.mrc",
            SETTINGS.model_copy(update={"probabilities": True}),
        )
    nibabel = pytest.importorskip("nibabel", reason="the extra formats is not installed")
    turned = np.array([[0, -0.5, 0, 7], [0.4, 0, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(noise(3, 40, 48).T, turned)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "in.nii.gz")
    predict_volume(model, open_image(tmp_path / "in.nii.gz"), tmp_path / "out.nii", SETTINGS)
    found = nibabel.load(tmp_path / "out.nii")
    np.testing.assert_allclose(found.affine, turned, atol=1e-6)
    assert found.header.get_xyzt_units() == ("mm", "unknown") and found.get_data_dtype() == np.uint8
    with pytest.raises(UserError, match=r"cannot be written as \.gz; give --out with"):
        predict_volume(model, open_image(tmp_path / "in.nii.gz"), tmp_path / "out.gz", SETTINGS)
