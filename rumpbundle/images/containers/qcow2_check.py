"""What is wrong with a qcow2: reference counts that its tables do not bear out, flags that are wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.problem import Problem, Severity
from rumpbundle.images.records import qcow2

if TYPE_CHECKING:
    from rumpbundle.images.containers.qcow2 import Qcow2

_MOST_CLUSTERS = 1 << 26
"""Clusters (a byte of memory each) up to which counts are compared."""
_MOST_TABLES = 1 << 17
_MOST_TABLE = 32 << 20
"""Bytes of a table of tables."""
_MOST_COUNTS = 1 << 26
"""Reference counts that are compared: a table may name one block again and again."""
_MOST_NOTED = 1 << 18
_MOST_TOLD = 16
_COPIED = 1 << 63
_L1_RESERVED = 0x7F00_0000_0000_01FF
_L2_RESERVED = 0x3F00_0000_0000_01FE
LATER = "a program that used the image has left that; qemu-img check compares them"
"""What comes of what no damage leaves behind."""


def _problem(offset: int | None, what: str, consequence: str, severity: Severity = "damage") -> Problem:
    return Problem(where="qcow2", offset=offset, what=what, consequence=consequence, severity=severity)


def problems(disk: Qcow2) -> Iterator[Problem]:
    """Yield what is wrong with *disk*, with offsets of its file."""
    header = disk.header
    if header.incompatible & qcow2.INCOMPATIBLE_CORRUPT:
        yield _problem(72, "it is marked as corrupt", "QEMU opens it only to read")
    typed = header.header_length > qcow2.Header.SIZE and disk.medium.read(qcow2.Header.SIZE, 1) != b"\0"
    if typed and not header.incompatible & qcow2.INCOMPATIBLE_COMPRESSION:
        yield _problem(qcow2.Header.SIZE, "a type of compression without the mark for it", "QEMU refuses it")
    bitmaps = header.autoclear & qcow2.AUTOCLEAR_BITMAPS
    if header.compatible & ~qcow2.COMPATIBLE_LAZY or header.autoclear & ~qcow2.AUTOCLEAR_BITMAPS:
        what = f"features {header.compatible:#x} and {header.autoclear:#x} are marked that are not known here"
        yield _problem(80, what, "what they mean was not looked at", "remark")
    if header.disk_size % SECTOR:
        what = f"its disk has {header.disk_size} bytes, which are no whole sectors"
        yield _problem(24, what, "QEMU leaves out the last of them", "remark")
    if header.backing_file_size:
        yield _problem(16, "the name of a backing file without a place", "QEMU may refuse it")
    if header.snapshots or bitmaps or header.incompatible & qcow2.INCOMPATIBLE_DIRTY:
        owns = "it has snapshots" if header.snapshots else "it has bitmaps of what changed"
        what = owns if header.snapshots or bitmaps else "it was not closed cleanly"
        later = disk.has_snapshots or disk.has_bitmaps or disk.is_unfinished
        comes = LATER if later else "qemu-img check does"
        yield _problem(None, f"{what}, so its reference counts were not compared", comes, "remark")
        return
    yield from _Counts(disk).problems()


def claims(disk: Qcow2) -> Claims:
    """Return what claims the bytes of *disk*'s file; of tables only the parts in use."""
    header, cluster = disk.header, disk.cluster
    found = Claims("qcow2", disk.medium.size)
    if max(header.refcount_table_clusters * cluster, 8 * header.l1_size) > _MOST_TABLE:
        found.whole = False
        return found
    found.add(0, disk.header_end, "the header")
    found.add(header.l1_offset, 8 * header.l1_size, "the level 1 table")
    found.add(header.refcount_table_offset, header.refcount_table_clusters * cluster, "the table of reference counts")
    data = disk.medium.read(header.refcount_table_offset, header.refcount_table_clusters * cluster)
    for (block,) in struct.iter_unpack(">Q", data):
        if block & ~511:
            found.add(block & ~511, cluster, "reference counts")
    for (entry,) in struct.iter_unpack(">Q", disk.medium.read(header.l1_offset, 8 * header.l1_size)):
        if entry & qcow2.OFFSET_MASK:
            found.add(entry & qcow2.OFFSET_MASK, cluster, "a level 2 table")
    found.add_mapped(disk, "a cluster")
    return found


class _Counts:
    """Counts how often the tables take each cluster, and compares that with what the file says."""

    def __init__(self, disk: Qcow2) -> None:
        self._disk = disk
        self._cluster = disk.cluster
        self._total = -(-disk.medium.size // disk.cluster)
        self._counts = bytearray(min(self._total, _MOST_CLUSTERS))
        self._found: list[Problem] = []
        self._entries: list[tuple[int, int]] = []
        """Cluster and place of the entry, of those that say that they are the only ones, or that they are not."""

    def problems(self) -> Iterator[Problem]:
        disk, header = self._disk, self._disk.header
        tables = (header.refcount_table_clusters * self._cluster, 8 * header.l1_size)
        if self._total > _MOST_CLUSTERS or max(tables) > _MOST_TABLE:
            yield _problem(None, "its reference counts are too many to be compared", "qemu-img check does", "remark")
            return
        self._take(0, self._cluster, 0)
        self._take(header.l1_offset, max(8 * header.l1_size, 1), 40)
        self._take(header.refcount_table_offset, header.refcount_table_clusters * self._cluster, 48)
        size = header.refcount_table_clusters * self._cluster
        table = [entry for (entry,) in struct.iter_unpack(">Q", disk.medium.read(header.refcount_table_offset, size))]
        for index, entry in enumerate(table):
            if entry:
                self._take(entry, self._cluster, header.refcount_table_offset + 8 * index)
        yield from self._level1()
        yield from self._found[:_MOST_TOLD]
        yield from self._compared(table)

    def _take(self, start: int, length: int, entry_at: int, *, packed: bool = False) -> bool:
        """Count the clusters of *length* bytes from *start*, which the number at *entry_at* names.

        What is *packed* begins anywhere.
        """
        first, last = start // self._cluster, (start + length - 1) // self._cluster
        if not 0 <= first <= last < self._total or (not packed and start % self._cluster):
            if len(self._found) < _MOST_TOLD:
                what = f"an entry names {start}, where no cluster of the file begins"
                if last >= self._total and (packed or not start % self._cluster):
                    what = f"an entry names {start}, and the file ends before, at byte {self._disk.medium.size}"
                self._found.append(_problem(entry_at, what, "what stands there cannot be read"))
            return False
        fresh = True
        for cluster in range(first, last + 1):
            fresh = fresh and not self._counts[cluster]
            self._counts[cluster] = min(self._counts[cluster] + 1, 255)
        return fresh

    def _level1(self) -> Iterator[Problem]:
        header = self._disk.header
        level1 = self._disk.medium.read(header.l1_offset, 8 * header.l1_size)
        done = 0
        for index, (entry,) in enumerate(struct.iter_unpack(">Q", level1)):
            at = header.l1_offset + 8 * index
            if entry & _L1_RESERVED and len(self._found) < _MOST_TOLD:
                self._found.append(_problem(at, f"entry {entry:#x} has bits that must be zero", "QEMU refuses it"))
            table = entry & qcow2.OFFSET_MASK
            if not table:
                continue
            if self._take(table, self._cluster, at):
                done += 1
                if done > _MOST_TABLES:
                    what = "it has more tables than are compared"
                    yield _problem(None, what, "qemu-img check compares all", "remark")
                    return
                self._level2(table)
            self._note(entry, table, at)

    def _note(self, entry: int, place: int, at: int) -> None:
        cluster = place // self._cluster
        if len(self._entries) >= _MOST_NOTED or cluster >= self._total:
            return
        if bool(entry & _COPIED) != (self._counts[cluster] == 1):
            self._entries.append((cluster, at))

    def _level2(self, table: int) -> None:
        disk = self._disk
        width = disk.width
        data = disk.medium.read(table, self._cluster)
        if data.count(0) == len(data):
            return
        for index in range(self._cluster // width):
            (entry,) = struct.unpack_from(">Q", data, index * width)
            at = table + index * width
            if not entry:
                continue
            if entry & qcow2.L2_COMPRESSED:
                start, length = disk.packed_place(entry)
                self._take(start, min(length, disk.medium.size - start), at, packed=True)
                continue
            if entry & (_L2_RESERVED | (1 if width == 16 else 0)) and len(self._found) < _MOST_TOLD:
                self._found.append(_problem(at, f"entry {entry:#x} has bits that must be zero", "QEMU refuses it"))
            place = entry & qcow2.OFFSET_MASK
            if place:
                self._take(place, self._cluster, at)
                self._note(entry, place, at)
            elif entry & _COPIED and len(self._found) < _MOST_TOLD:
                self._found.append(_problem(at, f"entry {entry:#x} has no place and owns it", "QEMU refuses it"))

    def _compared(self, table: list[int]) -> Iterator[Problem]:
        told = 0
        for cluster, at in self._entries:
            # Only now is it known how often each is taken.
            (entry,) = struct.unpack(">Q", self._disk.medium.read(at, 8))
            if bool(entry & _COPIED) != (self._counts[cluster] == 1):
                what = (
                    "an entry says of its cluster that nothing else takes it, or that something does; that is wrong"
                )
                yield _problem(at, what, "QEMU refuses to write, or damages what else takes it")
                told += 1
                if told >= _MOST_TOLD:
                    return
        bits = 1 << self._disk.header.refcount_order
        per_block = self._cluster * 8 // bits
        compared = 0
        for index, block in enumerate(table):
            first = index * per_block
            if not block and first >= self._total:
                continue
            compared += per_block
            if compared > max(_MOST_COUNTS, 2 * self._total):
                yield _problem(
                    None, "it has more reference counts than are compared", "qemu-img check does", "remark"
                )
                return
            counts = self._counts[first : first + per_block]
            said = self._said(block, bits) if block else [0] * len(counts)
            if said is None:
                continue
            counted = [*counts, *[0] * (len(said) - len(counts))]
            if said == counted:
                continue
            for number, (one, other) in enumerate(zip(said, counted, strict=True)):
                if one != other and other < 255:
                    yield self._differs(first + number, one, other, block + number * bits // 8 if block else None)
                    told += 1
                    if told >= _MOST_TOLD:
                        return

    def _said(self, block: int, bits: int) -> list[int] | None:
        try:
            data = self._disk.medium.read(block, self._cluster)
        except ImageError:
            return None  # told already
        if bits >= 8:
            code = {8: "B", 16: "H", 32: "I", 64: "Q"}[bits]
            return [number for (number,) in struct.iter_unpack(f">{code}", data)]
        mask = (1 << bits) - 1
        return [byte >> shift & mask for byte in data for shift in range(0, 8, bits)]

    def _differs(self, cluster: int, said: int, counted: int, at: int | None) -> Problem:
        what = f"cluster {cluster} is said to be taken {said} times, it is {counted} times"
        if said < counted:
            return _problem(at, what, "the next write may go where something stands")
        return _problem(at, what, "its room is lost", "remark")
