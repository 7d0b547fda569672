"""Files and settings for an application of a model, asked for in a dialog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog, Chosen


@pytest.fixture
def dialog(session: Any, qtbot: Any) -> ApplyDialog:
    dialog = ApplyDialog(session)
    qtbot.addWidget(dialog)
    return dialog


def test_the_dialog_offers_layers_and_files(dialog: ApplyDialog, session: Any, tmp_path: Path) -> None:
    image = session.viewer.layers["stack"]
    assert dialog.read() == Chosen(image, None, PredictSettings())
    dialog.out_line.setText(str(tmp_path / "result.zarr"))
    assert dialog.read().out == tmp_path / "result.zarr"
    dialog.image_box.setCurrentIndex(1)
    (tmp_path / "stack.tif").write_bytes(b"")
    dialog.file_line.setText(str(tmp_path / "stack.tif"))
    assert dialog.read().source == tmp_path / "stack.tif"
    dialog.start_button.click()
    assert dialog.chosen is not None and dialog.result() == dialog.DialogCode.Accepted


def test_a_result_may_be_a_file_and_what_is_lost_is_said(
    dialog: ApplyDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = "OME-Zarr (*.zarr);;TIFF (*.tif);;MRC (*.mrc);;HDF5 (*.h5);;NIfTI (*.nii);;NIfTI (*.nii.gz)"
    chosen = {"result": "MRC (*.mrc)", "a.ome.zarr": "OME-Zarr (*.zarr)", "b.hdf5": "OME-Zarr (*.zarr)", "c": ""}
    said = []
    (choose,) = [each for each in dialog.findChildren(QPushButton) if each.accessibleName() == "Choose the result"]
    for name, kind in chosen.items():

        def ask(parent: Any, title: str, folder: str, filters: str, answer: Any = (str(tmp_path / name), kind)) -> Any:
            assert filters == offered
            return answer

        monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
        choose.click()
        out = dialog.read().out
        assert out is not None
        said.append((out.name, dialog.loss_label.text().partition(".")[2].partition(",")[0]))
        assert dialog.loss_label.isVisibleTo(dialog) == (".zarr" not in out.name)
    assert said == [
        ("result.mrc", "mrc does not keep class names"),
        ("a.ome.zarr", ""),
        ("b.hdf5", "hdf5 does not keep class names"),
        ("c.zarr", ""),
    ]


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("file", "", "Choose the file"),
        ("file", "/no/such/file.tif", "There is no file"),
        ("time", "last", "'Time point' must be a whole number, not last"),
        ("out", "result.svs", "A result ends in .zarr, .mrc, .h5, .nii, .nii.gz or .tif, not 'result.svs'; change it"),
        ("block", "512", "'Block'"),
        ("workers", "0", "'Processes' must be at least 1"),
    ],
)
def test_errors_of_the_dialog_are_one_line(field: str, text: str, message: str, dialog: ApplyDialog) -> None:
    from qtpy.QtWidgets import QLineEdit

    if field == "file":
        dialog.image_box.setCurrentIndex(1)
        dialog.file_line.setText(text)
    elif field == "time":
        dialog.image_box.setCurrentIndex(1)
        dialog.file_line.setText(__file__)
        dialog.reading.findChild(QLineEdit, "time_point").setText(text)
    elif field == "out":
        dialog.out_line.setText(text)
    else:
        dialog.form.findChild(QLineEdit, field).setText(text)
    dialog.start_button.click()
    assert message in dialog.message.text() and "\n" not in dialog.message.text()
    assert dialog.chosen is None
