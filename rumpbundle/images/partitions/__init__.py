"""Read partition tables: MBR with logical partitions, and GPT, with sectors of 512 to 4096 bytes."""

from __future__ import annotations

from dataclasses import replace

from rumpbundle.disk.layout import SECTOR
from rumpbundle.images.medium import Medium
from rumpbundle.images.partitions.gpt import read_gpt
from rumpbundle.images.partitions.mbr import read_mbr
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
    return tuple(table for table in (mbr, gpt) if table is not None)


def _other_sectors(table: Table, said: int | None) -> Problem:
    """Return what to say of a GPT in other sectors than usual, on a disk whose container *said* how large its are."""
    what = f"the GPT counts in sectors of {table.sector} bytes"
    found = f"a machine that sees sectors of {said or SECTOR} bytes finds no partitions"
    if said is None:  # who attaches a plain disk, or a qcow2, says it
        return Problem(where="GPT", offset=table.sector, what=what, consequence=found, severity="remark")
    what += f", and the container says {said}"
    return Problem(where="GPT", offset=table.sector, what=what, consequence=found)


__all__ = ["TYPES", "Slot", "Table", "tables"]
