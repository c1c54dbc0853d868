"""What real kernels nobody here wrote are taken for; grub-file is the judge where it has an opinion."""

from __future__ import annotations

import pytest
from support.debian import debian_file
from support.tools import output_of

from rumpbundle.unikernel import Family, Firmware, Unikernel

REAL = {
    # package, file: family, machine, protocols, and which of them each firmware starts
    ("memtest86+", "boot/memtest86+x64.bin"): ("plain", "x86-64", ["linux"], "linux", "linux"),
    ("memtest86+", "boot/memtest86+x64.efi"): ("plain", "x86-64", ["linux", "efi"], "linux", "linux"),
    ("memtest86+", "boot/memtest86+ia32.efi"): ("plain", "i386", ["linux"], "linux", "linux"),
    ("grub-invaders", "boot/invaders.exec"): ("plain", "i386", ["multiboot"], "multiboot", None),
    ("linux-image-cloud-amd64", "boot/vmlinuz-*"): ("linux", "x86-64", ["linux", "efi"], "linux", "linux"),
    ("xen-hypervisor-4.17-amd64", "boot/xen-4.17-amd64.gz"): (
        "xen",
        "i386",
        ["multiboot2", "multiboot"],
        "multiboot2",
        "multiboot2",
    ),
    ("xen-hypervisor-4.17-amd64", "boot/xen-4.17-amd64.efi"): ("xen", "x86-64", ["efi"], None, "efi"),
    ("gnumach-image-1.8-486", "boot/gnumach-1.8-486.gz"): ("plain", "x86-64", ["multiboot"], "multiboot", None),
    ("ipxe", "boot/ipxe.lkrn"): ("plain", "i386", ["linux16"], "linux16", None),
    ("ipxe", "boot/ipxe.efi"): ("plain", "x86-64", ["efi"], None, "efi"),
    ("syslinux-common", "usr/lib/syslinux/memdisk"): ("plain", "i386", ["linux16"], "linux16", None),
    ("refind", "usr/share/refind/refind/refind_x64.efi"): ("plain", "x86-64", ["efi"], None, "efi"),
    ("systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi"): ("plain", "x86-64", ["efi"], None, "efi"),
}


@pytest.mark.parametrize(("package", "pattern"), REAL, ids=lambda value: value.rpartition("/")[2])
def test_real_kernels_are_recognised(package, pattern):
    kernel = Unikernel.read(debian_file(package, pattern))
    family, machine, protocols, bios, uefi = REAL[package, pattern]
    assert (kernel.family, kernel.machine, list(kernel.protocols)) == (Family(family), machine, protocols)
    assert kernel.protocol_for(Firmware.BIOS) == bios
    assert kernel.protocol_for(Firmware.UEFI) == uefi
    assert not kernel.repairs


@pytest.mark.parametrize(("package", "pattern"), REAL, ids=lambda value: value.rpartition("/")[2])
def test_grub_file_agrees(package, pattern, tmp_path):
    path = debian_file(package, pattern)
    kernel = Unikernel.read(path)
    for option, kind in {"--is-x86-multiboot": "multiboot", "--is-x86-multiboot2": "multiboot2"}.items():
        if kernel.executable.startswith("PE"):
            continue
        said = output_of("sh", "-c", f'grub-file {option} "$1"; echo $?', "sh", str(path)).strip()
        assert (said == "0") is (kind in kernel.protocols)
