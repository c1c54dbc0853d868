"""The El Torito boot catalog: what firmware starts from a CD.

Sources: El Torito 1.0; UEFI 2.10 §13.3.2 for platform 0xEF.
"""

from __future__ import annotations

import struct

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium

_BLOCK = 2048
_MAX_ENTRIES = 64
_EXTENSION = b"\x44"
_PLATFORMS = {0: "bios", 1: "powerpc", 2: "mac", 0xEF: "uefi"}


@dataclass(frozen=True, slots=True)
class BootEntry:
    """An El Torito entry: what firmware starts. *offset* and *size* in bytes; a size of 0 reaches to the end."""

    platform: str
    bootable: bool
    emulation: int
    offset: int
    size: int


def boot_entries(medium: Medium, record: bytes) -> tuple[BootEntry, ...]:
    """Return the entries of the catalog that the boot record *record* names.

    Raises:
        ImageError: it is damaged.
    """
    at = catalog_at(record)
    catalog = medium.read(at, _BLOCK)
    if catalog[0] != 1 or catalog[30:32] != b"\x55\xaa" or sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF:
        raise ImageError(f"El Torito: the boot catalog at {at} is damaged")
    entries = [_entry(catalog[32:64], catalog[1])]
    position = 64
    while position + 32 <= _BLOCK and catalog[position] in (0x90, 0x91) and len(entries) < _MAX_ENTRIES:
        platform, count = catalog[position + 1], int.from_bytes(catalog[position + 2 : position + 4], "little")
        last = catalog[position] == 0x91
        position += 32
        for _ in range(count):
            if position + 32 > _BLOCK:
                break
            entries.append(_entry(catalog[position : position + 32], platform))
            position += 32
            while catalog[position : position + 1] == _EXTENSION:  # not counted: by what firmware chooses the entry
                position += 32
        if last:
            break
    return tuple(entries)


def catalog_at(record: bytes) -> int:
    """Return the byte offset of the catalog that *record* names."""
    return int.from_bytes(record[71:75], "little") * _BLOCK


def _entry(entry: bytes, platform: int) -> BootEntry:
    sectors, block = struct.unpack_from("<HI", entry, 6)
    name = _PLATFORMS.get(platform, f"platform {platform}")
    return BootEntry(name, entry[0] == 0x88, entry[1] & 15, block * _BLOCK, sectors * 512)
