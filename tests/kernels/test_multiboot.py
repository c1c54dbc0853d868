from __future__ import annotations

import struct

import pytest
from support import synthetic
from support.synthetic import Section, Segment, multiboot1, multiboot2, tag

from rumpbundle.disk.content import Content
from rumpbundle.kernels import elf, multiboot
from rumpbundle.kernels import multiboot2 as two
from rumpbundle.kernels.kinds import Firmware
from rumpbundle.kernels.unikernel import examine
from rumpbundle.kernels.view import View


def read1(data: bytes) -> multiboot.Header | None:
    view = View.of_bytes(data)
    return multiboot.read1(view, elf.read(view))


def read2(data: bytes) -> multiboot.Header | None:
    view = View.of_bytes(data)
    return two.read2(view, elf.read(view))


def kernel(header: bytes, **options) -> bytes:
    return synthetic.elf([Segment(header + bytes(64))], **({"bits": 32} | options))


def flat(header_at: int, header: bytes, size: int = 0x4000) -> bytes:
    return (bytes(header_at) + header).ljust(size, b"\0")


MOVED = "its Multiboot 2 header lets it be loaded"
UNPADDED = (
    "its Multiboot 2 header has a tag of type 5 and 20 bytes at 0x70, behind which GRUB looks for the next at 0x88, "
    "and finds none there"
)


@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot1_in_an_elf_file(bits):
    header = read1(kernel(multiboot1(), bits=bits))
    assert header is not None
    assert (header.flaw, header.load, header.flags) == ("", None, 3)


def test_multiboot1_by_addresses():
    fields = (0x100010, 0x100000, 0x102000, 0x105000, 0x100040)
    header = read1(flat(0x10, multiboot1(0x10003, *fields)))
    assert header is not None
    assert (header.flaw, header.load, header.entry) == ("", range(0x100000, 0x105000), 0x100040)
    assert header.detail == "at 0x10, flags 0x10003, loads by its addresses"


def test_multiboot1_by_addresses_without_an_end_loads_the_whole_file():
    header = read1(flat(0x10, multiboot1(0x10003, 0x100010, 0x100000, 0, 0, 0x100040), 0x1234))
    assert header is not None
    assert (header.flaw, header.load) == ("", range(0x100000, 0x101234))


def test_what_is_loaded_may_begin_behind_the_header():
    header = read1(flat(0x10, multiboot1(0x10003, 0x100010, 0x100040, 0x102000, 0, 0x100040)))
    assert header is not None
    assert (header.flaw, header.load) == ("", range(0x100040, 0x102000))


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (flat(8192, multiboot1()), "its Multiboot header is at 0x2000, GRUB looks only in the first 8 KiB"),
        (flat(8184, multiboot1()), "its Multiboot header is at 0x1ff8, GRUB looks only in the first 8 KiB"),
        (flat(0x22, multiboot1()), "its Multiboot header at 0x22 is not aligned to 4 bytes"),
        (flat(0x20, multiboot1(checksum=1)), "its Multiboot header at 0x20 has a bad checksum"),
        (flat(0x20, multiboot1(0x13)), "its Multiboot flags 0x13 require a feature GRUB does not have"),
        (flat(0x20, multiboot1()), "has a Multiboot header without load addresses, but is no ELF file"),
        (multiboot1() + bytes(8), "is truncated: GRUB wants at least 32 bytes"),
        (bytes(0x20) + multiboot1(0x10003), "is truncated in its Multiboot header"),
        (
            flat(0x10, multiboot1(0x10003, 0x100010, 0x100000, 0x105000, 0, 0x100000)),
            "is truncated: its Multiboot header loads up to byte 20480, the file has 16384",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0x100020, 0x100000, 0, 0, 0x100000)),
            "its Multiboot header's addresses begin before the file does",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0x100010, 0x100000, 0x90000, 0, 0x100000)),
            "its Multiboot header's addresses run backwards",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0x100010, 0x100000, 0x102000, 0x101000, 0x100000)),
            "its Multiboot header's addresses run backwards",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0x100010, 0x100000, 0x102000, 0, 0x200000)),
            "its Multiboot header enters at 0x200000, outside of what it loads",
        ),
        (kernel(multiboot1(), machine=synthetic.AARCH64), "is a kernel for aarch64 in a 32-bit ELF file"),
        (kernel(multiboot1(), machine=synthetic.X86_64), "is a kernel for x86-64 in a 32-bit ELF file"),
        (kernel(multiboot1(), type=synthetic.REL), "has a Multiboot header, but is no executable ELF file"),
        (kernel(multiboot1(), entry=0x10), "its entry point 0x10 is in none of its segments"),
        (
            synthetic.elf([Segment(multiboot1(), paddr=0xFFFFFFF8)], bits=64),
            "loads up to 0x100000004, above the 4 GiB a Multiboot loader reaches",
        ),
        (
            synthetic.elf([Segment(multiboot1(), type=4)], bits=32),
            "has no segments to load",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64)), Segment(bytes(32), paddr=0x100020)], bits=32),
            "has segments that overlap in memory, which GRUB refuses",
        ),
        (
            kernel(multiboot1(), sections=[Section(".text", b"")])[:-1],
            "is truncated: the file ends before its ELF section headers do",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_multiboot1_flaws(data, flaw):
    header = read1(data)
    assert header is not None
    assert header.flaw == flaw


def test_the_first_valid_header_counts():
    bad, good = multiboot1(checksum=1), multiboot1()
    header = read1(synthetic.elf([Segment(bad + good + bytes(32))], bits=32))
    assert header is not None
    assert (header.flaw, header.offset) == ("", 0x60 + 12)


def test_no_header_at_all():
    assert read1(bytes(9000)) is None
    assert read2(bytes(90000)) is None


def test_multiboot2_tags():
    data = kernel(multiboot2(tag(1, struct.pack("<II", 4, 6)), tag(6), tag(99, flags=1)))
    header = read2(data)
    assert header is not None
    assert (header.flaw, header.tags, header.load) == ("", (1, 6, 99), None)


def test_multiboot2_by_addresses():
    tags = (tag(2, struct.pack("<IIII", 0x100040, 0x100000, 0, 0x110000)), tag(3, struct.pack("<I", 0x100100)))
    header = read2(flat(0x40, multiboot2(*tags)))
    assert header is not None
    assert (header.flaw, header.load, header.entry) == ("", range(0x100000, 0x110000), 0x100100)


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (
            flat(32768, multiboot2(), 40000),
            "its Multiboot 2 header is at 0x8000, GRUB looks only in the first 32 KiB",
        ),
        (flat(0x24, multiboot2()), "its Multiboot 2 header at 0x24 is not aligned to 8 bytes"),
        (flat(0x20, multiboot2(checksum=1)), "its Multiboot 2 header at 0x20 has a bad checksum"),
        (flat(0x20, multiboot2(architecture=4)), "its Multiboot 2 header is for mips"),
        (flat(0x20, multiboot2(architecture=9)), "its Multiboot 2 header is for architecture 9"),
        (flat(0x20, multiboot2(end=False), 0x30), "its Multiboot 2 header has no end tag"),
        (
            flat(0x20, multiboot2(tag(5, size=0))),
            "its Multiboot 2 header has a tag of size 0 at 0x30, over which GRUB stands still",
        ),
        (flat(0x20, multiboot2(tag(5, size=0x4000))), "its Multiboot 2 header has no end tag"),
        (
            kernel(multiboot2(tag(5, bytes(12))[:20], tag(6))),
            UNPADDED,
        ),
        (
            kernel(multiboot2(tag(4, struct.pack("<I", 1)))),
            "its Multiboot 2 header requires a console, and takes none that GRUB can give",
        ),
        (kernel(multiboot2(tag(77))), "its Multiboot 2 header requires tag 77, which GRUB does not know"),
        (kernel(multiboot2(tag(77, bytes(4)))), "its Multiboot 2 header requires tag 77, which GRUB does not know"),
        (
            kernel(multiboot2(tag(1, struct.pack("<I", 99)))),
            "its Multiboot 2 header requires information 99, which GRUB does not give",
        ),
        (
            kernel(multiboot2(tag(3, struct.pack("<I", 0xFFFFFFF0)))),
            "its Multiboot 2 header enters at 0xfffffff0 (tag 3), outside of what it loads",
        ),
        (
            kernel(multiboot2(tag(10, struct.pack("<IIII", 0x200000, 0x100000, 4096, 1)))),
            "its Multiboot 2 header lets it be loaded from 0x200000 up to 0x100000, which is nowhere",
        ),
        (
            kernel(multiboot2(tag(10, struct.pack("<IIII", 0x20, 0x20 + 111, 16, 1)))),
            f"{MOVED} from 0x20 up to 0x8f, where a PC has no room for its 112 bytes",
        ),
        (
            kernel(multiboot2(tag(10, struct.pack("<IIII", 0xE0000000, 0xF0000000, 4096, 1)))),
            f"{MOVED} from 0xe0000000 up to 0xf0000000, where a PC has no room for its 112 bytes",
        ),
        (
            kernel(multiboot2(tag(10, struct.pack("<IIII", 0x10, 0x80, 1 << 31, 1)))),
            f"{MOVED} from 0x10 up to 0x80, where a PC has no room for its 112 bytes at a multiple of 0x80000000",
        ),
        (
            synthetic.elf(
                [Segment(multiboot2(tag(10, struct.pack("<IIII", 0, 1 << 30, 0, 0))), paddr=0xFFFFFFFF80100000)]
            ),
            "loads up to 0xffffffff80100030, above the 4 GiB a Multiboot loader reaches",
        ),
        (
            kernel(multiboot2(tag(7), tag(9, struct.pack("<I", 0x10)))),
            "its Multiboot 2 header enters at 0x10 (tag 9), outside of what it loads",
        ),
        (
            flat(0x40, multiboot2(tag(2, struct.pack("<IIII", 0x100040, 0x100000, 0, 0)))),
            "its Multiboot 2 header gives load addresses but no entry address",
        ),
        (
            synthetic.elf(
                [Segment(multiboot2() + bytes(64))], [Section(".rela.dyn", bytes(24), type=synthetic.RELA)], bits=32
            ),
            "has relocation sections, which GRUB's multiboot2 refuses",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_multiboot2_flaws(data, flaw):
    header = read2(data)
    assert header is not None
    assert header.flaw == flaw


def test_relocatable_multiboot2_segments_may_overlap():
    # GRUB loads them into one block then, piece by piece.
    header = multiboot2(tag(10, struct.pack("<IIII", 0x100000, 0x4000000, 4096, 0)))
    data = synthetic.elf([Segment(header + bytes(64)), Segment(bytes(32), paddr=0x100020)], bits=32)
    found = read2(data)
    assert found is not None
    assert not found.flaw


def test_what_a_kernel_may_load_below_1_mib():
    """A picture for the text screen, and what it has in .bss: nobody reads that from the file."""
    low = Segment(multiboot1() + bytes(64), paddr=0x80000, memsz=0x90000)
    found = read1(synthetic.elf([low, Segment(bytes(4000), paddr=0xB8000 + (1 << 20))], bits=32))
    assert found is not None
    assert not found.flaw
    found = read1(synthetic.elf([Segment(multiboot1() + bytes(64)), Segment(b"x" * 4000, paddr=0xB8000)], bits=32))
    assert found is not None
    assert not found.flaw
    found = read1(flat(0x10, multiboot1(0x10003, 0x80010, 0x80000, 0x101000, 0, 0x80040), 0x80000) + b"x" * 4096)
    assert found is not None
    assert not found.flaw


@pytest.mark.parametrize("bits", [32, 64])
def test_headers_and_notes_below_1_mib_are_not_missed(bits):
    """``ld -Ttext=0x100000`` puts them there, and such kernels are many; what else is there is missed."""
    head = Segment(b"", paddr=0xFF000, offset=0, filesz={32: 192, 64: 272}[bits])
    note = Segment(synthetic.note(b"GNU", 5, bytes(16)), type=synthetic.NOTE, paddr=0)
    data = synthetic.elf([head, note, Segment(multiboot1() + bytes(64))], bits=bits)
    found = read1(data)
    assert found is not None
    assert not found.flaw
    more = read1(
        synthetic.elf([head, Segment(b"a text"), Segment(multiboot1() + bytes(64), paddr=0x101000)], bits=bits)
    )
    assert more is not None
    assert more.flaw == "loads to 0xff000, where a PC has ROMs"


def test_tables_beyond_the_search_window():
    data = bytearray(synthetic.elf([Segment(multiboot1() + bytes(9000))], None, bits=32))
    table = data[52:84]
    struct.pack_into("<I", data, 28, len(data))
    found = read1(bytes(data + table))
    assert found is not None
    assert found.flaw.startswith("its ELF program headers end at 0x23")


@pytest.mark.parametrize(
    ("data", "problem", "advice"),
    [
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), paddr=0xC0100000)], bits=32),
            "loads to 0xc0100000, where a PC has no memory (GRUB: out of memory)",
            "AT(ADDR(.text) - 0xc0000000)",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), paddr=0xFFFFFFFF80100000)], bits=64),
            "above the 4 GiB a Multiboot loader reaches",
            "AT(ADDR(.text) - 0xffffffff80000000)",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), memsz=3500 << 20)], bits=32),
            "takes 0x100000 to 0xdad00000, more memory than a PC has below 4 GiB",
            "at run time",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), paddr=0xF0000)], bits=32),
            "loads to 0xf0000, where a PC has ROMs",
            ". = 1M",
        ),
        (
            synthetic.elf([Segment(multiboot1() + b"x" * 0x90000, paddr=0x80000)], bits=32),
            "loads to 0x80000 and over 0xc0000, where a PC has ROMs",
            ". = 1M",
        ),
        (
            synthetic.elf([Segment(multiboot1() + b"x" * 64, paddr=0x9FFF0)], bits=32),
            "loads to 0x9fff0 and over 0xa0000, where a PC has video memory",
            ". = 1M",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), paddr=0xA0000)], bits=32),
            "loads to 0xa0000, where a PC has video memory",
            ". = 1M",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0x80010, 0x80000, 0xC0010, 0, 0x80040), 0x40000) + b"x" * 16,
            "loads to 0x80000 and over 0xc0000, where a PC has ROMs",
            ". = 1M",
        ),
        (
            # Only what starts it is put low.
            synthetic.elf(
                [Segment(multiboot1() + bytes(64)), Segment(b"x", paddr=0xC0101000), Segment(b"x", paddr=0xC0200000)],
                bits=32,
            ),
            "loads to 0xc0101000, where a PC has no memory",
            "AT(ADDR(.text) - 0xc0000000)",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64)), Segment(b"x", paddr=0xFFFFFFFF80101000)], bits=64),
            "loads up to 0xffffffff80101001, above the 4 GiB",
            "AT(ADDR(.text) - 0xffffffff80000000)",
        ),
        (
            flat(0x10, multiboot1(0x10003, 0xC0100010, 0xC0100000, 0xC0102000, 0, 0xC0100040)),
            "loads to 0xc0100000",
            "load it low",
        ),
        (
            synthetic.elf([Segment(multiboot1() + bytes(64), vaddr=0xC0100000)], bits=32, entry=0x100010),
            "its entry point 0x100010 is in none of its segments: it is where the entry is in memory",
            "let ENTRY name the symbol at 0xc0100010; QEMU's -kernel starts the file as it is",
        ),
        (flat(0x22, multiboot1()), "not aligned to 4", ".balign 4"),
        (
            kernel(multiboot2(tag(4, struct.pack("<I", 1)))),
            "requires a console, and takes none",
            "framebuffer tag (5)",
        ),
    ],
)
def test_the_advice_names_what_to_change(data, problem, advice):
    header = read1(data) or read2(data)
    assert header is not None
    assert problem in header.flaw
    assert advice in header.advice


def test_which_firmware_gives_what_a_header_asks_for():
    console = kernel(multiboot2(tag(4, struct.pack("<I", 3))))
    addresses = struct.pack("<IIII", 0x100040, 0x100000, 0, 0)
    for_efi = flat(0x40, multiboot2(tag(2, addresses), tag(7), tag(9, struct.pack("<I", 0x100100))))
    kept = kernel(multiboot2(tag(7, flags=1)))
    for data, firmware in ((console, Firmware.UEFI), (for_efi, Firmware.BIOS), (kept, Firmware.UEFI)):
        header = read2(data)
        assert header is not None
        assert not header.flaw
        assert [each for each, _ in header.not_under] == [firmware]
    framebuffer = read2(kernel(multiboot2(tag(4, struct.pack("<I", 3)), tag(5, bytes(12), flags=1))))
    assert framebuffer is not None
    assert (framebuffer.not_under, framebuffer.framebuffer) == ((), True)


@pytest.mark.parametrize(
    ("data", "framebuffer", "text"),
    [
        (kernel(multiboot1(7, 0, 0, 0, 0, 0, 0, 1024, 768, 32)), True, False),
        (kernel(multiboot1(7, 0, 0, 0, 0, 0, 1, 80, 25, 0)), False, True),
        (kernel(multiboot1(3, 0, 0, 0, 0, 0, 1, 80, 25, 0)), False, False),
        (kernel(multiboot2(tag(5, bytes(12)))), True, False),
        (kernel(multiboot2(tag(4, struct.pack("<I", 2)))), False, True),
        (kernel(multiboot2(tag(4, struct.pack("<I", 3)))), False, True),
        (kernel(multiboot2(tag(4, struct.pack("<I", 2)), tag(5, bytes(12), flags=1))), True, False),
        (kernel(multiboot2(tag(4, bytes(4)))), False, False),
    ],
)
def test_which_screen_a_header_asks_for(data, framebuffer, text):
    header = read1(data) or read2(data)
    assert header is not None
    assert (header.framebuffer, header.text) == (framebuffer, text)
    screen = examine("kernel", View.of_bytes(data), Content.of_bytes(data)).screen
    assert screen == ("framebuffer" if framebuffer else "console" if text else "")
