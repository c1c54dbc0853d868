"""Read partition tables: MBR with logical partitions, and GPT, with sectors of 512 to 4096 bytes."""

from __future__ import annotations

from dataclasses import replace

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium, Window
from rumpbundle.images.partitions.gpt import SECTORS, read_gpt
from rumpbundle.images.partitions.mbr import empty_mbr, read_mbr
from rumpbundle.images.partitions.table import TYPES, Slot, Table
from rumpbundle.images.problem import Problem


def tables(disk: Medium, *, thorough: bool = True) -> tuple[Table, ...]:
    """Return the partition tables of *disk*: MBR and GPT where both are; none where there is neither.

    Who is not *thorough* looks at the backup GPT only if the primary one is damaged: it stands at the end of the
    disk, and in a compressed archive that is far away.
    """
    said: int | None = getattr(disk, "sector_size", None)
    sector_size = said or SECTOR
    mbr = read_mbr(disk, sector_size)
    gpt = read_gpt(disk, mbr, sector_size, thorough=thorough)
    if gpt is not None and gpt.sector != sector_size:
        mbr = mbr and read_mbr(disk, gpt.sector)
        gpt = replace(gpt, problems=(*gpt.problems, _other_sectors(gpt, said)))
    if gpt is None and mbr is not None and (other := _sectors_of(disk, mbr)) is not None:
        mbr = replace(other, problems=(*other.problems, _other_sectors(other, said)))
    if gpt is None and mbr is None:
        mbr = empty_mbr(disk, sector_size)
    return tuple(table for table in (mbr, gpt) if table is not None)


def _sectors_of(disk: Medium, mbr: Table) -> Table | None:
    """Return *mbr* as it counts in other sectors, if only so its partitions are there and hold something known.

    An MBR does not say how large they are; what one says of a disk of 4096-byte sectors looks as if it stood nearer.
    """
    if getattr(disk, "around", ()) or _holds_something(disk, mbr):
        return None
    others = (read_mbr(disk, size) for size in SECTORS if size != mbr.sector)
    return next((table for table in others if table is not None and _holds_something(disk, table)), None)


def _holds_something(disk: Medium, table: Table) -> bool:
    """Whether all partitions of *table* are on *disk*, and one holds what is known, or damaged."""
    from rumpbundle.images.detect import file_system

    if any(slot.end > disk.size for slot in table.slots):
        return False
    try:
        windows = (Window(disk, slot.offset, slot.size) for slot in table.slots if not slot.is_container)
        return any(file_system(window) is not None for window in windows)
    except ImageError:
        return True


def _other_sectors(table: Table, said: int | None) -> Problem:
    """Return what to say of a table in other sectors than usual; the container *said* how large the disk's are."""
    kind, place = table.kind.upper(), table.sector if table.kind == "gpt" else 0
    what = f"the {kind} counts in sectors of {table.sector} bytes"
    found = f"a machine that sees sectors of {said or SECTOR} bytes finds no partitions"
    if said is None:  # who attaches a plain disk, or a qcow2, says it
        return Problem(where=kind, offset=place, what=what, consequence=found, severity="remark")
    what += f", and the container says {said}"
    return Problem(where=kind, offset=place, what=what, consequence=found)


__all__ = ["TYPES", "Slot", "Table", "tables"]
