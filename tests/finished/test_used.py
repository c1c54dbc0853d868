"""verify: what a machine that ran an image leaves in its container is no damage."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import kernels
from support.tools import output_of, require

from rumpbundle.cli import main

LEFT = "a program that used the image has left that; qemu-img check compares them"
LAZY = "qcow2 at byte 80: it keeps its reference counts lazily; another program has set that"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    top = tmp_path_factory.mktemp("used")
    shutil.copy(kernels.build("multiboot"), top / "app.bin")
    assert main(["qcow2", str(top / "app.bin"), "-q", "--size", "16M", "-o", str(top / "app.qcow2")]) == 0
    return top / "app.qcow2"


@pytest.fixture
def image(bundled, tmp_path):
    return Path(shutil.copy(bundled, tmp_path / "app.qcow2"))


def written(image: Path, *commands: str, **more) -> None:
    output_of("qemu-io", *(word for command in commands for word in ("-c", command)), str(image), **more)


USED = {
    "zero clusters": (["write -z 4M 128k"], []),
    "zeros where something was": (["write -P 7 6M 64k", "write -z 6M 64k"], []),
    "what was discarded": (["write -P 7 6M 64k", "discard 6M 64k"], []),
    "compressed clusters": (["write -c -P 0 5M 64k"], []),
    "zeros that are written": (["write -P 0 5M 64k"], []),
    "lazy_refcounts": ("amend -f qcow2 -o lazy_refcounts=on", [LAZY]),
    "version 2": ("amend -f qcow2 -o compat=0.10", []),
    "a snapshot": (
        "snapshot -c one",
        [f"qcow2: it has snapshots, so its reference counts were not compared; {LEFT}"],
    ),
    "a bitmap": (
        "bitmap --add IMAGE one",
        [f"qcow2: it has bitmaps of what changed, so its reference counts were not compared; {LEFT}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USED)
def test_a_container_that_qemu_wrote_to_is_sound(image, capsys, name):
    how, remarks = USED[name]
    if isinstance(how, list):
        written(image, *how)
    else:
        words = how.split()
        output_of("qemu-img", *(str(image) if word == "IMAGE" else word for word in words),
                  *([] if "IMAGE" in words else [str(image)]))  # fmt: skip
    output_of("qemu-img", "check", "-q", str(image))
    capsys.readouterr()
    assert main(["verify", str(image)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{image}: whole (qcow2, 16 MiB, bundle ")
    assert [line.removeprefix("  remark: ") for line in out.splitlines()[1:]] == remarks


def test_a_machine_that_was_killed_leaves_no_damage(image, capsys):
    """With lazy reference counts an image is dirty until it is closed, and QEMU mends it at the next start."""
    output_of("qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=on", str(image))
    argv = [require("qemu-io"), "-c", "write -P 0 5M 64k", "-c", "sigraise 9", str(image)]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == -9
    assert image.read_bytes()[79] == 1
    assert main(["verify", str(image)]) == 0
    out = capsys.readouterr().out
    assert f"remark: qcow2: it was not closed cleanly, so its reference counts were not compared; {LEFT}" in out
    assert "refcount=0; QEMU mends that when it opens the image to write" in out


@pytest.mark.parametrize(
    ("at", "byte", "said"),
    [
        (79, 1, "it was not closed cleanly"),  # without lazy reference counts nobody says so
        (95, 1, "it has bitmaps"),  # and they are nowhere
        (63, 1, "it has snapshots"),
        (87, 3, "features 0x3 and 0x0 are marked that are not known here"),
    ],
)
def test_a_mark_without_what_it_says_is_damage(image, capsys, at, byte, said):
    with image.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))
    assert main(["verify", str(image)]) == 5
    assert f"  qcow2{': ' if at != 87 else ' at byte 80: '}{said}" in capsys.readouterr().out


def test_what_a_guest_wrote_is_told(image, capsys):
    written(image, "write -P 7 6M 64k")
    assert main(["verify", str(image)]) == 5
    assert "free space at byte 6291456: " in capsys.readouterr().out


@pytest.mark.parametrize("format", ["vhdx", "vmdk", "vdi"])
def test_the_ids_of_a_container_that_was_written_to_are_new(bundled, tmp_path, capsys, format):
    image = tmp_path / f"app.{format}"
    assert main([format, str(bundled.parent / "app.bin"), "-q", "--size", "16M", "-o", str(image)]) == 0
    if format == "vdi":  # as VirtualBox does it; QEMU leaves it
        data = bytearray(image.read_bytes())
        data[408:424] = bytes(range(16))
        image.write_bytes(data)
    else:
        written(image, "write -P 0 5M 64k")
    capsys.readouterr()
    assert main(["verify", str(image)]) == 0
    (remark,) = [line for line in capsys.readouterr().out.splitlines() if "remark" in line]
    assert remark.endswith("; another program has written to it")
    data = bytearray(image.read_bytes())
    place = {"vhdx": 65536 + 20, "vmdk": data.find(b"\nCID=") + 5, "vdi": 392}[format]
    data[place] ^= 0x41
    image.write_bytes(data)
    assert main(["verify", str(image)]) == 5


@pytest.mark.parametrize("place", ["the first digit", "the last digit", "a blank"])
def test_an_id_that_is_damaged_is_not_new(bundled, tmp_path, capsys, place):
    image = tmp_path / "app.vmdk"
    assert main(["vmdk", str(bundled.parent / "app.bin"), "-q", "-o", str(image)]) == 0
    data = bytearray(image.read_bytes())
    at = data.index(b"\nCID=") + 5
    if place == "the last digit":
        data[at + 7] = ord("\n")
    elif place == "a blank":
        data[at] = ord(" ")
    else:
        data[at] = ord("1") if data[at] != ord("1") else ord("2")
    image.write_bytes(data)
    assert main(["verify", str(image)]) == 5


VMWARE = """\
# Disk DescriptorFile
version=1
encoding="windows-1252"
CID={cid}
parentCID=ffffffff
isNativeSnapshot="no"
createType="monolithicSparse"

# Extent description
{extent}

# The Disk Data Base{blank}
#DDB

ddb.adapterType = "ide"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.longContentID = "8124c2c9cf1609f2921a6b67{cid}"
ddb.toolsVersion = "2147483647"
ddb.uuid = "60 00 C2 90 d1 69 8c d2-f6 65 3b 98 be 64 04 5e"
ddb.uuid.image = "{image}"
ddb.uuid.modification = "{modification}"
ddb.uuid.parent = "00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification = "00000000-0000-0000-0000-000000000000"
ddb.virtualHWVersion = "19"
"""


@pytest.mark.parametrize(
    ("how", "status"), [("", 0), ("no leading zero", 0), ("another geometry", 5), ("the same id", 5), ("a line", 5)]
)
def test_a_descriptor_that_vmware_has_written_anew_is_no_damage(bundled, tmp_path, capsys, how, status):
    """As it does at the first boot of every disk."""
    image = tmp_path / "app.vmdk"
    assert main(["vmdk", str(bundled.parent / "app.bin"), "-q", "-o", str(image)]) == 0
    data = bytearray(image.read_bytes())
    text = data[512 : 512 * 21].rstrip(b"\0").decode()

    def said(pattern: str) -> str:
        return re.search(pattern, text, re.MULTILINE)[1]

    cid = said("^CID=(.*)$")
    other = "".join("0123456789abcdef"[(int(digit, 16) + 5) % 16] for digit in cid)
    new = VMWARE.format(
        blank=" ",
        cid={"the same id": cid, "no leading zero": "abc1234"}.get(how, other),
        extent=said("^(RW .*)$"),
        cylinders="17" if how == "another geometry" else said('cylinders = "(.*)"'),
        image=said('uuid.image="(.*)"'),
        modification=said('uuid.modification="(.*)"'),
    ) + ("ddb.unfinished = " if how == "a line" else "")  # fmt: skip
    data[512 : 512 * 21] = new.encode().ljust(512 * 20, b"\0")
    image.write_bytes(data)
    capsys.readouterr()
    assert main(["verify", str(image)]) == status
    out = capsys.readouterr().out
    if not status:
        assert "VMDK at byte 512: its content has another id" in out


def test_a_vmdk_that_virtualbox_has_written_to_is_no_damage(bundled, tmp_path, capsys):
    image = tmp_path / "app.vmdk"
    assert main(["vmdk", str(bundled.parent / "app.bin"), "-q", "-o", str(image)]) == 0
    data = bytearray(image.read_bytes())
    at = data.index(b'ddb.uuid.modification="') + 23
    data[at : at + 36] = data[at : at + 36].translate(bytes.maketrans(b"0123456789abcdef", b"56789abcdef01234"))
    image.write_bytes(data)
    assert main(["verify", str(image)]) == 0
    assert "it has another id of its last change" in capsys.readouterr().out
