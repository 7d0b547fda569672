"""NIfTI files as nibabel writes them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="the extra formats is not installed")

from damaged_files import damaged  # noqa: E402
from napari_autosegnet.data.images import open_image, open_labels  # noqa: E402
from napari_autosegnet.data.readers import nifti  # noqa: E402
from napari_autosegnet.errors import UserError  # noqa: E402

#: (x, y, z), as NIfTI has them.
PIXELS = np.random.default_rng(0).integers(-1000, 1000, (30, 20, 4)).astype(np.int16)


def write(path: Path, pixels: np.ndarray = PIXELS, unit: str = "mm", version: int = 1, **header: Any) -> Path:
    turned = np.array([[0, -0.5, 0, 7], [0.4, 0, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])
    file = (nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image)(pixels, turned)
    file.header.set_xyzt_units(unit, "sec")
    for name, number in header.items():
        file.header[name] = number
    nibabel.save(file, path)
    return path


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_sections_scale_and_unit(tmp_path: Path, suffix: str, version: int) -> None:
    units = {"mm": "millimeter", "micron": "micrometer", "meter": "meter", "unknown": None}
    for dtype, (unit, name) in zip(("i2", "u1", "f4", "f8"), units.items(), strict=True):
        pixels = PIXELS.astype(dtype)
        stack = open_image(write(tmp_path / f"a.{suffix}", pixels, unit, version))
        assert (stack.name, stack.shape, stack.dtype, stack.is_2d) == ("a", (4, 20, 30), np.dtype(dtype), False)
        assert stack.scale == (2, 0.5, 0.4) and stack.unit == name and stack.translation == (0, 0, 0)
        assert list(stack.files) == [tmp_path / f"a.{suffix}"] and not stack.notes
        np.testing.assert_array_equal(stack.section(2)[0], pixels[:, :, 2].T)
        np.testing.assert_array_equal(stack.read(*[slice(1, 3)] * 3)[0], pixels[1:3, 1:3, 1:3].T)
    (tmp_path / f"a.{suffix}").rename(tmp_path / "volume")
    if suffix == "nii":  # told by its first bytes
        assert open_image(tmp_path / "volume").shape == (4, 20, 30)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_numbers_mean_what_the_header_says(tmp_path: Path, suffix: str) -> None:
    for slope, intercept, dtype in ((1.0, -1024.0, np.int32), (2.0, 0.0, np.int32), (0.5, 3.0, np.float32)):
        path = tmp_path / f"a.{suffix}"
        file = nibabel.Nifti1Image(PIXELS, np.eye(4))
        file.header.set_slope_inter(slope, intercept)
        nibabel.save(file, path)
        stack = open_image(path)
        expected = np.asarray(nibabel.load(path).dataobj)[:, :, 1].T
        assert stack.dtype == dtype and expected.dtype == np.float64
        np.testing.assert_allclose(stack.section(1)[0], expected, rtol=1e-6)
        assert list(stack.files) == [path]


def test_planes_series_and_channels(tmp_path: Path) -> None:
    plane = open_labels(write(tmp_path / "plane.nii", PIXELS[:, :, 0]))
    assert plane.is_2d and plane.scale[1:] == (0.5, 0.4)
    series = np.stack([PIXELS, PIXELS + 1], axis=3)
    path = write(tmp_path / "series.nii", series)
    with pytest.raises(UserError, match="has 2 time points"):
        open_image(path)
    np.testing.assert_array_equal(open_image(path, time=1).section(3)[0], series[:, :, 3, 1].T)
    channels = open_image(write(tmp_path / "channels.nii", series[:, :, :, None]), time=0)
    assert channels.channels == 2
    np.testing.assert_array_equal(channels.section(3)[1], series[:, :, 3, 1].T)


def test_what_is_damaged_or_too_large_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in ("nii", "nii.gz"):
        path = write(tmp_path / f"a.{suffix}")
        whole = path.read_bytes()
        refused = 0
        for content in damaged(whole, cut_at=(0, 1, 100, 340, len(whole) // 2, len(whole) - 1), header=352):
            path.write_bytes(content)
            try:
                open_image(path, time=0).section(0)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and path.name in str(error), error
        assert refused > 5
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=r"is shorter than|cannot read .*a\.nii\.gz"):
            open_image(path).section(0)
    # What was decompressed is compared with its checksum.
    path.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    with pytest.raises(UserError, match=r"cannot read .*CRC"):
        open_image(path).section(0)
    path.write_bytes(gzip.compress(b"text" * 200))
    with pytest.raises(UserError, match="is not a NIfTI file, or is damaged"):
        open_image(path)
    monkeypatch.setattr(nifti, "KEPT_BYTES", 1000)
    with pytest.raises(UserError, match=r"takes 0\.0 GiB when it is decompressed; decompress it first \(gunzip\)"):
        open_image(write(path))
    colors = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UserError, match="whole or real numbers"):
        open_image(write(tmp_path / "colors.nii", colors))
