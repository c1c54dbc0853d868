"""Hostile kernels: whatever the bytes, the answer is a value or one line, soon and in little memory."""

from __future__ import annotations

import gzip

from hypothesis import given, settings
from hypothesis import strategies as st
from support import synthetic
from support.synthetic import Section, Segment, multiboot1, multiboot2, tag

from rumpbundle.disk.content import CHUNK, Content
from rumpbundle.errors import KernelError
from rumpbundle.kernels import multiboot
from rumpbundle.kernels.unikernel import Firmware, Unikernel, examine
from rumpbundle.kernels.view import View

SEEDS = (
    synthetic.multiboot_elf(multiboot2(tag(1, bytes(8)), tag(2, bytes(16)), tag(3, bytes(4))) + multiboot1()),
    synthetic.multiboot_elf(multiboot1(0x10007, 0x100060, 0x100000, 0, 0, 0x100060, 0, 80, 25, 0), bits=64),
    synthetic.rumprun(b"vioscsi"),
    synthetic.elf(
        [Segment(bytes(64)), Segment(synthetic.solo5_notes(3, ("storage", 1)), type=synthetic.NOTE)],
        [Section(".note", synthetic.solo5_notes(1), type=synthetic.SHT_NOTE), Section(".uk_x", b"")],
    ),
    synthetic.elf([Segment(multiboot1() + bytes(64)), Segment(paddr=0x100010)], bits=32),
    synthetic.bzimage(payload=64),
    synthetic.pe(setup=synthetic.bzimage(payload=64)),
    synthetic.pe(sections=(".linux",)),
)

INTERESTING = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])
CHANGES = st.lists(st.tuples(st.integers(0, 1200), st.one_of(INTERESTING, st.integers(0, 255))), max_size=12)


def look(data: bytes) -> Unikernel | None:
    """Read *data* as a kernel and check what holds of every answer."""
    read: list[int] = []

    def counted(offset: int, length: int) -> bytes:
        read.append(length)
        return data[offset : offset + length]

    refused = ""
    try:
        kernel = examine("app.bin", View(len(data), counted), Content.of_bytes(data))
    except KernelError as error:
        kernel, refused = None, str(error)
    assert max(read, default=0) <= max(CHUNK, multiboot.BEYOND)
    assert len(read) < 2000
    if kernel is None:
        assert refused
        assert "\n" not in refused
        return None
    assert bool(kernel.protocols) is not bool(kernel.refusal)
    assert {kernel.protocol_for(firmware) for firmware in Firmware} <= {None, *kernel.protocols}
    if not kernel.repairs:
        assert kernel.content.size == len(data)
    return kernel


@given(st.sampled_from(SEEDS), CHANGES, st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_mutated_kernels(seed, changes, cut):
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    look(bytes(data[: len(data) - cut]))


@given(st.sampled_from(SEEDS[:5]), st.integers(0, 160), st.sampled_from([2, 4, 8]), st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_fields_with_any_value(seed, at, width, value):
    data = bytearray(seed)
    data[at : at + width] = value.to_bytes(8, "little")[:width]
    look(bytes(data))


@given(
    st.binary(max_size=2000),
    st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x01\x01", b"MZ", b"\x1f\x8b"]),
)
@settings(max_examples=150, deadline=None)
def test_anything(data, start):
    look(start + data)


@given(st.sampled_from(SEEDS), CHANGES)
@settings(max_examples=150, deadline=None)
def test_mutated_gzip(seed, changes):
    data = bytearray(gzip.compress(seed, mtime=0))
    for at, value in changes:
        data[at % len(data)] = value
    look(bytes(data))


def test_the_seeds_themselves_are_read():
    assert all(look(seed) is not None for seed in SEEDS)
