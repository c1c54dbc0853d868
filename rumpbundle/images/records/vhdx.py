"""VHDX (Microsoft, [MS-VHDX]); docs/facts/formats.md#vhdx."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Self
from uuid import UUID

from rumpbundle.disk.binary import Record
from rumpbundle.disk.layout import SECTOR

HEADERS = (64 << 10, 128 << 10)
REGION_TABLES = (192 << 10, 256 << 10)
REGION_TABLE_SIZE = 64 << 10

BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
PAGE_83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
PHYSICAL_SECTOR = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")

BLOCK_ZERO = 2
BLOCK_FULLY_PRESENT = 6
BLOCK_PARTIALLY_PRESENT = 7
HAS_PARENT = 2


class FileIdentifier(Record, order="<", size=520):
    """At the start of the file; *creator* is UTF-16."""

    signature: Annotated[bytes, "8s"] = b"vhdxfile"
    creator: Annotated[bytes, "512s"]


class Header(Record, order="<", size=4096):
    """One of two; the one with the higher sequence number counts. GUIDs have their first fields swapped."""

    signature: Annotated[bytes, "4s"] = b"head"
    checksum: Annotated[int, "I"]
    sequence: Annotated[int, "Q"]
    file_write_guid: Annotated[bytes, "16s"]
    data_write_guid: Annotated[bytes, "16s"]
    log_guid: Annotated[bytes, "16s"]
    """Not zero: the log holds what has to be replayed first."""
    log_version: Annotated[int, "H"]
    version: Annotated[int, "H"] = 1
    log_length: Annotated[int, "I"]
    log_offset: Annotated[int, "Q"]
    reserved: Annotated[bytes, "4016s"]

    def sealed(self) -> Self:
        """Return this header with its checksum."""
        return self.replace(checksum=crc32c(self.replace(checksum=0).pack()))


class RegionTableHead(Record, order="<", size=16):
    """Before the entries of a region table, whose checksum covers all of its 64 KiB."""

    signature: Annotated[bytes, "4s"] = b"regi"
    checksum: Annotated[int, "I"]
    count: Annotated[int, "I"]
    reserved: Annotated[int, "I"]


class RegionEntry(Record, order="<", size=32):
    """A part of the file; *offset* and *length* in bytes."""

    guid: Annotated[bytes, "16s"]
    offset: Annotated[int, "Q"]
    length: Annotated[int, "I"]
    required: Annotated[int, "I"]


class MetadataTableHead(Record, order="<", size=32):
    """Before the entries of the metadata table."""

    signature: Annotated[bytes, "8s"] = b"metadata"
    reserved: Annotated[int, "H"]
    count: Annotated[int, "H"]
    reserved2: Annotated[bytes, "20s"]


class MetadataEntry(Record, order="<", size=32):
    """A metadata item; *offset* in bytes from the start of the metadata region."""

    guid: Annotated[bytes, "16s"]
    offset: Annotated[int, "I"]
    length: Annotated[int, "I"]
    flags: Annotated[int, "I"]
    reserved: Annotated[int, "I"]


def region_table(regions: Mapping[UUID, tuple[int, int]]) -> bytes:
    """Return the region table of *regions*, each with its offset and length in bytes."""
    entries = [
        RegionEntry(guid=guid.bytes_le, offset=offset, length=length).pack()
        for guid, (offset, length) in regions.items()
    ]
    head = RegionTableHead(count=len(entries))
    table = b"".join((head.pack(), *entries)).ljust(REGION_TABLE_SIZE, b"\0")
    return head.replace(checksum=crc32c(table)).pack() + table[RegionTableHead.SIZE :]


_ITEMS = 64 << 10
"""Where in the metadata region the items stand, behind their table."""
_REQUIRED, _OF_THE_DISK = 1 << 2, 1 << 1


def metadata(block_size: int, disk_size: int, disk_id: UUID) -> Iterator[tuple[int, bytes]]:
    """Yield what stands where in the metadata region of a disk with sectors of 512 bytes and no parent."""
    items = (
        (FILE_PARAMETERS, _REQUIRED, struct.pack("<II", block_size, 0)),
        (DISK_SIZE, _REQUIRED | _OF_THE_DISK, struct.pack("<Q", disk_size)),
        (PAGE_83, _REQUIRED | _OF_THE_DISK, disk_id.bytes_le),
        (SECTOR_SIZE, _REQUIRED | _OF_THE_DISK, struct.pack("<I", SECTOR)),
        (PHYSICAL_SECTOR, _REQUIRED | _OF_THE_DISK, struct.pack("<I", SECTOR)),
    )
    table, at = [MetadataTableHead(count=len(items)).pack()], _ITEMS
    for guid, flags, data in items:
        table.append(MetadataEntry(guid=guid.bytes_le, offset=at, length=len(data), flags=flags).pack())
        yield at, data
        at += len(data)
    yield 0, b"".join(table)


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of *data*."""
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
