"""The disk of an image nobody knows the bundle of, as a layout: its runs, and its partition table where it grows.

Its identity follows from its content alone, whatever the container or the holes it came in: the digest by blocks of
the whole disk (:class:`rumpbundle.disk.digest.BlockHash`).
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Self

from rumpbundle.disk.content import Content, Literal
from rumpbundle.disk.gpt import PROTECTIVE_MBR, GptHeader, MbrEntry
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.layout import SECTOR, DiskLayout, Extent, Named, content_extents
from rumpbundle.errors import ImageError
from rumpbundle.finished.origin import content_at
from rumpbundle.images.disk import Disk
from rumpbundle.images.partitions import Table, tables
from rumpbundle.images.partitions.gpt import MISPLACED

_MBR_TABLE = 446


class _Mapped(DiskLayout):
    """A disk whose content is no longer in one piece when its backup GPT has moved: it is hashed on its own then."""

    def padded(self, *, align: int = SECTOR, least: int = 0) -> Self:
        padded = super().padded(align=align, least=least)
        moved = padded.size != self.size and self.table == "gpt"
        return replace(padded, named=()) if moved else padded


def layout_of(disk: Disk) -> DiskLayout:
    """Return *disk* as it is; padded (:meth:`DiskLayout.padded`), its backup GPT stands at the new end.

    A last sector that is not whole is filled with zeros.

    Raises:
        ImageError: a table of the container is damaged.
    """
    content = content_at(disk, 0, disk.size, sparse=True)
    size = -(-disk.size // SECTOR) * SECTOR
    extents = tuple(content_extents(content, 0, "disk"))
    found = [table for table in tables(disk) if table.kind == "gpt"]

    def write_table(padded: DiskLayout) -> tuple[Extent, ...]:
        if padded.size == size:
            return extents
        return _grown(content, disk, found[0], padded.size) if found else extents

    return _Mapped(
        size=size,
        body=(),
        partitions=(),
        table="gpt" if found else "mbr",
        write_table=write_table,
        identity=Identity(content.digest),
        body_end=size,
        named=(Named(0, content),) if content.size else (),
    )


def _grown(content: Content, disk: Disk, table: Table, size: int) -> tuple[Extent, ...]:
    """Return *content* on a disk of *size* bytes: what its GPT says of the end is true of the new one.

    Raises:
        ImageError: the table is damaged, or counts in other sectors than 512 bytes.
    """
    # A disk that has grown already has both copies whole, the backup where its end was: both move on.
    damaged = any(problem.what != MISPLACED for problem in table.problems)
    if damaged or table.sector != SECTOR:
        what = "its GPT is damaged" if damaged else f"its GPT counts in sectors of {table.sector} bytes"
        raise ImageError(
            f"{what}, so it cannot be moved to the end of a larger disk",
            hint="repair it first, as sgdisk does" if damaged else "convert it to a format of its own size",
        )
    primary = GptHeader.unpack(disk.read(SECTOR, GptHeader.SIZE))
    entries = disk.read(primary.entries_lba * SECTOR, primary.entry_count * primary.entry_size)
    sectors = -(-len(entries) // SECTOR)
    last = size // SECTOR - 1
    moved = primary.replace(alternate_lba=last, last_usable_lba=last - sectors - 1)
    backup = moved.replace(my_lba=last, alternate_lba=1, entries_lba=last - sectors)
    old = GptHeader.unpack(disk.read(primary.alternate_lba * SECTOR, GptHeader.SIZE))
    ends = [(old.entries_lba * SECTOR, sectors * SECTOR), (primary.alternate_lba * SECTOR, SECTOR)]
    extents = [Extent(0, Literal(_protective(disk.read(0, SECTOR), last)), "protective MBR")]
    extents.append(Extent(SECTOR, Literal(_sealed(moved)), "GPT"))
    position = 2 * SECTOR
    for start, length in sorted(ends):
        extents += content_extents(content.part(position, start), position, "disk")
        position = start + length
    extents += content_extents(content.part(position, content.size), position, "disk")
    tail = entries.ljust(sectors * SECTOR, b"\0") + _sealed(backup)
    return (*extents, Extent((last - sectors) * SECTOR, Literal(tail), "backup GPT"))


def _sealed(header: GptHeader) -> bytes:
    """Return the sector of *header* with its CRC made anew."""
    header = header.replace(header_crc32=0, header_size=GptHeader.SIZE)
    return header.replace(header_crc32=zlib.crc32(header.pack())).pack().ljust(SECTOR, b"\0")


def _protective(sector: bytes, last: int) -> bytes:
    """Return the MBR *sector* with the protective entry over a disk whose last sector is *last*."""
    made = bytearray(sector)
    for at in range(_MBR_TABLE, _MBR_TABLE + 4 * MbrEntry.SIZE, MbrEntry.SIZE):
        entry = MbrEntry.unpack(bytes(made[at : at + MbrEntry.SIZE]))
        if entry.type == PROTECTIVE_MBR and entry.first_lba == 1:
            made[at : at + MbrEntry.SIZE] = entry.replace(sectors=min(last, 0xFFFFFFFF)).pack()
    return bytes(made)


__all__ = ["layout_of"]
