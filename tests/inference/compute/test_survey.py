"""What is known of whole sections: the same for every block, tile and store, little read, constant ones left 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_autosegnet.data.gray_match import GrayScale, GrayValues
from napari_autosegnet.data.gray_values import section_gray
from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.pixel_files import ChunkFiles
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Event, Note
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.sections import predict_section
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import predict_sections

Noise = Callable[..., np.ndarray]
MakeModel = Callable[..., Model]
Tree = Callable[[Path], dict[str, bytes]]

OWN = Normalization(kind="section", mean=(120.0,), std=(50.0,))
SHARED = Normalization(mean=(120.0,), std=(50.0,))
SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo="exact", probabilities=True)


def drifting(array: np.ndarray) -> np.ndarray:
    """Sections (z, y, x) of ever stronger contrast."""
    gain = np.linspace(0.3, 1.0, len(array))[:, np.newaxis, np.newaxis]
    return (array * gain).astype(array.dtype)


def written(store: Path) -> tuple[np.ndarray, np.ndarray]:
    group = zarr.open_group(store, mode="r")
    return np.asarray(group["labels/segmentation/0"]), np.asarray(group["probabilities/0"])


class Counted:
    """An array that counts what is read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.pixels = 0

    def __getitem__(self, place: Any) -> np.ndarray:
        found = self.array[place]
        self.pixels += found.size
        return found


def test_constants_depend_on_the_pixels_alone(tmp_path: Path, noise: Noise) -> None:
    """Not on the kind of file, its chunks, or on which sections are asked for together."""
    array = drifting(noise(5, 1400, 900))
    assert array[0].size > 2**20
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", compression="zlib")
    for name, chunks in (("thin", (1, 1400, 900)), ("deep", (5, 100, 64))):
        zarr.create_array(tmp_path / f"{name}.zarr", shape=array.shape, chunks=chunks, dtype=array.dtype)[:] = array
    expected = OWN.constants([section_gray(section[np.newaxis]) for section in array])
    for image in (
        image_from_array(array),
        open_image(tmp_path / "a.tif"),
        open_image(tmp_path / "thin.zarr"),
        open_image(tmp_path / "deep.zarr"),
    ):
        survey = ImageSurvey(image, OWN)
        for sections in ((3,), (0, 1, 2), (4, 4, 3, 0), range(5)):
            found = survey.constants(sections)
            np.testing.assert_array_equal(found.mean, expected.mean[list(sections)])
            np.testing.assert_array_equal(found.std, expected.std[list(sections)])


@pytest.mark.parametrize("context", [0, 1])
def test_blocks_tiles_and_whole_sections_agree(
    tmp_path: Path, make_model: MakeModel, noise: Noise, context: int
) -> None:
    model = make_model(kind="section", context=context)
    array = drifting(noise(4, 70, 101))
    image = image_from_array(array)
    for name, block, tile in (("a", (1, 32, 32), 64), ("b", (4, 70, 101), 96)):
        predict_volume(model, image, tmp_path / name, SETTINGS.model_copy(update={"block": block, "tile": tile}))
    (one, one_shares), (other, other_shares) = written(tmp_path / "a"), written(tmp_path / "b")
    assert (one == other).mean() > 1 - 1e-4
    assert np.abs(one_shares.astype(int) - other_shares).max() <= 1
    labels, probabilities = predict_sections(model, image, None, PredictSettings(halo="exact"))
    assert (labels == one).mean() > 1 - 1e-4
    predictor = Predictor(model, halo="exact")
    for section in range(4):
        around = [min(max(section + offset, 0), 3) for offset in range(-context, context + 1)]
        whole = predictor.whole_section(array[around])
        np.testing.assert_allclose(probabilities[:, section], whole, atol=1e-5)
    # And it is what one network makes of sections that were normalized before.
    normalized = np.stack([OWN.apply(s[np.newaxis], section_gray(s[np.newaxis]))[0] for s in array])
    plain = Model(
        model.description.model_copy(update={"normalization": Normalization(mean=(0.0,), std=(1.0,))}), model.weights
    )
    before, _ = predict_sections(plain, image_from_array(normalized), None, PredictSettings(halo="exact"))
    assert (labels == before).mean() > 1 - 1e-4


def test_a_part_of_a_section_is_normalized_by_the_whole(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    model = make_model(kind="section")
    array = noise(2, 96, 128)
    array[:, :, 64:] //= 4
    image = image_from_array(array)
    predict_volume(model, image, tmp_path / "all", SETTINGS)
    predict_volume(model, image, tmp_path / "part", SETTINGS.model_copy(update={"region": "1:2,0:64,32:96"}))
    whole, part = written(tmp_path / "all")[0], written(tmp_path / "part")[0]
    np.testing.assert_array_equal(part[1, :64, 32:96], whole[1, :64, 32:96])
    mask = np.zeros_like(array)
    mask[1, 10:50, 70:90] = 1
    predict_volume(model, image, tmp_path / "mask", SETTINGS, mask=image_from_array(mask))
    np.testing.assert_array_equal(written(tmp_path / "mask")[0], whole * mask)


@pytest.mark.parametrize("kind", [pytest.param("global", marks=pytest.mark.slow), "section"])
def test_stopped_in_between_it_ends_with_the_same_bytes(
    tmp_path: Path, make_model: MakeModel, noise: Noise, tree: Tree, kind: str
) -> None:
    model = make_model(kind=kind)
    array = drifting(noise(5, 70, 101))
    array[3] = 9
    image = image_from_array(array)
    predict_volume(model, image, tmp_path / "whole", SETTINGS)
    stopped = True
    while stopped:
        left = iter(range(5))
        stopped = predict_volume(
            model, image, tmp_path / "parts", SETTINGS, should_stop=lambda left=left: next(left, None) is None
        ).stopped
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    # Also what was found constant before the last stop is told.
    again = predict_volume(model, image, tmp_path / "parts", SETTINGS)
    assert again.constant_sections == (3,)


def test_little_is_read_of_a_large_section() -> None:
    source = Counted(np.random.default_rng(0).integers(0, 255, (2, 6000, 7000), np.uint8))
    survey = ImageSurvey(image_from_array(source), OWN)
    survey.constants([0, 1])
    assert source.pixels <= 2 * 2**20
    survey.constants([1, 0, 1])
    assert source.pixels <= 2 * 2**20  # nothing twice
    part = source.array[np.newaxis, :, :512, :512]
    survey = ImageSurvey(image_from_array(source), SHARED)
    source.pixels = 0
    survey.constants([0, 1])
    assert not survey.constant([0, 1], part).any() and source.pixels == 0
    blank = np.zeros_like(part)
    assert not survey.constant([0, 1], blank).any()
    assert source.pixels <= 2 * 2**14


def test_of_a_huge_section_only_what_has_files_is_read(tmp_path: Path) -> None:
    """Of a volume that was planned, most may never be written; to read it all would take years."""
    size = 10**9
    array = zarr.create_array(tmp_path / "a.zarr", shape=(4, size, size), chunks=(1, 1000, 1000), dtype=np.uint8)
    array[1, 5000, 7000] = 3
    array[2, size - 1, size - 1] = 0  # which gives no file
    image = open_image(tmp_path / "a.zarr")
    constant = ImageSurvey(image).constant(range(4), np.zeros((1, 4, 8, 8), np.uint8))
    assert constant.tolist() == [True, False, True, True]
    files = image.files
    assert isinstance(files, ChunkFiles) and list(files.present()) == [(1, 5, 7)]
    assert image.representative_parts(0) == [(slice(0, 1000), slice(0, 1000))]


@pytest.mark.parametrize("kind", ["global", pytest.param("section", marks=pytest.mark.slow)])
def test_sections_that_show_next_to_nothing_are_named(
    tmp_path: Path, make_model: MakeModel, noise: Noise, kind: str
) -> None:
    """A camera's noise alone is labeled, and that is told: whatever the blocks are, and at whichever run it ends."""
    array = noise(7, 64, 96)
    made = make_model(kind=kind)
    seen = GrayValues.of([section_gray(section[np.newaxis]) for section in array], np.uint8)
    normalization = made.normalization.model_copy(update={"seen": seen})
    model = Model(made.description.model_copy(update={"normalization": normalization}), made.weights)
    array[1], array[4] = 0, np.random.default_rng(0).integers(0, 3, array[4].shape)
    array[2] = np.linspace(0, 50, 96)  # a ramp: next to nothing in each small block
    array[3] = 4
    array[3, :32] = np.random.default_rng(0).integers(0, 3, (32, 96))
    array[5, :, :48] = 7  # half a section that is empty
    words = "2 sections show next to nothing (all gray values within half a deviation of the model's images)"
    # The same picture in another range.
    cases = [(array, (2, 32, 32)), (array, (7, 64, 96)), (array.astype(np.uint16) * 257, (1, 64, 96))]
    for number, (image, block) in enumerate(cases):
        settings = SETTINGS.model_copy(update={"block": block})
        notes: list[str] = []

        def report(event: Event, notes: list[str] = notes) -> None:
            if isinstance(event, Note):
                notes.append(event.text)

        asked = iter(range(12))
        run = (model, image_from_array(image), tmp_path / str(number), settings)
        first = predict_volume(*run, report=report, should_stop=lambda asked=asked: next(asked, None) is None)
        assert first.stopped == (number != 1) and not (first.stopped and first.faint_sections)
        summary = predict_volume(*run, report=report) if first.stopped else first
        assert summary.faint_sections == (3, 4) and summary.constant_sections == (1,)
        assert [note for note in notes if "next to nothing" in note] == [
            f"{words}, so the labels there mean little: 3, 4"
        ]
        assert written(tmp_path / str(number))[0][4].all()
    survey = ImageSurvey(image_from_array(array), normalization)
    for section in range(7):
        predict_section(Predictor(model, halo="exact"), image_from_array(array), section, survey=survey)
    assert survey.faint == {3, 4}


@pytest.mark.parametrize("kind", ["global", "section"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_constant_sections_stay_0_and_cost_no_computing(
    tmp_path: Path, make_model: MakeModel, noise: Noise, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: Any
) -> None:
    model = make_model(kind=kind)
    array = noise(6, 64, 96).astype(dtype)
    array[1], array[4] = 0, 200
    array[2, :, :48] = 7  # half a section is a region without structure, and has a class
    array[5] = 0
    array[5, 63, 95] = 1  # so has one that is constant but for one pixel
    windows = 0
    compute = Predictor.probabilities_of

    def count(self: Predictor, images: Any) -> Any:
        nonlocal windows
        windows += 1
        return compute(self, images)

    monkeypatch.setattr(Predictor, "probabilities_of", count)
    settings = SETTINGS.model_copy(update={"block": (1, 64, 96), "tile": 128})
    notes: list[str] = []

    def report(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    summary = predict_volume(model, image_from_array(array), tmp_path / "out", settings, report=report)
    assert (summary.done, summary.skipped, windows) == (4, 2, 4)
    assert summary.constant_sections == (1, 4)
    assert notes == ["2 sections are constant (one gray value throughout) and left 0: 1, 4"]
    labels, shares = written(tmp_path / "out")
    assert [bool(section.any()) for section in labels] == [True, False, True, True, False, True]
    assert labels[2].all() and labels[5].all() and not shares[:, [1, 4]].any()
    predictor = Predictor(model, halo="exact")
    for section in (1, 5):
        found = predict_section(predictor, image_from_array(array), section)
        assert found is not None
        np.testing.assert_array_equal(found[0], labels[section])
        assert found[1].any() == (section == 5)


def test_a_constant_neighbor_is_only_seen(make_model: MakeModel, noise: Noise, tmp_path: Path) -> None:
    model = make_model(kind="section", context=1)
    array = noise(3, 64, 64)
    array[1] = 30
    predict_volume(model, image_from_array(array), tmp_path / "out", SETTINGS)
    assert [bool(section.any()) for section in written(tmp_path / "out")[0]] == [True, False, True]


def test_sections_of_several_sizes(make_model: MakeModel, tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number, size in enumerate(((40, 60), (70, 50), (40, 60))):
        values = np.full(size, 3) if number == 2 else generator.integers(0, 100 * (number + 1), size)
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{number}.png")
    image = open_image(tmp_path)
    predictor = Predictor(make_model(kind="section"), halo="exact")
    for section in range(3):
        found = predict_section(predictor, image, section)
        assert found is not None and found[0].any() == (section != 2)
        if section != 2:
            np.testing.assert_allclose(found[1], predictor.whole_section(image.section(section)), atol=1e-5)


def test_another_scale_makes_no_difference(make_model: MakeModel, noise: Noise) -> None:
    array = noise(2, 64, 96)
    large = array.astype(np.uint16) * 257
    for kind in ("global", "section"):
        model = make_model(kind=kind)
        predictor = Predictor(model, halo="exact")
        survey = ImageSurvey(image_from_array(large), model.normalization, GrayScale(257))
        for section in range(2):
            plain = predict_section(predictor, image_from_array(array), section)
            scaled = predict_section(predictor, image_from_array(large), section, survey=survey)
            assert plain is not None and scaled is not None
            np.testing.assert_allclose(plain[1], scaled[1], atol=1e-4)


def test_whole_numbers_beyond_24_bits_are_told_apart(make_model: MakeModel, noise: Noise) -> None:
    array = noise(1, 64, 96)
    for dtype, offset in ((np.uint32, 2**31), (np.int64, 2**40), (np.float64, 2.0**40)):
        large = array.astype(dtype) + dtype(offset)
        for kind in ("global", "section"):
            model = make_model(kind=kind)
            moved = Normalization(kind=kind, mean=(120.0 + offset,), std=(50.0,))
            far = Model(model.description.model_copy(update={"normalization": moved}), model.weights)
            found, _ = predict_sections(far, image_from_array(large), None, PredictSettings(halo="exact"))
            expected, _ = predict_sections(model, image_from_array(array), None, PredictSettings(halo="exact"))
            assert (found == expected).mean() > 1 - 1e-3


def test_hot_pixels_change_only_their_surroundings(make_model: MakeModel, noise: Noise) -> None:
    array = noise(1, 128, 160).astype(np.float32)
    hot = array.copy()
    hot[0, 100, 150] = 1e30
    for kind in ("global", "section"):
        model = make_model(kind=kind)
        clean, _ = predict_sections(model, image_from_array(array), None, PredictSettings(halo="exact"))
        found, shares = predict_sections(model, image_from_array(hot), None, PredictSettings(halo="exact"))
        assert np.isfinite(shares).all()
        assert (found == clean).mean() > 0.9 and (found[:, :40, :60] == clean[:, :40, :60]).mean() > 0.999


def test_what_is_damaged_for_good_is_left_out_of_the_sample(tmp_path: Path, noise: Noise) -> None:
    array = noise(2, 1400, 900)
    store = zarr.create_array(tmp_path / "a.zarr", shape=array.shape, chunks=(2, 128, 128), dtype=array.dtype)
    store[:] = array
    chunk = next(file for file in sorted(tmp_path.rglob("c/0/3/*")) if file.is_file())
    chunk.write_bytes(b"damaged")
    found = ImageSurvey(open_image(tmp_path / "a.zarr"), OWN).constants([0, 1])
    whole = OWN.constants([section_gray(section[np.newaxis]) for section in array])
    np.testing.assert_allclose(found.mean, whole.mean, rtol=0.02)
    for file in tmp_path.rglob("c/*/*/*"):
        file.write_bytes(b"damaged")
    with pytest.raises(UserError, match="sections 0-1 .* cannot be read"):
        ImageSurvey(open_image(tmp_path / "a.zarr"), OWN).constants([0, 1])
