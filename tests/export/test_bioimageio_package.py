from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_autosegnet import api
from napari_autosegnet.cli.app import run
from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.images import image_from_array
from napari_autosegnet.errors import UserError
from napari_autosegnet.export.bioimageio_package import About, identifiers, sample_of, write_bioimageio, zoo_name
from napari_autosegnet.export.onnx_file import onnx_runner
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.model import Model
from napari_autosegnet.settings import PredictSettings
from small_models import small_model


@pytest.mark.slow
def test_the_zoo_s_own_test_is_green(package: Path, tmp_path: Path) -> None:
    """``bioimageio test`` as anyone calls it: format, test tensors, other sizes and batches."""
    report = tmp_path / "summary.json"
    found = subprocess.run(
        [sys.executable, "-m", "bioimageio.core", "test", str(package), f"--summary={report}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    summary = json.loads(report.read_text(encoding="utf-8"))
    assert summary["status"] == "passed"
    names = [detail["name"] for detail in summary["details"]]
    assert any("Reproduce test outputs" in name for name in names)
    assert any("batch_size: 2 and size parameter n: 2" in name for name in names)
    assert [detail["errors"] for detail in summary["details"] if detail["errors"]] == []


@pytest.mark.slow
def test_whole_images_are_prepared_where_each_has_constants_of_its_own(tmp_path: Path) -> None:
    """What cuts images into tiles does so afterwards: then the constants are those of the whole image."""
    for package in ("bioimageio.core", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    import yaml

    own = small_model(kind="section")
    pixels = (np.random.default_rng(0).integers(0, 255, (1, 192, 192)) * 20 + 7000).astype(np.uint16)
    path = tmp_path / "own.zip"
    assert write_bioimageio(own, path, image=image_from_array(pixels)) < 1e-4
    with zipfile.ZipFile(path) as archive:
        readme = archive.read("README.md").decode()
        description: dict[str, Any] = yaml.safe_load(archive.read("rdf.yaml"))
        compute = onnx_runner(archive.read("weights.onnx"))
    assert "Each section is normalized by its own mean and deviation" in readme and "do not normalize" not in readme
    steps = {step["id"]: step["kwargs"] for step in description["inputs"][0]["preprocessing"]}
    assert set(steps) <= {"zero_mean_unit_variance", "ensure_dtype"}
    assert steps["zero_mean_unit_variance"]["axes"] == ["y", "x"]
    prepared = (pixels - pixels.mean()) / (pixels.std() + steps["zero_mean_unit_variance"].get("eps", 1e-6))
    whole = Predictor(own, halo="exact").whole_section(pixels)
    np.testing.assert_allclose(compute(prepared[np.newaxis].astype(np.float32))[0], whole, atol=1e-3)
    zoo = [sys.executable, "-m", "bioimageio.core", "test", str(path)]
    found = subprocess.run(zoo, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr


def test_all_that_the_zoo_asks_for_is_in_it(package: Path, model: Model) -> None:
    import yaml

    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        assert all("/" not in name and ".." not in name for name in names)
        description: dict[str, Any] = yaml.safe_load(archive.read("rdf.yaml"))
        cover = Image.open(io.BytesIO(archive.read("cover.png")))
        readme = archive.read("README.md").decode()
        image = np.load(io.BytesIO(archive.read("test-image.npy")))
        probabilities = np.load(io.BytesIO(archive.read("test-probabilities.npy")))
    assert description["authors"][0] == {"affiliation": "An Institute", "name": "A. Person"}
    assert description["license"] == "CC-BY-4.0" and description["name"] == "Nerve fibers  myelin axon"
    axes = description["inputs"][0]["axes"]
    assert axes[1]["channel_names"] == ["channel_0_below_1", "channel_0_here", "channel_0_above_1"]
    # The smallest tile has something left inside its halo.
    assert axes[2]["size"] == {"min": 2 * 22 + 2, "step": 2} and (axes[2]["scale"], axes[2]["unit"]) == (4, "nanometer")
    out = description["outputs"][0]["axes"]
    assert out[2]["halo"] == 22 and out[1]["channel_names"] == ["background", "class_2nd_myelin", "class_2nd_myelin_3"]
    listed = [description["weights"]["onnx"], description["documentation"], *description["attachments"]]
    assert all(len(each["sha256"]) == 64 and each["source"] in names for each in listed)
    assert cover.size == (800, 400)
    # Names that people read stay as they are.
    assert readme.startswith("# Nerve fibers: myelin/axon\n")
    classes = description["config"]["napari_autosegnet"]["classes"]
    assert [each["name"] for each in classes] == [each.name for each in model.classes]
    assert "## Validation" in readme and "99.96%" in readme
    assert "not trained on: 0.81, checked on 1,240 pixels of 3 sections." in readme
    assert image.shape == (1, 3, 128, 128) and probabilities.shape == (1, 3, 128, 128)
    np.testing.assert_allclose(probabilities[0], Predictor(model, halo="exact").whole_section(image[0]), atol=1e-6)


def test_predict_takes_the_package(package: Path, model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (2, 40, 60), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, photometric="minisblack")
    model.save(tmp_path / "model")
    for name, source in (("zip", package), ("folder", tmp_path / "model")):
        out = tmp_path / f"{name}.tif"
        assert run(["predict", "--model", str(source), "--image", str(tmp_path / "image.tif"), "--out", str(out)]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "zip.tif"), tifffile.imread(tmp_path / "folder.tif"))
    assert Model.load(package).fingerprint == model.fingerprint


_OTHER_PROGRAM = """
import sys
import numpy as np
from bioimageio.core import load_model_description, predict
found = predict(model=load_model_description(sys.argv[1]), inputs=np.load(sys.argv[2]))
(member,) = found.members.values()
np.save(sys.argv[3], np.asarray(member.data)[0].argmax(0) + 1)
"""


def test_bioimageio_core_gives_the_same_labels(package: Path, tmp_path: Path) -> None:
    """Another program that follows the description gets what ``predict`` gives, but near borders, which it mirrors."""
    sections = np.random.default_rng(4).integers(0, 255, (3, 128, 128), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", sections, photometric="minisblack")
    np.save(tmp_path / "image.npy", sections[np.newaxis].astype(np.float32))
    api.predict(package, tmp_path / "image.tif", tmp_path / "labels.tif", settings=PredictSettings(halo="exact"))
    program = [sys.executable, "-c", _OTHER_PROGRAM, package, tmp_path / "image.npy", tmp_path / "labels.npy"]
    subprocess.run(list(map(str, program)), check=True, capture_output=True, timeout=300)
    inner = (slice(32, -32), slice(32, -32))
    labels = np.load(tmp_path / "labels.npy")
    assert labels.shape == (128, 128)
    assert (labels[inner] == tifffile.imread(tmp_path / "labels.tif")[1][inner]).mean() > 0.9999


def test_without_words_and_image_it_is_made_of_noise(model: Model, tmp_path: Path) -> None:
    """What is left out is left open, not made up."""
    noise = sample_of(model, None, 64, 4)
    assert noise.shape == (3, 64, 64) and 100 < noise.mean() < 140 and noise.std() > 20
    with pytest.raises(UserError, match="'do what you like' is not a license"):
        write_bioimageio(model, tmp_path / "model.zip", about=About(license="do what you like"))
    assert not (tmp_path / "model.zip").exists()


def test_an_image_of_another_kind_is_refused() -> None:
    image = image_from_array(np.zeros((64, 64, 3), np.uint8), channel_axis=-1)
    with pytest.raises(UserError, match="3 channels and the model 1"):
        sample_of(small_model(), image, 64, 4)


def test_a_small_image_is_padded_and_the_ends_of_a_stack_repeat() -> None:
    image = image_from_array(np.stack([np.full((10, 20), value, np.uint8) for value in (7, 9)]))
    found = sample_of(small_model(context=1), image, 32, 4)
    assert found.shape == (3, 32, 32) and [set(np.unique(part)) for part in found] == [{7.0}, {9.0}, {9.0}]


def test_names_become_words_that_are_unique() -> None:
    assert identifiers(["Zellkörper", "a b", "A-B", "???", "2nd"]) == [
        "zellkorper",
        "a_b",
        "a_b_3",
        "class_4",
        "class_2nd",
    ]


OTHER_LETTERS = [
    (["Zellkörper", "Größe", "rest"], "", "AutoSegNet Zellkorper Grosse rest"),
    # Nothing is left of them in the zoo's letters, so the file tells.
    (["клетка", "ядро", "фон"], "", "AutoSegNet my model"),
    (["a", "b", "c"], "Zellkörper: v1+2", "Zellkorper  v1+2"),
]


def _with_classes(names: list[str]) -> Model:
    model = small_model()
    return Model(model.description.model_copy(update={"classes": default_classes(names)}), model.weights)


@pytest.mark.parametrize(("classes", "name", "found"), OTHER_LETTERS)
def test_names_in_other_letters(classes: list[str], name: str, found: str) -> None:
    assert zoo_name(_with_classes(classes), About(name=name), Path("my.model.zip")) == found


@pytest.mark.slow
@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("classes", "name", "found"), OTHER_LETTERS)
def test_a_package_with_names_in_other_letters(classes: list[str], name: str, found: str, tmp_path: Path) -> None:
    import yaml

    write_bioimageio(_with_classes(classes), tmp_path / "my.model.zip", about=About(name=name))
    with zipfile.ZipFile(tmp_path / "my.model.zip") as archive:
        description: dict[str, Any] = yaml.safe_load(archive.read("rdf.yaml"))
        readme = archive.read("README.md").decode()
    assert description["name"] == found
    assert [each["name"] for each in description["config"]["napari_autosegnet"]["classes"]] == classes
    # Who reads it sees the name as it is.
    assert readme.startswith(f"# {name or 'AutoSegNet ' + ' '.join(classes)}\n")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"name": "клетка"}, "--name 'клетка'"),
        ({"name": "abc"}, "--name 'abc'; give at least 5"),
        ({"authors": ("A", "B/C")}, "--author 'B/C'"),
        ({"authors": ("",)}, "--author ''"),
    ],
)
def test_what_the_zoo_does_not_take_is_named_by_its_option(about: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        write_bioimageio(small_model(), tmp_path / "model.zip", about=About(**about))
    assert "\n" not in str(raised.value) and not (tmp_path / "model.zip").exists()


def test_a_name_that_says_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"call it NAME\.zip"):
        write_bioimageio(small_model(), tmp_path / "model.onnx")
