"""What we say of a kernel is what GRUB does with it: one GRUB is given every odd file, and must agree with us."""

from __future__ import annotations

import gzip
import struct

import pytest
from support import qemu, synthetic
from support.synthetic import Section, Segment, multiboot1, multiboot2, tag
from support.tools import output_of

from rumpbundle.errors import KernelError
from rumpbundle.kernels.unikernel import Protocol, Unikernel


def kernel(header: bytes, *more: Segment, **options) -> bytes:
    return synthetic.elf([Segment(header + bytes(64)), *more], **({"bits": 32} | options))


def flat(header_at: int, header: bytes, size: int = 0x4000) -> bytes:
    return (bytes(header_at) + header).ljust(size, b"\x90")


EMPTY_INSIDE = Segment(paddr=0x100010)
ADDRESSES = (0x100010, 0x100000, 0x102000, 0x105000, 0x100040)
LAST = 8192 - 12
ADDRESS_TAG = tag(2, struct.pack("<IIII", 0x100010, 0x100000, 0x102000, 0))
ENTRY_TAG = tag(3, struct.pack("<I", 0x100040))
RELOCATABLE = tag(10, struct.pack("<IIII", 0x100000, 0x8000000, 4096, 0))
PACKED = gzip.compress(kernel(multiboot1()), mtime=0)
# Only the addresses of the first segment matter, so that the table of program headers can stand behind it.
LATE_TABLE = bytearray(kernel(multiboot1() + bytes(9000)))
LATE_TABLE[28:32] = struct.pack("<I", len(LATE_TABLE))
LATE_TABLE += LATE_TABLE[52:84]

CASES: dict[str, tuple[str, bytes]] = {
    "elf32": ("multiboot", kernel(multiboot1())),
    "elf64": ("multiboot", kernel(multiboot1(), bits=64)),
    "every-flag": ("multiboot", kernel(multiboot1(7, 0, 0, 0, 0, 0, 1, 80, 25, 0))),
    "kludge": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES))),
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
    "mb2-in-pe": ("multiboot2", synthetic.pe(data=multiboot2().ljust(512, b"\0"))),
    "linux": ("linux", synthetic.bzimage()),
    "linux-gzip": ("linux", gzip.compress(synthetic.bzimage(), mtime=0)),
    "linux16-gzip": ("linux16", gzip.compress(synthetic.bzimage(code32_start=0), mtime=0)),
    "linux-old": ("linux16", synthetic.bzimage(0x0203)),
    "linux-16": ("linux16", synthetic.bzimage(code32_start=0)),
}
STRICTER = {
    "linux-cut": ("linux", synthetic.bzimage()[:1200]),
    "kludge-cut": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES))[:0x1000]),
    "kludge-entry-outside": ("multiboot", flat(0x10, multiboot1(0x10003, *ADDRESSES[:4], 0x200000))),
}
"""GRUB loads these and the machine then runs whatever is there."""
NEWER = {name for name in CASES if "no-sections" in name}
"""GRUB 2.06 loads these as they are, 2.12 only with our repair."""


@pytest.mark.boot
def test_grub_takes_what_we_take_and_nothing_else(tmp_path):
    tree = tmp_path / "tree"
    (tree / "boot" / "grub").mkdir(parents=True)
    lines = ["serial --unit=0", "terminal_output serial", "echo"]
    ours = {}
    for name, (protocol, data) in (CASES | STRICTER).items():
        (tree / name).write_bytes(data)
        try:
            found = Unikernel.read(tree / name)
        except KernelError:
            ours[name] = False
        else:
            ours[name] = Protocol(protocol) in found.protocols
            if found.repairs:
                # Both sides: GRUB refuses the file as it is, and takes the copy we would bundle.
                ours[name] = False
                (tree / f"{name}-repaired").write_bytes(found.content.read())
                ours[f"{name}-repaired"] = True
                lines.append(f"if {protocol} /{name}-repaired; then echo {name}-repaired: taken; fi")
        lines.append(f"if {protocol} /{name}; then echo {name}: taken; else echo {name}: refused; fi")
    (tree / "boot" / "grub" / "grub.cfg").write_text("\n".join([*lines, "echo that was all", "halt"]))
    output_of("grub-mkrescue", "-o", str(tmp_path / "odd.iso"), str(tree))
    said = qemu.boot(tmp_path / "odd.iso", bus="cd", until="that was all").text
    grubs = {name: f"\n{name}: taken\n" in said for name in ours}
    different = {name for name in ours if ours[name] != grubs[name]}
    old = output_of("grub-mkimage", "--version").split()[-1].startswith("2.06")
    assert different == set(STRICTER) | (NEWER if old else set()), said
