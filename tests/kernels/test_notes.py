from __future__ import annotations

import json
import struct

import pytest
from support import synthetic
from support.synthetic import Section, Segment

from rumpbundle.kernels import elf, notes, xen
from rumpbundle.kernels.notes import Device
from rumpbundle.kernels.view import View


def read(data: bytes) -> tuple[notes.ElfNote, ...]:
    view = View.of_bytes(data)
    found = elf.read(view)
    assert found is not None
    return notes.read(view, found)


def test_notes_of_segments_and_sections_are_read_once():
    text = synthetic.note(b"GNU", 3, b"id") + synthetic.note(b"Xen", 6, b"linux\0")
    data = synthetic.elf([Segment(b"code"), Segment(text, type=synthetic.NOTE)])
    assert read(data) == (notes.ElfNote("GNU", 3, b"id"), notes.ElfNote("Xen", 6, b"linux\0"))
    both = synthetic.elf(
        [Segment(b"code"), Segment(text, type=synthetic.NOTE)], [Section(".note", text, type=synthetic.SHT_NOTE)]
    )
    assert len(read(both)) == 2


def test_xen_notes_by_name():
    found = xen._of_notes(
        (
            notes.ElfNote("Xen", 1, struct.pack("<Q", 0xFFFFFFFF80000000)),
            notes.ElfNote("Xen", 6, b"NetBSD\0"),
            notes.ElfNote("Xen", 18, struct.pack("<I", 0x1000)),
            notes.ElfNote("Xen", 2, b"odd"),
            notes.ElfNote("Xen", 999, b"later"),
            notes.ElfNote("GNU", 1, bytes(8)),
        )
    )
    expected = {"entry": 0xFFFFFFFF80000000, "guest_os": "NetBSD", "phys32_entry": 0x1000, "hypercall_page": 0}
    assert found == expected


def test_solo5_target_and_manifest():
    section = Section(
        ".note.solo5", synthetic.solo5_notes(3, ("storage", 1), ("service0", 2)), type=synthetic.SHT_NOTE
    )
    found = read(synthetic.elf([Segment(b"code")], [section]))
    assert notes.solo5_target(found) == "virtio"
    assert notes.solo5_devices(found) == (Device("storage", "block"), Device("service0", "net"))


def test_what_is_not_there_is_empty():
    assert notes.solo5_target(()) == ""
    assert notes.solo5_devices(()) == ()
    assert xen._of_notes(()) == {}


def test_an_unknown_solo5_target_keeps_its_number():
    assert notes.solo5_target((notes.ElfNote("Solo5", 0x31494241, struct.pack("<I", 42)),)) == "target 42"


def test_a_manifest_of_odd_size_names_no_devices():
    assert notes.solo5_devices((notes.ElfNote("Solo5", 0x3154464D, bytes(101)),)) == ()


def test_a_note_that_leaves_its_segment_ends_the_reading():
    text = synthetic.note(b"GNU", 3, b"id") + struct.pack("<III", 4, 1 << 30, 1) + b"Xen\0"
    assert len(read(synthetic.elf([Segment(b"code"), Segment(text, type=synthetic.NOTE)]))) == 1


def test_no_more_notes_are_kept_than_a_kernel_could_have():
    text = b"".join(synthetic.note(b"GNU", index, b"") for index in range(2000))
    assert len(read(synthetic.elf([Segment(b"code"), Segment(text, type=synthetic.NOTE)]))) == notes.MAX_NOTES


def test_no_more_bytes_are_kept_than_a_kernel_could_have():
    text = synthetic.note(b"GNU", 1, bytes(notes.MAX_BYTES // 2))
    sections = [Section(f".note{index}", text, type=synthetic.SHT_NOTE) for index in range(5)]
    assert sum(len(n.value) for n in read(synthetic.elf([Segment(b"code")], sections))) <= notes.MAX_BYTES


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0x10", 16), ("0XfF", 255), ("010", 8), ("10", 10), ("0", 0), ("", 0), ("x", 0), ("1_0", 1), ("0x10z", 16),
        ("-1", (1 << 64) - 1), (f"0x{'f' * 4000}", (1 << 64) - 1), ("9" * 4000, (1 << 64) - 1), ("0x", 0),
    ],
)  # fmt: skip
def test_its_numbers_are_those_of_c(text: str, number: int):
    """The text is anybody's; a number of thousands of figures was no JSON for Python."""
    view = View.of_bytes(synthetic.elf([Segment(b"code")], [Section("__xen_guest", f"VIRT_ENTRY={text}\0".encode())]))
    found = elf.read(view)
    assert xen.read(view, found, notes.read(view, found)) == {"entry": number}
    json.dumps(number)


def test_the_section_that_came_before_the_notes():
    text = b"GUEST_OS=Mini-OS,XEN_VER=xen-3.0,VIRT_BASE=0x0,HYPERCALL_PAGE=0x2,LOADER=generic,ODD=1,VIRT_ENTRY=x\0"
    view = View.of_bytes(synthetic.elf([Segment(b"code")], [Section("__xen_guest", text)]))
    found = elf.read(view)
    said = xen.read(view, found, notes.read(view, found))
    assert said == {"guest_os": "Mini-OS", "xen_version": "xen-3.0", "virt_base": 0, "hypercall_page": 2,
                    "loader": "generic", "entry": 0}  # fmt: skip
    assert xen.is_pv(said)
