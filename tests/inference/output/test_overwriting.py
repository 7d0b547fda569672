"""What is overwritten or deleted is ours, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet.data.images import open_image
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import BlockWritten
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from predicted_files import OVERWRITE, SETTINGS, refused, write_ome
from remembered_events import Events
from small_disks import mounted, resize

#: Stores of all kinds, and folders in them.
STORES = {
    "a.zarr": ["probabilities", "labels/segmentation/0/c/0"],
    "plain.zarr": ["", "c/0"],
    "old.zarr": ["labels/segmentation", "labels/segmentation/0/0"],
}
Noise = Callable[..., np.ndarray]
Tree = Callable[[Path], dict[str, bytes]]


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
    refused(model, picture, place, "is not a result of this program|is another store and no result", **more)
    assert {k: v for k, v in tree(place.parent).items() if not k.endswith(".lock")} == before


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
