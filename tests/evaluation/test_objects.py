from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import contingency_table

from napari_autosegnet import api
from napari_autosegnet.cli.evaluate import score_table
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.evaluation import objects
from napari_autosegnet.evaluation.objects import compare_objects, evaluate_objects
from napari_autosegnet.events import silent
from napari_autosegnet.interruption import never_stop
from napari_autosegnet.training.metrics import compare_segments


def test_an_object_that_is_cut_and_one_that_is_half_missing() -> None:
    # Of three objects of 100 voxels one is cut into 80 and 20, one lacks 40, and one is whole.
    pairs = np.array([[1, 7, 80], [1, 8, 20], [2, 9, 60], [2, 0, 40], [3, 4, 100]])
    scores = compare_objects(pairs)
    assert (scores.objects, scores.found) == (3, 4)
    assert scores.recall == {"0.5": 1.0, "0.75": pytest.approx(2 / 3)}
    assert scores.precision == {"0.5": 0.75, "0.75": 0.5}
    perfect = compare_objects(np.array([[1, 2, 30], [5, 1, 40]]))
    assert (perfect.v_rand, perfect.v_info, *perfect.precision.values(), *perfect.recall.values()) == (1.0,) * 6
    with pytest.raises(UserError, match="no true object"):
        compare_objects(np.zeros((0, 3), np.int64))


@settings(max_examples=30, deadline=None)
@given(
    volumes=arrays(np.uint16, (2, 3, 5, 6), elements=st.integers(0, 4)).filter(lambda both: both[0].any()),
    few=st.booleans(),
)
def test_a_volume_read_by_sections_is_scored_as_a_whole(volumes: np.ndarray, few: bool) -> None:
    true, found = volumes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "PAIRS_AT_ONCE", 1 if few else 2**22)
        stacks = image_from_array(found), image_from_array(true)
        scores = compare_objects(objects.section_pairs(*stacks, range(3), silent, never_stop))
    assert (scores.v_rand, scores.v_info) == pytest.approx(compare_segments(found, true))
    inside = true > 0
    table = contingency_table(true[inside], found[inside]).toarray()
    iou = table / (table.sum(0)[None] + table.sum(1)[:, None] - table + 1e-12)
    assert scores.recall["0.5"] * scores.objects == pytest.approx((iou[:, 1:] > 0.5).sum())


def test_objects_of_a_prediction_beside_its_classes(tmp_path: Path) -> None:
    cells = np.zeros((2, 8, 9), np.uint16)
    cells[:, :, :4], cells[:, :, 5:] = 1, 2
    classes = np.where(cells > 0, 1, 2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "cells.tif", cells)
    tifffile.imwrite(tmp_path / "classes.tif", classes)
    files = {"labels": [tmp_path / "classes.tif"], "prediction": tmp_path / "classes.tif"}
    scores = api.evaluate(**files, classes="1:cell,2:membrane", objects=tmp_path / "cells.tif", sections="1")
    # A file of classes is one of objects, too: both cells are one.
    assert scores.objects is not None
    assert (scores.objects.objects, scores.objects.found, scores.objects.recall["0.5"]) == (2, 1, 0.0)
    table = score_table({name: value for name, value in scores.model_dump().items() if value is not None})
    assert "1 object, 2 true" in table and "recall at 0.75" in table
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UserError, match="no numbered objects; predict with --instances"):
        evaluate_objects(tmp_path / "a.zarr", tmp_path / "cells.tif", None, silent, never_stop)
    with pytest.raises(UserError, match="--prediction with --objects"):
        api.evaluate(labels=files["labels"], model=tmp_path, objects=tmp_path / "cells.tif")
