"""What we say of a kernel is what GRUB does with it: one GRUB is given every odd file, and must agree with us."""

from __future__ import annotations

import gzip
import struct

import pytest
from support import qemu, synthetic
from support.synthetic import NOBITS, Section, Segment, multiboot1, multiboot2, tag
from support.tools import output_of

from rumpbundle.errors import KernelError
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel


def kernel(header: bytes, *more: Segment, **options) -> bytes:
    return synthetic.elf([Segment(header + bytes(64)), *more], **({"bits": 32} | options))


def flat(header_at: int, header: bytes, size: int = 0x4000) -> bytes:
    return (bytes(header_at) + header).ljust(size, b"\x90")


EMPTY_INSIDE = Segment(paddr=0x100010)
ADDRESSES = (0x100010, 0x100000, 0x102000, 0x105000, 0x100040)
BEHIND = (0x100040, 0x102000, 0x105000)
LAST = 8192 - 12
ADDRESS_TAG = tag(2, struct.pack("<IIII", 0x100010, 0x100000, 0x102000, 0))
ADDRESS_TAG_IN_PE = tag(2, struct.pack("<IIII", 0x100000, 0x100000, 0, 0))
ENTRY_TAG = tag(3, struct.pack("<I", 0x100040))
RELOCATABLE = tag(10, struct.pack("<IIII", 0x100000, 0x8000000, 4096, 0))
MOVED = 64 + 16 + 24 + 8
"""Bytes of a kernel with a tag 10."""
PACKED = gzip.compress(kernel(multiboot1()), mtime=0)
# Only the addresses of the first segment matter, so that the table of program headers can stand behind it.
LATE_TABLE = bytearray(kernel(multiboot1() + bytes(9000)))
LATE_TABLE[28:32] = struct.pack("<I", len(LATE_TABLE))
LATE_TABLE += LATE_TABLE[52:84]

ROMS_TAGS = (tag(2, struct.pack("<IIII", 0xC0010, 0xC0000, 0xC2000, 0)), tag(3, struct.pack("<I", 0xC0040)))

CASES: dict[str, tuple[str, bytes]] = {
    "mb2-kludge-moved-from-roms": ("multiboot2", flat(0x10, multiboot2(*ROMS_TAGS, RELOCATABLE))),
    "elf32": ("multiboot", kernel(multiboot1())),
    "elf64": ("multiboot", kernel(multiboot1(), bits=64)),
    "every-flag": ("multiboot", kernel(multiboot1(7, 0, 0, 0, 0, 0, 1, 80, 25, 0))),
    "kludge": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES))),
    "kludge-behind-the-header": ("multiboot", flat(0x10, multiboot1(0x10003, 0x100010, *BEHIND, 0x100040))),
    "kludge-over-elf": ("multiboot", kernel(multiboot1(0x10003, 0x100060, 0x100000, 0, 0, 0x100060), machine=40)),
    "last-place": ("multiboot", kernel(bytes(LAST - 0x60) + multiboot1())),
    "too-late": ("multiboot", kernel(bytes(LAST + 4 - 0x60) + multiboot1())),
    "misaligned": ("multiboot", kernel(b"\0\0" + multiboot1())),
    "checksum": ("multiboot", kernel(multiboot1(checksum=1))),
    "checksum-then-good": ("multiboot", kernel(multiboot1(checksum=1) + multiboot1())),
    "unknown-flag": ("multiboot", kernel(multiboot1(0x13))),
    "no-elf-no-kludge": ("multiboot", flat(0x10, multiboot1())),
    "tiny": ("multiboot", multiboot1() + bytes(8)),
    "aarch64": ("multiboot", kernel(multiboot1(), bits=64, machine=synthetic.AARCH64)),
    "x32": ("multiboot", kernel(multiboot1(), machine=synthetic.X86_64)),
    "big-endian": ("multiboot", kernel(multiboot1(), order=">")),
    "object": ("multiboot", kernel(multiboot1(), type=synthetic.REL)),
    "dyn": ("multiboot", kernel(multiboot1(), type=synthetic.DYN)),
    "entry-outside": ("multiboot", kernel(multiboot1(), entry=0x10)),
    "above-4g": ("multiboot", kernel(multiboot1(), Segment(b"x", paddr=0x1_0000_0000), bits=64)),
    "overlap": ("multiboot", kernel(multiboot1(), Segment(bytes(32), paddr=0x100020))),
    "empty-inside": ("multiboot", kernel(multiboot1(), EMPTY_INSIDE)),
    "empty-elsewhere": ("multiboot", kernel(multiboot1(), Segment(paddr=0x400000))),
    "no-sections": ("multiboot", kernel(multiboot1(), sections=None)),
    "no-sections-elf64": ("multiboot", kernel(multiboot1(), sections=None, bits=64)),
    "late-table": ("multiboot", bytes(LATE_TABLE)),
    "cut-segment": ("multiboot", kernel(multiboot1())[:-32]),
    "cut-sections": ("multiboot", kernel(multiboot1(), sections=[Section(".text", b"")])[:-1]),
    "gzip": ("multiboot", PACKED),
    "gzip-with-header-checksum": ("multiboot", PACKED[:3] + b"\x02" + PACKED[4:10] + b"\0\0" + PACKED[10:]),
    "gzip-cut": ("multiboot", PACKED[:-20]),
    "mb2": ("multiboot2", kernel(multiboot2())),
    "mb2-elf64": ("multiboot2", kernel(multiboot2(), bits=64)),
    "mb2-no-sections": ("multiboot2", kernel(multiboot2(), sections=None)),
    "mb2-no-sections-elf64": ("multiboot2", kernel(multiboot2(), sections=None, bits=64)),
    "mb2-last-place": ("multiboot2", kernel(bytes(32768 - 24 - 0x60) + multiboot2())),
    "mb2-too-late": ("multiboot2", kernel(bytes(32768 - 0x60) + multiboot2())),
    "mb2-misaligned": ("multiboot2", kernel(bytes(4) + multiboot2())),
    "mb2-checksum": ("multiboot2", kernel(multiboot2(checksum=1))),
    "mb2-mips": ("multiboot2", kernel(multiboot2(architecture=4))),
    "mb2-unknown-tag": ("multiboot2", kernel(multiboot2(tag(77)))),
    "mb2-unknown-optional-tag": ("multiboot2", kernel(multiboot2(tag(77, flags=1)))),
    "mb2-unknown-information": ("multiboot2", kernel(multiboot2(tag(1, struct.pack("<I", 99))))),
    "mb2-unknown-optional-information": ("multiboot2", kernel(multiboot2(tag(1, struct.pack("<I", 99), flags=1)))),
    "mb2-addresses": ("multiboot2", flat(0x10, multiboot2(ADDRESS_TAG, ENTRY_TAG))),
    "mb2-addresses-behind-the-header": (
        "multiboot2",
        flat(0x10, multiboot2(tag(2, struct.pack("<IIII", 0x100010, *BEHIND)), ENTRY_TAG)),
    ),
    "mb2-addresses-without-entry": ("multiboot2", flat(0x10, multiboot2(ADDRESS_TAG))),
    "mb2-relocations": (
        "multiboot2",
        kernel(multiboot2(), sections=[Section(".rela.dyn", bytes(24), type=synthetic.RELA)]),
    ),
    "mb2-overlap": ("multiboot2", kernel(multiboot2(), Segment(bytes(32), paddr=0x100020))),
    "mb2-overlap-relocatable": (
        "multiboot2",
        kernel(multiboot2(RELOCATABLE), Segment(bytes(32), paddr=0x100020)),
    ),
    "bss-over-rom": ("multiboot", kernel(multiboot1(), Segment(paddr=0xC0000, memsz=4096, filesz=0))),
    "zeros-over-rom": ("multiboot", kernel(multiboot1(), Segment(bytes(64), paddr=0xC8000))),
    "in-video-memory": ("multiboot", kernel(multiboot1(), Segment(bytes(64), paddr=0xB8000))),
    "mb2-relocatable-in-32-bits": (
        "multiboot2",
        kernel(multiboot2(RELOCATABLE), Segment(b"x", paddr=0xD0000000), bits=64),
    ),
    "mb2-relocatable-in-64-bits": (
        "multiboot2",
        kernel(multiboot2(RELOCATABLE), Segment(b"x", paddr=1 << 32), bits=64),
    ),
    **{
        f"mb2-relocatable-{name}": (
            "multiboot2",
            kernel(multiboot2(tag(10, struct.pack("<IIII", 0x2000000, 0x2000000 + MOVED - less, 16, 0)))),
        )
        for name, less in (("just-fits", 0), ("too-large", 1))
    },
    **{
        f"mb2-relocatable-{name}": ("multiboot2", kernel(multiboot2(tag(10, struct.pack("<IIII", *numbers, 0)))))
        for name, numbers in {
            "high": (0xE0000000, 0xF0000000, 4096),
            "far-apart": (0x100000, 0x8000000, 1 << 31),
            "odd": (0x2000000, 0x8000000, 3),
        }.items()
    },
    "mb2-whole-file": (
        "multiboot2",
        flat(0x10, multiboot2(tag(2, struct.pack("<IIII", 0x100010, 0xFFFFFFFF, 0, 0x105000)), ENTRY_TAG)),
    ),
    "kludge-in-pe": (
        "multiboot",
        synthetic.pe(subsystem=1, data=multiboot1(0x10003, 0x101000, 0x101000, 0, 0, 0x101020).ljust(512, b"\x90")),
    ),
    "mb2-addresses-in-pe": (
        "multiboot2",
        synthetic.pe(subsystem=1, data=multiboot2(ADDRESS_TAG_IN_PE, ENTRY_TAG).ljust(512, b"\x90")),
    ),
    "mb2-in-pe": ("multiboot2", synthetic.pe(data=multiboot2().ljust(512, b"\0"))),
    **{
        f"elf{bits}-{name}": ("multiboot", kernel(multiboot1(), *segments, bits=bits, sections=sections))
        for bits in (32, 64)
        for name, segments, sections in (
            ("nothing-past-the-end", [Segment(paddr=0x200000, memsz=64, filesz=0, offset=1 << 20)], ()),
            ("nobits-at-0", [], [Section(".percpu", b"", NOBITS, size=1 << 20)]),
            ("nobits-at-0-in-the-file", [], [Section(".percpu", b"", NOBITS, size=16), Section(".x", bytes(64))]),
            ("cut-section", [], [Section(".debug", b"", size=1 << 20)]),
            ("cut-section-loaded", [], [Section(".data", b"", addr=0x100000, size=1 << 20)]),
            ("align-4k", [], [Section(".comment", b"a text", align=4096)]),
            ("entry-by-another-header", [Segment(bytes(64), type=4, paddr=0x100000, vaddr=0x100000)], ()),
        )
    },
    "elf64-empty-high": ("multiboot", kernel(multiboot1(), Segment(paddr=0x1_0000_0000), bits=64)),
    "elf64-to-4g": ("multiboot", kernel(multiboot1(), Segment(bytes(16), paddr=0xFFFFFFF0), bits=64)),
    "physical-entry": (
        "multiboot",
        synthetic.elf([Segment(multiboot1() + bytes(64), vaddr=0xC0100000)], bits=32, entry=0x100010),
    ),
    "video-without-fields": ("multiboot", kernel(multiboot1(7) + b"\x90" * 32)),
    "video-text": ("multiboot", kernel(multiboot1(7, 0, 0, 0, 0, 0, 1, 80, 25, 0))),
    "video-2": ("multiboot", kernel(multiboot1(7, 0, 0, 0, 0, 0, 2, 80, 25, 0))),
    "video-kludge": ("multiboot", flat(0x10, multiboot1(0x10007, *ADDRESSES, 9, 0, 0, 0))),
    **{
        f"mb2-information-{number}": ("multiboot2", kernel(multiboot2(tag(1, struct.pack("<II", 6, number)))))
        for number in range(24)
    },
    "mb2-many-tags": ("multiboot2", kernel(multiboot2(*[tag(6)] * 200))),
    "mb2-short-length": ("multiboot2", kernel(multiboot2(tag(6), tag(77, flags=1), length=16))),
    "mb2-zeros-end-it": ("multiboot2", kernel(multiboot2(tag(6), end=False))),
    "mb2-unpadded": ("multiboot2", kernel(multiboot2(tag(5, bytes(12))[:20], tag(6)))),
    "mb2-tag-too-small": ("multiboot2", kernel(multiboot2(tag(6, size=3)))),
    "mb2-efi-entry-32": ("multiboot2", kernel(multiboot2(tag(8, bytes(4))))),
    "mb2-efi-tags": ("multiboot2", kernel(multiboot2(tag(7), tag(9, struct.pack("<I", 0x100040))))),
    "mb2-addresses-for-efi": (
        "multiboot2",
        flat(0x10, multiboot2(ADDRESS_TAG, tag(7), tag(9, struct.pack("<I", 0x100040)))),
    ),
    "mb2-addresses-for-efi-without-services": (
        "multiboot2",
        flat(0x10, multiboot2(ADDRESS_TAG, tag(9, struct.pack("<I", 0x100040)))),
    ),
    **{
        f"mb2-console-{flags}-{name}": ("multiboot2", kernel(multiboot2(tag(4, struct.pack("<I", flags)), *more)))
        for flags in range(4)
        for name, more in {"alone": [], "framebuffer": [tag(5, bytes(12), flags=1)]}.items()
    },
    "linux": ("linux", synthetic.bzimage()),
    "linux-gzip": ("linux", gzip.compress(synthetic.bzimage(), mtime=0)),
    "linux16-gzip": ("linux16", gzip.compress(synthetic.bzimage(code32_start=0), mtime=0)),
    "linux-old": ("linux16", synthetic.bzimage(0x0203)),
    **{
        f"linux-zimage-{size:#x}": ("linux16", synthetic.bzimage(0x0203, loadflags=0, payload=size))
        for size in (0x80000, 0x80001)
    },
    "linux-16": ("linux16", synthetic.bzimage(code32_start=0)),
}
STRICTER = {
    "entry-elsewhere": (
        "multiboot",
        kernel(multiboot1(), Segment(bytes(64), type=4, paddr=0x300000, vaddr=0x500000), entry=0x500010),
    ),
    "rom": ("multiboot", kernel(multiboot1(), Segment(b"x" * 64, paddr=0xC8000))),
    "rom-by-addresses": (
        "multiboot",
        flat(0x10, multiboot1(0x10003, *(each - 0x100000 + 0xE0000 for each in ADDRESSES))),
    ),
    "linux-cut": ("linux", synthetic.bzimage()[:1200]),
    "kludge-cut": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES))[:0x1000]),
    "kludge-entry-outside": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES[:4], 0x200000))),
}
"""GRUB loads these, and the machine then runs whatever is there."""
PADDED = {
    "kludge-short": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES), 0x2000 - 16)),
    "mb2-addresses-short": ("multiboot2", flat(0x10, multiboot2(ADDRESS_TAG, ENTRY_TAG), 0x2000 - 16)),
}
"""GRUB loads these as they are, with what was in memory behind them; our copies hold zeros there."""
HANGS = {
    **{
        f"align-{align:#x}-elf{bits}": (
            "multiboot",
            kernel(multiboot1(), bits=bits, sections=[Section(".comment", b"a text", align=align)]),
        )
        for align, bits in ((0, 32), (0, 64), (3, 32), (48, 32), (48, 64), (1 << 32, 64), (1 << 31, 32))
    },
    "mb2-whole-file-with-ends": (
        "multiboot2",
        flat(0x10, multiboot2(tag(2, struct.pack("<IIII", 0x100010, 0xFFFFFFFF, 0x102000, 0x105000)), ENTRY_TAG)),
    ),
    "mb2-align-0": ("multiboot2", kernel(multiboot2(), sections=[Section(".symtab", b"a text", 2, align=0)])),
}
"""GRUB stands still over these as they are, crashes, or searches long, under one firmware at least."""
EVERY = CASES | PADDED | HANGS | STRICTER
NEWER = {name for name in CASES if "no-sections" in name}
"""GRUB 2.06 loads these as they are, 2.12 only with our repair."""
ALONE = [
    name
    for name in EVERY
    if name in HANGS
    or name.startswith(
        (
            "elf32-nobits",
            "elf64-nobits",
            "elf64-cut-section-l",
            "rom",
            "bss-over-rom",
            "zeros-over-rom",
            "in-video-memory",
            "linux-zimage",
        )
    )
]
"""GRUB 2.06 crashes over the next file once it has read sections of such, or has loaded it low: a boot for each."""
TOGETHER = [name for name in EVERY if name not in ALONE and not name.endswith(("align-4k", "cut-section-loaded"))]
UEFI_TOO = ("align-0x0-elf64", "align-0x30-elf32", "mb2-align-0", "elf64-nobits-at-0")
BATCHES = [
    *(("bios", TOGETHER[first::2]) for first in range(2)),
    *(("uefi", TOGETHER[first::2]) for first in range(2)),
    *(("bios", [name]) for name in [*ALONE, "elf32-align-4k", "elf32-cut-section-loaded"]),
    *(("uefi", [name]) for name in UEFI_TOO),
]


@pytest.mark.boot
@pytest.mark.parametrize(("firmware", "batch"), BATCHES, ids=lambda value: value[0] if value[1:] == [] else None)
def test_grub_takes_what_we_take_and_nothing_else(tmp_path, firmware, batch):
    tree = tmp_path / "tree"
    (tree / "boot" / "grub").mkdir(parents=True)
    lines = ["serial --unit=0", "terminal_output serial", "echo"]
    ours = {}

    def ask(name, protocol, data):
        (tree / name).write_bytes(data)
        lines.append(f"if {protocol} /{name}; then echo {name}: taken; else echo {name}: refused; fi")

    for name in batch:
        protocol, data = EVERY[name]
        if firmware == Firmware.UEFI and protocol == "linux16":
            continue
        path = tmp_path / name
        path.write_bytes(data)
        if name not in HANGS:
            ask(name, protocol, data)
            ours[name] = name in PADDED
        try:
            found = Unikernel.read(path)
        except KernelError:
            continue
        takes = Protocol(protocol) in found.protocols and not found.trouble(Protocol(protocol), Firmware(firmware))
        if found.repairs:
            # Both sides: GRUB refuses the file as it is, and takes the copy we would bundle.
            ours[f"{name}-repaired"] = takes
            ask(f"{name}-repaired", protocol, found.content.read())
        else:
            assert name not in HANGS
            ours[name] = takes
    (tree / "boot" / "grub" / "grub.cfg").write_text("\n".join([*lines, "echo that was all", "halt"]))
    output_of("grub-mkrescue", "-o", str(tmp_path / "odd.iso"), str(tree))
    said = qemu.boot(tmp_path / "odd.iso", bus="cd", firmware=firmware, until="that was all", timeout=60).text
    assert "that was all" in said, said
    grubs = {name: f"\n{name}: taken\n" in said for name in ours}
    old = output_of("grub-mkimage", "--version").split()[-1].startswith("2.06")
    expected = {*STRICTER, *(NEWER if old else ())} & set(ours)
    assert {name for name in ours if ours[name] != grubs[name]} == expected, said
