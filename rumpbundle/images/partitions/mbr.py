"""Read the MBR: four partitions, and the chain of those in an extended one."""

from __future__ import annotations

from collections.abc import Iterator

from rumpbundle.disk.gpt import MbrEntry
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium
from rumpbundle.images.partitions.table import EXTENDED, Slot, Table, misplaced
from rumpbundle.images.problem import Problem

_SIZE = 512
_SIGNATURE = b"\x55\xaa"
_MAX_LOGICAL = 128
_VOLUMES = ((3, b"NTFS    ", 84), (3, b"EXFAT   ", 120), (54, b"FAT", 62), (82, b"FAT", 90))
"""Marks of boot sectors of file systems, whose code stands where a table would, and where it begins."""
_CODE = 440
"""Bytes of boot code in front of a table."""
_NOT_BOOTABLE = b"is not a bootable disk"
"""What the code of mkfs.fat and mkntfs prints, and nothing else."""
_PC98 = b"IPL1"
"""What stands in a sector for the BIOS of an NEC PC-98."""


def read_mbr(disk: Medium, sector_size: int) -> Table | None:
    """Return the table in the first sector of *disk*, or None if there is none."""
    if disk.size < _SIZE:
        return None
    raw = disk.read(0, _SIZE)
    entries = _entries(raw)
    if entries is None:
        return None
    slots = [_slot(number, entry, 0, sector_size) for number, entry in enumerate(entries, 1) if entry.type]
    is_volume = any(raw.startswith(mark, at) for at, mark, _ in _VOLUMES)
    if not slots or (is_volume and any(slot.end > disk.size or not slot.offset for slot in slots)):
        return None
    problems: list[Problem] = []
    for slot in [slot for slot in slots if slot.type in EXTENDED]:
        slots += _logical(disk, slot, sector_size, 5 + sum(slot.number > 4 for slot in slots), problems)
    problems += misplaced("MBR", tuple(slots), disk.size, 0)
    return Table(
        kind="mbr",
        id=raw[440:444][::-1].hex(),
        slots=tuple(slots),
        problems=tuple(problems),
        sector=sector_size,
        regions=((0, _SIZE, "MBR"),),
    )


def empty_mbr(disk: Medium, sector_size: int) -> Table | None:
    """Return the table in the first sector of *disk* that has an id and no partition yet, nor boot code."""
    raw = disk.read(0, min(disk.size, _SIZE))
    if raw[510:] != _SIGNATURE or not any(raw[440:444]) or any(raw[:_CODE]) or any(raw[444:510]):
        return None
    return Table(kind="mbr", id=raw[440:444][::-1].hex(), slots=(), sector=sector_size, regions=((0, _SIZE, "MBR"),))


def has_boot_code(disk: Medium) -> bool:
    """Whether a BIOS finds code in the first sector of *disk*, and not only to say that nothing is to boot."""
    raw = disk.read(0, min(disk.size, _SIZE))
    if len(raw) < _SIZE or raw[510:512] != _SIGNATURE or raw[4:8] == _PC98 or _NOT_BOOTABLE in raw:
        return False
    start = next((start for at, mark, start in _VOLUMES if raw.startswith(mark, at)), 0)
    return len({*raw[start : 510 if start else _CODE]} - {0}) > 0


def _entries(raw: bytes) -> list[MbrEntry] | None:
    """Return the four entries in a sector; None for boot code or a file system's boot sector, which is no table."""
    if raw[510:] != _SIGNATURE:
        return None
    entries = [MbrEntry.unpack(raw, 446 + 16 * index) for index in range(4)]
    return None if any(entry.status not in (0, 0x80) for entry in entries) else entries


def _slot(number: int, entry: MbrEntry, base: int, sector_size: int) -> Slot:
    return Slot(
        number=number,
        type=f"{entry.type:02x}",
        offset=base + entry.first_lba * sector_size,
        size=entry.sectors * sector_size,
        active=entry.status == 0x80,
    )


def _logical(disk: Medium, extended: Slot, sector_size: int, number: int, problems: list[Problem]) -> Iterator[Slot]:
    """Yield the partitions in *extended*, the first as *number*; each has its own table, which names the next."""
    seen: set[int] = set()
    at = extended.offset
    while at not in seen and len(seen) < _MAX_LOGICAL:
        seen.add(at)
        try:
            entries = _entries(disk.read(at, _SIZE))
        except ImageError:
            entries = None
        if entries is None:
            problems.append(_broken(at, "no table of the extended partition stands here"))
            return
        following = 0
        for entry in entries:
            if f"{entry.type:02x}" in EXTENDED:
                following = following or entry.first_lba
            elif entry.type and entry.sectors:
                yield _slot(number, entry, at, sector_size)
                number += 1
        if not following:
            return
        at = extended.offset + following * sector_size
    problems.append(_broken(at, "the tables of the extended partition have no end"))


def _broken(at: int, what: str) -> Problem:
    return Problem(where="MBR", offset=at, what=what, consequence="further logical partitions are not found")
