from __future__ import annotations

import pytest
from support import synthetic
from support.synthetic import Section, Segment

from rumpbundle.disk.content import CHUNK
from rumpbundle.kernels import elf, strings
from rumpbundle.kernels.view import View


def test_texts_across_chunks_are_found():
    data = bytes(CHUNK - 3) + b"needle" + bytes(CHUNK)
    assert strings.search(View.of_bytes(data), None, [b"needle", b"other"]) == {b"needle"}


def test_of_an_elf_file_only_texts_and_names_are_searched():
    sections = [
        Section(".text", b"in code"),
        Section(".rodata", b"in texts"),
        Section(".strtab", b"a_name\0", type=3),
    ]
    view = View.of_bytes(synthetic.elf([Segment(b"x")], sections))
    needles = [b"in code", b"in texts", b"a_name\0"]
    assert strings.search(view, elf.read(view), needles) == {b"in texts", b"a_name\0"}


def test_without_section_headers_the_whole_file_is_searched():
    view = View.of_bytes(synthetic.elf([Segment(b"somewhere")]))
    assert strings.search(view, elf.read(view), [b"somewhere"]) == {b"somewhere"}


def test_the_search_ends():
    reads = 0

    def zeros(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += length
        return bytes(length)

    assert not strings.search(View(1 << 40, zeros), None, [b"needle"])
    assert strings.LIMIT <= reads < strings.LIMIT + CHUNK


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (b"\xbf\x00\x80\x0b\x00", True),
        (b"\xbf\x00\x80\x0b\xc0", True),
        (b"\x48\xc7\xc7\x00\x80\x0b\x80", True),
        (b"\xbf\x00\x80\x0b\x00 \xba\xf8\x03\x00\x00", False),  # it has a serial line to print on
        (b"\x00\x80\x0b\x00 \xba\xfd\x03", False),
        (b"\x00\x80\x0b\x00 \xf8\x03\x00\x00", False),
        (b"\xbf\x00\x80\x0a\x00", False),
        (b"\xbf\x00\x80\x0b\x01", False),
    ],
)
def test_what_writes_vga_text_is_known_by_its_address(code, expected):
    assert strings.writes_vga_text(View.of_bytes(b"\x90" * 5000 + code)) is expected
    # Also across the end of what is read at once.
    for before in range(1, len(code)):
        assert strings.writes_vga_text(View.of_bytes(b"\x90" * (CHUNK - before) + code)) is expected
