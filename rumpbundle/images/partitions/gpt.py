"""Read the GPT: two copies of one table, at both ends of the disk (UEFI 2.10 §5)."""

from __future__ import annotations

import uuid
import zlib

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.gpt import ENTRIES_BYTES, GptEntry, GptHeader
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium
from rumpbundle.images.partitions.table import Slot, Table, TableRegion, misplaced
from rumpbundle.images.problem import Problem, Severity

_SIGNATURE = b"EFI PART"
SECTORS = (512, 1024, 2048, 4096)
"""Bytes of the blocks disks count in: those of Linux' block layer."""
_MAX_ENTRY = 4096
_MAX_TABLE = 2 << 20
"""Bytes of an entry, and of all of them: `sgdisk -S` makes large tables, too."""
_MISPLACED = "the backup GPT is not at the end of the disk"
"""What is wrong with a table whose disk has grown."""
_NO_BACKUP = "firmware that finds the primary damaged finds no partitions"
_NO_PRIMARY = "firmware and kernels that do not look at the backup find no partitions"


@dataclass(frozen=True, slots=True)
class _Copy:
    offset: int
    header: GptHeader
    slots: tuple[Slot, ...]
    reversed: tuple[int, ...]
    """The numbers of partitions that end before they begin."""
    entries: range
    """The bytes of the disk in which its entries stand."""


def read_gpt(disk: Medium, mbr: Table | None, sector_size: int, *, thorough: bool) -> Table | None:
    """Return the GPT of *disk*, from whichever copy is whole; without partitions if it is announced and damaged.

    Who is not *thorough* looks at the backup only if the primary is damaged: it stands at the end of the disk, and in
    a compressed archive that is far away.
    """
    protective = next((slot for slot in mbr.slots if slot.type == "ee"), None) if mbr is not None else None
    size = _sector_size(disk, sector_size, both_ends=thorough or protective is not None)
    if protective is None and (mbr is not None or size is None):
        return None  # what a GPT without its protective MBR says counts for nobody, if there is another table
    size = size or sector_size
    problems: list[Problem] = []
    primary = _copy(disk, size, size, "primary", _NO_PRIMARY, problems)
    last = disk.size // size * size - size
    backup = None
    if thorough or primary is None:
        backup = _backup(disk, size, last, primary, protective, problems)
    if protective is None:
        problems.append(_problem(0, "the protective MBR is missing", "who looks there takes the disk for empty"))
    found = primary or backup
    if found is None:
        regions = _regions(size, last, None, None)
        return Table(kind="gpt", id="", slots=(), problems=tuple(problems), sector=size, whole=False, regions=regions)
    alike = primary is None or backup is None or _same(primary, backup)
    if primary is not None and primary.header.alternate_lba * size != last:
        # A disk that was made larger is whole: its first boot, or sgdisk -e, moves the backup.
        if backup is not None and alike:
            problems.append(_problem(last, _MISPLACED, "the disk was made larger; sgdisk -e moves it", "remark"))
        else:
            problems.append(_problem(last, _MISPLACED, _NO_BACKUP))
    if not alike:
        assert backup is not None
        what = "the backup GPT has other partitions than the primary"
        problems.append(_problem(backup.offset, what, "one of them is stale; who repairs the other takes it over"))
    for number in found.reversed:
        problems.append(_problem(found.offset, f"partition {number} ends before it begins", "nobody finds it"))
    problems += misplaced("GPT", found.slots, disk.size, found.offset)
    return Table(
        kind="gpt",
        id=str(uuid.UUID(bytes_le=found.header.disk_guid)),
        slots=found.slots,
        problems=tuple(problems),
        sector=size,
        whole=primary is not None and backup is not None and alike,
        regions=_regions(size, last, primary, backup),
    )


def _regions(size: int, last: int, primary: _Copy | None, backup: _Copy | None) -> tuple[TableRegion, ...]:
    """Return where both copies stand; where one was not read, as everybody places it."""
    front = max(2 * size + ENTRIES_BYTES, 0 if primary is None else primary.entries.stop)
    start, end = (last - ENTRIES_BYTES, last + size)
    if backup is not None:
        start, end = min(backup.entries.start, backup.offset), max(backup.entries.stop, backup.offset + size)
    return (0, front, "MBR and GPT"), (start, end, "backup GPT")


def _sector_size(disk: Medium, likely: int, *, both_ends: bool) -> int | None:
    """Return the size of the sectors in which a header is found; *likely* is looked for first."""
    sizes = sorted(SECTORS, key=lambda size: size != likely)
    for at_end in (False, True) if both_ends else (False,):
        for size in sizes:
            at = disk.size // size * size - size if at_end else size
            if 0 < at <= disk.size - size and disk.read(at, 8) == _SIGNATURE:
                return size
    return None


def _backup(
    disk: Medium, size: int, last: int, primary: _Copy | None, protective: Slot | None, problems: list[Problem]
) -> _Copy | None:
    """Return the backup: at the end of the disk, or where that was before the disk grew."""
    places = [last]
    if primary is not None:
        places.append(primary.header.alternate_lba * size)
    elif protective is not None:
        places.append(protective.size // _unit_of(protective) * size)
    for place in places:
        if size < place <= disk.size - size and disk.read(place, 8) == _SIGNATURE:
            if place != last and primary is None:
                problems.append(_problem(last, _MISPLACED, "firmware does not find it: the disk has grown"))
            return _copy(disk, size, place, "backup", _NO_BACKUP, problems)
    return _copy(disk, size, last, "backup", _NO_BACKUP, problems)


def _unit_of(slot: Slot) -> int:
    """Return the size of the sectors in which *slot*, the protective partition, counts: it begins at the second."""
    return slot.offset or 512


def _same(one: _Copy, other: _Copy) -> bool:
    return one.slots == other.slots and one.header.disk_guid == other.header.disk_guid


def _problem(offset: int, what: str, consequence: str, severity: Severity = "damage") -> Problem:
    return Problem(where="GPT", offset=offset, what=what, consequence=consequence, severity=severity)


def _copy(disk: Medium, size: int, at: int, which: str, consequence: str, problems: list[Problem]) -> _Copy | None:
    """Return the copy whose header stands at byte *at*; None, with the reason in *problems*, if it is damaged."""
    try:
        return _read(disk, size, at)
    except ImageError as error:
        problems.append(_problem(at, f"the {which} GPT {error.problem}", consequence))
        return None


def _read(disk: Medium, size: int, at: int) -> _Copy:
    try:
        raw = disk.read(at, size)
    except ImageError:
        raise ImageError("is missing") from None
    header = GptHeader.unpack(raw)
    if header.signature != _SIGNATURE or not 92 <= header.header_size <= size:
        raise ImageError("is missing")
    summed = bytearray(raw[: header.header_size])
    summed[16:20] = bytes(4)
    if zlib.crc32(summed) != header.header_crc32:
        raise ImageError("has a wrong checksum")
    entry_size, count = header.entry_size, header.entry_count
    if not 128 <= entry_size <= _MAX_ENTRY or entry_size * count > _MAX_TABLE:
        raise ImageError(f"has {count} entries of {entry_size} bytes")
    if header.my_lba * size != at:
        raise ImageError(f"says that it stands at block {header.my_lba}")
    entries = disk.read(header.entries_lba * size, entry_size * count)
    if zlib.crc32(entries) != header.entries_crc32:
        raise ImageError("has entries with a wrong checksum")
    unused = bytes(16)
    numbers = (number for number in range(count) if not entries.startswith(unused, number * entry_size))
    slots = [_slot(number + 1, GptEntry.unpack(entries, number * entry_size), size) for number in numbers]
    return _Copy(
        at,
        header,
        tuple(slot for slot in slots if slot.size > 0),
        tuple(slot.number for slot in slots if slot.size <= 0),
        range(header.entries_lba * size, header.entries_lba * size + len(entries)),
    )


def _slot(number: int, entry: GptEntry, size: int) -> Slot:
    return Slot(
        number=number,
        type=str(uuid.UUID(bytes_le=entry.type_guid)),
        offset=entry.first_lba * size,
        size=(entry.last_lba - entry.first_lba + 1) * size,
        name=entry.name.decode("utf-16-le", "replace").split("\0")[0],
        id=str(uuid.UUID(bytes_le=entry.unique_guid)),
    )
