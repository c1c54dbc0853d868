"""Read VMDK: one sparse extent, plain or stream-optimised; :mod:`.vmdk_split` reads those of several files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.containers.vmdk_descriptor import MISLEADS, parse
from rumpbundle.images.disk import Disk, Fact, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import vmdk

_MAX_GRAIN = 2048  # sectors; a damaged header must not make us allocate
_MAX_DESCRIPTOR = 64 << 10
_READ_BY_QEMU = 20 * SECTOR
"""Bytes of a descriptor QEMU reads, whatever the header says (block/vmdk.c, ``DESC_SIZE``)."""
_MAX_DIRECTORY = 128 << 20
"""Bytes of a grain directory: 62 TiB, VMware's largest disk, in grains of 4 KiB."""
_TABLE_SECTORS = vmdk.TABLE_SIZE // SECTOR
_TABLES_AT_ONCE = 4096
_MAX_PADDING = 128 << 10
"""Bytes that may follow the footer of a stream: some writers fill their last block."""


class SparseVmdk(Disk):
    """monolithicSparse: a directory of tables of grains, in most files with a second copy."""

    container: ClassVar[str] = "vmdk"
    sector_size = SECTOR
    qemu = "vmdk"

    def __init__(self, medium: Medium) -> None:
        self.header = header = vmdk.SparseHeader.unpack(medium.read(0, min(medium.size, SECTOR)))
        if header.gd_offset == vmdk.GD_AT_END:
            header = _footer(medium)
        self.footer = header
        if not self.header.capacity or not header.capacity:
            # QEMU takes such a header for the envelope of a list of files (block/vmdk.c, ``vmdk_open_vmdk4``).
            raise ImageError("VMDK header: a disk of no size", hint=MISLEADS)
        if header.magic != vmdk.MAGIC or header.newlines != vmdk.SparseHeader.newlines:
            raise ImageError("is no sparse VMDK, or was transferred as text or cut off")
        if header.version not in (1, 2, 3):
            raise ImageError(f"is a VMDK of version {header.version}, expected 1 to 3")
        grain = header.grain_size
        if not 8 <= grain <= _MAX_GRAIN or grain & (grain - 1) or header.table_entries != vmdk.TABLE_ENTRIES:
            raise ImageError(f"VMDK header: grains of {grain} sectors, {header.table_entries} in a table")
        if header.capacity > 1 << 54:
            raise ImageError("VMDK header: the disk is larger than there can be")
        super().__init__(medium, header.capacity * SECTOR)
        self.grain = grain * SECTOR
        self.span = self.grain * vmdk.TABLE_ENTRIES
        self._tables = Tables(medium)
        self.directories = [header.gd_offset * SECTOR]
        if header.flags & vmdk.FLAG_REDUNDANT_TABLE and header.rgd_offset and not header.flags & vmdk.FLAG_COMPRESSED:
            self.directories.append(header.rgd_offset * SECTOR)
        length = 4 * -(-self.size // self.span)
        if length > _MAX_DIRECTORY or max(self.directories) + length > medium.size:
            raise ImageError("VMDK header: the grain directory lies behind the end of the file")
        inside = parse(self.descriptor)
        inside.check_parent()
        inside.check_alone()

    @property
    def descriptor(self) -> str:
        """The text inside, up to its padding."""
        offset, size = self.header.descriptor_offset * SECTOR, self.header.descriptor_size * SECTOR
        if not offset:
            return ""
        size = min(max(size, _READ_BY_QEMU), _MAX_DESCRIPTOR, max(self.medium.size - offset, 0))
        data = self.medium.read(offset, size).split(b"\0")[0]
        return data.decode("utf-8", "surrogateescape")

    @property
    def facts(self) -> Mapping[str, Fact]:
        facts: dict[str, Fact] = {"version": self.header.version}
        if self.header.unclean_shutdown:
            facts["unclean"] = "yes"
        return facts | dict(parse(self.descriptor).facts)

    def claims(self) -> Claims:
        from rumpbundle.images.containers.vmdk_check import claims

        return claims(self)

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.containers.vmdk_check import problems

        return problems(self)

    def _both(self, at: int, entries: list[int]) -> int:
        """Return what both copies of a table, at *entries* in the file, say at their byte *at*."""
        found = {self._tables.number(entry + at, 4, "little") for entry in entries}
        if len(found) > 1:
            raise ImageError("VMDK: a grain table and its copy differ", hint="one of them is damaged")
        return found.pop()

    def locate(self, offset: int) -> Where:
        left = self.size - offset
        index, inside = divmod(offset, self.span)
        tables = [self._tables.number(each + 4 * index, 4, "little") * SECTOR for each in self.directories]
        if not all(tables):
            if any(tables):
                raise ImageError("VMDK: the grain directory and its copy differ", hint="one of them is damaged")
            most = -(-(inside + left) // self.span)
            absent = min(self._tables.same(each + 4 * index, most, bytes(4)) for each in self.directories)
            return Where(None, min(absent * self.span - inside, left))
        slot, at = divmod(inside, self.grain)
        sector = self._both(4 * slot, tables)
        # 1 means "zeros, whatever a parent says" (VMware's and QEMU's use of a flag the technote leaves out).
        if sector < 2:
            absent = max(self._absent(index, slot, tables, sector.to_bytes(4, "little")), 1)
            return Where(None, min(absent * self.grain - at, left))
        return Where(sector * SECTOR + at, min(self.grain - at, left))

    def _absent(self, index: int, slot: int, tables: list[int], entry: bytes) -> int:
        """Return how many grains from *slot* of table *index* on are zero as *entry*, as far as tables follow on."""
        most = vmdk.TABLE_ENTRIES - slot
        absent = min(self._tables.same(each + 4 * slot, most, entry) for each in tables)
        if absent < most:
            return absent
        count = min(-(-self.size // self.span) - index, _TABLES_AT_ONCE)
        for directory, table in zip(self.directories, tables, strict=True):
            count = self._in_a_row(directory + 4 * index, table // SECTOR, count)
        most = count * vmdk.TABLE_ENTRIES - slot
        return min(self._tables.same(each + 4 * slot, most, entry) for each in tables)

    def _in_a_row(self, entry: int, table: int, most: int) -> int:
        """Return how many tables, *most* at most, stand one behind the other by the directory from *entry* on."""
        for count in (min(2, most), most):  # they do all, or not even two
            found = struct.unpack(f"<{count}I", self._tables.record(entry, 4 * count))
            wanted = tuple(range(table, table + count * _TABLE_SECTORS, _TABLE_SECTORS))
            if found != wanted:
                return next(n for n in range(count) if found[n] != wanted[n])
        return most


def _footer(medium: Medium) -> vmdk.SparseHeader:
    """Return the header at the end of a stream, before its end-of-stream marker and perhaps some padding."""
    end = medium.size // SECTOR * SECTOR
    start = max(end - 3 * SECTOR - _MAX_PADDING, 0)
    tail = medium.read(start, end - start).rstrip(b"\0")
    at = len(tail) // SECTOR * SECTOR
    return vmdk.SparseHeader.unpack(tail[at:].ljust(SECTOR, b"\0"))


class StreamVmdk(SparseVmdk):
    """streamOptimized: each grain is compressed, and as a rule announced by a marker."""

    container: ClassVar[str] = "vmdk (stream)"
    expands = 1 << 11

    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self._last: tuple[int, bytes] = (-1, b"")
        if self.header.compression != vmdk.COMPRESS_DEFLATE:
            raise ImageError(f"VMDK header: unknown compression {self.header.compression}")

    def locate(self, offset: int) -> Where:
        position, run, _ = super().locate(offset)
        return Where(position, run, position is not None)

    def packed_place(self, position: int) -> tuple[int, int]:
        if not self.header.flags & vmdk.FLAG_MARKERS:
            return position, min(2 * self.grain, max(self.medium.size - position, 0))
        return position, vmdk.GrainHeader.SIZE + self._grain_header(position).size

    def _grain_header(self, position: int) -> vmdk.GrainHeader:
        return vmdk.GrainHeader.unpack(self.medium.read(position, vmdk.GrainHeader.SIZE))

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.containers.vmdk_check import stream_problems

        return stream_problems(self)

    def read_unit(self, offset: int, length: int) -> bytes:
        position, run, _ = self.locate(offset)
        count = min(run, length)
        if position is None:
            return bytes(count)
        index, at = divmod(offset, self.grain)
        if self._last[0] != index:
            self._last = (index, self._inflated(index, position - at))
        return self._last[1][at : at + count]

    def _inflated(self, index: int, position: int) -> bytes:
        try:
            inflater = zlib.decompressobj()
            grain = inflater.decompress(self._packed(index, position), self.grain)
            if not inflater.eof:
                inflater.decompress(inflater.unconsumed_tail, 1)  # its checksum is behind all that
        except zlib.error as error:
            raise ImageError(f"VMDK: grain {index} does not decompress: {error}") from None
        if len(grain) < min(self.grain, self.size - index * self.grain):
            raise ImageError(f"VMDK: grain {index} is too short")
        return grain

    def _packed(self, index: int, position: int) -> bytes:
        if not self.header.flags & vmdk.FLAG_MARKERS:
            return self.medium.read(*self.packed_place(position))
        head = self._grain_header(position)
        if head.lba * SECTOR != index * self.grain or head.size > 2 * self.grain:
            raise ImageError(f"VMDK: what stands at {position} is not grain {index}")
        return self.medium.read(position + vmdk.GrainHeader.SIZE, head.size)


def open_vmdk(medium: Medium) -> SparseVmdk:
    """Read the sparse VMDK in *medium*."""
    header = vmdk.SparseHeader.unpack(medium.read(0, min(medium.size, SECTOR)))
    return (StreamVmdk if header.flags & vmdk.FLAG_COMPRESSED else SparseVmdk)(medium)


def open_single(medium: Medium) -> Disk:
    """Read the VMDK in *medium*, which has to be a whole disk.

    Raises:
        ImageError: it is damaged, or one part of a disk that is split.
    """
    disk = open_vmdk(medium)
    if type(disk) is SparseVmdk and not disk.descriptor.strip():
        raise ImageError("is one part of a split VMDK", hint="name the small .vmdk file that lists the parts")
    return disk
