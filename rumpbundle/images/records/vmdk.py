"""VMDK: the sparse extent's header and markers, and the text descriptor.

VMware, Virtual Disk Format 5.0 (technote); docs/facts/formats.md#vmdk.
"""

from __future__ import annotations

from typing import Annotated

from rumpbundle.disk.binary import Record
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.layout import SECTOR

MAGIC = b"KDMV"
FLAG_NEWLINES = 1 << 0
FLAG_REDUNDANT_TABLE = 1 << 1
FLAG_COMPRESSED = 1 << 16
FLAG_MARKERS = 1 << 17
COMPRESS_DEFLATE = 1
GD_AT_END = 0xFFFF_FFFF_FFFF_FFFF
"""As the header's ``gd_offset``: the directory is named by the footer, the last but one sector pair of the file."""
GRAIN = 64 << 10
"""Bytes of a grain, in every VMDK that is written today (the technote allows other powers of two)."""
TABLE_ENTRIES = 512
TABLE_SIZE = 4 * TABLE_ENTRIES
"""Bytes of a grain table."""


class SparseHeader(Record, order="<", size=512):
    """``SparseExtentHeader``; offsets and sizes in sectors of 512 bytes."""

    magic: Annotated[bytes, "4s"] = MAGIC
    version: Annotated[int, "I"] = 1
    flags: Annotated[int, "I"] = FLAG_NEWLINES | FLAG_REDUNDANT_TABLE
    capacity: Annotated[int, "Q"]
    grain_size: Annotated[int, "Q"] = GRAIN // SECTOR
    descriptor_offset: Annotated[int, "Q"] = 1
    descriptor_size: Annotated[int, "Q"] = 20
    table_entries: Annotated[int, "I"] = TABLE_ENTRIES
    rgd_offset: Annotated[int, "Q"]
    gd_offset: Annotated[int, "Q"]
    overhead: Annotated[int, "Q"] = 128
    unclean_shutdown: Annotated[int, "B"]
    newlines: Annotated[bytes, "4s"] = b"\n \r\n"
    """Shows a transfer in text mode."""
    compression: Annotated[int, "H"]
    reserved: Annotated[bytes, "433s"]


class GrainHeader(Record, order="<", size=12):
    """Stands before the compressed data of a grain; a ``size`` of 0 makes it a :class:`Marker`."""

    lba: Annotated[int, "Q"]
    size: Annotated[int, "I"]


MARKER_END = 0
MARKER_TABLE = 1
MARKER_DIRECTORY = 2
MARKER_FOOTER = 3


class Marker(Record, order="<", size=512):
    """Announces *sectors* of metadata in a stream."""

    sectors: Annotated[int, "Q"]
    size: Annotated[int, "I"]
    type: Annotated[int, "I"]
    pad: Annotated[bytes, "496s"]


_IDE_HEADS, _SCSI_HEADS, _TRACK = 16, 255, 63
_IDE_MAX_CYLINDERS = 16383


def descriptor(*, create_type: str, size: int, extent: str, adapter: str, identity: Identity) -> bytes:
    """Return the text descriptor of a disk of *size* bytes in one sparse extent file called *extent*.

    VirtualBox insists on ``version=1`` and takes the disk's UUID from ``ddb.uuid.image``: without it, it would draw
    one and want to write it into the file. A content id of all ones means "no parent", so the two highest are never
    used (:meth:`Identity.u32`).
    """
    heads = _IDE_HEADS if adapter == "ide" else _SCSI_HEADS
    cylinders = size // SECTOR // (heads * _TRACK)
    if adapter == "ide":
        cylinders = min(cylinders, _IDE_MAX_CYLINDERS)
    text = f"""\
# Disk DescriptorFile
version=1
encoding="UTF-8"
CID={identity.u32(f"{create_type}-cid"):08x}
parentCID=ffffffff
createType="{create_type}"

# Extent description
RW {size // SECTOR} SPARSE "{_quotable(extent)}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.adapterType = "{adapter}"
ddb.geometry.cylinders = "{max(cylinders, 1)}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "{_TRACK}"
ddb.uuid.image="{identity.uuid(f"{create_type}-image")}"
ddb.uuid.modification="{identity.uuid(f"{create_type}-modification")}"
ddb.uuid.parent="00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification="00000000-0000-0000-0000-000000000000"
"""
    return text.encode("utf-8", "surrogateescape")


def _quotable(name: str) -> str:
    """Return a file name as it can stand between quotes on one line; an embedded descriptor only informs by it."""
    return "".join("_" if c == '"' or not (c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF) else c for c in name)
