"""Every file that is read may be damaged or foreign: that ends in a UserError of one line, or in something valid."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_autosegnet import api
from napari_autosegnet.architecture import Architecture, SearchSpace
from napari_autosegnet.cli import app
from napari_autosegnet.cli.progress import PlainLines
from napari_autosegnet.cli.runs import describe
from napari_autosegnet.data.annotations import parse_classes
from napari_autosegnet.data.images import open_image
from napari_autosegnet.data.labeled_stacks import open_labeled
from napari_autosegnet.data.split import split_stacks
from napari_autosegnet.errors import UserError
from napari_autosegnet.events import parse_event
from napari_autosegnet.figures import draw_curves
from napari_autosegnet.inference.output.ledger import Ledger
from napari_autosegnet.jobs.configuration import RunConfiguration
from napari_autosegnet.model import Model
from napari_autosegnet.run import Run
from napari_autosegnet.settings import SplitSettings
from napari_autosegnet.training.checkpoints import read_checkpoint, write_checkpoint
from small_models import small_model

sys.path.insert(0, str(Path(__file__).parent))
from damage import FILES, damaged, damaged_json, values

ARCHITECTURE = SearchSpace(levels=3).sample(np.random.default_rng(0))


@contextmanager
def refused() -> Iterator[None]:
    """An error of the user, in one line, or none; anything else is a bug."""
    try:
        yield
    except UserError as error:
        assert str(error).strip() and "\n" not in str(error)


# Architectures


@settings(deadline=None)
@given(content=damaged_json(json.loads(ARCHITECTURE.to_json())))
def test_architectures(content: bytes) -> None:
    with refused():
        found = Architecture.from_json(content.decode("utf-8", "replace"))
        assert Architecture.from_json(found.to_json()) == found


@given(text=st.one_of(st.text(), st.sampled_from(["[" * 100_000, '{"a":' * 100_000, "1e999", "NaN", '"\\ud800"'])))
def test_architectures_of_any_text(text: str) -> None:
    with pytest.raises(UserError):
        Architecture.from_json(text)


@FILES
@given(content=st.binary(max_size=200))
def test_architecture_files_of_any_bytes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "architecture.json").write_bytes(content)
    with refused():
        Architecture.load(tmp_path / "architecture.json")


# The run folder

EPOCH = {
    "event": "epoch",
    "time": "2026-01-01T00:00:00.000+00:00",
    "step": "train",
    "epoch": 1,
    "epochs": 3,
    "loss": 0.5,
    "mean_iou": 0.5,
    "iou": {"a": 0.5, "b": None},
    "best_mean_iou": 0.5,
    "learning_rate": 0.1,
    "seconds": 1.0,
    "seconds_left": 2.0,
    "memory": 1000,
}
SEARCH_EPOCH = {
    "event": "epoch",
    "time": "2026-01-01T00:00:00.000+00:00",
    "step": "search",
    "phase": "controller",
    "epoch": 1,
    "epochs": 3,
    "loss": 0.5,
    "reward": 0.4,
    "entropy": 30.0,
    "seconds": 1.0,
    "seconds_left": 2.0,
}
CONFIG = {
    "version": 1,
    "preset": "fast",
    "data": {
        "images": ["image.tif"],
        "labels": ["labels.tif"],
        "mapping": {
            "classes": [{"name": "a", "color": "#ff0000"}, {"name": "b", "color": "#00ff00"}],
            "values": {"0": 1, "255": 2},
        },
        "split": {"validation_fraction": 0.25, "gap": 2},
    },
    "search": {"epochs": 1, "patch_size": 32},
    "training": {"epochs": 1, "patch_size": 32},
    "network": "unet",
}


@FILES
@given(content=damaged_json(CONFIG))
def test_run_configurations(content: bytes, tmp_path: Path) -> None:
    """Resuming begins with reading the configuration; the images that it names are not there."""
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_bytes(content)
    for resume in (api.search, api.train):
        with pytest.raises(UserError) as raised:
            resume(run, resume=True)
        assert "\n" not in str(raised.value)
        # Or else the run would now be thought to have failed.
        assert (run / "config.json").read_bytes() == content
    with refused():
        RunConfiguration.load(Run(run))
    with refused():
        describe(Run.open(run))


@FILES
@example(first=json.dumps({**EPOCH, "loss": 10**400, "epoch": 10**30}).encode(), second=b"[" * 100_000, noise=b"")
@given(first=damaged_json(EPOCH), second=damaged_json(SEARCH_EPOCH), noise=st.binary(max_size=30))
def test_events(first: bytes, second: bytes, noise: bytes, tmp_path: Path) -> None:
    """Whatever lies in it, events are read, listed, printed and drawn."""
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text('{"version": 1}')
    good = json.dumps(EPOCH).encode()
    (run / "events.jsonl").write_bytes(b"\n".join([good, first, noise, second, good]))
    opened = Run(run)
    events = opened.events()
    assert len(events) >= 2 and events[0] == events[-1] == parse_event(good)
    describe(opened)
    lines = PlainLines(lambda line: None)
    for event in events:
        lines(event)


@pytest.mark.slow
@settings(FILES, max_examples=60)
@given(content=damaged_json([EPOCH, SEARCH_EPOCH]))
def test_curves_of_events(content: bytes, tmp_path: Path) -> None:
    found: Any = None
    with suppress(ValueError):
        found = json.loads(content)
    lines = map(json.dumps, [EPOCH, *(found if isinstance(found, list) else [])])
    events = [event for line in lines if (event := parse_event(line)) is not None]
    assert events
    with refused():
        draw_curves(events, tmp_path / "curves.png")


@FILES
@given(data=st.data())
def test_checkpoints(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    if not (tmp_path / "whole").exists():
        write_checkpoint(tmp_path / "whole", {"epoch": 1, "weights": {"a": torch.zeros(3)}})
    file.write_bytes(data.draw(damaged((tmp_path / "whole").read_bytes())))
    with refused():
        assert isinstance(read_checkpoint(file, torch.device("cpu")), dict)


# Models


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    small_model().save(folder)
    with zipfile.ZipFile(folder.with_name("model.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return folder


def load_and_use(place: Path) -> None:
    """What is accepted can be used."""
    model = Model.load(place)
    network = model.network()
    side = int(network.stride)  # type: ignore[arg-type]
    with torch.inference_mode():
        assert network(torch.zeros(1, model.in_channels, side, side)).shape[1] == len(model.classes)
    assert model.fingerprint and model.halo is not False


@FILES
@given(data=st.data())
def test_model_descriptions(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    content = data.draw(damaged_json(json.loads((saved / "model.json").read_bytes())))
    (tmp_path / "model.json").write_bytes(content)
    with refused():
        load_and_use(tmp_path)


@FILES
@given(data=st.data())
def test_model_weights(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    whole = (saved / "weights.safetensors").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    head = data.draw(damaged(whole[:length]))
    (tmp_path / "weights.safetensors").write_bytes(head + whole[length:])
    if data.draw(st.booleans()):
        (tmp_path / "model.json").unlink()  # only the copy in the header is left
    with refused():
        load_and_use(tmp_path)


@FILES
@given(data=st.data())
def test_model_zips(data: st.DataObject, saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.zip"
    file.write_bytes(data.draw(damaged(saved.with_name("model.zip").read_bytes())))
    with refused():
        load_and_use(file)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


# Stores


@FILES
@given(data=st.data())
def test_ledgers(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "store.zarr.ledger.jsonl"
    parts = {"model": "abc", "image": {"shape": [1, 2, 3]}}
    file.unlink(missing_ok=True)
    ledger = Ledger.open(file, parts)
    for block in range(3):
        ledger.record(block, "done")
    lines = file.read_bytes().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    lines[number] = data.draw(damaged_json(json.loads(lines[number]))).replace(b"\n", b" ")
    file.write_bytes(b"\n".join([*lines, b""]))
    with refused():
        found = Ledger.open(file, parts)
        # The line that was damaged may be what it was; it is never another one, and the others stay.
        whole = dict.fromkeys((0, 1, 2), "done")
        assert found.finished() in (whole, {block: "done" for block in whole if block != number - 1})
        assert not any(found.finished(level) for level in (-1, 1, 2))
        found.record(9, "done")
        assert 9 in Ledger.open(file, parts).finished()


def ome_zarr(folder: Path, version: int) -> Path:
    """A small OME-Zarr image, written by hand, and the file that holds its metadata."""
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=3 if version == 5 else 2)
    group.create_array("0", shape=(2, 8, 8), dtype="uint8", chunks=(1, 8, 8))[:] = 1
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = {"type": "scale", "scale": [50.0, 4.0, 4.0]}
    image = {"version": f"0.{version}", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if version == 5 else {"multiscales": [image]}
    )
    return folder / ("zarr.json" if version == 5 else ".zattrs")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("of_array", [False, True])
@FILES
@given(data=st.data())
def test_zarr_metadata(version: int, of_array: bool, data: st.DataObject, tmp_path: Path) -> None:
    store = tmp_path / "image.ome.zarr"
    shutil.rmtree(store, ignore_errors=True)
    file = ome_zarr(store, version)
    if of_array:
        file = store / "0" / ("zarr.json" if version == 5 else ".zarray")
    file.write_bytes(data.draw(damaged_json(json.loads(file.read_bytes()))))
    with refused():
        image = open_image(store)
        if max(image.sections, *image.section_shape(0)) < 100:
            assert image.section(0).shape[1:] == image.section_shape(0)


@FILES
@given(data=st.data())
def test_tiff_files(data: st.DataObject, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tif"
    if not whole.exists():
        tifffile.imwrite(whole, np.zeros((2, 8, 8), np.uint8), ome=True, metadata={"axes": "ZYX"})
    content = whole.read_bytes()
    (tmp_path / "image.tif").write_bytes(data.draw(damaged(content)))
    with refused():
        image = open_image(tmp_path / "image.tif")
        if image.sections < 100 and max(image.section_shape(0)) < 1000:
            image.section(image.sections - 1)


@FILES
@given(data=st.data())
def test_mrc_and_hdf5_files(data: st.DataObject, tmp_path: Path) -> None:
    pixels = np.zeros((2, 8, 8), np.int8)
    if not (tmp_path / "whole.mrc").exists():
        with h5py.File(tmp_path / "whole.h5", "w") as file:
            dataset = file.create_dataset("raw", data=pixels, chunks=(1, 8, 8), compression="gzip")
            dataset.attrs.update({"resolution": (4.0, 4.0, 4.0), "units": "nm", "axes": "zyx"})
        mrcfile.write(tmp_path / "whole.mrc", pixels)
    name = data.draw(st.sampled_from(["mrc", "h5"]))
    (tmp_path / f"image.{name}").unlink(missing_ok=True)  # HDF5 may have the one before still open
    (tmp_path / f"image.{name}").write_bytes(data.draw(damaged((tmp_path / f"whole.{name}").read_bytes())))
    with refused():
        image = open_image(tmp_path / f"image.{name}")
        if image.sections < 100 and max(image.section_shape(0)) < 1000:
            image.section(image.sections - 1)


def test_tiff_pages_that_point_in_a_circle(tmp_path: Path) -> None:
    """Found by the test above: bytes that are missing made millions of pages, an hour's work and 23 GB."""
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, np.zeros((2, 8, 8), np.uint8), ome=True, metadata={"axes": "ZYX"})
    content = whole.read_bytes()
    paths = [str(tmp_path / f"{missing}.tif") for missing in range(1, 41)]
    for missing, path in enumerate(paths, start=1):
        Path(path).write_bytes(content[:294] + content[294 + missing :])
    program = (
        "import sys; from pathlib import Path\n"
        "from napari_autosegnet.data.images import open_image\n"
        "from napari_autosegnet.errors import UserError\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_image(Path(path))\n"
        "    except UserError: print(path)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == paths and not done.returncode


# What is typed


@settings(deadline=None)
@given(text=st.one_of(st.text(), st.from_regex(r"(-?\d{1,5}:\w{0,4}(:#?[0-9a-f]{0,6})?,?){0,4}", fullmatch=True)))
def test_class_mappings(text: str) -> None:
    with refused():
        mapping = parse_classes(text)
        assert len(mapping.classes) >= 2 and set(mapping.values.values()) <= set(range(1, len(mapping.classes) + 1))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("labeled")
    marks = np.random.default_rng(0).integers(0, 2, (12, 32, 32), dtype=np.uint8) * 255
    for name in ("image", "labels"):
        tifffile.imwrite(folder / f"{name}.tif", marks, photometric="minisblack")
    return open_labeled([folder / "image.tif"], [folder / "labels.tif"])


_SECTIONS = st.one_of(st.none(), st.text(max_size=8), st.from_regex(r"(\d{1,2}(-\d{1,2})?,?){1,3}", fullmatch=True))


@FILES
@given(training=_SECTIONS, validation=_SECTIONS)
def test_sections(training: str | None, validation: str | None, labeled: Any) -> None:
    with refused():
        parts = split_stacks(labeled, SplitSettings(train_sections=training, validation_sections=validation))
        assert not {r.section for r in parts.training} & {r.section for r in parts.validation} or training is None


_TYPED = (
    "search train predict evaluate export show runs demo list stop --image --labels --run --model --out --preset fast "
    "--budget 10m --epochs --classes --json --resume --device cpu --help --version - -- -x --halo exact -1"
)
_WORDS = st.sampled_from(_TYPED.split()) | st.text(max_size=6).filter(lambda word: "\x00" not in word)


@FILES
@given(words=st.lists(_WORDS, max_size=7))
def test_command_lines(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status and one line, whatever is typed; nothing that takes long can begin, since there is no image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_autosegnet.demo.run_demo", _no_demo)
    assert app.run(words) in (0, 1, 2)


def _no_demo(*arguments: Any, **named: Any) -> dict[str, Any]:
    raise UserError("no demo in tests")


@settings(FILES, max_examples=30)
@given(value=values)
def test_settings_of_the_command_line(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = str(value).replace("\x00", "")
    monkeypatch.chdir(tmp_path)
    options: list[Callable[[str], list[str]]] = [
        lambda text: ["predict", "--model", "m", "--image", "i", "--out", "o.tif", "--block", text],
        lambda text: ["predict", "--model", "m", "--image", "i", "--out", "o.tif", "--halo", text],
        lambda text: ["search", "--image", "i", "--labels", "l", "--budget", text],
        lambda text: ["search", "--image", "i", "--labels", "l", "--group", text],
    ]
    for words in options:
        assert app.run(words(text)) in (1, 2)
