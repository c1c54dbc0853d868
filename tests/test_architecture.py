"""Imports run one way, and what makes outputs differ between two runs has one home each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rumpbundle

PACKAGE = Path(rumpbundle.__file__).parent

LAYERS = (
    {"dataclass"},
    {"errors", "events", "units"},
    {"host", "output"},
    {"tools", "binary", "identity", "parallel", "rockridge"},
    {"content", "jsontext", "gzip_member"},
    {"tree"},
    {"kernels", "cpio"},
    {"unikernel"},
    {"config", "payload", "knowledge", "xl"},
    {"ext2", "layout", "sparse", "relocatable", "ondisk"},
    {"iso9660", "esp", "gpt", "flat", "grub", "grubcore", "component", "check"},
    {"volume"},
    {"guests"},
    {"manifest"},
    {"hybrid", "ebs", "xen", "pvgrub"},
    {"images"},
    {"formats"},
    {"api", "inspect"},
    {"launcher"},
    {"dev_launch", "build"},
    {"cli"},
    {"__main__"},
)
"""What a module may import stands in its own layer or in one before it; the package itself is the public face."""

HOMES = {
    "subprocess": {"tools"},
    "time": {"tools", "host", "iso9660", "esp"},  # gmtime of a given moment is no clock; see below
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
    ("os", "environ"): {"host", "tools"},
    ("os", "getenv"): set(),
    ("os", "urandom"): set(),
    ("os", "system"): set(),
    ("os", "getlogin"): set(),
    ("time", "time"): set(),
    ("time", "localtime"): set(),
    ("time", "strftime"): {"iso9660", "inspect"},  # of the given moment
    ("time", "monotonic"): {"host", "tools"},
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
            assert rank(target) <= rank(module), f"{path}:{line}: {module} may not import {target}"


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


def test_every_module_says_what_it_is():
    for _, path in modules():
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_no_module_is_called_util():
    assert not [path for _, path in modules() if path.stem in ("util", "utils", "helpers", "misc", "common")]
