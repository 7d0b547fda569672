"""Damaged Zarr stores are told in a line, not in zarr's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.ome_zarr.nodes import open_array, open_group


def array(path: Path) -> Path:
    zarr.create_array(path, shape=(2, 8, 8), chunks=(1, 8, 8), dtype="u1")
    return path


@pytest.mark.parametrize("content", [b"", b"\0" * 80, b'{"zarr_format": 3, "node_ty', b"[1]"])
def test_metadata_that_were_cut_off(tmp_path: Path, content: bytes) -> None:
    path = array(tmp_path / "a.zarr")
    (path / "zarr.json").write_bytes(content)
    for opener in (open_image, open_array, open_group):
        with pytest.raises(UserError, match=r"zarr.json is cut off or damaged; copy the store again"):
            opener(path)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["codecs"].append({"name": "jpegxl", "configuration": {}}),
            "is compressed in a way that is not known",
        ),
        (lambda c: c.update(data_type="complex_int7"), "holds values of a kind that is not known"),
        (lambda c: c.pop("chunk_grid"), "are incomplete or damaged"),
    ],
)
def test_what_zarr_does_not_take(tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    path = array(tmp_path / "a.zarr")
    content = json.loads((path / "zarr.json").read_text())
    change(content)
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        open_image(path)
    assert "\n" not in str(error.value)


def test_a_group_is_no_array(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(UserError, match="is not a Zarr array"):
        open_array(tmp_path / "g.zarr")
