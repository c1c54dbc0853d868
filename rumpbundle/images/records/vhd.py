"""VHD: the footer that fixed and dynamic images share, and the dynamic header.

Microsoft, Virtual Hard Disk Image Format Specification 1.0 (2006); docs/facts/formats.md#vhd.
"""

from __future__ import annotations

from typing import Annotated, Self

from rumpbundle.disk.binary import Record

EPOCH_2000 = 946684800
"""The VHD epoch, 2000-01-01T00:00:00Z, in seconds since 1970."""
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NO_OFFSET = 0xFFFFFFFFFFFFFFFF
UNUSED = 0xFFFFFFFF
"""A block without a place, in the block allocation table."""


def checksum(structure: bytes) -> int:
    """Return the complement of the sum of all bytes; the checksum field in them has to be zero."""
    return ~sum(structure) & 0xFFFFFFFF


class Footer(Record, order=">", size=512):
    """The last sector of every VHD; a dynamic one has a copy at the front.

    The geometry is the largest there is, whatever the size: readers that trust it more than the size (QEMU, for
    a creator it does not know) take exactly this one for "see current_size", and the disk keeps its size to the
    byte; Azure refuses one that is not whole MiB (docs/facts/formats.md#azure).
    """

    cookie: Annotated[bytes, "8s"] = b"conectix"
    features: Annotated[int, "I"] = 2  # a reserved bit that is always set
    file_format_version: Annotated[int, "I"] = 0x00010000
    data_offset: Annotated[int, "Q"] = NO_OFFSET
    timestamp: Annotated[int, "I"] = 0  # seconds since 2000
    creator_application: Annotated[bytes, "4s"] = b"rmpb"
    creator_version: Annotated[int, "I"] = 0x00010000
    creator_host_os: Annotated[bytes, "4s"] = b"Wi2k"  # the specification knows this and "Mac "
    original_size: Annotated[int, "Q"] = 0  # bytes
    current_size: Annotated[int, "Q"] = 0  # bytes
    cylinders: Annotated[int, "H"] = 65535
    heads: Annotated[int, "B"] = 16
    sectors: Annotated[int, "B"] = 255
    disk_type: Annotated[int, "I"] = FIXED
    checksum: Annotated[int, "I"] = 0
    unique_id: Annotated[bytes, "16s"] = b""
    saved_state: Annotated[int, "B"] = 0
    reserved: Annotated[bytes, "427s"] = b""

    def sealed(self) -> Self:
        """Return this footer with its checksum."""
        return self.replace(checksum=checksum(self.replace(checksum=0).pack()))


class DynamicHeader(Record, order=">", size=1024):
    """Stands where the footer's ``data_offset`` points."""

    cookie: Annotated[bytes, "8s"] = b"cxsparse"
    data_offset: Annotated[int, "Q"] = NO_OFFSET
    table_offset: Annotated[int, "Q"]
    header_version: Annotated[int, "I"] = 0x00010000
    blocks: Annotated[int, "I"]
    block_size: Annotated[int, "I"] = 2 << 20
    checksum: Annotated[int, "I"]
    parent_id: Annotated[bytes, "16s"]
    parent_timestamp: Annotated[int, "I"]
    reserved: Annotated[int, "I"]
    parent_name: Annotated[bytes, "512s"]
    parent_locators: Annotated[bytes, "192s"]
    unused: Annotated[bytes, "256s"]

    def sealed(self) -> Self:
        """Return this header with its checksum."""
        return self.replace(checksum=checksum(self.replace(checksum=0).pack()))


def timestamp(epoch: int) -> int:
    """Return *epoch*, seconds since 1970, as a VHD counts them; what is before 2000 is 2000."""
    return max(epoch - EPOCH_2000, 0)


def footer(size: int, unique_id: bytes, epoch: int, **changes: int) -> Footer:
    """Return the footer of a disk of *size* bytes: fixed, unless *changes* say otherwise."""
    return Footer(
        timestamp=timestamp(epoch), original_size=size, current_size=size, unique_id=unique_id, **changes
    ).sealed()
