"""Whether a resumed search or training learns from what it began with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet import api
from napari_autosegnet.cli import app
from napari_autosegnet.data.images import image_from_array, open_image
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.learned_from import LearnedFrom, RunData, pixel_digest
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.data.regions import Split
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import DataRead, Event
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.run import Run
from napari_autosegnet.settings import (
    NetworkSettings,
    SearchSettings,
    SelectionSettings,
    SplitSettings,
    TrainSettings,
)
from run_configs import update_config

NORMALIZATION = Normalization(mean=(100.0,), std=(40.0,))
PIXELS = np.random.default_rng(0).integers(1, 255, (6, 64, 64), dtype=np.uint8)
MARKS = np.zeros_like(PIXELS)
MARKS[1:5] = 1 + (PIXELS[1:5] > 120)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, array in (("image", PIXELS), ("labels", MARKS)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack")
    return tmp_path / "image.tif", tmp_path / "labels.tif"


def changed(path: Path, section: int) -> None:
    """One pixel of a section."""
    array = tifffile.imread(path)
    array[section, 3, 5] = 3 - array[section, 3, 5] if array.max() < 3 else array[section, 3, 5] ^ 1
    tifffile.imwrite(path, array, photometric="minisblack")


def test_the_pixels_count_and_not_the_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack")
    digest = pixel_digest(open_image(tmp_path / "a.tif"))
    os.utime(tmp_path / "a.tif", ns=(0, 0))
    assert pixel_digest(open_image(tmp_path / "a.tif")) == digest
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, photometric="minisblack", tile=(16, 16), compression="zlib")
    zarr.create_array(tmp_path / "c.zarr", data=PIXELS, chunks=(2, 10, 64))
    assert {pixel_digest(open_image(tmp_path / name)) for name in ("b.tif", "c.zarr")} == {digest}
    big_endian = PIXELS.astype(">u2")
    assert pixel_digest(image_from_array(big_endian)) == pixel_digest(image_from_array(big_endian.astype("<u2")))
    one_pixel = PIXELS.copy()
    one_pixel[3, 3, 3] ^= 1
    others = [PIXELS[:5], PIXELS[::-1], PIXELS.astype(np.uint16), PIXELS[:, :, :32], one_pixel]
    assert digest not in {pixel_digest(image_from_array(other)) for other in others}


def test_sections_of_a_folder_go_by_their_names(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for number, section in enumerate(PIXELS[:3]):
            Image.fromarray(section).save(tmp_path / folder / f"{number}.png")
    one, other = (open_image(tmp_path / folder) for folder in ("one", "other"))
    assert pixel_digest(one) == pixel_digest(other)
    alone = pixel_digest(open_image((tmp_path / "one" / "0.png").rename(tmp_path / "alone.png")))
    assert alone == pixel_digest(open_image((tmp_path / "alone.png").rename(tmp_path / "one" / "0.png")))
    (tmp_path / "other" / "0.png").rename(tmp_path / "other" / "x.png")
    (tmp_path / "other" / "1.png").rename(tmp_path / "other" / "0.png")
    (tmp_path / "other" / "x.png").rename(tmp_path / "other" / "1.png")
    assert pixel_digest(one) != pixel_digest(open_image(tmp_path / "other"))


def test_only_what_is_learned_from_counts(files: tuple[Path, Path]) -> None:
    image, labels = files
    stacks = open_labeled([image], [labels])
    data = RunData(images=(image,), labels=(labels,))
    alone = LearnedFrom.of(data, stacks, Split((), ()), NORMALIZATION, context=0)
    around = LearnedFrom.of(data, stacks, Split((), ()), NORMALIZATION, context=1)
    assert alone.pairs[0].sections == ("1", "2", "3", "4") and len(around.pairs[0].sections) == 6
    changed(image, 0)
    alone.check_data(data, advice="advice")
    with pytest.raises(UserError, match=r"the image .*image\.tif is not the one that the run began with; advice"):
        around.check_data(data, advice="advice")
    changed(labels, 5)
    with pytest.raises(UserError, match=r"the labels .*labels\.tif are not those that the run began with; advice"):
        alone.check_data(data, advice="advice")
    with pytest.raises(UserError, match="does not name the images"):
        alone.check_data(RunData(images=(image,) * 2, labels=(labels,) * 2), advice="advice")


def test_a_normalization_may_differ_by_rounding_only() -> None:
    learned_from = LearnedFrom(data=RunData(), split=Split((), ()), pairs=(), normalization=NORMALIZATION)
    learned_from.check_normalization(Normalization(mean=(100.0 + 1e-6,), std=(40.0 - 1e-6,)))
    with pytest.raises(UserError, match="the normalization is not the one that the run began with"):
        learned_from.check_normalization(Normalization(mean=(101.0,), std=(40.0,)))


# Whole runs

NETWORK = NetworkSettings(base_width=4, max_width=8)
TRAIN = TrainSettings(epochs=2, steps_per_epoch=2, batch_size=2, patch_size=32, network=NETWORK)
SEARCH = SearchSettings(
    epochs=2,
    patch_size=32,
    batch_size=2,
    steps_per_epoch=2,
    updates_per_epoch=1,
    samples_per_update=2,
    reward_patches=2,
    selection=SelectionSettings(candidates=2, finalists=2, steps=1),
    network=NETWORK,
)


def begin(run: Path, files: tuple[Path, Path], step: str) -> Callable[[], Any]:
    """A search or training that ends after its first epoch; what is returned continues with it."""
    ended: list[str] = []

    def report(event: Event) -> None:
        ended.append(event.event)

    how: dict[str, Any] = {"device": "cpu", "report": report, "should_stop": lambda: "epoch" in ended}
    image, labels = files
    if step == "search":
        api.search(run, [image], [labels], settings=SEARCH, **how)
        return lambda: api.search(run, resume=True, device="cpu")
    api.train(run, images=[image], labels=[labels], network="unet", settings=TRAIN, **how)
    return lambda: api.train(run, resume=True, device="cpu")


@pytest.mark.parametrize("step", ["search", "train"])
@pytest.mark.parametrize("place", [0, 1])
def test_what_was_changed_under_a_run_is_not_gone_on_with(
    step: str, place: int, files: tuple[Path, Path], tmp_path: Path
) -> None:
    resume = begin(tmp_path / "run", files, step)
    checkpoints = {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()}
    shutil.copy(files[place], tmp_path / "kept.tif")
    changed(files[place], 2)
    with pytest.raises(UserError, match=f"the {('image', 'labels')[place]} {files[place]} .* put it back") as raised:
        resume()
    assert "\n" not in str(raised.value)
    assert {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()} == checkpoints
    shutil.copyfile(tmp_path / "kept.tif", files[place])  # with a new time of change
    assert resume() is not None


def test_an_image_of_another_size_is_said_to_be_another(files: tuple[Path, Path], tmp_path: Path) -> None:
    resume = begin(tmp_path / "run", files, "train")
    tifffile.imwrite(files[0], PIXELS[:3, :40], photometric="minisblack")
    with pytest.raises(UserError, match="the image .* is not the one"):
        resume()


def test_new_strokes_go_on_from_the_model(files: tuple[Path, Path], tmp_path: Path) -> None:
    begin(tmp_path / "run", files, "train")
    changed(files[1], 2)
    assert api.train(tmp_path / "run", continue_with=files[1], settings=TRAIN, device="cpu") is not None
    # And that training is one that can be gone on with.
    assert api.train(tmp_path / "run", resume=True, device="cpu") is not None


def test_a_model_goes_on_with_images_in_its_range(files: tuple[Path, Path], tmp_path: Path) -> None:
    trained = begin(tmp_path / "run", files, "train")()
    before = trained.normalization.seen
    tifffile.imwrite(tmp_path / "wide.tif", PIXELS.astype(np.uint16) * 257, photometric="minisblack")
    more: dict[str, Any] = {"labels": [files[1]], "continue_with": files[1], "settings": TRAIN, "device": "cpu"}
    with pytest.raises(UserError, match=r"gray values of .*wide\.tif are not in the range .* new run"):
        api.train(tmp_path / "run", images=[tmp_path / "wide.tif"], **more)
    tifffile.imwrite(tmp_path / "dark.tif", PIXELS // 2, photometric="minisblack")
    after = api.train(tmp_path / "run", images=[tmp_path / "dark.tif"], **more).normalization
    assert after.mean == trained.normalization.mean
    assert before is not None and after.seen == before.with_more(after.seen) != before
    # The range that it has seen by now is kept, too.
    assert api.train(tmp_path / "run", resume=True, device="cpu").normalization == after


def test_a_changed_normalization_is_not_gone_on_with(files: tuple[Path, Path], tmp_path: Path) -> None:
    for step, section in (("train", "trained_on"), ("search", "searched_on")):
        run = Run(tmp_path / step)
        resume = begin(run.path, files, step)
        content = run.read_config()[section]
        content["normalization"]["mean"][0] += 30.0
        update_config(run, **{section: content})
        with pytest.raises(UserError, match="the normalization is not the one"):
            resume()


@pytest.mark.parametrize(
    "part", [{"section": 77}, {"section": -1}, {"stack": 1}, {"y": [0, 9000]}, {"x": [5, 5]}, None], ids=str
)
def test_a_split_of_other_images_is_not_gone_on_with(
    part: dict[str, Any] | None, files: tuple[Path, Path], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    resume = begin(run.path, files, "train")
    content = run.read_config()["trained_on"]
    first, *others = content["split"]["training"]
    content["split"]["training"] = [] if part is None else [{**first, **part}, *others]
    update_config(run, trained_on=content)
    with pytest.raises(UserError, match=r"the split is not one of the run's images: its config\.json was changed"):
        resume()


def test_a_resumed_run_takes_no_other_data(files: tuple[Path, Path], tmp_path: Path) -> None:
    for step in ("train", "search"):
        begin(tmp_path / step, files, step)
    for given in ({"classes": "1:a,2:b"}, {"time_point": 1}):
        with pytest.raises(UserError, match="continues with the classes, time point, channels and axes that it began"):
            api.train(tmp_path / "train", resume=True, **given)
    with pytest.raises(UserError, match="give it or --continue-with"):
        api.train(tmp_path / "train", resume=True, continue_with=[files[1]])
    other = tmp_path / "other" / "image.tif"
    other.parent.mkdir()
    shutil.copy(files[0], other)
    changed(other, 2)
    config = (tmp_path / "train" / "config.json").read_bytes()
    same = "give the same images and labels, in their order"
    with pytest.raises(UserError, match=f"the image {other} is not the one that the run began with; {same}"):
        api.train(tmp_path / "train", images=[other], labels=[files[1]], resume=True)
    with pytest.raises(UserError, match=f"the labels {files[0]} are not those that the run began with; {same}"):
        api.search(tmp_path / "search", labels=[files[0]], images=[other], resume=True)
    with pytest.raises(UserError, match="the run began with 1 image, and 2 given; give the same, in their order"):
        api.train(tmp_path / "train", images=[files[0], other], labels=[files[1], files[1]], resume=True)
    assert (tmp_path / "train" / "config.json").read_bytes() == config


@pytest.mark.parametrize("step", ["search", "train"])
def test_a_run_whose_images_were_moved_is_resumed_from_their_new_place(step: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "ny plats"
    old.mkdir()
    tifffile.imwrite(old / "image.tif", PIXELS, photometric="minisblack")
    tifffile.imwrite(old / "labels.tif", MARKS, photometric="minisblack")
    resume = begin(tmp_path / "run", (old / "image.tif", old / "labels.tif"), step)
    old.rename(new)
    with pytest.raises(UserError, match=rf"{old}/image\.tif .* not there; if moved, .* with --image beside --resume"):
        resume()
    (new / "image.tif").rename(new / "renamed.tif")
    with pytest.raises(UserError, match=rf"the labels {old}/labels\.tif .* with --labels beside --resume"):
        getattr(api, step)(tmp_path / "run", images=new / "renamed.tif", resume=True)
    given = [f"--{what}={new / name}" for what, name in (("image", "renamed.tif"), ("labels", "labels.tif"))]
    assert app.run([step, "--run", str(tmp_path / "run"), "--resume", "--device", "cpu", *given]) == 0
    data = RunConfiguration.load(Run(tmp_path / "run")).data
    assert data is not None and data.images == (new / "renamed.tif",) and data.labels == (new / "labels.tif",)
    # The run knows the new place.
    assert resume() is not None


@pytest.mark.parametrize(
    "later",
    [
        {"labels": "more.tif"},
        # As many classes on the same pixels: neither the normalization nor the network tells.
        {"classes": "2:one,1:other"},
        {"split": SplitSettings(gap=0, validation_fraction=0.5)},
    ],
    ids=lambda later: next(iter(later)),
)
def test_a_search_goes_on_with_its_own_data_whatever_was_trained_on_since(
    later: dict[str, Any], files: tuple[Path, Path], tmp_path: Path
) -> None:
    resume = begin(tmp_path / "run", files, "search")
    began = RunConfiguration.load(Run(tmp_path / "run")).searched_on
    assert began is not None
    tifffile.imwrite(tmp_path / "more.tif", np.where(MARKS, MARKS, 1), photometric="minisblack")
    given: dict[str, Any] = {"labels": files[1].name, **later}
    given["labels"] = [tmp_path / given["labels"]]
    api.train(tmp_path / "run", images=[files[0]], **given, network="unet", settings=TRAIN, device="cpu")
    after = RunConfiguration.load(Run(tmp_path / "run"))
    assert after.searched_on == began and after.trained_on is not None and after.data == after.trained_on.data
    assert after.trained_on.data != began.data
    read: list[str] = []
    report = lambda event: read.append(event.text) if isinstance(event, DataRead) else None  # noqa: E731
    assert api.search(tmp_path / "run", resume=True, device="cpu", report=report) is not None
    assert began.data.mapping is not None and read == [began.data.mapping.describe()]
    # So does the training.
    assert api.train(tmp_path / "run", resume=True, device="cpu") is not None
    assert resume() is not None and RunConfiguration.load(Run(tmp_path / "run")) == after


def test_a_run_is_resumed_whatever_became_of_its_table_of_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that was changed, what was checked with would be learned from; one that is gone is not needed."""
    images, labels = ([tmp_path / f"{what}{number}.tif" for number in range(3)] for what in ("image", "labels"))
    for number, files in enumerate(zip(images, labels, strict=True)):
        marks = np.where(np.arange(64) < 40 + 12 * number, MARKS[1 + number], 0)
        for file, array in zip(files, (PIXELS[1 + number], marks), strict=True):
            tifffile.imwrite(file, array, photometric="minisblack")
    # What is normalized section by section says nothing of the split.
    settings = TRAIN.model_copy(update={"normalization": "section"})
    split = SplitSettings(group="animal@index.csv")
    read: list[DataRead] = []
    how: dict[str, Any] = {
        "device": "cpu",
        "report": lambda event: read.append(event) if isinstance(event, DataRead) else None,
    }
    monkeypatch.chdir(tmp_path)
    Path("index.csv").write_text("file,animal\nimage0.tif,1\nimage1.tif,1\nimage2.tif,2\n")
    api.train("run", images=images, labels=labels, split=split, network="unet", settings=settings, **how)
    Path("index.csv").write_text("file,animal\nimage0.tif,1\nimage1.tif,2\nimage2.tif,2\n")
    assert api.train("run", resume=True, **how) is not None
    Path("index.csv").unlink()
    assert api.train("run", resume=True, **how) is not None
    assert len(read) == 3 and read[0] == read[1] == read[2]


def test_what_one_job_finds_elsewhere_is_not_put_under_another(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The labels were copied before more was painted: the search takes the copy, the training what was painted."""
    begin(tmp_path / "run", files, "search")
    shutil.copy(files[1], tmp_path / "copy.tif")
    more = np.where(MARKS, MARKS, 1)
    tifffile.imwrite(files[1], more, photometric="minisblack")
    api.train(tmp_path / "run", images=[files[0]], labels=[files[1]], network="unet", settings=TRAIN, device="cpu")
    assert api.search(tmp_path / "run", labels=[tmp_path / "copy.tif"], resume=True, device="cpu") is not None
    configuration = RunConfiguration.load(Run(tmp_path / "run"))
    assert configuration.searched_on is not None and configuration.searched_on.data.labels == (tmp_path / "copy.tif",)
    assert configuration.trained_on is not None and configuration.trained_on.data.labels == (files[1],)
    # What is gone, it is for all of them.
    files[0].rename(tmp_path / "moved.tif")
    assert api.train(tmp_path / "run", images=[tmp_path / "moved.tif"], resume=True, device="cpu") is not None
    assert api.search(tmp_path / "run", resume=True, device="cpu") is not None


def test_what_is_read_of_a_file_is_resumed_as_it_was(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Two channels and names of axes: without them the checksum would be that of other pixels."""
    np.save(tmp_path / "image.npy", np.stack([PIXELS // 2, PIXELS], axis=1))
    how: dict[str, Any] = {"images": [tmp_path / "image.npy"], "labels": [files[1]], "channels": ["1"], "axes": "zcyx"}
    settings = TRAIN.model_copy(update={"epochs": 1})
    api.train(tmp_path / "run", **how, network="unet", settings=settings, device="cpu")
    assert api.train(tmp_path / "run", resume=True, device="cpu") is not None
