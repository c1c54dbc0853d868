"""Files that a CD holds compressed: blocks of zlib behind a table of where each stands.

Source: libisofs, doc/zisofs_format.txt, version 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from rumpbundle.errors import ImageError
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.medium import Medium, Tables, Window

_MAGIC = bytes.fromhex("37e45396c9dbd607")
_MIN_BLOCK, _MAX_BLOCK = 15, 17
"""Powers of two."""


def unpacked(medium: Medium, entry: Entry) -> Iterator[bytes]:
    """Yield the bytes of *entry*, block by block.

    Raises:
        ImageError: what stands there is no zisofs, or is damaged.
    """
    if not entry.size:
        return
    if len(entry.spans) != 1 or entry.spans[0].offset is None:
        raise ImageError(f"{entry.path}: a compressed file in {len(entry.spans)} pieces")
    packed = Window(medium, entry.spans[0].offset, entry.spans[0].length, entry.path)
    magic, size, header, power = struct.unpack("<8sIBB2x", packed.read(0, 16))
    if magic != _MAGIC or size != entry.size or header < 4 or not _MIN_BLOCK <= power <= _MAX_BLOCK:
        raise ImageError(f"{entry.path}: is no zisofs file of {entry.size} bytes")
    block = 1 << power
    table = Tables(packed)
    start = table.number(4 * header, 4, "little")
    for index in range(-(-size // block)):
        end = table.number(4 * header + 4 * (index + 1), 4, "little")
        wanted = min(block, size - index * block)
        yield _inflated(packed, start, end, wanted, entry.path)
        start = end


def _inflated(packed: Medium, start: int, end: int, wanted: int, path: str) -> bytes:
    """Return the *wanted* bytes that stand compressed at *start* to *end*; nothing there means zeros."""
    if start == end:
        return bytes(wanted)
    if not 0 < end - start <= 2 * wanted + 1024:
        raise ImageError(f"{path}: a compressed block has {end - start} bytes")
    try:
        data = zlib.decompressobj().decompress(packed.read(start, end - start), wanted)
    except zlib.error as error:
        raise ImageError(f"{path}: a compressed block is damaged: {error}") from None
    if len(data) != wanted:
        raise ImageError(f"{path}: a compressed block holds {len(data)} bytes, not {wanted}")
    return data
