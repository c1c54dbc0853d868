"""The hybrid disk's tables, as sgdisk and sfdisk see them, and what the plan promises."""

from __future__ import annotations

import json
import struct

import pytest
from blake3 import blake3
from support import stub
from support.tools import output_of

from rumpbundle import hybrid
from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.layout import GIB, MIB, LayoutReader
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import InputError
from rumpbundle.kernels.unikernel import Firmware, Protocol
from rumpbundle.manifest import Module, Volume


def write(bundle, path, **padding):
    disk = hybrid.plan(bundle, stub.IMAGES).padded(**padding)
    with path.open("w+b") as file:
        write_flat(disk, file.fileno())
    return disk


@pytest.mark.parametrize(
    "padding", [{"align": 2048}, {"align": MIB}, {"align": GIB}, {"align": MIB, "least": 3 << 40}]
)
def test_gpt_is_clean_at_every_size(tmp_path, padding):
    image = tmp_path / "disk"
    disk = write(stub.bundle(), image, **padding)
    assert "No problems found" in output_of("sgdisk", "-v", str(image))
    assert "No errors detected" in output_of("sfdisk", "-V", str(image))
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    assert table["label"] == "gpt"
    assert table["lastlba"] == disk.size // 512 - 34
    assert [(p["name"], p["start"], p["size"]) for p in table["partitions"]] == [
        (p.name, p.first_lba, p.length // 512) for p in disk.partitions
    ]


def test_a_guest_that_cannot_read_gpt_gets_a_plain_mbr_with_its_volume_first(tmp_path):
    image = tmp_path / "disk"
    volume = Volume("data", "ext2", Content.of_bytes(b"ext2 " * 100_000))
    disk = write(stub.bundle(volumes=(volume,), table="mbr"), image, align=MIB)
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    assert table["label"] == "dos"
    assert [p["type"] for p in table["partitions"]] == ["83", "ef"]
    assert table["partitions"][0]["start"] % 2048 == 0
    assert "No errors detected" in output_of("sfdisk", "-V", str(image))
    with LayoutReader(disk) as reader:
        assert reader.read(table["partitions"][0]["start"] * 512, 5) == b"ext2 "


def test_the_manifest_explains_the_image_and_its_digest_names_it(tmp_path):
    image = tmp_path / "disk"
    root = Directory.of("", [File("data.txt", Content.of_bytes(b"data")), File('we"ird\\ä', Content.of_bytes(b""))])
    modules = (Module("mod ule", Content.of_bytes(b"module"), "te xt"),)
    bundle = stub.bundle(root, cmdline="a  b", modules=modules)
    write(bundle, image, align=2048)
    out = tmp_path / "out"
    output_of("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(out))
    raw = (out / "rumpbundle.json").read_bytes()
    manifest = json.loads(raw)
    assert manifest["cmdline"] == "a  b"
    assert manifest["grub"]["version"] == "stub"
    assert manifest["kernel"]["blake3"] == blake3(b"kernel " * 1000).hexdigest()
    assert manifest["modules"] == [
        {"name": "mod ule", "text": "te xt", "size": 6, "blake3": blake3(b"module").hexdigest()}
    ]
    assert {entry["path"] for entry in manifest["files"]} == {"/data.txt", '/we"ird\\ä'}
    digest = blake3(raw).hexdigest()
    assert digest == bundle.identity.digest
    (marker,) = (out / "boot" / "rumpbundle").iterdir()
    assert marker.name == digest[:16].upper()
    assert f"/boot/rumpbundle/{marker.name}" in (out / "boot/grub/grub.cfg").read_text()
    assert (out / "boot/modules/0/mod ule").read_bytes() == b"module"


@pytest.mark.parametrize(
    "change",
    [
        {"cmdline": "other"},
        {"name": "other"},
        {"console": "serial"},
        {"epoch": 1_000_000_001},
        {"kernel": stub.kernel(content=b"other")},
        {"boot": dict.fromkeys(Firmware, Protocol.MULTIBOOT2)},
        {"root": Directory.of("", [File("f", Content.of_bytes(b""))])},
        {"modules": (Module("m", Content.of_bytes(b"")),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_changes_the_image_changes_its_identity(change):
    assert stub.bundle(**change).identity.digest != stub.bundle().identity.digest


def test_the_boot_code_knows_where_the_bios_image_is(tmp_path):
    image = tmp_path / "disk"
    write(stub.bundle(), image, align=2048)
    data = image.read_bytes()
    (sector,) = struct.unpack_from("<Q", data, 0x1B0)
    at = (sector - 4) * 512
    (pvd, block, length, checksum) = struct.unpack_from("<IIII", data, at + 8)
    assert (pvd, block, length) == (16, at // 2048, len(stub.IMAGES.bios))
    words = struct.unpack_from(f"<{length // 4 - 16}I", data, at + 64)
    assert checksum == sum(words) & 0xFFFFFFFF
    assert struct.unpack_from("<Q", data, at + 2548)[0] == block * 4 + 5


@pytest.mark.parametrize(
    ("firmware", "expected"),
    [
        ((Firmware.BIOS,), {"80x86"}),
        ((Firmware.UEFI,), {"EFI"}),
        ((Firmware.BIOS, Firmware.UEFI), {"80x86", "EFI"}),
    ],
    ids=["bios", "uefi", "both"],
)
def test_el_torito_offers_just_the_firmware_asked_for(tmp_path, firmware, expected):
    image = tmp_path / "disk"
    write(stub.bundle(firmware=firmware, boot=dict.fromkeys(firmware, Protocol.MULTIBOOT)), image, align=2048)
    said = output_of("xorriso", "-indev", str(image), "-report_el_torito", "plain")
    platforms = {
        {"BIOS": "80x86", "UEFI": "EFI"}[line.split()[6]]
        for line in said.splitlines()
        if line.startswith("El Torito boot img :")
    }
    assert platforms == expected


def test_files_shared_with_the_esp_cost_nothing_twice(tmp_path):
    image = tmp_path / "disk"
    disk = write(stub.bundle(), image, align=2048)
    copies = image.read_bytes().count(stub.IMAGES.efi)
    assert copies == 1
    assert any(extent.label.endswith("BOOTX64.EFI") for extent in disk.extents)


@pytest.mark.parametrize("name", ["boot", "rumpbundle.json", "EFI"])
def test_data_cannot_take_the_images_own_names(name):
    root = Directory.of("", [File(name, Content.of_bytes(b""))])
    with pytest.raises(InputError, match=f"/{name}: the image needs this name itself"):
        hybrid.plan(stub.bundle(root), stub.IMAGES)


def test_an_efi_application_without_arguments_is_the_boot_loader(tmp_path):
    bundle = stub.bundle(
        kernel=stub.kernel("app.efi", b"MZ application", protocols=(Protocol.EFI,)),
        boot={Firmware.UEFI: Protocol.EFI},
    )
    image = tmp_path / "disk"
    write(bundle, image, align=2048)
    out = tmp_path / "out"
    output_of("xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(out))
    assert (out / "EFI/BOOT/BOOTX64.EFI").read_bytes() == b"MZ application"
    assert "cannot start under BIOS firmware; use UEFI" in (out / "boot/grub/grub.cfg").read_text()
