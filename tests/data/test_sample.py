"""The shipped sample is complete and usable."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.regions import region_pixels
from napari_autosegnet.data.sample import SAMPLE_CLASSES, sample_folder
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.settings import SplitSettings


def test_sample_is_as_published() -> None:
    folder = sample_folder()
    content = open_image(folder / "axon-sem-a.png").section(0)
    digest = "2bb9377a9cc57c4fadab237f74fe26dfca8c567ceb7c8e406f5ae0e495cd4b87"
    assert hashlib.sha256(content.tobytes()).hexdigest() == digest
    assert "MIT License" in (folder / "LICENSE-data.txt").read_text()
    assert "doi:10.5281/zenodo.5498378" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("name", "shares"), [("a", [0.318, 0.401, 0.281]), ("b", [0.303, 0.402, 0.296])])
def test_sample_is_three_classes(name: str, shares: list[float]) -> None:
    folder = sample_folder()
    stacks = open_labeled([folder / f"axon-sem-{name}.png"], [folder / f"axon-sem-{name}-labels.png"], SAMPLE_CLASSES)
    pixels = stacks[0].annotated_pixels[0]
    np.testing.assert_allclose(pixels / pixels.sum(), shares, atol=1e-3)
    split = split_stacks(stacks, SplitSettings())
    for part in (split.training, split.validation):
        assert (region_pixels(stacks, part).sum(0) > 1000).all()
