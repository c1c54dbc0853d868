"""What the documentation and the hints claim of other things: errors that exist, packages that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from support.kernels import ROOT
from support.tools import require

PACKAGE = ROOT / "rumpbundle"
SHOWN = re.findall(r"^- \*\*`(.+?)`\*\*", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)

KNOWN = {
    *("e2fsprogs", "grub-common", "grub-efi-amd64-bin", "grub-pc-bin", "ovmf", "pipx"),
    *("qemu-system-x86", "qemu-utils", "xen-system-amd64"),
}
"""All packages that we name: ``tests/fresh/run.py`` looks for them in Debian 13 and Ubuntu 24.04, too."""


def literals() -> str:
    """Return all text in the package's code, with ``…`` for what is put in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_nothing_we_say_sends_people_to_a_repository():
    """Who installed a wheel has no docs, but ``rumpbundle help``, which prints the facts we name as sources."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        unsaid = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in unsaid:
                assert not re.search(r"\bdocs/[a-z]+\.md|\b(tests|scripts|examples)/", node.value), (
                    f"{path}: {node.value}"
                )


def test_twenty_errors_are_told():
    assert len(SHOWN) >= 20


def test_every_error_that_is_told_exists():
    said = literals()
    assert [text for text in SHOWN if text not in said] == []


def named_packages() -> set[str]:
    """Return every package that a hint, a page or a list of ours tells people to install."""
    from rumpbundle.host.programs import PACKAGES

    texts = [literals(), *(path.read_text("utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])]
    commands = [line for text in texts for line in re.findall(r"sudo apt(?:-get)? install ([^\n`;&…)]*)", text)]
    words = {word for line in commands for word in line.split() if re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", word)}
    ours = {word for text in PACKAGES.values() for word in re.findall(r"[a-z0-9][a-z0-9.+-]+", text)}
    return words | ours - {"and"}


def test_every_package_that_is_named_exists_in_debian():
    require("apt-cache")
    names = sorted(named_packages())
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, timeout=60
    ).stdout
    found = set(re.findall(r"^Package: (.+)$", shown, re.MULTILINE))
    if not found and not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
        pytest.skip("apt has no lists here: apt-get update")
    assert set(names) - found == set()


def test_every_package_that_is_named_is_known_elsewhere():
    assert named_packages() == KNOWN
