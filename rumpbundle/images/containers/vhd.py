"""Read VHD, fixed or dynamic."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from functools import partial

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.disk import Disk, Fact, RawDisk, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import vhd

_FREE = b"\xff" * 4


class DynamicVhd(Disk):
    """A VHD that grows: a table of blocks, each behind a bitmap of its sectors.

    The bitmap is not looked at: without a parent it could only say "zero" of a sector that is zero in the file.
    """

    container = "vhd"
    sector_size = SECTOR
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

    def locate(self, offset: int) -> Where:
        size = self.header.block_size
        index, at = divmod(offset, size)
        place = self.header.table_offset + 4 * index
        sector = self._tables.number(place, 4, "big")
        left = self.size - offset
        if sector == vhd.UNUSED:
            unused = self._tables.same(place, -(-(at + left) // size), _FREE)
            return Where(None, min(unused * size - at, left))
        return Where(sector * SECTOR + self._bitmap + at, min(size - at, left))

    def claims(self) -> Claims:
        claims = Claims("VHD", self.medium.size)
        claims.add(0, vhd.Footer.SIZE, "the copy of the footer")
        claims.add(self.footer.data_offset, vhd.DynamicHeader.SIZE, "the dynamic header")
        table = -(-4 * self.header.blocks // SECTOR) * SECTOR  # filled up to whole sectors
        claims.add(self.header.table_offset, table, "the block table")
        for _, position, _ in claims.mapped(self):
            # Each block is there whole, also the last of a disk that ends within it.
            claims.add(position - self._bitmap, self._bitmap + self.header.block_size, "a block")
        claims.add((self.medium.size - 1) // SECTOR * SECTOR, vhd.Footer.SIZE, "the footer")
        return claims

    def problems(self) -> Iterator[Problem]:
        shared = list(self.claims().problems())
        yield from shared
        yield from _footers(self.medium, self.footer)
        if any(problem.severity == "damage" for problem in shared):
            return  # the table may name one block again and again
        for offset, position, _ in Claims("VHD", 0).mapped(self):
            start = position - self._bitmap
            if start < 0 or position > self.medium.size:
                continue  # told already
            for sector in _cleared(self.medium.read(start, self._bitmap), self.header.block_size // SECTOR):
                at = position + sector * SECTOR
                if any(self.medium.read(at, min(SECTOR, max(self.medium.size - at, 0)))):
                    what = f"the bitmap of block {offset // self.header.block_size} leaves out what holds something"
                    yield _problem(start + sector // 8, what, "readers that go by it see zeros there")
                    break

    def bitmaps(self) -> Iterator[Problem]:
        """Yield the bitmaps that leave out a sector, which no writer of whole disks lets them do."""
        for _, position, _ in Claims("VHD", 0).mapped(self):
            start = max(position - self._bitmap, 0)
            wanted = (b"\xff" * (self.header.block_size // SECTOR // 8)).ljust(self._bitmap, b"\0")
            found = self.medium.read(start, min(self._bitmap, self.medium.size - start))
            if found != wanted:
                at = start + next((n for n in range(len(found)) if found[n] != wanted[n]), 0)
                yield _problem(at, "a bitmap leaves out sectors", "readers that go by it see zeros there")


def _cleared(bitmap: bytes, sectors: int) -> Iterator[int]:
    """Yield the sectors of a block that *bitmap* leaves out."""
    whole = sectors // 8
    if bitmap[:whole] == b"\xff" * whole:
        return
    for index in range(whole):
        if bitmap[index] != 0xFF:
            for bit in range(8):
                if not bitmap[index] & 0x80 >> bit:
                    yield 8 * index + bit


def _problem(offset: int | None, what: str, consequence: str) -> Problem:
    return Problem(where="VHD", offset=offset, what=what, consequence=consequence)


def _footers(medium: Medium, footer: vhd.Footer) -> Iterator[Problem]:
    """Compare *footer* with that at the end, and with the copy in front that a dynamic disk has."""
    end = max((medium.size - 1) // SECTOR * SECTOR, 0)
    places = [(end, "the footer", "Hyper-V and Azure refuse the disk")]
    if footer.disk_type == vhd.DYNAMIC:
        places.append((0, "the copy of the footer", "a disk that is cut off can no longer be repaired"))
    for at, what, consequence in places:
        found = medium.read(at, min(vhd.Footer.SIZE, medium.size - at)).ljust(vhd.Footer.SIZE, b"\0")
        if found != footer.pack():
            damaged = vhd.Footer.unpack(found).sealed().pack() != found or not found.startswith(vhd.Footer.cookie)
            how = "is damaged: its checksum is wrong" if damaged else "differs from the other"
            yield _problem(at, f"{what} {how}", consequence)


class FixedVhd(RawDisk):
    """The disk itself, with a footer behind it."""

    container = "vhd (fixed)"
    sector_size = SECTOR

    def __init__(self, medium: Medium, footer: vhd.Footer) -> None:
        if footer.current_size > (medium.size - 1) // SECTOR * SECTOR:
            raise ImageError(f"VHD: the footer says {footer.current_size} bytes, and the file has fewer")
        super().__init__(medium, footer.current_size)
        self.footer = footer

    @property
    def facts(self) -> Mapping[str, Fact]:
        return _facts(self.footer, "fixed")

    def problems(self) -> Iterator[Problem]:
        yield from _footers(self.medium, self.footer)


def _facts(footer: vhd.Footer, kind: str) -> Mapping[str, Fact]:
    creator = footer.creator_application.decode("ascii", "replace").strip()
    return {"type": kind, "creator": creator, "uuid": str(uuid.UUID(bytes=footer.unique_id))}


def _places(size: int) -> tuple[int, ...]:
    """Return where a footer may stand in a file of *size* bytes: at its end, else, of a dynamic disk, in front.

    Virtual PC before 2004 wrote footers of 511 bytes (Microsoft's specification, "Hard Disk Footer Format").
    """
    return tuple(
        {at: None for at in (size - SECTOR, size - SECTOR + 1, size // SECTOR * SECTOR - SECTOR, 0) if at >= 0}
    )


def has_footer(medium: Medium) -> bool:
    """Return whether *medium* ends with a VHD's footer."""
    return any(_footer(medium, at) is not None for at in _places(medium.size) if at)


def _footer(medium: Medium, at: int) -> vhd.Footer | None:
    if medium.size < at + vhd.Footer.SIZE - 1:
        return None
    data = medium.read(at, min(vhd.Footer.SIZE, medium.size - at))
    return vhd.Footer.unpack(data.ljust(vhd.Footer.SIZE, b"\0")) if data.startswith(vhd.Footer.cookie) else None


def open_vhd(medium: Medium) -> Disk:
    """Read the VHD in *medium*. Its footer counts; where that is lost, the copy at the front (as VirtualBox does)."""
    found = [footer for footer in map(partial(_footer, medium), _places(medium.size)) if footer is not None]
    if not found:
        raise ImageError("is no VHD")
    footer = next((each for each in found if each.sealed() == each), None)
    if footer is None:
        raise ImageError("VHD: the footer is damaged")
    if not footer.current_size:
        raise ImageError("VHD: the disk has no bytes")
    if footer.disk_type == vhd.DIFFERENCING:
        raise ImageError(
            "VHD: holds only what differs from a parent disk", hint="Merge-VHD or vhd-util coalesce makes one of both"
        )
    if footer.disk_type == vhd.FIXED:
        return FixedVhd(medium, footer)
    if footer.disk_type == vhd.DYNAMIC:
        return DynamicVhd(medium, footer)
    raise ImageError(f"VHD: type {footer.disk_type}, expected a fixed or dynamic disk without a parent")
