"""Groups of images from a CSV table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.data.labeled_stacks import LabeledStack, pair_stacks
from napari_autosegnet.errors import UserError


def stacks_of(*shapes: tuple[int, ...]) -> list[LabeledStack]:
    arrays = [(np.indices(shape)[-1] % 2 + 1).astype(np.uint8) for shape in shapes]
    return pair_stacks([image_from_array(a) for a in arrays], [image_from_array(a) for a in arrays], None)


def table(folder: Path, content: str) -> Path:
    path = folder / "index.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_rows_are_matched_by_page_name_or_order(tmp_path: Path) -> None:
    one = stacks_of((2, 16, 16))
    assert section_groups(one, table(tmp_path, "g,crop_index\na,1\nb,\nc,0\n"), "g") == [["c", "a"]]
    assert section_groups(one, table(tmp_path, "g,x\na,1\nb,2\n"), "g") == [["a", "b"]]
    several = stacks_of((2, 16, 16), (16, 16))
    assert section_groups(several, table(tmp_path, "g\na\nb\nc\n"), "g") == [["a", "b"], ["c"]]
    several[0].image.section_names, several[1].image.name = ("u", "v"), "w"
    rows = "g,file\na,w.png\nb,sub/v.png\nc,u\nd,other\n"
    assert section_groups(several, table(tmp_path, rows), "g") == [["c", "b"], ["a"]]


def test_names_that_the_table_does_not_know_are_no_matter_of_order(tmp_path: Path) -> None:
    (stack,) = stacks_of((2, 16, 16))
    stack.image.section_names = ("img_1", "img_2")
    assert section_groups([stack], table(tmp_path, "g,file\nb,2_mask.png\na,1_mask.png\n"), "g") == [["a", "b"]]
    assert section_groups([stack], table(tmp_path, "g,file,page\nb,x,1\na,y,0\n"), "g") == [["a", "b"]]
    with pytest.raises(UserError, match=r"names no image of image \(it has .x.png., the first"):
        section_groups([stack], table(tmp_path, "g,file\na,x.png\nb,y.png\n"), "g")
    with pytest.raises(UserError, match="has no row, or several, for img_2; give"):
        section_groups([stack], table(tmp_path, "g,file\na,img_1.png\nb,img_3.png\n"), "g")
