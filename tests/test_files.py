"""Files that a crash leaves whole, and paths that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.files import append_line, refuse_unwritable, write_atomically
from napari_autosegnet.inference.output.output import open_output
from napari_autosegnet.run import Run
from napari_autosegnet.settings import PredictSettings


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_atomically(file, "old")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(file / "below.json", "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_takes_no_file_is_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    for path in (file / "below.onnx", file / "new" / "below.onnx", tmp_path / "new" / f"{'x' * 250}.onnx"):
        with pytest.raises(UserError, match="cannot write .*; free some space or choose another folder"):
            refuse_unwritable(path)
    refuse_unwritable(file)
    refuse_unwritable(tmp_path / "new" / "newer" / "model.onnx")
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "old"


def test_a_line_is_appended_to_a_file_of_any_end(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    append_line(file, "one")
    append_line(file, "two")
    file.write_bytes(file.read_bytes() + b"torn")
    append_line(file, "ü")
    assert file.read_text(encoding="utf-8") == "one\ntwo\ntorn\nü\n"


def test_nothing_is_written_to_a_folder_named_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = image_from_array(np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match="s3://bucket/result.zarr is an address, and results are written to a disk"):
        open_output(Path("s3://bucket/result.zarr"), image, [], PredictSettings(), chunks=(1, 4, 4), block=(1, 4, 4))
    with pytest.raises(UserError, match="s3://bucket/run is an address, and runs are kept on a disk"):
        Run.create(Path("s3://bucket/run"))
    place = tmp_path / "result"
    with pytest.raises(UserError, match=f"^file://{place} is an address; give the path {place}$"):
        Run.create(Path(f"file://{place}"))
    with pytest.raises(UserError, match=f"^file://{place} is an address; give the path {place}$"):
        refuse_unwritable(Path(f"file://{place}"))
    assert not list(tmp_path.iterdir())
