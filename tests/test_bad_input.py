"""What a user may get wrong: one line that says what and what to do, a status that is not 0, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_autosegnet import api
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import Epoch, Event
from napari_autosegnet.presets import search_settings, train_settings
from napari_autosegnet.run import Run
from napari_autosegnet.settings import NetworkSettings, SearchSettings, TrainSettings
from small_disks import mounted

NETWORK = NetworkSettings(base_width=4, max_width=8)
SETTINGS = SearchSettings(epochs=1, patch_size=32, steps_per_epoch=1, network=NETWORK)
TRAIN = TrainSettings(epochs=2, steps_per_epoch=2, batch_size=2, patch_size=32, network=NETWORK)


def write(path: Path, array: np.ndarray) -> Path:
    tifffile.imwrite(path, array, photometric="minisblack")
    return path


def image(size: int = 64, sections: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (sections, size, size), dtype=np.uint8)


def labels(size: int = 64, sections: int = 8) -> np.ndarray:
    return np.where(image(size, sections) > 127, 255, 0).astype(np.uint8)


def with_nan() -> np.ndarray:
    array = image().astype(np.float32)
    array[1, 5, 5] = np.nan
    return array


@pytest.mark.parametrize(
    ("pixels", "marks", "classes", "message"),
    [
        (lambda: image().astype(np.complex64), labels, None, "complex64"),
        (image, lambda: labels() + np.float32(0.5), None, "hold fractions"),
        (image, lambda: labels(size=60), None, "of the image's size"),
        (image, lambda: labels(sections=7), None, "7"),
        (image, lambda: np.zeros_like(labels()), None, "annotate"),
        (image, lambda: np.full_like(labels(), 255), None, "only one class"),
        (image, lambda: labels().astype(np.uint64) << 56, None, "hold 18374686479671623680; number the classes"),
        (lambda: image() * 1e300, labels, None, "are too large; scale them down"),
        (with_nan, labels, None, "NaN"),
        (lambda: image(size=12), lambda: labels(size=12), None, "at least 16x16"),
        (image, labels, "0:membrane,7:cell", "7"),
        (image, labels, "membrane", "membrane"),
    ],
)
def test_data_that_will_not_do(
    tmp_path: Path,
    pixels: Callable[[], np.ndarray],
    marks: Callable[[], np.ndarray],
    classes: str | None,
    message: str,
) -> None:
    files = write(tmp_path / "image.tif", pixels()), write(tmp_path / "labels.tif", marks())
    with pytest.raises(UserError, match=message) as raised:
        api.search(tmp_path / "run", [files[0]], [files[1]], classes=classes, settings=SETTINGS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("size", "nearest"), [(33, 32), (90, 88)])
def test_patches_that_no_network_takes(tmp_path: Path, size: int, nearest: int) -> None:
    files = write(tmp_path / "image.tif", image()), write(tmp_path / "labels.tif", labels())
    data: dict[str, Any] = {"images": [files[0]], "labels": [files[1]], "classes": "0:membrane,255:cell"}
    for step, settings in ((api.search, search_settings("fast")), (api.train, train_settings("fast"))):
        run = tmp_path / step.__name__
        own = settings.model_copy(update={"patch_size": size})
        more = {"network": "plain"} if step is api.train else {}
        with pytest.raises(UserError, match=f"for example --patch-size {nearest}"):
            step(run, **data, settings=own, **more)  # type: ignore[operator]
        assert not (run / "config.json").exists()


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "napari_autosegnet", *map(str, words)], capture_output=True, text=True, timeout=120
    )


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    found = command("search", "--image", tmp_path / "no.tif", "--labels", tmp_path / "no.tif", "--run", tmp_path / "r")
    assert found.returncode == 1
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "no.tif" in lines[0]


def test_folders_are_paired_by_names_and_the_pairs_are_printed(tmp_path: Path) -> None:
    """In the order of the folders c1 would get the mask of c1_2."""
    for folder, ending, pixels in (("images", "", image(64, 2)), ("labels", "_masks", labels(64, 2))):
        (tmp_path / folder).mkdir()
        for name, section in zip(("c1", "c1_2"), pixels, strict=True):
            write(tmp_path / folder / f"{name}{ending}.tif", section)
    words = ["--network", "plain", "--preset", "fast", "--epochs", 1, "--steps-per-epoch", 1, "--base-width", 4]
    words += ["--patch-size", 32, "--batch-size", 1]
    data = ["--image", tmp_path / "images", "--labels", tmp_path / "labels"]
    found = command("train", "--run", tmp_path / "run", *data, *words)
    assert found.returncode == 0, found.stderr
    assert "pair: c1 with c1_masks\npair: c1_2 with c1_2_masks\n" in found.stderr
    write(tmp_path / "images" / "c7.tif", image(64, 1)[0])
    found = command("train", "--run", tmp_path / "other", *data, *words)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and "do not pair: images without labels: c7; rename or remove" in found.stderr
    # The run was begun with a folder that is another one now.
    assert command("train", "--run", tmp_path / "run", "--resume").returncode == 1


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "image.tif", image()), write(tmp_path / "labels.tif", labels())


def test_a_run_in_use_is_left_alone(tmp_path: Path, files: tuple[Path, Path]) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        found = command("search", "--image", files[0], "--labels", files[1], "--run", run.path)
    assert found.returncode == 1
    assert "in use by another process" in found.stderr and len(found.stderr.strip().splitlines()) == 1
    assert not run.config_file.exists()


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path: Path, files: tuple[Path, Path]) -> None:
    run = tmp_path / "run"
    api.train(run, images=[files[0]], labels=[files[1]], network="unet", settings=TRAIN)
    checkpoint = Run(run).checkpoint_file("training")
    content = checkpoint.read_bytes()[:1000]
    for each in checkpoint.parent.iterdir():
        each.write_bytes(content)
    model = (run / "model" / "weights.safetensors").read_bytes()
    with pytest.raises(UserError, match="damaged"):
        api.train(run, resume=True)
    assert checkpoint.read_bytes() == content
    assert (run / "model" / "weights.safetensors").read_bytes() == model


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB."""
    folder = tmp_path / "disk"
    with mounted(folder, "600k"):
        yield folder


def test_a_full_disk_loses_nothing(files: tuple[Path, Path], small_disk: Path) -> None:
    """The disk fills after the first epoch; once there is space the training continues where it was."""
    arguments = {"images": [files[0]], "labels": [files[1]], "network": "unet", "settings": TRAIN}
    run = small_disk / "run"
    filler = small_disk / "filler"

    def fill(event: Event) -> None:
        if isinstance(event, Epoch) and event.epoch == 2:
            free = os.statvfs(small_disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_bsize))

    with pytest.raises(UserError, match="free some space"):
        api.train(run, **arguments, report=fill)  # type: ignore[arg-type]
    filler.unlink()
    assert [path.name for path in run.rglob("*.partial")] == []
    resumed = api.train(run, resume=True)
    undisturbed = api.train(small_disk.parent / "elsewhere", **arguments)  # type: ignore[arg-type]
    assert resumed.description.weights_sha256 == undisturbed.description.weights_sha256
