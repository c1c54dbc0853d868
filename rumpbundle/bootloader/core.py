"""GRUB's BIOS core, started in half the time: LZ4 in the place of LZMA, and a shorter look at the clock.

And both of GRUB's cores without words about screens before a guest that runs well.

A core image is a decompressor and, behind it, GRUB's kernel and modules compressed with LZMA. Under emulation
unpacking these 450 KB takes a quarter of a second, most of a boot. LZ4 unpacks at the speed of a copy, and its
decoder has 60 bytes, so it fits where the old one stood; the image grows by 110 KB.

Then GRUB waits until a timer has run down from 0xFFFF, 55 ms, to learn how fast the processor's clock is. 3 ms tell
it as well: it uses the clock for ``sleep`` alone, and under UEFI it takes 1 ms itself.

Before it starts a Multiboot 1 kernel it asks the display adapter for VBE, and where there is no adapter it prints
``error: Can't get controller info..``, the first line people see. Here that is no error. Under UEFI it warns of each
Multiboot kernel without a framebuffer that it gets no console, which is so of the screen alone, and where there is no
display that it has no video mode. Here it says neither; the mode that a kernel asks for it sets as before.

Nothing else is changed, and an image that does not look as expected is left as it is.

References: grub-core/boot/i386/pc/startup_raw.S and lzma_decode.S, grub-core/kern/i386/tsc_pit.c and tsc_pmtimer.c,
``fill_vbe_info`` and ``retrieve_video_parameters`` of grub-core/loader/i386/multiboot_mbi.c,
``grub_multiboot_set_console`` of grub-core/loader/multiboot.c,
include/grub/offsets.h of GRUB 2.06; lz4_Block_format.md of LZ4; Intel 8254, 1.193182 MHz.
"""

from __future__ import annotations

import re
import struct

_CORE = 2048
"""Where the core follows cdboot.img in an El Torito image."""
_BLOCKLIST = _CORE + 500
"""diskboot.img's blocklist: u64 first sector, u16 sectors, u16 segment."""
_DECOMPRESSOR = _CORE + 512
"""Where the decompressor follows diskboot.img."""
_LOADED_AT = 0x8200
"""Its address in memory."""
_LIMIT = 0x70000
"""Where diskboot.img has its buffer: the core must end below."""

_CALL = re.compile(
    rb"\xbe(?P<data>.{4})\x57\x8b\x0d\x0c\x82\x00\x00"  # movl $decompressor_end, %esi; pushl %edi; movl size, %ecx
    rb"\x8d\x1c\x0f\x51\xe8(?P<target>.{4})\x59",  # leal (%edi,%ecx), %ebx; push %ecx; call _LzmaDecodeA; pop %ecx
    re.DOTALL,
)

_CALIBRATION = re.compile(
    rb"(\xb0\xb0\xe6\x43\xb0)\xff(\xe6\x42\xe6\x42"  # outb $0xb0, $0x43; movb $0xff, %al; outb $0x42, twice
    rb".{16,160}?\xba)\x37(\0\0\0\xe8)",  # movl $55, %edx: the milliseconds in 0xffff ticks; call grub_divmod64
    re.DOTALL,
)
_HASTE = b"\\1\x0e\\2\x03\\3"
"""0x0E0E ticks, 3.015 ms; both bytes of the count are the same in the code."""

_NO_VBE = re.compile(
    rb"\x83\xf8\x4f\x74."  # cmp $0x4f, %eax: what VBE answers with success; je
    rb"(?P<twice>[\x50-\x57])(?P=twice)\x68.{4}"  # push, for the alignment; push the message
    rb"(?:\xe9(?P<far>.{4})|\xeb(?P<near>.))",  # jmp to the one call of grub_error
    re.DOTALL,
)
_ERROR = bytes.fromhex("6a1d e8fcffffff")
"""push $GRUB_ERR_IO; call grub_error, which returns its argument: 0 is success."""

_NO_SCREEN = (
    re.compile(
        rb"(\xbf\x15\0\0\0.{3,16}\x48\xba.{8}\xff\xe2"  # mov $GRUB_ERR_BAD_OS, %edi; …; jmp grub_error
        rb"\x48\xbf.{8}\x48\xb8.{8})\xff\xd0(\xe9)",  # movabs the warning, %rdi; movabs grub_puts_, %rax; call; jmp
        re.DOTALL,
    ),
    re.compile(
        rb"(\x53\x48\x89\xfb\x48\x81\xec.{4}\xff\xd0\x85\xc0\x74\x1a"  # call grub_multiboot_set_video_mode; test; je
        rb"\x48\xb8.{8})\xff\xd0(\x31\xd2\x48\xb8)",  # movabs grub_print_error, %rax; call; grub_errno = 0
        re.DOTALL,
    ),
)
_NOP = b"\x66\x90"
"""As long as the call that it replaces."""

_LZ4 = bytes.fromhex(
    "55 fc"  # push ebp; cld
    "31c0 ac 89c2 c1e804 e824000000"  # token: eax = lodsb; edx = eax; eax >>= 4; call length
    "f3a4 39df 731c"  # the literals; done when edi reaches ebx
    "31c0 66ad 89c5"  # ebp = the match's offset
    "89d0 240f e80f000000 83c104"  # ecx = length(edx & 15) + 4
    "56 89fe 29ee f3a4 5e ebd1"  # copy from edi - ebp; next token
    "5d c3"  # done: pop ebp; ret
    "89c1 3c0f 7509"  # length: ecx = eax; 15 goes on:
    "31c0 ac 01c1 3cff 74f7"  # ecx += lodsb, until it is not 255
    "c3"
)
"""Unpacks from esi to edi until edi is ebx. Written by hand; the tests compare it with what objdump reads."""


def quickened(image: bytes) -> bytes:
    """Return the El Torito *image* of GRUB with its core packed by LZ4, or as it is if it is not as expected."""
    found = _CALL.search(image, _DECOMPRESSOR, _DECOMPRESSOR + 8192)
    if found is None:
        return image
    data = _DECOMPRESSOR + int.from_bytes(found["data"], "little") - _LOADED_AT
    decoder = found.end("target") + int.from_bytes(found["target"], "little", signed=True)
    compressed, size = struct.unpack_from("<II", image, _DECOMPRESSOR + 8)
    if not (_DECOMPRESSOR < decoder <= data - len(_LZ4)) or data + compressed > len(image) or size > 1 << 20:
        return image
    plain = _unpacked(image[data:], size)
    if len(plain) != size:
        return image
    packed = pack(_without_vbe_error(_CALIBRATION.sub(_HASTE, plain, count=1)))
    core = bytearray(image[:data] + packed)
    core[decoder : decoder + len(_LZ4)] = _LZ4
    core += bytes(-len(core) % 2048)
    if len(core) - _DECOMPRESSOR + _LOADED_AT > _LIMIT:
        return image
    struct.pack_into("<I", core, _DECOMPRESSOR + 8, len(packed))
    struct.pack_into("<H", core, _BLOCKLIST + 8, (len(core) - _DECOMPRESSOR) // 512)
    return bytes(core)


def quieted(image: bytes) -> bytes:
    """Return GRUB's EFI *image* (a PE file, its modules in it as they are) without its words about screens."""
    for said in _NO_SCREEN:
        image = said.sub(rb"\1" + _NOP + rb"\2", image)
    return image


def _without_vbe_error(plain: bytes) -> bytes:
    """Return GRUB's kernel and modules with no error where a machine has no VBE."""
    for found in _NO_VBE.finditer(plain):
        distance = found["far"] or found["near"]
        at = found.end() + int.from_bytes(distance, "little", signed=True)
        if plain[at : at + len(_ERROR)] == _ERROR:
            return plain[: at + 1] + b"\0" + plain[at + 2 :]
    return plain


def _unpacked(data: bytes, size: int) -> bytes:
    """Return what the LZMA stream at the begin of *data* unpacks to (util/mkimage.c: its properties), or nothing."""
    import lzma

    properties = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties]).decompress(data, size)
    except lzma.LZMAError:
        return b""


_SHORTEST = 4
_FARTHEST = 0xFFFF


def pack(data: bytes) -> bytes:
    """Return *data* as one LZ4 block; every match is with the last place that begins alike."""
    out = bytearray()
    seen: dict[bytes, int] = {}
    position = anchor = 0
    last = len(data) - 12  # no match begins in the last 12 bytes, as the format asks
    while position < last:
        key = data[position : position + _SHORTEST]
        at = seen.get(key, -1)
        seen[key] = position
        if at < 0 or position - at > _FARTHEST:
            position += 1
            continue
        length = _SHORTEST + _common(data, at + _SHORTEST, position + _SHORTEST, len(data) - 5)
        out += _sequence(data[anchor:position], position - at, length - _SHORTEST)
        for inside in range(position + 1, min(position + length, last)):
            seen[data[inside : inside + _SHORTEST]] = inside
        position += length
        anchor = position
    return bytes(out + _sequence(data[anchor:], None, 0))


def _common(data: bytes, one: int, other: int, end: int) -> int:
    """Return how many bytes at *one* and *other* are the same, before *other* reaches *end*."""
    length = 0
    while other + length + 16 <= end and data[one + length : one + length + 16] == data[
        other + length : other + length + 16
    ]:  # fmt: skip
        length += 16
    while other + length < end and data[one + length] == data[other + length]:
        length += 1
    return length


def _sequence(literals: bytes, offset: int | None, match: int) -> bytes:
    """Encode literals and, unless *offset* is None, a match of *match* more than the shortest."""
    token = min(len(literals), 15) << 4 | (min(match, 15) if offset is not None else 0)
    head = bytes([token]) + _extension(len(literals)) + literals
    return head if offset is None else head + struct.pack("<H", offset) + _extension(match)


def _extension(length: int) -> bytes:
    return b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])
