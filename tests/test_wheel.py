"""The wheel: it brings GRUB's boot images along, so that it bundles where no GRUB is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support import kernels
from support.tools import require

import rumpbundle

ROOT = Path(rumpbundle.__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/facts/*.md")])
SOURCES = ("rumpbundle", "docs", "README.md", "LICENSE", "LICENSES", "pyproject.toml", "hatch_build.py")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function that builds a wheel from a copy of the sources in a place of its own."""
    require("grub-mkimage")

    def build(name: str, home: str = "") -> Path:
        place = tmp_path_factory.mktemp(name)
        for source in SOURCES:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, place / source)
        project = place / "pyproject.toml"
        project.write_text(
            re.sub('^home = ".*"$', f'home = "{home}"', project.read_text("utf-8"), flags=re.M), "utf-8"
        )
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
            cwd=place,
            check=True,
            capture_output=True,
            timeout=120,
        )
        (wheel,) = (place / "dist").iterdir()
        return wheel

    return build


def test_it_bundles_where_no_grub_is_installed(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(build("wheel")) as wheel:
        wheel.extractall("installed")
    assert {"bios.img", "efi.img", "mbr.img", "facts.json"} == {
        p.name for p in Path("installed/rumpbundle/bootimages").iterdir()
    }
    app = shutil.copy(kernels.build("multiboot"), "app.bin")
    ran = subprocess.run(
        [sys.executable, "-m", "rumpbundle", "iso", app],
        env={"PYTHONPATH": "installed", "PATH": "/nonexistent", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "app.iso\n", "")
    rumpbundle.bundle(app, "iso", output="checkout.iso")
    assert Path("app.iso").read_bytes() == Path("checkout.iso").read_bytes()


def test_it_holds_what_it_needs_and_nothing_else(build):
    with zipfile.ZipFile(build("contents")) as wheel:
        names = {name for name in wheel.namelist() if not name.startswith("rumpbundle/bootimages/")}
    packaged = {os.path.relpath(name, "rumpbundle") for name in names if name.startswith("rumpbundle/")}
    kept = subprocess.run(
        ["git", "ls-files"], cwd=ROOT / "rumpbundle", check=True, capture_output=True, text=True
    ).stdout
    pages = {str(path.relative_to(ROOT)) for path in PAGES}
    assert packaged == set(kept.splitlines()) | pages
    made = f"rumpbundle-{rumpbundle.__version__}"
    assert {name.split("/")[0] for name in names} == {"rumpbundle", f"{made}.dist-info", f"{made}.data"}


def test_its_links_lead_to_the_project(build):
    home = "https://forge.example/who/rumpbundle"
    with zipfile.ZipFile(build("home", home)) as wheel:
        metadata = wheel.read(f"rumpbundle-{rumpbundle.__version__}.dist-info/METADATA").decode("utf-8")
    urls = dict(re.findall(r"^Project-URL: (\w+), (.+)$", metadata, re.M))
    links = re.findall(r"\]\((.+?)\)", metadata)
    assert urls.keys() == {"Source", "Documentation", "Changelog", "Issues"}
    assert urls["Source"] == home
    assert len(links) > 20
    kind = {".svg": "raw"}
    for link in (*links, urls["Documentation"], urls["Changelog"]):
        path = Path(link.removeprefix(f"{home}/{kind.get(Path(link).suffix, 'blob')}/v{rumpbundle.__version__}/"))
        assert (ROOT / path).is_file(), link


def test_without_a_home_it_names_none(build):
    with zipfile.ZipFile(build("homeless")) as wheel:
        metadata = wheel.read(f"rumpbundle-{rumpbundle.__version__}.dist-info/METADATA").decode("utf-8")
    assert "Project-URL" not in metadata
    assert metadata.endswith((ROOT / "README.md").read_text("utf-8"))


def test_two_builds_differ_in_no_byte(build):
    assert build("first").read_bytes() == build("second").read_bytes()


def test_it_brings_its_documentation_and_man_pages(build, tmp_path):
    with zipfile.ZipFile(build("documented")) as wheel:
        wheel.extractall(tmp_path)
    docs = tmp_path / "rumpbundle" / "docs"
    assert {path.relative_to(docs) for path in docs.rglob("*.md")} == {
        path.relative_to(ROOT / "docs") for path in PAGES
    }
    (data,) = tmp_path.glob("*.data")
    manuals = {path.name for path in (data / "data/share/man/man1").iterdir()}
    assert {"rumpbundle.1", "rumpbundle-iso.1", "rumpbundle-check.1"} <= manuals
    assert "a machine image" in (data / "data/share/man/man1/rumpbundle.1").read_text("utf-8").partition(".SH SYN")[0]
    ran = subprocess.run(
        [sys.executable, "-m", "rumpbundle", "help", "guests"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/nonexistent", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (ROOT / "docs/guests.md").read_text("utf-8")


def test_a_build_on_its_own_has_what_the_command_line_imports():
    """pip builds where there is nothing but ``build-system.requires``, and the man page is made there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    first = re.compile(r"[A-Za-z0-9]+")
    ours, there = (
        {first.match(each)[0] for each in words}
        for words in (project["project"]["dependencies"], project["build-system"]["requires"])
    )
    code = (
        "import sys; from rumpbundle.cli import cli\n"
        "for name in cli.list_commands(None): cli.get_command(None, name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    argv = [sys.executable, "-c", code]
    loaded = set(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    assert "blake3" in loaded
    assert ours & loaded <= there
