from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_autosegnet import model as model_module
from napari_autosegnet.architecture import SearchSpace
from napari_autosegnet.data.annotations import default_classes
from napari_autosegnet.data.normalization import Normalization
from napari_autosegnet.errors import UserError
from napari_autosegnet.model import HaloFigure, Model
from napari_autosegnet.networks.specification import NetworkSpecification
from small_models import small_model


def make_model(seed: int = 0, width: int = 4) -> Model:
    specification = NetworkSpecification(
        architecture=SearchSpace().sample(np.random.default_rng(0)),
        in_channels=3,
        classes=2,
        levels=1,
        base_width=width,
        max_width=8,
    )
    torch.manual_seed(seed)
    return Model.create(
        specification.build(),
        specification,
        classes=default_classes(["membrane", "cell"]),
        normalization=Normalization(mean=(10.0,), std=(3.0,)),
        image_channels=1,
        context=1,
        patch_size=64,
        halo=HaloFigure(pixels=24, agreement=0.9997),
        training={"epochs": 3},
        metrics={"mean_iou": 0.8},
    )


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]
    again = Model.load(tmp_path / "model")
    assert again.description == model.description and again.fingerprint == model.fingerprint
    assert again.halo == HaloFigure(pixels=24, agreement=0.9997)
    assert (again.in_channels, again.image_channels, again.context, again.patch_size) == (3, 1, 1, 64)
    assert [info.name for info in again.classes] == ["membrane", "cell"]
    image = torch.randn(1, 3, 16, 16)
    network = again.network()
    assert not network.training
    with torch.inference_mode():
        torch.testing.assert_close(network(image), model.network()(image), rtol=0, atol=0)
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    assert content["network"]["architecture"]["down"] and content["packages"]["torch"]


@pytest.mark.parametrize("network", ["searched", "unet", "pspnet"])
def test_loading_draws_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    """For networks that are only counted, drawing would import torch's compiler, which takes seconds."""
    small_model(network).save(tmp_path / "model")

    def draw(*arguments: Any, **named: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", draw)
    assert Model.load(tmp_path / "model").weights


def test_the_fingerprint_is_of_what_decides_the_result() -> None:
    model = make_model()
    assert model.fingerprint == make_model().fingerprint
    assert model.fingerprint == model.with_(halo=HaloFigure(pixels=8, agreement=1), metrics={}).fingerprint
    assert model.fingerprint != make_model(seed=1).fingerprint
    other = Model(
        model.description.model_copy(update={"normalization": Normalization(mean=(11.0,), std=(3.0,))}), model.weights
    )
    assert model.fingerprint != other.fingerprint


def test_training_on_does_not_change_a_model() -> None:
    specification = make_model().specification
    network = specification.build()
    model = Model(make_model().description, network.state_dict())
    before = model.fingerprint
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert model.fingerprint == before and Model(model.description, model.weights).fingerprint == before


@pytest.mark.parametrize("folder", ["", "run/model/"])
def test_a_zip_of_the_folder(tmp_path: Path, folder: str) -> None:
    make_model().save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for file in (tmp_path / "model").iterdir():
            archive.write(file, folder + file.name)
    assert Model.load(tmp_path / "model.zip").fingerprint == make_model().fingerprint


def test_an_evil_zip_writes_nothing_and_reads_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model().save(tmp_path / "model")
    inner = tmp_path / "inner"
    inner.mkdir()
    with zipfile.ZipFile(inner / "evil.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "model").iterdir():
            archive.write(file, f"../../{file.name}")
        archive.writestr("../../../escaped.txt", "boo")
    Model.load(inner / "evil.zip")
    assert not list(tmp_path.rglob("escaped.txt")) and [file.name for file in inner.iterdir()] == ["evil.zip"]
    monkeypatch.setattr(model_module, "MAX_WEIGHTS", 100)
    with pytest.raises(UserError, match="larger than a model can be"):
        Model.load(inner / "evil.zip")
    with pytest.raises(UserError, match="larger than a model can be"):
        Model.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
@pytest.mark.parametrize("offset", [0, 200])
def test_a_zip_with_damaged_bytes_is_refused(tmp_path: Path, name: str, offset: int) -> None:
    """Damage shows as a wrong checksum or, where the compressed stream makes no sense, as an error of zlib."""
    make_model().save(tmp_path / "model")
    file = tmp_path / "model.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in ("weights.safetensors", "model.json"):
            archive.write(tmp_path / "model" / each, each)
        start = archive.getinfo(name).header_offset + 30 + len(name) + offset
    content = bytearray(file.read_bytes())
    content[start : start + 40] = bytes(255 - value for value in content[start : start + 40])
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot read the model"):
        Model.load(file)


def test_a_zip_of_two_models_is_refused(tmp_path: Path) -> None:
    make_model().save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("a", "b"):
            archive.write(tmp_path / "model" / "model.json", f"{name}/model.json")
    with pytest.raises(UserError, match=r"more than one model\.json"):
        Model.load(tmp_path / "two.zip")


@pytest.mark.parametrize("crash_at", [0, 1])
def test_replacing_never_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> None:
    old, new = make_model(seed=0), make_model(seed=1, width=6)
    old.save(tmp_path / "model")
    real, count = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal count
        if count == crash_at:
            raise KeyboardInterrupt
        count += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        new.save(tmp_path / "model")
    monkeypatch.undo()
    found = Model.load(tmp_path / "model")
    assert found.fingerprint == (new if crash_at else old).fingerprint
    assert found.description == (new if crash_at else old).description
    found.network()
    assert len(list((tmp_path / "model").iterdir())) == 2


def test_names_and_colors_may_be_edited(tmp_path: Path) -> None:
    make_model().save(tmp_path)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace("membrane", "border"))
    assert Model.load(tmp_path).classes[0].name == "border"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "model version 2, this program reads 1; update"),
        ({"schema_version": 0}, "model version 0, this program reads 1; train it again"),
        ({"format": "other"}, "is not a model of napari-autosegnet"),
        ({"image_channels": 0}, "damaged at 'image_channels'"),
        ({"image_channels": 2}, "6 channels, the network 3"),
        ({"surprise": 1}, "damaged at 'surprise'"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    make_model().save(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(UserError, match=said) as raised:
        Model.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file or folder .*nothing; give a RUN/model folder"):
        Model.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a model"):
        Model.load(tmp_path)
    make_model().save(tmp_path)
    description = (tmp_path / "model.json").read_bytes()
    (tmp_path / "model.json").unlink()
    (tmp_path / "model.json").mkdir()
    with pytest.raises(UserError, match="cannot read the model"):
        Model.load(tmp_path)
    (tmp_path / "model.json").rmdir()
    (tmp_path / "model.json").write_bytes(description)
    weights = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match=r"weights of .* are damaged"):
        Model.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(UserError, match="do not belong together"):
        Model.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(weights)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        Model.load(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="cannot read the model"):
        Model.load(tmp_path / "bad.zip")


def test_a_checkpoint_with_a_pickle_in_it_is_not_loaded(tmp_path: Path) -> None:
    make_model().save(tmp_path)
    torch.save(make_model().weights, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="damaged"):
        Model.load(tmp_path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    other = Model(make_model(width=6).description, make_model(width=4).weights)
    with pytest.raises(UserError, match="do not fit its network"):
        other.network()


def test_a_network_too_big_for_any_machine_takes_no_memory(tmp_path: Path) -> None:
    """A few bytes may ask for terabytes; they do not fit the weights, which is seen before memory is taken."""
    model = make_model()
    huge = model.specification.model_copy(update={"base_width": 4096, "max_width": 16384, "levels": 10})
    Model(model.description.model_copy(update={"network": huge}), model.weights).save(tmp_path)
    with pytest.raises(UserError, match=r"do not fit its network \(\d+ missing, \d+ of another size\)"):
        Model.load(tmp_path).network()


# What was changed after it was written


def edit(folder: Path, *keys: Any, value: Any) -> None:
    """Change one value of ``model.json``."""
    content = json.loads((folder / "model.json").read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("normalization", "mean", 0), 18.0),
        (("normalization", "std", 0), 30.0),
        (("halo", "pixels"), 25),
        (("patch_size",), 65),
        (("network", "architecture", "skips", 0), None),
        (("training",), {"epochs": 4}),
        (("metrics", "mean_iou"), 0.99),
        (("description_sha256",), ""),
    ],
)
def test_a_changed_description_is_refused(tmp_path: Path, keys: tuple[Any, ...], value: Any) -> None:
    """A digit of the mean, and the model would label everything as one class."""
    make_model().save(tmp_path)
    if value is None:
        value = not json.loads((tmp_path / "model.json").read_text())["network"]["architecture"]["skips"][0]
    edit(tmp_path, *keys, value=value)
    with pytest.raises(UserError, match="was changed since it was written") as raised:
        Model.load(tmp_path)
    assert "\n" not in str(raised.value) and "copy the model again" in str(raised.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("keys", [("normalization", "mean", 0), ("normalization", "std", 0), ("halo", "agreement")])
def test_what_is_no_number_is_refused(tmp_path: Path, keys: tuple[Any, ...], value: float) -> None:
    make_model().save(tmp_path)
    edit(tmp_path, *keys, value=value)
    with pytest.raises(UserError, match=rf"damaged at '{keys[0]}.{keys[1]}.*': must be a finite number"):
        Model.load(tmp_path)


def test_a_changed_copy_in_the_header_is_refused(tmp_path: Path) -> None:
    """The copy counts where ``model.json`` is missing, or is an older model's after a crash."""
    make_model().save(tmp_path)
    weights = (tmp_path / "weights.safetensors").read_bytes()
    assert weights.count(b"10.0") == 1
    (tmp_path / "weights.safetensors").write_bytes(weights.replace(b"10.0", b"18.0"))
    Model.load(tmp_path)  # model.json is as it was
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match="was changed since it was written"):
        Model.load(tmp_path)


def test_what_is_measured_may_be_no_number(tmp_path: Path) -> None:
    model = make_model().with_(metrics={"validation": {"mean_iou": float("nan")}})
    model.save(tmp_path)
    assert Model.load(tmp_path).fingerprint == model.fingerprint


def test_a_zip_that_inflates_to_more_than_the_network_needs_is_not_inflated(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model")
    whole = (tmp_path / "model" / "weights.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    more = 2**28
    header["bomb"] = {"dtype": "U8", "shape": [more], "data_offsets": [end, end + more]}
    head = json.dumps(header).encode()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "model" / "model.json", "model.json")
        with archive.open("weights.safetensors", "w", force_zip64=True) as handle:
            handle.write(len(head).to_bytes(8, "little") + head + whole[8 + length :])
            for _ in range(more // 2**20):
                handle.write(bytes(2**20))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(UserError, match=f"take {end + more} bytes, and its network has room for {end}"):
        Model.load(tmp_path / "bomb.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
