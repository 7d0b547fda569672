"""Groups of images from a CSV table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_autosegnet.data.annotations import LabelledStack, pair_stacks
from napari_autosegnet.data.groups import section_groups
from napari_autosegnet.data.images import image_from_array


def stacks_of(*shapes: tuple[int, ...]) -> list[LabelledStack]:
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
