"""A stream-optimised VMDK as an importer that cannot seek meets it: piece by piece (docs/facts/formats.md#vmdk)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

GRAIN = 128
"""Sectors."""
_KINDS = {0: "end", 1: "table", 2: "directory", 3: "footer"}


@dataclass(frozen=True)
class Piece:
    """What stands at *sector* of the file: a grain, or what a marker announces."""

    kind: str
    sector: int
    """Of a grain's own header; of what follows the marker, for the others."""
    lba: int
    """Where a grain's data is on the disk."""
    data: bytes
    """Decompressed, of a grain."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The entries of a table or directory."""
        return struct.unpack(f"<{len(self.data) // 4}I", self.data)


def is_stream(data: bytes) -> bool:
    return data[:8] == b"KDMV" + struct.pack("<I", 3)


def head(data: bytes) -> bytes:
    """Return what stands before the first piece: header, descriptor and padding."""
    return data[: struct.unpack_from("<Q", data, 0x40)[0] * 512]


def pieces(data: bytes) -> Iterator[Piece]:
    """Yield all pieces of *data*, which has to end with the end-of-stream marker."""
    position = len(head(data))
    while True:
        value, size, kind = struct.unpack_from("<QII", data, position)
        if size:
            grain = zlib.decompress(data[position + 12 : position + 12 + size])
            yield Piece("grain", position // 512, value, grain)
            padded = -(-(12 + size) // 512) * 512
            assert not any(data[position + 12 + size : position + padded])
            position += padded
            continue
        position += 512
        yield Piece(_KINDS[kind], position // 512, 0, data[position : position + value * 512])
        position += value * 512
        if kind == 0:
            break
    assert position == len(data), "nothing follows the end-of-stream marker"
