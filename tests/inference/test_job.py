"""What a prediction reads, and what it says where that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_autosegnet.cli.app import run
from napari_autosegnet.inference.job import VolumeRequest
from napari_autosegnet.settings import PredictSettings
from small_models import small_model


def test_a_folder_of_masks_has_the_order_of_the_images(tmp_path: Path) -> None:
    small_model().save(tmp_path / "model")
    for folder, names in (("images", ("c1", "c1_2")), ("masks", ("c1_mask", "c1_2_mask"))):
        (tmp_path / folder).mkdir()
        for value, name in enumerate(names, start=1):
            Image.fromarray(np.full((64, 64), value, np.uint8)).save(tmp_path / folder / f"{name}.png")
    request = VolumeRequest(tmp_path / "model", tmp_path / "images", None, PredictSettings(), mask=tmp_path / "masks")
    _, image, mask = request.opened()
    assert mask is not None
    for stack in (image, mask):
        assert [int(stack.section(index)[0, 0, 0]) for index in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((10**9, 10**9, 10**9), "says that it has 1000000000 sections, more than the 1000000 that can be read"),
        ((10, 10**9, 10**9), "takes 953675292969 blocks, more than the 10000000 of one result"),
    ],
)
def test_an_image_that_no_time_is_enough_for_is_refused_at_once(
    shape: tuple[int, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model().save(tmp_path / "model")
    image, out = tmp_path / "image.zarr", tmp_path / "out.zarr"
    zarr.create_array(str(image), shape=shape, chunks=(64, 64, 64), dtype=np.uint8)
    assert run(["predict", "--model", str(tmp_path / "model"), "--image", str(image), "--out", str(out)]) == 1
    assert said in capsys.readouterr().err and not out.exists()


def test_a_prediction_with_failed_blocks_is_not_called_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_model().save(tmp_path / "model")
    image = tmp_path / "image.zarr"
    array = zarr.create_array(str(image), shape=(2, 64, 64), chunks=(1, 64, 64), dtype=np.uint8)
    array[:] = np.random.default_rng(0).integers(1, 255, array.shape, np.uint8)
    (image / "c" / "1" / "0" / "0").write_bytes(b"no chunk")
    words = ["predict", "--model", str(tmp_path / "model"), "--image", str(image), "--out", str(tmp_path / "out.zarr")]
    assert run([*words, "--block", "1,64,64", "--retries", "0"]) == 1
    error = capsys.readouterr().err
    assert "finished in" not in error
    told = error.index("predict: failed: 1 of 2 blocks failed, the others are done; start it again to try these again")
    assert told < error.index("error: block 1 at 1:2,0:64,0:64: ")


def test_nothing_is_written_into_the_folder_that_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be taken for one more section the next time."""
    images = tmp_path / "images"
    images.mkdir()
    for section in range(2):
        Image.fromarray(np.full((8, 8), section, np.uint8)).save(images / f"s{section}.png")
    for words in (["convert", "--labels"], ["resample", "--factor", "2", "--image"]):
        out = images / ("out.tif" if words[0] == "convert" else "out.zarr")
        assert run([*words, str(images), "--out", str(out)]) == 1
        assert f"{out} lies in {images}, which is read; choose another folder" in capsys.readouterr().err
        assert not out.exists()
