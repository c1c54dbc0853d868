"""Kernels nobody here wrote boot from our images: every row of docs/facts/guests.md#other-kernels that can.

They come from Debian packages. What they print is theirs; where one only draws, its VGA text screen is read. The rows
that cannot boot, and the firmware under which a row cannot, are refused: ``tests/test_debian_kernels.py``.
"""

from __future__ import annotations

import pytest
from support import images, qemu
from support.debian import debian_file, linux_image
from support.tools import output_of

from rumpbundle.bundling.writing import Recipe, plan
from rumpbundle.kernels.unikernel import Protocol, Unikernel
from rumpbundle.knowledge.check import check
from rumpbundle.launcher.notes import notes
from rumpbundle.launcher.requests import of_bundle

pytestmark = pytest.mark.boot

SERIAL = "console=ttyS0,115200"
# memtest86+ looks at all memory before it says a word.
LITTLE = "96M"
# memtest86+ and rEFInd want a framebuffer under UEFI.
DISPLAY = ("-vga", "std")


def boots(
    directory, kernel, firmware, *, until=None, until_screen=None, memory="512M", extra=(), **recipe
) -> qemu.Result:
    """Bundle *kernel* for *firmware* and boot it until it shows itself, as ``check`` says it will."""
    wanted = Protocol(recipe["protocol"]) if "protocol" in recipe else None
    expected = check(Unikernel.read(kernel), "qemu", firmware=[firmware], protocol=wanted).findings[0]
    assert (expected.question, expected.answer) == ("boots", "yes")
    image = images.make(directory, kernel, firmware=firmware, **recipe)
    return qemu.boot(
        image,
        firmware=firmware,
        bus="ahci",
        memory=memory,
        timeout=120,
        until=until,
        until_screen=until_screen,
        extra=extra,
    )


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_memtest86_by_the_linux_protocol(tmp_path, firmware):
    kernel = debian_file("memtest86+", "boot/memtest86+x64.bin")
    boots(tmp_path, kernel, firmware, cmdline=SERIAL, until="Memtest86. v6", memory=LITTLE, extra=DISPLAY)


def test_memtest86_as_an_efi_application(tmp_path):
    kernel = debian_file("memtest86+", "boot/memtest86+x64.efi")
    boots(
        tmp_path, kernel, "uefi", protocol="efi", cmdline=SERIAL, until="Memtest86. v6", memory=LITTLE, extra=DISPLAY
    )


def test_grub_invaders_draws_its_ranks(tmp_path):
    boots(tmp_path, debian_file("grub-invaders", "boot/invaders.exec"), "bios", until_screen=r"-\*-  +-\*-")


def test_gnu_mach(tmp_path):
    kernel = debian_file("gnumach-image-1.8-486", "boot/gnumach-1.8-486.gz")
    boots(tmp_path, kernel, "bios", cmdline="console=com0", until="GNU Mach 1.8")


@pytest.mark.parametrize(("firmware", "protocol"), [("bios", "linux"), ("uefi", "linux"), ("uefi", "efi")])
def test_linux_runs_its_initrd(tmp_path, firmware, protocol):
    recipe = {"modules": [("initrd", initrd(), "")]} if protocol == "linux" else {}
    result = boots(
        tmp_path,
        linux_image("cloud-amd64"),
        firmware,
        protocol=protocol,
        cmdline="console=ttyS0 panic=-1 rdinit=/init the=words",
        until="Kernel panic" if protocol == "efi" else "initrd says: .*",
        **recipe,
    )
    assert "the=words" in result.text


def test_a_unified_kernel_image(tmp_path):
    """Linux, initrd and command line in one EFI application, made as ukify and dracut make it."""
    stub = debian_file("systemd-boot-efi", "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
    parts = {
        "cmdline": b"console=ttyS0 panic=-1 rdinit=/init inside=uki\0",
        "initrd": initrd(),
        "linux": linux_image("cloud-amd64").read_bytes(),
    }
    command = ["objcopy"]
    for number, (name, content) in enumerate(parts.items()):
        (tmp_path / name).write_bytes(content)
        command += ["--add-section", f".{name}={tmp_path / name}"]
        command += ["--change-section-vma", f".{name}={0x1000000 + number * 0x4000000:#x}"]
    output_of(*command, str(stub), str(tmp_path / "linux.efi"))
    result = boots(tmp_path, tmp_path / "linux.efi", "uefi", until="initrd says: .*")
    assert "inside=uki" in result.text
    made = plan(Recipe(app=tmp_path / "linux.efi"))
    assert not any("console=" in note for note in notes(of_bundle(made.bundle, b"")))  # it brings that along


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_xen_by_multiboot2(tmp_path, firmware):
    kernel = debian_file("xen-hypervisor-4.17-amd64", "boot/xen-4.17-amd64.gz")
    module = ("vmlinuz", linux_image("cloud-amd64").read_bytes(), "")
    text = "console=com1 com1=115200,8n1 watchdog=0"
    result = boots(tmp_path, kernel, firmware, cmdline=text, modules=[module], until="Command line: .*\n")
    assert "Xen version 4.17" in result.text
    # Xen does not look at the first word.
    assert f"Command line: {kernel.name} {text}" in result.text


def test_ipxe_by_linux16(tmp_path):
    boots(tmp_path, debian_file("ipxe", "boot/ipxe.lkrn"), "bios", until_screen="iPXE initialising devices")


def test_memdisk_starts_the_floppy_it_is_given(tmp_path):
    floppy = boot_sector(b"from the floppy\r\n").ljust(1440 << 10, b"\0")
    kernel = debian_file("syslinux-common", "usr/lib/syslinux/memdisk")
    boots(tmp_path, kernel, "bios", modules=[("floppy", floppy, "")], until_screen="from the floppy")


@pytest.mark.parametrize(
    ("package", "pattern", "until"),
    [
        ("ipxe", "boot/ipxe.efi", "iPXE initialising devices"),
        ("refind", "usr/share/refind/refind/refind_x64.efi", "Configuration file 'refind.conf' missing!"),
        ("systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "Reboot Into"),
    ],
    ids=["ipxe", "refind", "systemd-boot"],
)
def test_efi_applications(tmp_path, package, pattern, until):
    boots(tmp_path, debian_file(package, pattern), "uefi", until=until, extra=DISPLAY)


def initrd() -> bytes:
    """Return a cpio archive of busybox and an ``/init`` that shows the kernel's command line and powers off."""
    script = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo initrd says: $(/bin/busybox cat /proc/cmdline)
/bin/busybox poweroff -f
"""
    busybox = debian_file("busybox-static", "bin/busybox").read_bytes()
    entries = [
        ("proc", 0o040755, b""),
        ("dev", 0o040755, b""),
        ("bin", 0o040755, b""),
        ("bin/busybox", 0o100755, busybox),
        ("init", 0o100755, script),
        ("TRAILER!!!", 0, b""),
    ]
    archive = bytearray()
    for number, (name, mode, content) in enumerate(entries):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def boot_sector(text: bytes) -> bytes:
    """Return a boot sector that prints *text* through the BIOS and halts."""
    code = bytes.fromhex("31c0 8ed8 be1c7c b40e bb0700 ac 84c0 7404 cd10 ebf7 f4 ebfd").ljust(0x1C, b"\x90")
    return (code + text + b"\0").ljust(510, b"\0") + b"\x55\xaa"
