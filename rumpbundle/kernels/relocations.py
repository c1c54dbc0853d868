"""The base relocations of an EFI application, as EDK2 takes them where it cannot load the image at its base.

Microsoft "PE Format", the .reloc section; MdePkg/Library/BasePeCoffLib/BasePeCoff.c, PeCoffLoaderRelocateImage.
"""

from __future__ import annotations

import struct

LIMIT = 1 << 20
"""Bytes of relocations looked at: enough for 500,000 of them."""
_KNOWN = frozenset((0, 1, 2, 3, 10))
"""ABSOLUTE, HIGH, LOW, HIGHLOW and DIR64: the types that x86-64 has."""


def out_of_place(address: int, size: int, image: int) -> str:
    """Return what is wrong with where *size* bytes of them stand in an image of *image* bytes; empty if nothing."""
    if size and max(address, address + size - 1) >= image:
        return f"has relocations at {address:#x}-{address + size - 1:#x}, outside of its image of {image} bytes"
    return ""


def broken(table: bytes, size: int, image: int) -> str:
    """Return at what EDK2 stops in *table*, as a phrase; empty if at nothing.

    *table* are the *size* bytes of relocations and the eight behind, as far as they are looked at, of an image of
    *image* bytes.
    """
    at = 0
    while at + 1 < size and at + 8 <= len(table):
        page, length = struct.unpack_from("<II", table, at)
        if not length:
            return f"a block of 0 bytes at byte {at}"
        if at + length > size:
            return f"a block up to byte {at + length} of {size}"
        entries = [entry for (entry,) in struct.iter_unpack("<H", _even(table[at + 8 : at + length]))]
        unknown = next((entry >> 12 for entry in entries if entry >> 12 not in _KNOWN), None)
        if unknown is not None:
            return f"type {unknown}, which x86-64 does not have"
        target = page + max((entry & 0xFFF for entry in entries), default=0)
        if target >= image:
            return f"one at {target:#x}, outside of its image of {image} bytes"
        at += length
    return ""


def _even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)
