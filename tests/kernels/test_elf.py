from __future__ import annotations

import pytest
from support import synthetic
from support.synthetic import Section, Segment

from rumpbundle.kernels import elf
from rumpbundle.kernels.view import View


def read(data: bytes) -> elf.Elf:
    found = elf.read(View.of_bytes(data))
    assert found is not None
    return found


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_both_classes_and_byte_orders(bits, order):
    found = read(
        synthetic.elf(
            [Segment(b"code", vaddr=0x8010_0000, memsz=0x1000), Segment(b"data", paddr=0x200000)],
            [Section(".text", b"code", addr=0x100000), Section(".note", b"", type=synthetic.SHT_NOTE)],
            bits=bits,
            order=order,
        )
    )
    assert (found.bits, found.flaw, found.type) == (bits, "", elf.ET_EXEC)
    assert found.machine == {32: "i386", 64: "x86-64"}[bits] + (" (big-endian)" if order == ">" else "")
    assert found.load == range(0x100000, 0x200004)
    assert (found.entry, found.physical_entry) == (0x80100000, 0x100000)
    assert [s.name for s in found.sections] == ["", ".text", ".note", ".shstrtab"]


def test_what_is_no_elf_file_is_none():
    assert elf.read(View.of_bytes(b"")) is None
    assert elf.read(View.of_bytes(b"\x7fEL")) is None


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"\x7fELF", "is a damaged ELF file: its class or byte order is none"),
        (b"\x7fELF\x07\x01", "is a damaged ELF file: its class or byte order is none"),
        (b"\x7fELF\x02\x01\x01" + bytes(20), "is truncated in the ELF header"),
        (synthetic.elf([Segment(b"x")])[:100], "is truncated: the file ends before its ELF program headers do"),
        (
            synthetic.elf([Segment(bytes(500))])[:200],
            "is truncated: its segments reach to byte 628, the file has 200",
        ),
        (
            synthetic.elf([Segment(b"xx", memsz=1)]),
            "is a damaged ELF file: a segment is larger in the file than in memory",
        ),
    ],
    ids=["magic", "class", "header", "table", "segment", "memsz"],
)
def test_damage_is_named(data, flaw):
    assert read(data).flaw == flaw


def test_a_count_of_headers_no_kernel_has_is_damage():
    data = bytearray(synthetic.elf([Segment(b"x")]))
    data[56:58] = (elf.MAX_HEADERS + 1).to_bytes(2, "little")
    assert read(bytes(data)).flaw == "is a damaged ELF file: 513 program headers of 56 bytes"


def test_an_entry_point_in_no_segment_has_no_physical_address():
    assert read(synthetic.elf([Segment(b"code")], entry=0x500000)).physical_entry is None


def test_empty_segments_inside_others_are_found():
    found = read(
        synthetic.elf([Segment(bytes(64)), Segment(paddr=0x100010), Segment(paddr=0x100040), Segment(paddr=0x300000)])
    )
    assert [s.paddr for s in found.empty_in_the_way] == [0x100010]


def test_damaged_section_headers_are_as_good_as_none():
    data = synthetic.elf([Segment(b"x")], [Section(".text", b"x")])
    assert read(data).sections
    assert read(data[:-1]).sections == ()
    assert not read(data[:-1]).flaw


@pytest.mark.parametrize(
    ("tag", "interpreter", "is_library"), [(14, False, True), (14, True, True), (1, False, True), (1, True, False)]
)
def test_a_shared_library_has_a_soname_or_needs_others_and_no_interpreter(tag, interpreter, is_library):
    dynamic = Segment(tag.to_bytes(8, "little") + bytes(8) + bytes(16), type=synthetic.DYNAMIC)
    program = [Segment(b"/lib/ld.so\0", type=synthetic.INTERP)] if interpreter else []
    assert read(synthetic.elf([Segment(b"x"), dynamic, *program], type=synthetic.DYN)).is_library == is_library


def test_without_a_dynamic_section_it_is_no_shared_library():
    assert not read(synthetic.elf([Segment(b"x")], type=synthetic.DYN)).is_library
