"""The format-neutral disk: where every byte is, before one is written.

A :class:`DiskLayout` is an immutable value: sorted extents that do not overlap, and the partitions they
form. What no extent covers is zero; sparseness is known, never scanned for. Writers of formats read it
through :class:`LayoutReader` (blocks in order) or :func:`rumpbundle.disk.flat.write_flat` (a plain file).

All positions and lengths are bytes unless the name says ``lba`` (512-byte sectors).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import field, replace
from typing import Literal as OneOf
from typing import Self

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content, FileSlice, Late, Literal, Stored
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.inputfile import InputFile, close

SECTOR = 512
MIB = 1 << 20
GIB = 1 << 30
_PROBE = 64
"""Bytes of a block that show, as a rule, that it is not all zero."""


def round_up(value: int, unit: int) -> int:
    """Return the least multiple of *unit* that is not below *value*."""
    return -(-value // unit) * unit


@dataclass(frozen=True, slots=True)
class Extent:
    """*source* stands at byte *offset* of the disk; *label* says what it is, for people."""

    offset: int
    source: Stored
    label: str

    @property
    def length(self) -> int:
        return self.source.length

    @property
    def end(self) -> int:
        return self.offset + self.source.length


def content_extents(content: Content, offset: int, label: str) -> list[Extent]:
    """Return *content*'s sources laid end to end from byte *offset* of the disk; its zeros need no extent."""
    return [Extent(place, source, label) for place, source in content.stored(offset)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition in either table; *offset* and *length* in bytes, whole sectors."""

    name: str
    offset: int
    length: int
    type_guid: str
    mbr_type: int

    @property
    def first_lba(self) -> int:
        return self.offset // SECTOR

    @property
    def last_lba(self) -> int:
        """The last sector that belongs to it (inclusive, as GPT counts)."""
        return (self.offset + self.length) // SECTOR - 1


@dataclass(frozen=True, slots=True)
class Named:
    """A content the bundle's manifest names, and the byte of the disk at which it stands, whole and in one piece."""

    offset: int
    content: Content


Table = OneOf["gpt", "mbr"]
TableWriter = Callable[["DiskLayout"], tuple[Extent, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLayout:
    """A whole disk.

    *body* holds everything whose place does not depend on the disk's size; *write_table* makes the
    partition table's extents for the size at hand, so that a layout can be padded (:meth:`padded`) and its
    backup GPT stands at the new end.
    """

    size: int
    body: tuple[Extent, ...]
    partitions: tuple[Partition, ...]
    table: Table
    write_table: TableWriter
    identity: Identity
    body_end: int
    tail: int = 0
    """Bytes the table needs at the end of the disk (the backup GPT)."""
    named: tuple[Named, ...] = ()
    """What the manifest names, in the order of the disk: writers hash it as they copy it."""
    extents: tuple[Extent, ...] = field(init=False)
    """All extents, body and table, sorted by offset."""

    def __post_init__(self) -> None:
        if self.size % SECTOR:
            raise ValueError(f"disk size {self.size} is not whole sectors")
        if self.body_end + self.tail > self.size:
            raise ValueError(f"a disk of {self.size} bytes cannot hold {self.body_end} + {self.tail}")
        extents = tuple(sorted((*self.body, *self.write_table(self)), key=lambda extent: extent.offset))
        object.__setattr__(self, "extents", extents)
        position = 0
        for extent in extents:
            if extent.offset < position:
                raise ValueError(f"extent {extent.label!r} at {extent.offset} overlaps one that ends at {position}")
            position = extent.end
        if position > self.size:
            raise ValueError(f"an extent ends at {position}, past the disk's {self.size}")

    @property
    def payload(self) -> int:
        """Bytes that extents cover."""
        return sum(extent.length for extent in self.extents)

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The input files that extents read from, each once, in the order of their places."""
        return tuple({e.source.file: None for e in self.extents if isinstance(e.source, FileSlice)})

    def padded(self, *, align: int = SECTOR, least: int = 0) -> Self:
        """Return this disk with the smallest size that is a multiple of *align* and at least *least*."""
        size = round_up(max(self.body_end + self.tail, least), align)
        return replace(self, size=size)

    def ranges(self, align: int = 1) -> Iterator[tuple[int, int]]:
        """Yield ``(start, end)`` of what extents cover, widened to *align* and merged, in order."""
        start = end = 0
        for extent in self.extents:
            low, high = extent.offset // align * align, round_up(extent.end, align)
            if low > end:
                if end > start:
                    yield start, min(end, self.size)
                start = low
            end = max(end, high)
        if end > start:
            yield start, min(end, self.size)


class LayoutReader:
    """Reads a layout as the disk it describes. Use it as a context manager: it keeps one file open.

    With *written*, an open file that holds this disk already, its bytes are read from there and not from the inputs.
    """

    def __init__(self, layout: DiskLayout, written: int | None = None) -> None:
        self._written = written
        self.size = layout.size
        self._layout = layout
        self._extents = layout.extents
        self._offsets = [extent.offset for extent in self._extents]
        self._file: InputFile | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(check=False)

    def _close(self, *, check: bool) -> None:
        if self._file is not None:
            file, fd, self._file, self._fd = self._file, self._fd, None, -1
            try:
                if check:
                    file.check(fd)
            finally:
                close(fd)

    def _read(self, source: Stored, offset: int, length: int) -> bytes:
        if not isinstance(source, FileSlice):
            return source.read(offset, length)
        if source.file is not self._file:
            self._close(check=True)
            self._fd = source.file.open()
            self._file = source.file
        return source.file.read_from(self._fd, source.start + offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes at *offset*; past the end of the disk there are zeros."""
        parts: list[bytes] = []
        position = offset
        for start, data in self._parts(offset, length):
            if start > position:
                parts.append(bytes(start - position))
            parts.append(data)
            position = start + len(data)
        if len(parts) == 1 and position == offset + length:
            return parts[0]
        parts.append(bytes(offset + length - position))
        return b"".join(parts)

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield what stands in *length* bytes from *offset* on, each with its place; between them are zeros."""
        if self._written is not None:
            yield offset, os.pread(self._written, length, offset)
            return
        index = max(bisect_right(self._offsets, offset) - 1, 0)
        while index < len(self._extents) and self._extents[index].offset < offset + length:
            extent = self._extents[index]
            low, high = max(offset, extent.offset), min(offset + length, extent.end)
            if low < high:
                yield low, self._read(extent.source, low - extent.offset, high - low)
            index += 1

    def blocks(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Yield ``(index, data)`` of every block of *size* bytes that is not all zero, in order.

        The last block is padded with zeros to *size*. Only what extents cover is read, and holes of source
        files are skipped; which blocks come does not depend on where those holes are.
        """
        zeros = bytes(size)
        step = max(size, MIB // size * size)
        for low, high in self._covered(size):
            for position in range(low, high, step):
                data = self.read(position, min(step, high - position))
                for at in range(0, len(data), size):
                    block = data[at : at + size]
                    if block != zeros:
                        yield (position + at) // size, block
        self._close(check=True)

    def used(self, size: int) -> Iterator[range]:
        """Yield the indices of the blocks that :meth:`blocks` would give; of most only the first bytes are read."""
        start = end = -1
        for index in self._used(size):
            if index != end:
                if end > start:
                    yield range(start, end)
                start = index
            end = index + 1
        if end > start:
            yield range(start, end)
        self._close(check=True)

    def _used(self, size: int) -> Iterator[int]:
        zeros, nothing, read = bytes(size), bytes(min(size, _PROBE)), os.pread
        for low, high in self._covered(size):
            position = low
            while position < high:
                fd, shift, end = self._file_at(position)
                stop = min(end // size * size, high)
                for at in range(position, stop, size):
                    try:
                        begin = read(fd, len(nothing), at + shift)
                    except OSError:
                        begin = b""  # whoever copies it says what is wrong
                    if begin != nothing or not self._is_zero(at, zeros):
                        yield at // size
                if stop <= position:
                    stop = position + size
                    if not self._is_zero(position, zeros):
                        yield position // size
                position = stop

    def _is_zero(self, position: int, zeros: bytes) -> bool:
        """Return whether *zeros*, so many zero bytes, stand at *position*."""
        return all(zeros.startswith(data) for _, data in self._parts(position, len(zeros)))

    def _file_at(self, position: int) -> tuple[int, int, int]:
        """Return the open file whose bytes stand at *position*, what to add to come there, and where that ends.

        What is no file's ends at once.
        """
        index = max(bisect_right(self._offsets, position) - 1, 0)
        extent = self._extents[index]
        if self._written is not None or not isinstance(extent.source, FileSlice) or position < extent.offset:
            return -1, 0, position
        self._read(extent.source, 0, 0)
        return self._fd, extent.source.start - extent.offset, extent.end

    def _covered(self, align: int) -> Iterator[tuple[int, int]]:
        """Yield ``(start, end)`` of what extents cover, in units of *align*, without the holes of source files."""
        for start, end in self._layout.ranges(align):
            yield from self._without_holes(start, round_up(end, align), align)

    def _without_holes(self, start: int, end: int, align: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of *start*..*end*, in units of *align*, that are not holes of a big source file."""
        position = start
        index = max(bisect_right(self._offsets, start) - 1, 0)
        while index < len(self._extents) and self._extents[index].offset < end:
            extent = self._extents[index]
            index += 1
            if not isinstance(extent.source, FileSlice) or extent.length < 2 * MIB:
                continue
            source = extent.source
            fd = source.file.open()
            try:
                for low, high in holes(fd, source.start, source.start + source.length):
                    hole_start = round_up(low - source.start + extent.offset, align)
                    hole_end = (high - source.start + extent.offset) // align * align
                    if max(hole_start, position) < min(hole_end, end):
                        if hole_start > position:
                            yield position, hole_start
                        position = hole_end
            finally:
                close(fd)
        if position < end:
            yield position, end


def holes(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the holes of an open file between *start* and *end*, where the file system tells them."""
    if not hasattr(os, "SEEK_DATA"):
        return
    position = start
    while position < end:
        try:
            hole = min(os.lseek(fd, position, os.SEEK_HOLE), end)
            if hole >= end:
                return
            try:
                data = min(os.lseek(fd, hole, os.SEEK_DATA), end)
            except OSError:
                data = end
        except OSError:
            return
        yield hole, data
        position = data


def settled(layout: DiskLayout) -> tuple[Extent, ...]:
    """Return all extents with every :class:`Late` source made a literal; waits for the payload's hashing."""
    return tuple(
        Extent(e.offset, e.source.settle(), e.label) if isinstance(e.source, Late) else e for e in layout.extents
    )


def held(layout: DiskLayout) -> DiskLayout:
    """Return *layout* with 0xFF in the place of everything that is :class:`Late`.

    It is for writers that put those bytes in last, so as not to wait for the payload's hashing before they start;
    what is not zero keeps its place allocated in every format.
    """

    def hold(extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
        return tuple(
            replace(e, source=Literal(b"\xff" * e.length)) if isinstance(e.source, Late) else e for e in extents
        )

    return replace(layout, body=hold(layout.body), write_table=lambda disk: hold(layout.write_table(disk)))


__all__ = [
    "GIB",
    "MIB",
    "SECTOR",
    "DiskLayout",
    "Extent",
    "LayoutReader",
    "Named",
    "Partition",
    "content_extents",
    "held",
    "holes",
    "round_up",
    "settled",
]
