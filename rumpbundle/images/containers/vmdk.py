"""Read VMDK: one sparse extent with its descriptor inside, plain or stream-optimised."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import ClassVar

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk, Fact
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.records import vmdk

_MAX_GRAIN = 2048  # sectors; a damaged header must not make us allocate
_MAX_DESCRIPTOR = 64 << 10
_READ_BY_QEMU = 20 * SECTOR
"""Bytes of a descriptor QEMU reads, whatever the header says (block/vmdk.c, ``DESC_SIZE``)."""
_NO_PARENT = 0xFFFFFFFF
_PARENT = re.compile(r'^\s*parentFileNameHint\s*=\s*"?([^"\n]+)|^\s*parentCID\s*=\s*"?([0-9a-f]+)', re.I | re.M)
_EXTENT = re.compile(r'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"\n]*)")?', re.I | re.M)


class SparseVmdk(Disk):
    """monolithicSparse: a directory of tables of grains."""

    container: ClassVar[str] = "vmdk"
    qemu = "vmdk"

    def __init__(self, medium: Medium) -> None:
        self.header = header = vmdk.SparseHeader.unpack(medium.read(0, min(medium.size, SECTOR)))
        if header.gd_offset == vmdk.GD_AT_END:
            # Footer marker, footer, end-of-stream marker: the last three sectors.
            at = medium.size // SECTOR * SECTOR - 2 * SECTOR
            header = vmdk.SparseHeader.unpack(medium.read(max(at, 0), SECTOR))
        if not self.header.capacity or not header.capacity:
            # QEMU takes such a header for the envelope of a list of files (block/vmdk.c, ``vmdk_open_vmdk4``).
            raise ImageError("VMDK header: a disk of no size", hint="the file is damaged, or made to mislead")
        if header.magic != vmdk.MAGIC or header.newlines != vmdk.SparseHeader.newlines:
            raise ImageError("is no sparse VMDK, or was transferred as text or cut off")
        if header.version not in (1, 2, 3):
            raise ImageError(f"is a VMDK of version {header.version}, expected 1 to 3")
        grain = header.grain_size
        if not 8 <= grain <= _MAX_GRAIN or grain & (grain - 1) or header.table_entries != vmdk.TABLE_ENTRIES:
            raise ImageError(f"VMDK header: grains of {grain} sectors, {header.table_entries} in a table")
        if header.capacity > 1 << 54:
            raise ImageError("VMDK header: the disk is larger than any")
        super().__init__(medium, header.capacity * SECTOR)
        self._directory = header
        self._grain = grain * SECTOR
        self._tables = Tables(medium)
        self._check_directory()
        _check_alone(self.descriptor)

    def _check_directory(self) -> None:
        tables = -(-self.size // (self._grain * vmdk.TABLE_ENTRIES))
        if self._directory.gd_offset * SECTOR + 4 * tables > self.medium.size:
            raise ImageError("VMDK header: the grain directory lies behind the end of the file")

    @property
    def descriptor(self) -> str:
        """The text inside, up to its padding."""
        offset, size = self.header.descriptor_offset * SECTOR, self.header.descriptor_size * SECTOR
        if not offset:
            return ""
        size = min(max(size, _READ_BY_QEMU), _MAX_DESCRIPTOR, self.medium.size - offset)
        return self.medium.read(offset, size).split(b"\0")[0].decode("utf-8", "replace")

    @property
    def facts(self) -> Mapping[str, Fact]:
        pairs = re.findall(r'^\s*([A-Za-z.]+)\s*=\s*"?([^"\n]*)"?', self.descriptor, re.MULTILINE)
        wanted = {"createType", "CID", "ddb.adapterType", "ddb.uuid.image", "ddb.virtualHWVersion"}
        return {"version": self.header.version} | {key: value for key, value in pairs if key in wanted}

    def _grain_sector(self, index: int) -> int:
        """Return the sector where grain *index* stands, 0 or 1 for none; -1 if not even its table is there."""
        entry, slot = divmod(index, vmdk.TABLE_ENTRIES)
        table = self._tables.number(self._directory.gd_offset * SECTOR + 4 * entry, 4, "little")
        if not table:
            return -1
        return self._tables.number(table * SECTOR + 4 * slot, 4, "little")

    def locate(self, offset: int) -> tuple[int | None, int]:
        index, at = divmod(offset, self._grain)
        sector = self._grain_sector(index)
        left = self.size - offset
        if sector == -1:
            span = self._grain * vmdk.TABLE_ENTRIES
            return None, min(span - offset % span, left)
        # 1 means "zeros, whatever a parent says" (VMware's and QEMU's use of a flag the technote leaves out).
        return None if sector < 2 else sector * SECTOR + at, min(self._grain - at, left)


class StreamVmdk(SparseVmdk):
    """streamOptimized: each grain is compressed."""

    container: ClassVar[str] = "vmdk (stream)"

    def __init__(self, medium: Medium) -> None:
        super().__init__(medium)
        self._last: tuple[int, bytes] = (-1, b"")
        if self._directory.compression != vmdk.COMPRESS_DEFLATE:
            raise ImageError(f"VMDK header: unknown compression {self._directory.compression}")

    def read_unit(self, offset: int, length: int) -> bytes:
        position, run = self.locate(offset)
        count = min(run, length)
        if position is None:
            return bytes(count)
        index, at = divmod(offset, self._grain)
        if self._last[0] != index:
            self._last = (index, self._inflated(index, position - at))
        return self._last[1][at : at + count]

    def _inflated(self, index: int, position: int) -> bytes:
        head = vmdk.GrainHeader.unpack(self.medium.read(position, vmdk.GrainHeader.SIZE))
        if head.lba * SECTOR != index * self._grain or head.size > 2 * self._grain:
            raise ImageError(f"VMDK: what stands at {position} is not grain {index}")
        data = self.medium.read(position + vmdk.GrainHeader.SIZE, head.size)
        try:
            grain = zlib.decompressobj().decompress(data, self._grain)
        except zlib.error as error:
            raise ImageError(f"VMDK: grain {index} does not decompress: {error}") from None
        if len(grain) < min(self._grain, self.size - index * self._grain):
            raise ImageError(f"VMDK: grain {index} is too short")
        return grain


def _check_alone(descriptor: str) -> None:
    """Raise :class:`ImageError` if the *descriptor* inside an extent says that the disk is not all in it."""
    parents = _PARENT.findall(descriptor)
    if any(name or int(cid, 16) != _NO_PARENT for name, cid in parents):
        named = "".join(f", {name}" for name, _ in parents if name)
        raise ImageError(f"VMDK: differs from a parent disk{named}", hint="merge it into its parent first")
    extents = _EXTENT.findall(descriptor)
    for kind, name in extents:
        if len(extents) > 1 or kind.upper() != "SPARSE" or re.search(r"[/\\]", name):
            raise ImageError(
                f"VMDK: its descriptor names another file ({kind} {name})",
                hint="the file is damaged, or made to mislead",
            )


def open_vmdk(medium: Medium) -> Disk:
    """Read the VMDK in *medium*."""
    header = vmdk.SparseHeader.unpack(medium.read(0, min(medium.size, SECTOR)))
    return (StreamVmdk if header.flags & vmdk.FLAG_COMPRESSED else SparseVmdk)(medium)
