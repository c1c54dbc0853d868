"""Read qcow2 without a backing file; clusters may be compressed, with zlib or zstd."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError, one_line
from rumpbundle.images.compression import decoder
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.disk import Disk, Fact, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import qcow2

_MAX_L1 = 32 << 20
"""Bytes of the level 1 table, as QEMU has it."""
_WIDEST_COUNT = 6
"""The largest ``refcount_order``: counts of 64 bits (QEMU, docs/interop/qcow2.txt)."""
_FARTHEST = 1 << 56
"""Where a table can end at most."""
_SUBCLUSTERS = 32
_ALL_IN_ONE = "if that is the file it should have, qemu-img convert -O qcow2 makes one of both"
_AGAIN = "qemu-img convert -O qcow2 makes an image of it that is read"
_READ = qcow2.INCOMPATIBLE_DIRTY | qcow2.INCOMPATIBLE_CORRUPT | qcow2.INCOMPATIBLE_COMPRESSION | qcow2.INCOMPATIBLE_L2


class Qcow2(Disk):
    """A qcow2 image on its own."""

    container = "qcow2"
    qemu = "qcow2"

    def __init__(self, medium: Medium) -> None:
        self.header = header = _header(medium)
        _check_alone(medium, header)
        super().__init__(medium, header.disk_size)
        if not self.size:
            raise ImageError("qcow2: the disk has no bytes")
        self.compression = _compression(medium, header)
        self.expands = 1 << (11 if self.compression == "zlib" else 16)
        self.cluster = 1 << header.cluster_bits
        self.width = 16 if header.incompatible & qcow2.INCOMPATIBLE_L2 else 8
        self._span = self.cluster * (self.cluster // self.width)
        needed = self.least_l1_size
        if header.l1_size >= needed and medium.size < header.l1_offset + 8 * needed <= _FARTHEST:
            wanted = f"its level 1 table of {8 * needed} bytes is at {header.l1_offset}"
            raise ImageError(f"the file ends at byte {medium.size}, and {wanted}: it is cut off, or damaged")
        if header.l1_size < needed or 8 * needed > _MAX_L1 or header.l1_offset + 8 * needed > medium.size:
            raise ImageError(f"qcow2 header: a table of {header.l1_size} entries for a disk of {self.size} bytes")
        self._tables = Tables(medium)
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def facts(self) -> Mapping[str, Fact]:
        header = self.header
        facts: dict[str, Fact] = {"version": header.version, "cluster_size": self.cluster}
        if self.compression != "zlib":
            facts["compression"] = self.compression
        if self.width == 16:
            facts["extended_l2"] = "yes"
        if header.refcount_order != 4:
            facts["refcount_bits"] = 1 << header.refcount_order
        if header.snapshots:
            facts["internal_snapshots"] = f"{header.snapshots}, not read: this is the current state"
        if header.incompatible & qcow2.INCOMPATIBLE_DIRTY:
            facts["dirty"] = "yes: its reference counts may be wrong"
        if header.incompatible & qcow2.INCOMPATIBLE_CORRUPT:
            facts["corrupt"] = "yes: qemu-img check found damage in it"
        return facts

    @property
    def least_l1_size(self) -> int:
        """Entries that the level 1 table needs for a disk of this size."""
        return -(-self.size // self._span)

    @property
    def header_end(self) -> int:
        """Where the header and its extensions end."""
        end = self.header.header_length
        for _, data in self.extensions:
            end += 8 + -(-len(data) // 8) * 8
        return end

    @property
    def extensions(self) -> tuple[tuple[int, bytes], ...]:
        """Type and data of the header's extensions."""
        return tuple(_extensions(self.medium, self.header))

    @property
    def has_bitmaps(self) -> bool:
        """Whether it keeps bitmaps of what changed, and not only a mark that it does."""
        marked = bool(self.header.autoclear & qcow2.AUTOCLEAR_BITMAPS)
        return marked and qcow2.EXTENSION_BITMAPS in dict(self.extensions)

    @property
    def has_snapshots(self) -> bool:
        """Whether it keeps snapshots, and not only a number of them."""
        return bool(self.header.snapshots) and 0 < self.header.snapshots_offset < self.medium.size

    @property
    def is_unfinished(self) -> bool:
        """Whether it was not closed: then its reference counts lag behind, and QEMU mends them when it opens it."""
        lazy = self.header.compatible & qcow2.COMPATIBLE_LAZY
        return bool(lazy and self.header.incompatible & qcow2.INCOMPATIBLE_DIRTY)

    def claims(self) -> Claims:
        from rumpbundle.images.containers.qcow2_check import claims

        return claims(self)

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.containers.qcow2_check import problems

        return problems(self)

    def _l2(self, offset: int) -> int:
        """Return where the level 2 table for byte *offset* of the disk stands in the file; 0 if there is none."""
        entry = self._tables.number(self.header.l1_offset + 8 * (offset // self._span), 8, "big")
        return self._aligned(entry & qcow2.OFFSET_MASK)

    def _aligned(self, position: int) -> int:
        if position % self.cluster:
            raise ImageError(f"qcow2: a table points to {position}, where no cluster begins")
        return position

    def locate(self, offset: int) -> Where:
        left = self.size - offset
        table = self._l2(offset)
        if not table:
            index, inside = divmod(offset, self._span)
            most = -(-(inside + left) // self._span)
            absent = self._tables.same(self.header.l1_offset + 8 * index, most, bytes(8))
            return Where(None, min(max(absent, 1) * self._span - inside, left))
        index, at = divmod(offset % self._span, self.cluster)
        place = table + self.width * index
        entry = self._tables.number(place, 8, "big")
        run = min(self.cluster - at, left)
        if entry & qcow2.L2_COMPRESSED:
            return Where(entry, run, packed=True)
        host = self._aligned(entry & qcow2.OFFSET_MASK)
        if self.width == 16:
            return self._subclusters(host, self._tables.number(place + 8, 8, "big"), at, run)
        if not host or (entry & qcow2.L2_ZERO and self.header.version > 2):
            absent = self._tables.same(place, self.cluster // 8 - index, entry.to_bytes(8, "big"))
            return Where(None, min(max(absent, 1) * self.cluster - at, left))
        return Where(host + at, run)

    def _subclusters(self, host: int, bitmap: int, at: int, run: int) -> Where:
        """Return where byte *at* of a cluster is, whose parts are there (*bitmap*'s low bits) or zero (high)."""
        if bitmap >> _SUBCLUSTERS & bitmap or (bitmap & 0xFFFFFFFF and not host):
            raise ImageError(f"qcow2: the subclusters at {host} are marked as data and as zeros at once")
        size = self.cluster // _SUBCLUSTERS
        first = at // size
        there = bitmap >> first & 1
        last = first
        while last < _SUBCLUSTERS and bitmap >> last & 1 == there:
            last += 1
        return Where(host + at if there else None, min(last * size - at, run))

    def read_unit(self, offset: int, length: int) -> bytes:
        entry, run, packed = self.locate(offset)
        if not packed or entry is None:
            return bytes(min(run, length)) if entry is None else self.medium.read(entry, min(run, length))
        if self._last[0] != entry:
            self._last = (entry, self._inflated(entry))
        at = offset % self.cluster
        return self._last[1][at : at + min(length, run)]

    def packed_place(self, position: int) -> tuple[int, int]:
        bits = 62 - (self.header.cluster_bits - 8)  # what locate() finds is the entry of the table
        offset = position & ((1 << bits) - 1)
        sectors = (position >> bits & ((1 << (62 - bits)) - 1)) + 1
        return offset, sectors * SECTOR - offset % SECTOR

    def _inflated(self, entry: int) -> bytes:
        offset, length = self.packed_place(entry)
        length = min(length, self.medium.size - offset)
        packed = self.medium.read(offset, max(length, 0))
        try:
            if self.compression == "zlib":
                data = zlib.decompressobj(-12).decompress(packed, self.cluster)
            else:
                data = decoder("zstd").decompress(packed, self.cluster)
        except zlib.error as error:
            raise ImageError(f"qcow2: the cluster at {offset} does not decompress: {error}") from None
        if len(data) != self.cluster:
            raise ImageError(f"qcow2: the cluster at {offset} is too short")
        return data


def _header(medium: Medium) -> qcow2.Header:
    header = qcow2.Header.unpack(medium.read(0, min(medium.size, qcow2.Header.SIZE)))
    if header.magic == qcow2.MAGIC and header.version == 1:
        raise ImageError("is a qcow image of version 1, which is not read", hint="qemu-img convert -O qcow2 it first")
    if header.magic != qcow2.MAGIC or header.version not in (2, 3):
        raise ImageError("is no qcow2 of version 2 or 3")
    if not 9 <= header.cluster_bits <= 21:
        raise ImageError(f"qcow2 header: clusters of 2^{header.cluster_bits} bytes")
    if header.version == 3 and header.refcount_order > _WIDEST_COUNT:
        raise ImageError(f"qcow2 header: reference counts of 2^{header.refcount_order} bits")
    if header.version == 2:  # whose header ends before these
        return header.replace(incompatible=0, compatible=0, autoclear=0, refcount_order=4, header_length=72)
    return header


def _check_alone(medium: Medium, header: qcow2.Header) -> None:
    """Raise :class:`ImageError` if *medium* is not the whole image, or one that cannot be read."""
    if header.backing_file_offset:
        length = min(header.backing_file_size, 1023, max(medium.size - header.backing_file_offset, 0))
        name = medium.read(header.backing_file_offset, length)
        raise ImageError(f"qcow2: has a backing file, {_shown(name)}", hint=_ALL_IN_ONE)
    if header.incompatible & qcow2.INCOMPATIBLE_DATA_FILE:
        name = dict(_extensions(medium, header)).get(qcow2.EXTENSION_DATA_FILE, b"")
        raise ImageError(f"qcow2: keeps its data in another file, {_shown(name)}", hint=_ALL_IN_ONE)
    if header.encryption:
        kind = {1: "AES", 2: "LUKS"}.get(header.encryption, f"method {header.encryption}")
        raise ImageError(
            f"qcow2: is encrypted ({kind})", hint="qemu-img convert with its --object secret decrypts it"
        )
    if header.incompatible & ~_READ:
        raise ImageError(f"qcow2: uses features {header.incompatible & ~_READ:#x}, which are not known")


def _shown(name: bytes) -> str:
    return one_line(name.decode("utf-8", "surrogateescape")) or "without a name"


def _extensions(medium: Medium, header: qcow2.Header) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of the header's extensions, which stand behind it in the first cluster.

    Raises:
        ImageError: one does not end there.
    """
    data = medium.read(0, min(medium.size, 1 << header.cluster_bits, 64 << 10))
    at = header.header_length
    while at + 8 <= len(data):
        kind, length = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        if not kind:
            return
        if at + 8 + length > len(data):
            raise ImageError(f"qcow2: a header extension of {length} bytes is longer than the header's cluster")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + -(-length // 8) * 8


def _compression(medium: Medium, header: qcow2.Header) -> str:
    if not header.incompatible & qcow2.INCOMPATIBLE_COMPRESSION:
        return "zlib"
    kind = medium.read(qcow2.Header.SIZE, 1)[0] if header.header_length > qcow2.Header.SIZE else 0
    if kind > 1:
        raise ImageError(f"qcow2: clusters compressed by method {kind}, which is not known", hint=_AGAIN)
    return ("zlib", "zstd")[kind]
