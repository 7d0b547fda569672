from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.cli import app
from napari_autosegnet.data.cubes import Cubes, check_isotropic, cubes_of, write_cubes
from napari_autosegnet.data.images import image_from_array, open_image, open_labels
from napari_autosegnet.errors import StoppedError, UserError
from napari_autosegnet.events import Event, ProgressMade
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.units import Placement
from small_models import small_model


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
    inside = tmp_path / "in.ome.zarr" / "cubes.zarr"
    assert app.run([*words[:-1], str(inside)]) == 1 and not inside.exists()
    assert "lies in another Zarr" in capsys.readouterr().err


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    image = image_from_array(np.zeros((8, 20, 30), np.uint8), scale=(2, 1, 1))
    told: list[Event] = []
    answers = iter([False, False, True])
    with pytest.raises(StoppedError, match="nothing is left"):
        write_cubes(image, tmp_path / "out.zarr", report=told.append, should_stop=lambda: next(answers))
    assert list(tmp_path.iterdir()) == [] and told == []
    write_cubes(image, tmp_path / "out.zarr", report=told.append)
    last = told[-1]
    assert isinstance(last, ProgressMade) and (last.step, last.done, last.total) == ("cubes", 15, 15)


def test_cubes_that_are_there_are_used_again_and_nothing_else_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 20, 30), dtype=np.uint8)
    image, out = image_from_array(pixels, scale=(2, 1, 1)), tmp_path / "out.zarr"
    assert cubes_of(image, out) == out
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    assert cubes_of(image, out) == out
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    with pytest.raises(UserError, match=r"does not hold the cubes of image as it is now; give another name"):
        cubes_of(image_from_array(pixels + 1, scale=(2, 1, 1)), out)
    write_image(tmp_path / "other.zarr", pixels.shape, np.uint8, pixels.__getitem__, placement=Placement())
    (tmp_path / "file.zarr").write_text("mine")
    for name in ("other.zarr", "file.zarr"):
        with pytest.raises(UserError, match=f"{name} exists and does not hold the cubes"):
            cubes_of(image, tmp_path / name)
    assert (tmp_path / "file.zarr").read_text() == "mine"


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (
            (20, 4, 4),
            r"image are 20 x 4 x 4 \(z, y, x\), but .* at most a factor of 1.25; leave out --planes all",
        ),
        ((10, 4, 4), r"at most a factor of 1.25; write cubes first \(--cubes NAME.zarr\), or leave out --planes all"),
        ((4, 8, 4), r"at most a factor of 1.25; leave out --planes all"),
        ((-10, 4, 4), r"voxels of image are 10 x 4 x 4"),
    ],
)
def test_a_volume_that_has_no_other_planes_is_refused(scale: tuple[float, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_isotropic(image_from_array(np.zeros((4, 8, 8), np.uint8), scale=scale))


def test_a_prediction_writes_cubes_first_and_goes_on_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 48, 48), dtype=np.uint8)
    placement = Placement((20.0, 10.0, 10.0), (0.0, 0.0, 0.0), "nanometer")
    write_image(tmp_path / "in.zarr", pixels.shape, np.uint8, pixels.__getitem__, placement=placement)
    small_model().save(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--planes", "all", "--device", "cpu"]
    image, cubes = str(tmp_path / "in.zarr"), str(tmp_path / "cubes.zarr")
    assert app.run(["predict", *words, "--image", image, "--out", str(tmp_path / "no.zarr")]) == 1
    assert "write cubes first (--cubes NAME.zarr)" in capsys.readouterr().err
    first = ["predict", *words, "--image", image, "--cubes", cubes, "--out", str(tmp_path / "a.zarr")]
    assert app.run([*first, "--mask", image]) == 1
    assert "leave out --mask or --cubes" in capsys.readouterr().err
    assert not (tmp_path / "cubes.zarr").exists()
    assert app.run(first) == 0
    told = capsys.readouterr().err
    assert "cubes: 7 of 7" in told and "4 sections became 7" in told and "Traceback" not in told
    assert app.run(["predict", *words, "--image", cubes, "--out", str(tmp_path / "b.zarr")]) == 0
    made, expected = (open_labels(tmp_path / name / "labels" / "segmentation") for name in ("a.zarr", "b.zarr"))
    assert made.shape == (7, 48, 48) and made.scale == (10.0, 10.0, 10.0)
    for section in range(7):
        np.testing.assert_array_equal(made.section(section), expected.section(section))
    capsys.readouterr()
    assert app.run(first) == 0
    assert "became" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "scale", "words", "message"),
    [
        ((4, 8, 8), (10.0, 10.0, 10.0), [], "already as close as its pixels"),
        ((4, 8, 8), (1.0, 1.0, 1.0), [], "resample --factor"),
        ((4, 8, 8), (50.0, 10.0, 10.0), [], "at most 4 can be bridged"),
        ((4, 8, 8), (20.0, 10.0, 5.0), [], "are not square"),
        ((1, 8, 8), (20.0, 10.0, 10.0), [], "one section"),
        ((4, 8, 8), (20.0, 10.0, 10.0), ["--factor", "nan"], "is not a number"),
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
