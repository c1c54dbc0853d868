"""What a partition table says, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.gpt import BASIC_DATA_GUID, ESP_GUID, LINUX_GUID
from rumpbundle.images.problem import Problem

TYPES = {
    ESP_GUID: "EFI system partition",
    LINUX_GUID: "Linux file system",
    BASIC_DATA_GUID: "basic data",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "ca7d7ccb-63ed-4c53-861c-1742536059cc": "LUKS",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (arm64)",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
    "48465300-0000-11aa-aa11-00306543ecac": "Apple HFS+",
    "7c3457ef-0000-11aa-aa11-00306543ecac": "Apple APFS",
    "6a898cc3-1dd2-11b2-99a6-080020736631": "Solaris or ZFS",
    "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD UFS",
    "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD ZFS",
    "aa31e02a-400f-11db-9590-000c2911d1b8": "VMware VMFS",
    "9d275380-40ad-11db-bf97-000c2911d1b8": "VMware diagnostics",
    "9198effc-31c0-11db-8f78-000c2911d1b8": "VMware reserved",
    "5808c8aa-7e8f-42e0-85d2-e90434e27be9": "Windows LDM metadata",
    "af9b60a0-1431-4f62-bc68-3311714a69ad": "Windows LDM data",
    "e75caf8f-f680-4cee-afa3-b001e56efc2d": "Windows storage pool",
    "ee": "protective MBR",
    "ef": "EFI system partition",
    "83": "Linux file system",
    "82": "Linux swap",
    "8e": "Linux LVM",
    "fd": "Linux RAID",
    "cd": "ISO 9660",
    "17": "hidden (ISO 9660)",
    "05": "extended",
    "0f": "extended",
    "85": "extended",
    "01": "FAT12",
    "04": "FAT16",
    "06": "FAT16",
    "0b": "FAT32",
    "0c": "FAT32",
    "0e": "FAT16",
    "07": "NTFS or exFAT",
    "fb": "VMware VMFS",
    "fc": "VMware diagnostics",
    "af": "Apple HFS+",
    "a8": "Apple UFS",
    "bf": "Solaris",
    "42": "Windows LDM",
    "27": "Windows recovery",
    "eb": "BeOS or Haiku",
    "81": "Minix",
    "4d": "QNX4",
    "b1": "QNX6",
    "63": "Unix",
    "39": "Plan 9",
    "a9": "NetBSD",
    "a6": "OpenBSD",
    "a5": "FreeBSD",
}
"""What a type means: GPT type GUIDs and two-digit MBR types."""

EXTENDED = ("05", "0f", "85")
"""MBR types of a partition that holds others."""

_ISO_START = 32768


TableRegion = tuple[int, int, str]
"""First byte of a part of a table, the one behind it, and what it is called."""


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
    def end(self) -> int:
        return self.offset + self.size

    @property
    def is_container(self) -> bool:
        """Whether it holds no file system, but other partitions or the whole disk."""
        return self.type in (*EXTENDED, "ee")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A disk's partitions as one table has them; *problems* says what is wrong with it."""

    kind: OneOf["gpt", "mbr"]
    id: str
    slots: tuple[Slot, ...]
    problems: tuple[Problem, ...] = ()
    sector: int = 512
    """The bytes of the blocks it counts in."""
    whole: bool = True
    """Of a GPT: both copies can be read, and have the same partitions."""
    regions: tuple[TableRegion, ...] = ()
    """Where it stands on the disk."""

    @property
    def end(self) -> int:
        """Where its last part ends: a GPT's is the end of the disk, or where that was before the disk grew."""
        return max(end for _, end, _ in self.regions)

    @property
    def flaws(self) -> tuple[str, ...]:
        """What is wrong with it, for people."""
        return tuple(problem.what for problem in self.problems)


def misplaced(where: str, slots: tuple[Slot, ...], size: int, table: int) -> Iterator[Problem]:
    """Yield what is wrong with the places of *slots* on a disk of *size* bytes; their table stands at *table*."""

    def problem(what: str, consequence: str) -> Problem:
        return Problem(where=where, offset=table, what=what, consequence=consequence)

    for slot in slots:
        if slot.end > size and slot.type != "ee":
            yield problem(f"partition {slot.number} ends behind the disk", "what is missing of it cannot be read")
    placed = sorted((slot for slot in slots if not slot.is_container and slot.size), key=lambda slot: slot.offset)
    reach = None
    for slot in placed:
        # A CD that is a disk, too, often has a partition that is all of it, and others inside.
        if reach is not None and slot.offset < reach.end and reach.offset > _ISO_START:
            yield problem(
                f"partitions {reach.number} and {slot.number} overlap", "who writes to one damages the other"
            )
        if reach is None or slot.end > reach.end:
            reach = slot
