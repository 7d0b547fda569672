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
from napari_autosegnet.settings import PredictSettings
from remembered_events import Events
from small_disks import mounted, resize

Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]
SETTINGS = PredictSettings(halo=4, tile=64)
OVERWRITE = SETTINGS.model_copy(update={"overwrite": True})


def write_ome(path: Path, array: np.ndarray, version: str = "0.5", axes: str = "zyx") -> Path:
    """An OME-Zarr image of one level."""
    kinds = {"t": "time", "c": "channel"}
    about: dict[str, Any] = {
        "axes": [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}]},
        ],
    }
    if version == "0.4":
        attributes: dict[str, Any] = {"multiscales": [about | {"version": "0.4"}]}
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [about]}}
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    encoding: Any = {"name": "v2" if version == "0.4" else "default", "separator": "/"}
    group.create_array("0", data=array, chunk_key_encoding=encoding)
    return path


@pytest.fixture
def picture(tmp_path: Path, noise: Noise) -> Path:
    """A 2D image in a folder of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(noise(40, 48)).save(folder / "picture.png")
    return folder / "picture.png"


@pytest.fixture
def store(tmp_path: Path, noise: Noise) -> Path:
    return write_ome(tmp_path / "image.zarr", noise(2, 40, 48))


def refused(model: Model, image: Path, out: Path | None, said: str, **more: Any) -> None:
    """A prediction, also one that overwrites, is refused and leaves all files as they are."""
    mask = None if "mask" not in more else open_image(more.pop("mask"))
    for settings in (SETTINGS, OVERWRITE):
        with pytest.raises(UserError, match=said) as raised:
            predict_volume(model, open_image(image), out, settings.model_copy(update=more), mask=mask)
        assert "\n" not in str(raised.value) and "--overwrite" not in str(raised.value)


@pytest.mark.parametrize("name", ["foreign.tif", "foreign.png", "plain.zarr", "array.zarr", "other.zarr"])
def test_overwriting_leaves_what_is_no_result(
    tmp_path: Path, model: Model, picture: Path, noise: Noise, tree: Tree, name: str
) -> None:
    place = tmp_path / "there" / name
    place.parent.mkdir()
    more = {}
    if name == "foreign.tif":
        tifffile.imwrite(place, noise(9, 9))
    elif name == "foreign.png":
        Image.fromarray(noise(9, 9)).save(place)
    elif name == "array.zarr":
        zarr.create_array(place, data=noise(9, 9))
        more = {"format": "zarr"}
    else:
        write_ome(place, noise(2, 9, 9))
        more = {"format": "zarr"} if name == "plain.zarr" else {}
    before = tree(place.parent)
    refused(model, picture, place, "is no result of this program|is another store and no result", **more)
    assert {k: v for k, v in tree(place.parent).items() if not k.endswith(".lock")} == before


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
    refused(model, store, None, f"{place} exists and is no result of this program", **settings)
    if place != "labels/segmentation":
        predict_volume(model, open_image(store), None, OVERWRITE)  # which writes nothing there
    np.testing.assert_array_equal(zarr.open_array(store / place, mode="r")[:], noise(2, 40, 48))


@pytest.mark.parametrize("name", ["out.tif", "out.png", "out.zarr", "plain.zarr"])
def test_overwriting_replaces_an_own_result(
    tmp_path: Path, model: Model, make_model: Callable[..., Model], picture: Path, tree: Tree, name: str
) -> None:
    more = {"format": "zarr"} if name == "plain.zarr" else {}
    if not name.endswith("png"):
        predict_volume(
            model,
            open_image(picture),
            tmp_path / "a" / name,
            SETTINGS.model_copy(update={**more, "probabilities": True}),
        )
    else:
        predict_volume(model, open_image(picture), tmp_path / "a" / name, SETTINGS)
    other = make_model(seed=1)
    predict_volume(other, open_image(picture), tmp_path / "a" / name, OVERWRITE.model_copy(update=more))
    predict_volume(other, open_image(picture), tmp_path / "b" / name, SETTINGS.model_copy(update=more))
    for lock in tmp_path.rglob(".*.lock"):
        lock.unlink()  # one for each place that was written
    assert tree(tmp_path / "a") == tree(tmp_path / "b")  # the probabilities are gone, too


def test_overwriting_with_another_version_leaves_a_valid_store(
    tmp_path: Path, model: Model, picture: Path, tree: Tree
) -> None:
    older = {"format": "ome-zarr-0.4"}
    predict_volume(model, open_image(picture), tmp_path / "a.zarr", SETTINGS)
    predict_volume(model, open_image(picture), tmp_path / "a.zarr", OVERWRITE.model_copy(update=older))
    predict_volume(model, open_image(picture), tmp_path / "b.zarr", SETTINGS.model_copy(update=older))
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


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


#: Stores of all kinds, and folders in them.
STORES = {
    "a.zarr": ["probabilities", "labels/segmentation/0/c/0"],
    "plain.zarr": ["", "c/0"],
    "old.zarr": ["labels/segmentation", "labels/segmentation/0/0"],
}


def overwriting(name: str) -> PredictSettings:
    formats = {"plain.zarr": {"format": "zarr"}, "old.zarr": {"format": "ome-zarr-0.4"}}
    return SETTINGS.model_copy(update={"probabilities": True, "overwrite": True, **formats.get(name, {})})


@pytest.mark.parametrize("name", STORES)
def test_overwriting_never_deletes_a_file_of_somebody_else(
    tmp_path: Path, model: Model, picture: Path, tree: Tree, name: str
) -> None:
    store = tmp_path / name
    for place in (store / within for within in STORES[name]):
        predict_volume(model, open_image(picture), store, overwriting(name))
        assert place.is_dir()
        (place / "notes.txt").write_text("years of work")
        before = tree(store)
        with pytest.raises(UserError, match=r"notes\.txt was not written by this program and would be lost"):
            predict_volume(model, open_image(picture), store, overwriting(name))
        assert tree(store) == before
        (place / "notes.txt").unlink()
    # What file managers leave in any folder is no reason.
    (place / ".DS_Store").write_bytes(b"x")
    predict_volume(model, open_image(picture), store, overwriting(name))
    assert not (place / ".DS_Store").exists()


@pytest.mark.parametrize("linked", ["labels", "labels/segmentation", "labels/segmentation/0", "probabilities/0/c"])
def test_overwriting_follows_no_links_within_a_result(
    tmp_path: Path, model: Model, picture: Path, tree: Tree, linked: str
) -> None:
    """Where somebody moved a part to a larger disk."""
    store = tmp_path / "a.zarr"
    predict_volume(model, open_image(picture), store, overwriting("a.zarr"))
    (store / linked).rename(tmp_path / "moved")
    (store / linked).symlink_to(tmp_path / "moved")
    before = tree(store), tree(tmp_path / "moved")
    with pytest.raises(UserError, match=rf"{linked} is a link and would be lost with the result; move it away"):
        predict_volume(model, open_image(picture), store, overwriting("a.zarr"))
    assert (tree(store), tree(tmp_path / "moved")) == before and (store / linked).is_symlink()
    # It can be gone on with, though.
    events = Events()
    settings = overwriting("a.zarr").model_copy(update={"overwrite": False})
    assert predict_volume(model, open_image(picture), store, settings, report=events).done == 1
    assert not events.of(BlockWritten)


def test_overwriting_leaves_linked_probabilities_of_a_tiff(tmp_path: Path, model: Model, picture: Path) -> None:
    settings = overwriting("a.tif")
    predict_volume(model, open_image(picture), tmp_path / "a.tif", settings)
    scores = tmp_path / "a-probabilities.tif"
    scores.rename(tmp_path / "moved.tif")
    scores.symlink_to(tmp_path / "moved.tif")
    with pytest.raises(UserError, match=r"a-probabilities\.tif is a link"):
        predict_volume(model, open_image(picture), tmp_path / "a.tif", settings)
    assert scores.is_symlink() and (tmp_path / "a.tif").exists() and (tmp_path / "moved.tif").exists()


def test_somebody_elses_unfinished_file_is_no_rubbish(tmp_path: Path, model: Model, picture: Path) -> None:
    """Browsers call their downloads so, too."""
    store = tmp_path / "a.zarr"
    predict_volume(model, open_image(picture), store, SETTINGS)
    (store / "thesis.partial").write_text("half of it")
    own = [
        store / f"zarr.{'0' * 32}.partial",
        store / "labels" / "segmentation" / "0" / "c" / "0" / f"0.{'f' * 32}.partial",
    ]
    for file in own:
        file.write_bytes(bytes(1000))
    predict_volume(model, open_image(picture), store, SETTINGS)
    assert not any(file.exists() for file in own)
    predict_volume(model, open_image(picture), store, OVERWRITE)
    assert (store / "thesis.partial").read_text() == "half of it"


def test_a_folder_that_was_being_deleted_at_a_crash_goes_at_the_next_start(
    tmp_path: Path, model: Model, picture: Path
) -> None:
    store = tmp_path / "a.zarr"
    predict_volume(model, open_image(picture), store, SETTINGS)
    rubbish = store / "labels" / ".segmentation.removed"
    rubbish.mkdir()
    (rubbish / "0").write_bytes(bytes(1000))
    predict_volume(model, open_image(picture), store, SETTINGS)
    assert not rubbish.exists()


@pytest.mark.parametrize(
    "size", [pytest.param("24k", marks=pytest.mark.slow), "100k", pytest.param("600k", marks=pytest.mark.slow)]
)
def test_a_disk_that_fills_is_not_kept_full(tmp_path: Path, model: Model, size: str) -> None:
    """Nothing half-written stays, and once there is space the same command goes on."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 255, (10, 200, 200), dtype=np.uint8))
    settings = SETTINGS.model_copy(update={"block": (4, 100, 100), "probabilities": True})
    disk = tmp_path / "disk"
    for name in ("a.tif", "a.zarr"):
        with mounted(disk, size):
            with pytest.raises(UserError, match="no space left|cannot write"):
                predict_volume(model, open_image(tmp_path / "image.npy"), disk / name, settings)
            assert list(disk.rglob("*.partial")) == []
            resize(disk, "20m")
            summary = predict_volume(model, open_image(tmp_path / "image.npy"), disk / name, settings)
            assert summary.done == summary.blocks
        disk.rmdir()


@pytest.mark.parametrize(
    "damaged", ["zarr.json", "labels/zarr.json", "labels/segmentation/zarr.json", "labels/segmentation/0/zarr.json"]
)
def test_metadata_of_a_result_that_were_cut_off(model: Model, store: Path, tmp_path: Path, damaged: str) -> None:
    """One line, and --overwrite mends it."""
    out = tmp_path / "result.zarr"
    predict_volume(model, open_image(store), out, SETTINGS)
    file = out / damaged
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match=r"zarr.json is cut off or damaged; .*start again with --overwrite"):
        predict_volume(model, open_image(store), out, SETTINGS)
    assert predict_volume(model, open_image(store), out, OVERWRITE).failed == ()
    assert open_image(out / "labels" / "segmentation").shape == (2, 40, 48)


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
