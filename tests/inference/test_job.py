"""What a prediction reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

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
