"""Read VHD, fixed or dynamic."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk, Fact, RawDisk
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.records import vhd


class DynamicVhd(Disk):
    """A VHD that grows: a table of blocks, each behind a bitmap of its sectors.

    The bitmap is not looked at: without a parent it could only say "zero" of a sector that is zero in the file.
    """

    container = "vhd"
    qemu = "vpc"

    def __init__(self, medium: Medium, footer: vhd.Footer) -> None:
        super().__init__(medium, footer.current_size)
        self.footer = footer
        self.header = header = vhd.DynamicHeader.unpack(medium.read(footer.data_offset, vhd.DynamicHeader.SIZE))
        size = header.block_size
        if header.cookie != vhd.DynamicHeader.cookie or header.sealed() != header:
            raise ImageError("VHD: the dynamic header is damaged")
        if not 4096 <= size <= 1 << 28 or size & (size - 1) or header.blocks * size < self.size:
            raise ImageError(f"VHD: {header.blocks} blocks of {size} bytes for a disk of {self.size}")
        self._bitmap = -(-size // SECTOR // 8 // SECTOR) * SECTOR
        self._tables = Tables(medium)

    @property
    def facts(self) -> Mapping[str, Fact]:
        return _facts(self.footer, "dynamic")

    def locate(self, offset: int) -> tuple[int | None, int]:
        index, at = divmod(offset, self.header.block_size)
        sector = self._tables.number(self.header.table_offset + 4 * index, 4, "big")
        run = min(self.header.block_size - at, self.size - offset)
        return None if sector == vhd.UNUSED else sector * SECTOR + self._bitmap + at, run


class FixedVhd(RawDisk):
    """The disk itself, with a footer behind it."""

    container = "vhd (fixed)"

    def __init__(self, medium: Medium, footer: vhd.Footer) -> None:
        if footer.current_size > medium.size - SECTOR:
            raise ImageError(f"VHD: the footer speaks of {footer.current_size} bytes, there are fewer")
        super().__init__(medium, footer.current_size)
        self.footer = footer

    @property
    def facts(self) -> Mapping[str, Fact]:
        return _facts(self.footer, "fixed")


def _facts(footer: vhd.Footer, kind: str) -> Mapping[str, Fact]:
    creator = footer.creator_application.decode("ascii", "replace").strip()
    return {"type": kind, "creator": creator, "uuid": str(uuid.UUID(bytes=footer.unique_id))}


def open_vhd(medium: Medium) -> Disk:
    """Read the VHD in *medium*. Its footer counts; where that is lost, the copy at the front (as VirtualBox does)."""
    for offset in (max(medium.size // SECTOR * SECTOR - SECTOR, 0), 0):
        footer = vhd.Footer.unpack(medium.read(offset, SECTOR))
        if footer.cookie == vhd.Footer.cookie:
            break
    else:
        raise ImageError("is no VHD")
    if footer.sealed() != footer:
        raise ImageError("VHD: the footer is damaged")
    if footer.disk_type == vhd.FIXED:
        return FixedVhd(medium, footer)
    if footer.disk_type == vhd.DYNAMIC:
        return DynamicVhd(medium, footer)
    raise ImageError(f"VHD: type {footer.disk_type}, expected a fixed or dynamic disk without a parent")
