"""Read VHDX without a parent and with an empty log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from uuid import UUID

from rumpbundle.disk.layout import MIB, SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.disk import Disk, Fact, Where
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem
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
        self.sector_size: int = sector
        if sector != SECTOR:
            self.qemu = ""  # it opens none of these (block/vhdx.c, vhdx_parse_metadata)
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

    def claims(self) -> Claims:
        """Return what claims the file's bytes; of tables only the parts in use."""
        claims = Claims("VHDX", self.medium.size)
        claims.add(0, vhdx.FileIdentifier.SIZE, "the identifier")
        for header, table in zip(vhdx.HEADERS, vhdx.REGION_TABLES, strict=True):
            claims.add(header, vhdx.Header.SIZE, "a header")
            claims.add(table, vhdx.REGION_TABLE_SIZE, "a region table")
        claims.add(self.header.log_offset, self.header.log_length, "the log")
        blocks = -(-self.size // self.block)
        claims.add(self.regions[vhdx.BAT][0], 8 * (blocks + (blocks - 1) // self._chunk), "the block table")
        start = self.regions[vhdx.METADATA][0]
        claims.add(
            start, vhdx.MetadataTableHead.SIZE + len(self.items) * vhdx.MetadataEntry.SIZE, "the metadata table"
        )
        for guid, place in self.items.items():
            claims.add(place, _LENGTHS.get(guid, 0), "a metadata item")
        claims.add_mapped(self)
        return claims

    def problems(self) -> Iterator[Problem]:
        yield from self.claims().problems()
        for offset in vhdx.HEADERS:
            header = vhdx.Header.unpack(self.medium.read(offset, vhdx.Header.SIZE))
            if header.signature != vhdx.Header.signature or header.sealed() != header:
                yield _problem(offset, "a header is damaged: its checksum is wrong", "the other one is the last")
        whole = [table for table in map(self._region_table, vhdx.REGION_TABLES) if table is not None]
        if len(whole) < 2 or whole[0] != whole[1]:
            bad = next((at for at in vhdx.REGION_TABLES if self._region_table(at) is None), vhdx.REGION_TABLES[1])
            yield _problem(bad, "a region table is damaged, or differs from the other", "the other one is the last")
        yield from self._metadata()
        yield from self._blocks()

    def _region_table(self, offset: int) -> bytes | None:
        table = self.medium.read(offset, vhdx.REGION_TABLE_SIZE)
        summed = table[:4] + bytes(4) + table[8:]
        right = int.from_bytes(table[4:8], "little") == vhdx.crc32c(summed)
        return table if right and table[:4] == vhdx.RegionTableHead.signature else None

    def _metadata(self) -> Iterator[Problem]:
        """Check the metadata table, which has no checksum, against what the specification says of each item."""
        start = self.regions[vhdx.METADATA][0]
        for index in range(len(self.items)):
            at = start + vhdx.MetadataTableHead.SIZE + index * vhdx.MetadataEntry.SIZE
            entry = vhdx.MetadataEntry.unpack(self.medium.read(at, vhdx.MetadataEntry.SIZE))
            guid = UUID(bytes_le=entry.guid)
            if guid not in _LENGTHS:
                required = entry.flags & _REQUIRED
                consequence = "Hyper-V refuses it" if required else "nobody reads it"
                yield _problem(at, f"a metadata item {guid}, which is not known", consequence)
            elif (entry.length, entry.flags) != (_LENGTHS[guid], _FLAGS[guid]) or entry.reserved:
                yield _problem(
                    at, f"the metadata item {guid} has another length or other flags", "Hyper-V refuses it"
                )
        for guid in _LENGTHS:
            if guid not in self.items:
                yield _problem(start, f"the metadata item {guid} is missing", "Hyper-V refuses it")
        if vhdx.PHYSICAL_SECTOR in self.items:
            size = self._item(self.medium, vhdx.PHYSICAL_SECTOR, 4)
            if size not in (512, 4096):
                place = self.items[vhdx.PHYSICAL_SECTOR]
                yield _problem(place, f"physical sectors of {size} bytes", "Hyper-V refuses it")
        parameters = self._item(self.medium, vhdx.FILE_PARAMETERS, 8) >> 32
        if parameters & ~_KNOWN_PARAMETERS:
            yield _problem(self.items[vhdx.FILE_PARAMETERS], f"file parameters {parameters:#x}", "Hyper-V refuses it")

    def _blocks(self) -> Iterator[Problem]:
        """Check the bits of the block table that have to be zero."""
        start = self.regions[vhdx.BAT][0]
        blocks = -(-self.size // self.block)
        count = blocks + (blocks - 1) // self._chunk
        if count > _MOST_CHECKED:
            return
        data = self.medium.read(start, 8 * count)
        for index in range(count):
            entry = int.from_bytes(data[8 * index : 8 * index + 8], "little")
            if entry & _RESERVED or entry & 7 in (4, 5):
                yield _problem(start + 8 * index, f"block entry {entry:#x} has no meaning", "Hyper-V refuses it")

    def unused_entries(self) -> Iterator[Problem]:
        """Yield the entries of blocks that are not there, and of bitmaps, that say more than "zeros"."""
        start = self.regions[vhdx.BAT][0]
        blocks = -(-self.size // self.block)
        count = min(blocks + (blocks - 1) // self._chunk, _MOST_CHECKED)
        data = self.medium.read(start, 8 * count)
        for index in range(count):
            entry = int.from_bytes(data[8 * index : 8 * index + 8], "little")
            of_bitmap = index % (self._chunk + 1) == self._chunk
            if entry and (of_bitmap or (entry & 7 != vhdx.BLOCK_FULLY_PRESENT and entry != vhdx.BLOCK_ZERO)):
                yield _problem(
                    start + 8 * index, f"an entry of a block that is not there says {entry:#x}", "nobody reads it"
                )


_MOST_CHECKED = 1 << 22
_RESERVED = 0xFFFF8
"""Bits of a block's entry."""
_REQUIRED = 4
_KNOWN_PARAMETERS = 3
_LENGTHS = {
    vhdx.FILE_PARAMETERS: 8,
    vhdx.DISK_SIZE: 8,
    vhdx.PAGE_83: 16,
    vhdx.SECTOR_SIZE: 4,
    vhdx.PHYSICAL_SECTOR: 4,
}
"""Bytes of every item a disk without a parent has ([MS-VHDX] 2.6.2), and the flags of its entry."""
_FLAGS = dict.fromkeys(_LENGTHS, 6) | {vhdx.FILE_PARAMETERS: 4}


def _problem(offset: int | None, what: str, consequence: str) -> Problem:
    return Problem(where="VHDX", offset=offset, what=what, consequence=consequence)


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
