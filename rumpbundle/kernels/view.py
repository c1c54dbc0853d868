"""Bounded random access to the bytes of a file or of memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.inputfile import InputFile


@dataclass(frozen=True, slots=True)
class View:
    """*size* bytes that can be read at any offset.

    Not a memory map: touching a map of a file that shrinks meanwhile kills the process, reading it is an error.
    """

    size: int
    read_exactly: Callable[[int, int], bytes]

    @classmethod
    def of_file(cls, file: InputFile) -> View:
        return cls(file.size, file.read)

    @classmethod
    def of_bytes(cls, data: bytes | bytearray) -> View:
        whole = memoryview(data)
        return cls(len(data), lambda offset, length: bytes(whole[offset : offset + length]))

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes there are in *length* bytes from *offset*: fewer, or none, past the end."""
        if offset < 0 or offset >= self.size or length <= 0:
            return b""
        return self.read_exactly(offset, min(length, self.size - offset))

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...] | None:
        """Return the fields of :mod:`struct` *layout* at *offset*, or None where the file ends before."""
        data = self.read(offset, struct.calcsize(layout))
        return struct.unpack(layout, data) if len(data) == struct.calcsize(layout) else None

    def chunks(self, offset: int, length: int, overlap: int) -> Iterator[bytes]:
        """Yield *length* bytes from *offset* in pieces; each but the first begins with the last *overlap* bytes."""
        start, end = offset, min(offset + length, self.size)
        while offset < end:
            begin, offset = max(start, offset - overlap), min(offset + CHUNK, end)
            yield self.read(begin, offset - begin)
