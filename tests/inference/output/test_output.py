"""Where a result may go, and what it may replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten
from napari_autosegnet.inference.output.ledger import ledger_path, locked
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from predicted_files import OVERWRITE, SETTINGS, refused, write_ome
from remembered_events import Events

Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]


def test_a_result_in_an_image_gives_no_right_to_the_image(
    tmp_path: Path, model: Model, store: Path, picture: Path, tree: Tree
) -> None:
    predict_volume(model, open_image(store), None, SETTINGS)
    assert ledger_path(store).exists()
    before = tree(store)
    refused(model, picture, store, r"image\.zarr is another store.*give another --out")
    refused(model, picture, store, r"image\.zarr is another store", format="zarr")
    assert tree(store) == before


def test_an_image_that_could_hold_the_result_is_named(tmp_path: Path, model: Model, store: Path, noise: Noise) -> None:
    write_ome(tmp_path / "other.zarr", noise(2, 9, 9))
    refused(model, store, tmp_path / "other.zarr", "other.zarr is another store.*leave --out out")


@pytest.mark.parametrize("place", ["labels/segmentation", "labels/instances", "probabilities"])
def test_what_somebody_else_put_into_the_image_stays(model: Model, store: Path, noise: Noise, place: str) -> None:
    settings = {"instances": True, "instance_classes": ("class 1",)}
    if place != "labels/segmentation":
        predict_volume(model, open_image(store), None, SETTINGS)
    zarr.create_array(store / place, data=noise(2, 40, 48))
    refused(model, store, None, f"{place} exists and is not a result of this program", **settings)
    if place != "labels/segmentation":
        predict_volume(model, open_image(store), None, OVERWRITE)  # which writes nothing there
    np.testing.assert_array_equal(zarr.open_array(store / place, mode="r")[:], noise(2, 40, 48))


def test_a_result_is_not_written_into_what_is_read(tmp_path: Path, model: Model, picture: Path, store: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(mask)
    tiff = tmp_path / "image.tif"
    tifffile.imwrite(tiff, np.zeros((40, 48), np.uint8))
    (tmp_path / "link.tif").symlink_to(tiff)
    refused(model, picture, picture, "picture.png is the image itself; give another --out")
    refused(model, tiff, tiff, "image.tif is the image itself")
    refused(model, tiff, tmp_path / "link.tif", "is the image itself")
    refused(model, picture, mask, "mask.png is the mask itself", mask=mask)
    refused(model, picture.parent, picture.parent / "out.tif", "lies in the image .*pictures;")
    refused(model, picture, picture.parent, "the image .*picture.png lies in .*pictures;")
    for name in ("0", "0/out.zarr", "out.zarr", "labels/mine"):
        refused(model, store, store / name, "lies in the image .*image.zarr;")
    refused(model, store, store / "0", "lies in the image", format="zarr")
    refused(model, store / "0", store, "lies in .*image.zarr;")
    refused(model, picture, store / "0" / "out.zarr", "lies in the Zarr array")
    assert sorted(file.name for file in store.iterdir()) == ["0", "zarr.json"]
    assert sorted(file.name for file in (store / "0").iterdir()) == ["c", "zarr.json"]
    assert open_image(picture.parent).sections == 1


def test_probabilities_beside_the_labels_are_no_input(tmp_path: Path, model: Model, picture: Path) -> None:
    settings = SETTINGS.model_copy(update={"probabilities": True})
    predict_volume(model, open_image(picture), tmp_path / "out.tif", settings)
    before = (tmp_path / "out-probabilities.tif").read_bytes()
    image = open_image(tmp_path / "out-probabilities.tif").with_channels([0])
    with pytest.raises(UserError, match="out-probabilities.tif is the image itself"):
        predict_volume(model, image, tmp_path / "out.tif", OVERWRITE)
    assert (tmp_path / "out-probabilities.tif").read_bytes() == before


def test_a_result_is_no_image_for_itself(tmp_path: Path, model: Model, picture: Path, tree: Tree) -> None:
    out = tmp_path / "out.zarr"
    predict_volume(model, open_image(picture), out, SETTINGS)
    before = tree(out)
    refused(model, out, None, "the image .* lies in .*segmentation; give another --out")
    refused(model, out, out, "the image .* lies in .*segmentation; give another --out")
    assert tree(out) == before


def test_a_mask_in_the_images_labels(model: Model, store: Path) -> None:
    mask = np.zeros((2, 40, 48), np.uint8)
    mask[1] = 1
    (store / "labels").mkdir()
    write_ome(store / "labels" / "mask", mask)
    summary = predict_volume(model, open_image(store), None, SETTINGS, mask=open_image(store / "labels" / "mask"))
    assert summary.done == 1
    found = zarr.open_array(store / "labels" / "segmentation" / "0", mode="r")[:]
    assert not found[0].any() and found[1].all()
    refused(model, store, None, "lies in .*segmentation", mask=summary.labels)


def test_another_time_point_or_channel_is_another_result(tmp_path: Path, model: Model, noise: Noise) -> None:
    """Also where all that is sampled of the image is equal."""
    array = np.broadcast_to(noise(1, 40, 48), (2, 2, 1, 40, 48)).copy()
    image = write_ome(tmp_path / "image.zarr", array, axes="tczyx")
    plain = tmp_path / "plain.npy"
    np.save(plain, array[0, 0, 0])
    out = tmp_path / "out.zarr"
    predict_volume(model, open_image(image, time=0, channels=["0"]), out, SETTINGS)
    assert predict_volume(model, open_image(image, time=0, channels=["0"]), out, SETTINGS).done == 1
    with pytest.raises(UserError, match="another image: time point differ"):
        predict_volume(model, open_image(image, time=1, channels=["0"]), out, SETTINGS)
    with pytest.raises(UserError, match="another image: channels chosen differ"):
        predict_volume(model, open_image(image, time=0, channels=["1"]), out, SETTINGS)
    predict_volume(model, open_image(plain, axes="yx"), tmp_path / "plain.zarr", SETTINGS)
    with pytest.raises(UserError, match="axes differ"):
        predict_volume(model, open_image(plain), tmp_path / "plain.zarr", SETTINGS)


def test_a_path_without_a_name(
    tmp_path: Path, model: Model, store: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store)
    summary = predict_volume(model, open_image("."), None, SETTINGS)
    assert summary.labels == store / "labels" / "segmentation" and ledger_path(store).exists()
    assert predict_volume(model, open_image(store), store, SETTINGS).done == 1
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert predict_volume(model, open_image(picture), Path("."), SETTINGS).path == tmp_path / "empty"
    assert predict_volume(model, open_image(picture), Path("."), OVERWRITE).done == 1
    assert Path("labels").is_dir()  # the folder that somebody is in was not replaced
    (tmp_path / "empty" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "empty" / "below")
    assert predict_volume(model, open_image(picture), Path(".."), SETTINGS).path == tmp_path / "empty"
    refused(model, picture, Path("/"), "give .*--out")


def test_a_format_needs_a_place_of_its_own(tmp_path: Path, model: Model, store: Path, noise: Noise) -> None:
    refused(model, store, None, "is OME-Zarr 0.5, as the image is; leave --format zarr out", format="zarr")
    refused(model, store, store, "leave --format ome-zarr-0.4 out", format="ome-zarr-0.4")
    older = write_ome(tmp_path / "older.zarr", noise(2, 40, 48), version="0.4")
    refused(model, older, None, "is OME-Zarr 0.4, as the image is; leave --format zarr out", format="zarr")
    predict_volume(model, open_image(older), None, SETTINGS.model_copy(update={"format": "ome-zarr-0.4"}))


@pytest.mark.parametrize("name", ["out.tif", "out.png", "out.zarr"])
def test_a_stack_of_one_section(tmp_path: Path, model: Model, noise: Noise, name: str) -> None:
    image = open_image(write_ome(tmp_path / "image.zarr", noise(1, 40, 48)))
    settings = SETTINGS.model_copy(update={"probabilities": name != "out.png"})
    predict_volume(model, image, tmp_path / name, settings)
    assert predict_volume(model, image, tmp_path / name, settings).done == 1
    found = open_image(tmp_path / name)
    assert found.sections == 1 and found.section(0).all()


def test_a_region_of_a_png(tmp_path: Path, model: Model, picture: Path) -> None:
    settings = SETTINGS.model_copy(update={"region": "5:30,10:48"})
    predict_volume(model, open_image(picture), tmp_path / "out.png", settings)
    predict_volume(model, open_image(picture), tmp_path / "out.tif", settings)
    found = open_image(tmp_path / "out.png").section(0)
    assert found[0, 5:30, 10:].all() and np.count_nonzero(found) == 25 * 38
    np.testing.assert_array_equal(found, open_image(tmp_path / "out.tif").section(0))


def shapes_of(labels: Path) -> list[tuple[int, ...]]:
    levels = sorted(folder for folder in labels.iterdir() if folder.is_dir())
    return [zarr.open_array(folder, mode="r").shape for folder in levels]


def test_the_levels_of_a_tiff(tmp_path: Path, model: Model, noise: Noise) -> None:
    array = noise(70, 101)
    with tifffile.TiffWriter(tmp_path / "image.ome.tif") as tiff:
        tiff.write(array, subifds=2, tile=(32, 32), metadata={"axes": "YX"})
        # This source drops the odd remainder, where ours would round up.
        tiff.write(array[:70:2, :100:2], subfiletype=1, tile=(32, 32))
        tiff.write(array[:68:4, :100:4], subfiletype=1, tile=(32, 32))
    summary = predict_volume(model, open_image(tmp_path / "image.ome.tif"), tmp_path / "out.zarr", SETTINGS)
    assert shapes_of(summary.labels) == [(70, 101), (35, 50), (17, 25)]


@pytest.mark.parametrize("missing", [False, True])
def test_the_levels_of_a_store_with_axes_of_any_name(tmp_path: Path, model: Model, noise: Noise, missing: bool) -> None:
    image = write_ome(tmp_path / "image.zarr", noise(2, 40, 49))
    group = zarr.open_group(image)
    about: Any = group.attrs["ome"]
    multiscale = about["multiscales"][0]
    for axis in multiscale["axes"]:
        axis["name"] = axis["name"].upper()
    multiscale["datasets"].append(
        {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, 2.0]}]}
    )
    group.attrs["ome"] = about
    if not missing:
        group.create_array("1", data=noise(2, 20, 24))
    summary = predict_volume(model, open_image(image), tmp_path / "out.zarr", SETTINGS)
    assert shapes_of(summary.labels) == [(2, 40, 49), (2, 20, 25) if missing else (2, 20, 24)]


def outer(path: Path, version: str = "0.5") -> Path:
    """A Zarr of several images, as bioformats2raw writes it."""
    zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes={"bioformats2raw.layout": 3})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_larger_zarr_holds_nothing_but_the_labels(tmp_path: Path, model: Model, noise: Noise, version: str) -> None:
    several = outer(tmp_path / "several.zarr", version)
    for name in "01":
        write_ome(several / name, noise(2, 40, 48, seed=int(name)), version=version)
    for name in "01":
        summary = predict_volume(model, open_image(several / name), None, SETTINGS)
        assert summary.labels == several / name / "labels" / "segmentation"
        assert predict_volume(model, open_image(several / name), several / name, SETTINGS).done == 1
    assert sorted(file.name for file in several.iterdir() if not file.name.startswith((".z", "zarr"))) == ["0", "1"]
    assert sorted(file.name for file in tmp_path.glob("*.jsonl")) == [
        "several.zarr.0.ledger.jsonl",
        "several.zarr.1.ledger.jsonl",
    ]


def test_the_zarr_around_an_image_means_the_image(tmp_path: Path, model: Model, noise: Noise) -> None:
    several = outer(tmp_path / "several.zarr")
    write_ome(several / "0", noise(2, 40, 48))
    image = open_image(several)
    assert predict_volume(model, image, None, SETTINGS).labels == several / "0" / "labels" / "segmentation"
    assert predict_volume(model, image, several, SETTINGS).labels == several / "0" / "labels" / "segmentation"
    other = outer(tmp_path / "other.zarr")
    write_ome(other / "0", noise(2, 40, 48))
    refused(model, several, other, "other.zarr is another store and no result of this program; leave --out out")


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_are_kept_up_to_date(tmp_path: Path, model: Model, noise: Noise, version: str) -> None:
    several = outer(tmp_path / "several.zarr", version)
    path = write_ome(several / "0", noise(2, 40, 48), version=version)
    other = write_ome(several / "1", noise(2, 40, 48), version=version)
    zarr.consolidate_metadata(path)
    zarr.consolidate_metadata(several)
    predict_volume(model, open_image(path), None, SETTINGS.model_copy(update={"probabilities": True}))
    for group, place in ((path, ""), (several, "0/")):
        opened = zarr.open_group(group, mode="r", use_consolidated=True)
        assert opened[f"{place}labels/segmentation/0"].shape == (2, 40, 48)  # type: ignore[union-attr]
        assert opened[f"{place}probabilities/0"].shape == (2, 2, 40, 48)  # type: ignore[union-attr]
    predict_volume(model, open_image(path), None, OVERWRITE)
    assert "probabilities" not in zarr.open_group(path, mode="r", use_consolidated=True)
    predict_volume(model, open_image(other), None, SETTINGS)
    assert zarr.open_group(other, mode="r").metadata.consolidated_metadata is None
    assert "1/labels/segmentation/0" in zarr.open_group(several, mode="r", use_consolidated=True)


def test_a_link_to_a_result_means_the_result(tmp_path: Path, model: Model, noise: Noise) -> None:
    """The ledger lies beside the result, and what is there is gone on with."""
    np.save(tmp_path / "image.npy", noise(2, 40, 48))
    image = open_image(tmp_path / "image.npy")
    (tmp_path / "disk").mkdir()
    for name in ("a.zarr", "a.tif"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
        assert predict_volume(model, image, tmp_path / name, SETTINGS).done == 1
        assert (tmp_path / "disk" / f"{name}.ledger.jsonl").exists() and (tmp_path / name).is_symlink()
        events = Events()
        assert predict_volume(model, image, tmp_path / "disk" / name, SETTINGS, report=events).done == 1
        assert not events.of(BlockWritten)
        predict_volume(model, image, tmp_path / name, SETTINGS.model_copy(update={"overwrite": True}))
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).exists()
    (tmp_path / "loop.zarr").symlink_to(tmp_path / "loop.zarr")
    with pytest.raises(UserError, match=r"loop\.zarr leads nowhere .*--out"):
        predict_volume(model, image, tmp_path / "loop.zarr", SETTINGS)


def test_two_results_with_a_part_in_common_are_not_written_at_once(tmp_path: Path, model: Model, noise: Noise) -> None:
    """The probabilities of one would be the labels of the other."""
    np.save(tmp_path / "image.npy", noise(2, 40, 48))
    image = open_image(tmp_path / "image.npy")
    with (
        locked(tmp_path / "a-probabilities.tif"),
        pytest.raises(UserError, match=r"another process is writing .*a-probabilities\.tif"),
    ):
        predict_volume(model, image, tmp_path / "a.tif", SETTINGS.model_copy(update={"probabilities": True}))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_unit_of_the_image_is_that_of_the_result(model: Model, tmp_path: Path, noise: Noise, version: str) -> None:
    image = write_ome(tmp_path / "i.zarr", noise(2, 40, 48), version)
    file = image / (".zattrs" if version == "0.4" else "zarr.json")
    content = json.loads(file.read_text())
    about = (content if version == "0.4" else content["attributes"]["ome"])["multiscales"][0]
    for axis, unit in zip(about["axes"], ("um", "nm", "nm"), strict=True):
        axis["unit"] = unit
    about["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [0.05, 4, 4]}]
    file.write_text(json.dumps(content))
    for out in ("r.zarr", "r.tif"):
        predict_volume(model, open_image(image), tmp_path / out, SETTINGS)
        found = open_image(tmp_path / out)
        assert found.unit == "nanometer" and found.scale == pytest.approx((50, 4, 4))
