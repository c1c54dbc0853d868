"""Who made a kernel and which drivers it holds, by the texts and symbols in it (docs/facts/guests.md#rumprun)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.view import View

LIMIT = 64 << 20
"""Bytes searched at most: what names a kernel stands in its first megabytes."""

_PROGBITS, _STRTAB = 1, 3
_SILENT = (".text", ".debug", ".eh_frame", ".rel", ".init", ".fini")
"""Sections that hold no texts of interest, and often most of the file."""

RUMPRUN = b"_RUMPRUN_ROOTFSCFG="
RUMPRUN_HW = b"rump kernel bare metal bootstrap"
UNIKRAFT = b"Unikraft"
XEN = b"Xen version %d"
HERMIT = b"hermit-loader"
HERMIT_CRATE = b"hermit_loader"
GNU_MACH = b"GNU Mach "
INVADERS = b"  YOU  LOSE"
SOLO5_SINGLE = b": not configured\n"
"""What Solo5's virtio binding says of every block and network device after the first of a kind, in the versions that
drive but one each (bindings/virtio/pci.c until its pull request 581)."""
VGA_TEXT = b"VGA text"
"""Stands for the address of VGA text memory, 0xb8000, in a kernel's code; see :func:`writes_vga_text`."""
LIMINE = struct.pack("<QQ", 0xC7B1DD30DF4C8B88, 0x0A82E883A194F07B)
"""How each request of a kernel to the boot loader Limine begins (its PROTOCOL.md)."""
MARKS = (RUMPRUN, RUMPRUN_HW, UNIKRAFT, XEN, HERMIT, HERMIT_CRATE, GNU_MACH, INVADERS)
"""What tells families, and kernels with known troubles, apart."""

RUMPRUN_DRIVERS: Mapping[bytes, str] = {
    # The names NetBSD's config(1) gives the drivers; also the ends of their symbols' names.
    b"ld_virtio\0": "virtio-blk",
    b"vioscsi\0": "virtio-scsi",
    b"umass\0": "usb",
    b"vioif\0": "virtio-net",
    b"Intel i82540EM": "e1000",
    b"xenif\0": "xen-net",
}
UNIKRAFT_DRIVERS: Mapping[bytes, str] = {b"virtio-blk\0": "virtio-blk", b"virtio-net\0": "virtio-net"}


_VGA_ADDRESS = b"\x00\x80\x0b"
_MAPPED = (_VGA_ADDRESS + b"\x00", _VGA_ADDRESS + b"\x80", _VGA_ADDRESS + b"\xc0")
"""0xb8000 in the low half, or as kernels map it high (0xc00b8000, 0xffffffff800b8000)."""
_COM1 = (b"\xba\xf8\x03", b"\xba\xfd\x03", b"\xf8\x03\0\0")
"""COM1's port, 0x3f8, as an instruction loads it, or its status register's; or as a constant."""


def writes_vga_text(view: View) -> bool:
    """Whether a kernel's code holds the address of VGA text memory, and no port of a serial line to print on."""
    return _holds(view, _MAPPED, _VGA_ADDRESS) and not _holds(view, _COM1)


def _holds(view: View, needles: tuple[bytes, ...], begin: bytes = b"") -> bool:
    """Whether one of *needles*, which all *begin* alike, occurs in *view*."""
    # No regular expression: over all bytes of a kernel it took as long as a third of a start.
    for chunk in view.chunks(0, min(view.size, LIMIT), 3):
        if _occurs(begin, chunk) and any(_occurs(needle, chunk) for needle in needles):
            return True
    return False


def _occurs(needle: bytes, chunk: bytes) -> bool:
    # From behind: Python's search forwards takes three times as long for texts as short as these.
    return chunk.rfind(needle) >= 0


def search(view: View, elf: Elf | None, needles: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of *needles* that occur in *view*; of an ELF file, in its sections of texts and names."""
    wanted = set(needles)
    overlap = max(map(len, wanted), default=1) - 1
    found: set[bytes] = set()
    left = LIMIT
    for offset, size in _places(view, elf):
        for chunk in view.chunks(offset, min(size, left), overlap):
            found |= {needle for needle in wanted - found if _occurs(needle, chunk)}
            if found == wanted:
                return frozenset(found)
        left -= min(size, left)
    return frozenset(found)


def _places(view: View, elf: Elf | None) -> list[tuple[int, int]]:
    sections = elf.sections if elf is not None else ()
    texts = [
        (s.offset, s.size)
        for s in sections
        if s.type in (_PROGBITS, _STRTAB) and s.size and not s.name.startswith(_SILENT)
    ]
    if any(s.name.startswith(".rodata") for s in sections):
        return texts
    return [(0, view.size)]
