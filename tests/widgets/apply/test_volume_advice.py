"""What the dialog for a whole stack says of its voxels: how objects grow, and whether there are three planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

import tifffile
from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QWidget

from apply_steps import use_run
from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.images import open_image
from napari_autosegnet.run import Run
from napari_autosegnet.widgets.apply.apply_dialog import ApplyDialog
from napari_autosegnet.widgets.apply.apply_step import ApplyStep

Open = Callable[..., ApplyDialog]
CLASSES = default_classes(["cell", "membrane"])


@pytest.fixture
def open_dialog(make_session: Any, qtbot: Any) -> Open:
    def make(scale: Sequence[float] = (50, 4, 4), unit: str = "nm", sections: int = 3) -> ApplyDialog:
        session = make_session()
        pixels = np.zeros((sections, 24, 32), np.uint8)
        session.viewer.add_image(pixels, name="stack", scale=scale, units=(unit,) * 3)
        session.annotation.follow_layers()
        dialog = ApplyDialog(session, CLASSES)
        qtbot.addWidget(dialog)
        qtbot.waitUntil(lambda: not dialog.is_looking, timeout=10_000)
        return dialog

    return make


def field(dialog: ApplyDialog, kind: type[QWidget], name: str) -> Any:
    return dialog.form.findChild(kind, name)


def choose(dialog: ApplyDialog, name: str, value: str) -> None:
    box = field(dialog, QComboBox, name)
    box.setCurrentIndex(box.findData(value))


def test_it_is_seen_how_objects_grow_and_can_be_changed(open_dialog: Open) -> None:
    dialog = open_dialog()
    said, growth = dialog.advice.objects_label, field(dialog, QComboBox, "instance_growth")
    merge = field(dialog, QLineEdit, "instance_merge")
    for widget in (said, growth, merge):
        assert not widget.isVisibleTo(dialog)
    field(dialog, QCheckBox, "instances").setChecked(True)
    for widget in (said, growth, merge):
        assert widget.isVisibleTo(dialog)
    assert said.text() == (
        "Sections are 50 nm apart, pixels 4 nm: objects grow in each section and are linked. "
        "Fragments merge where membrane between them is less probable than 0.2."
    )
    choose(dialog, "instance_growth", "volume")
    merge.setText("0")
    merge.textEdited.emit("0")
    assert said.text() == (
        "Sections are 50 nm apart, pixels 4 nm; as chosen, objects grow through the volume (3D). "
        "Fragments that touch are not merged: only their shape tells them apart."
    )
    settings = dialog.read().settings
    assert (settings.instance_growth, settings.instance_merge) == ("volume", 0)


def test_a_file_is_looked_at_too(open_dialog: Open, qtbot: Any, tmp_path: Path) -> None:
    dialog = open_dialog()
    field(dialog, QCheckBox, "instances").setChecked(True)
    dialog.image_box.setCurrentIndex(dialog.image_box.count() - 1)
    assert dialog.advice.objects_label.text().startswith("Fragments merge"), "nothing is chosen yet"
    path = tmp_path / "cubes.ome.tif"
    sizes = {f"PhysicalSize{axis}": 8.0 for axis in "XYZ"} | {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(path, np.zeros((4, 32, 32), np.uint8), metadata={"axes": "ZYX", **sizes})
    dialog.file_line.setText(str(path))
    choose(dialog, "planes", "all")
    dialog.start_button.click()
    assert "try again in a moment" in dialog.message.text()
    qtbot.waitUntil(lambda: not dialog.is_looking, timeout=10_000)
    choose(dialog, "planes", "xy")
    assert "Sections are 8 nm apart, pixels 8 nm: objects grow through" in dialog.advice.objects_label.text()
    dialog.file_line.setText(str(tmp_path / "no.tif"))
    qtbot.waitUntil(lambda: not dialog.is_looking, timeout=10_000)
    assert dialog.advice.objects_label.text().startswith("Fragments merge")


@pytest.mark.parametrize(
    ("scale", "unit", "sections", "said", "offered", "refused"),
    [
        ((8, 4, 4), "nm", 3, "Voxels are 8 x 4 x 4 nm, and three planes need cubes. As cubes, the volume has 5 "
         "sections instead of 3, 0.0 MB before they are compressed.", True, "tick 'Write cubes first', or choose"),
        ((50, 4, 4), "nm", 3, "The sections of stack are 12.5 pixels apart, and at most 4 can be bridged; segment it "
         "in one plane.", False, "at most 4 can be bridged"),
        ((4, 4, 4), "nm", 3, "", False, None),
        ((1, 1, 1), "pixel", 3, "The image says nothing of its voxels; they are taken for cubes.", False, None),
        ((8, 4, 4), "nm", 1, "One section has no other planes; choose xy.", False, "has no other planes"),
    ],
)  # fmt: skip
def test_three_planes_need_cubes(
    open_dialog: Open,
    scale: Sequence[float],
    unit: str,
    sections: int,
    said: str,
    offered: bool,
    refused: str | None,
) -> None:
    dialog = open_dialog(scale, unit, sections)
    advice = dialog.advice
    assert advice.planes_label.isHidden() and advice.cubes_box.isHidden()
    choose(dialog, "planes", "all")
    assert advice.planes_label.text() == said and advice.cubes_box.isVisibleTo(dialog) == offered
    dialog.start_button.click()
    assert (dialog.chosen is None) == (refused is not None)
    if refused is not None:
        assert refused in dialog.message.text() and "\n" not in dialog.message.text()
    advice.cubes_box.setChecked(True)
    if offered:
        assert dialog.read().cubes
    choose(dialog, "planes", "xy")
    assert advice.cubes_box.isHidden() and not dialog.read().cubes


def test_cubes_are_written_by_the_worker_and_shown_beneath_the_result(
    step: ApplyStep, run: Run, qtbot: Any, stack: np.ndarray, tmp_path: Path
) -> None:
    viewer, volume = step.session.viewer, step.volume
    image = viewer.layers["stack"]
    image.scale, image.units = (8, 4, 4), ("nm",) * 3
    use_run(step, run, qtbot)
    dialog = ApplyDialog(step.session, CLASSES)
    qtbot.addWidget(dialog)
    qtbot.waitUntil(lambda: not dialog.is_looking, timeout=10_000)
    choose(dialog, "planes", "all")
    dialog.advice.cubes_box.setChecked(True)
    dialog.out_line.setText(str(tmp_path / "result.zarr"))
    (tmp_path / "stack-cubes.zarr").write_text("mine")
    with qtbot.waitSignal(volume.done, timeout=120_000):
        volume.start(run.model_folder, dialog.read())
    assert volume.client.state == "finished", volume.client.reason
    assert (tmp_path / "stack-cubes.zarr").read_text() == "mine"
    cubes = open_image(tmp_path / "stack-cubes-2.zarr")
    assert (cubes.shape, cubes.scale) == ((5, 96, 96), (4, 4, 4))
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=10_000)
    shown, result = (next(each for each in viewer.layers if word in each.name) for word in ("cubes", "segmentation"))
    assert tuple(result.data.shape) == (5, 96, 96) and tuple(shown.scale) == tuple(result.scale) == (4, 4, 4)
    assert tuple(shown.translate) == tuple(result.translate) == tuple(image.translate)
    assert np.array_equal(np.asarray(shown.data[::2]), stack)
