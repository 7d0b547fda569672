"""Labeled images made ready for a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import small_jobs
from napari_autosegnet.data.regions import full_extent
from napari_autosegnet.data.section_cuts import GAP_PIXELS
from napari_autosegnet.events import silent
from napari_autosegnet.jobs.preparation import LabeledData, prepare


def test_everything_is_whole_sections_with_the_gaps_between_the_parts(tmp_path: Path) -> None:
    given = small_jobs.write_data(tmp_path)
    with Image.open(given["labels"][0]) as picture:
        strokes = np.asarray(picture).copy()
    strokes[np.arange(256) % 32 > 3] = 9  # of no class
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    data = LabeledData.given(given["images"], [tmp_path / "strokes.png"], given["classes"])
    prepared = prepare(data, small_jobs.FIT, device="cpu", report=silent)
    parts = [*prepared.split.training, *prepared.split.validation]
    area = sum((part.y[1] - part.y[0]) * (part.x[1] - part.x[0]) for part in parts)
    assert len(parts) >= 2 and area <= 256 * (256 - GAP_PIXELS), "the section is cut"
    (section,) = prepared.divided_sections
    assert (section.y, section.x) == full_extent(prepared.stacks[0], 0)
