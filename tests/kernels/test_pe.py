from __future__ import annotations

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
    "data", [b"", b"MZ", b"MZ" + bytes(62), b"MZ" + b"\xff" * 62], ids=["none", "2", "dos", "far"]
)
def test_what_is_no_pe_image_is_none(data):
    assert pe.read(View.of_bytes(data)) is None
