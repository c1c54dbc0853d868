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
        return _grown(content, disk, found[0], padded.size) if found and padded.size != size else extents

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
        ImageError: a copy of the table is damaged, or the new end is none in the sectors it counts in.
    """
    sector = table.sector
    # A disk that has grown already has both copies whole, the backup where its end was: both move on.
    if not table.whole:
        raise ImageError(
            "its GPT is damaged, so it cannot be moved to the end of a larger disk",
            where=disk.path,
            hint="repair it first, as sgdisk does",
        )
    if size % sector:
        what = f"its GPT counts in sectors of {sector} bytes, and {size} bytes are no whole ones"
        raise ImageError(what, where=disk.path)
    primary = GptHeader.unpack(disk.read(sector, GptHeader.SIZE))
    entries = disk.read(primary.entries_lba * sector, primary.entry_count * primary.entry_size)
    sectors = -(-len(entries) // sector)
    last = size // sector - 1
    moved = primary.replace(alternate_lba=last, last_usable_lba=last - sectors - 1)
    backup = moved.replace(my_lba=last, alternate_lba=1, entries_lba=last - sectors)
    old = GptHeader.unpack(disk.read(primary.alternate_lba * sector, GptHeader.SIZE))
    ends = [(old.entries_lba * sector, sectors * sector), (primary.alternate_lba * sector, sector)]
    kept = max(2 * sector, primary.entries_lba * sector + len(entries))
    extents = [Extent(0, Literal(_protective(disk.read(0, SECTOR), primary.alternate_lba, last)), "protective MBR")]
    extents += content_extents(content.part(SECTOR, sector), SECTOR, "disk")
    extents.append(Extent(sector, Literal(_sealed(moved, sector)), "GPT"))
    position = 2 * sector
    for start, length in sorted(ends):
        taken = any(slot.offset < start + length and start < slot.end for slot in table.slots)
        if taken or start < max(kept, position):
            continue  # both headers may name the same entries, or a partition reach over where the backup was
        extents += content_extents(content.part(position, start), position, "disk")
        position = start + length
    extents += content_extents(content.part(position, content.size), position, "disk")
    tail = entries.ljust(sectors * sector, b"\0") + _sealed(backup, sector)
    return (*extents, Extent((last - sectors) * sector, Literal(tail), "backup GPT"))


def _sealed(header: GptHeader, sector: int) -> bytes:
    """Return *header* as a sector of *sector* bytes, with its CRC made anew."""
    header = header.replace(header_crc32=0, header_size=GptHeader.SIZE)
    return header.replace(header_crc32=zlib.crc32(header.pack())).pack().ljust(sector, b"\0")


def _protective(sector: bytes, was: int, last: int) -> bytes:
    """Return the MBR *sector* of a disk whose last sector *was* another: what protects it grows to *last*."""
    # Beside others (in a hybrid MBR) it may protect no more than what is in front of them.
    made = bytearray(sector)
    entries = {at: MbrEntry.unpack(sector, at) for at in range(446, 510, MbrEntry.SIZE)}
    least = 0 if sum(entry.type != 0 for entry in entries.values()) == 1 else min(was, 0xFFFFFFFF)
    for at, entry in entries.items():
        if entry.type == PROTECTIVE_MBR and entry.first_lba == 1 and entry.sectors >= least:
            made[at : at + MbrEntry.SIZE] = entry.replace(sectors=min(last, 0xFFFFFFFF)).pack()
    return bytes(made)


__all__ = ["layout_of"]
