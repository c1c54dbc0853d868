"""What real kernels nobody here wrote are taken for; grub-file is the judge where it has an opinion."""

from __future__ import annotations

import struct

import pytest
from support.debian import debian_file, linux_image
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.errors import KernelError
from rumpbundle.kernels.unikernel import Family, Firmware, Unikernel
from rumpbundle.knowledge.check import check

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
    for firmware, protocol in (("bios", bios), ("uefi", uefi)):
        assert check(kernel, "qemu", firmware=[firmware]).findings[0].answer == ("yes" if protocol else "no")
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


def test_an_uncompressed_linux_kernel_is_refused(tmp_path):
    """Debian's bzImage holds it, packed by LZ4; where, the setup header says since boot protocol 2.08."""
    image = linux_image("cloud-amd64").read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    # The last four bytes are its unpacked size.
    (tmp_path / "payload").write_bytes(image[start : start + length - 4])
    output_of("lz4", "-dqf", str(tmp_path / "payload"), str(tmp_path / "vmlinux"))
    with pytest.raises(KernelError) as caught:
        Unikernel.read(tmp_path / "vmlinux")
    problem = "is an uncompressed Linux kernel (vmlinux), which no boot loader on a disk starts"
    assert str(caught.value) == f"{tmp_path}/vmlinux: {problem}"
    assert caught.value.hint == "bundle its bzImage (vmlinuz) instead; Xen can start this one: rumpbundle xen"
    kernel = Unikernel.read(tmp_path / "vmlinux", disk=False)
    assert (kernel.family, [h.kind for h in kernel.headers]) == (Family.LINUX, ["xen", "pvh"])
    assert dict(kernel.xen_notes)["guest_os"] == "linux"


REFUSED = {
    ("gnumach-image-1.8-xen-486", "boot/gnumach-1.8-xen-486.gz"): (
        "is a Xen PV kernel, which only Xen's domain builder starts"
    ),
    ("refind", "usr/share/refind/refind/drivers_x64/ext4_x64.efi"): "is an EFI driver, which no firmware boots",
    ("busybox-static", "bin/busybox"): (
        "is an ELF program without a boot header: an ordinary static program, or a kernel nothing can boot"
    ),
    ("ipxe", "usr/lib/ipxe/ipxe.iso"): "is an ISO image",
}


@pytest.mark.parametrize(("package", "pattern"), REFUSED, ids=lambda value: value.rpartition("/")[2])
def test_what_no_disk_image_boots_is_refused(package, pattern):
    path = debian_file(package, pattern)
    with pytest.raises(KernelError) as caught:
        Unikernel.read(path)
    assert str(caught.value) == f"{path}: {REFUSED[package, pattern]}"


BOOT_CODE = {
    ("grub-pc-bin", "boot.img"): "GRUB's boot.img",
    ("grub-pc-bin", "boot_hybrid.img"): "GRUB's boot.img",
    ("grub-pc-bin", "diskboot.img"): "GRUB's diskboot.img",
    ("grub-pc-bin", "cdboot.img"): "GRUB's cdboot.img",
    ("grub-pc-bin", "pxeboot.img"): "GRUB's pxeboot.img",
    ("grub-pc-bin", "g2ldr.img"): "GRUB's loader for Windows' boot manager (g2ldr)",
    ("syslinux-common", "mbr.bin"): "SYSLINUX' boot code for an MBR",
    ("syslinux-common", "altmbr_c.bin"): "SYSLINUX' boot code for an MBR",
    ("syslinux-common", "gptmbr.bin"): "SYSLINUX' boot code for a GPT disk",
    ("isolinux", "isohdpfx.bin"): "ISOLINUX' boot code for hybrid ISOs",
    ("isolinux", "isohdppx_f.bin"): "ISOLINUX' boot code for hybrid ISOs",
    ("isolinux", "isolinux.bin"): "ISOLINUX, which starts from a CD",
    ("pxelinux", "pxelinux.0"): "PXELINUX, which network cards load",
    ("pxelinux", "lpxelinux.0"): "PXELINUX, which network cards load",
    ("ipxe", "ipxe.pxe"): "an iPXE that network cards load",
    ("ipxe", "undionly.kpxe"): "an iPXE that network cards load",
}


@pytest.mark.parametrize(("package", "name"), BOOT_CODE)
def test_real_boot_code_is_named_by_every_command(package, name, capsys):
    path = debian_file(package, f"**/{name}")
    said = f"error: {path}: is {BOOT_CODE[package, name]}"
    for words in (["iso", str(path), "--dry-run"], ["inspect", str(path)], ["ls", str(path)], ["verify", str(path)]):
        assert main(words) == 2
        first, _, hint = capsys.readouterr().err.partition("\n")
        assert first in (said, f"{said}, no disk image"), words
        assert hint.startswith("hint: ")


def test_a_linux_header_needs_a_kernel_behind_it(tmp_path, capsys):
    """GRUB's lnxboot.img has all that GRUB looks at, and starts what stands behind it."""
    header = debian_file("grub-pc-bin", "**/lnxboot.img")
    assert main(["iso", str(header), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: {header}: is a Linux boot header with no kernel behind it, as GRUB's lnxboot.img is"
    )
    assert "hint: join it with what it starts" in said
    (tmp_path / "grub.lkrn").write_bytes(header.read_bytes() + bytes(30_000))
    assert Unikernel.read(tmp_path / "grub.lkrn").protocols == ("linux16",)
