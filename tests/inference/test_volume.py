from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from format_files import written_by_others
from napari_autosegnet.data.images import ImageStack, image_from_array, open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlocksPlanned, BlockWritten, ProgressMade
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.inference.compute.sections import predict_section
from napari_autosegnet.inference.compute.survey import ImageSurvey
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import Placement
from predicted_files import labels_of, predict_sections
from remembered_events import Events

Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]
MakeModel = Callable[..., Model]
SETTINGS = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True, levels=2)


@pytest.mark.parametrize(("channels", "context"), [(1, 0), (3, 0), (1, 1), (2, 2)])
def test_a_volume_equals_its_whole_sections(
    tmp_path: Path,
    make_model: MakeModel,
    noise: Noise,
    labels_agree: Callable[[np.ndarray, np.ndarray], bool],
    channels: int,
    context: int,
) -> None:
    model = make_model(seed=3, image_channels=channels, context=context, classes=3)
    array = noise(channels, 4, 70, 100)
    image = image_from_array(array, channel_axis=0)
    settings = PredictSettings(block=(2, 40, 64), tile=96, halo="exact", probabilities=True, batch_size=2)
    summary = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert (summary.blocks, summary.done, summary.skipped, summary.stopped) == (8, 8, 0, False)
    predictor = Predictor(model, halo="exact")
    whole = []
    for section in range(4):
        around = [min(max(section + step, 0), 3) for step in range(-context, context + 1)]
        whole.append(predictor.whole_section(np.concatenate([array[:, one] for one in around])))
    expected = np.stack(whole, axis=1)
    assert labels_agree(labels_of(tmp_path / "out.zarr"), expected)
    scores = np.asarray(zarr.open_group(tmp_path / "out.zarr")["probabilities/0"])
    assert np.abs(scores / 255 - expected).max() <= 0.5 / 255 + 1e-5
    labels, probabilities = predict_sections(model, image, [1, 3], PredictSettings(halo="exact", tile=96))
    np.testing.assert_allclose(probabilities, expected[:, [1, 3]], atol=1e-5)
    assert labels_agree(labels, expected[:, [1, 3]])


@pytest.mark.parametrize(
    ("kind", "shape", "block"), [("global", (40, 10, 9), (14, 5, 9)), ("section", (9, 10, 40), (9, 5, 14))]
)
def test_a_consensus_equals_that_of_the_whole_volume(
    tmp_path: Path,
    make_model: MakeModel,
    noise: Noise,
    labels_agree: Callable[[np.ndarray, np.ndarray], bool],
    kind: str,
    shape: tuple[int, int, int],
    block: tuple[int, int, int],
) -> None:
    model = make_model(network="unet", classes=3, width=2, kind=kind)
    array = noise(*shape)
    image = image_from_array(array)
    settings = PredictSettings(block=block, tile=32, halo="exact", probabilities=True, planes="all")
    summary = predict_volume(model, image, tmp_path / "out.zarr", settings)
    assert (summary.blocks, summary.done, summary.halo) == (6, 6, 10)
    # Sections of other planes are normalized by what each of their rows is in xy.
    constants = ImageSurvey(image, model.normalization).constants(range(len(array)))
    predictor = Predictor(make_model(network="unet", classes=3, width=2), halo="exact")
    alike = (array - constants.mean[:, :, None]) / constants.std[:, :, None] * 50 + 120
    expected = np.zeros((3, *array.shape))
    for axis in range(3):
        planes = [predictor.whole_section(plane[None]) for plane in np.moveaxis(alike, axis, 0)]
        expected += np.moveaxis(np.stack(planes, axis=1), 1, axis + 1) / 3
    assert labels_agree(labels_of(tmp_path / "out.zarr"), expected)
    scores = np.asarray(zarr.open_group(tmp_path / "out.zarr")["probabilities/0"])
    assert np.abs(scores / 255 - expected).max() <= 0.5 / 255 + 2e-5


def test_three_planes_are_for_volumes_of_cubes(tmp_path: Path, model: Model, noise: Noise) -> None:
    settings, pixels = PredictSettings(planes="all"), noise(9, 20, 20)
    flat = image_from_array(pixels, scale=(40.0, 8.0, 8.0), name="sections")
    with pytest.raises(UserError, match=r"sections are 40 x 8 x 8 \(z, y, x\).*factor of 1.25.*--planes all"):
        predict_volume(model, flat, tmp_path / "a.zarr", settings)
    with pytest.raises(UserError, match="a single section"):
        predict_volume(model, image_from_array(pixels[0]), tmp_path / "a.zarr", settings)
    assert not (tmp_path / "a.zarr").exists()


def test_too_little_memory_in_the_middle_adds_no_plane_twice(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_from_array(noise(20, 24, 20))
    settings = PredictSettings(batch_size=2, halo=8, planes="all", probabilities=True)
    predict_volume(model, image, tmp_path / "whole.zarr", settings)
    real, passes = Predictor.probabilities_of, 0

    def failing(self: Predictor, pixels: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == 15:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, pixels)

    monkeypatch.setattr(Predictor, "probabilities_of", failing)
    predict_volume(model, image, tmp_path / "twice.zarr", settings)
    assert passes > 64
    np.testing.assert_array_equal(labels_of(tmp_path / "twice.zarr"), labels_of(tmp_path / "whole.zarr"))


def test_the_result_is_the_same_whatever_the_image_lies_in(
    tmp_path: Path, model: Model, noise: Noise, tree: Tree
) -> None:
    pixels = (noise(1, 3, 70, 101)[0] // 2).astype(np.int8)
    placement = Placement((4.0, 4.0, 4.0), unit="angstrom")
    write_image(tmp_path / "image.ome.zarr", pixels.shape, pixels.dtype, pixels.__getitem__, placement=placement)
    settings = SETTINGS.model_copy(update={"block": (2, 64, 64), "probabilities": False, "levels": 1})
    predict_volume(model, open_image(tmp_path / "image.ome.zarr"), tmp_path / "whole.zarr", settings)
    expected = tree(tmp_path / "whole.zarr")
    for place in written_by_others(tmp_path, pixels):
        out, events = tmp_path / "out" / f"{place.name}.zarr", Events()
        stop = partial(lambda events: len(events.of(BlockWritten)) > 1, events)
        assert predict_volume(model, open_image(place), out, settings, report=events, should_stop=stop).stopped
        predict_volume(model, open_image(place), out, settings, report=events)
        assert sorted(block.index for block in events.of(BlockWritten)) == [*range(8)]
        found = tree(out)
        unit = open_image(out).unit
        if unit != "angstrom":  # which not every format knows
            assert open_image(out).scale == ({"micrometer": 0.0004, "nanometer": 0.4, None: 1.0}[unit],) * 3
            found |= {name: content for name, content in expected.items() if name.endswith("zarr.json")}
        assert found == expected, place


def test_the_real_sections_in_tiles(shared_data: Path, make_model: MakeModel) -> None:
    image = open_image(shared_data / "isbi2012" / "train-volume.tif")
    model = make_model(levels=1, width=3)
    whole, _ = predict_sections(model, image, [20], PredictSettings(halo="exact", tile=512))
    tiled, _ = predict_sections(model, image, [20], PredictSettings(halo="exact", tile=300))
    assert (whole == tiled).mean() > 1 - 1e-4


def test_events_tell_the_plan_every_block_and_the_progress(tmp_path: Path, model: Model, noise: Noise) -> None:
    events = Events()
    summary = predict_volume(model, image_from_array(noise(3, 70, 101)), tmp_path / "a.zarr", SETTINGS, report=events)
    (plan,) = events.of(BlocksPlanned)
    assert (plan.blocks, plan.done, plan.skipped, plan.halo) == (18, 0, 0, 8)
    blocks = events.of(BlockWritten)
    assert sorted(block.index for block in blocks) == list(range(18))
    assert sum(block.voxels for block in blocks) == 3 * 70 * 101
    assert all(block.status == "done" for block in blocks)
    assert events.of(ProgressMade)[-1].done == 18 and events.of(ProgressMade)[-1].seconds_left == 0
    assert summary.voxels_per_second > 0 and summary.halo == 8


class _Counting(ImageStack):
    """A stack that notes what is read of it."""

    @classmethod
    def over(cls, image: ImageStack) -> _Counting:
        image.__class__ = cls
        assert isinstance(image, _Counting)
        image.boxes = []
        return image

    boxes: list[tuple[slice, slice, slice]]

    def read(self, z: slice, y: slice, x: slice) -> np.ndarray:
        self.boxes.append((z, y, x))
        return super().read(z, y, x)


def test_a_mask_costs_no_reading_and_no_computing(
    tmp_path: Path, model: Model, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = noise(4, 64, 96)
    mask = np.zeros(array.shape, np.uint8)
    mask[1, 10:20, 50:60] = 1
    mask[3, 40, 3] = 7
    events = Events()
    image = _Counting.over(image_from_array(array))
    passes: list[int] = []
    real = Predictor.probabilities_of

    def counting(self: Predictor, pixels: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Predictor, "probabilities_of", counting)
    settings = PredictSettings(block=(2, 32, 48), tile=64, halo=8, probabilities=True)
    summary = predict_volume(model, image, tmp_path / "a.zarr", settings, mask=image_from_array(mask), report=events)
    assert (summary.blocks, summary.done, summary.skipped) == (8, 2, 6)
    assert len(passes) == 2
    assert sum(box[0].stop - box[0].start > 1 or box[1].stop - box[1].start > 64 for box in image.boxes) == 2
    monkeypatch.undo()
    predict_volume(model, image_from_array(array), tmp_path / "b.zarr", settings)
    labels, everywhere = labels_of(tmp_path / "a.zarr"), labels_of(tmp_path / "b.zarr")
    np.testing.assert_array_equal(labels, np.where(mask > 0, everywhere, 0))
    assert (np.asarray(zarr.open_group(tmp_path / "a.zarr")["probabilities/0"])[:, mask == 0] == 0).all()
    again = predict_volume(model, image, tmp_path / "a.zarr", settings, mask=image_from_array(mask))
    assert (again.done, again.skipped) == (2, 6)
    with pytest.raises(UserError, match="mask"):
        predict_volume(model, image, tmp_path / "a.zarr", settings)
    with pytest.raises(UserError, match="the mask has the shape"):
        predict_volume(model, image, tmp_path / "c.zarr", settings, mask=image_from_array(mask[:2]))


def test_empty_blocks_are_computed_once_and_look_like_the_rest(tmp_path: Path, model: Model, noise: Noise) -> None:
    array = noise(2, 200, 256)
    array[:, :, :150] = 0
    array[1] = 0
    settings = PredictSettings(block=(1, 32, 32), tile=64, halo="exact")
    summary = predict_volume(model, image_from_array(array), tmp_path / "a.zarr", settings)
    assert summary.skipped > summary.blocks / 2
    whole, _ = predict_sections(model, image_from_array(array), None, PredictSettings(halo="exact"))
    assert (labels_of(tmp_path / "a.zarr") == whole).mean() > 1 - 1e-4


def test_a_region_of_interest(tmp_path: Path, model: Model, noise: Noise) -> None:
    image = image_from_array(noise(3, 70, 101))
    region = ((1, 3), (20, 50), (30, 101))
    partly = SETTINGS.model_copy(update={"region": "1:,20:50,30:101"})
    summary = predict_volume(model, image, tmp_path / "a.zarr", partly)
    assert summary.blocks == 2 * 2 * 3
    settings = SETTINGS.model_copy(update={"halo": "exact", "overwrite": True})
    predict_volume(model, image, tmp_path / "a.zarr", settings.model_copy(update={"region": "1:3,20:50,30:"}))
    predict_volume(model, image, tmp_path / "b.zarr", settings)
    labels, everywhere = labels_of(tmp_path / "a.zarr"), labels_of(tmp_path / "b.zarr")
    inside = tuple(slice(*span) for span in region)
    assert (labels[inside] == everywhere[inside]).mean() > 1 - 1e-4
    labels[inside] = 0
    assert not labels.any()
    lower = np.asarray(zarr.open_group(tmp_path / "a.zarr")["labels/segmentation/1"])
    np.testing.assert_array_equal(lower, labels_of(tmp_path / "a.zarr")[:, ::2, ::2])


def test_an_image_of_another_kind_is_refused(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    with pytest.raises(UserError, match="has 3 channels, and the model was trained on images with 1"):
        predict_volume(make_model(), image_from_array(noise(3, 2, 20, 20), channel_axis=0), tmp_path / "a.zarr")


def test_sections_of_mixed_sizes_one_by_one(tmp_path: Path, make_model: MakeModel, noise: Noise) -> None:
    from PIL import Image

    shapes = [(40, 60), (33, 21)]
    for number, shape in enumerate(shapes):
        Image.fromarray(noise(*shape)).save(tmp_path / f"{number}.png")
    image = open_image(tmp_path)
    predictor = Predictor(make_model(levels=1), tile=32, halo=4)
    for number, shape in enumerate(shapes):
        found = predict_section(predictor, image, number)
        assert found is not None
        assert found[0].shape == shape and found[1].shape == (2, *shape) and (found[0] > 0).all()
    with pytest.raises(UserError, match="differ in size"):
        predict_volume(make_model(), image, tmp_path / "a.zarr")
    with pytest.raises(UserError, match="neighboring sections"):
        predict_section(Predictor(make_model(context=1)), image, 0)


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.data.images import open_image
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model

torch.set_num_threads(1)
predict_volume(
    Model.load(sys.argv[1]), open_image(sys.argv[2]), Path(sys.argv[3]),
    PredictSettings.model_validate_json(sys.argv[4]),
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("planes", ["xy", "all"])
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, make_model: MakeModel, planes: str) -> None:
    make_model(levels=1, width=2).save(tmp_path / "model")
    block = (16, 128, 128) if planes == "xy" else (32, 32, 64)
    settings = PredictSettings(block=block, tile=256, halo=4, probabilities=True, levels=3, planes=planes)
    peaks = []
    for times in (1, 4, 16):
        # 16 blocks at least: from then on all three stages are busy.
        shape = (block[0], 4 * block[1] * min(times, 4), 4 * block[2] * max(1, times // 4))
        array = zarr.create_array(tmp_path / f"{times}.zarr", shape=shape, chunks=block, dtype=np.uint8)
        for y in range(0, shape[1], 2 * block[1]):
            part = (block[0], 2 * block[1], shape[2])
            array[:, y : y + 2 * block[1]] = np.random.default_rng(y).integers(0, 255, part, dtype=np.uint8)
        names = [str(tmp_path / name) for name in ("model", f"{times}.zarr", f"{times}-out.zarr")]
        command = [sys.executable, "-c", MEMORY_SCRIPT, *names, settings.model_dump_json()]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        peaks.append(int(done.stdout))
    assert max(peaks) < 1.1 * min(peaks), peaks
