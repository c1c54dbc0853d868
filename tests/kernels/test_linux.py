from __future__ import annotations

import struct

import pytest
from support import synthetic

from rumpbundle.kernels import linux
from rumpbundle.kernels.view import View


def read(data: bytes) -> linux.Setup:
    setup = linux.read(View.of_bytes(data))
    assert setup is not None
    return setup


def test_a_current_kernel():
    setup = read(synthetic.bzimage())
    assert (setup.version, setup.machine, setup.cmdline_size, setup.flaw) == (0x020F, "x86-64", 2047, "")
    assert setup.release == "6.1.0 (me@here) #1 SMP"
    assert setup.load == range(0x1000000, 0x1200000)
    assert not setup.needs_real_mode
    assert setup.detail == "boot protocol 2.15, 6.1.0 (me@here) #1 SMP"


@pytest.mark.parametrize(
    "old",
    [{"version": 0x0203}, {"code32_start": 0}, {"loadflags": 0}],
    ids=["old-protocol", "no-32-bit-entry", "zImage"],
)
def test_what_has_no_32_bit_entry_needs_real_mode(old):
    assert read(synthetic.bzimage(**old)).needs_real_mode


def test_fields_an_old_protocol_does_not_have_are_not_read():
    setup = read(synthetic.bzimage(0x0205))
    assert (setup.cmdline_size, setup.init_size, setup.preferred, setup.machine) == (255, 0, 0, "i386")


@pytest.mark.parametrize(
    ("announced", "given"), [(0, 127), (100, 127), (127, 127), (255, 255), (2047, 2047), (0xFFFFFFFF, 127)]
)
def test_how_long_a_command_line_grub_gives(announced: int, given: int):
    image = bytearray(synthetic.bzimage())
    struct.pack_into("<I", image, 0x238, announced)
    setup = linux.read(View.of_bytes(image))
    assert setup is not None
    assert setup.cmdline_size == given


def test_truncation():
    assert read(synthetic.bzimage(payload=4090)).flaw == ""
    whole = synthetic.bzimage(payload=4096)
    flaw = read(whole[:-100]).flaw
    assert flaw == "is truncated: its setup header tells of 5105 bytes, the file has 5020"


def test_a_release_that_is_no_text_is_none():
    assert read(synthetic.bzimage(release=b"\x01\xff")).release == ""


@pytest.mark.parametrize("data", [b"", bytes(600), synthetic.bzimage()[:0x220]], ids=["empty", "zeros", "cut"])
def test_what_has_no_setup_header_is_none(data):
    assert linux.read(View.of_bytes(data)) is None
