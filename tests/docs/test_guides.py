"""Code in the guides is run: blocks after a ``<!-- run -->`` mark, page by page, on tiny data with tiny settings.

``<!-- run: export -->`` also needs the extra of that name.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_autosegnet import api
from napari_autosegnet.architecture import Architecture
from napari_autosegnet.cli.app import run as run_command
from napari_autosegnet.data import sample
from napari_autosegnet.jobs.fit import FitJob
from napari_autosegnet.jobs.search import SearchJob
from napari_autosegnet.jobs.train import TrainJob
from napari_autosegnet.settings import FitSettings, NetworkSettings, SearchSettings, TrainSettings

DOCS = Path(__file__).parents[2] / "docs"
NETWORK = NetworkSettings(base_width=4, max_width=8, stem_stride=2)
SMALL: dict[type, dict[str, Any]] = {
    SearchSettings: {
        "epochs": 1,
        "budget": None,
        "patch_size": 32,
        "batch_size": 2,
        "steps_per_epoch": 2,
        "warmup_fraction": 0.5,
        "updates_per_epoch": 1,
        "samples_per_update": 1,
        "reward_patches": 2,
        "selection": {"candidates": 1, "finalists": 1, "steps": 1},
        "network": NETWORK,
        "space": {"cells": 1},
    },
    FitSettings: {
        "epochs": 1,
        "budget": None,
        "candidates": 1,
        "patch_size": 32,
        "batch_size": 2,
        "steps_per_epoch": 2,
    },
    TrainSettings: {
        "epochs": 1,
        "budget": None,
        "patch_size": 32,
        "batch_size": 2,
        "steps_per_epoch": 2,
        "network": NETWORK,
    },
}
_BLOCK = re.compile(r"<!-- run(?:: (?P<extra>\w+))? -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def pages() -> list[Any]:
    """The pages with something to run; exports take their time."""
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        extras = [block["extra"] for block in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
        if extras:
            slow = [pytest.mark.slow] if "export" in extras else []
            found.append(pytest.param(str(page.relative_to(DOCS)), marks=slow))
    return found


def make_small(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the settings of fits, searches and trainings small, whatever they are, and the sample of the package."""

    def small(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(job: FitJob | SearchJob | TrainJob, *arguments: Any, **named: Any) -> Any:
            if job.settings is not None:
                settings = job.settings.changed(**SMALL[type(job.settings)])
                job = job.model_copy(update={"settings": settings})
            return run(job, *arguments, **named)

        return call

    monkeypatch.setattr(sample, "sample_folder", lambda: folder / "small-sample")
    monkeypatch.setattr(FitJob, "run", small(FitJob.run))
    monkeypatch.setattr(SearchJob, "run", small(SearchJob.run))
    monkeypatch.setattr(TrainJob, "run", small(TrainJob.run))


def _write(folder: Path) -> None:
    """The files that the guides speak of."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 2, (8, 8, 8)).repeat(8, 1).repeat(8, 2)
    image = (coarse * 120 + generator.integers(0, 100, coarse.shape)).astype(np.uint8)
    scribbles = np.where(generator.random(coarse.shape) < 0.2, coarse + 1, 0)
    rgb_masks = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)[coarse * 2]
    files = {
        "train": image,
        "test": image,
        "labels": coarse * 255,
        "test-labels": coarse * 255,
        "scribbles": scribbles,
        "color": np.stack([image, 255 - image, image // 2], -1),
        "instances": coarse * 7,
        "membrane": coarse,
        "mitochondria": 1 - coarse,
        "rgb-masks": rgb_masks,
    }
    for name, array in files.items():
        color = array.shape[-1] == 3
        tifffile.imwrite(folder / f"{name}.tif", array.astype(np.uint8), photometric="rgb" if color else "minisblack")
    (folder / "small-sample").mkdir()
    for picture in sample.sample_folder().glob("*.png"):
        with Image.open(picture) as whole:
            whole.crop((0, 0, 192, 192)).save(folder / "small-sample" / picture.name)
    zarr.create_array(folder / "stack.ome.zarr", shape=image.shape, dtype=image.dtype, chunks=(1, 64, 64))[:] = image


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, and with a run that was searched and trained."""
    folder = tmp_path_factory.mktemp("guides")
    _write(folder)
    data = {"images": [folder / "train.tif"], "labels": [folder / "labels.tif"]}
    run = folder / "runs" / "first"
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_small(monkeypatch, folder)
        api.search(run, **data, classes="0:membrane,255:cell", settings=SearchSettings(network=NETWORK))
        api.train(run, settings=TrainSettings(network=NETWORK))
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder as the current one, and steps that are quickly done."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    make_small(monkeypatch, folder)
    yield folder


def run_block(language: str, code: str) -> None:
    if language == "python":
        exec(compile(code, "a block of the guide", "exec"), {"__name__": "__main__"})
        return
    assert language == "sh"
    for line in code.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(re.sub(r"\s+# .*", "", line))
        if program == "python":
            assert words[0] == "-c"
            run_block("python", words[1])
        else:
            assert program == "napari-autosegnet", line
            assert run_command(words) == 0, line


@pytest.mark.parametrize("page", pages())
def test_the_code_of_the_page_runs(page: str, workplace: Path) -> None:
    for block in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        if block["extra"] == "export" and importlib.util.find_spec("onnxscript") is None:
            pytest.skip("the extra 'export' is not installed")
        run_block(block["language"], block["code"])


@pytest.mark.slow
def test_the_examples_run(workplace: Path) -> None:
    # The second one continues with the run of the first.
    for name in ("whole_way", "uncertainty", "watch_and_stop"):
        runpy.run_path(str(DOCS / "examples" / f"{name}.py"))
    assert {"overlay.png", "curves.svg", "architecture.svg", "uncertainty.png"} <= {p.name for p in workplace.iterdir()}


def test_every_example_is_run_and_shown() -> None:
    names = {path.name for path in (DOCS / "examples").glob("*.py")}
    assert names == {"whole_way.py", "uncertainty.py", "watch_and_stop.py"}
    shown = (DOCS / "examples" / "index.md").read_text(encoding="utf-8")
    assert all(f'--8<-- "{name}"' in shown for name in names)


def test_the_guides_have_code_to_run() -> None:
    assert len(pages()) >= 10


def test_the_architecture_that_is_shown_is_one() -> None:
    text = (DOCS / "reference" / "file-formats.md").read_text(encoding="utf-8")
    match = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert match is not None
    assert Architecture.from_json(match[1]).skips == (True, False)
