"""GRUB's core packed by LZ4: the packer, the decoder's code, and what is left alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import kernels
from support.qemu import boot
from support.tools import output_of

import rumpbundle
from rumpbundle.bootloader import core
from rumpbundle.bootloader.bootimages import boot_images

ASSEMBLY = """
00 push %ebp
01 cld
02 xor %eax,%eax
04 lods %ds:(%esi),%al
05 mov %eax,%edx
07 shr $0x4,%eax
0a call 0x33
0f rep movsb %ds:(%esi),%es:(%edi)
11 cmp %ebx,%edi
13 jae 0x31
15 xor %eax,%eax
17 lods %ds:(%esi),%ax
19 mov %eax,%ebp
1b mov %edx,%eax
1d and $0xf,%al
1f call 0x33
24 add $0x4,%ecx
27 push %esi
28 mov %edi,%esi
2a sub %ebp,%esi
2c rep movsb %ds:(%esi),%es:(%edi)
2e pop %esi
2f jmp 0x2
31 pop %ebp
32 ret
33 mov %eax,%ecx
35 cmp $0xf,%al
37 jne 0x42
39 xor %eax,%eax
3b lods %ds:(%esi),%al
3c add %eax,%ecx
3e cmp $0xff,%al
40 je 0x39
42 ret
"""


def unpack(block: bytes) -> bytes:
    """Decode an LZ4 block, from its specification."""
    out = bytearray()
    position = 0

    def length(nibble: int) -> int:
        nonlocal position
        total = nibble
        while nibble == 15:
            total += block[position]
            position += 1
            if block[position - 1] != 255:
                break
        return total

    while True:
        token = block[position]
        position += 1
        count = length(token >> 4)
        out += block[position : position + count]
        position += count
        if position == len(block):
            return bytes(out)
        offset = int.from_bytes(block[position : position + 2], "little")
        position += 2
        assert 0 < offset <= len(out)
        for _ in range(length(token & 15) + 4):
            out.append(out[-offset])


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"\0" * 300, b"abcd" * 100, b"abcdefghijklm"]))).map(
        b"".join
    )
)
def test_what_is_packed_unpacks(data: bytes):
    assert unpack(core.pack(data)) == data


def test_long_runs_and_far_matches():
    for data in (b"", b"a", bytes(70_000), b"0123456789" + bytes(range(256)) * 300, Path(__file__).read_bytes()):
        block = core.pack(data)
        assert unpack(block) == data
    assert len(core.pack(bytes(70_000))) < 400


def test_the_decoder_is_the_code_it_says(tmp_path: Path):
    (tmp_path / "code").write_bytes(core._LZ4)
    listing = output_of("objdump", "-D", "-b", "binary", "-m", "i386", str(tmp_path / "code"))
    found = re.findall(r"^ +([0-9a-f]+):\t[0-9a-f ]+\t(.+?) *$", listing, re.MULTILINE)
    assert [f"{int(at, 16):02x} {' '.join(text.split())}" for at, text in found] == ASSEMBLY.strip().splitlines()


def test_grubs_own_core_is_repacked():
    image = boot_images().bios
    at = core._DECOMPRESSOR
    assert core._LZ4 in image[at : at + 4096]
    assert len(image) - at + core._LOADED_AT < core._LIMIT
    # There is no LZMA left to find: a second time changes nothing.
    assert core.quickened(image) == image


def core_of(image: bytes) -> bytes:
    """Return GRUB's kernel and modules in a BIOS boot image of ours."""
    found = core._CALL.search(image, core._DECOMPRESSOR)
    begin = core._DECOMPRESSOR + int.from_bytes(found["data"], "little") - core._LOADED_AT
    return unpack(image[begin : begin + int.from_bytes(image[core._DECOMPRESSOR + 8 :][:4], "little")])


def test_grub_looks_at_the_clock_for_three_milliseconds():
    unpacked = core_of(boot_images().bios)
    # outb $0xb0, $0x43; movb $0x0e, %al; outb %al, $0x42, twice … movl $3, %edx; call
    assert re.search(rb"\xb0\xb0\xe6\x43\xb0\x0e\xe6\x42\xe6\x42.{16,160}?\xba\x03\0\0\0\xe8", unpacked, re.DOTALL)
    assert abs(0x0E0E / 1193.182 - 3) < 0.02


def test_a_machine_without_a_display_is_no_error():
    unpacked = core_of(boot_images().bios)
    assert b"Can't get controller info." in unpacked
    (found,) = core._NO_VBE.finditer(unpacked)
    at = found.end() + int.from_bytes(found["far"] or found["near"], "little", signed=True)
    assert unpacked[at : at + 7] == bytes.fromhex("6a00 e8fcffffff")  # push $0; call grub_error
    # GRUB 2.12 has a shorter jump there.
    short = bytes.fromhex("83f84f 7409 5656 68 00000000 eb05 897b48 9090 6a1d e8fcffffff")
    changed = core._without_vbe_error(short)
    assert (changed[:-6], changed[-6], changed[-5:]) == (short[:-6], 0, short[-5:])
    assert core._without_vbe_error(short[:-1] + b"\0") == short[:-1] + b"\0"


@pytest.mark.boot
def test_the_guest_has_the_first_word_under_uefi(tmp_path):
    made = boot_images().efi
    assert made.count(b"WARNING: no console will be available to OS\0") == 2  # of Multiboot and of Multiboot 2
    assert not [found for said in core._NO_SCREEN for found in said.finditer(made)]
    assert made.count(core._NOP + b"\xe9") >= 2
    assert made.count(core._NOP + b"\x31\xd2\x48\xb8") >= 2
    rumpbundle.bundle(kernels.build("multiboot"), "raw", output=tmp_path / "app.raw", sync=False)
    said = boot(tmp_path / "app.raw", firmware="uefi").text.partition("Welcome to GRUB!")[2]
    assert "console" not in said.partition("multiboot")[0]
    assert "video mode" not in said


def test_a_later_grub_is_quiet_too():
    """2.12 keeps a frame pointer where 2.06 does not."""
    rsi, rdx, rdi, rax = (bytes.fromhex(movabs) + bytes(8) for movabs in ("48be", "48ba", "48bf", "48b8"))
    before = b"".join((bytes.fromhex("bf15000000 5b 31c0"), rsi, b"\x5d", rdx, b"\xff\xe2", rdi, rax))
    assert core.quieted(before + b"\xff\xd0\xe9") == before + b"\x66\x90\xe9"


@pytest.mark.parametrize("image", [b"", bytes(4096), b"\xe8" * 10_000])
def test_what_is_not_as_expected_is_left_alone(image: bytes):
    assert core.quickened(image) == core.quieted(image) == image
