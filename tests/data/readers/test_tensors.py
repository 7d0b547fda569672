"""N5 and neuroglancer's precomputed volumes, as tensorstore writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorstore", reason="the extra remote is not installed")

from loopback import serving
from napari_autosegnet.data.images import folder_files, open_image
from napari_autosegnet.errors import UserError
from tensor_files import write_n5, write_precomputed

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 70, 100), np.uint8)
STEPS = {"resolution": [4, 5, 40], "units": ["nm"] * 3}


def check(place: Path, name: str) -> None:
    stack = open_image(place)
    assert (stack.name, stack.shape, stack.dtype, stack.channels) == (name, PIXELS.shape, np.uint8, 1)
    assert (stack.scale, stack.unit) == ((40, 5, 4), "nanometer")
    np.testing.assert_array_equal(stack.read(slice(1, 3), slice(5, 60), slice(20, 90))[0], PIXELS[1:3, 5:60, 20:90])
    for index, section in enumerate(PIXELS):
        np.testing.assert_array_equal(stack.section(index)[0], section)


def test_sections_scale_and_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write_n5(tmp_path / "a.n5" / "raw", PIXELS, **STEPS)
    write_n5(tmp_path / "a.n5" / "pyramid" / "s0", PIXELS)
    (tmp_path / "a.n5" / "pyramid" / "attributes.json").write_text(
        json.dumps({"pixelResolution": {"unit": "nm", "dimensions": [4, 5, 40]}})
    )
    write_precomputed(tmp_path / "image", PIXELS[None], voxel_offset=[10, 0, 2])
    check(tmp_path / "a.n5" / "raw", "raw")
    check(tmp_path / "a.n5" / "pyramid", "pyramid")
    check(tmp_path / "image", "image")
    assert open_image(tmp_path / "image").translation == (80, 0, 40) and folder_files(tmp_path / "image") is None
    with serving(tmp_path) as server:
        check(Path(f"precomputed://{server.address}/image"), "image")
        check(Path(f"n5://{server.address}/a.n5/raw"), "raw")
        with pytest.raises(UserError, match=rf"no info in precomputed://{server.address}/absent; check"):
            open_image(Path(f"precomputed://{server.address}/absent"))
    two = write_precomputed(tmp_path / "two", np.stack([PIXELS, PIXELS + 1]))
    np.testing.assert_array_equal(open_image(two).section(3), [PIXELS[3], PIXELS[3] + 1])


def test_what_is_damaged_or_no_image_is_one_line(tmp_path: Path) -> None:
    dataset, volume = (
        write_n5(tmp_path / "a.n5" / "raw", PIXELS),
        write_precomputed(tmp_path / "b.precomputed", PIXELS[None]),
    )
    chunks = {dataset: dataset / "0" / "0" / "0", volume: next((volume / "4_5_40").iterdir())}
    for place, metadata in ((dataset, "attributes.json"), (volume, "info")):
        chunks[place].write_bytes(b"\x00\x01")
        with pytest.raises(UserError, match=rf"cannot read .*{place.name}") as error:
            open_image(place).read(*[slice(None)] * 3)
        assert "\n" not in str(error.value)
        whole = (place / metadata).read_bytes()
        for content in (whole[:-20], b"{}", b'{"scales": [], "dimensions": 3}'):
            (place / metadata).write_bytes(content)
            with pytest.raises(UserError, match=place.name) as error:
                open_image(place)
            assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"a\.n5 is an N5 group, not an image; give a dataset in it: raw"):
        open_image(tmp_path / "a.n5")
    with pytest.raises(UserError, match="holds a password or a token"):
        open_image(Path("precomputed://https://me:hush@host/volume"))
