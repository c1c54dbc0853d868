"""Read qcow2 without a backing file; clusters may be compressed with zlib."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk, Fact
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.records import qcow2


class Qcow2(Disk):
    """A qcow2 image on its own."""

    container = "qcow2"
    qemu = "qcow2"

    def __init__(self, medium: Medium) -> None:
        self.header = header = qcow2.Header.unpack(medium.read(0, min(medium.size, qcow2.Header.SIZE)))
        if header.magic != qcow2.MAGIC or header.version not in (2, 3):
            raise ImageError("is no qcow2 of version 2 or 3")
        incompatible = header.incompatible if header.version == 3 else 0
        if incompatible & qcow2.INCOMPATIBLE_CORRUPT:
            raise ImageError("qcow2: marked as corrupt", hint="qemu-img check -r all may repair it")
        if incompatible & qcow2.INCOMPATIBLE_DATA_FILE:
            raise ImageError("qcow2: keeps its data in another file", hint="qemu-img convert makes one of both")
        if incompatible & ~qcow2.INCOMPATIBLE_DIRTY:
            raise ImageError(f"qcow2: uses features {incompatible:#x}, which are not supported")
        if header.encryption:
            raise ImageError("qcow2: is encrypted", hint="qemu-img convert it first")
        if header.backing_file_offset:
            length = min(header.backing_file_size, 1023, max(medium.size - header.backing_file_offset, 0))
            name = medium.read(header.backing_file_offset, length).decode("utf-8", "replace")
            raise ImageError(
                f"qcow2: has a backing file, {name}",
                hint="if that is the file it should have, qemu-img convert makes one of both",
            )
        if not 9 <= header.cluster_bits <= 21:
            raise ImageError(f"qcow2 header: clusters of 2^{header.cluster_bits} bytes")
        super().__init__(medium, header.disk_size)
        self._cluster = 1 << header.cluster_bits
        self._entries = self._cluster // 8
        needed = -(-self.size // (self._cluster * self._entries))
        if header.l1_size < needed or header.l1_offset + 8 * needed > medium.size:
            raise ImageError(f"qcow2 header: a table of {header.l1_size} entries for a disk of {self.size} bytes")
        self._tables = Tables(medium)
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {"version": self.header.version, "cluster_size": self._cluster}

    def _entry(self, offset: int) -> int:
        """Return the level 2 table's entry for byte *offset* of the disk; 0 if there is no such table."""
        cluster = offset // self._cluster
        one, two = divmod(cluster, self._entries)
        table = self._tables.number(self.header.l1_offset + 8 * one, 8, "big") & qcow2.OFFSET_MASK
        return self._tables.number(table + 8 * two, 8, "big") if table else 0

    def locate(self, offset: int) -> tuple[int | None, int]:
        at = offset % self._cluster
        run = min(self._cluster - at, self.size - offset)
        entry = self._entry(offset)
        if entry & qcow2.L2_COMPRESSED:
            raise ImageError("qcow2: a compressed cluster has no plain place")
        if entry & qcow2.L2_ZERO or not entry & qcow2.OFFSET_MASK:
            return None, run
        return (entry & qcow2.OFFSET_MASK) + at, run

    def read_unit(self, offset: int, length: int) -> bytes:
        entry = self._entry(offset)
        if not entry & qcow2.L2_COMPRESSED:
            return super().read_unit(offset, length)
        if self._last[0] != entry:
            self._last = (entry, self._inflated(entry))
        at = offset % self._cluster
        return self._last[1][at : at + min(length, self.size - offset)]

    def _inflated(self, entry: int) -> bytes:
        bits = 62 - (self.header.cluster_bits - 8)
        offset = entry & ((1 << bits) - 1)
        sectors = (entry >> bits & ((1 << (62 - bits)) - 1)) + 1
        length = min(sectors * SECTOR - offset % SECTOR, self.medium.size - offset)
        try:
            data = zlib.decompressobj(-12).decompress(self.medium.read(offset, max(length, 0)), self._cluster)
        except zlib.error as error:
            raise ImageError(f"qcow2: the cluster at {offset} does not decompress: {error}") from None
        if len(data) != self._cluster:
            raise ImageError(f"qcow2: the cluster at {offset} is too short")
        return data
