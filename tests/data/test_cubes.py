from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.cli import app
from napari_autosegnet.data.cubes import Cubes
from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement


@pytest.mark.parametrize(("factor", "sections"), [(2.0, 9), (2.5, 11), (4.0, 17), (1.3, 6)])
def test_sections_between_are_interpolated(factor: float, sections: int) -> None:
    ramp = np.arange(5.0)[:, None, None] * 40 + np.zeros((5, 3, 4))
    cubes = Cubes(image_from_array(ramp.astype(np.uint8), scale=(factor * 10, 10, 10)))
    assert cubes.shape == (sections, 3, 4) and cubes.placement.scale == (10, 10, 10)
    values = [cubes.section(number)[0, 0, 0] for number in range(sections)]
    np.testing.assert_allclose(values, np.arange(sections) / factor * 40, atol=0.5)
    # The image's own sections are kept as they are.
    if factor in (2.0, 4.0):
        assert values[:: int(factor)] == ramp[:, 0, 0].tolist()


def test_types_and_channels_stay() -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, 4, 5, 2), dtype=np.uint16)
    cubes = Cubes(image_from_array(pixels, channel_axis=3, scale=(3, 1, 1)))
    found = np.stack([cubes.section(number) for number in range(7)])
    assert found.dtype == np.uint16 and found.shape == (7, 2, 4, 5)
    np.testing.assert_array_equal(found[::3], np.moveaxis(pixels, 3, 1))
    expected = np.rint(pixels[0] * (2 / 3) + pixels[1] * (1 / 3))
    np.testing.assert_array_equal(found[1], np.moveaxis(expected, 2, 0))


def test_the_command_writes_a_volume_that_lies_where_the_image_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 30), dtype=np.uint8)
    placement = Placement((20.0, 8.0, 8.0), (80.0, 0.0, 4.0), "nanometer")
    write_image(tmp_path / "in.ome.zarr", pixels.shape, pixels.dtype, pixels.__getitem__, placement=placement)
    words = ["resample", "--image", str(tmp_path / "in.ome.zarr"), "--out", str(tmp_path / "out.zarr")]
    assert app.run(words) == 0
    assert "4 sections became 8" in capsys.readouterr().err
    made = open_image(tmp_path / "out.zarr")
    assert (made.scale, made.translation, made.unit) == ((8.0, 8.0, 8.0), (80.0, 0.0, 4.0), "nanometer")
    assert made.shape == (8, 20, 30)
    np.testing.assert_array_equal(made.section(0)[0], pixels[0])
    np.testing.assert_array_equal(made.section(5)[0], pixels[2])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.ome.zarr", "out.zarr"]
    assert app.run(words) == 1
    assert "exists; choose another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "scale", "words", "message"),
    [
        ((4, 8, 8), (10.0, 10.0, 10.0), [], "as close as its pixels already"),
        ((4, 8, 8), (1.0, 1.0, 1.0), [], "give --factor"),
        ((4, 8, 8), (50.0, 10.0, 10.0), [], "at most 4 are bridged"),
        ((4, 8, 8), (20.0, 10.0, 5.0), [], "no squares"),
        ((1, 8, 8), (20.0, 10.0, 10.0), [], "one section"),
        ((4, 8, 8), (20.0, 10.0, 10.0), ["--factor", "nan"], "no number"),
        ((4, 8, 8), (20.0, 10.0, 10.0), ["--out", "out.tif"], "must end in .zarr"),
    ],
)
def test_what_cannot_be_made_cubes_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, int, int],
    scale: tuple[float, float, float],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    unit = None if scale == (1.0, 1.0, 1.0) else "nanometer"
    pixels = np.zeros(shape, np.uint8)
    placement = Placement(scale, (0.0, 0.0, 0.0), unit)
    write_image(tmp_path / "in.zarr", shape, np.uint8, pixels.__getitem__, placement=placement)
    assert app.run(["resample", "--image", "in.zarr", "--out", "out.zarr", *words]) == 1
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["in.zarr"]


def test_a_factor_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((4, 8, 8), np.uint8)
    write_image(tmp_path / "in.zarr", pixels.shape, np.uint8, pixels.__getitem__, placement=Placement())
    assert app.run(["resample", "--image", "in.zarr", "--out", "out.zarr", "--factor", "2"]) == 0
    assert open_image(tmp_path / "out.zarr").shape == (7, 8, 8)
