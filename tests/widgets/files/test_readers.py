from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.learned_from import RunData
from napari_autosegnet.data.selection import Selection
from napari_autosegnet.errors import UserError
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.ome_zarr.metadata import OmeGroup
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.run import Run
from napari_autosegnet.units import Placement
from napari_autosegnet.widgets import plugin_reader
from napari_autosegnet.widgets.files import readers
from napari_autosegnet.widgets.files.run_layers import run_layers
from napari_autosegnet.widgets.files.sample_data import axons, axons_labeled, labeled_stack, more_axons, own_stack
from napari_autosegnet.widgets.files.stack_array import StackArray
from napari_autosegnet.widgets.layers.class_colors import LabelClass, annotation_layer, kept_classes
from napari_autosegnet.widgets.layers.notes import role
from napari_autosegnet.widgets.layers.writer import write_annotation
from napari_autosegnet.widgets.preferences import Preferences
from run_configs import update_config
from small_models import small_model

CLASSES = (LabelClass(1, "membrane", "#112233"), LabelClass(4, "cell", "#aabbcc"))


def layer(data: Any, about: dict[str, Any], kind: str) -> Any:
    from napari.layers import Layer

    return Layer.create(data, about, kind)


@pytest.mark.parametrize("shape", [(40, 30), (3, 40, 30)])
def test_annotation_is_written_and_read_back_with_its_names(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = np.random.default_rng(0).choice([0, 1, 4], shape).astype(np.int32)
    place = {"scale": (50.0, 4.0, 5.0)[-len(shape) :], "translate": (100.0, 7.0, 8.0)[-len(shape) :]}
    written = layer(data, annotation_layer(CLASSES, name="drawn", **place), "labels")
    path = str(tmp_path / "drawn.ome.zarr")
    assert write_annotation(path, *written.as_layer_data_tuple()[:2]) == [path]
    reader = plugin_reader.get_reader(path)
    assert reader is not None
    (found,) = [layer(*each) for each in reader(path)]
    assert np.array_equal(np.asarray(found.data), data)
    assert found.name == "drawn"
    assert tuple(found.scale) == place["scale"] and tuple(found.translate) == place["translate"]
    assert kept_classes(found) == CLASSES
    assert role(found) is None, "annotation must be used as such"
    assert found.get_color(4) == pytest.approx([0xAA / 255, 0xBB / 255, 0xCC / 255, 1])


def test_the_writer_takes_layers_without_names_and_writes_files_for_others(tmp_path: Path) -> None:
    data = np.arange(48).reshape(6, 8)
    write_annotation(str(tmp_path / "a.zarr"), data, {})
    about = {"scale": (40.0, 4.0, 4.0)[-data.ndim :], "units": ("nanometer",) * data.ndim}
    write_annotation(str(tmp_path / "a.mrc"), data, about)
    with mrcfile.open(tmp_path / "a.mrc") as file:
        np.testing.assert_array_equal(file.data, data)
        assert file.voxel_size.x == pytest.approx(40)
    with pytest.raises(UserError, match=r"a\.mrc exists; choose another name"):
        write_annotation(str(tmp_path / "a.mrc"), data, about)
    (found,) = readers.read_ome_zarr(tmp_path / "a.zarr")
    assert np.array_equal(np.asarray(found[0]), data)


def test_label_images_of_other_programs_are_annotation(tmp_path: Path) -> None:
    import zarr

    multiscale = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {"multiscales": [multiscale]}})
    group.create_array("0", data=np.zeros((20, 24), np.uint8))
    labels = group.create_group("labels", attributes={"ome": {"labels": ["nuclei"]}})
    about = {"multiscales": [multiscale], "image-label": {}}
    labels.create_group("nuclei", attributes={"ome": about}).create_array("0", data=np.ones((20, 24), np.uint8))
    image, found = [layer(*each) for each in readers.read_ome_zarr(tmp_path / "a.zarr")]
    assert image.data.shape == found.data.shape == (20, 24)
    assert role(found) is None and kept_classes(found) == ()


def test_numbered_objects_of_a_result_keep_their_colors(tmp_path: Path) -> None:
    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.inference.volume import predict_volume
    from napari_autosegnet.settings import PredictSettings

    image = image_from_array(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), name="flat")
    model = small_model()
    settings = PredictSettings(instances=True, instance_classes=(model.classes[1].name,))
    predict_volume(model, image, tmp_path / "out.zarr", settings)
    read = {
        about["name"]: layer(data, about, kind)
        for data, about, kind in readers.read_ome_zarr(tmp_path / "out.zarr")
        if kind == "labels"
    }
    assert {name: role(each) for name, each in read.items()} == {"segmentation": "result", "instances": "objects"}
    assert read["instances"].get_color(1).tolist() != read["instances"].get_color(2).tolist()


def test_a_result_is_read_as_labels_that_can_be_painted(tmp_path: Path) -> None:
    import torch

    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.inference.volume import predict_volume
    from napari_autosegnet.settings import PredictSettings

    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64), np.uint8)
    image = image_from_array(pixels, name="stack", scale=(50, 4, 4), translation=(0, 8, 8))
    model = small_model()
    out = tmp_path / "result.ome.zarr"
    predict_volume(model, image, out, PredictSettings(probabilities=True, levels=2))
    found = [layer(*each) if each[1].get("channel_axis") is None else each for each in readers.read_ome_zarr(out)]
    labels = found[-1]
    assert role(labels) == "result" and labels.data.shape == (2, 64, 64) and not labels.multiscale
    assert [each.name for each in kept_classes(labels)] == [info.name for info in model.classes]
    assert tuple(labels.scale) == (50, 4, 4) and tuple(labels.translate) == (0, 8, 8)
    labels.data_setitem((np.array([1]), np.array([2]), np.array([3])), 3)
    again = layer(*readers.read_ome_zarr(out)[-1])
    assert np.asarray(again.data[1])[2, 3] == 3, "what was painted did not reach the store"
    scores, about, kind = found[0]
    assert kind == "image" and about["channel_axis"] == 0 and scores.shape == (3, 2, 64, 64)
    assert about["name"][0] == f"probability of {model.classes[0].name}"


def test_large_sections_are_shown_as_a_pyramid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.inference.volume import predict_volume
    from napari_autosegnet.settings import PredictSettings

    monkeypatch.setattr(readers, "MAX_PAINTED", 32)
    image = image_from_array(np.zeros((64, 64), np.uint8), name="flat")
    predict_volume(small_model(), image, tmp_path / "out.zarr", PredictSettings(levels=2))
    data, _, _ = readers.read_ome_zarr(tmp_path / "out.zarr")[-1]
    assert [level.shape for level in data] == [(64, 64), (32, 32)]


def test_color_images_and_stacks_are_opened_lazily_when_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    gray = np.random.default_rng(0).integers(0, 255, (3, 20, 24), np.uint8)
    tifffile.imwrite(tmp_path / "gray.tif", gray, photometric="minisblack")
    whole, _ = readers.image_layer(tmp_path / "gray.tif")
    assert isinstance(whole, np.ndarray) and np.array_equal(whole, gray)
    monkeypatch.setattr(readers, "IN_MEMORY", 10)
    lazy, about = readers.image_layer(tmp_path / "gray.tif")
    assert isinstance(lazy, StackArray) and np.array_equal(lazy[1], gray[1])
    tifffile.imwrite(tmp_path / "rgb.tif", np.moveaxis(gray, 0, -1), photometric="rgb")
    color, about = readers.image_layer(tmp_path / "rgb.tif")
    assert about["rgb"] and color.shape == (20, 24, 3)
    write_image(tmp_path / "c.zarr", (20, 24), np.uint8, lambda _: gray, placement=Placement(), channels=3)
    store, about = readers.image_layer(tmp_path / "c.zarr")
    assert about["channel_axis"] == 0 and store.shape == (3, 20, 24)


@pytest.mark.parametrize("axes", ["tzyx", "tczyx", "ctzyx"])
def test_one_time_point_is_shown_beneath_its_result(tmp_path: Path, axes: str) -> None:
    import zarr

    sizes = {"t": 2, "c": 3, "z": 4, "y": 20, "x": 24}
    pixels = np.random.default_rng(0).integers(0, 255, [sizes[axis] for axis in axes], np.uint8)
    scale = [{"t": 0.5, "c": 1.0, "z": 50.0}.get(axis, 4.0) for axis in axes]
    steps = [{"type": "scale", "scale": scale}]
    multiscale = {
        "axes": [{"name": axis} for axis in axes],
        "datasets": [{"path": name, "coordinateTransformations": steps} for name in ("0", "1")],
    }
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", attributes={"ome": {"multiscales": [multiscale]}})
    for name in ("0", "1"):
        group.create_array(name, data=pixels)
    levels, about = readers.image_layer(tmp_path / "a.zarr", Selection(time_point=1))
    assert len(levels) == 2
    for level in levels:
        assert np.array_equal(np.asarray(level), pixels.take(1, axes.index("t")))
    assert tuple(about["scale"]) == (50, 4, 4) and tuple(about["translate"]) == (0, 0, 0)
    assert about.get("channel_axis") == (0 if "c" in axes else None)
    # A user who opens the store itself sees all of it.
    ((data, about, _),) = readers.read_ome_zarr(tmp_path / "a.zarr")
    assert data[0].shape == pixels.shape and len(about["scale"]) == len(axes.replace("c", ""))


def test_a_run_folder_opens_its_images_and_annotation(make_session: Any, settled: Any, tmp_path: Path) -> None:
    session = make_session()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 48, 48), np.uint8)
    labels = np.ones((2, 48, 48), np.uint8)
    labels[:, ::2] = 4
    session.viewer.add_image(pixels, name="stack", scale=(50, 4, 4), translate=(5, 6, 7))
    session.viewer.add_labels(labels, **annotation_layer(CLASSES, name="x", scale=(50, 4, 4), translate=(5, 6, 7)))
    session.annotation.follow_layers()
    settled(session)
    run = Run.create(tmp_path / "run")
    session.labeled_images.export(run)
    moved = run.path.rename(tmp_path / "elsewhere")  # a run may be handed on
    reader = plugin_reader.get_reader(str(moved))
    assert reader is not None
    image, found = [layer(*each) for each in reader(str(moved))]
    assert np.array_equal(np.asarray(image.data), pixels)
    assert image.name == "stack" and tuple(image.translate) == (5, 6, 7)
    assert np.array_equal(np.asarray(found.data), np.where(labels == 4, 2, 1))
    assert [each.name for each in kept_classes(found)] == ["membrane", "cell"]
    assert role(found) is None, "annotation must be used as such"


def test_a_run_of_the_command_line_is_opened_from_its_config(tmp_path: Path) -> None:
    from napari_autosegnet.data.annotations import parse_classes
    from small_jobs import write_data

    data = write_data(tmp_path / "data")
    run = Run.create(tmp_path / "run")
    update_config(
        run,
        data={
            "images": [str(path) for path in data["images"]],
            "labels": [str(path) for path in data["labels"]],
            "mapping": parse_classes(data["classes"]).model_dump(mode="json"),
            "split": {},
        },
    )
    image, labels = [layer(*each) for each in run_layers(run.path)]
    assert image.data.shape == labels.data.shape == (256, 256)
    assert set(np.unique(labels.data)) <= {1, 2, 3}
    update_config(run, data={"images": [str(tmp_path / "gone.tif")], "labels": ["x"], "mapping": {}})
    with pytest.raises(UserError, match="config.json is damaged at"):
        run_layers(run.path)


def test_what_a_run_read_of_a_file_is_what_is_shown(tmp_path: Path) -> None:
    from napari_autosegnet.data.annotations import parse_classes

    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 16, 16), np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    np.save(tmp_path / "labels.npy", np.ones((2, 16, 16), np.uint8))
    data = RunData(
        time_point=1,
        channels=("2",),
        axes="tcyx",
        images=(tmp_path / "image.npy",),
        labels=(tmp_path / "labels.npy",),
        mapping=parse_classes("1:a,2:b"),
    )
    run = Run.create(tmp_path / "run")
    RunConfiguration(data=data).save(run)
    image, labels = [layer(*each) for each in run_layers(run.path)]
    assert np.array_equal(np.asarray(image.data), pixels[1, 2]) and labels.data.shape == (16, 16)


def test_folders_of_a_run_are_shown_in_pairs(tmp_path: Path) -> None:
    from PIL import Image

    from napari_autosegnet.data.annotations import parse_classes

    for folder, names in (("images", ("c1", "c1_2")), ("labels", ("c1_masks", "c1_2_masks"))):
        (tmp_path / folder).mkdir()
        for value, name in enumerate(names, start=1):
            Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / folder / f"{name}.png")
    run = Run.create(tmp_path / "run")
    mapping = parse_classes("1:a,2:b").model_dump(mode="json")
    paths = {name: [str(tmp_path / name)] for name in ("images", "labels")}
    update_config(run, data={**paths, "mapping": mapping, "split": {}})
    image, labels = [layer(*each) for each in run_layers(run.path)]
    assert [int(section[0, 0]) for section in np.asarray(image.data)] == [1, 2]
    assert [int(section[0, 0]) for section in labels.data] == [1, 2]


def test_models_bring_no_layers_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    small_model().save(tmp_path / "model")
    for path in (tmp_path / "model", tmp_path / "model" / "model.json"):
        reader = plugin_reader.get_reader(str(path))
        assert reader is not None and reader(str(path)) == [(None,)]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"version": 1}))
    (tmp_path / "x.txt").write_text("text")
    for path in (tmp_path / "other", tmp_path / "x.txt", tmp_path, tmp_path / "missing"):
        assert plugin_reader.get_reader(str(path)) is None
    assert plugin_reader.get_reader([str(tmp_path / "model")]) is None


def test_class_names_of_other_programs_are_found(tmp_path: Path) -> None:
    import zarr

    group = zarr.create_group(tmp_path / "labels")
    group.attrs["ome"] = {
        "image-label": {
            "colors": [{"label-value": 2, "rgba": [255, 0, 16, 255]}, {"label-value": 0, "rgba": [0, 0, 0, 0]}],
        }
    }
    assert readers.stored_classes(OmeGroup.read(tmp_path / "labels")) == (LabelClass(2, "class 2", "#ff0010"),)


def test_samples_are_layers() -> None:
    image, labels = [layer(*each) for each in axons_labeled()]
    assert image.data.shape == labels.data.shape == (512, 512)
    assert set(np.unique(labels.data)) == {1, 2, 3}
    assert [each.name for each in kept_classes(labels)] == ["background", "myelin", "axon"]
    (unlabeled,) = [layer(*each) for each in axons()]
    assert np.array_equal(unlabeled.data, image.data) and unlabeled.name == image.name
    (other,) = [layer(*each) for each in more_axons()]
    assert other.data.shape == (512, 512) and not np.array_equal(other.data, image.data)


def test_an_own_stack_is_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    from napari_autosegnet.widgets.files import sample_data

    monkeypatch.setattr(sample_data, "read_preferences", Preferences)
    with pytest.raises(UserError, match="no folder is set"):
        own_stack()
    monkeypatch.setattr(sample_data, "read_preferences", lambda: Preferences(samples_folder=tmp_path))
    with pytest.raises(UserError, match="no NAME-volume"):
        own_stack()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8)
    tifffile.imwrite(tmp_path / "train-volume.tif", pixels, photometric="minisblack")
    labels = np.where(pixels > 100, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "train-labels.tif", labels, photometric="minisblack")
    image, found = [layer(*each) for each in own_stack()]
    assert np.array_equal(image.data, pixels)
    assert np.array_equal(found.data, np.where(labels == 255, 2, 1))


def test_the_shared_stack_is_a_sample(shared_data: Path) -> None:
    image, labels = [layer(*each) for each in labeled_stack(shared_data / "isbi2012")]
    assert image.data.shape == labels.data.shape == (30, 512, 512)
    assert np.mean(labels.data == 1) == pytest.approx(0.2196, abs=0.001)  # membrane, by the data's own description


def test_default_colors_differ() -> None:
    colors = [info.color for info in default_classes(["class"] * 12)]
    assert len(set(colors)) == 12


def test_napari_shows_what_is_doubtful_about_a_store(tmp_path: Path) -> None:
    import zarr
    from napari.utils.notifications import notification_manager

    from napari_autosegnet.data.images import open_image

    group = zarr.create_group(tmp_path / "odd.ome.zarr")
    group.create_array("0", data=np.zeros((2, 8, 8), np.uint8))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [0, -2.0, 2.0]}]
    image = {"name": "one", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image, {**image, "name": "two"}]}
    reader = plugin_reader.get_reader(str(tmp_path / "odd.ome.zarr"))
    assert reader is not None
    notification_manager.records.clear()
    ((data, _, kind),) = reader(str(tmp_path / "odd.ome.zarr"))
    assert kind == "image" and data.shape == (2, 8, 8)
    shown = [each.message for each in notification_manager.records]
    assert shown == [f"{note[:1].upper()}{note[1:]}." for note in open_image(tmp_path / "odd.ome.zarr").notes]
    assert len(shown) == 3 and "is negative (-2)" in shown[1] and "2 images (one, two)" in shown[2]
