from __future__ import annotations

import re
import struct

import pytest
from support import synthetic

from rumpbundle.kernels import pe
from rumpbundle.kernels.view import View


def read(data: bytes) -> pe.Pe:
    image = pe.read(View.of_bytes(data))
    assert image is not None
    return image


def test_an_efi_application():
    image = read(synthetic.pe())
    assert (image.bits, image.machine, image.flaw, image.sections) == (64, "x86-64", "", (".text",))
    assert image.is_efi
    assert not image.is_uki
    assert image.detail == "PE32+ x86-64, subsystem 10"


def test_a_unified_kernel_image():
    assert read(synthetic.pe(sections=(".linux", ".initrd", ".cmdline"))).is_uki


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (synthetic.pe(machine=0x14C, magic=0x10B), "is an EFI application for i386"),
        (synthetic.pe(machine=0xAA64), "is an EFI application for aarch64"),
        (synthetic.pe(machine=0x1234), "is an EFI application for machine 0x1234"),
        (synthetic.pe(subsystem=11), "is an EFI driver, which no firmware boots"),
        (synthetic.pe(subsystem=12), "is an EFI driver, which no firmware boots"),
        (synthetic.pe(subsystem=3), "is a Windows program"),
        (synthetic.pe()[:100], "is truncated in its PE header"),
        (synthetic.pe(magic=0x107), "is truncated in its PE header"),
        (synthetic.pe()[:-1], "is truncated: its PE sections reach to byte 1536, the file has 1535"),
        (synthetic.pe()[:200], "is truncated: its PE sections reach to byte 201, the file has 200"),
    ],
    ids=[
        "i386",
        "aarch64",
        "unknown",
        "boot-driver",
        "runtime-driver",
        "windows",
        "header",
        "magic",
        "data",
        "table",
    ],
)
def test_flaws(data, flaw):
    assert read(data).flaw == flaw


@pytest.mark.parametrize(
    ("offset", "value", "flaw"),
    [
        (0, 0x10B, "is an EFI application for x86-64 with a header for 32 bits"),
        (16, 0xFFFFFF00, "has its entry point at 0xffffff00, in none of its sections"),
        (16, 0, "has its entry point at 0x0, in none of its sections"),
        (32, 0, "has PE sections that lie in its headers, or no alignment for them"),
        (56, 0, "has PE headers of 1024 bytes in an image of 0, which firmware refuses"),
        (56, 0x1010, "has PE sections that reach beyond its image of 4112 bytes"),
        (60, 0, "has PE headers of 0 bytes in an image of 16384"),
        (60, 0x7FFFFFFF, "has PE headers of 2147483647 bytes"),
        (60, 0x480, "has PE sections that lie in its headers"),
        (108, 16, "has a PE header of 112 bytes that tells of 16 directories"),
        (108, 0x7FFFFFFF, "has a PE header of 112 bytes that tells of 2147483647 directories"),
    ],
)
def test_what_firmware_does_not_load(offset, value, flaw):
    """Each was seen: OVMF goes on to its shell, or jumps to where nothing is."""
    data = bytearray(synthetic.pe())
    at = int.from_bytes(data[60:64], "little") + 24 + offset
    data[at : at + 4] = value.to_bytes(4, "little")
    assert read(bytes(data)).flaw.startswith(flaw)


def fixed(base: int, *, alignment: int = 0x1000, size: int = 0x4000) -> bytes:
    """Return an application without relocations."""
    data = bytearray(synthetic.pe())
    at = int.from_bytes(data[60:64], "little")
    data[at + 22] |= 1
    data[at + 48 : at + 56] = base.to_bytes(8, "little")
    data[at + 56 : at + 60] = alignment.to_bytes(4, "little")
    data[at + 80 : at + 84] = size.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (fixed(0), "image base 0x0, which is refused"),
        (fixed(0x400200), "image base 0x400200, which is no multiple of 4096"),
        (fixed(0x2001000, alignment=0x10000), "which is no multiple of 65536"),
        (fixed(0x9F000), r"image base 0x9f000 \(to 0xa2fff\), where a PC has no memory"),
        (fixed(0xFF000), "where a PC has no memory"),
        (fixed(0xFFFF_FFFF_8000_0000), "where a PC has no memory"),
        (fixed(0xFFFF_F000), "where a PC has no memory"),
    ],
)
def test_without_relocations_it_must_lie_where_memory_can_be(data, why):
    """Each was seen not to start under OVMF, but for the last, which takes a PC with devices elsewhere."""
    found = read(data)
    assert re.match(f"has no relocations, so firmware must load it at its .*{why}", found.flaw)
    assert found.advice == pe.RELINK


@pytest.mark.parametrize(
    ("base", "taken"),
    [(0x1000, False), (0x9C000, False), (0x100000, False), (0x7FC000, False), (0x7FD000, True), (0x900000, True),
     (0x14FF000, True), (0x1500000, False), (0x1_4000_0000, False)],
)  # fmt: skip
def test_without_relocations_it_must_lie_beside_the_firmware(base, taken):
    found = read(fixed(base))
    assert not found.flaw
    assert found.load == range(base, base + 0x4000)
    assert ("OVMF has data of its own" in found.in_the_way) == taken


def test_an_alignment_above_a_page_takes_room_of_its_own():
    found = read(fixed(0x400000, alignment=0x200000, size=0x400000))
    assert found.load == range(0x400000, 0xA00000)
    assert found.in_the_way


GOOD = synthetic.relocations(0x1000, 0xA010, 0x3020, 0)


def relocated(table: bytes, **more: int) -> pe.Pe:
    return read(synthetic.relocated(synthetic.pe(directories=16), table, **more))


@pytest.mark.parametrize(
    ("table", "more"),
    [
        (GOOD, {}),
        (GOOD + GOOD, {}),
        (GOOD, {"size": 0, "address": 0x1234567}),
        (GOOD + b"x", {}),
        (synthetic.relocations(0x4FF0, 0xA00F), {}),
    ],
    ids=["good", "two", "none", "one-byte-more", "last-byte"],
)
def test_relocations_that_are_right(table, more):
    found = relocated(table, **more)
    assert (found.flaw, found.fixed) == ("", "")


BROKEN = {
    "type 5, which x86-64 does not have": synthetic.relocations(0x1000, 0, 0x5000),
    "type 15, which x86-64 does not have": GOOD + synthetic.relocations(0x1000, 0xF000),
    "a block of 0 bytes at byte 0": synthetic.relocations(0x1000, 0, length=0),
    "a block of 0 bytes at byte 14": GOOD + bytes(8),
    "a block up to byte 64 of 10": synthetic.relocations(0x1000, 0, length=64),
    "one at 0x5010, outside of its image of 20480 bytes": synthetic.relocations(0x5000, 0xA010),
}


@pytest.mark.parametrize("problem", BROKEN)
@pytest.mark.parametrize(
    ("base", "why"),
    [
        (0, "image base 0x0, which is refused"),
        (0x1000, "image base 0x1000, which it does not try below 0x100000"),
        (0x400200, "which is no multiple of 4096"),
        (0xF000_0000, "where a PC has no memory"),
        (0x900000, ""),
        (0x400000, ""),
    ],
)
def test_broken_relocations_are_as_none_where_it_must_be_moved(problem, base, why):
    """Each was seen: OVMF says "Load Error" where it cannot load the image at its base."""
    found = relocated(BROKEN[problem], base=base)
    assert found.fixed == f"has relocations that firmware cannot carry out ({problem})"
    assert found.is_damaged
    assert found.flaw == (
        f"{found.fixed}, so firmware must load it at its {why}" if why[:5] == "image" else found.flaw
    )
    assert found.flaw.endswith(why)
    assert bool(found.flaw) == bool(why)
    assert bool(found.in_the_way) == (base == 0x900000)
    assert found.advice == "link it again, and leave the .reloc section as the linker made it"


@pytest.mark.parametrize(
    ("more", "where"),
    [({"address": 0x6000}, "0x6000-0x600d"), ({"size": 0x1001}, "0x4000-0x5000"), ({"size": 1 << 31}, "0x4000-")],
)
@pytest.mark.parametrize("base", [0, 0x400000])
def test_relocations_outside_of_the_image_are_never_loaded(more, where, base):
    assert relocated(GOOD, base=base, **more).flaw.startswith(f"has relocations at {where}")


@pytest.mark.parametrize(
    ("address", "size", "flaw"),
    [
        (1536, 100, "is truncated: its signature reaches to byte 1636, the file has 1536"),
        (0xFFFFFFFF, 16, "is truncated: its signature reaches to byte 4294967311, the file has 1536"),
        (1500, 36, ""),
        (1 << 20, 0, ""),
    ],
)
def test_a_signature_that_is_cut_off(address: int, size: int, flaw: str):
    """Firmware looks whether it is there, be it verified or not (Unsupported, seen with OVMF)."""
    image = bytearray(synthetic.pe(directories=6))
    struct.pack_into("<II", image, 0x40 + 24 + 112 + 8 * 4, address, size)
    found = pe.read(View.of_bytes(image))
    assert found is not None
    assert found.flaw == flaw


def test_an_image_without_sections():
    data = bytearray(synthetic.pe())
    at = int.from_bytes(data[60:64], "little") + 6
    data[at : at + 2] = bytes(2)
    assert "in none of its sections" in read(bytes(data)).flaw


@pytest.mark.parametrize(
    "data", [b"", b"MZ", b"MZ" + bytes(62), b"MZ" + b"\xff" * 62], ids=["none", "2", "dos", "far"]
)
def test_what_is_no_pe_image_is_none(data):
    assert pe.read(View.of_bytes(data)) is None
