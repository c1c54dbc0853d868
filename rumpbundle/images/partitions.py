"""Read partition tables: GPT, else MBR (UEFI 2.10 §5)."""

from __future__ import annotations

import uuid
import zlib
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.gpt import (
    BASIC_DATA_GUID,
    ENTRY_COUNT,
    ESP_GUID,
    LINUX_GUID,
    PROTECTIVE_MBR,
    GptEntry,
    GptHeader,
    MbrEntry,
)
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium

TYPES = {
    ESP_GUID: "EFI system partition",
    LINUX_GUID: "Linux file system",
    BASIC_DATA_GUID: "basic data",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "ee": "protective MBR",
    "ef": "EFI system partition",
    "83": "Linux file system",
    "82": "Linux swap",
    "cd": "ISO 9660",
    "17": "hidden (ISO 9660)",
    "05": "extended",
    "0c": "FAT32",
    "07": "NTFS or exFAT",
    "a9": "NetBSD",
    "a5": "FreeBSD",
}
"""What a type means: GPT type GUIDs and two-digit MBR types."""

_MAX_ENTRY = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A partition; *offset* and *size* in bytes."""

    number: int
    type: str
    """GUID, or two hexadecimal digits."""
    offset: int
    size: int
    name: str = ""
    id: str = ""
    active: bool = False

    @property
    def meaning(self) -> str:
        return TYPES.get(self.type, "")

    @property
    def is_container(self) -> bool:
        """Whether it holds no file system, but other partitions or the whole disk."""
        return self.type in ("05", "0f", "85", "ee")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A disk's partitions as one table has them; *flaws* says what is wrong with it, for people."""

    kind: OneOf["gpt", "mbr"]
    id: str
    slots: tuple[Slot, ...]
    flaws: tuple[str, ...] = ()


def tables(disk: Medium, *, thorough: bool = True) -> tuple[Table, ...]:
    """Return the partition tables of *disk*: MBR and GPT where both are; none where there is no boot signature.

    Who is not *thorough* looks at the backup GPT only if the primary one is damaged: it stands at the end of the
    disk, and in a compressed archive that is far away.
    """
    if disk.size < SECTOR:
        return ()
    sector = disk.read(0, SECTOR)
    if sector[510:] != b"\x55\xaa":
        return ()
    slots = []
    flaws = []
    for number in range(4):
        entry = MbrEntry.unpack(sector, 446 + 16 * number)
        if entry.status not in (0, 0x80):
            return ()  # boot code or a file system's boot sector, no table
        if not entry.type:
            continue
        slot = Slot(
            number=number + 1,
            type=f"{entry.type:02x}",
            offset=entry.first_lba * SECTOR,
            size=entry.sectors * SECTOR,
            active=entry.status == 0x80,
        )
        if slot.offset + slot.size > disk.size and entry.type != PROTECTIVE_MBR:
            flaws.append(f"partition {slot.number} ends behind the disk")
        slots.append(slot)
    if not slots:
        return ()
    mbr = Table(kind="mbr", id=sector[440:444][::-1].hex(), slots=tuple(slots), flaws=tuple(flaws))
    if all(slot.type != f"{PROTECTIVE_MBR:02x}" for slot in slots):
        return (mbr,)
    gpt = _gpt(disk, thorough)
    return (mbr,) if gpt is None else (mbr, gpt)


def _gpt(disk: Medium, thorough: bool) -> Table | None:
    last = disk.size // SECTOR - 1
    flaws: list[str] = []
    primary = _gpt_copy(disk, 1, "primary", flaws)
    backup = _gpt_copy(disk, last, "backup", flaws) if thorough or primary is None else None
    if primary is None and backup is None:
        return None
    header, slots = primary or backup or (GptHeader(), ())
    if primary is not None and header.alternate_lba != last:
        flaws.append("the backup GPT is not at the end of the disk")
    if primary is not None and backup is not None and slots != backup[1]:
        flaws.append("the backup GPT has other partitions than the primary")
    flaws += [f"partition {s.number} ends behind the disk" for s in slots if s.offset + s.size > disk.size]
    return Table(kind="gpt", id=str(uuid.UUID(bytes_le=header.disk_guid)), slots=slots, flaws=tuple(flaws))


def _gpt_copy(disk: Medium, lba: int, which: str, flaws: list[str]) -> tuple[GptHeader, tuple[Slot, ...]] | None:
    """Return one of the two copies, or None, with the reason in *flaws*, if it is damaged."""
    try:
        raw = disk.read(lba * SECTOR, SECTOR)
        header = GptHeader.unpack(raw)
        size, count = header.entry_size, header.entry_count
        if header.signature != b"EFI PART" or not 92 <= header.header_size <= SECTOR:
            raise ImageError("is missing")
        summed = bytearray(raw[: header.header_size])
        summed[16:20] = bytes(4)
        if zlib.crc32(summed) != header.header_crc32:
            raise ImageError("has a wrong checksum")
        if not 128 <= size <= _MAX_ENTRY or count > 8 * ENTRY_COUNT:
            raise ImageError(f"has {count} entries of {size} bytes")
        entries = disk.read(header.entries_lba * SECTOR, size * count)
        if zlib.crc32(entries) != header.entries_crc32:
            raise ImageError("has entries with a wrong checksum")
    except ImageError as error:
        flaws.append(f"the {which} GPT {error.problem}")
        return None
    slots = []
    for number in range(count):
        entry = GptEntry.unpack(entries, number * size)
        if entry.type_guid == bytes(16) or entry.last_lba < entry.first_lba:
            continue
        slots.append(
            Slot(
                number=number + 1,
                type=str(uuid.UUID(bytes_le=entry.type_guid)),
                offset=entry.first_lba * SECTOR,
                size=(entry.last_lba - entry.first_lba + 1) * SECTOR,
                name=entry.name.decode("utf-16-le", "replace").split("\0")[0],
                id=str(uuid.UUID(bytes_le=entry.unique_guid)),
            )
        )
    return header, tuple(slots)
