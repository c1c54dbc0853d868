"""What platforms that look into an upload make of our images (docs/facts/formats.md#image-inspectors).

OpenStack's inspector is the real one, of oslo.utils. What Nova (images.py) and Glance (location.py) conclude from
what it finds is restated here, and oVirt's rule, which is one comparison.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector
from support import images, kernels
from support.tools import output_of

ISO_ENTRY = b"\x01CD001\x01\x00"


def inspected(path: Path) -> dict[str, format_inspector.FileInspector]:
    """Return every format that OpenStack's inspector finds in the file."""
    with path.open("rb") as file:
        inspector = format_inspector.InspectWrapper(file)
        while inspector.read(1 << 16):
            pass
        inspector.close()
        return {str(found): found for found in inspector.formats}


def nova(path: Path, registered: str) -> str:
    """Return why Nova refuses to start a machine from an image of this disk format, or nothing."""
    found = inspected(path)
    if len(found) > 1 and set(found) != {"iso", "gpt"}:
        return f"ambiguous: {sorted(found)}"
    name = "iso" if len(found) > 1 else next(iter(found))
    found[name].safety_check()
    return "" if name == registered or (registered, name) == ("raw", "gpt") else f"is {name}"


def glance(path: Path, registered: str) -> str:
    """Return why Glance refuses an upload as this disk format, or nothing."""
    found = inspected(path)
    name = "iso" if set(found) == {"iso", "gpt"} else "+".join(found)
    if name == registered:
        return ""
    return f"multiple formats: {sorted(found)}" if len(found) > 1 or registered != "raw" else ""


def ovirt(path: Path) -> str:
    """Return why oVirt's uploader takes a disk for something else, or nothing."""
    with path.open("rb") as file:
        file.seek(0x8000)
        return "is an ISO" if file.read(8) == ISO_ENTRY else ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that bundles a kernel as a format, once."""
    kept: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in kept:
            format, _, subformat = name.partition(":")
            directory = tmp_path_factory.mktemp("made")
            kept[name] = images.make(directory, kernels.build("multiboot"), format, subformat=subformat)
        return kept[name]

    return make


@pytest.mark.parametrize(
    ("name", "registered"), [("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vmdk:stream", "vmdk"), ("iso", "iso")]
)
def test_openstack_takes_it(made, name, registered):
    assert nova(made(name), registered) == ""
    assert glance(made(name), registered) == ""


def test_openstack_knows_the_size_of_the_disk(made):
    size = made("raw").stat().st_size
    for name in ("qcow2", "vmdk", "vmdk:stream"):
        (inspector,) = inspected(made(name)).values()
        assert inspector.virtual_size == size


def test_openstack_refuses_a_disk_that_is_an_iso_too(made, tmp_path):
    """So docs/formats.md sends people to qcow2; a cloud that converts it to raw and looks again refuses it still."""
    output_of("qemu-img", "convert", "-O", "raw", str(made("qcow2")), str(tmp_path / "converted"))
    for path in (made("raw"), tmp_path / "converted"):
        assert nova(path, "raw") == "is iso"
        assert glance(path, "raw") == "multiple formats: ['gpt', 'iso']"


def test_ovirt_takes_qcow2_and_no_raw_disk(made):
    assert ovirt(made("qcow2")) == ""
    assert ovirt(made("raw")) == "is an ISO"


def test_the_page_says_so():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| OpenStack, oVirt |"))
    assert "`qcow2`" in row
    assert "`raw`" not in row
