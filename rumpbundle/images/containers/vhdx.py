"""Read VHDX without a parent and with an empty log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from uuid import UUID

from rumpbundle.disk.layout import MIB, SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk, Fact, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.records import vhdx

_LARGEST = 64 << 40  # bytes of a disk, by the specification
_MOST_ENTRIES = 2047  # of a region or metadata table, by the specification


class Vhdx(Disk):
    """A VHDX on its own: ``header_offset`` tells which of its two headers counts."""

    container = "vhdx"
    qemu = "vhdx"

    def __init__(self, medium: Medium) -> None:
        identifier = vhdx.FileIdentifier.unpack(medium.read(0, min(medium.size, vhdx.FileIdentifier.SIZE)))
        if identifier.signature != vhdx.FileIdentifier.signature:
            raise ImageError("is no VHDX")
        self.creator = identifier.creator.decode("utf-16-le", "replace").split("\0")[0]
        self.header_offset, self.header = _current_header(medium)
        if self.header.log_guid != bytes(16):
            raise ImageError(
                "VHDX: was not closed cleanly, its log has to be replayed", hint="qemu-img check -r all FILE does it"
            )
        self.regions = dict(_regions(medium))
        if vhdx.BAT not in self.regions or vhdx.METADATA not in self.regions:
            raise ImageError("VHDX: the region table lacks an entry")
        self.items = dict(_items(medium, self.regions[vhdx.METADATA]))
        parameters = self._item(medium, vhdx.FILE_PARAMETERS, 8)
        self.block, sector = parameters & 0xFFFFFFFF, self._item(medium, vhdx.SECTOR_SIZE, 4)
        if not MIB <= self.block <= 256 * MIB or self.block & (self.block - 1) or sector not in (512, 4096):
            raise ImageError(f"VHDX: blocks of {self.block} bytes, sectors of {sector}")
        if parameters >> 32 & vhdx.HAS_PARENT:
            raise ImageError(
                "VHDX: differs from a parent disk, of which it holds only the changes",
                hint="Merge-VHD makes one disk of both",
            )
        super().__init__(medium, self._item(medium, vhdx.DISK_SIZE, 8))
        if not self.size or self.size > _LARGEST:
            raise ImageError(f"VHDX: a disk of {self.size} bytes")
        self.sector_size = sector
        self._chunk = (sector << 23) // self.block
        self._tables = Tables(medium)
        blocks = -(-self.size // self.block)
        if 8 * (blocks + blocks // self._chunk) > self.regions[vhdx.BAT][1]:
            raise ImageError(f"VHDX: the block table is too small for a disk of {self.size} bytes")

    def _item(self, medium: Medium, guid: UUID, width: int) -> int:
        if guid not in self.items:
            raise ImageError(f"VHDX: lacks the metadata item {guid}")
        return int.from_bytes(medium.read(self.items[guid], width), "little")

    @property
    def facts(self) -> Mapping[str, Fact]:
        facts: dict[str, Fact] = {"creator": self.creator, "block_size": self.block}
        if self.sector_size != SECTOR:
            facts["sector_size"] = self.sector_size
        if vhdx.PAGE_83 in self.items:
            facts["uuid"] = str(UUID(bytes_le=self.medium.read(self.items[vhdx.PAGE_83], 16)))
        return facts

    def locate(self, offset: int) -> Where:
        index, at = divmod(offset, self.block)
        # After each chunk of blocks the table holds an entry for a bitmap.
        slot = index + index // self._chunk
        place = self.regions[vhdx.BAT][0] + 8 * slot
        entry = self._tables.number(place, 8, "little")
        left = self.size - offset
        if entry & 7 == vhdx.BLOCK_PARTIALLY_PRESENT:
            raise ImageError(f"VHDX: block {index} is partial, which only a disk with a parent can have")
        if entry & 7 == vhdx.BLOCK_FULLY_PRESENT:
            return Where((entry >> 20) * MIB + at, min(self.block - at, left))
        blocks = -(-(at + left) // self.block)
        end = slot + self._tables.same(place, blocks + blocks // self._chunk, entry.to_bytes(8, "little"))
        absent = end - end // (self._chunk + 1) - index
        return Where(None, min(max(absent, 1) * self.block - at, left))


def _current_header(medium: Medium) -> tuple[int, vhdx.Header]:
    found = []
    for offset in vhdx.HEADERS:
        header = vhdx.Header.unpack(medium.read(offset, vhdx.Header.SIZE))
        if header.signature == vhdx.Header.signature and header.sealed() == header and header.version == 1:
            found.append((header.sequence, offset, header))
    if not found:
        raise ImageError("VHDX: both headers are damaged")
    _, offset, header = max(found, key=lambda entry: entry[:2])
    return offset, header


def _regions(medium: Medium) -> Iterator[tuple[UUID, tuple[int, int]]]:
    """Yield each region's GUID, and its offset and length in bytes."""
    for offset in vhdx.REGION_TABLES:
        table = medium.read(offset, vhdx.REGION_TABLE_SIZE)
        head = vhdx.RegionTableHead.unpack(table)
        summed = table[:4] + bytes(4) + table[8:]
        if head.signature == vhdx.RegionTableHead.signature and head.checksum == vhdx.crc32c(summed):
            break
    else:
        raise ImageError("VHDX: both region tables are damaged")
    for index in range(min(head.count, _MOST_ENTRIES)):
        entry = vhdx.RegionEntry.unpack(table, head.SIZE + index * vhdx.RegionEntry.SIZE)
        guid = UUID(bytes_le=entry.guid)
        if entry.required & 1 and guid not in (vhdx.BAT, vhdx.METADATA):
            raise ImageError(f"VHDX: needs a region {guid}, which is not known")
        yield guid, (entry.offset, entry.length)


def _items(medium: Medium, region: tuple[int, int]) -> Iterator[tuple[UUID, int]]:
    """Yield each metadata item's GUID and its offset in the file."""
    table = medium.read(region[0], min(region[1], vhdx.REGION_TABLE_SIZE))
    head = vhdx.MetadataTableHead.unpack(table)
    if head.signature != vhdx.MetadataTableHead.signature or head.count > _MOST_ENTRIES:
        raise ImageError("VHDX: the metadata table is damaged")
    for index in range(head.count):
        entry = vhdx.MetadataEntry.unpack(table, head.SIZE + index * vhdx.MetadataEntry.SIZE)
        yield UUID(bytes_le=entry.guid), region[0] + entry.offset
