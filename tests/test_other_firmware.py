"""Images boot on firmware that is neither SeaBIOS nor EDK2, one boot each."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import bochs, images, kernels, qemu
from support.kernels import Report

pytestmark = pytest.mark.boot

U_BOOT = Path("/usr/lib/u-boot/qemu-x86_64/u-boot.rom")


@pytest.mark.parametrize("bus", ["disk", "cd"])
def test_bochs_bios_and_a_serial_port_nobody_set_up(tmp_path, bus):
    """Bochs' BIOS leaves COM1 at 5 data bits: what arrives whole, arrives through a port that GRUB has programmed."""
    image = images.make(tmp_path, kernels.build("multiboot"), "iso" if bus == "cd" else "raw", cmdline="words")
    said = bochs.boot(image, tmp_path, bus=bus, until=b"end of report")
    assert Report.parse(said).arguments == "multiboot words"
    assert said.startswith(b"\r")
    assert b"\x1b" not in said


def test_u_boots_uefi(tmp_path):
    """U-Boot's UEFI finds the EFI system partition and starts GRUB from it, which starts the kernel."""
    if not U_BOOT.exists():
        qemu.missing("u-boot-qemu")
    image = images.make(tmp_path, kernels.build("multiboot"), "raw", cmdline="exit=5 words")
    drive = f"file={image},format=raw,if=ide,index=0,snapshot=on"
    result = qemu.boot(None, memory="512M", extra=["-bios", str(U_BOOT), "-drive", drive])
    assert Report.parse(result.serial).arguments == "multiboot exit=5 words"
    assert result.status == 11
