"""Read VDI, dynamic or fixed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import ClassVar

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.disk import Disk, Fact, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import vdi

_CHILDREN = {vdi.UNDO: "an undo disk", vdi.DIFFERENCING: "a differencing disk"}


class Vdi(Disk):
    """A VDI without a parent."""

    container: ClassVar[str] = "vdi"
    sector_size = SECTOR
    qemu = "vdi"

    def __init__(self, medium: Medium) -> None:
        self.header = header = vdi.Header.unpack(medium.read(0, min(medium.size, vdi.Header.SIZE)))
        if header.signature != vdi.SIGNATURE or header.version >> 16 != 1:
            raise ImageError("is no VDI of version 1")
        if header.type in _CHILDREN:
            raise ImageError(
                f"VDI: {_CHILDREN[header.type]}, which holds only what differs from a parent",
                hint="VBoxManage clonemedium makes one disk of both",
            )
        if header.type not in (vdi.DYNAMIC, vdi.FIXED):
            raise ImageError(f"VDI header: type {header.type}, expected a dynamic or fixed disk without a parent")
        size = header.block_size
        if not 4096 <= size <= 1 << 28 or size & (size - 1) or header.block_extra:
            raise ImageError(f"VDI header: blocks of {size} bytes and {header.block_extra} extra")
        if not header.disk_size:
            raise ImageError("VDI header: the disk has no bytes")
        if header.blocks * size < header.disk_size or header.blocks_offset + 4 * header.blocks > medium.size:
            raise ImageError(f"VDI header: a map of {header.blocks} blocks for a disk of {header.disk_size} bytes")
        super().__init__(medium, header.disk_size)
        if self._names_a_parent:
            self.qemu = ""  # QEMU refuses it; VirtualBox goes by the type
        self._tables = Tables(medium)

    @property
    def _names_a_parent(self) -> bool:
        return self.header.uuid_linkage != bytes(16) or self.header.uuid_parent_modify != bytes(16)

    @property
    def facts(self) -> Mapping[str, Fact]:
        kind = "dynamic" if self.header.type == vdi.DYNAMIC else "fixed"
        return {"type": kind, "uuid": str(uuid.UUID(bytes_le=self.header.uuid_create))}

    def locate(self, offset: int) -> Where:
        size = self.header.block_size
        index, at = divmod(offset, size)
        place = self.header.blocks_offset + 4 * index
        entry = self._tables.number(place, 4, "little")
        left = self.size - offset
        if entry >= vdi.ZERO:
            free = self._tables.same(place, -(-(at + left) // size), entry.to_bytes(4, "little"))
            return Where(None, min(free * size - at, left))
        return Where(self.header.data_offset + entry * size + at, min(size - at, left))

    def claims(self) -> Claims:
        return self._claimed()[0]

    def _claimed(self) -> tuple[Claims, int]:
        """Return what claims the file's bytes, and how many blocks are in use."""
        claims = Claims("VDI", self.medium.size)
        claims.add(0, vdi.Header.SIZE, "the header")
        claims.add(self.header.blocks_offset, 4 * self.header.blocks, "the block map")
        return claims, claims.add_mapped(self)

    def problems(self) -> Iterator[Problem]:
        header = self.header
        claims, used = self._claimed()
        yield from claims.problems()
        if used != header.blocks_allocated:
            what = f"the header counts {header.blocks_allocated} blocks in use, the map has {used}"
            yield _problem(what, "the next block may be put where one is, or leave a hole")
        if header.sector_size not in (0, SECTOR):
            yield _problem(f"sectors of {header.sector_size} bytes", "VirtualBox refuses it")
        if self._names_a_parent:
            yield _problem("a disk without a parent names one", "QEMU refuses it, VirtualBox may look for the parent")
        if header.header_size < _LEAST_HEADER:
            yield _problem(f"a header of {header.header_size} bytes", "VirtualBox refuses it")


_LEAST_HEADER = 348
"""Of version 1.1, up to its last UUID and without the geometry of newer ones."""


def _problem(what: str, consequence: str) -> Problem:
    return Problem(where="VDI", offset=0, what=what, consequence=consequence)
