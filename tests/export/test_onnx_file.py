from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from napari_autosegnet.cli.app import run
from napari_autosegnet.errors import UserError
from napari_autosegnet.export.onnx_file import noise, onnx_runner, write_onnx
from napari_autosegnet.inference.compute.predictor import Predictor
from napari_autosegnet.model import Model
from small_models import small_forest, small_model

#: Sides that are and are not multiples of the stride (2), larger and smaller than a patch.
SIZES = ((2, 2), (3, 5), (64, 64), (33, 70), (97, 130))


def check(model: Model, content: bytes) -> None:
    compute = onnx_runner(content)
    predictor = Predictor(model, halo="exact")
    generator = np.random.default_rng(5)
    for height, width in SIZES:
        images = np.stack([noise(model, generator, height, width) for _ in range(2)])
        found = compute(images)
        assert found.shape == (2, 3, height, width)
        for image, probabilities in zip(images, found, strict=True):
            np.testing.assert_allclose(probabilities, predictor.whole_section(image), rtol=0, atol=1e-4)


def test_the_file_gives_what_the_model_gives_at_every_size(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    file = tmp_path / "ein netz ü.onnx"
    assert run(["export", "--model", str(tmp_path / "model"), "--format", "onnx", "--out", str(file)]) == 0
    check(model, file.read_bytes())

    import onnx

    about = {each.key: each.value for each in onnx.load(file).metadata_props}
    assert [each["name"] for each in json.loads(about["classes"])] == [each.name for each in model.classes]
    assert (about["stride"], about["halo"], about["context"]) == ("2", "22", "1")
    assert about["fingerprint"] == model.fingerprint
    assert list(file.parent.glob("*.onnx")) == [file] and not list(file.parent.glob(".*.partial"))
    with pytest.raises(UserError, match="a forest cannot"):  # but for that another export might take its place
        write_onnx(small_forest(), file)


def test_the_check_sees_a_file_of_other_weights(model: Model) -> None:
    """Noise of this kind tells networks apart; so agreement within 1e-4 means something."""
    generator = np.random.default_rng(5)
    image = noise(model, generator, 64, 64)
    other = small_model(context=1).weights
    name = next(name for name in other if name.startswith("head") and name.endswith("bias"))
    other[name] = other[name] + np.float32(0.01)
    changed = Predictor(Model(model.description, other), halo="exact").whole_section(image)
    assert np.abs(changed - Predictor(model, halo="exact").whole_section(image)).max() < 1e-6  # softmax: a shift of all
    other[name][0] += 0.01
    changed = Predictor(Model(model.description, other), halo="exact").whole_section(image)
    assert np.abs(changed - Predictor(model, halo="exact").whole_section(image)).max() > 1e-3


@pytest.mark.usefixtures("model")
def test_a_model_of_each_section_s_own_constants_takes_those_of_what_it_is_given(tmp_path: Path) -> None:
    own = small_model("unet", context=1, kind="section")
    write_onnx(own, tmp_path / "own.onnx")
    content = (tmp_path / "own.onnx").read_bytes()
    check(own, content)
    # Whatever the range, and each section of the batch and of the context by itself.
    compute, predictor = onnx_runner(content), Predictor(own, halo="exact")
    image = noise(own, np.random.default_rng(3), 60, 70)
    other = image * np.array([257, 3, 0.1], np.float32)[:, None, None] + 500
    for pixels in (image, other):
        np.testing.assert_allclose(compute(pixels[np.newaxis])[0], predictor.whole_section(pixels), atol=1e-3)
    np.testing.assert_allclose(compute(other[np.newaxis]), compute(image[np.newaxis]), atol=1e-3)
    flat = np.full_like(image, 7)
    np.testing.assert_allclose(compute(flat[np.newaxis])[0], predictor.whole_section(flat), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "stem_stride"), [("unet", 1), ("unet", 2), ("pspnet", 1)])
@pytest.mark.usefixtures("model")
def test_the_networks_to_compare_with(network: str, stem_stride: int, tmp_path: Path) -> None:
    compared = small_model(network, image_channels=3, stem_stride=stem_stride)
    write_onnx(compared, tmp_path / "network.onnx")
    check(compared, (tmp_path / "network.onnx").read_bytes())


@pytest.mark.parametrize("form", ["onnx", "bioimageio"])
def test_without_the_extra_the_error_names_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[..., ModuleSpec | None] = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("onnxscript", "bioimageio") else real(name, package)

    small_model().save(tmp_path / "model")
    out = tmp_path / ("out.zip" if form == "bioimageio" else "out.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert run(["export", "--model", str(tmp_path / "model"), "--format", form, "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "pip install 'napari-autosegnet[export]'" in error and "onnxscript" in error
    assert len(error.splitlines()) == 1 and not out.exists()


def other_programs_onnx(remark: bytes) -> bytes:
    import onnx

    graph = onnx.helper.make_graph([], "other", [], [], doc_string=remark.decode())
    content: bytes = onnx.helper.make_model(graph, producer_name="another program").SerializeToString()
    return content


def test_nothing_but_an_export_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even by an export of a zipped model to where that lies."""
    small_model().save(tmp_path / "model")
    archive = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "model"))
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another program's")
    mentions = tmp_path / "mentions.onnx"
    mentions.write_bytes(other_programs_onnx(b"compared with napari-autosegnet"))
    package = tmp_path / "package.zip"
    with zipfile.ZipFile(package, "w") as zoo:
        zoo.writestr("weights.onnx", other_programs_onnx(b""))
    for out in (archive, other, mentions, package):
        before = out.read_bytes()
        assert run(["export", "--model", str(archive), "--out", str(out)]) == 1
        assert f"{out} exists and was not written by this program; choose another name" in capsys.readouterr().err
        assert out.read_bytes() == before
    picture = tmp_path / "section.png"
    picture.write_bytes(b"of a microscope")
    assert run(["show", str(archive), "--out", str(picture)]) == 1
    assert picture.read_bytes() == b"of a microscope"
    from matplotlib.figure import Figure

    for kind in ("png", "svg", "pdf"):
        words = ["show", str(archive), "--out", str(tmp_path / f"drawn.{kind}")]
        assert run(words) == run(words) == 0
        plot = tmp_path / f"plot.{kind}"
        Figure().savefig(plot, metadata={"Title": "napari-autosegnet"})
        before = plot.read_bytes()
        assert run(["show", str(archive), "--out", str(plot)]) == 1
        assert plot.read_bytes() == before


def test_a_name_that_says_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"call it NAME\.onnx"):
        write_onnx(small_model(), tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["file/model.onnx", "file/model.zip"])
def test_where_nothing_can_be_written_is_told_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    small_model().save(tmp_path / "model")
    for module in ("onnx_file", "bioimageio_package"):
        monkeypatch.setattr(f"napari_autosegnet.export.{module}.onnx_model", None)
    assert run(["export", "--model", str(tmp_path / "model"), "--out", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write {tmp_path / name}: Not a directory; ") and error.count("\n") == 1


def test_a_forest_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a forest cannot be written as ONNX"):
        write_onnx(small_forest(), tmp_path / "forest.onnx")
    assert not any(tmp_path.iterdir())
