"""The house's rules: floors, names, what may be imported where, and a manifest whose words exist."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import napari_autosegnet

PACKAGE = "napari_autosegnet"
SOURCE = Path(napari_autosegnet.__file__).parent
ROOT = Path(__file__).parents[1]
#: Programs that no test runs whole.
SCRIPTS = sorted(file for folder in ("benchmarks", "docs") for file in (ROOT / folder).rglob("*.py"))

#: Every room and the floor that it is on. A room may import rooms of its floor and of those below.
FLOORS = {
    "plain_text": 0,
    "units": 0,
    "ome_zarr": 0,
    "addresses": 0,
    "errors": 0,
    "files": 0,
    "device": 0,
    "json_files": 0,
    "duration": 0,
    "architecture": 0,
    "settings": 0,
    "setting_fields": 0,
    "presets": 0,
    "locks": 0,
    "processes": 0,
    "events": 0,
    "event_words": 0,
    "interruption": 0,
    "run": 0,
    "quality": 0,
    "data": 0,
    "networks": 1,
    "pixel_classifier": 1,
    "model": 1,
    "training": 2,
    "search": 3,
    "inference": 3,
    "figures": 3,
    "evaluation": 3,
    "export": 3,
    "api": 4,
    "jobs": 4,
    "demo": 4,
    "worker": 4,
    "cli": 4,
    "widgets": 4,
    "__main__": 4,
    "__init__": 4,
}
#: Where napari and Qt may be imported.
QT_ROOMS = {"widgets"}
BLOCKED = ("napari", "qtpy", "magicgui", "superqt", "pyqtgraph", "PyQt5", "PyQt6", "PySide2", "PySide6")
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "misc"}


@cache
def modules() -> list[tuple[str, Path]]:
    """Dotted name and file of every module of the package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        found.append((".".join((PACKAGE, *parts)), path))
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def inner_room(module: str) -> str:
    """The room within the room, as `widgets.learn`; a module that stands by itself is one of its own."""
    return ".".join(module.split(".")[1:3])


@cache
def imports(name: str, path: Path) -> tuple[str, ...]:
    """The package's own modules that a module imports, at its top or inside functions, but for type checkers."""
    return tuple(_imports(name, path))


def _imports(name: str, path: Path) -> Iterator[str]:
    names = {module for module, _ in modules()}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} uses a relative import"
            # `from package import module` means the module, `from package.module import name` means package.module
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for each in wanted:
            parts = each.split(".")
            while parts and ".".join(parts) not in names:
                parts.pop()
            target = ".".join(parts)
            if target and target != name:
                yield target


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_time_nodes(child)


def test_every_room_has_a_floor() -> None:
    unknown = {room(name) for name, _ in modules()} - FLOORS.keys()
    assert not unknown, f"give {unknown} a floor in tests/test_house.py"


def test_nothing_imports_upwards() -> None:
    upwards = [
        f"{name} -> {target}"
        for name, path in modules()
        for target in imports(name, path)
        if FLOORS[room(target)] > FLOORS[room(name)]
    ]
    assert upwards == []


def test_rooms_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in modules():
        graph.setdefault(room(name), set()).update(
            room(target) for target in imports(name, path) if room(target) != room(name)
        )
    # Raises CycleError, which names the circle.
    list(graphlib.TopologicalSorter(graph).static_order())


def test_rooms_within_rooms_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in modules():
        if path.name != "__init__.py":
            graph.setdefault(inner_room(name), set()).update(
                inner_room(target) for target in imports(name, path) if inner_room(target) != inner_room(name)
            )
    list(graphlib.TopologicalSorter(graph).static_order())


def test_modules_form_no_circle() -> None:
    graph = {name: set(imports(name, path)) for name, path in modules()}
    # A module imports its package's __init__; that one may gather the package's modules.
    packages = {name for name, path in modules() if path.name == "__init__.py"}
    graph = {name: targets - packages for name, targets in graph.items()}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_the_rules_see_an_upward_import(tmp_path: Path) -> None:
    source = tmp_path / "broken.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from napari_autosegnet import demo\n"
        "def later():\n    from napari_autosegnet.cli.app import run\n"
        "import napari_autosegnet.settings\n"
    )
    found = set(imports(f"{PACKAGE}.data.broken", source))
    assert found == {f"{PACKAGE}.cli.app", f"{PACKAGE}.settings"}


def test_names_say_what_a_module_is() -> None:
    assert [name for name, _ in modules() if VAGUE & set(name.split("."))] == []


def test_imports_without_napari_and_qt() -> None:
    names = [name for name, _ in modules() if room(name) not in QT_ROOMS and room(name) not in ("__main__", "__init__")]
    program = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing_heavy() -> None:
    program = f"import sys, {PACKAGE}, {PACKAGE}.presets, {PACKAGE}.events, {PACKAGE}.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "dask", "skimage", "scipy", "zarr", "matplotlib", *BLOCKED})


def test_the_manifest_resolves() -> None:
    npe2 = pytest.importorskip("npe2")
    (point,) = [p for p in entry_points(group="napari.manifest") if p.name == "napari-autosegnet"]
    assert point.value == f"{PACKAGE}:napari.yaml"
    manifest = npe2.PluginManifest.from_distribution("napari-autosegnet")
    commands = {command.id: command.python_name for command in manifest.contributions.commands or ()}
    if any(f".{each}" in (target or "") for target in commands.values() for each in QT_ROOMS):
        pytest.importorskip("napari")
    for name, target in commands.items():
        assert target is not None, f"{name} names no function"
        module, attribute = target.split(":")
        assert callable(getattr(import_module(module), attribute)), name
    # npe2 itself accepts contributions that name no command.
    used = {
        contribution.command
        for kind in ("readers", "writers", "widgets", "sample_data")
        for contribution in getattr(manifest.contributions, kind) or ()
        if getattr(contribution, "command", None)
    }
    used |= {
        item.command
        for items in (manifest.contributions.menus or {}).values()
        for item in items
        if getattr(item, "command", None)
    }
    assert used <= commands.keys()


def test_floors_of_the_dependencies_are_tested() -> None:
    tomllib = import_module("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    tested = (ROOT / "constraints-floor.txt").read_text(encoding="utf-8")
    for requirement in needed:
        name, floor = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement).groups()  # type: ignore[union-attr]
        assert re.search(rf"^{re.escape(name)}=={re.escape(floor)}$", tested, re.MULTILINE), requirement


def test_constraints_fit_the_floors() -> None:
    tomllib = import_module("tomllib")
    version = import_module("packaging.version").Version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    for requirement in project["dependencies"]:
        name, floor = requirement.split(">=")
        assert version(pinned[name.lower()]) >= version(floor), requirement


def test_file_formats_are_tested_with_what_the_readme_installs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    demo = re.search(r"<!-- demo -->(.*?)<!-- end of demo -->", readme, re.DOTALL)
    assert demo is not None
    install = re.search(r"&& (pip install [^&]*?) &&", demo[1])
    assert install is not None
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    formats = re.search(r"\[testenv:formats\](.*?)\n\[", tox, re.DOTALL)
    assert formats is not None and re.search(r"^env_list = .*\bformats\b", tox, re.MULTILINE)
    assert re.search(rf"^commands_pre = {re.escape(install[1])}$", formats[1], re.MULTILINE)
    assert re.search(r"^extras =\n", formats[1], re.MULTILINE)


def private_names(file: Path) -> Iterator[str]:
    """Names with a leading underscore that a test uses of objects and modules other than its own."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(module=str(module)) if module.startswith(PACKAGE):
                names = [alias.name for alias in node.names]
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                names = [name]
            case _:
                continue
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def test_tests_use_public_names() -> None:
    # What has no public name: napari's canvas, an end without clean-up, the codecs that tifffile has found.
    known = {"_qt_viewer", "_exit", "_codecs"}
    found = {file.name: set(private_names(file)) - known for file in (ROOT / "tests").rglob("*.py")}
    assert {name: private for name, private in found.items() if private} == {}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_name_what_is_there(script: Path) -> None:
    """Those of benchmarks and docs are run now and then only, and go stale unnoticed."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "napari_autosegnet":
            module = import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                known = hasattr(module, name) or find_spec(f"{node.module}.{name}") is not None
                assert known, f"{node.module} has no {name}"
