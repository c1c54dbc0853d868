"""What a kernel and its modules take of the memory."""

from __future__ import annotations

from dataclasses import replace

from support.synthetic import Section, Segment, elf, multiboot1, multiboot2

from rumpbundle.disk.content import Content, Zeros
from rumpbundle.kernels.footprint import footprint
from rumpbundle.kernels.unikernel import Family, Protocol, Unikernel

KLUDGE = multiboot1(0x10003, 0x100060, 0x100000, 0, 0, 0x100060)
KERNEL = Unikernel(name="k", content=Content((Zeros(4096),)), family=Family.PLAIN, protocols=(Protocol.MULTIBOOT,))


def test_the_load_range_counts_with_its_bss():
    assert footprint(replace(KERNEL, load=range(1 << 20, 201 << 20)), ()) == 201 << 20
    assert footprint(replace(KERNEL, load=range(2 << 30, (2 << 30) + 4096)), ()) == (2 << 30) + 4096
    assert footprint(replace(KERNEL, load=range(3 << 30, (3 << 30) + 4096)), ()) == 4096
    assert footprint(KERNEL, ()) == 8192
    assert footprint(replace(KERNEL, load=range(1 << 64)), ()) == 1 << 64


def test_what_grub_reads_for_debuggers_counts(tmp_path):
    """A kernel in Rust has 100 MB of it."""
    sections = [Section(".debug_info", bytes(5000)), Section(".data", bytes(7), addr=0x100000)]
    path = tmp_path / "k"
    for header, more in ((multiboot1(), 5000), (multiboot2(), 5000), (KLUDGE, 0)):
        path.write_bytes(elf([Segment(header + bytes(64))], sections, bits=32))
        kernel = Unikernel.read(path)
        names = 0 if not more else kernel.unloaded - more
        assert names in range(100)
        assert kernel.load is not None
        assert footprint(kernel, ()) == kernel.load.stop + more + names


def test_modules_count_twice_and_more_where_they_are_unpacked():
    modules = [(1000, b"\x1f\x8b\x08"), (500, b"070701")]
    assert footprint(KERNEL, modules) == 8192 + 2 * 1500
    assert footprint(replace(KERNEL, family=Family.LINUX), modules) == 8192 + 5 * 1000 + 2 * 500
