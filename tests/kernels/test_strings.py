from __future__ import annotations

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
    assert reads == strings.LIMIT
