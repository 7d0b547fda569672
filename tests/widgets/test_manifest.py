"""npe2 accepts commands that do not exist and menus that napari does not have; these tests do not."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed")
npe2 = pytest.importorskip("npe2")

from napari_autosegnet.widgets.preferences import PLUGIN, Preferences, read_preferences  # noqa: E402


@pytest.fixture(scope="module")
def manifest() -> Any:
    return npe2.PluginManifest.from_distribution(PLUGIN)


def contributed(manifest: Any) -> dict[str, list[Any]]:
    kinds = ("readers", "writers", "widgets", "sample_data")
    return {kind: list(getattr(manifest.contributions, kind) or ()) for kind in kinds}


def test_every_command_names_a_function_and_is_used(manifest: Any) -> None:
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    used = {one.command for found in contributed(manifest).values() for one in found}
    used |= {item.command for items in manifest.contributions.menus.values() for item in items}
    assert used == commands.keys()
    for name, target in commands.items():
        module, attribute = target.split(":")
        assert callable(getattr(import_module(module), attribute)), name


def test_every_kind_of_contribution_is_there(manifest: Any) -> None:
    assert {kind: len(found) for kind, found in contributed(manifest).items()} == {
        "readers": 1,
        "writers": 1,
        "widgets": 1,
        "sample_data": 4,
    }


def test_napari_has_the_menus(manifest: Any) -> None:
    from napari._app_model.constants import MenuId

    menus = manifest.contributions.menus
    assert "napari/layers/segment" in menus
    assert set(menus) <= {str(menu) for menu in MenuId.contributables()}


def test_the_dock_is_in_the_menus_of_a_viewer(make_napari_viewer: Any, npe2pm: Any, manifest: Any) -> None:
    from napari._app_model import get_app_model

    with npe2pm.tmp_plugin(manifest=manifest):
        make_napari_viewer()
        app = get_app_model()
        for menu in ("napari/layers/segment", "napari/plugins"):
            items = [getattr(item, "command", None) for item in app.menus.get_menu(menu)]
            assert "napari-autosegnet.dock" in [item.id for item in items if item is not None], menu


def test_the_viewer_is_injected(manifest: Any) -> None:
    (widget,) = manifest.contributions.widgets
    target = {command.id: command.python_name for command in manifest.contributions.commands}[widget.command]
    module, name = target.split(":")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    assert next(iter(parameters)) == "napari_viewer"


def test_preferences_have_the_defaults_of_the_manifest(plugin_settings: Any, npe2pm: Any, manifest: Any) -> None:
    with npe2pm.tmp_plugin(manifest=manifest):
        found = read_preferences()
    assert found == Preferences()
    assert found.runs_folder.is_absolute()


def test_preferences_follow_what_is_set(plugin_settings: Any, npe2pm: Any, manifest: Any, tmp_path: Any) -> None:
    from napari.settings import get_plugin_settings

    with npe2pm.tmp_plugin(manifest=manifest):
        own = get_plugin_settings(PLUGIN).autosegnet
        own.runs_folder, own.device, own.workers = str(tmp_path), "cuda", 3
        assert read_preferences() == Preferences(runs_folder=tmp_path, device="cuda", workers=3)


def test_without_the_plugin_there_are_defaults(plugin_settings: Any) -> None:
    assert read_preferences() == Preferences()


def test_opening_the_dock_imports_no_torch() -> None:
    program = (
        "import sys, napari_autosegnet.widgets.dock, napari_autosegnet.widgets.plugin_reader\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(done.stdout.split())
    assert "qtpy" in loaded
    assert loaded.isdisjoint({"torch", "skimage", "onnx", "onnxruntime", "distributed", "matplotlib"})
