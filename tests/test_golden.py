"""What each format writes for one small bundle, against the text under golden/ (golden/README.md)."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from pathlib import Path

import pytest
from support import golden, stub

import rumpbundle
from rumpbundle import formats, hybrid, volume
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.guests import Delivery
from rumpbundle.images.report import inspect
from rumpbundle.images.report.picture import svg
from rumpbundle.manifest import Module

GOLDEN = Path(__file__).parents[1] / "golden"

CASES = [
    "-".join(filter(None, (format.name, subformat)))
    for format in formats.formats()
    for subformat in format.variants or ("",)
]

VERSION = rumpbundle.__version__


@pytest.fixture
def plan(monkeypatch):
    """A plan that depends neither on this machine's GRUB nor on our version."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "rumpbundle" and hasattr(module, "__version__"):
            monkeypatch.setattr(module, "__version__", "0")
    data = [File("b.txt", Content.of_bytes(b"content of b\n")), Symlink("link", "b.txt")]
    bundle = stub.bundle(
        Directory.of("", [Directory.of("data", data)]),
        name="golden",
        cmdline="app.bin -x",
        modules=(Module("module", Content.of_bytes(b"module"), "its text"),),
    )
    return rumpbundle.Plan(
        recipe=rumpbundle.Recipe(app="app.bin"),
        bundle=bundle,
        disk=hybrid.plan(bundle, stub.IMAGES),
        delivery=Delivery(),
    )


def text_of(lines) -> str:
    """Return *lines* as a golden file has them."""
    text = "\n".join(lines) + "\n"
    # A kit's texts name the rumpbundle of the bundle, which the bundle's digest holds as well.
    for told in (f"made by rumpbundle {VERSION} from", f'  "rumpbundle": "{VERSION}"'):
        text = text.replace(told, told.replace(VERSION, "0"))
    return text


def compare(name: str, lines, request) -> None:
    text = text_of(lines)
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
        return
    before = path.read_text() if path.exists() else ""
    changes = list(difflib.unified_diff(before.splitlines(), text.splitlines(), "golden", "now", lineterm=""))
    if changes:
        shown = "\n".join(changes[:200])
        pytest.fail(f"{name} differs; if it should, run pytest --update-golden and review the change:\n{shown}")


def written(plan, format, subformat: str, directory: Path):
    """Write *plan* into the empty *directory* and yield what is to be said about it."""
    rumpbundle.write(plan, format, directory / f"golden{format.suffix}", subformat=subformat)
    return golden.of_outputs(directory, golden.Sectors(plan.disk_for(format)))


def test_the_picture_of_the_documentation(plan, tmp_path, request):
    """docs/inspect.svg, of this very bundle with a volume."""
    tree = Directory.of("", [File("large", Content.of_bytes(bytes(range(256)) * 4096))])
    data, _ = volume.ext2(tree, label="data", epoch=0, size=8 << 20)
    bundle = dataclasses.replace(plan.bundle, name="web", volumes=(data,))
    plan = dataclasses.replace(plan, bundle=bundle, disk=hybrid.plan(bundle, stub.IMAGES))
    rumpbundle.write(plan, formats.find("vdi"), tmp_path / "web.vdi")
    picture = svg(inspect(tmp_path / "web.vdi", stored=True))
    page = GOLDEN.parent / "docs" / "inspect.svg"
    if request.config.getoption("--update-golden"):
        page.write_text(picture, "utf-8")
    assert picture == page.read_text("utf-8")


def test_the_disk(plan, request):
    compare("disk", golden.of_disk(plan.disk_for(formats.find("raw"))), request)


@pytest.mark.parametrize("case", CASES)
def test_the_format(plan, case, tmp_path, request):
    name, _, subformat = case.partition("-")
    format = formats.find(name)
    compare(case, written(plan, format, subformat, tmp_path), request)


@pytest.mark.parametrize("case", ["vmdk-stream", "ova", "ec2-stream", "gce"])
def test_no_golden_file_depends_on_the_compressor(plan, case, tmp_path, monkeypatch):
    """Another level stands for another version of zlib or libdeflate."""
    monkeypatch.setattr("rumpbundle.formats.vmdk.LEVEL", 9)
    monkeypatch.setattr("rumpbundle.formats._gzip_member.LEVEL", 6)
    name, _, subformat = case.partition("-")
    lines = written(plan, formats.find(name), subformat, tmp_path)
    assert text_of(lines) == (GOLDEN / f"{case}.txt").read_text()


def test_every_golden_file_is_of_a_format():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {"disk", *CASES}
