"""Small ext4 files stand in their inodes: 60 bytes where the block map would be, more as an extended attribute."""

from __future__ import annotations

import struct

from rumpbundle.images.filesystem import Span, Spans

_HERE = 60
_MAGIC = 0xEA020000
_SYSTEM = 7
"""What stands for ``system.`` in front of an attribute's name."""


def inline_spans(inode: bytes, at: int, size: int) -> Spans:
    """Return where the *size* bytes stand that *inode*, at byte *at* of the file system, holds itself.

    What it claims and does not hold is a hole: so mke2fs leaves a file of which nothing is written.
    """
    if size <= _HERE:
        return (Span(at + 40, size),) if size else ()
    start, length = _attribute(inode)
    held = min(length, size - _HERE)
    parts = Span(at + 40, _HERE), Span(at + start, held), Span(None, size - _HERE - held)
    return tuple(part for part in parts if part.length)


def _attribute(inode: bytes) -> tuple[int, int]:
    """Return place in *inode*, and length, of the value of ``system.data``; zeros if it has none."""
    if len(inode) <= 128:
        return 0, 0
    base = 128 + int.from_bytes(inode[128:130], "little")
    if base + 4 > len(inode) or int.from_bytes(inode[base : base + 4], "little") != _MAGIC:
        return 0, 0
    first = position = base + 4
    while position + 16 <= len(inode) and inode[position : position + 4] != bytes(4):
        name_length, index, value, value_inode, length = struct.unpack_from("<BBHII", inode, position)
        name = inode[position + 16 : position + 16 + name_length]
        if index == _SYSTEM and name == b"data" and not value_inode:
            return (first + value, length) if first + value + length <= len(inode) else (0, 0)
        position += 16 + (name_length + 3 & ~3)
    return 0, 0
