"""What is wrong with a sparse VMDK: copies that differ, grains that share bytes, a stream out of order."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rumpbundle.disk.layout import SECTOR, round_up
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.containers.vmdk_descriptor import parse
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import vmdk

if TYPE_CHECKING:
    from rumpbundle.images.containers.vmdk import SparseVmdk, StreamVmdk

_TABLE_SECTORS = vmdk.TABLE_SIZE // SECTOR
_AT_ONCE = 1 << 14
"""Entries of a directory: most writers put its tables one behind the other."""
_MOST_TABLES = 1 << 16
"""Grain tables that are compared: those of two terabytes."""
_MOST_TOLD = 16
_GRAIN, _TABLES = "a grain", "a grain table"


def _problem(offset: int | None, what: str, consequence: str) -> Problem:
    return Problem(where="VMDK", offset=offset, what=what, consequence=consequence)


def claims(disk: SparseVmdk) -> Claims:
    """Return what claims the bytes of *disk*'s file."""
    found = Claims("VMDK", disk.medium.size)
    header = disk.header
    found.add(0, SECTOR, "the header")
    found.add(
        header.descriptor_offset * SECTOR, len(disk.descriptor.encode("utf-8", "surrogateescape")), "descriptor"
    )
    count = -(-disk.size // disk.span)
    for directory in disk.directories:
        found.add(directory, 4 * count, "a grain directory")
        for first in range(0, count, _AT_ONCE):
            tables = _entries(disk, directory + 4 * first, min(_AT_ONCE, count - first))
            if tables[0] and tables == list(
                range(tables[0], tables[0] + len(tables) * _TABLE_SECTORS, _TABLE_SECTORS)
            ):
                found.add(tables[0] * SECTOR, len(tables) * vmdk.TABLE_SIZE, _TABLES)
            else:
                for table in filter(None, tables):
                    found.add(table * SECTOR, vmdk.TABLE_SIZE, _TABLES)
    found.add_mapped(disk, _GRAIN)
    return found


def _tables(disk: SparseVmdk) -> int:
    return min(-(-disk.size // disk.span), _MOST_TABLES)


def _entries(disk: SparseVmdk, directory: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}I", disk.medium.read(directory, 4 * count)))


def problems(disk: SparseVmdk) -> Iterator[Problem]:
    """Yield what is wrong with a VMDK that is no stream, with offsets of its file."""
    header = disk.header
    yield from _descriptor(disk)
    if header.unclean_shutdown:
        yield replace(
            _problem(72, "it was not closed cleanly", "VMware checks it before it starts"), severity="remark"
        )
    if header.compression:
        yield _problem(77, f"compression {header.compression} without the flag for it", "readers may refuse it")
    differing = list(_copies(disk))
    yield from differing
    if not differing:
        found = claims(disk)
        yield from found.problems()
        first = found.first(_GRAIN)
        if first is not None and first < header.overhead * SECTOR:
            what = (
                f"the first grain stands at {first}, behind which the header has {header.overhead} sectors of tables"
            )
            yield _problem(64, what, "VMware takes a grain for a table")


def _descriptor(disk: SparseVmdk) -> Iterator[Problem]:
    values = parse(disk.descriptor).values
    missing = [key for key in ("CID", "createType") if key not in values]
    if disk.header.descriptor_offset and missing:
        what = f"the descriptor has no {' and no '.join(missing)}"
        yield _problem(disk.header.descriptor_offset * SECTOR, what, "QEMU or VMware refuse it")


def _copies(disk: SparseVmdk) -> Iterator[Problem]:
    """Compare both directories, and the tables that they name."""
    if len(disk.directories) < 2:
        return
    count = _tables(disk)
    one, other = (_entries(disk, directory, count) for directory in disk.directories)
    consequence = "one of them is damaged, and readers that take the other find other grains"
    told = 0
    for index, (first, second) in enumerate(zip(one, other, strict=True)):
        if bool(first) != bool(second):
            at = disk.directories[1] + 4 * index
            yield _problem(at, f"the directory and its copy differ in table {index}", consequence)
            told += 1
        elif first:
            pair = [disk.medium.read(table * SECTOR, vmdk.TABLE_SIZE) for table in (first, second)]
            if pair[0] != pair[1]:
                at = second * SECTOR + next(n for n in range(vmdk.TABLE_SIZE) if pair[0][n] != pair[1][n])
                yield _problem(at, f"grain table {index} and its copy differ", consequence)
                told += 1
        if told >= _MOST_TOLD:
            return


def stream_problems(disk: StreamVmdk) -> Iterator[Problem]:
    """Yield what is wrong with a stream: every grain and every table in its order, up to the end-of-stream marker."""
    yield from _descriptor(disk)
    if not disk.header.flags & vmdk.FLAG_MARKERS or disk.header.gd_offset != vmdk.GD_AT_END:
        yield from _grains(disk)
        return
    head = vmdk.SparseHeader.unpack(disk.medium.read(0, SECTOR))
    if disk.footer.replace(gd_offset=head.gd_offset) != head:
        what = "the footer differs from the header"
        yield _problem(disk.medium.size - 2 * SECTOR, what, "importers that read one of them see another disk")
    yield from _Stream(disk).problems()


def _grains(disk: StreamVmdk) -> Iterator[Problem]:
    """Look at every grain of a stream whose tables stand in front of it, as QEMU writes them."""
    told = 0
    for run in disk.runs():
        if run.source is not None:
            continue
        for at in range(run.offset, run.offset + run.length, disk.grain):
            try:
                disk.read_unit(at, 1)
            except ImageError as error:
                yield _problem(None, error.problem, "what stands in it cannot be read")
                told += 1
                if told >= _MOST_TOLD:
                    return


def _numbers(data: bytes, most: int) -> dict[int, int]:
    """Return the entries of a table that are not zero, by their place; of more than *most*, one more."""
    found: dict[int, int] = {}
    for match in _NOT_ZERO.finditer(data):
        number = match.start() // 4
        found.setdefault(number, int.from_bytes(data[4 * number : 4 * number + 4], "little"))
        if len(found) > most:
            break
    return found


_NOT_ZERO = re.compile(rb"[^\0]")


class _Stream:
    """Goes through a stream as an importer does, which cannot turn back."""

    def __init__(self, disk: StreamVmdk) -> None:
        self._disk = disk
        self._medium = disk.medium
        self._at = disk.header.overhead * SECTOR
        self._grains: dict[int, int] = {}
        """Where the grains stand that no table has named yet, in sectors, by number."""
        self._tables: dict[int, int] = {}
        """Where tables stand, in sectors, by number."""

    def problems(self) -> Iterator[Problem]:
        try:
            while True:
                head = vmdk.GrainHeader.unpack(self._medium.read(self._at, vmdk.GrainHeader.SIZE))
                if head.size:
                    yield from self._grain(head)
                    continue
                marker = vmdk.Marker.unpack(self._medium.read(self._at, SECTOR))
                if any(marker.pad):
                    yield _problem(self._at + 16, "a marker is not padded with zeros", "importers may refuse it")
                self._at += SECTOR
                if marker.type == vmdk.MARKER_END:
                    break
                yield from self._metadata(marker)
        except ImageError as error:
            yield _problem(self._at, error.problem, "the stream ends too soon: no importer takes it")
            return
        rest = self._medium.size - self._at
        if rest and any(self._medium.read(self._at, min(rest, 1 << 20))):
            yield _problem(self._at, "something follows the end of the stream", "importers may refuse it")

    def _grain(self, head: vmdk.GrainHeader) -> Iterator[Problem]:
        length = vmdk.GrainHeader.SIZE + head.size
        if head.lba % (self._disk.grain // SECTOR) or head.size > 2 * self._disk.grain:
            raise ImageError(f"what stands at {self._at} is no grain and no marker")
        self._grains[head.lba * SECTOR // self._disk.grain] = self._at // SECTOR
        end = round_up(length, SECTOR)
        packed = self._medium.read(self._at, min(end, self._medium.size - self._at))
        if packed[length:].strip(b"\0"):
            yield _problem(self._at + length, "a grain is not padded with zeros", "nobody reads it")
        yield from self._trailer(packed[vmdk.GrainHeader.SIZE : length])
        self._at += end

    def _trailer(self, packed: bytes) -> Iterator[Problem]:
        """Check that the data ends where the marker says: an inflater that has a whole grain looks no further."""
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(packed, self._disk.grain)
            while not inflater.eof and inflater.unconsumed_tail and len(data) <= self._disk.grain:
                data += inflater.decompress(inflater.unconsumed_tail, 1)
        except zlib.error as error:
            yield _problem(self._at, f"a grain does not decompress: {error}", "what stands in it cannot be read")
            return
        if not inflater.eof or inflater.unused_data or len(data) > self._disk.grain:
            yield _problem(self._at, "a grain's data does not end where its marker says", "importers may refuse it")

    def _metadata(self, marker: vmdk.Marker) -> Iterator[Problem]:
        start = self._at // SECTOR
        size = marker.sectors * SECTOR
        if marker.type not in (vmdk.MARKER_TABLE, vmdk.MARKER_DIRECTORY, vmdk.MARKER_FOOTER) or size > 128 << 20:
            raise ImageError(f"a marker of the unknown type {marker.type} at {self._at - SECTOR}")
        data = self._medium.read(self._at, size)
        self._at += size
        if marker.type == vmdk.MARKER_FOOTER:
            return
        numbers = _numbers(data, max(len(self._tables), vmdk.TABLE_ENTRIES))
        if marker.type == vmdk.MARKER_DIRECTORY:
            if numbers != self._tables or self._grains:
                what = "the grain directory does not name the tables of the stream"
                yield _problem(start * SECTOR, what, "readers find other grains than importers")
            return
        spans = {number // vmdk.TABLE_ENTRIES for number in self._grains}
        wanted = {number % vmdk.TABLE_ENTRIES: place for number, place in self._grains.items()}
        if len(spans) != 1 or numbers != wanted:
            what = "a grain table does not name the grains before it"
            yield _problem(start * SECTOR, what, "readers find other grains than importers")
        if len(spans) == 1:
            self._tables[spans.pop()] = start
        self._grains = {}
