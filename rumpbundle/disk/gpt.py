"""Partition tables: GPT with its protective MBR, or a plain MBR.

Sources: UEFI Specification 2.10 §5 (GPT, protective MBR); docs/facts/guests.md#rumprun-disks for why
some guests need the plain MBR. Every GUID comes from the bundle's identity.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import Annotated

from rumpbundle.disk.binary import Record
from rumpbundle.disk.content import Late
from rumpbundle.disk.layout import SECTOR, DiskLayout, Extent, Partition, TableWriter
from rumpbundle.errors import InputError

ENTRY_COUNT = 128
ENTRIES_BYTES = ENTRY_COUNT * 128
NAME_BYTES = 72
"""Bytes of a partition's name in UTF-16."""
HEAD_BYTES = 2 * SECTOR + ENTRIES_BYTES
"""MBR, GPT header and entries at the start of the disk."""
BACKUP_BYTES = ENTRIES_BYTES + SECTOR
"""Entries and header at its end."""
BOOT_CODE_BYTES = 440

ESP_GUID = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX_GUID = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BASIC_DATA_GUID = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
ESP_MBR = 0xEF
LINUX_MBR = 0x83
PROTECTIVE_MBR = 0xEE


class MbrEntry(Record, order="<", size=16):
    """One of the four entries at byte 446 of the MBR."""

    status: Annotated[int, "B"] = 0
    first_chs: Annotated[bytes, "3s"] = b""
    type: Annotated[int, "B"] = 0
    last_chs: Annotated[bytes, "3s"] = b""
    first_lba: Annotated[int, "I"] = 0
    sectors: Annotated[int, "I"] = 0


class GptHeader(Record, order="<", size=92):
    """UEFI 2.10 table 5.5."""

    signature: Annotated[bytes, "8s"] = b"EFI PART"
    revision: Annotated[int, "I"] = 0x00010000
    header_size: Annotated[int, "I"] = 92
    header_crc32: Annotated[int, "I"] = 0
    reserved: Annotated[int, "I"] = 0
    my_lba: Annotated[int, "Q"] = 0
    alternate_lba: Annotated[int, "Q"] = 0
    first_usable_lba: Annotated[int, "Q"] = 0
    last_usable_lba: Annotated[int, "Q"] = 0
    disk_guid: Annotated[bytes, "16s"] = b""
    entries_lba: Annotated[int, "Q"] = 0
    entry_count: Annotated[int, "I"] = ENTRY_COUNT
    entry_size: Annotated[int, "I"] = 128
    entries_crc32: Annotated[int, "I"] = 0


class GptEntry(Record, order="<", size=128):
    """UEFI 2.10 table 5.6; both LBAs belong to the partition."""

    type_guid: Annotated[bytes, "16s"] = b""
    unique_guid: Annotated[bytes, "16s"] = b""
    first_lba: Annotated[int, "Q"] = 0
    last_lba: Annotated[int, "Q"] = 0
    attributes: Annotated[int, "Q"] = 0
    name: Annotated[bytes, "72s"] = b""


_ACTIVE = MbrEntry(status=0x80, first_chs=bytes(3), type=0, last_chs=bytes(3), first_lba=0, sectors=1)
"""Strict BIOSes want an active entry (docs/facts/peers.md#rules-of-the-platforms); the protective one must not be it
(UEFI 2.10 §5.2.3). Of type 0 it is no partition to anybody else; GNU xorriso writes the same."""


def gpt_table(boot_code: bytes) -> TableWriter:
    """Return the writer of a GPT whose protective MBR starts with *boot_code* (at most 440 bytes)."""

    def write(disk: DiskLayout) -> tuple[Extent, ...]:
        if len(disk.partitions) > ENTRY_COUNT:
            raise InputError(f"{len(disk.partitions)} partitions do not fit a GPT, which holds {ENTRY_COUNT}")
        for partition in disk.partitions:
            if len(partition.name.encode("utf-16-le", "surrogatepass")) > NAME_BYTES:
                raise InputError(
                    f"has more than the {NAME_BYTES // 2} characters of a GPT name", where=partition.name
                )
        last = disk.size // SECTOR - 1

        def head() -> bytes:
            protective = MbrEntry(
                first_chs=b"\x00\x02\x00",
                type=PROTECTIVE_MBR,
                last_chs=_chs(last),
                first_lba=1,
                sectors=min(last, 0xFFFFFFFF),
            )
            header, entries = _gpt(disk, my_lba=1, entries_lba=2)
            return _mbr(disk, boot_code, [protective, _ACTIVE]) + header + entries

        def backup() -> bytes:
            header, entries = _gpt(disk, my_lba=last, entries_lba=last - ENTRIES_BYTES // SECTOR)
            return entries + header

        return (
            Extent(0, Late(HEAD_BYTES, head), "protective MBR and GPT"),
            Extent(disk.size - BACKUP_BYTES, Late(BACKUP_BYTES, backup), "backup GPT"),
        )

    return write


def mbr_table(boot_code: bytes) -> TableWriter:
    """Return the writer of a plain MBR that starts with *boot_code* (at most 440 bytes)."""

    def write(disk: DiskLayout) -> tuple[Extent, ...]:
        if len(disk.partitions) > 4:
            raise InputError(f"{len(disk.partitions)} partitions do not fit an MBR, which holds 4")
        for partition in disk.partitions:
            if partition.last_lba > 0xFFFFFFFF:
                raise InputError(f"partition {partition.name} ends past the 2 TiB an MBR can express")

        def head() -> bytes:
            entries = []
            for index, partition in enumerate(disk.partitions):
                entries.append(
                    MbrEntry(
                        # Strict BIOSes want an active entry (docs/facts/peers.md#rules-of-the-platforms).
                        status=0x80 if index == 0 else 0,
                        first_chs=_chs(partition.first_lba),
                        type=partition.mbr_type,
                        last_chs=_chs(partition.last_lba),
                        first_lba=partition.first_lba,
                        sectors=partition.length // SECTOR,
                    )
                )
            return _mbr(disk, boot_code, entries)

        return (Extent(0, Late(SECTOR, head), "MBR"),)

    return write


def _mbr(disk: DiskLayout, boot_code: bytes, entries: list[MbrEntry]) -> bytes:
    if len(boot_code) > BOOT_CODE_BYTES:
        raise ValueError(f"boot code of {len(boot_code)} bytes does not fit an MBR")
    table = b"".join(entry.pack() for entry in entries).ljust(64, b"\0")
    signature = struct.pack("<IH", disk.identity.u32("MBR disk signature"), 0)
    return boot_code.ljust(BOOT_CODE_BYTES, b"\0") + signature + table + b"\x55\xaa"


def _chs(lba: int) -> bytes:
    """Return *lba* as the three CHS bytes for 255 heads and 63 sectors, or the largest they can say."""
    cylinder, rest = divmod(lba, 255 * 63)
    if cylinder > 1023:
        return b"\xfe\xff\xff"
    head, sector = divmod(rest, 63)
    return bytes([head, (sector + 1) | (cylinder >> 2) & 0xC0, cylinder & 0xFF])


def _gpt(disk: DiskLayout, *, my_lba: int, entries_lba: int) -> tuple[bytes, bytes]:
    """Return header sector and entries for the copy at *my_lba*."""
    last = disk.size // SECTOR - 1
    packed = [
        GptEntry(
            type_guid=uuid.UUID(partition.type_guid).bytes_le,
            unique_guid=disk.identity.uuid(f"GPT partition {number}").bytes_le,
            first_lba=partition.first_lba,
            last_lba=partition.last_lba,
            name=partition.name.encode("utf-16-le", "surrogatepass"),
        ).pack()
        for number, partition in enumerate(_by_place(disk.partitions), 1)
    ]
    entries = b"".join(packed).ljust(ENTRIES_BYTES, b"\0")
    header = GptHeader(
        my_lba=my_lba,
        alternate_lba=last if my_lba == 1 else 1,
        first_usable_lba=HEAD_BYTES // SECTOR,
        last_usable_lba=last - BACKUP_BYTES // SECTOR,
        disk_guid=disk.identity.uuid("GPT disk").bytes_le,
        entries_lba=entries_lba,
        entries_crc32=zlib.crc32(entries),
    )
    header = header.replace(header_crc32=zlib.crc32(header.pack()))
    return header.pack().ljust(SECTOR, b"\0"), entries


def _by_place(partitions: tuple[Partition, ...]) -> list[Partition]:
    return sorted(partitions, key=lambda partition: partition.offset)
