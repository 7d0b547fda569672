"""An image is compared with what the model was trained on before it is applied: in Python, evaluation and slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_autosegnet import api
from napari_autosegnet.data.gray_match import AS_IS, GrayScale, GrayValues
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.data.images import ImageStack, image_from_array, open_image
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.sample import sample_folder
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note
from napari_autosegnet.inference.compute.gray_check import GrayValuesError, check_gray_values
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.sections import predict_section
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

MakeModel = Callable[..., Model]

SETTINGS = PredictSettings(halo="exact")


class Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note) and "gray values" in event.text:
            self.texts.append(event.text)


def sample(name: str = "b") -> np.ndarray:
    return open_image(sample_folder() / f"axon-sem-{name}.png").section(0)[0]


@pytest.fixture
def seen() -> GrayValues:
    return GrayValues.of([section_gray(sample("a")[np.newaxis])], np.uint8)


@pytest.fixture
def trained(make_model: MakeModel, seen: GrayValues) -> Model:
    """A model that has seen the sample's image a."""
    model = make_model()
    return with_normalization(model, Normalization(mean=seen.mean, std=seen.std, seen=seen))


def with_normalization(model: Model, normalization: Normalization) -> Model:
    return Model(model.description.model_copy(update={"normalization": normalization}), model.weights)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Image b as it is, and in other ranges."""
    picture = sample().astype(np.float64)
    kinds = {
        "plain": picture.astype(np.uint8),
        "times 257": (picture * 257).astype(np.uint16),
        "times 16": (picture * 16).astype(np.uint16),
        "signed": (picture * 257 - 32768).astype(np.int16),
        "floats": (picture / 255).astype(np.float32),
        "strange": ((picture - picture.mean()) / picture.std()).astype(np.float32),
    }
    for name, array in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack")
    return {name: tmp_path / f"{name}.tif" for name in kinds}


def test_other_ranges_give_the_same_labels_and_one_line(trained: Model, files: dict[str, Path], tmp_path: Path) -> None:
    _, expected = predict_sections(trained, open_image(files["plain"]), None, SETTINGS)
    assert expected.std() > 0.02
    told = Notes()
    predict_sections(trained, open_image(files["plain"]), None, SETTINGS, report=told)
    assert told.texts == []
    for name, words in (
        ("times 257", "(uint16) are those of the model's images (uint8) times 257; they are scaled back"),
        ("times 16", "(uint16) are those of the model's images (uint8) times 16; they are scaled back"),
        ("signed", "(int16) are those of the model's images (uint8) times 257, less 32768; they are scaled back"),
        ("floats", "(float32) are those of the model's images (uint8) divided by 255; they are scaled back"),
    ):
        told = Notes()
        _, found = predict_sections(trained, open_image(files[name]), None, SETTINGS, report=told)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert told.texts == [f"the gray values {words}"]
        _, as_it_is = predict_sections(
            trained, open_image(files[name]), None, SETTINGS.model_copy(update={"gray_values": "as-is"})
        )
        assert np.abs(as_it_is - expected).mean() > 5e-3


def test_swapped_bytes_are_refused(trained: Model, files: dict[str, Path]) -> None:
    moved = tifffile.imread(files["times 16"])
    signed = moved.astype(np.int16)
    for array in (moved, signed):
        check_gray_values(trained.normalization, image_from_array(array))
        check_gray_values(trained.normalization, image_from_array(array.astype(array.dtype.newbyteorder(">"))))
        swapped = image_from_array(array.byteswap())
        with pytest.raises(GrayValuesError, match="seem to be swapped"):
            check_gray_values(trained.normalization, swapped)
        assert check_gray_values(trained.normalization, swapped, "as-is") == AS_IS
    # Noise has no right order of bytes, and where one byte says all, both are right.
    noise = np.random.default_rng(0).integers(0, 4096, moved.shape, np.uint16)
    for array in (noise, moved * 16, moved // 16):
        for either in (array, array.byteswap()):
            check_gray_values(trained.normalization, image_from_array(either))


def test_what_is_unlike_all_is_refused_in_every_way_to_apply_a_model(
    trained: Model, files: dict[str, Path], tmp_path: Path
) -> None:
    trained.save(tmp_path / "model")
    label = tmp_path / "labels.tif"
    tifffile.imwrite(label, np.random.default_rng(0).integers(1, 3, (512, 512), np.uint8))
    out = tmp_path / "out.zarr"
    strange = open_image(files["strange"])

    def evaluate(**more: Any) -> Any:
        return api.evaluate(
            labels=[label], images=[files["strange"]], model=tmp_path / "model", classes="1:class 0,2:class 1", **more
        )

    ways: list[Callable[[], Any]] = [
        lambda: api.predict(tmp_path / "model", files["strange"], out, device="cpu"),
        lambda: predict_volume(trained, strange, out),
        lambda: predict_sections(trained, strange),
        lambda: predict_section(Predictor(trained), strange, 0),
        evaluate,
    ]
    for way in ways:
        with pytest.raises(UserError) as error:
            way()
        line = str(error.value)
        assert "strange" in line and "unlike those of the model's images (float32, mean " in line
        assert "trained on uint8, mean 144.3, deviation 53.87" in line and "(--gray-values as-is)" in line
    assert not out.exists() and not list(tmp_path.glob("out.zarr*"))
    insist = PredictSettings(gray_values="as-is")
    assert api.predict(tmp_path / "model", files["strange"], out, settings=insist, device="cpu").done == 1
    assert evaluate(gray_values="as-is").mean_iou >= 0


def test_it_is_part_of_what_a_result_was_made_by(trained: Model, files: dict[str, Path], tmp_path: Path) -> None:
    image = open_image(files["times 257"])
    predict_volume(trained, image, tmp_path / "out.zarr")
    predict_volume(trained, image, tmp_path / "out.zarr")  # the same again
    with pytest.raises(UserError, match="gray_values was times 257, now as they are"):
        predict_volume(trained, image, tmp_path / "out.zarr", PredictSettings(gray_values="as-is"))


def test_a_model_that_normalizes_each_section_takes_any_range(
    trained: Model, files: dict[str, Path], seen: GrayValues
) -> None:
    own = with_normalization(trained, Normalization(kind="section", mean=seen.mean, std=seen.std, seen=seen))
    _, expected = predict_sections(own, open_image(files["plain"]), None, SETTINGS)
    for name, path in files.items():
        told = Notes()
        _, found = predict_sections(own, open_image(path), None, SETTINGS, report=told)
        np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=name)
        assert told.texts == []


def test_models_that_know_nothing_compare_nothing(make_model: MakeModel, files: dict[str, Path]) -> None:
    told = Notes()
    assert check_gray_values(make_model().normalization, open_image(files["strange"]), report=told) == AS_IS
    assert told.texts == []


def volume(array: np.ndarray, chunks: tuple[int, int, int], path: Path) -> ImageStack:
    zarr.create_array(path, shape=array.shape, chunks=chunks, dtype=array.dtype)[:] = array
    return open_image(path)


def test_the_whole_image_is_compared_and_not_one_place(trained: Model, tmp_path: Path) -> None:
    """Most of it may be resin, sections may be missing, and a region may be dark."""
    picture = sample()
    array = np.full((20, 512, 512), 253, np.uint8) + np.random.default_rng(0).integers(0, 2, (20, 512, 512)).astype(
        np.uint8
    )
    array[:, 200:300, 100:250] = picture[:100, :150]
    array[[2, 6, 10, 14, 18]] = 0  # the very sections that are looked at first
    for stack, scale in ((array, AS_IS), (array.astype(np.uint16) * 257, GrayScale(257))):
        image = volume(stack, (4, 64, 64), tmp_path / f"{stack.dtype}.zarr")
        assert check_gray_values(trained.normalization, image) == scale
    dark = np.stack([picture // 5] * 3)
    assert check_gray_values(trained.normalization, image_from_array(dark)) == AS_IS


def test_little_is_read_of_a_large_image(trained: Model) -> None:
    read = 0

    class Huge:
        shape, dtype = (1000, 20_000, 20_000), np.dtype(np.uint8)

        def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
            nonlocal read
            shape = tuple(part.stop - part.start for part in place)
            read += int(np.prod(shape))
            return np.random.default_rng(0).integers(90, 200, shape, np.uint8)

    assert check_gray_values(trained.normalization, image_from_array(Huge())) == AS_IS
    assert read <= 5 * 2**18


def test_damaged_sections_are_for_their_block_to_tell(trained: Model, tmp_path: Path) -> None:
    array = np.stack([sample()[:256, :256]] * 5)
    image = volume(array, (1, 256, 256), tmp_path / "a.zarr")
    for section in (0, 3):
        next(file for file in (tmp_path / "a.zarr" / "c" / str(section)).rglob("*") if file.is_file()).write_bytes(b"x")
    assert check_gray_values(trained.normalization, image) == AS_IS


def test_numbers_that_64_bits_cannot_tell_apart_are_noted(trained: Model) -> None:
    told = Notes()
    large = sample().astype(np.int64) + 2**60
    with pytest.raises(UserError, match="unlike"):
        check_gray_values(trained.normalization, image_from_array(large, name="large"), report=told)
    assert told.texts == ["large has gray values beyond 2^53, which lose their last digits"]
