from __future__ import annotations

import errno
import gzip
import os
import struct
import sys

import pytest
from support import synthetic
from support.synthetic import Section, Segment, multiboot1, multiboot2, tag
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk.content import Content
from rumpbundle.errors import InputError, KernelError
from rumpbundle.kernels import elf
from rumpbundle.kernels.unikernel import Carried, Device, Family, Firmware, Protocol, Unikernel
from rumpbundle.kernels.view import View

PROGRAM = "bundle a unikernel or a kernel with a Multiboot header; a program needs an operating system"
KERNEL = "bundle a kernel: an ELF file with a Multiboot header, a Linux bzImage or an EFI application"
AGAIN = "copy it again from where it comes, or build it again"
ELSEWHERE = "the images are for x86-64 machines: build the kernel for x86-64"


@pytest.fixture
def read(tmp_path):
    def read(data: bytes, **options) -> Unikernel:
        path = tmp_path / "app.bin"
        path.write_bytes(data)
        return Unikernel.read(path, **options)

    return read


def elf_with_notes(notes: bytes, *segments: Segment, header: bytes = b"") -> bytes:
    return synthetic.elf(
        [Segment(header + bytes(64)), *segments], [Section(".note.x", notes, type=synthetic.SHT_NOTE)], bits=64
    )


XEN_PV = (
    synthetic.note(b"Xen", 6, b"linux\0")
    + synthetic.note(b"Xen", 5, b"xen-3.0\0")
    + synthetic.note(b"Xen", 1, struct.pack("<Q", 0x100000))
)
PVH = synthetic.note(b"Xen", 18, struct.pack("<I", 0x100000))
LINUX = synthetic.note(b"Linux", 257, bytes(4))
TENDER = Segment(b"/nonexistent/solo5/\0", type=synthetic.INTERP)


# -- what boots ------------------------------------------------------------------------------------------


def test_a_multiboot_kernel(read):
    kernel = read(synthetic.multiboot_elf())
    assert kernel.name == "app.bin"
    assert kernel.protocols == (Protocol.MULTIBOOT,)
    assert (kernel.executable, kernel.machine, kernel.compression) == ("ELF32", "i386", "")
    assert kernel.load == range(0x100000, 0x10004C)
    assert kernel.entry == 0x100000
    assert kernel.headers == (Carried("multiboot", "at 0x60, flags 0x3"),)
    assert (kernel.family, kernel.repairs, kernel.refusal) == (Family.PLAIN, (), "")


def test_multiboot2_comes_before_multiboot(read):
    kernel = read(synthetic.multiboot_elf(multiboot2() + multiboot1()))
    assert kernel.protocols == (Protocol.MULTIBOOT2, Protocol.MULTIBOOT)
    assert kernel.protocol_for(Firmware.BIOS) is Protocol.MULTIBOOT2
    assert kernel.protocol_for(Firmware.UEFI, Protocol.MULTIBOOT) is Protocol.MULTIBOOT


def test_linux_comes_before_efi(read):
    kernel = read(synthetic.pe(setup=synthetic.bzimage()))
    assert kernel.protocols == (Protocol.LINUX, Protocol.EFI)
    assert kernel.protocol_for(Firmware.UEFI) is Protocol.LINUX
    assert kernel.protocol_for(Firmware.BIOS, Protocol.EFI) is None
    assert kernel.family is Family.LINUX
    assert kernel.cmdline_limit == 2047


def test_linux16_needs_a_bios(read):
    kernel = read(synthetic.bzimage(0x0203, release=b"MEMDISK 6.04"))
    assert kernel.protocols == (Protocol.LINUX16,)
    assert (kernel.protocol_for(Firmware.BIOS), kernel.protocol_for(Firmware.UEFI)) == (Protocol.LINUX16, None)
    assert kernel.family is Family.PLAIN


def test_efi_needs_uefi(read):
    kernel = read(synthetic.pe())
    assert (kernel.protocol_for(Firmware.BIOS), kernel.protocol_for(Firmware.UEFI)) == (None, Protocol.EFI)


def test_a_unified_kernel_image_is_linux(read):
    uki = read(
        synthetic.pe(sections=(".linux", ".initrd", ".cmdline"), data=b"console=ttyS0  a=b\n".ljust(512, b"\0"))
    )
    assert (uki.family, uki.cmdline) == (Family.LINUX, "console=ttyS0 a=b")
    assert read(synthetic.pe(sections=(".linux", ".initrd"))).cmdline == ""
    assert read(synthetic.pe(sections=(".text", ".cmdline"), data=b"x".ljust(512, b"\0"))).cmdline == ""


@pytest.mark.parametrize(
    ("subsystem", "machine", "magic", "protocols"),
    [
        (1, 0x14C, 0x10B, (Protocol.MULTIBOOT,)),
        (3, 0x8664, 0x20B, (Protocol.MULTIBOOT,)),
        (10, 0x8664, 0x20B, (Protocol.EFI, Protocol.MULTIBOOT)),
    ],
)
def test_a_pe_image_that_loads_by_addresses_is_a_multiboot_kernel(read, subsystem, machine, magic, protocols):
    """As Microsoft's linker makes it; GRUB does not look at the image, and the header's addresses count."""
    header = multiboot1(0x10003, 0x101000, 0x101000, 0, 0, 0x101020)
    image = synthetic.pe(subsystem=subsystem, machine=machine, magic=magic, data=header.ljust(512, b"\x90"))
    kernel = read(image)
    assert kernel.protocols == protocols
    assert kernel.warnings == ()
    if subsystem != 10:
        assert (kernel.load, kernel.entry) == (range(0x101000, 0x101200), 0x101020)
        assert kernel.protocol_for(Firmware.BIOS) is kernel.protocol_for(Firmware.UEFI) is Protocol.MULTIBOOT
    with pytest.raises(KernelError, match="is a DOS or Windows program"):
        read(synthetic.pe(subsystem=3, data=multiboot1().ljust(512, b"\x90")))


@pytest.mark.parametrize(
    ("magic", "problem"), [(b"\xce\xfa\xed\xfe", "is a Mach-O program"), (b"MZ", "is a DOS or Windows program")]
)
def test_so_is_a_program_of_another_kind(read, magic, problem):
    header = multiboot1(0x10003, 0x101020, 0x101020, 0, 0, 0x101040)
    assert read((magic.ljust(32, b"\0") + header).ljust(512, b"\x90")).protocols == (Protocol.MULTIBOOT,)
    with pytest.raises(KernelError, match=problem):
        read((magic.ljust(32, b"\0") + multiboot1()).ljust(512, b"\x90"))


@pytest.mark.parametrize("kind", ["PE", "Mach-O"])
def test_what_is_wrong_with_the_addresses_of_such_a_kernel_is_told(read, kind):
    if kind == "PE":
        header = multiboot1(0x10003, 0x101000, 0x101000, 0, 0, 0x900000).ljust(512, b"\x90")
        image = synthetic.pe(subsystem=1, machine=0x14C, magic=0x10B, data=header)
    else:
        header = multiboot1(0x10003, 0x101020, 0x101020, 0, 0, 0x900000)
        image = (b"\xce\xfa\xed\xfe".ljust(32, b"\0") + header).ljust(512, b"\x90")
    with pytest.raises(KernelError, match="its Multiboot header enters at 0x900000, outside of what it loads"):
        read(image)


def test_multiboot_headers_inside_a_pe_image_without_addresses_do_not_count(read):
    kernel = read(synthetic.pe(data=(multiboot2() + multiboot1()).ljust(512, b"\0")))
    assert kernel.protocols == (Protocol.EFI,)
    assert [(h.kind, h.flaw) for h in kernel.headers] == [
        ("multiboot2", "inside a PE image, where GRUB refuses it"),
        ("multiboot", "inside a PE image, where GRUB refuses it"),
        ("efi", ""),
    ]


def test_a_protocol_the_kernel_does_not_carry_cannot_be_wanted(read):
    with pytest.raises(KernelError) as caught:
        read(synthetic.multiboot_elf()).protocol_for(Firmware.BIOS, Protocol.LINUX)
    assert str(caught.value) == "app.bin: does not carry the linux protocol (it carries multiboot)"


def test_a_flat_kernel_that_loads_by_addresses(read):
    fields = (0x100000, 0x100000, 0, 0x200000, 0x100020)
    kernel = read(multiboot1(0x10003, *fields).ljust(512, b"\x90"))
    assert (kernel.executable, kernel.load, kernel.entry) == ("flat", range(0x100000, 0x200000), 0x100020)


def test_a_gzip_compressed_kernel_stays_compressed(read):
    packed = gzip.compress(synthetic.multiboot_elf(), mtime=0)
    kernel = read(packed)
    assert (kernel.protocols, kernel.compression) == ((Protocol.MULTIBOOT,), "gzip")
    assert kernel.content.read() == packed
    assert kernel.load == range(0x100000, 0x10004C)


def test_a_gzip_compressed_efi_application_is_not_started_by_firmware(read):
    kernel = read(gzip.compress(synthetic.pe(setup=synthetic.bzimage())))
    assert kernel.protocols == (Protocol.LINUX,)
    with pytest.raises(KernelError) as caught:
        read(gzip.compress(synthetic.pe()))
    assert caught.value.problem == "is a gzip-compressed EFI application, which no firmware unpacks"
    assert caught.value.hint == "unpack it with gunzip and bundle the result"


# -- families --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stripped", [False, True], ids=["sections", "stripped"])
@pytest.mark.parametrize(
    ("texts", "target", "drivers"),
    [
        ((), "hw_virtio", {"virtio-blk", "virtio-net"}),
        ((b"vioscsi",), "hw_virtio_scsi", {"virtio-blk", "virtio-net", "virtio-scsi"}),
        (
            (b"Intel i82540EM 1000BASE-T Ethernet", b"umass"),
            "hw_generic",
            {"virtio-blk", "virtio-net", "e1000", "usb"},
        ),
    ],
    ids=["virtio", "scsi", "generic"],
)
def test_rumprun_and_its_drivers(read, texts, target, drivers, stripped):
    kernel = read(synthetic.rumprun(*texts, stripped=stripped))
    assert (kernel.family, kernel.target, kernel.drivers) == (Family.RUMPRUN, target, frozenset(drivers))
    assert kernel.protocol_for(Firmware.UEFI) is Protocol.MULTIBOOT


def test_rumprun_on_xen(read):
    texts = Section(".rodata", b"_RUMPRUN_ROOTFSCFG=\0xenif\0")
    notes = Section(".note.Xen", XEN_PV, type=synthetic.SHT_NOTE)
    kernel = read(synthetic.elf([Segment(bytes(64))], [texts, notes]), disk=False)
    assert (kernel.family, kernel.target) == (Family.RUMPRUN, "xen_pv")
    assert kernel.drivers == {"xen-blk", "xen-net"}
    assert kernel.protocols == ()
    assert kernel.refusal == "is a Xen PV kernel, which only Xen's domain builder starts"
    assert dict(kernel.xen_notes) == {"guest_os": "linux", "xen_version": "xen-3.0", "entry": 0x100000}


def test_a_multiboot_kernel_that_xen_can_start_too(read):
    kernel = read(elf_with_notes(XEN_PV + PVH, header=multiboot1()))
    assert kernel.protocols == (Protocol.MULTIBOOT,)
    assert {h.kind for h in kernel.headers} == {"multiboot", "xen", "pvh"}
    assert kernel.pvh_entry == 0x100000


def test_solo5_for_virtio(read):
    data = elf_with_notes(synthetic.solo5_notes(3, ("storage", 1)), TENDER, header=multiboot1())
    kernel = read(data)
    assert (kernel.family, kernel.target) == (Family.SOLO5, "virtio")
    assert kernel.devices == (Device("storage", "block"),)
    assert kernel.drivers == {"virtio-blk", "virtio-net"}
    assert Carried("solo5", "target virtio, block storage") in kernel.headers


@pytest.mark.parametrize(
    ("text", "undriven"),
    [
        (b"Solo5: PCI:%02x:%02x: not configured\n\0", ("log", "management")),
        (b"Solo5: Virtio blk: PCI:%02x:%02x not configured: too many devices.\n\0", ()),
    ],
)
def test_an_older_solo5_drives_one_device_of_a_kind(read, text, undriven):
    devices = [("storage", 1), ("log", 1), ("service", 2), ("management", 2)]
    data = synthetic.elf(
        [Segment(multiboot1().ljust(256, b"\0") + text)],
        [
            Section(".rodata", text, addr=0x100100),
            Section(".note.solo5", synthetic.solo5_notes(3, *devices), type=synthetic.SHT_NOTE),
        ],
    )
    kernel = read(data)
    assert len(kernel.devices) == 4
    assert tuple(device.name for device in kernel.undriven) == undriven


def test_unikraft_by_sections_and_by_text(read):
    data = synthetic.elf([Segment(multiboot1() + bytes(64))], [Section(".uk_bootinfo", b"x")], bits=32)
    assert read(data).family is Family.UNIKRAFT
    kernel = read(synthetic.kernel_with_texts(b"Unikraft \0virtio-net\0"))
    assert (kernel.family, kernel.drivers) == (Family.UNIKRAFT, {"virtio-net"})


def test_xen_hangs_by_multiboot_under_uefi(read):
    kernel = read(synthetic.kernel_with_texts(b"Xen version %d.%d%s (%s %s)\0"))
    assert kernel.family is Family.XEN
    assert kernel.protocol_for(Firmware.BIOS) is Protocol.MULTIBOOT
    assert kernel.protocol_for(Firmware.UEFI) is None
    assert kernel.protocol_for(Firmware.UEFI, Protocol.MULTIBOOT) is Protocol.MULTIBOOT
    assert kernel.trouble(Protocol.MULTIBOOT, Firmware.UEFI) == (
        "Xen hangs silently when multiboot starts it under UEFI; multiboot2 works"
    )
    assert kernel.why_not(Firmware.UEFI) == kernel.trouble(Protocol.MULTIBOOT, Firmware.UEFI)
    assert kernel.why_not(Firmware.BIOS) == "it carries multiboot"


# -- repairs ---------------------------------------------------------------------------------------------

OVERLAPPING = synthetic.elf(
    [Segment(multiboot1() + bytes(64)), Segment(paddr=0x100010), Segment(paddr=0x400000)], bits=32
)


def test_an_empty_segment_inside_another_is_switched_off_in_the_copy(read):
    kernel = read(OVERLAPPING)
    assert kernel.repairs == (
        "switched off the empty program header at 0x54, at which GRUB stops (overlap detected)",
    )
    bundled = kernel.content.read()
    assert [i for i, (a, b) in enumerate(zip(OVERLAPPING, bundled, strict=True)) if a != b] == [0x54]
    found = elf.read(View.of_bytes(bundled))
    assert [s.type for s in found.segments] == [elf.PT_LOAD, elf.PT_NULL, elf.PT_LOAD]
    assert read(bundled).repairs == ()


def test_a_repaired_gzip_is_bundled_unpacked(read):
    kernel = read(gzip.compress(OVERLAPPING))
    assert kernel.compression == ""
    assert kernel.repairs[-1] == "bundled unpacked"
    assert kernel.content.read() == read(OVERLAPPING).content.read()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("said", ["none", "no size", "no place"])
def test_a_kernel_without_section_headers_gets_a_table_of_them(read, bits, said):
    """Also one that announces some of no size (seen with GRUB 2.06), or nowhere."""
    data = bytearray(synthetic.elf([Segment(multiboot1() + bytes(65))], None, bits=bits))
    place, sizes = (32, 46) if bits == 32 else (40, 58)
    if said != "none":
        struct.pack_into("<HH", data, sizes, 0 if said == "no size" else 64, 3)
        struct.pack_into("<I", data, place, 0x40 if said == "no size" else 0)
    data = bytes(data)
    kernel = read(data)
    assert kernel.repairs == ("added a table of section headers, without which GRUB 2.12 stops (invalid e_shoff)",)
    bundled = kernel.content.read()
    before, after = elf.read(View.of_bytes(data)), elf.read(View.of_bytes(bundled))
    assert after.segments == before.segments
    assert after.entry == before.entry
    assert [(s.name, s.type, s.offset, s.size) for s in after.sections] == [("", 0, 0, 0)]
    assert after.sections_whole
    assert not bundled[len(data) :].strip(b"\0")
    assert read(bundled).repairs == ()


def test_what_loads_by_addresses_needs_no_repair(read):
    header = multiboot1(0x10003, 0x100080, 0x100000, 0, 0, 0x100000)
    data = synthetic.elf([Segment(header + bytes(64)), Segment(paddr=0x100010)], None, bits=32)
    kernel = read(data)
    assert (kernel.protocols, kernel.repairs) == ((Protocol.MULTIBOOT,), ())
    assert kernel.content == Content.of_file(kernel.content.sources[0].file)


# -- what does not boot ----------------------------------------------------------------------------------

REFUSED = {
    "empty": (b"", "is empty", None),
    "text": (b"hello\n" * 9, "is a text file", KERNEL),
    "script": (b"#!/bin/sh\n", "is a script", "bundle a unikernel; a script needs an operating system"),
    "nothing-known": (b"\x01\x02\x03", "is no kernel of any known kind", KERNEL),
    "gzip-of-text": (gzip.compress(b"hello\n" * 9), "is a text file (after gunzip)", KERNEL),
    "solo5-hvt": (
        elf_with_notes(synthetic.solo5_notes(1), TENDER),
        "is a Solo5 unikernel for hvt, which only solo5-hvt starts",
        "build it for the virtio target (mirage configure -t virtio)",
    ),
    "solo5-spt": (
        elf_with_notes(synthetic.solo5_notes(2), TENDER),
        "is a Solo5 unikernel for spt, which only solo5-spt starts",
        "build it for the virtio target (mirage configure -t virtio)",
    ),
    "solo5-muen": (
        elf_with_notes(synthetic.solo5_notes(4), TENDER),
        "is a Solo5 unikernel for muen, which only the Muen separation kernel starts",
        "build it for the virtio target (mirage configure -t virtio)",
    ),
    "solo5-xen": (
        elf_with_notes(synthetic.solo5_notes(6) + PVH, TENDER, header=multiboot1()),
        "is a Solo5 unikernel for xen, which only Xen starts",
        "make a Xen kit of it (rumpbundle xen), or build it for the virtio target (mirage configure -t virtio)",
    ),
    "xen-pv": (
        elf_with_notes(XEN_PV),
        "is a Xen PV kernel, which only Xen's domain builder starts",
        "make a Xen kit of it: rumpbundle xen",
    ),
    "pvh": (
        elf_with_notes(PVH),
        "is a kernel that can only be entered by PVH, which no boot loader on a disk does",
        "make a Xen kit of it (rumpbundle xen), or build it with a Multiboot header",
    ),
    "vmlinux": (
        elf_with_notes(LINUX),
        "is an uncompressed Linux kernel (vmlinux), which no boot loader on a disk starts",
        "bundle its bzImage (vmlinuz) instead",
    ),
    "vmlinux-xen": (
        elf_with_notes(XEN_PV + PVH + LINUX),
        "is an uncompressed Linux kernel (vmlinux), which no boot loader on a disk starts",
        "bundle its bzImage (vmlinuz) instead; Xen can start this one: rumpbundle xen",
    ),
    "unikraft-lxboot": (
        synthetic.elf([Segment(bytes(64))], [Section(".uk_bootinfo", b"x")]),
        "is a Unikraft kernel without a Multiboot header, as Firecracker boots it (lxboot)",
        "build it for the qemu platform with Multiboot, or as an EFI stub",
    ),
    "dynamic-program": (
        synthetic.elf([Segment(bytes(64)), Segment(b"/lib64/ld-linux-x86-64.so.2\0", type=synthetic.INTERP)]),
        "is an ordinary dynamically linked program",
        PROGRAM,
    ),
    "static-program": (
        synthetic.elf([Segment(bytes(64))]),
        "is an ELF program without a boot header: an ordinary static program, or a kernel nothing can boot",
        PROGRAM,
    ),
    "shared-library": (
        synthetic.elf(
            [Segment(bytes(64)), Segment(struct.pack("<QQQQ", 14, 0, 0, 0), type=synthetic.DYNAMIC)],
            type=synthetic.DYN,
        ),
        "is a shared library",
        PROGRAM,
    ),
    "module-of-syslinux": (  # mboot.c32, which holds Multiboot's magic number
        synthetic.elf(
            [Segment(multiboot1(checksum=1)), Segment(struct.pack("<QQQQ", 1, 0, 0, 0), type=synthetic.DYNAMIC)],
            type=synthetic.DYN,
        ),
        "is a shared library",
        PROGRAM,
    ),
    "object": (
        synthetic.elf(sections=[Section(".text", b"x")], type=synthetic.REL),
        "is a relocatable object file",
        "link it first",
    ),
    "object-of-a-loader": (
        synthetic.elf(sections=[Section(".text", multiboot1(checksum=1))], type=synthetic.REL),
        "is a relocatable object file",
        "link it first",
    ),
    "linux-module": (
        synthetic.elf(sections=[Section(".gnu.linkonce.this_module", bytes(64))], type=synthetic.REL),
        "is a module of a Linux kernel",
        "bundle the kernel (vmlinuz), with the module in its initrd",
    ),
    "grub-module": (
        synthetic.elf(sections=[Section(".modname", b"normal\0")], type=synthetic.REL, bits=32),
        "is a module of GRUB",
        KERNEL,
    ),
    "core": (synthetic.elf([Segment(bytes(64))], type=synthetic.CORE), "is a core dump", KERNEL),
    "aarch64-program": (
        synthetic.elf([Segment(bytes(64))], machine=synthetic.AARCH64),
        "is a program or kernel for aarch64",
        ELSEWHERE,
    ),
    "riscv-multiboot": (
        synthetic.elf([Segment(multiboot2() + bytes(64))], machine=synthetic.RISCV),
        "is a kernel for riscv",
        ELSEWHERE,
    ),
    "mips-multiboot2": (
        synthetic.elf([Segment(multiboot2(architecture=4) + bytes(64))], machine=8, bits=32),
        "is a kernel for mips",
        ELSEWHERE,
    ),
    "mips-header": (
        synthetic.multiboot_elf(multiboot2(architecture=4)),
        "its Multiboot 2 header is for mips",
        None,
    ),
    "aarch64-image": (
        bytes(0x38) + b"ARM\x64" + bytes(100),
        "is a Linux kernel for aarch64",
        ELSEWHERE,
    ),
    "aarch64-efi": (synthetic.pe(machine=0xAA64), "is an EFI application for aarch64", ELSEWHERE),
    "i386-efi": (synthetic.pe(machine=0x14C, magic=0x10B), "is an EFI application for i386", ELSEWHERE),
    "efi-driver": (synthetic.pe(subsystem=11), "is an EFI driver, which no firmware boots", None),
    "windows": (synthetic.pe(subsystem=3), "is a DOS or Windows program", PROGRAM),
    "past-the-limit": (
        synthetic.elf([Segment(bytes(0x3000) + multiboot1() + bytes(64))], bits=32),
        "its Multiboot header is at 0x3060, GRUB looks only in the first 8 KiB",
        "link the header nearer to the start of the file",
    ),
    "bad-checksum": (
        synthetic.multiboot_elf(multiboot1(checksum=1)),
        "its Multiboot header at 0x60 has a bad checksum",
        None,
    ),
    "truncated-elf": (
        synthetic.elf([Segment(multiboot1() + bytes(500))], bits=32)[:300],
        "is truncated: its segments reach to byte 608, the file has 300",
        AGAIN,
    ),
    "truncated-linux": (
        synthetic.bzimage()[:2000],
        "is truncated: its setup header tells of 5105 bytes, the file has 2000",
        AGAIN,
    ),
    "truncated-efi": (
        synthetic.pe()[:-1],
        "is truncated: its PE sections reach to byte 1536, the file has 1535",
        AGAIN,
    ),
    "truncated-efi-header": (synthetic.pe()[:100], "is truncated in its PE header", AGAIN),
    "disk-with-grub": (
        (bytes(446) + b"\x80\0\0\0\x83\0\0\0" + b"\x40\0\0\0" * 2 + bytes(48) + b"\x55\xaa")
        + multiboot1(0x10003, 0x8200, 0x8200, 0, 0, 0x8200).ljust(512, b"\0"),
        "is a raw disk image",
        "rumpbundle convert makes other formats of a finished image, rumpbundle run boots it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason_and_what_to_do(read, tmp_path, case):
    data, problem, hint = REFUSED[case]
    with pytest.raises(KernelError) as caught:
        read(data)
    assert str(caught.value) == f"{tmp_path}/app.bin: {problem}"
    assert caught.value.hint == hint
    assert "\n" not in problem + (hint or "")


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_line_says_it_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, case):
    data, problem, hint = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(data)
    assert main(["iso", "app.bin"]) == 2
    out, err = capsys.readouterr()
    assert (out, os.listdir()) == ("", ["app.bin"])
    if hint and hint.startswith("rumpbundle convert"):
        hint = "rumpbundle convert app.bin -f iso"  # the command knows which file and format
    assert err.splitlines() == [f"error: app.bin: {problem}", *([f"hint: {hint}"] if hint else [])]


@pytest.mark.parametrize(
    "case",
    ["solo5-hvt", "solo5-xen", "xen-pv", "vmlinux", "pvh", "unikraft-lxboot", "bad-checksum", "aarch64-efi"],
)
def test_a_kernel_no_disk_boots_can_still_be_looked_at(read, case):
    data, problem, hint = REFUSED[case]
    kernel = read(data, disk=False)
    assert kernel.protocols == ()
    assert (kernel.refusal, kernel.advice) == (problem, hint or "")
    assert kernel.protocol_for(Firmware.BIOS) is None


@pytest.mark.parametrize("case", ["text", "dynamic-program", "shared-library", "empty", "object"])
def test_what_is_no_kernel_is_refused_in_any_case(read, case):
    with pytest.raises(KernelError):
        read(REFUSED[case][0], disk=False)


def test_pvh_entry_is_told(read):
    assert read(REFUSED["pvh"][0], disk=False).pvh_entry == 0x100000


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, problem in {
        tmp_path / "missing": "no such file",
        tmp_path: "is a directory, expected a regular file",
        "/dev/null": "is a character device, expected a regular file",
        tmp_path / "fifo": "is a FIFO, expected a regular file",
    }.items():
        with pytest.raises(InputError) as caught:
            Unikernel.read(path)
        assert str(caught.value) == f"{path}: {problem}"


def test_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "app.bin"
    path.write_bytes(b"x")

    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # chmod would not stop root, as whom CI runs.
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError) as caught:
        Unikernel.read(path)
    assert str(caught.value) == f"{path}: cannot be read: Permission denied"


@pytest.mark.parametrize(
    "whole",
    [synthetic.rumprun(), synthetic.bzimage(payload=64), gzip.compress(OVERLAPPING)],
    ids=["elf", "linux", "gzip"],
)
def test_every_truncation_is_refused_in_one_line(read, whole):
    for end in range(0, len(whole) - 16, 7):
        with pytest.raises(KernelError) as caught:
            read(whole[:end])
        assert "\n" not in str(caught.value)


def test_a_huge_file_costs_no_memory(tmp_path):
    path = tmp_path / "huge.bin"
    path.write_bytes(synthetic.rumprun(stripped=True))
    os.truncate(path, 2 << 30)
    code = (
        "import sys; from rumpbundle.kernels.unikernel import Unikernel; Unikernel.read(sys.argv[1]);"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    peak = int(output_of(sys.executable, "-c", code, str(path), timeout=60))
    assert peak < 48 << 10, f"{peak} KiB"


def test_no_repair_but_where_it_is_needed_and_every_one_is_said(read):
    header = multiboot1(7)
    section = Section(".percpu", b"", synthetic.NOBITS, size=1 << 20)
    data = synthetic.elf([Segment(header + b"\x90" * 64)], [section, Section(".symtab", b"sym", align=0)], bits=32)
    kernel = read(data)
    assert [text.partition(" ")[0] for text in kernel.repairs] == ["switched", "took", "aligned"]
    bundled = kernel.content.read()
    assert len(bundled) == len(data)
    assert read(bundled).repairs == ()
    assert multiboot1(3) in bundled


def test_what_lies_behind_the_file_is_zeros_in_the_copy(read):
    header = multiboot1(0x10003, 0x100010, 0x100000, 0x101000, 0x105000, 0x100040)
    data = (bytes(16) + header).ljust(0x1000 - 5, b"\x90")
    kernel = read(data)
    assert kernel.content.read() == data + bytes(5)
    assert kernel.repairs == ("added 5 zeros at the end: its Multiboot header loads so much more than the file has",)


def test_a_kernel_that_writes_vga_text_says_so(read):
    kernel = read(synthetic.elf([Segment(multiboot1() + b"\xbf\x00\x80\x0b\x00" + bytes(64))], bits=32))
    assert len(kernel.warnings) == 1
    assert kernel.warnings[0].startswith("writes to VGA text memory (0xb8000), which is not there under UEFI")
    assert kernel.screen == "text"


def test_a_kernel_that_is_moved_up_is_there(read):
    header = multiboot2(tag(10, struct.pack("<IIII", 0x40000001, 0x80000000, 4096, 0)))
    kernel = read(synthetic.elf([Segment(header + bytes(64))], bits=32))
    assert (kernel.load.start, kernel.entry) == (0x40001000, 0x40001000)
    assert "the machine needs more than 1 GiB" in kernel.warnings[0]
    assert kernel.warnings[0].endswith("lower the min_addr of its Multiboot 2 header (tag 10)")


def test_what_starts_as_linux_does_and_is_none_writes_to_the_screen(read):
    assert read(synthetic.bzimage(release=b"6.10.00")).screen == "terminal"
    assert read(synthetic.bzimage()).screen == ""


def test_a_kernel_that_asks_for_a_framebuffer_says_so(read):
    video = multiboot1(7, 0, 0, 0, 0, 0, 0, 1024, 768, 32)
    assert read(synthetic.elf([Segment(video + bytes(64))], bits=32)).screen == "framebuffer"
    tagged = multiboot2(tag(5, bytes(12)))
    assert read(synthetic.elf([Segment(tagged + bytes(64))], bits=32)).screen == "framebuffer"
    assert read(synthetic.elf([Segment(multiboot1() + bytes(64))], bits=32)).screen == ""


def test_a_kernel_that_loads_high_says_what_memory_that_takes(read):
    kernel = read(synthetic.elf([Segment(multiboot1() + bytes(64), paddr=0x80100000)], bits=32))
    assert kernel.warnings[0].startswith("loads to 0x80100000, so the machine needs more than 2 GiB of memory below")
