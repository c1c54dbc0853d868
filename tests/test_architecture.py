"""Imports run one way, and what makes outputs differ between two runs has one home each."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

import rumpbundle

PACKAGE = Path(rumpbundle.__file__).parent

LAYERS = (
    {"dataclass"},
    {"errors", "events", "units"},
    {"arguments"},
    {"disk", "host", "config"},
    {"filesystems", "kernels"},
    {"knowledge", "manifest"},
    {"bootloader", "images", "volume"},
    {"grub", "guests", "xen"},
    {"formats", "hybrid"},
    {"bundling", "launcher"},
    {"dev_launch", "finished"},
    {"project"},
    {"cli"},
    {"__main__"},
)
"""What a room may import stands in a layer before its own; the package itself is the public face."""

WITHOUT_HOST = {"disk", "filesystems", "hybrid", "images"}
"""Rooms that also have to run where there is no POSIX."""

HOMES = {
    "subprocess": {"host"},
    "time": {"host", "filesystems", "bundling"},  # gmtime of a given moment is no clock; see below
    "random": set(),
    "secrets": set(),
    "datetime": set(),
    "socket": {"launcher"},  # QEMU's monitor, a socket of this machine
    "getpass": set(),
    "platform": set(),
    "urllib.parse": {"formats"},  # quoting, no network
    "urllib": set(),
    "http": set(),
    "boto3": set(),
    "botocore": set(),
}
"""The only modules that may import each of these."""

FORBIDDEN_CALLS = {
    ("os", "environ"): {"host"},
    ("os", "getenv"): set(),
    ("os", "urandom"): set(),
    ("os", "system"): set(),
    ("os", "getlogin"): set(),
    ("time", "time"): set(),
    ("time", "localtime"): set(),
    ("time", "strftime"): {"filesystems", "bundling", "images"},  # of the given moment
    ("time", "monotonic"): {"host"},
    ("uuid", "uuid4"): set(),
    ("uuid", "uuid1"): set(),
}
"""Attributes that reach for clock, randomness, environment or user, and who may."""


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((parts[0] if parts[0] != "__init__" else "", path))
    return found


def rank(name: str) -> int:
    for index, layer in enumerate(LAYERS):
        if name in layer:
            return index
    pytest.fail(f"{name} has no place in LAYERS: give it one")


def imports(path: Path) -> list[tuple[str, int]]:
    """Return what *path* imports at run time (not under TYPE_CHECKING), functions included, with line numbers."""
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found.append((f"{node.module}.{alias.name}", node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def own_target(name: str) -> str | None:
    """Return the top-level module of ours that *name* reaches, or None."""
    parts = name.split(".")
    if parts[0] != "rumpbundle" or len(parts) < 2:
        return None
    exists = (PACKAGE / f"{parts[1]}.py").exists() or (PACKAGE / parts[1]).is_dir()
    return parts[1] if exists else None


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value).removeprefix(f"{PACKAGE}/"))
def test_imports_run_one_way(module, path):
    if not module:
        return
    for name, line in imports(path):
        target = own_target(name)
        if target is not None:
            below = target == module or rank(target) < rank(module)
            assert below, f"{path}:{line}: {module} may not import {target}"
            assert target != "host" or module not in WITHOUT_HOST, f"{path}:{line}: {module} needs no host"


def own_modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("rumpbundle", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by_name(path: Path) -> set[str]:
    """Return the beginnings of the names that *path* gives to ``importlib.import_module``, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
            assert isinstance(first, ast.Constant), f"{path}:{node.lineno}: nobody can follow this import"
            found.add(first.value)
    return found


def test_no_module_imports_itself_by_way_of_others():
    known = own_modules()
    del known["rumpbundle"]  # the public face, which lends each of its names from its home
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        reached = {name if name in known else name.rpartition(".")[0] for name, _ in imports(path)}
        by_name = imported_by_name(path)
        reached |= {
            name
            for name in known
            if any(name == each or (each.endswith(".") and name.startswith(each)) for each in by_name)
        }
        graph[module] = {name for name in reached if name in known and name != module}

    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " imports ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for name in sorted(graph[module]):
            visit(name, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value).removeprefix(f"{PACKAGE}/"))
def test_clock_randomness_environment_and_programs_have_one_home(module, path):
    for name, line in imports(path):
        home = next((home for home in HOMES if name == home or name.startswith(f"{home}.")), None)
        if home is not None:
            assert module in HOMES[home], f"{path}:{line}: only {HOMES[home] or 'nobody'} may import {home}"
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            allowed = FORBIDDEN_CALLS.get((node.value.id, node.attr))
            assert allowed is None or module in allowed, f"{path}:{node.lineno}: {node.value.id}.{node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            pytest.fail(f"{path}:{node.lineno}: the library never prints")


def test_the_drawing_in_contributing_is_of_these_rooms():
    """The layers above are compared with the imports, so what is drawn is what is imported."""
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
    section = page.partition("## Where things are\n")[2].partition("\n## ")[0]
    _, drawing, told = section.split("```")
    drawn = [{room.strip() for room in layer.split(",")} for layer in drawing.split("→")]
    assert drawn == [layer for layer in LAYERS if layer != {"__main__"}]
    there = {path.stem: f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.glob("[a-z]*")}
    rooms = {name: there[name] for name in set().union(*drawn)}
    assert [name for name, path in rooms.items() if f"`{path}`" not in told] == []


def test_the_top_level_is_seen_at_a_glance():
    files = [path for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert len(files) <= 12
    assert len(rooms) <= 16


def test_every_module_says_what_it_is():
    for _, path in modules():
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_no_module_is_called_util():
    assert not [path for _, path in modules() if path.stem in ("util", "utils", "helpers", "misc", "common")]


def test_modules_and_functions_stay_small():
    sizes = []
    for path in own_modules().values():
        text = path.read_text("utf-8")
        lines = len(text.splitlines())
        sizes.append(lines)
        assert lines <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno}: {node.name}"
    assert statistics.median(sizes) <= 120


SHARED_NAMES = {
    **dict.fromkeys(("Asked", "Choice", "Module", "Volume"), "of a bundle, and as its manifest describes it"),
    **dict.fromkeys(("BootSector", "SuperBlock", "SystemUse"), "as we write it, and as it is read"),
    "File": "of a tree, of a manifest and of a project, by whose name the last two' published schemas go",
}
"""Classes that share a name for they are two sides of one thing."""


def test_the_name_of_a_class_has_one_meaning():
    homes: dict[str, list[str]] = {}
    for path in own_modules().values():
        if path.parent.name != "records":  # each of a container of its own, and named with it
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: found for name, found in homes.items() if len(found) > 1 and name not in SHARED_NAMES} == {}


NAMES = {
    "/rumpbundle.json": "manifest.py",
    "xl.cfg": "images/records/kitfiles.py",
    "volume.raw": "images/records/kitfiles.py",
    "disk.raw": "images/records/kitfiles.py",
}


@pytest.mark.parametrize(("name", "home"), NAMES.items())
def test_the_names_readers_and_writers_share_have_one_home(name, home):
    found = {
        path.relative_to(PACKAGE).as_posix()
        for _, path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value == name
    }
    assert found == {home}
