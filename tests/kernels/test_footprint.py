"""What a kernel and its modules take of the memory."""

from __future__ import annotations

from dataclasses import replace

from rumpbundle.disk.content import Content, Zeros
from rumpbundle.kernels.footprint import footprint
from rumpbundle.kernels.unikernel import Family, Protocol, Unikernel

KERNEL = Unikernel(name="k", content=Content((Zeros(4096),)), family=Family.PLAIN, protocols=(Protocol.MULTIBOOT,))


def test_the_load_range_counts_with_its_bss():
    assert footprint(replace(KERNEL, load=range(1 << 20, 201 << 20)), ()) == 201 << 20
    assert footprint(replace(KERNEL, load=range(2 << 30, (2 << 30) + 4096)), ()) == (2 << 30) + 4096
    assert footprint(replace(KERNEL, load=range(3 << 30, (3 << 30) + 4096)), ()) == 4096
    assert footprint(KERNEL, ()) == 8192


def test_modules_count_twice_and_more_where_they_are_unpacked():
    modules = [(1000, b"\x1f\x8b\x08"), (500, b"070701")]
    assert footprint(KERNEL, modules) == 8192 + 2 * 1500
    assert footprint(replace(KERNEL, family=Family.LINUX), modules) == 8192 + 5 * 1000 + 2 * 500
