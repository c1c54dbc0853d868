"""What firmware starts from a disk, as far as the disk itself tells: for kits, which announce it."""

from __future__ import annotations

import posixpath

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget
from rumpbundle.images.detect import file_system
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystems.fat import Fat
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.medium import Window
from rumpbundle.images.partitions import Slot, tables
from rumpbundle.images.partitions.mbr import has_boot_code
from rumpbundle.kernels.unikernel import Firmware

_FALLBACK = {"BOOTX64.EFI": "x86-64", "BOOTAA64.EFI": "aarch64", "BOOTIA32.EFI": "i386", "BOOTRISCV64.EFI": "riscv64"}
"""What firmware starts without being told, and on which machines (UEFI 2.10 §3.5.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootability:
    """What starts from a disk (not from a CD)."""

    firmware: tuple[Firmware, ...] = ()
    machine: str = "x86-64"
    cd: bool = False
    """Whether it starts from a CD, by El Torito."""
    why: str = ""
    """What is missing, for messages; empty if anything starts."""


def bootability(disk: Disk) -> Bootability:
    """Return what firmware starts from *disk*.

    Raises:
        ImageError: a partition table is damaged beyond reading.
    """
    firmware = []
    machine = "x86-64"
    budget = Budget()
    if has_boot_code(disk):
        firmware.append(Firmware.BIOS)
    for slot in (slot for table in tables(disk) for slot in table.slots if slot.meaning == "EFI system partition"):
        if found := _loader(disk, slot, budget):
            firmware.append(Firmware.UEFI)
            machine = found
            break
    cd = _starts_from_cd(disk)
    why = "" if firmware else "it has neither boot code in its first sector nor EFI/BOOT/BOOTX64.EFI on an ESP"
    return Bootability(firmware=tuple(firmware), machine=machine, cd=cd, why=why)


def _loader(disk: Disk, slot: Slot, budget: Budget) -> str:
    """Return the machine whose firmware finds a loader in *slot*; empty if none does.

    What ``check`` finds in any FAT (:mod:`rumpbundle.launcher.subject`) is not enough to announce a cloud UEFI.
    """
    try:
        files = file_system(Window(disk, slot.offset, min(slot.size, disk.size - slot.offset), "the ESP"))
        if not isinstance(files, Fat):
            return ""
        for entry in files.entries("/", budget):
            directory, name = posixpath.split(entry.path.upper())
            if directory == "/EFI/BOOT" and name in _FALLBACK:
                return _FALLBACK[name]
    except ImageError:
        return ""
    return ""


def _starts_from_cd(disk: Disk) -> bool:
    try:
        files = file_system(disk)
        return isinstance(files, Iso9660) and any(entry.bootable for entry in files.boot_entries)
    except ImageError:
        return False


__all__ = ["Bootability", "bootability"]
