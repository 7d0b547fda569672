"""Zarr stores behind an address and in a zip, on servers that the tests start on the loopback interface."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

pytest.importorskip("aiohttp", reason="the extra remote is not installed")

from loopback import CloudHandler, Server, serving
from napari_autosegnet.cli import app
from napari_autosegnet.data.images import open_image, open_labels
from napari_autosegnet.errors import UserError
from napari_autosegnet.inference.volume import predict_volume
from napari_autosegnet.ome_zarr import elsewhere
from napari_autosegnet.ome_zarr.write import write_image
from napari_autosegnet.settings import PredictSettings
from napari_autosegnet.units import Placement
from remembered_events import Events
from small_models import small_model

PIXELS = np.random.default_rng(0).integers(1, 255, (6, 70, 100), np.uint8)
ALL = (slice(None),) * 3
PLACEMENT = Placement((40.0, 4.0, 4.0), (80.0, 0.0, 8.0), "nanometer")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """``image.ome.zarr`` in the folder ``tmp_path / "served"``, behind an address."""
    monkeypatch.setattr(elsewhere, "WAITS", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    write_image(folder / "image.ome.zarr", PIXELS.shape, PIXELS.dtype, PIXELS.__getitem__, placement=PLACEMENT)
    with serving(folder) as server:
        yield server


def check_image(place: Path, name: str = "image") -> None:
    stack = open_image(place)
    assert (stack.name, stack.shape, stack.dtype) == (name, PIXELS.shape, np.uint8)
    assert (stack.scale, stack.translation, stack.unit) == ((40, 4, 4), (80, 0, 8), "nanometer")
    for index, section in enumerate(PIXELS):
        np.testing.assert_array_equal(stack.section(index)[0], section)


def test_a_store_behind_an_address(served: Server, tmp_path: Path) -> None:
    check_image(Path(f"{served.address}/image.ome.zarr"))
    check_image(Path(f"{served.address}/image.ome.zarr/0"), "0")
    check_image(Path(f"file://{tmp_path}/served/image.ome.zarr"))
    path, about = tmp_path / "served" / "sharded.zarr", {"chunks": (2, 16, 16), "shards": (4, 32, 64)}
    zarr.create_array(path, data=PIXELS[:4, :64, :64], dimension_names=["z", "y", "x"], **about)  # type: ignore[arg-type]
    part = open_image(Path(f"{served.address}/sharded.zarr")).read(slice(0, 1), slice(0, 16), slice(0, 16))
    np.testing.assert_array_equal(part[0], PIXELS[:1, :16, :16], "of a server that sends whole files alone")
    stack = open_image(Path(f"{served.address}/image.ome.zarr"))
    stack.section(0)
    before, served.failing = served.requests, 2
    stack.section(0)
    assert served.requests == before, "what was read is kept"
    np.testing.assert_array_equal(open_image(Path(f"{served.address}/image.ome.zarr")).section(3)[0], PIXELS[3])
    assert served.failing == 0 < served.requests - before, "a busy server is asked again"


def test_waits_grow_and_what_is_kept_is_bounded(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "WAITS", (0.02, 0.2))
    store, _ = elsewhere.store_of(Path(f"{served.address}/image.ome.zarr"))
    array = zarr.open_array(store, path="0", mode="r")
    size = len((tmp_path / "served/image.ome.zarr/0/c/0/0/0").read_bytes())
    monkeypatch.setattr(elsewhere, "KEPT_BYTES", 3 * size)
    served.failing, began = 2, time.monotonic()
    np.testing.assert_array_equal(array[0], PIXELS[0], "one chunk, which fails twice")
    assert served.failing == 0 and time.monotonic() - began >= 0.22
    for section, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(array[section], pixels)
    before = served.requests
    np.testing.assert_array_equal(array[4:], PIXELS[4:])
    assert served.requests == before, "what was read last is kept"
    np.testing.assert_array_equal(array[1], PIXELS[1])
    assert served.requests > before, "but not what was read long ago"


def test_what_cannot_be_reached_is_one_line(served: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = served.address.partition("//")[2]
    for address, said in (
        (f"{served.address}/absent.zarr", f"there is no Zarr store {served.address}/absent.zarr; check the address"),
        ("http://127.0.0.1:1/a.zarr", "http://127.0.0.1:1/a.zarr cannot be read (Cannot connect"),
        (f"http://me:hush@{place}/image.ome.zarr", "holds a password or a token"),
        (f"{served.address}/image.ome.zarr?token=hush", "holds a password or a token"),
        ("ftp://me:hush@host/a.zarr", "holds a password or a token"),
        ("ftp://host/a.zarr", "is an address that cannot be read; give https, s3 or gs"),
    ):
        with pytest.raises(UserError) as error:
            open_image(Path(address))
        assert said in str(error.value) and "hush" not in str(error.value) and "\n" not in str(error.value)
    run = tmp_path / "run"
    secret = f"http://me:hush@{place}/image.ome.zarr"
    for command in (
        ["train", "--image", secret, "--labels", secret, "--run", str(run), "--epochs", "1"],
        ["predict", "--model", str(run), "--image", secret, "--out", str(run)],
        ["predict", "--model", str(run), "--image", str(tmp_path), "--out", secret],
    ):
        assert app.run(command) == 1
        out, err = capsys.readouterr()
        assert "holds a password or a token" in err and "hush" not in out + err
    assert not run.exists()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"s3://bucket/a\.zarr needs fsspec; pip install 'napari-autosegnet\[remote\]'"):
        open_image(Path("s3://bucket/a.zarr"))


@pytest.mark.parametrize("ending", ["zarr.zip", "ozx"])
def test_a_store_in_a_zip(served: Server, tmp_path: Path, ending: str) -> None:
    shutil.make_archive(str(tmp_path / "image"), "zip", tmp_path / "served" / "image.ome.zarr")
    archive = (tmp_path / "image.zip").rename(tmp_path / f"image.{ending}")
    check_image(archive)
    assert list(open_image(archive).files) == [archive]
    np.testing.assert_array_equal(open_labels(archive / "0").read(*ALL)[0], PIXELS)
    whole = archive.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"x" * 100):
        archive.write_bytes(content)
        with pytest.raises(UserError) as error:
            open_image(archive)
        assert f"image.{ending}" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="labels cannot be written as"):
        open_output_at(tmp_path / f"out.{ending}")


def open_output_at(out: Path) -> None:
    from napari_autosegnet.data.images import image_from_array
    from napari_autosegnet.inference.output.output import open_output

    open_output(out, image_from_array(PIXELS), [], PredictSettings(), chunks=(1, 8, 8), block=(1, 8, 8))


def test_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="the extra remote is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(port=0)
    import boto3

    server.start()
    host, port = server.get_host_and_port()
    try:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_DEFAULT_REGION": "us-east-1",
            "no_proxy": "*",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        write_image(tmp_path / "a.ome.zarr", PIXELS.shape, PIXELS.dtype, PIXELS.__getitem__, placement=PLACEMENT)
        for file in (tmp_path / "a.ome.zarr").rglob("*"):
            if file.is_file():
                client.upload_file(str(file), "bucket", f"data/{file.relative_to(tmp_path).as_posix()}")
        check_image(Path("s3://bucket/data/a.ome.zarr"), "a")
        events = Events()
        image = open_image(Path("s3://bucket/data/a.ome.zarr"))
        predict_volume(small_model(), image, tmp_path / "out.zarr", report=events)
        written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
        assert events.all and not any(b"hush" in content for content in [*written, repr(events.all).encode()])
        with pytest.raises(UserError, match=r"there is no Zarr store s3://bucket/data/absent\.zarr; check") as error:
            open_image(Path("s3://bucket/data/absent.zarr"))
        assert "\n" not in str(error.value)
    finally:
        server.stop()


def test_google_cloud_storage(served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs", reason="the extra remote is not installed")
    with serving(tmp_path, CloudHandler) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        for scheme in ("gs", "gcs"):
            check_image(Path(f"{scheme}://served/image.ome.zarr"))
        server.failing = 1
        np.testing.assert_array_equal(open_image(Path("gs://served/image.ome.zarr")).section(3)[0], PIXELS[3])
        assert server.failing == 0, "a busy server is asked again"
        with pytest.raises(UserError, match=r"there is no Zarr store gs://served/absent\.zarr; check") as error:
            open_image(Path("gs://served/absent.zarr"))
        assert "\n" not in str(error.value)
